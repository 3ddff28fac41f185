//! Sliding windows: a result whenever the content of the last `size` ticks changes.
//!
//! In: rows in time order. Out: for each key a result at every entry of a row and at every exit. Invariant: each change
//! point is worked off once, when no row of that time can come any more. Several changes at one moment give one result,
//! or none when no row is left. Not here: evaluation of keys.

use std::collections::{BTreeSet, VecDeque};

use super::accumulate::Acc;
use super::fault::{Fault, Unloadable};
use super::group::Group;
use super::held::Held;
use super::history::History;
use super::key::Key;
use super::prepared::PreparedRow;
use super::state::{Loaded, StateWriter};
use crate::batch::RowMeta;
use crate::query::plan::Aggregate;
use crate::value::Value;
use crate::value::codec::{ByteReader, put_signed};

/// State rows: the held rows take kinds from here on, one a window.
const ROWS: u8 = 64;
const DONE: u8 = 2;
/// About what a change point holds.
const POINT_BYTES: usize = 2 * size_of::<(i64, Key)>();

const TOO_SHORT: Fault = Fault("a row held for a sliding window has fewer values than its group has keys");

#[derive(Debug)]
pub(super) struct Sliding {
    size: i64,
    /// Keys before the arguments in a held row.
    keys: usize,
    rows: History,
    /// Moments at which the content of a key changes.
    points: BTreeSet<(i64, Key)>,
    /// Points before this are worked off.
    done: i64,
    done_changed: bool,
}

impl Sliding {
    pub(super) fn new(size: i64, keys: usize, window: u8) -> Sliding {
        let rows = History::new(ROWS.saturating_add(window), size);
        Sliding { size: size.max(1), keys, rows, points: BTreeSet::new(), done: i64::MIN, done_changed: false }
    }

    pub(super) fn add(&mut self, meta: &RowMeta, row: &PreparedRow) {
        let values = row.keys.iter().chain(&row.args).cloned().collect();
        self.rows.push(&row.key, Held { meta: *meta, flag: false, values });
        self.schedule(meta.time.ticks(), &row.key);
    }

    pub(super) fn size(&self) -> i64 {
        self.size
    }

    /// The arguments of all rows held, those of a key in time order.
    pub(super) fn held(&self) -> impl Iterator<Item = (&[u8], &[Value])> {
        let keys = self.keys;
        let rows =
            self.rows.keys().flat_map(|key| self.rows.get(key).into_iter().flatten().map(move |held| (key, held)));
        rows.map(move |(key, held)| (key, held.values.get(keys..).unwrap_or_default()))
    }

    fn schedule(&mut self, time: i64, key: &[u8]) {
        for point in [time, time.saturating_add(self.size)] {
            if point >= self.done {
                self.points.insert((point, key.into()));
            }
        }
    }

    pub(super) fn next_end(&self) -> Option<i64> {
        self.points.first().map(|(point, _)| *point)
    }

    /// Works off the first change point, which is at `end`.
    pub(super) fn close(
        &mut self,
        end: i64,
        aggregates: &[Aggregate],
        mut put: impl FnMut(&RowMeta, &[Value], &[Acc]),
    ) -> Result<(), Fault> {
        let (_, key) = self.points.pop_first().ok_or(Fault("a sliding window ends that has no change point"))?;
        self.rows.expire(&key, end.saturating_sub(self.size));
        self.done = end;
        self.done_changed = true;
        // nothing is left: no result
        let Some(last) = self.rows.get(&key).and_then(VecDeque::back) else { return Ok(()) };
        if last.time() > end {
            // a row behind the point: only rows of equal time come before their point is worked off
            return self.recompute(&key, end, aggregates, put);
        }
        if let Some(total) = self.rows.total(&key, aggregates, self.keys, end, self.size)? {
            put(&total.newest, total.first.values.get(..self.keys).ok_or(TOO_SHORT)?, &total.accs);
        }
        Ok(())
    }

    fn recompute(
        &self,
        key: &[u8],
        end: i64,
        aggregates: &[Aggregate],
        mut put: impl FnMut(&RowMeta, &[Value], &[Acc]),
    ) -> Result<(), Fault> {
        let rows = self.rows.get(key).into_iter().flatten();
        let mut group: Option<Group> = None;
        for held in rows.take_while(|held| held.time() <= end) {
            let (keys, args) = held.values.split_at_checked(self.keys).ok_or(TOO_SHORT)?;
            group.get_or_insert_with(|| Group::new(aggregates, held.meta, keys)).add(aggregates, &held.meta, args)?;
        }
        // without rows up to the point there is no result
        group.iter().for_each(|group| put(&group.newest, &group.keys, &group.accs));
        Ok(())
    }

    pub(super) fn changes(&mut self, window: u8, writer: &mut StateWriter<'_>) -> Result<(), Fault> {
        let rows = self.rows.changes(writer);
        if std::mem::take(&mut self.done_changed) {
            let mut value = Vec::new();
            // other keys may have the same point still before them
            let all = self.points.first().is_none_or(|(point, _)| *point > self.done);
            put_signed(&mut value, if all { self.done.saturating_add(1) } else { self.done });
            writer.put(DONE, &[window], Some(value));
        }
        rows
    }

    pub(super) fn load(&mut self, loaded: &Loaded<'_>) -> Result<(), Unloadable> {
        if loaded.kind == DONE {
            self.done = ByteReader::new(loaded.value).signed()?;
            return Ok(());
        }
        self.rows.load(loaded)
    }

    /// Finds the change points of loaded rows again.
    pub(super) fn loaded(&mut self) {
        let found: Vec<(i64, Key)> = self
            .rows
            .keys()
            .flat_map(|key| self.rows.get(key).into_iter().flatten().map(move |held| (held.time(), Key::from(key))))
            .collect();
        for (time, key) in found {
            self.schedule(time, &key);
        }
    }

    pub(super) fn retire(&mut self, window: u8, writer: &mut StateWriter<'_>) {
        if self.done > i64::MIN {
            writer.put(DONE, &[window], None);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.rows.bytes() + self.points.len() * POINT_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == 0
    }
}

/// Whether a state row of this kind belongs to the sliding window of this number.
pub(super) fn owns(kind: u8, window: u8) -> bool {
    kind == ROWS.saturating_add(window)
}

//! Windows with fixed ends: tumbling, hopping, snapshot.
//!
//! In: rows in time order. Out: a result for each group at each end. Invariant: time is cut into panes such that a
//! window is a whole number of panes, and a row is kept in exactly one pane however many windows it lies in. A snapshot
//! is a tumbling window of one tick. Not here: evaluation of keys.

use std::collections::BTreeMap;

use super::accumulate::Acc;
use super::fault::{Fault, Unloadable};
use super::pane::Pane;
use super::prepared::PreparedRow;
use super::state::{Loaded, StateWriter};
use crate::batch::RowMeta;
use crate::query::plan::Aggregate;
use crate::value::Value;
use crate::value::codec::{ByteReader, put_signed, put_varint};

const GROUP: u8 = 0;
const DONE: u8 = 1;

/// Aggregates whose state grows with the rows get this many panes a window, so that a commit rewrites only a part.
const GROWING_PANES: i64 = 32;

#[derive(Debug)]
pub(super) struct Fixed {
    size: i64,
    hop: i64,
    offset: i64,
    pane: i64,
    panes: BTreeMap<i64, Pane>,
    /// Windows that end at or before this are out.
    done: i64,
    done_changed: bool,
    /// Panes changed since the last commit; few.
    dirty: Vec<i64>,
    /// State rows to remove: pane and number.
    gone: Vec<(i64, u32)>,
    aggregates: usize,
}

impl Fixed {
    pub(super) fn new(size: i64, hop: i64, offset: i64, growing: bool, aggregates: usize) -> Fixed {
        let (size, hop) = (size.max(1), hop.max(1));
        let mut pane = gcd(size, hop);
        if growing && pane % GROWING_PANES == 0 {
            pane /= GROWING_PANES;
        }
        let (panes, dirty, gone) = (BTreeMap::new(), Vec::new(), Vec::new());
        Fixed {
            size,
            hop,
            offset: offset % hop,
            pane,
            panes,
            done: i64::MIN,
            done_changed: false,
            dirty,
            gone,
            aggregates,
        }
    }

    /// The first end of a grid that is not before `t`.
    fn grid(&self, t: i64, step: i64) -> i64 {
        let from = t - self.offset;
        self.offset + (from.div_euclid(step) + i64::from(from.rem_euclid(step) > 0)) * step
    }

    pub(super) fn add(&mut self, aggregates: &[Aggregate], meta: &RowMeta, row: &PreparedRow) -> Result<(), Fault> {
        let pane = self.grid(meta.time.ticks(), self.pane);
        // between windows, where the hop is longer than the size
        if self.first_start(meta).is_none() {
            return Ok(());
        }
        if !self.panes.contains_key(&pane) {
            // keys are much the same from pane to pane
            let fresh =
                self.panes.last_key_value().map_or_else(Pane::default, |(_, last)| Pane::like(last, self.aggregates));
            self.panes.insert(pane, fresh);
        }
        if self.dirty.last() != Some(&pane) && !self.dirty.contains(&pane) {
            self.dirty.push(pane);
        }
        let missing = Fault("a pane is not there that a row was put into");
        self.panes.get_mut(&pane).ok_or(missing)?.add(aggregates, meta, row)
    }

    /// Whether a window may be put together from several panes.
    pub(super) fn has_panes(&self) -> bool {
        self.pane < self.size
    }

    pub(super) fn size(&self) -> i64 {
        self.size
    }

    /// The start of the first window that holds a row of this time.
    pub(super) fn first_start(&self, meta: &RowMeta) -> Option<i64> {
        let pane = self.grid(meta.time.ticks(), self.pane);
        let start = self.grid(pane, self.hop) - self.size;
        (start < pane).then_some(start)
    }

    /// An accumulator of the group that a row will enter, if it has begun.
    pub(super) fn acc_mut(&mut self, meta: &RowMeta, row: &PreparedRow, place: usize) -> Option<&mut Acc> {
        let pane = self.grid(meta.time.ticks(), self.pane);
        self.panes.get_mut(&pane)?.acc_mut(&row.key, place, self.aggregates)
    }

    /// An accumulator of all groups, those of earlier panes first.
    pub(super) fn accs(&self, place: usize) -> impl Iterator<Item = (&[u8], &Acc)> {
        self.panes.values().flat_map(move |pane| pane.accs(place, self.aggregates))
    }

    /// The end of the next window that holds a row.
    pub(super) fn next_end(&self) -> Option<i64> {
        let (first, _) = self.panes.first_key_value()?;
        let end = self.grid(*first, self.hop);
        Some(if end > self.done { end } else { self.grid(self.done.saturating_add(1), self.hop) })
    }

    /// Gives the results of the window that ends at `end`, and forgets the panes that no later window holds.
    pub(super) fn close(
        &mut self,
        end: i64,
        aggregates: &[Aggregate],
        put: impl FnMut(&RowMeta, &[Value], &[Acc]),
    ) -> Result<(), Fault> {
        let given = self.give(end, aggregates, put);
        self.done = end;
        self.done_changed = self.hop != self.size;
        let still_needed_after = end.saturating_add(self.hop).saturating_sub(self.size);
        while let Some(entry) = self.panes.first_entry()
            && *entry.key() <= still_needed_after
        {
            let (pane, groups) = entry.remove_entry();
            self.gone.extend(groups.stored().map(|number| (pane, number)));
        }
        given
    }

    fn give(
        &self,
        end: i64,
        aggregates: &[Aggregate],
        put: impl FnMut(&RowMeta, &[Value], &[Acc]),
    ) -> Result<(), Fault> {
        let from = end.saturating_sub(self.size);
        let mut inside = self.panes.range(from + 1..=end);
        match (inside.next(), inside.next()) {
            (Some((_, only)), None) => only.results(self.aggregates, put),
            (Some((_, first)), Some((_, second))) => {
                let mut whole = Pane::like(second, self.aggregates);
                for pane in [first, second].into_iter().chain(inside.map(|(_, pane)| pane)) {
                    whole.merge(aggregates, pane)?;
                }
                whole.results(self.aggregates, put);
            }
            // what is held lies in later windows alone
            (None, _) => {}
        }
        Ok(())
    }

    pub(super) fn changes(&mut self, window: u8, writer: &mut StateWriter<'_>) -> Result<(), Fault> {
        let rest = |pane: i64, number: u32| {
            let mut rest = vec![window];
            put_signed(&mut rest, pane);
            put_varint(&mut rest, u64::from(number));
            rest
        };
        for (pane, number) in self.gone.drain(..) {
            writer.put(GROUP, &rest(pane, number), None);
        }
        let mut found = Ok(());
        for pane in self.dirty.drain(..) {
            // one whose windows are out is gone
            if let Some(groups) = self.panes.get_mut(&pane) {
                found = found.and(
                    groups.changes(self.aggregates, |number, value| writer.put(GROUP, &rest(pane, number), value)),
                );
            }
        }
        if std::mem::take(&mut self.done_changed) {
            let mut value = Vec::new();
            put_signed(&mut value, self.done);
            writer.put(DONE, &[window], Some(value));
        }
        found
    }

    /// `rest` is what follows the window's number in the key.
    pub(super) fn load(
        &mut self,
        aggregates: &[Aggregate],
        loaded: &Loaded<'_>,
        rest: &[u8],
    ) -> Result<(), Unloadable> {
        if loaded.kind == DONE {
            self.done = ByteReader::new(loaded.value).signed()?;
            return Ok(());
        }
        let mut reader = ByteReader::new(rest);
        let pane = reader.signed()?;
        let number = u32::try_from(reader.varint()?).unwrap_or(u32::MAX);
        self.panes.entry(pane).or_default().load(aggregates, number, loaded.value)
    }

    pub(super) fn retire(&mut self, window: u8, writer: &mut StateWriter<'_>) {
        if self.done > i64::MIN && self.hop != self.size {
            writer.put(DONE, &[window], None);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.panes.values().map(Pane::bytes).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.panes.is_empty() && self.gone.is_empty()
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

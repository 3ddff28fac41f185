//! Windows with fixed ends: tumbling, hopping, snapshot.
//!
//! In: rows in time order. Out: a result for each group at each end. Invariant: time is cut into panes such that a window
//! is a whole number of panes, and a row is kept in exactly one pane however many windows it lies in. A snapshot is a
//! tumbling window of one tick. Not here: evaluation of keys.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::group::{Group, Prepared, Sink};
use super::state::{Loaded, Writer};
use crate::batch::RowMeta;
use crate::query::plan::Aggregate;
use crate::value::codec::{Damaged, Reader, put_signed};

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
    dirty: Vec<(i64, Box<[u8]>)>,
    gone: Vec<(i64, Box<[u8]>)>,
}

type Pane = FxHashMap<Box<[u8]>, Group>;

impl Fixed {
    pub(super) fn new(size: i64, hop: i64, offset: i64, growing: bool) -> Fixed {
        let (size, hop) = (size.max(1), hop.max(1));
        let mut pane = gcd(size, hop);
        if growing && pane % GROWING_PANES == 0 {
            pane /= GROWING_PANES;
        }
        let (panes, dirty, gone) = (BTreeMap::new(), Vec::new(), Vec::new());
        Fixed { size, hop, offset: offset % hop, pane, panes, done: i64::MIN, done_changed: false, dirty, gone }
    }

    /// The first end of a grid that is not before `t`.
    fn grid(&self, t: i64, step: i64) -> i64 {
        let from = t - self.offset;
        self.offset + (from.div_euclid(step) + i64::from(from.rem_euclid(step) > 0)) * step
    }

    pub(super) fn add(&mut self, aggregates: &[Aggregate], meta: &RowMeta, row: &Prepared) {
        let pane = self.grid(meta.time.ticks(), self.pane);
        // between windows, where the hop is longer than the size
        if self.first_start(meta).is_none() {
            return;
        }
        let groups = self.panes.entry(pane).or_default();
        let group = match groups.get_mut(row.key.as_slice()) {
            Some(group) => group,
            None => groups.entry(row.key.as_slice().into()).or_insert_with(|| Group::new(aggregates, *meta, &row.keys)),
        };
        group.add(aggregates, meta, &row.args);
        if !group.dirty {
            group.dirty = true;
            self.dirty.push((pane, row.key.as_slice().into()));
        }
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

    /// The group that a row will enter, if it has begun.
    pub(super) fn group_mut(&mut self, meta: &RowMeta, row: &Prepared) -> Option<&mut Group> {
        let pane = self.grid(meta.time.ticks(), self.pane);
        self.panes.get_mut(&pane)?.get_mut(row.key.as_slice())
    }

    /// All groups, those of earlier panes first.
    pub(super) fn groups(&self) -> impl Iterator<Item = (&[u8], &Group)> {
        self.panes.values().flatten().map(|(key, group)| (key.as_ref(), group))
    }

    /// The end of the next window that holds a row.
    pub(super) fn next_end(&self) -> Option<i64> {
        let (first, _) = self.panes.first_key_value()?;
        let end = self.grid(*first, self.hop);
        Some(if end > self.done { end } else { self.grid(self.done.saturating_add(1), self.hop) })
    }

    /// Gives the results of the window that ends at `end`, and forgets the panes that no later window holds.
    pub(super) fn close(&mut self, end: i64, sink: &mut Sink<'_>) {
        let from = end.saturating_sub(self.size);
        let mut inside = self.panes.range(from + 1..=end);
        match (inside.next(), inside.next()) {
            (Some((_, only)), None) => sink.groups(end, only.iter().map(|(k, g)| (k.as_ref(), g)).collect()),
            _ => {
                let mut merged: FxHashMap<&[u8], Group> = FxHashMap::default();
                for (key, group) in self.panes.range(from + 1..=end).flat_map(|(_, pane)| pane) {
                    match merged.get_mut(key.as_ref()) {
                        Some(whole) => whole.merge(sink.aggregates, group),
                        None => drop(merged.insert(key, group.clone())),
                    }
                }
                sink.groups(end, merged.iter().map(|(k, g)| (*k, g)).collect());
            }
        }
        self.done = end;
        self.done_changed = self.hop != self.size;
        let still_needed_after = end.saturating_add(self.hop).saturating_sub(self.size);
        while let Some(entry) = self.panes.first_entry()
            && *entry.key() <= still_needed_after
        {
            let (pane, groups) = entry.remove_entry();
            self.gone.extend(groups.into_iter().filter(|(_, g)| g.stored).map(|(key, _)| (pane, key)));
        }
    }

    pub(super) fn changes(&mut self, window: u8, writer: &mut Writer<'_>) {
        let rest = |pane: i64, key: &[u8]| {
            let mut rest = vec![window];
            put_signed(&mut rest, pane);
            rest.extend_from_slice(key);
            rest
        };
        for (pane, key) in self.gone.drain(..) {
            writer.put(GROUP, &rest(pane, &key), None);
        }
        for (pane, key) in self.dirty.drain(..) {
            if let Some(group) = self.panes.get_mut(&pane).and_then(|p| p.get_mut(&key)) {
                group.dirty = false;
                group.stored = true;
                writer.put(GROUP, &rest(pane, &key), Some(group.write()));
            }
        }
        if std::mem::take(&mut self.done_changed) {
            let mut value = Vec::new();
            put_signed(&mut value, self.done);
            writer.put(DONE, &[window], Some(value));
        }
    }

    /// `rest` is what follows the window's number in the key.
    pub(super) fn load(&mut self, aggregates: &[Aggregate], loaded: &Loaded<'_>, rest: &[u8]) -> Result<(), Damaged> {
        if loaded.kind == DONE {
            self.done = Reader::new(loaded.value).signed()?;
            return Ok(());
        }
        let mut reader = Reader::new(rest);
        let pane = reader.signed()?;
        let mut length = Vec::new();
        put_signed(&mut length, pane);
        let key = rest.get(length.len()..).unwrap_or_default();
        self.panes.entry(pane).or_default().insert(key.into(), Group::read(aggregates, loaded.value)?);
        Ok(())
    }

    pub(super) fn retire(&mut self, window: u8, writer: &mut Writer<'_>) {
        if self.done > i64::MIN && self.hop != self.size {
            writer.put(DONE, &[window], None);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.panes.values().flatten().map(|(k, g)| k.len() + g.bytes()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.panes.is_empty() && self.gone.is_empty()
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

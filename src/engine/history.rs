//! Rows that an operator holds, by key and in time order.
//!
//! In: rows to keep. Out: the rows of a key, oldest first; the state rows that changed. Invariant: rows of a key are
//! sorted by (time, offset), rows of equal place keep the order they came in. They are stored in buckets of time, so a
//! commit writes the buckets that changed and not what is held. Not here: when a row may go (each operator knows).

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::accumulate::Acc;
use super::fault::{Fault, Unloadable};
use super::held::Held;
use super::key::Key;
use super::running::Running;
use super::state::{Loaded, StateWriter, put_meta, put_values, read_meta, read_values};
use crate::batch::RowMeta;
use crate::query::plan::Aggregate;
use crate::value::codec::{ByteReader, put_bytes, put_signed, put_varint};

/// A span of held time is stored in about this many rows: more would cost rows, fewer would rewrite more of each.
pub(super) const BUCKETS: i64 = 16;

#[derive(Debug)]
pub(super) struct History {
    /// Kind byte of its state rows.
    kind: u8,
    /// Ticks of one bucket.
    bucket: i64,
    shelves: FxHashMap<Key, Shelf>,
    changed: Vec<Key>,
    rows: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Shelf {
    rows: VecDeque<Held>,
    /// Buckets changed since the last commit, and buckets that have a state row; both short.
    dirty: Vec<i64>,
    stored: Vec<i64>,
    /// Once aggregates of the rows were asked for.
    running: Option<Box<Running>>,
    aggregates: usize,
}

impl Shelf {
    fn touch(&mut self, bucket: i64, key: &[u8], changed: &mut Vec<Key>) {
        if self.dirty.is_empty() {
            changed.push(key.into());
        }
        if self.dirty.last() != Some(&bucket) && !self.dirty.contains(&bucket) {
            self.dirty.push(bucket);
        }
    }

    /// Puts a row in its place; gives what it costs.
    fn push(&mut self, bucket: i64, key: &[u8], held: Held, changed: &mut Vec<Key>) -> usize {
        self.touch(bucket, key, changed);
        let bytes = self.bytes_of(&held);
        let last = self.rows.len();
        // most rows come in order
        let later = self.rows.iter().rev().take_while(|before| before.place() > held.place()).count();
        if later > 0
            && let Some(running) = &mut self.running
        {
            running.disturb();
        }
        self.rows.insert(last - later, held);
        bytes
    }

    fn pop_front(&mut self) -> Option<Held> {
        let held = self.rows.pop_front()?;
        if let Some(running) = &mut self.running {
            running.pop_front(self.aggregates);
        }
        Some(held)
    }

    /// What a row costs here: itself, and its part in running aggregates.
    fn bytes_of(&self, held: &Held) -> usize {
        held.bytes() + self.aggregates * size_of::<Acc>()
    }
}

/// What a key costs beside its rows.
const SHELF_BYTES: usize = size_of::<Key>() + size_of::<Shelf>() + 64;

impl History {
    /// `span`: about how many ticks a row is held.
    pub(super) fn new(kind: u8, span: i64) -> History {
        History {
            kind,
            bucket: (span / BUCKETS).max(1),
            shelves: FxHashMap::default(),
            changed: Vec::new(),
            rows: 0,
            bytes: 0,
        }
    }

    /// Number of rows held.
    pub(super) fn len(&self) -> usize {
        self.rows
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&VecDeque<Held>> {
        self.shelves.get(key).map(|s| &s.rows)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.shelves.iter().filter(|(_, s)| !s.rows.is_empty()).map(|(k, _)| &**k)
    }

    pub(super) fn push(&mut self, key: &[u8], held: Held) {
        self.rows += 1;
        let bucket = held.time().div_euclid(self.bucket);
        match self.shelves.get_mut(key) {
            Some(shelf) => self.bytes += shelf.push(bucket, key, held, &mut self.changed),
            None => {
                let (key, mut shelf) = (Key::from(key), Shelf::default());
                self.bytes += SHELF_BYTES + key.heap_bytes() + shelf.push(bucket, &key, held, &mut self.changed);
                self.shelves.insert(key, shelf);
            }
        }
    }

    /// The oldest row of a key.
    pub(super) fn front(&self, key: &[u8]) -> Option<&Held> {
        self.shelves.get(key).and_then(|s| s.rows.front())
    }

    pub(super) fn pop_front(&mut self, key: &[u8]) -> Option<Held> {
        let shelf = self.shelves.get_mut(key)?;
        let held = shelf.pop_front()?;
        shelf.touch(held.time().div_euclid(self.bucket), key, &mut self.changed);
        self.rows -= 1;
        self.bytes = self.bytes.saturating_sub(shelf.bytes_of(&held));
        Some(held)
    }

    /// Lets go of a key's rows up to a moment.
    pub(super) fn expire(&mut self, key: &[u8], until: i64) {
        let Some(shelf) = self.shelves.get_mut(key) else { return };
        while shelf.rows.front().is_some_and(|held| held.time() <= until)
            && let Some(held) = shelf.pop_front()
        {
            shelf.touch(held.time().div_euclid(self.bucket), key, &mut self.changed);
            self.rows -= 1;
            self.bytes = self.bytes.saturating_sub(shelf.bytes_of(&held));
        }
    }

    /// Aggregates of all rows of a key, as of `now`; `None` when there are none. See [`Running::total`].
    pub(super) fn total(
        &mut self,
        key: &[u8],
        aggregates: &[Aggregate],
        skip: usize,
        now: i64,
        span: i64,
    ) -> Result<Option<Total<'_>>, Fault> {
        let Some(shelf) = self.shelves.get_mut(key) else { return Ok(None) };
        if shelf.running.is_none() {
            shelf.aggregates = aggregates.len();
            self.bytes += shelf.rows.len() * aggregates.len() * size_of::<Acc>();
        }
        let (accs, newest) = shelf.running.get_or_insert_default().total(aggregates, &shelf.rows, skip, now, span)?;
        let (Some(first), Some(newest)) = (shelf.rows.front(), newest) else { return Ok(None) };
        Ok(Some(Total { first, newest, accs }))
    }

    /// Sets the flag of the `i`-th row of a key.
    pub(super) fn set_flag(&mut self, key: &[u8], i: usize) -> Result<(), Fault> {
        let shelf = self.shelves.get_mut(key).ok_or(Fault("no row of a key that was matched is held"))?;
        let held = shelf.rows.get_mut(i).ok_or(Fault("a row that was matched is not held"))?;
        if !held.flag {
            held.flag = true;
            let bucket = held.time().div_euclid(self.bucket);
            shelf.touch(bucket, key, &mut self.changed);
        }
        Ok(())
    }

    /// Writes the buckets that changed since the last call.
    pub(super) fn changes(&mut self, writer: &mut StateWriter<'_>) -> Result<(), Fault> {
        let mut found = Ok(());
        for key in std::mem::take(&mut self.changed) {
            let Some(shelf) = self.shelves.get_mut(&*key) else {
                found = Err(Fault("rows of a key changed that are not there"));
                continue;
            };
            for bucket in std::mem::take(&mut shelf.dirty) {
                let from = shelf.rows.partition_point(|h| h.time().div_euclid(self.bucket) < bucket);
                let to = shelf.rows.partition_point(|h| h.time().div_euclid(self.bucket) <= bucket);
                let mut rest = Vec::with_capacity(key.len() + 12);
                put_bytes(&mut rest, &key);
                put_signed(&mut rest, bucket);
                let known = shelf.stored.iter().position(|b| *b == bucket);
                if from == to {
                    if let Some(i) = known {
                        shelf.stored.swap_remove(i);
                        writer.put(self.kind, &rest, None);
                    }
                    continue;
                }
                if known.is_none() {
                    shelf.stored.push(bucket);
                }
                let mut value = Vec::new();
                put_varint(&mut value, (to - from) as u64);
                for held in shelf.rows.range(from..to) {
                    put_meta(&mut value, &held.meta);
                    value.push(u8::from(held.flag));
                    put_values(&mut value, &held.values);
                }
                writer.put(self.kind, &rest, Some(value));
            }
            if shelf.rows.is_empty() && shelf.stored.is_empty() {
                self.shelves.remove(&*key);
                self.bytes = self.bytes.saturating_sub(SHELF_BYTES + key.heap_bytes());
            }
        }
        found
    }

    /// Takes a stored bucket back.
    pub(super) fn load(&mut self, loaded: &Loaded<'_>) -> Result<(), Unloadable> {
        let mut reader = ByteReader::new(loaded.rest);
        let key = Key::from(reader.bytes()?);
        let bucket = reader.signed()?;
        let mut reader = ByteReader::new(loaded.value);
        let n = reader.length()?;
        if !self.shelves.contains_key(&*key) {
            self.bytes += SHELF_BYTES + key.heap_bytes();
        }
        let shelf = self.shelves.entry(key).or_default();
        shelf.stored.push(bucket);
        let mut rows = Vec::with_capacity(n);
        for _ in 0..n {
            let meta = read_meta(&mut reader)?;
            let flag = reader.byte()? != 0;
            rows.push(Held { meta, flag, values: read_values(&mut reader)?.into() });
        }
        self.rows += rows.len();
        self.bytes += rows.iter().map(Held::bytes).sum::<usize>();
        // buckets come in any order, but each is sorted and they do not overlap
        let at = shelf.rows.partition_point(|h| h.time().div_euclid(self.bucket) < bucket);
        let behind = shelf.rows.split_off(at);
        shelf.rows.extend(rows);
        shelf.rows.extend(behind);
        Ok(())
    }

    /// About how many bytes are held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Aggregates of the rows of a key.
pub(super) struct Total<'a> {
    pub first: &'a Held,
    /// Newest arrival and offset that contributed.
    pub newest: RowMeta,
    pub accs: Vec<Acc>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;
    use crate::value::Value;
    use proptest::prelude::*;

    fn held(time: i64, offset: i64) -> Held {
        let at = Timestamp::from_ticks(time).unwrap();
        Held { meta: RowMeta::new(at, at, offset, 0), flag: false, values: [Value::BigInt(offset)].into() }
    }

    proptest! {
        /// What was committed, loaded into a fresh store, is what the old one held at that commit.
        #[test]
        fn stored_buckets_load_back(steps in prop::collection::vec((0u8..5, 0i64..300, 0u8..2), 1..60)) {
            let mut history = History::new(1, 160);
            let mut table = std::collections::BTreeMap::new();
            for (i, (action, time, key)) in steps.iter().enumerate() {
                match action {
                    0..=2 => history.push(&[*key], held(*time, i as i64)),
                    3 => drop(history.pop_front(&[*key])),
                    // there may be none
                    _ => drop(history.set_flag(&[*key], 0)),
                }
                if i % 7 == 0 {
                    let mut out = Vec::new();
                    history.changes(&mut StateWriter { op: 0, substream: b"s", out: &mut out }).unwrap();
                    for change in out {
                        match change.value {
                            Some(value) => table.insert(change.key, value),
                            None => table.remove(&change.key),
                        };
                    }
                    let mut fresh = History::new(1, 160);
                    for (key, value) in &table {
                        let loaded = Loaded::parse(key, value).unwrap();
                        prop_assert_eq!((loaded.substream, loaded.kind), (&b"s"[..], 1));
                        fresh.load(&loaded).unwrap();
                    }
                    for key in [[0], [1]] {
                        let rows = |h: &History| h.get(&key).cloned().unwrap_or_default();
                        prop_assert_eq!(rows(&fresh), rows(&history));
                    }
                    prop_assert_eq!(fresh.len(), history.len());
                }
            }
        }
    }
}

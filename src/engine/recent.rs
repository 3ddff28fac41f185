//! The last few values of each key.
//!
//! In: values with their times. Out: the values of a key, oldest first; state rows. Invariant: a key that is forgotten
//! holds nothing here; one that comes back from a stored row is as stale as it was. Not here: what is stale
//! (`analytic`).

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::fault::{Fault, Unloadable};
use super::key::Key;
use super::pack::Packs;
use crate::value::Value;
use crate::value::codec::{Damaged, put_bytes, put_signed, put_value, put_varint};

const NO_PLACE: Fault = Fault("a key looked back at has no place");

/// Keys and what they hold.
#[derive(Debug, Default)]
pub(super) struct Keys {
    index: FxHashMap<Key, u32>,
    slots: Vec<LastValues>,
    free: Vec<u32>,
    dirty: Vec<u32>,
    packs: Packs,
    /// What items hold.
    heap: usize,
}

#[derive(Debug, Default)]
pub(super) struct LastValues {
    /// `None` in a slot that is free.
    key: Option<Key>,
    /// The newest, which is all that most calls want, and those before it, oldest first.
    newest: Option<(i64, Value)>,
    earlier: VecDeque<(i64, Value)>,
    dirty: bool,
}

impl LastValues {
    pub(super) fn newest(&self) -> Option<&(i64, Value)> {
        self.newest.as_ref()
    }

    /// The value that many places before the next one: 1 is the newest.
    pub(super) fn back(&self, places: usize) -> Option<&(i64, Value)> {
        match places.checked_sub(2) {
            None => self.newest.as_ref(),
            Some(before) => self.earlier.len().checked_sub(before + 1).and_then(|i| self.earlier.get(i)),
        }
    }

    fn items(&self) -> impl Iterator<Item = &(i64, Value)> {
        self.earlier.iter().chain(&self.newest)
    }

    fn len(&self) -> usize {
        self.earlier.len() + usize::from(self.newest.is_some())
    }
}

fn item_bytes(item: &(i64, Value)) -> usize {
    size_of::<(i64, Value)>() + item.1.heap_bytes()
}

impl Keys {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// The slot of a key and what it holds; made if wanted.
    pub(super) fn find(&mut self, key: &[u8], make: bool) -> Option<(u32, &LastValues)> {
        let slot = match self.index.get(key) {
            Some(slot) => *slot,
            None if make => self.make(key.into()),
            None => return None,
        };
        self.slots.get(slot as usize).map(|recent| (slot, recent))
    }

    fn make(&mut self, key: Key) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(LastValues::default());
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(recent) = self.slots.get_mut(slot as usize) {
            recent.key = Some(key.clone());
        }
        self.heap += key.heap_bytes();
        self.index.insert(key, slot);
        slot
    }

    /// Appends a value; at most `keep` stay.
    pub(super) fn push(&mut self, slot: u32, item: (i64, Value), keep: usize) -> Result<(), Fault> {
        let recent = self.slots.get_mut(slot as usize).ok_or(NO_PLACE)?;
        self.heap += item_bytes(&item);
        match recent.newest.replace(item) {
            Some(before) if keep > 1 => recent.earlier.push_back(before),
            Some(before) => self.heap = self.heap.saturating_sub(item_bytes(&before)),
            None => {}
        }
        while recent.len() > keep.max(1)
            && let Some(old) = recent.earlier.pop_front()
        {
            self.heap = self.heap.saturating_sub(item_bytes(&old));
        }
        if !std::mem::replace(&mut recent.dirty, true) {
            self.dirty.push(slot);
        }
        Ok(())
    }

    /// Forgets the keys that are stale.
    pub(super) fn forget(&mut self, stale: impl Fn(&LastValues) -> bool) {
        for (slot, recent) in (0u32..).zip(&mut self.slots) {
            if recent.key.is_none() || !stale(recent) {
                continue;
            }
            if let Some(key) = recent.key.take() {
                self.index.remove(&*key);
                self.heap = self.heap.saturating_sub(key.heap_bytes());
            }
            self.heap = self.heap.saturating_sub(recent.items().map(item_bytes).sum());
            (recent.newest, recent.earlier) = (None, VecDeque::new());
            self.packs.forget(slot);
            self.free.push(slot);
        }
        if self.index.is_empty() {
            self.slots = Vec::new();
            self.free = Vec::new();
            self.dirty = Vec::new();
            self.index = FxHashMap::default();
            self.packs.all_forgotten();
        }
    }

    /// Writes what changed since the last commit.
    pub(super) fn changes(&mut self, put: impl FnMut(u32, Option<Vec<u8>>)) -> Result<(), Fault> {
        let slots = &mut self.slots;
        self.dirty.retain(|slot| {
            // one that is not there is met again below, and said
            slots.get_mut(*slot as usize).is_none_or(|recent| {
                recent.dirty = false;
                recent.key.is_some()
            })
        });
        let slots = &self.slots;
        let encode = |slot: u32, out: &mut Vec<u8>| {
            let recent = slots.get(slot as usize).ok_or(NO_PLACE)?;
            put_bytes(out, recent.key.as_deref().ok_or(NO_PLACE)?);
            put_varint(out, recent.len() as u64);
            for (time, item) in recent.items() {
                put_signed(out, *time);
                put_value(out, item);
            }
            Ok(())
        };
        self.packs.changes(&mut self.dirty, encode, put)
    }

    /// Takes a stored row back.
    pub(super) fn load(&mut self, number: u32, value: &[u8]) -> Result<(), Unloadable> {
        let mut opened = self.packs.open(number, value)?;
        while !opened.reader.is_done() {
            let reader = &mut opened.reader;
            let key = Key::from(reader.bytes()?);
            let n = reader.length()?;
            let mut items =
                (0..n).map(|_| Ok((reader.signed()?, reader.value()?))).collect::<Result<VecDeque<_>, Damaged>>()?;
            let known = self.index.get(&*key).copied();
            let slot = known.unwrap_or_else(|| self.make(key));
            if self.packs.accept(&mut opened, slot)
                && let Some(recent) = self.slots.get_mut(slot as usize)
            {
                self.heap = self.heap.saturating_sub(recent.items().map(item_bytes).sum());
                self.heap += items.iter().map(item_bytes).sum::<usize>();
                recent.newest = items.pop_back();
                recent.earlier = items;
            }
        }
        self.packs.close(opened);
        Ok(())
    }

    /// About how many bytes are held.
    pub(super) fn bytes(&self) -> usize {
        self.index.capacity() * (size_of::<(Key, u32)>() + 1)
            + self.slots.capacity() * size_of::<LastValues>()
            + self.packs.bytes()
            + self.heap
    }
}

//! Many small entries in few state rows.
//!
//! In: the entries that changed since the last commit, by slot. Out: state rows of up to some kilobytes, numbered; an
//! entry that changes again is written to a new row. Invariant: of several rows that hold an entry the one of the
//! highest sequence counts; a row goes when nothing in it counts any more, and is written anew when more than half of
//! it is dead, so rows hold at most about twice what is live and a commit costs what changed. Not here: what an entry
//! is.
//!
//! An entry that is forgotten may come back from a row that still stands for others: owners forget only what no longer
//! matters, and forget it again.

use rustc_hash::FxHashMap;

use super::fault::Fault;
use crate::value::codec::{ByteReader, Damaged, put_varint};

/// A row is closed at this length: few rows a commit, and little to write anew when one entry of it lives on.
const PACK_BYTES: usize = 16 << 10;

#[derive(Debug, Default)]
pub(super) struct Packs {
    /// Where the entry of each slot is stored.
    places: Vec<EntryPlace>,
    packs: FxHashMap<u32, Pack>,
    /// Packs of which something died since the last commit.
    touched: Vec<u32>,
    /// Numbers without a row, and the first that was never used.
    free: Vec<u32>,
    next: u32,
    sequence: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct EntryPlace {
    pack: u32,
    /// Length of the entry; 0: not stored.
    bytes: u32,
}

#[derive(Debug, Default)]
struct Pack {
    slots: Vec<u32>,
    live: usize,
    size: usize,
    sequence: u64,
    touched: bool,
}

impl Packs {
    /// The numbers of all rows.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        self.packs.keys().copied()
    }

    /// The entry of a slot counts no more: it is gone, or about to be written again.
    pub(super) fn forget(&mut self, slot: u32) {
        let Some(place) = self.places.get_mut(slot as usize).map(std::mem::take).filter(|place| place.bytes > 0) else {
            return;
        };
        if let Some(pack) = self.packs.get_mut(&place.pack) {
            pack.live = pack.live.saturating_sub(place.bytes as usize);
            if !std::mem::replace(&mut pack.touched, true) {
                self.touched.push(place.pack);
            }
        }
    }

    /// No slot is stored any more: their places need no memory.
    pub(super) fn all_forgotten(&mut self) {
        self.places = Vec::new();
    }

    /// Writes the entries of `dirty`, which is empty afterwards.
    pub(super) fn changes(
        &mut self,
        dirty: &mut Vec<u32>,
        mut encode: impl FnMut(u32, &mut Vec<u8>) -> Result<(), Fault>,
        mut put: impl FnMut(u32, Option<Vec<u8>>),
    ) -> Result<(), Fault> {
        let mut found = Ok(());
        dirty.iter().for_each(|slot| self.forget(*slot));
        let mut gone = Vec::new();
        for number in std::mem::take(&mut self.touched) {
            let Some(mut pack) = self.packs.remove(&number) else {
                found = found.and(Err(Fault("a pack that changed is not there")));
                continue;
            };
            pack.touched = false;
            if pack.live * 2 > pack.size {
                self.packs.insert(number, pack);
                continue;
            }
            gone.push(number);
            if pack.live == 0 {
                continue;
            }
            for slot in pack.slots {
                if let Some(place) = self.places.get_mut(slot as usize)
                    && place.pack == number
                    && place.bytes > 0
                {
                    *place = EntryPlace::default();
                    dirty.push(slot);
                }
            }
        }
        let mut written = dirty.iter().copied().peekable();
        while written.peek().is_some() {
            let number = gone.pop().or_else(|| self.free.pop()).unwrap_or_else(|| {
                self.next = self.next.saturating_add(1);
                self.next - 1
            });
            self.sequence += 1;
            let mut pack = Pack { sequence: self.sequence, ..Pack::default() };
            let mut value = Vec::with_capacity(PACK_BYTES / 4);
            put_varint(&mut value, self.sequence);
            while value.len() < PACK_BYTES
                && let Some(slot) = written.next()
            {
                let before = value.len();
                let encoded = encode(slot, &mut value);
                found = found.and(encoded);
                let bytes = value.len() - before;
                pack.slots.push(slot);
                pack.size += bytes;
                self.put_place(slot, number, bytes);
            }
            pack.live = pack.size;
            self.packs.insert(number, pack);
            put(number, Some(value));
        }
        dirty.clear();
        for number in gone {
            put(number, None);
            self.free.push(number);
        }
        found
    }

    /// Starts to take a stored row back.
    pub(super) fn open<'a>(&mut self, number: u32, value: &'a [u8]) -> Result<OpenedPack<'a>, Damaged> {
        let mut reader = ByteReader::new(value);
        let sequence = reader.varint()?;
        self.sequence = self.sequence.max(sequence);
        self.next = self.next.max(number.saturating_add(1));
        Ok(OpenedPack { from: reader.position(), reader, number, pack: Pack { sequence, ..Pack::default() } })
    }

    /// The entry just read belongs to this slot; `false` when a newer row has given it already.
    pub(super) fn accept(&mut self, opened: &mut OpenedPack<'_>, slot: u32) -> bool {
        let bytes = opened.reader.position() - opened.from;
        opened.from = opened.reader.position();
        opened.pack.size += bytes;
        let place = self.places.get(slot as usize).copied().unwrap_or_default();
        if place.bytes > 0 {
            if self.packs.get(&place.pack).is_some_and(|known| known.sequence > opened.pack.sequence) {
                return false;
            }
            self.forget(slot);
        }
        opened.pack.live += bytes;
        opened.pack.slots.push(slot);
        self.put_place(slot, opened.number, bytes);
        true
    }

    /// The whole row has been read.
    pub(super) fn close(&mut self, opened: OpenedPack<'_>) {
        self.packs.insert(opened.number, opened.pack);
    }

    fn put_place(&mut self, slot: u32, pack: u32, bytes: usize) {
        if self.places.len() <= slot as usize {
            self.places.resize(slot as usize + 1, EntryPlace::default());
        }
        if let Some(place) = self.places.get_mut(slot as usize) {
            *place = EntryPlace { pack, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) };
        }
    }

    /// About how many bytes it holds itself.
    pub(super) fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<EntryPlace>() + self.packs.len() * 96
    }
}

/// A stored row that is being read.
#[derive(Debug)]
pub(super) struct OpenedPack<'a> {
    pub reader: ByteReader<'a>,
    number: u32,
    pack: Pack,
    from: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// What is loaded from the rows of a commit, in whatever order, is what was live at it, and dead bytes stay
        /// few.
        #[test]
        fn packs_load_back(
            steps in prop::collection::vec((0u32..200, 0u64..1_000_000, 0u8..40), 1..600),
            backwards in any::<bool>(),
        ) {
            let mut packs = Packs::default();
            let (mut live, mut dirty, mut table) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
            let long = |value: u64| format!("{value:0>200}").into_bytes();
            for (slot, value, action) in steps {
                live.insert(slot, value);
                dirty.push(slot);
                if action > 0 {
                    continue;
                }
                dirty.sort_unstable();
                dirty.dedup();
                let encode = |slot: u32, out: &mut Vec<u8>| {
                    put_varint(out, u64::from(slot));
                    out.extend(long(live[&slot]));
                    Ok(())
                };
                let changed = packs.changes(&mut dirty, encode, |number, value| match value {
                    Some(value) => drop(table.insert(number, value)),
                    None => assert!(table.remove(&number).is_some()),
                });
                changed.unwrap();
                let stored: usize = table.values().map(Vec::len).sum();
                prop_assert!(
                    stored <= live.len() * 2 * 203 + PACK_BYTES + 300,
                    "{} bytes for {} entries",
                    stored,
                    live.len()
                );
                let mut fresh = Packs::default();
                let mut found = BTreeMap::new();
                let mut rows: Vec<_> = table.iter().collect();
                if backwards {
                    rows.reverse();
                }
                for (number, value) in rows {
                    let mut opened = fresh.open(*number, value).unwrap();
                    while !opened.reader.is_done() {
                        let slot = opened.reader.varint().unwrap() as u32;
                        let value = opened.reader.take(200).unwrap().to_vec();
                        if fresh.accept(&mut opened, slot) {
                            found.insert(slot, value);
                        }
                    }
                    fresh.close(opened);
                }
                let expected: BTreeMap<u32, Vec<u8>> = live.iter().map(|(slot, value)| (*slot, long(*value))).collect();
                prop_assert_eq!(found, expected);
                packs = fresh;
            }
        }
    }

    #[test]
    fn an_entry_that_is_not_there_is_a_fault_and_others_are_written() {
        let mut packs = Packs::default();
        let fault = Fault("not there");
        let encode = |slot: u32, out: &mut Vec<u8>| {
            put_varint(out, 7);
            if slot == 1 { Err(fault) } else { Ok(()) }
        };
        let mut written = Vec::new();
        let changed = packs.changes(&mut vec![1, 2], encode, |_, value| written.extend(value));
        assert_eq!(changed, Err(fault));
        assert!(written.concat().ends_with(&[7]), "the other entry is stored");
    }
}

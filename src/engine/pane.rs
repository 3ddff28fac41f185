//! The groups of one pane: keys and accumulators side by side, without memory of their own for each group.
//!
//! In: prepared rows. Out: result rows, state rows. Invariant: groups lie in the order in which they came, and results
//! come in the order of first rows. Not here: where a pane begins and ends (`fixed`).

use rustc_hash::FxHashMap;

use super::accumulate::{Acc, arity};
use super::fault::{Fault, Unloadable};
use super::group::newer;
use super::key::{Key, put_key};
use super::pack::Packs;
use super::prepared::PreparedRow;
use super::state::{put_meta, put_values, read_meta, read_values};
use crate::batch::RowMeta;
use crate::query::plan::Aggregate;
use crate::value::Value;

#[derive(Debug, Default)]
pub(super) struct Pane {
    index: FxHashMap<Key, u32>,
    heads: Vec<GroupHead>,
    /// Key values and accumulators, the same number for each group.
    keys: Vec<Value>,
    accs: Vec<Acc>,
    dirty: Vec<u32>,
    packs: Packs,
    /// What keys and accumulators hold beyond their own size, as of the last commit.
    heap: usize,
}

#[derive(Clone, Copy, Debug)]
struct GroupHead {
    /// Meta of the first row: the order of groups.
    first: RowMeta,
    /// Newest arrival and offset that contributed.
    newest: RowMeta,
    heap: usize,
    dirty: bool,
}

const NO_GROUP: Fault = Fault("a group is not where its key points");

impl Pane {
    /// Room for as many groups as another pane had.
    pub(super) fn like(other: &Pane, aggregates: usize) -> Pane {
        let groups = other.heads.len();
        let keys = other.keys.len();
        Pane {
            index: FxHashMap::with_capacity_and_hasher(groups, rustc_hash::FxBuildHasher),
            heads: Vec::with_capacity(groups),
            keys: Vec::with_capacity(keys),
            accs: Vec::with_capacity(groups * aggregates),
            ..Pane::default()
        }
    }

    pub(super) fn add(&mut self, aggregates: &[Aggregate], meta: &RowMeta, row: &PreparedRow) -> Result<(), Fault> {
        let slot = self.slot(aggregates, &row.key, &row.keys, meta);
        let head = self.heads.get_mut(slot as usize).ok_or(NO_GROUP)?;
        head.newest = newer(head.newest, meta);
        if !head.dirty {
            head.dirty = true;
            self.dirty.push(slot);
        }
        let mut at = 0;
        for (acc, aggregate) in self.accs_mut(slot as usize, aggregates.len())?.iter_mut().zip(aggregates) {
            let n = arity(aggregate);
            acc.add(aggregate, row.args.get(at..at + n).unwrap_or_default())?;
            at += n;
        }
        Ok(())
    }

    /// The slot of a group, which is made if it is new.
    fn slot(&mut self, aggregates: &[Aggregate], key: &[u8], keys: &[Value], first: &RowMeta) -> u32 {
        if let Some(slot) = self.index.get(key) {
            return *slot;
        }
        let slot = u32::try_from(self.heads.len()).unwrap_or(u32::MAX);
        self.index.insert(key.into(), slot);
        self.heads.push(GroupHead { first: *first, newest: *first, heap: 0, dirty: false });
        self.keys.extend_from_slice(keys);
        self.accs.extend(aggregates.iter().map(Acc::new));
        slot
    }

    /// An accumulator of a group, if it has begun.
    pub(super) fn acc_mut(&mut self, key: &[u8], place: usize, aggregates: usize) -> Option<&mut Acc> {
        let slot = *self.index.get(key)? as usize;
        self.accs.get_mut(slot * aggregates + place)
    }

    /// An accumulator of each group, by key.
    pub(super) fn accs(&self, place: usize, aggregates: usize) -> impl Iterator<Item = (&[u8], &Acc)> {
        self.index
            .iter()
            .filter_map(move |(key, slot)| Some((&**key, self.accs.get(*slot as usize * aggregates + place)?)))
    }

    fn keys_of(&self, slot: usize) -> &[Value] {
        let width = self.keys.len() / self.heads.len().max(1);
        self.keys.get(slot * width..(slot + 1) * width).unwrap_or_default()
    }

    fn accs_of(&self, slot: usize, aggregates: usize) -> &[Acc] {
        self.accs.get(slot * aggregates..(slot + 1) * aggregates).unwrap_or_default()
    }

    fn accs_mut(&mut self, slot: usize, aggregates: usize) -> Result<&mut [Acc], Fault> {
        self.accs.get_mut(slot * aggregates..(slot + 1) * aggregates).ok_or(NO_GROUP)
    }

    /// Adds the groups of a later pane.
    pub(super) fn merge(&mut self, aggregates: &[Aggregate], later: &Pane) -> Result<(), Fault> {
        let mut key = Vec::new();
        for (i, head) in later.heads.iter().enumerate() {
            key.clear();
            let keys = later.keys_of(i);
            keys.iter().for_each(|value| put_key(&mut key, value));
            let slot = self.slot(aggregates, &key, keys, &head.first) as usize;
            let mine = self.heads.get_mut(slot).ok_or(NO_GROUP)?;
            mine.newest = newer(mine.newest, &head.newest);
            let mine = self.accs_mut(slot, aggregates.len())?;
            for ((acc, more), aggregate) in mine.iter_mut().zip(later.accs_of(i, aggregates.len())).zip(aggregates) {
                acc.merge(aggregate, more)?;
            }
        }
        Ok(())
    }

    /// Gives the newest row, the keys and the accumulators of each group.
    pub(super) fn results(&self, aggregates: usize, mut put: impl FnMut(&RowMeta, &[Value], &[Acc])) {
        let place = |head: &GroupHead| (head.first.time, head.first.offset, head.first.ordinal);
        let key = |slot: usize| {
            let mut key = Vec::new();
            self.keys_of(slot).iter().for_each(|value| put_key(&mut key, value));
            key
        };
        let mut groups: Vec<(usize, &GroupHead)> = self.heads.iter().enumerate().collect();
        groups.sort_unstable_by(|(i, a), (j, b)| place(a).cmp(&place(b)).then_with(|| key(*i).cmp(&key(*j))));
        for (slot, head) in groups {
            put(&head.newest, self.keys_of(slot), self.accs_of(slot, aggregates));
        }
    }

    /// Writes what changed since the last commit.
    pub(super) fn changes(&mut self, aggregates: usize, put: impl FnMut(u32, Option<Vec<u8>>)) -> Result<(), Fault> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for slot in &dirty {
            let slot = *slot as usize;
            let heap = |values: &[Value]| values.iter().map(Value::heap_bytes).sum::<usize>();
            let bytes =
                heap(self.keys_of(slot)) + self.accs_of(slot, aggregates).iter().map(Acc::heap_bytes).sum::<usize>();
            if let Some(head) = self.heads.get_mut(slot) {
                head.dirty = false;
                self.heap = self.heap + bytes - head.heap;
                head.heap = bytes;
            }
        }
        let mut packs = std::mem::take(&mut self.packs);
        let encode = |slot: u32, out: &mut Vec<u8>| {
            let head = self.heads.get(slot as usize).ok_or(NO_GROUP)?;
            put_meta(out, &head.first);
            put_meta(out, &head.newest);
            put_values(out, self.keys_of(slot as usize));
            self.accs_of(slot as usize, aggregates).iter().for_each(|acc| acc.write(out));
            Ok(())
        };
        let written = packs.changes(&mut dirty, encode, put);
        (self.packs, self.dirty) = (packs, dirty);
        written
    }

    /// Takes a stored row back.
    pub(super) fn load(&mut self, aggregates: &[Aggregate], number: u32, value: &[u8]) -> Result<(), Unloadable> {
        let mut opened = self.packs.open(number, value)?;
        let mut key = Vec::new();
        while !opened.reader.is_done() {
            let reader = &mut opened.reader;
            let (first, newest, keys) = (read_meta(reader)?, read_meta(reader)?, read_values(reader)?);
            let accs = aggregates.iter().map(|a| Acc::read(a, reader)).collect::<Result<Vec<_>, _>>()?;
            key.clear();
            keys.iter().for_each(|value| put_key(&mut key, value));
            let slot = self.slot(aggregates, &key, &keys, &first);
            if !self.packs.accept(&mut opened, slot) {
                continue;
            }
            let heap =
                keys.iter().map(Value::heap_bytes).sum::<usize>() + accs.iter().map(Acc::heap_bytes).sum::<usize>();
            let head = self.heads.get_mut(slot as usize).ok_or(NO_GROUP)?;
            self.heap = self.heap + heap - head.heap;
            *head = GroupHead { first, newest, heap, dirty: false };
            let mine = self.accs_mut(slot as usize, aggregates.len())?;
            mine.iter_mut().zip(accs).for_each(|(mine, read)| *mine = read);
        }
        self.packs.close(opened);
        Ok(())
    }

    /// The numbers of its state rows.
    pub(super) fn stored(&self) -> impl Iterator<Item = u32> {
        self.packs.numbers()
    }

    /// About how many bytes are held.
    pub(super) fn bytes(&self) -> usize {
        self.index.capacity() * (size_of::<(Key, u32)>() + 1)
            + self.heads.capacity() * size_of::<GroupHead>()
            + self.keys.capacity() * size_of::<Value>()
            + self.accs.capacity() * size_of::<Acc>()
            + self.packs.bytes()
            + self.heap
    }
}

//! The values a detector has learned for one key.
//!
//! In: values in time order, each with its rank among those before it. Out: those held, by time and by size; the state
//! rows that changed. Invariant: it holds only what a detector may learn from, and gives the same results after a
//! restart. Not here: what the values mean.
//!
//! Values are numbered and stored in blocks of `BLOCK`, so a commit writes the newest block and not the history; values
//! that go are deleted a block at a time.

use std::collections::VecDeque;
use std::ops::Range;

use super::change_point::{Bets, bets};
use crate::engine::state::StateWriter;
use crate::value::codec::{ByteReader, Damaged, put_signed, put_varint};

/// Values in one state row: more would rewrite more at each commit, fewer would cost rows.
const BLOCK: u64 = 32;

/// What a value costs: itself, and its place among the sorted ones.
pub(super) const SAMPLE_BYTES: usize = size_of::<LearnedValue>() + size_of::<f64>();

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LearnedValue {
    pub time: i64,
    pub value: f64,
    /// What a change-point detector keeps of it.
    pub rank: Option<f64>,
    /// What follows from the rank.
    pub bets: Bets,
}

impl LearnedValue {
    pub(super) fn new(time: i64, value: f64, rank: Option<f64>) -> LearnedValue {
        LearnedValue { time, value, rank, bets: rank.map_or(Bets::default(), bets) }
    }
}

#[derive(Debug, Default)]
pub(super) struct Past {
    samples: VecDeque<LearnedValue>,
    /// The number of the oldest sample.
    first: u64,
    sorted: Vec<f64>,
    /// The lowest block with a sample that is not stored yet.
    unsaved: Option<u64>,
    /// Blocks that have a state row.
    stored: Range<u64>,
    /// Whether [`Past::changes`] has been asked for.
    pub dirty: bool,
    /// Blocks as they were loaded, until all are in.
    loaded: Vec<(u64, Vec<LearnedValue>)>,
}

impl Past {
    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }

    /// Values in ascending order.
    pub(super) fn sorted(&self) -> &[f64] {
        &self.sorted
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &LearnedValue> {
        self.samples.iter().rev()
    }

    pub(super) fn front(&self) -> Option<&LearnedValue> {
        self.samples.front()
    }

    pub(super) fn push(&mut self, sample: LearnedValue) {
        let block = (self.first + self.samples.len() as u64) / BLOCK;
        self.unsaved.get_or_insert(block);
        let place = self.sorted.partition_point(|known| *known < sample.value);
        self.sorted.insert(place, sample.value);
        self.samples.push_back(sample);
    }

    pub(super) fn pop_front(&mut self) {
        let Some(sample) = self.samples.pop_front() else { return };
        self.first += 1;
        let place = self.sorted.partition_point(|known| *known < sample.value);
        if place < self.sorted.len() {
            self.sorted.remove(place);
        }
    }

    /// Writes what changed; `rest` is the state key before the number of the block.
    pub(super) fn changes(&mut self, kind: u8, rest: &[u8], writer: &mut StateWriter<'_>) {
        self.dirty = false;
        let end = self.first + self.samples.len() as u64;
        let blocks = if self.samples.is_empty() { 0..0 } else { self.first / BLOCK..end.div_ceil(BLOCK) };
        let row = |block: u64| {
            let mut key = rest.to_vec();
            put_varint(&mut key, block);
            key
        };
        for gone in self.stored.clone().filter(|block| !blocks.contains(block)) {
            writer.put(kind, &row(gone), None);
        }
        if let Some(unsaved) = self.unsaved.take() {
            for block in unsaved.max(blocks.start)..blocks.end {
                let from = self.first.max(block * BLOCK);
                let to = end.min((block + 1) * BLOCK);
                writer.put(kind, &row(block), Some(self.write(from, to)));
            }
        }
        self.stored = blocks;
    }

    fn write(&self, from: u64, to: u64) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, from);
        put_varint(&mut out, to - from);
        let mut before = 0;
        for sample in self.samples.range((from - self.first) as usize..(to - self.first) as usize) {
            put_signed(&mut out, sample.time.wrapping_sub(before));
            before = sample.time;
            out.extend_from_slice(&sample.value.to_le_bytes());
            out.push(u8::from(sample.rank.is_some()));
            if let Some(rank) = sample.rank {
                out.extend_from_slice(&rank.to_le_bytes());
            }
        }
        out
    }

    /// Takes one block back.
    pub(super) fn load(&mut self, value: &[u8]) -> Result<(), Damaged> {
        let mut reader = ByteReader::new(value);
        let first = reader.varint()?;
        let mut samples = Vec::new();
        let mut before = 0i64;
        for _ in 0..reader.length()? {
            before = before.wrapping_add(reader.signed()?);
            let value = float(&mut reader)?;
            let rank = if reader.byte()? == 0 { None } else { Some(float(&mut reader)?) };
            samples.push(LearnedValue::new(before, value, rank));
        }
        self.loaded.push((first, samples));
        Ok(())
    }

    /// All blocks are in. The oldest may hold more than is still looked at.
    pub(super) fn settle(&mut self, keep: usize) {
        let mut blocks = std::mem::take(&mut self.loaded);
        blocks.sort_by_key(|(first, _)| *first);
        let Some((first, _)) = blocks.first() else { return };
        self.first = *first;
        self.samples = blocks.into_iter().flat_map(|(_, samples)| samples).collect();
        let end = self.first + self.samples.len() as u64;
        self.stored = self.first / BLOCK..end.div_ceil(BLOCK);
        while self.samples.len() > keep {
            self.samples.pop_front();
            self.first += 1;
        }
        self.sorted = self.samples.iter().map(|sample| sample.value).collect();
        self.sorted.sort_by(f64::total_cmp);
    }
}

fn float(reader: &mut ByteReader<'_>) -> Result<f64, Damaged> {
    let bytes = reader.take(8)?;
    <[u8; 8]>::try_from(bytes).map(f64::from_le_bytes).map_err(|_| Damaged { at: 0 })
}

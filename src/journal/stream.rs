//! Ends of streams and their newest segments in memory.
//!
//! In: segments of a transaction that is durable. Out: segments for readers that keep up, and a signal when there are
//! new ones. Invariant: all tails together stay below their byte limit (but for one segment), and a tail has no gaps:
//! it reaches to the end of its stream. Not here: older segments (`reader` gets them from the file).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::ledger::Ledger;
use super::segment::Segment;
use crate::time::Clock;

#[derive(Debug, Default)]
struct Tail {
    first: i64,
    next: i64,
    /// With the number of its arrival in memory, over all streams.
    segments: VecDeque<(u64, Segment)>,
    ready: Arc<Condvar>,
}

#[derive(Debug, Default)]
struct Tails {
    tails: BTreeMap<u32, Tail>,
    /// Up to where the journal itself moved each consumer, if it did.
    moved: BTreeMap<u32, Dropped>,
    /// How far the reader of each consumer has handed records out.
    handed: BTreeMap<u32, i64>,
    /// Up to where records of a consumer may be dropped by the transaction that is under way: its reader waits.
    dropping: BTreeMap<u32, i64>,
    bytes: usize,
    sequence: u64,
    closed: bool,
    /// Raised to make waiting readers look up.
    wakes: u64,
    ledger: Arc<Ledger>,
}

#[derive(Debug)]
pub(super) struct Streams {
    state: Mutex<Tails>,
    /// Signalled when it is decided what is dropped.
    decided: Condvar,
    bytes_max: usize,
}

/// Up to where the journal moved a consumer past records that it had not read, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dropped {
    pub to: i64,
    /// A reason in the ledger.
    pub reason: &'static str,
}

/// What there is for a reader.
#[derive(Debug)]
pub(super) enum Found {
    Segment(Segment),
    /// Older than what is in memory; `end` is that of the stream when asked.
    OnDisk {
        end: i64,
    },
    /// Records below this one are trimmed.
    Trimmed {
        first: i64,
    },
    Idle,
    Closed,
}

/// Where a stream stands after a transaction, and what its consumers still need.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamEnds {
    pub stream: u32,
    pub first: i64,
    pub next: i64,
    /// Segments that end at or below this are of no use in memory.
    pub needed_from: i64,
}

impl Streams {
    pub fn new(bytes_max: usize) -> Streams {
        Streams { state: Mutex::default(), decided: Condvar::new(), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Tails> {
        // no code that could panic runs under this lock
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows readers what has become durable.
    pub fn publish(
        &self,
        ends: impl Iterator<Item = StreamEnds>,
        moved: impl Iterator<Item = (u32, Dropped)>,
        segments: Vec<(u32, Segment)>,
        ledger: Arc<Ledger>,
    ) {
        let mut grown = Vec::new();
        let mut state = self.lock();
        state.ledger = ledger;
        state.moved = moved.collect();
        for (stream, segment) in segments {
            state.sequence += 1;
            let sequence = state.sequence;
            state.bytes += segment.bytes();
            state.tails.entry(stream).or_default().segments.push_back((sequence, segment));
        }
        for end in ends {
            let tail = state.tails.entry(end.stream).or_default();
            let mut freed = 0;
            while let Some((_, segment)) = tail.segments.front().filter(|(_, s)| s.end() <= end.needed_from) {
                freed += segment.bytes();
                tail.segments.pop_front();
            }
            let grew = tail.next != end.next;
            (tail.first, tail.next) = (end.first, end.next);
            if grew {
                grown.push(tail.ready.clone());
            }
            state.bytes = state.bytes.saturating_sub(freed);
        }
        state.evict(self.bytes_max);
        drop(state);
        // readers are woken after the lock is free; otherwise they would wake and wait for it
        grown.iter().for_each(|ready| ready.notify_all());
    }

    /// Waits for something at `position`, until `deadline`, or until [`Streams::wake`]. `consumer`: who reads.
    pub fn find(&self, stream: u32, consumer: Option<u32>, position: i64, deadline: Instant) -> Found {
        let mut state = self.lock();
        let wakes = state.wakes;
        loop {
            if state.closed {
                return Found::Closed;
            }
            let moved = consumer.map_or(i64::MIN, |consumer| state.moved_to(consumer));
            let tail = state.tails.entry(stream).or_default();
            let first = tail.first.max(moved);
            if position < first {
                return Found::Trimmed { first };
            }
            if position < tail.next {
                let behind = tail.segments.partition_point(|(_, s)| s.first() <= position);
                let found =
                    behind.checked_sub(1).and_then(|i| tail.segments.get(i)).filter(|(_, s)| s.end() > position);
                return match found {
                    Some((_, segment)) => Found::Segment(segment.clone()),
                    None => Found::OnDisk { end: tail.next },
                };
            }
            let ready = tail.ready.clone();
            let left = deadline.saturating_duration_since(Clock::Real.monotonic());
            if left.is_zero() || state.wakes != wakes {
                return Found::Idle;
            }
            state = ready.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A reader of the consumer begins here; what an earlier one handed out is nobody's any more.
    pub fn begins(&self, consumer: u32, position: i64) {
        self.lock().handed.insert(consumer, position);
    }

    /// Takes note that a consumer's reader hands out the records from `from` up to `to`. Where the journal has moved
    /// the consumer past `from`, nothing is handed out: the reader goes on where the error says. Waits while that is
    /// being decided.
    pub fn hand_out(&self, consumer: u32, from: i64, to: i64) -> Result<(), i64> {
        let mut state = self.lock();
        loop {
            let moved = state.moved_to(consumer);
            if from < moved {
                return Err(moved);
            }
            if state.closed || state.dropping.get(&consumer).is_none_or(|end| *end <= from) {
                let handed = state.handed.entry(consumer).or_insert(to);
                *handed = to.max(*handed);
                return Ok(());
            }
            state = self.decided.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Holds back the readers of these consumers below these offsets until the answer is dropped: what they have handed
    /// out by then is in the hands of whoever reads, and is not dropped.
    pub fn begin_drop(&self, steps: impl Iterator<Item = (u32, i64)>) -> Dropping<'_> {
        let mut state = self.lock();
        state.dropping = steps.collect();
        Dropping { streams: self, handed: state.handed.clone() }
    }

    /// Why the journal moved the consumer past everything before `position`; `None`: it did not.
    pub fn dropped(&self, consumer: u32, position: i64) -> Option<&'static str> {
        self.lock().moved.get(&consumer).filter(|moved| moved.to >= position).map(|moved| moved.reason)
    }

    /// First kept offset and end of a stream.
    pub fn ends(&self, stream: u32) -> (i64, i64) {
        self.lock().tails.get(&stream).map_or((0, 0), |t| (t.first, t.next))
    }

    /// Counters as of the last commit.
    pub fn ledger(&self) -> Arc<Ledger> {
        self.lock().ledger.clone()
    }

    /// Bytes of segments in memory.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Makes every waiting reader return.
    pub fn wake(&self) {
        self.lock().wake();
    }

    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.wake();
    }
}

/// See [`Streams::begin_drop`].
#[derive(Debug)]
pub(super) struct Dropping<'a> {
    streams: &'a Streams,
    handed: BTreeMap<u32, i64>,
}

impl Dropping<'_> {
    /// How far the reader of the consumer has handed records out.
    pub fn handed(&self, consumer: u32) -> i64 {
        self.handed.get(&consumer).copied().unwrap_or(i64::MIN)
    }
}

impl Drop for Dropping<'_> {
    fn drop(&mut self) {
        self.streams.lock().dropping.clear();
        self.streams.decided.notify_all();
    }
}

impl Tails {
    fn moved_to(&self, consumer: u32) -> i64 {
        self.moved.get(&consumer).map_or(i64::MIN, |moved| moved.to)
    }

    fn wake(&mut self) {
        self.wakes += 1;
        self.tails.values().for_each(|tail| tail.ready.notify_all());
    }

    fn evict(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            let oldest = self
                .tails
                .values_mut()
                .filter(|t| !t.segments.is_empty())
                .min_by_key(|t| t.segments.front().map(|(n, _)| *n));
            let Some((_, segment)) = oldest.and_then(|tail| tail.segments.pop_front()) else { break };
            self.bytes = self.bytes.saturating_sub(segment.bytes());
        }
    }
}

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
    moved: BTreeMap<u32, i64>,
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
    bytes_max: usize,
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
        Streams { state: Mutex::default(), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Tails> {
        // no code that could panic runs under this lock
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows readers what has become durable.
    pub fn publish(
        &self,
        ends: impl Iterator<Item = StreamEnds>,
        moved: impl Iterator<Item = (u32, i64)>,
        segments: Vec<(u32, Segment)>,
        ledger: Arc<Ledger>,
    ) {
        let mut grown = Vec::new();
        let mut state = self.lock();
        state.ledger = ledger;
        state.moved = moved.filter(|(_, to)| *to > i64::MIN).collect();
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
            let moved = consumer.and_then(|consumer| state.moved.get(&consumer).copied()).unwrap_or(i64::MIN);
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

impl Tails {
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

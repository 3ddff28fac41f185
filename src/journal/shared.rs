//! What the writer shares with callers and readers.
//!
//! In and out: the queue, ends of streams, segments that wait for a checkpoint, counts. Invariant: no code that could
//! wait runs under one of its locks. Not here: who changes what (`writer`, `store`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::config::BacklogLimits;
use super::growth::{Growth, GrowthStatus};
use super::pace::Written;
use super::passing::TimePassing;
use super::pending::Pending;
use super::pin::Pin;
use super::queue::Queue;
use super::recent::Recent;
use super::stream::Streams;
use crate::arrival::Eras;
use crate::time::Clock;

/// What the writer shares with callers and readers.
#[derive(Debug)]
pub(super) struct Shared {
    pub queue: Queue,
    pub streams: Streams,
    pub recent: Mutex<Recent>,
    pub pending: Mutex<Pending>,
    pub written: Mutex<Written>,
    pub growth: Mutex<Growth>,
    pub used_bytes: AtomicU64,
    pub is_full: AtomicBool,
    /// The last transaction found no room on the disk.
    pub is_disk_full: AtomicBool,
    /// Of that: the reason is a log that another program pins.
    pub waits_for_pin: AtomicBool,
    pub pin: Mutex<Option<Pin>>,
    /// Why the file cannot be written, while its log can.
    pub failing: Mutex<Option<String>>,
    /// How far each consumer of the job may be behind.
    pub limits: Mutex<BTreeMap<u32, BacklogLimits>>,
    /// Ticks of the newest record of stream 0.
    pub last_arrival: AtomicI64,
    pub eras: Mutex<Arc<Eras>>,
    pub passing: Arc<TimePassing>,
    pub commits: AtomicU64,
    /// When the next group commit may be made at the earliest: nanoseconds since `started`.
    pub next_commit: AtomicU64,
    pub started: Instant,
    #[cfg(test)]
    pub is_killed: AtomicBool,
    #[cfg(test)]
    pub planted: Mutex<Option<super::planted::Planted>>,
}

impl Shared {
    /// Of a journal that begins. `growth`: how fast it grew before.
    pub fn new(tail_bytes_max: usize, recent: Recent, growth: GrowthStatus) -> Shared {
        let now = Clock::Real.monotonic();
        Shared {
            queue: Queue::default(),
            streams: Streams::new(tail_bytes_max),
            recent: Mutex::new(recent),
            pending: Mutex::new(Pending::default()),
            written: Mutex::new(Written::new(now)),
            growth: Mutex::new(Growth::new(growth, now)),
            used_bytes: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
            is_disk_full: AtomicBool::new(false),
            waits_for_pin: AtomicBool::new(false),
            pin: Mutex::new(None),
            failing: Mutex::default(),
            limits: Mutex::default(),
            last_arrival: AtomicI64::new(0),
            eras: Mutex::default(),
            passing: Arc::default(),
            next_commit: AtomicU64::new(0),
            started: now,
            commits: AtomicU64::new(0),
            #[cfg(test)]
            is_killed: AtomicBool::new(false),
            #[cfg(test)]
            planted: Mutex::default(),
        }
    }

    pub fn with_recent<T>(&self, f: impl FnOnce(&mut Recent) -> T) -> T {
        f(&mut self.recent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn with_written<T>(&self, f: impl FnOnce(&mut Written) -> T) -> T {
        f(&mut self.written.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn with_growth<T>(&self, f: impl FnOnce(&mut Growth) -> T) -> T {
        f(&mut self.growth.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn with_limits<T>(&self, f: impl FnOnce(&mut BTreeMap<u32, BacklogLimits>) -> T) -> T {
        f(&mut self.limits.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn with_eras<T>(&self, f: impl FnOnce(&mut Arc<Eras>) -> T) -> T {
        f(&mut self.eras.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn with_pin<T>(&self, f: impl FnOnce(&mut Option<Pin>) -> T) -> T {
        f(&mut self.pin.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn with_failing<T>(&self, f: impl FnOnce(&mut Option<String>) -> T) -> T {
        f(&mut self.failing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn with_pending<T>(&self, f: impl FnOnce(&mut Pending) -> T) -> T {
        f(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

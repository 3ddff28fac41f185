//! What the writer shares with callers and readers.
//!
//! In and out: the queue, ends of streams, segments that wait for a checkpoint, counts. Invariant: no code that could
//! wait runs under one of its locks. Not here: who changes what (`writer`, `store`).

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::sync::{Mutex, PoisonError};

use super::pace::Written;
use super::pending::Pending;
use super::queue::Queue;
use super::recent::Recent;
use super::stream::Streams;

/// What the writer shares with callers and readers.
#[derive(Debug)]
pub(super) struct Shared {
    pub queue: Queue,
    pub streams: Streams,
    pub recent: Mutex<Recent>,
    pub pending: Mutex<Pending>,
    pub written: Mutex<Written>,
    pub used_bytes: AtomicU64,
    pub is_full: AtomicBool,
    /// Ticks of the newest record of stream 0.
    pub last_arrival: AtomicI64,
    pub commits: AtomicU64,
}

impl Shared {
    pub fn with_recent<T>(&self, f: impl FnOnce(&mut Recent) -> T) -> T {
        f(&mut self.recent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn with_written<T>(&self, f: impl FnOnce(&mut Written) -> T) -> T {
        f(&mut self.written.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn with_pending<T>(&self, f: impl FnOnce(&mut Pending) -> T) -> T {
        f(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

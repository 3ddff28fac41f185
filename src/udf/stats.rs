//! Counters of one function.
//!
//! In: the outcome of each call. Out: totals for metrics. Invariant: counters only go up. Not here: their names and
//! labels (`telemetry`).

use std::sync::atomic::{AtomicU64, Ordering};

use crate::batch::Reason;

/// Why a call gave no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// The guest trapped, or gave something malformed.
    Trap,
    /// It ran past its time.
    Timeout,
    /// It wanted more memory than it may have.
    Memory,
    /// Its result is too large.
    Result,
    /// It answered `err(…)`.
    Error,
    /// An argument or the result does not convert.
    Conversion,
    /// It is paused after many traps.
    Breaker,
    /// Its result nests deeper than stored values may.
    TooDeep,
    /// It wanted to remember more than it may.
    State,
}

/// The reasons in the order of [`CallFailure`].
const REASONS: [Reason; 9] = [
    "udf_trap",
    "udf_timeout",
    "udf_memory",
    "udf_result",
    "udf_error",
    "udf_conversion",
    "udf_breaker",
    "too_deep",
    "udf_state",
];

impl CallFailure {
    /// The fixed word for row errors and counters.
    pub fn reason(self) -> Reason {
        REASONS.get(self as usize).copied().unwrap_or("udf_trap")
    }

    /// Whether it left the store unusable.
    pub fn ends_instance(self) -> bool {
        matches!(
            self,
            CallFailure::Trap | CallFailure::Timeout | CallFailure::Memory | CallFailure::Result | CallFailure::State
        )
    }

    /// Whether it speaks against calling the function again: a full state refuses some rows and takes others.
    pub fn is_fault(self) -> bool {
        self.ends_instance() && self != CallFailure::State
    }
}

/// Totals since the start, shared by all hosts that call the function.
#[derive(Debug, Default)]
pub struct Stats {
    calls: AtomicU64,
    nanos: AtomicU64,
    instances: AtomicU64,
    memory_bytes_max: AtomicU64,
    failures: [AtomicU64; REASONS.len()],
    log_lines: AtomicU64,
    log_lines_dropped: AtomicU64,
}

impl Stats {
    /// Rows that the function was asked for, strict NULLs left out.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Time spent in calls and their conversions.
    pub fn nanos(&self) -> u64 {
        self.nanos.load(Ordering::Relaxed)
    }

    /// Instances made: at the start, after a trap, and to recycle. Functions of one component share them; each counts
    /// those that its own calls asked for.
    pub fn instances(&self) -> u64 {
        self.instances.load(Ordering::Relaxed)
    }

    /// Most linear memory that the component held after a call of this function, failed ones included.
    pub fn memory_bytes_max(&self) -> u64 {
        self.memory_bytes_max.load(Ordering::Relaxed)
    }

    /// Failed calls by reason, all reasons, in a fixed order.
    pub fn failures(&self) -> impl Iterator<Item = (Reason, u64)> {
        REASONS.into_iter().zip(self.failures.iter().map(|n| n.load(Ordering::Relaxed)))
    }

    /// Lines that it wrote to the log, and those past its rate.
    pub fn log_lines(&self) -> (u64, u64) {
        (self.log_lines.load(Ordering::Relaxed), self.log_lines_dropped.load(Ordering::Relaxed))
    }

    pub(super) fn count_log_line(&self, is_written: bool) {
        let counter = if is_written { &self.log_lines } else { &self.log_lines_dropped };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_call(&self, nanos: u64) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(super) fn count_memory(&self, memory_bytes: usize) {
        let memory_bytes = memory_bytes as u64;
        if self.memory_bytes_max.load(Ordering::Relaxed) < memory_bytes {
            self.memory_bytes_max.fetch_max(memory_bytes, Ordering::Relaxed);
        }
    }

    pub(super) fn count_failure(&self, failure: CallFailure) {
        if let Some(counter) = self.failures.get(failure as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn count_instance(&self) {
        self.instances.fetch_add(1, Ordering::Relaxed);
    }
}

//! What a scorer tells about itself while it works.
//!
//! In: counts and states from its task. Out: the same, to be read at any time by metrics and health. Invariant:
//! counters only grow. Not here: names of metrics.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::policy::Outage;
use crate::time::{TICKS_PER_SECOND, Timestamp};

/// Upper bounds of the latency buckets in milliseconds; one more bucket takes the rest.
pub const LATENCY_BOUNDS_MS: [u64; 12] = [5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000];

/// Counters and state of a scorer.
#[derive(Debug, Default)]
pub struct ScorerStatus {
    /// Requests answered, or given up by their time limit; swagger fetches are not counted.
    pub requests: AtomicU64,
    /// Requests that ended in anything but results.
    pub failed_requests: AtomicU64,
    /// Rows scored.
    pub rows: AtomicU64,
    /// Rows that failed, before or after sending.
    pub failed_rows: AtomicU64,
    /// Rows that somebody else was to answer, since the endpoint was away.
    pub away_rows: AtomicU64,
    /// Results that were NaN or infinite.
    pub nan_results: AtomicU64,
    /// Requests out now.
    pub in_flight: AtomicI64,
    /// Requests allowed at once now.
    pub parallel: AtomicI64,
    /// Rows that wait for a request now.
    pub waiting_rows: AtomicI64,
    /// Requests by latency; bounds in [`LATENCY_BOUNDS_MS`].
    pub latency: [AtomicU64; LATENCY_BOUNDS_MS.len() + 1],
    /// All latencies together, microseconds.
    pub latency_sum_us: AtomicU64,
    text: Mutex<StatusText>,
    backlogs: Mutex<BacklogCounts>,
}

/// Ask how many records wait for the endpoint, one for each part that calls it.
#[derive(Default)]
struct BacklogCounts(Vec<CountBacklog>);

/// Counts the records that a part has to read.
pub type CountBacklog = Box<dyn Fn() -> u64 + Send + Sync>;

impl fmt::Debug for BacklogCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BacklogCounts({})", self.0.len())
    }
}

#[derive(Debug, Default)]
struct StatusText {
    state: State,
    last_error: Option<String>,
    away_since: Option<Timestamp>,
}

/// Where a scorer stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum State {
    /// No swagger document was ever seen and none is written: rows wait.
    #[default]
    UnknownSignature,
    Ready,
    /// The endpoint is away or overloaded: rows wait, it is tried again.
    BackingOff {
        since: Timestamp,
        until: Timestamp,
        outage: Outage,
    },
    /// Somebody has to repair something: rows wait, it is looked at now and then.
    Paused {
        since: Timestamp,
        reason: &'static str,
        remedy: String,
    },
    /// In mode `asa` the endpoint's answer ended the job.
    Failed {
        why: String,
    },
}

/// A pause longer than this is told.
const LONG_PAUSE_SECONDS: i64 = 10;

impl State {
    /// Until when nothing is sent, where that is long: the endpoint asked for it, or has failed often.
    pub fn long_pause(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            State::BackingOff { until, .. } => {
                (until.ticks().saturating_sub(now.ticks()) > LONG_PAUSE_SECONDS * TICKS_PER_SECOND).then_some(*until)
            }
            _ => None,
        }
    }
}

impl ScorerStatus {
    pub fn state(&self) -> State {
        self.text().state.clone()
    }

    /// The newest failure of a request or of fetching the signature.
    pub fn last_error(&self) -> Option<String> {
        self.text().last_error.clone()
    }

    /// Sets the state; gives what it was.
    pub(super) fn set_state(&self, state: State) -> State {
        std::mem::replace(&mut self.text().state, state)
    }

    /// Another part calls the endpoint.
    pub(super) fn add_backlog(&self, backlog: CountBacklog) {
        self.backlogs.lock().unwrap_or_else(PoisonError::into_inner).0.push(backlog);
    }

    /// How many records wait in the pool for the endpoint.
    pub fn backlog(&self) -> u64 {
        self.backlogs.lock().unwrap_or_else(PoisonError::into_inner).0.iter().map(|backlog| backlog()).sum()
    }

    /// Since when the endpoint is away, while somebody else answers in its place.
    pub fn away_since(&self) -> Option<Timestamp> {
        self.text().away_since
    }

    /// Sets that; gives what it was.
    pub(super) fn set_away_since(&self, since: Option<Timestamp>) -> Option<Timestamp> {
        std::mem::replace(&mut self.text().away_since, since)
    }

    pub(super) fn set_error(&self, error: String) {
        self.text().last_error = Some(error);
    }

    pub(super) fn observe(&self, latency: Duration) {
        let ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_MS.iter().position(|bound| ms <= *bound).unwrap_or(LATENCY_BOUNDS_MS.len());
        if let Some(bucket) = self.latency.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.latency_sum_us.fetch_add(u64::try_from(latency.as_micros()).unwrap_or(0), Ordering::Relaxed);
    }

    fn text(&self) -> MutexGuard<'_, StatusText> {
        // a reader or writer that panicked leaves whole values behind
        self.text.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

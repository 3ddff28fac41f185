//! How a journal is kept: its settings and their defaults. Not here: the job file's keys for them (`job`).

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::time::Clock;

/// The redo log: a few seconds of a busy stream, hours of a quiet one, and less for a small budget.
const REDO_BYTES_MAX: u64 = 4 << 20;
const REDO_BYTES_MIN: u64 = 64 << 10;

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    pub path: PathBuf,
    /// Budget for the file and its write-ahead log.
    pub max_bytes: u64,
    /// A commit waits at least this long after the last one for others to share it.
    pub commit_interval_min: Duration,
    /// And at most this long, where `write_budget` would be passed.
    pub commit_interval: Duration,
    /// Bytes that may be written in a day before commits are stretched. `None`: as many as it takes.
    pub write_budget: Option<u64>,
    /// Records that wait at which a commit is due at once, whatever the interval.
    pub commit_records: usize,
    /// Cap of the dead-letter table; the oldest are dropped beyond it.
    pub dead_letters_max_bytes: u64,
    /// Recent segments kept in memory, over all streams.
    pub tail_bytes_max: usize,
    /// Records younger than this stay even when everybody has read them.
    pub retention: Option<Duration>,
    /// Newest records of each input that stay so that redeliveries can be recognised: the receive window.
    pub recent_records: usize,
    pub on_damage: OnDamage,
    pub clock: Clock,
    #[cfg(test)]
    pub planted: Option<super::planted::Planted>,
}

/// What a start does with a pool that is beyond use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDamage {
    /// It ends, and says what helps.
    #[default]
    Stop,
    /// It moves the files aside and begins a fresh pool.
    Fresh,
}

impl JournalConfig {
    /// The defaults: 1 GiB, commits every 20 to 140 ms or 1,000 records, 10 GB written a day, 64 MiB of dead letters,
    /// 3 MiB of memory.
    pub fn new(path: impl Into<PathBuf>) -> JournalConfig {
        JournalConfig {
            path: path.into(),
            max_bytes: 1 << 30,
            commit_interval_min: Duration::from_millis(20),
            commit_interval: Duration::from_millis(140),
            write_budget: Some(10_000_000_000),
            commit_records: 1000,
            dead_letters_max_bytes: 64 << 20,
            tail_bytes_max: 3 << 20,
            retention: None,
            recent_records: 1000,
            on_damage: OnDamage::Stop,
            clock: Clock::Real,
            #[cfg(test)]
            planted: None,
        }
    }

    /// How long the redo log may become, in bytes: a part of the budget.
    pub(super) fn redo_bytes_max(&self) -> u64 {
        (self.max_bytes / 16).clamp(REDO_BYTES_MIN, REDO_BYTES_MAX)
    }
}

/// How much a consumer may have before it; beyond that the journal moves it past the oldest records, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BacklogLimits {
    /// Since an event arrived, or a row was stored.
    pub max_age: Option<Duration>,
    /// Of the file.
    pub max_bytes: Option<u64>,
}

//! `[journal]`: the durable pool.

use std::path::PathBuf;
use std::time::Duration;

use crate::journal::OnFull;
use crate::settings::{Problems, Section};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Below this the write-ahead log and the reserve leave no room for segments.
const BYTES_MIN: u64 = 16 * MIB;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// Default: `<job name>.db` beside the job file.
    pub path: PathBuf,
    /// File and write-ahead log together. 1 GiB.
    pub max_bytes: u64,
    pub on_full: OnFull,
    /// How long events are kept after every consumer has read them. Zero: not at all.
    pub retention: Duration,
    /// Dead letters have a budget of their own inside `max_bytes`. 64 MiB.
    pub dead_letters_max_bytes: u64,
    /// How long a commit waits for more records. 20 ms.
    pub commit_interval: Duration,
    /// Records that start a commit at once. 1,000.
    pub commit_records: usize,
}

/// `section`: `None` when the file has none, or a bad one.
pub(super) fn read(section: Option<Section>, job: &str, problems: &Problems) -> Journal {
    let mut journal = Journal {
        path: problems.folder().join(format!("{job}.db")),
        max_bytes: GIB,
        on_full: OnFull::Block,
        retention: Duration::ZERO,
        dead_letters_max_bytes: 64 * MIB,
        commit_interval: Duration::from_millis(20),
        commit_records: 1_000,
    };
    let Some(mut section) = section else { return journal };
    if let Some(path) = section.path("path") {
        journal.path = path;
    }
    journal.max_bytes = section.size("max_bytes", BYTES_MIN, 16 * 1024 * GIB, journal.max_bytes);
    journal.on_full = section.choice("on_full", &[("block", OnFull::Block), ("drop-oldest", OnFull::DropOldest)], journal.on_full);
    journal.retention = section.duration("retention", Duration::ZERO, Duration::from_secs(3_660 * 86_400), journal.retention);
    // a small pool gets a small share for dead letters unless the file says otherwise
    let share = journal.dead_letters_max_bytes.min(journal.max_bytes / 4);
    journal.dead_letters_max_bytes = section.size("dead_letters_max_bytes", MIB, 16 * 1024 * GIB, share);
    if journal.dead_letters_max_bytes > journal.max_bytes / 2 {
        let help = "raise `max_bytes`, or lower this";
        section.wrong(
            "dead_letters_max_bytes",
            "dead letters would take most of the journal",
            "expected at most half of `max_bytes`",
            help,
        );
    }
    journal.commit_interval =
        section.duration("commit_interval", Duration::from_millis(1), Duration::from_secs(10), journal.commit_interval);
    let records = section.count("commit_records", 1, 100_000, 1_000);
    journal.commit_records = usize::try_from(records).unwrap_or(usize::MAX);
    section.finish();
    journal
}

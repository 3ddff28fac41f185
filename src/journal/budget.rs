//! How much of the disk the journal may use.
//!
//! In: sizes of the file and of its logs. Out: whether intake may go on. Invariant: once full, it stays so until a
//! sixteenth of the budget is free, so that intake does not stutter. A small reserve file is given back when the disk
//! itself is full. Then consumers can commit and trimming can free pages. Freed pages are a reason to try the disk
//! again. Not here: whose fault it is (`trim`).

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::error::has_no_room;
use super::growth::disk_free;
use super::schema::{PAGE_BYTES, beside, log_bytes_max, redo_path, wal_path};
use crate::backoff::Backoff;

/// Enough for the write-ahead log between two checkpoints.
const RESERVE_BYTES: u64 = 4 << 20;
/// What a start writes: both logs, and what it takes over.
const START_BYTES: u64 = 1 << 20;
/// How long until the reserve is tried again on a disk that stays full: each try writes it anew. The disk is our own,
/// so the steps are taken whole.
const RESERVE_PAUSE: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(60) };

#[derive(Debug)]
pub(super) struct Budget {
    pub max_bytes: u64,
    /// As of the last commit.
    pub used_bytes: u64,
    path: PathBuf,
    reserve: PathBuf,
    is_over: bool,
    /// Another program keeps the write-ahead log from being used anew: what it is too long by is not the budget's.
    log_pinned: bool,
    /// A pinned log has grown as far as it may.
    is_log_over: bool,
    /// The last transaction found no room on the disk.
    disk_full: bool,
    /// As of the last commit, without the write-ahead log: what a transaction that failed has left there is nothing
    /// that somebody frees.
    kept_bytes: u64,
    /// The same when the disk was found full.
    kept_when_full: u64,
    /// What the disk had free then.
    free_when_full: u64,
    /// Asks the disk what it has free; `None` where it does not tell.
    ask_disk: fn(&Path) -> Option<u64>,
    /// When the reserve may be tried again, and how many tries in a row came to nothing.
    again: Option<(Instant, u32)>,
}

impl Budget {
    pub fn new(path: &Path, max_bytes: u64) -> Budget {
        let reserve = beside(path, "-reserve");
        let path = path.to_owned();
        Budget {
            max_bytes,
            used_bytes: 0,
            path,
            reserve,
            is_over: false,
            log_pinned: false,
            is_log_over: false,
            disk_full: false,
            kept_bytes: 0,
            kept_when_full: 0,
            free_when_full: 0,
            ask_disk: disk_free,
            again: None,
        }
    }

    /// A start on a disk that has no room for what it writes gets the reserve of the process before. Whether the disk
    /// is full.
    pub fn make_room_to_start(&self) -> bool {
        let is_short = (self.ask_disk)(&self.path).is_some_and(|free| free < START_BYTES) || has_no_room(&self.path);
        if is_short && self.reserve.exists() {
            tracing::warn!("the disk of the pool is full: its reserve is given back for the start");
            self.release_reserve();
        }
        is_short
    }

    /// Whether intake has to wait.
    pub fn is_full(&self) -> bool {
        self.is_over || self.disk_full
    }

    /// Whether intake has to wait for a pinned log alone: everything else may go on.
    pub fn is_log_over(&self) -> bool {
        self.is_log_over
    }

    /// Another program pins the log, or does so no longer.
    pub fn set_log_pinned(&mut self, log_pinned: bool) {
        self.log_pinned = log_pinned;
    }

    pub fn is_log_pinned(&self) -> bool {
        self.log_pinned
    }

    /// What the write-ahead log is too long by.
    fn log_surplus(&self) -> u64 {
        fs::metadata(wal_path(&self.path)).map_or(0, |m| m.len()).saturating_sub(log_bytes_max(self.max_bytes))
    }

    /// Whether what the disk has left is for outputs, whose positions still have to be written.
    fn is_disk_short(&self) -> bool {
        (self.ask_disk)(&self.path).is_some_and(|free| free < 4 * self.reserve_bytes())
    }

    /// Bytes that the disk has free; 0 where it does not tell.
    fn disk_free(&self) -> u64 {
        (self.ask_disk)(&self.path).unwrap_or_default()
    }

    /// Whether the last transaction found no room on the disk.
    pub fn is_disk_full(&self) -> bool {
        self.disk_full
    }

    /// A transaction found no room on the disk: the reserve is given back. `false` when it had been given back before.
    pub fn found_disk_full(&mut self) -> bool {
        let is_new = !std::mem::replace(&mut self.disk_full, true);
        self.release_reserve();
        if is_new {
            self.kept_when_full = self.kept_bytes;
            self.free_when_full = self.disk_free();
        }
        is_new
    }

    /// Whether the budget has room for these bytes too.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.used_bytes.saturating_add(bytes) < self.max_bytes
    }

    /// Looks at the sizes again.
    pub fn measure(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let used = used_bytes(db, &self.path)?;
        self.kept_bytes = used.saturating_sub(fs::metadata(wal_path(&self.path)).map_or(0, |m| m.len()));
        let surplus = if self.log_pinned { self.log_surplus() } else { 0 };
        self.is_log_over = surplus > 0 && (surplus >= self.max_bytes || self.is_disk_short());
        let used = used.saturating_sub(surplus);
        self.used_bytes = used;
        let resume_below = self.max_bytes - self.max_bytes / 16;
        self.is_over = if self.is_over { used >= resume_below } else { used >= self.max_bytes };
        Ok(())
    }

    /// Sets the reserve aside again, unless that was tried a moment ago; where it fits the disk has room.
    pub fn regain_reserve(&mut self, now: Instant) {
        let has_freed = self.has_freed();
        if !has_freed && self.again.is_some_and(|(due, _)| now < due) {
            return;
        }
        // what was given back a moment ago fits again, also on a disk that is as full as it was
        let tries = match self.again {
            Some((due, tries)) if !has_freed && now < due + RESERVE_PAUSE.cap => tries.saturating_add(1),
            _ => 1,
        };
        self.disk_full = !self.keep_reserve();
        self.kept_when_full = self.kept_bytes;
        self.free_when_full = self.disk_free();
        self.again = Some((now + RESERVE_PAUSE.step(tries), tries));
    }

    /// Whether as much was freed since the disk was full as makes a try worth its bytes.
    fn has_freed(&self) -> bool {
        // others may have made room on the disk
        let by_others = self.disk_free().saturating_sub(self.free_when_full);
        if by_others >= 2 * self.reserve_bytes() {
            return true;
        }
        let freed = self.kept_when_full.saturating_sub(self.kept_bytes);
        freed > 0 && freed >= self.reserve_bytes().min(self.kept_when_full / 16)
    }

    fn reserve_bytes(&self) -> u64 {
        RESERVE_BYTES.min(self.max_bytes / 16)
    }

    /// Sets the reserve aside; `false` when there is no room for it.
    pub fn keep_reserve(&self) -> bool {
        let bytes = self.reserve_bytes();
        if fs::metadata(&self.reserve).is_ok_and(|m| m.len() == bytes) {
            return true;
        }
        let write = || -> std::io::Result<()> {
            // written, not just made long: holes take no room
            let mut file = File::create(&self.reserve)?;
            let block = [0x5a; 64 << 10];
            let mut left = bytes;
            while left > 0 {
                let n = left.min(block.len() as u64);
                file.write_all(block.get(..n as usize).unwrap_or(&block))?;
                left -= n;
            }
            file.sync_all()
        };
        let kept = write().is_ok();
        if !kept {
            self.release_reserve();
        }
        kept
    }

    pub fn release_reserve(&self) {
        // it may be gone already: then there is nothing to give
        let _ = fs::remove_file(&self.reserve);
    }
}

/// Pages in use and both logs. Deleted pages are used again, so they do not count.
pub(super) fn used_bytes(db: &Connection, path: &Path) -> rusqlite::Result<u64> {
    let number = |sql: &str| db.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0));
    let pages = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
    let length = |path: &Path| fs::metadata(path).map_or(0, |m| m.len());
    Ok(pages.max(0) as u64 * PAGE_BYTES + length(&wal_path(path)) + length(&redo_path(path)))
}

/// Pages of the file that hold nothing.
pub(super) fn free_bytes(db: &Connection) -> rusqlite::Result<u64> {
    let pages: i64 = db.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
    Ok(pages.max(0) as u64 * PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::time::Clock;

    #[test]
    fn on_a_disk_that_stays_full_the_reserve_is_written_seldom() {
        let dir = tempfile::tempdir().unwrap();
        let mut budget = Budget::new(&dir.path().join("job.db"), 1 << 20);
        // other tests fill and empty the same disk
        budget.ask_disk = |_| None;
        let start = Clock::Real.monotonic();
        // each time that there seems to be room the next commit finds none
        let tries = |budget: &mut Budget, from: u64, to: u64| {
            let mut tries = 0;
            for second in from..to {
                budget.found_disk_full();
                budget.regain_reserve(start + Duration::from_secs(second));
                tries += u32::from(!budget.disk_full);
            }
            tries
        };
        assert_eq!(tries(&mut budget, 0, 8), 4, "after 0, 1, 3 and 7 seconds");
        assert_eq!(tries(&mut budget, 3_600, 7_200), 65, "once a minute in the end");
        assert_eq!(tries(&mut budget, 8_000, 8_001), 1, "at once after a long time");
    }

    #[test]
    fn a_start_on_a_full_disk_gets_the_reserve() {
        let dir = tempfile::tempdir().unwrap();
        let mut budget = Budget::new(&dir.path().join("job.db"), 1 << 20);
        assert!(budget.keep_reserve() && budget.reserve.exists());
        budget.ask_disk = |_| Some(START_BYTES);
        assert!(!budget.make_room_to_start() && budget.reserve.exists());
        budget.ask_disk = |_| Some(START_BYTES - 1);
        assert!(budget.make_room_to_start() && !budget.reserve.exists());
        assert!(budget.make_room_to_start(), "also without a reserve");
    }

    #[test]
    fn what_consumers_free_is_tried_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut budget = Budget::new(&dir.path().join("job.db"), 1 << 20);
        // other tests fill and empty the same disk
        budget.ask_disk = |_| None;
        let start = Clock::Real.monotonic();
        let mut is_tried = |used: u64, used_later: u64, second: u64| {
            budget.kept_bytes = used;
            budget.found_disk_full();
            budget.kept_bytes = used_later;
            budget.regain_reserve(start + Duration::from_secs(second));
            !budget.is_disk_full()
        };
        assert!(is_tried(800_000, 800_000, 0));
        assert!(!is_tried(800_000, 799_000, 0), "too little was freed");
        assert!(is_tried(800_000, 750_000, 0), "a sixteenth was freed");
        assert!(is_tried(800_000, 700_000, 0), "and again");
        assert!(!is_tried(800_000, 800_000, 0), "nothing was freed");
        assert!(is_tried(800_000, 800_000, 1), "the pauses begin anew");
    }

    #[test]
    fn room_that_others_make_is_tried_at_once() {
        static FREE: AtomicU64 = AtomicU64::new(0);
        let dir = tempfile::tempdir().unwrap();
        let mut budget = Budget::new(&dir.path().join("job.db"), 1 << 20);
        budget.ask_disk = |_| Some(FREE.load(Ordering::Relaxed));
        let start = Clock::Real.monotonic();
        let mut is_tried = |free: u64| {
            budget.found_disk_full();
            FREE.store(free, Ordering::Relaxed);
            budget.regain_reserve(start);
            !budget.is_disk_full()
        };
        // a sixteenth of the budget is the reserve
        assert!(is_tried(0), "the first time");
        assert!(!is_tried((128 << 10) - 1), "the reserve would not leave as much again");
        assert!(is_tried(128 << 10));
        assert!(!is_tried(128 << 10), "no more than at the last try");
    }
}

//! Gives room that the journal does not need back to the file system.
//!
//! In: the writing connection, once a second. Out: a shorter file and shorter logs; and whether a log stays long
//! because another program reads it, or because the file cannot be written. Invariant: nothing is written once
//! everything is given back, and no step takes longer than its bound, so that commits do not wait. Not here: deleting
//! segments (`trim`), when a checkpoint is due (`writer`).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

use super::damage::is_of_page;
use super::error::has_no_room;
use super::pin::{Pin, Reached, Watch};
use super::schema::{BUSY_TIMEOUT, log_bytes_max, wal_path};
use crate::time::Clock;

/// Fewer free pages (4 MiB) are left in the file: they are soon used again.
const FREE_PAGES_KEPT: i64 = 1024;
/// Pages given back in one transaction: SQLite takes hold of each, and what does not fit into its cache (512 pages) it
/// would write before it lets go of it.
const VACUUM_PAGES: i64 = 256;
/// A step of giving pages back takes up to this long, while events come and while none do.
const STEP: Duration = Duration::from_millis(20);
const QUIET_STEP: Duration = Duration::from_millis(500);
/// How long emptying the write-ahead log waits for readers of this process, which are done in a moment.
pub(super) const READERS_WAIT: Duration = Duration::from_millis(50);
/// Between two looks for a program that pins the log; longer while nothing is committed and nobody was seen.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const QUIET_LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Without a commit for this long the journal is quiet.
const QUIET: Duration = Duration::from_secs(10);
/// Without a commit for this long, and with everything in the file, the logs are of no use.
const LOGS_QUIET: Duration = Duration::from_secs(60);
/// A shorter write-ahead log stays: emptying it after each event of a trickle would write the same pages twice.
const LOG_BYTES_KEPT: u64 = 256 << 10;

#[derive(Debug)]
pub(super) struct Upkeep {
    path: PathBuf,
    /// Longer than this the write-ahead log should not be.
    log_bytes_max: u64,
    watch: Watch,
    looked: Option<Instant>,
    worked: Instant,
    /// Pages were given back that the file still has: it is cut when the log has been emptied.
    has_tail: bool,
    /// The changes that this connection had made when few pages were free.
    few_free_at: Option<u64>,
    /// How long the log was at the last look.
    last_log_bytes: u64,
    failing: Option<FileFailing>,
}

/// The file takes nothing from its log, which does: commits are durable there, and the log grows.
#[derive(Debug)]
struct FileFailing {
    why: String,
    tried: Instant,
}

impl Upkeep {
    pub fn new(path: &Path, max_bytes: u64, now: Instant) -> Upkeep {
        Upkeep {
            path: path.to_owned(),
            log_bytes_max: log_bytes_max(max_bytes),
            watch: Watch::new(path),
            looked: None,
            worked: now,
            has_tail: true,
            few_free_at: None,
            last_log_bytes: 0,
            failing: None,
        }
    }

    /// Why the file cannot be written, if it cannot.
    pub fn failing(&self) -> Option<&str> {
        self.failing.as_ref().map(|failing| failing.why.as_str())
    }

    /// Empties the log, or copies it at least. A file that cannot be written is no error: the log keeps everything.
    /// That is tried again once a second.
    pub fn empty(&mut self, db: &Connection, wait: Duration, now: Instant) -> rusqlite::Result<Option<Reached>> {
        self.unless_failing(now, || empty_log(db, wait))
    }

    fn unless_failing(
        &mut self,
        now: Instant,
        copy: impl FnOnce() -> rusqlite::Result<Option<Reached>>,
    ) -> rusqlite::Result<Option<Reached>> {
        if self.failing.as_ref().is_some_and(|failing| now.saturating_duration_since(failing.tried) < LOOK_INTERVAL) {
            return Ok(None);
        }
        match copy() {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) && !has_no_room(&self.path) => {
                let path = self.path.display();
                let why = format!(
                    "{path} cannot be written ({error}), so what is committed stays in its write-ahead log, which \
                     grows until max_bytes is used up: see the kernel's log (dmesg), and repair or replace the \
                     disk; nothing is lost so far"
                );
                if self.failing.is_none() {
                    tracing::error!("{why}");
                }
                self.failing = Some(FileFailing { why, tried: now });
                Ok(None)
            }
            copied => {
                let copied = copied?;
                if self.failing.take().is_some() {
                    tracing::info!("{} can be written again: its write-ahead log is copied", self.path.display());
                }
                Ok(copied)
            }
        }
    }

    /// Something was committed.
    pub fn worked(&mut self, now: Instant) {
        self.worked = now;
    }

    /// Once a second, each 5 s while nothing is committed: empties a log that is too long, and tells who keeps it from
    /// being emptied. `None`: too soon.
    pub fn look(&mut self, db: &Connection, now: Instant) -> rusqlite::Result<Option<Option<Pin>>> {
        let is_too_soon = self.looked.is_some_and(|looked| {
            let is_quiet = self.worked < looked && !self.watch.sees_somebody();
            let interval = if is_quiet { QUIET_LOOK_INTERVAL } else { LOOK_INTERVAL };
            now.saturating_duration_since(looked) < interval
        });
        if is_too_soon {
            return Ok(None);
        }
        self.looked = Some(now);
        let mut log_bytes = self.log_bytes();
        let mut reached = None;
        // SQLite copies a log of half that length, and says nothing where it could not
        let has_grown = log_bytes > self.last_log_bytes && log_bytes > self.log_bytes_max / 2;
        if log_bytes > self.log_bytes_max {
            reached = self.empty(db, Duration::ZERO, now)?;
            log_bytes = self.log_bytes();
        } else if has_grown || self.failing.is_some() {
            self.unless_failing(now, || copy_log(db, "PASSIVE"))?;
        }
        self.last_log_bytes = log_bytes;
        Ok(Some(self.watch.look(reached, log_bytes)))
    }

    /// Gives free pages back, some at a time, and in the end what the log and the file have beyond their content.
    /// `is_stored`: the file holds everything. Whether the logs are of no use now.
    pub fn give_back(&mut self, db: &Connection, is_stored: bool, now: Instant) -> rusqlite::Result<bool> {
        let quiet = now.saturating_duration_since(self.worked);
        let changes = db.total_changes();
        if self.few_free_at != Some(changes) {
            let free: i64 = db.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
            if free > FREE_PAGES_KEPT {
                let step = if quiet >= QUIET { QUIET_STEP } else { STEP };
                match vacuum(db, free - FREE_PAGES_KEPT, now + step) {
                    // the pages stay in the file
                    Err(error) if is_of_page(&error) => tracing::debug!(%error, "free pages are not given back"),
                    given => {
                        given?;
                        self.has_tail = true;
                        return Ok(false);
                    }
                }
            }
            self.few_free_at = Some(changes);
        }
        let are_useless = is_stored && quiet >= LOGS_QUIET;
        if are_useless && (self.has_tail || self.log_bytes() > LOG_BYTES_KEPT) {
            // one that another program pins stays, and is tried again
            self.has_tail = self.empty(db, Duration::ZERO, now)?.is_some() || self.failing.is_some();
        }
        Ok(are_useless)
    }

    fn log_bytes(&self) -> u64 {
        fs::metadata(wal_path(&self.path)).map_or(0, |m| m.len())
    }
}

/// Gives up to `pages` back, until the time is over.
fn vacuum(db: &Connection, pages: i64, until: Instant) -> rusqlite::Result<()> {
    let mut left = pages;
    while left > 0 {
        let mut vacuum = db.prepare_cached(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
        // it frees one page a step
        let mut steps = vacuum.query([])?;
        while steps.next()?.is_some() {}
        left -= VACUUM_PAGES;
        if Clock::Real.monotonic() >= until {
            break;
        }
    }
    Ok(())
}

/// Copies the log into the file as far as readers let, and makes it empty if all of it could be. `None`: it is
/// empty. Waits for readers up to `wait`.
pub(super) fn empty_log(db: &Connection, wait: Duration) -> rusqlite::Result<Option<Reached>> {
    db.busy_timeout(wait)?;
    let found = copy_log(db, "TRUNCATE");
    db.busy_timeout(BUSY_TIMEOUT)?;
    found
}

/// Copies the log into the file as far as readers let. `None`: all of it.
fn copy_log(db: &Connection, mode: &str) -> rusqlite::Result<Option<Reached>> {
    let (is_busy, reached) = db.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        Ok((row.get::<_, bool>(0)?, Reached { pages: row.get(1)?, done: row.get(2)? }))
    })?;
    Ok(is_busy.then_some(reached))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::journal::schema;

    const SECOND: Duration = Duration::from_secs(1);

    /// A pool of 1 GiB whose file has 12 MiB that nobody needs, and a log.
    fn after_a_backlog() -> (tempfile::TempDir, PathBuf, Connection) {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("job.db");
        let db = schema::open_writer(&path, 1 << 30).unwrap();
        db.execute_batch(
            "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 300)
             INSERT INTO segment SELECT NULL, 0, i, 1, 1, 0, 1, 40000, 0, randomblob(40000) FROM n;
             DELETE FROM segment;",
        )
        .unwrap();
        (dir, path, db)
    }

    fn traces(path: &Path) -> [(u64, SystemTime); 2] {
        [path.to_owned(), wal_path(path)].map(|path| {
            let file = fs::metadata(path).unwrap();
            (file.len(), file.modified().unwrap())
        })
    }

    #[test]
    fn a_quiet_journal_gives_its_room_back_and_then_writes_nothing() {
        let (_dir, path, db) = after_a_backlog();
        let start = Clock::Real.monotonic();
        let mut upkeep = Upkeep::new(&path, 1 << 30, start);
        assert_eq!(upkeep.look(&db, start).unwrap(), Some(None));
        let [(file, _), _] = traces(&path);
        assert!(file > 12_000_000, "{file}");
        empty_log(&db, Duration::ZERO).unwrap();
        for second in 11..100 {
            let are_useless = upkeep.give_back(&db, true, start + SECOND * second).unwrap();
            assert_eq!(are_useless, second >= 60, "{second}");
            let log = traces(&path)[1].0;
            assert!(log < 400_000, "little is written to give 8 MB back: {log}");
        }
        let left = traces(&path);
        assert!(left[0].0 < 5_000_000 && left[1].0 == 0, "{left:?}");
        let mut looks = 0;
        for second in 100..200 {
            upkeep.give_back(&db, true, start + SECOND * second).unwrap();
            let found = upkeep.look(&db, start + SECOND * second).unwrap();
            assert!(found.as_ref().is_none_or(Option::is_none));
            looks += u32::from(found.is_some());
        }
        assert_eq!(looks, 20, "every 5 seconds while nothing is committed");
        upkeep.worked(start + SECOND * 200);
        let looked: Vec<bool> =
            (200..203).map(|second| upkeep.look(&db, start + SECOND * second).unwrap().is_some()).collect();
        assert_eq!(looked, [true, true, false], "at once behind a commit");
        assert_eq!(traces(&path), left, "nothing is written any more");
    }

    #[test]
    fn a_trickle_keeps_its_log() {
        let (_dir, path, db) = after_a_backlog();
        let start = Clock::Real.monotonic();
        let mut upkeep = Upkeep::new(&path, 1 << 30, start);
        for second in 0..200 {
            if second % 30 == 0 {
                upkeep.worked(start + SECOND * second);
            }
            assert!(!upkeep.give_back(&db, true, start + SECOND * second).unwrap());
        }
        assert!(traces(&path)[1].0 > LOG_BYTES_KEPT, "its pages are written into the file seldom");
        assert!(!upkeep.give_back(&db, false, start + SECOND * 500).unwrap(), "the redo log is still needed");
    }

    #[test]
    fn a_step_ends_when_its_time_is_over() {
        let (_dir, _path, db) = after_a_backlog();
        let free = || db.query_row("PRAGMA freelist_count", [], |row| row.get::<_, i64>(0)).unwrap();
        let before = free();
        vacuum(&db, before, Clock::Real.monotonic()).unwrap();
        assert_eq!(free(), before - VACUUM_PAGES);
        vacuum(&db, before, Clock::Real.monotonic() + 60 * SECOND).unwrap();
        assert_eq!(free(), 0);
    }
}

//! How much of the disk the journal may use.
//!
//! In: sizes of the file and of its logs. Out: whether intake may go on. Invariant: once full, it stays so
//! until a sixteenth of the budget is free, so that intake does not stutter. A small reserve file can be given back
//! when the disk itself is full, which lets consumers commit and so trimming free pages. Not here: whose fault it is
//! (`trim`).

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::schema::{PAGE_BYTES, beside, redo_path, wal_path};

/// Enough for the write-ahead log between two checkpoints.
const RESERVE_BYTES: u64 = 4 << 20;

#[derive(Debug)]
pub(super) struct Budget {
    pub max_bytes: u64,
    /// As of the last commit.
    pub used_bytes: u64,
    path: PathBuf,
    reserve: PathBuf,
    is_over: bool,
    /// The last transaction found no room on the disk.
    pub disk_full: bool,
}

impl Budget {
    pub fn new(path: &Path, max_bytes: u64) -> Budget {
        let reserve = beside(path, "-reserve");
        Budget { max_bytes, used_bytes: 0, path: path.to_owned(), reserve, is_over: false, disk_full: false }
    }

    /// Whether intake has to wait.
    pub fn is_full(&self) -> bool {
        self.is_over || self.disk_full
    }

    /// Whether so many bytes more are inside the budget.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.used_bytes.saturating_add(bytes) < self.max_bytes
    }

    /// Looks at the sizes again.
    pub fn measure(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let used = used_bytes(db, &self.path)?;
        self.used_bytes = used;
        let resume_below = self.max_bytes - self.max_bytes / 16;
        self.is_over = if self.is_over { used >= resume_below } else { used >= self.max_bytes };
        Ok(())
    }

    /// Sets the reserve aside; `false` when there is no room for it.
    pub fn keep_reserve(&self) -> bool {
        let bytes = RESERVE_BYTES.min(self.max_bytes / 16);
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

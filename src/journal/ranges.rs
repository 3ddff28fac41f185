//! Ranges of offsets that were set aside, as their table has them.
//!
//! In: the table. Out: how many records lie in them, in all or between two offsets. Not here: setting aside
//! (`quarantine`).

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;

/// How the reason begins where no segment holds the records.
pub(super) const MISSING: &str = "missing";
/// Where `meta` keeps the number of the last range that a person has seen.
pub(super) const SEEN: &str = "quarantine_seen";

/// What was set aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QuarantineCount {
    pub ranges: u64,
    pub records: u64,
    /// The same of what nobody has acknowledged.
    pub unseen_ranges: u64,
    pub unseen_records: u64,
}

impl QuarantineCount {
    pub(super) fn read(db: &Connection) -> rusqlite::Result<QuarantineCount> {
        let sql = "SELECT count(*), coalesce(sum(past - first), 0), coalesce(sum(rowid > ?1), 0), \
                   coalesce(sum((rowid > ?1) * (past - first)), 0) FROM quarantine";
        let seen: Option<Vec<u8>> =
            db.query_row("SELECT value FROM meta WHERE key = ?1", [SEEN], |row| row.get(0)).optional()?;
        let seen = seen.and_then(|bytes| bytes.try_into().ok()).map_or(0, i64::from_le_bytes);
        db.query_row(sql, [seen], |row| {
            let number = |i| row.get::<_, i64>(i).map(|n| n.max(0) as u64);
            Ok(QuarantineCount {
                ranges: number(0)?,
                records: number(1)?,
                unseen_ranges: number(2)?,
                unseen_records: number(3)?,
            })
        })
    }
}

/// Where the range ends that was set aside from this offset on, if one was.
pub(super) fn end_of_aside(db: &Connection, stream: u32, first: i64) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT past FROM quarantine WHERE stream = ?1 AND first = ?2";
    db.query_row(sql, params![stream, first], |row| row.get(0)).optional()
}

/// Whether, and how many, of these offsets were set aside; with them, how many of those had no segment.
pub(super) fn set_aside_between(db: &Connection, stream: u32, from: i64, to: i64) -> rusqlite::Result<(u64, u64)> {
    let sql = "SELECT coalesce(sum(min(past, ?3) - max(first, ?2)), 0), \
               coalesce(sum((reason LIKE ?4) * (min(past, ?3) - max(first, ?2))), 0) \
               FROM quarantine WHERE stream = ?1 AND first < ?3 AND past > ?2";
    let like = format!("{MISSING}%");
    db.prepare_cached(sql)?.query_row(params![stream, from, to, like], |row| {
        let number = |i| row.get::<_, i64>(i).map(|n| n.max(0) as u64);
        Ok((number(0)?, number(1)?))
    })
}

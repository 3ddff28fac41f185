//! Records that cannot be read: segments that are damaged, and offsets that have no segment.
//!
//! In: where a reader found that. Out: the range in a table of its own, with an alarm, until a person has seen it.
//! Invariant: only what the writer itself finds so is set aside, and the range of offsets is kept, so that consumers
//! that pass it can count what they skipped. Not here: the counting (`transaction`).

use rusqlite::{Connection, OptionalExtension, params};

use super::damage::next_first;
use super::error::StepError;
use super::ranges::{MISSING, QuarantineCount, SEEN};
use super::segment;
use super::transaction::Transaction;

/// Damaged bytes kept for whoever wants to look at them; beyond that only the range is.
const QUARANTINE_BYTES_MAX: i64 = 16 << 20;

/// Sets the range of a segment aside that lies on a damaged page. It stays where it is: the index alone is asked, since
/// the transaction would be over with the first look at that page.
pub(super) fn set_page_aside(tx: &mut Transaction<'_>, stream: u32, first: i64) -> Result<(), StepError> {
    if next_first(tx.db, stream, first - 1)? != Some(first) {
        // it was read by everybody, and went
        return Ok(());
    }
    let past = past(tx, stream, first)?;
    let reason = "a page of the file is damaged";
    if keep_range(tx, stream, first, past, reason)? {
        tell(tx, stream, first, past, reason);
    }
    Ok(())
}

/// Where the segment at `first` ends that does not say so itself.
fn past(tx: &Transaction<'_>, stream: u32, first: i64) -> rusqlite::Result<i64> {
    let next = next_first(tx.db, stream, first)?;
    Ok(next.unwrap_or_else(|| tx.books.streams.get(&stream).map_or(first, |s| s.next)))
}

/// `past`, or where a range begins before that which is aside already.
fn before_next(tx: &Transaction<'_>, stream: u32, first: i64, past: i64) -> rusqlite::Result<i64> {
    let sql = "SELECT min(first) FROM quarantine WHERE stream = ?1 AND first > ?2";
    let next: Option<i64> = tx.db.query_row(sql, params![stream, first], |row| row.get(0))?;
    Ok(next.map_or(past, |next| past.min(next)))
}

/// Copies the segment at `first` aside if SQLite can read it and it is damaged. It goes when everybody has passed it.
pub(super) fn set_aside(tx: &mut Transaction<'_>, stream: u32, first: i64) -> Result<(), StepError> {
    let sql = "SELECT stream, first, input, count, arrival, codec, raw_bytes, checksum, data FROM segment WHERE stream \
        = ?1 AND first = ?2";
    let found = tx.db.prepare_cached(sql)?.query_row(params![stream, first], |row| {
        let (Ok(head), Ok(checksum), Ok(data)) = (segment::Head::read(row), row.get(7), row.get(8)) else {
            return Ok(Err("its head is damaged".to_string()));
        };
        Ok(segment::open(&head, checksum, data).map(drop).map_err(|damage| damage.to_string()))
    });
    let Some(Err(reason)) = found.optional()? else { return Ok(()) };
    let past = before_next(tx, stream, first, past(tx, stream, first)?)?;
    let held: i64 = tx.db.query_row("SELECT coalesce(sum(length(data)), 0) FROM quarantine", [], |row| row.get(0))?;
    let added = tx.db.execute(
        "INSERT OR IGNORE INTO quarantine (stream, first, past, input, codec, raw_bytes, checksum, reason, at, data)
         SELECT stream, first, ?3, input, codec, raw_bytes, checksum, ?4, arrival, CASE WHEN ?5 + length(data) <= ?6 \
         THEN data END
         FROM segment WHERE stream = ?1 AND first = ?2",
        params![stream, first, past, reason, held, QUARANTINE_BYTES_MAX],
    )?;
    if added > 0 {
        tell(tx, stream, first, past, &reason);
    }
    Ok(())
}

/// Sets those of these offsets aside that no segment holds, and that are neither trimmed nor aside.
pub(super) fn set_missing_aside(tx: &mut Transaction<'_>, stream: u32, from: i64, to: i64) -> Result<(), StepError> {
    let Some(book) = tx.books.streams.get(&stream) else { return Ok(()) };
    let (from, to) = (from.max(book.first), to.min(book.next));
    let gaps = gaps(tx.db, stream, from, to)?;
    let reason = format!("{MISSING}: no segment holds them");
    for (first, past) in gaps {
        if keep_range(tx, stream, first, past, &reason)? {
            tell(tx, stream, first, past, &reason);
        }
    }
    Ok(())
}

/// The stretches that neither a segment nor the quarantine has.
pub(super) fn gaps(db: &Connection, stream: u32, from: i64, to: i64) -> rusqlite::Result<Vec<(i64, i64)>> {
    between(
        db,
        "SELECT first, first + count AS past FROM segment WHERE stream = ?1 AND first < ?3
         AND first >= coalesce((SELECT max(first) FROM segment WHERE stream = ?1 AND first <= ?2), ?2)
         UNION ALL SELECT first, past FROM quarantine WHERE stream = ?1 AND first < ?3 AND past > ?2 ORDER BY first",
        stream,
        (from, to),
    )
}

/// The stretches that no segment has.
pub(super) fn without_segment(db: &Connection, stream: u32, from: i64, to: i64) -> rusqlite::Result<Vec<(i64, i64)>> {
    between(
        db,
        "SELECT first, first + count AS past FROM segment WHERE stream = ?1 AND first < ?3
         AND first >= coalesce((SELECT max(first) FROM segment WHERE stream = ?1 AND first <= ?2), ?2) ORDER BY first",
        stream,
        (from, to),
    )
}

/// The stretches between two offsets that none of the ranges has that a query gives.
fn between(
    db: &Connection,
    ranges: &str,
    stream: u32,
    (mut from, to): (i64, i64),
) -> rusqlite::Result<Vec<(i64, i64)>> {
    let mut find = db.prepare_cached(ranges)?;
    let mut rows = find.query(params![stream, from, to])?;
    let mut gaps = Vec::new();
    while let Some(row) = rows.next()? {
        let first: i64 = row.get(0)?;
        // one whose count is damaged is found by whoever reads it
        let past: i64 = row.get(1).unwrap_or(first);
        if first > from {
            gaps.push((from, first));
        }
        from = from.max(past);
    }
    if from < to {
        gaps.push((from, to));
    }
    Ok(gaps)
}

/// Whether the range is new.
fn keep_range(tx: &Transaction<'_>, stream: u32, first: i64, past: i64, reason: &str) -> rusqlite::Result<bool> {
    let at = tx.books.streams.get(&stream).map_or(0, |book| book.last_arrival.ticks());
    let past = before_next(tx, stream, first, past)?;
    let sql = "INSERT OR IGNORE INTO quarantine (stream, first, past, reason, at) VALUES (?1, ?2, ?3, ?4, ?5)";
    Ok(tx.db.execute(sql, params![stream, first, past, reason, at])? > 0)
}

fn tell(tx: &mut Transaction<'_>, stream: u32, first: i64, past: i64, reason: &str) {
    tx.books.quarantined += 1;
    let name = tx.books.streams.get(&stream).map_or("", |book| book.name.as_str());
    tracing::error!(
        "{} of the stream {name} (number {stream}), from offset {first} on, cannot be read: {reason}. They are skipped \
         and counted, the rest goes on. Check the disk; `forebay journal status` lists what is lost, and `forebay \
         journal quarantine drop` says that you have seen it",
        match past - first {
            1 => "1 record".to_owned(),
            n => format!("{n} records"),
        }
    );
}

/// A person has seen what was set aside: its bytes go, and nothing is said of it any more. The ranges stay, for those
/// that have not passed them. Gives what nobody had acknowledged before.
pub(super) fn acknowledge(tx: &mut Transaction<'_>) -> Result<QuarantineCount, StepError> {
    let count = QuarantineCount::read(tx.db)?;
    tx.db.execute("UPDATE quarantine SET data = NULL WHERE data IS NOT NULL", [])?;
    let last: i64 = tx.db.query_row("SELECT coalesce(max(rowid), 0) FROM quarantine", [], |row| row.get(0))?;
    tx.db.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", params![SEEN, last.to_le_bytes()])?;
    Ok(count)
}

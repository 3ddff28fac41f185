//! Segments whose bytes are damaged.
//!
//! In: the offset where a reader found one. Out: the segment moved to its own table, out of the way. Invariant: only a
//! segment that the writer itself finds damaged is moved, and the range of offsets it held is kept, so that consumers
//! that pass it can count what they skipped. Not here: the counting (`transaction`).

use rusqlite::{OptionalExtension, params};

use super::error::StepError;
use super::segment;
use super::transaction::Transaction;

/// Damaged bytes kept for whoever wants to look at them; beyond that only the range is.
const QUARANTINE_BYTES_MAX: i64 = 16 << 20;

/// Moves the segment at `first` aside if it is damaged.
pub(super) fn set_aside(tx: &mut Transaction<'_>, stream: u32, first: i64) -> Result<(), StepError> {
    let sql = "SELECT stream, first, input, count, arrival, codec, raw_bytes, checksum, data FROM segment WHERE stream \
        = ?1 AND first = ?2";
    let found = tx.db.prepare_cached(sql)?.query_row(params![stream, first], |row| {
        let Ok(head) = segment::Head::read(row) else { return Ok(Err("its head is damaged".to_string())) };
        let (Ok(checksum), Ok(data)) = (row.get(7), row.get(8)) else {
            return Ok(Err("its head is damaged".to_string()));
        };
        Ok(segment::open(&head, checksum, data).map(drop).map_err(|damage| damage.to_string()))
    });
    let Some(Err(reason)) = found.optional()? else { return Ok(()) };
    let next: Option<i64> = tx.db.query_row(
        "SELECT min(first) FROM segment WHERE stream = ?1 AND first > ?2",
        params![stream, first],
        |row| row.get(0),
    )?;
    let end = tx.books.streams.get(&stream).map_or(first, |s| s.next);
    let held: i64 = tx.db.query_row("SELECT coalesce(sum(length(data)), 0) FROM quarantine", [], |row| row.get(0))?;
    tx.db.execute(
        "INSERT OR IGNORE INTO quarantine (stream, first, past, input, codec, raw_bytes, checksum, reason, at, data)
         SELECT stream, first, ?3, input, codec, raw_bytes, checksum, ?4, arrival, CASE WHEN ?5 + length(data) <= ?6 \
         THEN data END
         FROM segment WHERE stream = ?1 AND first = ?2",
        params![stream, first, next.unwrap_or(end), reason, held, QUARANTINE_BYTES_MAX],
    )?;
    tx.db.execute("DELETE FROM segment WHERE stream = ?1 AND first = ?2", params![stream, first])?;
    tx.books.quarantined += 1;
    Ok(())
}

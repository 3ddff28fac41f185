//! State rows: what the operators of a consumer hold.
//!
//! In: changed rows, to be stored with a checkpoint. Out: the rows of a consumer at a start, each by its checksum.
//! Invariant: no row is given out that is not the one that was stored; rows of a file that had no checksums yet are
//! taken as they are, until they change. Not here: what a row means (`engine`).

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use smol_str::SmolStr;

use super::books::Books;
use super::damage::is_damage;
use super::error::{JournalError, StepError};
use super::request::{ConsumerId, StateEntry};
use super::schema::has_column;
use super::transaction::Transaction;

/// State rows by consumer, operator and key; `None` for a key that is gone. Of one that changed often the last counts.
pub(super) type States = BTreeMap<(u32, u32, Vec<u8>), Option<Vec<u8>>>;

pub(super) fn store(db: &Connection, states: &States) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO state (consumer, op, key, value, checksum) VALUES (?1, ?2, ?3, ?4, ?5)";
    let mut put = db.prepare_cached(sql)?;
    let mut delete = db.prepare_cached("DELETE FROM state WHERE consumer = ?1 AND op = ?2 AND key = ?3")?;
    for ((consumer, op, key), value) in states {
        match value {
            Some(value) => put.execute(params![consumer, op, key, value, checksum(*consumer, *op, key, value)])?,
            None => delete.execute(params![consumer, op, key])?,
        };
    }
    Ok(())
}

/// Covers the place of a row as well.
fn checksum(consumer: u32, op: u32, key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&consumer.to_le_bytes());
    hasher.update(&op.to_le_bytes());
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

/// All state of a consumer.
///
/// # Errors
/// [`JournalError::State`] where any of it is not what was stored.
pub(super) fn load(db: &Connection, consumer: ConsumerId) -> Result<Vec<StateEntry>, JournalError> {
    let name = || db.query_row("SELECT name FROM consumer WHERE id = ?1", [consumer.0], |row| row.get(0));
    let damaged = |reason: String| JournalError::State { consumer: name().unwrap_or_default(), reason };
    match rows(db, consumer.0) {
        Ok(Ok(rows)) => Ok(rows),
        Ok(Err(reason)) => Err(damaged(reason)),
        Err(error) if is_damage(&error) => Err(damaged(error.to_string())),
        Err(error) => Err(JournalError::read(error)),
    }
}

/// The rows of a consumer, or which of them is not what was stored.
fn rows(db: &Connection, consumer: u32) -> rusqlite::Result<Result<Vec<StateEntry>, String>> {
    // whoever only looks may find a file that had none yet
    let checksums = if has_column(db, "state", "checksum")? { "checksum" } else { "NULL" };
    let sql = format!("SELECT op, key, value, {checksums} FROM state WHERE consumer = ?1 ORDER BY op, key");
    let mut statement = db.prepare(&sql)?;
    let mut found = statement.query([consumer])?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let entry = StateEntry { op: row.get(0)?, key: row.get(1)?, value: row.get(2)? };
        let stored: Option<u32> = row.get(3)?;
        if stored.is_some_and(|stored| stored != checksum(consumer, entry.op, &entry.key, &entry.value)) {
            return Ok(Err(format!("the checksum of row {} differs (operator {})", rows.len() + 1, entry.op)));
        }
        rows.push(entry);
    }
    Ok(Ok(rows))
}

/// Says whose state is damaged.
pub(super) fn damaged(db: &Connection, books: &Books) -> rusqlite::Result<Vec<String>> {
    let mut found = Vec::new();
    for (id, consumer) in &books.consumers {
        let reason = match rows(db, *id) {
            Ok(Ok(_)) => continue,
            Ok(Err(reason)) => reason,
            Err(error) if is_damage(&error) => error.to_string(),
            Err(error) => return Err(error),
        };
        found.push(format!(
            "the state of {} is damaged: {reason}; `forebay journal reset-state` gives it up",
            consumer.name
        ));
    }
    Ok(found)
}

/// A consumer that has no state any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetState {
    pub consumer: SmolStr,
    /// Where it goes on.
    pub position: i64,
    /// State rows that it had.
    pub rows: u64,
}

/// Removes the state of consumers at their present positions.
pub(super) fn reset(tx: &mut Transaction<'_>, consumers: &[SmolStr]) -> Result<Vec<ResetState>, StepError> {
    let mut reset = Vec::new();
    for (id, book) in tx.books.consumers.iter().filter(|(_, book)| consumers.contains(&book.name)) {
        let rows = tx.db.execute("DELETE FROM state WHERE consumer = ?1", [id])? as u64;
        reset.push(ResetState { consumer: book.name.clone(), position: book.position, rows });
    }
    Ok(reset)
}

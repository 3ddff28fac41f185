//! What could not go on: kept with its reason until a person looks at it.
//!
//! In: [`DeadLetter`]s of every stage, inside the transaction that moves past them. Out: lists and exports. Invariant:
//! the table stays below its own cap; the oldest go first, counted. One row of one stage is stored once, however often
//! it fails. Not here: what to do with them (the commands that export and replay).

use rusqlite::{Connection, OptionalExtension, Row, params};
use smol_str::SmolStr;

use super::books::{Books, DeadLetterCount};
use super::error::JournalError;
use super::ledger::{Counter, Edge, what};
use crate::time::Timestamp;

/// Something that did not go on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeadLetter {
    pub at: Timestamp,
    /// Which part of the job refused it: `input rides`, `statement scored`, `output alerts`, …
    pub stage: SmolStr,
    /// A fixed word for counters.
    pub reason: SmolStr,
    /// What went wrong in this case.
    pub message: String,
    pub input: Option<SmolStr>,
    /// Offset of the input record; `None` when it was never stored as an event.
    pub offset: Option<i64>,
    /// Which of the rows of that record.
    pub ordinal: u32,
    pub payload: Vec<u8>,
    pub request: Option<Vec<u8>>,
    pub response: Option<Vec<u8>>,
    /// Tells under which text of the query it failed.
    pub query_version: SmolStr,
    pub attempts: u32,
}

impl DeadLetter {
    /// What it counts against the cap.
    pub fn bytes(&self) -> u64 {
        /// SQLite's own cost of a row with an index entry, about.
        const ROW_BYTES: usize = 128;
        let optional = |b: &Option<Vec<u8>>| b.as_ref().map_or(0, Vec::len);
        let texts = self.stage.len() + self.reason.len() + self.message.len() + self.query_version.len();
        (ROW_BYTES + texts + self.payload.len() + optional(&self.request) + optional(&self.response)) as u64
    }
}

/// A dead letter in the table.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredDeadLetter {
    /// Rises with age; what commands name it by.
    pub id: i64,
    pub letter: DeadLetter,
}

const COLUMNS: &str =
    "id, at, stage, reason, message, input, source, ordinal, payload, request, response, query_version, attempts";

/// Up to `max` dead letters with an id above `after`, oldest first.
pub(super) fn list(db: &Connection, after: i64, max: usize) -> Result<Vec<StoredDeadLetter>, JournalError> {
    let read = || -> rusqlite::Result<Vec<StoredDeadLetter>> {
        let mut statement =
            db.prepare(&format!("SELECT {COLUMNS} FROM dead_letter WHERE id > ?1 ORDER BY id LIMIT ?2"))?;
        let rows = statement.query_map(params![after, i64::try_from(max).unwrap_or(i64::MAX)], read_row)?;
        rows.collect()
    };
    read().map_err(JournalError::read)
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<StoredDeadLetter> {
    let text = |i| row.get::<_, String>(i).map(SmolStr::from);
    Ok(StoredDeadLetter {
        id: row.get(0)?,
        letter: DeadLetter {
            at: Timestamp::saturating_from_ticks(row.get(1)?),
            stage: text(2)?,
            reason: text(3)?,
            message: row.get(4)?,
            input: row.get::<_, Option<String>>(5)?.map(SmolStr::from),
            offset: row.get(6)?,
            ordinal: row.get(7)?,
            payload: row.get(8)?,
            request: row.get(9)?,
            response: row.get(10)?,
            query_version: text(11)?,
            attempts: row.get(12)?,
        },
    })
}

/// Stores one, or raises the attempts of the one already there.
pub(super) fn store(db: &Connection, books: &mut Books, letter: &DeadLetter) -> rusqlite::Result<()> {
    let mut find = db.prepare_cached("SELECT id FROM dead_letter WHERE stage = ?1 AND source = ?2 AND ordinal = ?3")?;
    let known: Option<i64> = match letter.offset {
        Some(offset) => {
            find.query_row(params![letter.stage.as_str(), offset, letter.ordinal], |row| row.get(0)).optional()?
        }
        None => None,
    };
    if let Some(id) = known {
        let mut update = db.prepare_cached("UPDATE dead_letter SET attempts = attempts + ?2 WHERE id = ?1")?;
        update.execute(params![id, letter.attempts.max(1)])?;
        books.ledger.add(Counter::new(Edge::DeadLetters, "", "repeated"), 1);
        return Ok(());
    }
    let bytes = letter.bytes();
    let mut insert = db.prepare_cached(
        "INSERT INTO dead_letter (at, stage, reason, message, input, source, ordinal, payload, request, response, \
        query_version, attempts, bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?;
    insert.execute(params![
        letter.at.ticks(),
        letter.stage.as_str(),
        letter.reason.as_str(),
        letter.message,
        letter.input.as_deref(),
        letter.offset,
        letter.ordinal,
        letter.payload,
        letter.request,
        letter.response,
        letter.query_version.as_str(),
        letter.attempts,
        bytes as i64
    ])?;
    books.dead_letters.letters += 1;
    books.dead_letters.bytes += bytes;
    books.ledger.add(Counter::new(Edge::DeadLetters, "", what::STORED), 1);
    Ok(())
}

/// Drops the oldest until the table is within its cap.
pub(super) fn enforce_cap(db: &Connection, books: &mut Books, max_bytes: u64) -> rusqlite::Result<()> {
    while books.dead_letters.bytes > max_bytes && books.dead_letters.letters > 0 {
        let mut oldest =
            db.prepare_cached("DELETE FROM dead_letter WHERE id = (SELECT min(id) FROM dead_letter) RETURNING bytes")?;
        let Some(bytes) = oldest.query_row([], |row| row.get::<_, i64>(0)).optional()? else {
            books.dead_letters = DeadLetterCount::default();
            break;
        };
        forget(books, bytes);
        books.ledger.add(Counter::new(Edge::DeadLetters, "", what::DROPPED).because("cap"), 1);
    }
    Ok(())
}

/// Removes those with these ids (all of them for `None`); how many there were.
pub(super) fn remove(db: &Connection, books: &mut Books, ids: Option<&[i64]>) -> rusqlite::Result<u64> {
    let mut removed = 0;
    match ids {
        None => {
            removed = db.execute("DELETE FROM dead_letter", [])? as u64;
            books.dead_letters = DeadLetterCount::default();
        }
        Some(ids) => {
            for id in ids {
                let mut one = db.prepare_cached("DELETE FROM dead_letter WHERE id = ?1 RETURNING bytes")?;
                if let Some(bytes) = one.query_row([id], |row| row.get::<_, i64>(0)).optional()? {
                    forget(books, bytes);
                    removed += 1;
                }
            }
        }
    }
    books.ledger.add(Counter::new(Edge::DeadLetters, "", what::REMOVED), removed);
    Ok(removed)
}

fn forget(books: &mut Books, bytes: i64) {
    books.dead_letters.letters = books.dead_letters.letters.saturating_sub(1);
    books.dead_letters.bytes = books.dead_letters.bytes.saturating_sub(bytes as u64);
}

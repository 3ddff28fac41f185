//! What could not go on: kept with its reason until a person looks at it.
//!
//! In: [`DeadLetter`]s of every stage, inside the transaction that moves past them. Out: lists and exports. Invariant:
//! the table stays below its own cap; the oldest go first, counted. One row of one stage is stored once, however often
//! it fails. Not here: what to do with them (the commands that export and replay).

use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::books::{Books, DeadLetterCount};
use super::error::JournalError;
use super::ledger::{Counter, Edge, what};
use super::letter_origin::LetterOrigin;
use super::schema;
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
    /// What it takes to do the same again; `None` where nothing would do, and in letters of an earlier version.
    pub origin: Option<LetterOrigin>,
}

impl DeadLetter {
    /// What it counts against the cap.
    pub fn bytes(&self) -> u64 {
        /// SQLite's own cost of a row with an index entry, about.
        const ROW_BYTES: usize = 128;
        let optional = |b: &Option<Vec<u8>>| b.as_ref().map_or(0, Vec::len);
        let texts = self.stage.len() + self.reason.len() + self.message.len() + self.query_version.len();
        // about: it is not encoded for that
        let origin = self.origin.as_ref().map_or(0, |_| self.payload.len() + ROW_BYTES);
        (ROW_BYTES + texts + self.payload.len() + origin + optional(&self.request) + optional(&self.response)) as u64
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

/// Which dead letters are meant; what is not said is not looked at. A field that is not known is refused: without it
/// more would be meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LetterFilter {
    /// A stage, or its first words: `output` means all outputs.
    pub stage: Option<String>,
    pub reason: Option<String>,
    /// Those of a statement, in whichever of its parts.
    pub statement: Option<String>,
    /// Not earlier than this, in ticks.
    pub since: Option<i64>,
    /// Earlier than this, in ticks.
    pub until: Option<i64>,
    /// With a number above this.
    pub after: i64,
    /// With a number up to this.
    pub up_to: Option<i64>,
    /// With one of these numbers.
    pub ids: Option<Vec<i64>>,
}

impl LetterFilter {
    /// Whether it leaves any out by what they are.
    pub fn is_narrow(&self) -> bool {
        let LetterFilter { stage, reason, statement, since, until, after, up_to, ids } = self;
        let texts = [stage, reason, statement].iter().any(|text| text.is_some());
        texts || since.is_some() || until.is_some() || *after > 0 || up_to.is_some() || ids.is_some()
    }

    /// What SQLite is asked, and by what.
    fn condition(&self) -> (String, Vec<Value>) {
        let mut all = vec!["id > ?".to_owned()];
        let mut values = vec![Value::from(self.after)];
        let mut add = |text: &str, more: Vec<Value>| {
            all.push(text.to_owned());
            values.extend(more);
        };
        if let Some(stage) = &self.stage {
            let more = vec![Value::from(stage.clone()), Value::from(format!("{stage} "))];
            add("(stage = ? COLLATE NOCASE OR substr(stage, 1, length(?2)) = ?2 COLLATE NOCASE)", more);
        }
        if let Some(statement) = &self.statement {
            let of = |more: &str| Value::from(format!("statement {statement}{more}"));
            let text = "(stage = ? COLLATE NOCASE OR substr(stage, 1, length(?2)) = ?2 COLLATE NOCASE \
                OR substr(stage, 1, length(?3)) = ?3 COLLATE NOCASE)";
            add(text, vec![of(""), of(" "), of("/")]);
        }
        if let Some(reason) = &self.reason {
            add("reason = ?", vec![Value::from(reason.clone())]);
        }
        if let Some(since) = self.since {
            add("at >= ?", vec![Value::from(since)]);
        }
        if let Some(until) = self.until {
            add("at < ?", vec![Value::from(until)]);
        }
        if let Some(up_to) = self.up_to {
            add("id <= ?", vec![Value::from(up_to)]);
        }
        if let Some(ids) = &self.ids {
            let listed: Vec<String> = ids.iter().map(i64::to_string).collect();
            add(&format!("id IN ({})", listed.join(", ")), Vec::new());
        }
        (numbered(&all), values)
    }
}

/// Joins conditions, whose parameters count within each, under numbers that count through all.
fn numbered(conditions: &[String]) -> String {
    let mut before = 0;
    let mut all = Vec::with_capacity(conditions.len());
    for condition in conditions {
        let mut out = String::with_capacity(condition.len() + 8);
        let mut most = 0;
        let mut signs = condition.chars().peekable();
        while let Some(sign) = signs.next() {
            out.push(sign);
            if sign == '?' {
                let digit = signs.next_if(char::is_ascii_digit).and_then(|digit| digit.to_digit(10)).unwrap_or(1);
                most = most.max(digit);
                out.push_str(&(before + digit).to_string());
            }
        }
        before += most;
        all.push(out);
    }
    all.join(" AND ")
}

/// How many dead letters a stage has for a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterCount {
    pub stage: SmolStr,
    pub reason: SmolStr,
    pub letters: u64,
    pub bytes: u64,
    pub first: Timestamp,
    pub last: Timestamp,
    /// The highest of their numbers.
    pub last_id: i64,
}

/// Up to `max` dead letters of any journal, oldest first, also while its job runs.
///
/// # Errors
/// When the journal cannot be read.
pub fn dead_letters_readonly(
    path: &Path,
    filter: &LetterFilter,
    max: usize,
) -> Result<Vec<StoredDeadLetter>, JournalError> {
    let db = &schema::open_reader(path)?;
    let read = || -> rusqlite::Result<Vec<StoredDeadLetter>> {
        let origin = if schema::has_column(db, "dead_letter", "origin")? { "origin" } else { "NULL" };
        let (condition, values) = filter.condition();
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let sql = format!("SELECT {COLUMNS}, {origin} FROM dead_letter WHERE {condition} ORDER BY id LIMIT {max}");
        let mut statement = db.prepare(&sql)?;
        let rows = statement.query_map(params_from_iter(values), read_row)?;
        rows.collect()
    };
    read().map_err(JournalError::read)
}

/// How many dead letters each stage has for each reason, the most first, also while the job runs.
///
/// # Errors
/// When the journal cannot be read.
pub fn count_dead_letters(path: &Path, filter: &LetterFilter) -> Result<Vec<LetterCount>, JournalError> {
    let db = &schema::open_reader(path)?;
    let read = || -> rusqlite::Result<Vec<LetterCount>> {
        let (condition, values) = filter.condition();
        let sql = format!(
            "SELECT stage, reason, count(*), sum(bytes), min(at), max(at), max(id) FROM dead_letter WHERE {condition} \
            GROUP BY stage, reason ORDER BY count(*) DESC, stage, reason"
        );
        let mut statement = db.prepare(&sql)?;
        let rows = statement.query_map(params_from_iter(values), |row| {
            let text = |i| row.get::<_, String>(i).map(SmolStr::from);
            let number = |i| row.get::<_, i64>(i).map(|n| u64::try_from(n).unwrap_or(0));
            let time = |i| row.get::<_, i64>(i).map(Timestamp::saturating_from_ticks);
            Ok(LetterCount {
                stage: text(0)?,
                reason: text(1)?,
                letters: number(2)?,
                bytes: number(3)?,
                first: time(4)?,
                last: time(5)?,
                last_id: row.get(6)?,
            })
        })?;
        rows.collect()
    };
    read().map_err(JournalError::read)
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<StoredDeadLetter> {
    let text = |i| row.get::<_, String>(i).map(SmolStr::from);
    // one that is damaged, or of a newer program, cannot be replayed; the letter itself is there
    let origin = row.get::<_, Option<Vec<u8>>>(13)?.and_then(|bytes| LetterOrigin::from_bytes(&bytes).ok());
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
            origin,
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
        "INSERT INTO dead_letter (id, at, stage, reason, message, input, source, ordinal, payload, request, response, \
        query_version, attempts, bytes, origin)
         VALUES (1 + max(?15, (SELECT coalesce(max(id), 0) FROM dead_letter)), ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, \
        ?10, ?11, ?12, ?13, ?14)",
    )?;
    // a number is not given out anew: commands name letters by it
    let stored = books.ledger.sum(Edge::DeadLetters, "", what::STORED);
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
        bytes as i64,
        letter.origin.as_ref().and_then(LetterOrigin::to_bytes),
        stored as i64
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

/// Has one fail again: it keeps its number, stage and source. One that is gone meanwhile is stored anew.
pub(super) fn fail_again(db: &Connection, books: &mut Books, id: i64, letter: &DeadLetter) -> rusqlite::Result<()> {
    let mut find = db.prepare_cached("SELECT bytes FROM dead_letter WHERE id = ?1")?;
    let Some(before) = find.query_row([id], |row| row.get::<_, i64>(0)).optional()? else {
        return store(db, books, letter);
    };
    let bytes = letter.bytes();
    let mut update = db.prepare_cached(
        "UPDATE dead_letter SET reason = ?2, message = ?3, payload = ?4, request = ?5, response = ?6, query_version = \
        ?7, attempts = ?8, bytes = ?9, origin = ?10 WHERE id = ?1",
    )?;
    update.execute(params![
        id,
        letter.reason.as_str(),
        letter.message,
        letter.payload,
        letter.request,
        letter.response,
        letter.query_version.as_str(),
        letter.attempts,
        bytes as i64,
        letter.origin.as_ref().and_then(LetterOrigin::to_bytes)
    ])?;
    books.dead_letters.bytes = books.dead_letters.bytes.saturating_sub(before as u64) + bytes;
    books.ledger.add(Counter::new(Edge::DeadLetters, "", "repeated"), 1);
    Ok(())
}

/// Takes out those that went through.
pub(super) fn replayed(db: &Connection, books: &mut Books, ids: &[i64]) -> rusqlite::Result<()> {
    let mut one = db.prepare_cached("DELETE FROM dead_letter WHERE id = ?1 RETURNING bytes")?;
    for id in ids {
        if let Some(bytes) = one.query_row([id], |row| row.get(0)).optional()? {
            forget(books, bytes);
            books.ledger.add(Counter::new(Edge::DeadLetters, "", what::REMOVED).because("replayed"), 1);
        }
    }
    Ok(())
}

/// Drops those that are meant; how many there were.
pub(super) fn remove(db: &Connection, books: &mut Books, filter: &LetterFilter) -> rusqlite::Result<u64> {
    let (condition, values) = filter.condition();
    let mut statement = db.prepare(&format!("DELETE FROM dead_letter WHERE {condition} RETURNING bytes"))?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut removed = 0;
    while let Some(row) = rows.next()? {
        forget(books, row.get(0)?);
        removed += 1;
    }
    books.ledger.add(Counter::new(Edge::DeadLetters, "", what::DROPPED).because("command"), removed);
    Ok(removed)
}

fn forget(books: &mut Books, bytes: i64) {
    books.dead_letters.letters = books.dead_letters.letters.saturating_sub(1);
    books.dead_letters.bytes = books.dead_letters.bytes.saturating_sub(bytes as u64);
}

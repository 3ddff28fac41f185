//! State rows: what the operators of a consumer hold.
//!
//! In: changed rows, to be stored with a checkpoint. Out: the rows of a consumer at a start, each by its checksum.
//! Invariant: no row is given out that is not the one that was stored; rows of a file that had no checksums yet are
//! taken as they are, until they change. Not here: what a row means (`engine`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction as SqlTransaction, TransactionBehavior, params};
use smol_str::SmolStr;

use super::books::Books;
use super::damage::{is_damage, is_of_page};
use super::error::{JournalError, StepError};
use super::request::{ConsumerId, StateEntry};
use super::schema::{self, has_column};
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
pub(super) fn checksum(consumer: u32, op: u32, key: &[u8], value: &[u8]) -> u32 {
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
    let sql = "SELECT count(*) FROM state WHERE consumer NOT IN (SELECT id FROM consumer)";
    let nobodys: i64 = db.query_row(sql, [], |row| row.get(0))?;
    if nobodys > 0 {
        found.push(format!(
            "state that belongs to no consumer: {nobodys} rows, which a statement may lack; `forebay journal \
             reset-state` has one begin anew"
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
    /// State rows that it had; `None`: they lay on a damaged page.
    pub rows: Option<u64>,
}

/// Removes the state of consumers at their present positions. `damaged`: those of which nothing is there any more.
pub(super) fn reset(
    tx: &mut Transaction<'_>,
    consumers: &[SmolStr],
    damaged: &BTreeSet<u32>,
) -> Result<Vec<ResetState>, StepError> {
    let mut reset = Vec::new();
    for (id, book) in tx.books.consumers.iter().filter(|(_, book)| consumers.contains(&book.name)) {
        let rows = tx.db.execute("DELETE FROM state WHERE consumer = ?1", [id])? as u64;
        let rows = (!damaged.contains(id)).then_some(rows);
        reset.push(ResetState { consumer: book.name.clone(), position: book.position, rows });
    }
    Ok(reset)
}

/// Makes the table anew if a page of it is damaged, since SQLite removes nothing beside such a page. Gives the
/// consumers of which not all can be read: they get a row that tells so, until they are reset. The old pages are left
/// alone.
pub(super) fn mend(path: &Path) -> Result<BTreeSet<u32>, JournalError> {
    let db = schema::open_reader(path)?;
    match is_removable(&db) {
        Ok(false) => {}
        Err(error) if is_of_page(&error) => {}
        other => return other.map(|_| BTreeSet::new()).map_err(JournalError::read),
    }
    tracing::error!(
        "a page of the pool's state is damaged: the table is made anew of what can be read; check the disk"
    );
    make_anew(&db, path).map_err(|error| JournalError::write(&error))
}

/// Whether SQLite can remove each row: it reads all of one for that, and what its page says of free room.
fn is_removable(db: &Connection) -> rusqlite::Result<bool> {
    let is_sound: bool = db.query_row("PRAGMA quick_check('state')", [], |row| Ok(row.get::<_, String>(0)? == "ok"))?;
    if !is_sound {
        return Ok(false);
    }
    for id in ids(db)? {
        match rows(db, id) {
            Err(error) if !is_damage(&error) || is_of_page(&error) => return Err(error),
            // a row that is not what was stored is removed like any other
            _ => {}
        }
    }
    Ok(true)
}

fn ids(db: &Connection) -> rusqlite::Result<Vec<u32>> {
    let mut find = db.prepare("SELECT id FROM consumer")?;
    find.query_map([], |row| row.get(0))?.collect()
}

fn make_anew(from: &Connection, path: &Path) -> rusqlite::Result<BTreeSet<u32>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(schema::BUSY_TIMEOUT)?;
    // the write-ahead log is the writer's
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    let ids = ids(from)?;
    let sql = SqlTransaction::new_unchecked(&db, TransactionBehavior::Immediate)?;
    sql.execute_batch(&schema::state_table("state_anew"))?;
    let mut damaged = BTreeSet::new();
    let mut put =
        sql.prepare("INSERT INTO state_anew (consumer, op, key, value, checksum) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for id in ids {
        match rows(from, id) {
            Ok(Ok(rows)) => {
                for StateEntry { op, key, value } in rows {
                    put.execute(params![id, op, key, value, checksum(id, op, &key, &value)])?;
                }
            }
            Err(error) if !is_damage(&error) => return Err(error),
            _ => {
                damaged.insert(id);
                // it is not what was stored, and whoever loads it is told
                let none: &[u8] = &[];
                put.execute(params![id, 0, none, none, !checksum(id, 0, none, none)])?;
            }
        }
    }
    drop(put);
    sql.execute_batch(
        "PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'state_anew')
             WHERE name = 'state';
         DELETE FROM sqlite_schema WHERE name = 'state_anew';
         PRAGMA writable_schema = RESET;",
    )?;
    sql.commit()?;
    Ok(damaged)
}

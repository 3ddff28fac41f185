//! The last good version of each table of reference data.
//!
//! In: the bytes of a version as they were read, and what is wrong with the newest. Out: both, after a restart.
//! Invariant: a version is stored as a whole or not at all, and one that does not match its checksum is not given out.
//! Not here: reading the bytes, when to load (`reference`).

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use smol_str::SmolStr;

use super::Journal;
use super::command::{Command, ask};
use super::error::{JournalError, StepError};
use super::queue::Lane;
use super::schema;
use crate::time::Timestamp;

/// Stored data is this many bytes unpacked at most: what the job file allows for a table, and SQLite for a value.
const RAW_BYTES_MAX: usize = 256 << 20;
/// zstd's level: a version is written once and kept for long.
const LEVEL: i32 = 3;

/// A version of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReference {
    /// Of the form and the bytes, hexadecimal.
    pub digest: String,
    /// How the bytes are to be read.
    pub form: String,
    pub rows: u64,
    pub loaded_at: Timestamp,
    pub bytes: Bytes,
}

/// What the journal knows of a table, without its rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReferenceStatus {
    pub name: String,
    /// `None`: no good version was ever seen.
    pub version: Option<ReferenceVersion>,
    /// Why the newest is not in use.
    pub error: Option<ReferenceError>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReferenceVersion {
    pub digest: String,
    pub rows: u64,
    /// As it is stored.
    pub bytes: u64,
    pub loaded_at: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReferenceError {
    pub at: String,
    pub message: String,
}

impl Journal {
    /// Keeps a version of a table in place of the one before it; durable when it returns.
    ///
    /// # Errors
    /// When the budget or the disk has no room for it: the one before it stays.
    pub fn put_reference(&self, name: &str, version: &StoredReference) -> Result<(), JournalError> {
        let full = JournalError::Full { used_bytes: self.used_bytes(), max_bytes: self.0.max_bytes };
        let data = zstd::bulk::compress(&version.bytes, LEVEL)
            .map_err(|e| JournalError::Rows { consumer: name.to_owned(), reason: e.to_string() })?;
        if self.is_full() || self.used_bytes().saturating_add(data.len() as u64) > self.0.max_bytes {
            return Err(full);
        }
        let checksum = checksum(&version.digest, &version.form, &data);
        let (name, digest, form) = (SmolStr::new(name), version.digest.clone(), version.form.clone());
        let (rows, raw, loaded_at) = (version.rows as i64, version.bytes.len() as i64, version.loaded_at.ticks());
        let mut was_tried = false;
        self.control(move |tx| {
            // a second time means that the disk had no room: so large a value must not hold back the small commits
            if std::mem::replace(&mut was_tried, true) {
                return Err(StepError::Refused(full.clone()));
            }
            tx.db.execute(
                "INSERT OR REPLACE INTO reference (name, digest, form, rows, loaded_at, raw_bytes, checksum, data) \
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![name.as_str(), digest, form, rows, loaded_at, raw, checksum, data],
            )?;
            Ok(())
        })
    }

    /// The version of a table that was kept last; `None` when there is none, or it is damaged.
    pub fn reference(&self, name: &str) -> Result<Option<StoredReference>, JournalError> {
        reference_readonly(&self.0.path, name)
    }

    /// The digest of the version that was kept last.
    pub fn reference_digest(&self, name: &str) -> Result<Option<String>, JournalError> {
        let db = schema::open_reader(&self.0.path)?;
        db.query_row("SELECT digest FROM reference WHERE name = ?1", [name], |row| row.get(0))
            .optional()
            .map_err(JournalError::read)
    }

    /// Notes why the newest data of a table is not in use; `None`: it is. Does not wait for the disk.
    pub fn note_reference_error(&self, name: &str, at: Timestamp, message: Option<&str>) {
        let (name, message) = (SmolStr::new(name), message.map(SmolStr::new));
        let (command, _): (Command, _) = ask(move |tx| {
            match &message {
                Some(message) => tx.db.execute(
                    "INSERT OR REPLACE INTO reference_error VALUES (?1, ?2, ?3)",
                    params![name.as_str(), at.ticks(), message.as_str()],
                )?,
                None => tx.db.execute("DELETE FROM reference_error WHERE name = ?1", [name.as_str()])?,
            };
            Ok(())
        });
        self.0.shared.queue.push(Lane::Control, command);
    }

    /// Forgets the tables that are no longer part of the job.
    pub fn keep_only_references(&self, names: &[SmolStr]) -> Result<(), JournalError> {
        let names = names.to_vec();
        self.control(move |tx| {
            for known in names_of(tx.db)?.iter().filter(|known| !names.iter().any(|name| name == known)) {
                tx.db.execute("DELETE FROM reference WHERE name = ?1", [known.as_str()])?;
                tx.db.execute("DELETE FROM reference_error WHERE name = ?1", [known.as_str()])?;
            }
            Ok(())
        })
    }
}

/// As [`Journal::reference`], of any journal, also while its job runs.
pub fn reference_readonly(path: &std::path::Path, name: &str) -> Result<Option<StoredReference>, JournalError> {
    let db = schema::open_reader(path)?;
    if !has_tables(&db).map_err(JournalError::read)? {
        return Ok(None);
    }
    let found = db
        .query_row(
            "SELECT digest, form, rows, loaded_at, raw_bytes, checksum, data FROM reference WHERE name = ?1",
            [name],
            |row| {
                let stored = StoredReference {
                    digest: row.get(0)?,
                    form: row.get(1)?,
                    rows: row.get::<_, i64>(2)? as u64,
                    loaded_at: Timestamp::saturating_from_ticks(row.get(3)?),
                    bytes: Bytes::new(),
                };
                Ok((stored, row.get::<_, i64>(4)?, row.get::<_, u32>(5)?, row.get::<_, Vec<u8>>(6)?))
            },
        )
        .optional()
        .map_err(JournalError::read)?;
    Ok(found.and_then(|(stored, raw, sum, data)| {
        let raw = usize::try_from(raw).ok().filter(|raw| *raw <= RAW_BYTES_MAX)?;
        if checksum(&stored.digest, &stored.form, &data) != sum {
            return None;
        }
        Some(StoredReference { bytes: zstd::bulk::decompress(&data, raw).ok()?.into(), ..stored })
    }))
}

/// All tables that the journal knows, by name.
pub(super) fn statuses(db: &Connection) -> rusqlite::Result<Vec<ReferenceStatus>> {
    if !has_tables(db)? {
        return Ok(Vec::new());
    }
    let time = |ticks: i64| Timestamp::saturating_from_ticks(ticks).to_string();
    let mut found = Vec::new();
    for name in names_of(db)? {
        let version = db.query_row(
            "SELECT digest, rows, length(data), loaded_at FROM reference WHERE name = ?1",
            [name.as_str()],
            |row| {
                Ok(ReferenceVersion {
                    digest: row.get(0)?,
                    rows: row.get::<_, i64>(1)? as u64,
                    bytes: row.get::<_, i64>(2)? as u64,
                    loaded_at: time(row.get(3)?),
                })
            },
        );
        let error = db.query_row("SELECT at, message FROM reference_error WHERE name = ?1", [name.as_str()], |row| {
            Ok(ReferenceError { at: time(row.get(0)?), message: row.get(1)? })
        });
        found.push(ReferenceStatus { name, version: version.optional()?, error: error.optional()? });
    }
    Ok(found)
}

/// Says which stored versions are damaged.
pub(super) fn damaged(db: &Connection) -> rusqlite::Result<Vec<String>> {
    if !has_tables(db)? {
        return Ok(Vec::new());
    }
    let mut statement = db.prepare("SELECT name, digest, form, checksum, data FROM reference ORDER BY name")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (name, digest, form): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let data: Vec<u8> = row.get(4)?;
        if checksum(&digest, &form, &data) != row.get::<_, u32>(3)? {
            found.push(format!("reference data {name}: the kept version does not match its checksum"));
        }
    }
    Ok(found)
}

fn checksum(digest: &str, form: &str, data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    [digest.as_bytes(), &[0], form.as_bytes(), &[0], data].into_iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

fn names_of(db: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = db.prepare("SELECT name FROM reference UNION SELECT name FROM reference_error ORDER BY 1")?;
    let names = statement.query_map([], |row| row.get(0))?;
    names.collect()
}

/// A journal made by an earlier program that no later one has written to does not have them.
fn has_tables(db: &Connection) -> rusqlite::Result<bool> {
    let tables: i64 =
        db.query_row("SELECT count(*) FROM sqlite_master WHERE name IN ('reference', 'reference_error')", [], |row| {
            row.get(0)
        })?;
    Ok(tables == 2)
}

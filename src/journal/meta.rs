//! What the table `meta` keeps as JSON.
//!
//! In: a key. Out: its value, or the default where there is none, or none that this version reads. Not here: what a
//! value means (the modules that name the keys).

use rusqlite::{Connection, OptionalExtension};
use serde::de::DeserializeOwned;

pub(super) fn load_json<T: DeserializeOwned + Default>(db: &Connection, key: &str) -> rusqlite::Result<T> {
    let sql = "SELECT value FROM meta WHERE key = ?1";
    let stored: Option<Vec<u8>> = db.query_row(sql, [key], |row| row.get(0)).optional()?;
    Ok(stored.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default())
}

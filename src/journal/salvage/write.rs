//! The file of the new pool.
//!
//! In: a damaged pool whose lock the caller has. Out: a new one in a file without its name so far. Invariant: pools of
//! later versions and files of other programs are left alone. Not here: what is in it (`fill`).

use std::path::Path;

use rusqlite::{Connection, params};

use super::fill;
use super::found::Salvaged;
use super::pages::Pages;
use crate::journal::config::JournalConfig;
use crate::journal::error::JournalError;
use crate::journal::new_file::NewFile;
use crate::journal::paths::left_beside;
use crate::journal::recovery;
use crate::journal::schema;

pub(in crate::journal) fn write(config: &JournalConfig, to: &Path) -> Result<(NewFile, Salvaged), JournalError> {
    let path = &config.path;
    let pages = Pages::open(path).map_err(|error| JournalError::unusable(path, error))?;
    check_form(&pages, path)?;
    let new = NewFile::create(to)?;
    let db = schema::open_writer(new.path(), config.max_bytes)?;
    let fill = || -> rusqlite::Result<Salvaged> {
        without_journal(&db)?;
        let sql = db.unchecked_transaction()?;
        let salvaged = fill::fill(config, &pages, &sql)?;
        let at = config.clock.now().to_string();
        sql.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", params![recovery::SALVAGED_AT, at.into_bytes()])?;
        sql.commit()?;
        Ok(salvaged)
    };
    let salvaged = fill().map_err(|error| new.not_written(&error))?;
    db.close().map_err(|(_, error)| new.not_written(&error))?;
    Ok((new, salvaged))
}

/// A file that is not whole gets no name, so nothing needs to be kept for a crash.
fn without_journal(db: &Connection) -> rusqlite::Result<()> {
    schema::make_single(db)?;
    db.query_row("PRAGMA journal_mode = OFF", [], |row| row.get::<_, String>(0))?;
    db.pragma_update(None, "synchronous", 0)
}

/// A pool of a later version has tables of which nothing is known here, and another program's file is none at all.
fn check_form(pages: &Pages, path: &Path) -> Result<(), JournalError> {
    let name = || path.display().to_string();
    match pages.form() {
        Some((schema::APPLICATION_ID, found)) if found > schema::SCHEMA_VERSION => {
            Err(JournalError::Schema { path: name(), found, expected: schema::SCHEMA_VERSION })
        }
        Some(other) if other.0 != schema::APPLICATION_ID && left_beside(path).is_none() => {
            Err(JournalError::Foreign { path: name() })
        }
        // the number may be damaged where a log tells whose it is
        _ => Ok(()),
    }
}

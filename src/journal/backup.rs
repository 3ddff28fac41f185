//! A copy of a pool as one closed file, also while its job runs.
//!
//! In: a pool's path. Out: a file that is a pool by itself, as the pool was at one moment, with everything that was
//! acknowledged before. Invariant: the pool is only read, and nobody waits for that; what cannot be read is an error,
//! and then there is no file. Not here: what becomes of the file (`restore`), a pool that is damaged (`salvage`).
//!
//! SQLite copies the file in a snapshot of its own (`VACUUM INTO`), which cannot be that of the look into the redo log.
//! So the log is read before. If the copy is of the same age, the file lacks what was read, and the copy takes it over.
//! If it is not, a checkpoint came between and the file had all of it.

use std::path::Path;

use rusqlite::{Transaction as SqlTransaction, TransactionBehavior, params};

use super::books::Books;
use super::config::JournalConfig;
use super::damage::is_of_page;
use super::error::JournalError;
use super::new_file::NewFile;
use super::recovery::{self, LogOf};
use super::redo::Age;
use super::schema;
use super::verify::{VerifyReport, verify};

/// Writes a backup; what was found when it was read once more. Problems that are not of the file itself are the pool's.
///
/// # Errors
/// The pool cannot be read whole, or the file cannot be written; there is none then.
pub fn backup(config: &JournalConfig, to: &Path) -> Result<VerifyReport, JournalError> {
    let path = &config.path;
    let new = NewFile::create(to)?;
    let log = recovery::log_of(path)?;
    copy_file(path, &new)?;
    complete(config, &new, &log)?;
    let report = verify(new.path()).map_err(|error| damaged(path, &error))?;
    if let Some(problem) = report.problems.iter().find(|problem| problem.starts_with("file: ")) {
        return Err(damaged(path, problem));
    }
    new.finish()?;
    Ok(report)
}

/// Copies what the SQLite file has.
fn copy_file(path: &Path, new: &NewFile) -> Result<(), JournalError> {
    let db = schema::open_reader(path)?;
    schema::apply(&db, path, "query_only", 0)?;
    let to = new.path().to_str().ok_or_else(|| new.not_written(&"its name is no UTF-8"))?;
    match db.execute("VACUUM INTO ?1", [to]) {
        Err(error) if is_of_page(&error) => Err(damaged(path, &error)),
        done => done.map(drop).map_err(|error| new.not_written(&error)),
    }
}

/// Makes a closed pool of the copy: it takes over the log, and needs no other file then.
fn complete(config: &JournalConfig, new: &NewFile, log: &LogOf) -> Result<(), JournalError> {
    let db = schema::open_writer(new.path(), config.max_bytes)?;
    let take_over = || -> rusqlite::Result<()> {
        let stored = Books::load(&db)?;
        let sql = SqlTransaction::new_unchecked(&db, TransactionBehavior::Immediate)?;
        let mut books = stored.clone();
        if Age::read(&sql)? == log.age {
            log.take_over(&sql, &mut books, config.retention)?;
        }
        books.save(&sql, &stored)?;
        let at = config.clock.now().to_string();
        sql.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", params![recovery::MADE_AT, at.into_bytes()])?;
        recovery::close_pool(&sql)?;
        sql.commit()?;
        schema::make_single(&db)
    };
    take_over().map_err(|error| new.not_written(&error))?;
    db.close().map_err(|(_, error)| new.not_written(&error))
}

fn damaged(path: &Path, reason: &impl ToString) -> JournalError {
    JournalError::NotCopied { path: path.display().to_string(), reason: reason.to_string() }
}

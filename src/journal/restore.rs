//! A backup that becomes the pool of a job.
//!
//! In: a file that [`super::backup()`] made, or `salvage`, or that a job left when it was stopped. Out: a pool where
//! the job looks for it. Invariant: a pool that is there is never written over, and the new one is there whole or not
//! at all; what both pools, this one and the one that the backup is of, give out from now on has different ids. Not
//! here: the first start, which opens it like any other.
//!
//! Rows of events that the backup has keep their ids: they may have been delivered already. The original may have gone
//! on, so later offsets are given out twice, and ids have a mark from there on (`renewal`). On another gateway brokers
//! get new client ids, or two gateways would throw each other out of one session for ever.

use std::fs::File;
use std::io::{self, Seek};
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Transaction as SqlTransaction, TransactionBehavior, params};

use super::beyond_use;
use super::books::Books;
use super::config::JournalConfig;
use super::error::JournalError;
use super::lock::Lock;
use super::new_file::NewFile;
use super::paths::{self, beside};
use super::recent;
use super::recovery;
use super::redo::Age;
use super::renewal;
use super::schema;
use super::verify::{VerifyReport, verify};

/// Which gateway a pool is restored on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoredOn {
    /// One beside the original, which may still run.
    Another,
    /// The one that the backup is of, and the original is gone: sessions at brokers go on.
    Same,
}

/// A pool that was restored.
#[derive(Clone, Debug, PartialEq)]
pub struct Restored {
    /// When the file was made; `None` for a pool that was copied.
    pub made_at: Option<String>,
    /// From this offset of the inputs on row ids have a new mark.
    pub end: i64,
    pub report: VerifyReport,
}

/// Puts a backup in place.
///
/// # Errors
/// There is a pool, a job runs on it, or the file is no sound backup; nothing has changed then.
pub fn restore(config: &JournalConfig, from: &Path, on: RestoredOn) -> Result<Restored, JournalError> {
    let path = beside(&config.path, "");
    let _lock = Lock::take(&path)?;
    let salvaged = || Some(beside(&path, paths::SALVAGED)).filter(|salvaged| salvaged.exists());
    if let Some(left) = paths::left_of_pool(&path).or_else(salvaged) {
        return Err(JournalError::PoolIsThere { path: path.display().to_string(), left: left.display().to_string() });
    }
    let no_backup = |reason: String| JournalError::NoBackup { path: from.display().to_string(), reason };
    let mut source = File::open(from).map_err(|error| no_backup(error.to_string()))?;
    // whether the redo log has a part too the file tells: that of a job that was stopped has nothing
    let log = paths::wal_path(from);
    if log.metadata().is_ok_and(|log| log.len() > 0) {
        let log = log.display();
        return Err(no_backup(format!("{log} has a part of it, so it is a pool and no backup")));
    }
    let mut new = NewFile::create(&path)?;
    copy(&mut source, new.file()).map_err(|error| new.not_written(&error))?;
    let report = verify(new.path()).map_err(|error| no_backup(why_unsound(error)))?;
    if let Some(problem) = report.problems.iter().find(|problem| problem.starts_with("file: ")) {
        return Err(no_backup(format!("it is damaged ({problem})")));
    }
    let db = schema::open_writer(new.path(), config.max_bytes)?;
    if Age::read(&db).map_err(|error| new.not_written(&error))?.is_some_and(|age| age.generation > 0) {
        return Err(no_backup("a part of it was in a redo log: it is a copy of a pool whose job ran".to_owned()));
    }
    let own = make_own(&db, on).and_then(|own| schema::make_single(&db).map(|()| own));
    let (made_at, end) = own.map_err(|error| new.not_written(&error))?;
    db.close().map_err(|(_, error)| new.not_written(&error))?;
    new.finish()?;
    // of the pool that was here before
    beyond_use::forget(&path).map_err(|error| JournalError::Noted {
        path: path.display().to_string(),
        note: beyond_use::path(&path).display().to_string(),
        reason: error.to_string(),
    })?;
    Ok(Restored { made_at, end, report })
}

fn copy(from: &mut File, to: &mut File) -> io::Result<()> {
    to.rewind()?;
    io::copy(from, to).map(drop)
}

/// In words that do not advise to move a backup away.
fn why_unsound(error: JournalError) -> String {
    match error {
        JournalError::Foreign { .. } => "it is no pool of forebay".to_owned(),
        JournalError::Schema { found, expected, .. } => {
            format!("it has schema version {found}, and this program reads version {expected}")
        }
        JournalError::BeyondUse { reason } | JournalError::Unusable { reason, .. } => {
            format!("it is damaged ({reason})")
        }
        other => other.to_string(),
    }
}

/// What the pool must not share with the one that it is a copy of; when the file was made, and where it ends.
fn make_own(db: &Connection, on: RestoredOn) -> rusqlite::Result<(Option<String>, i64)> {
    let sql = SqlTransaction::new_unchecked(db, TransactionBehavior::Immediate)?;
    let find = "DELETE FROM meta WHERE key = ?1 RETURNING value";
    let take = |key| sql.query_row(find, [key], |row| row.get::<_, Vec<u8>>(0)).optional();
    let (made_at, salvaged_at) = (take(recovery::MADE_AT)?, take(recovery::SALVAGED_AT)?);
    let end = Books::load(&sql)?.inputs_end();
    renewal::renew(&sql, end)?;
    if on == RestoredOn::Another {
        sql.execute(
            "INSERT OR REPLACE INTO meta VALUES ('client_id_suffix', CAST(lower(hex(randomblob(4))) AS BLOB))",
            [],
        )?;
        // known to no broker any more
        sql.execute("DELETE FROM meta WHERE key LIKE 'client/%'", [])?;
    }
    // what was salvaged is the pool as the session at the broker knows it
    let is_latest = made_at.is_none() && salvaged_at.is_some();
    if !is_latest || on == RestoredOn::Another {
        // a packet id of the session then may be another message's by now
        sql.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", params![recent::FROM, end.to_le_bytes()])?;
    }
    recovery::close_pool(&sql)?;
    sql.commit()?;
    Ok((made_at.or(salvaged_at).map(|at| String::from_utf8_lossy(&at).into_owned()), end))
}

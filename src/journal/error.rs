//! What can go wrong with the journal, named by what the caller can do about it.
//!
//! In: SQLite and file errors. Out: [`JournalError`], cheap to clone, since one failed transaction answers many
//! callers. Invariant: every message carries the path or the value that matters and the next step. Not here: damaged
//! segments (they are set aside and counted, never an error).

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use super::paths::{beside, folder};

/// About what a commit of a busy second takes.
const PROBE_BYTES: usize = 256 << 10;

/// Why the journal did not do what it was asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum JournalError {
    #[error(
        "the journal {path} is in use: another process runs this job and holds {lock}; stop it, or give this job its \
        own `path` under [journal]"
    )]
    Locked { path: String, lock: String },
    #[error(
        "the journal {path} has {names} names (hard links), and the logs beside it belong to one of them: remove the \
         others, or copy the file instead while no job runs"
    )]
    Names { path: String, names: u64 },
    #[error(
        "SQLite {found} is too old for the journal: versions below 3.51.3 can lose committed writes; build with the \
        bundled one"
    )]
    SqliteTooOld { found: String },
    #[error(
        "{path} is not a forebay journal; it was left untouched: move it and the files beside it (`-wal`, `-redo`, \
        `-high-water`) away, or set another `path` under [journal]"
    )]
    Foreign { path: String },
    #[error(
        "the journal {path} has schema version {found}, this program reads version {expected}: run it with the program \
        that made it, or move it and the files beside it (`-wal`, `-redo`, `-high-water`) away to start anew"
    )]
    Schema { path: String, found: i64, expected: i64 },
    #[error("cannot open the journal {path}: {reason}; its directory must exist and be writable")]
    Folder { path: String, reason: String },
    #[error("cannot open the journal {path}: {reason}")]
    Unusable { path: String, reason: String },
    #[error(
        "the disk under the journal {path} is full, or a quota is used up ({reason}): free some room there, or move \
         the pool to another disk by `path` under [journal]; what is stored stays"
    )]
    NoRoom { path: String, reason: String },
    #[error(
        "the journal {path} did not take the setting {name} = {wanted} (it is {found}); is the file on a network file \
        system?"
    )]
    Setting { path: String, name: &'static str, wanted: String, found: String },
    #[error(
        "the journal is poisoned: a write failed ({reason}), so nothing is stored or acknowledged any more; check the \
        disk, run `forebay journal verify`, then restart the job"
    )]
    Poisoned { reason: String },
    #[error("the journal is closed")]
    Closed,
    #[error(
        "the journal is full: {used_bytes} of {max_bytes} bytes are used; it takes more when consumers have caught up, \
        or raise `max_bytes` under [journal]"
    )]
    Full { used_bytes: u64, max_bytes: u64 },
    #[error("no {what} with number {number} in this journal")]
    Unknown { what: &'static str, number: u32 },
    #[error("consumer {consumer} cannot move to {position}: it stands at {stored} and its stream ends at {end}")]
    Position { consumer: String, position: i64, stored: i64, end: i64 },
    #[error("rows of consumer {consumer} cannot be stored: {reason}")]
    Rows { consumer: String, reason: String },
    #[error("an event of {bytes} bytes cannot be stored: {max} are the most")]
    Payload { bytes: usize, max: usize },
    #[error("more than {max} {what} in one journal")]
    TooMany { what: &'static str, max: usize },
    #[error("cannot read the journal: {reason}; run `forebay journal verify`")]
    Read { reason: String },
    #[error(
        "the pool is damaged where nothing works without it ({reason}). Stop the job. `forebay journal salvage --job \
        JOB FILE` writes all that can be read into a new pool and changes nothing here; `forebay journal restore --job \
        JOB --same-gateway FILE` puts that in place, once this one and the files beside it are moved away. Or set \
        `on_damage = \"fresh\"` under [journal]: the next start moves them away and begins a fresh pool with what can \
        be read"
    )]
    BeyondUse { reason: String },
    #[error("the state of {consumer} in the pool is damaged: {reason}")]
    State { consumer: String, reason: String },
    #[error("{path} is there already, and nothing is written over: name another file, or move that one away")]
    Exists { path: String },
    #[error("{path} was not written: {reason}; {remedy}")]
    NotWritten { path: String, reason: String, remedy: &'static str },
    #[error(
        "the pool {path} is damaged ({reason}), so there is no backup of it: `forebay journal verify --job JOB` says \
        where. Stop the job, and write all that can be read into a new pool by `forebay journal salvage --job JOB FILE`"
    )]
    NotCopied { path: String, reason: String },
    #[error(
        "{path} is no sound backup: {reason}; nothing has changed. Take another one, as `forebay journal backup` or \
        `forebay journal salvage` writes it"
    )]
    NoBackup { path: String, reason: String },
    #[error(
        "there is a pool where the backup is to be: {left}. Nothing has changed: stop the job, move {path} and the \
        files beside it (`-wal`, `-redo`, `-high-water`, `-salvaged`) away, and run this again"
    )]
    PoolIsThere { path: String, left: String },
    #[error(
        "{path} is restored, but {note}, a note that the former pool is beyond use, cannot be removed ({reason}): \
        remove it before the job starts, which would take it for one of this pool"
    )]
    Noted { path: String, note: String, reason: String },
}

impl JournalError {
    pub(super) fn unusable(path: &Path, reason: impl ToString) -> JournalError {
        let path_text = path.display().to_string();
        // SQLite's own words for it lead astray
        if path.is_dir() {
            return JournalError::Foreign { path: path_text };
        }
        let reason = reason.to_string();
        if is_malformed(&reason) {
            return JournalError::BeyondUse { reason: format!("{path_text}: {reason}") };
        }
        if !is_folder_writable(path) {
            return JournalError::Folder { path: path_text, reason };
        }
        if has_no_room(path) {
            return JournalError::NoRoom { path: path_text, reason };
        }
        JournalError::Unusable { path: path_text, reason }
    }

    pub(super) fn read(error: impl ToString) -> JournalError {
        let reason = error.to_string();
        match is_malformed(&reason) {
            true => JournalError::BeyondUse { reason },
            false => JournalError::Read { reason },
        }
    }

    /// A write failed, and nobody knows what is on the disk.
    pub(super) fn write(error: &rusqlite::Error) -> JournalError {
        let reason = error.to_string();
        match is_malformed(&reason) {
            true => JournalError::BeyondUse { reason },
            false => JournalError::Poisoned { reason },
        }
    }
}

/// Why one step of a transaction did not happen.
#[derive(Debug)]
pub(super) enum StepError {
    /// The whole transaction is rolled back.
    Sql(rusqlite::Error),
    /// Only this step is answered with an error; it has written nothing.
    Refused(JournalError),
}

impl From<rusqlite::Error> for StepError {
    fn from(error: rusqlite::Error) -> StepError {
        StepError::Sql(error)
    }
}

impl From<JournalError> for StepError {
    fn from(error: JournalError) -> StepError {
        StepError::Refused(error)
    }
}

/// Whether another program (`sqlite3 job.db`) held the file for too long: nothing was written, it may be tried again.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked))
}

/// Whether these are SQLite's words for a file that is damaged, or those for a row that holds what no program of ours
/// has written there: where they come to be told, nothing could go on.
fn is_malformed(reason: &str) -> bool {
    let of_row = ["Invalid column type", "out of range", "Conversion error from type", "utf-8"];
    let words = ["malformed", "not a database"].into_iter().chain(of_row);
    words.into_iter().any(|word| reason.contains(word))
}

fn is_folder_writable(path: &Path) -> bool {
    use rustix::fs::{Access, access};
    access(folder(path), Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

/// Whether nothing more can be written beside this file: the disk is full, or a quota is used up. Tried, because a
/// quota is told nowhere else, and because SQLite has one word for all errors of a disk.
pub(super) fn has_no_room(path: &Path) -> bool {
    let probe = beside(path, "-probe");
    // one that another user's command left would be in the way
    let _ = fs::remove_file(&probe);
    let tried = File::create(&probe).and_then(|mut file| {
        file.write_all(&[0x5a; PROBE_BYTES])?;
        file.sync_all()
    });
    let _ = fs::remove_file(&probe);
    tried.is_err_and(|error| matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
}

/// Whether a transaction failed for want of room. An error of the disk is one if nothing more can be written: what
/// failed is written anew, whole, when there is room.
pub(super) fn is_no_room(error: &rusqlite::Error, path: &Path) -> bool {
    let is_of_disk = error.sqlite_error_code() == Some(rusqlite::ErrorCode::SystemIoFailure);
    is_disk_full(error) || (is_of_disk && has_no_room(path))
}

/// Whether there was no room: such a transaction is rolled back cleanly and may be tried again.
pub(super) fn is_disk_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}

/// What is no error of SQLite and ends its transaction all the same.
pub(super) fn invalid(reason: String) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(reason.into())
}

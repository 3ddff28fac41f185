//! The file: its settings, tables and version.
//!
//! In: a path. Out: the one writing connection, or a reading one. Invariant: a file that is not ours, or has another
//! schema version, is left exactly as it was; every setting is read back. Not here: what the rows mean (the modules
//! beside this one), the lock (`lock`).

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::error::JournalError;

use super::paths::left_beside;
pub(super) use super::paths::{beside, redo_path, wal_path};

/// `fbay`: tells our files from other SQLite files.
pub(super) const APPLICATION_ID: i64 = 0x6662_6179;
/// Raised with every change of the tables below, or of what belongs to them, that an earlier program could not work
/// with. 2: the redo log, without which a file lacks the newest commits.
pub(super) const SCHEMA_VERSION: i64 = 2;
/// The same tables, and no redo log: becomes a file of this version when it is opened to be written.
const SCHEMA_VERSION_BEFORE: i64 = 1;
/// The first version without the bug that resets the write-ahead log and loses commits.
const SQLITE_VERSION_MIN: i32 = 3_051_003;
/// SQLite's own default; state rows and segment heads are small, blobs use overflow pages.
pub(super) const PAGE_BYTES: u64 = 4096;
/// The page cache of the writer: the pool is written once and mostly read from memory.
const WRITER_CACHE_KIB: i64 = 2048;
/// A reader walks segments in order and profits little from a cache.
const READER_CACHE_KIB: i64 = 512;
/// Only other tools (`sqlite3 file.db`) can make us wait; they get this long.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

const TABLES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE input (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE stream (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    first INTEGER NOT NULL,        -- everything below is trimmed
    next INTEGER NOT NULL,         -- the offset that the next record gets
    last_arrival INTEGER NOT NULL  -- ticks of 100 ns since year one
);
CREATE TABLE segment (
    id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, first INTEGER NOT NULL, input INTEGER NOT NULL,
    count INTEGER NOT NULL,
    arrival INTEGER NOT NULL,      -- of its newest record; when rows were stored, if that is later
    codec INTEGER NOT NULL, raw_bytes INTEGER NOT NULL, checksum INTEGER NOT NULL, data BLOB NOT NULL,
    UNIQUE (stream, first)
);
CREATE TABLE quarantine (
    stream INTEGER NOT NULL, first INTEGER NOT NULL, past INTEGER NOT NULL, input INTEGER, codec INTEGER,
    raw_bytes INTEGER, checksum INTEGER, reason TEXT NOT NULL, at INTEGER NOT NULL, data BLOB,
    PRIMARY KEY (stream, first)
);
CREATE TABLE consumer (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, fingerprint TEXT NOT NULL, stream INTEGER NOT NULL,
    start INTEGER NOT NULL, position INTEGER NOT NULL, drop_oldest INTEGER NOT NULL
);
CREATE TABLE state (
    consumer INTEGER NOT NULL, op INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (consumer, op, key)
) WITHOUT ROWID;
CREATE TABLE ledger (
    edge TEXT NOT NULL, name TEXT NOT NULL, what TEXT NOT NULL, reason TEXT NOT NULL, value INTEGER NOT NULL,
    PRIMARY KEY (edge, name, what, reason)
) WITHOUT ROWID;
CREATE TABLE dead_letter (
    id INTEGER PRIMARY KEY, at INTEGER NOT NULL, stage TEXT NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL,
    input TEXT, source INTEGER, ordinal INTEGER NOT NULL, payload BLOB NOT NULL, request BLOB, response BLOB,
    query_version TEXT NOT NULL, attempts INTEGER NOT NULL, bytes INTEGER NOT NULL
);
-- A row that fails again after a restart is the same dead letter. Undecodable messages have no offset (NULL), and are
-- never equal.
CREATE UNIQUE INDEX dead_letter_source ON dead_letter (stage, source, ordinal);
INSERT INTO meta VALUES ('incarnation', randomblob(16)), ('client_id_suffix', CAST(lower(hex(randomblob(4))) AS BLOB));
INSERT INTO stream VALUES (0, 'inputs', 0, 0, 0);
";

/// Columns that came later, made in the same way: where a dead letter came from, and the checksum of a state row, which
/// rows of before do not have.
const LATER_COLUMNS: [(&str, &str, &str); 2] = [("dead_letter", "origin", "BLOB"), ("state", "checksum", "INTEGER")];

/// Tables that came later and that an earlier program does not miss: made in a file of any age when it is opened.
const LATER_TABLES: &str = "
CREATE TABLE IF NOT EXISTS reference (
    name TEXT PRIMARY KEY, digest TEXT NOT NULL, form TEXT NOT NULL, rows INTEGER NOT NULL,
    loaded_at INTEGER NOT NULL,    -- ticks of 100 ns since year one
    raw_bytes INTEGER NOT NULL, checksum INTEGER NOT NULL,
    data BLOB NOT NULL             -- what was read, zstd
);
-- Apart from the data, which is large: an error is written without it.
CREATE TABLE IF NOT EXISTS reference_error (name TEXT PRIMARY KEY, at INTEGER NOT NULL, message TEXT NOT NULL);
-- Records that a consumer of the inputs does not read: a person put them aside.
CREATE TABLE IF NOT EXISTS aside (
    consumer TEXT NOT NULL, source INTEGER NOT NULL, PRIMARY KEY (consumer, source)
) WITHOUT ROWID;
";

/// A file that was emptied or deleted is no new one.
fn check_gone(path: &Path) -> Result<(), JournalError> {
    let what = match fs::metadata(path) {
        Ok(file) if file.len() > 0 => return Ok(()),
        Ok(_) => "empty",
        Err(_) => "gone",
    };
    let Some(left) = left_beside(path) else { return Ok(()) };
    let (path, left) = (path.display(), left.display());
    let reason = format!(
        "{path}: the file is {what}, and {left} beside it tells that there was a pool. If it was deleted or moved on \
        purpose, move the files beside it (`-wal`, `-redo`, `-high-water`) away too, and start anew"
    );
    Err(JournalError::BeyondUse { reason })
}

/// The table of state under another name.
pub(super) fn state_table(name: &str) -> String {
    format!(
        "CREATE TABLE {name} (
             consumer INTEGER NOT NULL, op INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, checksum INTEGER,
             PRIMARY KEY (consumer, op, key)
         ) WITHOUT ROWID"
    )
}

/// Opens the writing connection, making the tables in a new file.
pub(super) fn open_writer(path: &Path, max_bytes: u64) -> Result<Connection, JournalError> {
    check_gone(path)?;
    check_sqlite_version(rusqlite::version_number(), rusqlite::version())?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(path, flags).map_err(|e| JournalError::unusable(path, e))?;
    let unusable = |e: rusqlite::Error| JournalError::unusable(path, e);
    db.busy_timeout(BUSY_TIMEOUT).map_err(unusable)?;
    let is_new = check_identity(&db, path)?;
    if is_new {
        // both only take effect before the first page is written
        apply(&db, path, "page_size", PAGE_BYTES as i64)?;
        apply(&db, path, "auto_vacuum", 2)?;
    }
    let checkpoint_pages = checkpoint_pages(max_bytes);
    use_log(&db, path)?;
    apply(&db, path, "auto_vacuum", 2)?;
    apply(&db, path, "synchronous", 2)?;
    apply(&db, path, "wal_autocheckpoint", checkpoint_pages)?;
    apply(&db, path, "journal_size_limit", log_bytes_max(max_bytes) as i64)?;
    apply(&db, path, "cache_size", -WRITER_CACHE_KIB)?;
    apply(&db, path, "temp_store", 2)?;
    if is_new {
        make_tables(&mut db).map_err(unusable)?;
    }
    db.execute_batch(LATER_TABLES).map_err(unusable)?;
    for (table, column, kind) in LATER_COLUMNS {
        if !has_column(&db, table, column).map_err(unusable)? {
            db.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column} {kind}")).map_err(unusable)?;
        }
    }
    // about two dozen statements are used again and again
    db.set_prepared_statement_cache_capacity(48);
    Ok(db)
}

/// Has SQLite use a write-ahead log. It answers before it has written that, so the answer is read to its end, where a
/// disk that fails meanwhile is told: what follows would go into the file without a log.
fn use_log(db: &Connection, path: &Path) -> Result<(), JournalError> {
    let unusable = |e: rusqlite::Error| JournalError::unusable(path, e);
    let mut statement = db.prepare("PRAGMA journal_mode = WAL").map_err(unusable)?;
    let mut rows = statement.query([]).map_err(unusable)?;
    let mut mode = String::new();
    while let Some(row) = rows.next().map_err(unusable)? {
        mode = row.get(0).map_err(unusable)?;
    }
    match mode.as_str() {
        "wal" => Ok(()),
        _ => Err(setting(path, "journal_mode", "wal", mode)),
    }
}

/// Whether a table has a column that came later: a file that no job of this version has opened lacks it.
pub(super) fn has_column(db: &Connection, table: &str, column: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) FROM pragma_table_info(?1) WHERE name = ?2";
    db.query_row(sql, [table, column], |row| row.get::<_, i64>(0)).map(|n| n > 0)
}

/// Random, made with the file.
pub(super) fn incarnation(db: &Connection, path: &Path) -> Result<[u8; 16], JournalError> {
    let found: Vec<u8> = db
        .query_row("SELECT value FROM meta WHERE key = 'incarnation'", [], |row| row.get(0))
        .map_err(|e| match e {
            rusqlite::Error::QueryReturnedNoRows => {
                JournalError::BeyondUse { reason: format!("{}: the pool's own number is gone", path.display()) }
            }
            other => JournalError::unusable(path, other),
        })?;
    found.try_into().map_err(|_| JournalError::Foreign { path: path.display().to_string() })
}

/// Opens a connection that can only read; works beside the writer, in this process or another.
pub(super) fn open_reader(path: &Path) -> Result<Connection, JournalError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let unusable = |e: rusqlite::Error| JournalError::unusable(path, e);
    check_gone(path)?;
    let mut db = Connection::open_with_flags(path, flags).map_err(unusable)?;
    db.busy_timeout(BUSY_TIMEOUT).map_err(unusable)?;
    let is_new = match check_identity(&db, path) {
        // even to look SQLite makes files of its own, but not where it is told that nobody writes
        Err(_) if path.is_file() && !wal_path(path).exists() && is_on_read_only(path) => {
            db = open_immutable(path).map_err(unusable)?;
            check_identity(&db, path)?
        }
        other => other?,
    };
    if is_new {
        return Err(JournalError::Foreign { path: path.display().to_string() });
    }
    // checkpoints are the writer's alone
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(unusable)?;
    apply(&db, path, "query_only", 1)?;
    apply(&db, path, "cache_size", -READER_CACHE_KIB)?;
    Ok(db)
}

/// Whether nobody can write there. The file itself is not opened for that: closing it would end SQLite's locks.
pub(super) fn is_on_read_only(path: &Path) -> bool {
    let probe = beside(path, "-probe");
    match File::create_new(&probe) {
        Ok(_) => {
            let _ = fs::remove_file(&probe);
            false
        }
        Err(error) => error.kind() == ErrorKind::ReadOnlyFilesystem,
    }
}

/// A file that nobody changes and that is whole without its write-ahead log.
fn open_immutable(path: &Path) -> rusqlite::Result<Connection> {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags)
}

/// The write-ahead log is copied back after this many pages: 4 MiB, less for a small budget, which counts the log too.
fn checkpoint_pages(max_bytes: u64) -> i64 {
    i64::try_from(max_bytes / 8 / PAGE_BYTES).unwrap_or(i64::MAX).clamp(64, 1000)
}

/// Beyond this SQLite cuts the write-ahead log when it uses it anew.
pub(super) fn log_bytes_max(max_bytes: u64) -> u64 {
    checkpoint_pages(max_bytes) as u64 * 2 * PAGE_BYTES
}

fn check_sqlite_version(number: i32, text: &str) -> Result<(), JournalError> {
    if number < SQLITE_VERSION_MIN {
        return Err(JournalError::SqliteTooOld { found: text.to_string() });
    }
    Ok(())
}

/// Whether the file is empty; an error when it is neither empty nor a journal of this version. Writes nothing.
fn check_identity(db: &Connection, path: &Path) -> Result<bool, JournalError> {
    let number = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0));
    let read = || -> rusqlite::Result<(i64, i64, i64)> {
        Ok((
            number("SELECT count(*) FROM sqlite_master")?,
            number("PRAGMA application_id")?,
            number("PRAGMA user_version")?,
        ))
    };
    let foreign = || JournalError::Foreign { path: path.display().to_string() };
    // the header alone tells these, also where this SQLite cannot read the schema
    if let (Ok(id), Ok(found)) = (number("PRAGMA application_id"), number("PRAGMA user_version")) {
        match id {
            APPLICATION_ID if found > SCHEMA_VERSION => {
                return Err(JournalError::Schema { path: path.display().to_string(), found, expected: SCHEMA_VERSION });
            }
            APPLICATION_ID | 0 => {}
            _ => return Err(foreign()),
        }
    }
    // a file of ours has these beside it
    let was_ours = || redo_path(path).exists() || beside(path, "-high-water").exists();
    match read() {
        Ok((0, 0, 0)) => Ok(true),
        Ok((_, APPLICATION_ID, SCHEMA_VERSION | SCHEMA_VERSION_BEFORE)) => Ok(false),
        Ok((_, APPLICATION_ID, found)) => {
            Err(JournalError::Schema { path: path.display().to_string(), found, expected: SCHEMA_VERSION })
        }
        Ok(_) => Err(foreign()),
        Err(e) if e.sqlite_error_code() == Some(ErrorCode::NotADatabase) && was_ours() => {
            Err(JournalError::BeyondUse { reason: format!("{}: the file is no database any more", path.display()) })
        }
        Err(e) if e.sqlite_error_code() == Some(ErrorCode::NotADatabase) => Err(foreign()),
        Err(e) => Err(JournalError::unusable(path, e)),
    }
}

fn make_tables(db: &mut Connection) -> rusqlite::Result<()> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute_batch(TABLES)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    tx.commit()
}

/// From then on nobody who looks into the file makes others beside it. A start sets the mode that it wants.
pub(super) fn make_single(db: &Connection) -> rusqlite::Result<()> {
    db.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get::<_, String>(0)).map(drop)
}

/// Sets a pragma and reads it back: SQLite ignores what it does not like.
pub(super) fn apply(db: &Connection, path: &Path, name: &'static str, wanted: i64) -> Result<(), JournalError> {
    let unusable = |e: rusqlite::Error| JournalError::unusable(path, e);
    // some pragmas answer with a row and some do not
    let mut statement = db.prepare(&format!("PRAGMA {name} = {wanted}")).map_err(unusable)?;
    let mut rows = statement.query([]).map_err(unusable)?;
    while rows.next().map_err(unusable)?.is_some() {}
    let found: i64 = db.pragma_query_value(None, name, |row| row.get(0)).map_err(unusable)?;
    if found != wanted {
        return Err(setting(path, name, wanted, found));
    }
    Ok(())
}

fn setting(path: &Path, name: &'static str, wanted: impl ToString, found: impl ToString) -> JournalError {
    JournalError::Setting {
        path: path.display().to_string(),
        name,
        wanted: wanted.to_string(),
        found: found.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_with_the_log_reset_bug_is_refused() {
        assert!(check_sqlite_version(3_051_003, "3.51.3").is_ok());
        let error = check_sqlite_version(3_051_002, "3.51.2").unwrap_err().to_string();
        assert!(error.contains("3.51.2") && error.contains("3.51.3"), "{error}");
        assert!(check_sqlite_version(rusqlite::version_number(), rusqlite::version()).is_ok());
    }

    #[test]
    fn a_closed_pool_is_read_where_nobody_can_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a pool? 100% #1 ü.db");
        let db = open_writer(&path, 1 << 24).unwrap();
        db.close().unwrap();
        let files = || fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(files(), 1);
        let db = open_immutable(&path).unwrap();
        assert!(!check_identity(&db, &path).unwrap());
        assert_eq!(files(), 1, "to look makes no files");
        assert!(!is_on_read_only(&path) && files() == 1);
    }

    #[test]
    fn the_log_of_a_small_budget_is_short() {
        assert_eq!(checkpoint_pages(0), 64);
        assert_eq!(checkpoint_pages(8 * 100 * PAGE_BYTES), 100);
        assert_eq!(checkpoint_pages(u64::MAX), 1000);
    }
}

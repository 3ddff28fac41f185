//! What to do where a page of the file cannot be read.
//!
//! In: an error of SQLite. Out: whether it is damage; an index made anew. Invariant: SQLite takes no write any more in
//! a transaction that met a damaged page, be it by reading: so what may be damaged is read outside of one, and such a
//! transaction is rolled back whole. Not here: ranges that are set aside (`quarantine`), how the writer goes on
//! (`writer`), a file that is beyond use (`error`).

use rusqlite::{Connection, Error, ErrorCode, params};

/// Whether a page of the file is damaged, or what a row holds.
pub(super) fn is_damage(error: &Error) -> bool {
    is_of_page(error)
        || matches!(
            error,
            Error::IntegralValueOutOfRange(..)
                | Error::InvalidColumnType(..)
                | Error::FromSqlConversionFailure(..)
                | Error::Utf8Error(..)
        )
}

/// Whether a page of the file is damaged.
pub(super) fn is_of_page(error: &Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Where the first segment begins behind this offset. The index alone tells, so it tells of those on damaged pages too.
pub(super) fn next_first(db: &Connection, stream: u32, behind: i64) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT min(first) FROM segment WHERE stream = ?1 AND first > ?2";
    db.prepare_cached(sql)?.query_row(params![stream, behind], |row| row.get(0))
}

/// Reads the whole index of the segments; an error where it is damaged.
pub(super) fn check_index(db: &Connection) -> rusqlite::Result<()> {
    let sql = "SELECT count(*) FROM segment INDEXED BY sqlite_autoindex_segment_1";
    db.query_row(sql, [], |row| row.get::<_, i64>(0)).map(drop)
}

/// Makes the index of the segments anew if it is damaged; whether it was, and could be. Not inside a transaction.
/// SQLite would clear the old one first, and fails there; so a new one takes its place, and its pages are left alone.
pub(super) fn mend_index(db: &Connection) -> bool {
    if !check_index(db).is_err_and(|error| is_of_page(&error)) {
        return false;
    }
    let mended = db.execute_batch(
        "BEGIN IMMEDIATE;
         CREATE UNIQUE INDEX segment_anew ON segment (stream, first);
         PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'segment_anew')
             WHERE name = 'sqlite_autoindex_segment_1';
         DELETE FROM sqlite_schema WHERE name = 'segment_anew';
         PRAGMA writable_schema = RESET;
         COMMIT",
    );
    if let Err(error) = &mended {
        let _ = db.execute_batch("ROLLBACK");
        let _ = db.execute_batch("PRAGMA writable_schema = RESET");
        tracing::error!("the index of the pool's segments is damaged, and cannot be made anew: {error}");
        return false;
    }
    tracing::error!("the index of the pool's segments was damaged, and is made anew: check the disk");
    true
}

//! A checksum over the tables that say where streams end and where consumers stand.
//!
//! In: the file. Out: the sum, kept in `meta` by the transaction that changed the tables, and whether it still holds.
//! Invariant: positions and ends that nobody of ours wrote are never taken for true. Not here: segments, state rows and
//! reference data, which have sums of their own, and counters, which have equations.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, OptionalExtension, ffi, params};

/// Its name in `meta`. A pool that no job of this version has written to has none.
pub(super) const SUM: &str = "books_sum";

const TABLES: [&str; 3] = [
    "SELECT id, name, first, next, last_arrival FROM stream ORDER BY id",
    "SELECT id, name FROM input ORDER BY id",
    "SELECT id, name, fingerprint, stream, start, position, drop_oldest FROM consumer ORDER BY id",
];

/// Of the tables as they are now.
pub(super) fn of(db: &Connection) -> rusqlite::Result<Vec<u8>> {
    let mut hasher = crc32fast::Hasher::new();
    for sql in TABLES {
        let mut find = db.prepare_cached(sql)?;
        let columns = find.column_count();
        let mut rows = find.query([])?;
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                match row.get_ref(column)? {
                    ValueRef::Integer(number) => hasher.update(&number.to_le_bytes()),
                    ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                        hasher.update(&(bytes.len() as u64).to_le_bytes());
                        hasher.update(bytes);
                    }
                    ValueRef::Real(number) => hasher.update(&number.to_le_bytes()),
                    ValueRef::Null => hasher.update(&[0]),
                }
            }
        }
        hasher.update(b";");
    }
    Ok(hasher.finalize().to_le_bytes().to_vec())
}

/// Keeps it, behind all other changes of a transaction.
pub(super) fn keep(db: &Connection) -> rusqlite::Result<()> {
    let now = of(db)?;
    if kept(db)?.as_ref() != Some(&now) {
        db.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?.execute(params![SUM, now])?;
    }
    Ok(())
}

/// # Errors
/// The tables are not as they were written.
pub(super) fn check(db: &Connection) -> rusqlite::Result<()> {
    match kept(db)? {
        Some(kept) if kept != of(db)? => {
            let what = "what the pool says of its streams and consumers is malformed: its checksum is another";
            Err(Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(what.to_owned())))
        }
        _ => Ok(()),
    }
}

fn kept(db: &Connection) -> rusqlite::Result<Option<Vec<u8>>> {
    db.prepare_cached("SELECT value FROM meta WHERE key = ?1")?.query_row([SUM], |row| row.get(0)).optional()
}

#[cfg(test)]
mod tests {
    use crate::journal::books::Books;
    use crate::journal::damage::is_damage;
    use crate::journal::schema::open_writer;

    #[test]
    fn a_position_that_nobody_wrote_is_found_and_a_pool_of_before_has_no_sum() {
        let dir = tempfile::TempDir::new().unwrap();
        let db = open_writer(&dir.path().join("job.db"), 1 << 24).unwrap();
        db.execute_batch("INSERT INTO consumer VALUES (1, 'out', 'f', 0, 0, 5, 0); INSERT INTO input VALUES (1, 'a')")
            .unwrap();
        let books = Books::load(&db).unwrap();
        books.save(&db, &books).unwrap();
        assert!(Books::load(&db).is_ok());
        for change in [
            "UPDATE consumer SET position = 6",
            "UPDATE consumer SET start = 1",
            "UPDATE consumer SET name = 'oud'",
            "UPDATE stream SET first = 1",
            "UPDATE stream SET next = 1",
            "UPDATE input SET name = 'b'",
            "DELETE FROM consumer",
        ] {
            let within = db.unchecked_transaction().unwrap();
            within.execute_batch(change).unwrap();
            let error = Books::load(&within).unwrap_err();
            assert!(is_damage(&error) && error.to_string().contains("malformed"), "{change}: {error}");
            within.rollback().unwrap();
        }
        assert!(Books::load(&db).is_ok());
    }
}

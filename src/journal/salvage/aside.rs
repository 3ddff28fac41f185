//! Ranges that were set aside before, where salvage found records of them after all.
//!
//! In: the new pool with the segments that could be read, and the ranges of the damaged one. Out: the same with ranges
//! that hold no offset of a segment. Invariant: an offset is read or skipped by whoever passes it, and never both. Not
//! here: ranges for what is missing now (`fill`).

use rusqlite::{Connection, params};

use crate::journal::quarantine::without_segment;

/// Cuts the ranges; gives how many there are now.
pub(super) fn cut(db: &Connection) -> rusqlite::Result<u64> {
    let mut find = db.prepare("SELECT rowid, stream, first, past FROM quarantine")?;
    let found = find.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    let ranges: Vec<(i64, u32, i64, i64)> = found.collect::<rusqlite::Result<_>>()?;
    for (number, stream, first, past) in ranges {
        let left = without_segment(db, stream, first, past)?;
        if left == [(first, past)] {
            continue;
        }
        // the bytes of a damaged segment lie at its beginning
        for (at, end) in left.iter().filter(|(at, _)| *at != first) {
            let sql = "INSERT OR IGNORE INTO quarantine (stream, first, past, input, reason, at)
                       SELECT stream, ?2, ?3, input, reason, at FROM quarantine WHERE rowid = ?1";
            db.execute(sql, params![number, at, end])?;
        }
        match left.iter().find(|(at, _)| *at == first) {
            Some((_, end)) => db.execute("UPDATE quarantine SET past = ?2 WHERE rowid = ?1", params![number, end])?,
            None => db.execute("DELETE FROM quarantine WHERE rowid = ?1", [number])?,
        };
    }
    db.query_row("SELECT count(*) FROM quarantine", [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::schema;

    #[test]
    fn a_range_keeps_what_no_segment_holds() {
        let dir = tempfile::tempdir().unwrap();
        let db = schema::open_writer(&dir.path().join("job.db"), 1 << 30).unwrap();
        for (first, count) in [(10, 2), (14, 2), (20, 5), (40, 5)] {
            let sql = "INSERT INTO segment (stream, first, input, count, arrival, codec, raw_bytes, checksum, data)
                       VALUES (0, ?1, 0, ?2, 0, 0, 0, 0, x'')";
            db.execute(sql, [first, count]).unwrap();
        }
        // untouched; two holes of three; all of it there; its end there; of another stream
        for (stream, first, past) in [(0, 0, 5), (0, 8, 17), (0, 20, 25), (0, 38, 42), (1, 20, 25)] {
            let sql =
                "INSERT INTO quarantine (stream, first, past, reason, at, data) VALUES (?1, ?2, ?3, 'r', 7, x'01')";
            db.execute(sql, [stream, first, past]).unwrap();
        }
        assert_eq!(cut(&db).unwrap(), 6);
        let mut find = db.prepare("SELECT stream, first, past, rowid, data FROM quarantine ORDER BY 1, 2").unwrap();
        type Found = (i64, i64, i64, i64, Option<Vec<u8>>);
        let found = find.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)));
        let found: Vec<Found> = found.unwrap().map(Result::unwrap).collect();
        let kept = Some(vec![1]);
        assert_eq!(
            found,
            [
                (0, 0, 5, 1, kept.clone()),
                (0, 8, 10, 2, kept.clone()),
                (0, 12, 14, 6, None),
                (0, 16, 17, 7, None),
                (0, 38, 40, 4, kept.clone()),
                (1, 20, 25, 5, kept),
            ]
        );
    }
}

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use rusqlite::Connection;
use rusqlite::types::Value;
use tempfile::TempDir;

use super::cells::{TreeKind, TreePlace, Walker};
use super::pages::Pages;

/// Rows with values of all kinds, long ones and short ones, on free pages too; a part of it in the write-ahead log.
fn database(dir: &TempDir) -> (PathBuf, Connection) {
    let path = dir.path().join("any.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "PRAGMA page_size = 4096; PRAGMA auto_vacuum = 2; PRAGMA journal_mode = WAL;
         CREATE TABLE t (id INTEGER PRIMARY KEY, i, r, s, b);
         CREATE TABLE w (k TEXT, n INTEGER, b BLOB, PRIMARY KEY (k, n)) WITHOUT ROWID;
         WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 300)
         INSERT INTO t SELECT 1 + n * n, (n - 150) << (n % 60), n / 7.0, printf('text %d ü', n), \
         CASE WHEN n % 3 THEN randomblob(n * (n % 11) * 10) END FROM n;
         INSERT INTO w SELECT s, id, randomblob(id % 9000) FROM t;
         PRAGMA wal_checkpoint(TRUNCATE);
         DELETE FROM t WHERE id % 5 = 0;
         UPDATE w SET b = randomblob(length(b) + 1) WHERE n % 7 = 0",
    )
    .unwrap();
    (path, db)
}

fn walked(pages: &Pages, root: u32, kind: TreeKind) -> Vec<TreePlace> {
    let mut walker = Walker { pages, reached: HashSet::new() };
    let mut found = Vec::new();
    walker
        .walk(root, kind, &mut |place| {
            found.push(place);
            Ok::<_, ()>(())
        })
        .unwrap();
    found
}

fn root(db: &Connection, name: &str) -> u32 {
    db.query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [name], |row| row.get(0)).unwrap()
}

#[test]
fn rows_are_read_as_sqlite_reads_them() {
    let dir = TempDir::new().unwrap();
    let (path, db) = database(&dir);
    let pages = Pages::open(&path).unwrap();
    let by_sqlite = |sql: &str, columns: usize| -> Vec<Vec<Value>> {
        let mut find = db.prepare(sql).unwrap();
        let rows = find.query_map([], |row| (0..columns).map(|i| row.get(i)).collect()).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let table: Vec<Vec<Value>> = walked(&pages, root(&db, "t"), TreeKind::Table)
        .into_iter()
        .map(|place| match place {
            TreePlace::Row { number, mut values } => {
                values[0] = Value::Integer(number);
                values
            }
            TreePlace::Hole => panic!("a hole"),
        })
        .collect();
    let wanted = by_sqlite("SELECT id, i, r, s, b FROM t ORDER BY id", 5);
    assert!(wanted.len() > 150 && table == wanted);
    let index: Vec<Vec<Value>> = walked(&pages, root(&db, "w"), TreeKind::Index)
        .into_iter()
        .map(|place| match place {
            TreePlace::Row { values, .. } => values,
            TreePlace::Hole => panic!("a hole"),
        })
        .collect();
    assert!(index == by_sqlite("SELECT k, n, b FROM w ORDER BY k, n", 3));
    // those of the leaves are the same, and nothing lies on a page that is free
    let free = pages.free().unwrap();
    let count: i64 = db.query_row("PRAGMA freelist_count", [], |row| row.get(0)).unwrap();
    assert!(count > 0 && free.len() as i64 == count, "{count}");
    let on_leaves = |pages: &Pages| -> usize {
        (2..=pages.count()).filter(|at| !free.contains(at)).map(|at| pages.rows_of_leaf(at).len()).sum()
    };
    assert_eq!(on_leaves(&pages), wanted.len());
    // without the log it is as it was before
    fs::remove_file(dir.path().join("any.db-wal")).unwrap();
    assert!(on_leaves(&Pages::open(&path).unwrap()) > wanted.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn no_bytes_make_it_panic_or_run_in_a_ring(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 1usize..200), 1..40),
        in_log in any::<bool>(),
    ) {
        let dir = TempDir::new().unwrap();
        let (path, db) = database(&dir);
        let roots = [(root(&db, "t"), TreeKind::Table), (root(&db, "w"), TreeKind::Index), (1, TreeKind::Table)];
        let changed = if in_log { dir.path().join("any.db-wal") } else { path.clone() };
        let mut bytes = fs::read(&changed).unwrap();
        for (at, byte, n) in changes {
            let at = at.index(bytes.len());
            let end = (at + n).min(bytes.len());
            bytes[at..end].fill(byte);
        }
        let other = TempDir::new().unwrap();
        let copy = other.path().join("any.db");
        fs::copy(&path, &copy).unwrap();
        fs::copy(dir.path().join("any.db-wal"), other.path().join("any.db-wal")).unwrap();
        fs::write(other.path().join(changed.file_name().unwrap()), bytes).unwrap();
        let pages = Pages::open(&copy).unwrap();
        for (root, kind) in roots {
            prop_assert!(walked(&pages, root, kind).len() < 100_000);
        }
        let _ = pages.free();
        for at in 0..pages.count().min(10_000) {
            pages.rows_of_leaf(at);
        }
    }
}

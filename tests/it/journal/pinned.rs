//! Another program that reads the pool's file and does not end its transaction.

use super::*;

/// One that is left open: it has read, and keeps what it saw.
fn forgotten_reader(path: &Path) -> rusqlite::Connection {
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute_batch("BEGIN; SELECT count(*) FROM segment").unwrap();
    let _: i64 = db.query_row("SELECT count(*) FROM segment", [], |row| row.get(0)).unwrap();
    db
}

fn log_bytes(pool: &Pool) -> u64 {
    fs::metadata(beside(&pool.path, "-wal")).unwrap().len()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        forebay::time::pause(Duration::from_millis(5));
    }
}

#[test]
fn a_forgotten_reader_is_named_and_stops_neither_intake_nor_consumers() {
    const BUDGET: u64 = 3 << 20;
    let pool = Pool::with(|c| JournalConfig { max_bytes: BUDGET, recent_records: 0, ..c });
    let consumer = pool.consumer("scored", StreamId::INPUTS);
    pool.journal.keep_only_consumers(&["scored".into()]).unwrap();
    let reader = forgotten_reader(&pool.path);
    let mut stored = 0;
    let mut flow = || {
        stored = pool.store(vec![noise(100_000, stored as u64 + 1)]).end;
        pool.commit(Commit::at(consumer.id, stored));
    };
    // the log alone would use up the budget
    while log_bytes(&pool) < BUDGET {
        flow();
    }
    wait_until("the reader is named", || pool.journal.pin().is_some());
    flow();
    assert!(!pool.journal.is_full() && pool.journal.used_bytes() < BUDGET);
    let (pin, waits) = pool.journal.pin().unwrap();
    assert!(!waits && pin.log_bytes > BUDGET / 2, "{pin:?}");
    assert!(pool.status().pin.is_some());

    // in the end intake waits, since the disk is not the reader's; consumers go on
    let (batch, waiting) = (0..100)
        .find_map(|_| {
            if pool.journal.is_full() {
                return Some(append(pool.input, vec![noise(100_000, 7)]));
            }
            flow();
            None
        })
        .unwrap();
    pool.journal.append(batch);
    let position = pool.journal.ends(StreamId::INPUTS).1;
    pool.commit(Commit::at(consumer.id, position));
    assert!(waiting.try_recv().is_err());
    assert!(pool.journal.pin().unwrap().1, "and says for whom");

    drop(reader);
    assert_eq!(waiting.recv_timeout(PATIENCE).unwrap(), Ok(position..position + 1));
    wait_until("the log is cut", || pool.journal.pin().is_none() && log_bytes(&pool) < BUDGET / 2);
    assert!(!pool.journal.is_full() && verify(&pool.path).unwrap().is_good());
}

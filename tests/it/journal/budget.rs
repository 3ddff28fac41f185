//! A pool whose budget is used up.

use super::*;

#[test]
fn a_full_journal_stops_intake_until_its_consumer_has_caught_up() {
    const BUDGET: u64 = 3 << 20;
    let pool = Pool::with(|c| JournalConfig { max_bytes: BUDGET, recent_records: 0, ..c });
    let consumer = pool.consumer("scored", StreamId::INPUTS);
    let results = pool.journal.stream("scored").unwrap();
    pool.journal.keep_only_consumers(&["scored".into()]).unwrap();
    let mut stored = 0;
    while !pool.journal.is_full() {
        stored = pool.store(vec![noise(100_000, stored as u64 + 1)]).end;
        assert!(stored < 100, "the budget is never reached");
    }
    assert!(pool.journal.used_bytes() < BUDGET + (1 << 20));
    let (batch, waiting) = append(pool.input, vec![noise(100_000, 7)]);
    let batch = pool.journal.try_append(batch).unwrap();
    pool.journal.append(batch);
    pool.journal.sync().unwrap();
    assert!(waiting.try_recv().is_err(), "intake waits");

    // consumers go on, also with rows for a stream that nobody has to read first
    pool.commit(Commit { emit: Some((results, rows(0..3))), ..Commit::at(consumer.id, 1) });
    pool.commit(Commit::at(consumer.id, stored));
    assert_eq!(waiting.recv_timeout(PATIENCE).unwrap(), Ok(stored..stored + 1));
    assert!(!pool.journal.is_full());
    assert!(verify(&pool.path).unwrap().is_good());
}

#[test]
fn a_full_journal_lets_go_of_what_no_consumer_needs() {
    let keep = Some(Duration::from_secs(3600));
    let pool = Pool::with(|c| JournalConfig { max_bytes: 3 << 20, retention: keep, ..c });
    let consumer = pool.consumer("scored", StreamId::INPUTS);
    pool.journal.keep_only_consumers(&["scored".into()]).unwrap();
    for i in 0..60 {
        let range = pool.store(vec![noise(100_000, i + 1)]);
        pool.commit(Commit::at(consumer.id, range.end));
    }
    assert!(pool.segments(StreamId::INPUTS).len() < 40);
    assert!(verify(&pool.path).unwrap().is_good());
}

#[test]
fn rows_for_a_dead_output_wait_while_the_journal_is_full() {
    let pool = Pool::with(|c| JournalConfig { max_bytes: 3 << 20, recent_records: 0, ..c });
    let results = pool.journal.stream("scored").unwrap();
    let statement = pool.consumer("statement", StreamId::INPUTS);
    let output = pool.consumer("output", results);
    pool.journal.keep_only_consumers(&["statement".into(), "output".into()]).unwrap();
    let mut stored = 0;
    while !pool.journal.is_full() {
        stored = pool.store(vec![noise(100_000, stored as u64 + 1)]).end;
    }
    // the position stays, so that nothing of the inputs is freed
    let emit = |range: Range<i64>| Commit { emit: Some((results, rows(range))), ..Commit::at(statement.id, 0) };
    pool.commit(emit(0..1));
    let second = pool.journal.commit(emit(1..2));
    pool.journal.sync().unwrap();
    assert_eq!(second.poll(), None, "the output has yet to read the first");
    pool.commit(Commit::at(output.id, 1));
    assert_eq!(second.wait(), Ok(()));
}

#[test]
fn drop_oldest_moves_the_consumer_that_holds_the_oldest_records() {
    let pool = Pool::with(|c| JournalConfig { max_bytes: 3 << 20, recent_records: 0, ..c });
    let dead = ConsumerSpec { on_full: OnFull::DropOldest, ..spec("dead", StreamId::INPUTS) };
    let dead = pool.journal.register_consumer(dead).unwrap();
    let alive = pool.consumer("alive", StreamId::INPUTS);
    pool.journal.keep_only_consumers(&["dead".into(), "alive".into()]).unwrap();
    for i in 0..60 {
        let range = pool.store(vec![noise(100_000, i + 1)]);
        pool.commit(Commit::at(alive.id, range.end));
    }
    // one snapshot: the writer may go on making room meanwhile
    let status = pool.status();
    let line = |l: &&forebay::journal::LedgerLine| l.name == "dead" && l.what == what::SKIPPED && l.reason == "budget";
    let n = status.ledger.iter().find(line).map_or(0, |l| l.value);
    assert!((20..60).contains(&n), "{n}");
    let position = status.consumers.iter().find(|c| c.name == "dead").map(|c| c.position);
    assert_eq!(position, Some(n as i64));
    assert_eq!(pool.journal.ledger().sum(Edge::Consumer, "alive", what::SKIPPED), 0);
    // it had read some of them before: its older position is no mistake
    pool.commit(Commit::at(dead.id, 5));
    assert!(verify(&pool.path).unwrap().is_good());
}

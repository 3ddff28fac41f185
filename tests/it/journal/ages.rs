//! How long the oldest record of a consumer has waited, wherever it lies, and when outputs last delivered.

use super::*;

/// Seconds that the oldest record has waited ten minutes after the first came.
fn oldest(pool: &Pool) -> Option<u64> {
    let status = pool.journal.with_oldest(pool.journal.summary().unwrap(), at(600_000));
    status.consumers[0].oldest_seconds
}

/// Stores events that arrive a minute apart, in one segment.
fn store_minutes(pool: &Pool, n: i64) {
    let (mut append, answer) = append(pool.input, (0..n).map(|_| b"{}".to_vec()).collect());
    append.events.iter_mut().zip(0..).for_each(|(event, minute)| event.arrival = at(minute * 60_000));
    pool.journal.append(append);
    answer.recv_timeout(PATIENCE).unwrap().unwrap();
}

#[test]
fn the_record_at_the_position_counts_in_memory_in_the_redo_log_and_in_the_file() {
    // in memory, and by segments that are opened anew
    for tail_bytes_max in [1 << 20, 0] {
        let pool = Pool::with(|config| JournalConfig { tail_bytes_max, ..config });
        let info = pool.consumer("output rows", StreamId::INPUTS);
        pool.journal.keep_only_consumers(&["output rows".into()]).unwrap();
        assert_eq!(oldest(&pool), None, "nothing waits");
        store_minutes(&pool, 5);
        assert_eq!(oldest(&pool), Some(600));
        pool.commit(Commit::at(info.id, 2));
        assert_eq!(oldest(&pool), Some(480), "not that of the segment's newest record");
        let outside = JournalStatus::open_readonly(&pool.path).unwrap();
        assert!(outside.consumers[0].oldest_seconds.is_some(), "from the redo log");
        pool.journal.sync().unwrap();
        assert_eq!(oldest(&pool), Some(480));
        let pool = pool.reopen();
        assert_eq!(oldest(&pool), Some(480), "from the file");
        let id = pool.consumer("output rows", StreamId::INPUTS).id;
        pool.commit(Commit::at(id, 5));
        assert_eq!(oldest(&pool), None);
    }
}

#[test]
fn a_row_is_as_old_as_its_event() {
    let pool = Pool::new();
    let stream = pool.journal.stream("rows").unwrap();
    let (writer, reader) = (pool.consumer("statement rows", StreamId::INPUTS), pool.consumer("output rows", stream));
    pool.store_some(10);
    pool.commit(Commit { emit: Some((stream, rows(0..10))), ..Commit::at(writer.id, 10) });
    pool.commit(Commit::at(reader.id, 4));
    let status = pool.journal.with_oldest(pool.journal.summary().unwrap(), at(4 + 7_000));
    let ages: Vec<_> = status.consumers.iter().map(|c| (c.name.as_str(), c.oldest_seconds)).collect();
    assert_eq!(ages, [("statement rows", None), ("output rows", Some(7))]);
    let outputs: Vec<_> = status.outputs.iter().map(|o| (o.name.as_str(), o.pending, o.oldest_seconds)).collect();
    assert_eq!(outputs, [("rows", 6, Some(7))]);
}

#[test]
fn the_last_delivery_is_known_after_a_restart() {
    let pool = Pool::new();
    let info = pool.consumer("output rows", StreamId::INPUTS);
    pool.store_some(10);
    let delivered = |n| (Counter::new(Edge::Output, "rows", what::DELIVERED), n);
    pool.commit(Commit { ledger: vec![delivered(0)], ..Commit::at(info.id, 1) });
    pool.journal.sync().unwrap();
    assert_eq!(pool.status().outputs[0].delivered_at, None, "nothing was delivered");
    pool.config.clock.advance(Duration::from_secs(3));
    pool.commit(Commit { ledger: vec![delivered(2)], ..Commit::at(info.id, 3) });
    pool.journal.sync().unwrap();
    pool.config.clock.advance(Duration::from_secs(3));
    pool.commit(Commit { ledger: vec![delivered(0)], ..Commit::at(info.id, 4) });
    let pool = pool.reopen();
    assert_eq!(pool.status().outputs[0].delivered_at, Some(at(3_000)));
}

//! What nobody needs any more is deleted, and nothing else.

use super::*;

#[test]
fn what_all_consumers_have_read_is_trimmed() {
    let pool = Pool::with(|c| JournalConfig { recent_records: 0, ..c });
    let (fast, slow) = (pool.consumer("fast", StreamId::INPUTS), pool.consumer("slow", StreamId::INPUTS));
    for _ in 0..50 {
        pool.store_segment(2);
    }
    pool.commit(Commit::at(fast.id, 100));
    pool.commit(Commit::at(slow.id, 100));
    assert_eq!(pool.segments(StreamId::INPUTS).len(), 50, "another consumer may still be registered");
    let pool = pool.reopen();
    pool.journal.keep_only_consumers(&["fast".into(), "slow".into()]).unwrap();
    // a few with each transaction
    for _ in 0..4 {
        pool.journal.sync().unwrap();
    }
    assert_eq!(pool.segments(StreamId::INPUTS), [] as [i64; 0]);
    assert_eq!(pool.journal.ends(StreamId::INPUTS), (100, 100));

    for _ in 0..3 {
        pool.store_segment(2);
    }
    pool.commit(Commit::at(fast.id, 106));
    pool.commit(Commit::at(slow.id, 103));
    assert_eq!(pool.segments(StreamId::INPUTS), [102, 104], "the slow one is inside the second");
    assert_eq!(pool.payloads(0).len(), 4, "a reader from before begins at what is left");
    let oldest = pool.consumer("late", StreamId::INPUTS);
    assert_eq!(oldest.position, 102);
    assert!(verify(&pool.path).unwrap().is_good());
}

#[test]
fn retention_keeps_what_was_read() {
    let clock = Clock::manual(at(0));
    let keep = Some(Duration::from_secs(60));
    let pool = Pool::with(|c| JournalConfig { recent_records: 0, retention: keep, clock: clock.clone(), ..c });
    let reader = pool.consumer("scored", StreamId::INPUTS);
    pool.journal.keep_only_consumers(&["scored".into()]).unwrap();
    pool.store_some(1);
    pool.commit(Commit::at(reader.id, 1));
    assert_eq!(pool.segments(StreamId::INPUTS), [0]);
    clock.advance(Duration::from_secs(59));
    pool.journal.sync().unwrap();
    assert_eq!(pool.segments(StreamId::INPUTS), [0]);
    clock.advance(Duration::from_secs(2));
    pool.journal.sync().unwrap();
    assert_eq!(pool.segments(StreamId::INPUTS), [] as [i64; 0]);
}

#[test]
fn the_newest_messages_of_each_input_stay_to_recognise_redeliveries() {
    let pool = Pool::with(|c| JournalConfig { recent_records: 4, ..c });
    let quiet = pool.journal.input("quiet").unwrap();
    let consumer = pool.consumer("scored", StreamId::INPUTS);
    pool.journal.keep_only_consumers(&["scored".into()]).unwrap();
    let (batch, answer) = append(quiet, vec![b"quiet".to_vec()]);
    pool.journal.append(batch);
    answer.recv_timeout(PATIENCE).unwrap().unwrap();
    pool.journal.sync().unwrap();
    for _ in 0..5 {
        let range = pool.store_segment(3);
        pool.commit(Commit::at(consumer.id, range.end));
    }
    pool.journal.sync().unwrap();
    assert_eq!(pool.segments(StreamId::INPUTS), [0, 10, 13], "four records of the busy one, and the quiet one's");
    for pool in [pool.crash_image(), pool] {
        let recent = pool.journal.recent_messages(pool.input, 4).unwrap();
        assert_eq!(recent.iter().map(|m| (m.offset, m.mark)).collect::<Vec<_>>(), [(12, 3), (13, 1), (14, 2), (15, 3)]);
        assert_eq!(recent[1].payload, Bytes::from_static(b"{\"n\":0}"));
        assert_eq!(recent[1].message.name, "taxi/1/rides");
        assert_eq!(pool.journal.recent_messages(quiet, 10).unwrap().len(), 1);
        assert_eq!(pool.payloads(0), [], "they are not read again");
        assert!(verify(&pool.path).unwrap().is_good());
        pool.store_some(4);
        pool.journal.sync().unwrap();
        assert_eq!(pool.segments(StreamId::INPUTS), [0, 16]);
    }
}

#[test]
fn a_drained_pool_gives_its_pages_back() {
    let pool = Pool::with(|c| JournalConfig { recent_records: 0, ..c });
    let consumer = pool.consumer("scored", StreamId::INPUTS);
    pool.journal.keep_only_consumers(&["scored".into()]).unwrap();
    let range = pool.store((0..80).map(|i| noise(100_000, i + 1)).collect());
    let db = rusqlite::Connection::open(&pool.path).unwrap();
    let pages = || db.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)).unwrap();
    let full = pages();
    pool.commit(Commit::at(consumer.id, range.end));
    let begin = Instant::now();
    while pages() > full - 100 {
        assert!(begin.elapsed() < PATIENCE, "{} of {full} pages are left", pages());
        std::thread::yield_now();
    }
}

#[test]
fn rows_that_arrived_out_of_order_are_all_trimmed_in_the_end() {
    let clock = Clock::manual(at(100_000));
    let keep = Some(Duration::from_secs(60));
    let pool = Pool::with(|c| JournalConfig { retention: keep, clock: clock.clone(), ..c });
    let stream = pool.journal.stream("scored").unwrap();
    let writer = pool.consumer("writer", StreamId::INPUTS).id;
    let reader = pool.consumer("reader", stream).id;
    pool.journal.keep_only_consumers(&["writer".into(), "reader".into()]).unwrap();
    let emit = |ms: i64| pool.commit(Commit { emit: Some((stream, rows(ms..ms + 1))), ..Commit::at(writer, 0) });
    emit(90_000);
    pool.commit(Commit::at(reader, 1));
    assert_eq!(pool.segments(stream), [0], "younger than a minute");
    // arrived long ago, answered now
    emit(10_000);
    pool.commit(Commit::at(reader, 2));
    pool.journal.sync().unwrap();
    assert_eq!(pool.journal.ends(stream).0, 0, "the mark does not pass what is kept");
    clock.advance(Duration::from_secs(100));
    pool.journal.sync().unwrap();
    assert_eq!(pool.segments(stream), [] as [i64; 0]);
}

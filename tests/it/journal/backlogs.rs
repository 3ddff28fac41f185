//! Consumers that are too far behind are moved on, and nobody else is.

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);
const HOUR_MS: i64 = 3_600_000;

fn limited(name: &str, stream: StreamId, limits: BacklogLimits) -> ConsumerSpec {
    ConsumerSpec { on_full: OnFull::DropOldest, limits, ..spec(name, stream) }
}

fn aged() -> BacklogLimits {
    BacklogLimits { max_age: Some(HOUR), max_bytes: None }
}

/// `n` events that arrive at a time.
fn store_at(pool: &Pool, n: usize, ms: i64) -> Range<i64> {
    let (mut batch, answer) = append(pool.input, vec![b"{}".to_vec(); n]);
    batch.events.iter_mut().for_each(|event| event.arrival = at(ms));
    pool.journal.append(batch);
    answer.recv_timeout(PATIENCE).unwrap().unwrap()
}

fn skipped(pool: &Pool, consumer: &str, reason: &str) -> u64 {
    pool.journal.ledger().get(&Counter::new(Edge::Consumer, consumer, what::SKIPPED).because(reason.to_owned()))
}

fn wait_for_skipped(pool: &Pool, consumer: &str, reason: &str, n: u64) {
    let start = Instant::now();
    while skipped(pool, consumer, reason) < n {
        assert!(start.elapsed() < PATIENCE, "{consumer} is not moved");
        forebay::time::pause(Duration::from_millis(5));
    }
    assert_eq!(skipped(pool, consumer, reason), n);
}

/// What a consumer would read from an offset on.
fn left_for(pool: &Pool, consumer: &ConsumerInfo, from: i64) -> Vec<i64> {
    let mut reader = pool.journal.reader(StreamId::INPUTS, from).of(consumer.id);
    read_payloads(&mut reader).into_iter().map(|(offset, _)| offset).collect()
}

#[test]
fn records_older_than_max_age_are_dropped_for_those_that_did_not_read_them() {
    let clock = Clock::manual(at(0));
    let pool = Pool::with(|c| JournalConfig { clock: clock.clone(), ..c });
    let dead = pool.journal.register_consumer(limited("dead", StreamId::INPUTS, aged())).unwrap();
    let patient = pool.consumer("patient", StreamId::INPUTS);
    pool.journal.keep_only_consumers(&["dead".into(), "patient".into()]).unwrap();
    store_at(&pool, 3, 0);
    // these are in the file by now, the others in the redo log alone
    pool.journal.sync().unwrap();
    store_at(&pool, 2, HOUR_MS / 2);
    store_at(&pool, 4, HOUR_MS);
    clock.advance(HOUR + HOUR / 4);
    wait_for_skipped(&pool, "dead", "age", 3);
    clock.advance(HOUR / 2);
    wait_for_skipped(&pool, "dead", "age", 5);
    assert_eq!(left_for(&pool, &dead, 0), [5, 6, 7, 8], "also where another still needs the records");
    assert_eq!(left_for(&pool, &patient, 0).len(), 9);
    // what it read before it was moved it may still commit
    pool.commit(Commit::at(dead.id, 2));
    pool.commit(Commit::at(dead.id, 6));
    assert!(verify(&pool.path).unwrap().is_good());

    let image = pool.crash_image();
    let status = image.status();
    let at = |name: &str| status.consumers.iter().find(|c| c.name == name).map(|c| (c.position, c.pending));
    assert_eq!((at("dead"), at("patient")), (Some((6, 3)), Some((0, 9))));
    assert_eq!(skipped(&image, "dead", "age"), 5);
}

#[test]
fn rows_that_wait_for_an_output_grow_old_too() {
    let clock = Clock::manual(at(0));
    let pool = Pool::with(|c| JournalConfig { recent_records: 0, clock: clock.clone(), ..c });
    let results = pool.journal.stream("scored").unwrap();
    let statement = pool.consumer("statement", StreamId::INPUTS);
    pool.journal.register_consumer(limited("output", results, aged())).unwrap();
    pool.journal.keep_only_consumers(&["statement".into(), "output".into()]).unwrap();
    store_at(&pool, 1, 0);
    pool.commit(Commit { emit: Some((results, rows(0..10))), ..Commit::at(statement.id, 1) });
    clock.advance(HOUR - Duration::from_millis(1));
    pool.commit(Commit { emit: Some((results, rows(HOUR_MS..HOUR_MS + 2))), ..Commit::at(statement.id, 1) });
    assert_eq!(skipped(&pool, "output", "age"), 0);
    clock.advance(HOUR / 2);
    // what an endpoint held for long begins to wait for the output now
    pool.commit(Commit { emit: Some((results, rows(10..13))), ..Commit::at(statement.id, 1) });
    wait_for_skipped(&pool, "output", "age", 10);
    pool.journal.sync().unwrap();
    assert_eq!(row_numbers(&pool, results, 0), [HOUR_MS, HOUR_MS + 1, 10, 11, 12]);
    assert!(verify(&pool.path).unwrap().is_good());
}

#[test]
fn a_dead_output_keeps_to_its_share_and_the_others_keep_everything() {
    const SHARE: u64 = 1 << 20;
    let pool = Pool::with(|c| JournalConfig { recent_records: 0, ..c });
    let limits = BacklogLimits { max_age: None, max_bytes: Some(SHARE) };
    let dead = pool.journal.register_consumer(limited("dead", StreamId::INPUTS, limits)).unwrap();
    let alive = pool.consumer("alive", StreamId::INPUTS);
    pool.journal.keep_only_consumers(&["dead".into(), "alive".into()]).unwrap();
    for i in 0..9 {
        pool.store(vec![noise(100_000, i + 1)]);
    }
    pool.commit(Commit::at(alive.id, 3));
    for i in 9..30 {
        pool.store(vec![noise(100_000, i + 1)]);
    }
    // 30 segments of 102,445 bytes; a sixteenth of the share is free again
    wait_for_skipped(&pool, "dead", "share", 21);
    assert_eq!(left_for(&pool, &dead, 0), (21..30).collect::<Vec<_>>());
    assert_eq!(left_for(&pool, &alive, 3), (3..30).collect::<Vec<_>>());
    assert_eq!(pool.journal.ledger().sum(Edge::Consumer, "alive", what::SKIPPED), 0);
    pool.commit(Commit::at(alive.id, 30));
    pool.journal.sync().unwrap();
    assert!(pool.segments(StreamId::INPUTS).len() <= 10, "what nobody needs goes");
    assert!(verify(&pool.path).unwrap().is_good());
}

#[test]
fn at_the_budget_an_output_that_may_lose_rows_does_before_one_that_may_not_stops_intake() {
    let pool = Pool::with(|c| JournalConfig { max_bytes: 3 << 20, recent_records: 0, ..c });
    let results = pool.journal.stream("scored").unwrap();
    let statement = pool.consumer("statement", StreamId::INPUTS);
    pool.consumer("blocking", StreamId::INPUTS);
    pool.journal.register_consumer(limited("output", results, BacklogLimits::default())).unwrap();
    pool.journal.keep_only_consumers(&["statement".into(), "blocking".into(), "output".into()]).unwrap();
    // one of them holds the oldest record of all
    store_at(&pool, 1, 0);
    for i in 0..60_i64 {
        let mut batch = Batch::new(1);
        let text: String = noise(100_000, i as u64 + 1).iter().map(|byte| char::from(b' ' + byte % 90)).collect();
        batch.push(RowMeta::new(at(i), at(i + 1), 0, 0), [Value::text(text)]);
        let emit = Rows { columns: [column("text")].into(), batch };
        pool.commit(Commit { emit: Some((results, emit)), ..Commit::at(statement.id, 1) });
    }
    assert!(skipped(&pool, "output", "budget") > 10);
    assert_eq!(pool.journal.ledger().sum(Edge::Consumer, "blocking", what::SKIPPED), 0);
    assert!(verify(&pool.path).unwrap().is_good());
}

/// Records that a consumer has in hand although it was moved past them.
fn in_hand(pool: &Pool, consumer: &str) -> u64 {
    pool.journal.ledger().in_hand(consumer)
}

fn read_by(pool: &Pool, consumer: &str) -> u64 {
    pool.journal.ledger().sum(Edge::Consumer, consumer, what::READ)
}

#[test]
fn what_a_consumer_had_in_hand_when_it_was_moved_on_is_read_or_skipped_and_never_both() {
    for commits in [true, false] {
        let clock = Clock::manual(at(0));
        let pool = Pool::with(|c| JournalConfig { clock: clock.clone(), ..c });
        let slow = pool.journal.register_consumer(limited("slow", StreamId::INPUTS, aged())).unwrap();
        pool.journal.keep_only_consumers(&["slow".into()]).unwrap();
        store_at(&pool, 3, 0);
        store_at(&pool, 4, 0);
        let mut reader = pool.journal.reader(StreamId::INPUTS, 0).of(slow.id);
        assert!(matches!(reader.next(2, Instant::now()).unwrap(), Read::Events(slice) if slice.len() == 2));
        clock.advance(HOUR + HOUR / 4);
        // the third was in memory beside the two, and was not handed out
        wait_for_skipped(&pool, "slow", "age", 5);
        assert_eq!((in_hand(&pool, "slow"), read_by(&pool, "slow")), (2, 0));
        assert!(verify(&pool.path).unwrap().is_good());
        assert_eq!(read_payloads(&mut reader), [], "what is dropped is not handed out");
        store_at(&pool, 1, HOUR_MS);
        assert_eq!(read_payloads(&mut reader).len(), 1);
        if commits {
            pool.commit(Commit::at(slow.id, 1));
            assert_eq!((in_hand(&pool, "slow"), read_by(&pool, "slow")), (1, 1));
            pool.commit(Commit::at(slow.id, 8));
            assert_eq!((in_hand(&pool, "slow"), read_by(&pool, "slow")), (0, 3));
            assert_eq!(skipped(&pool, "slow", "age"), 5);
            assert!(verify(&pool.path).unwrap().is_good());
            continue;
        }
        let again = pool.crash_image();
        assert_eq!(in_hand(&again, "slow"), 2);
        again.journal.register_consumer(limited("slow", StreamId::INPUTS, aged())).unwrap();
        again.journal.keep_only_consumers(&["slow".into()]).unwrap();
        assert_eq!((in_hand(&again, "slow"), read_by(&again, "slow")), (0, 0));
        assert_eq!(skipped(&again, "slow", "age"), 7, "nobody has them any more");
        assert!(verify(&again.path).unwrap().is_good());
        again.journal.keep_only_consumers(&[]).unwrap();
        assert!(verify(&again.path).unwrap().is_good(), "also when the consumer is removed");
    }
}

#[test]
fn a_budget_that_is_used_up_drops_nothing_that_is_in_hand() {
    let pool = Pool::with(|c| JournalConfig { max_bytes: 3 << 20, recent_records: 0, ..c });
    let slow = ConsumerSpec { on_full: OnFull::DropOldest, ..spec("slow", StreamId::INPUTS) };
    let slow = pool.journal.register_consumer(slow).unwrap();
    pool.journal.keep_only_consumers(&["slow".into()]).unwrap();
    let mut reader = pool.journal.reader(StreamId::INPUTS, 0).of(slow.id);
    let mut handed = 0;
    for i in 0..60 {
        pool.store(vec![noise(100_000, i + 1)]);
        if i % 20 == 3
            && let Read::Events(slice) = reader.next(1, Instant::now()).unwrap()
        {
            handed += slice.len() as u64;
        }
    }
    let position = reader.position();
    pool.commit(Commit::at(slow.id, position));
    let ledger = pool.journal.ledger();
    assert_eq!((read_by(&pool, "slow"), in_hand(&pool, "slow")), (handed, 0));
    assert!(handed == 3 && ledger.sum(Edge::Consumer, "slow", what::SETTLED) > 0, "{handed}");
    assert!(verify(&pool.path).unwrap().is_good());
}

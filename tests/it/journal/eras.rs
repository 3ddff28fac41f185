//! Arrival time that is set back, as the pool keeps it.

use forebay::arrival::{ArrivalClock, Eras};

use super::*;

fn unix(ms: i64) -> Timestamp {
    Timestamp::from_unix_millis(ms)
}

/// Stores one event an append, at these milliseconds.
fn store_at(pool: &Pool, era: u32, times: &[i64]) {
    for ms in times {
        let (mut batch, answer) = append(pool.input, Vec::new());
        let payload = Bytes::from(format!("{{\"n\":{ms}}}"));
        batch.events = vec![RawEvent { arrival: unix(*ms), payload, message: Arc::default(), mark: 0 }];
        (batch.received, batch.era) = (1, era);
        pool.journal.append(batch);
        answer.recv_timeout(PATIENCE).unwrap().unwrap();
    }
}

fn arrivals(pool: &Pool) -> Vec<i64> {
    let mut reader = pool.journal.reader(StreamId::INPUTS, 0);
    let mut found = Vec::new();
    while let Read::Events(slice) = reader.next_now(100).unwrap() {
        found.extend(slice.events().map(|event| event.arrival.unix_millis()));
    }
    found
}

/// A clock that was a year ahead, and is right since a minute; stores that an era began.
fn set_back(pool: &Pool, clock: &Clock, arrival: &ArrivalClock, right: i64) -> Eras {
    clock.set(unix(right));
    arrival.now();
    clock.advance(Duration::from_secs(60));
    let way = arrival.way_back().unwrap();
    let eras = pool.journal.begin_era(way.clone()).unwrap();
    arrival.begin_era(&way, eras.clone());
    eras
}

#[test]
fn arrival_goes_back_where_an_era_begins_and_nowhere_else() {
    let pool = Pool::new();
    let reader = pool.consumer("reader", StreamId::INPUTS).id;
    let clock = Clock::manual(unix(1_800_000_000_000));
    let arrival = ArrivalClock::of_pool(clock.clone(), unix(1_790_000_000_000), Eras::default(), 1);
    let eras = arrival.unsaved_eras().unwrap();
    pool.journal.keep_eras(eras.clone()).unwrap();
    arrival.saved(&eras);
    store_at(&pool, 0, &[1_800_000_000_000, 1_800_000_000_500]);
    let eras = set_back(&pool, &clock, &arrival, 1_790_500_000_000);
    assert_eq!((eras.number(), eras.behind(0).collect::<Vec<_>>()), (1, vec![(2, 1)]));
    assert_eq!(pool.journal.last_arrival(), unix(1_790_500_060_000));
    // stamped before, stored behind; then by the right clock
    store_at(&pool, 0, &[1_800_000_000_900]);
    store_at(&pool, 1, &[1_790_500_061_000, 1_790_500_060_500]);
    // a part that had let time pass before says nothing of the present
    let commit = |era, ms| Commit { era, reached: unix(ms), ..Commit::at(reader, 0) };
    pool.journal.commit(commit(0, 1_800_000_000_400)).wait().unwrap();
    pool.journal.commit(commit(1, 1_790_500_062_000)).wait().unwrap();
    // nor does a row of the earlier era that a part of the present one has read
    pool.journal.commit(commit(1, 1_800_000_000_300)).wait().unwrap();
    let mut both = commit(1, 1_790_500_062_000);
    both.then(commit(0, 1_800_000_000_300));
    assert_eq!((both.era, both.reached), (1, unix(1_790_500_062_000)), "answers came in another order");
    let expected =
        [1_800_000_000_000, 1_800_000_000_500, 1_790_500_060_000, 1_790_500_061_000, 1_790_500_061_000].to_vec();
    assert_eq!(arrivals(&pool), expected);
    let pool = pool.reopen();
    assert_eq!((&*pool.journal.eras(), pool.journal.last_arrival()), (&eras, unix(1_790_500_062_000)));
    store_at(&pool, 1, &[1_790_500_061_000]);
    assert_eq!(arrivals(&pool), [expected, vec![1_790_500_062_000]].concat());
    assert!(verify(&pool.path).unwrap().is_good());
}

#[test]
fn what_a_wrong_clock_stamped_is_kept_no_longer_than_other_records() {
    const WRONG: i64 = 1_800_000_000_000;
    const RIGHT: i64 = 1_790_500_000_000;
    let hour = Duration::from_secs(3_600);
    for (retention, max_age) in [(Some(hour), None), (None, Some(hour))] {
        let clock = Clock::manual(unix(WRONG));
        let pool = Pool::with(|c| JournalConfig { recent_records: 0, retention, clock: clock.clone(), ..c });
        let stream = pool.journal.stream("rows").unwrap();
        let limits = BacklogLimits { max_age, max_bytes: None };
        let register = |name: &str, stream, limits| {
            pool.journal.register_consumer(ConsumerSpec { limits, ..spec(name, stream) }).unwrap().id
        };
        let writer = register("writer", StreamId::INPUTS, BacklogLimits::default());
        let readers = [register("inputs", StreamId::INPUTS, limits), register("rows", stream, limits)];
        pool.journal.keep_only_consumers(&["writer".into(), "inputs".into(), "rows".into()]).unwrap();
        let arrival = ArrivalClock::of_pool(clock.clone(), unix(RIGHT), Eras::default(), 1);
        let emit = |ms: i64, to: i64| {
            let mut batch = Batch::new(2);
            batch.push(RowMeta::new(unix(ms), unix(ms), to, 0), [Value::BigInt(to), Value::text("row")]);
            let rows = Rows { columns: [column("n"), column("text")].into(), batch };
            pool.commit(Commit { emit: Some((stream, rows)), era: u32::MAX, ..Commit::at(writer, to) });
        };
        store_at(&pool, 0, &[WRONG, WRONG + 1_000]);
        emit(WRONG, 2);
        // as segments of the file, and of the redo log
        pool.journal.sync().unwrap();
        store_at(&pool, 0, &[WRONG + 2_000]);
        emit(WRONG, 3);
        clock.advance(Duration::from_secs(5));
        set_back(&pool, &clock, &arrival, RIGHT);
        let now = || clock.now().unix_millis();
        store_at(&pool, 1, &[now(), now() + 10]);
        // a row of the time before that came late, and one of the present
        emit(WRONG + 2_000, 4);
        emit(now(), 5);
        pool.journal.sync().unwrap();
        if retention.is_some() {
            pool.commit(Commit::at(readers[0], 5));
            pool.commit(Commit::at(readers[1], 4));
        }
        clock.advance(hour - Duration::from_secs(61));
        pool.journal.sync().unwrap();
        let skipped = |name: &'static str| {
            pool.journal.ledger().get(&Counter::new(Edge::Consumer, name, what::SKIPPED).because("age"))
        };
        assert_eq!((pool.segments(StreamId::INPUTS)[0], skipped("inputs")), (0, 0), "younger than an hour");
        clock.advance(Duration::from_secs(180));
        let begin = Instant::now();
        let left = || [pool.segments(StreamId::INPUTS), pool.segments(stream)].concat();
        while !left().is_empty() {
            assert!(begin.elapsed() < PATIENCE, "{retention:?} {max_age:?}: {:?} are left", left());
            forebay::time::pause(Duration::from_millis(20));
        }
        if max_age.is_some() {
            assert_eq!((skipped("inputs"), skipped("rows")), (5, 4));
        }
        assert!(verify(&pool.path).unwrap().is_good());
    }
}

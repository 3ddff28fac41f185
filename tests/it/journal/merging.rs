//! What came slowly takes as little room as what came fast, and reads the same.

use proptest::prelude::*;

use super::*;

/// An event as a fleet sends it.
fn ride(n: i64) -> Vec<u8> {
    let (weekday, hour) = (["Mon", "Tue", "Wed"][(n % 3) as usize], n / 3_600 % 24);
    format!(
        "{{\"rideId\":\"r-{n}\",\"deviceId\":\"taxi-{}\",\"weekday\":\"{weekday}\",\"pickuphour\":{hour},\
         \"passenger\":{},\"distance\":{}.{},\"time\":\"2026-05-01T{hour:02}:{:02}:{:02}Z\"}}",
        n * 7 % 50,
        n % 4 + 1,
        n * 31 % 17,
        n * 13 % 10,
        n / 60 % 60,
        n % 60
    )
    .into_bytes()
}

/// Pages of the file that hold something, in bytes.
fn used(path: &Path) -> i64 {
    let db = rusqlite::Connection::open(path).unwrap();
    let number = |what: &str| db.query_row(&format!("PRAGMA {what}"), [], |row| row.get::<_, i64>(0)).unwrap();
    (number("page_count") - number("freelist_count")) * number("page_size")
}

/// Some events in checkpoints of this size; nobody reads meanwhile.
fn stored(events: i64, at_once: usize) -> (Pool, i64) {
    let pool = Pool::new();
    let reader = pool.consumer("slow", StreamId::INPUTS);
    pool.journal.keep_only_consumers(&["slow".into()]).unwrap();
    let empty = used(&pool.path);
    let all: Vec<i64> = (0..events).collect();
    for some in all.chunks(at_once) {
        pool.store(some.iter().map(|n| ride(*n)).collect());
        pool.journal.sync().unwrap();
    }
    assert_eq!(reader.position, 0);
    let used = used(&pool.path) - empty;
    (pool, used)
}

#[test]
fn a_day_at_one_event_a_second_takes_as_much_room_as_one_at_full_speed() {
    const EVENTS: i64 = 86_400;
    let (slow, slow_used) = stored(EVENTS, 60);
    let (_, fast_used) = stored(EVENTS, 4_000);
    let ratio = slow_used as f64 / fast_used as f64;
    println!("{slow_used} bytes and {fast_used} bytes: {ratio:.2}");
    assert!(ratio < 1.2, "{slow_used} bytes and {fast_used} bytes: {ratio:.2}");
    let segments = slow.segments(StreamId::INPUTS).len();
    assert!(segments < 100, "{segments} segments");
    let read = slow.payloads(0);
    assert_eq!(read.len() as i64, EVENTS);
    for (n, (offset, payload)) in read.into_iter().enumerate() {
        assert_eq!((offset, payload), (n as i64, ride(n as i64)));
    }
    // from the middle of a segment, after a crash too
    let image = slow.crash_image();
    assert_eq!(image.payloads(50_001)[0], (50_001, ride(50_001)));
    assert!(verify(&image.path).unwrap().is_good());
}

#[test]
fn redeliveries_are_known_in_merged_segments_and_read_ones_go() {
    let pool = Pool::with(|c| JournalConfig { recent_records: 5_000, ..c });
    let info = pool.consumer("slow", StreamId::INPUTS);
    pool.journal.keep_only_consumers(&["slow".into()]).unwrap();
    for n in 0..100 {
        pool.store((0..60).map(|i| ride(n * 60 + i)).collect());
        pool.journal.sync().unwrap();
    }
    let segments = pool.segments(StreamId::INPUTS);
    assert_eq!(segments[..2], [0, 4_080], "68 checkpoints make a segment");
    let recent = |pool: &Pool| {
        let mut recent: Vec<i64> = pool
            .journal
            .recent_messages(pool.input, usize::MAX)
            .unwrap()
            .iter()
            .map(|message| message.offset)
            .collect();
        recent.sort_unstable();
        recent
    };
    let known = recent(&pool);
    assert_eq!(known.last(), Some(&5_999));
    assert!(known.len() >= 5_000 && known.windows(2).all(|pair| pair[1] == pair[0] + 1), "{}", known.len());
    pool.commit(Commit::at(info.id, 6_000));
    pool.journal.sync().unwrap();
    assert_eq!(recent(&pool), known);
    let pool = pool.reopen();
    assert_eq!(recent(&pool), known);
    // what is read and leaves the window goes
    for n in 0..100 {
        pool.store((0..60).map(|i| ride(n * 60 + i)).collect());
        pool.commit(Commit::at(info.id, 6_000 + (n + 1) * 60));
        pool.journal.sync().unwrap();
    }
    let kept = pool.segments(StreamId::INPUTS);
    assert!(kept[0] > 4_080, "{kept:?}");
    assert!(verify(&pool.path).unwrap().is_good());
}

#[test]
fn a_reader_inside_of_what_is_joined_goes_on_where_it_was() {
    let pool = Pool::new();
    let (slow, quick) = (pool.consumer("slow", StreamId::INPUTS), pool.consumer("quick", StreamId::INPUTS));
    pool.journal.keep_only_consumers(&["slow".into(), "quick".into()]).unwrap();
    let mut reader = pool.journal.reader(StreamId::INPUTS, quick.position);
    let mut seen = Vec::new();
    let mut read = |upto: i64| {
        while seen.last().is_none_or(|(offset, _)| *offset < upto) {
            seen.extend(read_payloads(&mut reader));
        }
        seen.len() as i64
    };
    for n in 0..100 {
        pool.store((0..60).map(|i| ride(n * 60 + i)).collect());
        pool.journal.sync().unwrap();
        // the quick one stops in the middle of the run that is joined at the 68th checkpoint
        if n == 30 {
            assert_eq!(read(30 * 60), 31 * 60);
            pool.commit(Commit::at(quick.id, 30 * 60 + 7));
        }
    }
    assert_eq!(pool.segments(StreamId::INPUTS)[..2], [0, 4_080], "joined");
    assert_eq!(read(5_999), 6_000);
    assert!(seen.iter().enumerate().all(|(n, (offset, payload))| (*offset, payload) == (n as i64, &ride(n as i64))));
    // and so does one that starts anew from its position
    let pool = pool.reopen();
    let again = pool.consumer("quick", StreamId::INPUTS);
    let payloads = pool.payloads(again.position);
    assert_eq!((payloads.len(), payloads[0].0), (6_000 - 1_807, 1_807));
    assert_eq!(pool.payloads(slow.position).len(), 6_000);
    assert!(verify(&pool.path).unwrap().is_good());
}

/// Appends of these inputs, one event each, in one checkpoint; the first event has this number.
fn store_by_turns(pool: &Pool, inputs: impl IntoIterator<Item = InputId>, first: i64) {
    let answers: Vec<_> = inputs
        .into_iter()
        .zip(first..)
        .map(|(input, n)| {
            let (batch, answer) = append(input, vec![ride(n)]);
            pool.journal.append(batch);
            answer
        })
        .collect();
    for answer in answers {
        answer.recv_timeout(PATIENCE).unwrap().unwrap();
    }
    pool.journal.sync().unwrap();
}

/// What a reader of some inputs is told, and in how many slices.
fn told(pool: &Pool, inputs: &[InputId], from: i64, most: usize) -> (Vec<(i64, InputId, Vec<u8>)>, usize) {
    let mut reader = pool.journal.reader(StreamId::INPUTS, from).only(inputs);
    let (mut found, mut slices) = (Vec::new(), 0);
    let (_, end) = pool.journal.ends(StreamId::INPUTS);
    while reader.position() < end {
        match reader.next(most, Instant::now()).unwrap() {
            Read::Events(slice) => {
                slices += 1;
                assert!(slice.end() == reader.position() && slice.len() <= most);
                assert_eq!(slice.iter().next().unwrap().offset, slice.first());
                assert!(slice.iter().all(|event| event.input == slice.input() && event.offset < slice.end()));
                found.extend(slice.iter().map(|e| (e.offset, InputId(e.input), e.payload.to_vec())));
            }
            Read::Idle | Read::Passed => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    (found, slices)
}

/// Twelve hours of two inputs at an event a second each; a week has fourteen times as many full segments, and they are
/// like these.
#[test]
fn two_inputs_by_turns_take_as_much_room_as_each_stored_fast() {
    const EVENTS: i64 = 86_400;
    let empty = |pool: &Pool| {
        pool.consumer("slow", StreamId::INPUTS);
        pool.journal.keep_only_consumers(&["slow".into()]).unwrap();
        ([pool.input, pool.journal.input("zones").unwrap()], used(&pool.path))
    };
    let slow = Pool::new();
    let (inputs, before) = empty(&slow);
    for first in (0..EVENTS).step_by(120) {
        store_by_turns(&slow, inputs.into_iter().cycle().take(120), first);
    }
    let slow_used = used(&slow.path) - before;
    let fast = Pool::new();
    let (fast_inputs, before) = empty(&fast);
    for first in (0..EVENTS).step_by(8_000) {
        for (turn, input) in fast_inputs.into_iter().enumerate() {
            let own = (first..EVENTS.min(first + 8_000)).skip(turn).step_by(2).map(ride);
            let (batch, answer) = append(input, own.collect());
            fast.journal.append(batch);
            answer.recv_timeout(PATIENCE).unwrap().unwrap();
            fast.journal.sync().unwrap();
        }
    }
    let fast_used = used(&fast.path) - before;
    let ratio = slow_used as f64 / fast_used as f64;
    println!("{slow_used} bytes and {fast_used} bytes: {ratio:.2}");
    assert!(ratio < 1.2, "{slow_used} bytes and {fast_used} bytes: {ratio:.2}");
    let segments = slow.segments(StreamId::INPUTS).len();
    assert!(segments < 100, "{segments} segments");
    // what is in memory is not merged
    let slow = slow.reopen();
    for (turn, input) in inputs.into_iter().enumerate() {
        let (read, slices) = told(&slow, &[input], 0, usize::MAX);
        assert!(slices <= segments, "{slices} slices of {segments} segments");
        let own = (0..EVENTS).skip(turn).step_by(2).map(|n| (n, input, ride(n)));
        assert!(read.into_iter().eq(own), "input {input:?}");
    }
    // from the middle of a segment, after a crash too
    let image = slow.crash_image();
    let both = (50_001..EVENTS).map(|n| (n, inputs[(n % 2) as usize], ride(n)));
    assert!(told(&image, &inputs, 50_001, usize::MAX).0.into_iter().eq(both));
    assert!(verify(&image.path).unwrap().is_good());
}

#[test]
fn a_gateway_that_starts_anew_every_hundred_events_merges_too() {
    let mut pool = Pool::new();
    for start in 0..100 {
        let inputs = [pool.input, pool.journal.input("zones").unwrap()];
        pool.consumer("slow", StreamId::INPUTS);
        pool.journal.keep_only_consumers(&["slow".into()]).unwrap();
        for half in 0..2 {
            store_by_turns(&pool, inputs.into_iter().cycle().take(50), start * 100 + half * 50);
        }
        pool = if start % 3 == 0 { pool.crash_image() } else { pool.reopen() };
    }
    let segments = pool.segments(StreamId::INPUTS);
    let full: Vec<i64> = segments.windows(2).map(|pair| pair[1] - pair[0]).filter(|records| *records > 4_000).collect();
    assert!(full.len() == 2 && segments.len() < 50, "{segments:?}");
    let all: Vec<_> = pool.payloads(0);
    assert!(all.into_iter().eq((0..10_000).map(|n| (n, ride(n)))));
    assert!(verify(&pool.path).unwrap().is_good());
}

/// Checkpoints of 60 events, a second apart.
fn store_minute(pool: &Pool, minute: i64) -> Range<i64> {
    let (mut batch, answer) = append(pool.input, (0..60).map(|n| ride(minute * 60 + n)).collect());
    batch.events.iter_mut().zip(minute * 60..).for_each(|(event, second)| event.arrival = at(second * 1_000));
    pool.journal.append(batch);
    let range = answer.recv_timeout(PATIENCE).unwrap().unwrap();
    pool.journal.sync().unwrap();
    range
}

#[test]
fn what_is_kept_for_a_while_is_merged_and_goes_when_it_is_old() {
    const DAY: Duration = Duration::from_secs(86_400);
    let clock = Clock::manual(at(0));
    let pool = Pool::with(|c| JournalConfig { recent_records: 0, retention: Some(DAY), clock: clock.clone(), ..c });
    let info = pool.consumer("quick", StreamId::INPUTS);
    pool.journal.keep_only_consumers(&["quick".into()]).unwrap();
    for minute in 0..100 {
        let range = store_minute(&pool, minute);
        pool.commit(Commit::at(info.id, range.end));
        clock.advance(Duration::from_secs(60));
    }
    assert_eq!(pool.segments(StreamId::INPUTS)[..3], [0, 60, 4_140], "everybody has read it");
    assert!(pool.payloads(0).into_iter().eq((0..6_000).map(|n| (n, ride(n)))));
    // a day after its newest record a segment goes
    clock.advance(DAY - Duration::from_secs(6_000 - 4_139));
    pool.journal.sync().unwrap();
    assert_eq!(pool.segments(StreamId::INPUTS)[0], 60);
    clock.advance(Duration::from_secs(1));
    pool.journal.sync().unwrap();
    assert_eq!(pool.segments(StreamId::INPUTS)[0], 4_140);
    assert!(verify(&pool.path).unwrap().is_good());
}

#[test]
fn a_segment_holds_a_sixteenth_of_the_age_that_its_records_may_have() {
    let clock = Clock::manual(at(0));
    let age = Duration::from_secs(16 * 1_200);
    let pool = Pool::with(|c| JournalConfig { clock: clock.clone(), ..c });
    let limits = BacklogLimits { max_age: Some(age), max_bytes: None };
    let dead = pool.journal.register_consumer(ConsumerSpec { limits, ..spec("dead", StreamId::INPUTS) }).unwrap();
    pool.journal.keep_only_consumers(&["dead".into()]).unwrap();
    for minute in 0..100 {
        store_minute(&pool, minute);
    }
    let segments = pool.segments(StreamId::INPUTS);
    assert_eq!(segments[..4], [0, 60, 1_260, 2_460], "1,200 s; nobody knows since when the first one's came");
    clock.advance(age + Duration::from_secs(1_300));
    let skipped = Counter::new(Edge::Consumer, "dead", what::SKIPPED).because("age");
    let begin = Instant::now();
    while pool.journal.ledger().get(&skipped) < 1_260 {
        assert!(begin.elapsed() < PATIENCE, "nothing is dropped");
        forebay::time::pause(Duration::from_millis(5));
    }
    let mut reader = pool.journal.reader(StreamId::INPUTS, 0).of(dead.id);
    assert_eq!(read_payloads(&mut reader)[0].0, 1_260);
    assert!(verify(&pool.path).unwrap().is_good());
}

#[test]
fn redeliveries_of_each_input_are_known_in_mixed_segments() {
    let pool = Pool::with(|c| JournalConfig { recent_records: 40, ..c });
    let (rides, zones, quiet) =
        (pool.input, pool.journal.input("zones").unwrap(), pool.journal.input("quiet").unwrap());
    let info = pool.consumer("slow", StreamId::INPUTS);
    pool.journal.keep_only_consumers(&["slow".into()]).unwrap();
    let turns = |n: usize| [rides, zones].into_iter().cycle().take(n);
    store_by_turns(&pool, turns(30).chain([quiet]).chain(turns(30)), 0);
    for n in 0..5 {
        store_by_turns(&pool, turns(60), 61 + n * 60);
    }
    let recent = |pool: &Pool, input: InputId| -> Vec<(i64, Bytes)> {
        let messages = pool.journal.recent_messages(input, 40).unwrap();
        messages.into_iter().map(|message| (message.offset, message.payload)).collect()
    };
    let known = |pool: &Pool| [rides, zones, quiet].map(|input| recent(pool, input));
    let expected = |first: i64| -> Vec<(i64, Bytes)> {
        (0..40).map(|i| first + 2 * i).map(|n| (n, Bytes::from(ride(n)))).collect()
    };
    let all = [expected(281), expected(282), vec![(30, Bytes::from(ride(30)))]];
    assert_eq!(known(&pool), all);
    let pool = pool.reopen();
    assert_eq!(known(&pool), all);
    pool.commit(Commit::at(info.id, 361));
    pool.journal.keep_only_consumers(&["slow".into()]).unwrap();
    (0..4).for_each(|_| pool.journal.sync().unwrap());
    assert_eq!(pool.payloads(0), []);
    assert_eq!(pool.segments(StreamId::INPUTS), [0, 241, 301], "the quiet one's record lies among others");
    for pool in [pool.crash_image(), pool] {
        assert_eq!(known(&pool), all);
        assert!(verify(&pool.path).unwrap().is_good());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// One journal merges, the other holds the same events as they came, in its redo log.
    #[test]
    fn whoever_reads_is_told_the_same_of_what_is_merged(
        turns in prop::collection::vec((0usize..4, 1usize..30, prop::bool::weighted(0.2)), 1..80),
        wanted in prop::collection::vec(any::<bool>(), 4),
        most in 1usize..50,
        from in 0i64..400,
        reads_to in prop::option::of(0i64..200),
    ) {
        let pools = [Pool::new(), Pool::with(|c| JournalConfig { tail_bytes_max: 0, ..c })];
        let inputs = ["rides", "b", "c", "d"];
        let mut told_by: Vec<Vec<_>> = Vec::new();
        for (merges, pool) in [true, false].into_iter().zip(pools) {
            let inputs = inputs.map(|name| pool.journal.input(name).unwrap());
            let wanted = inputs.into_iter().zip(&wanted).filter_map(|(id, is)| is.then_some(id));
            let wanted: Vec<InputId> = wanted.collect();
            let info = pool.consumer("slow", StreamId::INPUTS);
            pool.journal.keep_only_consumers(&["slow".into()]).unwrap();
            let mut next = 0;
            for (input, n, has_checkpoint) in &turns {
                let (mut batch, answer) = append(inputs[*input], (next..).take(*n).map(ride).collect());
                for (event, n) in batch.events.iter_mut().zip(next..) {
                    (event.arrival, event.mark) = (at(n), n as u64);
                }
                pool.journal.append(batch);
                next = answer.recv_timeout(PATIENCE).unwrap().unwrap().end;
                if merges && *has_checkpoint {
                    pool.journal.sync().unwrap();
                }
            }
            let position = reads_to.unwrap_or(0).min(next);
            pool.commit(Commit::at(info.id, position));
            let from = from.max(position).min(next);
            let mut images = vec![pool.crash_image()];
            images.push(if merges { pool.reopen() } else { pool });
            for pool in images {
                let mut reader = pool.journal.reader(StreamId::INPUTS, from).only(&wanted);
                let mut found = Vec::new();
                while reader.position() < next {
                    match reader.next(most, Instant::now()).unwrap() {
                        Read::Events(slice) => found.extend(slice.iter().map(|e| {
                            (e.offset, e.input, e.arrival, e.mark, e.message.clone(), e.payload.to_vec())
                        })),
                        Read::Idle | Read::Passed => {}
                        other => panic!("unexpected {other:?}"),
                    }
                }
                prop_assert_eq!(reader.position(), next);
                prop_assert!(verify(&pool.path).unwrap().is_good());
                told_by.push(found);
            }
        }
        prop_assert!(told_by.windows(2).all(|pair| pair[0] == pair[1]), "{:?}", told_by);
        let wants: Vec<bool> = turns.iter().flat_map(|(input, n, _)| vec![wanted[*input]; *n]).collect();
        let first = from.max(reads_to.unwrap_or(0).min(wants.len() as i64)).min(wants.len() as i64) as usize;
        prop_assert_eq!(told_by[0].len(), wants[first..].iter().filter(|wanted| **wanted).count());
    }
}

//! What came slowly takes as little room as what came fast, and reads the same.

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

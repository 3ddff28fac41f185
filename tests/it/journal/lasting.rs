//! How long the pool lasts if nobody reads.

use super::*;

/// A pool that got 50 events of a device at a time, each in a commit of its own, and the sizes learned of them.
fn fed(is_read: bool) -> (Pool, Sizes) {
    let pool = Pool::with(|c| JournalConfig { recent_records: 0, ..c });
    let consumer = pool.consumer("scored", StreamId::INPUTS);
    pool.journal.keep_only_consumers(&["scored".into()]).unwrap();
    for round in 0..6 {
        for i in 0..50 {
            let n = round * 50 + i;
            let event = format!(
                "{{\"deviceId\":\"device-{}\",\"n\":{n},\"temperature\":{}.{},\"status\":\"ok\"}}",
                n % 7,
                n % 31,
                n * 7919 % 1000
            );
            pool.store(vec![event.into_bytes()]);
        }
        if is_read {
            pool.commit(Commit::at(consumer.id, pool.journal.ends(StreamId::INPUTS).1));
        }
        // a checkpoint
        pool.journal.sync().unwrap();
    }
    let sizes = pool.status().growth.streams[0].sizes;
    (pool, sizes)
}

#[test]
fn what_is_read_before_it_is_written_counts_as_if_nobody_read() {
    let (read, sizes) = fed(true);
    assert_eq!(read.segments(StreamId::INPUTS), [] as [i64; 0]);
    let (unread, filled) = fed(false);
    let segments = unread.segments(StreamId::INPUTS).len();
    assert!((6..12).contains(&segments), "{segments}");
    assert_eq!(sizes.raw, filled.raw, "both had the same events");
    assert!(sizes.stored.abs_diff(filled.stored) * 10 < filled.stored, "{sizes:?} and {filled:?}");
    assert!(sizes.stored * 2 < sizes.raw, "compression counts: {sizes:?}");
}

#[test]
fn the_time_that_is_left_is_told_inside_and_outside_of_the_process_and_after_a_restart() {
    let (pool, _) = fed(false);
    let status = pool.status();
    let (left, room) = (status.left.unwrap(), status.room.unwrap());
    assert_eq!((left.room, left.a_day), (room, status.growth.a_day()));
    assert!(room.bytes <= pool.config.max_bytes - status.used_bytes && left.a_day > 0);
    assert_eq!(left.seconds, (u128::from(room.bytes) * 86_400 / u128::from(left.a_day)) as u64);

    let outside = JournalStatus::open_readonly(&pool.path).unwrap();
    assert_eq!((outside.room, outside.left), (None, None), "the budget is not in the file");
    let outside = outside.with_room(64 << 20);
    assert!(outside.left.unwrap().room.bytes < 64 << 20);
    let pool = pool.reopen();
    assert_eq!(pool.status().growth, outside.growth, "until something comes");
}

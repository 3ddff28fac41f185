//! Readers see every record once and in order, from memory, from the redo log and from the file.

use super::*;

#[test]
fn memory_and_disk_give_the_same_records() {
    let pool = Pool::with(|c| JournalConfig { tail_bytes_max: 2_000, ..c });
    let other = pool.journal.input("zones").unwrap();
    let stream = pool.journal.stream("scored").unwrap();
    let consumer = pool.consumer("scored", StreamId::INPUTS);
    for i in 0..30 {
        pool.store_some(i % 5 + 1);
        let (batch, answer) = append(other, vec![format!("{{\"zone\":{i}}}").into_bytes()]);
        pool.journal.append(batch);
        answer.recv_timeout(PATIENCE).unwrap().unwrap();
        pool.commit(Commit {
            emit: Some((stream, rows(i as i64 * 3..i as i64 * 3 + 3))),
            ..Commit::at(consumer.id, i as i64)
        });
    }
    let live = pool.status().live.unwrap();
    assert!(live.tail_bytes > 0 && live.tail_bytes <= 2_000, "{live:?}");
    let (_, end) = pool.journal.ends(StreamId::INPUTS);
    // from far behind the tail into it, from inside segments, and from the end
    let all = pool.payloads(0);
    assert_eq!(all.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), (0..end).collect::<Vec<_>>());
    for from in 0..=end {
        assert_eq!(pool.payloads(from), all[from as usize..]);
    }
    let of_input = |input| read_payloads(&mut pool.journal.reader(StreamId::INPUTS, 0).only(&[input]));
    let (rides, zones) = (of_input(pool.input), of_input(other));
    assert_eq!(zones.len(), 30);
    let mut merged = [rides, zones].concat();
    merged.sort();
    assert_eq!(merged, all);
    let numbers = row_numbers(&pool, stream, 0);
    assert_eq!(numbers, (0..90).collect::<Vec<_>>());
    let pool = pool.reopen();
    assert_eq!(pool.payloads(0), all);
    assert_eq!(row_numbers(&pool, stream, 0), numbers);
}

#[test]
fn a_reader_of_one_input_moves_past_the_others() {
    let pool = Pool::new();
    let quiet = pool.journal.input("quiet").unwrap();
    pool.store_some(10);
    for pool in [pool.crash_image(), pool] {
        let mut reader = pool.journal.reader(StreamId::INPUTS, 0).only(&[quiet]);
        while reader.position() < 10 {
            assert!(matches!(reader.next(10, Instant::now()).unwrap(), Read::Idle));
        }
        assert_eq!(reader.position(), 10);
    }
}

#[test]
fn large_appends_become_segments_of_bounded_size() {
    let pool = Pool::new();
    let payload = |i: usize| vec![b'0' + (i % 10) as u8; 700_000];
    assert_eq!(pool.store((0..4).map(payload).collect()), 0..4);
    assert_eq!(pool.store_some(10_000), 4..10_004);
    let status = pool.status();
    assert_eq!((status.streams[0].segments, status.streams[0].records), (4 + 3, 10_004));
    let pool = pool.reopen();
    let read = pool.payloads(0);
    assert_eq!(read.len(), 10_004);
    assert!((0..4).all(|i| read[i].1 == payload(i)));
}

#[test]
fn a_waiting_reader_gets_what_comes_and_can_be_woken() {
    let pool = Pool::new();
    std::thread::scope(|scope| {
        let mut reader = pool.journal.reader(StreamId::INPUTS, 0);
        let waiting = scope.spawn(move || {
            let Ok(Read::Events(slice)) = reader.next(10, Instant::now() + PATIENCE) else { panic!("nothing came") };
            (slice.len(), reader)
        });
        pool.store_some(1);
        let (found, mut reader) = waiting.join().unwrap();
        assert_eq!(found, 1);
        let begin = Instant::now();
        let waiting = scope.spawn(move || reader.next(10, Instant::now() + PATIENCE).map(|read| (read, reader)));
        while !waiting.is_finished() {
            pool.journal.wake_readers();
            std::thread::yield_now();
        }
        let (read, mut reader) = waiting.join().unwrap().unwrap();
        assert!(matches!(read, Read::Idle) && begin.elapsed() < PATIENCE);
        let waiting = scope.spawn(move || reader.next(10, Instant::now() + PATIENCE));
        pool.journal.close();
        assert!(matches!(waiting.join().unwrap(), Ok(Read::Closed)));
    });
}

#[test]
fn many_writers_and_readers_see_one_order() {
    const WRITERS: usize = 4;
    const BATCHES: usize = 25;
    let pool = Pool::with(|c| JournalConfig { tail_bytes_max: 4_000, ..c });
    let total = (WRITERS * BATCHES * 5) as i64;
    let inputs: Vec<InputId> = (0..WRITERS).map(|i| pool.journal.input(&format!("in{i}")).unwrap()).collect();
    let read = |from: i64| {
        let mut reader = pool.journal.reader(StreamId::INPUTS, from);
        let mut found = Vec::new();
        while reader.position() < total {
            match reader.next(3, Instant::now() + PATIENCE).unwrap() {
                Read::Events(slice) => found.extend(slice.iter().map(|e| (e.offset, e.payload.to_vec()))),
                other => panic!("unexpected {other:?}"),
            }
        }
        found
    };
    let seen = std::thread::scope(|scope| {
        for (writer, input) in inputs.iter().enumerate() {
            let journal = &pool.journal;
            scope.spawn(move || {
                for batch in 0..BATCHES {
                    let payloads = (0..5).map(|i| format!("{writer} {}", batch * 5 + i).into_bytes()).collect();
                    let (batch, answer) = append(*input, payloads);
                    journal.append(batch);
                    answer.recv_timeout(PATIENCE).unwrap().unwrap();
                }
            });
        }
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(|| read(0))).collect();
        readers.into_iter().map(|r| r.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(seen[0].iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), (0..total).collect::<Vec<_>>());
    assert!(seen.iter().all(|s| *s == seen[0]));
    assert_eq!(read(0), seen[0], "and so does a reader that comes later");
    for writer in 0..WRITERS {
        let prefix = format!("{writer} ").into_bytes();
        let own: Vec<_> = seen[0].iter().filter(|(_, p)| p.starts_with(&prefix)).map(|(_, p)| p.clone()).collect();
        let sent: Vec<_> = (0..BATCHES * 5).map(|i| format!("{writer} {i}").into_bytes()).collect();
        assert_eq!(own, sent, "each writer's records keep their order");
    }
    assert!(verify(&pool.path).unwrap().is_good());
}

/// Offsets of the events that a look from outside gives, and how many are damaged.
fn looked(pool: &Pool, filter: &RecordFilter) -> (Vec<i64>, u64) {
    let mut offsets = Vec::new();
    let damaged = each_record(&pool.path, filter, |record| {
        offsets.push(record.offset);
        true
    });
    (offsets, damaged.unwrap())
}

#[test]
fn what_the_pool_holds_is_given_once_whatever_the_writer_does_meanwhile() {
    let pool = Pool::new();
    let other = pool.journal.input("other").unwrap();
    // more segments than one page has, of two inputs, and some that the redo log alone has
    for i in 0..600 {
        let (batch, answer) = append(if i % 2 == 0 { other } else { pool.input }, vec![noise(700, i + 1)]);
        pool.journal.append(batch);
        answer.recv_timeout(PATIENCE).unwrap().unwrap();
        pool.journal.sync().unwrap();
    }
    pool.store_some(10);
    let all: Vec<i64> = (0..610).collect();
    assert_eq!(looked(&pool, &RecordFilter::default()), (all.clone(), 0));
    let of_other = RecordFilter { input: Some("OTHER".into()), ..RecordFilter::default() };
    assert_eq!(looked(&pool, &of_other).0, (0..600).step_by(2).collect::<Vec<i64>>());
    let never = RecordFilter { from: Some(Timestamp::MAX), ..RecordFilter::default() };
    assert_eq!(looked(&pool, &never), (Vec::new(), 0));
    // between two pages more comes, and what was in the log goes into the file
    let mut offsets = Vec::new();
    each_record(&pool.path, &RecordFilter::default(), |record| {
        if record.offset == 3 {
            pool.store_segment(5);
        }
        offsets.push(record.offset);
        record.offset < 612
    })
    .unwrap();
    assert_eq!(offsets, (0..613).collect::<Vec<i64>>(), "the last that was wanted is the last");
    let db = rusqlite::Connection::open(&pool.path).unwrap();
    let changed =
        db.execute("UPDATE segment SET data = zeroblob(length(data)) WHERE first <= 5 AND first + count > 5", []);
    assert_eq!(changed.unwrap(), 1);
    let (offsets, damaged) = looked(&pool, &RecordFilter::default());
    assert!(damaged > 0 && offsets.len() as u64 + damaged == 615 && !offsets.contains(&5), "{damaged}");
}

//! The durable pool: what was answered "stored" is there again, whatever happens in between.
// helpers of tests fail like tests
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "journal/redo.rs"]
mod redo;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay::batch::{Batch, Column, MessageMeta, RawEvent, RowMeta, Rows};
use forebay::journal::*;
use forebay::time::{Clock, Timestamp};
use forebay::value::Value;
use tempfile::TempDir;

/// Long enough for any answer; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);

struct Pool {
    journal: Journal,
    input: InputId,
    path: PathBuf,
    config: JournalConfig,
    dir: Option<TempDir>,
}

fn config(path: &Path) -> JournalConfig {
    JournalConfig {
        clock: Clock::manual(at(0)),
        commit_interval: Duration::from_millis(1),
        commit_interval_min: Duration::from_millis(1),
        ..JournalConfig::new(path)
    }
}

/// A moment some milliseconds after a fixed one.
fn at(ms: i64) -> Timestamp {
    Timestamp::from_unix_millis(1_700_000_000_000 + ms)
}

impl Pool {
    fn new() -> Pool {
        Pool::with(|c| c)
    }

    fn with(change: impl FnOnce(JournalConfig) -> JournalConfig) -> Pool {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("job.db");
        let mut pool = Pool::open(change(config(&path)));
        pool.dir = Some(dir);
        pool
    }

    fn open(config: JournalConfig) -> Pool {
        let path = config.path.clone();
        let journal = Journal::open(config.clone()).unwrap();
        let input = journal.input("rides").unwrap();
        Pool { journal, input, path, config, dir: None }
    }

    /// Closes and opens again.
    fn reopen(mut self) -> Pool {
        let dir = self.dir.take();
        let config = self.config.clone();
        drop(self);
        let mut pool = Pool::open(config);
        pool.dir = dir;
        pool
    }

    /// What a process would find that starts after this one was killed right now.
    fn crash_image(&self) -> Pool {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("job.db");
        fs::copy(&self.path, &path).unwrap();
        for log in ["-wal", "-redo"] {
            fs::copy(beside(&self.path, log), beside(&path, log)).unwrap();
        }
        let mut pool = Pool::open(JournalConfig { path, ..self.config.clone() });
        pool.dir = Some(dir);
        pool
    }

    fn append(&self, payloads: Vec<Vec<u8>>) -> Receiver<Result<Range<i64>, JournalError>> {
        let (append, answer) = append(self.input, payloads);
        self.journal.append(append);
        answer
    }

    fn store(&self, payloads: Vec<Vec<u8>>) -> Range<i64> {
        self.append(payloads).recv_timeout(PATIENCE).unwrap().unwrap()
    }

    /// `n` different small events.
    fn store_some(&self, n: usize) -> Range<i64> {
        self.store((0..n).map(|i| format!("{{\"n\":{i}}}").into_bytes()).collect())
    }

    /// The same, as a segment of its own in the file.
    fn store_segment(&self, n: usize) -> Range<i64> {
        let range = self.store_some(n);
        self.journal.sync().unwrap();
        range
    }

    fn consumer(&self, name: &str, stream: StreamId) -> ConsumerInfo {
        self.journal.register_consumer(spec(name, stream)).unwrap()
    }

    fn commit(&self, commit: Commit) {
        self.journal.commit(commit).wait().unwrap();
    }

    fn payloads(&self, from: i64) -> Vec<(i64, Vec<u8>)> {
        read_payloads(&mut self.journal.reader(StreamId::INPUTS, from))
    }
}

fn spec(name: &str, stream: StreamId) -> ConsumerSpec {
    ConsumerSpec {
        name: name.into(),
        fingerprint: "SELECT 1".into(),
        stream,
        start: Start::Oldest,
        on_full: OnFull::Block,
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

fn append(input: InputId, payloads: Vec<Vec<u8>>) -> (Append, Receiver<Result<Range<i64>, JournalError>>) {
    let (answer, answers) = channel();
    let message = Arc::new(MessageMeta {
        name: "taxi/1/rides".into(),
        facts: vec![("qos".into(), "1".into())],
        ..MessageMeta::default()
    });
    let events: Vec<RawEvent> = payloads
        .into_iter()
        .enumerate()
        .map(|(i, payload)| RawEvent {
            arrival: at(i as i64),
            payload: Bytes::from(payload),
            message: message.clone(),
            mark: i as u64 + 1,
        })
        .collect();
    let received = events.len() as u64;
    let on_durable = Box::new(move |result| answer.send(result).unwrap_or_default());
    (
        Append {
            input,
            events,
            received,
            undecodable: Vec::new(),
            dropped: Vec::new(),
            ledger: Vec::new(),
            is_urgent: false,
            on_durable,
        },
        answers,
    )
}

/// Everything there is now.
fn read_payloads(reader: &mut Reader) -> Vec<(i64, Vec<u8>)> {
    let mut found = Vec::new();
    loop {
        let before = reader.position();
        match reader.next(7, Instant::now()).unwrap() {
            Read::Events(slice) => found.extend(slice.iter().map(|e| (e.offset, e.payload.to_vec()))),
            Read::Idle if reader.position() == before => return found,
            Read::Idle => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

fn rows(range: Range<i64>) -> Rows {
    let mut batch = Batch::new(2);
    for offset in range {
        let meta = RowMeta { time: at(offset), arrival: at(offset), offset, ordinal: 0 };
        batch.push(meta, [Value::BigInt(offset), Value::text(format!("row {offset}"))]);
    }
    Rows { columns: [column("n"), column("text")].into(), batch }
}

fn column(name: &str) -> Column {
    Column { name: name.into(), spread: false }
}

fn row_numbers(pool: &Pool, stream: StreamId, from: i64) -> Vec<i64> {
    let mut reader = pool.journal.reader(stream, from);
    let mut found = Vec::new();
    loop {
        match reader.next(1000, Instant::now()).unwrap() {
            Read::Rows(slice) => found.extend(slice.iter().map(|(meta, _)| meta.offset)),
            Read::Idle => return found,
            other => panic!("unexpected {other:?}"),
        }
    }
}

#[test]
fn what_was_stored_is_there_after_a_restart() {
    let pool = Pool::new();
    let range = pool.store_some(10);
    assert_eq!(range, 0..10);
    assert_eq!(pool.store_some(5), 10..15);
    let before = pool.payloads(0);
    assert_eq!(before.len(), 15);
    let pool = pool.reopen();
    assert_eq!(pool.payloads(0), before);
    assert_eq!(pool.store_some(1), 15..16);
}

#[test]
fn a_crash_keeps_what_was_answered() {
    let pool = Pool::new();
    pool.store_some(10);
    let image = pool.crash_image();
    assert_eq!(image.payloads(0), pool.payloads(0));
    assert_eq!(image.journal.incarnation(), pool.journal.incarnation());
    assert_eq!(image.store_some(1), 10..11);
    assert!(verify(&image.path).unwrap().is_good());
}

#[test]
fn nothing_is_visible_before_it_is_durable() {
    let pool = Pool::with(|c| JournalConfig {
        commit_interval: Duration::from_secs(3600),
        commit_interval_min: Duration::from_secs(3600),
        ..c
    });
    let answer = pool.append(vec![b"{}".to_vec()]);
    assert_eq!(pool.payloads(0), []);
    assert!(answer.try_recv().is_err());
    let image = pool.crash_image();
    assert_eq!(image.payloads(0), []);
    pool.journal.flush();
    assert_eq!(answer.recv_timeout(PATIENCE).unwrap(), Ok(0..1));
    assert_eq!(pool.payloads(0).len(), 1);
}

#[test]
fn enough_records_make_a_commit_due() {
    let hour = Duration::from_secs(3600);
    let pool =
        Pool::with(|c| JournalConfig { commit_interval: hour, commit_interval_min: hour, commit_records: 100, ..c });
    let first = pool.append(vec![b"{}".to_vec(); 60]);
    assert!(first.try_recv().is_err());
    let second = pool.append(vec![b"{}".to_vec(); 40]);
    assert_eq!(first.recv_timeout(PATIENCE).unwrap(), Ok(0..60));
    assert_eq!(second.recv_timeout(PATIENCE).unwrap(), Ok(60..100));
}

#[test]
fn closing_makes_durable_what_waits() {
    let pool = Pool::with(|c| JournalConfig {
        commit_interval: Duration::from_secs(3600),
        commit_interval_min: Duration::from_secs(3600),
        ..c
    });
    let answer = pool.append(vec![b"{}".to_vec()]);
    pool.journal.close();
    assert_eq!(answer.recv_timeout(PATIENCE).unwrap(), Ok(0..1));
    let late = pool.append(vec![b"{}".to_vec()]);
    assert_eq!(late.recv_timeout(PATIENCE).unwrap(), Err(JournalError::Closed));
    assert_eq!(pool.journal.commit(Commit::at(ConsumerId(1), 0)).wait(), Err(JournalError::Closed));
    assert_eq!(pool.journal.sync(), Err(JournalError::Closed));
    assert!(matches!(pool.journal.reader(StreamId::INPUTS, 0).next(1, Instant::now()), Ok(Read::Closed)));
    assert!(!beside(&pool.path, "-wal").exists(), "a closed journal needs no log");
    assert_eq!(JournalStatus::open_readonly(&pool.path).unwrap().streams[0].next, 1);
    assert!(verify(&pool.path).unwrap().is_good());
}

#[test]
fn a_commit_is_stored_as_a_whole() {
    let pool = Pool::new();
    pool.store_some(10);
    let stream = pool.journal.stream("scored").unwrap();
    let consumer = pool.consumer("scored", StreamId::INPUTS);
    assert_eq!((consumer.position, consumer.is_new), (0, true));
    let put =
        |key: &[u8], value: Option<&[u8]>| StateChange { op: 3, key: key.to_vec(), value: value.map(<[u8]>::to_vec) };
    let counter = Counter::new(Edge::Statement, "scored", what::ROWS_OUT);
    let letter = DeadLetter {
        stage: "statement scored".into(),
        reason: "conversion".into(),
        offset: Some(2),
        ..DeadLetter::default()
    };
    pool.commit(Commit {
        state: vec![put(b"a", Some(b"1")), put(b"b", Some(b"2")), put(b"a", None)],
        emit: Some((stream, rows(0..5))),
        dead_letters: vec![letter.clone()],
        ledger: vec![(counter.clone(), 5)],
        ..Commit::at(consumer.id, 5)
    });
    let image = pool.crash_image();
    for pool in [&pool, &image] {
        assert_eq!(row_numbers(pool, stream, 0), [0, 1, 2, 3, 4]);
        let state = pool.journal.load_state(consumer.id).unwrap();
        assert_eq!(state, [StateEntry { op: 3, key: b"b".to_vec(), value: b"2".to_vec() }]);
        assert_eq!(pool.consumer("scored", StreamId::INPUTS).position, 5);
        assert_eq!(pool.journal.ledger().get(&counter), 5);
        assert_eq!(pool.journal.ledger().sum(Edge::Consumer, "scored", what::READ), 5);
        let letters = pool.journal.dead_letters(0, 10).unwrap();
        assert_eq!(letters.iter().map(|l| &l.letter).collect::<Vec<_>>(), [&letter]);
    }
}

#[test]
fn a_refused_commit_leaves_no_trace_and_harms_no_other() {
    let pool = Pool::with(|c| JournalConfig {
        commit_interval: Duration::from_secs(3600),
        commit_interval_min: Duration::from_secs(3600),
        ..c
    });
    let stream = pool.journal.stream("scored").unwrap();
    let (first, second) = (pool.consumer("first", StreamId::INPUTS), pool.consumer("second", StreamId::INPUTS));
    let answer = pool.append(vec![b"{}".to_vec(); 10]);
    pool.journal.flush();
    answer.recv_timeout(PATIENCE).unwrap().unwrap();
    let deep = (0..200).fold(Value::Null, |inner, _| Value::array(vec![inner]));
    let mut bad_rows = rows(0..2);
    let meta = RowMeta { time: at(0), arrival: at(0), offset: 3, ordinal: 0 };
    bad_rows.batch.push(meta, [deep]);
    let state = vec![StateChange { op: 0, key: b"k".to_vec(), value: Some(b"v".to_vec()) }];
    let beyond = pool.journal.commit(Commit { state: state.clone(), ..Commit::at(first.id, 11) });
    let to_inputs = pool.journal.commit(Commit {
        state: state.clone(),
        emit: Some((StreamId::INPUTS, rows(0..1))),
        ..Commit::at(first.id, 3)
    });
    let too_deep = pool.journal.commit(Commit { state, emit: Some((stream, bad_rows)), ..Commit::at(first.id, 3) });
    let behind = pool.journal.commit(Commit::at(first.id, 4));
    let nobody = pool.journal.commit(Commit::at(ConsumerId(99), 1));
    let good = pool.journal.commit(Commit { emit: Some((stream, rows(0..4))), ..Commit::at(second.id, 4) });
    pool.journal.flush();
    assert!(matches!(beyond.wait(), Err(JournalError::Position { position: 11, end: 10, .. })));
    assert!(matches!(too_deep.wait(), Err(JournalError::Rows { .. })));
    assert!(matches!(behind.wait(), Err(JournalError::Rows { .. })), "it would pass rows that were not stored");
    assert!(matches!(to_inputs.wait(), Err(JournalError::Unknown { .. })));
    assert!(matches!(nobody.wait(), Err(JournalError::Unknown { number: 99, .. })));
    assert_eq!(good.wait(), Ok(()));
    assert_eq!(row_numbers(&pool, stream, 0), [0, 1, 2, 3]);
    assert_eq!(pool.journal.load_state(first.id).unwrap(), []);
    assert_eq!(pool.consumer("first", StreamId::INPUTS).position, 0);
    let back = pool.journal.commit(Commit::at(second.id, 3));
    pool.journal.flush();
    assert!(matches!(back.wait(), Err(JournalError::Position { position: 3, stored: 4, .. })));
    assert!(verify(&pool.path).unwrap().is_good());
}

#[test]
fn another_fingerprint_keeps_the_position_and_clears_the_state() {
    let pool = Pool::new();
    pool.store_some(10);
    let info = pool.consumer("scored", StreamId::INPUTS);
    let change = StateChange { op: 0, key: b"k".to_vec(), value: Some(b"v".to_vec()) };
    pool.commit(Commit { state: vec![change], ..Commit::at(info.id, 4) });
    let pool = pool.reopen();
    let same = pool.consumer("scored", StreamId::INPUTS);
    assert_eq!(same, ConsumerInfo { id: info.id, position: 4, is_new: false, changed: false });
    assert_eq!(pool.journal.load_state(info.id).unwrap().len(), 1);
    let other = ConsumerSpec { fingerprint: "SELECT 2".into(), ..spec("scored", StreamId::INPUTS) };
    let other = pool.journal.register_consumer(other).unwrap();
    assert_eq!(other, ConsumerInfo { id: info.id, position: 4, is_new: false, changed: true });
    assert_eq!(pool.journal.load_state(info.id).unwrap().len(), 1, "the start may still fail");
    let pool = pool.reopen();
    assert_eq!(pool.consumer("scored", StreamId::INPUTS), same);
    assert_eq!(pool.journal.load_state(info.id).unwrap().len(), 1, "it did fail");
    let other = ConsumerSpec { fingerprint: "SELECT 2".into(), ..spec("scored", StreamId::INPUTS) };
    pool.journal.register_consumer(other).unwrap();
    pool.journal.keep_only_consumers(&["scored".into()]).unwrap();
    assert_eq!(pool.journal.load_state(info.id).unwrap(), []);
    let pool = pool.reopen();
    assert!(pool.consumer("scored", StreamId::INPUTS).changed, "now it was the other text");
}

#[test]
fn a_consumer_of_another_stream_takes_the_name_when_the_job_runs() {
    let pool = Pool::new();
    pool.store_some(10);
    let first = pool.consumer("output a", StreamId::INPUTS);
    pool.commit(Commit::at(first.id, 4));
    let stream = pool.journal.stream("a").unwrap();
    let moved = pool.consumer("output a", stream);
    assert_eq!((moved.position, moved.is_new), (0, true));
    assert_ne!(moved.id, first.id);
    let pool = pool.reopen();
    let same = pool.consumer("output a", StreamId::INPUTS);
    assert_eq!(same, ConsumerInfo { id: first.id, position: 4, is_new: false, changed: false }, "the start failed");

    let moved = pool.consumer("output a", stream);
    let removed = pool.journal.keep_only_consumers(&["output a".into()]).unwrap();
    assert_eq!(removed, [RemovedConsumer { name: "output a".into(), unread: 6 }]);
    let pool = pool.reopen();
    let again = pool.consumer("output a", stream);
    assert_eq!(again, ConsumerInfo { id: moved.id, position: 0, is_new: false, changed: false });
    assert!(verify(&pool.path).unwrap().is_good());
}

#[test]
fn a_consumer_that_is_gone_is_closed_and_counted() {
    let pool = Pool::new();
    pool.store_some(10);
    let (gone, _kept) = (pool.consumer("gone", StreamId::INPUTS), pool.consumer("kept", StreamId::INPUTS));
    pool.commit(Commit::at(gone.id, 3));
    let removed = pool.journal.keep_only_consumers(&["kept".into()]).unwrap();
    assert_eq!(removed, [RemovedConsumer { name: "gone".into(), unread: 7 }]);
    let skipped = Counter::new(Edge::Consumer, "gone", what::SKIPPED).because("consumer_removed");
    assert_eq!(pool.journal.ledger().get(&skipped), 7);
    assert!(verify(&pool.path).unwrap().is_good());
    let now = ConsumerSpec { start: Start::Now, ..spec("gone", StreamId::INPUTS) };
    let again = pool.journal.register_consumer(now).unwrap();
    assert_eq!((again.position, again.is_new), (10, true));
    pool.store_some(5);
    pool.commit(Commit::at(again.id, 12));
    assert!(verify(&pool.path).unwrap().is_good(), "both lives of the name are in one equation");
}

#[test]
fn arrival_never_decreases() {
    let pool = Pool::new();
    let moment = |ms| Bytes::from(format!("{ms}"));
    for times in [[50, 40], [30, 60]] {
        let (mut batch, answer) = append(pool.input, Vec::new());
        let event = |ms| RawEvent { arrival: at(ms), payload: moment(ms), message: Arc::default(), mark: 0 };
        (batch.events, batch.received) = (times.map(event).to_vec(), 2);
        pool.journal.append(batch);
        answer.recv_timeout(PATIENCE).unwrap().unwrap();
    }
    assert_eq!(pool.journal.last_arrival(), at(60));
    let pool = pool.reopen();
    assert_eq!(pool.journal.last_arrival(), at(60));
    let mut reader = pool.journal.reader(StreamId::INPUTS, 0);
    let mut arrivals = Vec::new();
    while let Read::Events(slice) = reader.next(10, Instant::now()).unwrap() {
        arrivals.extend(slice.iter().map(|e| e.arrival));
    }
    assert_eq!(arrivals, [at(50), at(50), at(50), at(60)]);
}

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

/// Changes a byte inside the data of the segment at `first`, in the file itself.
fn damage(path: &Path, first: i64) {
    let db = rusqlite::Connection::open(path).unwrap();
    let data: Vec<u8> =
        db.query_row("SELECT data FROM segment WHERE stream = 0 AND first = ?1", [first], |row| row.get(0)).unwrap();
    db.close().unwrap();
    let mut file = fs::read(path).unwrap();
    let part = &data[8..40];
    let at = file.windows(part.len()).position(|w| w == part).unwrap();
    file[at + 9] ^= 0x20;
    fs::write(path, file).unwrap();
}

#[test]
fn a_damaged_segment_is_set_aside_and_the_rest_goes_on() {
    let pool = Pool::new();
    let text = |i: usize| format!("{i} {}", "the quick brown fox jumps over it ".repeat(i + 2)).into_bytes();
    for i in 0..3 {
        pool.store(vec![text(i), text(i)]);
        pool.journal.sync().unwrap();
    }
    let info = pool.consumer("scored", StreamId::INPUTS);
    pool.journal.close();
    damage(&pool.path, 2);
    let report = verify(&pool.path).unwrap();
    assert_eq!(report.problem_count, 1, "{report:?}");
    assert!(report.problems[0].contains("segment at 2 is damaged"), "{report:?}");

    let pool = pool.reopen();
    let read: Vec<i64> = pool.payloads(0).iter().map(|(offset, _)| *offset).collect();
    assert_eq!(read, [0, 1, 4, 5]);
    pool.commit(Commit::at(info.id, 6));
    let ledger = pool.journal.ledger();
    assert_eq!(ledger.sum(Edge::Consumer, "scored", what::READ), 4);
    assert_eq!(ledger.get(&Counter::new(Edge::Consumer, "scored", what::SKIPPED).because("damaged")), 2);
    let status = pool.status();
    assert_eq!((status.quarantine[0].first, status.quarantine[0].end), (2, 4));
    let report = verify(&pool.path).unwrap();
    assert!(report.is_good() && report.quarantined == 1, "{report:?}");
    assert_eq!(pool.store_some(1), 6..7);
}

#[test]
fn a_damaged_last_segment_does_not_hold_its_readers() {
    let pool = Pool::new();
    pool.store(vec!["a rather long text that does not compress to nothing, 0123456789".repeat(3).into_bytes()]);
    pool.journal.close();
    damage(&pool.path, 0);
    let pool = pool.reopen();
    let mut reader = pool.journal.reader(StreamId::INPUTS, 0);
    assert_eq!(read_payloads(&mut reader), []);
    assert_eq!(reader.position(), 1);
    pool.store_some(1);
    assert_eq!(read_payloads(&mut reader).len(), 1);
}

impl Pool {
    fn status(&self) -> JournalStatus {
        self.journal.status().unwrap()
    }

    /// First offsets of the segments in the file, once it has taken over what the redo log holds.
    fn segments(&self, stream: StreamId) -> Vec<i64> {
        self.journal.sync().unwrap();
        let db = rusqlite::Connection::open(&self.path).unwrap();
        let mut statement = db.prepare("SELECT first FROM segment WHERE stream = ?1 ORDER BY first").unwrap();
        statement.query_map([stream.0], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }
}

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
    clock.set(at(59_000));
    pool.journal.sync().unwrap();
    assert_eq!(pool.segments(StreamId::INPUTS), [0]);
    clock.set(at(61_000));
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

/// Bytes that zstd cannot shrink.
fn noise(n: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    (0..n).map(|_| next()).collect()
}

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
fn the_last_handle_may_be_dropped_on_the_writer_thread() {
    let pool = Pool::new();
    let (done, dropped) = channel();
    let handle = pool.journal.clone();
    let commit = Commit::at(ConsumerId(99), 0);
    let (go, wait) = channel::<()>();
    pool.journal.commit_then(
        commit,
        Box::new(move |_| {
            wait.recv().unwrap();
            drop(handle);
            done.send(()).unwrap();
        }),
    );
    drop(pool.journal);
    go.send(()).unwrap();
    dropped.recv_timeout(PATIENCE).unwrap();
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

#[test]
fn dead_letters_stay_below_their_cap_and_are_stored_once() {
    let pool = Pool::with(|c| JournalConfig { dead_letters_max_bytes: 5_000, ..c });
    let consumer = pool.consumer("scored", StreamId::INPUTS);
    let letter = |n: i64, size: usize| DeadLetter {
        at: at(n),
        stage: "statement scored".into(),
        reason: "conversion".into(),
        message: format!("letter {n}"),
        offset: Some(n),
        payload: vec![b'x'; size],
        request: Some(b"request".to_vec()),
        attempts: 1,
        ..DeadLetter::default()
    };
    for _ in 0..2 {
        pool.commit(Commit { dead_letters: vec![letter(0, 100), letter(1, 100)], ..Commit::at(consumer.id, 0) });
    }
    let stored = pool.journal.dead_letters(0, 10).unwrap();
    assert_eq!(
        stored.iter().map(|l| (l.letter.offset, l.letter.attempts)).collect::<Vec<_>>(),
        [(Some(0), 2), (Some(1), 2)]
    );
    assert_eq!(stored[0].letter.request.as_deref(), Some(&b"request"[..]));
    for n in 2..10 {
        pool.journal.add_dead_letters(vec![letter(n, 1000)]).unwrap();
    }
    let count = pool.status().dead_letters;
    assert!(count.bytes <= 5_000 && count.letters == 4, "{count:?}");
    let left = pool.journal.dead_letters(0, 100).unwrap();
    assert_eq!(
        left.iter().map(|l| l.letter.offset.unwrap()).collect::<Vec<_>>(),
        [6, 7, 8, 9],
        "the oldest went first"
    );
    assert_eq!(pool.journal.ledger().get(&Counter::new(Edge::DeadLetters, "", what::DROPPED).because("cap")), 6);
    assert_eq!(dead_letters_readonly(&pool.path, left[1].id, 1).unwrap(), [left[2].clone()]);
    assert_eq!(pool.journal.remove_dead_letters(Some(vec![left[0].id, 12345])), Ok(1));
    assert!(verify(&pool.path).unwrap().is_good());
    assert_eq!(pool.journal.remove_dead_letters(None), Ok(3));
    assert_eq!(pool.status().dead_letters, DeadLetterCount::default());
    assert!(verify(&pool.path).unwrap().is_good());
}

#[test]
fn undecodable_and_dropped_records_balance_what_was_received() {
    let pool = Pool::new();
    let (mut batch, answer) = append(pool.input, vec![b"{}".to_vec()]);
    let letter = DeadLetter {
        stage: "input rides".into(),
        reason: "undecodable".into(),
        payload: b"{".to_vec(),
        ..DeadLetter::default()
    };
    batch.undecodable = vec![letter.clone(), letter];
    batch.dropped = vec![("too_large", 3)];
    batch.received = 6;
    pool.journal.append(batch);
    answer.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(pool.status().dead_letters.letters, 2, "equal ones without an offset are not the same");
    assert!(verify(&pool.path).unwrap().is_good());
    pool.journal.count(vec![(Counter::new(Edge::Input, "rides", what::RECEIVED), 1)]).unwrap();
    let report = verify(&pool.path).unwrap();
    assert_eq!(
        report.problems,
        ["input rides: received = stored + undecodable + dropped does not hold: 7 on the left, 6 on the right"]
    );
}

#[test]
fn meta_values_and_identity_outlive_the_process() {
    let pool = Pool::new();
    assert_eq!(pool.journal.get_meta("swagger score"), Ok(None));
    pool.journal.put_meta("swagger score", b"{}").unwrap();
    pool.journal.put_meta("swagger score", b"{\"a\":1}").unwrap();
    let (incarnation, suffix) = (pool.journal.incarnation_hex(), pool.journal.client_id_suffix().unwrap());
    assert_eq!((incarnation.len(), suffix.len()), (32, 8));
    let pool = pool.reopen();
    assert_eq!(pool.journal.get_meta("swagger score").unwrap().unwrap(), b"{\"a\":1}");
    assert_eq!(
        (pool.journal.incarnation_hex(), pool.journal.client_id_suffix().unwrap()),
        (incarnation.clone(), suffix)
    );
    assert_ne!(Pool::new().journal.incarnation_hex(), incarnation);
}

#[test]
fn the_status_can_be_read_while_the_job_runs() {
    let pool = Pool::new();
    pool.store_some(10);
    let stream = pool.journal.stream("scored").unwrap();
    let consumer = pool.consumer("scored", StreamId::INPUTS);
    pool.commit(Commit { emit: Some((stream, rows(0..2))), ..Commit::at(consumer.id, 4) });
    let status = JournalStatus::open_readonly(&pool.path).unwrap();
    assert_eq!(status.incarnation, pool.journal.incarnation_hex());
    let found = &status.consumers[0];
    assert_eq!((found.position, found.pending, found.pins), (4, 6, true));
    assert_eq!(
        status.streams.iter().map(|s| (s.next, s.segments, s.records)).collect::<Vec<_>>(),
        [(10, 1, 10), (2, 1, 2)]
    );
    assert!(
        status
            .ledger
            .iter()
            .any(|l| (l.edge, l.name.as_str(), l.what.as_str(), l.value) == ("input", "rides", "stored", 10))
    );
    assert_eq!(pool.status().live.unwrap().refusal, None);
}

#[test]
fn one_process_a_journal() {
    let pool = Pool::new();
    let error = Journal::open(config(&pool.path)).unwrap_err();
    assert!(matches!(error, JournalError::Locked { .. }));
    let text = error.to_string();
    assert!(text.contains("job.db.lock") && text.contains("another process"), "{text}");
    let pool = pool.reopen();
    pool.store_some(1);
}

#[test]
fn files_that_are_not_ours_are_left_as_they_are() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("job.db");
    fs::write(&path, b"notes that somebody keeps in a file of this name, longer than a header of one hundred bytes; really, quite long")
        .unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(Journal::open(config(&path)), Err(JournalError::Foreign { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);

    fs::remove_file(&path).unwrap();
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)").unwrap();
    drop(db);
    let before = fs::read(&path).unwrap();
    let error = Journal::open(config(&path)).unwrap_err();
    assert!(error.to_string().contains("not a forebay journal"), "{error}");
    assert!(matches!(JournalStatus::open_readonly(&path), Err(JournalError::Foreign { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn another_schema_version_is_refused() {
    let pool = Pool::new();
    pool.store_some(1);
    pool.journal.close();
    for version in [0, 3] {
        let db = rusqlite::Connection::open(&pool.path).unwrap();
        db.pragma_update(None, "user_version", version).unwrap();
        drop(db);
        let path = pool.path.with_extension(format!("v{version}"));
        fs::copy(&pool.path, &path).unwrap();
        let error = Journal::open(config(&path)).unwrap_err();
        assert!(matches!(error, JournalError::Schema { found, expected: 2, .. } if found == version), "{error}");
        assert!(error.to_string().contains("move it away"), "{error}");
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let dir = TempDir::new().unwrap();
    let missing = dir.path().join("missing").join("job.db");
    // nobody, not even root, makes files there
    for path in [missing.as_path(), Path::new("/proc/self/job.db")] {
        let error = Journal::open(config(path)).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()) && error.contains("writable"), "{error}");
    }
}

#[test]
fn after_a_failed_write_nothing_is_acknowledged_any_more() {
    let pool = Pool::new();
    pool.store_some(3);
    let consumer = pool.consumer("scored", StreamId::INPUTS);
    let db = rusqlite::Connection::open(&pool.path).unwrap();
    db.execute_batch("ALTER TABLE segment RENAME TO elsewhere").unwrap();
    // too large for the redo log
    let failed = pool.append(vec![noise(2 << 20, 1)]).recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert!(matches!(failed, JournalError::Poisoned { .. }), "{failed}");
    assert!(failed.to_string().contains("forebay journal verify"), "{failed}");
    db.execute_batch("ALTER TABLE elsewhere RENAME TO segment").unwrap();
    let later = pool.append(vec![b"{}".to_vec()]).recv_timeout(PATIENCE).unwrap();
    assert_eq!(later, Err(failed.clone()), "not even when it could work again");
    assert_eq!(pool.journal.commit(Commit::at(consumer.id, 1)).wait(), Err(failed.clone()));
    assert_eq!(pool.journal.put_meta("a", b"b"), Err(failed.clone()));
    assert_eq!(pool.journal.refusal(), Some(failed));
    assert_eq!(pool.payloads(0).len(), 3, "what is stored can still be read");
    let pool = pool.reopen();
    assert_eq!(pool.store_some(1), 3..4);
    assert!(verify(&pool.path).unwrap().is_good());
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

//! The durable pool: what was answered "stored" is there again, whatever happens in between.

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
    dir: Option<TempDir>,
}

fn config(path: &Path) -> JournalConfig {
    JournalConfig { clock: Clock::manual(at(0)), commit_interval: Duration::from_millis(1), ..JournalConfig::new(path) }
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
        let journal = Journal::open(config).unwrap();
        let input = journal.input("rides").unwrap();
        Pool { journal, input, path, dir: None }
    }

    /// Closes and opens again.
    fn reopen(mut self) -> Pool {
        let dir = self.dir.take();
        let path = self.path.clone();
        drop(self);
        let mut pool = Pool::open(config(&path));
        pool.dir = dir;
        pool
    }

    /// What a process would find that starts after this one was killed right now.
    fn crash_image(&self) -> Pool {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("job.db");
        fs::copy(&self.path, &path).unwrap();
        fs::copy(beside(&self.path, "-wal"), beside(&path, "-wal")).unwrap();
        let mut pool = Pool::open(config(&path));
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
    ConsumerSpec { name: name.into(), fingerprint: "SELECT 1".into(), stream, start: Start::Oldest, on_full: OnFull::Block }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

fn append(input: InputId, payloads: Vec<Vec<u8>>) -> (Append, Receiver<Result<Range<i64>, JournalError>>) {
    let (answer, answers) = channel();
    let message = Arc::new(MessageMeta { topic: "taxi/1/rides".into(), qos: 1, ..MessageMeta::default() });
    let events: Vec<RawEvent> = payloads
        .into_iter()
        .enumerate()
        .map(|(i, payload)| RawEvent {
            arrival: at(i as i64),
            payload: Bytes::from(payload),
            message: message.clone(),
            packet_id: i as u16 + 1,
        })
        .collect();
    let received = events.len() as u64;
    let on_durable = Box::new(move |result| answer.send(result).unwrap_or_default());
    (Append { input, events, received, undecodable: Vec::new(), dropped: Vec::new(), ledger: Vec::new(), on_durable }, answers)
}

/// Everything there is now.
fn read_payloads(reader: &mut Reader) -> Vec<(i64, Vec<u8>)> {
    let mut found = Vec::new();
    loop {
        match reader.next(7, Instant::now()).unwrap() {
            Read::Events(slice) => found.extend(slice.iter().map(|e| (e.offset, e.payload.to_vec()))),
            Read::Idle => return found,
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

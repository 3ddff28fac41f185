//! The durable pool: what was answered "stored" is there again, whatever happens in between.
// helpers of tests fail like tests
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "journal/ages.rs"]
mod ages;
#[path = "journal/backlogs.rs"]
mod backlogs;
#[path = "journal/budget.rs"]
mod budget;
#[path = "journal/commits.rs"]
mod commits;
#[path = "journal/consumers.rs"]
mod consumers;
#[path = "journal/copies.rs"]
mod copies;
#[path = "journal/damage.rs"]
mod damage;
#[path = "journal/eras.rs"]
mod eras;
#[path = "journal/faults.rs"]
mod faults;
#[path = "journal/files.rs"]
mod files;
#[path = "journal/lasting.rs"]
mod lasting;
#[path = "journal/letters.rs"]
mod letters;
#[path = "journal/lost.rs"]
mod lost;
#[path = "journal/merging.rs"]
mod merging;
#[path = "journal/pinned.rs"]
mod pinned;
#[path = "journal/reading.rs"]
mod reading;
#[path = "journal/redo.rs"]
mod redo;
#[path = "journal/salvage.rs"]
mod salvage;
#[path = "journal/state.rs"]
mod state;
#[path = "journal/trimming.rs"]
mod trimming;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay::batch::{Batch, Column, MessageMeta, RawEvent, RowMeta, Rows, Urgency};
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
    ConsumerSpec { fingerprint: "SELECT 1".into(), ..ConsumerSpec::new(name, stream) }
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
            era: 0,
            urgency: Urgency::InBudget,
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
            Read::Idle | Read::Passed => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

fn rows(range: Range<i64>) -> Rows {
    let mut batch = Batch::new(2);
    for offset in range {
        let meta = RowMeta::new(at(offset), at(offset), offset, 0);
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

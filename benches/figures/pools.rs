//! Pools that are written before a measurement: rides as they were stored, by whoever was there.
//!
//! They are written where a commit costs nothing, if there is such a place, and copied to their folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use forebay::batch::{MessageMeta, RawEvent, Urgency};
use forebay::demo::fleet::Fleet;
use forebay::journal::{Append, ConsumerSpec, Journal, JournalConfig, Read, StreamId};
use forebay::time::{TICKS_PER_MILLISECOND, Timestamp};

/// Between two events.
const STEP_MS: i64 = 10;

/// How the events came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// One a commit and one a segment, those of the input `other` between those of `rides`. No checkpoint merges them,
    /// since a segment holds a sixteenth of the retention at most: that is the worst that a pool can look like, and how
    /// version 0.1.0 left it.
    Apart,
    /// So many of `rides` in each checkpoint, with a consumer that has read none of them.
    Checkpoints(usize),
    /// The same, each in a commit of its own, and as many of `other` between them.
    Turns(usize),
}

impl Stored {
    fn has_other(self) -> bool {
        !matches!(self, Stored::Checkpoints(_))
    }
}

/// Writes a pool of rides that came at 100 a second, and of as many others where they have a part in it.
pub fn write(folder: &Path, name: &str, events: u64, stored: Stored) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let fast = tempfile::tempdir_in(if memory.is_dir() { memory } else { folder }).unwrap();
    let path = fast.path().join("pool.db");
    let retention = (stored == Stored::Apart).then(|| Duration::from_millis(1));
    let journal = Journal::open(JournalConfig { retention, ..config(&path) }).unwrap();
    let inputs = ["rides", "other"].map(|name| journal.input(name).unwrap());
    let inputs = if stored.has_other() { &inputs[..] } else { &inputs[..1] };
    // events of a commit, and of a checkpoint
    let (at_once, checkpoint) = match stored {
        Stored::Apart => (1, None),
        Stored::Checkpoints(events) => (events, Some(events)),
        Stored::Turns(events) => (1, Some(2 * events)),
    };
    if stored != Stored::Apart {
        journal.register_consumer(ConsumerSpec::new("slow", StreamId::INPUTS)).unwrap();
        journal.keep_only_consumers(&["slow".into()]).unwrap();
    }
    let mut fleet = Fleet::new(50);
    let start = Timestamp::parse("2026-05-01T10:00:00Z").unwrap();
    let (durable, answers) = mpsc::channel();
    let count = events as usize * inputs.len();
    for first in (0..count).step_by(at_once) {
        let event = |i: usize| {
            let ride = fleet.ride(start);
            let message = Arc::new(MessageMeta { name: ride.topic.as_str().into(), ..MessageMeta::default() });
            let step = STEP_MS * TICKS_PER_MILLISECOND / inputs.len() as i64;
            let arrival = start.saturating_add(i as i64 * step);
            RawEvent { arrival, payload: ride.payload.into(), message, mark: 0 }
        };
        let events: Vec<RawEvent> = (first..count.min(first + at_once)).map(event).collect();
        let durable = durable.clone();
        journal.append(Append {
            input: inputs[first % inputs.len()],
            received: events.len() as u64,
            events,
            undecodable: Vec::new(),
            dropped: Vec::new(),
            ledger: Vec::new(),
            era: 0,
            urgency: Urgency::InBudget,
            on_durable: Box::new(move |result| durable.send(result.is_ok()).unwrap_or_default()),
        });
        assert!(answers.recv().unwrap());
        if checkpoint.is_some_and(|events| (first + at_once) % events == 0 || first + at_once >= count) {
            journal.sync().unwrap();
        }
    }
    journal.close();
    drop(journal);
    if stored == Stored::Apart {
        assert_eq!(segments(&path), count, "each event has a segment of its own");
    }
    let kept = folder.join(format!("{name}.db"));
    fs::copy(&path, &kept).unwrap();
    kept
}

fn config(path: &Path) -> JournalConfig {
    JournalConfig { commit_interval: Duration::ZERO, max_bytes: 8 << 30, ..JournalConfig::new(path) }
}

/// How many segments a pool has.
pub fn segments(path: &Path) -> usize {
    let pool = rusqlite::Connection::open(path).unwrap();
    let count: i64 = pool.query_row("SELECT count(*) FROM segment", [], |row| row.get(0)).unwrap();
    count as usize
}

/// Reads all rides of a pool, as a statement would; answers how many, and how long that took.
pub fn read(path: &Path) -> (usize, Duration) {
    let journal = Journal::open(config(path)).unwrap();
    let rides = journal.input("rides").unwrap();
    let start = std::time::Instant::now();
    let mut reader = journal.reader(StreamId::INPUTS, 0).only(&[rides]);
    let (mut events, mut bytes) = (0, 0);
    loop {
        let before = reader.position();
        match reader.next_now(usize::MAX).unwrap() {
            Read::Events(slice) => {
                events += slice.len();
                bytes += slice.iter().map(|event| event.payload.len()).sum::<usize>();
            }
            Read::Idle if reader.position() == before => break,
            Read::Idle | Read::Passed => {}
            Read::Rows(_) | Read::Closed => panic!("events were to come"),
        }
    }
    assert!(bytes > events);
    let took = start.elapsed();
    drop(reader);
    journal.close();
    (events, took)
}

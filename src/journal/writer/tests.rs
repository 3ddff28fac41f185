use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;

use super::*;
use crate::batch::RawEvent;
use crate::journal::{Append, Commit, ConsumerSpec, InputId, Journal, OnFull, Start, StreamId, verify};
use crate::time::Timestamp;

const PATIENCE: Duration = Duration::from_secs(20);

fn append(input: InputId, seed: u8) -> (Append, Receiver<Result<Range<i64>, JournalError>>) {
    let (answer, answers) = channel();
    // zstd must not shrink it
    let mut x = u64::from(seed) + 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    let payload: Vec<u8> = (0..40_000).map(|_| next()).collect();
    let event = RawEvent { arrival: Timestamp::MIN, payload: Bytes::from(payload), message: Arc::default(), mark: 0 };
    let on_durable = Box::new(move |result| answer.send(result).unwrap_or_default());
    let append = Append {
        input,
        events: vec![event],
        received: 1,
        undecodable: vec![],
        dropped: vec![],
        ledger: vec![],
        is_urgent: false,
        on_durable,
    };
    (append, answers)
}

/// A page limit of SQLite's own answers just as a full disk does.
#[test]
fn a_full_disk_stops_intake_and_lets_consumers_free_room() {
    let dir = tempfile::TempDir::new().unwrap();
    let config = JournalConfig {
        commit_interval: Duration::from_millis(1),
        recent_records: 0,
        ..JournalConfig::new(dir.path().join("job.db"))
    };
    let path = config.path.clone();
    let journal = Journal::start(config, |db| db.query_row("PRAGMA max_page_count = 200", [], |_| Ok(()))).unwrap();
    let input = journal.input("rides").unwrap();
    let spec = ConsumerSpec {
        name: "scored".into(),
        fingerprint: String::new(),
        stream: StreamId::INPUTS,
        start: Start::Oldest,
        on_full: OnFull::Block,
    };
    let consumer = journal.register_consumer(spec).unwrap();
    journal.keep_only_consumers(&["scored".into()]).unwrap();
    let mut waiting = Vec::new();
    while !journal.is_full() && waiting.len() < 150 {
        let (batch, answer) = append(input, waiting.len() as u8);
        journal.append(batch);
        waiting.push(answer);
    }
    assert!(journal.is_full(), "200 pages hold less than 6 MB");
    let stored = journal.ends(StreamId::INPUTS).1;
    assert!(stored < waiting.len() as i64);
    let begin = Clock::Real.monotonic();
    for (i, answer) in waiting.iter().enumerate() {
        let range = loop {
            if let Ok(answer) = answer.try_recv() {
                break answer.unwrap();
            }
            assert!(Clock::Real.since(begin) < PATIENCE, "event {i} of {} is never stored", waiting.len());
            journal.commit(Commit::at(consumer.id, journal.ends(StreamId::INPUTS).1)).wait().unwrap();
        };
        assert_eq!(range, i as i64..i as i64 + 1, "each is stored once, in order");
    }
    assert!(verify(&path).unwrap().is_good());
}

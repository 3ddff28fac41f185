//! Who reads: names, positions and state over restarts of a job that changes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;

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
fn how_fast_a_backlog_is_read_is_seen_from_outside() {
    let pool = Pool::new();
    for _ in 0..20 {
        pool.store_some(1_000);
    }
    let (info, journal, stop) =
        (pool.consumer("scored", StreamId::INPUTS), pool.journal.clone(), AtomicBool::new(false));
    pool.consumer("away", StreamId::INPUTS);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for position in 1.. {
                let receipt = journal.commit(Commit::at(info.id, position));
                journal.flush();
                receipt.wait().unwrap();
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let status = JournalStatus::watch_readonly(&pool.path);
        stop.store(true, Ordering::Relaxed);
        let status = status.unwrap();
        let of = |name: &str| status.consumers.iter().find(|c| c.name == name).unwrap().pace.unwrap();
        let (scored, away) = (of("scored"), of("away"));
        assert!(scored.read > 0.0 && scored.come == 0.0 && scored.skipped == 0.0, "{scored:?}");
        assert!(scored.left_seconds.unwrap() * scored.read > 10_000.0, "{scored:?}");
        assert_eq!((away.read, away.left_seconds), (0.0, None));
    });
    pool.commit(Commit::at(info.id, 20_000));
    let status = JournalStatus::watch_readonly(&pool.path).unwrap();
    assert_eq!(status.consumers.iter().find(|c| c.name == "scored").unwrap().pace, None, "it has read all");
}

//! Who reads: names, positions and state over restarts of a job that changes.

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

//! What was answered "stored" is there again, as a whole and in order.

use super::*;

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
        let letters = dead_letters_readonly(&pool.path, &LetterFilter::default(), 10).unwrap();
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
    let meta = RowMeta::new(at(0), at(0), 3, 0);
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

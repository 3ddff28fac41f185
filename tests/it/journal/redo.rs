//! The redo log: a crash at any moment leaves whole commits, in order, and nothing else.

use super::*;

/// What a journal says of itself, to be compared.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    ends: [(i64, i64); 2],
    position: i64,
    state: Vec<StateEntry>,
    ledger: Vec<(String, u64)>,
    payloads: Vec<(i64, Vec<u8>)>,
    rows: Vec<i64>,
}

fn told(pool: &Pool, consumer: ConsumerId, stream: StreamId) -> Told {
    let status = pool.status();
    let ends = [pool.journal.ends(StreamId::INPUTS), pool.journal.ends(stream)];
    Told {
        ends,
        position: status.consumers.iter().find(|c| c.id == consumer.0).unwrap().position,
        ledger: status.ledger.iter().map(|l| (format!("{} {} {}", l.name, l.what, l.reason), l.value)).collect(),
        payloads: pool.payloads(0),
        rows: row_numbers(pool, stream, 0),
        state: pool.journal.load_state(consumer).unwrap(),
    }
}

/// One step of a job: events in, or a consumer's commit with rows and state.
fn step(pool: &Pool, i: usize, consumer: ConsumerId, stream: StreamId) {
    if i.is_multiple_of(3) {
        pool.store_some(1 + i % 5);
        return;
    }
    let position = pool.journal.ends(StreamId::INPUTS).1;
    let value = (!i.is_multiple_of(7)).then(|| format!("value {i}").into_bytes());
    let change = StateChange { op: (i % 2) as u32, key: vec![b'k', (i % 4) as u8], value };
    let at = i as i64;
    let emit = i.is_multiple_of(2).then(|| (stream, super::rows(at * 10..at * 10 + 3)));
    let counter = Counter::new(Edge::Output, "out", "delivered");
    let rows_in = Counter::new(Edge::Output, "out", "rows_in");
    pool.commit(Commit {
        state: vec![change],
        emit,
        ledger: vec![(counter, 2), (rows_in, 2)],
        ..Commit::at(consumer, position)
    });
}

#[test]
fn a_crash_at_any_moment_leaves_whole_commits() {
    // nothing is trimmed, so that what is there can be compared
    let pool = Pool::with(|c| JournalConfig { retention: Some(Duration::from_secs(1 << 30)), ..c });
    let stream = pool.journal.stream("scored").unwrap();
    let consumer = pool.consumer("scored", StreamId::INPUTS).id;
    pool.journal.keep_only_consumers(&["scored".into()]).unwrap();
    // where the log ends behind each step, and what was told then
    let log = beside(&pool.path, "-redo");
    let end = || {
        let bytes = fs::read(&log).unwrap();
        bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
    };
    let mut moments = vec![(end(), told_of_image(&pool, None, consumer, stream))];
    for i in 0..24 {
        step(&pool, i, consumer, stream);
        moments.push((end(), told_of_image(&pool, None, consumer, stream)));
    }
    assert!(moments.windows(2).all(|pair| pair[0].0 < pair[1].0), "each step is a record of the log");

    for pair in moments.windows(2) {
        let ((before, then), (after, _)) = (&pair[0], &pair[1]);
        // cut off inside the next record: what it says is not there, and what was before is
        for cut in [*before, *before + 1, (*before + *after) / 2, *after - 1] {
            assert_eq!(told_of_image(&pool, Some(cut), consumer, stream), *then, "cut at {cut}");
        }
    }
    let now = told(&pool, consumer, stream);
    pool.journal.sync().unwrap();
    assert_eq!(told(&pool, consumer, stream), now, "the file has taken it over");
    assert_eq!(told_of_image(&pool, None, consumer, stream), now);
    let pool = pool.reopen();
    assert_eq!(told(&pool, consumer, stream), now);
    assert!(verify(&pool.path).unwrap().is_good());
}

/// What a process finds that starts after a crash; `cut`: that the log lost what lies behind.
fn told_of_image(pool: &Pool, cut: Option<usize>, consumer: ConsumerId, stream: StreamId) -> Told {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("job.db");
    fs::copy(&pool.path, &path).unwrap();
    fs::copy(beside(&pool.path, "-wal"), beside(&path, "-wal")).unwrap();
    let mut log = fs::read(beside(&pool.path, "-redo")).unwrap();
    if let Some(cut) = cut {
        log[cut..].fill(0);
    }
    fs::write(beside(&path, "-redo"), log).unwrap();
    // whoever only looks sees the same before anybody has started
    let looked = JournalStatus::open_readonly(&path).unwrap();
    assert!(verify(&path).unwrap().is_good(), "{:?}", verify(&path).unwrap().problems);
    let image = Pool::open(JournalConfig { path: path.clone(), ..pool.config.clone() });
    let found = told(&image, consumer, stream);
    let next: Vec<i64> = looked.streams.iter().map(|s| s.next).collect();
    assert_eq!(next, found.ends.map(|(_, next)| next));
    assert_eq!(looked.consumers[0].position, found.position);
    assert!(verify(&path).unwrap().is_good());
    found
}

#[test]
fn what_is_read_before_a_checkpoint_never_gets_into_the_file() {
    let pool = Pool::with(|c| JournalConfig { recent_records: 0, ..c });
    let consumer = pool.consumer("scored", StreamId::INPUTS).id;
    pool.journal.keep_only_consumers(&["scored".into()]).unwrap();
    for _ in 0..20 {
        let range = pool.store_some(3);
        pool.commit(Commit::at(consumer, range.end));
    }
    assert_eq!(pool.status().streams[0].segments, 20, "of the log");
    let unread = pool.store_some(2);
    assert_eq!(pool.segments(StreamId::INPUTS), [unread.start]);
    assert_eq!(pool.journal.ends(StreamId::INPUTS), (60, 62));
    assert_eq!(pool.payloads(0).len(), 2);
    assert!(verify(&pool.path).unwrap().is_good());
}

#[test]
fn small_commits_are_read_back_where_memory_has_let_them_go() {
    // no tail in memory: what is not in the file is read from what the log holds
    let pool = Pool::with(|c| JournalConfig { tail_bytes_max: 0, ..c });
    let quiet = pool.journal.input("quiet").unwrap();
    pool.store_segment(3);
    for _ in 0..10 {
        pool.store_some(2);
    }
    let (batch, answer) = append(quiet, vec![b"quiet".to_vec()]);
    pool.journal.append(batch);
    answer.recv_timeout(PATIENCE).unwrap().unwrap();
    pool.store_some(1);
    let all = pool.payloads(0);
    assert_eq!(all.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), (0..25).collect::<Vec<_>>());
    for from in 0..=25 {
        assert_eq!(pool.payloads(from), all[from as usize..], "from {from}");
    }
    let of_quiet = read_payloads(&mut pool.journal.reader(StreamId::INPUTS, 0).only(&[quiet]));
    assert_eq!(of_quiet, [(23, b"quiet".to_vec())]);
    pool.journal.sync().unwrap();
    assert_eq!(pool.payloads(0), all);
}

#[test]
fn a_commit_that_can_wait_goes_with_the_next_one() {
    let pool = Pool::new();
    let consumer = pool.consumer("out", StreamId::INPUTS).id;
    pool.store_some(5);
    let commits = || pool.status().live.unwrap().commits;
    let before = commits();
    let waiting = pool.journal.commit(Commit { can_wait: true, ..Commit::at(consumer, 3) });
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!((waiting.poll(), commits()), (None, before));
    pool.store_some(1);
    assert_eq!(waiting.wait(), Ok(()));
    assert_eq!(commits(), before + 1);
    // a consumer that is ahead of everybody is not held up
    let many: Vec<_> =
        (0..5).map(|_| pool.journal.commit(Commit { can_wait: true, ..Commit::at(consumer, 4) })).collect();
    many.into_iter().take(4).for_each(|commit| assert_eq!(commit.wait(), Ok(())));
    // and whoever asks gets an answer
    let waiting = pool.journal.commit(Commit { can_wait: true, ..Commit::at(consumer, 5) });
    pool.journal.flush();
    assert_eq!(waiting.wait(), Ok(()));
}

/// How often the file has taken over what the log holds.
fn checkpoints(pool: &Pool) -> u64 {
    let db = rusqlite::Connection::open(&pool.path).unwrap();
    let age: Vec<u8> = db.query_row("SELECT value FROM meta WHERE key = 'redo_log'", [], |row| row.get(0)).unwrap();
    u64::from_le_bytes(age[8..16].try_into().unwrap())
}

#[test]
fn a_reader_that_is_one_event_behind_makes_no_checkpoints() {
    let pool = Pool::with(|c| JournalConfig { recent_records: 0, ..c });
    let consumer = pool.consumer("out", StreamId::INPUTS).id;
    pool.journal.keep_only_consumers(&["out".into()]).unwrap();
    pool.store_some(1);
    // the file has an event that is read afterwards
    assert_eq!(pool.segments(StreamId::INPUTS), [0]);
    let (before, begin) = (checkpoints(&pool), Instant::now());
    while begin.elapsed() < Duration::from_secs(3) {
        let range = pool.store_some(1);
        pool.commit(Commit::at(consumer, range.start));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(checkpoints(&pool), before);
}

use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;

use super::*;
use crate::batch::{Batch, Column, RawEvent, RowMeta, Rows, Urgency};
use crate::journal::queue::Queue;
use crate::journal::redo::Age;
use crate::journal::schema;
use crate::journal::{Append, Commit, ConsumerSpec, DeadLetter, InputId, Journal, StreamId, verify};
use crate::time::Timestamp;
use crate::value::Value;

const PATIENCE: Duration = Duration::from_secs(60);

type Answers = Receiver<Result<Range<i64>, JournalError>>;

fn append(input: InputId, seed: u8, bytes: usize) -> (Append, Answers) {
    let (answer, answers) = channel();
    // zstd must not shrink it
    let mut x = u64::from(seed) + 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    let payload: Vec<u8> = (0..bytes).map(|_| next()).collect();
    let event = RawEvent { arrival: Timestamp::MIN, payload: Bytes::from(payload), message: Arc::default(), mark: 0 };
    let on_durable = Box::new(move |result| answer.send(result).unwrap_or_default());
    let append = Append {
        input,
        events: vec![event],
        received: 1,
        undecodable: vec![],
        dropped: vec![],
        ledger: vec![],
        era: 0,
        urgency: Urgency::InBudget,
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
    let journal = Journal::start(config, |o| o.db.query_row("PRAGMA max_page_count = 200", [], |_| Ok(()))).unwrap();
    let input = journal.input("rides").unwrap();
    let spec = ConsumerSpec::new("scored", StreamId::INPUTS);
    let consumer = journal.register_consumer(spec).unwrap();
    journal.keep_only_consumers(&["scored".into()]).unwrap();
    let begin = Clock::Real.monotonic();
    let is_late = || Clock::Real.since(begin) > PATIENCE;
    let log = || std::fs::metadata(schema::redo_path(&path)).unwrap().len();
    let mut waiting = Vec::new();
    for i in 0..150 {
        let (batch, answer) = append(input, i, 40_000);
        journal.append(batch);
        if i < 10 {
            // these go into the redo log, one by one
            let stored = answer.recv_timeout(PATIENCE).unwrap().unwrap();
            assert_eq!(stored, i64::from(i)..i64::from(i) + 1);
        } else {
            waiting.push((i64::from(i), answer));
        }
    }
    assert!(log() > 400_000);
    while !journal.is_full() {
        assert!(!is_late(), "200 pages hold less than 6 MB");
        crate::time::pause(Duration::from_millis(1));
    }
    assert!(waiting.last().unwrap().1.try_recv().is_err(), "the last one cannot be stored");
    let mut has_shrunk = false;
    for (i, answer) in &waiting {
        let range = loop {
            if let Ok(answer) = answer.try_recv() {
                break answer.unwrap();
            }
            assert!(!is_late(), "event {i} is never stored");
            journal.commit(Commit::at(consumer.id, journal.ends(StreamId::INPUTS).1)).wait().unwrap();
            has_shrunk |= log() == 64 << 10;
        };
        assert_eq!(range, *i..i + 1, "each is stored once, in order");
    }
    assert!(has_shrunk, "the redo log gives its room to the file");
    assert!(verify(&path).unwrap().is_good());
}

#[test]
fn a_consumer_that_passes_what_does_not_fit_into_the_file_is_committed() {
    let dir = tempfile::TempDir::new().unwrap();
    let config = JournalConfig { recent_records: 0, ..JournalConfig::new(dir.path().join("job.db")) };
    let config = JournalConfig { commit_interval: Duration::from_millis(1), ..config };
    let path = config.path.clone();
    let journal = Journal::start(config, |o| o.db.query_row("PRAGMA max_page_count = 200", [], |_| Ok(()))).unwrap();
    let input = journal.input("rides").unwrap();
    let spec = ConsumerSpec::new("scored", StreamId::INPUTS);
    let consumer = journal.register_consumer(spec).unwrap().id;
    let other = journal.register_consumer(ConsumerSpec::new("other", StreamId::INPUTS)).unwrap().id;
    journal.keep_only_consumers(&["scored".into(), "other".into()]).unwrap();
    // 200 pages hold 800 KB, and the redo log has more than that
    for i in 0..25 {
        let (batch, answer) = append(input, i, 40_000);
        journal.append(batch);
        answer.recv_timeout(PATIENCE).unwrap().unwrap();
    }
    // this one goes to the file at once, with all that waits
    let (batch, large) = append(input, 25, 1_100_000);
    journal.append(batch);
    let begin = Clock::Real.monotonic();
    while !journal.is_full() {
        assert!(Clock::Real.since(begin) < PATIENCE, "more than a megabyte does not fit");
        crate::time::pause(Duration::from_millis(1));
    }
    // what another one has for the file waits with it
    let letter = DeadLetter { payload: vec![7; 2_000_000], ..DeadLetter::default() };
    let (done, lettered) = std::sync::mpsc::channel();
    let commit = Commit { dead_letters: vec![letter], ..Commit::at(other, 1) };
    journal.commit_then(commit, Box::new(move |result| done.send(result).unwrap_or_default()));
    for position in [1, 5, 24, 25] {
        let (done, answer) = std::sync::mpsc::channel();
        journal.commit_then(Commit::at(consumer, position), Box::new(move |result| done.send(result).unwrap()));
        answer.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("never moved to {position}")).unwrap();
    }
    assert!(lettered.try_recv().is_err(), "it is larger than the file may be");
    assert!(large.try_recv().is_err(), "it is larger than the file may be");
    drop(large);
    journal.close();
    assert!(verify(&path).unwrap().is_good());
}

/// A journal whose redo log takes no record any more: `device` decides how it fails.
fn with_log_on(device: &str) -> (tempfile::TempDir, JournalConfig, Journal) {
    let dir = tempfile::TempDir::new().unwrap();
    let config =
        JournalConfig { commit_interval: Duration::from_millis(1), ..JournalConfig::new(dir.path().join("job.db")) };
    let device = std::fs::File::options().write(true).open(device).unwrap();
    let broken = Journal::start(config.clone(), |opened| {
        opened.redo.break_with(device);
        Ok(())
    });
    (dir, config, broken.unwrap())
}

fn consumer(journal: &Journal, name: &str) -> u32 {
    let spec = ConsumerSpec::new(name, StreamId::INPUTS);
    journal.register_consumer(spec).unwrap().id.0
}

/// `/dev/null` takes every write and cannot be synchronised.
#[test]
fn after_a_failed_synchronisation_of_the_log_nothing_is_acknowledged() {
    let (_dir, config, journal) = with_log_on("/dev/null");
    let input = journal.input("rides").unwrap();
    let store = |seed| {
        let (batch, answer) = append(input, seed, 100);
        journal.append(batch);
        answer.recv_timeout(PATIENCE).unwrap()
    };
    let failed = store(1).unwrap_err();
    assert!(matches!(failed, JournalError::Poisoned { .. }), "{failed}");
    assert!(failed.to_string().contains("the redo log: Invalid argument"), "{failed}");
    assert_eq!(store(2), Err(failed.clone()));
    assert_eq!(journal.put_meta("a", b"b"), Err(failed.clone()), "the file takes nothing either");
    assert_eq!(journal.refusal(), Some(failed));
    journal.close();
    let again = Journal::open(config.clone()).unwrap();
    assert_eq!((again.alarm(), again.ends(StreamId::INPUTS)), (None, (0, 0)));
    assert!(verify(&config.path).unwrap().is_good());
}

/// `/dev/full` has no room for any write.
#[test]
fn commits_that_the_log_has_no_room_for_go_into_the_file() {
    let (_dir, config, journal) = with_log_on("/dev/full");
    let input = journal.input("rides").unwrap();
    let id = crate::journal::ConsumerId(consumer(&journal, "out"));
    for seed in 0..5 {
        let (batch, answer) = append(input, seed, 100);
        journal.append(batch);
        assert_eq!(answer.recv_timeout(PATIENCE).unwrap(), Ok(i64::from(seed)..i64::from(seed) + 1));
        journal.commit(Commit::at(id, i64::from(seed))).wait().unwrap();
    }
    assert!(!journal.is_full() && journal.refusal().is_none());
    let db = schema::open_reader(&config.path).unwrap();
    let age = Age::read(&db).unwrap().unwrap();
    assert!(age.generation > 5, "a record that failed may be in the log: {age:?}");
    let segments: i64 = db.query_row("SELECT count(*) FROM segment", [], |row| row.get(0)).unwrap();
    assert_eq!(segments, 5);
    assert!(verify(&config.path).unwrap().is_good());
}

#[test]
fn a_commit_is_not_refused_for_one_behind_it_when_a_transaction_is_done_again() {
    let (_dir, _, journal) = with_log_on("/dev/full");
    let (input, id) = (journal.input("rides").unwrap(), consumer(&journal, "out"));
    let stream = journal.stream("rows").unwrap();
    let (batch, answer) = append(input, 1, 100);
    journal.append(batch);
    answer.recv_timeout(PATIENCE).unwrap().unwrap();
    let deep = (0..200).fold(Value::Null, |inner, _| Value::array(vec![inner]));
    let mut batch = Batch::new(1);
    let (time, arrival) = (Timestamp::MIN, Timestamp::MIN);
    batch.push(RowMeta::new(time, arrival, 0, 0), [deep]);
    let bad = Rows { columns: [Column { name: "x".into(), spread: false }].into(), batch };
    let at = |position| Commit { can_wait: true, ..Commit::at(crate::journal::ConsumerId(id), position) };
    // both in one transaction: the first waits for the second
    let good = journal.commit(at(1));
    let bad = journal.commit(Commit { emit: Some((stream, bad)), can_wait: false, ..at(1) });
    assert_eq!(good.wait(), Ok(()));
    assert!(matches!(bad.wait(), Err(JournalError::Rows { .. })));
}

#[test]
fn what_waits_for_a_checkpoint_is_bounded() {
    let dir = tempfile::TempDir::new().unwrap();
    let config =
        JournalConfig { commit_interval: Duration::from_millis(1), ..JournalConfig::new(dir.path().join("job.db")) };
    let max = config.redo_bytes_max();
    let journal = Journal::open(config).unwrap();
    let input = journal.input("rides").unwrap();
    let (mut most, mut answers) = (0, Vec::new());
    for seed in 0..300 {
        let (batch, answer) = append(input, seed as u8, 40_000);
        journal.append(batch);
        answers.push(answer);
        if seed % 8 == 7 {
            for answer in answers.drain(..) {
                answer.recv_timeout(PATIENCE).unwrap().unwrap();
            }
        }
        most = most.max(journal.0.shared.with_pending(|pending| pending.bytes()));
        assert!(std::fs::metadata(schema::redo_path(&dir.path().join("job.db"))).unwrap().len() <= max);
    }
    assert!(most > 1 << 20 && most < (2 << 20) + DIRECT_BYTES, "{most}");
}

#[test]
fn behind_a_gate_that_opens_intake_begins_small_and_only_full_batches_grow() {
    let queue = Queue::default();
    let input = InputId(1);
    for i in 0..20 {
        queue.push(Lane::Intake, Command::Append(append(input, i, 10).0));
    }
    queue.set_gate(Gate { intake_stopped: true, ..Gate::default() });
    queue.set_gate(Gate::default());
    let now = Clock::Real.monotonic();
    let rule = Rule { next: now, next_soon: now, records: 1 };
    let take = || match queue.take(rule, now) {
        Turn::Commit(entries) => entries,
        other => panic!("{other:?}"),
    };
    let sizes = |grow: &[usize]| -> Vec<usize> {
        let one = |part: &usize| {
            let entries = take();
            queue.grow(entries.get(..*part).unwrap_or(&entries));
            entries.len()
        };
        grow.iter().map(one).collect()
    };
    assert_eq!(sizes(&[1, 1, 1, 2, 4, 8]), [1, 2, 2, 2, 4, 8], "what was smaller than it might be makes none larger");
}

/// Puts another open file in the place of the one that SQLite writes the pool's file by.
#[allow(unsafe_code)]
fn swap_file(path: &std::path::Path, with: &std::fs::File) {
    use std::os::fd::AsRawFd;
    let of_path = |fd: &i32| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok_and(|to| to == path);
    let open = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    let open: Vec<i32> = open.filter(of_path).filter(|fd| *fd != with.as_raw_fd()).collect();
    assert!(!open.is_empty());
    for fd in open {
        // SAFETY: both are open, and SQLite, which owns the one that is replaced, goes on with the same number
        assert_eq!(unsafe { libc::dup2(with.as_raw_fd(), fd) }, fd);
    }
}

#[test]
fn a_file_that_cannot_be_written_while_its_log_can_is_told_with_the_cause_and_so_is_its_end() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().canonicalize().unwrap().join("job.db");
    // a log of 256 KiB is copied
    let config = JournalConfig {
        commit_interval: Duration::from_millis(1),
        max_bytes: 4 << 20,
        recent_records: 0,
        ..JournalConfig::new(&path)
    };
    let journal = Journal::open(config.clone()).unwrap();
    let input = journal.input("rides").unwrap();
    let mut stored = 0;
    let mut store = || {
        let (batch, answer) = append(input, stored, 50_000);
        journal.append(batch);
        stored = stored.wrapping_add(1);
        // into the file, by way of SQLite's log
        answer.recv_timeout(PATIENCE).unwrap().unwrap();
        journal.sync().unwrap();
    };
    store();
    let begin = Clock::Real.monotonic();
    let is_late = || Clock::Real.since(begin) > PATIENCE;
    swap_file(&path, &std::fs::File::open(&path).unwrap());
    let why = loop {
        assert!(!is_late(), "never told");
        assert!(!journal.is_full(), "told before the budget is used up");
        if let Some(why) = journal.file_failing() {
            break why;
        }
        if std::fs::metadata(schema::wal_path(&path)).unwrap().len() < 600_000 {
            store();
        }
        crate::time::pause(Duration::from_millis(20));
    };
    assert!(why.contains("job.db cannot be written (disk I/O error)") && why.contains("repair or replace"), "{why}");
    assert_eq!(journal.status().unwrap().live.unwrap().file_failing, Some(why));
    // intake goes on in the log, and the cause is told beside the budget
    let mut waiting = Vec::new();
    while !journal.is_full() {
        assert!(!is_late(), "never full");
        let (batch, answer) = append(input, 1, 50_000);
        waiting.extend(journal.try_append(batch).is_none().then_some(answer));
        crate::time::pause(Duration::from_millis(1));
    }
    assert!(journal.file_failing().is_some());
    assert_eq!(journal.refusal(), None);

    swap_file(&path, &std::fs::File::options().read(true).write(true).open(&path).unwrap());
    while journal.file_failing().is_some() {
        assert!(!is_late(), "its end is never told");
        crate::time::pause(Duration::from_millis(20));
    }
    journal.close();
    let report = verify(&path).unwrap();
    assert!(report.is_good() && report.records > 5, "{report:?}");
}

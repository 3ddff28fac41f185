//! A pool that lacks what it once had says so, with the count where anybody can know it.

use super::*;

/// Which files of a pool a disaster leaves.
const ALL: [&str; 4] = ["", "-wal", "-redo", "-high-water"];

/// Copies of a pool's files, in a folder of their own.
struct Copy {
    dir: TempDir,
    path: PathBuf,
}

impl Copy {
    fn of(pool: &Pool, suffixes: &[&str]) -> Copy {
        let dir = TempDir::new().unwrap();
        let copy = Copy { path: dir.path().join("job.db"), dir };
        copy.take(pool, suffixes);
        copy
    }

    fn take(&self, pool: &Pool, suffixes: &[&str]) {
        for suffix in suffixes {
            fs::copy(beside(&pool.path, suffix), beside(&self.path, suffix)).unwrap();
        }
    }

    /// As it is told without a start.
    fn told(&self) -> (Option<String>, Vec<String>) {
        let problems = verify(&self.path).unwrap().problems;
        (JournalStatus::open_readonly(&self.path).unwrap().alarm, problems)
    }

    fn open(self, pool: &Pool) -> Pool {
        let mut opened = Pool::open(JournalConfig { path: self.path, ..pool.config.clone() });
        opened.dir = Some(self.dir);
        opened
    }
}

/// Five events in the file, three in the log.
fn pool() -> Pool {
    let pool = Pool::new();
    pool.consumer("out", StreamId::INPUTS);
    pool.store_segment(5);
    for _ in 0..3 {
        pool.store_some(1);
    }
    pool
}

/// From which offsets on row ids have another mark.
fn renewed(pool: &Pool) -> Vec<i64> {
    pool.journal.id_renewals().iter().map(|renewal| renewal.from).collect()
}

fn offsets(pool: &Pool) -> Vec<i64> {
    pool.payloads(0).iter().map(|(offset, _)| *offset).collect()
}

/// The pool has `kept` events, says why, and goes on behind all offsets that it ever gave out.
fn is_told(copy: Copy, pool: &Pool, why: &str, kept: i64) {
    let alarm = match 8 - kept {
        1 => format!("{why}: 1 acknowledged event is lost"),
        lost => format!("{why}: {lost} acknowledged events are lost"),
    };
    assert_eq!(copy.told(), (Some(alarm.clone()), vec![alarm.clone()]));
    let opened = copy.open(pool);
    assert_eq!(opened.journal.alarm(), Some(alarm.as_str()));
    assert_eq!(opened.store_some(1), 8..9);
    assert_eq!(offsets(&opened), (0..kept).chain([8]).collect::<Vec<_>>());
    let consumer = opened.consumer("out", StreamId::INPUTS);
    opened.commit(Commit::at(consumer.id, 9));
    let counter = |what: &'static str| Counter::new(Edge::Consumer, "out", what);
    let ledger = opened.journal.ledger();
    assert_eq!(ledger.get(&counter(what::SKIPPED).because("damaged")), 8 - kept as u64);
    assert_eq!(ledger.get(&counter(what::READ)), kept as u64 + 1);
    assert_eq!(ledger.get(&Counter::new(Edge::Input, "", what::LOST)), 8 - kept as u64);
    assert_eq!(verify(&opened.path).unwrap().problems, [] as [&str; 0]);
    assert_eq!(renewed(&opened), [8], "row ids from there on are others than those that may be lost");
    let opened = opened.reopen();
    assert_eq!(renewed(&opened), [8]);
    assert_eq!(opened.journal.alarm(), None, "it is told once");
    assert!(opened.status().alarm.unwrap().ends_with(&alarm), "and kept for whoever looks");
}

#[test]
fn a_redo_log_that_is_gone_is_an_alarm() {
    let pool = pool();
    is_told(Copy::of(&pool, &["", "-wal", "-high-water"]), &pool, "the redo log is gone", 5);
}

#[test]
fn a_redo_log_that_was_shortened_is_an_alarm() {
    let pool = pool();
    let length = fs::metadata(beside(&pool.path, "-redo")).unwrap().len();
    for left in [0, 100, 4096] {
        let copy = Copy::of(&pool, &ALL);
        fs::File::options().write(true).open(beside(&copy.path, "-redo")).unwrap().set_len(left).unwrap();
        is_told(copy, &pool, "the redo log is shorter than it was", 5);
    }
    // its length is as it was, and its last record is not there
    let copy = Copy::of(&pool, &ALL);
    let log = fs::read(beside(&copy.path, "-redo")).unwrap();
    let end = log.iter().rposition(|byte| *byte != 0).unwrap();
    let mut cut = log[..end - 1].to_vec();
    cut.resize(length as usize, 0);
    fs::write(beside(&copy.path, "-redo"), cut).unwrap();
    is_told(copy, &pool, "the pool has gone back to an earlier state", 7);
}

#[test]
fn a_redo_log_of_another_pool_is_an_alarm_and_is_kept() {
    let (pool, other) = (pool(), pool());
    let copy = Copy::of(&pool, &ALL);
    copy.take(&other, &["-redo"]);
    let opened = copy.open(&pool);
    let theirs = fs::read(beside(&other.path, "-redo")).unwrap();
    assert_eq!(fs::read(beside(&opened.path, "-redo-set-aside")).unwrap(), theirs);
    assert_eq!(
        opened.journal.alarm(),
        Some("the redo log is that of another pool, or of another run of this one: 3 acknowledged events are lost")
    );
    assert_eq!(offsets(&opened), (0..5).collect::<Vec<_>>());
}

#[test]
fn a_file_older_than_its_redo_log_is_an_alarm() {
    let pool = Pool::new();
    pool.store_segment(2);
    pool.store_some(3);
    let copy = Copy::of(&pool, &["", "-wal"]);
    pool.journal.sync().unwrap();
    pool.store_some(3);
    copy.take(&pool, &["-redo", "-high-water"]);
    let (alarm, _) = copy.told();
    assert_eq!(alarm.unwrap(), "the redo log is newer than the pool's file: 6 acknowledged events are lost");
    let opened = copy.open(&pool);
    assert_eq!(offsets(&opened), [0, 1]);
    assert_eq!(opened.store_some(1), 8..9);
    assert_eq!(verify(&opened.path).unwrap().problems, [] as [&str; 0]);
}

#[test]
fn a_pool_put_back_from_a_copy_is_an_alarm() {
    let pool = pool();
    let copy = Copy::of(&pool, &ALL);
    pool.store_some(10);
    copy.take(&pool, &["-high-water"]);
    assert_eq!(copy.told().0.unwrap(), "the pool has gone back to an earlier state: 10 acknowledged events are lost");
}

#[test]
fn without_the_high_water_nobody_knows_how_much_is_lost() {
    let pool = pool();
    let copy = Copy::of(&pool, &["", "-wal"]);
    let alarm = "the redo log is gone: what was committed since the last checkpoint is lost, and nobody can tell how \
                 much that was";
    assert_eq!(copy.told().0.unwrap(), alarm);
    assert_eq!(copy.open(&pool).journal.alarm(), Some(alarm));
}

#[test]
fn a_redo_log_older_than_its_file_is_taken_over_once() {
    let pool = pool();
    let copy = Copy::of(&pool, &["-redo"]);
    // the file has it, and the log was not begun anew yet
    pool.journal.sync().unwrap();
    copy.take(&pool, &["", "-wal", "-high-water"]);
    assert_eq!(copy.told(), (None, Vec::new()));
    let opened = copy.open(&pool);
    assert_eq!((opened.journal.alarm(), offsets(&opened)), (None, (0..8).collect()));
    assert!(verify(&opened.path).unwrap().is_good());
}

#[test]
fn a_pool_that_was_closed_needs_no_other_file() {
    let (pool, other) = (pool(), pool());
    pool.journal.close();
    let copy = Copy::of(&pool, &[""]);
    assert_eq!(copy.told(), (None, Vec::new()));
    copy.take(&other, &["-redo", "-high-water"]);
    assert_eq!(copy.told(), (None, Vec::new()), "whatever lies beside it");
    let opened = copy.open(&pool);
    assert_eq!((opened.journal.alarm(), offsets(&opened)), (None, (0..8).collect()));
    assert!(!beside(&opened.path, "-redo-set-aside").exists());
}

#[test]
fn two_copies_of_a_pool_do_not_take_each_others_log() {
    let pool = pool();
    pool.journal.close();
    let (a, b) = (Copy::of(&pool, &[""]).open(&pool), Copy::of(&pool, &[""]).open(&pool));
    a.store_some(1);
    b.store_some(2);
    let mixed = Copy::of(&a, &ALL);
    mixed.take(&b, &["-redo"]);
    assert!(mixed.told().0.unwrap().starts_with("the redo log is that of another pool"));
}

#[test]
fn row_ids_of_what_comes_are_others_where_nobody_knows_how_far_the_pool_was() {
    let pool = pool();
    assert_eq!(renewed(&pool), [0; 0]);
    // a process that was killed: file, log and mark agree, and everything is as it was
    let killed = Copy::of(&pool, &ALL).open(&pool);
    assert_eq!((offsets(&killed), renewed(&killed)), ((0..8).collect(), vec![]));
    let killed = killed.reopen();
    assert_eq!(renewed(&killed), [0; 0], "a stop and a start");

    // a power cut: the mark is older than the log, or gone, and the log may have lost its end
    let before = fs::read(beside(&pool.path, "-high-water")).unwrap();
    pool.store_some(2);
    for mark in [Some(before), None] {
        let copy = Copy::of(&pool, &["", "-wal", "-redo"]);
        if let Some(mark) = mark {
            fs::write(beside(&copy.path, "-high-water"), mark).unwrap();
        }
        let opened = copy.open(&pool);
        assert_eq!((opened.journal.alarm(), offsets(&opened)), (None, (0..10).collect()));
        assert_eq!(renewed(&opened), [10], "what is there keeps its ids");
        // nothing came: the same offset is given out once more, and not the same id
        let image = opened.crash_image();
        assert_eq!(renewed(&image), [10]);
        assert_ne!(image.journal.id_renewals(), opened.journal.id_renewals());
        opened.store_some(5);
        assert_eq!(renewed(&opened.crash_image()), [10, 15]);
    }
    // two starts from one copy give the same offsets to other rows
    let marks = || Copy::of(&pool, &["", "-wal", "-redo"]).open(&pool).journal.id_renewals();
    assert_ne!(marks(), marks());
}

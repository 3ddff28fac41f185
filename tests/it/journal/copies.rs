//! A backup has everything that was acknowledged before it began, as of one moment, and becomes a pool that repeats no
//! id.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::damage::{clear_page, pages};
use super::*;

/// A folder for files beside the pool's.
struct Copies(TempDir);

impl Copies {
    fn new() -> Copies {
        Copies(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(self.0.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The pool that the backup of this name becomes.
    fn restored(&self, of: &Pool, name: &str, on: RestoredOn) -> (Pool, Restored) {
        let dir = TempDir::new().unwrap();
        let config = JournalConfig { path: dir.path().join("job.db"), ..of.config.clone() };
        let restored = restore(&config, &self.path(name), on).unwrap();
        let mut pool = Pool::open(config);
        pool.dir = Some(dir);
        (pool, restored)
    }
}

/// What a backup must have, beside the events.
#[derive(Debug, PartialEq)]
struct Had {
    ends: [(i64, i64); 2],
    positions: Vec<(String, i64)>,
    state: Vec<StateEntry>,
    rows: Vec<i64>,
    payloads: Vec<(i64, Vec<u8>)>,
    ledger: Vec<LedgerLine>,
    letters: u64,
}

fn had(pool: &Pool, stream: StreamId) -> Had {
    let status = pool.status();
    let by = status.consumers.iter().find(|c| c.name == "by").unwrap().id;
    Had {
        ends: [pool.journal.ends(StreamId::INPUTS), pool.journal.ends(stream)],
        positions: status.consumers.iter().map(|c| (c.name.clone(), c.position)).collect(),
        state: pool.journal.load_state(ConsumerId(by)).unwrap(),
        rows: row_numbers(pool, stream, 0),
        payloads: pool.payloads(0),
        ledger: status.ledger,
        letters: status.dead_letters.letters,
    }
}

/// Events, rows, state, a dead letter; some of all that is in the redo log alone, if the log is to hold anything.
fn filled(pool: &Pool, with_log: bool) -> StreamId {
    let stream = pool.journal.stream("scored").unwrap();
    let by = pool.consumer("by", StreamId::INPUTS).id;
    pool.consumer("out", stream);
    let row = |i: u8| StateChange { op: 1, key: vec![i], value: Some(vec![i; 100]) };
    pool.store_segment(5);
    pool.commit(Commit { state: vec![row(1), row(2)], emit: Some((stream, rows(0..3))), ..Commit::at(by, 3) });
    let letter =
        DeadLetter { stage: "output o".into(), reason: "rejected".into(), offset: Some(1), ..DeadLetter::default() };
    pool.journal.add_dead_letters(vec![letter]).unwrap();
    pool.journal.sync().unwrap();
    if with_log {
        pool.store_some(4);
        pool.commit(Commit { state: vec![row(2), row(3)], emit: Some((stream, rows(3..5))), ..Commit::at(by, 7) });
    }
    stream
}

#[test]
fn a_backup_of_a_pool_has_all_of_it_whether_its_job_runs_was_stopped_or_was_killed() {
    for (with_log, state) in [(true, "runs"), (false, "runs"), (true, "was stopped"), (true, "was killed")] {
        let pool = Pool::new();
        let stream = filled(&pool, with_log);
        let (copies, killed) = (Copies::new(), Copies::new());
        for file in ["", "-wal", "-redo", "-high-water"] {
            fs::copy(beside(&pool.path, file), killed.path(&format!("job.db{file}"))).unwrap();
        }
        let path = if state == "was killed" { killed.path("job.db") } else { pool.path.clone() };
        let config = JournalConfig { path, ..pool.config.clone() };
        let mut wanted = None;
        if state == "was stopped" {
            wanted = Some(had(&pool, stream));
            pool.journal.close();
        }
        let report = backup(&config, &copies.path("copy.db")).unwrap();
        // a look at the state empties the log, so it comes behind
        let wanted = wanted.unwrap_or_else(|| had(&pool, stream));
        assert!(report.is_good(), "{state}: {report:?}");
        assert_eq!(copies.names(), ["copy.db"], "{state}: one file, and whoever looked into it left none");
        assert!(verify(&copies.path("copy.db")).unwrap().is_good(), "{state}");
        assert_eq!(copies.names(), ["copy.db"], "{state}");
        let (restored, _) = copies.restored(&pool, "copy.db", RestoredOn::Same);
        assert_eq!(had(&restored, stream), wanted, "{state}");
        assert!(verify(&restored.path).unwrap().is_good(), "{state}");
    }
}

struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn backups_while_events_come_in_have_what_was_acknowledged_before_and_whole_commits() {
    let pool = Pool::with(|c| JournalConfig { retention: Some(Duration::from_secs(1 << 30)), ..c });
    let by = pool.consumer("by", StreamId::INPUTS).id;
    pool.journal.keep_only_consumers(&["by".into()]).unwrap();
    let (acknowledged, is_over) = (AtomicI64::new(0), AtomicBool::new(false));
    let copies = Copies::new();
    std::thread::scope(|scope| {
        // also where what follows fails
        let _over = SetWhenDropped(&is_over);
        scope.spawn(|| {
            let mut i = 0;
            while !is_over.load(Ordering::Relaxed) {
                // some go to the file at once, most to the log, and checkpoints come between
                let range = if i % 50 == 7 { pool.store(vec![noise(400_000, i + 1)]) } else { pool.store_some(3) };
                acknowledged.store(range.end, Ordering::SeqCst);
                // position and state are of one commit
                let value = range.end.to_le_bytes().to_vec();
                let state = vec![StateChange { op: 1, key: b"position".to_vec(), value: Some(value) }];
                pool.commit(Commit { state, ..Commit::at(by, range.end) });
                if i % 20 == 3 {
                    pool.journal.sync().unwrap();
                }
                i += 1;
            }
        });
        let mut grew = 0;
        for n in 0..12 {
            let name = format!("{n}.db");
            let before = acknowledged.load(Ordering::SeqCst);
            let report = backup(&pool.config, &copies.path(&name)).unwrap();
            let after = acknowledged.load(Ordering::SeqCst);
            grew += i32::from(after > before);
            assert!(report.is_good(), "{report:?}");
            let (restored, _) = copies.restored(&pool, &name, RestoredOn::Same);
            let (_, end) = restored.journal.ends(StreamId::INPUTS);
            assert!((before..=after + 3).contains(&end), "{before} {end} {after}");
            let offsets: Vec<i64> = restored.payloads(0).iter().map(|(offset, _)| *offset).collect();
            assert_eq!(offsets, (0..end).collect::<Vec<_>>());
            let position = restored.status().consumers[0].position;
            let state = restored.journal.load_state(by).unwrap();
            let kept = state.first().map_or(0, |row| i64::from_le_bytes(row.value.clone().try_into().unwrap()));
            assert_eq!(kept, position, "position and state are of one moment");
        }
        assert!(grew > 0, "nothing was stored while a backup was made");
    });
    assert_eq!(pool.journal.refusal(), None);
}

#[test]
fn nothing_is_written_over_and_a_damaged_pool_has_no_backup() {
    let pool = Pool::new();
    filled(&pool, false);
    let copies = Copies::new();
    let copy = copies.path("copy.db");
    fs::write(&copy, "of somebody").unwrap();
    assert!(matches!(backup(&pool.config, &copy), Err(JournalError::Exists { .. })));
    assert_eq!(fs::read_to_string(&copy).unwrap(), "of somebody");
    let nowhere = backup(&pool.config, &copies.path("no/copy.db")).unwrap_err();
    assert!(matches!(nowhere, JournalError::NotWritten { .. }), "{nowhere}");

    for i in 0..40 {
        pool.store(vec![noise(9000, i + 1)]);
    }
    pool.journal.close();
    let whole = fs::read(&pool.path).unwrap();
    let pages = ["segment", "ledger", "sqlite_autoindex_segment_1"].map(|of| pages(&pool.path, of, "leaf"));
    for page in pages.iter().map(|found| found[found.len() / 2]) {
        fs::write(&pool.path, &whole).unwrap();
        clear_page(&pool.path, page);
        let error = backup(&pool.config, &copies.path("damaged.db")).unwrap_err();
        assert!(error.to_string().contains("`forebay journal salvage --job JOB FILE`"), "{page}: {error}");
        assert_eq!(copies.names(), ["copy.db"], "{page}");
    }
    // of one that lacks what was acknowledged
    fs::write(&pool.path, &whole).unwrap();
    let pool = pool.reopen();
    pool.store_some(1);
    let image = TempDir::new().unwrap();
    for file in ["", "-wal", "-high-water"] {
        fs::copy(beside(&pool.path, file), image.path().join(format!("job.db{file}"))).unwrap();
    }
    let config = JournalConfig { path: image.path().join("job.db"), ..pool.config.clone() };
    let error = backup(&config, &copies.path("lacking.db")).unwrap_err().to_string();
    assert!(error.contains("the redo log is gone: 1 acknowledged event is lost"), "{error}");
    assert_eq!(copies.names(), ["copy.db"]);
}

#[test]
fn a_restored_pool_repeats_no_client_id_and_no_row_id_but_those_of_rows_that_it_has() {
    let pool = Pool::new();
    filled(&pool, true);
    let suffix = pool.journal.client_id_suffix().unwrap();
    pool.journal.put_meta("client/forebay-taxi", b"used").unwrap();
    let copies = Copies::new();
    backup(&pool.config, &copies.path("copy.db")).unwrap();
    let (_, end) = pool.journal.ends(StreamId::INPUTS);
    let known = |pool: &Pool| pool.journal.get_meta("client/forebay-taxi").unwrap().is_some();
    let marks = |pool: &Pool| -> Vec<(i64, String)> {
        pool.journal.id_renewals().iter().map(|renewal| (renewal.from, renewal.mark.clone())).collect()
    };
    let recent = |pool: &Pool| pool.journal.recent_messages(pool.input, 100).unwrap().len();
    assert_eq!((recent(&pool), marks(&pool)), (9, vec![]));

    let (other, told) = copies.restored(&pool, "copy.db", RestoredOn::Another);
    assert_ne!(other.journal.client_id_suffix().unwrap(), suffix);
    assert!(!known(&other), "no broker knows it");
    assert_eq!(other.journal.incarnation(), pool.journal.incarnation(), "rows of these events keep their ids");
    assert_eq!((told.end, told.made_at), (end, Some(at(0).to_string())));
    let (same, _) = copies.restored(&pool, "copy.db", RestoredOn::Same);
    assert_eq!(same.journal.client_id_suffix().unwrap(), suffix);
    assert!(known(&same), "the session goes on");
    let (first, second) = (marks(&other), marks(&same));
    assert_eq!([first[0].0, second[0].0], [end, end]);
    assert_ne!(first, second, "two pools from one backup, and neither is the original");
    for restored in [&other, &same] {
        assert_eq!(recent(restored), 0, "a packet id of then may be another message's by now");
        assert_eq!(restored.store_some(2), end..end + 2);
        assert_eq!(recent(restored), 2);
    }
    // and the pool that comes of it has a backup that is one of its own
    backup(&other.config, &copies.path("next.db")).unwrap();
    let (third, told) = copies.restored(&other, "next.db", RestoredOn::Another);
    assert_eq!((told.end, marks(&third).len()), (end + 2, 2));
}

#[test]
fn a_file_that_is_no_backup_and_a_place_that_is_taken_are_refused() {
    let pool = Pool::new();
    filled(&pool, true);
    let copies = Copies::new();
    backup(&pool.config, &copies.path("copy.db")).unwrap();
    let taken = restore(&pool.config, &copies.path("copy.db"), RestoredOn::Another).unwrap_err();
    assert!(matches!(taken, JournalError::Locked { .. }), "{taken}");
    let before = fs::read(&pool.path).unwrap();
    // a job that was killed, as far as its files tell
    let killed = Copies::new();
    for file in ["", "-wal", "-redo", "-high-water"] {
        fs::copy(beside(&pool.path, file), killed.path(&format!("job.db{file}"))).unwrap();
    }
    let config = JournalConfig { path: killed.path("job.db"), ..pool.config.clone() };
    for gone in ["", "-redo", "-high-water", "-wal"] {
        let error = restore(&config, &copies.path("copy.db"), RestoredOn::Another).unwrap_err();
        assert!(matches!(error, JournalError::PoolIsThere { .. }), "before {gone} went: {error}");
        fs::remove_file(killed.path(&format!("job.db{gone}"))).unwrap();
    }
    assert_eq!(fs::read(&pool.path).unwrap(), before);

    let whole = fs::read(copies.path("copy.db")).unwrap();
    let mut damaged = whole.clone();
    damaged[3 * 4096..4 * 4096].fill(0x5a);
    fs::write(copies.path("damaged.db"), damaged).unwrap();
    fs::write(copies.path("cut.db"), &whole[..whole.len() / 2]).unwrap();
    fs::write(copies.path("text.db"), "a text").unwrap();
    fs::copy(&pool.path, copies.path("running.db")).unwrap();
    fs::copy(beside(&pool.path, "-wal"), copies.path("running.db-wal")).unwrap();
    let db = rusqlite::Connection::open(copies.path("newer.db")).unwrap();
    db.execute_batch("CREATE TABLE t (x); PRAGMA application_id = 0x66626179; PRAGMA user_version = 99").unwrap();
    for (name, why) in [
        ("damaged.db", "it is damaged"),
        ("cut.db", "it is damaged"),
        ("text.db", "no pool of forebay"),
        ("running.db", "running.db-wal has a part of it"),
        ("newer.db", "schema version 99"),
        ("none.db", "No such file"),
    ] {
        let error = restore(&config, &copies.path(name), RestoredOn::Another).unwrap_err();
        assert!(matches!(error, JournalError::NoBackup { .. }), "{name}: {error}");
        assert!(error.to_string().contains(why), "{name}: {error}");
        assert_eq!(killed.names(), ["job.db.lock"], "{name}: nothing is left");
    }
    restore(&config, &copies.path("copy.db"), RestoredOn::Another).unwrap();
    assert_eq!(killed.names(), ["job.db", "job.db.lock"]);
}

/// Whatever a note beside the pool says, it is of the former one.
#[test]
fn a_restored_pool_is_not_the_one_that_a_note_beside_it_says_is_beyond_use() {
    let pool = Pool::new();
    filled(&pool, true);
    let copies = Copies::new();
    backup(&pool.config, &copies.path("copy.db")).unwrap();
    let (_, end) = pool.journal.ends(StreamId::INPUTS);
    for note in [
        // of a job that ran; of a start that was killed while it moved the files; while it salvaged them
        r#"{"reason":"a reason","moved_to":null}"#,
        r#"{"reason":"a reason","moved_to":"-damaged-then"}"#,
        r#"{"reason":"a reason","moved_to":"-damaged-then","all_moved":true}"#,
    ] {
        for on_damage in [OnDamage::Stop, OnDamage::Fresh] {
            let place = Copies::new();
            let config = JournalConfig { path: place.path("job.db"), on_damage, ..pool.config.clone() };
            fs::write(place.path("job.db-beyond-use"), note).unwrap();
            fs::write(place.path("job.db-salvaged"), "of the former").unwrap();
            let error = restore(&config, &copies.path("copy.db"), RestoredOn::Same).unwrap_err();
            assert!(matches!(error, JournalError::PoolIsThere { .. }), "{note}: {error}");
            assert!(error.to_string().contains("job.db-salvaged"), "{error}");
            assert_eq!(place.names(), ["job.db-beyond-use", "job.db-salvaged", "job.db.lock"], "nothing has changed");
            fs::remove_file(place.path("job.db-salvaged")).unwrap();
            restore(&config, &copies.path("copy.db"), RestoredOn::Same).unwrap();
            assert_eq!(place.names(), ["job.db", "job.db.lock"], "{note}");
            let restored = Pool::open(config);
            assert_eq!(restored.journal.alarm(), None, "{note} {on_damage:?}");
            assert_eq!(restored.journal.ends(StreamId::INPUTS).1, end, "{note} {on_damage:?}");
            restored.journal.close();
            let names = place.names();
            assert!(names.iter().all(|name| !name.contains("-damaged-")), "{note} {on_damage:?}: {names:?}");
        }
    }
}

#[test]
fn the_file_of_a_job_that_was_stopped_becomes_a_pool_though_its_redo_log_lies_beside_it() {
    let pool = Pool::new();
    let stream = filled(&pool, true);
    let wanted = had(&pool, stream);
    pool.journal.close();
    assert!(beside(&pool.path, "-redo").metadata().unwrap().len() > 0);
    let dir = TempDir::new().unwrap();
    let config = JournalConfig { path: dir.path().join("job.db"), ..pool.config.clone() };
    let told = restore(&config, &pool.path, RestoredOn::Same).unwrap();
    assert_eq!((told.made_at, told.end), (None, 9));
    let restored = Pool::open(config);
    assert_eq!(had(&restored, stream), wanted);
    // how old a copy is nobody can tell
    let recent = |pool: &Pool| pool.journal.recent_messages(pool.input, 100).unwrap().len();
    assert_eq!(recent(&restored), 0, "a packet id of then may be another message's by now");
    restored.journal.close();

    // what was salvaged is as new as its pool
    let salvaged = dir.path().join("new.db");
    let of = |name: &str| JournalConfig { path: dir.path().join(name), ..pool.config.clone() };
    salvage(&pool.config, &salvaged).unwrap();
    let told = restore(&of("first.db"), &salvaged, RestoredOn::Same).unwrap();
    assert_eq!(told.made_at, Some(at(0).to_string()));
    let first = Pool::open(of("first.db"));
    assert_eq!(recent(&first), 9, "what the broker sends again is known");
    first.journal.close();
    restore(&of("another.db"), &salvaged, RestoredOn::Another).unwrap();
    assert_eq!(recent(&Pool::open(of("another.db"))), 0, "its session is new");
    // a pool on which a job ran since then is not
    restore(&of("second.db"), &of("first.db").path, RestoredOn::Same).unwrap();
    assert_eq!(recent(&Pool::open(of("second.db"))), 0);
    // put in place by hand
    fs::rename(&salvaged, of("third.db").path).unwrap();
    Pool::open(of("third.db")).journal.close();
    restore(&of("fourth.db"), &of("third.db").path, RestoredOn::Same).unwrap();
    assert_eq!(recent(&Pool::open(of("fourth.db"))), 0);
}

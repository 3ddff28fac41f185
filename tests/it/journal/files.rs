//! The files themselves: whose they are, who may open them, what is told of them.

use super::*;

#[test]
fn meta_values_and_identity_outlive_the_process() {
    let pool = Pool::new();
    assert_eq!(pool.journal.get_meta("swagger score"), Ok(None));
    pool.journal.put_meta("swagger score", b"{}").unwrap();
    pool.journal.put_meta("swagger score", b"{\"a\":1}").unwrap();
    let (incarnation, suffix) = (pool.journal.incarnation_hex(), pool.journal.client_id_suffix().unwrap());
    assert_eq!((incarnation.len(), suffix.len()), (32, 8));
    let pool = pool.reopen();
    assert_eq!(pool.journal.get_meta("swagger score").unwrap().unwrap(), b"{\"a\":1}");
    assert_eq!(
        (pool.journal.incarnation_hex(), pool.journal.client_id_suffix().unwrap()),
        (incarnation.clone(), suffix)
    );
    assert_ne!(Pool::new().journal.incarnation_hex(), incarnation);
}

#[test]
fn the_status_can_be_read_while_the_job_runs() {
    let pool = Pool::new();
    pool.store_some(10);
    let stream = pool.journal.stream("scored").unwrap();
    let consumer = pool.consumer("scored", StreamId::INPUTS);
    pool.commit(Commit { emit: Some((stream, rows(0..2))), ..Commit::at(consumer.id, 4) });
    let status = JournalStatus::open_readonly(&pool.path).unwrap();
    assert_eq!(status.incarnation, pool.journal.incarnation_hex());
    let found = &status.consumers[0];
    assert_eq!((found.position, found.pending, found.pins), (4, 6, true));
    assert_eq!(
        status.streams.iter().map(|s| (s.next, s.segments, s.records)).collect::<Vec<_>>(),
        [(10, 1, 10), (2, 1, 2)]
    );
    assert!(
        status
            .ledger
            .iter()
            .any(|l| (l.edge, l.name.as_str(), l.what.as_str(), l.value) == ("input", "rides", "stored", 10))
    );
    assert_eq!(pool.status().live.unwrap().refusal, None);
}

#[test]
fn one_process_a_journal() {
    let pool = Pool::new();
    pool.store_some(1);
    let log = || fs::read(beside(&pool.path, "-redo")).unwrap();
    let before = log();
    let error = Journal::open(config(&pool.path)).unwrap_err();
    assert!(log() == before, "the redo log is that of the first");
    assert!(matches!(error, JournalError::Locked { .. }));
    let text = error.to_string();
    assert!(text.contains("job.db.lock") && text.contains("another process"), "{text}");
    let pool = pool.reopen();
    pool.store_some(1);
}

#[test]
fn a_pool_by_another_name_is_the_same_pool() {
    let mut pool = Pool::new();
    pool.store_some(3);
    let elsewhere = TempDir::new().unwrap();
    let link = elsewhere.path().join("job.db");
    let folder = elsewhere.path().join("pools");
    std::os::unix::fs::symlink(pool.path.parent().unwrap(), &folder).unwrap();
    // of two links the second is relative
    std::os::unix::fs::symlink("pools/job.db", &link).unwrap();
    assert!(matches!(Journal::open(config(&link)), Err(JournalError::Locked { .. })));
    assert!(matches!(Journal::open(config(&folder.join("job.db"))), Err(JournalError::Locked { .. })));
    let told = |path: &Path| JournalStatus::open_readonly(path).unwrap();
    assert_eq!((told(&link).redo_bytes > 0, told(&link).streams[0].next), (true, 3));

    let (path, _dir) = (pool.path.clone(), pool.dir.take());
    drop(pool);
    let journal = Journal::open(config(&link)).unwrap();
    assert_eq!((journal.alarm(), journal.ends(StreamId::INPUTS)), (None, (0, 3)));
    drop(journal);
    let beside_the_link: Vec<_> = fs::read_dir(elsewhere.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(beside_the_link.len(), 2, "{beside_the_link:?}");

    fs::hard_link(&path, elsewhere.path().join("twin.db")).unwrap();
    let error = Journal::open(config(&path)).unwrap_err().to_string();
    assert!(error.contains("2 names") && error.contains("copy the file instead"), "{error}");
}

#[test]
fn a_link_may_lead_to_a_pool_that_is_yet_to_be_made() {
    let (card, home) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (path, link) = (card.path().join("job.db"), home.path().join("job.db"));
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let journal = Journal::open(config(&link)).unwrap();
    assert!(matches!(Journal::open(config(&path)), Err(JournalError::Locked { .. })));
    drop(journal);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
}

#[test]
fn files_that_are_not_ours_are_left_as_they_are() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("job.db");
    fs::write(
        &path,
        b"notes that somebody keeps in a file of this name, longer than a header of one hundred bytes; really, quite \
        long",
    )
    .unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(Journal::open(config(&path)), Err(JournalError::Foreign { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);

    fs::remove_file(&path).unwrap();
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)").unwrap();
    drop(db);
    let before = fs::read(&path).unwrap();
    let error = Journal::open(config(&path)).unwrap_err();
    assert!(error.to_string().contains("not a forebay journal"), "{error}");
    assert!(matches!(JournalStatus::open_readonly(&path), Err(JournalError::Foreign { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn another_schema_version_is_refused() {
    let pool = Pool::new();
    pool.store_some(1);
    pool.journal.close();
    for version in [0, 3] {
        let db = rusqlite::Connection::open(&pool.path).unwrap();
        db.pragma_update(None, "user_version", version).unwrap();
        drop(db);
        let path = pool.path.with_extension(format!("v{version}"));
        fs::copy(&pool.path, &path).unwrap();
        let error = Journal::open(config(&path)).unwrap_err();
        assert!(matches!(error, JournalError::Schema { found, expected: 2, .. } if found == version), "{error}");
        assert!(
            error.to_string().contains("move it and the files beside it (`-wal`, `-redo`, `-high-water`) away"),
            "{error}"
        );
    }
}

/// A pool of version 0.1.0 has the same tables and no redo log.
fn of_version_one() -> Pool {
    let pool = Pool::new();
    pool.store_some(3);
    pool.journal.close();
    let db = rusqlite::Connection::open(&pool.path).unwrap();
    db.execute_batch("DELETE FROM meta WHERE key IN ('redo_log', 'wear'); PRAGMA user_version = 1").unwrap();
    fs::remove_file(beside(&pool.path, "-redo")).unwrap();
    fs::remove_file(beside(&pool.path, "-high-water")).unwrap();
    pool
}

fn version(path: &Path) -> i64 {
    rusqlite::Connection::open(path).unwrap().query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_pool_of_the_first_version_becomes_one_of_this() {
    let pool = of_version_one();
    assert_eq!(JournalStatus::open_readonly(&pool.path).unwrap().streams[0].next, 3);
    assert!(verify(&pool.path).unwrap().is_good());
    assert_eq!(version(&pool.path), 1, "whoever looks changes nothing");
    let pool = pool.reopen();
    assert_eq!((pool.journal.alarm(), pool.store_some(1)), (None, 3..4));
    assert_eq!(version(&pool.path), 2);
    assert_eq!(pool.crash_image().payloads(0).len(), 4);
}

#[test]
fn a_start_that_fails_leaves_a_pool_of_the_first_version() {
    let pool = of_version_one();
    // busy: another program is in the middle of a transaction
    let db = rusqlite::Connection::open(&pool.path).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = Journal::open(config(&pool.path)).unwrap_err();
    assert!(matches!(error, JournalError::Unusable { .. }), "{error}");
    db.execute_batch("ROLLBACK").unwrap();
    assert_eq!(version(&pool.path), 1);
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let dir = TempDir::new().unwrap();
    let missing = dir.path().join("missing").join("job.db");
    // nobody, not even root, makes files there
    for path in [missing.as_path(), Path::new("/proc/self/job.db")] {
        let error = Journal::open(config(path)).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()) && error.contains("writable"), "{error}");
    }
}

#[test]
fn what_the_log_of_an_earlier_process_holds_is_in_the_file_before_anything_follows() {
    let pool = Pool::new();
    (0..20).for_each(|_| assert_eq!(pool.store_segment(10).count(), 10));
    let bytes = |path: &Path, log: &str| fs::read(beside(path, log)).unwrap();
    let salts = |log: &[u8]| log[16..24].to_vec();
    let left = bytes(&pool.path, "-wal");
    assert!(left.len() > 20 * 4096, "it holds what was stored: {}", left.len());
    // its last sync may have failed: then the next start sees in memory what the disk does not have
    let image = pool.crash_image();
    assert_ne!(salts(&bytes(&image.path, "-wal")), salts(&left), "the log begins anew");
    let alone = TempDir::new().unwrap();
    let file = alone.path().join("job.db");
    fs::copy(&image.path, &file).unwrap();
    let db = rusqlite::Connection::open(&file).unwrap();
    let stored: i64 = db.query_row("SELECT sum(count) FROM segment WHERE stream = 0", [], |row| row.get(0)).unwrap();
    assert_eq!(stored, 200);
}

/// A pool that was closed, with something in it.
fn closed() -> Pool {
    let pool = Pool::new();
    pool.store_segment(50);
    pool.journal.close();
    pool
}

/// What is done to the file of a pool.
type Ruin = fn(&Path);

/// What may become of the file of a pool.
fn ruined() -> Vec<(&'static str, Ruin)> {
    vec![
        ("empty", |path| fs::write(path, b"").unwrap()),
        ("other bytes", |path| fs::write(path, [7; 40_960]).unwrap()),
        ("its first page is gone", |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[..4096].fill(0);
            fs::write(path, bytes).unwrap();
        }),
        ("cut off", |path| fs::File::options().write(true).open(path).unwrap().set_len(4096).unwrap()),
    ]
}

#[test]
fn a_pool_beyond_use_stops_the_start_with_the_commands_and_is_left_as_it_is() {
    for (what, ruin) in ruined() {
        let pool = closed();
        ruin(&pool.path);
        let before = fs::read(&pool.path).unwrap();
        let error = Journal::open(pool.config.clone()).unwrap_err();
        assert!(matches!(error, JournalError::BeyondUse { .. }), "{what}: {error}");
        let told = error.to_string();
        for words in ["`on_damage = \"fresh\"` under [journal]", "`forebay journal salvage --job JOB FILE`", "job.db: "]
        {
            assert!(told.contains(words), "{what}: {told}");
        }
        assert!(fs::read(&pool.path).unwrap() == before, "{what}: it was changed");
        assert!(matches!(verify(&pool.path), Err(JournalError::BeyondUse { .. })), "{what}");
    }
}

#[test]
fn where_the_settings_say_so_a_pool_beyond_use_is_moved_aside_and_a_fresh_one_is_begun() {
    for (what, ruin) in ruined() {
        let pool = closed();
        ruin(&pool.path);
        let before = fs::read(&pool.path).unwrap();
        let folder = pool.path.parent().unwrap().to_owned();
        let config = JournalConfig { on_damage: OnDamage::Fresh, ..pool.config.clone() };
        let journal = Journal::open(config.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
        // the file has them where its first page alone is gone, and else the redo log still has
        let read = read_payloads(&mut journal.reader(StreamId::INPUTS, 0)).len();
        assert_eq!(read, 50, "{what}");
        assert_eq!(journal.ends(StreamId::INPUTS).1, 50, "{what}: no offset is given out twice");
        assert_eq!(journal.id_renewals().last().unwrap().from, 50, "no row id is that of a row before");
        let alarm = journal.alarm().unwrap().to_owned();
        let content = "a fresh one was begun with what can be read of it (records there: 50, known to be missing: 0)";
        assert!(alarm.contains("could not be used") && alarm.contains(content), "{what}: {alarm}");
        let status = journal.status().unwrap();
        assert!(status.alarm.unwrap().ends_with(&alarm) && status.live.unwrap().has_alarm);
        assert!(
            matches!(Journal::open(config.clone()), Err(JournalError::Locked { .. })),
            "the lock is held throughout"
        );
        let names: Vec<String> =
            fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        let aside = names.iter().find(|n| n.starts_with("job.db-damaged-") && n.ends_with('Z'));
        let aside = aside.unwrap_or_else(|| panic!("{names:?}"));
        assert!(alarm.contains(aside.as_str()), "{alarm}");
        assert!(fs::read(folder.join(aside)).unwrap() == before, "{what}: every byte is kept");
        assert!(names.iter().any(|n| n == &format!("{aside}-redo")), "with its log: {names:?}");
        journal.close();
        let journal = Journal::open(config).unwrap();
        assert_eq!(journal.alarm(), None, "the next start is well");
        assert!(verify(&pool.path).unwrap().is_good());
    }
}

#[test]
fn what_never_was_a_pool_is_not_touched() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("job.db");
    fs::write(&path, "notes of somebody").unwrap();
    let config = JournalConfig { on_damage: OnDamage::Fresh, ..config(&path) };
    let error = Journal::open(config).unwrap_err();
    assert!(matches!(error, JournalError::Foreign { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "notes of somebody");
}

#[test]
fn a_pool_that_is_gone_beside_its_logs_is_no_new_one() {
    for left in [&["-redo", "-high-water"][..], &["-redo"], &["-high-water"]] {
        let pool = closed();
        for file in ["", "-redo", "-high-water"].iter().filter(|file| !left.contains(file)) {
            fs::remove_file(beside(&pool.path, file)).unwrap();
        }
        for looked in [Journal::open(pool.config.clone()).map(drop), verify(&pool.path).map(drop)] {
            let error = looked.unwrap_err();
            assert!(matches!(error, JournalError::BeyondUse { .. }), "{left:?}: {error}");
            assert!(error.to_string().contains("job.db: the file is gone, and "), "{left:?}: {error}");
        }
        assert!(!pool.path.exists(), "nothing is begun in silence");
        let config = JournalConfig { on_damage: OnDamage::Fresh, ..pool.config.clone() };
        let journal = Journal::open(config).unwrap();
        assert!(journal.alarm().unwrap().contains("the file is gone"), "{left:?}");
        journal.close();
        let folder = fs::read_dir(pool.path.parent().unwrap()).unwrap();
        let names: Vec<String> = folder.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        let aside = names.iter().filter(|name| name.contains("-damaged-")).count();
        assert_eq!(aside, left.len(), "{names:?}");
    }
    // all of it was deleted: that is somebody's will
    let pool = closed();
    for file in ["", "-redo", "-high-water"] {
        fs::remove_file(beside(&pool.path, file)).unwrap();
    }
    let journal = Journal::open(pool.config.clone()).unwrap();
    assert_eq!((journal.alarm(), journal.ends(StreamId::INPUTS)), (None, (0, 0)));
}

#[test]
fn a_start_that_is_killed_while_it_moves_a_pool_aside_is_gone_on_with() {
    const MOVED: [&str; 4] = ["-wal", "-redo", "-high-water", ""];
    for moved in 0..=MOVED.len() {
        let pool = closed();
        fs::write(beside(&pool.path, "-wal"), "of no use").unwrap();
        let bytes: Vec<Vec<u8>> = MOVED.iter().map(|file| fs::read(beside(&pool.path, file)).unwrap()).collect();
        fs::write(beside(&pool.path, "-beyond-use"), r#"{"reason":"a reason","moved_to":"-damaged-then"}"#).unwrap();
        let aside = |file: &str| beside(&pool.path, &format!("-damaged-then{file}"));
        for file in &MOVED[..moved] {
            fs::rename(beside(&pool.path, file), aside(file)).unwrap();
        }
        let error = Journal::open(pool.config.clone()).unwrap_err();
        assert!(matches!(&error, JournalError::BeyondUse { reason } if reason == "a reason"), "{moved}: {error}");
        let config = JournalConfig { on_damage: OnDamage::Fresh, ..pool.config.clone() };
        let journal = Journal::open(config.clone()).unwrap();
        assert!(journal.alarm().unwrap().contains("(a reason)"), "{moved}");
        assert_eq!(read_payloads(&mut journal.reader(StreamId::INPUTS, 0)).len(), 50, "{moved}");
        let kept: Vec<Vec<u8>> = MOVED.iter().map(|file| fs::read(aside(file)).unwrap()).collect();
        assert!(kept == bytes, "{moved}: every file has the same name, and every byte");
        assert!(!beside(&pool.path, "-beyond-use").exists());
        journal.close();
        assert_eq!(Journal::open(config.clone()).unwrap().alarm(), None, "{moved}");
        // killed between the last step and the end of the note
        let note = r#"{"reason":"a reason","moved_to":"-damaged-then","all_moved":true}"#;
        fs::write(beside(&pool.path, "-beyond-use"), note).unwrap();
        let journal = Journal::open(config).unwrap();
        assert_eq!(read_payloads(&mut journal.reader(StreamId::INPUTS, 0)).len(), 50, "{moved}: it is the fresh one");
        let kept: Vec<Vec<u8>> = MOVED.iter().map(|file| fs::read(aside(file)).unwrap()).collect();
        assert!(kept == bytes && !beside(&pool.path, "-beyond-use").exists(), "{moved}");
    }
}

#[test]
fn a_pool_that_proves_beyond_use_while_its_job_runs_is_known_to_the_next_start() {
    let pool = Pool::new();
    for i in 0..30 {
        pool.store(vec![noise(600, i)]);
        pool.journal.sync().unwrap();
    }
    pool.journal.close();
    let count = fs::metadata(&pool.path).unwrap().len() / 4096;
    let mut noted = 0;
    for page in 2..=count as i64 {
        for on_damage in [OnDamage::Fresh, OnDamage::Stop] {
            let dir = TempDir::new().unwrap();
            let path = dir.path().join("job.db");
            for file in ["", "-high-water", "-redo"] {
                fs::copy(beside(&pool.path, file), beside(&path, file)).unwrap();
            }
            super::damage::clear_page(&path, page);
            let config = JournalConfig { path, on_damage, ..pool.config.clone() };
            let Ok(journal) = Journal::open(config.clone()) else { continue };
            let began_fresh = journal.alarm().is_some();
            let letter = DeadLetter { stage: "input rides".into(), ..DeadLetter::default() };
            let _ = journal.add_dead_letters(vec![letter]).and_then(|()| journal.put_meta("key", b"value"));
            let _ = journal.input("other").map(|_| journal.stream("other"));
            let is_beyond_use = matches!(journal.refusal(), Some(JournalError::BeyondUse { .. }));
            journal.close();
            let note = beside(&config.path, "-beyond-use");
            assert_eq!(note.exists(), is_beyond_use && on_damage == OnDamage::Fresh, "page {page} {on_damage:?}");
            if note.exists() && !began_fresh {
                noted += 1;
                let journal = Journal::open(config).unwrap();
                assert!(journal.alarm().unwrap().contains("a fresh one was begun"), "page {page}");
                assert!(!note.exists());
            }
        }
    }
    assert!(noted > 0, "no page is missed only by a job that runs");
}

#[test]
fn a_fresh_pool_takes_the_place_of_no_file_and_has_the_mode_of_the_former() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    // a start was killed behind the salvage, and a person put a pool in place by hand
    let (pool, other) = (closed(), closed());
    let aside = |file: &str| beside(&pool.path, &format!("-damaged-then{file}"));
    let note = r#"{"reason":"a reason","moved_to":"-damaged-then","all_moved":true}"#;
    fs::write(beside(&pool.path, "-beyond-use"), note).unwrap();
    fs::write(beside(&pool.path, "-salvaged"), "what was salvaged").unwrap();
    fs::copy(&other.path, &pool.path).unwrap();
    for file in ["-redo", "-high-water"] {
        fs::rename(beside(&pool.path, file), aside(file)).unwrap();
    }
    let config = JournalConfig { on_damage: OnDamage::Fresh, ..pool.config.clone() };
    let journal = Journal::open(config.clone()).unwrap();
    assert_eq!(journal.ends(StreamId::INPUTS).1, 50);
    assert_eq!(fs::read(aside("-salvaged")).unwrap(), b"what was salvaged");
    journal.close();

    // twice in one second, and what was salvaged once is not taken for what is there now
    let mut kept = Vec::new();
    for n in ["", "-2"] {
        fs::write(&pool.path, [7; 40_960]).unwrap();
        fs::set_permissions(&pool.path, fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(beside(&pool.path, "-salvaged"), "of before").unwrap();
        let journal = Journal::open(config.clone()).unwrap();
        let alarm = journal.alarm().unwrap().to_owned();
        assert!(alarm.contains("a fresh one was begun with what can be read of it (records there: "), "{alarm}");
        assert_eq!(mode(&pool.path), 0o640);
        journal.close();
        let name = alarm.split("-damaged-").nth(1).unwrap().split(',').next().unwrap().to_owned();
        assert!(name.ends_with(&format!("Z{n}")), "{name}");
        kept.push(beside(&pool.path, &format!("-damaged-{name}")));
    }
    for kept in kept {
        assert_eq!(fs::read(&kept).unwrap(), [7; 40_960]);
        assert_eq!(fs::read(beside(&kept, "-salvaged")).unwrap(), b"of before");
    }
}

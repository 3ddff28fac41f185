//! Segments that are damaged or missing are set aside and counted; the rest goes on.

use super::*;

/// Changes a byte inside the data of the segment at `first`, in the file itself.
fn damage(path: &Path, first: i64) {
    let db = rusqlite::Connection::open(path).unwrap();
    let data: Vec<u8> =
        db.query_row("SELECT data FROM segment WHERE stream = 0 AND first = ?1", [first], |row| row.get(0)).unwrap();
    db.close().unwrap();
    let mut file = fs::read(path).unwrap();
    let part = &data[8..40];
    let at = file.windows(part.len()).position(|w| w == part).unwrap();
    file[at + 9] ^= 0x20;
    fs::write(path, file).unwrap();
}

#[test]
fn a_damaged_segment_is_set_aside_and_the_rest_goes_on() {
    let pool = Pool::new();
    let text = |i: usize| format!("{i} {}", "the quick brown fox jumps over it ".repeat(i + 2)).into_bytes();
    for i in 0..3 {
        pool.store(vec![text(i), text(i)]);
        pool.journal.sync().unwrap();
    }
    let info = pool.consumer("scored", StreamId::INPUTS);
    pool.journal.close();
    damage(&pool.path, 2);
    let report = verify(&pool.path).unwrap();
    assert_eq!(report.problem_count, 1, "{report:?}");
    assert!(report.problems[0].contains("segment at 2 is damaged"), "{report:?}");

    let pool = pool.reopen();
    let read: Vec<i64> = pool.payloads(0).iter().map(|(offset, _)| *offset).collect();
    assert_eq!(read, [0, 1, 4, 5]);
    pool.commit(Commit::at(info.id, 6));
    let ledger = pool.journal.ledger();
    assert_eq!(ledger.sum(Edge::Consumer, "scored", what::READ), 4);
    assert_eq!(ledger.get(&Counter::new(Edge::Consumer, "scored", what::SKIPPED).because("damaged")), 2);
    let status = pool.status();
    assert_eq!((status.quarantine[0].first, status.quarantine[0].end), (2, 4));
    let report = verify(&pool.path).unwrap();
    assert!(report.is_good() && report.quarantined == 1, "{report:?}");
    assert_eq!(pool.store_some(1), 6..7);
}

#[test]
fn a_damaged_last_segment_does_not_hold_its_readers() {
    let pool = Pool::new();
    pool.store(vec!["a rather long text that does not compress to nothing, 0123456789".repeat(3).into_bytes()]);
    pool.journal.close();
    damage(&pool.path, 0);
    let pool = pool.reopen();
    let mut reader = pool.journal.reader(StreamId::INPUTS, 0);
    assert_eq!(read_payloads(&mut reader), []);
    assert_eq!(reader.position(), 1);
    pool.store_some(1);
    assert_eq!(read_payloads(&mut reader).len(), 1);
}

#[test]
fn a_damaged_mixed_segment_is_set_aside_with_what_each_input_has_in_it() {
    let pool = Pool::new();
    let zones = pool.journal.input("zones").unwrap();
    let text = |i: usize| format!("{i} {}", "the quick brown fox jumps over it ".repeat(i % 5 + 2)).into_bytes();
    for checkpoint in 0..3 {
        for turn in 0..6 {
            let input = if turn % 2 == 0 { pool.input } else { zones };
            let (batch, answer) = append(input, vec![text(checkpoint * 6 + turn)]);
            pool.journal.append(batch);
            answer.recv_timeout(PATIENCE).unwrap().unwrap();
        }
        pool.journal.sync().unwrap();
    }
    let names = ["rides", "zones"];
    let ids = names.map(|name| pool.consumer(name, StreamId::INPUTS).id);
    pool.journal.close();
    damage(&pool.path, 6);
    let pool = pool.reopen();
    assert_eq!(pool.segments(StreamId::INPUTS), [0, 6, 12], "nothing was looked at so far");
    for (turn, input) in [pool.input, zones].into_iter().enumerate() {
        let mut reader = pool.journal.reader(StreamId::INPUTS, 0).only(&[input]);
        let read = read_payloads(&mut reader);
        let own = (0..6).chain(12..18).skip(turn).step_by(2).map(|i| (i as i64, text(i)));
        assert_eq!(read, own.collect::<Vec<_>>(), "{}", names[turn]);
        assert_eq!(reader.position(), 18);
    }
    for (id, name) in ids.into_iter().zip(names) {
        pool.commit(Commit::at(id, 18));
        let ledger = pool.journal.ledger();
        assert_eq!(ledger.sum(Edge::Consumer, name, what::READ), 12);
        assert_eq!(ledger.get(&Counter::new(Edge::Consumer, name, what::SKIPPED).because("damaged")), 6);
    }
    let status = pool.status();
    assert_eq!((status.quarantine[0].first, status.quarantine[0].end), (6, 12));
    let report = verify(&pool.path).unwrap();
    assert!(report.is_good() && report.quarantined == 1, "{report:?}");
}

fn skipped(pool: &Pool, consumer: &str, reason: &'static str) -> u64 {
    pool.journal.ledger().get(&Counter::new(Edge::Consumer, consumer, what::SKIPPED).because(reason))
}

fn read_count(pool: &Pool, consumer: &str) -> u64 {
    pool.journal.ledger().sum(Edge::Consumer, consumer, what::READ)
}

fn ranges(pool: &Pool) -> Vec<(i64, i64)> {
    pool.status().quarantine.iter().map(|q| (q.first, q.end)).collect()
}

/// Does something to the file of a pool that is closed.
fn in_file(path: &Path, sql: &str) {
    rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn offsets_that_have_no_segment_are_counted_and_told_until_somebody_has_seen_it() {
    // in the middle, at the beginning, at the end, two side by side, all of them
    for (gone, missing) in [
        ("first = 2", vec![(2, 4)]),
        ("first = 0", vec![(0, 2)]),
        ("first = 6", vec![(6, 8)]),
        ("first IN (2, 4)", vec![(2, 6)]),
        ("first IN (0, 4)", vec![(0, 2), (4, 6)]),
        ("1", vec![(0, 8)]),
    ] {
        let pool = Pool::new();
        for _ in 0..4 {
            pool.store_segment(2);
        }
        let ids = ["a", "b"].map(|name| pool.consumer(name, StreamId::INPUTS).id);
        pool.journal.close();
        in_file(&pool.path, &format!("DELETE FROM segment WHERE stream = 0 AND {gone}"));
        let report = verify(&pool.path).unwrap();
        assert_eq!(report.problem_count, missing.len() as u64, "{report:?}");
        assert!(report.problems[0].contains("are missing; they are counted and set aside once"), "{report:?}");

        let pool = pool.reopen();
        // in the redo log behind them
        pool.store_some(1);
        let is_missing = |offset: &i64| missing.iter().any(|(from, to)| (from..to).contains(&offset));
        let left: Vec<i64> = (0..9).filter(|offset| !is_missing(offset)).collect();
        let lost = 9 - left.len() as u64;
        for (id, name) in ids.into_iter().zip(["a", "b"]) {
            let read: Vec<i64> = pool.payloads(0).iter().map(|(offset, _)| *offset).collect();
            assert_eq!(read, left, "{gone}");
            pool.commit(Commit::at(id, 9));
            assert_eq!((read_count(&pool, name), skipped(&pool, name, "missing")), (9 - lost, lost), "{gone}");
            assert_eq!(skipped(&pool, name, "damaged"), 0);
        }
        assert_eq!(ranges(&pool), missing);
        assert!(pool.status().quarantine[0].reason.starts_with("missing"));
        let places = missing.len() as u64;
        let all = QuarantineCount { ranges: places, records: lost, unseen_ranges: places, unseen_records: lost };
        assert_eq!(pool.status().quarantined, all);
        let report = verify(&pool.path).unwrap();
        assert!(report.is_good() && (report.quarantined, report.quarantined_records) == (places, lost), "{report:?}");

        assert_eq!(pool.journal.acknowledge_quarantine(), Ok(all));
        let seen = QuarantineCount { unseen_ranges: 0, unseen_records: 0, ..all };
        let pool = pool.reopen();
        assert_eq!(
            (pool.status().quarantined, ranges(&pool)),
            (seen, missing.clone()),
            "they stay for who comes later"
        );
        assert!(verify(&pool.path).unwrap().is_good());
    }
}

#[test]
fn rows_of_a_statement_that_are_missing_are_counted_too() {
    let pool = Pool::new();
    pool.store_some(6);
    let stream = pool.journal.stream("scored").unwrap();
    let (by, out) = (pool.consumer("by", StreamId::INPUTS).id, pool.consumer("out", stream).id);
    for i in 0..3 {
        pool.commit(Commit { emit: Some((stream, rows(i * 2..i * 2 + 2))), ..Commit::at(by, i * 2 + 2) });
        pool.journal.sync().unwrap();
    }
    pool.journal.close();
    in_file(&pool.path, "DELETE FROM segment WHERE stream = 1 AND first = 2");
    let pool = pool.reopen();
    assert_eq!(row_numbers(&pool, stream, 0), [0, 1, 4, 5]);
    pool.commit(Commit::at(out, 6));
    assert_eq!((read_count(&pool, "out"), skipped(&pool, "out", "missing")), (4, 2));
    assert_eq!(skipped(&pool, "by", "missing"), 0, "it reads another stream");
}

#[test]
fn what_was_dropped_or_trimmed_is_not_missing() {
    let pool = Pool::with(|c| JournalConfig { recent_records: 0, ..c });
    for _ in 0..4 {
        pool.store_segment(2);
    }
    let read = pool.consumer("read", StreamId::INPUTS).id;
    pool.journal.keep_only_consumers(&["read".into()]).unwrap();
    // a reader that is behind the others, as one whose consumer was moved
    let mut behind = pool.journal.reader(StreamId::INPUTS, 0);
    let Read::Events(first) = behind.next(1, Instant::now()).unwrap() else { panic!("nothing") };
    assert_eq!(first.first(), 0);
    pool.commit(Commit::at(read, 8));
    assert_eq!(pool.segments(StreamId::INPUTS), [0; 0]);
    pool.store_segment(2);
    let left: Vec<i64> = read_payloads(&mut behind).iter().map(|(offset, _)| *offset).collect();
    assert!(left.ends_with(&[8, 9]), "{left:?}");
    pool.journal.sync().unwrap();
    assert_eq!(pool.status().quarantined, QuarantineCount::default());
}

/// Overwrites a page with zeros.
pub fn clear_page(path: &Path, page: i64) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0; 4096], (page as u64 - 1) * 4096).unwrap();
}

/// The pages of a table or index, by their kind.
pub fn pages(path: &Path, of: &str, kind: &str) -> Vec<i64> {
    let db = rusqlite::Connection::open(path).unwrap();
    let sql = "SELECT pageno FROM dbstat WHERE name = ?1 AND pagetype = ?2 ORDER BY path";
    let mut find = db.prepare(sql).unwrap();
    find.query_map([of, kind], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// 60 segments of one event, of which some lie on each page; every tenth takes several.
fn spread_out() -> Pool {
    let pool = Pool::with(|c| JournalConfig { recent_records: 0, ..c });
    for i in 0..60 {
        pool.store(vec![noise(if i % 10 == 5 { 20_000 } else { 600 }, i + 1)]);
        pool.journal.sync().unwrap();
    }
    pool
}

#[test]
fn a_damaged_page_costs_its_segments_and_nothing_else() {
    for (of, kind) in [("segment", "leaf"), ("segment", "overflow"), ("sqlite_autoindex_segment_1", "leaf")] {
        let pool = spread_out();
        let out = pool.consumer("out", StreamId::INPUTS).id;
        pool.journal.keep_only_consumers(&["out".into()]).unwrap();
        pool.journal.close();
        let found = pages(&pool.path, of, kind);
        clear_page(&pool.path, found[found.len() / 2]);
        assert!(!verify(&pool.path).unwrap().is_good(), "{of} {kind}");
        let pool = pool.reopen();
        pool.consumer("out", StreamId::INPUTS);
        pool.journal.keep_only_consumers(&["out".into()]).unwrap();
        // intake goes on beside it
        assert_eq!(pool.store_some(1), 60..61);
        let read: Vec<i64> = pool.payloads(0).iter().map(|(offset, _)| *offset).collect();
        assert_eq!(read.last(), Some(&60), "{of} {kind}");
        let lost = 61 - read.len() as u64;
        match of {
            "segment" => assert!((1..30).contains(&lost), "{kind}: {lost} of 61"),
            _ => assert_eq!(lost, 0, "the index is made anew"),
        }
        let done = pool.journal.commit(Commit::at(out, 61)).wait();
        assert_eq!(done, Ok(()), "{of} {kind}");
        assert_eq!((read_count(&pool, "out"), skipped(&pool, "out", "damaged")), (61 - lost, lost), "{of} {kind}");
        assert_eq!(pool.status().quarantined.records, lost);
        // what everybody has read goes, but what lies on that page
        for _ in 0..3 {
            pool.store_segment(1);
        }
        assert!(pool.segments(StreamId::INPUTS).len() < 30, "{of} {kind}");
        assert_eq!(pool.journal.refusal(), None);
        let pool = pool.reopen();
        assert_eq!(pool.store_some(1), 64..65);
        let problems = verify(&pool.path).unwrap().problems;
        assert!(problems.iter().all(|p| p.starts_with("file: ")), "only the file is damaged: {problems:?}");
    }
}

/// Whatever page it is: the start ends with what to do, or everything that can be read is read and the rest counted.
#[test]
fn no_damaged_page_stops_what_can_go_on_or_is_passed_in_silence() {
    let pool = spread_out();
    let out = pool.consumer("out", StreamId::INPUTS).id;
    let state = |i: u8| StateChange { op: 0, key: vec![i], value: Some(noise(200, i.into())) };
    pool.commit(Commit { state: (0..50).map(state).collect(), ..Commit::at(out, 3) });
    pool.journal.close();
    let count = fs::metadata(&pool.path).unwrap().len() / 4096;
    let (mut beyond, mut lost_some) = (0, 0);
    for page in 1..=count as i64 {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("job.db");
        for file in ["", "-high-water", "-redo"] {
            fs::copy(beside(&pool.path, file), beside(&path, file)).unwrap();
        }
        clear_page(&path, page);
        let is_beyond_use = |error: &JournalError| {
            let told = error.to_string();
            assert!(matches!(error, JournalError::BeyondUse { .. }), "page {page}: {told}");
            assert!(told.contains("`on_damage = \"fresh\"`"), "{told}");
            assert!(!told.contains("journal verify"), "the advice runs in a circle: {told}");
        };
        let journal = match Journal::open(JournalConfig { path: path.clone(), ..pool.config.clone() }) {
            Ok(journal) => journal,
            Err(error) => {
                is_beyond_use(&error);
                beyond += 1;
                continue;
            }
        };
        let mut done = || -> Result<(), JournalError> {
            let input = journal.input("rides")?;
            let out = journal.register_consumer(spec("out", StreamId::INPUTS))?;
            journal.keep_only_consumers(&["out".into()])?;
            let position = out.position;
            let mut reader = journal.reader(StreamId::INPUTS, position).of(out.id);
            let mut read = 0;
            loop {
                match reader.next(7, Instant::now())? {
                    Read::Events(slice) => read += slice.len() as u64,
                    Read::Idle if reader.position() == 60 => break,
                    Read::Idle | Read::Passed => {}
                    other => panic!("{other:?}"),
                }
            }
            journal.commit(Commit::at(out.id, 60)).wait()?;
            let sum = |what| journal.ledger().sum(Edge::Consumer, "out", what);
            assert_eq!((sum(what::READ), sum(what::READ) + sum(what::SKIPPED)), (read + 3, 60), "page {page}");
            lost_some += u32::from(sum(what::SKIPPED) > 0);
            let (batch, answer) = append(input, vec![b"{}".to_vec()]);
            journal.append(batch);
            assert_eq!(answer.recv_timeout(PATIENCE).unwrap()?, 60..61, "page {page}");
            journal.sync()?;
            // of a state on that page only its statement is told
            match journal.load_state(out.id) {
                Err(JournalError::State { .. }) => {}
                other => assert_eq!(other?.len(), 50),
            }
            journal.status()?;
            Ok(())
        };
        if let Err(error) = done() {
            is_beyond_use(&error);
            beyond += 1;
        }
        journal.close();
        // whoever looks gets an answer, or the same advice
        let _ = verify(&path).map_err(|error| is_beyond_use(&error));
        let _ = JournalStatus::open_readonly(&path).map_err(|error| is_beyond_use(&error));
    }
    assert!(lost_some > 10, "{lost_some} of {count} pages cost some records");
    assert!(beyond < count / 2, "{beyond} of {count} pages are beyond use");
}

#[test]
fn the_state_of_one_consumer_that_is_damaged_is_told_and_given_up_alone() {
    let pool = Pool::new();
    pool.store_some(3);
    let ids = ["a", "b"].map(|name| pool.consumer(name, StreamId::INPUTS).id);
    let row = |i: u8| StateChange { op: 2, key: vec![i], value: Some(vec![i; 40]) };
    for id in ids {
        pool.commit(Commit { state: vec![row(1), row(2)], ..Commit::at(id, 2) });
    }
    pool.journal.sync().unwrap();
    for damage in [
        "value = x'00'",
        // a wrong place is as bad as a wrong value
        "op = 7",
        "key = x'09'",
        "checksum = 'x'",
        "value = NULL",
    ] {
        let image = pool.crash_image();
        image.journal.close();
        // SQLite itself takes no NULL there
        let sql = format!(
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'value BLOB NOT NULL', 'value \
             BLOB') WHERE name = 'state'; PRAGMA writable_schema = RESET;
             UPDATE state SET {damage} WHERE consumer = {} AND key = x'01'",
            ids[0].0
        );
        in_file(&image.path, &sql);
        let problems = verify(&image.path).unwrap().problems;
        assert!(problems.iter().any(|p| p.starts_with("the state of a is damaged")), "{damage}: {problems:?}");
        let image = image.reopen();
        let error = image.journal.load_state(ids[0]).unwrap_err();
        assert!(matches!(&error, JournalError::State { consumer, .. } if consumer == "a"), "{damage}: {error}");
        assert_eq!(image.journal.load_state(ids[1]).unwrap().len(), 2);
        let reset = image.journal.reset_state(vec!["a".into()]).unwrap();
        assert_eq!(reset, [ResetState { consumer: "a".into(), position: 2, rows: Some(2) }]);
        assert_eq!(
            (image.journal.load_state(ids[0]), image.journal.load_state(ids[1]).unwrap().len()),
            (Ok(vec![]), 2)
        );
        let found = image.consumer("a", StreamId::INPUTS);
        assert_eq!((found.position, found.changed), (2, false));
        assert_eq!(verify(&image.path).unwrap().problems, [] as [&str; 0], "{damage}");
    }
    // rows of a pool that had no checksums are taken as they are, and get one when they change
    pool.journal.close();
    in_file(&pool.path, "UPDATE state SET checksum = NULL");
    let pool = pool.reopen();
    assert_eq!(pool.journal.load_state(ids[0]).unwrap().len(), 2);
    pool.commit(Commit { state: vec![row(1)], ..Commit::at(ids[0], 3) });
    pool.journal.close();
    let db = rusqlite::Connection::open(&pool.path).unwrap();
    let sql = "SELECT count(checksum) FROM state";
    assert_eq!(db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
}

#[test]
fn state_is_given_up_also_where_it_lies_on_a_damaged_page() {
    let pool = Pool::new();
    pool.store_some(3);
    let ids = ["a", "b"].map(|name| pool.consumer(name, StreamId::INPUTS).id);
    let row = |i: u8| StateChange { op: 2, key: vec![i], value: Some(noise(500, i.into())) };
    for id in ids {
        pool.commit(Commit { state: (0..30).map(row).collect(), ..Commit::at(id, 2) });
    }
    pool.journal.close();
    let inner = pages(&pool.path, "state", "internal");
    let all = [inner.clone(), pages(&pool.path, "state", "leaf")].concat();
    assert!(inner.len() == 1 && all.len() > 6, "{all:?}");
    let (mut alone, mut beyond) = (0, 0);
    for page in all {
        let image = TempDir::new().unwrap();
        let path = image.path().join("job.db");
        for file in ["", "-high-water", "-redo"] {
            fs::copy(beside(&pool.path, file), beside(&path, file)).unwrap();
        }
        clear_page(&path, page);
        let image = Pool::open(JournalConfig { path, ..pool.config.clone() });
        let loaded = |id| image.journal.load_state(id).map(|rows| rows.len());
        let was_whole = ids.map(|id| loaded(id).is_ok());
        assert!(was_whole != [true, true], "page {page}");
        let reset = match image.journal.reset_state(vec!["a".into()]) {
            Ok(reset) => reset,
            // the leaf that lies where the new table is to begin, and the page above it
            Err(error) => {
                assert!(matches!(error, JournalError::BeyondUse { .. }), "page {page}: {error}");
                beyond += 1;
                continue;
            }
        };
        let rows = was_whole[0].then_some(30);
        assert_eq!(reset, [ResetState { consumer: "a".into(), position: 2, rows }], "page {page}");
        assert_eq!(loaded(ids[0]), Ok(0), "page {page}");
        // what the other holds is as it was, or it is told
        match was_whole[1] {
            true => assert_eq!(loaded(ids[1]), Ok(30), "page {page}"),
            false => {
                assert!(matches!(loaded(ids[1]), Err(JournalError::State { .. })), "page {page}");
                image.journal.reset_state(vec!["b".into()]).unwrap();
                assert_eq!(loaded(ids[1]), Ok(0), "page {page}");
            }
        }
        alone += u32::from(was_whole != [false, false]);
        image.commit(Commit { state: vec![row(1)], ..Commit::at(ids[0], 3) });
        let image = image.reopen();
        assert_eq!(image.journal.load_state(ids[0]).map(|rows| rows.len()), Ok(1), "page {page}");
        let problems = verify(&image.path).unwrap().problems;
        assert!(problems.iter().all(|problem| problem.starts_with("file: ")), "page {page}: {problems:?}");
    }
    assert!(alone > 4, "a page costs the state of one alone");
    assert!(beyond <= 2, "{beyond} pages let nobody give up state");
}

#[test]
fn state_that_belongs_to_nobody_is_told() {
    let pool = Pool::new();
    let id = pool.consumer("windows", StreamId::INPUTS).id;
    let change = StateChange { op: 1, key: b"k".to_vec(), value: Some(b"v".to_vec()) };
    pool.commit(Commit { state: vec![change], ..Commit::at(id, 0) });
    pool.journal.close();
    assert!(verify(&pool.path).unwrap().is_good());
    in_file(&pool.path, "UPDATE state SET consumer = consumer + 64");
    let problems = verify(&pool.path).unwrap().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("state that belongs to no consumer: 1 rows"), "{problems:?}");
}

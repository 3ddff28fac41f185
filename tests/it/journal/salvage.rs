//! Whatever is damaged, what can be read of a pool is in the new one as it was, and the rest is counted.

use std::collections::BTreeSet;

use super::damage::clear_page;
use super::*;

const FILES: [&str; 4] = ["", "-wal", "-redo", "-high-water"];

/// The files of a pool in a folder of their own.
struct Image {
    dir: TempDir,
    config: JournalConfig,
}

impl Image {
    fn of(pool: &Pool) -> Image {
        let dir = TempDir::new().unwrap();
        let config = JournalConfig { path: dir.path().join("job.db"), ..pool.config.clone() };
        for file in FILES {
            // a pool that is closed has no write-ahead log
            if let Ok(bytes) = fs::read(beside(&pool.path, file)) {
                fs::write(beside(&config.path, file), bytes).unwrap();
            }
        }
        Image { dir, config }
    }

    fn path(&self) -> &Path {
        &self.config.path
    }

    /// Every file and its bytes, but what is new.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let all = fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().path());
        let named = all.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path));
        let mut found: Vec<_> = named.filter(|(name, _)| !name.ends_with(".lock") && name != "new.db").collect();
        found.sort();
        found.into_iter().map(|(name, path)| (name, fs::read(path).unwrap())).collect()
    }

    /// What became of it, and the new pool where a job finds it.
    fn salvaged(&self) -> (Salvaged, Pool) {
        let before = self.files();
        let to = self.dir.path().join("new.db");
        let (salvaged, report) = salvage(&self.config, &to).unwrap();
        assert!(before == self.files(), "something of the damaged pool was changed");
        assert!(report.is_good(), "{report:?}");
        let dir = TempDir::new().unwrap();
        let config = JournalConfig { path: dir.path().join("job.db"), ..self.config.clone() };
        restore(&config, &to, RestoredOn::Same).unwrap();
        let mut pool = Pool::open(config);
        pool.dir = Some(dir);
        (salvaged, pool)
    }
}

/// What a pool had before it was damaged.
struct Whole {
    pool: Pool,
    by: ConsumerId,
    stream: StreamId,
    payloads: Vec<Vec<u8>>,
}

/// 60 segments of one event, of which some lie on each page; every tenth takes several. Rows, state, dead letters.
fn whole() -> Whole {
    let pool = Pool::with(|c| JournalConfig { recent_records: 0, ..c });
    let mut payloads = Vec::new();
    for i in 0..60 {
        payloads.push(noise(if i % 10 == 5 { 20_000 } else { 600 }, i + 1));
        pool.store(vec![payloads[i as usize].clone()]);
        pool.journal.sync().unwrap();
    }
    let stream = pool.journal.stream("scored").unwrap();
    let by = pool.consumer("by", StreamId::INPUTS).id;
    let (other, out) = (pool.consumer("other", StreamId::INPUTS).id, pool.consumer("out", stream).id);
    let state = |i: u8| StateChange { op: 0, key: vec![i], value: Some(noise(200, i.into())) };
    let emit = Some((stream, rows(0..40)));
    pool.commit(Commit { state: (0..50).map(state).collect(), emit, ..Commit::at(by, 3) });
    pool.commit(Commit { state: (0..50).map(state).collect(), ..Commit::at(other, 2) });
    pool.commit(Commit::at(out, 30));
    for n in 0..20 {
        let (stage, payload) = ("output o".into(), noise(6000, n));
        let letter = DeadLetter { stage, payload, offset: Some(n as i64), ..DeadLetter::default() };
        pool.journal.add_dead_letters(vec![letter]).unwrap();
    }
    pool.journal.put_meta("client/forebay-taxi", b"used").unwrap();
    pool.journal.sync().unwrap();
    Whole { pool, by, stream, payloads }
}

/// No record is another than it was, those that are missing are those that are told, and whoever reads counts them.
/// Gives how many are missing.
fn is_right(what: &str, salvaged: &Salvaged, pool: &Pool, payloads: &[Vec<u8>]) -> u64 {
    let end = payloads.len() as i64;
    let found = pool.payloads(0);
    for (offset, payload) in &found {
        assert!(payloads[*offset as usize] == *payload, "{what}: the record at {offset} is another");
    }
    let found: BTreeSet<i64> = found.into_iter().map(|(offset, _)| offset).collect();
    let told = salvaged.lost.iter().filter(|range| range.stream == "inputs").flat_map(|range| range.first..range.end);
    let told: BTreeSet<i64> = told.collect();
    assert_eq!(told, (0..end).filter(|offset| !found.contains(offset)).collect(), "{what}");
    // a consumer that begins now
    let reader =
        pool.journal.register_consumer(ConsumerSpec { start: Start::Oldest, ..spec("late", StreamId::INPUTS) });
    pool.commit(Commit::at(reader.unwrap().id, end));
    let sum = |what| pool.journal.ledger().sum(Edge::Consumer, "late", what);
    assert_eq!((sum(what::READ), sum(what::SKIPPED)), (found.len() as u64, told.len() as u64), "{what}");
    assert!(pool.store_some(1).start >= end, "{what}: no offset is given out twice");
    assert!(!pool.journal.id_renewals().is_empty(), "{what}: ids of what comes are others");
    let report = verify(&pool.path).unwrap();
    assert!(report.is_good(), "{what}: {:?}", report.problems);
    told.len() as u64
}

/// For each page of the file: whose it is, its kind, and how many rows begin on it.
fn pages_of(path: &Path) -> Vec<(String, String, i64)> {
    let db = rusqlite::Connection::open(path).unwrap();
    let count: i64 = db.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    let mut pages = vec![(String::new(), String::new(), 0); count as usize + 1];
    let mut find = db.prepare("SELECT pageno, name, pagetype, ncell FROM dbstat").unwrap();
    let found = find.query_map([], |row| Ok((row.get::<_, i64>(0)?, (row.get(1)?, row.get(2)?, row.get(3)?)))).unwrap();
    for (number, page) in found.map(Result::unwrap) {
        pages[number as usize] = page;
    }
    pages
}

#[test]
fn each_page_of_a_pool_may_be_lost_and_costs_the_rows_on_it_alone() {
    let whole = whole();
    let incarnation = whole.pool.journal.incarnation();
    let suffix = whole.pool.journal.client_id_suffix().unwrap();
    whole.pool.journal.close();
    let pages = pages_of(&whole.pool.path);
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (page, (of, kind, rows)) in pages.iter().enumerate().skip(1) {
        let what = format!("page {page}, {of} {kind}");
        seen.insert(of);
        let image = Image::of(&whole.pool);
        clear_page(image.path(), page as i64);
        let (salvaged, pool) = image.salvaged();
        let lost = match (of.as_str(), kind.as_str()) {
            // most segments hold one event, those of rows none of the inputs
            ("segment", "leaf") => rows.unsigned_abs(),
            ("segment", "overflow") => 1,
            _ => 0,
        };
        assert!(salvaged.lost_records() >= lost || lost == 0, "{what}: {salvaged:?}");
        assert_eq!(salvaged.lost_records() == 0, lost == 0, "{what}: {salvaged:?}");
        let missing = is_right(&what, &salvaged, &pool, &whole.payloads);
        assert!(missing <= lost, "{what}: {missing} of {lost}");

        assert_eq!(pool.journal.incarnation(), incarnation, "{what}: rows keep their ids");
        assert_eq!(pool.input, whole.pool.input, "{what}: the input has its name");
        if of != "meta" {
            assert_eq!(pool.journal.client_id_suffix().unwrap(), suffix, "{what}");
        }
        let status = pool.status();
        let position = |name| status.consumers.iter().find(|c| c.name == name).map(|c| c.position);
        if of != "consumer" {
            assert_eq!(["by", "other", "out"].map(position), [Some(3), Some(2), Some(30)], "{what}");
            let state = pool.journal.load_state(whole.by).unwrap();
            assert!(state.len() == 50 || (state.is_empty() && of == "state"), "{what}: {}", state.len());
        } else {
            // it begins with what is there, whatever the job says
            let by = ConsumerSpec { start: Start::Now, ..spec("by", StreamId::INPUTS) };
            let by = pool.journal.register_consumer(by).unwrap();
            assert!(by.is_new && by.position == 0, "{what}: {by:?}");
        }
        if of != "segment" {
            assert_eq!(row_numbers(&pool, whole.stream, 0), (0..40).collect::<Vec<_>>(), "{what}");
        }
        let letters = status.dead_letters.letters;
        assert!(letters == 20 || of == "dead_letter", "{what}: {letters}");
        assert_eq!(salvaged.dead_letters, letters);
        for stored in dead_letters_readonly(&pool.path, &LetterFilter::default(), 100).unwrap() {
            let offset = stored.letter.offset.unwrap();
            assert!(stored.letter.payload == noise(6000, offset as u64), "{what}: the letter of {offset} is another");
        }
        assert!(!salvaged.notes.is_empty() || !salvaged.lost.is_empty() || letters == 20, "{what}");
    }
    let tables = ["sqlite_schema", "meta", "input", "stream", "segment", "consumer", "state", "ledger", "dead_letter"];
    assert!(tables.iter().all(|table| seen.contains(table)), "{seen:?}");
}

#[test]
fn state_is_whole_or_begins_anew_also_where_a_page_lies_in_the_place_of_another() {
    let whole = whole();
    whole.pool.journal.close();
    let bytes = fs::read(&whole.pool.path).unwrap();
    let pages = pages_of(&whole.pool.path).into_iter().enumerate();
    let leaves: Vec<usize> =
        pages.filter(|(_, (of, kind, _))| of == "state" && kind == "leaf").map(|(n, _)| n).collect();
    let wanted: Vec<StateEntry> =
        (0..50).map(|i| StateEntry { op: 0, key: vec![i], value: noise(200, i.into()) }).collect();
    let ids = [whole.by, ConsumerId(whole.by.0 + 1)];
    let mut anew = 0;
    for (from, to) in leaves.iter().flat_map(|from| leaves.iter().map(move |to| (from, to))).filter(|(a, b)| a != b) {
        let image = Image::of(&whole.pool);
        let mut bytes = bytes.clone();
        bytes.copy_within((from - 1) * 4096..from * 4096, (to - 1) * 4096);
        fs::write(image.path(), bytes).unwrap();
        let (salvaged, pool) = image.salvaged();
        for id in ids {
            let state = pool.journal.load_state(id).unwrap();
            assert!(state == wanted || state.is_empty(), "page {from} in the place of {to}: {} rows", state.len());
            anew += u32::from(state.is_empty());
        }
        assert!(salvaged.notes.iter().any(|note| note.contains("begins anew")), "{from} {to}: {salvaged:?}");
    }
    assert!(leaves.len() > 3 && anew > 0, "{leaves:?}");
}

#[test]
fn a_pool_whose_process_was_killed_is_salvaged_with_its_logs() {
    let whole = whole();
    let more = noise(300, 77);
    whole.pool.store(vec![more.clone()]);
    let row = StateChange { op: 9, key: vec![9], value: Some(vec![9]) };
    whole.pool.commit(Commit { state: vec![row], ..Commit::at(whole.by, 7) });
    let payloads = [whole.payloads.clone(), vec![more]].concat();
    // nothing of it is damaged; what the log belongs to is not known
    for damaged in ["nothing", "meta"] {
        let image = Image::of(&whole.pool);
        if damaged == "meta" {
            // SQLite copies the write-ahead log into the file
            let at = pages_of(image.path()).iter().position(|(of, ..)| of == "meta").unwrap();
            clear_page(image.path(), at as i64);
        }
        let (salvaged, pool) = image.salvaged();
        assert_eq!(pool.journal.load_state(whole.by).unwrap().len(), 51, "{damaged}");
        let status = pool.status();
        assert_eq!(status.consumers.iter().find(|c| c.name == "by").unwrap().position, 7, "{damaged}");
        assert_eq!(is_right(damaged, &salvaged, &pool, &payloads), 0, "{damaged}: {salvaged:?}");
    }
    // nothing but the log and the mark is left: its event is of an input that has no name any more
    let image = Image::of(&whole.pool);
    fs::remove_file(image.path()).unwrap();
    fs::remove_file(beside(image.path(), "-wal")).unwrap();
    let (salvaged, pool) = image.salvaged();
    for note in ["kept as those of `unknown 1`", "what was not read of inputs before offset 60, and is missing"] {
        assert!(salvaged.notes.iter().any(|told| told.contains(note)), "{salvaged:?}");
    }
    assert_eq!(pool.payloads(0), [(60, payloads[60].clone())]);
    assert_eq!(pool.store_some(1), 61..62);
    assert_eq!(pool.journal.incarnation(), whole.pool.journal.incarnation());
    // of a log whose end is gone the mark beside it tells
    let image = Image::of(&whole.pool);
    fs::write(beside(image.path(), "-redo"), vec![0; 65_536]).unwrap();
    let (salvaged, pool) = image.salvaged();
    let lost = LostRange { stream: "inputs".into(), first: 60, end: 61 };
    assert_eq!(salvaged.lost, [lost]);
    assert_eq!(is_right("a log of zeros", &salvaged, &pool, &payloads), 1);
    assert_eq!(pool.journal.ledger().get(&Counter::new(Edge::Input, "", what::LOST)), 1);
}

#[test]
fn whatever_bytes_are_changed_no_record_is_another_than_it_was() {
    let whole = whole();
    whole.pool.journal.close();
    let length = fs::metadata(&whole.pool.path).unwrap().len();
    let mut rng = fastrand::Rng::with_seed(7);
    let mut missing = 0;
    for round in 0..60 {
        let image = Image::of(&whole.pool);
        let mut bytes = fs::read(image.path()).unwrap();
        for _ in 0..rng.usize(1..20) {
            let at = rng.u64(..length) as usize;
            match round % 3 {
                // not in the header of the file: what it says of its version has no checksum
                0 => bytes[at.max(100)] ^= 1 << rng.u8(..8),
                1 => bytes[at / 4096 * 4096..][..4096].fill_with(|| rng.u8(..)),
                _ => {
                    // a page in the place of another one
                    let from = rng.u64(..length) as usize / 4096 * 4096;
                    bytes.copy_within(from..from + 4096, at / 4096 * 4096);
                }
            }
        }
        fs::write(image.path(), bytes).unwrap();
        let (salvaged, pool) = image.salvaged();
        for (offset, payload) in pool.payloads(0) {
            if let Some(known) = whole.payloads.get(offset as usize) {
                assert!(*known == payload, "round {round}: the record at {offset} is another");
            }
        }
        missing += salvaged.lost_records();
        assert!(verify(&pool.path).unwrap().is_good(), "round {round}");
    }
    assert!(missing > 100, "{missing} records are missing in all");
}

#[test]
fn who_runs_and_what_is_there_is_not_touched() {
    let pool = Pool::new();
    pool.store_segment(3);
    let dir = TempDir::new().unwrap();
    let to = dir.path().join("new.db");
    assert!(matches!(salvage(&pool.config, &to), Err(JournalError::Locked { .. })));
    pool.journal.close();
    fs::write(&to, "of somebody").unwrap();
    assert!(matches!(salvage(&pool.config, &to), Err(JournalError::Exists { .. })));
    assert_eq!(fs::read_to_string(&to).unwrap(), "of somebody");
    for (id, version) in [(1, 2), (0x6662_6179, 99)] {
        let config = config(&dir.path().join(format!("{version}.db")));
        let db = rusqlite::Connection::open(&config.path).unwrap();
        db.execute_batch(&format!("CREATE TABLE t (x); PRAGMA application_id = {id}; PRAGMA user_version = {version}"))
            .unwrap();
        let error = salvage(&config, &dir.path().join("other.db")).unwrap_err();
        assert!(matches!(error, JournalError::Foreign { .. } | JournalError::Schema { .. }), "{error}");
    }
    assert!(!dir.path().join("other.db").exists() && !dir.path().join("other.db-unfinished").exists());
}

#[test]
fn records_that_were_set_aside_and_are_found_after_all_are_read_and_not_skipped_too() {
    let whole = whole();
    whole.pool.journal.close();
    // a job met a page that it could not read, and a person has seen it
    let db = rusqlite::Connection::open(&whole.pool.path).unwrap();
    for (first, past) in [(10, 20), (30, 31), (59, 60)] {
        let sql = "INSERT INTO quarantine (stream, first, past, reason, at) VALUES (0, ?1, ?2, 'a page is damaged', 0)";
        db.execute(sql, [first, past]).unwrap();
    }
    db.close().unwrap();
    let (salvaged, new) = Image::of(&whole.pool).salvaged();
    assert_eq!(salvaged.lost_records(), 0, "{salvaged:?}");
    assert_eq!(is_right("found again", &salvaged, &new, &whole.payloads), 0);
    assert_eq!(new.payloads(0).len(), 61);
    assert_eq!(new.status().quarantined, QuarantineCount::default(), "nothing is told as lost that is there");
}

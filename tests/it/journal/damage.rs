//! Segments whose bytes are damaged are set aside and counted; the rest goes on.

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

//! Dead letters, and the counts that go with them.

use super::*;

#[test]
fn dead_letters_stay_below_their_cap_and_are_stored_once() {
    let pool = Pool::with(|c| JournalConfig { dead_letters_max_bytes: 5_000, ..c });
    let consumer = pool.consumer("scored", StreamId::INPUTS);
    let letter = |n: i64, size: usize| DeadLetter {
        at: at(n),
        stage: "statement scored".into(),
        reason: "conversion".into(),
        message: format!("letter {n}"),
        offset: Some(n),
        payload: vec![b'x'; size],
        request: Some(b"request".to_vec()),
        attempts: 1,
        ..DeadLetter::default()
    };
    for _ in 0..2 {
        pool.commit(Commit { dead_letters: vec![letter(0, 100), letter(1, 100)], ..Commit::at(consumer.id, 0) });
    }
    let stored = dead_letters_readonly(&pool.path, &LetterFilter::default(), 10).unwrap();
    assert_eq!(
        stored.iter().map(|l| (l.letter.offset, l.letter.attempts)).collect::<Vec<_>>(),
        [(Some(0), 2), (Some(1), 2)]
    );
    assert_eq!(stored[0].letter.request.as_deref(), Some(&b"request"[..]));
    for n in 2..10 {
        pool.journal.add_dead_letters(vec![letter(n, 1000)]).unwrap();
    }
    let count = pool.status().dead_letters;
    assert!(count.bytes <= 5_000 && count.letters == 4, "{count:?}");
    let left = dead_letters_readonly(&pool.path, &LetterFilter::default(), 100).unwrap();
    assert_eq!(
        left.iter().map(|l| l.letter.offset.unwrap()).collect::<Vec<_>>(),
        [6, 7, 8, 9],
        "the oldest went first"
    );
    assert_eq!(pool.journal.ledger().get(&Counter::new(Edge::DeadLetters, "", what::DROPPED).because("cap")), 6);
    assert_eq!(
        dead_letters_readonly(&pool.path, &LetterFilter { after: left[1].id, ..LetterFilter::default() }, 1).unwrap(),
        [left[2].clone()]
    );
    assert_eq!(
        pool.journal.drop_dead_letters(LetterFilter { ids: Some(vec![left[0].id, 12345]), ..LetterFilter::default() }),
        Ok(1)
    );
    assert!(verify(&pool.path).unwrap().is_good());
    assert_eq!(pool.journal.drop_dead_letters(LetterFilter::default()), Ok(3));
    assert_eq!(pool.status().dead_letters, DeadLetterCount::default());
    pool.journal.add_dead_letters(vec![letter(20, 10)]).unwrap();
    let next = dead_letters_readonly(&pool.path, &LetterFilter::default(), 1).unwrap();
    assert_eq!(next.first().unwrap().id, left[3].id + 1, "no number is given out twice");
    assert!(verify(&pool.path).unwrap().is_good());
}

#[test]
fn undecodable_and_dropped_records_balance_what_was_received() {
    let pool = Pool::new();
    let (mut batch, answer) = append(pool.input, vec![b"{}".to_vec()]);
    let letter = DeadLetter {
        stage: "input rides".into(),
        reason: "undecodable".into(),
        payload: b"{".to_vec(),
        ..DeadLetter::default()
    };
    batch.undecodable = vec![letter.clone(), letter];
    batch.dropped = vec![("too_large", 3)];
    batch.received = 6;
    pool.journal.append(batch);
    answer.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(pool.status().dead_letters.letters, 2, "equal ones without an offset are not the same");
    assert!(verify(&pool.path).unwrap().is_good());
    pool.journal.count(vec![(Counter::new(Edge::Input, "rides", what::RECEIVED), 1)]).unwrap();
    let report = verify(&pool.path).unwrap();
    assert_eq!(
        report.problems,
        ["input rides: received = stored + undecodable + dropped does not hold: 7 on the left, 6 on the right"]
    );
}

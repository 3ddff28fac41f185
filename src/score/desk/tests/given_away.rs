//! Rows that somebody else answers while the endpoint is away, and the way back.

use super::*;

pub(super) const AFTER: Duration = Duration::from_secs(30);

pub(super) fn giving(after: Duration) -> Rules {
    Rules { fallback_after: Some(after), ..rules() }
}

/// How many rows were scored, and how many were given away.
fn fates(run: &Run) -> (usize, usize) {
    let of = |wanted: fn(&Outcome) -> bool| {
        run.chunks.iter().flat_map(|(_, outcomes)| outcomes).filter(|outcome| wanted(outcome)).count()
    };
    (of(|outcome| matches!(outcome, Outcome::Scored(_))), of(|outcome| matches!(outcome, Outcome::Away)))
}

pub(super) fn away(_: Duration, _: &[i64]) -> Answer {
    fault(Answered::Unreachable)
}

/// The chunks that are decided now.
pub(super) fn decided(desk: &mut Desk) -> Vec<Vec<Outcome>> {
    let done = |event| match event {
        DeskEvent::Done { outcomes, .. } => Some(outcomes),
        _ => None,
    };
    desk.take_events().into_iter().filter_map(done).collect()
}

#[test]
fn whatever_keeps_rows_waiting_they_are_given_away_after_the_time() {
    type Line = (&'static str, fn() -> Answer);
    let table: [Line; 14] = [
        ("unreachable", || fault(Answered::Unreachable)),
        ("certificate", || fault(Answered::BadCertificate(Mistrust::Expired))),
        ("timeout", || fault(Answered::TimedOut)),
        ("closed", || fault(Answered::Closed)),
        ("bad response", || fault(Answered::BadResponse)),
        ("204", || status(204)),
        ("400", || status(400)),
        ("401", || status(401)),
        ("403", || status(403)),
        ("404", || status(404)),
        ("409", || status(409)),
        ("429", || status(429)),
        ("500", || status(500)),
        ("503", || status(503)),
    ];
    for (name, answer) in table {
        for proven in [false, true] {
            let mut desk = desk(giving(AFTER));
            if proven {
                desk.submit(Duration::ZERO, 0, rows([7]));
                assert_eq!(fates(&run(&mut desk, Duration::ZERO, MS(0), model)), (1, 0), "{name}");
            }
            desk.submit(Duration::ZERO, 0, rows(0..8));
            let before = run(&mut desk, Duration::ZERO, AFTER - MS(1), |_, _| answer());
            assert_eq!((fates(&before), desk.away_since()), ((0, 0), None), "{name}");
            let then = run(&mut desk, AFTER - MS(1), AFTER, |_, _| answer());
            assert_eq!((fates(&then), desk.away_since()), ((0, 8), Some(Duration::ZERO)), "{name}");
            // from now on nobody waits, and the endpoint is asked by one row at a time
            let mut asked = 0;
            for second in 31..300 {
                let at = Duration::from_secs(second);
                desk.submit(at, 0, rows(second as i64 * 10..second as i64 * 10 + 3));
                let meanwhile = run(&mut desk, at, at + MS(999), |_, numbers| {
                    assert!(numbers.len() <= 1, "{name}");
                    asked += numbers.len();
                    answer()
                });
                assert_eq!(fates(&meanwhile), (0, 3), "{name} at {second} s");
            }
            // without a connection there are knocks alone
            let looks = if name == "unreachable" { 0..1 } else { 3..60 };
            assert!(looks.contains(&asked), "{name}: {asked} looks in four and a half minutes");
            // back: at the next look
            run(&mut desk, MS(300_000), MS(361_000), model);
            assert_eq!((desk.away_since(), desk.standing()), (None, Standing::Ready), "{name}");
            desk.submit(MS(361_000), 0, rows(0..8));
            assert_eq!(fates(&run(&mut desk, MS(361_000), MS(362_000), model)), (8, 0), "{name}");
        }
    }
}

#[test]
fn requests_and_looks_that_hang_hold_back_no_row() {
    let mut desk = desk(giving(AFTER));
    desk.submit(MS(0), 0, rows(0..4));
    let first = desk.next_request(MS(0)).unwrap();
    desk.submit(MS(10), 0, rows(4..6));
    assert_eq!(desk.wake(MS(10)), Some(MS(30)), "they linger");
    let second = desk.next_request(MS(30)).unwrap();
    assert!(desk.next_request(MS(29_999)).is_none() && decided(&mut desk).is_empty());
    assert_eq!(desk.wake(MS(29_999)), Some(AFTER));
    // both hang, and as many may be out
    assert!(desk.next_request(AFTER).is_none());
    assert_eq!(decided(&mut desk), [vec![Outcome::Away; 4], vec![Outcome::Away; 2]]);
    assert_eq!(desk.away_since(), Some(MS(0)));
    desk.submit(MS(31_000), 0, rows(6..8));
    assert!(desk.next_request(MS(31_000)).is_none());
    assert_eq!(decided(&mut desk), [vec![Outcome::Away; 2]]);
    // one ends, and a copy of the newest row looks in its place
    desk.answered(MS(32_000), second.id, fault(Answered::TimedOut), 0.5);
    let look = desk.next_request(MS(32_000)).unwrap();
    assert_eq!(numbers(&look), [7]);
    desk.submit(MS(33_000), 0, rows(8..9));
    assert!(desk.next_request(MS(33_000)).is_none());
    assert_eq!(decided(&mut desk), [vec![Outcome::Away]], "the look hangs as well");
    // what the first request brings at last is nobody's any more
    desk.answered(MS(34_000), first.id, results(&[0, 1, 2, 3]), 0.5);
    assert!(desk.next_request(MS(34_000)).is_none() && decided(&mut desk).is_empty());
    assert!(desk.away_since().is_some());
    desk.answered(MS(35_000), look.id, results(&[7]), 0.5);
    assert_eq!((desk.away_since(), desk.standing()), (None, Standing::Ready));
    desk.submit(MS(36_000), 0, rows(9..11));
    let request = desk.next_request(MS(36_000)).unwrap();
    assert_eq!(numbers(&request), [9, 10]);
}

#[test]
fn a_good_answer_that_comes_too_late_has_the_endpoint_looked_at_at_once() {
    let mut desk = desk(giving(MS(1_000)));
    desk.submit(MS(0), 0, rows(0..1));
    let hangs = desk.next_request(MS(0)).unwrap();
    desk.submit(MS(30), 0, rows(1..2));
    let refused = desk.next_request(MS(60)).unwrap();
    desk.answered(MS(100), refused.id, status(401), 0.5);
    assert!(desk.next_request(MS(1_100)).is_none(), "a key is looked at after a minute");
    assert_eq!(decided(&mut desk).concat(), [Outcome::Away, Outcome::Away]);
    desk.answered(MS(2_000), hangs.id, results(&[0]), 0.5);
    let look = desk.next_request(MS(2_000)).unwrap();
    desk.answered(MS(2_010), look.id, results(&[1]), 0.5);
    assert_eq!(desk.away_since(), None);
    assert!(decided(&mut desk).is_empty());
}

#[test]
fn without_a_signature_rows_are_given_away_until_it_is_there_and_a_row_is_scored() {
    let mut desk = Desk::new(giving(AFTER));
    desk.submit(MS(1_000), 0, rows(0..4));
    assert!(desk.next_request(MS(1_000)).is_none());
    desk.signature_missing(MS(2_000));
    assert_eq!(fates(&run(&mut desk, MS(1_000), MS(29_999), away)), (0, 0));
    assert_eq!(fates(&run(&mut desk, MS(29_999), MS(30_000), away)), (0, 4), "counted from the start");
    desk.submit(MS(60_000), 0, rows(4..6));
    assert_eq!(fates(&run(&mut desk, MS(60_000), MS(61_000), away)), (0, 2));
    desk.set_signature(MS(61_000), &array_of(Cell::BigInt));
    let look = desk.next_request(MS(61_000)).unwrap();
    assert_eq!(numbers(&look), [5]);
    desk.submit(MS(61_010), 0, rows(6..8));
    assert!(desk.next_request(MS(61_010)).is_none());
    assert_eq!(decided(&mut desk), [[Outcome::Away, Outcome::Away]]);
    desk.answered(MS(61_020), look.id, results(&[5]), 0.5);
    desk.submit(MS(61_030), 0, rows(8..9));
    assert_eq!(fates(&run(&mut desk, MS(61_030), MS(62_000), model)), (1, 0));
}

#[test]
fn a_signature_that_is_on_its_way_gives_no_row_away_while_it_may_come() {
    let mut desk = Desk::new(giving(Duration::ZERO));
    desk.submit(MS(10), 0, rows(0..4));
    assert_eq!(fates(&run(&mut desk, MS(10), MS(9_999), away)), (0, 0));
    let mut other = Desk::new(giving(Duration::ZERO));
    other.submit(MS(10), 0, rows(0..4));
    other.signature_missing(MS(20));
    assert_eq!(fates(&run(&mut other, MS(20), MS(20), away)), (0, 4), "it was asked for in vain");
    desk.set_signature(MS(9_999), &array_of(Cell::BigInt));
    assert_eq!(fates(&run(&mut desk, MS(9_999), MS(9_999), model)), (4, 0));
    let mut silent = Desk::new(giving(Duration::ZERO));
    silent.submit(MS(10), 0, rows(0..4));
    assert_eq!(fates(&run(&mut silent, MS(10), MS(10_000), away)), (0, 4), "it does not even describe itself");
}

#[test]
fn with_no_time_rows_are_given_away_as_soon_as_the_breaker_closes() {
    let mut desk = desk(giving(Duration::ZERO));
    desk.submit(MS(0), 0, rows(0..4));
    let request = desk.next_request(MS(0)).unwrap();
    assert!(desk.next_request(MS(9_000)).is_none() && decided(&mut desk).is_empty(), "an answer takes its time");
    desk.answered(MS(9_500), request.id, fault(Answered::Unreachable), 0.5);
    desk.submit(MS(9_500), 0, rows(4..5));
    assert!(desk.next_request(MS(9_500)).is_none());
    assert_eq!(decided(&mut desk).concat(), vec![Outcome::Away; 5]);
}

#[test]
fn rows_that_fit_no_signature_have_it_read_again_while_the_endpoint_is_away() {
    let mut desk = desk(giving(Duration::ZERO));
    desk.submit(MS(0), 0, rows(0..4));
    run(&mut desk, MS(0), MS(100), away);
    desk.set_signature(MS(200), &array_of(Cell::DateTime { zoned: true }));
    let run = run(&mut desk, MS(200), MS(300), |_, numbers| match numbers.is_empty() {
        true => results(numbers),
        false => panic!("no row can be sent"),
    });
    assert_eq!(run.refetches, 1);
}

#[test]
fn patient_rows_wait_for_the_endpoint_and_let_others_go_first() {
    let mut desk = desk(Rules { max_rows: 10, parallel: 1, ..giving(AFTER) });
    desk.submit_patiently(MS(0), 1, rows(100..130));
    desk.submit(MS(0), 0, rows(0..15));
    let away = run(&mut desk, MS(0), MS(60_000), away);
    assert_eq!((fates(&away), desk.waiting_rows()), ((0, 15), 30));
    // live rows that come with the endpoint go first, and a request has room for others beside them
    let mut seen = Vec::new();
    let back = run(&mut desk, MS(60_000), MS(120_000), |_, numbers| {
        seen.extend((!numbers.is_empty()).then(|| numbers.to_vec()));
        model(MS(0), numbers)
    });
    assert_eq!((fates(&back), desk.is_idle()), ((30, 0), true));
    assert_eq!(seen.iter().map(Vec::len).collect::<Vec<_>>(), [1, 10, 10, 10]);
    desk.submit_patiently(MS(120_000), 1, rows(100..130));
    desk.submit(MS(120_000), 0, rows(0..15));
    desk.submit(MS(120_000), 2, rows(50..65));
    seen.clear();
    run(&mut desk, MS(120_000), MS(121_000), |_, numbers| {
        seen.push(numbers.to_vec());
        model(MS(0), numbers)
    });
    let patient: Vec<usize> = seen.iter().map(|numbers| numbers.iter().filter(|n| **n >= 100).count()).collect();
    assert_eq!(patient, [0, 0, 0, 10, 10, 10]);
}

#[test]
fn an_endpoint_that_refuses_rows_now_and_then_is_not_away() {
    let mut desk = desk(giving(AFTER));
    let (mut given, mut failed) = (0, 0);
    for second in 0..300 {
        let at = Duration::from_secs(second);
        desk.submit(at, 0, rows(if second % 7 == 3 { -1..3 } else { 0..3 }));
        let run = run(&mut desk, at, at + MS(999), model);
        given += fates(&run).1;
        failed += run.chunks.iter().map(|(_, outcomes)| failures(outcomes).len()).sum::<usize>();
    }
    assert_eq!((given, failed), (0, 43));
}

proptest! {
    /// Whatever the endpoint answers for a while, a row ends once: as it should, or given away unless it is patient.
    #[test]
    fn every_row_ends_once(
        chunks in prop::collection::vec((any::<bool>(), prop::collection::vec(a_row(), 1..30), 0u64..200), 1..12),
        answers in prop::collection::vec(0usize..12, 0..80),
        after in 0u64..120,
        max_rows in 1usize..40,
    ) {
        let mut desk = desk(Rules { max_rows, ..giving(Duration::from_secs(after)) });
        let (mut script, mut now) = (answers.into_iter(), Duration::ZERO);
        let mut expected = std::collections::HashMap::new();
        let mut ended = Vec::new();
        for (is_patient, numbers, pause) in chunks {
            let args = rows(numbers.iter().copied());
            let id = match is_patient {
                true => desk.submit_patiently(now, 1, args),
                false => desk.submit(now, 0, args),
            };
            expected.insert(id, (is_patient, numbers));
            let until = now + Duration::from_secs(pause);
            ended.extend(run(&mut desk, now, until, |now, n| match script.next() {
                Some(0) => status(503),
                Some(1) => status(429),
                Some(2) => status(404),
                Some(3) => status(401),
                Some(4) => fault(Answered::Unreachable),
                Some(5) => status(409),
                Some(6) => fault(Answered::TimedOut),
                _ => model(now, n),
            }).chunks);
            now = until;
        }
        // one more good row, so that bad ones can be told
        let last = desk.submit(now, 0, rows([1]));
        expected.insert(last, (false, vec![1]));
        ended.extend(run(&mut desk, now, now + MS(36_000_000), model).chunks);
        prop_assert_eq!(ended.len(), expected.len());
        for (chunk, outcomes) in &ended {
            let (is_patient, numbers) = &expected[chunk];
            prop_assert_eq!(outcomes.len(), numbers.len());
            for (n, outcome) in numbers.iter().zip(outcomes) {
                match outcome {
                    Outcome::Scored(value) => prop_assert_eq!(value, &Value::BigInt(n * 10)),
                    // a row that no answer came for at each of its turns is too slow for all that can be known
                    Outcome::Failed(failure) => prop_assert!(*n < 0 || failure.reason == "too_slow", "{} is good", n),
                    Outcome::Away => prop_assert!(!is_patient, "{} is patient", n),
                }
            }
        }
    }
}

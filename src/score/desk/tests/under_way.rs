//! Requests under way when their rows are given away: what their answers may do, and what not.

use std::collections::BTreeMap;

use super::given_away::{AFTER, away, decided, giving};
use super::*;

/// While rows are given away a look is due or under way, unless nothing can be sent at all.
fn assert_looks(desk: &Desk, why: &str) {
    if desk.away_since().is_some() && desk.form.is_some() {
        assert!(desk.gate.closed().is_some(), "{why}: the gate is open");
        assert!(desk.must_look, "{why}: nobody looks");
        assert!(desk.gate.opens_at().is_some() || !desk.flights.is_empty(), "{why}: no look is due");
    }
}

/// Takes what `endpoint` answers after the time that it says; time jumps to the next thing that is due, up to `limit`.
fn run_late(
    desk: &mut Desk,
    from: Duration,
    limit: Duration,
    mut endpoint: impl FnMut(&[i64]) -> (Duration, Answer),
    pending: &mut Vec<(Duration, u64, Answer)>,
) -> Vec<(u64, Vec<Outcome>)> {
    let (mut now, mut chunks, mut requests) = (from, Vec::new(), 0);
    loop {
        while let Some(request) = desk.next_request(now) {
            requests += 1;
            assert!(requests < 20_000, "no end of requests");
            let (takes, answer) = endpoint(&numbers(&request));
            pending.push((now + takes, request.id, answer));
            assert_looks(desk, "sent");
        }
        if let Some(id) = desk.next_knock(now, false) {
            desk.knocked(now, id, true, 0.5);
            continue;
        }
        assert_looks(desk, "nothing to send");
        chunks.extend(desk.take_events().into_iter().filter_map(|event| match event {
            DeskEvent::Done { chunk, outcomes } => Some((chunk, outcomes)),
            _ => None,
        }));
        if let Some(at) = pending.iter().position(|(at, ..)| *at <= now) {
            let (_, id, answer) = pending.swap_remove(at);
            desk.answered(now, id, answer, 0.5);
            assert_looks(desk, "answered");
            continue;
        }
        let answers = pending.iter().map(|(at, ..)| *at);
        match desk.wake(now).into_iter().chain(answers).min().filter(|at| *at <= limit) {
            Some(at) => now = at,
            None => return chunks,
        }
    }
}

type Line = (&'static str, fn() -> Answer);

/// Every class of answer.
const ANSWERS: [Line; 17] = [
    ("results", || results(&[0])),
    ("bad response", || fault(Answered::BadResponse)),
    ("unreachable", || fault(Answered::Unreachable)),
    ("certificate", || fault(Answered::BadCertificate(Mistrust::Expired))),
    ("closed", || fault(Answered::Closed)),
    ("timeout", || fault(Answered::TimedOut)),
    ("204", || status(204)),
    ("400", || status(400)),
    ("401", || status(401)),
    ("404", || status(404)),
    ("409", || status(409)),
    ("413", || status(413)),
    ("424", || status(424)),
    ("429", || status(429)),
    ("500", || status(500)),
    ("502", || status(502)),
    ("503", || status(503)),
];

#[test]
fn whatever_a_probe_brings_whose_rows_were_given_away_the_endpoint_is_looked_at_on() {
    for (name, answer) in ANSWERS {
        for (closing, close) in ANSWERS.into_iter().filter(|(name, _)| ["unreachable", "503", "404"].contains(name)) {
            for patient in [0, 1] {
                let why = format!("{closing}, then {name}, {patient} patient rows");
                let mut desk = desk(giving(AFTER));
                desk.submit(MS(0), 0, rows(0..1));
                let first = desk.next_request(MS(0)).unwrap();
                desk.answered(MS(1), first.id, close(), 0.5);
                // the gate opens for a probe, which is rows that wait
                desk.look_now(MS(100));
                hear(&mut desk, MS(100));
                (0..patient).for_each(|n| _ = desk.submit_patiently(MS(100), 1, rows([50 + n])));
                let probe = desk.next_request(MS(100)).unwrap();
                assert!(desk.next_request(AFTER + MS(1)).is_none());
                assert_eq!(decided(&mut desk).concat(), [Outcome::Away], "{why}");
                desk.answered(AFTER + MS(2), probe.id, answer(), 0.5);
                assert_looks(&desk, &why);
                // well from now on: live rows come all the time
                let mut pending = Vec::new();
                let mut scored = 0;
                for second in 31..150 {
                    let at = Duration::from_secs(second);
                    desk.submit(at, 0, rows([1]));
                    let ended = run_late(&mut desk, at, at + MS(999), |n| (MS(1), results(n)), &mut pending);
                    let outcomes = ended.iter().flat_map(|(_, outcomes)| outcomes);
                    scored += outcomes.filter(|outcome| matches!(outcome, Outcome::Scored(_))).count();
                }
                assert_eq!((desk.away_since(), desk.standing()), (None, Standing::Ready), "{why}");
                assert!(scored > 30, "{why}: {scored}");
            }
        }
    }
}

#[test]
fn rows_behind_patient_requests_that_hang_wait_no_longer_than_behind_others() {
    let mut desk = desk(Rules { max_rows: 1, ..giving(AFTER) });
    desk.submit_patiently(MS(0), 1, rows(100..104));
    while desk.next_request(MS(0)).is_some() {}
    assert!(desk.next_request(MS(5_000)).is_none());
    desk.submit(MS(6_000), 0, rows(0..3));
    assert!(desk.next_request(MS(6_000)).is_none(), "no request may go");
    assert_eq!(desk.wake(MS(7_000)), Some(MS(6_000) + AFTER));
    assert!(desk.next_request(MS(5_999) + AFTER).is_none() && decided(&mut desk).is_empty());
    assert!(desk.next_request(MS(6_000) + AFTER).is_none());
    assert_eq!(decided(&mut desk).concat(), vec![Outcome::Away; 3]);
}

#[test]
fn a_function_that_is_over_is_not_away() {
    let mut desk = desk(Rules { mode: Mode::Asa, ..giving(Duration::ZERO) });
    desk.submit(MS(0), 0, rows(0..1));
    run(&mut desk, MS(0), MS(0), away);
    assert!(desk.away_since().is_some());
    run(&mut desk, MS(0), MS(10_000), |_, _| status(400));
    assert_eq!(desk.away_since(), None);
    assert!(matches!(desk.standing(), Standing::Failed(_)));
}

proptest! {
    /// Whatever the endpoint answers for a while, and however late: each chunk ends once, no patient row is given away,
    /// and once the endpoint is well it is used again.
    #[test]
    fn an_endpoint_that_is_well_is_used_again(
        chunks in prop::collection::vec((any::<bool>(), 1i64..8, 0u64..40), 1..12),
        answers in prop::collection::vec((0usize..ANSWERS.len(), 0u64..10_000), 0..60),
        after in 0u64..40,
        max_rows in 1usize..10,
    ) {
        let mut desk = desk(Rules { max_rows, ..giving(Duration::from_secs(after)) });
        let (mut script, mut now, mut pending) = (answers.into_iter(), Duration::ZERO, Vec::new());
        let (mut sent, mut ended) = (std::collections::HashMap::new(), Vec::new());
        for (is_patient, n, pause) in chunks {
            let id = match is_patient {
                true => desk.submit_patiently(now, 1, rows(0..n)),
                false => desk.submit(now, 0, rows(0..n)),
            };
            sent.insert(id, is_patient);
            let until = now + Duration::from_secs(pause);
            let endpoint = |n: &[i64]| match script.next() {
                Some((0, takes)) => (MS(takes), results(n)),
                Some((of, takes)) => (MS(takes), (ANSWERS[of].1)()),
                None => (MS(5), results(n)),
            };
            ended.extend(run_late(&mut desk, now, until, endpoint, &mut pending));
            now = until;
        }
        // well from now on, and live rows come all the time
        for _ in 0..300 {
            let last = desk.submit(now, 0, rows([1]));
            sent.insert(last, false);
            let until = now + Duration::from_secs(1);
            ended.extend(run_late(&mut desk, now, until, |n| (MS(1), results(n)), &mut pending));
            now = until;
        }
        prop_assert_eq!(desk.away_since(), None);
        prop_assert_eq!(desk.standing(), Standing::Ready);
        prop_assert_eq!(ended.len(), sent.len());
        for (chunk, outcomes) in &ended {
            prop_assert!(!sent[chunk] || !outcomes.contains(&Outcome::Away), "a patient row was given away");
        }
    }
}

/// Requests for a row every 100 ms in ten seconds, and the longest that a row waited. An answer takes 30 ms.
fn slow_stream(linger_idle: Duration) -> (usize, Duration) {
    let mut desk = desk(Rules { linger_idle, ..rules() });
    let (mut requests, mut longest, mut came) = (0, Duration::ZERO, BTreeMap::new());
    let mut out: Vec<(Duration, u64, Vec<i64>)> = Vec::new();
    for at in 0..12_000 {
        let now = MS(at);
        if at % 100 == 0 && at < 10_000 {
            desk.submit(now, 0, rows([at as i64]));
            came.insert(at as i64, now);
        }
        for (_, id, numbers) in out.extract_if(.., |(ends, ..)| *ends <= now) {
            desk.answered(now, id, results(&numbers), 0.5);
        }
        while let Some(request) = desk.next_request(now) {
            requests += 1;
            let sent = numbers(&request);
            longest = sent.iter().map(|n| now - came[n]).fold(longest, Duration::max);
            out.push((now + MS(30), request.id, sent));
        }
        desk.take_events();
    }
    assert!(desk.is_idle() && came.len() == 100);
    (requests, longest)
}

#[test]
fn a_slow_stream_goes_in_fewer_requests_where_rows_wait_for_others() {
    assert_eq!(slow_stream(MS(0)), (100, MS(0)));
    // six rows: one that waits the whole time, and those of the half second
    assert_eq!(slow_stream(MS(500)), (17, MS(500)));
    assert_eq!(slow_stream(MS(2_000)), (5, MS(2_000)));
}

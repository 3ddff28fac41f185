//! Outages as tables: a desk, a scripted endpoint, and time that moves only when nothing else can happen.

mod at_once;
mod given_away;
mod paused;
mod under_way;

use std::time::Duration;

use proptest::prelude::*;

use super::super::breaker::{Cause, Pauses};
use super::super::policy::{Answered, Blocked, HttpStatus, Mode, Outage};
use super::super::signature::{Cell, Cells, EndpointSignature, Layout};
use super::super::{Failure, NanPolicy, Outcome, texts};
use super::{Answer, Desk, DeskEvent, OnMisfit, Request, Rules, Standing};
use crate::backoff::Backoff;
use crate::tls::Mistrust;
use crate::value::Value;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn rules() -> Rules {
    Rules {
        max_rows: 1000,
        max_bytes: 1_000_000,
        parallel: 4,
        unstored_max: usize::MAX,
        catchup_rate: None,
        catchup_start: Duration::ZERO,
        linger: MS(20),
        linger_idle: MS(0),
        mode: Mode::Edge,
        nan: NanPolicy::Null,
        on_misfit: OnMisfit::Pause,
        pauses: Pauses {
            backoff: Backoff { base: MS(500), cap: MS(60_000) },
            slow_probe: MS(60_000),
            knock: MS(2_000),
        },
        text_max: None,
        fallback_after: None,
        request_timeout: MS(10_000),
    }
}

fn desk(rules: Rules) -> Desk {
    let mut desk = Desk::new(rules);
    desk.set_signature(Duration::ZERO, &array_of(Cell::BigInt));
    desk
}

/// A signature of rows of one cell.
fn array_of(cell: Cell) -> EndpointSignature {
    EndpointSignature::of(
        vec!["data".into()],
        Layout::Array { dims: 2, width: Some(1), cells: Cells::Each(vec![cell]) },
        Vec::new(),
    )
}

fn rows(numbers: impl IntoIterator<Item = i64>) -> Vec<Value> {
    numbers.into_iter().map(|n| Value::array(vec![Value::BigInt(n)])).collect()
}

/// The numbers of a request's body.
fn numbers(request: &Request) -> Vec<i64> {
    let body: serde_json::Value = serde_json::from_str(&request.body).unwrap();
    body["data"].as_array().unwrap().iter().map(|row| row[0].as_i64().unwrap()).collect()
}

fn results(numbers: &[i64]) -> Answer {
    let values = numbers.iter().map(|n| Value::BigInt(n * 10)).collect();
    Answer { outcome: Answered::Results, values, details: Default::default() }
}

fn status(code: u16) -> Answer {
    let facts = HttpStatus { code, model: None, function_failed: code == 500 };
    let mut details = super::Details { text: format!("asked for {code}"), ..Default::default() };
    details.status = Some(code);
    Answer { outcome: Answered::Status(facts), values: Vec::new(), details }
}

fn fault(outcome: Answered) -> Answer {
    Answer { outcome, values: Vec::new(), details: Default::default() }
}

/// What a run of the desk against a scripted endpoint came to.
#[derive(Default)]
struct Run {
    chunks: Vec<(u64, Vec<Outcome>)>,
    requests: usize,
    knocks: usize,
    took: Duration,
    failed: Option<String>,
    /// How often the signature was to be read again.
    refetches: usize,
}

/// A knock that is due is heard.
fn hear(desk: &mut Desk, now: Duration) {
    if let Some(id) = desk.next_knock(now, false) {
        desk.knocked(now, id, true, 0.5);
    }
}

/// Answers every request at once by `endpoint`; time jumps to the next thing that is due, up to `limit`.
fn run(desk: &mut Desk, from: Duration, limit: Duration, mut endpoint: impl FnMut(Duration, &[i64]) -> Answer) -> Run {
    let (mut now, mut run) = (from, Run::default());
    loop {
        while let Some(request) = desk.next_request(now) {
            assert!(desk.in_flight() <= 4);
            run.requests += 1;
            assert!(run.requests < 20_000, "no end of requests");
            let answer = endpoint(now, &numbers(&request));
            desk.answered(now, request.id, answer, 0.5);
        }
        if let Some(id) = desk.next_knock(now, false) {
            run.knocks += 1;
            desk.knocked(now, id, endpoint(now, &[]).outcome != Answered::Unreachable, 0.5);
            continue;
        }
        for event in desk.take_events() {
            match event {
                DeskEvent::Done { chunk, outcomes } => run.chunks.push((chunk, outcomes)),
                DeskEvent::Failed(why) => run.failed = Some(why),
                DeskEvent::Refetch => run.refetches += 1,
                DeskEvent::ReloadKey => {}
            }
        }
        match desk.wake(now).filter(|wake| *wake <= limit) {
            Some(wake) => now = wake,
            None => break,
        }
    }
    run.took = now - from;
    run
}

#[test]
fn texts_of_failed_rows_behind_a_request_without_an_answer_are_bounded() {
    let mut desk = desk(rules());
    desk.submit(Duration::ZERO, 0, rows([1]));
    let head = desk.next_request(Duration::ZERO).unwrap();
    // each is refused before it is sent, and shows itself: 6,000 bytes, of which 4,096 are kept
    let bad = |n: usize| Value::array(vec![Value::Text(format!("x{n:05}").repeat(1_000).into())]);
    let mut held: Vec<Outcome> = Vec::new();
    for second in 1..=20 {
        desk.submit(Duration::from_secs(second), 0, (0..500).map(bad).collect());
        assert!(desk.next_request(Duration::from_secs(second) + MS(20)).is_none());
        for event in desk.take_events() {
            let DeskEvent::Done { outcomes, .. } = event else { panic!("{event:?}") };
            held.extend(outcomes);
        }
    }
    let failed = failures(&held);
    assert_eq!(failed.len(), 10_000);
    let bytes: usize = failed.iter().map(|(_, failure)| failure.text_bytes()).sum();
    assert!(bytes <= texts::BYTES_MAX + failed.len() * (texts::SHORT_MAX + "…".len()), "{bytes}");
    let whole = failed.iter().filter(|(_, failure)| !failure.request.is_empty()).count();
    assert!((300..1_100).contains(&whole), "{whole} have all of their texts");
    assert!(failed.iter().all(|(_, failure)| failure.reason == failed[0].1.reason && !failure.message.is_empty()));
    // the head is answered, and what was behind it is stored
    desk.answered(Duration::from_secs(30), head.id, results(&[1]), 0.5);
    held.clear();
    let after = Duration::from_secs(31);
    desk.submit(after, 0, vec![bad(0)]);
    assert!(desk.next_request(after + MS(20)).is_none());
    let Some(DeskEvent::Done { outcomes, .. }) = desk.take_events().pop() else { panic!("it is decided") };
    assert!(!failures(&outcomes)[0].1.request.is_empty(), "there is room again");
}

fn failures(outcomes: &[Outcome]) -> Vec<(usize, &Failure)> {
    let failed = |(i, o)| match o {
        &Outcome::Scored(_) => None,
        Outcome::Failed(f) => Some((i, &**f)),
        Outcome::Away => panic!("row {i} was given away"),
    };
    outcomes.iter().enumerate().filter_map(failed).collect()
}

/// The model of these tables: a negative number fails the whole request.
fn model(_: Duration, numbers: &[i64]) -> Answer {
    if numbers.iter().any(|n| *n < 0) { status(500) } else { results(numbers) }
}

#[test]
fn bisecting_costs_what_the_wire_contract_measured() {
    // rows, how many bad ones spread over them, the most requests that measured bisecting took
    for (n, bad, most) in [(1000, 1, 23), (1000, 2, 41), (1000, 5, 80), (1000, 20, 255), (200, 1, 17), (200, 5, 64)] {
        let mut desk = desk(rules());
        let is_bad = |i: i64| i % (n / bad) == n / bad / 3;
        desk.submit(Duration::ZERO, 0, rows((0..n).map(|i| if is_bad(i) { -i } else { i })));
        let run = run(&mut desk, Duration::ZERO, MS(60_000), model);
        let failed = failures(&run.chunks[0].1);
        assert_eq!(failed.len() as i64, bad, "{n} rows");
        assert!(failed.iter().all(|(i, f)| is_bad(*i as i64) && f.reason == "model_failed"));
        assert!(run.requests <= most, "{n} rows, {bad} bad: {} requests", run.requests);
    }
}

/// One outage, whenever it begins and ends, condemns no row that the model takes; the bad ones are still found.
#[test]
fn an_outage_that_ends_while_rows_are_isolated_condemns_nobody() {
    type Line = (&'static str, fn() -> Answer);
    let outages: [Line; 5] = [
        ("502", || status(502)),
        ("424", || status(424)),
        ("599", || status(599)),
        ("closed", || fault(Answered::Closed)),
        ("timeout", || fault(Answered::TimedOut)),
    ];
    for (name, broken) in outages {
        for (numbers, begin, length) in [0, 1, 4, 9].into_iter().flat_map(|begin| {
            let all = [vec![1, 2], vec![1, -2], vec![-1, 2, 3, 4, 5], vec![1, 2, 3, -4, -5, -6, -7, 8]];
            all.into_iter().flat_map(move |numbers| (0..30).map(move |length| (numbers.clone(), begin, length)))
        }) {
            let (mut desk, mut requests) = (desk(rules()), 0);
            desk.submit(Duration::ZERO, 0, rows(numbers.clone()));
            let run = run(&mut desk, Duration::ZERO, MS(36_000_000), |_, n| {
                requests += 1;
                let away = (begin..begin + length).contains(&(requests - 1));
                if away || n.iter().any(|n| *n < 0) { broken() } else { results(n) }
            });
            let found: Vec<usize> = failures(&run.chunks[0].1).iter().map(|(i, _)| *i).collect();
            let bad: Vec<usize> = (0..numbers.len()).filter(|i| numbers[*i] < 0).collect();
            assert_eq!(found, bad, "{name}, {length} requests from {begin} on, {numbers:?}");
        }
    }
}

#[test]
fn an_endpoint_away_for_hours_costs_no_request_and_no_row() {
    let mut desk = desk(rules());
    for statement in 0..3 {
        desk.submit(Duration::ZERO, statement, rows(0..500));
    }
    let hours = MS(3 * 3600 * 1000);
    let run =
        run(
            &mut desk,
            Duration::ZERO,
            hours * 2,
            |now, n| if now < hours { fault(Answered::Unreachable) } else { results(n) },
        );
    assert_eq!(run.chunks.len(), 3);
    assert!(run.chunks.iter().all(|(_, outcomes)| failures(outcomes).is_empty()));
    // one before it is known, one knock each 3.25 s on average, and two full requests and a half when it is back
    assert!(run.requests <= 2 + 3, "{}", run.requests);
    assert!((3_200..3_400).contains(&run.knocks), "{}", run.knocks);
    assert_eq!(desk.standing(), Standing::Ready);
    assert!(desk.is_idle());
}

/// Whenever it comes back, and however the pauses fall, rows flow within five seconds.
#[test]
fn an_endpoint_that_is_back_is_used_within_five_seconds() {
    let mut random = fastrand::Rng::with_seed(12);
    for back in (1..200).map(|n| MS(n * 737)) {
        let mut desk = desk(rules());
        desk.submit(Duration::ZERO, 0, rows(0..5));
        let (mut now, mut scored) = (Duration::ZERO, None);
        while scored.is_none() {
            while let Some(request) = desk.next_request(now) {
                let answer = if now < back { fault(Answered::Unreachable) } else { results(&numbers(&request)) };
                scored = (answer.outcome == Answered::Results).then_some(now);
                desk.answered(now, request.id, answer, random.f64());
            }
            if let Some(id) = desk.next_knock(now, false) {
                // a link that drops packets: those of a knock go after 0, 1 and 3 s, and the next one after its end
                let heard = [0, 1_000, 3_000].map(|after| now + MS(after)).into_iter().find(|at| *at >= back);
                now = heard.unwrap_or(now + MS(5_000));
                desk.knocked(now, id, heard.is_some(), random.f64());
            } else if scored.is_none() {
                now = desk.wake(now).unwrap_or(now);
            }
        }
        let after = scored.unwrap() - back;
        assert!(after <= MS(5_000), "back at {back:?}, used {after:?} later");
    }
}

/// The status table, row by row: the state it leads to while it lasts, and what becomes of 8 rows when it ends.
#[test]
fn every_row_of_the_status_table() {
    let blocked = |b| Some(Cause::Blocked(b));
    let (silent, overloaded) = (Some(Cause::Backoff(Outage::Silent)), Some(Cause::Backoff(Outage::Overloaded)));
    let no_connection = Some(Cause::Backoff(Outage::NoConnection));
    let every_row = blocked(Blocked::Model);
    let bad_response = || fault(Answered::BadResponse);
    type Line = (&'static str, fn() -> Answer, Option<Cause>);
    let table: Vec<Line> = vec![
        ("202", || status(202), blocked(Blocked::Protocol(202))),
        ("204", || status(204), blocked(Blocked::Protocol(204))),
        ("301", || status(301), blocked(Blocked::Protocol(301))),
        ("400", || status(400), every_row),
        ("401", || status(401), blocked(Blocked::Key)),
        ("403", || status(403), blocked(Blocked::Forbidden)),
        ("404", || status(404), blocked(Blocked::NotFound)),
        ("405", || status(405), blocked(Blocked::Protocol(405))),
        ("408", || status(408), silent),
        ("409", || status(409), blocked(Blocked::Busy)),
        ("415", || status(415), blocked(Blocked::Protocol(415))),
        ("422", || status(422), every_row),
        ("424", || status(424), every_row),
        ("429", || status(429), overloaded),
        ("431", || status(431), blocked(Blocked::Protocol(431))),
        ("500", || status(500), every_row),
        ("501", || status(501), blocked(Blocked::Protocol(501))),
        ("502", || status(502), every_row),
        ("503", || status(503), overloaded),
        ("504", || status(504), silent),
        ("599", || status(599), every_row),
        ("unreachable", || fault(Answered::Unreachable), no_connection),
        (
            "certificate",
            || fault(Answered::BadCertificate(Mistrust::Expired)),
            blocked(Blocked::Certificate(Mistrust::Expired)),
        ),
        ("client certificate", || fault(Answered::CertificateRefused), blocked(Blocked::ClientCertificate)),
        ("closed", || fault(Answered::Closed), silent),
        ("timeout", || fault(Answered::TimedOut), silent),
        ("portal", || fault(Answered::Portal), Some(Cause::Backoff(Outage::Intercepted))),
        ("bad response", bad_response, every_row),
    ];
    for (name, answer, expected) in table {
        for proven in [false, true] {
            let mut desk = desk(rules());
            if proven {
                desk.submit(Duration::ZERO, 0, rows([7]));
                run(&mut desk, Duration::ZERO, MS(0), model);
            }
            desk.submit(Duration::ZERO, 0, rows(0..8));
            let trouble = run(&mut desk, Duration::ZERO, MS(240_000), |_, _| answer());
            assert!(trouble.chunks.is_empty(), "{name}: rows were decided while nothing was scored");
            assert!(trouble.requests < 60, "{name}: {} requests in four minutes", trouble.requests);
            match desk.standing() {
                Standing::Closed(closed) => assert_eq!(Some(closed.cause), expected, "{name}"),
                other => assert_eq!(None, expected, "{name}: {other:?}"),
            }
            let after = run(&mut desk, MS(240_000), MS(600_000), model);
            assert_eq!(after.chunks.len(), 1, "{name}");
            assert!(failures(&after.chunks[0].1).is_empty(), "{name}: {:?}", after.chunks[0].1);
        }
    }
}

#[test]
fn mode_asa_fails_the_job_or_waits() {
    for (code, fails) in [
        (400, true),
        (401, true),
        (404, true),
        (409, true),
        (413, true),
        (424, true),
        (429, false),
        (503, false),
        (504, false),
    ] {
        let mut desk = desk(Rules { mode: Mode::Asa, ..rules() });
        desk.submit(Duration::ZERO, 0, rows(0..8));
        let run = run(&mut desk, Duration::ZERO, MS(10_000), |_, _| status(code));
        assert_eq!(run.failed.is_some(), fails, "{code}");
        assert_eq!(matches!(desk.standing(), Standing::Failed(_)), fails, "{code}");
    }
}

#[test]
fn too_large_is_halved_without_blame_and_remembered() {
    let mut desk = desk(rules());
    desk.submit(Duration::ZERO, 0, rows(1000..2000));
    let limited = |_: Duration, n: &[i64]| if n.len() > 300 { status(413) } else { results(n) };
    let first = run(&mut desk, Duration::ZERO, MS(1000), limited);
    assert!(failures(&first.chunks[0].1).is_empty());
    desk.submit(MS(1000), 0, rows(1000..2000));
    let second = run(&mut desk, MS(1000), MS(2000), |_, n| {
        assert!(n.len() <= 500);
        limited(Duration::ZERO, n)
    });
    assert!(failures(&second.chunks[0].1).is_empty());
    let mut single = super::tests::desk(rules());
    single.submit(Duration::ZERO, 0, rows([1, 2]));
    let run = run(&mut single, Duration::ZERO, MS(1000), |_, _| status(413));
    assert!(failures(&run.chunks[0].1).iter().all(|(_, f)| f.reason == "too_large"));
}

#[test]
fn what_takes_too_long_is_sent_in_smaller_requests_that_grow_again() {
    let mut desk = desk(rules());
    desk.submit(Duration::ZERO, 0, rows(0..1000));
    let mut largest = 0;
    let slow = |_: Duration, n: &[i64]| if n.len() > 300 { fault(Answered::TimedOut) } else { results(n) };
    assert!(failures(&run(&mut desk, Duration::ZERO, MS(60_000), slow).chunks[0].1).is_empty());
    desk.submit(MS(60_000), 0, rows(0..1000));
    run(&mut desk, MS(60_000), MS(60_100), |_, n| {
        largest = largest.max(n.len());
        results(n)
    });
    assert_eq!(largest, 250);
    for i in 0..12 {
        desk.submit(MS(61_000 + i * 100), 0, rows(0..1000));
        run(&mut desk, MS(61_000 + i * 100), MS(61_000 + i * 100 + 50), |_, n| {
            largest = largest.max(n.len());
            results(n)
        });
    }
    assert_eq!(largest, 1000);
}

#[test]
fn no_float_that_is_not_finite_gets_through_at_any_depth() {
    let results = [
        // as sent, and what is left under `null`
        ("1.5", "1.5"),
        ("NaN", "null"),
        ("[0.5, NaN]", "[0.5,null]"),
        (r#"{"a": [1, {"b": -Infinity}], "c": "NaN"}"#, r#"{"a":[1,{"b":null}],"c":"NaN"}"#),
        (r#"{"a": [1.5], "c": "low"}"#, r#"{"a":[1.5],"c":"low"}"#),
    ];
    for nan in [NanPolicy::Null, NanPolicy::DeadLetter] {
        let mut desk = desk(Rules { nan, ..rules() });
        desk.submit(Duration::ZERO, 0, rows(0..5));
        let body = format!("[{}]", results.map(|(sent, _)| sent).join(","));
        let values = crate::score::response::read_results(body.as_bytes(), 5, &[]).unwrap();
        let run = run(&mut desk, Duration::ZERO, MS(1000), |_, _| Answer {
            values: values.clone(),
            ..fault(Answered::Results)
        });
        assert_eq!(desk.nan_results(), 3);
        for (outcome, (sent, left)) in run.chunks[0].1.iter().zip(results) {
            match outcome {
                // not by its JSON text alone: that has `null` for NaN too
                Outcome::Scored(value) => assert_eq!(*value, only(left), "{sent}"),
                Outcome::Failed(failure) => {
                    assert_eq!((nan, failure.reason), (NanPolicy::DeadLetter, "nan_result"), "{sent}")
                }
                Outcome::Away => panic!("{sent} was given away"),
            }
        }
        assert_eq!(failures(&run.chunks[0].1).len(), if nan == NanPolicy::Null { 0 } else { 3 });
    }
}

/// The value that a JSON text stands for.
fn only(json: &str) -> Value {
    crate::score::response::read_results(format!("[{json}]").as_bytes(), 1, &[]).unwrap().remove(0)
}

#[test]
fn statements_take_turns() {
    let mut desk = desk(Rules { max_rows: 10, parallel: 1, ..rules() });
    desk.submit(Duration::ZERO, 0, rows(0..40));
    desk.submit(Duration::ZERO, 1, rows(100..120));
    let mut order = Vec::new();
    run(&mut desk, Duration::ZERO, MS(1000), |_, n| {
        order.push(n[0] / 100);
        results(n)
    });
    assert_eq!(order, [0, 1, 0, 1, 0, 0]);
}

#[test]
fn rows_wait_for_company_only_while_others_are_out() {
    let mut desk = desk(rules());
    desk.submit(MS(0), 0, rows([1]));
    let first = desk.next_request(MS(0)).unwrap();
    desk.submit(MS(1), 0, rows([2]));
    assert!(desk.next_request(MS(5)).is_none());
    assert_eq!(desk.wake(MS(5)), Some(MS(21)));
    desk.submit(MS(6), 0, rows([3]));
    let second = desk.next_request(MS(21)).unwrap();
    assert_eq!(numbers(&second), [2, 3]);
    desk.submit(MS(22), 0, rows([4]));
    desk.answered(MS(23), first.id, results(&[1]), 0.5);
    desk.answered(MS(23), second.id, results(&[2, 3]), 0.5);
    assert_eq!(numbers(&desk.next_request(MS(23)).unwrap()), [4]);
}

#[test]
fn a_new_signature_is_used_for_what_is_sent_again() {
    let mut desk = desk(rules());
    desk.submit(Duration::ZERO, 0, rows(0..4));
    run(&mut desk, Duration::ZERO, MS(1000), |_, _| status(500));
    assert!(matches!(desk.standing(), Standing::Closed(_)));
    desk.set_signature(MS(1000), &array_of(Cell::Text));
    let mut done = Vec::new();
    while let Some(request) = desk.next_request(MS(1000)) {
        assert!(request.body.contains("[\"0\"]") || request.body.contains("[\"3\"]"), "{}", request.body);
        let values = vec![Value::BigInt(1); request.rows];
        desk.answered(
            MS(1000),
            request.id,
            Answer { outcome: Answered::Results, values, details: Default::default() },
            0.5,
        );
        done.extend(desk.take_events());
    }
    assert!(done.iter().any(|event| matches!(event, DeskEvent::Done { outcomes, .. } if outcomes.len() == 4)));
}

#[test]
fn an_abandoned_chunk_is_not_sent() {
    let mut desk = desk(rules());
    let chunk = desk.submit(Duration::ZERO, 0, rows(0..4));
    desk.forget(chunk);
    assert!(desk.next_request(MS(100)).is_none());
    assert!(desk.is_idle());
}

/// One in ten cannot be sent.
fn a_row() -> impl Strategy<Value = i64> {
    prop_oneof![9 => 0i64..1000, 1 => -1000i64..-1]
}

proptest! {
    /// Whatever the endpoint answers for a while, every row ends as it should once it answers well again.
    #[test]
    fn no_row_is_lost_condemned_or_answered_twice(
        chunks in prop::collection::vec((0usize..3, prop::collection::vec(a_row(), 1..60)), 1..6),
        answers in prop::collection::vec(0usize..12, 0..60),
        max_rows in 1usize..40,
    ) {
        let mut desk = desk(Rules { max_rows, ..rules() });
        let mut expected = std::collections::HashMap::new();
        for (statement, numbers) in &chunks {
            let id = desk.submit(Duration::ZERO, *statement, rows(numbers.iter().copied()));
            expected.insert(id, numbers.clone());
        }
        let mut script = answers.into_iter();
        let run = run(&mut desk, Duration::ZERO, MS(36_000_000), |now, n| match script.next() {
            Some(0) => status(503),
            Some(1) => status(429),
            Some(2) => status(404),
            Some(3) => status(401),
            Some(4) => fault(Answered::Unreachable),
            Some(5) => status(409),
            _ => model(now, n),
        });
        // with nothing good among them no row may be condemned: they are still held
        if chunks.iter().any(|(_, numbers)| numbers.iter().any(|n| *n >= 0)) {
            prop_assert_eq!(run.chunks.len(), expected.len());
        }
        for (chunk, outcomes) in &run.chunks {
            let numbers = &expected[chunk];
            prop_assert_eq!(outcomes.len(), numbers.len());
            for (n, outcome) in numbers.iter().zip(outcomes) {
                match outcome {
                    Outcome::Scored(value) => prop_assert_eq!(value, &Value::BigInt(n * 10)),
                    Outcome::Failed(_) => prop_assert!(*n < 0, "{} is good", n),
                    Outcome::Away => prop_assert!(false, "{} was given away", n),
                }
            }
        }
    }
}

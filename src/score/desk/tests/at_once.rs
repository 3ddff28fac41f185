//! How much is under way at once.

use std::collections::BTreeMap;

use super::*;

#[test]
fn a_backlog_is_sent_at_its_rate_whatever_the_endpoint_takes() {
    let mut desk = desk(Rules { max_rows: 10, parallel: 4, catchup_rate: Some(100), ..rules() });
    desk.submit(MS(0), 0, rows(0..500));
    let (mut sent, mut times) = (0, Vec::new());
    let mut now = MS(0);
    while now < MS(2_000) {
        while let Some(request) = desk.next_request(now) {
            sent += request.rows;
            times.push(now.as_millis());
            desk.answered(now, request.id, results(&numbers(&request)), 0.0);
        }
        now = desk.wake(now).unwrap();
    }
    assert_eq!(sent, 190, "two seconds, less the first batch");
    assert_eq!(times[..3], [100, 200, 300]);
}

/// Answers of an endpoint that takes some requests at once, 100 ms each, and refuses any more with 429: good ones and
/// refusals in half a minute.
fn served(desk: &mut Desk, capacity: usize) -> (usize, usize) {
    let (mut now, mut out, mut good, mut refused) = (MS(0), BTreeMap::new(), 0, 0);
    while now < MS(30_000) {
        while let Some(request) = desk.next_request(now) {
            let served = out.values().filter(|answer| matches!(answer, Answer { outcome: Answered::Results, .. }));
            let (took, answer) =
                if served.count() < capacity { (100, results(&numbers(&request))) } else { (1, status(429)) };
            out.insert((now + MS(took), request.id), answer);
        }
        let ends = out.first_key_value().map(|((at, _), _)| *at);
        now = ends.into_iter().chain(desk.wake(now)).min().unwrap();
        while let Some(first) = out.first_entry().filter(|first| first.key().0 <= now) {
            let ((_, id), mut answer) = first.remove_entry();
            answer.details.took = MS(100);
            if answer.outcome == Answered::Results {
                good += 1
            } else {
                refused += 1
            }
            desk.answered(now, id, answer, 0.5);
        }
    }
    (good, refused)
}

#[test]
fn an_endpoint_of_one_request_at_a_time_refuses_few() {
    for capacity in [1, 3, 8] {
        let mut desk = desk(Rules { max_rows: 1, parallel: 20, ..rules() });
        desk.submit(MS(0), 0, rows(0..5_000));
        let (good, refused) = served(&mut desk, capacity);
        // the pauses of 1, 2, 4, 8 and 16 s, and what doubling and several at once cost
        assert!(refused <= 6 + 8, "{capacity}: {refused} refused");
        assert!(good >= 300 * capacity * 9 / 10, "{capacity}: {good} good answers");
    }
}

/// Requests that go now, without an answer.
fn out(desk: &mut Desk, now: Duration) -> Vec<Request> {
    std::iter::from_fn(|| desk.next_request(now)).collect()
}

/// A desk that sends 4 requests at once from the start.
fn at_full_speed(rules: Rules) -> Desk {
    let mut desk = desk(rules);
    let warm = desk.submit(MS(0), 0, rows(0..200));
    let mut on_way = std::collections::VecDeque::new();
    loop {
        on_way.extend(out(&mut desk, MS(0)));
        let Some(request) = on_way.pop_front() else { break };
        desk.answered(MS(0), request.id, results(&numbers(&request)), 0.0);
    }
    assert!(matches!(desk.take_events()[..], [DeskEvent::Done { chunk, .. }] if chunk == warm));
    desk.stored(warm);
    desk
}

#[test]
fn no_more_rows_go_before_what_came_of_the_first_is_durable() {
    let rules = Rules { max_rows: 10, parallel: 4, unstored_max: 40, ..rules() };
    let mut desk = at_full_speed(rules);
    let chunks: Vec<u64> = (0..10).map(|n| desk.submit(MS(0), 0, rows(n * 10..n * 10 + 10))).collect();
    // as many as it takes until nothing goes any more, all but the first answered
    let (mut sent, mut first) = (0, None);
    while let Some(request) = desk.next_request(MS(0)) {
        sent += request.rows;
        match first {
            None => first = Some(request),
            Some(_) => desk.answered(MS(0), request.id, results(&numbers(&request)), 0.0),
        }
    }
    assert_eq!(sent, 40);
    assert!(desk.waits_for_commits());
    // another statement does not wait for this one
    desk.submit(MS(0), 1, rows(500..505));
    let others = out(&mut desk, MS(100));
    assert_eq!(others.iter().map(numbers).collect::<Vec<_>>(), [[500, 501, 502, 503, 504]]);
    desk.stored(chunks[1]);
    assert_eq!(numbers(&out(&mut desk, MS(100))[0]), (40..50).collect::<Vec<_>>());
    assert!(out(&mut desk, MS(100)).is_empty(), "room for one request");
}

#[test]
fn a_chunk_of_more_rows_than_may_go_goes_once_it_is_the_oldest() {
    let rules = Rules { max_rows: 10, parallel: 1, unstored_max: 10, ..rules() };
    let mut desk = at_full_speed(rules);
    let small = desk.submit(MS(0), 0, rows(0..5));
    desk.submit(MS(0), 0, rows(10..35));
    let mut sent = Vec::new();
    let mut all = |desk: &mut Desk| {
        while let Some(request) = desk.next_request(MS(100)) {
            sent.push(request.rows);
            desk.answered(MS(100), request.id, results(&numbers(&request)), 0.0);
        }
        sent.iter().sum::<usize>()
    };
    assert_eq!(all(&mut desk), 10);
    desk.stored(small);
    assert_eq!(all(&mut desk), 30);
}

#[test]
fn rows_that_are_put_back_count_once() {
    let rules = Rules { max_rows: 10, parallel: 2, unstored_max: 20, ..rules() };
    let mut desk = desk(rules);
    desk.submit(MS(0), 0, rows(0..50));
    let mut now = MS(0);
    for _ in 0..20 {
        hear(&mut desk, now);
        for request in out(&mut desk, now) {
            assert!(numbers(&request).iter().all(|n| *n < 50));
            desk.answered(now, request.id, fault(Answered::Unreachable), 0.0);
        }
        // a new signature puts back what is not on its way
        desk.set_signature(now, &array_of(Cell::BigInt));
        now += MS(1_000);
    }
    let mut sent = 0;
    hear(&mut desk, now);
    while let Some(request) = desk.next_request(now) {
        sent += request.rows;
        desk.answered(now, request.id, results(&numbers(&request)), 0.0);
    }
    assert_eq!(sent, 50, "the oldest chunk goes whole");
}

#[test]
fn a_backlog_at_the_start_waits_and_single_rows_do_not() {
    let rules = Rules { max_rows: 10, parallel: 4, catchup_start: MS(700), ..rules() };
    let mut desk = desk(rules);
    desk.submit(MS(0), 0, rows(0..3));
    let [single] = &out(&mut desk, MS(0))[..] else { panic!("one request") };
    desk.answered(MS(0), single.id, results(&numbers(single)), 0.0);
    desk.submit(MS(0), 0, rows(10..100));
    assert!(out(&mut desk, MS(699)).is_empty());
    assert_eq!(desk.wake(MS(699)), Some(MS(700)));
    assert_eq!(out(&mut desk, MS(700)).len(), 2);
}

#[test]
fn after_an_outage_sending_begins_with_two_requests_again_and_after_a_hitch_it_does_not() {
    for (outage, at_once) in [(MS(1_000), 4), (MS(3_000), 2)] {
        let mut desk = at_full_speed(Rules { max_rows: 10, parallel: 4, ..rules() });
        assert_eq!(desk.parallel_now(), 4);
        desk.submit(MS(0), 0, rows(0..500));
        for request in out(&mut desk, MS(0)) {
            desk.answered(MS(0), request.id, fault(Answered::Unreachable), 0.0);
        }
        hear(&mut desk, outage);
        let [probe] = &out(&mut desk, outage)[..] else { panic!("one looks whether it is back") };
        desk.answered(outage, probe.id, results(&numbers(probe)), 0.0);
        assert_eq!(out(&mut desk, outage).len(), at_once);
    }
}

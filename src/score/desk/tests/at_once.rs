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

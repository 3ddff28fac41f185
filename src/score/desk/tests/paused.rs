//! A desk that sends nothing but looks comes back, whichever row is at fault, and says what keeps it.

use super::*;

fn two_columns() -> EndpointSignature {
    EndpointSignature::of(
        vec!["data".into()],
        Layout::Array { dims: 2, width: Some(2), cells: Cells::Each(vec![Cell::BigInt, Cell::BigInt]) },
        Vec::new(),
    )
}

fn cause(desk: &Desk) -> Option<Cause> {
    match desk.standing() {
        Standing::Closed(closed) => Some(closed.cause),
        _ => None,
    }
}

const EVERY_ROW: Option<Cause> = Some(Cause::Blocked(Blocked::Model));

#[test]
fn a_signature_that_no_row_fits_is_read_again_until_the_one_before_is_back() {
    for proven in [false, true] {
        let mut desk = desk(rules());
        if proven {
            desk.submit(MS(0), 0, rows([7]));
            run(&mut desk, MS(0), MS(0), model);
        }
        desk.submit(MS(0), 0, rows(0..8));
        run(&mut desk, MS(0), MS(1_000), |_, _| status(400));
        assert_eq!(cause(&desk), EVERY_ROW);
        desk.set_signature(MS(1_000), &two_columns());
        let hour = run(&mut desk, MS(1_000), MS(3_601_000), |_, n| panic!("{n:?} was sent"));
        let misfit = Some(Cause::Blocked(Blocked::Misfit));
        assert_eq!((hour.refetches, cause(&desk)), (61, misfit));
        let shown = "the endpoint takes an array of 2 columns (bigint, bigint), the query sends an array of 1 column \
                     (bigint); the first row is [0]: the endpoint takes 2 columns, the array has 1";
        assert_eq!(desk.misfit(), Some(shown));
        desk.set_signature(MS(3_601_000), &array_of(Cell::BigInt));
        let after = run(&mut desk, MS(3_601_000), MS(3_602_000), model);
        assert_eq!(after.chunks.len(), 1);
        assert!(failures(&after.chunks[0].1).is_empty());
    }
}

#[test]
fn a_row_that_was_scored_before_and_is_refused_now_does_not_hold_up_the_others() {
    for (name, broken) in [("400", status(400)), ("timeout", fault(Answered::TimedOut))] {
        let again = || Answer { outcome: broken.outcome, values: Vec::new(), details: broken.details.clone() };
        let mut desk = desk(rules());
        desk.submit(MS(0), 0, rows([7]));
        run(&mut desk, MS(0), MS(0), model);
        desk.submit(MS(0), 0, rows(0..6));
        run(&mut desk, MS(0), MS(100_000), |_, _| again());
        assert!(cause(&desk).is_some(), "{name}");
        let after = run(&mut desk, MS(100_000), MS(600_000), |_, n| if n.contains(&7) { again() } else { results(n) });
        assert_eq!(after.chunks.len(), 1, "{name}");
        assert!(failures(&after.chunks[0].1).is_empty(), "{name}");
    }
}

#[test]
fn the_only_good_row_is_found_wherever_it_waits() {
    for (count, proven) in (1..14).flat_map(|count| [(count, false), (count, true)]) {
        for good in 0..count {
            let mut desk = desk(rules());
            if proven {
                desk.submit(MS(0), 0, rows([99]));
                run(&mut desk, MS(0), MS(0), model);
            }
            desk.submit(MS(0), 0, rows(0..count));
            let only = |_: Duration, n: &[i64]| if n == [good] { results(n) } else { status(400) };
            let run = run(&mut desk, MS(0), MS(7_200_000), only);
            assert_eq!(run.chunks.len(), 1, "row {good} of {count}");
            assert_eq!(failures(&run.chunks[0].1).len() as i64, count - 1);
        }
    }
}

#[test]
fn an_endpoint_that_only_hangs_or_hangs_up_is_away() {
    for (name, silence) in [("timeout", Answered::TimedOut), ("closed", Answered::Closed)] {
        for proven in [false, true] {
            let (mut desk, mut now, mut requests) = (desk(rules()), MS(0), 0);
            if proven {
                desk.submit(now, 0, rows([7]));
                run(&mut desk, now, now, model);
            }
            desk.submit(now, 0, rows(0..8));
            while now < MS(3_600_000) {
                while let Some(request) = desk.next_request(now) {
                    assert_ne!(cause(&desk), EVERY_ROW, "{name} at {now:?}");
                    requests += 1;
                    desk.answered(now, request.id, fault(silence), 0.5);
                    assert_ne!(cause(&desk), EVERY_ROW, "{name} at {now:?}");
                }
                now = desk.wake(now).unwrap();
            }
            assert_eq!(cause(&desk), Some(Cause::Backoff(Outage::Silent)), "{name}");
            assert!((100..200).contains(&requests), "{name}: {requests} requests in an hour");
            assert!(desk.take_events().is_empty(), "{name}: its signature is not in doubt");
            let after = run(&mut desk, now, now + MS(60_000), model);
            assert!(failures(&after.chunks[0].1).is_empty(), "{name}");
        }
    }
}

#[test]
fn a_look_tells_what_it_met() {
    let blocked = |blocked| Some(Cause::Blocked(blocked));
    let mut desk = desk(rules());
    desk.submit(MS(0), 0, rows(0..8));
    run(&mut desk, MS(0), MS(1_000), |_, _| status(400));
    let mut now = MS(1_000);
    for (answer, expected) in [
        (status(404), blocked(Blocked::NotFound)),
        (status(503), Some(Cause::Backoff(Outage::Overloaded))),
        (status(401), blocked(Blocked::Key)),
        (status(400), EVERY_ROW),
        (status(409), blocked(Blocked::Busy)),
        (fault(Answered::Unreachable), Some(Cause::Backoff(Outage::NoConnection))),
        (fault(Answered::TimedOut), Some(Cause::Backoff(Outage::Silent))),
        (status(413), EVERY_ROW),
    ] {
        now = desk.wake(now).unwrap();
        if let Some(id) = desk.next_knock(now, false) {
            desk.knocked(now, id, true, 0.5);
        }
        let reloads = cause(&desk) == blocked(Blocked::Key);
        let look = desk.next_request(now).unwrap();
        assert_eq!((look.rows, look.reload_key), (1, reloads));
        desk.answered(now, look.id, answer, 0.5);
        assert_eq!(cause(&desk), expected);
        assert!(desk.next_request(now).is_none());
    }
    let after = run(&mut desk, now, now + MS(60_000), model);
    assert!(failures(&after.chunks[0].1).is_empty());
}

#[test]
fn a_model_that_broke_under_several_batches_condemns_no_row_of_any() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut desk = desk(Rules { max_rows: 10, ..rules() });
        desk.submit(MS(0), 0, rows(700..800));
        run(&mut desk, MS(0), MS(0), model);
        desk.submit(MS(0), 0, rows(0..40));
        let (mut now, mut out) = (MS(0), Vec::new());
        while cause(&desk) != EVERY_ROW || !out.is_empty() {
            while let Some(request) = desk.next_request(now) {
                out.push(request.id);
            }
            if out.is_empty() {
                now = desk.wake(now).unwrap();
            } else {
                let id = out.swap_remove(random.usize(..out.len()));
                desk.answered(now, id, status(400), 0.5);
            }
        }
        let after = run(&mut desk, now, now + MS(600_000), model);
        assert_eq!(failures(&after.chunks[0].1).len(), 0, "seed {seed}");
    }
}

#[test]
fn an_endpoint_that_describes_itself_again_is_in_reach_though_no_row_waits() {
    let mut desk = desk(rules());
    assert!(desk.unreachable(MS(0), 0.5));
    assert_eq!(cause(&desk), Some(Cause::Backoff(Outage::NoConnection)));
    assert_eq!(desk.next_knock(MS(60_000), false), None, "nobody waits");
    let knock = desk.next_knock(MS(60_000), true).unwrap();
    desk.knocked(MS(60_000), knock, true, 0.5);
    desk.reached();
    assert_eq!(desk.standing(), Standing::Ready);
    // where rows wait one of them finds out
    assert!(desk.unreachable(MS(70_000), 0.5));
    desk.submit(MS(70_000), 0, rows(0..3));
    desk.reached();
    assert_eq!(cause(&desk), Some(Cause::Backoff(Outage::NoConnection)));
    let back = run(&mut desk, MS(70_000), MS(80_000), model);
    assert_eq!((back.chunks.len(), desk.standing()), (1, Standing::Ready));
}

#[test]
fn rows_that_are_replayed_and_fit_no_better_pause_nothing() {
    let misfit = |n: i64| Value::array(vec![Value::BigInt(n), Value::BigInt(n)]);
    for proven in [false, true] {
        let mut desk = desk(rules());
        if proven {
            desk.submit(MS(0), 0, rows([7]));
            run(&mut desk, MS(0), MS(0), model);
        }
        desk.submit_replay(MS(0), 9, (0..200).map(misfit).collect());
        desk.submit(MS(0), 0, rows(0..8));
        let run = run(&mut desk, MS(0), MS(1_000), model);
        let failed: Vec<usize> = run.chunks.iter().map(|(_, outcomes)| failures(outcomes).len()).collect();
        assert_eq!((failed.iter().sum::<usize>(), failed.len()), (200, 2));
        assert_eq!((run.took, desk.standing()), (MS(0), Standing::Ready));
    }
}

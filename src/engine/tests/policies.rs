//! What becomes of rows that fail, under each policy.

use super::*;
use crate::batch::{Provenance, ScoredBy};

#[test]
fn an_exact_field_of_a_spread_comes_before_a_column_alike() {
    let query = "WITH s AS (SELECT *, 1 AS V FROM a) SELECT *, v AS q, V AS c, v.x AS x FROM s";
    let events: Vec<(i64, &str, String)> =
        [r#"{"v":7}"#, r#"{"v":null}"#, r#"{"w":7}"#, r#"{"v":{"x":2}}"#, r#"{"V":5}"#]
            .iter()
            .map(|payload| (0, "a", (*payload).to_owned()))
            .collect();
    let emitted = run(query, options(OnError::Stop), &events);
    let expected = [
        r#"{"v":7,"V":1,"q":7,"c":1,"x":null}"#,
        r#"{"v":null,"V":1,"q":null,"c":1,"x":null}"#,
        r#"{"w":7,"V":1,"q":1,"c":1,"x":null}"#,
        r#"{"v":{"x":2},"V":1,"q":{"x":2},"c":1,"x":2}"#,
        r#"{"V":1,"q":1,"c":1,"x":null}"#,
    ];
    assert_eq!(lines(&emitted.rows), expected);
}

#[test]
fn a_failing_row_follows_the_policy() {
    let query = "SELECT udf.half(v) AS h FROM a";
    let events: Vec<_> = [4, 3, 2].iter().map(|v| (0, "a", format!("{{\"v\":{v}}}"))).collect();

    let emitted = run(query, options(OnError::Null), &events);
    assert_eq!(lines(&emitted.rows), [r#"{"h":2}"#, r#"{"h":null}"#, r#"{"h":1}"#]);
    assert_eq!(emitted.counts.nulled["udf_error"], 1);

    let emitted = run(query, options(OnError::DeadLetter), &events);
    assert_eq!(lines(&emitted.rows), [r#"{"h":2}"#, r#"{"h":1}"#]);
    let failure = &emitted.failures[0];
    assert_eq!((failure.reason, failure.position, failure.message.as_str()), ("udf_error", 1, "odd"));
    assert!(matches!(&failure.body, FailedBody::Event(event) if event.payload == b"{\"v\":3}"[..]), "{failure:?}");
    assert_eq!(&query[failure.span.start..failure.span.end], "udf.half(v)");

    let emitted = run(query, options(OnError::Stop), &events);
    assert_eq!(emitted.stopped.map(|f| f.position), Some(1));
    assert_eq!(lines(&emitted.rows), [r#"{"h":2}"#], "rows before the failed one are given");
}

#[test]
fn a_stop_inside_a_batch_gives_the_rows_before_it() {
    let mut executor = executor("SELECT v, 10 / v AS q FROM a WHERE udf.half(v) < 9", options(OnError::Stop));
    let events: Vec<RawEvent> = [4, 2, 0, 3, 8].iter().map(|v| event(0, &format!("{{\"v\":{v}}}"))).collect();
    executor.push_events("a", 10, &events);
    let emitted = executor.take();
    assert_eq!(lines(&emitted.rows), [r#"{"v":4,"q":2}"#, r#"{"v":2,"q":5}"#]);
    let stopped = emitted.stopped.unwrap();
    assert_eq!((stopped.reason, stopped.position), ("divide_by_zero", 12));
    executor.push_events("a", 15, &events);
    assert!(executor.take().rows.batch.is_empty(), "a stopped executor takes nothing");
}

#[test]
fn a_stop_with_state_commits_nothing() {
    let query = "SELECT SUM(udf.half(v)) AS s FROM a GROUP BY TumblingWindow(second, 1)";
    let events: Vec<_> = [(0, 2), (5, 4), (9, 3)].iter().map(|(t, v)| (*t, "a", format!("{{\"v\":{v}}}"))).collect();
    let emitted = run(query, options(OnError::Stop), &events);
    assert_eq!(emitted.stopped.map(|f| f.position), Some(2));
    assert!(emitted.rows.batch.is_empty() && emitted.state.is_empty());
}

#[test]
fn try_evaluate_gives_null_under_every_policy() {
    // COALESCE shows that the error goes up to TryEvaluate and is not NULL further in
    let query =
        "SELECT TryEvaluate(1 / x) AS a, TryEvaluate(COALESCE(1 / x, 5)) AS b, TryEvaluate(udf.half(x)) AS c FROM a";
    for policy in [OnError::Stop, OnError::Null, OnError::DeadLetter] {
        let mut executor = executor(query, options(policy));
        executor.push_events("a", 0, &[event(0, r#"{"x":2}"#), event(1, r#"{"x":0}"#), event(2, r#"{"x":3}"#)]);
        let emitted = executor.take();
        assert!(emitted.stopped.is_none() && emitted.failures.is_empty());
        let rows: Vec<Vec<Value>> = emitted.rows.batch.rows().map(|(_, row)| row.to_vec()).collect();
        let int = Value::BigInt;
        assert_eq!(
            rows,
            [vec![int(0), int(0), int(1)], vec![Value::Null, Value::Null, int(0)], vec![int(0), int(0), Value::Null]]
        );
        assert_eq!(emitted.counts.nulled, BTreeMap::from([("divide_by_zero", 2), ("udf_error", 1)]));
    }
}

#[test]
fn a_functions_own_policy_wins() {
    let mut options = options(OnError::Stop);
    options.functions_on_error.insert(0, OnError::Null);
    let emitted = run("SELECT udf.half(v) AS h FROM a", options, &[(0, "a", "{\"v\":3}".to_owned())]);
    assert_eq!(lines(&emitted.rows), [r#"{"h":null}"#]);
    assert!(emitted.stopped.is_none());
}

#[test]
fn invalid_input_is_dropped_and_reported_whatever_the_policy() {
    let payloads =
        ["{\"t\":\"soon\"}", "{}", "[1]", "{\"t\":\"2024-01-01T00:00:05Z\"}", "{\"t\":\"2024-01-01T09:00:00Z\"}"];
    let events: Vec<_> = payloads.iter().map(|p| (5, "a", (*p).to_owned())).collect();
    let emitted = run("SELECT t FROM a TIMESTAMP BY t", options(OnError::Stop), &events);
    assert_eq!(emitted.rows.batch.len(), 1);
    assert_eq!(emitted.counts.failed, BTreeMap::from([("invalid_timestamp", 2), ("undecodable", 1)]));
    assert_eq!(emitted.counts.dropped, BTreeMap::from([("early", 1)]));
    assert_eq!(emitted.failures.len(), 3);
    assert!(emitted.stopped.is_none());
}

#[test]
fn a_correction_that_fails_is_a_failure_under_every_policy_and_the_rows_behind_it_go_on() {
    let parts = parts("SELECT udf.score(udf.half(10 / (udf.score(v) - 2))) AS s FROM a");
    // of 3 comes 5; 2 divides by zero, and half refuses 5
    let rows = |corrections: &[bool]| {
        let mut batch = crate::batch::Batch::new(1);
        for ((n, is_correction), value) in (0..).zip(corrections).zip([3, 2, 4, 3]) {
            let provenance = Provenance { scored_by: ScoredBy::Endpoint, is_correction: *is_correction };
            batch.push(RowMeta { provenance, ..RowMeta::new(at(n), at(n), 70 + n, 0) }, [Value::BigInt(value)]);
        }
        Rows { columns: Arc::clone(&parts[0].columns), batch }
    };
    for policy in [OnError::Stop, OnError::Null, OnError::DeadLetter] {
        for of_function in [OnError::Stop, OnError::Null] {
            let options =
                ExecutorOptions { functions_on_error: [(0, of_function)].into_iter().collect(), ..options(policy) };
            let run = |corrections: &[bool]| {
                let mut executor = Executor::new(&parts[1], options.clone(), Some(half())).unwrap();
                executor.push_rows(0, &rows(corrections));
                executor.take()
            };
            let emitted = run(&[true; 4]);
            assert!(emitted.stopped.is_none(), "{policy:?} {of_function:?}: {:?}", emitted.stopped);
            let failed: Vec<_> = emitted.failures.iter().map(|f| (f.reason, f.meta.offset)).collect();
            assert_eq!(failed, [("divide_by_zero", 71), ("udf_error", 72)], "{policy:?} {of_function:?}");
            assert_eq!(emitted.counts.failed, BTreeMap::from([("divide_by_zero", 1), ("udf_error", 1)]));
            assert_eq!((emitted.counts.rows, emitted.counts.evaluated, emitted.rows.batch.len()), (4, 2, 2));
            assert!(emitted.counts.nulled.is_empty());
        }
    }
    // of one that was not answered before the policy decides
    let mut executor = Executor::new(&parts[1], options(OnError::Stop), Some(half())).unwrap();
    executor.push_rows(0, &rows(&[true, true, false, false]));
    let emitted = executor.take();
    assert_eq!(emitted.stopped.map(|f| (f.reason, f.position)), Some(("udf_error", 2)));
    assert_eq!(emitted.failures.len(), 1);
}

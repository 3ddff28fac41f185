//! Parts of a statement: ids of their rows, ticks, reference tables, stored state.

use super::*;

#[test]
fn stateless_rows_keep_the_offset_of_their_event_and_count_in_it() {
    let mut executor =
        executor("SELECT r.ArrayValue AS x FROM a CROSS APPLY GetArrayElements(xs) AS r", ExecutorOptions::default());
    let events = ["{\"xs\":[1,2]}", "{\"xs\":[]}", "{\"xs\":[3,4,5]}"].map(|p| event(0, p));
    executor.push_events("a", 7, &events);
    let emitted = executor.take();
    let ids: Vec<(i64, u32)> = emitted.rows.batch.meta().iter().map(|m| (m.offset, m.ordinal)).collect();
    assert_eq!(ids, [(7, 0), (7, 1), (9, 0), (9, 1), (9, 2)]);
    assert!(emitted.state.is_empty());
    assert_eq!((emitted.counts.evaluated, emitted.counts.rows_out), (3, 5));
}

#[test]
fn events_keep_their_offsets_where_those_of_other_inputs_lie_between() {
    let options = ExecutorOptions { on_error: OnError::DeadLetter, ..ExecutorOptions::default() };
    let mut executor = executor("SELECT 6 / v AS x FROM a", options);
    let events = ["{\"v\":1}", "{\"v\":0}", "{\"v\":3}"].map(|p| event(0, p));
    executor.push_events_at("a", &[3, 7, 12], &events);
    let emitted = executor.take();
    let rows: Vec<_> = emitted.rows.batch.rows().map(|(meta, row)| (meta.offset, row.to_vec())).collect();
    assert_eq!(rows, [(3, vec![Value::BigInt(6)]), (12, vec![Value::BigInt(2)])]);
    let failures: Vec<_> = emitted.failures.iter().map(|f| (f.position, f.meta.offset, f.body.clone())).collect();
    assert_eq!(failures, [(7, 7, FailedBody::Event(events[1].clone()))]);

    let mut executor =
        self::executor("SELECT COUNT(*) AS n FROM a GROUP BY TumblingWindow(second, 5)", Default::default());
    executor.push_events_at("a", &[4, 9], &[event(1, "{}"), event(2, "{}")]);
    executor.tick(at(20));
    assert_eq!(executor.take().rows.batch.meta().iter().map(|m| m.offset).collect::<Vec<_>>(), [9], "the newest");
}

#[test]
fn rows_with_state_count_on_in_the_newest_offset_across_commits() {
    let query = "SELECT k, COUNT(*) AS n FROM a GROUP BY k, TumblingWindow(second, 5)";
    let part = &parts(query)[0];
    let mut executor = Executor::new(part, ExecutorOptions::default(), None).unwrap();
    executor.push_events("a", 0, &[event(1, "{\"k\":1}"), event(2, "{\"k\":2}"), event(6, "{\"k\":3}")]);
    let first = executor.take();
    let ids = |e: &Emitted| e.rows.batch.meta().iter().map(|m| (m.offset, m.ordinal)).collect::<Vec<_>>();
    assert_eq!(ids(&first), [(2, 0), (2, 1)]);

    let mut again = Executor::new(part, ExecutorOptions::default(), None).unwrap();
    let stored = |e: &Emitted| {
        e.state.iter().filter_map(|c| c.value.clone().map(|v| (c.op, c.key.clone(), v))).collect::<Vec<_>>()
    };
    again.load_state(stored(&first).iter().map(|(op, k, v)| (*op, k.as_slice(), v.as_slice()))).unwrap();
    again.tick(at(20));
    let second = again.take();
    assert_eq!(ids(&second), [(2, 2)]);
    assert_eq!(lines(&second.rows), [r#"{"k":3,"n":1}"#]);
}

#[test]
fn a_quiet_input_closes_its_windows_by_ticks() {
    let mut executor = executor(
        "SELECT COUNT(*) AS n FROM a TIMESTAMP BY t GROUP BY TumblingWindow(second, 10)",
        ExecutorOptions::default(),
    );
    assert_eq!(executor.next_tick(), None);
    executor.push_events("a", 0, &[event(3, &format!("{{\"t\":\"{}\"}}", at(3)))]);
    let due = executor.next_tick().unwrap();
    assert!(due > at(15) && due < at(16), "window end, plus the late tolerance: {due}");
    executor.tick(at(15));
    assert!(executor.take().rows.batch.is_empty());
    executor.tick(due);
    assert_eq!(lines(&executor.take().rows), [r#"{"n":1}"#]);
    assert_eq!(executor.next_tick(), None);
}

#[test]
fn a_window_over_a_left_join_sees_unmatched_rows_in_their_place() {
    let query =
        "WITH j AS (SELECT x.k AS k FROM a x LEFT JOIN b y ON x.k = y.k AND DATEDIFF(minute, x, y) BETWEEN 0 AND 0)
        SELECT COUNT(*) AS n, MAX(k) AS k FROM j GROUP BY TumblingWindow(second, 10)";
    // key 1 finds no match, which is known only when the minute is over
    let events = [(10, "a", 1), (30, "a", 2), (35, "b", 2), (50, "b", 2), (100, "b", 9)];
    let events: Vec<_> = events.iter().map(|(t, input, k)| (*t, *input, format!("{{\"k\":{k}}}"))).collect();
    let emitted = run(query, ExecutorOptions::default(), &events);
    assert_eq!(lines(&emitted.rows), [r#"{"n":1,"k":1}"#, r#"{"n":1,"k":2}"#, r#"{"n":1,"k":2}"#]);
    assert_eq!(emitted.rows.batch.meta().iter().map(|m| m.time).collect::<Vec<_>>(), [at(10), at(40), at(50)]);
}

#[test]
fn rows_come_at_once_where_nothing_has_to_wait() {
    for query in [
        "SELECT v FROM a",
        "SELECT v FROM a TIMESTAMP BY t",
        "SELECT v FROM a TIMESTAMP BY t UNION SELECT v FROM a TIMESTAMP BY t WHERE 1 = 0",
    ] {
        let mut executor = executor(query, ExecutorOptions::default());
        executor.push_events("a", 0, &[event(3, &format!("{{\"v\":1,\"t\":\"{}\"}}", at(3)))]);
        assert_eq!(lines(&executor.take().rows), [r#"{"v":1}"#], "{query}");
    }
}

#[test]
fn parts_around_an_external_call_pass_rows_on() {
    let parts = parts("WITH s AS (SELECT k, udf.score(v) AS p FROM a) SELECT k, p FROM s WHERE p > 1");
    let part = &parts[0];
    let mut root = Executor::new(part, ExecutorOptions::default(), None).unwrap();
    root.push_events("a", 4, &[event(0, "{\"k\":\"x\",\"v\":1}"), event(0, "{\"k\":\"y\",\"v\":2}")]);
    let mut asked = root.take().rows;
    let last = asked.batch.width() - 1;
    for i in 0..asked.batch.len() {
        let argument = asked.batch.row(i)[last].clone();
        assert_eq!(argument, Value::BigInt(i as i64 + 1));
        asked.batch.row_mut(i)[last] = argument;
    }
    let mut tail =
        Executor::for_tail(part.external.as_ref().unwrap(), &part.columns, ExecutorOptions::default(), None).unwrap();
    tail.push_rows(0, &asked);
    let emitted = tail.take();
    let mut rows = emitted.rows.clone();
    for later in &parts[1..] {
        let mut executor = Executor::new(later, ExecutorOptions::default(), None).unwrap();
        executor.push_rows(0, &rows);
        rows = executor.take().rows;
    }
    assert_eq!(lines(&rows), [r#"{"k":"y","p":2}"#]);
    assert_eq!(rows.batch.meta()[0].offset, 5, "the id is that of the event");
}

#[test]
fn windows_over_answers_close_when_the_part_before_says_so() {
    let parts = parts(
        "WITH s AS (SELECT udf.score(v) AS p FROM a) SELECT SUM(p) AS p FROM s GROUP BY TumblingWindow(second, 5)",
    );
    let last = parts.last().unwrap();
    let mut executor = Executor::new(last, ExecutorOptions::default(), None).unwrap();
    let meta = |time: i64| RowMeta::new(at(time), at(time), time, 0);
    let mut batch = crate::batch::Batch::new(1);
    batch.push(meta(1), [Value::BigInt(2)]);
    batch.push(meta(5), [Value::BigInt(3)]);
    executor.push_rows(0, &Rows { columns: Arc::new([]), batch });
    executor.tick(at(100));
    assert!(executor.take().rows.batch.is_empty(), "only the part before knows that nothing more comes");
    executor.advance(at(5));
    assert!(executor.take().rows.batch.is_empty(), "a row at the end may still come");
    executor.advance(at(6));
    assert_eq!(lines(&executor.take().rows), [r#"{"p":5}"#]);
}

#[test]
fn reference_tables_can_be_replaced_while_running() {
    let mut executor =
        executor("SELECT a.k AS k, r.name AS name FROM a LEFT JOIN r ON a.k = r.k", ExecutorOptions::default());
    let table = |name: &str| {
        let fields = vec![(SmolStr::new("k"), Value::Float(1.0)), (SmolStr::new("name"), Value::text(name))];
        Arc::new(vec![Value::record(crate::value::Record::from_unique(fields))])
    };
    let mut seen = Vec::new();
    for (offset, name) in (0..).zip(["old", "new"]) {
        executor.set_reference("r".into(), table(name));
        executor.push_events("a", offset * 2, &[event(0, "{\"k\":1}"), event(0, "{\"k\":null}")]);
        seen.extend(lines(&executor.take().rows));
    }
    assert_eq!(
        seen,
        [
            r#"{"k":1,"name":"old"}"#,
            r#"{"k":null,"name":null}"#,
            r#"{"k":1,"name":"new"}"#,
            r#"{"k":null,"name":null}"#
        ]
    );
}

#[test]
fn metadata_of_a_message_can_be_read() {
    let message = MessageMeta {
        name: "t/1".into(),
        properties: vec![("site".into(), "x".into())],
        facts: vec![("qos".into(), "1".into())],
    };
    let event = RawEvent { message: Arc::new(message), ..event(0, "{}") };
    let mut executor = executor(
        "SELECT GetMetadataPropertyValue(a, 'Mqtt.Topic') AS topic, GetMetadataPropertyValue(a, '[User].[site]') AS \
        site, EventEnqueuedUtcTime AS at FROM a",
        ExecutorOptions::default(),
    );
    executor.push_events("a", 0, &[event]);
    assert_eq!(lines(&executor.take().rows), [r#"{"topic":"t/1","site":"x","at":"2024-01-01T00:00:00.0000000Z"}"#]);
}

#[test]
fn a_pattern_that_explodes_is_a_failure_with_a_reason() {
    let query = "SELECT * FROM a MATCH_RECOGNIZE (LIMIT DURATION(minute, 1) MEASURES Last(B.v) AS v AFTER MATCH SKIP \
        TO NEXT ROW PATTERN ((A+)+ B) DEFINE A AS A.v = 1, B AS B.v = 2)";
    let events: Vec<_> = (0..40).map(|i| (i, "a", "{\"v\":1}".to_owned())).collect();
    let emitted = run(query, options(OnError::DeadLetter), &events);
    assert!(emitted.rows.batch.is_empty());
    assert!(emitted.counts.failed_derived["too_complex"] > 20, "{:?}", emitted.counts);
    assert!(emitted.failures[0].message.starts_with("an attempt at the pattern took more than 50000 steps"));
}

#[test]
fn what_is_no_number_is_no_anomaly_but_a_failure() {
    let query = "SELECT AnomalyDetection_ChangePoint(v, 80, 20) OVER (LIMIT DURATION(minute, 2)) AS c FROM a";
    let events: Vec<_> =
        ["\"7.5\"", "true", "\"x\"", "[1]"].iter().map(|v| (0, "a", format!("{{\"v\":{v}}}"))).collect();
    let emitted = run(query, options(OnError::DeadLetter), &events);
    assert_eq!(lines(&emitted.rows), [r#"{"c":{"IsAnomaly":0,"Score":1.0}}"#; 2]);
    assert_eq!(emitted.counts.failed, BTreeMap::from([("conversion", 2)]));
    let emitted = run(query, options(OnError::Null), &events);
    assert_eq!(lines(&emitted.rows)[3], r#"{"c":{"IsAnomaly":0,"Score":null}}"#);
}

#[test]
fn damaged_state_is_an_error() {
    let part = &parts(QUERIES[0])[0];
    let mut executor = Executor::new(part, ExecutorOptions::default(), None).unwrap();
    assert!(matches!(executor.load_state([(1, &[9u8][..], &[][..])]), Err(EngineError::State { op: 1, .. })));
}

#[test]
fn an_executor_moves_between_threads() {
    fn moves<T: Send>(_: &T) {}
    moves(&executor("SELECT v FROM a", ExecutorOptions::default()));
}

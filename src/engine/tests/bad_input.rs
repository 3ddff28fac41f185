//! What is wrong with an event or a row is counted under its reason, whatever stands beside it.

use super::*;

/// What becomes of one payload.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Refused before it is stored.
    NoEvent,
    /// No valid input: dropped and reported under every policy.
    Refused(&'static str),
    /// Dropped by a time policy.
    Dropped(&'static str),
    Filtered,
    /// An expression has no value: the policy for errors says what happens.
    Failed(&'static str),
    Fine,
}

/// Payloads; `T` is the time of arrival, an hour before and after it are `E` and `L`.
const PAYLOADS: &[(&str, Fate)] = &[
    (r#"{"t":"T","k":1,"v":"7","z":2,"y":1,"h":4}"#, Fate::Fine),
    (r#"{"t":"T","k":2,"v":7.9,"z":2,"y":1,"h":4,"more":{"of":["it"]}}"#, Fate::Fine),
    // of repeated names the last counts, also where an earlier one would fail
    (r#"{"t":"T","k":1,"v":"seven","v":7,"z":0,"z":1}"#, Fate::Fine),
    // a missing field is NULL, and nothing fails for NULL
    (r#"{"t":"T","k":1}"#, Fate::Fine),
    (r#"{"t":"T","k":1,"v":9223372036854775807,"unread":-9223372036854775808}"#, Fate::Fine),
    (r#"{"t":"T","k":1,"w":0,"v":"seven","z":0}"#, Fate::Filtered),
    (r#"{"t":"T","k":1,"v":"seven"}"#, Fate::Failed("conversion")),
    (r#"{"t":"T","k":1,"v":"9223372036854775808"}"#, Fate::Failed("conversion")),
    (r#"{"t":"T","k":1,"v":1e300}"#, Fate::Failed("conversion")),
    (r#"{"t":"T","k":1,"v":[1]}"#, Fate::Failed("conversion")),
    (r#"{"t":"T","k":1,"v":1,"z":0}"#, Fate::Failed("divide_by_zero")),
    (r#"{"t":"T","k":1,"v":1,"y":-1}"#, Fate::Failed("argument")),
    (r#"{"t":"T","k":1,"v":1,"h":3}"#, Fate::Failed("udf_error")),
    (r#"{"t":"soon","k":1,"v":1}"#, Fate::Refused("invalid_timestamp")),
    (r#"{"t":null,"k":1,"v":1}"#, Fate::Refused("invalid_timestamp")),
    (r#"{"k":1,"v":1}"#, Fate::Refused("invalid_timestamp")),
    (r#"{"t":17,"k":1,"v":1}"#, Fate::Refused("invalid_timestamp")),
    (r#"{"t":"T","v":1}"#, Fate::Refused("invalid_timestamp_key")),
    (r#"{"t":"T","k":null,"v":1}"#, Fate::Refused("invalid_timestamp_key")),
    (r#"{"t":"L","k":1,"v":1}"#, Fate::Dropped("early")),
    (r#"{"t":"E","k":1,"v":1}"#, Fate::Dropped("late")),
    // the language has no whole numbers past 64 bits: such an event is no event, also where nothing reads the field
    (r#"{"t":"T","k":1,"v":9223372036854775808}"#, Fate::NoEvent),
    (r#"{"t":"T","k":1,"unread":-9223372036854775809}"#, Fate::NoEvent),
    (r#"{"t":"T","k":1,"v":1e400}"#, Fate::NoEvent),
    (r#"{"t":"T","k":1,"v":NaN}"#, Fate::NoEvent),
    (r#"{"t":"T","k":1,"v":-Infinity}"#, Fate::NoEvent),
    (r#"{"t":"T","k":1,"v":"\ud800"}"#, Fate::NoEvent),
    ("{\"t\":\"T\",\"k\":1,\"v\":\"\u{1}\"}", Fate::NoEvent),
    (r#"{"t":"T","k":1,"v":1"#, Fate::NoEvent),
    (r#"[{"t":"T","k":1,"v":DEEP}]"#, Fate::NoEvent),
    ("NOT UTF-8", Fate::NoEvent),
    ("17", Fate::NoEvent),
    ("", Fate::NoEvent),
];

const ROWS: &str =
    "SELECT k, CAST(v AS bigint) AS c, 10 / z AS q, LEFT('text', y) AS l, udf.half(CASE WHEN h IS NULL THEN 2 ELSE h \
    END) AS h
    FROM a TIMESTAMP BY t OVER k WHERE w IS NULL";

const GROUPS: &str =
    "SELECT k, COUNT(*) AS n, SUM(CAST(v AS bigint) / 4) AS c, MAX(10 / z) AS q, MIN(LEN(LEFT('text', y))) AS l,
    MAX(udf.half(CASE WHEN h IS NULL THEN 2 ELSE h END)) AS h
    FROM a TIMESTAMP BY t OVER k WHERE w IS NULL GROUP BY k, TumblingWindow(second, 5)";

fn payload(template: &str, arrival: i64) -> Bytes {
    if template == "NOT UTF-8" {
        return Bytes::from_static(b"{\"t\":\"2024-01-01\",\"k\":1,\"v\":\"\xff\"}");
    }
    let moment = |seconds| format!("\"{}\"", at(arrival + seconds));
    let deep = format!("{}{}", "[".repeat(70), "]".repeat(70));
    let text = template
        .replace("\"T\"", &moment(0))
        .replace("\"L\"", &moment(3600))
        .replace("\"E\"", &moment(-3600))
        .replace("DEEP", &deep);
    Bytes::from(text)
}

fn strict(on_error: OnError) -> ExecutorOptions {
    let policies = TimePolicies { late_tolerance: Some(60 * SECOND), adjust: false, ..TimePolicies::default() };
    ExecutorOptions { policies, ..options(on_error) }
}

/// Splits, stores, runs; how many payloads were no events, and what came out.
fn take_in(query: &str, on_error: OnError, sent: &[usize]) -> (usize, Emitted) {
    let mut executor = executor(query, strict(on_error));
    let (mut bad, mut offset) = (0, 0);
    for (arrival, which) in (0..).zip(sent) {
        let split = crate::decode::split(&payload(PAYLOADS[*which].0, arrival));
        bad += split.bad.len();
        let events: Vec<RawEvent> = split
            .events
            .into_iter()
            .map(|payload| RawEvent { arrival: at(arrival), payload, message: Arc::default(), mark: 0 })
            .collect();
        executor.push_events("a", offset, &events);
        offset += events.len() as i64;
    }
    executor.finish();
    (bad, executor.take())
}

fn tally(sent: &[usize], reason: impl Fn(Fate) -> Option<&'static str>) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    sent.iter().filter_map(|which| reason(PAYLOADS[*which].1)).for_each(|r| *counts.entry(r).or_default() += 1);
    counts
}

#[test]
fn each_bad_payload_alone_has_its_reason() {
    for (i, (template, fate)) in PAYLOADS.iter().enumerate() {
        for query in [ROWS, GROUPS] {
            let (bad, emitted) = take_in(query, OnError::DeadLetter, &[i]);
            let counts = &emitted.counts;
            let found = match (bad, counts.filtered, counts.evaluated) {
                (1, 0, 0) => Fate::NoEvent,
                (0, 1, 0) => Fate::Filtered,
                (0, 0, 1) if counts.failed.is_empty() => Fate::Fine,
                (0, 0, 0) => match (counts.dropped.keys().next(), counts.failed.keys().next()) {
                    (Some(reason), None) => Fate::Dropped(reason),
                    (None, Some(reason)) if emitted.failures[0].span == Span::default() => Fate::Refused(reason),
                    (None, Some(reason)) => Fate::Failed(reason),
                    other => panic!("{template}: {other:?}"),
                },
                other => panic!("{template}: {other:?}"),
            };
            assert_eq!(found, *fate, "{template} in {query}: {counts:?}");
        }
    }
}

#[test]
fn an_event_that_does_not_fit_its_table_is_refused_whatever_the_policy() {
    let query = "CREATE TABLE a (n bigint, f float, s datetime); SELECT n, f, s FROM a";
    for on_error in [OnError::Stop, OnError::Null, OnError::DeadLetter] {
        let payloads = [
            r#"{"n":"42"}"#,
            r#"{"n":4.5}"#,
            r#"{"f":"1"}"#,
            r#"{"s":"noon"}"#,
            r#"{"n":true}"#,
            r#"{"n":1,"f":2,"s":null,"x":"y"}"#,
            "{}",
        ];
        let emitted = run(query, options(on_error), &payloads.map(|p| (0, "a", p.to_owned())));
        assert_eq!(lines(&emitted.rows), [r#"{"n":1,"f":2.0,"s":null}"#, r#"{"n":null,"f":null,"s":null}"#]);
        assert_eq!(emitted.counts.failed, BTreeMap::from([("schema", 5)]));
        assert_eq!((emitted.failures.len(), emitted.counts.evaluated, emitted.stopped), (5, 2, None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Rows that go on are those that would alone, and every other one is counted under its own reason.
    #[test]
    fn bad_rows_among_good_ones_are_counted_by_reason(
        sent in prop::collection::vec(0..PAYLOADS.len(), 0..40),
        groups in any::<bool>(),
        null in any::<bool>(),
    ) {
        let (query, on_error) =
            (if groups { GROUPS } else { ROWS }, if null { OnError::Null } else { OnError::DeadLetter });
        let (bad, emitted) = take_in(query, on_error, &sent);
        let counts = &emitted.counts;
        let of = |wanted: fn(Fate) -> bool| sent.iter().filter(|which| wanted(PAYLOADS[**which].1)).count();
        let failing = tally(&sent, |fate| if let Fate::Failed(reason) = fate { Some(reason) } else { None });
        let mut failed = tally(&sent, |fate| if let Fate::Refused(reason) = fate { Some(reason) } else { None });
        prop_assert_eq!(bad, of(|fate| fate == Fate::NoEvent));
        prop_assert_eq!(counts.rows as usize, sent.len() - bad);
        prop_assert_eq!(counts.filtered as usize, of(|fate| fate == Fate::Filtered));
        prop_assert_eq!(
            &counts.dropped,
            &tally(&sent, |fate| if let Fate::Dropped(reason) = fate { Some(reason) } else { None })
        );
        let mut evaluated = of(|fate| fate == Fate::Fine);
        if null {
            prop_assert_eq!(&counts.nulled, &failing);
            evaluated += failing.values().sum::<u64>() as usize;
        } else {
            prop_assert!(counts.nulled.is_empty());
            failed.extend(failing);
        }
        prop_assert_eq!(&counts.failed, &failed);
        prop_assert_eq!(counts.evaluated as usize, evaluated);
        prop_assert_eq!(emitted.failures.len() as u64, failed.values().sum::<u64>());
        prop_assert_eq!(emitted.waiting, 0);
        if !groups {
            prop_assert_eq!(emitted.rows.batch.len(), evaluated);
        }
    }

    /// Under `stop` the first row that fails ends the statement; what is no valid input does not.
    #[test]
    fn a_statement_stops_at_the_first_failing_row(sent in prop::collection::vec(0..PAYLOADS.len(), 0..40)) {
        let (_, emitted) = take_in(ROWS, OnError::Stop, &sent);
        let stored: Vec<Fate> =
            sent.iter().map(|which| PAYLOADS[*which].1).filter(|fate| *fate != Fate::NoEvent).collect();
        let first = stored.iter().position(|fate| matches!(fate, Fate::Failed(_)));
        prop_assert_eq!(emitted.stopped.as_ref().map(|f| f.position as usize), first);
        if let (Some(stopped), Some(first)) = (emitted.stopped, first) {
            prop_assert_eq!(Fate::Failed(stopped.reason), stored[first]);
        }
    }
}

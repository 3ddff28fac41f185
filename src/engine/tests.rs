//! The engine as a whole: queries from text, laws over cuts and restarts, policies, ids, counts.

mod aggregates;
mod analytic;
mod bad_input;
mod bounds;
mod calls;
mod eras;
mod faults;
mod guards;
mod joins;
mod laws;
mod parts;
mod policies;
mod stream;
mod windows;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::batch::{Column, MessageMeta, RawEvent, RowMeta, Rows, write_row_json};
use crate::diagnostic::Span;
use crate::query::builtins::RowError;
use crate::query::catalog::{Catalog, FunctionDef, FunctionKind, InputDef, InputKind, Param, Shape, Signature};
use crate::query::plan::Part;
use crate::time::{TICKS_PER_SECOND, Timestamp};
use crate::udf::UserFunctions;
use crate::value::{SmolStr, Value};

const SECOND: i64 = TICKS_PER_SECOND;

fn catalog() -> Catalog {
    let input = |name: &str, kind| InputDef { name: name.to_owned(), kind };
    let number = || Shape::Integer { min: i64::MIN, max: i64::MAX };
    let signature = Signature {
        params: vec![Param { name: "x".to_owned(), shape: number() }],
        rest: None,
        result: number(),
        text: String::new(),
    };
    Catalog {
        inputs: vec![input("a", InputKind::Stream), input("b", InputKind::Stream), input("r", InputKind::Reference)],
        outputs: None,
        functions: vec![
            FunctionDef {
                name: "half".to_owned(),
                kind: FunctionKind::Local { index: 0, signature: signature.clone(), keeps_state: false },
            },
            FunctionDef {
                name: "tally".to_owned(),
                kind: FunctionKind::Local { index: 1, signature, keeps_state: true },
            },
            FunctionDef { name: "score".to_owned(), kind: FunctionKind::External },
        ],
    }
}

fn parts(query: &str) -> Vec<Part> {
    let plan = crate::query::compile(query, "q", &catalog()).unwrap_or_else(|e| panic!("{e}"));
    plan.statements[0].parts.clone()
}

/// `half` refuses odd numbers; `tally` counts how often it was given each value, refuses every third time, and forgets
/// a value after the seventh.
#[derive(Default)]
struct Fake {
    seen: BTreeMap<Vec<u8>, i64>,
    changed: std::collections::BTreeSet<Vec<u8>>,
    stored: std::collections::BTreeSet<Vec<u8>>,
}

impl Fake {
    fn tally(&mut self, of: &Value) -> Result<Value, RowError> {
        let key = of.to_json().into_bytes();
        let before = self.seen.get(&key).copied().unwrap_or(0);
        self.changed.insert(key.clone());
        match before {
            7 => drop(self.seen.remove(&key)),
            _ => drop(self.seen.insert(key, before + 1)),
        }
        if before % 3 == 2 {
            return Err(RowError { reason: "udf_error", message: "third".to_owned() });
        }
        Ok(Value::BigInt(before + 1))
    }
}

impl UserFunctions for Fake {
    fn take_state(&mut self, out: &mut Vec<crate::udf::StateRow>) {
        for key in std::mem::take(&mut self.changed) {
            match self.seen.get(&key) {
                Some(n) => {
                    self.stored.insert(key.clone());
                    out.push((key, Some(n.to_be_bytes().to_vec())));
                }
                None if self.stored.remove(&key) => out.push((key, None)),
                None => {}
            }
        }
    }

    fn load_state(&mut self, key: &[u8], value: &[u8]) -> Result<(), crate::value::codec::Damaged> {
        let n = value.try_into().map_err(|_| crate::value::codec::Damaged { at: 0 })?;
        self.stored.insert(key.to_vec());
        self.seen.insert(key.to_vec(), i64::from_be_bytes(n));
        Ok(())
    }

    fn call(&mut self, index: usize, args: &[Value], _: Timestamp) -> Result<Value, RowError> {
        match args {
            [value] if index == 1 => self.tally(value),
            [Value::BigInt(n)] if n % 2 == 0 => Ok(Value::BigInt(n / 2)),
            _ => Err(RowError { reason: "udf_error", message: "odd".to_owned() }),
        }
    }
}

fn half() -> Functions {
    Box::<Fake>::default()
}

fn options(on_error: OnError) -> ExecutorOptions {
    ExecutorOptions { on_error, ..ExecutorOptions::default() }
}

fn executor(query: &str, options: ExecutorOptions) -> Executor {
    Executor::new(&parts(query)[0], options, Some(half())).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::parse("2024-01-01").unwrap().saturating_add(seconds * SECOND)
}

fn event(arrival: i64, payload: &str) -> RawEvent {
    RawEvent {
        arrival: at(arrival),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        message: Arc::default(),
        mark: 0,
    }
}

fn lines(rows: &Rows) -> Vec<String> {
    let line = |(_, row)| {
        let mut out = String::new();
        write_row_json(&rows.columns, row, &mut out);
        out
    };
    rows.batch.rows().map(line).collect()
}

/// `(sent at, input, payload)` with `"t"` as event time in the payload.
fn run(query: &str, options: ExecutorOptions, events: &[(i64, &str, String)]) -> Emitted {
    let mut executor = executor(query, options);
    for (offset, (arrival, input, payload)) in (0..).zip(events) {
        executor.push_events(input, offset, &[event(*arrival, payload)]);
    }
    executor.finish();
    executor.take()
}

/// One query for each way of keeping state.
const QUERIES: &[&str] = &[
    "SELECT k, COUNT(*) AS n, SUM(v) AS s, MAX(v) AS m FROM a TIMESTAMP BY t GROUP BY k, TumblingWindow(second, 5)",
    "SELECT k, Collect(v) AS c, COUNT(DISTINCT v) AS d FROM a TIMESTAMP BY t GROUP BY k, HoppingWindow(second, 6, 4)",
    "SELECT k, COUNT(*) AS n, AVG(v) AS s FROM a TIMESTAMP BY t GROUP BY k, SlidingWindow(second, 4)",
    "SELECT k, COUNT(*) AS n FROM a TIMESTAMP BY t GROUP BY k, SessionWindow(second, 2, 6) OVER (PARTITION BY k)",
    "SELECT System.Window().Id AS w, COUNT(*) AS n FROM a TIMESTAMP BY t GROUP BY Windows(Window('x', \
    TumblingWindow(second, 3)), Window('y', SlidingWindow(second, 2)))",
    "SELECT v, LAG(v, 2) OVER (PARTITION BY k LIMIT DURATION(second, 6)) AS l, ISFIRST(second, 3) OVER (PARTITION BY \
    k) AS f, SUM(v) OVER (PARTITION BY k LIMIT DURATION(second, 4)) AS s FROM a TIMESTAMP BY t",
    "SELECT x.v AS xv, y.v AS yv FROM a x TIMESTAMP BY t JOIN b y TIMESTAMP BY t ON x.k = y.k AND DATEDIFF(second, x, \
    y) BETWEEN -2 AND 3",
    "SELECT x.v AS xv, y.v AS yv, System.Timestamp() AS ts FROM a x TIMESTAMP BY t LEFT JOIN b y TIMESTAMP BY t ON x.k \
    = y.k AND x.v < y.v AND DATEDIFF(second, x, y) BETWEEN 0 AND 3",
    "WITH u AS (SELECT k, v FROM a TIMESTAMP BY t UNION SELECT k, v FROM b TIMESTAMP BY t) SELECT k, COUNT(*) AS n, \
    LAST(v) OVER (LIMIT DURATION(second, 9)) AS l FROM u GROUP BY k, LAST(v) OVER (LIMIT DURATION(second, 9)), \
    TumblingWindow(second, 4)",
    "WITH j AS (SELECT x.k AS k, y.v AS v FROM a x TIMESTAMP BY t LEFT JOIN b y TIMESTAMP BY t ON x.k = y.k AND \
    DATEDIFF(second, x, y) BETWEEN 0 AND 2) SELECT k, COUNT(*) AS n, COUNT(v) AS m FROM j GROUP BY k, \
    TumblingWindow(second, 3)",
    "SELECT v, k FROM a TIMESTAMP BY t WHERE v > 1",
    "SELECT SUM(v / 3.0) OVER (LIMIT DURATION(second, 3)) AS s, AVG(v / 7.0) OVER (PARTITION BY k LIMIT \
    DURATION(second, 2)) AS d, AVG(v) OVER (LIMIT DURATION(second, 4) WHEN v > 1) AS a FROM a TIMESTAMP BY t",
    "SELECT SUM(v / 3.0) AS s, STDEV(v / 7.0) AS d, TopOne(v) OVER (ORDER BY v DESC) AS t, Collect(v) AS c FROM a \
    TIMESTAMP BY t GROUP BY SlidingWindow(second, 3)",
    "WITH w AS (SELECT k, COUNT(*) AS n FROM a TIMESTAMP BY t GROUP BY k, TumblingWindow(second, 2)) SELECT SUM(n) AS \
    n, COUNT(*) AS c FROM w GROUP BY TumblingWindow(second, 4)",
    "WITH w AS (SELECT k, COUNT(*) AS v FROM a TIMESTAMP BY t GROUP BY k, TumblingWindow(second, 2)), u AS (SELECT k, \
    v FROM w UNION SELECT k, v FROM b TIMESTAMP BY t) SELECT k, v, LAG(v) OVER (LIMIT DURATION(second, 5)) AS l FROM u",
    "SELECT v, AnomalyDetection_SpikeAndDip(v, 80, 4, 'spikesanddips') OVER (PARTITION BY k LIMIT DURATION(second, 7) \
    WHEN v < 4) AS s, AnomalyDetection_ChangePoint(v, 70, 5) OVER (PARTITION BY k LIMIT DURATION(second, 6)) AS c FROM \
    a TIMESTAMP BY t",
    "SELECT *, System.Timestamp() AS ts FROM a TIMESTAMP BY t MATCH_RECOGNIZE (LIMIT DURATION(second, 5) PARTITION BY \
    k MEASURES First(A.v) AS f, Max(A.v) AS m, B.v AS b, Classifier() AS c AFTER MATCH SKIP TO NEXT ROW PATTERN (A+ (B \
    | . C?)) DEFINE A AS A.v > 1, B AS B.v < Last(A.v), C AS C.v = First(A.v)) AS p",
    "WITH p AS (SELECT k, n FROM a TIMESTAMP BY t MATCH_RECOGNIZE (LIMIT DURATION(second, 4) MEASURES Last(A.k) AS k, \
    Last(A.v) AS n AFTER MATCH SKIP TO NEXT ROW PATTERN (A+) DEFINE A AS A.v >= First(A.v)) AS m) SELECT k, COUNT(*) \
    AS c FROM p GROUP BY k, TumblingWindow(second, 3)",
];

/// Calls of a function that keeps state: in each clause that may have one, over rows that come at once, in time order,
/// when windows close, and from several inputs.
const REMEMBERING: &[&str] = &[
    "SELECT v, udf.tally(k) AS n FROM a",
    "SELECT v, k FROM a WHERE udf.tally(v) <> 2",
    "WITH s AS (SELECT k, v, udf.tally(v) AS n FROM a) SELECT k, n FROM s WHERE n + k > 1",
    "SELECT k, v, udf.tally(k) AS n, udf.tally(v) AS m, CASE WHEN v > 2 THEN udf.tally(v) ELSE 0 END AS o FROM a \
    TIMESTAMP BY t",
    "SELECT k, SUM(udf.tally(v)) AS n FROM a TIMESTAMP BY t GROUP BY k, TumblingWindow(second, 3)",
    "WITH s AS (SELECT udf.tally(v) AS n FROM a TIMESTAMP BY t) SELECT n, COUNT(*) AS c FROM s GROUP BY n, \
    HoppingWindow(second, 6, 2)",
    "SELECT k, udf.tally(COUNT(*)) AS n FROM a TIMESTAMP BY t GROUP BY k, SlidingWindow(second, 4)",
    "SELECT k, COUNT(*) AS c FROM a TIMESTAMP BY t GROUP BY k, SessionWindow(second, 2, 6) HAVING udf.tally(k) < 5",
    "WITH u AS (SELECT k, v FROM a TIMESTAMP BY t UNION SELECT k, v FROM b TIMESTAMP BY t) SELECT k, udf.tally(v) AS n \
    FROM u",
    "WITH u AS (SELECT k, udf.tally(v) AS v FROM a TIMESTAMP BY t UNION SELECT k, v FROM b TIMESTAMP BY t) SELECT k, v \
    FROM u",
    "SELECT x.v AS xv, udf.tally(y.v) AS n FROM a x TIMESTAMP BY t LEFT JOIN b y TIMESTAMP BY t ON x.k = y.k AND \
    DATEDIFF(second, x, y) BETWEEN 0 AND 3",
    "SELECT v, LAG(v) OVER (LIMIT DURATION(second, 6)) AS l, udf.tally(v) AS n FROM a TIMESTAMP BY t",
    "SELECT k, e.ArrayValue AS e, udf.tally(e.ArrayValue) AS n FROM a CROSS APPLY GetArrayElements(w) AS e",
];

type Sent = (u8, i64, i64, i64, i64);

fn sent() -> impl Strategy<Value = Vec<Sent>> {
    // input, pause before it, age in half seconds, key, value
    prop::collection::vec((0u8..2, 0i64..3, 0i64..9, 0i64..2, 0i64..5), 0..40)
}

fn raw(sent: &[Sent]) -> Vec<(String, RawEvent)> {
    let mut arrival = 100;
    let each = |(input, pause, age, k, v): &Sent| {
        arrival += pause;
        let time = at(arrival).saturating_add(-age * SECOND / 2);
        let payload = format!("{{\"t\":\"{time}\",\"k\":{k},\"v\":{v},\"w\":[{v},{k},{v}]}}");
        (if *input == 0 { "a" } else { "b" }.to_owned(), event(arrival, &payload))
    };
    sent.iter().map(each).collect()
}

/// Feeds events in calls of the given lengths; where a cut says so, commits and goes on in a fresh executor, having
/// dropped what came after the commit.
fn feed(
    part: &Part,
    options: &ExecutorOptions,
    events: &[(String, RawEvent)],
    cuts: &[(usize, bool)],
) -> (Vec<String>, usize) {
    let fresh = || Executor::new(part, options.clone(), Some(half())).unwrap();
    let mut executor = fresh();
    let mut state: BTreeMap<(u32, Vec<u8>), Vec<u8>> = BTreeMap::new();
    let mut out = Vec::new();
    let mut commit = |executor: &mut Executor, out: &mut Vec<String>| {
        let emitted = executor.take();
        let times = emitted.rows.batch.meta().iter().map(|m| m.time.to_string());
        out.extend(lines(&emitted.rows).into_iter().zip(times).map(|(line, time)| format!("{time} {line}")));
        for change in emitted.state {
            match change.value {
                Some(value) => drop(state.insert((change.op, change.key), value)),
                None => drop(state.remove(&(change.op, change.key)).expect("a removed state row was there")),
            }
        }
        state.clone()
    };
    let push = |executor: &mut Executor, from: usize, to: usize| {
        let mut at = from;
        while at < to {
            let end = (at..to).find(|i| events[*i].0 != events[at].0).unwrap_or(to);
            let same: Vec<RawEvent> = events[at..end].iter().map(|(_, e)| e.clone()).collect();
            executor.push_events(&events[at].0, at as i64, &same);
            at = end;
        }
    };
    let mut position = 0;
    for (length, crash) in cuts {
        let end = (position + length).min(events.len());
        push(&mut executor, position, end);
        position = end;
        if *crash {
            let stored = commit(&mut executor, &mut out);
            // read on without a commit, then lose it
            push(&mut executor, position, (position + 3).min(events.len()));
            executor.tick(events.last().map_or(at(0), |(_, e)| e.arrival));
            executor = fresh();
            executor
                .load_state(stored.iter().map(|((op, key), value)| (*op, key.as_slice(), value.as_slice())))
                .unwrap();
        }
    }
    push(&mut executor, position, events.len());
    executor.finish();
    let left = commit(&mut executor, &mut out);
    (out, left.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// The rows and their order depend neither on how the input is cut nor on restarts.
    #[test]
    fn cuts_and_crashes_change_nothing(
        query in 0..QUERIES.len(),
        sent in sent(),
        cuts in prop::collection::vec((1usize..6, any::<bool>()), 0..12),
        out_of_order in 0i64..3,
        adjust in any::<bool>(),
    ) {
        let part = &parts(QUERIES[query])[0];
        let policies = TimePolicies {
            late_tolerance: Some(3 * SECOND),
            out_of_order: out_of_order * SECOND,
            adjust,
            ..TimePolicies::default()
        };
        let options = ExecutorOptions { policies, ..ExecutorOptions::default() };
        let events = raw(&sent);
        let (whole, _) = feed(part, &options, &events, &[]);
        let (cut, _) = feed(part, &options, &events, &cuts);
        prop_assert_eq!(whole, cut);
    }

    /// What a function remembers depends on the rows alone: neither on how they were cut into calls nor on restarts.
    #[test]
    fn what_a_function_remembers_does_not_depend_on_cuts_or_crashes(
        query in 0..REMEMBERING.len(),
        sent in sent(),
        cuts in prop::collection::vec((1usize..6, any::<bool>()), 0..12),
        out_of_order in 0i64..3,
        adjust in any::<bool>(),
        null in any::<bool>(),
    ) {
        let part = &parts(REMEMBERING[query])[0];
        prop_assert!(part.is_stateful());
        let policies = TimePolicies {
            late_tolerance: Some(3 * SECOND),
            out_of_order: out_of_order * SECOND,
            adjust,
            ..TimePolicies::default()
        };
        let on_error = if null { OnError::Null } else { OnError::DeadLetter };
        let options = ExecutorOptions { policies, ..options(on_error) };
        let events = raw(&sent);
        let (whole, left) = feed(part, &options, &events, &[]);
        let (cut, cut_left) = feed(part, &options, &events, &cuts);
        prop_assert_eq!(whole, cut);
        prop_assert_eq!(left, cut_left);
    }

    /// What the operator finds is what a search through all rows finds.
    #[test]
    fn matches_are_those_of_a_search(sent in prop::collection::vec((0i64..3, 0i64..2, 0i64..5), 0..30)) {
        let query = "SELECT * FROM a MATCH_RECOGNIZE (LIMIT DURATION(second, 4) PARTITION BY k MEASURES First(A.v) AS \
            f, Last(A.v) AS l, B.v AS b AFTER MATCH SKIP TO NEXT ROW PATTERN (A+ B) DEFINE A AS A.v > 1, B AS B.v < \
            A.v)";
        let mut time = 0;
        let rows: Vec<(i64, i64, i64)> = sent
            .iter()
            .map(|(pause, k, v)| {
                time += pause;
                (time, *k, *v)
            })
            .collect();
        let mut expected = Vec::new();
        for key in 0..2 {
            let of_key: Vec<_> = rows.iter().filter(|(_, k, _)| *k == key).collect();
            for (i, (start, ..)) in of_key.iter().enumerate() {
                let reach: Vec<i64> =
                    of_key[i..].iter().take_while(|(t, ..)| *t < start + 4).map(|(_, _, v)| *v).collect();
                let many = reach.iter().take_while(|v| **v > 1).count();
                if let Some(n) = (1..=many).rev().find(|n| *n < reach.len() && reach[*n] < reach[n - 1]) {
                    expected.push(format!(
                        "{{\"k\":{key},\"f\":{},\"l\":{},\"b\":{}}}",
                        reach[0],
                        reach[n - 1],
                        reach[n]
                    ));
                }
            }
        }
        let events: Vec<_> = rows.iter().map(|(t, k, v)| (*t, "a", format!("{{\"k\":{k},\"v\":{v}}}"))).collect();
        let mut given = lines(&run(query, options(OnError::Stop), &events).rows);
        given.sort();
        expected.sort();
        prop_assert_eq!(given, expected);
    }

    /// Each substream is a timeline of its own: its rows are those it gives when it is alone.
    #[test]
    fn substreams_do_not_see_each_other(
        sent in sent(),
        cuts in prop::collection::vec((1usize..6, any::<bool>()), 0..12),
    ) {
        let part = &parts(
            "SELECT k, COUNT(*) AS n, SUM(v) AS s FROM a TIMESTAMP BY t OVER k GROUP BY k, \
            SlidingWindow(second, 3)",
        )[0];
        let options = ExecutorOptions::default();
        let events: Vec<_> = raw(&sent).into_iter().map(|(_, e)| ("a".to_owned(), e)).collect();
        let (together, _) = feed(part, &options, &events, &cuts);
        for key in 0..2 {
            let of_key = |text: &str| text.contains(&format!("\"k\":{key}"));
            let alone: Vec<_> =
                events.iter().filter(|(_, e)| of_key(std::str::from_utf8(&e.payload).unwrap())).cloned().collect();
            let (alone, _) = feed(part, &options, &alone, &[]);
            let mine: Vec<String> = together.iter().filter(|line| of_key(line)).cloned().collect();
            prop_assert_eq!(mine, alone);
        }
    }

    /// Every row read is counted once.
    #[test]
    fn counts_add_up(sent in sent(), adjust in any::<bool>(), out_of_order in 0i64..3) {
        let policies = TimePolicies {
            late_tolerance: Some(2 * SECOND),
            out_of_order: out_of_order * SECOND,
            adjust,
            ..TimePolicies::default()
        };
        for query in [
            "SELECT udf.half(v) AS h FROM a TIMESTAMP BY t WHERE k = 0",
            "SELECT SUM(udf.half(v)) AS h FROM \
            a TIMESTAMP BY t WHERE k = 0 GROUP BY TumblingWindow(second, 2)",
        ] {
            let mut executor = executor(query, ExecutorOptions { policies, ..options(OnError::DeadLetter) });
            let events = raw(&sent);
            let mut sum = Counts::default();
            for (offset, (_, event)) in (0..).zip(&events) {
                executor.push_events("a", offset, std::slice::from_ref(event));
                let emitted = executor.take();
                let failed: u64 = emitted.counts.failed.values().sum();
                prop_assert_eq!(failed, emitted.failures.len() as u64);
                sum.rows += emitted.counts.rows;
                sum.filtered += emitted.counts.filtered
                    + failed
                    + emitted.counts.dropped.values().sum::<u64>()
                    + emitted.counts.evaluated;
                prop_assert_eq!(sum.rows, sum.filtered + emitted.waiting);
            }
            prop_assert_eq!(sum.rows, events.len() as u64);
        }
    }
}

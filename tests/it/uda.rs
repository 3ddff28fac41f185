//! User aggregates: laws that their results keep with any input, guests that fail, and what a person sees of them. The
//! engine runs in the test; a module that needs a peer names it.

#[path = "uda/commands.rs"]
mod commands;
#[path = "uda/instances.rs"]
mod instances;
#[path = "uda/refusals.rs"]
mod refusals;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use forebay::batch::{RawEvent, write_row_json};
use forebay::engine::{Emitted, Executor, ExecutorOptions, OnError, TimePolicies};
use forebay::query::catalog::{Catalog, FunctionDef, FunctionKind, InputDef, InputKind};
use forebay::query::plan::Part;
use forebay::time::{TICKS_PER_SECOND, Timestamp};
use forebay::udf::{Component, Engine, FunctionBinding, Grants, Host, Limits};
use proptest::prelude::*;
use serde_json::Value as Json;

use crate::harness::component;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(None).unwrap());
static GUESTS: LazyLock<Vec<Arc<Component>>> =
    LazyLock::new(|| vec![guest("weighted_mean", Duration::from_secs(10)), guest("trails", Duration::from_secs(10))]);
/// Short, for the guest that never ends.
static HASTY: LazyLock<Vec<Arc<Component>>> = LazyLock::new(|| vec![guest("trails", Duration::from_millis(50))]);

fn guest(name: &str, timeout: Duration) -> Arc<Component> {
    Arc::new(Component::load(&ENGINE, &component(name), Limits { timeout, ..Limits::default() }).unwrap())
}

/// Every callable export of the guests, under its own name.
fn bindings(guests: &[Arc<Component>]) -> Vec<FunctionBinding> {
    let of = |component: &Arc<Component>| {
        let exports = component.exports().iter().enumerate();
        exports.map(|(i, e)| FunctionBinding::new(Arc::clone(component), i, e.name.clone())).collect::<Vec<_>>()
    };
    guests.iter().flat_map(of).collect()
}

fn catalog(bindings: &[FunctionBinding]) -> Catalog {
    let function = |(index, binding): (usize, &FunctionBinding)| {
        let signature = binding.signature().unwrap().clone();
        let kind = match binding.aggregate() {
            Some(offers) => FunctionKind::Aggregate { index, signature, offers },
            None => FunctionKind::Local { index, signature, keeps_state: false },
        };
        FunctionDef { name: binding.name.clone(), kind }
    };
    Catalog {
        inputs: vec![InputDef { name: "a".to_owned(), kind: InputKind::Stream }],
        outputs: None,
        functions: bindings.iter().enumerate().map(function).collect(),
    }
}

/// A query with its guests, ready to be run again and again.
struct Run {
    part: Part,
    bindings: Vec<FunctionBinding>,
    options: ExecutorOptions,
}

impl Run {
    fn new(query: &str, on_error: OnError) -> Run {
        Run::with(&GUESTS, query, on_error)
    }

    fn with(guests: &[Arc<Component>], query: &str, on_error: OnError) -> Run {
        let mut bindings = bindings(guests);
        // instances cost time, and most queries need few
        let folded =
            |text: &str| text.chars().filter(|c| c.is_alphanumeric() || *c == '(').collect::<String>().to_lowercase();
        bindings.retain(|b| folded(query).contains(&folded(&format!("uda{}(", b.name))));
        let plan = forebay::query::compile(query, "q", &catalog(&bindings)).unwrap_or_else(|e| panic!("{e}"));
        // counters of its own
        bindings.iter_mut().for_each(|b| b.stats = Arc::default());
        let policies = TimePolicies { late_tolerance: Some(1000 * TICKS_PER_SECOND), ..TimePolicies::default() };
        Run {
            part: plan.statements[0].parts[0].clone(),
            bindings,
            options: ExecutorOptions { on_error, policies, ..ExecutorOptions::default() },
        }
    }

    fn executor(&self) -> Executor {
        Executor::new(&self.part, self.options.clone(), Some(Box::new(Host::new(&self.bindings).unwrap()))).unwrap()
    }

    fn binding(&self, name: &str) -> &FunctionBinding {
        self.bindings.iter().find(|b| b.name == name).unwrap()
    }

    fn failures(&self, name: &str, reason: &str) -> u64 {
        self.binding(name).stats.failures().find(|(r, _)| *r == reason).unwrap().1
    }

    /// Everything that one executor gives for the events.
    fn all(&self, events: &[RawEvent]) -> Emitted {
        let mut executor = self.executor();
        executor.push_events("a", 0, events);
        executor.finish();
        executor.take()
    }

    /// Feeds the events in calls of the given lengths; where a cut says so, commits and goes on in a fresh executor
    /// with fresh guests. Gives the rows, the failed offsets, and how much state is left.
    fn cut(&self, events: &[RawEvent], cuts: &[(usize, bool)]) -> (Vec<String>, Vec<i64>, usize) {
        let mut executor = self.executor();
        let mut state: BTreeMap<(u32, Vec<u8>), Vec<u8>> = BTreeMap::new();
        let (mut rows, mut failed) = (Vec::new(), Vec::new());
        let mut commit = |executor: &mut Executor| {
            let emitted = executor.take();
            rows.extend(lines(&emitted));
            failed.extend(emitted.failures.iter().map(|f| f.position));
            for change in emitted.state {
                match change.value {
                    Some(value) => drop(state.insert((change.op, change.key), value)),
                    None => drop(state.remove(&(change.op, change.key)).expect("a removed state row was there")),
                }
            }
            state.clone()
        };
        let mut position = 0;
        for (length, restart) in cuts {
            let end = (position + length).min(events.len());
            executor.push_events("a", position as i64, &events[position..end]);
            position = end;
            if *restart {
                let stored = commit(&mut executor);
                // read on without a commit, then lose it
                executor.push_events("a", position as i64, &events[position..(position + 3).min(events.len())]);
                executor = self.executor();
                executor
                    .load_state(stored.iter().map(|((op, key), value)| (*op, key.as_slice(), value.as_slice())))
                    .unwrap();
            }
        }
        executor.push_events("a", position as i64, &events[position..]);
        executor.finish();
        let left = commit(&mut executor);
        (rows, failed, left.len())
    }
}

fn at(tenths: i64) -> Timestamp {
    Timestamp::parse("2024-01-01").unwrap().saturating_add(tenths * TICKS_PER_SECOND / 10)
}

fn event(time: i64, fields: &str) -> RawEvent {
    let payload = format!("{{\"t\":\"{}\",{fields}}}", at(time));
    RawEvent { arrival: at(time), payload: Bytes::from(payload), message: Arc::default(), mark: 0 }
}

fn lines(emitted: &Emitted) -> Vec<String> {
    let line = |(meta, row): (&forebay::batch::RowMeta, &[forebay::value::Value])| {
        let mut out = format!("{} ", meta.time);
        write_row_json(&emitted.rows.columns, row, &mut out);
        out
    };
    emitted.rows.batch.rows().map(line).collect()
}

fn fields(line: &str) -> Json {
    serde_json::from_str(line.split_once(' ').unwrap().1).unwrap()
}

/// Pause before it in tenths of a second, key, value, weight.
type Sent = (i64, i64, i64, i64);

fn sent(values: std::ops::Range<i64>) -> impl Strategy<Value = Vec<Sent>> {
    let pause = prop_oneof![3 => Just(0i64), 6 => 1i64..15, 1 => 15i64..70];
    prop::collection::vec((pause, 0i64..3, values, 1i64..4), 0..120)
}

fn cuts() -> impl Strategy<Value = Vec<(usize, bool)>> {
    prop::collection::vec((1usize..25, any::<bool>()), 0..8)
}

fn raw(sent: &[Sent]) -> Vec<RawEvent> {
    let mut now = 0;
    let each = |(pause, k, v, w): &Sent| {
        now += pause;
        // NULL for one value, which leaves the row out of every aggregate
        let v = if *v == 99 { "null".to_owned() } else { v.to_string() };
        event(now, &format!("\"k\":{k},\"v\":{v},\"w\":{w}"))
    };
    sent.iter().map(each).collect()
}

/// One `GROUP BY` for each way in which windows keep their rows.
const WINDOWS: [&str; 11] = [
    "k, TumblingWindow(second, 5)",
    "TumblingWindow(second, 30)",
    "k, HoppingWindow(second, 6, 2)",
    "k, HoppingWindow(second, 6, 4)",
    "HoppingWindow(second, 2, 3)",
    "k, SlidingWindow(second, 4)",
    "SlidingWindow(second, 9)",
    "k, SessionWindow(second, 2, 6) OVER (PARTITION BY k)",
    "k, SessionWindow(second, 2, 5)",
    "k, System.Timestamp()",
    "k, Windows(Window('x', TumblingWindow(second, 3)), Window('y', SlidingWindow(second, 2)), Window('z', \
    HoppingWindow(second, 4, 2)), Window('s', SessionWindow(second, 1, 9)))",
];

fn query(select: &str, window: &str) -> String {
    format!("SELECT {select} FROM a TIMESTAMP BY t GROUP BY {window}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever a resource offers, it is given the rows of its window in their order and no others, in every kind of
    /// window, for any cut of the input and after any restart.
    #[test]
    fn an_aggregate_sees_the_rows_of_its_window(window in 0..WINDOWS.len(), sent in sent(0..100), cuts in cuts()) {
        let select = "COUNT(v) AS n, uda.trail(v) AS a, uda.saving_trail(v) AS b, uda.reversing_trail(v) AS c, \
            uda.merging_trail(v) AS d, uda.full_trail(v) AS e, uda.stubbornTrail(v) AS g, Collect(v) AS f, \
            uda.weightedMean(v, w) AS m, SUM(v * w) AS s, SUM(CASE WHEN v IS NULL THEN 0 ELSE w END) AS w, \
            uda.timeSpan() AS span, COUNT(*) AS rows";
        let run = Run::new(&query(select, WINDOWS[window]), OnError::Stop);
        let events = raw(&sent);
        let (whole, failed, left) = run.cut(&events, &[]);
        prop_assert!(failed.is_empty());
        for line in &whole {
            let row = fields(line);
            let values: Vec<&Json> = row["f"].as_array().unwrap().iter().filter(|v| !v.is_null()).collect();
            for column in ["a", "b", "c", "d", "e", "g"] {
                prop_assert_eq!(
                    row[column].as_array().unwrap().iter().collect::<Vec<_>>(),
                    values.clone(),
                    "{} of {}",
                    column,
                    line
                );
            }
            let mean =
                if values.is_empty() { None } else { Some(row["s"].as_f64().unwrap() / row["w"].as_f64().unwrap()) };
            prop_assert_eq!(row["m"].as_f64(), mean, "{}", line);
            prop_assert!(row["span"].as_i64().is_some(), "{}", line);
        }
        // without saved state, and without any aggregate that could bring panes with it
        let plain = Run::new(
            &query("COUNT(v) AS n, uda.fullTrail(v) AS e, uda.weightedMean(v, w) AS m", WINDOWS[window]),
            OnError::Stop,
        );
        let (alone, _, _) = plain.cut(&events, &cuts);
        let shown = |line: &String| {
            let row = fields(line);
            (row["n"].clone(), row["e"].clone(), row["m"].clone())
        };
        prop_assert_eq!(alone.iter().map(shown).collect::<Vec<_>>(), whole.iter().map(shown).collect::<Vec<_>>());
        let (cut, _, left_of_cut) = run.cut(&events, &cuts);
        prop_assert_eq!(&whole, &cut);
        prop_assert_eq!(left, left_of_cut);
    }

    /// Rows that a guest traps on, or refuses, are left out of everything, and all others are in, in spite of the
    /// instances lost on the way: each of them held the other groups too.
    #[test]
    fn a_row_that_fails_is_in_no_aggregate(
        window in 0..WINDOWS.len(),
        sent in sent(0..15),
        cuts in cuts(),
        saves in any::<bool>(),
    ) {
        let name = if saves { "fragileTrail" } else { "brittleTrail" };
        let run = Run::new(
            &query(&format!("COUNT(*) AS n, uda.{name}(v) AS f, uda.fullTrail(v) AS e"), WINDOWS[window]),
            OnError::DeadLetter,
        );
        let events = raw(&sent);
        let (rows, failed, _) = run.cut(&events, &cuts);
        // a fragile trail also traps where its instance has seen enough, so what failed is taken from the failures
        for (offset, (_, _, v, _)) in (0..).zip(&sent) {
            // between windows nobody is asked
            let asked = !WINDOWS[window].contains("HoppingWindow(second, 2, 3)");
            prop_assert!(
                !asked || ![13, 14].contains(v) || failed.contains(&offset),
                "{} did not fail at {}",
                v,
                offset
            );
            prop_assert!(saves || [13, 14].contains(v) || !failed.contains(&offset), "{} failed at {}", v, offset);
        }
        let good: Vec<Sent> =
            sent.iter().zip(0..).filter(|(_, offset)| !failed.contains(offset)).map(|(s, _)| *s).collect();
        // those left out still take their time
        let mut pauses = Vec::new();
        let mut late = 0;
        for ((pause, ..), offset) in sent.iter().zip(0..) {
            late += pause;
            if !failed.contains(&offset) {
                pauses.push(std::mem::take(&mut late));
            }
        }
        let good: Vec<Sent> = good.into_iter().zip(pauses).map(|((_, k, v, w), pause)| (pause, k, v, w)).collect();
        let model = Run::new(&query("COUNT(*) AS n, Collect(v) AS f, Collect(v) AS e", WINDOWS[window]), OnError::Stop);
        prop_assert_eq!(rows, model.cut(&raw(&good), &[]).0);
    }
}

#[test]
fn state_goes_when_its_windows_have_ended() {
    let sent: Vec<Sent> = (0..200).map(|i| (i % 7, i % 3, i % 11, 1)).collect();
    for window in WINDOWS {
        let run = Run::new(&query("uda.trail(v) AS a, uda.fullTrail(v) AS b", window), OnError::Stop);
        let (rows, _, left) = run.cut(&raw(&sent), &[(50, true), (50, true)]);
        assert!(!rows.is_empty());
        // ids, the watermark, and up to where each window is out
        assert!(left <= 6, "{left} state rows left by {window}");
    }
}

#[test]
fn null_in_place_of_a_failing_row_leaves_it_out_of_that_aggregate_alone() {
    let run = Run::new(
        &query("COUNT(*) AS n, uda.brittleTrail(v) AS f, uda.trail(v) AS t", "TumblingWindow(second, 5)"),
        OnError::Null,
    );
    let events: Vec<_> = [1, 13, 2, 14, 3].iter().map(|v| event(1, &format!("\"v\":{v}"))).collect();
    let emitted = run.all(&events);
    assert_eq!(lines(&emitted), [r#"2024-01-01T00:00:05.0000000Z {"n":5,"f":[1,2,3],"t":[1,13,2,14,3]}"#]);
    assert_eq!((emitted.counts.nulled["udf_trap"], emitted.counts.nulled["udf_error"]), (1, 1));
    assert!(emitted.failures.is_empty());
}

#[test]
fn a_function_that_stops_the_statement_stops_it_at_the_row() {
    let run = Run::new(&query("uda.brittleTrail(v) AS f", "TumblingWindow(second, 5)"), OnError::Stop);
    let events: Vec<_> = [1, 2, 14, 3].iter().map(|v| event(1, &format!("\"v\":{v}"))).collect();
    let stopped = run.all(&events).stopped.unwrap();
    assert_eq!((stopped.position, stopped.message.as_str()), (2, "uda.brittle-trail: fourteen"));
}

#[test]
fn a_row_that_never_ends_and_a_value_that_fails() {
    let select = query("k, COUNT(*) AS n, uda.brittleTrail(v) AS f", "k, TumblingWindow(second, 5)");
    let events: Vec<_> = [(0, 1), (1, 16), (0, 15), (2, 17), (0, 2), (3, 3)]
        .iter()
        .map(|(k, v)| event(1, &format!("\"k\":{k},\"v\":{v}")))
        .collect();
    let run = Run::with(&HASTY, &select, OnError::DeadLetter);
    let emitted = run.all(&events);
    let time = "2024-01-01T00:00:05.0000000Z";
    assert_eq!(
        lines(&emitted),
        [format!(r#"{time} {{"k":0,"n":2,"f":[1,2]}}"#), format!(r#"{time} {{"k":3,"n":1,"f":[3]}}"#)]
    );
    let failed: Vec<_> = emitted.failures.iter().map(|f| (f.reason, f.message.as_str())).collect();
    assert_eq!(
        failed[0],
        (
            "udf_timeout",
            "uda.brittle-trail: ran longer than 50 ms and was stopped; make it faster or raise its timeout"
        )
    );
    assert_eq!(failed[1], ("udf_error", "uda.brittle-trail: sixteen"));
    assert_eq!(failed[2].0, "udf_trap");
    assert_eq!(failed.len(), 3);
    // the row's own failure is one of rows read, a group's is not
    assert_eq!((emitted.counts.failed["udf_timeout"], emitted.counts.failed_derived["udf_error"]), (1, 1));
    assert_eq!((emitted.counts.evaluated, emitted.counts.rows), (5, 6));

    let emitted = Run::with(&HASTY, &select, OnError::Null).all(&events);
    let values: Vec<_> = lines(&emitted).iter().map(|line| fields(line)["f"].to_string()).collect();
    assert_eq!(values, ["[1,2]", "null", "null", "[3]"]);
}

#[test]
fn values_of_any_type_and_events_as_a_whole() {
    let run = Run::new(
        &query(
            "uda.anyTrail(v) AS a, uda.anyTrail(a) AS whole, uda.timeSpan() AS own, uda.timeSpan(u) AS other",
            "TumblingWindow(second, 5)",
        ),
        OnError::Stop,
    );
    let events: Vec<_> = ["1", "2.5", "\"x\"", "null", "[1,{\"y\":null}]"]
        .iter()
        .zip(0..)
        .map(|(v, i)| event(1 + i, &format!("\"v\":{v},\"u\":\"2024-01-01T00:00:0{i}Z\"")))
        .collect();
    let row = fields(&lines(&run.all(&events))[0]);
    assert_eq!(row["a"].to_string(), r#"[1,2.5,"x",null,[1,{"y":null}]]"#);
    assert_eq!(row["whole"][4]["v"].to_string(), r#"[1,{"y":null}]"#);
    assert_eq!(row["own"].as_i64(), Some(4 * TICKS_PER_SECOND / 10));
    assert_eq!(row["other"].as_i64(), Some(4 * TICKS_PER_SECOND));
}

#[test]
fn an_aggregate_stands_in_having_and_in_expressions() {
    let run = Run::new(
        "SELECT k, 10 * uda.weightedMean(v, w) + uda.timeSpan() * 0 AS m, GetArrayLength(uda.trail(v + 1)) AS n FROM a \
         TIMESTAMP BY t GROUP BY k, TumblingWindow(second, 5) HAVING uda.WEIGHTED_MEAN(v, w) > 2 AND \
         GetArrayElement(uda.full_trail(v), 0) < 3",
        OnError::Stop,
    );
    let rows = [(0, 1, 1), (0, 2, 1), (1, 2, 1), (1, 4, 1), (2, 9, 1)];
    let events: Vec<_> = rows.iter().map(|(k, v, w)| event(1, &format!("\"k\":{k},\"v\":{v},\"w\":{w}"))).collect();
    assert_eq!(lines(&run.all(&events)), [r#"2024-01-01T00:00:05.0000000Z {"k":1,"m":30.0,"n":2}"#]);
}

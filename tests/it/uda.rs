//! User aggregates: the laws that their results keep, guests that fail, and what a person sees of them.

#[path = "uda/refusals.rs"]
mod refusals;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use expect_test::expect;
use forebay::batch::{RawEvent, write_row_json};
use forebay::engine::{Emitted, Executor, ExecutorOptions, OnError, TimePolicies};
use forebay::query::catalog::{Catalog, FunctionDef, FunctionKind, InputDef, InputKind};
use forebay::query::plan::Part;
use forebay::time::{Clock, TICKS_PER_SECOND, Timestamp};
use forebay::udf::{Component, Engine, FunctionBinding, Grants, Host, Limits};
use proptest::prelude::*;
use serde_json::Value as Json;

use crate::harness::{Forebay, PATIENCE, component, until, write};
use crate::support::Mosquitto;

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
    "k, Windows(Window('x', TumblingWindow(second, 3)), Window('y', SlidingWindow(second, 2)), Window('z', HoppingWindow(second, 4, 2)), Window('s', SessionWindow(second, 1, 9)))",
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
        let select = "COUNT(v) AS n, uda.trail(v) AS a, uda.saving_trail(v) AS b, uda.reversing_trail(v) AS c, uda.merging_trail(v) AS d, uda.full_trail(v) AS e, uda.stubbornTrail(v) AS g, \
            Collect(v) AS f, uda.weightedMean(v, w) AS m, SUM(v * w) AS s, SUM(CASE WHEN v IS NULL THEN 0 ELSE w END) AS w, uda.timeSpan() AS span, COUNT(*) AS rows";
        let run = Run::new(&query(select, WINDOWS[window]), OnError::Stop);
        let events = raw(&sent);
        let (whole, failed, left) = run.cut(&events, &[]);
        prop_assert!(failed.is_empty());
        for line in &whole {
            let row = fields(line);
            let values: Vec<&Json> = row["f"].as_array().unwrap().iter().filter(|v| !v.is_null()).collect();
            for column in ["a", "b", "c", "d", "e", "g"] {
                prop_assert_eq!(row[column].as_array().unwrap().iter().collect::<Vec<_>>(), values.clone(), "{} of {}", column, line);
            }
            let mean = if values.is_empty() { None } else { Some(row["s"].as_f64().unwrap() / row["w"].as_f64().unwrap()) };
            prop_assert_eq!(row["m"].as_f64(), mean, "{}", line);
            prop_assert!(row["span"].as_i64().is_some(), "{}", line);
        }
        // without saved state, and without any aggregate that could bring panes with it
        let plain = Run::new(&query("COUNT(v) AS n, uda.fullTrail(v) AS e, uda.weightedMean(v, w) AS m", WINDOWS[window]), OnError::Stop);
        let (alone, _, _) = plain.cut(&events, &cuts);
        let shown = |line: &String| { let row = fields(line); (row["n"].clone(), row["e"].clone(), row["m"].clone()) };
        prop_assert_eq!(alone.iter().map(shown).collect::<Vec<_>>(), whole.iter().map(shown).collect::<Vec<_>>());
        let (cut, _, left_of_cut) = run.cut(&events, &cuts);
        prop_assert_eq!(&whole, &cut);
        prop_assert_eq!(left, left_of_cut);
    }

    /// Rows that a guest traps on, or refuses, are left out of everything, and all others are in, in spite of the
    /// instances lost on the way: each of them held the other groups too.
    #[test]
    fn a_row_that_fails_is_in_no_aggregate(window in 0..WINDOWS.len(), sent in sent(0..15), cuts in cuts(), saves in any::<bool>()) {
        let name = if saves { "fragileTrail" } else { "brittleTrail" };
        let run = Run::new(&query(&format!("COUNT(*) AS n, uda.{name}(v) AS f, uda.fullTrail(v) AS e"), WINDOWS[window]), OnError::DeadLetter);
        let events = raw(&sent);
        let (rows, failed, _) = run.cut(&events, &cuts);
        // a fragile trail also traps where its instance has seen enough, so what failed is taken from the failures
        for (offset, (_, _, v, _)) in (0..).zip(&sent) {
            // between windows nobody is asked
            let asked = !WINDOWS[window].contains("HoppingWindow(second, 2, 3)");
            prop_assert!(!asked || ![13, 14].contains(v) || failed.contains(&offset), "{} did not fail at {}", v, offset);
            prop_assert!(saves || [13, 14].contains(v) || !failed.contains(&offset), "{} failed at {}", v, offset);
        }
        let good: Vec<Sent> = sent.iter().zip(0..).filter(|(_, offset)| !failed.contains(offset)).map(|(s, _)| *s).collect();
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
fn an_aggregate_that_only_traps_is_paused() {
    let select = query("COUNT(*) AS n, uda.brittleTrail(v) AS f", "TumblingWindow(second, 5)");
    let run = Run::new(&select, OnError::DeadLetter);
    let events: Vec<_> = (0..300).map(|_| event(1, "\"v\":13")).collect();
    let emitted = run.all(&events);
    assert_eq!(emitted.failures.len(), 300);
    let (traps, paused) = (run.failures("brittle-trail", "udf_trap"), run.failures("brittle-trail", "udf_breaker"));
    assert!(traps >= 100 && paused > 0, "{traps} traps, {paused} rows of a pause");
}

#[test]
fn an_instance_is_replaced_inside_a_window() {
    const ROWS: i64 = 35_000;
    let run = Run::new(
        &query("uda.weightedMean(v, w) AS m, uda.timeSpan() AS s, COUNT(*) AS n", "TumblingWindow(hour, 1)"),
        OnError::Stop,
    );
    let events: Vec<_> = (1..=ROWS).map(|i| event(i, &format!("\"v\":{i},\"w\":1"))).collect();
    let row = fields(&lines(&run.all(&events))[0]);
    assert_eq!(row["m"].as_f64(), Some((ROWS + 1) as f64 / 2.0));
    assert_eq!(row["s"].as_i64(), Some((ROWS - 1) * TICKS_PER_SECOND / 10));
    // saved: a new one for each 10,000 rows. Not saved: the second one takes the first 10,000 rows again before as many
    // new ones, the third 20,000
    assert_eq!(run.binding("weighted-mean").stats.instances(), 4);
    assert_eq!(run.binding("time-span").stats.instances(), 3);
}

#[test]
fn groups_that_fill_the_memory_of_an_instance_together_are_no_errors() {
    let limits = Limits { memory_bytes: (1 << 20) + (1 << 19), timeout: Duration::from_secs(10), ..Limits::default() };
    let small = Arc::new(Component::load(&ENGINE, &component("trails"), limits).unwrap());
    for name in ["trail", "full_trail"] {
        let run = Run::with(
            std::slice::from_ref(&small),
            &query(&format!("k, uda.{name}(v) AS a"), "k, TumblingWindow(second, 50)"),
            OnError::Stop,
        );
        let events: Vec<_> = (0..54_000).map(|i| event(1 + i / 200, &format!("\"k\":{},\"v\":{i}", i / 600))).collect();
        let emitted = run.all(&events);
        assert_eq!(emitted.rows.batch.len(), 90, "{:?}", emitted.stopped);
        for line in lines(&emitted) {
            let row = fields(&line);
            let k = row["k"].as_i64().unwrap();
            assert_eq!(row["a"], Json::from((0..600).map(|i| 600 * k + i).collect::<Vec<_>>()));
        }
        // a saved group is let go after its value is known, one that runs beside its window is not
        assert!(name != "trail" || run.failures(name, "udf_memory") > 0);
    }
}

#[test]
fn more_groups_than_live_at_a_time() {
    let run =
        Run::new(&query("k, uda.trail(v) AS a, uda.fullTrail(v) AS b", "k, TumblingWindow(second, 50)"), OnError::Stop);
    let events: Vec<_> = (0..15_000).map(|i| event(1 + i / 100, &format!("\"k\":{},\"v\":{i}", i % 5000))).collect();
    let emitted = run.all(&events);
    assert_eq!(emitted.rows.batch.len(), 5000);
    for line in lines(&emitted) {
        let row = fields(&line);
        let k = row["k"].as_i64().unwrap();
        let expected = Json::from(vec![k, k + 5000, k + 10_000]);
        assert_eq!((&row["a"], &row["b"]), (&expected, &expected));
    }
}

#[test]
fn rows_that_leave_one_by_one_save_the_work_of_starting_anew() {
    let run = Run::new(&query("uda.callCount(v) AS calls, COUNT(*) AS n", "SlidingWindow(second, 20)"), OnError::Stop);
    let events: Vec<_> = (0..100).map(|i| event(10 * i, "\"v\":1")).collect();
    let rows: Vec<Json> = lines(&run.all(&events)).iter().map(|line| fields(line)).collect();
    // the row at 99 s: a hundred have entered, and those up to 79 s have left
    let row = &rows[99];
    assert_eq!((row["n"].as_i64(), row["calls"].as_i64()), (Some(20), Some(100 + 80)));
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
        "SELECT k, 10 * uda.weightedMean(v, w) + uda.timeSpan() * 0 AS m, GetArrayLength(uda.trail(v + 1)) AS n FROM a TIMESTAMP BY t \
         GROUP BY k, TumblingWindow(second, 5) HAVING uda.WEIGHTED_MEAN(v, w) > 2 AND GetArrayElement(uda.full_trail(v), 0) < 3",
        OnError::Stop,
    );
    let rows = [(0, 1, 1), (0, 2, 1), (1, 2, 1), (1, 4, 1), (2, 9, 1)];
    let events: Vec<_> = rows.iter().map(|(k, v, w)| event(1, &format!("\"k\":{k},\"v\":{v},\"w\":{w}"))).collect();
    assert_eq!(lines(&run.all(&events)), [r#"2024-01-01T00:00:05.0000000Z {"k":1,"m":30.0,"n":2}"#]);
}

const JOB: &str = r#"[job]
name = "means"
query = "means.asaql"
late_tolerance = "20d"
[metrics]
listen = "127.0.0.1:0"
[inputs.rides]
type = "mqtt"
url = "URL"
topics = ["rides"]
[functions.weightedMean]
type = "wasm"
component = "weighted_mean.wasm"
[functions.path]
type = "wasm"
component = "trails.wasm"
export = "trail"
[outputs.means]
type = "mqtt"
url = "URL"
topic = "means"
"#;

const QUERY: &str = "SELECT k, uda.weightedMean(fare, distance) AS m, uda.path(n) AS path, COUNT(*) AS n\n\
    INTO means FROM rides TIMESTAMP BY t GROUP BY k, TumblingWindow(hour, 1)\n";

fn job_in(dir: &Path, url: &str) -> std::path::PathBuf {
    for name in ["weighted_mean", "trails"] {
        std::fs::copy(component(name), dir.join(name).with_extension("wasm")).unwrap();
    }
    write(dir, "means.asaql", QUERY);
    write(dir, "job.toml", &JOB.replace("URL", url))
}

#[test]
fn check_and_eval_and_udf_show_aggregates() {
    let dir = tempfile::tempdir().unwrap();
    job_in(dir.path(), "mqtt://127.0.0.1:1883");
    let cache = dir.path().join("cache").display().to_string();
    let run = |args: &[&str]| crate::harness::cli_in(dir.path(), &[("CACHE_DIRECTORY", &cache)], args);
    let (code, out, err) = run(&["check", "job.toml"]);
    assert_eq!((code, err.as_str()), (0, ""));
    expect![[r#"
        job means, pool means.db

        plan
          into means
            read rides: t, k, fare, distance, n timestamp by t
            group by k in tumbling 1 h: uda.weightedMean(fare, distance), uda.path(n), COUNT(*)
            gives k, m = uda.weightedMean(fare, distance), path = uda.path(n), n = COUNT(*)

        functions
          uda.weightedMean(value float, weight float)
            gives float or NULL
            WIT   resource weighted-mean { accumulate: func(value: f64, weight: f64); compute: func() -> option<f64>; deaccumulate; merge; save; restore }
            from  weighted_mean.wasm
          uda.path(x bigint)
            gives array of bigint
            WIT   resource trail { accumulate: func(x: s64); compute: func() -> list<s64> }
            from  trails.wasm
    "#]].assert_eq(out.split("\nnote:").next().unwrap());

    let rides: String = (0..4)
        .map(|n| format!("{{\"t\":\"2024-01-01T00:10:0{n}Z\",\"k\":1,\"n\":{n},\"fare\":{n},\"distance\":2}}\n"))
        .collect();
    write(dir.path(), "rides.jsonl", &rides);
    let (code, out, err) = run(&["eval", "means.asaql", "--input", "rides=rides.jsonl", "--job", "job.toml"]);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (0, "{\"output\":\"means\",\"row\":{\"k\":1,\"m\":1.5,\"path\":[0,1,2,3],\"n\":4}}\n", "")
    );

    let (code, _, err) = run(&["udf", "call", "weighted_mean.wasm", "weightedMean", "1", "2"]);
    assert_eq!(code, 2);
    expect![[r#"
        error: weightedMean is an aggregate, which takes the rows of a window
         = help: write rows for `forebay udf test`: {"aggregate": "weightedMean", "rows": [[…], […]], "expected": …}; or try `uda.weightedMean(…)` in a query with `forebay eval QUERY --input NAME=FILE --job JOB`
    "#]].assert_eq(&err);
    let (code, out, _) = run(&["udf", "inspect", "weighted_mean.wasm"]);
    assert_eq!(code, 0);
    let shown: Vec<&str> = out.lines().skip_while(|line| !line.contains("imports")).collect();
    let wanted = [
        "  imports   none",
        "",
        "  forebay:weighted-mean/aggregates#weighted-mean",
        "    SQL  uda.weighted_mean(value float, weight float) -> float or NULL",
        "    WIT  resource weighted-mean { accumulate: func(value: f64, weight: f64); compute: func() -> option<f64>; deaccumulate; merge; save; restore }",
    ];
    assert_eq!(shown, wanted);

    write(
        dir.path(),
        "means.asaql",
        "SELECT uda.weightedMean(fare) AS m INTO means FROM rides GROUP BY TumblingWindow(hour, 1)",
    );
    let (code, _, err) = run(&["check", "job.toml"]);
    assert_eq!(code, 2);
    expect![[r#"
        error: `uda.weightedMean` takes 2 arguments
          --> means.asaql:1:8
           |
         1 | SELECT uda.weightedMean(fare) AS m INTO means FROM rides GROUP BY TumblingWindow(hour, 1)
           |        ^^^^^^^^^^^^^^^^^^^^^^ 1 given
           = note: the call: uda.weightedMean(any)
           = note: the aggregate: resource weighted-mean { accumulate: func(value: f64, weight: f64); compute: func() -> option<f64>; deaccumulate; merge; save; restore }
    "#]].assert_eq(&err);
}

/// The process is killed while a window is open, again and again: no row is lost from it and none counts twice, be the
/// aggregate saved or its rows kept.
#[test]
fn kills_inside_a_window_change_nothing() {
    const ROWS: i64 = 600;
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let broker = Mosquitto::start();
    let job = job_in(dir.path(), &broker.url());
    let rows: Arc<std::sync::Mutex<BTreeMap<i64, Json>>> = Arc::default();
    let sink = rows.clone();
    let take = move |m: forebay::demo::client::Message| {
        let row: Json = serde_json::from_slice(&m.payload).unwrap();
        let key = row["k"].as_i64().unwrap();
        // a row that comes again is the same row
        let known = sink.lock().unwrap().insert(key, row.clone());
        assert!(known.is_none_or(|known| known == row));
    };
    let receiver = runtime.block_on(async {
        forebay::demo::client::Receiver::listen("receiver", "127.0.0.1", broker.port, "means", take)
    });
    assert!(runtime.block_on(receiver.ready(PATIENCE)));
    let mut forebay = Forebay::run(&job);
    let feed = runtime.block_on(async { forebay::demo::client::Publisher::connect("fleet", "127.0.0.1", broker.port) });
    // an hour two days ago: late, but within what is tolerated
    let now = Clock::Real.now().ticks();
    let hour = 3600 * TICKS_PER_SECOND;
    let start = (now / hour - 48) * hour;
    let time = |seconds: i64| Timestamp::saturating_from_ticks(start + seconds * TICKS_PER_SECOND);
    let send = |payload: String| assert!(runtime.block_on(feed.send("rides", payload)));
    for n in 1..=ROWS {
        send(format!("{{\"t\":\"{}\",\"k\":{},\"n\":{n},\"fare\":{n},\"distance\":{}}}", time(n), n % 2, 1 + n % 3));
        if n % 100 == 0 {
            assert!(runtime.block_on(feed.drained(PATIENCE)));
            until("the rows are read and committed", || {
                (forebay.metric("forebay_consumer_read") >= n as f64).then_some(())
            });
            forebay.kill();
            forebay = Forebay::run(&job);
        }
    }
    // a row of a later hour closes the window
    send(format!("{{\"t\":\"{}\",\"k\":9,\"n\":0,\"fare\":0,\"distance\":1}}", time(7300)));
    until("both rows", || (rows.lock().unwrap().len() >= 2).then_some(()));
    for (key, row) in rows.lock().unwrap().iter() {
        let of_key: Vec<i64> = (1..=ROWS).filter(|n| n % 2 == *key).collect();
        let weight: i64 = of_key.iter().map(|n| 1 + n % 3).sum();
        let sum: i64 = of_key.iter().map(|n| n * (1 + n % 3)).sum();
        assert_eq!(row["m"].as_f64(), Some(sum as f64 / weight as f64), "{row}");
        assert_eq!(row["path"], Json::from(of_key), "of {key}");
    }
    forebay.stop();
}

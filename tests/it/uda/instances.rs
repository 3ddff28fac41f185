//! Instances of aggregates: an instance is paused, replaced or full, or there are more groups than live at a time. No
//! peer.

use std::sync::Arc;
use std::time::Duration;

use forebay::engine::OnError;
use forebay::time::TICKS_PER_SECOND;
use forebay::udf::{Component, Limits};
use serde_json::Value as Json;

use super::{ENGINE, Run, event, fields, lines, query};
use crate::harness::component;

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

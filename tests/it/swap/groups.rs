//! What lasts over a new version in a running job behind mosquitto: groups of aggregates, and what a function
//! remembers.

use std::fs;

use expect_test::expect;

use super::{F, Place, R, aggregate, another, degraded, swaps, wait_for, wait_for_commit, wait_for_trouble};
use crate::harness::{component, until};

const AGGREGATE: &str =
    "SELECT uda.r(n) AS sum, COUNT(*) AS n INTO sums FROM rides TIMESTAMP BY t GROUP BY TumblingWindow(second, 20)";

#[test]
fn groups_of_an_aggregate_are_made_again_in_its_new_version() {
    let place = Place::new(&aggregate(1, "", false), R, AGGREGATE);
    let forebay = place.run();
    place.send(1..11);
    wait_for_commit(&forebay, "sums", 10.0);
    place.replace(&aggregate(1000, "", false));
    wait_for(&forebay, "swapped", 1.0);
    place.send(11..25);
    let rows = place.wait_for_rows(&forebay, "sums.jsonl", 1);
    assert_eq!((rows[0]["sum"].as_i64(), rows[0]["n"].as_i64()), (Some(210 * 1000), Some(20)));
    // one that traps on every row: the rows are given to the former version again
    place.replace(&aggregate(7, "unreachable", false));
    wait_for(&forebay, "swapped", 2.0);
    place.send(25..45);
    let rows = place.wait_for_rows(&forebay, "sums.jsonl", 2);
    assert_eq!((rows[1]["sum"].as_i64(), rows[1]["n"].as_i64()), (Some((21..=40).sum::<i64>() * 1000), Some(20)));
    assert_eq!((swaps(&forebay, "put_back"), forebay.metric("forebay_dead_letters{")), (1.0, 0.0));
    forebay.stop();
}

#[test]
fn saved_groups_are_restored_in_the_new_version() {
    let wasm = fs::read(component("trails")).unwrap();
    let functions = "[functions.trail]\ntype = \"wasm\"\ncomponent = \"f.wasm\"\nexport = \"saving-trail\"\n";
    let query = "SELECT uda.trail(n) AS trail INTO sums FROM rides TIMESTAMP BY t GROUP BY TumblingWindow(second, 100)";
    let place = Place::new(&wasm, functions, query);
    let forebay = place.run();
    // enough to be saved once, and rows since
    place.send(1..41);
    wait_for_commit(&forebay, "sums", 40.0);
    place.replace(&another(wasm));
    wait_for(&forebay, "swapped", 1.0);
    place.send(41..110);
    let rows = place.wait_for_rows(&forebay, "sums.jsonl", 1);
    let trail: Vec<i64> = rows[0]["trail"].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect();
    assert_eq!(trail, (1..=100).collect::<Vec<i64>>());
    assert_eq!((swaps(&forebay, "put_back"), forebay.metric("forebay_udf_failures_total")), (0.0, 0.0));
    forebay.stop();
}

#[test]
fn an_aggregate_may_offer_more_than_the_former_version_and_not_less() {
    let place = Place::new(&aggregate(1, "", true), R, AGGREGATE);
    let forebay = place.run();
    place.replace(&aggregate(2, "", false));
    wait_for(&forebay, "refused", 1.0);
    wait_for_trouble(
        &place,
        &forebay,
        &expect![
            "function r: version DIGEST is not taken, DIGEST stays in use: `r` has no `save` and `restore` any more, \
            and what is kept of open windows counts on it"
        ],
    );
    forebay.signal("-HUP");
    wait_for(&forebay, "refused", 2.0);
    assert_eq!(forebay.log().matches("running job=").count(), 1, "it is not started with it either");
    forebay.stop();

    let place = Place::new(&aggregate(1, "", false), R, AGGREGATE);
    let forebay = place.run();
    place.replace(&aggregate(2, "", true));
    wait_for(&forebay, "swapped", 1.0);
    place.send(1..25);
    let rows = place.wait_for_rows(&forebay, "sums.jsonl", 1);
    assert_eq!(rows[0]["sum"].as_i64(), Some(2 * 210));
    forebay.stop();
}

#[test]
fn what_a_function_remembers_stays() {
    let wasm = fs::read(component("visit_count")).unwrap();
    let functions = "[functions.visitCount]\ntype = \"wasm\"\ncomponent = \"f.wasm\"\nimports = [\"log\", \"state\", \
        \"clock\"]\nconfig = { every = 2 }\n";
    let place = Place::new(&wasm, functions, "SELECT n, udf.visitCount(who) AS visit INTO out FROM rides");
    let forebay = place.run();
    let counts = |count: usize| -> Vec<i64> {
        let rows = place.wait_for_rows(&forebay, "out.jsonl", count);
        rows.iter().map(|row| row["visit"]["count"].as_i64().unwrap()).collect()
    };
    place.send(0..3);
    assert_eq!(counts(3), [1, 2, 3]);
    place.replace(&another(wasm));
    wait_for(&forebay, "swapped", 1.0);
    place.send(3..5);
    assert_eq!(counts(5), [1, 2, 3, 4, 5]);
    // without the import the query would be run in another way: only a start can do that
    let plain = "(component (core module $m (func (export \"f\") (param i32 i32) (result i64) (i64.const 7))
            (memory (export \"m\") 1) (func (export \"realloc\") (param i32 i32 i32 i32) (result i32) (i32.const 64)))
        (core instance $i (instantiate $m))
        (func (export \"visit-count\") (param \"who\" string) (result s64)
            (canon lift (core func $i \"f\") (memory $i \"m\") (realloc (func $i \"realloc\")))))";
    place.replace(&wat::parse_str(plain).unwrap());
    wait_for(&forebay, "refused", 1.0);
    let found = degraded(&forebay).pop().unwrap();
    assert!(
        found.ends_with(
            "`visitCount` no longer keeps state, which makes another plan of the query; SIGHUP or a restart takes it"
        ),
        "{found}"
    );
    forebay.signal("-HUP");
    // its metrics are on another port then; the broker keeps the row for it
    until("the start with it", || (forebay.log().matches("running job=").count() >= 2).then_some(()));
    place.send(5..6);
    assert_eq!(place.wait_for_rows(&forebay, "out.jsonl", 6)[5]["visit"], 7);
    forebay.stop();
}

#[test]
fn functions_of_one_file_change_together() {
    let of = |g: &str, version: i64| {
        let text = format!(
            "(component (core module $m (func (export \"f\") (param i64) (result i64) (i64.const {version}))
                (func (export \"g\") {g} (result i64) (i64.const {version})))
            (core instance $i (instantiate $m))
            (func (export \"f\") (param \"x\" s64) (result s64) (canon lift (core func $i \"f\")))
            (func (export \"g\") {} (result s64) (canon lift (core func $i \"g\"))))",
            if g.is_empty() { "" } else { "(param \"x\" s64)" }
        );
        wat::parse_str(text).unwrap()
    };
    let functions = format!("{F}[functions.g]\ntype = \"wasm\"\ncomponent = \"f.wasm\"\n");
    let place =
        Place::new(&of("(param i64)", 1), &functions, "SELECT n, udf.f(n) * 10 + udf.g(n) AS v INTO out FROM rides");
    let forebay = place.run();
    place.replace(&of("", 2));
    wait_for(&forebay, "refused", 2.0);
    place.send(0..1);
    assert_eq!(place.versions(&forebay, 1)[&0], 11, "f would fit, but it comes with g");
    place.replace(&of("(param i64)", 3));
    wait_for(&forebay, "swapped", 2.0);
    place.send(1..2);
    assert_eq!(place.versions(&forebay, 2)[&1], 33);
    forebay.stop();
}

// The trial, without a job around it.

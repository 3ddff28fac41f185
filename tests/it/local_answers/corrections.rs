//! What a correction may not do, and a fallback that looks into a table.

use super::*;
use crate::support::{dead_letters, replace};

/// Where the correction of one row fails and its first answer did not: the number, what it was answered first, and how
/// the failure is told.
struct Broken {
    query: &'static str,
    n: i64,
    first: i64,
    reason: &'static str,
    stage: &'static str,
    /// What counts it.
    counter: &'static str,
}

#[test]
fn a_correction_that_fails_is_a_dead_letter_whatever_the_job_says() {
    let table = [
        Broken {
            query: "SELECT n, 100 / (udf.score(n) - 10) AS s INTO out FROM t",
            n: 5,
            first: 20,
            reason: "divide_by_zero",
            stage: "statement out/rescore (correction)",
            counter: "out/rescore/answers",
        },
        // on its way to a later call, there, and behind it
        Broken {
            query: "SELECT n, udf.other(100 / (udf.score(n) - 10)) AS s INTO out FROM t",
            n: 5,
            first: 40,
            reason: "divide_by_zero",
            stage: "statement out/2 (correction)",
            counter: "out/2",
        },
        Broken {
            query: "SELECT n, udf.other(udf.score(n) - 1) AS s INTO out FROM t",
            n: 7,
            first: 40,
            reason: "rejected",
            stage: "statement out/2 (score) (correction)",
            counter: "out/2/score",
        },
        Broken {
            query: "SELECT n, 100 / (udf.other(udf.score(n)) - 20) AS s INTO out FROM t",
            n: 5,
            first: 10,
            reason: "divide_by_zero",
            stage: "statement out/2 (correction)",
            counter: "out/2/answers",
        },
    ];
    for (broken, on_error) in table.iter().flat_map(|broken| ["stop", "null"].map(|on_error| (broken, on_error))) {
        let keys = "input_kind = \"vector\"\nfallback_after = \"0s\"\nrescore = true";
        let place = Place::new(keys, OTHER, broken.query);
        place.edit("[job]\n", &format!("[job]\non_error = {on_error:?}\n"));
        place.other.is(Mood::Picky);
        let forebay = place.outage(Mood::Busy, 0..20);
        place.wait_for(&forebay, 20);
        place.model.is(Mood::Well);
        // all are corrected but one
        let rows = place.wait_for(&forebay, 39);
        let of_it: Vec<_> = rows.values().filter(|row| row.n == broken.n).map(Row::told).collect();
        assert_eq!(of_it, [(Some(broken.first), Some("udf.local"), 0)], "{on_error}: {}", broken.query);
        let letters = until("the dead letter", || {
            Some(dead_letters(place.dir(), "job.toml")).filter(|letters| letters.contains(broken.reason))
        });
        assert!(letters.contains(broken.stage), "{on_error}: {}\n{letters}", broken.query);
        assert_eq!(letters.matches(broken.reason).count(), 1, "{letters}");
        until("the counter", || (counted(&forebay, "forebay_statement_failed", broken.counter) == 1.0).then_some(()));
        assert!(!forebay.log().contains("stopped"), "{}", forebay.log());
        // what comes behind it goes on
        place.model.is(Mood::Busy);
        place.send(20..30);
        place.wait_for(&forebay, 49);
        assert!(forebay.stop().success());
        place.is_good();
    }
}

#[test]
fn what_was_corrected_ahead_of_the_position_is_no_dead_letter_of_a_changed_text() {
    let keys = "input_kind = \"vector\"\nfallback_after = \"0s\"\nrescore = true\norder = \"none\"\n\
        max_batch_count = 1";
    let place = Place::new(keys, "", QUERY);
    let forebay = place.outage(Mood::Busy, 0..20);
    place.wait_for(&forebay, 20);
    place.model.is(Mood::Stuck);
    // all but one, which holds the position
    place.wait_for(&forebay, 39);
    assert!(forebay.stop().success());
    write(place.dir(), "job.asaql", "SELECT 1 AS one, n, udf.score(n) AS s INTO out FROM t");
    place.model.is(Mood::Well);
    let forebay = place.run();
    let letters = until("the dead letter", || {
        Some(dead_letters(place.dir(), "job.toml")).filter(|letters| letters.contains("statement_changed"))
    });
    assert_eq!(letters.matches("statement_changed").count(), 1, "{letters}");
    assert!(forebay.stop().success());
    place.is_good();
}

#[test]
fn rows_that_stay_in_the_pool_are_not_corrected_again_once_rescore_is_back() {
    let keys = "input_kind = \"vector\"\nfallback_after = \"0s\"\nrescore = true";
    let place = Place::new(keys, "", QUERY);
    place.edit("[journal]\n", "[journal]\nretention = \"1h\"\n");
    place.listen();
    let outage = |numbers: Range<i64>, rows: usize| {
        place.model.is(Mood::Busy);
        let forebay = place.run();
        place.send(numbers.clone());
        answered(&place.wait_for(&forebay, rows), numbers, "udf.local", 0);
        forebay
    };
    let forebay = outage(0..10, 10);
    place.model.is(Mood::Well);
    answered(&place.wait_for(&forebay, 20), 0..10, "score", 1);
    assert!(forebay.stop().success());
    place.edit("rescore = true", "rescore = false");
    assert!(outage(10..15, 25).stop().success());
    place.edit("rescore = false", "rescore = true");
    let forebay = outage(15..20, 30);
    place.model.is(Mood::Well);
    answered(&place.wait_for(&forebay, 35), 15..20, "score", 1);
    // corrections come in order, so those of earlier rows would be there by now
    assert_eq!(place.rows().iter().filter(|row| row.revision == 1).count(), 15);
    assert!(forebay.stop().success());
    place.is_good();
}

/// A component with `local: func(x: s64) -> s64`: `fee` of the row of `zones` whose `n` is the argument.
fn looking() -> Vec<u8> {
    let text = r#"(component
        (import "forebay:host/lookup@0.1.0" (instance $lookup
            (type $s (variant (case "bit" bool) (case "bigint" s64) (case "float" f64) (case "text" string)))
            (export "scalar" (type $scalar (eq $s)))
            (type $found (option $scalar))
            (type $get (func (param "table" string) (param "column" string) (param "value" $scalar)
                (param "wanted" string) (result $found)))
            (export "get-value" (func (type $get)))))
        (core module $memory
            (memory (export "memory") 1)
            (data (i32.const 0) "zonesnfee")
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
        (core instance $memory (instantiate $memory))
        (alias export $lookup "get-value" (func $get))
        (core func $get (canon lower (func $get)
            (memory $memory "memory") (realloc (func $memory "realloc"))))
        (core module $m
            (import "host" "get" (func $get (param i32 i32 i32 i32 i32 i64 i32 i32 i32 i32)))
            (import "host" "memory" (memory 1))
            (func (export "local") (param i64) (result i64)
                (call $get (i32.const 0) (i32.const 5) (i32.const 5) (i32.const 1)
                    (i32.const 1) (local.get 0) (i32.const 0) (i32.const 6) (i32.const 3) (i32.const 2048))
                (i64.load (i32.const 2064))))
        (core instance $i (instantiate $m (with "host" (instance
            (export "get" (func $get)) (export "memory" (memory $memory "memory"))))))
        (func (export "local") (param "x" s64) (result s64) (canon lift (core func $i "local"))))"#;
    wat::parse_str(text).unwrap()
}

#[test]
fn a_fallback_looks_into_the_tables_that_are_granted() {
    let tables = "[inputs.zones]\ntype = \"reference\"\npath = \"zones.json\"\n";
    // the join waits for the table
    let query = "SELECT t.n AS n, udf.score(t.n) AS s INTO out FROM t JOIN zones ON t.n = zones.n";
    let place = Place::new("input_kind = \"vector\"\nfallback_after = \"0s\"", tables, query);
    let zones: Vec<Json> = (0..20).map(|n| serde_json::json!({ "n": n, "fee": 3 * n })).collect();
    write(place.dir(), "zones.json", &Json::from(zones).to_string());
    let component = "component = \"local.wasm\"\n";
    place.edit(component, &format!("{component}lookup = [\"zones\"]\n"));
    replace(&place.path("local.wasm"), looking());
    let forebay = place.outage(Mood::Busy, 0..20);
    answered(&place.wait_for(&forebay, 20), 0..20, "udf.local", 0);
    assert!(forebay.stop().success());
    place.is_good();
}

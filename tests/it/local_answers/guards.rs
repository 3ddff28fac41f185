//! Rows whose evaluation does not reach the call: the endpoint never sees them, and they keep their place.

use super::*;
use crate::support::{dead_letters, succeeds};

/// A job whose endpoint has no fallback.
fn alone(keys: &str, query: &str) -> Place {
    let place = Place::new(&format!("input_kind = \"vector\"\n{keys}"), "", query);
    place.edit("fallback = \"udf.local\"\n", "");
    place
}

/// The numbers that the endpoint was asked for, each once.
fn asked(place: &Place) -> Vec<i64> {
    let mut asked = place.model.asked.lock().unwrap().clone();
    asked.sort_unstable();
    asked.dedup();
    asked
}

/// The numbers that came out, and their answers, in order.
fn came(place: &Place) -> Vec<(i64, Option<i64>)> {
    place.rows().iter().map(|row| (row.n, row.s)).collect()
}

fn odd(numbers: Range<i64>) -> Vec<i64> {
    numbers.filter(|n| n % 2 == 1).collect()
}

/// Even numbers are answered by the query.
const ODD: &str = "SELECT n, CASE WHEN n % 2 = 0 THEN -1 ELSE udf.score(n) END AS s INTO out FROM t";

const REPLAY: [&str; 5] = ["journal", "dead-letters", "replay", "--job", "job.toml"];

fn answer(n: i64) -> (i64, Option<i64>) {
    (n, Some(if n % 2 == 0 { -1 } else { 2 * n }))
}

#[test]
fn rows_of_the_other_branch_pass_the_endpoint_by_in_their_place() {
    let place = alone("max_batch_count = 7", ODD);
    place.listen();
    let forebay = place.run();
    place.send(0..100);
    place.wait_for(&forebay, 100);
    assert_eq!(came(&place), (0..100).map(answer).collect::<Vec<_>>());
    assert_eq!(place.model.asked.lock().unwrap().len(), 50, "each once");
    assert_eq!(asked(&place), odd(0..100), "and no other");
    let counter = |what: &str| counted(&forebay, &format!("forebay_statement_{what}"), "out/score");
    assert_eq!(["rows_in", "evaluated", "not_called", "failed"].map(counter), [100.0, 50.0, 50.0, 0.0]);
    assert!(forebay.stop().success());
    place.is_good();
}

#[test]
fn an_argument_that_fails_fails_only_rows_that_reach_the_call() {
    let query = "SELECT n, CASE WHEN n = 3 THEN 0 ELSE udf.score(12 / (n - 3)) END AS s INTO out FROM t WHERE n < 8 \
        OR udf.score(12 / (n - 8)) > 0";
    let place = alone("", query);
    place.listen();
    let forebay = place.run();
    place.send(0..10);
    place.wait_for(&forebay, 9);
    assert!(forebay.stop().success());
    let letters = dead_letters(place.dir(), "job.toml");
    assert_eq!(letters.matches("statement out").count(), 1, "{letters}");
    assert!(letters.contains("offset 8: divide_by_zero"), "{letters}");
    let rows: Vec<i64> = came(&place).into_iter().map(|(n, _)| n).collect();
    assert_eq!(rows, [0, 1, 2, 3, 4, 5, 6, 7, 9], "8 alone reaches a call whose argument fails");
    place.is_good();
}

#[test]
fn while_the_endpoint_is_away_rows_of_the_other_branch_come_out_and_a_crash_loses_none() {
    let query = "SELECT n, CASE WHEN n < 20 THEN n ELSE udf.score(n) END AS s INTO out FROM t";
    for order in ["stream", "none"] {
        let place = alone(&format!("order = \"{order}\""), query);
        // nothing listens
        let forebay = place.run();
        place.send(0..10);
        place.wait_for(&forebay, 10);
        place.send(20..21);
        until("the endpoint is missed", || forebay.get("/readyz").1.contains("score").then_some(()));
        place.send(10..20);
        if order == "none" {
            place.wait_for(&forebay, 20);
        }
        forebay.kill();
        let forebay = place.run();
        place.listen();
        let rows = place.wait_for(&forebay, 21);
        assert_eq!(rows.len(), 21);
        assert_eq!(rows.values().filter(|row| row.s == Some(if row.n < 20 { row.n } else { 40 })).count(), 21);
        assert_eq!(asked(&place), [20]);
        assert!(forebay.stop().success());
        // in order they wait for the row before them
        if order == "stream" {
            let order = [(0..10).collect::<Vec<i64>>(), vec![20], (10..20).collect()].concat();
            assert_eq!(came(&place).into_iter().map(|(n, _)| n).collect::<Vec<_>>(), order);
        }
        place.is_good();
    }
}

#[test]
fn a_fallback_and_corrections_are_for_rows_that_reach_the_call() {
    let place = Place::new("input_kind = \"vector\"\nfallback_after = \"0s\"\nrescore = true", "", ODD);
    let forebay = place.outage(Mood::Busy, 0..20);
    let rows = place.wait_for(&forebay, 20);
    for row in rows.values() {
        let wanted = if row.n % 2 == 0 { (Some(-1), None, 0) } else { (Some(3 * row.n), Some("udf.local"), 0) };
        assert_eq!(row.told(), wanted, "{row:?}");
    }
    let counter = |what: &str| counted(&forebay, &format!("forebay_statement_{what}"), "out/score");
    assert_eq!(["rows_in", "evaluated", "not_called", "answered_locally"].map(counter), [20.0, 0.0, 10.0, 10.0]);
    place.model.is(Mood::Well);
    let rows = place.wait_for(&forebay, 30);
    let corrected: Vec<_> = rows.values().filter(|row| row.revision == 1).map(|row| (row.n, row.s)).collect();
    assert_eq!(corrected.len(), 10, "{corrected:?}");
    assert!(corrected.iter().all(|(n, s)| n % 2 == 1 && *s == Some(2 * n)), "{corrected:?}");
    assert_eq!(asked(&place), odd(0..20));
    assert_eq!(counted(&forebay, "forebay_statement_not_called", "out/rescore/score"), 0.0);
    assert!(forebay.stop().success());
    place.is_good();
}

#[test]
fn a_dead_letter_behind_a_guard_is_replayed() {
    let place = alone("", ODD);
    place.model.is(Mood::Picky);
    place.listen();
    let forebay = place.run();
    place.send(0..20);
    place.wait_for(&forebay, 19);
    let letters = dead_letters(place.dir(), "job.toml");
    assert!(letters.contains("statement out (score)"), "{letters}");
    place.model.is(Mood::Well);
    assert_eq!(succeeds(place.dir(), &REPLAY), "1 dead letter replayed\n");
    let rows = place.wait_for(&forebay, 20);
    assert!(rows.values().any(|row| (row.n, row.s) == (BAD, Some(2 * BAD))), "{rows:?}");
    assert!(forebay.stop().success());
    place.is_good();
}

#[test]
fn a_guard_that_fails_fails_its_row_and_a_replay_past_the_call_asks_nobody() {
    let query = "SELECT n, CASE WHEN 10 / (n - 3) < 0 THEN n ELSE udf.score(n) END AS s INTO out FROM t";
    let place = alone("", query);
    place.listen();
    let forebay = place.run();
    place.send(0..6);
    place.wait_for(&forebay, 5);
    assert_eq!(asked(&place), [4, 5]);
    let letters = dead_letters(place.dir(), "job.toml");
    assert!(letters.contains("divide_by_zero") && letters.contains("statement out"), "{letters}");
    assert!(!letters.contains("(score)"), "{letters}");
    assert_eq!(counted(&forebay, "forebay_statement_rows_in", "out/score"), 5.0);
    assert!(forebay.stop().success());
    let mended = query.replace("WHEN 10", "WHEN n = 3 THEN 0 WHEN 10");
    write(place.dir(), "job.asaql", &mended);
    let forebay = place.run();
    assert_eq!(succeeds(place.dir(), &REPLAY), "1 dead letter replayed\n");
    let rows = place.wait_for(&forebay, 6);
    assert!(rows.values().any(|row| (row.n, row.s) == (3, Some(0))), "{rows:?}");
    assert_eq!(asked(&place), [4, 5]);
    assert!(forebay.stop().success());
    place.is_good();
}

#[test]
fn a_function_of_the_job_is_not_called_for_the_other_branch() {
    let query = "SELECT n, CASE WHEN n = 13 THEN -1 ELSE COALESCE(udf.local(n), udf.local(n + 1)) END AS s INTO out \
        FROM t WHERE n <> 14 AND (n < 20 OR udf.local(n) > 0)";
    let place = alone("", query);
    std::fs::write(place.path("local.wasm"), local(true)).unwrap();
    let forebay = place.run();
    place.send(0..20);
    let rows = place.wait_for(&forebay, 19);
    assert!(rows.values().all(|row| row.s == Some(if row.n == 13 { -1 } else { 3 * row.n })), "{rows:?}");
    assert_eq!(forebay.metric("forebay_udf_calls"), 18.0, "one for each row but 13, at which it traps, and 14");
    assert_eq!(forebay.metric("forebay_udf_failures"), 0.0);
    assert!(forebay.stop().success());
    assert_eq!(dead_letters(place.dir(), "job.toml"), "no dead letters\n");
    place.is_good();
}

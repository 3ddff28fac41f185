//! Outages of each kind, with a restart or a crash in the middle, and the way back.

use super::*;
use crate::support::{Subscriber, dead_letters, replace};

#[test]
fn rows_are_answered_locally_over_a_restart_and_each_is_corrected_once() {
    for order in ["stream", "none"] {
        let keys = format!("input_kind = \"vector\"\nfallback_after = \"500ms\"\nrescore = true\norder = \"{order}\"");
        let place = Place::new(&keys, "", QUERY);
        place.listen();
        let forebay = place.run();
        place.send(0..10);
        answered(&place.wait_for(&forebay, 10), 0..10, "score", 0);
        place.model.is(Mood::Busy);
        place.send(10..30);
        answered(&place.wait_for(&forebay, 30), 10..30, "udf.local", 0);
        let (code, ready) = forebay.get("/readyz");
        assert!(ready.contains("rows are answered by udf.local"), "{code} {ready}");
        assert_eq!(counted(&forebay, "forebay_statement_answered_locally", "out/score"), 20.0);
        assert!(forebay.log().contains("the endpoint is away: rows are answered by udf.local"), "{}", forebay.log());
        assert!(forebay.stop().success());
        // what waits to be scored again survives; so does what came meanwhile
        place.send(30..40);
        let forebay = place.run();
        answered(&place.wait_for(&forebay, 40), 30..40, "udf.local", 0);
        assert!(place.rows().iter().all(|row| row.revision == 0));
        place.model.is(Mood::Well);
        let rows = place.wait_for(&forebay, 70);
        answered(&rows, 10..40, "score", 1);
        share_ids(&rows, 10..40);
        place.send(40..50);
        let rows = place.wait_for(&forebay, 80);
        answered(&rows, 40..50, "score", 0);
        assert_eq!((rows.len(), place.rows().len()), (80, 80), "each correction once");
        assert!(forebay.log().contains("the endpoint is back"), "{}", forebay.log());
        until("readyz", || (!forebay.get("/readyz").1.contains("udf.local")).then_some(()));
        assert_eq!(counted(&forebay, "forebay_statement_evaluated", "out/rescore/score"), 30.0);
        assert!(forebay.stop().success());
        place.is_good();
    }
}

#[test]
fn an_endpoint_that_was_never_reached_is_used_once_it_is_there() {
    let place = Place::new("fallback_after = \"0s\"\nrescore = true", "", QUERY);
    let forebay = place.run();
    place.send(0..20);
    answered(&place.wait_for(&forebay, 20), 0..20, "udf.local", 0);
    place.listen();
    let rows = place.wait_for(&forebay, 40);
    answered(&rows, 0..20, "score", 1);
    share_ids(&rows, 0..20);
    place.send(20..25);
    answered(&place.wait_for(&forebay, 45), 20..25, "score", 0);
    assert!(forebay.stop().success());
    place.is_good();
}

#[test]
fn requests_and_looks_that_hang_hold_back_no_row() {
    let place = Place::new("input_kind = \"vector\"\nfallback_after = \"0s\"", "", QUERY);
    place.model.is(Mood::Hangs);
    place.listen();
    let forebay = place.run();
    for batch in 0..5 {
        place.send(batch * 10..batch * 10 + 10);
        answered(&place.wait_for(&forebay, batch as usize * 10 + 10), batch * 10..batch * 10 + 10, "udf.local", 0);
    }
    place.model.is(Mood::Well);
    // without `rescore` the first answer is the last
    let (mut n, mut seen) = (50, Vec::new());
    until("a row of the endpoint", || {
        place.send(n..n + 1);
        n += 1;
        let rows = place.wait_for(&forebay, n as usize);
        seen = rows.into_values().collect();
        seen.iter().any(|row| row.by.as_deref() == Some("score")).then_some(())
    });
    assert!(seen.iter().all(|row| row.revision == 0 && (row.n >= 50 || row.by.as_deref() == Some("udf.local"))));
    assert_eq!(seen.len(), n as usize);
    assert!(forebay.stop().success());
    place.is_good();
}

#[test]
fn a_crash_repeats_rows_with_their_ids_and_revisions_and_loses_none() {
    let keys = "input_kind = \"vector\"\nfallback_after = \"0s\"\nrescore = true\nmax_batch_count = 50";
    let place = Place::new(keys, "", QUERY);
    let forebay = place.outage(Mood::Busy, 0..500);
    place.wait_for(&forebay, 200);
    forebay.kill();
    let forebay = place.run();
    answered(&place.wait_for(&forebay, 500), 0..500, "udf.local", 0);
    place.model.is(Mood::Well);
    place.wait_for(&forebay, 600);
    forebay.kill();
    let forebay = place.run();
    let rows = place.wait_for(&forebay, 1_000);
    assert_eq!(rows.len(), 1_000);
    answered(&rows, 0..500, "udf.local", 0);
    answered(&rows, 0..500, "score", 1);
    share_ids(&rows, 0..500);
    assert!(forebay.stop().success());
    // a last line may have been cut off by the kill, and was written again
    assert_eq!(
        place.rows().iter().map(|row| (row.id.clone(), row.revision)).collect::<std::collections::BTreeSet<_>>().len(),
        1_000
    );
    place.is_good();
}

#[test]
fn a_row_that_fails_again_or_changed_meanwhile_keeps_its_first_answer_and_is_a_dead_letter() {
    let keys = "input_kind = \"vector\"\nfallback_after = \"0s\"\nrescore = true\non_error = \"null\"";
    let place = Place::new(keys, "", QUERY);
    let forebay = place.outage(Mood::Busy, 0..20);
    place.wait_for(&forebay, 20);
    place.model.is(Mood::Picky);
    // all are corrected but the bad one
    let rows = place.wait_for(&forebay, 39);
    assert!(rows.values().all(|row| row.revision == 0 || row.n != BAD));
    let letter = until("the dead letter", || {
        Some(dead_letters(place.dir(), "job.toml")).filter(|letters| letters.contains("rejected"))
    });
    assert!(letter.contains("out/rescore"), "{letter}");
    place.model.is(Mood::Busy);
    let mut n = 20;
    until("a row that is answered locally", || {
        place.send(n..n + 1);
        n += 1;
        let rows = place.wait_for(&forebay, 39 + (n as usize - 20));
        rows.values().any(|row| row.n >= 20 && row.by.as_deref() == Some("udf.local")).then_some(())
    });
    assert!(forebay.stop().success());
    // what a row carries may mean something else in another text
    write(place.dir(), "job.asaql", "SELECT 1 AS one, n, udf.score(n) AS s INTO out FROM t");
    place.model.is(Mood::Well);
    let forebay = place.run();
    until("the dead letters of the former text", || {
        dead_letters(place.dir(), "job.toml").contains("statement_changed").then_some(())
    });
    assert!(forebay.stop().success());
    place.is_good();
}

#[test]
fn a_fallback_that_fails_is_treated_as_any_function() {
    for (on_error, rows) in [("dead-letter", 19), ("null", 20)] {
        let place = Place::new("input_kind = \"vector\"\nfallback_after = \"0s\"", "", QUERY);
        let component = "component = \"local.wasm\"\n";
        place.edit(component, &format!("{component}on_error = {on_error:?}\n"));
        replace(&place.path("local.wasm"), local(true));
        let forebay = place.outage(Mood::Locked, 0..20);
        let found = place.wait_for(&forebay, rows);
        assert_eq!(found.len(), rows);
        let bad: Vec<_> = found.values().filter(|row| row.n == BAD).map(Row::told).collect();
        let local = counted(&forebay, "forebay_statement_answered_locally", "out/score");
        assert_eq!(local, rows as f64);
        match on_error {
            "null" => assert_eq!(bad, [(None, Some("udf.local"), 0)]),
            _ => {
                assert!(bad.is_empty());
                let letters = dead_letters(place.dir(), "job.toml");
                assert!(letters.contains("udf_trap") && letters.contains("(fallback)"), "{letters}");
            }
        }
        assert!(forebay.stop().success());
        place.is_good();
    }
}

#[test]
fn windows_behind_a_call_go_on_and_their_rows_tell_nobody() {
    let query = "WITH a AS (SELECT n, udf.score(n) AS s FROM t) \
        SELECT COUNT(*) AS n, SUM(s) AS s INTO out FROM a GROUP BY TumblingWindow(second, 1)";
    let place = Place::new("fallback_after = \"0s\"", "", query);
    let forebay = place.run();
    place.send(0..100);
    let rows = until(&format!("all rows in windows; log:\n{}", forebay.log()), || {
        let rows = place.rows();
        (rows.iter().map(|row| row.n).sum::<i64>() == 100).then_some(rows)
    });
    assert_eq!(rows.iter().filter_map(|row| row.s).sum::<i64>(), 3 * (0..100).sum::<i64>());
    assert!(rows.iter().all(|row| (row.by.is_none(), row.revision) == (true, 0)), "{rows:?}");
    assert!(forebay.stop().success());
    place.is_good();
}

#[test]
fn messages_tell_who_scored_their_rows_and_which_are_corrections() {
    let keys = "input_kind = \"vector\"\nfallback_after = \"0s\"\nrescore = true";
    let place = Place::new(keys, "", &format!("{QUERY}; SELECT n, udf.score(n) AS s INTO wire FROM t"));
    let job = std::fs::read_to_string(place.path("job.toml")).unwrap();
    let wire = format!(
        "[outputs.wire]\ntype = \"mqtt\"\nurl = \"{}\"\ntopic = \"scored\"\nretain = true\n",
        place.broker.url()
    );
    write(place.dir(), "job.toml", &(job + &wire));
    let subscriber = place.runtime.block_on(Subscriber::start(&place.broker.url(), "scored"));
    let forebay = place.outage(Mood::Busy, 0..5);
    let told = |of: &str| {
        let of = format!("{{\"n\":4,\"s\":{of}}}");
        until(&format!("{of}; log:\n{}", forebay.log()), || subscriber.properties_of(&of))
    };
    let property = |properties: &[(String, String)], name: &str| {
        properties.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone())
    };
    let first = told("12");
    assert_eq!(property(&first, "forebay-scored-by").as_deref(), Some("udf.local"));
    assert_eq!(property(&first, "forebay-revision"), None);
    place.model.is(Mood::Well);
    let second = told("8");
    assert_eq!(property(&second, "forebay-scored-by").as_deref(), Some("score"));
    assert_eq!(property(&second, "forebay-revision").as_deref(), Some("1"));
    assert_eq!(property(&first, "forebay-id"), property(&second, "forebay-id"));
    // who comes later gets the newest row, not the row that was corrected last
    let late = place.runtime.block_on(Subscriber::start(&place.broker.url(), "scored"));
    until("what the broker retains", || late.properties_of("{\"n\":4,\"s\":12}"));
    assert!(forebay.stop().success());
    place.is_good();
}

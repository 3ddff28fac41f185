//! New versions of functions in a running job: taken between commits, refused, put back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use expect_test::{Expect, expect};
use forebay::time::Timestamp;
use forebay::udf::{Component, Engine, FunctionBinding, Host, Limits, UserFunctions, Versions};
use forebay::value::Value;
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::harness::{Forebay, component, until, write};
use crate::support::{Message, Mosquitto, publish};

/// A component with `f: func(PARAMS) -> s64` and this body.
fn function(params: &str, core: &str, body: &str) -> Vec<u8> {
    let text = format!(
        "(component (core module $m (func (export \"f\") {core} (result i64) {body}))
            (core instance $i (instantiate $m))
            (func (export \"f\") {params} (result s64) (canon lift (core func $i \"f\"))))"
    );
    wat::parse_str(text).unwrap()
}

/// `f: func(x: s64) -> s64` that gives `version`.
fn version(version: i64) -> Vec<u8> {
    function("(param \"x\" s64)", "(param i64)", &format!("(i64.const {version})"))
}

fn trapping() -> Vec<u8> {
    function("(param \"x\" s64)", "(param i64)", "unreachable")
}

/// Gives `version`, and traps where x is `bad`.
fn picky(version: i64, bad: i64) -> Vec<u8> {
    let body = format!("(if (i64.eq (local.get 0) (i64.const {bad})) (then unreachable)) (i64.const {version})");
    function("(param \"x\" s64)", "(param i64)", &body)
}

/// An aggregate `r`: the sum of its rows, times `factor`; `accumulate` begins with `first`.
fn aggregate(factor: i64, first: &str, saves: bool) -> Vec<u8> {
    let saving = "(func (export \"[method]r.save\") (param \"self\" (borrow $r)) (result (list u8))
            (canon lift (core func $i \"save\") (memory $i \"m\") (realloc (func $i \"realloc\"))))
        (func (export \"[static]r.restore\") (param \"state\" (list u8)) (result (own $r))
            (canon lift (core func $i \"restore\") (memory $i \"m\") (realloc (func $i \"realloc\"))))";
    let saving = if saves { saving } else { "" };
    let text = format!(
        "(component (type $r' (resource (rep i32))) (export $r \"r\" (type $r'))
            (core func $new (canon resource.new $r'))
            (core module $m
                (import \"host\" \"new\" (func $new (param i32) (result i32)))
                (memory (export \"m\") 1)
                (global $at (mut i32) (i32.const 0))
                (func (export \"new\") (result i32)
                    (global.set $at (i32.add (global.get $at) (i32.const 8)))
                    (call $new (global.get $at)))
                (func (export \"accumulate\") (param i32 i64) {first}
                    (i64.store (local.get 0) (i64.add (i64.load (local.get 0)) (local.get 1))))
                (func (export \"compute\") (param i32) (result i64) (i64.mul (i64.load (local.get 0)) (i64.const {factor})))
                (func (export \"save\") (param i32) (result i32) unreachable)
                (func (export \"restore\") (param i32 i32) (result i32) unreachable)
                (func (export \"realloc\") (param i32 i32 i32 i32) (result i32) unreachable))
            (core instance $i (instantiate $m (with \"host\" (instance (export \"new\" (func $new))))))
            (func (export \"[constructor]r\") (result (own $r)) (canon lift (core func $i \"new\")))
            (func (export \"[method]r.accumulate\") (param \"self\" (borrow $r)) (param \"x\" s64) (canon lift (core func $i \"accumulate\")))
            (func (export \"[method]r.compute\") (param \"self\" (borrow $r)) (result s64) (canon lift (core func $i \"compute\"))) {saving})"
    );
    wat::parse_str(text).unwrap()
}

/// The same component in other bytes: an empty custom section behind it.
fn another(mut wasm: Vec<u8>) -> Vec<u8> {
    wasm.extend([0, 2, 1, b'x']);
    wasm
}

/// A job in a folder, with a broker. Its function lies in `f.wasm`.
struct Place {
    dir: TempDir,
    broker: Mosquitto,
    runtime: tokio::runtime::Runtime,
}

const F: &str = "[functions.f]\ntype = \"wasm\"\ncomponent = \"f.wasm\"\n";
const R: &str = "[functions.r]\ntype = \"wasm\"\ncomponent = \"f.wasm\"\n";

impl Place {
    /// With the first version and the job; `functions` are its sections.
    fn new(wasm: &[u8], functions: &str, query: &str) -> Place {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let place = Place { dir: tempfile::tempdir().unwrap(), broker: Mosquitto::start(), runtime };
        place.replace(wasm);
        let text = format!(
            "[job]\nname = \"test\"\nquery = \"job.asaql\"\nlate_tolerance = \"forever\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
             [inputs.rides]\ntype = \"mqtt\"\nurl = \"{}\"\ntopics = [\"rides\"]\n{functions}\
             [outputs.out]\ntype = \"file\"\npath = \"out.jsonl\"\nfsync = \"never\"\nrow_id = \"id\"\n\
             [outputs.sums]\ntype = \"file\"\npath = \"sums.jsonl\"\nfsync = \"never\"\nrow_id = \"id\"\n",
            place.broker.url()
        );
        write(place.dir.path(), "job.asaql", query);
        write(place.dir.path(), "job.toml", &text);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self) -> Forebay {
        Forebay::run(&self.path("job.toml"))
    }

    /// A new version in one step, as the documents ask for.
    fn replace(&self, wasm: &[u8]) {
        fs::write(self.path("new"), wasm).unwrap();
        fs::rename(self.path("new"), self.path("f.wasm")).unwrap();
    }

    /// Rows with `n` from a range, `n` seconds after a moment.
    fn send(&self, numbers: std::ops::Range<i64>) {
        let row = |n: i64| {
            let t = Timestamp::parse("2024-01-01").unwrap().saturating_add(n * 10_000_000);
            Message::new("rides", format!(r#"{{"n":{n},"t":"{t}","who":"ann"}}"#))
        };
        self.runtime.block_on(publish(&self.broker.url(), numbers.map(row).collect()));
    }

    /// Rows of an output so far, in order; one with the id of an earlier one is that one delivered again.
    fn rows(&self, file: &str) -> Vec<Json> {
        let text = fs::read_to_string(self.path(file)).unwrap_or_default();
        let mut seen = std::collections::HashSet::new();
        let whole = text.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
        whole.filter(|row| seen.insert(row["id"].as_str().unwrap().to_owned())).collect()
    }

    fn wait_for_rows(&self, forebay: &Forebay, file: &str, count: usize) -> Vec<Json> {
        until(&format!("{count} rows; log:\n{}", forebay.log()), || {
            Some(self.rows(file)).filter(|rows| rows.len() >= count)
        })
    }

    /// Version by `n`, once there are so many; every `n` came once.
    fn versions(&self, forebay: &Forebay, count: usize) -> BTreeMap<i64, i64> {
        let rows = self.wait_for_rows(forebay, "out.jsonl", count);
        assert_eq!(rows.len(), count, "a row came twice under two ids");
        let versions: BTreeMap<i64, i64> =
            rows.iter().map(|r| (r["n"].as_i64().unwrap(), r["v"].as_i64().unwrap_or(-1))).collect();
        assert_eq!(versions.len(), count);
        versions
    }
}

fn swaps(forebay: &Forebay, outcome: &str) -> f64 {
    forebay
        .metrics()
        .iter()
        .filter(|(name, _)| {
            name.starts_with("forebay_udf_swaps_total{") && name.contains(&format!("outcome=\"{outcome}\""))
        })
        .map(|(_, n)| n)
        .sum()
}

fn wait_for(forebay: &Forebay, outcome: &str, count: f64) {
    until(&format!("{outcome} {count}; log:\n{}", forebay.log()), || (swaps(forebay, outcome) >= count).then_some(()));
}

/// Everything received is committed by the statement.
fn wait_for_commit(forebay: &Forebay, consumer: &str, read: f64) {
    until("the commit", || {
        let name = |what: &str| format!("forebay_consumer_{what}{{job=\"test\",consumer=\"statement {consumer}\"}}");
        (forebay.metric(&name("read_total")) >= read && forebay.metric(&name("pending")) == 0.0).then_some(())
    });
}

fn degraded(forebay: &Forebay) -> Vec<String> {
    let (status, body) = forebay.get("/readyz");
    let body: Json = serde_json::from_str(&body).unwrap();
    assert_eq!((status, body["problems"].to_string().as_str()), (200, "[]"), "the job does all its work");
    body["degraded"]
        .as_array()
        .map(|all| all.iter().map(|text| text.as_str().unwrap().to_owned()).collect())
        .unwrap_or_default()
}

/// Waits for a reason and compares it; digests and the folder are left out.
fn wait_for_trouble(place: &Place, forebay: &Forebay, want: &Expect) {
    let found = until(&format!("trouble; log:\n{}", forebay.log()), || degraded(forebay).pop());
    let mut text = found.replace(&format!("{}/", place.dir.path().display()), "");
    for end in (12..=text.len()).rev() {
        if text
            .get(end - 12..end)
            .is_some_and(|part| part.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()))
        {
            text.replace_range(end - 12..end, "DIGEST");
        }
    }
    want.assert_eq(&text);
}

fn well(forebay: &Forebay) {
    until("nothing to say", || degraded(forebay).is_empty().then_some(()));
}

const PLAIN: &str = "SELECT n, udf.f(n) AS v INTO out FROM rides";
const BOTH: &str = "SELECT n, udf.f(n) AS v INTO out FROM rides;\n\
    SELECT SUM(udf.f(n)) AS sum, COUNT(*) AS n INTO sums FROM rides TIMESTAMP BY t GROUP BY TumblingWindow(second, 20)";

#[test]
fn a_changed_file_is_used_from_the_next_commit_on_and_windows_go_on() {
    let place = Place::new(&version(1), F, BOTH);
    let forebay = place.run();
    place.send(1..11);
    assert!(place.versions(&forebay, 10).values().all(|v| *v == 1));
    wait_for_commit(&forebay, "sums", 10.0);
    place.replace(&version(100));
    wait_for(&forebay, "swapped", 1.0);
    place.send(11..30);
    let versions = place.versions(&forebay, 29);
    assert!(versions.iter().all(|(n, v)| *v == if *n < 11 { 1 } else { 100 }), "{versions:?}");
    // the window of seconds 1 to 20 was open when the function changed
    let rows = place.wait_for_rows(&forebay, "sums.jsonl", 1);
    assert_eq!((rows[0]["sum"].as_i64(), rows[0]["n"].as_i64()), (Some(10 + 10 * 100), Some(20)));
    assert_eq!(degraded(&forebay), [] as [&str; 0]);
    let log = forebay.log();
    assert!(log.contains("function swapped: its new version is used from the next commit on"), "{log}");
    assert_eq!(log.matches("running job=").count(), 1, "the job was not started again");
    forebay.stop();
    assert!(forebay::journal::verify(&place.path("test.db")).unwrap().is_good());
}

#[test]
fn sighup_swaps_at_once_and_reads_the_job_again_when_that_changed() {
    let place = Place::new(&version(0), F, PLAIN);
    let forebay = place.run();
    // the file is also watched: on a slow machine that may be first, and SIGHUP then starts the job again
    let mut swapped = 0;
    while !forebay.log().contains("functions looked at, the job goes on") {
        swapped += 1;
        let seen = forebay.log().matches("running job=").count();
        place.replace(&version(swapped));
        forebay.signal("-HUP");
        until("an answer to SIGHUP", || {
            let log = forebay.log();
            (log.contains("functions looked at") || log.matches("running job=").count() > seen).then_some(())
        });
    }
    place.send(0..3);
    assert!(place.versions(&forebay, 3).values().all(|v| *v == swapped));
    let starts = forebay.log().matches("running job=").count();
    write(place.dir.path(), "job.asaql", "SELECT n, udf.f(n) + 1000 AS v INTO out FROM rides");
    forebay.signal("-HUP");
    until("the new query", || (forebay.log().matches("running job=").count() > starts).then_some(()));
    place.send(3..5);
    assert_eq!(place.versions(&forebay, 5)[&4], swapped + 1000);
    forebay.stop();
}

#[test]
fn a_version_whose_signature_does_not_fit_is_refused() {
    let place = Place::new(&version(1), F, PLAIN);
    let forebay = place.run();
    place.replace(&function("(param \"x\" s64) (param \"y\" s64)", "(param i64 i64)", "(i64.const 2)"));
    wait_for(&forebay, "refused", 1.0);
    wait_for_trouble(
        &place,
        &forebay,
        &expect![
            "function f: version DIGEST is not taken, DIGEST stays in use: `f` was `f: func(x: s64) -> s64` and is `f: func(x: s64, y: s64) -> s64`, which does not fit the query: `udf.f` takes 2 arguments; `forebay check` shows where"
        ],
    );
    assert!(forebay.log().contains("function not swapped, the running version stays in use"), "{}", forebay.log());
    place.send(0..3);
    assert!(place.versions(&forebay, 3).values().all(|v| *v == 1));
    // what is wrong in itself is not started either
    forebay.signal("-HUP");
    wait_for(&forebay, "refused", 2.0);
    place.replace(&version(3));
    wait_for(&forebay, "swapped", 1.0);
    well(&forebay);
    place.send(3..4);
    assert_eq!(place.versions(&forebay, 4)[&3], 3);
    assert_eq!(forebay.log().matches("running job=").count(), 1);
    forebay.stop();
}

#[test]
fn a_file_that_is_half_written_or_gone_leaves_the_version_in_use() {
    let place = Place::new(&version(1), F, PLAIN);
    let forebay = place.run();
    let next = version(2);
    fs::write(place.path("f.wasm"), &next[..next.len() / 2]).unwrap();
    wait_for(&forebay, "refused", 1.0);
    let found = degraded(&forebay).pop().unwrap();
    assert!(found.contains("does not compile: ") && found.ends_with("build or copy it again"), "{found}");
    fs::remove_file(place.path("f.wasm")).unwrap();
    until("the file is missed", || degraded(&forebay).pop().filter(|text| text.contains("No such file")));
    wait_for_trouble(
        &place,
        &forebay,
        &expect!["function f: f.wasm cannot be read: No such file or directory (os error 2)"],
    );
    place.send(0..3);
    assert!(place.versions(&forebay, 3).values().all(|v| *v == 1));
    // its own version comes back: nothing to swap
    place.replace(&version(1));
    well(&forebay);
    assert_eq!(swaps(&forebay, "swapped"), 0.0);
    fs::write(place.path("f.wasm"), &next).unwrap();
    wait_for(&forebay, "swapped", 1.0);
    place.send(3..5);
    assert_eq!(place.versions(&forebay, 5)[&4], 2);
    forebay.stop();
}

#[test]
fn a_version_that_only_traps_is_put_back_and_costs_no_row() {
    let place = Place::new(&version(1), F, BOTH);
    let forebay = place.run();
    place.replace(&trapping());
    wait_for(&forebay, "swapped", 1.0);
    place.send(1..25);
    assert!(place.versions(&forebay, 24).values().all(|v| *v == 1));
    let rows = place.wait_for_rows(&forebay, "sums.jsonl", 1);
    assert_eq!((rows[0]["sum"].as_i64(), rows[0]["n"].as_i64()), (Some(20), Some(20)));
    wait_for(&forebay, "put_back", 1.0);
    wait_for_trouble(
        &place,
        &forebay,
        &expect![
            "function f: version DIGEST was put back, DIGEST is in use again: its first 5 calls failed; udf.f: trapped: wasm `unreachable` instruction executed; try the row with `forebay udf call`"
        ],
    );
    assert_eq!(forebay.metric("forebay_dead_letters{"), 0.0);
    assert_eq!(forebay.metric("forebay_udf_failures_total"), 0.0, "no row failed");
    place.replace(&version(3));
    wait_for(&forebay, "swapped", 2.0);
    well(&forebay);
    place.send(25..27);
    assert_eq!(place.versions(&forebay, 26)[&26], 3);
    forebay.stop();
}

#[test]
fn a_paused_function_works_again_once_it_is_mended() {
    let place = Place::new(&trapping(), F, PLAIN);
    let forebay = place.run();
    place.send(0..120);
    until("the pause", || {
        (forebay.metric("forebay_udf_failures_total{job=\"test\",function=\"f\",reason=\"udf_breaker\"}") > 0.0)
            .then_some(())
    });
    until("all dead letters", || (forebay.metric("forebay_dead_letters{") == 120.0).then_some(()));
    place.replace(&version(2));
    wait_for(&forebay, "swapped", 1.0);
    place.send(120..123);
    assert!(place.versions(&forebay, 3).values().all(|v| *v == 2));
    forebay.stop();
}

#[test]
fn versions_in_rapid_succession_lose_and_repeat_no_row() {
    let place = Place::new(&version(0), F, BOTH);
    let forebay = place.run();
    for n in 1..12 {
        place.replace(&if n % 4 == 0 { trapping() } else { version(n) });
        if n % 2 == 0 {
            forebay.signal("-HUP");
        }
        place.send(n * 50..(n + 1) * 50);
    }
    let versions = place.versions(&forebay, 11 * 50);
    let in_order: Vec<i64> = versions.values().copied().collect();
    assert!(in_order.is_sorted(), "a later row never has an earlier version: {in_order:?}");
    assert!(in_order.iter().all(|v| v % 4 != 0 || *v == 0), "{in_order:?}");
    assert_eq!(forebay.metric("forebay_dead_letters{"), 0.0);
    // a swap while it stops
    place.replace(&version(99));
    forebay.signal("-HUP");
    forebay.stop();
    assert!(forebay::journal::verify(&place.path("test.db")).unwrap().is_good());
}

#[test]
fn after_a_kill_the_new_file_is_what_starts() {
    let place = Place::new(&version(1), F, BOTH);
    let forebay = place.run();
    place.send(1..6);
    place.versions(&forebay, 5);
    wait_for_commit(&forebay, "sums", 5.0);
    place.replace(&version(2));
    wait_for(&forebay, "swapped", 1.0);
    place.send(6..11);
    place.versions(&forebay, 10);
    forebay.kill();
    let forebay = place.run();
    place.send(11..25);
    let versions = place.versions(&forebay, 24);
    assert!(versions.iter().all(|(n, v)| *v == if *n < 6 { 1 } else { 2 }), "{versions:?}");
    let rows = place.wait_for_rows(&forebay, "sums.jsonl", 1);
    assert_eq!((rows[0]["sum"].as_i64(), rows[0]["n"].as_i64()), (Some(5 + 15 * 2), Some(20)));
    forebay.stop();
}

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
            "function r: version DIGEST is not taken, DIGEST stays in use: `r` has no `save` and `restore` any more, and what is kept of open windows counts on it"
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
    let functions = "[functions.visitCount]\ntype = \"wasm\"\ncomponent = \"f.wasm\"\nimports = [\"log\", \"state\", \"clock\"]\nconfig = { every = 2 }\n";
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

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(None).unwrap());

struct Trial {
    binding: FunctionBinding,
    versions: Versions,
    hosts: Vec<Host>,
}

impl Trial {
    fn new(wasm: &[u8]) -> Trial {
        let component = Arc::new(Component::from_bytes(&ENGINE, Path::new("f.wasm"), wasm, Limits::default()).unwrap());
        let binding = FunctionBinding::new(component, 0, "f");
        let versions = Versions::new(std::slice::from_ref(&binding));
        let hosts = (0..3).map(|_| Host::following(&versions).unwrap()).collect();
        Trial { binding, versions, hosts }
    }

    fn swap(&mut self, wasm: &[u8]) {
        self.versions.swap(vec![(0, self.binding.renewed(wasm, "f").unwrap())]);
    }

    fn commit(&mut self) {
        self.hosts.iter_mut().for_each(Host::take_versions);
    }

    fn ask(&mut self, host: usize, x: i64) -> String {
        match self.hosts[host].call(0, &[Value::BigInt(x)], Timestamp::MIN) {
            Ok(value) => value.to_json(),
            Err(error) => error.reason.to_owned(),
        }
    }

    fn counts(&self) -> (u64, u64) {
        let status = &self.versions.statuses()[0].1;
        (status.swapped, status.put_back)
    }
}

#[test]
fn an_executor_changes_only_when_it_asks() {
    let mut trial = Trial::new(&version(1));
    trial.swap(&version(2));
    assert_eq!(trial.ask(0, 0), "1");
    trial.hosts[0].take_versions();
    assert_eq!([trial.ask(0, 0), trial.ask(1, 0)], ["2", "1"]);
    trial.commit();
    assert_eq!(trial.ask(1, 0), "2");
}

#[test]
fn faults_in_all_executors_together_put_a_version_back() {
    let mut trial = Trial::new(&version(1));
    trial.swap(&trapping());
    trial.commit();
    for round in 0..4 {
        assert_eq!(trial.ask(round % 2, 0), "1", "the former version answers");
        assert_eq!(trial.counts(), (1, 0));
    }
    assert_eq!(trial.ask(0, 0), "1");
    assert_eq!(trial.counts(), (1, 1));
    // also where it was never called, before and after the next commit
    assert_eq!([trial.ask(0, 0), trial.ask(1, 0), trial.ask(2, 0)], ["1", "1", "1"]);
    trial.commit();
    assert_eq!([trial.ask(0, 0), trial.ask(1, 0), trial.ask(2, 0)], ["1", "1", "1"]);
    assert_eq!(trial.counts(), (1, 1));
}

#[test]
fn one_call_that_comes_through_ends_the_trial() {
    let mut trial = Trial::new(&version(1));
    trial.swap(&picky(2, 13));
    trial.commit();
    assert_eq!(trial.ask(0, 13), "1", "a fault before that is answered by the former version");
    assert_eq!(trial.ask(0, 0), "2");
    for _ in 0..20 {
        assert_eq!([trial.ask(0, 13), trial.ask(1, 13)], ["udf_trap", "udf_trap"], "and after it is the row's error");
    }
    assert_eq!(trial.counts(), (1, 0));
}

#[test]
fn a_row_that_is_too_much_for_both_says_nothing_against_the_new_one() {
    let mut trial = Trial::new(&picky(1, 13));
    trial.swap(&picky(2, 13));
    trial.commit();
    for _ in 0..20 {
        assert_eq!(trial.ask(0, 13), "udf_trap");
    }
    assert_eq!(trial.ask(0, 0), "2");
    assert_eq!(trial.counts(), (1, 0));
}

#[test]
fn a_version_that_never_passed_is_none_to_go_back_to() {
    let mut trial = Trial::new(&version(1));
    trial.swap(&trapping());
    trial.commit();
    assert_eq!(trial.ask(0, 0), "1");
    trial.swap(&another(trapping()));
    trial.commit();
    for _ in 0..6 {
        assert_eq!(trial.ask(0, 0), "1");
    }
    assert_eq!(trial.counts(), (2, 1));
}

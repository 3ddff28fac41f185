//! New versions of functions in a running job behind mosquitto: taken between commits, refused, put back.

#[path = "swap/groups.rs"]
mod groups;
#[path = "swap/trial.rs"]
mod trial;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;

use expect_test::{Expect, expect};
use forebay::time::Timestamp;
use serde_json::Value as Json;

use crate::harness::{Forebay, until, write};
use crate::support::{JobFolder, Message, publish, replace, rows_of, write_job};

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
                (func (export \"compute\") (param i32) (result i64) (i64.mul (i64.load (local.get 0)) (i64.const \
                {factor})))
                (func (export \"save\") (param i32) (result i32) unreachable)
                (func (export \"restore\") (param i32 i32) (result i32) unreachable)
                (func (export \"realloc\") (param i32 i32 i32 i32) (result i32) unreachable))
            (core instance $i (instantiate $m (with \"host\" (instance (export \"new\" (func $new))))))
            (func (export \"[constructor]r\") (result (own $r)) (canon lift (core func $i \"new\")))
            (func (export \"[method]r.accumulate\") (param \"self\" (borrow $r)) (param \"x\" s64) (canon lift (core \
            func $i \"accumulate\")))
            (func (export \"[method]r.compute\") (param \"self\" (borrow $r)) (result s64) (canon lift (core func $i \
            \"compute\"))) {saving})"
    );
    wat::parse_str(text).unwrap()
}

/// The same component in other bytes: an empty custom section behind it.
fn another(mut wasm: Vec<u8>) -> Vec<u8> {
    wasm.extend([0, 2, 1, b'x']);
    wasm
}

/// A job whose function lies in `f.wasm`.
struct Place(JobFolder);

const F: &str = "[functions.f]\ntype = \"wasm\"\ncomponent = \"f.wasm\"\n";
const R: &str = "[functions.r]\ntype = \"wasm\"\ncomponent = \"f.wasm\"\n";

impl Place {
    /// With the first version and the job; `functions` are its sections.
    fn new(wasm: &[u8], functions: &str, query: &str) -> Place {
        let place = Place(JobFolder::new());
        place.replace(wasm);
        let text = format!(
            "[job]\nname = \"test\"\nquery = \"job.asaql\"\nlate_tolerance = \"forever\"\n[metrics]\n\
            listen = \"127.0.0.1:0\"\n\
             [inputs.rides]\ntype = \"mqtt\"\nurl = \"{}\"\ntopics = [\"rides\"]\n{functions}\
             [outputs.out]\ntype = \"file\"\npath = \"out.jsonl\"\nfsync = \"never\"\nrow_id = \"id\"\n\
             [outputs.sums]\ntype = \"file\"\npath = \"sums.jsonl\"\nfsync = \"never\"\nrow_id = \"id\"\n",
            place.broker.url()
        );
        write_job(place.dir(), &text, query);
        place
    }

    fn replace(&self, wasm: &[u8]) {
        replace(&self.path("f.wasm"), wasm);
    }

    /// Rows with `n` from a range, `n` seconds after a moment.
    fn send(&self, numbers: std::ops::Range<i64>) {
        let row = |n: i64| {
            let t = Timestamp::parse("2024-01-01").unwrap().saturating_add(n * 10_000_000);
            Message::new("rides", format!(r#"{{"n":{n},"t":"{t}","who":"ann"}}"#))
        };
        self.runtime.block_on(publish(&self.broker.url(), numbers.map(row).collect()));
    }

    fn rows(&self, file: &str) -> Vec<Json> {
        rows_of(&self.path(file))
    }

    fn wait_for_rows(&self, forebay: &Forebay, file: &str, count: usize) -> Vec<Json> {
        until(&format!("{count} rows; log:\n{}", forebay.log()), || {
            Some(self.rows(file)).filter(|rows| rows.len() >= count)
        })
    }

    /// Version by `n`, once there are as many as wanted; every `n` came once.
    fn versions(&self, forebay: &Forebay, count: usize) -> BTreeMap<i64, i64> {
        let rows = self.wait_for_rows(forebay, "out.jsonl", count);
        assert_eq!(rows.len(), count, "a row came twice under two ids");
        let versions: BTreeMap<i64, i64> =
            rows.iter().map(|r| (r["n"].as_i64().unwrap(), r["v"].as_i64().unwrap_or(-1))).collect();
        assert_eq!(versions.len(), count);
        versions
    }
}

impl Deref for Place {
    type Target = JobFolder;

    fn deref(&self) -> &JobFolder {
        &self.0
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
    let mut text = found.replace(&format!("{}/", place.dir().display()), "");
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
    place.is_good();
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
    write(place.dir(), "job.asaql", "SELECT n, udf.f(n) + 1000 AS v INTO out FROM rides");
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
            "function f: version DIGEST is not taken, DIGEST stays in use: `f` was `f: func(x: s64) -> s64` and is `f: \
            func(x: s64, y: s64) -> s64`, which does not fit the query: `udf.f` takes 2 arguments; `forebay check` \
            shows where"
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
            "function f: version DIGEST was put back, DIGEST is in use again: its first 5 calls failed; udf.f: \
            trapped: wasm `unreachable` instruction executed; try the row with `forebay udf call`"
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
    place.is_good();
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

//! Jobs in which something goes wrong all the time, or that stand still: the log, `/readyz`, `/healthz` and the metrics
//! say so, with what to do, and say when it is over.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Forebay, cli, http, until, write};
use crate::support::{Message, Mosquitto, publish, publish_numbers, rows_of, runtime, succeeds, write_job};

fn job(dir: &Path, broker: &Mosquitto, query: &str, more: &str) -> PathBuf {
    let text = format!(
        "[job]\nname = \"test\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\nstalled_after = \"10s\"\n\
         [inputs.rides]\ntype = \"mqtt\"\nurl = \"{}\"\ntopics = [\"a/+\", \"b\"]\n\
         [outputs.rows]\ntype = \"file\"\npath = \"rows.jsonl\"\nrow_id = \"id\"\n{more}",
        broker.url()
    );
    write_job(dir, &text, query)
}

fn messages(payload: &str, n: usize) -> Vec<Message> {
    (0..n).map(|_| Message::new("a/1", payload)).collect()
}

fn line(forebay: &Forebay, words: &[&str]) -> String {
    until(&format!("a line with {words:?}"), || {
        let log = forebay.log();
        log.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
    })
}

fn degraded(forebay: &Forebay) -> String {
    let ready: serde_json::Value = serde_json::from_str(&forebay.get("/readyz").1).unwrap();
    ready["degraded"].to_string()
}

/// The command behind `look: ` in a line, run by a shell with the binary under test.
fn looked(line: &str) -> String {
    let command = line.split("look: forebay").nth(1).unwrap().split(" stage=").next().unwrap();
    let line = format!("'{}'{command}", crate::harness::binary());
    let output = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_job_of_which_every_row_fails_says_so_until_rows_go_through() {
    let dir = tempfile::tempdir().unwrap();
    let (runtime, broker) = (runtime(), Mosquitto::start());
    let forebay = Forebay::run(&job(dir.path(), &broker, "SELECT CAST(n AS bigint) AS n INTO rows FROM rides", ""));
    assert_eq!(degraded(&forebay), "null");
    runtime.block_on(publish(&broker.url(), messages(r#"{"n":"x"}"#, 5)));
    let began = line(&forebay, &["WARN", "most rows fail: all of the last 5 rows (conversion), first: "]);
    assert!(began.contains("correct the query (TRY_CAST gives NULL) or who sends, then replay them"), "{began}");
    let letters = looked(&began);
    assert_eq!(letters.matches("conversion").count(), 5, "{letters}");
    line(&forebay, &["WARN", " rows fail: ", " (conversion), first: "]);
    let (status, ready) = forebay.get("/readyz");
    assert!(status == 200 && ready.contains("statement rows: most rows fail since "), "{status} {ready}");
    let gauge = |stage: &str| format!("forebay_stage_failing{{job=\"test\",stage=\"{stage}\"}}");
    assert_eq!(forebay.metrics().get(&gauge("statement rows")), Some(&1.0));

    runtime.block_on(publish(&broker.url(), messages("no JSON", 25)));
    let began = line(&forebay, &["WARN", "most payloads fail: ", " in the last minute (undecodable), first: "]);
    assert!(looked(&began).matches("input rides").count() >= 20, "{}", looked(&began));
    assert_eq!(forebay.metrics().get(&gauge("input rides")), Some(&1.0));

    // the rows of a minute are looked at: more go through than failed
    runtime.block_on(publish_numbers(&broker.url(), "a/1", 0..100));
    line(&forebay, &["INFO", "rows go through again after ", ": 5 failed"]);
    line(&forebay, &["INFO", "payloads go through again after ", ": 25 failed"]);
    assert_eq!(degraded(&forebay), "null");
    assert_eq!(forebay.metric("forebay_stage_failing"), 0.0);
    forebay.stop();
}

#[test]
fn the_log_says_who_is_connected_and_to_what() {
    let dir = tempfile::tempdir().unwrap();
    let (runtime, broker) = (runtime(), Mosquitto::start());
    let out = format!("[outputs.out]\ntype = \"mqtt\"\nurl = \"{}\"\ntopic = \"out\"\n", broker.url());
    let query = "SELECT n INTO rows FROM rides SELECT n INTO out FROM rides";
    let forebay = Forebay::run(&job(dir.path(), &broker, query, &out));
    let words = "connected, subscribed to `a/+` (QoS 1), `b` (QoS 1)";
    line(&forebay, &["INFO", "input{name=rides}", words, &broker.port.to_string()]);
    runtime.block_on(publish_numbers(&broker.url(), "a/1", 0..3));
    line(&forebay, &["INFO", "output{name=rows}", "connected", "rows.jsonl"]);
    line(&forebay, &["INFO", "output{name=out}", "connected", &broker.port.to_string()]);
    forebay.stop();
}

#[test]
fn an_output_that_was_away_says_for_how_long_and_how_many_records_waited() {
    let dir = tempfile::tempdir().unwrap();
    let (runtime, broker) = (runtime(), Mosquitto::start());
    let path = job(dir.path(), &broker, "SELECT n INTO rows FROM rides", "");
    let forebay = Forebay::run(&path);
    // a folder where the file is to be
    let file = dir.path().join("rows.jsonl");
    std::fs::create_dir(&file).unwrap();
    runtime.block_on(publish_numbers(&broker.url(), "a/1", 0..30));
    line(&forebay, &["WARN", "output{name=rows}", "; rows wait in the pool meanwhile"]);
    let oldest = "forebay_output_oldest_seconds{job=\"test\",output=\"rows\"}";
    until("an age of 4 s", || forebay.metrics().get(oldest).filter(|age| **age >= 4.0).map(|_| ()));
    assert!(forebay.metric("forebay_consumer_oldest_seconds") >= 4.0);
    assert_eq!(forebay.metric("forebay_output_last_delivery_seconds"), 0.0);
    let status = succeeds(dir.path(), &["journal", "status", "--job", "job.toml"]);
    assert!(status.contains(" pending, holds the oldest segment, the oldest for "), "{status}");
    assert!(status.contains("no delivery yet, 30 pending, the oldest for "), "{status}");
    // it is away, and the process is well for all that
    assert_eq!(forebay.get("/healthz").0, 200);
    std::fs::remove_dir(&file).unwrap();
    line(&forebay, &["INFO", "delivering again after ", ": 30 records waited"]);
    until("the rows", || (rows_of(&file).len() == 30).then_some(()));
    until("no age", || (forebay.metrics().get(oldest) == Some(&0.0)).then_some(()));
    let delivered = forebay.metric("forebay_output_last_delivery_seconds");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(delivered <= now && delivered > now - 120.0, "{delivered} of {now}");
    forebay.stop();
    let json = succeeds(dir.path(), &["journal", "status", "--job", "job.toml", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let output = &json["outputs"][0];
    assert_eq!((output["name"].as_str(), output["oldest_seconds"].as_u64()), (Some("rows"), None), "{json}");
    assert!(output["delivered_at"].as_str().is_some_and(|at| at.starts_with("20")), "{json}");
}

#[test]
fn a_reader_that_stands_still_while_nothing_is_away_fails_the_health_check() {
    let dir = tempfile::tempdir().unwrap();
    let (runtime, broker) = (runtime(), Mosquitto::start());
    // a fault of the program, as a call that does not come back
    let wasm = wat::parse_str("(module (func (export \"f\") (param i64) (result i64) (loop $l br $l) unreachable))");
    std::fs::write(dir.path().join("f.wasm"), wasm.unwrap()).unwrap();
    let function = "[functions.f]\ntype = \"wasm\"\ncomponent = \"f.wasm\"\ntimeout = \"60s\"\n";
    let query = "SELECT udf.f(CAST(n AS bigint)) AS n INTO rows FROM rides";
    let forebay = Forebay::run(&job(dir.path(), &broker, query, function));
    assert_eq!(forebay.get("/healthz").0, 200);
    runtime.block_on(publish_numbers(&broker.url(), "a/1", 0..3));
    let health = until("the health check to fail", || Some(forebay.get("/healthz")).filter(|(code, _)| *code == 503));
    assert!(health.1.contains("statement rows stands still: 3 records to read"), "{}", health.1);
    line(&forebay, &["ERROR", "statement rows stands still: 3 records to read, nothing that it needs is away"]);
    assert_eq!(forebay.metric("forebay_consumer_stalled"), 1.0);
    assert!(forebay.get("/readyz").1.contains("statement rows stands still"));
    forebay.kill();
}

#[test]
fn a_reload_that_is_refused_has_a_metric_until_a_good_one_comes() {
    let dir = tempfile::tempdir().unwrap();
    let (runtime, broker) = (runtime(), Mosquitto::start());
    let query = "SELECT n INTO rows FROM rides";
    let forebay = Forebay::run(&job(dir.path(), &broker, query, ""));
    let refused = "forebay_reload_refused{job=\"test\",what=\"job\"}";
    assert_eq!(forebay.metrics().get(refused), Some(&0.0));
    write(dir.path(), "job.asaql", "SELECT m INTO nowhere FROM rides");
    forebay.signal("-HUP");
    until("the refusal", || (forebay.metrics().get(refused) == Some(&1.0)).then_some(()));
    assert!(degraded(&forebay).contains("not reloaded, the job goes on as it was"), "{}", degraded(&forebay));
    runtime.block_on(publish_numbers(&broker.url(), "a/1", 0..3));
    until("rows of the former job", || (rows_of(&dir.path().join("rows.jsonl")).len() == 3).then_some(()));
    write(dir.path(), "job.asaql", query);
    forebay.signal("-HUP");
    // the new job has a port of its own choice
    let address = until("the reload", || {
        let log = forebay.log();
        let ports: Vec<&str> = log.split("metrics on http://").skip(1).collect();
        ports.get(1)?.split('/').next()?.trim().parse().ok()
    });
    assert!(http(address, "GET", "/metrics", "").1.contains(&format!("{refused} 0")));
    assert!(!http(address, "GET", "/readyz", "").1.contains("degraded"));
    forebay.stop();
    let (code, ..) = cli(dir.path(), &["journal", "verify", "--job", "job.toml"]);
    assert_eq!(code, 0);
}

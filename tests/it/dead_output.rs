//! Jobs whose output is away for long, or whose pool another program reads: who loses what, and what is told.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;

use crate::harness::{Forebay, until, write};
use crate::support::{
    Message, Mosquitto, assert_pool_is_good, publish, publish_numbers, rows_of, runtime, succeeds, write_job,
};

/// A file output that works beside one that nobody answers.
fn job(dir: &std::path::Path, broker: &Mosquitto, of_dead: &str, journal: &str) -> PathBuf {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!(
        "[job]\nname = \"test\"\nquery = \"job.asaql\"\nstart = \"oldest\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
         [inputs.rides]\ntype = \"mqtt\"\nurl = \"{}\"\ntopics = [\"a/+\"]\n\
         [outputs.alive]\ntype = \"file\"\npath = \"alive.jsonl\"\nrow_id = \"id\"\n\
         [outputs.dead]\ntype = \"http\"\nurl = \"http://{nobody}/\"\n{of_dead}\n[journal]\n{journal}\n",
        broker.url()
    );
    write_job(dir, &text, "SELECT n INTO alive FROM rides\nSELECT * INTO dead FROM rides")
}

#[test]
fn rows_too_old_for_an_output_that_is_away_are_dropped_for_it_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (runtime, broker) = (runtime(), Mosquitto::start());
    let forebay = Forebay::run(&job(dir.path(), &broker, "max_age = \"1s\"", ""));
    runtime.block_on(publish_numbers(&broker.url(), "a/1", 0..500));
    let skipped = "forebay_consumer_skipped_total{job=\"test\",consumer=\"statement dead\",reason=\"age\"";
    // what the output had in hand it gives up by itself
    let given_up = "forebay_output_dropped_total{job=\"test\",output=\"dead\",reason=\"age\"";
    let lost = || forebay.metric(skipped) + forebay.metric(given_up);
    until("all of them to be dropped", || (lost() == 500.0).then_some(()));
    until("the other output to have all", || (rows_of(&dir.path().join("alive.jsonl")).len() == 500).then_some(()));
    let of_all = ["forebay_consumer_skipped_total", "forebay_output_dropped_total"].map(|name| forebay.metric(name));
    assert_eq!(of_all.iter().sum::<f64>(), 500.0, "nobody else has lost any");
    let status = succeeds(dir.path(), &["journal", "status", "--job", "job.toml"]);
    assert!(status.contains(&format!("0 pending, {} skipped (age)", forebay.metric(skipped))), "{status}");
    let told = "records older than max_age were not read in time";
    let lines = forebay.log().lines().filter(|line| line.contains(told)).count();
    assert!((1..=2).contains(&lines), "a line a minute, not one a record: {lines}\n{}", forebay.log());
    forebay.stop();
    assert_pool_is_good(dir.path());
}

#[test]
fn events_of_all_inputs_are_dropped_for_a_reader_of_one_and_the_log_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (runtime, broker) = (runtime(), Mosquitto::start());
    let job = job(dir.path(), &broker, "max_age = \"1s\"", "");
    let other = format!("[inputs.other]\ntype = \"mqtt\"\nurl = \"{}\"\ntopics = [\"b/+\"]\n", broker.url());
    let text = std::fs::read_to_string(&job).unwrap() + &other;
    write_job(dir.path(), &text, "SELECT n INTO alive FROM other\nSELECT * INTO dead FROM rides");
    let forebay = Forebay::run(&job);
    runtime.block_on(publish_numbers(&broker.url(), "a/1", 0..30));
    runtime.block_on(publish_numbers(&broker.url(), "b/1", 0..70));
    let counted = |what: &str| {
        let labels = "{job=\"test\",consumer=\"statement dead\",reason=\"age\"";
        forebay.metric(&format!("forebay_consumer_{what}_total{labels}"))
    };
    // the output may have had some in hand
    until("all of them to be dropped", || (counted("skipped") + counted("in_hand") == 100.0).then_some(()));
    let told = "records older than max_age were not read in time and are dropped (all inputs are counted)";
    until("the word", || forebay.log().contains(told).then_some(()));
    until("the other output to have its own", || (rows_of(&dir.path().join("alive.jsonl")).len() == 70).then_some(()));
    forebay.stop();
}

#[test]
fn a_pool_that_fills_tells_how_long_it_lasts_and_for_whom() {
    let dir = tempfile::tempdir().unwrap();
    let (runtime, broker) = (runtime(), Mosquitto::start());
    let settings = "max_bytes = \"16MiB\"\nwarn_below = \"3660d\"";
    let forebay = Forebay::run(&job(dir.path(), &broker, "", settings));
    let room = forebay.metric("forebay_pool_room_bytes");
    assert!(room > 10e6 && room <= 16_777_216.0, "{room}");
    let mut rng = fastrand::Rng::with_seed(6);
    let mut noise = || (0..1500).map(|_| rng.alphanumeric()).collect::<String>();
    let messages = (0..6_000).map(|n| Message::new("a/1", format!("{{\"n\":{n},\"x\":\"{}\"}}", noise()))).collect();
    runtime.block_on(publish(&broker.url(), messages));
    let ready = until("the pool to be told of", || {
        Some(forebay.get("/readyz").1).filter(|ready| ready.contains("the pool lasts"))
    });
    assert!(ready.contains("left of max_bytes, then intake waits: statement dead has "), "{ready}");
    assert!(ready.contains("repair what it waits for, or raise max_bytes in [journal]"), "{ready}");
    assert!(forebay.metric("forebay_pool_left_seconds") > 0.0 && forebay.metric("forebay_pool_growth_day_bytes") > 0.0);
    let status = ["journal", "status", "--job", "job.toml"];
    let still = succeeds(dir.path(), &status);
    let of_dead = still.lines().skip_while(|line| !line.starts_with("  statement dead  ")).nth(1).unwrap();
    assert!(of_dead.trim().starts_with("no commit within "), "{still}");
    forebay.stop();
    let stopped = succeeds(dir.path(), &status);
    assert!(stopped.contains("pending, holds the oldest segment"), "{stopped}");
    assert!(!stopped.contains("no commit within "), "a job that does not run has no pace: {stopped}");
    let lasts = "if nobody reads, it lasts ";
    for command in [["journal", "status", "--job"].as_slice(), &["check"]] {
        let said = succeeds(dir.path(), &[command, &["job.toml"]].concat());
        assert!(said.contains(lasts), "{said}");
    }
}

#[test]
fn another_process_that_reads_the_pool_and_does_not_end_is_named_and_outputs_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (runtime, broker) = (runtime(), Mosquitto::start());
    let job = job(dir.path(), &broker, "", "");
    // the output that nobody answers gets no row, so that it is no reason not to be ready
    write(dir.path(), "job.asaql", "SELECT n INTO alive FROM rides\nSELECT * INTO dead FROM rides WHERE n < 0");
    let forebay = Forebay::run(&job);
    let reader = rusqlite::Connection::open(dir.path().join("test.db")).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    let _: i64 = reader.query_row("SELECT count(*) FROM segment", [], |row| row.get(0)).unwrap();
    let me = format!("process {}", std::process::id());
    let is_named = |text: &str| text.contains("another program (") && text.contains(&me) && text.contains("close it");
    until("the reader to be named", || is_named(&forebay.get("/readyz").1).then_some(()));
    assert!(is_named(&forebay.log()));
    let status = succeeds(dir.path(), &["journal", "status", "--job", "job.toml"]);
    assert!(is_named(&status), "{status}");
    // whoever asks whether the job works is told that it does
    runtime.block_on(publish_numbers(&broker.url(), "a/1", 0..200));
    until("the rows", || (rows_of(&dir.path().join("alive.jsonl")).len() == 200).then_some(()));
    let (code, ready) = forebay.get("/readyz");
    let said: serde_json::Value = serde_json::from_str(&ready).unwrap();
    assert_eq!((code, &said["ok"], said["problems"].to_string().as_str()), (200, &true.into(), "[]"), "{ready}");
    assert!(is_named(&said["degraded"].to_string()), "{ready}");
    drop(reader);
    until("the reader to be gone", || (!is_named(&forebay.get("/readyz").1)).then_some(()));
    forebay.stop();
}

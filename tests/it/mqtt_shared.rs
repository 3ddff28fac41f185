//! An input and outputs over one connection: a running job at mosquitto, in both versions of MQTT.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use expect_test::expect;
use forebay::job;
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::harness::{Forebay, until, write};
use super::support::{Message, Mosquitto, Subscriber, publish};
use crate::support::dead_letters;

const VERSIONS: [&str; 2] = ["5", "3.1.1"];

const JOB: &str = r#"[job]
name = "plant"
query = "plant.asaql"
[metrics]
listen = "127.0.0.1:0"
[inputs.a]
type = "mqtt"
url = "URL"
client_id = "device"
protocol = "VERSION"
topics = ["in/+"]
[outputs.b]
type = "mqtt"
connection = "a"
topic = "out/{k}"
row_id = "id"
"#;

/// A job at a broker, and a subscriber to what it sends.
struct Place {
    broker: Mosquitto,
    folder: TempDir,
    job: PathBuf,
    runtime: Runtime,
    subscriber: Subscriber,
}

impl Place {
    fn new(version: &str, query: &str, lines: &str) -> Place {
        Place::with(version, query, lines, |_| {})
    }

    fn with(version: &str, query: &str, lines: &str, prepare: impl FnOnce(&Path)) -> Place {
        let broker = Mosquitto::start_with(&format!("allow_anonymous true\nlog_type all\n{lines}"), prepare);
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "plant.asaql", query);
        let text = JOB.replace("URL", &broker.url()).replace("VERSION", version);
        let job = write(folder.path(), "job.toml", &text);
        let runtime = Runtime::new().unwrap();
        let subscriber = runtime.block_on(Subscriber::start(&broker.url(), "out/#"));
        Place { broker, folder, job, runtime, subscriber }
    }

    fn send(&self, numbers: std::ops::Range<i64>) {
        let message =
            |n: i64| Message::new("in/x", format!(r#"{{"n":{n},"k":"k{}","v":"{}"}}"#, n % 3, "v".repeat(300)));
        self.runtime.block_on(publish(&self.broker.url(), numbers.map(message).collect()));
    }

    /// How often each number came out, by its row id.
    fn rows(&self) -> BTreeMap<i64, Vec<String>> {
        let mut rows: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for topic in ["out/k0", "out/k1", "out/k2", "out/other"] {
            for payload in self.subscriber.payloads_at(topic) {
                let row: Json = serde_json::from_str(&payload).unwrap();
                rows.entry(row["n"].as_i64().unwrap()).or_default().push(row["id"].as_str().unwrap().to_owned());
            }
        }
        rows
    }

    /// Waits until all numbers came out, each as one row, which may have been sent again.
    fn all(&self, numbers: std::ops::Range<i64>, forebay: &Forebay) {
        let expected: BTreeSet<i64> = numbers.collect();
        let missing = || expected.difference(&self.rows().into_keys().collect()).count();
        until(&format!("all rows; log:\n{}", forebay.log()), || (missing() == 0).then_some(()));
        for (n, ids) in self.rows() {
            assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 1, "{n}: {ids:?}");
        }
    }

    /// The client ids of the job that connected, in order.
    fn clients(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.broker.folder().join("log")).unwrap();
        let connected =
            log.lines().filter_map(|line| line.split("New client connected from ").nth(1)?.split(" as ").nth(1));
        let ids = connected.filter_map(|rest| rest.split(" (").next()).map(str::to_owned);
        ids.filter(|id| !id.starts_with("publisher-") && !id.starts_with("subscriber-")).collect()
    }
}

const QUERY: &str = "SELECT n, k, v INTO b FROM a";

#[test]
fn what_comes_in_goes_out_by_the_same_connection() {
    for version in VERSIONS {
        let place = Place::new(version, QUERY, "");
        let forebay = Forebay::run(&place.job);
        for part in 0..5 {
            place.send(part * 200..part * 200 + 200);
        }
        place.all(0..1000, &forebay);
        assert!(place.rows().values().all(|ids| ids.len() == 1), "nothing is sent twice");
        assert_eq!(place.clients(), ["device"], "MQTT {version}");
        assert_eq!(forebay.metric("forebay_source_connects_total"), 1.0);
        assert!(forebay.stop().success());
    }
}

#[test]
fn a_stop_sends_what_is_stored_and_says_goodbye() {
    for version in VERSIONS {
        let place = Place::new(version, QUERY, "");
        let forebay = Forebay::run(&place.job);
        place.send(0..1000);
        assert!(forebay.stop().success());
        let log = std::fs::read_to_string(place.broker.folder().join("log")).unwrap();
        assert_eq!(log.matches("Received DISCONNECT from device").count(), 1, "MQTT {version}");
        let forebay = Forebay::run(&place.job);
        place.all(0..1000, &forebay);
        assert!(place.rows().values().all(|ids| ids.len() == 1), "nothing is sent twice");
        assert_eq!(forebay.metric("forebay_source_redelivered_possible_total"), 0.0);
        assert!(forebay.stop().success());
    }
}

#[test]
fn a_broker_that_is_killed_and_a_process_that_is_killed_lose_nothing() {
    for version in VERSIONS {
        let mut place = Place::new(version, QUERY, "autosave_interval 1\nautosave_on_changes true\n");
        let forebay = Forebay::run(&place.job);
        place.send(0..300);
        place.broker.stop();
        place.broker.start_again();
        place.send(300..600);
        place.all(0..600, &forebay);
        place.send(600..900);
        forebay.kill();
        place.send(900..1000);
        let forebay = Forebay::run(&place.job);
        place.all(0..1000, &forebay);
        assert!(place.clients().iter().all(|id| id == "device"), "{:?}", place.clients());
        assert!(forebay.stop().success());
    }
}

#[test]
fn a_row_that_the_broker_finds_too_large_is_found() {
    let query = "SELECT n, k, CASE WHEN n = 17 THEN CONCAT(v, v, v, v, v, v, v, v) ELSE v END AS v INTO b FROM a";
    // the second one says nothing beforehand and ends the connection, the third one without a word
    let brokers =
        [("5", "max_packet_size 2000\n"), ("5", "message_size_limit 1500\n"), ("3.1.1", "max_packet_size 2000\n")];
    for (version, lines) in brokers {
        let place = Place::new(version, query, lines);
        let forebay = Forebay::run(&place.job);
        place.send(0..17);
        place.send(18..40);
        place.all(0..17, &forebay);
        place.send(17..18);
        place.send(40..60);
        until("the dead letter", || (forebay.metric("forebay_output_dead_lettered_total") == 1.0).then_some(()));
        place.all(40..60, &forebay);
        assert!(!place.rows().contains_key(&17));
        let (code, body) = until("that it is ready", || Some(forebay.get("/readyz")).filter(|(code, _)| *code == 200));
        assert_eq!(code, 200, "{body}");
        assert!(place.clients().iter().all(|id| id == "device"), "{:?}", place.clients());
        assert!(forebay.stop().success());
        let letters = dead_letters(place.folder.path(), "job.toml");
        assert!(
            letters.contains("large")
                || letters.contains("closed the connection")
                || letters.contains("over the broker's limit"),
            "{letters}"
        );
    }
}

/// Another output that has one message under way when the broker ends the connection is not taken for the one at fault,
/// and one that is idle keeps nobody waiting.
#[test]
fn a_row_that_ends_the_connection_costs_the_other_outputs_nothing() {
    let query = "SELECT n, k, CASE WHEN n = 17 THEN CONCAT(v, v, v, v, v, v, v, v) ELSE v END AS v INTO b FROM a;
        SELECT n INTO c FROM a; SELECT n INTO d FROM a WHERE n = 0";
    for lines in ["max_packet_size 2000\n", "message_size_limit 1500\n"] {
        let place = Place::new("5", query, lines);
        let more = |name: &str| {
            format!("[outputs.{name}]\ntype = \"mqtt\"\nconnection = \"a\"\ntopic = \"out/{name}\"\nbody = \"array\"\n")
        };
        let job = std::fs::read_to_string(&place.job).unwrap() + &more("c") + &more("d");
        std::fs::write(&place.job, job).unwrap();
        let forebay = Forebay::run(&place.job);
        place.send(0..17);
        place.all(0..17, &forebay);
        for n in 17..60 {
            place.send(n..n + 1);
        }
        place.all(18..60, &forebay);
        let others = || -> BTreeSet<i64> {
            let numbers = |array: &String| serde_json::from_str::<Vec<Json>>(array).unwrap();
            let rows: Vec<Json> = place.subscriber.payloads_at("out/c").iter().flat_map(numbers).collect();
            rows.iter().map(|row| row["n"].as_i64().unwrap()).collect()
        };
        until(&format!("all rows of the other; log:\n{}", forebay.log()), || (others().len() == 60).then_some(()));
        until("the dead letter", || (forebay.metric("forebay_output_dead_lettered_total") == 1.0).then_some(()));
        assert!(!place.rows().contains_key(&17));
        assert_eq!(place.subscriber.payloads_at("out/d").len(), 1);
        assert!(forebay.stop().success());
    }
}

#[test]
fn a_reload_goes_on_with_one_connection() {
    for version in VERSIONS {
        let place = Place::new(version, QUERY, "");
        let forebay = Forebay::run(&place.job);
        place.send(0..100);
        place.all(0..100, &forebay);
        let text = std::fs::read_to_string(&place.job).unwrap();
        write(place.folder.path(), "job.toml", &text.replace("out/{k}", "out/other"));
        forebay.signal("-HUP");
        until("the new job", || (place.clients().len() == 2).then_some(()));
        place.send(100..200);
        place.all(0..200, &forebay);
        assert_eq!(place.subscriber.payloads_at("out/other").len(), 100);
        assert_eq!(place.clients(), ["device", "device"]);
        assert!(forebay.stop().success());
    }
}

#[test]
fn a_full_pool_is_emptied_by_the_output_whose_connection_could_not_receive() {
    const MESSAGES: i64 = 3_000;
    // the broker refuses the rows, so they fill the pool until it takes them; in MQTT 3.1.1 it cannot say so
    let acl = |folder: &Path, rules: &str| std::fs::write(folder.join("acl"), rules).unwrap();
    let refuse = "topic readwrite in/#\ntopic read out/#\n";
    let place = Place::with("5", QUERY, "acl_file {}/acl\n", |folder| acl(folder, refuse));
    let text = std::fs::read_to_string(&place.job).unwrap();
    let small = "topics = [\"in/+\"]\npayload_bytes_max = \"16KiB\"\nunacked_bytes_max = \"64KiB\"";
    let text = text.replace("topics = [\"in/+\"]", small);
    write(place.folder.path(), "job.toml", &format!("{text}[journal]\nmax_bytes = \"16MiB\"\n"));
    let forebay = Forebay::run(&place.job);
    let mut random = fastrand::Rng::with_seed(1);
    let mut message = |n: i64| {
        let noise: String = std::iter::repeat_with(|| random.alphanumeric()).take(9_000).collect();
        Message::new("in/x", format!(r#"{{"n":{n},"k":"k0","v":"{noise}"}}"#))
    };
    for part in 0..MESSAGES / 100 {
        let messages = (part * 100..part * 100 + 100).map(&mut message).collect();
        place.runtime.block_on(publish(&place.broker.url(), messages));
    }
    until("the pool is full", || (forebay.metric("forebay_pool_full") == 1.0).then_some(()));
    // reading stands still, and the connection is made again for the output alone
    until("a second connection", || (place.clients().len() >= 2).then_some(()));
    assert!(place.rows().is_empty());
    assert!(forebay.metric("forebay_input_stored_total") < MESSAGES as f64);
    acl(place.broker.folder(), "topic readwrite #\n");
    place.broker.reload();
    place.all(0..MESSAGES, &forebay);
    assert_eq!(forebay.metric("forebay_output_dead_lettered_total"), 0.0, "a refused topic is no fault of a row");
    assert!(place.clients().iter().all(|id| id == "device"), "{:?}", place.clients());
    assert!(forebay.stop().success());
}

#[test]
fn an_output_says_why_the_connection_of_its_input_is_not_there() {
    let acl = |folder: &Path| std::fs::write(folder.join("acl"), "topic readwrite in/#\ntopic read out/#\n").unwrap();
    let mut place = Place::with("5", QUERY, "acl_file {}/acl\n", acl);
    let forebay = Forebay::run(&place.job);
    place.send(0..3);
    until("the refusal", || forebay.log().contains("does not let us publish").then_some(()));
    place.broker.stop();
    let why = "waiting for the connection of input `a`: nothing listens at";
    until(&format!("{why} in\n{}", forebay.log()), || forebay.log().contains(why).then_some(()));
    assert!(forebay.stop().success());
}

/// What `check` says of a job with these sections behind `[job]`.
fn said(sections: &str) -> String {
    let text = format!("[job]\nname = \"j\"\nquery = \"q\"\n{sections}");
    match job::parse(&text, Path::new("job.toml")) {
        Ok(job) => job.warnings.to_string(),
        Err(problems) => problems.to_string(),
    }
}

const INPUT: &str = "[inputs.rides]\ntype = \"mqtt\"\nurl = \"mqtt://h\"\ntopics = [\"in/+\"]\n";

#[test]
fn a_connection_that_is_not_there_is_named() {
    let output = |keys: &str| said(&format!("{INPUT}[outputs.b]\ntype = \"mqtt\"\ntopic = \"out\"\n{keys}\n"));
    assert_eq!(output("connection = \"rides\""), "");
    expect![[r#"
        error: `ride` has no connection to send over
           --> job.toml:11:14
            |
         11 | connection = "ride"
            |              ^^^^^^ the job has no input of this name
            = help: did you mean `rides`?
    "#]]
    .assert_eq(&output("connection = \"ride\""));
    expect![[r#"
        error: `other` has no connection to send over
           --> job.toml:11:14
            |
         11 | connection = "other"
            |              ^^^^^^^ the job has no input of this name
            = help: expected an MQTT input: `rides`
    "#]]
    .assert_eq(&output("connection = \"other\""));
    expect![[r#"
        error: `url` beside `connection`
           --> job.toml:12:7
            |
         12 | url = "mqtt://h"
            |       ^^^^^^^^^^ the connection is that of input `rides`
            = help: leave `url` out here; it belongs to `[inputs.rides]`

        error: `client_id` beside `connection`
           --> job.toml:13:13
            |
         13 | client_id = "c"
            |             ^^^ the connection is that of input `rides`
            = help: leave `client_id` out here; it belongs to `[inputs.rides]`

        2 errors
    "#]]
    .assert_eq(&output("connection = \"rides\"\nurl = \"mqtt://h\"\nclient_id = \"c\""));
    expect![[r#"
        error: `t` has no connection to send over
           --> job.toml:10:14
            |
         10 | connection = "t"
            |              ^^^ this input is not an MQTT stream
            = help: leave `connection` out and write `url`
    "#]]
    .assert_eq(&said(
        "[inputs.t]\ntype = \"reference\"\npath = \"t.json\"\n[outputs.b]\ntype = \"mqtt\"\ntopic = \
        \"out\"\nconnection = \"t\"\n",
    ));
}

#[test]
fn a_secret_beside_a_connection_is_not_shown() {
    let told = said(&format!(
        "{INPUT}[outputs.b]\ntype = \"mqtt\"\ntopic = \"out\"\nconnection = \"rides\"\npassword = \"hunter2\"\n"
    ));
    assert!(told.contains("`password` beside `connection`") && !told.contains("hunter2"), "{told}");
}

#[test]
fn two_parts_of_one_client_id_are_told_how_to_share_it() {
    let client = "type = \"mqtt\"\nurl = \"mqtt://h\"\nclient_id = \"one\"\n";
    expect![[r#"
        error: the client id `one` at h:1883 is that of input `a`
          --> job.toml:9:10
           |
         9 | [outputs.b]
           |          ^ needs one of its own
           = help: give it one of its own, or write `connection = "a"` to send over that of the input
    "#]]
    .assert_eq(&said(&format!("[inputs.a]\n{client}topics = [\"in\"]\n[outputs.b]\n{client}topic = \"out\"\n")));
}

#[test]
fn a_topic_that_comes_back_is_a_warning() {
    let output = |topic: &str, url: &str| {
        said(&format!("{INPUT}[outputs.b]\ntype = \"mqtt\"\nurl = \"{url}\"\ntopic = \"{topic}\"\n"))
    };
    expect![[r#"
        warning: rows come back as events of input `rides`
           --> job.toml:11:9
            |
         11 | topic = "in/{k}"
            |         ^^^^^^^^ its filter `in/+` takes in topics of this output
            = help: write to topics that no filter of the job takes in
    "#]]
    .assert_eq(&output("in/{k}", "mqtt://h"));
    assert!(output("{k}/x", "mqtt://h").contains("come back"));
    for (topic, url) in [("in/a/b", "mqtt://h"), ("in/x{k}/b", "mqtt://h"), ("in/a", "mqtt://other")] {
        assert_eq!(output(topic, url), "", "{topic} {url}");
    }
    let borrowed = said(&format!("{INPUT}[outputs.b]\ntype = \"mqtt\"\nconnection = \"rides\"\ntopic = \"in/a\"\n"));
    assert!(borrowed.contains("come back as events of input `rides`"), "{borrowed}");
}

//! What a running job tells brokers of itself: at mosquitto, in both versions of MQTT.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::PathBuf;

use forebay::demo::broker::Broker;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::harness::{Forebay, until, write};
use super::support::{Mosquitto, Subscriber, publish_numbers};

const VERSIONS: [&str; 2] = ["5", "3.1.1"];

/// An input that lends its connection, and an output that has its own and gets no row.
const JOB: &str = r#"[job]
name = "plant"
query = "plant.asaql"
[metrics]
listen = "127.0.0.1:0"
[inputs.a]
type = "mqtt"
url = "URL"
protocol = "VERSION"
topics = ["in"]
status_topic = "state/in"
[outputs.lent]
type = "mqtt"
connection = "a"
topic = "out"
row_id = "id"
[outputs.own]
type = "mqtt"
url = "URL"
protocol = "VERSION"
topic = "quiet"
row_id = "id"
status_topic = "state/out"
"#;

const QUERY: &str = "SELECT n INTO lent FROM a SELECT n INTO own FROM a WHERE n < 0";

struct Place {
    broker: Mosquitto,
    _folder: TempDir,
    job: PathBuf,
    runtime: Runtime,
    subscriber: Subscriber,
}

impl Place {
    fn new(version: &str, broker: Mosquitto) -> Place {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "plant.asaql", QUERY);
        let text = JOB.replace("URL", &broker.url()).replace("VERSION", version);
        let job = write(folder.path(), "job.toml", &text);
        let runtime = Runtime::new().unwrap();
        let subscriber = runtime.block_on(Subscriber::start(&broker.url(), "#"));
        Place { broker, _folder: folder, job, runtime, subscriber }
    }

    /// Waits until both connections told these states, one after another, and nothing else.
    fn told(&self, states: &[&str], forebay: Option<&Forebay>) {
        let expected: Vec<String> =
            states.iter().map(|state| format!(r#"{{"job":"plant","state":"{state}"}}"#)).collect();
        for topic in ["state/in", "state/out"] {
            let said = || self.subscriber.payloads_at(topic);
            let what = format!("{states:?} at {topic}; log:\n{}", forebay.map(Forebay::log).unwrap_or_default());
            until(&what, || (said().len() >= states.len()).then_some(()));
            assert_eq!(said(), expected, "{topic}");
        }
    }

    /// Waits until both connections told this state after `messages` messages at least.
    fn comes_to(&self, state: &str, messages: usize) {
        let expected = format!(r#"{{"job":"plant","state":"{state}"}}"#);
        for topic in ["state/in", "state/out"] {
            let said = || self.subscriber.payloads_at(topic);
            let is_there = || said().len() >= messages && said().last() == Some(&expected);
            until(&format!("{state} at {topic}"), || is_there().then_some(()));
        }
    }

    fn rows(&self, n: usize) {
        until("rows", || (self.subscriber.payloads_at("out").len() >= n).then_some(()));
        assert_eq!(self.subscriber.payloads_at("out").len(), n);
    }
}

#[test]
fn a_job_tells_that_it_runs_was_lost_and_stopped() {
    for version in VERSIONS {
        let mut place = Place::new(version, Mosquitto::start());
        let url = place.broker.url();
        let forebay = Forebay::run(&place.job);
        place.told(&["running"], Some(&forebay));
        place.runtime.block_on(publish_numbers(&url, "in", 0..1500));
        place.rows(1500);
        forebay.kill();
        place.told(&["running", "lost"], None);

        let forebay = Forebay::run(&place.job);
        place.told(&["running", "lost", "running"], Some(&forebay));
        place.broker.stop();
        place.broker.start_again();
        // whether a broker that is stopped says "lost" is its own matter
        place.comes_to("running", 4);
        assert!(forebay.stop().success());
        place.comes_to("stopped", 5);

        // one who comes later learns the last state
        let later = place.runtime.block_on(Subscriber::start(&url, "state/+"));
        for topic in ["state/in", "state/out"] {
            let said = until("the retained state", || later.payloads_at(topic).first().cloned());
            assert_eq!(said, r#"{"job":"plant","state":"stopped"}"#);
        }
    }
}

#[test]
fn rows_go_on_where_a_broker_takes_no_status() {
    let rules = "allow_anonymous true\nlog_type all\nacl_file {}/acl\n";
    let broker = Mosquitto::start_with(rules, |folder| {
        write(folder, "acl", "topic read #\ntopic write in\ntopic write out\n");
    });
    let place = Place::new("5", broker);
    let forebay = Forebay::start(&place.job);
    for topic in ["state/in", "state/out"] {
        let warning =
            format!("the job's status was not taken at status_topic `{topic}`, next try in an hour: the broker");
        until(&format!("{warning} in\n{}", forebay.log()), || forebay.log().contains(&warning).then_some(()));
    }
    until("the subscription", || (forebay.metric("forebay_source_connected") >= 1.0).then_some(()));
    place.runtime.block_on(publish_numbers(&place.broker.url(), "in", 0..100));
    place.rows(100);
    assert!(forebay.stop().success());
}

/// A broker that answers no status, and the job; the folder holds both statements.
fn silent_at_its_status() -> (Runtime, Broker, tempfile::TempDir, std::path::PathBuf) {
    let runtime = Runtime::new().unwrap();
    let broker = runtime.block_on(Broker::start()).unwrap();
    broker.misbehave(|faults| faults.silent_at = vec!["state/in".to_owned(), "state/out".to_owned()]);
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "plant.asaql", "SELECT n INTO lent FROM a SELECT n INTO own FROM a");
    let job = write(folder.path(), "job.toml", &JOB.replace("URL", &broker.url()).replace("VERSION", "5"));
    (runtime, broker, folder, job)
}

#[test]
fn rows_go_on_where_a_broker_does_not_answer_a_status() {
    let (runtime, broker, _folder, job) = silent_at_its_status();
    let subscriber = runtime.block_on(Subscriber::start(&broker.url(), "#"));
    let forebay = Forebay::run(&job);
    runtime.block_on(publish_numbers(&broker.url(), "in", 0..1200));
    for topic in ["out", "quiet"] {
        let rows = || subscriber.payloads_at(topic).len();
        until(&format!("rows at {topic}; log:\n{}", forebay.log()), || (rows() >= 1200).then_some(()));
        assert_eq!(rows(), 1200, "{topic}");
    }
    for topic in ["state/in", "state/out"] {
        let warning =
            format!("was not taken at status_topic `{topic}`, next try in an hour: the broker gave no answer");
        assert_eq!(forebay.log().matches(&warning).count(), 1, "{}", forebay.log());
    }
    assert!(!forebay.log().contains("it was not up so far"), "{}", forebay.log());
    assert!(forebay.stop().success());
    assert_eq!(subscriber.payloads_at("state/in").len(), 1, "nor is it told of the stop");
}

#[test]
fn a_stop_is_told_before_the_broker_has_answered_that_the_job_runs() {
    let (runtime, broker, _folder, job) = silent_at_its_status();
    let subscriber = runtime.block_on(Subscriber::start(&broker.url(), "state/+"));
    let forebay = Forebay::start(&job);
    let says = |topic, states: &[&str]| {
        let expected: Vec<String> =
            states.iter().map(|state| format!(r#"{{"job":"plant","state":"{state}"}}"#)).collect();
        until(&format!("{states:?} at {topic}"), || (subscriber.payloads_at(topic) == expected).then_some(()));
    };
    for topic in ["state/in", "state/out"] {
        says(topic, &["running"]);
    }
    assert!(forebay.stop().success());
    for topic in ["state/in", "state/out"] {
        says(topic, &["running", "stopped"]);
    }
}

//! Single messages of mosquitto: one that cannot be read, and what a query reads of topic and properties.

use forebay::demo::client::Publisher;

use super::{job, listen};
use crate::harness::{Forebay, PATIENCE, until};
use crate::support::{Mosquitto, runtime};

#[test]
fn a_bad_payload_becomes_a_dead_letter_and_the_next_one_is_processed() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    let path = job(dir.path(), &broker, "SELECT n INTO plain FROM rides", &[], &["plain"], "");
    let (_receiver, seen) = listen(&runtime, &broker, "receiver", "out/plain");
    let forebay = Forebay::run(&path);
    runtime.block_on(async {
        let feed = Publisher::connect("fleet", "127.0.0.1", broker.port);
        for payload in [
            "{\"n\":1}",
            "not json",
            "{\"n\":",
            "[{\"n\":2},3,{\"n\":3}]",
            "{\"n\":99999999999999999999}",
            "\u{fffd}",
            "{\"n\":4}\n{\"n\":5}",
            "7",
            "",
            "{\"n\":6}",
        ] {
            assert!(feed.send("taxi/a/rides", payload).await);
        }
        assert!(feed.drained(PATIENCE).await);
    });
    until("six rows", || (seen.lock().expect("seen").len() == 6).then_some(()));
    let numbers: Vec<i64> = seen.lock().expect("seen").iter().map(|(_, row)| row["n"].as_i64().expect("n")).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    assert_eq!(forebay.metric("forebay_input_undecodable_total"), 6.0);
    assert_eq!(forebay.metric("forebay_input_dropped_total"), 1.0, "the empty one");
    let (code, listed, _) = crate::harness::cli(dir.path(), &["journal", "dead-letters", "ls", "--job", "job.toml"]);
    assert_eq!(code, 0);
    assert!(listed.contains("not json") && listed.contains("undecodable"), "{listed}");
    forebay.stop();
}

#[test]
fn a_query_reads_topic_and_user_properties() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    let query = "SELECT n, GetMetadataPropertyValue(rides, 'Mqtt.Topic') AS topic, GetMetadataPropertyValue(rides, \
        '[User].[site]') AS site,
        GetMetadataPropertyValue(rides, '[User].[absent]') AS absent, GetMetadataPropertyValue(rides, 'Mqtt.Qos') AS \
        qos INTO plain FROM rides";
    let path = job(dir.path(), &broker, query, &[], &["plain"], "");
    let (_receiver, seen) = listen(&runtime, &broker, "receiver", "out/plain");
    let forebay = Forebay::run(&path);
    let mut message = crate::support::Message::new("taxi/7/rides", "{\"n\":1}");
    message.properties.push(("site".to_owned(), "north".to_owned()));
    runtime.block_on(crate::support::publish(&broker.url(), vec![message]));
    until("the row", || (!seen.lock().expect("seen").is_empty()).then_some(()));
    let row = seen.lock().expect("seen")[0].1.clone();
    assert_eq!(row, serde_json::json!({"n": 1, "topic": "taxi/7/rides", "site": "north", "absent": null, "qos": 1}));
    forebay.stop();
}

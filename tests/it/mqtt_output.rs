//! The MQTT output against mosquitto: each row goes to a topic of its own, several rows share a message, and a bad row
//! is found in its batch.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "mqtt_output/receipts.rs"]
mod receipts;

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use expect_test::expect;
use forebay::batch::{Batch, Column, RowMeta, Rows};
use forebay::connections::Connections;
use forebay::diagnostic::Diagnostics;
use forebay::output::{CountedOutput, Delivery, MqttOutputConfig, RowIds};
use forebay::settings::{Problems, Section, document};
use forebay::time::{Clock, Timestamp};
use forebay::value::Value;

use super::harness::{Forebay, until, write};
use super::support::{Message, Mosquitto, Subscriber, publish, succeeds, wait_until, within};
use crate::support::wordless::WordlessBroker;
use crate::support::{dead_letters, runtime};

const IDS: RowIds<'static> =
    RowIds { incarnation: "inc", renewals: &[], statement: "s1", consumer: "statement s1", scorers: None };

/// The settings of a section with a connection of its own.
fn read(url: &str, keys: &str) -> Result<MqttOutputConfig, Diagnostics> {
    read_keys(&format!("url = \"{url}\"\n{keys}\n"))
}

/// The settings of a section.
fn read_keys(text: &str) -> Result<MqttOutputConfig, Diagnostics> {
    let problems = Problems::new("job.toml", text, Path::new(""), false);
    let document = document(text, &[], &problems).unwrap();
    let mut section = Section::root(document.get_ref(), &problems);
    let config = MqttOutputConfig::read(&mut section);
    section.finish();
    let found = problems.into_inner();
    config.filter(|_| !found.has_errors()).ok_or(found)
}

fn output(url: &str, keys: &str) -> CountedOutput {
    let config = read(url, keys).unwrap_or_else(|problems| panic!("{problems}"));
    CountedOutput::build(&config, "job", &|_| Ok("gateway-out".into()), &Connections::default(), Clock::Real).unwrap()
}

/// Rows with a device and a text; offsets count from 0.
fn rows(of: impl IntoIterator<Item = (Value, String)>) -> Rows {
    let mut batch = Batch::new(2);
    for (offset, (device, text)) in (0..).zip(of) {
        batch.push(RowMeta::new(Timestamp::MIN, Timestamp::MIN, offset, 0), [device, Value::text(text)]);
    }
    let column = |name: &str| Column { name: name.into(), spread: false };
    Rows { columns: [column("deviceId"), column("v")].into(), batch }
}

async fn deliver(output: &mut CountedOutput, rows: &Rows) -> Vec<(usize, String)> {
    loop {
        match within("the delivery ends", output.deliver(rows, IDS)).await {
            Delivery::TryAgain { .. } => {}
            Delivery::Delivered => return Vec::new(),
            Delivery::Rejected { rows } => return rows,
            other @ Delivery::Gone { .. } => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn each_row_goes_to_its_own_topic_or_to_none() {
    let broker = Mosquitto::start();
    let mut subscriber = Subscriber::start(&broker.url(), "#").await;
    let mut output = output(&broker.url(), "topic = \"plant/{DeviceID}/alarm\"");
    let texts = ["press", "a/b", "+", "#", "\0", "", "\u{ffff}"].map(Value::text);
    let devices = texts.into_iter().chain([Value::Null, Value::BigInt(7)]);
    let rows = rows(devices.map(|device| (device, "x".to_owned())));
    let rejected = deliver(&mut output, &rows).await;
    assert_eq!(
        rejected,
        [
            (5, "the topic needs the column `DeviceID`, which is empty".to_owned()),
            (7, "the topic needs the column `DeviceID`, which is NULL".to_owned())
        ]
    );
    let received = subscriber.wait_for(7).await;
    let levels: Vec<&str> =
        received.topics.iter().map(|t| t.strip_prefix("plant/").unwrap().strip_suffix("/alarm").unwrap()).collect();
    assert_eq!(levels, ["press", "a%2Fb", "%2B", "%23", "%00", "%EF%BF%BF", "7"]);
}

#[tokio::test]
async fn rows_without_a_subscriber_are_counted_apart() {
    let broker = Mosquitto::start();
    let unheard = |output: &CountedOutput| output.stats().without_subscriber.load(Relaxed);
    let mut output = output(&broker.url(), "topic = \"plant/rows\"");
    let two = || rows((0..2).map(|n| (Value::BigInt(n), "x".to_owned())));
    assert_eq!(deliver(&mut output, &two()).await, []);
    assert_eq!((output.stats().delivered.load(Relaxed), unheard(&output)), (2, 2));
    let _subscriber = Subscriber::start(&broker.url(), "plant/#").await;
    assert_eq!(deliver(&mut output, &two()).await, []);
    assert_eq!((output.stats().delivered.load(Relaxed), unheard(&output)), (4, 2));
}

/// Rows of two devices in turn, each with its number as text.
fn in_turn(texts: impl IntoIterator<Item = String>) -> Rows {
    rows(texts.into_iter().enumerate().map(|(i, text)| (Value::text(if i % 2 == 0 { "a" } else { "b" }), text)))
}

#[tokio::test]
async fn a_message_carries_rows_of_its_topic() {
    let broker = Mosquitto::start();
    let mut subscriber = Subscriber::start(&broker.url(), "#").await;
    let keys = "topic = \"t/{deviceId}\"\nbody = \"array\"\nbatch = { rows = 2 }\nrow_id = \"id\"";
    assert_eq!(deliver(&mut output(&broker.url(), keys), &in_turn((0..6).map(|n| n.to_string()))).await, []);
    {
        let received = subscriber.wait_for(4).await;
        let of = |topic: &str| {
            let all = received.topics.iter().zip(&received.payloads).zip(&received.row_counts);
            all.filter(|((t, _), _)| *t == topic).map(|((_, p), n)| (p.clone(), n.clone().unwrap())).collect::<Vec<_>>()
        };
        let row = |device: &str, n: i64| format!(r#"{{"deviceId":"{device}","v":"{n}","id":"inc-s1-{n}-0"}}"#);
        let (first, second) = (format!("[{},{}]", row("a", 0), row("a", 2)), format!("[{}]", row("a", 4)));
        assert_eq!(of("t/a"), [(first.clone(), "2".to_owned()), (second, "1".to_owned())]);
        assert_eq!(of("t/b").len(), 2);
        assert_eq!(received.by_id["inc-s1-0-0"], first, "the id of the first row");
    }
    let keys = "topic = \"lines\"\nbody = \"lines\"\nbatch = { bytes = \"1KiB\" }";
    assert_eq!(
        deliver(&mut output(&broker.url(), keys), &rows((0..3).map(|_| (Value::Null, "x".repeat(400))))).await,
        []
    );
    wait_until("three rows", || subscriber.payloads_at("lines").concat().lines().count() == 3).await;
    assert_eq!(subscriber.payloads_at("lines").iter().map(|p| p.lines().count()).collect::<Vec<_>>(), [2, 1]);
}

/// The texts at a topic in the order of arrival.
fn texts(payloads: &[String]) -> Vec<String> {
    let rows = payloads.iter().flat_map(|p| serde_json::from_str::<Vec<serde_json::Value>>(p).unwrap());
    rows.map(|row| row["v"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_message_that_is_too_large_is_halved_to_the_bad_row() {
    let announced = Mosquitto::start_with("allow_anonymous true\nmax_packet_size 2000\n", |_| {});
    // this one says nothing beforehand and ends the connection
    let silent = Mosquitto::start_with("allow_anonymous true\nmessage_size_limit 1500\n", |_| {});
    for broker in [announced, silent] {
        let subscriber = Subscriber::start(&broker.url(), "#").await;
        let mut output = output(&broker.url(), "topic = \"t/{deviceId}\"\nbody = \"array\"");
        let texts_of = |bad: Option<usize>| {
            (0..80).map(move |n| if Some(n) == bad { "x".repeat(5_000) } else { format!("{n:060}") })
        };
        let rejected = deliver(&mut output, &in_turn(texts_of(Some(17)))).await;
        assert_eq!(rejected.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [17], "{rejected:?}");
        let wanted = |of: usize| {
            texts_of(None)
                .enumerate()
                .filter(|(n, _)| n % 2 == of && *n != 17)
                .map(|(_, text)| text)
                .collect::<Vec<_>>()
        };
        for (topic, of) in [("t/a", 0), ("t/b", 1)] {
            // a message that came through before its confirmation was lost with the connection comes again
            wait_until("all rows but the bad one", || {
                let mut seen = Vec::new();
                for text in texts(&subscriber.payloads_at(topic)) {
                    if !seen.contains(&text) {
                        seen.push(text);
                    }
                }
                seen == wanted(of)
            })
            .await;
        }
        // what the broker takes is found out once
        assert_eq!(deliver(&mut output, &in_turn(texts_of(None))).await, []);
        let opened = output.stats().opened.load(Relaxed);
        assert_eq!(deliver(&mut output, &in_turn(texts_of(None).chain(["last".to_owned()]))).await, []);
        assert_eq!(output.stats().opened.load(Relaxed), opened);
        output.close().await;
    }
}

#[tokio::test]
async fn bad_rows_are_found_without_pauses_between_the_steps() {
    let broker = Mosquitto::start_with("allow_anonymous true\nmessage_size_limit 1500\n", |_| {});
    for keys in ["topic = \"t\"", "topic = \"t\"\nbody = \"lines\""] {
        let mut output = output(&broker.url(), keys);
        let batch = in_turn((0..200).map(|n| if n % 90 == 7 { "x".repeat(5_000) } else { n.to_string() }));
        // after each of these answers the job pauses; the reason of the broker may be lost with the connection twice
        let mut again = 0;
        let rejected = loop {
            match within("the delivery", output.deliver(&batch, IDS)).await {
                Delivery::Rejected { rows } => break rows,
                delivery => assert!(matches!(delivery, Delivery::TryAgain { .. }), "{delivery:?}"),
            }
            again += 1;
        };
        assert_eq!(rejected.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [7, 97, 187]);
        assert!(again <= 2, "{again} pauses");
    }
}

#[tokio::test]
async fn the_bad_row_of_one_statement_is_found_while_another_writes() {
    let broker = Mosquitto::start_with("allow_anonymous true\nmessage_size_limit 1500\n", |_| {});
    for keys in ["topic = \"t\"", "topic = \"t\"\nbody = \"lines\""] {
        let mut output = output(&broker.url(), keys);
        let batch = in_turn((0..20).map(|n| if n == 7 { "x".repeat(5_000) } else { n.to_string() }));
        let other = RowIds { statement: "s2", consumer: "statement s2", ..IDS };
        let mut attempts = 0;
        let rejected = loop {
            match within("an attempt", output.deliver(&batch, IDS)).await {
                Delivery::Rejected { rows } => break rows,
                delivery => assert!(matches!(delivery, Delivery::TryAgain { .. }), "{delivery:?}"),
            }
            attempts += 1;
            assert!(attempts < 20, "it comes to no end");
            assert_eq!(
                within("the other", output.deliver(&in_turn(["small".to_owned()]), other)).await,
                Delivery::Delivered
            );
        };
        assert_eq!(rejected.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [7]);
    }
}

/// MQTT 3.1.1 has no words for it: this broker just closes the connection.
#[tokio::test]
async fn a_row_at_which_the_broker_closes_without_a_word_is_found() {
    let broker = Mosquitto::start_with("allow_anonymous true\nmax_packet_size 2000\n", |_| {});
    for (keys, size) in [("topic = \"t\"", 100), ("topic = \"t\"\nbody = \"lines\"", 300)] {
        let subscriber = Subscriber::start(&broker.url(), "t").await;
        let mut output = output(&broker.url(), &format!("{keys}\nprotocol = \"3.1.1\""));
        let text = |n: usize| if n == 7 || n == 13 { "x".repeat(3_000) } else { format!("{n:0size$}") };
        let rejected = deliver(&mut output, &in_turn((0..20).map(text))).await;
        assert_eq!(rejected.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [7, 13], "{rejected:?}");
        let why = &rejected[0].1;
        assert!(why.contains("closed the connection") && why.contains("topic `t`"), "{why}");
        let good: Vec<String> = (0..20).filter(|n| ![7, 13].contains(n)).map(text).collect();
        wait_until("the good rows", || {
            let all = subscriber.payloads_at("t").join("\n");
            good.iter().all(|text| all.contains(text)) && !all.contains("xxx")
        })
        .await;
        output.close().await;
    }
}

#[tokio::test]
async fn a_topic_at_which_the_broker_closes_waits_behind_the_others() {
    let broker = WordlessBroker::start("t/b").await;
    let mut output = output(&broker.url(), "topic = \"t/{deviceId}\"\nprotocol = \"3.1.1\"");
    let batch = in_turn((0..40).map(|n| n.to_string()));
    let reason = loop {
        match within("an answer", output.deliver(&batch, IDS)).await {
            Delivery::TryAgain { reason, .. } if reason.contains("the rest waits") => break reason,
            delivery => assert!(matches!(delivery, Delivery::TryAgain { .. }), "{delivery:?}"),
        }
    };
    assert!(reason.contains("topic `t/b`, 5 of them are dead letters"), "{reason}");
    // what is left of the batch: rows of the other topic go first
    let tries = within("an answer", output.deliver(&batch, IDS)).await;
    assert!(matches!(tries, Delivery::TryAgain { .. }), "{tries:?}");
    let distinct = |topic: &str| broker.payloads_at(topic).into_iter().collect::<std::collections::BTreeSet<_>>().len();
    wait_until("the other topic", || distinct("t/a") == 20).await;
    broker.allow_all();
    let rejected = deliver(&mut output, &batch).await;
    assert_eq!(rejected.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 3, 5, 7, 9]);
    wait_until("the rest", || distinct("t/b") == 15).await;
    output.close().await;
}

#[test]
fn batches_are_checked_with_the_job() {
    for (keys, word) in [
        ("batch = 5", "expected a table"),
        ("batch = { rows = 5 }", "one row a message"),
        ("body = \"lines\"\nbatch = { rows = 1001 }", "a whole number from 1 to 1000"),
        ("body = \"rows\"", "expected \"array\" or \"lines\" or \"row\""),
    ] {
        let found = read("mqtt://h", &format!("topic = \"t\"\n{keys}")).expect_err(keys).to_string();
        assert!(found.contains(word), "{keys}: {found}");
    }
}

#[test]
fn a_template_is_checked_with_the_job() {
    let problems = |topic: &str| read("mqtt://h", &format!("topic = {topic}")).expect_err(topic).to_string();
    expect![[r#"
        error: `plant/{deviceId/alarm` is no topic here
          --> job.toml:2:16
           |
         2 | topic = "plant/{deviceId/alarm"
           |                ^ no `}` behind it
           = help: write `plant/{deviceId}/alarm`; a brace itself is `{{` or `}}`
    "#]]
    .assert_eq(&problems("\"plant/{deviceId/alarm\""));
    expect![[r#"
        error: `plant/{deviceId}/#` is no topic here
          --> job.toml:2:9
           |
         2 | topic = "plant/{deviceId}/#"
           |         ^^^^^^^^^^^^^^^^^^^^ rows go to one topic, without `+` and `#`
    "#]]
    .assert_eq(&problems("\"plant/{deviceId}/#\""));
}

const JOB: &str = r#"
[job]
name = "plant"
query = "plant.asaql"

[metrics]
listen = "127.0.0.1:0"

[inputs.readings]
type = "mqtt"
url = "URL"
topics = ["in/+"]

[outputs.alarms]
type = "mqtt"
url = "URL"
topic = "plant/{deviceId}/alarm"
"#;

#[test]
fn a_column_that_a_statement_never_has_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "job.toml", &JOB.replace("URL", "mqtt://127.0.0.1:1"));
    let warnings = |query: &str| {
        write(folder.path(), "plant.asaql", query);
        let out = succeeds(folder.path(), &["check", "job.toml"]);
        out.split_once("warning: ").map(|(_, rest)| rest.split("\n\n").next().unwrap().to_owned())
    };
    expect![[r#"
        a statement INTO alarms has no column `deviceId`
           --> job.toml:17:16
            |
         17 | topic = "plant/{deviceId}/alarm"
            |                ^^^^^^^^^^ every row of it becomes a dead letter
            = help: its columns: n"#]]
    .assert_eq(&warnings("SELECT n INTO alarms FROM readings").unwrap());
    assert!(
        warnings("SELECT n, device AS deviceIds INTO alarms FROM readings")
            .unwrap()
            .contains("did you mean `{deviceIds}`?")
    );
    assert_eq!(warnings("SELECT n, deviceid INTO alarms FROM readings"), None);
    assert_eq!(warnings("SELECT * INTO alarms FROM readings"), None);
}

#[test]
fn a_row_without_its_topic_is_a_dead_letter_of_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start();
    write(folder.path(), "plant.asaql", "SELECT deviceId, n INTO alarms FROM readings");
    let job = write(folder.path(), "job.toml", &JOB.replace("URL", &broker.url()));
    let runtime = runtime();
    let mut subscriber = runtime.block_on(Subscriber::start(&broker.url(), "plant/#"));
    let forebay = Forebay::run(&job);
    let payloads = [r#"{"deviceId":"d1","n":1}"#, r#"{"n":2}"#, r#"{"deviceId":"d3","n":3}"#];
    runtime.block_on(publish(&broker.url(), payloads.into_iter().map(|p| Message::new("in/a", p)).collect()));
    assert_eq!(runtime.block_on(subscriber.wait_for(2)).topics, ["plant/d1/alarm", "plant/d3/alarm"]);
    until("the dead letter", || (forebay.metric("forebay_output_dead_lettered_total") == 1.0).then_some(()));
    assert!(forebay.stop().success());
    let letters = dead_letters(folder.path(), "job.toml");
    assert!(letters.contains("the topic needs the column `deviceId`, which is NULL"), "{letters}");
}

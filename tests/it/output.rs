//! MQTT outputs against mosquitto and the embedded broker, and file outputs on disk: rows arrive with their ids and
//! wait while the peer is away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use forebay::batch::{Batch, Column, RowMeta, Rows};
use forebay::connections::Connections;
use forebay::demo::broker::{Broker, BrokerOptions};
use forebay::mqtt::{BrokerConfig, MqttAddress};
use forebay::output::{
    CountedOutput, Delivery, FileOutputConfig, Fsync, MqttOutputConfig, OutputSettings, RowIds, ToldColumns,
    TopicTemplate,
};
use forebay::time::{Clock, TICKS_PER_SECOND, Timestamp};
use forebay::value::Value;

use super::support::{AnyBroker, Mosquitto, Subscriber, wait_until, within};

const IDS: RowIds<'static> =
    RowIds { incarnation: "inc", renewals: &[], statement: "s1", consumer: "statement s1", scorers: None };

/// Rows with one text column `v`; offsets count from `first`.
fn rows(first: i64, values: impl IntoIterator<Item = String>) -> Rows {
    let mut batch = Batch::new(1);
    for (offset, value) in (first..).zip(values) {
        batch.push(RowMeta::new(Timestamp::MIN, Timestamp::MIN, offset, 0), [Value::text(value)]);
    }
    Rows { columns: [Column { name: "v".into(), spread: false }].into(), batch }
}

fn numbered(range: std::ops::Range<i64>) -> Rows {
    rows(range.start, range.map(|n| n.to_string()))
}

fn config(url: &str) -> MqttOutputConfig {
    MqttOutputConfig::new(BrokerConfig::new(MqttAddress::parse(url).unwrap()), TopicTemplate::fixed("scored"))
}

fn build(settings: &dyn OutputSettings) -> CountedOutput {
    CountedOutput::build(settings, "job", &|_| Ok("gateway-out".into()), &Connections::default(), Clock::Real).unwrap()
}

fn file_output_at(config: FileOutputConfig, clock: Clock) -> CountedOutput {
    CountedOutput::build(&config, "job", &|_| Err("a file has no client id".into()), &Connections::default(), clock)
        .unwrap()
}

/// Gives rows until they are through; the number of attempts that failed, and the reasons.
async fn deliver(output: &mut CountedOutput, rows: &Rows) -> (Delivery, Vec<String>) {
    let mut reasons = Vec::new();
    loop {
        match within("the delivery ends", output.deliver(rows, IDS)).await {
            Delivery::TryAgain { reason, .. } => reasons.push(reason),
            delivery => return (delivery, reasons),
        }
    }
}

async fn rows_arrive(broker: AnyBroker) {
    let mut subscriber = Subscriber::start(&broker.url(), "scored").await;
    let mut output = build(&MqttOutputConfig { told: ToldColumns::id("id"), ..config(&broker.url()) });
    assert_eq!(deliver(&mut output, &numbered(0..1000)).await, (Delivery::Delivered, vec![]));
    {
        let received = subscriber.wait_for(1000).await;
        assert_eq!(received.messages, 1000);
        assert_eq!(received.by_id["inc-s1-7-0"], r#"{"v":"7","id":"inc-s1-7-0"}"#);
    }
    assert_eq!(output.stats().delivered.load(Relaxed), 1000);
    output.close().await;
}

#[tokio::test]
async fn rows_arrive_with_their_ids_at_mosquitto() {
    rows_arrive(AnyBroker::mosquitto()).await;
}

#[tokio::test]
async fn rows_arrive_with_their_ids_at_the_demo_broker() {
    rows_arrive(AnyBroker::demo().await).await;
}

async fn outage(mut broker: AnyBroker) {
    let mut subscriber = Subscriber::start(&broker.url(), "scored").await;
    let mut output = build(&config(&broker.url()));
    deliver(&mut output, &numbered(0..10)).await.0.eq(&Delivery::Delivered).then_some(()).unwrap();
    broker.stop().await;
    let batch = numbered(10..20);
    let mut reasons = Vec::new();
    for _ in 0..4 {
        match within("an answer", output.deliver(&batch, IDS)).await {
            Delivery::TryAgain { reason, .. } => reasons.push(reason),
            other => panic!("{other:?}"),
        }
    }
    assert!(reasons[3].contains("start the broker"), "{reasons:?}");
    broker.start_again().await;
    assert_eq!(deliver(&mut output, &batch).await.0, Delivery::Delivered);
    let received = subscriber.wait_for(20).await;
    assert_eq!(received.by_id.len(), 20);
}

#[tokio::test]
async fn rows_wait_while_mosquitto_is_down() {
    outage(AnyBroker::mosquitto()).await;
}

#[tokio::test]
async fn rows_wait_while_the_demo_broker_is_down() {
    outage(AnyBroker::demo().await).await;
}

#[tokio::test]
async fn a_row_whose_puback_was_lost_is_repeated_and_the_others_are_not() {
    let broker = Broker::start().await.unwrap();
    let mut subscriber = Subscriber::start(&broker.url(), "scored").await;
    let mut output = build(&config(&broker.url()));
    assert_eq!(deliver(&mut output, &numbered(0..1)).await.0, Delivery::Delivered);
    broker.misbehave(|f| f.lose_pubacks = 3);
    let (delivery, reasons) = deliver(&mut output, &numbered(1..4)).await;
    assert_eq!((delivery, reasons.len()), (Delivery::Delivered, 1));
    {
        let received = subscriber.wait_for(4).await;
        assert_eq!(received.by_id.len(), 4);
    }
    // three were taken without a confirmation and came again
    wait_until("all are taken", || broker.stats().received == 1 + 3 + 3).await;

    broker.misbehave(|f| f.lose_pubacks = 1);
    let before = broker.stats().received;
    let (delivery, reasons) = deliver(&mut output, &numbered(4..5)).await;
    assert_eq!((delivery, reasons.len()), (Delivery::Delivered, 1));
    assert_eq!(broker.stats().received - before, 2);
}

#[tokio::test]
async fn many_rows_are_under_way_at_once() {
    let broker = Broker::start().await.unwrap();
    broker.misbehave(|f| f.puback_delay = Duration::from_secs(3600));
    let mut output = build(&config(&broker.url()));
    let batch = numbered(0..200);
    tokio::select! {
        delivery = output.deliver(&batch, IDS) => panic!("nothing was confirmed: {delivery:?}"),
        () = wait_until("all rows are at the broker before one is confirmed", || broker.stats().received == 200) => {}
    }
}

#[tokio::test]
async fn a_broker_that_confirms_nothing_is_left() {
    let broker = Broker::start().await.unwrap();
    broker.misbehave(|f| f.puback_delay = Duration::from_secs(3600));
    let mut output = build(&MqttOutputConfig { puback_timeout: Duration::from_millis(50), ..config(&broker.url()) });
    let Delivery::TryAgain { reason, .. } = output.deliver(&numbered(0..2), IDS).await else {
        panic!("nothing was confirmed")
    };
    assert!(reason.contains("did not confirm a row to topic"), "{reason}");
    broker.misbehave(|f| f.puback_delay = Duration::ZERO);
    assert_eq!(deliver(&mut output, &numbered(0..2)).await.0, Delivery::Delivered);
}

#[tokio::test]
async fn rows_too_large_for_the_broker_are_rejected_and_the_others_pass() {
    let options = BrokerOptions { packet_bytes_max: Some(2_000), ..Default::default() };
    let demo = Broker::start_with(options).await.unwrap();
    let announced = Mosquitto::start_with("allow_anonymous true\nmax_packet_size 2000\n", |_| {});
    // this one says nothing beforehand and refuses with a reason code that MQTT does not define for it
    let silent = Mosquitto::start_with("allow_anonymous true\nmessage_size_limit 1500\n", |_| {});
    for url in [demo.url(), announced.url(), silent.url()] {
        let mut output = build(&config(&url));
        let values = ["a".to_owned(), "b".repeat(5_000), "c".to_owned(), "d".repeat(1_000)];
        let (delivery, _) = deliver(&mut output, &rows(0, values)).await;
        let Delivery::Rejected { rows } = delivery else { panic!("{url}: {delivery:?}") };
        assert_eq!(rows.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1], "{rows:?}");
        assert_eq!((output.stats().delivered.load(Relaxed), output.stats().rejected.load(Relaxed)), (3, 1));
    }
    let mut small = config(&demo.url());
    small.batch.bytes = 100;
    let mut output = build(&small);
    let (delivery, _) = deliver(&mut output, &rows(0, ["x".repeat(101)])).await;
    assert!(
        matches!(&delivery, Delivery::Rejected { rows } if rows[0].1.contains("over the 100 of `batch.bytes`")),
        "{delivery:?}"
    );
}

#[tokio::test]
async fn a_topic_that_is_not_ours_says_so_and_the_row_stays() {
    let broker = Mosquitto::start_with("allow_anonymous true\nacl_file {}/acl\n", |folder| {
        fs::write(folder.join("acl"), "topic read scored\n").unwrap();
    });
    let mut output = build(&config(&broker.url()));
    let Delivery::TryAgain { reason, .. } = output.deliver(&numbered(0..2), IDS).await else { panic!("not allowed") };
    assert!(reason.contains("access rules"), "{reason}");
}

fn file_output(config: FileOutputConfig) -> CountedOutput {
    file_output_at(config, Clock::Real)
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

fn line(n: i64) -> String {
    format!(r#"{{"v":"{n}"}}"#)
}

/// Names in a folder other than `rows.jsonl`, in order.
fn rotated(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|n| n != "rows.jsonl");
    names.sort();
    names
}

#[tokio::test]
async fn files_get_one_line_a_row_with_every_fsync_policy() {
    let folder = tempfile::tempdir().unwrap();
    for (i, fsync) in [Fsync::Always, Fsync::Interval(Duration::ZERO), Fsync::Never].into_iter().enumerate() {
        let path = folder.path().join(i.to_string());
        for first in [0, 2] {
            let mut output =
                file_output(FileOutputConfig { fsync, told: ToldColumns::id("id"), ..FileOutputConfig::new(&path) });
            assert_eq!(output.deliver(&numbered(first..first + 1), IDS).await, Delivery::Delivered);
            assert_eq!(output.deliver(&numbered(first + 1..first + 2), IDS).await, Delivery::Delivered);
            output.close().await;
        }
        assert_eq!(lines(&path), (0..4).map(|n| format!(r#"{{"v":"{n}","id":"inc-s1-{n}-0"}}"#)).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn files_rotate_by_size_and_old_ones_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    let stranger = folder.path().join("rows.20260101T000000Z-00x.jsonl");
    fs::write(&stranger, "not ours").unwrap();
    let clock = Clock::manual(Timestamp::parse("2026-01-02T03:04:05Z").unwrap());
    let config = FileOutputConfig { rotate_bytes: Some(25), keep_files: Some(2), ..FileOutputConfig::new(&path) };
    let mut output = file_output_at(config, clock.clone());
    for n in 0..9 {
        // two rows of ten bytes and their line ends fit
        assert_eq!(output.deliver(&numbered(n..n + 1), IDS).await, Delivery::Delivered);
    }
    assert_eq!(lines(&path), [line(8)]);
    let names = rotated(folder.path());
    assert_eq!(
        names,
        ["rows.20260101T000000Z-00x.jsonl", "rows.20260102T030405Z-002.jsonl", "rows.20260102T030405Z-003.jsonl"]
    );
    assert_eq!(lines(&folder.path().join(&names[2])), [line(6), line(7)]);
    // one batch larger than a file has one of its own
    assert_eq!(output.deliver(&numbered(100..120), IDS).await, Delivery::Delivered);
    assert_eq!(lines(&path).len(), 20);
}

#[tokio::test]
async fn files_rotate_by_the_clock() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    let start = Timestamp::parse("2026-01-02T03:59:58Z").unwrap();
    let clock = Clock::manual(start);
    let config = FileOutputConfig { rotate_interval: Some(Duration::from_secs(3600)), ..FileOutputConfig::new(&path) };
    let mut output = file_output_at(config, clock.clone());
    for n in 0..4 {
        clock.set(start.saturating_add(n * TICKS_PER_SECOND));
        assert_eq!(output.deliver(&numbered(n..n + 1), IDS).await, Delivery::Delivered);
    }
    assert_eq!(rotated(folder.path()), ["rows.20260102T040000Z-000.jsonl"]);
    assert_eq!(lines(&path), [line(2), line(3)]);
}

#[tokio::test]
async fn a_half_written_last_line_is_cut_off_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let whole = line(1) + "\n";
    for (name, content, expected, repaired) in [
        ("half", format!("{whole}{{\"v\":\"x"), vec![line(1), line(9)], 1),
        ("zeros", format!("{whole}\0\0\0"), vec![line(1), line(9)], 1),
        ("only", "{\"v".to_owned(), vec![line(9)], 1),
        ("long", format!("{whole}{{\"v\":\"{}", "x".repeat(100_000)), vec![line(1), line(9)], 1),
        ("no-line-end", line(1), vec![line(1), line(9)], 0),
        ("clean", whole.clone(), vec![line(1), line(9)], 0),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        let mut output = file_output(FileOutputConfig::new(&path));
        assert_eq!(output.deliver(&numbered(9..10), IDS).await, Delivery::Delivered, "{name}");
        assert_eq!(lines(&path), expected, "{name}");
        assert_eq!(output.stats().repaired.load(Relaxed), repaired, "{name}");
    }
}

#[tokio::test]
async fn a_file_that_holds_something_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [("notes", "dear diary"), ("mixed", "dear diary\n{\"v"), ("other", "{\"v\":1}\nhello")] {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        let mut output = file_output(FileOutputConfig::new(&path));
        let Delivery::TryAgain { reason, .. } = output.deliver(&numbered(0..1), IDS).await else {
            panic!("{name} was changed")
        };
        assert!(reason.contains("choose another path"), "{reason}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
}

#[tokio::test]
async fn what_stands_in_the_way_of_a_file_is_named_and_overcome() {
    let mut output = file_output(FileOutputConfig::new("/dev/full"));
    let Delivery::TryAgain { reason, .. } = output.deliver(&numbered(0..1), IDS).await else {
        panic!("there is no room")
    };
    assert!(reason.contains("no space left"), "{reason}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("later/rows.jsonl");
    let mut output = file_output(FileOutputConfig::new(&path));
    let Delivery::TryAgain { reason, .. } = output.deliver(&numbered(0..1), IDS).await else {
        panic!("there is no folder")
    };
    assert!(reason.contains("create the folder"), "{reason}");
    fs::create_dir(folder.path().join("later")).unwrap();
    assert_eq!(output.deliver(&numbered(0..1), IDS).await, Delivery::Delivered);
    assert_eq!(lines(&path), [line(0)]);

    let mut second = file_output(FileOutputConfig::new(&path));
    let Delivery::TryAgain { reason, .. } = second.deliver(&numbered(1..2), IDS).await else { panic!("two writers") };
    assert!(reason.contains("another process"), "{reason}");
    output.close().await;
    assert_eq!(second.deliver(&numbered(1..2), IDS).await, Delivery::Delivered);
}

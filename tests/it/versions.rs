//! MQTT 3.1.1 beside 5: against mosquitto, and against brokers that do not get along with MQTT 5.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay::batch::{Batch, Column, RowMeta, Rows};
use forebay::connections::Connections;
use forebay::mqtt::{BrokerConfig, MqttAddress, Protocol};
use forebay::output::{CountedOutput, Delivery, MqttOutputConfig, RowIds, ToldColumns, TopicTemplate};
use forebay::source::{Acknowledge, Arrivals, Arrived, Identity, MqttSource, MqttSourceConfig, RecentRecord, Source};
use forebay::time::{Clock, Timestamp};
use forebay::value::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::Receiver;

use crate::harness::{Forebay, until};
use crate::support::{
    Mosquitto, assert_pool_is_good, publish_numbers, runtime, wait_for_alarm, wait_until, within, write_job,
};

const IDS: RowIds<'static> =
    RowIds { incarnation: "inc", renewals: &[], statement: "s1", consumer: "statement s1", scorers: None };

fn broker(url: &str, protocol: Option<Protocol>) -> BrokerConfig {
    BrokerConfig { protocol, ..BrokerConfig::new(MqttAddress::parse(url).unwrap()) }
}

fn start(
    url: &str,
    protocol: Option<Protocol>,
    topic: &str,
    recent: Vec<RecentRecord>,
) -> (MqttSource, Receiver<Arrivals>) {
    let config = MqttSourceConfig::new(broker(url, protocol), vec![topic.to_owned()]);
    let identity = Identity { name: "gateway".into(), is_known: !recent.is_empty() };
    MqttSource::start(config, identity, recent, true, Clock::Real)
}

async fn connected(source: &MqttSource) {
    let stats = source.stats().clone();
    wait_until("the source is subscribed", || stats.is_connected()).await;
}

async fn take(arrivals: &mut Receiver<Arrivals>, n: usize) -> (Vec<Arrived>, Vec<Box<dyn Acknowledge>>) {
    let (mut messages, mut tokens) = (Vec::new(), Vec::new());
    while messages.len() < n {
        let batch = within("messages arrive", arrivals.recv()).await.expect("the source goes on");
        messages.extend(batch.messages);
        tokens.push(batch.ack);
    }
    (messages, tokens)
}

fn numbers(messages: &[Arrived]) -> Vec<i64> {
    let number = |m: &Arrived| serde_json::from_slice::<serde_json::Value>(&m.payload).unwrap()["n"].as_i64().unwrap();
    messages.iter().map(number).collect()
}

fn rows(numbers: std::ops::Range<i64>) -> Rows {
    let mut batch = Batch::new(1);
    for n in numbers {
        batch.push(RowMeta::new(Timestamp::MIN, Timestamp::MIN, n, 0), [Value::BigInt(n)]);
    }
    Rows { columns: [Column { name: "n".into(), spread: false }].into(), batch }
}

fn output(url: &str, protocol: Option<Protocol>) -> CountedOutput {
    let config = MqttOutputConfig {
        told: ToldColumns::id("id"),
        ..MqttOutputConfig::new(broker(url, protocol), TopicTemplate::fixed("scored"))
    };
    CountedOutput::build(&config, "job", &|_| Ok("gateway-out".into()), &Connections::default(), Clock::Real).unwrap()
}

/// Delivers until it is through; why attempts failed.
async fn deliver(output: &mut CountedOutput, rows: &Rows) -> Vec<String> {
    let mut reasons = Vec::new();
    loop {
        match within("the delivery ends", output.deliver(rows, IDS)).await {
            Delivery::TryAgain { reason, .. } => reasons.push(reason),
            Delivery::Delivered => return reasons,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_session_in_3_1_1_resumes_where_the_acknowledgements_ended() {
    let mosquitto = Mosquitto::start();
    let (source, mut arrivals) = start(&mosquitto.url(), Some(Protocol::V311), "t/#", vec![]);
    connected(&source).await;
    publish_numbers(&mosquitto.url(), "t/a", 0..10).await;
    let (first, tokens) = take(&mut arrivals, 10).await;
    assert_eq!(numbers(&first), (0..10).collect::<Vec<_>>());
    assert_eq!((first[0].message.name.as_str(), first[0].message.fact("qos")), ("t/a", Some("1")));
    // a kill between commit and acknowledgement: the journal has half of them, the broker knows of none
    drop(source);
    tokens.into_iter().for_each(std::mem::forget);
    drop(arrivals);
    publish_numbers(&mosquitto.url(), "t/a", 10..15).await;

    let stored = first[..5].iter().map(|m| RecentRecord { mark: m.mark, name: &m.message.name, payload: &m.payload });
    let (source, mut arrivals) = start(&mosquitto.url(), Some(Protocol::V311), "t/#", stored.collect());
    let (second, tokens) = take(&mut arrivals, 10).await;
    assert_eq!(numbers(&second), (5..15).collect::<Vec<_>>());
    tokens.into_iter().for_each(|token| token.stored());
    assert_eq!(source.stats().redelivered.load(Relaxed), 5);
    source.stop().await;

    let (source, mut arrivals) = start(&mosquitto.url(), Some(Protocol::V311), "t/#", vec![]);
    publish_numbers(&mosquitto.url(), "t/a", 15..16).await;
    let (third, tokens) = take(&mut arrivals, 1).await;
    assert_eq!(numbers(&third), [15], "everything before was acknowledged");
    tokens.into_iter().for_each(|token| token.stored());
    source.stop().await;
}

#[tokio::test]
async fn rows_leave_in_3_1_1_with_their_id_as_a_column() {
    let mosquitto = Mosquitto::start();
    let (source, mut arrivals) = start(&mosquitto.url(), None, "scored", vec![]);
    connected(&source).await;
    let mut output = output(&mosquitto.url(), Some(Protocol::V311));
    assert!(deliver(&mut output, &rows(0..1000)).await.is_empty());
    let (got, tokens) = take(&mut arrivals, 1000).await;
    assert_eq!(numbers(&got), (0..1000).collect::<Vec<_>>());
    assert_eq!(&got[7].payload[..], br#"{"n":7,"id":"inc-s1-7-0"}"#);
    assert!(got[7].message.properties.is_empty());
    tokens.into_iter().for_each(|token| token.stored());
    output.close().await;
    source.stop().await;
}

/// How a broker fails in MQTT 5.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fails {
    /// With the CONNACK of 3.1.1 that says "unacceptable protocol version".
    Refuses,
    /// With that of 5: reason code 0x84.
    RefusesIn5,
    /// It closes the connection instead of a CONNACK.
    Closes,
    /// It answers a publish with a reason code that MQTT 5 does not have.
    Answers,
}

/// A broker that does not get along with MQTT 5, and is mosquitto otherwise.
struct OldBroker {
    url: String,
    /// The protocol levels of the connections, in order.
    levels: Arc<Mutex<Vec<u8>>>,
    task: tokio::task::JoinHandle<()>,
}

impl OldBroker {
    async fn start(fails: Fails, behind: u16) -> OldBroker {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("mqtt://{}", listener.local_addr().unwrap());
        let levels: Arc<Mutex<Vec<u8>>> = Arc::default();
        let seen = levels.clone();
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(client, fails, behind, seen.clone()));
            }
        });
        OldBroker { url, levels, task }
    }

    fn levels(&self) -> Vec<u8> {
        self.levels.lock().unwrap().clone()
    }
}

impl Drop for OldBroker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, fails: Fails, behind: u16, seen: Arc<Mutex<Vec<u8>>>) {
    let Some(connect) = packet(&mut client).await else { return };
    // the name of the protocol stands before its level
    let level = connect[connect.windows(4).position(|w| w == b"MQTT").expect("a CONNECT") + 4];
    seen.lock().unwrap().push(level);
    match (level, fails) {
        (5, Fails::Refuses) => client.write_all(&[0x20, 2, 0, 1]).await.unwrap(),
        (5, Fails::RefusesIn5) => client.write_all(&[0x20, 3, 0, 0x84, 0]).await.unwrap(),
        (5, Fails::Closes) => {}
        _ => {
            let mut broker = TcpStream::connect(("127.0.0.1", behind)).await.unwrap();
            broker.write_all(&connect).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_broker, mut to_broker) = broker.into_split();
            let up = async {
                let _ = tokio::io::copy(&mut from_client, &mut to_broker).await;
            };
            let down = async {
                while let Some(mut packet) = packet(&mut from_broker).await {
                    if level == 5 && packet[0] == 0x40 {
                        // packet id, then a code
                        packet = vec![0x40, 3, packet[2], packet[3], 1];
                    }
                    if to_client.write_all(&packet).await.is_err() {
                        break;
                    }
                }
            };
            tokio::select! {
                () = up => {}
                () = down => {}
            }
        }
    }
}

/// The next packet, whole.
async fn packet(from: &mut (impl AsyncReadExt + Unpin)) -> Option<Vec<u8>> {
    let mut packet = vec![from.read_u8().await.ok()?];
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let byte = from.read_u8().await.ok()?;
        packet.push(byte);
        length |= usize::from(byte & 127) << shift;
        shift += 7;
        if byte < 128 {
            break;
        }
    }
    let head = packet.len();
    packet.resize(head + length, 0);
    from.read_exact(&mut packet[head..]).await.ok()?;
    Some(packet)
}

#[tokio::test]
async fn a_source_goes_on_in_3_1_1_where_the_broker_does_not_take_5() {
    for (fails, levels) in
        [(Fails::Refuses, vec![5, 4]), (Fails::RefusesIn5, vec![5, 4]), (Fails::Closes, vec![5, 5, 4])]
    {
        let mosquitto = Mosquitto::start();
        let old = OldBroker::start(fails, mosquitto.port).await;
        let (source, mut arrivals) = start(&old.url, None, "t/#", vec![]);
        connected(&source).await;
        assert_eq!(old.levels(), levels, "{fails:?}");
        publish_numbers(&mosquitto.url(), "t/a", 0..5).await;
        let (got, tokens) = take(&mut arrivals, 5).await;
        assert_eq!(numbers(&got), (0..5).collect::<Vec<_>>());
        tokens.into_iter().for_each(|token| token.stored());
        assert_eq!(source.stats().alarm(), None);
        source.stop().await;
    }
}

#[tokio::test]
async fn an_output_goes_on_in_3_1_1_where_the_broker_does_not_take_5_or_answers_wrongly() {
    for (fails, levels) in [
        (Fails::Refuses, vec![5, 4]),
        (Fails::RefusesIn5, vec![5, 4]),
        (Fails::Closes, vec![5, 5, 4]),
        (Fails::Answers, vec![5, 4]),
    ] {
        let mosquitto = Mosquitto::start();
        let old = OldBroker::start(fails, mosquitto.port).await;
        let (source, mut arrivals) = start(&mosquitto.url(), None, "scored", vec![]);
        connected(&source).await;
        let mut output = output(&old.url, None);
        deliver(&mut output, &rows(0..200)).await;
        assert!(deliver(&mut output, &rows(200..400)).await.is_empty(), "{fails:?}: and it stays with that");
        assert_eq!(old.levels(), levels, "{fails:?}");
        let mut got = BTreeSet::new();
        while got.len() < 400 {
            let (messages, tokens) = take(&mut arrivals, 1).await;
            got.extend(numbers(&messages));
            tokens.into_iter().for_each(|token| token.stored());
        }
        assert_eq!(got, (0..400).collect());
        source.stop().await;
    }
}

#[tokio::test]
async fn a_version_that_is_named_is_kept_and_what_is_wrong_is_told() {
    let mosquitto = Mosquitto::start();
    let old = OldBroker::start(Fails::Refuses, mosquitto.port).await;
    let (source, _arrivals) = start(&old.url, Some(Protocol::V5), "t/#", vec![]);
    let stats = source.stats().clone();
    wait_for_alarm(&stats, &["does not speak MQTT 5", "`protocol`"]).await;
    wait_until("another attempt", || old.levels().len() > 2).await;
    assert!(old.levels().iter().all(|level| *level == 5));
    source.stop().await;
}

#[tokio::test]
async fn a_server_of_http_is_told_from_a_broker() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("mqtt://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        loop {
            let mut stream = listener.accept().await.unwrap().0;
            let _ = stream.read(&mut [0; 1_000]).await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
        }
    });
    for protocol in [None, Some(Protocol::V5), Some(Protocol::V311)] {
        let (source, _arrivals) = start(&url, protocol, "t/#", vec![]);
        let stats = source.stats().clone();
        wait_until("the alarm", || stats.alarm().is_some()).await;
        let alarm = stats.alarm().unwrap();
        assert!(alarm.contains("is no MQTT broker, it answers in HTTP: correct the port in `url`"), "{alarm}");
        source.stop().await;
    }
    serving.abort();
}

#[tokio::test]
async fn a_broker_that_restarts_is_not_taken_for_an_old_one() {
    let mut mosquitto = Mosquitto::start();
    let old = OldBroker::start(Fails::Answers, mosquitto.port).await;
    let (source, mut arrivals) = start(&old.url, None, "t/#", vec![]);
    connected(&source).await;
    // the door stays open while nobody is behind it: connections are closed before they are accepted
    mosquitto.stop();
    wait_until("several attempts", || old.levels().len() > 4).await;
    mosquitto.start_again();
    connected(&source).await;
    publish_numbers(&mosquitto.url(), "t/a", 0..1).await;
    let (_, tokens) = take(&mut arrivals, 1).await;
    tokens.into_iter().for_each(|token| token.stored());
    assert!(old.levels().iter().all(|level| *level == 5), "{:?}", old.levels());
    source.stop().await;
}

#[test]
fn a_job_in_3_1_1_loses_nothing_by_a_kill() {
    let dir = tempfile::tempdir().expect("a folder");
    let mosquitto = Mosquitto::start();
    let runtime = runtime();
    let text = format!(
        "[job]\nname = \"old\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n[inputs.a]\n\
        type = \"mqtt\"\nurl = \"{0}\"\n\
         protocol = \"3.1.1\"\ntopics = [\"a/+\"]\n[outputs.out]\ntype = \"mqtt\"\nurl = \"{0}\"\n\
         protocol = \"3.1.1\"\ntopic = \"scored\"\n\
         row_id = \"id\"\n",
        mosquitto.url()
    );
    let path = write_job(dir.path(), &text, "SELECT n INTO out FROM a");
    let (receiver, mut arrivals) = runtime.block_on(async {
        let (source, arrivals) = start(&mosquitto.url(), None, "scored", vec![]);
        connected(&source).await;
        (source, arrivals)
    });
    for round in 0..3 {
        let forebay = Forebay::run(&path);
        runtime.block_on(publish_numbers(&mosquitto.url(), "a/1", round * 500..round * 500 + 500));
        until("something is stored", || (forebay.metric("forebay_input_stored_total") > 0.0).then_some(()));
        forebay.kill();
    }
    let forebay = Forebay::run(&path);
    let (mut ids, mut got) = (BTreeSet::new(), BTreeSet::new());
    runtime.block_on(async {
        while got.len() < 1500 {
            let (messages, tokens) = take(&mut arrivals, 1).await;
            for message in &messages {
                let row: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
                ids.insert(row["id"].as_str().unwrap().to_owned());
                got.insert(row["n"].as_i64().unwrap());
            }
            tokens.into_iter().for_each(|token| token.stored());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        receiver.stop().await;
    });
    assert_eq!(got, (0..1500).collect());
    let possible = forebay.metric("forebay_source_redelivered_possible_total");
    assert!(ids.len() as f64 <= 1500.0 + possible, "{} ids, {possible} possible redeliveries", ids.len());
    forebay.stop();
    assert_pool_is_good(dir.path());
}

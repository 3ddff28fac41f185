//! The MQTT source against real and misbehaving brokers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use forebay::demo::broker::{Broker, BrokerOptions};
use forebay::diagnostic::Span;
use forebay::mqtt::{BrokerConfig, MqttAddress, Protocol, Qos};
use forebay::settings::Secret;
use forebay::source::{Acknowledge, Arrivals, Arrived, Identity, MqttSource, MqttSourceConfig, RecentRecord, Source};
use forebay::time::{Clock, Timestamp};
use tokio::sync::mpsc::Receiver;

use super::support::{AnyBroker, Message, Mosquitto, openssl, publish, publish_numbers, wait_until, within};

fn config(url: &str, topics: &[&str]) -> MqttSourceConfig {
    let broker =
        BrokerConfig { client_id: Some("gateway".into()), ..BrokerConfig::new(MqttAddress::parse(url).unwrap()) };
    MqttSourceConfig::new(broker, topics.iter().map(|t| t.to_string()).collect())
}

fn identity(config: &MqttSourceConfig, is_known: bool) -> Identity {
    Identity { name: config.broker.client_id.clone().unwrap(), is_known }
}

fn start(config: MqttSourceConfig) -> (MqttSource, Receiver<Arrivals>) {
    let identity = identity(&config, false);
    MqttSource::start(config, identity, [], true, Clock::Real)
}

/// A source that is connected and subscribed.
async fn started(config: MqttSourceConfig) -> (MqttSource, Receiver<Arrivals>) {
    let probe = config.broker.address.url();
    let filter = config.topics[0].replace(['+', '#'], "probe");
    let (source, mut arrivals) = start(config);
    // the only sure sign of a subscription is a message that comes through
    publish(&probe, vec![Message::new(&filter, "probe")]).await;
    loop {
        match tokio::time::timeout(Duration::from_millis(200), arrivals.recv()).await {
            Ok(Some(arrived)) if arrived.messages.iter().any(|m| &m.payload[..] == b"probe") => {
                arrived.ack.stored();
                return (source, arrivals);
            }
            Ok(Some(_)) => panic!("a message nobody sent"),
            Ok(None) => panic!("the source ended"),
            Err(_) => publish(&probe, vec![Message::new(&filter, "probe")]).await,
        }
    }
}

/// The next batches, until there are `n` messages; probes are stored and skipped.
async fn take(arrivals: &mut Receiver<Arrivals>, n: usize) -> (Vec<Arrived>, Vec<Box<dyn Acknowledge>>) {
    let (mut messages, mut tokens) = (Vec::new(), Vec::new());
    while messages.len() < n {
        let batch = within("messages arrive", arrivals.recv()).await.expect("the source goes on");
        messages.extend(batch.messages.into_iter().filter(|m| &m.payload[..] != b"probe"));
        tokens.push(batch.ack);
    }
    (messages, tokens)
}

fn store(tokens: Vec<Box<dyn Acknowledge>>) {
    tokens.into_iter().for_each(|token| token.stored());
}

fn numbers(messages: &[Arrived]) -> Vec<i64> {
    let number = |m: &Arrived| {
        String::from_utf8_lossy(&m.payload).trim_start_matches(r#"{"n":"#).trim_end_matches('}').parse().unwrap()
    };
    messages.iter().map(number).collect()
}

fn recent(messages: &[Arrived]) -> Vec<RecentRecord<'_>> {
    messages.iter().map(|m| RecentRecord { mark: m.mark, name: &m.message.name, payload: &m.payload }).collect()
}

/// Makes a test of a function over either broker.
macro_rules! with_both_brokers {
    ($($name:ident => $body:expr;)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test]
            async fn mosquitto() {
                $body(AnyBroker::mosquitto()).await;
            }

            #[tokio::test]
            async fn demo_broker() {
                $body(AnyBroker::demo().await).await;
            }
        }
    )*};
}

with_both_brokers! {
    messages_arrive_with_topic_and_properties => topic_and_properties;
    a_fresh_process_resumes_the_session => resume;
    a_lost_session_is_subscribed_again => lost_session;
    a_restart_of_the_broker_loses_nothing_acknowledged => restart;
    a_broker_may_come_up_later => later;
    a_dropped_token_brings_the_messages_back => dropped_token;
    other_topics_take_effect_in_a_kept_session => other_topics;
    stopping_acknowledges_what_was_handed_over => stop;
    a_stop_waits_until_the_broker_has_read_the_acknowledgements => stop_after_many;
}

#[tokio::test]
async fn a_stop_waits_so_in_mqtt_3_1_1_as_well() {
    let broker = Mosquitto::start();
    let mut config = config(&broker.url(), &["t/#"]);
    config.broker.protocol = Some(Protocol::V311);
    stop_and_start(config).await;
}

async fn topic_and_properties(broker: AnyBroker) {
    let clock = Clock::manual(Timestamp::parse("2026-02-03T04:05:06Z").unwrap());
    let config = config(&broker.url(), &["fleet/+/rides", "plain/#"]);
    let identity = identity(&config, false);
    let (source, mut arrivals) = MqttSource::start(config, identity, [], true, clock);
    wait_until("connected", || source.stats().is_connected()).await;
    let mut ride = Message::new("fleet/7/rides", r#"{"n":1}"#);
    ride.properties = vec![("site".into(), "north".into()), ("site".into(), "again".into())];
    let mut fast = Message::new("plain", r#"{"n":3}"#);
    fast.qos = 0;
    // subscribed once a message comes through
    let mut all = Vec::new();
    while all.is_empty() {
        publish(&broker.url(), vec![Message::new("plain/x", r#"{"n":0}"#)]).await;
        if let Ok(Some(batch)) = tokio::time::timeout(Duration::from_millis(200), arrivals.recv()).await {
            all.extend(batch.messages);
            batch.ack.stored();
        }
    }
    publish(
        &broker.url(),
        vec![ride, Message::new("fleet/7/other", "x"), Message::new("plain/a/b", r#"{"n":2}"#), fast],
    )
    .await;
    let mut got = Vec::new();
    while !got.iter().any(|m: &Arrived| m.message.name == "plain") {
        let (messages, tokens) = take(&mut arrivals, 1).await;
        store(tokens);
        got.extend(messages.into_iter().filter(|m| &m.payload[..] != br#"{"n":0}"#));
    }
    assert_eq!(numbers(&got), [1, 2, 3]);
    assert_eq!(got[0].message.name, "fleet/7/rides");
    assert_eq!(got[0].message.properties, [("site".into(), "north".into()), ("site".into(), "again".into())]);
    assert_eq!((got[0].message.fact("qos"), got[2].message.fact("qos")), (Some("1"), None));
    assert!(got[0].mark > 0);
    assert_eq!(got[2].mark, 0);
    assert_eq!(got[0].arrival.to_string(), "2026-02-03T04:05:06.0000000Z");
    source.stop().await;
}

async fn resume(broker: AnyBroker) {
    let (source, mut arrivals) = started(config(&broker.url(), &["t/#"])).await;
    publish_numbers(&broker.url(), "t/a", 0..10).await;
    let (mut first, mut tokens) = take(&mut arrivals, 5).await;
    while first.len() < 10 {
        let (more, others) = take(&mut arrivals, 1).await;
        first.extend(more);
        tokens.extend(others);
    }
    assert_eq!(numbers(&first), (0..10).collect::<Vec<_>>());
    // a kill between commit and acknowledgement: the journal has half of them, the broker knows of none
    drop(source);
    tokens.into_iter().for_each(std::mem::forget);
    drop(arrivals);
    publish_numbers(&broker.url(), "t/a", 10..15).await;

    let again = config(&broker.url(), &["t/#"]);
    let known = identity(&again, true);
    let (source, mut arrivals) = MqttSource::start(again, known, recent(&first[..5]), true, Clock::Real);
    let (second, tokens) = take(&mut arrivals, 10).await;
    assert_eq!(numbers(&second), (5..15).collect::<Vec<_>>());
    assert!(second[0].is_repeat && !second[9].is_repeat);
    store(tokens);
    let stats = source.stats().clone();
    assert_eq!(
        (stats.redelivered.load(Relaxed), stats.redelivered_possible.load(Relaxed), stats.resubscribed.load(Relaxed)),
        (5, 0, 0)
    );
    source.stop().await;

    // everything before was acknowledged
    let (source, mut arrivals) = start(config(&broker.url(), &["t/#"]));
    publish_numbers(&broker.url(), "t/a", 15..16).await;
    let (third, tokens) = take(&mut arrivals, 1).await;
    assert_eq!(numbers(&third), [15]);
    store(tokens);
    source.stop().await;
}

async fn lost_session(mut broker: AnyBroker) {
    let (source, mut arrivals) = started(config(&broker.url(), &["t/#"])).await;
    broker.stop().await;
    broker.forget_sessions();
    broker.start_again().await;
    let stats = source.stats().clone();
    wait_until("subscribed again", || stats.resubscribed.load(Relaxed) == 1 && stats.is_connected()).await;
    let mut got = Vec::new();
    while got.is_empty() {
        publish_numbers(&broker.url(), "t/a", 1..2).await;
        if let Ok(Some(batch)) = tokio::time::timeout(Duration::from_millis(200), arrivals.recv()).await {
            got.extend(batch.messages);
            batch.ack.stored();
        }
    }
    assert_eq!(got[0].message.name, "t/a");
    assert!(stats.connects.load(Relaxed) >= 2 && stats.disconnects.load(Relaxed) >= 1);
    source.stop().await;
}

async fn restart(mut broker: AnyBroker) {
    let (source, mut arrivals) = started(config(&broker.url(), &["t/#"])).await;
    publish_numbers(&broker.url(), "t/a", 0..50).await;
    let (mut got, tokens) = take(&mut arrivals, 10).await;
    // some are stored, the rest is not when the broker goes away
    store(tokens);
    broker.stop().await;
    broker.start_again().await;
    publish_numbers(&broker.url(), "t/a", 50..100).await;
    while got.len() < 100 {
        let (more, tokens) = take(&mut arrivals, 1).await;
        got.extend(more);
        store(tokens);
    }
    let mut distinct = numbers(&got);
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct, (0..100).collect::<Vec<_>>());
    assert_eq!(got.len(), 100, "redeliveries were recognised");
    assert_eq!(source.stats().resubscribed.load(Relaxed), 0);
    source.stop().await;
}

async fn later(mut broker: AnyBroker) {
    broker.stop().await;
    let (source, mut arrivals) = start(config(&broker.url(), &["t/#"]));
    let stats = source.stats().clone();
    wait_until("an alarm that says what to do", || stats.alarm().is_some_and(|a| a.contains("start the broker"))).await;
    assert!(!stats.is_connected());
    broker.start_again().await;
    wait_until("connected", || stats.is_connected()).await;
    assert_eq!(stats.alarm(), None);
    let mut got = Vec::new();
    while got.is_empty() {
        publish_numbers(&broker.url(), "t/a", 1..2).await;
        if let Ok(Some(batch)) = tokio::time::timeout(Duration::from_millis(200), arrivals.recv()).await {
            got.extend(batch.messages);
            batch.ack.stored();
        }
    }
    assert_eq!(stats.resubscribed.load(Relaxed), 0, "the first session of all is no loss");
    source.stop().await;
}

async fn dropped_token(broker: AnyBroker) {
    let (source, mut arrivals) = started(config(&broker.url(), &["t/#"])).await;
    publish_numbers(&broker.url(), "t/a", 0..3).await;
    let (messages, tokens) = take(&mut arrivals, 1).await;
    let lost = messages.len();
    drop(tokens);
    // whatever else came before the connection was given up is stored but cannot be acknowledged
    let mut got = Vec::new();
    while got.len() < 3 {
        let (more, tokens) = take(&mut arrivals, 1).await;
        got.extend(more);
        store(tokens);
    }
    let mut distinct = numbers(&got);
    distinct.sort();
    assert_eq!(distinct, [0, 1, 2], "{lost} given up, all there again, none twice");
    source.stop().await;
}

async fn other_topics(broker: AnyBroker) {
    let (source, mut arrivals) = started(config(&broker.url(), &["old/#"])).await;
    source.stop().await;
    assert!(arrivals.recv().await.is_none());
    publish_numbers(&broker.url(), "old/a", 0..3).await;
    let (source, mut arrivals) = start(config(&broker.url(), &["new/#"]));
    let stats = source.stats().clone();
    wait_until("old messages are let go", || stats.unmatched.load(Relaxed) == 3).await;
    let mut got = Vec::new();
    while got.is_empty() {
        publish_numbers(&broker.url(), "new/a", 7..8).await;
        if let Ok(Some(batch)) = tokio::time::timeout(Duration::from_millis(200), arrivals.recv()).await {
            got.extend(batch.messages);
            batch.ack.stored();
        }
    }
    assert_eq!(numbers(&got[..1]), [7]);
    source.stop().await;
}

async fn stop(broker: AnyBroker) {
    let (source, mut arrivals) = started(config(&broker.url(), &["t/#"])).await;
    publish_numbers(&broker.url(), "t/a", 0..20).await;
    let (mut got, mut tokens) = take(&mut arrivals, 20).await;
    let stopping = tokio::spawn(source.stop());
    tokio::task::yield_now().await;
    store(std::mem::take(&mut tokens));
    within("the source stops", stopping).await.unwrap();
    while let Some(batch) = arrivals.recv().await {
        got.extend(batch.messages);
    }
    assert_eq!(numbers(&got), (0..20).collect::<Vec<_>>());
    let (source, mut arrivals) = start(config(&broker.url(), &["t/#"]));
    publish_numbers(&broker.url(), "t/a", 20..21).await;
    let (next, tokens) = take(&mut arrivals, 1).await;
    assert_eq!(numbers(&next), [20], "nothing comes twice");
    store(tokens);
    source.stop().await;
}

async fn stop_after_many(broker: AnyBroker) {
    stop_and_start(config(&broker.url(), &["t/#"])).await;
}

/// The next source connects at once, and nothing is there by which it could recognise what comes again.
async fn stop_and_start(config: MqttSourceConfig) {
    const MESSAGES: i64 = 500;
    let url = config.broker.address.url();
    let (source, mut arrivals) = started(config.clone()).await;
    publish_numbers(&url, "t/a", 0..MESSAGES).await;
    let mut received = 0;
    while received < MESSAGES as usize {
        let (messages, tokens) = take(&mut arrivals, 1).await;
        received += messages.len();
        // brokers have 20 or so under way and send more when those are acknowledged
        store(tokens);
    }
    source.stop().await;

    let (source, mut arrivals) = start(config);
    publish_numbers(&url, "t/a", MESSAGES..MESSAGES + 1).await;
    let (messages, tokens) = take(&mut arrivals, 1).await;
    assert_eq!(numbers(&messages), [MESSAGES], "nothing comes again");
    assert_eq!(source.stats().redelivered_possible.load(Relaxed), 0);
    store(tokens);
    source.stop().await;
}

#[tokio::test]
async fn acks_leave_in_receive_order_and_only_after_storing() {
    let broker = Broker::start().await.unwrap();
    let (source, mut arrivals) = started(config(&broker.url(), &["t/#"])).await;
    wait_until("the probe is acknowledged", || broker.pending("gateway") == Some(0)).await;
    let before = broker.acknowledged("gateway").len();
    let mut tokens = Vec::new();
    let mut ids = Vec::new();
    for n in 0..6 {
        publish_numbers(&broker.url(), "t/a", n..n + 1).await;
        let (messages, mut token) = take(&mut arrivals, 1).await;
        ids.push(messages[0].mark as u16);
        tokens.append(&mut token);
    }
    // the newest first: nothing may leave before the oldest is stored
    let oldest = tokens.remove(0);
    for token in tokens.into_iter().rev() {
        token.stored();
    }
    // one round trip through source and broker, so that a wrong acknowledgement would have been seen
    publish_numbers(&broker.url(), "t/a", 6..7).await;
    let (messages, last) = take(&mut arrivals, 1).await;
    ids.push(messages[0].mark as u16);
    assert_eq!(broker.acknowledged("gateway").len(), before);
    oldest.stored();
    store(last);
    wait_until("all are acknowledged", || broker.pending("gateway") == Some(0)).await;
    assert_eq!(broker.acknowledged("gateway")[before..], ids);
    source.stop().await;
}

#[tokio::test]
async fn memory_is_bounded_when_the_broker_ignores_the_receive_maximum() {
    const SIZE: usize = 8 << 10;
    let broker = Broker::start().await.unwrap();
    broker.misbehave(|f| f.ignore_receive_maximum = true);
    let mut config = config(&broker.url(), &["t/#"]);
    config.broker.keep_alive = Duration::from_secs(1);
    config.receive_maximum = 10;
    config.payload_bytes_max = 16 << 10;
    config.unacked_bytes_max = 512 << 10;
    let max = config.unacked_bytes_max as u64;
    let (source, mut arrivals) = started(config).await;
    let payload = |n: usize| {
        let mut text = format!(r#"{{"n":{n}}}"#).into_bytes();
        text.resize(SIZE, b' ');
        text
    };
    publish(&broker.url(), (0..400).map(|n| Message::new("t/a", payload(n))).collect()).await;
    let stats = source.stats().clone();
    wait_until("reading stops", || stats.stalls.load(Relaxed) > 0).await;
    wait_until("the connection is given up, unacknowledged", || {
        stats.disconnects.load(Relaxed) > 0 && !stats.is_connected()
    })
    .await;
    assert!(
        stats.unacked_bytes.load(Relaxed) <= max + 32 * (SIZE as u64 + 512),
        "{}",
        stats.unacked_bytes.load(Relaxed)
    );
    assert!(stats.alarm().is_some_and(|a| a.contains("not being stored")), "{:?}", stats.alarm());
    assert_eq!(stats.connects.load(Relaxed), 1, "no new connection while nothing is stored");

    let mut got = Vec::new();
    while got.len() < 400 {
        let (messages, tokens) = take(&mut arrivals, 1).await;
        got.extend(messages.iter().map(|m| String::from_utf8_lossy(&m.payload).trim_end().to_owned()));
        assert!(stats.unacked_bytes.load(Relaxed) <= max + 32 * (SIZE as u64 + 512));
        store(tokens);
    }
    let mut distinct = got.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!((got.len(), distinct.len()), (400, 400), "all are there, none twice");
    source.stop().await;
}

#[tokio::test]
async fn an_oversize_message_raises_an_alarm_and_leaves_other_sessions_alone() {
    let broker = Broker::start().await.unwrap();
    broker.misbehave(|f| f.ignore_packet_size = true);
    let mut small = config(&broker.url(), &["t/#"]);
    small.payload_bytes_max = 1_000;
    let (source, _arrivals) = started(small).await;
    let mut other = config(&broker.url(), &["u/#"]);
    other.broker.client_id = Some("other".into());
    let (other, mut other_arrivals) = started(other).await;
    publish(&broker.url(), vec![Message::new("t/a", vec![b'x'; 50_000])]).await;
    let stats = source.stats().clone();
    let words = ["`t/#`", "payload_bytes_max = 1000", "raise payload_bytes_max"];
    wait_until("an alarm names topic, limit and remedy", || {
        stats.alarm().is_some_and(|a| words.iter().all(|w| a.contains(w)))
    })
    .await;
    publish_numbers(&broker.url(), "u/a", 1..2).await;
    let (messages, tokens) = take(&mut other_arrivals, 1).await;
    assert_eq!(numbers(&messages), [1]);
    store(tokens);
    assert_eq!(other.stats().alarm(), None);
    other.stop().await;
    source.stop().await;
}

#[tokio::test]
async fn a_broker_that_repeats_itself_is_understood() {
    let broker = Broker::start().await.unwrap();
    let (source, mut arrivals) = started(config(&broker.url(), &["t/#"])).await;
    broker.misbehave(|f| f.duplicate = true);
    publish_numbers(&broker.url(), "t/a", 0..20).await;
    let mut got = Vec::new();
    while got.len() < 20 {
        let (more, tokens) = take(&mut arrivals, 1).await;
        got.extend(more);
        store(tokens);
    }
    assert_eq!(numbers(&got), (0..20).collect::<Vec<_>>());
    wait_until("all are acknowledged", || broker.pending("gateway") == Some(0)).await;
    source.stop().await;
}

#[tokio::test]
async fn connections_that_break_again_and_again_lose_and_repeat_nothing() {
    let broker = Broker::start().await.unwrap();
    let (source, mut arrivals) = started(config(&broker.url(), &["t/#"])).await;
    let mut got = Vec::new();
    for round in 0..5 {
        broker.misbehave(|f| f.drop_after = Some(7));
        publish_numbers(&broker.url(), "t/a", round * 20..round * 20 + 20).await;
        while got.len() < (round as usize + 1) * 20 {
            let (more, tokens) = take(&mut arrivals, 1).await;
            got.extend(more);
            store(tokens);
        }
    }
    let mut distinct = numbers(&got);
    distinct.sort();
    assert_eq!(distinct, (0..100).collect::<Vec<_>>());
    assert!(source.stats().disconnects.load(Relaxed) >= 5);
    source.stop().await;
}

#[tokio::test]
async fn qos_0_messages_without_room_are_counted() {
    let broker = Broker::start().await.unwrap();
    let mut config = config(&broker.url(), &["t/#"]);
    config.qos = Qos::AtMostOnce;
    config.payload_bytes_max = 1_000;
    config.unacked_bytes_max = 20_000;
    let (source, mut arrivals) = started(config).await;
    let stats = source.stats().clone();
    let before = stats.received.load(Relaxed);
    let fast = |n: i64| Message { qos: 0, ..Message::new("t/a", format!("{n:500}")) };
    publish(&broker.url(), (0..100).map(fast).collect()).await;
    wait_until("all arrived", || stats.received.load(Relaxed) == before + 100).await;
    wait_until("what had no room is counted", || stats.lost_qos0.load(Relaxed) >= 70).await;
    assert!(stats.is_connected(), "nothing is gained by disconnecting");
    let lost = stats.lost_qos0.load(Relaxed);
    let (kept, tokens) = take(&mut arrivals, 100 - lost as usize).await;
    assert_eq!(kept.len() as u64 + lost, 100);
    drop(tokens);
    assert_eq!(stats.lost_qos0.load(Relaxed), 100, "not stored, and no broker sends them again");
    source.stop().await;
}

#[tokio::test]
async fn a_wrong_password_says_so_and_a_right_one_works() {
    let options = BrokerOptions { users: vec![("gw".into(), "right".into())], ..Default::default() };
    let demo = Broker::start_with(options).await.unwrap();
    let mosquitto = Mosquitto::start_with("allow_anonymous false\npassword_file {}/passwords\n", |folder| {
        let file = folder.join("passwords");
        let status =
            std::process::Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(file).args(["gw", "right"]).status();
        assert!(status.unwrap().success());
    });
    let secrets = tempfile::tempdir().unwrap();
    for url in [demo.url(), mosquitto.url()] {
        let with = |password: Option<&str>| {
            let mut config = config(&url, &["t/#"]);
            config.broker.username = password.map(|_| "gw".into());
            config.broker.password = password.map(|p| {
                std::fs::write(secrets.path().join(p), p).unwrap();
                Secret::parse(&format!("file:{p}"), Span::default(), secrets.path()).unwrap()
            });
            start(config)
        };
        let (source, _arrivals) = with(Some("wrong"));
        let stats = source.stats().clone();
        wait_until("the alarm names user and setting", || {
            stats
                .alarm()
                .is_some_and(|a| a.contains("refused user `gw`") && a.contains("`password`") && !a.contains("wrong"))
        })
        .await;
        source.stop().await;
        let (source, _arrivals) = with(None);
        let stats = source.stats().clone();
        wait_until("the alarm asks for a user", || stats.alarm().is_some_and(|a| a.contains("set `username`"))).await;
        source.stop().await;
        let (source, _arrivals) = with(Some("right"));
        let stats = source.stats().clone();
        wait_until("connected", || stats.is_connected()).await;
        source.stop().await;
    }
}

#[tokio::test]
async fn tls_with_a_ca_file() {
    let broker = Mosquitto::start_with(
        "allow_anonymous true\ncertfile {}/server.pem\nkeyfile {}/server.key\n",
        |folder| {
            for name in ["ca", "stranger"] {
                openssl(
                    folder,
                    &format!(
                        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {name}.key -out {name}.pem -days 30 -subj /CN={name}"
                    ),
                );
            }
            openssl(
                folder,
                "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout server.key -out server.csr -subj /CN=broker",
            );
            std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
            openssl(
                folder,
                "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 30 -extfile names",
            );
        },
    );
    let with = |scheme: &str, ca: Option<&str>| {
        let mut config = config(&format!("{scheme}://127.0.0.1:{}", broker.port), &["t/#"]);
        config.broker.tls.ca_file = ca.map(|name| broker.folder().join(name));
        start(config)
    };
    let (source, mut arrivals) = with("mqtts", Some("ca.pem"));
    let stats = source.stats().clone();
    wait_until("connected", || stats.is_connected()).await;
    source.stop().await;
    assert!(arrivals.recv().await.is_none());
    for (scheme, ca, words) in [
        ("mqtts", Some("stranger.pem"), "`ca_file`"),
        ("mqtts", Some("missing.pem"), "missing.pem"),
        ("mqtts", Some("names"), "no PEM certificate"),
        ("mqtt", None, "`mqtts://`"),
    ] {
        let (source, _arrivals) = with(scheme, ca);
        let stats = source.stats().clone();
        wait_until(words, || stats.alarm().is_some_and(|a| a.contains(words))).await;
        source.stop().await;
    }
}

#[tokio::test]
async fn a_host_without_an_address_is_named() {
    let (source, _arrivals) = start(config("mqtt://no-such-host.invalid", &["t/#"]));
    let stats = source.stats().clone();
    wait_until("the alarm names the host", || {
        stats.alarm().is_some_and(|a| a.contains("`no-such-host.invalid` has no address"))
    })
    .await;
    source.stop().await;
}

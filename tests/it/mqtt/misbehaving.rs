//! The MQTT source at an embedded broker that breaks rules: limits hold, nothing is lost or repeated.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use forebay::batch::Urgency;
use forebay::demo::broker::{Broker, BrokerOptions};
use forebay::mqtt::Qos;
use forebay::source::Source;

use super::{config, numbers, started, store, take, take_stored};
use crate::support::{Message, publish, publish_numbers, wait_for_alarm, wait_until, within};

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
async fn a_broker_that_sends_less_at_once_than_it_may_does_not_wait_for_the_next_commit() {
    const AT_ONCE: usize = 32;
    const WINDOWS: usize = 50;
    let options = BrokerOptions { in_flight_max: AT_ONCE as u16, ..Default::default() };
    let broker = Broker::start_with(options).await.unwrap();
    let (source, mut arrivals) = started(config(&broker.url(), &["t/#"])).await;
    publish_numbers(&broker.url(), "t/a", 0..(AT_ONCE * WINDOWS) as i64).await;
    let mut hurried = 0;
    for _ in 0..WINDOWS {
        let (mut messages, mut tokens, mut urgency) = (0, Vec::new(), Urgency::InBudget);
        while messages < AT_ONCE {
            let batch = within("messages arrive", arrivals.recv()).await.unwrap();
            messages += batch.messages.iter().filter(|m| &m.payload[..] != b"probe").count();
            urgency = urgency.max(batch.urgency);
            tokens.push(batch.ack);
        }
        match urgency {
            Urgency::AtOnce => hurried += 1,
            // as long as a commit that the write budget stretches
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
        store(tokens);
    }
    // it takes a few windows to learn, and more on a busy machine
    assert!(hurried >= WINDOWS / 5, "{hurried} of {WINDOWS}");
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
async fn what_is_stored_is_acknowledged_while_the_source_waits_for_room() {
    let broker = Broker::start().await.unwrap();
    let mut config = config(&broker.url(), &["t/#"]);
    config.payload_bytes_max = 2_000;
    config.unacked_bytes_max = 20_000;
    let max = config.unacked_bytes_max as u64;
    let (source, mut arrivals) = started(config).await;
    wait_until("the probe is acknowledged", || broker.pending("gateway") == Some(0)).await;
    let before = broker.acknowledged("gateway").len();
    let (stats, mut waiting) = (source.stats().clone(), Vec::new());
    while stats.unacked_bytes.load(Relaxed) < max {
        publish(&broker.url(), vec![Message::new("t/a", vec![b'x'; 1_500])]).await;
        waiting.push(take(&mut arrivals, 1).await);
    }
    wait_until("reading stops", || stats.stalls.load(Relaxed) > 0).await;
    publish(&broker.url(), vec![Message::new("t/a", "last")]).await;
    for n in 1..=3 {
        let (_, tokens) = waiting.remove(0);
        store(tokens);
        wait_until("it is acknowledged", || broker.acknowledged("gateway").len() == before + n).await;
        assert!(stats.unacked_bytes.load(Relaxed) > max / 2 && arrivals.is_empty(), "it still waits");
    }
    waiting.into_iter().for_each(|(_, tokens)| store(tokens));
    let last = take_stored(&mut arrivals, 1).await;
    assert_eq!(&last[0].payload[..], b"last");
    wait_until("all are acknowledged", || broker.pending("gateway") == Some(0)).await;
    assert_eq!(stats.disconnects.load(Relaxed), 0);
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
    wait_for_alarm(&stats, &words).await;
    publish_numbers(&broker.url(), "u/a", 1..2).await;
    let (messages, tokens) = take(&mut other_arrivals, 1).await;
    assert_eq!(numbers(&messages), [1]);
    store(tokens);
    assert_eq!(other.stats().alarm(), None);
    other.stop().await;
    source.stop().await;
}

#[tokio::test]
async fn a_lost_connection_is_no_alarm_once_it_is_back() {
    let broker = Broker::start().await.unwrap();
    let (source, _arrivals) = started(config(&broker.url(), &["t/#"])).await;
    let stats = source.stats().clone();
    broker.drop_connections();
    wait_until("it is back", || stats.connects.load(Relaxed) == 2 && stats.is_connected()).await;
    assert_eq!(stats.alarm(), None);
    source.stop().await;
}

#[tokio::test]
async fn a_broker_that_repeats_itself_is_understood() {
    let broker = Broker::start().await.unwrap();
    let (source, mut arrivals) = started(config(&broker.url(), &["t/#"])).await;
    broker.misbehave(|f| f.duplicate = true);
    publish_numbers(&broker.url(), "t/a", 0..20).await;
    let got = take_stored(&mut arrivals, 20).await;
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

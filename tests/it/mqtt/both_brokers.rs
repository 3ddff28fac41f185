//! What the MQTT source does the same way at mosquitto and at the embedded broker: sessions, restarts, stops.

use std::sync::atomic::Ordering::Relaxed;

use forebay::mqtt::Protocol;
use forebay::source::{Arrived, MqttSource, MqttSourceConfig, Source};
use forebay::time::{Clock, Timestamp};

use super::{config, identity, numbers, publish_until_it_arrives, recent, start, started, store, take, take_stored};
use crate::support::{AnyBroker, Message, Mosquitto, publish, publish_numbers, wait_for_alarm, wait_until, within};

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
    let clock = Clock::manual(Timestamp::parse("2027-02-03T04:05:06Z").unwrap());
    let config = config(&broker.url(), &["fleet/+/rides", "plain/#"]);
    let identity = identity(&config, false);
    let (source, mut arrivals) = MqttSource::start(config, identity, [], true, clock);
    wait_until("connected", || source.stats().is_connected()).await;
    let mut ride = Message::new("fleet/7/rides", r#"{"n":1}"#);
    ride.properties = vec![("site".into(), "north".into()), ("site".into(), "again".into())];
    let mut fast = Message::new("plain", r#"{"n":3}"#);
    fast.qos = 0;
    // subscribed once a message comes through
    publish_until_it_arrives(&broker.url(), "plain/x", 0, &mut arrivals).await;
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
    assert_eq!(got[0].arrival.at.to_string(), "2027-02-03T04:05:06.0000000Z");
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
    let got = publish_until_it_arrives(&broker.url(), "t/a", 1, &mut arrivals).await;
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
    wait_for_alarm(&stats, &["start the broker"]).await;
    assert!(!stats.is_connected());
    broker.start_again().await;
    wait_until("connected", || stats.is_connected()).await;
    assert_eq!(stats.alarm(), None);
    publish_until_it_arrives(&broker.url(), "t/a", 1, &mut arrivals).await;
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
    let got = take_stored(&mut arrivals, 3).await;
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
    let got = publish_until_it_arrives(&broker.url(), "new/a", 7, &mut arrivals).await;
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

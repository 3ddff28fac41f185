//! The MQTT source against real and misbehaving brokers: mosquitto and the embedded one. The source is started alone;
//! the test takes its batches and says when they are stored.

#[path = "mqtt/both_brokers.rs"]
mod both_brokers;
#[path = "mqtt/misbehaving.rs"]
mod misbehaving;
#[path = "mqtt/refusals.rs"]
mod refusals;

use std::time::Duration;

use forebay::mqtt::{BrokerConfig, MqttAddress};
use forebay::source::{Acknowledge, Arrivals, Arrived, Identity, MqttSource, MqttSourceConfig, RecentRecord};
use forebay::time::Clock;
use tokio::sync::mpsc::Receiver;

use crate::support::{Message, publish, publish_numbers, within};

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

/// The next batches, until there are `n` messages, each stored as it comes.
async fn take_stored(arrivals: &mut Receiver<Arrivals>, n: usize) -> Vec<Arrived> {
    let mut messages = Vec::new();
    while messages.len() < n {
        let (more, tokens) = take(arrivals, 1).await;
        messages.extend(more);
        store(tokens);
    }
    messages
}

/// Publishes `{"n":number}` to a topic again and again until the source, which may not be subscribed yet, has it; the
/// batch with it is stored.
async fn publish_until_it_arrives(
    url: &str,
    topic: &str,
    number: i64,
    arrivals: &mut Receiver<Arrivals>,
) -> Vec<Arrived> {
    let mut got = Vec::new();
    while got.is_empty() {
        publish_numbers(url, topic, number..number + 1).await;
        if let Ok(Some(batch)) = tokio::time::timeout(Duration::from_millis(200), arrivals.recv()).await {
            got.extend(batch.messages);
            batch.ack.stored();
        }
    }
    got
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

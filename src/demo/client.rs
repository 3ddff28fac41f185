//! The fleet's and the receiver's end of a broker: what the demo, the tests and the benchmarks count with.
//!
//! In: messages to publish, a topic to listen to. Out: how many the broker took, and each message that came. Invariant:
//! neither shares any state with the job it watches. Not here: the job's own source and output.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::time::task_now;
use bytes::Bytes;
use rumqttc::mqttbytes::QoS;
use rumqttc::{AsyncClient, BrokerSessionResumePolicy, Event, Incoming, MqttOptions, NetworkOptions, PublishOptions};
use tokio::task::JoinHandle;

/// Messages that wait inside the client before `send` has to wait.
const QUEUE: usize = 1000;
/// Messages on their way to the broker at once.
const IN_FLIGHT_MAX: u16 = 256;
/// Largest message either end takes, bytes.
const PACKET_BYTES_MAX: u32 = 4 << 20;
/// Pause before another try to connect.
const RETRY: Duration = Duration::from_millis(100);

fn options(id: &str, host: &str, port: u16) -> MqttOptions {
    let mut options = MqttOptions::new(id, (host.to_owned(), port));
    options.set_keep_alive(30);
    options.set_max_packet_size(Some(PACKET_BYTES_MAX));
    // acknowledgements are small: held back for the peer's delayed ones they would come a few in 40 ms
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    // the client keeps a place for each and looks through all of them again and again
    options.set_outgoing_inflight_upper_limit(IN_FLIGHT_MAX);
    options
}

/// Publishes with QoS 1 and counts what the broker acknowledged.
#[derive(Debug)]
pub struct Publisher {
    client: AsyncClient,
    sent: AtomicU64,
    acknowledged: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Publisher {
    /// Connects in the background; `send` waits until there is room.
    pub fn connect(id: &str, host: &str, port: u16) -> Publisher {
        let (client, mut events) = AsyncClient::builder(options(id, host, port)).capacity(QUEUE).build();
        let acknowledged = Arc::new(AtomicU64::new(0));
        let count = acknowledged.clone();
        let task = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Incoming::PubAck(_))) => {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(RETRY).await,
                }
            }
        });
        Publisher { client, sent: AtomicU64::new(0), acknowledged, task }
    }

    /// Hands one message to the client; waits while its queue is full. Answers whether the client still runs.
    pub async fn send(&self, topic: &str, payload: impl Into<Bytes>) -> bool {
        let sent = self.client.publish(topic, payload.into(), PublishOptions::new(QoS::AtLeastOnce)).await.is_ok();
        self.sent.fetch_add(u64::from(sent), Ordering::Relaxed);
        sent
    }

    /// Messages handed to the client.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Messages the broker acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until everything sent is acknowledged, at most for `limit`; answers whether it is.
    pub async fn drained(&self, limit: Duration) -> bool {
        let end = task_now() + limit;
        while self.acknowledged() < self.sent() {
            if task_now() >= end {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A message that came to a [`Receiver`].
#[derive(Debug, Clone)]
pub struct Message {
    pub topic: Bytes,
    pub payload: Bytes,
    /// The user property `forebay-id`.
    pub row_id: Option<String>,
}

/// Listens to a topic with QoS 1 and hands each message over.
#[derive(Debug)]
pub struct Receiver {
    subscribed: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Subscribes, again after every lost connection; `take` runs for each message in its order. The session is kept
    /// for an hour, so a message that comes while the connection is down is not missed.
    pub fn listen(
        id: &str,
        host: &str,
        port: u16,
        filter: &str,
        mut take: impl FnMut(Message) + Send + 'static,
    ) -> Receiver {
        let mut options = options(id, host, port);
        options.set_clean_start(false);
        options.set_session_expiry_interval(Some(3600));
        options.set_broker_session_resume_policy(BrokerSessionResumePolicy::AllowBrokerOnly);
        let (client, mut events) = AsyncClient::builder(options).capacity(16).build();
        let subscribed = Arc::new(AtomicBool::new(false));
        let flag = subscribed.clone();
        let filter = filter.to_owned();
        let task = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                        let _ = client.try_subscribe(filter.as_str(), QoS::AtLeastOnce);
                    }
                    Ok(Event::Incoming(Incoming::SubAck(_))) => flag.store(true, Ordering::Release),
                    Ok(Event::Incoming(Incoming::Publish(publish))) => {
                        let properties = publish.properties.unwrap_or_default();
                        let row_id = properties
                            .user_properties
                            .into_iter()
                            .find(|(name, _)| name == "forebay-id")
                            .map(|(_, id)| id);
                        take(Message { topic: publish.topic, payload: publish.payload, row_id });
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(RETRY).await,
                }
            }
        });
        Receiver { subscribed, task }
    }

    /// Waits until the broker confirmed the subscription, at most for `limit`; answers whether it did.
    pub async fn ready(&self, limit: Duration) -> bool {
        let end = task_now() + limit;
        while !self.subscribed.load(Ordering::Acquire) {
            if task_now() >= end {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

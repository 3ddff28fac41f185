//! Counterparts for tests: mosquitto and the embedded broker, a publisher, a subscriber, waiting. Jobs are in `jobs`.
//!
//! Everything listens on loopback at ports the system picks and lives in temporary folders. Processes are ended by
//! their own id.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/allocation.rs"]
pub mod allocation;
#[path = "support/jobs.rs"]
mod jobs;
#[path = "support/wordless.rs"]
pub mod wordless;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use forebay::demo::broker::Broker;
use forebay::source::SourceStats;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, PublishOptions, PublishProperties, QoS};
use tempfile::TempDir;

pub use self::jobs::{
    JobFolder, assert_pool_is_good, dead_letters, refused, refused_once, refuses, replace, rows_of, runtime, succeeds,
    write_job,
};

/// Nothing here takes long; this only ends a test that would hang.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A loopback port that is free now.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Waits until a condition holds; panics with its name when it does not come about.
pub async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "this did not come about: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the alarm of an input has all these words; panics with the alarm that it has.
pub async fn wait_for_alarm(stats: &SourceStats, words: &[&str]) {
    let end = Instant::now() + PATIENCE;
    while !stats.alarm().is_some_and(|alarm| words.iter().all(|word| alarm.contains(word))) {
        assert!(Instant::now() < end, "an alarm with {words:?} did not come about; it is {:?}", stats.alarm());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for a future; panics with its name when it does not finish.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("this did not come about: {what}"),
    }
}

/// Debian's mosquitto with a configuration of its own.
pub struct Mosquitto {
    pub port: u16,
    folder: TempDir,
    child: Option<Child>,
}

impl Mosquitto {
    /// Anybody may connect; sessions are kept on disk.
    pub fn start() -> Mosquitto {
        Mosquitto::start_with("allow_anonymous true\n", |_| {})
    }

    /// With lines of configuration, in which `{}` stands for the folder that `prepare` may fill.
    pub fn start_with(lines: &str, prepare: impl FnOnce(&Path)) -> Mosquitto {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        // between choosing a port and listening on it somebody else may take it
        for _ in 0..20 {
            let port = free_port();
            let at = folder.path().display().to_string();
            let config = format!(
                "listener {port} 127.0.0.1\nuser root\npersistence true\npersistence_location \
                {at}/\nmax_queued_messages 0\n{}",
                lines.replace("{}", &at)
            );
            fs::write(folder.path().join("mosquitto.conf"), config).unwrap();
            if let Some(child) = spawn(folder.path(), port) {
                return Mosquitto { port, folder, child: Some(child) };
            }
        }
        panic!("mosquitto did not start: {}", fs::read_to_string(folder.path().join("log")).unwrap_or_default());
    }

    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends it as a service manager does, so that it saves its sessions.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
    }

    pub fn start_again(&mut self) {
        self.child = spawn(self.folder.path(), self.port);
        assert!(self.child.is_some(), "mosquitto did not come back");
    }

    /// Has it read its configuration again.
    pub fn reload(&self) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-HUP", &id]).status().unwrap().success());
    }

    pub fn forget_sessions(&mut self) {
        let _ = fs::remove_file(self.folder.path().join("mosquitto.db"));
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.stop();
    }
}

/// `None` when it ended before it listened.
fn spawn(folder: &Path, port: u16) -> Option<Child> {
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    let mut child = Command::new("mosquitto")
        .arg("-c")
        .arg(folder.join("mosquitto.conf"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("mosquitto is installed (apt-get install mosquitto)");
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Some(child);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// Either broker, for tests that must hold with both.
pub enum AnyBroker {
    Mosquitto(Mosquitto),
    Demo(Broker),
}

impl AnyBroker {
    pub fn mosquitto() -> AnyBroker {
        AnyBroker::Mosquitto(Mosquitto::start())
    }

    pub async fn demo() -> AnyBroker {
        AnyBroker::Demo(Broker::start().await.unwrap())
    }

    pub fn url(&self) -> String {
        match self {
            AnyBroker::Mosquitto(broker) => broker.url(),
            AnyBroker::Demo(broker) => broker.url(),
        }
    }

    pub async fn stop(&mut self) {
        match self {
            AnyBroker::Mosquitto(broker) => broker.stop(),
            AnyBroker::Demo(broker) => broker.go_down().await,
        }
    }

    pub async fn start_again(&mut self) {
        match self {
            AnyBroker::Mosquitto(broker) => broker.start_again(),
            AnyBroker::Demo(broker) => broker.come_up().await.unwrap(),
        }
    }

    /// Loses all sessions; only while stopped.
    pub fn forget_sessions(&mut self) {
        match self {
            AnyBroker::Mosquitto(broker) => broker.forget_sessions(),
            AnyBroker::Demo(broker) => broker.forget_sessions(),
        }
    }
}

/// Options of a plain client for `mqtt://host:port`.
pub fn client_options(url: &str, client_id: &str) -> MqttOptions {
    let (host, port) = url.strip_prefix("mqtt://").unwrap().rsplit_once(':').unwrap();
    let mut options = MqttOptions::new(client_id, (host.to_owned(), port.parse::<u16>().unwrap()));
    options.set_connect_timeout(Duration::from_secs(5));
    options
}

/// A message to publish.
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub properties: Vec<(String, String)>,
}

impl Message {
    pub fn new(topic: &str, payload: impl Into<Vec<u8>>) -> Message {
        Message { topic: topic.to_owned(), payload: payload.into(), qos: 1, properties: Vec::new() }
    }
}

/// Publishes and waits until the broker has confirmed all.
pub async fn publish(url: &str, messages: Vec<Message>) {
    let options = client_options(url, &format!("publisher-{}", fastrand_id()));
    let (client, mut events) = AsyncClient::builder(options).capacity(messages.len() + 10).build();
    let polling = tokio::spawn(async move {
        loop {
            match events.poll().await {
                Ok(_) => {}
                Err(rumqttc::ConnectionError::RequestsDone) => break,
                Err(error) => panic!("the publisher lost its connection: {error}"),
            }
        }
    });
    let mut notices = Vec::new();
    for message in messages {
        let qos = if message.qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        let properties = PublishProperties { user_properties: message.properties, ..Default::default() };
        let options = PublishOptions::new(qos).properties(properties);
        notices.push(client.publish_tracked(message.topic, message.payload, options).await.unwrap());
    }
    for notice in notices {
        within("the broker confirms a publish", notice.wait_async()).await.unwrap();
    }
    client.disconnect().await.unwrap();
    within("the publisher disconnects", polling).await.unwrap();
}

/// Publishes `{"n":from}` … to a topic.
pub async fn publish_numbers(url: &str, topic: &str, numbers: std::ops::Range<i64>) {
    publish(url, numbers.map(|n| Message::new(topic, format!(r#"{{"n":{n}}}"#))).collect()).await;
}

fn fastrand_id() -> String {
    use std::hash::{BuildHasher, Hasher};
    format!("{:016x}", std::collections::hash_map::RandomState::new().build_hasher().finish())
}

/// What a subscriber got: row id to payload, and how many messages in all.
#[derive(Default, Debug)]
pub struct Received {
    pub by_id: BTreeMap<String, String>,
    pub messages: usize,
    pub topics: Vec<String>,
    /// Payloads, in the order of the messages.
    pub payloads: Vec<String>,
    /// What `forebay-rows` says, in the order of the messages.
    pub row_counts: Vec<Option<String>>,
    /// User properties, in the order of the messages.
    pub properties: Vec<Vec<(String, String)>>,
}

/// A subscriber that collects messages until it has a number of distinct row ids.
pub struct Subscriber {
    received: tokio::sync::watch::Receiver<usize>,
    shared: std::sync::Arc<std::sync::Mutex<Received>>,
    task: tokio::task::JoinHandle<()>,
}

impl Subscriber {
    /// Subscribed when it returns; reconnects to the same session.
    pub async fn start(url: &str, filter: &str) -> Subscriber {
        let mut options = client_options(url, &format!("subscriber-{}", fastrand_id()));
        options.set_clean_start(false).set_session_expiry_interval(Some(3600));
        options.set_incoming_packet_size_limit(rumqttc::IncomingPacketSizeLimit::Unlimited);
        let (client, mut events) = AsyncClient::builder(options).build();
        let shared = std::sync::Arc::new(std::sync::Mutex::new(Received::default()));
        let (count, received) = tokio::sync::watch::channel(0);
        let (ready, subscribed) = tokio::sync::oneshot::channel();
        let (filter, all) = (filter.to_owned(), shared.clone());
        let task = tokio::spawn(async move {
            let mut ready = Some(ready);
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(connack))) if !connack.session_present => {
                        client.try_subscribe(filter.clone(), QoS::AtLeastOnce).unwrap();
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => {
                        if let Some(ready) = ready.take() {
                            let _ = ready.send(());
                        }
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let properties = publish.properties.unwrap_or_default().user_properties;
                        let property = |name: &str| properties.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
                        let id = property("forebay-id").unwrap_or_default();
                        let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
                        let mut all = all.lock().unwrap();
                        all.messages += 1;
                        all.topics.push(String::from_utf8(publish.topic.to_vec()).unwrap());
                        all.row_counts.push(property("forebay-rows"));
                        all.properties.push(properties.clone());
                        all.payloads.push(payload.clone());
                        all.by_id.insert(id, payload);
                        let _ = count.send(all.by_id.len());
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        within("the subscriber subscribes", subscribed).await.unwrap();
        Subscriber { received, shared, task }
    }

    /// What came at a topic so far.
    pub fn payloads_at(&self, topic: &str) -> Vec<String> {
        let received = self.shared.lock().unwrap();
        received
            .topics
            .iter()
            .zip(&received.payloads)
            .filter(|(t, _)| *t == topic)
            .map(|(_, payload)| payload.clone())
            .collect()
    }

    /// The user properties of the first message with this payload.
    pub fn properties_of(&self, payload: &str) -> Option<Vec<(String, String)>> {
        let received = self.shared.lock().unwrap();
        let at = received.payloads.iter().position(|p| p == payload)?;
        received.properties.get(at).cloned()
    }

    /// Waits for that many distinct row ids.
    pub async fn wait_for(&mut self, ids: usize) -> std::sync::MutexGuard<'_, Received> {
        within("the subscriber gets all rows", self.received.wait_for(|n| *n >= ids)).await.unwrap();
        self.shared.lock().unwrap()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs the `openssl` command.
pub fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .expect("openssl is installed");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

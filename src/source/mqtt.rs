//! The MQTT source: one task that connects, receives and hands over, for as long as the job runs.
//!
//! In: a checked config, the newest records of the journal, a clock. Out: [`Arrivals`] through a bounded channel.
//! Invariant: a connection starts only when every token of the one before is resolved, so a packet id never means two
//! messages at once and what we hold is what one connection received. Not here: what is stored.
//!
//! Each connection has a client object of its own. The client is only polled and its events forwarded; acknowledgements
//! never wait inside that loop, and a started poll is never dropped once the broker has accepted us.

pub mod acks;
mod intern;
mod link;
mod poison;
pub mod redelivery;
mod settings;

use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::stats::{SourceStats, Until, add};
use super::{Acknowledge, Arrivals, Arrived, Identity, RecentRecord, Source};
use crate::backoff::{Backoff, GOOD_AFTER, Retry};
use crate::mqtt::socket::Collecting;
use crate::mqtt::wire::{self, Client, Event, Events, Failure, Message, Opening};
use crate::mqtt::{Choice, Connector, Protocol, Trouble};
use crate::time::Clock;
use intern::Interner;
use link::Link;
use poison::Poison;
use redelivery::{Recognition, Seen};

pub use settings::MqttSourceConfig;
pub(super) use settings::read;

/// Batches on their way to the intake. Their bytes are bounded by `unacked_bytes_max`; this bounds how many small ones
/// wait, and is more than a commit interval gives.
const BATCHES_MAX: usize = 1_024;
/// What a message costs in memory beside topic and payload, about: the client's and our own records.
const MESSAGE_OVERHEAD: usize = 256;
/// Room for topic and properties on top of the largest payload.
const PACKET_OVERHEAD: u32 = 8 << 10;
/// Acknowledgements that wait in the client's queue; more wait in ours.
const REQUESTS_MAX: usize = 4_096;
/// Packets that the client takes from the socket at once.
const READ_BATCH_MAX: usize = 128;
/// Messages remembered to recognise redeliveries: at least these, at about 100 bytes each, since brokers exceed the
/// window they were given, and four windows if that is more.
const SEEN_MIN: usize = 16_384;
const SEEN_WINDOWS: usize = 4;
/// A subscription that was refused is asked for again this often: the operator may have changed the broker's rules.
const SUBSCRIBE_AGAIN: Duration = Duration::from_secs(60);
/// How long a stop waits for what was received to be stored.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A running source. Dropping it ends the task without a goodbye; [`Source::stop`] says one.
#[derive(Debug)]
pub struct MqttSource {
    stats: Arc<SourceStats>,
    stop: CancellationToken,
    current: Current,
    task: Option<JoinHandle<()>>,
}

/// The link of the present connection.
type Current = Arc<Mutex<Option<Arc<Link>>>>;

impl MqttSource {
    /// Starts receiving. `recent` are the newest records of this input in the journal, oldest first; a few thousand do.
    /// `keeps_bytes`: what is stored is the payload as it came. The channel ends when the source was stopped. Needs a
    /// tokio runtime.
    pub fn start<'a>(
        config: MqttSourceConfig,
        identity: Identity,
        recent: impl IntoIterator<Item = RecentRecord<'a>>,
        keeps_bytes: bool,
        clock: Clock,
    ) -> (MqttSource, mpsc::Receiver<Arrivals>) {
        let broker = Connector::new(config.broker.clone(), identity.name);
        let stats = Arc::new(SourceStats::default());
        let stop = CancellationToken::new();
        let current = Current::default();
        let (out, arrivals) = mpsc::channel(BATCHES_MAX);
        let mut seen = Seen::new((usize::from(config.receive_maximum) * SEEN_WINDOWS).max(SEEN_MIN));
        seen.seed(recent);
        let receiver = Receiver {
            who: broker.config.address.to_string(),
            interner: Interner::new(config.topics.clone()),
            session_known: identity.is_known,
            is_subscribed: false,
            asked_at: Instant::now(),
            choice: Choice::new(config.broker.protocol),
            config,
            broker,
            seen,
            keeps_bytes,
            clock,
            out,
            stats: stats.clone(),
            stop: stop.clone(),
            current: current.clone(),
        };
        let task = tokio::spawn(receiver.run().in_current_span());
        (MqttSource { stats, stop, current, task: Some(task) }, arrivals)
    }

    /// Takes no further messages, waits up to 5 s until those handed over are stored and acknowledged, and says goodbye
    /// to the broker, which keeps the session.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let current = || self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(link) = current() {
            link.stop();
        }
        let Some(mut task) = self.task.take() else { return };
        if tokio::time::timeout(STOP_TIMEOUT, &mut task).await.is_ok() {
            return;
        }
        if let Some(link) = current() {
            link.stop_now();
        }
        if tokio::time::timeout(STOP_TIMEOUT, &mut task).await.is_err() {
            task.abort();
        }
    }
}

impl Source for MqttSource {
    fn stats(&self) -> &Arc<SourceStats> {
        &self.stats
    }

    fn stop(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(MqttSource::stop(*self))
    }
}

impl Drop for MqttSource {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// How a connection ended.
enum End {
    Stopped,
    /// Nobody takes messages any more.
    Unwanted,
    /// Reading stood still for too long because too little was stored.
    Stalled,
    Lost(Trouble),
}

struct Receiver {
    /// For log lines.
    who: String,
    config: MqttSourceConfig,
    broker: Connector,
    choice: Choice,
    seen: Seen,
    /// Payloads are stored as they come.
    keeps_bytes: bool,
    interner: Interner,
    clock: Clock,
    out: mpsc::Sender<Arrivals>,
    stats: Arc<SourceStats>,
    stop: CancellationToken,
    current: Current,
    /// The broker has, or should have, a session of ours.
    session_known: bool,
    /// The broker has accepted our topics in the session it has.
    is_subscribed: bool,
    /// When we last asked for the topics.
    asked_at: Instant,
}

impl Receiver {
    async fn run(mut self) {
        let mut retry = Retry::new(Backoff::BROKER);
        let mut poison = Poison::default();
        while !self.stop.is_cancelled() && !self.out.is_closed() {
            let (end, link, held) = self.connection().await;
            self.set_current(None);
            self.stats.set_connected(false);
            if held.is_some() {
                add(&self.stats.disconnects, 1);
            }
            match end {
                End::Stopped | End::Unwanted => break,
                End::Stalled => {
                    let text = "reading stands still: what was received is not being stored; see the journal";
                    self.stats.raise(&self.who, text.to_owned(), Until::Steady);
                    // it was our own wish to leave
                    retry.succeeded();
                }
                // the other version is tried after the same pause, so a broker that takes neither is not stormed
                End::Lost(trouble) if self.choice.failed(&trouble) => {}
                End::Lost(trouble) => {
                    let until = if held.is_some() { Until::Steady } else { Until::Accepted };
                    self.stats.raise(&self.who, poison.judge(trouble, &self.config, &self.broker.client_id), until);
                }
            }
            let stop = self.stop.clone();
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.settle(link) => {}
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(retry.lost_after(held.unwrap_or_default())) => {}
            }
        }
    }

    /// Waits until every token of a past connection is resolved.
    async fn settle(&mut self, link: Option<Arc<Link>>) {
        let Some(link) = link else { return };
        link.all_resolved().await;
        for packet_id in link.lost_ids() {
            self.seen.forget(packet_id);
        }
    }

    /// One connection from beginning to end: how it ended, its link, which is closed, and how long it held, if the
    /// broker accepted it at all.
    async fn connection(&mut self) -> (End, Option<Arc<Link>>, Option<Duration>) {
        let collecting = Collecting::new();
        let opened = wire::open(&self.broker, self.choice.now(), self.opening(), collecting.clone()).await;
        let (client, mut events) = match opened {
            Ok(opened) => opened,
            Err(trouble) => return (End::Lost(trouble), None, None),
        };
        let link = Arc::new(Link::new(client.clone(), collecting, self.stats.clone()));
        self.set_current(Some(link.clone()));

        // Until the broker has accepted us nothing is lost by giving up in the middle.
        let stop = self.stop.clone();
        let first = tokio::select! {
            first = events.poll() => first,
            () = stop.cancelled() => return (End::Stopped, None, None),
        };
        match first {
            Ok(Event::Accepted { session_present, .. }) => self.accepted(session_present, &client),
            Ok(_) => return (End::Lost(Trouble::new("the broker does not begin with CONNACK".to_owned())), None, None),
            Err(Failure::Ended) => return (End::Stopped, None, None),
            Err(Failure::Lost(trouble)) => return (End::Lost(trouble), None, None),
        }
        let since = Instant::now();
        let steady = self.when_steady();
        let end = self.receive(&mut events, &client, &link).await;
        steady.abort();
        link.close();
        (end, Some(link), Some(since.elapsed()))
    }

    /// Ends the alarm about lost connections when this one has held for a while.
    fn when_steady(&self) -> JoinHandle<()> {
        let (stats, who) = (self.stats.clone(), self.who.clone());
        let steady = async move {
            tokio::time::sleep(GOOD_AFTER).await;
            stats.clear(&who, Until::Steady);
        };
        tokio::spawn(steady.in_current_span())
    }

    fn opening(&self) -> Opening {
        let config = &self.config;
        // what the client decodes ahead of us counts too, so large messages are taken one at a time
        let read_batch = config.unacked_bytes_max / (config.payload_bytes_max as usize).max(1);
        Opening {
            session_expiry: Some(config.session_expiry_seconds()),
            receive_maximum: Some(config.receive_maximum),
            packet_bytes_max: Some(config.payload_bytes_max.saturating_add(PACKET_OVERHEAD)),
            outgoing_max: wire::OUTGOING_MIN,
            requests_max: REQUESTS_MAX,
            request_batch: READ_BATCH_MAX,
            read_batch: read_batch.clamp(1, READ_BATCH_MAX),
        }
    }

    fn set_current(&self, link: Option<Arc<Link>>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = link;
    }

    /// The broker accepted us: makes sure that it sends us our topics.
    fn accepted(&mut self, session_present: bool, client: &Client) {
        if let Some(why) = self.choice.accepted() {
            tracing::warn!(broker = self.who, "speaking MQTT 3.1.1 from here on: {why}");
        }
        add(&self.stats.connects, 1);
        self.stats.clear(&self.who, Until::Accepted);
        self.seen.connected(session_present);
        if !session_present {
            if self.session_known {
                add(&self.stats.resubscribed, 1);
                tracing::warn!(broker = self.who, "the broker had lost our session; subscribing again");
            }
            self.is_subscribed = false;
        }
        self.session_known = true;
        // The first time in a session of an earlier process too: the job may name other topics now.
        self.stats.set_connected(self.is_subscribed);
        if !self.is_subscribed {
            self.subscribe(client);
        }
    }

    fn subscribe(&mut self, client: &Client) {
        self.asked_at = Instant::now();
        // a full queue is one more thing that the next attempt may find better
        if let Err(error) = client.subscribe(&self.config.topics, self.config.qos) {
            tracing::error!(broker = self.who, %error, "the subscription could not be queued");
        }
    }

    async fn receive(&mut self, events: &mut Events, client: &Client, link: &Arc<Link>) -> End {
        let mut batch = Batch::default();
        loop {
            match events.poll().await {
                Ok(Event::Message(message)) => self.arrived(message, link, &mut batch),
                Ok(Event::Subscribed(answers)) => self.subscribed(&answers),
                Ok(_) => {}
                Err(Failure::Ended) => {
                    self.hand_over(link, &mut batch).await;
                    // a batch that was given up ends the connection the same way
                    let trouble = || Trouble::new("what was received could not be stored; connecting again".to_owned());
                    return if self.stop.is_cancelled() { End::Stopped } else { End::Lost(trouble()) };
                }
                Err(Failure::Lost(trouble)) => {
                    self.hand_over(link, &mut batch).await;
                    return End::Lost(trouble);
                }
            }
            link.send_backlog();
            if self.stop.is_cancelled() {
                link.stop();
            } else if !self.is_subscribed && self.asked_at.elapsed() >= SUBSCRIBE_AGAIN {
                self.subscribe(client);
            }
            let read_ahead_is_done = events.is_empty();
            if (read_ahead_is_done || batch.bytes >= self.config.unacked_bytes_max / 4)
                && let Some(end) = self.hand_over(link, &mut batch).await
            {
                return end;
            }
        }
    }

    /// Takes one publish into the batch.
    fn arrived(&mut self, publish: Message, link: &Link, batch: &mut Batch) {
        if self.stop.is_cancelled() {
            // the broker keeps it
            return;
        }
        add(&self.stats.received, 1);
        let packet_id = publish.packet_id;
        if publish.dup && (batch.packet_ids.contains(&packet_id) || link.holds(packet_id)) {
            // we have it and will acknowledge it, once
            add(&self.stats.redelivered, 1);
            return;
        }
        let known = self.interner.meta(&publish);
        let size = publish.payload.len() + publish.topic.len() + MESSAGE_OVERHEAD;
        if publish.qos == 0 {
            if self.stats.unacked_bytes.load(Relaxed) as usize + batch.bytes + size > self.config.unacked_bytes_max {
                add(&self.stats.lost_qos0, 1);
                return;
            }
        } else {
            batch.packet_ids.push(packet_id);
        }
        if !known.is_wanted {
            add(&self.stats.unmatched, 1);
            return;
        }
        if publish.qos != 0 {
            match self.seen.judge(packet_id, publish.dup, &known.meta.name, &publish.payload) {
                Recognition::New => {}
                Recognition::Possible => add(&self.stats.redelivered_possible, 1),
                Recognition::Redelivered => {
                    add(&self.stats.redelivered, 1);
                    return;
                }
            }
        }
        batch.bytes += size;
        let mark = match packet_id {
            0 => 0,
            id => redelivery::mark(id, &publish.payload, self.keeps_bytes),
        };
        batch.messages.push(Arrived {
            payload: publish.payload,
            message: known.meta,
            arrival: self.clock.now(),
            mark,
            is_repeat: publish.dup,
        });
    }

    fn subscribed(&mut self, answers: &[Result<(), String>]) {
        let refused: Vec<String> = std::iter::zip(&self.config.topics, answers)
            .filter_map(|(filter, answer)| Some(format!("`{filter}` ({})", answer.as_ref().err()?)))
            .collect();
        if refused.is_empty() {
            self.is_subscribed = true;
            self.stats.set_connected(true);
            self.stats.clear(&self.who, Until::Subscribed);
        } else {
            let text = format!(
                "the broker refused the subscription to {}: correct `topics` or the broker's access rules",
                refused.join(", ")
            );
            self.stats.raise(&self.who, text, Until::Subscribed);
        }
    }

    /// Hands the batch over and sees to it that not too much is under way. An answer ends the connection.
    async fn hand_over(&mut self, link: &Arc<Link>, batch: &mut Batch) -> Option<End> {
        let Batch { messages, packet_ids, bytes } = std::mem::take(batch);
        if messages.is_empty() && packet_ids.is_empty() {
            return None;
        }
        let must_hold_back = !packet_ids.is_empty();
        let qos0 = messages.iter().filter(|m| m.mark == 0).count() as u64;
        let ack = link.receive(packet_ids, bytes, qos0);
        if messages.is_empty() {
            // nothing to store; what came before still has to be
            Box::new(ack).stored();
            return None;
        }
        let is_urgent = link.messages() >= self.half_window();
        let mut arrivals = Some(Arrivals { messages, ack: Box::new(ack), is_urgent });
        match self.out.try_reserve() {
            Ok(permit) => {
                if let Some(arrivals) = arrivals.take() {
                    permit.send(arrivals);
                }
            }
            Err(mpsc::error::TrySendError::Closed(())) => return Some(End::Unwanted),
            Err(mpsc::error::TrySendError::Full(())) => {}
        }
        if arrivals.is_some() || (must_hold_back && link.bytes() >= self.config.unacked_bytes_max) {
            return self.wait_for_room(link, &mut arrivals).await;
        }
        None
    }

    /// Half of what the broker sends before it waits for acknowledgements; MQTT 3.1.1 does not tell, and mosquitto
    /// sends 20.
    fn half_window(&self) -> usize {
        match self.choice.now() {
            Protocol::V5 => usize::from(self.config.receive_maximum / 2).max(1),
            Protocol::V311 => 10,
        }
    }

    /// Reads nothing until half of the allowance is free, so that the network holds the broker back. The broker must
    /// still hear from us in time, so after half a keep-alive the connection is given up, unacknowledged.
    async fn wait_for_room(&self, link: &Link, arrivals: &mut Option<Arrivals>) -> Option<End> {
        add(&self.stats.stalls, 1);
        let enough = async {
            if let Some(waiting) = arrivals.take() {
                match self.out.reserve().await {
                    Ok(permit) => permit.send(waiting),
                    Err(_) => return Some(End::Unwanted),
                }
            }
            link.room(self.config.unacked_bytes_max / 2).await;
            None
        };
        tokio::select! {
            end = enough => end,
            () = tokio::time::sleep(self.broker.config.keep_alive / 2) => Some(End::Stalled),
            () = self.stop.cancelled() => None,
        }
    }
}

/// What is collected for one hand-over.
#[derive(Default)]
struct Batch {
    messages: Vec<Arrived>,
    /// Of all that must be acknowledged, in receive order: more than `messages` when some are not to be stored.
    packet_ids: Vec<u16>,
    bytes: usize,
}

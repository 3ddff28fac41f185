//! The task of an MQTT source: one connection after another.
//!
//! In: a connector, what the journal knows, the word to stop. Out: [`Arrivals`], and the connection on a line for
//! outputs that borrow it. Invariant: what comes while tokens of an earlier connection are unresolved is dropped
//! unacknowledged. Not here: acknowledging (`link`), what a message is taken for (`hand_over`).
//!
//! Each connection has a client object of its own. The client is only polled and its events forwarded; acknowledgements
//! never wait inside that loop. Once the broker has accepted us, a started poll is dropped only together with the
//! connection.

mod room;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::Current;
use super::end::End;
use super::greeting::{Greeting, no_answer};
use super::hand_over::{HandOver, Sorter};
use super::link::{Link, settled};
use super::lull::Lull;
use super::poison::Poison;
use super::send_window::SendWindow;
use super::settings::MqttSourceConfig;
use super::subscription::SubscribeAnswer;
use crate::backoff::{Backoff, GOOD_AFTER, Retry};
use crate::batch::Urgency;
use crate::mqtt::line::Line;
use crate::mqtt::socket::Ending;
use crate::mqtt::wire::{self, Client, Inbound, Incoming, Opening, PollError};
use crate::mqtt::{Choice, Closings, Connector, Trouble};
use crate::source::stats::{SourceStats, Until, add};
use crate::source::{Acknowledge, Arrivals, StoredIn};
use crate::time::{task_now, task_since};
use room::{AwaitedRoom, TakenIn};

/// Room for topic and properties on top of the largest payload.
const PACKET_OVERHEAD: u32 = 8 << 10;
/// Acknowledgements that wait in the client's queue; more wait in ours.
const REQUESTS_MAX: usize = 4_096;
/// Packets that the client takes from the socket at once.
const READ_BATCH_MAX: usize = 128;
/// A subscription that was refused is asked for again this often: the operator may have changed the broker's rules.
const SUBSCRIBE_AGAIN: Duration = Duration::from_secs(60);
/// Where outputs use the connection the next one waits no longer for tokens of the last: it begins deaf.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the task shares with the outside.
pub(super) struct Ends {
    pub out: mpsc::Sender<Arrivals>,
    pub stored_in: StoredIn,
    pub stats: Arc<SourceStats>,
    pub stop: CancellationToken,
    pub current: Current,
    pub line: Arc<Line>,
}

pub(super) struct Receiver {
    /// For log lines.
    who: String,
    config: MqttSourceConfig,
    broker: Connector,
    choice: Choice,
    sorter: Sorter,
    /// `None` once the input was stopped and the connection stays for outputs.
    out: Option<mpsc::Sender<Arrivals>>,
    stored_in: StoredIn,
    stats: Arc<SourceStats>,
    stop: CancellationToken,
    current: Current,
    line: Arc<Line>,
    /// A past connection with tokens that are unresolved: the next one is deaf.
    unsettled: Option<Arc<Link>>,
    /// The broker has, or should have, a session of ours.
    session_known: bool,
    /// The broker has accepted our topics in the session it has.
    is_subscribed: bool,
    /// When we last asked for the topics.
    asked_at: Instant,
    /// An output was sending when the last connection ended.
    was_sending: bool,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.line.close();
    }
}

impl Receiver {
    pub fn new(
        config: MqttSourceConfig,
        broker: Connector,
        sorter: Sorter,
        session_known: bool,
        ends: Ends,
    ) -> Receiver {
        let Ends { out, stored_in, stats, stop, current, line } = ends;
        Receiver {
            who: broker.config.address.to_string(),
            session_known,
            is_subscribed: false,
            asked_at: task_now(),
            was_sending: false,
            choice: Choice::new(config.broker.protocol),
            config,
            broker,
            sorter,
            out: Some(out),
            stored_in,
            stats,
            stop,
            current,
            line,
            unsettled: None,
        }
    }

    pub async fn run(mut self) {
        let mut retry = Retry::new(Backoff::BROKER);
        let mut poison = Poison::default();
        let mut closings = Closings::default();
        let mut found_rows = self.line.found_rows();
        while !self.stop.is_cancelled() && !self.out.as_ref().is_none_or(mpsc::Sender::is_closed) {
            let (end, link, held) = self.connection().await;
            self.set_current(None);
            self.stats.set_connected(false);
            match held {
                Some(_) => add(&self.stats.disconnects, 1),
                None => self.line.down(end.trouble()),
            }
            match end {
                End::Stopped | End::Unwanted => break,
                End::Stalled => {
                    let text = "reading stands still: what was received is not being stored; see the journal";
                    self.stats.raise(&self.who, text.to_owned(), Until::Steady);
                    // it was our own wish to leave
                    retry.succeeded();
                }
                End::Settled => retry.succeeded(),
                // a row of an output ended it, which says so itself
                End::Lost(trouble) if trouble.rejection.is_some() && self.line.is_borrowed() => retry.succeeded(),
                // the other version is tried after the same pause, so a broker that takes neither is not stormed
                End::Lost(trouble) if self.choice.failed(&trouble) => {}
                End::Lost(trouble) => {
                    if std::mem::replace(&mut found_rows, self.line.found_rows()) != self.line.found_rows() {
                        closings = Closings::default();
                    }
                    if held.is_some() && self.line.was_unwanted() {
                        // the output that wanted it left waits itself before it sends again
                        retry.succeeded();
                    }
                    let judged = closings.judge(trouble.clone(), held, &self.broker);
                    let may_be_row = trouble.is_bare && held.is_some() && self.was_sending && !closings.is_storm();
                    let trouble = if may_be_row {
                        // its output waits longer each time and says so
                        retry.succeeded();
                        trouble
                    } else {
                        judged
                    };
                    let until = match held {
                        None => Until::Accepted,
                        Some(_) if trouble.is_passing => Until::Back,
                        Some(_) => Until::Steady,
                    };
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

    /// Waits until every token of the past connections is resolved. Where outputs use the connection that may depend on
    /// them: then only for a moment, and the next connection is deaf.
    async fn settle(&mut self, link: Option<Arc<Link>>) {
        // a deaf connection has no tokens
        let Some(link) = self.unsettled.take().or(link) else { return };
        let is_settled = match self.line.is_borrowed() {
            true => tokio::time::timeout(SETTLE_TIMEOUT, link.all_resolved()).await.is_ok(),
            false => {
                link.all_resolved().await;
                true
            }
        };
        if !is_settled {
            self.unsettled = Some(link);
            return;
        }
        for packet_id in link.lost_ids() {
            self.sorter.seen.forget(packet_id);
        }
    }

    /// One connection from beginning to end: how it ended, its link, which is closed, and how long it held, if the
    /// broker accepted it at all.
    async fn connection(&mut self) -> (End, Option<Arc<Link>>, Option<Duration>) {
        let ending = Ending::new();
        let opened = wire::open(&self.broker, self.choice.now(), self.opening(), ending.clone()).await;
        let (client, mut events) = match opened {
            Ok(opened) => opened,
            Err(trouble) => return (End::Lost(trouble), None, None),
        };
        let (status, stop) = (self.broker.status_due().cloned(), self.stop.clone());
        let window = SendWindow::new(self.choice.now(), self.config.receive_maximum, self.config.unacked_bytes_max);
        let link = Arc::new(Link::new(client.clone(), ending, window, self.stats.clone(), status, stop));
        self.set_current(Some(link.clone()));

        // Until the broker has accepted us nothing is lost by giving up in the middle.
        let stop = self.stop.clone();
        let first = tokio::select! {
            first = events.poll() => first,
            () = stop.cancelled() => return (End::Stopped, None, None),
        };
        let (line, status) = (self.line.clone(), self.broker.status_due().cloned());
        let mut greeting = match first {
            Ok(Incoming::Accepted { session_present, packet_bytes_max }) => {
                let greeting = Greeting::say(status.as_ref(), &line, &client, packet_bytes_max);
                self.accepted(session_present, &client);
                greeting
            }
            Ok(_) => return (End::Lost(Trouble::new("the broker does not begin with CONNACK".to_owned())), None, None),
            Err(PollError::Ended) => return (End::Stopped, None, None),
            Err(PollError::Lost(trouble)) => return (End::Lost(trouble), None, None),
        };
        let since = task_now();
        let steady = self.when_steady();
        let end = self.receive(&mut events, &client, &link, &mut greeting).await;
        let end = greeting.judge(end);
        let held = task_since(since);
        steady.abort();
        // asked before the outputs hear of it
        self.was_sending = self.line.is_sending();
        drop(events);
        self.line.down(end.trouble());
        link.close().await;
        (end, Some(link), Some(held))
    }

    /// Ends the alarm about lost connections when this one has held for a while.
    fn when_steady(&self) -> JoinHandle<()> {
        let (stats, who) = (self.stats.clone(), self.who.clone());
        let steady = async move {
            tokio::time::sleep(GOOD_AFTER).await;
            stats.clear(&who, Until::Back);
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
            outgoing_max: if self.line.is_borrowed() { wire::OUTGOING_WINDOW } else { wire::OUTGOING_MIN },
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
        self.sorter.seen.connected(session_present);
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
        if self.is_subscribed {
            self.stats.tell_connected(&self.who, "the broker has kept the session and its subscriptions");
        }
        if !self.is_subscribed {
            self.subscribe(client);
        }
    }

    fn subscribe(&mut self, client: &Client) {
        self.asked_at = task_now();
        // a full queue is one more thing that the next attempt may find better
        if let Err(error) = client.subscribe(&self.config.topics, self.config.qos) {
            tracing::error!(broker = self.who, %error, "the subscription could not be queued");
        }
    }

    async fn receive(
        &mut self,
        events: &mut Inbound,
        client: &Client,
        link: &Arc<Link>,
        greeting: &mut Greeting<'_>,
    ) -> End {
        let mut reading = TakenIn { is_deaf: self.unsettled.is_some(), ..TakenIn::default() };
        let mut lull = Lull::new(task_now());
        loop {
            match self.next(events, link, greeting, &mut reading).await {
                Ok(Incoming::Message(message)) if reading.is_deaf || self.stop.is_cancelled() => {
                    self.sorter.passed_over(&message)
                }
                Ok(Incoming::Message(message)) => self.sorter.arrived(message, link, &mut reading.batch),
                Ok(Incoming::Subscribed(answers)) => self.subscribed(&answers),
                Ok(_) => {}
                Err(end) => {
                    self.hand_over_last(link, &mut reading).await;
                    return end;
                }
            }
            greeting.look();
            link.send_backlog();
            if self.stop.is_cancelled() && !self.line.is_borrowed() {
                link.stop();
            } else if !self.is_subscribed && task_since(self.asked_at) >= SUBSCRIBE_AGAIN {
                self.subscribe(client);
            }
            let read_ahead_is_done = events.is_empty();
            let is_small = !read_ahead_is_done && reading.batch.bytes < self.config.unacked_bytes_max / 4;
            // what was read ahead waits for room too
            if is_small || reading.room.is_some() {
                continue;
            }
            let (messages, bytes) = (reading.batch.messages.len(), reading.batch.bytes);
            match self.hand_over(link, &mut reading.batch) {
                Ok(room) => reading.room = room,
                Err(end) => return end,
            }
            // what outputs wait for comes by the same connection; a broker at its window waits for us
            let has_room = reading.room.is_none() && link.urgency() == Urgency::InBudget;
            let may_pause = messages > 0 && has_room && !self.line.is_borrowed();
            if may_pause && let Some(pause) = lull.after(messages, bytes, (self.stored_in)(), task_now()) {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.stop.cancelled() => {}
                }
            }
        }
    }

    /// The next event, or how the connection ends. Where outputs use it, they have a say in its end.
    async fn next(
        &mut self,
        events: &mut Inbound,
        link: &Arc<Link>,
        greeting: &mut Greeting<'_>,
        reading: &mut TakenIn,
    ) -> Result<Incoming, End> {
        let event = events.poll();
        tokio::pin!(event);
        loop {
            if self.stop.is_cancelled() && !self.line.is_borrowed() {
                link.stop();
            }
            let answer_due = [greeting.answer_due(), link.answer_due()].into_iter().flatten().min();
            let is_plain = self.unsettled.is_none() && answer_due.is_none() && reading.room.is_none();
            if is_plain && !self.line.is_borrowed() {
                return event.await.map_err(|failure| self.end(failure, reading.is_deaf));
            }
            let settled = settled(self.unsettled.clone());
            let left_alone = async {
                self.stop.cancelled().await;
                self.line.returned().await;
            };
            tokio::select! {
                biased;
                // whether the receipts come in the next one is for the output to tell
                why = self.line.unwanted() => {
                    return Err(End::Lost(Trouble { is_ours: true, is_passing: true, ..Trouble::new(why) }));
                }
                end = room::found(&mut reading.room) => {
                    reading.room = None;
                    let handed_over = self.hand_over(link, &mut reading.batch);
                    if let Some(end) = end {
                        return Err(end);
                    }
                    reading.room = handed_over?;
                    if reading.room.is_none() {
                        link.read_on();
                    }
                }
                () = left_alone, if self.line.is_borrowed() => {}
                () = settled => {
                    // the goodbye is said when what outputs have under way is confirmed
                    self.settle(None).await;
                    link.leave();
                }
                event = &mut event => return event.map_err(|failure| self.end(failure, reading.is_deaf)),
                () = no_answer(answer_due) => {
                    greeting.look();
                    link.send_backlog();
                }
                // nothing waits to be handed over, since all that was read has been
                () = self.stop.cancelled(), if self.out.is_some() => self.out = None,
            }
        }
    }

    /// Why the connection ended.
    fn end(&self, failure: PollError, is_deaf: bool) -> End {
        match failure {
            PollError::Lost(trouble) => End::Lost(trouble),
            PollError::Ended if self.stop.is_cancelled() => End::Stopped,
            PollError::Ended if is_deaf => End::Settled,
            // a batch that was given up ends the connection the same way
            PollError::Ended => {
                let text = "what was received could not be stored; connecting again".to_owned();
                End::Lost(Trouble { is_ours: true, ..Trouble::new(text) })
            }
        }
    }

    fn subscribed(&mut self, answers: &[Result<u8, String>]) {
        let answer = SubscribeAnswer::of(&self.config.topics, self.config.qos as u8, answers);
        if let Some(text) = answer.refused {
            self.stats.raise(&self.who, text, Until::Subscribed);
            return;
        }
        self.is_subscribed = true;
        self.stats.set_connected(true);
        self.stats.clear(&self.who, Until::Subscribed);
        self.stats.tell_connected(&self.who, &format!("subscribed to {}", answer.granted));
        if let Some(text) = answer.lowered {
            tracing::warn!(broker = self.who, "{text}");
        }
    }

    /// Hands the batch over and sees to it that not too much is under way: gives what is to be waited for before more
    /// is read, or how the connection ends.
    fn hand_over(&self, link: &Arc<Link>, batch: &mut HandOver) -> Result<Option<AwaitedRoom>, End> {
        let HandOver { messages, packet_ids, bytes } = std::mem::take(batch);
        if messages.is_empty() && packet_ids.is_empty() {
            return Ok(None);
        }
        let must_hold_back = !packet_ids.is_empty();
        let qos0 = messages.iter().filter(|m| m.mark == 0).count() as u64;
        let ack = link.receive(packet_ids, bytes, qos0);
        if messages.is_empty() {
            // nothing to store; what came before still has to be
            Box::new(ack).stored();
            return Ok(None);
        }
        let mut arrivals = Some(Arrivals { messages, ack: Box::new(ack), urgency: link.urgency() });
        let Some(out) = &self.out else { return Err(End::Unwanted) };
        match out.try_reserve() {
            Ok(permit) => {
                if let Some(arrivals) = arrivals.take() {
                    permit.send(arrivals);
                }
            }
            Err(mpsc::error::TrySendError::Closed(())) => return Err(End::Unwanted),
            Err(mpsc::error::TrySendError::Full(())) => {}
        }
        if arrivals.is_some() || (must_hold_back && link.bytes() >= self.config.unacked_bytes_max) {
            return Ok(Some(self.room(out.clone(), link, arrivals)));
        }
        Ok(None)
    }
}

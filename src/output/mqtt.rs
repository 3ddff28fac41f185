//! Rows to a broker: one JSON message a row, many under way at once.
//!
//! In: batches of rows. Out: [`Delivery`]. Invariant: a row is confirmed when its own PUBACK came; the client's queue is
//! never the place where a row waits for a broker that is away. Not here: which topic a row goes to (one topic an
//! output).

mod settings;

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument;

use super::progress::Progress;
use super::{Delivering, Delivery, Output, OutputStats, RowIds, write_row};
use crate::backoff::{Backoff, Retry};
use crate::batch::Rows;
use crate::mqtt::socket::Collecting;
use crate::mqtt::wire::{self, Client, Event, Events, Failure, Notice, Opening, Outgoing, Receipt};
use crate::mqtt::{Choice, Connector, Trouble};

pub use settings::MqttOutputConfig;
pub(super) use settings::read;

/// Rows under way at once; brokers allow fewer (mosquitto: 20) and the client keeps to that.
const WINDOW: u16 = 512;
/// Requests the client writes with one system call.
const REQUEST_BATCH: usize = 128;
/// A goodbye is not worth waiting for longer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The user property that carries the row id.
pub const ROW_ID_PROPERTY: &str = "forebay-id";

#[derive(Debug)]
pub struct MqttOutput {
    config: MqttOutputConfig,
    broker: Connector,
    choice: Choice,
    session: Option<Session>,
    progress: Progress,
    retry: Retry,
    /// No attempt before this.
    not_before: Option<Instant>,
    /// The broker refused one of several rows without saying which: send them singly to find out.
    one_by_one: bool,
    stats: Arc<OutputStats>,
}

/// One connection; its task polls until the connection ends.
#[derive(Debug)]
struct Session {
    client: Client,
    task: JoinHandle<Trouble>,
    since: Instant,
    /// The broker's limit for a packet, bytes.
    packet_bytes_max: Option<u32>,
}

/// Why a batch did not get through.
struct Attempt {
    trouble: Trouble,
    /// The one row that was under way, if it was one.
    suspect: Option<usize>,
}

/// Rows that were sent and not yet confirmed, in order.
type UnderWay = VecDeque<(usize, Notice)>;

impl MqttOutput {
    pub(super) fn new(config: MqttOutputConfig, client_id: String, stats: Arc<OutputStats>) -> MqttOutput {
        let broker = Connector::new(config.broker.clone(), client_id);
        let (progress, retry) = (Progress::default(), Retry::new(Backoff::BROKER));
        let choice = Choice::new(config.broker.protocol);
        MqttOutput { config, broker, choice, session: None, progress, retry, not_before: None, one_by_one: false, stats }
    }

    async fn hand_over(&mut self, rows: &Rows, ids: RowIds<'_>) -> Delivery {
        self.progress.begin(rows, ids);
        match self.attempt(rows, ids).await {
            Ok(()) => {
                self.one_by_one = false;
                self.not_before = None;
                self.retry.succeeded();
                self.progress.finish()
            }
            Err(failure) => self.failed(failure),
        }
    }

    async fn say_goodbye(mut self) {
        if let Some(mut session) = self.session.take()
            && session.client.disconnect()
        {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, &mut session.task).await;
        }
    }

    async fn attempt(&mut self, rows: &Rows, ids: RowIds<'_>) -> Result<(), Attempt> {
        if let Some(at) = self.not_before {
            tokio::time::sleep_until(at).await;
        }
        self.connect().await.map_err(|trouble| Attempt { trouble, suspect: None })?;
        let mut under_way = UnderWay::new();
        let mut refusal = None;
        match self.send(rows, ids, &mut under_way, &mut refusal).await {
            Ok(()) => match refusal {
                None => Ok(()),
                Some(text) => Err(Attempt { trouble: Trouble::new(text), suspect: None }),
            },
            Err(stuck) => Err(self.end_session(stuck, under_way, refusal).await),
        }
    }

    /// Sends all open rows and waits for their confirmation.
    async fn send(&mut self, rows: &Rows, ids: RowIds<'_>, under_way: &mut UnderWay, refusal: &mut Option<String>) -> Result<(), Stuck> {
        let Some(session) = &self.session else { return Err(Stuck { row: None, is_timeout: false }) };
        let window = if self.one_by_one { 1 } else { usize::from(WINDOW) };
        let patience = self.config.puback_timeout;
        let mut from = 0;
        loop {
            let next = self.progress.next_open(from);
            if let Some(row) = next.filter(|_| under_way.len() < window) {
                from = row + 1;
                let message = match message(&self.config, rows, row, ids, session) {
                    Ok(message) => message,
                    Err(reason) => {
                        self.progress.reject(row, reason);
                        continue;
                    }
                };
                match tokio::time::timeout(patience, session.client.publish(message)).await {
                    Ok(Some(notice)) => under_way.push_back((row, notice)),
                    Ok(None) => return Err(Stuck { row: None, is_timeout: false }),
                    Err(_) => return Err(Stuck { row: None, is_timeout: true }),
                }
                continue;
            }
            let Some((row, notice)) = under_way.pop_front() else { return Ok(()) };
            match tokio::time::timeout(patience, notice.receipt()).await {
                Ok(Receipt::Unknown) => return Err(Stuck { row: Some(row), is_timeout: false }),
                Ok(receipt) => settle(&mut self.progress, row, receipt, refusal),
                Err(_) => return Err(Stuck { row: Some(row), is_timeout: true }),
            }
        }
    }

    /// A live connection, made if there is none.
    async fn connect(&mut self) -> Result<(), Trouble> {
        if let Some(session) = self.session.take_if(|s| s.task.is_finished()) {
            tracing::debug!(output = %self, "{}", session.ended(&self.broker).await.text);
        }
        if self.session.is_some() {
            return Ok(());
        }
        let collecting = Collecting::new();
        // the client itself writes what came together
        collecting.stop();
        let opening = Opening {
            session_expiry: None,
            receive_maximum: None,
            packet_bytes_max: None,
            outgoing_max: WINDOW,
            requests_max: usize::from(WINDOW),
            request_batch: REQUEST_BATCH,
            read_batch: REQUEST_BATCH,
        };
        let (client, mut events) = wire::open(&self.broker, self.choice.now(), opening, collecting).await?;
        let packet_bytes_max = match events.poll().await {
            Ok(Event::Accepted { packet_bytes_max, .. }) => packet_bytes_max,
            Ok(_) | Err(Failure::Ended) => return Err(Trouble::new("the broker does not begin with CONNACK".to_owned())),
            Err(Failure::Lost(trouble)) => return Err(trouble),
        };
        if let Some(why) = self.choice.accepted() {
            tracing::warn!("speaking MQTT 3.1.1 from here on, in which rows have no user property: {why}");
        }
        self.stats.opened.fetch_add(1, Ordering::Relaxed);
        let task = tokio::spawn(poll(events).in_current_span());
        self.session = Some(Session { client, task, since: Instant::now(), packet_bytes_max });
        Ok(())
    }

    /// Ends the connection and finds out what still came through.
    async fn end_session(&mut self, stuck: Stuck, under_way: UnderWay, mut refusal: Option<String>) -> Attempt {
        let suspect = stuck.row.filter(|_| under_way.is_empty());
        let Some(session) = self.session.take() else {
            return Attempt { trouble: Trouble::new("no connection".to_owned()), suspect: None };
        };
        let held = session.since.elapsed();
        let mut trouble = if stuck.is_timeout {
            session.task.abort();
            let patience = self.config.puback_timeout.as_secs_f64();
            Trouble::new(format!("{} confirmed nothing for {patience} s; connecting again", self.broker.config.address))
        } else {
            session.ended(&self.broker).await
        };
        // with the connection gone every notice answers
        for (row, notice) in under_way {
            settle(&mut self.progress, row, notice.receipt().await, &mut refusal);
        }
        // some brokers refuse a row and then end the connection too; the refusal is what a person can do something about
        if let Some(text) = refusal {
            trouble.text = text;
        }
        if held > self.config.puback_timeout {
            self.retry.succeeded();
        }
        Attempt { trouble, suspect }
    }

    /// Decides what a failure means for the rows, and when to try again.
    fn failed(&mut self, failure: Attempt) -> Delivery {
        let Attempt { trouble, suspect } = failure;
        if self.choice.failed(&trouble) {
            self.not_before = None;
            return Delivery::TryAgain { reason: trouble.text };
        }
        self.not_before = Some(Instant::now() + self.retry.failed());
        if let Some(reason) = &trouble.rejection {
            match suspect {
                Some(row) => self.progress.reject(row, reason.clone()),
                None => self.one_by_one = true,
            }
            self.retry.succeeded();
        }
        Delivery::TryAgain { reason: trouble.text }
    }
}

/// Where sending came to a halt.
struct Stuck {
    /// the row whose confirmation did not come
    row: Option<usize>,
    is_timeout: bool,
}

impl Session {
    /// Why the connection ended. Its task is ending.
    async fn ended(self, broker: &Connector) -> Trouble {
        match self.task.await {
            Ok(trouble) => trouble,
            Err(_) => Trouble::new(format!("the connection to {} ended", broker.config.address)),
        }
    }
}

async fn poll(mut events: Events) -> Trouble {
    loop {
        match events.poll().await {
            Ok(_) => {}
            Err(Failure::Ended) => return Trouble::new("the connection was closed".to_owned()),
            Err(Failure::Lost(trouble)) => return trouble,
        }
    }
}

/// The message for a row; an error says why the receiver will never take it.
fn message<'a>(config: &'a MqttOutputConfig, rows: &Rows, row: usize, ids: RowIds<'_>, session: &Session) -> Result<Outgoing<'a>, String> {
    let mut json = String::new();
    write_row(rows, row, config.row_id.as_ref(), ids, &mut json);
    if json.len() > config.payload_bytes_max {
        return Err(format!("the row takes {} bytes, over payload_bytes_max = {}", json.len(), config.payload_bytes_max));
    }
    let id = rows.batch.meta().get(row).map(|meta| (ROW_ID_PROPERTY.to_owned(), ids.id(meta)));
    let properties = id.into_iter().collect();
    let message = Outgoing { topic: &config.topic, payload: Bytes::from(json), qos: config.qos, retain: config.retain, properties };
    if let Some((size, max)) = session.client.packet_bytes(&message).zip(session.packet_bytes_max)
        && size > max as usize
    {
        return Err(format!("the message takes {size} bytes, over the broker's limit of {max} for a packet"));
    }
    Ok(message)
}

/// Notes what the broker said about a row.
fn settle(progress: &mut Progress, row: usize, receipt: Receipt, refusal: &mut Option<String>) {
    match receipt {
        Receipt::Taken => progress.confirm(row),
        Receipt::Rejected(reason) => progress.reject(row, reason),
        Receipt::Refused(reason) => *refusal = Some(reason),
        Receipt::Unknown => {}
    }
}

impl Output for MqttOutput {
    fn deliver<'a>(&'a mut self, rows: &'a Rows, ids: RowIds<'a>) -> Delivering<'a> {
        Box::pin(self.hand_over(rows, ids))
    }

    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.say_goodbye())
    }
}

impl fmt::Display for MqttOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` at {}", self.config.topic, self.broker.config.address)
    }
}

impl Drop for MqttOutput {
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            session.task.abort();
        }
    }
}

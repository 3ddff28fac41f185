//! Rows to a broker: many messages under way at once, with one row or several.
//!
//! In: batches of rows. Out: [`Delivery`]. Invariant: a row is confirmed when the PUBACK of its message came; the
//! client's queue is never the place where a row waits for a broker that is away; of rows that are refused together the
//! one at fault is found by halving. Not here: which topic a row goes to (`template`), what is a message (`message`).

mod message;
mod presence;
mod session;
mod settings;
mod suspects;
mod template;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::time::Instant;

use super::progress::Progress;
use super::{Delivering, Delivery, Output, OutputStats, RowIds};
use crate::backoff::{Backoff, Retry};
use crate::batch::Rows;
use crate::mqtt::Trouble;
use crate::mqtt::wire::{BrokerReceipt, Notice, Outgoing};
use message::{MessageLimits, Queue, RowMessage};
use session::{Session, WINDOW, Way};
use suspects::{Finding, Suspects};

pub use message::{ROW_ID_PROPERTY, ROWS_PROPERTY};
pub(super) use settings::read;
pub use settings::{Connection, MqttOutputConfig};
pub use template::TopicTemplate;

/// This number of connections lost in a row may be the work of one row: from then on messages go one at a time.
const LOSSES_MAX: u32 = 2;

#[derive(Debug)]
pub struct MqttOutput {
    config: MqttOutputConfig,
    way: Way,
    session: Option<Session>,
    progress: Progress,
    retry: Retry,
    /// No attempt before this.
    not_before: Option<Instant>,
    /// By statement, where the broker refused a message of it and the row at fault is looked for: its messages go one
    /// at a time and carry at most this.
    searches: HashMap<String, MessageLimits>,
    /// Connections lost with several messages under way, without a batch that came through between them.
    losses: u32,
    suspects: Suspects,
    /// The broker confirmed something in the attempt at hand.
    has_progressed: bool,
    /// What the broker was seen to take, where it does not tell its limit.
    bytes_max: usize,
    /// Why there was no connection last while no rows came.
    quiet_trouble: Option<String>,
    stats: Arc<OutputStats>,
}

/// Why a batch did not get through.
struct Attempt {
    trouble: Trouble,
    /// The one message that was under way, if it was one.
    suspect: Option<RowMessage>,
    /// Several messages were under way.
    had_several: bool,
    /// Only messages of ours were under way.
    is_meant: bool,
    /// The broker has no words for what it does not like.
    is_wordless: bool,
}

impl Attempt {
    /// It came to an end before anything was sent, or nothing is under way any more.
    fn idle(trouble: Trouble) -> Attempt {
        Attempt { trouble, suspect: None, had_several: false, is_meant: true, is_wordless: false }
    }
}

/// Messages that were sent and not yet confirmed, in order.
type UnderWay = VecDeque<(RowMessage, Notice)>;

impl MqttOutput {
    fn new(config: MqttOutputConfig, way: Way, stats: Arc<OutputStats>) -> MqttOutput {
        let (progress, retry) = (Progress::default(), Retry::new(Backoff::BROKER));
        let bytes_max = config.batch.bytes;
        let searches = HashMap::new();
        MqttOutput {
            config,
            way,
            session: None,
            progress,
            retry,
            not_before: None,
            searches,
            losses: 0,
            suspects: Suspects::default(),
            has_progressed: false,
            bytes_max,
            quiet_trouble: None,
            stats,
        }
    }

    async fn hand_over(&mut self, rows: &Rows, ids: RowIds<'_>) -> Delivery {
        self.progress.begin(rows, ids);
        loop {
            match self.attempt(rows, ids).await {
                Ok(()) => {
                    self.not_before = None;
                    self.retry.succeeded();
                    return self.finish(ids.statement);
                }
                // a search comes to its end at once: each step rejects a row, or halves what a message may carry
                Err(failure) => match self.failed(failure, ids.statement) {
                    Some(reason) => return Delivery::TryAgain { reason },
                    None => continue,
                },
            }
        }
    }

    /// Ends the batch at hand. Limits under which all rows passed are the broker's own; those that a bad row brought
    /// about are not.
    fn finish(&mut self, statement: &str) -> Delivery {
        self.losses = 0;
        let delivery = self.progress.finish();
        if let Some(limits) = self.searches.remove(statement)
            && delivery == Delivery::Delivered
        {
            self.bytes_max = self.bytes_max.min(limits.bytes);
        }
        delivery
    }

    /// What a message carries at most where no row is looked for.
    fn limits(&self) -> MessageLimits {
        MessageLimits { rows: self.config.batch.rows, bytes: self.bytes_max }
    }

    async fn attempt(&mut self, rows: &Rows, ids: RowIds<'_>) -> Result<(), Attempt> {
        if let Some(at) = self.not_before {
            tokio::time::sleep_until(at).await;
        }
        self.connect().await.map_err(Attempt::idle)?;
        let right = self.way.send_right(self.searches.contains_key(ids.statement)).await;
        let mut under_way = UnderWay::new();
        let mut refusal = None;
        self.has_progressed = false;
        match self.send(rows, ids, &mut under_way, &mut refusal).await {
            Ok(()) => match refusal {
                None => Ok(()),
                Some(text) => Err(Attempt::idle(Trouble::new(text))),
            },
            Err(stuck) => {
                let attempt = self.end_session(stuck, under_way, refusal).await;
                Err(Attempt { is_meant: self.way.is_meant(right.as_ref()), ..attempt })
            }
        }
    }

    /// Sends a row again that the broker confirmed before, where a row is suspected: one that closes the connection at
    /// this one as well takes nothing at all.
    async fn send_witness(&mut self) -> Result<(), Stuck> {
        let Some((session, witness)) = self.session.as_ref().zip(self.suspects.wanted_witness()) else { return Ok(()) };
        let (qos, retain) = (self.config.qos, self.config.retain);
        let payload = Bytes::from(self.config.body.write(&witness.rows));
        let outgoing = Outgoing { topic: &witness.topic_name, payload, qos, retain, properties: Vec::new() };
        let receipt = async {
            match session.client.publish(outgoing).await {
                Some(notice) => notice.receipt().await,
                None => BrokerReceipt::Unknown,
            }
        };
        let receipt = tokio::select! {
            biased;
            receipt = self.way.within(self.config.puback_timeout, receipt) => receipt,
            () = self.way.over(session) => Ok(BrokerReceipt::Unknown),
        };
        match receipt {
            Ok(BrokerReceipt::Taken | BrokerReceipt::TakenForNobody) => {
                self.suspects.witness_confirmed();
                Ok(())
            }
            Ok(BrokerReceipt::Rejected(_) | BrokerReceipt::Refused(_)) => Ok(()),
            Ok(BrokerReceipt::Unknown) => Err(Stuck { message: None, is_timeout: false }),
            Err(_) => Err(Stuck { message: None, is_timeout: true }),
        }
    }

    /// Sends all open rows and waits for their confirmation.
    async fn send(
        &mut self,
        rows: &Rows,
        ids: RowIds<'_>,
        under_way: &mut UnderWay,
        refusal: &mut Option<String>,
    ) -> Result<(), Stuck> {
        self.send_witness().await?;
        let Some(session) = &self.session else { return Err(Stuck { message: None, is_timeout: false }) };
        let search = self.searches.get(ids.statement);
        let window = if search.is_some() { 1 } else { usize::from(WINDOW) };
        let limits = search.copied().unwrap_or_else(|| self.limits());
        let patience = self.config.puback_timeout;
        let mut queue = Queue::new(&self.config, limits, rows, ids, &mut self.progress, &self.suspects);
        loop {
            let has_room = under_way.len() < window;
            if let Some(message) = if has_room { queue.next() } else { None } {
                let sending = match queue.outgoing(&self.config, &message, session) {
                    Ok(outgoing) => tokio::select! {
                        biased;
                        sending = self.way.within(patience, session.client.publish(outgoing)) => sending,
                        () = self.way.over(session) => Ok(None),
                    },
                    Err(reason) => {
                        reject(&mut self.progress, &mut queue, message, reason);
                        continue;
                    }
                };
                match sending {
                    Ok(Some(notice)) => under_way.push_back((message, notice)),
                    Ok(None) => return Err(Stuck { message: None, is_timeout: false }),
                    Err(_) => return Err(Stuck { message: None, is_timeout: true }),
                }
                continue;
            }
            let Some((message, notice)) = under_way.pop_front() else { return Ok(()) };
            let receipt = tokio::select! {
                biased;
                receipt = self.way.within(patience, notice.receipt()) => receipt,
                () = self.way.over(session) => Ok(BrokerReceipt::Unknown),
            };
            match receipt {
                Ok(receipt @ (BrokerReceipt::Taken | BrokerReceipt::TakenForNobody)) => {
                    confirm(&mut self.progress, &self.stats, &message, &receipt);
                    self.has_progressed = true;
                    self.way.confirmed();
                    queue.settled(&message);
                    self.suspects.confirmed(message);
                }
                Ok(BrokerReceipt::Rejected(reason)) => reject(&mut self.progress, &mut queue, message, reason),
                // where messages of a topic go one at a time, what follows it waits with it
                Ok(BrokerReceipt::Refused(reason)) => {
                    self.suspects.refused_at(&message.topic_name);
                    *refusal = Some(reason);
                }
                Ok(BrokerReceipt::Unknown) => return Err(Stuck { message: Some(message), is_timeout: false }),
                Err(_) => return Err(Stuck { message: Some(message), is_timeout: true }),
            }
        }
    }

    /// A live connection, made if there is none.
    async fn connect(&mut self) -> Result<(), Trouble> {
        if let Some(session) = self.session.take_if(|session| self.way.is_over(session)) {
            tracing::debug!(output = %self, "{}", self.way.ended(session, true).await.text);
        }
        if self.session.is_none() {
            self.session = Some(self.way.open().await?);
            self.suspects.connected();
            self.stats.opened.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Ends the connection and finds out what still came through.
    async fn end_session(&mut self, stuck: Stuck, under_way: UnderWay, mut refusal: Option<String>) -> Attempt {
        let had_several = !under_way.is_empty();
        let mut suspect = stuck.message.filter(|_| !had_several);
        let Some(session) = self.session.take() else {
            return Attempt::idle(Trouble::new("no connection".to_owned()));
        };
        let held = session.since.elapsed();
        let is_wordless = !session.client.hears_reasons();
        let mut trouble = match stuck.is_timeout {
            true => self.way.leave(session, self.config.puback_timeout).await,
            false => self.way.ended(session, suspect.is_none() && !had_several).await,
        };
        // with the connection gone a notice has its answer, or never gets one
        for (message, notice) in under_way {
            let receipt = tokio::select! {
                biased;
                receipt = notice.receipt() => receipt,
                () = std::future::ready(()) => BrokerReceipt::Unknown,
            };
            match (receipt, message.rows.as_slice()) {
                (receipt @ (BrokerReceipt::Taken | BrokerReceipt::TakenForNobody), _) => {
                    confirm(&mut self.progress, &self.stats, &message, &receipt);
                    self.suspects.confirmed(message);
                }
                (BrokerReceipt::Rejected(reason), [alone]) => self.progress.reject(alone.row, reason),
                (BrokerReceipt::Refused(reason), _) => {
                    self.suspects.refused_at(&message.topic_name);
                    refusal = Some(reason);
                }
                // open rows are sent again
                (BrokerReceipt::Rejected(_) | BrokerReceipt::Unknown, _) => {}
            }
        }
        // some brokers refuse a row and then end the connection too; the refusal is what a person can do something
        // about
        if let Some(text) = refusal {
            trouble.text = text;
            suspect = None;
        }
        if held > self.config.puback_timeout {
            self.retry.succeeded();
        }
        Attempt { trouble, suspect, had_several, is_meant: true, is_wordless }
    }

    /// Decides what a failure means for the rows, and when to try again; gives why, unless it is the next step of a
    /// search.
    fn failed(&mut self, failure: Attempt, statement: &str) -> Option<String> {
        let Attempt { trouble, suspect, had_several, is_meant, is_wordless } = failure;
        let is_other_version = self.way.failed(&trouble);
        if self.has_progressed && suspect.is_none() {
            self.retry.succeeded();
        }
        let now = Instant::now();
        self.not_before = Some(now + self.retry.failed());
        let mut rejection = trouble.rejection.filter(|_| !is_other_version);
        let may_be_row = is_wordless && rejection.is_none() && trouble.is_bare && is_meant;
        if let Some(message) = suspect.as_ref().filter(|_| may_be_row) {
            match self.suspects.closed_at(message, &self.way, now) {
                Finding::Open => {
                    // alone, so that no other is under way beside it
                    let limits = self.limits();
                    self.searches.entry(statement.to_owned()).or_insert(limits);
                    if self.suspects.is_early() {
                        return None;
                    }
                    return Some(format!("{}: a row to topic `{}` was under way", trouble.text, message.topic_name));
                }
                Finding::AtFault(why) => rejection = Some(why),
                Finding::TopicRefused(why) => return Some(why),
            }
        }
        let Some(reason) = rejection else {
            // what a broker says of a row when it ends the connection may be lost with what it had not read
            self.losses += u32::from((had_several || !is_meant) && !trouble.is_ours);
            if self.losses >= LOSSES_MAX {
                let limits = self.limits();
                self.searches.entry(statement.to_owned()).or_insert(limits);
            }
            return Some(trouble.text);
        };
        self.retry.succeeded();
        match suspect.filter(|_| is_meant).as_ref().map(|message| (message, message.rows.as_slice())) {
            Some((_, [alone])) => self.progress.reject(alone.row, reason),
            Some((message, _)) => {
                self.searches.insert(statement.to_owned(), message.limits().half());
            }
            // it was not sending
            None if self.searches.contains_key(statement) => return Some(trouble.text),
            None => {
                tracing::warn!("looking for the row at fault: {}", trouble.text);
                self.searches.insert(statement.to_owned(), self.limits());
            }
        }
        None
    }
}

/// Where sending came to a halt.
struct Stuck {
    /// the message whose confirmation did not come
    message: Option<RowMessage>,
    is_timeout: bool,
}

fn confirm(progress: &mut Progress, stats: &OutputStats, message: &RowMessage, receipt: &BrokerReceipt) {
    message.rows.iter().for_each(|row| progress.confirm(row.row));
    if *receipt == BrokerReceipt::TakenForNobody {
        stats.without_subscriber.fetch_add(message.rows.len() as u64, Ordering::Relaxed);
    }
}

/// Rejects a row that stands alone; halves the message else.
fn reject(progress: &mut Progress, queue: &mut Queue, message: RowMessage, reason: String) {
    match message.rows.as_slice() {
        [alone] => {
            progress.reject(alone.row, reason);
            queue.settled(&message);
        }
        _ => queue.halve(message),
    }
}

impl Output for MqttOutput {
    fn deliver<'a>(&'a mut self, rows: &'a Rows, ids: RowIds<'a>) -> Delivering<'a> {
        Box::pin(self.hand_over(rows, ids))
    }

    fn tend(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.keep_connection())
    }

    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.way.close(self.session))
    }
}

impl fmt::Display for MqttOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` at {}", self.config.topic, self.way)
    }
}

#[cfg(test)]
mod tests;

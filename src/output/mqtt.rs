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

use tokio::time::Instant;

use super::progress::Progress;
use super::{Delivering, Delivery, Output, OutputStats, RowIds};
use crate::backoff::{Backoff, Retry};
use crate::batch::Rows;
use crate::mqtt::Trouble;
use crate::mqtt::line::SendRight;
use crate::mqtt::wire::{BrokerReceipt, Notice, Outgoing};
use crate::time::{task_now, task_since};
use message::{MessageLimits, Queue, RowMessage};
use session::{Session, WINDOW, Way};
use suspects::{Finding, HowEnded, Suspects};

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
    /// By consumer, where the broker refused a message of its and the row at fault is looked for: its messages go one
    /// at a time and carry at most this.
    searches: HashMap<String, Search>,
    /// By consumer: connections lost with several messages under way, without a batch that came through between them.
    losses: HashMap<String, u32>,
    suspects: Suspects,
    /// The broker confirmed something in the attempt at hand.
    has_progressed: bool,
    /// What the broker was seen to take, where it does not tell its limit.
    bytes_max: usize,
    /// Why there was no connection last while no rows came.
    quiet_trouble: Option<String>,
    stats: Arc<OutputStats>,
}

/// What messages carry at most while the row at fault is looked for.
#[derive(Clone, Copy, Debug)]
struct Search {
    limits: MessageLimits,
    /// All halving was for a reason that has to do with the message.
    is_certain: bool,
}

impl Search {
    fn within(limits: MessageLimits) -> Search {
        Search { limits, is_certain: true }
    }
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
    /// How the connection ended, where that may be the work of a row and the broker has no words for it.
    how: Option<HowEnded>,
}

impl Attempt {
    /// It came to an end before anything was sent, or nothing is under way any more.
    fn idle(trouble: Trouble) -> Attempt {
        Attempt { trouble, suspect: None, had_several: false, is_meant: true, how: None }
    }
}

/// Messages that were sent and not yet confirmed, in order.
type UnderWay = VecDeque<(RowMessage, Notice)>;

impl MqttOutput {
    fn new(config: MqttOutputConfig, way: Way, stats: Arc<OutputStats>) -> MqttOutput {
        let (progress, retry) = (Progress::counted(stats.clone()), Retry::new(Backoff::BROKER));
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
            losses: HashMap::new(),
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
                    return self.finish(ids.consumer);
                }
                // a search comes to its end at once: each step rejects a row, or halves what a message may carry
                Err(failure) => match self.failed(failure, ids.consumer) {
                    Some(delivery) => return delivery.with_untouched(self.progress.is_untouched()),
                    None => continue,
                },
            }
        }
    }

    /// Ends the batch at hand. Limits under which all rows passed are the broker's own; those that a bad row or a
    /// broker that took nothing brought about are not.
    fn finish(&mut self, consumer: &str) -> Delivery {
        self.losses.remove(consumer);
        let delivery = self.progress.finish();
        if let Some(search) = self.searches.remove(consumer)
            && delivery == Delivery::Delivered
            && search.is_certain
        {
            self.bytes_max = self.bytes_max.min(search.limits.bytes);
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
        let right = self.turn(ids.consumer).await.map_err(Attempt::idle)?;
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

    /// A live connection, and the right to send over it. While we waited for that, another output may have left the
    /// connection.
    async fn turn(&mut self, consumer: &str) -> Result<Option<SendRight>, Trouble> {
        loop {
            self.connect().await?;
            let right = self.way.send_right(self.searches.contains_key(consumer)).await;
            let is_over = self.session.as_ref().is_none_or(|session| self.way.is_over(session));
            if right.is_none() || !is_over {
                return Ok(right);
            }
        }
    }

    /// Sends a row again that the broker confirmed before, where a row is suspected: one that closes the connection at
    /// this one as well takes nothing at all.
    async fn send_witness(&mut self) -> Result<(), Stuck> {
        let Some((session, witness)) = self.session.as_ref().zip(self.suspects.wanted_before()) else { return Ok(()) };
        let Ok(outgoing) = again(witness, &self.config, session) else { return Ok(()) };
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
        let search = self.searches.get(ids.consumer);
        let window = if search.is_some() { 1 } else { usize::from(WINDOW) };
        let limits = search.map_or_else(|| self.limits(), |search| search.limits);
        let mut behind = None;
        let patience = self.config.puback_timeout;
        let mut queue = Queue::new(&self.config, limits, rows, ids, &mut self.progress, &self.suspects);
        loop {
            let has_room = under_way.len() < window;
            if let Some(message) = if has_room { queue.next() } else { None } {
                self.progress.touch();
                let sending = match message.outgoing(&self.config, session) {
                    Ok(outgoing) => tokio::select! {
                        biased;
                        sending = self.way.within(patience, session.client.publish(outgoing)) => sending,
                        () = self.way.over(session) => Ok(None),
                    },
                    Err(reason) => {
                        self.suspects.settled(&message);
                        reject(&mut self.progress, &mut queue, message, reason);
                        continue;
                    }
                };
                match sending {
                    Ok(Some(notice)) => {
                        let witness = self.suspects.wanted_behind(&message);
                        let witness = witness.and_then(|witness| again(witness, &self.config, session).ok());
                        // a client that is busy has no room for it, and this connection tells nothing
                        behind = witness.and_then(|witness| session.client.try_publish(witness).ok());
                        under_way.push_back((message, notice));
                    }
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
                Ok(BrokerReceipt::Rejected(reason)) => {
                    self.suspects.settled(&message);
                    reject(&mut self.progress, &mut queue, message, reason);
                }
                // where messages of a topic go one at a time, what follows it waits with it
                Ok(BrokerReceipt::Refused(reason)) => {
                    self.suspects.refused_at(&message.topic_name);
                    *refusal = Some(reason);
                }
                Ok(BrokerReceipt::Unknown) => return Err(Stuck { message: Some(message), is_timeout: false }),
                Err(_) => {
                    if let Some(witness) = behind
                        && matches!(at_once(witness).await, BrokerReceipt::Taken | BrokerReceipt::TakenForNobody)
                    {
                        self.suspects.witness_confirmed();
                    }
                    return Err(Stuck { message: Some(message), is_timeout: true });
                }
            }
        }
    }

    /// A live connection, made if there is none.
    async fn connect(&mut self) -> Result<(), Trouble> {
        if let Some(session) = self.session.take_if(|session| self.way.is_over(session)) {
            tracing::debug!(output = %self, "{}", self.way.ended(session, false, false).await.text);
        }
        if self.session.is_none() {
            self.session = Some(self.way.open().await?);
            self.suspects.connected();
            self.stats.opened.fetch_add(1, Ordering::Relaxed);
            self.stats.tell_connected(&self.way);
        }
        if let Some(session) = &mut self.session
            && let Err(trouble) = self.way.greeted(session).await
        {
            self.session = None;
            return Err(trouble);
        }
        Ok(())
    }

    /// Ends the connection and finds out what still came through.
    async fn end_session(&mut self, stuck: Stuck, under_way: UnderWay, mut refusal: Option<String>) -> Attempt {
        let had_several = !under_way.is_empty();
        let unconfirmed = stuck.message.as_ref().map(|message| message.topic_name.clone());
        let mut suspect = stuck.message.filter(|_| !had_several);
        let Some(session) = self.session.take() else {
            return Attempt::idle(Trouble::new("no connection".to_owned()));
        };
        let held = task_since(session.since);
        let is_wordless = !session.client.hears_reasons();
        let patience = self.config.puback_timeout;
        let mut trouble = match stuck.is_timeout {
            true => self.way.leave(session, unconfirmed.as_deref(), patience).await,
            false => self.way.ended(session, suspect.is_some(), had_several).await,
        };
        // with the connection gone a notice has its answer, or never gets one
        for (message, notice) in under_way {
            match (at_once(notice).await, message.rows.as_slice()) {
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
        let how = match trouble.is_ours {
            true => Some(HowEnded::Silent(patience)).filter(|_| stuck.is_timeout),
            false => Some(HowEnded::Closed).filter(|_| is_wordless && trouble.is_bare),
        };
        if held > patience {
            self.retry.succeeded();
        }
        Attempt { trouble, suspect, had_several, is_meant: true, how }
    }

    /// Decides what a failure means for the rows, and when to try again; gives what to say of it, unless the search for
    /// a row goes on at once.
    fn failed(&mut self, failure: Attempt, consumer: &str) -> Option<Delivery> {
        let Attempt { trouble, suspect, had_several, is_meant, how } = failure;
        let is_other_version = self.way.failed(&trouble);
        // a step of a search that tells something: the broker is there
        let got_further = suspect.is_some() && self.suspects.has_witness();
        if got_further || self.has_progressed && suspect.is_none() && !self.way.is_closed_soon() {
            self.retry.succeeded();
        }
        let now = task_now();
        self.not_before = Some(now + self.retry.failed());
        let mut rejection = trouble.rejection.filter(|_| !is_other_version);
        let mut is_certain = true;
        let may_be_row = how.filter(|_| is_meant && rejection.is_none());
        if let Some((message, how)) = suspect.as_ref().zip(may_be_row) {
            match self.suspects.ended_at(message, how, &self.way, now) {
                Finding::Open => {
                    // alone, so that no other is under way beside it
                    let search = Search::within(self.limits());
                    self.searches.entry(consumer.to_owned()).or_insert(search);
                    if self.suspects.is_early() {
                        return None;
                    }
                    let reason = match how {
                        HowEnded::Closed => {
                            format!("{}: a row to topic `{}` was under way", trouble.text, message.topic_name)
                        }
                        HowEnded::Silent(_) => trouble.text,
                    };
                    return Some(Delivery::TryAgain { reason, got_further, is_untouched: false });
                }
                Finding::AtFault { why, is_proven } => {
                    rejection = Some(why);
                    is_certain = is_proven;
                    self.way.found_row();
                }
                Finding::TopicRefused(why) => return Some(Delivery::try_again(why)),
            }
        }
        let Some(reason) = rejection else {
            // what a broker says of a row when it ends the connection may be lost with what it had not read
            let may_be_ours = had_several || !is_meant;
            // the same holds for one that it never confirms; to send one at a time costs no row
            let is_silent = matches!(how, Some(HowEnded::Silent(_)));
            let losses = self.losses.entry(consumer.to_owned()).or_default();
            *losses += u32::from(may_be_ours && (!trouble.is_ours || is_silent));
            if *losses >= LOSSES_MAX {
                let search = Search::within(self.limits());
                self.searches.entry(consumer.to_owned()).or_insert(search);
            }
            return Some(Delivery::try_again(trouble.text));
        };
        self.retry.succeeded();
        match suspect.filter(|_| is_meant).as_ref().map(|message| (message, message.rows.as_slice())) {
            Some((_, [alone])) => self.progress.reject(alone.row, reason),
            Some((message, _)) => {
                let before = self.searches.get(consumer).is_none_or(|search| search.is_certain);
                let search = Search { limits: message.limits().half(), is_certain: is_certain && before };
                self.searches.insert(consumer.to_owned(), search);
            }
            // it was not sending
            None if self.searches.contains_key(consumer) => return Some(Delivery::try_again(trouble.text)),
            None => {
                tracing::warn!("looking for the row at fault: {}", trouble.text);
                self.searches.insert(consumer.to_owned(), Search::within(self.limits()));
            }
        }
        None
    }
}

/// The broker's answer, if it is there.
async fn at_once(notice: Notice) -> BrokerReceipt {
    tokio::select! {
        biased;
        receipt = notice.receipt() => receipt,
        () = std::future::ready(()) => BrokerReceipt::Unknown,
    }
}

/// A row that was sent before, to be sent once more: it must not take the place of a later one that is retained.
fn again<'a>(witness: &'a RowMessage, config: &MqttOutputConfig, session: &Session) -> Result<Outgoing<'a>, String> {
    Ok(Outgoing { retain: false, ..witness.outgoing(config, session)? })
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

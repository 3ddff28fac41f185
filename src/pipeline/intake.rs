//! From a source to the journal.
//!
//! In: batches of raw messages, each with its token. Out: one append a batch, of the events that the payloads hold and
//! the dead letters for what does not decode. Invariant: a token is told `stored` only after the commit that holds all
//! of its messages. Not here: receiving, decoding fields.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use smol_str::SmolStr;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::Instrument;

use super::failures::Failures;
use super::health::Health;
use crate::batch::RawEvent;
use crate::blocking::{INLINE_BYTES, run_blocking};
use crate::decode::{BadPayload, Payloads};
use crate::journal::{Append, Counter, DeadLetter, Edge, InputId, Journal, JournalError, LetterOrigin};
use crate::kill_point::{self, KillPoint};
use crate::source::{Arrivals, Arrived, SourceStats};

/// One input's way into the journal.
#[derive(Debug)]
pub struct Intake {
    pub name: SmolStr,
    pub input: InputId,
    pub payloads: Payloads,
    pub journal: Journal,
    pub stats: Arc<SourceStats>,
    pub health: Arc<Health>,
    pub failures: Failures,
}

/// What the source counts and the ledger keeps.
const COUNTED: [&str; 3] = ["redelivered", "redelivered_possible", "lost_qos0"];

impl Intake {
    /// Runs until the source is gone or the journal refuses; the task's result is the journal's error, if any. Needs a
    /// tokio runtime. It is a task and not a thread: an event of a slow stream then wakes one thread less.
    pub fn spawn(self, arrivals: mpsc::Receiver<Arrivals>) -> JoinHandle<Result<(), JournalError>> {
        let (health, name) = (self.health.clone(), self.name.clone());
        let running = tokio::spawn(Arc::new(self).run(arrivals).in_current_span());
        tokio::spawn(async move {
            running.await.unwrap_or_else(|ended| {
                if ended.is_panic() {
                    health.fail(format!(
                        "the intake of input {name} panicked, which is a fault of forebay: please report it with the \
                         log"
                    ));
                }
                Ok(())
            })
        })
    }

    async fn run(self: Arc<Self>, mut arrivals: mpsc::Receiver<Arrivals>) -> Result<(), JournalError> {
        let mut counted = [0; COUNTED.len()];
        while let Some(arrivals) = arrivals.recv().await {
            let news = self.news(&mut counted);
            let work: usize = arrivals.messages.iter().map(|m| self.payloads.work(m.payload.len())).sum();
            let append = if work <= INLINE_BYTES {
                self.append(arrivals, news)
            } else {
                let intake = self.clone();
                run_blocking(move || intake.append(arrivals, news)).await
            };
            // nothing is acknowledged meanwhile: the broker keeps what comes
            if !self.health.state.has_room() {
                let health = self.health.clone();
                run_blocking(move || health.state.wait_for_room()).await;
            }
            if let Some(append) = self.journal.try_append(append) {
                let journal = self.journal.clone();
                run_blocking(move || journal.append(append)).await;
            }
            if let Some(error) = self.journal.refusal() {
                if !matches!(error, JournalError::Closed | JournalError::NoRoom { .. }) {
                    self.health.fail(error.to_string());
                }
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn append(&self, Arrivals { messages, ack, urgency }: Arrivals, ledger: Vec<(Counter, u64)>) -> Append {
        kill_point::reached(KillPoint::Receive);
        let mut events = Vec::with_capacity(messages.len());
        let mut undecodable = Vec::new();
        let mut empty = 0;
        let era = messages.iter().map(|message| message.arrival.era).max().unwrap_or_default();
        // what was stamped before arrival time was set back comes before what was stamped after it
        let first = messages.iter().find(|message| message.arrival.era == era).map(|message| message.arrival.at);
        for mut message in messages {
            if let Some(first) = first.filter(|_| message.arrival.era < era) {
                message.arrival.at = first;
            }
            empty += self.split(message, &mut events, &mut undecodable);
        }
        self.failures.note(&undecodable);
        #[cfg(test)]
        let ack = match self.journal.has_planted(crate::journal::planted::Planted::AcknowledgeBeforeCommit) {
            true => {
                ack.stored();
                Box::new(crate::source::ToldBefore)
            }
            false => ack,
        };
        Append {
            input: self.input,
            received: (events.len() + undecodable.len()) as u64 + empty,
            events,
            undecodable,
            dropped: (empty > 0).then_some(("empty", empty)).into_iter().collect(),
            ledger,
            era,
            urgency,
            // a token that is dropped acknowledges nothing: the broker keeps the messages
            on_durable: Box::new(move |stored| {
                if stored.is_ok() {
                    ack.stored();
                }
            }),
        }
    }

    /// Gives how many payloads were empty.
    fn split(&self, message: Arrived, events: &mut Vec<RawEvent>, undecodable: &mut Vec<DeadLetter>) -> u64 {
        let split = self.payloads.split(&message.payload, &message.message.name);
        let arrival = message.arrival.at;
        // what the clock said is a fact of the message: an event has to tell it whenever it is read
        let meta = match message.arrival.is_trusted {
            true => message.message.clone(),
            false => Arc::new(message.message.untimed()),
        };
        let is_part = split.events.len() + split.bad.len() > 1;
        events.extend(split.events.into_iter().map(|payload| RawEvent {
            arrival,
            payload,
            message: meta.clone(),
            mark: message.mark,
        }));
        undecodable.extend(split.bad.into_iter().map(|bad| DeadLetter {
            at: arrival,
            stage: SmolStr::new(format!("input {}", self.name)),
            reason: SmolStr::new_static("undecodable"),
            message: format!("{} ({}topic {})", bad.error, place(&bad, is_part), meta.name),
            input: Some(self.name.clone()),
            payload: bad.payload.to_vec(),
            attempts: 1,
            origin: Some(LetterOrigin::Message { arrival, message: message.message.clone(), mark: message.mark }),
            ..DeadLetter::default()
        }));
        split.empty
    }

    /// What the source counted since it was last asked.
    fn news(&self, counted: &mut [u64; COUNTED.len()]) -> Vec<(Counter, u64)> {
        let now = [&self.stats.redelivered, &self.stats.redelivered_possible, &self.stats.lost_qos0]
            .map(|n| n.load(Ordering::Relaxed));
        let mut news = Vec::new();
        for ((what, now), before) in COUNTED.into_iter().zip(now).zip(counted) {
            if now > *before {
                news.push((Counter::new(Edge::Input, self.name.clone(), what), now - *before));
                *before = now;
            }
        }
        news
    }
}

/// Where a part stands in its payload, for its dead letter.
fn place(bad: &BadPayload, is_part: bool) -> String {
    if is_part { format!("byte {} of the payload, ", bad.position) } else { String::new() }
}

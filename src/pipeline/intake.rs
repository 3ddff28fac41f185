//! From a source to the journal.
//!
//! In: batches of raw messages, each with its token. Out: one append a batch, of the events that the payloads hold and
//! the dead letters for what does not decode. Invariant: a token is told `stored` only after the commit that holds all
//! of its messages. Not here: receiving, decoding fields.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use smol_str::SmolStr;
use tokio::sync::mpsc;

use super::health::Health;
use crate::batch::RawEvent;
use crate::decode::{BadPayload, Payloads};
use crate::journal::{Append, Counter, DeadLetter, Edge, InputId, Journal, JournalError};
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
}

/// What the source counts and the ledger keeps.
const COUNTED: [&str; 3] = ["redelivered", "redelivered_possible", "lost_qos0"];

impl Intake {
    /// Runs until the source is gone or the journal refuses; the thread's result is the journal's error, if any.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn spawn(self, arrivals: mpsc::Receiver<Arrivals>) -> std::io::Result<JoinHandle<Result<(), JournalError>>> {
        let span = tracing::Span::current();
        std::thread::Builder::new().name(format!("intake {}", self.name)).spawn(move || {
            let _span = span.entered();
            let health = self.health.clone();
            let name = self.name.clone();
            catch_unwind(AssertUnwindSafe(|| self.run(arrivals))).unwrap_or_else(|_| {
                health.fail(format!(
                    "the intake of input {name} panicked, which is a fault of forebay: please report it with the log"
                ));
                Ok(())
            })
        })
    }

    fn run(self, mut arrivals: mpsc::Receiver<Arrivals>) -> Result<(), JournalError> {
        let mut counted = [0; COUNTED.len()];
        while let Some(Arrivals { messages, ack, urgency }) = arrivals.blocking_recv() {
            let mut events = Vec::with_capacity(messages.len());
            let mut undecodable = Vec::new();
            let mut empty = 0;
            for message in messages {
                empty += self.split(message, &mut events, &mut undecodable);
            }
            let append = Append {
                input: self.input,
                received: (events.len() + undecodable.len()) as u64 + empty,
                events,
                undecodable,
                dropped: (empty > 0).then_some(("empty", empty)).into_iter().collect(),
                ledger: self.news(&mut counted),
                urgency,
                // a token that is dropped acknowledges nothing: the broker keeps the messages
                on_durable: Box::new(move |stored| {
                    if stored.is_ok() {
                        ack.stored();
                    }
                }),
            };
            // nothing is acknowledged meanwhile: the broker keeps what comes
            self.health.state.wait_for_room();
            self.journal.append(append);
            if let Some(error) = self.journal.refusal() {
                self.health.fail(error.to_string());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Gives how many payloads were empty.
    fn split(&self, message: Arrived, events: &mut Vec<RawEvent>, undecodable: &mut Vec<DeadLetter>) -> u64 {
        let split = self.payloads.split(&message.payload, &message.message.name);
        let is_part = split.events.len() + split.bad.len() > 1;
        events.extend(split.events.into_iter().map(|payload| RawEvent {
            arrival: message.arrival,
            payload,
            message: message.message.clone(),
            mark: message.mark,
        }));
        undecodable.extend(split.bad.into_iter().map(|bad| DeadLetter {
            at: message.arrival,
            stage: SmolStr::new(format!("input {}", self.name)),
            reason: SmolStr::new_static("undecodable"),
            message: format!("{} ({}topic {})", bad.error, place(&bad, is_part), message.message.name),
            input: Some(self.name.clone()),
            payload: bad.payload.to_vec(),
            attempts: 1,
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

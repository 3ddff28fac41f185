//! What the callers of the journal hand in and get back: plain data.
//!
//! In and out: [`Append`], [`Commit`], [`ConsumerSpec`], [`Receipt`] and the numbers of inputs, streams and consumers.
//! Not here: how they wait (`queue`) and what is done with them (`transaction`, `consumer`).

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::sync::mpsc::{Receiver, TryRecvError};

use smol_str::SmolStr;

use super::config::BacklogLimits;
use super::dead_letter::DeadLetter;
use super::error::JournalError;
use super::ledger::Counter;
use crate::batch::{RawEvent, Reason, Rows, Urgency};
use crate::time::Timestamp;

/// Number of an input in this journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InputId(pub u16);

/// Number of a stream in this journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

impl StreamId {
    /// The one sequence of all inputs.
    pub const INPUTS: StreamId = StreamId(super::books::INPUTS);
}

/// Number of a consumer in this journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerId(pub u32);

/// Runs on the writer thread when an append is durable (its offsets) or will never be; must be quick and must not wait
/// for the journal.
pub type OnDurable = Box<dyn FnOnce(Result<Range<i64>, JournalError>) + Send>;

/// What came in: events of one input, and what did not become one.
pub struct Append {
    pub input: InputId,
    pub events: Vec<RawEvent>,
    /// How many records came in, as the source counted them: stored, undecodable and dropped ones.
    pub received: u64,
    /// Each counts as one undecodable record.
    pub undecodable: Vec<DeadLetter>,
    pub dropped: Vec<(Reason, u64)>,
    /// Whatever else the source counts (`redelivered`, …).
    pub ledger: Vec<(Counter, u64)>,
    /// Of which era the arrivals are; see [`Eras`](crate::arrival::Eras).
    pub era: u32,
    pub urgency: Urgency,
    pub on_durable: OnDurable,
}

impl fmt::Debug for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Append").field("input", &self.input).field("events", &self.events.len()).finish_non_exhaustive()
    }
}

/// One key of an operator's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    pub op: u32,
    pub key: Vec<u8>,
    /// `None` removes the key.
    pub value: Option<Vec<u8>>,
}

/// One key of an operator's state, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateEntry {
    pub op: u32,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// What a consumer did since its last commit; all of it is stored, or none.
#[derive(Clone, Debug)]
pub struct Commit {
    pub consumer: ConsumerId,
    /// The next offset it will read.
    pub position: i64,
    pub state: Vec<StateChange>,
    pub emit: Option<(StreamId, Rows)>,
    /// Rows for a second stream, which somebody else reads.
    pub aside: Option<(StreamId, Rows)>,
    pub dead_letters: Vec<DeadLetter>,
    pub ledger: Vec<(Counter, u64)>,
    /// How far the consumer let arrival time pass, and in which era: no event of that era that is stored later gets a
    /// lower one.
    pub reached: Timestamp,
    pub era: u32,
    /// A crash that loses it costs no more than doing the same again, so it may go with the next commit.
    pub can_wait: bool,
}

impl Commit {
    /// A commit that only moves the consumer.
    pub fn at(consumer: ConsumerId, position: i64) -> Commit {
        Commit {
            consumer,
            position,
            state: Vec::new(),
            emit: None,
            aside: None,
            dead_letters: Vec::new(),
            ledger: Vec::new(),
            reached: Timestamp::MIN,
            era: 0,
            can_wait: false,
        }
    }

    /// Makes one of two commits of a consumer that follow each other. The later one emits nothing yet.
    pub fn then(&mut self, later: Commit) {
        self.position = later.position;
        self.state.extend(later.state);
        self.dead_letters.extend(later.dead_letters);
        self.ledger.extend(later.ledger);
        // answers in any order bring those of an earlier era behind those of a later one
        self.reached = match later.era.cmp(&self.era) {
            Ordering::Greater => later.reached,
            Ordering::Equal => self.reached.max(later.reached),
            Ordering::Less => self.reached,
        };
        self.era = self.era.max(later.era);
        self.can_wait &= later.can_wait;
    }

    /// The rows that it emits, by stream.
    pub fn emitted(&self) -> impl Iterator<Item = &(StreamId, Rows)> {
        self.emit.iter().chain(&self.aside)
    }

    /// About how many bytes it holds.
    pub fn bytes(&self) -> usize {
        let rows: usize = self.emitted().map(|(_, rows)| rows.batch.bytes()).sum();
        let state: usize = self.state.iter().map(|s| 64 + s.key.len() + s.value.as_ref().map_or(0, Vec::len)).sum();
        rows + state + letters_bytes(&self.dead_letters)
    }
}

pub(super) fn letters_bytes(letters: &[DeadLetter]) -> usize {
    letters.iter().map(|letter| letter.bytes() as usize).sum()
}

/// Where a consumer begins that the journal has not seen before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the next record.
    #[default]
    Now,
    /// With the oldest record that is still there.
    Oldest,
}

/// What happens to a consumer that holds the oldest records when the byte budget is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// Intake stops until it has caught up.
    #[default]
    Block,
    /// It is moved past them, counted.
    DropOldest,
}

#[derive(Clone, Debug)]
pub struct ConsumerSpec {
    pub name: SmolStr,
    /// Text of the statement and its steps; another text clears the state and keeps the position.
    pub fingerprint: String,
    pub stream: StreamId,
    pub start: Start,
    pub on_full: OnFull,
    pub limits: BacklogLimits,
}

impl ConsumerSpec {
    /// One that reads all there is, holds intake up when it is away, and has no limits of its own.
    pub fn new(name: impl Into<SmolStr>, stream: StreamId) -> ConsumerSpec {
        ConsumerSpec {
            name: name.into(),
            fingerprint: String::new(),
            stream,
            start: Start::Oldest,
            on_full: OnFull::Block,
            limits: BacklogLimits::default(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerInfo {
    pub id: ConsumerId,
    /// The next offset it reads.
    pub position: i64,
    /// The journal had not seen it (or it read another stream).
    pub is_new: bool,
    /// Its fingerprint is another one: the position is kept, the state is to be cleared.
    pub changed: bool,
}

/// A consumer that is no longer part of the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedConsumer {
    pub name: SmolStr,
    /// How many records it had not read.
    pub unread: u64,
}

/// What became of dead letters that were tried again; all of it is stored, or none.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// Went through, or further than before: they leave the table.
    pub done: Vec<i64>,
    /// Failed as before, by number.
    pub again: Vec<(i64, DeadLetter)>,
    /// Came out of those that are done, and failed further on.
    pub letters: Vec<DeadLetter>,
    pub emit: Option<(StreamId, Rows)>,
    /// Events that payloads gave after all.
    pub events: Option<(InputId, Vec<RawEvent>)>,
    /// The era of arrival time in which those were stamped.
    pub era: u32,
    pub ledger: Vec<(Counter, u64)>,
}

/// The answer to a commit, to be waited for.
#[derive(Debug)]
pub struct Receipt(pub(super) Receiver<Result<(), JournalError>>);

impl Receipt {
    /// Waits until the commit is durable.
    pub fn wait(self) -> Result<(), JournalError> {
        self.0.recv().unwrap_or(Err(JournalError::Closed))
    }

    /// The answer if there is one already.
    pub fn poll(&self) -> Option<Result<(), JournalError>> {
        match self.0.try_recv() {
            Ok(answer) => Some(answer),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(JournalError::Closed)),
        }
    }
}

/// Runs on the writer thread when a commit is durable or refused.
pub type OnCommitted = Box<dyn FnOnce(Result<(), JournalError>) + Send>;

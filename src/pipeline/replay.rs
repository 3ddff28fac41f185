//! Dead letters once more through the job as it is now.
//!
//! In: which letters, and what a person changed in them. Out: rows and events where the job goes on with them, letters
//! that failed again, and what was refused, counted. Invariant: a letter leaves the table in the transaction that
//! stores its outcome, or behind the delivery of its row; so a crash repeats rows, with their ids, and loses none. Not
//! here: the order of the job's own rows, which a replay has no part in.

mod batches;
mod edit;
mod plan;
mod way;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::stop::Stop;
use crate::arrival::ArrivalClock;
use crate::batch::RawEvent;
use crate::control::{ReplayOutcome, ReplayRequest};
use crate::journal::{
    Counter, DeadLetter, Edge, Journal, JournalError, LetterFilter, LetterOrigin, Replayed, StoredDeadLetter,
    dead_letters_readonly, what,
};
use crate::output::REPLAY;
use crate::time::Clock;
use crate::value::{SmolStr, from_base64};
use plan::ReplayInput;
pub use plan::ReplayPlan;
use way::ReplayWay;

/// Letters of one request: rows of a request to an endpoint or an output.
const LETTERS_MAX: usize = 200;
/// How long a request waits for endpoints and outputs, all together, before it leaves letters as they are.
const PATIENCE: Duration = Duration::from_secs(30);
/// Why an edit is not tried.
const GONE: &str = "they are no dead letters of this pool any more";

/// What replays the letters of a running job.
#[derive(Debug)]
pub struct Replayer {
    pub journal: Journal,
    pub plan: ReplayPlan,
    pub stop: Stop,
    pub clock: Clock,
    pub arrival: ArrivalClock,
    /// Two at once would send a row twice.
    busy: Mutex<()>,
}

/// A letter on its way: the rows it has given so far, and what is counted once it has an outcome.
#[derive(Debug)]
struct Tried {
    stored: StoredDeadLetter,
    rows: usize,
    counts: Vec<(Counter, u64)>,
}

/// Letters that go one way, and what became of them.
#[derive(Debug, Default)]
struct ReplayTurn {
    replayed: Replayed,
    /// How many are letters again.
    failed: u64,
    /// How many of these are done as what they were.
    further: u64,
    refused: BTreeMap<String, u64>,
    /// Somebody was waited for too long.
    gave_up: bool,
}

impl ReplayTurn {
    fn refuse(&mut self, why: impl Into<String>, letters: usize) {
        if letters > 0 {
            *self.refused.entry(why.into()).or_default() += letters as u64;
        }
    }

    /// A letter went through.
    fn pass(&mut self, tried: Tried) {
        self.replayed.ledger.extend(tried.counts);
        self.replayed.done.push(tried.stored.id);
    }

    /// A letter failed: as before, or further on as a new one.
    fn fail(&mut self, Tried { stored, counts, .. }: Tried, letter: DeadLetter) {
        self.replayed.ledger.extend(counts);
        self.failed += 1;
        let old = &stored.letter;
        let letter = DeadLetter { attempts: old.attempts.saturating_add(1), ..letter };
        let is_same =
            |a: &DeadLetter, b: &DeadLetter| (&a.stage, a.offset, a.ordinal) == (&b.stage, b.offset, b.ordinal);
        if is_same(&letter, old) {
            self.replayed.again.push((stored.id, letter));
        } else {
            self.further += 1;
            self.replayed.done.push(stored.id);
            self.replayed.letters.push(letter);
        }
    }
}

impl Replayer {
    pub fn new(journal: Journal, plan: ReplayPlan, stop: Stop, clock: Clock, arrival: ArrivalClock) -> Replayer {
        Replayer { journal, plan, stop, clock, arrival, busy: Mutex::default() }
    }

    /// Keeps others from changing dead letters: one that is dropped while it is tried would come back.
    fn alone(&self) -> Result<MutexGuard<'_, ()>, String> {
        match self.busy.try_lock() {
            Ok(busy) => Ok(busy),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                Err("another replay is under way: ask again when it is through".to_owned())
            }
        }
    }

    /// Drops dead letters for good; gives how many.
    ///
    /// # Errors
    /// A replay is under way, or the journal takes nothing.
    pub fn drop_letters(&self, filter: LetterFilter) -> Result<u64, String> {
        let _busy = self.alone()?;
        self.journal.drop_dead_letters(filter).map_err(|e| e.to_string())
    }

    /// Replays a bounded number of letters; on a thread that may block.
    ///
    /// # Errors
    /// Why nothing more was done, for whoever asked; what was done before stays.
    pub fn replay(&self, request: ReplayRequest) -> Result<ReplayOutcome, String> {
        let _busy = self.alone()?;
        if self.journal.is_full() {
            return Err("the pool is full: replay when there is room for what comes out".to_owned());
        }
        let ReplayRequest { mut filter, edits } = request;
        let mut payloads: Option<HashMap<i64, Vec<u8>>> = None;
        if let Some(edits) = edits {
            let each = edits.into_iter().map(|edit| {
                let bytes =
                    from_base64(&edit.payload).ok_or_else(|| format!("the payload of {} is no base64", edit.id));
                bytes.map(|bytes| (edit.id, bytes))
            });
            let edited: HashMap<i64, Vec<u8>> = each.collect::<Result<_, String>>()?;
            filter.ids = Some(edited.keys().copied().collect());
            payloads = Some(edited);
        }
        let mut letters =
            dead_letters_readonly(self.journal.path(), &filter, LETTERS_MAX + 1).map_err(|e| e.to_string())?;
        let has_more = letters.len() > LETTERS_MAX;
        letters.truncate(LETTERS_MAX);
        let next = letters.last().map(|last| last.id).filter(|_| has_more);
        let mut outcome = ReplayOutcome { next, ..ReplayOutcome::default() };
        let mut refused: BTreeMap<String, u64> = BTreeMap::new();
        let mut ways: Vec<(ReplayWay<'_>, Vec<StoredDeadLetter>)> = Vec::new();
        for stored in &mut letters {
            let edit = payloads.as_mut().and_then(|edited| edited.remove(&stored.id));
            let is_edited = edit.is_some();
            if let Some(payload) = edit {
                stored.letter.payload = payload;
            }
            match self.way(&stored.letter, is_edited) {
                Ok(way) => match ways.iter_mut().find(|(known, _)| known.is_same(&way)) {
                    Some((_, together)) => together.push(stored.clone()),
                    None => ways.push((way, vec![stored.clone()])),
                },
                Err(why) => *refused.entry(why).or_default() += 1,
            }
        }
        // what came behind a full page is asked for next
        let gone = payloads.filter(|_| outcome.next.is_none()).map_or(0, |edited| edited.len());
        if gone > 0 {
            *refused.entry(GONE.to_owned()).or_default() += gone as u64;
        }
        let deadline = self.clock.monotonic() + PATIENCE;
        let mut waiting: VecDeque<_> = ways.into();
        while let Some((way, letters)) = waiting.pop_front() {
            let turn = self.turn(&way, letters.clone(), deadline);
            let done = (turn.replayed.done.len() as u64).saturating_sub(turn.further);
            match self.journal.replay(turn.replayed) {
                Ok(()) => outcome.done += done,
                // nothing of it was stored: the letter at fault is found, and the others go on
                Err(JournalError::Rows { .. } | JournalError::Payload { .. }) if letters.len() > 1 => {
                    letters.into_iter().rev().for_each(|letter| waiting.push_front((way.clone(), vec![letter])));
                    continue;
                }
                Err(error @ (JournalError::Rows { .. } | JournalError::Payload { .. })) => {
                    *refused.entry(format!("what comes out cannot be stored: {error}")).or_default() += 1;
                    continue;
                }
                Err(error) => {
                    outcome.ended = Some(error.to_string());
                    break;
                }
            }
            outcome.failed += turn.failed;
            outcome.gave_up |= turn.gave_up;
            turn.refused.into_iter().for_each(|(why, n)| *refused.entry(why).or_default() += n);
        }
        outcome.refused = refused.into_iter().collect();
        Ok(outcome)
    }

    fn turn(&self, way: &ReplayWay<'_>, letters: Vec<StoredDeadLetter>, deadline: Instant) -> ReplayTurn {
        match way {
            ReplayWay::Decode(input) => self.decoded(input, letters),
            ReplayWay::Events(part, input) => self.executed(part, input, letters, deadline),
            ReplayWay::Scoring(part, call) => self.scored(part, call, letters, deadline),
            ReplayWay::Delivery(output, statement) => self.delivered(output, statement, letters, deadline),
        }
    }

    /// Payloads that were no events.
    fn decoded(&self, input: &ReplayInput, letters: Vec<StoredDeadLetter>) -> ReplayTurn {
        let mut turn = ReplayTurn::default();
        let now = self.arrival.now();
        let arrival = now.at;
        turn.replayed.era = now.era;
        let (mut events, mut received, mut stored_events) = (Vec::new(), 0, 0);
        let counter = |what: &'static str| Counter::new(Edge::Input, input.name.clone(), what);
        for stored in &letters {
            let letter = &stored.letter;
            let Some(LetterOrigin::Message { message, .. }) = &letter.origin else { continue };
            let split = input.payloads.split_again(&Bytes::from(letter.payload.clone()), &message.name);
            // as an event that comes now
            let meta = if now.is_trusted { message.clone() } else { Arc::new(message.untimed()) };
            // no mark: it is no redelivery of what its broker may still send
            let event = |payload| RawEvent { arrival, payload, message: meta.clone(), mark: 0 };
            let found = split.events.len();
            let mut bad: Vec<(Vec<u8>, String)> =
                split.bad.into_iter().map(|b| (b.payload.to_vec(), b.error)).collect();
            if found == 0 && bad.is_empty() {
                bad.push((letter.payload.clone(), "the payload holds no event".to_owned()));
            }
            events.extend(split.events.into_iter().map(event));
            received += found + bad.len();
            stored_events += found;
            turn.replayed.ledger.push((counter(what::UNDECODABLE).because(letter.reason.clone()), bad.len() as u64));
            let is_as_before = found == 0 && bad.len() == 1;
            let split_badly = !bad.is_empty();
            turn.failed += u64::from(split_badly);
            for (payload, error) in bad {
                let message = format!("{error} (topic {})", message.name);
                let attempts = letter.attempts.saturating_add(1);
                let again = DeadLetter { payload, message, attempts, ..letter.clone() };
                match is_as_before {
                    true => turn.replayed.again.push((stored.id, again)),
                    false => turn.replayed.letters.push(again),
                }
            }
            if !is_as_before {
                turn.further += u64::from(split_badly);
                turn.replayed.done.push(stored.id);
            }
        }
        turn.replayed.ledger.push((counter(what::RECEIVED), received as u64));
        turn.replayed.ledger.push((counter(what::STORED), stored_events as u64));
        turn.replayed.events = Some((input.id, events)).filter(|(_, events)| !events.is_empty());
        turn
    }

    fn is_over(&self, deadline: Instant) -> bool {
        self.stop.is_set() || self.clock.monotonic() >= deadline
    }
}

/// The consumer by which outputs tell a replay from the statements' own ways.
fn consumer_of(statement: &SmolStr) -> SmolStr {
    SmolStr::new(format!("{REPLAY}{statement}"))
}

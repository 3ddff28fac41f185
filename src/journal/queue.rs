//! Commands waiting for the writer.
//!
//! In: commands from any thread, each in a lane: control, intake, one a consumer. Out: all that may run, together, when
//! a group commit is due. Invariant: a lane keeps its order and is bounded in count and bytes, and a lane that may not
//! run (intake while the journal is full) never holds back another. Not here: what commands do.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::command::Command;
use super::error::JournalError;
use crate::batch::Urgency;
use crate::time::Clock;

/// Commands of one lane: enough for the smallest batches of one commit interval.
const LANE_COMMANDS_MAX: usize = 1024;
/// Bytes of one lane: several transactions of intake; a single larger command is let in alone.
const LANE_BYTES_MAX: usize = 8 << 20;

/// How long a command that can wait does, and how many of them a lane has at most: half of what a consumer lets be
/// under way.
const PATIENCE: Duration = Duration::from_secs(5);
const PATIENT_COMMANDS_MAX: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    /// First in every transaction.
    Control,
    Intake,
    Consumer(u32),
}

pub(super) struct LaneCommand {
    pub lane: Lane,
    pub command: Command,
    records: usize,
    bytes: usize,
    added: Instant,
}

impl LaneCommand {
    fn new(lane: Lane, command: Command) -> LaneCommand {
        let (records, bytes) = command.size();
        LaneCommand { lane, command, records, bytes, added: Clock::Real.monotonic() }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl std::fmt::Debug for LaneCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneCommand").field("lane", &self.lane).field("records", &self.records).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct LaneQueue {
    entries: VecDeque<LaneCommand>,
    /// of the entries
    records: usize,
    /// How many of the entries are wanted soon, and how many at once.
    soon: usize,
    at_once: usize,
    /// These two include what the writer has taken and not yet released.
    count: usize,
    bytes: usize,
}

impl LaneQueue {
    fn count_of(&mut self, urgency: Urgency) -> Option<&mut usize> {
        match urgency {
            Urgency::InBudget => None,
            Urgency::Soon => Some(&mut self.soon),
            Urgency::AtOnce => Some(&mut self.at_once),
        }
    }

    fn joined(&mut self, urgency: Urgency) {
        self.count_of(urgency).into_iter().for_each(|count| *count += 1);
    }

    fn left(&mut self, urgency: Urgency) {
        self.count_of(urgency).into_iter().for_each(|count| *count = count.saturating_sub(1));
    }

    /// Of the most urgent entry.
    fn urgency(&self) -> Urgency {
        match (self.soon, self.at_once) {
            (0, 0) => Urgency::InBudget,
            (_, 0) => Urgency::Soon,
            _ => Urgency::AtOnce,
        }
    }
}

/// What may not run while the journal is full.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gate {
    pub intake_stopped: bool,
    /// Streams that may not grow: somebody has yet to read what they hold.
    pub stopped_streams: BTreeSet<u32>,
}

impl Gate {
    fn lets(&self, command: &Command) -> bool {
        match command {
            Command::Append(_) => !self.intake_stopped,
            other => other.emits_to().all(|stream| !self.stopped_streams.contains(&stream)),
        }
    }
}

#[derive(Debug, Default)]
struct Lanes {
    lanes: BTreeMap<Lane, LaneQueue>,
    gate: Gate,
    /// Commands of a lane that one transaction takes; `None`: all.
    take_max: Option<usize>,
    flush: bool,
    closing: bool,
    /// The writer waits: by this rule, and until then where nothing wakes it.
    waits: Option<(Rule, Instant)>,
    /// How many wait for room in their lane.
    want_room: usize,
    /// Why nothing is taken any more.
    refusal: Option<JournalError>,
}

impl Lanes {
    fn has_room(&mut self, lane: Lane, bytes: usize) -> bool {
        let waiting = self.lanes.entry(lane).or_default();
        waiting.count == 0 || (waiting.count < LANE_COMMANDS_MAX && waiting.bytes + bytes <= LANE_BYTES_MAX)
    }

    /// What could be committed now; `None` when there is nothing to do.
    fn runnable(&self) -> Option<Runnable> {
        let mut all: Option<Runnable> = None;
        for waiting in self.lanes.values() {
            let Some(front) = waiting.entries.front().filter(|e| self.gate.lets(&e.command)) else { continue };
            let found = all.get_or_insert(Runnable {
                records: 0,
                is_lane_full: false,
                patient_since: Some(front.added),
                urgency: Urgency::InBudget,
            });
            found.urgency = found.urgency.max(waiting.urgency());
            found.records += waiting.records;
            found.is_lane_full |= waiting.count >= LANE_COMMANDS_MAX / 2 || waiting.bytes >= LANE_BYTES_MAX / 2;
            let is_patient =
                waiting.entries.len() < PATIENT_COMMANDS_MAX && waiting.entries.iter().all(|e| e.command.can_wait());
            found.patient_since = found.patient_since.map(|since| since.min(front.added)).filter(|_| is_patient);
        }
        all
    }

    /// When a commit is due; `None`: there is nothing to do.
    fn due(&self, rule: Rule) -> Option<Due> {
        let Runnable { records, is_lane_full, patient_since, urgency } = self.runnable()?;
        if self.flush || self.closing || is_lane_full || records >= rule.records || urgency == Urgency::AtOnce {
            return Some(Due::Now);
        }
        let next = if urgency == Urgency::Soon { rule.next_soon } else { rule.next };
        Some(Due::At(patient_since.map_or(next, |since| next.max(since + PATIENCE))))
    }

    fn take_runnable(&mut self) -> Vec<LaneCommand> {
        let mut taken = Vec::new();
        let take_max = self.take_max.unwrap_or(usize::MAX);
        for waiting in self.lanes.values_mut() {
            let end = taken.len().saturating_add(take_max);
            while taken.len() < end && waiting.entries.front().is_some_and(|e| self.gate.lets(&e.command)) {
                let Some(entry) = waiting.entries.pop_front() else { break };
                waiting.records = waiting.records.saturating_sub(entry.records);
                waiting.left(entry.command.urgency());
                taken.push(entry);
            }
        }
        taken
    }
}

/// What could be committed now.
#[derive(Debug)]
struct Runnable {
    records: usize,
    is_lane_full: bool,
    /// Nothing but commands that can wait, and since when the oldest does.
    patient_since: Option<Instant>,
    urgency: Urgency,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Now,
    At(Instant),
}

/// When a group commit is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// Not before this, whatever waits.
    pub next: Instant,
    /// The same for a command that is wanted soon.
    pub next_soon: Instant,
    /// This number of records is due at once.
    pub records: usize,
}

/// What the writer does next.
#[derive(Debug)]
pub(super) enum Turn {
    /// A group commit of these is due.
    Commit(Vec<LaneCommand>),
    /// Nothing to do until the time given.
    Idle,
    /// Closing, and nothing that may run is left.
    Closing,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<Lanes>,
    /// Something may run.
    work: Condvar,
    /// A lane got room.
    room: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Lanes> {
        // no code that could panic runs under this lock
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room in the lane, then adds the command; a queue that is closed refuses it.
    pub fn push(&self, lane: Lane, command: Command) {
        let entry = LaneCommand::new(lane, command);
        let mut state = self.lock();
        let refusal = loop {
            if let Some(error) = &state.refusal {
                break error.clone();
            }
            if state.has_room(lane, entry.bytes) {
                self.add(state, entry);
                return;
            }
            state.want_room += 1;
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.want_room -= 1;
        };
        // the answer runs code of the caller
        drop(state);
        entry.command.refuse(refusal);
    }

    /// Adds the command, or gives it back when the lane is full or stopped.
    pub fn try_push(&self, lane: Lane, command: Command) -> Option<Command> {
        let entry = LaneCommand::new(lane, command);
        let mut state = self.lock();
        if let Some(error) = state.refusal.clone() {
            drop(state);
            entry.command.refuse(error);
            return None;
        }
        if !state.gate.lets(&entry.command) || !state.has_room(lane, entry.bytes) {
            return Some(entry.command);
        }
        self.add(state, entry);
        None
    }

    fn add(&self, mut guard: MutexGuard<'_, Lanes>, entry: LaneCommand) {
        let state = &mut *guard;
        let waiting = state.lanes.entry(entry.lane).or_default();
        waiting.count += 1;
        waiting.bytes += entry.bytes;
        waiting.records += entry.records;
        waiting.joined(entry.command.urgency());
        // somebody waits for the answer
        state.flush |= entry.lane == Lane::Control;
        waiting.entries.push_back(entry);
        // what only adds to a commit that is due later wakes nobody
        let changes = |(rule, until): (Rule, Instant)| match state.due(rule) {
            Some(Due::Now) => true,
            Some(Due::At(due)) => due < until,
            None => false,
        };
        if state.waits.is_some_and(changes) {
            state.waits = None;
            // not to wake it before it can have the lock
            drop(guard);
            self.work.notify_one();
        }
    }

    /// Makes what waits due at once.
    pub fn flush(&self) {
        self.lock().flush = true;
        self.work.notify_one();
    }

    /// Waits until a commit is due: at the time that the rule says, or when enough records wait, or somebody asked.
    /// Commands that can wait make none due for [`PATIENCE`], and go with the next one.
    pub fn take(&self, rule: Rule, idle_until: Instant) -> Turn {
        let mut state = self.lock();
        loop {
            let now = Clock::Real.monotonic();
            let wait_until = match state.due(rule) {
                None if state.closing => return Turn::Closing,
                None => idle_until,
                Some(Due::At(due)) if due > now => due,
                Some(_) => {
                    state.flush = false;
                    return Turn::Commit(state.take_runnable());
                }
            };
            let Some(left) = wait_until.checked_duration_since(now).filter(|d| !d.is_zero()) else {
                return Turn::Idle;
            };
            state.waits = Some((rule, wait_until));
            state = self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            state.waits = None;
        }
    }

    /// The writer is done with these: their room is free again.
    pub fn release(&self, entries: &[LaneCommand]) {
        let mut state = self.lock();
        for entry in entries {
            if let Some(waiting) = state.lanes.get_mut(&entry.lane) {
                waiting.count = waiting.count.saturating_sub(1);
                waiting.bytes = waiting.bytes.saturating_sub(entry.bytes);
            }
        }
        let is_wanted = state.want_room > 0;
        drop(state);
        if is_wanted {
            self.room.notify_all();
        }
    }

    /// The next transactions are small: what did not fit together may fit one by one.
    pub fn shrink(&self) {
        self.lock().take_max = Some(1);
    }

    /// A transaction of these was stored: if it took as much of a lane as it might, the next may be twice as large.
    pub fn grow(&self, entries: &[LaneCommand]) {
        let mut state = self.lock();
        let Some(max) = state.take_max else { return };
        let most = entries.chunk_by(|a, b| a.lane == b.lane).map(<[LaneCommand]>::len).max();
        if most.is_some_and(|most| most >= max) {
            state.take_max = Some(max * 2).filter(|max| *max < LANE_COMMANDS_MAX);
        }
    }

    /// Puts commands of a transaction that was rolled back to the front of their lanes; they are due at once.
    pub fn give_back(&self, entries: Vec<LaneCommand>) {
        let mut state = self.lock();
        state.flush = true;
        for entry in entries.into_iter().rev() {
            let waiting = state.lanes.entry(entry.lane).or_default();
            waiting.records += entry.records;
            waiting.joined(entry.command.urgency());
            waiting.entries.push_front(entry);
        }
    }

    pub fn is_closing(&self) -> bool {
        self.lock().closing
    }

    /// Waits, but not past the beginning of a close.
    pub fn pause(&self, duration: Duration) {
        let Some(until) = Clock::Real.monotonic().checked_add(duration) else { return };
        let mut state = self.lock();
        while let Some(left) = until.checked_duration_since(Clock::Real.monotonic()).filter(|_| !state.closing) {
            state = self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Behind a gate that opens intake begins small: what has gathered there may be more than there is room for.
    pub fn set_gate(&self, gate: Gate) {
        let mut state = self.lock();
        if state.gate != gate {
            if state.gate.intake_stopped && !gate.intake_stopped {
                state.take_max = Some(1);
            }
            state.gate = gate;
            self.work.notify_one();
        }
    }

    /// Takes no new commands; those that wait are still done.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        state.refusal.get_or_insert(JournalError::Closed);
        self.work.notify_all();
        self.room.notify_all();
    }

    /// Takes no new commands and gives those that wait, to be refused.
    pub fn stop(&self, error: JournalError) -> Vec<LaneCommand> {
        let mut state = self.lock();
        state.closing = true;
        if state.refusal.as_ref().is_none_or(|e| *e == JournalError::Closed) {
            state.refusal = Some(error);
        }
        self.work.notify_all();
        self.room.notify_all();
        state.lanes.values_mut().flat_map(|waiting| std::mem::take(&mut waiting.entries)).collect()
    }

    /// Why nothing is taken any more.
    pub fn refusal(&self) -> Option<JournalError> {
        self.lock().refusal.clone()
    }
}

//! The thread that owns the writing connection.
//!
//! In: commands from the queue. Out: group commits, then answers. Invariant: a command is answered "stored" only after
//! the transaction that holds it is durable, and readers see its records before that answer. After a write that failed
//! for anything but a full disk, nothing is written any more: what is on the disk then is unknown. Not here: what the
//! commands do (`transaction`, `consumer`, `trim`), how a commit becomes durable (`store`).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::ages::Ages;
use super::backlog::{Backlogs, Move};
use super::beyond_use;
use super::books::INPUTS;
use super::budget::Budget;
use super::command::Command;
use super::config::JournalConfig;
use super::error::{JournalError, has_no_room, is_busy, is_no_room};
use super::pace::{Excess, Pace};
use super::queue::{Gate, Lane, LaneCommand, Rule, Turn};
use super::segment::Segment;
use super::shared::Shared;
use super::store::{CommitLimits, Committed, Store};
use super::stream::StreamEnds;
use super::transaction::Transaction;
use super::trim::{self, Retention};
use super::upkeep::{READERS_WAIT, Upkeep, empty_log};
use crate::kill_point::{self, KillPoint};
use crate::time::Clock;

/// How often a quiet journal looks after itself.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);
/// What was committed is in the redo log alone for this long at most, so that a start has little to take over.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);
/// Commands of this size together go into the file at once: its pages are well filled by them, and each byte is
/// written once less.
const DIRECT_BYTES: usize = 1 << 20;

pub(super) struct Writer {
    config: JournalConfig,
    store: Store,
    shared: Arc<Shared>,
    budget: Budget,
    pace: Pace,
    excess: Excess,
    upkeep: Upkeep,
    backlogs: Backlogs,
    /// Of what `retention` keeps.
    ages: Ages,
    last_maintenance: Instant,
    last_checkpoint: Instant,
    /// Consumers of which a commit was refused: those behind it would pass what it did not store.
    refused: BTreeMap<u32, JournalError>,
    /// There is more to trim than one step does.
    trim_more: bool,
    /// The journal is full, and something has changed since room was last looked for.
    seek_room: bool,
}

/// What happened to a command, if its transaction commits.
enum Applied {
    Append(Result<Range<i64>, JournalError>),
    Commit(Result<(), JournalError>),
    Control,
}

/// Why the writer stops for good.
struct Failed(rusqlite::Error);

impl Writer {
    /// `is_short`: the disk had no room to start with.
    pub fn new(config: JournalConfig, store: Store, shared: Arc<Shared>, is_short: bool) -> rusqlite::Result<Writer> {
        let mut budget = Budget::new(&config.path, config.max_bytes);
        let has_room = !is_short && (budget.keep_reserve() || !has_no_room(&config.path));
        budget.measure(&store.db)?;
        if !has_room {
            budget.found_disk_full();
        }
        let now = Clock::Real.monotonic();
        let pace = Pace::new(config.write_budget, config.commit_interval_min, config.commit_interval, now);
        let upkeep = Upkeep::new(&config.path, config.max_bytes, now);
        let backlogs = Backlogs::new(config.clock.clone());
        let ages = Ages::new(config.clock.clone());
        let mut writer = Writer {
            config,
            store,
            shared,
            budget,
            pace,
            excess: Excess::default(),
            upkeep,
            backlogs,
            ages,
            last_maintenance: Clock::Real.monotonic(),
            last_checkpoint: Clock::Real.monotonic(),
            refused: BTreeMap::new(),
            trim_more: false,
            seek_room: false,
        };
        writer.publish(Vec::new());
        writer.set_gate();
        Ok(writer)
    }

    /// Works until the queue is closed and empty, or a write fails.
    pub fn run(mut self) {
        let shared = self.shared.clone();
        let ended = catch_unwind(AssertUnwindSafe(|| self.work_until_closed()));
        let error = match ended {
            Ok(Ok(())) => JournalError::Closed,
            Ok(Err(Failed(error))) => JournalError::write(&error),
            Err(_) => JournalError::Poisoned { reason: "the writer thread panicked".to_string() },
        };
        if error != JournalError::Closed {
            tracing::error!(%error, "the journal stopped");
            beyond_use::tell_next_start(&self.config.path, self.config.on_damage, &error);
        }
        for entry in shared.queue.stop(error.clone()) {
            entry.command.refuse(error.clone());
        }
    }

    fn work_until_closed(&mut self) -> Result<(), Failed> {
        loop {
            let now = Clock::Real.monotonic();
            let idle_until =
                if self.trim_more || self.seek_room { now } else { self.last_maintenance + MAINTENANCE_INTERVAL };
            let (next, next_soon) = (self.pace.next(now), self.pace.next_soon(now));
            let until_next = next.saturating_duration_since(self.shared.started).as_nanos();
            self.shared.next_commit.store(u64::try_from(until_next).unwrap_or(u64::MAX), Ordering::Relaxed);
            let rule = Rule { next, next_soon, records: self.config.commit_records };
            match self.shared.queue.take(rule, idle_until) {
                Turn::Commit(entries) => self.work(entries)?,
                Turn::Idle => self.maintain()?,
                Turn::Closing => break,
            }
            if Clock::Real.monotonic().duration_since(self.last_maintenance) >= MAINTENANCE_INTERVAL {
                self.maintain()?;
            }
        }
        #[cfg(test)]
        if self.shared.is_killed.load(Ordering::Acquire) {
            return Ok(());
        }
        // short start next time; what is durable stays so if this fails
        let limits = self.limits();
        if self.store.close(limits).is_ok() && empty_log(&self.store.db, READERS_WAIT).is_ok() {
            self.store.shrink();
        }
        Ok(())
    }

    fn work(&mut self, mut entries: Vec<LaneCommand>) -> Result<(), Failed> {
        kill_point::reached(KillPoint::BeforeCommit);
        match self.transact(&mut entries) {
            Ok(outcomes) => {
                kill_point::reached(KillPoint::AfterCommit);
                self.upkeep.worked(Clock::Real.monotonic());
                self.seek_room = self.budget.is_full();
                self.shared.queue.grow(&entries);
                self.shared.queue.release(&entries);
                for (entry, outcome) in entries.into_iter().zip(outcomes) {
                    answer(entry.command, outcome);
                }
                Ok(())
            }
            Err(error) if is_no_room(&error, &self.config.path) => self.on_disk_full(entries, &error),
            Err(error) if is_busy(&error) && !self.shared.queue.is_closing() => {
                tracing::warn!(%error, "another program holds the journal's file; trying again");
                self.shared.queue.give_back(entries);
                Ok(())
            }
            Err(error) if self.goes_on(&error) => {
                self.shared.queue.give_back(entries);
                Ok(())
            }
            Err(error) => {
                let poisoned = JournalError::write(&error);
                // before the answers, so that whoever hears of one finds the others refused as well
                let waiting = self.shared.queue.stop(poisoned.clone());
                entries.into_iter().chain(waiting).for_each(|entry| entry.command.refuse(poisoned.clone()));
                Err(Failed(error))
            }
        }
    }

    /// Does all commands in one durable transaction.
    fn transact(&mut self, entries: &mut [LaneCommand]) -> rusqlite::Result<Vec<Applied>> {
        let is_quick = self.is_quick(entries);
        let done = self.do_all(entries, is_quick);
        let Committed { outcome, segments, trim_more, written } = done.inspect_err(|_| self.shared.passing.undone())?;
        self.wrote(written);
        self.pace.committed(Clock::Real.monotonic());
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        self.publish(segments);
        if !is_quick {
            self.trim_more = trim_more;
            if self.budget.is_disk_full() {
                // the write-ahead log needs the room to get into the file
                self.store.shrink();
            }
            self.last_checkpoint = Clock::Real.monotonic();
            // it is durable: no error may say otherwise from here on
            if let Err(error) = self.measure() {
                tracing::warn!(%error, "cannot tell how full the journal is");
            }
        }
        self.set_gate();
        Ok(outcome)
    }

    fn do_all(&mut self, entries: &mut [LaneCommand], is_quick: bool) -> rusqlite::Result<Committed<Vec<Applied>>> {
        if is_quick {
            let mut refused = self.refused.clone();
            if let Some(committed) = self.store.log(|tx| apply_all(tx, entries, &mut refused))? {
                self.refused = refused;
                return Ok(committed);
            }
        }
        let limits = self.limits();
        if self.store.since().is_some() && entries.iter().any(|entry| entry.lane == Lane::Control) {
            // a command looks into the file
            let committed = self.store.checkpoint(limits, |_| Ok(()))?;
            self.wrote(committed.written);
        }
        // a transaction that fails has refused nobody
        let mut refused = self.refused.clone();
        let committed = self.store.checkpoint(limits, |tx| apply_all(tx, entries, &mut refused))?;
        self.refused = refused;
        Ok(committed)
    }

    /// Whether these commands need nothing of the file, and nothing has to be done there.
    fn is_quick(&self, entries: &[LaneCommand]) -> bool {
        let bytes: usize = entries.iter().map(LaneCommand::bytes).sum();
        !entries.is_empty()
            && self.is_quick_alone()
            && bytes < DIRECT_BYTES
            && entries.iter().all(|entry| entry.command.is_quick())
    }

    /// Whether nothing has to be done in the file.
    fn is_quick_alone(&self) -> bool {
        !self.trim_more
            && !self.budget.is_full()
            && self.store.waiting_bytes() < self.config.redo_bytes_max() / 2
            && self.budget.has_room(self.store.waiting_bytes())
    }

    fn limits(&mut self) -> CommitLimits {
        let (is_full, age) = (self.budget.is_full(), self.config.retention);
        if let Some(age) = age {
            self.ages.look(age);
        }
        // the budget goes before what is only good to have
        let keep_from = age.filter(|_| !is_full).map(|age| self.ages.keep_from(age));
        CommitLimits {
            retention: Retention { keep_from, now: self.config.clock.now(), age },
            recent: self.config.recent_records,
            dead_letters_max_bytes: self.config.dead_letters_max_bytes,
            is_full,
        }
    }

    fn wrote(&mut self, bytes: u64) {
        let now = Clock::Real.monotonic();
        self.pace.wrote(bytes, now);
        self.shared.with_written(|written| written.add(bytes, now));
    }

    /// Looks at the sizes; before the journal counts as full, the write-ahead log is emptied into the file.
    fn measure(&mut self) -> rusqlite::Result<()> {
        self.budget.measure(&self.store.db)?;
        if self.budget.is_full() {
            let wait = if self.budget.is_log_pinned() { Duration::ZERO } else { READERS_WAIT };
            self.upkeep.empty(&self.store.db, wait, Clock::Real.monotonic())?;
            self.tell_failing();
            self.budget.measure(&self.store.db)?;
        }
        Ok(())
    }

    fn publish(&mut self, segments: Vec<(u32, Segment)>) {
        let books = &self.store.books;
        if let Some(inputs) = books.streams.get(&INPUTS) {
            self.shared.last_arrival.store(inputs.last_arrival.ticks(), Ordering::Release);
        }
        self.shared.with_eras(|eras| *eras = books.eras.clone());
        let ends = books.streams.iter().map(|(id, stream)| StreamEnds {
            stream: *id,
            first: stream.first,
            next: stream.next,
            // before all consumers are known nobody can say what is of no use
            needed_from: if books.consumers_known { books.needed_from(*id) } else { i64::MIN },
        });
        let moved = books.consumers.iter().filter_map(|(id, consumer)| Some((*id, consumer.dropped?)));
        self.shared.streams.publish(ends, moved, segments, Arc::new(books.ledger.clone()));
        self.shared.passing.stored(books.eras.number());
    }

    /// While full, intake waits, and so do rows for a stream whose reader has still something to read.
    fn set_gate(&mut self) {
        let (is_full, is_log_over) = (self.budget.is_full(), self.budget.is_log_over());
        self.shared.used_bytes.store(self.budget.used_bytes, Ordering::Relaxed);
        self.shared.waits_for_pin.store(is_log_over && !is_full, Ordering::Relaxed);
        let stops = is_full || is_log_over;
        self.shared.is_disk_full.store(self.budget.is_disk_full(), Ordering::Release);
        let was_full = self.shared.is_full.swap(stops, Ordering::Release);
        if stops != was_full {
            let (used_bytes, max_bytes) = (self.budget.used_bytes, self.budget.max_bytes);
            let file_failing = self.upkeep.failing().is_some();
            if self.budget.is_disk_full() {
                tracing::warn!(used_bytes, "the disk of the pool is full; intake waits until there is room");
            } else if stops {
                let log_pinned = is_log_over;
                tracing::warn!(used_bytes, max_bytes, log_pinned, file_failing, "the journal is full; intake waits");
            } else {
                tracing::info!(used_bytes, max_bytes, "the journal has room again");
            }
        }
        let stopped_streams: BTreeSet<u32> = if is_full {
            let books = &self.store.books;
            let unread = |id: &u32| books.streams.get(id).is_some_and(|s| books.needed_from(*id) < s.next);
            books.streams.keys().copied().filter(unread).collect()
        } else {
            BTreeSet::new()
        };
        self.shared.queue.set_gate(Gate { intake_stopped: stops, stopped_streams });
    }

    /// Trims, makes room when the budget is used up, and gives free pages back.
    fn maintain(&mut self) -> Result<(), Failed> {
        self.last_maintenance = Clock::Real.monotonic();
        self.seek_room = false;
        self.look_for_excess();
        let result = self.try_maintain();
        match result {
            Err(error) if is_busy(&error) || is_no_room(&error, &self.config.path) || self.goes_on(&error) => {
                self.trim_more = false;
                Ok(())
            }
            other => other.map_err(Failed),
        }
    }

    fn try_maintain(&mut self) -> rusqlite::Result<()> {
        if self.budget.is_disk_full() {
            self.budget.regain_reserve(Clock::Real.monotonic());
        }
        if self.is_checkpoint_due()? {
            self.transact(&mut [])?;
        }
        self.move_on()?;
        if self.budget.is_full() && !self.trim_more {
            self.trim_more = self.drop_oldest()?;
        }
        let is_stored = self.store.since().is_none();
        if !self.trim_more && self.upkeep.give_back(&self.store.db, is_stored, Clock::Real.monotonic())? {
            self.store.shrink();
        }
        self.look_for_pin()?;
        self.set_gate();
        Ok(())
    }

    fn is_checkpoint_due(&self) -> rusqlite::Result<bool> {
        let is_old = |since: Instant| Clock::Real.since(since) >= CHECKPOINT_INTERVAL;
        let may_trim = match self.config.retention {
            None => self.store.has_trimmable()?,
            // a little of it becomes old enough all the time
            Some(_) => is_old(self.last_checkpoint),
        };
        Ok(may_trim || self.store.since().is_some_and(is_old) || self.trim_more || self.budget.is_full())
    }

    /// Moves consumers that are further behind than they may be.
    fn move_on(&mut self) -> rusqlite::Result<()> {
        let due = self.backlogs.due(&self.store.db, &self.store.books, &self.shared)?;
        if due.is_empty() {
            return Ok(());
        }
        let shared = self.shared.clone();
        let dropping = shared.streams.begin_drop(due.iter().map(|step| (step.consumer, step.to)));
        let step = |tx: &mut Transaction<'_>| {
            for Move { consumer, to, reason, .. } in &due {
                tx.skip(*consumer, *to, reason, dropping.handed(*consumer));
            }
            Ok(())
        };
        let limits = self.limits();
        let logged = if self.is_quick_alone() { self.store.log(step)? } else { None };
        let committed = match logged {
            Some(committed) => committed,
            None => self.store.checkpoint(limits, step)?,
        };
        self.wrote(committed.written);
        self.publish(committed.segments);
        for step in &due {
            let handed = dropping.handed(step.consumer);
            self.backlogs.tell(step, handed, &self.store.books, Clock::Real.monotonic());
        }
        Ok(())
    }

    /// Makes room when the budget is used up; whether any consumer was moved for it.
    fn drop_oldest(&mut self) -> rusqlite::Result<bool> {
        let (limits, now) = (self.limits(), self.config.clock.now());
        let (db, books) = (&self.store.db, &self.store.books);
        if !books.consumers_known {
            return Ok(false);
        }
        let Some((holders, end)) = trim::oldest_to_drop(db, books, now, self.store.is_damaged())? else {
            return Ok(false);
        };
        let shared = self.shared.clone();
        let dropping = shared.streams.begin_drop(holders.iter().map(|id| (*id, end)));
        let step = |tx: &mut Transaction<'_>| {
            holders.iter().for_each(|id| tx.skip(*id, end, "budget", dropping.handed(*id)));
            Ok(())
        };
        let Committed { segments, written, .. } = self.store.checkpoint(limits, step)?;
        self.wrote(written);
        self.publish(segments);
        Ok(true)
    }
}

fn apply_all(
    tx: &mut Transaction<'_>,
    entries: &mut [LaneCommand],
    refused: &mut BTreeMap<u32, JournalError>,
) -> rusqlite::Result<Vec<Applied>> {
    entries.iter_mut().map(|entry| apply(tx, &mut entry.command, refused)).collect()
}

fn apply(
    tx: &mut Transaction<'_>,
    command: &mut Command,
    refused: &mut BTreeMap<u32, JournalError>,
) -> rusqlite::Result<Applied> {
    use super::error::StepError::{Refused, Sql};
    Ok(match command {
        Command::Append(append) => Applied::Append(match tx.append(append) {
            Ok(range) => Ok(range),
            Err(Refused(error)) => Err(error),
            Err(Sql(error)) => return Err(error),
        }),
        Command::Commit(commit, _) => Applied::Commit(match refused.get(&commit.consumer.0) {
            Some(error) => Err(error.clone()),
            None => match tx.commit(commit) {
                Ok(()) => Ok(()),
                Err(Refused(error)) => {
                    if matches!(error, JournalError::Rows { .. }) {
                        refused.insert(commit.consumer.0, error.clone());
                    }
                    Err(error)
                }
                Err(Sql(error)) => return Err(error),
            },
        }),
        Command::Control(control) => {
            control.apply(tx)?;
            Applied::Control
        }
    })
}

fn answer(command: Command, outcome: Applied) {
    // a caller's mistake must not stop everybody's journal
    let told = catch_unwind(AssertUnwindSafe(|| match (command, outcome) {
        (Command::Append(append), Applied::Append(result)) => (append.on_durable)(result),
        (Command::Commit(_, done), Applied::Commit(result)) => done(result),
        (Command::Control(control), _) => control.answer(Ok(())),
        // each command made its own kind of outcome just above
        (Command::Append(_) | Command::Commit(..), _) => {}
    }));
    if told.is_err() {
        tracing::error!("what was to run after a commit panicked");
    }
}

mod full_disk;
mod looks;
#[cfg(test)]
mod tests;

//! How a group commit becomes durable: as a record of the redo log, or in the SQLite file.
//!
//! In: commands, applied to a [`Transaction`]. Out: their outcomes, new books, and segments that readers may see.
//! Invariant: file and redo log together hold every commit that was confirmed, and none in part; what is in the log
//! alone is also in memory, for readers and for the next checkpoint. Not here: which way a commit goes, what waits
//! (`writer`).

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::{Connection, Transaction as SqlTransaction, TransactionBehavior, params};

use super::books::{Books, INPUTS};
use super::changes::{self, Changes, state_bytes};
use super::checkpoint::{self, Keep};
use super::compaction::{self, Runs};
use super::dead_letter;
use super::error::invalid;
use super::growth::Sizes;
use super::high_water::HighWater;
use super::merge::Merger;
use super::pace::WEAR;
use super::pending::Pending;
use super::recent::{Kept, Recent};
use super::recovery::Opened;
use super::redo::{Age, RedoLog};
use super::segment::{EventBuilder, Opener, Sealed, Sealer, Segment};
use super::shared::Shared;
use super::state::{self, States};
use super::transaction::Transaction;
use super::trim::{self, Retention, Sweep};
use crate::kill_point::{self, KillPoint};
use crate::time::Clock;

/// What a commit may let go of.
#[derive(Clone, Copy, Debug)]
pub(super) struct CommitLimits {
    pub retention: Retention,
    /// Newest records of each input that are kept to recognise redeliveries.
    pub recent: usize,
    pub dead_letters_max_bytes: u64,
    /// The byte budget or the disk is used up.
    pub is_full: bool,
}

/// A commit that is durable.
#[derive(Debug)]
pub(super) struct Committed<T> {
    pub outcome: T,
    pub segments: Vec<(u32, Segment)>,
    /// There is more to trim.
    pub trim_more: bool,
    /// Bytes of the blocks that it wrote.
    pub written: u64,
}

pub(super) struct Store {
    pub db: Connection,
    pub books: Books,
    /// As the file has them.
    stored: Books,
    redo: RedoLog,
    high_water: HighWater,
    shared: Arc<Shared>,
    clock: Clock,
    /// Changes that the file lacks.
    states: States,
    state_bytes: usize,
    /// When the oldest commit was made that the file lacks.
    since: Option<Instant>,
    sealer: Sealer,
    opener: Opener,
    builder: EventBuilder,
    /// Small segments at the ends of the file's streams that are to be joined.
    runs: Runs,
    /// How the file is trimmed once a damaged page was met.
    sweep: Option<Sweep>,
}

impl Store {
    pub fn new(opened: Opened, shared: Arc<Shared>, clock: Clock) -> Store {
        let Opened { db, books, redo, high_water, .. } = opened;
        Store {
            db,
            stored: books.clone(),
            books,
            redo,
            high_water,
            shared,
            clock,
            states: States::new(),
            state_bytes: 0,
            since: None,
            sealer: Sealer::new(),
            opener: Opener::default(),
            builder: EventBuilder::default(),
            runs: Runs::default(),
            sweep: None,
        }
    }

    /// A damaged page was met: from now on only what has to be done is done in the transaction of a checkpoint. Whether
    /// that changes anything.
    pub fn expect_damage(&mut self) -> bool {
        self.sweep.replace(Sweep::default()).is_none()
    }

    pub fn is_damaged(&self) -> bool {
        self.sweep.is_some()
    }

    /// When the oldest commit was made that the file lacks.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// About how many bytes a checkpoint would write.
    pub fn waiting_bytes(&self) -> u64 {
        (self.shared.with_pending(|pending| pending.bytes()) + self.state_bytes) as u64
    }

    /// Whether the file holds enough that everybody has read to be worth a checkpoint of its own.
    pub fn has_trimmable(&self) -> rusqlite::Result<bool> {
        trim::is_worthwhile(&self.db, &self.books, &self.stored)
    }

    /// Makes what `step` does durable in the redo log. `None`: there is no room for it, and nothing was done.
    pub fn log<T>(
        &mut self,
        step: impl FnOnce(&mut Transaction<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<Committed<T>>> {
        let shared = self.shared.clone();
        let mut tx = Transaction::new(
            &self.db,
            self.books.clone(),
            &mut self.sealer,
            &mut self.builder,
            self.clock.now(),
            &shared.passing,
        );
        let outcome = step(&mut tx)?;
        tx.close_segment()?;
        let Transaction { books, changes, segments, .. } = tx;
        let body = changes.encode(&self.books, &books);
        let mut written = 0;
        if !changes::is_nothing(&body) {
            if !self.redo.has_room(body.len()) {
                return Ok(None);
            }
            match self.redo.append(&body) {
                Ok(bytes) => written = bytes,
                Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                    return Ok(None);
                }
                Err(error) => return Err(invalid(format!("the redo log: {error}"))),
            }
            self.since.get_or_insert_with(|| Clock::Real.monotonic());
        }
        self.remember(changes);
        self.books = books;
        self.high_water.raise(self.books.inputs_end());
        Ok(Some(Committed { outcome, segments, trim_more: false, written }))
    }

    fn remember(&mut self, changes: Changes) {
        let Changes { sealed, state } = changes;
        count_growth(&self.shared, &sizes_of(&sealed), &[]);
        self.shared.with_pending(|pending| pending.extend(sealed));
        for (consumer, change) in state {
            self.state_bytes += state_bytes(&change);
            self.states.insert((consumer, change.op, change.key), change.value);
        }
    }

    /// Makes what `step` does durable in the file, with everything that the redo log holds. That gets there last: a
    /// step that looks for it needs a checkpoint of its own before it.
    pub fn checkpoint<T>(
        &mut self,
        limits: CommitLimits,
        step: impl FnOnce(&mut Transaction<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Committed<T>> {
        let age = self.redo.is_touched().then(|| self.redo.age().next());
        self.checkpoint_as(age, limits, step)
    }

    /// The last checkpoint: from then on the file is whole without its log.
    pub fn close(&mut self, limits: CommitLimits) -> rusqlite::Result<()> {
        let closed = Age { generation: 0, ..self.redo.age() };
        self.checkpoint_as(Some(closed), limits, |_| Ok(())).map(drop)
    }

    /// `age`: which records of the log count from then on, where that changes.
    fn checkpoint_as<T>(
        &mut self,
        age: Option<Age>,
        limits: CommitLimits,
        step: impl FnOnce(&mut Transaction<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Committed<T>> {
        kill_point::reached(KillPoint::CheckpointBegin);
        let before = written_by_this_thread();
        let recent = self.shared.with_recent(|recent| recent.clone());
        let mut done = self.try_checkpoint(age, limits, step).inspect_err(|_| {
            // as the file is: nothing was deleted
            self.shared.with_recent(|now| *now = recent);
        })?;
        done.written = written_by_this_thread().saturating_sub(before);
        Ok(done)
    }

    fn try_checkpoint<T>(
        &mut self,
        age: Option<Age>,
        limits: CommitLimits,
        step: impl FnOnce(&mut Transaction<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Committed<T>> {
        let is_damaged = self.is_damaged();
        if !is_damaged {
            self.runs.take_up(&self.db, &self.books, limits.retention)?;
        }
        let sql = SqlTransaction::new_unchecked(&self.db, TransactionBehavior::Immediate)?;
        let shared = self.shared.clone();
        let (books, now) = (self.books.clone(), self.clock.now());
        let mut tx = Transaction::new(&sql, books, &mut self.sealer, &mut self.builder, now, &shared.passing);
        let outcome = step(&mut tx)?;
        tx.close_segment()?;
        let (left, gave_up) = shared.with_recent(|recent| {
            let left = match is_damaged {
                false => trim::step(&mut tx, recent, limits.retention)?,
                true => Sweep::move_marks(&mut tx, limits.retention)?,
            };
            let mark = tx.books.streams.get(&INPUTS).map_or(0, |s| s.first);
            let gave_up = limits.is_full && recent.give_up(mark);
            let left_windows = recent.take_left(mark);
            if !is_damaged {
                trim::drop_left(&tx, &left_windows)?;
            }
            Ok::<_, rusqlite::Error>((left, gave_up))
        })?;
        dead_letter::enforce_cap(&sql, &mut tx.books, limits.dead_letters_max_bytes)?;
        let Transaction { mut books, changes, segments, .. } = tx;
        let keep = Keep { retention: limits.retention, recent: limits.recent, untrimmed: &left.streams };
        let mut merger = Merger { opener: &mut self.opener, sealer: &mut self.sealer };
        let (mut written, mut learned, mut unread) = (Vec::new(), Vec::new(), Vec::new());
        let came = sizes_of(&changes.sealed);
        // readers go on meanwhile
        let waiting = shared.with_pending(|pending| by_stream(pending, changes.sealed));
        for (stream, segments) in waiting {
            let stored = checkpoint::store_segments(&sql, &mut books, segments, keep, &mut merger)?;
            learned.push((stream, stored.sizes));
            written.extend(stored.kept);
            unread.extend(stored.unread);
        }
        // records that everybody has read are deleted soon, unless `retention` keeps them: joining them is not worth it
        let stays_from = |stream| match limits.retention.keep_from {
            Some(_) => books.streams.get(&stream).map_or(i64::MAX, |book| book.first),
            None => books.needed_from(stream),
        };
        let run = if limits.is_full || is_damaged { None } else { self.runs.next(stays_from) };
        if let Some(run) = run {
            let joined = compaction::join(&sql, run, &mut merger)?;
            if run.stream == INPUTS {
                shared.with_recent(|recent| joined.iter().for_each(|merged| recent.merged(&checkpoint::kept(merged))));
            }
        }
        state::store(&sql, &self.states)?;
        let new = changes.state.into_iter().map(|(id, change)| ((id, change.op, change.key), change.value));
        state::store(&sql, &new.collect())?;
        books.save(&sql, &self.stored)?;
        if self.since.is_some() {
            save_pace(&sql, &shared)?;
        }
        if let Some(age) = age {
            age.save(&sql)?;
        }
        kill_point::reached(KillPoint::CheckpointWritten);
        sql.commit()?;
        kill_point::reached(KillPoint::CheckpointDone);
        self.taken_over(age, books);
        count_growth(&shared, &came, &learned);
        shared.with_recent(|recent| push_all(recent, &written));
        for head in &unread {
            self.runs.wrote(head, checkpoint::span_max(&self.books, head.stream, limits.retention));
        }
        let more = self.sweep();
        Ok(Committed { outcome, segments, trim_more: left.has_more || gave_up || more, written: 0 })
    }

    /// Deletes beside the damaged pages what nobody needs, if there are any. It is no part of a commit, and may fail.
    fn sweep(&mut self) -> bool {
        let Some(mut sweep) = self.sweep.take() else { return false };
        let recent = self.shared.with_recent(|recent| recent.clone());
        let done = sweep.delete(&self.db, &self.books, &recent);
        self.sweep = Some(sweep);
        done.inspect_err(|error| tracing::debug!(%error, "nothing is deleted")).unwrap_or(false)
    }

    /// From here on readers find everything in the file.
    fn taken_over(&mut self, age: Option<Age>, books: Books) {
        self.stored = books.clone();
        self.books = books;
        if let Some(age) = age {
            self.redo.restart(age);
        }
        (self.states, self.state_bytes, self.since) = (States::new(), 0, None);
        self.shared.with_pending(Pending::clear);
        self.high_water.raise(self.books.inputs_end());
    }

    /// Gives room back that a quiet journal does not need.
    pub fn shrink(&mut self) {
        if let Err(error) = self.redo.shrink() {
            tracing::warn!(%error, "the redo log keeps its length");
        }
    }
}

/// Bytes of the blocks that this thread has changed, as Linux counts them; 0 where it does not tell.
fn written_by_this_thread() -> u64 {
    let counts = std::fs::read_to_string("/proc/thread-self/io").unwrap_or_default();
    let line = counts.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0)
}

fn sizes_of(sealed: &[Sealed]) -> Vec<(u32, Sizes)> {
    sealed.iter().map(|sealed| (sealed.head.stream, sealed.sizes())).collect()
}

fn count_growth(shared: &Shared, came: &[(u32, Sizes)], learned: &[(u32, Sizes)]) {
    let now = Clock::Real.monotonic();
    shared.with_growth(|growth| {
        came.iter().for_each(|(stream, sizes)| growth.came(*stream, *sizes, now));
        learned.iter().for_each(|(stream, sizes)| growth.learn(*stream, *sizes));
    });
}

fn push_all(recent: &mut Recent, written: &[(u16, Kept)]) {
    written.iter().for_each(|(input, kept)| recent.push(*input, *kept));
}

/// What waits and what is new, by stream, in order.
fn by_stream(pending: &Pending, new: Vec<Sealed>) -> Vec<(u32, Vec<Arc<Sealed>>)> {
    let mut all: std::collections::BTreeMap<u32, Vec<Arc<Sealed>>> = std::collections::BTreeMap::new();
    for sealed in pending.iter().cloned().chain(new.into_iter().map(Arc::new)) {
        all.entry(sealed.head.stream).or_default().push(sealed);
    }
    all.into_iter().collect()
}

/// What this run knows of its pace, for whoever looks from outside and for the next start.
fn save_pace(sql: &Connection, shared: &Shared) -> rusqlite::Result<()> {
    let now = Clock::Real.monotonic();
    shared.with_growth(|growth| growth.told(now)).save(sql)?;
    let wear = shared.with_written(|written| written.told(now));
    let json = serde_json::to_vec(&wear).unwrap_or_default();
    sql.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?.execute(params![WEAR, json])?;
    Ok(())
}

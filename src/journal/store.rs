//! How a group commit becomes durable: as a record of the redo log, or in the SQLite file.
//!
//! In: commands, applied to a [`Transaction`]. Out: their outcomes, new books, and segments that readers may see.
//! Invariant: file and redo log together hold every commit that was confirmed, and none in part; what is in the log
//! alone is also in memory, for readers and for the next checkpoint. Not here: which way a commit goes, what waits
//! (`writer`).

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::{Connection, Transaction as SqlTransaction, TransactionBehavior, params};

use super::books::{Books, INPUTS};
use super::changes::{self, Changes, state_bytes};
use super::checkpoint::{self, Keep, States};
use super::dead_letter;
use super::error::JournalError;
use super::merge::Merger;
use super::pending::Pending;
use super::recent::{Kept, Recent};
use super::redo::{self, RedoLog};
use super::schema::redo_path;
use super::segment::{EventBuilder, Opener, Sealed, Sealer, Segment};
use super::status::WEAR;
use super::transaction::Transaction;
use super::trim::{self, Retention};
use super::writer::Shared;
use crate::time::Clock;

/// What a commit may let go of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
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
    shared: Arc<Shared>,
    /// Changes that the file lacks.
    states: States,
    state_bytes: usize,
    /// When the oldest commit was made that the file lacks.
    since: Option<Instant>,
    sealer: Sealer,
    opener: Opener,
    builder: EventBuilder,
}

impl Store {
    /// Takes over what an earlier process left in the redo log; the file has everything then.
    pub fn open(
        path: &Path,
        db: Connection,
        redo_bytes_max: u64,
    ) -> Result<(Connection, Books, RedoLog), JournalError> {
        let unusable = |e: rusqlite::Error| JournalError::unusable(path, e);
        let mut books = Books::load(&db).map_err(unusable)?;
        let stored = books.clone();
        let log = redo_path(path);
        let (changes, _) = read_redo(&log, &db, &mut books)?;
        let take_over = || -> rusqlite::Result<u64> {
            let sql = SqlTransaction::new_unchecked(&db, TransactionBehavior::Immediate)?;
            let (mut opener, mut sealer) = (Opener::default(), Sealer::new());
            let mut pending = Pending::default();
            pending.extend(changes.sealed);
            // nobody knows yet who has read what
            let keep = Keep { retention: Retention { keep_from: None }, recent: 0, untrimmed: &BTreeSet::new() };
            for stream in pending.streams() {
                let segments = pending.of(stream).cloned().collect();
                let mut merger = Merger { opener: &mut opener, sealer: &mut sealer };
                checkpoint::store_segments(&sql, &mut books, segments, keep, &mut merger)?;
            }
            let states = changes.state.into_iter().map(|(id, change)| ((id, change.op, change.key), change.value));
            checkpoint::store_states(&sql, &states.collect())?;
            books.save(&sql, &stored)?;
            let generation = redo::new_generation(&sql)?;
            sql.commit()?;
            Ok(generation)
        };
        let generation = take_over().map_err(unusable)?;
        let redo = RedoLog::open(&log, generation, redo_bytes_max)
            .map_err(|e| JournalError::unusable(path, format!("{}: {e}", log.display())))?;
        Ok((db, books, redo))
    }

    pub fn new((db, books, redo): (Connection, Books, RedoLog), shared: Arc<Shared>) -> Store {
        Store {
            db,
            stored: books.clone(),
            books,
            redo,
            shared,
            states: States::new(),
            state_bytes: 0,
            since: None,
            sealer: Sealer::new(),
            opener: Opener::default(),
            builder: EventBuilder::default(),
        }
    }

    /// When the oldest commit was made that the file lacks.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// About how many bytes a checkpoint would write.
    pub fn waiting_bytes(&self) -> u64 {
        (self.shared.with_pending(|pending| pending.bytes()) + self.state_bytes) as u64
    }

    /// Whether the file holds segments that everybody has read.
    pub fn has_trimmable(&self) -> bool {
        let in_file = |id: &u32| self.stored.streams.get(id).map_or(0, |stream| stream.next);
        self.books.consumers_known
            && self.books.streams.iter().any(|(id, stream)| {
                let needed = self.books.needed_from(*id);
                stream.trimmed_to < needed && stream.first < needed.min(in_file(id))
            })
    }

    /// Makes what `step` does durable in the redo log. `None`: there is no room for it, and nothing was done.
    pub fn log<T>(
        &mut self,
        step: impl FnOnce(&mut Transaction<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<Committed<T>>> {
        let mut tx = Transaction::new(&self.db, self.books.clone(), &mut self.sealer, &mut self.builder);
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
                Err(error) => return Err(rusqlite::Error::ToSqlConversionFailure(Box::new(error))),
            }
            self.since.get_or_insert_with(|| Clock::Real.monotonic());
        }
        self.remember(changes);
        self.books = books;
        Ok(Some(Committed { outcome, segments, trim_more: false, written }))
    }

    fn remember(&mut self, changes: Changes) {
        let Changes { sealed, state } = changes;
        self.shared.with_pending(|pending| pending.extend(sealed));
        for (consumer, change) in state {
            self.state_bytes += state_bytes(&change);
            self.states.insert((consumer, change.op, change.key), change.value);
        }
    }

    /// Makes what `step` does durable in the file, with everything that the redo log holds. That gets there last: a step
    /// that looks for it needs a checkpoint of its own before it.
    pub fn checkpoint<T>(
        &mut self,
        limits: Limits,
        step: impl FnOnce(&mut Transaction<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Committed<T>> {
        let before = written_by_this_thread();
        let sql = SqlTransaction::new_unchecked(&self.db, TransactionBehavior::Immediate)?;
        let shared = self.shared.clone();
        let mut tx = Transaction::new(&sql, self.books.clone(), &mut self.sealer, &mut self.builder);
        let outcome = step(&mut tx)?;
        tx.close_segment()?;
        let (untrimmed, gave_up) = shared.with_recent(|recent| {
            let untrimmed = trim::step(&mut tx, recent, limits.retention)?;
            let mark = tx.books.streams.get(&INPUTS).map_or(0, |s| s.first);
            let gave_up = limits.is_full && recent.give_up(mark);
            trim::drop_left(&tx, &recent.take_left(mark))?;
            Ok::<_, rusqlite::Error>((untrimmed, gave_up))
        })?;
        dead_letter::enforce_cap(&sql, &mut tx.books, limits.dead_letters_max_bytes)?;
        let Transaction { mut books, changes, segments, .. } = tx;
        let keep = Keep { retention: limits.retention, recent: limits.recent, untrimmed: &untrimmed };
        let mut merger = Merger { opener: &mut self.opener, sealer: &mut self.sealer };
        let written = shared.with_pending(|pending| {
            let mut written = Vec::new();
            for (_, segments) in by_stream(pending, changes.sealed) {
                written.extend(checkpoint::store_segments(&sql, &mut books, segments, keep, &mut merger)?);
            }
            Ok::<_, rusqlite::Error>(written)
        })?;
        let mut states = self.states.clone();
        states.extend(changes.state.into_iter().map(|(id, change)| ((id, change.op, change.key), change.value)));
        checkpoint::store_states(&sql, &states)?;
        books.save(&sql, &self.stored)?;
        if self.since.is_some() {
            let wear = shared.with_written(|written| written.told(Clock::Real.monotonic()));
            let json = serde_json::to_vec(&wear).unwrap_or_default();
            sql.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?.execute(params![WEAR, json])?;
        }
        let generation = if self.since.is_some() { Some(redo::new_generation(&sql)?) } else { None };
        sql.commit()?;
        self.stored = books.clone();
        self.books = books;
        if let Some(generation) = generation {
            self.redo.restart(generation);
        }
        (self.states, self.state_bytes, self.since) = (States::new(), 0, None);
        // from here on readers find it in the file
        shared.with_pending(Pending::clear);
        shared.with_recent(|recent| push_all(recent, &written));
        let written = written_by_this_thread().saturating_sub(before);
        Ok(Committed { outcome, segments, trim_more: !untrimmed.is_empty() || gave_up, written })
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

fn push_all(recent: &mut Recent, written: &[(u16, Kept)]) {
    written.iter().for_each(|(input, kept)| recent.push(*input, kept.first, kept.records));
}

/// What waits and what is new, by stream, in order.
fn by_stream(pending: &Pending, new: Vec<Sealed>) -> Vec<(u32, Vec<Arc<Sealed>>)> {
    let mut all: std::collections::BTreeMap<u32, Vec<Arc<Sealed>>> = std::collections::BTreeMap::new();
    for sealed in pending.iter().cloned().chain(new.into_iter().map(Arc::new)) {
        all.entry(sealed.head.stream).or_default().push(sealed);
    }
    all.into_iter().collect()
}

/// What the redo log of this file holds; the books become what they were at its last record.
fn read_redo(log: &Path, db: &Connection, books: &mut Books) -> Result<(Changes, bool), JournalError> {
    let mut all = Changes::default();
    let Some(generation) = redo::generation(db).map_err(JournalError::read)? else { return Ok((all, false)) };
    let found = redo::read(log, generation).map_err(|e| JournalError::unusable(log, e))?;
    for body in found.bodies {
        let changes = Changes::decode(&body, books).map_err(|e| {
            JournalError::unusable(log, format!("a record is of another version of this program, or damaged ({e})"))
        })?;
        all.sealed.extend(changes.sealed);
        all.state.extend(changes.state);
    }
    Ok((all, found.is_overtaken))
}

/// How often a look is repeated that a checkpoint overtook.
const LOOKS_MAX: usize = 5;

/// File and redo log as they are at one moment, for whoever only looks, in this process or another. The transaction
/// holds the file as it was; it is never committed and wrote nothing.
pub(super) fn snapshot<'a>(
    db: &'a Connection,
    path: &Path,
) -> Result<(SqlTransaction<'a>, Books, Changes), JournalError> {
    let mut looks = 0;
    loop {
        looks += 1;
        let sql = db.unchecked_transaction().map_err(JournalError::read)?;
        let mut books = Books::load(db).map_err(JournalError::read)?;
        let (changes, is_overtaken) = read_redo(&redo_path(path), db, &mut books)?;
        if !is_overtaken || looks >= LOOKS_MAX {
            return Ok((sql, books, changes));
        }
    }
}

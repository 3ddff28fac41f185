//! The durable pool: one SQLite file a job.
//!
//! In: events of all inputs ([`Append`]) and what consumers did ([`Commit`]). Out: streams to read from any position
//! ([`Reader`]), answers once something is durable, and the state of consumers after a restart. Invariant: what was
//! answered "stored" is there after a crash, and a commit is there as a whole or not at all. Not here: what events
//! mean, who consumes what, broker sessions.
//!
//! One thread owns the writing connection (`writer`); commands reach it through bounded lanes (`queue`) and share
//! transactions (`transaction`). A small transaction is a record of the redo log (`redo`), many of them become one
//! transaction of SQLite (`checkpoint`), a large one goes there at once (`store`). Readers have connections of their
//! own and use them only when they are behind the segments kept in memory (`stream`).

mod ages;
mod arrived;
mod backlog;
mod backup;
mod beyond_use;
mod books;
mod books_sum;
mod budget;
mod changes;
mod checkpoint;
mod command;
mod compaction;
mod config;
mod consumer;
mod damage;
mod dead_letter;
mod eras;
mod error;
mod fresh;
mod growth;
mod high_water;
mod ledger;
mod letter_origin;
mod lock;
mod merge;
mod meta;
mod new_file;
mod oldest;
mod outputs;
mod pace;
mod passing;
mod paths;
mod pending;
mod pin;
#[cfg(test)]
pub mod planted;
mod progress;
mod quarantine;
mod queue;
mod ranges;
mod reader;
mod recent;
mod records;
mod recovery;
mod redo;
mod reference;
mod renewal;
mod request;
mod restore;
mod salvage;
mod schema;
mod segment;
mod shared;
mod state;
mod status;
mod store;
mod stream;
mod transaction;
mod trim;
mod upkeep;
mod verify;
mod writer;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use rusqlite::OptionalExtension;
use smol_str::SmolStr;

use crate::arrival::{Eras, WayBack};
use crate::batch::MessageMeta;
use crate::time::{Clock, Timestamp};

pub use backup::backup;
pub use books::DeadLetterCount;
pub use config::{BacklogLimits, JournalConfig, OnDamage};
pub use consumer::consumer_span;
pub use dead_letter::{
    DeadLetter, LetterCount, LetterFilter, StoredDeadLetter, count_dead_letters, dead_letters_readonly,
};
pub use error::JournalError;
pub use growth::{GrowthStatus, Left, PoolRoom, RoomBound, Sizes, StreamGrowth, lasting, size};
pub use ledger::{Counter, Edge, Imbalance, Ledger, what};
pub use letter_origin::LetterOrigin;
pub use outputs::OutputStatus;
pub use pace::WearStatus;
pub use paths::{beside as beside_journal, left_of_pool};
pub use pin::Pin;
pub use progress::ConsumerPace;
pub use ranges::QuarantineCount;
pub use reader::{Read, Reader};
pub use records::{RecordFilter, StoredRecord, each_record};
pub use reference::{ReferenceError, ReferenceStatus, ReferenceVersion, StoredReference, reference_readonly};
pub use renewal::IdRenewal;
pub use request::{
    Append, Commit, ConsumerId, ConsumerInfo, ConsumerSpec, InputId, OnCommitted, OnDurable, OnFull, Receipt,
    RemovedConsumer, Replayed, Start, StateChange, StateEntry, StreamId,
};
pub use restore::{Restored, RestoredOn, restore};
pub use salvage::{LostRange, Salvaged, salvage};
pub use segment::{Damage, EventRef, EventSegment, EventSlice, RowSegment, RowSlice, Segment};
pub use state::ResetState;
pub use status::{ConsumerStatus, JournalStatus, LedgerLine, LiveStatus, QuarantinedSegment, StreamStatus};
pub use verify::{VerifyReport, verify};

use budget::Budget;
use command::{Command, ask};
use error::StepError;
use lock::Lock;
use passing::OnItsWay;
use queue::Lane;
use recent::Recent;
use recovery::Opened;
use shared::Shared;
use store::Store;
use transaction::Transaction;
use writer::Writer;

/// A stored event, to recognise a redelivery by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    pub offset: i64,
    /// By which its source recognises it; 0 for none.
    pub mark: u64,
    pub message: Arc<MessageMeta>,
    pub payload: Bytes,
}

/// The open journal. Clones are handles to the same one; the last one dropped closes it.
#[derive(Clone)]
pub struct Journal(Arc<Inner>);

struct Inner {
    path: PathBuf,
    max_bytes: u64,
    write_budget: Option<u64>,
    on_damage: OnDamage,
    incarnation: [u8; 16],
    renewals: Arc<[IdRenewal]>,
    alarm: Option<String>,
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Given back when the journal closes, whoever still has a handle.
    lock: Mutex<Option<Lock>>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("path", &self.0.path).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    fn close(&self) {
        self.shared.queue.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // a handle dropped by what runs after a commit: the writer cannot wait for itself
        if let Some(writer) = writer.filter(|w| w.thread().id() != thread::current().id()) {
            // it catches its own panics and has answered everybody
            let _ = writer.join();
        }
        self.shared.streams.close();
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Journal {
    /// Opens the journal, or makes a new one, and starts its writer. An error leaves the file as it was. One that is
    /// beyond use is moved aside where the settings say so, and a fresh one is begun.
    pub fn open(config: JournalConfig) -> Result<Journal, JournalError> {
        let lock = Lock::take(&config.path)?;
        // one that a start had begun to move away is not whole
        let noted = beyond_use::noted(&config.path)
            .filter(|note| note.moved_to.is_some() || config.on_damage == OnDamage::Fresh);
        let opened = match noted {
            Some(note) => Err((JournalError::BeyondUse { reason: note.reason }, lock)),
            None => Journal::start_locked(&config, lock, |_| Ok(())),
        };
        match opened {
            Err((JournalError::BeyondUse { reason }, lock)) if config.on_damage == OnDamage::Fresh => {
                let alarm = fresh::make_room(&config, &reason)?;
                let begun = Journal::start_locked(&config, lock, |opened| recovery::tell(opened, &config, alarm));
                begun.map_err(|(error, _)| error)
            }
            opened => opened.map_err(|(error, _)| error),
        }
    }

    /// Opens with file and redo log prepared, as tests want them.
    #[cfg(test)]
    fn start(
        config: JournalConfig,
        prepare: impl FnOnce(&mut Opened) -> rusqlite::Result<()>,
    ) -> Result<Journal, JournalError> {
        let lock = Lock::take(&config.path)?;
        Journal::start_locked(&config, lock, prepare).map_err(|(error, _)| error)
    }

    /// Opens with file and redo log prepared; gives the lock back where that fails.
    fn start_locked(
        config: &JournalConfig,
        lock: Lock,
        prepare: impl FnOnce(&mut Opened) -> rusqlite::Result<()>,
    ) -> Result<Journal, (JournalError, Lock)> {
        match Journal::begin(config.clone(), prepare) {
            Ok(inner) => {
                *inner.lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(lock);
                Ok(Journal(Arc::new(inner)))
            }
            Err(error) => Err((error, lock)),
        }
    }

    /// What holds the lock calls it.
    fn begin(
        config: JournalConfig,
        prepare: impl FnOnce(&mut Opened) -> rusqlite::Result<()>,
    ) -> Result<Inner, JournalError> {
        let path = config.path.clone();
        let unusable = |e: rusqlite::Error| JournalError::unusable(&path, e);
        let is_disk_short = Budget::new(&path, config.max_bytes).make_room_to_start();
        let db = schema::open_writer(&path, config.max_bytes)?;
        // what an earlier process left in the write-ahead log may be in memory alone, where its last sync failed: it
        // goes into the file before anything is written behind it
        match upkeep::empty_log(&db, schema::BUSY_TIMEOUT) {
            Err(error) if !error::is_no_room(&error, &path) => return Err(unusable(error)),
            Ok(Some(_)) => tracing::warn!(
                "another program reads the pool, so its write-ahead log cannot be emptied at this start: where an \
                 earlier process had a failed sync, a power cut could now lose what follows; close that program and \
                 start again"
            ),
            _ => {}
        }
        let mut opened = recovery::open(&config, db)?;
        prepare(&mut opened).map_err(unusable)?;
        let (db, books, alarm) = (&opened.db, &opened.books, opened.alarm.clone());
        let mark = books.streams.get(&books::INPUTS).map_or(0, |inputs| inputs.first);
        let recent = Recent::load(db, config.recent_records, books.inputs.len(), mark).map_err(unusable)?;
        trim::drop_stale(db, books, &recent).map_err(unusable)?;
        let incarnation = schema::incarnation(db, &path)?;
        let growth = GrowthStatus::read(db).map_err(unusable)?;
        let renewals = renewal::load(db).map_err(unusable)?;
        let shared = Arc::new(Shared::new(config.tail_bytes_max, recent, growth));
        shared.passing.stored(books.eras.number());
        #[cfg(test)]
        {
            opened.books.planted = config.planted;
            *shared.planted.lock().unwrap_or_else(PoisonError::into_inner) = config.planted;
        }
        let (max_bytes, write_budget, on_damage) = (config.max_bytes, config.write_budget, config.on_damage);
        let store = Store::new(opened, shared.clone(), config.clock.clone());
        let writer = Writer::new(config, store, shared.clone(), is_disk_short).map_err(unusable)?;
        let thread = thread::Builder::new().name("journal".to_string()).spawn(move || writer.run());
        let thread = thread.map_err(|e| JournalError::unusable(&path, e))?;
        let (writer, lock) = (Mutex::new(Some(thread)), Mutex::default());
        Ok(Inner { path, max_bytes, write_budget, on_damage, incarnation, renewals, alarm, shared, writer, lock })
    }

    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Random, made with the file: the first part of every row id.
    pub fn incarnation(&self) -> [u8; 16] {
        self.0.incarnation
    }

    /// [`Journal::incarnation`] in hexadecimal.
    pub fn incarnation_hex(&self) -> String {
        self.0.incarnation.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// From which offsets on row ids carry a mark of their own; rising.
    pub fn id_renewals(&self) -> Arc<[IdRenewal]> {
        self.0.renewals.clone()
    }

    /// Where the settings want a fresh pool in place of one that is beyond use: has the next start know that this one
    /// is.
    pub fn note_beyond_use(&self, error: &JournalError) {
        beyond_use::tell_next_start(&self.0.path, self.0.on_damage, error);
    }

    /// What the pool lacked when it was opened, if anything: its redo log, or events that had been acknowledged.
    pub fn alarm(&self) -> Option<&str> {
        self.0.alarm.as_deref()
    }

    /// Eight random hexadecimal digits, made with the file.
    pub fn client_id_suffix(&self) -> Result<String, JournalError> {
        let stored = self.get_meta("client_id_suffix")?.unwrap_or_default();
        String::from_utf8(stored).map_err(JournalError::read)
    }

    /// A value kept for the job under a name.
    pub fn get_meta(&self, key: &str) -> Result<Option<Vec<u8>>, JournalError> {
        let db = schema::open_reader(&self.0.path)?;
        db.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))
            .optional()
            .map_err(JournalError::read)
    }

    /// Keeps a value for the job under a name; durable when it returns.
    pub fn put_meta(&self, key: &str, value: &[u8]) -> Result<(), JournalError> {
        let (key, value) = (key.to_string(), value.to_vec());
        self.control(move |tx| {
            tx.db.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", rusqlite::params![key, value])?;
            Ok(())
        })
    }

    /// The number of an input; a new name gets one.
    pub fn input(&self, name: &str) -> Result<InputId, JournalError> {
        let name = SmolStr::new(name);
        self.control(move |tx| consumer::input(tx, &name))
    }

    /// The number of a stream of rows; a new name gets one.
    pub fn stream(&self, name: &str) -> Result<StreamId, JournalError> {
        let name = SmolStr::new(name);
        self.control(move |tx| consumer::stream(tx, &name))
    }

    /// Finds the consumer of this name that reads this stream, or makes it. What the file has of known consumers stays
    /// as it is until [`Journal::keep_only_consumers`], so that a start that fails has changed none.
    pub fn register_consumer(&self, spec: ConsumerSpec) -> Result<ConsumerInfo, JournalError> {
        let limits = spec.limits;
        let info = self.control(move |tx| consumer::register(tx, &spec))?;
        self.0.shared.with_limits(|all| all.insert(info.id.0, limits));
        Ok(info)
    }

    /// Closes all consumers but these; what they had not read is counted `consumer_removed`. Of the others, those with
    /// another fingerprint keep their position and lose their state. Call it once all consumers of the job are
    /// registered and nothing else can fail: only then are segments trimmed.
    pub fn keep_only_consumers(&self, names: &[SmolStr]) -> Result<Vec<RemovedConsumer>, JournalError> {
        let names = names.to_vec();
        self.control(move |tx| consumer::keep_only(tx, &names))
    }

    /// The state a consumer had at its last commit, by operator and key.
    ///
    /// # Errors
    /// [`JournalError::State`] where it is not what was stored; the others have theirs.
    pub fn load_state(&self, consumer: ConsumerId) -> Result<Vec<StateEntry>, JournalError> {
        self.sync()?;
        // a damaged page would end the writer's transaction
        state::load(&schema::open_reader(&self.0.path)?, consumer)
    }

    /// Removes the state of consumers, by their names, where they stand now; no job may run.
    pub fn reset_state(&self, consumers: Vec<SmolStr>) -> Result<Vec<ResetState>, JournalError> {
        self.sync()?;
        let damaged = state::mend(&self.0.path)?;
        self.control(move |tx| state::reset(tx, &consumers, &damaged))
    }

    /// Says that a person has seen what could not be read and was set aside; gives what was new of it.
    pub fn acknowledge_quarantine(&self) -> Result<QuarantineCount, JournalError> {
        self.control(quarantine::acknowledge)
    }

    /// A consumer lets arrival time pass while nothing comes; how far it may. What is stored later arrives no earlier.
    pub fn let_pass(&self, era: u32, to: Timestamp) -> Timestamp {
        self.0.shared.passing.let_pass(era, to, !self.is_full())
    }

    /// Stores events. Waits while the lane of intake is full, which it soon is when the byte budget is used up: so the
    /// caller stops reading. `on_durable` gets the answer in every case.
    pub fn append(&self, append: Append) {
        self.0.shared.queue.push(Lane::Intake, Command::Append(self.on_its_way(append)));
    }

    /// Time waits for its events until they are answered.
    fn on_its_way(&self, append: Append) -> Append {
        let Some(earliest) = append.events.iter().map(|event| event.arrival).min() else { return append };
        let way = OnItsWay::new(self.0.shared.passing.clone(), append.era, earliest);
        let answered = append.on_durable;
        let on_durable = Box::new(move |result| {
            // it can be read by now, or never
            drop(way);
            answered(result);
        });
        Append { on_durable, ..append }
    }

    /// As [`Journal::append`], but gives the append back where that would wait, or while the budget is used up.
    pub fn try_append(&self, append: Append) -> Option<Append> {
        match self.0.shared.queue.try_push(Lane::Intake, Command::Append(self.on_its_way(append))) {
            Some(Command::Append(append)) => Some(append),
            _ => None,
        }
    }

    /// Stores a consumer's step; see [`Commit`]. Commits of one consumer are done in the order given.
    pub fn commit(&self, commit: Commit) -> Receipt {
        self.commit_with(commit, ())
    }

    /// As [`Journal::commit`]; `kept` is dropped once the step is durable, or refused.
    pub fn commit_with(&self, commit: Commit, kept: impl Send + 'static) -> Receipt {
        let (reply, answer) = sync_channel(1);
        let done = move |result| {
            drop(kept);
            // nobody may listen any more: nothing to do
            drop(reply.try_send(result));
        };
        self.commit_then(commit, Box::new(done));
        Receipt(answer)
    }

    /// For how long no group commit is made of what is appended now, unless somebody is in a hurry. 0 where commits are
    /// not stretched.
    pub fn next_commit_in(&self) -> Duration {
        let shared = &self.0.shared;
        let next = Duration::from_nanos(shared.next_commit.load(Ordering::Relaxed));
        next.saturating_sub(Clock::Real.since(shared.started))
    }

    /// As [`Journal::commit`], with the answer given to a function on the writer thread.
    pub fn commit_then(&self, commit: Commit, done: OnCommitted) {
        let lane = Lane::Consumer(commit.consumer.0);
        self.0.shared.queue.push(lane, Command::Commit(commit, done));
    }

    /// Makes what waits durable as soon as possible; does not wait for it.
    pub fn flush(&self) {
        self.0.shared.queue.flush();
    }

    /// Waits until everything given before is durable (but intake that waits for room).
    pub fn sync(&self) -> Result<(), JournalError> {
        self.control(|_| Ok(()))
    }

    /// A reader of a stream from `position` on.
    pub fn reader(&self, stream: StreamId, position: i64) -> Reader {
        Reader::new(self.0.shared.clone(), self.0.path.clone(), stream, position)
    }

    /// Makes every waiting [`Reader::next`] return [`Read::Idle`].
    pub fn wake_readers(&self) {
        self.0.shared.streams.wake();
    }

    /// First kept offset and end of a stream.
    pub fn ends(&self, stream: StreamId) -> (i64, i64) {
        self.0.shared.streams.ends(stream.0)
    }

    /// How far arrival time has come: that of the newest stored event, or how far a consumer let it pass, if that is
    /// later. It decreases where an era begins.
    pub fn last_arrival(&self) -> Timestamp {
        Timestamp::saturating_from_ticks(self.0.shared.last_arrival.load(Ordering::Acquire))
    }

    /// Which arrival times the pool has used, and where in the inputs its eras begin.
    pub fn eras(&self) -> Arc<Eras> {
        self.0.shared.with_eras(|eras| eras.clone())
    }

    /// Keeps eras in which arrival time has leapt ahead; durable when it returns.
    pub fn keep_eras(&self, eras: Eras) -> Result<(), JournalError> {
        self.control(move |tx| eras::keep(tx, eras.clone()))
    }

    /// Begins an era behind everything that is stored; durable when it returns.
    pub fn begin_era(&self, way: WayBack) -> Result<Eras, JournalError> {
        self.control(move |tx| eras::begin(tx, &way))
    }

    /// Whether the byte budget or the disk is used up, so that intake waits.
    pub fn is_full(&self) -> bool {
        self.0.shared.is_full.load(Ordering::Acquire)
    }

    /// Whether the last transaction found no room on the disk.
    pub fn is_disk_full(&self) -> bool {
        self.0.shared.is_disk_full.load(Ordering::Acquire)
    }

    /// The program that pins the write-ahead log, if one does, and whether intake waits for it.
    pub fn pin(&self) -> Option<(Pin, bool)> {
        let pin = self.0.shared.with_pin(|pin| pin.clone())?;
        Some((pin, self.0.shared.waits_for_pin.load(Ordering::Relaxed)))
    }

    /// Why the pool's file cannot be written while its log can, if so.
    pub fn file_failing(&self) -> Option<String> {
        self.0.shared.with_failing(|failing| failing.clone())
    }

    /// Bytes used of the budget, as of the last commit.
    pub fn used_bytes(&self) -> u64 {
        self.0.shared.used_bytes.load(Ordering::Relaxed)
    }

    /// Why nothing is stored any more, if so: poisoned or closed.
    pub fn refusal(&self) -> Option<JournalError> {
        self.0.shared.queue.refusal()
    }

    /// All counters as of the last commit.
    pub fn ledger(&self) -> Arc<Ledger> {
        self.0.shared.streams.ledger()
    }

    /// Adds to counters outside of any commit; durable when it returns.
    pub fn count(&self, counters: Vec<(Counter, u64)>) -> Result<(), JournalError> {
        self.control(move |tx| {
            counters.iter().for_each(|(counter, n)| tx.books.ledger.add(counter.clone(), *n));
            Ok(())
        })
    }

    pub fn status(&self) -> Result<JournalStatus, JournalError> {
        Ok(self.with_live(JournalStatus::open_readonly(&self.0.path)?))
    }

    /// What a job looks at again and again; see [`JournalStatus::summary_readonly`].
    pub fn summary(&self) -> Result<JournalStatus, JournalError> {
        Ok(self.with_live(JournalStatus::summary_readonly(&self.0.path)?))
    }

    /// A status with how long the oldest record of each consumer has waited; `now` is how far arrival time has come.
    pub fn with_oldest(&self, status: JournalStatus, now: Timestamp) -> JournalStatus {
        let Inner { shared, path, .. } = &*self.0;
        status.with_oldest(now, |stream, position| oldest::arrival_at(shared, path, stream, position).ok().flatten())
    }

    fn with_live(&self, mut status: JournalStatus) -> JournalStatus {
        status.live = Some(LiveStatus {
            max_bytes: self.0.max_bytes,
            is_full: self.is_full(),
            refusal: self.refusal().map(|e| e.to_string()),
            file_failing: self.file_failing(),
            has_alarm: self.0.alarm.is_some(),
            tail_bytes: self.0.shared.streams.bytes(),
            commits: self.0.shared.commits.load(Ordering::Relaxed),
            write_budget: self.0.write_budget,
        });
        let now = Clock::Real.monotonic();
        status.wear = self.0.shared.with_written(|written| written.told(now));
        status.growth = self.0.shared.with_growth(|growth| growth.told(now));
        self.0.shared.with_limits(|all| {
            status.consumers.iter_mut().for_each(|consumer| consumer.limits = all.get(&consumer.id).copied());
        });
        status.pin = self.0.shared.with_pin(|pin| pin.clone());
        status.with_room(self.0.max_bytes)
    }

    /// Stores dead letters outside of any commit; durable when it returns.
    pub fn add_dead_letters(&self, letters: Vec<DeadLetter>) -> Result<(), JournalError> {
        self.control(move |tx| {
            letters.iter().try_for_each(|l| dead_letter::store(tx.db, &mut tx.books, l)).map_err(StepError::Sql)
        })
    }

    /// Has a consumer leave out the record of a letter from the next start on, and stores the letter; durable when it
    /// returns.
    pub fn put_aside(&self, consumer: SmolStr, letter: DeadLetter) -> Result<(), JournalError> {
        self.control(move |tx| consumer::put_aside(tx, &consumer, &letter))
    }

    /// The offsets that a consumer of the inputs leaves out, from its position on.
    pub fn asides(&self, consumer: SmolStr, position: i64) -> Result<BTreeSet<i64>, JournalError> {
        self.control(move |tx| consumer::asides(tx, &consumer, position))
    }

    /// Stores what became of dead letters; durable when it returns.
    ///
    /// # Errors
    /// When nothing of it is stored.
    pub fn replay(&self, replayed: Replayed) -> Result<(), JournalError> {
        self.control(move |tx| tx.replay(&replayed))
    }

    /// Drops dead letters; how many there were.
    pub fn drop_dead_letters(&self, filter: LetterFilter) -> Result<u64, JournalError> {
        self.control(move |tx| dead_letter::remove(tx.db, &mut tx.books, &filter).map_err(StepError::Sql))
    }

    /// The newest `max` stored events of an input, oldest first; at most as many as `recent_records` are sure to be
    /// there.
    pub fn recent_messages(&self, input: InputId, max: usize) -> Result<Vec<StoredMessage>, JournalError> {
        let shared = self.0.shared.clone();
        let segments = self.control(move |_| Ok(shared.with_recent(|recent| recent.segments(input.0))))?;
        let firsts: Vec<i64> = segments.iter().map(|s| s.first).collect();
        let mut found = Vec::new();
        let from = self.get_meta(recent::FROM)?.and_then(|bytes| bytes.try_into().ok()).map_or(0, i64::from_le_bytes);
        // a damaged page would end the writer's transaction
        let read = reader::read_events(&schema::open_reader(&self.0.path)?, input.0, &firsts, |event, payload| {
            if event.offset >= from {
                let (offset, mark, message) = (event.offset, event.mark, event.message.clone());
                found.push(StoredMessage { offset, mark, message, payload });
            }
        });
        read.map_err(JournalError::read)?;
        Ok(found.split_off(found.len().saturating_sub(max)))
    }

    /// Ends as a process that is killed: what is not durable is gone, and nothing is tidied up.
    #[cfg(test)]
    pub fn kill(&self) {
        self.0.shared.is_killed.store(true, Ordering::Release);
        for entry in self.0.shared.queue.stop(JournalError::Closed) {
            entry.command.refuse(JournalError::Closed);
        }
        self.close();
    }

    /// Whether a test has planted this fault.
    #[cfg(test)]
    pub fn has_planted(&self, fault: planted::Planted) -> bool {
        *self.0.shared.planted.lock().unwrap_or_else(PoisonError::into_inner) == Some(fault)
    }

    /// Takes no more commands, finishes those that wait (intake that waits for room is refused), and closes the file.
    /// Readers get [`Read::Closed`].
    pub fn close(&self) {
        self.0.close();
    }

    /// Has the writer do a step and waits for its answer.
    fn control<T: Send + 'static>(
        &self,
        step: impl FnMut(&mut Transaction<'_>) -> Result<T, StepError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (command, answer): (Command, Receiver<Result<T, JournalError>>) = ask(step);
        self.0.shared.queue.push(Lane::Control, command);
        answer.recv().unwrap_or(Err(JournalError::Closed))
    }
}

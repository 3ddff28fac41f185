//! What is in the journal right now.
//!
//! In: one short read transaction, from this process or another. Out: [`JournalStatus`], plain numbers. Invariant: all
//! numbers are of the same moment. Not here: whether they add up (`verify`), how they are shown (`cli`).

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};
use serde::Serialize;

use super::books::{Books, DeadLetterCount};
use super::budget::{free_bytes, used_bytes};
use super::changes::Changes;
use super::config::BacklogLimits;
use super::damage::is_damage;
use super::error::JournalError;
use super::growth::{GrowthStatus, Left, PoolRoom};
use super::ledger::{Edge, what};
use super::oldest;
use super::outputs::{self, OutputStatus};
use super::pace::{WEAR, WearStatus};
use super::pin::{self, Pin};
use super::progress::{self, ConsumerAt, ConsumerPace};
use super::ranges::QuarantineCount;
use super::recovery::{self, Look};
use super::reference::{self, ReferenceStatus};
use super::request::StreamId;
use super::schema::{self, redo_path, wal_path};
use crate::arrival::Eras;
use crate::time::{Clock, TICKS_PER_SECOND, Timestamp, pause};

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct JournalStatus {
    pub path: String,
    /// Hexadecimal.
    pub incarnation: String,
    pub schema_version: i64,
    /// Pages in use and both logs: what the budget counts.
    pub used_bytes: u64,
    pub file_bytes: u64,
    pub wal_bytes: u64,
    pub redo_bytes: u64,
    /// Pages of the file that hold nothing, in bytes.
    pub free_bytes: u64,
    pub streams: Vec<StreamStatus>,
    pub consumers: Vec<ConsumerStatus>,
    pub outputs: Vec<OutputStatus>,
    pub ledger: Vec<LedgerLine>,
    pub dead_letters: DeadLetterCount,
    /// Of records that cannot be read, a hundred ranges at most.
    pub quarantine: Vec<QuarantinedSegment>,
    pub quarantined: QuarantineCount,
    pub references: Vec<ReferenceStatus>,
    /// What the pool lacks, or lacked at its last start that found something missing.
    pub alarm: Option<String>,
    /// As of the last checkpoint, or of now in the process that writes.
    pub wear: WearStatus,
    /// How long the card lasts at the pace of the last day; known once its endurance is.
    pub card_years: Option<f64>,
    /// As of the last checkpoint, or of now in the process that writes.
    pub growth: GrowthStatus,
    /// What the pool may still take; known once `max_bytes` is.
    pub room: Option<PoolRoom>,
    /// How long that lasts if nobody reads; `None` while nothing comes.
    pub left: Option<Left>,
    /// Another program that reads the file and pins its log.
    pub pin: Option<Pin>,
    /// Which arrival times were used, and where arrival time was set back.
    pub eras: Eras,
    /// Known to the running journal only.
    pub live: Option<LiveStatus>,
}

/// What only the process that writes can tell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LiveStatus {
    pub max_bytes: u64,
    pub is_full: bool,
    /// Why nothing is stored any more.
    pub refusal: Option<String>,
    /// Why the file cannot be written, while its write-ahead log can.
    pub file_failing: Option<String>,
    /// The pool lacked something when the process started, or could not be used.
    pub has_alarm: bool,
    /// Bytes of recent segments in memory.
    pub tail_bytes: usize,
    /// Transactions since start.
    pub commits: u64,
    /// Bytes a day that may be written before commits are stretched.
    pub write_budget: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StreamStatus {
    pub id: u32,
    pub name: String,
    /// Everything below is trimmed.
    pub first: i64,
    pub next: i64,
    pub segments: u64,
    /// In the file and the redo log; may include some below `first` that are kept to recognise redeliveries.
    pub records: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ConsumerStatus {
    pub id: u32,
    pub name: String,
    pub stream: u32,
    pub start: i64,
    pub position: i64,
    pub pending: u64,
    /// Seconds since the oldest of these arrived; not known to a summary.
    pub oldest_seconds: Option<u64>,
    /// Its position is the lowest of its stream, so trimming waits for it.
    pub pins: bool,
    pub drop_oldest: bool,
    /// How far it may be behind; known to the running journal only.
    pub limits: Option<BacklogLimits>,
    /// How it gets on where it is behind; known to [`JournalStatus::watch_readonly`].
    pub pace: Option<ConsumerPace>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LedgerLine {
    pub edge: &'static str,
    pub name: String,
    pub what: String,
    pub reason: String,
    pub value: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QuarantinedSegment {
    pub stream: u32,
    pub first: i64,
    /// Offset behind its last record.
    pub end: i64,
    pub reason: String,
}

/// Long beside a read of the job's own and the time between commits of a busy consumer, short for a person.
const LOOKS_APART: Duration = Duration::from_millis(500);
/// Quarantined segments listed; their number is not limited, a list for people is.
const QUARANTINE_LISTED: i64 = 100;

impl JournalStatus {
    /// Reads the status of any journal, also while its job runs. Changes nothing.
    pub fn open_readonly(path: &Path) -> Result<JournalStatus, JournalError> {
        JournalStatus::read(&schema::open_reader(path)?, path, true)
    }

    /// The same without `streams`: those are counted segment by segment, which takes seconds in a pool of millions.
    pub fn summary_readonly(path: &Path) -> Result<JournalStatus, JournalError> {
        JournalStatus::read(&schema::open_reader(path)?, path, false)
    }

    /// The whole status, for a person who may wait half a second: with other programs that read the file all this time,
    /// and with how fast consumers that are behind get on where the job runs. Nobody waits where neither can be told.
    pub fn watch_readonly(path: &Path) -> Result<JournalStatus, JournalError> {
        let db = schema::open_reader(path)?;
        let (then, mut readers) = (Clock::Real.monotonic(), pin::other_readers(path));
        let mut status = JournalStatus::read(&db, path, true)?;
        let is_behind = status.consumers.iter().any(|consumer| consumer.pending > 0) && pin::is_locked(path);
        if readers.is_empty() && !is_behind {
            return Ok(status);
        }
        // to count the segments of a large pool takes as long by itself
        let passed = || Clock::Real.monotonic().saturating_duration_since(then);
        pause(LOOKS_APART.saturating_sub(passed()));
        let still = pin::other_readers(path);
        readers.retain(|process| still.contains(process));
        if !readers.is_empty() {
            status.pin = Some(Pin { programs: pin::named(readers), log_bytes: status.wal_bytes });
        }
        if is_behind {
            let seconds = passed().as_secs_f64();
            let after = JournalStatus::read(&db, path, false)?;
            let pace = |consumer: &ConsumerStatus| {
                progress::pace(status.consumer_at(consumer.id)?, after.consumer_at(consumer.id)?, seconds)
            };
            let paces: Vec<Option<ConsumerPace>> = status.consumers.iter().map(pace).collect();
            status.consumers.iter_mut().zip(paces).for_each(|(consumer, pace)| consumer.pace = pace);
        }
        Ok(status)
    }

    /// With how long a card lasts that can take this number of bytes in its life.
    pub fn with_card(mut self, endurance: Option<u64>) -> JournalStatus {
        self.card_years = endurance.and_then(|endurance| self.wear.years(endurance));
        self
    }

    /// An output delivered at this time, if the file does not know of a later one.
    pub fn note_delivery(&mut self, output: &str, at: Option<Timestamp>) {
        for known in self.outputs.iter_mut().filter(|known| known.name.eq_ignore_ascii_case(output)) {
            known.delivered_at = known.delivered_at.max(at);
        }
    }

    /// With how long the oldest record of each consumer has waited. `find` gives the arrival of the record at a
    /// position, `now` is how far arrival time has come.
    pub(super) fn with_oldest(
        mut self,
        now: Timestamp,
        mut find: impl FnMut(StreamId, i64) -> Option<Timestamp>,
    ) -> JournalStatus {
        for consumer in self.consumers.iter_mut().filter(|consumer| consumer.pending > 0) {
            let arrival = find(StreamId(consumer.stream), consumer.position);
            let age = arrival.map(|arrival| self.eras.age(arrival, now));
            consumer.oldest_seconds = age.map(|ticks| (ticks / TICKS_PER_SECOND).unsigned_abs());
        }
        for output in &mut self.outputs {
            let its = self.consumers.iter().filter(|consumer| output.consumers.contains(&consumer.name));
            output.oldest_seconds = its.filter_map(|consumer| consumer.oldest_seconds).max();
        }
        self
    }

    fn consumer_at(&self, id: u32) -> Option<ConsumerAt> {
        let consumer = self.consumers.iter().find(|consumer| consumer.id == id)?;
        let is_skip =
            |l: &&LedgerLine| l.edge == Edge::Consumer.as_str() && l.name == consumer.name && l.what == what::SKIPPED;
        Some(ConsumerAt {
            position: consumer.position,
            end: consumer.position.saturating_add_unsigned(consumer.pending),
            skipped: self.ledger.iter().filter(is_skip).map(|line| line.value).sum(),
        })
    }

    /// With what is left of a budget, and for how long.
    pub fn with_room(mut self, max_bytes: u64) -> JournalStatus {
        let room = PoolRoom::of(Path::new(&self.path), max_bytes, self.used_bytes, self.free_bytes);
        (self.room, self.left) = (Some(room), Left::of(room, self.growth.a_day()));
        self
    }

    fn read(db: &Connection, path: &Path, with_streams: bool) -> Result<JournalStatus, JournalError> {
        // one moment for all that follows
        let look = recovery::look(db, path, with_streams)?;
        let Look { books, changes, .. } = &look;
        let length = |path: &Path| fs::metadata(path).map_or(0, |m| m.len());
        let read = || -> rusqlite::Result<JournalStatus> {
            let status = JournalStatus {
                path: path.display().to_string(),
                incarnation: db.query_row(
                    "SELECT lower(hex(value)) FROM meta WHERE key = 'incarnation'",
                    [],
                    |row| row.get(0),
                )?,
                schema_version: db.query_row("PRAGMA user_version", [], |row| row.get(0))?,
                used_bytes: used_bytes(db, path)?,
                file_bytes: length(path),
                wal_bytes: length(&wal_path(path)),
                redo_bytes: length(&redo_path(path)),
                free_bytes: free_bytes(db)?,
                streams: if with_streams { streams(db, books, changes)? } else { Vec::new() },
                outputs: outputs::outputs(books),
                consumers: consumers(books),
                ledger: ledger(books),
                dead_letters: books.dead_letters,
                quarantine: quarantine(db)?,
                quarantined: QuarantineCount::read(db)?,
                references: reference::statuses(db)?,
                wear: wear(db)?,
                card_years: None,
                growth: GrowthStatus::read(db)?,
                room: None,
                left: None,
                alarm: match &look.alarm {
                    Some(alarm) => Some(alarm.clone()),
                    None => recovery::last_alarm(db)?,
                },
                pin: None,
                eras: Eras::clone(&books.eras),
                live: None,
            };
            let find = |stream, position| oldest::looked_up(db, &changes.sealed, stream, position);
            Ok(if with_streams { status.with_oldest(Clock::Real.now(), find) } else { status })
        };
        read().map_err(JournalError::read)
    }
}

fn streams(db: &Connection, books: &Books, changes: &Changes) -> rusqlite::Result<Vec<StreamStatus>> {
    let mut sums = db.prepare(
        "SELECT count(*), coalesce(sum(count), 0), coalesce(sum(length(data)), 0) FROM segment WHERE stream = ?1",
    )?;
    let mut found = Vec::new();
    for (id, stream) in &books.streams {
        let (segments, records, bytes): (i64, i64, i64) =
            match sums.query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))) {
                Err(error) if is_damage(&error) => readable(db, *id)?,
                sums => sums?,
            };
        let mut status = StreamStatus {
            id: *id,
            name: stream.name.to_string(),
            first: stream.first,
            next: stream.next,
            segments: segments as u64,
            records: records as u64,
            bytes: bytes as u64,
        };
        for sealed in changes.sealed.iter().filter(|sealed| sealed.head.stream == *id) {
            status.segments += 1;
            status.records += u64::from(sealed.head.count);
            status.bytes += sealed.data.len() as u64;
        }
        found.push(status);
    }
    Ok(found)
}

/// Segments, records and bytes of a stream that has some on damaged pages.
fn readable(db: &Connection, stream: u32) -> rusqlite::Result<(i64, i64, i64)> {
    let mut firsts = db.prepare("SELECT first FROM segment WHERE stream = ?1 ORDER BY first")?;
    let mut one = db.prepare("SELECT count, length(data) FROM segment WHERE stream = ?1 AND first = ?2")?;
    let mut sums = (0, 0, 0);
    // the index may be damaged too: what it gives is counted
    for first in firsts.query_map([stream], |row| row.get::<_, i64>(0))?.map_while(Result::ok) {
        let found = one.query_row([i64::from(stream), first], |row| Ok((row.get(0)?, row.get(1)?)));
        let (count, bytes): (i64, i64) = found.unwrap_or_default();
        sums = (sums.0 + 1, sums.1 + count, sums.2 + bytes);
    }
    Ok(sums)
}

fn consumers(books: &Books) -> Vec<ConsumerStatus> {
    let end = |stream: u32| books.streams.get(&stream).map_or(0, |s| s.next);
    let status = |(id, c): (&u32, &super::books::ConsumerBook)| ConsumerStatus {
        id: *id,
        name: c.name.to_string(),
        stream: c.stream,
        start: c.start,
        position: c.position,
        pending: (end(c.stream) - c.position).max(0) as u64,
        oldest_seconds: None,
        pins: c.position < end(c.stream) && c.position == books.needed_from(c.stream),
        drop_oldest: c.drop_oldest,
        limits: None,
        pace: None,
    };
    books.consumers.iter().map(status).collect()
}

fn ledger(books: &Books) -> Vec<LedgerLine> {
    let line = |(counter, value): (&super::ledger::Counter, u64)| LedgerLine {
        edge: counter.edge.as_str(),
        name: counter.name.to_string(),
        what: counter.what.to_string(),
        reason: counter.reason.to_string(),
        value,
    };
    books.ledger.iter().map(line).collect()
}

fn wear(db: &Connection) -> rusqlite::Result<WearStatus> {
    let stored: Option<Vec<u8>> =
        db.query_row("SELECT value FROM meta WHERE key = ?1", [WEAR], |row| row.get(0)).optional()?;
    // what another version wrote is of no use, and no reason to fail
    Ok(stored.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default())
}

fn quarantine(db: &Connection) -> rusqlite::Result<Vec<QuarantinedSegment>> {
    let mut statement =
        db.prepare("SELECT stream, first, past, reason FROM quarantine ORDER BY stream, first LIMIT ?1")?;
    let rows = statement.query_map([QUARANTINE_LISTED], |row| {
        Ok(QuarantinedSegment { stream: row.get(0)?, first: row.get(1)?, end: row.get(2)?, reason: row.get(3)? })
    })?;
    rows.collect()
}

//! What the writer knows without asking the file: ends of streams, positions of consumers, counters.
//!
//! In: the file at start, and the redo log. Out: [`Books`], copied at the start of a transaction and kept when it
//! commits, so a failed one leaves no trace. Invariant: books say what file and redo log say together whenever no
//! transaction is open. Not here: segments and state rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, params};
use serde::Serialize;
use smol_str::SmolStr;

use super::arrived::ArrivalBounds;
use super::books_sum;
use super::config::BacklogLimits;
use super::ledger::{Edge, Imbalance, Ledger, what};
use super::meta::load_json;
use super::stream::Dropped;
use crate::arrival::Eras;
use crate::time::Timestamp;

/// The sequence of all inputs; the other streams hold rows.
pub(super) const INPUTS: u32 = 0;

/// Where the eras are kept in `meta`, as JSON.
pub(super) const ERAS: &str = "eras";
/// Where it is kept when outputs last delivered.
const DELIVERED: &str = "delivered";

/// How many dead letters there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeadLetterCount {
    pub letters: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct StreamBook {
    pub name: SmolStr,
    /// Everything below is trimmed.
    pub first: i64,
    /// The offset that the next record gets.
    pub next: i64,
    pub last_arrival: Timestamp,
    /// Lowest position of a consumer when everything below it was last trimmed; nothing to do until it moves.
    pub trimmed_to: i64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ConsumerBook {
    pub name: SmolStr,
    pub fingerprint: String,
    pub stream: u32,
    /// Where it began to read.
    pub start: i64,
    pub position: i64,
    pub drop_oldest: bool,
    /// Of the job at hand; the file does not know them.
    pub limits: BacklogLimits,
    /// Up to here the journal itself moved it, so it may still commit an older position.
    pub dropped: Option<Dropped>,
    /// Records before that which its reader had handed out by then: they are read once it commits a position behind
    /// them. Known to this run only; the ledger knows how many there are.
    pub in_hand: Vec<InHand>,
    /// What the job at hand asked for and the file does not have yet: a later step of the start can still fail.
    pub asked: Option<Asked>,
}

impl ConsumerBook {
    /// Whether its name belongs to another consumer until the job runs.
    pub fn is_moved(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.is_new)
    }
}

/// Records that were handed out and not committed when the journal moved their consumer past them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct InHand {
    pub from: i64,
    pub to: i64,
    /// Why it was moved.
    pub reason: &'static str,
}

/// How a consumer is to be once the job runs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Asked {
    pub fingerprint: String,
    pub drop_oldest: bool,
    pub limits: BacklogLimits,
    /// It has no row in the file: its name belongs to a consumer that reads another stream.
    pub is_new: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    /// By number.
    pub streams: BTreeMap<u32, StreamBook>,
    /// By number, from 1.
    pub inputs: BTreeMap<u16, SmolStr>,
    /// By number.
    pub consumers: BTreeMap<u32, ConsumerBook>,
    pub ledger: Ledger,
    pub dead_letters: DeadLetterCount,
    /// When each output last delivered a row, ticks of the wall clock. Known to the file as of the last checkpoint.
    pub delivered: BTreeMap<String, i64>,
    /// Which arrival times the pool has used.
    pub eras: Arc<Eras>,
    /// Where the arrival that a record tells is too late.
    pub arrived: Arc<ArrivalBounds>,
    /// Segments set aside; while there are none nobody looks for them.
    pub quarantined: u64,
    /// Whether all consumers of this run are known: before that nothing may be trimmed.
    pub consumers_known: bool,
    #[cfg(test)]
    pub planted: Option<super::planted::Planted>,
    /// Of a planted fault: what the next commit stores.
    #[cfg(test)]
    pub held_back: Vec<(u32, super::request::StateChange)>,
}

impl Books {
    pub fn load(db: &Connection) -> rusqlite::Result<Books> {
        books_sum::check(db)?;
        // a pool that has none has used all times up to its last arrival
        let eras = Arc::new(load_json(db, ERAS)?);
        let mut books = Books {
            ledger: Ledger::load(db)?,
            dead_letters: load_count(db)?,
            delivered: load_json(db, DELIVERED)?,
            eras,
            arrived: Arc::new(ArrivalBounds::load(db)?),
            ..Books::default()
        };
        let mut statement = db.prepare("SELECT id, name, first, next, last_arrival FROM stream")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (name, last_arrival) =
                (SmolStr::from(row.get::<_, String>(1)?), Timestamp::saturating_from_ticks(row.get(4)?));
            let stream = StreamBook { name, first: row.get(2)?, next: row.get(3)?, last_arrival, trimmed_to: i64::MIN };
            books.streams.insert(row.get(0)?, stream);
        }
        let mut statement = db.prepare("SELECT id, name FROM input")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            books.inputs.insert(row.get(0)?, SmolStr::from(row.get::<_, String>(1)?));
        }
        let mut statement =
            db.prepare("SELECT id, name, fingerprint, stream, start, position, drop_oldest FROM consumer")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let consumer = ConsumerBook {
                name: SmolStr::from(row.get::<_, String>(1)?),
                fingerprint: row.get(2)?,
                stream: row.get(3)?,
                start: row.get(4)?,
                position: row.get(5)?,
                drop_oldest: row.get(6)?,
                limits: BacklogLimits::default(),
                dropped: None,
                in_hand: Vec::new(),
                asked: None,
            };
            books.consumers.insert(row.get(0)?, consumer);
        }
        books.quarantined = db.query_row("SELECT count(*) FROM quarantine", [], |row| row.get::<_, i64>(0))? as u64;
        Ok(books)
    }

    /// Writes what differs from the books before the transaction. (New streams, inputs and consumers are inserted, and
    /// consumers deleted, by the steps that do so.)
    pub fn save(&self, db: &Connection, before: &Books) -> rusqlite::Result<()> {
        let mut update =
            db.prepare_cached("UPDATE stream SET first = ?2, next = ?3, last_arrival = ?4 WHERE id = ?1")?;
        for (id, stream) in &self.streams {
            // a commit may let arrival time pass without an event
            let of = |s: &StreamBook| (s.first, s.next, s.last_arrival);
            if before.streams.get(id).map(of) != Some(of(stream)) {
                update.execute(params![id, stream.first, stream.next, stream.last_arrival.ticks()])?;
            }
        }
        let mut update = db.prepare_cached("UPDATE consumer SET position = ?2 WHERE id = ?1")?;
        for (id, consumer) in &self.consumers {
            if before.consumers.get(id).is_none_or(|b| b.position != consumer.position) {
                update.execute(params![id, consumer.position])?;
            }
        }
        if self.delivered != before.delivered {
            let json = serde_json::to_vec(&self.delivered).unwrap_or_default();
            db.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?.execute(params![DELIVERED, json])?;
        }
        self.ledger.save(db, &before.ledger)?;
        books_sum::keep(db)
    }

    /// stored since its start = read + pending + skipped, for consumers of this run and for those that were removed.
    pub fn consumer_imbalances(&self) -> Vec<Imbalance> {
        let ledger = &self.ledger;
        let mut names = ledger.names(Edge::Consumer);
        names.extend(self.consumers.values().map(|c| c.name.clone()));
        names.sort();
        names.dedup();
        let mut found = Vec::new();
        for name in names {
            let sum = |what: &str| i128::from(ledger.sum(Edge::Consumer, &name, what));
            let (mut stored, mut pending) = (sum(what::STORED), 0);
            if let Some(consumer) = self.consumers.values().find(|c| c.name == name) {
                let end = self.streams.get(&consumer.stream).map_or(0, |s| s.next);
                stored += i128::from(end - consumer.start);
                pending = i128::from(end - consumer.position);
            }
            let right = sum(what::READ) + pending + sum(what::SKIPPED) + i128::from(ledger.in_hand(&name));
            if stored != right {
                let equation = "stored since its start = read + pending + skipped + in hand";
                found.push(Imbalance { edge: Edge::Consumer, name, equation, left: stored, right });
            }
        }
        found
    }

    /// The offset that the next event gets.
    pub fn inputs_end(&self) -> i64 {
        self.streams.get(&INPUTS).map_or(0, |inputs| inputs.next)
    }

    /// The lowest position that a consumer of the stream still needs; its end when there is none.
    pub fn needed_from(&self, stream: u32) -> i64 {
        let end = self.streams.get(&stream).map_or(0, |s| s.next);
        #[cfg(test)]
        if self.planted == Some(super::planted::Planted::TrimPastConsumer) {
            return end;
        }
        self.consumers.values().filter(|c| c.stream == stream).map(|c| c.position).min().unwrap_or(end)
    }
}

fn load_count(db: &Connection) -> rusqlite::Result<DeadLetterCount> {
    db.query_row("SELECT count(*), coalesce(sum(bytes), 0) FROM dead_letter", [], |row| {
        Ok(DeadLetterCount { letters: row.get::<_, i64>(0)? as u64, bytes: row.get::<_, i64>(1)? as u64 })
    })
}

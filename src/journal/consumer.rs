//! Inputs, streams and consumers: who writes and who reads.
//!
//! In: names from the job. Out: numbers that stay the same for the life of the file. Invariant: a consumer's position
//! and state are kept as long as its name is part of the job, state only under an unchanged fingerprint. Not here: what
//! a consumer commits (`transaction`), trimming behind it (`trim`).

use std::collections::BTreeSet;

use rusqlite::params;
use smol_str::SmolStr;

use super::books::{Asked, ConsumerBook, INPUTS, StreamBook};
use super::dead_letter::{self, DeadLetter};
use super::error::{JournalError, StepError};
use super::ledger::{Counter, Edge, what};
use super::request::{ConsumerId, ConsumerInfo, ConsumerSpec, InputId, OnFull, RemovedConsumer, Start, StreamId};
use super::transaction::Transaction;
use crate::time::Timestamp;

/// More would mean that names are made up at run time; each costs memory and a condition variable.
const NAMES_MAX: usize = 1024;

/// What log lines of a consumer stand in: its name is `statement NAME`, or `output NAME` where finished rows leave.
pub fn consumer_span(consumer: &str) -> tracing::Span {
    match consumer.split_once(' ') {
        Some(("output", name)) => tracing::error_span!("output", %name),
        Some(("statement", name)) => tracing::error_span!("statement", %name),
        _ => tracing::error_span!("consumer", name = %consumer),
    }
}

/// Has a consumer of the inputs leave out the record of a letter, which is stored with the note.
pub(super) fn put_aside(tx: &mut Transaction<'_>, consumer: &SmolStr, letter: &DeadLetter) -> Result<(), StepError> {
    let sql = "INSERT OR IGNORE INTO aside VALUES (?1, ?2)";
    if tx.db.execute(sql, params![consumer.as_str(), letter.offset])? > 0 {
        dead_letter::store(tx.db, &mut tx.books, letter)?;
    }
    Ok(())
}

/// The records that a consumer leaves out, from its position on; those before it are forgotten.
pub(super) fn asides(tx: &mut Transaction<'_>, consumer: &SmolStr, position: i64) -> Result<BTreeSet<i64>, StepError> {
    tx.db.execute("DELETE FROM aside WHERE consumer = ?1 AND source < ?2", params![consumer.as_str(), position])?;
    let mut statement = tx.db.prepare("SELECT source FROM aside WHERE consumer = ?1")?;
    let found = statement.query_map([consumer.as_str()], |row| row.get(0))?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

/// The number of an input, new names get one.
pub(super) fn input(tx: &mut Transaction<'_>, name: &SmolStr) -> Result<InputId, StepError> {
    if let Some((id, _)) = tx.books.inputs.iter().find(|(_, n)| *n == name) {
        return Ok(InputId(*id));
    }
    check_room("inputs", tx.books.inputs.len())?;
    let id = tx.books.inputs.last_key_value().map_or(1, |(id, _)| id + 1);
    tx.db.execute("INSERT INTO input VALUES (?1, ?2)", params![id, name.as_str()])?;
    tx.books.inputs.insert(id, name.clone());
    Ok(InputId(id))
}

/// The number of a stream of rows, new names get one.
pub(super) fn stream(tx: &mut Transaction<'_>, name: &SmolStr) -> Result<StreamId, StepError> {
    if let Some((id, _)) = tx.books.streams.iter().find(|(id, s)| **id != INPUTS && s.name == *name) {
        return Ok(StreamId(*id));
    }
    check_room("streams", tx.books.streams.len())?;
    let id = tx.books.streams.last_key_value().map_or(1, |(id, _)| id + 1);
    // the name of stream 0 is taken in the file, not in the job
    let stored = if name == "inputs" { SmolStr::new_static("inputs (rows)") } else { name.clone() };
    tx.db.execute("INSERT INTO stream VALUES (?1, ?2, 0, 0, 0)", params![id, stored.as_str()])?;
    let book = StreamBook { name: stored, first: 0, next: 0, last_arrival: Timestamp::MIN, trimmed_to: i64::MIN };
    tx.books.streams.insert(id, book);
    Ok(StreamId(id))
}

fn check_room(what: &'static str, used: usize) -> Result<(), JournalError> {
    if used >= NAMES_MAX { Err(JournalError::TooMany { what, max: NAMES_MAX }) } else { Ok(()) }
}

/// Finds a consumer by name and stream, or makes it. What a known one had stays until [`keep_only`].
pub(super) fn register(tx: &mut Transaction<'_>, spec: &ConsumerSpec) -> Result<ConsumerInfo, StepError> {
    let Some(stream) = tx.books.streams.get(&spec.stream.0).cloned() else {
        return Err(JournalError::Unknown { what: "stream", number: spec.stream.0 }.into());
    };
    let mut asked = Asked {
        fingerprint: spec.fingerprint.clone(),
        drop_oldest: spec.on_full == OnFull::DropOldest,
        limits: spec.limits,
        is_new: false,
    };
    let same_name = || tx.books.consumers.iter().filter(|(_, c)| c.name == spec.name);
    if let Some((&id, consumer)) = same_name().find(|(_, c)| c.stream == spec.stream.0) {
        let changed = consumer.fingerprint != spec.fingerprint;
        let info = ConsumerInfo { id: ConsumerId(id), position: consumer.position, is_new: false, changed };
        if let Some(consumer) = tx.books.consumers.get_mut(&id) {
            consumer.asked = Some(asked);
        }
        return Ok(info);
    }
    // a position means nothing in another stream
    let is_moved = same_name().next().is_some();
    check_room("consumers", tx.books.consumers.len())?;
    let start = match spec.start {
        // it may be one of those whose positions are lost
        Start::Now if !were_lost(tx)? => stream.next,
        Start::Now | Start::Oldest => stream.first,
    };
    let id = tx.books.consumers.last_key_value().map_or(1, |(id, _)| id + 1);
    let mut book = ConsumerBook {
        name: spec.name.clone(),
        fingerprint: spec.fingerprint.clone(),
        stream: spec.stream.0,
        start,
        position: start,
        drop_oldest: asked.drop_oldest,
        limits: asked.limits,
        dropped: None,
        in_hand: Vec::new(),
        asked: None,
    };
    if is_moved {
        asked.is_new = true;
        book.asked = Some(asked);
    } else {
        insert(tx, id, &book)?;
    }
    tx.books.consumers.insert(id, book);
    Ok(ConsumerInfo { id: ConsumerId(id), position: start, is_new: true, changed: false })
}

/// Is in `meta` where positions of consumers could not be read: until the next job runs, new ones read all that is
/// there.
pub(super) const LOST: &str = "consumers_lost";

fn were_lost(tx: &Transaction<'_>) -> rusqlite::Result<bool> {
    tx.db.query_row("SELECT count(*) FROM meta WHERE key = ?1", [LOST], |row| row.get::<_, i64>(0)).map(|n| n > 0)
}

fn insert(tx: &Transaction<'_>, id: u32, book: &ConsumerBook) -> Result<(), StepError> {
    tx.db.execute(
        "INSERT INTO consumer VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![id, book.name.as_str(), book.fingerprint, book.stream, book.start, book.position, book.drop_oldest],
    )?;
    Ok(())
}

/// Closes every consumer that is not named, makes the others as they were registered, and lets trimming begin.
pub(super) fn keep_only(tx: &mut Transaction<'_>, names: &[SmolStr]) -> Result<Vec<RemovedConsumer>, StepError> {
    let moved: Vec<(u32, SmolStr)> = tx.books.consumers.iter().filter(|(_, c)| c.is_moved()).map(named).collect();
    let is_gone = |(id, c): &(&u32, &ConsumerBook)| {
        !names.contains(&c.name) || moved.iter().any(|(new, name)| new > *id && *name == c.name)
    };
    let gone: Vec<u32> = tx.books.consumers.iter().filter(is_gone).map(|(id, _)| *id).collect();
    let mut removed = Vec::new();
    for id in gone {
        removed.extend(remove(tx, id)?);
    }
    // also of those that were removed earlier
    tx.books.ledger.names(Edge::Consumer).iter().for_each(|name| count_earlier(tx, name));
    let asking: Vec<u32> = tx.books.consumers.iter().filter(|(_, c)| c.asked.is_some()).map(|(id, _)| *id).collect();
    for id in asking {
        settle(tx, id)?;
    }
    tx.db.execute("DELETE FROM meta WHERE key = ?1", [LOST])?;
    tx.books.consumers_known = true;
    for stream in tx.books.streams.values_mut() {
        stream.trimmed_to = i64::MIN;
    }
    Ok(removed)
}

fn named((id, consumer): (&u32, &ConsumerBook)) -> (u32, SmolStr) {
    (*id, consumer.name.clone())
}

/// Makes a consumer as it was registered; another fingerprint clears the state.
fn settle(tx: &mut Transaction<'_>, id: u32) -> Result<(), StepError> {
    let Some(mut book) = tx.books.consumers.get(&id).cloned() else { return Ok(()) };
    let Some(asked) = book.asked.take() else { return Ok(()) };
    if !asked.is_new {
        let records = tx.give_up_in_hand(id);
        if records > 0 {
            let _span = consumer_span(&book.name).entered();
            tracing::warn!(
                records,
                "records that were in hand when the last run ended are dropped: the pool had moved past them"
            );
        }
        book.in_hand.clear();
    }
    let changed = book.fingerprint != asked.fingerprint;
    (book.fingerprint, book.drop_oldest, book.limits) = (asked.fingerprint, asked.drop_oldest, asked.limits);
    if asked.is_new {
        insert(tx, id, &book)?;
    } else {
        if changed {
            tx.db.execute("DELETE FROM state WHERE consumer = ?1", [id])?;
        }
        tx.db.execute(
            "UPDATE consumer SET fingerprint = ?2, drop_oldest = ?3 WHERE id = ?1",
            params![id, book.fingerprint, book.drop_oldest],
        )?;
    }
    tx.books.consumers.insert(id, book);
    Ok(())
}

/// What a version that did not count what it gave has read is passed, for the equation.
fn count_earlier(tx: &mut Transaction<'_>, name: &SmolStr) {
    let ledger = &mut tx.books.ledger;
    let sum = |what: &str| ledger.sum(Edge::Consumer, name, what);
    if sum(what::GIVEN) + sum(what::PASSED) == 0 {
        let read = sum(what::READ);
        let earlier = Counter::new(Edge::Consumer, name.clone(), what::PASSED).because("earlier_version");
        ledger.add(earlier, read);
    }
}

/// Closes a consumer: what it had not read is counted, and its whole span, so that its equation can still be checked.
fn remove(tx: &mut Transaction<'_>, id: u32) -> Result<Option<RemovedConsumer>, StepError> {
    let Some(consumer) = tx.books.consumers.get(&id).cloned() else { return Ok(None) };
    let end = tx.books.streams.get(&consumer.stream).map_or(consumer.position, |s| s.next);
    tx.give_up_in_hand(id);
    tx.skip(id, end, "consumer_removed", i64::MIN);
    let span = Counter::new(Edge::Consumer, consumer.name.clone(), what::STORED).because("until_removed");
    tx.books.ledger.add(span, (end - consumer.start).max(0) as u64);
    tx.db.execute("DELETE FROM state WHERE consumer = ?1", [id])?;
    tx.db.execute("DELETE FROM consumer WHERE id = ?1", [id])?;
    tx.books.consumers.remove(&id);
    Ok(Some(RemovedConsumer { name: consumer.name, unread: (end - consumer.position).max(0) as u64 }))
}

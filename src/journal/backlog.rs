//! Finds the consumers that are further behind than they may be.
//!
//! In: what each consumer may have before it, by age and by bytes. Out: the consumers that have more, and how far each
//! is to be moved. Invariant: only whole segments go, and a segment that another consumer needs stays where it is. Not
//! here: moving them, with its count (`transaction`), the budget of the whole pool (`trim`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use smol_str::SmolStr;

use super::books::{Books, ConsumerBook};
use super::growth::Sizes;
use super::segment::Sealed;
use super::shared::Shared;
use crate::time::Timestamp;

/// Reasons in the ledger.
pub(super) const AGE: &str = "age";
pub(super) const SHARE: &str = "share";

/// How often ages are looked at, at most: a drop is a commit, and a record a second would be one a second.
const AGE_INTERVAL: Duration = Duration::from_secs(60);
/// How often a consumer that is moved on again and again is told in the log.
const TELL_INTERVAL: Duration = Duration::from_secs(60);
/// Segments that one look drops by age: the next look goes on.
const AGED_MAX: usize = 100_000;

/// A consumer that is to be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub consumer: u32,
    pub to: i64,
    pub reason: &'static str,
}

/// Looks for them again and again.
#[derive(Debug, Default)]
pub(super) struct Backlogs {
    /// When ages were looked at last, by the job's clock.
    aged_at: Option<Timestamp>,
    /// Bytes that each consumer had before it when they were counted last, and what its stream had taken by then.
    counted: BTreeMap<u32, (u64, u64)>,
    told: BTreeMap<(u32, &'static str), LastWord>,
}

#[derive(Debug, Default)]
struct LastWord {
    at: Option<Instant>,
    records: u64,
}

impl Backlogs {
    /// The consumers that are to be moved now.
    pub fn due(
        &mut self,
        db: &Connection,
        books: &Books,
        shared: &Shared,
        now: Timestamp,
    ) -> rusqlite::Result<Vec<Move>> {
        let mut due = Vec::new();
        if !books.consumers_known {
            return Ok(due);
        }
        let is_aging = self.is_aging(books, now);
        for (&id, consumer) in &books.consumers {
            let end = books.streams.get(&consumer.stream).map_or(0, |stream| stream.next);
            if consumer.position >= end {
                self.counted.remove(&id);
                continue;
            }
            if let Some(age) = consumer.limits.max_age.filter(|_| is_aging) {
                let cutoff = now.saturating_add(-ticks(age)).ticks();
                let mut to = consumer.position;
                let mut left = AGED_MAX;
                each_segment(db, shared, consumer, |segment| {
                    let is_old = segment.arrival < cutoff;
                    to = if is_old { segment.end } else { to };
                    left -= 1;
                    is_old && left > 0
                })?;
                push(&mut due, Move { consumer: id, to, reason: AGE }, consumer);
            }
            if let Some(max) = consumer.limits.max_bytes {
                let to = self.beyond_share(db, shared, id, consumer, max)?;
                push(&mut due, Move { consumer: id, to, reason: SHARE }, consumer);
            }
        }
        Ok(due)
    }

    fn is_aging(&mut self, books: &Books, now: Timestamp) -> bool {
        let Some(least) = books.consumers.values().filter_map(|c| c.limits.max_age).min() else { return false };
        let interval = ticks((least / 16).min(AGE_INTERVAL));
        // a clock that was put back must not end this
        let is_due = self.aged_at.is_none_or(|at| now < at || now >= at.saturating_add(interval));
        if is_due {
            self.aged_at = Some(now);
        }
        is_due
    }

    /// Up to where the oldest segments go so that a sixteenth of the share is free again; the position if nothing does.
    fn beyond_share(
        &mut self,
        db: &Connection,
        shared: &Shared,
        id: u32,
        consumer: &ConsumerBook,
        max: u64,
    ) -> rusqlite::Result<i64> {
        // no more than this came since the last count, and counting takes a look at each segment
        let taken = shared.with_growth(|growth| growth.taken(consumer.stream));
        if let Some((bytes, at)) = self.counted.get(&id)
            && bytes.saturating_add(taken.saturating_sub(*at)) <= max
        {
            return Ok(consumer.position);
        }
        let mut segments: Vec<(i64, u64)> = Vec::new();
        each_segment(db, shared, consumer, |segment| {
            segments.push((segment.end, segment.bytes));
            true
        })?;
        let mut bytes: u64 = segments.iter().map(|(_, bytes)| bytes).sum();
        let (mut to, keep) = (consumer.position, max - max / 16);
        if bytes > max {
            for (end, size) in segments {
                if bytes <= keep {
                    break;
                }
                bytes -= size;
                to = end;
            }
        }
        self.counted.insert(id, (bytes, taken));
        Ok(to)
    }

    /// Says what was moved, at once and then once a minute.
    pub fn tell(&mut self, consumer: u32, name: &SmolStr, reason: &'static str, records: u64, now: Instant) {
        let told = self.told.entry((consumer, reason)).or_default();
        told.records += records;
        if told.at.is_some_and(|at| now.saturating_duration_since(at) < TELL_INTERVAL) {
            return;
        }
        let records = std::mem::take(&mut told.records);
        told.at = Some(now);
        match reason {
            AGE => {
                tracing::warn!(consumer = %name, records, "records older than max_age were not read in time and are dropped")
            }
            _ => {
                tracing::warn!(consumer = %name, records, "the oldest records beyond max_bytes of this consumer are dropped")
            }
        }
    }
}

fn push(due: &mut Vec<Move>, step: Move, consumer: &ConsumerBook) {
    if step.to > consumer.position {
        due.push(step);
    }
}

fn ticks(time: Duration) -> i64 {
    i64::try_from(time.as_nanos() / 100).unwrap_or(i64::MAX)
}

/// What is asked of a segment.
struct Found {
    end: i64,
    arrival: i64,
    bytes: u64,
}

/// Shows the segments that a consumer has before it, oldest first, as long as they are wanted.
fn each_segment(
    db: &Connection,
    shared: &Shared,
    consumer: &ConsumerBook,
    mut wants_more: impl FnMut(Found) -> bool,
) -> rusqlite::Result<()> {
    const SQL: &str = "SELECT first + count, arrival, length(data) FROM segment WHERE stream = ?1
         AND first >= coalesce((SELECT max(first) FROM segment WHERE stream = ?1 AND first <= ?2), ?2) ORDER BY first";
    let (stream, position) = (consumer.stream, consumer.position);
    let mut find = db.prepare_cached(SQL)?;
    let mut rows = find.query(params![stream, position])?;
    while let Some(row) = rows.next()? {
        let (end, length): (i64, i64) = (row.get(0)?, row.get(2)?);
        let found = Found { end, arrival: row.get(1)?, bytes: Sizes::of(0, length.max(0) as u64).stored };
        if end > position && !wants_more(found) {
            return Ok(());
        }
    }
    let waiting: Vec<Arc<Sealed>> = shared.with_pending(|pending| pending.of(stream).cloned().collect());
    for sealed in waiting.iter().filter(|sealed| sealed.end() > position) {
        let found = Found { end: sealed.end(), arrival: sealed.head.arrival, bytes: sealed.sizes().stored };
        if !wants_more(found) {
            break;
        }
    }
    Ok(())
}

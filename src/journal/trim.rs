//! Deleting what nobody needs any more.
//!
//! In: positions of consumers, retention, the windows for redeliveries. Out: deleted segments, a few with each
//! transaction, so that no commit waits for a long deletion. Invariant: a segment that reaches to or above the lowest
//! position of its stream is deleted only once its consumers were moved past it ([`oldest_to_drop`]), with a count.
//! What lies on a damaged page is passed and stays in the file ([`Sweep`]). Not here: how full the file is (`budget`).

use std::collections::BTreeSet;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction as SqlTransaction, TransactionBehavior, params};

use super::books::{Books, INPUTS};
use super::damage::{is_damage, next_first};
use super::recent::Recent;
use super::transaction::Transaction;
use crate::kill_point::{self, KillPoint};
use crate::time::Timestamp;

/// Segments of a stream deleted in one transaction, and their bytes: freeing one touches each of its pages. Those of a
/// quiet stream hold one record each, and as many of them go as one page holds a hundred times.
const TRIM_SEGMENTS: usize = 2048;
const TRIM_BYTES: u64 = 4 << 20;

/// What trimming has to respect beside the consumers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retention {
    /// Records that arrived at or after this stay.
    pub keep_from: Option<Timestamp>,
    /// By the job's clock.
    pub now: Timestamp,
    /// How long records stay that everybody has read, where the budget allows.
    pub age: Option<Duration>,
}

/// What a step left.
#[derive(Debug, Default)]
pub(super) struct TrimLeft {
    /// Another step finds more to delete.
    pub has_more: bool,
    /// Streams of which the file holds more below the lowest position, so that their mark stays before it.
    pub streams: BTreeSet<u32>,
}

/// Deletes up to [`TRIM_SEGMENTS`] segments of each stream.
pub(super) fn step(tx: &mut Transaction<'_>, recent: &mut Recent, retention: Retention) -> rusqlite::Result<TrimLeft> {
    let mut left = TrimLeft::default();
    if !tx.books.consumers_known {
        return Ok(left);
    }
    let streams: Vec<u32> = tx.books.streams.keys().copied().collect();
    for stream in streams {
        let end = trim_stream(tx, stream, recent, retention)?;
        left.has_more |= end == TrimEnd::Bound;
        if end != TrimEnd::All {
            left.streams.insert(stream);
        }
    }
    Ok(left)
}

/// A checkpoint writes a dozen pages: what is less than that waits for the next one.
const WORTHWHILE_SEGMENTS: usize = 256;
const WORTHWHILE_BYTES: u64 = 256 << 10;

/// Whether the file holds so much that everybody has read that deleting it is worth a checkpoint of its own. `stored`:
/// the books as the file has them.
pub(super) fn is_worthwhile(db: &Connection, books: &Books, stored: &Books) -> rusqlite::Result<bool> {
    if !books.consumers_known {
        return Ok(false);
    }
    let (mut segments, mut bytes) = (0, 0);
    for (id, stream) in &books.streams {
        let needed = books.needed_from(*id);
        let in_file = stored.streams.get(id).map_or(0, |stream| stream.next);
        if stream.trimmed_to >= needed || stream.first >= needed.min(in_file) {
            continue;
        }
        let mut find = db.prepare_cached(
            "SELECT raw_bytes FROM segment
             WHERE stream = ?1 AND first >= ?2 AND first < ?3 AND first + count <= ?3 LIMIT ?4",
        )?;
        let mut rows = find.query(params![id, stream.first, needed, WORTHWHILE_SEGMENTS as i64])?;
        loop {
            let row = match rows.next() {
                // the next checkpoint meets it too, and passes it
                Err(error) if is_damage(&error) => break,
                row => row?,
            };
            let Some(row) = row else { break };
            segments += 1;
            bytes += row.get::<_, u32>(0).map_or(0, u64::from);
            if segments >= WORTHWHILE_SEGMENTS || bytes >= WORTHWHILE_BYTES {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

struct Candidate {
    id: i64,
    first: i64,
    end: i64,
}

fn trim_stream(
    tx: &mut Transaction<'_>,
    stream: u32,
    recent: &mut Recent,
    retention: Retention,
) -> rusqlite::Result<TrimEnd> {
    let needed = tx.books.needed_from(stream);
    let Some(book) = tx.books.streams.get(&stream).filter(|s| s.trimmed_to < needed) else { return Ok(TrimEnd::All) };
    let mut mark = book.first;
    let (candidates, end) = below(tx, stream, mark, needed, retention)?;
    for segment in &candidates {
        let held = stream == INPUTS && recent.holds(segment.first);
        if !held {
            tx.db.prepare_cached("DELETE FROM segment WHERE id = ?1")?.execute([segment.id])?;
        }
        mark = segment.end;
    }
    if !candidates.is_empty() {
        kill_point::reached(KillPoint::Trim);
    }
    if let Some(book) = tx.books.streams.get_mut(&stream) {
        book.first = mark;
        if end == TrimEnd::All {
            book.trimmed_to = needed;
        }
    }
    Ok(end)
}

/// Why a step found no more segments to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TrimEnd {
    /// There are no more.
    All,
    /// They are enough for one step.
    Bound,
    /// The next one is to be kept for a while.
    Young,
}

/// The oldest segments below `needed` that may go, as many as one step deletes.
fn below(
    tx: &Transaction<'_>,
    stream: u32,
    mark: i64,
    needed: i64,
    retention: Retention,
) -> rusqlite::Result<(Vec<Candidate>, TrimEnd)> {
    let mut find = tx.db.prepare_cached(
        "SELECT id, first, first + count, arrival, raw_bytes FROM segment
         WHERE stream = ?1 AND first >= ?2 AND first < ?3 AND first + count <= ?3 ORDER BY first",
    )?;
    let mut rows = find.query(params![stream, mark, needed])?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        if found.len() >= TRIM_SEGMENTS || bytes >= TRIM_BYTES {
            return Ok((found, TrimEnd::Bound));
        }
        // a head that is damaged keeps nothing: its reader has set it aside
        let (first, end): (i64, i64) = (row.get(1)?, row.get(2).unwrap_or(i64::MIN));
        let (end, arrival) = (end.max(first + 1), row.get(3).unwrap_or(i64::MIN));
        let arrival = tx.books.arrived.of(stream, end - 1, arrival, tx.now.ticks());
        if retention.keep_from.is_some_and(|keep| arrival >= keep.ticks()) {
            return Ok((found, TrimEnd::Young));
        }
        found.push(Candidate { id: row.get(0)?, first, end });
        bytes += row.get::<_, u32>(4).map_or(0, u64::from);
    }
    Ok((found, TrimEnd::All))
}

/// Deletes segments that had been kept for redeliveries and have left their window.
pub(super) fn drop_left(tx: &Transaction<'_>, firsts: &[i64]) -> rusqlite::Result<()> {
    let mut delete = tx.db.prepare_cached("DELETE FROM segment WHERE stream = ?1 AND first = ?2")?;
    for first in firsts {
        delete.execute(params![INPUTS, first])?;
    }
    Ok(())
}

/// Trims a file that has damaged pages: marks are moved inside of the transaction of a checkpoint, by the index alone,
/// and deletes have transactions of their own behind it, of which some fail.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// Rows that cannot be deleted: on a damaged page, or beside one.
    stuck: BTreeSet<i64>,
}

impl Sweep {
    /// Moves the marks as far as the index shows that nobody needs what lies before.
    pub fn move_marks(tx: &mut Transaction<'_>, retention: Retention) -> rusqlite::Result<TrimLeft> {
        let mut left = TrimLeft::default();
        if !tx.books.consumers_known {
            return Ok(left);
        }
        if retention.keep_from.is_some() {
            // their ages lie in the rows
            left.streams = tx.books.streams.keys().copied().collect();
            return Ok(left);
        }
        let needed: Vec<(u32, i64)> = tx.books.streams.keys().map(|id| (*id, tx.books.needed_from(*id))).collect();
        for (stream, needed) in needed {
            let sql = "SELECT max(first) FROM segment WHERE stream = ?1 AND first <= ?2";
            let mark: Option<i64> = tx.db.prepare_cached(sql)?.query_row(params![stream, needed], |row| row.get(0))?;
            if let Some((book, mark)) = tx.books.streams.get_mut(&stream).zip(mark) {
                book.first = book.first.max(mark);
            }
        }
        Ok(left)
    }

    /// Deletes what lies before the marks, as far as that can be done; whether there is more.
    pub fn delete(&mut self, db: &Connection, books: &Books, recent: &Recent) -> rusqlite::Result<bool> {
        let mut has_more = false;
        for (stream, book) in &books.streams {
            let found: Vec<(i64, i64)> = {
                let mut find =
                    db.prepare_cached("SELECT id, first FROM segment WHERE stream = ?1 AND first < ?2 ORDER BY first")?;
                let rows = find.query_map(params![stream, book.first], |row| Ok((row.get(0)?, row.get(1)?)))?;
                rows.collect::<rusqlite::Result<_>>()?
            };
            let may_go =
                |(id, first): &&(i64, i64)| !(self.stuck.contains(id) || *stream == INPUTS && recent.holds(*first));
            let ids: Vec<i64> = found.iter().filter(may_go).map(|(id, _)| *id).take(TRIM_SEGMENTS).collect();
            has_more |= ids.len() == TRIM_SEGMENTS;
            self.delete_all(db, &ids)?;
        }
        Ok(has_more)
    }

    /// Together, and where that meets damage in halves.
    fn delete_all(&mut self, db: &Connection, ids: &[i64]) -> rusqlite::Result<()> {
        let Some(first) = ids.first() else { return Ok(()) };
        let together = || -> rusqlite::Result<()> {
            let sql = SqlTransaction::new_unchecked(db, TransactionBehavior::Immediate)?;
            let mut delete = sql.prepare_cached("DELETE FROM segment WHERE id = ?1")?;
            ids.iter().try_for_each(|id| delete.execute([id]).map(drop))?;
            drop(delete);
            sql.commit()
        };
        match together() {
            Err(error) if is_damage(&error) && ids.len() == 1 => {
                self.stuck.insert(*first);
                Ok(())
            }
            Err(error) if is_damage(&error) => {
                let (before, behind) = ids.split_at(ids.len() / 2);
                self.delete_all(db, before)?;
                self.delete_all(db, behind)
            }
            done => done,
        }
    }
}

/// Who is to be moved past the oldest segment when the budget is used up, and how far: of the streams whose oldest
/// needed segment is held by consumers on `drop-oldest` alone, those of the one where it arrived first.
pub(super) fn oldest_to_drop(
    db: &Connection,
    books: &Books,
    now: Timestamp,
    is_damaged: bool,
) -> rusqlite::Result<Option<(Vec<u32>, i64)>> {
    let mut oldest: Option<(i64, Vec<u32>, i64)> = None;
    for (&stream, book) in &books.streams {
        let needed = books.needed_from(stream);
        let mut find = db.prepare_cached(
            "SELECT arrival, first + count FROM segment WHERE stream = ?1 AND first >= ?2 AND first + count > ?3 ORDER \
            BY first LIMIT 1",
        )?;
        let found: Option<(i64, i64)> = match is_damaged {
            // the index alone is asked
            true => next_first(db, stream, needed)?.map(|next| (i64::MIN, next)),
            false => find
                .query_row(params![stream, book.first, needed], |row| {
                    Ok((row.get(0).unwrap_or(i64::MIN), row.get(1).unwrap_or(needed + 1)))
                })
                .optional()?,
        };
        let arrived = |(arrival, end): (i64, i64)| (books.arrived.of(stream, end - 1, arrival, now.ticks()), end);
        let Some((arrival, end)) =
            found.map(arrived).filter(|(arrival, _)| oldest.as_ref().is_none_or(|(least, ..)| arrival < least))
        else {
            continue;
        };
        let holders = books.consumers.iter().filter(|(_, c)| c.stream == stream && c.position < end);
        let (ids, may_go): (Vec<u32>, Vec<bool>) = holders.map(|(id, c)| (*id, c.drop_oldest)).unzip();
        if !ids.is_empty() && may_go.iter().all(|may_go| *may_go) {
            oldest = Some((arrival, ids, end));
        }
    }
    Ok(oldest.map(|(_, holders, end)| (holders, end)))
}

/// Deletes, at start, what lies below the mark of the inputs' stream and is no longer kept for redeliveries.
pub(super) fn drop_stale(db: &Connection, books: &Books, recent: &Recent) -> rusqlite::Result<()> {
    let mark = books.streams.get(&INPUTS).map_or(0, |s| s.first);
    let stale: Vec<i64> = {
        let mut find =
            db.prepare("SELECT first FROM segment WHERE stream = ?1 AND first < ?2 AND first + count <= ?2")?;
        let rows = find.query_map(params![INPUTS, mark], |row| row.get::<_, i64>(0))?;
        // up to a damaged page, behind which it is left
        let rows = rows.take_while(|row| !matches!(row, Err(error) if is_damage(error)));
        rows.filter(|row| row.as_ref().map_or(true, |first| !recent.holds(*first))).collect::<rusqlite::Result<_>>()?
    };
    for first in stale {
        match db.execute("DELETE FROM segment WHERE stream = ?1 AND first = ?2", params![INPUTS, first]) {
            // what is on a damaged page, or beside one, stays
            Err(error) if is_damage(&error) => {}
            deleted => drop(deleted?),
        }
    }
    Ok(())
}

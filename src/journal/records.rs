//! What a pool still holds of its inputs.
//!
//! In: a pool's path; its job may be running. Out: the events from the mark of the inputs on, oldest first. Invariant:
//! each is given once, whatever a checkpoint or a merge does meanwhile; no snapshot is held longer than one page takes,
//! so the log of the job is not kept from being emptied. Not here: reading on behalf of a consumer (`reader`).

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, params};
use smol_str::SmolStr;

use super::books::INPUTS;
use super::error::JournalError;
use super::recovery::{self, Look};
use super::schema;
use super::segment::{EventSlice, Head, Opener, Sealed, Segment};
use crate::batch::MessageMeta;
use crate::time::{Clock, Timestamp};

/// Bytes of segments, as they lie in the file, that one page takes at most, if it takes more than one segment.
const PAGE_BYTES: usize = 4 << 20;
const PAGE_SEGMENTS: i64 = 512;

/// Which events are meant; what is not said is not looked at.
#[derive(Clone, Debug, Default)]
pub struct RecordFilter {
    /// Of the input with this name.
    pub input: Option<SmolStr>,
    /// Arrived at this time or later.
    pub from: Option<Timestamp>,
    /// Arrived earlier than this.
    pub to: Option<Timestamp>,
}

/// An event of the pool.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRecord {
    pub offset: i64,
    pub input: SmolStr,
    /// Where arrival time was set back behind it, no later than that.
    pub arrival: Timestamp,
    pub message: Arc<MessageMeta>,
    pub payload: Bytes,
}

/// Gives each event that is meant, in the order in which they were stored; how many offsets lie in segments that are
/// damaged. One that says `false` is the last.
///
/// # Errors
/// The pool cannot be read.
pub fn each_record(
    path: &Path,
    filter: &RecordFilter,
    mut each: impl FnMut(StoredRecord) -> bool,
) -> Result<u64, JournalError> {
    let mut opener = Opener::default();
    let (mut position, mut damaged) = (i64::MIN, 0);
    loop {
        let db = schema::open_reader(path)?;
        let look = recovery::look(&db, path, true)?;
        let books = &look.books;
        position = position.max(books.streams.get(&INPUTS).map_or(0, |stream| stream.first));
        let page = page(&db, &look, position).map_err(JournalError::read)?;
        if page.is_empty() {
            return Ok(damaged);
        }
        // whoever takes the events may be slow, and the snapshot would keep the log of the job from being emptied
        let (inputs, arrived, now) = (books.inputs.clone(), books.arrived.clone(), Clock::Real.now().ticks());
        drop(look);
        drop(db);
        for sealed in page {
            let (head, from) = (sealed.head, position);
            position = position.max(head.end());
            let Ok(Segment::Events(events)) = opener.open(&head, sealed.checksum, sealed.data) else {
                damaged += u64::try_from(head.end() - head.first.max(from)).unwrap_or(0);
                continue;
            };
            let slice = EventSlice::all(&events);
            for (stored, event) in slice.iter().zip(slice.events()) {
                let offset = stored.offset;
                let input = inputs.get(&stored.input).cloned().unwrap_or_default();
                let arrival = arrived.of(INPUTS, offset, event.arrival.ticks(), now);
                let is_meant = offset >= from
                    && filter.input.as_ref().is_none_or(|name| name.eq_ignore_ascii_case(&input))
                    && filter.from.is_none_or(|from| arrival >= from.ticks())
                    && filter.to.is_none_or(|to| arrival < to.ticks());
                let arrival = Timestamp::saturating_from_ticks(arrival);
                let record = || StoredRecord { offset, input, arrival, message: event.message, payload: event.payload };
                if is_meant && !each(record()) {
                    return Ok(damaged);
                }
            }
        }
    }
}

/// The segments that reach to or lie behind `position`, the first ones.
fn page(db: &Connection, look: &Look<'_>, position: i64) -> rusqlite::Result<Vec<Sealed>> {
    let mut find = db.prepare(
        "SELECT stream, first, input, count, arrival, codec, raw_bytes, checksum, data FROM segment
         WHERE stream = ?1 AND first >= coalesce((SELECT max(first) FROM segment WHERE stream = ?1 AND first <= ?2), ?2)
         ORDER BY first LIMIT ?3",
    )?;
    let mut rows = find.query(params![INPUTS, position, PAGE_SEGMENTS])?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    while bytes < PAGE_BYTES
        && let Some(row) = rows.next()?
    {
        // one whose head cannot be read is passed: `verify` tells
        let Ok(head) = Head::read(row) else { continue };
        let sealed = Sealed { head, checksum: row.get(7)?, data: row.get(8)? };
        if head.end() > position {
            bytes += sealed.data.len();
            found.push(sealed);
        }
    }
    if found.is_empty() {
        let later = look.changes.sealed.iter().filter(|sealed| sealed.head.stream == INPUTS);
        found.extend(later.filter(|sealed| sealed.end() > position).cloned());
    }
    Ok(found)
}

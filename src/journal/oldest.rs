//! When the oldest record arrived that a consumer has to read.
//!
//! In: a consumer's position, and the one segment that lies there, in memory, in the redo log or in the file: no other
//! is opened. Out: the arrival of the record there. Invariant: a record has the arrival of its event, so rows that a
//! statement stored are as old as that. Not here: how old that makes it (`arrival::Eras`), what becomes of old records
//! (`backlog`), whose ages go by the wall clock.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::error::JournalError;
use super::pending::Whereabouts;
use super::request::StreamId;
use super::schema;
use super::segment::{self, Head, Sealed, Segment};
use super::shared::Shared;
use super::stream::Found;
use crate::time::{Clock, Timestamp};

/// The arrival of the record at a position of a running journal, or of the next one that is there.
pub(super) fn arrival_at(
    shared: &Shared,
    path: &Path,
    stream: StreamId,
    position: i64,
) -> Result<Option<Timestamp>, JournalError> {
    if let Found::Segment(segment) = shared.streams.find(stream.0, None, position, Clock::Real.monotonic()) {
        return Ok(segment.arrival_from(position));
    }
    if let Whereabouts::Here(sealed) = shared.with_pending(|pending| pending.place(stream.0, position)) {
        return Ok(Some(of_sealed(&sealed, position)));
    }
    in_file(&schema::open_reader(path)?, stream, position).map_err(JournalError::read)
}

/// The arrival of the record at a position, by a file and what its redo log holds.
pub(super) fn looked_up(db: &Connection, sealed: &[Sealed], stream: StreamId, position: i64) -> Option<Timestamp> {
    let in_file = in_file(db, stream, position).ok().flatten();
    in_file.or_else(|| {
        let next = sealed.iter().find(|sealed| sealed.head.stream == stream.0 && sealed.end() > position);
        next.map(|sealed| of_sealed(sealed, position))
    })
}

fn in_file(db: &Connection, StreamId(stream): StreamId, position: i64) -> rusqlite::Result<Option<Timestamp>> {
    const SQL: &str = "SELECT stream, first, input, count, arrival, codec, raw_bytes, checksum, data FROM segment
         WHERE stream = ?1 AND first >= coalesce((SELECT max(first) FROM segment WHERE stream = ?1 AND first <= ?2), ?2)
         AND first + count > ?2 ORDER BY first LIMIT 1";
    let read =
        |row: &rusqlite::Row<'_>| Ok(Sealed { head: Head::read(row)?, checksum: row.get(7)?, data: row.get(8)? });
    let found = db.prepare_cached(SQL)?.query_row(params![stream, position], read).optional()?;
    Ok(found.map(|sealed| of_sealed(&sealed, position)))
}

/// Of a segment that is damaged its head has to do: the arrival of its newest record.
fn of_sealed(sealed: &Sealed, position: i64) -> Timestamp {
    let opened = segment::open(&sealed.head, sealed.checksum, sealed.data.clone()).ok();
    let found = opened.and_then(|segment: Segment| segment.arrival_from(position));
    found.unwrap_or(Timestamp::saturating_from_ticks(sealed.head.arrival))
}

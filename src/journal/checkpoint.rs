//! Moves the redo log's content into the SQLite file.
//!
//! In: segments and states that the file lacks, inside a transaction, with the books as they are now. Out: rows
//! written, as few and as full as they can be. Invariant: a segment that everybody has read by now is never written,
//! unless its records are recent enough to recognise a redelivery by or young enough to be kept; offsets that are left
//! out lie below the mark of their stream. Not here: when (`writer`), what lies in the file already (`trim`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rusqlite::{Connection, params};

use super::books::{Books, INPUTS};
use super::growth::Sizes;
use super::merge::{Merged, Merger, Together};
use super::recent::Kept;
use super::segment::{Head, Sealed};
use super::trim::Retention;

/// What a checkpoint has to keep of what everybody has read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keep<'a> {
    pub retention: Retention,
    /// Newest records of each input.
    pub recent: usize,
    /// Streams of which the file holds more to trim: the mark stays before all of that.
    pub untrimmed: &'a BTreeSet<u32>,
}

/// What became of the segments of one stream.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// Those of inputs that are in the file now, by input.
    pub kept: Vec<(u16, Kept)>,
    /// Those that somebody has still to read.
    pub unread: Vec<Head>,
    /// What those that were written take there, or else a sample of what everybody has read.
    pub sizes: Sizes,
}

/// As much of what everybody has read is merged and compressed to learn what it would take.
const SAMPLE_BYTES: u64 = 64 << 10;

/// Writes the segments of one stream, which follow each other and what the file has.
pub(super) fn store_segments(
    db: &Connection,
    books: &mut Books,
    segments: Vec<Arc<Sealed>>,
    keep: Keep<'_>,
    merger: &mut Merger<'_>,
) -> rusqlite::Result<Stored> {
    let Some(stream) = segments.first().map(|sealed| sealed.head.stream) else { return Ok(Stored::default()) };
    let may_skip = books.consumers_known && !keep.untrimmed.contains(&stream);
    let needed = if may_skip { books.needed_from(stream) } else { i64::MIN };
    let arrived = books.arrived.clone();
    let arrival =
        |sealed: &Sealed| arrived.of(stream, sealed.end() - 1, sealed.head.arrival, keep.retention.now.ticks());
    let is_old = |sealed: &Sealed| keep.retention.keep_from.is_none_or(|from| arrival(sealed) < from.ticks());
    let passed = segments.iter().take_while(|sealed| sealed.end() <= needed && is_old(sealed)).count();
    let recent = recent_ones(&segments, keep.recent);
    let mut read: Vec<Arc<Sealed>> = segments;
    let unread = read.split_off(passed);
    if let Some(book) = books.streams.get_mut(&stream) {
        book.first = read.last().map_or(book.first, |last| book.first.max(last.end()));
        if unread.first().is_some_and(|sealed| sealed.end() <= needed) {
            // too young to go: trimming has to come back for it
            book.trimmed_to = i64::MIN;
        }
    }
    let together = Together { inputs: true, span: span_max(books, stream, keep.retention) };
    let sizes = match unread.is_empty() {
        true => merged_sizes(sample(&read), together, merger),
        false => Sizes::default(),
    };
    read.retain(|sealed| stream == INPUTS && recent.contains(&sealed.head.first));
    let mut stored = Vec::new();
    // apart, so that no segment lies across the mark; and each input by itself, so that what one keeps for redeliveries
    // takes nothing of another with it
    let raw = raw_bytes(&unread);
    let (read, unread) = (merger.merge(read, Together { inputs: false, ..together }), merger.merge(unread, together));
    let sizes = if raw > 0 { sizes_of(raw, &unread) } else { sizes };
    let heads = unread.iter().map(|merged| merged.sealed.head).collect();
    for merged in read.into_iter().chain(unread) {
        insert_segment(db, &merged.sealed)?;
        if stream == INPUTS {
            stored.extend(kept(&merged));
        }
    }
    Ok(Stored { kept: stored, unread: heads, sizes })
}

/// How many ticks one segment of a stream may hold where records go by age, since they go by whole segments: a
/// sixteenth of the shortest age.
pub(super) fn span_max(books: &Books, stream: u32, retention: Retention) -> Option<i64> {
    let consumers = books.consumers.values().filter(|consumer| consumer.stream == stream);
    let shortest = consumers.filter_map(|consumer| consumer.limits.max_age).chain(retention.age).min()?;
    Some(i64::try_from(shortest.as_nanos() / 100 / 16).unwrap_or(i64::MAX))
}

/// A segment of the inputs' stream as each input in it has it.
pub(super) fn kept(merged: &Merged) -> Vec<(u16, Kept)> {
    let head = &merged.sealed.head;
    let of = |input: u16, records: usize| (input, Kept { first: head.first, end: head.end(), records });
    match &merged.inputs {
        Some(inputs) => inputs.iter().map(|(input, records)| of(*input, *records)).collect(),
        None => vec![of(head.input, head.count as usize)],
    }
}

/// The first segments, up to [`SAMPLE_BYTES`].
fn sample(segments: &[Arc<Sealed>]) -> Vec<Arc<Sealed>> {
    let mut bytes = 0;
    let is_inside = |sealed: &&Arc<Sealed>| {
        let is_inside = bytes < SAMPLE_BYTES;
        bytes += u64::from(sealed.head.raw_bytes);
        is_inside
    };
    segments.iter().take_while(is_inside).cloned().collect()
}

/// What segments would take in the file that are not written there.
fn merged_sizes(segments: Vec<Arc<Sealed>>, together: Together, merger: &mut Merger<'_>) -> Sizes {
    let raw = raw_bytes(&segments);
    sizes_of(raw, &merger.merge(segments, together))
}

/// `raw`: as they came, each with a head of its own.
fn sizes_of(raw: u64, merged: &[Merged]) -> Sizes {
    Sizes { raw, stored: merged.iter().map(|merged| merged.sealed.sizes().stored).sum() }
}

fn raw_bytes(segments: &[Arc<Sealed>]) -> u64 {
    segments.iter().map(|sealed| u64::from(sealed.head.raw_bytes)).sum()
}

/// First offsets of the segments that hold the newest `keep` records of each input.
fn recent_ones(segments: &[Arc<Sealed>], keep: usize) -> BTreeSet<i64> {
    let mut newer: BTreeMap<u16, usize> = BTreeMap::new();
    let mut recent = BTreeSet::new();
    for sealed in segments.iter().rev() {
        let records = newer.entry(sealed.head.input).or_default();
        if *records < keep {
            recent.insert(sealed.head.first);
        }
        *records += sealed.head.count as usize;
    }
    recent
}

pub(super) fn insert_segment(db: &Connection, sealed: &Sealed) -> rusqlite::Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO segment (stream, first, input, count, arrival, codec, raw_bytes, checksum, data)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    let head = &sealed.head;
    insert.execute(params![
        head.stream,
        head.first,
        head.input,
        head.count,
        head.arrival,
        head.codec,
        head.raw_bytes,
        sealed.checksum,
        sealed.data
    ])?;
    Ok(())
}

//! Small neighbours in the file that are to become full segments.
//!
//! In: the segments that checkpoints write. Out: runs of them that fill a segment, and the same records in its place.
//! Invariant: a run's segments follow each other without a gap, and somebody has still to read all of them. Not
//! here: how segments are joined (`merge`), when there is time for it (`store`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rusqlite::{Connection, params};

use super::checkpoint::insert_segment;
use super::merge::{Merger, is_small};
use super::recent::Kept;
use super::segment::{Head, SEGMENT_RAW_BYTES, SEGMENT_RECORDS_MAX, Sealed};

/// A run that ends early, as where another input comes between, is joined from this number of segments on.
const SEGMENTS_MIN: usize = 8;
/// Runs that wait; the oldest are left as they are.
const RUNS_MAX: usize = 64;

/// Segments of one stream and input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub stream: u32,
    pub input: u16,
    pub first: i64,
    pub end: i64,
    segments: usize,
    raw_bytes: usize,
}

impl Run {
    fn of(head: &Head) -> Run {
        Run {
            stream: head.stream,
            input: head.input,
            first: head.first,
            end: head.end(),
            segments: 1,
            raw_bytes: head.raw_bytes as usize,
        }
    }

    fn is_followed_by(&self, head: &Head) -> bool {
        (self.input, self.end) == (head.input, head.first)
    }

    /// Whether one segment holds it and that one.
    fn has_room_for(&self, head: &Head) -> bool {
        let records = usize::try_from(head.end() - self.first).unwrap_or(usize::MAX);
        records <= SEGMENT_RECORDS_MAX && self.raw_bytes + head.raw_bytes as usize <= SEGMENT_RAW_BYTES
    }
}

/// The runs of this process: those that an earlier one left stay as they are.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// By stream.
    open: BTreeMap<u32, Run>,
    full: VecDeque<Run>,
}

impl Runs {
    /// A segment was written to the file, behind those of its stream.
    pub fn wrote(&mut self, head: &Head) {
        let open = self.open.remove(&head.stream);
        let next = match open {
            Some(run) if is_small(head) && run.is_followed_by(head) && run.has_room_for(head) => Run {
                end: head.end(),
                segments: run.segments + 1,
                raw_bytes: run.raw_bytes + head.raw_bytes as usize,
                ..run
            },
            Some(run) => {
                self.close(run, head);
                Run::of(head)
            }
            None => Run::of(head),
        };
        if is_small(head) {
            self.open.insert(head.stream, next);
        }
    }

    fn close(&mut self, run: Run, next: &Head) {
        let is_full = run.is_followed_by(next) && is_small(next) && run.segments > 1;
        if is_full || run.segments >= SEGMENTS_MIN {
            self.full.push_back(run);
        }
        if self.full.len() > RUNS_MAX {
            self.full.pop_front();
        }
    }

    /// A run that is worth joining; `unread`: the offset of a stream before which everybody has read.
    pub fn next(&mut self, unread: impl Fn(u32) -> i64) -> Option<Run> {
        // what the last reader is in goes soon by itself
        std::iter::from_fn(|| self.full.pop_front()).find(|run| unread(run.stream) <= run.first)
    }
}

/// Puts full segments in the place of a run's; gives those.
pub(super) fn join(db: &Connection, run: Run, merger: &mut Merger<'_>) -> rusqlite::Result<Vec<Kept>> {
    let found: Vec<Arc<Sealed>> = {
        let mut find = db.prepare_cached(
            "SELECT stream, first, input, count, arrival, codec, raw_bytes, checksum, data FROM segment
             WHERE stream = ?1 AND first >= ?2 AND first < ?3 ORDER BY first",
        )?;
        let sealed = |row: &rusqlite::Row<'_>| {
            Ok(Arc::new(Sealed { head: Head::read(row)?, checksum: row.get(7)?, data: row.get(8)? }))
        };
        let found = find.query_map(params![run.stream, run.first, run.end], sealed)?;
        // a head that cannot be read is damage, and whoever reads it sets it aside
        match found.collect() {
            Err(rusqlite::Error::IntegralValueOutOfRange(..) | rusqlite::Error::InvalidColumnType(..)) => Vec::new(),
            found => found?,
        }
    };
    let segments = found.len();
    let joined = merger.merge(found);
    if joined.len() == segments {
        return Ok(Vec::new());
    }
    db.prepare_cached("DELETE FROM segment WHERE stream = ?1 AND first >= ?2 AND first < ?3")?
        .execute(params![run.stream, run.first, run.end])?;
    for sealed in &joined {
        insert_segment(db, sealed)?;
    }
    Ok(joined.iter().map(|sealed| Kept { first: sealed.head.first, records: sealed.head.count as usize }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(stream: u32, input: u16, first: i64, count: u32, raw_bytes: u32) -> Head {
        Head { stream, first, input, count, arrival: 0, codec: 1, raw_bytes }
    }

    /// The spans of the runs that some heads give.
    fn runs(heads: impl IntoIterator<Item = Head>) -> Vec<(i64, i64)> {
        let mut runs = Runs::default();
        heads.into_iter().for_each(|head| runs.wrote(&head));
        std::iter::from_fn(|| runs.next(|_| 0)).map(|run| (run.first, run.end)).collect()
    }

    #[test]
    fn a_run_ends_where_a_segment_is_full() {
        let by_records = (0..100).map(|i| head(0, 1, i * 100, 100, 1_000));
        assert_eq!(runs(by_records), [(0, 4_000), (4_000, 8_000)]);
        let by_bytes = (0..100).map(|i| head(0, 1, i, 1, 60 << 10));
        assert_eq!(runs(by_bytes)[0], (0, (SEGMENT_RAW_BYTES / (60 << 10)) as i64));
    }

    #[test]
    fn what_lies_between_ends_a_run_that_is_kept_if_it_is_long() {
        let of = |segments: i64| {
            let before = (0..segments).map(|i| head(0, 1, i, 1, 100));
            before.chain([head(0, 2, segments, 1, 100), head(0, 1, segments + 1, 1, 100)]).collect::<Vec<_>>()
        };
        assert_eq!(runs(of(7)), []);
        assert_eq!(runs(of(8)), [(0, 8)]);
        let large = (0..9).map(|i| head(0, 1, i, 1, 100)).chain([head(0, 1, 9, 1, 1 << 20)]);
        assert_eq!(runs(large), [(0, 9)]);
        let alternating = (0..100).map(|i| head(0, (i % 2) as u16, i, 1, 100));
        assert_eq!(runs(alternating), []);
    }

    #[test]
    fn streams_do_not_break_each_others_runs_and_what_is_read_is_left() {
        let both = (0..100).flat_map(|i| [head(0, 1, i * 100, 100, 100), head(3, 0, i * 100, 100, 100)]);
        let mut runs = Runs::default();
        both.for_each(|head| runs.wrote(&head));
        let unread = |stream| if stream == 0 { 1 } else { 0 };
        let left: Vec<_> = std::iter::from_fn(|| runs.next(unread)).map(|run| (run.stream, run.first)).collect();
        assert_eq!(left, [(3, 0), (0, 4_000), (3, 4_000)]);
    }
}

//! Small neighbours in the file that are to become full segments.
//!
//! In: the segments that checkpoints write, and on start those at the ends of the streams. Out: runs of them that fill
//! a segment, and the same records in its place. Invariant: a run's segments follow each other without a gap, and all
//! of them stay in the file for a while: somebody has still to read them, or they are kept. Not here: how segments are
//! joined (`merge`), when there is time for it (`store`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rusqlite::{Connection, params};

use super::arrived::is_set_back;
use super::books::Books;
use super::checkpoint::{insert_segment, span_max};
use super::damage::{is_damage, is_of_page};
use super::merge::{Merged, Merger, Together, is_small};
use super::segment::{Head, SEGMENT_RAW_BYTES, SEGMENT_RECORDS_MAX, Sealed};
use super::trim::Retention;
use crate::kill_point::{self, KillPoint};

/// A run that ends early, as where a larger segment comes between, is joined from this number of segments on.
const SEGMENTS_MIN: usize = 8;
/// Runs that wait; the oldest are left as they are.
const RUNS_MAX: usize = 64;
/// Heads read at the end of each stream on start: as many as a run of seven hours has, at a checkpoint a minute.
const TAKEN_UP_MAX: i64 = 512;

/// Segments of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub stream: u32,
    pub first: i64,
    pub end: i64,
    /// No record arrived before.
    since: i64,
    segments: usize,
    raw_bytes: usize,
}

impl Run {
    fn of(head: &Head, since: i64) -> Run {
        Run {
            stream: head.stream,
            first: head.first,
            end: head.end(),
            since,
            segments: 1,
            raw_bytes: head.raw_bytes as usize,
        }
    }

    fn is_followed_by(&self, head: &Head) -> bool {
        self.end == head.first && is_small(head)
    }

    /// Whether one segment holds it and that one.
    fn has_room_for(&self, head: &Head) -> bool {
        let records = usize::try_from(head.end() - self.first).unwrap_or(usize::MAX);
        records <= SEGMENT_RECORDS_MAX && self.raw_bytes + head.raw_bytes as usize <= SEGMENT_RAW_BYTES
    }

    fn with(self, head: &Head) -> Run {
        Run {
            end: head.end(),
            segments: self.segments + 1,
            raw_bytes: self.raw_bytes + head.raw_bytes as usize,
            ..self
        }
    }
}

/// What is written last of a stream.
#[derive(Debug)]
struct StreamTail {
    end: i64,
    arrival: i64,
    /// Small segments that may become more.
    open: Option<Run>,
}

#[derive(Debug, Default)]
pub(super) struct Runs {
    /// By stream. `None`: how long records are of use is not known yet.
    tails: Option<BTreeMap<u32, StreamTail>>,
    full: VecDeque<Run>,
}

impl Runs {
    /// Once the consumers are known, goes on where an earlier process ended: with the last segments of each stream, as
    /// the file has them.
    pub fn take_up(&mut self, db: &Connection, books: &Books, retention: Retention) -> rusqlite::Result<()> {
        if self.tails.is_some() || !books.consumers_known {
            return Ok(());
        }
        let mut found = Vec::new();
        let mut find = db.prepare(
            "SELECT stream, first, input, count, arrival, codec, raw_bytes FROM segment
             WHERE stream = ?1 AND first >= ?2 ORDER BY first DESC LIMIT ?3",
        )?;
        for (stream, book) in &books.streams {
            let mut rows = find.query(params![stream, book.first, TAKEN_UP_MAX])?;
            let mut heads = Vec::new();
            loop {
                let row = match rows.next() {
                    // nothing is joined over a damaged page
                    Err(error) if is_damage(&error) => break,
                    row => row?,
                };
                let Some(row) = row else { break };
                // behind a head that is damaged a run begins anew
                heads.extend(Head::read(row));
            }
            found.extend(heads.into_iter().rev());
        }
        self.tails = Some(BTreeMap::new());
        for head in &found {
            self.wrote(head, span_max(books, head.stream, retention));
        }
        Ok(())
    }

    /// A segment was written to the file, behind those of its stream. `span`: how many ticks one segment may hold.
    pub fn wrote(&mut self, head: &Head, span: Option<i64>) {
        let Some(tails) = &mut self.tails else { return };
        let tail = tails.remove(&head.stream);
        // the head tells the newest record; the oldest came no earlier than what lies before, or than one segment holds
        let before = tail.as_ref().filter(|tail| tail.end == head.first).map(|tail| tail.arrival);
        let before = before.filter(|before| !is_set_back(*before, head.arrival));
        let since = before.unwrap_or(head.arrival.saturating_sub(span.unwrap_or(0)));
        let together = Together { inputs: true, span };
        let next = match tail.and_then(|tail| tail.open) {
            Some(run)
                if run.is_followed_by(head) && run.has_room_for(head) && together.reaches(run.since, head.arrival) =>
            {
                run.with(head)
            }
            Some(run) => {
                self.close(run, head);
                Run::of(head, since)
            }
            None => Run::of(head, since),
        };
        let open = is_small(head).then_some(next);
        if let Some(tails) = &mut self.tails {
            tails.insert(head.stream, StreamTail { end: head.end(), arrival: head.arrival, open });
        }
    }

    fn close(&mut self, run: Run, next: &Head) {
        let is_full = run.is_followed_by(next) && !run.has_room_for(next) && run.segments > 1;
        if is_full || run.segments >= SEGMENTS_MIN {
            self.full.push_back(run);
        }
        if self.full.len() > RUNS_MAX {
            self.full.pop_front();
        }
    }

    /// A run that is worth joining; `stays_from`: the offset of a stream from which on segments stay for a while.
    pub fn next(&mut self, stays_from: impl Fn(u32) -> i64) -> Option<Run> {
        std::iter::from_fn(|| self.full.pop_front()).find(|run| stays_from(run.stream) <= run.first)
    }
}

/// Puts full segments in the place of a run's; gives those that were joined.
pub(super) fn join(db: &Connection, run: Run, merger: &mut Merger<'_>) -> rusqlite::Result<Vec<Merged>> {
    let found: Vec<Arc<Sealed>> = {
        let mut find = db.prepare_cached(
            "SELECT stream, first, input, count, arrival, codec, raw_bytes, checksum, data FROM segment
             WHERE stream = ?1 AND first >= ?2 AND first < ?3 ORDER BY first",
        )?;
        let sealed = |row: &rusqlite::Row<'_>| {
            Ok(Arc::new(Sealed { head: Head::read(row)?, checksum: row.get(7)?, data: row.get(8)? }))
        };
        let found = find.query_map(params![run.stream, run.first, run.end], sealed)?;
        // a head that does not fit is damage, and whoever reads it sets it aside
        match found.collect() {
            Err(error) if is_damage(&error) && !is_of_page(&error) => Vec::new(),
            found => found?,
        }
    };
    let segments = found.len();
    let mut joined = merger.merge(found, Together { inputs: true, span: None });
    if joined.len() == segments {
        return Ok(Vec::new());
    }
    db.prepare_cached("DELETE FROM segment WHERE stream = ?1 AND first >= ?2 AND first < ?3")?
        .execute(params![run.stream, run.first, run.end])?;
    for merged in &joined {
        insert_segment(db, &merged.sealed)?;
    }
    kill_point::reached(KillPoint::Merge);
    joined.retain(|merged| merged.inputs.is_some());
    Ok(joined)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn head(stream: u32, input: u16, first: i64, count: u32, raw_bytes: u32) -> Head {
        Head { stream, first, input, count, arrival: 0, codec: 1, raw_bytes }
    }

    fn known() -> Runs {
        Runs { tails: Some(BTreeMap::new()), ..Runs::default() }
    }

    /// The spans of the runs that some heads give.
    fn runs_within(span: Option<i64>, heads: impl IntoIterator<Item = Head>) -> Vec<(i64, i64)> {
        let mut runs = known();
        heads.into_iter().for_each(|head| runs.wrote(&head, span));
        std::iter::from_fn(|| runs.next(|_| 0)).map(|run| (run.first, run.end)).collect()
    }

    fn runs(heads: impl IntoIterator<Item = Head>) -> Vec<(i64, i64)> {
        runs_within(None, heads)
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
        for (between, next) in [(head(0, 1, 0, 1, 1 << 20), 1), (head(0, 1, 5, 1, 100), 6)] {
            let of = |segments: i64| {
                let before = (0..segments).map(|i| head(0, 1, i, 1, 100));
                let between = Head { first: between.first + segments, ..between };
                before.chain([between, head(0, 1, segments + next, 1, 100)]).collect::<Vec<_>>()
            };
            assert_eq!(runs(of(7)), []);
            assert_eq!(runs(of(8)), [(0, 8)]);
        }
        let alternating = (0..100).map(|i| head(0, 1, i, 1, if i % 2 == 0 { 100 } else { 1 << 20 }));
        assert_eq!(runs(alternating), []);
    }

    #[test]
    fn another_input_does_not_end_a_run() {
        let by_turns = (0..100).map(|i| head(0, (i % 3) as u16, i * 100, 100, 1_000));
        assert_eq!(runs(by_turns), [(0, 4_000), (4_000, 8_000)]);
    }

    #[test]
    fn a_run_holds_no_more_time_than_goes_by_age() {
        let at = |i: i64, arrival| Head { arrival, ..head(0, 1, i, 1, 100) };
        let each_minute = (0..60).map(|i| at(i, i * 60));
        // what the first one holds came since one before it, which nobody knows
        assert_eq!(runs_within(Some(600), each_minute), [(1, 11), (11, 21), (21, 31), (31, 41), (41, 51)]);
        assert_eq!(runs_within(Some(300), (0..60).map(|i| at(i, i * 60))), [], "too short to be worth it");
    }

    #[test]
    fn runs_go_on_where_an_earlier_process_ended() {
        let dir = tempfile::TempDir::new().unwrap();
        let db = crate::journal::schema::open_writer(&dir.path().join("job.db"), 1 << 30).unwrap();
        let retention = Retention { keep_from: None, now: Timestamp::MAX, age: None };
        let mut books = Books::load(&db).unwrap();
        let write = |head: Head| insert_segment(&db, &Sealed { head, checksum: 0, data: vec![7; 100] }).unwrap();
        db.execute_batch("BEGIN").unwrap();
        (0..1_000).for_each(|i| write(head(0, 1, i, 1, 100)));
        db.execute_batch("COMMIT").unwrap();
        let mut runs = Runs::default();
        runs.take_up(&db, &books, retention).unwrap();
        runs.wrote(&head(0, 1, 1_000, 1, 100), None);
        assert_eq!((runs.tails.is_none(), runs.next(|_| 0)), (true, None), "how old records may be is not known");

        books.consumers_known = true;
        runs.take_up(&db, &books, retention).unwrap();
        let open = |runs: &Runs| runs.tails.as_ref().unwrap()[&0].open.unwrap();
        assert_eq!((open(&runs).first, open(&runs).end), (1_000 - TAKEN_UP_MAX, 1_000), "a bounded look");
        runs.take_up(&db, &books, retention).unwrap();
        (10..50).for_each(|i| runs.wrote(&head(0, 1, i * 100, 100, 100), None));
        assert_eq!(runs.next(|_| 0).map(|run| (run.first, run.end)), Some((488, 4_500)));

        // below the mark nothing is joined, and a damaged head ends a run as a gap does
        books.streams.get_mut(&0).unwrap().first = 600;
        db.execute("UPDATE segment SET input = -1 WHERE first = 900", []).unwrap();
        let mut runs = Runs::default();
        runs.take_up(&db, &books, retention).unwrap();
        assert_eq!((open(&runs).first, open(&runs).end), (901, 1_000));
        assert_eq!(runs.next(|_| 0).map(|run| (run.first, run.end)), Some((600, 900)));
    }

    #[test]
    fn streams_do_not_break_each_others_runs_and_what_is_read_is_left() {
        let both = (0..100).flat_map(|i| [head(0, 1, i * 100, 100, 100), head(3, 0, i * 100, 100, 100)]);
        let mut runs = known();
        both.for_each(|head| runs.wrote(&head, None));
        let unread = |stream| if stream == 0 { 1 } else { 0 };
        let left: Vec<_> = std::iter::from_fn(|| runs.next(unread)).map(|run| (run.stream, run.first)).collect();
        assert_eq!(left, [(3, 0), (0, 4_000), (3, 4_000)]);
    }
}

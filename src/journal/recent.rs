//! The newest segments of each input: what a redelivery is recognised by.
//!
//! In: event segments as they are stored. Out: which of them trimming must leave. Invariant: the segments kept hold at
//! least the newest `keep` records of each input, as far as there are any and not too many records of other inputs lie
//! between them, and no more segments than that takes. A mixed segment stays as long as one of its inputs needs it. Not
//! here: reading and comparing the messages (the source does, through `Journal::recent_messages`).

use std::collections::{BTreeMap, VecDeque};

use rusqlite::{Connection, OptionalExtension, params};

use super::books::INPUTS;
use super::damage::is_damage;
use super::segment::{Head, Opener, Segment};

/// Where `meta` keeps from which offset on a redelivery is recognised: what lies before it came in other sessions.
pub(super) const FROM: &str = "recent_from";

/// Segments looked at on start; reading their heads takes well under a second.
const LOOK_BACK_SEGMENTS: i64 = 50_000;

/// Mixed segments opened on start that somebody has still to read, since only their data tells their inputs: each takes
/// about a millisecond. Those that everybody has read are there for these windows alone, and all are opened.
const LOOK_BACK_MIXED: usize = 1024;

/// An input gives up its oldest segments once they hold more than this many records of other inputs (64 full segments).
/// Otherwise a quiet input would keep a full segment for each of its records.
const OTHERS_MAX: usize = 64 * 4096;

/// Segments given up at a time when the journal is full: a few free enough pages to go on.
const GIVE_UP_SEGMENTS: usize = 16;

/// A segment that an input has records in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub first: i64,
    /// Offset behind its last record.
    pub end: i64,
    /// Those of the input.
    pub records: usize,
}

impl Kept {
    fn others(&self) -> usize {
        usize::try_from(self.end - self.first).unwrap_or(0).saturating_sub(self.records)
    }
}

#[derive(Clone, Debug, Default)]
struct InputTail {
    segments: VecDeque<Kept>,
    records: usize,
    /// Records of other inputs in these segments.
    others: usize,
}

impl InputTail {
    fn push(&mut self, kept: Kept) {
        self.segments.push_back(kept);
        self.records += kept.records;
        self.others += kept.others();
    }

    fn pop_if(&mut self, may_go: impl FnOnce(&mut Kept) -> bool) -> Option<Kept> {
        let oldest = self.segments.pop_front_if(may_go)?;
        self.records -= oldest.records;
        self.others -= oldest.others();
        Some(oldest)
    }

    fn has(&self, first: i64) -> bool {
        self.segments.binary_search_by_key(&first, |kept| kept.first).is_ok()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Recent {
    keep: usize,
    inputs: BTreeMap<u16, InputTail>,
    /// First offsets of segments that fell out of a window since trimming last asked.
    left: Vec<i64>,
}

impl Recent {
    pub fn new(keep: usize) -> Recent {
        Recent { keep, inputs: BTreeMap::new(), left: Vec::new() }
    }

    /// Reads the windows back at start; `mark`: everybody has read what lies before it. Not recognised, and counted as
    /// possible redeliveries, are messages of an input whose newest records lie further back than
    /// [`LOOK_BACK_SEGMENTS`], or behind [`LOOK_BACK_MIXED`] that are unread.
    pub fn load(db: &Connection, keep: usize, inputs: usize, mark: i64) -> rusqlite::Result<Recent> {
        if keep == 0 {
            return Ok(Recent::new(keep));
        }
        let mut statement = db
            .prepare("SELECT input, first, count, codec FROM segment WHERE stream = ?1 ORDER BY first DESC LIMIT ?2")?;
        let mut rows = statement.query([i64::from(INPUTS), LOOK_BACK_SEGMENTS])?;
        let (mut newest, mut records, mut complete) = (Vec::new(), BTreeMap::<u16, usize>::new(), 0);
        let (mut opener, mut opened) = (Opener::default(), 0);
        while complete < inputs.max(1) {
            let row = match rows.next() {
                Err(error) if is_damage(&error) => {
                    tracing::error!(
                        "a page of the pool's file is damaged among the newest events ({error}): redeliveries of those \
                         before it are not recognised; check the disk, and run `forebay journal verify`"
                    );
                    break;
                }
                row => row?,
            };
            let Some(row) = row else { break };
            // whoever reads a segment with a damaged head sets it aside
            let (Ok(input), Ok(count), Ok(codec)) = (row.get::<_, u16>(0), row.get::<_, u32>(2), row.get::<_, u8>(3))
            else {
                continue;
            };
            let first: i64 = row.get(1)?;
            let held = if Head::is_codec_of_mixed(codec) {
                if first >= mark {
                    opened += 1;
                }
                if opened > LOOK_BACK_MIXED && first >= mark {
                    // those before may be of one input, which their heads tell
                    continue;
                }
                inputs_of(db, first, &mut opener)?
            } else {
                BTreeMap::from([(input, count as usize)])
            };
            let end = first.saturating_add(i64::from(count));
            for (input, count) in held {
                let sum = records.entry(input).or_default();
                let was_complete = *sum >= keep;
                *sum += count;
                newest.push((input, Kept { first, end, records: count }));
                complete += usize::from(!was_complete && *sum >= keep);
            }
        }
        let mut recent = Recent::new(keep);
        for (input, kept) in newest.into_iter().rev() {
            recent.push(input, kept);
        }
        // what lies below the mark of trimming is deleted at start, the rest trimming will meet
        recent.left.clear();
        Ok(recent)
    }

    pub fn push(&mut self, input: u16, kept: Kept) {
        let keep = self.keep;
        let window = self.inputs.entry(input).or_default();
        window.push(kept);
        let (mut records, mut others) = (window.records, window.others);
        while let Some(oldest) = window.pop_if(|oldest| records - oldest.records >= keep || others > OTHERS_MAX) {
            (records, others) = (window.records, window.others);
            self.left.push(oldest.first);
        }
    }

    /// Segments of some inputs have become one, with so much of each.
    pub fn merged(&mut self, into: &[(u16, Kept)]) {
        for (input, kept) in into {
            self.left.retain(|first| !(kept.first..kept.end).contains(first));
            let Some(window) = self.inputs.get_mut(input) else { continue };
            let from = window.segments.partition_point(|part| part.first < kept.first);
            let to = window.segments.partition_point(|part| part.first < kept.end);
            if from == to {
                // all of it had left the window, and stays out of it
                continue;
            }
            let parts: Vec<Kept> = window.segments.drain(..).collect();
            let before = parts.iter().take(from);
            let mut joined = InputTail::default();
            before.chain([kept]).chain(parts.iter().skip(to)).for_each(|kept| joined.push(*kept));
            *window = joined;
        }
    }

    /// Lets go of a few segments that only these windows keep, since the journal is full; whether there were any.
    pub fn give_up(&mut self, mark: i64) -> bool {
        let before = self.left.len();
        for window in self.inputs.values_mut() {
            for _ in 0..GIVE_UP_SEGMENTS {
                let Some(oldest) = window.pop_if(|oldest| oldest.first < mark) else { break };
                self.left.push(oldest.first);
            }
        }
        self.left.len() > before
    }

    /// Whether any input still needs the segment.
    pub fn holds(&self, first: i64) -> bool {
        self.inputs.values().any(|window| window.has(first))
    }

    /// The segments of an input's window, oldest first.
    pub fn segments(&self, input: u16) -> Vec<Kept> {
        self.inputs.get(&input).map(|w| w.segments.iter().copied().collect()).unwrap_or_default()
    }

    /// Segments that left their last window and lie below `mark`, so that trimming has passed them; the others it will
    /// meet.
    pub fn take_left(&mut self, mark: i64) -> Vec<i64> {
        let left = std::mem::take(&mut self.left);
        left.into_iter().filter(|first| *first < mark && !self.holds(*first)).collect()
    }
}

/// How many events of each input a mixed segment has; none of one that is damaged.
fn inputs_of(db: &Connection, first: i64, opener: &mut Opener) -> rusqlite::Result<BTreeMap<u16, usize>> {
    let mut find = db.prepare_cached(
        "SELECT stream, first, input, count, arrival, codec, raw_bytes, checksum, data FROM segment
         WHERE stream = ?1 AND first = ?2",
    )?;
    let opened = find.query_row(params![INPUTS, first], |row| {
        let Ok(head) = Head::read(row) else { return Ok(None) };
        Ok(opener.open(&head, row.get(7)?, row.get(8)?).ok())
    });
    match opened.optional() {
        Ok(Some(Some(Segment::Events(events)))) => Ok(events.inputs()),
        Err(error) if !is_damage(&error) => Err(error),
        _ => Ok(BTreeMap::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(first: i64, records: usize) -> Kept {
        Kept { first, end: first + records as i64, records }
    }

    /// One of which half is of others.
    fn half(first: i64, records: usize) -> Kept {
        Kept { end: first + 2 * records as i64, ..kept(first, records) }
    }

    fn firsts(recent: &Recent, input: u16) -> Vec<i64> {
        recent.segments(input).iter().map(|kept| kept.first).collect()
    }

    #[test]
    fn the_newest_records_of_each_input_are_held() {
        let mut recent = Recent::new(10);
        recent.push(1, kept(0, 4));
        recent.push(2, kept(4, 1));
        for i in 0..5 {
            recent.push(1, kept(5 + i * 4, 4));
        }
        assert_eq!(firsts(&recent, 1), [13, 17, 21]);
        assert!(recent.holds(4), "a quiet input is not pushed out by a busy one");
        assert!(!recent.holds(9) && recent.holds(13));
        assert_eq!(recent.take_left(9), [0, 5]);
        assert_eq!(recent.take_left(100), [] as [i64; 0], "asked once");
    }

    #[test]
    fn a_mixed_segment_is_held_as_long_as_one_input_needs_it() {
        let mut recent = Recent::new(10);
        (0..6).for_each(|i| recent.push(1, half(i * 8, 4)));
        (0..3).for_each(|i| recent.push(2, half(i * 8, 4)));
        assert_eq!((firsts(&recent, 1), firsts(&recent, 2)), (vec![24, 32, 40], vec![0, 8, 16]));
        assert_eq!(recent.take_left(100), [] as [i64; 0], "the other one needs those that left");
        recent.push(2, half(24, 4));
        assert!(!recent.holds(0) && recent.holds(8));
        assert_eq!(recent.take_left(100), [0], "told when the last one lets go");
    }

    #[test]
    fn a_quiet_input_does_not_keep_a_full_segment_for_each_of_its_records() {
        let mut recent = Recent::new(1_000);
        (0..200).for_each(|i| recent.push(2, Kept { first: i * 4_096, end: (i + 1) * 4_096, records: 1 }));
        let held = recent.segments(2);
        assert_eq!((held.len(), held.last().map(|kept| kept.first)), (64, Some(199 * 4_096)), "its newest");
    }

    #[test]
    fn what_was_merged_takes_the_place_of_its_parts() {
        let mut recent = Recent::new(10);
        (0..20).for_each(|i| recent.push(1, kept(i * 2, 2)));
        assert_eq!(recent.segments(1).first().map(|kept| kept.first), Some(30));
        recent.merged(&[(1, kept(26, 8))]);
        assert_eq!(
            recent.segments(1).iter().map(|k| (k.first, k.records)).collect::<Vec<_>>(),
            [(26, 8), (34, 2), (36, 2), (38, 2)]
        );
        assert!(recent.holds(26));
        assert_eq!(recent.take_left(30), (0..13).map(|i| i * 2).collect::<Vec<_>>(), "the parts are gone already");
        recent.merged(&[(1, kept(0, 26))]);
        assert_eq!(recent.segments(1).len(), 4, "all of it had left");
        (20..25).for_each(|i| recent.push(1, kept(i * 2, 2)));
        assert_eq!(recent.take_left(100), [26, 34, 36, 38]);
    }

    #[test]
    fn what_was_merged_of_several_inputs_takes_the_place_in_each_window() {
        let mut recent = Recent::new(10);
        for i in 0..12 {
            recent.push(1 + (i % 2) as u16, kept(i * 4, 4));
        }
        assert_eq!((firsts(&recent, 1), firsts(&recent, 2)), (vec![24, 32, 40], vec![28, 36, 44]));
        let one = |records| Kept { first: 16, end: 36, records };
        // a third input had nothing in its window any more
        recent.merged(&[(1, one(12)), (2, one(8)), (3, one(0))]);
        let told = |input| recent.segments(input).iter().map(|k| (k.first, k.records)).collect::<Vec<_>>();
        assert_eq!((told(1), told(2), told(3)), (vec![(16, 12), (40, 4)], vec![(16, 8), (36, 4), (44, 4)], vec![]));
        assert_eq!(recent.take_left(100), [0, 4, 8, 12], "parts are gone already");
    }

    #[test]
    fn a_full_journal_keeps_only_what_a_consumer_needs() {
        let mut recent = Recent::new(1000);
        (0..40).for_each(|i| recent.push(1, kept(i, 1)));
        assert!(recent.give_up(20));
        assert_eq!(recent.take_left(20), (0..16).collect::<Vec<_>>(), "a few at a time");
        assert!(recent.give_up(20) && !recent.give_up(20));
        assert!(!recent.holds(19) && recent.holds(20));
        recent.push(1, kept(40, 999));
        assert!(!recent.holds(38), "and counts right from then on");
    }
}

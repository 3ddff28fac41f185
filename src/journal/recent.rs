//! The newest segments of each input: what a redelivery is recognised by.
//!
//! In: event segments as they are stored. Out: which of them trimming must leave. Invariant: the segments kept hold at
//! least the newest `keep` records of each input, as far as there are any, and no more segments than that takes. Not
//! here: reading and comparing the messages (the source does, through `Journal::recent_messages`).

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use rusqlite::Connection;

use super::books::INPUTS;

/// Segments looked at on start; reading their heads takes well under a second.
const LOOK_BACK_SEGMENTS: i64 = 50_000;

/// Segments given up at a time when the journal is full: a few free enough pages to go on.
const GIVE_UP_SEGMENTS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub first: i64,
    pub records: usize,
}

#[derive(Clone, Debug, Default)]
struct InputTail {
    segments: VecDeque<Kept>,
    records: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Recent {
    keep: usize,
    inputs: BTreeMap<u16, InputTail>,
    /// First offsets of segments that fell out of their window since trimming last asked.
    left: Vec<i64>,
}

impl Recent {
    pub fn new(keep: usize) -> Recent {
        Recent { keep, inputs: BTreeMap::new(), left: Vec::new() }
    }

    /// Reads the windows back at start. An input whose newest segments lie further back than [`LOOK_BACK_SEGMENTS`] has
    /// been quiet for so long that its sender has nothing left to repeat.
    pub fn load(db: &Connection, keep: usize, inputs: usize) -> rusqlite::Result<Recent> {
        let mut statement =
            db.prepare("SELECT input, first, count FROM segment WHERE stream = ?1 ORDER BY first DESC LIMIT ?2")?;
        let mut rows = statement.query([i64::from(INPUTS), LOOK_BACK_SEGMENTS])?;
        let (mut newest, mut records, mut complete) = (Vec::new(), BTreeMap::<u16, usize>::new(), 0);
        while let Some(row) = rows.next()? {
            let (input, first, count): (u16, i64, u32) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let sum = records.entry(input).or_default();
            let was_complete = *sum >= keep;
            *sum += count as usize;
            newest.push((input, first, count as usize));
            complete += usize::from(!was_complete && *sum >= keep);
            if complete >= inputs {
                break;
            }
        }
        let mut recent = Recent::new(keep);
        for (input, first, count) in newest.into_iter().rev() {
            recent.push(input, first, count);
        }
        // what lies below the mark of trimming is deleted at start, the rest trimming will meet
        recent.left.clear();
        Ok(recent)
    }

    pub fn push(&mut self, input: u16, first: i64, records: usize) {
        let window = self.inputs.entry(input).or_default();
        window.segments.push_back(Kept { first, records });
        window.records += records;
        while let Some(oldest) =
            window.segments.front().copied().filter(|oldest| window.records - oldest.records >= self.keep)
        {
            window.segments.pop_front();
            window.records -= oldest.records;
            self.left.push(oldest.first);
        }
    }

    /// Segments of an input that lie in `span` have become these.
    pub fn merged(&mut self, input: u16, span: Range<i64>, into: &[Kept]) {
        self.left.retain(|first| !span.contains(first));
        let Some(window) = self.inputs.get_mut(&input) else { return };
        let is_before = |kept: &Kept| kept.first < span.start;
        let from = window.segments.partition_point(is_before);
        let to = window.segments.partition_point(|kept| kept.first < span.end);
        let Some(oldest) = window.segments.range(from..to).next().copied() else { return };
        // those that had left the window stay out of it
        let within = into.iter().filter(|kept| kept.first + kept.records as i64 > oldest.first);
        let mut segments: VecDeque<Kept> = window.segments.range(..from).copied().collect();
        segments.extend(within.copied());
        segments.extend(window.segments.range(to..).copied());
        window.records = segments.iter().map(|kept| kept.records).sum();
        window.segments = segments;
    }

    /// Lets go of a few segments that only this window keeps, since the journal is full; whether there were any.
    pub fn give_up(&mut self, mark: i64) -> bool {
        let before = self.left.len();
        for window in self.inputs.values_mut() {
            for _ in 0..GIVE_UP_SEGMENTS {
                let Some(oldest) = window.segments.pop_front_if(|oldest| oldest.first < mark) else { break };
                window.records -= oldest.records;
                self.left.push(oldest.first);
            }
        }
        self.left.len() > before
    }

    pub fn holds(&self, input: u16, first: i64) -> bool {
        self.inputs.get(&input).and_then(|w| w.segments.front()).is_some_and(|oldest| first >= oldest.first)
    }

    /// The segments of an input's window, oldest first.
    pub fn segments(&self, input: u16) -> Vec<Kept> {
        self.inputs.get(&input).map(|w| w.segments.iter().copied().collect()).unwrap_or_default()
    }

    /// Segments that left their window and lie below `mark`, so that trimming has passed them; the others it will meet.
    pub fn take_left(&mut self, mark: i64) -> Vec<i64> {
        std::mem::take(&mut self.left).into_iter().filter(|first| *first < mark).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_records_of_each_input_are_held() {
        let mut recent = Recent::new(10);
        recent.push(1, 0, 4);
        recent.push(2, 4, 1);
        for i in 0..5 {
            recent.push(1, 5 + i * 4, 4);
        }
        assert_eq!(recent.segments(1).iter().map(|k| k.first).collect::<Vec<_>>(), [13, 17, 21]);
        assert!(recent.holds(2, 4), "a quiet input is not pushed out by a busy one");
        assert!(!recent.holds(1, 9) && recent.holds(1, 13));
        assert!(!recent.holds(3, 0));
        assert_eq!(recent.take_left(9), [0, 5]);
        assert_eq!(recent.take_left(100), [] as [i64; 0], "asked once");
    }

    #[test]
    fn what_was_merged_takes_the_place_of_its_parts() {
        let mut recent = Recent::new(10);
        (0..20).for_each(|i| recent.push(1, i * 2, 2));
        assert_eq!(recent.segments(1).first().map(|kept| kept.first), Some(30));
        recent.merged(1, 26..34, &[Kept { first: 26, records: 8 }]);
        assert_eq!(
            recent.segments(1).iter().map(|k| (k.first, k.records)).collect::<Vec<_>>(),
            [(26, 8), (34, 2), (36, 2), (38, 2)]
        );
        assert!(recent.holds(1, 26));
        assert_eq!(recent.take_left(30), (0..13).map(|i| i * 2).collect::<Vec<_>>(), "the parts are gone already");
        recent.merged(1, 0..26, &[Kept { first: 0, records: 26 }]);
        assert_eq!(recent.segments(1).len(), 4, "all of it had left");
        (20..25).for_each(|i| recent.push(1, i * 2, 2));
        assert_eq!(recent.take_left(100), [26, 34, 36, 38]);
    }

    #[test]
    fn a_full_journal_keeps_only_what_a_consumer_needs() {
        let mut recent = Recent::new(1000);
        (0..40).for_each(|i| recent.push(1, i, 1));
        assert!(recent.give_up(20));
        assert_eq!(recent.take_left(20), (0..16).collect::<Vec<_>>(), "a few at a time");
        assert!(recent.give_up(20) && !recent.give_up(20));
        assert!(!recent.holds(1, 19) && recent.holds(1, 20));
        recent.push(1, 40, 999);
        assert!(!recent.holds(1, 38), "and counts right from then on");
    }
}

//! Records that are done with ahead of a consumer's position, where answers need not come in order.
//!
//! In: stretches of offsets, each done with at its own time. Out: the position before which nothing is left to do, and
//! the rows of state that say what is done beyond it. Invariant: a record is done with once, over restarts too. Not
//! here: what is done with records.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::journal::{StateChange, StateEntry};

use super::reading::{Events, Records};

/// The number of these rows among those of the operators.
const OP: u32 = u32::MAX - 2;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// Everything before it is done.
    position: i64,
    /// Beyond it, by their start: apart from each other.
    spans: BTreeMap<i64, i64>,
    /// Rows of state that say nothing any more: the position was moved past them from outside.
    stale: Vec<i64>,
}

impl Ahead {
    /// What a consumer at `position` has in its state.
    pub fn load(position: i64, state: &[StateEntry]) -> Ahead {
        let offset = |bytes: &[u8]| bytes.try_into().ok().map(i64::from_be_bytes);
        let own = state.iter().filter(|entry| Ahead::has(entry));
        let spans = own.filter_map(|entry| Some((offset(&entry.key)?, offset(&entry.value)?)));
        let (spans, stale): (Vec<_>, Vec<_>) = spans.partition(|(_, end)| *end > position);
        let stale = stale.into_iter().map(|(start, _)| start).collect();
        Ahead { position, spans: spans.into_iter().collect(), stale }
    }

    /// Whether a row of state is one of these, and not an operator's.
    pub fn has(entry: &StateEntry) -> bool {
        entry.op == OP
    }

    pub fn position(&self) -> i64 {
        self.position
    }

    /// Nothing is done beyond this.
    pub fn end(&self) -> i64 {
        self.spans.last_key_value().map_or(self.position, |(_, end)| *end)
    }

    /// These records are done with; gives what changes in the state.
    pub fn add(&mut self, done: Range<i64>) -> Vec<StateChange> {
        let Range { mut start, mut end } = done;
        let mut changes: Vec<StateChange> = self.stale.drain(..).map(|start| change(start, None)).collect();
        if end <= self.position {
            return changes;
        }
        start = start.max(self.position);
        // those that it touches become one with it
        let first =
            self.spans.range(..start).next_back().filter(|(_, to)| **to >= start).map_or(start, |(from, _)| *from);
        let touched: Vec<(i64, i64)> = self.spans.range(first..=end).map(|(from, to)| (*from, *to)).collect();
        for (from, to) in touched {
            self.spans.remove(&from);
            (start, end) = (start.min(from), end.max(to));
            changes.push(change(from, None));
        }
        if start <= self.position {
            self.position = end;
            return changes;
        }
        changes.retain(|change| change.key != start.to_be_bytes());
        changes.push(change(start, Some(end)));
        self.spans.insert(start, end);
        changes
    }

    /// The records among these that are not done with, in order; rows between two spans together.
    pub fn left_of(&self, records: Records) -> Vec<Records> {
        if self.spans.is_empty() {
            return vec![records];
        }
        match records {
            Records::Events(runs) => {
                let left = runs.into_iter().map(|Events { input, offsets, events }| {
                    let is_left = |(offset, _): &(i64, _)| self.is_left(*offset);
                    let (offsets, events) = offsets.into_iter().zip(events).filter(is_left).unzip();
                    Events { input, offsets, events }
                });
                vec![Records::Events(left.filter(|run| !run.events.is_empty()).collect())]
            }
            Records::Rows { first, rows } => {
                let piece = |piece: Range<i64>| {
                    let (mut rows, mut offset) = (rows.clone(), first);
                    rows.batch.retain(|_, _| {
                        offset += 1;
                        piece.contains(&(offset - 1))
                    });
                    Records::Rows { first: piece.start, rows }
                };
                self.gaps(first..first + rows.batch.len() as i64).into_iter().map(piece).collect()
            }
        }
    }

    /// Whether a record is not done with.
    fn is_left(&self, offset: i64) -> bool {
        self.spans.range(..=offset).next_back().is_none_or(|(_, end)| offset >= *end)
    }

    /// What of these offsets lies in no span.
    fn gaps(&self, of: Range<i64>) -> Vec<Range<i64>> {
        let mut gaps = Vec::new();
        let mut from = of.start;
        for (start, end) in &self.spans {
            if *start >= of.end {
                break;
            }
            if *start > from {
                gaps.push(from..*start);
            }
            from = from.max(*end);
        }
        if from < of.end {
            gaps.push(from..of.end);
        }
        gaps
    }
}

fn change(start: i64, end: Option<i64>) -> StateChange {
    StateChange { op: OP, key: start.to_be_bytes().to_vec(), value: end.map(|end| end.to_be_bytes().to_vec()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rows of state that some changes leave.
    fn stored(state: &mut BTreeMap<Vec<u8>, Vec<u8>>, changes: Vec<StateChange>) -> Vec<StateEntry> {
        for change in changes {
            assert_eq!(change.op, OP);
            match change.value {
                Some(value) => state.insert(change.key, value),
                None => state.remove(&change.key),
            };
        }
        state.iter().map(|(key, value)| StateEntry { op: OP, key: key.clone(), value: value.clone() }).collect()
    }

    #[test]
    fn what_lies_behind_a_gap_is_one_row_and_goes_when_the_gap_closes() {
        let (mut ahead, mut state) = (Ahead::load(10, &[]), BTreeMap::new());
        for start in (20..1_000).step_by(10) {
            let rows = stored(&mut state, ahead.add(start..start + 10));
            assert_eq!((rows.len(), ahead.position()), (1, 10));
            assert_eq!(Ahead::load(10, &rows), ahead);
        }
        assert_eq!(stored(&mut state, ahead.add(10..20)), []);
        assert_eq!((ahead.position(), ahead.spans.len()), (1_000, 0));
    }

    proptest! {
        #[test]
        fn whatever_the_order_a_record_is_left_until_it_is_done(
            order in Just((0..40_i64).collect::<Vec<_>>()).prop_shuffle(),
            crashes in prop::collection::vec(any::<bool>(), 40),
        ) {
            let (mut ahead, mut state) = (Ahead::load(0, &[]), BTreeMap::new());
            let mut done = [false; 200];
            for (piece, crashes) in order.into_iter().zip(crashes) {
                // pieces overlap, as those of a stretch that is read again over what was done ahead
                let (start, end) = (piece * 5, (piece * 5 + 7).min(200));
                done[start as usize..end as usize].fill(true);
                let rows = stored(&mut state, ahead.add(start..end));
                if crashes {
                    ahead = Ahead::load(ahead.position(), &rows);
                }
                let position = ahead.position();
                prop_assert!(done[..position as usize].iter().all(|done| *done));
                prop_assert!(position == 200 || !done[position as usize]);
                let left: Vec<i64> = ahead.gaps(position..200).into_iter().flatten().collect();
                let expected: Vec<i64> = (position..200).filter(|at| !done[*at as usize]).collect();
                prop_assert_eq!(left, expected);
            }
            prop_assert!(state.is_empty());
        }
    }
}

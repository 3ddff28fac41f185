//! How far arrival time has passed for consumers while nothing came, and how far it may.
//!
//! In: moments that consumers want to let pass, events that wait to be stored, and those that are being stored. Out:
//! how far time passes, and the least arrival that an event may have. Invariant: no event becomes readable that arrived
//! before a moment which a consumer of the same era let pass; a disk may take seconds for a commit, and events may wait
//! for room. A consumer looks behind the answer whether anything was stored since it read. Not here: what time does
//! (`engine`), the era of an arrival (`crate::arrival`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::time::Timestamp;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct TimePassing(Mutex<PassedTime>);

#[derive(Debug, Default)]
struct PassedTime {
    era: u32,
    /// Time has passed so far for some consumer of this era. `None`: for none.
    to: Option<Timestamp>,
    /// The earliest arrival among events of the transaction under way.
    storing: Option<Timestamp>,
    /// The earliest arrival of each batch that was handed over and is not stored, by its number.
    waiting: BTreeMap<u64, Timestamp>,
    batches: u64,
}

/// A batch of events is on its way until this is dropped.
#[derive(Debug)]
pub(super) struct OnItsWay {
    passing: Arc<TimePassing>,
    batch: Option<u64>,
}

impl OnItsWay {
    /// Of events of an era, the earliest of which arrived at this moment.
    pub fn new(passing: Arc<TimePassing>, era: u32, earliest: Timestamp) -> OnItsWay {
        let batch = passing.waits(era, earliest);
        OnItsWay { passing, batch }
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        if let Some(batch) = self.batch {
            self.passing.lock().waiting.remove(&batch);
        }
    }
}

impl TimePassing {
    fn lock(&self) -> MutexGuard<'_, PassedTime> {
        // no code that could panic runs under this lock
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was stamped before an era began comes behind what has passed in it, whatever its stamp says.
    fn waits(&self, era: u32, earliest: Timestamp) -> Option<u64> {
        let mut passed = self.lock();
        passed.batches += 1;
        let batch = passed.batches;
        (era == passed.era).then(|| {
            passed.waiting.insert(batch, earliest);
            batch
        })
    }

    /// A consumer lets time pass to this moment; how far it may. It does not wait for events that wait for room, which
    /// may take days: `has_room` tells whether any is there.
    pub fn let_pass(&self, era: u32, to: Timestamp, has_room: bool) -> Timestamp {
        let mut passed = self.lock();
        let waiting = passed.waiting.values().filter(|_| has_room);
        let to = waiting.chain(&passed.storing).fold(to, |to, arrival| to.min(*arrival));
        if era == passed.era {
            passed.to = passed.to.max(Some(to));
        }
        to
    }

    /// Events are being stored, the first of which would arrive at this moment; the least arrival that they may have.
    pub fn storing(&self, era: u32, arrival: Timestamp) -> Timestamp {
        let mut passed = self.lock();
        let least = passed.to.filter(|_| passed.era == era).map_or(arrival, |to| arrival.max(to));
        passed.storing = Some(passed.storing.map_or(least, |storing| storing.min(least)));
        least
    }

    /// The transaction is done, and what it stored can be read; `era` is the present one.
    pub fn stored(&self, era: u32) {
        let mut passed = self.lock();
        passed.storing = None;
        if passed.era != era {
            (passed.era, passed.to) = (era, None);
        }
    }

    /// The transaction was undone.
    pub fn undone(&self) {
        self.lock().storing = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_millis(1_700_000_000_000 + second * 1_000)
    }

    #[test]
    fn time_waits_for_what_is_being_stored_and_events_come_behind_what_has_passed() {
        let passing = TimePassing::default();
        assert_eq!(passing.let_pass(0, at(10), true), at(10));
        assert_eq!(passing.storing(0, at(8)), at(10), "it was stamped before, and comes late");
        assert_eq!(passing.storing(0, at(13)), at(13));
        assert_eq!(passing.let_pass(0, at(20), true), at(10), "nobody could read it yet");
        passing.stored(0);
        assert_eq!(passing.let_pass(0, at(20), true), at(20));
        assert_eq!(passing.storing(0, at(15)), at(20));
        passing.undone();
        assert_eq!(passing.let_pass(0, at(21), true), at(21));
    }

    #[test]
    fn time_waits_for_what_was_handed_over_unless_that_waits_for_room() {
        let passing = TimePassing::default();
        let batch = passing.waits(0, at(8)).unwrap();
        assert_eq!(passing.let_pass(0, at(10), true), at(8));
        assert_eq!(passing.let_pass(0, at(10), false), at(10));
        passing.lock().waiting.remove(&batch);
        assert_eq!(passing.let_pass(0, at(20), true), at(20));
        assert_eq!(passing.waits(1, at(8)), None, "of another era");
    }

    #[test]
    fn what_has_passed_in_another_era_says_nothing() {
        let passing = TimePassing::default();
        passing.let_pass(0, at(1_000), true);
        passing.stored(1);
        assert_eq!(passing.storing(1, at(5)), at(5));
        passing.stored(1);
        assert_eq!(passing.let_pass(0, at(2_000), true), at(2_000), "of a consumer that is behind");
        assert_eq!(passing.storing(1, at(6)), at(6));
    }
}

//! How far arrival time has passed for consumers while nothing came, and how far it may.
//!
//! In: moments that consumers want to let pass, and events that are being stored. Out: how far time passes, and the
//! least arrival that an event may have. Invariant: no event becomes readable that arrived before a moment which a
//! consumer of the same era let pass; a disk may take seconds for a commit, and events may wait for room. Not here:
//! what time does (`engine`), the era of an arrival (`crate::arrival`).

use std::sync::{Mutex, MutexGuard, PoisonError};

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
}

impl TimePassing {
    fn lock(&self) -> MutexGuard<'_, PassedTime> {
        // no code that could panic runs under this lock
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A consumer lets time pass to this moment; how far it may.
    pub fn let_pass(&self, era: u32, to: Timestamp) -> Timestamp {
        let mut passed = self.lock();
        let to = passed.storing.map_or(to, |storing| to.min(storing));
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
        assert_eq!(passing.let_pass(0, at(10)), at(10));
        assert_eq!(passing.storing(0, at(8)), at(10), "it was stamped before, and comes late");
        assert_eq!(passing.storing(0, at(13)), at(13));
        assert_eq!(passing.let_pass(0, at(20)), at(10), "nobody could read it yet");
        passing.stored(0);
        assert_eq!(passing.let_pass(0, at(20)), at(20));
        assert_eq!(passing.storing(0, at(15)), at(20));
        passing.undone();
        assert_eq!(passing.let_pass(0, at(21)), at(21));
    }

    #[test]
    fn what_has_passed_in_another_era_says_nothing() {
        let passing = TimePassing::default();
        passing.let_pass(0, at(1_000));
        passing.stored(1);
        assert_eq!(passing.storing(1, at(5)), at(5));
        passing.stored(1);
        assert_eq!(passing.let_pass(0, at(2_000)), at(2_000), "of a consumer that is behind");
        assert_eq!(passing.storing(1, at(6)), at(6));
    }
}

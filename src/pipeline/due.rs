//! When a part has to commit.
//!
//! In: what was read and what came of it, and the time. Out: whether a commit is due. Invariant: rows and failures are
//! committed at once; a position that moved alone, after [`COMMIT_IDLE`] or [`COMMIT_RECORDS`]. Not here: committing.

use std::time::{Duration, Instant};

/// A commit without rows is due after this time or this many records.
const COMMIT_IDLE: Duration = Duration::from_secs(1);
const COMMIT_RECORDS: u64 = 10_000;

/// What a part did since its last commit.
#[derive(Debug)]
pub struct SinceCommit {
    /// The position that was committed last.
    at: i64,
    committed: Instant,
    records: u64,
}

/// What a part asks with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Everything before this is done with.
    pub position: i64,
    /// Rows or failures wait for the commit.
    pub has_output: bool,
    /// State was let go of, or the part behind waits to learn how late it is.
    pub has_news: bool,
}

impl SinceCommit {
    pub fn new(position: i64, now: Instant) -> SinceCommit {
        SinceCommit { at: position, committed: now, records: 0 }
    }

    /// The position that was committed last.
    pub fn position(&self) -> i64 {
        self.at
    }

    pub fn read(&mut self, records: usize) {
        self.records += records as u64;
    }

    /// `at_end`: nothing more comes, so that whatever is done is due.
    pub fn is_due(&self, done: Done, now: Instant, at_end: bool) -> bool {
        let has_waited = now.saturating_duration_since(self.committed) >= COMMIT_IDLE || self.records >= COMMIT_RECORDS;
        let has_moved = done.position > self.at || done.has_news;
        done.has_output || (has_moved && (has_waited || at_end))
    }

    pub fn committed(&mut self, position: i64, now: Instant) {
        *self = SinceCommit::new(position, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_out_is_committed_at_once_and_the_rest_after_a_second_or_10_000_records() {
        let start = crate::time::Clock::Real.monotonic();
        let after = |millis| start + Duration::from_millis(millis);
        let still = Done { position: 5, ..Done::default() };
        let moved = Done { position: 6, ..Done::default() };
        let told = Done { has_news: true, ..still };
        let rows = Done { has_output: true, ..still };
        let cases: [(Done, u64, u64, bool); 8] = [
            (still, 0, 5_000, false),
            (still, 20_000, 5_000, false),
            (rows, 0, 0, true),
            (moved, 1, 999, false),
            (moved, 1, 1_000, true),
            (moved, 10_000, 0, true),
            (told, 0, 999, false),
            (told, 0, 1_000, true),
        ];
        for (done, records, millis, expected) in cases {
            let mut due = SinceCommit::new(5, start);
            due.read(records as usize);
            assert_eq!(due.is_due(done, after(millis), false), expected, "{done:?}, {records} records, {millis} ms");
            due.committed(done.position, after(millis));
            let again = Done { has_output: false, has_news: false, ..done };
            assert!(!due.is_due(again, after(millis + 5_000), true), "{done:?} again");
        }
        let due = SinceCommit::new(5, start);
        assert!(due.is_due(moved, start, true) && due.is_due(told, start, true) && !due.is_due(still, start, true));
    }
}

//! How old records are, also where the wall clock is set ahead meanwhile.
//!
//! In: both hands of the job's clock, at each look. Out: whether a record is older than an age. Invariant: a record
//! that was there before the wall clock leapt grows older only as monotonic time passes. So what a machine without a
//! clock of its own stored before its time was set right is not thrown away. Leaps back and forth cancel each other: no
//! record is spared for longer than the clock ever was ahead of the first time it told. What an earlier process stored
//! is as old as the clock of the start says. Not here: what becomes of old records (`backlog`).

use std::time::{Duration, Instant};

use crate::time::{Clock, Timestamp};

/// What the wall clock may gain or lose on the monotonic one between two looks without having been set.
const GAIN_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Ages {
    clock: Clock,
    /// At the last look.
    wall: Timestamp,
    monotonic: Instant,
    leapt: Leapt,
}

/// How the wall clock was set.
#[derive(Clone, Copy, Debug)]
struct Leapt {
    /// When it was last seen to be ahead: records that arrived later know the new time.
    until: i64,
    /// How far it was ahead at most of what it told before it was first set.
    ticks: i64,
    /// How far it was set back since it was furthest ahead.
    behind: i64,
    /// When it was set last, ahead or back.
    at: Option<Instant>,
}

const NEVER: Leapt = Leapt { until: i64::MIN, ticks: 0, behind: 0, at: None };

impl Ages {
    pub fn new(clock: Clock) -> Ages {
        Ages { wall: clock.now(), monotonic: clock.monotonic(), clock, leapt: NEVER }
    }

    /// Looks at the clock; gives monotonic time. `longest`: no longer age is asked for.
    pub fn look(&mut self, longest: Duration) -> Instant {
        let (wall, monotonic) = (self.clock.now(), self.clock.monotonic());
        let passed = ticks(monotonic.saturating_duration_since(self.monotonic));
        let gained = wall.ticks().saturating_sub(self.wall.ticks()).saturating_sub(passed);
        if self.leapt.at.is_some_and(|at| monotonic.saturating_duration_since(at) > longest) {
            self.leapt = NEVER;
        }
        if gained.saturating_abs() > ticks(GAIN_MAX) {
            self.leapt.set(gained, wall.ticks(), monotonic);
        }
        (self.wall, self.monotonic) = (wall, monotonic);
        monotonic
    }

    /// What the wall clock told at the last look.
    pub fn wall(&self) -> Timestamp {
        self.wall
    }

    /// No record that arrived from then on is older than `age`; some that arrived before are not either while the wall
    /// clock is ahead of what it told before.
    pub fn keep_from(&self, age: Duration) -> Timestamp {
        self.wall.saturating_add(-ticks(age)).saturating_add(-self.leapt.ahead())
    }

    /// Whether a record that arrived at this moment is older than `age`.
    pub fn is_older(&self, arrival: i64, age: Duration) -> bool {
        let cutoff = self.wall.ticks().saturating_sub(ticks(age));
        let knows_time = arrival >= self.leapt.until;
        arrival < if knows_time { cutoff } else { cutoff.saturating_sub(self.leapt.ahead()) }
    }
}

impl Leapt {
    /// The wall clock gained this, or lost it, and tells `wall` since.
    fn set(&mut self, gained: i64, wall: i64, now: Instant) {
        let behind = self.behind.saturating_sub(gained);
        self.ticks = self.ticks.saturating_add(behind.min(0).saturating_neg());
        self.behind = behind.max(0);
        if gained > 0 {
            self.until = wall;
        }
        self.at = Some(now);
    }

    /// How far the wall clock is ahead of what it told before it was first set.
    fn ahead(self) -> i64 {
        self.ticks.saturating_sub(self.behind).max(0)
    }
}

pub(super) fn ticks(time: Duration) -> i64 {
    i64::try_from(time.as_nanos() / 100).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const DAY: Duration = Duration::from_secs(86_400);
    const AGE: Duration = Duration::from_secs(7 * 86_400);

    fn set_by(clock: &Clock, days: i64) {
        clock.set(clock.now().saturating_add(days * ticks(DAY)));
    }

    #[test]
    fn a_clock_that_is_set_ahead_makes_nothing_old_at_once() {
        let clock = Clock::manual(Timestamp::from_unix_millis(0));
        let mut ages = Ages::new(clock.clone());
        let first = clock.now().ticks();
        clock.advance(2 * HOUR);
        ages.look(AGE);
        set_by(&clock, 10);
        let right = clock.now().ticks();
        ages.look(AGE);
        assert!(!ages.is_older(first, AGE));
        clock.advance(AGE - 2 * HOUR);
        ages.look(AGE);
        assert!(!ages.is_older(first, AGE));
        clock.advance(HOUR);
        ages.look(AGE);
        assert!(ages.is_older(first, AGE), "it waited for a week and an hour");
        assert!(!ages.is_older(first + 2 * ticks(HOUR), AGE) && !ages.is_older(right, AGE));
        clock.advance(HOUR + HOUR);
        ages.look(AGE);
        assert!(
            ages.is_older(first + 2 * ticks(HOUR), AGE) && ages.is_older(right, AGE),
            "the new time has its age too"
        );
        assert_eq!(ages.leapt.at, None, "it does not count for ever");
    }

    #[test]
    fn leaps_back_and_forth_cancel() {
        for (leaps, days_ahead) in [
            (vec![3, -3], 0),
            (vec![-3, 3], 0),
            ([[4, -4]; 50].concat(), 0),
            ([[-4, 4]; 50].concat(), 0),
            ([[4, -4]; 50].concat().into_iter().chain([4]).collect(), 4),
            (vec![2, 2, -1, 1, -4], 0),
            (vec![5, -8, 9, 4], 10),
            // what it was ahead counts, what it is behind makes nothing older
            (vec![5, -8], 0),
        ] {
            let clock = Clock::manual(Timestamp::from_unix_millis(0));
            let mut ages = Ages::new(clock.clone());
            let first = clock.now().ticks();
            for days in &leaps {
                set_by(&clock, *days);
                clock.advance(Duration::from_secs(60));
                ages.look(AGE);
                assert!(!ages.is_older(first, AGE), "{leaps:?}");
            }
            assert_eq!(ages.leapt.ahead(), days_ahead * ticks(DAY), "{leaps:?}");
        }
    }

    #[test]
    fn a_record_grows_old_while_two_time_sources_set_the_clock_back_and_forth() {
        let clock = Clock::manual(Timestamp::from_unix_millis(0));
        let mut ages = Ages::new(clock.clone());
        let first = clock.now().ticks();
        for hour in 0..8 * 24 {
            set_by(&clock, if hour % 2 == 0 { 2 } else { -2 });
            ages.look(AGE);
            let (was_old, is_old) = (hour * HOUR.as_secs() > AGE.as_secs(), ages.is_older(first, AGE));
            assert_eq!(is_old, was_old, "after {hour} hours");
            clock.advance(HOUR);
        }
    }

    #[test]
    fn leaps_add_up_and_a_clock_that_is_put_back_makes_nothing_older() {
        let clock = Clock::manual(Timestamp::from_unix_millis(0));
        let mut ages = Ages::new(clock.clone());
        let first = clock.now().ticks();
        for days in [5, -8, 9, 4] {
            set_by(&clock, days);
            clock.advance(HOUR);
            ages.look(AGE);
            assert!(!ages.is_older(first, AGE), "{days}");
        }
        clock.advance(AGE + HOUR);
        ages.look(AGE);
        assert!(ages.is_older(first, AGE));
    }

    #[test]
    fn a_clock_that_is_only_trimmed_has_not_leapt() {
        let clock = Clock::manual(Timestamp::from_unix_millis(0));
        let mut ages = Ages::new(clock.clone());
        for _ in 0..100 {
            clock.advance(HOUR);
            clock.set(clock.now().saturating_add(ticks(GAIN_MAX)));
            ages.look(AGE);
        }
        assert_eq!(ages.leapt.at, None);
    }
}

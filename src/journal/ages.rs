//! How old records are, also where the wall clock is set ahead meanwhile.
//!
//! In: both hands of the job's clock, at each look. Out: whether a record is older than an age. Invariant: a record that
//! was there before the wall clock leapt grows older only as monotonic time passes. So what a machine without a clock
//! of its own stored before its time was set right is not thrown away. What an earlier process stored is as old as the
//! clock of the start says. Not here: what becomes of old records (`backlog`).

use std::time::{Duration, Instant};

use crate::time::{Clock, Timestamp};

/// What the wall clock may gain on the monotonic one between two looks without having been set.
const GAIN_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Ages {
    clock: Clock,
    /// At the last look.
    wall: Timestamp,
    monotonic: Instant,
    leapt: Leapt,
}

/// How far the wall clock was set ahead.
#[derive(Clone, Copy, Debug)]
struct Leapt {
    /// When that was seen last: records that arrived later know the new time.
    until: i64,
    ticks: i64,
}

const NEVER: Leapt = Leapt { until: i64::MIN, ticks: 0 };

impl Ages {
    pub fn new(clock: Clock) -> Ages {
        Ages { wall: clock.now(), monotonic: clock.monotonic(), clock, leapt: NEVER }
    }

    /// Looks at the clock; gives monotonic time. `longest`: no longer age is asked for.
    pub fn look(&mut self, longest: Duration) -> Instant {
        let (wall, monotonic) = (self.clock.now(), self.clock.monotonic());
        let passed = ticks(monotonic.saturating_duration_since(self.monotonic));
        let gained = wall.ticks().saturating_sub(self.wall.ticks()).saturating_sub(passed);
        if self.leapt.until < wall.ticks().saturating_sub(ticks(longest)) {
            self.leapt = NEVER;
        }
        if gained > ticks(GAIN_MAX) {
            self.leapt = Leapt { until: wall.ticks(), ticks: self.leapt.ticks.saturating_add(gained) };
        }
        (self.wall, self.monotonic) = (wall, monotonic);
        monotonic
    }

    /// Whether a record that arrived at this moment is older than `age`.
    pub fn is_older(&self, arrival: i64, age: Duration) -> bool {
        let cutoff = self.wall.ticks().saturating_sub(ticks(age));
        let knows_time = arrival >= self.leapt.until;
        arrival < if knows_time { cutoff } else { cutoff.saturating_sub(self.leapt.ticks) }
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
        assert_eq!(ages.leapt.ticks, 0, "it does not count for ever");
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
        assert_eq!(ages.leapt.ticks, 0);
    }
}

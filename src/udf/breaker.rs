//! The pause after repeated traps.
//!
//! In: outcomes of calls and a monotonic time. Out: whether the next call may run. Invariant: a function that works is
//! never paused; one that only traps costs at most one call a pause, and the pause doubles up to its end. Not here: a
//! clock but for [`monotonic`]; the caller passes the time.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::time::Clock;

/// Traps in a row that trip it: more than a burst of bad rows, at 100 ms each still only ten seconds.
const TRAPS_IN_A_ROW: u32 = 100;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Long enough to cost nothing, short enough that a mended input is noticed within a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct Breaker {
    in_a_row: u32,
    /// the pause under way or the last one, and its end
    pause: Option<(Duration, Duration)>,
}

impl Breaker {
    /// What is left of a pause at `now`; `None`: the call may run. `now` is only asked for while tripped.
    pub fn paused(&self, now: impl FnOnce() -> Duration) -> Option<Duration> {
        let (_, until) = self.pause?;
        until.checked_sub(now()).filter(|left| !left.is_zero())
    }

    /// The instance came through the call.
    pub fn fine(&mut self) {
        if self.in_a_row > 0 {
            *self = Breaker::default();
        }
    }

    /// The instance was lost. Answers the pause that starts with it, if one does.
    pub fn lost(&mut self, now: impl FnOnce() -> Duration) -> Option<Duration> {
        self.in_a_row = self.in_a_row.saturating_add(1);
        if self.in_a_row < TRAPS_IN_A_ROW {
            return None;
        }
        let pause = self.pause.map_or(FIRST_PAUSE, |(last, _)| (last * 2).min(LONGEST_PAUSE));
        self.pause = Some((pause, now() + pause));
        Some(pause)
    }
}

/// Time since the first call of this function: pauses are measured, never dated.
pub fn monotonic() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    let now = Clock::Real.monotonic();
    now.saturating_duration_since(*START.get_or_init(|| now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trip(breaker: &mut Breaker) {
        for _ in 1..TRAPS_IN_A_ROW {
            assert_eq!(breaker.lost(|| Duration::ZERO), None);
        }
        assert_eq!(breaker.lost(|| Duration::ZERO), Some(FIRST_PAUSE));
    }

    #[test]
    fn one_good_call_in_between_keeps_it_closed() {
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            for _ in 1..TRAPS_IN_A_ROW {
                assert_eq!(breaker.lost(|| Duration::ZERO), None);
            }
            breaker.fine();
        }
        assert_eq!(breaker.paused(|| Duration::ZERO), None);
    }

    #[test]
    fn the_pause_doubles_with_each_call_that_traps_again() {
        let mut breaker = Breaker::default();
        trip(&mut breaker);
        let mut now = Duration::ZERO;
        let mut pause = FIRST_PAUSE;
        for _ in 0..10 {
            assert_eq!(breaker.paused(|| now), Some(pause));
            now += pause;
            assert_eq!(breaker.paused(|| now), None);
            pause = (pause * 2).min(LONGEST_PAUSE);
            assert_eq!(breaker.lost(|| now), Some(pause));
        }
        assert_eq!(pause, LONGEST_PAUSE);
    }

    #[test]
    fn a_good_call_after_the_pause_closes_it() {
        let mut breaker = Breaker::default();
        trip(&mut breaker);
        breaker.fine();
        assert_eq!(breaker.paused(|| Duration::ZERO), None);
        trip(&mut breaker);
    }
}

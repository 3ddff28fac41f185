//! The pause after repeated traps.
//!
//! In: outcomes of calls and a monotonic time. Out: whether the next call may run. Invariant: a function that works is
//! never paused; one that only traps costs at most one call a pause, and the pause doubles up to its end. Not here: a
//! clock but for [`monotonic`]; the caller passes the time.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::time::Clock;

/// Traps in a row that trip it: more than a burst of bad rows, at 100 ms each still only ten seconds.
const TRAPS_IN_A_ROW: u32 = 100;
/// Long enough to cost nothing in the end, short enough that a mended input is noticed within a minute. Nobody else is
/// disturbed by a call, so the steps are taken whole.
const PAUSE: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(60) };

#[derive(Debug, Default)]
pub struct Breaker {
    in_a_row: u32,
    /// End of the pause under way, or of the last one.
    until: Option<Duration>,
}

impl Breaker {
    /// What is left of a pause at `now`; `None`: the call may run. `now` is only asked for while tripped.
    pub fn paused(&self, now: impl FnOnce() -> Duration) -> Option<Duration> {
        self.until?.checked_sub(now()).filter(|left| !left.is_zero())
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
        let before = self.in_a_row.checked_sub(TRAPS_IN_A_ROW)?;
        let pause = PAUSE.step(before + 1);
        self.until = Some(now() + pause);
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

    const S: fn(u64) -> Duration = Duration::from_secs;

    /// How calls end.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        /// This number of calls lose their instance.
        Lost(u32),
        Fine,
        Nothing,
    }

    use Event::{Fine, Lost, Nothing};

    /// A second, what happens then, and what is left of a pause behind it.
    type Line = (u64, Event, Option<Duration>);

    #[test]
    fn traps_in_a_row_pause_a_function_and_one_good_call_closes_it() {
        let all = TRAPS_IN_A_ROW;
        let bursts: &[Line] = &[(0, Lost(all - 1), None), (0, Fine, None), (0, Lost(all - 1), None), (0, Fine, None)];
        let doubles: &[Line] = &[
            (0, Lost(all), Some(S(1))),
            (1, Nothing, None),
            (1, Lost(1), Some(S(2))),
            (2, Nothing, Some(S(1))),
            (3, Lost(1), Some(S(4))),
            (7, Lost(1), Some(S(8))),
            (15, Lost(1), Some(S(16))),
            (31, Lost(1), Some(S(32))),
            (63, Lost(1), Some(S(60))),
            (123, Lost(1), Some(S(60))),
            (183, Nothing, None),
        ];
        let closes: &[Line] = &[
            (0, Lost(all + 3), Some(S(8))),
            (8, Fine, None),
            // and the next pause is the first again
            (8, Lost(all - 1), None),
            (9, Lost(1), Some(S(1))),
        ];
        for (name, table) in [("bursts", bursts), ("doubles", doubles), ("closes", closes)] {
            let mut breaker = Breaker::default();
            for (i, (at, event, left)) in table.iter().copied().enumerate() {
                match event {
                    Lost(calls) => {
                        let pause = (0..calls).fold(None, |_, _| breaker.lost(|| S(at)));
                        assert_eq!(pause, left, "{name}, line {i}: what is told");
                    }
                    Fine => breaker.fine(),
                    Nothing => {}
                }
                assert_eq!(breaker.paused(|| S(at)), left, "{name}, line {i}: {at} {event:?}");
            }
        }
    }
}

//! When to try a broker again.
//!
//! In: the number of attempts that came to nothing, a random number. Out: how long to wait. Invariant: the wait lies
//! between half and all of a doubling step, so that a fleet does not come back in one moment. Not here: sleeping.

use std::time::Duration;

/// First step: a broker that restarts is back within moments.
const FIRST: Duration = Duration::from_millis(100);
/// Longest step: an operator who repairs something should see it work within half a minute.
const LONGEST: Duration = Duration::from_secs(30);
/// A connection that held this long was a good one: the next loss starts from the first step again.
pub const GOOD_AFTER: Duration = Duration::from_secs(5);

/// Counts attempts that came to nothing.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait before the next attempt, after a connection that held for `held` (zero: it never came about).
    pub fn after(&mut self, held: Duration) -> Duration {
        if held >= GOOD_AFTER {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        wait(self.failures, fastrand::f64())
    }

    /// The next wait is the shortest again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The wait after `failures` failed attempts; `random` is in 0 … 1.
fn wait(failures: u32, random: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let step = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    step.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_with_jitter() {
        assert_eq!(wait(1, 1.0), FIRST);
        assert_eq!(wait(1, 0.0), FIRST / 2);
        assert_eq!(wait(3, 1.0), FIRST * 4);
        assert_eq!(wait(u32::MAX, 1.0), LONGEST);
        assert_eq!(wait(u32::MAX, 0.0), LONGEST / 2);
    }

    #[test]
    fn a_connection_that_held_starts_over() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            backoff.after(Duration::ZERO);
        }
        assert!(backoff.after(Duration::from_secs(1)) >= LONGEST / 2);
        assert!(backoff.after(GOOD_AFTER) <= FIRST);
    }
}

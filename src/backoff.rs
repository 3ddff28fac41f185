//! When to try again.
//!
//! In: how often something failed in a row, a random number, what the other end asked for. Out: how long to wait.
//! Invariant: a wait is never shorter than what the other end asked for, and never longer than the greater of that and
//! the cap. What disturbs nobody else needs no jitter and waits whole [`Backoff::step`]s. Not here: sleeping, what is
//! tried again.

use std::time::Duration;

/// What held this long was good: the next failure counts as the first.
pub const GOOD_AFTER: Duration = Duration::from_secs(5);

/// Waits that double with the failures in a row. Each lies anywhere between nothing and its step ("full jitter"), so
/// that a fleet does not come back in one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest first wait.
    pub base: Duration,
    /// The longest wait.
    pub cap: Duration,
}

impl Backoff {
    /// For a broker, which is back within moments when it restarts; an operator who repairs something sees it work
    /// within half a minute.
    pub const BROKER: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(30) };
    /// For an HTTP endpoint.
    pub const ENDPOINT: Backoff = Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(60) };
    /// For an address that is asked for a whole table.
    pub const TABLE: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(60) };

    /// The longest wait after failure number `failures` (the first is 1).
    pub fn step(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.base.saturating_mul(1u32 << doublings).min(self.cap)
    }

    /// The wait after failure number `failures` (the first is 1). `random` is in `[0, 1)`.
    pub fn wait(&self, failures: u32, random: f64, asked: Option<Duration>) -> Duration {
        self.step(failures).mul_f64(random.clamp(0.0, 1.0)).max(asked.unwrap_or_default())
    }
}

/// Counts failures in a row.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    backoff: Backoff,
    failures: u32,
}

impl Retry {
    pub fn new(backoff: Backoff) -> Retry {
        Retry { backoff, failures: 0 }
    }

    /// The wait before the next attempt, after one that came to nothing.
    pub fn failed(&mut self) -> Duration {
        self.failed_and_asked(None)
    }

    /// As [`Retry::failed`]; the other end asked for a pause of its own.
    pub fn failed_and_asked(&mut self, asked: Option<Duration>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.backoff.wait(self.failures, fastrand::f64(), asked)
    }

    /// As [`Retry::failed`]; what was lost had held for `held`, and counts as a success when that was long enough.
    pub fn lost_after(&mut self, held: Duration) -> Duration {
        if held >= GOOD_AFTER {
            self.succeeded();
        }
        self.failed()
    }

    /// The next failure counts as the first.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_double_up_to_the_cap() {
        for (backoff, steps) in [
            (Backoff::ENDPOINT, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]),
            (Backoff::BROKER, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600]),
            (Backoff::TABLE, [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]),
        ] {
            let longest: Vec<u128> = (1..=9).map(|n| backoff.step(n).as_millis()).collect();
            assert_eq!(longest, steps);
            assert_eq!(backoff.wait(3, 1.0, None), backoff.step(3));
            assert_eq!(backoff.wait(3, 0.0, None), Duration::ZERO);
            assert_eq!(backoff.wait(u32::MAX, 1.0, None), backoff.cap);
        }
        assert_eq!(Backoff::ENDPOINT.wait(1, 0.5, Some(Duration::from_secs(2))), Duration::from_secs(2));
        assert_eq!(Backoff::ENDPOINT.wait(1, 0.5, None), Duration::from_millis(250));
    }

    #[test]
    fn a_success_and_what_held_long_enough_start_over() {
        let short = Duration::from_millis(100);
        let tired = || {
            let mut retry = Retry::new(Backoff::BROKER);
            for _ in 0..20 {
                retry.failed();
            }
            retry
        };
        let longest = |before: Retry, next: fn(&mut Retry) -> Duration| {
            (0..1000).fold(Duration::ZERO, |longest, _| longest.max(next(&mut { before })))
        };
        assert!(longest(tired(), Retry::failed) > short);
        assert!(longest(tired(), |r| r.lost_after(GOOD_AFTER - Duration::from_millis(1))) > short);
        assert!(longest(tired(), |r| r.lost_after(GOOD_AFTER)) <= short);
        let mut retry = tired();
        retry.succeeded();
        assert!(longest(retry, Retry::failed) <= short);
    }

    proptest! {
        #[test]
        fn a_wait_stays_between_what_was_asked_for_and_the_cap(
            failures in any::<u32>(),
            random in 0.0..1.0f64,
            asked in proptest::option::of(0u64..3600),
        ) {
            let asked = asked.map(Duration::from_secs);
            let wait = Backoff::ENDPOINT.wait(failures, random, asked);
            prop_assert!(wait >= asked.unwrap_or_default());
            prop_assert!(wait <= Duration::from_secs(60).max(asked.unwrap_or_default()));
        }
    }
}

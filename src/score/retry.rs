//! When to try again.
//!
//! In: how often something failed, a random number, what the server asked for. Out: a wait. Invariant: never longer than
//! the cap or an accepted `Retry-After`, never shorter than the latter. Not here: a clock, a source of randomness, what
//! is retried.

use std::time::Duration;

use crate::time::{Civil, Timestamp};

/// A longer `Retry-After` is not believed.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Waits that grow with the failures in a row, spread over their whole length so that senders do not march in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest first wait.
    pub base: Duration,
    /// The longest wait.
    pub cap: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(60) }
    }
}

impl Backoff {
    /// The wait after failure number `failures` (the first is 1). `random` is in `[0, 1)`.
    pub fn wait(&self, failures: u32, random: f64, retry_after: Option<Duration>) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let longest = self.base.saturating_mul(1u32 << doublings).min(self.cap);
        longest.mul_f64(random.clamp(0.0, 1.0)).max(retry_after.unwrap_or_default())
    }
}

/// Reads a `Retry-After`: seconds, or an HTTP date. `now` is the server's own `Date` where it sent one: a gateway's
/// clock may be far off. `None` when it does not read, or asks for more than an hour.
pub fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let ticks = http_date(text)?.ticks().saturating_sub(now.ticks()).max(0);
            Duration::from_nanos(u64::try_from(ticks).ok()?.saturating_mul(100))
        }
    };
    (wait <= RETRY_AFTER_MAX).then_some(wait)
}

/// Reads `Sun, 06 Nov 1994 08:49:37 GMT`, the only form that servers may send.
pub fn http_date(text: &str) -> Option<Timestamp> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.trim().split_once(", ")?;
    let mut parts = rest.split_ascii_whitespace();
    let day = parts.next()?.parse().ok()?;
    let name = parts.next()?;
    let month = MONTHS.iter().zip(1..).find(|(m, _)| **m == name)?.1;
    let year = parts.next()?.parse().ok()?;
    let mut clock = parts.next()?.splitn(3, ':').map(str::parse::<i64>);
    let mut next = || clock.next()?.ok();
    let (hour, minute, second) = (next()?, next()?, next()?);
    if parts.next() != Some("GMT") {
        return None;
    }
    // a leap second is the second after it
    Timestamp::from_civil(Civil { year, month, day, hour, minute, second: second.min(59), ticks: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn seconds_dates_and_what_is_ignored() {
        let now = Timestamp::parse("1994-11-06T08:49:30Z").unwrap();
        for (text, expected) in [
            ("7", Some(7)),
            (" 3600 ", Some(3600)),
            ("3601", None),
            ("0", Some(0)),
            ("-1", None),
            ("2.5", None),
            ("soon", None),
            ("", None),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 10:49:37 GMT", None),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("Sun", None),
            ("06 Nov 1994 08:49:37 GMT", None),
        ] {
            assert_eq!(retry_after(text, now), expected.map(Duration::from_secs), "{text:?}");
        }
    }

    #[test]
    fn waits_double_up_to_the_cap() {
        let backoff = Backoff::default();
        let longest: Vec<u128> = (1..=9).map(|n| backoff.wait(n, 1.0, None).as_millis()).collect();
        assert_eq!(longest, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(backoff.wait(3, 0.0, None), Duration::ZERO);
        assert_eq!(backoff.wait(1, 0.5, Some(Duration::from_secs(2))), Duration::from_secs(2));
    }

    proptest! {
        #[test]
        fn a_wait_stays_between_retry_after_and_the_cap(failures in any::<u32>(), random in 0.0..1.0f64, asked in proptest::option::of(0u64..3600)) {
            let asked = asked.map(Duration::from_secs);
            let wait = Backoff::default().wait(failures, random, asked);
            prop_assert!(wait >= asked.unwrap_or_default());
            prop_assert!(wait <= Duration::from_secs(60).max(asked.unwrap_or_default()));
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".{0,40}") {
            let _ = retry_after(&text, Timestamp::MIN);
        }
    }
}

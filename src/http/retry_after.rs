//! When a server wants to be asked again.
//!
//! In: the text of `Retry-After`, and the time at which it was sent. Out: a wait of at most an hour. Invariant: no text
//! makes reading panic. Not here: a clock, what is tried again.

use std::time::Duration;

use crate::time::{Civil, Timestamp};

/// A longer `Retry-After` is not believed.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

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

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,40}") {
            let _ = retry_after(&text, Timestamp::MIN);
        }
    }
}

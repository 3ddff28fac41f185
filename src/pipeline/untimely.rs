//! Tells a person of events that the early or the late rule drops.
//!
//! In: how many a statement dropped since it was last asked, and the first of them. Out: a line in the log at once, and
//! one a minute while it goes on. Invariant: each such event is in the number of one line, but those of the last
//! minute. Not here: the rules (`engine`), the counters (`flow`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::UntimelyEvent;

/// Between two lines of a statement.
const INTERVAL: Duration = Duration::from_secs(60);

/// What a statement has dropped; clones are of the same statement.
#[derive(Clone, Debug, Default)]
pub struct Untimely(Arc<Mutex<Untold>>);

#[derive(Debug, Default)]
struct Untold {
    events: u64,
    told: Option<Instant>,
}

impl Untimely {
    /// `n` more were dropped; whether that was told.
    pub fn tell(&self, statement: &str, n: u64, first: &UntimelyEvent, now: Instant) -> bool {
        let mut untold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        untold.events += n;
        if untold.told.is_some_and(|told| now.saturating_duration_since(told) < INTERVAL) {
            return false;
        }
        let UntimelyEvent { reason, input, message, time, arrival } = first;
        let remedy = match *reason {
            "early" => "set the device's clock right, or this machine's",
            _ => {
                "set the device's clock right, or this machine's; raise late_tolerance if the way is slow, or set \
                 out_of_order_policy = \"adjust\" to keep such events"
            }
        };
        tracing::warn!(
            statement,
            dropped = untold.events,
            input = %input,
            topic = %message,
            event_time = %time,
            arrival = %arrival,
            "events are dropped because they are too {reason} (counted in statement_failed): {remedy}"
        );
        *untold = Untold { events: 0, told: Some(now) };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Clock, Timestamp};

    #[test]
    fn a_line_at_once_and_one_a_minute() {
        let clock = Clock::manual(Timestamp::MIN);
        let first = UntimelyEvent {
            reason: "late",
            input: "a".into(),
            message: "t/1".into(),
            time: Timestamp::MIN,
            arrival: Timestamp::MIN,
        };
        let untimely = Untimely::default();
        let mut told = Vec::new();
        for second in 0..=120 {
            if untimely.tell("s", 1, &first, clock.monotonic()) {
                told.push(second);
            }
            clock.advance(Duration::from_secs(1));
        }
        assert_eq!(told, [0, 60, 120]);
        assert_eq!(untimely.0.lock().unwrap().events, 0, "all are told");
    }
}

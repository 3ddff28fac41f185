//! Counters and state of a source, for metrics and health.
//!
//! In: what the source does. Out: numbers that anybody may read at any time. Invariant: every received message is in
//! exactly one of handed over, `redelivered`, `unmatched`, `lost_qos0`. Not here: how they are exported.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counts since the process started.
#[derive(Debug, Default)]
pub struct SourceStats {
    /// publishes that arrived, whatever became of them
    pub received: AtomicU64,
    /// sent again by the broker although stored: acknowledged, not handed over
    pub redelivered: AtomicU64,
    /// sent again by the broker, handed over because nothing tells whether they were stored
    pub redelivered_possible: AtomicU64,
    /// times the broker had lost the session and the topics were subscribed again
    pub resubscribed: AtomicU64,
    pub connects: AtomicU64,
    pub disconnects: AtomicU64,
    /// QoS 0 messages that found no room or were not stored
    pub lost_qos0: AtomicU64,
    /// messages of topics that the job does not name any more: acknowledged, not handed over
    pub unmatched: AtomicU64,
    /// times reading stopped because too much was received and not stored
    pub stalls: AtomicU64,
    /// bytes received and not stored
    pub unacked_bytes: AtomicU64,
    connected: AtomicBool,
    /// The log says that the input is connected, and nothing since that it is not.
    told_connected: AtomicBool,
    alarm: Mutex<Option<Alarm>>,
}

/// What it takes for an alarm to be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::source) enum Until {
    /// the broker accepts us
    Accepted,
    /// the broker accepts our subscription
    Subscribed,
    /// a connection is back; it is still known until that holds for a while, so that the log tells it once, however
    /// often a connection comes and goes
    Back,
    /// a connection holds for a while: what ended the one before is likely to end this one too
    Steady,
}

#[derive(Debug)]
struct Alarm {
    text: String,
    until: Until,
}

impl SourceStats {
    /// Whether the broker has accepted the connection and it still stands.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// What is wrong and what to do about it; `None` while all is well.
    pub fn alarm(&self) -> Option<String> {
        let alarm = self.alarm.lock().unwrap_or_else(PoisonError::into_inner);
        let lasts = |alarm: &&Alarm| alarm.until != Until::Back || !self.is_connected();
        alarm.as_ref().filter(lasts).map(|alarm| alarm.text.clone())
    }

    pub(in crate::source) fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
    }

    /// Raises an alarm; logged only when it says something new, however often it is tried again.
    pub(in crate::source) fn raise(&self, who: &str, text: String, until: Until) {
        let mut alarm = self.alarm.lock().unwrap_or_else(PoisonError::into_inner);
        if alarm.as_ref().is_none_or(|a| a.text != text) {
            tracing::warn!(broker = who, "{text}");
            self.told_connected.store(false, Ordering::Relaxed);
        }
        *alarm = Some(Alarm { text, until });
    }

    /// Says in the log that the input is connected: once, until something new is wrong, however often a connection
    /// comes and goes.
    pub(in crate::source) fn tell_connected(&self, who: &str, how: &str) {
        if !self.told_connected.swap(true, Ordering::Relaxed) {
            tracing::info!(broker = who, "connected, {how}");
        }
    }

    /// What `until` stands for has come about.
    pub(in crate::source) fn clear(&self, who: &str, until: Until) {
        let mut alarm = self.alarm.lock().unwrap_or_else(PoisonError::into_inner);
        if alarm.take_if(|a| a.until == until).is_some() {
            tracing::info!(broker = who, "all is well again");
        }
    }
}

/// Adds to a counter.
pub(in crate::source) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_over_with_the_return_and_a_cause_that_comes_back_is_not() {
        let stats = SourceStats::default();
        for (until, when_back) in [(Until::Back, None), (Until::Steady, Some("lost"))] {
            stats.set_connected(false);
            stats.raise("broker", "lost".to_owned(), until);
            assert_eq!(stats.alarm().as_deref(), Some("lost"), "{until:?}");
            stats.set_connected(true);
            assert_eq!(stats.alarm().as_deref(), when_back, "{until:?}");
            stats.set_connected(false);
            assert_eq!(stats.alarm().as_deref(), Some("lost"), "{until:?}: lost again before it held for a while");
            stats.set_connected(true);
            stats.clear("broker", until);
            stats.set_connected(false);
            assert_eq!(stats.alarm(), None, "{until:?}");
        }
    }
}

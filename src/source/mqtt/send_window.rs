//! How much a broker sends before it waits for acknowledgements.
//!
//! In: what was received and is not acknowledged yet. Out: how soon it has to be stored. Invariant: a broker that has
//! sent all it sends does not wait for the write budget, nor for the pause between two commits, once that number is
//! known. Not here: reading, storing.
//!
//! In MQTT 5 we tell the broker how much it may send. Many send less at once (EMQX 32 messages, AWS IoT Core 100), and
//! MQTT 3.1.1 has no word for it. So it is learned: a broker that several times sends the same number of messages, then
//! nothing until it hears from us, has such a bound.

use std::time::Duration;

use tokio::time::Instant;

use crate::batch::Urgency;
use crate::mqtt::Protocol;

/// What mosquitto sends at once in MQTT 3.1.1, by its documentation. It may be more.
const V311_MESSAGES: usize = 20;
/// A smaller number may be a quiet stream's.
const LEARNED_MIN: usize = 4;
/// This number of times in a row.
const TIMES: u32 = 3;
/// A broker that says nothing for this long waits, if that is longer too than what it sent took to come.
const SILENCE: Duration = Duration::from_millis(5);
/// Then it is learned again: a burst may have looked like a bound.
const LEARNED_FOR: Duration = Duration::from_secs(10);

/// Of one connection.
#[derive(Debug)]
pub(super) struct SendWindow {
    /// Where a broker is about to wait that sends all it may.
    messages: usize,
    /// Where reading stops.
    bytes: usize,
    told: Option<usize>,
    /// What came since an acknowledgement: when it began and ended, and all that was under way then.
    burst: Option<Burst>,
    /// What was under way when it fell silent, and how many times in a row.
    silent_at: (usize, u32),
    learned: Option<(usize, Instant)>,
}

#[derive(Clone, Copy, Debug)]
struct Burst {
    began: Instant,
    ended: Instant,
    under_way: usize,
}

impl SendWindow {
    /// `receive_maximum`: messages, told to the broker in MQTT 5. `bytes`: where reading stops.
    pub fn new(protocol: Protocol, receive_maximum: u16, bytes: usize) -> SendWindow {
        let told = matches!(protocol, Protocol::V5).then(|| usize::from(receive_maximum));
        let messages = told.unwrap_or(V311_MESSAGES);
        SendWindow { messages, bytes, told, burst: None, silent_at: (0, 0), learned: None }
    }

    /// Messages came: this number was under way before, and this is with them.
    pub fn received(&mut self, before: usize, under_way: usize, now: Instant) {
        if self.learned.is_some_and(|(most, since)| under_way > most || now.duration_since(since) >= LEARNED_FOR) {
            (self.learned, self.silent_at) = (None, (0, 0));
        }
        match self.burst.filter(|burst| before >= burst.under_way) {
            Some(burst) => self.burst = Some(Burst { ended: now, under_way, ..burst }),
            None => {
                if let Some(burst) = self.burst {
                    self.acknowledged(burst, now);
                }
                self.burst = Some(Burst { began: now, ended: now, under_way });
            }
        }
    }

    /// It goes on after an acknowledgement of what was under way.
    fn acknowledged(&mut self, burst: Burst, now: Instant) {
        let (took, silent) = (burst.ended.duration_since(burst.began), now.duration_since(burst.ended));
        if silent < SILENCE.max(2 * took) {
            return;
        }
        let (at, times) = self.silent_at;
        self.silent_at = (burst.under_way, if at == burst.under_way { times + 1 } else { 1 });
        if self.silent_at.1 >= TIMES && burst.under_way >= LEARNED_MIN && self.learned.is_none() {
            self.learned = Some((burst.under_way, now));
        }
    }

    /// How soon this has to be stored: messages received and not acknowledged, bytes received and not stored.
    pub fn urgency(&self, messages: usize, bytes: usize) -> Urgency {
        let is_full = self.told.is_some_and(|most| messages >= most);
        if is_full || self.learned.is_some_and(|(most, _)| messages >= most) || bytes >= self.bytes {
            Urgency::AtOnce
        } else if messages >= self.messages.div_ceil(2) || bytes >= self.bytes / 2 {
            Urgency::Soon
        } else {
            Urgency::InBudget
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::task_now;

    const BYTES: usize = 10_000;

    fn v5() -> SendWindow {
        SendWindow::new(Protocol::V5, 1000, BYTES)
    }

    /// Runs of messages that come one every `gap`, each followed by a silence after which all of them are acknowledged.
    fn runs(
        window: &mut SendWindow,
        start: Instant,
        messages: usize,
        gap: Duration,
        silence: Duration,
        times: u32,
    ) -> Instant {
        let mut now = start;
        for _ in 0..times {
            for under_way in 0..messages {
                window.received(under_way, under_way + 1, now);
                now += gap;
            }
            now += silence;
        }
        now
    }

    #[test]
    fn a_full_window_is_stored_at_once_and_half_of_one_soon() {
        let one = || SendWindow::new(Protocol::V5, 1, BYTES);
        let v311 = || SendWindow::new(Protocol::V311, 1000, BYTES);
        for (window, messages, bytes, expected) in [
            (v5(), 0, 0, Urgency::InBudget),
            (v5(), 499, 4_999, Urgency::InBudget),
            (v5(), 500, 0, Urgency::Soon),
            (v5(), 1, 5_000, Urgency::Soon),
            (v5(), 999, 9_999, Urgency::Soon),
            (v5(), 1000, 0, Urgency::AtOnce),
            (v5(), 1, 10_000, Urgency::AtOnce),
            (one(), 1, 100, Urgency::AtOnce),
            (v311(), 9, 0, Urgency::InBudget),
            (v311(), 10, 0, Urgency::Soon),
            (v311(), 1_000, 0, Urgency::Soon),
        ] {
            assert_eq!(window.urgency(messages, bytes), expected, "{window:?}: {messages} messages, {bytes} bytes");
        }
    }

    #[test]
    fn a_broker_that_waits_at_a_number_of_its_own_is_learned() {
        let (fast, wait) = (Duration::from_micros(50), Duration::from_millis(20));
        for mut window in [v5(), SendWindow::new(Protocol::V311, 1000, BYTES)] {
            let now = runs(&mut window, task_now(), 32, fast, wait, 3);
            assert_ne!(window.urgency(32, 0), Urgency::AtOnce, "three silences are needed");
            let now = runs(&mut window, now, 1, fast, wait, 1);
            assert_ne!(window.urgency(31, 0), Urgency::AtOnce);
            assert_eq!(window.urgency(32, 0), Urgency::AtOnce);
            // more than that at once
            window.received(32, 33, now);
            assert_ne!(window.urgency(33, 0), Urgency::AtOnce);
        }
    }

    #[test]
    fn what_was_learned_is_learned_anew_after_a_while() {
        let (fast, wait) = (Duration::from_micros(50), Duration::from_millis(20));
        let mut window = v5();
        let start = task_now();
        let now = runs(&mut window, start, 32, fast, wait, 4);
        assert_eq!(window.urgency(32, 0), Urgency::AtOnce);
        // stored at once from here on: no silence
        let now = runs(&mut window, now, 32, fast, Duration::from_millis(1), 200);
        assert_eq!(window.urgency(32, 0), Urgency::AtOnce);
        window.received(0, 1, now + LEARNED_FOR);
        assert_ne!(window.urgency(32, 0), Urgency::AtOnce);
    }

    #[test]
    fn a_steady_stream_and_runs_of_many_sizes_teach_nothing() {
        let mut steady = v5();
        runs(&mut steady, task_now(), 15, Duration::from_millis(10), Duration::ZERO, 100);
        assert_eq!(steady.urgency(15, 0), Urgency::InBudget);
        let mut uneven = v5();
        let mut now = task_now();
        for messages in (5..60).chain(5..60) {
            now = runs(&mut uneven, now, messages, Duration::from_micros(50), Duration::from_millis(100), 1);
        }
        assert_eq!(uneven.urgency(60, 0), Urgency::InBudget);
        let mut quiet = v5();
        runs(&mut quiet, task_now(), 1, Duration::ZERO, Duration::from_secs(1), 100);
        assert_eq!(quiet.urgency(1, 0), Urgency::InBudget);
    }
}

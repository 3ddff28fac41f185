//! When an endpoint is asked for its description.
//!
//! In: what came of asking, and why somebody wants to know. Out: when to ask next. Invariant: at most one question is
//! out, and whatever the endpoint answers, questions that nobody repaired anything for are at least a pause apart. Not
//! here: asking (`http`), what the description says.

use std::time::Duration;

use super::breaker::Pauses;

/// See the module. Times are since the scorer's start.
#[derive(Clone, Debug)]
pub struct Fetching {
    pauses: Pauses,
    /// The signature is in the job file: nothing is asked.
    is_written: bool,
    /// How often it is read anew; `None`: only where something is wrong.
    refresh: Option<Duration>,
    due: Option<Duration>,
    is_out: bool,
    /// When it was asked last.
    asked: Option<Duration>,
    failures: u32,
    /// There was no connection: it is asked when one comes about.
    waits_for_connection: bool,
    /// The endpoint has none.
    is_absent: bool,
}

impl Fetching {
    /// `is_written`: the signature is in the job file, and nothing is asked.
    pub fn new(pauses: Pauses, refresh: Option<Duration>, is_written: bool) -> Fetching {
        Fetching {
            pauses,
            is_written,
            refresh,
            due: (!is_written).then_some(Duration::ZERO),
            is_out: false,
            asked: None,
            failures: 0,
            waits_for_connection: false,
            is_absent: false,
        }
    }

    /// When to look again whether to ask.
    pub fn wake(&self) -> Option<Duration> {
        self.due.filter(|_| !self.is_out)
    }

    /// Whether to ask now; the question counts as asked then.
    pub fn asks(&mut self, now: Duration) -> bool {
        if self.is_out || self.due.is_none_or(|due| due > now) {
            return false;
        }
        (self.due, self.is_out, self.asked) = (None, true, Some(now));
        self.waits_for_connection = false;
        true
    }

    /// Something is wrong that another description may explain.
    pub fn doubt(&mut self, now: Duration) {
        let next = self.asked.map_or(now, |asked| asked + self.pauses.slow_probe.mul_f64(0.5));
        self.ask_by(now.max(next));
    }

    /// Somebody has perhaps repaired something.
    pub fn ask_now(&mut self, now: Duration) {
        self.ask_by(now);
    }

    /// Whether it is asked as soon as a connection comes about.
    pub fn waits_for_connection(&self) -> bool {
        self.waits_for_connection
    }

    /// A connection came about.
    pub fn connected(&mut self, now: Duration) {
        if std::mem::take(&mut self.waits_for_connection) {
            self.ask_by(now);
        }
    }

    fn ask_by(&mut self, at: Duration) {
        if self.is_written {
            return;
        }
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// It described itself. `random` is in `[0, 1)`.
    pub fn described(&mut self, now: Duration, random: f64) {
        (self.is_out, self.failures, self.is_absent) = (false, 0, false);
        self.ask_later(now, random);
    }

    /// It has no description. `is_trusted`: rows go without one from now on.
    pub fn absent(&mut self, now: Duration, is_trusted: bool, random: f64) {
        (self.is_out, self.failures) = (false, 0);
        self.is_absent |= is_trusted;
        self.ask_later(now, random);
    }

    fn ask_later(&mut self, now: Duration, random: f64) {
        if let Some(refresh) = self.refresh {
            self.ask_by(now + refresh.mul_f64(0.75 + 0.5 * random));
        }
    }

    /// Asking failed. `is_unreachable`: no connection came about. The number of failures in a row comes back.
    pub fn failed(&mut self, now: Duration, is_unreachable: bool, random: f64) -> u32 {
        self.is_out = false;
        self.failures = self.failures.saturating_add(1);
        match is_unreachable {
            true => self.waits_for_connection = true,
            false => self.ask_by(now + self.pauses.backoff.wait(self.failures, random, None)),
        }
        self.failures
    }

    /// The endpoint has no deployment (404). `true`: without one there is no description either, so what took its place
    /// is not to be trusted, and it is asked again behind a pause.
    pub fn undeployed(&mut self, now: Duration, random: f64) -> bool {
        let was_absent = std::mem::take(&mut self.is_absent);
        if was_absent {
            self.ask_by(now + self.pauses.slow(random));
        }
        was_absent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::Backoff;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn pauses() -> Pauses {
        Pauses { backoff: Backoff { base: S(1), cap: S(60) }, slow_probe: S(60), knock: S(2) }
    }

    #[test]
    fn doubts_ask_at_once_and_then_a_pause_apart() {
        let mut fetching = Fetching::new(pauses(), None, false);
        let mut asked = Vec::new();
        for second in 0..100 {
            fetching.doubt(S(second));
            if fetching.asks(S(second)) {
                asked.push(second);
                fetching.described(S(second), 0.5);
            }
        }
        assert_eq!(asked, [0, 30, 60, 90]);
    }

    #[test]
    fn without_a_connection_it_is_asked_when_one_comes_about() {
        let mut fetching = Fetching::new(pauses(), None, false);
        assert!(fetching.asks(S(0)) && !fetching.asks(S(0)));
        assert_eq!(fetching.failed(S(1), true, 0.5), 1);
        assert_eq!(fetching.wake(), None);
        fetching.connected(S(500));
        assert!(fetching.asks(S(500)));
        assert_eq!(fetching.failed(S(501), false, 1.0), 2);
        fetching.connected(S(501));
        assert_eq!(fetching.wake(), Some(S(503)));
    }

    #[test]
    fn what_is_written_is_never_asked_for_and_what_is_read_is_read_anew() {
        let mut written = Fetching::new(pauses(), Some(S(3_600)), true);
        assert!(!written.asks(S(1_000_000)));
        written.doubt(S(0));
        written.ask_now(S(0));
        assert_eq!(written.wake(), None);
        let mut read = Fetching::new(pauses(), Some(S(3_600)), false);
        assert!(read.asks(S(0)));
        read.absent(S(0), true, 0.5);
        assert_eq!(read.wake(), Some(S(3_600)));
        assert!(read.undeployed(S(10), 0.5) && !read.undeployed(S(10), 0.5));
        assert_eq!(read.wake(), Some(S(70)));
    }
}

//! How much may be sent to an endpoint, and whether anything at all: one gate and one limit for all batches.
//!
//! In: how requests ended, in any order, with the time. Out: whether the next may go. Invariant: while the gate is
//! closed, at most one request at a time finds out whether the endpoint is back; answers to requests sent before it
//! closed neither open it nor count again. Not here: a clock, what the answers mean.

use std::time::Duration;

use super::policy::Blocked;
use crate::backoff::Backoff;

/// Parallel requests at the start: what a stock managed deployment of one instance admits.
const PARALLEL_START: u32 = 2;

/// Why the gate is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It will pass by itself.
    Backoff,
    /// Somebody has to repair something.
    Blocked(Blocked),
}

/// Whether a request may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Open,
    /// One request, to see whether the endpoint is back.
    Probe,
    Closed,
}

/// A closed gate. Times are since the scorer's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    pub cause: Cause,
    pub since: Duration,
    pub until: Duration,
    /// Requests before this one were sent while the gate was open.
    first_after: u64,
}

#[derive(Clone, Debug)]
pub struct Gate {
    backoff: Backoff,
    slow_probe: Duration,
    closed: Option<Closed>,
    probe: Option<u64>,
    failures: u32,
    last_sent: u64,
}

impl Gate {
    /// `slow_probe`: how long to wait between looks at an endpoint that somebody has to repair.
    pub fn new(backoff: Backoff, slow_probe: Duration) -> Gate {
        Gate { backoff, slow_probe, closed: None, probe: None, failures: 0, last_sent: 0 }
    }

    pub fn admission(&self, now: Duration) -> Admission {
        match self.closed {
            None => Admission::Open,
            Some(closed) if self.probe.is_none() && closed.until <= now => Admission::Probe,
            Some(_) => Admission::Closed,
        }
    }

    pub fn closed(&self) -> Option<&Closed> {
        self.closed.as_ref()
    }

    /// When a closed gate lets the next request through; `None` while open or while a request is looking.
    pub fn opens_at(&self) -> Option<Duration> {
        self.closed.filter(|_| self.probe.is_none()).map(|closed| closed.until)
    }

    /// Notes that request `id` (ascending) was sent.
    pub fn sent(&mut self, id: u64) {
        self.last_sent = self.last_sent.max(id);
        if self.closed.is_some() {
            self.probe = Some(id);
        }
    }

    pub fn is_probe(&self, id: u64) -> bool {
        self.probe == Some(id)
    }

    /// Request `id` was answered as by a working endpoint.
    pub fn passed(&mut self, id: u64) {
        if self.closed.is_none() || self.is_probe(id) {
            self.open();
        }
    }

    /// Request `id` says that the endpoint cannot be used. `random` is in `[0, 1)`.
    pub fn failed(&mut self, now: Duration, id: u64, cause: Cause, random: f64, retry_after: Option<Duration>) {
        if let Some(closed) = &mut self.closed
            && id < closed.first_after
        {
            closed.until = closed.until.max(now + retry_after.unwrap_or_default());
            return;
        }
        self.failures = self.failures.saturating_add(1);
        let wait = match cause {
            Cause::Backoff => self.backoff.wait(self.failures, random, retry_after),
            Cause::Blocked(_) => self.slow_probe.max(retry_after.unwrap_or_default()),
        };
        self.close(now, cause, wait);
    }

    /// Closes for `wait`, whatever came before.
    pub fn close(&mut self, now: Duration, cause: Cause, wait: Duration) {
        let since = self.closed.filter(|closed| closed.cause == cause).map_or(now, |closed| closed.since);
        self.closed = Some(Closed { cause, since, until: now + wait, first_after: self.last_sent + 1 });
        self.probe = None;
    }

    /// Looks at once: what kept it closed was repaired, perhaps.
    pub fn look_now(&mut self, now: Duration) {
        if let Some(closed) = &mut self.closed {
            closed.until = now;
        }
    }

    /// Looks at this time at the latest.
    pub fn look_by(&mut self, at: Duration) {
        if let Some(closed) = &mut self.closed {
            closed.until = closed.until.min(at);
        }
    }

    pub fn open(&mut self) {
        (self.closed, self.probe, self.failures) = (None, None, 0);
    }
}

/// How many requests may be out at once: up by one after as many good answers, down by half at a sign of overload.
#[derive(Clone, Debug)]
pub struct Parallel {
    now: u32,
    max: u32,
    successes: u32,
    /// Requests up to this one were sent before the last lowering: they say nothing new.
    lowered_at: u64,
    last_sent: u64,
}

impl Parallel {
    pub fn new(max: u32) -> Parallel {
        let max = max.max(1);
        Parallel { now: PARALLEL_START.min(max), max, successes: 0, lowered_at: 0, last_sent: 0 }
    }

    pub fn now(&self) -> u32 {
        self.now
    }

    pub fn sent(&mut self, id: u64) {
        self.last_sent = self.last_sent.max(id);
    }

    /// A good answer. `full`: as many requests were out as allowed; otherwise it says nothing about more of them.
    pub fn succeeded(&mut self, id: u64, full: bool) {
        if id <= self.lowered_at || !full {
            return;
        }
        self.successes += 1;
        if self.successes >= self.now {
            self.successes = 0;
            self.now = (self.now + 1).min(self.max);
        }
    }

    pub fn overloaded(&mut self, id: u64) {
        if id > self.lowered_at {
            self.now = (self.now / 2).max(1);
            self.successes = 0;
            self.lowered_at = self.last_sent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn gate() -> Gate {
        Gate::new(Backoff { base: MS(100), cap: MS(1000) }, MS(60_000))
    }

    #[test]
    fn a_dead_endpoint_is_asked_by_one_request_at_a_time() {
        let mut gate = gate();
        for id in 1..=3 {
            assert_eq!(gate.admission(MS(0)), Admission::Open);
            gate.sent(id);
        }
        gate.failed(MS(0), 1, Cause::Backoff, 1.0, None);
        gate.failed(MS(1), 2, Cause::Backoff, 1.0, None);
        gate.passed(3);
        // three requests failed together: one closing, not three
        assert_eq!(gate.opens_at(), Some(MS(100)));
        assert_eq!(gate.admission(MS(99)), Admission::Closed);
        assert_eq!(gate.admission(MS(100)), Admission::Probe);
        gate.sent(4);
        assert_eq!(gate.admission(MS(500)), Admission::Closed);
        gate.failed(MS(500), 4, Cause::Backoff, 1.0, None);
        assert_eq!(gate.opens_at(), Some(MS(700)));
        gate.sent(5);
        gate.passed(5);
        assert_eq!(gate.admission(MS(700)), Admission::Open);
    }

    #[test]
    fn retry_after_is_kept_to_also_from_late_answers() {
        let mut gate = gate();
        gate.sent(1);
        gate.sent(2);
        gate.failed(MS(0), 1, Cause::Backoff, 0.0, None);
        gate.failed(MS(10), 2, Cause::Backoff, 0.0, Some(MS(2000)));
        assert_eq!(gate.opens_at(), Some(MS(2010)));
    }

    #[test]
    fn a_block_waits_long_and_keeps_its_start() {
        let mut gate = gate();
        gate.sent(1);
        gate.failed(MS(5), 1, Cause::Blocked(Blocked::NotFound), 0.0, None);
        assert_eq!(gate.opens_at(), Some(MS(60_005)));
        gate.sent(2);
        gate.failed(MS(60_010), 2, Cause::Blocked(Blocked::NotFound), 0.0, None);
        assert_eq!(gate.closed().unwrap().since, MS(5));
        gate.look_now(MS(60_020));
        assert_eq!(gate.admission(MS(60_020)), Admission::Probe);
    }

    #[test]
    fn parallelism_climbs_by_one_a_round_and_halves_once_a_round() {
        let mut parallel = Parallel::new(6);
        let mut id = 0;
        let mut limits = Vec::new();
        for _ in 0..2 + 3 + 4 + 5 + 6 {
            id += 1;
            parallel.sent(id);
            parallel.succeeded(id, true);
            limits.push(parallel.now());
        }
        assert_eq!(limits, [2, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6]);
        parallel.sent(30);
        parallel.overloaded(29);
        parallel.overloaded(30);
        assert_eq!(parallel.now(), 3);
        parallel.sent(31);
        parallel.overloaded(31);
        parallel.sent(32);
        parallel.overloaded(32);
        assert_eq!(parallel.now(), 1);
    }

    #[test]
    fn few_rows_say_nothing_about_parallelism() {
        let mut parallel = Parallel::new(20);
        for id in 1..100 {
            parallel.sent(id);
            parallel.succeeded(id, false);
        }
        assert_eq!(parallel.now(), 2);
        assert_eq!(Parallel::new(1).now(), 1);
    }
}

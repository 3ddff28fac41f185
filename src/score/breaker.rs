//! Whether anything may be sent to an endpoint: one gate for all batches.
//!
//! In: how requests ended, in any order, with the time. Out: whether the next may go. Invariant: while the gate is
//! closed, at most one request at a time finds out whether the endpoint is back; answers to requests sent before it
//! closed neither open it nor count again, also once it is open. Where there is no connection, bare connects (knocks)
//! find out when there is one: a request goes only behind a knock that was heard. Not here: a clock, what the answers
//! mean, how many requests may go (`parallel`).

use std::time::Duration;

use super::policy::{Blocked, Outage};
use crate::backoff::Backoff;

/// Why the gate is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It will pass by itself.
    Backoff(Outage),
    /// Somebody has to repair something.
    Blocked(Blocked),
}

impl Cause {
    /// Whether what is wrong goes on from one to the other.
    fn goes_on_as(self, other: Cause) -> bool {
        self == other || matches!((self, other), (Cause::Backoff(_), Cause::Backoff(_)))
    }
}

/// How long the gate stays closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pauses {
    /// Between requests to an endpoint that fails.
    pub backoff: Backoff,
    /// Between looks at an endpoint that somebody has to repair, half of it more or less.
    pub slow_probe: Duration,
    /// Between knocks, up to 1.25 times more; the first few come sooner.
    pub knock: Duration,
}

impl Pauses {
    /// The wait for the next look at an endpoint that somebody has to repair: three to five quarters of the pause, so
    /// that a fleet does not look in one moment. `random` is in `[0, 1)`.
    pub fn slow(&self, random: f64) -> Duration {
        self.slow_probe.mul_f64(0.75 + 0.5 * random.clamp(0.0, 1.0))
    }

    /// The wait behind this number of knocks in vain.
    fn knock(&self, in_vain: u32, random: f64) -> Duration {
        self.knock.mul_f64(1.0 + 1.25 * random.clamp(0.0, 1.0)).min(self.backoff.step(in_vain.saturating_add(1)))
    }
}

/// Whether a request may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Open,
    /// One request, to see whether the endpoint is back.
    Probe,
    /// One bare connect, to see whether there is a connection.
    Knock,
    Closed,
}

/// A closed gate. Times are since the scorer's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    pub cause: Cause,
    pub since: Duration,
    pub until: Duration,
}

#[derive(Clone, Debug)]
pub struct EndpointGate {
    pauses: Pauses,
    closed: Option<Closed>,
    /// The request or the knock that finds out.
    probe: Option<u64>,
    /// When the last knock went.
    knocked: Duration,
    /// Knocks in a row that were not heard.
    in_vain: u32,
    /// A knock was heard since there was no connection.
    is_heard: bool,
    failures: u32,
    last_sent: u64,
    /// Requests before this one were sent before the gate closed last; it may have opened since.
    first_after: u64,
}

impl EndpointGate {
    pub fn new(pauses: Pauses) -> EndpointGate {
        EndpointGate {
            pauses,
            closed: None,
            probe: None,
            knocked: Duration::ZERO,
            in_vain: 0,
            is_heard: false,
            failures: 0,
            last_sent: 0,
            first_after: 0,
        }
    }

    pub fn admission(&self, now: Duration) -> Admission {
        match self.closed {
            None => Admission::Open,
            Some(closed) if self.probe.is_some() || closed.until > now => Admission::Closed,
            Some(Closed { cause: Cause::Backoff(Outage::NoConnection), .. }) if !self.is_heard => Admission::Knock,
            Some(_) => Admission::Probe,
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

    /// Notes that knock `id` (ascending, among requests) went.
    pub fn knocks(&mut self, now: Duration, id: u64) {
        self.knocked = now;
        self.sent(id);
    }

    /// Knock `id` was heard, or it was not. `random` is in `[0, 1)`.
    pub fn knocked(&mut self, now: Duration, id: u64, is_heard: bool, random: f64) {
        let Some(closed) = self.closed.as_mut().filter(|_| self.probe == Some(id)) else { return };
        (self.probe, self.is_heard) = (None, is_heard);
        if is_heard {
            (closed.until, self.in_vain) = (now, 0);
            return;
        }
        self.in_vain = self.in_vain.saturating_add(1);
        // counted from its start: on a link that drops packets it has taken a while
        closed.until = now.max(self.knocked + self.pauses.knock(self.in_vain, random));
        // the pauses grow only where a connection comes about and nothing comes of it
        self.failures = 0;
    }

    pub fn is_probe(&self, id: u64) -> bool {
        self.probe == Some(id)
    }

    /// Request `id` was sent before the gate closed last: what it says was known by then.
    pub fn is_late(&self, id: u64) -> bool {
        id < self.first_after
    }

    /// Request `id` was answered as by a working endpoint.
    pub fn passed(&mut self, id: u64) {
        if self.closed.is_none() || self.is_probe(id) {
            self.open();
        }
    }

    /// Request `id` says that the endpoint cannot be used. `random` is in `[0, 1)`.
    pub fn failed(&mut self, now: Duration, id: u64, cause: Cause, random: f64, retry_after: Option<Duration>) {
        if self.is_late(id) {
            match (&mut self.closed, retry_after) {
                (Some(closed), asked) => closed.until = closed.until.max(now + asked.unwrap_or_default()),
                // it does not count again, but silence that is asked for is kept
                (None, Some(asked)) => self.close(now, cause, asked),
                (None, None) => {}
            }
            return;
        }
        self.failures = self.failures.saturating_add(1);
        let wait = match cause {
            Cause::Backoff(_) => self.pauses.backoff.wait(self.failures, random, retry_after),
            Cause::Blocked(_) => self.pauses.slow(random).max(retry_after.unwrap_or_default()),
        };
        self.close(now, cause, wait);
    }

    /// Closes for `wait`, whatever came before.
    pub fn close(&mut self, now: Duration, cause: Cause, wait: Duration) {
        let since = self.closed.filter(|closed| closed.cause.goes_on_as(cause)).map_or(now, |closed| closed.since);
        self.closed = Some(Closed { cause, since, until: now + wait });
        (self.probe, self.is_heard, self.first_after) = (None, false, self.last_sent + 1);
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
        (self.closed, self.probe, self.is_heard) = (None, None, false);
        (self.failures, self.in_vain) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn gate() -> EndpointGate {
        let backoff = Backoff { base: MS(100), cap: MS(1000) };
        EndpointGate::new(Pauses { backoff, slow_probe: MS(60_000), knock: MS(2_000) })
    }

    /// What happens to a gate.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        Nothing,
        Sent(u64),
        Knocks(u64),
        Passed(u64),
        /// It fails for a while; the endpoint may ask for a pause of this number of milliseconds.
        Fails(u64, Option<u64>),
        /// No connection came about.
        Unreachable(u64),
        /// A knock came back, heard or not.
        Knocked(u64, bool),
        /// Somebody has to repair something.
        Blocks(u64, Blocked),
        LookNow,
        LookBy(u64),
    }

    /// Runs a table of milliseconds, what happens then, whether the next request may go, and when a closed gate opens.
    fn run(gate: &mut EndpointGate, random: f64, table: &[(u64, Event, Admission, Option<u64>)]) {
        for (i, (at, event, admission, opens_at)) in table.iter().copied().enumerate() {
            let now = MS(at);
            match event {
                Nothing => {}
                Sent(id) => gate.sent(id),
                Knocks(id) => gate.knocks(now, id),
                Passed(id) => gate.passed(id),
                Fails(id, asked) => {
                    gate.failed(now, id, Cause::Backoff(Outage::Failing), random, asked.map(MS));
                }
                Unreachable(id) => gate.failed(now, id, Cause::Backoff(Outage::NoConnection), random, None),
                Knocked(id, is_heard) => gate.knocked(now, id, is_heard, random),
                Blocks(id, why) => gate.failed(now, id, Cause::Blocked(why), random, None),
                LookNow => gate.look_now(now),
                LookBy(by) => gate.look_by(MS(by)),
            }
            assert_eq!(
                (gate.admission(now), gate.opens_at()),
                (admission, opens_at.map(MS)),
                "line {i}: {at} {event:?}"
            );
        }
    }

    use Admission::{Closed as Shut, Knock, Open, Probe};
    use Event::{Blocks, Fails, Knocked, Knocks, LookBy, LookNow, Nothing, Passed, Sent, Unreachable};

    #[test]
    fn a_dead_endpoint_is_asked_by_one_request_at_a_time() {
        run(
            &mut gate(),
            1.0,
            &[
                (0, Sent(1), Open, None),
                (0, Sent(2), Open, None),
                (0, Sent(3), Open, None),
                // three requests that were out together close it once
                (0, Fails(1, None), Shut, Some(100)),
                (1, Fails(2, None), Shut, Some(100)),
                (2, Passed(3), Shut, Some(100)),
                (99, Nothing, Shut, Some(100)),
                (100, Nothing, Probe, Some(100)),
                (100, Sent(4), Shut, None),
                (500, Nothing, Shut, None),
                // each further failure doubles the wait, up to the longest
                (500, Fails(4, None), Shut, Some(700)),
                (700, Sent(5), Shut, None),
                (700, Fails(5, None), Shut, Some(1_100)),
                (1_100, Sent(6), Shut, None),
                (1_100, Fails(6, None), Shut, Some(1_900)),
                (1_900, Sent(7), Shut, None),
                (1_900, Fails(7, None), Shut, Some(2_900)),
                (2_900, Sent(8), Shut, None),
                (2_950, Passed(8), Open, None),
                // and a good answer begins anew
                (3_000, Sent(9), Open, None),
                (3_000, Fails(9, None), Shut, Some(3_100)),
            ],
        );
    }

    #[test]
    fn retry_after_is_kept_to_also_from_late_answers() {
        run(
            &mut gate(),
            0.0,
            &[
                (0, Sent(1), Open, None),
                (0, Sent(2), Open, None),
                (0, Sent(3), Open, None),
                (0, Fails(1, None), Probe, Some(0)),
                (10, Fails(2, Some(2_000)), Shut, Some(2_010)),
                (20, Fails(3, Some(500)), Shut, Some(2_010)),
                (2_010, Sent(4), Shut, None),
                (2_020, Fails(4, Some(3_000)), Shut, Some(5_020)),
            ],
        );
    }

    #[test]
    fn late_failures_do_not_close_a_gate_that_a_probe_has_opened() {
        let gone = Blocked::NotFound;
        run(
            &mut gate(),
            1.0,
            &[
                (0, Sent(1), Open, None),
                (0, Sent(2), Open, None),
                (0, Sent(3), Open, None),
                (0, Sent(4), Open, None),
                (0, Fails(1, None), Shut, Some(100)),
                (100, Sent(5), Shut, None),
                (110, Passed(5), Open, None),
                (120, Fails(2, None), Open, None),
                (130, Blocks(3, gone), Open, None),
                // what was sent behind the probe says something new, and it is the first failure again
                (140, Sent(6), Open, None),
                (150, Fails(6, None), Shut, Some(250)),
                (250, Sent(7), Shut, None),
                (260, Passed(7), Open, None),
                // who asks for silence gets it, and the next failure is still the first
                (300, Fails(4, Some(500)), Shut, Some(800)),
                (800, Sent(8), Shut, None),
                (800, Fails(8, None), Shut, Some(900)),
            ],
        );
    }

    #[test]
    fn without_a_connection_knocks_go_at_an_even_pace_and_a_request_behind_one_that_is_heard() {
        let backoff = Backoff { base: MS(100), cap: MS(60_000) };
        let mut gate = EndpointGate::new(Pauses { backoff, slow_probe: MS(60_000), knock: MS(2_000) });
        run(
            &mut gate,
            1.0,
            &[
                (0, Sent(1), Open, None),
                (10, Unreachable(1), Shut, Some(110)),
                (110, Nothing, Knock, Some(110)),
                (110, Knocks(2), Shut, None),
                (120, Knocked(2, false), Shut, Some(310)),
                (310, Knocks(3), Shut, None),
                (310, Knocked(3, false), Shut, Some(710)),
                (710, Knocks(4), Shut, None),
                (710, Knocked(4, false), Shut, Some(1_510)),
                (1_510, Knocks(5), Shut, None),
                (1_510, Knocked(5, false), Shut, Some(3_110)),
                (3_110, Knocks(6), Shut, None),
                (3_110, Knocked(6, false), Shut, Some(6_310)),
                (6_310, Knocks(7), Shut, None),
                // on a link that drops packets it takes a while
                (8_310, Knocked(7, false), Shut, Some(10_810)),
                // a route changed
                (9_000, LookNow, Knock, Some(9_000)),
                (9_000, Knocks(8), Shut, None),
                (9_000, Knocked(8, true), Probe, Some(9_000)),
                (9_000, Sent(9), Shut, None),
                // whoever is heard and comes to nothing waits longer each time
                (9_010, Unreachable(9), Shut, Some(9_110)),
                (9_110, Knocks(10), Shut, None),
                (9_110, Knocked(10, true), Probe, Some(9_110)),
                (9_110, Sent(11), Shut, None),
                (9_110, Unreachable(11), Shut, Some(9_310)),
                (9_310, Knocks(12), Shut, None),
                (9_310, Knocked(12, true), Probe, Some(9_310)),
                (9_310, Sent(13), Shut, None),
                (9_400, Passed(13), Open, None),
            ],
        );
    }

    #[test]
    fn looks_at_what_somebody_has_to_repair_are_spread() {
        for (random, seconds) in [(0.0, 45), (0.5, 60), (1.0, 75)] {
            let mut gate = gate();
            gate.sent(1);
            gate.failed(MS(0), 1, Cause::Blocked(Blocked::Key), random, None);
            assert_eq!(gate.opens_at(), Some(Duration::from_secs(seconds)));
        }
    }

    #[test]
    fn a_block_waits_long_keeps_its_start_and_is_looked_at_early_when_asked() {
        let mut gate = gate();
        let gone = Blocked::NotFound;
        let before = [
            (0, Sent(1), Open, None),
            (5, Blocks(1, gone), Shut, Some(60_005)),
            (60_005, Nothing, Probe, Some(60_005)),
        ];
        run(&mut gate, 0.5, &before);
        run(&mut gate, 0.5, &[(60_005, Sent(2), Shut, None), (60_010, Blocks(2, gone), Shut, Some(120_010))]);
        assert_eq!(gate.closed().unwrap().since, MS(5));
        run(
            &mut gate,
            1.0,
            &[
                (60_020, LookBy(70_000), Shut, Some(70_000)),
                (60_020, LookBy(80_000), Shut, Some(70_000)),
                (60_030, LookNow, Probe, Some(60_030)),
                (60_030, Sent(3), Shut, None),
                // another cause: its time begins now
                (60_040, Fails(3, None), Shut, Some(60_440)),
            ],
        );
        assert_eq!(gate.closed().unwrap().since, MS(60_040));
        run(
            &mut gate,
            1.0,
            &[(60_440, Sent(4), Shut, None), (60_450, Passed(4), Open, None), (60_450, LookNow, Open, None)],
        );
    }
}

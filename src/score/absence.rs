//! How long an endpoint has been away, where somebody else can answer in its place.
//!
//! In: what happens at the desk, with the time. Out: whether rows still wait for the endpoint. Invariant: once rows are
//! given to somebody else, all are until the endpoint has scored something again. Not here: rows, the breaker, a clock.

use std::collections::VecDeque;
use std::time::Duration;

use crate::value::Value;

/// Arguments of rows that were given away, to look at the endpoint with: the newest, since the first may all be bad.
const SAMPLES_MAX: usize = 8;

/// See the module. Times are since the scorer's start.
#[derive(Clone, Debug)]
pub struct Absence {
    /// How long rows wait for an endpoint that cannot be used.
    after: Duration,
    /// How long for one that takes requests and says nothing.
    silent_after: Duration,
    /// Since when nothing may be sent: the gate is closed, or the signature is not to be had.
    shut_since: Option<Duration>,
    /// Since when rows have been asked for of which none was scored.
    asked_since: Option<Duration>,
    /// Rows are given away; since when the endpoint is away.
    since: Option<Duration>,
    samples: VecDeque<Value>,
}

impl Absence {
    /// `request_timeout`: until then an answer may still come, whatever `after` says.
    pub fn new(after: Duration, request_timeout: Duration) -> Absence {
        Absence {
            after,
            silent_after: after.max(request_timeout),
            shut_since: None,
            asked_since: None,
            since: None,
            samples: VecDeque::new(),
        }
    }

    /// Whether nothing may be sent now. It is away from when it was asked in vain, if that was before.
    pub fn note(&mut self, now: Duration, is_shut: bool) {
        match is_shut {
            true => _ = self.shut_since.get_or_insert(self.asked_since.unwrap_or(now)),
            false => self.shut_since = None,
        }
    }

    /// A request was sent, for rows or for the signature.
    pub fn asked(&mut self, now: Duration) {
        self.asked_since.get_or_insert(now);
    }

    /// Rows were scored; `others`: further requests are out.
    pub fn scored(&mut self, now: Duration, others: bool) {
        self.asked_since = others.then_some(now);
    }

    /// Nobody waits for an answer.
    pub fn nobody_waits(&mut self) {
        self.asked_since = None;
    }

    /// When rows have waited long enough.
    pub fn due(&self) -> Option<Duration> {
        let shut = self.shut_since.map(|since| since + self.after);
        let silent = self.asked_since.map(|since| since + self.silent_after);
        shut.into_iter().chain(silent).min()
    }

    /// Whether rows are to be given away now.
    pub fn is_over(&self, now: Duration) -> bool {
        self.since.is_some() || self.due().is_some_and(|due| due <= now)
    }

    /// Since when the endpoint is away, while rows are given away.
    pub fn since(&self) -> Option<Duration> {
        self.since
    }

    /// Rows are given away; `true`: these are the first.
    pub fn begin(&mut self, now: Duration) -> bool {
        let is_first = self.since.is_none();
        let since = self.shut_since.into_iter().chain(self.asked_since).min();
        self.since.get_or_insert(since.unwrap_or(now));
        is_first
    }

    /// The endpoint is back; `true`: rows were given away until now.
    pub fn end(&mut self) -> bool {
        self.samples.clear();
        self.since.take().is_some()
    }

    /// Keeps the argument of a row that is given away.
    pub fn keep(&mut self, argument: &Value) {
        if self.samples.len() >= SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(argument.clone());
    }

    /// The newest last.
    pub fn samples(&self) -> impl Iterator<Item = &Value> {
        self.samples.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn rows_wait_from_when_nothing_can_be_sent_or_nothing_is_answered() {
        // how long rows wait and a request may take; since when it is shut, and since when it is asked; when rows go
        let table = [
            (30, 10, None, None, None),
            (30, 10, Some(5), None, Some(35)),
            (30, 10, None, Some(5), Some(35)),
            (30, 10, Some(9), Some(5), Some(35)),
            // it may still answer
            (2, 10, None, Some(5), Some(15)),
            (2, 10, Some(6), Some(5), Some(7)),
            // as soon as the breaker closes
            (0, 10, Some(5), None, Some(5)),
            (0, 10, None, Some(4), Some(14)),
        ];
        for (after, timeout, shut, asked, due) in table {
            let mut absence = Absence::new(S(after), S(timeout));
            asked.into_iter().for_each(|at| absence.asked(S(at)));
            shut.into_iter().for_each(|at| absence.note(S(at), true));
            assert_eq!(absence.due(), due.map(S), "{after} {timeout} {shut:?} {asked:?}");
            for at in 0..60 {
                assert_eq!(absence.is_over(S(at)), due.is_some_and(|due| at >= due));
            }
        }
    }

    #[test]
    fn only_what_is_scored_ends_it() {
        let mut absence = Absence::new(S(30), S(10));
        absence.note(S(1), true);
        absence.note(S(2), false);
        assert_eq!(absence.due(), None, "the breaker opened again");
        absence.asked(S(3));
        absence.asked(S(20));
        absence.scored(S(25), true);
        assert_eq!(absence.due(), Some(S(55)), "others are out still");
        absence.scored(S(26), false);
        assert_eq!(absence.due(), None);
        absence.asked(S(30));
        absence.nobody_waits();
        assert_eq!(absence.due(), None);
        absence.note(S(40), true);
        assert!(!absence.is_over(S(69)) && absence.is_over(S(70)));
        assert!(absence.begin(S(71)) && !absence.begin(S(72)));
        assert_eq!(absence.since(), Some(S(40)));
        absence.note(S(80), false);
        assert!(absence.is_over(S(80)), "an open breaker alone says nothing");
        assert!(absence.end() && !absence.end());
        assert!(!absence.is_over(S(80)));
    }

    #[test]
    fn the_newest_rows_are_kept() {
        let mut absence = Absence::new(S(0), S(0));
        (0..20).for_each(|n| absence.keep(&Value::BigInt(n)));
        assert_eq!(absence.samples().cloned().collect::<Vec<_>>(), (12..20).map(Value::BigInt).collect::<Vec<_>>());
        absence.end();
        assert_eq!(absence.samples().count(), 0);
    }
}

//! What the log says when an endpoint stands elsewhere than before.
//!
//! In: its state, since when rows are answered in its place, and what both were. Out: at most one line. Invariant: an
//! absence has one line at its beginning and one at its end, and no line says that rows wait that are answered. Not
//! here: states (`desk`), writing lines (`task`).

use std::time::Duration;

use tracing::Level;

use super::State;
use crate::diagnostic::{Seconds, Thousands};
use crate::time::Timestamp;

/// What changed in one turn of the task.
#[allow(missing_debug_implementations, reason = "it lives for one call and holds a function")]
pub struct EndpointChange<'a> {
    pub state: &'a State,
    /// The state before this turn.
    pub was: &'a State,
    /// Since when rows are answered in its place, before this turn and now.
    pub away: (Option<Timestamp>, Option<Timestamp>),
    /// Who answers them, where anybody does.
    pub by: Option<&'a str>,
    pub now: Timestamp,
    /// Counts the records that wait for it.
    pub waiting: &'a dyn Fn() -> u64,
}

impl EndpointChange<'_> {
    /// The line about it.
    pub fn line(&self) -> Option<(Level, String)> {
        let (began, ended) = match self.away {
            (None, Some(_)) => (true, false),
            (Some(_), None) => (false, true),
            _ => (false, false),
        };
        let is_new = std::mem::discriminant(self.state) != std::mem::discriminant(self.was);
        let by = self.by.unwrap_or_default();
        let line = match self.state {
            State::Failed { why } => return is_new.then(|| (Level::ERROR, format!("scoring has ended: {why}"))),
            State::Paused { reason, remedy, .. } if is_new => {
                let then = match (began, self.away.1) {
                    (true, _) => format!("rows are answered by {by} until it is back"),
                    // the absence has said so
                    (false, Some(_)) => return Some((Level::WARN, format!("scoring is paused: {reason}; {remedy}"))),
                    (false, None) => "rows wait in the pool meanwhile".to_owned(),
                };
                (Level::WARN, format!("scoring is paused: {reason}; {remedy}; {then}"))
            }
            _ if began => (Level::WARN, format!("the endpoint is away: rows are answered by {by} until it is back")),
            _ if ended => (Level::INFO, format!("the endpoint is back: no more rows are answered by {by}")),
            _ if !is_new || self.away.1.is_some() => return None,
            State::BackingOff { outage, .. } => {
                let until = self.state.long_pause(self.now);
                let till = until.map(|until| format!(", looked at again at {until}")).unwrap_or_default();
                let rows = match self.by {
                    Some(by) => format!("rows wait in the pool, and {by} answers them if it stays away"),
                    None => "rows wait in the pool meanwhile".to_owned(),
                };
                (Level::WARN, format!("the endpoint is {}{till}: {rows}", outage.words()))
            }
            State::Ready => match self.was {
                State::BackingOff { since, .. } | State::Paused { since, .. } => {
                    let ticks = self.now.ticks().saturating_sub(since.ticks()).max(0).unsigned_abs();
                    let after = Seconds(Duration::from_nanos(ticks.saturating_mul(100)));
                    let waited = Thousands((self.waiting)());
                    (Level::INFO, format!("the endpoint is back after {after}: {waited} records waited"))
                }
                _ => (Level::INFO, "scoring is ready".to_owned()),
            },
            State::UnknownSignature => (Level::INFO, "the endpoint's signature is not known: rows wait".to_owned()),
            State::Paused { .. } => return None,
        };
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::Outage;
    use super::*;
    use crate::time::TICKS_PER_SECOND;

    #[test]
    fn an_absence_has_one_line_at_its_beginning_and_one_at_its_end() {
        let at = Timestamp::MIN;
        let backing_off = State::BackingOff { since: at, until: at, outage: Outage::NoConnection };
        let paused = State::Paused { since: at, reason: "no key", remedy: "give one".to_owned() };
        let failed = State::Failed { why: "status 400".to_owned() };
        let ready = State::Ready;
        let answered = "the endpoint is away: rows are answered by udf.f until it is back";
        let back = "the endpoint is back: no more rows are answered by udf.f";
        let (is, was) = (true, false);
        // a state and the one before it, whether rows were answered by somebody else, and whether they are now
        let table = [
            (
                &backing_off,
                &ready,
                was,
                was,
                "the endpoint is out of reach: rows wait in the pool, and udf.f answers them if it stays away",
            ),
            (&backing_off, &backing_off, was, was, ""),
            // in one turn
            (&backing_off, &ready, was, is, answered),
            (
                &paused,
                &ready,
                was,
                is,
                "scoring is paused: no key; give one; rows are answered by udf.f until it is back",
            ),
            (&paused, &ready, was, was, "scoring is paused: no key; give one; rows wait in the pool meanwhile"),
            (&paused, &paused, was, is, answered),
            (&State::UnknownSignature, &State::UnknownSignature, was, is, answered),
            // while it lasts
            (&ready, &backing_off, is, is, ""),
            (&backing_off, &ready, is, is, ""),
            (&paused, &ready, is, is, "scoring is paused: no key; give one"),
            (&ready, &backing_off, is, was, back),
            (&ready, &ready, is, was, back),
            (&failed, &ready, is, was, "scoring has ended: status 400"),
            (&failed, &failed, was, was, ""),
            (&ready, &State::UnknownSignature, was, was, "scoring is ready"),
            (&ready, &backing_off, was, was, "the endpoint is back after 95 s: 12,345 records waited"),
            (&ready, &paused, was, was, "the endpoint is back after 95 s: 12,345 records waited"),
        ];
        let change = |state, was, before: bool, is: bool, by| EndpointChange {
            state,
            was,
            away: (before.then_some(at), is.then_some(at)),
            by,
            now: at.saturating_add(95 * TICKS_PER_SECOND),
            waiting: &|| 12_345,
        };
        for (state, before, was_away, is_away, line) in table {
            let change = change(state, before, was_away, is_away, Some("udf.f"));
            let told = change.line().map(|(_, text)| text).unwrap_or_default();
            assert_eq!(told, line, "{before:?} -> {state:?}, {:?}", change.away);
        }
        let alone = change(&backing_off, &ready, was, was, None);
        let text = "the endpoint is out of reach: rows wait in the pool meanwhile".to_owned();
        assert_eq!(alone.line(), Some((Level::WARN, text)));
        // a pause that it asked for
        let until = at.saturating_add((95 + 3_600) * TICKS_PER_SECOND);
        let asked = State::BackingOff { since: at, until, outage: Outage::Overloaded };
        let text = "the endpoint is overloaded (429 or 503), looked at again at 0001-01-01T01:01:35.0000000Z: rows \
                    wait in the pool meanwhile";
        assert_eq!(change(&asked, &ready, was, was, None).line(), Some((Level::WARN, text.to_owned())));
    }
}

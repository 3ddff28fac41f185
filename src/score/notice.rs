//! What the log says when an endpoint stands elsewhere than before.
//!
//! In: its state, since when rows are answered in its place, and what both were. Out: at most one line. Invariant: an
//! absence has one line at its beginning and one at its end, and no line says that rows wait that are answered. Not
//! here: states (`desk`), writing lines (`task`).

use tracing::Level;

use super::State;
use crate::time::Timestamp;

/// What changed in one turn of the task.
#[derive(Debug)]
pub struct EndpointChange<'a> {
    pub state: &'a State,
    /// It is another kind of state than before.
    pub is_new: bool,
    /// Since when rows are answered in its place, before this turn and now.
    pub away: (Option<Timestamp>, Option<Timestamp>),
    /// Who answers them, where anybody does.
    pub by: Option<&'a str>,
}

impl EndpointChange<'_> {
    /// The line about it.
    pub fn line(&self) -> Option<(Level, String)> {
        let (began, ended) = match self.away {
            (None, Some(_)) => (true, false),
            (Some(_), None) => (false, true),
            _ => (false, false),
        };
        let by = self.by.unwrap_or_default();
        let line = match self.state {
            State::Failed { why } => return self.is_new.then(|| (Level::ERROR, format!("scoring has ended: {why}"))),
            State::Paused { reason, remedy, .. } if self.is_new => {
                let then = if began { format!("; rows are answered by {by} until it is back") } else { String::new() };
                (Level::WARN, format!("scoring is paused: {reason}; {remedy}{then}"))
            }
            _ if began => (Level::WARN, format!("the endpoint is away: rows are answered by {by} until it is back")),
            _ if ended => (Level::INFO, format!("the endpoint is back: no more rows are answered by {by}")),
            _ if !self.is_new || self.away.1.is_some() => return None,
            State::BackingOff { .. } if self.by.is_some() => {
                (Level::INFO, format!("the endpoint is away: rows wait, and {by} answers them if it stays away"))
            }
            State::BackingOff { .. } => (Level::INFO, "the endpoint is away: rows wait".to_owned()),
            state => (Level::INFO, format!("scoring is {state:?}")),
        };
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absence_has_one_line_at_its_beginning_and_one_at_its_end() {
        let at = Timestamp::MIN;
        let backing_off = State::BackingOff { since: at, until: at };
        let paused = State::Paused { since: at, reason: "no key", remedy: "give one" };
        let failed = State::Failed { why: "status 400".to_owned() };
        let answered = "the endpoint is away: rows are answered by udf.f until it is back";
        let back = "the endpoint is back: no more rows are answered by udf.f";
        let (is, was) = (true, false);
        // a state, whether it is new, whether rows were answered by somebody else, and whether they are now
        let table = [
            (&backing_off, true, was, was, "the endpoint is away: rows wait, and udf.f answers them if it stays away"),
            (&backing_off, false, was, was, ""),
            // in one turn
            (&backing_off, true, was, is, answered),
            (
                &paused,
                true,
                was,
                is,
                "scoring is paused: no key; give one; rows are answered by udf.f until it is back",
            ),
            (&paused, false, was, is, answered),
            (&State::UnknownSignature, false, was, is, answered),
            // while it lasts
            (&State::Ready, true, is, is, ""),
            (&backing_off, true, is, is, ""),
            (&paused, true, is, is, "scoring is paused: no key; give one"),
            (&State::Ready, true, is, was, back),
            (&State::Ready, false, is, was, back),
            (&failed, true, is, was, "scoring has ended: status 400"),
            (&failed, false, was, was, ""),
            (&State::Ready, true, was, was, "scoring is Ready"),
        ];
        for (state, is_new, before, now, line) in table {
            let away = (before.then_some(at), now.then_some(at));
            let change = EndpointChange { state, is_new, away, by: Some("udf.f") };
            assert_eq!(change.line().map(|(_, text)| text).unwrap_or_default(), line, "{change:?}");
        }
        let alone = EndpointChange { state: &backing_off, is_new: true, away: (None, None), by: None };
        assert_eq!(alone.line(), Some((Level::INFO, "the endpoint is away: rows wait".to_owned())));
    }
}

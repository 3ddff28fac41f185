//! How a dead letter goes again, or why it does not.
//!
//! In: a letter. Out: where it enters the job as it is now, or a reason for people. Invariant: a row whose outcome
//! would need state that is gone, or whose id would be another one, is refused. Not here: going there.

use smol_str::SmolStr;

use super::Replayer;
use super::plan::{ReplayCall, ReplayInput, ReplayPart, needs_past};
use crate::journal::{DeadLetter, LetterOrigin};
use crate::pipeline::outputs::OutputHandle;

/// Where a letter enters.
#[derive(Clone, Debug)]
pub enum ReplayWay<'a> {
    /// A payload is split into events.
    Decode(&'a ReplayInput),
    /// An event goes through the part that reads this input.
    Events(&'a ReplayPart, SmolStr),
    /// A row goes to the endpoint that the part calls.
    Scoring(&'a ReplayPart, &'a ReplayCall),
    /// A row of this statement goes to the output.
    Delivery(&'a OutputHandle, SmolStr),
}

impl ReplayWay<'_> {
    pub fn is_same(&self, other: &ReplayWay<'_>) -> bool {
        match (self, other) {
            (ReplayWay::Decode(a), ReplayWay::Decode(b)) => std::ptr::eq(*a, *b),
            (ReplayWay::Events(a, _), ReplayWay::Events(b, _)) => std::ptr::eq(*a, *b),
            (ReplayWay::Scoring(a, _), ReplayWay::Scoring(b, _)) => std::ptr::eq(*a, *b),
            (ReplayWay::Delivery(a, s), ReplayWay::Delivery(b, t)) => std::ptr::eq(*a, *b) && s == t,
            _ => false,
        }
    }
}

const EARLIER: &str =
    "an earlier version of forebay stored it without what a replay needs: export it, and send it again";
const OF_SEVERAL: &str = "the statement made the row of an event beside other rows, or an earlier version of forebay \
    stored it: its id cannot be given again";
const STANDS: &str = "it was a correction, and the first answer of the row stands";
const SENT_AS_IT_WAS: &str =
    "this row goes to the endpoint as it was, and an edit of it would change nothing: correct the query instead";
const CHANGED: &str = "the statement has another text than when the row was made: export the letters, change what has \
    to be changed, and replay them with --from, or with --edit";
const FEEDS_STATE: &str = "a window, join or analytic function behind it has gone on without the row";
const NEEDS_PAST: &str = "the statement keeps state, and that of the row's time is gone";

impl Replayer {
    /// `is_edited`: a person has said what it is to be.
    pub fn way(&self, letter: &DeadLetter, is_edited: bool) -> Result<ReplayWay<'_>, String> {
        let stage = letter.stage.as_str();
        if stage.ends_with(" (correction)") {
            return Err(STANDS.to_owned());
        }
        let plan = &self.plan;
        if let Some(name) = stage.strip_prefix("input ") {
            let input = plan.inputs.iter().find(|input| input.name.eq_ignore_ascii_case(name));
            let input = input.ok_or_else(|| format!("the job has no input `{name}` any more"))?;
            return match &letter.origin {
                Some(LetterOrigin::Message { .. }) => Ok(ReplayWay::Decode(input)),
                _ => Err(EARLIER.to_owned()),
            };
        }
        if let Some(name) = stage.strip_prefix("output ") {
            let output = plan.outputs.iter().find(|output| output.name().eq_ignore_ascii_case(name));
            let output = output.ok_or_else(|| format!("the job has no output `{name}` any more"))?;
            return match &letter.origin {
                Some(LetterOrigin::Finished { statement, .. }) => Ok(ReplayWay::Delivery(output, statement.clone())),
                _ => Err(EARLIER.to_owned()),
            };
        }
        let name = stage.strip_prefix("statement ").ok_or_else(|| format!("no stage is called `{stage}`"))?;
        let name = name.strip_suffix(" (score)").or_else(|| name.strip_suffix(" (fallback)")).unwrap_or(name);
        if name.ends_with("/rescore") {
            return Err(STANDS.to_owned());
        }
        let part = plan.parts.iter().find(|part| part.name == name);
        let part = part.ok_or_else(|| format!("the job has no statement `{name}` any more"))?;
        if part.feeds_state {
            return Err(FEEDS_STATE.to_owned());
        }
        if let Some(trouble) = part.tail_trouble() {
            return Err(trouble.to_owned());
        }
        match &letter.origin {
            Some(LetterOrigin::Row { .. }) if is_edited && !stage.ends_with(" (score)") => {
                Err(SENT_AS_IT_WAS.to_owned())
            }
            Some(LetterOrigin::Row { text, rows }) => {
                let call = part.call.as_ref().ok_or(CHANGED)?;
                let has_columns = call.columns == rows.columns;
                let is_of_text = *text == part.text || is_edited;
                if has_columns && is_of_text { Ok(ReplayWay::Scoring(part, call)) } else { Err(CHANGED.to_owned()) }
            }
            Some(LetterOrigin::Message { .. }) => {
                if needs_past(&part.part.root) {
                    return Err(NEEDS_PAST.to_owned());
                }
                let mut scans = part.part.root.scans();
                match (scans.next(), scans.next()) {
                    (Some(scan), None) => Ok(ReplayWay::Events(part, scan.input.clone())),
                    (Some(_), Some(_)) => Err("the statement unites several inputs: the other rows of the event may \
                        have gone on"
                        .to_owned()),
                    (None, _) => Err(CHANGED.to_owned()),
                }
            }
            _ => Err(OF_SEVERAL.to_owned()),
        }
    }
}

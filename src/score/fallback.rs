//! Who answers rows while an endpoint is away.
//!
//! In: the keys `fallback`, `fallback_after` and `rescore` of a section. Out: [`Fallback`]. Invariant: without a
//! fallback the other two are refused. Not here: whether the job has such a function (`pipeline::prepare` knows),
//! when an endpoint is away (`absence`).

use std::time::Duration;

use crate::diagnostic::{Diagnostic, Span};
use crate::settings::{Section, Text};

const AFTER: Duration = Duration::from_secs(30);
const AFTER_MAX: Duration = Duration::from_secs(7 * 86_400);
/// What queries write before a function's name.
const PREFIX: &str = "udf.";

/// A function of the job that answers in place of an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Fallback {
    /// Its name, without `udf.`.
    pub function: String,
    /// Where it is written.
    pub span: Span,
    /// How long rows wait for the endpoint first.
    pub after: Duration,
    /// The endpoint scores such rows once more when it is back.
    pub rescore: bool,
    /// Where that is written.
    pub rescore_span: Option<Span>,
}

impl Fallback {
    /// Reads the keys.
    pub fn read(section: &mut Section) -> Option<Fallback> {
        let written = section.text("fallback");
        let after = section.duration("fallback_after", Duration::ZERO, AFTER_MAX, AFTER);
        let rescore = section.boolean("rescore", false);
        let rescore_span = section.value_span("rescore");
        if written.is_none() && !section.has("fallback") {
            for key in ["fallback_after", "rescore"] {
                if section.has(key) {
                    let title = format!("`{key}` has no use without `fallback`");
                    let help = "add `fallback = \"udf.NAME\"`, a function of this job that answers while the endpoint \
                                is away, or leave it out";
                    section.wrong(key, title, "nobody answers in place of the endpoint", help);
                }
            }
        }
        let Text { value, span } = written?;
        let function = match value.split_at_checked(PREFIX.len()) {
            Some((prefix, name)) if prefix.eq_ignore_ascii_case(PREFIX) && !name.is_empty() => name.to_owned(),
            _ => {
                let error = Diagnostic::error(format!("`{value}` is no function"), span)
                    .label("expected the name as queries write it");
                section.problems().push(error.help(format!("write `fallback = \"udf.{value}\"`")));
                return None;
            }
        };
        Some(Fallback { function, span, after, rescore, rescore_span })
    }

    /// As queries and outputs name it.
    pub fn shown(&self) -> String {
        format!("{PREFIX}{}", self.function)
    }
}

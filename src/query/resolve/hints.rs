//! Texts that several problems share.
//!
//! In: names and numbers. Out: help and labels. Invariant: lists of names are cut at a length that a line bears. Not
//! here: problems of single clauses.

use crate::diagnostic::{Diagnostic, Span, suggest};

/// "did you mean …", else what there is.
pub(super) fn did_you_mean(name: &str, names: &[&str], what: &str) -> String {
    if let Some(near) = suggest(name, names.iter().copied()) {
        return format!("did you mean `{near}`?");
    }
    /// Names listed before the rest is only counted.
    const LISTED: usize = 12;
    let mut list = names.iter().take(LISTED).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    if names.len() > LISTED {
        list.push_str(&format!(" and {} more", names.len() - LISTED));
    }
    if names.is_empty() { format!("there is no {what}") } else { format!("known: {list}") }
}

/// The error for an external call where the plan cannot be cut.
pub(super) fn scored_apart(span: Span, place: &str) -> Diagnostic {
    Diagnostic::error(format!("a call that leaves the gateway cannot stand in {place}"), span)
        .label("answers come later than the rows they would be merged with")
        .help(
            "write the scored rows in a statement of their own: `SELECT …, udf.f(x) AS score INTO scored FROM …`, and \
            read them back as an input",
        )
}

/// "2 arguments", "1 to 3 arguments", "at least 2 arguments".
pub(super) fn count(fewest: usize, most: usize) -> String {
    let noun = |n: usize| if n == 1 { "argument" } else { "arguments" };
    match (fewest, most) {
        (0, 0) => "no arguments".to_owned(),
        (a, b) if a == b => format!("{a} {}", noun(a)),
        (a, usize::MAX) => format!("at least {a} {}", noun(a)),
        (a, b) => format!("{a} to {b} {}", noun(b)),
    }
}

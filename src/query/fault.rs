//! Faults of forebay itself: states that its own rules exclude.
//!
//! In: what was found. Out: an error or a problem that says whose fault it is. Invariant: all of them have one reason,
//! so a counter of it above 0 means a report to write. Not here: what a query or an event does wrong.

use std::fmt::Display;

use super::builtins::RowError;
use crate::batch::Reason;
use crate::diagnostic::{Diagnostic, Span};

/// The reason of rows that have no value, or no place, because of a fault of forebay.
pub const FAULT: Reason = "fault";

/// The words of all of them.
pub fn worded(what: impl Display) -> String {
    format!("{what}, which is a fault of forebay: please report it with the query")
}

/// A row cannot go on.
#[cold]
pub fn row_error(what: impl Display) -> RowError {
    RowError::new(FAULT, worded(what))
}

/// Nothing is lost, but something does not happen: for the operator's eyes.
#[cold]
pub fn log(what: impl Display) {
    tracing::error!(reason = FAULT, "{}", worded(what));
}

/// A query cannot be compiled.
#[cold]
pub fn problem(what: impl Display, span: Span) -> Diagnostic {
    Diagnostic::error(worded(what), span).label("in this statement")
}

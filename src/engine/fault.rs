//! What an operator reports when its own state is impossible.
//!
//! In: what was found. Out: [`Fault`], which becomes the error of a row. Invariant: what is found so is never read as
//! NULL, and never lets a row go in silence. Not here: errors of expressions (`env`), damaged stored bytes
//! (`value::codec`).

use crate::query::builtins::RowError;
use crate::query::fault;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) struct Fault(pub &'static str);

/// Does all of them, whatever one finds; gives what was found first.
pub(super) fn all(results: impl Iterator<Item = Result<(), Fault>>) -> Result<(), Fault> {
    results.fold(Ok(()), Result::and)
}

impl From<Fault> for RowError {
    #[cold]
    fn from(found: Fault) -> RowError {
        fault::row_error(found.0)
    }
}

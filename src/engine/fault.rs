//! What an operator reports when its own state is impossible.
//!
//! In: what was found. Out: [`Fault`], which becomes the error of a row, or a [`Unloadable`]. Invariant: what is found
//! so is never read as NULL, never lets a row go in silence, and is not taken for damage of the pool. Not here: errors
//! of expressions (`env`), what is damaged in stored bytes (`value::codec`).

use crate::query::builtins::RowError;
use crate::query::fault;
use crate::value::codec::Damaged;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) struct Fault(pub &'static str);

/// Why a stored row is not taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unloadable {
    Damaged(Damaged),
    Fault(Fault),
}

impl From<Damaged> for Unloadable {
    fn from(damaged: Damaged) -> Unloadable {
        Unloadable::Damaged(damaged)
    }
}

impl From<Fault> for Unloadable {
    fn from(found: Fault) -> Unloadable {
        Unloadable::Fault(found)
    }
}

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

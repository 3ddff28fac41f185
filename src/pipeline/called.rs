//! Which rows of a part are for its call.
//!
//! In: rows as the part gives them, with the argument last. Out: those whose evaluation reaches the call. Invariant:
//! the others keep their place among them, so nothing changes for the order of rows. Not here: what the guard means
//! (`query`).

use crate::batch::Batch;
use crate::query::builtins::is_true;
use crate::query::plan::External;
use crate::score::Outcome;
use crate::value::Value;

/// Tells the rows that are for a call from those that pass it by; all are unless there is a guard.
#[derive(Clone, Copy, Debug, Default)]
pub struct CalledRows(Option<usize>);

impl CalledRows {
    pub fn of(external: &External) -> CalledRows {
        CalledRows(external.called)
    }

    pub fn has(self, row: &[Value]) -> bool {
        self.0.is_none_or(|slot| row.get(slot).is_some_and(is_true))
    }

    /// The arguments of the rows that are for the call.
    pub fn arguments(self, batch: &Batch) -> Vec<Value> {
        let called = batch.rows().filter(|(_, row)| self.has(row));
        called.map(|(_, row)| row.last().cloned().unwrap_or_default()).collect()
    }

    /// What became of each row, up to the first that has no outcome though it is for the call. `None`: it is not.
    pub fn spread(self, batch: &Batch, outcomes: Vec<Outcome>) -> Vec<Option<Outcome>> {
        let mut outcomes = outcomes.into_iter();
        let of_row = |(_, row): (_, &[Value])| match self.has(row) {
            true => outcomes.next().map(Some),
            false => Some(None),
        };
        batch.rows().map_while(of_row).collect()
    }
}

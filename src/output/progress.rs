//! Which rows of a batch are settled, across attempts.
//!
//! In: batches, the fate of single rows. Out: what is still open. Invariant: a row that was confirmed is not sent again
//! when the same batch is given again. Not here: sending.

use std::collections::BTreeMap;

use super::{Delivery, RowIds};
use crate::batch::{RowMeta, Rows};

/// The batch at hand. Only the newest is remembered: a consumer gives one batch again until it is through.
#[derive(Debug, Default)]
pub(super) struct Progress {
    statement: String,
    len: usize,
    first: Option<RowMeta>,
    last: Option<RowMeta>,
    settled: Vec<bool>,
    rejected: BTreeMap<usize, String>,
}

impl Progress {
    /// Starts on a batch (`true`), or goes on with it when it is the one at hand.
    pub fn begin(&mut self, rows: &Rows, ids: RowIds<'_>) -> bool {
        let meta = rows.batch.meta();
        let is_same = self.len == meta.len()
            && self.first.as_ref() == meta.first()
            && self.last.as_ref() == meta.last()
            && self.statement == ids.statement;
        if !is_same {
            *self = Progress {
                statement: ids.statement.to_owned(),
                len: meta.len(),
                first: meta.first().copied(),
                last: meta.last().copied(),
                settled: vec![false; meta.len()],
                rejected: BTreeMap::new(),
            };
        }
        !is_same
    }

    /// The first row from `from` on that is not settled.
    pub fn next_open(&self, from: usize) -> Option<usize> {
        self.settled.iter().skip(from).position(|settled| !settled).map(|i| i + from)
    }

    pub fn confirm(&mut self, row: usize) {
        if let Some(settled) = self.settled.get_mut(row) {
            *settled = true;
        }
    }

    pub fn reject(&mut self, row: usize, reason: String) {
        self.confirm(row);
        self.rejected.insert(row, reason);
    }

    /// The answer once nothing is open; forgets the batch.
    pub fn finish(&mut self) -> Delivery {
        let rejected = std::mem::take(self).rejected;
        if rejected.is_empty() {
            Delivery::Delivered
        } else {
            Delivery::Rejected { rows: rejected.into_iter().collect() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{IDS, rows};
    use super::*;

    #[test]
    fn only_open_rows_of_the_same_batch_are_sent_again() {
        let mut progress = Progress::default();
        progress.begin(&rows(0..4), IDS);
        progress.confirm(0);
        progress.reject(2, "too large".into());
        progress.begin(&rows(0..4), IDS);
        assert_eq!(progress.next_open(0), Some(1));
        assert_eq!(progress.next_open(2), Some(3));
        progress.confirm(1);
        progress.confirm(3);
        assert_eq!(progress.next_open(0), None);
        assert_eq!(progress.finish(), Delivery::Rejected { rows: vec![(2, "too large".into())] });

        progress.begin(&rows(0..4), IDS);
        assert_eq!(progress.next_open(0), Some(0), "finished batches are forgotten");
        progress.confirm(0);
        progress.begin(&rows(1..5), IDS);
        assert_eq!(progress.next_open(0), Some(0), "another batch");
        progress.confirm(0);
        progress.begin(&rows(1..5), RowIds { statement: "other", ..IDS });
        assert_eq!(progress.next_open(0), Some(0), "another statement");
    }
}

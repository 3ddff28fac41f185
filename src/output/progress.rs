//! Which rows of a batch are settled, across attempts.
//!
//! In: batches, the fate of single rows. Out: what is still open. Invariant: a row that was confirmed is not sent again
//! when the same batch is given again. Not here: sending.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Delivery, OutputStats, RowIds};
use crate::batch::{RowMeta, Rows};

/// The batch at hand, and those of other consumers that are not through. Of each consumer only the newest is
/// remembered: it gives one batch again until it is through, or gives it up.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Counts rows as they are settled.
    stats: Arc<OutputStats>,
    now: OpenDelivery,
    /// The batch at hand was not given before.
    is_new: bool,
    /// By consumer.
    others: HashMap<String, OpenDelivery>,
}

/// A batch that is not through.
#[derive(Debug, Default)]
struct OpenDelivery {
    consumer: String,
    len: usize,
    first: Option<RowMeta>,
    last: Option<RowMeta>,
    settled: Vec<bool>,
    rejected: BTreeMap<usize, String>,
    /// The receiver may have some of its rows, or they are settled.
    is_touched: bool,
}

impl Progress {
    pub fn counted(stats: Arc<OutputStats>) -> Progress {
        Progress { stats, ..Progress::default() }
    }

    /// Starts on a batch or comes back to it (`true`), or goes on with it when it is the one at hand.
    pub fn begin(&mut self, rows: &Rows, ids: RowIds<'_>) -> bool {
        let is_other = self.now.consumer != ids.consumer;
        if is_other {
            let open = self.others.remove(ids.consumer).unwrap_or_default();
            let before = std::mem::replace(&mut self.now, open);
            if before.len > 0 {
                self.others.insert(before.consumer.clone(), before);
            }
        }
        let is_same = self.now.is(rows, ids);
        if !is_same {
            self.now = OpenDelivery::new(rows, ids);
        }
        self.is_new = !is_same;
        is_other || !is_same
    }

    /// The first row from `from` on that is not settled.
    pub fn next_open(&self, from: usize) -> Option<usize> {
        self.now.settled.iter().skip(from).position(|settled| !settled).map(|i| i + from)
    }

    /// Whether the batch at hand was begun by the last [`Progress::begin`].
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// From here on the receiver may have some of the rows.
    pub fn touch(&mut self) {
        self.now.is_touched = true;
    }

    /// Whether the receiver can have none of the rows at hand, and none is settled.
    pub fn is_untouched(&self) -> bool {
        !self.now.is_touched
    }

    pub fn confirm(&mut self, row: usize) {
        self.touch();
        if let Some(settled) = self.now.settled.get_mut(row) {
            *settled = true;
            self.stats.settled.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn reject(&mut self, row: usize, reason: String) {
        self.confirm(row);
        self.now.rejected.insert(row, reason);
    }

    /// The answer once nothing is open; forgets the batch.
    pub fn finish(&mut self) -> Delivery {
        let rejected = std::mem::take(&mut self.now).rejected;
        if rejected.is_empty() {
            Delivery::Delivered
        } else {
            Delivery::Rejected { rows: rejected.into_iter().collect() }
        }
    }
}

impl OpenDelivery {
    fn new(rows: &Rows, ids: RowIds<'_>) -> OpenDelivery {
        let meta = rows.batch.meta();
        OpenDelivery {
            consumer: ids.consumer.to_owned(),
            len: meta.len(),
            first: meta.first().copied(),
            last: meta.last().copied(),
            settled: vec![false; meta.len()],
            rejected: BTreeMap::new(),
            is_touched: false,
        }
    }

    fn is(&self, rows: &Rows, ids: RowIds<'_>) -> bool {
        let meta = rows.batch.meta();
        self.len == meta.len()
            && self.first.as_ref() == meta.first()
            && self.last.as_ref() == meta.last()
            && self.consumer == ids.consumer
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
        progress.begin(&rows(1..5), RowIds { consumer: "output s", ..IDS });
        assert_eq!(progress.next_open(0), Some(0), "another consumer, of the same statement");
    }

    #[test]
    fn a_batch_is_remembered_while_other_consumers_write() {
        let other = RowIds { consumer: "output s", ..IDS };
        let mut progress = Progress::default();
        assert!(progress.begin(&rows(0..2), IDS));
        progress.reject(0, "too large".into());
        assert!(progress.begin(&rows(0..1), other));
        progress.confirm(0);
        assert_eq!(progress.finish(), Delivery::Delivered);
        assert!(progress.begin(&rows(0..2), IDS));
        assert!(!progress.begin(&rows(0..2), IDS));
        assert_eq!(progress.next_open(0), Some(1));
        progress.confirm(1);
        assert_eq!(progress.finish(), Delivery::Rejected { rows: vec![(0, "too large".into())] });
        assert!(progress.others.is_empty());
    }
}

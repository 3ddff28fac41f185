//! A row that an operator holds.
//!
//! In: a row. Out: its place among others. Invariant: rows are ordered by (time, offset). Not here: where it is held
//! (`history`).

use crate::batch::RowMeta;
use crate::value::Value;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Held {
    pub meta: RowMeta,
    /// For the operator's use: a left row of a join that has found a match.
    pub flag: bool,
    pub values: Box<[Value]>,
}

impl Held {
    /// A row of a batch, which is left empty.
    pub(super) fn taken(meta: &RowMeta, values: &mut [Value]) -> Held {
        Held { meta: *meta, flag: false, values: values.iter_mut().map(std::mem::take).collect() }
    }

    pub(super) fn time(&self) -> i64 {
        self.meta.time.ticks()
    }

    /// Where it stands among others.
    pub(super) fn place(&self) -> (i64, i64) {
        (self.time(), self.meta.offset)
    }
    /// What it costs.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Held>() + self.values.iter().map(|v| 24 + v.heap_bytes()).sum::<usize>()
    }
}

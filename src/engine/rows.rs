//! The leaf that reads a stream: rows of the part before, or answers of an external call.
//!
//! In: the rows of a step. Out: the same rows, and the watermark that came with them. Invariant: nothing is changed.
//! Not here: offsets and order of the rows (`executor`).

use super::operator::{OperatorTree, Produced, Stateless, StepContext};
use crate::batch::Batch;

#[derive(Debug)]
pub(super) struct RowsOp {
    pub width: usize,
}

impl Stateless for RowsOp {
    fn inputs(&self) -> &[OperatorTree] {
        &[]
    }

    fn inputs_mut(&mut self) -> &mut [OperatorTree] {
        &mut []
    }

    fn width(&self) -> usize {
        self.width
    }

    fn is_direct(&self) -> bool {
        true
    }

    fn step(&mut self, cx: &mut StepContext<'_>) -> Produced {
        let batch = std::mem::replace(&mut cx.rows, Batch::new(self.width));
        Produced { batch, watermark: cx.rows_watermark }
    }
}

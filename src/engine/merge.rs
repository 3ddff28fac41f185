//! Rows of several inputs, or of one that is not in time order, in (event time, offset) order.
//!
//! In: batches with their watermarks. Out: the rows that no later one can come before. Invariant: what comes out is
//! sorted, whatever the cut of the inputs into batches. Not here: joins.

use super::fault::{Fault, Unloadable};
use super::held::Held;
use super::history::History;
use super::operator::{Operator, OperatorTree, Produced, StepContext};
use super::state::{Loaded, StateWriter};
use crate::batch::Batch;
use crate::time::TICKS_PER_SECOND;

const WAITING: u8 = 0;

#[derive(Debug)]
pub(super) struct MergeOp {
    inputs: Vec<OperatorTree>,
    id: u32,
    width: usize,
    waiting: History,
}

impl MergeOp {
    pub(super) fn new(inputs: Vec<OperatorTree>, id: u32, width: usize) -> MergeOp {
        MergeOp { inputs, id, width, waiting: History::new(WAITING, 16 * TICKS_PER_SECOND) }
    }
}

impl Operator for MergeOp {
    fn inputs(&self) -> &[OperatorTree] {
        &self.inputs
    }

    fn inputs_mut(&mut self) -> &mut [OperatorTree] {
        &mut self.inputs
    }

    fn width(&self) -> usize {
        self.width
    }

    fn is_direct(&self) -> bool {
        self.inputs.iter().all(OperatorTree::is_direct)
    }

    fn step(&mut self, cx: &mut StepContext<'_>) -> Produced {
        let mut watermark = i64::MAX;
        let mut rows: Vec<Held> = Vec::new();
        let mut stopped = false;
        for input in &mut self.inputs {
            let mut produced = input.step(cx);
            stopped |= produced.watermark == i64::MIN && cx.env.stopped.is_some();
            watermark = watermark.min(produced.watermark);
            rows.extend(produced.batch.rows_mut().map(|(meta, values)| Held::taken(meta, values)));
        }
        let mut out = Batch::with_capacity(self.width, rows.len());
        if stopped {
            // rows before the failed one may go on: a stateless part hands them over
            rows.sort_by_key(|held| (held.meta.time, held.meta.offset));
            rows.into_iter().for_each(|held| out.push(held.meta, held.values));
            return Produced::stopped(out);
        }
        if self.waiting.len() == 0 && rows.iter().all(|held| held.time() <= watermark) {
            rows.sort_by_key(|held| (held.meta.time, held.meta.offset));
            rows.into_iter().for_each(|held| out.push(held.meta, held.values));
            return Produced { batch: out, watermark };
        }
        rows.into_iter().for_each(|held| self.waiting.push(b"", held));
        while self.waiting.front(b"").is_some_and(|held| held.time() <= watermark) {
            if let Some(held) = self.waiting.pop_front(b"") {
                out.push(held.meta, held.values);
            }
        }
        Produced { batch: out, watermark }
    }

    fn id(&self) -> Option<u32> {
        Some(self.id)
    }

    fn bytes(&self) -> usize {
        self.waiting.bytes()
    }

    fn changes(&mut self, writer: &mut StateWriter<'_>) -> Result<(), Fault> {
        self.waiting.changes(writer)
    }

    fn load(&mut self, loaded: &Loaded<'_>) -> Result<(), Unloadable> {
        self.waiting.load(loaded)
    }

    fn is_idle(&mut self, _floor: i64) -> bool {
        self.waiting.len() == 0
    }

    /// A row that came out took its state row with it.
    fn retire(&mut self, _writer: &mut StateWriter<'_>) {}

    fn deadline(&self, held_back: i64) -> Option<i64> {
        self.waiting.front(b"").map(Held::time).filter(|time| *time <= held_back)
    }

    /// Rows that the query made are in no equation of rows read.
    fn waiting(&self) -> usize {
        if self.is_direct() { self.waiting.len() } else { 0 }
    }
}

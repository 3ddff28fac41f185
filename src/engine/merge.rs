//! Rows of several inputs, or of one that is not in time order, in (event time, offset) order.
//!
//! In: batches with their watermarks. Out: the rows that no later one can come before. Invariant: what comes out is
//! sorted, whatever the cut of the inputs into batches. Not here: joins.

use super::history::{Held, History};
use super::op::{Flow, Op, Step};
use super::state::{Loaded, Writer};
use crate::batch::Batch;
use crate::time::TICKS_PER_SECOND;
use crate::value::codec::Damaged;

const WAITING: u8 = 0;

#[derive(Debug)]
pub(super) struct MergeOp {
    pub inputs: Vec<Op>,
    pub id: u32,
    pub width: usize,
    waiting: History,
}

impl MergeOp {
    pub(super) fn new(inputs: Vec<Op>, id: u32, width: usize) -> MergeOp {
        MergeOp { inputs, id, width, waiting: History::new(WAITING, 16 * TICKS_PER_SECOND) }
    }

    pub(super) fn step(&mut self, cx: &mut Step<'_>) -> Flow {
        let mut watermark = i64::MAX;
        let mut rows: Vec<Held> = Vec::new();
        let mut stopped = false;
        for input in &mut self.inputs {
            let mut flow = input.step(cx);
            stopped |= flow.watermark == i64::MIN && cx.env.stopped.is_some();
            watermark = watermark.min(flow.watermark);
            for i in 0..flow.batch.len() {
                let Some(meta) = flow.batch.meta().get(i).copied() else { break };
                rows.push(Held { meta, flag: false, values: flow.batch.row_mut(i).iter_mut().map(std::mem::take).collect() });
            }
        }
        let mut out = Batch::with_capacity(self.width, rows.len());
        if stopped {
            // rows before the failed one may go on: a stateless part hands them over
            rows.sort_by_key(|held| (held.meta.time, held.meta.offset));
            rows.into_iter().for_each(|held| out.push(held.meta, held.values));
            return Flow { batch: out, watermark: i64::MIN };
        }
        if self.waiting.len() == 0 && rows.iter().all(|held| held.time() <= watermark) {
            rows.sort_by_key(|held| (held.meta.time, held.meta.offset));
            rows.into_iter().for_each(|held| out.push(held.meta, held.values));
            return Flow { batch: out, watermark };
        }
        rows.into_iter().for_each(|held| self.waiting.push(b"", held));
        while self.waiting.front(b"").is_some_and(|held| held.time() <= watermark) {
            if let Some(held) = self.waiting.pop_front(b"") {
                out.push(held.meta, held.values);
            }
        }
        Flow { batch: out, watermark }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn deadline(&self) -> Option<i64> {
        self.waiting.front(b"").map(Held::time)
    }

    pub(super) fn changes(&mut self, writer: &mut Writer<'_>) {
        self.waiting.changes(writer);
    }

    pub(super) fn load(&mut self, loaded: &Loaded<'_>) -> Result<(), Damaged> {
        self.waiting.load(loaded)
    }

    pub(super) fn bytes(&self) -> usize {
        self.waiting.bytes()
    }
}

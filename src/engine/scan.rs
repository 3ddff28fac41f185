//! The leaf of an operator tree that reads an input: event-time order.
//!
//! In: decoded rows of this step, in arrival order. Out: rows in (event time, offset) order and the watermark.
//! Invariant: no row comes out below a watermark given before. Not here: decoding and the arrival-side policies
//! (`ingress`), which are the same for all substreams.

use super::fault::{Fault, Unloadable};
use super::held::Held;
use super::history::History;
use super::operator::{Operator, OperatorTree, Produced, StepContext};
use super::state::{Loaded, StateWriter};
use crate::batch::Batch;
use crate::time::Timestamp;
use crate::value::codec::{ByteReader, put_signed};

const NEWEST: u8 = 0;
const WAITING: u8 = 1;

#[derive(Debug)]
pub(super) struct ScanOp {
    id: u32,
    width: usize,
    /// Which of the executor's ingresses it reads.
    ingress: usize,
    /// Has `TIMESTAMP BY`: otherwise time is arrival time, which only grows.
    timed: bool,
    /// The greatest event time accepted, once there is one.
    newest: Option<i64>,
    newest_changed: bool,
    newest_stored: bool,
    /// Rows that wait for earlier ones, when out-of-order tolerance is given.
    waiting: History,
}

impl ScanOp {
    pub(super) fn new(id: u32, width: usize, ingress: usize, timed: bool, out_of_order: i64) -> ScanOp {
        let waiting = History::new(WAITING, out_of_order);
        ScanOp { id, width, ingress, timed, newest: None, newest_changed: false, newest_stored: false, waiting }
    }

    /// What the accepted rows allow, or what time itself allows: no later arrival may be older than the late tolerance.
    fn watermark(&self, cx: &StepContext<'_>) -> i64 {
        if cx.now == i64::MAX {
            return i64::MAX;
        }
        let policies = &cx.env.options.policies;
        let by_rows = self.newest.map_or(i64::MIN, |n| n.saturating_sub(policies.out_of_order));
        let by_clock = policies.late_tolerance.map_or(i64::MIN, |late| cx.now.saturating_sub(late));
        by_rows.max(by_clock)
    }
}

impl Operator for ScanOp {
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
        let Some(inbox) = cx.inbox.get_mut(self.ingress) else {
            cx.env.report(&cx.origin, Fault("a scan has no inbox to read from"));
            return Produced::stopped(Batch::new(self.width));
        };
        let mut batch = std::mem::take(inbox);
        if batch.is_empty() {
            batch = Batch::new(self.width);
        }
        if !self.timed {
            return Produced { batch, watermark: cx.now };
        }
        let tolerance = cx.env.options.policies.out_of_order;
        let adjust = cx.env.options.policies.adjust;
        let before = self.newest;
        let (newest, counts) = (&mut self.newest, &mut cx.env.counts);
        batch.retain(|meta, _| {
            let time = meta.time.ticks();
            let mark = newest.map_or(i64::MIN, |n| n.saturating_sub(tolerance));
            if time < mark {
                if !adjust {
                    counts.add_dropped("out_of_order");
                    return false;
                }
                counts.adjusted += 1;
                meta.time = Timestamp::saturating_from_ticks(mark);
            }
            *newest = Some(newest.map_or(time, |n| n.max(time)));
            true
        });
        self.newest_changed |= self.newest != before;
        let watermark = self.watermark(cx);
        if tolerance > 0 {
            for (meta, values) in batch.rows_mut() {
                self.waiting.push(b"", Held::taken(meta, values));
            }
            batch.clear();
            while self.waiting.front(b"").is_some_and(|held| held.time() <= watermark) {
                if let Some(held) = self.waiting.pop_front(b"") {
                    batch.push(held.meta, held.values);
                }
            }
        }
        Produced { batch, watermark }
    }

    fn id(&self) -> Option<u32> {
        Some(self.id)
    }

    fn newest(&self) -> Option<i64> {
        self.newest
    }

    fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn deadline(&self, _held_back: i64) -> Option<i64> {
        self.waiting.front(b"").map(Held::time)
    }

    fn changes(&mut self, writer: &mut StateWriter<'_>) -> Result<(), Fault> {
        let waiting = self.waiting.changes(writer);
        if std::mem::take(&mut self.newest_changed)
            && let Some(newest) = self.newest
        {
            self.newest_stored = true;
            let mut value = Vec::new();
            put_signed(&mut value, newest);
            writer.put(NEWEST, &[], Some(value));
        }
        waiting
    }

    fn load(&mut self, loaded: &Loaded<'_>) -> Result<(), Unloadable> {
        if loaded.kind == NEWEST {
            self.newest = Some(ByteReader::new(loaded.value).signed()?);
            self.newest_stored = true;
            return Ok(());
        }
        self.waiting.load(loaded)
    }

    /// Whether forgetting this scan changes nothing: the late policy alone keeps later rows above what was accepted.
    fn is_idle(&mut self, floor: i64) -> bool {
        self.waiting.len() == 0 && self.newest.is_none_or(|n| n < floor)
    }

    fn retire(&mut self, writer: &mut StateWriter<'_>) {
        if std::mem::take(&mut self.newest_stored) {
            writer.put(NEWEST, &[], None);
        }
        self.newest = None;
    }

    fn bytes(&self) -> usize {
        self.waiting.bytes()
    }
}

//! `OVER (LIMIT DURATION …)`: functions of the rows seen so far.
//!
//! In: rows in time order. Out: each row with one value appended for each call. Invariant: a row whose age has reached
//! the limit is not looked at, and a row that fails changes nothing. Not here: `WHERE` (which comes after), windows.

mod call;

use self::call::{AnalyticCall, HELD, RECENT};
use super::env::Row;
use super::fault::{self, Fault, Unloadable};
use super::operator::{Operator, OperatorTree, Produced, StepContext};
use super::options::EngineError;
use super::state::{Loaded, StateWriter};
use crate::batch::Batch;
use crate::query::plan::Analytic;
use crate::value::codec::Damaged;

/// More calls than this in one `SELECT` have no kinds left.
const CALLS_MAX: usize = 200;
/// Keys that can no longer matter are looked for after about this many rows, and at least as many as there are keys.
const SWEEP_ROWS: usize = 4096;

#[derive(Debug)]
pub(super) struct AnalyticOp {
    input: OperatorTree,
    id: u32,
    calls: Vec<AnalyticCall>,
    since_sweep: usize,
    /// The watermark at which a quiet input lets go of what is held.
    quiet_sweep: Option<i64>,
}

impl AnalyticOp {
    pub(super) fn new(input: OperatorTree, id: u32, calls: &[Analytic]) -> Result<AnalyticOp, EngineError> {
        if calls.len() > CALLS_MAX {
            return Err(EngineError::TooManyCalls { max: CALLS_MAX });
        }
        let calls = calls.iter().enumerate().map(|(i, plan)| AnalyticCall::new(i, plan)).collect();
        Ok(AnalyticOp { input, id, calls, since_sweep: 0, quiet_sweep: None })
    }

    /// Forgets keys of which nothing can be looked at any more: now and then among rows, and when time passes without
    /// any.
    fn sweep(&mut self, rows: usize, watermark: i64) {
        self.since_sweep += rows;
        let keys: usize = self.calls.iter().map(AnalyticCall::keys).sum();
        let is_due = self.since_sweep >= SWEEP_ROWS.max(keys)
            || (rows == 0 && self.quiet_sweep.is_some_and(|due| watermark >= due));
        if rows > 0 || is_due {
            // by then all that is held now is over
            let limit = self.calls.iter().map(AnalyticCall::limit).max().unwrap_or(0);
            self.quiet_sweep = (limit < i64::MAX && watermark > i64::MIN).then(|| watermark.saturating_add(limit));
        }
        if is_due {
            self.since_sweep = 0;
            self.calls.iter_mut().for_each(|call| call.forget(watermark));
        }
        if self.is_empty() {
            self.quiet_sweep = None;
        }
    }

    fn is_empty(&self) -> bool {
        self.calls.iter().all(|call| call.keys() == 0)
    }
}

impl Operator for AnalyticOp {
    fn inputs(&self) -> &[OperatorTree] {
        std::slice::from_ref(&self.input)
    }

    fn inputs_mut(&mut self) -> &mut [OperatorTree] {
        std::slice::from_mut(&mut self.input)
    }

    fn width(&self) -> usize {
        self.input.width() + self.calls.len()
    }

    fn is_direct(&self) -> bool {
        self.input.is_direct()
    }

    fn step(&mut self, cx: &mut StepContext<'_>) -> Produced {
        let direct = self.input.is_direct();
        let mut produced = self.input.step(cx);
        let width = produced.batch.width();
        let mut out = Batch::with_capacity(width + self.calls.len(), produced.batch.len());
        let rows = produced.batch.len();
        for (meta, values) in produced.batch.rows_mut() {
            let row = Row { values, meta };
            let result = self.calls.iter_mut().try_for_each(|call| call.evaluate(cx.env, row));
            let results = result.and_then(|()| {
                self.calls.iter_mut().map(|call| call.apply(cx.env, meta)).collect::<Result<Vec<_>, _>>()
            });
            match results {
                Ok(results) => {
                    out.push(*meta, values.iter_mut().map(std::mem::take).chain(results));
                }
                Err(error) => {
                    if !cx.env.goes_on(&cx.origin, row, *error, direct) {
                        return Produced::stopped(out);
                    }
                }
            }
        }
        self.sweep(rows, produced.watermark);
        Produced { batch: out, watermark: produced.watermark }
    }

    fn id(&self) -> Option<u32> {
        Some(self.id)
    }

    /// When a quiet input could let go of what is held.
    fn deadline(&self, held_back: i64) -> Option<i64> {
        self.quiet_sweep.filter(|time| *time <= held_back)
    }

    fn changes(&mut self, writer: &mut StateWriter<'_>) -> Result<(), Fault> {
        fault::all(self.calls.iter_mut().enumerate().map(|(i, call)| call.changes(i, writer)))
    }

    /// A row of a call that the statement does not have is damage: its state is that of its own text.
    fn load(&mut self, loaded: &Loaded<'_>) -> Result<(), Unloadable> {
        let number = if loaded.kind >= HELD { Some(loaded.kind - HELD) } else { loaded.rest.first().copied() };
        let call = number.and_then(|number| self.calls.get_mut(usize::from(number))).ok_or(Damaged { at: 0 })?;
        if loaded.kind == RECENT {
            // one that was quiet before lets go at the next chance
            self.quiet_sweep = Some(i64::MIN);
        }
        call.load(loaded)
    }

    fn loaded(&mut self) {
        self.calls.iter_mut().for_each(AnalyticCall::loaded);
    }

    fn bytes(&self) -> usize {
        self.calls.iter().map(AnalyticCall::bytes).sum()
    }

    fn is_idle(&mut self, floor: i64) -> bool {
        self.calls.iter_mut().for_each(|call| call.forget(floor));
        self.is_empty()
    }

    /// What was forgotten took its state rows with it.
    fn retire(&mut self, _writer: &mut StateWriter<'_>) {}
}

//! What an operator is, and a tree of them.
//!
//! In: the rows of one step. Out: the rows and the watermark of the root. Invariant: a step takes everything its leaves
//! were given, and rows of time T come out before a watermark above T does. Not here: which operators there are
//! (`build`); substreams, ids of rows, commits (`executor`).

use std::fmt;

use super::emitted::StateUpdate;
use super::env::{Env, StepOrigin};
use super::fault::{self, Fault, Unloadable};
use super::state::{Loaded, StateWriter};
use crate::batch::Batch;

/// What a step brings to the leaves.
pub(super) struct StepContext<'a> {
    pub env: &'a mut Env,
    pub origin: StepOrigin<'a>,
    /// Decoded rows by ingress (scans are numbered from the left).
    pub inbox: &'a mut [Batch],
    /// Rows of the stream that a later part reads.
    pub rows: Batch,
    pub rows_watermark: i64,
    /// Latest arrival known; the greatest number when the input has ended.
    pub now: i64,
}

/// What a step gives: no later row will be earlier than the watermark.
pub(super) struct Produced {
    pub batch: Batch,
    pub watermark: i64,
}

impl Produced {
    /// The rows before the one at which the executor stopped.
    pub(super) fn stopped(batch: Batch) -> Produced {
        Produced { batch, watermark: i64::MIN }
    }
}

/// An operator of a tree. What every operator has to decide has no default; an operator that keeps nothing from step to
/// step is [`Stateless`] instead.
pub(super) trait Operator: fmt::Debug + Send {
    /// The trees that feed it, from the left.
    fn inputs(&self) -> &[OperatorTree];

    fn inputs_mut(&mut self) -> &mut [OperatorTree];

    /// Number of columns of the rows it gives.
    fn width(&self) -> usize;

    /// Whether its rows are one to one with rows read: then dropping one belongs to the equation of rows read.
    fn is_direct(&self) -> bool;

    fn step(&mut self, cx: &mut StepContext<'_>) -> Produced;

    /// The number that its state rows carry; `None` for one that keeps nothing.
    fn id(&self) -> Option<u32>;

    /// About how many bytes of state are held.
    fn bytes(&self) -> usize;

    /// Writes the state that changed since the last commit.
    fn changes(&mut self, writer: &mut StateWriter<'_>) -> Result<(), Fault>;

    /// Takes back a state row.
    fn load(&mut self, loaded: &Loaded<'_>) -> Result<(), Unloadable>;

    /// Lets go of what no row from `floor` on can need; whether the operator could be forgotten and built anew then.
    fn is_idle(&mut self, floor: i64) -> bool;

    /// Removes the last state rows of an idle operator.
    fn retire(&mut self, writer: &mut StateWriter<'_>);

    /// All stored rows are in.
    fn loaded(&mut self) {}

    /// Whether rows may come out earlier than rows before them.
    fn is_unordered(&self) -> bool {
        false
    }

    /// The earliest moment at which a later watermark makes something happen here. `held_back` is the watermark that
    /// its inputs give at most before then: a moment past it comes no sooner than that of the input. Asked for, it
    /// would be due again and again.
    fn deadline(&self, _held_back: i64) -> Option<i64> {
        None
    }

    /// The watermark that it gives at most before its deadline, where its inputs give `below` at most.
    fn held_back(&self, below: i64) -> i64 {
        below
    }

    /// The greatest event time that it accepted from an input of the job.
    fn newest(&self) -> Option<i64> {
        None
    }

    /// Rows read that wait here: they have neither come out nor been counted yet.
    fn waiting(&self) -> usize {
        0
    }
}

/// An operator that keeps nothing from step to step, so it has nothing to load or to retire.
pub(super) trait Stateless: fmt::Debug + Send {
    fn inputs(&self) -> &[OperatorTree];
    fn inputs_mut(&mut self) -> &mut [OperatorTree];
    fn width(&self) -> usize;
    fn is_direct(&self) -> bool;
    fn step(&mut self, cx: &mut StepContext<'_>) -> Produced;
}

impl<O: Stateless> Operator for O {
    fn inputs(&self) -> &[OperatorTree] {
        Stateless::inputs(self)
    }

    fn inputs_mut(&mut self) -> &mut [OperatorTree] {
        Stateless::inputs_mut(self)
    }

    fn width(&self) -> usize {
        Stateless::width(self)
    }

    fn is_direct(&self) -> bool {
        Stateless::is_direct(self)
    }

    /// Rows go through in the order in which they come.
    fn is_unordered(&self) -> bool {
        Stateless::inputs(self).iter().any(OperatorTree::is_unordered)
    }

    fn step(&mut self, cx: &mut StepContext<'_>) -> Produced {
        Stateless::step(self, cx)
    }

    fn id(&self) -> Option<u32> {
        None
    }

    fn bytes(&self) -> usize {
        0
    }

    fn changes(&mut self, _writer: &mut StateWriter<'_>) -> Result<(), Fault> {
        Ok(())
    }

    /// Not called: no state row carries its number.
    fn load(&mut self, _loaded: &Loaded<'_>) -> Result<(), Unloadable> {
        Ok(())
    }

    fn is_idle(&mut self, _floor: i64) -> bool {
        true
    }

    fn retire(&mut self, _writer: &mut StateWriter<'_>) {}
}

/// An operator with all that feeds it.
#[derive(Debug)]
pub(super) struct OperatorTree(Box<dyn Operator>);

impl OperatorTree {
    pub(super) fn new(operator: impl Operator + 'static) -> OperatorTree {
        OperatorTree(Box::new(operator))
    }

    pub(super) fn width(&self) -> usize {
        self.0.width()
    }

    pub(super) fn is_direct(&self) -> bool {
        self.0.is_direct()
    }

    pub(super) fn is_unordered(&self) -> bool {
        self.0.is_unordered()
    }

    pub(super) fn step(&mut self, cx: &mut StepContext<'_>) -> Produced {
        self.0.step(cx)
    }

    /// The earliest moment at which a later watermark makes something happen, in this operator or below.
    pub(super) fn deadline(&self) -> Option<i64> {
        let below = self.0.inputs().iter().filter_map(OperatorTree::deadline).min();
        self.0.deadline(self.inputs_held_back()).into_iter().chain(below).min()
    }

    fn held_back(&self) -> i64 {
        self.0.held_back(self.inputs_held_back())
    }

    fn inputs_held_back(&self) -> i64 {
        self.0.inputs().iter().map(OperatorTree::held_back).min().unwrap_or(i64::MAX)
    }

    /// The greatest event time accepted by a scan of the tree.
    pub(super) fn newest(&self) -> Option<i64> {
        self.0.newest().into_iter().chain(self.0.inputs().iter().filter_map(OperatorTree::newest)).max()
    }

    /// How many operators lie on top of each other: each may hold a watermark back by one tick.
    pub(super) fn depth(&self) -> i64 {
        1 + self.0.inputs().iter().map(OperatorTree::depth).max().unwrap_or(0)
    }

    /// Rows read that have neither come out nor been counted yet.
    pub(super) fn waiting(&self) -> usize {
        self.0.waiting() + self.0.inputs().iter().map(OperatorTree::waiting).sum::<usize>()
    }

    /// Writes what changed, of all operators.
    pub(super) fn changes(&mut self, substream: &[u8], out: &mut Vec<StateUpdate>) -> Result<(), Fault> {
        let own = match self.0.id() {
            Some(op) => self.0.changes(&mut StateWriter { op, substream, out }),
            None => Ok(()),
        };
        own.and(fault::all(self.0.inputs_mut().iter_mut().map(|input| input.changes(substream, out))))
    }

    /// Hands a stored row to the operator it belongs to; a row of an operator that is no more is ignored.
    pub(super) fn load(&mut self, id: u32, loaded: &Loaded<'_>) -> Result<(), Unloadable> {
        if self.0.id() == Some(id) {
            return self.0.load(loaded);
        }
        self.0.inputs_mut().iter_mut().try_for_each(|input| input.load(id, loaded))
    }

    /// All stored rows are in.
    pub(super) fn loaded(&mut self) {
        self.0.loaded();
        self.0.inputs_mut().iter_mut().for_each(OperatorTree::loaded);
    }

    /// Whether the tree could be forgotten and built anew: nothing is held, and the late policy alone (`floor` is the
    /// oldest event time that can still come) keeps later rows above those seen.
    pub(super) fn is_idle(&mut self, floor: i64) -> bool {
        self.0.is_idle(floor) && self.0.inputs_mut().iter_mut().all(|input| input.is_idle(floor))
    }

    /// Lets go of everything: no row can need it.
    pub(super) fn end(&mut self) {
        self.0.is_idle(i64::MAX);
        self.0.inputs_mut().iter_mut().for_each(OperatorTree::end);
    }

    /// Removes the last state rows of an idle tree.
    pub(super) fn retire(&mut self, substream: &[u8], out: &mut Vec<StateUpdate>) {
        if let Some(op) = self.0.id() {
            self.0.retire(&mut StateWriter { op, substream, out });
        }
        self.0.inputs_mut().iter_mut().for_each(|input| input.retire(substream, out));
    }

    /// About how many bytes of state are held.
    pub(super) fn bytes(&self) -> usize {
        self.0.bytes() + self.0.inputs().iter().map(OperatorTree::bytes).sum::<usize>()
    }
}

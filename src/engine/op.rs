//! The operator tree of a part.
//!
//! In: a plan's [`Node`] at start; then the rows of one step. Out: the rows and the watermark of the root. Invariant: a
//! step takes everything its leaves were given, and rows of time T come out before a watermark above T does. Not here:
//! substreams, ids of rows, commits (`executor`).

use super::EngineError;
use super::aggregate::AggregateOp;
use super::analytic::AnalyticOp;
use super::env::{Env, Origin};
use super::eval::{EvalError, Row};
use super::join::JoinOp;
use super::merge::MergeOp;
use super::recognize::MatchOp;
use super::reference::{ApplyOp, ReferenceOp};
use super::scan::ScanOp;
use super::state::{Loaded, Writer};
use super::{ExecutorOptions, StateChange};
use crate::batch::Batch;
use crate::query::plan::{Expr, Node};
use crate::value::codec::Damaged;

/// What a step brings to the leaves.
pub(super) struct Step<'a> {
    pub env: &'a mut Env,
    pub origin: Origin<'a>,
    /// Decoded rows by feed (scans are numbered from the left).
    pub inbox: &'a mut [Batch],
    /// Rows of the stream that a later part reads.
    pub rows: Batch,
    pub rows_watermark: i64,
    /// Latest arrival known; the greatest number when the input has ended.
    pub now: i64,
}

/// What an operator gives: no later row will be earlier than the watermark.
pub(super) struct Flow {
    pub batch: Batch,
    pub watermark: i64,
}

#[derive(Debug)]
pub(super) enum Op {
    Scan(ScanOp),
    Rows { width: usize },
    Filter { input: Box<Op>, predicate: Expr },
    Project { input: Box<Op>, exprs: Vec<Expr> },
    Apply(Box<ApplyOp>),
    Aggregate(Box<AggregateOp>),
    Analytic(Box<AnalyticOp>),
    Match(Box<MatchOp>),
    Join(Box<JoinOp>),
    Reference(Box<ReferenceOp>),
    Merge(MergeOp),
}

/// Operators that the engine puts in itself (sorting an unordered input) use ids of this range.
const OWN_IDS: u32 = 1 << 31;

impl Op {
    /// Builds the tree; `feeds` counts the scans met so far.
    pub(super) fn build(node: &Node, options: &ExecutorOptions, feeds: &mut usize) -> Result<Op, EngineError> {
        let mut below = |node: &Node| Op::build(node, options, feeds).map(Box::new);
        Ok(match node {
            Node::Scan(scan) => {
                let timed = scan.timestamp_by.is_some();
                *feeds += 1;
                Op::Scan(ScanOp::new(scan.id, scan.columns.len(), *feeds - 1, timed, options.policies.out_of_order))
            }
            Node::Rows { width } => Op::Rows { width: *width },
            Node::Filter { input, predicate } => Op::Filter { input: below(input)?, predicate: predicate.clone() },
            Node::Project { input, exprs } => Op::Project { input: below(input)?, exprs: exprs.clone() },
            Node::Apply { input, outer, function, argument, span } => Op::Apply(Box::new(ApplyOp {
                input: *below(input)?,
                outer: *outer,
                function: *function,
                argument: argument.clone(),
                span: *span,
            })),
            Node::Aggregate { input, id, keys, windows, aggregates } => {
                let input = ordered(*below(input)?, *id);
                Op::Aggregate(Box::new(AggregateOp::new(input, *id, keys, windows, aggregates)))
            }
            Node::Analytic { input, id, calls } => {
                let input = ordered(*below(input)?, *id);
                Op::Analytic(Box::new(AnalyticOp::new(input, *id, calls)?))
            }
            Node::Match { input, id, plan } => {
                let input = ordered(*below(input)?, *id);
                Op::Match(Box::new(MatchOp::new(input, *id, plan)))
            }
            Node::Join { left, right, id, left_outer, bound, keys, on } => {
                let (left, right) = (*below(left)?, *below(right)?);
                Op::Join(Box::new(JoinOp::new(left, right, *id, *left_outer, *bound, keys, on.as_ref())))
            }
            Node::ReferenceJoin { input, reference, left_outer, keys, on } => {
                let input = *below(input)?;
                Op::Reference(Box::new(ReferenceOp::new(input, reference, *left_outer, keys, on.as_ref())))
            }
            Node::Union { inputs, id } => {
                let ops = inputs.iter().map(|input| below(input).map(|op| *op)).collect::<Result<_, _>>()?;
                Op::Merge(MergeOp::new(ops, *id, node.width()))
            }
        })
    }

    pub(super) fn width(&self) -> usize {
        match self {
            Op::Scan(op) => op.width,
            Op::Rows { width } => *width,
            Op::Filter { input, .. } => input.width(),
            Op::Project { exprs, .. } => exprs.len(),
            Op::Apply(op) => op.input.width() + 1,
            Op::Aggregate(op) => op.width(),
            Op::Analytic(op) => op.input.width() + op.width(),
            Op::Match(op) => op.width(),
            Op::Join(op) => op.left.width() + op.right.width(),
            Op::Reference(op) => op.input.width() + 1,
            Op::Merge(op) => op.width,
        }
    }

    /// Whether its rows are one to one with rows read: then dropping one belongs to the equation of rows read.
    pub(super) fn is_direct(&self) -> bool {
        match self {
            Op::Scan(_) | Op::Rows { .. } => true,
            Op::Filter { input, .. } | Op::Project { input, .. } => input.is_direct(),
            Op::Analytic(op) => op.input.is_direct(),
            Op::Merge(op) => op.inputs.iter().all(Op::is_direct),
            Op::Apply(_) | Op::Aggregate(_) | Op::Match(_) | Op::Join(_) | Op::Reference(_) => false,
        }
    }

    /// Whether rows may come out earlier than rows before them: unmatched rows of a left join are stamped with a time
    /// that may have passed when they are known to be unmatched.
    fn is_unordered(&self) -> bool {
        match self {
            Op::Join(op) => op.left_outer,
            // a match is known only when a later row ends it
            Op::Match(_) => true,
            Op::Filter { input, .. } | Op::Project { input, .. } => input.is_unordered(),
            Op::Apply(op) => op.input.is_unordered(),
            Op::Reference(op) => op.input.is_unordered(),
            Op::Scan(_) | Op::Rows { .. } | Op::Aggregate(_) | Op::Analytic(_) | Op::Merge(_) => false,
        }
    }

    pub(super) fn step(&mut self, cx: &mut Step<'_>) -> Flow {
        match self {
            Op::Scan(op) => op.step(cx),
            Op::Rows { width } => {
                let batch = std::mem::replace(&mut cx.rows, Batch::new(*width));
                Flow { batch, watermark: cx.rows_watermark }
            }
            Op::Filter { input, predicate } => filter(input, predicate, cx),
            Op::Project { input, exprs } => project(input, exprs, cx),
            Op::Apply(op) => op.step(cx),
            Op::Aggregate(op) => op.step(cx),
            Op::Analytic(op) => {
                let direct = op.input.is_direct();
                op.step(cx, direct)
            }
            Op::Match(op) => op.step(cx),
            Op::Join(op) => op.step(cx),
            Op::Reference(op) => op.step(cx),
            Op::Merge(op) => op.step(cx),
        }
    }

    /// The operators directly below.
    fn inputs(&self) -> Vec<&Op> {
        match self {
            Op::Scan(_) | Op::Rows { .. } => Vec::new(),
            Op::Filter { input, .. } | Op::Project { input, .. } => vec![input],
            Op::Apply(op) => vec![&op.input],
            Op::Aggregate(op) => vec![&op.input],
            Op::Analytic(op) => vec![&op.input],
            Op::Match(op) => vec![&op.input],
            Op::Join(op) => vec![&op.left, &op.right],
            Op::Reference(op) => vec![&op.input],
            Op::Merge(op) => op.inputs.iter().collect(),
        }
    }

    fn inputs_mut(&mut self) -> Vec<&mut Op> {
        match self {
            Op::Scan(_) | Op::Rows { .. } => Vec::new(),
            Op::Filter { input, .. } | Op::Project { input, .. } => vec![input],
            Op::Apply(op) => vec![&mut op.input],
            Op::Aggregate(op) => vec![&mut op.input],
            Op::Analytic(op) => vec![&mut op.input],
            Op::Match(op) => vec![&mut op.input],
            Op::Join(op) => vec![&mut op.left, &mut op.right],
            Op::Reference(op) => vec![&mut op.input],
            Op::Merge(op) => op.inputs.iter_mut().collect(),
        }
    }

    fn id(&self) -> Option<u32> {
        match self {
            Op::Scan(op) => Some(op.id),
            Op::Aggregate(op) => Some(op.id),
            Op::Analytic(op) => Some(op.id),
            Op::Match(op) => Some(op.id),
            Op::Join(op) => Some(op.id),
            Op::Merge(op) => Some(op.id),
            Op::Rows { .. } | Op::Filter { .. } | Op::Project { .. } | Op::Apply(_) | Op::Reference(_) => None,
        }
    }

    /// The earliest moment at which a later watermark makes something happen, in this operator or below.
    pub(super) fn deadline(&self) -> Option<i64> {
        // a moment past what an input holds back comes no sooner than that input's own; asked for, it would be due again and again
        let held_back = self.inputs().into_iter().map(Op::held_back).min().unwrap_or(i64::MAX);
        let own = match self {
            Op::Scan(op) => op.deadline(),
            Op::Aggregate(op) => op.deadline().filter(|end| *end < held_back),
            Op::Analytic(op) => op.deadline().filter(|time| *time <= held_back),
            Op::Match(op) => op.deadline().filter(|time| *time <= held_back),
            Op::Join(op) => op.deadline().filter(|time| *time <= held_back),
            Op::Merge(op) => op.deadline().filter(|time| *time <= held_back),
            _ => None,
        };
        own.into_iter().chain(self.inputs().into_iter().filter_map(Op::deadline)).min()
    }

    /// The watermark that it gives at most before its deadline, however late it is: rows of a left join that wait for a
    /// match, and attempts at a pattern, hold back what is above.
    fn held_back(&self) -> i64 {
        let below = self.inputs().into_iter().map(Op::held_back).min().unwrap_or(i64::MAX);
        match self {
            Op::Join(op) => op.out_watermark(below),
            Op::Match(op) => op.out_watermark(below),
            Op::Aggregate(_) => below.saturating_sub(1),
            _ => below,
        }
    }

    /// The greatest event time accepted by a scan of the tree.
    pub(super) fn newest(&self) -> Option<i64> {
        let own = match self {
            Op::Scan(op) => op.newest(),
            _ => None,
        };
        own.into_iter().chain(self.inputs().into_iter().filter_map(Op::newest)).max()
    }

    /// How many operators lie on top of each other: each may hold a watermark back by one tick.
    pub(super) fn depth(&self) -> i64 {
        1 + self.inputs().into_iter().map(Op::depth).max().unwrap_or(0)
    }

    /// Rows read that have neither come out nor been counted yet.
    pub(super) fn waiting(&self) -> usize {
        let own = match self {
            Op::Scan(op) => op.waiting(),
            Op::Merge(op) if op.inputs.iter().all(Op::is_direct) => op.waiting(),
            _ => 0,
        };
        own + self.inputs().into_iter().map(Op::waiting).sum::<usize>()
    }

    pub(super) fn changes(&mut self, substream: &[u8], out: &mut Vec<StateChange>) {
        if let Some(op) = self.id() {
            let writer = &mut Writer { op, substream, out };
            match self {
                Op::Scan(scan) => scan.changes(writer),
                Op::Aggregate(op) => op.changes(writer),
                Op::Analytic(op) => op.changes(writer),
                Op::Match(op) => op.changes(writer),
                Op::Join(op) => op.changes(writer),
                Op::Merge(op) => op.changes(writer),
                _ => {}
            }
        }
        for input in self.inputs_mut() {
            input.changes(substream, out);
        }
    }

    /// Hands a stored row to the operator it belongs to; a row of an operator that is no more is ignored.
    pub(super) fn load(&mut self, id: u32, loaded: &Loaded<'_>) -> Result<(), Damaged> {
        if self.id() == Some(id) {
            return match self {
                Op::Scan(op) => op.load(loaded),
                Op::Aggregate(op) => op.load(loaded),
                Op::Analytic(op) => op.load(loaded),
                Op::Match(op) => op.load(loaded),
                Op::Join(op) => op.load(loaded),
                Op::Merge(op) => op.load(loaded),
                _ => Ok(()),
            };
        }
        self.inputs_mut().into_iter().try_for_each(|input| input.load(id, loaded))
    }

    /// All stored rows are in.
    pub(super) fn loaded(&mut self) {
        match self {
            Op::Aggregate(op) => op.loaded(),
            Op::Analytic(op) => op.loaded(),
            Op::Match(op) => op.loaded(),
            Op::Join(op) => op.loaded(),
            _ => {}
        }
        self.inputs_mut().into_iter().for_each(Op::loaded);
    }

    /// Whether the tree could be forgotten and built anew: nothing is held, and the late policy alone (`floor` is the
    /// oldest event time that can still come) keeps later rows above those seen.
    pub(super) fn is_idle(&mut self, floor: i64) -> bool {
        let own = match self {
            Op::Scan(op) => op.is_idle(floor),
            Op::Aggregate(op) => op.is_empty(),
            Op::Analytic(op) => {
                op.forget(floor);
                op.is_empty()
            }
            Op::Match(op) => op.is_empty(),
            Op::Join(op) => op.is_empty(),
            Op::Merge(op) => op.waiting() == 0,
            _ => true,
        };
        own && self.inputs_mut().into_iter().all(|input| input.is_idle(floor))
    }

    /// Removes the last state rows of an idle tree.
    pub(super) fn retire(&mut self, substream: &[u8], out: &mut Vec<StateChange>) {
        if let Op::Scan(scan) = self {
            scan.retire(&mut Writer { op: scan.id, substream, out });
        }
        if let Op::Aggregate(op) = self {
            op.retire(&mut Writer { op: op.id, substream, out });
        }
        for input in self.inputs_mut() {
            input.retire(substream, out);
        }
    }

    /// About how many bytes of state are held.
    pub(super) fn bytes(&self) -> usize {
        let own = match self {
            Op::Scan(op) => op.bytes(),
            Op::Aggregate(op) => op.bytes(),
            Op::Analytic(op) => op.bytes(),
            Op::Match(op) => op.bytes(),
            Op::Join(op) => op.bytes(),
            Op::Merge(op) => op.bytes(),
            _ => 0,
        };
        own + self.inputs().into_iter().map(Op::bytes).sum::<usize>()
    }
}

/// Sorts the input of an operator that needs time order, where it may lack it.
fn ordered(input: Op, id: u32) -> Op {
    if !input.is_unordered() {
        return input;
    }
    let width = input.width();
    Op::Merge(MergeOp::new(vec![input], id | OWN_IDS, width))
}

fn filter(input: &mut Op, predicate: &Expr, cx: &mut Step<'_>) -> Flow {
    let direct = input.is_direct();
    let mut flow = input.step(cx);
    let mut stopped = false;
    let (env, origin) = (&mut *cx.env, &cx.origin);
    flow.batch.retain(|meta, values| {
        if stopped {
            return false;
        }
        let row = Row { values, meta };
        match env.holds(predicate, row) {
            Ok(true) => true,
            Ok(false) => {
                env.counts.filtered += u64::from(direct);
                false
            }
            Err(error) => {
                stopped = !env.goes_on(origin, row, *error, direct);
                false
            }
        }
    });
    if stopped {
        flow.watermark = i64::MIN;
    }
    flow
}

fn project(input: &mut Op, exprs: &[Expr], cx: &mut Step<'_>) -> Flow {
    let direct = input.is_direct();
    let flow = input.step(cx);
    let mut out = Batch::with_capacity(exprs.len(), flow.batch.len());
    for (meta, values) in flow.batch.rows() {
        let row = Row { values, meta };
        let slots = out.push_blank(*meta);
        let result: Result<(), Box<EvalError>> = slots.iter_mut().zip(exprs).try_for_each(|(slot, expr)| {
            *slot = cx.env.eval(expr, row)?.into_owned();
            Ok(())
        });
        if let Err(error) = result {
            out.pop();
            if !cx.env.goes_on(&cx.origin, row, *error, direct) {
                return Flow { batch: out, watermark: i64::MIN };
            }
        }
    }
    Flow { batch: out, watermark: flow.watermark }
}

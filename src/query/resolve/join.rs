//! JOIN conditions: time bounds, hash keys and the rest.
//!
//! In: the condition of a join and the sources so far. Out: a bound on the difference of event times, pairs of equal
//! expressions, and what is left to test on each pair. Invariant: every pair that satisfies the condition lies in the
//! bound; what the bound cannot say exactly is tested again. Not here: finding pairs (`engine`).

use super::constant::{self, SPAN_MAX};
use super::core::Core;
use super::place::{Clause, Place};
use super::relation::{ColumnId, ColumnInfo};
use super::source::SourceKind;
use super::tree::{self, conjunction, each_slot, reads_time, same};
use crate::diagnostic::{Diagnostic, Span};
use crate::query::ast::{Arg, BinaryOp, Call, Expr as Ast, ExprKind};
use crate::query::builtins;
use crate::query::date_part::DatePart;
use crate::query::plan::{Expr, JoinBound};
use crate::value::{Type, Value};

/// A checked join condition.
#[derive(Default)]
pub(super) struct Condition {
    /// `None` for reference data.
    pub(super) bound: Option<JoinBound>,
    pub(super) keys: Vec<(Expr, Expr)>,
    pub(super) on: Option<Expr>,
}

/// `DATEDIFF(unit, from, to)` lies between `low` and `high`; a side may be open.
#[derive(Clone, Copy)]
struct TimeBound {
    unit: DatePart,
    from: usize,
    to: usize,
    low: Option<i64>,
    high: Option<i64>,
    span: Span,
}

impl TimeBound {
    fn flipped(self) -> TimeBound {
        TimeBound { from: self.to, to: self.from, low: self.high.map(|n| -n), high: self.low.map(|n| -n), ..self }
    }
}

impl Core<'_, '_> {
    /// The condition of a join of `right` with all sources before it.
    pub(super) fn condition(&mut self, on: &Ast, right: usize, span: Span) -> Condition {
        let is_reference = self.sources.get(right).is_some_and(|s| matches!(s.kind, SourceKind::Reference { .. }));
        let mut bounds = Vec::new();
        let mut rest = Vec::new();
        for part in conjuncts(on) {
            match self.time_bound(part) {
                Some(bound)
                    if !is_reference && (bound.from == right || bound.to == right) && bound.from != bound.to =>
                {
                    bounds.push(if bound.to == right { bound } else { bound.flipped() });
                }
                _ => rest.push(self.expr(part, Place::clause(Clause::On))),
            }
        }
        let mut condition = Condition::default();
        let mut left_over = Vec::new();
        for expr in rest.into_iter().flat_map(tree::conjuncts) {
            match self.key_pair(expr, right) {
                Ok(pair) => condition.keys.push(pair),
                Err(expr) => left_over.push(*expr),
            }
        }
        if !is_reference {
            condition.bound = self.bound(&bounds, right, span, &mut left_over);
            self.check_join_over(right, &condition.keys, span);
        }
        condition.on = conjunction(left_over);
        condition
    }

    /// A conjunct that bounds the time between two sources.
    fn time_bound(&self, e: &Ast) -> Option<TimeBound> {
        match &e.kind {
            ExprKind::Between { negated: false, operand, low, high } => {
                let (unit, from, to) = self.difference(operand)?;
                let (low, high) = (constant::whole(low)?, constant::whole(high)?);
                Some(TimeBound { unit, from, to, low: Some(low), high: Some(high), span: e.span })
            }
            ExprKind::Binary(op, a, b) => {
                let (op, call, n) = match constant::whole(b) {
                    Some(n) => (*op, a, n),
                    None => (mirrored(*op)?, b, constant::whole(a)?),
                };
                let (unit, from, to) = self.difference(call)?;
                let (low, high) = match op {
                    BinaryOp::Eq => (Some(n), Some(n)),
                    BinaryOp::Ge => (Some(n), None),
                    BinaryOp::Gt => (Some(n.checked_add(1)?), None),
                    BinaryOp::Le => (None, Some(n)),
                    BinaryOp::Lt => (None, Some(n.checked_sub(1)?)),
                    _ => return None,
                };
                Some(TimeBound { unit, from, to, low, high, span: e.span })
            }
            _ => None,
        }
    }

    /// `DATEDIFF(unit, a, b)` of two sources.
    fn difference(&self, e: &Ast) -> Option<(DatePart, usize, usize)> {
        let ExprKind::Call(call) = &e.kind else { return None };
        let [name] = call.name.as_slice() else { return None };
        let ([unit, from, to], true) = (call.args.as_slice(), name.name.eq_ignore_ascii_case("datediff")) else {
            return None;
        };
        let unit = DatePart::parse(&constant::word(unit)?.name)?;
        Some((unit, self.stream_argument(from)?, self.stream_argument(to)?))
    }

    /// A source named as an argument of DATEDIFF; in ON a source goes before a column of its name.
    fn stream_argument(&self, arg: &Arg) -> Option<usize> {
        let index = self.source_named(&constant::word(arg)?.name)?;
        self.sources.get(index)?.is_stream().then_some(index)
    }

    /// An argument of DATEDIFF that names a source stands for its event time.
    pub(super) fn source_time_argument(&mut self, call: &Call, arg: &Arg, place: Place) -> Option<Expr> {
        if !call.name.last()?.name.eq_ignore_ascii_case("datediff") {
            return None;
        }
        let index = self.stream_argument(arg)?;
        let is_column = !self.names_whole_source(std::slice::from_ref(constant::word(arg)?));
        let joined = self.sources.iter().filter(|s| s.is_stream()).count() > 1;
        (place.clause == Clause::On || (joined && !is_column)).then(|| Expr::Slot(self.source_time(index)))
    }

    /// The column that holds a source's event time beside those of others.
    fn source_time(&mut self, index: usize) -> ColumnId {
        if let Some(id) = self.sources.get(index).and_then(|s| s.time) {
            return id;
        }
        let id =
            self.binder.column(ColumnInfo { name: "time".into(), ty: Some(Type::DateTime), ..ColumnInfo::default() });
        if let Some(source) = self.sources.get_mut(index) {
            source.time = Some(id);
        }
        self.owner.insert(id, index);
        id
    }

    /// The bound of the join. Left rows carry the latest of their times; when a bound is on another one of them, or in
    /// several units, it is widened here and tested exactly with the rest.
    fn bound(&mut self, bounds: &[TimeBound], right: usize, span: Span, rest: &mut Vec<Expr>) -> Option<JoinBound> {
        let lefts = (0..right).filter(|i| self.sources.get(*i).is_some_and(|s| s.is_stream())).count();
        for bound in bounds {
            self.check_width(bound);
        }
        let low = bounds.iter().any(|b| b.low.is_some());
        let high = bounds.iter().any(|b| b.high.is_some());
        let Some(first) = bounds.first().filter(|_| low && high) else {
            self.not_bounded(bounds, right, span, low, high);
            return None;
        };
        let exact = lefts == 1 && bounds.iter().all(|b| b.unit == first.unit);
        let bound = if exact {
            let low = bounds.iter().filter_map(|b| b.low).max()?;
            let high = bounds.iter().filter_map(|b| b.high).min()?;
            JoinBound { unit: first.unit, low, high }
        } else {
            for bound in bounds {
                rest.push(self.exact_test(bound));
            }
            self.widened(bounds)?
        };
        if bound.low > bound.high {
            let problem = Diagnostic::error("the DATEDIFF bound of this join is empty", first.span)
                .label(format!("nothing lies between {} and {}", bound.low, bound.high))
                .help("write the smaller number first");
            self.binder.problem(problem);
        }
        self.later.push(bound);
        Some(bound)
    }

    /// A bound on the time of `right` against the latest time of the left row.
    fn widened(&self, bounds: &[TimeBound]) -> Option<JoinBound> {
        let unit = bounds.iter().map(|b| b.unit).min_by_key(|unit| unit.ticks())?;
        let ticks = unit.ticks()?;
        // how much later than one of its sources a left row can be: every join before adds what its bound allows
        let drift = self
            .later
            .iter()
            .map(|b| (b.high.max(0) + 1).saturating_mul(b.unit.ticks().unwrap_or(SPAN_MAX)))
            .fold(0i64, i64::saturating_add);
        let least = bounds
            .iter()
            .filter_map(|b| Some((b.low?.saturating_sub(1)).saturating_mul(b.unit.ticks()?)))
            .max()?
            .saturating_sub(drift);
        let most =
            bounds.iter().filter_map(|b| Some((b.high?.saturating_add(1)).saturating_mul(b.unit.ticks()?))).min()?;
        let same_unit = bounds.iter().all(|b| b.unit == unit);
        let high = if same_unit {
            bounds.iter().filter_map(|b| b.high).min()?
        } else {
            most.div_euclid(ticks).saturating_add(1)
        };
        Some(JoinBound { unit, low: least.div_euclid(ticks).saturating_sub(1).min(high), high })
    }

    /// The bound as a test on the two event times.
    fn exact_test(&mut self, bound: &TimeBound) -> Expr {
        let (from, to) = (Expr::Slot(self.source_time(bound.from)), Expr::Slot(self.source_time(bound.to)));
        let Some(function) = builtins::lookup("DATEDIFF") else {
            self.binder.fault("the language has no DATEDIFF", bound.span);
            return super::tree::null();
        };
        let args = vec![Expr::Const(Value::text(bound.unit.name())), from, to];
        let difference = Expr::Builtin { function, args, span: bound.span };
        let number = |n: i64| Box::new(Expr::Const(Value::BigInt(n)));
        Expr::Between {
            negated: false,
            operand: Box::new(difference),
            low: number(bound.low.unwrap_or(i64::MIN)),
            high: number(bound.high.unwrap_or(i64::MAX)),
        }
    }

    fn check_width(&mut self, bound: &TimeBound) {
        let too_wide = |n: Option<i64>| match bound.unit.ticks() {
            Some(ticks) => n.is_some_and(|n| {
                n.checked_mul(ticks).is_none_or(|length| length.checked_abs().is_none_or(|l| l > SPAN_MAX))
            }),
            None => true,
        };
        if too_wide(bound.low) || too_wide(bound.high) {
            let problem = Diagnostic::error("the DATEDIFF bound of this join is wider than 7 days", bound.span)
                .label("at most 7 days in either direction")
                .help("rows wait in memory for as long as the bound says; take a shorter one");
            self.binder.problem(problem);
        }
    }

    fn not_bounded(&mut self, bounds: &[TimeBound], right: usize, span: Span, low: bool, high: bool) {
        let name = |i: usize| self.sources.get(i).map(|s| s.name.clone()).unwrap_or_default();
        if self.sources.iter().any(|s| s.poisoned) {
            return;
        }
        let left = bounds.first().map_or(right.saturating_sub(1), |b| b.from);
        let title = if bounds.is_empty() {
            "the join is not time bounded"
        } else {
            "the join is time bounded on one side only"
        };
        let label = match (low, high) {
            (true, false) => "DATEDIFF has no upper bound",
            (false, true) => "DATEDIFF has no lower bound",
            _ => "expected a DATEDIFF between the two sources",
        };
        let example = format!("DATEDIFF(second, {}, {}) BETWEEN 0 AND 10", name(left), name(right));
        let at = bounds.first().map_or(span, |b| b.span);
        let problem = Diagnostic::error(title, at)
            .label(label)
            .help(format!("add `AND {example}`: rows wait for a partner only so long"));
        self.binder.problem(problem);
    }

    /// `a = b` with one side from the left and one from the right; else the expression itself.
    fn key_pair(&self, expr: Expr, right: usize) -> Result<(Expr, Expr), Box<Expr>> {
        let Expr::Binary(BinaryOp::Eq, a, b, span) = expr else { return Err(Box::new(expr)) };
        match (self.side(&a, right), self.side(&b, right)) {
            (Some(false), Some(true)) => Ok((*a, *b)),
            (Some(true), Some(false)) => Ok((*b, *a)),
            _ => Err(Box::new(Expr::Binary(BinaryOp::Eq, a, b, span))),
        }
    }

    /// Whether all columns of an expression are of the right source (true) or of sources before it (false).
    fn side(&self, expr: &Expr, right: usize) -> Option<bool> {
        if reads_time(expr) {
            return None;
        }
        let mut sides = Vec::new();
        each_slot(expr, &mut |id| sides.push(self.owner.get(&id).map(|owner| *owner == right)));
        let first = (*sides.first()?)?;
        sides.iter().all(|side| *side == Some(first)).then_some(first)
    }

    /// Substreams meet only inside a key.
    fn check_join_over(&mut self, right: usize, keys: &[(Expr, Expr)], span: Span) {
        let Some(source) = self.sources.get(right) else {
            return self.binder.fault("a join has no right side", span);
        };
        let lefts: Vec<_> = self.sources.iter().take(right).filter(|s| s.is_stream()).collect();
        if source.poisoned || lefts.iter().any(|s| s.poisoned) {
            return;
        }
        if lefts.iter().any(|s| s.over.is_empty() != source.over.is_empty()) {
            let problem = Diagnostic::error("TIMESTAMP BY … OVER on one side of a join only", span)
                .label("one timeline meets many")
                .help("write OVER on all inputs of the query or on none");
            self.binder.problem(problem);
            return;
        }
        let slots = |a: usize, b: usize| self.binder.same_column(a, b);
        let joined = |over: &super::relation::OverKey| {
            over.expr.as_ref().is_some_and(|e| keys.iter().any(|(a, b)| same(a, e, &slots) || same(b, e, &slots)))
        };
        let missing = source
            .over
            .iter()
            .chain(lefts.first().iter().flat_map(|s| &s.over))
            .find(|over| !joined(over))
            .map(|over| over.text.clone());
        if let Some(text) = missing {
            let problem = Diagnostic::error(format!("the key `{text}` of TIMESTAMP BY … OVER is not joined"), span)
                .label("rows of different timelines would meet")
                .help(format!("add an equality on `{text}` to ON"));
            self.binder.problem(problem);
        }
    }
}

/// The operands of a chain of AND as written.
fn conjuncts(e: &Ast) -> Vec<&Ast> {
    match &e.kind {
        ExprKind::Binary(BinaryOp::And, a, b) => {
            let mut all = conjuncts(a);
            all.extend(conjuncts(b));
            all
        }
        _ => vec![e],
    }
}

/// The comparison with its sides exchanged.
fn mirrored(op: BinaryOp) -> Option<BinaryOp> {
    Some(match op {
        BinaryOp::Eq => BinaryOp::Eq,
        BinaryOp::Lt => BinaryOp::Gt,
        BinaryOp::Le => BinaryOp::Ge,
        BinaryOp::Gt => BinaryOp::Lt,
        BinaryOp::Ge => BinaryOp::Le,
        _ => return None,
    })
}

//! Which rows reach a call that leaves the gateway.
//!
//! In: conditions and expressions that read answers, and the calls that give them. Out: the calls in an order in which
//! they can be made, each with a guard where not every row reaches it. Invariant: a condition on the way to a call is
//! computed once a row, before the call, and only where evaluation comes to it. Not here: what becomes of the other
//! rows (`pipeline`).
//!
//! `CASE`, `COALESCE`, `AND` and `OR` guard what stands behind their first operand. Every other operator is taken to
//! need all its operands.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rustc_hash::{FxHashMap, FxHashSet};
use smol_str::SmolStr;

use super::binder::Binder;
use super::core::ExternalCall;
use super::relation::{ColumnId, ColumnInfo, Rel};
use super::tree::{conjunction, conjuncts, disjunction, each_slot, null, reads, rewrite, same};
use crate::diagnostic::{Diagnostic, Span};
use crate::query::ast::BinaryOp;
use crate::query::builtins::Builtin;
use crate::query::plan::Expr;
use crate::value::Value;

/// Columns that are computed for the sake of guards: each is an operator in a chain that runs by recursion.
const KEPT_MAX: usize = 64;

/// Rewrites every expression that stands above the conditions.
pub(super) type Readers<'r> = &'r mut dyn FnMut(&mut dyn FnMut(&Expr) -> Expr);

/// Conditions without a call first; then each call just before the first condition that needs it; then the calls that
/// `readers` need.
pub(super) fn filtered(
    binder: &mut Binder<'_>,
    mut rel: Rel,
    predicate: Option<Expr>,
    mut calls: Vec<ExternalCall>,
    readers: Readers<'_>,
) -> Rel {
    let is_answer = |id: ColumnId| calls.iter().any(|c| c.out == id);
    let (late, early): (Vec<Expr>, Vec<Expr>) =
        predicate.into_iter().flat_map(conjuncts).partition(|e| reads(e, &is_answer));
    if let Some(predicate) = conjunction(early) {
        rel = Rel::Filter { input: Box::new(rel), predicate };
    }
    let mut late = VecDeque::from(late);
    while let Some(predicate) = late.pop_front() {
        let mut guards = Guards::new(binder, calls);
        guards.note_certain(&predicate);
        guards.note_certain_arguments();
        let predicate = guards.reach(&predicate, &[]);
        let made = guards.put(rel, false);
        rel = Rel::Filter { input: Box::new(made.rel), predicate };
        calls = made.open;
        for call in made.guarded.into_iter().rev() {
            again(binder, call, &mut calls, &mut late, readers);
        }
    }
    if calls.is_empty() {
        return rel;
    }
    let mut guards = Guards::new(binder, calls);
    readers(&mut |e| {
        guards.note_certain(e);
        e.clone()
    });
    guards.note_certain_arguments();
    readers(&mut |e| guards.reach(e, &[]));
    guards.put(rel, true).rel
}

/// A call that a condition did not need for every row may be needed for the others behind the condition.
fn again(
    binder: &mut Binder<'_>,
    made: GuardedCall,
    calls: &mut Vec<ExternalCall>,
    late: &mut VecDeque<Expr>,
    readers: Readers<'_>,
) {
    let GuardedCall { call, guard } = made;
    let out = binder.column(binder.columns.get(call.out).cloned().unwrap_or_default());
    let either = Expr::Case { branches: vec![(guard, Expr::Slot(call.out))], otherwise: Box::new(Expr::Slot(out)) };
    let mut is_read = false;
    let mut replaced = |e: &Expr| {
        rewrite(e, &mut |part| match part {
            Expr::Slot(id) if *id == call.out => {
                is_read = true;
                Some(either.clone())
            }
            _ => None,
        })
    };
    late.iter_mut().for_each(|e| *e = replaced(e));
    calls.iter_mut().for_each(|c| c.argument = replaced(&c.argument));
    readers(&mut replaced);
    if is_read {
        // before the calls whose arguments may read it
        calls.insert(0, ExternalCall { out, ..call });
    }
}

/// A call that was made for some rows, as it was written, and the condition that was true for them.
struct GuardedCall {
    call: ExternalCall,
    guard: Expr,
}

/// What [`Guards::put`] gives.
struct MadeCalls {
    rel: Rel,
    /// Calls that nothing needed.
    open: Vec<ExternalCall>,
    guarded: Vec<GuardedCall>,
}

/// A call on its way into a relation.
struct ReadyCall {
    function: SmolStr,
    argument: Expr,
    guard: Option<Expr>,
    span: Span,
}

struct Guards<'g, 'a> {
    binder: &'g mut Binder<'a>,
    calls: Vec<ExternalCall>,
    /// By the column of a call: the ways that lead to it, each a list of conditions that all hold there.
    ways: FxHashMap<ColumnId, Vec<Vec<Expr>>>,
    /// Columns that are computed for the sake of guards, in the order in which they may read each other.
    kept: BTreeMap<ColumnId, KeptColumn>,
    /// Of a kept column that reads a call: its value for rows that do not reach the call by then.
    early: FxHashMap<(ColumnId, ColumnId), ColumnId>,
}

/// A column that is computed for the sake of guards.
#[derive(Clone)]
struct KeptColumn {
    e: Expr,
    /// The calls whose answers it reads, also by way of other kept columns.
    calls: BTreeSet<ColumnId>,
    /// How many ways to each call were known when it was made: all that lie in it, or before it.
    known: FxHashMap<ColumnId, usize>,
}

impl<'g, 'a> Guards<'g, 'a> {
    fn new(binder: &'g mut Binder<'a>, calls: Vec<ExternalCall>) -> Guards<'g, 'a> {
        Guards { binder, calls, ways: FxHashMap::default(), kept: BTreeMap::new(), early: FxHashMap::default() }
    }

    /// Takes note of the calls that every row reaches: nothing needs to be computed for their sake.
    fn note_certain(&mut self, e: &Expr) {
        let mut open = vec![e];
        while let Some(e) = open.pop() {
            match e {
                Expr::Slot(id) if self.is_call(*id) => self.ways.entry(*id).or_default().push(Vec::new()),
                Expr::And(first, _) | Expr::Or(first, _) => open.push(first),
                Expr::Case { branches, otherwise } => {
                    open.push(branches.first().map_or(otherwise.as_ref(), |(when, _)| when));
                }
                Expr::Builtin { function, args, .. } if function.stops_early => open.extend(args.first()),
                other => open.extend(other.children()),
            }
        }
    }

    fn note_certain_arguments(&mut self) {
        // the argument of a call reads calls before it only
        for i in (0..self.calls.len()).rev() {
            let Some(call) = self.calls.get(i) else { continue };
            if self.is_reached(call.out, &[]) {
                let argument = call.argument.clone();
                self.note_certain(&argument);
            }
        }
    }

    fn is_call(&self, id: ColumnId) -> bool {
        self.calls.iter().any(|call| call.out == id)
    }

    /// Whether a call is known to be made wherever these conditions hold.
    fn is_reached(&self, id: ColumnId, way: &[Expr]) -> bool {
        let same = |(a, b): (&Expr, &Expr)| same(a, b, &|a, b| a == b);
        let is_known = |known: &Vec<Expr>| known.len() <= way.len() && known.iter().zip(way).all(same);
        self.ways.get(&id).is_some_and(|ways| ways.iter().any(is_known))
    }

    /// Whether it reads an answer that may not be there.
    fn is_open(&self, e: &Expr, way: &[Expr]) -> bool {
        reads(e, &|id| self.is_call(id) && !self.is_reached(id, way))
    }

    /// The expression over what is computed before its calls; the calls in it are reached on this way.
    fn reach(&mut self, e: &Expr, way: &[Expr]) -> Expr {
        if !self.is_open(e, way) {
            return e.clone();
        }
        match e {
            Expr::Slot(id) => {
                self.ways.entry(*id).or_default().push(way.to_vec());
                e.clone()
            }
            Expr::And(a, b) => {
                let a = self.reach(a, way);
                if !self.is_open(b, way) {
                    return Expr::And(Box::new(a), b.clone());
                }
                let a = self.keep("condition", a, way);
                let b = self.reach(b, &with(way, a.clone()));
                Expr::And(Box::new(a), Box::new(b))
            }
            Expr::Or(a, b) => {
                let a = self.reach(a, way);
                if !self.is_open(b, way) {
                    return Expr::Or(Box::new(a), b.clone());
                }
                let a = self.keep("condition", a, way);
                let b = self.reach(b, &with(way, Expr::Not(Box::new(a.clone()))));
                Expr::Or(Box::new(a), Box::new(b))
            }
            Expr::Case { branches, otherwise } => self.case(branches, otherwise, way),
            Expr::Builtin { function, args, span } if function.stops_early => self.first(function, args, *span, way),
            other => {
                let mut is_whole = true;
                rewrite(other, &mut |part| match std::mem::take(&mut is_whole) {
                    true => None,
                    false => Some(self.reach(part, way)),
                })
            }
        }
    }

    /// The branch that a row takes is computed as a number; a condition behind the first that needs a call itself is
    /// the first of a CASE in ELSE.
    fn case(&mut self, branches: &[(Expr, Expr)], otherwise: &Expr, way: &[Expr]) -> Expr {
        let Some(((first, then), rest)) = branches.split_first() else { return self.reach(otherwise, way) };
        let first = self.reach(first, way);
        if !self.is_open(then, way) && !self.is_open_case(rest, otherwise, way) {
            let branches = std::iter::once((first, then.clone())).chain(rest.iter().cloned()).collect();
            return Expr::Case { branches, otherwise: Box::new(otherwise.clone()) };
        }
        let plain = rest.iter().take_while(|(when, _)| !self.is_open(when, way)).count();
        let (plain, behind) = rest.split_at(plain);
        let conditions = std::iter::once(&first).chain(plain.iter().map(|(when, _)| when));
        let numbered = (1..).zip(conditions).map(|(i, when)| (when.clone(), number(i))).collect();
        let branch = Expr::Case { branches: numbered, otherwise: Box::new(number(0)) };
        let branch = self.keep("branch", branch, way);
        let is = |i: i64| {
            let (branch, i) = (Box::new(branch.clone()), Box::new(number(i)));
            Expr::Binary(BinaryOp::Eq, branch, i, Span::default())
        };
        let thens = std::iter::once(then).chain(plain.iter().map(|(_, then)| then));
        let branches =
            (1..).zip(thens).map(|(i, then)| (is(i), self.reach(then, &with(way, is(i))))).collect::<Vec<_>>();
        let way = with(way, is(0));
        let otherwise = match behind {
            [] => self.reach(otherwise, &way),
            behind => match self.is_open_case(behind, otherwise, &way) {
                true => self.case(behind, otherwise, &way),
                false => Expr::Case { branches: behind.to_vec(), otherwise: Box::new(otherwise.clone()) },
            },
        };
        Expr::Case { branches, otherwise: Box::new(otherwise) }
    }

    fn is_open_case(&self, branches: &[(Expr, Expr)], otherwise: &Expr, way: &[Expr]) -> bool {
        let in_branch = |(when, then): &(Expr, Expr)| self.is_open(when, way) || self.is_open(then, way);
        branches.iter().any(in_branch) || self.is_open(otherwise, way)
    }

    /// The first value that is not NULL: those before a call are one column.
    fn first(&mut self, function: &'static Builtin, args: &[Expr], span: Span, way: &[Expr]) -> Expr {
        let whole = |args: Vec<Expr>| Expr::Builtin { function, args, span };
        let Some((first, rest)) = args.split_first() else { return whole(Vec::new()) };
        let mut before = vec![self.reach(first, way)];
        let plain = rest.iter().take_while(|arg| !self.is_open(arg, way)).count();
        let (plain, behind) = rest.split_at(plain);
        before.extend(plain.iter().cloned());
        if behind.is_empty() {
            return whole(before);
        }
        let value = match before.as_slice() {
            [value] => value.clone(),
            _ => whole(before),
        };
        let value = self.keep("value", value, way);
        let way = with(way, Expr::IsNull { negated: false, operand: Box::new(value.clone()) });
        let behind = match behind {
            [last] => self.reach(last, &way),
            several => self.first(function, several, span, &way),
        };
        whole(vec![value, behind])
    }

    /// A column with the value of the expression for rows of this way.
    fn keep(&mut self, name: &'static str, e: Expr, way: &[Expr]) -> Expr {
        if matches!(e, Expr::Slot(_) | Expr::Const(_)) {
            return e;
        }
        let ty = self.binder.type_of(&e);
        let e = match conjunction(way.iter().cloned()) {
            Some(reached) => Expr::Case { branches: vec![(reached, e)], otherwise: Box::new(null()) },
            None => e,
        };
        let is_same = |known: &Expr| same(known, &e, &|a, b| self.binder.same_column(a, b));
        // what a function answers may differ from call to call
        let is_fixed = !e.any(&|part| matches!(part, Expr::Udf { .. }));
        if let Some((id, _)) = self.kept.iter().find(|(_, known)| is_fixed && is_same(&known.e)) {
            return Expr::Slot(*id);
        }
        let info = ColumnInfo { name: SmolStr::new_static(name), ty, ..ColumnInfo::default() };
        let known = self.ways.iter().map(|(call, ways)| (*call, ways.len())).collect();
        Expr::Slot(self.add(info, e, known))
    }

    fn add(&mut self, info: ColumnInfo, e: Expr, known: FxHashMap<ColumnId, usize>) -> ColumnId {
        let mut calls = BTreeSet::new();
        each_slot(&e, &mut |id| match self.kept.get(&id) {
            Some(kept) => calls.extend(&kept.calls),
            None if self.is_call(id) => drop(calls.insert(id)),
            None => {}
        });
        let id = self.binder.column(info);
        self.kept.insert(id, KeptColumn { e, calls, known });
        id
    }

    /// The expression for rows that do not reach the call in it: over what is known before the call.
    fn before(&mut self, e: &Expr, call: ColumnId) -> Expr {
        rewrite(e, &mut |part| match part {
            Expr::Slot(id) if *id == call => Some(null()),
            Expr::Slot(id) if self.kept.get(id).is_some_and(|kept| kept.calls.contains(&call)) => {
                Some(Expr::Slot(self.early(*id, call)))
            }
            _ => None,
        })
    }

    /// Splits a column that reads a call: for rows that do not reach the call in it, or on a way before it, it is
    /// computed before the call, so that it may decide whether they reach it later.
    fn early(&mut self, id: ColumnId, call: ColumnId) -> ColumnId {
        if let Some(early) = self.early.get(&(id, call)) {
            return *early;
        }
        let Some(KeptColumn { e, known, .. }) = self.kept.get(&id).cloned() else { return id };
        let ways = self.ways.get(&call).cloned().unwrap_or_default();
        let known_ways = known.get(&call).copied().unwrap_or_default();
        let reached = self.any_of(ways.get(..known_ways).unwrap_or_default(), call).unwrap_or_else(|| number(0));
        let e_before = self.before(&e, call);
        let either = |then: Expr, otherwise: Expr| Expr::Case {
            branches: vec![(reached.clone(), then)],
            otherwise: Box::new(otherwise),
        };
        let info = self.binder.columns.get(id).cloned().unwrap_or_default();
        let early = self.add(info, either(null(), e_before), known);
        self.early.insert((id, call), early);
        if let Some(kept) = self.kept.get_mut(&id) {
            kept.e = either(e, Expr::Slot(early));
        }
        early
    }

    /// Whether a row comes to the call on any of these ways, as known before the call. `None`: every row does.
    fn any_of(&mut self, ways: &[Vec<Expr>], call: ColumnId) -> Option<Expr> {
        let mut reached = Vec::with_capacity(ways.len());
        for way in ways {
            let conditions: Vec<Expr> = way.iter().map(|condition| self.before(condition, call)).collect();
            reached.push(conjunction(conditions)?);
        }
        disjunction(reached)
    }

    /// Puts the calls that are reached on top of `rel`, and what was computed for them. `is_last`: nothing comes behind
    /// that could need the others.
    fn put(mut self, rel: Rel, is_last: bool) -> MadeCalls {
        let calls = std::mem::take(&mut self.calls);
        let mut ready: Vec<(ColumnId, ReadyCall)> = Vec::with_capacity(calls.len());
        let mut made = MadeCalls { rel, open: Vec::new(), guarded: Vec::new() };
        // the argument of a call reads calls before it only, so all ways to a call are known when it is its turn
        self.calls.clone_from(&calls);
        for call in calls.into_iter().rev() {
            let Some(ways) = self.ways.get(&call.out).cloned() else {
                made.open.push(call);
                continue;
            };
            let guard = self.any_of(&ways, call.out).map(|guard| match is_last {
                true => guard,
                // conditions behind ask for it
                false => self.keep("reached", guard, &[]),
            });
            let way: Vec<Expr> = match &guard {
                Some(guard) if self.is_open(&call.argument, &[]) => vec![self.keep("reached", guard.clone(), &[])],
                _ => Vec::new(),
            };
            let argument = self.reach(&call.argument, &way);
            let ExternalCall { out, function, span, .. } = &call;
            let (out, function, span) = (*out, function.clone(), *span);
            if let Some(guard) = guard.clone().filter(|_| !is_last) {
                made.guarded.push(GuardedCall { call, guard });
            }
            ready.push((out, ReadyCall { function, argument, guard, span }));
        }
        made.open.reverse();
        made.guarded.reverse();
        ready.reverse();
        let order: Vec<ColumnId> = ready.iter().map(|(id, _)| *id).chain(self.kept.keys().copied()).collect();
        let Guards { binder, kept, .. } = self;
        let at = ready.first().map(|(_, call)| call.span).unwrap_or_default();
        if kept.len() > KEPT_MAX {
            let problem = Diagnostic::error("too many conditions decide about calls that leave the gateway", at)
                .label(format!("more than {KEPT_MAX}"));
            binder.problem(problem.help("make the call in a step of WITH, and use its column in the conditions"));
        }
        let columns = kept.into_iter().map(|(id, kept)| (id, PutColumn::Kept(kept.e)));
        let columns = columns.chain(ready.into_iter().map(|(id, call)| (id, PutColumn::Answer(call)))).collect();
        let mut put = Put { binder, columns, under_way: FxHashSet::default(), at, rel: Some(made.rel) };
        order.into_iter().for_each(|id| put.column(id));
        made.rel = put.rel.unwrap_or_else(|| super::relation::Relation::poisoned().rel);
        if is_last {
            // nobody reads them
            made.open.clear();
        }
        made
    }
}

enum PutColumn {
    Kept(Expr),
    Answer(ReadyCall),
}

/// Columns on their way into a relation, each behind those that it reads.
struct Put<'g, 'a> {
    binder: &'g mut Binder<'a>,
    columns: FxHashMap<ColumnId, PutColumn>,
    /// Taken out of `columns`, and not there yet.
    under_way: FxHashSet<ColumnId>,
    /// The call that is under way, for messages.
    at: Span,
    rel: Option<Rel>,
}

impl Put<'_, '_> {
    fn column(&mut self, id: ColumnId) {
        let Some(column) = self.columns.remove(&id) else { return };
        self.under_way.insert(id);
        let mut before = Vec::new();
        match &column {
            PutColumn::Kept(e) => each_slot(e, &mut |id| before.push(id)),
            PutColumn::Answer(call) => {
                self.at = call.span;
                call.guard.iter().chain([&call.argument]).for_each(|e| each_slot(e, &mut |id| before.push(id)));
            }
        }
        for read in before {
            match self.under_way.contains(&read) {
                true => self.binder.problem(each_decides(self.at)),
                false => self.column(read),
            }
        }
        self.under_way.remove(&id);
        self.rel = self.rel.take().map(|rel| {
            let input = Box::new(rel);
            match column {
                PutColumn::Kept(e) => Rel::Extend { input, exprs: vec![(id, e)] },
                PutColumn::Answer(ReadyCall { function, argument, guard, span }) => {
                    Rel::External { input, function, argument, guard, out: id, span }
                }
            }
        });
    }
}

/// Two calls of which each may have to wait for the other.
fn each_decides(span: Span) -> Diagnostic {
    Diagnostic::error("two calls that leave the gateway decide about each other", span)
        .label("the answer of one decides whether the other is made, and the other way round")
        .help(
            "make one of them for every row in a step, `WITH s AS (SELECT …, udf.f(x) AS y FROM …)`, and use the \
            column there",
        )
}

fn with(way: &[Expr], condition: Expr) -> Vec<Expr> {
    way.iter().cloned().chain([condition]).collect()
}

fn number(i: i64) -> Expr {
    Expr::Const(Value::BigInt(i))
}

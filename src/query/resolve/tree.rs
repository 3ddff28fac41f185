//! Walking, rewriting and comparing compiled expressions.
//!
//! In: expressions. Out: their parts, a rebuilt copy, or whether two mean the same. Invariant: spans never matter here.
//! Not here: what a slot refers to (the caller says when two slots are one).

use crate::query::plan::{Aggregate, Analytic, Expr};
use crate::value::{Value, same_ignoring_case};

/// Calls `f` with every slot that the expression reads.
pub(super) fn each_slot(expr: &Expr, f: &mut dyn FnMut(usize)) {
    expr.each(&mut |part| {
        if let Expr::Slot(id) = part {
            f(*id);
        }
    });
}

/// Whether the expression reads a slot that `is` says yes to.
pub(super) fn reads(expr: &Expr, is: &dyn Fn(usize) -> bool) -> bool {
    expr.any(&|part| matches!(part, Expr::Slot(id) if is(*id)))
}

/// Whether the expression reads the row's event time.
pub(super) fn reads_time(expr: &Expr) -> bool {
    expr.any(&|part| matches!(part, Expr::Time))
}

/// A copy in which everything that `f` answers is replaced by its answer; below that nothing is visited.
pub(super) fn rewrite(expr: &Expr, f: &mut dyn FnMut(&Expr) -> Option<Expr>) -> Expr {
    if let Some(new) = f(expr) {
        return new;
    }
    let mut boxed = |e: &Expr| Box::new(rewrite(e, f));
    match expr {
        Expr::Const(_) | Expr::Slot(_) | Expr::Time | Expr::Arrival | Expr::Substream => expr.clone(),
        Expr::Path(e, names) => Expr::Path(boxed(e), names.clone()),
        Expr::Record(fields) => Expr::Record(fields.iter().map(|(n, e)| (n.clone(), rewrite(e, f))).collect()),
        Expr::Spread(columns, values) => Expr::Spread(columns.clone(), all(values, f)),
        Expr::Not(e) => Expr::Not(boxed(e)),
        Expr::Try(e) => Expr::Try(boxed(e)),
        Expr::Negate(e, span) => Expr::Negate(boxed(e), *span),
        Expr::BitNot(e, span) => Expr::BitNot(boxed(e), *span),
        Expr::And(a, b) => Expr::And(boxed(a), boxed(b)),
        Expr::Or(a, b) => Expr::Or(boxed(a), boxed(b)),
        Expr::Binary(op, a, b, span) => Expr::Binary(*op, boxed(a), boxed(b), *span),
        Expr::IsNull { negated, operand } => Expr::IsNull { negated: *negated, operand: boxed(operand) },
        Expr::Between { negated, operand, low, high } => {
            Expr::Between { negated: *negated, operand: boxed(operand), low: boxed(low), high: boxed(high) }
        }
        Expr::In { negated, operand, list } => {
            Expr::In { negated: *negated, operand: boxed(operand), list: all(list, f) }
        }
        Expr::Like { negated, operand, pattern, escape } => Expr::Like {
            negated: *negated,
            operand: boxed(operand),
            pattern: boxed(pattern),
            escape: escape.as_ref().map(|e| Box::new(rewrite(e, f))),
        },
        Expr::Case { branches, otherwise } => Expr::Case {
            branches: branches.iter().map(|(when, then)| (rewrite(when, f), rewrite(then, f))).collect(),
            otherwise: Box::new(rewrite(otherwise, f)),
        },
        Expr::Cast { is_try, operand, ty, span } => {
            Expr::Cast { is_try: *is_try, operand: boxed(operand), ty: *ty, span: *span }
        }
        Expr::Builtin { function, args, span } => Expr::Builtin { function, args: all(args, f), span: *span },
        Expr::Udf { index, name, args, span, keeps_state } => {
            Expr::Udf { index: *index, name: name.clone(), args: all(args, f), span: *span, keeps_state: *keeps_state }
        }
    }
}

fn all(list: &[Expr], f: &mut dyn FnMut(&Expr) -> Option<Expr>) -> Vec<Expr> {
    list.iter().map(|e| rewrite(e, f)).collect()
}

/// Rewrites every expression of an analytic call.
pub(super) fn rewrite_analytic(call: &Analytic, f: &mut dyn FnMut(&Expr) -> Option<Expr>) -> Analytic {
    Analytic {
        function: call.function.clone(),
        argument: call.argument.as_ref().map(|e| rewrite(e, f)),
        default: call.default.as_ref().map(|e| rewrite(e, f)),
        partition_by: all(&call.partition_by, f),
        order_by: call.order_by.iter().map(|(e, descending)| (rewrite(e, f), *descending)).collect(),
        limit: call.limit,
        when: call.when.as_ref().map(|e| rewrite(e, f)),
        span: call.span,
    }
}

/// Rewrites every expression of an aggregate.
pub(super) fn rewrite_aggregate(aggregate: &Aggregate, f: &mut dyn FnMut(&Expr) -> Option<Expr>) -> Aggregate {
    Aggregate {
        function: aggregate.function.clone(),
        argument: aggregate.argument.as_ref().map(|e| rewrite(e, f)),
        user_args: all(&aggregate.user_args, f),
        distinct: aggregate.distinct,
        order_by: aggregate.order_by.iter().map(|(e, descending)| (rewrite(e, f), *descending)).collect(),
        span: aggregate.span,
    }
}

/// When two slots stand for the same column.
pub(super) type SameSlot<'a> = &'a dyn Fn(usize, usize) -> bool;

/// Whether two expressions give the same value for every row.
pub(super) fn same(a: &Expr, b: &Expr, slots: SameSlot<'_>) -> bool {
    same_head(a, b, slots) && same_all(&a.children(), &b.children(), slots)
}

fn same_all(a: &[&Expr], b: &[&Expr], slots: SameSlot<'_>) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b, slots))
}

fn same_head(a: &Expr, b: &Expr, slots: SameSlot<'_>) -> bool {
    match (a, b) {
        (Expr::Const(a), Expr::Const(b)) => same_constant(a, b),
        (Expr::Slot(a), Expr::Slot(b)) => slots(*a, *b),
        (Expr::Path(_, a), Expr::Path(_, b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_ignoring_case(a, b))
        }
        (Expr::Record(a), Expr::Record(b)) => a.len() == b.len() && a.iter().zip(b).all(|((a, _), (b, _))| a == b),
        (Expr::Spread(a, _), Expr::Spread(b, _)) => a == b,
        (Expr::Binary(a, ..), Expr::Binary(b, ..)) => a == b,
        (Expr::IsNull { negated: a, .. }, Expr::IsNull { negated: b, .. })
        | (Expr::Between { negated: a, .. }, Expr::Between { negated: b, .. })
        | (Expr::In { negated: a, .. }, Expr::In { negated: b, .. })
        | (Expr::Like { negated: a, .. }, Expr::Like { negated: b, .. }) => a == b,
        (Expr::Cast { is_try: a, ty: s, .. }, Expr::Cast { is_try: b, ty: t, .. }) => a == b && s == t,
        (Expr::Builtin { function: a, .. }, Expr::Builtin { function: b, .. }) => std::ptr::eq(*a, *b),
        (Expr::Udf { index: a, .. }, Expr::Udf { index: b, .. }) => a == b,
        _ => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

/// `1` and `1.0` are different constants: a bigint and a float divide differently.
fn same_constant(a: &Value, b: &Value) -> bool {
    a.kind() == b.kind() && a == b
}

/// Whether two aggregates give the same value for every group.
pub(super) fn same_aggregate(a: &Aggregate, b: &Aggregate, slots: SameSlot<'_>) -> bool {
    a.function == b.function
        && a.distinct == b.distinct
        && a.argument.is_some() == b.argument.is_some()
        && a.order_by.iter().map(|(_, d)| d).eq(b.order_by.iter().map(|(_, d)| d))
        && same_all(&a.exprs(), &b.exprs(), slots)
}

/// Whether two analytic calls give the same value for every row.
pub(super) fn same_analytic(a: &Analytic, b: &Analytic, slots: SameSlot<'_>) -> bool {
    a.function == b.function
        && a.limit == b.limit
        && a.argument.is_some() == b.argument.is_some()
        && a.default.is_some() == b.default.is_some()
        && a.when.is_some() == b.when.is_some()
        && a.partition_by.len() == b.partition_by.len()
        && a.order_by.iter().map(|(_, d)| d).eq(b.order_by.iter().map(|(_, d)| d))
        && same_all(&a.exprs(), &b.exprs(), slots)
}

/// The operands of a chain of `AND`, from left to right.
pub(super) fn conjuncts(expr: Expr) -> Vec<Expr> {
    let mut found = Vec::new();
    let mut open = vec![expr];
    while let Some(expr) = open.pop() {
        match expr {
            Expr::And(a, b) => {
                open.push(*b);
                open.push(*a);
            }
            other => found.push(other),
        }
    }
    found
}

/// All of them joined by `AND`; `None` for none.
pub(super) fn conjunction(list: impl IntoIterator<Item = Expr>) -> Option<Expr> {
    list.into_iter().reduce(|a, b| Expr::And(Box::new(a), Box::new(b)))
}

/// All of them joined by `OR`, as flat as can be; `None` for none.
pub(super) fn disjunction(mut list: Vec<Expr>) -> Option<Expr> {
    match list.len() {
        0 | 1 => list.pop(),
        n => {
            let right = disjunction(list.split_off(n / 2))?;
            Some(Expr::Or(Box::new(disjunction(list)?), Box::new(right)))
        }
    }
}

/// Both conditions as one.
pub(super) fn both(a: Option<Expr>, b: Option<Expr>) -> Option<Expr> {
    conjunction(a.into_iter().chain(b))
}

/// The first of two values that is not NULL, without a call.
pub(super) fn first_of(value: Expr, otherwise: Expr) -> Expr {
    let present = Expr::IsNull { negated: true, operand: Box::new(value.clone()) };
    Expr::Case { branches: vec![(present, value)], otherwise: Box::new(otherwise) }
}

/// Stands for a value after an error.
pub(super) fn null() -> Expr {
    Expr::Const(Value::Null)
}

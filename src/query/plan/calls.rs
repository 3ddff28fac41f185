//! Calls of user functions in a plan, by the operator that makes them.
//!
//! In: plans. Out: their calls. Invariant: an operator makes its calls row by row, in the order of its rows, which no cut of
//! the input changes; between operators there is no such order. Not here: which functions keep state (`catalog`).

use super::{Aggregate, Analytic, Expr, Node};
use crate::diagnostic::Span;

/// A call of a local function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalCall {
    pub index: usize,
    pub span: Span,
    pub keeps_state: bool,
}

/// The calls of a tree, a list an operator.
pub fn of_node(node: &Node) -> Vec<Vec<LocalCall>> {
    let mut found = Vec::new();
    collect(node, &mut found);
    found
}

fn collect(node: &Node, found: &mut Vec<Vec<LocalCall>>) {
    let mut calls = Vec::new();
    expressions(node).into_iter().for_each(|e| of_expr(e, &mut calls));
    found.push(calls);
    match node {
        Node::Scan(_) | Node::Rows { .. } => {}
        Node::Filter { input, .. }
        | Node::Project { input, .. }
        | Node::Apply { input, .. }
        | Node::Aggregate { input, .. }
        | Node::Analytic { input, .. }
        | Node::Match { input, .. }
        | Node::ReferenceJoin { input, .. } => collect(input, found),
        Node::Join { left, right, .. } => {
            collect(left, found);
            collect(right, found);
        }
        Node::Union { inputs, .. } => inputs.iter().for_each(|input| collect(input, found)),
    }
}

fn of_expr(expr: &Expr, calls: &mut Vec<LocalCall>) {
    parts(expr).into_iter().for_each(|part| of_expr(part, calls));
    if let Expr::Udf { index, span, keeps_state, .. } = expr {
        calls.push(LocalCall { index: *index, span: *span, keeps_state: *keeps_state });
    }
}

/// What an operator itself evaluates.
fn expressions(node: &Node) -> Vec<&Expr> {
    match node {
        Node::Rows { .. } | Node::Union { .. } => Vec::new(),
        Node::Scan(scan) => scan.timestamp_by.iter().chain(&scan.over).collect(),
        Node::Filter { predicate, .. } => vec![predicate],
        Node::Project { exprs, .. } => exprs.iter().collect(),
        Node::Apply { argument, .. } => vec![argument],
        Node::Aggregate { keys, aggregates, .. } => keys.iter().chain(aggregates.iter().flat_map(aggregate_parts)).collect(),
        Node::Analytic { calls, .. } => calls.iter().flat_map(analytic_parts).collect(),
        Node::Match { plan, .. } => {
            let navigated = plan.navigations.iter().filter_map(|n| n.argument.as_ref());
            plan.partition_by.iter().chain(plan.define.iter().flatten()).chain(&plan.measures).chain(navigated).collect()
        }
        Node::Join { keys, on, .. } | Node::ReferenceJoin { keys, on, .. } => keys.iter().flat_map(|(a, b)| [a, b]).chain(on).collect(),
    }
}

/// The expressions of an analytic call.
pub fn analytic_parts(call: &Analytic) -> Vec<&Expr> {
    let order = call.order_by.iter().map(|(e, _)| e);
    call.argument.iter().chain(&call.default).chain(&call.partition_by).chain(order).chain(&call.when).collect()
}

/// The expressions of an aggregate.
pub fn aggregate_parts(aggregate: &Aggregate) -> Vec<&Expr> {
    aggregate.argument.iter().chain(&aggregate.user_args).chain(aggregate.order_by.iter().map(|(e, _)| e)).collect()
}

/// The operands of an expression, in order.
pub fn parts(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Const(_) | Expr::Slot(_) | Expr::Time | Expr::Arrival => Vec::new(),
        Expr::Path(e, _) | Expr::Not(e) | Expr::Try(e) | Expr::Negate(e, _) | Expr::BitNot(e, _) => vec![e],
        Expr::Record(fields) => fields.iter().map(|(_, e)| e).collect(),
        Expr::Spread(_, values) => values.iter().collect(),
        Expr::And(a, b) | Expr::Or(a, b) | Expr::Binary(_, a, b, _) => vec![a, b],
        Expr::IsNull { operand, .. } | Expr::Cast { operand, .. } => vec![operand],
        Expr::Between { operand, low, high, .. } => vec![operand, low, high],
        Expr::In { operand, list, .. } => std::iter::once(operand.as_ref()).chain(list).collect(),
        Expr::Like { operand, pattern, escape, .. } => {
            let mut parts = vec![operand.as_ref(), pattern.as_ref()];
            parts.extend(escape.as_deref());
            parts
        }
        Expr::Case { branches, otherwise } => {
            branches.iter().flat_map(|(when, then)| [when, then]).chain(std::iter::once(otherwise.as_ref())).collect()
        }
        Expr::Builtin { args, .. } | Expr::Udf { args, .. } => args.iter().collect(),
    }
}

//! Calls of user functions in a plan, by the operator that makes them.
//!
//! In: plans. Out: their calls. Invariant: an operator makes its calls row by row, in the order of its rows, which no
//! cut of the input changes; between operators there is no such order. Not here: which functions keep state
//! (`catalog`).

use super::expr::Expr;
use super::node::Node;
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
    node.nodes().map(of_operator).collect()
}

fn of_operator(node: &Node) -> Vec<LocalCall> {
    let mut calls = Vec::new();
    let mut note = |expr: &Expr| {
        if let Expr::Udf { index, span, keeps_state, .. } = expr {
            calls.push(LocalCall { index: *index, span: *span, keeps_state: *keeps_state });
        }
    };
    node.exprs().into_iter().for_each(|expr| expr.each(&mut note));
    calls
}

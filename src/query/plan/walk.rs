//! The walk over nodes and expressions: the one place that knows what each holds.
//!
//! In: a node or an expression. Out: what lies directly below it, or all of it. Invariant: children come in the order
//! in which they are evaluated; a new kind does not compile before its children are named here. Not here: what a walk
//! looks for.

use super::aggregate::Aggregate;
use super::analytic::Analytic;
use super::expr::Expr;
use super::node::Node;

impl Node {
    /// The nodes that feed it, from the left.
    pub fn children(&self) -> Vec<&Node> {
        match self {
            Node::Scan(_) | Node::Rows { .. } => Vec::new(),
            Node::Filter { input, .. }
            | Node::Project { input, .. }
            | Node::Apply { input, .. }
            | Node::Aggregate { input, .. }
            | Node::Analytic { input, .. }
            | Node::Match { input, .. }
            | Node::ReferenceJoin { input, .. } => vec![input],
            Node::Join { left, right, .. } => vec![left, right],
            Node::Union { inputs, .. } => inputs.iter().collect(),
        }
    }

    /// It and all nodes below it: a node comes before those that feed it, the left ones before the right ones.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        let mut open = vec![self];
        std::iter::from_fn(move || {
            let node = open.pop()?;
            open.extend(node.children().into_iter().rev());
            Some(node)
        })
    }

    /// The expressions that it evaluates itself.
    pub fn exprs(&self) -> Vec<&Expr> {
        match self {
            Node::Rows { .. } | Node::Union { .. } => Vec::new(),
            Node::Scan(scan) => scan.timestamp_by.iter().chain(&scan.over).collect(),
            Node::Filter { predicate, .. } => vec![predicate],
            Node::Project { exprs, .. } => exprs.iter().collect(),
            Node::Apply { argument, .. } => vec![argument],
            Node::Aggregate { keys, aggregates, .. } => {
                keys.iter().chain(aggregates.iter().flat_map(Aggregate::exprs)).collect()
            }
            Node::Analytic { calls, .. } => calls.iter().flat_map(Analytic::exprs).collect(),
            Node::Match { plan, .. } => {
                let navigated = plan.navigations.iter().filter_map(|n| n.argument.as_ref());
                plan.partition_by
                    .iter()
                    .chain(plan.define.iter().flatten())
                    .chain(&plan.measures)
                    .chain(navigated)
                    .collect()
            }
            Node::Join { keys, on, .. } | Node::ReferenceJoin { keys, on, .. } => {
                keys.iter().flat_map(|(a, b)| [a, b]).chain(on).collect()
            }
        }
    }
}

impl Analytic {
    /// Its expressions.
    pub fn exprs(&self) -> Vec<&Expr> {
        let order = self.order_by.iter().map(|(e, _)| e);
        self.argument.iter().chain(&self.default).chain(&self.partition_by).chain(order).chain(&self.when).collect()
    }
}

impl Aggregate {
    /// Its expressions.
    pub fn exprs(&self) -> Vec<&Expr> {
        let order = self.order_by.iter().map(|(e, _)| e);
        self.argument.iter().chain(&self.user_args).chain(order).collect()
    }
}

impl Expr {
    /// Its operands, in order.
    pub fn children(&self) -> Vec<&Expr> {
        match self {
            Expr::Const(_) | Expr::Slot(_) | Expr::Time | Expr::Arrival | Expr::Substream => Vec::new(),
            Expr::Path(e, _) | Expr::Not(e) | Expr::Try(e) | Expr::Negate(e, _) | Expr::BitNot(e, _) => vec![e],
            Expr::Record(fields) => fields.iter().map(|(_, e)| e).collect(),
            Expr::Spread(_, values) => values.iter().collect(),
            Expr::And(a, b) | Expr::Or(a, b) | Expr::Binary(_, a, b, _) => vec![a, b],
            Expr::IsNull { operand, .. } | Expr::Cast { operand, .. } => vec![operand],
            Expr::Between { operand, low, high, .. } => vec![operand, low, high],
            Expr::In { operand, list, .. } => std::iter::once(operand.as_ref()).chain(list).collect(),
            Expr::Like { operand, pattern, escape, .. } => {
                [operand.as_ref(), pattern.as_ref()].into_iter().chain(escape.as_deref()).collect()
            }
            Expr::Case { branches, otherwise } => {
                let branches = branches.iter().flat_map(|(when, then)| [when, then]);
                branches.chain(std::iter::once(otherwise.as_ref())).collect()
            }
            Expr::Builtin { args, .. } | Expr::Udf { args, .. } => args.iter().collect(),
        }
    }

    /// Calls `f` with all operands, theirs included, then with the expression itself.
    pub fn each<'e>(&'e self, f: &mut dyn FnMut(&'e Expr)) {
        self.children().into_iter().for_each(|child| child.each(f));
        f(self);
    }

    /// Whether `is` says yes to it, or to anything below it.
    pub fn any(&self, is: &dyn Fn(&Expr) -> bool) -> bool {
        is(self) || self.children().into_iter().any(|child| child.any(is))
    }
}

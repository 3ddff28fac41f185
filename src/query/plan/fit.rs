//! Whether the expressions of a plan fit the rows that they read.
//!
//! In: a part. Out: what does not fit, if anything. Invariant: in a part that fits no expression reads a slot that its
//! rows do not have, which the engine relies on. Not here: types of values.

use super::Part;
use super::aggregate::Aggregate;
use super::analytic::Analytic;
use super::expr::Expr;
use super::node::Node;

/// What does not fit in a part: slots past the width of rows, or rows of another width than what reads them.
pub fn misfit(part: &Part) -> Option<String> {
    let tail = part.external.as_ref().map(|external| &external.tail);
    let found = part.root.nodes().chain(tail.into_iter().flat_map(Node::nodes)).find_map(of_node);
    found.or_else(|| {
        let (given, columns) = (tail.unwrap_or(&part.root).width(), part.columns.len());
        (given != columns).then(|| format!("a part of the plan gives {given} columns and names {columns}"))
    })
}

fn of_node(node: &Node) -> Option<String> {
    let slots = |exprs: Vec<&Expr>, width: usize| exprs.into_iter().find_map(|e| past(e, width));
    match node {
        Node::Scan(scan) => slots(scan.timestamp_by.iter().chain(&scan.over).collect(), scan.columns.len()),
        Node::Rows { .. } => None,
        Node::Filter { input, predicate } => slots(vec![predicate], input.width()),
        Node::Project { input, exprs } => slots(exprs.iter().collect(), input.width()),
        Node::Apply { input, argument, .. } => slots(vec![argument], input.width()),
        Node::Aggregate { input, keys, aggregates, .. } => {
            slots(keys.iter().chain(aggregates.iter().flat_map(Aggregate::exprs)).collect(), input.width())
        }
        Node::Analytic { input, calls, .. } => slots(calls.iter().flat_map(Analytic::exprs).collect(), input.width()),
        Node::Match { input, plan, .. } => {
            let width = input.width();
            let of_rows = plan.partition_by.iter().chain(plan.navigations.iter().filter_map(|n| n.argument.as_ref()));
            let of_matches = plan.define.iter().flatten().chain(&plan.measures).collect();
            slots(of_rows.collect(), width).or_else(|| slots(of_matches, width + plan.navigations.len()))
        }
        Node::Join { left, right, keys, on, .. } => {
            let (lefts, rights) = keys.iter().map(|(l, r)| (l, r)).unzip();
            slots(lefts, left.width())
                .or_else(|| slots(rights, right.width()))
                .or_else(|| slots(on.iter().collect(), node.width()))
        }
        Node::ReferenceJoin { input, keys, on, .. } => {
            let (lefts, records) = keys.iter().map(|(l, r)| (l, r)).unzip();
            slots(lefts, input.width())
                .or_else(|| slots(records, 1))
                .or_else(|| slots(on.iter().collect(), node.width()))
        }
        Node::Union { inputs, .. } => {
            let width = node.width();
            let other = inputs.iter().map(Node::width).find(|given| *given != width)?;
            Some(format!("branches of a union give {width} and {other} columns"))
        }
    }
}

/// A slot that the expression reads at or past `width`.
fn past(expr: &Expr, width: usize) -> Option<String> {
    let mut found = None;
    expr.each(&mut |part| {
        if let Expr::Slot(slot) = part
            && *slot >= width
        {
            found = Some(format!("the plan reads column {slot} of rows of {width}"));
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(slot: usize, width: usize) -> Part {
        let (input, predicate) = (Box::new(Node::Rows { width }), Expr::Not(Box::new(Expr::Slot(slot))));
        let column = |i: usize| crate::batch::Column { name: format!("c{i}").into(), spread: false };
        let columns = (0..2).map(column).collect();
        Part { root: Node::Filter { input, predicate }, external: None, substream: None, columns }
    }

    #[test]
    fn a_slot_past_the_row_and_rows_of_another_width_do_not_fit() {
        assert_eq!(misfit(&filter(1, 2)), None);
        assert_eq!(misfit(&filter(2, 2)).as_deref(), Some("the plan reads column 2 of rows of 2"));
        let wide = misfit(&filter(1, 3));
        assert_eq!(wide.as_deref(), Some("a part of the plan gives 3 columns and names 2"));
    }

    #[test]
    fn branches_of_one_width_fit() {
        let of = |widths: [usize; 2]| Node::Union { inputs: widths.map(|width| Node::Rows { width }).to_vec(), id: 0 };
        assert_eq!(of_node(&of([2, 2])), None);
        assert_eq!(of_node(&of([2, 3])).as_deref(), Some("branches of a union give 2 and 3 columns"));
    }
}

//! From the nodes of a plan to operators: the one place that knows them all.
//!
//! In: a plan's [`Node`] and options. Out: an [`OperatorTree`]. Invariant: scans are numbered from the left, as the
//! executor numbers what feeds them; an operator that needs rows in time order has an input that gives them so. Not
//! here: running.

use super::aggregate::AggregateOp;
use super::analytic::AnalyticOp;
use super::apply::ApplyOp;
use super::filter::FilterOp;
use super::join::JoinOp;
use super::merge::MergeOp;
use super::operator::OperatorTree;
use super::options::{EngineError, ExecutorOptions};
use super::project::ProjectOp;
use super::recognize::MatchOp;
use super::reference::ReferenceOp;
use super::rows::RowsOp;
use super::scan::ScanOp;
use crate::query::plan::Node;

/// Operators that the engine puts in itself (sorting an unordered input) use ids of this range.
const OWN_IDS: u32 = 1 << 31;

/// The tree of a plan's node.
///
/// # Errors
/// The plan holds something that the engine cannot run.
pub(super) fn build(node: &Node, options: &ExecutorOptions) -> Result<OperatorTree, EngineError> {
    Builder { options, scans: 0 }.tree(node)
}

struct Builder<'a> {
    options: &'a ExecutorOptions,
    /// Scans met so far.
    scans: usize,
}

impl Builder<'_> {
    fn tree(&mut self, node: &Node) -> Result<OperatorTree, EngineError> {
        Ok(match node {
            Node::Scan(scan) => {
                let timed = scan.timestamp_by.is_some();
                let ingress = self.scans;
                self.scans += 1;
                OperatorTree::new(ScanOp::new(
                    scan.id,
                    scan.columns.len(),
                    ingress,
                    timed,
                    self.options.policies.out_of_order,
                ))
            }
            Node::Rows { width } => OperatorTree::new(RowsOp { width: *width }),
            Node::Filter { input, predicate } => {
                OperatorTree::new(FilterOp { input: self.tree(input)?, predicate: predicate.clone() })
            }
            Node::Project { input, exprs } => {
                OperatorTree::new(ProjectOp { input: self.tree(input)?, exprs: exprs.clone() })
            }
            Node::Apply { input, outer, function, argument, span } => OperatorTree::new(ApplyOp {
                input: self.tree(input)?,
                outer: *outer,
                function: *function,
                argument: argument.clone(),
                span: *span,
            }),
            Node::Aggregate { input, id, keys, windows, aggregates } => {
                OperatorTree::new(AggregateOp::new(self.ordered(input, *id)?, *id, keys, windows, aggregates))
            }
            Node::Analytic { input, id, calls } => {
                OperatorTree::new(AnalyticOp::new(self.ordered(input, *id)?, *id, calls)?)
            }
            Node::Match { input, id, plan } => OperatorTree::new(MatchOp::new(self.ordered(input, *id)?, *id, plan)),
            Node::Join { left, right, id, left_outer, bound, keys, on } => {
                let inputs = [self.tree(left)?, self.tree(right)?];
                OperatorTree::new(JoinOp::new(inputs, *id, *left_outer, *bound, keys, on.as_ref()))
            }
            Node::ReferenceJoin { input, reference, left_outer, keys, on } => {
                OperatorTree::new(ReferenceOp::new(self.tree(input)?, reference, *left_outer, keys, on.as_ref()))
            }
            Node::Union { inputs, id } => {
                let inputs = inputs.iter().map(|input| self.tree(input)).collect::<Result<_, _>>()?;
                OperatorTree::new(MergeOp::new(inputs, *id, node.width()))
            }
        })
    }

    /// The input of an operator that needs time order; sorted where it may lack it.
    fn ordered(&mut self, node: &Node, id: u32) -> Result<OperatorTree, EngineError> {
        let input = self.tree(node)?;
        if !input.is_unordered() {
            return Ok(input);
        }
        let width = input.width();
        Ok(OperatorTree::new(MergeOp::new(vec![input], id | OWN_IDS, width)))
    }
}

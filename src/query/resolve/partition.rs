//! `PARTITION BY` of an input or a step.
//!
//! In: a key as written. Out: a problem when it names nothing. Invariant: a key that partitions what a step reads goes
//! along with the rows, also where the step's SELECT list leaves it out; so does `PartitionId`, which the service gives
//! every event. Not here: any effect on the plan, as one job is one partition.

use super::core::Core;
use super::place::{Clause, Place};
use super::source::Has;
use crate::query::ast::{Expr, ExprKind, Ident, SelectCore, Step};
use crate::value::same_ignoring_case;

/// The number of the partition that an event of the service's Event Hubs and IoT Hubs came in.
const PARTITION_ID: &str = "PartitionId";

impl Core<'_, '_> {
    /// Checks the keys of a `PARTITION BY` against the sources in scope.
    pub(super) fn partition_keys(&mut self, keys: &[Expr]) {
        for key in keys {
            if !self.goes_along(key) {
                self.expr(key, Place::clause(Clause::PartitionBy));
            }
        }
    }

    /// Whether no source in scope has the key as a column, and the rows of one bring it along.
    fn goes_along(&self, key: &Expr) -> bool {
        let ExprKind::Path(path) = &key.kind else { return false };
        let (sources, column) = match path.as_slice() {
            [source, column @ ..] if !column.is_empty() && self.source_named(&source.name).is_some() => {
                let index = self.source_named(&source.name).unwrap_or_default();
                (index..index + 1, column)
            }
            column => (self.scope.clone(), column),
        };
        let Some(first) = column.first() else { return false };
        let sources = self.sources.get(sources).unwrap_or_default();
        sources.iter().all(|s| s.has(&first.name) == Has::No)
            && (matches!(column, [name] if same_ignoring_case(&name.name, PARTITION_ID))
                || sources.iter().filter_map(|s| s.of_step()).any(|step| self.is_partitioned_by(step, column)))
    }

    /// Whether a step, or one that it reads, has `column` in a `PARTITION BY`.
    fn is_partitioned_by(&self, step: usize, column: &[Ident]) -> bool {
        let steps = &self.binder.script.steps;
        // a step reads steps above it only; each is looked at once, however often it is read
        let mut read: Vec<bool> = (0..=step).map(|index| index == step).collect();
        for (index, step) in steps.iter().enumerate().take(step + 1).rev() {
            if !read.get(index).is_some_and(|is_read| *is_read) {
                continue;
            }
            for core in &step.body.cores {
                if keys(core).any(|key| names(key, column)) {
                    return true;
                }
                for name in core.from.sources().map(|source| &source.name) {
                    let above = |step: &Step| same_ignoring_case(&step.name.name, &name.name);
                    if let Some(at) = steps.iter().take(index).position(above)
                        && let Some(is_read) = read.get_mut(at)
                    {
                        *is_read = true;
                    }
                }
            }
        }
        false
    }
}

fn keys(core: &SelectCore) -> impl Iterator<Item = &Expr> {
    core.from.sources().flat_map(|source| &source.partition_by).chain(&core.partition_by)
}

/// Whether a key is `column`, or `source.column`.
fn names(key: &Expr, column: &[Ident]) -> bool {
    let ExprKind::Path(path) = &key.kind else { return false };
    let same = |path: &[Ident]| {
        path.len() == column.len() && path.iter().zip(column).all(|(a, b)| same_ignoring_case(&a.name, &b.name))
    };
    same(path) || path.split_first().is_some_and(|(_, below)| same(below))
}

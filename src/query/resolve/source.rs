//! The sources of one `SELECT`: what stands in its `FROM`.
//!
//! In: inputs, steps, reference data, `APPLY`. Out: [`ScopeSource`], and whether it has a column. Invariant: a scan
//! holds only the columns that were asked for. Not here: what paths mean (`scope`).

use smol_str::SmolStr;

use super::relation::{ColumnId, OutColumn, OverKey, Rel, find_named};
use crate::diagnostic::Span;
use crate::query::ast::ApplyFunction;
use crate::query::plan::{Analytic, Expr, ScanColumn, TableSchema};
use crate::value::same_ignoring_case;

/// An input, a step, reference data or an `APPLY` in a `FROM`.
pub(super) struct ScopeSource {
    /// What the query calls it: the alias, else its name.
    pub(super) name: SmolStr,
    /// The input or step it reads, as the job or the script spells it.
    pub(super) original: SmolStr,
    pub(super) kind: SourceKind,
    pub(super) over: Vec<OverKey>,
    pub(super) external: Option<Span>,
    pub(super) poisoned: bool,
    /// Analytic functions of its columns: evaluated over all its rows.
    pub(super) analytics: Vec<(ColumnId, Analytic)>,
    /// Its event time as a column, when a join needs it beside others.
    pub(super) time: Option<ColumnId>,
}

pub(super) enum SourceKind {
    Scan {
        input: SmolStr,
        tag: u32,
        columns: Vec<(ColumnId, ScanColumn)>,
        timestamp_by: Option<Expr>,
        keys: Vec<Expr>,
        schema: Option<TableSchema>,
    },
    Step {
        /// `None`: nothing has the name.
        index: Option<usize>,
        rel: Rel,
        columns: Vec<OutColumn>,
        opened: Vec<(SmolStr, Expr)>,
    },
    Reference {
        out: ColumnId,
        schema: Option<TableSchema>,
    },
    Apply {
        function: ApplyFunction,
        out: ColumnId,
    },
}

/// Whether a source has a column.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Has {
    Yes,
    /// It depends on the event.
    Maybe,
    No,
}

/// The fields of the record that an `APPLY` gives.
pub(super) fn apply_fields(function: ApplyFunction) -> [&'static str; 2] {
    match function {
        ApplyFunction::GetArrayElements => ["ArrayIndex", "ArrayValue"],
        ApplyFunction::GetRecordProperties => ["PropertyName", "PropertyValue"],
    }
}

/// Names that a payload need not hold: when absent they are the arrival time.
pub(super) fn is_arrival_name(name: &str) -> bool {
    name.eq_ignore_ascii_case("EventEnqueuedUtcTime") || name.eq_ignore_ascii_case("EventProcessedUtcTime")
}

impl ScopeSource {
    /// Rows with an event time, as against reference data and `APPLY`.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self.kind, SourceKind::Scan { .. } | SourceKind::Step { .. })
    }

    /// The step it reads.
    pub(super) fn of_step(&self) -> Option<usize> {
        match &self.kind {
            SourceKind::Step { index, .. } => *index,
            _ => None,
        }
    }

    pub(super) fn schema(&self) -> Option<&TableSchema> {
        match &self.kind {
            SourceKind::Scan { schema, .. } | SourceKind::Reference { schema, .. } => schema.as_ref(),
            SourceKind::Step { .. } | SourceKind::Apply { .. } => None,
        }
    }

    pub(super) fn has(&self, name: &str) -> Has {
        match &self.kind {
            _ if self.poisoned => Has::Maybe,
            SourceKind::Scan { .. } if is_arrival_name(name) => Has::Yes,
            SourceKind::Scan { schema, .. } | SourceKind::Reference { schema, .. } => match schema {
                None => Has::Maybe,
                Some(schema) if find_named(&schema.columns, name, |(n, _)| n).is_some() => Has::Yes,
                Some(_) => Has::No,
            },
            SourceKind::Step { columns, .. } => {
                if explicit(columns, name).is_some() {
                    Has::Yes
                } else if columns.iter().any(|c| c.spread) {
                    Has::Maybe
                } else {
                    Has::No
                }
            }
            SourceKind::Apply { .. } => Has::No,
        }
    }

    /// The columns that are known by name.
    pub(super) fn known(&self) -> Vec<&str> {
        match &self.kind {
            SourceKind::Step { columns, .. } => columns.iter().filter(|c| !c.spread).map(|c| c.name.as_str()).collect(),
            SourceKind::Apply { function, .. } => apply_fields(*function).to_vec(),
            _ => self.schema().map(|s| s.columns.iter().map(|(n, _)| n.as_str()).collect()).unwrap_or_default(),
        }
    }
}

/// The one column of this name that is no `*`.
pub(super) fn explicit<'c>(columns: &'c [OutColumn], name: &str) -> Option<&'c OutColumn> {
    if let Some(column) = columns.iter().find(|c| !c.spread && c.name == name) {
        return Some(column);
    }
    let mut alike = columns.iter().filter(|c| !c.spread && same_ignoring_case(&c.name, name));
    match (alike.next(), alike.next()) {
        (Some(column), None) => Some(column),
        _ => None,
    }
}

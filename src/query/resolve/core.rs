//! A SELECT while its clauses are bound: what they share.
//!
//! In: the binder. Out: what clauses have found so far. Invariant: a column id that a clause reads has an owner among
//! the sources, or was made by a clause before. Not here: the clauses.

use std::ops::Range;

use rustc_hash::FxHashMap;
use smol_str::SmolStr;

use super::binder::Binder;
use super::relation::ColumnId;
use super::source::ScopeSource;
use crate::diagnostic::Span;
use crate::query::plan::{Aggregate, Analytic, Expr, JoinBound, NamedWindow};

/// A SELECT while its clauses are bound.
pub(super) struct Core<'b, 'a> {
    pub(super) binder: &'b mut Binder<'a>,
    /// Steps that may be named.
    pub(super) visible: usize,
    pub(super) sources: Vec<ScopeSource>,
    /// Sources that names may mean now.
    pub(super) scope: Range<usize>,
    /// The source that each column id comes from.
    pub(super) owner: FxHashMap<ColumnId, usize>,
    /// Analytic functions over the joined rows.
    pub(super) analytics: Vec<(ColumnId, Analytic)>,
    pub(super) row_calls: Vec<ExternalCall>,
    pub(super) group_calls: Vec<ExternalCall>,
    pub(super) grouped: bool,
    pub(super) group_span: Span,
    pub(super) windows: Vec<NamedWindow>,
    pub(super) keys: Vec<(ColumnId, Expr)>,
    pub(super) aggregates: Vec<(ColumnId, Aggregate)>,
    pub(super) window_id: ColumnId,
    /// Bounds of the joins so far.
    pub(super) later: Vec<JoinBound>,
    /// Columns read, with the place, for errors found later.
    pub(super) uses: Vec<(ColumnId, Span)>,
    /// Bound SELECT items by alias, for HAVING.
    pub(super) aliases: Vec<(SmolStr, Expr)>,
    /// All aliases of the SELECT list, for help.
    pub(super) item_aliases: Vec<SmolStr>,
}

/// A call that leaves the process, taken out of the expressions of a `SELECT`.
#[derive(Clone, Debug)]
pub(super) struct ExternalCall {
    pub(super) out: ColumnId,
    pub(super) function: SmolStr,
    pub(super) argument: Expr,
    pub(super) span: Span,
}

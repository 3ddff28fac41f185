//! Bound relations: the operators of a statement before columns are pruned and the plan is cut.
//!
//! In: what the binder makes of `FROM`, `WHERE`, `GROUP BY` and `SELECT`. Out: a tree for `cut`. Invariant: in these
//! trees `Expr::Slot` holds a column id that is unique in the script, not a position. Not here: positions (`cut`).

use smol_str::SmolStr;

use crate::diagnostic::Span;
use crate::query::ast::ApplyFunction;
use crate::query::plan::{
    Aggregate, Analytic, Expr, JoinBound, NamedWindow, Navigation, Pattern, ScanColumn, TableSchema,
};
use crate::value::{Type, same_ignoring_case};

/// Identity of a column while names are bound.
pub(super) type ColumnId = usize;

/// What is known about a column id.
#[derive(Clone, Debug, Default)]
pub(super) struct ColumnInfo {
    pub(super) name: SmolStr,
    /// `None`: differs from event to event.
    pub(super) ty: Option<Type>,
    /// Made by `CAST(… AS nvarchar(max))`: MIN and MAX then compare it as text.
    pub(super) cast_to_text: bool,
    /// The scan it is a payload field of: two spellings of one field there are one column.
    pub(super) field_of: Option<u32>,
}

/// An operator and what feeds it, over column ids.
#[derive(Clone, Debug)]
pub(super) enum Rel {
    Scan {
        input: SmolStr,
        columns: Vec<(ColumnId, ScanColumn)>,
        timestamp_by: Option<Expr>,
        over: Vec<Expr>,
        schema: Option<TableSchema>,
    },
    Filter {
        input: Box<Rel>,
        predicate: Expr,
    },
    Project {
        input: Box<Rel>,
        exprs: Vec<(ColumnId, Expr)>,
    },
    /// Appends columns to those of `input`.
    Extend {
        input: Box<Rel>,
        exprs: Vec<(ColumnId, Expr)>,
    },
    Apply {
        input: Box<Rel>,
        outer: bool,
        function: ApplyFunction,
        argument: Expr,
        out: ColumnId,
        span: Span,
    },
    Aggregate {
        input: Box<Rel>,
        keys: Vec<(ColumnId, Expr)>,
        windows: Vec<NamedWindow>,
        aggregates: Vec<(ColumnId, Aggregate)>,
        window_id: ColumnId,
    },
    Analytic {
        input: Box<Rel>,
        calls: Vec<(ColumnId, Analytic)>,
    },
    Join {
        left: Box<Rel>,
        right: Box<Rel>,
        left_outer: bool,
        bound: JoinBound,
        keys: Vec<(Expr, Expr)>,
        on: Option<Expr>,
    },
    ReferenceJoin {
        input: Box<Rel>,
        reference: SmolStr,
        left_outer: bool,
        /// left over the left row, right over the reference record `out`
        keys: Vec<(Expr, Expr)>,
        on: Option<Expr>,
        out: ColumnId,
    },
    /// One row a match: the measures, over the last row and what navigations give.
    Match {
        input: Box<Rel>,
        limit: i64,
        partition_by: Vec<Expr>,
        pattern: Pattern,
        variables: Vec<SmolStr>,
        navigations: Vec<(ColumnId, Navigation)>,
        define: Vec<Option<Expr>>,
        measures: Vec<(ColumnId, Expr)>,
    },
    /// Column `i` of each branch is the `i`th of its ids; together they are `out[i]`.
    Union {
        inputs: Vec<(Rel, Vec<ColumnId>)>,
        out: Vec<ColumnId>,
    },
    /// Appends the answer of an endpoint; NULL for rows for which the guard is not true.
    External {
        input: Box<Rel>,
        function: SmolStr,
        argument: Expr,
        guard: Option<Expr>,
        out: ColumnId,
        span: Span,
    },
}

/// A column of the rows that a `SELECT` gives.
#[derive(Clone, Debug)]
pub(super) struct OutColumn {
    pub(super) id: ColumnId,
    pub(super) name: SmolStr,
    /// What `*` gave: a record whose fields are columns.
    pub(super) spread: bool,
}

/// A key of `TIMESTAMP BY … OVER`, as a later `GROUP BY` or join has to name it.
#[derive(Clone, Debug)]
pub(super) struct OverKey {
    /// `None`: a step did not select it.
    pub(super) expr: Option<Expr>,
    pub(super) text: SmolStr,
}

/// What a bound `SELECT` gives.
#[derive(Clone, Debug)]
pub(super) struct Relation {
    pub(super) rel: Rel,
    pub(super) columns: Vec<OutColumn>,
    /// Keys of the substreams the rows come in; empty for one timeline.
    pub(super) over: Vec<OverKey>,
    /// An external call inside, for errors.
    pub(super) external: Option<Span>,
    /// It had errors: what refers to it reports none that follow from them.
    pub(super) poisoned: bool,
}

impl Relation {
    /// Stands for a source that could not be bound.
    pub(super) fn poisoned() -> Relation {
        let rel = Rel::Scan {
            input: SmolStr::default(),
            columns: Vec::new(),
            timestamp_by: None,
            over: Vec::new(),
            schema: None,
        };
        Relation { rel, columns: Vec::new(), over: Vec::new(), external: None, poisoned: true }
    }
}

impl Rel {
    /// A payload field below the spread column `spread`, decoded by the scan that it comes from instead of being taken
    /// out of the whole record. `fresh` makes a column id. `None` when the column is not simply passed on from a scan.
    pub(super) fn open_field(
        &mut self,
        spread: ColumnId,
        name: &SmolStr,
        fresh: &mut dyn FnMut() -> ColumnId,
    ) -> Option<ColumnId> {
        match self {
            Rel::Scan { columns, .. } => {
                columns.iter().find(|(id, column)| *id == spread && *column == ScanColumn::Whole)?;
                let wanted = ScanColumn::Field(name.clone());
                if let Some((id, _)) = columns.iter().find(|(_, column)| *column == wanted) {
                    return Some(*id);
                }
                let id = fresh();
                columns.push((id, wanted));
                Some(id)
            }
            Rel::Project { input, exprs } => {
                let (_, Expr::Slot(inner)) = exprs.iter().find(|(id, _)| *id == spread)? else { return None };
                let inner = input.open_field(*inner, name, fresh)?;
                if let Some((id, _)) = exprs.iter().find(|(_, e)| matches!(e, Expr::Slot(s) if *s == inner)) {
                    return Some(*id);
                }
                let id = fresh();
                exprs.push((id, Expr::Slot(inner)));
                Some(id)
            }
            Rel::Filter { input, .. }
            | Rel::Extend { input, .. }
            | Rel::Apply { input, .. }
            | Rel::Analytic { input, .. }
            | Rel::ReferenceJoin { input, .. }
            | Rel::External { input, .. } => input.open_field(spread, name, fresh),
            Rel::Join { left, right, .. } => {
                left.open_field(spread, name, fresh).or_else(|| right.open_field(spread, name, fresh))
            }
            Rel::Aggregate { .. } | Rel::Match { .. } | Rel::Union { .. } => None,
        }
    }
}

/// The one column that a name means: the exact one, else the only one that differs in letter case.
pub(super) fn find_named<'a, T>(list: &'a [T], name: &str, name_of: impl Fn(&T) -> &str) -> Option<&'a T> {
    if let Some(found) = list.iter().find(|item| name_of(item) == name) {
        return Some(found);
    }
    let mut alike = list.iter().filter(|item| same_ignoring_case(name_of(item), name));
    match (alike.next(), alike.next()) {
        (Some(found), None) => Some(found),
        _ => None,
    }
}

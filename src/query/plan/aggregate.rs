//! Windows and aggregates of `GROUP BY`.
//!
//! In: nothing (plain data). Out: [`NamedWindow`], [`Aggregate`]. Invariant: lengths are ticks of 100 ns and above 0.
//! Not here: rows and groups (`engine`).

use smol_str::SmolStr;

use super::expr::Expr;
use crate::diagnostic::Span;
use crate::query::catalog::Offers;

/// A window of a `GROUP BY`. All lengths are ticks of 100 ns; windows are `(start, end]`, aligned to year one plus
/// offset.
#[derive(Clone, Debug, PartialEq)]
pub enum Window {
    /// also a hopping window whose hop equals its size
    Tumbling {
        size: i64,
        offset: i64,
    },
    Hopping {
        size: i64,
        hop: i64,
        offset: i64,
    },
    Sliding {
        size: i64,
    },
    /// `per_key`: `OVER (PARTITION BY …)` was given, then those expressions
    Session {
        timeout: i64,
        max_duration: i64,
        partition_by: Vec<SessionKey>,
    },
    /// `GROUP BY System.Timestamp()`
    Snapshot,
}

/// Index of the grouping key that partitions a session window.
pub type SessionKey = usize;

#[derive(Clone, Debug, PartialEq)]
pub struct NamedWindow {
    /// `System.Window().Id`
    pub name: Option<SmolStr>,
    pub window: Window,
}

/// An aggregate of a group.
#[derive(Clone, Debug)]
pub struct Aggregate {
    pub function: AggregateFunction,
    /// `None`: the whole row counts (`COUNT(*)`); for `Collect()`, `TopOne()` and `CollectTop(n)` a record expression
    /// is given.
    pub argument: Option<Expr>,
    /// The arguments of a user aggregate, which has no `argument`.
    pub user_args: Vec<Expr>,
    pub distinct: bool,
    pub order_by: Vec<(Expr, bool)>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum AggregateFunction {
    Count,
    Sum,
    Avg,
    /// `text`: the argument is explicitly cast to nvarchar(max); without it text is converted to float
    Min {
        text: bool,
    },
    Max {
        text: bool,
    },
    StDev,
    StDevP,
    Var,
    VarP,
    Collect,
    CollectTop {
        count: usize,
    },
    TopOne,
    PercentileCont {
        fraction: f64,
    },
    PercentileDisc {
        fraction: f64,
    },
    User(UserAggregateCall),
}

/// A user aggregate: a resource of a component.
#[derive(Clone, Debug, PartialEq)]
pub struct UserAggregateCall {
    /// That of [`crate::query::catalog::FunctionKind::Aggregate`].
    pub index: usize,
    /// As the query writes it, without the prefix.
    pub name: SmolStr,
    /// For each argument whether a row is left out when it is NULL.
    pub required: Vec<bool>,
    pub offers: Offers,
}

//! `MATCH_RECOGNIZE` in a plan.
//!
//! In: nothing (plain data). Out: [`Match`]. Invariant: variables are numbered, and every number has a name. Not here:
//! matching (`engine`).

use smol_str::SmolStr;

use super::expr::Expr;
use crate::diagnostic::Span;

/// `MATCH_RECOGNIZE`. Conditions and measures read the columns of a row and, behind them, one value a navigation.
#[derive(Clone, Debug)]
pub struct Match {
    /// `LIMIT DURATION`, ticks: rows of a match lie less than this behind its first.
    pub limit: i64,
    pub partition_by: Vec<Expr>,
    pub pattern: Pattern,
    /// Names of the variables, by their place.
    pub variables: Vec<SmolStr>,
    pub navigations: Vec<Navigation>,
    /// The condition of each variable; `None`: any row.
    pub define: Vec<Option<Expr>>,
    pub measures: Vec<Expr>,
    pub span: Span,
}

/// A look at the rows taken so far, or at those of a match.
#[derive(Clone, Debug)]
pub struct Navigation {
    pub navigate: Navigate,
    /// Only rows taken as this variable.
    pub variable: Option<usize>,
    /// Over the columns of a row; none for the names of the variables.
    pub argument: Option<Expr>,
    pub span: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Navigate {
    First,
    Last,
    Min,
    Max,
    /// The variable of each row, as an array of names.
    Classifier,
}

/// What stands in `PATTERN (…)`; variables by their place.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    Variable(usize),
    /// `.`: any row, taken as no variable
    Any,
    Concat(Vec<Pattern>),
    Either(Vec<Pattern>),
    /// `?`, `*`, `+`; `greedy` unless a `?` follows
    Repeat {
        of: Box<Pattern>,
        at_least_once: bool,
        many: bool,
        greedy: bool,
    },
}

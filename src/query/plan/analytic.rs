//! Analytic calls of a plan: functions of the rows seen so far.
//!
//! In: nothing (plain data). Out: [`Analytic`]. Invariant: lengths are ticks of 100 ns. Not here: what rows are kept
//! for them (`engine`).

use super::aggregate::AggregateFunction;
use super::expr::Expr;
use crate::diagnostic::Span;

/// An analytic function over the rows seen so far.
#[derive(Clone, Debug)]
pub struct Analytic {
    pub function: AnalyticFunction,
    /// the value looked at; `LAG(*)` gives a record expression
    pub argument: Option<Expr>,
    pub default: Option<Expr>,
    pub partition_by: Vec<Expr>,
    pub order_by: Vec<(Expr, bool)>,
    /// `LIMIT DURATION`, ticks
    pub limit: Option<i64>,
    pub when: Option<Expr>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum AnalyticFunction {
    Lag {
        offset: usize,
    },
    Last,
    /// interval in ticks
    IsFirst {
        interval: i64,
    },
    Aggregate(AggregateFunction),
    SpikeAndDip {
        confidence: f64,
        history: usize,
        mode: SpikeMode,
    },
    ChangePoint {
        confidence: f64,
        history: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpikeMode {
    Spikes,
    Dips,
    SpikesAndDips,
}

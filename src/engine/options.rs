//! How a part is run, and why it cannot be.
//!
//! In: nothing (plain data). Out: [`ExecutorOptions`], [`EngineError`]. Invariant: lengths of time are ticks of 100 ns.
//! Not here: the sections of a job file (`job`).

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::fault::{Fault, Unloadable};
use super::index::Indexes;
use crate::query::fault;
use crate::time::TICKS_PER_SECOND;
use crate::udf::UserFunctions;
use crate::value::codec::Damaged;
use crate::value::{SmolStr, Value};

/// The user functions that an executor calls; they belong to it and to its thread.
pub type Functions = Box<dyn UserFunctions>;

/// What becomes of a row when an expression has no value for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// The statement stops at that row: what Stream Analytics does.
    #[default]
    Stop,
    /// The innermost failing expression gives NULL.
    Null,
    /// The row is a failure; the others go on.
    DeadLetter,
}

/// Rules for `TIMESTAMP BY`; lengths in ticks of 100 ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimePolicies {
    /// Events older than their arrival by more than this are late. `None`: never.
    pub late_tolerance: Option<i64>,
    /// How far behind the newest event one may lie and still be put in its place.
    pub out_of_order: i64,
    /// Late and out-of-order events are moved to the bound (`true`) or dropped.
    pub adjust: bool,
    /// Events ahead of their arrival by more than this are dropped, but for those of a clock that was not trusted.
    /// `None`: none is.
    pub early_limit: Option<i64>,
}

impl Default for TimePolicies {
    /// 5 s late, 0 s out of order, adjust, 5 min early: the service's own defaults.
    fn default() -> TimePolicies {
        let early_limit = Some(300 * TICKS_PER_SECOND);
        TimePolicies { late_tolerance: Some(5 * TICKS_PER_SECOND), out_of_order: 0, adjust: true, early_limit }
    }
}

/// How a part is run.
#[derive(Clone, Debug, Default)]
pub struct ExecutorOptions {
    pub on_error: OnError,
    /// A function's own setting, by its index, wins over `on_error`.
    pub functions_on_error: FxHashMap<usize, OnError>,
    pub policies: TimePolicies,
    /// Reference tables by input name; each item is a record.
    pub references: FxHashMap<SmolStr, Arc<Vec<Value>>>,
    /// Made once for all executors that run with clones of these options.
    pub indexes: Indexes,
}

/// A part cannot be run, or its stored state cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    #[error("a SELECT has more than {max} analytic calls; split it into steps")]
    TooManyCalls { max: usize },
    #[error("stored state of operator {op}: {damaged}; start the statement with empty state")]
    State { op: u32, damaged: Damaged },
    #[error("stored state of operator {op} is not taken back: {}", fault::worded(found))]
    Fault { op: u32, found: &'static str },
}

impl EngineError {
    /// Why a stored row of an operator is not taken back: the pool's fault, or ours.
    pub(super) fn unloadable(op: u32, why: Unloadable) -> EngineError {
        match why {
            Unloadable::Damaged(damaged) => EngineError::State { op, damaged },
            Unloadable::Fault(Fault(found)) => EngineError::Fault { op, found },
        }
    }
}

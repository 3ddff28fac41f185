//! Runs one part of a plan: events or rows in, result rows out.
//!
//! In: checked events (or rows of a stream) in journal order, ticks that say how late it is, stored state. Out:
//! [`Emitted`]: rows, failures, counts, changed state. Invariant: what comes out depends on what went in and not on how
//! it was cut into calls, nor on a restart from the state of any [`Executor::take`]. Not here: I/O, clocks, threads;
//! who may name what (`query`), what becomes of rows (`pipeline`).
//!
//! Time inside is in ticks of 100 ns as plain numbers, because a watermark may lie beyond the calendar: the end of the
//! input is the greatest number.

mod accumulate;
mod aggregate;
mod analytic;
mod anomaly;
mod env;
mod eval;
mod executor;
mod feed;
mod fixed;
mod group;
mod history;
mod index;
mod join;
mod key;
mod merge;
mod op;
mod pack;
mod pane;
mod pattern;
mod recent;
mod recognize;
mod reference;
mod running;
mod scan;
mod session;
mod sliding;
mod state;
mod user;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;

pub use executor::Executor;
pub use index::Indexes;

use crate::batch::{Reason, RowMeta, Rows};
use crate::diagnostic::Span;
use crate::time::{TICKS_PER_SECOND, Timestamp};
use crate::udf::UserFunctions;
use crate::value::codec::Damaged;
use crate::value::{SmolStr, Value};
use env::Fate;

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
    /// Events ahead of their arrival by more than this are dropped. `None` while the clock is not trusted.
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
}

/// A row that an expression failed for, or an event that is no valid input.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Id and times of the row; for a row the query made, those of the newest record in it.
    pub meta: RowMeta,
    /// Offset of that record in the sequence this executor reads (inputs, or the stream of the part before).
    pub position: i64,
    pub reason: Reason,
    pub message: String,
    pub body: Failed,
    /// The failing expression in the query's text; empty when the event itself is the problem.
    pub span: Span,
}

/// What is left of a failed row.
#[derive(Clone, Debug, PartialEq)]
pub enum Failed {
    /// The event as it was received.
    Event(Bytes),
    /// A row inside the query, as a JSON array of its columns.
    Row(String),
}

/// One row of state: set, or removed (`None`). Keys are the engine's own business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    pub op: u32,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

/// Counts since the last [`Executor::take`]. `rows = filtered + failed + dropped + evaluated + (change of waiting)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records handed in that the part reads.
    pub read: u64,
    /// Rows that scans made of them: a record that two scans read counts twice.
    pub rows: u64,
    /// Rows that `WHERE` turned down.
    pub filtered: u64,
    /// Rows refused or failed, by reason.
    pub failed: BTreeMap<Reason, u64>,
    /// Rows that a time policy dropped: `early`, `late`, `out_of_order`.
    pub dropped: BTreeMap<Reason, u64>,
    /// Rows that went on into the query's result or its state.
    pub evaluated: u64,
    /// Failed rows that the query itself had made (of groups, pairs, array elements), by reason.
    pub failed_derived: BTreeMap<Reason, u64>,
    /// Expressions that NULL stands in for, by reason.
    pub nulled: BTreeMap<Reason, u64>,
    /// Rows whose event time a policy moved.
    pub adjusted: u64,
    pub rows_out: u64,
}

impl Counts {
    fn add_failed(&mut self, reason: Reason, direct: bool) {
        let map = if direct { &mut self.failed } else { &mut self.failed_derived };
        *map.entry(reason).or_default() += 1;
    }

    fn add_dropped(&mut self, reason: Reason) {
        *self.dropped.entry(reason).or_default() += 1;
    }

    fn add_nulled(&mut self, reason: Reason) {
        *self.nulled.entry(reason).or_default() += 1;
    }
}

/// What came out since the last [`Executor::take`]: all of it belongs into one commit.
#[derive(Clone, Debug)]
pub struct Emitted {
    pub rows: Rows,
    pub failures: Vec<Failure>,
    pub counts: Counts,
    /// Rows read that wait for earlier ones (not since the last take, but now).
    pub waiting: u64,
    pub state: Vec<StateChange>,
    /// No later row of this part will be earlier than this; a part that reads the rows may be told by
    /// [`Executor::advance`] once it has read them all. `None` before anything is known.
    pub watermark: Option<Timestamp>,
    /// The row at which the executor stopped; it takes nothing more. Without state, `rows` are those of the records
    /// before `position`, which may be committed up to there. With state nothing else is given: feed a new executor
    /// with the records before `position` to commit those.
    pub stopped: Option<Failure>,
}

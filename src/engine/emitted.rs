//! What an executor gives: rows, failed rows, changed state, counts.
//!
//! In: nothing (plain data). Out: [`Emitted`]. Invariant: `rows = filtered + failed + dropped + evaluated + (change of
//! waiting)` in [`Counts`]. Not here: what becomes of them (`pipeline`).

use std::collections::BTreeMap;

use smol_str::SmolStr;

use crate::batch::{RawEvent, Reason, RowMeta, Rows};
use crate::diagnostic::Span;
use crate::time::Timestamp;

/// A row that an expression failed for, or an event that is no valid input.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedRow {
    /// Id and times of the row; for a row the query made, those of the newest record in it.
    pub meta: RowMeta,
    /// Offset of that record in the sequence this executor reads (inputs, or the stream of the part before).
    pub position: i64,
    pub reason: Reason,
    pub message: String,
    pub body: FailedBody,
    /// The failing expression in the query's text; empty when the event itself is the problem.
    pub span: Span,
}

/// What is left of a failed row.
#[derive(Clone, Debug, PartialEq)]
pub enum FailedBody {
    /// The event as it was received.
    Event(RawEvent),
    /// A row inside the query, as a JSON array of its columns.
    Row(String),
}

/// One row of state: set, or removed (`None`). Keys are the engine's own business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateUpdate {
    pub op: u32,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

/// An event that the early or the late rule dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UntimelyEvent {
    /// `early` or `late`.
    pub reason: Reason,
    pub input: SmolStr,
    /// Under which its message came: a topic.
    pub message: SmolStr,
    /// Its own time.
    pub time: Timestamp,
    pub arrival: Timestamp,
}

/// Counts since the last [`Executor::take`](super::Executor::take). `rows = filtered + failed + dropped + evaluated +
/// (change of waiting)`.
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
    pub(super) fn add_failed(&mut self, reason: Reason, direct: bool) {
        let map = if direct { &mut self.failed } else { &mut self.failed_derived };
        *map.entry(reason).or_default() += 1;
    }

    pub(super) fn add_dropped(&mut self, reason: Reason) {
        *self.dropped.entry(reason).or_default() += 1;
    }

    pub(super) fn add_nulled(&mut self, reason: Reason) {
        *self.nulled.entry(reason).or_default() += 1;
    }
}

/// What came out since the last [`Executor::take`](super::Executor::take): all of it belongs into one commit.
#[derive(Clone, Debug)]
pub struct Emitted {
    pub rows: Rows,
    pub failures: Vec<FailedRow>,
    pub counts: Counts,
    /// The first event that the early or the late rule dropped, if one did.
    pub untimely: Option<UntimelyEvent>,
    /// Rows read that wait for earlier ones (not since the last take, but now).
    pub waiting: u64,
    pub state: Vec<StateUpdate>,
    /// No later row of this part will be earlier than this; a part that reads the rows may be told by
    /// [`Executor::advance`](super::Executor::advance) once it has read them all. `None` before anything is known.
    pub watermark: Option<Timestamp>,
    /// The latest arrival or tick that is in it: arrival time must not fall behind it any more.
    pub now: Timestamp,
    /// The era of arrival time that it was in at the last take, and the one it is in now.
    pub begun_in: u32,
    pub era: u32,
    /// The row at which the executor stopped; it takes nothing more. Without state, `rows` are those of the records
    /// before `position`, which may be committed up to there. With state nothing else is given: feed a new executor
    /// with the records before `position` to commit those.
    pub stopped: Option<FailedRow>,
}

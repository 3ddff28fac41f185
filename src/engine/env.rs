//! What every operator of an executor shares: options, functions, counters, failures.
//!
//! In: errors of rows. Out: what becomes of the row, noted in the counters. Invariant: no row is dropped without a
//! count under its reason. Not here: evaluation (`eval`), operators.

use super::emitted::{Counts, FailedBody, FailedRow, UntimelyEvent};
use super::fault::Fault;
use super::held::Held;
use super::options::{ExecutorOptions, Functions, OnError};
use crate::batch::{RawEvent, Reason, RowMeta};
use crate::diagnostic::Span;
use crate::query::builtins::RowError;
use crate::query::fault::FAULT;
use crate::query::plan::UserAggregateCall;
use crate::time::Timestamp;
use crate::udf;
use crate::value::Value;

/// Shared by the operators of an executor; the executor lends it to them for each step.
pub(super) struct Env {
    pub options: ExecutorOptions,
    pub functions: Option<Functions>,
    pub counts: Counts,
    pub failures: Vec<FailedRow>,
    /// The first event since the last take that the early or the late rule dropped.
    pub untimely: Option<UntimelyEvent>,
    pub stopped: Option<FailedRow>,
    /// Levels of `TryEvaluate` around what is evaluated now: inside, an error goes up to it whatever the policy.
    pub trying: u32,
    /// The substream whose operators run, where an expression asks for it.
    pub substream: Value,
}

/// A row that expressions read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub values: &'a [Value],
    pub meta: &'a RowMeta,
}

/// An expression has no value for a row, and the policy does not let NULL stand in.
#[derive(Clone, Debug)]
pub(super) struct EvalError {
    pub error: RowError,
    pub span: Span,
    /// `Stop` or `DeadLetter`.
    pub policy: OnError,
}

/// A row that an operator held and an expression failed for.
#[derive(Debug)]
pub(super) struct RefusedRow {
    meta: RowMeta,
    values: Box<[Value]>,
    error: Box<EvalError>,
}

impl RefusedRow {
    pub(super) fn of(held: &Held, error: Box<EvalError>) -> RefusedRow {
        RefusedRow { meta: held.meta, values: held.values.clone(), error }
    }
}

/// The events that a step brings: where a failed row finds its payload.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StepOrigin<'a> {
    pub first: i64,
    pub events: &'a [RawEvent],
    /// Of each event.
    pub offsets: &'a [i64],
    /// For a part that reads rows: their own ids, by place (inside, rows carry their offset in the stream).
    pub metas: &'a [RowMeta],
}

impl StepOrigin<'_> {
    fn event(&self, offset: i64) -> Option<&RawEvent> {
        self.offsets.binary_search(&offset).ok().and_then(|i| self.events.get(i))
    }

    /// The meta with the id that the row had in the stream it was read from.
    pub(super) fn restored(&self, meta: &RowMeta) -> RowMeta {
        let place = meta.offset.checked_sub(self.first).and_then(|i| usize::try_from(i).ok());
        match place.and_then(|i| self.metas.get(i)) {
            Some(own) => RowMeta { offset: own.offset, ordinal: own.ordinal, ..*meta },
            None => *meta,
        }
    }
}

/// An event as it is read: its place in the sequence, and the latest arrival up to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct InputEvent<'a> {
    pub event: &'a RawEvent,
    pub offset: i64,
    pub arrival: Timestamp,
}

impl<'a> InputEvent<'a> {
    /// Events with their offsets; the arrival never decreases, so that it can serve as event time.
    pub(super) fn each(offsets: &'a [i64], events: &'a [RawEvent], now: i64) -> impl Iterator<Item = InputEvent<'a>> {
        events.iter().zip(offsets).scan(now, |now, (event, offset)| {
            *now = event.arrival.ticks().max(*now);
            Some(InputEvent { event, offset: *offset, arrival: Timestamp::saturating_from_ticks(*now) })
        })
    }

    /// The meta of the row it becomes; event time is arrival time until something says otherwise.
    pub(super) fn meta(&self) -> RowMeta {
        RowMeta::new(self.arrival, self.arrival, self.offset, 0)
    }
}

/// What a failed row means for the batch it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowFate {
    /// The row is gone, the others go on.
    Dropped,
    /// Neither this row nor one behind it goes on.
    Stopped,
}

impl Env {
    pub(super) fn new(options: ExecutorOptions, functions: Option<Functions>) -> Env {
        Env {
            options,
            functions,
            counts: Counts::default(),
            failures: Vec::new(),
            untimely: None,
            stopped: None,
            trying: 0,
            substream: Value::Null,
        }
    }

    /// Handles a row that failed in an expression. A correction never stops its statement, not even by a fault of
    /// forebay. `direct`: rows are one to
    /// one with what was read, so that the failure belongs to the equation of rows read.
    pub(super) fn fail(&mut self, origin: &StepOrigin<'_>, row: Row<'_>, error: EvalError, direct: bool) -> RowFate {
        let EvalError { error, span, policy } = error;
        let body =
            if direct { failed_row(origin, row.meta, row.values) } else { FailedBody::Row(row_json(row.values)) };
        let position = row.meta.offset;
        let failure = FailedRow {
            meta: origin.restored(row.meta),
            position,
            reason: error.reason,
            message: error.message,
            body,
            span,
        };
        match policy {
            OnError::Stop if !row.meta.provenance.is_correction => {
                // an operator further on sees only earlier rows; of two branches the earlier row counts
                if self.stopped.as_ref().is_none_or(|known| position < known.position) {
                    self.stopped = Some(failure);
                }
                RowFate::Stopped
            }
            OnError::Stop | OnError::DeadLetter | OnError::Null => {
                self.counts.add_failed(failure.reason, direct);
                self.failures.push(failure);
                RowFate::Dropped
            }
        }
    }

    /// NULL in place of a value that could not be made, if that is the policy of all.
    pub(super) fn or_null(&mut self, error: RowError, span: Span) -> Result<Value, Box<EvalError>> {
        self.settled(error, span, self.options.on_error)
    }

    /// NULL in place of a value that could not be made, if that is the policy; never for a fault.
    pub(super) fn settled(&mut self, error: RowError, span: Span, policy: OnError) -> Result<Value, Box<EvalError>> {
        match policy {
            _ if error.reason == FAULT => Err(self.fault(error, span)),
            OnError::Null => {
                self.counts.add_nulled(error.reason);
                Ok(Value::Null)
            }
            policy => Err(Box::new(EvalError { error, span, policy })),
        }
    }

    /// A fault that no row is at hand for.
    #[cold]
    pub(super) fn report(&mut self, origin: &StepOrigin<'_>, fault: Fault) {
        let meta = RowMeta::new(Timestamp::MIN, Timestamp::MIN, origin.first, 0);
        let error = self.fault(fault, Span::default());
        self.fail(origin, Row { values: &[], meta: &meta }, *error, false);
    }

    /// An event that cannot become a row by a fault of forebay.
    #[cold]
    pub(super) fn refuse_by_fault(&mut self, record: InputEvent<'_>, fault: Fault) {
        let error = RowError::from(fault);
        self.refuse(record.event, record.meta(), error.reason, error.message);
    }

    /// A row that cannot go on by a fault of forebay: it fails under every policy, and never becomes NULL.
    #[cold]
    pub(super) fn fault(&self, error: impl Into<RowError>, span: Span) -> Box<EvalError> {
        let policy = match self.options.on_error {
            OnError::Null => OnError::DeadLetter,
            policy => policy,
        };
        Box::new(EvalError { error: error.into(), span, policy })
    }

    /// A row failed: whether the rows behind it go on.
    pub(super) fn goes_on(&mut self, origin: &StepOrigin<'_>, row: Row<'_>, error: EvalError, direct: bool) -> bool {
        self.fail(origin, row, error, direct) == RowFate::Dropped
    }

    /// What becomes of a row that an expression fails for. Of a correction the first answer has gone out before: it
    /// stands, so the statement neither stops there nor puts NULL in its place.
    pub(super) fn policy(&self, row: Row<'_>) -> OnError {
        match row.meta.provenance.is_correction {
            true => OnError::DeadLetter,
            false => self.options.on_error,
        }
    }

    /// The same where a function is called: its own policy, else that of all.
    pub(super) fn policy_of_call(&self, index: usize, row: Row<'_>) -> OnError {
        match row.meta.provenance.is_correction {
            true => OnError::DeadLetter,
            false => self.policy_of(index),
        }
    }

    /// A user aggregate's own policy, else that of all.
    pub(super) fn policy_of(&self, index: usize) -> OnError {
        self.options.functions_on_error.get(&index).copied().unwrap_or(self.options.on_error)
    }

    /// What runs a user aggregate.
    pub(super) fn guest(&mut self, plan: &UserAggregateCall) -> Result<&mut dyn udf::UserAggregate, RowError> {
        let guest = self.functions.as_mut().and_then(|f| f.aggregate(plan.index));
        guest.ok_or_else(|| RowError {
            reason: "no_function",
            message: format!("no host was given that runs uda.{}", plan.name),
        })
    }

    /// A row that was held failed: whether the rows behind it go on.
    pub(super) fn goes_on_without(&mut self, origin: &StepOrigin<'_>, refused: RefusedRow) -> bool {
        let RefusedRow { meta, values, error } = refused;
        self.goes_on(origin, Row { values: &values, meta: &meta }, *error, false)
    }

    /// An event is no valid input: dropped and reported whatever the policy, as the service does.
    pub(super) fn refuse(&mut self, event: &RawEvent, meta: RowMeta, reason: Reason, message: String) {
        self.counts.add_failed(reason, true);
        let body = FailedBody::Event(event.clone());
        self.failures.push(FailedRow { meta, position: meta.offset, reason, message, body, span: Span::default() });
    }
}

fn failed_row(origin: &StepOrigin<'_>, meta: &RowMeta, values: &[Value]) -> FailedBody {
    match origin.event(meta.offset) {
        Some(event) => FailedBody::Event(event.clone()),
        None => FailedBody::Row(row_json(values)),
    }
}

/// The columns of a row inside a query have no names any more: an array of their values.
fn row_json(values: &[Value]) -> String {
    let mut out = String::from("[");
    for (i, value) in values.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        value.write_json(&mut out);
    }
    out.push(']');
    out
}

//! Result rows of windows that end.
//!
//! In: groups. Out: rows with keys, aggregates and the window's name. Invariant: a row's event time is the end of its
//! window, its offset and arrival are those of the newest row in it. Not here: which groups a window has.

use super::accumulate::Acc;
use super::env::{Env, Row, StepOrigin};
use super::fault::Fault;
use super::users::Users;
use crate::batch::{Batch, RowMeta};
use crate::diagnostic::Span;
use crate::query::plan::Aggregate;
use crate::time::Timestamp;
use crate::value::{SmolStr, Value};

/// Where a window puts its results.
pub(super) struct WindowSink<'a> {
    pub env: &'a mut Env,
    pub origin: StepOrigin<'a>,
    pub aggregates: &'a [Aggregate],
    pub out: &'a mut Batch,
    /// Names the window.
    pub window: Option<SmolStr>,
    /// When it ends.
    pub end: i64,
    /// The window's number.
    pub number: usize,
    pub users: &'a mut Users,
    /// Room for a row.
    pub row: Vec<Value>,
}

impl WindowSink<'_> {
    /// Writes one result row.
    pub(super) fn result(&mut self, newest: &RowMeta, keys: &[Value], accs: &[Acc]) {
        if self.env.stopped.is_some() {
            return;
        }
        let meta = RowMeta { time: Timestamp::saturating_from_ticks(self.end), ordinal: 0, ..*newest };
        let mut row = std::mem::take(&mut self.row);
        row.clear();
        row.extend_from_slice(keys);
        for (place, (acc, aggregate)) in accs.iter().zip(self.aggregates).enumerate() {
            let value = match acc {
                Acc::User(shares) => self.users.value(self.env, self.number, place, self.end, keys, shares),
                acc => acc.finish(aggregate).or_else(|error| self.env.or_null(error, aggregate.span)),
            };
            match value {
                Ok(value) => row.push(value),
                Err(error) => {
                    self.env.fail(&self.origin, Row { values: &row, meta: &meta }, *error, false);
                    return;
                }
            }
        }
        row.push(self.window.clone().map_or(Value::Null, Value::Text));
        if row.len() != self.out.width() {
            let error =
                self.env.fault(Fault("a group has another number of columns than its statement"), Span::default());
            self.env.fail(&self.origin, Row { values: &row, meta: &meta }, *error, false);
            return;
        }
        self.out.push(meta, row.drain(..));
        self.row = row;
    }
}

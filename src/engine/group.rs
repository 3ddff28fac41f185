//! Groups: the rows of one key in one pane or session, as accumulators.
//!
//! In: prepared rows. Out: result rows. Invariant: groups of one window come out in the order of their first rows, so
//! results do not depend on hashing. Not here: where a window ends (`fixed`, `sliding`, `session`).

use super::accumulate::{Acc, arity, prepare};
use super::env::{Env, Origin};
use super::eval::{EvalError, Row};
use super::state::{put_meta, put_values, read_meta, read_values};
use super::user::Users;
use super::{Fate, OnError};
use crate::batch::{Batch, RowMeta};
use crate::query::plan::{Aggregate, AggregateFunction, Expr};
use crate::time::Timestamp;
use crate::value::codec::{Damaged, Reader};
use crate::value::{SmolStr, Value};

/// A row on its way into windows: keys and arguments evaluated.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    pub key: Vec<u8>,
    pub keys: Vec<Value>,
    /// For each aggregate its argument and order keys, one after another.
    pub args: Vec<Value>,
}

impl Prepared {
    /// Evaluates the keys and arguments of a row; nothing is changed in a window before all of them succeeded.
    pub(super) fn fill(&mut self, env: &mut Env, keys: &[Expr], aggregates: &[Aggregate], row: Row<'_>) -> Result<(), Box<EvalError>> {
        self.key.clear();
        self.keys.clear();
        self.args.clear();
        for expr in keys {
            let value = env.eval(expr, row)?.into_owned();
            super::key::put_key(&mut self.key, &value);
            self.keys.push(value);
        }
        for aggregate in aggregates {
            fill_args(env, aggregate, row, &mut self.args)?;
        }
        Ok(())
    }
}

/// Appends the prepared argument and the order keys of one aggregate.
pub(super) fn fill_args(env: &mut Env, aggregate: &Aggregate, row: Row<'_>, out: &mut Vec<Value>) -> Result<(), Box<EvalError>> {
    if let AggregateFunction::User(user) = &aggregate.function {
        return fill_user_args(env, aggregate, &user.required, row, out);
    }
    let argument = match (&aggregate.argument, aggregate.order_by.first()) {
        (Some(expr), _) => env.eval(expr, row)?.into_owned(),
        // percentiles are over what they order by
        (None, Some((expr, _))) => env.eval(expr, row)?.into_owned(),
        // the whole row counts: any value but NULL
        (None, None) => Value::BigInt(1),
    };
    match prepare(&aggregate.function, argument) {
        Ok(value) => out.push(value),
        Err(error) => out.push(env.or_null(error, aggregate.span)?),
    }
    for (expr, _) in &aggregate.order_by {
        out.push(env.eval(expr, row)?.into_owned());
    }
    Ok(())
}

/// Appends the event time and the arguments of a user aggregate; NULL as the time where the row is left out.
fn fill_user_args(
    env: &mut Env,
    aggregate: &Aggregate,
    required: &[bool],
    row: Row<'_>,
    out: &mut Vec<Value>,
) -> Result<(), Box<EvalError>> {
    let from = out.len();
    out.push(Value::DateTime(row.meta.time));
    let mut left_out = false;
    for (expr, required) in aggregate.user_args.iter().zip(required) {
        let value = env.eval(expr, row)?.into_owned();
        left_out |= *required && value.is_null();
        out.push(value);
    }
    if let (true, Some(time)) = (left_out, out.get_mut(from)) {
        *time = Value::Null;
    }
    Ok(())
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    /// Meta of the first row: the order of groups.
    pub first: RowMeta,
    /// Newest arrival and offset that contributed.
    pub newest: RowMeta,
    pub keys: Box<[Value]>,
    pub accs: Box<[Acc]>,
    /// Changed since the last commit; has a state row.
    pub dirty: bool,
    pub stored: bool,
    /// Its bytes as its owner last counted them.
    pub weight: usize,
}

impl Group {
    pub(super) fn new(aggregates: &[Aggregate], meta: RowMeta, keys: &[Value]) -> Group {
        let accs = aggregates.iter().map(Acc::new).collect();
        Group { first: meta, newest: meta, keys: keys.into(), accs, dirty: false, stored: false, weight: 0 }
    }

    pub(super) fn add(&mut self, aggregates: &[Aggregate], meta: &RowMeta, args: &[Value]) {
        self.newest = newer(self.newest, meta);
        let mut at = 0;
        for (acc, aggregate) in self.accs.iter_mut().zip(aggregates) {
            let n = arity(aggregate);
            acc.add(aggregate, args.get(at..at + n).unwrap_or_default());
            at += n;
        }
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_meta(&mut out, &self.first);
        put_meta(&mut out, &self.newest);
        put_values(&mut out, &self.keys);
        self.accs.iter().for_each(|acc| acc.write(&mut out));
        out
    }

    pub(super) fn read(aggregates: &[Aggregate], bytes: &[u8]) -> Result<Group, Damaged> {
        let mut reader = Reader::new(bytes);
        let first = read_meta(&mut reader)?;
        let newest = read_meta(&mut reader)?;
        let keys = read_values(&mut reader)?.into();
        let accs = aggregates.iter().map(|a| Acc::read(a, &mut reader)).collect::<Result<_, _>>()?;
        Ok(Group { first, newest, keys, accs, dirty: false, stored: true, weight: 0 })
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Group>()
            + self.keys.iter().map(|v| 24 + v.heap_bytes()).sum::<usize>()
            + self.accs.iter().map(|acc| size_of::<Acc>() + acc.heap_bytes()).sum::<usize>()
    }
}

/// The newer of two rows by offset, with the later arrival.
pub(super) fn newer(a: RowMeta, b: &RowMeta) -> RowMeta {
    let mut newest = if b.offset >= a.offset { *b } else { a };
    newest.arrival = a.arrival.max(b.arrival);
    newest
}

/// Where windows put their results.
pub(super) struct Sink<'a> {
    pub env: &'a mut Env,
    pub origin: Origin<'a>,
    pub aggregates: &'a [Aggregate],
    pub out: &'a mut Batch,
    pub window: Option<SmolStr>,
    /// The window's number.
    pub number: usize,
    pub users: &'a mut Users,
    /// Room for a row.
    pub row: Vec<Value>,
}

impl Sink<'_> {
    /// Writes the result rows of groups that share an end, in the order of their first rows.
    pub(super) fn groups<'g>(&mut self, end: i64, mut groups: Vec<(&'g [u8], &'g Group)>) {
        groups.sort_unstable_by_key(|(key, g)| (g.first.time, g.first.offset, g.first.ordinal, *key));
        for (_, group) in groups {
            self.group(end, group);
        }
    }

    pub(super) fn group(&mut self, end: i64, group: &Group) {
        self.result(end, &group.newest, &group.keys, &group.accs);
    }

    /// Writes one result row.
    pub(super) fn result(&mut self, end: i64, newest: &RowMeta, keys: &[Value], accs: &[Acc]) {
        if self.env.stopped.is_some() {
            return;
        }
        let meta = RowMeta { time: Timestamp::saturating_from_ticks(end), ordinal: 0, ..*newest };
        let mut row = std::mem::take(&mut self.row);
        row.clear();
        row.extend_from_slice(keys);
        for (place, (acc, aggregate)) in accs.iter().zip(self.aggregates).enumerate() {
            let value = match acc {
                Acc::User(shares) => self.users.value(self.env, self.number, place, end, keys, shares),
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
        self.out.push(meta, row.drain(..));
        self.row = row;
    }
}

impl Env {
    /// NULL in place of a value that could not be made, if that is the policy.
    pub(super) fn or_null(
        &mut self,
        error: crate::query::builtins::RowError,
        span: crate::diagnostic::Span,
    ) -> Result<Value, Box<EvalError>> {
        if self.options.on_error == OnError::Null {
            self.counts.add_nulled(error.reason);
            return Ok(Value::Null);
        }
        Err(Box::new(EvalError { error, span, policy: self.options.on_error }))
    }

    /// A row failed: whether the rows behind it go on.
    pub(super) fn goes_on(&mut self, origin: &Origin<'_>, row: Row<'_>, error: EvalError, direct: bool) -> bool {
        self.fail(origin, row, error, direct) == Fate::Dropped
    }
}

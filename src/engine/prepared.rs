//! Rows on their way into groups: keys and arguments evaluated.
//!
//! In: rows. Out: their key values, and the arguments of aggregates. Invariant: nothing is changed in a window before
//! all expressions of a row succeeded. Not here: which groups a row enters.

use super::accumulate::prepare;
use super::env::{Env, EvalError, Row};
use super::key::put_key;
use crate::query::plan::{Aggregate, AggregateFunction, Expr};
use crate::value::Value;

/// A row on its way into windows: keys and arguments evaluated.
#[derive(Debug, Default)]
pub(super) struct PreparedRow {
    pub key: Vec<u8>,
    pub keys: Vec<Value>,
    /// For each aggregate its argument and order keys, one after another.
    pub args: Vec<Value>,
}

impl PreparedRow {
    /// Evaluates the keys and arguments of a row; nothing is changed in a window before all of them succeeded.
    pub(super) fn fill(
        &mut self,
        env: &mut Env,
        keys: &[Expr],
        aggregates: &[Aggregate],
        row: Row<'_>,
    ) -> Result<(), Box<EvalError>> {
        self.key.clear();
        self.keys.clear();
        self.args.clear();
        for expr in keys {
            let value = env.eval(expr, row)?.into_owned();
            put_key(&mut self.key, &value);
            self.keys.push(value);
        }
        for aggregate in aggregates {
            fill_args(env, aggregate, row, &mut self.args)?;
        }
        Ok(())
    }
}

/// Appends the prepared argument and the order keys of one aggregate.
pub(super) fn fill_args(
    env: &mut Env,
    aggregate: &Aggregate,
    row: Row<'_>,
    out: &mut Vec<Value>,
) -> Result<(), Box<EvalError>> {
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

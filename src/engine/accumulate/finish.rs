//! What an aggregate comes to.
//!
//! In: an accumulator. Out: its value, or an error. Invariant: floats that come out are finite. Not here: user
//! aggregates, whose value a guest computes (`users`).

use super::prepare::{float, name};
use super::{Acc, SHRINK, order};
use crate::engine::fault::Fault;
use crate::query::builtins::RowError;
use crate::query::plan::{Aggregate, AggregateFunction};
use crate::value::codec::DEPTH_MAX;
use crate::value::{Record, SmolStr, Value};

impl Acc {
    /// The aggregate's value.
    ///
    /// # Errors
    /// A sum of bigints that no bigint holds, a float that is not finite, a collection nested deeper than stored values
    /// may be.
    pub(in crate::engine) fn finish(&self, aggregate: &Aggregate) -> Result<Value, RowError> {
        use AggregateFunction::*;
        Ok(match self {
            Acc::Count(n) => Value::BigInt(*n),
            Acc::Sum { count: 0, .. } => Value::Null,
            Acc::Sum { whole, floats, huge, count, .. } if aggregate.function == Avg => {
                finite("AVG", divided_sum(*whole, *floats, *huge, *count as f64))?
            }
            Acc::Sum { whole, floats, huge, floats_seen: true, .. } => {
                finite("SUM", divided_sum(*whole, *floats, *huge, 1.0))?
            }
            Acc::Sum { whole, .. } => Value::BigInt(i64::try_from(*whole).map_err(|_| RowError {
                reason: "overflow",
                message: format!("SUM gives {whole}, which is no bigint; sum CAST(… AS float) instead"),
            })?),
            Acc::Extreme(best) => best.clone(),
            Acc::Moments { count, squares, .. } => match moments(&aggregate.function, *count, *squares) {
                Some(f) => finite(name(&aggregate.function), f)?,
                None => Value::Null,
            },
            Acc::Values(values) => match aggregate.function {
                PercentileCont { fraction } => match percentile_cont(&sorted(aggregate, values), fraction)? {
                    Some(f) => finite("PERCENTILE_CONT", f)?,
                    None => Value::Null,
                },
                PercentileDisc { fraction } => percentile_disc(&sorted(aggregate, values), fraction),
                _ => shallow(aggregate, Value::array(values.clone()))?,
            },
            Acc::Top(best) => match aggregate.function {
                TopOne => shallow(aggregate, best.first().map(|(_, value)| value.clone()).unwrap_or_default())?,
                _ => shallow(
                    aggregate,
                    Value::array(best.iter().zip(1i64..).map(|((_, v), rank)| ranked(rank, v)).collect()),
                )?,
            },
            // `Users::value` asks the guest
            Acc::User(_) => return Err(Fault("the value of a user aggregate was asked of its rows").into()),
            Acc::Distinct(seen) if aggregate.function == Count => {
                Value::BigInt(i64::try_from(seen.len()).unwrap_or(i64::MAX))
            }
            Acc::Distinct(seen) => {
                let mut plain = Acc::plain(&aggregate.function);
                seen.values().try_for_each(|value| plain.add(aggregate, std::slice::from_ref(value)))?;
                return plain.finish(aggregate);
            }
        })
    }
}

fn ranked(rank: i64, value: &Value) -> Value {
    let fields =
        vec![(SmolStr::new_static("rank"), Value::BigInt(rank)), (SmolStr::new_static("value"), value.clone())];
    Value::record(Record::from_unique(fields))
}

/// A collection, which must not nest deeper than stored values may: one of collections grows from step to step.
fn shallow(aggregate: &Aggregate, value: Value) -> Result<Value, RowError> {
    if !value.depth_exceeds(DEPTH_MAX) {
        return Ok(value);
    }
    let message = format!(
        "{} would nest deeper than {DEPTH_MAX} levels; collect the parts that matter",
        name(&aggregate.function)
    );
    Err(RowError { reason: "too_deep", message })
}

/// A float result, which must be finite.
fn finite(name: &str, f: f64) -> Result<Value, RowError> {
    if f.is_finite() {
        return Ok(Value::Float(f));
    }
    Err(RowError {
        reason: "overflow",
        message: format!("{name} is outside the range of float; leave out values that are this large"),
    })
}

/// What was summed, divided; not finite only where that is so of the result.
fn divided_sum(whole: i128, floats: f64, huge: f64, by: f64) -> f64 {
    let plain = whole as f64 + floats;
    if huge == 0.0 { plain / by } else { (huge + plain * SHRINK) / by / SHRINK }
}

/// `None`: too few values.
fn moments(function: &AggregateFunction, count: u64, squares: f64) -> Option<f64> {
    use AggregateFunction::*;
    let divisor = if matches!(function, StDev | Var) { count.saturating_sub(1) } else { count };
    if divisor == 0 {
        return None;
    }
    let variance = squares / divisor as f64;
    Some(if matches!(function, StDev | StDevP) { variance.sqrt() } else { variance })
}

fn sorted(aggregate: &Aggregate, values: &[Value]) -> Vec<Value> {
    let descending = aggregate.order_by.first().is_some_and(|(_, descending)| *descending);
    let mut values = values.to_vec();
    values.sort_by(|a, b| if descending { order(b, a) } else { order(a, b) });
    values
}

/// `None`: no values.
fn percentile_cont(sorted: &[Value], fraction: f64) -> Result<Option<f64>, Fault> {
    let Some(last) = sorted.len().checked_sub(1) else { return Ok(None) };
    let place = fraction * last as f64;
    let below = place.floor();
    let missing = Fault("a percentile lies past its values");
    let at = |i: f64| float(sorted.get((i as usize).min(last)).ok_or(missing)?);
    let (low, high) = (at(below)?, at(place.ceil())?);
    let (apart, share) = (high - low, place - below);
    // of two values at the far ends of floats the distance is none; their shares are
    Ok(Some(if apart.is_finite() { low + apart * share } else { low * (1.0 - share) + high * share }))
}

fn percentile_disc(sorted: &[Value], fraction: f64) -> Value {
    let n = sorted.len() as f64;
    let reaches = |rank: &usize| *rank as f64 / n >= fraction;
    // the product may be rounded past a whole number: the shares themselves decide
    let near = ((fraction * n) as usize).max(1);
    let rank = (near.saturating_sub(1).max(1)..=near + 1).find(reaches).unwrap_or(near);
    sorted.get(rank - 1).or(sorted.last()).cloned().unwrap_or_default()
}

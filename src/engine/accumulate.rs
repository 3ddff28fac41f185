//! Aggregate functions as values that grow.
//!
//! In: arguments of rows, in time order. Out: the aggregate. Invariant: [`Acc::merge`] of two parts in time order gives
//! what one pass over all rows gives (floats up to rounding), and what `stored` wrote reads back equal. Not here: which
//! rows belong together (windows), evaluation of arguments.

mod finish;
mod prepare;
mod stored;

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use self::prepare::float;
use super::fault::Fault;
use super::key::put_key;
use super::share::GuestRows;
use crate::query::plan::{Aggregate, AggregateFunction};
use crate::value::Value;

pub(super) use prepare::prepare;

/// The state of one aggregate of one group.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Acc {
    Count(i64),
    /// Whole numbers and floats apart, so that whole sums are exact; `floats_seen` decides the type of the result.
    /// Floats past [`HUGE`] are summed apart, each times [`SHRINK`], so that a sum on the way never leaves the range of
    /// floats.
    Sum {
        whole: i128,
        floats: f64,
        huge: f64,
        count: u64,
        floats_seen: bool,
    },
    /// The least or greatest so far, NULL before the first.
    Extreme(Value),
    /// Count, mean and sum of squared distances from it.
    Moments {
        count: u64,
        mean: f64,
        squares: f64,
    },
    /// All values, or those to take a percentile of.
    Values(Vec<Value>),
    /// The best so far: order keys, then the value.
    Top(Vec<(Vec<Value>, Value)>),
    /// Distinct values by their key bytes, which also gives them an order.
    Distinct(BTreeMap<Vec<u8>, Value>),
    /// What a user aggregate is made of: one share, or more in time order where shares can be merged.
    User(Vec<GuestRows>),
}

/// Floats from here on, 2^960, are summed shrunk: of those below, 2^64 sum up to a finite float.
const HUGE: f64 = f64::from_bits((1023 + 960) << 52);

/// 2^-64: a power of two, so that shrinking a huge float keeps every digit, and as many of them have a finite sum.
const SHRINK: f64 = f64::from_bits((1023 - 64) << 52);

const NO_SHARE: Fault = Fault("a group of a user aggregate has no share for its rows");

/// How many values a row gives an aggregate: the argument and its order keys; a user aggregate the event time (NULL:
/// the row is left out) and the arguments.
pub(super) fn arity(aggregate: &Aggregate) -> usize {
    1 + aggregate.order_by.len() + aggregate.user_args.len()
}

/// Whether its state grows with the rows.
pub(super) fn grows(aggregate: &Aggregate) -> bool {
    use AggregateFunction::*;
    match &aggregate.function {
        Collect | PercentileCont { .. } | PercentileDisc { .. } => true,
        // what cannot be saved is made again from its rows
        User(user) => !user.offers.save,
        _ => aggregate.distinct,
    }
}

/// Whether parts of its state merge in constant time, so that an aggregate over moving rows need not visit all of them.
pub(super) fn merges(aggregate: &Aggregate) -> bool {
    use AggregateFunction::*;
    !aggregate.distinct
        && match &aggregate.function {
            Count | Sum | Avg | Min { .. } | Max { .. } | StDev | StDevP | Var | VarP | TopOne => true,
            Collect | CollectTop { .. } | PercentileCont { .. } | PercentileDisc { .. } | User(_) => false,
        }
}

impl Acc {
    pub(super) fn new(aggregate: &Aggregate) -> Acc {
        if aggregate.distinct {
            return Acc::Distinct(BTreeMap::new());
        }
        Acc::plain(&aggregate.function)
    }

    fn plain(function: &AggregateFunction) -> Acc {
        use AggregateFunction::*;
        match function {
            Count => Acc::Count(0),
            Sum | Avg => Acc::Sum { whole: 0, floats: 0.0, huge: 0.0, count: 0, floats_seen: false },
            Min { .. } | Max { .. } => Acc::Extreme(Value::Null),
            StDev | StDevP | Var | VarP => Acc::Moments { count: 0, mean: 0.0, squares: 0.0 },
            Collect | PercentileCont { .. } | PercentileDisc { .. } => Acc::Values(Vec::new()),
            CollectTop { .. } | TopOne => Acc::Top(Vec::new()),
            User(_) => Acc::User(vec![GuestRows::default()]),
        }
    }

    /// Takes one row's prepared argument and its order keys.
    pub(super) fn add(&mut self, aggregate: &Aggregate, values: &[Value]) -> Result<(), Fault> {
        let (value, order) = values.split_first().ok_or(Fault("a row gives an aggregate no argument"))?;
        if value.is_null() && !matches!(self, Acc::Values(_) | Acc::Top(_)) {
            return Ok(());
        }
        match self {
            Acc::Count(n) => *n += 1,
            Acc::Sum { whole, floats, huge, count, floats_seen } => {
                match value {
                    Value::BigInt(n) => *whole += i128::from(*n),
                    other => {
                        match float(other)? {
                            f if f.abs() >= HUGE => *huge += f * SHRINK,
                            f => *floats += f,
                        }
                        *floats_seen = true;
                    }
                }
                *count += 1;
            }
            Acc::Extreme(best) => keep_extreme(aggregate, best, value),
            Acc::Moments { count, mean, squares } => {
                let x = float(value)?;
                *count += 1;
                let delta = x - *mean;
                *mean += delta / *count as f64;
                *squares += delta * (x - *mean);
            }
            Acc::Values(values) => {
                if !value.is_null() || aggregate.function == AggregateFunction::Collect {
                    values.push(value.clone());
                }
            }
            Acc::Top(best) => keep_top(aggregate, best, order.to_vec(), value.clone()),
            Acc::User(shares) => shares.last_mut().ok_or(NO_SHARE)?.add(values),
            Acc::Distinct(seen) => {
                let mut key = Vec::new();
                put_key(&mut key, value);
                seen.entry(key).or_insert_with(|| value.clone());
            }
        }
        Ok(())
    }

    /// Adds what a later part holds.
    pub(super) fn merge(&mut self, aggregate: &Aggregate, later: &Acc) -> Result<(), Fault> {
        match (self, later) {
            (Acc::Count(n), Acc::Count(m)) => *n += m,
            (
                Acc::Sum { whole, floats, huge, count, floats_seen },
                Acc::Sum { whole: w, floats: f, huge: h, count: c, floats_seen: s },
            ) => {
                *whole += w;
                *floats += f;
                *huge += h;
                *count += c;
                *floats_seen |= s;
            }
            (Acc::Extreme(best), Acc::Extreme(other)) => keep_extreme(aggregate, best, other),
            // exactly the later part, without rounding
            (Acc::Moments { count: count @ 0, mean, squares }, Acc::Moments { count: n, mean: m, squares: s }) => {
                (*count, *mean, *squares) = (*n, *m, *s);
            }
            (Acc::Moments { count, mean, squares }, Acc::Moments { count: n, mean: m, squares: s }) if *n > 0 => {
                let (a, b) = (*count as f64, *n as f64);
                let delta = m - *mean;
                *mean += delta * b / (a + b);
                *squares += s + delta * delta * a * b / (a + b);
                *count += n;
            }
            (Acc::Values(values), Acc::Values(more)) => values.extend_from_slice(more),
            (Acc::Top(best), Acc::Top(more)) => {
                for (order, value) in more {
                    keep_top(aggregate, best, order.clone(), value.clone());
                }
            }
            (Acc::Distinct(seen), Acc::Distinct(more)) => {
                for (key, value) in more {
                    seen.entry(key.clone()).or_insert_with(|| value.clone());
                }
            }
            (Acc::User(shares), Acc::User(more)) => match &aggregate.function {
                AggregateFunction::User(user) if user.offers.merge => {
                    // one without rows would cost the guest a merge
                    shares.retain(|share| !share.is_empty());
                    shares.extend_from_slice(more);
                }
                _ => {
                    let share = shares.last_mut().ok_or(NO_SHARE)?;
                    more.iter().for_each(|later| share.append(later));
                }
            },
            // the later part has no values
            (Acc::Moments { .. }, Acc::Moments { .. }) => {}
            _ => return Err(Fault("parts of one aggregate are of two kinds")),
        }
        Ok(())
    }

    /// What a user aggregate is made of; nothing for others.
    pub(super) fn shares(&self) -> &[GuestRows] {
        match self {
            Acc::User(shares) => shares,
            _ => &[],
        }
    }

    /// About how many bytes it holds beyond its own size.
    pub(super) fn heap_bytes(&self) -> usize {
        let values = |values: &[Value]| values.iter().map(|v| 24 + v.heap_bytes()).sum::<usize>();
        match self {
            Acc::Values(v) => values(v),
            Acc::Top(best) => best.iter().map(|(order, v)| 48 + values(order) + v.heap_bytes()).sum(),
            Acc::Distinct(seen) => seen.iter().map(|(k, v)| 64 + k.len() + v.heap_bytes()).sum(),
            Acc::Extreme(v) => v.heap_bytes(),
            Acc::User(shares) => shares.iter().map(GuestRows::bytes).sum(),
            Acc::Count(_) | Acc::Sum { .. } | Acc::Moments { .. } => 0,
        }
    }
}

/// The order of values of possibly different types: NULL first, then numbers, times, text.
fn order(a: &Value, b: &Value) -> Ordering {
    let rank = |v: &Value| match v {
        Value::Null => 0,
        Value::Bit(_) | Value::BigInt(_) | Value::Float(_) => 1,
        Value::DateTime(_) => 2,
        Value::Text(_) => 3,
        Value::Record(_) | Value::Array(_) => 4,
    };
    rank(a).cmp(&rank(b)).then_with(|| a.compare(b).unwrap_or(Ordering::Equal))
}

fn keep_extreme(aggregate: &Aggregate, best: &mut Value, value: &Value) {
    if value.is_null() {
        return;
    }
    let wanted =
        if matches!(aggregate.function, AggregateFunction::Max { .. }) { Ordering::Greater } else { Ordering::Less };
    if best.is_null() || order(value, best) == wanted {
        *best = value.clone();
    }
}

fn keep_top(aggregate: &Aggregate, best: &mut Vec<(Vec<Value>, Value)>, keys: Vec<Value>, value: Value) {
    let limit = match aggregate.function {
        AggregateFunction::CollectTop { count } => count,
        _ => 1,
    };
    let before_or_equal = |held: &[Value]| {
        for ((a, b), (_, descending)) in held.iter().zip(&keys).zip(&aggregate.order_by) {
            let found = if *descending { order(b, a) } else { order(a, b) };
            if found != Ordering::Equal {
                return found == Ordering::Less;
            }
        }
        true
    };
    let at = best.partition_point(|(held, _)| before_or_equal(held));
    if at < limit {
        best.insert(at, (keys, value));
        best.truncate(limit);
    }
}

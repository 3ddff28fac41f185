//! Aggregate functions as values that grow.
//!
//! In: arguments of rows, in time order. Out: the aggregate. Invariant: [`Acc::merge`] of two parts in time order gives
//! what one pass over all rows gives (floats up to rounding), and what [`Acc::write`] wrote reads back equal. Not here:
//! which rows belong together (windows), evaluation of arguments.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::key::put_key;
use super::share::Share;
use super::state::{put_values, read_values};
use crate::query::builtins::RowError;
use crate::query::plan::{Aggregate, AggregateFunction};
use crate::value::codec::{DEPTH_MAX, Damaged, Reader, put_bytes, put_signed, put_varint};
use crate::value::{Record, SmolStr, Value, number_of};

/// The state of one aggregate of one group.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Acc {
    Count(i64),
    /// Whole numbers and floats apart, so that whole sums are exact; `floats_seen` decides the type of the result. Floats
    /// past [`HUGE`] are summed apart, each times [`SHRINK`], so that a sum on the way never leaves the range of floats.
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
    User(Vec<Share>),
}

/// Floats from here on, 2^960, are summed shrunk: of those below, 2^64 sum up to a finite float.
const HUGE: f64 = f64::from_bits((1023 + 960) << 52);

/// 2^-64: a power of two, so that shrinking a huge float keeps every digit, and as many of them have a finite sum.
const SHRINK: f64 = f64::from_bits((1023 - 64) << 52);

/// In place of `floats_seen` where the sum of huge floats follows, which is nearly never.
const SUM_WITH_HUGE: u8 = 2;

/// How many values a row gives an aggregate: the argument and its order keys; a user aggregate the event time (NULL: the
/// row is left out) and the arguments.
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

/// Makes an argument what the function computes with.
///
/// # Errors
/// The value has a type that the function does not take.
pub(super) fn prepare(function: &AggregateFunction, value: Value) -> Result<Value, RowError> {
    use AggregateFunction::*;
    let name = name(function);
    match function {
        Count | Collect | CollectTop { .. } | TopOne | User(_) => Ok(value),
        Min { text: true } | Max { text: true } => match value {
            Value::Null | Value::Text(_) => Ok(value),
            other => Err(wrong_type(name, &other)),
        },
        Min { .. } | Max { .. } => match value {
            Value::Text(text) => as_number(name, &text).map(|n| Value::Float(as_f64(&n))),
            Value::Record(_) | Value::Array(_) => Err(wrong_type(name, &value)),
            other => Ok(other),
        },
        PercentileDisc { .. } if matches!(value, Value::DateTime(_)) => Ok(value),
        Sum | Avg | StDev | StDevP | Var | VarP | PercentileCont { .. } | PercentileDisc { .. } => match value {
            Value::Null | Value::BigInt(_) | Value::Float(_) => Ok(value),
            Value::Text(text) => as_number(name, &text),
            other => Err(wrong_type(name, &other)),
        },
    }
}

fn name(function: &AggregateFunction) -> &'static str {
    use AggregateFunction::*;
    match function {
        Count => "COUNT",
        Sum => "SUM",
        Avg => "AVG",
        Min { .. } => "MIN",
        Max { .. } => "MAX",
        StDev => "STDEV",
        StDevP => "STDEVP",
        Var => "VAR",
        VarP => "VARP",
        Collect => "Collect",
        CollectTop { .. } => "CollectTop",
        TopOne => "TopOne",
        PercentileCont { .. } => "PERCENTILE_CONT",
        PercentileDisc { .. } => "PERCENTILE_DISC",
        User(_) => "a user aggregate",
    }
}

fn wrong_type(name: &str, value: &Value) -> RowError {
    let kind = value.kind().map_or_else(|| "null".to_owned(), |k| k.to_string());
    RowError { reason: "argument", message: format!("{name} cannot take a value of type {kind}") }
}

fn as_number(name: &str, text: &str) -> Result<Value, RowError> {
    let shown: String = text.chars().take(40).collect();
    number_of(text).ok_or_else(|| RowError { reason: "conversion", message: format!("{name} cannot read '{shown}' as a number") })
}

fn as_f64(value: &Value) -> f64 {
    match value {
        Value::BigInt(n) => *n as f64,
        Value::Float(f) => *f,
        _ => 0.0,
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
            User(_) => Acc::User(vec![Share::default()]),
        }
    }

    /// Takes one row's prepared argument and its order keys.
    pub(super) fn add(&mut self, aggregate: &Aggregate, values: &[Value]) {
        let Some((value, order)) = values.split_first() else { return };
        if value.is_null() && !matches!(self, Acc::Values(_) | Acc::Top(_)) {
            return;
        }
        match self {
            Acc::Count(n) => *n += 1,
            Acc::Sum { whole, floats, huge, count, floats_seen } => {
                *count += 1;
                match value {
                    Value::BigInt(n) => *whole += i128::from(*n),
                    other => {
                        match as_f64(other) {
                            f if f.abs() >= HUGE => *huge += f * SHRINK,
                            f => *floats += f,
                        }
                        *floats_seen = true;
                    }
                }
            }
            Acc::Extreme(best) => keep_extreme(aggregate, best, value),
            Acc::Moments { count, mean, squares } => {
                *count += 1;
                let x = as_f64(value);
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
            Acc::User(shares) => shares.last_mut().into_iter().for_each(|share| share.add(values)),
            Acc::Distinct(seen) => {
                let mut key = Vec::new();
                put_key(&mut key, value);
                seen.entry(key).or_insert_with(|| value.clone());
            }
        }
    }

    /// Adds what a later part holds.
    pub(super) fn merge(&mut self, aggregate: &Aggregate, later: &Acc) {
        match (self, later) {
            (Acc::Count(n), Acc::Count(m)) => *n += m,
            (Acc::Sum { whole, floats, huge, count, floats_seen }, Acc::Sum { whole: w, floats: f, huge: h, count: c, floats_seen: s }) => {
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
                _ => shares.last_mut().into_iter().for_each(|share| more.iter().for_each(|later| share.append(later))),
            },
            _ => {}
        }
    }

    /// The aggregate's value.
    ///
    /// # Errors
    /// A sum of bigints that no bigint holds, a float that is not finite, a collection nested deeper than stored values
    /// may be.
    pub(super) fn finish(&self, aggregate: &Aggregate) -> Result<Value, RowError> {
        use AggregateFunction::*;
        Ok(match self {
            Acc::Count(n) => Value::BigInt(*n),
            Acc::Sum { count: 0, .. } => Value::Null,
            Acc::Sum { whole, floats, huge, count, .. } if aggregate.function == Avg => {
                finite("AVG", divided_sum(*whole, *floats, *huge, *count as f64))?
            }
            Acc::Sum { whole, floats, huge, floats_seen: true, .. } => finite("SUM", divided_sum(*whole, *floats, *huge, 1.0))?,
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
                PercentileCont { fraction } => match percentile_cont(&sorted(aggregate, values), fraction) {
                    Some(f) => finite("PERCENTILE_CONT", f)?,
                    None => Value::Null,
                },
                PercentileDisc { fraction } => percentile_disc(&sorted(aggregate, values), fraction),
                _ => shallow(aggregate, Value::array(values.clone()))?,
            },
            Acc::Top(best) => match aggregate.function {
                TopOne => shallow(aggregate, best.first().map(|(_, value)| value.clone()).unwrap_or_default())?,
                _ => shallow(aggregate, Value::array(best.iter().zip(1i64..).map(|((_, v), rank)| ranked(rank, v)).collect()))?,
            },
            // `Users::value` asks the guest
            Acc::User(_) => Value::Null,
            Acc::Distinct(seen) if aggregate.function == Count => Value::BigInt(i64::try_from(seen.len()).unwrap_or(i64::MAX)),
            Acc::Distinct(seen) => {
                let mut plain = Acc::plain(&aggregate.function);
                seen.values().for_each(|value| plain.add(aggregate, std::slice::from_ref(value)));
                return plain.finish(aggregate);
            }
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Acc::Count(n) => put_signed(out, *n),
            Acc::Sum { whole, floats, huge, count, floats_seen } => {
                out.extend_from_slice(&whole.to_le_bytes());
                out.extend_from_slice(&floats.to_le_bytes());
                put_varint(out, *count);
                out.push(if *huge == 0.0 { u8::from(*floats_seen) } else { SUM_WITH_HUGE });
                if *huge != 0.0 {
                    out.extend_from_slice(&huge.to_le_bytes());
                }
            }
            Acc::Extreme(value) => put_values(out, std::slice::from_ref(value)),
            Acc::Moments { count, mean, squares } => {
                put_varint(out, *count);
                out.extend_from_slice(&mean.to_le_bytes());
                out.extend_from_slice(&squares.to_le_bytes());
            }
            Acc::Values(values) => put_values(out, values),
            Acc::Top(best) => {
                put_varint(out, best.len() as u64);
                for (order, value) in best {
                    put_values(out, order);
                    put_values(out, std::slice::from_ref(value));
                }
            }
            Acc::Distinct(seen) => {
                put_varint(out, seen.len() as u64);
                for (key, value) in seen {
                    put_bytes(out, key);
                    put_values(out, std::slice::from_ref(value));
                }
            }
            // groups with several shares are made for a window that ends, and never stored
            Acc::User(shares) => shares.iter().for_each(|share| share.write(out)),
        }
    }

    pub(super) fn read(aggregate: &Aggregate, reader: &mut Reader<'_>) -> Result<Acc, Damaged> {
        let one = |reader: &mut Reader<'_>| Ok::<_, Damaged>(read_values(reader)?.pop().unwrap_or_default());
        let float = |reader: &mut Reader<'_>| Ok::<_, Damaged>(f64::from_le_bytes(array(reader.take(8)?)));
        Ok(match Acc::new(aggregate) {
            Acc::Count(_) => Acc::Count(reader.signed()?),
            Acc::Sum { .. } => {
                let (whole, floats) = (i128::from_le_bytes(array(reader.take(16)?)), float(reader)?);
                let (count, seen) = (reader.varint()?, reader.byte()?);
                let huge = if seen == SUM_WITH_HUGE { float(reader)? } else { 0.0 };
                Acc::Sum { whole, floats, huge, count, floats_seen: seen != 0 }
            }
            Acc::Extreme(_) => Acc::Extreme(one(reader)?),
            Acc::Moments { .. } => Acc::Moments { count: reader.varint()?, mean: float(reader)?, squares: float(reader)? },
            Acc::Values(_) => Acc::Values(read_values(reader)?),
            Acc::Top(_) => {
                let n = reader.length()?;
                Acc::Top((0..n).map(|_| Ok((read_values(reader)?, one(reader)?))).collect::<Result<_, Damaged>>()?)
            }
            Acc::Distinct(_) => {
                let n = reader.length()?;
                Acc::Distinct((0..n).map(|_| Ok((reader.bytes()?.to_vec(), one(reader)?))).collect::<Result<_, Damaged>>()?)
            }
            Acc::User(_) => Acc::User(vec![Share::read(reader)?]),
        })
    }

    /// About how many bytes it holds beyond its own size.
    pub(super) fn heap_bytes(&self) -> usize {
        let values = |values: &[Value]| values.iter().map(|v| 24 + v.heap_bytes()).sum::<usize>();
        match self {
            Acc::Values(v) => values(v),
            Acc::Top(best) => best.iter().map(|(order, v)| 48 + values(order) + v.heap_bytes()).sum(),
            Acc::Distinct(seen) => seen.iter().map(|(k, v)| 64 + k.len() + v.heap_bytes()).sum(),
            Acc::Extreme(v) => v.heap_bytes(),
            Acc::User(shares) => shares.iter().map(Share::bytes).sum(),
            Acc::Count(_) | Acc::Sum { .. } | Acc::Moments { .. } => 0,
        }
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.iter_mut().zip(bytes).for_each(|(o, b)| *o = *b);
    out
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
    let wanted = if matches!(aggregate.function, AggregateFunction::Max { .. }) { Ordering::Greater } else { Ordering::Less };
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

fn ranked(rank: i64, value: &Value) -> Value {
    let fields = vec![(SmolStr::new_static("rank"), Value::BigInt(rank)), (SmolStr::new_static("value"), value.clone())];
    Value::record(Record::from_unique(fields))
}

/// A collection, which must not nest deeper than stored values may: one of collections grows from step to step.
fn shallow(aggregate: &Aggregate, value: Value) -> Result<Value, RowError> {
    if !value.depth_exceeds(DEPTH_MAX) {
        return Ok(value);
    }
    let message = format!("{} would nest deeper than {DEPTH_MAX} levels; collect the parts that matter", name(&aggregate.function));
    Err(RowError { reason: "too_deep", message })
}

/// A float result, which must be finite.
fn finite(name: &str, f: f64) -> Result<Value, RowError> {
    if f.is_finite() {
        return Ok(Value::Float(f));
    }
    Err(RowError { reason: "overflow", message: format!("{name} is outside the range of float; leave out values that are this large") })
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
fn percentile_cont(sorted: &[Value], fraction: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = fraction * last as f64;
    let below = place.floor();
    let at = |i: f64| sorted.get((i as usize).min(last)).map_or(0.0, as_f64);
    let (low, high) = (at(below), at(place.ceil()));
    let (apart, share) = (high - low, place - below);
    // of two values at the far ends of floats the distance is none; their shares are
    Some(if apart.is_finite() { low + apart * share } else { low * (1.0 - share) + high * share })
}

fn percentile_disc(sorted: &[Value], fraction: f64) -> Value {
    let n = sorted.len() as f64;
    let reaches = |rank: &usize| *rank as f64 / n >= fraction;
    // the product may be rounded past a whole number: the shares themselves decide
    let near = ((fraction * n) as usize).max(1);
    let rank = (near.saturating_sub(1).max(1)..=near + 1).find(reaches).unwrap_or(near);
    sorted.get(rank - 1).or(sorted.last()).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Span;
    use crate::query::plan::Expr;
    use proptest::prelude::*;

    fn aggregate(function: AggregateFunction, distinct: bool, order: &[bool]) -> Aggregate {
        let order_by = order.iter().map(|d| (Expr::Slot(0), *d)).collect();
        Aggregate { function, argument: Some(Expr::Slot(0)), user_args: Vec::new(), distinct, order_by, span: Span::default() }
    }

    fn over(aggregate: &Aggregate, rows: &[Vec<Value>]) -> Value {
        let mut acc = Acc::new(aggregate);
        rows.iter().for_each(|row| acc.add(aggregate, row));
        acc.finish(aggregate).unwrap()
    }

    fn ints(values: &[i64]) -> Vec<Vec<Value>> {
        values.iter().map(|v| vec![Value::BigInt(*v)]).collect()
    }

    #[test]
    fn results_of_every_function() {
        use AggregateFunction::*;
        let rows = ints(&[4, 1, 3, 1]);
        let one = |f| over(&aggregate(f, false, &[]), &rows);
        assert_eq!(one(Count), Value::BigInt(4));
        assert_eq!(one(Sum), Value::BigInt(9));
        assert_eq!(one(Avg), Value::Float(2.25));
        assert_eq!(one(Min { text: false }), Value::BigInt(1));
        assert_eq!(one(Max { text: false }), Value::BigInt(4));
        assert_eq!(one(VarP), Value::Float(1.6875));
        assert_eq!(one(Var), Value::Float(2.25));
        assert_eq!(one(StDev), Value::Float(1.5));
        assert_eq!(one(PercentileCont { fraction: 0.5 }), Value::Float(2.0));
        assert_eq!(one(PercentileDisc { fraction: 0.5 }), Value::BigInt(1));
        assert_eq!(over(&aggregate(Count, true, &[]), &rows), Value::BigInt(3));
        assert_eq!(over(&aggregate(Sum, true, &[]), &rows), Value::BigInt(8));
        assert_eq!(over(&aggregate(StDev, false, &[]), &ints(&[1])), Value::Null);
        assert_eq!(over(&aggregate(Sum, false, &[]), &[vec![Value::Null]]), Value::Null);
        assert_eq!(over(&aggregate(Count, false, &[]), &[vec![Value::Null]]), Value::BigInt(0));
    }

    #[test]
    fn a_discrete_percentile_is_the_first_value_whose_share_reaches_it() {
        for n in 1..=120 {
            let values = ints(&(1..=n).collect::<Vec<_>>());
            for percent in 0..=100 {
                let fraction = f64::from(percent) / 100.0;
                let found = over(&aggregate(AggregateFunction::PercentileDisc { fraction }, false, &[false]), &values);
                let first = (1..=n).find(|rank| *rank as f64 / n as f64 >= fraction);
                assert_eq!(Some(found), first.map(Value::BigInt), "{fraction} of {n}");
            }
        }
    }

    #[test]
    fn whole_sums_are_exact_and_overflow_is_an_error() {
        let sum = aggregate(AggregateFunction::Sum, false, &[]);
        assert_eq!(over(&sum, &ints(&[i64::MAX, 1, -1])), Value::BigInt(i64::MAX));
        let mut acc = Acc::new(&sum);
        ints(&[i64::MAX, 1]).iter().for_each(|row| acc.add(&sum, row));
        assert_eq!(acc.finish(&sum).unwrap_err().reason, "overflow");
    }

    #[test]
    fn floats_that_leave_their_range_are_errors_and_no_others() {
        use AggregateFunction::*;
        let of = |function, values: &[f64]| {
            let aggregate = aggregate(function, false, &[false]);
            let mut acc = Acc::new(&aggregate);
            values.iter().for_each(|v| acc.add(&aggregate, &[Value::Float(*v), Value::Float(*v)]));
            acc.finish(&aggregate).map_err(|e| e.reason)
        };
        let max = f64::MAX;
        for function in [StDev, StDevP, Var, VarP] {
            assert_eq!(of(function, &[max, -max, max]), Err("overflow"));
        }
        assert_eq!(of(Sum, &[max, max]), Err("overflow"));
        assert_eq!(of(Sum, &[max, max, -max]), Ok(Value::Float(max)));
        assert_eq!(of(Sum, &[max, -max, 1.5]), Ok(Value::Float(1.5)));
        assert_eq!(of(Avg, &[max, max, max]), Ok(Value::Float(max)));
        assert_eq!(of(Avg, &[1e300, 2e300]), Ok(Value::Float(1.5e300)));
        assert_eq!(of(Avg, &[1e-300, 3e-300]), Ok(Value::Float(2e-300)));
        assert_eq!(of(Avg, &[f64::INFINITY, f64::NEG_INFINITY]), Err("overflow"));
        assert_eq!(of(PercentileCont { fraction: 0.5 }, &[max, -max]), Ok(Value::Float(0.0)));
        assert!(of(PercentileCont { fraction: 0.75 }, &[max, -max]).is_ok());
        assert_eq!(of(PercentileCont { fraction: 0.5 }, &[f64::INFINITY]), Err("overflow"));
    }

    #[test]
    fn a_sum_of_huge_floats_reads_back() {
        let sum = aggregate(AggregateFunction::Sum, false, &[]);
        let mut acc = Acc::new(&sum);
        for value in [Value::BigInt(3), Value::Float(1.5), Value::Float(f64::MAX)] {
            acc.add(&sum, &[value]);
            let mut bytes = Vec::new();
            acc.write(&mut bytes);
            let mut reader = Reader::new(&bytes);
            assert_eq!(Acc::read(&sum, &mut reader).unwrap(), acc);
            assert!(reader.is_done());
        }
    }

    #[test]
    fn collections_nest_no_deeper_than_stored_values() {
        use AggregateFunction::*;
        let nested = |levels: usize| (0..levels).fold(Value::BigInt(1), |inner, _| Value::array(vec![inner]));
        for (function, adds) in [(Collect, 1), (CollectTop { count: 2 }, 2), (TopOne, 0)] {
            let aggregate = aggregate(function, false, &[false]);
            let of = |levels: usize| {
                let mut acc = Acc::new(&aggregate);
                acc.add(&aggregate, &[nested(levels), Value::BigInt(1)]);
                acc.finish(&aggregate)
            };
            assert!(of(DEPTH_MAX - adds).is_ok(), "{:?}", aggregate.function);
            let error = of(DEPTH_MAX - adds + 1).unwrap_err();
            assert_eq!(error.reason, "too_deep");
            assert!(error.message.starts_with(name(&aggregate.function)), "{}", error.message);
        }
    }

    #[test]
    fn top_keeps_arrival_order_among_ties_and_null_is_smallest() {
        let top = aggregate(AggregateFunction::CollectTop { count: 3 }, false, &[true]);
        let row = |order: Value, name: &str| vec![Value::text(name), order];
        let rows = [
            row(Value::BigInt(1), "a"),
            row(Value::Null, "n"),
            row(Value::Float(2.0), "b"),
            row(Value::BigInt(2), "c"),
            row(Value::BigInt(0), "z"),
        ];
        assert_eq!(over(&top, &rows).to_json(), r#"[{"rank":1,"value":"b"},{"rank":2,"value":"c"},{"rank":3,"value":"a"}]"#);
    }

    proptest! {
        #[test]
        fn parts_merge_to_the_whole_and_state_reads_back(values in prop::collection::vec(prop::option::of(-50i64..50), 0..30), cut in 0usize..30) {
            use AggregateFunction::*;
            let rows: Vec<Vec<Value>> = values.iter().map(|v| { let v = v.map_or(Value::Null, Value::BigInt); vec![v.clone(), v] }).collect();
            let cut = cut.min(rows.len());
            for (function, distinct) in [(Count, false), (Count, true), (Sum, false), (Min { text: false }, false), (Max { text: false }, false), (Collect, false), (CollectTop { count: 4 }, false), (TopOne, false), (PercentileDisc { fraction: 0.3 }, false), (Avg, true)] {
                let aggregate = aggregate(function, distinct, &[false]);
                let (mut first, mut second) = (Acc::new(&aggregate), Acc::new(&aggregate));
                rows[..cut].iter().for_each(|row| first.add(&aggregate, row));
                rows[cut..].iter().for_each(|row| second.add(&aggregate, row));
                let mut bytes = Vec::new();
                first.write(&mut bytes);
                let mut reader = Reader::new(&bytes);
                prop_assert_eq!(&Acc::read(&aggregate, &mut reader).unwrap(), &first);
                prop_assert!(reader.is_done());
                first.merge(&aggregate, &second);
                prop_assert_eq!(first.finish(&aggregate).unwrap(), over(&aggregate, &rows));
            }
        }
    }
}

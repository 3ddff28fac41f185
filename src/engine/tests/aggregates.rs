//! The aggregate functions, each computed from all its rows at once, as the language defines it.

use super::stream::{Cell, Row};
use crate::value::{Record, Value};

pub(super) type Compute = fn(&[&Row]) -> Value;

/// Column, text in the query, value over the rows of a group in the order of their times.
pub(super) const AGGREGATES: &[(&str, &str, Compute)] = &[
    ("n", "COUNT(*)", |rows| Value::BigInt(rows.len() as i64)),
    ("c", "COUNT(v)", |rows| Value::BigInt(numbers(rows).len() as i64)),
    ("d", "COUNT(DISTINCT v)", |rows| Value::BigInt(distinct(rows).len() as i64)),
    ("s", "SUM(v)", |rows| some(&numbers(rows), |v| v.iter().sum())),
    ("a", "AVG(v)", |rows| some(&numbers(rows), mean)),
    ("lo", "MIN(v)", |rows| some(&numbers(rows), |v| v.iter().copied().fold(f64::INFINITY, f64::min))),
    ("hi", "MAX(v)", |rows| some(&numbers(rows), |v| v.iter().copied().fold(f64::NEG_INFINITY, f64::max))),
    ("sdev", "STDEV(v)", |rows| spread(&numbers(rows), 1, true)),
    ("sdevp", "STDEVP(v)", |rows| spread(&numbers(rows), 0, true)),
    ("vari", "VAR(v)", |rows| spread(&numbers(rows), 1, false)),
    ("varp", "VARP(v)", |rows| spread(&numbers(rows), 0, false)),
    ("col", "Collect(v)", |rows| Value::array(rows.iter().map(|r| r.v.value()).collect())),
    ("top", "TopOne(v) OVER (ORDER BY w DESC)", |rows| ranked(rows, true).first().map_or(Value::Null, |r| r.v.value())),
    ("two", "CollectTop(2, v) OVER (ORDER BY w)", |rows| {
        let item = |(rank, row): (i64, &&Row)| {
            let fields = vec![("rank".into(), Value::BigInt(rank)), ("value".into(), row.v.value())];
            Value::record(Record::from_unique(fields))
        };
        Value::array((1..).zip(&ranked(rows, false)).take(2).map(item).collect())
    }),
    ("pc", "PERCENTILE_CONT(0.3) OVER (ORDER BY v)", |rows| {
        some(&ascending(rows), |v| {
            let place = 0.3 * (v.len() - 1) as f64;
            let (low, high) = (v[place.floor() as usize], v[place.ceil() as usize]);
            low + (high - low) * place.fract()
        })
    }),
    ("pd", "PERCENTILE_DISC(0.6) OVER (ORDER BY v DESC)", |rows| {
        let descending: Vec<f64> = ascending(rows).into_iter().rev().collect();
        // the first whose cumulative share reaches the fraction
        some(&descending, |v| v[(1..=v.len()).find(|i| *i as f64 / v.len() as f64 >= 0.6).unwrap() - 1])
    }),
];

/// The columns of a SELECT.
pub(super) fn columns(chosen: &[(&str, &str, Compute)]) -> String {
    chosen.iter().map(|(name, text, _)| format!("{text} AS {name}")).collect::<Vec<_>>().join(", ")
}

fn numbers(rows: &[&Row]) -> Vec<f64> {
    rows.iter().filter_map(|r| r.v.number()).collect()
}

fn ascending(rows: &[&Row]) -> Vec<f64> {
    let mut numbers = numbers(rows);
    numbers.sort_by(f64::total_cmp);
    numbers
}

fn distinct(rows: &[&Row]) -> Vec<f64> {
    let mut found: Vec<f64> = Vec::new();
    for x in numbers(rows) {
        if !found.contains(&x) {
            found.push(x);
        }
    }
    found
}

/// NULL without a value.
fn some(values: &[f64], compute: impl Fn(&[f64]) -> f64) -> Value {
    if values.is_empty() { Value::Null } else { Value::Float(compute(values)) }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Squared distances from the mean over `n - less`; NULL where that is nothing.
fn spread(values: &[f64], less: usize, root: bool) -> Value {
    if values.len() <= less {
        return Value::Null;
    }
    let squares: f64 = values.iter().map(|x| (x - mean(values)).powi(2)).sum();
    let variance = squares / (values.len() - less) as f64;
    Value::Float(if root { variance.sqrt() } else { variance })
}

/// The rows ordered by `w`, NULL the smallest; ties keep their order.
fn ranked<'a>(rows: &[&'a Row], descending: bool) -> Vec<&'a Row> {
    let place = |cell: Cell| cell.number().unwrap_or(f64::NEG_INFINITY);
    let mut rows = rows.to_vec();
    // the zero of either sign is one number
    rows.sort_by(|a, b| {
        let order = place(a.w).partial_cmp(&place(b.w)).unwrap();
        if descending { order.reverse() } else { order }
    });
    rows
}

//! Arguments of aggregates, made what the functions compute with.
//!
//! In: the value of an argument. Out: a value of a type that the function takes, or the row's error. Invariant: a
//! number stays a bigint or a float. Not here: evaluation of arguments.

use crate::engine::fault::Fault;
use crate::query::builtins::RowError;
use crate::query::plan::AggregateFunction;
use crate::value::{Value, number_of};

/// Makes an argument what the function computes with.
///
/// # Errors
/// The value has a type that the function does not take.
pub(in crate::engine) fn prepare(function: &AggregateFunction, value: Value) -> Result<Value, RowError> {
    use AggregateFunction::*;
    let name = name(function);
    match function {
        Count | Collect | CollectTop { .. } | TopOne | User(_) => Ok(value),
        Min { text: true } | Max { text: true } => match value {
            Value::Null | Value::Text(_) => Ok(value),
            other => Err(wrong_type(name, &other)),
        },
        Min { .. } | Max { .. } => match value {
            Value::Text(text) => as_number(name, &text).and_then(|n| Ok(Value::Float(float(&n)?))),
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

/// The function as messages call it.
pub(super) fn name(function: &AggregateFunction) -> &'static str {
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
    number_of(text)
        .ok_or_else(|| RowError { reason: "conversion", message: format!("{name} cannot read '{shown}' as a number") })
}

/// A prepared number as a float.
pub(super) fn float(value: &Value) -> Result<f64, Fault> {
    match value {
        Value::BigInt(n) => Ok(*n as f64),
        Value::Float(f) => Ok(*f),
        _ => Err(Fault("an aggregate of numbers was given something else")),
    }
}

//! What a guest answered, as a value or a row error.
//!
//! In: a result of the component model. Out: a value that may become state. Invariant: a message of a guest is cut, and
//! a value nests no deeper than stored ones may. Not here: conversion of single types (`convert`).

use wasmtime::component::Val;

use super::convert;
use super::instance::CallError;
use super::stats::CallFailure;
use super::wit::Wit;
use crate::value::Value;
use crate::value::codec::DEPTH_MAX;

/// Longest message of a row error, in characters: it is stored with the dead letter and logged.
const MESSAGE_CHARS_MAX: usize = 500;

/// The value of a result; `err` of a `result` is the row's error.
pub(super) fn result(ty: Option<&Wit>, val: Option<Val>) -> Result<Value, CallError> {
    let lifted = match (ty, val) {
        (Some(Wit::Result(ok, _)), Some(Val::Result(Ok(val)))) => convert::lift_arm(ok.as_deref(), val),
        (Some(Wit::Result(_, err)), Some(Val::Result(Err(val)))) => {
            let message = match convert::lift_arm(err.as_deref(), val) {
                Ok(Value::Null) => "answered err".to_owned(),
                Ok(Value::Text(text)) => text.into(),
                Ok(value) => value.to_json(),
                Err(e) => e.to_string(),
            };
            return Err(CallError { failure: CallFailure::Error, message });
        }
        (Some(ty), Some(val)) => convert::lift(ty, val),
        _ => Ok(Value::Null),
    };
    let value = lifted.map_err(|e| conversion(format!("its result does not convert: {e}")))?;
    flat_enough(value)
}

/// A result may become state, which could not be read back if it nests too deep.
pub(super) fn flat_enough(value: Value) -> Result<Value, CallError> {
    if value.depth_exceeds(DEPTH_MAX) {
        let message = format!("its result nests deeper than {DEPTH_MAX} levels; give a flatter one, or text");
        return Err(CallError { failure: CallFailure::TooDeep, message });
    }
    Ok(value)
}

pub(super) fn conversion(message: String) -> CallError {
    CallError { failure: CallFailure::Conversion, message }
}

/// The start of a message: guests word theirs at any length.
pub(super) fn cut(message: &str) -> &str {
    message.char_indices().nth(MESSAGE_CHARS_MAX).and_then(|(end, _)| message.get(..end)).unwrap_or(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_nests_no_deeper_than_stored_values() {
        let of = |levels: usize| {
            let text = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
            let val = Val::Record(vec![("json".to_owned(), Val::String(text))]);
            result(Some(&Wit::Result(Some(Box::new(Wit::Json)), None)), Some(Val::Result(Ok(Some(Box::new(val))))))
        };
        assert!(of(DEPTH_MAX).is_ok());
        let error = of(DEPTH_MAX + 1).unwrap_err();
        assert_eq!(error.failure.reason(), "too_deep");
        assert!(error.message.contains("deeper than 64 levels"), "{}", error.message);
    }
}

//! The arguments of one call, read with the implicit conversions that every function shares.
//!
//! In: values and the function's name. Out: text, numbers, moments, or a [`RowError`] in the words Stream Analytics
//! uses. Invariant: an error names the function and the place of the argument. Not here: conversions somebody asked for
//! (`cast`).

use std::borrow::Cow;

use super::cast::{float_in_range, plain_text};
use super::error::{RESULT_BYTES_MAX, RowError};
use super::text::excerpt;
use crate::time::Timestamp;
use crate::value::{Type, Value, number_of};

static NULL: Value = Value::Null;

/// A number whose type decides the type of the result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    BigInt(i64),
    Float(f64),
}

impl From<Number> for Value {
    fn from(n: Number) -> Value {
        match n {
            Number::BigInt(n) => Value::BigInt(n),
            Number::Float(f) => Value::Float(f),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    name: &'static str,
    values: &'a [Value],
}

impl<'a> Args<'a> {
    pub fn new(name: &'static str, values: &'a [Value]) -> Args<'a> {
        Args { name, values }
    }

    /// `None` when an argument is NULL, and so the result.
    pub fn strict(name: &'static str, values: &'a [Value]) -> Option<Args<'a>> {
        (!values.iter().any(Value::is_null)).then_some(Args { name, values })
    }

    /// Argument `i`, counted from 0; NULL past the end.
    pub fn get(self, i: usize) -> &'a Value {
        self.values.get(i).unwrap_or(&NULL)
    }

    pub fn len(self) -> usize {
        self.values.len()
    }

    /// Text, or a scalar in the text that CAST gives it.
    pub fn text(self, i: usize) -> Result<Cow<'a, str>, RowError> {
        match self.get(i) {
            Value::Text(t) => Ok(Cow::Borrowed(t.as_str())),
            scalar @ (Value::Bit(_) | Value::BigInt(_) | Value::Float(_) | Value::DateTime(_)) => {
                plain_text(scalar).map(Cow::Owned).ok_or_else(|| self.invalid(i, &[Type::Text]))
            }
            _ => Err(self.invalid(i, &[Type::Text])),
        }
    }

    /// A bigint; a float loses its fraction, a bit is 0 or 1, text must be a whole number.
    pub fn integer(self, i: usize) -> Result<i64, RowError> {
        let read = match self.get(i) {
            Value::BigInt(n) => Some(*n),
            Value::Float(f) => float_in_range(*f),
            Value::Bit(b) => Some(i64::from(*b)),
            Value::Text(t) => t.trim().parse().ok(),
            _ => None,
        };
        read.ok_or_else(|| self.invalid(i, &[Type::BigInt]))
    }

    /// A bigint or a float as it is; text that reads as a number is a float.
    pub fn number(self, i: usize) -> Result<Number, RowError> {
        match self.get(i) {
            Value::BigInt(n) => Ok(Number::BigInt(*n)),
            Value::Float(f) if f.is_finite() => Ok(Number::Float(*f)),
            Value::Text(_) => self.float(i).map(Number::Float),
            _ => Err(self.invalid(i, &[Type::BigInt, Type::Float])),
        }
    }

    /// A float, or what converts to one.
    pub fn float(self, i: usize) -> Result<f64, RowError> {
        let read = match self.get(i) {
            Value::BigInt(n) => Some(*n as f64),
            Value::Float(f) if f.is_finite() => Some(*f),
            Value::Bit(b) => Some(f64::from(u8::from(*b))),
            Value::Text(t) => match number_of(t) {
                Some(Value::BigInt(n)) => Some(n as f64),
                Some(Value::Float(f)) => Some(f),
                _ => None,
            },
            _ => None,
        };
        read.ok_or_else(|| self.invalid(i, &[Type::BigInt, Type::Float]))
    }

    /// A datetime or ISO 8601 text.
    pub fn datetime(self, i: usize) -> Result<Timestamp, RowError> {
        match self.get(i) {
            Value::DateTime(t) => Ok(*t),
            Value::Text(text) => Timestamp::parse(text).ok_or_else(|| {
                self.error(
                    "conversion",
                    format!("the {} argument is no date in ISO 8601: '{}'", ordinal(i + 1), excerpt(text)),
                )
            }),
            _ => Err(self.invalid(i, &[Type::DateTime])),
        }
    }

    /// The argument has a type that this function does not take.
    pub fn invalid(self, i: usize, allowed: &[Type]) -> RowError {
        let given = self.get(i).kind().map_or_else(|| "NULL".to_owned(), |t| t.to_string());
        let allowed: Vec<String> = allowed.iter().map(|t| format!("'{t}'")).collect();
        let value = match self.get(i) {
            Value::Text(t) => format!(" The value is '{}'.", excerpt(t)),
            _ => String::new(),
        };
        RowError::new(
            "argument",
            format!(
                "The {} argument of function {} has invalid type '{given}'. Only {} is allowed.{value}",
                ordinal(i + 1),
                self.name.to_ascii_lowercase(),
                allowed.join(", ")
            ),
        )
    }

    /// Another error of this call.
    pub fn error(self, reason: crate::batch::Reason, what: impl std::fmt::Display) -> RowError {
        RowError::new(reason, format!("{}: {what}", self.name))
    }

    /// A bigint result of a function that gives floats for floats left its range.
    pub fn bigint_overflow(self) -> RowError {
        self.error("overflow", "the result is outside the range of bigint; CAST the argument to float first")
    }

    /// A float result, which must be finite.
    pub fn finite(self, f: f64) -> Result<Value, RowError> {
        if f.is_finite() {
            Ok(Value::Float(f))
        } else {
            Err(self.error("overflow", "the result is outside the range of float"))
        }
    }

    /// Checks the size of a text before it is built.
    pub fn check_size(self, bytes: usize) -> Result<(), RowError> {
        if bytes <= RESULT_BYTES_MAX {
            return Ok(());
        }
        Err(self.error("too_long", format!("the result would have {bytes} bytes, the most is {RESULT_BYTES_MAX}")))
    }
}

/// `1st`, `2nd`, `3rd`, `4th`, `11th` …
fn ordinal(n: usize) -> String {
    let ending = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_read_well() {
        let read: Vec<String> = [1, 2, 3, 4, 11, 12, 13, 21, 102, 111].into_iter().map(ordinal).collect();
        assert_eq!(read.join(" "), "1st 2nd 3rd 4th 11th 12th 13th 21st 102nd 111th");
    }
}

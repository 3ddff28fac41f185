//! `CREATE TABLE`: what an event must look like.
//!
//! In: decoded values of declared columns. Out: the value as the declared type, or the misfit. Invariant: only lossless
//! conversions (whole number to float, ISO 8601 text to datetime); NULL and missing fields fit every type. Not here:
//! `CAST`.

use super::DecodeError;
use crate::time::Timestamp;
use crate::value::{SmolStr, Type, Value, same_ignoring_case};

/// Declared columns of an input. No two names are alike ignoring case: the binder refuses that.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema {
    pub columns: Vec<(SmolStr, Type)>,
}

impl Schema {
    /// The declared type of a field: of the exact name, else of the only one that differs in letter case.
    pub fn type_of(&self, name: &str) -> Option<Type> {
        if let Some((_, ty)) = self.columns.iter().find(|(n, _)| n == name) {
            return Some(*ty);
        }
        let mut alike = self.columns.iter().filter(|(n, _)| same_ignoring_case(n, name));
        match (alike.next(), alike.next()) {
            (Some((_, ty)), None) => Some(*ty),
            _ => None,
        }
    }
}

/// Makes `value` fit `ty`.
///
/// # Errors
/// It has another type and no lossless conversion exists.
pub(super) fn fit(field: &str, value: Value, ty: Type) -> Result<Value, DecodeError> {
    match (value, ty) {
        (Value::Null, _) => Ok(Value::Null),
        (Value::BigInt(n), Type::Float) => Ok(Value::Float(n as f64)),
        (Value::Text(text), Type::DateTime) => match Timestamp::parse(&text) {
            Some(time) => Ok(Value::DateTime(time)),
            None => Err(DecodeError::Schema {
                field: field.to_owned(),
                found: "text that is no ISO 8601 time",
                declared: ty,
            }),
        },
        (value, ty) if value.kind() == Some(ty) => Ok(value),
        (value, ty) => Err(DecodeError::Schema { field: field.to_owned(), found: described(&value), declared: ty }),
    }
}

fn described(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bit(_) => "a boolean",
        Value::BigInt(_) => "a whole number",
        Value::Float(_) => "a number with a fraction",
        Value::Text(_) => "text",
        Value::DateTime(_) => "a datetime",
        Value::Record(_) => "an object",
        Value::Array(_) => "an array",
    }
}

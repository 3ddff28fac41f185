//! `COALESCE`, `NULLIF` and `GetType`: the functions that look at NULL and at types.
//!
//! In: values of any type. Out: one of them, or the name of a type. Invariant: none of them fails. Not here: `CASE`.

use super::args::Args;
use super::error::RowError;
use crate::value::Value;

/// The first argument that is not NULL.
pub fn coalesce(values: &[Value]) -> Result<Value, RowError> {
    Ok(values.iter().find(|v| !v.is_null()).cloned().unwrap_or_default())
}

/// NULL when the two are equal, else the first.
pub fn nullif(values: &[Value]) -> Result<Value, RowError> {
    let args = Args::new("NULLIF", values);
    let first = args.get(0);
    Ok(if first.equals(args.get(1)) { Value::Null } else { first.clone() })
}

/// The name of the value's type; NULL has none.
pub fn get_type(values: &[Value]) -> Result<Value, RowError> {
    let kind = Args::new("GetType", values).get(0).kind();
    Ok(kind.map_or(Value::Null, |t| Value::text(t.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nullif_compares_by_value_and_null_equals_nothing() {
        let call = |a: Value, b: Value| nullif(&[a, b]).unwrap();
        assert_eq!(call(Value::BigInt(4), Value::Float(4.0)), Value::Null);
        assert_eq!(call(Value::BigInt(4), Value::Null), Value::BigInt(4));
        assert_eq!(call(Value::Null, Value::Null), Value::Null);
    }

    #[test]
    fn coalesce_keeps_the_type_of_what_it_finds() {
        assert_eq!(coalesce(&[Value::Null, Value::text("x"), Value::BigInt(1)]), Ok(Value::text("x")));
        assert_eq!(coalesce(&[Value::Null]), Ok(Value::Null));
        assert_eq!(get_type(&[Value::Null]), Ok(Value::Null));
    }
}

//! Conversions that a query asks for: `CAST`, and `TRY_CAST` as its `.ok()`.
//!
//! In: a value and the type wanted. Out: the value in that type, or an error with the reason `conversion`. Invariant:
//! NULL stays NULL, and a value of the type wanted stays as it is. Not here: what functions and operators convert
//! unasked.

use super::error::RowError;
use super::text::excerpt;
use crate::time::Timestamp;
use crate::value::{Type, Value, number_of};

/// Converts as `CAST(value AS to)`.
///
/// Where the documents are silent: a float becomes a bigint by cutting its fraction off; text with a fraction is no
/// bigint; a bit is `1` or `0` as number and as text; text is a bit when it is `1`, `0`, `true` or `false`; a record or
/// an array becomes its JSON text; numbers and datetimes do not convert into each other.
///
/// # Errors
/// The pair of types does not convert, or this value does not.
pub fn cast(value: &Value, to: Type) -> Result<Value, RowError> {
    if value.is_null() || value.kind() == Some(to) {
        return Ok(value.clone());
    }
    let converted = match to {
        Type::BigInt => to_bigint(value).map(Value::BigInt),
        Type::Float => to_float(value).map(Value::Float),
        Type::Text => to_text(value).map(Value::text),
        Type::DateTime => match value {
            Value::Text(t) => Timestamp::parse(t).map(Value::DateTime),
            _ => None,
        },
        Type::Bit => to_bit(value).map(Value::Bit),
        Type::Record | Type::Array => None,
    };
    converted.ok_or_else(|| refused(value, to))
}

fn to_bigint(value: &Value) -> Option<i64> {
    match value {
        Value::Float(f) => float_in_range(*f),
        Value::Bit(b) => Some(i64::from(*b)),
        Value::Text(t) => t.trim().parse().ok(),
        _ => None,
    }
}

fn to_float(value: &Value) -> Option<f64> {
    match value {
        Value::BigInt(n) => Some(*n as f64),
        Value::Bit(b) => Some(f64::from(u8::from(*b))),
        Value::Text(t) => match number_of(t)? {
            Value::BigInt(n) => Some(n as f64),
            Value::Float(f) => Some(f),
            _ => None,
        },
        _ => None,
    }
}

fn to_bit(value: &Value) -> Option<bool> {
    match value {
        Value::BigInt(n) => Some(*n != 0),
        Value::Float(f) => (!f.is_nan()).then_some(*f != 0.0),
        Value::Text(t) => match t.trim() {
            "1" => Some(true),
            "0" => Some(false),
            t if t.eq_ignore_ascii_case("true") => Some(true),
            t if t.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn to_text(value: &Value) -> Option<String> {
    match value {
        Value::Record(_) | Value::Array(_) => Some(value.to_json()),
        _ => plain_text(value),
    }
}

/// The text of a scalar; `None` for NULL, records and arrays, and floats that are no number.
pub fn plain_text(value: &Value) -> Option<String> {
    match value {
        Value::Text(t) => Some(t.to_string()),
        Value::BigInt(n) => Some(n.to_string()),
        Value::Float(f) => f.is_finite().then(|| float_text(*f)),
        Value::Bit(b) => Some(if *b { "1" } else { "0" }.to_owned()),
        Value::DateTime(t) => Some(t.to_string()),
        Value::Null | Value::Record(_) | Value::Array(_) => None,
    }
}

/// The shortest text that reads back as the same float: `5`, `0.1`, `1E+300`.
fn float_text(f: f64) -> String {
    if f == 0.0 || (1e-5..1e15).contains(&f.abs()) {
        // a negative zero would read as `-0`
        return format!("{}", f + 0.0);
    }
    let text = format!("{f:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}E+{exponent}"),
        _ => text,
    }
}

/// A float without its fraction; `None` outside 64 bits.
pub fn float_in_range(f: f64) -> Option<i64> {
    // both ends are powers of two and exact as floats
    (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&f).then_some(f as i64)
}

fn refused(value: &Value, to: Type) -> RowError {
    let from = value.kind().map_or_else(|| "NULL".to_owned(), |t| t.to_string());
    let shown = match value {
        Value::Text(t) => format!(" '{}'", excerpt(t)),
        Value::Record(_) | Value::Array(_) | Value::Null => String::new(),
        other => format!(" {}", other.to_json()),
    };
    RowError::new(
        "conversion",
        format!("Cannot cast value{shown} of type '{from}' to type '{to}'. TRY_CAST gives NULL instead"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Record;

    fn ok(value: Value, to: Type) -> Option<Value> {
        cast(&value, to).ok()
    }

    #[test]
    fn whole_number_text_is_a_bigint_and_nothing_else_is() {
        for (text, expected) in [
            (" 41 ", Some(41)),
            ("-8", Some(-8)),
            ("12.5", None),
            ("1e3", None),
            ("", None),
            ("9223372036854775808", None),
        ] {
            assert_eq!(ok(Value::text(text), Type::BigInt), expected.map(Value::BigInt), "{text}");
        }
    }

    #[test]
    fn floats_lose_their_fraction_and_stay_in_range() {
        assert_eq!(ok(Value::Float(-2.9), Type::BigInt), Some(Value::BigInt(-2)));
        assert_eq!(ok(Value::Float(9.3e18), Type::BigInt), None);
        assert_eq!(ok(Value::Float(f64::NAN), Type::BigInt), None);
        assert_eq!(ok(Value::Float(-9_223_372_036_854_775_808.0), Type::BigInt), Some(Value::BigInt(i64::MIN)));
    }

    #[test]
    fn number_text_is_a_float_but_nan_is_not() {
        for (text, expected) in
            [("12.5", Some(12.5)), ("3", Some(3.0)), ("1e3", Some(1000.0)), ("NaN", None), ("inf", None), ("x", None)]
        {
            assert_eq!(ok(Value::text(text), Type::Float), expected.map(Value::Float), "{text}");
        }
    }

    #[test]
    fn text_of_values() {
        let texts: Vec<String> = [
            Value::BigInt(i64::MIN),
            Value::Float(5.0),
            Value::Float(-0.0),
            Value::Float(0.1),
            Value::Float(1e300),
            Value::Float(1.5e-7),
            Value::Bit(true),
            Value::DateTime(Timestamp::from_unix_millis(0)),
            Value::array(vec![Value::Null, Value::BigInt(1)]),
        ]
        .iter()
        .map(|v| plain_text(&cast(v, Type::Text).unwrap()).unwrap())
        .collect();
        assert_eq!(
            texts.join(" "),
            "-9223372036854775808 5 0 0.1 1E+300 1.5E-7 1 1970-01-01T00:00:00.0000000Z [null,1]"
        );
    }

    #[test]
    fn bits_records_and_arrays() {
        assert_eq!(ok(Value::Float(0.5), Type::Bit), Some(Value::Bit(true)));
        assert_eq!(ok(Value::text("FALSE"), Type::Bit), Some(Value::Bit(false)));
        assert_eq!(ok(Value::text("yes"), Type::Bit), None);
        let record = Value::record(Record::default());
        assert_eq!(ok(record.clone(), Type::Record), Some(record.clone()));
        assert_eq!(ok(record, Type::Array), None);
        assert_eq!(ok(Value::text("{}"), Type::Record), None);
        assert_eq!(ok(Value::Null, Type::Record), Some(Value::Null));
    }

    #[test]
    fn a_refusal_names_the_types_and_the_way_out() {
        let error = cast(&Value::text("hot"), Type::Float).unwrap_err();
        assert_eq!(error.reason, "conversion");
        assert_eq!(
            error.message,
            "Cannot cast value 'hot' of type 'nvarchar(max)' to type 'float'. TRY_CAST gives NULL instead"
        );
    }
}

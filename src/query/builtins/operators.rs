//! Operators: arithmetic, comparison, bits.
//!
//! In: two values and the operator. Out: a value, or an error with the reason `overflow`, `divide_by_zero` or
//! `argument`. Invariant: arithmetic with NULL is NULL, a comparison with NULL is false (the language is two-valued),
//! and no result is an infinity. Not here: which operand is evaluated when (the engine), `LIKE` (`like`).

use super::error::{RESULT_BYTES_MAX, RowError};
use crate::query::ast::BinaryOp;
use crate::value::{Type, Value, number_of};

use super::args::Number;

/// Whether a predicate holds: only a bit that is set does.
pub fn is_true(value: &Value) -> bool {
    matches!(value, Value::Bit(true))
}

/// A comparison; false for any other operator. Values that do not compare (NULL, a record with a number, text that is
/// no number with a number) make every comparison false, `<>` too.
pub fn compare_op(op: BinaryOp, a: &Value, b: &Value) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let structured = matches!((a, b), (Value::Record(_), Value::Record(_)) | (Value::Array(_), Value::Array(_)));
    match op {
        BinaryOp::Eq => a.equals(b),
        BinaryOp::Ne if structured => !a.equals(b),
        BinaryOp::Ne => matches!(a.compare(b), Some(Less | Greater)),
        BinaryOp::Lt => a.compare(b) == Some(Less),
        BinaryOp::Le => matches!(a.compare(b), Some(Less | Equal)),
        BinaryOp::Gt => a.compare(b) == Some(Greater),
        BinaryOp::Ge => matches!(a.compare(b), Some(Greater | Equal)),
        _ => false,
    }
}

/// Any operator of two values. `bigint / bigint` cuts the fraction off; one float makes the result a float; text that
/// meets a number in arithmetic is read as a number; `+` of two texts joins them.
///
/// # Errors
/// Operands without a meaning for the operator, division by zero (float too), a result outside its type's range.
pub fn binary(op: BinaryOp, a: &Value, b: &Value) -> Result<Value, RowError> {
    match op {
        BinaryOp::And => Ok(Value::Bit(is_true(a) && is_true(b))),
        BinaryOp::Or => Ok(Value::Bit(is_true(a) || is_true(b))),
        BinaryOp::Eq | BinaryOp::Ne | BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge => {
            Ok(Value::Bit(compare_op(op, a, b)))
        }
        _ if a.is_null() || b.is_null() => Ok(Value::Null),
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod => arithmetic(op, a, b),
        BinaryOp::BitAnd | BinaryOp::BitOr | BinaryOp::BitXor => bits(op, a, b),
    }
}

fn arithmetic(op: BinaryOp, a: &Value, b: &Value) -> Result<Value, RowError> {
    if let (BinaryOp::Add, Value::Text(x), Value::Text(y)) = (op, a, b) {
        let bytes = x.len() + y.len();
        if bytes > RESULT_BYTES_MAX {
            return Err(RowError::new(
                "too_long",
                format!("`+` would give text of {bytes} bytes, the most is {RESULT_BYTES_MAX}"),
            ));
        }
        return Ok(Value::text(format!("{x}{y}")));
    }
    let both_text = matches!((a, b), (Value::Text(_), Value::Text(_)));
    let (Some(x), Some(y), false) = (operand(a), operand(b), both_text) else { return Err(mismatch(op, a, b)) };
    match (x, y) {
        (Number::BigInt(x), Number::BigInt(y)) => integers(op, x, y).map(Value::BigInt),
        (x, y) => floats(op, as_float(x), as_float(y)).map(Value::Float),
    }
}

/// A value as a number in arithmetic: a bit counts as 0 or 1, text as the number it reads as.
fn operand(value: &Value) -> Option<Number> {
    match value {
        Value::BigInt(n) => Some(Number::BigInt(*n)),
        Value::Float(f) => Some(Number::Float(*f)),
        Value::Bit(b) => Some(Number::BigInt(i64::from(*b))),
        Value::Text(t) => number_of(t).as_ref().and_then(operand),
        _ => None,
    }
}

fn as_float(n: Number) -> f64 {
    match n {
        Number::BigInt(n) => n as f64,
        Number::Float(f) => f,
    }
}

fn integers(op: BinaryOp, x: i64, y: i64) -> Result<i64, RowError> {
    if y == 0 && matches!(op, BinaryOp::Div | BinaryOp::Mod) {
        return Err(by_zero(op));
    }
    let result = match op {
        BinaryOp::Sub => x.checked_sub(y),
        BinaryOp::Mul => x.checked_mul(y),
        BinaryOp::Div => x.checked_div(y),
        // the one overflowing case, the smallest number by -1, has the remainder 0
        BinaryOp::Mod => Some(x.checked_rem(y).unwrap_or(0)),
        _ => x.checked_add(y),
    };
    result.ok_or_else(|| RowError::new("overflow", format!("{x} {} {y} is outside the range of bigint", op.symbol())))
}

fn floats(op: BinaryOp, x: f64, y: f64) -> Result<f64, RowError> {
    if y == 0.0 && matches!(op, BinaryOp::Div | BinaryOp::Mod) {
        return Err(by_zero(op));
    }
    let result = match op {
        BinaryOp::Sub => x - y,
        BinaryOp::Mul => x * y,
        BinaryOp::Div => x / y,
        BinaryOp::Mod => x % y,
        _ => x + y,
    };
    if result.is_finite() {
        return Ok(result);
    }
    Err(RowError::new("overflow", format!("{x:?} {} {y:?} is outside the range of float", op.symbol())))
}

fn bits(op: BinaryOp, a: &Value, b: &Value) -> Result<Value, RowError> {
    let on_bits = |x: i64, y: i64| match op {
        BinaryOp::BitAnd => x & y,
        BinaryOp::BitOr => x | y,
        _ => x ^ y,
    };
    match (a, b) {
        (Value::Bit(x), Value::Bit(y)) => Ok(Value::Bit(on_bits(i64::from(*x), i64::from(*y)) == 1)),
        _ => match (bit_operand(a), bit_operand(b)) {
            (Some(x), Some(y)) => Ok(Value::BigInt(on_bits(x, y))),
            _ => Err(mismatch(op, a, b)),
        },
    }
}

fn bit_operand(value: &Value) -> Option<i64> {
    match value {
        Value::BigInt(n) => Some(*n),
        Value::Bit(b) => Some(i64::from(*b)),
        _ => None,
    }
}

/// `-value`.
///
/// # Errors
/// Not a number, or the smallest bigint.
pub fn negate(value: &Value) -> Result<Value, RowError> {
    match operand(value) {
        _ if value.is_null() => Ok(Value::Null),
        Some(Number::BigInt(n)) => n
            .checked_neg()
            .map(Value::BigInt)
            .ok_or_else(|| RowError::new("overflow", format!("-({n}) is outside the range of bigint"))),
        Some(Number::Float(f)) => Ok(Value::Float(-f)),
        None => Err(unary_mismatch("-", value)),
    }
}

/// `~value`: a bit flips, a bigint gives its complement.
///
/// # Errors
/// Neither bit nor bigint: a float has to be cast first.
pub fn bit_not(value: &Value) -> Result<Value, RowError> {
    match value {
        Value::Null => Ok(Value::Null),
        Value::Bit(b) => Ok(Value::Bit(!b)),
        Value::BigInt(n) => Ok(Value::BigInt(!n)),
        _ => Err(unary_mismatch("~", value)),
    }
}

fn by_zero(op: BinaryOp) -> RowError {
    RowError::new("divide_by_zero", format!("division by zero in `{}`; guard it with CASE or NULLIF", op.symbol()))
}

fn mismatch(op: BinaryOp, a: &Value, b: &Value) -> RowError {
    let takes = match op {
        BinaryOp::BitAnd | BinaryOp::BitOr | BinaryOp::BitXor => "bit or bigint; cast a float first",
        BinaryOp::Add => "two numbers or two texts",
        _ => "numbers",
    };
    RowError::new(
        "argument",
        format!("operator `{}` cannot take {} and {}: it takes {takes}", op.symbol(), described(a), described(b)),
    )
}

fn unary_mismatch(symbol: &str, value: &Value) -> RowError {
    RowError::new("argument", format!("operator `{symbol}` cannot take {}", described(value)))
}

/// The type, and for text its first characters.
fn described(value: &Value) -> String {
    match value {
        Value::Text(t) => format!("'{}' ({})", super::text::excerpt(t), Type::Text),
        _ => value.kind().map_or_else(|| "NULL".to_owned(), |t| format!("'{t}'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use BinaryOp::*;

    fn reason(op: BinaryOp, a: Value, b: Value) -> &'static str {
        binary(op, &a, &b).unwrap_err().reason
    }

    #[test]
    fn whole_numbers_stay_whole_and_one_float_makes_a_float() {
        let n = Value::BigInt;
        assert_eq!(binary(Div, &n(-7), &n(2)), Ok(n(-3)));
        assert_eq!(binary(Mod, &n(-7), &n(2)), Ok(n(-1)));
        assert_eq!(binary(Mod, &n(i64::MIN), &n(-1)), Ok(n(0)));
        assert_eq!(binary(Div, &n(7), &Value::Float(2.0)), Ok(Value::Float(3.5)));
        assert_eq!(binary(Mul, &Value::Bit(true), &n(5)), Ok(n(5)));
    }

    #[test]
    fn text_joins_or_is_read_as_a_number() {
        assert_eq!(binary(Add, &Value::text("1"), &Value::text("2")), Ok(Value::text("12")));
        assert_eq!(binary(Add, &Value::text("1"), &Value::BigInt(2)), Ok(Value::BigInt(3)));
        assert_eq!(binary(Sub, &Value::Float(1.0), &Value::text("0.5")), Ok(Value::Float(0.5)));
        assert_eq!(reason(Sub, Value::text("1"), Value::text("2")), "argument");
        assert_eq!(reason(Add, Value::text("x"), Value::BigInt(2)), "argument");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        assert_eq!(reason(Add, Value::BigInt(i64::MAX), Value::BigInt(1)), "overflow");
        assert_eq!(reason(Div, Value::BigInt(i64::MIN), Value::BigInt(-1)), "overflow");
        assert_eq!(reason(Mul, Value::Float(1e300), Value::Float(1e300)), "overflow");
        assert_eq!(reason(Div, Value::BigInt(1), Value::BigInt(0)), "divide_by_zero");
        assert_eq!(reason(Div, Value::Float(1.0), Value::Float(0.0)), "divide_by_zero");
        assert_eq!(reason(BitAnd, Value::Float(1.0), Value::BigInt(1)), "argument");
        assert_eq!(negate(&Value::BigInt(i64::MIN)).unwrap_err().reason, "overflow");
        assert_eq!(bit_not(&Value::Float(1.0)).unwrap_err().reason, "argument");
        let big = Value::text("x".repeat(RESULT_BYTES_MAX));
        assert_eq!(reason(Add, big.clone(), big), "too_long");
    }

    #[test]
    fn a_comparison_with_null_is_false_and_its_not_true() {
        for op in [Eq, Ne, Lt, Le, Gt, Ge] {
            assert_eq!(binary(op, &Value::Null, &Value::BigInt(1)), Ok(Value::Bit(false)));
            assert!(!compare_op(op, &Value::text("n/a"), &Value::BigInt(1)));
        }
        assert_eq!(binary(Add, &Value::Null, &Value::BigInt(1)), Ok(Value::Null));
    }

    #[test]
    fn bits_stay_bits_among_themselves() {
        let bit = Value::Bit;
        assert_eq!(binary(BitOr, &bit(true), &bit(false)), Ok(bit(true)));
        assert_eq!(binary(BitXor, &bit(true), &bit(true)), Ok(bit(false)));
        assert_eq!(binary(BitOr, &bit(true), &Value::BigInt(8)), Ok(Value::BigInt(9)));
        assert_eq!(bit_not(&Value::BigInt(0)), Ok(Value::BigInt(-1)));
    }
}

//! Mathematical functions.
//!
//! In: numbers (or text that reads as one). Out: a number of the argument's type, or a float where the documents say
//! so. Invariant: a float that leaves is finite. Not here: operators (`operators`).

use super::args::{Args, Number};
use super::cast::float_in_range;
use super::error::Out;
use crate::value::Value;

pub fn abs(values: &[Value]) -> Out {
    let Some(args) = Args::strict("ABS", values) else { return Ok(Value::Null) };
    match args.number(0)? {
        Number::BigInt(n) => n.checked_abs().map(Value::BigInt).ok_or_else(|| args.bigint_overflow()),
        Number::Float(f) => Ok(Value::Float(f.abs())),
    }
}

pub fn ceiling(values: &[Value]) -> Out {
    keeping_type("CEILING", values, f64::ceil)
}

pub fn floor(values: &[Value]) -> Out {
    keeping_type("FLOOR", values, f64::floor)
}

/// Whole numbers pass; floats stay floats.
fn keeping_type(name: &'static str, values: &[Value], on_float: fn(f64) -> f64) -> Out {
    let Some(args) = Args::strict(name, values) else { return Ok(Value::Null) };
    Ok(match args.number(0)? {
        Number::BigInt(n) => Value::BigInt(n),
        // adding zero makes a negative zero positive
        Number::Float(f) => Value::Float(on_float(f) + 0.0),
    })
}

pub fn exp(values: &[Value]) -> Out {
    let Some(args) = Args::strict("EXP", values) else { return Ok(Value::Null) };
    args.finite(args.float(0)?.exp())
}

pub fn sqrt(values: &[Value]) -> Out {
    let Some(args) = Args::strict("SQRT", values) else { return Ok(Value::Null) };
    let x = args.float(0)?;
    if x < 0.0 {
        return Err(args.error("argument", format!("{x:?} is negative")));
    }
    Ok(Value::Float(x.sqrt()))
}

pub fn square(values: &[Value]) -> Out {
    let Some(args) = Args::strict("SQUARE", values) else { return Ok(Value::Null) };
    let x = args.float(0)?;
    args.finite(x * x)
}

pub fn sign(values: &[Value]) -> Out {
    let Some(args) = Args::strict("SIGN", values) else { return Ok(Value::Null) };
    Ok(match args.number(0)? {
        Number::BigInt(n) => Value::BigInt(n.signum()),
        Number::Float(0.0) => Value::Float(0.0),
        Number::Float(f) => Value::Float(f.signum()),
    })
}

/// The type of the base decides: a bigint base gives a bigint, so `POWER(2, -1)` is 0.
pub fn power(values: &[Value]) -> Out {
    let Some(args) = Args::strict("POWER", values) else { return Ok(Value::Null) };
    let (base, exponent) = (args.number(0)?, args.number(1)?);
    if let (Number::BigInt(b), Number::BigInt(e @ 0..)) = (base, exponent) {
        return integer_power(b, e).map(Value::BigInt).ok_or_else(|| args.bigint_overflow());
    }
    let float = |n: Number| match n {
        Number::BigInt(n) => n as f64,
        Number::Float(f) => f,
    };
    let (b, e) = (float(base), float(exponent));
    if b == 0.0 && e < 0.0 {
        return Err(args.error("divide_by_zero", "zero has no negative power"));
    }
    let result = b.powf(e);
    if result.is_nan() {
        return Err(args.error("argument", format!("{b:?} has no power {e:?}")));
    }
    match base {
        Number::BigInt(_) => float_in_range(result).map(Value::BigInt).ok_or_else(|| args.bigint_overflow()),
        Number::Float(_) => args.finite(result),
    }
}

fn integer_power(base: i64, exponent: i64) -> Option<i64> {
    match base {
        0 | 1 => Some(if exponent == 0 { 1 } else { base }),
        -1 => Some(if exponent % 2 == 0 { 1 } else { -1 }),
        _ => base.checked_pow(u32::try_from(exponent).ok()?),
    }
}

/// `ROUND(x, n)`: to `n` digits right of the point, or left of it when negative; ties go away from zero.
pub fn round(values: &[Value]) -> Out {
    let Some(args) = Args::strict("ROUND", values) else { return Ok(Value::Null) };
    let x = args.number(0)?;
    let digits = args.integer(1)?;
    match x {
        Number::BigInt(n) => round_integer(n, digits).map(Value::BigInt).ok_or_else(|| args.bigint_overflow()),
        Number::Float(f) => args.finite(round_float(f, digits)),
    }
}

fn round_integer(n: i64, digits: i64) -> Option<i64> {
    if digits >= 0 {
        return Some(n);
    }
    // a bigint has at most 19 digits, so past 19 places everything rounds to 0
    let Some(places) = u32::try_from(digits.unsigned_abs()).ok().filter(|p| *p <= 19) else { return Some(0) };
    let unit = 10i128.pow(places);
    let n = i128::from(n);
    let rounded = (n.abs() + unit / 2) / unit * unit * n.signum();
    i64::try_from(rounded).ok()
}

/// Rounds the decimal text of a float, not its binary value: 123.9995 to 3 places is 124.0 as the documents show.
fn round_float(f: f64, digits: i64) -> f64 {
    // a float's decimal text has fewer than 400 digits on either side of the point
    if digits > 400 {
        return f;
    }
    if digits < -400 || f == 0.0 {
        return 0.0;
    }
    let text = format!("{}", f.abs());
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let point = whole.len() as i64;
    let decimal: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|b| b - b'0').collect();
    let Ok(kept) = usize::try_from(point + digits) else { return 0.0 };
    let Some(next) = decimal.get(kept) else { return f };
    let mut digits_kept: Vec<u8> = decimal.iter().take(kept).copied().collect();
    if *next >= 5 {
        digits_kept = plus_one(digits_kept);
    }
    let grown = digits_kept.len() as i64 - kept as i64;
    let exponent = point + grown - digits_kept.len() as i64;
    let mut scaled: String = digits_kept.iter().map(|d| char::from(b'0' + d)).collect();
    if scaled.is_empty() {
        scaled.push('0');
    }
    let rounded: f64 = format!("{scaled}e{exponent}").parse().unwrap_or(f);
    // adding zero makes a negative zero positive
    rounded.copysign(f) + 0.0
}

/// Adds one to a decimal number; the carry may add a digit in front.
fn plus_one(mut digits: Vec<u8>) -> Vec<u8> {
    for d in digits.iter_mut().rev() {
        if *d < 9 {
            *d += 1;
            return digits;
        }
        *d = 0;
    }
    digits.insert(0, 1);
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rounding_is_decimal_and_away_from_zero() {
        for (x, digits, expected) in [
            (123.9994, 3, 123.999),
            (123.9995, 3, 124.0),
            (2.5, 0, 3.0),
            (-2.5, 0, -3.0),
            (1.005, 2, 1.01),
            (748.58, -1, 750.0),
            (748.58, -3, 1000.0),
            (748.58, -4, 0.0),
            (0.05, 1, 0.1),
            (0.04, 1, 0.0),
            (-0.04, 1, 0.0),
            (9.99, 1, 10.0),
            (1e300, 2, 1e300),
            (1.5e-300, 2, 0.0),
            (12.5, 500, 12.5),
        ] {
            assert_eq!(
                round_float(x, digits).to_bits(),
                f64::to_bits(expected),
                "{x} to {digits}: {}",
                round_float(x, digits)
            );
        }
        assert_eq!(round_integer(15, 1), Some(15));
        assert_eq!(round_integer(-15, -1), Some(-20));
        assert_eq!(round_integer(748, -3), Some(1000));
        assert_eq!(round_integer(i64::MAX, -1), None);
        assert_eq!(round_integer(i64::MAX, -19), None);
        assert_eq!(round_integer(4, -19), Some(0));
        assert_eq!(round_integer(7, -25), Some(0));
    }

    #[test]
    fn power_keeps_the_type_of_its_base() {
        let call = |a: Value, b: Value| power(&[a, b]);
        assert_eq!(call(Value::BigInt(2), Value::BigInt(10)), Ok(Value::BigInt(1024)));
        assert_eq!(call(Value::BigInt(2), Value::BigInt(-1)), Ok(Value::BigInt(0)));
        assert_eq!(call(Value::BigInt(-1), Value::BigInt(i64::MAX)), Ok(Value::BigInt(-1)));
        assert_eq!(call(Value::Float(2.0), Value::BigInt(-1)), Ok(Value::Float(0.5)));
        assert_eq!(call(Value::BigInt(10), Value::BigInt(19)).unwrap_err().reason, "overflow");
        assert_eq!(call(Value::BigInt(0), Value::BigInt(-1)).unwrap_err().reason, "divide_by_zero");
        assert_eq!(call(Value::Float(-8.0), Value::Float(0.5)).unwrap_err().reason, "argument");
    }

    #[test]
    fn wrong_arguments_say_which_and_what() {
        let message = |r: Out| r.unwrap_err().message;
        assert_eq!(
            message(round(&[Value::text("NaN"), Value::BigInt(1)])),
            "The 1st argument of function round has invalid type 'nvarchar(max)'. Only 'bigint', 'float' is allowed. \
            The value is 'NaN'."
        );
        assert_eq!(message(sqrt(&[Value::BigInt(-1)])), "SQRT: -1.0 is negative");
        assert_eq!(round(&[Value::Null, Value::text("x")]), Ok(Value::Null));
        assert_eq!(abs(&[Value::BigInt(i64::MIN)]).unwrap_err().reason, "overflow");
        assert_eq!(exp(&[Value::BigInt(1000)]).unwrap_err().reason, "overflow");
    }

    #[test]
    fn an_overflow_names_the_function_and_the_way_out() {
        let message = |r: Out| r.unwrap_err().message;
        let bigint = "the result is outside the range of bigint; CAST the argument to float first";
        assert_eq!(message(abs(&[Value::BigInt(i64::MIN)])), format!("ABS: {bigint}"));
        assert_eq!(message(round(&[Value::BigInt(i64::MAX), Value::BigInt(-1)])), format!("ROUND: {bigint}"));
        assert_eq!(message(power(&[Value::BigInt(10), Value::BigInt(19)])), format!("POWER: {bigint}"));
        assert_eq!(power(&[Value::Float(10.0), Value::BigInt(19)]), Ok(Value::Float(1e19)), "as the message promises");
        // a float is past help
        assert_eq!(message(square(&[Value::Float(1e200)])), "SQUARE: the result is outside the range of float");
    }

    proptest! {
        /// The rounded value lies within half a unit of the last place kept (with room for the float's own precision).
        #[test]
        fn rounding_stays_near(x in -1e12f64..1e12, digits in 0i64..8) {
            let rounded = round_float(x, digits);
            let half = 0.5 * 10f64.powi(-(digits as i32));
            prop_assert!((rounded - x).abs() <= half + x.abs() * 1e-15 + 1e-15, "{x} to {digits} gave {rounded}");
        }
    }
}

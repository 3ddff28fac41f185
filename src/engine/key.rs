//! Grouping keys as bytes.
//!
//! In: key values. Out: bytes that are equal exactly when the values are the same. Invariant: numbers of equal value give
//! equal bytes whatever their type (1, 1.0 and a set bit), NULL is one key. Not here: order, decoding (the values
//! themselves are kept beside the key).

use crate::value::Value;
use crate::value::codec::{put_bytes, put_signed, put_varint};

const NULL: u8 = 0;
const WHOLE: u8 = 1;
const FLOAT: u8 = 2;
const TEXT: u8 = 3;
const DATETIME: u8 = 4;
const RECORD: u8 = 5;
const ARRAY: u8 = 6;

/// Every float in this range without a fraction is exactly one bigint.
const WHOLE_MIN: f64 = -9_223_372_036_854_775_808.0;
const WHOLE_END: f64 = 9_223_372_036_854_775_808.0;

/// Appends one value.
pub(super) fn put_key(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(NULL),
        Value::Bit(b) => whole(out, i64::from(*b)),
        Value::BigInt(n) => whole(out, *n),
        Value::Float(f) if f.fract() == 0.0 && (WHOLE_MIN..WHOLE_END).contains(f) => whole(out, *f as i64),
        Value::Float(f) => {
            out.push(FLOAT);
            out.extend_from_slice(&f.to_bits().to_be_bytes());
        }
        Value::Text(t) => {
            out.push(TEXT);
            put_bytes(out, t.as_bytes());
        }
        Value::DateTime(t) => {
            out.push(DATETIME);
            put_signed(out, t.ticks());
        }
        Value::Record(record) => {
            let mut fields: Vec<_> = record.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            out.push(RECORD);
            put_varint(out, fields.len() as u64);
            for (name, value) in fields {
                put_bytes(out, name.as_bytes());
                put_key(out, value);
            }
        }
        Value::Array(items) => {
            out.push(ARRAY);
            put_varint(out, items.len() as u64);
            items.iter().for_each(|item| put_key(out, item));
        }
    }
}

fn whole(out: &mut Vec<u8>, n: i64) {
    out.push(WHOLE);
    put_signed(out, n);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Record;

    fn key(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        put_key(&mut out, value);
        out
    }

    #[test]
    fn keys_are_equal_exactly_when_values_are_the_same() {
        let record =
            |pairs: &[(&str, Value)]| Value::record(Record::from_unique(pairs.iter().map(|(n, v)| ((*n).into(), v.clone())).collect()));
        let values = [
            Value::Null,
            Value::Bit(true),
            Value::BigInt(1),
            Value::Float(1.0),
            Value::Float(-0.0),
            Value::BigInt(0),
            Value::Float(0.5),
            Value::BigInt(i64::MAX),
            Value::Float(9.3e18),
            Value::array(vec![Value::Null]),
            Value::array(vec![]),
            record(&[("a", Value::BigInt(1)), ("b", Value::Null)]),
            record(&[("b", Value::Null), ("a", Value::Float(1.0))]),
        ];
        for a in &values {
            for b in &values {
                assert_eq!(key(a) == key(b), a.same(b), "{a:?} {b:?}");
            }
        }
    }
}

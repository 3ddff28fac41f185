//! Grouping keys as bytes.
//!
//! In: key values. Out: bytes that are equal exactly when the values are the same. Invariant: numbers of equal value
//! give equal bytes whatever their type (1, 1.0 and a set bit), NULL is one key. Not here: order, decoding (the values
//! themselves are kept beside the key).

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

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

/// Keys up to this long need no memory of their own: the name of a device and a number or two.
const SHORT_MAX: usize = 22;

/// The bytes of a key, kept; behaves as the bytes do.
#[derive(Clone, Debug)]
pub(super) enum Key {
    Short { len: u8, bytes: [u8; SHORT_MAX] },
    Long(Box<[u8]>),
}

impl From<&[u8]> for Key {
    fn from(key: &[u8]) -> Key {
        let mut bytes = [0; SHORT_MAX];
        match (bytes.get_mut(..key.len()), u8::try_from(key.len())) {
            (Some(start), Ok(len)) => {
                start.copy_from_slice(key);
                Key::Short { len, bytes }
            }
            _ => Key::Long(key.into()),
        }
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Key::Short { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Key::Long(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.deref().hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.deref() == other.deref()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        self.deref().cmp(other)
    }
}

impl Key {
    /// Bytes beyond its own.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Key::Short { .. } => 0,
            Key::Long(bytes) => bytes.len(),
        }
    }
}

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
    fn a_kept_key_behaves_as_its_bytes() {
        let texts: Vec<Vec<u8>> = [0, 1, 21, 22, 23, 40].map(|n| vec![7; n]).to_vec();
        for (a, b) in texts.iter().flat_map(|a| texts.iter().map(move |b| (a, b))) {
            let (x, y) = (Key::from(a.as_slice()), Key::from(b.as_slice()));
            assert_eq!((&*x, x == y, x.cmp(&y)), (a.as_slice(), a == b, a.cmp(b)));
        }
        assert_eq!(size_of::<Key>(), 24);
    }

    #[test]
    fn keys_are_equal_exactly_when_values_are_the_same() {
        let record = |pairs: &[(&str, Value)]| {
            Value::record(Record::from_unique(pairs.iter().map(|(n, v)| ((*n).into(), v.clone())).collect()))
        };
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

//! The stored form of values: what journal rows and state rows are made of.
//!
//! In and out: [`Value`] to bytes and back. One tag byte, then a varint, eight bytes, or a length and text. Invariant:
//! what is encoded decodes to an equal value, and no bytes, however bad, make decoding panic or allocate more than they
//! justify. Not here: compression and checksums (the journal's segments carry them).

use std::sync::Arc;

use smol_str::SmolStr;

use super::{Record, Value};
use crate::time::Timestamp;

/// Deeper nesting than this is refused on the way in, so stored values cannot exceed it.
pub const DEPTH_MAX: usize = 64;

/// Stored bytes that do not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stored bytes are damaged at byte {at}")]
pub struct Damaged {
    /// Offset into the bytes given.
    pub at: usize,
}

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const BIGINT: u8 = 3;
const FLOAT: u8 = 4;
const TEXT: u8 = 5;
const DATETIME: u8 = 6;
const RECORD: u8 = 7;
const ARRAY: u8 = 8;

/// Appends an unsigned number, seven bits a byte, low bits first.
pub fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n as u8) | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends a signed number so that small magnitudes stay short.
pub fn put_signed(out: &mut Vec<u8>, n: i64) {
    put_varint(out, ((n << 1) ^ (n >> 63)) as u64);
}

/// Appends a length and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends one value.
pub fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(NULL),
        Value::Bit(b) => out.push(if *b { TRUE } else { FALSE }),
        Value::BigInt(n) => {
            out.push(BIGINT);
            put_signed(out, *n);
        }
        Value::Float(f) => {
            out.push(FLOAT);
            out.extend_from_slice(&f.to_le_bytes());
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
            out.push(RECORD);
            put_varint(out, record.len() as u64);
            for (name, value) in record.iter() {
                put_bytes(out, name.as_bytes());
                put_value(out, value);
            }
        }
        Value::Array(items) => {
            out.push(ARRAY);
            put_varint(out, items.len() as u64);
            for item in items.iter() {
                put_value(out, item);
            }
        }
    }
}

/// Reads what the `put_` functions wrote.
#[derive(Clone, Debug)]
pub struct ByteReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> ByteReader<'a> {
    pub fn new(bytes: &'a [u8]) -> ByteReader<'a> {
        ByteReader { bytes, at: 0 }
    }

    /// Whether everything has been read.
    pub fn is_done(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// How many bytes have been read.
    pub fn position(&self) -> usize {
        self.at
    }

    fn damaged<T>(&self) -> Result<T, Damaged> {
        Err(Damaged { at: self.at })
    }

    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Damaged> {
        match self.at.checked_add(n).and_then(|end| self.bytes.get(self.at..end)) {
            Some(slice) => {
                self.at += n;
                Ok(slice)
            }
            None => self.damaged(),
        }
    }

    pub fn byte(&mut self) -> Result<u8, Damaged> {
        match self.take(1)? {
            [b] => Ok(*b),
            _ => self.damaged(),
        }
    }

    pub fn varint(&mut self) -> Result<u64, Damaged> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let b = self.byte()?;
            n |= u64::from(b & 0x7f) << shift;
            if b & 0x80 == 0 {
                return Ok(n);
            }
        }
        self.damaged()
    }

    pub fn signed(&mut self) -> Result<i64, Damaged> {
        let n = self.varint()?;
        Ok(((n >> 1) as i64) ^ -((n & 1) as i64))
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Damaged> {
        let n = self.length()?;
        self.take(n)
    }

    pub fn str(&mut self) -> Result<&'a str, Damaged> {
        let at = self.at;
        std::str::from_utf8(self.bytes()?).map_err(|_| Damaged { at })
    }

    /// A count of things that each need at least one byte: never more than the bytes left.
    pub fn length(&mut self) -> Result<usize, Damaged> {
        let n = self.varint()?;
        match usize::try_from(n) {
            Ok(n) if n <= self.bytes.len().saturating_sub(self.at) => Ok(n),
            _ => self.damaged(),
        }
    }

    pub fn value(&mut self) -> Result<Value, Damaged> {
        self.value_at(0)
    }

    fn value_at(&mut self, depth: usize) -> Result<Value, Damaged> {
        // one level more than intake allows: an engine wraps what it was given in at most a few records
        if depth > DEPTH_MAX + 16 {
            return self.damaged();
        }
        Ok(match self.byte()? {
            NULL => Value::Null,
            FALSE => Value::Bit(false),
            TRUE => Value::Bit(true),
            BIGINT => Value::BigInt(self.signed()?),
            FLOAT => match <[u8; 8]>::try_from(self.take(8)?) {
                Ok(b) => Value::Float(f64::from_le_bytes(b)),
                Err(_) => return self.damaged(),
            },
            TEXT => Value::Text(SmolStr::new(self.str()?)),
            DATETIME => match Timestamp::from_ticks(self.signed()?) {
                Some(t) => Value::DateTime(t),
                None => return self.damaged(),
            },
            RECORD => {
                let n = self.length()?;
                let mut record = Record::with_capacity(n);
                for _ in 0..n {
                    let name = SmolStr::new(self.str()?);
                    record.push_unique(name, self.value_at(depth + 1)?);
                }
                Value::Record(Arc::new(record))
            }
            ARRAY => {
                let n = self.length()?;
                let mut items = Vec::with_capacity(n);
                for _ in 0..n {
                    items.push(self.value_at(depth + 1)?);
                }
                Value::Array(Arc::new(items))
            }
            _ => return self.damaged(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bit),
            any::<i64>().prop_map(Value::BigInt),
            any::<f64>().prop_filter("NaN is not equal to itself", |f| !f.is_nan()).prop_map(Value::Float),
            ".*".prop_map(Value::text),
            (0..=Timestamp::MAX.ticks()).prop_map(|t| Value::DateTime(Timestamp::saturating_from_ticks(t))),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::array),
                prop::collection::btree_map(".*", inner, 0..6).prop_map(|m| Value::record(Record::from_unique(
                    m.into_iter().map(|(n, v)| (SmolStr::new(n), v)).collect()
                ))),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(value in values()) {
            let mut bytes = Vec::new();
            put_value(&mut bytes, &value);
            let mut reader = ByteReader::new(&bytes);
            prop_assert_eq!(reader.value().unwrap(), value);
            prop_assert!(reader.is_done());
        }

        #[test]
        fn bad_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ByteReader::new(&bytes).value();
        }

        #[test]
        fn signed_numbers_round_trip(n in any::<i64>()) {
            let mut bytes = Vec::new();
            put_signed(&mut bytes, n);
            prop_assert_eq!(ByteReader::new(&bytes).signed(), Ok(n));
        }
    }
}

//! Values of the query language.
//!
//! In: decoded fields, literals, results of functions. Out: [`Value`] and its order, equality and text forms.
//! Invariant: a `Float` in a value that leaves a query is finite or is written as `null`. Not here: conversions by
//! `CAST` (`query/builtins`), reading JSON (`decode`), the stored form ([`codec`]).

mod base64;
pub mod codec;

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

pub use base64::{base64, from_base64};
pub use smol_str::SmolStr;

use crate::time::Timestamp;

/// One value: 24 bytes, cheap to clone (text past 23 bytes, records and arrays are shared).
/// Columns carry values, not types: one column may change its type from event to event.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    #[default]
    Null,
    Bit(bool),
    BigInt(i64),
    Float(f64),
    Text(SmolStr),
    DateTime(Timestamp),
    Record(Arc<Record>),
    Array(Arc<Vec<Value>>),
}

/// The types that `GetType` and `CAST` name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    BigInt,
    Float,
    Text,
    DateTime,
    Bit,
    Record,
    Array,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::BigInt => "bigint",
            Type::Float => "float",
            Type::Text => "nvarchar(max)",
            Type::DateTime => "datetime",
            Type::Bit => "bit",
            Type::Record => "record",
            Type::Array => "array",
        })
    }
}

/// Name and value pairs in their order; names are unique.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    fields: Vec<(SmolStr, Value)>,
}

impl Record {
    /// From pairs whose names the caller knows to be unique.
    pub fn from_unique(fields: Vec<(SmolStr, Value)>) -> Record {
        Record { fields }
    }

    pub fn with_capacity(fields: usize) -> Record {
        Record { fields: Vec::with_capacity(fields) }
    }

    pub fn len(&self) -> usize {
        self.fields.len()
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&SmolStr, &Value)> {
        self.fields.iter().map(|(name, value)| (name, value))
    }

    /// The field of exactly this name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// The field a query means by `name`: the exact one, else the only one that differs in letter case, else `None`
    /// (compatibility level 1.2 keeps case; the documents' own sample reads `DeviceId` as `DeviceID`).
    pub fn find(&self, name: &str) -> Option<&Value> {
        if let Some(value) = self.get(name) {
            return Some(value);
        }
        let mut alike = self.fields.iter().filter(|(n, _)| same_ignoring_case(n, name));
        match (alike.next(), alike.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }

    /// Sets a field, replacing one of exactly this name.
    pub fn insert(&mut self, name: SmolStr, value: Value) {
        match self.fields.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = value,
            None => self.fields.push((name, value)),
        }
    }

    /// Appends a field whose name the caller knows to be new.
    pub fn push_unique(&mut self, name: SmolStr, value: Value) {
        self.fields.push((name, value));
    }
}

/// Names that differ at most in letter case.
pub fn same_ignoring_case(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b) || (!(a.is_ascii() && b.is_ascii()) && a.to_lowercase() == b.to_lowercase())
}

impl Value {
    pub fn text(text: impl AsRef<str>) -> Value {
        Value::Text(SmolStr::new(text))
    }

    pub fn array(items: Vec<Value>) -> Value {
        Value::Array(Arc::new(items))
    }

    pub fn record(record: Record) -> Value {
        Value::Record(Arc::new(record))
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The value's type; `None` for NULL.
    pub fn kind(&self) -> Option<Type> {
        Some(match self {
            Value::Null => return None,
            Value::Bit(_) => Type::Bit,
            Value::BigInt(_) => Type::BigInt,
            Value::Float(_) => Type::Float,
            Value::Text(_) => Type::Text,
            Value::DateTime(_) => Type::DateTime,
            Value::Record(_) => Type::Record,
            Value::Array(_) => Type::Array,
        })
    }

    /// The order of two values that compare: numbers by value (a bigint with a float exactly, never through a lossy
    /// conversion), bits with numbers as 0 and 1, text by code points, text with a datetime when it reads as one, text
    /// with a number when it reads as one. `None`: not comparable (a comparison with it is false). NULL never compares.
    pub fn compare(&self, other: &Value) -> Option<Ordering> {
        use Value::*;
        match (self, other) {
            (BigInt(a), BigInt(b)) => Some(a.cmp(b)),
            (Float(a), Float(b)) => a.partial_cmp(b),
            (BigInt(a), Float(b)) => compare_int_float(*a, *b),
            (Float(a), BigInt(b)) => compare_int_float(*b, *a).map(Ordering::reverse),
            (Bit(a), Bit(b)) => Some(a.cmp(b)),
            (Bit(a), BigInt(_) | Float(_)) => BigInt(i64::from(*a)).compare(other),
            (BigInt(_) | Float(_), Bit(b)) => self.compare(&BigInt(i64::from(*b))),
            (Text(a), Text(b)) => Some(a.as_str().cmp(b.as_str())),
            (DateTime(a), DateTime(b)) => Some(a.cmp(b)),
            (DateTime(a), Text(b)) => Timestamp::parse(b).map(|b| a.cmp(&b)),
            (Text(a), DateTime(b)) => Timestamp::parse(a).map(|a| a.cmp(b)),
            (BigInt(_) | Float(_), Text(b)) => number_of(b).and_then(|b| self.compare(&b)),
            (Text(a), BigInt(_) | Float(_)) => number_of(a).and_then(|a| a.compare(other)),
            _ => None,
        }
    }

    /// Equality as `=` sees it: [`Value::compare`], and records and arrays by their parts.
    pub fn equals(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Record(a), Value::Record(b)) => {
                a.len() == b.len() && a.iter().all(|(n, v)| b.get(n).is_some_and(|w| v.same(w)))
            }
            (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b.iter()).all(|(v, w)| v.same(w)),
            _ => self.compare(other) == Some(Ordering::Equal),
        }
    }

    /// Sameness inside records and arrays, and of grouping keys: as [`Value::equals`], but NULL is the same as NULL.
    pub fn same(&self, other: &Value) -> bool {
        (self.is_null() && other.is_null()) || self.equals(other)
    }

    /// Writes the JSON text. Floats are the shortest text that reads back, those that JSON cannot hold become `null`;
    /// a datetime is its ISO text.
    pub fn write_json(&self, out: &mut String) {
        use fmt::Write;
        match self {
            Value::Null => out.push_str("null"),
            Value::Bit(b) => out.push_str(if *b { "true" } else { "false" }),
            Value::BigInt(n) => {
                let _ = write!(out, "{n}");
            }
            Value::Float(f) => write_float(*f, out),
            Value::Text(t) => write_json_text(t, out),
            Value::DateTime(t) => {
                let _ = write!(out, "\"{t}\"");
            }
            Value::Record(record) => write_json_object(record.iter(), out),
            Value::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    item.write_json(out);
                }
                out.push(']');
            }
        }
    }

    /// The JSON text as a new string.
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out);
        out
    }

    /// Whether a part of the value lies more than `max` records and arrays down; looks no deeper than that.
    pub fn depth_exceeds(&self, max: usize) -> bool {
        let below = |v: &Value| max.checked_sub(1).is_none_or(|max| v.depth_exceeds(max));
        match self {
            Value::Record(record) => record.iter().any(|(_, v)| below(v)),
            Value::Array(items) => items.iter().any(below),
            _ => false,
        }
    }

    /// About how many bytes the value holds beyond its own 24: what budgets count.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Value::Text(t) if t.is_heap_allocated() => t.len() + 16,
            Value::Record(record) => {
                40 + record
                    .iter()
                    .map(|(n, v)| 48 + if n.is_heap_allocated() { n.len() } else { 0 } + v.heap_bytes())
                    .sum::<usize>()
            }
            Value::Array(items) => 40 + items.iter().map(|v| 24 + v.heap_bytes()).sum::<usize>(),
            _ => 0,
        }
    }
}

/// Writes `{"name":value,…}`.
pub fn write_json_object<'a>(fields: impl Iterator<Item = (&'a SmolStr, &'a Value)>, out: &mut String) {
    out.push('{');
    for (i, (name, value)) in fields.enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_json_text(name, out);
        out.push(':');
        value.write_json(out);
    }
    out.push('}');
}

/// Writes `text` as a JSON string.
pub fn write_json_text(text: &str, out: &mut String) {
    use fmt::Write;
    out.push('"');
    let mut from = 0;
    for (i, b) in text.bytes().enumerate() {
        if b >= 0x20 && b != b'"' && b != b'\\' {
            continue;
        }
        out.push_str(text.get(from..i).unwrap_or_default());
        from = i + 1;
        match b {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            _ => {
                let _ = write!(out, "\\u{b:04x}");
            }
        }
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out.push('"');
}

/// The shortest text that reads back as the same float, always with a fraction or an exponent so that it stays a float
/// for whoever reads it; `null` for NaN and infinities.
fn write_float(f: f64, out: &mut String) {
    use fmt::Write;
    if f.is_finite() {
        let _ = write!(out, "{f:?}");
    } else {
        out.push_str("null");
    }
}

/// The number that a text reads as: whole numbers inside 64 bits are bigint, others float; blanks around it are
/// allowed.
pub fn number_of(text: &str) -> Option<Value> {
    let t = text.trim();
    if let Ok(n) = t.parse::<i64>() {
        return Some(Value::BigInt(n));
    }
    let numeric = t.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'))
        && t.bytes().any(|b| b.is_ascii_digit());
    if !numeric {
        return None;
    }
    t.parse::<f64>().ok().filter(|f| f.is_finite()).map(Value::Float)
}

/// Exact order of an integer and a float. Source: both are split at the integer part, so no precision is lost.
fn compare_int_float(a: i64, b: f64) -> Option<Ordering> {
    if b.is_nan() {
        return None;
    }
    // 2^63 is exactly representable; past it every float is beyond every i64
    if b >= 9_223_372_036_854_775_808.0 {
        return Some(Ordering::Less);
    }
    if b < -9_223_372_036_854_775_808.0 {
        return Some(Ordering::Greater);
    }
    let whole = b.trunc();
    let order = a.cmp(&(whole as i64));
    Some(order.then_with(|| 0.0f64.partial_cmp(&(b - whole)).unwrap_or(Ordering::Equal)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_records_and_arrays() {
        let nested = |levels: usize| {
            (0..levels).fold(Value::BigInt(1), |inner, i| match i % 2 {
                0 => Value::array(vec![Value::Null, inner]),
                _ => Value::record(Record::from_unique(vec![("f".into(), inner)])),
            })
        };
        for levels in [0, 1, 2, 64, 65] {
            assert!(!nested(levels).depth_exceeds(levels), "{levels}");
            assert!(levels == 0 || nested(levels).depth_exceeds(levels - 1), "{levels}");
        }
        assert!(!Value::array(Vec::new()).depth_exceeds(0), "nothing lies inside");
    }

    #[test]
    fn a_value_stays_small() {
        assert!(std::mem::size_of::<Value>() <= 24, "{}", std::mem::size_of::<Value>());
    }

    #[test]
    fn big_integers_compare_exactly_with_floats() {
        let big = Value::BigInt(9_007_199_254_740_993);
        assert_eq!(big.compare(&Value::Float(9_007_199_254_740_992.0)), Some(Ordering::Greater));
        assert_eq!(Value::Float(-0.5).compare(&Value::BigInt(0)), Some(Ordering::Less));
        assert_eq!(Value::BigInt(i64::MAX).compare(&Value::Float(9.3e18)), Some(Ordering::Less));
        assert_eq!(Value::BigInt(1).compare(&Value::Float(f64::NAN)), None);
    }

    #[test]
    fn json_text_is_escaped_and_floats_stay_floats() {
        let v = Value::array(vec![
            Value::text("a\"b\\\n\u{1}ü"),
            Value::Float(5.0),
            Value::Float(f64::NAN),
            Value::BigInt(5),
            Value::Float(1e300),
        ]);
        assert_eq!(v.to_json(), r#"["a\"b\\\n\u0001ü",5.0,null,5,1e300]"#);
    }

    #[test]
    fn a_name_matches_exactly_or_uniquely_ignoring_case() {
        let r = Record::from_unique(vec![
            ("Id".into(), Value::BigInt(1)),
            ("a".into(), Value::BigInt(2)),
            ("A".into(), Value::BigInt(3)),
        ]);
        assert_eq!(r.find("ID"), Some(&Value::BigInt(1)));
        assert_eq!(r.find("A"), Some(&Value::BigInt(3)));
        let two = Record::from_unique(vec![("aB".into(), Value::BigInt(2)), ("Ab".into(), Value::BigInt(3))]);
        assert_eq!(two.find("AB"), None);
    }
}

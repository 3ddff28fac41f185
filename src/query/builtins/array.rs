//! Functions on arrays, records and JSON text.
//!
//! In: arrays, records, indexes, names, JSON text. Out: elements, counts, records. Invariant: what is absent is NULL,
//! what is not an array or a record where one is wanted is an error. Not here: the row-making functions of `APPLY` (the
//! engine).

use std::sync::Arc;

use jiter::JsonValue;
use rustc_hash::FxHashMap;

use super::args::Args;
use super::error::Out;
use crate::value::codec::DEPTH_MAX;
use crate::value::{Record, SmolStr, Type, Value};

/// The element at an index that counts from 0; NULL outside the array.
pub fn get_array_element(values: &[Value]) -> Out {
    let Some(args) = Args::strict("GetArrayElement", values) else { return Ok(Value::Null) };
    let Value::Array(items) = args.get(0) else { return Err(args.invalid(0, &[Type::Array])) };
    let index = usize::try_from(args.integer(1)?).ok();
    Ok(index.and_then(|i| items.get(i)).cloned().unwrap_or_default())
}

pub fn get_array_length(values: &[Value]) -> Out {
    let Some(args) = Args::strict("GetArrayLength", values) else { return Ok(Value::Null) };
    match args.get(0) {
        Value::Array(items) => Ok(Value::BigInt(i64::try_from(items.len()).unwrap_or(i64::MAX))),
        _ => Err(args.invalid(0, &[Type::Array])),
    }
}

/// The field of a name; `[a][b]` names a field of a field when there is no field of just that name.
pub fn get_record_property_value(values: &[Value]) -> Out {
    let Some(args) = Args::strict("GetRecordPropertyValue", values) else { return Ok(Value::Null) };
    let Value::Record(record) = args.get(0) else { return Err(args.invalid(0, &[Type::Record])) };
    let name = args.text(1)?;
    let found = record.find(&name).or_else(|| by_path(record, &name));
    Ok(found.cloned().unwrap_or_default())
}

fn by_path<'a>(record: &'a Record, path: &str) -> Option<&'a Value> {
    let mut names = path.strip_prefix('[')?.strip_suffix(']')?.split("][");
    let first = record.find(names.next()?)?;
    names.try_fold(first, |value, name| match value {
        Value::Record(inner) => inner.find(name),
        _ => None,
    })
}

/// The record that a text holds as JSON; NULL for everything else, other JSON values too. Never an error.
pub fn json_parse(values: &[Value]) -> Out {
    let Value::Text(text) = Args::new("JSON_PARSE", values).get(0) else { return Ok(Value::Null) };
    Ok(match JsonValue::parse(text.as_bytes(), false) {
        Ok(json @ JsonValue::Object(_)) => convert(&json, 0).unwrap_or_default(),
        _ => Value::Null,
    })
}

/// `None` for whole numbers past 64 bits and for nesting deeper than stored values may have.
fn convert(json: &JsonValue<'_>, depth: usize) -> Option<Value> {
    if depth > DEPTH_MAX {
        return None;
    }
    Some(match json {
        JsonValue::Null => Value::Null,
        JsonValue::Bool(b) => Value::Bit(*b),
        JsonValue::Int(n) => Value::BigInt(*n),
        JsonValue::Float(f) => Value::Float(Some(*f).filter(|f| f.is_finite())?),
        JsonValue::Str(s) => Value::text(s),
        JsonValue::Array(items) => Value::array(items.iter().map(|v| convert(v, depth + 1)).collect::<Option<_>>()?),
        JsonValue::Object(fields) => Value::Record(Arc::new(record(fields, depth)?)),
        _ => return None,
    })
}

/// Of two fields of one name the last counts.
fn record(fields: &[(std::borrow::Cow<'_, str>, JsonValue<'_>)], depth: usize) -> Option<Record> {
    let mut places: FxHashMap<&str, usize> = FxHashMap::default();
    let mut pairs: Vec<(SmolStr, Value)> = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        let value = convert(value, depth + 1)?;
        match places.get(name.as_ref()).and_then(|i| pairs.get_mut(*i)) {
            Some((_, old)) => *old = value,
            None => {
                places.insert(name, pairs.len());
                pairs.push((SmolStr::new(name), value));
            }
        }
    }
    Some(Record::from_unique(pairs))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> String {
        json_parse(&[Value::text(text)]).unwrap().to_json()
    }

    #[test]
    fn json_text_becomes_a_record_or_null() {
        assert_eq!(
            parse(r#" {"a":[1,2.5,null,true,"x"],"b":{"c":{}}} "#),
            r#"{"a":[1,2.5,null,true,"x"],"b":{"c":{}}}"#
        );
        assert_eq!(parse(r#"{"a":1,"b":2,"a":3}"#), r#"{"a":3,"b":2}"#);
        for none in
            ["", "{", "[1]", "5", "\"x\"", "null", r#"{"a":NaN}"#, r#"{"a":99999999999999999999}"#, r#"{"a":1}x"#]
        {
            assert_eq!(parse(none), "null", "{none}");
        }
        let deep = format!("{}1{}", r#"{"a":"#.repeat(100), "}".repeat(100));
        assert_eq!(parse(&deep), "null");
        assert_eq!(json_parse(&[Value::BigInt(1)]), Ok(Value::Null));
    }

    #[test]
    fn absent_parts_are_null_and_wrong_types_are_errors() {
        let array = Value::array(vec![Value::BigInt(7)]);
        let element = |a: &Value, i: i64| get_array_element(&[a.clone(), Value::BigInt(i)]);
        assert_eq!(element(&array, 0), Ok(Value::BigInt(7)));
        assert_eq!(element(&array, 1), Ok(Value::Null));
        assert_eq!(element(&array, -1), Ok(Value::Null));
        assert_eq!(element(&Value::Null, 0), Ok(Value::Null));
        assert_eq!(element(&Value::text("x"), 0).unwrap_err().reason, "argument");
        assert_eq!(get_array_length(&[Value::BigInt(1)]).unwrap_err().reason, "argument");
    }

    #[test]
    fn a_bracketed_name_reaches_into_records() {
        let record = json_parse(&[Value::text(r#"{"a":{"b":1},"[x]":2}"#)]).unwrap();
        let get = |name: &str| get_record_property_value(&[record.clone(), Value::text(name)]).unwrap();
        assert_eq!(get("[a][b]"), Value::BigInt(1));
        assert_eq!(get("[x]"), Value::BigInt(2));
        assert_eq!(get("A").kind(), Some(Type::Record));
        assert_eq!(get("z"), Value::Null);
        assert_eq!(get_record_property_value(&[Value::BigInt(1), Value::text("a")]).unwrap_err().reason, "argument");
    }
}

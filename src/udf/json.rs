//! JSON text to values.
//!
//! In: text that a guest or a person wrote. Out: a [`Value`]. Invariant: whole numbers inside 64 bits are bigint, all
//! others float; text stays text. Not here: decoding payloads, which reads only the fields a query needs (`decode`).

use smol_str::SmolStr;

use crate::value::{Record, Value};

/// Reads one JSON value.
///
/// # Errors
/// The text is not one JSON value, or nests deeper than 127 levels (the limit of the parser).
pub fn parse(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text).map(from_json)
}

/// What the value of a JSON text takes in memory, about: its texts, and some 40 bytes for each value and each field. A
/// short text may hold many values, so this is asked before it is read.
pub fn held_bytes(text: &str) -> usize {
    const VALUE_BYTES: usize = 40;
    let (mut values, mut in_text, mut escaped) = (1_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' if !in_text => values += 1,
            _ => {}
        }
    }
    text.len() + values * VALUE_BYTES
}

/// The value of JSON that was already read.
pub fn from_json(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bit(b),
        Json::Number(n) => n.as_i64().map(Value::BigInt).or_else(|| n.as_f64().map(Value::Float)).unwrap_or_default(),
        Json::String(text) => Value::Text(text.into()),
        Json::Array(items) => Value::array(items.into_iter().map(from_json).collect()),
        // names are unique: of a repeated one the parser keeps the last
        Json::Object(fields) => Value::record(Record::from_unique(
            fields.into_iter().map(|(n, v)| (SmolStr::new(n), from_json(v))).collect(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_value_takes_is_counted_by_its_parts() {
        assert_eq!(held_bytes("1"), 41);
        assert_eq!(held_bytes("[1,[]]"), 6 + 4 * 40);
        assert_eq!(held_bytes(r#""[,{\",[""#), 9 + 40);
    }

    #[test]
    fn numbers_keep_what_they_are() {
        let value = parse(r#"{"a":9223372036854775807,"b":5.0,"c":18446744073709551615,"d":[null,true,"x"]}"#).unwrap();
        assert_eq!(
            value.to_json(),
            r#"{"a":9223372036854775807,"b":5.0,"c":1.8446744073709552e19,"d":[null,true,"x"]}"#
        );
        assert!(parse("{").is_err());
    }
}

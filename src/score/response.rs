//! Response bodies to results.
//!
//! In: the body of a 200 and how many rows were sent. Out: exactly that many results, in the order of the rows, or why
//! the answer cannot be used. Invariant: never a part of the results: a wrong count pairs nothing. Not here: the status
//! (`policy`), what a NaN result becomes (`desk`).

use jiter::JsonValue;

use crate::diagnostic::counted;
use crate::value::{Record, Value, codec::DEPTH_MAX};

/// Keys under which scripts put the list of results, tried in this order.
const RESULT_KEYS: [&str; 6] = ["Results", "result", "results", "predictions", "outputs", "output"];
/// Longest part of an answer kept in a message.
const SHOWN_MAX: usize = 300;

/// A 200 that is not a result.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BadResponse {
    #[error("the answer is not JSON: {0}")]
    NotJson(String),
    #[error("the script answered with an error: {0}")]
    ErrorText(String),
    #[error("the answer has {} for {}", counted(*found, "result"), counted(*sent, "row"))]
    WrongCount { sent: usize, found: usize },
    #[error("the answer holds no list of results: {0}")]
    NoList(String),
    #[error("a result is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
}

/// Reads the results of `rows` rows. `path`: the keys that lead to them, empty to look under the usual names. Floats
/// may be NaN or infinite: servers send such tokens although JSON has none.
pub fn read_results(body: &[u8], rows: usize, path: &[String]) -> Result<Vec<Value>, BadResponse> {
    let parsed = parse(body)?;
    let inner;
    let mut value = &parsed;
    // a script that returns `json.dumps(…)` is encoded a second time by the server
    if let JsonValue::Str(text) = value {
        inner = JsonValue::parse(text.as_bytes(), true).map_err(|_| BadResponse::ErrorText(clip(text)))?;
        value = &inner;
        if let JsonValue::Str(text) = value {
            return Err(BadResponse::ErrorText(clip(text)));
        }
    }
    let named = follow(value, path);
    // what the signature names counts before a field that only looks like an error
    let complete = matches!(named, Some(JsonValue::Array(items)) if items.len() == rows);
    if let Some(text) = error_text(value).filter(|_| !complete) {
        return Err(BadResponse::ErrorText(text));
    }
    match named.unwrap_or_else(|| descend(value)) {
        JsonValue::Array(items) if items.len() == rows => items.iter().map(|item| to_value(item, 0)).collect(),
        JsonValue::Array(items) => Err(BadResponse::WrongCount { sent: rows, found: items.len() }),
        JsonValue::Object(fields) if fields.is_empty() => Err(BadResponse::NoList("{}".into())),
        // one row: its result may stand without a list
        one if rows == 1 && !matches!(one, JsonValue::Null) => Ok(vec![to_value(one, 0)?]),
        other => Err(BadResponse::NoList(clip(&shown(other)))),
    }
}

fn parse(body: &[u8]) -> Result<JsonValue<'_>, BadResponse> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    JsonValue::parse(body, true).map_err(|_| BadResponse::NotJson(clip(&String::from_utf8_lossy(body))))
}

fn get<'a, 'j>(value: &'a JsonValue<'j>, key: &str) -> Option<&'a JsonValue<'j>> {
    match value {
        // the last of equal keys, as everywhere in JSON practice
        JsonValue::Object(fields) => fields.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value),
        _ => None,
    }
}

/// The text of `{"error": …}`, or of an object that holds nothing but a `message`. NULL is no error.
fn error_text(value: &JsonValue<'_>) -> Option<String> {
    let JsonValue::Object(fields) = value else { return None };
    let has_list =
        RESULT_KEYS.iter().any(|key| matches!(get(value, key), Some(JsonValue::Array(_) | JsonValue::Object(_))));
    if has_list {
        return None;
    }
    let said = |key: &str| get(value, key).filter(|text| !matches!(text, JsonValue::Null));
    let text = said("error").or_else(|| said("message").filter(|_| fields.len() == 1))?;
    Some(clip(&match text {
        JsonValue::Str(text) => text.to_string(),
        other => shown(other),
    }))
}

fn follow<'a, 'j>(value: &'a JsonValue<'j>, path: &[String]) -> Option<&'a JsonValue<'j>> {
    if path.is_empty() {
        return None;
    }
    path.iter().try_fold(value, |value, key| get(value, key))
}

/// Goes down while the value is an object: the usual names first, else its only key.
fn descend<'a, 'j>(mut value: &'a JsonValue<'j>) -> &'a JsonValue<'j> {
    for _ in 0..DEPTH_MAX {
        let JsonValue::Object(fields) = value else { break };
        let usual = RESULT_KEYS.iter().find_map(|key| get(value, key));
        let only = || fields.first().filter(|_| fields.len() == 1).map(|(_, value)| value);
        let Some(below) = usual.or_else(only) else { break };
        value = below;
    }
    value
}

fn to_value(json: &JsonValue<'_>, depth: usize) -> Result<Value, BadResponse> {
    if depth >= DEPTH_MAX {
        return Err(BadResponse::TooDeep);
    }
    Ok(match json {
        JsonValue::Null => Value::Null,
        JsonValue::Bool(b) => Value::Bit(*b),
        JsonValue::Int(n) => Value::BigInt(*n),
        JsonValue::Float(f) => Value::Float(*f),
        JsonValue::Str(text) => Value::text(text),
        JsonValue::Array(items) => {
            Value::array(items.iter().map(|item| to_value(item, depth + 1)).collect::<Result<_, _>>()?)
        }
        JsonValue::Object(fields) => {
            let mut record = Record::with_capacity(fields.len());
            for (name, value) in fields.iter() {
                record.insert(name.as_ref().into(), to_value(value, depth + 1)?);
            }
            Value::record(record)
        }
        // a whole number past 64 bits
        JsonValue::BigInt(n) => Value::Float(n.to_string().parse().unwrap_or(f64::NAN)),
    })
}

fn shown(json: &JsonValue<'_>) -> String {
    match json {
        JsonValue::Object(fields) => {
            let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_ref()).collect();
            format!("an object with {}", names.join(", "))
        }
        JsonValue::Array(items) => format!("an array of {}", items.len()),
        other => to_value(other, 0).map(|v| v.to_json()).unwrap_or_default(),
    }
}

/// The start of a text, for messages.
fn clip(text: &str) -> String {
    super::clipped(text, SHOWN_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(body: &str, rows: usize, path: &[&str]) -> String {
        let path: Vec<String> = path.iter().map(|s| s.to_string()).collect();
        match read_results(body.as_bytes(), rows, &path) {
            Ok(values) => values.iter().map(|v| format!("{v:?}")).collect::<Vec<_>>().join(" "),
            Err(bad) => bad.to_string(),
        }
    }

    #[test]
    fn where_results_are_found_and_what_is_none() {
        let fares = "Float(15.92) Float(25.26)";
        for (body, rows, path, expected) in [
            ("[15.92, 25.26]", 2, &[][..], fares),
            ("[15.92, NaN]", 2, &[], "Float(15.92) Float(NaN)"),
            ("[Infinity, -Infinity]", 2, &[], "Float(inf) Float(-inf)"),
            ("[15.92, null]", 2, &[], "Float(15.92) Null"),
            (r#"{"result": [15.92, 25.26]}"#, 2, &["result"], fares),
            (r#"{"a": {"b": [15.92, 25.26]}, "c": 1}"#, 2, &["a", "b"], fares),
            (r#"{"Results": {"WebServiceOutput0": [15.92, 25.26]}, "time": 3}"#, 2, &[], fares),
            (r#"{"predictions": [15.92, 25.26], "model": "x"}"#, 2, &[], fares),
            (r#"{"only": [15.92, 25.26]}"#, 2, &[], fares),
            (r#""{\"result\": [15.92, 25.26]}""#, 2, &[], fares),
            ("15.92", 1, &[], "Float(15.92)"),
            (r#"{"result": "low"}"#, 1, &[], r#"Text("low")"#),
            ("[[0.5, 0.5]]", 1, &[], "Array([Float(0.5), Float(0.5)])"),
            ("[15.92]", 2, &[], "the answer has 1 result for 2 rows"),
            ("[1, 2, 3]", 2, &[], "the answer has 3 results for 2 rows"),
            ("15.92", 2, &[], "the answer holds no list of results: 15.92"),
            ("{}", 1, &[], "the answer holds no list of results: {}"),
            ("null", 1, &[], "the answer holds no list of results: null"),
            ("ok but not JSON", 2, &[], "the answer is not JSON: ok but not JSON"),
            ("", 1, &[], "the answer is not JSON: "),
            (r#""could not convert""#, 1, &[], "the script answered with an error: could not convert"),
            (r#""\"could not convert\"""#, 1, &[], "the script answered with an error: could not convert"),
            (r#"{"error": "no column x"}"#, 1, &[], "the script answered with an error: no column x"),
            (r#""{\"error\": \"no column x\"}""#, 1, &[], "the script answered with an error: no column x"),
            (r#"{"message": "no"}"#, 1, &["result"], "the script answered with an error: no"),
            (r#"{"result": [15.92, 25.26], "error": null}"#, 2, &[], fares),
            (r#"{"scores": [15.92, 25.26], "error": null}"#, 2, &["scores"], fares),
            (r#"{"scores": [15.92, 25.26], "error": ""}"#, 2, &["scores"], fares),
            (r#"{"scores": 15.92, "error": null}"#, 1, &["scores"], "Float(15.92)"),
            (
                r#"{"scores": [15.92], "error": "half of it"}"#,
                2,
                &["scores"],
                "the script answered with an error: half of it",
            ),
            (
                r#"{"scores": null, "error": "no column x"}"#,
                1,
                &["scores"],
                "the script answered with an error: no column x",
            ),
            (r#"{"error": null}"#, 1, &[], "the answer holds no list of results: null"),
        ] {
            assert_eq!(shown(body, rows, path), expected, "{body}");
        }
        let deep = format!("[{}1{}]", "[".repeat(100), "]".repeat(100));
        assert_eq!(shown(&deep, 1, &[]), "a result is nested deeper than 64 levels");
        assert_eq!(shown("[123456789012345678901234567890]", 1, &[]), "Float(1.2345678901234568e29)");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(body in prop::collection::vec(any::<u8>(), 0..200), rows in 0usize..4) {
            if let Ok(values) = read_results(&body, rows, &[]) {
                prop_assert_eq!(values.len(), rows);
            }
        }
    }
}

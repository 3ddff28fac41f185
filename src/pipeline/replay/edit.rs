//! A row as a person changed it.
//!
//! In: the row as it was, and the JSON object that a person made of it. Out: the row as it is to be. Invariant: what
//! was not changed keeps its type; a column is never left out in silence. Not here: payloads of events, which are what
//! they are.

use serde_json::{Map, Value as Json};
use smol_str::SmolStr;

use crate::batch::{Column, write_row_json};
use crate::value::{Record, Value};

/// The values of a row, after the columns.
///
/// # Errors
/// What is wrong with the text, for whoever wrote it.
pub fn edited(columns: &[Column], row: &[Value], payload: &[u8]) -> Result<Vec<Value>, String> {
    let mut before = String::new();
    write_row_json(columns, row, &mut before);
    if before.as_bytes() == payload {
        return Ok(row.to_vec());
    }
    let mut fields: Map<String, Json> = serde_json::from_slice(payload)
        .map_err(|e| format!("the payload of a row must be a JSON object of its columns: {e}"))?;
    let mut values = Vec::with_capacity(columns.len());
    for (column, was) in columns.iter().zip(row).filter(|(column, _)| !column.spread) {
        let field = fields.remove(column.name.as_str());
        let field = field.ok_or_else(|| format!("the payload lacks the column `{}`", column.name))?;
        values.push(kept(was, &field));
    }
    // what no column names belongs to the first of those that hold whole records
    let mut named = values.into_iter();
    let mut all = Vec::with_capacity(columns.len());
    let mut rest = Some(fields);
    for (column, was) in columns.iter().zip(row) {
        all.push(match column.spread {
            false => named.next().unwrap_or_default(),
            true => rest.take().map_or(Value::Null, |rest| kept(was, &Json::Object(rest))),
        });
    }
    match rest.filter(|rest| !rest.is_empty()) {
        None => Ok(all),
        Some(rest) => {
            let unknown: Vec<&str> = rest.keys().map(String::as_str).collect();
            let known: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
            Err(format!("the row has no column `{}`: it has `{}`", unknown.join("`, `"), known.join("`, `")))
        }
    }
}

/// The value as it was, where it is written as before.
fn kept(was: &Value, field: &Json) -> Value {
    let is_same = serde_json::from_str::<Json>(&was.to_json()).is_ok_and(|before| before == *field);
    if is_same { was.clone() } else { value(field) }
}

/// A JSON value as a payload would give it.
fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(bit) => Value::Bit(*bit),
        Json::Number(n) => match n.as_i64() {
            Some(n) => Value::BigInt(n),
            None => n.as_f64().map_or(Value::Null, Value::Float),
        },
        Json::String(text) => Value::text(text),
        Json::Array(items) => Value::array(items.iter().map(value).collect()),
        Json::Object(fields) => {
            let fields = fields.iter().map(|(name, field)| (SmolStr::new(name), value(field)));
            Value::record(Record::from_unique(fields.collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn columns(names: &[&str]) -> Vec<Column> {
        names.iter().map(|name| Column { name: (*name).into(), spread: name.is_empty() }).collect()
    }

    #[test]
    fn what_was_not_changed_keeps_its_type() {
        let at = Timestamp::parse("2026-11-28T08:00:00Z").unwrap();
        let row = [Value::DateTime(at), Value::Float(2.0), Value::BigInt(1)];
        let columns = columns(&["at", "x", "n"]);
        let mut payload = String::new();
        write_row_json(&columns, &row, &mut payload);
        assert_eq!(edited(&columns, &row, payload.as_bytes()).unwrap(), row);
        let changed = payload.replace("\"n\":1", "\"n\":[7,\"a\"]");
        let array = Value::array(vec![Value::BigInt(7), Value::text("a")]);
        let wanted = [Value::DateTime(at), Value::Float(2.0), array];
        assert_eq!(edited(&columns, &row, changed.as_bytes()).unwrap(), wanted);
    }

    #[test]
    fn a_record_whose_fields_are_columns_takes_what_no_column_names() {
        let record = |n| Value::record(Record::from_unique(vec![("b".into(), Value::BigInt(n))]));
        let (columns, row) = (columns(&["a", ""]), [Value::Null, record(1)]);
        assert_eq!(edited(&columns, &row, b"{\"b\":2,\"a\":null}").unwrap(), [Value::Null, record(2)]);
    }

    #[test]
    fn a_row_with_too_few_or_too_many_columns_is_refused() {
        let (columns, row) = (columns(&["a", "b"]), [Value::Null, Value::Null]);
        for (payload, said) in [
            ("{\"a\":1}", "the payload lacks the column `b`"),
            ("{\"a\":1,\"b\":2,\"c\":3}", "the row has no column `c`: it has `a`, `b`"),
            ("[1,2]", "the payload of a row must be a JSON object of its columns"),
        ] {
            let error = edited(&columns, &row, payload.as_bytes()).unwrap_err();
            assert!(error.starts_with(said), "{error}");
        }
    }
}

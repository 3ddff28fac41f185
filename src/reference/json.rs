//! JSON: an array of objects, or one object a line. Values keep their types.

use bytes::Bytes;

use super::load::{LoadError, line_of};
use crate::decode::{Decoder, split_up_to};
use crate::value::{Record, Value};

pub(super) fn rows(text: &Bytes, rows_max: usize) -> Result<Vec<Value>, LoadError> {
    let found = split_up_to(text, rows_max);
    if let Some(bad) = found.bad.first() {
        // the text of an object that stands in a line begins with that line
        let why = bad.error.replace(" at line 1 column ", " at column ");
        let (why, line) = match why.rsplit_once(" at line ") {
            // inside an array the place is that of the whole text
            Some((why, place)) if text.trim_ascii_start().starts_with(b"[") => {
                let line = place.split(' ').next().and_then(|line| line.parse::<u64>().ok());
                let lead = text.len() - text.trim_ascii_start().len();
                (why.to_owned(), line.map(|line| line + line_of(text, lead) - 1))
            }
            _ => (why, None),
        };
        return Err(LoadError::Line { line: line.unwrap_or_else(|| line_of(text, bad.position)), why });
    }
    if found.events.len() > rows_max {
        return Err(LoadError::Rows { max: rows_max });
    }
    let mut decoder = Decoder::new([], Some(0), None);
    let mut rows = Vec::with_capacity(found.events.len());
    for event in &found.events {
        let mut row = [Value::Null];
        let decoded = decoder.decode(event, &mut row);
        decoded.map_err(|error| LoadError::Line { line: line_of(text, place(text, event)), why: error.to_string() })?;
        rows.extend(row.into_iter().map(fitted));
    }
    Ok(rows)
}

/// The same record without the room that reading it field by field left over: a table is held for long, a third of it
/// would be empty.
fn fitted(row: Value) -> Value {
    match row {
        Value::Record(record) => Value::record(Record::from_unique(
            record.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        )),
        other => other,
    }
}

/// Where a slice of the text begins.
fn place(text: &Bytes, part: &Bytes) -> usize {
    (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize)
}

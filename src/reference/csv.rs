//! CSV: a line of names, then a line a row. Fields are quoted as RFC 4180 says and are text, as in Stream Analytics; an
//! empty field is the empty text.

use csv::{ErrorKind, ReaderBuilder, StringRecord};

use super::load::{LoadError, line_of};
use crate::decode::open_quote;
use crate::diagnostic::counted;
use crate::value::{Record, SmolStr, Value};

/// Bytes of the text that a field stands for at least, on average, in a table of more than a few: an empty field is one
/// byte of text and fifty of memory.
const FIELD_BYTES_MIN: usize = 4;
/// Tables of fewer fields are not asked for that.
const FIELDS_FREE: usize = 100_000;

pub(super) fn rows(text: &[u8], delimiter: u8, rows_max: usize) -> Result<Vec<Value>, LoadError> {
    if let Some(at) = open_quote(text, delimiter) {
        return Err(LoadError::Line { line: line_of(text, at), why: "a quoted field is never closed".to_owned() });
    }
    let mut reader = ReaderBuilder::new().delimiter(delimiter).from_reader(text);
    let names = names(reader.headers().map_err(|e| wrong(&e))?)?;
    let (mut rows, mut record) = (Vec::new(), StringRecord::new());
    while reader.read_record(&mut record).map_err(|e| wrong(&e))? {
        if rows.len() == rows_max {
            return Err(LoadError::Rows { max: rows_max });
        }
        let fields =
            names.iter().zip(&record).map(|(name, field)| (name.clone(), Value::Text(SmolStr::new(field)))).collect();
        rows.push(Value::record(Record::from_unique(fields)));
        let cells = rows.len().saturating_mul(names.len());
        if cells > FIELDS_FREE.max(text.len() / FIELD_BYTES_MIN) {
            return Err(LoadError::Cells { rows: rows.len(), columns: names.len() });
        }
    }
    Ok(rows)
}

fn names(header: &StringRecord) -> Result<Vec<SmolStr>, LoadError> {
    let line = |why: String| LoadError::Line { line: header.position().map_or(1, csv::Position::line), why };
    let mut names: Vec<SmolStr> = Vec::with_capacity(header.len());
    let mut seen = rustc_hash::FxHashSet::default();
    for (i, name) in header.iter().enumerate() {
        let name = SmolStr::new(name.trim());
        if name.is_empty() {
            return Err(line(format!("column {} has no name; the first line names the columns", i + 1)));
        }
        if !seen.insert(name.clone()) {
            return Err(line(format!("two columns are called `{name}`")));
        }
        names.push(name);
    }
    Ok(names)
}

fn fields(count: u64) -> String {
    counted(usize::try_from(count).unwrap_or(usize::MAX), "field")
}

fn wrong(error: &csv::Error) -> LoadError {
    let line = |pos: &Option<csv::Position>| pos.as_ref().map_or(1, csv::Position::line);
    match error.kind() {
        ErrorKind::UnequalLengths { pos, expected_len, len } => LoadError::Line {
            line: line(pos),
            why: format!("{}, but the first line names {expected_len}", fields(*len)),
        },
        ErrorKind::Utf8 { pos, .. } => LoadError::Line { line: line(pos), why: "a field is not UTF-8".to_owned() },
        _ => LoadError::Line { line: 1, why: error.to_string() },
    }
}

//! Bytes to the rows of a table.
//!
//! In: all bytes of a file or an answer. Out: a record a row, or the first thing that is wrong, with its line.
//! Invariant: one bad row refuses the whole: half a table joins wrongly and nobody would know. Not here: where bytes
//! come from.

use bytes::Bytes;

use super::{ReferenceFormat, csv, json};
use crate::value::Value;

/// Why bytes are no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error("it is empty; a table without rows is `[]`, or a line of names in CSV")]
    Empty,
    #[error("line {line}: {why}")]
    Line { line: u64, why: String },
    #[error("it has more than {max} rows; raise `rows_max`")]
    Rows { max: usize },
    #[error(
        "its {rows} rows of {columns} fields are more than its bytes account for; leave out columns that are not used"
    )]
    Cells { rows: usize, columns: usize },
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads a table.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn rows(bytes: &Bytes, format: ReferenceFormat, rows_max: usize) -> Result<Vec<Value>, LoadError> {
    let text = if bytes.starts_with(BYTE_ORDER_MARK) { bytes.slice(BYTE_ORDER_MARK.len()..) } else { bytes.clone() };
    if text.iter().all(u8::is_ascii_whitespace) {
        return Err(LoadError::Empty);
    }
    match format {
        ReferenceFormat::Json => json::rows(&text, rows_max),
        ReferenceFormat::Csv { delimiter } => csv::rows(&text, delimiter, rows_max),
    }
}

/// The line, from 1, in which a byte lies.
pub(super) fn line_of(text: &[u8], at: usize) -> u64 {
    1 + text.iter().take(at).filter(|b| **b == b'\n').count() as u64
}

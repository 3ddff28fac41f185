//! Golden rows: what is asked, and what is known of the answer.
//!
//! In: JSON, an object a line. Out: rows with the place of their line. Invariant: a line says all that it should and
//! nothing that is not understood; all lines that do not are told at once. Not here: whether there is such a function.

use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;

use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::time::Timestamp;
use crate::udf::json;
use crate::value::Value;

/// A row, checked.
#[derive(Debug)]
pub struct GoldenRow {
    /// counted from 1
    pub line: usize,
    pub span: Span,
    /// of the function or the aggregate
    pub name: String,
    pub asked: Asked,
    /// event times, as many as were written
    pub times: Vec<Timestamp>,
    pub wanted: Wanted,
    /// name and arguments, for a person
    pub shown: String,
}

#[derive(Debug)]
pub enum Asked {
    /// the arguments
    Call(Vec<Value>),
    /// arguments for each row of a window
    Aggregate(Vec<Vec<Value>>),
}

#[derive(Debug)]
pub enum Wanted {
    Value(Json),
    /// a part of the message, or the reason's word
    Error(String),
}

/// A line as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLine {
    call: Option<String>,
    args: Option<Vec<Json>>,
    aggregate: Option<String>,
    rows: Option<Vec<Vec<Json>>>,
    at: Option<Json>,
    /// `null` is a value to expect
    #[serde(default, deserialize_with = "there")]
    expected: Option<Json>,
    error: Option<String>,
}

fn there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

/// The rows of a file, and its problems beside what was a problem before. Empty lines are passed over.
pub fn read(mut file: Diagnostics) -> (Vec<GoldenRow>, Diagnostics) {
    let (mut rows, mut found, mut start) = (Vec::new(), Vec::new(), 0);
    for (i, whole) in file.text.split_inclusive('\n').enumerate() {
        let text = whole.trim_end();
        if !text.trim().is_empty() {
            match row(i + 1, text, start) {
                Ok(row) => rows.push(row),
                Err(problem) => found.push(*problem),
            }
        }
        start += whole.len();
    }
    file.items.extend(found);
    (rows, file)
}

fn row(line: usize, text: &str, start: usize) -> Result<GoldenRow, Box<Diagnostic>> {
    let span = Span::new(start, start + text.len());
    let wrong = |title: &str, help: &str| Box::new(Diagnostic::error(title, span).help(help));
    let read: WrittenLine = serde_json::from_str(text).map_err(|e| {
        // columns are counted in bytes, from 1; the words end with the place, which is drawn
        let at = start + e.column().saturating_sub(1).min(text.len().saturating_sub(1));
        let words = e.to_string();
        let words = words.split(" at line ").next().unwrap_or_default();
        Box::new(Diagnostic::error(format!("this is no golden row: {words}"), Span::new(at, at + 1)).help(FORM))
    })?;
    let wanted = match (read.expected, read.error) {
        (Some(value), None) => Wanted::Value(value),
        (None, Some(words)) => Wanted::Error(words),
        _ => return Err(wrong("a golden row has either `expected` or `error`", FORM)),
    };
    let values = |items: Vec<Json>| items.into_iter().map(json::from_json).collect::<Vec<Value>>();
    let listed = |items: &[Json]| items.iter().map(Json::to_string).collect::<Vec<_>>().join(", ");
    let (name, asked, shown) = match (read.call, read.args, read.aggregate, read.rows) {
        (Some(name), args, None, None) => {
            let args = args.unwrap_or_default();
            let shown = format!("{name}({})", listed(&args));
            (name, Asked::Call(values(args)), shown)
        }
        (None, None, Some(name), Some(rows)) => {
            let shown: Vec<String> = rows.iter().map(|row| format!("({})", listed(row))).collect();
            let shown = format!("{name} of {}", if shown.is_empty() { "no rows".to_owned() } else { shown.join(", ") });
            (name, Asked::Aggregate(rows.into_iter().map(values).collect()), shown)
        }
        _ => return Err(wrong("a golden row has either `call` with `args` or `aggregate` with `rows`", FORM)),
    };
    let rows = match &asked {
        Asked::Call(_) => None,
        Asked::Aggregate(rows) => Some(rows.len()),
    };
    let times = times(read.at, rows).ok_or_else(|| wrong("`at` is no time", AT))?;
    Ok(GoldenRow { line, span, name, asked, times, wanted, shown })
}

/// One time for a call; for an aggregate one for each row.
fn times(at: Option<Json>, rows: Option<usize>) -> Option<Vec<Timestamp>> {
    match (at, rows) {
        (None, _) => Some(Vec::new()),
        (Some(Json::String(text)), None) => Timestamp::parse(&text).map(|at| vec![at]),
        (Some(Json::Array(items)), Some(rows)) if items.len() == rows => {
            items.iter().map(|item| item.as_str().and_then(Timestamp::parse)).collect()
        }
        _ => None,
    }
}

const FORM: &str = "write {\"call\": NAME, \"args\": […], \"expected\": …} or {\"aggregate\": NAME, \"rows\": [[…], \
                    […]], \"expected\": …}; instead of `expected`, \"error\": a part of its message";
const AT: &str = "write \"at\": \"2024-05-01T12:00:00Z\" for a call; for an aggregate a list, one time a row";

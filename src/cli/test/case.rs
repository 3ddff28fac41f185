//! One test case: a query, its inputs, and what has to come of it.
//!
//! In: a JSON file. Out: [`Case`], checked. Invariant: a case wants exactly one of rows, a compile error, a runtime
//! error. Not here: running it (`finite`), comparing rows (`compare`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Deserialize;

use super::compare::{RowObject, RowOrder};
use crate::cli::eval::finite::Event;
use crate::time::Timestamp;

/// The key of an input row that gives its arrival time and is no column.
const ARRIVAL: &str = "__arrival";

#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub file: PathBuf,
    pub query: String,
    pub inputs: Vec<(String, Vec<Event>)>,
    /// Reference tables: name and rows, a JSON object each.
    pub reference: Vec<(String, Vec<Bytes>)>,
    pub settings: Settings,
    /// A job file whose functions the query calls.
    pub job: Option<PathBuf>,
    pub order: RowOrder,
    pub wanted: Wanted,
}

/// What has to come of a case.
#[derive(Debug)]
pub enum Wanted {
    /// Rows by output; an output that is not named gets none.
    Rows(BTreeMap<String, Vec<RowObject>>),
    /// A compile error that contains this word, in any letter case.
    Fail(String),
    /// A runtime error that contains this word, in any letter case.
    Stop(String),
    /// Rows of these outputs; others are not looked at.
    Outputs(Vec<Expected>),
}

/// An output of a test configuration.
#[derive(Debug)]
pub struct Expected {
    /// its name, in any letter case
    pub output: String,
    pub rows: Vec<RowObject>,
    /// Otherwise a difference is told and the case passes.
    pub required: bool,
}

/// Time policies; what is absent is as in `forebay eval`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub late_arrival_tolerance_s: Option<i64>,
    pub out_of_order_tolerance_s: Option<i64>,
    pub out_of_order_policy: Option<OutOfOrder>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OutOfOrder {
    Adjust,
    Drop,
}

/// The file as it is; keys that are not named here are for people (`area`, `source`, `note`).
#[derive(Deserialize)]
struct Raw {
    name: Option<String>,
    query: String,
    inputs: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    reference: serde_json::Map<String, serde_json::Value>,
    /// relative to the case
    job: Option<PathBuf>,
    #[serde(default)]
    settings: Settings,
    #[serde(default)]
    order: RowOrder,
    expected: Option<BTreeMap<String, Vec<RowObject>>>,
    must_fail: Option<String>,
    must_stop: Option<String>,
}

impl Case {
    /// Reads a case file.
    ///
    /// # Errors
    /// The file cannot be read or is no case; the text says what is wrong, without the file's name.
    pub fn read(file: &Path) -> Result<Case, String> {
        let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
        let raw: Raw = from_object(&text).map_err(|e| format!("no test case: {e}; {FORM}"))?;
        let wanted = match (raw.expected, raw.must_fail, raw.must_stop) {
            (Some(rows), None, None) => Wanted::Rows(rows),
            (None, Some(word), None) => Wanted::Fail(word),
            (None, None, Some(word)) => Wanted::Stop(word),
            _ => {
                return Err(format!(
                    "no test case: it needs exactly one of `expected`, `must_fail` and `must_stop`; {FORM}"
                ));
            }
        };
        let stem = || file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Case {
            name: raw.name.unwrap_or_else(stem),
            file: file.to_owned(),
            query: raw.query,
            inputs: rows_by_name(raw.inputs)?
                .into_iter()
                .map(|(name, rows)| Ok((name, events(rows)?)))
                .collect::<Result<_, String>>()?,
            reference: rows_by_name(raw.reference)?
                .into_iter()
                .map(|(name, rows)| (name, rows.into_iter().map(|r| payload(&r)).collect()))
                .collect(),
            settings: raw.settings,
            job: raw.job.map(|job| file.parent().unwrap_or(Path::new("")).join(job)),
            order: raw.order,
            wanted,
        })
    }
}

/// What a case looks like, for those who have not seen one.
const FORM: &str = "a case is a JSON object such as {\"query\": \"SELECT v INTO o FROM gw\", \"inputs\": {\"gw\": \
    [{\"v\": 1}]}, \"expected\": {\"o\": [{\"v\": 1}]}}";

/// An object, told apart from other JSON first: the reader would take an array for a case as well.
fn from_object(text: &str) -> Result<Raw, String> {
    match text.trim_start().starts_with('{') {
        true => serde_json::from_str(text).map_err(|e| e.to_string()),
        false => Err("expected a JSON object".to_owned()),
    }
}

fn rows_by_name(inputs: serde_json::Map<String, serde_json::Value>) -> Result<Vec<(String, Vec<RowObject>)>, String> {
    let rows = |(name, value)| match serde_json::from_value(value) {
        Ok(rows) => Ok((name, rows)),
        Err(e) => Err(format!("input `{name}` is no list of rows: {e}")),
    };
    inputs.into_iter().map(rows).collect()
}

fn events(rows: Vec<RowObject>) -> Result<Vec<Event>, String> {
    let event = |mut row: RowObject| {
        let arrival = match row.shift_remove(ARRIVAL) {
            None => None,
            Some(serde_json::Value::String(text)) => match Timestamp::parse(&text) {
                Some(t) => Some(t),
                None => return Err(format!("`{ARRIVAL}` is no date in ISO 8601: {text}")),
            },
            Some(other) => return Err(format!("`{ARRIVAL}` is no date in ISO 8601: {other}")),
        };
        Ok(Event { arrival, ..Event::now(payload(&row)) })
    };
    rows.into_iter().map(event).collect()
}

fn payload(row: &RowObject) -> Bytes {
    Bytes::from(serde_json::to_vec(row).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Case, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("some-case.json");
        std::fs::write(&file, text).unwrap();
        Case::read(&file)
    }

    #[test]
    fn arrival_is_taken_out_of_the_payload() {
        let case = read(
            r#"{"query":"SELECT 1",
                "inputs":{"a":[{"v":4.0,"__arrival":"2024-01-01T00:00:00Z","w":9007199254740993},{}]},
                "settings":{"out_of_order_policy":"drop"},"expected":{},"note":"for people"}"#,
        )
        .unwrap();
        assert_eq!(case.name, "some-case");
        let (name, events) = &case.inputs[0];
        assert_eq!(name, "a");
        assert_eq!(events[0].payload, r#"{"v":4.0,"w":9007199254740993}"#);
        assert_eq!(events[0].arrival, Timestamp::parse("2024-01-01"));
        assert_eq!(events[1].arrival, None);
        assert_eq!(case.settings.out_of_order_policy, Some(OutOfOrder::Drop));
        assert_eq!(case.order, RowOrder::Exact);
    }

    #[test]
    fn a_malformed_case_says_what_is_wrong() {
        for (text, wanted) in [
            ("{", "no test case: EOF"),
            (r#"{"inputs":{},"expected":{}}"#, "missing field `query`"),
            (r#"{"query":"q","inputs":{}}"#, "exactly one of"),
            (r#"{"query":"q","inputs":{},"must_fail":"a","must_stop":"b"}"#, "exactly one of"),
            (r#"{"query":"q","inputs":{"a":[1]},"must_fail":"a"}"#, "input `a` is no list of rows"),
            (r#"{"query":"q","inputs":{"a":[{"__arrival":5}]},"must_fail":"a"}"#, "`__arrival` is no date"),
            (r#"{"query":"q","inputs":{},"must_fail":"a","settings":{"late":1}}"#, "unknown field `late`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}

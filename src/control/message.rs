//! What is asked and answered, as lines of JSON.
//!
//! In: a request or a response, or a line. Out: the other. Invariant: each line tells its version, and one of another
//! version is refused with what to do. Not here: sockets.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::journal::LetterFilter;

/// Raised when a line means something else than before.
const VERSION: u64 = 1;

/// What a command asks of a running job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum ControlRequest {
    /// Removes dead letters for good.
    DropDeadLetters { filter: LetterFilter },
    /// Puts a record aside at which a statement stands.
    SetAside { statement: String, offset: i64 },
    /// Sends dead letters through the present query once more.
    ReplayDeadLetters(ReplayRequest),
    /// Says that a person has seen the records that cannot be read.
    DropQuarantine,
    /// Looks at the endpoint of a function now, whatever it waits for.
    Retry { function: String },
}

/// Which letters are replayed, up to a bounded number a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplayRequest {
    pub filter: LetterFilter,
    /// What a person changed in them; then only these are replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edits: Option<Vec<ReplayEdit>>,
}

/// Another payload for a letter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplayEdit {
    pub id: i64,
    /// As base64: it may be any bytes.
    pub payload: String,
}

/// What became of the letters of one request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplayOutcome {
    /// They went through, and are no dead letters any more.
    pub done: u64,
    /// They are dead letters again.
    pub failed: u64,
    /// They were left as they are, by reason.
    pub refused: Vec<(String, u64)>,
    /// The last number that was looked at; `None` when there are no more.
    pub next: Option<i64>,
    /// An endpoint or an output was waited for too long: more would wait as long.
    #[serde(default)]
    pub gave_up: bool,
    /// Why the rest of the request was not done.
    #[serde(default)]
    pub ended: Option<String>,
}

/// What the job says to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum ControlResponse {
    Dropped {
        letters: u64,
    },
    IsAside,
    Replayed(ReplayOutcome),
    QuarantineSeen {
        ranges: u64,
        records: u64,
    },
    /// The endpoint was looked at.
    Retried {
        /// How it stands; `None`: it is in use.
        trouble: Option<String>,
    },
    /// It was not done, or not all of it.
    Refused {
        why: String,
    },
}

impl ControlRequest {
    pub(super) fn to_line(&self) -> String {
        to_line(self)
    }

    pub(super) fn from_line(line: &[u8]) -> Result<ControlRequest, String> {
        from_line(line)
    }
}

impl ControlResponse {
    pub fn refused(why: String) -> ControlResponse {
        ControlResponse::Refused { why }
    }

    pub(super) fn to_line(&self) -> String {
        to_line(self)
    }

    pub(super) fn from_line(line: &[u8]) -> Result<ControlResponse, String> {
        from_line(line)
    }
}

fn to_line(message: &impl Serialize) -> String {
    // plain data: texts, numbers and lists of them
    let mut line = serde_json::to_value(message).unwrap_or_default();
    if let Json::Object(fields) = &mut line {
        fields.insert("v".to_owned(), json!(VERSION));
    }
    format!("{line}\n")
}

fn from_line<T: DeserializeOwned>(line: &[u8]) -> Result<T, String> {
    let mut line: Json = serde_json::from_slice(line).map_err(|e| format!("a line is one JSON object: {e}"))?;
    let version = line.as_object_mut().and_then(|fields| fields.remove("v"));
    if version != Some(json!(VERSION)) {
        let found = version.map_or("no version".to_owned(), |version| format!("version {version}"));
        return Err(format!("the line has {found}, and the program of the job speaks {VERSION}: use that program"));
    }
    serde_json::from_value(line).map_err(|e| format!("version {VERSION} has no such line: {e}"))
}

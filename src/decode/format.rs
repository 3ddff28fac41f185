//! How payloads of one kind become events.
//!
//! In: the keys of an input's section, then payloads. Out: events, each one JSON object, and what could not be read.
//! Invariant: whatever the format, what is stored is a JSON object, so that no other module knows the formats. Not
//! here: the fields of an event, compression.

mod bytes;
mod csv;
mod json;
mod text;

use std::fmt::Debug;
use std::sync::Arc;

use ::bytes::Bytes;

use super::Split;
use super::split::BYTE_ORDER_MARK;
use crate::settings::Section;
use crate::value::write_json_text;

pub use csv::{delimiter, open_quote};

/// Reads the keys of one format.
pub type ReadFormat = fn(&mut Section) -> Option<Arc<dyn Format>>;

/// The formats, by their word in the job file. The first is the default.
pub const FORMATS: &[(&str, ReadFormat)] =
    &[("json", json::read), ("csv", csv::read), ("text", text::read), ("bytes", bytes::read)];

/// How payloads become events.
pub trait Format: Debug + Send + Sync {
    /// Splits a payload that is not empty; `name` is that of its message.
    fn split(&self, payload: &Bytes, name: &str) -> Split;

    /// Whether there is nothing in a payload.
    fn is_empty(&self, payload: &[u8]) -> bool {
        payload.is_empty()
    }

    /// Whether payloads are text: zero bytes at the end are then left over from a buffer and no part of it.
    fn is_text(&self) -> bool {
        true
    }

    /// Whether each event is a piece of the payload as it came.
    fn keeps_bytes(&self) -> bool {
        false
    }
}

/// Reads `format` and the keys that belong to it.
pub fn format(section: &mut Section) -> Option<Arc<dyn Format>> {
    let is_given = section.has("format");
    let read = match section.optional_choice("format", FORMATS) {
        None if is_given => {
            section.leave_unknown();
            return None;
        }
        None => FORMATS.first()?.1,
        Some(read) => read,
    };
    read(section)
}

/// Whether there are only blanks, behind a byte order mark or not.
fn is_blank(payload: &[u8]) -> bool {
    payload.strip_prefix(BYTE_ORDER_MARK).unwrap_or(payload).iter().all(u8::is_ascii_whitespace)
}

/// The event of a payload that is one value: the columns `payload` and `topic`.
fn one_value(payload: &str, name: &str) -> Split {
    let mut json = String::with_capacity(payload.len() + name.len() + 32);
    json.push_str("{\"payload\":");
    write_json_text(payload, &mut json);
    json.push_str(",\"topic\":");
    write_json_text(name, &mut json);
    json.push('}');
    Split { events: vec![Bytes::from(json)], ..Split::default() }
}

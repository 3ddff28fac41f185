//! How payloads of one kind become events.
//!
//! In: the keys of an input's section, then payloads. Out: events, each one JSON object, and what could not be read.
//! Invariant: whatever the format, what is stored is a JSON object, so that only this place knows the others. Not here:
//! the fields of an event.

mod json;

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;

use super::Split;
use crate::settings::Section;

/// Reads the keys of one format.
pub type Read = fn(&mut Section) -> Option<Arc<dyn Format>>;

/// The formats, by their word in the job file. The first is the default.
pub const FORMATS: &[(&str, Read)] = &[("json", json::read)];

/// How payloads become events.
pub trait Format: Debug + Send + Sync {
    fn split(&self, payload: &Bytes) -> Split;
}

/// Reads `format` and the keys that belong to it.
pub fn format(section: &mut Section) -> Option<Arc<dyn Format>> {
    let is_given = section.has("format");
    let read = match section.optional_choice("format", FORMATS) {
        None if is_given => return None,
        None => FORMATS.first()?.1,
        Some(read) => read,
    };
    read(section)
}

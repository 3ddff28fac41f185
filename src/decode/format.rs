//! How payloads of one kind become events.
//!
//! In: the keys of an input's section, then payloads. Out: events, each one JSON object, and what could not be read.
//! Invariant: whatever the format, what is stored is a JSON object, so that only this place knows the others. Not here:
//! the fields of an event.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;

use super::Split;
use super::split::split;
use crate::settings::Section;

/// Reads the keys of one format.
pub type Read = fn(&mut Section) -> Option<Arc<dyn Format>>;

/// The formats, by their word in the job file. The first is the default.
pub const FORMATS: &[(&str, Read)] = &[("json", json)];

/// How payloads become events.
pub trait Format: Debug + Send + Sync {
    fn split(&self, payload: &Bytes) -> Split;
}

/// Reads `format` and the keys that belong to it.
pub fn format(section: &mut Section) -> Arc<dyn Format> {
    let read = section.choice("format", FORMATS, json as Read);
    read(section).unwrap_or_else(|| Arc::new(Json))
}

/// An object, an array of objects, or one object a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json;

fn json(_: &mut Section) -> Option<Arc<dyn Format>> {
    Some(Arc::new(Json))
}

impl Format for Json {
    fn split(&self, payload: &Bytes) -> Split {
        split(payload)
    }
}

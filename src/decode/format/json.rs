//! JSON: an object, an array of objects, or one object a line.

use std::sync::Arc;

use bytes::Bytes;

use super::Format;
use crate::decode::{Split, split};
use crate::settings::Section;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct JsonFormat;

/// Reads the section for the table of formats.
pub(super) fn read(_: &mut Section) -> Option<Arc<dyn Format>> {
    Some(Arc::new(JsonFormat))
}

impl Format for JsonFormat {
    fn split(&self, payload: &Bytes) -> Split {
        split(payload)
    }
}

//! JSON: an object, an array of objects, or several objects one after another, on one line or on a line each.

use std::sync::Arc;

use bytes::Bytes;

use super::{Format, is_blank};
use crate::decode::{Split, split};
use crate::settings::Section;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct JsonFormat;

/// Reads the section for the table of formats.
pub(super) fn read(_: &mut Section) -> Option<Arc<dyn Format>> {
    Some(Arc::new(JsonFormat))
}

impl Format for JsonFormat {
    fn split(&self, payload: &Bytes, _: &str) -> Split {
        split(payload)
    }

    fn is_empty(&self, payload: &[u8]) -> bool {
        is_blank(payload)
    }

    fn keeps_bytes(&self) -> bool {
        true
    }
}

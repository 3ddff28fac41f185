//! Bytes: the whole payload is one value, as base64 text.

use std::sync::Arc;

use bytes::Bytes;

use super::{Format, one_value};
use crate::decode::Split;
use crate::settings::Section;
use crate::value::base64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BytesFormat;

/// Reads the section for the table of formats.
pub(super) fn read(_: &mut Section) -> Option<Arc<dyn Format>> {
    Some(Arc::new(BytesFormat))
}

impl Format for BytesFormat {
    fn split(&self, payload: &Bytes, name: &str) -> Split {
        one_value(&base64(payload), name)
    }

    fn is_text(&self) -> bool {
        false
    }
}

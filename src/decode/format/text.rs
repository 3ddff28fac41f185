//! Text: the whole payload is one value.

use std::sync::Arc;

use bytes::Bytes;

use super::{Format, one_value};
use crate::decode::{BadPayload, Split};
use crate::settings::Section;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TextFormat;

/// Reads the section for the table of formats.
pub(super) fn read(_: &mut Section) -> Option<Arc<dyn Format>> {
    Some(Arc::new(TextFormat))
}

impl Format for TextFormat {
    fn split(&self, payload: &Bytes, name: &str) -> Split {
        match std::str::from_utf8(payload) {
            Ok(text) => one_value(text, name),
            Err(error) => Split::bad(BadPayload {
                payload: payload.clone(),
                error: format!(
                    "not UTF-8 text from byte {} on; `format = \"bytes\"` takes anything",
                    error.valid_up_to()
                ),
                position: 0,
            }),
        }
    }
}

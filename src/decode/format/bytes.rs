//! Bytes: the whole payload is one value, as base64 text.

use std::sync::Arc;

use bytes::Bytes;

use super::{Format, one_value};
use crate::decode::Split;
use crate::settings::Section;

/// RFC 4648, section 4.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

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

fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for i in 0..4 {
            let sign = ALPHABET.get((bits >> (18 - 6 * i) & 63) as usize).copied().unwrap_or(b'=');
            // a group of n bytes has n + 1 signs
            text.push(char::from(if i <= group.len() { sign } else { b'=' }));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        // RFC 4648, section 10
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xef, 0xbe]), "/+++");
        assert_eq!(base64(&[0xff, 0xff, 0xff, 0]), "////AA==");
    }
}

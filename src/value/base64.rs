//! Bytes as text of 64 signs: RFC 4648, section 4, with padding.
//!
//! In: bytes, or text. Out: the other. Invariant: what was written is read back to the same bytes, and nothing else is
//! read. Not here: where bytes are written so.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The text of some bytes.
pub fn base64(bytes: &[u8]) -> String {
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

/// The bytes of a text; `None` where [`base64`] would not have written it.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    let signs = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(signs.len() / 4 * 3 + 2);
    for group in signs.chunks(4) {
        let mut bits = 0u32;
        for sign in group {
            let place = ALPHABET.iter().position(|known| known == sign)?;
            bits = bits << 6 | u32::try_from(place).ok()?;
        }
        bits <<= 6 * (4 - group.len());
        let whole = bits.to_be_bytes();
        bytes.extend_from_slice(whole.get(1..group.len())?);
    }
    (base64(&bytes) == text).then_some(bytes)
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
            assert_eq!(from_base64(text).as_deref(), Some(bytes.as_bytes()));
        }
        assert_eq!(base64(&[0xff, 0xef, 0xbe]), "/+++");
        assert_eq!(base64(&[0xff, 0xff, 0xff, 0]), "////AA==");
        for wrong in ["Z", "Zg", "Zg=", "Zh==", "Zg===", "=", "Zm9v Zg==", "Zm9-", "\u{e9}"] {
            assert_eq!(from_base64(wrong), None, "{wrong}");
        }
    }
}

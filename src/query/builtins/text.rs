//! Positions in text: code points counted from 1, as the language counts them.
//!
//! In: text and counts of characters. Out: byte offsets and slices. Invariant: an offset is a character boundary,
//! counts past the end mean the end. Not here: the functions themselves (`string`).

use std::borrow::Cow;

/// Byte offset of character `n`, counted from 0; the length of the text when it is shorter.
pub fn offset(text: &str, n: usize) -> usize {
    if text.is_ascii() {
        return n.min(text.len());
    }
    text.char_indices().nth(n).map_or(text.len(), |(i, _)| i)
}

/// Number of characters.
pub fn count(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.chars().count() }
}

/// At most `length` characters from character `from` on, counted from 0.
pub fn slice(text: &str, from: usize, length: usize) -> &str {
    let rest = text.get(offset(text, from)..).unwrap_or_default();
    rest.get(..offset(rest, length)).unwrap_or_default()
}

/// The place of a byte offset in characters, counted from 1, as a bigint.
pub fn position(text: &str, byte: usize) -> i64 {
    let before = count(text.get(..byte).unwrap_or(text));
    i64::try_from(before).unwrap_or(i64::MAX).saturating_add(1)
}

/// A count that a query gives: negative ones are none.
pub fn length(n: i64) -> usize {
    usize::try_from(n).unwrap_or(if n < 0 { 0 } else { usize::MAX })
}

/// The first characters of a text, for a message.
pub fn excerpt(text: &str) -> Cow<'_, str> {
    const CHARS_MAX: usize = 40;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_code_points_and_the_end_is_soft() {
        assert_eq!(slice("häß😀x", 1, 3), "äß😀");
        assert_eq!(slice("abc", 1, usize::MAX), "bc");
        assert_eq!(slice("abc", 9, 1), "");
        assert_eq!(position("ä1", 2), 2);
        assert_eq!(count("😀"), 1);
        assert_eq!(length(-1), 0);
    }
}

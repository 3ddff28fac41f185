//! The text of a JSON string.
//!
//! In: the string with its quotes, which a JSON reader has found to be one. Out: its text; a copy, of at most the
//! string's length, only where something in it is escaped. Not here: whether it is JSON.

use std::borrow::Cow;

/// `None`: it is no JSON string.
pub fn unescaped(quoted: &[u8]) -> Option<Cow<'_, str>> {
    let inner = std::str::from_utf8(quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?).ok()?;
    let Some((plain, _)) = inner.split_once('\\') else { return Some(Cow::Borrowed(inner)) };
    let mut text = String::with_capacity(inner.len());
    text.push_str(plain);
    let mut rest = inner.get(plain.len()..)?;
    while let Some(escape) = rest.strip_prefix('\\') {
        rest = escape.get(1..)?;
        match escape.as_bytes().first()? {
            b'n' => text.push('\n'),
            b't' => text.push('\t'),
            b'r' => text.push('\r'),
            b'b' => text.push('\u{8}'),
            b'f' => text.push('\u{c}'),
            b'u' => {
                let (first, after) = unit(rest)?;
                rest = after;
                text.push(match first {
                    // two units make a sign past the first 65,536
                    0xd800..=0xdbff => {
                        let (second, after) = unit(rest.strip_prefix("\\u")?)?;
                        rest = after;
                        char::decode_utf16([first, second]).next()?.ok()?
                    }
                    one => char::from_u32(one.into())?,
                });
            }
            sign @ (b'"' | b'\\' | b'/') => text.push(char::from(*sign)),
            _ => return None,
        }
        let plain = rest.split('\\').next().unwrap_or_default();
        text.push_str(plain);
        rest = rest.get(plain.len()..)?;
    }
    Some(Cow::Owned(text))
}

/// Four hexadecimal digits, and what follows.
fn unit(text: &str) -> Option<(u16, &str)> {
    let (digits, rest) = text.split_at_checked(4)?;
    let unit = u16::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?;
    Some((unit, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_are_read_as_json_has_them() {
        for (quoted, text) in [
            (r#""""#, Some("")),
            (r#""plain""#, Some("plain")),
            (r#""a\"b\\c\/d""#, Some("a\"b\\c/d")),
            (r#""\n\t\r\b\f""#, Some("\n\t\r\u{8}\u{c}")),
            (r#""\u00e9\ud83d\ude00x""#, Some("\u{e9}\u{1f600}x")),
            (r#""\ud83dx""#, None),
            (r#""\u+0e9""#, None),
            (r#""\x""#, None),
            (r#""\"#, None),
            ("plain", None),
        ] {
            assert_eq!(unescaped(quoted.as_bytes()).as_deref(), text, "{quoted}");
        }
        assert!(matches!(unescaped(b"\"plain\""), Some(Cow::Borrowed(_))));
    }

    proptest! {
        #[test]
        fn what_serde_writes_is_read_back(text in any::<String>()) {
            let quoted = serde_json::to_string(&text).unwrap();
            let read = unescaped(quoted.as_bytes());
            prop_assert_eq!(read.as_deref(), Some(text.as_str()));
        }
    }
}

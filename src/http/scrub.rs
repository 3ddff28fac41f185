//! Secrets out of what a server says.
//!
//! In: the secrets of a request, and an answer or an error. Out: the same with stars in their places, one a byte, so
//! that JSON stays JSON. Invariant: a secret is found also as JSON, addresses, HTML and base64 write it. One that is
//! shorter than [`SECRET_MIN`] bytes is not looked for: it would be found everywhere. Not here: what a secret is.

use reqwest::Url;

use crate::settings::address::secrets_in;
use crate::value::{base64, from_base64};

/// Bytes from which on a text is a secret.
pub const SECRET_MIN: usize = 8;
/// Slashes before a sign: of JSON in a text of JSON in a text of JSON. A longer run is not looked through at each of
/// its slashes.
const SLASHES_MAX: usize = 7;
/// In base64 that begins anywhere, the signs of a secret alone; fewer would be found by chance.
const CODED_MIN: usize = 8;

/// The secrets that one request sends.
#[derive(Clone, Default)]
pub struct Scrub {
    secrets: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Scrub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scrub").field("secrets", &self.secrets.len()).finish()
    }
}

impl Scrub {
    /// Those that stand in an address.
    pub fn of(url: &Url) -> Scrub {
        let mut scrub = Scrub::default();
        scrub.add_of(url);
        scrub
    }

    /// Adds those that stand in an address.
    pub fn add_of(&mut self, url: &Url) {
        secrets_in(url).iter().for_each(|secret| self.add(secret));
    }

    /// Adds a key, or the value of a header that holds one.
    pub fn add(&mut self, secret: &str) {
        let secret = secret.trim();
        self.put(secret.as_bytes().to_vec());
        // `Bearer KEY`, `Basic BASE64`
        if let Some((_, word)) = secret.split_once(' ') {
            self.put(word.trim().as_bytes().to_vec());
            let pair = from_base64(word.trim()).and_then(|bytes| String::from_utf8(bytes).ok());
            if let Some((_, password)) = pair.as_ref().and_then(|pair| pair.split_once(':')) {
                self.put(password.as_bytes().to_vec());
            }
        }
        if secret.len() >= SECRET_MIN {
            for before in 0..3 {
                let coded = coded(secret.as_bytes(), before);
                if coded.len() >= CODED_MIN {
                    self.put(coded.replace('+', "-").replace('/', "_").into_bytes());
                    self.put(coded.into_bytes());
                }
            }
        }
    }

    /// The same and another secret.
    pub fn with(&self, secret: &str) -> Scrub {
        let mut scrub = self.clone();
        scrub.add(secret);
        scrub
    }

    fn put(&mut self, secret: Vec<u8>) {
        if secret.len() >= SECRET_MIN && !self.secrets.contains(&secret) {
            self.secrets.push(secret);
            // the longer one first, of which another may be the start
            self.secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        }
    }

    /// Puts stars in the places of the secrets.
    pub fn hide(&self, text: &mut [u8]) {
        if self.secrets.is_empty() {
            return;
        }
        let mut begins = [false; 256];
        for byte in self.secrets.iter().filter_map(|secret| secret.first()).chain(br"\%&") {
            if let Some(begins) = begins.get_mut(usize::from(*byte)) {
                *begins = true;
            }
        }
        let mut at = 0;
        while let Some(rest) = text.get_mut(at..).filter(|rest| !rest.is_empty()) {
            let may_begin = rest.first().is_some_and(|byte| begins.get(usize::from(*byte)) == Some(&true));
            let found = may_begin.then(|| self.secrets.iter().find_map(|secret| written(rest, secret))).flatten();
            if let Some(place) = found.and_then(|length| rest.get_mut(..length)) {
                place.fill(b'*');
            }
            at += found.unwrap_or(1);
        }
    }

    /// A text without the secrets.
    pub fn text(&self, text: String) -> String {
        let mut bytes = text.into_bytes();
        self.hide(&mut bytes);
        // a secret is replaced as a whole, so this is UTF-8 as before
        String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }
}

/// The bytes that a secret takes at the start of a text, in any way of writing it.
fn written(text: &[u8], secret: &[u8]) -> Option<usize> {
    let mut at = 0;
    for byte in secret {
        at += sign(text.get(at..)?, *byte)?;
    }
    Some(at)
}

/// The bytes that one byte of a secret takes.
fn sign(text: &[u8], byte: u8) -> Option<usize> {
    if text.first() == Some(&byte) {
        return Some(1);
    }
    let number = |digits: &[u8], radix| u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok();
    let is_it = |code: Option<u32>, length: usize| (code == Some(byte.into())).then_some(length);
    match text {
        // JSON, also JSON in a text of JSON
        [b'\\', ..] => {
            let slashes = text.iter().take(SLASHES_MAX).take_while(|byte| **byte == b'\\').count();
            match text.get(slashes..)? {
                [b'u', rest @ ..] => {
                    is_it(number(rest.get(..4)?, 16), slashes + 5).or_else(|| (byte == b'u').then_some(slashes + 1))
                }
                [same, ..] if *same == byte => Some(slashes + 1),
                _ => None,
            }
        }
        [b'%', rest @ ..] => is_it(number(rest.get(..2)?, 16), 3),
        [b'&', b'#', b'x' | b'X', rest @ ..] => {
            let digits = rest.iter().take(6).position(|byte| *byte == b';')?;
            is_it(number(rest.get(..digits)?, 16), digits + 4)
        }
        [b'&', b'#', rest @ ..] => {
            let digits = rest.iter().take(6).position(|byte| *byte == b';')?;
            is_it(number(rest.get(..digits)?, 10), digits + 3)
        }
        _ => {
            let names: [(u8, &[u8]); 5] =
                [(b'&', b"&amp;"), (b'<', b"&lt;"), (b'>', b"&gt;"), (b'"', b"&quot;"), (b'\'', b"&apos;")];
            let named = |(sign, name): &(u8, &[u8])| *sign == byte && text.starts_with(name);
            names.iter().find(|name| named(name)).map(|(_, name)| name.len())
        }
    }
}

/// What of base64 only the secret decides, where `before` bytes stand before it in its group of three.
fn coded(secret: &[u8], before: usize) -> String {
    let bytes: Vec<u8> = std::iter::repeat_n(0, before).chain(secret.iter().copied()).collect();
    let from = (8 * before).div_ceil(6);
    let to = 8 * bytes.len() / 6;
    base64(&bytes).get(from..to).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "k+Y/9=\"z'&";

    fn scrubbed(text: &str) -> String {
        Scrub::default().with(KEY).text(text.to_owned())
    }

    #[test]
    fn a_secret_is_found_in_every_way_of_writing_it() {
        let json = serde_json::to_string(&format!("key {KEY} end")).unwrap();
        let twice = serde_json::to_string(&json).unwrap();
        for text in [
            format!("key {KEY} end"),
            json,
            twice,
            r#""key k\u002BY\/9\u003d\u0022z\u0027\u0026 end""#.to_owned(),
            "key=k%2BY%2f9%3D%22z%27%26 end".to_owned(),
            "key <b>k+Y/9=&quot;z&#39;&amp;</b> end".to_owned(),
            "key k&#x2B;Y&#47;9=&#34;z&apos;&amp; end".to_owned(),
        ] {
            let shown = scrubbed(&text);
            let told = shown.trim_matches('"');
            assert!(shown.contains("***") && told.contains("key") && told.contains("end"), "{text}: {shown}");
            for part in ["k+Y", "Y/9", "z'", "%2BY", "u002B", "&#x2B;", "quot"] {
                assert!(!shown.contains(part), "{text}: {shown}");
            }
            assert_eq!(shown.len(), text.len());
        }
        for before in ["", "u", "us", "user:", "a long name:"] {
            let text = base64(format!("{before}{KEY}{before}").as_bytes());
            let shown = scrubbed(&format!("Basic {text} end"));
            assert!(shown.contains("********") && shown.ends_with(" end"), "{before}: {shown}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in ["", "k+Y/9", "k\\u002", "k%2", "k&#x2B", "k&#", "\\", "%", "key \u{e9}\u{1f600} %%%\\\\\\ end"] {
            assert_eq!(scrubbed(text), text);
        }
        assert_eq!(Scrub::default().with("abc").text("abcabc".to_owned()), "abcabc", "it is too short");
        assert_eq!(Scrub::default().text("anything".to_owned()), "anything");
    }

    #[test]
    fn parts_of_a_header_and_of_an_address_are_secrets() {
        let header = Scrub::default().with("Basic dXNlcjpwYXNzd29yZA==");
        assert_eq!(header.text("got dXNlcjpwYXNzd29yZA==".to_owned()), "got ********************");
        assert_eq!(header.text("wrong password".to_owned()), "wrong ********");
        let url = Url::parse("https://h/score?code=abc%2Fdef%3D%3D&version=1234").unwrap();
        assert_eq!(Scrub::of(&url).text("abc/def== at 1234".to_owned()), "********* at 1234");
        assert_eq!(Scrub::of(&url).text("?code=abc%2Fdef%3D%3D".to_owned()), "?code=***************");
    }
}

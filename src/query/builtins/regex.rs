//! `REGEXMATCH`: ECMAScript patterns, ignoring letter case.
//!
//! In: text and a pattern. Out: where the first match begins, counted from 1; 0 for none and for a pattern that is not
//! valid, as the page says. Invariant: compiling and matching are bounded; a match that is given up fails the row and
//! is never called "no match". Not here: `LIKE` patterns (`like`).
//!
//! The engine underneath speaks another dialect, so a pattern is translated: what only the other dialect knows is
//! refused or made literal, and `\d`, `\w`, `\b` mean ASCII as they do in ECMAScript.

use std::cell::RefCell;
use std::fmt::Write;

use fancy_regex::{Regex, RegexBuilder};

use super::args::Args;
use super::error::RowError;
use super::memo::Memo;
use super::text::position;
use crate::value::Value;

/// Steps back of one match, about 50 ms; honest patterns take a few hundred.
const BACKTRACKS_MAX: usize = 500_000;

/// Bytes of one compiled pattern.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// Longer patterns are taken as not valid, as PATINDEX does.
const PATTERN_BYTES_MAX: usize = 8000;

/// The largest count in `{n,m}`: a repetition is compiled as that number of copies.
const REPEAT_MAX: u32 = 1000;

/// Patterns kept compiled a thread; with the limit above at most 32 MiB, in practice a few hundred KiB.
const PATTERNS_KEPT: usize = 32;

thread_local! {
    static PATTERNS: RefCell<Memo<Option<Regex>>> = const { RefCell::new(Memo::new(PATTERNS_KEPT)) };
}

/// `REGEXMATCH(s, pattern)`.
pub fn regexmatch(values: &[Value]) -> Result<Value, RowError> {
    let Some(args) = Args::strict("REGEXMATCH", values) else { return Ok(Value::Null) };
    let (text, pattern) = (args.text(0)?, args.text(1)?);
    let compiled = PATTERNS.with_borrow_mut(|memo| memo.get(&pattern, compile));
    let Some(regex) = compiled.as_ref() else { return Ok(Value::BigInt(0)) };
    match regex.find(&text) {
        Ok(found) => Ok(Value::BigInt(found.map_or(0, |m| position(&text, m.start())))),
        Err(_) => {
            Err(args
                .error("too_complex", format!("the pattern takes more than {BACKTRACKS_MAX} steps back on this text")))
        }
    }
}

fn compile(pattern: &str) -> Option<Regex> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return None;
    }
    let translated = Translator::new(pattern).translate()?;
    RegexBuilder::new(&translated)
        .case_insensitive(true)
        .backtrack_limit(BACKTRACKS_MAX)
        .delegate_size_limit(COMPILED_BYTES_MAX)
        .delegate_dfa_size_limit(COMPILED_BYTES_MAX)
        .build()
        .ok()
}

const DIGIT: &str = "0-9";
const WORD: &str = "A-Za-z0-9_";
const BOUNDARY: &str = "(?:(?<=[A-Za-z0-9_])(?![A-Za-z0-9_])|(?<![A-Za-z0-9_])(?=[A-Za-z0-9_]))";
const NO_BOUNDARY: &str = "(?:(?<=[A-Za-z0-9_])(?=[A-Za-z0-9_])|(?<![A-Za-z0-9_])(?![A-Za-z0-9_]))";

/// Rewrites one pattern. Every method gives `None` for what is not valid ECMAScript.
#[derive(Debug)]
struct Translator<'a> {
    rest: &'a str,
    out: String,
}

impl<'a> Translator<'a> {
    fn new(pattern: &'a str) -> Translator<'a> {
        Translator { rest: pattern, out: String::with_capacity(pattern.len() + 16) }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = self.rest.get(c.len_utf8()..)?;
        Some(c)
    }

    fn eat(&mut self, prefix: &str) -> bool {
        self.rest.strip_prefix(prefix).inspect(|rest| self.rest = rest).is_some()
    }

    /// Appends a character that stands for itself, inside a class too.
    fn literal(&mut self, c: char) {
        if c.is_ascii_punctuation() {
            self.out.push('\\');
        }
        self.out.push(c);
    }

    fn translate(mut self) -> Option<String> {
        // whether a quantifier may follow
        let mut repeatable = false;
        while let Some(c) = self.next() {
            repeatable = match c {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' => {
                    self.group()?;
                    false
                }
                '*' | '+' | '?' => {
                    self.quantifier(repeatable, c.encode_utf8(&mut [0; 4]))?;
                    false
                }
                '{' => match self.counts() {
                    Some(counts) => {
                        self.quantifier(repeatable, &counts?)?;
                        false
                    }
                    None => {
                        self.literal('{');
                        true
                    }
                },
                '|' | '^' | '$' => {
                    self.out.push(c);
                    false
                }
                ')' | '.' => {
                    self.out.push(c);
                    true
                }
                c => {
                    self.literal(c);
                    true
                }
            };
        }
        Some(self.out)
    }

    /// A quantifier, lazy when `?` follows. One after another is not valid (elsewhere it would be possessive).
    fn quantifier(&mut self, repeatable: bool, text: &str) -> Option<()> {
        if !repeatable {
            return None;
        }
        self.out.push_str(text);
        if self.eat("?") {
            self.out.push('?');
        }
        Some(())
    }

    /// What follows `{` when it is a count: `n}`, `n,}`, `n,m}`. `None`: a literal brace; `Some(None)`: too large.
    fn counts(&mut self) -> Option<Option<String>> {
        let (body, after) = self.rest.split_once('}')?;
        let (low, high) = body.split_once(',').map_or((body, None), |(low, high)| (low, Some(high)));
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(low) || !high.is_none_or(|h| h.is_empty() || digits(h)) {
            return None;
        }
        self.rest = after;
        let fits = |s: &str| s.parse::<u32>().is_ok_and(|n| n <= REPEAT_MAX);
        let valid = fits(low) && high.is_none_or(|h| h.is_empty() || fits(h));
        Some(valid.then(|| format!("{{{body}}}")))
    }

    fn group(&mut self) -> Option<()> {
        self.out.push('(');
        if !self.eat("?") {
            return Some(());
        }
        for kind in [":", "=", "!", "<=", "<!"] {
            if self.eat(kind) {
                self.out.push('?');
                self.out.push_str(kind);
                return Some(());
            }
        }
        let name = self.eat("<").then(|| self.name())??;
        let _ = write!(self.out, "?<{name}>");
        Some(())
    }

    /// `name>`
    fn name(&mut self) -> Option<&'a str> {
        let (name, after) = self.rest.split_once('>')?;
        let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        self.rest = after;
        valid.then_some(name)
    }

    /// An escape outside a class; whether it can be repeated.
    fn escape(&mut self) -> Option<bool> {
        let c = self.next()?;
        match c {
            'd' => self.set("[", DIGIT),
            'D' => self.set("[^", DIGIT),
            'w' => self.set("[", WORD),
            'W' => self.set("[^", WORD),
            's' | 'S' => {
                self.out.push('\\');
                self.out.push(c);
            }
            'b' | 'B' => {
                self.out.push_str(if c == 'b' { BOUNDARY } else { NO_BOUNDARY });
                return Some(false);
            }
            '1'..='9' => {
                let digits = self.rest.bytes().take_while(u8::is_ascii_digit).count().min(2);
                let (more, after) = self.rest.split_at_checked(digits)?;
                // the group of its own keeps a digit that follows from joining the number
                let _ = write!(self.out, "(?:\\{c}{more})");
                self.rest = after;
            }
            'k' => {
                let name = self.eat("<").then(|| self.name())??;
                let _ = write!(self.out, "\\k<{name}>");
            }
            'p' | 'P' if self.rest.starts_with('{') => self.property(c)?,
            c => {
                let c = self.character(c)?;
                self.literal(c);
            }
        }
        Some(true)
    }

    fn set(&mut self, open: &str, members: &str) {
        let _ = write!(self.out, "{open}{members}]");
    }

    fn property(&mut self, c: char) -> Option<()> {
        let (name, after) = self.rest.strip_prefix('{')?.split_once('}')?;
        let _ = write!(self.out, "\\{c}{{{name}}}");
        self.rest = after;
        Some(())
    }

    /// The character that `\c` names; any other stands for itself.
    fn character(&mut self, c: char) -> Option<char> {
        Some(match c {
            't' => '\t',
            'n' => '\n',
            'r' => '\r',
            'f' => '\u{c}',
            'v' => '\u{b}',
            '0' => '\0',
            'c' => char::from(u8::try_from(self.next().filter(char::is_ascii_alphabetic)?).ok()? & 0x1f),
            'x' => char::from_u32(self.hex(2)?)?,
            'u' if self.eat("{") => {
                let (digits, after) = self.rest.split_once('}')?;
                self.rest = after;
                char::from_u32(u32::from_str_radix(digits, 16).ok()?)?
            }
            'u' => {
                let unit = self.hex(4)?;
                match unit {
                    0xD800..=0xDBFF if self.eat("\\u") => {
                        let low = self.hex(4)?.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
                        char::from_u32(0x10000 + ((unit - 0xD800) << 10) + low)?
                    }
                    _ => char::from_u32(unit)?,
                }
            }
            c => c,
        })
    }

    fn hex(&mut self, digits: usize) -> Option<u32> {
        let (text, after) = self.rest.split_at_checked(digits)?;
        if !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        self.rest = after;
        u32::from_str_radix(text, 16).ok()
    }

    /// A class; brackets, `&&`, `--` and `~~` inside are plain characters in ECMAScript.
    fn class(&mut self) -> Option<bool> {
        let negated = self.eat("^");
        if self.eat("]") {
            // `[]` matches nothing, `[^]` everything
            self.out.push_str(if negated { r"[\s\S]" } else { "(?!)" });
            return Some(true);
        }
        self.out.push_str(if negated { "[^" } else { "[" });
        loop {
            match self.next()? {
                ']' => break,
                '\\' => match self.next()? {
                    'd' => self.out.push_str(DIGIT),
                    'w' => self.out.push_str(WORD),
                    'D' => self.set("[^", DIGIT),
                    'W' => self.set("[^", WORD),
                    c @ ('s' | 'S') => {
                        self.out.push('\\');
                        self.out.push(c);
                    }
                    'b' => self.out.push_str(r"\x08"),
                    c @ ('p' | 'P') if self.rest.starts_with('{') => self.property(c)?,
                    c => {
                        let c = self.character(c)?;
                        self.literal(c);
                    }
                },
                '-' => self.hyphen(),
                c => self.literal(c),
            }
        }
        self.out.push(']');
        Some(true)
    }

    /// A hyphen between two characters makes a range, at an end or beside a set like `\d` it is itself.
    fn hyphen(&mut self) {
        let ends = |part: &str| self.out.strip_suffix(part).is_some_and(|front| !front.ends_with('\\'));
        let at_start = ends("[") || ends("[^");
        let after_set = [DIGIT, WORD, "]", r"\s", r"\S", "}"].into_iter().any(ends);
        let before_set =
            [r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", r"\p", r"\P", "]"].iter().any(|set| self.rest.starts_with(set));
        if at_start || after_set || before_set { self.literal('-') } else { self.out.push('-') }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str, pattern: &str) -> i64 {
        match regexmatch(&[Value::text(text), Value::text(pattern)]) {
            Ok(Value::BigInt(n)) => n,
            other => panic!("{pattern} on {text}: {other:?}"),
        }
    }

    #[test]
    fn the_dialect_is_ecmascript() {
        for (text, pattern, expected) in [
            ("Pump-OVERHEAT", "overheat", 6),
            ("valve-77", r"([0-9])\1", 7),
            ("TAT5", "T(?=[0-9])", 3),
            ("äöx7", r"\d", 4),
            ("٣3", r"\d", 2),
            ("a-b", r"[\w-]b", 2),
            ("a-b", r"[a-]b", 2),
            ("x[y", "[[]", 2),
            ("x]y", r"[\]]", 2),
            ("x", r"[\[-z]", 1),
            ("a&&b", "[&&]", 2),
            ("a{b", "a{b", 1),
            ("a{,2}", "a{,2}", 1),
            ("aaa", "^a{3}$", 1),
            ("x\ny", "^y", 0),
            ("x\ny", "x.y", 0),
            ("x\ny", "x[^]y", 1),
            ("ab", "[]", 0),
            ("a b", r"\bb\b", 3),
            ("Ω", r"\u03a9", 1),
            ("x😀", r"\uD83D\uDE00", 2),
            ("x😀", r"\u{1F600}", 2),
            ("a/b", r"\/", 2),
            ("zA", r"\A", 2),
            ("2024-05-01", r"(?<y>\d{4})-\d\d", 1),
            ("xx", r"(?<c>x)\k<c>", 1),
            ("1a", r"[^\D]a", 1),
            ("x#y z", "# ?y z", 2),
            ("abc", "(b", 0),
            ("abc", "[a-", 0),
            ("abc", "b)", 0),
            ("abc", "*b", 0),
            ("abc", "b++", 0),
            ("abc", "(?i)b", 0),
            ("abc", "(?>b)", 0),
            ("abc", "b{99999}", 0),
            ("abc", r"b\", 0),
            ("", "", 1),
        ] {
            assert_eq!(at(text, pattern), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_runaway_match_fails_the_row() {
        let text = format!("{}b", "a".repeat(60));
        let error = regexmatch(&[Value::text(text), Value::text(r"(a|aa)+(?=c)\1$")]).unwrap_err();
        assert_eq!(error.reason, "too_complex");
        assert!(error.message.starts_with("REGEXMATCH: "), "{error}");
    }

    proptest! {
        #[test]
        fn no_pattern_panics(
            text in ".{0,12}",
            pattern in r"[a-c0-9\[\]\(\)\{\}\\\^\$\.\|\?\*\+\-&,<>:=!dwsbDWSBkpux]{0,16}",
        ) {
            let _ = regexmatch(&[Value::text(text), Value::text(pattern)]);
        }

        #[test]
        fn literal_text_finds_itself(before in "[a-c]{0,5}", text in "[^a-c\\PC]{1,8}") {
            let pattern: String =
                text.chars().flat_map(|c| if c.is_ascii_punctuation() { vec!['\\', c] } else { vec![c] }).collect();
            let found = at(&format!("{before}{text}"), &pattern);
            prop_assert!(found >= 1 && found <= before.len() as i64 + 1);
        }
    }
}

//! `LIKE` and `PATINDEX`: patterns of `%`, `_`, `[set]` and `[^set]`.
//!
//! In: text and a pattern. Out: whether the whole text matches, or where the first match begins. Invariant: the work is
//! bounded by [`STEPS_MAX`] comparisons; past it the row fails and is not called a mismatch. Not here: regular
//! expressions (`regex`).

use std::cell::RefCell;
use std::rc::Rc;

use super::args::Args;
use super::error::RowError;
use super::memo::Memo;
use super::text::{count, position};
use crate::value::Value;

/// The longest pattern; the limit that the page of PATINDEX gives.
const PATTERN_CHARS_MAX: usize = 8000;

/// Comparisons of one match: about a tenth of a second, far past any honest pattern over a payload's field.
const STEPS_MAX: u64 = 50_000_000;

/// Patterns kept compiled a thread: a query has few, columns of patterns come and go.
const PATTERNS_KEPT: usize = 16;

thread_local! {
    static PATTERNS: RefCell<Memo<Result<Vec<PatternToken>, RowError>>> =
        const { RefCell::new(Memo::new(PATTERNS_KEPT)) };
}

#[derive(Clone, Debug, PartialEq)]
enum PatternToken {
    /// `%`
    Any,
    /// `_`
    One,
    Char(char),
    Set {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl PatternToken {
    fn takes(&self, c: char) -> bool {
        match self {
            PatternToken::Any => false,
            PatternToken::One => true,
            PatternToken::Char(own) => *own == c,
            PatternToken::Set { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }
}

/// Whether the whole text matches the pattern; false also for a pattern that [`try_like`] refuses.
pub fn like(text: &str, pattern: &str, escape: Option<char>) -> bool {
    try_like(text, pattern, escape).unwrap_or(false)
}

/// Whether the whole text matches the pattern. Letter case matters; the character after `escape` stands for itself.
///
/// # Errors
/// A pattern of more than 8000 characters (`too_long`), or one that takes too many steps on this text (`too_complex`).
pub fn try_like(text: &str, pattern: &str, escape: Option<char>) -> Result<bool, RowError> {
    let tokens = match escape {
        None => PATTERNS.with_borrow_mut(|memo| memo.get(pattern, |p| tokens(p, None))),
        // rare, so not worth a place in the memory
        Some(_) => Rc::new(tokens(pattern, escape)),
    };
    let tokens = tokens.as_ref().as_ref().map_err(Clone::clone)?;
    Ok(find(text, tokens, true)?.is_some())
}

/// `PATINDEX('%pattern%', s)`: without a `%` that end of the text is meant.
pub fn patindex(values: &[Value]) -> Result<Value, RowError> {
    let Some(args) = Args::strict("PATINDEX", values) else { return Ok(Value::Null) };
    let (pattern, text) = (args.text(0)?, args.text(1)?);
    let tokens = PATTERNS.with_borrow_mut(|memo| memo.get(&pattern, |p| tokens(p, None)));
    let tokens = tokens.as_ref().as_ref().map_err(|e| args.error(e.reason, &e.message))?;
    // the match begins behind a leading `%`
    let open = tokens.iter().take_while(|t| **t == PatternToken::Any).count();
    let core = tokens.get(open..).unwrap_or_default();
    let found = if open > 0 && core.is_empty() { Ok(Some(0)) } else { find(&text, core, open == 0) };
    let found = found.map_err(|e| args.error(e.reason, &e.message))?;
    Ok(Value::BigInt(found.map_or(0, |at| position(&text, at))))
}

fn tokens(pattern: &str, escape: Option<char>) -> Result<Vec<PatternToken>, RowError> {
    if count(pattern) > PATTERN_CHARS_MAX {
        return Err(RowError::new("too_long", format!("the pattern has more than {PATTERN_CHARS_MAX} characters")));
    }
    let mut tokens = Vec::new();
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        let token = match c {
            c if Some(c) == escape => PatternToken::Char(rest.next().unwrap_or(c)),
            '%' if tokens.last() == Some(&PatternToken::Any) => continue,
            '%' => PatternToken::Any,
            '_' => PatternToken::One,
            '[' => match set(rest.as_str()) {
                Some((token, after)) => {
                    rest = after.chars();
                    token
                }
                // a bracket that nothing closes matches nothing, as in T-SQL
                None => PatternToken::Set { negated: false, ranges: Vec::new() },
            },
            c => PatternToken::Char(c),
        };
        tokens.push(token);
    }
    Ok(tokens)
}

/// Reads `a-z]`, what follows an opening bracket; `None` when no bracket closes it.
fn set(text: &str) -> Option<(PatternToken, &str)> {
    let (body, after) = text.split_once(']')?;
    let (negated, body) = body.strip_prefix('^').map_or((false, body), |b| (true, b));
    let chars: Vec<char> = body.chars().collect();
    let mut ranges = Vec::new();
    let mut left = chars.as_slice();
    loop {
        left = match left {
            [low, '-', high, rest @ ..] => {
                ranges.push((*low, *high));
                rest
            }
            [c, rest @ ..] => {
                ranges.push((*c, *c));
                rest
            }
            [] => return Some((PatternToken::Set { negated, ranges }, after)),
        };
    }
}

/// Byte offset where a match begins that reaches the end of the text; only the start is tried when `from_start`.
///
/// Behind a `%` the earliest match of what comes next is as good as any later one, so only the last `%` is ever tried
/// again.
fn find(text: &str, tokens: &[PatternToken], from_start: bool) -> Result<Option<usize>, RowError> {
    let mut steps = STEPS_MAX;
    let mut start = 0;
    loop {
        let rest = text.get(start..).unwrap_or_default();
        if matches_at(rest, tokens, &mut steps)? {
            return Ok(Some(start));
        }
        match rest.chars().next() {
            Some(c) if !from_start => start += c.len_utf8(),
            _ => return Ok(None),
        }
    }
}

fn matches_at(text: &str, tokens: &[PatternToken], steps: &mut u64) -> Result<bool, RowError> {
    let mut at = text.chars();
    let mut token = 0;
    // where to go on when the tokens behind the last `%` fail: one character later
    let mut retry: Option<(std::str::Chars<'_>, usize)> = None;
    loop {
        *steps = steps.checked_sub(1).ok_or_else(|| {
            RowError::new("too_complex", format!("the pattern takes more than {STEPS_MAX} steps on this text"))
        })?;
        match tokens.get(token) {
            Some(PatternToken::Any) => {
                token += 1;
                if token == tokens.len() {
                    return Ok(true);
                }
                retry = Some((at.clone(), token));
                continue;
            }
            Some(t) => {
                let taken = at.next().is_some_and(|c| t.takes(c));
                if taken {
                    token += 1;
                    continue;
                }
            }
            None if at.as_str().is_empty() => return Ok(true),
            None => {}
        }
        let Some((from, first)) = &mut retry else { return Ok(false) };
        if from.next().is_none() {
            return Ok(false);
        }
        at = from.clone();
        token = *first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_cover_the_whole_text() {
        for (text, pattern, expected) in [
            ("EX77-B-9", "EX%-9", true),
            ("EX77-B-98", "EX%-9", false),
            ("AEX-9", "EX%-9", false),
            ("RA7", "R_7", true),
            ("RAB7", "R_7", false),
            ("a.b(1)", "a.b(%", true),
            ("axb(1)", "a.b(%", false),
            ("", "%", true),
            ("", "", true),
            ("a", "", false),
            ("b7", "[a-c][0-9]", true),
            ("d7", "[^a-c]7", true),
            ("-", "[a-]", true),
            ("50%", "50[%]", true),
            ("50x", "50[%]", false),
            ("[a", "[a", false),
            ("Abc", "abc", false),
            ("äöü", "_ö_", true),
            ("aXbXc", "a%b%c", true),
            ("aab", "%ab", true),
        ] {
            assert_eq!(like(text, pattern, None), expected, "{text} LIKE {pattern}");
        }
        assert!(like("50%", "50!%", Some('!')));
        assert!(!like("50x", "50!%", Some('!')));
        assert!(like("a[b", "a![b", Some('!')));
    }

    #[test]
    fn patindex_pins_the_ends_that_have_no_percent() {
        let call = |p: &str, s: &str| patindex(&[Value::text(p), Value::text(s)]).unwrap();
        assert_eq!(call("%err%", "no err at all err"), Value::BigInt(4));
        assert_eq!(call("err%", "an err"), Value::BigInt(0));
        assert_eq!(call("%err", "err err"), Value::BigInt(5));
        assert_eq!(call("%[0-9]_%", "äb7x"), Value::BigInt(3));
        assert_eq!(call("%", "abc"), Value::BigInt(1));
        assert_eq!(call("abc", "abc"), Value::BigInt(1));
    }

    #[test]
    fn a_runaway_pattern_is_an_error_and_no_mismatch() {
        let text = "a".repeat(100_000);
        let pattern = format!("%{}b%", "a_".repeat(3000));
        assert_eq!(try_like(&text, &pattern, None).unwrap_err().reason, "too_complex");
        assert!(!like(&text, &pattern, None));
        assert_eq!(try_like("a", &"a".repeat(8001), None).unwrap_err().reason, "too_long");
        let error = patindex(&[Value::text(pattern), Value::text(text)]).unwrap_err();
        assert!(error.message.starts_with("PATINDEX: "), "{error}");
    }

    /// The plain definition, exponential but obviously right.
    fn by_definition(text: &[char], tokens: &[PatternToken]) -> bool {
        match (tokens, text) {
            ([], _) => text.is_empty(),
            ([PatternToken::Any, rest @ ..], _) => (0..=text.len()).any(|i| by_definition(&text[i..], rest)),
            ([t, rest @ ..], [c, text @ ..]) => t.takes(*c) && by_definition(text, rest),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(text in "[ab]{0,8}", pattern in "[ab%_]{0,6}") {
            let chars: Vec<char> = text.chars().collect();
            prop_assert_eq!(like(&text, &pattern, None), by_definition(&chars, &tokens(&pattern, None).unwrap()));
        }
    }
}

//! The text of a statement without comments and with blanks folded.
//!
//! In: the script's text. Out: one line per step used and one for the statement. Invariant: text that differs only in
//! comments and blanks gives equal fingerprints; quoted text is kept as it is. Not here: syntax errors.

use crate::query::ast::{Script, Select};

/// The text of the steps in use and of the statement.
pub(super) fn of(text: &str, script: &Script, used: &[bool], select: &Select) -> String {
    let mut out = String::new();
    for (step, _) in script.steps.iter().zip(used).filter(|(_, used)| **used) {
        out.push_str(&step.name.name);
        out.push_str(" AS ");
        out.push_str(&folded(text.get(step.body.span.start..step.body.span.end).unwrap_or_default()));
        out.push('\n');
    }
    out.push_str(&folded(text.get(select.span.start..select.span.end).unwrap_or_default()));
    out
}

/// Comments become a blank, runs of blanks one blank, none at the ends.
pub(super) fn folded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut blank = false;
    while let Some(c) = rest.chars().next() {
        let taken = if rest.starts_with("--") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment_length(rest)
        } else {
            0
        };
        if taken > 0 || c.is_whitespace() {
            blank = true;
            rest = rest.get(taken.max(c.len_utf8())..).unwrap_or_default();
            continue;
        }
        if blank && !out.is_empty() {
            out.push(' ');
        }
        blank = false;
        let length = match c {
            '\'' | '"' => quoted_length(rest, c),
            '[' => quoted_length(rest, ']'),
            _ => c.len_utf8(),
        };
        let (token, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        out.push_str(token);
        rest = after;
    }
    // a statement keeps its identity with or without the semicolon
    out.trim_end_matches([';', ' ']).to_owned()
}

/// Bytes of a block comment, which may hold others; all the rest when it does not end.
fn comment_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0usize);
    while let Some(pair) = bytes.get(at..at + 2) {
        match pair {
            b"/*" => (at, depth) = (at + 2, depth + 1),
            b"*/" => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// Bytes of a quoted token with its quotes; a doubled closing quote stands for itself, and reads here as two tokens.
fn quoted_length(text: &str, close: char) -> usize {
    text.char_indices().skip(1).find(|(_, c)| *c == close).map_or(text.len(), |(i, c)| i + c.len_utf8())
}

#[cfg(test)]
mod tests {
    use super::folded;

    #[test]
    fn comments_and_blanks_do_not_matter_and_quotes_do() {
        for (text, expected) in [
            ("SELECT  a -- x\n , b\n/* y /* z */ */FROM i ;", "SELECT a , b FROM i"),
            ("SELECT 'a  -- b' FROM [my  i]", "SELECT 'a  -- b' FROM [my  i]"),
            ("SELECT 'it''s  --' , \"x /* \"", "SELECT 'it''s  --' , \"x /* \""),
            ("a /* open", "a"),
            ("'open", "'open"),
            ("", ""),
        ] {
            assert_eq!(folded(text), expected, "{text}");
        }
    }
}

//! The wording of syntax errors that are raised in more than one place.

use crate::diagnostic::{Diagnostic, Span};
use crate::query::token::{Bad, Kind};

pub(super) type Error = Box<Diagnostic>;

/// Characters of a token that an error repeats.
const SHOWN_MAX: usize = 40;

pub(super) fn error(title: impl Into<String>, span: Span, label: impl Into<String>) -> Diagnostic {
    Diagnostic::error(title, span).label(label)
}

/// A token's text as an error repeats it.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((cut, _)) => format!("`{}…`", text.get(..cut).unwrap_or_default()),
        None => format!("`{text}`"),
    }
}

pub(super) fn unexpected(kind: Kind, text: &str, span: Span, expected: &str) -> Error {
    let title = match kind {
        Kind::End => "the query ends too early".to_string(),
        _ => format!("unexpected {}", shown(text)),
    };
    Box::new(error(title, span, format!("expected {expected}")))
}

pub(super) fn misspelt(written: &str, span: Span, meant: &str) -> Error {
    Box::new(error(format!("unexpected {}", shown(written)), span, format!("did you mean `{meant}`?")))
}

pub(super) fn reserved(what: &str, word: &str, span: Span) -> Error {
    Box::new(
        error(format!("unexpected `{word}`"), span, format!("expected {what}"))
            .help(format!("`{word}` is a reserved word; as a name it is written `[{word}]`")),
    )
}

pub(super) fn bad(bad: Bad, text: &str, span: Span) -> Error {
    let (title, label, help) = match bad {
        Bad::OpenText => (
            "a text is not closed".into(),
            "opened here",
            "close it with `'`; a quote inside a text is doubled: `'it''s'`",
        ),
        Bad::OpenBracket => (
            "a name in brackets is not closed".into(),
            "opened here",
            "close it with `]`; a `]` inside a name is doubled",
        ),
        Bad::OpenQuote => ("a double quote is not closed".into(), "opened here", "close it with `\"`"),
        Bad::OpenComment => ("a comment is not closed".into(), "opened here", "close it with `*/`; comments nest"),
        Bad::EmptyName => {
            ("a name is empty".into(), "expected a name between the quotes", "an empty text is written `''`")
        }
        Bad::Number => (
            format!("{} is no number", shown(text)),
            "digits run into letters",
            "write numbers like `12`, `1.5` or `1e3`; units are arguments of their own: `TumblingWindow(second, 10)`",
        ),
        Bad::Doubled => match text {
            "==" => ("`==` is no operator".into(), "expected `=`", "equality is written `=`"),
            "&&" => ("`&&` is no operator".into(), "expected `AND`", "write `AND`; `&` works on bits"),
            _ => ("`||` is no operator".into(), "expected `OR`", "write `OR`; texts are joined with `+` or CONCAT"),
        },
        Bad::Character => (
            format!("unexpected {}", shown(text)),
            "no part of the language",
            match text {
                "@" => "the language has no variables; write the value itself",
                "`" => "names are quoted with brackets: `[name]`",
                "#" => "a comment starts with `--`",
                "{" | "}" => "lists and records come from data or from functions",
                "]" => "a name in brackets is written `[name]`",
                "!" => "write `NOT` to negate, `<>` or `!=` for unequal",
                _ => "texts stand in single quotes, names in brackets",
            },
        ),
    };
    Box::new(error(title, span, label).help(help))
}

pub(super) fn subquery(span: Span) -> Error {
    Box::new(
        error("subqueries are not in the language", span, "a SELECT cannot stand here")
            .help("name it as a step, `WITH step AS (SELECT …)`, and use or join the step"),
    )
}

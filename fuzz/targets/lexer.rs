//! Any text becomes tokens that lie in it, in order, without cutting a character.

#![no_main]

use forebay::query::lexer::lex;
use forebay::query::token::{Kind, unquoted};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let tokens = lex(text);
    let mut end = 0;
    for token in &tokens {
        let span = token.span;
        assert!(end <= span.start && span.start <= span.end, "{token:?} begins before the one before it ends ({end})");
        let part = text.get(span.start..span.end).expect("a token is a part of the text");
        if matches!(token.kind, Kind::Bracketed | Kind::DoubleQuoted | Kind::Text) {
            unquoted(part);
        }
        end = span.end;
    }
    assert_eq!(tokens.last().map(|t| t.kind), Some(Kind::End));
    assert_eq!(tokens.iter().filter(|t| t.kind == Kind::End).count(), 1);
});

//! Reads the tokens of a script into its syntax tree.
//!
//! In: any text. Out: a [`Script`], or the first syntax error of each statement. Invariant: never panics, takes time in
//! proportion to the text, and gives no tree deeper than [`HEIGHT_MAX`], so that later stages may recurse. Not here:
//! what the names mean (`resolve`). The grammar is in `docs/grammar.md`.

mod call;
mod clause;
mod cursor;
mod endpoint_join;
mod error;
mod expr;
mod from;
mod literal;
mod match_recognize;
mod statement;
#[cfg(test)]
mod tests;

use super::ast::Script;
use super::lexer::lex;
use super::token::{Kind, Token};
use crate::diagnostic::{Diagnostic, Diagnostics};

/// Parentheses, calls, CASE and prefix operators inside each other. No person writes more, and each level costs stack.
const NESTING_MAX: usize = 64;

/// Calls of the expression parser inside each other: two for a level of plain nesting, and room for mixed operators. A
/// build without optimisation then needs less than half of a thread's 2 MiB.
const RECURSION_MAX: usize = 2 * NESTING_MAX + 16;

/// Levels of an expression's tree. Chains of AND and of OR are balanced, so only very long arithmetic reaches it.
const HEIGHT_MAX: usize = 128;

/// Errors shown of one script: more come from a text that is no query.
const ERRORS_MAX: usize = 20;

/// Boxed: a diagnostic is large beside the trees it stands for.
type Parsed<T> = Result<T, Box<Diagnostic>>;

/// Reads a script. `file` is the name shown in errors.
///
/// # Errors
/// The first syntax error of each statement, in the order of the text.
pub fn parse(text: &str, file: &str) -> Result<Script, Diagnostics> {
    let mut errors = Diagnostics::new(file, text);
    let script = Parser::new(text).script(&mut errors);
    errors.into_result(script)
}

struct Parser<'a> {
    text: &'a str,
    /// Never empty: the last one is [`Kind::End`], which is never passed.
    tokens: Vec<Token>,
    at: usize,
    nesting: usize,
    recursion: usize,
    in_step: bool,
    /// Index of the last word that was taken for an alias without AS: the likeliest misspelt keyword.
    loose_alias: Option<usize>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Parser<'a> {
        Parser { text, tokens: lex(text), at: 0, nesting: 0, recursion: 0, in_step: false, loose_alias: None }
    }

    fn script(&mut self, errors: &mut Diagnostics) -> Script {
        let mut script = Script::default();
        loop {
            while self.take_kind(Kind::Semicolon) {}
            if self.peek().kind == Kind::End {
                break;
            }
            let start = self.at;
            let Err(mut error) = self.statement(&mut script) else { continue };
            let is_last = errors.items.len() + 1 >= ERRORS_MAX;
            if is_last {
                *error = error.note(format!("only the first {ERRORS_MAX} errors are shown"));
            }
            errors.push(*error);
            if is_last {
                break;
            }
            self.recover(start);
        }
        if errors.is_empty() && script.statements.is_empty() {
            errors.push(*self.no_select());
        }
        script
    }

    /// Goes on to where the next statement may start.
    fn recover(&mut self, start: usize) {
        (self.nesting, self.recursion, self.in_step) = (0, 0, false);
        if self.at == start {
            self.bump();
        }
        while !matches!(self.peek().kind, Kind::Semicolon | Kind::End) && !self.starts_statement() {
            self.bump();
        }
    }
}

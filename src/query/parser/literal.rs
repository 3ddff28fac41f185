//! Numbers, double quotes, names of types.

use smol_str::SmolStr;

use super::error::{Error, error, shown};
use super::expr::Tree;
use super::{Parsed, Parser};
use crate::diagnostic::{Span, suggest};
use crate::query::ast::{ExprKind, Ident, Literal};
use crate::query::lexer::lex;
use crate::query::token::{Kind, Sign, Token, unquoted};
use crate::value::Type;

/// The types as a query writes them; `nvarchar` is followed by `(max)`.
const TYPES: [(&str, Type); 7] = [
    ("bigint", Type::BigInt),
    ("float", Type::Float),
    ("nvarchar", Type::Text),
    ("datetime", Type::DateTime),
    ("bit", Type::Bit),
    ("record", Type::Record),
    ("array", Type::Array),
];

/// Types of other SQL dialects, and what they are here.
const OTHER_TYPES: &[(&[&str], &str)] = &[
    (&["int", "integer", "smallint", "tinyint", "long", "number"], "bigint"),
    (&["real", "double", "decimal", "numeric", "money"], "float"),
    (&["varchar", "char", "nchar", "text", "ntext", "string", "uniqueidentifier"], "nvarchar(max)"),
    (&["datetime2", "date", "time", "timestamp", "datetimeoffset", "smalldatetime"], "datetime"),
    (&["bool", "boolean"], "bit"),
    (&["json", "object", "struct", "map"], "record"),
    (&["list"], "array"),
];

impl Parser<'_> {
    /// A number, a text or NULL.
    pub(super) fn literal(&mut self) -> Parsed<Tree> {
        let token = self.peek();
        let literal = match token.kind {
            Kind::Number => self.number()?,
            Kind::Text => Literal::Text(self.bump_ident().name),
            _ => {
                self.bump();
                Literal::Null
            }
        };
        self.grown(ExprKind::Literal(literal), token.span, 0)
    }

    /// A number: whole ones are bigint, those with a point or an exponent float.
    fn number(&mut self) -> Parsed<Literal> {
        let token = self.bump();
        let text = self.text_of(token);
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Literal::BigInt).map_err(|_| {
                let error =
                    error(format!("{} does not fit a bigint", shown(text)), token.span, "at most 9223372036854775807");
                Box::new(error.help("write it as a float: with a point"))
            });
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Literal::Float(number)),
            _ => Err(Box::new(error(
                format!("{} does not fit a float", shown(text)),
                token.span,
                "at most about 1.8e308",
            ))),
        }
    }

    /// `"[a][b]"` is a path, any other double quote where a value is due a text. The documents use both.
    pub(super) fn double_quoted(&mut self) -> Parsed<Tree> {
        let token = self.peek();
        let text = unquoted(self.text_of(token));
        if !text.starts_with('[') {
            self.bump();
            return self.grown(ExprKind::Literal(Literal::Text(SmolStr::new(text))), token.span, 0);
        }
        self.named()
    }

    /// The parts of `"[a][b]"` or `"[a].[b]"`; a quoted name that is no such path is one part.
    pub(super) fn path_in_quotes(&self, token: Token) -> Parsed<Vec<Ident>> {
        let text = unquoted(self.text_of(token));
        let mut parts = Vec::new();
        for part in lex(&text) {
            match part.kind {
                Kind::Bracketed => {
                    let name = unquoted(text.get(part.span.start..part.span.end).unwrap_or_default());
                    parts.push(Ident { name: SmolStr::new(name), span: token.span, quoted: true });
                }
                Kind::Sign(Sign::Dot) | Kind::End => {}
                _ => {
                    let error = error(
                        "a path in double quotes has names in brackets only",
                        token.span,
                        "expected `\"[a][b]\"`",
                    );
                    return Err(Box::new(error.help("a text stands in single quotes: `'[a]'`")));
                }
            }
        }
        Ok(parts)
    }

    /// The name of a type, as CAST and CREATE TABLE take it.
    pub(super) fn type_name(&mut self) -> Parsed<Type> {
        let token = self.peek();
        if token.kind != Kind::Word {
            return Err(self.unexpected("a type", &[]));
        }
        let name = self.text_of(token);
        let Some((_, ty)) = TYPES.iter().find(|(word, _)| word.eq_ignore_ascii_case(name)) else {
            return Err(unknown_type(name, token.span));
        };
        self.bump();
        if *ty == Type::Text {
            let is_max = self.at_sign(Sign::Open) && self.is_word(1, "max") && self.is_sign(2, Sign::Close);
            if !is_max {
                let end = if self.is_sign(2, Sign::Close) { self.peek_at(2).span } else { token.span };
                let error = error("only nvarchar(max) exists", token.span.to(end), "expected `nvarchar(max)`");
                return Err(Box::new(error.help("write `nvarchar(max)`; `LEFT(text, n)` shortens a text")));
            }
            self.at += 3;
        }
        Ok(*ty)
    }
}

fn unknown_type(name: &str, span: Span) -> Error {
    let error = error(format!("{} is no type of the language", shown(name)), span, "expected a type");
    let other = OTHER_TYPES.iter().find(|(words, _)| words.iter().any(|word| word.eq_ignore_ascii_case(name)));
    let meant = other.map(|(_, ty)| *ty).or_else(|| suggest(name, TYPES.iter().map(|(word, _)| *word)));
    let meant = if meant == Some("nvarchar") { Some("nvarchar(max)") } else { meant };
    Box::new(match meant {
        Some(ty) => error.help(format!("write `{ty}`")),
        None => error.help("the types are bigint, float, nvarchar(max), datetime, bit, record and array"),
    })
}

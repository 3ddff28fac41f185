//! FROM: inputs and steps with their time and keys, joins, APPLY.

use super::error::{Error, error, shown, subquery};
use super::{Parsed, Parser};
use crate::diagnostic::{Span, suggest};
use crate::query::ast::{ApplyFunction, Expr, From, FromSource, Ident, Join};
use crate::query::token::{Kind, Sign};

/// The functions that APPLY takes; `GetElements` is the older name of `GetArrayElements`.
const APPLIED: [(&str, ApplyFunction); 3] = [
    ("GetArrayElements", ApplyFunction::GetArrayElements),
    ("GetElements", ApplyFunction::GetArrayElements),
    ("GetRecordProperties", ApplyFunction::GetRecordProperties),
];

impl Parser<'_> {
    pub(super) fn from(&mut self) -> Parsed<From> {
        let first = self.source()?;
        let mut joins = Vec::new();
        while let Some(join) = self.join()? {
            joins.push(join);
        }
        if self.at_sign(Sign::Comma) {
            let error = error("FROM names one input", self.peek().span, "inputs are not listed with commas");
            return Err(Box::new(
                error.help("write `JOIN other ON … AND DATEDIFF(second, a, b) BETWEEN 0 AND 10`, or `UNION`"),
            ));
        }
        Ok(From { first, joins })
    }

    fn source(&mut self) -> Parsed<FromSource> {
        if self.at_sign(Sign::Open) {
            let span = self.peek().span;
            return Err(if self.is_word(1, "SELECT") {
                subquery(span)
            } else {
                self.unexpected("the name of an input or a step", &[])
            });
        }
        let name = self.name("the name of an input or a step")?;
        self.refuse_longer_name("an input")?;
        let mut alias = self.source_alias()?;
        let (mut timestamp_by, mut over, mut partition_by) = (None, Vec::new(), Vec::new());
        // both orders occur in the documents
        loop {
            if timestamp_by.is_none() && self.at_words(&["TIMESTAMP", "BY"]) {
                (timestamp_by, over) = self.timestamp_by()?;
            } else if partition_by.is_empty() && self.at_words(&["PARTITION", "BY"]) {
                partition_by = self.partition_by()?;
            } else {
                break;
            }
        }
        let mut matched = None;
        if self.at_word("MATCH_RECOGNIZE") {
            matched = Some(Box::new(self.match_recognize()?));
            // the name of the matches; without one they go by that of the rows
            alias = self.source_alias()?.or(alias);
        }
        let span = self.span_from(name.span);
        Ok(FromSource { name, alias, timestamp_by, over, partition_by, matched, span })
    }

    // `expression [OVER key, …]`
    fn timestamp_by(&mut self) -> Parsed<(Option<Expr>, Vec<Expr>)> {
        self.take_words(&["TIMESTAMP", "BY"]);
        let time = self.expr()?;
        let over = if self.take_word("OVER") { self.list(Self::expr)? } else { Vec::new() };
        Ok((Some(time), over))
    }

    // `AS name`, or a bare name that starts no clause
    fn source_alias(&mut self) -> Parsed<Option<Ident>> {
        if self.take_word("AS") {
            return self.name("another name for the input").map(Some);
        }
        let starts_clause = ["TIMESTAMP", "PARTITION"].iter().any(|word| self.at_words(&[word, "BY"]))
            || (self.at_word("MATCH_RECOGNIZE") && self.is_sign(1, Sign::Open))
            || (["EXCEPT", "INTERSECT", "MINUS"].iter().any(|word| self.at_words(&[word, "SELECT"])))
            || (["LIMIT", "OFFSET", "FETCH"].iter().any(|word| self.at_word(word))
                && self.peek_at(1).kind == Kind::Number);
        if !self.at_name() || starts_clause {
            return Ok(None);
        }
        self.loose_alias = Some(self.at);
        Ok(Some(self.bump_ident()))
    }

    fn join(&mut self) -> Parsed<Option<Join>> {
        let start = self.peek().span;
        for (words, left_outer) in [
            (&["JOIN"][..], false),
            (&["INNER", "JOIN"], false),
            (&["LEFT", "JOIN"], true),
            (&["LEFT", "OUTER", "JOIN"], true),
        ] {
            if self.take_words(words) {
                return self.join_table(start, left_outer).map(Some);
            }
        }
        for (words, outer) in [(["CROSS", "APPLY"], false), (["OUTER", "APPLY"], true)] {
            if self.take_words(&words) {
                return self.apply(start, outer).map(Some);
            }
        }
        for word in ["RIGHT", "FULL", "CROSS"] {
            if self.at_word(word) && ["JOIN", "OUTER"].iter().any(|next| self.is_word(1, next)) {
                return Err(refused_join(word, start.to(self.peek_at(1).span)));
            }
        }
        let begun = [
            ("INNER", "`JOIN` after `INNER`"),
            ("LEFT", "`JOIN` after `LEFT`"),
            ("CROSS", "`APPLY` after `CROSS`"),
            ("OUTER", "`APPLY` after `OUTER`"),
        ];
        for (word, expected) in begun {
            if self.take_word(word) {
                return Err(self.unexpected(expected, &["JOIN", "APPLY"]));
            }
        }
        Ok(None)
    }

    fn join_table(&mut self, start: Span, left_outer: bool) -> Parsed<Join> {
        let source = self.source()?;
        if self.at_endpoint_join() {
            return Err(self.endpoint_join(&source.name));
        }
        if !self.take_word("ON") {
            let expected = self.unexpected("`ON` and the condition of the join", &["ON"]);
            return Err(Box::new(expected.help(
                "two streams are joined within a time: `ON a.id = b.id AND DATEDIFF(second, a, b) BETWEEN 0 AND 10`",
            )));
        }
        let on = self.expr()?;
        Ok(Join::Table { left_outer, source, on, span: self.span_from(start) })
    }

    // `GetArrayElements(expression) [AS] name`
    fn apply(&mut self, start: Span, outer: bool) -> Parsed<Join> {
        let name = self.name("`GetArrayElements` or `GetRecordProperties`")?;
        let Some((_, function)) = APPLIED.iter().find(|(applied, _)| applied.eq_ignore_ascii_case(&name.name)) else {
            return Err(no_apply_function(&name));
        };
        self.expect_open(&name.name)?;
        let argument = self.expr()?;
        self.expect_sign(Sign::Close, "`)`: one argument")?;
        self.take_word("AS");
        if !self.at_name() {
            let error = self.unexpected("a name for what APPLY gives", &[]);
            return Err(Box::new(error.help(format!("write `APPLY {}(…) AS element`", name.name))));
        }
        let alias = self.bump_ident();
        Ok(Join::Apply { outer, function: *function, argument, alias, span: self.span_from(start) })
    }
}

fn refused_join(word: &str, span: Span) -> Error {
    let help = match word {
        "RIGHT" => "swap the two inputs and write `LEFT JOIN`",
        "FULL" => "write a `LEFT JOIN` each way and combine them with `UNION`",
        _ => "write `JOIN … ON` with a condition",
    };
    Box::new(error(format!("{word} JOIN is not in the language"), span, "expected `JOIN` or `LEFT JOIN`").help(help))
}

fn no_apply_function(name: &Ident) -> Error {
    let error = error(
        format!("APPLY cannot take {}", shown(&name.name)),
        name.span,
        "expected `GetArrayElements` or `GetRecordProperties`",
    );
    let meant = suggest(&name.name, APPLIED.iter().map(|(applied, _)| *applied));
    Box::new(match meant {
        Some(meant) => error.help(format!("did you mean `{meant}`?")),
        None => error.help("other functions are called in the SELECT list or in WHERE"),
    })
}

//! One SELECT: its list, INTO, FROM, WHERE, GROUP BY, HAVING.

use super::error::{Error, error, shown};
use super::{Parsed, Parser};
use crate::query::ast::{Expr, Ident, SelectCore, SelectItem};
use crate::query::token::{Kind, Sign};

impl Parser<'_> {
    /// `into` gets the output's name.
    pub(super) fn core(&mut self, into: &mut Option<Ident>) -> Parsed<SelectCore> {
        let start = self.peek().span;
        self.expect_word("SELECT")?;
        self.refuse_quantifier()?;
        let items = self.list(Self::item)?;
        if self.at_word("INTO") {
            *into = Some(self.into()?);
        }
        let partition_by = self.partition_by()?;
        if !self.take_word("FROM") {
            return Err(self.no_from());
        }
        let from = self.from()?;
        let where_ = if self.take_word("WHERE") { Some(self.expr()?) } else { None };
        let group_by = if self.take_word("GROUP") {
            self.expect_word("BY")?;
            self.list(Self::expr)?
        } else {
            Vec::new()
        };
        let having = if self.take_word("HAVING") { Some(self.expr()?) } else { None };
        Ok(SelectCore { items, from, where_, group_by, having, partition_by, span: self.span_from(start) })
    }

    /// DISTINCT and TOP, which other SQL has here.
    fn refuse_quantifier(&self) -> Parsed<()> {
        let span = self.peek().span;
        if self.at_word("DISTINCT") {
            let error = error("SELECT DISTINCT is not in the language", span, "a stream has no end to compare with");
            return Err(Box::new(
                error.help("group by the columns and a window: `GROUP BY a, b, TumblingWindow(second, 10)`"),
            ));
        }
        let counts = self.peek_at(1).kind == Kind::Number
            || (self.is_sign(1, Sign::Open) && self.peek_at(2).kind == Kind::Number);
        if self.at_word("TOP") && counts {
            let error = error("SELECT TOP is not in the language", span, "a stream has no end to count to");
            return Err(Box::new(error.help(
                "write `TopOne() OVER (ORDER BY …)` or `CollectTop(n) OVER (ORDER BY …)` and group by a window",
            )));
        }
        Ok(())
    }

    fn item(&mut self) -> Parsed<SelectItem> {
        let start = self.peek().span;
        if self.take_sign(Sign::Star) {
            return Ok(SelectItem::Star { span: start });
        }
        if let Some(parts) = self.path_star() {
            let mut path = Vec::with_capacity(parts);
            for _ in 0..parts {
                path.push(self.bump_ident());
                self.bump();
            }
            self.bump();
            return Ok(SelectItem::PathStar { path, span: self.span_from(start) });
        }
        if self.at_name() && self.peek().kind != Kind::DoubleQuoted && self.is_sign(1, Sign::Equal) {
            let alias = self.bump_ident();
            self.bump();
            let expr = self.expr()?;
            if self.at_word("AS") {
                let error = error(
                    "a column has two names",
                    self.peek().span,
                    format!("it is already called {}", shown(&alias.name)),
                );
                return Err(Box::new(
                    error.help(
                        "`name = expression` gives a name; a comparison goes into parentheses: `(a = b) AS same`",
                    ),
                ));
            }
            return Ok(SelectItem::Expr { expr, alias: Some(alias), span: self.span_from(start) });
        }
        let expr = self.expr()?;
        let alias = self.item_alias()?;
        Ok(SelectItem::Expr { expr, alias, span: self.span_from(start) })
    }

    /// Number of names before the star when `a.b.*` comes next.
    fn path_star(&self) -> Option<usize> {
        if !self.at_name() {
            return None;
        }
        let mut parts = 1;
        loop {
            if !self.is_sign(2 * parts - 1, Sign::Dot) {
                return None;
            }
            match self.peek_at(2 * parts).kind {
                Kind::Sign(Sign::Star) => return Some(parts),
                Kind::Word | Kind::Bracketed | Kind::DoubleQuoted => parts += 1,
                _ => return None,
            }
        }
    }

    // `AS name`, `AS 'name'` or a bare name
    fn item_alias(&mut self) -> Parsed<Option<Ident>> {
        if self.take_word("AS") {
            return match self.peek().kind {
                Kind::Text => Ok(Some(self.bump_ident())),
                _ => self.name("the name of the column").map(Some),
            };
        }
        if !self.at_name() {
            return Ok(None);
        }
        self.loose_alias = Some(self.at);
        Ok(Some(self.bump_ident()))
    }

    fn into(&mut self) -> Parsed<Ident> {
        let span = self.bump().span;
        if self.in_step {
            let error = error("INTO cannot stand inside WITH", span, "a step has no output");
            return Err(Box::new(error.help("write `INTO` in the SELECT that reads the step")));
        }
        let name = self.name("the name of an output")?;
        self.refuse_longer_name("an output")?;
        Ok(name)
    }

    /// A point or a dash right behind the name of an input or output: `plant.rides`, `my-input`.
    pub(super) fn refuse_longer_name(&self, what: &str) -> Parsed<()> {
        let (name, token) = (self.previous(), self.peek());
        let joined = matches!(token.kind, Kind::Sign(Sign::Dot | Sign::Minus)) && name.span.end == token.span.start;
        if !joined {
            return Ok(());
        }
        let error =
            error(format!("unexpected {}", shown(self.text_of(token))), token.span, format!("{what} has a plain name"));
        Err(Box::new(
            error.help("a name with other characters than letters, digits and `_` is written in brackets: `[my-name]`"),
        ))
    }

    // `PARTITION BY key, … [INTO n]`
    pub(super) fn partition_by(&mut self) -> Parsed<Vec<Expr>> {
        if !self.take_words(&["PARTITION", "BY"]) {
            return Ok(Vec::new());
        }
        let keys = self.list(Self::expr)?;
        if self.at_word("INTO") && self.peek_at(1).kind == Kind::Number {
            self.bump();
            let count = self.bump();
            if !self.text_of(count).parse::<u32>().is_ok_and(|count| count > 1) {
                let error = error("a number of partitions is a whole number above 1", count.span, "expected 2 or more");
                return Err(Box::new(error.help("leave `INTO n` out: it is only a hint")));
            }
        }
        Ok(keys)
    }

    fn no_from(&self) -> Error {
        let token = self.peek();
        let ends = matches!(token.kind, Kind::End | Kind::Semicolon | Kind::Sign(Sign::Close));
        if ends || ["SELECT", "WHERE", "GROUP", "HAVING", "UNION"].iter().any(|word| self.at_word(word)) {
            let error = error("a SELECT needs FROM", token.span, "expected `FROM` and the name of an input or a step");
            return Box::new(error.help("every row comes from an event: `SELECT 1 AS one FROM input`"));
        }
        self.unexpected("`,`, `AS`, `INTO` or `FROM`", &["INTO", "FROM", "AS"])
    }
}

//! What starts with a word: paths, calls with OVER, CASE, CAST.

use super::error::{error, shown};
use super::expr::{Level, Tree};
use super::{Parsed, Parser};
use crate::query::ast::{Arg, Call, ExprKind, Ident, LimitDuration, OrderItem, Over};
use crate::query::token::{Kind, Sign};

impl Parser<'_> {
    /// A path, or the call of a function.
    pub(super) fn named(&mut self) -> Parsed<Tree> {
        let start = self.peek().span;
        let mut path = Vec::new();
        loop {
            let token = self.peek();
            match token.kind {
                Kind::DoubleQuoted if path.is_empty() => {
                    path.extend(self.path_in_quotes(token)?);
                    self.bump();
                }
                _ => path.push(self.field_name()?),
            }
            if !self.take_sign(Sign::Dot) {
                break;
            }
        }
        if self.at_sign(Sign::Open) {
            return self.call(path);
        }
        let span = self.span_from(start);
        let kind = if is_system(&path, "Timestamp") { ExprKind::SystemTimestamp } else { ExprKind::Path(path) };
        self.grown(kind, span, 0)
    }

    fn call(&mut self, name: Vec<Ident>) -> Parsed<Tree> {
        let start = name.first().map_or(self.peek().span, |ident| ident.span);
        self.bump();
        let (mut args, mut height) = (Vec::new(), 0);
        let distinct = self.take_word("DISTINCT");
        let all = !distinct
            && self.at_word("ALL")
            && matches!(self.peek_at(1).kind, Kind::Word | Kind::Bracketed | Kind::Number);
        if all {
            self.bump();
        }
        if !self.at_sign(Sign::Close) || distinct || all {
            args = self.nested(|p| p.list(|p| p.argument(&mut height)))?;
        }
        if !self.take_sign(Sign::Close) {
            return Err(self.unexpected("`,` and another argument, or `)`", &["OVER"]));
        }
        if args.is_empty() && is_system(&name, "Timestamp") {
            let span = self.span_from(start);
            let tree = self.grown(ExprKind::SystemTimestamp, span, 0)?;
            return self.fields(tree);
        }
        if args.is_empty() && is_system(&name, "Window") && self.at_sign(Sign::Dot) && self.is_word(1, "Id") {
            self.at += 2;
            let span = self.span_from(start);
            return self.grown(ExprKind::WindowId, span, 0);
        }
        let over = if self.at_word("OVER") && self.is_sign(1, Sign::Open) {
            Some(self.nested(|p| p.over(&mut height))?)
        } else {
            None
        };
        let span = self.span_from(start);
        let tree = self.grown(ExprKind::Call(Call { name, args, distinct, over }), span, height)?;
        self.fields(tree)
    }

    fn argument(&mut self, height: &mut usize) -> Parsed<Arg> {
        let token = self.peek();
        if self.take_sign(Sign::Star) {
            return Ok(Arg::Star(token.span));
        }
        self.part(height).map(|tree| Arg::Expr(*tree.expr))
    }

    /// A whole expression inside a larger one; `height` becomes at least its height.
    fn part(&mut self, height: &mut usize) -> Parsed<Tree> {
        let tree = self.tree(Level::Or)?;
        *height = tree.height.max(*height);
        Ok(tree)
    }

    // `OVER (…)`, its parts in any order
    fn over(&mut self, height: &mut usize) -> Parsed<Over> {
        let start = self.bump().span;
        self.bump();
        let mut over = Over::default();
        while !self.take_sign(Sign::Close) {
            let token = self.peek();
            let first = match self.text_of(token).to_ascii_uppercase().as_str() {
                "PARTITION" => over.partition_by.is_empty(),
                "ORDER" => over.order_by.is_empty(),
                "LIMIT" => over.limit.is_none(),
                "WHEN" => over.when.is_none(),
                "ROWS" | "RANGE" => {
                    let error = error(
                        "frames of rows are not in the language",
                        token.span,
                        "expected `LIMIT DURATION(unit, n)`",
                    );
                    return Err(Box::new(
                        error.help("the rows looked at are limited by time: `OVER (LIMIT DURATION(minute, 5))`"),
                    ));
                }
                _ => true,
            };
            if !first {
                let title = format!("{} is written twice", shown(self.text_of(token)));
                return Err(Box::new(error(title, token.span, "a second one in the same `OVER`")));
            }
            if self.take_words(&["PARTITION", "BY"]) {
                over.partition_by = self.list(|p| p.part(height).map(|tree| *tree.expr))?;
            } else if self.take_words(&["ORDER", "BY"]) {
                over.order_by = self.list(|p| p.order_item(height))?;
            } else if self.take_word("LIMIT") {
                over.limit = Some(self.limit(height)?);
            } else if self.take_word("WHEN") {
                over.when = Some(self.part(height)?.expr);
            } else {
                let words = ["PARTITION", "ORDER", "LIMIT", "WHEN"];
                return Err(self.unexpected("`PARTITION BY`, `ORDER BY`, `LIMIT DURATION`, `WHEN` or `)`", &words));
            }
        }
        over.span = self.span_from(start);
        Ok(over)
    }

    fn order_item(&mut self, height: &mut usize) -> Parsed<OrderItem> {
        let expr = *self.part(height)?.expr;
        let descending = self.take_word("DESC");
        if !descending {
            self.take_word("ASC");
        }
        Ok(OrderItem { expr, descending })
    }

    // `DURATION(unit, n)`, `LIMIT` being read
    pub(super) fn limit(&mut self, height: &mut usize) -> Parsed<LimitDuration> {
        let start = self.previous().span;
        if !self.take_word("DURATION") {
            let error = self.unexpected("`DURATION(unit, n)` after `LIMIT`", &["DURATION"]);
            return Err(Box::new(error.help("write `LIMIT DURATION(second, 60)`")));
        }
        self.expect_open("DURATION")?;
        let unit = self.name("a unit such as `second`")?;
        self.expect_sign(Sign::Comma, "`,` and a number: `DURATION(second, 60)`")?;
        let count = self.part(height)?.expr;
        self.expect_sign(Sign::Close, "`)`")?;
        Ok(LimitDuration { unit, count, span: self.span_from(start) })
    }

    // `CASE [operand] WHEN … THEN … ELSE … END`
    pub(super) fn case(&mut self) -> Parsed<Tree> {
        let start = self.bump().span;
        self.nested(|p| {
            let mut height = 0;
            let operand = if p.at_word("WHEN") { None } else { Some(p.part(&mut height)?.expr) };
            let mut branches = Vec::new();
            while p.take_word("WHEN") {
                let when = *p.part(&mut height)?.expr;
                p.expect_word("THEN")?;
                branches.push((when, *p.part(&mut height)?.expr));
            }
            if branches.is_empty() {
                return Err(p.unexpected("`WHEN`", &["WHEN"]));
            }
            if p.at_word("END") {
                let error = error("CASE needs ELSE", p.peek().span, "expected `ELSE` before `END`");
                return Err(Box::new(error.help("write `ELSE NULL` where nothing else fits")));
            }
            if !p.take_word("ELSE") {
                return Err(p.unexpected("`WHEN`, `ELSE` or an operator", &["WHEN", "ELSE", "END"]));
            }
            let otherwise = Some(p.part(&mut height)?.expr);
            p.expect_word("END")?;
            let span = p.span_from(start);
            p.grown(ExprKind::Case { operand, branches, otherwise }, span, height)
        })
    }

    // `CAST(expression AS type)`
    pub(super) fn cast(&mut self) -> Parsed<Tree> {
        let name = self.bump();
        let is_try = self.text_of(name).eq_ignore_ascii_case("TRY_CAST");
        self.bump();
        let mut height = 0;
        let operand = self.nested(|p| p.part(&mut height))?.expr;
        if !self.take_word("AS") {
            let error = self.unexpected("`AS` and a type", &["AS"]);
            return Err(Box::new(error.help(format!("write `{}(… AS bigint)`", self.text_of(name)))));
        }
        let ty = self.type_name()?;
        self.expect_sign(Sign::Close, "`)`")?;
        let tree = self.grown(ExprKind::Cast { is_try, operand, ty }, self.span_from(name.span), height)?;
        self.fields(tree)
    }
}

/// Whether a path is `System.…`.
fn is_system(path: &[Ident], name: &str) -> bool {
    let is = |ident: &Ident, word: &str| ident.name.eq_ignore_ascii_case(word);
    matches!(path, [system, property] if is(system, "System") && is(property, name))
}

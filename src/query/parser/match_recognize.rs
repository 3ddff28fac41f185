//! `MATCH_RECOGNIZE (…)` behind an input: patterns over rows.

use super::error::error;
use super::{Parsed, Parser};
use crate::query::ast::{MatchRecognize, Measure, RowPattern, Variable};
use crate::query::token::Sign;

const ORDER: &str = "write `MATCH_RECOGNIZE (LIMIT DURATION(minute, 1) PARTITION BY k MEASURES Last(A.x) AS x AFTER \
    MATCH SKIP TO NEXT ROW PATTERN (A+ B) DEFINE A AS A.x > 1)`";

impl Parser<'_> {
    /// The clauses between the parentheses, in the order of the documents; LIMIT DURATION and PARTITION BY in either.
    pub(super) fn match_recognize(&mut self) -> Parsed<MatchRecognize> {
        let start = self.bump().span;
        self.expect_open("MATCH_RECOGNIZE")?;
        let (mut limit, mut partition_by) = (None, Vec::new());
        loop {
            if limit.is_none() && self.take_word("LIMIT") {
                limit = Some(self.limit(&mut 0)?);
            } else if partition_by.is_empty() && self.take_words(&["PARTITION", "BY"]) {
                partition_by = self.list(Self::expr)?;
            } else {
                break;
            }
        }
        let Some(limit) = limit else {
            let error = error("MATCH_RECOGNIZE without LIMIT DURATION", self.peek().span, "how long may a match last?");
            return Err(Box::new(error.help(ORDER)));
        };
        self.clause(&["MEASURES"])?;
        let measures = self.list(|p| {
            let expr = p.expr()?;
            p.expect_word("AS")?;
            Ok(Measure { expr, name: p.name("the name of the measure")? })
        })?;
        self.clause(&["AFTER", "MATCH", "SKIP", "TO", "NEXT", "ROW"])?;
        self.clause(&["PATTERN"])?;
        self.expect_open("PATTERN")?;
        let pattern = self.row_pattern()?;
        self.expect_sign(Sign::Close, "`)`, `|`, a variable or a quantifier")?;
        let mut define = Vec::new();
        if self.take_word("DEFINE") {
            define = self.list(|p| {
                let name = p.name("a variable of the pattern")?;
                p.expect_word("AS")?;
                Ok(Variable { name, condition: p.expr()? })
            })?;
        }
        self.expect_sign(Sign::Close, "`,`, `DEFINE` or `)`")?;
        Ok(MatchRecognize { limit, partition_by, measures, pattern, define, span: self.span_from(start) })
    }

    fn clause(&mut self, words: &[&str]) -> Parsed<()> {
        for (i, word) in words.iter().enumerate() {
            if !self.take_word(word) {
                let rest = words.get(i..).unwrap_or_default().join(" ");
                let error = self.unexpected(&format!("`{rest}`"), &[word]);
                return Err(Box::new(error.help(ORDER)));
            }
        }
        Ok(())
    }

    // `branch | branch`
    fn row_pattern(&mut self) -> Parsed<RowPattern> {
        let mut branches = vec![self.row_sequence()?];
        while self.take_sign(Sign::Bar) {
            branches.push(self.row_sequence()?);
        }
        Ok(if branches.len() == 1 { branches.remove(0) } else { RowPattern::Either(branches) })
    }

    fn row_sequence(&mut self) -> Parsed<RowPattern> {
        let mut items = Vec::new();
        while self.at_name() || self.at_sign(Sign::Dot) || self.at_sign(Sign::Open) {
            let atom = self.row_atom()?;
            items.push(self.quantified(atom));
        }
        if items.is_empty() {
            return Err(self.unexpected("a variable, `.` or `(`", &[]));
        }
        Ok(if items.len() == 1 { items.remove(0) } else { RowPattern::Concat(items) })
    }

    fn row_atom(&mut self) -> Parsed<RowPattern> {
        if self.take_sign(Sign::Dot) {
            return Ok(RowPattern::Any);
        }
        if self.take_sign(Sign::Open) {
            let inner = self.nested(Self::row_pattern)?;
            self.expect_sign(Sign::Close, "`)`, `|`, a variable or a quantifier")?;
            return Ok(inner);
        }
        Ok(RowPattern::Variable(self.name("a variable")?))
    }

    /// `*`, `+`, `?`, each reluctant with a `?` behind it.
    fn quantified(&mut self, of: RowPattern) -> RowPattern {
        let (at_least_once, many) = if self.take_sign(Sign::Star) {
            (false, true)
        } else if self.take_sign(Sign::Plus) {
            (true, true)
        } else if self.take_question() {
            (false, false)
        } else {
            return of;
        };
        let greedy = !self.take_question();
        RowPattern::Repeat { of: Box::new(of), at_least_once, many, greedy }
    }

    /// A question mark has no meaning elsewhere, so it is no token of the language.
    fn take_question(&mut self) -> bool {
        let found = self.text_of(self.peek()) == "?";
        if found {
            self.bump();
        }
        found
    }
}

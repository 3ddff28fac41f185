//! Expressions: operators by precedence, and what they join.
//!
//! Precedence is T-SQL's, tightest first: `~`; `* / %`; `+ - & ^ |` and the signs; comparisons and the other
//! predicates; NOT; AND; OR. A sign takes in the products behind it: `-a / b` is `-(a / b)`.

use super::error::{Error, error, reserved, shown, subquery};
use super::{HEIGHT_MAX, NESTING_MAX, Parsed, Parser, RECURSION_MAX};
use crate::diagnostic::Span;
use crate::query::ast::{BinaryOp, Expr, ExprKind, Ident, Literal, UnaryOp};
use crate::query::token::{Kind, Sign, is_reserved};

/// How tightly an operator binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Or,
    And,
    Not,
    Predicate,
    Sum,
    Product,
    Sign,
}

/// An expression and the levels of its tree.
pub(super) struct Tree {
    /// Boxed, as parents keep it; small frames let the deepest expression fit a thread's stack.
    pub expr: Box<Expr>,
    pub height: usize,
}

/// Words that end an expression; where one is due they are rather a missing operand than a bad name.
const AFTER_EXPRESSION: &[&str] =
    &["FROM", "INTO", "WHERE", "GROUP", "HAVING", "UNION", "ON", "AS", "THEN", "WHEN", "ELSE", "END", "AND", "OR"];

impl Parser<'_> {
    pub(super) fn expr(&mut self) -> Parsed<Expr> {
        self.tree(Level::Or).map(|tree| *tree.expr)
    }

    /// What `inside` reads, one level of nesting deeper.
    pub(super) fn nested<T>(&mut self, inside: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.nesting >= NESTING_MAX {
            let error = error(
                "the expression is nested too deep",
                self.peek().span,
                format!("level {} of at most {NESTING_MAX}", NESTING_MAX + 1),
            );
            return Err(Box::new(error.help("compute a part of it in a step of `WITH`")));
        }
        self.nesting += 1;
        let read = inside(self);
        self.nesting -= 1;
        read
    }

    pub(super) fn grown(&self, kind: ExprKind, span: Span, below: usize) -> Parsed<Tree> {
        if below >= HEIGHT_MAX {
            let error = error(
                "the expression is too deep",
                span,
                format!("more than {HEIGHT_MAX} operators inside each other"),
            );
            return Err(Box::new(
                error.help("compute a part of it in a step of `WITH`, or join texts with `CONCAT(…)`"),
            ));
        }
        Ok(Tree { expr: Box::new(Expr { kind, span }), height: below + 1 })
    }

    /// An expression of operators that bind at least as tightly as `level`.
    pub(super) fn tree(&mut self, level: Level) -> Parsed<Tree> {
        if self.recursion >= RECURSION_MAX {
            return Err(self.too_deep());
        }
        self.recursion += 1;
        let read = self.operators(level);
        self.recursion -= 1;
        read
    }

    fn operators(&mut self, level: Level) -> Parsed<Tree> {
        let mut left = self.prefix(level)?;
        let mut is_predicate = false;
        loop {
            if level <= Level::Or && self.at_word("OR") {
                left = self.chain(left, "OR", BinaryOp::Or, Level::And)?;
            } else if level <= Level::And && self.at_word("AND") {
                left = self.chain(left, "AND", BinaryOp::And, Level::Not)?;
            } else if level <= Level::Predicate && self.at_predicate() {
                if is_predicate {
                    return Err(self.second_comparison());
                }
                left = self.predicate(left)?;
                is_predicate = true;
            } else if let Some((op, tighter)) = self.arithmetic(level) {
                self.bump();
                let right = self.tree(tighter)?;
                left = self.binary(op, left, right)?;
            } else {
                return Ok(left);
            }
        }
    }

    fn binary(&self, op: BinaryOp, left: Tree, right: Tree) -> Parsed<Tree> {
        let span = left.expr.span.to(right.expr.span);
        self.grown(ExprKind::Binary(op, left.expr, right.expr), span, left.height.max(right.height))
    }

    /// All operands of one AND or OR chain, as a balanced tree: a list of a thousand conditions is ten levels deep.
    fn chain(&mut self, first: Tree, word: &str, op: BinaryOp, operand: Level) -> Parsed<Tree> {
        let mut layer = vec![first];
        while self.take_word(word) {
            layer.push(self.tree(operand)?);
        }
        while layer.len() > 1 {
            let mut pairs = layer.into_iter();
            let mut next = Vec::new();
            while let Some(left) = pairs.next() {
                next.push(match pairs.next() {
                    Some(right) => self.binary(op, left, right)?,
                    None => left,
                });
            }
            layer = next;
        }
        layer.pop().ok_or_else(|| self.unexpected("an expression", &[]))
    }

    fn arithmetic(&self, level: Level) -> Option<(BinaryOp, Level)> {
        let Kind::Sign(sign) = self.peek().kind else { return None };
        let sum = |op| (level <= Level::Sum).then_some((op, Level::Product));
        let product = |op| (level <= Level::Product).then_some((op, Level::Sign));
        match sign {
            Sign::Plus => sum(BinaryOp::Add),
            Sign::Minus => sum(BinaryOp::Sub),
            Sign::Ampersand => sum(BinaryOp::BitAnd),
            Sign::Bar => sum(BinaryOp::BitOr),
            Sign::Caret => sum(BinaryOp::BitXor),
            Sign::Star => product(BinaryOp::Mul),
            Sign::Slash => product(BinaryOp::Div),
            Sign::Percent => product(BinaryOp::Mod),
            _ => None,
        }
    }

    fn comparison(&self) -> Option<BinaryOp> {
        match self.peek().kind {
            Kind::Sign(Sign::Equal) => Some(BinaryOp::Eq),
            Kind::Sign(Sign::NotEqual) => Some(BinaryOp::Ne),
            Kind::Sign(Sign::Less) => Some(BinaryOp::Lt),
            Kind::Sign(Sign::LessEqual) => Some(BinaryOp::Le),
            Kind::Sign(Sign::Greater) => Some(BinaryOp::Gt),
            Kind::Sign(Sign::GreaterEqual) => Some(BinaryOp::Ge),
            _ => None,
        }
    }

    fn at_predicate(&self) -> bool {
        let word = |ahead| ["LIKE", "IN", "BETWEEN"].iter().any(|word| self.is_word(ahead, word));
        self.comparison().is_some() || self.at_word("IS") || word(0) || (self.at_word("NOT") && word(1))
    }

    /// A comparison, IS NULL, LIKE, IN or BETWEEN with `left` in front.
    fn predicate(&mut self, left: Tree) -> Parsed<Tree> {
        if let Some(op) = self.comparison() {
            self.bump();
            let right = self.tree(Level::Sum)?;
            return self.binary(op, left, right);
        }
        let start = left.expr.span;
        let mut height = left.height;
        let operand = left.expr;
        let mut part = |p: &mut Self| -> Parsed<Box<Expr>> {
            let tree = p.tree(Level::Sum)?;
            height = height.max(tree.height);
            Ok(tree.expr)
        };
        if self.take_word("IS") {
            let negated = self.take_word("NOT");
            if !self.take_word("NULL") {
                let error = self.unexpected(if negated { "`NULL`" } else { "`NULL` or `NOT NULL`" }, &["NULL", "NOT"]);
                return Err(Box::new(error.help("`IS` only tests for NULL; values are compared with `=`")));
            }
            return self.grown(ExprKind::IsNull { negated, operand }, self.span_from(start), height);
        }
        let negated = self.take_word("NOT");
        let kind = if self.take_word("LIKE") {
            let pattern = part(self)?;
            let escape = if self.take_word("ESCAPE") { Some(part(self)?) } else { None };
            ExprKind::Like { negated, operand, pattern, escape }
        } else if self.take_word("BETWEEN") {
            let low = part(self)?;
            self.expect_word("AND")?;
            let high = part(self)?;
            ExprKind::Between { negated, operand, low, high }
        } else {
            self.bump();
            let (list, highest) = self.in_list()?;
            height = height.max(highest);
            ExprKind::In { negated, operand, list }
        };
        self.grown(kind, self.span_from(start), height)
    }

    fn in_list(&mut self) -> Parsed<(Vec<Expr>, usize)> {
        self.expect_sign(Sign::Open, "`(` and the values: `IN (1, 2, 3)`")?;
        let mut height = 0;
        let list = self.nested(|p| {
            p.list(|p| {
                let tree = p.tree(Level::Or)?;
                height = height.max(tree.height);
                Ok(*tree.expr)
            })
        })?;
        self.expect_sign(Sign::Close, "`,` or `)`")?;
        Ok((list, height))
    }

    fn prefix(&mut self, level: Level) -> Parsed<Tree> {
        let token = self.peek();
        let (op, operand) = match token.kind {
            Kind::Sign(Sign::Minus) if self.text_of(self.peek_at(1)) == "9223372036854775808" => {
                // the only whole number whose absolute value does not fit
                self.at += 2;
                return self.grown(ExprKind::Literal(Literal::BigInt(i64::MIN)), self.span_from(token.span), 0);
            }
            Kind::Sign(Sign::Minus) => (UnaryOp::Minus, Level::Product),
            Kind::Sign(Sign::Plus) => (UnaryOp::Plus, Level::Product),
            Kind::Sign(Sign::Tilde) => (UnaryOp::BitNot, Level::Sign),
            Kind::Word if self.at_word("NOT") => {
                if level > Level::Not {
                    return Err(not_a_condition(token.span));
                }
                (UnaryOp::Not, Level::Not)
            }
            _ => return self.primary(),
        };
        self.bump();
        let below = self.nested(|p| p.tree(operand))?;
        self.grown(ExprKind::Unary(op, below.expr), self.span_from(token.span), below.height)
    }

    fn primary(&mut self) -> Parsed<Tree> {
        let token = self.peek();
        let text = self.text_of(token);
        match token.kind {
            Kind::Number | Kind::Text => self.literal(),
            Kind::DoubleQuoted => self.double_quoted(),
            Kind::Bracketed => self.named(),
            Kind::Sign(Sign::Open) if self.is_word(1, "SELECT") => Err(subquery(token.span)),
            Kind::Sign(Sign::Open) => self.parenthesised(),
            Kind::Word if self.at_word("NULL") => self.literal(),
            Kind::Word if self.at_word("CASE") => self.case(),
            Kind::Word if ["CAST", "TRY_CAST"].iter().any(|word| self.at_word(word)) && self.is_sign(1, Sign::Open) => {
                self.cast()
            }
            Kind::Word if self.at_word("EXISTS") && self.is_sign(1, Sign::Open) && self.is_word(2, "SELECT") => {
                Err(subquery(token.span))
            }
            // LEFT and RIGHT are functions as well
            Kind::Word
                if !is_reserved(text)
                    || (["LEFT", "RIGHT"].iter().any(|word| self.at_word(word)) && self.is_sign(1, Sign::Open)) =>
            {
                self.named()
            }
            _ => Err(self.no_expression()),
        }
    }

    fn parenthesised(&mut self) -> Parsed<Tree> {
        let open = self.bump().span;
        let mut inner = self.nested(|p| p.tree(Level::Or))?;
        self.expect_sign(Sign::Close, "`)`")?;
        inner.expr.span = self.span_from(open);
        self.fields(inner)
    }

    /// `.name` behind a call or a parenthesis.
    pub(super) fn fields(&mut self, mut of: Tree) -> Parsed<Tree> {
        while self.take_sign(Sign::Dot) {
            let field = self.field_name()?;
            let span = of.expr.span.to(field.span);
            of = self.grown(ExprKind::Field(of.expr, field), span, of.height)?;
        }
        Ok(of)
    }

    /// The name behind a point: here keywords are names.
    pub(super) fn field_name(&mut self) -> Parsed<Ident> {
        match self.peek().kind {
            Kind::Word | Kind::Bracketed | Kind::DoubleQuoted => Ok(self.bump_ident()),
            Kind::Sign(Sign::Star) => {
                let error = error("`.*` cannot stand here", self.peek().span, "expected the name of a field");
                Err(Box::new(error.help("`a.*` is an item of its own in a SELECT list and takes no name")))
            }
            _ => Err(self.unexpected("the name of a field", &[])),
        }
    }

    fn too_deep(&self) -> Error {
        let error =
            error("the expression is nested too deep", self.peek().span, format!("more than {NESTING_MAX} levels"));
        Box::new(error.help("compute a part of it in a step of `WITH`"))
    }

    fn second_comparison(&self) -> Error {
        let token = self.peek();
        let error = error(
            "comparisons do not chain",
            token.span,
            format!("a second comparison, {}", shown(self.text_of(token))),
        );
        Box::new(error.help("join comparisons with `AND`: `a < b AND b < c`"))
    }

    fn no_expression(&self) -> Error {
        let token = self.peek();
        let text = self.text_of(token);
        if token.kind == Kind::Sign(Sign::Star) {
            let error = error("`*` cannot stand here", token.span, "expected an expression");
            return Box::new(error.help("`*` stands in a SELECT list, in `COUNT(*)`, `LAG(*)` and `LAST(*)`"));
        }
        if token.kind != Kind::Word {
            return self.unexpected("an expression", &[]);
        }
        if self.at_word("SELECT") && self.previous().kind == Kind::Sign(Sign::Open) {
            return subquery(token.span);
        }
        if !AFTER_EXPRESSION.iter().any(|word| self.at_word(word)) {
            return reserved("an expression", text, token.span);
        }
        let plain = error(format!("unexpected {}", shown(text)), token.span, "expected an expression");
        Box::new(match self.previous().kind {
            Kind::Sign(Sign::Comma) => plain.help(format!("remove the comma before `{text}`")),
            _ => plain,
        })
    }
}

fn not_a_condition(span: Span) -> Error {
    let error = error("NOT cannot stand here", span, "a condition where a value is expected");
    Box::new(error.help("put the condition in parentheses: `(NOT …)`"))
}

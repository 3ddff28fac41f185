//! Expressions: from the syntax tree to compiled form.
//!
//! In: an expression and the place it stands in. Out: a compiled expression over column ids; NULL where an error was
//! reported. Invariant: what a clause may not hold is refused here or in `call`. Not here: calls (`call`), names
//! (`scope`).

use super::core::Core;
use super::place::{Clause, Place};
use crate::diagnostic::{Diagnostic, Span};
use crate::query::ast::{self, BinaryOp, ExprKind, Literal, UnaryOp};
use crate::query::plan::Expr;
use crate::value::Value;

/// Operations that a simple `CASE` may come to: its operand is compared anew for each `WHEN`, so nested ones multiply.
const CASE_SIZE_MAX: usize = 4096;

impl Core<'_, '_> {
    pub(super) fn expr(&mut self, e: &ast::Expr, place: Place) -> Expr {
        let boxed = |core: &mut Self, e: &ast::Expr| Box::new(core.expr(e, place));
        match &e.kind {
            ExprKind::Literal(literal) => Expr::Const(constant(literal)),
            ExprKind::Path(path) => self.named_value(path, e.span, place),
            ExprKind::SystemTimestamp => self.timestamp(e.span, place),
            ExprKind::WindowId => self.window_id_value(e.span, place),
            ExprKind::Unary(op, operand) => self.unary(*op, operand, e.span, place),
            ExprKind::Binary(BinaryOp::And, a, b) => Expr::And(boxed(self, a), boxed(self, b)),
            ExprKind::Binary(BinaryOp::Or, a, b) => Expr::Or(boxed(self, a), boxed(self, b)),
            ExprKind::Binary(op, a, b) => Expr::Binary(*op, boxed(self, a), boxed(self, b), e.span),
            ExprKind::IsNull { negated, operand } => Expr::IsNull { negated: *negated, operand: boxed(self, operand) },
            ExprKind::Between { negated, operand, low, high } => Expr::Between {
                negated: *negated,
                operand: boxed(self, operand),
                low: boxed(self, low),
                high: boxed(self, high),
            },
            ExprKind::In { negated, operand, list } => Expr::In {
                negated: *negated,
                operand: boxed(self, operand),
                list: list.iter().map(|e| self.expr(e, place)).collect(),
            },
            ExprKind::Like { negated, operand, pattern, escape } => Expr::Like {
                negated: *negated,
                operand: boxed(self, operand),
                pattern: boxed(self, pattern),
                escape: escape.as_ref().map(|e| boxed(self, e)),
            },
            ExprKind::Case { operand, branches, otherwise } => {
                self.case(operand.as_deref(), branches, otherwise.as_deref(), e.span, place)
            }
            ExprKind::Cast { is_try, operand, ty } => {
                Expr::Cast { is_try: *is_try, operand: boxed(self, operand), ty: *ty, span: e.span }
            }
            ExprKind::Call(call) => self.call(call, e.span, place),
            ExprKind::Field(value, field) => {
                super::scope::below_of(self.expr(value, place), std::slice::from_ref(field))
            }
        }
    }

    /// A path; in HAVING also an alias of the SELECT list, when no grouping column has the name.
    fn named_value(&mut self, path: &[ast::Ident], span: Span, place: Place) -> Expr {
        if let [name] = path
            && place == Place::clause(Clause::Having)
            && self.grouped
            && let Some(expr) = self.aliased(&name.name)
        {
            return expr;
        }
        self.path(path, span)
    }

    fn timestamp(&mut self, span: Span, place: Place) -> Expr {
        if place.clause == Clause::TimestampBy {
            let problem = Diagnostic::error("System.Timestamp() inside TIMESTAMP BY", span)
                .label("this is what TIMESTAMP BY defines")
                .help("name a field of the payload that holds the time");
            self.binder.problem(problem);
        }
        Expr::Time
    }

    fn window_id_value(&mut self, span: Span, place: Place) -> Expr {
        if place == Place::clause(Clause::Select) && self.grouped {
            return Expr::Slot(self.window_id);
        }
        let problem = Diagnostic::error(
            "System.Window() stands only in the SELECT list of a query with GROUP BY",
            span,
        )
        .label(if self.grouped { "not here" } else { "there is no window" })
        .help("it names the window a row belongs to: `GROUP BY Windows(Window('id', TumblingWindow(second, 10)), …)`");
        self.binder.problem(problem);
        Expr::Const(Value::Null)
    }

    fn unary(&mut self, op: UnaryOp, operand: &ast::Expr, span: Span, place: Place) -> Expr {
        let operand = self.expr(operand, place);
        match (op, operand) {
            (UnaryOp::Plus, operand) => operand,
            (UnaryOp::Not, operand) => Expr::Not(Box::new(operand)),
            (UnaryOp::BitNot, operand) => Expr::BitNot(Box::new(operand), span),
            (UnaryOp::Minus, Expr::Const(Value::BigInt(n))) if n != i64::MIN => Expr::Const(Value::BigInt(-n)),
            (UnaryOp::Minus, Expr::Const(Value::Float(f))) => Expr::Const(Value::Float(-f)),
            (UnaryOp::Minus, operand) => Expr::Negate(Box::new(operand), span),
        }
    }

    fn case(
        &mut self,
        operand: Option<&ast::Expr>,
        branches: &[(ast::Expr, ast::Expr)],
        otherwise: Option<&ast::Expr>,
        span: Span,
        place: Place,
    ) -> Expr {
        if otherwise.is_none() {
            let problem = Diagnostic::error("CASE without ELSE", span)
                .label("expected `ELSE` before `END`")
                .help("write `ELSE NULL` when nothing else is meant");
            self.binder.problem(problem);
        }
        let operand = operand.map(|e| self.expr(e, place));
        if operand.as_ref().is_some_and(|e| size(e).saturating_mul(branches.len()) > CASE_SIZE_MAX) {
            let problem = Diagnostic::error("the operand of this CASE is too large", span)
                .label("it is compared anew for each WHEN")
                .help("compute the operand in a step of WITH");
            self.binder.problem(problem);
            return Expr::Const(Value::Null);
        }
        let mut compiled = Vec::with_capacity(branches.len());
        for (when, then) in branches {
            let at = when.span;
            let when = self.expr(when, place);
            let when = match &operand {
                Some(operand) => Expr::Binary(BinaryOp::Eq, Box::new(operand.clone()), Box::new(when), at),
                None => when,
            };
            compiled.push((when, self.expr(then, place)));
        }
        let otherwise = otherwise.map_or(Expr::Const(Value::Null), |e| self.expr(e, place));
        Expr::Case { branches: compiled, otherwise: Box::new(otherwise) }
    }
}

fn constant(literal: &Literal) -> Value {
    match literal {
        Literal::Null => Value::Null,
        Literal::BigInt(n) => Value::BigInt(*n),
        Literal::Float(f) => Value::Float(*f),
        Literal::Text(text) => Value::Text(text.clone()),
    }
}

/// Operations in an expression.
fn size(expr: &Expr) -> usize {
    1 + expr.children().into_iter().map(size).sum::<usize>()
}

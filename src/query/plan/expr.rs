//! Compiled expressions.
//!
//! In: nothing (plain data). Out: [`Expr`]. Invariant: every function exists and got a possible number of arguments,
//! every constant is checked. Not here: evaluation (`engine`), the meaning of operators (`query::builtins`).

use std::sync::Arc;

use smol_str::SmolStr;

use crate::batch::Column;
use crate::diagnostic::Span;
use crate::query::ast::BinaryOp;
use crate::query::builtins::Builtin;
use crate::value::{Type, Value};

/// A compiled expression over a row's slots.
#[derive(Clone, Debug)]
pub enum Expr {
    Const(Value),
    Slot(usize),
    /// `System.Timestamp()`: the row's event time
    Time,
    /// The row's arrival time: `GETUTCDATE()` and absent `EventEnqueuedUtcTime`
    Arrival,
    /// The substream of `TIMESTAMP BY … OVER` that the operators run for, as a text that only they understand
    Substream,
    /// Fields below a value, by name; NULL on a missing part and on a value that is no record
    Path(Box<Expr>, Vec<SmolStr>),
    /// A record made of expressions: a step or input name used as a value, when its columns are known.
    Record(Vec<(SmolStr, Expr)>),
    /// A record made of columns of which some are spread records (clashes as in [`crate::batch::shown`]).
    Spread(Arc<[Column]>, Vec<Expr>),
    Not(Box<Expr>),
    Negate(Box<Expr>, Span),
    BitNot(Box<Expr>, Span),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    /// Comparison, arithmetic or bit operator (never AND, OR).
    Binary(BinaryOp, Box<Expr>, Box<Expr>, Span),
    IsNull {
        negated: bool,
        operand: Box<Expr>,
    },
    Between {
        negated: bool,
        operand: Box<Expr>,
        low: Box<Expr>,
        high: Box<Expr>,
    },
    In {
        negated: bool,
        operand: Box<Expr>,
        list: Vec<Expr>,
    },
    Like {
        negated: bool,
        operand: Box<Expr>,
        pattern: Box<Expr>,
        escape: Option<Box<Expr>>,
    },
    /// Searched CASE; the simple form is compiled to it.
    Case {
        branches: Vec<(Expr, Expr)>,
        otherwise: Box<Expr>,
    },
    Cast {
        is_try: bool,
        operand: Box<Expr>,
        ty: Type,
        span: Span,
    },
    /// `TryEvaluate(e)`: NULL where `e` fails, whatever the policy for failing rows.
    Try(Box<Expr>),
    Builtin {
        function: &'static Builtin,
        args: Vec<Expr>,
        span: Span,
    },
    /// A local user function; `index` and `keeps_state` are those of [`crate::query::catalog::FunctionKind::Local`].
    Udf {
        index: usize,
        name: SmolStr,
        args: Vec<Expr>,
        span: Span,
        keeps_state: bool,
    },
}

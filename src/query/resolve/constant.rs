//! Constants that the language wants as literals: sizes, offsets, fractions, units of time.
//!
//! In: syntax. Out: a number, or a unit in ticks. Invariant: only literals count, so a plan never depends on data. Not
//! here: what a size means (`window`, `analytic`, `join`).

use crate::query::ast::{Arg, Expr, ExprKind, Ident, Literal, UnaryOp};
use crate::time::{TICKS_PER_DAY, TICKS_PER_MILLISECOND, TICKS_PER_SECOND};

/// The longest window and the widest join bound of the language: 7 days.
pub(super) const SPAN_MAX: i64 = 7 * TICKS_PER_DAY;

/// A whole number with an optional sign.
pub(super) fn whole(e: &Expr) -> Option<i64> {
    match &e.kind {
        ExprKind::Literal(Literal::BigInt(n)) => Some(*n),
        ExprKind::Unary(UnaryOp::Minus, inner) => whole(inner).and_then(i64::checked_neg),
        ExprKind::Unary(UnaryOp::Plus, inner) => whole(inner),
        _ => None,
    }
}

/// A number with an optional sign.
pub(super) fn number(e: &Expr) -> Option<f64> {
    match &e.kind {
        ExprKind::Literal(Literal::BigInt(n)) => Some(*n as f64),
        ExprKind::Literal(Literal::Float(f)) => Some(*f),
        ExprKind::Unary(UnaryOp::Minus, inner) => number(inner).map(|n| -n),
        ExprKind::Unary(UnaryOp::Plus, inner) => number(inner),
        _ => None,
    }
}

/// A literal text.
pub(super) fn text(e: &Expr) -> Option<&str> {
    match &e.kind {
        ExprKind::Literal(Literal::Text(text)) => Some(text),
        _ => None,
    }
}

/// A single unquoted word, as units and date parts are written.
pub(super) fn word(arg: &Arg) -> Option<&Ident> {
    match arg {
        Arg::Expr(Expr { kind: ExprKind::Path(path), .. }) => match path.as_slice() {
            [word] => Some(word),
            _ => None,
        },
        _ => None,
    }
}

/// Units of fixed length, for windows and limits, by their full names.
pub(super) const UNITS: [&str; 6] = ["day", "hour", "minute", "second", "millisecond", "microsecond"];

/// Ticks of 100 ns in a unit of fixed length, by any of its names.
pub(super) fn unit_ticks(name: &str) -> Option<i64> {
    Some(match name.to_ascii_lowercase().as_str() {
        "day" | "dd" | "d" => TICKS_PER_DAY,
        "hour" | "hh" => 3600 * TICKS_PER_SECOND,
        "minute" | "mi" | "n" => 60 * TICKS_PER_SECOND,
        "second" | "ss" | "s" => TICKS_PER_SECOND,
        "millisecond" | "ms" => TICKS_PER_MILLISECOND,
        "microsecond" | "mcs" => TICKS_PER_MILLISECOND / 1000,
        _ => return None,
    })
}

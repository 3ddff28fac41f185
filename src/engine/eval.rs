//! Expressions over one row.
//!
//! In: a plan's [`Expr`] and a row. Evaluated: a value (borrowed where the row or the plan already holds it), or the
//! innermost error that the policy does not turn into NULL. Invariant: nothing is evaluated that the result does not
//! need (`AND`, `OR`, `CASE`, `COALESCE` stop early). Not here: what an operator means (`query::builtins`), what
//! becomes of a failed row.

use std::borrow::Cow;
use std::sync::Arc;

use super::env::{Env, EvalError, Row};
use super::fault::Fault;
use super::key::put_key;
use super::options::OnError;
use crate::batch::shown;
use crate::diagnostic::Span;
use crate::query::ast::BinaryOp;
use crate::query::builtins::{self, RowError};
use crate::query::fault::{self, FAULT};
use crate::query::plan::Expr;
use crate::value::{Record, SmolStr, Type, Value};

type Evaluated<'a> = Result<Cow<'a, Value>, Box<EvalError>>;

/// Arguments up to this many live on the stack.
const ARGS_INLINE: usize = 4;

impl Env {
    /// The value of `expr` for `row`.
    pub(super) fn eval<'a>(&mut self, expr: &'a Expr, row: Row<'a>) -> Evaluated<'a> {
        match expr {
            Expr::Const(value) => Ok(Cow::Borrowed(value)),
            Expr::Slot(i) => match row.values.get(*i) {
                Some(value) => Ok(Cow::Borrowed(value)),
                None => Err(self.no_slot(*i, row)),
            },
            Expr::Time => owned(Value::DateTime(row.meta.time)),
            Expr::Arrival => owned(Value::DateTime(row.meta.arrival)),
            Expr::Substream => owned(self.substream.clone()),
            Expr::Path(base, names) => Ok(match self.eval(base, row)? {
                Cow::Borrowed(value) => field(value, names).map_or(Cow::Owned(Value::Null), Cow::Borrowed),
                Cow::Owned(value) => Cow::Owned(field(&value, names).cloned().unwrap_or_default()),
            }),
            Expr::Record(fields) => {
                let mut record = Record::with_capacity(fields.len());
                for (name, expr) in fields {
                    record.push_unique(name.clone(), self.eval(expr, row)?.into_owned());
                }
                owned(Value::record(record))
            }
            Expr::Spread(columns, exprs) => {
                let values =
                    exprs.iter().map(|e| self.eval(e, row).map(Cow::into_owned)).collect::<Result<Vec<_>, _>>()?;
                let fields = shown(columns, &values).into_iter().map(|(n, v)| (n.clone(), v.clone())).collect();
                owned(Value::record(Record::from_unique(fields)))
            }
            Expr::And(a, b) => bit(self.holds(a, row)? && self.holds(b, row)?),
            Expr::Or(a, b) => bit(self.holds(a, row)? || self.holds(b, row)?),
            Expr::Not(a) => bit(!self.holds(a, row)?),
            Expr::IsNull { negated, operand } => bit(self.eval(operand, row)?.is_null() != *negated),
            Expr::Between { negated: false, operand, low, high } => {
                let value = self.eval(operand, row)?;
                bit(builtins::compare_op(BinaryOp::Ge, &value, &*self.eval(low, row)?)
                    && builtins::compare_op(BinaryOp::Le, &value, &*self.eval(high, row)?))
            }
            // comparisons of its own, as `<>` is: false for a NULL operand
            Expr::Between { negated: true, operand, low, high } => {
                let value = self.eval(operand, row)?;
                bit(builtins::compare_op(BinaryOp::Lt, &value, &*self.eval(low, row)?)
                    || builtins::compare_op(BinaryOp::Gt, &value, &*self.eval(high, row)?))
            }
            Expr::In { negated, operand, list } => {
                let value = self.eval(operand, row)?;
                if value.is_null() {
                    return bit(false);
                }
                for item in list {
                    if value.equals(&*self.eval(item, row)?) {
                        return bit(!*negated);
                    }
                }
                bit(*negated)
            }
            Expr::Case { branches, otherwise } => {
                for (condition, result) in branches {
                    if self.holds(condition, row)? {
                        return self.eval(result, row);
                    }
                }
                self.eval(otherwise, row)
            }
            Expr::Try(inner) => {
                self.trying += 1;
                let result = self.eval(inner, row);
                self.trying -= 1;
                result.or_else(|failed| {
                    if failed.error.reason == FAULT {
                        return Err(failed);
                    }
                    self.counts.add_nulled(failed.error.reason);
                    owned(Value::Null)
                })
            }
            Expr::Binary(..)
            | Expr::Negate(..)
            | Expr::BitNot(..)
            | Expr::Cast { .. }
            | Expr::Like { .. }
            | Expr::Builtin { .. }
            | Expr::Udf { .. } => self.eval_fallible(expr, row),
        }
    }

    /// The kinds that can fail by themselves.
    fn eval_fallible<'a>(&mut self, expr: &'a Expr, row: Row<'a>) -> Evaluated<'a> {
        match expr {
            Expr::Binary(op, a, b, span) => {
                let a = self.eval(a, row)?;
                let b = self.eval(b, row)?;
                self.value(builtins::binary(*op, &a, &b), *span, self.policy(row))
            }
            Expr::Negate(a, span) => {
                let value = builtins::negate(&*self.eval(a, row)?);
                self.value(value, *span, self.policy(row))
            }
            Expr::BitNot(a, span) => {
                let value = builtins::bit_not(&*self.eval(a, row)?);
                self.value(value, *span, self.policy(row))
            }
            Expr::Cast { is_try, operand, ty, span } => self.cast(*is_try, operand, *ty, *span, row),
            Expr::Like { negated, operand, pattern, escape } => {
                let value = self.eval(operand, row)?;
                let pattern = self.eval(pattern, row)?;
                let escape = escape.as_ref().map(|e| self.eval(e, row)).transpose()?;
                let holds = like(&value, &pattern, escape.as_deref())
                    .map(|found| Value::Bit(found.is_some_and(|found| found != *negated)));
                self.value(holds, Span::default(), self.policy(row))
            }
            Expr::Builtin { function, args, .. } if function.stops_early => {
                for arg in args {
                    let value = self.eval(arg, row)?;
                    if !value.is_null() {
                        return Ok(value);
                    }
                }
                owned(Value::Null)
            }
            Expr::Builtin { function, args, span } => {
                let call = function.call;
                let value = self.with_args(args, row, |_, values| call(values))?;
                self.value(value, *span, self.policy(row))
            }
            Expr::Udf { index, name, args, span, .. } => {
                let call = |env: &mut Env, values: &[Value]| match &mut env.functions {
                    Some(functions) => functions.call(*index, values, row.meta.time),
                    None => Err(RowError {
                        reason: "no_function",
                        message: format!("no host was given that runs udf.{name}"),
                    }),
                };
                let value = self.with_args(args, row, call)?;
                self.value(value, *span, self.policy_of_call(*index, row))
            }
            _ => {
                Err(self.fault(Fault("an expression that cannot fail was evaluated as one that can"), Span::default()))
            }
        }
    }

    fn cast<'a>(&mut self, is_try: bool, operand: &'a Expr, ty: Type, span: Span, row: Row<'a>) -> Evaluated<'a> {
        let value = self.eval(operand, row)?;
        if value.kind() == Some(ty) {
            return Ok(value);
        }
        match builtins::cast(&value, ty) {
            Err(_) if is_try => owned(Value::Null),
            result => self.value(result, span, self.policy(row)),
        }
    }

    /// A value, or what the policy makes of its error; inside `TryEvaluate` every error goes up to it.
    fn value<'a>(&mut self, result: Result<Value, RowError>, span: Span, policy: OnError) -> Evaluated<'a> {
        match result {
            Ok(value) => owned(value),
            Err(error) if self.trying > 0 && error.reason != FAULT => Err(Box::new(EvalError { error, span, policy })),
            Err(error) => self.settled(error, span, policy).map(Cow::Owned),
        }
    }

    #[cold]
    fn no_slot(&self, slot: usize, row: Row<'_>) -> Box<EvalError> {
        let what = format!("an expression reads column {slot} of a row of {}", row.values.len());
        self.fault(fault::row_error(what), Span::default())
    }

    /// Evaluates arguments and calls with them, without an allocation for short lists.
    fn with_args<T>(
        &mut self,
        args: &[Expr],
        row: Row<'_>,
        call: impl FnOnce(&mut Env, &[Value]) -> T,
    ) -> Result<T, Box<EvalError>> {
        let mut values: [Value; ARGS_INLINE] = Default::default();
        if let Some(values) = values.get_mut(..args.len()) {
            for (slot, arg) in values.iter_mut().zip(args) {
                *slot = self.eval(arg, row)?.into_owned();
            }
            return Ok(call(self, values));
        }
        let values = args.iter().map(|a| self.eval(a, row).map(Cow::into_owned)).collect::<Result<Vec<_>, _>>()?;
        Ok(call(self, &values))
    }

    /// Whether a predicate holds: NULL does not.
    pub(super) fn holds(&mut self, expr: &Expr, row: Row<'_>) -> Result<bool, Box<EvalError>> {
        if let Expr::Binary(op, a, b, _) = expr
            && matches!(op, BinaryOp::Eq | BinaryOp::Ne | BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge)
        {
            let a = self.eval(a, row)?;
            let b = self.eval(b, row)?;
            return Ok(builtins::compare_op(*op, &a, &b));
        }
        Ok(builtins::is_true(&*self.eval(expr, row)?))
    }

    /// Evaluates key expressions into `values`, and their bytes into `key`.
    pub(super) fn eval_key(&mut self, exprs: &[Expr], row: Row<'_>, key: &mut Vec<u8>) -> Result<(), Box<EvalError>> {
        key.clear();
        for expr in exprs {
            put_key(key, &*self.eval(expr, row)?);
        }
        Ok(())
    }
}

fn owned<'a>(value: Value) -> Evaluated<'a> {
    Ok(Cow::Owned(value))
}

fn bit<'a>(value: bool) -> Evaluated<'a> {
    Ok(Cow::Owned(Value::Bit(value)))
}

fn field<'v>(value: &'v Value, names: &[SmolStr]) -> Option<&'v Value> {
    names.iter().try_fold(value, |value, name| match value {
        Value::Record(record) => Arc::as_ref(record).find(name),
        _ => None,
    })
}

/// `LIKE` reads its operands as text. `None` where one is NULL: neither `LIKE` nor `NOT LIKE` holds.
fn like(value: &Value, pattern: &Value, escape: Option<&Value>) -> Result<Option<bool>, RowError> {
    if value.is_null() || pattern.is_null() {
        return Ok(None);
    }
    let text = |v: &Value| builtins::cast(v, Type::Text);
    let escape = match escape {
        Some(Value::Text(e)) => e.chars().next(),
        _ => None,
    };
    match (text(value)?, text(pattern)?) {
        (Value::Text(value), Value::Text(pattern)) => builtins::try_like(&value, &pattern, escape).map(Some),
        _ => Ok(Some(false)),
    }
}

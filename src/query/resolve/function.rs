//! User functions: `udf.name(…)`.
//!
//! In: a call and the catalog. Out: a compiled local call, or the slot that the answer of an endpoint will have.
//! Invariant: equal external calls with equal arguments are one call. Not here: where the plan is cut (`cut`).

use smol_str::SmolStr;

use super::call::{count, is_of_the_language};
use super::expression::{Clause, Place};
use super::relation::{ColumnId, ColumnInfo};
use super::select::Core;
use super::tree::same;
use super::{did_you_mean, scored_apart};
use crate::diagnostic::{Diagnostic, Span};
use crate::query::ast::{Arg, Call, ExprKind, Ident};
use crate::query::catalog::{FunctionDef, FunctionKind, Signature, folded};
use crate::query::plan::Expr;
use crate::value::Value;

/// A call that leaves the process, taken out of the expressions of a `SELECT`.
#[derive(Clone, Debug)]
pub(super) struct ExternalCall {
    pub(super) out: ColumnId,
    pub(super) function: SmolStr,
    pub(super) argument: Expr,
    pub(super) span: Span,
}

impl Core<'_, '_> {
    pub(super) fn user_call(&mut self, name: &Ident, call: &Call, span: Span, place: Place) -> Expr {
        let catalog = self.binder.catalog;
        let Some(function) = catalog.function(&name.name) else { return self.unknown_user_function(name, span) };
        if call.over.is_some() || call.distinct {
            let problem = Diagnostic::error(format!("`udf.{}` takes neither OVER nor DISTINCT", name.name), span)
                .label("a user function sees one row")
                .help("hand over what an aggregate gives: `udf.name(AVG(x))`");
            return self.refuse(problem);
        }
        let args: Option<Vec<&crate::query::ast::Expr>> = call
            .args
            .iter()
            .map(|arg| match arg {
                Arg::Expr(e) => Some(e),
                Arg::Star(_) => None,
            })
            .collect();
        let Some(args) = args else {
            let problem = Diagnostic::error(format!("`udf.{}` takes no `*`", name.name), span)
                .label("expected values")
                .help("the name of the input stands for the whole event: `udf.name(input)`");
            return self.refuse(problem);
        };
        let bound: Vec<Expr> = args.iter().map(|e| self.user_argument(e, place)).collect();
        match &function.kind {
            FunctionKind::Local { index, signature } => {
                if let Some(problem) = self.mismatch(name, signature, &args, &bound, span) {
                    return self.refuse(problem);
                }
                Expr::Udf { index: *index, name: name.name.clone(), args: bound, span }
            }
            FunctionKind::External => self.external_call(function, name, bound, span, place),
            FunctionKind::Unknown => Expr::Const(Value::Null),
        }
    }

    /// The name of an input or a step as an argument is the whole event, whatever columns it has.
    fn user_argument(&mut self, e: &crate::query::ast::Expr, place: Place) -> Expr {
        if let ExprKind::Path(path) = &e.kind
            && let [name] = path.as_slice()
            && self.names_whole_source(path)
            && let Some(index) = self.source_named(&name.name)
        {
            let whole = self.whole(index);
            super::tree::each_slot(&whole, &mut |id| self.uses.push((id, e.span)));
            return whole;
        }
        self.expr(e, place)
    }

    fn unknown_user_function(&mut self, name: &Ident, span: Span) -> Expr {
        let problem = Diagnostic::error(format!("unknown function `udf.{}`", name.name), span);
        if is_of_the_language(&name.name) {
            let help = format!("write `{}(…)`", name.name);
            return self.refuse(problem.label("a function of the language takes no prefix").help(help));
        }
        let names: Vec<&str> = self.binder.catalog.functions.iter().map(|f| f.name.as_str()).collect();
        let near = self.binder.catalog.functions.iter().find(|f| folded(&f.name).contains(&folded(&name.name)));
        let help = match near {
            _ if names.is_empty() => {
                format!("functions are those of a job file: `[functions.{}]`; `forebay eval` takes one with `--job`", name.name)
            }
            Some(near) if names.len() > 1 => format!("did you mean `{}`?", near.name),
            _ => did_you_mean(&name.name, &names, "function in the job file"),
        };
        self.refuse(problem.label("not a function of this job").help(help))
    }

    /// What is wrong between a call and the types of the component, both shown.
    fn mismatch(
        &self,
        name: &Ident,
        signature: &Signature,
        args: &[&crate::query::ast::Expr],
        bound: &[Expr],
        span: Span,
    ) -> Option<Diagnostic> {
        let types: Vec<String> =
            bound.iter().map(|e| self.binder.type_of(e).map_or_else(|| "any".to_owned(), |ty| ty.to_string())).collect();
        let both = |problem: Diagnostic| {
            problem.note(format!("the call: udf.{}({})", name.name, types.join(", "))).note(format!("the function: {}", signature.text))
        };
        let wanted = signature.params.len();
        if bound.len() < wanted || (bound.len() > wanted && signature.rest.is_none()) {
            let problem = Diagnostic::error(format!("`udf.{}` takes {}", name.name, count(wanted, wanted)), span)
                .label(format!("{} given", bound.len()));
            return Some(both(problem));
        }
        let mut pairs = signature.params.iter().zip(args).zip(bound);
        pairs.find_map(|((param, arg), value)| {
            let reason = self.binder.fits(value, &param.shape).err()?;
            let problem = Diagnostic::error(format!("`{}` of `udf.{}` cannot take this argument", param.name, name.name), arg.span)
                .label(reason)
                .help(format!("`{}` takes {}", param.name, param.shape));
            Some(both(problem))
        })
    }

    fn external_call(&mut self, function: &FunctionDef, name: &Ident, bound: Vec<Expr>, span: Span, place: Place) -> Expr {
        let given = bound.len();
        let (Some(argument), 1) = (bound.into_iter().next(), given) else {
            let problem = Diagnostic::error(format!("`udf.{}` takes one argument", name.name), span)
                .label(format!("{given} given"))
                .help("an endpoint scores one value a row: make an array of several with a function of yours, `udf.score(udf.createArray(a, b))`, or a record with a step, `WITH Row AS (SELECT a, b FROM input) SELECT udf.score(Row) FROM input`");
            return self.refuse(problem);
        };
        if let Some(problem) = forbidden(place, span) {
            return self.refuse(problem);
        }
        let above_groups = self.grouped && !place.in_aggregate && matches!(place.clause, Clause::Select | Clause::Having);
        // an equal call of the rows may be a grouping key; then this is that key
        if let Some(known) = self.known_call(&self.row_calls, &function.name, &argument) {
            let is_key = self.keys.iter().any(|(_, key)| super::tree::reads(key, &|id| id == known));
            if !above_groups || is_key {
                return self.answer(known, span);
            }
        }
        let argument = if above_groups { self.regroup(&argument) } else { argument };
        if above_groups && let Some(known) = self.known_call(&self.group_calls, &function.name, &argument) {
            return self.answer(known, span);
        }
        let out = self.binder.column(ColumnInfo { name: name.name.clone(), ..ColumnInfo::default() });
        let call = ExternalCall { out, function: function.name.as_str().into(), argument, span };
        if above_groups {
            self.group_calls.push(call)
        } else {
            self.row_calls.push(call)
        }
        self.answer(out, span)
    }

    fn known_call(&self, calls: &[ExternalCall], function: &str, argument: &Expr) -> Option<ColumnId> {
        let slots = |a: usize, b: usize| self.binder.same_column(a, b);
        calls.iter().find(|c| c.function == function && same(&c.argument, argument, &slots)).map(|c| c.out)
    }

    fn answer(&mut self, id: ColumnId, span: Span) -> Expr {
        self.uses.push((id, span));
        Expr::Slot(id)
    }
}

/// Places where an answer that comes later cannot be waited for.
fn forbidden(place: Place, span: Span) -> Option<Diagnostic> {
    if place.in_analytic {
        return Some(
            Diagnostic::error("a call that leaves the gateway inside an analytic function", span)
                .label("an analytic function takes plain values")
                .help("score in a step, `WITH Scored AS (SELECT …, udf.f(x) AS score FROM …)`, and use the column there"),
        );
    }
    match place.clause {
        Clause::On | Clause::TimestampBy | Clause::PartitionBy => Some(scored_apart(span, place.name())),
        Clause::Apply => Some(
            Diagnostic::error("a call that leaves the gateway inside APPLY", span)
                .label("APPLY takes a column")
                .help("score in a step, `WITH Scored AS (SELECT …, udf.f(x) AS answer FROM …)`, and apply to its column"),
        ),
        Clause::Select | Clause::Where | Clause::GroupBy | Clause::Having => None,
    }
}

/// Stands for a value after an error.
pub(super) fn null() -> Expr {
    Expr::Const(Value::Null)
}

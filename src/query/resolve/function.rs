//! User functions: `udf.name(…)`.
//!
//! In: a call and the catalog. Out: a compiled local call, or the slot that the answer of an endpoint will have.
//! Invariant: equal external calls with equal arguments are one call. Not here: where the plan is cut (`cut`).

use super::call::is_of_the_language;
use super::core::{Core, ExternalCall};
use super::hints::{count, did_you_mean, scored_apart};
use super::place::{Clause, Place};
use super::relation::{ColumnId, ColumnInfo};
use super::tree::{null, same};
use crate::diagnostic::{Diagnostic, Span};
use crate::query::ast::{Arg, Call, ExprKind, Ident};
use crate::query::catalog::{FunctionDef, FunctionKind, Signature, folded};
use crate::query::plan::Expr;
use crate::value::Value;

/// A user function or aggregate as a call sees it.
pub(super) struct User<'a> {
    /// with its prefix, as the query writes it
    pub(super) shown: &'a str,
    /// `function` or `aggregate`
    pub(super) kind: &'a str,
    pub(super) signature: &'a Signature,
    pub(super) may_omit_last: bool,
}

impl Core<'_, '_> {
    pub(super) fn user_call(&mut self, name: &Ident, call: &Call, span: Span, place: Place) -> Expr {
        let catalog = self.binder.catalog;
        let Some(function) = catalog.function(&name.name) else { return self.unknown_user_function(name, span) };
        if let FunctionKind::Aggregate { .. } = function.kind {
            return self.aggregate_as_function(name, span);
        }
        if call.over.is_some() || call.distinct {
            let problem = Diagnostic::error(format!("`udf.{}` takes neither OVER nor DISTINCT", name.name), span)
                .label("a user function sees one row")
                .help("hand over what an aggregate gives: `udf.name(AVG(x))`");
            return self.refuse(problem);
        }
        let shown = format!("udf.{}", name.name);
        let Some((args, bound)) = self.user_arguments(&shown, call, span, place) else { return null() };
        match &function.kind {
            FunctionKind::Local { index, signature, keeps_state } => {
                let user = User { shown: &shown, kind: "function", signature, may_omit_last: false };
                if let Some(problem) = self.mismatch(&user, &args, &bound, span) {
                    return self.refuse(problem);
                }
                if *keeps_state && let Some(problem) = unordered(&name.name, place, span) {
                    return self.refuse(problem);
                }
                Expr::Udf { index: *index, name: name.name.clone(), args: bound, span, keeps_state: *keeps_state }
            }
            FunctionKind::External => self.external_call(function, name, bound, span, place),
            FunctionKind::Aggregate { .. } | FunctionKind::Unknown => Expr::Const(Value::Null),
        }
    }

    /// The arguments of a call and what they are bound to; `None` when something was reported.
    pub(super) fn user_arguments<'c>(
        &mut self,
        shown: &str,
        call: &'c Call,
        span: Span,
        place: Place,
    ) -> Option<(Vec<&'c crate::query::ast::Expr>, Vec<Expr>)> {
        let expr = |arg: &'c Arg| match arg {
            Arg::Expr(e) => Some(e),
            Arg::Star(_) => None,
        };
        let Some(args) = call.args.iter().map(expr).collect::<Option<Vec<_>>>() else {
            let prefix = shown.split('.').next().unwrap_or_default();
            let problem = Diagnostic::error(format!("`{shown}` takes no `*`"), span)
                .label("expected values")
                .help(format!("the name of the input stands for the whole event: `{prefix}.name(input)`"));
            self.binder.problem(problem);
            return None;
        };
        let bound = args.iter().map(|e| self.user_argument(e, place)).collect();
        Some((args, bound))
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
        let problem =
            Diagnostic::error(format!("unknown function `udf.{}`", name.name), Span::new(span.start, name.span.end));
        if is_of_the_language(&name.name) {
            let help = format!("write `{}(…)`", name.name);
            return self.refuse(problem.label("a function of the language takes no prefix").help(help));
        }
        let is_function = |f: &&FunctionDef| !matches!(f.kind, FunctionKind::Aggregate { .. });
        let known: Vec<&FunctionDef> = self.binder.catalog.functions.iter().filter(is_function).collect();
        let names: Vec<&str> = known.iter().map(|f| f.name.as_str()).collect();
        let near = known.iter().find(|f| folded(&f.name).contains(&folded(&name.name)));
        let help = match near {
            _ if names.is_empty() => {
                format!(
                    "functions are those of a job file: `[functions.{}]`; `forebay eval` takes one with `--job`",
                    name.name
                )
            }
            Some(near) if names.len() > 1 => format!("did you mean `{}`?", near.name),
            _ => did_you_mean(&name.name, &names, "function in the job file"),
        };
        self.refuse(problem.label("not a function of this job").help(help))
    }

    /// What is wrong between a call and the types of the component, both shown.
    pub(super) fn mismatch(
        &self,
        user: &User<'_>,
        args: &[&crate::query::ast::Expr],
        bound: &[Expr],
        span: Span,
    ) -> Option<Diagnostic> {
        let types: Vec<String> = bound
            .iter()
            .map(|e| self.binder.type_of(e).map_or_else(|| "any".to_owned(), |ty| ty.to_string()))
            .collect();
        let both = |problem: Diagnostic| {
            let call = problem.note(format!("the call: {}({})", user.shown, types.join(", ")));
            call.note(format!("the {}: {}", user.kind, user.signature.text))
        };
        let most = user.signature.params.len();
        let fewest = most.saturating_sub(usize::from(user.may_omit_last));
        if bound.len() < fewest || (bound.len() > most && user.signature.rest.is_none()) {
            let problem = Diagnostic::error(format!("`{}` takes {}", user.shown, count(fewest, most)), span)
                .label(format!("{} given", bound.len()));
            return Some(both(problem));
        }
        let mut pairs = user.signature.params.iter().zip(args).zip(bound);
        pairs.find_map(|((param, arg), value)| {
            let reason = self.binder.fits(value, &param.shape).err()?;
            let problem =
                Diagnostic::error(format!("`{}` of `{}` cannot take this argument", param.name, user.shown), arg.span)
                    .label(reason)
                    .help(format!("`{}` takes {}", param.name, param.shape));
            Some(both(problem))
        })
    }

    fn external_call(
        &mut self,
        function: &FunctionDef,
        name: &Ident,
        bound: Vec<Expr>,
        span: Span,
        place: Place,
    ) -> Expr {
        let given = bound.len();
        let (Some(argument), 1) = (bound.into_iter().next(), given) else {
            let problem = Diagnostic::error(format!("`udf.{}` takes one argument", name.name), span)
                .label(format!("{given} given"))
                .help(
                    "an endpoint scores one value a row: make an array of several with a function of yours, \
                    `udf.score(udf.createArray(a, b))`, or a record with a step, `WITH Row AS (SELECT a, b FROM input) \
                    SELECT udf.score(Row) FROM input`",
                );
            return self.refuse(problem);
        };
        if let Some(problem) = forbidden(place, span) {
            return self.refuse(problem);
        }
        let above_groups =
            self.grouped && !place.in_aggregate && matches!(place.clause, Clause::Select | Clause::Having);
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
                .help(
                    "score in a step, `WITH Scored AS (SELECT …, udf.f(x) AS score FROM …)`, and use the column there",
                ),
        );
    }
    match place.clause {
        Clause::On | Clause::TimestampBy | Clause::PartitionBy | Clause::Match => {
            Some(scored_apart(span, place.name()))
        }
        Clause::Apply => Some(
            Diagnostic::error("a call that leaves the gateway inside APPLY", span).label("APPLY takes a column").help(
                "score in a step, `WITH Scored AS (SELECT …, udf.f(x) AS answer FROM …)`, and apply to its column",
            ),
        ),
        Clause::Select | Clause::Where | Clause::GroupBy | Clause::Having => None,
    }
}

/// Places where a function is called for other than the rows of the query, one after another.
fn unordered(name: &str, place: Place, span: Span) -> Option<Diagnostic> {
    let is_ordered = !place.in_analytic
        && !matches!(place.clause, Clause::On | Clause::TimestampBy | Clause::PartitionBy | Clause::Match);
    (!is_ordered).then(|| {
        Diagnostic::error(format!("`udf.{name}` keeps state and cannot stand in {}", place.name()), span)
            .label("it is not called once a row here")
            .help(format!(
                "call it in a step, `WITH s AS (SELECT …, udf.{name}(x) AS y FROM …)`, and use the column there"
            ))
    })
}

//! User aggregates: `uda.name(…)`.
//!
//! In: a call and the catalog. Out: the slot of the aggregate's value. Invariant: the number of arguments is one that
//! `accumulate` can be called with. Not here: where aggregates may stand (`aggregate`), arguments (`function`).

use super::call::is_of_the_language;
use super::core::Core;
use super::function::User;
use super::hints::did_you_mean;
use super::place::Place;
use super::tree::null;
use crate::diagnostic::{Diagnostic, Span};
use crate::query::ast::{Call, Ident};
use crate::query::catalog::{FunctionDef, FunctionKind, Shape, folded};
use crate::query::plan::{Aggregate, AggregateFunction, Expr, UserAggregateCall};

impl Core<'_, '_> {
    pub(super) fn user_aggregate(&mut self, name: &Ident, call: &Call, span: Span, place: Place) -> Expr {
        let catalog = self.binder.catalog;
        let Some(function) = catalog.function(&name.name) else { return self.unknown_user_aggregate(name, span) };
        let (index, signature, offers) = match &function.kind {
            FunctionKind::Aggregate { index, signature, offers } => (*index, signature, *offers),
            FunctionKind::Unknown => return null(),
            FunctionKind::Local { .. } | FunctionKind::External => {
                let problem = Diagnostic::error(format!("`{}` is no aggregate", name.name), span)
                    .label("a function of single rows")
                    .help(format!("write `udf.{}(…)`", name.name));
                return self.refuse(problem);
            }
        };
        let shown = format!("uda.{}", name.name);
        if let Some(problem) = refused_parts(&shown, call, span) {
            return self.refuse(problem);
        }
        let help = format!(
            "add `GROUP BY TumblingWindow(second, 10)`, or another window, and `{shown}` has the rows of that window"
        );
        if let Some(problem) = self.misplaced_aggregate(&shown, help, span, place) {
            return self.refuse(problem);
        }
        let inner = Place { in_aggregate: true, ..place };
        let Some((args, bound)) = self.user_arguments(&shown, call, span, inner) else { return null() };
        let user = User { shown: &shown, kind: "aggregate", signature, may_omit_last: offers.time };
        if let Some(problem) = self.mismatch(&user, &args, &bound, span) {
            return self.refuse(problem);
        }
        let required =
            signature.params.iter().map(|p| !matches!(p.shape, Shape::Option(_))).take(bound.len()).collect();
        let aggregate = Aggregate {
            function: AggregateFunction::User(UserAggregateCall {
                index,
                name: function.name.as_str().into(),
                required,
                offers,
            }),
            argument: None,
            user_args: bound,
            distinct: false,
            order_by: Vec::new(),
            span,
        };
        self.aggregate_slot(name, aggregate, signature.result.kind())
    }

    fn unknown_user_aggregate(&mut self, name: &Ident, span: Span) -> Expr {
        let problem = Diagnostic::error(format!("unknown aggregate `uda.{}`", name.name), span);
        if is_of_the_language(&name.name) {
            let help = format!("write `{}(…)`", name.name);
            return self.refuse(problem.label("a function of the language takes no prefix").help(help));
        }
        let is_aggregate = |f: &&FunctionDef| matches!(f.kind, FunctionKind::Aggregate { .. });
        let known: Vec<&FunctionDef> = self.binder.catalog.functions.iter().filter(is_aggregate).collect();
        let names: Vec<&str> = known.iter().map(|f| f.name.as_str()).collect();
        let near = known.iter().find(|f| folded(&f.name).contains(&folded(&name.name)));
        let help = match near {
            _ if names.is_empty() => format!(
                "aggregates are resources of components in a job file: `[functions.{}]`; `forebay eval` takes one with \
                `--job`",
                name.name
            ),
            Some(near) if names.len() > 1 => format!("did you mean `{}`?", near.name),
            _ => did_you_mean(&name.name, &names, "aggregate in the job file"),
        };
        self.refuse(problem.label("not an aggregate of this job").help(help))
    }

    /// `udf.` before an aggregate.
    pub(super) fn aggregate_as_function(&mut self, name: &Ident, span: Span) -> Expr {
        let problem = Diagnostic::error(format!("`{}` is an aggregate", name.name), span)
            .label("it takes the rows of a window")
            .help(format!("write `uda.{}(…)`, with a window in GROUP BY", name.name));
        self.refuse(problem)
    }
}

/// What an aggregate of the language may have and a user aggregate may not.
fn refused_parts(shown: &str, call: &Call, span: Span) -> Option<Diagnostic> {
    if let Some(over) = &call.over {
        let problem = Diagnostic::error(format!("`{shown}` takes no OVER"), over.span);
        let problem = problem.label("a user aggregate has the rows of a window, and no other form");
        return Some(problem.help("group with a window; `SlidingWindow(second, 10)` looks back from each row"));
    }
    if call.distinct {
        let problem = Diagnostic::error(format!("DISTINCT in `{shown}`"), span).label("DISTINCT stands in COUNT only");
        return Some(problem.help("remove repeats in a step before: group by the columns and System.Timestamp()"));
    }
    None
}

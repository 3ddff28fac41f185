//! Calls of the language's own functions.
//!
//! In: a call as written. Out: a compiled call, or the slot of an aggregate or analytic function. Invariant: every
//! compiled call has a possible number of arguments and date parts under their canonical names. Not here: user
//! functions (`function`), aggregates, analytic functions and windows beyond telling them apart.

use super::aggregate::{self, is_aggregate};
use super::analytic::{is_analytic, is_over_history};
use super::core::Core;
use super::hints::count;
use super::place::Place;
use super::{constant, foreign, window};
use crate::diagnostic::{Diagnostic, Span, suggest};
use crate::query::ast::{Arg, Call, Ident};
use crate::query::builtins::{self, Builtin};
use crate::query::date_part::DatePart;
use crate::query::plan::Expr;
use crate::value::Value;

/// Names of calls that are no scalar functions, for suggestions.
const OTHER_CALLS: [&str; 4] = ["TryEvaluate", "GetMetadataPropertyValue", "GETUTCDATE", "System.Timestamp"];

/// Date parts by their full names, for suggestions.
const DATE_PARTS: [&str; 12] = [
    "year",
    "quarter",
    "month",
    "dayofyear",
    "day",
    "week",
    "weekday",
    "hour",
    "minute",
    "second",
    "millisecond",
    "microsecond",
];

impl Core<'_, '_> {
    pub(super) fn call(&mut self, call: &Call, span: Span, place: Place) -> Expr {
        match call.name.as_slice() {
            [name] => self.plain_call(name, call, span, place),
            [prefix, name] if prefix.name.eq_ignore_ascii_case("udf") => self.user_call(name, call, span, place),
            [prefix, name] if prefix.name.eq_ignore_ascii_case("uda") => self.user_aggregate(name, call, span, place),
            _ => self.prefixed_call(call, span),
        }
    }

    /// Reports a problem; the value is NULL.
    pub(super) fn refuse(&mut self, problem: Diagnostic) -> Expr {
        self.binder.problem(problem);
        Expr::Const(Value::Null)
    }

    fn prefixed_call(&mut self, call: &Call, span: Span) -> Expr {
        let Some(name) = call.name.last() else {
            self.binder.fault("a call has no name", span);
            return Expr::Const(Value::Null);
        };
        let written: Vec<&str> = call.name.iter().map(|part| part.name.as_str()).collect();
        let problem = Diagnostic::error(
            format!("unknown function `{}`", written.join(".")),
            Span::new(span.start, name.span.end),
        );
        self.refuse(if is_of_the_language(&name.name) {
            problem.label("a function of the language takes no prefix").help(format!("write `{}(…)`", name.name))
        } else if let Some(function) = self.binder.catalog.function(&name.name) {
            let prefix = function.prefix();
            let what = if prefix == "uda" { "aggregates" } else { "functions" };
            problem
                .label(format!("user {what} have the prefix `{prefix}`"))
                .help(format!("write `{prefix}.{}(…)`", name.name))
        } else {
            problem.label("no such function").help("user functions are called as `udf.name(…)`")
        })
    }

    fn plain_call(&mut self, name: &Ident, call: &Call, span: Span, place: Place) -> Expr {
        if window::is_window(&name.name) {
            let problem =
                Diagnostic::error(format!("the window function `{}` stands outside of GROUP BY", name.name), span)
                    .label("a window belongs to GROUP BY")
                    .help(format!("write `GROUP BY …, {}(…)`", name.name));
            return self.refuse(problem);
        }
        if is_analytic(&name.name) || (is_aggregate(&name.name) && is_over_history(call)) {
            return self.analytic(name, call, span, place);
        }
        if is_aggregate(&name.name) {
            return self.aggregate(name, call, span, place);
        }
        if let Some(over) = &call.over {
            if !is_scalar(&name.name) {
                return self.unknown_function(name);
            }
            let problem = Diagnostic::error(format!("`{}` takes no OVER", name.name), over.span)
                .label("only aggregates and analytic functions look at other rows")
                .help("remove OVER (…)");
            return self.refuse(problem);
        }
        if call.distinct {
            let problem = Diagnostic::error(format!("`{}` takes no DISTINCT", name.name), span)
                .label("DISTINCT stands in COUNT only")
                .help("remove DISTINCT");
            return self.refuse(problem);
        }
        match name.name.to_ascii_lowercase().as_str() {
            "getmetadatapropertyvalue" => self.metadata(call, span),
            "tryevaluate" => self.try_evaluate(call, span, place),
            "getutcdate" if call.args.is_empty() => Expr::Arrival,
            "getarrayelements" | "getelements" | "getrecordproperties" => {
                let problem = Diagnostic::error(format!("`{}` stands only in APPLY", name.name), span)
                    .label("it gives rows, not a value")
                    .help(format!("write `FROM input CROSS APPLY {}(…) AS x`", name.name));
                self.refuse(problem)
            }
            _ => match builtins::lookup(&name.name) {
                Some(function) => self.builtin(function, call, span, place),
                None => self.unknown_function(name),
            },
        }
    }

    fn builtin(&mut self, function: &'static Builtin, call: &Call, span: Span, place: Place) -> Expr {
        let (fewest, most) = function.args;
        if call.args.len() < fewest || call.args.len() > most {
            let problem = Diagnostic::error(format!("{} takes {}", function.name, count(fewest, most)), span)
                .label(format!("{} given", call.args.len()));
            return self.refuse(problem);
        }
        let mut args = Vec::with_capacity(call.args.len());
        for (i, arg) in call.args.iter().enumerate() {
            args.push(match arg {
                arg if i == 0 && function.takes_date_part => self.date_part(function.name, arg),
                Arg::Expr(e) => match self.source_time_argument(call, arg, place) {
                    Some(time) => time,
                    None => self.expr(e, place),
                },
                Arg::Star(at) => {
                    let problem =
                        Diagnostic::error(format!("{} takes no `*`", function.name), *at).label("expected a value");
                    self.refuse(problem)
                }
            });
        }
        Expr::Builtin { function, args, span }
    }

    /// `TryEvaluate(expression)`, which an article on the service uses: NULL in place of an error.
    fn try_evaluate(&mut self, call: &Call, span: Span, place: Place) -> Expr {
        let [Arg::Expr(argument)] = call.args.as_slice() else {
            let problem =
                Diagnostic::error("TryEvaluate takes one expression", span).label(format!("{} given", call.args.len()));
            return self.refuse(problem.help("write `TryEvaluate(a / b)`: NULL where it fails"));
        };
        let calls = self.row_calls.len() + self.group_calls.len();
        let value = self.expr(argument, place);
        if self.row_calls.len() + self.group_calls.len() > calls {
            let problem = Diagnostic::error("a call that leaves the gateway inside TryEvaluate", span)
                .label("its answer comes later, with a policy of its own")
                .help(
                    "write the call without TryEvaluate and set `on_error = \"null\"` in the function's section of the \
                    job file",
                );
            return self.refuse(problem);
        }
        Expr::Try(Box::new(value))
    }

    fn date_part(&mut self, function: &str, arg: &Arg) -> Expr {
        let word = constant::word(arg);
        if let Some(part) = word.and_then(|word| DatePart::parse(&word.name)) {
            return Expr::Const(Value::text(part.name()));
        }
        let at = match arg {
            Arg::Expr(e) => e.span,
            Arg::Star(at) => *at,
        };
        let near = word.and_then(|word| suggest(&word.name, DATE_PARTS));
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("date parts are {}", DATE_PARTS.join(", ")),
        };
        let title = match word {
            Some(word) => format!("unknown date part `{}`", word.name),
            None => format!("{function} begins with a date part"),
        };
        self.refuse(Diagnostic::error(title, at).label("expected a date part such as `second`").help(help))
    }

    fn unknown_function(&mut self, name: &Ident) -> Expr {
        let problem =
            Diagnostic::error(format!("unknown function `{}`", name.name), name.span).label("no such function");
        if let Some(function) = self.binder.catalog.function(&name.name) {
            let help = format!("user functions have a prefix: write `{}.{}(…)`", function.prefix(), name.name);
            return self.refuse(problem.help(help));
        }
        if let Some(hint) = foreign::hint(&name.name) {
            return self.refuse(problem.help(hint));
        }
        let names: Vec<&str> = builtins::names()
            .chain(aggregate::NAMES)
            .chain(super::analytic::NAMES)
            .chain(window::NAMES)
            .chain(OTHER_CALLS)
            .collect();
        let help = match suggest(&name.name, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "the language has no function of this name; write one and call it as `udf.name(…)`".to_owned(),
        };
        self.refuse(problem.help(help))
    }
}

/// Whether a value of one row may be called so.
fn is_scalar(name: &str) -> bool {
    let others = OTHER_CALLS.iter().chain(&["GetArrayElements", "GetElements", "GetRecordProperties"]);
    builtins::lookup(name).is_some() || others.into_iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Whether the language itself has a function of this name.
pub(super) fn is_of_the_language(name: &str) -> bool {
    builtins::lookup(name).is_some() || is_aggregate(name) || is_analytic(name) || window::is_window(name)
}

//! Analytic functions: values of earlier rows beside the present one.
//!
//! In: `LAG`, `LAST`, `ISFIRST`, the anomaly functions, and aggregates with `LIMIT DURATION`. Out: the slot of the
//! value. Invariant: an analytic function is evaluated over all rows of its source, before joins and WHERE. Not here:
//! keeping the rows (`engine`).

use super::aggregate::AggregateCall;
use super::constant;
use super::core::Core;
use super::place::{Clause, Place};
use super::relation::ColumnInfo;
use super::tree::{each_slot, null, same_analytic};
use crate::diagnostic::{Diagnostic, Span, counted, suggest};
use crate::query::ast::{Arg, Call, Ident, LimitDuration, Over};
use crate::query::plan::{AggregateFunction, Analytic, AnalyticFunction, Expr, SpikeMode};
use crate::time::TICKS_PER_DAY;
use crate::value::Type;

/// The functions that are analytic only, as the documents spell them.
pub(in crate::query) const NAMES: [&str; 5] =
    ["LAG", "LAST", "ISFIRST", "AnomalyDetection_SpikeAndDip", "AnomalyDetection_ChangePoint"];

/// Rows that `LAG` may look back and the anomaly functions may learn from: each is kept for every partition.
const HISTORY_MAX: i64 = 100_000;

pub(super) fn is_analytic(name: &str) -> bool {
    NAMES.iter().any(|n| n.eq_ignore_ascii_case(name))
}

/// Whether an aggregate's OVER asks for history instead of an order inside the group.
pub(super) fn is_over_history(call: &Call) -> bool {
    call.over.as_ref().is_some_and(|over| {
        over.limit.is_some() || over.when.is_some() || !over.partition_by.is_empty() || over.order_by.is_empty()
    })
}

/// Where the rows come from that an analytic function sees.
enum SeenFrom {
    Source(usize),
    /// All sources of the FROM together: one stream with its APPLYs and reference data.
    Joined,
}

impl Core<'_, '_> {
    pub(super) fn analytic(&mut self, name: &Ident, call: &Call, span: Span, place: Place) -> Expr {
        if let Some(problem) = misplaced(name, span, place) {
            return self.refuse(problem);
        }
        let inner = Place { in_analytic: true, ..place };
        let Some(mut analytic) = self.analytic_function(name, call, span, inner) else { return null() };
        let over = call.over.clone().unwrap_or_default();
        analytic.partition_by = over.partition_by.iter().map(|e| self.expr(e, inner)).collect();
        analytic.when = over.when.as_ref().map(|e| self.expr(e, inner));
        let Some(seen) = self.seen_by(&analytic, name, span, place) else { return null() };
        let ty = self.type_of_analytic(&analytic);
        let slots = |a: usize, b: usize| self.binder.same_column(a, b);
        let known = match &seen {
            SeenFrom::Source(index) => self.sources.get(*index).map(|s| &s.analytics),
            SeenFrom::Joined => Some(&self.analytics),
        };
        let known =
            known.and_then(|list| list.iter().find(|(_, a)| same_analytic(a, &analytic, &slots))).map(|(id, _)| *id);
        let id = known.unwrap_or_else(|| {
            let id = self.binder.column(ColumnInfo { name: name.name.clone(), ty, ..ColumnInfo::default() });
            match seen {
                SeenFrom::Source(index) => {
                    self.owner.insert(id, index);
                    if let Some(source) = self.sources.get_mut(index) {
                        source.analytics.push((id, analytic));
                    }
                }
                SeenFrom::Joined => self.analytics.push((id, analytic)),
            }
            id
        });
        self.uses.push((id, span));
        Expr::Slot(id)
    }

    fn analytic_function(&mut self, name: &Ident, call: &Call, span: Span, inner: Place) -> Option<Analytic> {
        let lower = name.name.to_ascii_lowercase();
        if call.distinct {
            let problem = Diagnostic::error(format!("DISTINCT in `{}` with OVER", name.name), span)
                .label("distinct values are counted per window only")
                .help("use `COUNT(DISTINCT x)` with GROUP BY and a window");
            self.binder.problem(problem);
            return None;
        }
        if lower == "isfirst" {
            return self.is_first(name, call, span);
        }
        let limit = self.limit(name, call.over.as_ref(), span);
        let blank = |function, argument| Analytic {
            function,
            argument,
            default: None,
            partition_by: Vec::new(),
            order_by: Vec::new(),
            limit,
            when: None,
            span,
        };
        let analytic = match lower.as_str() {
            "lag" | "last" => self
                .lag(name, &lower, call, span, inner)
                .map(|(function, argument, default)| Analytic { default, ..blank(function, Some(argument)) }),
            "anomalydetection_spikeanddip" | "anomalydetection_changepoint" => self
                .anomaly(name, &lower, call, span, inner)
                .map(|(function, argument)| blank(function, Some(argument))),
            _ => self.over_history(name, call, span, inner).map(|taken| Analytic {
                order_by: taken.order_by,
                ..blank(AnalyticFunction::Aggregate(taken.function), taken.argument)
            }),
        }?;
        limit.is_some().then_some(analytic)
    }

    fn over_history(&mut self, name: &Ident, call: &Call, span: Span, inner: Place) -> Option<AggregateCall> {
        use AggregateFunction::{Avg, Collect, CollectTop, Count, Max, Min, Sum, TopOne};
        let taken = self.taken(name, call, span, inner)?;
        if matches!(taken.function, Sum | Avg | Min { .. } | Max { .. } | Count | Collect | TopOne | CollectTop { .. })
        {
            return Some(taken);
        }
        let problem = Diagnostic::error(format!("`{}` has no analytic form", name.name), span)
            .label("not with PARTITION BY, LIMIT DURATION or WHEN")
            .help("use it with GROUP BY and a window");
        self.binder.problem(problem);
        None
    }

    /// `LAG(x|* [, offset [, default]])`, `LAST(x|* [, default])`.
    fn lag(
        &mut self,
        name: &Ident,
        lower: &str,
        call: &Call,
        span: Span,
        inner: Place,
    ) -> Option<(AnalyticFunction, Expr, Option<Expr>)> {
        self.no_order(name, call.over.as_ref())?;
        let (first, rest) = match call.args.split_first() {
            Some(split) if call.args.len() <= if lower == "lag" { 3 } else { 2 } => split,
            _ => {
                let form = if lower == "lag" { "LAG(x, 1, default)" } else { "LAST(x, default)" };
                let problem =
                    Diagnostic::error(format!("`{}` takes a value and no more than its options", name.name), span)
                        .label(format!("{} given", counted(call.args.len(), "argument")))
                        .help(format!("write `{form} OVER (LIMIT DURATION(minute, 5))`"));
                self.binder.problem(problem);
                return None;
            }
        };
        let argument = match first {
            Arg::Star(_) => self.whole_row(),
            Arg::Expr(e) => self.expr(e, inner),
        };
        let (function, default) = match (lower, rest) {
            ("lag", [offset, default @ ..]) => {
                (AnalyticFunction::Lag { offset: self.offset(offset, span)? }, default.first())
            }
            ("lag", []) => (AnalyticFunction::Lag { offset: 1 }, None),
            (_, rest) => (AnalyticFunction::Last, rest.first()),
        };
        let default = match default {
            Some(Arg::Expr(e)) => Some(self.expr(e, inner)),
            _ => None,
        };
        Some((function, argument, default))
    }

    fn offset(&mut self, arg: &Arg, span: Span) -> Option<usize> {
        let (number, at) = match arg {
            Arg::Expr(e) => (constant::whole(e), e.span),
            Arg::Star(at) => (None, *at),
        };
        let offset = number.filter(|n| (1..=HISTORY_MAX).contains(n)).and_then(|n| usize::try_from(n).ok());
        if offset.is_none() {
            let problem = Diagnostic::error(
                "the offset of LAG is a literal whole number",
                at.to(Span { start: at.start, end: at.end.min(span.end) }),
            )
            .label(format!("expected 1 to {HISTORY_MAX}"))
            .help("`LAG(x, 1)` is the row before; the present row is `x` itself");
            self.binder.problem(problem);
        }
        offset
    }

    /// `ISFIRST(unit, n) [OVER ([PARTITION BY …] [WHEN …])]`
    fn is_first(&mut self, name: &Ident, call: &Call, span: Span) -> Option<Analytic> {
        self.no_order(name, call.over.as_ref())?;
        if let Some(limit) = call.over.as_ref().and_then(|over| over.limit.as_ref()) {
            let problem = Diagnostic::error("ISFIRST takes no LIMIT DURATION", limit.span)
                .label("its interval is its argument")
                .help("write `ISFIRST(minute, 10) OVER (PARTITION BY k)`");
            self.binder.problem(problem);
            return None;
        }
        let (Some(Arg::Expr(size)), Some(unit), 2) =
            (call.args.get(1), call.args.first().and_then(constant::word), call.args.len())
        else {
            let problem = Diagnostic::error("ISFIRST takes a unit and a size", span)
                .label("expected a unit such as `minute` and a whole number")
                .help("write `ISFIRST(minute, 10)`");
            self.binder.problem(problem);
            return None;
        };
        let interval = self.length("an ISFIRST interval", unit, size)?;
        Some(Analytic {
            function: AnalyticFunction::IsFirst { interval },
            argument: None,
            default: None,
            partition_by: Vec::new(),
            order_by: Vec::new(),
            limit: None,
            when: None,
            span,
        })
    }

    /// `AnomalyDetection_SpikeAndDip(x, confidence, history, mode)`, `AnomalyDetection_ChangePoint(x, confidence,
    /// history)`.
    fn anomaly(
        &mut self,
        name: &Ident,
        lower: &str,
        call: &Call,
        span: Span,
        inner: Place,
    ) -> Option<(AnalyticFunction, Expr)> {
        self.no_order(name, call.over.as_ref())?;
        let spikes = lower == "anomalydetection_spikeanddip";
        let fail = |core: &mut Self, title: String, at: Span, label: &str| {
            let form = if spikes { ", 'spikesanddips'" } else { "" };
            let help = format!("write `{}(x, 95, 120{form}) OVER (LIMIT DURATION(second, 120))`", name.name);
            core.binder.problem(Diagnostic::error(title, at).label(label).help(help));
            None
        };
        let args: Option<Vec<_>> =
            call.args.iter().map(|a| if let Arg::Expr(e) = a { Some(e) } else { None }).collect();
        let Some(args) = args else {
            return fail(self, format!("`{}` takes no `*`", name.name), span, "expected a number to look at");
        };
        let (value, confidence, history, mode) = match (args.as_slice(), spikes) {
            ([value, confidence, history, mode], true) => (value, confidence, history, Some(mode)),
            ([value, confidence, history], false) => (value, confidence, history, None),
            _ => {
                let wanted = if spikes { 4 } else { 3 };
                return fail(
                    self,
                    format!("`{}` takes {wanted} arguments", name.name),
                    span,
                    "wrong number of arguments",
                );
            }
        };
        let Some(confidence_value) = constant::number(confidence).filter(|c| (1.0..=100.0).contains(c)) else {
            return fail(
                self,
                "the confidence is a literal from 1 to 100".into(),
                confidence.span,
                "not a confidence in percent",
            );
        };
        let size =
            constant::whole(history).filter(|n| (1..=HISTORY_MAX).contains(n)).and_then(|n| usize::try_from(n).ok());
        let Some(size) = size else {
            let label = format!("expected 1 to {HISTORY_MAX}");
            return fail(self, "the history size is a literal whole number".into(), history.span, &label);
        };
        let function = match mode {
            None => AnalyticFunction::ChangePoint { confidence: confidence_value, history: size },
            Some(e) => match constant::text(e).map(str::to_ascii_lowercase).as_deref() {
                Some("spikes") => spike(confidence_value, size, SpikeMode::Spikes),
                Some("dips") => spike(confidence_value, size, SpikeMode::Dips),
                Some("spikesanddips") => spike(confidence_value, size, SpikeMode::SpikesAndDips),
                _ => {
                    return fail(
                        self,
                        "the mode is 'spikes', 'dips' or 'spikesanddips'".into(),
                        e.span,
                        "expected one of the three",
                    );
                }
            },
        };
        Some((function, self.expr(value, inner)))
    }

    fn no_order(&mut self, name: &Ident, over: Option<&Over>) -> Option<()> {
        let Some(item) = over.and_then(|over| over.order_by.first()) else { return Some(()) };
        let problem = Diagnostic::error(format!("`{}` takes no ORDER BY", name.name), item.expr.span)
            .label("rows are always in the order of time")
            .help("remove ORDER BY");
        self.binder.problem(problem);
        None
    }

    /// `LIMIT DURATION(unit, n)` in ticks; mandatory.
    fn limit(&mut self, name: &Ident, over: Option<&Over>, span: Span) -> Option<i64> {
        let Some(LimitDuration { unit, count, .. }) = over.and_then(|over| over.limit.as_ref()) else {
            let (problem, at) = match over {
                Some(over) => ("without LIMIT DURATION", over.span),
                None => ("without OVER", span),
            };
            let problem = Diagnostic::error(format!("the analytic function `{}` {problem}", name.name), at)
                .label("how far may it look back?")
                .help(format!("write `{}(…) OVER (LIMIT DURATION(minute, 5))`", name.name));
            self.binder.problem(problem);
            return None;
        };
        self.length("a LIMIT DURATION", unit, count)
    }

    /// A length of history in ticks: units as in DATEDIFF, as far as their length is fixed.
    pub(super) fn length(&mut self, what: &str, unit: &Ident, count: &crate::query::ast::Expr) -> Option<i64> {
        let lower = unit.name.to_ascii_lowercase();
        let week = matches!(lower.as_str(), "week" | "wk" | "ww").then_some(7 * TICKS_PER_DAY);
        let Some(ticks) = week.or_else(|| constant::unit_ticks(&lower)) else {
            let help = match suggest(&unit.name, constant::UNITS) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("units of fixed length are week, {}", constant::UNITS.join(", ")),
            };
            let problem = Diagnostic::error(format!("unknown unit `{}`", unit.name), unit.span)
                .label("expected a unit such as `second`")
                .help(help);
            self.binder.problem(problem);
            return None;
        };
        let length = constant::whole(count).filter(|n| *n > 0).and_then(|n| n.checked_mul(ticks));
        if length.is_none() {
            let problem = Diagnostic::error(format!("the size of {what} is a positive whole number"), count.span)
                .label("expected a literal such as `10`");
            self.binder.problem(problem);
        }
        length
    }

    /// The rows an analytic function sees: those of the one source that it reads.
    fn seen_by(&mut self, analytic: &Analytic, name: &Ident, span: Span, place: Place) -> Option<SeenFrom> {
        let mut read: Vec<usize> = Vec::new();
        for part in analytic.exprs() {
            each_slot(part, &mut |id| read.extend(self.owner.get(&id)));
        }
        read.sort_unstable();
        read.dedup();
        let streams: Vec<usize> =
            (0..self.sources.len()).filter(|i| self.sources.get(*i).is_some_and(|s| s.is_stream())).collect();
        match (read.as_slice(), streams.as_slice()) {
            ([], [only]) => return Some(SeenFrom::Source(*only)),
            ([one], _) if streams.contains(one) => return Some(SeenFrom::Source(*one)),
            (_, [_]) if place.clause != Clause::On => return Some(SeenFrom::Joined),
            _ => {}
        }
        let problem = Diagnostic::error(format!("`{}` must look at the rows of one source", name.name), span)
            .label(if read.is_empty() { "which of the joined sources?" } else { "reads columns of several sources" })
            .help("compute it in a step before the join: analytic functions run before joins");
        self.binder.problem(problem);
        None
    }

    fn type_of_analytic(&self, analytic: &Analytic) -> Option<Type> {
        let argument = analytic.argument.as_ref().and_then(|e| self.binder.type_of(e));
        match &analytic.function {
            AnalyticFunction::Lag { .. } | AnalyticFunction::Last => {
                let default = analytic.default.as_ref().map(|e| self.binder.type_of(e));
                argument.filter(|ty| default.is_none_or(|default| default == Some(*ty)))
            }
            AnalyticFunction::IsFirst { .. } => Some(Type::BigInt),
            AnalyticFunction::SpikeAndDip { .. } | AnalyticFunction::ChangePoint { .. } => Some(Type::Record),
            AnalyticFunction::Aggregate(function) => {
                let taken = AggregateCall {
                    function: function.clone(),
                    argument: analytic.argument.clone(),
                    order_by: Vec::new(),
                };
                self.type_of_aggregate(&taken)
            }
        }
    }
}

fn spike(confidence: f64, history: usize, mode: SpikeMode) -> AnalyticFunction {
    AnalyticFunction::SpikeAndDip { confidence, history, mode }
}

fn misplaced(name: &Ident, span: Span, place: Place) -> Option<Diagnostic> {
    if place.in_analytic {
        let problem =
            Diagnostic::error(format!("the analytic function `{}` inside an analytic function", name.name), span);
        return Some(problem.label("cannot be nested").help("compute the inner one in a step and use its column here"));
    }
    matches!(place.clause, Clause::TimestampBy | Clause::Apply | Clause::PartitionBy | Clause::Match).then(|| {
        Diagnostic::error(format!("the analytic function `{}` in {}", name.name, place.name()), span)
            .label("it has no value here")
            .help("compute it in a step and use its column here")
    })
}

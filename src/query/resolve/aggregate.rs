//! Aggregates of a group.
//!
//! In: a call such as `COUNT(*)` or `TopOne(x) OVER (ORDER BY …)`. Out: the slot its value will have. Invariant: equal
//! aggregates are computed once, and one never stands inside another. Not here: the same functions over history
//! (`analytic`, which shares their arguments), windows.

use super::constant;
use super::core::Core;
use super::place::{Clause, Place};
use super::relation::ColumnInfo;
use super::tree::{null, same_aggregate};
use crate::diagnostic::{Diagnostic, Span};
use crate::query::ast::{Arg, Call, ExprKind, Ident, Over};
use crate::query::plan::{Aggregate, AggregateFunction, Expr};
use crate::value::Type;

/// The aggregates, as the documents spell them.
pub(in crate::query) const NAMES: [&str; 14] = [
    "COUNT",
    "SUM",
    "AVG",
    "MIN",
    "MAX",
    "STDEV",
    "STDEVP",
    "VAR",
    "VARP",
    "Collect",
    "CollectTop",
    "TopOne",
    "PERCENTILE_CONT",
    "PERCENTILE_DISC",
];

/// Values that `CollectTop` may keep for one group: each costs memory for as long as the window is open.
const TOP_MAX: i64 = 10_000;

pub(super) fn is_aggregate(name: &str) -> bool {
    NAMES.iter().any(|n| n.eq_ignore_ascii_case(name))
}

/// An aggregate function with what it looks at.
pub(super) struct AggregateCall {
    pub(super) function: AggregateFunction,
    pub(super) argument: Option<Expr>,
    pub(super) order_by: Vec<(Expr, bool)>,
}

impl Core<'_, '_> {
    pub(super) fn aggregate(&mut self, name: &Ident, call: &Call, span: Span, place: Place) -> Expr {
        if let Some(problem) = self.misplaced(name, span, place) {
            return self.refuse(problem);
        }
        let inner = Place { in_aggregate: true, ..place };
        let Some(taken) = self.taken(name, call, span, inner) else { return null() };
        if call.distinct && taken.function != AggregateFunction::Count {
            let problem = Diagnostic::error(format!("DISTINCT in `{}`", name.name), span)
                .label("DISTINCT stands in COUNT only")
                .help("remove repeats in a step before: group by the columns and System.Timestamp()");
            return self.refuse(problem);
        }
        let ty = self.type_of_aggregate(&taken);
        let AggregateCall { function, argument, order_by } = taken;
        self.aggregate_slot(
            name,
            Aggregate { function, argument, user_args: Vec::new(), distinct: call.distinct, order_by, span },
            ty,
        )
    }

    /// The slot of an aggregate's value; equal ones share it.
    pub(super) fn aggregate_slot(&mut self, name: &Ident, aggregate: Aggregate, ty: Option<Type>) -> Expr {
        let slots = |a: usize, b: usize| self.binder.same_column(a, b);
        if let Some((id, _)) = self.aggregates.iter().find(|(_, known)| same_aggregate(known, &aggregate, &slots)) {
            return Expr::Slot(*id);
        }
        let id = self.binder.column(ColumnInfo { name: name.name.clone(), ty, ..ColumnInfo::default() });
        self.aggregates.push((id, aggregate));
        Expr::Slot(id)
    }

    fn misplaced(&self, name: &Ident, span: Span, place: Place) -> Option<Diagnostic> {
        let help = format!(
            "add `GROUP BY TumblingWindow(second, 10)`, or look back from each row: `{}(…) OVER (LIMIT \
            DURATION(second, 10))`",
            name.name
        );
        self.misplaced_aggregate(&name.name, help, span, place)
    }

    /// Why an aggregate cannot stand here; `ungrouped` is the help where no rows are grouped.
    pub(super) fn misplaced_aggregate(
        &self,
        name: &str,
        ungrouped: String,
        span: Span,
        place: Place,
    ) -> Option<Diagnostic> {
        let title = format!("the aggregate `{name}` inside {}", place.name());
        let problem = Diagnostic::error(title, span);
        if place.in_aggregate || place.in_analytic {
            return Some(
                problem
                    .label("one value of many is no input for another")
                    .help("compute it in a step and use the column here"),
            );
        }
        match place.clause {
            Clause::Where => Some(
                problem.label("WHERE sees single rows, before they are grouped").help("put the condition in HAVING"),
            ),
            Clause::Select | Clause::Having if self.grouped => None,
            Clause::Select | Clause::Having => {
                let problem = Diagnostic::error(format!("the aggregate `{name}` needs a GROUP BY with a window"), span);
                Some(problem.label("over which rows?").help(ungrouped))
            }
            _ => Some(
                problem
                    .label("an aggregate stands in the SELECT list or in HAVING")
                    .help("compute it in a step and use the column here"),
            ),
        }
    }

    /// The function and its arguments, for a group or for history alike. `None` when something was reported.
    pub(super) fn taken(&mut self, name: &Ident, call: &Call, span: Span, inner: Place) -> Option<AggregateCall> {
        let lower = name.name.to_ascii_lowercase();
        let ordered = matches!(lower.as_str(), "topone" | "collecttop" | "percentile_cont" | "percentile_disc");
        let order_by = self.order_by(name, call.over.as_ref(), ordered, span, inner)?;
        let args = call.args.as_slice();
        let plain = |function| Some((function, args));
        let (function, rest) = match lower.as_str() {
            "count" => return self.count(call, span, inner),
            "sum" => plain(AggregateFunction::Sum),
            "avg" => plain(AggregateFunction::Avg),
            "min" => plain(AggregateFunction::Min { text: false }),
            "max" => plain(AggregateFunction::Max { text: false }),
            "stdev" => plain(AggregateFunction::StDev),
            "stdevp" => plain(AggregateFunction::StDevP),
            "var" => plain(AggregateFunction::Var),
            "varp" => plain(AggregateFunction::VarP),
            "collect" => plain(AggregateFunction::Collect),
            "topone" => plain(AggregateFunction::TopOne),
            "collecttop" => self
                .top_count(name, args, span)
                .map(|count| (AggregateFunction::CollectTop { count }, args.get(1..).unwrap_or_default())),
            _ => return self.percentile(name, &lower, call, order_by, span),
        }?;
        let argument = match rest {
            [] if matches!(
                function,
                AggregateFunction::Collect | AggregateFunction::TopOne | AggregateFunction::CollectTop { .. }
            ) =>
            {
                self.whole_row()
            }
            [Arg::Expr(e)] => self.expr(e, inner),
            _ => {
                let problem = Diagnostic::error(format!("`{}` takes one value", name.name), span)
                    .label(if rest.iter().any(|a| matches!(a, Arg::Star(_))) {
                        "`*` is no value".to_owned()
                    } else {
                        format!("{} given", rest.len())
                    })
                    .help(format!("write `{}(column)`", name.name));
                self.binder.problem(problem);
                return None;
            }
        };
        let function = match function {
            AggregateFunction::Min { .. } => AggregateFunction::Min { text: self.is_cast_to_text(&argument) },
            AggregateFunction::Max { .. } => AggregateFunction::Max { text: self.is_cast_to_text(&argument) },
            other => other,
        };
        Some(AggregateCall { function, argument: Some(argument), order_by })
    }

    /// `COUNT(*)`, `COUNT()` and `COUNT(input)` count rows; `COUNT(x)` counts values.
    fn count(&mut self, call: &Call, span: Span, inner: Place) -> Option<AggregateCall> {
        let argument = match call.args.as_slice() {
            [] | [Arg::Star(_)] if call.distinct => {
                let problem = Diagnostic::error("COUNT(DISTINCT …) takes a value", span)
                    .label("expected a column")
                    .help("name a column, or the input for whole events: `COUNT(DISTINCT input)`");
                self.binder.problem(problem);
                return None;
            }
            [] | [Arg::Star(_)] => None,
            [Arg::Expr(e)] => match &e.kind {
                ExprKind::Path(path) if !call.distinct && self.names_whole_source(path) => None,
                _ => Some(self.expr(e, inner)),
            },
            args => {
                let problem =
                    Diagnostic::error("COUNT takes one value or `*`", span).label(format!("{} given", args.len()));
                self.binder.problem(problem);
                return None;
            }
        };
        Some(AggregateCall { function: AggregateFunction::Count, argument, order_by: Vec::new() })
    }

    fn top_count(&mut self, name: &Ident, args: &[Arg], span: Span) -> Option<usize> {
        let count = match args.first() {
            Some(Arg::Expr(e)) => constant::whole(e),
            _ => None,
        };
        if let Some(count) = count.filter(|n| (1..=TOP_MAX).contains(n)).and_then(|n| usize::try_from(n).ok()) {
            return Some(count);
        }
        let problem = Diagnostic::error(format!("`{}` begins with how many values to keep", name.name), span)
            .label(format!("expected a whole number from 1 to {TOP_MAX}"))
            .help("write `CollectTop(3, x) OVER (ORDER BY x DESC)`");
        self.binder.problem(problem);
        None
    }

    fn percentile(
        &mut self,
        name: &Ident,
        lower: &str,
        call: &Call,
        order_by: Vec<(Expr, bool)>,
        span: Span,
    ) -> Option<AggregateCall> {
        let fraction = match call.args.as_slice() {
            [Arg::Expr(e)] => constant::number(e).filter(|f| (0.0..=1.0).contains(f)),
            _ => None,
        };
        let Some(fraction) = fraction else {
            let problem = Diagnostic::error(format!("`{}` takes a fraction from 0 to 1", name.name), span)
                .label("expected one literal number between 0 and 1")
                .help(format!("write `{}(0.5) OVER (ORDER BY x)` for the median", name.name));
            self.binder.problem(problem);
            return None;
        };
        if order_by.len() != 1 {
            let problem = Diagnostic::error(format!("`{}` is ordered by one value", name.name), span)
                .label(format!("ORDER BY names {}", order_by.len()))
                .help(format!("write `{}({fraction}) OVER (ORDER BY x)`", name.name));
            self.binder.problem(problem);
            return None;
        }
        let function = match lower {
            "percentile_cont" => AggregateFunction::PercentileCont { fraction },
            _ => AggregateFunction::PercentileDisc { fraction },
        };
        Some(AggregateCall { function, argument: order_by.first().map(|(e, _)| e.clone()), order_by })
    }

    fn order_by(
        &mut self,
        name: &Ident,
        over: Option<&Over>,
        wanted: bool,
        span: Span,
        inner: Place,
    ) -> Option<Vec<(Expr, bool)>> {
        let items = over.map(|over| over.order_by.as_slice()).unwrap_or_default();
        if wanted == items.is_empty() {
            let problem = if wanted {
                Diagnostic::error(format!("`{}` needs OVER (ORDER BY …)", name.name), span)
                    .label("in which order?")
                    .help(format!("write `{}(…) OVER (ORDER BY x DESC)`", name.name))
            } else {
                let at = items.first().map_or(span, |item| item.expr.span);
                Diagnostic::error(format!("`{}` takes no ORDER BY", name.name), at)
                    .label("its value does not depend on the order")
                    .help("remove ORDER BY")
            };
            self.binder.problem(problem);
            return None;
        }
        Some(items.iter().map(|item| (self.expr(&item.expr, inner), item.descending)).collect())
    }

    /// Only what was cast to text on purpose compares as text.
    fn is_cast_to_text(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Cast { ty, .. } => *ty == Type::Text,
            Expr::Slot(id) => self.binder.columns.get(*id).is_some_and(|info| info.cast_to_text),
            _ => false,
        }
    }

    pub(super) fn type_of_aggregate(&self, taken: &AggregateCall) -> Option<Type> {
        use AggregateFunction::{
            Avg, Collect, CollectTop, Count, Max, Min, PercentileCont, PercentileDisc, StDev, StDevP, Sum, TopOne,
            User, Var, VarP,
        };
        let argument = taken.argument.as_ref().and_then(|e| self.binder.type_of(e));
        match &taken.function {
            Count => Some(Type::BigInt),
            Avg | StDev | StDevP | Var | VarP | PercentileCont { .. } => Some(Type::Float),
            Sum => argument.filter(|ty| matches!(ty, Type::BigInt | Type::Float)),
            Min { text } | Max { text } => argument.filter(|ty| *text || *ty != Type::Text),
            Collect | CollectTop { .. } => Some(Type::Array),
            TopOne | PercentileDisc { .. } => argument,
            // its type is that of its signature
            User(_) => None,
        }
    }
}

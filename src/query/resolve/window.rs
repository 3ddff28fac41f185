//! Windows of a GROUP BY.
//!
//! In: a window call. Out: its lengths in ticks. Invariant: sizes are positive constants of at most 7 days. Not here:
//! which rows a window holds (`engine`), grouping keys (`group`).

use super::constant::{self, SPAN_MAX, UNITS, unit_ticks};
use super::core::Core;
use super::place::{Clause, Place};
use super::tree::same;
use crate::diagnostic::{Diagnostic, Span, suggest};
use crate::query::ast::{Arg, Call, Expr as Ast, ExprKind, Ident, Literal};
use crate::query::plan::{Expr, NamedWindow, Window};
use crate::value::same_ignoring_case;

/// The window functions, as the documents spell them.
pub(super) const NAMES: [&str; 9] = [
    "TumblingWindow",
    "HoppingWindow",
    "SlidingWindow",
    "SessionWindow",
    "Windows",
    "Tumbling",
    "Hopping",
    "Sliding",
    "Session",
];

/// Windows that one event may fall into: each of them holds an accumulator for every key.
const HOPS_MAX: i64 = 20_000;

pub(super) fn is_window(name: &str) -> bool {
    NAMES.iter().any(|n| n.eq_ignore_ascii_case(name))
}

/// The call when the expression is a window function.
pub(super) fn window_call(e: &Ast) -> Option<&Call> {
    match &e.kind {
        ExprKind::Call(call) => match call.name.as_slice() {
            [name] if is_window(&name.name) => Some(call),
            _ => None,
        },
        _ => None,
    }
}

/// A length with its place in the text.
struct Length {
    ticks: i64,
    span: Span,
}

impl Core<'_, '_> {
    /// The windows of a window call: one, or those of `Windows(…)`. `None` when something was reported.
    pub(super) fn windows(&mut self, call: &Call, span: Span) -> Option<Vec<NamedWindow>> {
        let name = call.name.last()?;
        if !name.name.eq_ignore_ascii_case("windows") {
            return self.window(call, span).map(|window| vec![NamedWindow { name: None, window }]);
        }
        let mut windows: Vec<NamedWindow> = Vec::with_capacity(call.args.len());
        let mut valid = true;
        for arg in &call.args {
            match self.member(arg, span) {
                Some(member) => windows.push(member),
                None => valid = false,
            }
        }
        if !valid {
            return None;
        }
        if windows.is_empty() {
            return self.bad_window(
                "Windows() without a window",
                span,
                "expected windows",
                "write `Windows(TumblingWindow(second, 5), TumblingWindow(second, 10))`",
            );
        }
        let named = windows.iter().filter(|w| w.name.is_some()).count();
        if named > 0 && named < windows.len() {
            return self.bad_window(
                "some windows of Windows() have an id and some have none",
                span,
                "give all of them an id, or none",
                "write each as `Window('id', TumblingWindow(second, 5))`",
            );
        }
        for (i, window) in windows.iter().enumerate() {
            let Some(id) = &window.name else { continue };
            if windows.iter().take(i).filter_map(|w| w.name.as_ref()).any(|other| same_ignoring_case(other, id)) {
                let title = format!("two windows have the id '{id}'");
                return self.bad_window(
                    &title,
                    span,
                    "ids of Window() differ in more than letter case",
                    "give each window an id of its own",
                );
            }
        }
        Some(windows)
    }

    /// A member of `Windows(…)`: `Window('id', definition)`, a definition, or `System.Timestamp()`.
    fn member(&mut self, arg: &Arg, span: Span) -> Option<NamedWindow> {
        let Arg::Expr(e) = arg else {
            return self.bad_window(
                "`*` is no window",
                span,
                "expected a window",
                "write `Windows(TumblingWindow(second, 5), …)`",
            );
        };
        if let ExprKind::Call(call) = &e.kind
            && let [name] = call.name.as_slice()
            && name.name.eq_ignore_ascii_case("window")
        {
            let form = "write `Window('id', TumblingWindow(second, 5))`";
            let [Arg::Expr(id), Arg::Expr(definition)] = call.args.as_slice() else {
                return self.bad_window("Window() takes an id and a window", e.span, "expected two arguments", form);
            };
            let Some(text) = constant::text(id) else {
                let label = if matches!(id.kind, ExprKind::Literal(Literal::Null)) {
                    "an id is not NULL"
                } else {
                    "expected a text in single quotes"
                };
                return self.bad_window("the id of a Window() is a literal text", id.span, label, form);
            };
            return self.definition(definition).map(|window| NamedWindow { name: Some(text.into()), window });
        }
        self.definition(e).map(|window| NamedWindow { name: None, window })
    }

    fn definition(&mut self, e: &Ast) -> Option<Window> {
        if matches!(e.kind, ExprKind::SystemTimestamp) {
            return Some(Window::Snapshot);
        }
        match window_call(e) {
            Some(call) if call.name.last().is_some_and(|n| n.name.eq_ignore_ascii_case("windows")) => self.bad_window(
                "Windows() inside Windows()",
                e.span,
                "cannot be nested",
                "list all windows in one Windows()",
            ),
            Some(call) => self.window(call, e.span),
            None => self.bad_window(
                "not a window",
                e.span,
                "expected a window function or System.Timestamp()",
                "the windows are TumblingWindow, HoppingWindow, SlidingWindow and SessionWindow",
            ),
        }
    }

    fn window(&mut self, call: &Call, span: Span) -> Option<Window> {
        let lower = call.name.last()?.name.to_ascii_lowercase();
        let kind = lower.strip_suffix("window").unwrap_or(&lower);
        if kind != "session"
            && let Some(over) = &call.over
        {
            return self.bad_window(
                "only a session window takes OVER",
                over.span,
                "not on this window",
                "put the key into GROUP BY",
            );
        }
        match kind {
            "tumbling" => {
                let lengths = self.lengths(call, span, &["Duration"], "Offset", "TumblingWindow(second, 10)")?;
                let (size, offset) = (self.size(lengths.first()?)?, lengths.get(1).map_or(0, |l| l.ticks));
                Some(Window::Tumbling { size, offset })
            }
            "hopping" => {
                let lengths =
                    self.lengths(call, span, &["Duration", "Hop"], "Offset", "HoppingWindow(second, 10, 5)")?;
                let (size, hop) = (self.size(lengths.first()?)?, self.size(lengths.get(1)?)?);
                let offset = lengths.get(2).map_or(0, |l| l.ticks);
                if size / hop > HOPS_MAX {
                    let title = format!("each event would count in {} windows", size / hop);
                    return self.bad_window(
                        &title,
                        span,
                        &format!("at most {HOPS_MAX}"),
                        "take a larger hop or a smaller size",
                    );
                }
                Some(if hop == size {
                    Window::Tumbling { size, offset }
                } else {
                    Window::Hopping { size, hop, offset }
                })
            }
            "sliding" => {
                let lengths = self.lengths(call, span, &["Duration"], "", "SlidingWindow(second, 10)")?;
                Some(Window::Sliding { size: self.size(lengths.first()?)? })
            }
            _ => {
                let lengths =
                    self.lengths(call, span, &["Timeout", "MaxDuration"], "", "SessionWindow(second, 5, 60)")?;
                let (timeout, max_duration) = (self.size(lengths.first()?)?, self.size(lengths.get(1)?)?);
                let partition_by = self.session_keys(call)?;
                Some(Window::Session { timeout, max_duration, partition_by })
            }
        }
    }

    /// The keys of `OVER (PARTITION BY …)`, as positions among the grouping keys, which are bound already.
    fn session_keys(&mut self, call: &Call) -> Option<Vec<usize>> {
        let Some(over) = &call.over else { return Some(Vec::new()) };
        let mut positions = Vec::with_capacity(over.partition_by.len());
        for e in &over.partition_by {
            let key = self.expr(e, Place::clause(Clause::GroupBy));
            let slots = |a: usize, b: usize| self.binder.same_column(a, b);
            match self.keys.iter().position(|(_, k)| same(k, &key, &slots)) {
                Some(position) => positions.push(position),
                None => {
                    let text = self.binder.text_at(e.span);
                    return self.bad_window(
                        &format!("the session key `{text}` is not in GROUP BY"),
                        e.span,
                        "sessions of single keys need the key as a grouping item",
                        &format!("write `GROUP BY {text}, SessionWindow(…) OVER (PARTITION BY {text})`"),
                    );
                }
            }
        }
        Some(positions)
    }

    /// The lengths of a window: `(unit, n, …)` in one unit, or `(Duration(unit, n), …)` each in its own. `wanted` are
    /// the mandatory ones; `optional` may follow and may be negative.
    fn lengths(&mut self, call: &Call, span: Span, wanted: &[&str], optional: &str, form: &str) -> Option<Vec<Length>> {
        let name = call.name.last()?.name.clone();
        let most = wanted.len() + usize::from(!optional.is_empty());
        let help = format!("write `{form}`");
        let kind = window_kind(&name);
        let (unit, rest) = match call.args.split_first() {
            Some((first, rest)) if constant::word(first).is_some() => (constant::word(first), rest),
            _ => (None, call.args.as_slice()),
        };
        let whole_form = unit.is_some() || call.args.iter().all(|a| length_call(a).is_some());
        if !whole_form || rest.len() < wanted.len() || rest.len() > most {
            let expected = if unit.is_none() && !whole_form {
                "expected a unit such as `second`".to_owned()
            } else {
                format!("expected {} after the unit", counted(wanted.len(), most))
            };
            return self.bad_window(
                &format!("{kind} needs a unit and a size"),
                arguments_span(call, span),
                &expected,
                &help,
            );
        }
        let mut lengths = Vec::with_capacity(rest.len());
        for (i, arg) in rest.iter().enumerate() {
            let (unit, value, label) = match (unit, length_call(arg), arg) {
                (Some(unit), _, Arg::Expr(e)) => (unit, e, wanted.get(i).copied().unwrap_or(optional)),
                (None, Some((label, unit, value)), _) => (unit, value, label),
                _ => {
                    return self.bad_window(
                        &format!("{kind} needs a unit and a size"),
                        span,
                        "expected a length",
                        &help,
                    );
                }
            };
            let expected = wanted.get(i).copied().unwrap_or(optional);
            if !label.eq_ignore_ascii_case(expected) {
                let title = format!("`{label}` where a window of this kind takes `{expected}`");
                return self.bad_window(&title, value.span, &format!("expected `{expected}(unit, n)`"), &help);
            }
            let ticks = self.unit(unit)?;
            let Some(length) = constant::whole(value).and_then(|n| n.checked_mul(ticks)) else {
                return self.bad_window(
                    &format!("the size of {kind} is a constant"),
                    value.span,
                    "expected a literal whole number",
                    &help,
                );
            };
            lengths.push(Length { ticks: length, span: value.span });
        }
        Some(lengths)
    }

    /// A positive length of at most 7 days.
    fn size(&mut self, length: &Length) -> Option<i64> {
        if length.ticks <= 0 {
            return self.bad_window(
                "the size of a window is positive",
                length.span,
                "expected a whole number above 0",
                "give the length of the window, such as `10` seconds",
            );
        }
        if length.ticks > SPAN_MAX {
            return self.bad_window(
                "a window of more than 7 days",
                length.span,
                "at most 7 days",
                "group by a shorter window and add up further along",
            );
        }
        Some(length.ticks)
    }

    fn unit(&mut self, unit: &Ident) -> Option<i64> {
        let ticks = unit_ticks(&unit.name);
        if ticks.is_none() {
            let help = match suggest(&unit.name, UNITS) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the units of a window are {}", UNITS.join(", ")),
            };
            let problem = Diagnostic::error(format!("unknown window unit `{}`", unit.name), unit.span)
                .label("expected a unit such as `second`")
                .help(help);
            self.binder.problem(problem);
        }
        ticks
    }

    fn bad_window<T>(&mut self, title: &str, at: Span, label: &str, help: &str) -> Option<T> {
        self.binder.problem(Diagnostic::error(title, at).label(label).help(help));
        None
    }
}

/// `Duration(unit, n)`, `Hop(unit, n)` and the like: the name, the unit, the number.
fn length_call(arg: &Arg) -> Option<(&str, &Ident, &Ast)> {
    let Arg::Expr(Ast { kind: ExprKind::Call(call), .. }) = arg else { return None };
    let [name] = call.name.as_slice() else { return None };
    let known =
        ["Duration", "Hop", "Offset", "Timeout", "MaxDuration"].iter().any(|n| n.eq_ignore_ascii_case(&name.name));
    match call.args.as_slice() {
        [unit, Arg::Expr(value)] if known => Some((name.name.as_str(), constant::word(unit)?, value)),
        _ => None,
    }
}

fn window_kind(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    format!("a {} window", lower.strip_suffix("window").unwrap_or(&lower))
}

fn counted(fewest: usize, most: usize) -> String {
    match (fewest, most) {
        (1, 1) => "1 number".to_owned(),
        (a, b) if a == b => format!("{a} numbers"),
        (a, b) => format!("{a} or {b} numbers"),
    }
}

/// What stands between the parentheses, else the call.
fn arguments_span(call: &Call, span: Span) -> Span {
    let spans = call.args.iter().map(|arg| match arg {
        Arg::Expr(e) => e.span,
        Arg::Star(at) => *at,
    });
    spans.reduce(Span::to).unwrap_or(span)
}

/// Whether the expression is the row's time: as a grouping item a snapshot, or beside a window merely a key.
pub(super) fn is_time(e: &Expr) -> bool {
    matches!(e, Expr::Time)
}

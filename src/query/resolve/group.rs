//! GROUP BY: keys, the window, and what may be read above them.
//!
//! In: grouping items; bound expressions of the SELECT list and HAVING. Out: keys and windows; expressions that read
//! keys and aggregates only. Invariant: above the groups no column of a single row is left. Not here: window sizes
//! (`window`).

use super::core::Core;
use super::place::{Clause, Place};
use super::relation::{ColumnId, ColumnInfo};
use super::tree::{self, null, same};
use super::window::{is_time, window_call};
use crate::diagnostic::{Diagnostic, Span};
use crate::query::ast::{Expr as Ast, ExprKind};
use crate::query::plan::{Expr, NamedWindow, Window};
use crate::value::same_ignoring_case;

impl Core<'_, '_> {
    /// Binds the grouping items; the window is what makes a group end.
    pub(super) fn group_by(&mut self, items: &[Ast], core_span: Span) {
        let mut calls = Vec::new();
        let mut times = Vec::new();
        for item in items {
            if let Some(call) = window_call(item) {
                calls.push((call, item.span));
            } else if matches!(item.kind, ExprKind::SystemTimestamp) {
                times.push(item.span);
            } else {
                self.key(item);
            }
        }
        if let Some((_, span)) = calls.get(1) {
            let problem = Diagnostic::error("two windows in one GROUP BY", *span)
                .label("a second window")
                .help("for results of several windows write `Windows(TumblingWindow(…), HoppingWindow(…))`");
            self.binder.problem(problem);
        }
        self.windows = match (calls.first(), times.first()) {
            (Some((call, span)), time) => {
                if time.is_some() {
                    // beside a window the time is merely a key
                    let id = self.binder.column(ColumnInfo::default());
                    self.keys.push((id, Expr::Time));
                }
                self.windows(call, *span).unwrap_or_default()
            }
            (None, Some(_)) => vec![NamedWindow { name: None, window: Window::Snapshot }],
            (None, None) => {
                let span = items.iter().map(|e| e.span).reduce(Span::to).unwrap_or(core_span);
                let problem = Diagnostic::error("a window must be specified in GROUP BY", span)
                    .label("a stream has no end, so a group needs one")
                    .help("add a window, `TumblingWindow(second, 10)`, or `System.Timestamp()` for rows of one moment");
                self.binder.problem(problem);
                Vec::new()
            }
        };
        self.check_over_keys();
    }

    fn key(&mut self, item: &Ast) {
        let key = self.expr(item, Place::clause(Clause::GroupBy));
        let info = match &key {
            Expr::Slot(id) => self.binder.columns.get(*id).cloned().unwrap_or_else(|| {
                self.binder.fault("a key is no column", item.span);
                ColumnInfo::default()
            }),
            other => ColumnInfo { ty: self.binder.type_of(other), ..ColumnInfo::default() },
        };
        let id = self.binder.column(ColumnInfo { field_of: None, ..info });
        self.keys.push((id, key));
    }

    /// Each substream has a timeline of its own, so groups must not mix them.
    fn check_over_keys(&mut self) {
        let missing: Vec<String> = self
            .sources
            .iter()
            .filter(|s| s.is_stream())
            .flat_map(|s| &s.over)
            .filter(|over| !over.expr.as_ref().is_some_and(|e| self.is_key(e)))
            .map(|over| over.text.to_string())
            .collect();
        for text in missing {
            let span = self.group_span;
            let problem =
                Diagnostic::error(format!("the key `{text}` of TIMESTAMP BY … OVER is not in GROUP BY"), span)
                    .label("rows of several timelines in one group")
                    .help(format!("add `{text}` to GROUP BY (a step in between has to select it)"));
            self.binder.problem(problem);
        }
    }

    fn is_key(&self, e: &Expr) -> bool {
        let slots = |a: usize, b: usize| self.binder.same_column(a, b);
        self.keys.iter().any(|(_, key)| same(key, e, &slots))
    }

    /// The bound expression of a SELECT item, for its alias in HAVING; a grouping column of the name goes first.
    pub(super) fn aliased(&self, name: &str) -> Option<Expr> {
        let columns = &self.binder.columns;
        let is_named = |id: usize| columns.get(id).is_some_and(|info| same_ignoring_case(&info.name, name));
        let is_key_column = self.keys.iter().any(|(_, key)| matches!(key, Expr::Slot(id) if is_named(*id)));
        if is_key_column {
            return None;
        }
        super::relation::find_named(&self.aliases, name, |(alias, _)| alias).map(|(_, expr)| expr.clone())
    }

    /// The same value above the groups: keys and aggregates are read from their columns.
    pub(super) fn regroup(&mut self, expr: &Expr) -> Expr {
        let mut stray: Vec<ColumnId> = Vec::new();
        let above = {
            let slots = |a: usize, b: usize| self.binder.same_column(a, b);
            tree::rewrite(expr, &mut |e| {
                if let Some(key) = self.keys.iter().find(|(_, key)| !is_time(key) && same(key, e, &slots)) {
                    return Some(Expr::Slot(key.0));
                }
                match e {
                    Expr::Slot(id) if self.is_above_groups(*id) => Some(e.clone()),
                    Expr::Slot(id) => {
                        stray.push(*id);
                        Some(null())
                    }
                    Expr::Path(base, names) => self.below_key(base, names),
                    _ => None,
                }
            })
        };
        if let Some(id) = stray.first() {
            self.not_grouped(*id);
        }
        above
    }

    /// `a.b.c` where `a.b` is a key.
    fn below_key(&self, base: &Expr, names: &[smol_str::SmolStr]) -> Option<Expr> {
        let slots = |a: usize, b: usize| self.binder.same_column(a, b);
        self.keys.iter().find_map(|(id, key)| {
            let Expr::Path(key_base, key_names) = key else { return None };
            let (above, below) = names.split_at_checked(key_names.len())?;
            let matches =
                same(key_base, base, &slots) && above.iter().zip(key_names).all(|(a, b)| same_ignoring_case(a, b));
            (matches && !below.is_empty()).then(|| Expr::Path(Box::new(Expr::Slot(*id)), below.to_vec()))
        })
    }

    fn is_above_groups(&self, id: ColumnId) -> bool {
        id == self.window_id
            || self.keys.iter().any(|(k, _)| *k == id)
            || self.aggregates.iter().any(|(a, _)| *a == id)
            || self.group_calls.iter().any(|c| c.out == id)
    }

    fn not_grouped(&mut self, id: ColumnId) {
        // the last use is the one in the expression at work
        let span = self.uses.iter().rev().find(|(used, _)| *used == id).map(|(_, span)| *span);
        let text = span.map(|span| self.binder.text_at(span)).unwrap_or_default();
        let by_alias = self.keys.iter().find_map(|(_, key)| match key {
            Expr::Slot(key) => self
                .binder
                .columns
                .get(*key)
                .map(|info| info.name.clone())
                .filter(|name| self.item_aliases.contains(name)),
            _ => None,
        });
        let mut problem = Diagnostic::error(format!("`{text}` is not in GROUP BY"), span)
            .label("a group has many values of it")
            .help(format!(
                "add `{text}` to GROUP BY, or choose one of its values: `MAX({text})`, `TopOne({text}) OVER (ORDER BY \
                …)`"
            ));
        if let Some(alias) = by_alias {
            problem = problem.note(format!("GROUP BY does not see the alias `{alias}`: repeat the expression there"));
        }
        self.binder.problem(problem);
    }
}

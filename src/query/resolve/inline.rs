//! A step used as a value beside FROM: `WITH Row AS (SELECT a, b FROM input) SELECT udf.score(Row) FROM input`.
//!
//! In: a name that is no source of the FROM. Out: a record of the step's columns, made from the row at hand. Invariant:
//! only a step that selects columns of a source in the same FROM is taken; for others the error shows the rewrite. Not
//! here: steps in FROM (`scope`).

use super::core::Core;
use super::source::{Has, SourceKind};
use super::tree::null;
use crate::batch::Column;
use crate::diagnostic::{Diagnostic, Span};
use crate::query::ast::{self, Ident, SelectItem};
use crate::query::plan::Expr;
use crate::value::same_ignoring_case;

impl Core<'_, '_> {
    /// A step that is not in `FROM`, used as a value: the form `SELECT udf.score(Dataframe) FROM input`.
    pub(super) fn step_as_value(&mut self, first: &Ident, rest: &[Ident], span: Span) -> Option<Expr> {
        let steps = self.binder.script.steps.get(..self.visible)?;
        let index = steps.iter().position(|s| s.name.name == first.name)?;
        if self.scope.clone().filter_map(|i| self.sources.get(i)).any(|s| s.has(&first.name) == Has::Yes) {
            return None;
        }
        if rest.is_empty()
            && let Some(record) = self.inline_step(index)
        {
            return Some(record);
        }
        let name = &first.name;
        let mut problem = Diagnostic::error(format!("the step `{name}` is not in FROM"), span)
            .label("used as a value here")
            .help(format!("read the step: `FROM {name}`"))
            .note(
                "a step can be used beside FROM only when it just selects columns of the same input, without WHERE, \
                JOIN, APPLY or GROUP BY",
            );
        if let Some(source) = self.scope.clone().filter_map(|i| self.sources.get(i)).find(|s| s.is_stream()) {
            problem = problem.note(format!("for a column that is called `{name}` write `{}.{name}`", source.name));
        }
        self.binder.problem(problem);
        Some(null())
    }

    /// The row of a step that only selects columns of a source that is in this `FROM`, as a record.
    fn inline_step(&mut self, step: usize) -> Option<Expr> {
        let script = self.binder.script;
        let body = &script.steps.get(step)?.body;
        let [core] = body.cores.as_slice() else { return None };
        let from = &core.from.first;
        let plain = core.from.joins.is_empty()
            && core.where_.is_none()
            && core.group_by.is_empty()
            && core.having.is_none()
            && from.timestamp_by.is_none();
        if !plain {
            return None;
        }
        let target = self.scope.clone().find(|i| {
            self.sources.get(*i).is_some_and(|s| match &s.kind {
                SourceKind::Scan { input, .. } => same_ignoring_case(input, &from.name.name),
                SourceKind::Step { index, .. } => index.is_some_and(|i| {
                    i < step && script.steps.get(i).is_some_and(|s| same_ignoring_case(&s.name.name, &from.name.name))
                }),
                SourceKind::Reference { .. } | SourceKind::Apply { .. } => false,
            })
        })?;
        let columns = self.bind_items_in(target, from, step, &core.items)?;
        if let Some(used) = self.binder.used.get_mut(step) {
            *used = true;
        }
        Some(if columns.iter().any(|(c, _)| c.spread) {
            let (columns, values): (Vec<Column>, Vec<Expr>) = columns.into_iter().unzip();
            Expr::Spread(columns.into(), values)
        } else {
            Expr::Record(columns.into_iter().map(|(c, value)| (c.name, value)).collect())
        })
    }

    /// Reads a step's SELECT list over one source that is in this FROM; the form `SELECT udf.score(Step) FROM input`.
    fn bind_items_in(
        &mut self,
        target: usize,
        from: &ast::FromSource,
        visible: usize,
        list: &[SelectItem],
    ) -> Option<Vec<(Column, Expr)>> {
        let source = self.sources.get_mut(target)?;
        let alias = from.alias.as_ref().unwrap_or(&from.name).name.clone();
        let name = std::mem::replace(&mut source.name, alias);
        let scope = std::mem::replace(&mut self.scope, target..target + 1);
        let outer = std::mem::replace(&mut self.visible, visible);
        let (calls, analytics, grouped) =
            (self.row_calls.len(), self.analytics_made(), std::mem::take(&mut self.grouped));
        let aliases = self.aliases.len();
        let mut items = self.items(list);
        self.aliases.truncate(aliases);
        self.grouped = grouped;
        self.visible = outer;
        self.scope = scope;
        if let Some(source) = self.sources.get_mut(target) {
            source.name = name;
        }
        self.check_names(&mut items);
        let plain = self.row_calls.len() == calls && self.analytics_made() == analytics;
        plain.then(|| items.into_iter().map(|i| (Column { name: i.name, spread: i.spread }, i.expr)).collect())
    }

    fn analytics_made(&self) -> usize {
        self.analytics.len() + self.sources.iter().map(|s| s.analytics.len()).sum::<usize>()
    }
}

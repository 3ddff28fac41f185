//! One SELECT: its clauses in the order in which they see each other, put together as a relation.
//!
//! In: the syntax of a SELECT. Out: a [`Relation`]. Invariant: rows pass in the order of the language: sources,
//! analytic functions, joins and APPLY, WHERE, groups, HAVING, the SELECT list; of WHERE and HAVING, conditions without
//! an external call go before the calls, so only rows that pass them are scored. Not here: single clauses.

use rustc_hash::FxHashMap;
use smol_str::{SmolStr, format_smolstr};

use super::binder::Binder;
use super::core::Core;
use super::guard::filtered;
use super::hints::scored_apart;
use super::join::Condition;
use super::place::{Clause, Place};
use super::relation::{ColumnId, ColumnInfo, OutColumn, OverKey, Rel, Relation};
use super::source::{ScopeSource, SourceKind};
use super::tree::{both, rewrite_aggregate, same};
use crate::diagnostic::{Diagnostic, Span};
use crate::query::ast::{self, ApplyFunction, ExprKind, SelectCore, SelectItem};
use crate::query::plan::Expr;
use crate::value::Type;

/// Sources of one FROM: each stands for an operator in a chain that runs by recursion.
const SOURCES_MAX: usize = 16;

/// External calls of one SELECT: each is a part of the plan with a stream of its own.
const CALLS_MAX: usize = 16;

/// A join ready to be put on top of what is before it.
enum Joined {
    Apply { outer: bool, function: ApplyFunction, argument: Expr, out: ColumnId, span: Span },
    Table { left_outer: bool, right: usize, condition: Condition },
}

/// A column of the SELECT list.
pub(super) struct Item {
    pub(super) name: SmolStr,
    pub(super) spread: bool,
    pub(super) expr: Expr,
    span: Span,
    origin: NameOrigin,
}

/// Where the name of a column comes from; it decides who gives way when two are equal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NameOrigin {
    /// An alias, or the name of the column itself.
    Written,
    /// The name of a function, or a number.
    Made,
    /// A `*`.
    Star,
}

/// Binds a SELECT that may name the first `visible` steps.
pub(super) fn bind(binder: &mut Binder<'_>, select: &SelectCore, visible: usize) -> Relation {
    let window_id =
        binder.column(ColumnInfo { name: "window_id".into(), ty: Some(Type::Text), ..ColumnInfo::default() });
    let mut core = Core {
        binder,
        visible,
        sources: Vec::new(),
        scope: 0..0,
        owner: FxHashMap::default(),
        analytics: Vec::new(),
        row_calls: Vec::new(),
        group_calls: Vec::new(),
        grouped: !select.group_by.is_empty(),
        group_span: select.group_by.iter().map(|e| e.span).reduce(Span::to).unwrap_or(select.span),
        windows: Vec::new(),
        keys: Vec::new(),
        aggregates: Vec::new(),
        window_id,
        later: Vec::new(),
        uses: Vec::new(),
        aliases: Vec::new(),
        item_aliases: aliases(select),
    };
    let before = core.binder.met;
    let mut relation = core.select(select);
    relation.poisoned |= core.binder.met > before || core.sources.iter().any(|s| s.poisoned);
    relation
}

fn aliases(select: &SelectCore) -> Vec<SmolStr> {
    let alias = |item: &SelectItem| match item {
        SelectItem::Expr { alias, .. } => alias.as_ref().map(|a| a.name.clone()),
        _ => None,
    };
    select.items.iter().filter_map(alias).collect()
}

impl Core<'_, '_> {
    fn select(&mut self, select: &SelectCore) -> Relation {
        let joined = self.from(select);
        self.scope = 0..self.sources.len();
        self.partition_keys(&select.partition_by);
        let filter = select.where_.as_ref().map(|e| self.expr(e, Place::clause(Clause::Where)));
        if self.grouped {
            self.group_by(&select.group_by, select.span);
        }
        let mut items = self.items(&select.items);
        let mut having = select.having.as_ref().map(|e| self.expr(e, Place::clause(Clause::Having)));
        if self.grouped {
            for item in &mut items {
                item.expr = self.regroup(&item.expr);
            }
            having = having.map(|e| self.regroup(&e));
        }
        self.check_names(&mut items);
        self.assemble(joined, filter, having, items)
    }

    // ---- FROM ----------------------------------------------------------------------------------------------------

    fn from(&mut self, select: &SelectCore) -> Vec<Joined> {
        self.add_source(&select.from.first);
        if self.sources.iter().any(|s| matches!(s.kind, SourceKind::Reference { .. })) {
            let first = &select.from.first;
            let problem = Diagnostic::error(format!("reference data `{}` in FROM", first.name.name), first.name.span)
                .label("reference data never moves time")
                .help(format!(
                    "read a stream and join it: `FROM input JOIN {0} ON input.id = {0}.id`",
                    first.name.name
                ));
            self.binder.problem(problem);
        }
        let mut joined = Vec::with_capacity(select.from.joins.len());
        for join in &select.from.joins {
            if self.sources.len() >= SOURCES_MAX {
                let problem = Diagnostic::error("too many sources in one FROM", select.span)
                    .label(format!("at most {SOURCES_MAX}"));
                self.binder.problem(problem.help("join some of them in a step"));
                break;
            }
            self.scope = 0..self.sources.len();
            match join {
                ast::Join::Apply { outer, function, argument, alias, span } => {
                    let argument = self.expr(argument, Place::clause(Clause::Apply));
                    let out = self.apply_source(*function, alias);
                    joined.push(Joined::Apply { outer: *outer, function: *function, argument, out, span: *span });
                }
                ast::Join::Table { left_outer, source, on, span } => {
                    let right = self.sources.len();
                    self.add_source(source);
                    self.scope = 0..self.sources.len();
                    let condition = self.condition(
                        on,
                        right,
                        on.span.to(Span { start: on.span.start, end: span.end.max(on.span.start) }),
                    );
                    self.check_stream_join(right);
                    joined.push(Joined::Table { left_outer: *left_outer, right, condition });
                }
            }
        }
        joined
    }

    /// Answers that come later cannot be merged by time with another stream.
    fn check_stream_join(&mut self, right: usize) {
        if !self.sources.get(right).is_some_and(|s| s.is_stream()) {
            return;
        }
        if let Some(span) = self.sources.iter().find_map(|s| s.external) {
            self.binder.problem(scored_apart(span, "a step that is joined with a stream"));
        }
    }

    fn add_source(&mut self, ast: &ast::FromSource) {
        let source = self.source(ast);
        self.check_source_name(&source.name, ast.span);
        let index = self.sources.len();
        if let SourceKind::Step { columns, .. } = &source.kind {
            self.owner.extend(columns.iter().map(|c| (c.id, index)));
        }
        if let SourceKind::Reference { out, .. } = &source.kind {
            self.owner.insert(*out, index);
        }
        self.sources.push(source);
        self.scope = index..index + 1;
        self.timestamp_by(ast, index);
        self.partition_keys(&ast.partition_by);
        if let Some(matched) = &ast.matched {
            self.recognize(matched, index);
        }
    }

    fn check_source_name(&mut self, name: &SmolStr, span: Span) {
        if self.sources.iter().any(|s| crate::value::same_ignoring_case(&s.name, name)) {
            let problem = Diagnostic::error(format!("two sources are called `{name}`"), span)
                .label("the name is taken")
                .help(format!("give each its own alias: `{name} AS a JOIN {name} AS b`"));
            self.binder.problem(problem);
        }
    }

    fn apply_source(&mut self, function: ApplyFunction, alias: &ast::Ident) -> ColumnId {
        self.check_source_name(&alias.name, alias.span);
        let out = self.binder.column(ColumnInfo {
            name: alias.name.clone(),
            ty: Some(Type::Record),
            ..ColumnInfo::default()
        });
        self.owner.insert(out, self.sources.len());
        self.sources.push(ScopeSource {
            name: alias.name.clone(),
            original: alias.name.clone(),
            kind: SourceKind::Apply { function, out },
            over: Vec::new(),
            external: None,
            poisoned: false,
            analytics: Vec::new(),
            time: None,
        });
        out
    }

    fn timestamp_by(&mut self, ast: &ast::FromSource, index: usize) {
        let Some(by) = &ast.timestamp_by else { return };
        let unknown = |s: &ScopeSource| s.poisoned && s.of_step().is_none();
        if !self.sources.get(index).is_some_and(|s| unknown(s) || matches!(s.kind, SourceKind::Scan { .. })) {
            let problem = Diagnostic::error(format!("TIMESTAMP BY on `{}`", ast.name.name), by.span)
                .label("only an input of the stream kind takes it: the rows of a step have their time already")
                .help("move TIMESTAMP BY to where the input is read");
            self.binder.problem(problem);
            return;
        }
        let time = self.expr(by, Place::clause(Clause::TimestampBy));
        let over: Vec<Expr> = ast.over.iter().map(|e| self.expr(e, Place::clause(Clause::TimestampBy))).collect();
        let texts: Vec<SmolStr> = ast.over.iter().map(|e| self.binder.text_at(e.span).into()).collect();
        let Some(source) = self.sources.get_mut(index) else {
            return self.binder.fault("TIMESTAMP BY stands on a source that is not in FROM", by.span);
        };
        if let SourceKind::Scan { timestamp_by, keys, .. } = &mut source.kind {
            source.over = over.iter().zip(texts).map(|(e, text)| OverKey { expr: Some(e.clone()), text }).collect();
            *timestamp_by = Some(time);
            *keys = over;
        }
    }

    // ---- SELECT list ---------------------------------------------------------------------------------------------

    pub(super) fn items(&mut self, list: &[SelectItem]) -> Vec<Item> {
        let mut items = Vec::with_capacity(list.len());
        for (i, item) in list.iter().enumerate() {
            match item {
                SelectItem::Star { span } => self.star_item(*span, &mut items),
                SelectItem::PathStar { path, span } => self.path_star(path, *span, &mut items),
                SelectItem::Expr { expr, alias, span } => {
                    let bound = self.expr(expr, Place::clause(Clause::Select));
                    let (name, origin) = match alias {
                        Some(alias) => (alias.name.clone(), NameOrigin::Written),
                        None => name_of(expr).unwrap_or_else(|| (format_smolstr!("Column{}", i + 1), NameOrigin::Made)),
                    };
                    if let Some(alias) = alias {
                        self.aliases.push((alias.name.clone(), bound.clone()));
                    }
                    items.push(Item { name, spread: false, expr: bound, span: *span, origin });
                }
            }
        }
        items
    }

    fn star_item(&mut self, span: Span, items: &mut Vec<Item>) {
        if self.grouped {
            let problem = Diagnostic::error("`*` with GROUP BY", span)
                .label("a group has many values of each column")
                .help("name the grouping columns, and aggregates of others");
            self.binder.problem(problem);
            return;
        }
        if self.sources.iter().filter(|s| s.is_stream()).count() > 1 {
            let names: Vec<String> = self.sources.iter().map(|s| format!("`{}.*`", s.name)).collect();
            let problem = Diagnostic::error("`SELECT *` with JOIN", span)
                .label("columns of which source?")
                .help(format!("name the columns, or write {}", names.join(", ")));
            self.binder.problem(problem);
            return;
        }
        for index in 0..self.sources.len() {
            self.push_star(index, span, items);
        }
    }

    fn push_star(&mut self, index: usize, span: Span, items: &mut Vec<Item>) {
        for (name, spread, expr) in self.star(index) {
            if let Expr::Slot(id) = &expr {
                self.uses.push((*id, span));
            }
            items.push(Item { name, spread, expr, span, origin: NameOrigin::Star });
        }
    }

    /// `source.*`, `column.*`, `source.column.*`
    fn path_star(&mut self, path: &[ast::Ident], span: Span, items: &mut Vec<Item>) {
        if let [name] = path
            && let Some(index) = self.source_named(&name.name)
        {
            let is_apply = self.sources.get(index).is_some_and(|s| matches!(s.kind, SourceKind::Apply { .. }));
            if !is_apply {
                return self.push_star(index, span, items);
            }
        }
        let expr = self.path(path, span);
        items.push(Item { name: SmolStr::default(), spread: true, expr, span, origin: NameOrigin::Star });
    }

    /// Names of columns are unique: JSON cannot hold two of one name. A column of `*` gives way to one that was named.
    pub(super) fn check_names(&mut self, items: &mut Vec<Item>) {
        let mut taken: FxHashMap<SmolStr, bool> = FxHashMap::default();
        for item in items.iter().filter(|i| !i.spread && i.origin == NameOrigin::Written) {
            if taken.insert(item.name.clone(), true).is_some() {
                let problem = Diagnostic::error(format!("two columns are called `{}`", item.name), item.span)
                    .label("the name is taken")
                    .help(format!("give one of them another name: `AS {}2`", item.name));
                self.binder.problem(problem);
            }
        }
        items.retain(|i| i.spread || i.origin != NameOrigin::Star || taken.insert(i.name.clone(), true).is_none());
        for (i, item) in items.iter_mut().enumerate().filter(|(_, i)| i.origin == NameOrigin::Made) {
            let mut number = i + 1;
            while taken.insert(item.name.clone(), false).is_some() {
                item.name = format_smolstr!("Column{number}");
                number += 1;
            }
        }
    }

    // ---- putting it together -------------------------------------------------------------------------------------

    fn assemble(
        &mut self,
        joined: Vec<Joined>,
        filter: Option<Expr>,
        having: Option<Expr>,
        items: Vec<Item>,
    ) -> Relation {
        let mut external = self.sources.iter().find_map(|s| s.external);
        external = external.or_else(|| self.row_calls.iter().chain(&self.group_calls).map(|c| c.span).next());
        let over = self.sources.iter().find(|s| !s.over.is_empty()).map(|s| s.over.clone()).unwrap_or_default();
        let mut rel = self.source_rel(0);
        for join in joined {
            rel = self.join_rel(rel, join);
        }
        if !self.analytics.is_empty() {
            rel = Rel::Analytic { input: Box::new(rel), calls: std::mem::take(&mut self.analytics) };
        }
        let row_calls = std::mem::take(&mut self.row_calls);
        let group_calls = std::mem::take(&mut self.group_calls);
        if let Some(call) = row_calls.iter().chain(&group_calls).nth(CALLS_MAX) {
            let problem = Diagnostic::error("too many external calls in one SELECT", call.span)
                .label(format!("at most {CALLS_MAX}"));
            self.binder.problem(problem.help("score several values in one call"));
        }
        // without groups HAVING is one more WHERE
        let (rows, groups) = if self.grouped { (filter, having) } else { (both(filter, having), None) };
        let (mut items, mut keys) = (items, std::mem::take(&mut self.keys));
        let (grouped, mut aggregates) = (self.grouped, std::mem::take(&mut self.aggregates));
        rel = filtered(self.binder, rel, rows, row_calls, &mut |of| match grouped {
            true => {
                keys.iter_mut().for_each(|(_, key)| *key = of(key));
                aggregates.iter_mut().for_each(|(_, a)| *a = rewrite_aggregate(a, &mut |e| Some(of(e))));
            }
            false => items.iter_mut().for_each(|item| item.expr = of(&item.expr)),
        });
        if grouped {
            rel = Rel::Aggregate {
                input: Box::new(rel),
                keys,
                windows: std::mem::take(&mut self.windows),
                aggregates,
                window_id: self.window_id,
            };
            rel = filtered(self.binder, rel, groups, group_calls, &mut |of| {
                items.iter_mut().for_each(|item| item.expr = of(&item.expr));
            });
        }
        let (columns, exprs) = self.columns_of(items);
        let over = over.into_iter().map(|key| self.over_above(key, &exprs)).collect();
        Relation { rel: Rel::Project { input: Box::new(rel), exprs }, columns, over, external, poisoned: false }
    }

    fn columns_of(&mut self, items: Vec<Item>) -> (Vec<OutColumn>, Vec<(ColumnId, Expr)>) {
        let mut columns = Vec::with_capacity(items.len());
        let mut exprs = Vec::with_capacity(items.len());
        for item in items {
            let known = match &item.expr {
                Expr::Slot(id) => self.binder.columns.get(*id).cloned(),
                _ => None,
            };
            let is_text = matches!(&item.expr, Expr::Cast { ty: Type::Text, .. })
                || known.as_ref().is_some_and(|info| info.cast_to_text);
            let ty = self.binder.type_of(&item.expr);
            let id =
                self.binder.column(ColumnInfo { name: item.name.clone(), ty, cast_to_text: is_text, field_of: None });
            columns.push(OutColumn { id, name: item.name, spread: item.spread });
            exprs.push((id, item.expr));
        }
        (columns, exprs)
    }

    /// The key of the substreams as a column of the result, when it is selected.
    fn over_above(&mut self, key: OverKey, exprs: &[(ColumnId, Expr)]) -> OverKey {
        let slots = |a: usize, b: usize| self.binder.same_column(a, b);
        let selected = key.expr.as_ref().and_then(|e| exprs.iter().find(|(_, item)| same(item, e, &slots)));
        OverKey { expr: selected.map(|(id, _)| Expr::Slot(*id)), text: key.text }
    }

    pub(super) fn source_rel(&mut self, index: usize) -> Rel {
        let Some(source) = self.sources.get_mut(index) else {
            self.binder.fault("a source of FROM is not there when its rows are put together", Span::default());
            return Relation::poisoned().rel;
        };
        let mut rel = match &mut source.kind {
            SourceKind::Scan { input, columns, timestamp_by, keys, schema, .. } => Rel::Scan {
                input: input.clone(),
                columns: std::mem::take(columns),
                timestamp_by: timestamp_by.take(),
                over: std::mem::take(keys),
                schema: schema.take(),
            },
            SourceKind::Step { rel, .. } => std::mem::replace(rel, Relation::poisoned().rel),
            SourceKind::Reference { .. } | SourceKind::Apply { .. } => Relation::poisoned().rel,
        };
        if !source.analytics.is_empty() {
            rel = Rel::Analytic { input: Box::new(rel), calls: std::mem::take(&mut source.analytics) };
        }
        match source.time {
            Some(id) => Rel::Extend { input: Box::new(rel), exprs: vec![(id, Expr::Time)] },
            None => rel,
        }
    }

    fn join_rel(&mut self, left: Rel, join: Joined) -> Rel {
        let left = Box::new(left);
        match join {
            Joined::Apply { outer, function, argument, out, span } => {
                Rel::Apply { input: left, outer, function, argument, out, span }
            }
            Joined::Table { left_outer, right, condition } => {
                let Condition { bound, keys, on } = condition;
                match self.sources.get(right).map(|s| (&s.kind, s.original.clone())) {
                    Some((SourceKind::Reference { out, .. }, reference)) => {
                        let out = *out;
                        Rel::ReferenceJoin { input: left, reference, left_outer, keys, on, out }
                    }
                    // a join without a bound was reported
                    _ => match bound {
                        Some(bound) => {
                            Rel::Join { left, right: Box::new(self.source_rel(right)), left_outer, bound, keys, on }
                        }
                        None => *left,
                    },
                }
            }
        }
    }
}

/// The column name of an expression without an alias.
fn name_of(e: &ast::Expr) -> Option<(SmolStr, NameOrigin)> {
    match &e.kind {
        ExprKind::Path(path) => path.last().map(|part| (part.name.clone(), NameOrigin::Written)),
        ExprKind::Field(_, field) => Some((field.name.clone(), NameOrigin::Written)),
        ExprKind::Call(call) => call.name.last().map(|name| (name.name.clone(), NameOrigin::Made)),
        ExprKind::SystemTimestamp => Some((SmolStr::new_static("Timestamp"), NameOrigin::Made)),
        ExprKind::WindowId => Some((SmolStr::new_static("Id"), NameOrigin::Made)),
        _ => None,
    }
}

//! The sources of one `SELECT` and the columns that names mean.
//!
//! In: a path as written. Out: an expression over column ids. Invariant: a scan holds only the columns that were asked
//! for, and a name that could mean two things is an error, never a guess. Not here: which clause may use what.

use smol_str::SmolStr;

use super::binder::{Binder, Named};
use super::core::Core;
use super::hints::did_you_mean;
use super::relation::{ColumnId, ColumnInfo, OutColumn, find_named};
use super::source::{Has, ScopeSource, SourceKind, apply_fields, explicit, is_arrival_name};
use super::tree::first_of;
use crate::batch::Column;
use crate::diagnostic::{Diagnostic, Span};
use crate::query::ast::Ident;
use crate::query::plan::{Expr, Metadata, ScanColumn};
use crate::value::{Type, Value, same_ignoring_case};

impl Core<'_, '_> {
    /// What a path means. Reports and gives NULL when it means nothing.
    pub(super) fn path(&mut self, parts: &[Ident], span: Span) -> Expr {
        let Some((first, rest)) = parts.split_first() else { return self.no_source(span) };
        let expr = if let Some(index) = self.source_named(&first.name) {
            match rest.split_first() {
                None => self.source_as_value(index, first),
                Some((column, below)) => self.column_of(index, column, below),
            }
        } else {
            self.unqualified(first, rest, span)
        };
        self.note_uses(&expr, span);
        expr
    }

    #[cold]
    fn no_source(&mut self, span: Span) -> Expr {
        self.binder.fault("a name was bound to a source that is not in FROM", span);
        Expr::Const(Value::Null)
    }

    /// Remembers where columns were read, for errors that come later.
    fn note_uses(&mut self, expr: &Expr, span: Span) {
        let uses = &mut self.uses;
        super::tree::each_slot(expr, &mut |id| uses.push((id, span)));
    }

    /// The visible source that the query calls `name`.
    pub(super) fn source_named(&self, name: &str) -> Option<usize> {
        let visible = self.sources.get(self.scope.clone()).unwrap_or_default();
        let source = find_named(visible, name, |s| &s.name)?;
        self.sources.iter().position(|s| std::ptr::eq(s, source))
    }

    /// Whether a path names a source as a whole and no column of it for certain.
    pub(super) fn names_whole_source(&self, path: &[Ident]) -> bool {
        let [name] = path else { return false };
        let source = self.source_named(&name.name).and_then(|i| self.sources.get(i));
        source.is_some_and(|s| s.has(&name.name) != Has::Yes)
    }

    /// A source's name used as a value: the column of that name when there is one, else the whole event.
    fn source_as_value(&mut self, index: usize, name: &Ident) -> Expr {
        match self.sources.get(index).map(|s| s.has(&name.name)) {
            Some(Has::Yes) => self.column_of(index, name, &[]),
            Some(Has::Maybe)
                if self
                    .sources
                    .get(index)
                    .is_some_and(|s| !s.poisoned && matches!(s.kind, SourceKind::Scan { .. })) =>
            {
                let column = self.column_of(index, name, &[]);
                first_of(column, self.whole(index))
            }
            _ => self.whole(index),
        }
    }

    /// The whole row of a source as a record.
    pub(super) fn whole(&mut self, index: usize) -> Expr {
        let Some(source) = self.sources.get(index) else { return self.no_source(Span::default()) };
        let declared = source.schema().map(|s| s.columns.clone());
        match (&source.kind, declared) {
            (SourceKind::Scan { .. }, Some(columns)) => {
                let mut fields = Vec::with_capacity(columns.len());
                for (name, _) in columns {
                    let value = self.scan_column(index, ScanColumn::Field(name.clone()));
                    fields.push((name, Expr::Slot(value)));
                }
                Expr::Record(fields)
            }
            (SourceKind::Scan { .. }, None) => Expr::Slot(self.scan_column(index, ScanColumn::Whole)),
            (SourceKind::Step { columns, .. }, _) => record_of(columns),
            (SourceKind::Reference { out, .. } | SourceKind::Apply { out, .. }, _) => Expr::Slot(*out),
        }
    }

    /// The columns of `*` for one source.
    pub(super) fn star(&mut self, index: usize) -> Vec<(SmolStr, bool, Expr)> {
        let Some(source) = self.sources.get(index) else {
            self.no_source(Span::default());
            return Vec::new();
        };
        match &source.kind {
            SourceKind::Step { columns, .. } => {
                columns.iter().map(|c| (c.name.clone(), c.spread, Expr::Slot(c.id))).collect()
            }
            SourceKind::Apply { out, .. } => vec![(source.name.clone(), false, Expr::Slot(*out))],
            SourceKind::Reference { out, .. } => vec![(SmolStr::default(), true, Expr::Slot(*out))],
            SourceKind::Scan { .. } => match self.whole(index) {
                Expr::Record(fields) => fields.into_iter().map(|(name, value)| (name, false, value)).collect(),
                whole => vec![(SmolStr::default(), true, whole)],
            },
        }
    }

    /// All columns of all visible sources as one record: `LAG(*)`, `Collect()`, `TopOne()`.
    pub(super) fn whole_row(&mut self) -> Expr {
        let scope = self.scope.clone();
        if scope.len() == 1 {
            return self.whole(scope.start);
        }
        let mut columns = Vec::new();
        let mut values = Vec::new();
        for (name, spread, value) in scope.flat_map(|i| self.star(i)).collect::<Vec<_>>() {
            columns.push(Column { name, spread });
            values.push(value);
        }
        Expr::Spread(columns.into(), values)
    }

    /// A column of a source and the path below it.
    fn column_of(&mut self, index: usize, column: &Ident, below: &[Ident]) -> Expr {
        let Some(source) = self.sources.get(index) else { return self.no_source(column.span) };
        if source.poisoned {
            return Expr::Const(Value::Null);
        }
        if source.has(&column.name) == Has::No && !matches!(source.kind, SourceKind::Apply { .. }) {
            return self.unknown_column(&[index], column);
        }
        let value = match &source.kind {
            SourceKind::Scan { .. } => self.field_of_scan(index, &column.name),
            SourceKind::Step { .. } => self.column_of_step(index, &column.name),
            SourceKind::Reference { out, .. } => Expr::Path(Box::new(Expr::Slot(*out)), vec![column.name.clone()]),
            SourceKind::Apply { function, out } => {
                let (fields, out) = (apply_fields(*function), *out);
                let Some(field) = fields.iter().find(|f| same_ignoring_case(f, &column.name)) else {
                    return self.unknown_column(&[index], column);
                };
                Expr::Path(Box::new(Expr::Slot(out)), vec![SmolStr::new_static(field)])
            }
        };
        below_of(value, below)
    }

    fn field_of_scan(&mut self, index: usize, name: &SmolStr) -> Expr {
        let declared = self
            .sources
            .get(index)
            .and_then(ScopeSource::schema)
            .and_then(|s| find_named(&s.columns, name, |(n, _)| n));
        let field = declared.map_or_else(|| name.clone(), |(n, _)| n.clone());
        let is_declared = declared.is_some();
        if is_arrival_name(name) && !is_declared {
            let arrival = Expr::Slot(self.scan_column(index, ScanColumn::Metadata(Metadata::Arrival)));
            if self.sources.get(index).and_then(ScopeSource::schema).is_some() {
                return arrival;
            }
            return first_of(Expr::Slot(self.scan_column(index, ScanColumn::Field(field))), arrival);
        }
        Expr::Slot(self.scan_column(index, ScanColumn::Field(field)))
    }

    /// The id of a scan's column, asked for now or before.
    pub(super) fn scan_column(&mut self, index: usize, column: ScanColumn) -> ColumnId {
        let source = self.sources.get_mut(index);
        let Some(ScopeSource { kind: SourceKind::Scan { tag, columns, schema, .. }, original, .. }) = source else {
            self.no_source(Span::default());
            return self.binder.column(ColumnInfo::default());
        };
        if let Some((id, _)) = columns.iter().find(|(_, c)| *c == column) {
            return *id;
        }
        let info = match &column {
            ScanColumn::Field(name) => {
                let ty = schema.as_ref().and_then(|s| s.columns.iter().find(|(n, _)| n == name)).map(|(_, ty)| *ty);
                ColumnInfo { name: name.clone(), ty, cast_to_text: false, field_of: Some(*tag) }
            }
            ScanColumn::Whole => ColumnInfo { name: original.clone(), ty: Some(Type::Record), ..ColumnInfo::default() },
            ScanColumn::Metadata(metadata) => {
                let ty = (*metadata == Metadata::Arrival).then_some(Type::DateTime);
                ColumnInfo { name: SmolStr::new_static("metadata"), ty, ..ColumnInfo::default() }
            }
        };
        let id = self.binder.column(info);
        columns.push((id, column));
        self.owner.insert(id, index);
        id
    }

    fn column_of_step(&mut self, index: usize, name: &SmolStr) -> Expr {
        let Some(ScopeSource { kind: SourceKind::Step { rel, columns, opened, .. }, .. }) = self.sources.get_mut(index)
        else {
            return self.no_source(Span::default());
        };
        if let Some(column) = explicit(columns, name) {
            return if column.name == *name { Expr::Slot(column.id) } else { exact_or(columns, name, column.id) };
        }
        if let Some((_, known)) = opened.iter().find(|(n, _)| n == name) {
            return known.clone();
        }
        let mut found: Option<Expr> = None;
        for spread in columns.iter().filter(|c| c.spread) {
            let infos = &mut self.binder.columns;
            let mut fresh = || {
                // two steps on the way give the same field two ids; only the outermost is seen outside
                infos.push(ColumnInfo { name: name.clone(), ..ColumnInfo::default() });
                infos.len() - 1
            };
            let value = match rel.open_field(spread.id, name, &mut fresh) {
                Some(id) => {
                    self.owner.insert(id, index);
                    Expr::Slot(id)
                }
                None => Expr::Path(Box::new(Expr::Slot(spread.id)), vec![name.clone()]),
            };
            found = Some(match found {
                Some(earlier) => first_of(earlier, value),
                None => value,
            });
        }
        let value = found.unwrap_or(Expr::Const(Value::Null));
        opened.push((name.clone(), value.clone()));
        value
    }

    fn unqualified(&mut self, first: &Ident, rest: &[Ident], span: Span) -> Expr {
        if let Some(expr) = self.hidden_name(first, rest) {
            return expr;
        }
        if let Some(expr) = self.step_as_value(first, rest, span) {
            return expr;
        }
        let candidates: Vec<usize> = self
            .scope
            .clone()
            .filter(|i| self.sources.get(*i).is_some_and(|s| s.has(&first.name) != Has::No))
            .collect();
        match candidates.as_slice() {
            [] => {
                let all: Vec<usize> = self.scope.clone().collect();
                self.unknown_column(&all, first)
            }
            [only] => {
                let has = |function| apply_fields(function).iter().any(|f| same_ignoring_case(f, &first.name));
                let mut sources = self.scope.clone().filter_map(|i| self.sources.get(i));
                let inside = sources.find(|s| matches!(&s.kind, SourceKind::Apply { function, .. } if has(*function)));
                if let Some(apply) = inside {
                    let problem =
                        Diagnostic::error(format!("`{}` is a field of `{}`", first.name, apply.name), first.span)
                            .label("not a column by itself")
                            .help(format!("write `{}.{}`", apply.name, first.name));
                    self.binder.problem(problem);
                    return Expr::Const(Value::Null);
                }
                self.column_of(*only, first, rest)
            }
            several => self.ambiguous(several, first),
        }
    }

    fn ambiguous(&mut self, several: &[usize], column: &Ident) -> Expr {
        let sources: Vec<&ScopeSource> = several.iter().filter_map(|i| self.sources.get(*i)).collect();
        if sources.iter().any(|s| s.poisoned) {
            return Expr::Const(Value::Null);
        }
        let names: Vec<String> = sources.iter().map(|s| format!("`{}.{}`", s.name, column.name)).collect();
        let problem = Diagnostic::error(format!("`{}` could belong to several sources", column.name), column.span)
            .label("which one?")
            .help(format!("write {}", names.join(" or ")));
        self.binder.problem(problem);
        Expr::Const(Value::Null)
    }

    /// A source named by what it was called before its alias.
    fn hidden_name(&mut self, first: &Ident, rest: &[Ident]) -> Option<Expr> {
        let visible = self.sources.get(self.scope.clone()).unwrap_or_default();
        let source = visible.iter().find(|s| !rest.is_empty() && s.original == first.name && s.name != s.original)?;
        let problem =
            Diagnostic::error(format!("`{}` is called `{}` in this SELECT", source.original, source.name), first.span)
                .label("an alias hides the name")
                .help(format!(
                    "write `{0}.…`; for a payload field of this name write `{0}.{1}.…`",
                    source.name, first.name
                ));
        self.binder.problem(problem);
        Some(Expr::Const(Value::Null))
    }

    fn unknown_column(&mut self, sources: &[usize], column: &Ident) -> Expr {
        let sources: Vec<&ScopeSource> = sources.iter().filter_map(|i| self.sources.get(*i)).collect();
        if sources.iter().any(|s| s.poisoned) {
            return Expr::Const(Value::Null);
        }
        let known: Vec<&str> = sources.iter().flat_map(|s| s.known()).collect();
        let owner = match sources.as_slice() {
            [only] => format!(" in `{}`", only.name),
            _ => String::new(),
        };
        let mut problem = Diagnostic::error(format!("unknown column `{}`{owner}", column.name), column.span)
            .label("no such column")
            .help(did_you_mean(&column.name, &known, "column"));
        if self.item_aliases.iter().any(|alias| same_ignoring_case(alias, &column.name)) {
            problem = problem.note(
                "an alias of the SELECT list is not visible in WHERE and GROUP BY: repeat the expression, or use a \
                    step",
            );
        }
        self.binder.problem(problem);
        Expr::Const(Value::Null)
    }

    /// What a name in `FROM` reads.
    pub(super) fn source(&mut self, ast: &crate::query::ast::FromSource) -> ScopeSource {
        let mut source = ScopeSource {
            name: ast.alias.as_ref().unwrap_or(&ast.name).name.clone(),
            original: ast.name.name.clone(),
            kind: SourceKind::Step {
                index: None,
                rel: super::relation::Relation::poisoned().rel,
                columns: Vec::new(),
                opened: Vec::new(),
            },
            over: Vec::new(),
            external: None,
            poisoned: false,
            analytics: Vec::new(),
            time: None,
        };
        match self.binder.named(&ast.name, self.visible) {
            None => source.poisoned = true,
            Some(Named::Step(index)) => {
                let relation = self.binder.step(index, ast.name.span);
                source.over = relation.over;
                source.external = relation.external;
                source.poisoned = relation.poisoned;
                source.kind = SourceKind::Step {
                    index: Some(index),
                    rel: relation.rel,
                    columns: relation.columns,
                    opened: Vec::new(),
                };
            }
            Some(Named::Input(input)) => {
                source.original = input.name.as_str().into();
                let schema = self.binder.schema(&input.name).cloned();
                source.kind = if Binder::is_reference(input) {
                    let info =
                        ColumnInfo { name: source.name.clone(), ty: Some(Type::Record), ..ColumnInfo::default() };
                    SourceKind::Reference { out: self.binder.column(info), schema }
                } else {
                    self.binder.scans += 1;
                    let tag = self.binder.scans;
                    let input = source.original.clone();
                    SourceKind::Scan { input, tag, columns: Vec::new(), timestamp_by: None, keys: Vec::new(), schema }
                };
            }
        }
        source
    }
}

/// An explicit column that is called `name` only when letter case is ignored. A field of exactly this name that a
/// spread has at run time comes first, NULL too: of spread records the first with a name gives it, so the explicit
/// column, as a record of one field called `name`, goes last.
fn exact_or(columns: &[OutColumn], name: &SmolStr, otherwise: ColumnId) -> Expr {
    let mut records: Vec<Expr> = columns.iter().filter(|c| c.spread).map(|c| Expr::Slot(c.id)).collect();
    if records.is_empty() {
        return Expr::Slot(otherwise);
    }
    records.push(Expr::Record(vec![(name.clone(), Expr::Slot(otherwise))]));
    let spread = Column { name: SmolStr::default(), spread: true };
    let shown = vec![spread; records.len()];
    Expr::Path(Box::new(Expr::Spread(shown.into(), records)), vec![name.clone()])
}

/// The columns of a step as one record.
fn record_of(columns: &[OutColumn]) -> Expr {
    if columns.iter().any(|c| c.spread) {
        let shown = columns.iter().map(|c| Column { name: c.name.clone(), spread: c.spread }).collect();
        return Expr::Spread(shown, columns.iter().map(|c| Expr::Slot(c.id)).collect());
    }
    Expr::Record(columns.iter().map(|c| (c.name.clone(), Expr::Slot(c.id))).collect())
}

/// Fields below a value.
pub(super) fn below_of(value: Expr, below: &[Ident]) -> Expr {
    let names = below.iter().map(|part| part.name.clone());
    match value {
        value if below.is_empty() => value,
        Expr::Path(base, mut path) => {
            path.extend(names);
            Expr::Path(base, path)
        }
        value => Expr::Path(Box::new(value), names.collect()),
    }
}

//! MATCH_RECOGNIZE: variables, navigation and measures.
//!
//! In: its syntax and the bound input. Out: a source whose columns are the partition keys and the measures. Invariant:
//! a condition looks at its own row and at rows taken before it, a measure at rows of the match; each such look is a
//! column of its own (`Navigation`), so conditions and measures are plain expressions. Not here: matching (`engine`).

use smol_str::{SmolStr, format_smolstr};

use super::core::Core;
use super::place::{Clause, Place};
use super::relation::{ColumnId, ColumnInfo, OutColumn, OverKey, Rel, Relation};
use super::source::{ScopeSource, SourceKind};
use crate::diagnostic::{Diagnostic, Span};
use crate::query::ast::{self, Arg, ExprKind, Ident, MatchRecognize, RowPattern};
use crate::query::plan::{Expr, Navigate, Navigation, Pattern};
use crate::value::{Type, same_ignoring_case};

/// Variables of one pattern.
const VARIABLES_MAX: usize = 64;
/// Parts of one pattern: an attempt remembers for each place it may go back to where each quantifier stood.
const PARTS_MAX: usize = 1000;
/// A name that no query can write: the source of navigations while conditions are bound.
const NAVIGATIONS: &str = "\0";

/// What is known while one MATCH_RECOGNIZE is bound.
struct Binding {
    source: SmolStr,
    index: usize,
    variables: Vec<SmolStr>,
    navigations: Vec<(ColumnId, Navigation)>,
}

/// Where an expression stands.
#[derive(Clone, Copy)]
enum Stand {
    /// The condition of a variable.
    Condition(usize),
    Measure,
}

impl Core<'_, '_> {
    /// Puts the pattern on top of source `index`, whose rows it reads.
    pub(super) fn recognize(&mut self, matched: &MatchRecognize, index: usize) {
        let Some(limit) = self.length("a LIMIT DURATION", &matched.limit.unit, &matched.limit.count) else {
            return self.poison(index);
        };
        if let Some(ScopeSource { kind: SourceKind::Reference { .. }, original, .. }) = self.sources.get(index) {
            let problem = Diagnostic::error(format!("MATCH_RECOGNIZE over reference data `{original}`"), matched.span)
                .label("reference data never moves time")
                .help("look for patterns in a stream: in a step, and join the table to what it finds");
            self.binder.problem(problem);
            return self.poison(index);
        }
        let before = self.binder.met;
        let mut variables = Vec::new();
        let pattern = pattern_of(&matched.pattern, &mut variables);
        if variables.len() > VARIABLES_MAX {
            let problem = Diagnostic::error("too many variables in a pattern", matched.span)
                .label(format!("at most {VARIABLES_MAX}"));
            self.binder.problem(problem);
        }
        if parts(&pattern) > PARTS_MAX {
            let problem = Diagnostic::error("the pattern is too long", matched.span);
            let problem = problem.label(format!("at most {PARTS_MAX} variables, groups and quantifiers"));
            self.binder.problem(problem.help("write what repeats with a quantifier: `(A B)+`"));
        }
        let source = self.sources.get(index).map(|s| s.name.clone()).unwrap_or_default();
        let mut binding = Binding { source, index, variables, navigations: Vec::new() };
        self.scope = index..index + 1;
        let mut columns: Vec<(SmolStr, Expr)> = Vec::new();
        let mut partition_by = Vec::new();
        for key in &matched.partition_by {
            let bound = self.expr(key, Place::clause(Clause::PartitionBy));
            partition_by.push(bound.clone());
            if let ExprKind::Path(path) = &key.kind
                && let Some(name) = path.last()
                && !matched.measures.iter().any(|m| same_ignoring_case(&m.name.name, &name.name))
            {
                if columns.iter().any(|(known, _)| *known == name.name) {
                    let problem = Diagnostic::error(format!("two partition keys are called `{}`", name.name), key.span);
                    self.binder.problem(problem.label("the name is taken").help("name one of them in a step before"));
                    continue;
                }
                columns.push((name.name.clone(), bound));
            }
        }
        let define = self.conditions(matched, &mut binding);
        for measure in &matched.measures {
            if columns.iter().any(|(name, _)| *name == measure.name.name) {
                let problem =
                    Diagnostic::error(format!("two measures are called `{}`", measure.name.name), measure.name.span);
                self.binder.problem(problem.label("the name is taken").help("give one of them another name"));
                continue;
            }
            let bound = self.in_pattern(&measure.expr, &mut binding, Stand::Measure);
            columns.push((measure.name.name.clone(), bound));
        }
        if self.binder.met > before {
            return self.poison(index);
        }
        self.put_match(binding, pattern, limit, partition_by, define, columns);
    }

    fn poison(&mut self, index: usize) {
        if let Some(source) = self.sources.get_mut(index) {
            source.poisoned = true;
            let rel = Relation::poisoned().rel;
            source.kind = SourceKind::Step { index: None, rel, columns: Vec::new(), opened: Vec::new() };
        }
    }

    /// A condition for each variable; those without one take any row.
    fn conditions(&mut self, matched: &MatchRecognize, binding: &mut Binding) -> Vec<Option<Expr>> {
        let mut define: Vec<Option<Expr>> = binding.variables.iter().map(|_| None).collect();
        for variable in &matched.define {
            let Some(place) = binding.place(&variable.name.name) else {
                let problem =
                    Diagnostic::error(format!("`{}` is not in the pattern", variable.name.name), variable.name.span)
                        .label("no such variable")
                        .help(super::hints::did_you_mean(&variable.name.name, &binding.names(), "variable"));
                self.binder.problem(problem);
                continue;
            };
            if define.get(place).is_some_and(Option::is_some) {
                let problem =
                    Diagnostic::error(format!("`{}` is defined twice", variable.name.name), variable.name.span);
                self.binder.problem(problem.label("has a condition already").help("join the conditions with AND"));
                continue;
            }
            let condition = self.in_pattern(&variable.condition, binding, Stand::Condition(place));
            if let Some(slot) = define.get_mut(place) {
                *slot = Some(condition);
            }
        }
        define
    }

    /// Binds an expression whose paths may start with variables.
    fn in_pattern(&mut self, expr: &ast::Expr, binding: &mut Binding, stand: Stand) -> Expr {
        let plain = self.navigated(expr, binding, stand);
        let hidden = binding.navigations.iter().enumerate();
        let columns = hidden.map(|(i, (id, _))| OutColumn { id: *id, name: nav_name(i), spread: false }).collect();
        self.scope = binding.index..binding.index + 2;
        self.sources.push(hidden_source(columns));
        let bound = self.expr(&plain, Place::clause(Clause::Match));
        self.sources.pop();
        self.scope = binding.index..binding.index + 1;
        bound
    }

    /// A copy in which looks at rows are columns of the hidden source.
    fn navigated(&mut self, expr: &ast::Expr, binding: &mut Binding, stand: Stand) -> ast::Expr {
        let found = match &expr.kind {
            ExprKind::Path(path) => self.variable_path(path, expr.span, binding, stand),
            ExprKind::Call(call) => self.navigation(call, expr.span, binding, stand),
            _ => None,
        };
        found.unwrap_or_else(|| ast::map_operands(expr, &mut |e| self.navigated(e, binding, stand)))
    }

    /// `V.column`: of the row itself in V's own condition, else of the last row taken as V. A column without a variable
    /// is that of the row itself, in a measure of the last row of the match.
    fn variable_path(&mut self, path: &[Ident], span: Span, binding: &mut Binding, stand: Stand) -> Option<ast::Expr> {
        let (first, rest) = path.split_first()?;
        let place = binding.place(&first.name);
        if place.is_some_and(|place| self.is_later(place, first, binding, stand)) {
            return Some(null(span));
        }
        match (place, stand) {
            (Some(place), Stand::Condition(own)) if place == own && !rest.is_empty() => {
                Some(binding.own_column(rest, span))
            }
            (Some(place), _) if !rest.is_empty() => {
                Some(self.add_navigation(Navigate::Last, Some(place), Some(rest), span, binding))
            }
            _ => None,
        }
    }

    /// `First(V.column)`, `Last`, `Min`, `Max`, `Classifier()`.
    fn navigation(&mut self, call: &ast::Call, span: Span, binding: &mut Binding, stand: Stand) -> Option<ast::Expr> {
        let [name] = call.name.as_slice() else { return None };
        let navigate = match name.name.to_ascii_lowercase().as_str() {
            "first" => Navigate::First,
            "last" => Navigate::Last,
            "min" => Navigate::Min,
            "max" => Navigate::Max,
            "classifier" if call.args.is_empty() => {
                return Some(self.add_navigation(Navigate::Classifier, None, None, span, binding));
            }
            _ => return None,
        };
        if let ([Arg::Expr(ast::Expr { kind: ExprKind::Path(path), .. })], false, None) =
            (call.args.as_slice(), call.distinct, &call.over)
            && let Some((first, rest)) = path.split_first()
            && let Some(place) = binding.place(&first.name)
            && !rest.is_empty()
        {
            if self.is_later(place, first, binding, stand) {
                return Some(null(span));
            }
            return Some(self.add_navigation(navigate, Some(place), Some(rest), span, binding));
        }
        let known = binding.names().first().copied().unwrap_or("A").to_owned();
        let problem = Diagnostic::error(format!("`{}` takes one column of a variable", name.name), span)
            .label("expected a variable of the pattern and a column")
            .help(format!("write `{}({known}.column)`", name.name));
        self.binder.problem(problem);
        Some(null(span))
    }

    /// A condition cannot look at rows that come after its own.
    fn is_later(&mut self, place: usize, name: &Ident, binding: &Binding, stand: Stand) -> bool {
        let Stand::Condition(own) = stand else { return false };
        if place <= own {
            return false;
        }
        let own = binding.variables.get(own).cloned().unwrap_or_default();
        let problem = Diagnostic::error(format!("`{}` comes after `{own}` in the pattern", name.name), name.span)
            .label("its rows are not known yet")
            .help(format!("compare them in the condition of `{}`", name.name));
        self.binder.problem(problem);
        true
    }

    fn add_navigation(
        &mut self,
        navigate: Navigate,
        variable: Option<usize>,
        column: Option<&[Ident]>,
        span: Span,
        binding: &mut Binding,
    ) -> ast::Expr {
        let argument = column.map(|column| {
            let own = binding.own_column(column, span);
            self.expr(&own, Place::clause(Clause::Match))
        });
        let ty = match navigate {
            Navigate::Classifier => Some(Type::Array),
            _ => argument.as_ref().and_then(|e| self.binder.type_of(e)),
        };
        let number = binding.navigations.len();
        let id = self.binder.column(ColumnInfo { name: nav_name(number), ty, ..ColumnInfo::default() });
        binding.navigations.push((id, Navigation { navigate, variable, argument, span }));
        let part = |name: SmolStr| Ident { name, span, quoted: true };
        ast::Expr { kind: ExprKind::Path(vec![part(NAVIGATIONS.into()), part(nav_name(number))]), span }
    }

    fn put_match(
        &mut self,
        binding: Binding,
        pattern: Pattern,
        limit: i64,
        partition_by: Vec<Expr>,
        define: Vec<Option<Expr>>,
        columns: Vec<(SmolStr, Expr)>,
    ) {
        let input = Box::new(self.source_rel(binding.index));
        let mut out = Vec::with_capacity(columns.len());
        let mut measures = Vec::with_capacity(columns.len());
        for (name, expr) in columns {
            let ty = self.binder.type_of(&expr);
            let id = self.binder.column(ColumnInfo { name: name.clone(), ty, ..ColumnInfo::default() });
            self.owner.insert(id, binding.index);
            out.push(OutColumn { id, name, spread: false });
            measures.push((id, expr));
        }
        let Binding { index, variables, navigations, .. } = binding;
        let rel = Rel::Match { input, limit, partition_by, pattern, variables, navigations, define, measures };
        if let Some(source) = self.sources.get_mut(index) {
            source.over = source.over.iter().map(|key| OverKey { expr: None, text: key.text.clone() }).collect();
            source.kind = SourceKind::Step { index: None, rel, columns: out, opened: Vec::new() };
        }
    }
}

impl Binding {
    fn place(&self, name: &str) -> Option<usize> {
        self.variables.iter().position(|v| same_ignoring_case(v, name))
    }

    fn names(&self) -> Vec<&str> {
        self.variables.iter().map(SmolStr::as_str).collect()
    }

    /// A column of the row itself.
    fn own_column(&self, column: &[Ident], span: Span) -> ast::Expr {
        let source = Ident { name: self.source.clone(), span, quoted: true };
        let path = std::iter::once(source).chain(column.iter().cloned()).collect();
        ast::Expr { kind: ExprKind::Path(path), span }
    }
}

fn null(span: Span) -> ast::Expr {
    ast::Expr { kind: ExprKind::Literal(ast::Literal::Null), span }
}

fn nav_name(number: usize) -> SmolStr {
    format_smolstr!("{NAVIGATIONS}{number}")
}

fn hidden_source(columns: Vec<OutColumn>) -> ScopeSource {
    ScopeSource {
        name: NAVIGATIONS.into(),
        original: NAVIGATIONS.into(),
        kind: SourceKind::Step { index: None, rel: Relation::poisoned().rel, columns, opened: Vec::new() },
        over: Vec::new(),
        external: None,
        poisoned: false,
        analytics: Vec::new(),
        time: None,
    }
}

fn parts(pattern: &Pattern) -> usize {
    match pattern {
        Pattern::Any | Pattern::Variable(_) => 1,
        Pattern::Concat(items) | Pattern::Either(items) => 1 + items.iter().map(parts).sum::<usize>(),
        Pattern::Repeat { of, .. } => 1 + parts(of),
    }
}

/// The pattern over places of variables, which it collects.
fn pattern_of(pattern: &RowPattern, variables: &mut Vec<SmolStr>) -> Pattern {
    match pattern {
        RowPattern::Any => Pattern::Any,
        RowPattern::Variable(name) => {
            let known = variables.iter().position(|v| same_ignoring_case(v, &name.name));
            Pattern::Variable(known.unwrap_or_else(|| {
                variables.push(name.name.clone());
                variables.len() - 1
            }))
        }
        RowPattern::Concat(items) => Pattern::Concat(items.iter().map(|p| pattern_of(p, variables)).collect()),
        RowPattern::Either(branches) => Pattern::Either(branches.iter().map(|p| pattern_of(p, variables)).collect()),
        RowPattern::Repeat { of, at_least_once, many, greedy } => Pattern::Repeat {
            of: Box::new(pattern_of(of, variables)),
            at_least_once: *at_least_once,
            many: *many,
            greedy: *greedy,
        },
    }
}

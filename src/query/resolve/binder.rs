//! What holds for the whole script while it is bound.
//!
//! In: the script and the catalog. Out: problems, columns, what names mean. Invariant: a problem is reported once, also
//! where a step is read twice. Not here: clauses (`select`), the order of work (`resolve`).

use super::fingerprint;
use super::hints::did_you_mean;
use super::relation::{ColumnId, ColumnInfo, find_named};
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::query::ast::{Ident, Script};
use crate::query::catalog::{Catalog, InputDef, InputKind};
use crate::query::fault;
use crate::query::plan::TableSchema;
use crate::value::same_ignoring_case;

/// Problems kept; past it more text helps nobody.
const PROBLEMS_MAX: usize = 100;

/// What holds for the whole script.
pub(super) struct Binder<'a> {
    pub(super) script: &'a Script,
    pub(super) text: &'a str,
    pub(super) catalog: &'a Catalog,
    pub(super) problems: Diagnostics,
    /// Problems met, also those told before: what had one is not asked about again.
    pub(super) met: usize,
    pub(super) tables: Vec<TableSchema>,
    /// By [`ColumnId`].
    pub(super) columns: Vec<ColumnInfo>,
    /// Scans made so far; each gets a number of its own.
    pub(super) scans: u32,
    /// Of the statement at work: how often steps were read, how deep, and which.
    pub(super) inlined: usize,
    pub(super) depth: usize,
    pub(super) used: Vec<bool>,
}

/// What a name in `FROM` stands for.
pub(super) enum Named<'a> {
    Input(&'a InputDef),
    Step(usize),
}

impl<'a> Binder<'a> {
    pub(super) fn new(script: &'a Script, text: &'a str, file: &str, catalog: &'a Catalog) -> Binder<'a> {
        let used = vec![false; script.steps.len()];
        Binder {
            script,
            text,
            catalog,
            problems: Diagnostics::new(file, text),
            met: 0,
            tables: Vec::new(),
            columns: Vec::new(),
            scans: 0,
            inlined: 0,
            depth: 0,
            used,
        }
    }

    /// Reports a problem once: a step that is read twice is bound twice.
    pub(super) fn problem(&mut self, problem: Diagnostic) {
        self.met += 1;
        if self.problems.items.len() < PROBLEMS_MAX && !self.problems.items.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Reports what cannot be, and yet was found while binding what stands at `span`.
    #[cold]
    pub(super) fn fault(&mut self, what: &str, span: Span) {
        self.problem(fault::problem(what, span));
    }

    pub(super) fn column(&mut self, info: ColumnInfo) -> ColumnId {
        self.columns.push(info);
        self.columns.len() - 1
    }

    /// Whether two ids are one column: the same, or one payload field spelled in two letter cases.
    pub(super) fn same_column(&self, a: ColumnId, b: ColumnId) -> bool {
        a == b
            || match (self.columns.get(a), self.columns.get(b)) {
                (Some(a), Some(b)) => {
                    a.field_of.is_some() && a.field_of == b.field_of && same_ignoring_case(&a.name, &b.name)
                }
                _ => false,
            }
    }

    /// The text at a span, on one line.
    pub(super) fn text_at(&self, span: Span) -> String {
        fingerprint::folded(self.text.get(span.start..span.end).unwrap_or_default())
    }

    /// What `name` in `FROM` means to a `SELECT` that sees the first `visible` steps.
    pub(super) fn named(&mut self, name: &Ident, visible: usize) -> Option<Named<'a>> {
        let (script, catalog) = (self.script, self.catalog);
        let steps = script.steps.get(..visible).unwrap_or_default();
        if let Some(step) = find_named(steps, &name.name, |s| &s.name.name) {
            return steps.iter().position(|s| std::ptr::eq(s, step)).map(Named::Step);
        }
        if let Some(input) = find_named(&catalog.inputs, &name.name, |i| &i.name) {
            return Some(Named::Input(input));
        }
        let later = script.steps.iter().skip(visible).position(|s| same_ignoring_case(&s.name.name, &name.name));
        let problem = match later {
            Some(0) => Diagnostic::error(format!("the step `{}` reads itself", name.name), name.span)
                .label("recursion does not exist")
                .help("read an input or an earlier step"),
            Some(_) => Diagnostic::error(format!("the step `{}` is defined further down", name.name), name.span)
                .label("a step sees only the steps before it")
                .help(format!("move `{}` up", name.name)),
            None => {
                let steps = steps.iter().map(|s| s.name.name.as_str());
                let names: Vec<&str> = catalog.inputs.iter().map(|i| i.name.as_str()).chain(steps).collect();
                let help = did_you_mean(&name.name, &names, "input or step");
                Diagnostic::error(format!("unknown input or step `{}`", name.name), name.span)
                    .label("nothing has this name")
                    .help(help)
            }
        };
        self.problem(problem);
        None
    }

    pub(super) fn schema(&self, input: &str) -> Option<&TableSchema> {
        self.tables.iter().find(|t| t.input == input)
    }

    pub(super) fn is_reference(input: &InputDef) -> bool {
        input.kind == InputKind::Reference
    }
}

//! Binds names, checks, and makes the plan of a script.
//!
//! In: a syntax tree and a [`Catalog`] of what may be named. Out: a [`Plan`], or every problem of the script at once.
//! Invariant: what refers to something already reported is silent, so each mistake is told once. Not here: syntax
//! (`parser`), the values of functions (`builtins`), running (`engine`).
//!
//! The files: `scope` finds columns, `expression` and `call` bind expressions, `aggregate`, `analytic`, `window` and
//! `join` check their clauses, `select` puts one `SELECT` together as a tree of `relation`, `guard` finds which rows
//! reach a call, `cut` turns that tree into parts, `keeping` looks at calls of functions that keep state. `binder`,
//! `core` and `source` hold what they share: of the script, of a `SELECT`, of a source in `FROM`.

mod aggregate;
mod analytic;
mod binder;
mod call;
mod constant;
mod core;
mod cut;
mod expression;
mod fingerprint;
mod foreign;
mod function;
mod group;
mod guard;
mod hints;
mod inline;
mod join;
mod keeping;
mod match_recognize;
mod metadata;
mod partition;
mod place;
mod relation;
mod scope;
mod select;
mod source;
mod tree;
mod types;
mod user_aggregate;
mod window;

#[cfg(test)]
mod tests;

pub(in crate::query) use aggregate::NAMES as AGGREGATES;
pub(in crate::query) use analytic::NAMES as ANALYTICS;
use smol_str::SmolStr;

use self::binder::Binder;
use self::hints::{did_you_mean, scored_apart};
use self::relation::{ColumnInfo, OutColumn, OverKey, Rel, Relation, find_named};
use super::ast::{Script, Select};
use super::catalog::Catalog;
use super::plan::{Expr, Plan, Statement, TableSchema, fit};
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::value::{Type, same_ignoring_case};

/// Steps of one statement after inlining, a step counting once for each time it is read. Two steps that each read the
/// one before twice double with every level, so text alone does not bound the plan.
const STEPS_INLINED_MAX: usize = 512;

/// Steps that read one another in a chain. Binding and running go down the chain by recursion.
const STEP_DEPTH_MAX: usize = 32;

/// Parts of one statement: each has a stream of its own in the journal, and a row passes through all of them.
const PARTS_MAX: usize = 16;

/// Binds `script` and compiles it. `text` is what it was read from and `file` its name in errors.
///
/// # Errors
/// Every problem of names, types and rules of the language, in the order of the text.
pub fn resolve(script: &Script, text: &str, file: &str, catalog: &Catalog) -> Result<Plan, Diagnostics> {
    let mut binder = Binder::new(script, text, file, catalog);
    binder.check_tables();
    binder.check_steps();
    let statements = script.statements.iter().filter_map(|select| binder.statement(select)).collect();
    if script.statements.is_empty() {
        binder.problem(
            Diagnostic::error("the script has no SELECT statement", None).help("add `SELECT … INTO output FROM input`"),
        );
    }
    let Binder { problems, tables, .. } = binder;
    problems.into_result(Plan { statements, tables })
}

impl<'a> Binder<'a> {
    fn check_tables(&mut self) {
        for table in &self.script.tables {
            let name = &table.name;
            let Some(input) = find_named(&self.catalog.inputs, &name.name, |i| &i.name) else {
                let names: Vec<&str> = self.catalog.inputs.iter().map(|i| i.name.as_str()).collect();
                let problem = Diagnostic::error(format!("CREATE TABLE names no input: `{}`", name.name), name.span)
                    .label("not an input of this job")
                    .help(did_you_mean(&name.name, &names, "input"));
                self.problem(problem);
                continue;
            };
            if self.tables.iter().any(|t| t.input == input.name) {
                let problem = Diagnostic::error(format!("a second CREATE TABLE for `{}`", name.name), name.span)
                    .label("already has a schema")
                    .help("keep one of them");
                self.problem(problem);
                continue;
            }
            let mut columns: Vec<(SmolStr, Type)> = Vec::with_capacity(table.columns.len());
            for column in &table.columns {
                if columns.iter().any(|(n, _)| same_ignoring_case(n, &column.name.name)) {
                    let problem =
                        Diagnostic::error(format!("column `{}` is declared twice", column.name.name), column.name.span)
                            .label("second declaration")
                            .help("remove it");
                    self.problem(problem);
                } else {
                    columns.push((column.name.name.clone(), column.ty));
                }
            }
            self.tables.push(TableSchema { input: input.name.as_str().into(), columns });
        }
    }

    /// Checks every step, also those that no statement reads.
    fn check_steps(&mut self) {
        for (i, step) in self.script.steps.iter().enumerate() {
            let name = &step.name;
            if self.script.steps.iter().take(i).any(|s| same_ignoring_case(&s.name.name, &name.name)) {
                let problem = Diagnostic::error(format!("the step name `{}` is taken", name.name), name.span)
                    .label("a step before has this name")
                    .help("give each step of WITH a name of its own");
                self.problem(problem);
            }
            if self.catalog.inputs.iter().any(|input| same_ignoring_case(&input.name, &name.name)) {
                let problem =
                    Diagnostic::error(format!("the step `{}` has the name of an input", name.name), name.span)
                        .label("this is an input of the job")
                        .help("rename the step");
                self.problem(problem);
            }
            if let Some(into) = &step.body.into {
                let problem = Diagnostic::error("INTO inside WITH", into.span)
                    .label("a step has no output")
                    .help("write INTO in a SELECT statement after the steps");
                self.problem(problem);
            }
            self.inlined = 0;
            self.relation(&step.body, i);
        }
    }

    fn statement(&mut self, select: &Select) -> Option<Statement> {
        self.inlined = 0;
        self.used.fill(false);
        let output = self.output(select);
        let relation = self.relation(select, self.script.steps.len());
        if self.problems.has_errors() {
            return None;
        }
        if relation.poisoned {
            self.fault("a statement could not be bound and no problem says why", select.span);
            return None;
        }
        let parts = match cut::cut(&relation, &self.columns) {
            Ok(parts) => parts,
            Err(found) => {
                self.fault(&found.to_string(), select.span);
                return None;
            }
        };
        if parts.len() > PARTS_MAX {
            let problem = Diagnostic::error(
                format!("this statement needs {} external calls one after another", parts.len()),
                select.span,
            )
            .label(format!("at most {PARTS_MAX}: the answers of each are stored"))
            .help("score several values in one call, or spread the calls over several statements");
            self.problem(problem);
            return None;
        }
        if let Some(problem) = keeping::check(&parts) {
            self.problem(problem);
            return None;
        }
        if let Some(found) = parts.iter().find_map(fit::misfit) {
            self.fault(&found, select.span);
            return None;
        }
        let fingerprint = fingerprint::of(self.text, self.script, &self.used, select);
        Some(Statement { output, fingerprint, span: select.span, parts })
    }

    /// The output a statement writes: the job's spelling of it.
    fn output(&mut self, select: &Select) -> SmolStr {
        let written = select.into.as_ref().map_or("output", |into| into.name.as_str());
        let Some(outputs) = &self.catalog.outputs else { return written.into() };
        if let Some(name) = find_named(outputs, written, |o| o) {
            return name.as_str().into();
        }
        let names: Vec<&str> = outputs.iter().map(String::as_str).collect();
        let problem = match &select.into {
            Some(into) => Diagnostic::error(format!("unknown output `{written}`"), into.span)
                .label("not an output of this job")
                .help(did_you_mean(written, &names, "output")),
            None => Diagnostic::error(
                "no INTO, and no output is called `output`",
                Span::new(select.span.start, select.span.start + 6),
            )
            .label("its rows have nowhere to go")
            .help(format!("write `INTO {}` before FROM", names.first().copied().unwrap_or("name"))),
        };
        self.problem(problem);
        written.into()
    }

    /// Binds a `SELECT` that sees the first `visible` steps.
    fn relation(&mut self, select: &Select, visible: usize) -> Relation {
        let mut branches = select.cores.iter().map(|core| select::bind(self, core, visible)).collect::<Vec<_>>();
        if branches.len() > 1 {
            return self.union(select, branches);
        }
        branches.pop().unwrap_or_else(Relation::poisoned)
    }

    fn union(&mut self, select: &Select, branches: Vec<Relation>) -> Relation {
        let poisoned = branches.iter().any(|b| b.poisoned);
        if !poisoned {
            self.check_union(select, &branches);
        }
        let Some(first) = branches.first() else { return Relation::poisoned() };
        let mut columns = Vec::with_capacity(first.columns.len());
        for (i, column) in first.columns.clone().into_iter().enumerate() {
            let infos: Vec<&ColumnInfo> =
                branches.iter().filter_map(|b| b.columns.get(i)).filter_map(|c| self.columns.get(c.id)).collect();
            let ty = infos.first().and_then(|info| info.ty).filter(|ty| infos.iter().all(|info| info.ty == Some(*ty)));
            let cast_to_text = infos.iter().all(|info| info.cast_to_text);
            let id = self.column(ColumnInfo { name: column.name.clone(), ty, cast_to_text, field_of: None });
            columns.push(OutColumn { id, ..column });
        }
        let over = first.over.iter().map(|key| self.over_of_union(key, first, &columns)).collect();
        let out = columns.iter().map(|c| c.id).collect();
        let external = branches.iter().find_map(|b| b.external);
        let inputs = branches.into_iter().map(|b| (b.rel, b.columns.iter().map(|c| c.id).collect())).collect();
        Relation { rel: Rel::Union { inputs, out }, columns, over, external, poisoned }
    }

    /// The same key, as a column of the union.
    fn over_of_union(&self, key: &OverKey, first: &Relation, columns: &[OutColumn]) -> OverKey {
        let position = match &key.expr {
            Some(Expr::Slot(id)) => first.columns.iter().position(|c| c.id == *id),
            _ => None,
        };
        let expr = position.and_then(|i| columns.get(i)).map(|c| Expr::Slot(c.id));
        OverKey { expr, text: key.text.clone() }
    }

    fn check_union(&mut self, select: &Select, branches: &[Relation]) {
        let Some(first) = branches.first() else { return };
        for (branch, core) in branches.iter().zip(&select.cores).skip(1) {
            if branch.columns.len() != first.columns.len() {
                let (n, m) = (first.columns.len(), branch.columns.len());
                let problem = Diagnostic::error(format!("the branches of UNION have {n} and {m} columns"), core.span)
                    .label(format!("{m} here, {n} in the first SELECT"))
                    .help("select the same columns in the same order in every branch");
                self.problem(problem);
            } else if branch.columns.iter().zip(&first.columns).any(|(a, b)| a.spread != b.spread) {
                let problem =
                    Diagnostic::error("`*` in one branch of UNION stands beside a column of another", core.span)
                        .label("the columns of `*` differ from event to event")
                        .help("name the columns in every branch, or write `*` at the same place in each");
                self.problem(problem);
            }
            if branch.over.is_empty() != first.over.is_empty() {
                let problem = Diagnostic::error("TIMESTAMP BY … OVER in one branch of UNION only", core.span)
                    .label("one timeline meets many")
                    .help("write OVER on all inputs of the query or on none");
                self.problem(problem);
            }
        }
        if let Some(span) = branches.iter().find_map(|b| b.external) {
            self.problem(scored_apart(span, "a branch of UNION"));
        }
    }

    /// The rows of a step, bound anew for each place that reads it so that its columns have ids of their own.
    pub(super) fn step(&mut self, index: usize, read_at: Span) -> Relation {
        let Some(step) = self.script.steps.get(index) else { return Relation::poisoned() };
        if let Some(used) = self.used.get_mut(index) {
            *used = true;
        }
        self.inlined += 1;
        if self.inlined > STEPS_INLINED_MAX || self.depth >= STEP_DEPTH_MAX {
            let problem = Diagnostic::error("the steps of this query multiply beyond reason", read_at)
                .label(format!(
                    "more than {STEPS_INLINED_MAX} steps, or {STEP_DEPTH_MAX} in a chain, for one statement"
                ))
                .help("write an intermediate result to an output and read it back as an input");
            self.problem(problem);
            return Relation::poisoned();
        }
        self.depth += 1;
        let relation = self.relation(&step.body, index);
        self.depth -= 1;
        relation
    }
}

//! `forebay udf test`: calls whose results are known.
//!
//! In: a component and golden rows (`row`). Out: what differs, and the closing line `N passed, N failed`. Invariant:
//! the same file gives the same answer at any time: rows run in their order, a moment is one that is written or a fixed
//! one, and what functions remember begins empty with each file. Exit code 0 only when there were rows and all passed.

mod row;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::Value as Json;

use super::super::test::{indented, value_difference};
use super::{Answer, Failed, FunctionSetup, Granting, find};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::query::builtins::RowError;
use crate::query::catalog::{Offers, Shape, folded};
use crate::time::{TICKS_PER_SECOND, Timestamp};
use crate::udf::{Component, FunctionBinding, Host, UserAggregate, UserFunctions as _};
use crate::value::Value;
use row::{Asked, GoldenRow, Wanted};

/// What it is called beside a component.
const GOLDEN: &str = "golden.jsonl";
/// The row that the help shows.
const EXAMPLE: &str = r#"{"call": "create_array", "args": [1, "Mon"], "expected": ["1", "Mon"]}"#;
/// Characters of a row that are shown above what differs.
const SHOWN_MAX: usize = 120;

#[derive(Debug, Args)]
pub struct Test {
    pub file: PathBuf,
    /// Files of golden rows, one JSON object a line [default: golden.jsonl beside FILE]
    #[arg(value_name = "GOLDEN")]
    pub golden: Vec<PathBuf>,
    #[command(flatten)]
    pub granting: Granting,
    /// Print a JSON object for each row: file, line, name, passed, and what differs
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub setup: FunctionSetup,
}

/// What became of one row.
#[derive(Debug, serde::Serialize)]
struct Verdict<'a> {
    file: &'a Path,
    line: usize,
    name: &'a str,
    passed: bool,
    /// in lines; empty when it passed
    difference: String,
}

pub(super) fn run(test: &Test) -> Result<Answer, Failed> {
    let component = Arc::new(Component::load(&test.setup.engine()?, &test.file, test.setup.limits())?);
    let files = match test.golden.as_slice() {
        [] => vec![beside(&test.file)?],
        named => named.to_vec(),
    };
    let (mut passed, mut failed, mut text) = (0usize, 0usize, String::new());
    for file in &files {
        let source = std::fs::read_to_string(file).map_err(|source| Failed::Read { path: file.clone(), source })?;
        let problems = Diagnostics::new(file.display().to_string(), source);
        let (rows, problems) = row::read(problems);
        let (bindings, places) = bind(&component, &test.granting, &rows, problems)?;
        let mut host = test.granting.host(&bindings)?;
        for (row, place) in rows.iter().zip(places) {
            let difference = judge(row, place, &bindings, &mut host).err().unwrap_or_default();
            let verdict = Verdict { file, line: row.line, name: &row.name, passed: difference.is_empty(), difference };
            *(if verdict.passed { &mut passed } else { &mut failed }) += 1;
            if test.json {
                let _ = writeln!(text, "{}", serde_json::to_string(&verdict).unwrap_or_default());
            } else if !verdict.passed {
                let shown: String = row.shown.chars().take(SHOWN_MAX).collect();
                let _ =
                    write!(text, "FAILED {}:{} {shown}\n{}", file.display(), row.line, indented(&verdict.difference));
            }
        }
    }
    if passed + failed == 0 {
        let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        let what = format!("no golden rows in {}", names.join(", "));
        return Err(Failed::Asked { what, help: format!("write one a line: {EXAMPLE}") });
    }
    let _ = writeln!(text, "{passed} passed, {failed} failed");
    Ok(Answer { text, code: if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE } })
}

/// The golden rows that lie beside a component.
fn beside(component: &Path) -> Result<PathBuf, Failed> {
    let file = component.with_file_name(GOLDEN);
    if file.exists() {
        return Ok(file);
    }
    let what = format!("there are no golden rows: {} does not exist", file.display());
    Err(Failed::Asked {
        what,
        help: format!("name a file, or write that one, a call and its result a line: {EXAMPLE}"),
    })
}

/// The functions that the rows ask for, each once, and which of them each row asks.
fn bind(
    component: &Arc<Component>,
    granting: &Granting,
    rows: &[GoldenRow],
    mut problems: Diagnostics,
) -> Result<(Vec<FunctionBinding>, Vec<usize>), Failed> {
    let mut bindings: Vec<FunctionBinding> = Vec::new();
    let mut places = Vec::new();
    for row in rows {
        let known = bindings.iter().position(|binding| folded(&binding.name) == folded(&row.name));
        let place = match known {
            Some(place) => place,
            None => match find(component, &row.name) {
                Ok(export) => {
                    bindings.push(
                        FunctionBinding::new(Arc::clone(component), export, row.name.clone())
                            .granting(granting.grants()),
                    );
                    bindings.len() - 1
                }
                Err(failed) => {
                    let problem = Diagnostic::error(failed.to_string(), row.span);
                    problems.push(match failed.help() {
                        Some(help) => problem.help(help),
                        None => problem,
                    });
                    continue;
                }
            },
        };
        if let Some(problem) = bindings.get(place).and_then(|binding| misfit(row, binding)) {
            problems.push(problem);
        }
        places.push(place);
    }
    problems.into_result((bindings, places)).map_err(Failed::Golden)
}

/// Why a row cannot be put to what it names.
fn misfit(row: &GoldenRow, binding: &FunctionBinding) -> Option<Diagnostic> {
    let (name, offers) = (&row.name, binding.aggregate());
    match (&row.asked, offers) {
        (Asked::Call(_), Some(_)) => {
            let help = format!("write `\"aggregate\": \"{name}\", \"rows\": [[…], […]]`");
            return Some(Diagnostic::error(format!("`{name}` is an aggregate, not a function"), row.span).help(help));
        }
        (Asked::Aggregate(_), None) => {
            let help = format!("write `\"call\": \"{name}\", \"args\": […]`");
            return Some(Diagnostic::error(format!("`{name}` is a function, not an aggregate"), row.span).help(help));
        }
        _ => {}
    }
    let signature = binding.signature()?;
    let given: Vec<&[Value]> = match &row.asked {
        Asked::Call(args) => vec![args],
        Asked::Aggregate(rows) => rows.iter().map(Vec::as_slice).collect(),
    };
    let wrong = given.iter().find_map(|args| super::check_count(name, signature, offers, args.len()).err());
    wrong.map(|what| Diagnostic::error(what, row.span))
}

/// Runs a row.
///
/// # Errors
/// What differs from what it wants, in lines.
fn judge(row: &GoldenRow, place: usize, bindings: &[FunctionBinding], host: &mut Host) -> Result<(), String> {
    match &row.asked {
        Asked::Call(args) => compare(&row.wanted, host.call(place, args, row.at(0))),
        Asked::Aggregate(rows) => {
            let Some(binding) = bindings.get(place) else { return Ok(()) };
            let rows = entering(binding, rows, row);
            let Some(aggregate) = host.aggregate(place) else { return Ok(()) };
            compare(&row.wanted, in_one_go(aggregate, &rows))?;
            // the engine may take these ways instead, at any time
            let Offers { save, merge, .. } = binding.aggregate().unwrap_or_default();
            if save {
                let other = saved_and_restored(aggregate, &rows);
                compare(&row.wanted, other)
                    .map_err(|text| format!("with `save` and `restore` after each row\n{text}"))?;
            }
            if merge {
                let other = merged(aggregate, &rows);
                compare(&row.wanted, other)
                    .map_err(|text| format!("with the later half of the rows by `merge`\n{text}"))?;
            }
            Ok(())
        }
    }
}

/// The rows as the engine gives them: the time first, and none with NULL for what does not take it.
fn entering(binding: &FunctionBinding, rows: &[Vec<Value>], row: &GoldenRow) -> Vec<Vec<Value>> {
    let params = binding.signature().map(|signature| signature.params.as_slice()).unwrap_or_default();
    let strict = |args: &[Value]| {
        args.iter().zip(params).any(|(arg, param)| arg.is_null() && !matches!(param.shape, Shape::Option(_)))
    };
    let timed = |(i, args): (usize, &Vec<Value>)| {
        std::iter::once(Value::DateTime(row.at(i))).chain(args.iter().cloned()).collect()
    };
    rows.iter().enumerate().filter(|(_, args)| !strict(args)).map(timed).collect()
}

fn in_one_go(aggregate: &mut dyn UserAggregate, rows: &[Vec<Value>]) -> Result<Value, RowError> {
    let group = aggregate.begin(None)?;
    rows.iter().try_for_each(|row| aggregate.accumulate(&group, row))?;
    aggregate.compute(&group)
}

fn saved_and_restored(aggregate: &mut dyn UserAggregate, rows: &[Vec<Value>]) -> Result<Value, RowError> {
    let mut group = aggregate.begin(None)?;
    for row in rows {
        aggregate.accumulate(&group, row)?;
        let saved = aggregate.save(&group)?;
        group = aggregate.begin(Some(&saved))?;
    }
    aggregate.compute(&group)
}

fn merged(aggregate: &mut dyn UserAggregate, rows: &[Vec<Value>]) -> Result<Value, RowError> {
    let (earlier, later) = rows.split_at(rows.len() / 2);
    let groups = [aggregate.begin(None)?, aggregate.begin(None)?];
    for (group, rows) in groups.iter().zip([earlier, later]) {
        rows.iter().try_for_each(|row| aggregate.accumulate(group, row))?;
    }
    let [first, second] = &groups;
    aggregate.merge(first, second)?;
    aggregate.compute(first)
}

fn compare(wanted: &Wanted, got: Result<Value, RowError>) -> Result<(), String> {
    let said = |error: &RowError| format!("{} ({})", error.message, error.reason);
    match (wanted, got) {
        (Wanted::Value(wanted), Ok(got)) => {
            let got: Json = serde_json::from_str(&got.to_json()).unwrap_or_default();
            value_difference(wanted, &got).map_or(Ok(()), Err)
        }
        (Wanted::Value(wanted), Err(error)) => Err(format!("expected {wanted}\ngot the error: {}\n", said(&error))),
        (Wanted::Error(words), Err(error)) if said(&error).contains(words.as_str()) => Ok(()),
        (Wanted::Error(words), Err(error)) => {
            Err(format!("expected an error with `{words}`\ngot the error: {}\n", said(&error)))
        }
        (Wanted::Error(words), Ok(got)) => {
            Err(format!("expected an error with `{words}`\ngot      {}\n", got.to_json()))
        }
    }
}

impl GoldenRow {
    /// Event time of the call, or of the row of that number: as written, else seconds since 1970.
    fn at(&self, row: usize) -> Timestamp {
        let seconds = i64::try_from(row).unwrap_or_default();
        let fixed = || Timestamp::from_unix_millis(0).saturating_add(seconds.saturating_mul(TICKS_PER_SECOND));
        self.times.get(row).copied().unwrap_or_else(fixed)
    }
}

//! `forebay test`: run test cases of the query language.
//!
//! In: case files, or folders that are walked for them. Out: what differs, and the closing line `N passed, N failed` alone.
//! Exit code 0 only when there were cases and all passed. Not here: the form of a case ([`case`]), the run (`finite`).

mod case;
mod compare;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

pub use case::{Case, OutOfOrder, Settings, Wanted};
pub use compare::{Order, Row};

use super::finite::{FiniteRun, Policies, RunError};
use crate::batch::write_row_json;
use crate::diagnostic::{Diagnostic, Diagnostics};

#[derive(Debug, Args)]
pub struct TestArgs {
    /// Case files, or folders with cases at any depth
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Run only cases whose name or file contains this
    #[arg(long, value_name = "SUBSTRING")]
    pub filter: Option<String>,
    /// Print a JSON object for each case: name, file, passed, and what differs
    #[arg(long)]
    pub json: bool,
}

/// What became of one case.
#[derive(Debug, serde::Serialize)]
pub struct Verdict {
    pub name: String,
    pub file: PathBuf,
    pub passed: bool,
    /// Why it failed, in lines; empty when it passed.
    pub difference: String,
}

/// Folders below one another that are followed; a link to a folder above would not end.
const FOLDER_DEPTH_MAX: usize = 32;

/// Runs the command.
pub fn run(args: &TestArgs) -> ExitCode {
    let mut files = Vec::new();
    for path in &args.paths {
        if let Err(e) = find_cases(path, FOLDER_DEPTH_MAX, &mut files) {
            eprintln!("error: {} cannot be read: {e}; give case files (.json) or folders of them", path.display());
            return ExitCode::from(2);
        }
    }
    let (mut passed, mut failed) = (0usize, 0usize);
    for verdict in files.iter().filter_map(|file| judge(file, args.filter.as_deref())) {
        if verdict.passed {
            passed += 1
        } else {
            failed += 1
        }
        if args.json {
            println!("{}", serde_json::to_string(&verdict).unwrap_or_default());
        } else if !verdict.passed {
            println!("FAILED {} ({})\n{}", verdict.name, verdict.file.display(), verdict.difference);
        }
    }
    if passed + failed == 0 {
        let filter = args.filter.as_ref().map_or_else(String::new, |f| format!(" with `{f}` in its name"));
        eprintln!("error: no test case{filter} found; a case is a .json file");
    }
    println!("{passed} passed, {failed} failed");
    if passed > 0 && failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The case files of a path, sorted by name; a file is one itself.
///
/// # Errors
/// The path does not exist or cannot be read.
pub fn find_cases(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if !fs::metadata(path)?.is_dir() {
        found.push(path.to_owned());
        return Ok(());
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(path)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    entries.sort();
    for entry in entries {
        if entry.extension().is_some_and(|e| e == "json") || (depth > 0 && entry.is_dir()) {
            find_cases(&entry, depth.saturating_sub(1), found)?;
        }
    }
    Ok(())
}

/// Runs one case file; `None` when the filter leaves it out. A file that is no case has failed.
pub fn judge(file: &Path, filter: Option<&str>) -> Option<Verdict> {
    let case = Case::read(file);
    let name = case.as_ref().map_or_else(|_| file.file_stem().unwrap_or_default().to_string_lossy().into_owned(), |c| c.name.clone());
    if filter.is_some_and(|f| !name.contains(f) && !file.to_string_lossy().contains(f)) {
        return None;
    }
    let result = case.map_err(|e| format!("  {e}\n")).and_then(|case| check(&case));
    let difference = result.err().unwrap_or_default();
    Some(Verdict { name, file: file.to_owned(), passed: difference.is_empty(), difference })
}

/// Runs a case.
///
/// # Errors
/// What differs from what it wants, in lines.
pub fn check(case: &Case) -> Result<(), String> {
    let mut run = FiniteRun::new(policies(case.settings));
    run.inputs.clone_from(&case.inputs);
    run.references.clone_from(&case.reference);
    let mut got: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    let mut json = String::new();
    let ended = run.run(&case.query, &case.name, |output, columns, row| {
        json.clear();
        write_row_json(columns, row, &mut json);
        got.entry(output.to_owned()).or_default().push(serde_json::from_str(&json).unwrap_or_default());
    });
    match (&case.wanted, ended) {
        (Wanted::Rows(wanted), Ok(_)) => differences(wanted, &mut got, case.order),
        (Wanted::Rows(_), Err(e)) => Err(format!("  rows expected, but it ended with an error:\n{}", indented(&e.to_string()))),
        (Wanted::Fail(word), Err(RunError::Compile(problems))) => contains(&problems, word),
        (Wanted::Stop(word), Err(RunError::Stopped(problems))) => contains(&problems, word),
        (Wanted::Fail(word), other) => Err(unexpected("a compile error", word, other.err(), &got)),
        (Wanted::Stop(word), other) => Err(unexpected("a runtime error", word, other.err(), &got)),
    }
}

fn policies(settings: Settings) -> Policies {
    let defaults = Policies::default();
    Policies {
        late_tolerance_s: settings.late_arrival_tolerance_s.unwrap_or(defaults.late_tolerance_s),
        out_of_order_tolerance_s: settings.out_of_order_tolerance_s.unwrap_or(defaults.out_of_order_tolerance_s),
        drop: settings.out_of_order_policy == Some(OutOfOrder::Drop),
    }
}

fn differences(wanted: &BTreeMap<String, Vec<Row>>, got: &mut BTreeMap<String, Vec<Row>>, order: Order) -> Result<(), String> {
    let mut text = String::new();
    for (output, rows) in wanted {
        let came = got.remove(output).unwrap_or_default();
        if let Some(difference) = compare::difference(rows, &came, order) {
            text.push_str(&format!("  output `{output}`\n{}", indented(&difference)));
        }
    }
    for (output, rows) in got.iter() {
        text.push_str(&format!("  output `{output}` was not expected to get rows, it got {}\n", rows.len()));
    }
    if text.is_empty() { Ok(()) } else { Err(text) }
}

/// Whether what is said about a problem contains the word; the text of the query beside it does not count.
fn contains(problems: &Diagnostics, word: &str) -> Result<(), String> {
    let said = |d: &Diagnostic| [&[d.title.clone(), d.label.clone(), d.help.clone().unwrap_or_default()], d.notes.as_slice()].concat();
    let word = word.to_lowercase();
    if problems.items.iter().flat_map(said).any(|text| text.to_lowercase().contains(&word)) {
        return Ok(());
    }
    Err(format!("  the error does not contain `{word}`:\n{}", indented(&problems.to_string())))
}

fn unexpected(wanted: &str, word: &str, error: Option<RunError>, got: &BTreeMap<String, Vec<Row>>) -> String {
    let came = match error {
        Some(error) => format!("it ended with another error:\n{}", indented(&error.to_string())),
        None => format!("it ran and gave {} row(s)\n", got.values().map(Vec::len).sum::<usize>()),
    };
    format!("  {wanted} with `{word}` expected, but {came}")
}

fn indented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") }).collect()
}

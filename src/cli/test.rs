//! `forebay test`: run test cases of the query language.
//!
//! In: case files, or folders that are walked for them. Out: what differs, and the closing line `N passed, N failed`
//! alone. Exit code 0 only when there were cases and all passed. Not here: the form of a case ([`case`]), the run
//! (`finite`).

mod case;
mod compare;
mod config;
pub mod conformance;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

pub use case::{Case, Expected, OutOfOrder, Settings, Wanted};
pub use compare::{RowObject, RowOrder, value_difference};

use super::eval::finite::{FiniteRun, Policies, RunError};
use super::say::{Unwritten, answer, complain, print};
use crate::batch::write_row_json;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::query::parser::parse;

#[derive(Debug, Args)]
pub struct TestArgs {
    /// Case files, test configurations of Stream Analytics (`testConfig.json`), or folders with them at any depth
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Run only cases whose name or file contains this
    #[arg(long, value_name = "SUBSTRING")]
    pub filter: Option<String>,
    /// Print a table of the language's constructs, with the cases that use each and how many pass (Markdown)
    #[arg(long, conflicts_with = "json")]
    pub conformance: bool,
    /// Take the functions of this job file, for queries that call them
    #[arg(long, value_name = "JOB")]
    pub job: Option<PathBuf>,
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
    /// Why it failed, in lines; when it passed, what differs in outputs that are not required.
    pub difference: String,
}

/// Folders below one another that are followed; a link to a folder above would not end.
const FOLDER_DEPTH_MAX: usize = 32;

/// Runs the command.
pub fn run(args: TestArgs) -> ExitCode {
    let mut files = Vec::new();
    for path in &args.paths {
        if let Err(e) = find_cases(path, FOLDER_DEPTH_MAX, &mut files) {
            complain(format_args!(
                "error: {} cannot be read: {e}; give case files (.json) or folders of them\n",
                path.display()
            ));
            return ExitCode::from(2);
        }
    }
    if args.conformance {
        return answer(&conformance::table(&files, args.filter.as_deref()), ExitCode::SUCCESS);
    }
    let (mut passed, mut failed) = (0usize, 0usize);
    for verdict in files.iter().flat_map(|file| judge_with(file, args.filter.as_deref(), args.job.as_deref())) {
        if verdict.passed {
            passed += 1
        } else {
            failed += 1
        }
        let text = if args.json {
            serde_json::to_string(&verdict).unwrap_or_default() + "\n"
        } else if !verdict.difference.is_empty() {
            let word = if verdict.passed { "passed" } else { "FAILED" };
            format!("{word} {} ({})\n{}\n", verdict.name, verdict.file.display(), verdict.difference)
        } else {
            continue;
        };
        // a reader that is gone still gets the verdict of all cases as the exit code
        match print(&text) {
            Err(unwritten @ Unwritten::Failed(_)) => return unwritten.end(ExitCode::FAILURE),
            Ok(()) | Err(Unwritten::Closed) => {}
        }
    }
    if passed + failed == 0 {
        let filter = args.filter.as_ref().map_or_else(String::new, |f| format!(" with `{f}` in its name"));
        complain(format_args!("error: no test case{filter} found; a case is a .json file\n"));
    }
    let code = if passed > 0 && failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    answer(&format!("{passed} passed, {failed} failed\n"), code)
}

/// The case files of a path, sorted by name; a file is one itself. In a folder with a test configuration that is the
/// only one: the files beside it are its data.
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
    if let Some(file) = entries.iter().find(|entry| config::is_config(entry)) {
        found.push(file.clone());
        return Ok(());
    }
    for entry in entries {
        if entry.extension().is_some_and(|e| e == "json") || (depth > 0 && entry.is_dir()) {
            find_cases(&entry, depth.saturating_sub(1), found)?;
        }
    }
    Ok(())
}

/// Runs a case file or a test configuration; none of it that the filter leaves out. A file that is no case has failed.
pub fn judge(file: &Path, filter: Option<&str>) -> Vec<Verdict> {
    judge_with(file, filter, None)
}

/// The same, with the functions of a job file.
pub fn judge_with(file: &Path, filter: Option<&str>, job: Option<&Path>) -> Vec<Verdict> {
    let stem = || file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let cases = if config::is_config(file) {
        config::read(file).unwrap_or_else(|e| vec![(stem(), Err(e))])
    } else {
        let case = Case::read(file);
        vec![(case.as_ref().map_or_else(|_| stem(), |c| c.name.clone()), case)]
    };
    let wanted = |name: &str| filter.is_none_or(|f| name.contains(f) || file.to_string_lossy().contains(f));
    cases.into_iter().filter(|(name, _)| wanted(name)).map(|(name, case)| verdict(name, file, case, job)).collect()
}

fn verdict(name: String, file: &Path, case: Result<Case, String>, job: Option<&Path>) -> Verdict {
    let result = case.map_err(|e| format!("  {e}\n")).and_then(|case| check(&case, job));
    let passed = result.is_ok();
    let difference = result.unwrap_or_else(|difference| difference);
    Verdict { name, file: file.to_owned(), passed, difference }
}

/// Runs a case. Answers what differs without harm, in lines.
///
/// # Errors
/// What differs from what it wants, in lines.
pub fn check(case: &Case, job: Option<&Path>) -> Result<String, String> {
    let mut run = FiniteRun::new(policies(case.settings));
    if let Some(job) = job.or(case.job.as_deref()) {
        run.load_functions(job).map_err(|e| indented(&e.to_string()))?;
    }
    run.inputs.clone_from(&case.inputs);
    run.references.clone_from(&case.reference);
    let mut got: BTreeMap<String, Vec<RowObject>> = BTreeMap::new();
    let mut json = String::new();
    let ended = run.run(&case.query, &case.name, |output, columns, row| {
        json.clear();
        write_row_json(columns, row, &mut json);
        got.entry(output.to_owned()).or_default().push(serde_json::from_str(&json).unwrap_or_default());
    });
    match (&case.wanted, ended) {
        (Wanted::Rows(wanted), Ok(_)) => differences(wanted, &mut got, case.order),
        (Wanted::Outputs(wanted), Ok(_)) => of_outputs(wanted, &got, case),
        (Wanted::Rows(_) | Wanted::Outputs(_), Err(e)) => {
            Err(format!("  rows expected, but it ended with an error:\n{}", indented(&e.to_string())))
        }
        (Wanted::Fail(word), Err(RunError::Compile(problems))) => contains(&problems, word, said),
        (Wanted::Stop(word), Err(RunError::Stopped(problems))) => {
            contains(&problems, word, |problem| problem.title.clone())
        }
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

fn differences(
    wanted: &BTreeMap<String, Vec<RowObject>>,
    got: &mut BTreeMap<String, Vec<RowObject>>,
    order: RowOrder,
) -> Result<String, String> {
    let mut text = String::new();
    for (output, rows) in wanted {
        let came = got.remove(output).unwrap_or_default();
        if let Some(difference) = compare::difference(rows, &came, order) {
            text.push_str(&format!("  output `{output}`\n{}", indented(&indented(&difference))));
        }
    }
    for (output, rows) in got.iter() {
        text.push_str(&format!("  output `{output}` was not expected to get rows, it got {}\n", rows.len()));
    }
    if text.is_empty() { Ok(text) } else { Err(text) }
}

/// The outputs that a test configuration names.
fn of_outputs(wanted: &[Expected], got: &BTreeMap<String, Vec<RowObject>>, case: &Case) -> Result<String, String> {
    let (mut text, mut failed) = (String::new(), false);
    for Expected { output, rows, required } in wanted {
        let came = got.iter().find(|(name, _)| name.eq_ignore_ascii_case(output)).map(|(_, rows)| rows.as_slice());
        let difference = match came {
            None if !writes(&case.query, output) => Some("the script writes no output of this name\n".to_owned()),
            came => compare::difference(rows, came.unwrap_or_default(), case.order),
        };
        if let Some(difference) = difference {
            failed |= required;
            let mark = if *required { "" } else { " (not required)" };
            text.push_str(&format!("  output `{output}`{mark}\n{}", indented(&indented(&difference))));
        }
    }
    if failed { Err(text) } else { Ok(text) }
}

/// Whether a statement of the script goes into this output.
fn writes(query: &str, output: &str) -> bool {
    let statements = parse(query, "case").map(|script| script.statements).unwrap_or_default();
    statements.iter().any(|s| s.into.as_ref().map_or("output", |into| into.name.as_str()).eq_ignore_ascii_case(output))
}

/// Everything that is said about a problem; the text of the query beside it is not.
fn said(problem: &Diagnostic) -> String {
    let help = problem.help.as_deref().unwrap_or_default();
    [&problem.title, &problem.label, help, &problem.notes.join("\n")].join("\n")
}

fn contains(problems: &Diagnostics, word: &str, said: fn(&Diagnostic) -> String) -> Result<String, String> {
    let word = word.to_lowercase();
    if problems.items.iter().any(|problem| said(problem).to_lowercase().contains(&word)) {
        return Ok(String::new());
    }
    Err(format!("  the error does not contain `{word}`:\n{}", indented(&problems.to_string())))
}

fn unexpected(wanted: &str, word: &str, error: Option<RunError>, got: &BTreeMap<String, Vec<RowObject>>) -> String {
    let came = match error {
        Some(error) => format!("it ended with another error:\n{}", indented(&error.to_string())),
        None => format!("it ran and gave {} row(s)\n", got.values().map(Vec::len).sum::<usize>()),
    };
    format!("  {wanted} with `{word}` expected, but {came}")
}

pub(super) fn indented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a case answers, as one text; empty when it passes.
    fn verdict(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a-case.json");
        fs::write(&file, text).unwrap();
        judge(&file, None).remove(0).difference
    }

    fn with(query: &str, wanted: &str) -> String {
        verdict(&format!(r#"{{"query":"{query}","inputs":{{"gw":[{{"v":4}},{{"v":0}}]}},{wanted}}}"#))
    }

    #[test]
    fn a_case_passes_or_says_what_differs() {
        assert_eq!(with("SELECT v FROM gw", r#""expected":{"output":[{"v":4},{"v":0}]}"#), "");
        assert_eq!(with("SELECT v FROM gw WHERE v > 9", r#""expected":{}"#), "");
        assert_eq!(with("SELECT v FROM gw WHERE v > 9", r#""expected":{"output":[]}"#), "");
        let wrong = with("SELECT v INTO a FROM gw", r#""expected":{"b":[{"v":4}]}"#);
        assert!(wrong.contains("output `b`\n    row 1 is missing\n      expected {\"v\":4}"), "{wrong}");
        assert!(wrong.contains("output `a` was not expected to get rows, it got 2"), "{wrong}");
    }

    #[test]
    fn errors_have_to_be_of_the_kind_and_say_the_word() {
        assert_eq!(with("SELECT v FROM nowhere", r#""must_fail":"NOWHERE""#), "");
        assert_eq!(with("SELECT 1 / v AS r FROM gw", r#""must_stop":"Zero""#), "");
        for (query, wanted, answer) in [
            ("SELECT v AS zebra FROM nowhere", r#""must_fail":"zebra""#, "does not contain `zebra`"),
            ("SELECT 1 / v AS zebra FROM gw", r#""must_stop":"zebra""#, "does not contain `zebra`"),
            ("SELECT v FROM gw", r#""must_fail":"v""#, "it ran and gave 2 row(s)"),
            ("SELECT v FROM nowhere", r#""must_stop":"nowhere""#, "ended with another error"),
            ("SELECT 1 / v AS r FROM gw", r#""expected":{}"#, "ended with an error"),
        ] {
            let difference = with(query, wanted);
            assert!(difference.contains(answer), "{query}: {difference}");
        }
        assert!(verdict("[]").contains("no test case"));
    }

    #[test]
    fn folders_are_walked_and_names_filtered() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        for name in ["z.json", "a/b/y.json", "a/notes.md"] {
            fs::write(folder.path().join(name), "{}").unwrap();
        }
        let mut found = Vec::new();
        find_cases(folder.path(), FOLDER_DEPTH_MAX, &mut found).unwrap();
        let names: Vec<String> =
            found.iter().map(|f| f.strip_prefix(folder.path()).unwrap().to_string_lossy().into_owned()).collect();
        assert_eq!(names, ["a/b/y.json", "z.json"]);
        assert_eq!(judge(&found[0], Some("y")).len(), 1);
        assert!(judge(&found[0], Some("no such name")).is_empty());
        assert!(find_cases(&folder.path().join("missing"), 1, &mut found).is_err());
    }

    #[test]
    fn no_case_at_all_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let run = |filter: Option<&str>| {
            run(TestArgs {
                paths: vec![folder.path().to_owned()],
                filter: filter.map(str::to_owned),
                job: None,
                conformance: false,
                json: true,
            })
        };
        let code = |c: ExitCode| format!("{c:?}");
        assert_eq!(code(run(None)), code(ExitCode::FAILURE));
        let text = r#"{"query":"SELECT v FROM gw","inputs":{"gw":[]},"expected":{}}"#;
        fs::write(folder.path().join("one.json"), text).unwrap();
        assert_eq!(code(run(None)), code(ExitCode::SUCCESS));
        assert_eq!(code(run(Some("two"))), code(ExitCode::FAILURE));
    }
}

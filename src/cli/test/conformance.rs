//! The conformance table: for each construct of the language the cases that use it and how many pass.
//!
//! In: case files. Out: Markdown. Invariant: every construct has a line, also one that no case uses. Not here: which
//! constructs there are (`query::constructs`).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use super::{Case, Wanted, judge};
use crate::query::constructs;
use crate::query::parser::parse;

/// Cases and passes.
type Passes = (usize, usize);

/// The table for these files.
pub fn table(files: &[PathBuf], filter: Option<&str>) -> String {
    let mut tallies: BTreeMap<&str, Passes> = BTreeMap::new();
    let (mut errors, mut all): (Passes, Passes) = ((0, 0), (0, 0));
    for file in files {
        // configurations hold several cases of one script and are no part of the table
        let verdicts = judge(file, filter);
        let (Ok(case), [verdict]) = (Case::read(file), verdicts.as_slice()) else { continue };
        let add = |tally: &mut Passes| *tally = (tally.0 + 1, tally.1 + usize::from(verdict.passed));
        add(&mut all);
        if matches!(case.wanted, Wanted::Fail(_)) {
            add(&mut errors);
            continue;
        }
        let Ok(script) = parse(&case.query, "case") else { continue };
        let is_reference = |name: &str| case.reference.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        for name in constructs::used(&script, &is_reference) {
            add(tallies.entry(name).or_default());
        }
    }
    let mut out = String::from("| group | construct | cases | pass |\n|---|---|---|---|\n");
    for (group, name) in constructs::all() {
        let (cases, passed) = tallies.get(name).copied().unwrap_or_default();
        let _ = writeln!(out, "| {group} | {} | {cases} | {passed} |", code(name));
    }
    let _ = writeln!(
        out,
        "| errors | queries that do not compile, with the word their error must say | {} | {} |",
        errors.0, errors.1
    );
    let _ = writeln!(out, "| **all** | each case counts once | **{}** | **{}** |", all.0, all.1);
    out
}

/// A construct as code; a bar would end the table's cell.
fn code(name: &str) -> String {
    format!("`{}`", name.replace('|', "\\|"))
}

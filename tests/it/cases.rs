//! The cases of the query language below `tests/asa`, run as `forebay test` runs them.

use std::collections::BTreeSet;
use std::path::Path;

use forebay::cli::test::{Verdict, find_cases, judge};

const FOLDER: &str = "tests/asa";

/// Cases known not to pass, as `folder/name`. The list may only shrink: one that passes must leave it, no other may fail.
const PENDING: &[&str] = &[];

/// Every case, as `folder/name`, and what became of it.
fn verdicts() -> Vec<(String, Verdict)> {
    let mut files = Vec::new();
    find_cases(Path::new(FOLDER), 4, &mut files).expect("the folder of cases");
    let place = |v: &Verdict| v.file.with_extension("").strip_prefix(FOLDER).expect("below the folder").to_string_lossy().into_owned();
    files.iter().filter_map(|file| judge(file, None)).map(|v| (place(&v), v)).collect()
}

#[test]
fn the_language_cases_pass() {
    let verdicts = verdicts();
    assert!(verdicts.len() >= 295, "only {} cases found", verdicts.len());
    let pending: BTreeSet<&str> = PENDING.iter().copied().collect();
    let failed: Vec<String> = verdicts
        .iter()
        .filter(|(place, v)| !v.passed && !pending.contains(place.as_str()))
        .map(|(place, v)| format!("{place}\n{}", v.difference))
        .collect();
    assert!(failed.is_empty(), "{} of {} cases fail:\n{}", failed.len(), verdicts.len(), failed.join("\n"));
    let passing: Vec<&str> =
        verdicts.iter().filter(|(_, v)| v.passed).map(|(place, _)| place.as_str()).filter(|p| pending.contains(p)).collect();
    assert!(passing.is_empty(), "take these out of PENDING, they pass: {passing:?}");
    let places: BTreeSet<&str> = verdicts.iter().map(|(place, _)| place.as_str()).collect();
    let unknown: Vec<&&str> = pending.difference(&places).collect();
    assert!(unknown.is_empty(), "PENDING names no such case: {unknown:?}");
}

#[test]
fn cases_are_named_after_their_files() {
    for (place, v) in verdicts() {
        assert!(place.ends_with(&format!("/{}", v.name)), "{place} calls itself {}", v.name);
    }
}

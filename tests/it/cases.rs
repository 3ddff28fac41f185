//! The cases of the query language below `tests/asa`, run as `forebay test` runs them.

use std::collections::BTreeSet;
use std::path::Path;

use forebay::cli::test::{Verdict, conformance, find_cases, judge};

const FOLDER: &str = "tests/asa";

/// Cases known not to pass, as `folder/name`. The list may only shrink: one that passes must leave it, no other may
/// fail.
const PENDING: &[&str] = &[];

/// Every case, as `folder/name`, and what became of it.
fn verdicts() -> Vec<(String, Verdict)> {
    let mut files = Vec::new();
    find_cases(Path::new(FOLDER), 4, &mut files).expect("the folder of cases");
    let place = |v: &Verdict| {
        v.file.with_extension("").strip_prefix(FOLDER).expect("below the folder").to_string_lossy().into_owned()
    };
    files.iter().flat_map(|file| judge(file, None)).map(|v| (place(&v), v)).collect()
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
    let passing: Vec<&str> = verdicts
        .iter()
        .filter(|(_, v)| v.passed)
        .map(|(place, _)| place.as_str())
        .filter(|p| pending.contains(p))
        .collect();
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

/// Constructs that no case uses yet. The list may only shrink.
const UNTESTED: &[&str] = &[];

/// The page on the language shows what the cases say; `UPDATE_EXPECT=1` writes it.
#[test]
fn every_construct_has_a_case_and_the_page_says_so() {
    let mut files = Vec::new();
    find_cases(Path::new(FOLDER), 4, &mut files).expect("the folder of cases");
    let table = conformance::table(&files, None);
    for line in table.lines().skip(2) {
        let mut cells = line.rsplit(" | ");
        let (passed, cases) = (cells.next(), cells.next());
        assert_eq!(passed.map(|cell| cell.trim_end_matches(" |")), cases, "{line}");
        let is_known = UNTESTED.iter().any(|name| line.contains(&format!("`{name}`")));
        assert_eq!(cases == Some("0"), is_known, "a construct without a case, or one of UNTESTED with one: {line}");
    }
    let page = Path::new("docs/language.md");
    let text = std::fs::read_to_string(page).expect("the page");
    let (head, marker) = text.split_once("<!-- conformance:").expect("the marker");
    let marker = marker.lines().next().expect("the marker's line");
    let wanted = format!("{head}<!-- conformance:{marker}\n\n{table}");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(page, wanted).expect("the page is written");
    } else {
        assert!(text == wanted, "docs/language.md is out of date: run UPDATE_EXPECT=1 cargo test --test it cases::");
    }
}

//! Lines end at column 120, also inside of literals, which rustfmt leaves alone.

use std::fs;
use std::path::{Path, PathBuf};

const COLUMNS_MAX: usize = 120;

/// All files of Rust below a folder.
fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The lines of a text that are too wide. Not those of `expect![[…]]`: they are what a program prints, as it prints it.
fn wide(text: &str) -> Vec<usize> {
    let mut is_output = false;
    let mut found = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        if line.chars().count() > COLUMNS_MAX && !is_output {
            found.push(number);
        }
        let closes = |rest: &str| rest.contains("\"#]]") || rest.contains("\"##]]");
        is_output = match is_output {
            true => !closes(line),
            false => line.split_once("expect![[r#").is_some_and(|(_, rest)| !closes(rest)),
        };
    }
    found
}

#[test]
fn no_line_is_wider_than_120_columns() {
    let mut paths = Vec::new();
    for folder in ["src", "tests", "benches"] {
        files(Path::new(folder), &mut paths);
    }
    assert!(paths.len() > 400, "{} files are found", paths.len());
    let mut wrong = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).expect("a source file");
        wrong.extend(wide(&text).into_iter().map(|number| format!("{}:{number}", path.display())));
    }
    assert!(wrong.is_empty(), "end the line at column 120, in a literal by a `\\`:\n{}", wrong.join("\n"));
}

#[test]
fn what_a_program_prints_may_be_wide_and_nothing_else() {
    let long = "x".repeat(COLUMNS_MAX + 1);
    let text = format!("é{}\n{long}\nexpect![[r#\"\n{long}\n\"#]]\n{long}\nexpect![[r#\"a\"#]]\n{long}\n", &long[2..]);
    assert_eq!(wide(&text), [2, 6, 8]);
}

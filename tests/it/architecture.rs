//! The tree keeps its order: a module uses only those above it in `lib.rs`, and an implementation of an open end is known
//! to its table alone.

use std::fs;
use std::path::Path;

/// The modules in the order in which `lib.rs` declares them.
fn declared() -> Vec<String> {
    let lib = fs::read_to_string("src/lib.rs").expect("src/lib.rs");
    lib.lines().filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';').map(str::to_owned)).collect()
}

fn sources(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Top-level modules named by `crate::name` anywhere in a text, also inside `use crate::{a, b}`.
fn used(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            for part in list.split_inclusive([',', '{', '}']) {
                let name: String = part.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if depth == 0 && !name.is_empty() {
                    names.push(name);
                }
                depth += part.matches('{').count() as i32 - part.matches('}').count() as i32;
                if depth < 0 {
                    break;
                }
            }
        } else {
            names.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    names
}

#[test]
fn a_module_uses_only_those_above_it() {
    let order = declared();
    assert!(order.len() > 10, "lib.rs declares the modules: {order:?}");
    let rank = |name: &str| order.iter().position(|m| m == name);
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let relative = file.strip_prefix("src").expect("below src");
        let first = relative.components().next().expect("a first part").as_os_str().to_string_lossy().into_owned();
        let module = first.trim_end_matches(".rs").to_owned();
        let Some(own) = rank(&module) else { continue };
        let text = fs::read_to_string(&file).expect("a source file");
        // tests may reach for whatever they need
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        for name in used(text) {
            if rank(&name).is_some_and(|r| r > own) {
                wrong.push(format!("{} uses {name}, which stands below it", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The open ends: the trait that an implementation has, and the file of the table that names the implementations.
const OPEN_ENDS: [(&str, &str); 6] = [
    ("Source", "src/source.rs"),
    ("SourceSettings", "src/source.rs"),
    ("Format", "src/decode/format.rs"),
    ("Dialect", "src/score/dialect.rs"),
    ("Output", "src/output.rs"),
    ("OutputSettings", "src/output.rs"),
];

/// The part of a file that is not for tests: a file of tests has none.
fn production(file: &Path) -> String {
    let is_tests = file.file_stem().is_some_and(|stem| stem == "tests") || file.components().any(|part| part.as_os_str() == "tests");
    let text = fs::read_to_string(file).expect("a source file");
    if is_tests { String::new() } else { text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned() }
}

/// The types that have a trait, each with its file, by the line `impl Trait for Type`.
fn implementations(of: &str, files: &[(std::path::PathBuf, String)]) -> Vec<(String, std::path::PathBuf)> {
    let line = format!("impl {of} for ");
    let found = files.iter().flat_map(|(file, text)| {
        let names = text.lines().filter_map(|l| l.strip_prefix(&line));
        names.map(|rest| (rest.chars().take_while(|c| c.is_alphanumeric()).collect::<String>(), file.clone()))
    });
    found.collect()
}

/// Whether a text names a type, as a whole word and not in a comment.
fn names(text: &str, name: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
        line.match_indices(name).any(|(at, _)| {
            let (before, after) = (line[..at].chars().next_back(), line[at + name.len()..].chars().next());
            !is_part(before) && !is_part(after)
        })
    })
}

/// The file or folder that belongs to an implementation: `src/output/mqtt` for all files of the MQTT output.
fn home(file: &Path) -> std::path::PathBuf {
    let mut parts = file.components();
    let head: std::path::PathBuf = parts.by_ref().take(3).collect();
    head.with_extension("")
}

#[test]
fn an_implementation_of_an_open_end_is_known_to_its_table_alone() {
    let mut paths = Vec::new();
    sources(Path::new("src"), &mut paths);
    let files: Vec<_> = paths.into_iter().map(|path| (path.clone(), production(&path))).collect();
    let mut wrong = Vec::new();
    for (of, table) in OPEN_ENDS {
        let found = implementations(of, &files);
        assert!(!found.is_empty(), "nothing implements {of}");
        for (name, own) in found {
            for (file, text) in &files {
                let is_home = home(file) == home(&own);
                if !is_home && file != Path::new(table) && names(text, &name) {
                    wrong.push(format!("{} knows {name}, which only its own files and {table} may", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

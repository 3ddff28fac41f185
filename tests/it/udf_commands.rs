//! `forebay udf new`, `test` and `bench` as a person uses them: what is made builds and passes its own golden rows, and
//! what is wrong is said whole. The binary runs in a folder of its own, with the real tools of each language.

#[path = "udf_commands/bench.rs"]
mod bench;
#[path = "udf_commands/golden.rs"]
mod golden;
#[path = "udf_commands/languages.rs"]
mod languages;
#[path = "udf_commands/new.rs"]
mod new;

use std::fs;
use std::path::{Path, PathBuf};

use crate::place::Place;

/// What an unoptimised engine gives a function on a busy machine.
const PATIENT: [&str; 2] = ["--timeout-ms", "60000"];

/// A folder whose commands keep compiled code from run to run.
fn place() -> Place {
    Place::new(&[("CACHE_DIRECTORY", &cache())])
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Kept from run to run: the code of the larger languages takes half a minute to compile.
fn kept() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("new-functions");
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn cache() -> String {
    kept().join("cache").display().to_string()
}

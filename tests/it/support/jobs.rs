//! Jobs of tests: a job text becomes files, a bad one becomes its message, and what a run left behind is read.
//!
//! Every function panics with what was said when it does not get what its name promises. No job's process is kept here.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use forebay::job;
use serde_json::Value as Json;
use tempfile::TempDir;

use super::Mosquitto;
use crate::harness::{Forebay, cli, write};

/// A folder for `job.toml`, a broker, and a runtime for the test's own clients.
pub struct JobFolder {
    dir: TempDir,
    pub broker: Mosquitto,
    pub runtime: tokio::runtime::Runtime,
}

impl JobFolder {
    pub fn new() -> JobFolder {
        JobFolder { dir: tempfile::tempdir().unwrap(), broker: Mosquitto::start(), runtime: runtime() }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    pub fn run(&self) -> Forebay {
        Forebay::run(&self.path("job.toml"))
    }

    /// See [`assert_pool_is_good`].
    pub fn is_good(&self) {
        assert_pool_is_good(self.dir());
    }
}

/// A runtime for the test's own clients, beside a running job.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// Writes `job.toml` and the query that it names, `job.asaql`; answers the path of the job.
pub fn write_job(dir: &Path, text: &str, query: &str) -> PathBuf {
    write(dir, "job.asaql", query);
    write(dir, "job.toml", text)
}

/// The message of a job text that is refused, as if it stood in this file.
pub fn refused(file: &str, text: &str) -> String {
    match job::parse(text, Path::new(file)) {
        Ok(_) => panic!("this job is good:\n{text}"),
        Err(problems) => problems.to_string(),
    }
}

/// The message of a job text that is refused for one mistake, which is told once.
pub fn refused_once(file: &str, text: &str) -> String {
    let said = refused(file, text);
    assert_eq!(said.matches("error: ").count(), 1, "{said}\nof\n{text}");
    said
}

/// What a command that succeeds prints; it says nothing on standard error.
pub fn succeeds(dir: &Path, args: &[&str]) -> String {
    let (code, out, err) = cli(dir, args);
    assert_eq!((code, err.as_str()), (0, ""), "{args:?}: {out}");
    out
}

/// The message of a command that refuses what a person wrote, with exit code 2.
pub fn refuses(dir: &Path, args: &[&str]) -> String {
    let (code, out, err) = cli(dir, args);
    assert_eq!(code, 2, "{args:?}: {out}{err}");
    err
}

/// The dead letters of the job `name` in a folder, as the command lists them.
pub fn dead_letters(dir: &Path, name: &str) -> String {
    succeeds(dir, &["journal", "dead-letters", "ls", "--job", name])
}

/// Has the command look through the pool of `job.toml`: all checksums and all equations hold.
pub fn assert_pool_is_good(dir: &Path) {
    succeeds(dir, &["journal", "verify", "--job", "job.toml"]);
}

/// Rows of an output file so far, in order; one with the id of an earlier one is that one delivered again.
pub fn rows_of(file: &Path) -> Vec<Json> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut seen = HashSet::new();
    let whole = text.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
    whole.filter(|row| seen.insert(row["id"].as_str().expect("every row has an id").to_owned())).collect()
}

/// Replaces a file in one step, as the documents ask for.
pub fn replace(file: &Path, bytes: impl AsRef<[u8]>) {
    let new = file.with_file_name("new");
    fs::write(&new, bytes).unwrap();
    fs::rename(&new, file).unwrap();
}

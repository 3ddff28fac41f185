//! Functions as Azure Stream Analytics takes them: a JavaScript file with plain functions, or with `main`, an
//! aggregate.
//!
//! In: the file. Out: a component with a function for each of its functions, or a resource for the aggregate, all
//! values of any type. Invariant: the file runs unchanged, in sloppy mode as in Stream Analytics. Not here: JavaScript
//! itself; node and componentize-js build a component with an engine in it (`javascript/build.mjs` says how values
//! become JSON).

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::diagnostic::{Diagnostic, Diagnostics, Span};

/// Names the folder of componentize-js, for machines where it is elsewhere.
const PLACE: &str = "FOREBAY_COMPONENTIZE_JS";
const PACKAGE: &str = "@bytecodealliance/componentize-js";
/// Run by node; it checks the file, writes the interface and calls componentize-js.
const SCRIPT: &str = include_str!("javascript/build.mjs");
/// Part of the component: between JSON text and the values of the file's functions.
const VALUES: &str = include_str!("javascript/values.js");

#[derive(Debug, thiserror::Error)]
pub enum JavaScriptError {
    #[error("{path} cannot be read: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Source(Diagnostics),
    #[error("componentize-js is missing, which puts a JavaScript engine into the component")]
    NoComponentize,
    #[error("node is missing, which runs componentize-js: {0}")]
    NoNode(std::io::Error),
    #[error("no component came of {path}: {reason}")]
    Componentize { path: PathBuf, reason: String },
}

impl JavaScriptError {
    /// What to do about it, where the message does not say.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            JavaScriptError::Read { .. } => Some("check the path and its permissions"),
            JavaScriptError::NoComponentize => Some(
                "npm install @bytecodealliance/componentize-js@0.23 @bytecodealliance/preview2-shim@0.25   (here or \
                beside the file; or name its folder in FOREBAY_COMPONENTIZE_JS)",
            ),
            JavaScriptError::NoNode(_) => Some("install Node.js 20 or newer (Debian: apt-get install nodejs npm)"),
            JavaScriptError::Source(_) | JavaScriptError::Componentize { .. } => None,
        }
    }

    /// Whether the person who wrote the file mends it, not the one who runs the machine.
    pub fn is_of_the_source(&self) -> bool {
        matches!(self, JavaScriptError::Read { .. } | JavaScriptError::Source(_))
    }
}

/// What the script says on its last line.
#[derive(Deserialize)]
struct Answer {
    /// a problem of the file
    problem: Option<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    title: String,
    /// counted from 1; 0: the whole file
    line: usize,
    /// characters before the place
    column: usize,
    width: usize,
    label: String,
    help: Option<String>,
}

/// Builds a component of a file. Takes some 20 s of processor time, most of it for the engine.
///
/// # Errors
/// The file does not parse or has no functions; node or componentize-js are missing, or do not do their part.
pub fn component(path: &Path) -> Result<Vec<u8>, JavaScriptError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| JavaScriptError::Read { path: path.to_owned(), source })?;
    let place = componentize_js(path);
    let failed = |reason: String| JavaScriptError::Componentize { path: path.to_owned(), reason };
    let folder = Scratch::new().map_err(|e| failed(e.to_string()))?;
    let made = folder.0.join("out.wasm");
    let values = folder.0.join("values.js");
    std::fs::write(&values, VALUES).map_err(|e| failed(e.to_string()))?;
    let output = Command::new("node")
        .args(["--no-warnings", "--input-type=module", "--eval", SCRIPT, "--"])
        .args([path, &values, &made, place.as_deref().unwrap_or(Path::new(""))])
        .output()
        .map_err(JavaScriptError::NoNode)?;
    let said = String::from_utf8_lossy(&output.stdout);
    let answer: Option<Answer> = said.lines().next_back().and_then(|line| serde_json::from_str(line).ok());
    match (answer, place) {
        // what is wrong with the file is said first: it costs no installing
        (Some(Answer { problem: Some(problem) }), _) => {
            let mut drawn = Diagnostics::new(path.display().to_string(), text);
            let item = problem.drawn(&drawn.text);
            drawn.push(item);
            Err(JavaScriptError::Source(drawn))
        }
        (Some(Answer { problem: None }), Some(_)) if output.status.success() => {
            std::fs::read(&made).map_err(|e| failed(e.to_string()))
        }
        (Some(Answer { problem: None }), None) => Err(JavaScriptError::NoComponentize),
        (_, place) => {
            let place = place.map_or_else(|| "node".to_owned(), |place| place.display().to_string());
            let reason = String::from_utf8_lossy(&output.stderr);
            Err(failed(format!("{place} says:\n{}", reason.trim())))
        }
    }
}

impl Problem {
    fn drawn(self, text: &str) -> Diagnostic {
        let span = (self.line > 0).then(|| {
            let before: usize = text.split_inclusive('\n').take(self.line - 1).map(str::len).sum();
            let line = text.get(before..).unwrap_or_default().lines().next().unwrap_or_default();
            let at = |column: usize| before + line.char_indices().nth(column).map_or(line.len(), |(i, _)| i);
            Span::new(at(self.column), at(self.column + self.width))
        });
        let drawn = Diagnostic::error(self.title, span).label(self.label);
        match self.help {
            Some(help) => drawn.help(help),
            None => drawn,
        }
    }
}

/// The folder of componentize-js: as named, or in the `node_modules` of a folder above the file or the current one, or
/// where `make udfs` installs it.
fn componentize_js(file: &Path) -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(PLACE) {
        return Some(PathBuf::from(named)).filter(|dir| dir.is_dir());
    }
    let beside =
        file.parent().and_then(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir }.canonicalize().ok());
    let starts = [beside, std::env::current_dir().ok()];
    let above = starts.iter().flatten().flat_map(|dir| dir.ancestors());
    above
        .flat_map(|dir| ["node_modules", "target/tools/node_modules"].map(|n| dir.join(n).join(PACKAGE)))
        .find(|dir| dir.is_dir())
}

/// A folder of this process, gone when it is done.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> std::io::Result<Scratch> {
        let dir = std::env::temp_dir().join(format!("forebay-build-{}-{:016x}", std::process::id(), fastrand::u64(..)));
        std::fs::create_dir(&dir)?;
        Ok(Scratch(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // what stays behind is in the system's folder for such files
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

//! The query language: text in, a checked [`plan::Plan`] or pointed errors out.
//!
//! The files are the pipeline: `token`, `lexer`, `parser` make the `ast`; `catalog` says what may be named; `resolve`
//! binds and checks and makes the `plan`; `constructs` says what a script uses; `builtins` are the scalar functions,
//! operators and conversions; the crate's `diagnostic` draws every error. Not here: running a plan (`engine`).

pub mod ast;
pub mod builtins;
pub mod catalog;
pub mod constructs;
pub mod date_part;
pub mod fault;
pub mod lexer;
pub mod parser;
pub mod plan;
pub mod resolve;
pub mod token;

use crate::diagnostic::Diagnostics;
use catalog::Catalog;
use plan::Plan;

/// Compiles a script. `file` is the name shown in errors.
///
/// # Errors
/// The first syntax error of each statement; when there is none, all binding and type errors at once.
pub fn compile(text: &str, file: &str, catalog: &Catalog) -> Result<Plan, Diagnostics> {
    let script = parser::parse(text, file)?;
    resolve::resolve(&script, text, file, catalog)
}

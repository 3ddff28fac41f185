//! `forebay udf inspect`: what a file of functions offers and asks for, as text. Not here: loading (`udf`).

use std::fmt::Write as _;

use super::{Failed, Inspect, sql};
use crate::udf::{Component, Grant, Origin};

pub(super) fn show(inspect: &Inspect) -> Result<String, Failed> {
    let component = Component::load(&inspect.setup.engine()?, &inspect.file, inspect.setup.limits())?;
    let mut out = String::new();
    let _ = writeln!(out, "{}", component.path().display());
    let _ = writeln!(out, "  size      {} bytes", component.bytes());
    let _ = writeln!(out, "  sha256    {}", component.digest());
    let _ = writeln!(
        out,
        "  compiled  {}",
        match component.origin() {
            Origin::Cache => "found in the cache",
            Origin::Compiler => "now (not in the cache)",
        }
    );
    let imports = imports(&component);
    let _ = writeln!(out, "  imports   {}", imports.join("\n            "));
    for export in component.exports() {
        let _ = writeln!(out, "\n  {}", export.path());
        match &export.callable {
            Ok(callable) => {
                let _ = writeln!(
                    out,
                    "    SQL  {}",
                    sql(export.prefix(), &export.name, &callable.signature, export.aggregate())
                );
                let _ = writeln!(out, "    {:<4} {}", component.kind(), callable.signature.text);
            }
            Err(reason) => {
                let _ = writeln!(out, "    not callable: {reason}");
            }
        }
    }
    Ok(out)
}

/// What a component asks for and what to do about it, a line each.
fn imports(component: &Component) -> Vec<String> {
    let mut lines = Vec::new();
    let mut others = Vec::new();
    for name in component.imports() {
        match Grant::of_import(name) {
            Some(grant) => lines.push(format!("{name}, granted by `{}`", grant.line())),
            None => others.push(name.as_str()),
        }
    }
    if !others.is_empty() {
        lines.push(others.join(", "));
        let answers = match component.kind() {
            "core" => "stubs: wit/core-abi.md tells what each answers, the others are row errors",
            _ => "not granted: a call of one of them is a row error",
        };
        lines.push(answers.to_owned());
    }
    if lines.is_empty() { vec!["none".to_owned()] } else { lines }
}

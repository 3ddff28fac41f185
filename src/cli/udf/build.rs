//! `forebay udf build`: from what compilers and people write to a component file.
//!
//! In: a core module, text, a crate or a JavaScript file. Out: a file. Not here: how it becomes a component
//! (`udf::build`).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;

use super::Failed;
use crate::udf::build::{assemble, component, javascript, with_world};

#[derive(Debug, Args)]
pub struct Build {
    /// A core module (.wasm, or .wat text), the folder of a Rust crate, or functions in JavaScript (.js)
    #[arg(value_name = "FILE_OR_CRATE_DIR")]
    pub source: PathBuf,
    /// Where to write it [default: FILE.component.wasm beside a module, FILE.wasm beside a text, or CRATE.wasm here]
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// The interface of a module that does not carry its own: a WIT file, or a folder of them
    #[arg(long, value_name = "FILE_OR_DIR")]
    pub wit: Option<PathBuf>,
    /// The world in it, where there are several
    #[arg(long, value_name = "NAME", requires = "wit")]
    pub world: Option<String>,
}

const TARGET: &str = "wasm32-unknown-unknown";

pub(super) fn run(build: &Build) -> Result<String, Failed> {
    let (wasm, default) = made(build)?;
    let output = build.output.clone().unwrap_or(default);
    std::fs::write(&output, &wasm).map_err(|source| Failed::Write { path: output.clone(), source })?;
    Ok(format!("{}  {} bytes\n", output.display(), wasm.len()))
}

/// What is asked for, and where it goes when nobody says.
fn made(build: &Build) -> Result<(Vec<u8>, PathBuf), Failed> {
    let source = &build.source;
    let extension = source.extension().and_then(|e| e.to_str()).unwrap_or_default();
    if extension == "js" {
        return Ok((javascript::component(source)?, source.with_extension("wasm")));
    }
    let is_crate = source.is_dir();
    let module = if is_crate { compile(source)? } else { source.clone() };
    let read = std::fs::read(&module).map_err(|source| Failed::Read { path: module.clone(), source })?;
    let default = match (is_crate, module.file_name()) {
        (true, Some(name)) => PathBuf::from(name),
        _ if extension == "wat" => module.with_extension("wasm"),
        _ => module.with_extension("component.wasm"),
    };
    let wasm = if extension == "wat" { assemble(&module, &String::from_utf8_lossy(&read))? } else { read };
    let wasm = match &build.wit {
        Some(wit) => with_world(&module, &wasm, wit, build.world.as_deref())?,
        // a core module by hand is called as it is
        None if extension == "wat" => wasm,
        None => component(&module, &wasm)?,
    };
    Ok((wasm, default))
}

/// Runs cargo and finds the core module that the crate itself gives.
fn compile(dir: &Path) -> Result<PathBuf, Failed> {
    let failed = |source| Failed::Read { path: dir.join("Cargo.toml"), source };
    let manifest = dir.join("Cargo.toml").canonicalize().map_err(failed)?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(&cargo)
        .args([
            "build",
            "--release",
            "--target",
            TARGET,
            "--message-format",
            "json-render-diagnostics",
            "--manifest-path",
        ])
        .arg(&manifest)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| Failed::Cargo(format!("{}: {e}", cargo.display())))?;
    if !output.status.success() {
        return Err(Failed::Cargo(format!(
            "cargo did not build it; if the target is missing: rustup target add {TARGET}"
        )));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    messages.lines().filter_map(|line| module_of(line, &manifest)).next_back().ok_or_else(|| {
        Failed::Cargo(format!(
            "{} gives no module: name the folder of one crate, with crate-type = [\"cdylib\"] in its [lib]",
            manifest.display()
        ))
    })
}

/// The .wasm file of one line of cargo's messages, if it is about this crate.
pub(super) fn module_of(line: &str, manifest: &Path) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let is_ours = message.get("reason")?.as_str()? == "compiler-artifact"
        && Path::new(message.get("manifest_path")?.as_str()?) == manifest;
    let files = message.get("filenames")?.as_array()?;
    let wasm = files.iter().filter_map(|f| f.as_str()).find(|f| f.ends_with(".wasm"));
    wasm.filter(|_| is_ours).map(PathBuf::from)
}

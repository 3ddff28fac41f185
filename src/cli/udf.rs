//! `forebay udf`: begin, build, look into, try, test, time and compile ahead user functions.
//!
//! In: arguments. Out: what a person reads, a component file, or the folder of a new one. Invariant: a function is
//! called just as a job calls it, limits and conversions included. Exit codes: 0 done, 1 failed, 2 asked for what is
//! not there or is no function.

mod bench;
#[cfg(feature = "udf-build")]
mod build;
mod call;
mod golden;
mod granting;
mod inspect;
mod new;

#[cfg(feature = "compile")]
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

pub use bench::Bench;
#[cfg(feature = "udf-build")]
pub use build::Build;
pub use call::Call;
pub use golden::Test;
pub use granting::{Granting, Import};
pub use new::New;

use super::say::{answer, complain};
use crate::diagnostic::{Diagnostics, suggest};
use crate::query::catalog::{Offers, Shape, Signature};
use crate::udf::{Component, Engine, Limits, UdfError, default_cache_dir};
#[cfg(feature = "compile")]
use crate::udf::{Origin, Precompiler, Target};

#[derive(Debug, Subcommand)]
pub enum UdfCommand {
    /// Begin a function: a folder that builds, with its source, its golden rows and what to do next
    New(New),
    /// Make a component from a core module, a Rust crate, or a JavaScript file in Stream Analytics' form; assemble text
    #[cfg(feature = "udf-build")]
    Build(Build),
    /// Show the functions and aggregates of a component: SQL and WIT signatures, imports, size, digest
    Inspect(Inspect),
    /// Call a function once and print its result as JSON
    Call(Call),
    /// Run golden rows: calls whose results are known
    Test(Test),
    /// Time a function: calls a second, start, memory
    Bench(Bench),
    /// Compile components into the cache folder, for gateways without a compiler
    #[cfg(feature = "compile")]
    Precompile(Precompile),
}

#[derive(Debug, Args)]
pub struct Inspect {
    pub file: PathBuf,
    #[command(flatten)]
    pub setup: FunctionSetup,
}

#[cfg(feature = "compile")]
#[derive(Debug, Args)]
pub struct Precompile {
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Make code for machines of this kind into the folder --cache, which is copied there [default: this machine]
    #[arg(long, value_name = "TRIPLE")]
    pub target: Option<String>,
    #[command(flatten)]
    pub setup: FunctionSetup,
}

/// What a job would set for the function.
#[derive(Debug, Args)]
pub struct FunctionSetup {
    /// Folder for compiled code [default: $CACHE_DIRECTORY, $XDG_CACHE_HOME/forebay or ~/.cache/forebay]
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Memory of the function, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub memory_mib: u32,
    /// Time of a call, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub timeout_ms: u32,
}

impl FunctionSetup {
    fn engine(&self) -> Result<Engine, UdfError> {
        Engine::new(self.cache.clone().or_else(default_cache_dir))
    }

    fn limits(&self) -> Limits {
        Limits {
            memory_bytes: (self.memory_mib as usize) << 20,
            timeout: Duration::from_millis(self.timeout_ms.into()),
            ..Limits::default()
        }
    }
}

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{0}")]
    Udf(#[from] UdfError),
    #[error("{error}")]
    NoSuchFunction { error: UdfError, near: String },
    #[error("{path} cannot be read: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} cannot be written: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Row(String),
    #[cfg(feature = "udf-build")]
    #[error("{0}")]
    Cargo(String),
    #[cfg(feature = "udf-build")]
    #[error(transparent)]
    JavaScript(#[from] crate::udf::build::javascript::JavaScriptError),
    #[error("{0}")]
    Usage(String),
    #[error("{what}")]
    Asked { what: String, help: String },
    #[error("{0}")]
    Golden(Diagnostics),
}

/// What a command answers on standard output, and how it ends.
#[derive(Debug)]
struct Answer {
    text: String,
    code: ExitCode,
}

impl From<String> for Answer {
    fn from(text: String) -> Answer {
        Answer { text, code: ExitCode::SUCCESS }
    }
}

impl Failed {
    fn help(&self) -> Option<String> {
        let text = match self {
            Failed::Udf(error) => error.help()?,
            Failed::NoSuchFunction { near, .. } => return Some(format!("did you mean `{near}`?")),
            Failed::Asked { help, .. } => help,
            Failed::Read { .. } | Failed::Write { .. } => "check the path and its permissions",
            #[cfg(feature = "udf-build")]
            Failed::JavaScript(error) => error.help()?,
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// Whether it draws the place itself, the word `error` in it.
    fn is_drawn(&self) -> bool {
        match self {
            Failed::Golden(_) => true,
            #[cfg(feature = "udf-build")]
            Failed::JavaScript(crate::udf::build::javascript::JavaScriptError::Source(_)) => true,
            _ => false,
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Failed::Udf(
                UdfError::Engine(_)
                | UdfError::NoCompiler { .. }
                | UdfError::OtherMachine { .. }
                | UdfError::CacheFolder { .. },
            ) => ExitCode::FAILURE,
            Failed::Usage(_) | Failed::Udf(_) | Failed::NoSuchFunction { .. } | Failed::Asked { .. } => {
                ExitCode::from(2)
            }
            Failed::Golden(_) | Failed::Read { .. } => ExitCode::from(2),
            #[cfg(feature = "udf-build")]
            Failed::JavaScript(error) if error.is_of_the_source() => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Runs a command; what it answers goes to standard output, errors to standard error.
pub fn run(command: UdfCommand) -> ExitCode {
    match execute(command) {
        Ok(Answer { text, code }) => answer(&text, code),
        Err(failed) if failed.is_drawn() => {
            complain(&failed);
            failed.exit_code()
        }
        Err(failed) => {
            complain(format_args!("error: {failed}\n"));
            if let Some(help) = failed.help() {
                complain(format_args!(" = help: {help}\n"));
            }
            failed.exit_code()
        }
    }
}

fn execute(command: UdfCommand) -> Result<Answer, Failed> {
    match command {
        UdfCommand::New(new) => new::run(&new).map(Answer::from),
        #[cfg(feature = "udf-build")]
        UdfCommand::Build(build) => build::run(&build).map(Answer::from),
        UdfCommand::Inspect(inspect) => inspect::show(&inspect).map(Answer::from),
        UdfCommand::Call(call) => call::run(&call).map(Answer::from),
        UdfCommand::Test(test) => golden::run(&test),
        UdfCommand::Bench(bench) => bench::run(&bench),
        #[cfg(feature = "compile")]
        UdfCommand::Precompile(precompile) => compile_ahead(&precompile).map(Answer::from),
    }
}

/// `udf.create_array(vendorid nvarchar(max)) -> array (nvarchar(max))`
fn sql(prefix: &str, name: &str, signature: &Signature, offers: Option<Offers>) -> String {
    format!("{prefix}.{}{}", name.replace('-', "_"), signature.sql(offers))
}

/// The function or aggregate that a person means.
fn find(component: &Component, name: &str) -> Result<usize, Failed> {
    component.find(name).map_err(|error| {
        let names: Vec<String> = component.exports().iter().map(|export| export.name.replace('-', "_")).collect();
        match (&error, suggest(name, &names)) {
            (UdfError::NoSuchExport { .. }, Some(near)) => Failed::NoSuchFunction { near: near.to_owned(), error },
            _ => error.into(),
        }
    })
}

/// Arguments at the end that take NULL, or the time, may be left out. Otherwise: how many it takes.
fn check_count(name: &str, signature: &Signature, offers: Option<Offers>, given: usize) -> Result<(), String> {
    let most = signature.params.len();
    let timed = usize::from(offers.is_some_and(|offers| offers.time));
    let least =
        signature.params.iter().take(most - timed.min(most)).rposition(|p| !matches!(p.shape, Shape::Option(_)));
    let least = least.map_or(0, |last| last + 1);
    if (least..=most).contains(&given) || (given > most && signature.rest.is_some()) {
        return Ok(());
    }
    let takes = if least == most { most.to_string() } else { format!("{least} to {most}") };
    let arguments = if takes == "1" { "argument" } else { "arguments" };
    let prefix = if offers.is_some() { "uda" } else { "udf" };
    Err(format!("{name} takes {takes} {arguments}, not {given}: {}", sql(prefix, name, signature, offers)))
}

#[cfg(feature = "compile")]
fn compile_ahead(precompile: &Precompile) -> Result<String, Failed> {
    if let Some(target) = &precompile.target {
        return compile_for(target, precompile);
    }
    let engine = precompile.setup.engine()?;
    let mut out = String::new();
    for file in &precompile.files {
        let component = Component::load(&engine, file, precompile.setup.limits())?;
        let what = match component.origin() {
            Origin::Cache => "was there",
            Origin::Compiler => "compiled",
        };
        let _ = writeln!(out, "{what}  {}  {}", component.digest(), file.display());
    }
    Ok(out)
}

#[cfg(feature = "compile")]
fn compile_for(target: &str, precompile: &Precompile) -> Result<String, Failed> {
    let target = Target::named(target).map_err(|e| Failed::Usage(e.to_string()))?;
    let Some(folder) = &precompile.setup.cache else {
        return Err(Failed::Usage("--target needs --cache DIR: the folder to copy to the machine".to_owned()));
    };
    let precompiler = Precompiler::new(&target, folder)?;
    // what is wrong with a file is told here and not on the machine; code for this one is of no use there
    let here = Engine::new(default_cache_dir())?;
    let mut out = String::new();
    for file in &precompile.files {
        let wasm = std::fs::read(file).map_err(|source| UdfError::Read { path: file.clone(), source })?;
        let component = Component::from_bytes(&here, file, &wasm, precompile.setup.limits())?;
        precompiler.compile(file, &wasm)?;
        let _ = writeln!(out, "compiled  {}  {}  {}", component.digest(), target.name(), file.display());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(subcommand)]
        command: UdfCommand,
    }

    /// A component with `add-one: func(x: s64, by: option<s64>) -> s64`, `negate: func(x: f64) -> f64` and `fail`.
    fn file(dir: &Path) -> PathBuf {
        let text = r#"(component
            (core module $m
                (func (export "add") (param i64 i32 i64) (result i64)
                    (i64.add (local.get 0) (select (local.get 2) (i64.const 1) (local.get 1))))
                (func (export "negate") (param f64) (result f64) (f64.neg (local.get 0)))
                (func (export "fail") (result i64) unreachable))
            (core instance $i (instantiate $m))
            (func (export "add-one") (param "x" s64) (param "by" (option s64)) (result s64)
                (canon lift (core func $i "add")))
            (func (export "negate") (param "x" float64) (result float64) (canon lift (core func $i "negate")))
            (func (export "fail") (result s64) (canon lift (core func $i "fail"))))"#;
        let path = dir.join("f.wasm");
        std::fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
        path
    }

    fn answer(words: &[&str]) -> Result<String, Failed> {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path()).display().to_string();
        let cache = dir.path().join("cache").display().to_string();
        let (command, rest) = words.split_first().unwrap();
        let words = ["udf", command, &path, "--cache", &cache].into_iter().chain(rest.iter().copied());
        execute(Cli::try_parse_from(words).unwrap().command).map(|answer| answer.text)
    }

    #[test]
    fn a_call_prints_json() {
        let cases: [(&[&str], &str); 6] = [
            (&["addOne", "41"], "42\n"),
            (&["add_one", "-5", "2"], "-3\n"),
            (&["add-one", "-5", "null"], "-4\n"),
            (&["add-one", "null"], "null\n"),
            (&["negate", "0.5"], "-0.5\n"),
            (&["negate", "-1e3"], "1000.0\n"),
        ];
        for (words, printed) in cases {
            let words: Vec<&str> = ["call"].iter().chain(words).copied().collect();
            assert_eq!(answer(&words).unwrap(), printed, "{words:?}");
        }
    }

    #[test]
    fn a_call_that_fails_and_a_call_that_cannot_be_differ() {
        let cases: [(&[&str], ExitCode, &str); 5] = [
            (&["fail"], ExitCode::FAILURE, "udf.fail: trapped"),
            (
                &["add-one", "x"],
                ExitCode::FAILURE,
                "udf.add-one: argument 1 (x: s64): nvarchar(max) \"x\" is no bigint",
            ),
            (
                &["add-one"],
                ExitCode::from(2),
                "add-one takes 1 to 2 arguments, not 0: udf.add_one(x bigint, by bigint or NULL) -> bigint",
            ),
            (&["negate", "1", "2"], ExitCode::from(2), "negate takes 1 argument, not 2"),
            (&["subtract"], ExitCode::from(2), "exports no function `subtract`; it has add-one, negate, fail"),
        ];
        for (words, code, message) in cases {
            let words: Vec<&str> = ["call"].iter().chain(words).copied().collect();
            let failed = answer(&words).unwrap_err();
            assert!(failed.to_string().contains(message), "{failed}");
            assert_eq!(failed.exit_code(), code, "{words:?}");
        }
    }

    #[test]
    fn inspect_shows_both_sides() {
        let shown = answer(&["inspect"]).unwrap();
        for line in [
            "  compiled  now (not in the cache)",
            "  imports   none",
            "    SQL  udf.add_one(x bigint, by bigint or NULL) -> bigint",
            "    WIT  add-one: func(x: s64, by: option<s64>) -> s64",
        ] {
            assert!(shown.lines().any(|l| l == line), "{line:?} in\n{shown}");
        }
    }

    #[test]
    #[cfg(feature = "compile")]
    fn what_was_compiled_ahead_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path()).display().to_string();
        let cache = dir.path().join("cache").display().to_string();
        let run = |command: &str| {
            execute(Cli::try_parse_from(["udf", command, &path, "--cache", &cache]).unwrap().command).unwrap().text
        };
        assert!(run("precompile").starts_with("compiled  "));
        assert!(run("precompile").starts_with("was there  "));
        assert!(run("inspect").contains("found in the cache"));
    }

    #[test]
    #[cfg(feature = "compile")]
    fn code_for_other_machines_goes_into_a_folder_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path()).display().to_string();
        let folder = dir.path().join("for-gateway");
        let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let run = |target: &str, cache: &[&str]| {
            let words = ["udf", "precompile", "--target", target, &path].into_iter().chain(cache.iter().copied());
            execute(Cli::try_parse_from(words).unwrap().command)
        };
        let cache = ["--cache", folder.to_str().unwrap()];
        let said = run(&host, &cache).unwrap().text;
        assert!(said.starts_with("compiled  ") && said.ends_with(&format!("  {host}  {path}\n")), "{said}");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        let refused = |target: &str, cache: &[&str]| run(target, cache).unwrap_err().to_string();
        assert_eq!(refused(&host, &[]), "--target needs --cache DIR: the folder to copy to the machine");
        assert_eq!(
            refused("x86_64-pc-windows-msvc", &cache),
            "`x86_64-pc-windows-msvc` is no machine that forebay runs on; known are x86_64-unknown-linux-gnu, \
            aarch64-unknown-linux-gnu, riscv64gc-unknown-linux-gnu, armv7-unknown-linux-gnueabihf"
        );
        if cfg!(not(feature = "precompile-targets")) {
            assert_eq!(
                refused("armv7-unknown-linux-gnueabihf", &cache),
                format!(
                    "this build makes code for {} alone; for `armv7-unknown-linux-gnueabihf` build forebay with `cargo \
                    build --release --features precompile-targets`, or run this on such a machine",
                    std::env::consts::ARCH
                )
            );
        }
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let said = refused(&host, &cache);
        assert_eq!(
            said,
            format!(
                "the folder {} cannot be used for compiled code: others may write the folder; chmod 700 it",
                folder.display()
            )
        );
    }

    #[test]
    #[cfg(feature = "udf-build")]
    fn cargo_messages_name_the_module_of_the_crate_asked_for() {
        let line =
            r#"{"reason":"compiler-artifact","manifest_path":"/g/Cargo.toml","filenames":["/t/g.d","/t/g.wasm"]}"#;
        assert_eq!(build::module_of(line, Path::new("/g/Cargo.toml")), Some("/t/g.wasm".into()));
        assert_eq!(build::module_of(line, Path::new("/other/Cargo.toml")), None);
        assert_eq!(build::module_of("Compiling g", Path::new("/g/Cargo.toml")), None);
    }
}

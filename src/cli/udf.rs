//! `forebay udf`: build, look into, try and compile ahead user functions.
//!
//! In: arguments. Out: what a person reads, or a component file. Invariant: a function is called just as a job calls it,
//! limits and conversions included. Exit codes: 0 done, 1 failed, 2 asked for what is not there or is no function.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use secrecy::SecretString;

use crate::query::catalog::{Offers, Shape, Signature};
use crate::time::{Clock, Timestamp};
use crate::udf::{
    Component, Engine, FunctionBinding, Grant, Grants, Host, Limits, Origin, StateLimits, UdfError, UserFunctions as _, default_cache_dir,
    json,
};
#[cfg(feature = "compile")]
use crate::udf::{Precompiler, Target};
use crate::value::Value;

#[derive(Debug, Subcommand)]
pub enum UdfCommand {
    /// Make a component from a core module, or from a Rust crate
    #[cfg(feature = "udf-build")]
    Build(Build),
    /// Show the functions and aggregates of a component: SQL and WIT signatures, imports, size, digest
    Inspect(Inspect),
    /// Call a function once and print its result as JSON
    Call(Call),
    /// Compile components into the cache folder, for gateways without a compiler
    #[cfg(feature = "compile")]
    Precompile(Precompile),
}

#[cfg(feature = "udf-build")]
#[derive(Debug, Args)]
pub struct Build {
    /// A core module with embedded WIT (what wit-bindgen makes), or the folder of a Rust crate
    #[arg(value_name = "FILE_OR_CRATE_DIR")]
    pub source: PathBuf,
    /// Where to write the component [default: FILE.component.wasm beside the module, or CRATE.wasm here]
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Inspect {
    pub file: PathBuf,
    #[command(flatten)]
    pub setup: Setup,
}

#[derive(Debug, Args)]
pub struct Call {
    pub file: PathBuf,
    /// Name of the function, in any case style
    pub export: String,
    /// JSON values, or bare text; `null` is NULL
    #[arg(allow_negative_numbers = true)]
    pub args: Vec<String>,
    /// Grant an import: log, state (empty, and forgotten afterwards) or clock; may be repeated
    #[arg(long = "import", value_name = "NAME")]
    pub imports: Vec<Import>,
    /// A setting of the function; may be repeated
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = setting)]
    pub settings: Vec<(String, String)>,
    /// Rows to look into: a JSON array, or one object a line; may be repeated
    #[arg(long = "reference", value_name = "NAME=FILE", value_parser = setting)]
    pub references: Vec<(String, String)>,
    /// Event time of the call, ISO 8601 [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub at: Option<Timestamp>,
    #[command(flatten)]
    pub setup: Setup,
}

/// What `--import` grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Import {
    Log,
    State,
    Clock,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| "expected a time such as 2024-05-01T12:00:00Z".to_owned())
}

impl Call {
    /// As the job file would grant it.
    fn grants(&self) -> Grants {
        let has = |import| self.imports.contains(&import);
        let settings = self.settings.iter().map(|(key, value)| (key.clone(), SecretString::from(value.as_str())));
        Grants {
            log: has(Import::Log),
            clock: has(Import::Clock),
            state: has(Import::State).then(StateLimits::default),
            config: (!self.settings.is_empty()).then(|| settings.collect()),
            lookup: self.references.iter().map(|(name, _)| name.as_str().into()).collect(),
        }
    }
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
    pub setup: Setup,
}

/// What a job would set for the function.
#[derive(Debug, Args)]
pub struct Setup {
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

impl Setup {
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
    #[cfg(feature = "udf-build")]
    #[error("{path} cannot be read: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[cfg(feature = "udf-build")]
    #[error("{path} cannot be written: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Row(String),
    #[cfg(feature = "udf-build")]
    #[error("{0}")]
    Cargo(String),
    #[error("{0}")]
    Usage(String),
}

impl Failed {
    fn help(&self) -> Option<&'static str> {
        match self {
            Failed::Udf(error) => error.help(),
            #[cfg(feature = "udf-build")]
            Failed::Read { .. } | Failed::Write { .. } => Some("check the path and its permissions"),
            _ => None,
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Failed::Udf(
                UdfError::Engine(_) | UdfError::NoCompiler { .. } | UdfError::OtherMachine { .. } | UdfError::CacheFolder { .. },
            ) => ExitCode::FAILURE,
            Failed::Usage(_) | Failed::Udf(_) => ExitCode::from(2),
            #[cfg(feature = "udf-build")]
            Failed::Read { .. } => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Runs a command; what it answers goes to standard output, errors to standard error.
pub fn run(command: UdfCommand) -> ExitCode {
    match execute(command) {
        Ok(text) => {
            use std::io::Write;
            // a reader that is gone has seen what it wanted
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(failed) => {
            eprintln!("error: {failed}");
            if let Some(help) = failed.help() {
                eprintln!(" = help: {help}");
            }
            failed.exit_code()
        }
    }
}

fn execute(command: UdfCommand) -> Result<String, Failed> {
    match command {
        #[cfg(feature = "udf-build")]
        UdfCommand::Build(build) => self::build::run(&build),
        UdfCommand::Inspect(inspect) => show(&inspect),
        UdfCommand::Call(call) => call_once(&call),
        #[cfg(feature = "compile")]
        UdfCommand::Precompile(precompile) => compile_ahead(&precompile),
    }
}

fn show(inspect: &Inspect) -> Result<String, Failed> {
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
                let _ = writeln!(out, "    SQL  {}", sql(export.prefix(), &export.name, &callable.signature, export.aggregate()));
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

/// `udf.create_array(vendorid nvarchar(max)) -> array (nvarchar(max))`
fn sql(prefix: &str, name: &str, signature: &Signature, offers: Option<Offers>) -> String {
    format!("{prefix}.{}{}", name.replace('-', "_"), signature.sql(offers))
}

fn call_once(call: &Call) -> Result<String, Failed> {
    let component = Arc::new(Component::load(&call.setup.engine()?, &call.file, call.setup.limits())?);
    let export = component.find(&call.export)?;
    let binding = FunctionBinding::new(component, export, call.export.clone()).granting(call.grants());
    if binding.aggregate().is_some() {
        let text = format!(
            "{0} is an aggregate, which takes the rows of a window; try it with `forebay eval QUERY --input NAME=FILE --job JOB` and `uda.{0}(…)`",
            call.export
        );
        return Err(Failed::Usage(text));
    }
    if let Some(signature) = binding.signature() {
        check_count(&call.export, signature, call.args.len())?;
    }
    let args: Vec<Value> = call.args.iter().map(|arg| json::parse(arg).unwrap_or_else(|_| Value::text(arg))).collect();
    let mut host = Host::new(&[binding]).map_err(|e| match e {
        UdfError::NotGranted { path, imports, .. } => Failed::Usage(not_granted(&path, &imports)),
        other => other.into(),
    })?;
    for (name, file) in &call.references {
        host.set_reference(name, &Arc::new(table(name, file)?));
    }
    let at = call.at.unwrap_or_else(|| Clock::Real.now());
    let value = host.call(0, &args, at).map_err(|e| Failed::Row(format!("{} ({})", e.message, e.reason)))?;
    Ok(format!("{}\n", value.to_json()))
}

/// The flags that grant what is missing.
fn not_granted(path: &Path, imports: &str) -> String {
    let flag = |import: &str| match Grant::of_import(import) {
        Some(Grant::Config) => "--config KEY=VALUE".to_owned(),
        Some(Grant::Lookup) => "--reference NAME=FILE".to_owned(),
        Some(grant) => format!("--import {}", grant.word()),
        None => String::new(),
    };
    let flags: Vec<String> = imports.split(", ").map(flag).collect();
    format!("{} imports {imports}, which is not granted; grant it with {}", path.display(), flags.join(" "))
}

/// The rows of a reference file.
fn table(name: &str, file: &str) -> Result<Vec<Value>, Failed> {
    let unusable = |why: String| Failed::Usage(format!("the reference {name}: {why}"));
    let text = std::fs::read_to_string(file).map_err(|e| unusable(format!("{file} cannot be read: {e}")))?;
    let rows = match text.trim_start().starts_with('[') {
        true => json::parse(&text).map(|value| match value {
            Value::Array(rows) => rows.to_vec(),
            other => vec![other],
        }),
        false => text.lines().filter(|line| !line.trim().is_empty()).map(json::parse).collect(),
    };
    rows.map_err(|e| unusable(format!("{file}: {e}")))
}

/// Arguments at the end that take NULL may be left out.
fn check_count(name: &str, signature: &Signature, given: usize) -> Result<(), Failed> {
    let most = signature.params.len();
    let least = signature.params.iter().rposition(|p| !matches!(p.shape, Shape::Option(_))).map_or(0, |last| last + 1);
    if (least..=most).contains(&given) || (given > most && signature.rest.is_some()) {
        return Ok(());
    }
    let takes = if least == most { most.to_string() } else { format!("{least} to {most}") };
    let arguments = if takes == "1" { "argument" } else { "arguments" };
    Err(Failed::Usage(format!("{name} takes {takes} {arguments}, not {given}: {}", sql("udf", name, signature, None))))
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

#[cfg(feature = "udf-build")]
mod build {
    //! Finding or compiling the core module.

    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};

    use super::{Build, Failed};
    use crate::udf::build::component;

    const TARGET: &str = "wasm32-unknown-unknown";

    pub(super) fn run(build: &Build) -> Result<String, Failed> {
        let is_crate = build.source.is_dir();
        let module = if is_crate { compile(&build.source)? } else { build.source.clone() };
        let output = build.output.clone().unwrap_or_else(|| match (is_crate, module.file_name()) {
            (true, Some(name)) => PathBuf::from(name),
            _ => module.with_extension("component.wasm"),
        });
        let read = std::fs::read(&module).map_err(|source| Failed::Read { path: module.clone(), source })?;
        let wasm = component(&module, &read)?;
        std::fs::write(&output, &wasm).map_err(|source| Failed::Write { path: output.clone(), source })?;
        Ok(format!("{}  {} bytes\n", output.display(), wasm.len()))
    }

    /// Runs cargo and finds the core module that the crate itself gives.
    fn compile(dir: &Path) -> Result<PathBuf, Failed> {
        let failed = |source| Failed::Read { path: dir.join("Cargo.toml"), source };
        let manifest = dir.join("Cargo.toml").canonicalize().map_err(failed)?;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(&cargo)
            .args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics", "--manifest-path"])
            .arg(&manifest)
            .stderr(Stdio::inherit())
            .output()
            .map_err(|e| Failed::Cargo(format!("{}: {e}", cargo.display())))?;
        if !output.status.success() {
            return Err(Failed::Cargo(format!("cargo did not build it; if the target is missing: rustup target add {TARGET}")));
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
        let is_ours =
            message.get("reason")?.as_str()? == "compiler-artifact" && Path::new(message.get("manifest_path")?.as_str()?) == manifest;
        let files = message.get("filenames")?.as_array()?;
        let wasm = files.iter().filter_map(|f| f.as_str()).find(|f| f.ends_with(".wasm"));
        wasm.filter(|_| is_ours).map(PathBuf::from)
    }
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
            (func (export "add-one") (param "x" s64) (param "by" (option s64)) (result s64) (canon lift (core func $i "add")))
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
        execute(Cli::try_parse_from(words).unwrap().command)
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
            (&["add-one", "x"], ExitCode::FAILURE, "udf.add-one: argument 1 (x: s64): nvarchar(max) \"x\" is no bigint"),
            (&["add-one"], ExitCode::from(2), "add-one takes 1 to 2 arguments, not 0: udf.add_one(x bigint, by bigint or NULL) -> bigint"),
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
        let run = |command: &str| execute(Cli::try_parse_from(["udf", command, &path, "--cache", &cache]).unwrap().command).unwrap();
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
        let said = run(&host, &cache).unwrap();
        assert!(said.starts_with("compiled  ") && said.ends_with(&format!("  {host}  {path}\n")), "{said}");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        let refused = |target: &str, cache: &[&str]| run(target, cache).unwrap_err().to_string();
        assert_eq!(refused(&host, &[]), "--target needs --cache DIR: the folder to copy to the machine");
        assert_eq!(
            refused("x86_64-pc-windows-msvc", &cache),
            "`x86_64-pc-windows-msvc` is no machine that forebay runs on; known are x86_64-unknown-linux-gnu, aarch64-unknown-linux-gnu, riscv64gc-unknown-linux-gnu, armv7-unknown-linux-gnueabihf"
        );
        if cfg!(not(feature = "precompile-targets")) {
            assert_eq!(
                refused("armv7-unknown-linux-gnueabihf", &cache),
                format!(
                    "this build makes code for {} alone; for `armv7-unknown-linux-gnueabihf` build forebay with `cargo build --release --features precompile-targets`, or run this on such a machine",
                    std::env::consts::ARCH
                )
            );
        }
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let said = refused(&host, &cache);
        assert_eq!(
            said,
            format!("the folder {} cannot be used for compiled code: others may write the folder; chmod 700 it", folder.display())
        );
    }

    #[test]
    #[cfg(feature = "udf-build")]
    fn cargo_messages_name_the_module_of_the_crate_asked_for() {
        let line = r#"{"reason":"compiler-artifact","manifest_path":"/g/Cargo.toml","filenames":["/t/g.d","/t/g.wasm"]}"#;
        assert_eq!(build::module_of(line, Path::new("/g/Cargo.toml")), Some("/t/g.wasm".into()));
        assert_eq!(build::module_of(line, Path::new("/other/Cargo.toml")), None);
        assert_eq!(build::module_of("Compiling g", Path::new("/g/Cargo.toml")), None);
    }
}

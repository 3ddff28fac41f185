//! User functions: every exported function of a WebAssembly component, or of a core module, is an SQL function, and
//! every exported resource of the right form an aggregate.
//!
//! In: component files and rows' values. Out: signatures for the query's catalog, and results. Invariant: whatever a
//! guest does ends as a value or as a row error; it ends neither the process nor another function. Not here: what a
//! query may do with a function (`query`), endpoints (`score`).
//!
//! `engine` is wasmtime's settings, `cache` its compiled code, `wit` the types, `convert` the values, `component` a
//! loaded file, `core_module` one that is no component, `imports` what it asks for, `grants` what it may be given of
//! that, `instance` one store, `breaker` the pause after repeated traps, `aggregate` the groups that live as resources,
//! `host` all of it for one executor, `swap` the versions of functions in a running job, `target` code for other
//! machines, `build` the way from a core module to a component.

mod aggregate;
mod answer;
mod binding;
mod breaker;
#[cfg(feature = "udf-build")]
pub mod build;
mod cache;
mod component;
mod convert;
mod core_module;
mod cpu_time;
mod engine;
mod function;
mod grants;
mod host;
mod imports;
mod instance;
pub mod json;
mod settings;
mod stats;
mod swap;
#[cfg(feature = "compile")]
mod target;
mod ticker;
pub mod wit;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::query::builtins::RowError;
use crate::time::Timestamp;
use crate::value::Value;
use crate::value::codec::Damaged;

/// What is logged while it is held names the function, as all lines of a function do.
fn logging(name: &str) -> tracing::span::EnteredSpan {
    tracing::error_span!("function", name = %name).entered()
}

pub use aggregate::Live;
pub use binding::FunctionBinding;
pub use cache::default_dir as default_cache_dir;
pub use component::{Callable, Component, Export, Origin};
pub use engine::Engine;
pub use grants::{Grant, Grants, StateLimits, StateRow};
pub use host::Host;
pub use settings::{ConfigValue, GrantedConfig, WasmConfig};
pub use stats::{CallFailure, Stats};
pub use swap::{SwapStatus, Versions};
#[cfg(feature = "compile")]
pub use target::{Precompiler, Target, TargetError};

/// What an executor asks of user functions. [`Host`] answers with components; tests answer by themselves.
pub trait UserFunctions: Send {
    /// Calls a function with a row's arguments; `at` is the row's event time.
    ///
    /// # Errors
    /// The row's error; its reason is one of [`CallFailure`]'s words.
    fn call(&mut self, index: usize, args: &[Value], at: Timestamp) -> Result<Value, RowError>;

    /// What the functions remember that changed since the last time: it belongs into one commit with the rows that came
    /// out. A failed call changes nothing.
    fn take_state(&mut self, _out: &mut Vec<StateRow>) {}

    /// Takes back a row of an earlier commit, before the first call.
    ///
    /// # Errors
    /// It is damaged.
    fn load_state(&mut self, _key: &[u8], _value: &[u8]) -> Result<(), Damaged> {
        Ok(())
    }

    /// About how many bytes the functions remember.
    fn state_bytes(&self) -> usize {
        0
    }

    /// A new version of a reference table, for calls from now on.
    fn set_reference(&mut self, _name: &str, _table: &Arc<Vec<Value>>) {}

    /// Takes newer versions of the functions, if there are any, for calls from now on; what they remember stays.
    fn take_versions(&mut self) {}

    /// The aggregate of this index; `None` when it is a function.
    fn aggregate(&mut self, index: usize) -> Option<&mut dyn UserAggregate> {
        let _ = index;
        None
    }
}

/// What an executor asks of a user aggregate. A group lives as a resource for as long as that is convenient: whoever
/// asks knows what the group is made of and makes it again. Rows begin with their event time; the arguments of the call
/// follow. After an error the group is let go, for nobody knows what the guest has done to it.
pub trait UserAggregate {
    /// The chance to replace an instance that was used for long. Elsewhere groups end by failed calls, by `begin` when
    /// there are too many, and when the last clone of their [`Live`] is dropped.
    fn refresh(&mut self);

    /// Whether the group still lives.
    fn is_live(&self, live: &Live) -> bool;

    /// Whether a call faulted in a version on trial since this was last asked: made again, it counts towards the trial,
    /// or finds the former version back. So it says so only a few times.
    fn take_again(&mut self) -> bool {
        false
    }

    /// A new group: as saved, or without rows.
    ///
    /// # Errors
    /// As all of these: the row's error; its reason is one of [`CallFailure`]'s words.
    fn begin(&mut self, saved: Option<&[u8]>) -> Result<Live, RowError>;

    /// A row enters, later than those held.
    ///
    /// # Errors
    /// See [`UserAggregate::begin`].
    fn accumulate(&mut self, live: &Live, row: &[Value]) -> Result<(), RowError>;

    /// Rows enter that had entered the group before.
    ///
    /// # Errors
    /// See [`UserAggregate::begin`].
    fn repeat(&mut self, live: &Live, rows: &mut dyn Iterator<Item = &[Value]>) -> Result<(), RowError>;

    /// The oldest row leaves.
    ///
    /// # Errors
    /// See [`UserAggregate::begin`].
    fn deaccumulate(&mut self, live: &Live, row: &[Value]) -> Result<(), RowError>;

    /// The rows of `later` enter; it stays as it is.
    ///
    /// # Errors
    /// See [`UserAggregate::begin`].
    fn merge(&mut self, live: &Live, later: &Live) -> Result<(), RowError>;

    /// The group's value.
    ///
    /// # Errors
    /// See [`UserAggregate::begin`].
    fn compute(&mut self, live: &Live) -> Result<Value, RowError>;

    /// What [`UserAggregate::begin`] makes the same group of.
    ///
    /// # Errors
    /// See [`UserAggregate::begin`].
    fn save(&mut self, live: &Live) -> Result<Vec<u8>, RowError>;
}

/// What a component may use. Units are in the names; all are on by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// linear memory of one instance, all its memories together
    pub memory_bytes: usize,
    /// time of one call: the first half on the wall, the second in processor time of its thread, so that a busy machine
    /// does not count against it; exact to two ticks of 10 ms
    pub timeout: Duration,
    /// one result as the host holds it: text by its bytes, an element of a list or a field by some 40
    pub result_bytes_max: usize,
    /// elements of one table
    pub table_elements_max: usize,
    /// tables of one instance
    pub tables_max: usize,
    /// core instances that a component is made of
    pub instances_max: usize,
    /// linear memories that a component is made of
    pub memories_max: usize,
}

impl Default for Limits {
    /// Enough for functions in Rust, C or Zig; larger languages raise the memory in the job file.
    fn default() -> Limits {
        Limits {
            memory_bytes: 32 << 20,
            timeout: Duration::from_millis(100),
            result_bytes_max: 1 << 20,
            // JavaScript and Python runtimes have some 5,000 functions in their tables
            table_elements_max: 20_000,
            // a component from common tools has one table
            tables_max: 16,
            // and four instances for its shims; one of Python's libraries and their shims has some forty
            instances_max: 100,
            memories_max: 8,
        }
    }
}

/// Why a component cannot be used; [`UdfError::help`] says what to do. All are found before the first row.
#[derive(Debug, thiserror::Error)]
pub enum UdfError {
    #[error("{path} cannot be read: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} has {bytes} bytes; a component may have {max}")]
    TooLarge { path: PathBuf, bytes: u64, max: u64 },
    #[error("{path} is no WebAssembly; a function is a component file (.wasm)")]
    NotWasm { path: PathBuf },
    #[error("{path} carries the type of a component and is none yet; make it one: `forebay udf build {path}`")]
    NotYetComponent { path: PathBuf },
    #[error("{path} is a program: it exports `_start` and no `_initialize`; build it as a library")]
    Command { path: PathBuf },
    #[error("{path}: the export `{export}` {reason}")]
    CoreExport { path: PathBuf, export: String, reason: String },
    #[error(
        "{path} is compiled code, which cannot be checked; name the .wasm it was made from: forebay finds its own \
        compiled code by digest"
    )]
    CompiledCode { path: PathBuf },
    #[error("{path} does not compile: {reason}")]
    Compile { path: PathBuf, reason: String },
    #[error(
        "{path}: no compiled code for it in {cache}, and this build has no compiler; run `forebay udf precompile \
        --target {host} --cache DIR {path}` of a full build of the same version and copy what is in DIR into that \
        folder"
    )]
    NoCompiler { path: PathBuf, cache: String, host: &'static str },
    #[error(
        "{path}: its compiled code in {cache} was made for another machine or by another version, or is damaged, and \
        this build has no compiler; run `forebay udf precompile --target {host} --cache DIR {path}` of a full build of \
        the same version and copy what is in DIR into that folder"
    )]
    OtherMachine { path: PathBuf, cache: String, host: &'static str },
    #[error("the folder {folder} cannot be used for compiled code: {reason}")]
    CacheFolder { folder: PathBuf, reason: String },
    #[error("{path} asks for {imports}, which nobody provides; functions get no imports by default: build it without")]
    UnknownImport { path: PathBuf, imports: String },
    #[error("{path} imports {imports}, which the job does not grant; write {lines} in [functions.{function}]")]
    NotGranted { path: PathBuf, imports: String, function: String, lines: String },
    #[error(
        "{path} imports {imports}, which no aggregate may call, for its rows may enter again at any time; build \
        `{function}` without, and hand what it needs over as an argument"
    )]
    AggregateImports { path: PathBuf, imports: String, function: String },
    #[error("its setting `{key}` cannot be used: {reason}")]
    Config { key: String, reason: String, help: &'static str },
    #[error("{path} exports no functions")]
    NoFunctions { path: PathBuf },
    #[error("{path}: `{first}` and `{second}` are one name to a query; rename one of them")]
    Collision { path: PathBuf, first: String, second: String },
    #[error("{path} exports no function `{name}`; it has {exports}")]
    NoSuchExport { path: PathBuf, name: String, exports: String },
    #[error("{path}: `{export}` cannot be a function of a query: {reason}")]
    NotCallable { path: PathBuf, export: String, reason: String },
    #[error("{path} does not start: {reason}")]
    Start { path: PathBuf, reason: String },
    #[error("the WebAssembly engine does not start: {0}")]
    Engine(String),
    #[error("{path} does not become a component: {reason}")]
    Build { path: PathBuf, reason: String },
    #[error("{path}: {reason}")]
    Wit { path: PathBuf, reason: String },
    /// with the place in it
    #[error("{reason}")]
    Text { reason: String },
}

impl UdfError {
    /// What to do about it, where the message does not say.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            UdfError::Read { .. } => Some("check the path and its permissions"),
            UdfError::TooLarge { .. } => Some("check that it is the right file"),
            UdfError::Compile { .. } => {
                Some("the file is damaged or cut off, or needs what this version does not know: build or copy it again")
            }
            UdfError::Config { help, .. } => Some(help),
            UdfError::NoFunctions { .. } => {
                Some("let its world export one: `export add: func(a: s64, b: s64) -> s64;`")
            }
            UdfError::NoSuchExport { .. } => {
                Some("`forebay udf inspect` shows their types; in a job file `export = \"…\"` picks one")
            }
            UdfError::NotCallable { .. } => Some("give it parameters and a result of plain values"),
            UdfError::Command { .. } => {
                Some("Go: `-buildmode=c-shared`; C: `-mexec-model=reactor`; Rust: `crate-type = [\"cdylib\"]`")
            }
            UdfError::CoreExport { .. } => {
                Some("wit/core-abi.md tells what a core module exports; names beginning with `forebay_` are reserved")
            }
            UdfError::Start { .. } => Some(
                "in a job file `memory` and `timeout` raise its limits; `udf` commands take `--memory-mib`, \
                `--timeout-ms`",
            ),
            UdfError::Wit { .. } => Some("`--wit` names a WIT file or a folder of them, `--world` one of its worlds"),
            UdfError::Engine(_) => Some("check the limits of the process (`ulimit -v`)"),
            UdfError::NotWasm { .. }
            | UdfError::NotYetComponent { .. }
            | UdfError::CompiledCode { .. }
            | UdfError::NoCompiler { .. }
            | UdfError::OtherMachine { .. }
            | UdfError::CacheFolder { .. }
            | UdfError::UnknownImport { .. }
            | UdfError::NotGranted { .. }
            | UdfError::AggregateImports { .. }
            | UdfError::Collision { .. }
            | UdfError::Build { .. }
            | UdfError::Text { .. } => None,
        }
    }
}

//! What the job file lets a function ask for: one import each, none by default.
//!
//! In: the job file's grants, and what a component imports. Out: host functions that work while a call lasts.
//! Invariant: a function gets what it was granted by name and nothing else; a component that imports more is refused
//! before the first row. Not here: WASI, which is never granted (`imports`), when state is stored (`engine`).
//!
//! `log`, `config`, `lookup`, `state` and `clock` are the interfaces of `wit/imports.wit`, a file each.

mod clock;
mod config;
mod log;
mod lookup;
mod state;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::SecretString;
use smol_str::SmolStr;
use wasmtime::StoreContextMut;
use wasmtime::component::LinkerInstance;

use super::instance;
use super::stats::{CallFailure, Stats};
use crate::time::{Clock, Timestamp};

use log::Limiter;
use lookup::LookupTables;
use state::KeyValues;
pub use state::StateLimits;

/// The package that guests import; later 0.1.x only add to it.
const PACKAGE: &str = "forebay:host/";
const VERSION: &str = "@0.1.";

/// Something that a function may be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grant {
    Log,
    Config,
    Lookup,
    State,
    Clock,
}

impl Grant {
    pub const ALL: [Grant; 5] = [Grant::Log, Grant::Config, Grant::Lookup, Grant::State, Grant::Clock];

    /// The name of its interface.
    pub fn word(self) -> &'static str {
        match self {
            Grant::Log => "log",
            Grant::Config => "config",
            Grant::Lookup => "lookup",
            Grant::State => "state",
            Grant::Clock => "clock",
        }
    }

    /// The grant that an import of a component needs: `forebay:host/state@0.1.0` is [`Grant::State`].
    pub fn of_import(import: &str) -> Option<Grant> {
        let (word, patch) = import.strip_prefix(PACKAGE)?.split_once(VERSION)?;
        let is_version = !patch.is_empty() && patch.bytes().all(|b| b.is_ascii_digit());
        Grant::ALL.into_iter().find(|grant| is_version && grant.word() == word)
    }

    /// The line of the job file that grants it.
    pub fn line(self) -> &'static str {
        match self {
            Grant::Log => "imports = [\"log\"]",
            Grant::State => "imports = [\"state\"]",
            Grant::Clock => "imports = [\"clock\"]",
            Grant::Config => "config = { key = \"value\" }",
            Grant::Lookup => "lookup = [\"zones\"]",
        }
    }

    /// The words of `imports`; the others are granted by what they need.
    pub const fn is_word_of_imports(self) -> bool {
        matches!(self, Grant::Log | Grant::State | Grant::Clock)
    }
}

/// What one function is granted.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    pub log: bool,
    pub clock: bool,
    pub state: Option<StateLimits>,
    /// Any of them may be a secret.
    pub config: Option<BTreeMap<String, SecretString>>,
    /// Reference inputs; empty: not granted.
    pub lookup: Vec<SmolStr>,
}

impl Grants {
    pub fn has(&self, grant: Grant) -> bool {
        match grant {
            Grant::Log => self.log,
            Grant::Clock => self.clock,
            Grant::State => self.state.is_some(),
            Grant::Config => self.config.is_some(),
            Grant::Lookup => !self.lookup.is_empty(),
        }
    }

    /// The lines of the job file that grant `missing` besides what is granted already.
    pub fn lines_for(&self, missing: &[Grant]) -> String {
        let words: Vec<String> = Grant::ALL
            .into_iter()
            .filter(|grant| grant.is_word_of_imports() && (self.has(*grant) || missing.contains(grant)))
            .map(|grant| format!("\"{}\"", grant.word()))
            .collect();
        let mut lines = Vec::new();
        if missing.iter().any(|grant| grant.is_word_of_imports()) {
            lines.push(format!("`imports = [{}]`", words.join(", ")));
        }
        lines.extend(
            missing.iter().filter(|grant| !grant.is_word_of_imports()).map(|grant| format!("`{}`", grant.line())),
        );
        lines.join(" and ")
    }
}

/// What all instances of one function share.
#[derive(Debug)]
pub struct Granted {
    name: String,
    grants: Grants,
    limiter: Mutex<Limiter>,
    /// By which lines are counted.
    clock: Clock,
}

impl Granted {
    pub fn new(name: &str, grants: Grants, clock: Clock) -> Granted {
        Granted { name: name.to_owned(), grants, limiter: Mutex::default(), clock }
    }

    pub fn grants(&self) -> &Grants {
        &self.grants
    }
}

/// What a function has at hand while it is called; it lies in the store of its instance for that time.
#[derive(Debug)]
pub struct Lent {
    granted: Arc<Granted>,
    stats: Arc<Stats>,
    at: Timestamp,
    state: KeyValues,
    tables: LookupTables,
}

/// One change of a function's state: set, or removed (`None`).
pub type StateRow = (Vec<u8>, Option<Vec<u8>>);

impl Lent {
    pub fn new(granted: &Arc<Granted>, stats: &Arc<Stats>) -> Lent {
        let limits = granted.grants.state.unwrap_or_default();
        let tables = LookupTables::new(&granted.grants.lookup);
        Lent {
            granted: Arc::clone(granted),
            stats: Arc::clone(stats),
            at: Timestamp::MIN,
            state: KeyValues::new(limits),
            tables,
        }
    }

    /// A call begins, for a row of this time.
    pub fn begin(&mut self, at: Timestamp) {
        self.at = at;
    }

    /// It is over: its changes stay, or are taken back.
    pub fn end(&mut self, is_fine: bool) {
        if is_fine { self.state.keep() } else { self.state.take_back() }
    }

    /// What changed since the last time, to be stored.
    pub fn take_state(&mut self) -> Vec<StateRow> {
        self.state.take()
    }

    /// Takes back what was stored.
    pub fn load_state(&mut self, key: &[u8], value: &[u8]) -> bool {
        self.state.load(key, value)
    }

    pub fn state_bytes(&self) -> usize {
        self.state.bytes()
    }

    pub fn set_table(&mut self, name: &str, rows: &Arc<Vec<crate::value::Value>>) {
        self.tables.set(name, rows);
    }
}

/// A host function ends the call.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub failure: CallFailure,
    pub message: String,
}

fn refuse<T>(failure: CallFailure, message: String) -> wasmtime::Result<T> {
    Err(wasmtime::Error::new(Refusal { failure, message }))
}

/// What the present call was lent, if it was granted `grant`.
fn lent<'a>(store: &'a mut StoreContextMut<'_, instance::GuestState>, grant: Grant) -> wasmtime::Result<&'a mut Lent> {
    let word = grant.word();
    match store.data_mut().lent() {
        Some(lent) if lent.granted.grants.has(grant) => Ok(lent),
        Some(_) => refuse(
            CallFailure::Trap,
            format!("calls {PACKAGE}{word}, which is not granted; write `{}` for it", grant.line()),
        ),
        None => refuse(
            CallFailure::Trap,
            format!(
                "calls {PACKAGE}{word} before it is called itself; there is no row then: use it inside the function"
            ),
        ),
    }
}

/// Puts the functions of a grant's interface into a linker. They look at each call whether it was granted.
pub fn link(linker: &mut LinkerInstance<'_, instance::GuestState>, grant: Grant) -> wasmtime::Result<()> {
    match grant {
        Grant::Log => log::link(linker),
        Grant::Config => config::link(linker),
        Grant::Lookup => lookup::link(linker),
        Grant::State => state::link(linker),
        Grant::Clock => clock::link(linker),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_known_by_package_and_version() {
        assert_eq!(Grant::of_import("forebay:host/state@0.1.0"), Some(Grant::State));
        assert_eq!(Grant::of_import("forebay:host/log@0.1.12"), Some(Grant::Log));
        for other in [
            "forebay:host/state",
            "forebay:host/state@0.2.0",
            "forebay:host/state@0.1.",
            "forebay:host/http@0.1.0",
            "wasi:clocks/wall-clock@0.2.0",
        ] {
            assert_eq!(Grant::of_import(other), None, "{other}");
        }
    }

    #[test]
    fn the_lines_to_write_keep_what_is_there() {
        let grants = Grants { log: true, ..Grants::default() };
        let lines = grants.lines_for(&[Grant::State, Grant::Config]);
        assert_eq!(lines, "`imports = [\"log\", \"state\"]` and `config = { key = \"value\" }`");
        assert_eq!(grants.lines_for(&[Grant::Lookup]), "`lookup = [\"zones\"]`");
    }
}

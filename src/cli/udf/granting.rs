//! What a job would grant a function, as flags.
//!
//! In: `--import`, `--config`, `--reference`. Out: functions with these grants. Invariant: what is not granted is
//! refused as in a job, with the flags that grant it.

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use secrecy::SecretString;

use super::Failed;
use crate::udf::{FunctionBinding, Grant, Grants, Host, StateLimits, UdfError, UserFunctions as _, json};
use crate::value::Value;

/// What a job would grant the function.
#[derive(Debug, Args)]
pub struct Granting {
    /// Grant an import: log, state (empty, and forgotten afterwards) or clock; may be repeated
    #[arg(long = "import", value_name = "NAME")]
    pub imports: Vec<Import>,
    /// A setting of the function; may be repeated
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = setting)]
    pub settings: Vec<(String, String)>,
    /// Rows to look into: a JSON array, or one object a line; may be repeated
    #[arg(long = "reference", value_name = "NAME=FILE", value_parser = setting)]
    pub references: Vec<(String, String)>,
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

impl Granting {
    /// As the job file would grant it.
    pub(super) fn grants(&self) -> Grants {
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

    /// Instances for bindings that were granted so, with the tables to look into.
    pub(super) fn host(&self, bindings: &[FunctionBinding]) -> Result<Host, Failed> {
        let mut host = Host::new(bindings).map_err(|e| match e {
            UdfError::NotGranted { path, imports, .. } => Failed::Usage(not_granted(&path, &imports)),
            other => other.into(),
        })?;
        for (name, file) in &self.references {
            host.set_reference(name, &Arc::new(table(name, file)?));
        }
        Ok(host)
    }
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

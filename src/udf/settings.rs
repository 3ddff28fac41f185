//! The section of a WebAssembly function.
//!
//! In: `[functions.NAME]` with `type = "wasm"`. Out: [`WasmConfig`], checked. Invariant: a function gets nothing that
//! is not written there, and a secret is only referred to. Not here: loading the file.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use smol_str::SmolStr;
use toml::de::DeValue;

use super::{Grants, Limits, StateLimits, UdfError};
use crate::diagnostic::{Diagnostic, Span, suggest};
use crate::settings::{Secret, Section, may_be_secret};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// An exported function of a component or core module, as the job describes it.
#[derive(Clone, Debug)]
pub struct WasmConfig {
    pub component: PathBuf,
    /// `None`: the export that the function's own name finds.
    pub export: Option<String>,
    pub limits: Limits,
    pub grants: GrantedConfig,
}

/// What it may import. Nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantedConfig {
    pub log: bool,
    pub clock: bool,
    pub state: Option<StateLimits>,
    /// In the order of the file; `None` without the key.
    pub config: Option<Vec<(String, ConfigValue)>>,
    /// Names of reference inputs, and where they stand.
    pub lookup: Vec<(String, Span)>,
    /// `imports`, `config`, `lookup`: where each grant stands.
    pub spans: Vec<(&'static str, Span)>,
}

/// A setting of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigValue {
    Text(String),
    Secret(Secret),
}

impl WasmConfig {
    /// Reads and checks the section.
    pub fn read(section: &mut Section) -> Option<WasmConfig> {
        let component = section.required_file(
            "component",
            "write `component = \"udfs/create_array.wasm\"`; the path is relative to the job file",
        );
        let export = section.text("export").map(|text| text.value);
        let limits = Limits::default();
        let memory_bytes = bytes(section.size("memory", 64 * KIB, 4 * GIB, limits.memory_bytes as u64));
        let timeout = section.duration("timeout", Duration::from_millis(10), Duration::from_secs(60), limits.timeout);
        let result_bytes_max = bytes(section.size("result_bytes_max", KIB, 64 * MIB, limits.result_bytes_max as u64));
        let limits = Limits { memory_bytes, timeout, result_bytes_max, ..limits };
        let grants = grants(section);
        Some(WasmConfig { component: component?, export, limits, grants })
    }

    pub fn secrets(&self) -> Vec<&Secret> {
        let settings = self.grants.config.iter().flatten();
        settings
            .filter_map(|(_, value)| if let ConfigValue::Secret(secret) = value { Some(secret) } else { None })
            .collect()
    }
}

impl GrantedConfig {
    /// The same as a function is given it; secrets are read now.
    ///
    /// # Errors
    /// A secret cannot be read.
    pub fn grants(&self) -> Result<Grants, UdfError> {
        let value = |(key, value): &(String, ConfigValue)| match value {
            ConfigValue::Text(text) => Ok((key.clone(), SecretString::from(text.as_str()))),
            ConfigValue::Secret(secret) => match secret.read() {
                Ok(secret) => Ok((key.clone(), secret)),
                Err(error) => Err(UdfError::Config { key: key.clone(), reason: error.to_string(), help: error.help() }),
            },
        };
        Ok(Grants {
            log: self.log,
            clock: self.clock,
            state: self.state,
            config: self.config.as_ref().map(|config| config.iter().map(value).collect()).transpose()?,
            lookup: self.lookup.iter().map(|(name, _)| SmolStr::new(name)).collect(),
        })
    }
}

fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// The words of `imports`.
const IMPORTS: [&str; 3] = ["log", "state", "clock"];

/// `imports`, `config`, `lookup` and the limits of `state`.
fn grants(section: &mut Section) -> GrantedConfig {
    let mut grants = GrantedConfig::default();
    let mut has_state = false;
    for import in section.texts("imports").unwrap_or_default() {
        let granted = match import.value.as_str() {
            "log" => &mut grants.log,
            "clock" => &mut grants.clock,
            "state" => &mut has_state,
            other => {
                let help = match other {
                    "config" => "write `config = { key = \"value\" }` instead".to_owned(),
                    "lookup" => "write `lookup = [\"zones\"]` with the names of reference inputs instead".to_owned(),
                    other => match suggest(other, IMPORTS) {
                        Some(meant) => format!("did you mean \"{meant}\"?"),
                        None => {
                            "functions get nothing else of the machine: no files, no network, no clock but event time"
                                .to_owned()
                        }
                    },
                };
                let error = Diagnostic::error("this cannot be granted to a function", import.span);
                section.problems().push(error.label("expected \"log\", \"state\" or \"clock\"").help(help));
                continue;
            }
        };
        *granted = true;
        grants.spans.extend(IMPORTS.into_iter().find(|word| *word == import.value).map(|word| (word, import.span)));
    }
    let limits = StateLimits::default();
    let bytes_max = bytes(section.size("state_bytes_max", KIB, 64 * MIB, limits.bytes_max as u64));
    let key_bytes_max = bytes(section.size("state_key_bytes_max", 16, 64 * KIB, limits.key_bytes_max as u64));
    let is_stateless = !has_state && !section.is_wrong("imports");
    for key in ["state_bytes_max", "state_key_bytes_max"].into_iter().filter(|key| is_stateless && section.has(key)) {
        section.wrong(
            key,
            format!("`{key}` without `state`"),
            "limits what is not granted",
            "write `imports = [\"state\"]`, or leave it out",
        );
    }
    grants.state = has_state.then_some(StateLimits { bytes_max, key_bytes_max });
    grants.config = config(section);
    let is_lookup = section.has("lookup");
    grants.lookup =
        section.texts("lookup").unwrap_or_default().into_iter().map(|text| (text.value, text.span)).collect();
    if is_lookup && grants.lookup.is_empty() && !section.is_wrong("lookup") {
        section.wrong(
            "lookup",
            "`lookup` names no input",
            "expected names of reference inputs",
            "write `lookup = [\"zones\"]`, or leave it out",
        );
    }
    for (word, is_there) in [("config", grants.config.is_some()), ("lookup", is_lookup)] {
        grants.spans.extend(is_there.then(|| section.key_span(word)).flatten().map(|span| (word, span)));
    }
    grants
}

/// The table `config`: texts, numbers and truth values; what is secret by reference.
fn config(section: &mut Section) -> Option<Vec<(String, ConfigValue)>> {
    let (value, span) = section.get("config")?;
    let DeValue::Table(table) = value else {
        let error = Diagnostic::error("`config` has the wrong form", span).label("expected a table");
        section.problems().push(error.help("write `config = { key = \"value\" }`"));
        return None;
    };
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    let mut settings = Vec::new();
    for (name, value) in entries {
        let (name, span) = (name.get_ref().to_string(), Span::from(value.span()));
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => number.to_string(),
                Err(_) => number.as_str().to_owned(),
            },
            DeValue::Float(number) => number.as_str().to_owned(),
            DeValue::Boolean(truth) => truth.to_string(),
            _ => {
                let error = Diagnostic::error("a setting has no text form", span)
                    .label("expected a text, a number, `true` or `false`");
                section
                    .problems()
                    .push(error.help("functions get settings as texts; write lists and tables as JSON text"));
                continue;
            }
        };
        let is_secret = may_be_secret(&name);
        settings.extend(match Secret::parse(&text, span, section.problems().folder()) {
            Some(secret) => Some((name, ConfigValue::Secret(secret))),
            None if is_secret => {
                // what is masked lies between quotes, which a number has none of
                let is_quoted = matches!(value.get_ref(), DeValue::String(_));
                let hidden = if is_quoted { span } else { Span::new(span.start.saturating_sub(1), span.end + 1) };
                section.problems().mask(hidden);
                section.problems().refuse_secret(&name, span);
                None
            }
            None => Some((name, ConfigValue::Text(text))),
        });
    }
    Some(settings)
}

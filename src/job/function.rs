//! `[functions.NAME]`: components and endpoints that a query calls as `udf.NAME(…)`.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use toml::de::DeValue;

use super::OnError;
use super::address::{http_address, is_loopback};
use super::reader::Section;
use super::secret::Secret;
use crate::diagnostic::{Diagnostic, Span, suggest};
use crate::value::Type;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    pub name: String,
    /// `None`: the job's.
    pub on_error: Option<OnError>,
    pub kind: FunctionKind,
    /// Its name in the job file.
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum FunctionKind {
    Wasm(WasmFunction),
    AzureMl(Box<AzureMlFunction>),
}

/// An export of a WebAssembly component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WasmFunction {
    pub component: PathBuf,
    /// `None`: the export that the function's own name finds.
    pub export: Option<String>,
    /// Linear memory of one instance, in bytes. 32 MiB.
    pub memory: u64,
    /// One call. 100 ms; interruption ticks are 10 ms.
    pub timeout: Duration,
    /// 1 MiB.
    pub result_bytes_max: u64,
    pub grants: WasmGrants,
}

/// What it may import. Nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WasmGrants {
    pub log: bool,
    pub clock: bool,
    pub state: Option<GrantedState>,
    /// In the order of the file; `None` without the key.
    pub config: Option<Vec<(String, ConfigValue)>>,
    /// Names of reference inputs, and where they stand.
    pub lookup: Vec<(String, Span)>,
    /// `imports`, `config`, `lookup`: where each grant stands.
    pub spans: Vec<(&'static str, Span)>,
}

/// What a function may remember, for each statement that calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantedState {
    /// Keys and values, and 64 bytes an entry. 1 MiB.
    pub bytes_max: u64,
    /// One key. 256.
    pub key_bytes_max: u64,
}

/// A setting of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigValue {
    Text(String),
    Secret(Secret),
}

/// A scoring endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct AzureMlFunction {
    pub url: Url,
    pub key: Option<Secret>,
    /// `None`: `swagger.json` beside the score path.
    pub swagger_url: Option<Url>,
    /// Rows of a request, 1 to 10,000. 1,000.
    pub max_batch_count: usize,
    /// Bytes of a request's body. 1 MB.
    pub max_batch_bytes: usize,
    /// Requests at once at most; sending starts lower. 20.
    pub parallel_requests: usize,
    /// How long a row waits for others. 20 ms.
    pub linger: Duration,
    /// 10 s.
    pub request_timeout: Duration,
    pub mode: Mode,
    /// Certificates (PEM) to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Top-level properties of the body besides the rows, in the order of the file.
    pub constants: Vec<(String, serde_json::Value)>,
    pub nan: OnNan,
    /// The deployment that the header names, past the endpoint's traffic split.
    pub deployment: Option<String>,
    /// Written by hand instead of read from the swagger.
    pub signature: Option<ManualSignature>,
}

/// What happens when an endpoint refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Wait, isolate the bad row, go on.
    Edge,
    /// What Stream Analytics does: the job fails.
    Asa,
}

/// What becomes of a result that is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnNan {
    Null,
    DeadLetter,
}

/// The form of a request and of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManualSignature {
    /// Properties from the body's top to the rows: `["Inputs", "WebServiceInput0"]`.
    pub input_path: Vec<String>,
    pub input: InputShape,
    /// In order; for [`InputShape::Vector`] at most one. Empty for an array whose cells may be anything.
    pub columns: Vec<(String, ColumnType)>,
    /// Properties from the answer's top to the results; `None`: found by the usual names.
    pub output_path: Option<Vec<String>>,
}

/// A column's type; `None` is any.
pub type ColumnType = Option<Type>;

/// How rows stand in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputShape {
    /// A list of lists.
    Array,
    /// A list of objects.
    Records,
    /// A list of values.
    Vector,
    /// An object of `columns` and `data`.
    Split,
}

const COLUMN_TYPES: &[(&str, ColumnType)] = &[
    ("bigint", Some(Type::BigInt)),
    ("float", Some(Type::Float)),
    ("nvarchar(max)", Some(Type::Text)),
    ("datetime", Some(Type::DateTime)),
    ("bit", Some(Type::Bit)),
    ("record", Some(Type::Record)),
    ("array", Some(Type::Array)),
    ("any", None),
];

#[derive(Clone, Copy)]
enum Kind {
    Wasm,
    AzureMl,
}

pub(super) fn read(mut section: Section) -> Option<Function> {
    section.required_text("type", "write `type = \"wasm\"` or `type = \"azureml\"`")?;
    let kind = match section.optional_choice("type", &[("wasm", Kind::Wasm), ("azureml", Kind::AzureMl)])? {
        Kind::Wasm => wasm(&mut section).map(FunctionKind::Wasm),
        Kind::AzureMl => azureml(&mut section).map(|endpoint| FunctionKind::AzureMl(Box::new(endpoint))),
    };
    let on_error = section.optional_choice("on_error", OnError::WORDS);
    let (name, span) = (section.name(), section.span.unwrap_or_default());
    section.finish();
    Some(Function { name, on_error, kind: kind?, span })
}

fn wasm(section: &mut Section) -> Option<WasmFunction> {
    let component =
        section.required_file("component", "write `component = \"udfs/create_array.wasm\"`; the path is relative to the job file");
    let export = section.text("export").map(|text| text.value);
    let memory = section.size("memory", 64 * KIB, 4 * GIB, 32 * MIB);
    let timeout = section.duration("timeout", Duration::from_millis(10), Duration::from_secs(60), Duration::from_millis(100));
    let result_bytes_max = section.size("result_bytes_max", KIB, 64 * MIB, MIB);
    let grants = grants(section);
    Some(WasmFunction { component: component?, export, memory, timeout, result_bytes_max, grants })
}

/// The words of `imports`.
const IMPORTS: [&str; 3] = ["log", "state", "clock"];

/// `imports`, `config`, `lookup` and the limits of `state`.
fn grants(section: &mut Section) -> WasmGrants {
    let mut grants = WasmGrants::default();
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
                        None => "functions get nothing else of the machine: no files, no network, no clock but event time".to_owned(),
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
    let bytes_max = section.size("state_bytes_max", KIB, 64 * MIB, MIB);
    let key_bytes_max = section.size("state_key_bytes_max", 16, 64 * KIB, 256);
    for key in ["state_bytes_max", "state_key_bytes_max"].into_iter().filter(|key| !has_state && section.has(key)) {
        section.wrong(
            key,
            format!("`{key}` without `state`"),
            "limits what is not granted",
            "write `imports = [\"state\"]`, or leave it out",
        );
    }
    grants.state = has_state.then_some(GrantedState { bytes_max, key_bytes_max });
    grants.config = config(section);
    let is_lookup = section.has("lookup");
    grants.lookup = section.texts("lookup").unwrap_or_default().into_iter().map(|text| (text.value, text.span)).collect();
    if is_lookup && grants.lookup.is_empty() {
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

/// Parts of names under which people keep secrets.
const SECRET_NAMES: [&str; 7] = ["password", "passwd", "secret", "token", "apikey", "accesskey", "privatekey"];

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
                let error = Diagnostic::error("a setting has no text form", span).label("expected a text, a number, `true` or `false`");
                section.problems().push(error.help("functions get settings as texts; write lists and tables as JSON text"));
                continue;
            }
        };
        let letters: String = name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        let is_secret = letters == "key" || SECRET_NAMES.iter().any(|part| letters.contains(part));
        settings.extend(match Secret::parse(&text, span, &section.problems().folder) {
            Some(secret) => Some((name, ConfigValue::Secret(secret))),
            None if is_secret => {
                // what is masked lies between quotes, which a number has none of
                let is_quoted = matches!(value.get_ref(), DeValue::String(_));
                section.problems().mask(if is_quoted { span } else { Span::new(span.start.saturating_sub(1), span.end + 1) });
                let error = Diagnostic::error(format!("`{name}` is written into the job file"), span)
                    .label("expected `env:NAME`, `file:PATH` or `credential:NAME`")
                    .help(format!("put the secret into an environment variable and write `{name} = \"env:NAME\"`"));
                section.problems().push(error.note("job files are copied and logged; secrets are only referred to"));
                None
            }
            None => Some((name, ConfigValue::Text(text))),
        });
    }
    Some(settings)
}

fn azureml(section: &mut Section) -> Option<AzureMlFunction> {
    let url = section.required_text("url", "write `url = \"http://127.0.0.1:5001/score\"`").and_then(|text| http_address(section, &text));
    let key = section.secret("key");
    let swagger_url = section.text("swagger_url").and_then(|text| http_address(section, &text));
    // the wire has one order so far; the word is read so that a file that asks for another is not misunderstood
    section.choice("order", &[("stream", ())], ());
    let deployment = section.text("deployment");
    if let Some(name) = deployment.as_ref().filter(|name| !name.value.chars().all(|c| c.is_ascii_graphic())) {
        let error = Diagnostic::error("the deployment's name does not fit a header", name.span)
            .label("expected letters, digits and signs without blanks");
        section.problems().push(error.help("copy it from the endpoint's page in the studio"));
    }
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let endpoint = AzureMlFunction {
        key,
        swagger_url,
        max_batch_count: count(section.count("max_batch_count", 1, 10_000, 1_000)),
        max_batch_bytes: count(section.size("max_batch_bytes", KIB, 64 * MIB, 1_000_000)),
        parallel_requests: count(section.count("parallel_requests", 1, 256, 20)),
        linger: section.duration("linger", Duration::ZERO, Duration::from_secs(10), Duration::from_millis(20)),
        request_timeout: section.duration("request_timeout", Duration::from_millis(10), Duration::from_secs(600), Duration::from_secs(10)),
        mode: section.choice("mode", &[("edge", Mode::Edge), ("asa", Mode::Asa)], Mode::Edge),
        ca_file: section.file("ca_file"),
        constants: constants(section),
        nan: section.choice("nan", &[("null", OnNan::Null), ("dead-letter", OnNan::DeadLetter)], OnNan::Null),
        deployment: deployment.map(|name| name.value),
        signature: signature(section),
        url: url?,
    };
    let is_open = endpoint.url.scheme() == "http" && !endpoint.url.host_str().is_some_and(is_loopback);
    if endpoint.key.is_some() && is_open {
        let warning = Diagnostic::warning("the key crosses the network unencrypted", section.key_span("url")).label("no TLS");
        section.problems().push(warning.help("write the url with `https://`"));
    }
    if endpoint.ca_file.is_some() && endpoint.url.scheme() == "http" {
        section.wrong("ca_file", "`ca_file` without TLS", "has no use with `http://`", "write the url with `https://`");
    }
    Some(endpoint)
}

/// The table `constants`, as JSON.
fn constants(section: &mut Section) -> Vec<(String, serde_json::Value)> {
    let Some((value, span)) = section.get("constants") else { return Vec::new() };
    let DeValue::Table(table) = value else {
        let error = Diagnostic::error("`constants` has the wrong form", span).label("expected a table");
        section.problems().push(error.help("write `constants = { method = \"predict\" }`"));
        return Vec::new();
    };
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    let json = |value: &toml::Spanned<DeValue>| {
        json(value.get_ref()).map_err(|why| {
            let error = Diagnostic::error("a constant has no JSON form", Span::from(value.span())).label(why);
            section.problems().push(error.help("write a text, a number, `true`, `false`, a list or a table"));
        })
    };
    entries.into_iter().filter_map(|(name, value)| Some((name.get_ref().to_string(), json(value).ok()?))).collect()
}

fn json(value: &DeValue) -> Result<serde_json::Value, &'static str> {
    Ok(match value {
        DeValue::String(text) => serde_json::Value::from(text.as_ref()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).map_err(|_| "beyond 64 bits")?.into(),
        DeValue::Float(number) => {
            let number = number.as_str().parse::<f64>().ok().and_then(serde_json::Number::from_f64);
            serde_json::Value::Number(number.ok_or("no finite number")?)
        }
        DeValue::Boolean(truth) => (*truth).into(),
        DeValue::Datetime(_) => return Err("dates are texts in JSON"),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect::<Result<Vec<_>, _>>()?.into(),
        DeValue::Table(table) => {
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by_key(|(name, _)| name.span().start);
            let fields = entries.into_iter().map(|(name, value)| Ok((name.get_ref().to_string(), json(value.get_ref())?)));
            serde_json::Value::Object(fields.collect::<Result<_, &'static str>>()?)
        }
    })
}

/// `input_kind`, `input_path`, `columns`, `output_path`.
fn signature(section: &mut Section) -> Option<ManualSignature> {
    let words =
        [("array", InputShape::Array), ("records", InputShape::Records), ("vector", InputShape::Vector), ("split", InputShape::Split)];
    let others = ["input_path", "columns", "output_path"].into_iter().find(|key| section.has(key));
    let is_given = section.has("input_kind");
    let kind = section.optional_choice("input_kind", &words);
    let input_path = path(section, "input_path").unwrap_or_else(|| vec!["data".to_string()]);
    let columns = columns(section);
    let output_path = path(section, "output_path");
    if let Some(key) = others.filter(|_| !is_given) {
        let title = format!("`{key}` without `input_kind`");
        section.wrong(key, title, "half a signature", "write `input_kind = \"array\"`, or leave the signature to the endpoint's swagger");
        return None;
    }
    let input = kind?;
    let missing = columns.is_empty() && matches!(input, InputShape::Records | InputShape::Split);
    if missing && !section.has("columns") {
        section.wrong(
            "input_kind",
            "the columns are missing",
            "rows of this kind have named columns",
            "write `columns = [{ name = \"distance\", type = \"float\" }]`",
        );
    } else if columns.len() > 1 && input == InputShape::Vector {
        section.wrong("columns", "a vector has one column", "expected one", "write `input_kind = \"array\"` for rows of several values");
    }
    Some(ManualSignature { input_path, input, columns, output_path })
}

/// `"Inputs.data"` or `["Inputs", "data"]`.
fn path(section: &mut Section, key: &str) -> Option<Vec<String>> {
    let parts: Vec<String> = match section.get(key)?.0 {
        DeValue::String(text) => text.split('.').map(str::to_string).collect(),
        _ => section.texts(key)?.into_iter().map(|part| part.value).collect(),
    };
    if parts.is_empty() || parts.iter().any(String::is_empty) {
        section.wrong(
            key,
            format!("`{key}` has an empty part"),
            "expected names",
            format!("write `{key} = \"Inputs.data\"`; names with points stand in a list"),
        );
        return None;
    }
    Some(parts)
}

fn columns(section: &mut Section) -> Vec<(String, ColumnType)> {
    const FORM: &str = "write `columns = [{ name = \"distance\", type = \"float\" }]`";
    let Some((value, span)) = section.get("columns") else { return Vec::new() };
    let DeValue::Array(items) = value else {
        section.problems().push(Diagnostic::error("`columns` has the wrong form", span).label("expected a list of tables").help(FORM));
        return Vec::new();
    };
    let mut columns: Vec<(String, ColumnType)> = Vec::new();
    for item in items.iter() {
        let DeValue::Table(table) = item.get_ref() else {
            section.problems().push(
                Diagnostic::error("a column has the wrong form", Span::from(item.span())).label("expected `{ name, type }`").help(FORM),
            );
            continue;
        };
        let mut column = section.inner("columns", table);
        column.span = Some(Span::from(item.span()));
        let name = column.required_text("name", FORM);
        let ty = column.required_text("type", FORM).and_then(|text| {
            let found = COLUMN_TYPES.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text.value));
            if found.is_none() {
                let words: Vec<&str> = COLUMN_TYPES.iter().map(|(word, _)| *word).collect();
                let error = Diagnostic::error("this is no type of a column", text.span).label("expected a type of the query language");
                let meant = suggest(&text.value, words.iter().copied());
                column.problems().push(
                    error.help(meant.map_or(format!("the types are {}", words.join(", ")), |meant| format!("did you mean \"{meant}\"?"))),
                );
            }
            found.map(|(_, ty)| *ty)
        });
        column.finish();
        let (Some(name), Some(ty)) = (name, ty) else { continue };
        if columns.iter().any(|(other, _)| *other == name.value) {
            section.problems().push(Diagnostic::error("two columns of the same name", name.span).label("a row has it twice"));
        }
        columns.push((name.value, ty));
    }
    columns
}

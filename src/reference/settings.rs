//! The section of a table that streams are joined with.
//!
//! In: `[inputs.NAME]` with `type = "reference"`. Out: [`ReferenceInput`], checked. Invariant: a table comes from a
//! file or from an address. Not here: loading it.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use crate::decode;
use crate::diagnostic::Diagnostic;
use crate::settings::address::{self, refuse_open_secret};
use crate::settings::{Secret, Section};
use crate::tls::TlsFiles;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The longest time between two looks: what is older is hardly reference data of a running process.
const RELOAD_MAX: Duration = Duration::from_secs(366 * 86_400);
/// How often an address is asked when the job does not say.
const RELOAD_HTTP: Duration = Duration::from_secs(600);

/// A table that is given as a whole and replaced as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceInput {
    pub place: ReferencePlace,
    pub format: ReferenceFormat,
    /// `None`: a file that is read again only when it changes.
    pub reload: Option<Duration>,
    /// Of the file or the answer, unpacked. 16 MiB: in memory a table takes several times its bytes.
    pub bytes_max: usize,
    /// 100,000.
    pub rows_max: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ReferencePlace {
    /// Need not exist yet.
    File(PathBuf),
    Http(Box<ReferenceAddress>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceAddress {
    pub url: Url,
    pub key: Option<Secret>,
    /// The header that carries the key as it is; `None`: `Authorization: Bearer KEY`.
    pub key_header: Option<String>,
    /// Empty without TLS.
    pub tls: TlsFiles,
    /// Of a whole request. 30 s.
    pub timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceFormat {
    /// An array of objects, or one object a line.
    Json,
    /// A line of names, then lines of texts.
    Csv { delimiter: u8 },
}

#[derive(Clone, Copy)]
enum FormatWord {
    Json,
    Csv,
}

/// Keys that only an address has.
const HTTP_KEYS: [&str; 7] = ["key", "key_header", "ca_file", "cert_file", "key_file", "timeout", "allow_plain_http"];

impl ReferenceInput {
    pub fn secrets(&self) -> Vec<&Secret> {
        match &self.place {
            ReferencePlace::File(_) => Vec::new(),
            ReferencePlace::Http(address) => address.key.iter().collect(),
        }
    }
}

/// Reads and checks the section.
pub fn read(section: &mut Section) -> Option<ReferenceInput> {
    let place = place(section);
    let format = format(section);
    let help = "leave it out and an address is asked every \"10m\", a file read when it changes";
    let reload = section.optional_duration("reload", Duration::from_secs(1), RELOAD_MAX, help);
    let bytes_max = section.size("bytes_max", KIB, 256 * MIB, 16 * MIB);
    let rows_max = section.count("rows_max", 1, 10_000_000, 100_000);
    let place = place?;
    Some(ReferenceInput {
        reload: reload.or(matches!(place, ReferencePlace::Http(_)).then_some(RELOAD_HTTP)),
        place,
        format: format?,
        bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
        rows_max: usize::try_from(rows_max).unwrap_or(usize::MAX),
    })
}

fn place(section: &mut Section) -> Option<ReferencePlace> {
    let path = section.path("path");
    let http = http(section);
    let help = "write `path = \"zones.json\"` for a file, or `url = \"https://host/zones.json\"`";
    match (section.has("path"), section.has("url")) {
        (true, true) => {
            section.wrong("url", "reference data has `path` or `url`, not both", "a second place", help);
            None
        }
        (false, false) => {
            section.missing("path", help);
            None
        }
        (true, false) => {
            if let Some(key) = HTTP_KEYS.into_iter().find(|key| section.has(key)) {
                section.wrong(
                    key,
                    format!("`{key}` has no use for a file"),
                    "only an address has it",
                    "leave it out, or write `url` in place of `path`",
                );
            }
            path.map(ReferencePlace::File)
        }
        (false, true) => http.map(|address| ReferencePlace::Http(Box::new(address))),
    }
}

fn http(section: &mut Section) -> Option<ReferenceAddress> {
    let url = section.text("url").and_then(|text| address::http(section, &text));
    let key = section.key("key");
    let key_header = section.text("key_header");
    let tls = TlsFiles::read(section);
    let timeout =
        section.duration("timeout", Duration::from_millis(100), Duration::from_secs(600), Duration::from_secs(30));
    if let Some(name) = &key_header {
        if reqwest::header::HeaderName::from_bytes(name.value.as_bytes()).is_err() {
            let error =
                Diagnostic::error("this is no name of a header", name.span).label("expected letters, digits and `-`");
            section
                .problems()
                .push(error.help("write `key_header = \"x-api-key\"`, or leave it out for `Authorization: Bearer`"));
        } else if !section.has("key") {
            let help = "write `key = \"env:NAME\"`, or leave `key_header` out";
            section.wrong("key_header", "`key_header` without `key`", "there is nothing to send in it", help);
        }
    }
    refuse_open_secret(section, url.as_ref(), key.is_some());
    let url = url?;
    match url.scheme() {
        "http" => TlsFiles::refuse(section, "http://", "https://"),
        _ => tls.examine(section),
    }
    Some(ReferenceAddress { url, key, key_header: key_header.map(|name| name.value), tls, timeout })
}

fn format(section: &mut Section) -> Option<ReferenceFormat> {
    let word = section.choice("format", &[("json", FormatWord::Json), ("csv", FormatWord::Csv)], FormatWord::Json);
    match word {
        FormatWord::Csv => Some(ReferenceFormat::Csv { delimiter: decode::delimiter(section)? }),
        FormatWord::Json if section.has("delimiter") => {
            // asked for, so that it is no unknown key
            section.text("delimiter");
            if !section.is_wrong("format") {
                section.wrong(
                    "delimiter",
                    "`delimiter` has no use for JSON",
                    "only CSV has it",
                    "write `format = \"csv\"`, or leave it out",
                );
            }
            None
        }
        FormatWord::Json => Some(ReferenceFormat::Json),
    }
}

//! The section of an HTTP output.
//!
//! In: `[outputs.NAME]` with `type = "http"`. Out: [`HttpOutputConfig`], checked. Invariant: a secret is only referred
//! to, and no header is one that HTTP itself sets. Not here: sending.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Method, Url};
use toml::de::DeValue;

use super::HttpOutput;
use super::answer::Success;
use crate::diagnostic::{Diagnostic, Span};
use crate::output::body::{BatchPolicy, Body};
use crate::output::{Fill, Output, OutputSettings, Site, ToldColumns};
use crate::settings::address::{self, refuse_open_secret};
use crate::settings::{Secret, Section, may_be_secret};
use crate::tls::TlsFiles;

const HEADERS_FORM: &str = "write `headers = { x-site = \"north\" }`";
/// Headers that the message itself decides.
const RESERVED: [&str; 6] =
    ["host", "content-length", "content-encoding", "transfer-encoding", "connection", "idempotency-key"];

/// The value of a header.
#[derive(Clone, Debug, PartialEq)]
pub enum GivenHeader {
    Text(HeaderValue),
    Secret(Secret),
}

/// An HTTP output, as the job describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpOutputConfig {
    pub url: Url,
    pub method: Method,
    pub body: Body,
    pub batch: BatchPolicy,
    /// In the order of the file.
    pub headers: Vec<(HeaderName, GivenHeader)>,
    pub key: Option<Secret>,
    /// The header that carries the key as it is; `None`: `Authorization: Bearer KEY`.
    pub key_header: Option<String>,
    pub gzip: bool,
    /// The codes that mean "taken".
    pub success: Success,
    /// Empty without TLS.
    pub tls: TlsFiles,
    /// Of a whole request.
    pub timeout: Duration,
    pub told: ToldColumns,
}

impl HttpOutputConfig {
    /// With the defaults: POST, arrays of at most 100 rows and 256 KiB.
    pub fn new(url: Url) -> HttpOutputConfig {
        HttpOutputConfig {
            url,
            method: Method::POST,
            body: Body::Array,
            batch: BatchPolicy { rows: 100, bytes: 256 << 10, time: Duration::ZERO },
            headers: Vec::new(),
            key: None,
            key_header: None,
            gzip: false,
            success: Success::default(),
            tls: TlsFiles::default(),
            timeout: Duration::from_secs(30),
            told: ToldColumns::default(),
        }
    }

    /// Reads and checks the section.
    pub fn read(section: &mut Section) -> Option<HttpOutputConfig> {
        let url = section
            .required_text("url", "write `url = \"https://host/rows\"`")
            .and_then(|text| address::http(section, &text));
        // a bad address does not keep the other keys from being read, with the same defaults
        let base = HttpOutputConfig::new(url.clone().or_else(|| Url::parse("http://localhost").ok())?);
        let methods = [("POST", "POST"), ("PUT", "PUT"), ("PATCH", "PATCH")];
        let method = section.choice("method", &methods, "POST");
        let body = Body::read(section, base.body);
        let batch = BatchPolicy::read(section, body, base.batch, "request");
        let headers = headers(section);
        let key = section.key("key");
        let key_header = key_header(section);
        let gzip = section.choice("compression", &[("none", false), ("gzip", true)], base.gzip);
        let success = success(section);
        let tls = TlsFiles::read(section);
        let timeout = section.duration("timeout", Duration::from_millis(100), Duration::from_secs(600), base.timeout);
        let told = ToldColumns::read(section);
        let has_secret = key.is_some() || headers.iter().any(|(_, value)| matches!(value, GivenHeader::Secret(_)));
        refuse_open_secret(section, url.as_ref(), has_secret);
        let url = url?;
        match url.scheme() {
            "http" => TlsFiles::refuse(section, "http://", "https://"),
            _ => tls.examine(section),
        }
        let method = Method::from_bytes(method.as_bytes()).ok()?;
        Some(HttpOutputConfig { url, method, body, batch, headers, key, key_header, gzip, success, tls, timeout, told })
    }
}

fn headers(section: &mut Section) -> Vec<(HeaderName, GivenHeader)> {
    let Some((value, span)) = section.get("headers") else { return Vec::new() };
    let DeValue::Table(table) = value else {
        let error = Diagnostic::error("`headers` has the wrong form", span).label("expected a table");
        section.problems().push(error.help(HEADERS_FORM));
        return Vec::new();
    };
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    let mut headers = Vec::new();
    for (name, value) in entries {
        let (at, span) = (Span::from(name.span()), Span::from(value.span()));
        let wrong = |at: Span, title: &str, label: &str, help: &str| {
            section.problems().push(Diagnostic::error(title, at).label(label).help(help));
        };
        let Ok(header) = HeaderName::from_bytes(name.get_ref().as_bytes()) else {
            wrong(at, "this is no name of a header", "expected letters, digits and `-`", HEADERS_FORM);
            continue;
        };
        if RESERVED.contains(&header.as_str()) {
            wrong(at, "this header is set with each request", "cannot be chosen", "leave it out");
            continue;
        }
        let DeValue::String(text) = value.get_ref() else {
            wrong(span, "the value of a header has the wrong form", "expected a text", HEADERS_FORM);
            continue;
        };
        if let Some(secret) = Secret::parse(text, span, section.problems().folder()) {
            headers.push((header, GivenHeader::Secret(secret.as_key())));
            continue;
        }
        if header == reqwest::header::AUTHORIZATION || may_be_secret(header.as_str()) {
            section.problems().refuse_secret(name.get_ref(), span);
            continue;
        }
        match HeaderValue::from_str(text) {
            Ok(value) => headers.push((header, GivenHeader::Text(value))),
            Err(_) => wrong(span, "a header cannot hold this", "expected text without line breaks", HEADERS_FORM),
        }
    }
    headers
}

fn key_header(section: &mut Section) -> Option<String> {
    let name = section.text("key_header")?;
    if HeaderName::from_bytes(name.value.as_bytes()).is_err() {
        let error =
            Diagnostic::error("this is no name of a header", name.span).label("expected letters, digits and `-`");
        section
            .problems()
            .push(error.help("write `key_header = \"x-functions-key\"`, or leave it out for `Authorization: Bearer`"));
    } else if !section.has("key") {
        let help = "write `key = \"env:NAME\"`, or leave `key_header` out";
        section.wrong("key_header", "`key_header` without `key`", "there is nothing to send in it", help);
    }
    Some(name.value)
}

fn success(section: &mut Section) -> Success {
    const FORM: &str = "write `success = [\"2xx\"]`, or codes such as \"409\"";
    if !section.has("success") {
        // asked for, so that it is listed among the known keys
        section.texts("success");
        return Success::default();
    }
    let words = section.required_texts("success", FORM);
    let mut success = Success::none();
    for word in words {
        if !success.add(&word.value) {
            let error = Diagnostic::error("this is no code of an answer", word.span)
                .label("expected \"2xx\", or a code from 200 to 499 that does not ask for another try");
            section.problems().push(error.help(FORM));
        }
    }
    success
}

/// Reads the section for the table of outputs.
pub(in crate::output) fn read(section: &mut Section) -> Option<Arc<dyn OutputSettings>> {
    HttpOutputConfig::read(section).map(|config| Arc::new(config) as Arc<dyn OutputSettings>)
}

impl OutputSettings for HttpOutputConfig {
    fn told(&self) -> &ToldColumns {
        &self.told
    }

    fn secrets(&self) -> Vec<&Secret> {
        let headers = self
            .headers
            .iter()
            .filter_map(|(_, value)| if let GivenHeader::Secret(secret) = value { Some(secret) } else { None });
        headers.chain(&self.key).collect()
    }

    fn tls(&self) -> Option<&TlsFiles> {
        Some(&self.tls)
    }

    fn attempt_max(&self) -> Duration {
        self.timeout
    }

    fn fill(&self) -> Fill {
        self.batch.fill()
    }

    fn build(&self, site: Site<'_>) -> Result<Box<dyn Output>, String> {
        Ok(Box::new(HttpOutput::new(self.clone(), site.stats)?))
    }
}

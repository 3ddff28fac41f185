//! Speaking to the endpoint.
//!
//! In: a body, or the wish for the description. Out: the answer's facts. Invariant: nothing is followed, retried or
//! decided here; an answer is read up to a limit that follows from the rows, and the key is in nothing that is passed
//! on. Not here: what an answer means.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, DATE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Response, Url, redirect};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;

use crate::diagnostic::counted;
use crate::http::{self, ClientError, ClientSettings, Scrub, http_date, read, read_start, retry_after};
use crate::settings::Secret;
use crate::settings::address::masked;
use crate::time::{Clock, task_now, task_since};
use crate::tls::{self, TlsFiles};

use super::desk::{Answer, Request};
use super::dialect::Dialect;
use super::policy::{Answered, Details, HttpStatus};
use super::{ScoreConfig, StartError, clipped};
use crate::blocking::{INLINE_BYTES, run_blocking};

/// Longest answer that is read: 3 KB a row for the largest batch there is.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// What an answer may have beside its results.
const ANSWER_BYTES_BESIDE: usize = 256 << 10;
/// How much of an answer is read that holds no results.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// Longest description: real swagger documents have some 10 KB, and each byte of one may take 16 to hold.
const DESCRIPTION_BYTES_MAX: usize = 1 << 20;
/// How much of an error's body is kept.
const TEXT_MAX: usize = 4096;
/// The http client of one endpoint.
#[derive(Clone, Debug)]
pub(super) struct EndpointClient {
    http: reqwest::Client,
    pub dialect: Arc<dyn Dialect>,
    score: Url,
    /// Where the endpoint may describe itself.
    descriptions: Vec<Url>,
    timeout: Duration,
    max_result_bytes: usize,
    tls: TlsFiles,
    connect_timeout: Duration,
    /// The secrets in its addresses.
    scrub: Scrub,
}

/// What asking for the description gave.
#[derive(Debug, PartialEq)]
pub enum Fetched {
    Document(String),
    /// The endpoint has none.
    Absent,
}

/// Why there is no description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undescribed {
    pub outcome: Answered,
    pub why: String,
}

impl EndpointClient {
    pub fn new(config: &ScoreConfig) -> Result<EndpointClient, StartError> {
        let (score, dialect) = (config.url.clone(), config.dialect.clone());
        let descriptions = dialect.descriptions(&score);
        let settings = ClientSettings {
            connect_timeout: config.timing.connect_timeout,
            idle_connections: config.parallel_requests.max(1) as usize,
            tls: &config.tls,
            is_plain: descriptions.iter().chain([&score]).all(|url| url.scheme() == "http"),
            redirects: redirect::Policy::none(),
        };
        let http = http::client(settings).map_err(|error| match error {
            ClientError::Tls(why) => StartError::Tls { name: config.name.clone(), why },
            ClientError::Client(why) => StartError::Client { name: config.name.clone(), why: clipped(&why, TEXT_MAX) },
        })?;
        let mut scrub = Scrub::of(&score);
        descriptions.iter().for_each(|url| scrub.add_of(url));
        Ok(EndpointClient {
            http,
            dialect,
            score,
            descriptions,
            scrub,
            max_result_bytes: config.max_result_bytes,
            connect_timeout: config.timing.connect_timeout,
            timeout: config.request_timeout,
            tls: config.tls.clone(),
        })
    }

    /// Sends a request and reads the answer, within the time limit.
    pub async fn score(&self, request: Request, key: Option<SecretString>) -> (u64, Answer) {
        let (started, id) = (task_now(), request.id);
        let mut answer = match tokio::time::timeout(self.timeout, self.exchange(request, key)).await {
            Ok(answer) => answer,
            Err(_) => faulted(Answered::TimedOut, format!("no answer within {:?}", self.timeout), String::new()),
        };
        answer.details.took = task_since(started);
        (id, answer)
    }

    async fn exchange(&self, request: Request, key: Option<SecretString>) -> Answer {
        let (our_id, scrub) = (new_request_id(), self.scrub(key.as_ref()));
        let mut call = self.http.post(self.score.clone()).headers(self.dialect.headers(&our_id)).body(request.body);
        if let Some((name, value)) = key.as_ref().and_then(|key| self.dialect.authorization(key.expose_secret())) {
            call = call.header(name, value);
        }
        let response = match call.send().await {
            Ok(response) => response,
            Err(error) => return faulted(self.fault(&error), self.problem(error, &scrub), our_id),
        };
        let status = self.dialect.status(response.status().as_u16(), response.headers());
        let mut details = self.details_of(&response, status, our_id);
        details.request_id = scrub.text(details.request_id);
        let unusable = |outcome: Answered, text: &str, mut details: Details| {
            details.text = clipped(&scrub.text(text.to_owned()), TEXT_MAX);
            Answer { outcome, values: Vec::new(), details }
        };
        let interloper = Interloper::of(&self.score, &response);
        let max = match status.code {
            200 => self.answer_bytes_max(request.rows),
            _ => ERROR_BYTES_MAX,
        };
        let read = match status.code {
            200 => read(response, max).await,
            _ => read_start(response, max).await.map(Some),
        };
        let mut body = match read {
            Ok(Some(body)) => body,
            Ok(None) => {
                let text = format!(
                    "the answer is longer than {max} bytes, the most for {}: if its results are meant to be so long, \
                     raise `max_result_bytes`",
                    counted(request.rows, "row")
                );
                return unusable(Answered::BadResponse, &text, details);
            }
            Err(error) => return faulted(self.fault(&error), self.problem(error, &scrub), details.request_id),
        };
        if let Some(text) = interloper.portal(&body) {
            return unusable(Answered::Portal, &text, details);
        }
        if status.code != 200 {
            return unusable(Answered::Status(status), &self.dialect.error_text(&body), details);
        }
        let is_small = body.len() <= INLINE_BYTES;
        let (dialect, hidden) = (self.dialect.clone(), scrub.clone());
        let mut read = move || {
            hidden.hide(&mut body);
            dialect.results(&body, request.rows, &request.results)
        };
        // a hop to another thread costs more than a small answer
        let results = if is_small { read() } else { run_blocking(read).await };
        match results {
            Ok(values) => Answer { outcome: Answered::Results, values, details },
            Err(bad) => unusable(Answered::BadResponse, &bad.to_string(), details),
        }
    }

    /// Most bytes of an answer for some rows.
    fn answer_bytes_max(&self, rows: usize) -> usize {
        rows.saturating_mul(self.max_result_bytes).saturating_add(ANSWER_BYTES_BESIDE).min(ANSWER_BYTES_MAX)
    }

    /// What must not be passed on of an answer to a request with this key.
    fn scrub(&self, key: Option<&SecretString>) -> Scrub {
        key.map_or_else(|| self.scrub.clone(), |key| self.scrub.with(key.expose_secret()))
    }

    fn details_of(&self, response: &Response, status: HttpStatus, our_id: String) -> Details {
        let headers = response.headers();
        // a server that splits values at commas sends a date as two headers
        let asked: Vec<&str> =
            headers.get_all(RETRY_AFTER).iter().filter_map(|value| value.to_str().ok()).map(str::trim).collect();
        let now = || header(headers, DATE.as_str()).and_then(http_date).unwrap_or_else(|| Clock::Real.now());
        Details {
            status: Some(status.code),
            model_status: status.model,
            text: String::new(),
            retry_after: (!asked.is_empty()).then(|| retry_after(&asked.join(", "), now())).flatten(),
            request_id: self.dialect.request_id(headers).map_or(our_id, |id| clipped(id, 100)),
            took: Duration::ZERO,
        }
    }

    /// Which kind of failure an error without a status is.
    fn fault(&self, error: &reqwest::Error) -> Answered {
        if let Some((mistrust, _)) = tls::mistrust(error) {
            return Answered::BadCertificate(mistrust);
        }
        match tls::alert(error).and_then(|alert| self.tls.refusal(alert)) {
            Some(_) => Answered::CertificateRefused,
            None if error.is_connect() || error.is_dns() => Answered::Unreachable,
            None if error.is_timeout() => Answered::TimedOut,
            None => Answered::Closed,
        }
    }

    /// An error with its causes, clipped.
    fn problem(&self, error: reqwest::Error, scrub: &Scrub) -> String {
        clipped(&scrub.text(http::problem(error, &self.tls)), TEXT_MAX)
    }

    /// Asks for the endpoint's description, at the first place that has one.
    pub async fn description(&self, key: Option<SecretString>) -> Result<Fetched, Undescribed> {
        let scrub = self.scrub(key.as_ref());
        let unanswered =
            |error: reqwest::Error| Undescribed { outcome: self.fault(&error), why: self.problem(error, &scrub) };
        let unreadable = |why: String| Undescribed { outcome: Answered::BadResponse, why: scrub.text(why) };
        let not_it = |why: String| Undescribed { outcome: Answered::Portal, why: scrub.text(why) };
        for url in &self.descriptions {
            let shown = masked(url);
            let mut call = self.http.get(url.clone()).header(ACCEPT, "application/json").timeout(self.timeout);
            if let Some((name, value)) = key.as_ref().and_then(|key| self.dialect.authorization(key.expose_secret())) {
                call = call.header(name, value);
            }
            let response = call.send().await.map_err(unanswered)?;
            let status = response.status().as_u16();
            let interloper = Interloper::of(url, &response);
            if matches!(status, 400 | 404 | 405 | 410 | 501) {
                continue;
            }
            if status != 200 {
                if let Some(portal) = interloper.portal(b"") {
                    return Err(not_it(portal));
                }
                let outcome = Answered::Status(HttpStatus { code: status, model: None, function_failed: false });
                return Err(Undescribed { outcome, why: scrub.text(format!("{shown} answered {status}")) });
            }
            let too_long = || {
                unreadable(format!(
                    "{shown} is longer than {DESCRIPTION_BYTES_MAX} bytes, so it is no description: set `swagger_url`"
                ))
            };
            let body = read(response, DESCRIPTION_BYTES_MAX).await.map_err(unanswered)?;
            let mut body = body.ok_or_else(too_long)?;
            if let Some(portal) = interloper.portal(&body) {
                return Err(not_it(portal));
            }
            scrub.hide(&mut body);
            return String::from_utf8(body)
                .map(Fetched::Document)
                .map_err(|_| unreadable(format!("{shown} is not UTF-8, so it is no description: set `swagger_url`")));
        }
        Ok(Fetched::Absent)
    }

    /// Whether a connection to the endpoint comes about: no request, no key, no handshake of TLS. It takes as long as a
    /// request's may, and goes to all addresses of the name at once: whatever a request reaches is heard.
    pub async fn knock(&self) -> bool {
        let Some(host) = self.score.host_str() else { return false };
        // an address of version 6 stands in brackets in a URL
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = self.score.port_or_known_default().unwrap_or(443);
        let connecting = async {
            let mut tries = JoinSet::new();
            for address in lookup_host((host, port)).await.into_iter().flatten() {
                tries.spawn(TcpStream::connect(address));
            }
            while let Some(tried) = tries.join_next().await {
                if matches!(tried, Ok(Ok(_))) {
                    return true;
                }
            }
            false
        };
        tokio::time::timeout(self.connect_timeout, connecting).await.unwrap_or(false)
    }

    /// Reads a key; one that cannot stand in a header is refused here.
    pub fn read_key(&self, secret: &Secret) -> Result<SecretString, String> {
        let key = secret.read().map_err(|e| format!("{e}; {}", e.help()))?;
        let key = SecretString::from(key.expose_secret().trim().to_string());
        match self.dialect.authorization(key.expose_secret()) {
            Some(_) if !key.expose_secret().is_empty() => Ok(key),
            _ => Err("the key is empty or has characters that a header cannot hold".into()),
        }
    }
}

/// Asks once for an endpoint's signature, for `check`; `None` when the endpoint does not describe itself.
pub async fn fetch_signature(config: &ScoreConfig) -> Result<Option<super::EndpointSignature>, String> {
    let client = EndpointClient::new(config).map_err(|e| e.to_string())?;
    let key = config.key.as_ref().map(|secret| client.read_key(secret)).transpose()?;
    match client.description(key).await.map_err(|undescribed| undescribed.why)? {
        Fetched::Absent => Ok(None),
        Fetched::Document(text) => {
            let signature = config.dialect.signature(&text).map_err(|e| e.to_string())?;
            Ok(Some(signature.with_constants(&config.constants)))
        }
    }
}

/// A random id in UUID form: the front end takes no other characters and no more than 40 of them.
fn new_request_id() -> String {
    let (a, b) = (fastrand::u64(..), fastrand::u64(..));
    let variant = 0x8000 | (b >> 48) & 0x3fff;
    format!("{:08x}-{:04x}-4{:03x}-{variant:04x}-{:012x}", a >> 32, (a >> 16) & 0xffff, a & 0xfff, b & 0xffff_ffff_ffff)
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn faulted(outcome: Answered, text: String, request_id: String) -> Answer {
    Answer { outcome, values: Vec::new(), details: Details { text, request_id, ..Details::default() } }
}

/// Who may have answered in place of an endpoint.
struct Interloper {
    status: u16,
    is_html: bool,
    /// Another host to which an answer sends us.
    elsewhere: Option<String>,
}

impl Interloper {
    fn of(asked: &Url, response: &Response) -> Interloper {
        let headers = response.headers();
        let kind = header(headers, CONTENT_TYPE.as_str()).unwrap_or_default();
        let is_html = kind.trim_start().get(..9).is_some_and(|start| start.eq_ignore_ascii_case("text/html"));
        let elsewhere = response
            .status()
            .is_redirection()
            .then(|| asked.join(header(headers, LOCATION.as_str())?).ok())
            .flatten()
            .filter(|to| to.host_str() != asked.host_str())
            .and_then(|to| to.host_str().map(str::to_owned));
        Interloper { status: response.status().as_u16(), is_html, elsewhere }
    }

    /// Why this comes from somebody else; `None` when it may well be the endpoint's.
    fn portal(&self, body: &[u8]) -> Option<String> {
        const WHO: &str = "a captive portal or a proxy's login page between the gateway and the endpoint";
        let remedy = "log in there, or have the gateway's link let this address through; rows wait";
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        let is_page = self.is_html && body.trim_ascii_start().starts_with(b"<");
        match (self.status, &self.elsewhere) {
            (511, _) => Some(format!("the network wants a login (511), not the endpoint: {WHO}: {remedy}")),
            (200, _) if is_page => Some(format!("HTML instead of JSON: {WHO}: {remedy}")),
            (_, Some(host)) => Some(format!("a redirect to {host} instead of an answer: {WHO}: {remedy}")),
            _ => None,
        }
    }
}

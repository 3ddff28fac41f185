//! Speaking to the endpoint.
//!
//! In: a body, or the wish for the description. Out: the answer's facts. Invariant: nothing is followed, retried or
//! decided here; an answer is read up to a limit, the key never appears in an error. Not here: what an answer means.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Response, Url, redirect};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpStream;

use crate::http::{self, ClientError, ClientSettings, http_date, read, retry_after};
use crate::settings::Secret;
use crate::time::{Clock, task_now, task_since};
use crate::tls::{self, TlsFiles};

use super::desk::{Answer, Request};
use super::dialect::Dialect;
use super::policy::{Answered, Details, HttpStatus};
use super::{ScoreConfig, StartError, clipped};
use crate::blocking::{INLINE_BYTES, run_blocking};

/// Longest answer that is read: 100 bytes a row for the largest batch there is, and room for wide results.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Longest description: real swagger documents have some 10 KB.
const DESCRIPTION_BYTES_MAX: usize = 4 << 20;
/// How long a knock may take: with the pause behind it a link that drops packets is found working within 5 s.
const KNOCK_TIME: Duration = Duration::from_secs(2);
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
    tls: TlsFiles,
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
        Ok(EndpointClient {
            http,
            dialect,
            score,
            descriptions,
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
        let our_id = new_request_id();
        let mut call = self.http.post(self.score.clone()).headers(self.dialect.headers(&our_id)).body(request.body);
        if let Some((name, value)) = key.as_ref().and_then(|key| self.dialect.authorization(key.expose_secret())) {
            call = call.header(name, value);
        }
        let response = match call.send().await {
            Ok(response) => response,
            Err(error) => return faulted(self.fault(&error), self.problem(error), our_id),
        };
        let status = self.dialect.status(response.status().as_u16(), response.headers());
        let mut details = self.details_of(&response, status, our_id);
        let body = match read(response, ANSWER_BYTES_MAX).await {
            Ok(Some(body)) => body,
            Ok(None) => {
                details.text = format!("the answer is longer than {ANSWER_BYTES_MAX} bytes");
                return Answer { outcome: Answered::BadResponse, values: Vec::new(), details };
            }
            Err(error) => return faulted(self.fault(&error), self.problem(error), details.request_id),
        };
        if status.code != 200 {
            details.text = clipped(&self.dialect.error_text(&body), TEXT_MAX);
            return Answer { outcome: Answered::Status(status), values: Vec::new(), details };
        }
        let results = if body.len() <= INLINE_BYTES {
            self.dialect.results(&body, request.rows, &request.results)
        } else {
            let dialect = self.dialect.clone();
            run_blocking(move || dialect.results(&body, request.rows, &request.results)).await
        };
        match results {
            Ok(values) => Answer { outcome: Answered::Results, values, details },
            Err(bad) => {
                details.text = bad.to_string();
                Answer { outcome: Answered::BadResponse, values: Vec::new(), details }
            }
        }
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
        match tls::alert(error).and_then(|alert| self.tls.refusal(alert)) {
            Some(_) => Answered::CertificateRefused,
            None => fault(error),
        }
    }

    /// An error with its causes, clipped.
    fn problem(&self, error: reqwest::Error) -> String {
        clipped(&http::problem(error, &self.tls), TEXT_MAX)
    }

    /// Asks for the endpoint's description, at the first place that has one.
    pub async fn description(&self, key: Option<SecretString>) -> Result<Fetched, Undescribed> {
        let shown = self.descriptions.first().map_or("", Url::as_str);
        let unanswered = |error: reqwest::Error| Undescribed { outcome: self.fault(&error), why: self.problem(error) };
        let unreadable = |why: String| Undescribed { outcome: Answered::BadResponse, why };
        for url in &self.descriptions {
            let mut call = self.http.get(url.clone()).header(ACCEPT, "application/json").timeout(self.timeout);
            if let Some((name, value)) = key.as_ref().and_then(|key| self.dialect.authorization(key.expose_secret())) {
                call = call.header(name, value);
            }
            let response = call.send().await.map_err(unanswered)?;
            let status = response.status().as_u16();
            if matches!(status, 400 | 404 | 405 | 410 | 501) {
                continue;
            }
            if status != 200 {
                let outcome = Answered::Status(HttpStatus { code: status, model: None, function_failed: false });
                return Err(Undescribed { outcome, why: format!("{shown} answered {status}") });
            }
            let body = read(response, DESCRIPTION_BYTES_MAX).await.map_err(unanswered)?;
            let too_long = || unreadable(format!("{shown} is longer than {DESCRIPTION_BYTES_MAX} bytes"));
            let text = String::from_utf8(body.ok_or_else(too_long)?);
            return text.map(Fetched::Document).map_err(|_| unreadable(format!("{shown} is not UTF-8")));
        }
        Ok(Fetched::Absent)
    }

    /// Whether a connection to the endpoint comes about: no request, no key, no handshake of TLS.
    pub async fn knock(&self) -> bool {
        let Some(host) = self.score.host_str() else { return false };
        // an address of version 6 stands in brackets in a URL
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = self.score.port_or_known_default().unwrap_or(443);
        let connecting = TcpStream::connect((host, port));
        tokio::time::timeout(KNOCK_TIME, connecting).await.is_ok_and(|connected| connected.is_ok())
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

/// Which kind of failure an error is that is no refusal of our certificate.
fn fault(error: &reqwest::Error) -> Answered {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(cause) = source {
        let inner = cause.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        let tls =
            cause.downcast_ref::<rustls::Error>().or_else(|| inner.and_then(|e| e.downcast_ref::<rustls::Error>()));
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return Answered::BadCertificate;
        }
        source = cause.source();
    }
    match error {
        e if e.is_connect() || e.is_dns() => Answered::Unreachable,
        e if e.is_timeout() => Answered::TimedOut,
        _ => Answered::Closed,
    }
}

//! Speaking to the endpoint.
//!
//! In: a body, or the wish for the swagger document. Out: the answer's facts. Invariant: nothing is followed, retried or
//! decided here; an answer is read up to a limit, the key never appears in an error. Not here: what an answer means.

use std::error::Error;
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Response, Url, redirect};
use secrecy::{ExposeSecret, SecretString};

use crate::http::{self, ClientError, Settings, read};
use crate::time::Clock;

use super::desk::{Answer, Request};
use super::policy::{Details, Outcome, Status};
use super::response::read_results;
use super::retry::{http_date, retry_after};
use super::{ConfigError, KeySource, ScoreConfig, clipped};

/// Longest answer that is read: 100 bytes a row for the largest batch there is, and room for wide results.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Longest swagger document: real ones have some 10 KB.
const SWAGGER_BYTES_MAX: usize = 4 << 20;
/// How much of an error's body is kept.
const TEXT_MAX: usize = 4096;
/// What `swagger.json` is asked for: version 2, which cannot describe every frame, then the later ones.
const SWAGGER_VERSIONS: [Option<&str>; 3] = [None, Some("3"), Some("3.1")];

/// The http client of one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    score: Url,
    swagger: Url,
    deployment: Option<HeaderValue>,
    timeout: Duration,
}

/// What fetching the swagger document gave.
#[derive(Debug, PartialEq)]
pub enum Fetched {
    Document(String),
    /// The endpoint has none.
    Absent,
}

impl Client {
    pub fn new(config: &ScoreConfig) -> Result<Client, ConfigError> {
        let bad_url = |url: &str| ConfigError::Url { name: config.name.clone(), url: url.into() };
        let parse = |url: &str| {
            Url::parse(url).ok().filter(|u| matches!(u.scheme(), "http" | "https") && u.host().is_some()).ok_or_else(|| bad_url(url))
        };
        let score = parse(&config.url)?;
        let swagger = match &config.swagger_url {
            Some(url) => parse(url)?,
            None => beside(&score).ok_or_else(|| bad_url(&config.url))?,
        };
        let settings = Settings {
            connect_timeout: config.timing.connect_timeout,
            idle_connections: config.parallel_requests.max(1) as usize,
            ca_file: config.ca_file.as_deref(),
            is_plain: score.scheme() == "http" && swagger.scheme() == "http",
            redirects: redirect::Policy::none(),
        };
        let http = http::client(settings).map_err(|error| match error {
            ClientError::CaFile { path, why } => ConfigError::CaFile { name: config.name.clone(), path, why: clipped(&why, TEXT_MAX) },
            ClientError::Client(why) => ConfigError::Client { name: config.name.clone(), why: clipped(&why, TEXT_MAX) },
        })?;
        let deployment = config.deployment.as_deref().and_then(|name| HeaderValue::from_str(name).ok());
        Ok(Client { http, score, swagger, deployment, timeout: config.request_timeout })
    }

    /// Sends a request and reads the answer, within the time limit. Gives the time it took.
    pub async fn score(&self, request: Request, key: Option<SecretString>) -> (u64, Answer, Duration) {
        let (started, id) = (Instant::now(), request.id);
        let answer = match tokio::time::timeout(self.timeout, self.exchange(request, key)).await {
            Ok(answer) => answer,
            Err(_) => faulted(Outcome::TimedOut, format!("no answer within {:?}", self.timeout), String::new()),
        };
        (id, answer, started.elapsed())
    }

    async fn exchange(&self, request: Request, key: Option<SecretString>) -> Answer {
        let our_id = new_request_id();
        let mut call = self
            .http
            .post(self.score.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .header("x-ms-client-request-id", our_id.as_str())
            .body(request.body);
        if let Some(deployment) = &self.deployment {
            call = call.header("azureml-model-deployment", deployment.clone());
        }
        if let Some(key) = key.as_ref().and_then(authorization) {
            call = call.header(AUTHORIZATION, key);
        }
        let response = match call.send().await {
            Ok(response) => response,
            Err(error) => return faulted(fault(&error), chain(&error.without_url()), our_id),
        };
        let mut details = details_of(&response, our_id);
        let code = response.status().as_u16();
        let function_failed = header(response.headers(), "x-ms-run-function-failed") == Some("True");
        let body = match read(response, ANSWER_BYTES_MAX).await {
            Ok(Some(body)) => body,
            Ok(None) => {
                details.text = format!("the answer is longer than {ANSWER_BYTES_MAX} bytes");
                return Answer { outcome: Outcome::BadResponse, values: Vec::new(), details };
            }
            Err(error) => return faulted(fault(&error), chain(&error.without_url()), details.request_id),
        };
        if code != 200 {
            details.text = message_of(&body);
            let status = Status { code, model: details.model_status, function_failed };
            return Answer { outcome: Outcome::Status(status), values: Vec::new(), details };
        }
        match read_results(&body, request.rows, &request.results) {
            Ok(values) => Answer { outcome: Outcome::Results, values, details },
            Err(bad) => {
                details.text = bad.to_string();
                Answer { outcome: Outcome::BadResponse, values: Vec::new(), details }
            }
        }
    }

    /// Fetches the swagger document, in the first version that the endpoint has.
    pub async fn swagger(&self, key: Option<SecretString>) -> Result<Fetched, String> {
        for version in SWAGGER_VERSIONS {
            let mut url = self.swagger.clone();
            if let Some(version) = version {
                url.query_pairs_mut().append_pair("version", version);
            }
            let mut call = self.http.get(url).header(ACCEPT, "application/json").timeout(self.timeout);
            if let Some(key) = key.as_ref().and_then(authorization) {
                call = call.header(AUTHORIZATION, key);
            }
            let response = call.send().await.map_err(|e| chain(&e.without_url()))?;
            let status = response.status().as_u16();
            if matches!(status, 400 | 404 | 405 | 410 | 501) {
                continue;
            }
            if status != 200 {
                return Err(format!("{} answered {status}", self.swagger));
            }
            let body = read(response, SWAGGER_BYTES_MAX).await.map_err(|e| chain(&e.without_url()))?;
            let body = body.ok_or_else(|| format!("{} is longer than {SWAGGER_BYTES_MAX} bytes", self.swagger))?;
            return String::from_utf8(body).map(Fetched::Document).map_err(|_| format!("{} is not UTF-8", self.swagger));
        }
        Ok(Fetched::Absent)
    }
}

/// Fetches and reads an endpoint's signature once, for `check`: the document's text and the signature, or `None` when the
/// endpoint has no document.
pub async fn fetch_swagger(config: &ScoreConfig) -> Result<Option<(String, super::Signature)>, String> {
    let client = Client::new(config).map_err(|e| e.to_string())?;
    let key = config.key.as_ref().map(read_key).transpose()?;
    match client.swagger(key).await? {
        Fetched::Absent => Ok(None),
        Fetched::Document(text) => {
            let signature = super::Signature::from_swagger(&text).map_err(|e| e.to_string())?;
            Ok(Some((text, signature.with_constants(&config.constants))))
        }
    }
}

/// Reads a key; one that cannot stand in a header is refused here.
pub(super) fn read_key(source: &KeySource) -> Result<SecretString, String> {
    let key = source()?;
    let key = SecretString::from(key.expose_secret().trim().to_string());
    match authorization(&key) {
        Some(_) if !key.expose_secret().is_empty() => Ok(key),
        _ => Err("the key is empty or has characters that a header cannot hold".into()),
    }
}

fn authorization(key: &SecretString) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The swagger address: the scoring address with its last path segment replaced, without its query.
fn beside(score: &Url) -> Option<Url> {
    let mut url = score.clone();
    url.set_query(None);
    url.set_fragment(None);
    let has_segment = url.path_segments()?.next_back().is_some_and(|last| !last.is_empty());
    let mut segments = url.path_segments_mut().ok()?;
    segments.pop_if_empty();
    if has_segment {
        segments.pop();
    }
    segments.push("swagger.json");
    drop(segments);
    Some(url)
}

/// A random id in UUID form: the front end takes no other characters and no more than 40 of them.
fn new_request_id() -> String {
    let (a, b) = (fastrand::u64(..), fastrand::u64(..));
    let variant = 0x8000 | (b >> 48) & 0x3fff;
    format!("{:08x}-{:04x}-4{:03x}-{variant:04x}-{:012x}", a >> 32, (a >> 16) & 0xffff, a & 0xfff, b & 0xffff_ffff_ffff)
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn details_of(response: &Response, our_id: String) -> Details {
    let headers = response.headers();
    // a server that splits values at commas sends a date as two headers
    let asked: Vec<&str> = headers.get_all(RETRY_AFTER).iter().filter_map(|value| value.to_str().ok()).map(str::trim).collect();
    let now = || header(headers, DATE.as_str()).and_then(http_date).unwrap_or_else(|| Clock::Real.now());
    Details {
        status: Some(response.status().as_u16()),
        model_status: header(headers, "ms-azureml-model-error-statuscode").and_then(|code| code.trim().parse().ok()),
        text: String::new(),
        retry_after: (!asked.is_empty()).then(|| retry_after(&asked.join(", "), now())).flatten(),
        request_id: header(headers, "x-ms-request-id").or(header(headers, "x-request-id")).map_or(our_id, |id| clipped(id, 100)),
    }
}

/// The text of an error: what the server calls `message`, else the start of the body.
fn message_of(body: &[u8]) -> String {
    let message = serde_json::from_slice::<serde_json::Value>(body).ok().and_then(|v| v.get("message")?.as_str().map(String::from));
    clipped(&message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned()), TEXT_MAX)
}

fn faulted(outcome: Outcome, text: String, request_id: String) -> Answer {
    Answer { outcome, values: Vec::new(), details: Details { text, request_id, ..Details::default() } }
}

/// Which kind of failure an error without a status is.
fn fault(error: &reqwest::Error) -> Outcome {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(cause) = source {
        let inner = cause.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        let tls = cause.downcast_ref::<rustls::Error>().or_else(|| inner.and_then(|e| e.downcast_ref::<rustls::Error>()));
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return Outcome::BadCertificate;
        }
        source = cause.source();
    }
    match error {
        e if e.is_connect() || e.is_dns() => Outcome::Unreachable,
        e if e.is_timeout() => Outcome::TimedOut,
        _ => Outcome::Closed,
    }
}

/// An error with its causes, clipped.
fn chain(error: &dyn Error) -> String {
    clipped(&http::chain(error), TEXT_MAX)
}

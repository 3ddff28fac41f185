//! The HTTP client, shared by endpoints, reference data and the HTTP output.
//!
//! In: what of a connection the caller decides. Out: a client, answers read up to a limit, errors in words. Invariant:
//! no proxy of the environment is used, and certificates come from the system or from the files that were named. Not
//! here: what is sent, what an answer means.

mod retry_after;
mod scrub;

use std::error::Error;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use reqwest::{Client, Response, redirect};
use secrecy::ExposeSecret;

use crate::settings::Secret;
use crate::tls::{self, TlsError, TlsFiles};

pub use retry_after::{http_date, retry_after};
pub use scrub::Scrub;

/// A connection that was not used for so long may have been dropped by something in between.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// What the caller decides.
#[derive(Debug)]
pub struct ClientSettings<'a> {
    pub connect_timeout: Duration,
    /// Connections kept open while nothing is sent.
    pub idle_connections: usize,
    pub tls: &'a TlsFiles,
    /// Only `http://` is ever asked for: a gateway without system certificates can do that too.
    pub is_plain: bool,
    pub redirects: redirect::Policy,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{0}")]
    Client(String),
}

/// Makes a client.
///
/// # Errors
/// When a file of TLS cannot be used, or the system has no certificates.
pub fn client(settings: ClientSettings<'_>) -> Result<Client, ClientError> {
    // the first caller in the process decides; all of ours ask for the same
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .redirect(settings.redirects)
        // an address may hold a signature, which is not for the host that it sends to
        .referer(false)
        .no_proxy()
        .connect_timeout(settings.connect_timeout)
        .pool_idle_timeout(IDLE_MAX)
        .pool_max_idle_per_host(settings.idle_connections)
        .user_agent(concat!("forebay/", env!("CARGO_PKG_VERSION")));
    builder = match settings.is_plain && settings.tls.is_empty() {
        true => builder.tls_certs_only([]),
        false => builder.tls_backend_preconfigured(settings.tls.for_many_connections()?),
    };
    builder.build().map_err(|e| ClientError::Client(chain(&e)))
}

/// The header that carries a key: the one that is named, which holds it as it is, or else `Authorization: Bearer`.
/// Blocks on a file.
///
/// # Errors
/// There is no key, or a header cannot hold it.
pub fn key_header(secret: &Secret, header: Option<&str>) -> Result<(HeaderName, HeaderValue), String> {
    let key = secret.read().map_err(|e| format!("{e}; {}", e.help()))?;
    let key = key.expose_secret().trim();
    let (name, text) = match header {
        None => (AUTHORIZATION, format!("Bearer {key}")),
        Some(name) => (HeaderName::from_bytes(name.as_bytes()).map_err(|e| e.to_string())?, key.to_owned()),
    };
    let mut value =
        HeaderValue::from_str(&text).map_err(|_| format!("{secret} has characters that a header cannot hold"))?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// The body, up to a limit; `None` past it, of which nothing more is read.
///
/// # Errors
/// When the connection breaks off.
pub async fn read(mut response: Response, max: usize) -> reqwest::Result<Option<Vec<u8>>> {
    let announced = usize::try_from(response.content_length().unwrap_or(0)).unwrap_or(usize::MAX);
    if announced > max {
        return Ok(None);
    }
    let mut body = Vec::with_capacity(announced);
    while let Some(part) = response.chunk().await? {
        if body.len() + part.len() > max {
            return Ok(None);
        }
        body.extend_from_slice(&part);
    }
    // one of unknown length has room for twice as much
    body.shrink_to_fit();
    Ok(Some(body))
}

/// The start of the body, as much of it as the limit allows.
///
/// # Errors
/// When the connection breaks off.
pub async fn read_start(mut response: Response, max: usize) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await?
        && body.len() < max
    {
        body.extend(part.iter().take(max - body.len()));
    }
    Ok(body)
}

/// Why a request came to nothing, without its address, which may hold a signature. Blocks on a file when the server
/// refused the client certificate.
pub fn problem(error: reqwest::Error, files: &TlsFiles) -> String {
    let error = error.without_url();
    if let Some((_, said)) = tls::mistrust(&error) {
        return said;
    }
    let text = chain(&error);
    match tls::alert(&error).and_then(|alert| files.refusal(alert)) {
        Some(said) => format!("{text}; {said}"),
        None => text,
    }
}

/// An error with its causes.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

//! How one kind of endpoint is spoken to.
//!
//! In: what a request and an answer hold in general. Out: headers, facts, results, signatures as that kind has them.
//! Invariant: a dialect decides nothing; retries, batches and pauses are the same for all. Not here: sending.

use std::fmt::Debug;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::policy::HttpStatus;
use super::response::BadResponse;
use super::signature::SignatureError;
use super::{EndpointSignature, ScoreConfig};
use crate::settings::Section;
use crate::value::Value;

/// Reads the section of a function whose endpoint speaks one dialect.
pub type ReadDialect = fn(&mut Section) -> Option<ScoreConfig>;

/// The dialects, by the word that `type` has in the job file.
pub const DIALECTS: &[(&str, ReadDialect)] = &[("azureml", super::azureml::read)];

/// What differs from one kind of endpoint to another.
pub trait Dialect: Debug + Send + Sync {
    /// The headers of a request, besides the key's.
    fn headers(&self, request_id: &str) -> HeaderMap;

    /// The header that carries the key; `None`: a header cannot hold it.
    fn authorization(&self, key: &str) -> Option<(HeaderName, HeaderValue)>;

    /// What an answer's code and headers say of it.
    fn status(&self, code: u16, headers: &HeaderMap) -> HttpStatus;

    /// The id under which the endpoint's log has a request.
    fn request_id<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str>;

    /// What the body of an error says to a person.
    fn error_text(&self, body: &[u8]) -> String;

    /// The results in the body of a good answer, one a row; `path`: keys down to them, where they are known.
    ///
    /// # Errors
    /// Not one result a row.
    fn results(&self, body: &[u8], rows: usize, path: &[String]) -> Result<Vec<Value>, BadResponse>;

    /// Where the endpoint may describe itself, in the order to ask.
    fn descriptions(&self, score: &Url) -> Vec<Url>;

    /// The signature that a description gives.
    ///
    /// # Errors
    /// It gives none.
    fn signature(&self, description: &str) -> Result<EndpointSignature, SignatureError>;

    /// The signature to use when the endpoint does not describe itself.
    fn untyped(&self) -> EndpointSignature;
}

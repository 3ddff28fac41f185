//! Endpoints of Azure Machine Learning, and its inference server.
//!
//! In: `[functions.NAME]` with `type = "azureml"`. Out: its settings, and the [`Dialect`]. Source: the wire contract of
//! Azure ML's inference server and of its managed front end. Not here: reading swagger (`swagger`), results
//! (`response`).

use std::sync::Arc;

use reqwest::Url;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::dialect::Dialect;
use super::http::header;
use super::policy::HttpStatus;
use super::response::{BadResponse, read_results};
use super::signature::SignatureError;
use super::{EndpointSignature, ScoreConfig};
use crate::diagnostic::Diagnostic;
use crate::settings::Section;
use crate::settings::address;
use crate::value::Value;

/// What `swagger.json` is asked for: version 2, which cannot describe every frame, then the later ones.
const SWAGGER_VERSIONS: [Option<&str>; 3] = [None, Some("3"), Some("3.1")];

/// An endpoint of Azure ML.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AzureMl {
    /// Where the swagger document is; else beside the scoring address.
    pub swagger_url: Option<Url>,
    /// The deployment that the header names, past the endpoint's traffic split.
    pub deployment: Option<HeaderValue>,
}

/// Reads the section for the table of dialects.
pub(super) fn read(section: &mut Section) -> Option<ScoreConfig> {
    let swagger_url = section.text("swagger_url").and_then(|text| address::http(section, &text));
    let deployment = section.text("deployment").and_then(|name| {
        let value =
            name.value.chars().all(|c| c.is_ascii_graphic()).then(|| HeaderValue::from_str(&name.value).ok()).flatten();
        if value.is_none() {
            let error = Diagnostic::error("the deployment's name does not fit a header", name.span)
                .label("expected letters, digits and signs without blanks");
            section.problems().push(error.help("copy it from the endpoint's page in the studio"));
        }
        value
    });
    ScoreConfig::read(section, Arc::new(AzureMl { swagger_url, deployment }))
}

impl Dialect for AzureMl {
    fn headers(&self, request_id: &str) -> HeaderMap {
        let json = HeaderValue::from_static("application/json");
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, json.clone()), (ACCEPT, json)]);
        if let Ok(id) = HeaderValue::from_str(request_id) {
            headers.insert("x-ms-client-request-id", id);
        }
        if let Some(deployment) = &self.deployment {
            headers.insert("azureml-model-deployment", deployment.clone());
        }
        headers
    }

    fn authorization(&self, key: &str) -> Option<(HeaderName, HeaderValue)> {
        let mut value = HeaderValue::from_str(&format!("Bearer {key}")).ok()?;
        value.set_sensitive(true);
        Some((AUTHORIZATION, value))
    }

    fn status(&self, code: u16, headers: &HeaderMap) -> HttpStatus {
        HttpStatus {
            code,
            model: header(headers, "ms-azureml-model-error-statuscode").and_then(|code| code.trim().parse().ok()),
            function_failed: header(headers, "x-ms-run-function-failed") == Some("True"),
        }
    }

    fn request_id<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        header(headers, "x-ms-request-id").or(header(headers, "x-request-id"))
    }

    /// What the server calls `message`, else the body.
    fn error_text(&self, body: &[u8]) -> String {
        let message = serde_json::from_slice::<serde_json::Value>(body)
            .ok()
            .and_then(|v| v.get("message")?.as_str().map(String::from));
        message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned())
    }

    fn results(&self, body: &[u8], rows: usize, path: &[String]) -> Result<Vec<Value>, BadResponse> {
        read_results(body, rows, path)
    }

    fn descriptions(&self, score: &Url) -> Vec<Url> {
        let base = self.swagger_url.clone().unwrap_or_else(|| beside(score));
        let ask = |version: Option<&str>| {
            let mut url = base.clone();
            if let Some(version) = version {
                url.query_pairs_mut().append_pair("version", version);
            }
            url
        };
        SWAGGER_VERSIONS.into_iter().map(ask).collect()
    }

    fn signature(&self, description: &str) -> Result<EndpointSignature, SignatureError> {
        EndpointSignature::from_swagger(description)
    }

    fn untyped(&self) -> EndpointSignature {
        EndpointSignature::untyped()
    }
}

/// The swagger address: the scoring address with its last path segment replaced, without its query.
fn beside(score: &Url) -> Url {
    let mut url = score.clone();
    url.set_query(None);
    url.set_fragment(None);
    let folder = score.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    url.set_path(&format!("{folder}/swagger.json"));
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_lies_beside_the_scoring_address() {
        for (score, expected) in [
            ("http://h/score", "http://h/swagger.json"),
            ("http://h:5001/api/v1/score?x=1", "http://h:5001/api/v1/swagger.json"),
            ("http://h/score/", "http://h/score/swagger.json"),
            ("http://h", "http://h/swagger.json"),
            ("http://h/a%20b/score", "http://h/a%20b/swagger.json"),
        ] {
            let urls = AzureMl::default().descriptions(&Url::parse(score).unwrap());
            let texts: Vec<&str> = urls.iter().map(Url::as_str).collect();
            assert_eq!(
                texts,
                [expected.to_owned(), format!("{expected}?version=3"), format!("{expected}?version=3.1")]
            );
        }
    }
}

//! Faults of one row, one request or one answer: a score script of the real server fails on demand, and the embedded
//! endpoint does what that server cannot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use forebay::demo::endpoint::Endpoint;
use forebay::diagnostic::Span;
use forebay::score::azureml::AzureMl;
use forebay::score::policy::HttpStatus;
use forebay::score::response::BadResponse;
use forebay::score::signature::SignatureError;
use forebay::score::{Chunk, Dialect, Ended, EndpointSignature, NanPolicy, Outcome, State};
use forebay::settings::Secret;
use forebay::value::Value;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::server::ready;
use super::{array, config, failures, faulty, requests, rides, score, scored, start, two, two_fares, until};

#[tokio::test]
async fn one_bad_row_in_a_thousand_is_isolated_by_about_21_requests() {
    let scorer = start(config(&ready("array").await.url("")));
    score(&scorer, two()).await;
    let before = requests(&scorer);
    let mut rows = rides(1000);
    rows[637] = array(&["1", "Mon", "12", "1", "far"]);
    let outcomes = score(&scorer, rows).await;
    let failed = failures(&outcomes);
    assert_eq!(
        failed.iter().map(|(i, f)| (*i, f.reason, f.status)).collect::<Vec<_>>(),
        [(637, "model_failed", Some(500))]
    );
    assert_eq!(failed[0].1.request, r#"{"data":[["1","Mon","12","1","far"]]}"#);
    assert!(failed[0].1.attempts >= 3 && !failed[0].1.request_id.is_empty(), "{:?}", failed[0].1);
    let spent = requests(&scorer) - before;
    assert!((12..=23).contains(&spent), "{spent} requests");
}

#[tokio::test]
async fn a_rejected_row_is_isolated_without_a_second_try() {
    let scorer = faulty("").await;
    let mut rows = rides(16);
    rows[5] = array(&["1", "Mon", "12", "1", "-1"]);
    let outcomes = score(&scorer, rows).await;
    let failed = failures(&outcomes);
    assert_eq!(failed.iter().map(|(i, f)| (*i, f.reason, f.status)).collect::<Vec<_>>(), [(5, "rejected", Some(400))]);
    assert!(failed[0].1.message.contains("negative distance in row 0"), "{:?}", failed[0].1);
}

#[tokio::test]
async fn unavailable_is_tried_again_until_it_passes() {
    for (query, model) in [("?fail_first=2&key=a", 503), ("?fail_first=2&key=b&status=429", 429)] {
        let scorer = faulty(query).await;
        assert_eq!(scored(&score(&scorer, two()).await), two_fares());
        assert_eq!(requests(&scorer), 3);
        assert!(scorer.status().last_error().unwrap().starts_with(&model.to_string()));
    }
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    for query in ["?fail_first=1&key=c&status=503&retry_after=1", "?fail_first=1&key=d&status=429&retry_after=1"] {
        let scorer = faulty(query).await;
        let begin = Instant::now();
        assert_eq!(scored(&score(&scorer, two()).await), two_fares());
        assert!(begin.elapsed() >= Duration::from_secs(1));
        assert_eq!(requests(&scorer), 2);
    }
}

#[tokio::test]
async fn a_424_is_unwrapped_to_the_models_own_status() {
    let away = faulty("?model_status=503").await;
    let ticket = away.submit(Chunk::new(0, two())).await.unwrap();
    until("backing off", || matches!(away.status().state(), State::BackingOff { .. })).await;
    away.stop();
    assert!(ticket.outcomes().await.is_err());

    // every row fails, so none is condemned: the model is at fault
    let broken = faulty("?model_status=500").await;
    let _ticket = broken.submit(Chunk::new(0, rides(8))).await.unwrap();
    until("paused", || matches!(broken.status().state(), State::Paused { reason: "every row fails", .. })).await;
    assert_eq!(broken.status().failed_rows.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn statuses_that_an_operator_has_to_repair_pause_and_keep_the_rows() {
    for (query, expected) in [
        ("?status=401", "key refused (401)"),
        ("?status=403", "forbidden (403)"),
        ("?status=404", "not found (404)"),
        ("?status=202", "not a scoring endpoint"),
        ("?status=204", "not a scoring endpoint"),
        ("?status=301", "not a scoring endpoint"),
        ("?status=415", "not a scoring endpoint"),
        ("?raise=1", "every row fails"),
        ("?status=400", "every row fails"),
        ("?short=1", "every row fails"),
        ("?text=1", "every row fails"),
        ("?error_as_200=1", "every row fails"),
        ("?unserialisable=1", "every row fails"),
    ] {
        let scorer = faulty(query).await;
        let ticket = scorer.submit(Chunk::new(0, rides(4))).await.unwrap();
        until(query, || matches!(scorer.status().state(), State::Paused { reason, .. } if reason == expected)).await;
        let State::Paused { remedy, .. } = scorer.status().state() else { continue };
        assert!(!remedy.is_empty());
        assert_eq!(
            scorer.status().rows.load(Ordering::Relaxed) + scorer.status().failed_rows.load(Ordering::Relaxed),
            0,
            "{query}"
        );
        scorer.stop();
        assert_eq!(ticket.outcomes().await, Err(Ended { why: "it was stopped".into() }), "{query}");
    }
}

#[tokio::test]
async fn a_conflict_passes_by_itself() {
    let scorer = faulty("?fail_first=4&key=e&status=409").await;
    assert_eq!(scored(&score(&scorer, two()).await), two_fares());
    assert_eq!(requests(&scorer), 5);
}

#[tokio::test]
async fn a_nan_result_is_null_or_a_failure_of_its_row_alone() {
    let scorer = faulty("?nan=1").await;
    assert_eq!(scored(&score(&scorer, two()).await), [Value::Float(15.92), Value::Null]);
    assert_eq!(scorer.status().nan_results.load(Ordering::Relaxed), 1);

    let mut strict = config(&ready("faulty").await.url("?nan=1"));
    strict.nan = NanPolicy::DeadLetter;
    let outcomes = score(&start(strict), two()).await;
    assert_eq!(outcomes[0], Outcome::Scored(Value::Float(15.92)));
    assert_eq!(failures(&outcomes)[0].1.reason, "nan_result");

    let null = faulty("?null=1").await;
    assert_eq!(scored(&score(&null, two()).await), [Value::Float(15.92), Value::Null]);
    assert_eq!(null.status().nan_results.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_key_is_read_again_when_it_is_refused() {
    let server = ready("faulty").await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&server.url("?auth=new"));
    config.key = Secret::parse("file:key", Span::default(), folder.path()).map(Secret::as_key);
    std::fs::write(folder.path().join("key"), "old\n").unwrap();
    let scorer = start(config);
    std::fs::write(folder.path().join("key"), " new\n").unwrap();
    assert_eq!(scored(&score(&scorer, two()).await), two_fares());
    assert_eq!(requests(&scorer), 2);
}

#[tokio::test]
async fn a_hang_is_given_up_and_tried_again_and_the_late_answer_discarded() {
    let server = ready("rough").await;
    let endpoint = Endpoint::start().await.unwrap();
    endpoint.set_delay(Duration::from_secs(30));
    let mut config = config(&endpoint.url());
    config.request_timeout = Duration::from_millis(100);
    let scorer = start(config.clone());
    let waiting = scorer.submit(Chunk::new(0, two())).await.unwrap();
    until("a request given up", || requests(&scorer) >= 1).await;
    endpoint.set_delay(Duration::ZERO);
    assert_eq!(scored(&waiting.outcomes().await.unwrap()).len(), 2);

    config.url = Url::parse(&server.url("?sleep_ms=600")).unwrap();
    config.request_timeout = Duration::from_millis(200);
    let hung = start(config);
    let _ticket = hung.submit(Chunk::new(0, two())).await.unwrap();
    until("paused", || matches!(hung.status().state(), State::Paused { .. } | State::BackingOff { .. })).await;
    assert_eq!(hung.status().failed_rows.load(Ordering::Relaxed), 0);
    assert!(hung.status().last_error().unwrap().contains("no answer within"));
}

#[tokio::test]
async fn a_connection_that_closes_without_an_answer_is_tried_again() {
    let mut config = config(&ready("rough").await.url("?exit=1"));
    // one dead worker is enough
    config.timing.pauses.backoff.base = Duration::from_secs(600);
    config.timing.pauses.backoff.cap = Duration::from_secs(600);
    let scorer = start(config);
    let _ticket = scorer.submit(Chunk::new(0, two())).await.unwrap();
    until("a closed connection", || scorer.status().last_error().is_some_and(|e| e.starts_with("Closed"))).await;
    assert_eq!(scorer.status().failed_rows.load(Ordering::Relaxed), 0);
}

/// A dialect with faults: its first use by a fetch of the description panics, and its first reading of results.
#[derive(Debug, Default)]
struct Panics {
    keys: AtomicU32,
    results: AtomicU32,
}

impl Dialect for Panics {
    fn headers(&self, request_id: &str) -> HeaderMap {
        AzureMl::default().headers(request_id)
    }

    fn authorization(&self, key: &str) -> Option<(HeaderName, HeaderValue)> {
        // the key is looked at once before anything is sent
        assert_ne!(self.keys.fetch_add(1, Ordering::Relaxed), 1, "a fault with the description");
        AzureMl::default().authorization(key)
    }

    fn status(&self, code: u16, headers: &HeaderMap) -> HttpStatus {
        AzureMl::default().status(code, headers)
    }

    fn request_id<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        headers.get("x-ms-request-id")?.to_str().ok()
    }

    fn error_text(&self, body: &[u8]) -> String {
        AzureMl::default().error_text(body)
    }

    fn results(&self, body: &[u8], rows: usize, path: &[String]) -> Result<Vec<Value>, BadResponse> {
        assert_ne!(self.results.fetch_add(1, Ordering::Relaxed), 0, "a fault with the results");
        AzureMl::default().results(body, rows, path)
    }

    fn descriptions(&self, score: &Url) -> Vec<Url> {
        AzureMl::default().descriptions(score)
    }

    fn signature(&self, description: &str) -> Result<EndpointSignature, SignatureError> {
        AzureMl::default().signature(description)
    }

    fn untyped(&self) -> EndpointSignature {
        AzureMl::default().untyped()
    }
}

#[tokio::test]
async fn a_request_that_panics_is_tried_again() {
    let (endpoint, folder) = (Endpoint::start().await.unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("key"), "any\n").unwrap();
    let mut config = config(&endpoint.url());
    config.dialect = Arc::new(Panics::default());
    config.key = Secret::parse("file:key", Span::default(), folder.path()).map(Secret::as_key);
    let scorer = start(config);
    assert_eq!(scored(&score(&scorer, two()).await).len(), 2);
    assert_eq!((requests(&scorer), scorer.status().failed_requests.load(Ordering::Relaxed)), (2, 1));
    let error = scorer.status().last_error().unwrap();
    assert!(error.contains("a fault with the results"), "{error}");
    assert_eq!(scorer.status().in_flight.load(Ordering::Relaxed), 0);
}

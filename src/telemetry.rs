//! What the process says about itself: `/metrics`, `/healthz`, `/readyz` on a local port.
//!
//! In: a function that gives a [`Report`] when asked. Out: HTTP answers. Invariant: a scrape computes the numbers, so
//! nothing grows while nobody scrapes. Not here: what the numbers mean (the ledger is the journal's).

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::time::Clock;

/// One number with its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Without the prefix `forebay_` and, for a counter, without the suffix `_total`.
    pub name: &'static str,
    pub help: &'static str,
    pub kind: SampleKind,
    pub labels: Vec<(&'static str, String)>,
    pub value: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleKind {
    Counter,
    Gauge,
}

/// The state of a running job at one moment.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub samples: Vec<Sample>,
    /// Why the job does not do all of its work just now; empty when it is ready.
    pub not_ready: Vec<String>,
    /// What is not as it should be while the job does all of its work.
    pub degraded: Vec<String>,
}

static LOG_LINES_LOST: AtomicU64 = AtomicU64::new(0);
/// When the last one was lost.
static LOG_LOST_AT: Mutex<Option<Instant>> = Mutex::new(None);
/// A line that was lost is told of for this long.
const LOG_LOST_TOLD: Duration = Duration::from_secs(600);

/// Standard error did not take a line of the log.
pub fn log_line_lost() {
    LOG_LINES_LOST.fetch_add(1, Ordering::Relaxed);
    *LOG_LOST_AT.lock().unwrap_or_else(PoisonError::into_inner) = Some(Clock::Real.monotonic());
}

fn is_log_lost() -> bool {
    let at = *LOG_LOST_AT.lock().unwrap_or_else(PoisonError::into_inner);
    at.is_some_and(|at| Clock::Real.since(at) < LOG_LOST_TOLD)
}

type ReportSource = Arc<dyn Fn() -> Report + Send + Sync>;
type SickSource = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// Serves until `shutdown` resolves. The listener is the caller's, so that its port may be picked by the system. `sick`
/// tells why the process should be started anew, and waits for nothing: whoever asks for health must not be told that
/// it is sick because a disk is slow.
///
/// # Errors
/// What the listener says.
pub async fn serve(
    listener: TcpListener,
    report: ReportSource,
    sick: SickSource,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/metrics", get(metrics))
        .route("/readyz", get(ready))
        .with_state(report)
        .route("/healthz", get(move || async move { verdict(sick(), Vec::new()) }));
    axum::serve(listener, app).with_graceful_shutdown(shutdown).await
}

/// Binds the metrics port.
///
/// # Errors
/// The address and the system's reason, with what to do.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError { address, source })
}

/// The metrics port cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot listen on {address}: {source}; set another `listen` in [metrics], or `enabled = false`")]
pub struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// Asks in a thread of its own: the pool is read for it, and the runtime's thread must not wait for a disk.
async fn asked(report: ReportSource) -> Report {
    let told = tokio::task::spawn_blocking(move || report()).await;
    told.unwrap_or_else(|error| Report { not_ready: vec![format!("the report failed: {error}")], ..Report::default() })
}

async fn ready(State(report): State<ReportSource>) -> impl IntoResponse {
    let Report { not_ready, mut degraded, .. } = asked(report).await;
    if is_log_lost() {
        let lost = LOG_LINES_LOST.load(Ordering::Relaxed);
        degraded.push(format!(
            "{lost} lines of the log are lost, since standard error did not take them: see who reads it, and whether \
             its disk is full"
        ));
    }
    verdict(not_ready, degraded)
}

fn verdict(problems: Vec<String>, degraded: Vec<String>) -> impl IntoResponse + use<> {
    let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut answer = serde_json::json!({ "ok": problems.is_empty(), "problems": problems });
    if let Some(answer) = answer.as_object_mut().filter(|_| !degraded.is_empty()) {
        answer.insert("degraded".to_owned(), degraded.into());
    }
    (status, Json(answer))
}

async fn metrics(State(report): State<ReportSource>) -> impl IntoResponse {
    let mut samples = asked(report).await.samples;
    samples.push(Sample {
        name: "log_lines_lost",
        help: "lines of the log that standard error did not take",
        kind: SampleKind::Counter,
        labels: Vec::new(),
        value: LOG_LINES_LOST.load(Ordering::Relaxed) as f64,
    });
    match render(samples) {
        Ok(text) => (
            StatusCode::OK,
            [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
            text,
        ),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
            error.to_string(),
        ),
    }
}

/// The samples in the OpenMetrics text form.
///
/// # Errors
/// When the encoder refuses a name or label, which the names used here never cause.
pub fn render(samples: Vec<Sample>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("forebay");
    registry.register_collector(Box::new(Samples(samples)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Samples(Vec<Sample>);

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut families: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
        for sample in &self.0 {
            families.entry(sample.name).or_default().push(sample);
        }
        for (name, family) in families {
            let Some(first) = family.first() else { continue };
            let kind = match first.kind {
                SampleKind::Counter => MetricType::Counter,
                SampleKind::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(name, first.help, None, kind)?;
            for sample in family {
                let encoder = metric.encode_family(&sample.labels)?;
                match sample.kind {
                    SampleKind::Counter => ConstCounter::new(sample.value).encode(encoder)?,
                    SampleKind::Gauge => ConstGauge::new(sample.value).encode(encoder)?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(name: &'static str, kind: SampleKind, input: &str, value: f64) -> Sample {
        Sample { name, help: "a number", kind, labels: vec![("input", input.to_owned())], value }
    }

    #[test]
    fn families_are_grouped_and_counters_get_their_suffix() {
        let samples = vec![
            sample("received", SampleKind::Counter, "a", 3.0),
            sample("pool_bytes", SampleKind::Gauge, "a", 7.5),
            sample("received", SampleKind::Counter, "b\"", 4.0),
        ];
        let text = render(samples).unwrap();
        assert!(text.contains("# TYPE forebay_received counter"), "{text}");
        assert!(text.contains("forebay_received_total{input=\"a\"} 3.0"), "{text}");
        assert!(text.contains("forebay_received_total{input=\"b\\\"\"} 4.0"), "{text}");
        assert!(text.contains("forebay_pool_bytes{input=\"a\"} 7.5"), "{text}");
        assert_eq!(text.matches("# TYPE forebay_received ").count(), 1);
        assert!(text.ends_with("# EOF\n"));
    }
}

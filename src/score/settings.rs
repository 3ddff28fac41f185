//! The section of a scoring function.
//!
//! In: `[functions.NAME]` with the word of a dialect. Out: [`ScoreConfig`], checked. Invariant: a setting has one
//! default, here. Not here: what only one dialect has, a signature written by hand (`signature::written`).

use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use toml::de::DeValue;

use super::breaker::Pauses;
use super::desk::OnMisfit;
use super::dialect::Dialect;
use super::policy::Mode;
use super::room::ROWS_MAX;
use super::{EndpointSignature, Fallback, desk};
use crate::backoff::Backoff;
use crate::diagnostic::{Diagnostic, Span};
use crate::settings::address::{self, refuse_open_secret};
use crate::settings::{Secret, Section};
use crate::tls::TlsFiles;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// What becomes of a result that is NaN or infinite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NanPolicy {
    /// NULL, counted.
    #[default]
    Null,
    /// The row fails.
    DeadLetter,
}

/// In which order answers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// In that of the stream.
    #[default]
    Stream,
    /// As they come, where the statement keeps no state: a request that hangs holds back only its own rows.
    None,
}

/// How an endpoint is used.
#[derive(Clone, Debug)]
pub struct ScoreConfig {
    /// Name of the function in the job file.
    pub name: String,
    /// How the endpoint is spoken to.
    pub dialect: Arc<dyn Dialect>,
    /// The scoring address as the endpoint's owner gives it; a query string is kept.
    pub url: Url,
    /// Read again when the endpoint refuses it; absent: none is sent.
    pub key: Option<Secret>,
    /// Most rows in a request, 1 to 10,000.
    pub max_batch_count: usize,
    /// Most bytes in a request body.
    pub max_batch_bytes: usize,
    /// Most bytes of an answer for each row that was asked for.
    pub max_result_bytes: usize,
    /// Most requests at once; sending starts at 2 and doubles each round.
    pub parallel_requests: u32,
    /// Most rows a second; `None`: as many as the endpoint takes.
    pub catchup_rate: Option<u32>,
    /// A backlog at the start of the job is not sent before a random part of this.
    pub catchup_jitter: Duration,
    /// How long rows wait for more of them while other requests are out.
    pub linger: Duration,
    /// How long rows wait for more of them while no request is out: fewer, fuller requests on a slow stream.
    pub linger_idle: Duration,
    /// From sending to the end of the answer: the deployment's own limit and a little.
    pub request_timeout: Duration,
    pub mode: Mode,
    pub order: Order,
    /// Where the order is written.
    pub order_span: Option<Span>,
    pub nan: NanPolicy,
    /// What becomes of rows whose form does not fit the signature.
    pub on_misfit: OnMisfit,
    /// How often the description is read anew; `None`: at the start, and where something is wrong.
    pub refresh_interval: Option<Duration>,
    /// Who answers while the endpoint is away; `None`: rows wait for it.
    pub fallback: Option<Fallback>,
    /// Empty without TLS.
    pub tls: TlsFiles,
    /// Values for other properties of the body; they win over those of the endpoint's description.
    pub constants: Vec<(String, serde_json::Value)>,
    /// Used instead of the endpoint's description.
    pub signature: Option<EndpointSignature>,
    /// The description as last seen, to start by while the endpoint is out of reach.
    pub cached_description: Option<String>,
    /// Longest text in characters that the endpoint keeps in a text cell.
    pub text_max: Option<usize>,
    pub timing: Timing,
}

/// Waits that jobs do not set; tests make them short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    pub pauses: Pauses,
    /// To a connection.
    pub connect_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            pauses: Pauses {
                backoff: Backoff::ENDPOINT,
                slow_probe: Duration::from_secs(60),
                knock: Duration::from_secs(2),
            },
            // past this a link is as good as down; the next try is the backoff's business
            connect_timeout: Duration::from_secs(5),
        }
    }
}

impl ScoreConfig {
    /// A function with all settings at their defaults.
    pub fn new(name: impl Into<String>, url: Url, dialect: Arc<dyn Dialect>) -> ScoreConfig {
        ScoreConfig {
            name: name.into(),
            dialect,
            url,
            key: None,
            max_batch_count: 1_000,
            max_batch_bytes: 1_000_000,
            max_result_bytes: 64 << 10,
            parallel_requests: 20,
            catchup_rate: None,
            catchup_jitter: Duration::from_secs(1),
            linger: Duration::from_millis(20),
            linger_idle: Duration::ZERO,
            request_timeout: Duration::from_secs(10),
            mode: Mode::Edge,
            order: Order::Stream,
            order_span: None,
            nan: NanPolicy::Null,
            on_misfit: OnMisfit::Pause,
            refresh_interval: Some(Duration::from_secs(24 * 3_600)),
            fallback: None,
            tls: TlsFiles::default(),
            constants: Vec::new(),
            signature: None,
            cached_description: None,
            text_max: None,
            timing: Timing::default(),
        }
    }

    /// Reads what all dialects have.
    pub(super) fn read(section: &mut Section, dialect: Arc<dyn Dialect>) -> Option<ScoreConfig> {
        let url = section.required_text("url", "write `url = \"http://127.0.0.1:5001/score\"`");
        let url = url.and_then(|text| address::http(section, &text));
        let key = section.key("key");
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let size = |bytes: usize| bytes as u64;
        // a bad address does not keep the other keys from being read, with the same defaults
        let placeholder = || Url::parse("http://localhost").ok();
        let base = ScoreConfig::new(section.name(), url.clone().or_else(placeholder)?, dialect);
        let second = Duration::from_secs(1);
        let base_parallel = base.parallel_requests;
        let config = ScoreConfig {
            key,
            max_batch_count: count(section.count("max_batch_count", 1, 10_000, size(base.max_batch_count))),
            max_batch_bytes: count(section.size("max_batch_bytes", KIB, 64 * MIB, size(base.max_batch_bytes))),
            max_result_bytes: count(section.size("max_result_bytes", KIB, 32 * MIB, size(base.max_result_bytes))),
            parallel_requests: base.parallel_requests,
            catchup_rate: section
                .optional_count("catchup_rate", 1, 1_000_000, "leave it out to send as much as the endpoint takes")
                .and_then(|rows| u32::try_from(rows).ok()),
            catchup_jitter: section.duration("catchup_jitter", Duration::ZERO, 3_600 * second, base.catchup_jitter),
            linger: section.duration("linger", Duration::ZERO, 10 * second, base.linger),
            linger_idle: section.duration("linger_idle", Duration::ZERO, 3_600 * second, base.linger_idle),
            request_timeout: section.duration("request_timeout", second / 100, 600 * second, base.request_timeout),
            mode: section.choice("mode", &[("edge", Mode::Edge), ("asa", Mode::Asa)], base.mode),
            order_span: section.value_span("order"),
            order: section.choice("order", &[("stream", Order::Stream), ("none", Order::None)], base.order),
            tls: TlsFiles::read(section),
            constants: constants(section),
            nan: section.choice("nan", &[("null", NanPolicy::Null), ("dead-letter", NanPolicy::DeadLetter)], base.nan),
            on_misfit: section.choice(
                "on_misfit",
                &[("pause", OnMisfit::Pause), ("dead-letter", OnMisfit::DeadLetter)],
                base.on_misfit,
            ),
            refresh_interval: Some(section.duration(
                "refresh_interval",
                Duration::ZERO,
                366 * 24 * 3_600 * second,
                base.refresh_interval.unwrap_or_default(),
            ))
            .filter(|interval| !interval.is_zero()),
            fallback: Fallback::read(section),
            signature: super::signature::written::read(section),
            ..base
        };
        let config = ScoreConfig {
            parallel_requests: parallel_requests(section, config.max_batch_count, base_parallel),
            ..config
        };
        refuse_open_secret(section, url.as_ref(), config.key.is_some());
        let url = url?;
        match url.scheme() {
            "http" => TlsFiles::refuse(section, "http://", "https://"),
            _ => config.tls.examine(section),
        }
        Some(config)
    }

    pub fn secrets(&self) -> Vec<&Secret> {
        self.key.iter().collect()
    }

    pub(super) fn rules(&self) -> desk::Rules {
        desk::Rules {
            max_rows: self.max_batch_count,
            max_bytes: self.max_batch_bytes,
            parallel: self.parallel_requests,
            unstored_max: self.max_batch_count.saturating_mul(self.parallel_requests as usize),
            catchup_rate: self.catchup_rate,
            // so that a fleet that starts in one moment does not take all of its endpoint
            catchup_start: self.catchup_jitter.mul_f64(fastrand::f64()),
            linger: self.linger,
            linger_idle: self.linger_idle,
            mode: self.mode,
            nan: self.nan,
            on_misfit: self.on_misfit,
            pauses: self.timing.pauses,
            text_max: self.text_max,
            fallback_after: self.fallback.as_ref().map(|fallback| fallback.after),
            request_timeout: self.request_timeout,
        }
    }
}

/// The table `constants`, as JSON.
fn constants(section: &mut Section) -> Vec<(String, serde_json::Value)> {
    let Some((value, span)) = section.get("constants") else { return Vec::new() };
    let DeValue::Table(table) = value else {
        let error = Diagnostic::error("`constants` has the wrong form", span).label("expected a table");
        section.problems().push(error.help("write `constants = { method = \"predict\" }`"));
        return Vec::new();
    };
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    let json = |value: &toml::Spanned<DeValue>| {
        json(value.get_ref()).map_err(|why| {
            let error = Diagnostic::error("a constant has no JSON form", Span::from(value.span())).label(why);
            section.problems().push(error.help("write a text, a number, `true`, `false`, a list or a table"));
        })
    };
    entries.into_iter().filter_map(|(name, value)| Some((name.get_ref().to_string(), json(value).ok()?))).collect()
}

fn json(value: &DeValue) -> Result<serde_json::Value, &'static str> {
    Ok(match value {
        DeValue::String(text) => serde_json::Value::from(text.as_ref()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_err(|_| "beyond 64 bits")?.into()
        }
        DeValue::Float(number) => {
            let number = number.as_str().parse::<f64>().ok().and_then(serde_json::Number::from_f64);
            serde_json::Value::Number(number.ok_or("no finite number")?)
        }
        DeValue::Boolean(truth) => (*truth).into(),
        DeValue::Datetime(_) => return Err("dates are texts in JSON"),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect::<Result<Vec<_>, _>>()?.into(),
        DeValue::Table(table) => {
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by_key(|(name, _)| name.span().start);
            let fields =
                entries.into_iter().map(|(name, value)| Ok((name.get_ref().to_string(), json(value.get_ref())?)));
            serde_json::Value::Object(fields.collect::<Result<_, &'static str>>()?)
        }
    })
}

/// Requests at once, as far as the rows of all of them may be under way; what is written and cannot be is refused.
fn parallel_requests(section: &mut Section<'_, '_>, max_batch_count: usize, default: u32) -> u32 {
    let fits = u32::try_from(ROWS_MAX / max_batch_count.max(1)).unwrap_or(u32::MAX).max(1);
    let default = default.min(fits);
    let wanted = u32::try_from(section.count("parallel_requests", 1, 256, default.into())).unwrap_or(u32::MAX);
    if wanted > fits && !section.is_wrong("max_batch_count") {
        section.wrong(
            "parallel_requests",
            format!("{wanted} requests of {max_batch_count} rows can never be under way at once"),
            format!("at most {fits}"),
            format!(
                "a function holds at most {ROWS_MAX} rows in requests (64 MiB with those that wait): lower this or \
                max_batch_count"
            ),
        );
    }
    wanted.min(fits)
}

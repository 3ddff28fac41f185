//! What an answer means for the rows it was asked for: the status table.
//!
//! In: the outcome of a request as plain facts. Out: a [`Class`]. Invariant: decided by status codes and header facts,
//! never by an error's text; every status has a class. Source: the table of the wire contract, section 5. Not here: how
//! long to wait (`backoff`), how a batch is split (`batch`), what the gate does (`breaker`).

use std::time::Duration;

use crate::batch::Reason;
use crate::tls::Mistrust;

/// Whose rules decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// A gateway that must not stop: isolate bad rows, pause and keep buffering on what an operator has to repair.
    #[default]
    Edge,
    /// What Stream Analytics does: retry what is retriable, fail the job on the rest.
    Asa,
}

/// What came back, but for a 200 with the right number of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// 200, the results are there
    Results,
    /// 200, but not one result a row
    BadResponse,
    /// Any other status.
    Status(HttpStatus),
    /// No connection: refused, no route, no name, or broken off while connecting.
    Unreachable,
    /// The server's certificate did not verify.
    BadCertificate(Mistrust),
    /// The server refused our certificate, or wants one.
    CertificateRefused,
    /// The connection ended before the answer did.
    Closed,
    /// Our own time limit passed.
    TimedOut,
    /// Somebody between us and the endpoint answered in its place: a captive portal, a proxy that asks for a login.
    Portal,
}

/// The status facts of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpStatus {
    pub code: u16,
    /// `ms-azureml-model-error-statuscode`: the model's own status behind a managed front end.
    pub model: Option<u16>,
    /// `x-ms-run-function-failed: True`
    pub function_failed: bool,
}

impl HttpStatus {
    /// The code that counts: behind a managed endpoint every refusal of the model arrives as 424.
    pub fn effective(self) -> u16 {
        match (self.code, self.model) {
            (424, Some(model)) if model != 200 => model,
            (code, _) => code,
        }
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Done,
    /// The endpoint cannot be reached: back off together, without end.
    Offline,
    /// The endpoint is overloaded: back off, without end, and send less at once.
    Overloaded,
    /// Try these rows again `retries` times; then one of them may be at fault: halve until it stands alone.
    Isolate {
        retries: u32,
        reason: Reason,
    },
    /// Took too long: after a second time the request is halved, and requests stay smaller.
    TooSlow,
    /// Too many bytes: halve at once, nobody is to blame, and bodies stay smaller.
    TooLarge,
    /// Something else goes on at the endpoint: try some times, then pause.
    Busy,
    /// The key is refused: read it again, then pause.
    KeyRefused,
    /// An operator has to repair something; keep buffering, look now and then.
    Pause(Blocked),
    /// Stream Analytics would fail the job here.
    FailJob,
}

/// What passes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// No connection comes about.
    NoConnection,
    /// Connections come about, and no answer comes: it hangs, or hangs up.
    Silent,
    /// It takes fewer requests than are sent (429, 503).
    Overloaded,
    /// Somebody answers in its place: a captive portal, a proxy that wants a login.
    Intercepted,
    /// It answers, and not as an endpoint that works.
    Failing,
}

impl Outage {
    /// What the endpoint is meanwhile.
    pub fn words(self) -> &'static str {
        match self {
            Outage::NoConnection => "out of reach",
            Outage::Silent => "silent (it takes requests and does not answer)",
            Outage::Overloaded => "overloaded (429 or 503)",
            Outage::Intercepted => "hidden by a captive portal or a proxy's login page",
            Outage::Failing => "failing",
        }
    }
}

/// What an operator has to repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// 401 with a key that was read again, or no key to be had
    Key,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 409 that does not pass
    Busy,
    /// The certificate does not verify.
    Certificate(Mistrust),
    /// The client certificate is refused, or there is none.
    ClientCertificate,
    /// This is no scoring endpoint, or it does not speak the protocol (2xx, 3xx, 405, 415 …).
    Protocol(u16),
    /// Every row fails, also rows like those that were scored before: the model or its signature changed.
    Model,
    /// Rows do not fit the signature, all for the same reason: the query and the model do not belong together.
    Misfit,
}

impl Blocked {
    /// Short name for states and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Blocked::Key => "key refused (401)",
            Blocked::Forbidden => "forbidden (403)",
            Blocked::NotFound => "not found (404)",
            Blocked::Busy => "endpoint busy (409)",
            Blocked::Certificate(mistrust) => mistrust.reason(),
            Blocked::ClientCertificate => "client certificate refused",
            Blocked::Protocol(_) => "not a scoring endpoint",
            Blocked::Model => "every row fails",
            Blocked::Misfit => "rows do not fit the endpoint's signature",
        }
    }

    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Blocked::Key => "put a valid key where `key` points to; it is read again every second",
            Blocked::Forbidden => "give the identity the right to score on this endpoint",
            Blocked::NotFound => "check `url`, and that a deployment of the endpoint gets traffic",
            Blocked::Busy => "wait for the operation on the endpoint to end, or end it",
            Blocked::Certificate(mistrust) => mistrust.remedy(),
            Blocked::ClientCertificate => {
                "put a certificate that the endpoint takes, and its key, where `cert_file` and \
                 `key_file` point to; they are read again"
            }
            Blocked::Protocol(_) => "check that `url` is the scoring address of the endpoint, without redirects",
            Blocked::Misfit => {
                "mend the query, deploy the model that belongs to it, or set `on_misfit = \"dead-letter\"` where such \
                rows are to go to the dead letters"
            }
            Blocked::Model => {
                "compare the endpoint's signature (`forebay check`) with what the query sends, and look into the \
                model's log"
            }
        }
    }
}

/// Tries on a 500 that the model did not raise, before a row is suspected.
const RETRIES_SERVER_ERROR: u32 = 5;
/// Tries where a proxy may have answered, a worker may have died, or the container may be starting.
const RETRIES_MAYBE_ROW: u32 = 3;
/// Reasons of rows that failed without an answer.
pub const TOO_SLOW: Reason = "too_slow";
pub const CONNECTION_CLOSED: Reason = "connection_closed";
/// Tries on 409 before pausing.
pub const RETRIES_BUSY: u32 = 10;

/// The class of an outcome.
pub fn classify(mode: Mode, outcome: Answered) -> Class {
    let class = edge(outcome);
    match mode {
        Mode::Edge => class,
        Mode::Asa => asa(outcome, class),
    }
}

fn edge(outcome: Answered) -> Class {
    let isolate = |retries, reason| Class::Isolate { retries, reason };
    let status = match outcome {
        Answered::Results => return Class::Done,
        Answered::BadResponse => return isolate(1, "bad_response"),
        Answered::Unreachable | Answered::Portal => return Class::Offline,
        Answered::BadCertificate(mistrust) => return Class::Pause(Blocked::Certificate(mistrust)),
        Answered::CertificateRefused => return Class::Pause(Blocked::ClientCertificate),
        Answered::Closed => return isolate(RETRIES_MAYBE_ROW, CONNECTION_CLOSED),
        Answered::TimedOut => return Class::TooSlow,
        Answered::Status(status) => status,
    };
    match status.effective() {
        400 | 422 => isolate(0, "rejected"),
        401 => Class::KeyRefused,
        403 => Class::Pause(Blocked::Forbidden),
        404 => Class::Pause(Blocked::NotFound),
        408 | 504 => Class::TooSlow,
        409 => Class::Busy,
        413 => Class::TooLarge,
        424 => isolate(RETRIES_MAYBE_ROW, "container_failed"),
        429 | 503 => Class::Overloaded,
        500 if status.function_failed || status.code == 424 => isolate(1, "model_failed"),
        502 => isolate(RETRIES_MAYBE_ROW, "model_failed"),
        501 | 505 => Class::Pause(Blocked::Protocol(status.code)),
        500..=599 => isolate(RETRIES_SERVER_ERROR, "server_error"),
        _ => Class::Pause(Blocked::Protocol(status.code)),
    }
}

/// Documented: 503 and its like are retried, 400, 401, 404 and 409 fail the job; the rest is read from the same rule.
fn asa(outcome: Answered, edge: Class) -> Class {
    match outcome {
        Answered::Results => Class::Done,
        Answered::Unreachable | Answered::Portal | Answered::Closed | Answered::TimedOut => Class::Offline,
        Answered::BadCertificate(_) | Answered::CertificateRefused | Answered::BadResponse => Class::FailJob,
        Answered::Status(status) => match status.effective() {
            408 | 502 | 504 => Class::Offline,
            429 | 503 => Class::Overloaded,
            500 if matches!(edge, Class::Isolate { retries: RETRIES_SERVER_ERROR, .. }) => Class::Offline,
            _ => Class::FailJob,
        },
    }
}

/// An answer's facts that are worth keeping beside its class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// The status on the wire and, behind a managed front end, the model's own.
    pub status: Option<u16>,
    pub model_status: Option<u16>,
    /// The start of the body, or the error's text.
    pub text: String,
    pub retry_after: Option<Duration>,
    pub request_id: String,
    /// From sending to the end of the answer.
    pub took: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_424_counts_as_the_models_own_status() {
        let wrapped = |model| Answered::Status(HttpStatus { code: 424, model, function_failed: false });
        assert_eq!(classify(Mode::Edge, wrapped(Some(503))), Class::Overloaded);
        assert_eq!(classify(Mode::Edge, wrapped(Some(500))), Class::Isolate { retries: 1, reason: "model_failed" });
        assert_eq!(classify(Mode::Edge, wrapped(Some(413))), Class::TooLarge);
        assert_eq!(classify(Mode::Edge, wrapped(None)), Class::Isolate { retries: 3, reason: "container_failed" });
        assert_eq!(classify(Mode::Asa, wrapped(Some(503))), Class::Overloaded);
        // only a 424 is unwrapped
        let other = HttpStatus { code: 503, model: Some(400), function_failed: false };
        assert_eq!(classify(Mode::Edge, Answered::Status(other)), Class::Overloaded);
    }

    #[test]
    fn a_500_is_the_models_only_when_the_server_says_so() {
        let status = |function_failed| Answered::Status(HttpStatus { code: 500, model: None, function_failed });
        assert_eq!(classify(Mode::Edge, status(true)), Class::Isolate { retries: 1, reason: "model_failed" });
        assert_eq!(classify(Mode::Edge, status(false)), Class::Isolate { retries: 5, reason: "server_error" });
        assert_eq!(classify(Mode::Asa, status(true)), Class::FailJob);
        assert_eq!(classify(Mode::Asa, status(false)), Class::Offline);
    }

    #[test]
    fn every_status_has_a_class_and_only_results_are_done() {
        for code in 0..=999 {
            for mode in [Mode::Edge, Mode::Asa] {
                let class = classify(mode, Answered::Status(HttpStatus { code, model: None, function_failed: false }));
                assert_ne!(class, Class::Done, "{code}");
                assert!(mode == Mode::Asa || class != Class::FailJob, "{code}");
            }
        }
    }
}

//! Scoring functions: rows to an endpoint and back, in batches.
//!
//! In: chunks of arguments, one a row. Out: one [`Outcome`] a row, in the order of the chunk: a value, or a failure with
//! its reason. Invariant: whatever the endpoint does, a row ends in exactly one outcome or is still held here, and what
//! is held is bounded. Not here: the order in which chunks are stored, dead letters (both are the pipeline's).
//!
//! A thin task ([`task`]) owns the pure [`desk`], which decides what is sent when; [`policy`] says what an answer means,
//! [`batch`] finds the bad row of a failing batch, [`breaker`] holds the gate and the parallelism, [`signature`] and
//! [`body`] convert rows, [`response`] reads results, [`http`] speaks to the endpoint in its [`dialect`].

pub mod azureml;
pub mod batch;
pub mod body;
pub mod breaker;
mod describe;
pub mod desk;
mod dialect;
mod http;
pub mod policy;
pub mod queue;
pub mod response;
pub mod signature;
mod settings;
mod status;
mod swagger;
mod task;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::batch::Reason;
use crate::value::Value;

pub use describe::{Given, describe, misfits};
pub use dialect::{DIALECTS, Dialect, Read as ReadDialect};
pub use http::fetch_signature;
pub use policy::Mode;
pub use settings::{NanPolicy, ScoreConfig, Timing};
pub use signature::Signature;
pub use status::{LATENCY_BOUNDS_MS, State, Status};

/// What keeps a scorer from starting.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("function `{name}`: ca_file {}: {why}", .path.display())]
    CaFile { name: String, path: PathBuf, why: String },
    #[error("function `{name}`: the http client does not start: {why}")]
    Client { name: String, why: String },
}

/// Arguments of some rows of a statement, one a row.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Which statement: those that share a function take turns.
    pub statement: usize,
    pub args: Vec<Value>,
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Scored(Value),
    Failed(Failure),
}

/// Why a row has no result.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Failure {
    /// For counters: `conversion`, `missing_column`, `rejected`, `model_failed`, `bad_response`, `too_slow`, …
    pub reason: Reason,
    pub message: String,
    /// Of the last answer; behind a managed front end the model's own.
    pub status: Option<u16>,
    /// A request body with this row alone; the argument's JSON when it was never sent. Cut off where it is long.
    pub request: String,
    /// The start of the last answer.
    pub response: String,
    /// Requests that the row was part of.
    pub attempts: u32,
    pub request_id: String,
}

impl Failure {
    fn before_sending(bad: body::BadRow, argument: String) -> Failure {
        Failure { reason: bad.reason, message: bad.message, request: argument, ..Failure::default() }
    }

    fn of_answer(reason: Reason, details: &policy::Details, attempts: u32, request: String) -> Failure {
        let status = details.model_status.or(details.status);
        let answered = status.map_or_else(String::new, |status| format!("the endpoint answered {status}: "));
        Failure {
            reason,
            message: format!("{answered}{}", details.text),
            status,
            request,
            response: details.text.clone(),
            attempts,
            request_id: details.request_id.clone(),
        }
    }
}

/// The scorer is gone: it was stopped, or in mode `asa` the endpoint's answer ends the job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("scoring has ended: {why}")]
pub struct Ended {
    pub why: String,
}

/// Bytes of rows that may be held for an endpoint, answered or not: two full batches for each of a few requests, and no
/// more than a gateway can spare while the endpoint is away for hours.
const HELD_BYTES_MAX: usize = 16 << 20;
/// What a row counts at least: its value, its text, its place in a batch and in its chunk.
const ROW_BYTES_MIN: usize = 256;
/// Bytes a permit stands for, so that the count of permits stays within 32 bits.
const PERMIT_BYTES: usize = 64;

/// A scoring function at work; clones share it. It ends when the last clone and the last ticket are dropped.
#[derive(Clone)]
pub struct Scorer {
    name: Arc<str>,
    intake: mpsc::Sender<task::Incoming>,
    held: Arc<Semaphore>,
    status: Arc<Status>,
    swagger: watch::Receiver<Option<String>>,
    stop: CancellationToken,
    runtime: tokio::runtime::Handle,
}

/// The answer to a chunk, to come.
#[derive(Debug)]
pub struct Ticket {
    answer: oneshot::Receiver<Result<Vec<Outcome>, Ended>>,
}

impl Ticket {
    /// Waits for the outcomes, one a row in the chunk's order.
    pub async fn outcomes(self) -> Result<Vec<Outcome>, Ended> {
        self.answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// As [`Ticket::outcomes`], on a plain thread.
    pub fn outcomes_blocking(self) -> Result<Vec<Outcome>, Ended> {
        self.answer.blocking_recv().unwrap_or_else(|_| Err(stopped()))
    }
}

fn stopped() -> Ended {
    Ended { why: "it was stopped".into() }
}

impl Scorer {
    /// Starts the task of an endpoint on a runtime. Nothing has to be in reach: settings alone can be at fault.
    pub fn start(config: ScoreConfig, runtime: &tokio::runtime::Handle) -> Result<Scorer, StartError> {
        let client = http::Client::new(&config)?;
        let (intake, incoming) = mpsc::channel(task::INTAKE_MAX);
        let (swagger_tx, swagger) = watch::channel(None);
        let status = Arc::new(Status::default());
        let stop = CancellationToken::new();
        let scorer = Scorer {
            name: config.name.as_str().into(),
            intake,
            held: Arc::new(Semaphore::new(HELD_BYTES_MAX / PERMIT_BYTES)),
            status: status.clone(),
            swagger,
            stop: stop.clone(),
            runtime: runtime.clone(),
        };
        runtime.spawn(task::Task::new(config, client, status, swagger_tx, stop).run(incoming));
        Ok(scorer)
    }

    /// Hands in a chunk. Waits while too many bytes of rows are held already; a chunk larger than all that may be held
    /// waits until it is alone.
    pub async fn submit(&self, chunk: Chunk) -> Result<Ticket, Ended> {
        let bytes: usize = chunk.args.iter().map(|value| (24 + 2 * value.heap_bytes()).max(ROW_BYTES_MIN)).sum();
        let permits = (bytes / PERMIT_BYTES).clamp(1, HELD_BYTES_MAX / PERMIT_BYTES);
        let wanted = self.held.clone().acquire_many_owned(u32::try_from(permits).unwrap_or(u32::MAX));
        let permit = tokio::select! {
            permit = wanted => permit.map_err(|_| stopped())?,
            () = self.stop.cancelled() => return Err(stopped()),
        };
        let (reply, answer) = oneshot::channel();
        let incoming = task::Incoming { chunk, reply, permit };
        self.intake.send(incoming).await.map_err(|_| self.ended())?;
        Ok(Ticket { answer })
    }

    /// As [`Scorer::submit`], on a plain thread (never inside a runtime).
    pub fn submit_blocking(&self, chunk: Chunk) -> Result<Ticket, Ended> {
        self.runtime.block_on(self.submit(chunk))
    }

    /// Name of the function in the job file.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn status(&self) -> &Status {
        &self.status
    }

    /// The text of the endpoint's description each time a new one is fetched: to be kept for the next start.
    pub fn description_updates(&self) -> watch::Receiver<Option<String>> {
        self.swagger.clone()
    }

    /// Stops at once: requests on their way are given up, tickets end with [`Ended`].
    pub fn stop(&self) {
        self.stop.cancel();
    }

    fn ended(&self) -> Ended {
        match self.status.state() {
            State::Failed { why } => Ended { why },
            _ => stopped(),
        }
    }
}

impl fmt::Debug for Scorer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scorer").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The start of a text, at most `max` bytes and a mark that it was cut.
fn clipped(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_string();
    }
    let end = (0..=max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", text.get(..end).unwrap_or_default())
}

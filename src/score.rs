//! Scoring functions: rows to an endpoint and back, in batches.
//!
//! In: chunks of arguments, one a row. Out: one [`Outcome`] a row, in the order of the chunk: a value, or a failure
//! with its reason. Invariant: whatever the endpoint does, a row ends in exactly one outcome or is still held here, and
//! what is held is bounded. Not here: the order in which chunks are stored, dead letters (both are the pipeline's).
//!
//! A thin task ([`task`]) owns the pure [`desk`], which decides what is sent when; [`policy`] says what an answer
//! means, [`batch`] finds the bad row of a failing batch, [`breaker`] holds the gate, [`absence`] says when rows are
//! answered by somebody else, [`parallel`] is the number of requests at once, [`signature`] and [`body`] convert rows,
//! [`response`] reads results, [`http`] speaks to the endpoint in its [`dialect`].

mod absence;
pub mod azureml;
pub mod batch;
pub mod body;
pub mod breaker;
mod describe;
pub mod desk;
mod dialect;
mod fallback;
mod fetching;
mod http;
mod notice;
pub mod parallel;
pub mod policy;
pub mod queue;
mod rate;
pub mod response;
mod room;
pub mod signature;
mod settings;
mod status;
mod swagger;
mod task;
mod texts;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::batch::Reason;
use crate::tls::TlsError;
use crate::value::Value;

pub use breaker::Pauses;
pub use describe::{Given, describe, misfits};
pub use desk::OnMisfit;
pub use dialect::{DIALECTS, Dialect, ReadDialect};
pub use fallback::Fallback;
pub use http::fetch_signature;
pub use policy::{Mode, Outage};
pub use room::{Berth, Room};
pub use settings::{NanPolicy, Order, ScoreConfig, Timing};
pub use signature::EndpointSignature;
pub use status::{CountBacklog, LATENCY_BOUNDS_MS, ScorerStatus, State};

/// What keeps a scorer from starting.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("function `{name}`: {why}")]
    Tls { name: String, why: TlsError },
    #[error("function `{name}`: the http client does not start: {why}")]
    Client { name: String, why: String },
}

/// Arguments of some rows of a statement, one a row.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Which statement: those that share a function take turns.
    pub statement: usize,
    pub args: Vec<Value>,
    /// The rows wait for the endpoint however long it is away, and let others go first.
    pub is_patient: bool,
    /// They were decided before, and somebody asks for them once more: rows of them that do not fit fail at once, and
    /// say nothing about those of the stream.
    pub is_replay: bool,
}

impl Chunk {
    pub fn new(statement: usize, args: Vec<Value>) -> Chunk {
        Chunk { statement, args, is_patient: false, is_replay: false }
    }
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Scored(Value),
    Failed(Box<Failure>),
    /// The endpoint has been away for `fallback_after`: somebody else is to answer.
    Away,
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
    kept: texts::TextsGuard,
}

/// Longest request and response text kept with a failed row.
const KEPT_MAX: usize = 4096;

impl Failure {
    fn before_sending(bad: body::BadRow, argument: &str) -> Failure {
        let (message, request) = (clipped(&bad.message, KEPT_MAX), clipped(argument, KEPT_MAX));
        Failure { reason: bad.reason, message, request, ..Failure::default() }
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
            ..Failure::default()
        }
    }

    fn text_bytes(&self) -> usize {
        self.message.len() + self.request.len() + self.response.len() + self.request_id.len()
    }
}

/// The scorer is gone: it was stopped, or in mode `asa` the endpoint's answer ends the job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("scoring has ended: {why}")]
pub struct Ended {
    pub why: String,
}

/// A scoring function at work; clones share it. It ends when the last clone and the last ticket are dropped.
#[derive(Clone)]
pub struct Scorer {
    name: Arc<str>,
    intake: mpsc::Sender<task::NewChunk>,
    room: Room,
    rows_max: usize,
    order: Order,
    fallback: Option<Fallback>,
    status: Arc<ScorerStatus>,
    swagger: watch::Receiver<Option<String>>,
    repaired: Arc<Notify>,
    stop: CancellationToken,
    runtime: tokio::runtime::Handle,
}

/// The answer to a chunk, to come.
#[derive(Debug)]
pub struct Ticket {
    answer: oneshot::Receiver<Result<Vec<Outcome>, Ended>>,
    runtime: tokio::runtime::Handle,
    /// The chunk's place; the task holds it too while the rows are there.
    held: Arc<Berth>,
}

impl Ticket {
    /// Waits for the outcomes, one a row in the chunk's order.
    pub async fn outcomes(self) -> Result<Vec<Outcome>, Ended> {
        self.answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// The chunk's place, which is to be held until what came of its rows is durable.
    pub fn into_place(self) -> Arc<Berth> {
        self.held
    }

    /// Waits for the outcomes, but no longer than this; on a plain thread (never inside a runtime).
    pub fn wait(&mut self, at_most: Duration) -> Option<Result<Vec<Outcome>, Ended>> {
        if let Some(answer) = self.poll() {
            return Some(answer);
        }
        let answer = &mut self.answer;
        let waited = self.runtime.block_on(async { tokio::time::timeout(at_most, answer).await });
        waited.ok().map(|answer| answer.unwrap_or_else(|_| Err(stopped())))
    }

    /// The outcomes, if they are there; to be asked no more after that.
    pub fn poll(&mut self) -> Option<Result<Vec<Outcome>, Ended>> {
        match self.answer.try_recv() {
            Ok(answer) => Some(answer),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(stopped())),
        }
    }
}

/// Answers in the order in which they come.
#[derive(Debug, Default)]
pub struct Answers {
    to_come: JoinSet<NumberedAnswer>,
    runtime: Option<tokio::runtime::Handle>,
}

/// The number of a chunk, its answer and its place.
type NumberedAnswer = (u64, Result<Vec<Outcome>, Ended>, Arc<Berth>);

impl Answers {
    /// The answer to come has this number.
    pub fn expect(&mut self, number: u64, ticket: Ticket) {
        let Ticket { answer, runtime, held } = ticket;
        let to_come = async move { (number, answer.await.unwrap_or_else(|_| Err(stopped())), held) };
        self.to_come.spawn_on(to_come, &runtime);
        self.runtime = Some(runtime);
    }

    /// The next one, if it is there.
    pub fn poll(&mut self) -> Option<NumberedAnswer> {
        self.to_come.try_join_next().and_then(Result::ok)
    }

    /// Waits for the next one, but no longer than this, and not once somebody knocks; on a plain thread.
    pub fn wait(&mut self, at_most: Duration, knock: &Notify) -> Option<NumberedAnswer> {
        if let Some(answered) = self.poll() {
            return Some(answered);
        }
        let to_come = &mut self.to_come;
        self.runtime.as_ref()?.block_on(async {
            tokio::select! {
                answered = to_come.join_next() => answered.and_then(Result::ok),
                () = knock.notified() => None,
                () = tokio::time::sleep(at_most) => None,
            }
        })
    }
}

fn stopped() -> Ended {
    Ended { why: "it was stopped".into() }
}

impl Scorer {
    /// Starts the task of an endpoint on a runtime. Nothing has to be in reach: settings alone can be at fault.
    pub fn start(config: ScoreConfig, runtime: &tokio::runtime::Handle) -> Result<Scorer, StartError> {
        let client = http::EndpointClient::new(&config)?;
        let (intake, incoming) = mpsc::channel(task::INTAKE_MAX);
        let (swagger_tx, swagger) = watch::channel(None);
        let status = Arc::new(ScorerStatus::default());
        let (repaired, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let room = Room::new(config.max_batch_count, config.parallel_requests as usize);
        let left = room.left();
        let scorer = Scorer {
            name: config.name.as_str().into(),
            intake,
            room,
            rows_max: config.max_batch_count,
            order: config.order,
            fallback: config.fallback.clone(),
            status: status.clone(),
            swagger,
            repaired: repaired.clone(),
            stop: stop.clone(),
            runtime: runtime.clone(),
        };
        let task = task::Task::new(config, Box::new(client), left, status, swagger_tx, repaired, stop);
        runtime.spawn(task.run(incoming).in_current_span());
        Ok(scorer)
    }

    /// Most rows in a request.
    pub fn rows_max(&self) -> usize {
        self.rows_max
    }

    /// In which order answers may be stored.
    pub fn order(&self) -> Order {
        self.order
    }

    /// Who answers in place of the endpoint where rows end in [`Outcome::Away`].
    pub fn fallback(&self) -> Option<&Fallback> {
        self.fallback.as_ref()
    }

    /// Another part calls the endpoint, and has as many records to read as this says.
    pub fn add_backlog(&self, backlog: CountBacklog) {
        self.status.add_backlog(backlog);
    }

    /// Hands in a chunk. Waits while too much is under way; a chunk larger than all of that waits until it is alone.
    ///
    /// # Errors
    /// The scorer has ended.
    pub async fn submit(&self, chunk: Chunk) -> Result<Ticket, Ended> {
        let bytes = chunk.args.iter().map(|value| 24 + 2 * value.heap_bytes()).sum();
        self.submit_beside(chunk, bytes, &self.room).await
    }

    /// Room for what one part of a statement has under way: it is taken until the answers are committed, so one part
    /// must not wait for what another holds.
    pub fn new_room(&self) -> Room {
        self.room.another()
    }

    async fn submit_beside(&self, chunk: Chunk, bytes: usize, room: &Room) -> Result<Ticket, Ended> {
        let held = tokio::select! {
            held = room.hold(chunk.args.len(), bytes) => Arc::new(held.ok_or_else(stopped)?),
            () = self.stop.cancelled() => return Err(stopped()),
        };
        let (reply, answer) = oneshot::channel();
        let incoming = task::NewChunk { chunk, reply, held: held.clone() };
        self.intake.send(incoming).await.map_err(|_| self.ended())?;
        Ok(Ticket { answer, runtime: self.runtime.clone(), held })
    }

    /// As [`Scorer::submit`], on a plain thread (never inside a runtime). `bytes`: what the rows take with all that is
    /// kept beside their arguments.
    ///
    /// # Errors
    /// The scorer has ended.
    pub fn submit_blocking(&self, chunk: Chunk, bytes: usize, room: &Room) -> Result<Ticket, Ended> {
        self.runtime.block_on(self.submit_beside(chunk, bytes, room))
    }

    /// Name of the function in the job file.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn status(&self) -> &ScorerStatus {
        &self.status
    }

    /// The text of the endpoint's description each time a new one is fetched: to be kept for the next start.
    pub fn description_updates(&self) -> watch::Receiver<Option<String>> {
        self.swagger.clone()
    }

    /// Looks at the endpoint at once, whatever it waits for: somebody says that something was repaired.
    pub fn look_now(&self) {
        self.repaired.notify_one();
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

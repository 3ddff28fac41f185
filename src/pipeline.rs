//! READ THIS FIRST: builds the stages from a job, wires them, and drains them in order.
//!
//! In: a checked job and its compiled query ([`prepare`]). Out: a [`Pipeline`] that runs until it is stopped.
//! Invariant: stages stop in flow order (sources, intake, consumers, outputs, journal), so that each finds what it
//! needs still there. Not here: what any stage does.

mod ahead;
mod called;
mod catch_up;
mod catch_ups;
mod clock_watch;
mod commits;
mod consumer;
mod cycle;
mod delivery;
mod due;
mod failing;
mod failures;
mod fallbacks;
mod feed;
mod flow;
pub mod functions;
mod gathering;
mod health;
mod identity;
mod intake;
pub mod lateness;
mod local_answers;
mod mark;
mod names;
mod outputs;
mod pool;
pub mod prepare;
mod reading;
mod references;
mod registered;
mod reloads;
mod replay;
mod report;
mod rescoring;
mod scorers;
mod scoring;
pub mod set_aside;
#[cfg(test)]
mod tests;
mod sources;
mod stalls;
mod standings;
mod state_budget;
mod statement;
mod steering;
mod stop;
mod tables;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use smol_str::SmolStr;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::arrival::{ArrivalClock, Eras};
use crate::connections::Connections;
use crate::job::Job;
use crate::journal::{Journal, JournalConfig, JournalError};
use crate::score::{Scorer, State};
use crate::source::Source;
use crate::telemetry::{self, Report};
use crate::time::{Clock, task_now};
use crate::udf::Versions;

pub use catch_up::Trend;
use functions::{LookOutcome, Looks};
use health::Health;
use outputs::OutputHandle;
pub use prepare::{PrepareError, Prepared};
use replay::Replayer;
pub use report::Snapshot;
use report::WatchedStages;
use set_aside::AsideJob;
use stop::Stop;

/// Why a job cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Metrics(#[from] telemetry::BindError),
    #[error(
        "statement {statement} stopped at offset {offset}: {message}; correct the query or the data and start again, \
        or set on_error = \"dead-letter\""
    )]
    StatementStopped { statement: SmolStr, offset: i64, message: String },
    #[error(
        "statement {statement} stopped: {why}; repair the endpoint and start again, or set mode = \"edge\" to wait for \
        it instead"
    )]
    ScoringEnded { statement: SmolStr, why: String },
    #[error(
        "statement {statement} stopped: its state in the pool is damaged ({reason}), the other statements go on. Stop \
        the job, give up what the statement holds (windows that are open, joins, LAG, what functions remember) by \
        `forebay journal reset-state --job JOB {statement}`, and start again"
    )]
    StateDamaged { statement: SmolStr, reason: String },
    #[error("input {name}: {reason}")]
    Input { name: SmolStr, reason: String },
    #[error("output {name}: {reason}")]
    Output { name: SmolStr, reason: String },
    #[error("function {name}: {reason}")]
    Function { name: SmolStr, reason: String },
    #[error(
        "{who} panicked, which is a fault of forebay: please report it with the log; the pool is safe, start again"
    )]
    Panicked { who: SmolStr },
    #[error("{what}: {source}")]
    System { what: &'static str, source: std::io::Error },
}

/// A thread of the job and its end.
type Worker = JoinHandle<Result<(), PipelineError>>;

/// A running job.
#[derive(Debug)]
pub struct Pipeline {
    journal: Journal,
    stop: Stop,
    health: Arc<Health>,
    watched: Arc<WatchedStages>,
    sources: Vec<Box<dyn Source>>,
    intakes: Vec<tokio::task::JoinHandle<Result<(), JournalError>>>,
    workers: Vec<Worker>,
    outputs: Vec<(OutputHandle, tokio::task::JoinHandle<()>)>,
    metrics: Option<SocketAddr>,
    serving: CancellationToken,
    server: Option<tokio::task::JoinHandle<()>>,
    scorers: Vec<Scorer>,
    /// Ends the tasks that load reference data.
    loading: DropGuard,
    loaders: Vec<tokio::task::JoinHandle<()>>,
    /// Asks for a look at the functions' files.
    looks: Looks,
    /// Ends deliveries that wait for somebody else.
    hurry: CancellationToken,
    /// Ends the answers to commands, and their task.
    unheard: CancellationToken,
    steering: Option<tokio::task::JoinHandle<()>>,
}

/// How long a stop waits for answers that are on their way.
const DRAIN: Duration = Duration::from_secs(5);

impl Pipeline {
    /// Starts a job: binds and builds everything, then starts it in flow order from behind. Needs a tokio runtime.
    ///
    /// # Errors
    /// What keeps the job from starting; nothing runs then, and the pool is free again.
    pub async fn start(job: &Job, prepared: &Prepared, clock: Clock) -> Result<Pipeline, PipelineError> {
        let journal = tokio::task::block_in_place(|| Journal::open(journal_config(job, &clock)))?;
        let margin = clock_watch::margin(&prepared.plan, prepared.options.policies.late_tolerance);
        let eras = Eras::clone(&journal.eras());
        let arrival = ArrivalClock::of_pool(clock.clone(), journal.last_arrival(), eras, margin);
        let health = Arc::new(Health::new(job.state_bytes_max));
        let versions = Versions::new(&prepared.bindings);
        let watched = Arc::new(WatchedStages::new(
            job,
            journal.clone(),
            &clock,
            health.clone(),
            arrival,
            &prepared.bindings,
            versions.clone(),
        ));
        let loading = CancellationToken::new();
        let (looks, watching) = functions::start(job, prepared, &versions, loading.clone());
        let mut pipeline = Pipeline {
            journal,
            stop: Stop::default(),
            health,
            watched,
            sources: Vec::new(),
            intakes: Vec::new(),
            workers: Vec::new(),
            outputs: Vec::new(),
            metrics: None,
            serving: CancellationToken::new(),
            server: None,
            loading: loading.clone().drop_guard(),
            loaders: vec![watching],
            looks,
            hurry: CancellationToken::new(),
            unheard: CancellationToken::new(),
            steering: None,
            scorers: Vec::new(),
        };
        if let Err(error) = pipeline.begin(job, prepared, &versions, &loading, &clock).await {
            if let PipelineError::Journal(error) = &error {
                pipeline.journal.note_beyond_use(error);
            }
            // its own error could only follow from this one
            let _ = pipeline.stop().await;
            return Err(error);
        }
        tracing::info!(job = %job.name, pool = %pipeline.journal.path().display(), "running");
        Ok(pipeline)
    }

    /// Starts the stages. What runs when one of them fails is for [`Pipeline::stop`] to end.
    async fn begin(
        &mut self,
        job: &Job,
        prepared: &Prepared,
        versions: &Versions,
        loading: &CancellationToken,
        clock: &Clock,
    ) -> Result<(), PipelineError> {
        let listener = match job.metrics.enabled {
            true => Some(telemetry::bind(job.metrics.listen).await?),
            false => None,
        };
        let connections = Connections::default();
        self.outputs = outputs::start(job, &self.journal, clock, &self.watched, &self.hurry, &connections)?;
        let scorers = scorers::start(job, &self.journal, &self.watched)?;
        self.scorers = scorers.values().cloned().collect();
        let (references, loaders) = references::start(job, &self.journal, clock, &self.watched, loading)?;
        self.loaders.extend(loaders);
        let build = statement::StatementBuild {
            job,
            prepared,
            versions,
            journal: &self.journal,
            outputs: &self.outputs,
            scorers: &scorers,
            references: &references,
            stop: &self.stop,
            health: &self.health,
            clock,
            arrival: self.watched.arrival(),
            failures: self.watched.failures(),
            catch_ups: self.watched.catch_ups(),
            stalls: &self.watched.stalls,
            is_driven: false,
        };
        let (parts, consumers) = tokio::task::block_in_place(|| build.make())?;
        // what comes meanwhile is stored
        (self.sources, self.intakes) = sources::start(job, &self.journal, &self.watched, &self.health, &connections)?;
        tokio::task::block_in_place(|| build.keep_only(&consumers))?;
        let catch_ups = self.watched.catch_ups().clone();
        let fill = job.outputs.iter().map(|output| output.settings.fill().time).max().unwrap_or_default();
        tokio::task::block_in_place(|| catch_ups.begin(&self.journal, fill))?;
        let watch = catch_ups.watch(self.journal.clone(), clock.clone(), loading.clone());
        self.loaders.push(tokio::spawn(watch));
        let watch = self.watched.failures().clone().watch(self.journal.clone(), clock.clone(), loading.clone());
        self.loaders.push(tokio::spawn(watch));
        let watch = standings::watch(self.watched.clone(), clock.clone(), loading.clone());
        self.loaders.push(tokio::spawn(watch));
        let watch = clock_watch::watch(self.journal.clone(), self.watched.arrival().clone(), loading.clone());
        self.loaders.push(tokio::spawn(watch));
        for part in parts {
            self.workers.push(part.spawn(&self.health)?);
        }
        let plan = tokio::task::block_in_place(|| build.replay_plan())?;
        let arrival = self.watched.arrival().clone();
        let replayer = Replayer::new(self.journal.clone(), plan, self.stop.clone(), clock.clone(), arrival);
        let heard = steering::Heard {
            journal: self.journal.clone(),
            replayer,
            job: AsideJob::of(job),
            health: self.health.clone(),
            watched: self.watched.clone(),
        };
        self.steering = steering::listen(heard, self.unheard.clone());
        (self.metrics, self.server) =
            listener.map(|listener| serve(listener, &self.watched, &self.serving)).transpose()?.unzip();
        Ok(())
    }

    /// Says something about this job on `/readyz` and in the log, or takes back what was said.
    pub fn note(&self, text: Option<String>) {
        self.health.note(text);
    }

    /// Where `/metrics`, `/healthz` and `/readyz` are; `None` when they are switched off.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Everything that is exported at `/metrics`.
    pub fn report(&self) -> Report {
        self.watched.report()
    }

    /// A few numbers for a status line.
    pub fn snapshot(&self) -> Snapshot {
        self.watched.snapshot()
    }

    /// Looks at the functions' files now and takes what is new in them, if it fits.
    pub async fn look_at_functions(&self) -> LookOutcome {
        self.looks.now().await
    }

    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Resolves when the job cannot go on as a whole: the journal refuses.
    pub async fn failed(&self) -> String {
        self.health.failed().await
    }

    /// Stops in flow order: no further input, everything received is stored and acknowledged, consumers commit what
    /// they have, outputs say goodbye, the journal closes. What cannot be finished in a few seconds (the pool is full,
    /// a broker or an endpoint is away) stays where it is and goes on at the next start.
    ///
    /// # Errors
    /// The first thing that went wrong; what was committed stays committed.
    pub async fn stop(self) -> Result<(), PipelineError> {
        drop(self.loading);
        self.health.state.release();
        let mut sources: JoinSet<()> = self.sources.into_iter().map(|source| source.stop()).collect();
        while sources.join_next().await.is_some() {}
        self.stop.set();
        self.unheard.cancel();
        self.journal.wake_readers();
        self.watched.release();
        let ended = CancellationToken::new();
        tokio::spawn(hurry(self.scorers, self.journal.clone(), self.hurry, ended.clone()));
        let stopping = |e| PipelineError::System { what: "stopping", source: std::io::Error::other(e) };
        let mut first = Ok(());
        for intake in self.intakes {
            let ended = intake.await.map_err(stopping)?;
            first = first.and(ended_well(Ok(ended.map_err(PipelineError::from))));
        }
        let workers = self.workers;
        let joined = tokio::task::spawn_blocking(move || {
            workers.into_iter().map(|worker| ended_well(worker.join())).fold(first, Result::and)
        });
        let result = joined.await.map_err(stopping)?;
        for loader in self.loaders {
            // one that was cancelled has nothing to say
            let _ = loader.await;
        }
        if let Some(steering) = self.steering {
            // it has handles of the outputs; a task that panicked has given them back
            let _ = steering.await;
        }
        for (handle, task) in self.outputs {
            drop(handle);
            // a task that was cancelled has nothing left to say
            let _ = task.await;
        }
        ended.cancel();
        self.serving.cancel();
        if let Some(server) = self.server {
            // its port is free for a reloaded job once it has ended; a scrape that hangs does not hold that up
            let _ = tokio::time::timeout(DRAIN, server).await;
        }
        if let Err(PipelineError::Journal(error)) = &result {
            self.journal.note_beyond_use(error);
        }
        tokio::task::block_in_place(|| self.journal.close());
        result
    }
}

/// Sees to it that a stop ends: gives up requests and deliveries that wait for somebody else, then commits that wait
/// for room.
async fn hurry(scorers: Vec<Scorer>, journal: Journal, hurry: CancellationToken, ended: CancellationToken) {
    let end = task_now() + DRAIN;
    let waiting =
        |s: &Scorer| s.status().waiting_rows.load(Ordering::Relaxed) + s.status().in_flight.load(Ordering::Relaxed);
    let busy = |s: &Scorer| s.status().state() == State::Ready && waiting(s) > 0;
    while task_now() < end && scorers.iter().any(busy) && !ended.is_cancelled() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // an endpoint that is away keeps its rows in the journal
    scorers.iter().for_each(Scorer::stop);
    if tokio::time::timeout_at(end, ended.cancelled()).await.is_err() {
        hurry.cancel();
    }
    if tokio::time::timeout(DRAIN, ended.cancelled()).await.is_err() {
        tracing::warn!("stopping with work unfinished: it goes on at the next start");
        let _ = tokio::task::spawn_blocking(move || journal.close()).await;
    }
}

/// How a thread ended, as the end of the job sees it: what a statement stopped for was told when it happened, and a
/// commit that the closing journal refused is done again at the next start.
fn ended_well(joined: std::thread::Result<Result<(), PipelineError>>) -> Result<(), PipelineError> {
    match joined {
        Ok(Err(
            PipelineError::StatementStopped { .. }
            | PipelineError::ScoringEnded { .. }
            | PipelineError::Journal(JournalError::Closed | JournalError::NoRoom { .. }),
        )) => Ok(()),
        Ok(result) => result,
        Err(_) => Err(PipelineError::Panicked { who: SmolStr::new_static("a thread of the job") }),
    }
}

/// How the pool of a job is opened, whoever does it: what a source needs of it stays there.
pub fn journal_config(job: &Job, clock: &Clock) -> JournalConfig {
    JournalConfig { recent_records: sources::recent_records(job), clock: clock.clone(), ..job.journal.config.clone() }
}

fn serve(
    listener: TcpListener,
    watched: &Arc<WatchedStages>,
    serving: &CancellationToken,
) -> Result<(SocketAddr, tokio::task::JoinHandle<()>), PipelineError> {
    let address = listener.local_addr().map_err(|source| PipelineError::System { what: "the metrics port", source })?;
    let (of_report, of_sick, ended) = (watched.clone(), watched.clone(), serving.clone().cancelled_owned());
    let (report, sick) = (Arc::new(move || of_report.report()), Arc::new(move || of_sick.sick()));
    let server = tokio::spawn(async move {
        if let Err(error) = telemetry::serve(listener, report, sick, ended).await {
            tracing::error!("the metrics port failed: {error}");
        }
    });
    tracing::info!("metrics on http://{address}/metrics");
    Ok((address, server))
}

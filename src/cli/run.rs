//! `forebay run JOB`: until SIGTERM or Ctrl-C, which drain and commit; SIGHUP takes new functions, or reads the job
//! again.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::say::{complain, complain_of_job};
use crate::diagnostic::Diagnostics;
use crate::job;
use crate::kill_point;
use crate::pipeline::functions::LookOutcome;
use crate::pipeline::{Pipeline, Prepared};
use crate::time::Clock;

#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The job file (TOML)
    job: PathBuf,
}

/// Runs the job; 2 for a mistake in the job, 1 for a failure.
pub fn run(args: &RunArgs) -> ExitCode {
    if let Err(problem) = kill_point::arm() {
        complain(format_args!("error: {problem}\n"));
        return ExitCode::from(2);
    }
    match LoadedJob::read(&args.job) {
        Err(problems) => {
            complain(problems);
            ExitCode::from(2)
        }
        Ok(loaded) => match serve(&args.job, loaded) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain_of_job(format_args!("error: {error}\n"));
                ExitCode::FAILURE
            }
        },
    }
}

/// Loads and compiles a job; all problems as text.
///
/// # Errors
/// Every problem found.
pub fn load(path: &Path) -> Result<(job::Job, Prepared), String> {
    let job = job::load(path).map_err(|e| e.to_string())?;
    job.check_secrets().map_err(|e| e.to_string())?;
    let prepared = crate::pipeline::prepare::prepare(&job).map_err(|e| e.to_string())?;
    Ok((job, prepared))
}

/// A job and the text that it was made of.
struct LoadedJob {
    text: Option<Vec<u8>>,
    job: job::Job,
    prepared: Prepared,
}

impl LoadedJob {
    fn read(path: &Path) -> Result<LoadedJob, String> {
        // read first: a file that changes meanwhile is another one afterwards
        let text = std::fs::read(path).ok();
        load(path).map(|(job, prepared)| LoadedJob { text, job, prepared })
    }

    async fn start(&self) -> Result<Pipeline, String> {
        for warning in self.prepared.warnings.iter().flat_map(Diagnostics::log_lines) {
            tracing::warn!("{warning}");
        }
        Pipeline::start(&self.job, &self.prepared, Clock::Real).await.map_err(|e| e.to_string())
    }

    /// Whether job file and query are what this job was made of, so that only functions can be new.
    fn is_same(&self, path: &Path) -> bool {
        self.text.as_ref().is_some_and(|text| std::fs::read(path).is_ok_and(|now| now == *text))
            && std::fs::read(&self.job.query).is_ok_and(|now| now == self.prepared.text.as_bytes())
    }
}

/// Threads of the runtime: sources, intakes, outputs and endpoints wait most of the time. A second one would be woken
/// for nothing by each event of a slow stream; what takes long goes to threads of its own.
const RUNTIME_THREADS: usize = 1;

/// The runtime that all network stages share.
///
/// # Errors
/// When the system gives no thread.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(RUNTIME_THREADS).enable_all().build()
}

/// Why a running job stops.
enum Interruption {
    Stop,
    Reload(Box<LoadedJob>),
    Fatal(String),
}

fn serve(path: &Path, loaded: LoadedJob) -> Result<(), String> {
    runtime().map_err(|e| e.to_string())?.block_on(async {
        let mut signals = Signals::listen()?;
        tokio::spawn(super::memory::give_back_each_minute());
        let mut running = loaded;
        let mut pipeline = running.start().await?;
        loop {
            match signals.word(path, &running, &pipeline).await {
                Interruption::Stop => {
                    tracing::info!("stopping");
                    pipeline.stop().await.map_err(|e| e.to_string())?;
                    tracing::info!("stopped");
                    return Ok(());
                }
                Interruption::Fatal(why) => {
                    tracing::info!("stopping");
                    // what is fatal says more than what follows from it
                    let _ = pipeline.stop().await;
                    return Err(why);
                }
                Interruption::Reload(next) => {
                    tracing::info!("reloading");
                    pipeline.stop().await.map_err(|e| e.to_string())?;
                    (running, pipeline) = reload(running, *next).await?;
                }
            }
        }
    })
}

/// Starts the new job, or the former one again when that cannot start.
async fn reload(former: LoadedJob, next: LoadedJob) -> Result<(LoadedJob, Pipeline), String> {
    let error = match next.start().await {
        Ok(pipeline) => return Ok((next, pipeline)),
        Err(error) => error,
    };
    let pipeline = former.start().await.map_err(|again| format!("{again}; it was to be replaced, but {error}"))?;
    pipeline.note(Some(format!("not reloaded, the job goes on as it was: {error}; correct it and send SIGHUP again")));
    Ok((former, pipeline))
}

/// The signals that a job heeds.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Signals, String> {
        let listen = |kind| signal(kind).map_err(|e| e.to_string());
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits until the job has to stop. New functions in a job that is otherwise as it was need no stop.
    async fn word(&mut self, path: &Path, running: &LoadedJob, pipeline: &Pipeline) -> Interruption {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Interruption::Stop,
                _ = self.interrupt.recv() => return Interruption::Stop,
                why = pipeline.failed() => return Interruption::Fatal(why),
                _ = self.hangup.recv() => {}
            }
            if running.is_same(path) && pipeline.look_at_functions().await == LookOutcome::Done {
                tracing::info!("functions looked at, the job goes on");
                pipeline.note(None);
                continue;
            }
            match tokio::task::block_in_place(|| LoadedJob::read(path)) {
                Ok(next) => return Interruption::Reload(Box::new(next)),
                Err(problems) => {
                    let text = format!(
                        "not reloaded, the job goes on as it was; correct it and send SIGHUP again:\n{problems}"
                    );
                    pipeline.note(Some(text));
                }
            }
        }
    }
}

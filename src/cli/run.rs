//! `forebay run JOB`: until SIGTERM or Ctrl-C, which drain and commit.

use std::path::PathBuf;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::job;
use crate::pipeline::{Pipeline, Prepared};
use crate::time::Clock;

#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The job file (TOML)
    job: PathBuf,
}

/// Runs the job; 2 for a mistake in the job, 1 for a failure.
pub fn run(args: &RunArgs) -> ExitCode {
    match load(&args.job) {
        Err(problems) => {
            eprint!("{problems}");
            ExitCode::from(2)
        }
        Ok((job, prepared)) => match serve(&job, prepared) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        },
    }
}

/// Loads and compiles a job; all problems as text.
///
/// # Errors
/// Every problem found.
pub fn load(path: &std::path::Path) -> Result<(job::Job, Prepared), String> {
    let job = job::load(path).map_err(|e| e.to_string())?;
    job.check_secrets().map_err(|e| e.to_string())?;
    let prepared = crate::pipeline::prepare::prepare(&job).map_err(|e| e.to_string())?;
    Ok((job, prepared))
}

/// Threads of the runtime: sources, outputs and endpoints wait most of the time.
const RUNTIME_THREADS: usize = 2;

/// The runtime that all network stages share.
///
/// # Errors
/// When the system gives no thread.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(RUNTIME_THREADS).enable_all().build()
}

fn serve(job: &job::Job, prepared: Prepared) -> Result<(), String> {
    for warning in &prepared.warnings {
        tracing::warn!("{warning}");
    }
    runtime().map_err(|e| e.to_string())?.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
        let pipeline = Pipeline::start(job, prepared, Clock::Real).await.map_err(|e| e.to_string())?;
        let fatal = tokio::select! {
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
            why = pipeline.failed() => Some(why),
        };
        tracing::info!("stopping");
        let stopped = pipeline.stop().await.map_err(|e| e.to_string());
        match fatal {
            Some(why) => Err(why),
            None => stopped.inspect(|()| tracing::info!("stopped")),
        }
    })
}

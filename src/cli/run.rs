//! `forebay run JOB`: until SIGTERM or Ctrl-C, which drain and commit; SIGHUP takes new functions, or reads the job again.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::job;
use crate::pipeline::functions::Look;
use crate::pipeline::{Pipeline, Prepared};
use crate::time::Clock;

#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The job file (TOML)
    job: PathBuf,
}

/// Runs the job; 2 for a mistake in the job, 1 for a failure.
pub fn run(args: &RunArgs) -> ExitCode {
    match Loaded::read(&args.job) {
        Err(problems) => {
            eprint!("{problems}");
            ExitCode::from(2)
        }
        Ok(loaded) => match serve(&args.job, loaded) {
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
pub fn load(path: &Path) -> Result<(job::Job, Prepared), String> {
    let job = job::load(path).map_err(|e| e.to_string())?;
    job.check_secrets().map_err(|e| e.to_string())?;
    let prepared = crate::pipeline::prepare::prepare(&job).map_err(|e| e.to_string())?;
    Ok((job, prepared))
}

/// A job and the text that it was made of.
struct Loaded {
    text: Option<Vec<u8>>,
    job: job::Job,
    prepared: Prepared,
}

impl Loaded {
    fn read(path: &Path) -> Result<Loaded, String> {
        // read first: a file that changes meanwhile is another one afterwards
        let text = std::fs::read(path).ok();
        load(path).map(|(job, prepared)| Loaded { text, job, prepared })
    }
}

/// Whether job file and query are what the running job was made of, so that only functions can be new.
fn is_same(path: &Path, text: Option<&Vec<u8>>, job: &job::Job, query: &str) -> bool {
    text.is_some_and(|text| std::fs::read(path).is_ok_and(|now| now == *text))
        && std::fs::read(&job.query).is_ok_and(|now| now == query.as_bytes())
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

/// Why a running job stops.
enum Word {
    Stop,
    Reload,
    Fatal(String),
}

fn serve(path: &Path, loaded: Loaded) -> Result<(), String> {
    runtime().map_err(|e| e.to_string())?.block_on(async {
        let listen = |kind| signal(kind).map_err(|e| e.to_string());
        let mut signals = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?, listen(SignalKind::hangup())?);
        let mut next = Some(loaded);
        while let Some(Loaded { text, job, prepared }) = next.take() {
            for warning in &prepared.warnings {
                tracing::warn!("{warning}");
            }
            let query = prepared.text.clone();
            let pipeline = Pipeline::start(&job, prepared, Clock::Real).await.map_err(|e| e.to_string())?;
            let word = loop {
                let word = tokio::select! {
                    _ = signals.0.recv() => Word::Stop,
                    _ = signals.1.recv() => Word::Stop,
                    _ = signals.2.recv() => Word::Reload,
                    why = pipeline.failed() => Word::Fatal(why),
                };
                let Word::Reload = word else { break word };
                // new functions in a job that is otherwise as it was need no stop
                if is_same(path, text.as_ref(), &job, &query) && pipeline.look_at_functions().await == Look::Done {
                    tracing::info!("functions looked at, the job goes on");
                    continue;
                }
                // a job that is not valid is told, and the running one goes on
                match tokio::task::block_in_place(|| Loaded::read(path)) {
                    Ok(loaded) => {
                        next = Some(loaded);
                        break Word::Reload;
                    }
                    Err(problems) => tracing::error!("not reloaded, the job goes on as it was:\n{problems}"),
                }
            };
            tracing::info!("{}", if next.is_some() { "reloading" } else { "stopping" });
            let stopped = pipeline.stop().await.map_err(|e| e.to_string());
            if let Word::Fatal(why) = word {
                return Err(why);
            }
            stopped?;
        }
        tracing::info!("stopped");
        Ok(())
    })
}

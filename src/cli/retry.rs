//! `forebay retry`: has a running job look at an endpoint now.
//!
//! In: a job and a function. Out: how the endpoint stands then. Invariant: a job that does not run is not touched.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::say::{answer, complain};
use crate::control::{ControlClient, ControlRequest, ControlResponse};
use crate::job;

/// How long the job may take to say how the endpoint stands.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub struct RetryArgs {
    /// The job file
    #[arg(long)]
    job: PathBuf,
    /// The function whose endpoint was repaired
    function: String,
}

/// Exit code 0 when the endpoint is used again, 1 when it is not, 2 for a mistake in the job.
pub fn run(args: &RetryArgs) -> ExitCode {
    match retry(args) {
        Ok(text) => answer(&format!("{text}\n"), ExitCode::SUCCESS),
        Err((code, why)) => {
            complain(format_args!("error: {why}\n"));
            ExitCode::from(code)
        }
    }
}

fn retry(args: &RetryArgs) -> Result<String, (u8, String)> {
    let RetryArgs { job: path, function } = args;
    let text = job::text(path).map_err(|e| (2, e.to_string()))?;
    let job = job::parse(&text, path).map_err(|e| (2, e.to_string()))?;
    let called = ControlClient::call(&job.journal.config.path).map_err(|e| (1, e.to_string()))?;
    let mut client = called.ok_or_else(|| {
        let shown = path.display();
        (1, format!("the job does not run: start it with `forebay run {shown}`, it looks at its endpoints then"))
    })?;
    let request = ControlRequest::Retry { function: function.clone() };
    match client.ask(&request, PATIENCE).map_err(|e| (1, e.to_string()))? {
        ControlResponse::Retried { trouble: None } => Ok(format!("function {function}: the endpoint is in use")),
        ControlResponse::Retried { trouble: Some(trouble) } => Err((1, format!("function {function}: {trouble}"))),
        ControlResponse::Refused { why } => Err((1, why)),
        other => Err((1, format!("the job answered {other:?}: use the program that it runs"))),
    }
}

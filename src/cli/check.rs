//! `forebay check JOB`: everything that can be known before the job runs.
//!
//! In: a job file. Out: the plan, the signatures of the functions and of the endpoints; or every problem, exit 2.
//! Invariant: nothing is changed and no row is sent; an endpoint is asked only for its description, and one that is away
//! is no mistake. Not here: wording of problems (`diagnostic`).

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::job::{AzureMlFunction, FunctionKind, InputKind, Job};
use crate::pipeline::{Prepared, score_config};
use crate::query::plan::explain;
use crate::score::{Signature, describe, fetch_swagger};

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// The job file (TOML)
    job: PathBuf,
    /// Do not ask the endpoints for their signatures
    #[arg(long)]
    offline: bool,
}

/// How long an endpoint may take to describe itself: a person waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// Checks the job: 0 and the plan, or 2 and the problems.
pub fn run(args: &CheckArgs) -> ExitCode {
    match super::run::load(&args.job) {
        Ok((job, prepared)) => {
            print!("{}", report(&job, &prepared, args.offline));
            println!("the job is valid");
            ExitCode::SUCCESS
        }
        Err(problems) => {
            eprint!("{problems}");
            ExitCode::from(2)
        }
    }
}

fn report(job: &Job, prepared: &Prepared, offline: bool) -> String {
    let mut out = format!("job {}, pool {}\n\nplan\n{}", job.name, job.journal.path.display(), indented(&explain(&prepared.plan)));
    if !job.functions.is_empty() {
        out.push_str("\nfunctions\n");
    }
    for binding in &prepared.bindings {
        let wit = binding.signature().map_or("", |s| s.text.as_str());
        let params = binding.signature().map(|s| s.params.iter().map(|p| format!("{} {}", p.name, p.shape)).collect::<Vec<_>>().join(", "));
        let result = binding.signature().map(|s| s.result.to_string()).unwrap_or_default();
        out.push_str(&format!(
            "  udf.{}({}) returns {result}\n    {wit}\n    from {}\n",
            binding.name,
            params.unwrap_or_default(),
            binding.component.path().display()
        ));
    }
    for function in &job.functions {
        if let FunctionKind::AzureMl(endpoint) = &function.kind {
            out.push_str(&format!(
                "  udf.{} at {}\n{}",
                function.name,
                endpoint.url,
                indented(&indented(&signature(&function.name, endpoint, offline)))
            ));
        }
    }
    for warning in &prepared.warnings {
        out.push_str(&format!("\n{warning}\n"));
    }
    if job.inputs.iter().any(|i| matches!(i.kind, InputKind::Mqtt(_))) {
        out.push_str("\nnote: while this gateway is away the broker keeps its messages only as far as its own queue limit goes;\n      mosquitto keeps 1,000 for a client unless max_queued_messages is raised\n");
    }
    out
}

/// The endpoint's signature in words, or why it is not known now.
fn signature(name: &str, endpoint: &AzureMlFunction, offline: bool) -> String {
    let config = match score_config(name, endpoint) {
        Ok(config) => config,
        Err(error) => return format!("its signature is wrong: {error}\n"),
    };
    if let Some(signature) = &config.signature {
        return describe(signature, &[]);
    }
    if offline {
        return "its signature was not asked for (--offline)\n".to_owned();
    }
    let fetched = super::run::runtime().map_err(|e| e.to_string()).and_then(|runtime| {
        runtime.block_on(async {
            tokio::time::timeout(PATIENCE, fetch_swagger(&config)).await.unwrap_or_else(|_| Err(format!("no answer in {PATIENCE:?}")))
        })
    });
    match fetched {
        Ok(Some((_, signature))) => describe(&signature, &[]),
        Ok(None) => format!(
            "it publishes no description, so nothing is checked or converted before sending\n{}",
            describe(&Signature::untyped(), &[])
        ),
        Err(error) => {
            format!("its signature is not known now: {error}\nthat is no mistake: rows wait in the pool until the endpoint answers\n")
        }
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") }).collect()
}

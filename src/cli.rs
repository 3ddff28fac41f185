//! The commands: one file each.
//!
//! In: arguments. Out: what a person reads, and an exit code: 0 done, 1 failure, 2 bad input (3: a query stopped by a
//! runtime error, `eval` only). Not here: anything that another stage could use.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use memory::share_memory;
pub use say::{LogLines, told};

pub mod check;
pub mod demo;
pub mod eval;
pub mod journal;
pub mod run;
mod memory;
pub mod retry;
mod say;
pub mod test;
pub mod udf;

/// A small streaming runtime for IoT gateways: MQTT in, Stream Analytics SQL over it, functions in WebAssembly, a
/// durable pool, batched Azure ML scoring, scored rows out.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, max_term_width = 100)]
pub struct Cli {
    /// Write logs as JSON, one object a line
    #[arg(long, global = true)]
    pub log_json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a job until stopped
    Run(run::RunArgs),
    /// Run the taxi job with everything embedded: broker, fleet, endpoint, an outage, the ledger
    Demo(demo::DemoArgs),
    /// Validate a job, compile its query, print the plan and the signatures
    Check(check::CheckArgs),
    /// Run a query over finite files in event time and print the rows
    Eval(eval::EvalArgs),
    /// Run test cases
    Test(test::TestArgs),
    /// Build, inspect and call user functions
    #[command(subcommand)]
    Udf(udf::UdfCommand),
    /// Have a running job look at an endpoint now, since something was repaired
    Retry(retry::RetryArgs),
    /// Look into a job's pool, also while the job runs
    #[command(subcommand)]
    Journal(journal::JournalCommand),
}

impl Cli {
    /// The log filter when FOREBAY_LOG does not give one: commands that print results log only warnings.
    pub fn default_log(&self) -> &'static str {
        match self.command {
            Command::Run(_) => "info",
            _ => "error",
        }
    }

    /// Runs the command.
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Run(args) => run::run(&args),
            Command::Demo(args) => demo::run(&args),
            Command::Check(args) => check::run(&args),
            Command::Eval(args) => eval::run(args),
            Command::Test(args) => test::run(args),
            Command::Udf(command) => udf::run(command),
            Command::Retry(args) => retry::run(&args),
            Command::Journal(command) => journal::run(&command),
        }
    }
}

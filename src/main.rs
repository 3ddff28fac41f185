//! Arguments, tracing, and the command asked for.

#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use forebay::cli::{Cli, LogLines};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    forebay::cli::share_memory();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => return forebay::cli::told(&told),
    };
    let filter = EnvFilter::try_from_env("FOREBAY_LOG").unwrap_or_else(|_| EnvFilter::new(cli.default_log()));
    let colours = std::io::stderr().is_terminal();
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| LogLines)
        .log_internal_errors(false)
        .with_target(false)
        .with_ansi(colours);
    if cli.log_json {
        logs.json().init();
    } else {
        logs.init();
    }
    cli.run()
}

//! Arguments, tracing, and the command asked for.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use forebay::cli::Cli;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("FOREBAY_LOG").unwrap_or_else(|_| EnvFilter::new(cli.default_log()));
    let colours = std::io::stderr().is_terminal();
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(colours);
    if cli.log_json {
        logs.json().init();
    } else {
        logs.init();
    }
    cli.run()
}

//! Arguments, tracing, and the command asked for.

#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use forebay::cli::{Cli, LogLines};
use tracing_subscriber::EnvFilter;

/// glibc gives threads arenas of their own, and each keeps what its busiest moment took: at full speed 75 MB instead of
/// 62. Whoever sets `MALLOC_ARENA_MAX` has a reason.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn share_memory() {
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        // SAFETY: a call without pointers, before any other thread exists.
        #[expect(unsafe_code, reason = "there is no other way to say it to glibc")]
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
    }
}

fn main() -> ExitCode {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    share_memory();
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

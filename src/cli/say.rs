//! What a command tells a person.
//!
//! In: text. Out: standard output, standard error, the log. Invariant: no stream that is closed or full makes a command
//! panic, and text that is lost for want of room is an exit code of 1. Not here: wording.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::telemetry;
use crate::time::Clock;

/// Why a text did not reach standard output.
#[derive(Debug)]
pub(super) enum Unwritten {
    /// Its reader is gone, and has seen what it wanted.
    Closed,
    Failed(io::Error),
}

impl Unwritten {
    /// How the process ends, where it would end with `code` had all been written.
    pub fn end(self, code: ExitCode) -> ExitCode {
        match self {
            Unwritten::Closed => code,
            Unwritten::Failed(error) => {
                complain(format_args!(
                    "error: standard output cannot be written ({error}), and what the command answers is lost: give it \
                     a place with room\n"
                ));
                ExitCode::FAILURE
            }
        }
    }
}

impl From<io::Error> for Unwritten {
    fn from(error: io::Error) -> Unwritten {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Unwritten::Closed,
            _ => Unwritten::Failed(error),
        }
    }
}

/// Writes to standard output.
pub(super) fn print(text: &str) -> Result<(), Unwritten> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Unwritten::from)
}

/// The answer of a command, and how it ends.
pub(super) fn answer(text: &str, code: ExitCode) -> ExitCode {
    print(text).map_or_else(|unwritten| unwritten.end(code), |()| code)
}

/// Writes to standard error, as far as that takes it: there is nowhere else to say that it does not.
pub(super) fn complain(text: impl std::fmt::Display) {
    let _ = io::stderr().lock().write_all(text.to_string().as_bytes());
}

/// As [`complain`], of a job: it ends also where nobody reads what it says.
pub(super) fn complain_of_job(text: impl std::fmt::Display) {
    // nobody can be told any more that it is lost
    let _ = write_in_parts(text.to_string().as_bytes());
}

/// To standard error, unless its reader does not read.
fn write_in_parts(text: &[u8]) -> io::Result<()> {
    let mut out = io::stderr().lock();
    text.chunks(PIPE_BYTES).try_for_each(|part| match is_writable(&out) {
        true => out.write_all(part),
        false => Err(io::ErrorKind::WouldBlock.into()),
    })
}

/// Whether standard error takes something, at once or within [`READER_WAIT_MS`] once in [`WAIT_INTERVAL`].
fn is_writable(out: &io::StderrLock<'_>) -> bool {
    let mut waited = WAITED.lock().unwrap_or_else(PoisonError::into_inner);
    let may_wait = waited.is_none_or(|at| Clock::Real.since(at) >= WAIT_INTERVAL);
    let wait_ms = if may_wait { READER_WAIT_MS } else { 0 };
    let begin = Clock::Real.monotonic();
    let mut polled = libc::pollfd { fd: out.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: the pointer is to one structure of ours, as the second argument says.
    #[expect(unsafe_code, reason = "the standard library has no other way to ask")]
    let is_stuck = unsafe { libc::poll(&raw mut polled, 1, wait_ms) } == 0;
    if Clock::Real.since(begin) >= LONG_WAIT {
        *waited = Some(Clock::Real.monotonic());
    }
    !is_stuck
}

/// Prints what the arguments alone ask for, or what is wrong with them.
pub fn told(text: &clap::Error) -> ExitCode {
    let code = u8::try_from(text.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
    match text.print() {
        Err(error) if !text.use_stderr() => Unwritten::from(error).end(code),
        _ => code,
    }
}

/// Where lines of the log go: to standard error. One that it refuses is counted, and so is one that comes while a
/// reader is there and does not read.
#[derive(Clone, Copy, Debug)]
pub struct LogLines;

/// How long a reader may keep the first line waiting: one that is busy reads again by then.
const READER_WAIT_MS: libc::c_int = 1_000;
/// A pipe that says that it can be written takes at least this much without waiting (PIPE_BUF).
const PIPE_BYTES: usize = 4096;

/// A reader that is slow makes the job wait once in this time at most.
const WAIT_INTERVAL: Duration = Duration::from_secs(60);
const LONG_WAIT: Duration = Duration::from_millis(100);

/// When a line last waited for its reader for [`LONG_WAIT`] or more.
static WAITED: Mutex<Option<Instant>> = Mutex::new(None);

impl Write for LogLines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if write_in_parts(line).is_err() {
            telemetry::log_line_lost();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! `forebay:host/log`: lines in the job's log.
//!
//! In: levels and messages of guests. Out: at most ten lines a second and function, on one line each; the rest is
//! counted. Invariant: a guest can neither flood the log nor write what looks like a line of somebody else. Not here:
//! where the log goes.

use std::time::{Duration, Instant};

use wasmtime::component::{ComponentType, Lift, LinkerInstance, Lower};

use super::{Grant, Lent, PoisonError, lent};
use crate::udf::instance::GuestState;

/// Enough to follow a function by eye; a job of 10,000 rows a second must not write 10,000 lines.
const LINES_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);
/// Longest message, in characters, as that of a row error.
const MESSAGE_CHARS_MAX: usize = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
#[allow(dead_code, reason = "guests make them")]
enum LogLevel {
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

/// Counts lines of the present second.
#[derive(Debug, Default)]
pub struct Limiter {
    from: Option<Instant>,
    lines: u32,
    dropped: u64,
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
enum LineFate {
    /// It is written, after this number that were not.
    Written {
        dropped_before: u64,
    },
    Dropped,
}

impl Limiter {
    fn line(&mut self, now: Instant) -> LineFate {
        if self.from.is_none_or(|from| now.saturating_duration_since(from) >= WINDOW) {
            (self.from, self.lines) = (Some(now), 0);
        }
        if self.lines >= LINES_MAX {
            self.dropped += 1;
            return LineFate::Dropped;
        }
        self.lines += 1;
        LineFate::Written { dropped_before: std::mem::take(&mut self.dropped) }
    }
}

pub fn link(linker: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    linker.func_wrap("write", |mut store, (level, message): (LogLevel, String)| {
        write(lent(&mut store, Grant::Log)?, level, &message);
        Ok(())
    })
}

fn write(lent: &Lent, level: LogLevel, message: &str) {
    let now = lent.granted.clock.monotonic();
    let fate = lent.granted.limiter.lock().unwrap_or_else(PoisonError::into_inner).line(now);
    let LineFate::Written { dropped_before } = fate else { return lent.stats.count_log_line(false) };
    lent.stats.count_log_line(true);
    let _of = crate::udf::logging(&lent.granted.name);
    if dropped_before > 0 {
        tracing::warn!(
            dropped = dropped_before,
            "lines of this function were left out: it may write {LINES_MAX} a second"
        );
    }
    let message = printable(message);
    match level {
        LogLevel::Debug => tracing::debug!("{message}"),
        LogLevel::Info => tracing::info!("{message}"),
        LogLevel::Warn => tracing::warn!("{message}"),
        LogLevel::Error => tracing::error!("{message}"),
    }
}

/// The start of a message, on one line: a line break in it could pass for a line of forebay's own.
fn printable(message: &str) -> String {
    let mut out = String::new();
    for (i, c) in message.chars().enumerate() {
        match c {
            _ if i == MESSAGE_CHARS_MAX => {
                out.push('…');
                break;
            }
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Clock;

    #[test]
    fn ten_lines_a_second_are_written_and_the_rest_counted() {
        let mut limiter = Limiter::default();
        let start = Clock::Real.monotonic();
        let at = |ms| start + Duration::from_millis(ms);
        for _ in 0..LINES_MAX {
            assert_eq!(limiter.line(at(5_000)), LineFate::Written { dropped_before: 0 });
        }
        for ms in [5_000, 5_999] {
            assert_eq!(limiter.line(at(ms)), LineFate::Dropped);
        }
        assert_eq!(limiter.line(at(6_000)), LineFate::Written { dropped_before: 2 });
        assert_eq!(limiter.line(at(6_001)), LineFate::Written { dropped_before: 0 });
    }

    #[test]
    fn a_message_stays_on_one_line_and_is_cut() {
        assert_eq!(printable("a\nWARN b\u{1b}[2J ü"), "a\\nWARN b\\u{1b}[2J ü");
        let long = printable(&"x".repeat(MESSAGE_CHARS_MAX + 1));
        assert_eq!(long.chars().count(), MESSAGE_CHARS_MAX + 1);
        assert!(long.ends_with('…'));
        assert_eq!(printable(&"x".repeat(MESSAGE_CHARS_MAX)).len(), MESSAGE_CHARS_MAX);
    }
}

//! `forebay udf bench`: what a call of a function costs here.
//!
//! In: a function and one row of arguments. Out: calls a second, time a row, start, memory, failures. Invariant: what
//! is reported was measured after the function had warmed up, in rounds, so that a moment of a busy machine shows as
//! the distance of median and best. Not here: a verdict.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::call::{function, values};
use super::{Answer, Failed, FunctionSetup, Granting};
use crate::diagnostic::counted;
use crate::time::{Clock, Timestamp};
use crate::udf::{Component, Host, Origin, Stats, UserFunctions as _};
use crate::value::Value;

/// Rounds that the time is cut into.
const ROUNDS: u32 = 20;
/// The part of the time before what is reported: compiled code is paged in, allocations have found their sizes.
const WARM_UP_PART: u32 = 5;

#[derive(Debug, Args)]
pub struct Bench {
    pub file: PathBuf,
    /// Name of the function, in any case style
    pub function: String,
    /// JSON values, or bare text; `null` is NULL
    #[arg(allow_negative_numbers = true)]
    pub args: Vec<String>,
    /// How long to measure, in seconds; a fifth of it again to warm up
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    #[command(flatten)]
    pub granting: Granting,
    #[command(flatten)]
    pub setup: FunctionSetup,
}

/// A round: calls, and the time they took together.
#[derive(Clone, Copy, Debug)]
struct Round {
    calls: u64,
    took: Duration,
}

impl Round {
    fn nanos_a_row(self) -> f64 {
        self.took.as_nanos() as f64 / self.calls.max(1) as f64
    }
}

/// What is called again and again.
struct Caller {
    host: Host,
    args: Vec<Value>,
    at: Timestamp,
    /// the last error
    error: Option<String>,
}

impl Caller {
    fn round(&mut self, calls: u64) -> Round {
        let start = Clock::Real.monotonic();
        for _ in 0..calls {
            if let Err(error) = self.host.call(0, &self.args, self.at) {
                self.error = Some(format!("{} ({})", error.message, error.reason));
            }
        }
        Round { calls, took: Clock::Real.since(start) }
    }
}

pub(super) fn run(bench: &Bench) -> Result<Answer, Failed> {
    let engine = bench.setup.engine()?;
    let start = Clock::Real.monotonic();
    let component = Arc::new(Component::load(&engine, &bench.file, bench.setup.limits())?);
    let loaded = Clock::Real.since(start);
    let binding = function(Arc::clone(&component), &bench.function, &bench.granting, bench.args.len())?;
    let stats = Arc::clone(&binding.stats);
    let start = Clock::Real.monotonic();
    let host = bench.granting.host(&[binding])?;
    let started = Clock::Real.since(start);
    let mut caller = Caller { host, args: values(&bench.args), at: Clock::Real.now(), error: None };

    let whole = Duration::from_secs(bench.seconds.into());
    let first = caller.round(1);
    let warm = for_a_time(whole / WARM_UP_PART, 1, &mut caller);
    let warm_calls: u64 = warm.iter().map(|round| round.calls).sum();
    let (before, before_failures) = (stats.calls(), failures(&stats));
    let size = warm.last().map_or(1, |round| sized(*round, whole / ROUNDS));
    let rounds = for_a_time(whole, size, &mut caller);
    let calls: u64 = rounds.iter().map(|round| round.calls).sum();
    let failures: Vec<(&str, u64)> = failures(&stats)
        .into_iter()
        .zip(before_failures)
        .map(|((reason, n), (_, before))| (reason, n - before))
        .collect();
    let failed: u64 = failures.iter().map(|(_, n)| n).sum();

    let mut times: Vec<f64> = rounds.iter().map(|round| round.nanos_a_row()).collect();
    times.sort_by(f64::total_cmp);
    let (median, best) =
        (times.get(times.len() / 2).copied().unwrap_or_default(), times.first().copied().unwrap_or_default());
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<12}{value}");
    };
    let origin = match component.origin() {
        Origin::Cache => "found in the cache, loaded in",
        Origin::Compiler => "compiled in",
    };
    line("code", format!("{origin} {}", time(loaded)));
    line("instance", format!("{}, first call {}", time(started), time(first.took)));
    let measured = counted(usize::try_from(calls).unwrap_or(usize::MAX), "call");
    line("measured", format!("{measured} in {} rounds, after {} to warm up", rounds.len(), warm_calls + 1));
    line("a second", format!("{:.0} calls", if median > 0.0 { 1e9 / median } else { 0.0 }));
    line("a row", format!("{median:.0} ns median, {best:.0} ns best of the rounds"));
    line("memory", format!("{} KiB at most", stats.memory_bytes_max().div_ceil(1024)));
    line("instances", format!("{} made", stats.instances()));
    if stats.calls() == before && failed == 0 {
        line(
            "note",
            "the function was not called: an argument is NULL that it does not take, so the result is NULL".to_owned(),
        );
    }
    let said: Vec<String> =
        failures.iter().filter(|(_, n)| *n > 0).map(|(reason, n)| format!("{n} {reason}")).collect();
    line("failures", if said.is_empty() { "none".to_owned() } else { said.join(", ") });
    if let Some(error) = &caller.error {
        line("", format!("the last: {error}"));
    }
    if cfg!(debug_assertions) {
        line("note", "this forebay is built without optimisation: a release build is many times faster".to_owned());
    }
    let code = if failed > 0 && failed == calls { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    Ok(Answer { text, code })
}

/// Rounds until the time is over; each has as many calls as take its share, by the speed of the one before.
fn for_a_time(whole: Duration, size: u64, caller: &mut Caller) -> Vec<Round> {
    let start = Clock::Real.monotonic();
    let (mut rounds, mut size) = (Vec::new(), size);
    while rounds.is_empty() || Clock::Real.since(start) < whole {
        let round = caller.round(size);
        size = sized(round, whole / ROUNDS);
        rounds.push(round);
    }
    rounds
}

/// How many calls take so long. At most ten times those of the round before: its speed may have been an exception.
fn sized(round: Round, share: Duration) -> u64 {
    let calls = share.as_nanos() as f64 / round.nanos_a_row().max(1.0);
    (calls as u64).clamp(1, round.calls.saturating_mul(10))
}

fn failures(stats: &Stats) -> Vec<(&'static str, u64)> {
    stats.failures().collect()
}

/// A duration in the unit that fits.
fn time(duration: Duration) -> String {
    let micros = duration.as_nanos() as f64 / 1e3;
    match micros {
        m if m < 1e3 => format!("{m:.1} µs"),
        m if m < 1e6 => format!("{:.1} ms", m / 1e3),
        m => format!("{:.1} s", m / 1e6),
    }
}

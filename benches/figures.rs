//! The figures that README and docs quote: `make bench`. Ratios and CPU seconds per million events, measured side by
//! side in one run, because a shared machine's absolute times mean little. Nothing is asserted.
//!
//! `cargo bench --bench figures -- end-to-end`, `-- slow-past`, `-- in-flight`, `-- rates`, `-- independence`,
//! `-- guests`, `-- micro` or `-- engine` runs one part, `-- functions` a piece of micro; `FOREBAY_BENCH_EVENTS` makes
//! the first three smaller. `-- soak` (`make soak`) takes two hours and runs only by itself. A piece of a name is
//! enough, a blank counts as `-`.

// a benchmark that panics has failed
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods)] // what is measured here is real time

use std::process::ExitCode;

#[path = "figures/baseline.rs"]
mod baseline;
#[path = "figures/device.rs"]
mod device;
#[path = "figures/end_to_end.rs"]
mod end_to_end;
#[path = "figures/engine.rs"]
mod engine;
#[path = "figures/functions.rs"]
mod functions;
#[path = "figures/guests.rs"]
mod guests;
#[path = "figures/in_flight.rs"]
mod in_flight;
#[path = "figures/lines.rs"]
mod lines;
#[path = "figures/micro.rs"]
mod micro;
#[path = "figures/peers.rs"]
mod peers;
#[path = "figures/pools.rs"]
mod pools;
#[path = "figures/process.rs"]
mod process;
#[path = "figures/independence.rs"]
mod independence;
#[path = "figures/rates.rs"]
mod rates;
#[path = "figures/slow_past.rs"]
mod slow_past;
#[path = "figures/soak.rs"]
mod soak;
#[path = "figures/steady.rs"]
mod steady;

/// What can be asked for.
const PARTS: [&str; 10] =
    ["end-to-end", "slow-past", "in-flight", "rates", "independence", "soak", "guests", "micro", "functions", "engine"];

fn main() -> ExitCode {
    // the baseline runs in a process of its own, so that its CPU and memory can be told from ours
    if let Ok(role) = std::env::var(baseline::ROLE) {
        baseline::run(&role);
        return ExitCode::SUCCESS;
    }
    let arguments = std::env::args().skip(1).filter(|a| !a.starts_with('-'));
    let wanted: Vec<String> = arguments.map(|a| a.replace(' ', "-")).collect();
    let unknown: Vec<&String> = wanted.iter().filter(|w| !PARTS.iter().any(|part| is_asked(part, w))).collect();
    if !unknown.is_empty() {
        eprintln!("error: no part has {unknown:?} in its name; the parts are {}", PARTS.join(", "));
        return ExitCode::from(2);
    }
    let asked = |name: &str| wanted.is_empty() || wanted.iter().any(|w| is_asked(name, w));
    if asked("end-to-end") {
        end_to_end::run();
    }
    if asked("slow-past") {
        slow_past::run();
    }
    if asked("in-flight") {
        in_flight::run();
    }
    if asked("rates") {
        rates::run();
    }
    if asked("independence") {
        independence::run();
    }
    // two hours: only where it is asked for
    if wanted.iter().any(|w| w == "soak") {
        soak::run();
    }
    if asked("guests") {
        guests::run();
    }
    if asked("micro") {
        micro::run();
    } else if asked("functions") {
        functions::run(std::path::Path::new(env!("CARGO_TARGET_TMPDIR")));
    }
    if asked("engine") {
        engine::run();
    }
    ExitCode::SUCCESS
}

/// Whether a part is meant; the one of two hours has to be named in full.
fn is_asked(part: &str, wanted: &str) -> bool {
    if part == "soak" { wanted == part } else { part.contains(wanted) }
}

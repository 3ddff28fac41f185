//! What must hold whatever fails: kills at named points, power cuts, disks that fail, bits that turn.
//!
//! Each test does a sample here, and as much as `make torture` asks for by `FOREBAY_TORTURE_…`. The seed is the same
//! each time unless `FOREBAY_TORTURE_SEED` gives another one.

#[path = "torture/bits.rs"]
mod bits;
#[path = "torture/disk.rs"]
mod disk;
#[path = "torture/disk_faults.rs"]
mod disk_faults;
#[path = "torture/judge.rs"]
mod judge;
#[path = "torture/kill_points.rs"]
mod kill_points;
#[path = "torture/power.rs"]
mod power;
#[path = "torture/power_cuts.rs"]
mod power_cuts;
#[path = "torture/workload.rs"]
mod workload;

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The seed of all that is drawn.
fn seed() -> u64 {
    number("FOREBAY_TORTURE_SEED").unwrap_or(1)
}

/// How often something is tried: as the environment says, or `sample` times.
fn times(variable: &str, sample: usize) -> usize {
    number(variable).map_or(sample, |n| n as usize)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// Says, where the test fails before it is dropped, how the same is done again.
fn repeat_with(seed: u64, variable: &'static str, times: usize, test: &'static str) -> Repeat {
    Repeat(format!("FOREBAY_TORTURE_SEED={seed} {variable}={times} cargo test --test it {test}"))
}

struct Repeat(String);

impl Drop for Repeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the same again: {}", self.0);
        }
    }
}

/// One line of the table that `make torture` prints.
struct Tally {
    what: &'static str,
    tried: String,
}

impl Tally {
    fn new(what: &'static str) -> Tally {
        Tally { what, tried: String::new() }
    }

    fn tried(mut self, times: usize, of: impl Display) -> Tally {
        self.tried += &format!("{}{times} {of}", if self.tried.is_empty() { "" } else { ", " });
        self
    }

    /// Ends the line: into the file that `make torture` names, and into the test's output.
    fn found(self, found: impl Display) {
        let line = format!("| {} | {} | {found} |\n", self.what, self.tried);
        print!("{line}");
        if let Some(table) = std::env::var_os("FOREBAY_TORTURE_TABLE") {
            let mut table = OpenOptions::new().create(true).append(true).open(table).expect("the table");
            table.write_all(line.as_bytes()).expect("a line of the table");
        }
    }
}

/// After these nothing new is begun.
const FAILURES_MAX: usize = 10;

/// Does something with each of many, two at a time.
///
/// # Panics
/// When some of them fail, with their reasons.
fn each_of<T: Sync, R: Send>(all: &[T], work: impl Fn(&T) -> Result<R, String> + Sync) -> Vec<R> {
    let (next, done, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let one_after_another = || {
        while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            match work(one) {
                Ok(result) => done.lock().expect("results").push(result),
                Err(why) => failed.lock().expect("failures").push(why),
            }
            if failed.lock().expect("failures").len() >= FAILURES_MAX {
                return;
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(one_after_another);
        one_after_another();
    });
    let (done, failed) = (done.into_inner().expect("results"), failed.into_inner().expect("failures"));
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), done.len() + failed.len(), failed.join("\n"));
    done
}

//! A disk that fails: each call of a kind, once or from then on, and a sync that says it is done and is not.

use std::collections::BTreeMap;
use std::time::Duration;

use super::disk::{Call, EDQUOT, EIO, ENOSPC, Fault, ON, Shim, SyncEnd, Trace, Watched, copy_folder, plan, scratch};
use super::judge::{Known, Trust, judge};
use super::power::{Disk, Survives};
use super::power_cuts::Cut;
use super::workload::Plan;
use super::{Tally, each_of, repeat_with, seed, times};

/// Steps of the process that meets the fault, and of the one that goes on.
const STEPS: usize = 40;
const STEPS_AFTER: usize = 12;
/// Power cuts that each case is followed by.
const IMAGES: usize = 2;

/// The process that meets the fault: it closes its pool, since a fault may hit that too.
fn faulty(seed: u64, fault: Fault) -> Plan {
    // what is full for ever is not waited for; what is full once has room at the next look, a second later
    let patience = Duration::from_millis(if fault.count == ON { 300 } else { 30_000 });
    Plan { patience, closes: true, ..plan(seed, STEPS, 0) }
}

/// All cases of a run that has this number of calls of each kind, in an order that `rng` decides.
fn cases(counts: &BTreeMap<&'static str, u64>, rng: &mut fastrand::Rng) -> Vec<Fault> {
    let mut all = Vec::new();
    for (&kind, &calls) in counts {
        for from in 1..=calls {
            for error in [EIO, ENOSPC, EDQUOT] {
                all.extend([1, ON].map(|count| Fault { kind, from, count, error }));
            }
        }
    }
    rng.shuffle(&mut all);
    all
}

/// How many calls of each kind the workload has when nothing fails.
fn counts(shim: &Shim, seed: u64) -> BTreeMap<&'static str, u64> {
    let clean = shim.disk();
    clean.run(Plan { closes: true, ..plan(seed, STEPS, 0) }, None);
    let trace = clean.trace();
    ["write", "sync", "open", "truncate", "unlink"].map(|kind| (kind, trace.count(kind))).into()
}

/// What a case showed.
#[derive(Debug, Default)]
struct Met {
    /// The call was made and failed.
    is_met: bool,
    /// What the process said when it stopped.
    refused: Option<String>,
}

/// A process meets the fault; one without it goes on; the power fails somewhere.
fn meet(shim: &Shim, fault: Fault, seed: u64) -> Result<Met, String> {
    let watched = shim.disk();
    let told = |why: String, watched: &Watched<'_>| {
        let kept = watched.keep("disk-fault");
        format!("{fault:?}, seed {seed}: {why} (kept in {})", kept.display())
    };
    watched.run(faulty(seed, fault), Some(fault));
    let of_fault = watched.trace();
    watched.run(plan(seed + 1, STEPS_AFTER, 1 << 20), None);
    let trace = watched.trace();
    let met = of_fault.calls.iter().any(|call| matches!(call, Call::Failed) || is_bad_sync(call));
    let refused = Known::of(notes(&of_fault)).refused;
    let look = || -> Result<(), String> {
        let known = Known::of(notes(&trace));
        if let Some(why) = &known.refused {
            return Err(format!("without the fault the next process {why}"));
        }
        if let Some(why) = &refused
            && !names_a_cause(why)
        {
            return Err(format!("it stopped without a cause: {why}"));
        }
        // as it is without a power cut
        let copy = tempfile::tempdir_in(scratch()).expect("a folder");
        copy_folder(&watched.folder(), copy.path());
        judge(copy.path(), &known, Trust::Honest)?;
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..IMAGES {
            let (at, image) = (rng.usize(0..=trace.calls.len()), rng.u64(..));
            let cut = Cut::at(Disk::default(), Known::default(), &trace, at);
            cut.try_one(image).map_err(|why| format!("a power cut behind call {at}, image {image}: {why}"))?;
        }
        Ok(())
    };
    look().map_err(|why| told(why, &watched))?;
    Ok(Met { is_met: met, refused })
}

fn is_bad_sync(call: &Call) -> bool {
    matches!(call, Call::Sync { end: SyncEnd::Failed | SyncEnd::Lied, .. })
}

fn notes(trace: &Trace) -> impl Iterator<Item = &str> {
    trace.calls.iter().filter_map(|call| match call {
        Call::Note(note) => Some(note.as_str()),
        _ => None,
    })
}

/// Whether a person knows what it is about, and what to do.
fn names_a_cause(why: &str) -> bool {
    let cause =
        ["I/O error", "Input/output error", "disk I/O error", "is full", "No space left", "quota", "unable to open"];
    cause.iter().any(|cause| why.contains(cause))
}

#[test]
fn a_call_that_fails_costs_nothing_that_was_acknowledged() {
    let (sample, seed) = (times("FOREBAY_TORTURE_FAULTS", 24), seed());
    let _told = repeat_with(seed, "FOREBAY_TORTURE_FAULTS", sample, "torture::disk_faults");
    let shim = Shim::build();
    let all = cases(&counts(&shim, seed), &mut fastrand::Rng::with_seed(seed));
    let total = all.len();
    let tried: Vec<Fault> = all.into_iter().take(sample).collect();
    let met = each_of(&tried, |fault| meet(&shim, *fault, seed));
    let failed = met.iter().filter(|met| met.is_met).count();
    let stopped = met.iter().filter(|met| met.refused.is_some()).count();
    assert!(failed * 10 >= tried.len() * 9, "{failed} of {} calls failed", tried.len());
    let found = format!("0 lost; {stopped} times the process stopped with a cause, else it went on");
    Tally::new("a call of the disk fails: EIO, ENOSPC, EDQUOT, once or from then on")
        .tried(failed, format!("calls of {total} that there are"))
        .tried(tried.len() * IMAGES, "power cuts behind them")
        .found(found);
}

#[test]
fn a_pool_whose_first_syncs_fail_never_goes_on_without_sqlites_log() {
    let shim = Shim::build();
    let syncs: Vec<Fault> = (1..=14).map(|from| Fault { kind: "sync", from, count: 1, error: EIO }).collect();
    let opened = each_of(&syncs, |fault| {
        let watched = shim.disk();
        watched.run(faulty(seed(), *fault), Some(*fault));
        let calls = watched.trace().calls;
        let is_opened = |call: &Call| matches!(call, Call::Note(note) if note.starts_with("opened"));
        let is_without = |call: &Call| matches!(call, Call::Open { name, .. } if name == "job.db-journal");
        let opened = calls.iter().position(is_opened);
        match opened.is_some_and(|at| calls[at..].iter().any(is_without)) {
            true => Err(format!("after {fault:?} it went on with a rollback journal")),
            false => Ok(opened.is_some()),
        }
    });
    assert!(opened.contains(&true) && opened.contains(&false), "some starts fail by it, some go on: {opened:?}");
}

#[test]
fn a_sync_that_is_none_is_told_where_the_power_fails_before_the_next_one() {
    let (sample, seed) = (times("FOREBAY_TORTURE_LIES", 12), seed());
    let _told = repeat_with(seed, "FOREBAY_TORTURE_LIES", sample, "torture::disk_faults");
    let shim = Shim::build();
    let syncs = counts(&shim, seed)["sync"];
    let mut lies: Vec<Fault> = (1..=syncs).map(|from| Fault { kind: "sync", from, count: 1, error: 0 }).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut lies);
    lies.truncate(sample);
    let found = each_of(&lies, |lie| lied(&shim, *lie, seed));
    let sum = |of: fn(&Lied) -> usize| found.iter().map(of).sum::<usize>();
    let (images, told, refused, silent) = (sum(|l| l.images), sum(|l| l.told), sum(|l| l.refused), sum(|l| l.silent));
    assert!(told > 0, "{images} images without a loss show little");
    Tally::new("a sync is none, and the power fails").tried(lies.len(), "syncs").tried(images, "images").found(
        format!(
            "{told} events lost and told, {refused} starts refused with the remedy, {silent} events lost in silence"
        ),
    );
}

/// What the images behind a lie showed.
#[derive(Debug, Default)]
struct Lied {
    images: usize,
    told: usize,
    refused: usize,
    silent: usize,
}

/// The power fails at some moment after the lie: all else that was written is there, or any part of it.
fn lied(shim: &Shim, lie: Fault, seed: u64) -> Result<Lied, String> {
    let watched = shim.disk();
    watched.run(faulty(seed, lie), Some(lie));
    let trace = watched.trace();
    let Some(at) = trace.calls.iter().position(is_bad_sync) else { return Ok(Lied::default()) };
    let Call::Sync { fd: lied, .. } = &trace.calls[at] else { unreachable!("it is a sync") };
    // until the next sync of the same file: that covers what this one did not
    let next = trace.calls[at + 1..].iter().position(|call| matches!(call, Call::Sync { fd, .. } if fd == lied));
    let until = next.map_or(trace.calls.len(), |next| at + 1 + next);
    let mut rng = fastrand::Rng::with_seed(seed ^ lie.from);
    let mut met = Lied::default();
    for survives in [Survives::AllButLies, Survives::AllButLies, Survives::draw(&mut rng)] {
        let cut = Cut::at(Disk::default(), Known::default(), &trace, rng.usize(at + 1..=until));
        let found = cut.try_with(survives, &mut rng, Trust::Broken);
        let told = |why: String| {
            let kept = watched.keep("sync-lie");
            format!("{lie:?}, seed {seed}, {survives:?}: {why} (kept in {})", kept.display())
        };
        let found = found.map_err(told)?;
        if matches!(survives, Survives::AllButLies) && !found.silent.is_empty() {
            return Err(told(format!("events at {:?} are missing in silence", found.silent)));
        }
        met.images += 1;
        met.told += found.told;
        met.refused += usize::from(found.refused.is_some());
        met.silent += found.silent.len();
    }
    Ok(met)
}

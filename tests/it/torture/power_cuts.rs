//! The power fails at any call: whatever part of what was not synced is there, what was acknowledged is.

use std::collections::BTreeMap;

use super::disk::{Call, Shim, Trace, Watched, copy_folder, plan, scratch};
use super::judge::{Found, Known, Trust, judge};
use super::power::{Disk, Survives};
use super::{Tally, repeat_with, seed, times};

/// Steps of the first process on a pool, and of the one that goes on after a power cut.
const STEPS: usize = 150;
const STEPS_AFTER: usize = 40;
/// Images that are made of one trace.
const IMAGES: usize = 25;

/// A disk and what the workload was told, as of a cut.
pub struct Cut {
    pub disk: Disk,
    pub known: Known,
}

impl Cut {
    /// Behind the first `at` calls of a trace.
    pub fn at(mut disk: Disk, mut known: Known, trace: &Trace, at: usize) -> Cut {
        for call in &trace.calls[..at] {
            disk.apply(call);
            if let Call::Note(note) = call {
                known.take(note);
            }
        }
        Cut { disk, known }
    }

    /// Makes an image and looks at it; the same seed gives the same.
    pub fn try_one(&self, seed: u64) -> Result<Found, String> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let survives = Survives::draw(&mut rng);
        self.try_with(survives, &mut rng, Trust::Honest)
    }

    /// Makes an image of which this is left, and looks at it.
    pub fn try_with(&self, survives: Survives, rng: &mut fastrand::Rng, trust: Trust) -> Result<Found, String> {
        let dir = tempfile::tempdir_in(scratch()).expect("a folder");
        self.disk.image(dir.path(), survives, rng);
        judge(dir.path(), &self.known, trust).map_err(|why| format!("{survives:?}: {why}"))
    }

    /// An image for a process to go on with.
    fn put(&self, seed: u64, into: &Watched<'_>) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let survives = Survives::draw(&mut rng);
        self.disk.image(&into.folder(), survives, &mut rng);
    }
}

#[test]
fn a_power_cut_at_any_call_loses_nothing_that_was_acknowledged() {
    let (images, seed) = (times("FOREBAY_TORTURE_IMAGES", 200), seed());
    let _told = repeat_with(seed, "FOREBAY_TORTURE_IMAGES", images, "torture::power_cuts");
    let shim = Shim::build();
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut made, mut traces, mut calls, mut events) = (0, 0, 0, 0);
    while made < images {
        // a pool from its beginning, and the same after a power cut: a start has calls of its own
        let first = shim.disk();
        first.run(plan(rng.u64(..), STEPS, 0), None);
        let trace = first.trace();
        let second = shim.disk();
        let cut = Cut::at(Disk::default(), Known::default(), &trace, rng.usize(0..trace.calls.len()));
        cut.put(rng.u64(..), &second);
        let (disk, known) = (Disk::of(&second.folder()), cut.known);
        second.run(plan(rng.u64(..), STEPS_AFTER, 1 << 20), None);
        let again = second.trace();
        for (watched, disk, known, trace) in
            [(&first, Disk::default(), Known::default(), &trace), (&second, disk, known, &again)]
        {
            (traces, calls) = (traces + 1, calls + trace.calls.len());
            for _ in 0..IMAGES.min(images - made) {
                let (at, image) = (rng.usize(0..=trace.calls.len()), rng.u64(..));
                match Cut::at(disk.clone(), known.clone(), trace, at).try_one(image) {
                    Ok(found) => events += found.events,
                    Err(why) => {
                        let kept = watched.keep("power-cut");
                        panic!("a cut behind call {at} of {}, image {image}: {why}", kept.display());
                    }
                }
                made += 1;
            }
        }
    }
    assert!(events > images * 10, "{events} events in {images} images show little");
    let found = format!("0 of {events} events in them lost, doubled or wrong; no state apart from its position");
    Tally::new("the power fails").tried(made, "images").tried(calls, "calls").tried(traces, "runs").found(found);
}

#[test]
fn a_trace_has_all_that_was_done_and_the_workload_does_what_it_is_for() {
    let shim = Shim::build();
    let watched = shim.disk();
    watched.run(plan(seed(), 400, 0), None);
    let trace = watched.trace();
    let cut = Cut::at(Disk::default(), Known::default(), &trace, trace.calls.len());
    // without a power cut the disk is what the folder is
    let dir = tempfile::tempdir_in(scratch()).expect("a folder");
    cut.disk.image(dir.path(), Survives::Everything, &mut fastrand::Rng::with_seed(1));
    let files = |folder: &std::path::Path| -> BTreeMap<String, Vec<u8>> {
        let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        let named = entries.map(|path| (path.file_name().expect("a name").to_string_lossy().into_owned(), path));
        let known = named.filter(|(name, _)| !name.ends_with("-shm"));
        known.map(|(name, path)| (name, std::fs::read(path).expect("a file"))).collect()
    };
    let (modelled, real) = (files(dir.path()), files(&watched.folder()));
    assert_eq!(modelled.keys().collect::<Vec<_>>(), real.keys().collect::<Vec<_>>());
    for (name, bytes) in &real {
        assert!(modelled[name] == *bytes, "{name} is another file in the model");
    }
    for kind in ["write", "sync", "open", "truncate", "unlink"] {
        assert!(trace.count(kind) > 0, "no {kind} in the trace");
    }
    // segments were merged and trimmed, and the log began anew
    let real = tempfile::tempdir_in(scratch()).expect("a folder");
    copy_folder(&watched.folder(), real.path());
    let found = judge(real.path(), &cut.known, Trust::Honest).expect("a good pool");
    assert!(found.events < cut.known.stored.len(), "something was trimmed");
}

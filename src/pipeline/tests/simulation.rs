//! A whole job in virtual time: its broker, endpoint, outputs, pool and clock, moved by one seed.
//!
//! In: a seed. Out: what does not hold of the promises. Invariant: one thread takes each step, and the pool stores when
//! it is told to, so that a seed gives the same run again. The code is that of a job (intake, journal, parts,
//! recognition of redeliveries); what lies around it is in `world`, and what must hold is in `model`. Not here: threads
//! and sockets of a running job, torn writes and failing disks.

mod model;
mod world;

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::journal::planted::Planted;
use world::World;

/// Steps of a run before everything is put right and the job drains.
const STEPS: usize = 160;

/// How many seeds are tried, from which one on: `FOREBAY_SIMULATION_SEEDS`, `FOREBAY_SIMULATION_FROM`.
fn seeds(otherwise: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let from = number("FOREBAY_SIMULATION_FROM").unwrap_or(0);
    from..from + number("FOREBAY_SIMULATION_SEEDS").unwrap_or(otherwise)
}

/// What does not hold in the run of a seed, and what it did.
fn run(seed: u64, planted: Option<Planted>) -> (Vec<String>, World) {
    let mut world = World::new(seed, planted);
    for _ in 0..STEPS {
        world.step();
    }
    world.settle();
    (model::broken(&world), world)
}

#[test]
fn whatever_happens_to_a_job_each_event_counts_once() {
    let seeds = seeds(200);
    // two at once, as the machine has two cores
    let halves = [0, 1].map(|half| seeds.clone().filter(move |seed| seed % 2 == half));
    let halves = halves.map(|half| {
        std::thread::spawn(move || {
            let mut sum = world::Tried::default();
            for seed in half {
                let (broken, world) = run(seed, None);
                let again =
                    format!("FOREBAY_SIMULATION_FROM={seed} FOREBAY_SIMULATION_SEEDS=1 cargo test --lib simulation");
                assert!(broken.is_empty(), "seed {seed}: {broken:#?}\nagain: {again}\n{}", world.told());
                sum += world.tried;
            }
            sum
        })
    });
    let mut sum = world::Tried::default();
    for half in halves {
        sum += half.join().unwrap();
    }
    let line =
        format!("| a whole job in virtual time | {} seeds: {sum} | each event once |\n", seeds.end - seeds.start);
    print!("{line}");
    if let Some(table) = std::env::var_os("FOREBAY_TORTURE_TABLE") {
        let mut table = std::fs::OpenOptions::new().create(true).append(true).open(table).unwrap();
        std::io::Write::write_all(&mut table, line.as_bytes()).unwrap();
    }
    // a simulation in which nothing happens finds nothing
    let is_alone = seeds.end - seeds.start < 20;
    assert!(
        is_alone || sum.kills > seeds.end - seeds.start && sum.redelivered > 0 && sum.cut_deliveries > 0,
        "{sum:?}"
    );
}

fn of_any_pool((output, rows): (String, BTreeMap<String, Json>)) -> (String, Vec<(String, Json)>) {
    let without = |id: String| id.split_once('-').map_or(String::new(), |(_, rest)| rest.to_owned());
    (output, rows.into_iter().map(|(id, row)| (without(id), row)).collect())
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for seed in [3, 14] {
        let runs = [(); 2].map(|()| run(seed, None).1);
        assert_eq!(runs[0].told(), runs[1].told());
        // but for the random number of a pool, which its row ids begin with
        let rows = runs.map(|world| world.rows().into_iter().map(of_any_pool).collect::<Vec<_>>());
        assert_eq!(rows[0], rows[1]);
    }
}

#[test]
fn each_planted_fault_is_found() {
    for fault in [
        Planted::AcknowledgeBeforeCommit,
        Planted::PositionBeforeDelivery,
        Planted::TrimPastConsumer,
        Planted::StateApartFromPosition,
        Planted::LostTick,
    ] {
        let found = (0..40).find_map(|seed| Some((seed, run(seed, Some(fault)).0)).filter(|(_, b)| !b.is_empty()));
        let (seed, broken) = found.unwrap_or_else(|| panic!("{fault:?} is not found in 40 runs"));
        println!("{fault:?}: seed {seed}: {}", broken[0]);
        assert!(!run(seed, Some(fault)).0.is_empty(), "{fault:?}: seed {seed} finds it again");
    }
}

//! Rates over synthetic data, and laws of what is held and stored.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::engine::StateUpdate;
use crate::query::plan::SpikeMode::{Dips, Spikes, SpikesAndDips};

/// Planted spikes a setting.
const SPIKES: usize = 1_000;
const MODES: [SpikeMode; 3] = [Spikes, Dips, SpikesAndDips];
const CONFIDENCES: [f64; 3] = [90.0, 95.0, 99.0];
const HISTORIES: [usize; 3] = [50, 120, 500];

/// Independent draws of mean 0 and standard deviation 1.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Gaussian,
    Uniform,
    /// Heavy tails: one in 5,000 lies beyond 6 standard deviations.
    Laplace,
    /// Skewed: no low tail at all, one in 1,100 above 6 standard deviations.
    Exponential,
}

const SHAPES: [Shape; 4] = [Shape::Gaussian, Shape::Uniform, Shape::Laplace, Shape::Exponential];

struct Noise {
    random: fastrand::Rng,
    shape: Shape,
}

impl Noise {
    fn new(shape: Shape, seed: u64) -> Noise {
        Noise { random: fastrand::Rng::with_seed(seed), shape }
    }

    fn draw(&mut self) -> f64 {
        // above 0, so that it has a logarithm
        let mut even = || 1.0 - self.random.f64();
        match self.shape {
            Shape::Gaussian => (-2.0 * even().ln()).sqrt() * (std::f64::consts::TAU * even()).cos(),
            Shape::Uniform => (even() - 0.5) * 12f64.sqrt(),
            Shape::Laplace => even().ln() / 2f64.sqrt() * if even() < 0.5 { 1.0 } else { -1.0 },
            Shape::Exponential => -even().ln() - 1.0,
        }
    }
}

fn detector(mode: Option<SpikeMode>, confidence: f64, history: usize) -> Detector {
    Detector::new(16, mode, confidence, history, i64::MAX)
}

fn read(result: &Value) -> (bool, f64) {
    let Value::Record(record) = result else { panic!("{result:?}") };
    match (record.get("IsAnomaly"), record.get("Score")) {
        (Some(Value::BigInt(alarm)), Some(Value::Float(score))) => (*alarm == 1, *score),
        other => panic!("{other:?}"),
    }
}

/// Counts of alarms: false ones among stationary samples, and those for what is there to find.
#[derive(Clone, Copy, Debug, Default)]
struct Alarms {
    false_ones: usize,
    found: usize,
}

/// One pass over the samples for all modes and confidences, since the density is the same for all.
fn spike_alarms(shape: Shape, history: usize, samples: usize, spikes: usize) -> [[Alarms; 3]; 3] {
    let mut noise = Noise::new(shape, history as u64);
    let mut past = Past::default();
    let mut out = [[Alarms::default(); 3]; 3];
    let learn = |past: &mut Past, x: f64| {
        past.push(LearnedValue::new(0, x, None));
        if past.len() > history {
            past.pop_front();
        }
    };
    let each = |past: &Past, x: f64, count: &mut dyn FnMut(usize, usize)| {
        let tails = density::tails(past.sorted(), x);
        for (m, mode) in MODES.into_iter().enumerate() {
            for (c, confidence) in CONFIDENCES.into_iter().enumerate() {
                let risk = (100.0 - confidence) / 100.0;
                if spike::verdict(tails, past.sorted(), x, mode, risk).0 {
                    count(m, c);
                }
            }
        }
    };
    (0..history).for_each(|_| learn(&mut past, noise.draw()));
    for _ in 0..samples {
        let x = noise.draw();
        each(&past, x, &mut |m, c| out[m][c].false_ones += 1);
        learn(&mut past, x);
    }
    for i in 0..spikes {
        // a tenth of the history is new, and what is judged is not learned
        (0..history / 10).for_each(|_| learn(&mut past, noise.draw()));
        let up = i % 2 == 0;
        each(&past, if up { 6.0 } else { -6.0 }, &mut |m, c| {
            // of one direction: found in half of the trials, an alarm in the others would be a mistake
            out[m][c].found += match MODES[m] {
                Spikes if up => 2,
                Dips if !up => 2,
                SpikesAndDips => 1,
                Spikes | Dips => panic!("an alarm for the other direction"),
            };
        });
    }
    out
}

/// One pass for all confidences: the evidence is the same, its bound is not.
fn change_alarms(shape: Shape, history: usize, samples: usize, changes: usize) -> [Alarms; 3] {
    let mut noise = Noise::new(shape, history as u64);
    let mut detector = detector(None, 99.0, history);
    let mut observe = |level: f64| read(&detector.observe(b"", 0, Some(level + noise.draw()), true)).1;
    let is_alarm = |evidence: f64, c: usize| evidence * (100.0 - CONFIDENCES[c]) / 100.0 >= 1.0;
    let mut out = [Alarms::default(); 3];
    for _ in 0..samples {
        let evidence = observe(0.0);
        (0..3).for_each(|c| out[c].false_ones += usize::from(is_alarm(evidence, c)));
    }
    for i in 0..changes {
        // the level moves by 3, stays for the history, and then until it has been learned
        let level = if i % 2 == 0 { 3.0 } else { 0.0 };
        let evidence = (0..history).map(|_| observe(level)).fold(0.0, f64::max);
        (0..3).for_each(|c| out[c].found += usize::from(is_alarm(evidence, c)));
        (0..2 * history).for_each(|_| _ = observe(level));
    }
    out
}

/// Stationary samples a setting. Those of the longest history cost most and vary least.
fn samples(history: usize) -> usize {
    if history > 120 { 20_000 } else { 100_000 }
}

fn percent(count: usize, of: usize) -> f64 {
    100.0 * count as f64 / of as f64
}

/// Where a distribution itself makes values of that size, a detector that keeps its promise overlooks some: of
/// histories of 120 exponential values one in ten holds a value above 6 standard deviations.
fn wanted(shape: Shape, mode: SpikeMode, confidence: f64) -> f64 {
    match (shape, mode) {
        (Shape::Exponential, SpikesAndDips) if confidence > 95.0 => 92.0,
        _ => 95.0,
    }
}

/// What the confidence promises. Prints the table of docs/language.md.
#[test]
fn spikes_and_dips_are_found_and_false_alarms_are_rare() {
    for shape in SHAPES {
        for history in HISTORIES {
            let found = spike_alarms(shape, history, samples(history), SPIKES);
            for (mode, of_mode) in MODES.into_iter().zip(found) {
                let mut line = format!("{shape:?} {history} {mode:?}");
                for (confidence, alarms) in CONFIDENCES.into_iter().zip(of_mode) {
                    let (false_alarms, found) =
                        (percent(alarms.false_ones, samples(history)), percent(alarms.found, SPIKES));
                    line += &format!(" | {false_alarms:.2} {found:.1}");
                    assert!(false_alarms <= 100.0 - confidence + 1.0, "{line}");
                    assert!(found >= wanted(shape, mode, confidence), "{line}");
                }
                println!("{line}");
            }
        }
    }
}

/// The same for changes of level by 3 standard deviations that stay for the history.
#[test]
fn changes_of_level_are_found_and_false_alarms_are_rare() {
    for shape in SHAPES {
        for history in HISTORIES {
            let changes = 20_000 / history;
            let mut line = format!("{shape:?} {history}");
            for (confidence, alarms) in
                CONFIDENCES.into_iter().zip(change_alarms(shape, history, samples(history), changes))
            {
                let (false_alarms, found) =
                    (percent(alarms.false_ones, samples(history)), percent(alarms.found, changes));
                line += &format!(" | {false_alarms:.2} {found:.1}");
                assert!(false_alarms <= 100.0 - confidence + 1.0, "{line}");
                assert!(found >= 95.0, "{line}");
            }
            println!("{line}");
        }
    }
}

#[test]
fn nothing_is_unusual_before_enough_is_known() {
    let mut detector = detector(Some(Spikes), 95.0, 50);
    let mut alarms = Vec::new();
    for i in 0..40 {
        let value = if i % 4 == 3 { 1e6 * f64::from(i) } else { f64::from(i % 3) };
        if read(&detector.observe(b"", 0, Some(value), true)).0 {
            alarms.push(i);
        }
    }
    assert_eq!(alarms.first(), Some(&19), "16 values are known from the 17th on: {alarms:?}");
    assert_eq!(read(&detector.observe(b"new", 0, Some(1.0), true)), (false, 1.0));
}

#[test]
fn a_missing_value_is_neither_judged_nor_learned() {
    let mut detector = detector(Some(Spikes), 95.0, 50);
    let result = detector.observe(b"", 0, None, true);
    assert_eq!(result.to_json(), r#"{"IsAnomaly":0,"Score":null}"#);
    assert_eq!((detector.len(), detector.keys.len()), (0, 0));
    detector.observe(b"", 0, Some(1.0), true);
    detector.observe(b"", 0, Some(2.0), false);
    assert_eq!(detector.len(), 1, "WHEN did not hold: not learned");
}

#[test]
fn what_is_too_old_is_forgotten() {
    let mut detector = Detector::new(16, Some(Spikes), 95.0, 50, 10);
    (0..8).for_each(|time| drop(detector.observe(b"", time, Some(1.0), true)));
    detector.observe(b"", 12, Some(1.0), true);
    assert_eq!(detector.keys[&b""[..]].front().map(|s| s.time), Some(3), "an age of exactly the limit is too old");
    detector.forget(22);
    assert_eq!(detector.len(), 0);
    detector.changes(&mut StateWriter { op: 0, substream: b"", out: &mut Vec::new() }).unwrap();
    assert!(detector.keys.is_empty());
}

/// Applies what a commit writes, and says how many rows that were.
fn commit(detector: &mut Detector, table: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> usize {
    let mut out: Vec<StateUpdate> = Vec::new();
    detector.changes(&mut StateWriter { op: 0, substream: b"s", out: &mut out }).unwrap();
    let rows = out.len();
    for change in out {
        match change.value {
            Some(value) => drop(table.insert(change.key, value)),
            None => drop(table.remove(&change.key).expect("a removed row was there")),
        }
    }
    rows
}

#[test]
fn a_commit_writes_the_newest_values_and_not_the_history() {
    let mut detector = Detector::new(16, None, 95.0, 1000, i64::MAX);
    let mut table = BTreeMap::new();
    let mut noise = Noise::new(Shape::Uniform, 1);
    for i in 0..3000 {
        detector.observe(b"k", i, Some(noise.draw()), true);
        let rows = commit(&mut detector, &mut table);
        assert!(rows <= 2, "the newest block, and one that went: {rows}");
    }
    assert!((32..=33).contains(&table.len()), "{}", table.len());
    assert!(table.values().all(|value| value.len() < 700));
}

proptest! {
    /// A detector that goes on from any commit gives the bits that one gives which never stopped.
    #[test]
    fn restarts_change_no_bit(
        events in prop::collection::vec((0u8..2, 0i64..4, -3i32..9, any::<bool>(), 0u8..8), 1..120),
        history in 1usize..40,
        limit in 1i64..90,
        mode in prop::option::of(prop::sample::select(MODES.to_vec())),
    ) {
        let fresh = || Detector::new(16, mode, 75.0, history, limit);
        let (mut whole, mut cut) = (fresh(), fresh());
        let mut table = BTreeMap::new();
        let mut time = 0;
        for (key, pause, value, matches, action) in events {
            time += pause;
            let value = (value >= 0).then_some(f64::from(value) / 3.0);
            let expected = whole.observe(&[key], time, value, matches || action > 2);
            let given = cut.observe(&[key], time, value, matches || action > 2);
            prop_assert_eq!(expected, given);
            if action == 0 {
                cut.forget(time);
            }
            if action < 3 {
                commit(&mut cut, &mut table);
                prop_assert!(table.len() <= 2 * (history / 32 + 2));
                cut = fresh();
                for (key, value) in &table {
                    cut.load(&Loaded::parse(key, value).unwrap()).unwrap();
                }
                cut.loaded();
            }
        }
    }

    /// No stored bytes make loading or going on panic.
    #[test]
    fn damaged_rows_are_errors_or_values(
        key in prop::collection::vec(any::<u8>(), 0..12),
        value in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut detector = detector(None, 90.0, 8);
        let loaded = Loaded { substream: b"", kind: 16, rest: &key, value: &value };
        if detector.load(&loaded).is_ok() {
            detector.loaded();
            let key = ByteReader::new(&key).bytes().unwrap().to_vec();
            (0..3).for_each(|_| drop(detector.observe(&key, 5, Some(1.0), true)));
            detector.changes(&mut StateWriter { op: 0, substream: b"", out: &mut Vec::new() }).unwrap();
        }
    }
}

//! What must hold of a run: computed from what the publisher sent and what the receivers took, and not by the job.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::world::{World, refused};
use crate::journal::{Edge, verify, what};
use crate::time::{TICKS_PER_SECOND, Timestamp};

/// An event as the statement without state gave it: with its place in the pool and when it arrived.
struct Stored {
    offset: i64,
    n: i64,
    device: String,
    arrival: Timestamp,
}

/// How far back LAG looks, and how long a window is.
const LAG_TICKS: i64 = 300 * TICKS_PER_SECOND;
const WINDOW_TICKS: i64 = 10 * TICKS_PER_SECOND;

/// Everything that does not hold.
pub(super) fn broken(world: &World) -> Vec<String> {
    let mut broken = world.broken.clone();
    let sent: BTreeSet<i64> = (0..world.sent()).collect();
    if world.acknowledged() != sent {
        let missing: Vec<_> = sent.difference(&world.acknowledged()).copied().collect();
        broken.push(format!("never acknowledged: {missing:?}"));
    }
    let stored = stored(world);
    once("plain", &sent, stored.iter().map(|event| event.n), &mut broken);
    windows(world, &stored, &mut broken);
    lagged(world, &stored, &mut broken);
    scored(world, &sent, &mut broken);
    match verify(&world.pool()) {
        Ok(report) => broken.extend(report.problems),
        Err(error) => broken.push(error.to_string()),
    }
    broken
}

/// Each number once: a repeat of a row has its id, and the receiver knows it by that.
fn once(of: &str, wanted: &BTreeSet<i64>, came: impl Iterator<Item = i64>, broken: &mut Vec<String>) {
    let mut times: BTreeMap<i64, usize> = BTreeMap::new();
    came.for_each(|n| *times.entry(n).or_default() += 1);
    let missing: Vec<_> = wanted.iter().filter(|n| !times.contains_key(n)).collect();
    let more: Vec<_> = times.iter().filter(|(n, times)| **times > 1 || !wanted.contains(n)).collect();
    if !missing.is_empty() {
        broken.push(format!("{of}: never came: {missing:?}"));
    }
    if !more.is_empty() {
        broken.push(format!("{of}: came under several ids, or is no row of it: {more:?}"));
    }
}

fn number(row: &Json, name: &str) -> i64 {
    row[name].as_i64().unwrap_or(i64::MIN)
}

fn time(row: &Json) -> Timestamp {
    Timestamp::parse(row["t"].as_str().unwrap_or_default()).unwrap_or_default()
}

fn stored(world: &World) -> Vec<Stored> {
    let rows = world.rows();
    let of = rows.get("plain").into_iter().flatten().map(|(id, row)| Stored {
        offset: id.rsplit('-').nth(1).and_then(|offset| offset.parse().ok()).unwrap_or(-1),
        n: number(row, "n"),
        device: row["d"].as_str().unwrap_or_default().to_owned(),
        arrival: time(row),
    });
    let mut stored: Vec<Stored> = of.collect();
    stored.sort_by_key(|event| event.offset);
    stored
}

/// A window of a device: its end, and the events in it.
type Window = (String, i64, i64, i64);

fn windows(world: &World, stored: &[Stored], broken: &mut Vec<String>) {
    let mut wanted: BTreeMap<(String, i64), (i64, i64)> = BTreeMap::new();
    for event in stored {
        // a window ends at its last moment, which belongs to it
        let ticks = event.arrival.ticks();
        let end = ticks + (WINDOW_TICKS - ticks.rem_euclid(WINDOW_TICKS)) % WINDOW_TICKS;
        let window = wanted.entry((event.device.clone(), end)).or_default();
        *window = (window.0 + 1, window.1 + event.n);
    }
    let wanted: Vec<Window> = wanted.into_iter().map(|((d, end), (count, sum))| (d, end, count, sum)).collect();
    let rows = world.rows();
    let of = |row: &Json| {
        (row["d"].as_str().unwrap_or_default().to_owned(), time(row).ticks(), number(row, "c"), number(row, "s"))
    };
    let mut came: Vec<Window> = rows.get("windows").into_iter().flatten().map(|(_, row)| of(row)).collect();
    came.sort();
    if came != wanted {
        let missing: Vec<_> = wanted.iter().filter(|window| !came.contains(window)).collect();
        let more: Vec<_> = came.iter().filter(|window| !wanted.contains(window)).collect();
        broken.push(format!("windows: missing {missing:?}, wrong or repeated {more:?} of {}", came.len()));
    }
}

fn lagged(world: &World, stored: &[Stored], broken: &mut Vec<String>) {
    let mut last: BTreeMap<&str, &Stored> = BTreeMap::new();
    let mut wanted = BTreeMap::new();
    for event in stored {
        let before = last.insert(&event.device, event);
        let before = before.filter(|before| event.arrival.ticks() - before.arrival.ticks() <= LAG_TICKS);
        wanted.insert(event.n, before.map(|before| before.n));
    }
    let rows = world.rows();
    let of = |row: &Json| (number(row, "n"), row["l"].as_i64());
    let came: Vec<_> = rows.get("lagged").into_iter().flatten().map(|(_, row)| of(row)).collect();
    let wrong: Vec<_> = came.iter().filter(|(n, l)| wanted.get(n) != Some(l)).collect();
    if came.len() != wanted.len() || !wrong.is_empty() {
        broken.push(format!("lagged: {} rows of {}, wrong: {wrong:?}", came.len(), wanted.len()));
    }
}

fn scored(world: &World, sent: &BTreeSet<i64>, broken: &mut Vec<String>) {
    let rows = world.rows();
    let good: BTreeSet<i64> = sent.iter().copied().filter(|n| !refused(*n)).collect();
    let came = || rows.get("scored").into_iter().flatten();
    once("scored", &good, came().map(|(_, row)| number(row, "n")), broken);
    let wrong: Vec<_> = came().filter(|(_, row)| row["s"].as_i64() != Some(2 * number(row, "n"))).collect();
    if !wrong.is_empty() {
        broken.push(format!("scored: wrong answers {wrong:?}"));
    }
    let failed = world.ledger().sum(Edge::Statement, "scored/score", what::FAILED);
    let bad = (sent.len() - good.len()) as u64;
    if failed != bad {
        broken.push(format!("scored: {failed} rows are counted as bad, {bad} are"));
    }
}

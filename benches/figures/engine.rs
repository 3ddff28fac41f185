//! The engine alone: CPU time of queries over events in memory, by number of keys. State leaves at the commit cadence
//! of a consumer (10,000 events, or when rows come out), encoded; rows are counted and dropped.
//!
//! CPU time of the thread and not wall time, since the machine is shared; the best of three passes.

use std::collections::HashMap;
use std::fs;
use std::hint::black_box;
use std::sync::Arc;

use forebay::batch::{MessageMeta, RawEvent};
use forebay::engine::{Emitted, Executor, ExecutorOptions};
use forebay::query::catalog::{Catalog, InputDef, InputKind};
use forebay::time::{TICKS_PER_MILLISECOND, TICKS_PER_SECOND, Timestamp};

const PASSES: usize = 3;
/// Events of one pass.
const EVENTS: usize = 400_000;
/// Events given to an executor at once: what a consumer reads.
const CHUNK: usize = 1000;
/// Events between commits when nothing comes out.
const COMMIT: usize = 10_000;

const MS: i64 = TICKS_PER_MILLISECOND;
const KEYS: [usize; 4] = [10, 1000, 10_000, 100_000];

/// One kind of query.
struct Kind {
    name: &'static str,
    query: &'static str,
    /// Ticks between two events, given the number of keys.
    step: fn(usize) -> i64,
    /// Events a second on one core that it should reach.
    aim: f64,
}

const KINDS: [Kind; 5] = [
    Kind {
        name: "filter, project 5 of 12",
        query: "SELECT k, seq, v * 2 AS w, state, rpm INTO o FROM a WHERE v > 50",
        step: |_| MS / 10,
        aim: 1e6,
    },
    Kind {
        name: "tumbling 10 s",
        query: "SELECT k, COUNT(*) AS n, SUM(v) AS s INTO o FROM a GROUP BY k, TumblingWindow(second, 10)",
        step: |_| MS / 10,
        aim: 0.7e6,
    },
    Kind {
        name: "hopping 60 s by 10 s",
        query: "SELECT k, COUNT(*) AS n, SUM(v) AS s INTO o FROM a GROUP BY k, HoppingWindow(second, 60, 10)",
        step: |_| MS / 10,
        aim: 0.3e6,
    },
    Kind {
        name: "LAG per key",
        query: "SELECT k, v - LAG(v) OVER (PARTITION BY k LIMIT DURATION(minute, 1)) AS d INTO o FROM a",
        step: |_| MS / 10,
        aim: 0.5e6,
    },
    // one event of a key in 10 s, so that the pairs an event makes do not depend on the number of keys
    Kind {
        name: "join within 10 s",
        query: "SELECT x.k AS k, y.v AS v INTO o FROM a x JOIN b y ON x.k = y.k AND DATEDIFF(second, x, y) BETWEEN 0 \
            AND 10",
        step: |keys| 10 * TICKS_PER_SECOND / keys as i64,
        aim: 0.2e6,
    },
];

/// Queries whose rows are looked at again and again: 10,000 rows lie in each window.
const HELD: [(&str, &str); 4] = [
    (
        "sliding, COUNT SUM MAX",
        "SELECT COUNT(*) AS n, SUM(v) AS s, MAX(v) AS m INTO o FROM a GROUP BY SlidingWindow(second, 10)",
    ),
    ("sliding, STDEV", "SELECT STDEV(v) AS s INTO o FROM a GROUP BY SlidingWindow(second, 10)"),
    (
        "SUM, MAX OVER",
        "SELECT SUM(v) OVER (LIMIT DURATION(second, 10)) AS s, MAX(v) OVER (LIMIT DURATION(second, 10)) AS m INTO o \
        FROM a",
    ),
    ("AVG OVER, 100 keys", "SELECT AVG(v) OVER (PARTITION BY k LIMIT DURATION(second, 10)) AS s INTO o FROM a"),
];

/// Queries that must let go of what they held.
const BOUNDED: [(&str, &str); 8] = [
    ("tumbling", "SELECT k, COUNT(*) AS n, SUM(v) AS s INTO o FROM a GROUP BY k, TumblingWindow(second, 10)"),
    ("hopping", "SELECT k, COUNT(*) AS n, SUM(v) AS s INTO o FROM a GROUP BY k, HoppingWindow(second, 60, 10)"),
    ("sliding", "SELECT k, COUNT(*) AS n, SUM(v) AS s INTO o FROM a GROUP BY k, SlidingWindow(second, 10)"),
    ("session", "SELECT k, COUNT(*) AS n INTO o FROM a GROUP BY k, SessionWindow(second, 5, 60) OVER (PARTITION BY k)"),
    (
        "LAG, ISFIRST, LAST",
        "SELECT LAG(v) OVER (PARTITION BY k LIMIT DURATION(second, 20)) AS l, ISFIRST(second, 10) OVER (PARTITION BY \
        k) AS f, LAST(v) OVER (PARTITION BY k LIMIT DURATION(second, 20)) AS t INTO o FROM a",
    ),
    ("SUM OVER", "SELECT SUM(v) OVER (PARTITION BY k LIMIT DURATION(second, 10)) AS s INTO o FROM a"),
    (
        "join",
        "SELECT x.k AS k, y.v AS v INTO o FROM a x LEFT JOIN b y ON x.k = y.k AND DATEDIFF(second, x, y) BETWEEN 0 AND \
        10",
    ),
    (
        "substreams",
        "SELECT k, COUNT(*) AS n INTO o FROM a TIMESTAMP BY DATEADD(second, 0, EventEnqueuedUtcTime) OVER k GROUP BY \
        k, TumblingWindow(second, 10)",
    ),
];

pub fn run() {
    let only = std::env::var("FOREBAY_BENCH_QUERY").unwrap_or_default();
    let wanted = |name: &str| name.contains(&only);
    by_keys(&wanted);
    held(&wanted);
    bounded(&wanted);
}

fn by_keys(wanted: &impl Fn(&str) -> bool) {
    println!("engine: {EVENTS} events of about 250 bytes, 12 fields; CPU seconds per million events by number of keys");
    println!(
        "  {:<24} {:>8} {:>8} {:>8} {:>8} {:>9} {:>12} {:>12} {:>10} {:>11}",
        "", "10", "1,000", "10,000", "100,000", "times", "slowest ev/s", "aim", "rows/ev", "state B/ev"
    );
    for kind in KINDS.iter().filter(|kind| wanted(kind.name)) {
        let passes: Vec<Pass> = KEYS.iter().map(|keys| best(kind.query, *keys, (kind.step)(*keys), EVENTS)).collect();
        let costs: Vec<f64> = passes.iter().map(|p| p.seconds * 1e6 / EVENTS as f64).collect();
        let (least, most) =
            (costs.iter().copied().fold(f64::INFINITY, f64::min), costs.iter().copied().fold(0.0, f64::max));
        let last = passes.last().unwrap();
        print!("  {:<24}", kind.name);
        costs.iter().for_each(|c| print!(" {c:>8.3}"));
        println!(
            " {:>9.2} {:>12.0} {:>12.0} {:>10.2} {:>11.1}",
            most / least,
            1e6 / most,
            kind.aim,
            last.rows as f64 / EVENTS as f64,
            last.state_bytes as f64 / EVENTS as f64
        );
    }
    println!();
}

fn held(wanted: &impl Fn(&str) -> bool) {
    const FEW: usize = 60_000;
    println!("engine: {FEW} events, 10,000 rows in each window; CPU seconds per million events");
    for (name, query) in HELD.iter().filter(|(name, _)| wanted(name)) {
        let pass = best(query, 100, MS, FEW);
        println!("  {name:<28} {:>9.2} {:>12.0} events/s", pass.seconds * 1e6 / FEW as f64, FEW as f64 / pass.seconds);
    }
    println!();
}

/// 5 million events over 100,000 keys, then a quiet minute: what is held on the way and at the end.
fn bounded(wanted: &impl Fn(&str) -> bool) {
    let events: usize = std::env::var("FOREBAY_BENCH_BOUNDED").ok().and_then(|n| n.parse().ok()).unwrap_or(5_000_000);
    println!("engine: {events} events over 100,000 keys at 10,000 a second, then a quiet minute; what is held");
    println!(
        "  {:<20} {:>12} {:>12} {:>12} {:>12} {:>12}",
        "", "half, bytes", "rows", "all, bytes", "rows", "after, rows"
    );
    for (name, query) in BOUNDED.iter().filter(|(name, _)| wanted(name)) {
        let mut executor = executor(query);
        let mut source = Source::new(100_000, MS / 10);
        let mut table = HashMap::new();
        let mut keep = |emitted: Emitted| {
            for change in emitted.state {
                match change.value {
                    Some(value) => drop(table.insert((change.op, change.key), value.len())),
                    None => assert!(table.remove(&(change.op, change.key)).is_some(), "a removed state row was there"),
                }
            }
            table.len()
        };
        let (mut half, mut since, mut rows) = ((0, 0), 0, 0);
        for i in 0..events / CHUNK {
            let input = if query.contains(" b ") && i % 2 == 1 { "b" } else { "a" };
            executor.push_events(input, (i * CHUNK) as i64, &source.chunk());
            since += CHUNK;
            if executor.has_output() || since >= COMMIT {
                since = 0;
                rows = keep(executor.take());
            }
            if i == events / CHUNK / 2 {
                half = (executor.state_bytes(), rows);
            }
        }
        let whole = (executor.state_bytes(), rows);
        for second in 1..=90 {
            executor.tick(source.now.saturating_add(second * TICKS_PER_SECOND));
            rows = keep(executor.take());
        }
        println!(
            "  {name:<20} {:>12} {:>12} {:>12} {:>12} {:>12} ({} bytes)",
            half.0,
            half.1,
            whole.0,
            whole.1,
            rows,
            executor.state_bytes()
        );
    }
    println!();
}

/// What a pass through a query gave.
#[derive(Default)]
struct Pass {
    seconds: f64,
    rows: usize,
    state_bytes: usize,
}

/// Makes events.
struct Source {
    rng: fastrand::Rng,
    message: Arc<MessageMeta>,
    keys: usize,
    step: i64,
    now: Timestamp,
    seq: usize,
}

impl Source {
    fn new(keys: usize, step: i64) -> Source {
        let message = Arc::new(MessageMeta {
            name: "t".into(),
            facts: vec![("qos".into(), "1".into())],
            ..MessageMeta::default()
        });
        Source {
            rng: fastrand::Rng::with_seed(5),
            message,
            keys,
            step,
            now: Timestamp::parse("2026-05-01T10:00:00Z").unwrap(),
            seq: 0,
        }
    }

    fn chunk(&mut self) -> Vec<RawEvent> {
        (0..CHUNK).map(|_| self.event()).collect()
    }

    fn event(&mut self) -> RawEvent {
        let (key, value) = (self.rng.usize(0..self.keys), self.rng.f64() * 100.0);
        let seq = self.seq;
        let payload = format!(
            "{{\"k\":\"device-{key:06}\",\"site\":\"north-3\",\"line\":\"B\",\"seq\":{seq},\"v\":{value:.3},\
            \"pressure\":3.0125,\"vibration\":0.00345,\"rpm\":1480,\"state\":\"running\",\"alarm\":false,\
            \"firmware\":\"2.14.7-rc1\",\"note\":\"nothing to see here, all of it is as it was yesterday\"}}"
        );
        self.seq += 1;
        self.now = self.now.saturating_add(self.step);
        RawEvent { arrival: self.now, payload: payload.into(), message: self.message.clone(), mark: 1 }
    }
}

fn executor(text: &str) -> Executor {
    let input = |name: &str| InputDef { name: name.to_owned(), kind: InputKind::Stream };
    let catalog = Catalog { inputs: vec![input("a"), input("b")], outputs: None, functions: Vec::new() };
    let plan = forebay::query::compile(text, "bench", &catalog).unwrap_or_else(|e| panic!("{e}"));
    Executor::new(&plan.statements[0].parts[0], ExecutorOptions::default(), None).unwrap()
}

fn best(query: &str, keys: usize, step: i64, events: usize) -> Pass {
    let mut source = Source::new(keys, step);
    let chunks: Vec<Vec<RawEvent>> = (0..events / CHUNK).map(|_| source.chunk()).collect();
    (0..PASSES).map(|_| pass(query, &chunks)).min_by(|a, b| a.seconds.total_cmp(&b.seconds)).unwrap()
}

fn pass(query: &str, chunks: &[Vec<RawEvent>]) -> Pass {
    let mut executor = executor(query);
    let mut pass = Pass::default();
    let begin = cpu_seconds();
    let mut since = 0;
    for (i, chunk) in chunks.iter().enumerate() {
        // a query with one input never looks at the other
        let input = if query.contains(" b ") && i % 2 == 1 { "b" } else { "a" };
        executor.push_events(input, (i * CHUNK) as i64, chunk);
        since += chunk.len();
        if !executor.has_output() && since < COMMIT {
            continue;
        }
        since = 0;
        let emitted = black_box(executor.take());
        pass.rows += emitted.rows.batch.len();
        pass.state_bytes +=
            emitted.state.iter().map(|s| s.key.len() + s.value.as_ref().map_or(0, Vec::len)).sum::<usize>();
    }
    pass.seconds = cpu_seconds() - begin;
    pass
}

/// CPU time of this thread.
fn cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

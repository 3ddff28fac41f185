//! Single parts, in memory: what an event costs where. Each figure is the best of three passes, since the machine is
//! shared.

use std::fs::{self, OpenOptions};
use std::hint::black_box;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use bytes::Bytes;
use forebay::batch::{MessageMeta, RawEvent, Rows, Urgency};
use forebay::decode::Decoder;
use forebay::demo::fleet::Fleet;
use forebay::engine::{Executor, ExecutorOptions};
use forebay::journal::{Append, Commit, ConsumerId, ConsumerSpec, Journal, JournalConfig, StateChange, StreamId};
use forebay::query::catalog::{Catalog, InputDef, InputKind};
use forebay::time::{TICKS_PER_MILLISECOND, Timestamp};
use forebay::value::Value;

use super::functions;

const PASSES: usize = 3;
/// Events of one pass through a query.
const EVENTS: usize = 300_000;
/// Events given to an executor at once.
const CHUNK: usize = 1000;
/// Events between commits: what a consumer does that has nothing to emit.
const COMMIT: usize = 10_000;

pub fn run() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("micro");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    journal(&folder);
    decode();
    functions::run(&folder);
    queries(&folder);
}

/// The shortest time of some passes, seconds.
pub fn best(mut pass: impl FnMut() -> f64) -> f64 {
    (0..PASSES).map(|_| pass()).fold(f64::INFINITY, f64::min)
}

pub fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn raw(payload: impl Into<Bytes>, arrival: Timestamp, message: &Arc<MessageMeta>) -> RawEvent {
    RawEvent { arrival, payload: payload.into(), message: message.clone(), mark: 1 }
}

fn start() -> Timestamp {
    Timestamp::parse("2026-05-01T10:00:00Z").unwrap()
}

fn journal(folder: &Path) {
    const COMMITS: usize = 200;
    let mut fleet = Fleet::new(1);
    let message = Arc::new(MessageMeta {
        name: "taxi/taxi-001/rides".into(),
        facts: vec![("qos".into(), "1".into())],
        ..MessageMeta::default()
    });
    let events: Vec<RawEvent> = (0..CHUNK).map(|_| raw(fleet.ride(start()).payload, start(), &message)).collect();
    let bytes: usize = events.iter().map(|e| e.payload.len()).sum();

    let journal = Journal::open(JournalConfig::new(folder.join("append.db"))).unwrap();
    let input = journal.input("a").unwrap();
    let stored = best(|| {
        seconds(|| {
            for _ in 0..COMMITS {
                let (done, answer) = sync_channel(1);
                let on_durable = Box::new(move |stored: Result<_, _>| done.send(stored.is_ok()).unwrap());
                let (undecodable, dropped, ledger) = Default::default();
                let received = events.len() as u64;
                journal.append(Append {
                    input,
                    events: events.clone(),
                    received,
                    undecodable,
                    dropped,
                    ledger,
                    era: 0,
                    urgency: Urgency::InBudget,
                    on_durable,
                });
                assert!(answer.recv().unwrap());
            }
        })
    });
    let block = vec![0x5a_u8; bytes];
    let bare = best(|| {
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(folder.join("bare")).unwrap();
        seconds(|| {
            for _ in 0..COMMITS {
                file.write_all(&block).unwrap();
                file.sync_data().unwrap();
            }
        })
    });
    let each = |s: f64| s * 1e6 / COMMITS as f64;
    println!("journal: {CHUNK} events of {} bytes a commit", bytes / CHUNK);
    println!(
        "  append, durable        {:>9.0} us a commit, {:.0} ns an event",
        each(stored),
        each(stored) * 1e3 / CHUNK as f64
    );
    println!("  bare write + fdatasync {:>9.0} us a commit; ratio {:.2}\n", each(bare), stored / bare);
}

fn decode() {
    const ROUNDS: usize = 200_000;
    let payload = b"{\"deviceId\":\"pump-0042\",\"site\":\"north-3\",\"line\":\"B\",\"seq\":918273,\
        \"temperature\":71.25,\"pressure\":3.0125,\"vibration\":0.00345,\"rpm\":1480,\"state\":\"running\",\
        \"alarm\":false,\"firmware\":\"2.14.7-rc1\",\"at\":\"2026-05-01T10:00:00.1230000Z\",\
        \"note\":\"nothing to see\"}";
    let wanted = ["deviceId", "seq", "temperature", "state", "at"];
    let mut decoder = Decoder::new(wanted.into_iter().enumerate().map(|(slot, name)| (name.into(), slot)), None, None);
    let mut row = vec![Value::Null; wanted.len()];
    let time = best(|| {
        seconds(|| {
            for _ in 0..ROUNDS {
                row.fill(Value::Null);
                decoder.decode(black_box(payload), &mut row).unwrap();
                black_box(&row);
            }
        })
    });
    println!(
        "decode: JSON of {} bytes, 13 fields, 5 wanted\n  {:>9.0} ns an event\n",
        payload.len(),
        time * 1e9 / ROUNDS as f64
    );
}

/// One query and what feeds it.
struct Case {
    name: &'static str,
    query: &'static str,
    keys: usize,
    /// Arrival advances by so much with each event.
    step: i64,
}

const MS: i64 = TICKS_PER_MILLISECOND;
const TUMBLING: &str = "SELECT k, COUNT(*) AS n, SUM(v) AS s INTO o FROM a GROUP BY k, TumblingWindow(second, 10)";

const CASES: [Case; 7] = [
    Case { name: "filter, project", query: "SELECT k, v * 2 AS w INTO o FROM a WHERE v > 50", keys: 1000, step: MS },
    Case { name: "tumbling 10 s, 10 keys", query: TUMBLING, keys: 10, step: MS / 10 },
    Case { name: "tumbling 10 s, 1,000 keys", query: TUMBLING, keys: 1000, step: MS / 10 },
    Case { name: "tumbling 10 s, 100,000 keys", query: TUMBLING, keys: 100_000, step: MS / 10 },
    Case {
        name: "hopping 60 s by 10 s, 1,000 keys",
        query: "SELECT k, COUNT(*) AS n, SUM(v) AS s INTO o FROM a GROUP BY k, HoppingWindow(second, 60, 10)",
        keys: 1000,
        step: MS,
    },
    Case {
        name: "LAG per key, 1,000 keys",
        query: "SELECT k, v - LAG(v) OVER (PARTITION BY k LIMIT DURATION(minute, 1)) AS d INTO o FROM a",
        keys: 1000,
        step: MS,
    },
    Case {
        name: "join within 10 s, 1,000 keys",
        query: "SELECT x.k AS k, y.v AS v INTO o FROM a x JOIN b y ON x.k = y.k AND DATEDIFF(second, x, y) BETWEEN 0 \
            AND 10",
        keys: 1000,
        step: MS,
    },
];

/// What a pass through a query gave.
#[derive(Default)]
struct Outcome {
    seconds: f64,
    rows: usize,
    commits: usize,
    state_rows: usize,
    state_bytes: usize,
}

fn queries(folder: &Path) {
    println!("queries: {EVENTS} events of about 90 bytes, one core, state taken every {COMMIT} events");
    println!(
        "  {:<34} {:>10} {:>9} {:>12} {:>12} {:>14}",
        "", "events/s", "rows", "state B/ev", "state/commit", "with journal/s"
    );
    for case in &CASES {
        let chunks = events(case);
        let pass = |journal: Option<&(Journal, ConsumerId, StreamId)>| {
            (0..PASSES).map(|_| query(case, &chunks, journal)).min_by(|a, b| a.seconds.total_cmp(&b.seconds)).unwrap()
        };
        let alone = pass(None);
        let stored = journal_for(folder, case.name);
        let durable = pass(Some(&stored));
        let rate = |o: &Outcome| EVENTS as f64 / o.seconds;
        println!(
            "  {:<34} {:>10.0} {:>9} {:>12.1} {:>12.0} {:>14.0}",
            case.name,
            rate(&alone),
            alone.rows,
            alone.state_bytes as f64 / EVENTS as f64,
            alone.state_rows as f64 / alone.commits as f64,
            rate(&durable),
        );
    }
}

fn events(case: &Case) -> Vec<Vec<RawEvent>> {
    let mut rng = fastrand::Rng::with_seed(5);
    let message =
        Arc::new(MessageMeta { name: "t".into(), facts: vec![("qos".into(), "1".into())], ..MessageMeta::default() });
    let event = |i: usize| {
        let (key, value) = (rng.usize(0..case.keys), rng.f64() * 100.0);
        let payload = format!(
            r#"{{"k":"device-{key:06}","v":{value:.3},"seq":{i},"state":"running","unit":"bar","line":"north-3"}}"#
        );
        raw(payload, start().saturating_add(case.step * i as i64), &message)
    };
    let all: Vec<RawEvent> = (0..EVENTS).map(event).collect();
    all.chunks(CHUNK).map(<[RawEvent]>::to_vec).collect()
}

fn executor(text: &str) -> Executor {
    let input = |name: &str| InputDef { name: name.to_owned(), kind: InputKind::Stream };
    let catalog = Catalog { inputs: vec![input("a"), input("b")], outputs: None, functions: Vec::new() };
    let plan = forebay::query::compile(text, "bench", &catalog).unwrap_or_else(|e| panic!("{e}"));
    Executor::new(&plan.statements[0].parts[0], ExecutorOptions::default(), None).unwrap()
}

fn journal_for(folder: &Path, name: &str) -> (Journal, ConsumerId, StreamId) {
    let file: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let journal = Journal::open(JournalConfig::new(folder.join(file + ".db"))).unwrap();
    let rows = journal.stream("rows").unwrap();
    let spec = ConsumerSpec::new("bench", StreamId::INPUTS);
    let consumer = journal.register_consumer(spec).unwrap().id;
    (journal, consumer, rows)
}

fn query(case: &Case, chunks: &[Vec<RawEvent>], journal: Option<&(Journal, ConsumerId, StreamId)>) -> Outcome {
    let mut executor = executor(case.query);
    let mut outcome = Outcome::default();
    let begin = Instant::now();
    let mut since = 0;
    for (i, chunk) in chunks.iter().enumerate() {
        // a query with one input never looks at the other
        let input = if case.query.contains(" b ") && i % 2 == 1 { "b" } else { "a" };
        executor.push_events(input, (i * CHUNK) as i64, chunk);
        since += chunk.len();
        if since < COMMIT {
            continue;
        }
        since = 0;
        let emitted = executor.take();
        outcome.rows += emitted.rows.batch.len();
        outcome.commits += 1;
        outcome.state_rows += emitted.state.len();
        outcome.state_bytes +=
            emitted.state.iter().map(|s| s.key.len() + s.value.as_ref().map_or(0, Vec::len)).sum::<usize>();
        let state = emitted.state.into_iter().map(|s| StateChange { op: s.op, key: s.key, value: s.value }).collect();
        match journal {
            Some((journal, consumer, stream)) => commit(journal, *consumer, *stream, state, emitted.rows),
            None => drop(black_box((state, emitted.rows))),
        }
    }
    outcome.seconds = begin.elapsed().as_secs_f64();
    outcome
}

/// Waits for each commit: the most that a commit can cost.
fn commit(journal: &Journal, consumer: ConsumerId, stream: StreamId, state: Vec<StateChange>, rows: Rows) {
    let emit = (!rows.batch.is_empty()).then_some((stream, rows));
    let receipt = journal.commit(Commit { state, emit, ..Commit::at(consumer, 0) });
    // without the pause in which others may share a commit
    journal.flush();
    receipt.wait().unwrap();
}

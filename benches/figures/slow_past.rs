//! A slow past: a backlog that was stored one event at a time, and how fast each kind of statement catches up with it.
//!
//! The pool is written first, one event a commit and one a segment, with those of another input between: as version
//! 0.1.0 left a quiet stream behind. A retention of a millisecond keeps checkpoints from merging them; nothing else
//! does. Then `forebay run` starts over a copy of it, once for each statement, once alone and once while 500 events a
//! second still arrive. Rates count from the start of the job to the last row of the backlog. Endpoints answer after a
//! fixed time and count the rows of each request. At the end the same events as a busy stream, as a quiet one and as
//! two quiet ones by turns store them are read from their pools. `FOREBAY_BENCH_EVENTS` makes all of it smaller.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use forebay::demo::client::Publisher;
use forebay::demo::fleet::Fleet;
use forebay::time::Timestamp;

use crate::lines::Lines;
use crate::peers::{Forebay, Mosquitto, until};
use crate::pools::{self, Stored};
use crate::process::usage;

/// Events of the backlog; each is a segment, and so is the event of another input behind it.
const EVENTS: u64 = 100_000;
/// Of the backlog that is scored: long enough that getting up to speed is a small part of the whole.
const SCORED: u64 = 1_000_000;
/// Of the pools whose reading is compared, and how many of them lie in a checkpoint: of a busy stream, and of one event
/// a second.
const COMPARED: u64 = 200_000;
const FAST: usize = 4_000;
const SLOW: usize = 60;
/// Each is read so often, by turns.
const READINGS: usize = 5;
/// Events a second that arrive meanwhile.
const LIVE: u64 = 500;

const STATEMENTS: [(&str, &str); 3] = [
    ("stateless", "SELECT rideId, deviceId, distance INTO out FROM rides"),
    (
        "LAG",
        "SELECT deviceId, LAG(distance) OVER (PARTITION BY deviceId LIMIT DURATION(hour, 1)) AS before INTO out FROM \
        rides",
    ),
    ("tumbling", "SELECT deviceId, COUNT(*) AS n INTO out FROM rides GROUP BY deviceId, TumblingWindow(second, 10)"),
];
/// Latency, rows a request, requests at once.
const ENDPOINTS: [(u64, usize, usize); 2] = [(50, 1000, 4), (200, 1000, 20)];

pub fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("slow_past");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let events = std::env::var("FOREBAY_BENCH_EVENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(EVENTS);
    let place = Place { runtime, folder };
    let pool = pools::write(&place.folder, "pool", events, Stored::Apart);
    println!("a slow past: {events} events stored one a commit, a segment each");
    println!(
        "{:<10} {:>12} {:>8} {:>8} {:>22} {:>8} {:>8}   (aim: 200,000 rows/s each)",
        "", "rows/s", "CPU s/M", "peak MB", "with 500/s arriving", "CPU s/M", "peak MB"
    );
    for (name, query) in STATEMENTS {
        let alone = place.statement(&pool, query, events, false);
        let live = place.statement(&pool, query, events, true);
        println!(
            "{name:<10} {:>12.0} {:>8.2} {:>8.1} {:>22.0} {:>8.2} {:>8.1}",
            alone.rate, alone.cpu, alone.peak_mb, live.rate, live.cpu, live.peak_mb
        );
    }
    let scaled = |of: u64| (u128::from(events.max(1)) * u128::from(of) / u128::from(EVENTS)).max(1) as u64;
    let scored = scaled(SCORED);
    let pool = pools::write(&place.folder, "scored", scored, Stored::Apart);
    println!(
        "\nscoring {scored} of them: latency, rows a request, requests at once; the law is rows × requests ÷ latency\n\
        rows/s and share: once up to speed; share of all: from the start of the process to the last row\n\
        (aims: 0.95 of the law once up to speed and 0.85 of all at 200 ms 1000 × 20; 900 rows, 10 CPU s/M)"
    );
    println!(
        "{:<18} {:>10} {:>10} {:>8} {:>12} {:>13} {:>8} {:>8}",
        "", "law", "rows/s", "share", "share of all", "median rows", "CPU s/M", "peak MB"
    );
    for (latency, rows, parallel) in ENDPOINTS {
        place.scoring(&pool, scored, latency, rows, parallel);
    }
    fs::remove_file(pool).unwrap();
    place.compare(scaled(COMPARED));
    println!();
}

/// What one run over the backlog did.
struct Run {
    rate: f64,
    /// Seconds per million.
    cpu: f64,
    peak_mb: f64,
}

struct Place {
    runtime: tokio::runtime::Runtime,
    folder: PathBuf,
}

impl Place {
    fn job(&self, pool: &Path, query: &str, functions: &str, broker: &Mosquitto) -> PathBuf {
        let folder = self.folder.join("job");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        fs::copy(pool, folder.join("pool.db")).unwrap();
        fs::write(folder.join("job.asaql"), query).unwrap();
        let text = format!(
            "[job]\nname = \"slow\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
             [journal]\npath = \"pool.db\"\nmax_bytes = \"8GB\"\n\
             [inputs.rides]\ntype = \"mqtt\"\nurl = {0:?}\ntopics = [\"taxi/+/rides\"]\n\
             [inputs.other]\ntype = \"mqtt\"\nurl = {0:?}\ntopics = [\"other\"]\n{functions}\
             [outputs.out]\ntype = \"file\"\npath = \"out.jsonl\"\nfsync = \"never\"\n",
            broker.url()
        );
        let path = folder.join("job.toml");
        fs::write(&path, text).unwrap();
        path
    }

    /// The same events as a busy stream and as a quiet one leave them behind: the files, and how fast each is read.
    fn compare(&self, events: u64) {
        let kinds =
            [("fast", Stored::Checkpoints(FAST)), ("slow", Stored::Checkpoints(SLOW)), ("turns", Stored::Turns(SLOW))];
        let pools = kinds.map(|(name, stored)| pools::write(&self.folder, name, events, stored));
        let bytes = pools.each_ref().map(|pool| fs::metadata(pool).unwrap().len() as f64);
        let segments = pools.each_ref().map(|pool| pools::segments(pool));
        let mut best = [f64::INFINITY; 3];
        for _ in 0..READINGS {
            for (pool, best) in pools.iter().zip(&mut best) {
                let (read, took) = pools::read(pool);
                assert_eq!(read as u64, events);
                *best = best.min(took.as_secs_f64() * 1e3);
            }
        }
        println!(
            "\n{events} events in checkpoints of {FAST} and of {SLOW}, merged: file {:.1} and {:.1} MB ({:.2}), \
            segments {} and {}, read in {:.1} and {:.1} ms ({:.2})",
            bytes[0] / 1e6,
            bytes[1] / 1e6,
            bytes[1] / bytes[0],
            segments[0],
            segments[1],
            best[0],
            best[1],
            best[1] / best[0]
        );
        println!(
            "the same with as many of another input by turns: file {:.1} MB for both ({:.2} of twice the first), \
            segments {}, those of one input read in {:.1} ms ({:.2})",
            bytes[2] / 1e6,
            bytes[2] / bytes[0] / 2.0,
            segments[2],
            best[2],
            best[2] / best[0]
        );
    }

    fn statement(&self, pool: &Path, query: &str, events: u64, live: bool) -> Run {
        let broker = Mosquitto::start(&self.folder);
        let job = self.job(pool, query, "", &broker);
        let folder = job.parent().unwrap();
        let going = Arc::new(AtomicBool::new(live));
        let arriving = self.runtime.spawn(arrive(broker.port, going.clone()));
        let start = Instant::now();
        let forebay = Forebay::start(&job, &self.folder.join("cache"));
        // every record read and committed, and every row that it gives delivered
        let read = "forebay_consumer_read_total{job=\"slow\",consumer=\"statement out\"";
        let delivered = if query.contains("GROUP BY") { 0 } else { events };
        until("the backlog", Duration::from_millis(5), || (forebay.metric(read) >= (2 * events) as f64).then_some(()));
        // its position behind them may wait for the next commit
        let mut lines = Lines::of(&folder.join("out.jsonl"));
        until("the rows", Duration::from_millis(5), || (lines.count() >= delivered).then_some(()));
        let (seconds, used) = (start.elapsed().as_secs_f64(), usage(forebay.pid()));
        going.store(false, Ordering::Relaxed);
        self.runtime.block_on(arriving).unwrap();
        forebay.stop();
        Run { rate: events as f64 / seconds, cpu: used.cpu_s * 1e6 / events as f64, peak_mb: used.resident_peak_mb }
    }

    fn scoring(&self, pool: &Path, events: u64, latency: u64, rows: usize, parallel: usize) {
        let requests: Requests = Arc::default();
        let listener = self.runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new()
            .route("/score", post(answer))
            .layer(axum::extract::DefaultBodyLimit::max(64 << 20))
            .with_state((requests.clone(), Duration::from_millis(latency)));
        let serving = self.runtime.spawn(async move { axum::serve(listener, app).await });
        let broker = Mosquitto::start(&self.folder);
        let functions = format!(
            "[functions.score]\ntype = \"azureml\"\nurl = \"http://{address}/score\"\nmax_batch_count = {rows}\n\
             parallel_requests = {parallel}\ninput_kind = \"vector\"\ninput_path = \"data\"\n"
        );
        let job = self.job(
            pool,
            "SELECT rideId, deviceId, udf.score(distance) AS fare INTO out FROM rides",
            &functions,
            &broker,
        );
        let start = Instant::now();
        let forebay = Forebay::start(&job, &self.folder.join("cache"));
        let before = usage(forebay.pid());
        let mut lines = Lines::of(&job.with_file_name("out.jsonl"));
        until("the scores", Duration::from_millis(20), || (lines.count() >= events).then_some(()));
        let whole = start.elapsed().as_secs_f64();
        let used = usage(forebay.pid()).since(&before);
        forebay.stop();
        serving.abort();
        let requests = requests.lock().unwrap();
        // up to speed from the moment on when as many requests are out as may be
        let up = requests.iter().position(|r| r.at_once >= parallel).unwrap_or(requests.len() / 2);
        let (steady, tail) = (&requests[up..], parallel.min(requests.len() - up));
        let steady = &steady[..steady.len() - tail];
        let seconds = match (steady.first(), steady.last()) {
            (Some(first), Some(last)) => (last.at - first.at).as_secs_f64(),
            _ => f64::NAN,
        };
        let rate = steady.iter().skip(1).map(|r| r.rows).sum::<usize>() as f64 / seconds;
        let law = (rows * parallel) as f64 * 1e3 / latency as f64;
        let mut sizes: Vec<usize> = steady.iter().map(|r| r.rows).collect();
        sizes.sort_unstable();
        let median = sizes.get(sizes.len() / 2).copied().unwrap_or_default();
        println!(
            "{:<18} {law:>10.0} {rate:>10.0} {:>8.2} {:>12.2} {median:>13} {:>8.2} {:>8.1}",
            format!("{latency} ms {rows} × {parallel}"),
            rate / law,
            events as f64 / whole / law,
            used.cpu_s * 1e6 / events as f64,
            used.resident_peak_mb
        );
    }
}

/// Publishes until told to stop.
async fn arrive(port: u16, going: Arc<AtomicBool>) {
    if !going.load(Ordering::Relaxed) {
        return;
    }
    let feed = Publisher::connect("live", "127.0.0.1", port);
    let mut fleet = Fleet::new(50);
    let mut tick = tokio::time::interval(Duration::from_millis(1000 / LIVE));
    while going.load(Ordering::Relaxed) {
        tick.tick().await;
        let ride = fleet.ride(Timestamp::MIN);
        let _ = feed.send(&ride.topic, ride.payload).await;
    }
}

/// One request as the endpoint saw it.
struct Request {
    at: Instant,
    rows: usize,
    at_once: usize,
}

type Requests = Arc<Mutex<Vec<Request>>>;

/// Counts the rows of `{"data":[1,2,…]}` by their commas and answers a zero for each.
async fn answer(State((requests, latency)): State<(Requests, Duration)>, body: Bytes) -> axum::response::Response {
    let at = Instant::now();
    let rows = body.iter().filter(|b| **b == b',').count() + 1;
    {
        let mut requests = requests.lock().unwrap();
        let out = requests.iter().rev().take_while(|r| at - r.at < latency).count();
        requests.push(Request { at, rows, at_once: out + 1 });
    }
    tokio::time::sleep(latency).await;
    let mut text = String::with_capacity(rows * 2 + 2);
    text.push('[');
    (0..rows).for_each(|i| text.push_str(if i == 0 { "0" } else { ",0" }));
    text.push(']');
    axum::response::Response::builder().header("content-type", "application/json").body(text.into()).unwrap()
}

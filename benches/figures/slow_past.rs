//! A slow past: a backlog that was stored one event at a time, and how fast each kind of statement catches up with it.
//!
//! The pool is written first, one event a commit, as a quiet stream is stored. Events of another input lie between
//! those of the statement, so that no two can be merged into one segment: that is the worst that a pool can look like.
//! Then `forebay run` starts over a copy of it, once for each statement, once alone and once while 500 events a second
//! still arrive. Rates count from the start of the job to the last row of the backlog. Endpoints answer after a fixed
//! time and count the rows of each request.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use forebay::batch::{MessageMeta, RawEvent, Urgency};
use forebay::demo::client::Publisher;
use forebay::demo::fleet::Fleet;
use forebay::journal::{Append, Journal, JournalConfig};
use forebay::time::{TICKS_PER_MILLISECOND, Timestamp};

use crate::peers::{Forebay, Mosquitto, until};
use crate::process::usage;

/// Events of the backlog; each is a segment, and so is the event of another input behind it.
const EVENTS: u64 = 100_000;
/// Of the backlog that is scored: long enough that the requests at once reach their ceiling.
const SCORED: u64 = 400_000;
/// Between two events of the backlog.
const STEP_MS: i64 = 10;
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
    let pool = place.pool("pool", events);
    println!("a slow past: {events} events stored one a commit, a segment each");
    println!(
        "{:<10} {:>12} {:>8} {:>22} {:>8}   (aim: 200,000 rows/s each)",
        "", "rows/s", "CPU s/M", "with 500/s arriving", "CPU s/M"
    );
    for (name, query) in STATEMENTS {
        let alone = place.statement(&pool, query, events, false);
        let live = place.statement(&pool, query, events, true);
        println!("{name:<10} {:>12.0} {:>8.2} {:>22.0} {:>8.2}", alone.0, alone.1, live.0, live.1);
    }
    let scored = events.max(1) * (SCORED / EVENTS);
    let pool = place.pool("scored", scored);
    println!(
        "\nscoring {scored} of them: latency, rows a request, requests at once; the law is rows × requests ÷ latency"
    );
    println!(
        "{:<18} {:>10} {:>10} {:>8} {:>13} {:>8}   (aims: 0.8 of the law, 900 rows, 10 CPU s/M)",
        "", "law", "rows/s", "share", "median rows", "CPU s/M"
    );
    for (latency, rows, parallel) in ENDPOINTS {
        place.scoring(&pool, scored, latency, rows, parallel);
    }
    println!();
}

struct Place {
    runtime: tokio::runtime::Runtime,
    folder: PathBuf,
}

impl Place {
    /// A pool whose events came at 100 a second and were committed one by one. It is written where a commit costs
    /// nothing, if there is such a place.
    fn pool(&self, name: &str, events: u64) -> PathBuf {
        let memory = Path::new("/dev/shm");
        let fast = tempfile::tempdir_in(if memory.is_dir() { memory } else { &self.folder }).unwrap();
        let path = fast.path().join("pool.db");
        let config = JournalConfig { commit_interval: Duration::ZERO, max_bytes: 8 << 30, ..JournalConfig::new(&path) };
        let journal = Journal::open(config).unwrap();
        let inputs = ["rides", "other"].map(|name| journal.input(name).unwrap());
        let mut fleet = Fleet::new(50);
        let start = Timestamp::parse("2026-05-01T10:00:00Z").unwrap();
        let (stored, answers) = mpsc::channel();
        for i in 0..2 * events {
            let ride = fleet.ride(start);
            let message = Arc::new(MessageMeta { name: ride.topic.as_str().into(), ..MessageMeta::default() });
            let arrival = start.saturating_add((i / 2) as i64 * STEP_MS * TICKS_PER_MILLISECOND);
            let input = inputs[(i % 2) as usize];
            let event = RawEvent { arrival, payload: ride.payload.into(), message, mark: 0 };
            let stored = stored.clone();
            journal.append(Append {
                input,
                events: vec![event],
                received: 1,
                undecodable: Vec::new(),
                dropped: Vec::new(),
                ledger: Vec::new(),
                urgency: Urgency::InBudget,
                on_durable: Box::new(move |result| stored.send(result.is_ok()).unwrap_or_default()),
            });
            assert!(answers.recv().unwrap());
        }
        journal.close();
        let pool = rusqlite::Connection::open(&path).unwrap();
        let segments: i64 = pool.query_row("SELECT count(*) FROM segment", [], |row| row.get(0)).unwrap();
        assert_eq!(segments, 2 * events as i64, "each event has a segment of its own");
        drop(pool);
        let kept = self.folder.join(format!("{name}.db"));
        fs::copy(&path, &kept).unwrap();
        kept
    }

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

    /// Rows a second and CPU seconds per million of one statement over the backlog.
    fn statement(&self, pool: &Path, query: &str, events: u64, live: bool) -> (f64, f64) {
        let broker = Mosquitto::start(&self.folder);
        let job = self.job(pool, query, "", &broker);
        let folder = job.parent().unwrap();
        let going = Arc::new(AtomicBool::new(live));
        let arriving = self.runtime.spawn(arrive(broker.port, going.clone()));
        let start = Instant::now();
        let forebay = Forebay::start(&job, &self.folder.join("cache"));
        // every record read and committed, and every row that it gives delivered
        let read = "forebay_consumer_read_total{job=\"slow\",consumer=\"statement out\"";
        let delivered = if query.contains("GROUP BY") { 0 } else { events as usize };
        until("the backlog", Duration::from_millis(5), || (forebay.metric(read) >= (2 * events) as f64).then_some(()));
        // its position behind them may wait for the next commit
        let rows = || fs::read(folder.join("out.jsonl")).unwrap_or_default().iter().filter(|b| **b == b'\n').count();
        until("the rows", Duration::from_millis(5), || (rows() >= delivered).then_some(()));
        let (seconds, used) = (start.elapsed().as_secs_f64(), usage(forebay.pid()));
        going.store(false, Ordering::Relaxed);
        self.runtime.block_on(arriving).unwrap();
        forebay.stop();
        (events as f64 / seconds, used.cpu_s * 1e6 / events as f64)
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
        let forebay = Forebay::start(&job, &self.folder.join("cache"));
        let before = usage(forebay.pid());
        until("the scores", Duration::from_millis(20), || {
            (forebay.metric("forebay_output_delivered_total") >= events as f64).then_some(())
        });
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
            "{:<18} {law:>10.0} {rate:>10.0} {:>8.2} {median:>13} {:>8.2}",
            format!("{latency} ms {rows} × {parallel}"),
            rate / law,
            used.cpu_s * 1e6 / events as f64
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

//! The whole job against receiving alone.
//!
//! A session is made first and its owner goes away; the broker's queue is filled with all events; then the owner comes
//! back and the time counts from there to the last event done: received and acknowledged (baseline), or received,
//! stored, scored, and in the output file with the position committed (forebay).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use forebay::demo::client::Publisher;
use forebay::demo::endpoint::Endpoint;
use forebay::demo::fleet::Fleet;
use forebay::time::Timestamp;

use crate::baseline::Baseline;
use crate::lines::Lines;
use crate::peers::{Forebay, Mosquitto, create_array, until};
use crate::process::{Usage, usage};

/// What both subscribe to.
pub const TOPIC: &str = "taxi/+/rides";
/// The job file's default.
pub const RECEIVE_MAXIMUM: u16 = 1000;

const EVENTS: u64 = 200_000;
/// Each is measured so often, by turns.
const ROUNDS: usize = 2;
const CLIENT: &str = "bench";
const QUERY: &str = "SELECT rideId, deviceId, udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, \
                     distance)) AS fare INTO scored FROM rides";

/// One run of either.
struct Run {
    seconds: f64,
    used: Usage,
}

/// What only forebay has.
struct Job {
    run: Run,
    steady_mb: f64,
    journal_mb: f64,
    rows: u64,
}

pub fn run() {
    let events = std::env::var("FOREBAY_BENCH_EVENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(EVENTS);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // the endpoint and the publisher run here
    let handle = runtime.handle().clone();
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("figures");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let place = Place { handle, folder, events };

    let sizes: usize = (0..1000).scan(fleet(), |fleet, _| Some(fleet.ride(now()).payload.len())).sum();
    println!("end to end: {events} events of about {} bytes, QoS 1, from mosquitto's queue", sizes / 1000);
    println!(
        "{:<9} {:>9} {:>8} {:>10} {:>9} {:>10} {:>9} {:>8}",
        "", "events/s", "CPU s/M", "peak MB", "steady MB", "written B", "pool MB", "rows"
    );
    let mut pairs = Vec::new();
    for round in 0..ROUNDS {
        let baseline = place.baseline();
        println!("{:<9} {} {:>10.1}", "baseline", rates(&baseline, events), baseline.used.resident_peak_mb);
        let job = place.forebay(round);
        println!(
            "{:<9} {} {:>10.1} {:>9.1} {:>10.0} {:>9.1} {:>8}",
            "forebay",
            rates(&job.run, events),
            job.run.used.resident_peak_mb,
            job.steady_mb,
            job.run.used.written_bytes / events as f64,
            job.journal_mb,
            if job.rows == events { "all".to_owned() } else { format!("{} of {events}", job.rows) },
        );
        println!(
            "{:<9} {:>9.2} {:>8.2}",
            "ratio",
            baseline.seconds / job.run.seconds,
            job.run.used.cpu_s / baseline.used.cpu_s
        );
        pairs.push((baseline, job));
    }
    let sum = |f: fn(&(Run, Job)) -> f64| pairs.iter().map(f).sum::<f64>();
    let rate = sum(|(b, _)| b.seconds) / sum(|(_, j)| j.run.seconds);
    let cpu = sum(|(_, j)| j.run.used.cpu_s) / sum(|(b, _)| b.used.cpu_s);
    println!("{:<9} {rate:>9.2} {cpu:>8.2}   (aims: rate at least 0.80, CPU at most 2.50, 40 MB steady)\n", "both");
}

fn rates(run: &Run, events: u64) -> String {
    format!("{:>9.0} {:>8.2}", events as f64 / run.seconds, run.used.cpu_s * 1e6 / events as f64)
}

fn fleet() -> Fleet {
    Fleet::new(1)
}

fn now() -> Timestamp {
    Timestamp::parse("2026-05-01T10:00:00.123Z").unwrap()
}

struct Place {
    handle: tokio::runtime::Handle,
    folder: PathBuf,
    events: u64,
}

impl Place {
    /// Publishes rides and waits until the broker has taken all.
    fn publish(&self, broker: &Mosquitto, fleet: &mut Fleet, count: u64) {
        let (id, port) = (format!("fleet-{count}"), broker.port);
        self.handle.block_on(async {
            let feed = Publisher::connect(&id, "127.0.0.1", port);
            for _ in 0..count {
                let ride = fleet.ride(now());
                assert!(feed.send(&ride.topic, ride.payload).await);
            }
            assert!(feed.drained(Duration::from_secs(300)).await, "the broker takes {count} events");
        });
    }

    fn baseline(&self) -> Run {
        let broker = Mosquitto::start(&self.folder);
        let mut fleet = fleet();
        let mut first = Baseline::start(&broker.url(), CLIENT, 1);
        // subscribed when something comes
        std::thread::sleep(Duration::from_millis(500));
        self.publish(&broker, &mut fleet, 1);
        first.done();
        first.stop();
        self.publish(&broker, &mut fleet, self.events);

        let mut baseline = Baseline::start(&broker.url(), CLIENT, self.events);
        let (start, before) = (Instant::now(), usage(baseline.pid()));
        baseline.done();
        let run = Run { seconds: start.elapsed().as_secs_f64(), used: usage(baseline.pid()).since(&before) };
        baseline.stop();
        run
    }

    fn forebay(&self, round: usize) -> Job {
        let folder = self.folder.join(format!("job-{round}"));
        fs::create_dir_all(&folder).unwrap();
        let broker = Mosquitto::start(&self.folder);
        let endpoint = self.handle.block_on(Endpoint::start()).unwrap();
        let job = write_job(&folder, &broker.url(), &endpoint.url());
        // compiled code from here on is in the cache
        let cache = self.folder.join("cache");
        let mut fleet = fleet();
        let first = Forebay::start(&job, &cache);
        until("the connection", Duration::from_millis(20), || {
            (first.metric("forebay_source_connected") == 1.0).then_some(())
        });
        std::thread::sleep(Duration::from_millis(500));
        self.publish(&broker, &mut fleet, 1);
        until("the first row", Duration::from_millis(20), || {
            (first.metric("forebay_output_delivered_total") == 1.0).then_some(())
        });
        first.stop();
        self.publish(&broker, &mut fleet, self.events);

        let forebay = Forebay::start(&job, &cache);
        let (start, before) = (Instant::now(), usage(forebay.pid()));
        let mut lines = Lines::of(&folder.join("scored.jsonl"));
        let mut journal_bytes = 0;
        until("all rows in the file", Duration::from_millis(10), || {
            journal_bytes = journal_bytes.max(folder_bytes(&folder, "pool"));
            (lines.count() > self.events).then_some(())
        });
        let seconds = start.elapsed().as_secs_f64();
        let expected = (self.events + 1) as f64;
        // it may wait for a few seconds, and each look costs the process a millisecond or two
        until("the last commit", Duration::from_millis(500), || {
            (forebay.metric("forebay_output_delivered_total") >= expected).then_some(())
        });
        let used = usage(forebay.pid()).since(&before);
        std::thread::sleep(Duration::from_secs(2));
        let steady_mb = usage(forebay.pid()).resident_mb;
        forebay.stop();
        drop(endpoint);
        // one row is of the first start
        let rows = lines.count() - 1;
        Job { run: Run { seconds, used }, steady_mb, journal_mb: journal_bytes as f64 / f64::from(1 << 20), rows }
    }
}

fn write_job(folder: &Path, broker: &str, endpoint: &str) -> PathBuf {
    let component = create_array();
    fs::write(folder.join("job.asaql"), QUERY).unwrap();
    let text = format!(
        "[job]\nname = \"bench\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n[journal]\n\
        path = \"pool.db\"\n\
         [inputs.rides]\ntype = \"mqtt\"\nurl = {broker:?}\ntopics = [{TOPIC:?}]\nclient_id = {CLIENT:?}\n\
         [functions.createArray]\ntype = \"wasm\"\ncomponent = {component:?}\n\
         [functions.score]\ntype = \"azureml\"\nurl = {endpoint:?}\n\
         [outputs.scored]\ntype = \"file\"\npath = \"scored.jsonl\"\nfsync = \"interval\"\n"
    );
    let path = folder.join("job.toml");
    fs::write(&path, text).unwrap();
    path
}

/// What all files take whose names begin so.
fn folder_bytes(folder: &Path, stem: &str) -> u64 {
    let files = fs::read_dir(folder).unwrap().filter_map(Result::ok);
    files
        .filter(|f| f.file_name().to_string_lossy().starts_with(stem))
        .filter_map(|f| f.metadata().ok())
        .map(|m| m.len())
        .sum()
}

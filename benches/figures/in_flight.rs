//! Rows a second by MQTT to a broker that lets few messages be on their way at once.
//!
//! mosquitto's default is 20, to the job and to the subscriber; any number beside it. A backlog lies in the pool, and
//! the rate counts from the start of the process until a subscriber has every row: a row a message, several rows a
//! message at one topic, and several at the topic of each device.
//! `FOREBAY_BENCH_EVENTS` makes it smaller.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay::demo::client::Receiver;
use tokio::runtime::Runtime;

use crate::peers::{Forebay, IN_FLIGHT, Mosquitto, until};
use crate::pools::{self, Stored};
use crate::process::usage;

const ROWS: u64 = 50_000;
const AT_ONCE: usize = 4_000;
/// Topic and settings of the output.
const KINDS: [(&str, &str); 4] = [
    ("a row a message", "topic = \"out\"\nbody = \"row\"\n"),
    ("100 rows, one topic", "topic = \"out\"\nbody = \"array\"\n"),
    ("100 rows as lines", "topic = \"out\"\nbody = \"lines\"\n"),
    ("100 rows by device", "topic = \"out/{deviceId}\"\nbody = \"array\"\n"),
];

pub fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("in_flight");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let rows =
        std::env::var("FOREBAY_BENCH_EVENTS").ok().and_then(|n| n.parse().ok()).map_or(ROWS, |n: u64| n.min(ROWS));
    let pool = pools::write(&folder, "backlog", rows, Stored::Checkpoints(AT_ONCE));
    println!("in flight: {rows} rows of a backlog by MQTT at QoS 1, with so many messages on their way at once");
    println!(
        "{:<20} {:>9} {:>9} {:>9} {:>8} {:>8}   (aim: 5,000 rows/s with {IN_FLIGHT})",
        "", "in flight", "rows/s", "messages", "CPU s/M", "peak MB"
    );
    for (name, settings) in KINDS {
        for in_flight in [IN_FLIGHT, 0] {
            let shown = if in_flight == 0 { "any".to_owned() } else { in_flight.to_string() };
            println!("{name:<20} {shown:>9} {}", measured(&runtime, &folder, &pool, rows, settings, in_flight));
        }
    }
    println!();
}

fn measured(runtime: &Runtime, folder: &Path, pool: &Path, rows: u64, settings: &str, in_flight: u16) -> String {
    let broker = Mosquitto::with_in_flight(folder, in_flight);
    let job = folder.join("job");
    let _ = fs::remove_dir_all(&job);
    fs::create_dir_all(&job).unwrap();
    fs::copy(pool, job.join("pool.db")).unwrap();
    fs::write(job.join("job.asaql"), "SELECT rideId, deviceId, distance INTO out FROM rides").unwrap();
    let text = format!(
        "[job]\nname = \"in-flight\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
         [journal]\npath = \"pool.db\"\n\
         [inputs.rides]\ntype = \"mqtt\"\nurl = {url:?}\ntopics = [\"taxi/+/rides\"]\n\
         [outputs.out]\ntype = \"mqtt\"\nurl = {url:?}\n{settings}",
        url = broker.url()
    );
    let path = job.join("job.toml");
    fs::write(&path, text).unwrap();

    let (came, messages) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let receiver = {
        let (came, messages) = (came.clone(), messages.clone());
        let _runtime = runtime.enter();
        Receiver::listen("in-flight-out", "127.0.0.1", broker.port, "out/#", move |message| {
            let rows = message.payload.windows(8).filter(|bytes| bytes == b"\"rideId\"").count();
            came.fetch_add(rows as u64, Ordering::Relaxed);
            messages.fetch_add(1, Ordering::Relaxed);
        })
    };
    assert!(runtime.block_on(receiver.ready(Duration::from_secs(10))));
    let start = Instant::now();
    let forebay = Forebay::start(&path, &folder.join("cache"));
    until("the rows", Duration::from_millis(2), || (came.load(Ordering::Relaxed) >= rows).then_some(()));
    let (seconds, used) = (start.elapsed().as_secs_f64(), usage(forebay.pid()));
    // the position behind the last of them may wait for some seconds
    until("the last commit", Duration::from_millis(100), || {
        (forebay.metric("forebay_output_delivered_total") >= rows as f64).then_some(())
    });
    assert_eq!(came.load(Ordering::Relaxed), rows, "each row once");
    forebay.stop();
    format!(
        "{:>9.0} {:>9} {:>8.2} {:>8.1}",
        rows as f64 / seconds,
        messages.load(Ordering::Relaxed),
        used.cpu_s * 1e6 / rows as f64,
        used.resident_peak_mb
    )
}

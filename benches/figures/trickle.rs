//! The trickle: what one event costs when they come slowly.
//!
//! A filter and a LAG from MQTT to MQTT at 1, 10, 100 and 1,000 events a second, each for a while: CPU seconds per
//! million events, bytes written an event, resident memory. `FOREBAY_BENCH_BEFORE` names another `forebay` that is
//! measured beside this one, by turns in the same run. Event times come from the machine's clock.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use forebay::demo::client::Publisher;
use forebay::demo::fleet::Fleet;
use forebay::time::Timestamp;

use crate::peers::{Forebay, Mosquitto, until};
use crate::process::{Usage, usage};

const RATES: [u64; 4] = [1, 10, 100, 1_000];
/// How long each rate is kept, and how many events come at least.
const SECONDS: u64 = 15;
const EVENTS_MIN: u64 = 30;
const QUERIES: [(&str, &str); 2] = [
    ("filter", "SELECT rideId, distance INTO out FROM rides WHERE distance > 0"),
    (
        "LAG",
        "SELECT deviceId, LAG(distance) OVER (PARTITION BY deviceId LIMIT DURATION(hour, 1)) AS before INTO out FROM rides",
    ),
];

pub fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("trickle");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let mut programs = vec![("this", PathBuf::from(env!("CARGO_BIN_EXE_forebay")))];
    programs.extend(std::env::var_os("FOREBAY_BENCH_BEFORE").map(|path| ("before", PathBuf::from(path))));
    println!("the trickle: MQTT to MQTT, QoS 1");
    println!("{:<8} {:>9} {:<7} {:>9} {:>12} {:>12}", "", "events/s", "", "CPU s/M", "written B", "resident MB");
    for (name, query) in QUERIES {
        for rate in RATES {
            for (which, program) in &programs {
                let used = at(&runtime, &folder, program, query, rate);
                println!(
                    "{name:<8} {rate:>9} {which:<7} {:>9.0} {:>12.0} {:>12.1}",
                    used.0.cpu_s * 1e6 / used.1,
                    used.0.written_bytes / used.1,
                    used.0.resident_mb
                );
            }
        }
    }
    println!();
}

/// What one rate used, and how many events that were.
fn at(runtime: &tokio::runtime::Runtime, folder: &Path, program: &Path, query: &str, rate: u64) -> (Usage, f64) {
    let broker = Mosquitto::start(folder);
    let job = folder.join("job");
    let _ = fs::remove_dir_all(&job);
    fs::create_dir_all(&job).unwrap();
    fs::write(job.join("job.asaql"), query).unwrap();
    let text = format!(
        "[job]\nname = \"trickle\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n[journal]\npath = \"pool.db\"\n\
         [inputs.rides]\ntype = \"mqtt\"\nurl = {url:?}\ntopics = [\"taxi/+/rides\"]\n\
         [outputs.out]\ntype = \"mqtt\"\nurl = {url:?}\ntopic = \"out\"\n",
        url = broker.url()
    );
    let path = job.join("job.toml");
    fs::write(&path, text).unwrap();
    let forebay = Forebay::of(program, &path, &folder.join("cache"));
    until("the connection", Duration::from_millis(20), || {
        (forebay.metric("forebay_source_connected") == 1.0).then_some(())
    });
    let feed = runtime.block_on(async { Publisher::connect("trickle", "127.0.0.1", broker.port) });
    let mut fleet = Fleet::new(50);
    let mut publish = |n: u64| {
        runtime.block_on(async {
            for _ in 0..n {
                let ride = fleet.ride(Timestamp::MIN);
                assert!(feed.send(&ride.topic, ride.payload).await);
            }
        });
    };
    // what happens once, happens before
    publish(20);
    until("the first rows", Duration::from_millis(20), || {
        (forebay.metric("forebay_output_delivered_total") >= 20.0).then_some(())
    });
    std::thread::sleep(Duration::from_secs(1));
    let events = (rate * SECONDS).max(EVENTS_MIN);
    let before = usage(forebay.pid());
    let start = Instant::now();
    for i in 0..events {
        let due = Duration::from_secs_f64(i as f64 / rate as f64);
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        publish(1);
    }
    std::thread::sleep(Duration::from_millis(500));
    let used = usage(forebay.pid()).since(&before);
    let rows = (events + 20) as f64;
    until("all rows", Duration::from_millis(50), || {
        (forebay.metric("forebay_output_delivered_total") >= rows).then_some(())
    });
    forebay.stop();
    (used, events as f64)
}

//! What one event costs by rate, from a trickle to thousands a second.
//!
//! MQTT to MQTT at QoS 1, each rate for a while: CPU seconds per million events, bytes written an event as the process
//! counts them and as the block device does, latency from the publisher to a subscriber, resident memory.
//! `FOREBAY_BENCH_BEFORE` names another `forebay` that is measured beside this one, by turns in the same run;
//! `FOREBAY_BENCH_SECONDS` is the time of a rate, `FOREBAY_BENCH_RATES=100,1000` picks rates. Event times come from the machine's clock.

use std::fs;
use std::path::{Path, PathBuf};

use tokio::runtime::Runtime;

use crate::device::Device;
use crate::peers::{Forebay, Mosquitto};
use crate::steady::{Seen, Steady};

const RATES: [u64; 7] = [1, 10, 100, 200, 1_000, 2_000, 5_000];
/// How long each rate is kept, and how many events come at least.
const SECONDS: u64 = 20;
const EVENTS_MIN: u64 = 30;
const DAY: f64 = 86_400.0;

const FILTER: &str = "SELECT rideId, distance INTO out FROM rides WHERE distance > 0";
const LAG: &str =
    "SELECT rideId, LAG(distance) OVER (PARTITION BY deviceId LIMIT DURATION(hour, 1)) AS before INTO out FROM rides";

/// A statement with settings of the journal, and the rates at which it is measured.
struct Subject {
    name: &'static str,
    query: &'static str,
    journal: &'static str,
    rates: &'static [u64],
}

const SUBJECTS: [Subject; 3] = [
    Subject { name: "filter", query: FILTER, journal: "", rates: &RATES },
    Subject { name: "filter, 20 ms", query: FILTER, journal: "commit_interval = \"20ms\"\n", rates: &[100, 1_000] },
    Subject { name: "LAG", query: LAG, journal: "", rates: &[1, 10, 100, 1_000] },
];

pub fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("rates");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let device = Device::mount(&folder);
    let mut programs = vec![("this", PathBuf::from(env!("CARGO_BIN_EXE_forebay")))];
    programs.extend(std::env::var_os("FOREBAY_BENCH_BEFORE").map(|path| ("before", PathBuf::from(path))));
    println!("rates: MQTT to MQTT, QoS 1");
    if device.is_none() {
        println!("bytes at the device are not measured: that needs root, mkfs.ext4 and a free loop device");
    }
    println!(
        "{:<14} {:>8} {:<7} {:>8} {:>10} {:>9} {:>8} {:>8} {:>8} {:>12}",
        "", "events/s", "", "CPU s/M", "written B", "device B", "GB a day", "p50 ms", "p99 ms", "resident MB"
    );
    let picked: Option<Vec<u64>> = std::env::var("FOREBAY_BENCH_RATES")
        .ok()
        .map(|rates| rates.split(',').map(|rate| rate.trim().parse().expect("a number of events a second")).collect());
    for Subject { name, query, journal, rates } in SUBJECTS {
        for rate in rates.iter().filter(|rate| picked.as_ref().is_none_or(|picked| picked.contains(rate))) {
            for (which, program) in &programs {
                let place = Place { runtime: &runtime, folder: &folder, device: device.as_ref() };
                let (seen, device_bytes) = place.at(program, query, journal, *rate);
                let event = |bytes: f64| bytes / seen.events;
                let at_device = device_bytes.map_or("-".to_owned(), |bytes| format!("{:.0}", event(bytes)));
                let a_day = device_bytes.unwrap_or(seen.used.written_bytes) / seen.seconds * DAY / 1e9;
                println!(
                    "{name:<14} {rate:>8} {which:<7} {:>8.0} {:>10.0} {at_device:>9} {a_day:>8.2} {:>8.1} {:>8.1} \
                    {:>12.1}",
                    seen.cpu_s_per_million(),
                    event(seen.used.written_bytes),
                    seen.latency(0.5),
                    seen.latency(0.99),
                    seen.used.resident_mb
                );
            }
        }
    }
    println!();
}

struct Place<'a> {
    runtime: &'a Runtime,
    folder: &'a Path,
    device: Option<&'a Device>,
}

impl Place<'_> {
    fn at(&self, program: &Path, query: &str, journal: &str, rate: u64) -> (Seen, Option<f64>) {
        let broker = Mosquitto::start(self.folder);
        let job = self.device.map_or(self.folder, |device| &device.folder).join("job");
        let _ = fs::remove_dir_all(&job);
        fs::create_dir_all(&job).unwrap();
        fs::write(job.join("job.asaql"), query).unwrap();
        let text = format!(
            "[job]\nname = \"rates\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
             [journal]\npath = \"pool.db\"\n{journal}\
             [inputs.rides]\ntype = \"mqtt\"\nurl = {url:?}\ntopics = [\"taxi/+/rides\"]\n\
             [outputs.out]\ntype = \"mqtt\"\nurl = {url:?}\ntopic = \"out\"\n",
            url = broker.url()
        );
        let path = job.join("job.toml");
        fs::write(&path, text).unwrap();
        let forebay = Forebay::of(program, &path, &self.folder.join("cache"));
        let seconds = std::env::var("FOREBAY_BENCH_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(SECONDS);
        let events = (rate * seconds).max(EVENTS_MIN);
        let steady = Steady { runtime: self.runtime, port: broker.port, topic: "out", rate, events };
        let mut written = Vec::new();
        let seen = steady.measure(&forebay, || written.extend(self.device.map(Device::written)));
        forebay.stop();
        (seen, written.first().zip(written.last()).map(|(before, after)| after - before))
    }
}

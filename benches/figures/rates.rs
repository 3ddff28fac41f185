//! What one event costs by rate, from an idle job over a trickle to thousands a second.
//!
//! MQTT to MQTT at QoS 1, each rate for a while: CPU seconds per million events, bytes written an event as the process
//! counts them and as the block device does, latency from the publisher to a subscriber, resident memory. At 0 events a
//! second it is CPU and bytes of a minute. What the write budget has saved up is spent at the same rate before the
//! measurement begins, and of the lower rates two checkpoints are measured: so bytes a day are those of a long run.
//! `FOREBAY_BENCH_BEFORE` names another `forebay` that is measured beside this one, by turns in the same run;
//! `FOREBAY_BENCH_SECONDS` is the time of a rate (130 s, above 1,000 events a second 20 s);
//! `FOREBAY_BENCH_RATES=100,1000` picks rates. Event times come from the machine's clock.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forebay::demo::endpoint::Endpoint;
use tokio::runtime::Runtime;

use crate::device::Device;
use crate::peers::{Forebay, Mosquitto, create_array};
use crate::steady::{Rows, Seen, Steady};

const RATES: [u64; 8] = [0, 1, 10, 100, 200, 1_000, 2_000, 5_000];
/// How long each rate is kept: the lower ones for two checkpoints, which are a minute apart.
const SECONDS: u64 = 130;
const SECONDS_ABOVE: u64 = 20;
/// The highest rate that is kept so long.
const LONG_UP_TO: u64 = 1_000;
/// What the write budget saves up is gone in less.
const WARM_UP_SECONDS: u64 = 15;
const WARM_UP_SECONDS_MIN: u64 = 3;
/// Of an idle job: what the start left to the first checkpoint is done.
const IDLE_AFTER_SECONDS: u64 = 75;
/// How many events come at least.
const EVENTS_MIN: u64 = 30;
const DAY: f64 = 86_400.0;

const FILTER: &str = "SELECT rideId, distance INTO out FROM rides WHERE distance > 0";
const LAG: &str =
    "SELECT rideId, LAG(distance) OVER (PARTITION BY deviceId LIMIT DURATION(hour, 1)) AS before INTO out FROM rides";
const TUMBLING: &str =
    "SELECT deviceId, COUNT(*) AS n INTO out FROM rides GROUP BY deviceId, TUMBLINGWINDOW(second, 10)";
const TAXI: &str =
    "SELECT rideId, udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare
INTO out FROM rides";
const THREE: &str = "SELECT rideId, distance INTO out FROM rides WHERE distance > 0;
SELECT rideId, udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare INTO scored
FROM rides;
SELECT deviceId, COUNT(*) AS n INTO counted FROM rides GROUP BY deviceId, TUMBLINGWINDOW(second, 10)";

/// Statements with settings of the journal, and the rates at which they are measured.
struct Subject {
    name: &'static str,
    query: &'static str,
    /// The first is watched.
    outputs: &'static [&'static str],
    rows: Rows,
    journal: &'static str,
    rates: &'static [u64],
}

const PLAIN: Subject =
    Subject { name: "filter", query: FILTER, outputs: &["out"], rows: Rows::OneARide, journal: "", rates: &RATES };
const LOWER: &[u64] = &[1, 10, 100, 1_000];
const SUBJECTS: [Subject; 6] = [
    PLAIN,
    Subject { name: "filter, 20 ms", journal: "commit_interval = \"20ms\"\n", rates: &[100, 1_000], ..PLAIN },
    Subject { name: "LAG", query: LAG, rates: LOWER, ..PLAIN },
    Subject { name: "tumbling 10 s", query: TUMBLING, rows: Rows::Some, rates: LOWER, ..PLAIN },
    Subject { name: "taxi, scored", query: TAXI, rates: LOWER, ..PLAIN },
    Subject { name: "three", query: THREE, outputs: &["out", "scored", "counted"], rates: &[20], ..PLAIN },
];

pub fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("rates");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let device = Device::mount(&folder);
    let mut programs = vec![("this", PathBuf::from(env!("CARGO_BIN_EXE_forebay")))];
    programs.extend(std::env::var_os("FOREBAY_BENCH_BEFORE").map(|path| ("before", PathBuf::from(path))));
    println!("rates: MQTT to MQTT, QoS 1; three: filter, score and tumbling window in one job");
    if device.is_none() {
        println!("bytes at the device are not measured: that needs root, mkfs.ext4 and a free loop device");
    }
    println!(
        "{:<14} {:>8} {:<7} {:>10} {:>10} {:>10} {:>8} {:>8} {:>8} {:>12} {:>8}",
        "",
        "events/s",
        "",
        "CPU s/M",
        "written B",
        "device B",
        "GB a day",
        "p50 ms",
        "p99 ms",
        "resident MB",
        "peak MB"
    );
    let picked: Option<Vec<u64>> = std::env::var("FOREBAY_BENCH_RATES")
        .ok()
        .map(|rates| rates.split(',').map(|rate| rate.trim().parse().expect("a number of events a second")).collect());
    for subject in SUBJECTS {
        for rate in subject.rates.iter().filter(|rate| picked.as_ref().is_none_or(|picked| picked.contains(rate))) {
            for (which, program) in &programs {
                let place = Place { runtime: &runtime, folder: &folder, device: device.as_ref() };
                let (seen, device_bytes) = place.at(program, &subject, *rate);
                println!("{:<14} {rate:>8} {which:<7} {}", subject.name, line(&seen, *rate, device_bytes));
            }
        }
    }
    println!();
}

fn line(seen: &Seen, rate: u64, device_bytes: Option<f64>) -> String {
    let minutes = seen.seconds / 60.0;
    let cpu = match rate {
        0 => format!("{:.0} ms/min", seen.used.cpu_s * 1e3 / minutes),
        _ => format!("{:.0}", seen.cpu_s_per_million()),
    };
    let each = |bytes: f64| match rate {
        0 => format!("{:.0}/min", bytes / minutes),
        _ => format!("{:.0}", bytes / seen.events),
    };
    let at_device = device_bytes.map_or("-".to_owned(), each);
    let a_day = device_bytes.unwrap_or(seen.used.written_bytes) / seen.seconds * DAY / 1e9;
    let ms = |part| seen.latency(part).map_or("-".to_owned(), |ms| format!("{ms:.1}"));
    format!(
        "{cpu:>10} {:>10} {at_device:>10} {a_day:>8.2} {:>8} {:>8} {:>12.1} {:>8.1}",
        each(seen.used.written_bytes),
        ms(0.5),
        ms(0.99),
        seen.used.resident_mb,
        seen.used.resident_peak_mb
    )
}

/// For how long a rate warms up, and for how long it is measured.
fn times(rate: u64) -> (Duration, Duration) {
    let wanted = std::env::var("FOREBAY_BENCH_SECONDS").ok().and_then(|s| s.parse().ok());
    let seconds = wanted.unwrap_or(if rate > LONG_UP_TO { SECONDS_ABOVE } else { SECONDS });
    let warm_up_max = if rate == 0 { IDLE_AFTER_SECONDS } else { WARM_UP_SECONDS };
    let warm_up = seconds.clamp(WARM_UP_SECONDS_MIN, warm_up_max);
    let time = if rate == 0 { seconds } else { seconds.max(EVENTS_MIN.div_ceil(rate)) };
    (Duration::from_secs(warm_up), Duration::from_secs(time))
}

struct Place<'a> {
    runtime: &'a Runtime,
    folder: &'a Path,
    device: Option<&'a Device>,
}

impl Place<'_> {
    fn at(&self, program: &Path, subject: &Subject, rate: u64) -> (Seen, Option<f64>) {
        let broker = Mosquitto::start(self.folder);
        let job = self.device.map_or(self.folder, |device| &device.folder).join("job");
        let _ = fs::remove_dir_all(&job);
        fs::create_dir_all(&job).unwrap();
        fs::write(job.join("job.asaql"), subject.query).unwrap();
        let url = broker.url();
        let mut text = format!(
            "[job]\nname = \"rates\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
             [journal]\npath = \"pool.db\"\n{}\
             [inputs.rides]\ntype = \"mqtt\"\nurl = {url:?}\ntopics = [\"taxi/+/rides\"]\n",
            subject.journal
        );
        for name in subject.outputs {
            let _ = write!(text, "[outputs.{name}]\ntype = \"mqtt\"\nurl = {url:?}\ntopic = {name:?}\n");
        }
        let endpoint = subject.query.contains("udf.score").then(|| self.runtime.block_on(Endpoint::start()).unwrap());
        if let Some(endpoint) = &endpoint {
            let _ = write!(
                text,
                "[functions.createArray]\ntype = \"wasm\"\ncomponent = {:?}\n\
                 [functions.score]\ntype = \"azureml\"\nurl = {:?}\n",
                create_array(),
                endpoint.url()
            );
        }
        let path = job.join("job.toml");
        fs::write(&path, text).unwrap();
        let forebay = Forebay::of(program, &path, &self.folder.join("cache"));
        let (warm_up, time) = times(rate);
        let (runtime, port, topic) = (self.runtime, broker.port, subject.outputs[0]);
        let steady = Steady { runtime, port, topic, rows: subject.rows, rate, warm_up, time };
        let mut written = Vec::new();
        let seen = steady.measure(&forebay, || written.extend(self.device.map(Device::written)));
        forebay.stop();
        (seen, written.first().zip(written.last()).map(|(before, after)| after - before))
    }
}

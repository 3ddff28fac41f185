//! What a local statement notices of peers that are away.
//!
//! One job, MQTT in and three statements: one to a broker here, which is measured; one that an endpoint scores; one to
//! another broker. Each rate runs with everything well, with the endpoint refusing connections, with the endpoint
//! taking requests and never answering, and with the other broker away. `FOREBAY_BENCH_SECONDS` is the time of a rate.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forebay::demo::endpoint::Endpoint;
use tokio::runtime::Runtime;

use crate::peers::{Forebay, Mosquitto, create_array};
use crate::steady::{Rows, Seen, Steady};

const RATES: [u64; 4] = [1, 10, 100, 1_000];
const SECONDS: u64 = 10;
const NEVER: Duration = Duration::from_secs(3_600);
const QUERY: &str = "SELECT rideId, distance INTO local FROM rides WHERE distance > 0;
SELECT rideId, udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare INTO scored
FROM rides;
SELECT rideId, distance INTO remote FROM rides WHERE distance > 0";

/// Which peer is away, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Away {
    Nobody,
    EndpointRefuses,
    EndpointHangs,
    OutputRefuses,
}

const CASES: [(&str, Away); 4] = [
    ("all well", Away::Nobody),
    ("endpoint refuses", Away::EndpointRefuses),
    ("endpoint hangs", Away::EndpointHangs),
    ("output away", Away::OutputRefuses),
];

pub fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("independence");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let seconds = std::env::var("FOREBAY_BENCH_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(SECONDS);
    println!("independence: a local statement while peers of others are away, {seconds} s each");
    println!("{:<18} {:>8} {:>8} {:>8} {:>8} {:>12}", "", "events/s", "p50 ms", "p99 ms", "CPU s/M", "resident MB");
    for rate in RATES {
        for (name, away) in CASES {
            let seen = measured(&runtime, &folder, away, rate, Duration::from_secs(seconds));
            println!(
                "{name:<18} {rate:>8} {:>8.1} {:>8.1} {:>8.0} {:>12.1}",
                seen.latency(0.5).unwrap(),
                seen.latency(0.99).unwrap(),
                seen.cpu_s_per_million(),
                seen.used.resident_mb
            );
        }
    }
    println!();
}

fn measured(runtime: &Runtime, folder: &Path, away: Away, rate: u64, time: Duration) -> Seen {
    let broker = Mosquitto::start(folder);
    let mut other = Some(Mosquitto::start(folder));
    let endpoint = runtime.block_on(Endpoint::start()).unwrap();
    let job = folder.join("job");
    let _ = fs::remove_dir_all(&job);
    fs::create_dir_all(&job).unwrap();
    fs::write(job.join("job.asaql"), QUERY).unwrap();
    let text = format!(
        "[job]\nname = \"independence\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
         [journal]\npath = \"pool.db\"\n\
         [inputs.rides]\ntype = \"mqtt\"\nurl = {url:?}\ntopics = [\"taxi/+/rides\"]\n\
         [functions.createArray]\ntype = \"wasm\"\ncomponent = {:?}\n\
         [functions.score]\ntype = \"azureml\"\nurl = {:?}\n\
         [outputs.local]\ntype = \"mqtt\"\nurl = {url:?}\ntopic = \"local\"\n\
         [outputs.scored]\ntype = \"mqtt\"\nurl = {url:?}\ntopic = \"scored\"\n\
         [outputs.remote]\ntype = \"mqtt\"\nurl = {:?}\ntopic = \"remote\"\n",
        create_array(),
        endpoint.url(),
        other.as_ref().unwrap().url(),
        url = broker.url(),
    );
    let path = job.join("job.toml");
    fs::write(&path, text).unwrap();
    // killed, not stopped: a stop gives a peer that is away some seconds
    let forebay = Forebay::start(&path, &folder.join("cache"));
    let go_away = || match away {
        Away::Nobody => {}
        Away::EndpointRefuses => runtime.block_on(endpoint.go_down()).unwrap(),
        Away::EndpointHangs => endpoint.set_delay(NEVER),
        Away::OutputRefuses => other = None,
    };
    let mut go_away = Some(go_away);
    let (port, warm_up) = (broker.port, Duration::ZERO);
    let steady = Steady { runtime, port, topic: "local", rows: Rows::OneARide, rate, warm_up, time };
    // all is well until the measurement begins
    steady.measure(&forebay, || go_away.take().into_iter().for_each(|mut go| go()))
}

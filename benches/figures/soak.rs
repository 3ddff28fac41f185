//! Two hours at 20 events a second, with an outage every ten minutes: does anything grow?
//!
//! One job on a file system of its own: rides in, a filter and a tumbling window to another broker, and a score, by
//! MQTT at QoS 1. By turns the endpoint refuses connections, the way to the other broker is cut, the endpoint hangs,
//! and the way to the input's broker is cut, each for a fifth of a part. A line is printed before each outage, when all
//! is well again: memory, files, open files and threads should be flat, the bytes a day inside the write budget. At the
//! end every row has come, and the first part stands beside the last.
//! `FOREBAY_BENCH_SECONDS` makes it shorter; there are always twelve parts.

use std::collections::HashSet;
use std::fs;
use std::io::copy;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use forebay::demo::client::{Publisher, Receiver};
use forebay::demo::endpoint::Endpoint;
use forebay::demo::fleet::Fleet;
use forebay::time::{Clock, Timestamp};
use tokio::runtime::Runtime;

use crate::device::Device;
use crate::peers::{Forebay, Mosquitto, create_array, until};
use crate::process::usage;

const SECONDS: u64 = 7_200;
const PARTS: u32 = 12;
const RATE: u64 = 20;
/// Longer than any part.
const NEVER: Duration = Duration::from_secs(36_000);
const DAY: f64 = 86_400.0;
const QUERY: &str = "SELECT rideId, distance INTO local FROM rides WHERE distance >= 0;
SELECT rideId, udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare INTO scored
FROM rides;
SELECT deviceId, COUNT(*) AS n INTO counted FROM rides GROUP BY deviceId, TUMBLINGWINDOW(second, 10)";

pub fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("soak");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let seconds = std::env::var("FOREBAY_BENCH_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(SECONDS);
    let device = Device::mount(&folder);
    let place = device.as_ref().map_or(folder.as_path(), |device| device.folder.as_path());
    let broker = Mosquitto::start(&folder);
    let other = Mosquitto::start(&folder);
    let (way_in, way_out) = (Way::to(broker.port), Way::to(other.port));
    let endpoint = runtime.block_on(Endpoint::start()).unwrap();
    let path = write_job(place, &way_in.url(), &broker.url(), &way_out.url(), &endpoint.url());
    let forebay = Forebay::start(&path, &folder.join("cache"));

    // a tumbling window says the same of a device every ten seconds: its rows are told apart by their ids
    let came: [Arc<Mutex<HashSet<String>>>; 3] = Default::default();
    let counted: Arc<Mutex<u64>> = Arc::default();
    let listen = |port: u16, topic: &str, rows: &Arc<Mutex<HashSet<String>>>| {
        let (_runtime, rows, counted) = (runtime.enter(), rows.clone(), counted.clone());
        let is_window = topic == "counted";
        let receiver = Receiver::listen(&format!("soak-{topic}"), "127.0.0.1", port, topic, move |message| {
            let is_new = rows.lock().unwrap().insert(message.row_id.unwrap_or_default());
            if is_window && is_new {
                let row: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
                *counted.lock().unwrap() += row["n"].as_u64().unwrap();
            }
        });
        assert!(runtime.block_on(receiver.ready(Duration::from_secs(10))));
        receiver
    };
    let [local, scored, windows] = &came;
    let _receivers = [
        listen(other.port, "local", local),
        listen(broker.port, "scored", scored),
        listen(other.port, "counted", windows),
    ];
    let soon = Duration::from_millis(20);
    until("the connection", soon, || (forebay.metric("forebay_source_connected") == 1.0).then_some(()));

    println!("soak: {RATE} events/s for {seconds} s, an outage of a fifth of the time in each of {PARTS} parts");
    if device.is_none() {
        println!("bytes at the device are not measured: that needs root, mkfs.ext4 and a free loop device");
    }
    println!(
        "{:>8} {:<18} {:>11} {:>8} {:>8} {:>7} {:>10} {:>8} {:>8} {:>8}",
        "minutes", "outage before", "resident MB", "files MB", "open", "threads", "GB a day", "CPU s/M", "sent", "rows"
    );
    let feed = Feed::start(&runtime, broker.port);
    let part = Duration::from_secs(seconds) / PARTS;
    let start = Instant::now();
    let mut before = Seen::of(&forebay, place, device.as_ref());
    let mut parts = Vec::new();
    for number in 0..PARTS {
        // four fifths of a part are well; what an outage left behind is done by then
        let well = part * number + part * 4 / 5;
        std::thread::sleep(well.saturating_sub(start.elapsed()));
        let seen = Seen::of(&forebay, place, device.as_ref());
        let rows = came.iter().map(|rows| rows.lock().unwrap().len()).sum::<usize>();
        let outage = number.checked_sub(1).map_or("none yet", |last| Outage::of(last).name());
        let used = Part::between(&before, &seen);
        used.print(start.elapsed(), outage, rows);
        parts.push(used);
        before = seen;
        let outage = Outage::of(number);
        match outage {
            Outage::EndpointRefuses => runtime.block_on(endpoint.go_down()).unwrap(),
            Outage::EndpointHangs => endpoint.set_delay(NEVER),
            Outage::OutputAway => way_out.cut(),
            Outage::InputAway => way_in.cut(),
        }
        std::thread::sleep((part * (number + 1)).saturating_sub(start.elapsed()));
        match outage {
            Outage::EndpointRefuses => {
                let _runtime = runtime.enter();
                endpoint.come_back().unwrap();
            }
            Outage::EndpointHangs => endpoint.set_delay(Duration::ZERO),
            Outage::OutputAway => way_out.mend(),
            Outage::InputAway => way_in.mend(),
        }
    }
    let sent = feed.stop();
    let rows = |rows: &Mutex<HashSet<String>>| rows.lock().unwrap().len() as u64;
    until("all rows", Duration::from_millis(200), || (rows(local) >= sent && rows(scored) >= sent).then_some(()));
    // the windows of the last seconds are still open
    let open = sent.saturating_sub(*counted.lock().unwrap());
    println!("{sent} events: {} filtered, {} scored; windows hold all but the last {open}", rows(local), rows(scored));
    compare(&parts);
    // the last outage is one of the input: no event tells that the windows before it are over
    let open_max = RATE * (60 + part.as_secs() / 5);
    assert!(rows(local) == sent && rows(scored) == sent && open <= open_max);
}

/// What goes away, in this order, again and again.
#[derive(Clone, Copy)]
enum Outage {
    EndpointRefuses,
    OutputAway,
    EndpointHangs,
    InputAway,
}

impl Outage {
    const ALL: [Outage; 4] = [Outage::EndpointRefuses, Outage::OutputAway, Outage::EndpointHangs, Outage::InputAway];

    /// At the end of a part.
    fn of(part: u32) -> Outage {
        Outage::ALL[part as usize % Outage::ALL.len()]
    }

    fn name(self) -> &'static str {
        match self {
            Outage::EndpointRefuses => "endpoint refuses",
            Outage::OutputAway => "output away",
            Outage::EndpointHangs => "endpoint hangs",
            Outage::InputAway => "input away",
        }
    }
}

fn write_job(folder: &Path, input: &str, broker: &str, other: &str, endpoint: &str) -> PathBuf {
    fs::write(folder.join("job.asaql"), QUERY).unwrap();
    let text = format!(
        "[job]\nname = \"soak\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
         [journal]\npath = \"pool.db\"\n\
         [inputs.rides]\ntype = \"mqtt\"\nurl = {input:?}\ntopics = [\"taxi/+/rides\"]\n\
         [functions.createArray]\ntype = \"wasm\"\ncomponent = {:?}\n\
         [functions.score]\ntype = \"azureml\"\nurl = {endpoint:?}\n\
         [outputs.local]\ntype = \"mqtt\"\nurl = {other:?}\ntopic = \"local\"\n\
         [outputs.counted]\ntype = \"mqtt\"\nurl = {other:?}\ntopic = \"counted\"\n\
         [outputs.scored]\ntype = \"mqtt\"\nurl = {broker:?}\ntopic = \"scored\"\n",
        create_array(),
    );
    let path = folder.join("job.toml");
    fs::write(&path, text).unwrap();
    path
}

/// Rides at a fixed rate from a thread of its own.
struct Feed {
    stop: Arc<Mutex<bool>>,
    thread: std::thread::JoinHandle<u64>,
}

impl Feed {
    fn start(runtime: &Runtime, port: u16) -> Feed {
        let stop: Arc<Mutex<bool>> = Arc::default();
        let (stopped, handle) = (stop.clone(), runtime.handle().clone());
        let thread = std::thread::spawn(move || {
            let feed = handle.block_on(async { Publisher::connect("soak", "127.0.0.1", port) });
            let mut fleet = Fleet::new(50);
            let start = Instant::now();
            while !*stopped.lock().unwrap() {
                let due = Duration::from_secs_f64(feed.sent() as f64 / RATE as f64);
                std::thread::sleep(due.saturating_sub(start.elapsed()));
                let ride = fleet.ride(now());
                assert!(handle.block_on(feed.send(&ride.topic, ride.payload)));
            }
            assert!(handle.block_on(feed.drained(Duration::from_secs(60))));
            feed.sent()
        });
        Feed { stop, thread }
    }

    fn stop(self) -> u64 {
        *self.stop.lock().unwrap() = true;
        self.thread.join().unwrap()
    }
}

fn now() -> Timestamp {
    Clock::Real.now()
}

/// What the job uses.
struct Seen {
    at: Instant,
    cpu_s: f64,
    resident_mb: f64,
    files_mb: f64,
    open: usize,
    threads: usize,
    written: f64,
    stored: f64,
}

impl Seen {
    fn of(forebay: &Forebay, folder: &Path, device: Option<&Device>) -> Seen {
        let used = usage(forebay.pid());
        let count = |name: &str| fs::read_dir(format!("/proc/{}/{name}", forebay.pid())).unwrap().count();
        let files = fs::read_dir(folder).unwrap().filter_map(|entry| entry.ok()?.metadata().ok());
        Seen {
            at: Instant::now(),
            cpu_s: used.cpu_s,
            resident_mb: used.resident_mb,
            files_mb: files.filter(|file| file.is_file()).map(|file| file.len()).sum::<u64>() as f64 / 1e6,
            open: count("fd"),
            threads: count("task"),
            written: device.map_or(used.written_bytes, Device::written),
            stored: forebay.metric("forebay_input_received_total"),
        }
    }
}

/// What the job uses where a part ends, and what it used in that part.
struct Part {
    resident_mb: f64,
    files_mb: f64,
    open: usize,
    threads: usize,
    gb_a_day: f64,
    cpu_s_per_million: f64,
    stored: f64,
}

impl Part {
    fn between(before: &Seen, now: &Seen) -> Part {
        let seconds = (now.at - before.at).as_secs_f64();
        Part {
            resident_mb: now.resident_mb,
            files_mb: now.files_mb,
            open: now.open,
            threads: now.threads,
            gb_a_day: (now.written - before.written) / seconds * DAY / 1e9,
            cpu_s_per_million: (now.cpu_s - before.cpu_s) * 1e6 / (now.stored - before.stored).max(1.0),
            stored: now.stored,
        }
    }

    fn print(&self, since_start: Duration, outage: &str, rows: usize) {
        println!(
            "{:>8.1} {outage:<18} {:>11.1} {:>8.2} {:>8} {:>7} {:>10.2} {:>8.0} {:>8.0} {rows:>8}",
            since_start.as_secs_f64() / 60.0,
            self.resident_mb,
            self.files_mb,
            self.open,
            self.threads,
            self.gb_a_day,
            self.cpu_s_per_million,
            self.stored,
        );
    }
}

/// The first part and the last beside each other; between them the first that has the outage of the last behind it.
fn compare(parts: &[Part]) {
    let last = parts.len() - 1;
    let alike = (last - 1) % Outage::ALL.len() + 1;
    let columns = [0, alike, last].map(|number| &parts[number]);
    println!("{:<12} {:>10} {:>10} {:>10}", "part", 1, alike + 1, last + 1);
    let line = |name: &str, figure: fn(&Part) -> f64| {
        let [first, alike, last] = columns.map(figure);
        println!("{name:<12} {first:>10.2} {alike:>10.2} {last:>10.2}");
    };
    line("resident MB", |part| part.resident_mb);
    line("files MB", |part| part.files_mb);
    line("open files", |part| part.open as f64);
    line("threads", |part| part.threads as f64);
    line("GB a day", |part| part.gb_a_day);
    line("CPU s/M", |part| part.cpu_s_per_million);
    println!();
}

/// The way to a broker, which can be cut.
struct Way {
    port: u16,
    state: Arc<Mutex<WayState>>,
}

#[derive(Default)]
struct WayState {
    is_cut: bool,
    streams: Vec<TcpStream>,
}

impl Way {
    fn to(target: u16) -> Way {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let way = Way { port: listener.local_addr().unwrap().port(), state: Arc::default() };
        let state = way.state.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let mut state = state.lock().unwrap();
                // a connection that is closed at once is what a broker that is away looks like behind a gateway's proxy
                if let Some(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).ok().filter(|_| !state.is_cut) {
                    for (from, to) in [(&near, &far), (&far, &near)] {
                        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                        std::thread::spawn(move || {
                            let _ = copy(&mut from, &mut to);
                            let _ = to.shutdown(Shutdown::Both);
                        });
                    }
                    state.streams.extend([near, far]);
                }
            }
        });
        way
    }

    fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    fn cut(&self) {
        let mut state = self.state.lock().unwrap();
        state.is_cut = true;
        for stream in state.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.state.lock().unwrap().is_cut = false;
    }
}

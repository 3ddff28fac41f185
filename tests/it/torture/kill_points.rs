//! A job that kills itself at each of its kill points, again and again, while rides are published.
//!
//! It has everything that a crash can part: a call to an endpoint, a window, an output that is away now and then, and
//! messages that do not decode. Afterwards the sender's own count is compared with what the receivers saw.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay::demo::broker::Broker;
use forebay::demo::client::{Message, Publisher, Receiver};
use forebay::demo::endpoint::Endpoint;
use forebay::demo::fleet::Fleet;
use forebay::kill_point::KillPoint;
use forebay::time::Timestamp;
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::disk::Child;
use super::{Tally, repeat_with, seed, times};
use crate::harness::{Forebay, PATIENCE, cli_in, component, until};
use crate::kills::{Received, redelivered_possible};
use crate::support::{assert_pool_is_good, runtime, write_job};

const QUERY: &str = "SELECT rideId, udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) \
    AS fare INTO scored FROM rides
    SELECT COUNT(*) AS n INTO counts FROM rides GROUP BY TumblingWindow(second, 1)
    SELECT rideId INTO late FROM rides";

/// One ride of a hundred is a message that is no event: its dead letter has the file take over what the log holds. So
/// there are small segments that become full ones, and commits without a dead letter.
const BAD_EVERY: usize = 100;
/// Rides between two pauses.
const BURST: usize = 20;

/// The job, and the other ends of its connections.
struct House {
    dir: TempDir,
    job: PathBuf,
    runtime: Runtime,
    broker: Broker,
    /// Of the output `late`, which the job does without for a while.
    late: Broker,
    /// Closes when it is dropped.
    _endpoint: Endpoint,
}

impl House {
    fn new() -> House {
        let (dir, runtime) = (tempfile::tempdir().expect("a folder"), runtime());
        let (broker, late, endpoint) = runtime.block_on(async {
            let broker = || async { Broker::start().await.expect("a broker") };
            (broker().await, broker().await, Endpoint::start().await.expect("an endpoint"))
        });
        let job = format!(
            "[job]\nname = \"torture\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
             [inputs.rides]\ntype = \"mqtt\"\nurl = {broker:?}\ntopics = [\"taxi/+/rides\"]\n\
             [functions.createArray]\ntype = \"wasm\"\ncomponent = {component:?}\n\
             [functions.score]\ntype = \"azureml\"\nurl = {score:?}\n\
             [outputs.scored]\ntype = \"mqtt\"\nurl = {broker:?}\ntopic = \"out/scored\"\n\
             [outputs.counts]\ntype = \"mqtt\"\nurl = {broker:?}\ntopic = \"out/counts\"\n\
             [outputs.late]\ntype = \"mqtt\"\nurl = {late:?}\ntopic = \"out/late\"\n",
            broker = broker.url(),
            late = late.url(),
            component = component("create_array"),
            score = endpoint.url(),
        );
        let job = write_job(dir.path(), &job, QUERY);
        House { dir, job, runtime, broker, late, _endpoint: endpoint }
    }

    /// Whether the broker of the output `late` is there from now on.
    fn let_late(&mut self, is_up: bool) {
        let late = &mut self.late;
        self.runtime.block_on(async {
            match is_up {
                true => late.come_up().await.expect("the same port"),
                false => late.go_down().await,
            }
        });
    }

    /// Runs the job until it has killed itself there.
    fn die_at(&self, point: KillPoint, pass: u64) {
        let place = format!("{}:{pass}", point.name());
        let log = self.dir.path().join("killed.log");
        let mut child = Child(
            Command::new(crate::harness::binary())
                .arg("run")
                .arg(&self.job)
                .env("FOREBAY_LOG", "info")
                .env("FOREBAY_KILL_AT", &place)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(File::create(&log).expect("a log"))
                .spawn()
                .expect("the binary starts"),
        );
        let ended = until(&format!("the job to reach {place}"), || child.0.try_wait().expect("a status"));
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        assert_eq!(ended.signal(), Some(9), "at {place} it ended with {ended}:\n{}", said());
    }
}

/// Which pass of a point ends the process, at most: a start passes some of them a dozen times, and others are rare.
fn passes_max(point: KillPoint) -> u64 {
    match point {
        KillPoint::TakenOver => 1,
        KillPoint::Merge => 2,
        KillPoint::Trim => 4,
        KillPoint::LogWritten => 10,
        KillPoint::Receive | KillPoint::ScoreSend | KillPoint::ScoreAnswer => 20,
        KillPoint::CheckpointBegin | KillPoint::CheckpointWritten | KillPoint::CheckpointDone => 30,
        KillPoint::Deliver | KillPoint::Delivered => 30,
        KillPoint::BeforeCommit | KillPoint::AfterCommit => 50,
        KillPoint::Acknowledge => 300,
    }
}

/// Publishes rides, and what is none, until it is told to end.
struct Feed {
    goes_on: Arc<AtomicBool>,
    publisher: Arc<Publisher>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Feed {
    fn start(house: &House) -> Feed {
        let goes_on = Arc::new(AtomicBool::new(true));
        let port = house.broker.address().port();
        let publisher = house.runtime.block_on(async { Arc::new(Publisher::connect("fleet", "127.0.0.1", port)) });
        let (go_on, to) = (goes_on.clone(), publisher.clone());
        let task = house.runtime.spawn(async move {
            let (mut fleet, mut ids) = (Fleet::new(31), Vec::new());
            while go_on.load(Ordering::Relaxed) {
                let ride = fleet.ride(Timestamp::MIN);
                assert!(to.send(&ride.topic, ride.payload).await);
                ids.push(ride.id);
                if ids.len() % BAD_EVERY == 0 {
                    assert!(to.send(&ride.topic, "no event").await);
                }
                if ids.len() % BURST == 0 {
                    // what comes between two processes is to be taken in by the next
                    tokio::time::sleep(Duration::from_millis(25)).await;
                }
            }
            ids
        });
        Feed { goes_on, publisher, task }
    }

    /// The rides that the broker took.
    fn end(self, runtime: &Runtime) -> Vec<String> {
        self.goes_on.store(false, Ordering::Relaxed);
        let sent = runtime.block_on(self.task).expect("the publisher");
        assert!(runtime.block_on(self.publisher.drained(PATIENCE)), "the broker took all");
        sent
    }
}

/// The windows that came, by their ids.
struct Windows {
    _receiver: Receiver,
    counts: Arc<Mutex<HashMap<String, u64>>>,
}

impl Windows {
    fn listen(house: &House) -> Windows {
        let counts: Arc<Mutex<HashMap<String, u64>>> = Arc::default();
        let sink = counts.clone();
        let take = move |m: Message| {
            let row: Json = serde_json::from_slice(&m.payload).expect("JSON");
            let n = row["n"].as_u64().expect("a count");
            let before = sink.lock().expect("counts").insert(m.row_id.expect("an id"), n);
            assert!(before.is_none_or(|before| before == n), "a repeat counts {n} rides, and {before:?} before");
        };
        let port = house.broker.address().port();
        let receiver = house.runtime.block_on(async { Receiver::listen("w", "127.0.0.1", port, "out/counts", take) });
        assert!(house.runtime.block_on(receiver.ready(PATIENCE)));
        Windows { _receiver: receiver, counts }
    }

    /// Rides in all of them.
    fn sum(&self) -> u64 {
        self.counts.lock().expect("counts").values().sum()
    }
}

/// Rides that came with more ids than one: where a broker's redelivery could not be recognised.
fn with_more_ids(received: &Received<()>) -> usize {
    let rows = received.rows();
    let mut ids_of: HashMap<&str, HashSet<&str>> = HashMap::new();
    for row in &rows {
        ids_of.entry(&row.ride).or_default().insert(&row.id);
    }
    ids_of.values().map(|ids| ids.len() - 1).sum()
}

/// Where to end each time: all points in turn, each time in another order.
fn plan(kills: usize, rng: &mut fastrand::Rng) -> Vec<(KillPoint, u64)> {
    let mut plan = Vec::new();
    while plan.len() < kills {
        let mut points = KillPoint::ALL;
        rng.shuffle(&mut points);
        plan.extend(points.map(|point| (point, rng.u64(1..=passes_max(point)))));
    }
    plan.truncate(kills);
    plan
}

#[test]
fn a_job_that_dies_at_its_kill_points_loses_nothing_and_counts_each_ride_once() {
    let (kills, seed) = (times("FOREBAY_TORTURE_KILLS", 30), seed());
    assert!(kills >= KillPoint::ALL.len(), "each point once takes {} kills", KillPoint::ALL.len());
    let _told = repeat_with(seed, "FOREBAY_TORTURE_KILLS", kills, "torture::kill_points");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut house = House::new();
    let none = |_: &Json| ();
    let scored = Received::listen(&house.runtime, house.broker.address().port(), "out/scored", none);
    let late = Received::listen(&house.runtime, house.late.address().port(), "out/late", none);
    let windows = Windows::listen(&house);
    // the subscription must exist before the first ride, or the broker would have nobody to keep it for
    Forebay::run(&house.job).kill();

    let feed = Feed::start(&house);
    let mut reached: BTreeMap<&str, usize> = BTreeMap::new();
    for (point, pass) in plan(kills, &mut rng) {
        house.let_late(match point {
            KillPoint::Merge => false,
            KillPoint::Trim => true,
            _ => rng.u8(0..3) > 0,
        });
        house.die_at(point, pass);
        *reached.entry(point.name()).or_default() += 1;
    }
    let sent = feed.end(&house.runtime);
    assert_eq!(reached.len(), KillPoint::ALL.len(), "points that were reached: {reached:?}");

    house.let_late(true);
    let forebay = Forebay::run(&house.job);
    scored.wait_for(&sent, &forebay);
    late.wait_for(&sent, &forebay);
    let stored = || forebay.metric("forebay_input_stored_total") as u64;
    until("every stored ride in a window", || (windows.sum() >= stored()).then_some(()));
    assert_eq!(windows.sum(), stored(), "each stored ride is counted once");
    let (possible, more) = (redelivered_possible(&forebay), with_more_ids(&scored).max(with_more_ids(&late)));
    assert!(more as f64 <= possible, "{more} rides came with another id, the ledger counts {possible}");
    assert!(stored() as usize <= sent.len() + possible as usize, "{} stored, {} sent", stored(), sent.len());
    let bad = forebay.metric("forebay_input_undecodable_total") as usize;
    assert!(bad >= sent.len() / BAD_EVERY, "{bad} messages that are no event");
    forebay.stop();
    assert_pool_is_good(house.dir.path());
    let found = format!("0 of {} rides lost, 0 counted twice, {more} not recognised as redelivered", sent.len());
    Tally::new("a job kills itself at a named point").tried(kills, "kills").found(found);
}

#[test]
fn a_kill_point_that_is_none_ends_the_start_with_what_to_write() {
    let dir = tempfile::tempdir().expect("a folder");
    for (place, told) in [("nowhere:1", "`nowhere` is no kill point"), ("trim:0", "which pass ends the process")] {
        let (code, out, err) = cli_in(dir.path(), &[("FOREBAY_KILL_AT", place)], &["run", "job.toml"]);
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(err.contains(told) && err.contains("FOREBAY_KILL_AT"), "{err}");
    }
    assert!(!dir.path().join("job.db").exists());
}

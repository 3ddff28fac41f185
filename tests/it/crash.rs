//! `kill -9` at random moments, and a broker that goes away, lose nothing that was acknowledged.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay::demo::client::{Feed, Message, Receiver};
use forebay::demo::fleet::Fleet;
use forebay::time::Timestamp;
use serde_json::Value as Json;

use crate::harness::{Forebay, PATIENCE, component, until, write};
use crate::score::Server;
use crate::support::Mosquitto;

/// Moments at which the process is killed.
const KILLS: usize = 30;

#[test]
fn thirty_kills_lose_no_ride_and_every_repeat_is_known_by_its_id_or_counted() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let broker = Mosquitto::start();
    let server = Server::start("array");
    write(
        dir.path(),
        "job.asaql",
        "SELECT rideId, udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare INTO scored FROM rides",
    );
    let job = format!(
        "[job]\nname = \"crash\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
         [inputs.rides]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{port}\"\ntopics = [\"taxi/+/rides\"]\n\
         [functions.createArray]\ntype = \"wasm\"\ncomponent = {component:?}\n\
         [functions.score]\ntype = \"azureml\"\nurl = \"http://{server}/score\"\n\
         [outputs.scored]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{port}\"\ntopic = \"out/scored\"\n",
        port = broker.port,
        component = component("create_array"),
        server = server.address(),
    );
    let job = write(dir.path(), "job.toml", &job);

    let rows: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let sink = rows.clone();
    let take = move |m: Message| {
        let row: Json = serde_json::from_slice(&m.payload).expect("JSON");
        assert!(row["fare"].is_number(), "{row}");
        sink.lock().expect("rows").push((m.row_id.expect("an id"), row["rideId"].as_str().expect("a ride").to_owned()));
    };
    let receiver = runtime.block_on(async { Receiver::listen("receiver", "127.0.0.1", broker.port, "out/scored", take) });
    assert!(runtime.block_on(receiver.ready(PATIENCE)));

    // the subscription must exist before the first ride, or the broker would have nobody to keep it for
    let mut forebay = Forebay::run(&job);

    let going = Arc::new(AtomicBool::new(true));
    let go_on = going.clone();
    let feed = runtime.block_on(async { Arc::new(Feed::connect("fleet", "127.0.0.1", broker.port)) });
    let publisher = feed.clone();
    let publishing = runtime.spawn(async move {
        let mut fleet = Fleet::new(30);
        let mut ids = Vec::new();
        while go_on.load(Ordering::Relaxed) {
            let ride = fleet.ride(Timestamp::MIN);
            assert!(publisher.send(&ride.topic, ride.payload).await);
            ids.push(ride.id);
            if ids.len() % 20 == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        ids
    });

    let mut rng = fastrand::Rng::with_seed(9);
    for _ in 0..KILLS {
        std::thread::sleep(Duration::from_millis(rng.u64(20..700)));
        forebay.kill();
        forebay = Forebay::run(&job);
    }
    going.store(false, Ordering::Relaxed);
    let sent = runtime.block_on(publishing).expect("the publisher");
    assert!(runtime.block_on(feed.drained(PATIENCE)), "the broker took all");
    assert!(sent.len() > 1000, "a run of {} rides shows little", sent.len());

    let missing = || {
        let rows = rows.lock().expect("rows");
        let seen: HashSet<&str> = rows.iter().map(|(_, ride)| ride.as_str()).collect();
        sent.iter().filter(|id| !seen.contains(id.as_str())).count()
    };
    until(&format!("all rides; log:\n{}", forebay.log()), || (missing() == 0).then_some(()));

    // a ride that came twice: the same row again (equal id), or a broker's redelivery that could not be recognised
    let rows = rows.lock().expect("rows").clone();
    let mut ids_of: HashMap<&str, HashSet<&str>> = HashMap::new();
    for (id, ride) in &rows {
        ids_of.entry(ride).or_default().insert(id);
    }
    let unknown: usize = ids_of.values().map(|ids| ids.len() - 1).sum();
    let redelivered_possible = forebay.metric("forebay_source_redelivered_possible_total");
    assert!(unknown as f64 <= redelivered_possible, "{unknown} repeats have a new id, the ledger counts {redelivered_possible}");
    println!(
        "{} rides, {} rows, {} repeats with an equal id, {unknown} with another",
        sent.len(),
        rows.len(),
        rows.len() - sent.len() - unknown
    );
    forebay.stop();
}

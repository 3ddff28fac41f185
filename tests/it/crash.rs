//! A job between mosquitto and Azure ML's inference server is killed with `kill -9` thirty times at random moments. It
//! loses nothing that was acknowledged.

use std::collections::{HashMap, HashSet};

use crate::harness::component;
use crate::kills::{Received, redelivered_possible, survive};
use crate::score::Server;
use crate::support::{Mosquitto, runtime, write_job};

/// Moments at which the process is killed.
const KILLS: usize = 30;

#[test]
fn thirty_kills_lose_no_ride_and_every_repeat_is_known_by_its_id_or_counted() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    let server = Server::start("array");
    let query = "SELECT rideId, udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare \
        INTO scored FROM rides";
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
    let job = write_job(dir.path(), &job, query);

    let fare = |row: &serde_json::Value| assert!(row["fare"].is_number(), "{row}");
    let received = Received::listen(&runtime, broker.port, "out/scored", fare);
    let (forebay, sent) = survive(&runtime, &job, broker.port, KILLS, 9);
    received.wait_for(&sent, &forebay);

    // a ride that came twice: the same row again (equal id), or a broker's redelivery that could not be recognised
    let rows = received.rows();
    let mut ids_of: HashMap<&str, HashSet<&str>> = HashMap::new();
    for row in &rows {
        ids_of.entry(&row.ride).or_default().insert(&row.id);
    }
    let unknown: usize = ids_of.values().map(|ids| ids.len() - 1).sum();
    let possible = redelivered_possible(&forebay);
    assert!(unknown as f64 <= possible, "{unknown} repeats have a new id, the ledger counts {possible}");
    println!(
        "{} rides, {} rows, {} repeats with an equal id, {unknown} with another",
        sent.len(),
        rows.len(),
        rows.len() - sent.len() - unknown
    );
    forebay.stop();
}

//! The whole job through real peers: the binary, mosquitto and Azure ML's inference server. A fleet publishes rides, a
//! receiver collects rows; a module a subject.

#[path = "end_to_end/changed_query.rs"]
mod changed_query;
#[path = "end_to_end/endpoints.rs"]
mod endpoints;
#[path = "end_to_end/messages.rs"]
mod messages;
#[path = "end_to_end/pool.rs"]
mod pool;
#[path = "end_to_end/state.rs"]
mod state;
#[path = "end_to_end/windows.rs"]
mod windows;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use forebay::demo::client::{Message, Publisher, Receiver};
use forebay::demo::fleet::Fleet;
use forebay::time::Timestamp;
use serde_json::Value as Json;

use crate::harness::{PATIENCE, component, http};
use crate::support::{Mosquitto, write_job};

/// What a receiver saw, in order: row id and row.
type Seen = Arc<Mutex<Vec<(String, Json)>>>;

fn listen(runtime: &tokio::runtime::Runtime, broker: &Mosquitto, id: &str, topic: &str) -> (Receiver, Seen) {
    let seen: Seen = Arc::default();
    let sink = seen.clone();
    let take = move |m: Message| {
        let row = serde_json::from_slice(&m.payload).expect("an output row is JSON");
        sink.lock().expect("seen").push((m.row_id.expect("every row has an id"), row));
    };
    let receiver = runtime.block_on(async { Receiver::listen(id, "127.0.0.1", broker.port, topic, take) });
    assert!(runtime.block_on(receiver.ready(PATIENCE)), "the receiver is subscribed");
    (receiver, seen)
}

/// Publishes `count` rides and waits for the broker's acknowledgements; answers them by id, in order.
fn publish(
    runtime: &tokio::runtime::Runtime,
    broker: &Mosquitto,
    fleet: &mut Fleet,
    count: usize,
) -> Vec<(String, Json)> {
    let at = Timestamp::parse("2026-05-01T10:00:00Z").expect("a time");
    let rides: Vec<_> = (0..count).map(|_| fleet.ride(at)).collect();
    let sent = rides.iter().map(|r| (r.id.clone(), serde_json::from_str(&r.payload).expect("JSON"))).collect();
    runtime.block_on(async {
        let feed = Publisher::connect("fleet", "127.0.0.1", broker.port);
        for ride in rides {
            assert!(feed.send(&ride.topic, ride.payload).await);
        }
        assert!(feed.drained(PATIENCE).await, "the broker took {} of {}", feed.acknowledged(), feed.sent());
    });
    sent
}

/// The fares a direct call gives, by ride id.
fn direct(
    server: SocketAddr,
    rides: &[(String, Json)],
    row: impl Fn(&Json) -> Json,
    result: impl Fn(Json) -> Vec<Json>,
) -> HashMap<String, Json> {
    let mut fares = HashMap::new();
    for chunk in rides.chunks(2000) {
        let body = serde_json::json!({ "data": chunk.iter().map(|(_, r)| row(r)).collect::<Vec<_>>() });
        let (status, answer) = http(server, "POST", "/score", &body.to_string());
        assert_eq!(status, 200, "{answer}");
        let scores = result(serde_json::from_str(&answer).expect("JSON"));
        assert_eq!(scores.len(), chunk.len());
        fares.extend(chunk.iter().map(|(id, _)| id.clone()).zip(scores));
    }
    fares
}

const FIELDS: [&str; 5] = ["vendorid", "weekday", "pickuphour", "passenger", "distance"];

fn text(value: &Json) -> Json {
    Json::String(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

fn as_array(ride: &Json) -> Json {
    FIELDS.iter().map(|f| text(&ride[f])).collect()
}

fn as_record(ride: &Json) -> Json {
    FIELDS.iter().map(|f| ((*f).to_owned(), ride[f].clone())).collect::<serde_json::Map<_, _>>().into()
}

fn list(answer: Json) -> Vec<Json> {
    answer.as_array().expect("an array").clone()
}

/// A job file over this broker, with these functions and outputs.
fn job(
    dir: &Path,
    broker: &Mosquitto,
    query: &str,
    functions: &[(&str, SocketAddr)],
    outputs: &[&str],
    extra: &str,
) -> PathBuf {
    let mut text = format!(
        "[job]\nname = \"test\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n[inputs.rides]\ntype = \
        \"mqtt\"\nurl = \"mqtt://127.0.0.1:{}\"\ntopics = [\"taxi/+/rides\"]\n",
        broker.port
    );
    text += &format!("[functions.createArray]\ntype = \"wasm\"\ncomponent = {:?}\n", component("create_array"));
    text += &format!("[functions.createRow]\ntype = \"wasm\"\ncomponent = {:?}\n", component("create_row"));
    for (name, server) in functions {
        text += &format!("[functions.{name}]\ntype = \"azureml\"\nurl = \"http://{server}/score\"\n");
    }
    for name in outputs {
        text += &format!(
            "[outputs.{name}]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{}\"\ntopic = \"out/{name}\"\n",
            broker.port
        );
    }
    write_job(dir, &(text + extra), query)
}

fn distinct(seen: &Seen) -> usize {
    seen.lock()
        .expect("seen")
        .iter()
        .map(|(_, row)| row["rideId"].as_str().expect("a ride id").to_owned())
        .collect::<std::collections::HashSet<_>>()
        .len()
}

/// Each ride came exactly once, with the fare a direct call gives.
fn assert_scored_once(seen: &Seen, fares: &HashMap<String, Json>) {
    let seen = seen.lock().expect("seen");
    let mut by_ride: HashMap<&str, &Json> = HashMap::new();
    for (id, row) in seen.iter() {
        let ride = row["rideId"].as_str().expect("a ride id");
        assert!(by_ride.insert(ride, &row["fare"]).is_none(), "ride {ride} came twice, the second time as {id}");
    }
    assert_eq!(by_ride.len(), fares.len());
    for (ride, fare) in by_ride {
        assert_eq!(*fare, fares[ride], "ride {ride}");
    }
}

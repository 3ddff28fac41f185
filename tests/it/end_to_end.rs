//! The whole job through real peers: mosquitto and Azure ML's inference server.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay::demo::client::{Message, Publisher, Receiver};
use forebay::demo::fleet::Fleet;
use forebay::time::Timestamp;
use serde_json::Value as Json;

use crate::harness::{Forebay, PATIENCE, component, http, until, write};
use crate::score::Server;
use crate::support::Mosquitto;

/// What a receiver saw, in order: row id and row.
type Seen = Arc<Mutex<Vec<(String, Json)>>>;

/// A runtime for the test's own clients.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

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
        "[job]\nname = \"test\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n[inputs.rides]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{}\"\ntopics = [\"taxi/+/rides\"]\n",
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
    write(dir, "job.asaql", query);
    write(dir, "job.toml", &(text + extra))
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

#[test]
fn fifty_thousand_rides_are_scored_once_by_four_kinds_of_endpoint() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    let kinds = ["array", "frame", "multi", "string"];
    let servers: Vec<Server> = kinds.iter().map(|kind| Server::start(kind)).collect();
    let addresses: Vec<SocketAddr> = servers.iter().map(|s| s.address()).collect();
    let query = "
        WITH Dataframe AS (SELECT rideId, vendorid, weekday, pickuphour, passenger, distance FROM rides)
        SELECT rideId, udf.array(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare INTO array FROM rides;
        SELECT rideId, udf.frame(udf.createRow(vendorid, weekday, pickuphour, passenger, distance)) AS fare INTO frame FROM rides;
        WITH_PLACEHOLDER";
    let query = query.replace(
        "WITH_PLACEHOLDER",
        "SELECT rideId, udf.multi(udf.createRow(vendorid, weekday, pickuphour, passenger, distance)) AS fare INTO multi FROM Dataframe;
        SELECT rideId, udf.string(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare INTO string FROM rides",
    );
    let functions: Vec<(&str, SocketAddr)> = kinds.iter().copied().zip(addresses.iter().copied()).collect();
    let path = job(dir.path(), &broker, &query, &functions, &kinds, "");
    let outputs: Vec<(Receiver, Seen)> =
        kinds.iter().map(|k| listen(&runtime, &broker, &format!("receiver-{k}"), &format!("out/{k}"))).collect();
    let forebay = Forebay::run(&path);
    let rides = publish(&runtime, &broker, &mut Fleet::new(1), 50_000);
    for (kind, (_, seen)) in kinds.iter().zip(&outputs) {
        until(&format!("50,000 rows from {kind}:\n{}", forebay.log()), || {
            (distinct(seen) == rides.len()).then_some(())
        });
    }
    let unpack = |answer: Json| answer["result"].as_array().expect("a result").clone();
    let decode = |answer: Json| {
        serde_json::from_str::<Json>(answer.as_str().expect("text")).expect("JSON")["result"]
            .as_array()
            .expect("a result")
            .clone()
    };
    assert_scored_once(&outputs[0].1, &direct(addresses[0], &rides, as_array, list));
    assert_scored_once(&outputs[1].1, &direct(addresses[1], &rides, as_record, list));
    assert_scored_once(&outputs[2].1, &direct(addresses[2], &rides, as_record, unpack));
    assert_scored_once(&outputs[3].1, &direct(addresses[3], &rides, as_array, decode));
    assert_eq!(forebay.metric("forebay_input_received_total"), 50_000.0);
    forebay.stop();
}

#[test]
fn an_endpoint_that_is_down_from_the_start_gets_everything_in_order_when_it_comes_up() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    let reserved = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = reserved.local_addr().expect("an address");
    drop(reserved);
    let query = "SELECT rideId, udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare INTO scored FROM rides";
    let path = job(dir.path(), &broker, query, &[("score", address)], &["scored"], "");
    let (_receiver, seen) = listen(&runtime, &broker, "receiver", "out/scored");
    let mut forebay = Forebay::run(&path);
    let rides = publish(&runtime, &broker, &mut Fleet::new(2), 20_000);
    until("20,000 events in the pool", || (forebay.metric("forebay_input_stored_total") == 20_000.0).then_some(()));
    assert_eq!(distinct(&seen), 0);
    assert!(forebay.is_alive());
    let server = Server::start_on("array", address.port());
    until("all rides scored", || (distinct(&seen) == rides.len()).then_some(()));
    assert_scored_once(&seen, &direct(server.address(), &rides, as_array, list));
    let order: Vec<String> =
        seen.lock().expect("seen").iter().map(|(_, row)| row["rideId"].as_str().expect("id").to_owned()).collect();
    assert_eq!(order, rides.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), "rows come in stream order");
    forebay.stop();
}

#[test]
fn a_full_pool_withholds_acknowledgements_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    let reserved = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = reserved.local_addr().expect("an address");
    drop(reserved);
    let query = "SELECT rideId, filler, udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare INTO scored FROM rides";
    let path =
        job(dir.path(), &broker, query, &[("score", address)], &["scored"], "[journal]\nmax_bytes = \"16MiB\"\n");
    let (_receiver, seen) = listen(&runtime, &broker, "receiver", "out/scored");
    let mut forebay = Forebay::run(&path);
    // noise does not compress, so the pool fills as it would with real bytes
    let mut rng = fastrand::Rng::with_seed(3);
    let mut fleet = Fleet::new(3);
    let count = 20_000;
    runtime.block_on(async {
        let feed = Publisher::connect("fleet", "127.0.0.1", broker.port);
        for _ in 0..count {
            let ride = fleet.ride(Timestamp::MIN);
            let noise: String = (0..1500).map(|_| rng.alphanumeric()).collect();
            let payload = ride.payload.replacen('{', &format!("{{\"filler\":\"{noise}\","), 1);
            assert!(feed.send(&ride.topic, payload).await);
        }
        assert!(feed.drained(PATIENCE).await);
    });
    until("intake to stop", || (forebay.metric("forebay_pool_full") == 1.0).then_some(()));
    let stored = forebay.metric("forebay_input_stored_total");
    assert!(stored < f64::from(count), "the pool is too small for all: {stored}");
    let file = std::fs::metadata(dir.path().join("test.db")).expect("the pool").len();
    assert!(file < 24 << 20, "the pool keeps near its budget: {file} bytes");
    assert!(forebay.is_alive());
    assert_eq!(forebay.get("/healthz").0, 200);
    let _server = Server::start_on("array", address.port());
    until("all rides scored once there is room", || (distinct(&seen) == count as usize).then_some(()));
    assert!(forebay.is_alive());
    forebay.stop();
}

#[test]
fn a_bad_payload_becomes_a_dead_letter_and_the_next_one_is_processed() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    let path = job(dir.path(), &broker, "SELECT n INTO plain FROM rides", &[], &["plain"], "");
    let (_receiver, seen) = listen(&runtime, &broker, "receiver", "out/plain");
    let forebay = Forebay::run(&path);
    runtime.block_on(async {
        let feed = Publisher::connect("fleet", "127.0.0.1", broker.port);
        for payload in [
            "{\"n\":1}",
            "not json",
            "{\"n\":",
            "[{\"n\":2},3,{\"n\":3}]",
            "{\"n\":99999999999999999999}",
            "\u{fffd}",
            "{\"n\":4}\n{\"n\":5}",
            "7",
            "",
            "{\"n\":6}",
        ] {
            assert!(feed.send("taxi/a/rides", payload).await);
        }
        assert!(feed.drained(PATIENCE).await);
    });
    until("six rows", || (seen.lock().expect("seen").len() == 6).then_some(()));
    let numbers: Vec<i64> = seen.lock().expect("seen").iter().map(|(_, row)| row["n"].as_i64().expect("n")).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    assert_eq!(forebay.metric("forebay_input_undecodable_total"), 6.0);
    assert_eq!(forebay.metric("forebay_input_dropped_total"), 1.0, "the empty one");
    let (code, listed, _) = crate::harness::cli(dir.path(), &["journal", "dead-letters", "ls", "--job", "job.toml"]);
    assert_eq!(code, 0);
    assert!(listed.contains("not json") && listed.contains("undecodable"), "{listed}");
    forebay.stop();
}

#[test]
fn a_query_reads_topic_and_user_properties() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    let query = "SELECT n, GetMetadataPropertyValue(rides, 'Mqtt.Topic') AS topic, GetMetadataPropertyValue(rides, '[User].[site]') AS site,
        GetMetadataPropertyValue(rides, '[User].[absent]') AS absent, GetMetadataPropertyValue(rides, 'Mqtt.Qos') AS qos INTO plain FROM rides";
    let path = job(dir.path(), &broker, query, &[], &["plain"], "");
    let (_receiver, seen) = listen(&runtime, &broker, "receiver", "out/plain");
    let forebay = Forebay::run(&path);
    let mut message = crate::support::Message::new("taxi/7/rides", "{\"n\":1}");
    message.properties.push(("site".to_owned(), "north".to_owned()));
    runtime.block_on(crate::support::publish(&broker.url(), vec![message]));
    until("the row", || (!seen.lock().expect("seen").is_empty()).then_some(()));
    let row = seen.lock().expect("seen")[0].1.clone();
    assert_eq!(row, serde_json::json!({"n": 1, "topic": "taxi/7/rides", "site": "north", "absent": null, "qos": 1}));
    forebay.stop();
}

#[test]
fn tumbling_windows_close_on_a_quiet_device_and_survive_a_kill() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    let query = "SELECT deviceId, COUNT(*) AS n, SUM(distance) AS total, System.Timestamp() AS at INTO windows FROM rides GROUP BY deviceId, TumblingWindow(second, 4)";
    let path = job(dir.path(), &broker, query, &[], &["windows"], "");
    let (_receiver, seen) = listen(&runtime, &broker, "receiver", "out/windows");
    let mut fleet = Fleet::new(4);
    let mut sent = 0;
    for _ in 0..3 {
        let forebay = Forebay::run(&path);
        sent += publish(&runtime, &broker, &mut fleet, 500).len();
        until("all stored", || (forebay.metric("forebay_input_stored_total") == sent as f64).then_some(()));
        forebay.kill();
    }
    let forebay = Forebay::run(&path);
    let counted = |seen: &Seen| {
        let seen = seen.lock().expect("seen");
        let rows: HashMap<&str, i64> =
            seen.iter().map(|(id, row)| (id.as_str(), row["n"].as_i64().expect("n"))).collect();
        rows.values().sum::<i64>()
    };
    // nothing is sent any more: ticks alone must close the last window
    until("every ride in exactly one window", || (counted(&seen) >= sent as i64).then_some(()));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(counted(&seen), sent as i64);
    forebay.stop();
}

#[test]
fn windows_behind_a_call_close_when_the_device_is_quiet() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    let server = Server::start("array");
    let query = "WITH Scored AS (SELECT deviceId, udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare FROM rides)
        SELECT COUNT(*) AS n, SUM(fare) AS total INTO windows FROM Scored GROUP BY TumblingWindow(second, 2)";
    let path = job(dir.path(), &broker, query, &[("score", server.address())], &["windows"], "");
    let (_receiver, seen) = listen(&runtime, &broker, "receiver", "out/windows");
    let forebay = Forebay::run(&path);
    publish(&runtime, &broker, &mut Fleet::new(5), 50);
    let counted = || seen.lock().expect("seen").iter().map(|(_, row)| row["n"].as_i64().expect("n")).sum::<i64>();
    until("all rides in closed windows", || (counted() == 50).then_some(()));
    forebay.stop();
}

#[test]
fn a_job_stops_although_its_pool_is_full_and_its_output_is_away() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let query = "SELECT rideId, filler, LAG(n) OVER (LIMIT DURATION(hour, 1)) AS before INTO away FROM rides";
    let extra = format!(
        "[outputs.away]\ntype = \"mqtt\"\nurl = \"mqtt://{nobody}\"\ntopic = \"x\"\n[journal]\nmax_bytes = \"16MiB\"\n"
    );
    let path = job(dir.path(), &broker, query, &[], &[], &extra);
    let forebay = Forebay::run(&path);
    let mut rng = fastrand::Rng::with_seed(6);
    runtime.block_on(async {
        let feed = Publisher::connect("fleet", "127.0.0.1", broker.port);
        for n in 0..24_000 {
            let noise: String = (0..1500).map(|_| rng.alphanumeric()).collect();
            assert!(feed.send("taxi/a/rides", format!("{{\"n\":{n},\"filler\":\"{noise}\"}}")).await);
        }
        assert!(feed.drained(PATIENCE).await);
    });
    until("intake to stop", || (forebay.metric("forebay_pool_full") == 1.0).then_some(()));
    // waits for the end, and asserts that it is a good one
    forebay.stop();
}

#[test]
fn a_changed_query_loses_no_row_of_the_old_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let mut broker = Mosquitto::start();
    let out = Mosquitto::start();
    let queries = [
        "SELECT n, LAG(n) OVER (LIMIT DURATION(hour, 1)) AS before INTO plain FROM rides",
        "SELECT n AS number, LAG(n) OVER (LIMIT DURATION(hour, 1)) AS previous INTO plain FROM rides",
        "SELECT n AS direct INTO plain FROM rides",
    ];
    let extra = format!("[outputs.plain]\ntype = \"mqtt\"\nurl = \"{}\"\ntopic = \"out/plain\"\n", out.url());
    let (receiver, seen) = listen(&runtime, &out, "receiver", "out/plain");
    drop(receiver);
    let mut out = out;
    out.stop();
    for (i, query) in queries.iter().enumerate() {
        let path = job(dir.path(), &broker, query, &[], &[], &extra);
        let forebay = Forebay::run(&path);
        let messages =
            (0..3).map(|n| crate::support::Message::new("taxi/a/rides", format!("{{\"n\":{}}}", i * 3 + n))).collect();
        runtime.block_on(crate::support::publish(&broker.url(), messages));
        until("three rows more", || {
            (forebay.metric("forebay_input_stored_total") == (i as f64 + 1.0) * 3.0).then_some(())
        });
        until("them to be read", || {
            (i == 2 || forebay.metric("forebay_consumer_pending{job=\"test\",consumer=\"statement plain\"}") == 0.0)
                .then_some(())
        });
        if i < 2 {
            forebay.stop();
            continue;
        }
        out.start_again();
        let sink = seen.clone();
        let take = move |m: Message| {
            sink.lock()
                .expect("seen")
                .push((m.row_id.expect("an id"), serde_json::from_slice(&m.payload).expect("JSON")))
        };
        let _receiver =
            runtime.block_on(async { Receiver::listen("receiver", "127.0.0.1", out.port, "out/plain", take) });
        until("nine rows", || (seen.lock().expect("seen").len() >= 9).then_some(()));
        let mut numbers: Vec<(String, i64)> = Vec::new();
        for (_, row) in seen.lock().expect("seen").iter() {
            for name in ["n", "number", "direct"] {
                numbers.extend(row[name].as_i64().map(|n| (name.to_owned(), n)));
            }
        }
        numbers.sort_by_key(|(_, n)| *n);
        let expected: Vec<(String, i64)> =
            (0..9).map(|n| (["n", "number", "direct"][n as usize / 3].to_owned(), n)).collect();
        assert_eq!(numbers, expected);
        forebay.stop();
        break;
    }
    broker.stop();
}

#[test]
fn the_data_frame_of_a_step_is_scored_in_both_spellings() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    let (frame, array) = (Server::start("frame"), Server::start("array"));
    let query = "WITH Dataframe AS (SELECT vendorid, weekday, pickuphour, passenger, distance FROM rides)
        SELECT udf.scoreFrame(Dataframe) AS fare INTO frames FROM Dataframe;
        SELECT rideId, udf.scoreFrame(Dataframe) AS fare INTO literal FROM rides;
        SELECT rideId, udf.scoreArray(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare INTO arrays FROM rides";
    let functions = [("scoreFrame", frame.address()), ("scoreArray", array.address())];
    let path = job(dir.path(), &broker, query, &functions, &["frames", "literal", "arrays"], "");
    let (_frames, frames) = listen(&runtime, &broker, "receiver-frames", "out/frames");
    let (_literal, literal) = listen(&runtime, &broker, "receiver-literal", "out/literal");
    let (_arrays, arrays) = listen(&runtime, &broker, "receiver-arrays", "out/arrays");
    let forebay = Forebay::run(&path);
    let rides = publish(&runtime, &broker, &mut Fleet::new(8), 500);
    until("all rows", || {
        [&frames, &literal, &arrays].iter().all(|seen| seen.lock().expect("seen").len() >= rides.len()).then_some(())
    });
    let fares = direct(frame.address(), &rides, as_record, list);
    assert_scored_once(&literal, &fares);
    assert_scored_once(&arrays, &direct(array.address(), &rides, as_array, list));
    // the first statement carries no id: its rows come in the order of the stream
    let in_order: Vec<Json> = frames.lock().expect("seen").iter().map(|(_, row)| row["fare"].clone()).collect();
    assert_eq!(in_order, rides.iter().map(|(id, _)| fares[id].clone()).collect::<Vec<_>>());
    forebay.stop();
}

/// A joined endpoint does not compile; what the error says to write is the example, and it runs.
#[test]
fn an_endpoint_drawn_as_a_join_runs_as_the_error_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/readings");
    let dir = tempfile::tempdir().expect("a folder");
    let sample = write(dir.path(), "readings.json", "{}");
    let joined = root.join("joined.asaql");
    let shown = std::process::Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["eval".as_ref(), joined.as_os_str(), "--input".as_ref()])
        .arg(format!("readings={}", sample.display()))
        .output()
        .expect("the program");
    assert_eq!(shown.status.code(), Some(2));
    let message = String::from_utf8(shown.stderr).expect("text");
    let (said, rewrite) = message.split_once("    = help: write\n").expect("a rewrite");
    assert_eq!(
        said.replace(joined.to_str().expect("a path"), "joined.asaql"),
        "error: `detector` cannot be joined: an endpoint is called
   --> joined.asaql:11:15
    |
 11 | JOIN detector INTO (deviceId STRING, temperature FLOAT, humidity FLOAT) AS features
    |               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ a join takes no columns to send
    = note: the endpoint is a function of the job file: `[functions.detector]` with `type = \"azureml\"`
"
    );
    let rewrite: String =
        rewrite.lines().map(|line| format!("{}\n", line.strip_prefix("            ").expect("indented"))).collect();
    assert_eq!(rewrite, std::fs::read_to_string(root.join("readings.asaql")).expect("the example"));

    let runtime = runtime();
    let broker = Mosquitto::start();
    let server = Server::start("readings");
    let text = std::fs::read_to_string(root.join("job.toml")).expect("the example");
    let text = text
        .replace("127.0.0.1:1883", &format!("127.0.0.1:{}", broker.port))
        .replace("127.0.0.1:5001", &server.address().to_string());
    write(dir.path(), "readings.asaql", &rewrite);
    let forebay = Forebay::run(&write(dir.path(), "job.toml", &text));
    let readings: Vec<Json> = (0..40)
        .map(|i| serde_json::json!({ "deviceId": format!("d{}", i % 4), "temperature": 10 + i, "humidity": 35.5 + f64::from(i) }))
        .chain([serde_json::json!({ "deviceId": "odd", "temperature": 20 })])
        .collect();
    runtime.block_on(async {
        let feed = Publisher::connect("sensors", "127.0.0.1", broker.port);
        for reading in &readings {
            assert!(feed.send("sensors/1/readings", reading.to_string()).await);
        }
        assert!(feed.drained(PATIENCE).await);
    });
    let path = dir.path().join("alarms.jsonl");
    let rows = until("all rows", || {
        let text = std::fs::read_to_string(&path).ok()?;
        let rows: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        (rows.len() == readings.len()).then_some(rows)
    });
    let (status, answer) =
        http(server.address(), "POST", "/score", &serde_json::json!({ "data": readings[..40] }).to_string());
    assert_eq!(status, 200, "{answer}");
    let direct: Vec<Json> = serde_json::from_str(&answer).expect("JSON");
    for ((row, reading), verdict) in rows.iter().zip(&readings).zip(&direct) {
        assert_eq!(row["deviceId"], reading["deviceId"]);
        assert_eq!(
            (&row["anomalous"], &row["anomaly_score"]),
            (&verdict["prediction"], &verdict["score"]),
            "{reading}"
        );
    }
    assert!(direct.iter().any(|v| v["prediction"] == true) && direct.iter().any(|v| v["prediction"] == false));
    // a reading without humidity has no verdict, and is not lost
    assert_eq!((&rows[40]["deviceId"], &rows[40]["anomaly_score"]), (&Json::from("odd"), &Json::Null));
    forebay.stop();
}

#[test]
fn too_much_state_withholds_acknowledgements_and_a_larger_budget_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    // no window ends while the test runs, and each ride is a key of its own
    let query = "SELECT rideId, COUNT(*) AS n INTO windows FROM rides GROUP BY rideId, TumblingWindow(day, 7)
        SELECT rideId INTO direct FROM rides";
    let path = job(dir.path(), &broker, query, &[], &["windows", "direct"], "");
    let text = std::fs::read_to_string(&path).expect("the job file");
    let with_budget = |max: &str| {
        write(dir.path(), "job.toml", &text.replacen("[job]\n", &format!("[job]\nstate_bytes_max = \"{max}\"\n"), 1))
    };
    let path = with_budget("64KiB");
    let (_receiver, seen) = listen(&runtime, &broker, "receiver", "out/direct");
    let mut forebay = Forebay::run(&path);
    let mut fleet = Fleet::new(6);
    publish(&runtime, &broker, &mut fleet, 500);
    until("intake to stop", || (forebay.metric("forebay_state_full") == 1.0).then_some(()));
    let stored = forebay.metric("forebay_input_stored_total");
    publish(&runtime, &broker, &mut fleet, 400);
    until("the other statement to go on with all that is stored", || {
        (distinct(&seen) == stored as usize).then_some(())
    });
    let (status, body) = forebay.get("/readyz");
    assert_eq!(status, 503, "{body}");
    assert!(
        body.contains("most of it windows: intake waits until windows close; raise state_bytes_max in [job]"),
        "{body}"
    );
    assert!(forebay.log().contains("raise state_bytes_max in [job]"), "{}", forebay.log());
    assert_eq!(forebay.get("/healthz").0, 200);
    assert!(forebay.metric("forebay_state_bytes{") >= f64::from(56 << 10));
    assert_eq!(forebay.metric("forebay_input_stored_total"), stored, "nothing is stored meanwhile");
    assert!(forebay.is_alive());
    forebay.stop();

    let mut forebay = Forebay::run(&with_budget("16MiB"));
    until("everything stored", || (forebay.metric("forebay_input_stored_total") == 900.0).then_some(()));
    until("everything delivered", || (distinct(&seen) == 900).then_some(()));
    until("everything in a window", || {
        (forebay.metric("forebay_statement_evaluated_total{job=\"test\",statement=\"windows\"}") == 900.0).then_some(())
    });
    assert_eq!(forebay.metric("forebay_state_full"), 0.0);
    assert!(forebay.is_alive());
    forebay.stop();
}

#[test]
fn windows_that_close_make_room_for_more_state() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    let query = "SELECT rideId, COUNT(*) AS n INTO windows FROM rides GROUP BY rideId, TumblingWindow(second, 3)";
    let path = job(dir.path(), &broker, query, &[], &["windows"], "");
    let text = std::fs::read_to_string(&path).expect("the job file").replacen(
        "[job]\n",
        "[job]\nstate_bytes_max = \"64KiB\"\n",
        1,
    );
    let path = write(dir.path(), "job.toml", &text);
    let (_receiver, seen) = listen(&runtime, &broker, "receiver", "out/windows");
    let forebay = Forebay::run(&path);
    publish(&runtime, &broker, &mut Fleet::new(7), 900);
    // time alone closes the windows; nothing else makes room
    until("every ride in a window", || (distinct(&seen) == 900).then_some(()));
    until("all state gone", || (forebay.metric("forebay_state_full") == 0.0).then_some(()));
    let log = forebay.log();
    assert!(
        log.contains("intake waits until windows close") && log.contains("state has shrunk: intake goes on"),
        "{log}"
    );
    forebay.stop();
}

#[test]
fn a_statement_that_stopped_gives_its_share_of_the_state_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    let query = "SELECT k, COUNT(*) AS n, SUM(CAST(v AS bigint)) AS s INTO windows FROM rides GROUP BY k, TumblingWindow(day, 7)
        SELECT k INTO direct FROM rides";
    let path = job(dir.path(), &broker, query, &[], &["windows", "direct"], "");
    let text = std::fs::read_to_string(&path).expect("the job file");
    let head = "[job]\nstate_bytes_max = \"64KiB\"\non_error = \"stop\"\n";
    let path = write(dir.path(), "job.toml", &text.replacen("[job]\n", head, 1));
    let forebay = Forebay::run(&path);
    // 2,500 keys in one message are stored together; the last row stops the statement that holds them
    let object = |n: usize| {
        format!("{{\"k\":\"key-{n}\",\"v\":{}}}", if n == 2_499 { "\"x\"".to_owned() } else { n.to_string() })
    };
    let all: Vec<String> = (0..2_500).map(object).collect();
    let message = crate::support::Message::new("taxi/a/rides", format!("[{}]", all.join(",")));
    runtime.block_on(crate::support::publish(&broker.url(), vec![message]));
    until("the statement to stop", || forebay.log().contains("statement windows stopped at offset").then_some(()));
    until("its state to be gone", || (forebay.metric("forebay_state_full") == 0.0).then_some(()));
    let again = crate::support::Message::new("taxi/a/rides", r#"{"k":"later","v":1}"#);
    runtime.block_on(crate::support::publish(&broker.url(), vec![again]));
    until("what comes later to be stored", || (forebay.metric("forebay_input_stored_total") == 2_501.0).then_some(()));
    until("the other statement to go on", || {
        (forebay.metric("forebay_statement_rows_out_total{job=\"test\",statement=\"direct\"}") == 2_501.0).then_some(())
    });
    forebay.stop();
}

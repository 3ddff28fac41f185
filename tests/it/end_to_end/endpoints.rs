//! Rides scored by Azure ML's inference server, in each of its shapes, late, and after what an error says to write.

use std::net::SocketAddr;
use std::path::Path;

use forebay::demo::client::{Publisher, Receiver};
use forebay::demo::fleet::Fleet;
use serde_json::Value as Json;

use super::{Seen, as_array, as_record, assert_scored_once, direct, distinct, job, list, listen, publish};
use crate::harness::{Forebay, PATIENCE, http, until, write};
use crate::score::Server;
use crate::support::{Mosquitto, runtime};

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
        SELECT rideId, udf.array(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare INTO \
        array FROM rides;
        SELECT rideId, udf.frame(udf.createRow(vendorid, weekday, pickuphour, passenger, distance)) AS fare INTO frame \
        FROM rides;
        WITH_PLACEHOLDER";
    let query = query.replace(
        "WITH_PLACEHOLDER",
        "SELECT rideId, udf.multi(udf.createRow(vendorid, weekday, pickuphour, passenger, distance)) AS fare INTO \
        multi FROM Dataframe;
        SELECT rideId, udf.string(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare INTO \
        string FROM rides",
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
    let query = "SELECT rideId, udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare \
        INTO scored FROM rides";
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
fn the_data_frame_of_a_step_is_scored_in_both_spellings() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    let (frame, array) = (Server::start("frame"), Server::start("array"));
    let query = "WITH Dataframe AS (SELECT vendorid, weekday, pickuphour, passenger, distance FROM rides)
        SELECT udf.scoreFrame(Dataframe) AS fare INTO frames FROM Dataframe;
        SELECT rideId, udf.scoreFrame(Dataframe) AS fare INTO literal FROM rides;
        SELECT rideId, udf.scoreArray(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare \
        INTO arrays FROM rides";
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
        .map(|i| (format!("d{}", i % 4), 10 + i, 35.5 + f64::from(i)))
        .map(|(id, t, h)| serde_json::json!({ "deviceId": id, "temperature": t, "humidity": h }))
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

//! What a function remembers, in a job between mosquitto and Azure ML's inference server: it lasts over `kill -9` and
//! over a new version of the function.

use std::collections::{BTreeMap, HashMap};

use forebay::demo::client::Publisher;
use serde_json::Value as Json;

use super::{GRANTED, job};
use crate::harness::{Forebay, component, until, write};
use crate::kills::{Received, Row, redelivered_possible, survive};
use crate::score::Server;
use crate::support::{Mosquitto, runtime, write_job};

/// Moments at which the process is killed.
const KILLS: usize = 12;

/// The visitor and the count of a row.
fn visit(row: &Json) -> (String, i64) {
    let who = row["vendorid"].as_str().map_or_else(|| row["vendorid"].to_string(), str::to_owned);
    (who, row["visit"]["count"].as_i64().unwrap_or_else(|| panic!("a count: {row}")))
}

/// Every row id has one count; the counts of a visitor go from 1 on without a gap or a repeat.
fn assert_counted(rows: &[Row<(String, i64)>], sent: usize, redelivered_possible: f64) {
    let mut by_id: HashMap<&str, &Row<(String, i64)>> = HashMap::new();
    for row in rows {
        let known = by_id.entry(&row.id).or_insert(row);
        assert_eq!(*known, row, "a row that is repeated under its id is the same row");
    }
    let mut counts: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    by_id.values().for_each(|row| counts.entry(&row.rest.0).or_default().push(row.rest.1));
    for (who, mut counts) in counts {
        counts.sort_unstable();
        assert!(
            counts.iter().copied().eq(1..=counts.len() as i64),
            "the counts of {who} are no row of numbers: {counts:?}"
        );
    }
    let again = by_id.len() - sent;
    assert!(
        again as f64 <= redelivered_possible,
        "{again} rides were counted twice, the ledger has {redelivered_possible}"
    );
    println!("{sent} rides, {} rows, {again} counted again after a redelivery", rows.len());
}

#[test]
fn kills_neither_lose_nor_repeat_what_a_function_counted() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    let server = Server::start("array");
    // `plain` counts straight from the input; `scored` in what follows the answer of an endpoint; `asked` before the
    // call
    let query = "WITH s AS (SELECT rideId, vendorid, udf.score(udf.createArray(vendorid, weekday, pickuphour, \
        passenger, distance)) AS fare FROM rides),
         c AS (SELECT rideId, vendorid, weekday, pickuphour, passenger, distance, udf.before(vendorid) AS visit FROM \
         rides)
         SELECT rideId, vendorid, udf.visitCount(vendorid) AS visit INTO plain FROM rides;
         SELECT rideId, vendorid, fare, udf.visitCount(vendorid) AS visit INTO scored FROM s;
         SELECT rideId, vendorid, visit, udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, \
         distance)) AS fare INTO asked FROM c";
    let mut text = format!(
        "[job]\nname = \"counting\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
         [inputs.rides]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{port}\"\ntopics = [\"taxi/+/rides\"]\n\
         [functions.createArray]\ntype = \"wasm\"\ncomponent = {array:?}\n\
         [functions.score]\ntype = \"azureml\"\nurl = \"http://{server}/score\"\n",
        port = broker.port,
        array = component("create_array"),
        server = server.address(),
    );
    for name in ["visitCount", "before"] {
        let component = component("visit_count");
        text += &format!(
            "[functions.{name}]\ntype = \"wasm\"\nexport = \"visit-count\"\ncomponent = {component:?}\nimports = \
            [\"state\", \"clock\", \"log\"]\nconfig = {{ every = 500 }}\n"
        );
    }
    let outputs = ["plain", "scored", "asked"];
    for output in outputs {
        text += &format!(
            "[outputs.{output}]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{}\"\ntopic = \"out/{output}\"\n",
            broker.port
        );
    }
    let job = write_job(dir.path(), &text, query);
    let listen = |output: &&str| Received::listen(&runtime, broker.port, &format!("out/{output}"), visit);
    let received: Vec<_> = outputs.iter().map(listen).collect();
    let (forebay, sent) = survive(&runtime, &job, broker.port, KILLS, 11);
    received.iter().for_each(|received| received.wait_for(&sent, &forebay));
    let possible = redelivered_possible(&forebay);
    assert_eq!(forebay.metric("forebay_dead_letters"), 0.0);
    forebay.stop();
    received.iter().for_each(|received| assert_counted(&received.rows(), sent.len(), possible));
}

#[test]
fn a_changed_component_keeps_what_was_remembered_and_a_changed_query_does_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    let broker = Mosquitto::start();
    job(dir.path(), GRANTED);
    let text = std::fs::read_to_string(dir.path().join("job.toml")).unwrap();
    let url = format!("mqtt://127.0.0.1:{}", broker.port);
    let mqtt = format!(
        "[outputs.out]\ntype = \"mqtt\"\nurl = \"{url}\"\ntopic = \"out/out\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n"
    );
    let text = text.replace("mqtt://127.0.0.1:1883", &url).replace("[outputs.out]\ntype = \"stdout\"\n", &mqtt);
    let query = "SELECT rideId, vendorid, udf.visitCount(vendorid) AS visit INTO out FROM doors";
    let path = write_job(dir.path(), &text, query);
    let received = Received::listen(&runtime, broker.port, "out/out", visit);
    let feed = runtime.block_on(async { Publisher::connect("doors", "127.0.0.1", broker.port) });
    let mut sent = 0;
    let mut pass = |times: usize| {
        let forebay = Forebay::run(&path);
        for _ in 0..times {
            sent += 1;
            let payload = format!("{{\"rideId\":\"r{sent}\",\"vendorid\":\"ann\"}}");
            assert!(runtime.block_on(feed.send("door", payload)));
        }
        until("the rows", || (received.rows().len() == sent).then_some(()));
        forebay.stop();
        received.rows().iter().map(|row| row.rest.1).collect::<Vec<_>>()
    };
    assert_eq!(pass(3), [1, 2, 3]);

    let wasm = dir.path().join("visit_count.wasm");
    let mut bytes = std::fs::read(&wasm).unwrap();
    // an empty custom section called `x`
    bytes.extend([0, 2, 1, b'x']);
    std::fs::write(&wasm, bytes).unwrap();
    assert_eq!(pass(2), [1, 2, 3, 4, 5]);

    write(
        dir.path(),
        "job.asaql",
        "SELECT rideId, vendorid, udf.visitCount(vendorid) AS visit, 1 AS one INTO out FROM doors",
    );
    assert_eq!(pass(2), [1, 2, 3, 4, 5, 1, 2]);
}

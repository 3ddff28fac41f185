//! Reference data from files, in the real binary behind mosquitto: joined, read again when they change, kept when they
//! are broken.

use std::fs;

use serde_json::Value as Json;

use super::{Place, QUERY, metric, ready, wait_for_degraded, wait_for_version};
use crate::harness::{Forebay, component, root, until, write};
use crate::support::{Message, publish, succeeds};

#[test]
fn files_are_joined_and_read_again_when_they_change() {
    let place = Place::new();
    place.replace("zones.json", r#"[{"id":1,"name":"north"},{"id":2,"name":"south"}]"#);
    place.replace("codes.csv", "zone;code\nnorth;\"N;1\"\nsouth;S\n");
    let query = "SELECT r.n AS n, z.name AS zone, c.code AS code INTO out FROM rides r JOIN zones z ON r.zone = z.id \
        LEFT JOIN codes c ON z.name = c.zone;\n\
                 SELECT z.name AS zone, COUNT(*) AS n INTO counts FROM rides r JOIN zones z ON r.zone = z.id GROUP BY \
                 z.name, TumblingWindow(second, 1)";
    let more = "[inputs.codes]\ntype = \"reference\"\npath = \"codes.csv\"\nformat = \"csv\"\ndelimiter = \";\"\n\
                [outputs.counts]\ntype = \"file\"\npath = \"counts.jsonl\"\nrow_id = \"id\"\n";
    let forebay = Forebay::run(&place.job(query, "path = \"zones.json\"", more));
    place.send(0..2, 1);
    assert_eq!(place.zones(2).into_values().collect::<Vec<_>>(), ["north", "north"]);
    assert_eq!(place.rows("out.jsonl")[0]["code"], "N;1");
    place.replace("zones.json", "{\"id\":1,\"name\":\"west\"}\n{\"id\":1,\"name\":\"far west\"}\n");
    wait_for_version(&forebay, "zones", 2.0);
    place.send(2..3, 1);
    until("two matches", || (place.rows("out.jsonl").len() == 4).then_some(()));
    let rows = place.rows("out.jsonl");
    assert_eq!(
        (&rows[2]["zone"], &rows[2]["code"], &rows[3]["zone"]),
        (&"west".into(), &Json::Null, &"far west".into())
    );
    let of = |zone: &str| {
        place.rows("counts.jsonl").iter().filter(|r| r["zone"] == zone).map(|r| r["n"].as_i64().unwrap()).sum::<i64>()
    };
    until("the windows close", || (of("west") == 1).then_some(()));
    assert_eq!((of("north"), of("far west")), (2, 1), "a statement with state takes versions over too");
    assert_eq!(metric(&forebay, "reference_loads_total", "codes"), 1.0, "what did not change is not loaded again");
    assert_eq!(metric(&forebay, "reference_rows", "zones"), 2.0);
    forebay.stop();
    place.is_good();
}

#[test]
fn what_cannot_be_loaded_leaves_the_last_good_version_and_raises_an_alarm() {
    let place = Place::new();
    place.replace("zones.json", r#"[{"id":1,"name":"north"}]"#);
    let forebay = Forebay::run(&place.job(QUERY, "path = \"zones.json\"\nbytes_max = \"1KiB\"\nrows_max = 2", ""));
    place.send(0..1, 1);
    place.zones(1);
    assert_eq!(metric(&forebay, "reference_current", "zones"), 1.0);
    let mut n = 1;
    for (text, alarm) in [
        ("[{\"id\":1,\n\"name\":", "line 2: not valid JSON"),
        ("[{},{},{}]", "it has more than 2 rows; raise `rows_max`"),
        (
            &format!("[{{\"id\":1,\"name\":\"{}\"}}]", "x".repeat(2000)),
            "it is longer than 1024 bytes; raise `bytes_max`",
        ),
        ("", "it is empty"),
    ] {
        place.replace("zones.json", text);
        wait_for_degraded(&forebay, alarm);
        assert_eq!(metric(&forebay, "reference_current", "zones"), 0.0);
        place.send(n..n + 1, 1);
        assert_eq!(place.zones(n as usize + 1)[&n], "north");
        n += 1;
    }
    fs::remove_file(place.path("zones.json")).unwrap();
    wait_for_degraded(&forebay, "cannot be read: No such file");
    let status = || succeeds(place.dir(), &["journal", "status", "--job", "job.toml"]);
    let out = until("the alarm in the pool", || {
        Some(status()).filter(|out| out.contains("zones.json cannot be read: No such file"))
    });
    assert!(out.contains("reference data\n  zones ") && out.contains(", 1 row, loaded 2"), "{out}");
    let log = forebay.log();
    for alarm in ["line 2: not valid JSON", "raise `rows_max`", "raise `bytes_max`", "it is empty", "No such file"] {
        assert_eq!(log.matches(alarm).count(), 1, "each reason is logged once: {alarm}\n{log}");
    }
    place.replace("zones.json", r#"[{"id":1,"name":"east"}]"#);
    wait_for_version(&forebay, "zones", 2.0);
    until("no alarm", || (ready(&forebay) == (200, "[]".to_owned(), "null".to_owned())).then_some(()));
    place.send(n..n + 1, 1);
    assert_eq!(place.zones(n as usize + 1)[&n], "east");
    assert!(forebay.metric("forebay_reference_failures_total") >= 5.0);
    until("no alarm in the pool", || (!status().contains("No such file")).then_some(()));
    forebay.stop();
}

#[test]
fn the_zones_example_runs() {
    let place = Place::new();
    let text = fs::read_to_string(root("examples/zones/job.toml")).unwrap();
    let text = text
        .replace("mqtt://127.0.0.1:1883", &place.broker.url())
        .replace("[outputs.", "[metrics]\nlisten = \"127.0.0.1:0\"\n\n[outputs.");
    for file in ["zones.asaql", "zones.csv"] {
        fs::copy(root(&format!("examples/zones/{file}")), place.path(file)).unwrap();
    }
    let forebay = Forebay::run(&write(place.dir(), "job.toml", &text));
    let rides = [(4.8977, 52.3731), (4.3009, 52.0705), (4.9041, 52.3676)];
    let ride = |(i, (lon, lat)): (usize, &(f64, f64))| {
        Message::new("taxi/7/position", format!(r#"{{"taxi":7,"seq":{i},"longitude":{lon},"latitude":{lat}}}"#))
    };
    place.runtime.block_on(publish(&place.broker.url(), rides.iter().enumerate().map(ride).collect()));
    let rows = until("the rows", || {
        let text = fs::read_to_string(place.path("zones.jsonl")).unwrap_or_default();
        let rows: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (rows.len() >= 2).then_some(rows)
    });
    let got: Vec<(i64, &str)> =
        rows.iter().map(|r| (r["seq"].as_i64().unwrap(), r["zone"].as_str().unwrap())).collect();
    assert_eq!(got, [(0, "Amsterdam centre"), (2, "Amsterdam centre")], "the one in The Hague is in no zone");
    forebay.stop();
}

#[test]
fn what_follows_a_call_to_an_endpoint_joins_with_the_newest_version_too() {
    let place = Place::new();
    let endpoint = place.runtime.block_on(forebay::demo::endpoint::Endpoint::start()).unwrap();
    place.replace("zones.json", r#"[{"id":1,"name":"north"}]"#);
    let query = "WITH s AS (SELECT n, zone, udf.score(udf.createArray('1', 'Mon', '12', '1', '5.8')) AS fare FROM \
        rides)\n\
                 SELECT s.n AS n, s.fare AS fare, z.name AS zone INTO out FROM s JOIN zones z ON s.zone = z.id";
    let more = format!(
        "[functions.createArray]\ntype = \"wasm\"\ncomponent = {:?}\n[functions.score]\ntype = \"azureml\"\nurl = \
        \"{}\"\n",
        component("create_array"),
        endpoint.url()
    );
    let forebay = Forebay::run(&place.job(query, "path = \"zones.json\"", &more));
    place.send(0..3, 1);
    assert!(place.zones(3).values().all(|zone| zone == "north"));
    place.replace("zones.json", r#"[{"id":1,"name":"south"}]"#);
    wait_for_version(&forebay, "zones", 2.0);
    place.send(3..4, 1);
    assert_eq!(place.zones(4)[&3], "south");
    assert!(place.rows("out.jsonl").iter().all(|row| row["fare"].is_number()));
    forebay.stop();
    place.is_good();
}

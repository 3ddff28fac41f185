//! Reference data over a reload of the job and a `kill -9` of the real binary: no row lost, no older version.

use std::fs;

use serde_json::Value as Json;

use super::server::Served;
use super::{Place, QUERY, wait_for_version};
use crate::harness::{Forebay, until};

#[test]
fn a_kill_around_a_reload_loses_nothing_and_never_goes_back_to_an_older_version() {
    let place = Place::new();
    let zones = |version: usize| format!("[{{\"id\":1,\"name\":\"{version:03}\"}}]");
    place.replace("zones.json", &zones(0));
    let job = place.job(QUERY, "path = \"zones.json\"", "");
    let mut forebay = Forebay::run(&job);
    let mut rng = fastrand::Rng::with_seed(5);
    let mut sent = 0;
    for version in 1..=8 {
        place.replace("zones.json", &zones(version));
        for _ in 0..rng.usize(2..30) {
            place.send(sent..sent + 5, 1);
            sent += 5;
        }
        if version % 2 == 0 {
            wait_for_version(&forebay, "zones", 1.0);
        }
        forebay.kill();
        // every second start is offline
        if version % 2 == 0 {
            fs::remove_file(place.path("zones.json")).unwrap();
        }
        forebay = Forebay::run(&job);
    }
    let joined = place.zones(sent as usize);
    assert_eq!(joined.len() as i64, sent);
    forebay.stop();
    let text = fs::read_to_string(place.path("out.jsonl")).unwrap();
    let order: Vec<String> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Json>(line).ok())
        .map(|row| row["zone"].as_str().unwrap().to_owned())
        .collect();
    assert!(order.is_sorted(), "{order:?}");
    place.is_good();
}

#[test]
fn a_reload_of_the_job_keeps_the_version() {
    let place = Place::new();
    let (_, address, server) = Served::start(&place.runtime, (200, r#"[{"id":1,"name":"north"}]"#));
    let forebay = Forebay::run(&place.job(QUERY, &format!("url = \"http://{address}/zones\""), ""));
    place.send(0..1, 1);
    place.zones(1);
    server.abort();
    assert!(place.runtime.block_on(server).unwrap_err().is_cancelled());
    forebay.signal("-HUP");
    until("the reload", || (forebay.log().matches(" running ").count() >= 2).then_some(()));
    place.send(1..2, 1);
    assert_eq!(place.zones(2)[&1], "north");
    forebay.stop();
}

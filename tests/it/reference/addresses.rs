//! Reference data from an HTTP address, in the real binary: asked at an interval, kept for a start offline, waited for.

use std::fs;

use forebay::journal::JournalStatus;

use super::server::Served;
use super::{Place, QUERY, metric, ready, wait_for_degraded, wait_for_version};
use crate::harness::{Forebay, until};
use crate::support::succeeds;

#[test]
fn an_address_is_asked_at_an_interval_and_sends_only_what_changed() {
    let place = Place::new();
    let (served, address, _task) = Served::start(&place.runtime, (200, r#"[{"id":1,"name":"north"}]"#));
    served.with(|a| a.etag = Some("\"one\""));
    fs::write(place.path("key"), "s3cr3t\n").unwrap();
    let zones = format!(
        "url = \"http://{address}/zones?sig=s1gned\"\nreload = \"1s\"\ntimeout = \"500ms\"\nkey = \
        \"file:key\"\nkey_header = \"x-api-key\""
    );
    let forebay = Forebay::run(&place.job(QUERY, &zones, ""));
    place.send(0..1, 1);
    assert_eq!(place.zones(1)[&0], "north");
    until("an answer without a body", || (served.with(|a| a.not_modified) >= 1).then_some(()));
    assert_eq!(metric(&forebay, "reference_loads_total", "zones"), 1.0);
    served.set(200, r#"[{"id":1,"name":"south"}]"#);
    wait_for_version(&forebay, "zones", 2.0);
    place.send(1..2, 1);
    assert_eq!(place.zones(2)[&1], "south");

    served.set(503, "");
    wait_for_degraded(&forebay, "/zones answered 503");
    served.with(|a| a.redirect = Some("/zones".to_owned()));
    wait_for_degraded(&forebay, "it sends elsewhere more than 5 times");
    served.with(|a| a.redirect = Some("http://localhost:1/elsewhere".to_owned()));
    wait_for_degraded(&forebay, "answered 302, which is not followed");
    served.set(200, "");
    served.with(|a| a.hangs = true);
    wait_for_degraded(&forebay, "gave no whole answer within 500ms");
    served.set(200, "<html>sign in</html>");
    wait_for_degraded(&forebay, "line 1: not valid JSON");
    place.send(2..3, 1);
    assert_eq!(place.zones(3)[&2], "south");
    served.set(200, r#"[{"id":1,"name":"west"}]"#);
    wait_for_version(&forebay, "zones", 3.0);
    place.send(3..4, 1);
    assert_eq!(place.zones(4)[&3], "west");
    assert!(served.with(|a| a.keys.len() == a.asked && a.keys.iter().all(|key| key == "s3cr3t")));
    let log = forebay.log();
    assert!(!log.contains("s3cr3t") && !log.contains("s1gned"), "{log}");
    assert_eq!(served.with(|a| a.referred), 0, "a signature in the address went on to where it redirects to");
    forebay.stop();
}

#[test]
fn a_start_offline_uses_the_version_that_the_pool_keeps() {
    let place = Place::new();
    let (_, address, server) = Served::start(&place.runtime, (200, r#"[{"id":1,"name":"north"}]"#));
    fs::write(place.path("codes.csv"), "zone,code\nnorth,N\n").unwrap();
    let query = "SELECT r.n AS n, z.name AS zone, c.code AS code INTO out FROM rides r JOIN zones z ON r.zone = z.id \
        JOIN codes c ON z.name = c.zone";
    let more = "[inputs.codes]\ntype = \"reference\"\npath = \"codes.csv\"\nformat = \"csv\"\n";
    let job = place.job(query, &format!("url = \"http://{address}/zones\""), more);
    let forebay = Forebay::run(&job);
    place.send(0..1, 1);
    place.zones(1);
    forebay.stop();

    server.abort();
    assert!(place.runtime.block_on(server).unwrap_err().is_cancelled());
    fs::remove_file(place.path("codes.csv")).unwrap();
    let forebay = Forebay::run(&job);
    place.send(1..2, 1);
    assert_eq!(place.zones(2)[&1], "north");
    assert_eq!(place.rows("out.jsonl")[1]["code"], "N");
    wait_for_degraded(&forebay, "input zones: the version loaded 2");
    wait_for_degraded(&forebay, "input codes: the version loaded 2");
    let log = forebay.log();
    assert_eq!(log.matches("starting with the reference data that the pool keeps").count(), 2, "{log}");
    // a start offline is no mistake
    let out = succeeds(place.dir(), &["check", "job.toml"]);
    assert!(out.contains("warning: it cannot be loaded now: ") && out.contains("in the pool is used, 1 row"), "{out}");
    forebay.stop();

    // a table that is no longer part of the job is forgotten
    let forebay = Forebay::run(&place.job(QUERY, &format!("url = \"http://{address}/zones\""), ""));
    let known: Vec<String> =
        JournalStatus::open_readonly(&place.path("test.db")).unwrap().references.into_iter().map(|r| r.name).collect();
    assert_eq!(known, ["zones"]);
    forebay.stop();
}

#[test]
fn without_any_version_events_wait_and_none_is_lost() {
    let place = Place::new();
    let (served, address, _task) = Served::start(&place.runtime, (503, ""));
    // a statement that needs no reference data goes on meanwhile
    let query = format!("{QUERY};\nSELECT n INTO plain FROM rides");
    let more = "[outputs.plain]\ntype = \"file\"\npath = \"plain.jsonl\"\nrow_id = \"id\"\n";
    let job = place.job(&query, &format!("url = \"http://{address}/zones\""), more);
    let out = succeeds(place.dir(), &["check", "job.toml"]);
    assert!(out.contains("the statements that join with it wait, and events wait in the pool"), "{out}");
    let forebay = Forebay::run(&job);
    place.send(0..50, 1);
    until("the other statement", || (place.rows("plain.jsonl").len() == 50).then_some(()));
    assert_eq!(forebay.metric("forebay_input_stored_total"), 50.0);
    assert!(place.rows("out.jsonl").is_empty());
    let (status, problems, _) = ready(&forebay);
    assert_eq!(status, 503);
    assert!(
        problems.contains("input zones: not loaded yet, the statements that join with it wait: http://127.0.0.1:"),
        "{problems}"
    );
    // it stops while it waits, and goes on waiting
    forebay.stop();
    let forebay = Forebay::run(&job);
    served.set(200, r#"[{"id":1,"name":"north"}]"#);
    let zones = place.zones(50);
    assert!(zones.len() == 50 && zones.values().all(|zone| zone == "north"), "{zones:?}");
    until("ready", || (ready(&forebay).0 == 200).then_some(()));
    forebay.stop();
    assert_eq!(place.rows("out.jsonl").len(), 50, "and none comes twice");
    place.is_good();
}

//! Reference data in a running job: loaded from files and addresses, replaced, broken, kept for a start offline.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use expect_test::{Expect, expect};
use forebay::journal::{Journal, JournalConfig, JournalError, JournalStatus, StoredReference, verify};
use forebay::time::Timestamp;
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::harness::{Forebay, cli, component, root, until, write};
use crate::support::{Message, Mosquitto, publish};

const QUERY: &str = "SELECT r.n AS n, z.name AS zone INTO out FROM rides r JOIN zones z ON r.zone = z.id";

/// A job in a folder, with a broker.
struct Place {
    dir: TempDir,
    broker: Mosquitto,
    runtime: tokio::runtime::Runtime,
}

impl Place {
    fn new() -> Place {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Place { dir: tempfile::tempdir().unwrap(), broker: Mosquitto::start(), runtime }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file in one step, as the documents ask for.
    fn replace(&self, name: &str, text: &str) {
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    /// Writes the job: the settings of `zones`, and what else there is.
    fn job(&self, query: &str, zones: &str, more: &str) -> PathBuf {
        let text = format!(
            "[job]\nname = \"test\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
             [inputs.rides]\ntype = \"mqtt\"\nurl = \"{}\"\ntopics = [\"rides\"]\n\
             [inputs.zones]\ntype = \"reference\"\n{zones}\n\
             [outputs.out]\ntype = \"file\"\npath = \"out.jsonl\"\nfsync = \"never\"\nrow_id = \"id\"\n{more}",
            self.broker.url()
        );
        write(self.dir.path(), "job.asaql", query);
        write(self.dir.path(), "job.toml", &text)
    }

    fn send(&self, numbers: std::ops::Range<i64>, zone: i64) {
        let messages = numbers.map(|n| Message::new("rides", format!(r#"{{"n":{n},"zone":{zone}}}"#))).collect();
        self.runtime.block_on(publish(&self.broker.url(), messages));
    }

    /// Rows of an output file so far, without repeats, in order.
    fn rows(&self, file: &str) -> Vec<Json> {
        let text = fs::read_to_string(self.path(file)).unwrap_or_default();
        let mut seen = std::collections::HashSet::new();
        let whole = text.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
        whole.filter(|row| seen.insert(row["id"].as_str().map(str::to_owned).unwrap_or_default())).collect()
    }

    /// The zone that each number was joined with, once there are so many.
    fn zones(&self, count: usize) -> BTreeMap<i64, String> {
        until(&format!("{count} rows"), || {
            let rows = self.rows("out.jsonl");
            let zones =
                rows.iter().map(|row| (row["n"].as_i64().unwrap(), row["zone"].as_str().unwrap_or("null").to_owned()));
            Some(zones.collect::<BTreeMap<_, _>>()).filter(|zones| zones.len() >= count)
        })
    }
}

fn metric(forebay: &Forebay, name: &str, input: &str) -> f64 {
    forebay.metric(&format!("forebay_{name}{{job=\"test\",input=\"{input}\"}}"))
}

fn wait_for_version(forebay: &Forebay, input: &str, loads: f64) {
    until(&format!("version {loads} of {input}; log:\n{}", forebay.log()), || {
        (metric(forebay, "reference_loads_total", input) >= loads).then_some(())
    });
}

/// What `/readyz` says: status, problems, what is degraded.
fn ready(forebay: &Forebay) -> (u16, String, String) {
    let (status, body) = forebay.get("/readyz");
    let body: Json = serde_json::from_str(&body).unwrap();
    (status, body["problems"].to_string(), body["degraded"].to_string())
}

fn wait_for_degraded(forebay: &Forebay, text: &str) {
    until(&format!("an alarm with {text:?}; /readyz: {:?}; log:\n{}", ready(forebay), forebay.log()), || {
        let (status, problems, degraded) = ready(forebay);
        assert_eq!((status, problems.as_str()), (200, "[]"), "old data is no reason to stop");
        degraded.contains(text).then_some(())
    });
}

/// A server whose answer the test sets.
#[derive(Clone, Default)]
struct Served {
    answer: Arc<Mutex<Answer>>,
}

#[derive(Clone, Default)]
struct Answer {
    status: u16,
    body: String,
    etag: Option<&'static str>,
    redirect: Option<String>,
    /// Never answers.
    hangs: bool,
    asked: usize,
    not_modified: usize,
    keys: Vec<String>,
    /// Requests that told the address they came from.
    referred: usize,
}

async fn answer(State(served): State<Served>, headers: HeaderMap) -> Response {
    let answer = {
        let mut answer = served.answer.lock().unwrap();
        answer.asked += 1;
        answer.referred += usize::from(headers.contains_key(header::REFERER));
        answer.keys.extend(headers.get("x-api-key").map(|key| key.to_str().unwrap().to_owned()));
        answer.clone()
    };
    if answer.hangs {
        std::future::pending::<()>().await;
    }
    if let Some(to) = answer.redirect {
        return (StatusCode::FOUND, [(header::LOCATION, to)]).into_response();
    }
    let asked_by = headers.get(header::IF_NONE_MATCH).and_then(|tag| tag.to_str().ok());
    if answer.etag.is_some() && asked_by == answer.etag {
        served.answer.lock().unwrap().not_modified += 1;
        return StatusCode::NOT_MODIFIED.into_response();
    }
    let status = StatusCode::from_u16(answer.status).unwrap();
    match answer.etag {
        Some(etag) => (status, [(header::ETAG, etag)], answer.body).into_response(),
        None => (status, answer.body).into_response(),
    }
}

impl Served {
    fn start(
        runtime: &tokio::runtime::Runtime,
        first: (u16, &str),
    ) -> (Served, SocketAddr, tokio::task::JoinHandle<()>) {
        let served = Served::default();
        served.set(first.0, first.1);
        let app = axum::Router::new().route("/zones", get(answer)).with_state(served.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let task = runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
        (served, address, task)
    }

    fn with<T>(&self, f: impl FnOnce(&mut Answer) -> T) -> T {
        f(&mut self.answer.lock().unwrap())
    }

    fn set(&self, status: u16, body: &str) {
        self.with(|a| {
            (a.status, a.body, a.etag, a.redirect, a.hangs) = (status, body.to_owned(), None, None, false);
        });
    }
}

#[test]
fn files_are_joined_and_read_again_when_they_change() {
    let place = Place::new();
    place.replace("zones.json", r#"[{"id":1,"name":"north"},{"id":2,"name":"south"}]"#);
    place.replace("codes.csv", "zone;code\nnorth;\"N;1\"\nsouth;S\n");
    let query = "SELECT r.n AS n, z.name AS zone, c.code AS code INTO out FROM rides r JOIN zones z ON r.zone = z.id LEFT JOIN codes c ON z.name = c.zone;\n\
                 SELECT z.name AS zone, COUNT(*) AS n INTO counts FROM rides r JOIN zones z ON r.zone = z.id GROUP BY z.name, TumblingWindow(second, 1)";
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
    assert!(verify(&place.path("test.db")).unwrap().is_good());
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
    let status = || {
        let (code, out, err) = cli(place.dir.path(), &["journal", "status", "--job", "job.toml"]);
        assert_eq!((code, err.as_str()), (0, ""));
        out
    };
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
fn an_address_is_asked_at_an_interval_and_sends_only_what_changed() {
    let place = Place::new();
    let (served, address, _task) = Served::start(&place.runtime, (200, r#"[{"id":1,"name":"north"}]"#));
    served.with(|a| a.etag = Some("\"one\""));
    fs::write(place.path("key"), "s3cr3t\n").unwrap();
    let zones = format!(
        "url = \"http://{address}/zones?sig=s1gned\"\nreload = \"1s\"\ntimeout = \"500ms\"\nkey = \"file:key\"\nkey_header = \"x-api-key\""
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
    let query = "SELECT r.n AS n, z.name AS zone, c.code AS code INTO out FROM rides r JOIN zones z ON r.zone = z.id JOIN codes c ON z.name = c.zone";
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
    let (code, out, _) = cli(place.dir.path(), &["check", "job.toml"]);
    assert_eq!(code, 0, "a start offline is no mistake");
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
    let (code, out, _) = cli(place.dir.path(), &["check", "job.toml"]);
    assert_eq!(code, 0);
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
    assert!(verify(&place.path("test.db")).unwrap().is_good());
}

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
    assert!(verify(&place.path("test.db")).unwrap().is_good());
}

fn journal(dir: &Path, max_bytes: u64) -> Journal {
    Journal::open(JournalConfig { max_bytes, ..JournalConfig::new(dir.join("job.db")) }).unwrap()
}

fn version(digest: &str, bytes: Vec<u8>) -> StoredReference {
    let loaded_at = Timestamp::parse("2026-05-01T10:00:00Z").unwrap();
    StoredReference { digest: digest.to_owned(), form: "json".to_owned(), rows: 1, loaded_at, bytes: bytes.into() }
}

#[test]
fn a_journal_made_before_opens_and_learns_of_reference_data() {
    let dir = tempfile::tempdir().unwrap();
    journal(dir.path(), 1 << 30).close();
    let path = dir.path().join("job.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("DROP TABLE reference; DROP TABLE reference_error").unwrap();
    drop(db);
    assert!(JournalStatus::open_readonly(&path).unwrap().references.is_empty());
    assert!(verify(&path).unwrap().is_good());
    assert_eq!(forebay::journal::reference_readonly(&path, "zones"), Ok(None));
    let journal = journal(dir.path(), 1 << 30);
    let kept = version("d1", b"[{\"id\":1}]".to_vec());
    journal.put_reference("zones", &kept).unwrap();
    assert_eq!(journal.reference("zones").unwrap(), Some(kept));
    journal.close();
    assert!(verify(&path).unwrap().is_good());
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("UPDATE reference SET digest = 'd2'").unwrap();
    drop(db);
    assert_eq!(
        forebay::journal::reference_readonly(&path, "zones"),
        Ok(None),
        "what does not match its checksum is not given out"
    );
    assert_eq!(verify(&path).unwrap().problems, ["reference data zones: the kept version does not match its checksum"]);
}

#[test]
fn a_version_that_the_budget_has_no_room_for_leaves_the_one_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(dir.path(), 1 << 20);
    let small = version("small", b"[]".to_vec());
    journal.put_reference("zones", &small).unwrap();
    let mut rng = fastrand::Rng::with_seed(1);
    let large = version("large", (0..2 << 20).map(|_| rng.u8(..)).collect());
    assert!(matches!(journal.put_reference("zones", &large), Err(JournalError::Full { .. })));
    assert_eq!(journal.reference("zones").unwrap(), Some(small));
    let medium = version("medium", (0..500 << 10).map(|_| rng.u8(..)).collect());
    journal.put_reference("zones", &medium).unwrap();
    assert!(journal.used_bytes() >= 500 << 10, "it counts in the budget: {}", journal.used_bytes());
}

#[test]
fn a_version_without_room_is_used_and_the_alarm_says_that_it_is_not_kept() {
    let place = Place::new();
    let mut rng = fastrand::Rng::with_seed(2);
    let mut name = || (0..256).map(|_| format!("{:016x}", rng.u64(..))).collect::<String>();
    let rows = (0..9000).map(|id| format!("{{\"id\":{id},\"name\":\"{}\"}}\n", name()));
    place.replace("zones.json", &rows.collect::<String>());
    let settings = "path = \"zones.json\"\nbytes_max = \"64MiB\"";
    let forebay = Forebay::run(&place.job(QUERY, settings, "[journal]\nmax_bytes = \"16MiB\"\n"));
    place.send(0..1, 8999);
    assert_eq!(place.zones(1)[&0].len(), 4096);
    wait_for_degraded(&forebay, "input zones: its version is not kept for a start offline: the journal is full");
    assert_eq!(metric(&forebay, "reference_kept", "zones"), 0.0);
    forebay.stop();
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
    let forebay = Forebay::run(&write(place.dir.path(), "job.toml", &text));
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
    let query = "WITH s AS (SELECT n, zone, udf.score(udf.createArray('1', 'Mon', '12', '1', '5.8')) AS fare FROM rides)\n\
                 SELECT s.n AS n, s.fare AS fare, z.name AS zone INTO out FROM s JOIN zones z ON s.zone = z.id";
    let more = format!(
        "[functions.createArray]\ntype = \"wasm\"\ncomponent = {:?}\n[functions.score]\ntype = \"azureml\"\nurl = \"{}\"\n",
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
    assert!(verify(&place.path("test.db")).unwrap().is_good());
}

/// The message of a job whose reference input has these settings.
fn bad(zones: &str, want: &Expect) {
    let text = format!(
        "[job]\nname = \"taxi\"\nquery = \"taxi.asaql\"\n[inputs.zones]\ntype = \"reference\"\n{zones}[outputs.out]\ntype = \"stdout\"\n"
    );
    want.assert_eq(&forebay::job::parse(&text, Path::new("taxi.toml")).unwrap_err().to_string());
}

#[test]
fn settings_that_do_not_go_together() {
    bad(
        "format = \"cvs\"\nrelaod = \"1m\"\n",
        &expect![[r#"
        error: `[inputs.zones]` needs `path`
          --> taxi.toml:4:9
           |
         4 | [inputs.zones]
           |         ^^^^^ `path` is missing
           = help: write `path = "zones.json"` for a file, or `url = "https://host/zones.json"`

        error: `format` has the wrong form
          --> taxi.toml:6:10
           |
         6 | format = "cvs"
           |          ^^^^^ expected "json" or "csv"
           = help: did you mean "csv"?

        error: unknown key `relaod`
          --> taxi.toml:7:1
           |
         7 | relaod = "1m"
           | ^^^^^^ `[inputs.zones]` has no such key
           = help: did you mean `reload`?

        3 errors
    "#]],
    );
    bad(
        "path = \"a.json\"\nurl = \"http://127.0.0.1/a\"\n",
        &expect![[r#"
        error: reference data has `path` or `url`, not both
          --> taxi.toml:7:7
           |
         7 | url = "http://127.0.0.1/a"
           |       ^^^^^^^^^^^^^^^^^^^^ a second place
           = help: write `path = "zones.json"` for a file, or `url = "https://host/zones.json"`
    "#]],
    );
    bad(
        "path = \"a.json\"\nkey = \"env:KEY\"\ndelimiter = \";\"\nreload = \"10ms\"\n",
        &expect![[r#"
        error: `key` has no use for a file
          --> taxi.toml:7:7
           |
         7 | key = "env:KEY"
           |       ^^^^^^^^^ only an address has it
           = help: leave it out, or write `url` in place of `path`

        error: `delimiter` has no use for JSON
          --> taxi.toml:8:13
           |
         8 | delimiter = ";"
           |             ^^^ only CSV has it
           = help: write `format = "csv"`, or leave it out

        error: `reload` has the wrong form
          --> taxi.toml:9:10
           |
         9 | reload = "10ms"
           |          ^^^^^^ expected a duration from "1s" to "366d"
           = help: write it with a unit, like "20ms", "5s" or "7d"; leave it out and an address is asked every "10m", a file read when it changes

        3 errors
    "#]],
    );
    bad(
        "path = \"a.csv\"\nformat = \"csv\"\ndelimiter = \"tab\"\nbytes_max = \"1GiB\"\nrows_max = 0\n",
        &expect![[r#"
        error: this does not delimit fields
          --> taxi.toml:8:13
           |
         8 | delimiter = "tab"
           |             ^^^^^ expected one sign of ASCII, no quote
           = help: write `delimiter = ";"`, or `"\t"` for a tab; the default is ","

        error: `bytes_max` has the wrong form
          --> taxi.toml:9:13
           |
         9 | bytes_max = "1GiB"
           |             ^^^^^^ expected a size from "1KiB" to "256MiB"
           = help: write it with a unit, like "32MiB" or "1GB"; the default is "16MiB"

        error: `rows_max` has the wrong form
           --> taxi.toml:10:12
            |
         10 | rows_max = 0
            |            ^ expected a whole number from 1 to 10000000
            = help: the default is 100000

        3 errors
    "#]],
    );
    bad(
        "url = \"ftp://host/a\"\nkey = \"s3cr3t\"\nkey_header = \"x key\"\ntimeout = 5\nqos = 1\n",
        &expect![[r#"
            error: this is no address of an endpoint
              --> taxi.toml:6:7
               |
             6 | url = "ftp://host/a"
               |       ^^^^^^^^^^^^^^ expected `http://` or `https://`
               = help: write `https://host/score`, or `http://127.0.0.1:5001/score`

            error: `key` is written into the job file
              --> taxi.toml:7:7
               |
             7 | key = "******"
               |       ^^^^^^^^ expected `env:NAME`, `file:PATH` or `credential:NAME`
               = note: job files are copied and logged; secrets are only referred to
               = help: put the secret into an environment variable and write `key = "env:NAME"`

            error: this is no name of a header
              --> taxi.toml:8:14
               |
             8 | key_header = "x key"
               |              ^^^^^^^ expected letters, digits and `-`
               = help: write `key_header = "x-api-key"`, or leave it out for `Authorization: Bearer`

            error: `timeout` has the wrong form
              --> taxi.toml:9:11
               |
             9 | timeout = 5
               |           ^ expected a duration from "100ms" to "10m"
               = help: write it with a unit, like "20ms", "5s" or "7d"; the default is "30s"

            error: unknown key `qos`
               --> taxi.toml:10:1
                |
             10 | qos = 1
                | ^^^ `[inputs.zones]` has no such key
                = help: known are type, path, url, key, key_header, ca_file, cert_file, key_file, timeout, format, reload, bytes_max, rows_max

            5 errors
        "#]],
    );
    bad(
        "url = \"http://127.0.0.1/a\"\nca_file = \"ca.pem\"\nkey_header = \"x-api-key\"\n",
        &expect![[r#"
        error: `ca_file` without TLS
          --> taxi.toml:7:11
           |
         7 | ca_file = "ca.pem"
           |           ^^^^^^^^ has no use with `http://`
           = help: write the url with `https://`

        error: `key_header` without `key`
          --> taxi.toml:8:14
           |
         8 | key_header = "x-api-key"
           |              ^^^^^^^^^^^ there is nothing to send in it
           = help: write `key = "env:NAME"`, or leave `key_header` out

        2 errors
    "#]],
    );
}

#[test]
fn check_shows_rows_and_columns() {
    let dir = tempfile::tempdir().unwrap();
    let job = "[job]\nname = \"test\"\nquery = \"job.asaql\"\n[inputs.rides]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:1\"\ntopics = [\"rides\"]\n\
               [inputs.zones]\ntype = \"reference\"\npath = \"zones.json\"\n\
               [inputs.codes]\ntype = \"reference\"\npath = \"codes.csv\"\nformat = \"csv\"\n\
               [inputs.away]\ntype = \"reference\"\nurl = \"http://127.0.0.1:1/away?sig=s3cr3t\"\n\
               [outputs.out]\ntype = \"stdout\"\n";
    write(dir.path(), "job.toml", job);
    write(dir.path(), "job.asaql", QUERY);
    write(dir.path(), "zones.json", r#"[{"id":1,"name":null},{"id":2,"name":"south","at":{"x":1.5}}]"#);
    write(dir.path(), "codes.csv", "zone,code\nnorth\n");
    let (code, out, err) = cli(dir.path(), &["check", "--offline", "job.toml"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    expect![[r#"
        job test, pool test.db

        plan
          into out
            read rides: zone, n
            join reference zones on zone = zones.id
            gives n, zone = zones.name

        reference data
          zones
            from  zones.json
            2 rows: id bigint, name nvarchar(max), at record
          codes
            from  codes.csv
            warning: it cannot be loaded now: line 2: 1 field, but the first line names 2
            until it can, the statements that join with it wait, and events wait in the pool
          away
            from  http://127.0.0.1:1/away
            it was not asked for (--offline)

        note: while this gateway is away the broker keeps its messages only as far as its own queue limit goes;
              mosquitto keeps 1,000 for a client unless max_queued_messages is raised

        the job is valid
    "#]]
    .assert_eq(&out);
}

#[test]
fn reference_data_in_the_wrong_place_of_a_query() {
    let dir = tempfile::tempdir().unwrap();
    let job = "[job]\nname = \"test\"\nquery = \"job.asaql\"\n[inputs.rides]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:1\"\ntopics = [\"rides\"]\n\
               [inputs.zones]\ntype = \"reference\"\npath = \"zones.json\"\n[outputs.out]\ntype = \"stdout\"\n";
    write(dir.path(), "job.toml", job);
    write(dir.path(), "job.asaql", "SELECT z.name INTO out FROM zones z JOIN rides r ON r.zone = z.id");
    let (code, out, err) = cli(dir.path(), &["check", "job.toml"]);
    assert_eq!((code, out.as_str()), (2, ""));
    expect![[r#"
        error: reference data `zones` in FROM
          --> job.asaql:1:29
           |
         1 | SELECT z.name INTO out FROM zones z JOIN rides r ON r.zone = z.id
           |                             ^^^^^ reference data never moves time
           = help: read a stream and join it: `FROM input JOIN zones ON input.id = zones.id`

        error: the join is not time bounded
          --> job.asaql:1:53
           |
         1 | SELECT z.name INTO out FROM zones z JOIN rides r ON r.zone = z.id
           |                                                     ^^^^^^^^^^^^^ expected a DATEDIFF between the two sources
           = help: add `AND DATEDIFF(second, z, r) BETWEEN 0 AND 10`: rows wait for a partner only so long

        2 errors
    "#]]
    .assert_eq(&err);
}

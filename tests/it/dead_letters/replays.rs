//! Letters of a running job go again through what it is by now, also where it is killed meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes as Body;
use axum::extract::State;
use axum::routing::post;
use serde_json::Value as Json;

use super::ids;
use crate::harness::{Forebay, binary, cli, cli_in, until, write};
use crate::support::{JobFolder, Message, publish, publish_numbers, rows_of, succeeds, write_job};

/// Gives each number its double, after a pause.
#[derive(Debug)]
struct Doubler {
    pause_ms: AtomicU64,
    /// Answers no request with a number from this on.
    hangs_from: AtomicI64,
}

impl Default for Doubler {
    fn default() -> Doubler {
        Doubler { pause_ms: AtomicU64::new(0), hangs_from: AtomicI64::new(i64::MAX) }
    }
}

async fn double(State(model): State<Arc<Doubler>>, body: Body) -> String {
    tokio::time::sleep(Duration::from_millis(model.pause_ms.load(Ordering::Relaxed))).await;
    let body: Json = serde_json::from_slice(&body).unwrap();
    let doubles: Vec<i64> = body["data"].as_array().unwrap().iter().map(|n| 2 * n.as_i64().unwrap()).collect();
    if doubles.iter().any(|double| *double >= model.hangs_from.load(Ordering::Relaxed).saturating_mul(2)) {
        std::future::pending::<()>().await;
    }
    serde_json::to_string(&doubles).unwrap()
}

struct Place {
    folder: JobFolder,
    model: Arc<Doubler>,
    endpoint: std::net::SocketAddr,
}

/// A signature that no number fits.
const WRONG: &str = "datetime";
const RIGHT: &str = "bigint";
const SCORED: &str = "SELECT n, udf.score(n) AS s INTO out FROM t";

impl Place {
    fn new(query: &str) -> Place {
        let folder = JobFolder::new();
        let model = Arc::<Doubler>::default();
        let listener = folder.runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let endpoint = listener.local_addr().unwrap();
        let app = Router::new().route("/score", post(double)).with_state(model.clone());
        folder.runtime.spawn(async move { axum::serve(listener, app).await });
        let place = Place { folder, model, endpoint };
        place.job(WRONG, query, "topic = \"out/{k}\"");
        place
    }

    /// Writes the job: the type that the endpoint is said to take, the query, where the broker's output goes.
    fn job(&self, takes: &str, query: &str, topic: &str) {
        let (url, endpoint) = (self.folder.broker.url(), self.endpoint);
        let scored = if query.contains("udf.score") {
            format!(
                "[functions.score]\ntype = \"azureml\"\nurl = \"http://{endpoint}/score\"\ninput_kind = \"vector\"\n\
                 on_misfit = \"dead-letter\"\n\
                 columns = [{{ name = \"n\", type = \"{takes}\" }}]\nmax_batch_count = 50\n"
            )
        } else {
            String::new()
        };
        let output = |name: &str| match query.contains(&format!("INTO {name} ")) {
            true if name == "sent" => format!("[outputs.sent]\ntype = \"mqtt\"\nurl = \"{url}\"\n{topic}\n"),
            true => format!("[outputs.{name}]\ntype = \"file\"\npath = \"{name}.jsonl\"\nrow_id = \"id\"\n"),
            false => String::new(),
        };
        let text = format!(
            "[job]\nname = \"test\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
             [journal]\npath = \"pool.db\"\n[inputs.t]\ntype = \"mqtt\"\nurl = \"{url}\"\ntopics = [\"t\"]\n\
             {scored}{}{}{}",
            output("out"),
            output("other"),
            output("sent")
        );
        write_job(self.folder.dir(), &text, query);
    }

    fn send(&self, payloads: &[&str]) {
        let messages = payloads.iter().map(|payload| Message::new("t", payload.to_string())).collect();
        self.folder.runtime.block_on(publish(&self.folder.broker.url(), messages));
    }

    /// The command over the job of the folder.
    fn letters(&self, args: &[&str]) -> String {
        super::letters(self.folder.dir(), args)
    }

    /// The same, where it does not do all that it was asked.
    fn refused(&self, args: &[&str]) -> String {
        let args = [&["journal", "dead-letters"], args, &["--job", "job.toml"]].concat();
        let (code, out, err) = cli(self.folder.dir(), &args);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        err
    }

    /// Waits until there are so many letters.
    fn wait_for_letters(&self, forebay: &Forebay, letters: usize) {
        until(&format!("{letters} letters; log:\n{}", forebay.log()), || {
            (forebay.metric("forebay_dead_letters{") == letters as f64).then_some(())
        });
    }

    /// What came out to a file: by number, the ids and the rows.
    fn rows(&self, file: &str) -> BTreeMap<i64, BTreeSet<(String, String)>> {
        let text = std::fs::read_to_string(self.folder.path(file)).unwrap_or_default();
        let mut rows: BTreeMap<i64, BTreeSet<_>> = BTreeMap::new();
        for row in text.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok()) {
            let id = row["id"].as_str().unwrap().to_owned();
            rows.entry(row["n"].as_i64().unwrap()).or_default().insert((id, row.to_string()));
        }
        rows
    }

    fn lines(&self, file: &str) -> usize {
        std::fs::read_to_string(self.folder.path(file)).unwrap_or_default().lines().count()
    }
}

/// 5,000 rows that a wrong signature made dead letters, and a job that has the right one.
fn mended() -> (Place, Forebay) {
    let place = Place::new(SCORED);
    let forebay = place.folder.run();
    place.folder.runtime.block_on(publish_numbers(&place.folder.broker.url(), "t", 0..5_000));
    place.wait_for_letters(&forebay, 5_000);
    let summary = place.letters(&["ls", "--summary"]);
    assert!(summary.contains("5,000  statement out (score)  conversion"), "{summary}");
    let shown = place.letters(&["ls", "--json", "--limit", "1"]);
    let first: Json = serde_json::from_str(shown.trim()).unwrap();
    let payload: Json = serde_json::from_str(first["payload"].as_str().unwrap()).unwrap();
    assert_eq!(payload, serde_json::json!({"n": payload["n"], "argument": payload["n"]}), "the values have names");
    // the letters fail again while the signature is wrong: they stay, with one attempt more
    let again = place.refused(&["replay", "--id", "1"]);
    assert_eq!(again, "0 dead letters replayed\n1 failed again, with one attempt more\n");
    assert!(place.letters(&["ls", "--limit", "1"]).contains("(2 attempts)"));
    forebay.stop();
    place.job(RIGHT, SCORED, "");
    let forebay = place.folder.run();
    (place, forebay)
}

#[test]
fn five_thousand_rows_of_a_wrong_signature_come_out_once_each_when_it_is_mended() {
    let (place, forebay) = mended();
    assert_eq!(place.letters(&["replay"]), "5,000 dead letters replayed\n");
    until("the rows", || (place.lines("out.jsonl") >= 5_000).then_some(()));
    let rows = place.rows("out.jsonl");
    assert_eq!((place.lines("out.jsonl"), rows.len()), (5_000, 5_000), "each came once");
    for (n, found) in &rows {
        let (_, row) = found.first().unwrap();
        let row: Json = serde_json::from_str(row).unwrap();
        assert_eq!(row["s"].as_i64(), Some(2 * n));
    }
    assert_eq!(place.letters(&["ls"]), "no dead letters\n");
    assert_eq!(place.letters(&["replay"]), "no dead letters\n");
    forebay.stop();
    place.folder.is_good();
    let status = succeeds(place.folder.dir(), &["journal", "status", "--job", "job.toml"]);
    assert!(status.contains("removed (replayed) 5,000"), "{status}");
}

#[test]
fn a_replay_that_is_killed_loses_no_row_and_repeats_some_with_their_ids() {
    let (place, forebay) = mended();
    place.model.pause_ms.store(50, Ordering::Relaxed);
    let mut replay = Command::new(binary())
        .args(["journal", "dead-letters", "replay", "--job", "job.toml"])
        .current_dir(place.folder.dir())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("a part of the rows", || (place.lines("out.jsonl") >= 300).then_some(()));
    forebay.kill();
    let status = replay.wait().unwrap();
    assert_eq!(status.code(), Some(1), "a job that is gone is told");
    let left = ids(&place.letters(&["export"])).len();
    assert!((1..5_000).contains(&left), "{left} letters are left");
    place.model.pause_ms.store(0, Ordering::Relaxed);
    let forebay = place.folder.run();
    place.letters(&["replay"]);
    until("the rows", || (place.rows("out.jsonl").len() == 5_000).then_some(()));
    assert_eq!(place.letters(&["ls"]), "no dead letters\n");
    forebay.stop();
    for (n, found) in place.rows("out.jsonl") {
        assert_eq!(found.len(), 1, "{n} has several ids or rows: {found:?}");
    }
    place.folder.is_good();
}

#[test]
fn an_event_that_failed_goes_through_its_own_statement_alone_and_a_payload_through_the_decoder() {
    let before = "SELECT n, 6 / n AS x INTO out FROM t; SELECT n INTO other FROM t";
    let place = Place::new(before);
    let forebay = place.folder.run();
    place.send(&["{\"n\":1}", "{\"n\":0}", "{\"n\":", "{\"n\":3}"]);
    place.wait_for_letters(&forebay, 2);
    until("the other rows", || (place.lines("other.jsonl") == 3 && place.lines("out.jsonl") == 2).then_some(()));
    forebay.stop();
    let after = "SELECT n, CASE WHEN n = 0 THEN -1 ELSE 6 / n END AS x INTO out FROM t; SELECT n INTO other FROM t";
    place.job(RIGHT, after, "");
    let told = place.refused(&["replay"]);
    assert!(told.starts_with("error: letters are replayed by the running job, and this one does not run"), "{told}");
    let forebay = place.folder.run();
    assert_eq!(place.letters(&["replay", "--statement", "out"]), "1 dead letter replayed\n");
    let rows = place.rows("out.jsonl");
    let (id, row) = rows[&0].first().unwrap();
    assert!(row.contains("\"x\":-1"), "{row}");
    // the id is that of the event's offset: the second
    assert!(id.ends_with("-out-1-0"), "{id}");
    assert_eq!(place.lines("other.jsonl"), 3, "the other statement has it");
    assert_eq!(place.refused(&["replay"]), "0 dead letters replayed\n1 failed again, with one attempt more\n");
    place.letters(&["export", "--to", "bad.jsonl"]);
    let text = std::fs::read_to_string(place.folder.path("bad.jsonl")).unwrap();
    assert!(text.contains("\"attempts\":2") && text.lines().count() == 1, "{text}");
    write(place.folder.dir(), "mended.jsonl", &text.replace("{\\\"n\\\":", "{\\\"n\\\":7}"));
    assert_eq!(place.letters(&["replay", "--from", "mended.jsonl"]), "1 dead letter replayed\n");
    until("its rows", || (place.rows("other.jsonl").contains_key(&7)).then_some(()));
    until("its rows", || (place.rows("out.jsonl").contains_key(&7)).then_some(()));
    let gone = place.refused(&["replay", "--from", "mended.jsonl"]);
    assert!(gone.contains("1 left as they are: they are no dead letters of this pool any more"), "{gone}");
    assert_eq!(place.letters(&["ls"]), "no dead letters\n");
    forebay.stop();
    place.folder.is_good();
}

#[test]
fn a_row_that_its_output_refused_is_delivered_where_that_takes_it_by_now() {
    let query = "SELECT n, k INTO sent FROM t";
    let place = Place::new(query);
    let forebay = place.folder.run();
    place.send(&["{\"n\":1,\"k\":\"a\"}", "{\"n\":2}", "{\"n\":3,\"k\":\"\"}"]);
    place.wait_for_letters(&forebay, 2);
    // an edited row goes where it says
    let editor = format!("sed -i 's/{}/{}/'", r#"\\"n\\":2,\\"k\\":null"#, r#"\\"n\\":2,\\"k\\":\\"b\\""#);
    let args = ["journal", "dead-letters", "replay", "--edit", "--job", "job.toml"];
    let (code, out, err) = cli_in(place.folder.dir(), &[("EDITOR", &editor), ("VISUAL", "")], &args);
    assert_eq!((code, out.as_str()), (0, "1 dead letter replayed\n1 unchanged, and not replayed\n"), "{err}");
    assert_eq!(place.refused(&["replay"]), "0 dead letters replayed\n1 failed again, with one attempt more\n");
    forebay.stop();
    place.job(RIGHT, query, "topic = \"out/all\"");
    let forebay = place.folder.run();
    assert_eq!(place.letters(&["replay"]), "1 dead letter replayed\n");
    forebay.stop();
    place.folder.is_good();
    let status = succeeds(place.folder.dir(), &["journal", "status", "--job", "job.toml"]);
    // three rows, and three more that came in as replays
    assert!(status.contains("output sent: dead lettered 3, delivered 3, rows in 6"), "{status}");
}

#[test]
fn what_cannot_be_done_again_is_refused_with_the_reason_and_the_count() {
    let query = "WITH scores AS (SELECT udf.score(n) AS s FROM t) \
        SELECT SUM(s) AS n INTO out FROM scores GROUP BY TumblingWindow(hour, 1)";
    let place = Place::new(query);
    let forebay = place.folder.run();
    place.send(&["{\"n\":1}", "{\"n\":2}"]);
    place.wait_for_letters(&forebay, 2);
    let told = place.refused(&["replay"]);
    assert_eq!(
        told,
        "0 dead letters replayed\n2 left as they are: a window, join or analytic function behind it has gone on \
         without the row\n"
    );
    forebay.stop();
    place.job(RIGHT, "SELECT n, udf.score(n) AS s INTO out FROM t WHERE n > 0", "");
    let forebay = place.folder.run();
    let told = place.refused(&["replay"]);
    assert!(told.contains("2 left as they are: the statement has another text than when the row was made"), "{told}");
    // somebody who says what the rows are is believed, where the columns are those of the call
    place.letters(&["export", "--to", "rows.jsonl"]);
    let told = place.refused(&["replay", "--from", "rows.jsonl"]);
    assert!(told.contains("2 left as they are: the statement has another text"), "{told}");
    assert_eq!(rows_of(&place.folder.path("out.jsonl")), Vec::<Json>::new());
    // a running job drops by the socket
    assert_eq!(place.letters(&["drop", "--reason", "conversion", "--id", "1"]), "1 dead letter dropped\n");
    assert_eq!(place.letters(&["drop", "--all"]), "1 dead letter dropped\n");
    forebay.stop();
    assert!(!place.folder.path("pool.db-control").exists(), "the socket goes with the job");
    place.folder.is_good();
    let status = succeeds(place.folder.dir(), &["journal", "status", "--job", "job.toml"]);
    assert!(status.contains("dropped (command) 2"), "{status}");
}

#[test]
fn a_record_at_which_a_statement_stands_is_put_aside_and_comes_back_when_the_query_is_mended() {
    let place = Place::new("SELECT n, 6 / n AS x INTO out FROM t");
    let stops = |place: &Place| {
        let text = std::fs::read_to_string(place.folder.path("job.toml")).unwrap();
        write(place.folder.dir(), "job.toml", &text.replace("[metrics]", "on_error = \"stop\"\n[metrics]"));
    };
    stops(&place);
    let forebay = place.folder.run();
    place.send(&["{\"n\":1}", "{\"n\":0}", "{\"n\":3}"]);
    until("the stop", || forebay.get("/readyz").1.contains("stopped at offset 1").then_some(()));
    for (args, said) in [
        (["add", "--statement", "none", "--offset", "1"], "no statement `none` reads the inputs: there are `out`"),
        (["add", "--statement", "out", "--offset", "3"], "statement out stands at offset 1, and not at 3"),
    ] {
        let told = place.refused(&args);
        assert!(told.contains(said), "{told}");
    }
    let told = "offset 1 is a dead letter of statement out, which goes on behind it when the job starts\n";
    for _ in 0..2 {
        assert_eq!(place.letters(&["add", "--statement", "out", "--offset", "1"]), told);
    }
    forebay.stop();
    let forebay = place.folder.run();
    until("the row behind it", || place.rows("out.jsonl").contains_key(&3).then_some(()));
    let listed = place.letters(&["ls"]);
    assert!(listed.contains("statement out offset 1: set_aside: ") && listed.lines().count() == 2, "{listed}");
    let passed = place.refused(&["add", "--statement", "out", "--offset", "0"]);
    assert!(passed.contains("statement out has passed offset 0"), "{passed}");
    forebay.stop();
    place.folder.is_good();
    place.job(RIGHT, "SELECT n, CASE WHEN n = 0 THEN -1 ELSE 6 / n END AS x INTO out FROM t", "");
    let forebay = place.folder.run();
    assert_eq!(place.letters(&["replay"]), "1 dead letter replayed\n");
    let rows = place.rows("out.jsonl");
    assert!(rows[&0].first().unwrap().0.ends_with("-out-1-0") && place.lines("out.jsonl") == 3, "{rows:?}");
    forebay.stop();
    place.folder.is_good();
}

#[test]
fn a_replay_that_waits_too_long_for_an_endpoint_keeps_what_was_answered() {
    let place = Place::new(SCORED);
    let forebay = place.folder.run();
    place.folder.runtime.block_on(publish_numbers(&place.folder.broker.url(), "t", 0..200));
    place.wait_for_letters(&forebay, 200);
    forebay.stop();
    place.job(RIGHT, SCORED, "");
    let forebay = place.folder.run();
    place.model.hangs_from.store(100, Ordering::Relaxed);
    let told = place.refused(&["replay"]);
    let waits = "left as they are: the endpoint gave no answer in 30 s: replay when it does";
    assert_eq!(told, format!("100 dead letters replayed\n100 {waits}\n"));
    until("the rows that were answered", || (place.lines("out.jsonl") == 100).then_some(()));
    place.model.hangs_from.store(i64::MAX, Ordering::Relaxed);
    assert_eq!(place.letters(&["replay"]), "100 dead letters replayed\n");
    until("the others", || (place.rows("out.jsonl").len() == 200).then_some(()));
    assert_eq!(place.lines("out.jsonl"), 200, "each came once");
    forebay.stop();
    place.folder.is_good();
}

#[test]
fn an_event_of_a_statement_with_times_of_its_own_gets_an_id_that_no_live_row_has() {
    let place = Place::new("SELECT n, 6 / n AS x INTO out FROM t TIMESTAMP BY at");
    let forebay = place.folder.run();
    let payload = |n: i64, second: i64| format!("{{\"n\":{n},\"at\":\"2026-11-28T08:00:0{second}Z\"}}");
    place.send(&[&payload(1, 1), &payload(0, 2), &payload(3, 3)]);
    place.wait_for_letters(&forebay, 1);
    until("the rows of the others", || (place.lines("out.jsonl") == 2).then_some(()));
    forebay.stop();
    place.job(RIGHT, "SELECT n, CASE WHEN n = 0 THEN -1 ELSE 6 / n END AS x INTO out FROM t TIMESTAMP BY at", "");
    let forebay = place.folder.run();
    assert_eq!(place.letters(&["replay"]), "1 dead letter replayed\n");
    until("its row", || place.rows("out.jsonl").contains_key(&0).then_some(()));
    let rows = place.rows("out.jsonl");
    let (id, row) = rows[&0].first().unwrap();
    assert!(id.ends_with("-out-1-2147483648") && row.contains("\"x\":-1"), "{id} {row}");
    let ids: BTreeSet<&str> = rows.values().flatten().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids.len(), 3);
    forebay.stop();
    place.folder.is_good();
}

//! A query and a model that do not belong together: rows wait in the pool until they do, whether the model was so from
//! the start, was deployed anew while the gateway ran, or while it was off. The job is a process behind mosquitto.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde_json::{Value as Json, json};

use crate::harness::{Forebay, until};
use crate::support::{JobFolder, Message, dead_letters, free_port, publish, rows_of, succeeds, write_job};

/// A model that takes numbers, and as it was deployed anew, arrays of two.
#[derive(Debug, Default)]
struct Model {
    takes_pairs: AtomicBool,
    is_overloaded: AtomicBool,
}

async fn swagger(State(model): State<Arc<Model>>) -> String {
    let number = json!({"type": "integer", "format": "int64"});
    let (items, example) = match model.takes_pairs.load(Ordering::SeqCst) {
        true => (json!({"type": "array", "items": number}), json!([[1, 2]])),
        false => (number, json!([1])),
    };
    let input = json!({"type": "object", "properties": {"data": {"type": "array", "items": items}},
        "example": {"data": example}});
    let answers = json!({"200": {"schema": {"type": "array", "items": {"type": "number"}}}});
    json!({"swagger": "2.0", "paths": {"/score": {"post": {"operationId": "RunMLService",
        "parameters": [{"in": "body", "name": "payload", "schema": input}], "responses": answers}}}})
    .to_string()
}

async fn score(State(model): State<Arc<Model>>, body: Bytes) -> (StatusCode, String) {
    let body: Json = serde_json::from_slice(&body).unwrap();
    let rows = body["data"].as_array().unwrap();
    if model.is_overloaded.load(Ordering::SeqCst) {
        return (StatusCode::SERVICE_UNAVAILABLE, String::new());
    }
    if model.takes_pairs.load(Ordering::SeqCst) || !rows.iter().all(Json::is_i64) {
        return (StatusCode::INTERNAL_SERVER_ERROR, r#"{"message": "An unexpected error"}"#.to_owned());
    }
    let doubles: Vec<i64> = rows.iter().map(|n| 2 * n.as_i64().unwrap()).collect();
    (StatusCode::OK, serde_json::to_string(&doubles).unwrap())
}

struct Place {
    folder: JobFolder,
    model: Arc<Model>,
}

impl Place {
    fn new(keys: &str) -> Place {
        let place = Place { folder: JobFolder::new(), model: Arc::default() };
        let (url, port) = (place.folder.broker.url(), free_port());
        let text = format!(
            "[job]\nname = \"test\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
             [journal]\npath = \"pool.db\"\n\
             [inputs.t]\ntype = \"mqtt\"\nurl = \"{url}\"\ntopics = [\"t\"]\n\
             [functions.score]\ntype = \"azureml\"\nurl = \"http://127.0.0.1:{port}/score\"\n\
             catchup_jitter = \"0s\"\n{keys}\n[outputs.out]\ntype = \"file\"\npath = \"out.jsonl\"\nrow_id = \"id\"\n"
        );
        write_job(place.folder.dir(), &text, "SELECT n, udf.score(x) AS s INTO out FROM t");
        let app = Router::new().route("/score", post(score)).route("/swagger.json", get(swagger));
        let app = app.with_state(place.model.clone());
        let runtime = &place.folder.runtime;
        let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", port))).unwrap();
        runtime.spawn(async move { axum::serve(listener, app).await });
        place
    }

    fn send(&self, numbers: impl IntoIterator<Item = i64>, x: impl Fn(i64) -> Json) {
        let messages = numbers.into_iter().map(|n| Message::new("t", json!({"n": n, "x": x(n)}).to_string())).collect();
        self.folder.runtime.block_on(publish(&self.folder.broker.url(), messages));
    }

    fn takes_pairs(&self, takes: bool) {
        self.model.takes_pairs.store(takes, Ordering::SeqCst);
    }

    /// Waits for the rows with these numbers, each once.
    fn comes(&self, forebay: &Forebay, numbers: std::ops::Range<i64>) {
        let file = self.folder.path("out.jsonl");
        let wanted: BTreeSet<i64> = numbers.collect();
        until(&format!("{} rows; log:\n{}", wanted.len(), forebay.log()), || {
            (file.exists() && rows_of(&file).len() >= wanted.len()).then_some(())
        });
        let rows = rows_of(&file);
        assert_eq!(rows.iter().map(|row| row["n"].as_i64().unwrap()).collect::<BTreeSet<_>>(), wanted);
        assert_eq!(rows.len(), wanted.len(), "each once");
        assert!(rows.iter().all(|row| row["s"].as_i64() == row["n"].as_i64().map(|n| 2 * n)));
    }

    fn waits(&self, forebay: &Forebay) {
        let shown = "function score: paused: rows do not fit the endpoint's signature; the endpoint takes an array of \
                     2 columns (bigint), the query sends one bigint; the first row is ";
        let what = format!("{shown} on /readyz; log:\n{}", forebay.log());
        until(&what, || forebay.get("/readyz").1.contains(shown).then_some(()));
        assert!(forebay.log().contains("scoring is paused: rows do not fit the endpoint's signature"));
        assert_eq!(dead_letters(self.folder.dir(), "job.toml"), "no dead letters\n");
    }

    fn retry(&self) -> String {
        succeeds(self.folder.dir(), &["retry", "--job", "job.toml", "score"])
    }
}

#[test]
fn rows_wait_for_a_model_that_they_fit() {
    let place = Place::new("");
    place.takes_pairs(true);
    let forebay = place.folder.run();
    place.send(0..50, |n| json!(n));
    place.waits(&forebay);
    place.takes_pairs(false);
    assert_eq!(place.retry(), "function score: the endpoint is in use\n");
    place.comes(&forebay, 0..50);
    assert!(forebay.stop().success());
    place.folder.is_good();
}

#[test]
fn a_backlog_waits_for_the_model_before_where_another_was_deployed_meanwhile() {
    let place = Place::new("");
    let forebay = place.folder.run();
    place.send(0..300, |n| json!(n));
    place.comes(&forebay, 0..300);
    place.model.is_overloaded.store(true, Ordering::SeqCst);
    place.send(300..5_300, |n| json!(n));
    let stored = || forebay.metrics().iter().any(|(name, n)| name.starts_with("forebay_input_stored") && *n >= 5_300.0);
    until("5,300 events are stored", || stored().then_some(()));
    assert!(forebay.stop().success());
    place.takes_pairs(true);
    place.model.is_overloaded.store(false, Ordering::SeqCst);
    let forebay = place.folder.run();
    place.waits(&forebay);
    place.takes_pairs(false);
    place.retry();
    place.comes(&forebay, 0..5_300);
    assert!(forebay.stop().success());
    place.folder.is_good();
}

#[test]
fn a_misfit_among_good_rows_is_a_dead_letter() {
    let place = Place::new("");
    let forebay = place.folder.run();
    let misfits = |n: i64| if n % 10 == 3 { json!([n]) } else { json!(n) };
    place.send(0..100, misfits);
    let file = place.folder.path("out.jsonl");
    until("90 rows", || (file.exists() && rows_of(&file).len() == 90).then_some(()));
    assert!(forebay.stop().success());
    let letters = dead_letters(place.folder.dir(), "job.toml");
    assert_eq!(letters.lines().filter(|line| line.contains("conversion")).count(), 10, "{letters}");
    place.folder.is_good();
}

#[test]
fn misfits_are_dead_letters_where_the_job_says_so() {
    let place = Place::new("on_misfit = \"dead-letter\"");
    place.takes_pairs(true);
    let forebay = place.folder.run();
    place.send(0..50, |n| json!(n));
    let counted = || {
        let metrics = forebay.metrics();
        metrics.iter().any(|(name, n)| name.starts_with("forebay_dead_letters") && *n >= 50.0).then_some(())
    };
    until("50 dead letters", counted);
    assert!(forebay.stop().success());
    place.folder.is_good();
}

//! An endpoint that goes away and comes back, and a function of the job that answers meanwhile: who scored a row is
//! told with it, and what was answered locally is corrected once. The job is a process behind mosquitto.

#[path = "local_answers/corrections.rs"]
mod corrections;
#[path = "local_answers/example.rs"]
mod example;
#[path = "local_answers/guards.rs"]
mod guards;
#[path = "local_answers/limits.rs"]
mod limits;
#[path = "local_answers/outages.rs"]
mod outages;
#[path = "local_answers/refusals.rs"]
mod refusals;

use std::collections::BTreeMap;
use std::ops::{Deref, Range};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes as Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::Value as Json;

use crate::harness::{Forebay, until, write};
use crate::support::{JobFolder, free_port, publish_numbers, write_job};

/// How the endpoint is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Mood {
    /// Gives each number its double.
    #[default]
    Well,
    /// Refuses requests with [`BAD`] in them.
    Picky,
    /// Answers 503.
    Busy,
    /// Takes requests and answers none.
    Hangs,
    /// Refuses the key.
    Locked,
    /// Answers no request with [`BAD`] in it.
    Stuck,
}

const BAD: i64 = 13;

#[derive(Debug, Default)]
struct Model {
    mood: Mutex<Mood>,
    asked: Mutex<Vec<i64>>,
}

impl Model {
    fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }
}

async fn score(State(model): State<Arc<Model>>, body: Body) -> (StatusCode, String) {
    let body: Json = serde_json::from_slice(&body).unwrap();
    let numbers: Vec<i64> = body["data"].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect();
    model.asked.lock().unwrap().extend(&numbers);
    let refused = |code: StatusCode| (code, r#"{"message": "not now"}"#.to_owned());
    let mood = *model.mood.lock().unwrap();
    match mood {
        Mood::Busy => refused(StatusCode::SERVICE_UNAVAILABLE),
        Mood::Locked => refused(StatusCode::UNAUTHORIZED),
        Mood::Hangs => std::future::pending().await,
        Mood::Stuck if numbers.contains(&BAD) => std::future::pending().await,
        Mood::Picky if numbers.contains(&BAD) => refused(StatusCode::BAD_REQUEST),
        Mood::Picky | Mood::Stuck | Mood::Well => {
            let doubles: Vec<i64> = numbers.iter().map(|n| 2 * n).collect();
            (StatusCode::OK, serde_json::to_string(&doubles).unwrap())
        }
    }
}

/// A component with `local: func(x: s64) -> s64`: three times the number, and it traps at [`BAD`] if that is asked for.
fn local(traps: bool) -> Vec<u8> {
    let trap = format!("(if (i64.eq (local.get 0) (i64.const {BAD})) (then unreachable))");
    let text = format!(
        "(component (core module $m (func (export \"local\") (param i64) (result i64)
                {} (i64.mul (local.get 0) (i64.const 3))))
            (core instance $i (instantiate $m))
            (func (export \"local\") (param \"x\" s64) (result s64) (canon lift (core func $i \"local\"))))",
        if traps { &trap } else { "" }
    );
    wat::parse_str(text).unwrap()
}

const QUERY: &str = "SELECT n, udf.score(n) AS s INTO out FROM t";

/// A job and its endpoint, which listens once it is told to.
struct Place {
    folder: JobFolder,
    model: Arc<Model>,
    /// Of an endpoint of its own at the same port, `/other`.
    other: Arc<Model>,
    port: u16,
}

/// A second call, which nobody answers while its endpoint is away. `PORT` is put in.
const OTHER: &str = "[functions.other]\ntype = \"azureml\"\nurl = \"http://127.0.0.1:PORT/other\"\n\
    input_kind = \"vector\"\n";

impl Place {
    /// `keys` of the endpoint, `sections` beside.
    fn new(keys: &str, sections: &str, query: &str) -> Place {
        let (model, other) = (Arc::default(), Arc::default());
        let place = Place { folder: JobFolder::new(), model, other, port: free_port() };
        let sections = sections.replace("PORT", &place.port.to_string());
        std::fs::write(place.path("local.wasm"), local(false)).unwrap();
        let url = place.broker.url();
        let text = format!(
            "[job]\nname = \"test\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
             [journal]\npath = \"pool.db\"\n\
             [inputs.t]\ntype = \"mqtt\"\nurl = \"{url}\"\ntopics = [\"t\"]\n\
             [functions.local]\ntype = \"wasm\"\ncomponent = \"local.wasm\"\n\
             [functions.score]\ntype = \"azureml\"\nurl = \"http://127.0.0.1:{}/score\"\nfallback = \"udf.local\"\n\
             catchup_jitter = \"0s\"\nrequest_timeout = \"2s\"\n{keys}\n{sections}\
             [outputs.out]\ntype = \"file\"\npath = \"out.jsonl\"\nrow_id = \"id\"\nscored_by = \"by\"\n\
             revision = \"rev\"\n",
            place.port
        );
        write_job(place.dir(), &text, query);
        place
    }

    /// From now on the endpoint is there.
    fn listen(&self) {
        let route = |path: &str, model: &Arc<Model>| Router::new().route(path, post(score)).with_state(model.clone());
        let app = route("/score", &self.model).merge(route("/other", &self.other));
        let listener = self.runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", self.port))).unwrap();
        self.runtime.spawn(async move { axum::serve(listener, app).await });
    }

    /// Starts the job at an endpoint that is there and does not score, and sends these numbers.
    fn outage(&self, mood: Mood, numbers: Range<i64>) -> Forebay {
        self.model.is(mood);
        self.listen();
        let forebay = self.run();
        self.send(numbers);
        forebay
    }

    fn send(&self, numbers: Range<i64>) {
        self.runtime.block_on(publish_numbers(&self.broker.url(), "t", numbers));
    }

    /// Changes the job file, for the next start.
    fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path("job.toml")).unwrap();
        assert!(text.contains(from), "{from:?} is not in\n{text}");
        write(self.dir(), "job.toml", &text.replacen(from, to, 1));
    }

    fn rows(&self) -> Vec<Row> {
        let text = std::fs::read_to_string(self.path("out.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).map(Row::of).collect()
    }

    /// Waits until so many rows came out, repeats not counted; gives them by id and revision.
    fn wait_for(&self, forebay: &Forebay, rows: usize) -> BTreeMap<(String, i64), Row> {
        let all = || self.rows().into_iter().map(|row| ((row.id.clone(), row.revision), row)).collect();
        let enough = |all: &BTreeMap<_, _>| all.len() >= rows;
        until(&format!("{rows} rows of {}; log:\n{}", self.rows().len(), forebay.log()), || Some(all()).filter(enough))
    }
}

impl Deref for Place {
    type Target = JobFolder;

    fn deref(&self) -> &JobFolder {
        &self.folder
    }
}

/// A row as it came out.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    id: String,
    n: i64,
    s: Option<i64>,
    by: Option<String>,
    revision: i64,
}

impl Row {
    fn of(row: Json) -> Row {
        Row {
            id: row["id"].as_str().expect("an id").to_owned(),
            n: row["n"].as_i64().expect("a number"),
            s: row["s"].as_i64(),
            by: row["by"].as_str().map(str::to_owned),
            revision: row["rev"].as_i64().expect("a revision"),
        }
    }

    /// What was answered by whom, in which revision.
    fn told(&self) -> (Option<i64>, Option<&str>, i64) {
        (self.s, self.by.as_deref(), self.revision)
    }
}

/// A counter of the ledger as the running job exports it.
fn counted(forebay: &Forebay, metric: &str, statement: &str) -> f64 {
    let metrics = forebay.metrics();
    let of = format!("statement=\"{statement}\"");
    metrics.iter().filter(|(name, _)| name.starts_with(metric) && name.contains(&of)).map(|(_, n)| n).sum()
}

/// That each number came out as the endpoint or the fallback answered it.
fn answered(rows: &BTreeMap<(String, i64), Row>, numbers: Range<i64>, by: &str, revision: i64) {
    let factor = if by == "score" { 2 } else { 3 };
    for n in numbers {
        let found: Vec<_> = rows.values().filter(|row| row.n == n && row.revision == revision).collect();
        let told: Vec<_> = found.iter().map(|row| row.told()).collect();
        assert_eq!(told, [(Some(factor * n), Some(by), revision)], "{n}");
    }
}

/// That both revisions of each number have one id.
fn share_ids(rows: &BTreeMap<(String, i64), Row>, numbers: Range<i64>) {
    for n in numbers {
        let ids: Vec<&str> = rows.values().filter(|row| row.n == n).map(|row| row.id.as_str()).collect();
        assert_eq!(ids.len(), 2, "{n}: {ids:?}");
        assert_eq!(ids[0], ids[1], "{n}");
    }
}

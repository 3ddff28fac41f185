//! A backlog that was stored one event at a time: it is read, scored and committed in strides, and time goes on in it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes as Body;
use axum::extract::State;
use axum::routing::{MethodRouter, post};
use forebay::batch::{MessageMeta, RawEvent, Urgency};
use forebay::job;
use forebay::journal::{Append, Edge, Journal, JournalConfig, verify};
use forebay::pipeline::{Pipeline, prepare};
use forebay::time::{Clock, TICKS_PER_MILLISECOND, Timestamp};
use tokio::task::JoinHandle;

use crate::harness::{root, write};
use crate::support::{wait_until, write_job};

const EVENTS: i64 = 2_000;

/// A pool whose events were committed one by one, `step_ms` apart, behind each of them one of another input. Each lies
/// in a segment of its own, as version 0.1.0 left them: what is merged is never longer than a sixteenth of the
/// retention.
pub fn stored(path: &Path, step_ms: i64, payloads: impl Iterator<Item = String>) {
    let records = stored_as(path, step_ms, Some(Duration::from_millis(1)), payloads);
    assert_eq!(segments(path), records, "each record has its own segment");
}

/// The same, as checkpoints merge them.
fn stored_merged(path: &Path, step_ms: i64, payloads: impl Iterator<Item = String>) {
    let records = stored_as(path, step_ms, None, payloads);
    assert!(segments(path) <= records / 1_000, "{} segments", segments(path));
}

fn segments(path: &Path) -> i64 {
    let pool = rusqlite::Connection::open(path).unwrap();
    pool.query_row("SELECT count(*) FROM segment", [], |row| row.get(0)).unwrap()
}

/// Gives how many records there are.
fn stored_as(path: &Path, step_ms: i64, retention: Option<Duration>, payloads: impl Iterator<Item = String>) -> i64 {
    let config = JournalConfig { commit_interval: Duration::ZERO, retention, ..JournalConfig::new(path) };
    let journal = Journal::open(config).unwrap();
    let inputs = ["t", "other"].map(|name| journal.input(name).unwrap());
    let start = Timestamp::parse("2026-05-01T10:00:00Z").unwrap();
    let (done, answers) = mpsc::channel();
    let payloads: Vec<String> = payloads.flat_map(|payload| [payload, "{}".to_owned()]).collect();
    let records = payloads.len() as i64;
    for (i, payload) in payloads.into_iter().enumerate() {
        let arrival = start.saturating_add(i as i64 * step_ms * TICKS_PER_MILLISECOND / 2);
        let input = inputs[i % 2];
        let event = RawEvent { arrival, payload: payload.into(), message: Arc::new(MessageMeta::default()), mark: 0 };
        let done = done.clone();
        journal.append(Append {
            input,
            events: vec![event],
            received: 1,
            undecodable: Vec::new(),
            dropped: Vec::new(),
            ledger: Vec::new(),
            urgency: Urgency::InBudget,
            on_durable: Box::new(move |result| done.send(result.is_ok()).unwrap()),
        });
        assert!(answers.recv().unwrap());
    }
    journal.close();
    records
}

/// A running job over `pool.db` in the folder; its broker is away.
pub async fn running(dir: &Path, query: &str, functions: &str) -> Pipeline {
    running_with(dir, query, functions, "").await
}

/// As `running`, with more keys of `[job]`.
async fn running_with(dir: &Path, query: &str, functions: &str, keys: &str) -> Pipeline {
    let text = format!(
        "[job]\nname = \"slow\"\nquery = \"job.asaql\"\n{keys}[metrics]\nenabled = false\n[journal]\n\
        path = \"pool.db\"\n\
         [inputs.t]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:9\"\ntopics = [\"t\"]\n\
         [inputs.other]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:9\"\ntopics = [\"other\"]\n{functions}\
         [outputs.out]\ntype = \"file\"\npath = \"out.jsonl\"\n"
    );
    let job = job::load(&write_job(dir, &text, query)).unwrap_or_else(|e| panic!("{e}"));
    let prepared = prepare::prepare(&job).unwrap_or_else(|e| panic!("{e}"));
    Pipeline::start(&job, &prepared, Clock::Real).await.unwrap()
}

pub fn lines(dir: &Path) -> Vec<String> {
    std::fs::read_to_string(dir.join("out.jsonl")).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// How often anything was committed so far.
fn commits(pipeline: &Pipeline) -> u64 {
    pipeline.journal().summary().unwrap().live.unwrap().commits
}

/// Runs a statement over the backlog, merged and not; gives the lines of its output.
async fn in_strides(query: &str, rows: i64) -> Vec<String> {
    let payloads = || (0..EVENTS).map(|n| format!("{{\"d\":{},\"n\":{n}}}", n % 7));
    let [apart, merged] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    stored(&apart.path().join("pool.db"), 10, payloads());
    stored_merged(&merged.path().join("pool.db"), 10, payloads());
    let lines = in_strides_of(&apart, query, rows).await;
    assert_eq!(in_strides_of(&merged, query, rows).await, lines);
    lines
}

async fn in_strides_of(dir: &tempfile::TempDir, query: &str, rows: i64) -> Vec<String> {
    let pipeline = running(dir.path(), query, "").await;
    wait_until(&format!("{rows} rows of {query}"), || lines(dir.path()).len() as i64 == rows).await;
    // one a second belongs to the wait and not to the work
    let n = commits(&pipeline);
    pipeline.stop().await.unwrap();
    assert!(n < EVENTS as u64 / 10, "{n} commits for {EVENTS} events: {query}");
    assert!(verify(&dir.path().join("pool.db")).unwrap().is_good());
    lines(dir.path())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn statements_with_state_commit_in_strides() {
    let query = "SELECT d, n, LAG(n) OVER (PARTITION BY d LIMIT DURATION(hour, 1)) AS b INTO out FROM t";
    for (n, line) in in_strides(query, EVENTS).await.iter().enumerate() {
        let before = if n < 7 { "null".to_owned() } else { (n - 7).to_string() };
        assert_eq!(*line, format!("{{\"d\":{},\"n\":{n},\"b\":{before}}}", n % 7));
    }
    // 100 events a second; a window holds what comes after its start and up to its end
    let query = "SELECT COUNT(*) AS c, MIN(n) AS least INTO out FROM t GROUP BY TumblingWindow(second, 2)";
    for (window, line) in in_strides(query, EVENTS / 200 + 1).await.iter().enumerate() {
        let (count, least) = match window as i64 {
            0 => (1, 0),
            window => (200.min(EVENTS - 1 - (window - 1) * 200), (window - 1) * 200 + 1),
        };
        assert_eq!(*line, format!("{{\"c\":{count},\"least\":{least}}}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn stateless_statements_commit_in_strides() {
    for (n, line) in in_strides("SELECT n INTO out FROM t", EVENTS).await.iter().enumerate() {
        assert_eq!(*line, format!("{{\"n\":{n}}}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_backlog_is_scored_in_large_requests() {
    let dir = tempfile::tempdir().unwrap();
    stored(&dir.path().join("pool.db"), 10, (0..EVENTS).map(|n| format!("{{\"n\":{n}}}")));
    let requests = Arc::new(AtomicUsize::new(0));
    let (address, serving) = serve(post(doubled).with_state(requests.clone())).await;
    let functions =
        format!("[functions.score]\ntype = \"azureml\"\nurl = \"http://{address}/score\"\ninput_kind = \"vector\"\n");
    let pipeline = running(dir.path(), "SELECT n, udf.score(n) AS s INTO out FROM t", &functions).await;
    wait_until("all scores", || lines(dir.path()).len() as i64 == EVENTS).await;
    let n = commits(&pipeline);
    pipeline.stop().await.unwrap();
    for (n, line) in lines(dir.path()).iter().enumerate() {
        assert_eq!(*line, format!("{{\"n\":{n},\"s\":{}}}", 2 * n));
    }
    let requests = requests.load(Ordering::Relaxed);
    assert!(requests <= EVENTS as usize / 100, "{requests} requests for {EVENTS} rows");
    assert!(n < EVENTS as u64 / 10, "{n} commits for {EVENTS} rows");
    serving.abort();
}

/// An endpoint that answers so, until its task is aborted.
async fn serve(score: MethodRouter) -> (SocketAddr, JoinHandle<std::io::Result<()>>) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/score", score);
    (address, tokio::spawn(async move { axum::serve(listener, app).await }))
}

/// Answers each number with its double, after a while.
async fn doubled(State(requests): State<Arc<AtomicUsize>>, body: Body) -> String {
    requests.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let doubles = body["data"].as_array().unwrap().iter().map(|n| 2 * n.as_i64().unwrap());
    serde_json::to_string(&doubles.collect::<Vec<_>>()).unwrap()
}

/// Answers one request, then no other.
async fn once(State(requests): State<Arc<AtomicUsize>>, _body: Body) -> String {
    if requests.fetch_add(1, Ordering::Relaxed) > 0 {
        std::future::pending::<()>().await;
    }
    "[1]".to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn windows_behind_an_endpoint_that_is_away_close_as_far_as_it_has_answered() {
    let dir = tempfile::tempdir().unwrap();
    // the second row is ten seconds later, and its answer never comes
    stored(&dir.path().join("pool.db"), 10_000, (0..2).map(|n| format!("{{\"n\":{n}}}")));
    let (address, serving) = serve(post(once).with_state(Arc::new(AtomicUsize::new(0)))).await;
    let functions = format!(
        "[functions.score]\ntype = \"azureml\"\nurl = \"http://{address}/score\"\nmax_batch_count = 1\n\
        parallel_requests = 1\n\
         request_timeout = \"600s\"\ninput_kind = \"vector\"\n"
    );
    let query = "WITH s AS (SELECT n, udf.score(n) AS v FROM t) \
                 SELECT COUNT(*) AS c, SUM(v) AS v INTO out FROM s GROUP BY TumblingWindow(second, 2)";
    let pipeline = running(dir.path(), query, &functions).await;
    wait_until("the window of the row that was answered", || !lines(dir.path()).is_empty()).await;
    assert_eq!(lines(dir.path()), [r#"{"c":1,"v":1}"#]);
    pipeline.stop().await.unwrap();
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_pool_of_the_first_version_opens_drains_and_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let from = root("tests/pools/v0.1.0");
    let read = |name: &str| std::fs::read_to_string(from.join(name)).unwrap();
    std::fs::copy(from.join("pool.db"), dir.path().join("pool.db")).unwrap();
    write(dir.path(), "plant.asaql", &read("plant.asaql"));
    let mut text = read("job.toml");
    for output in ["plain", "lagged", "counted", "scored"] {
        let old = format!("type  = \"mqtt\"\nurl   = \"mqtt://127.0.0.1:9\"\ntopic = \"out/{output}\"");
        assert!(text.contains(&old));
        text = text.replace(&old, &format!("type = \"file\"\npath = \"{output}.jsonl\"\nrow_id = \"id\""));
    }
    // the endpoint was away then
    let (address, serving) = serve(post(doubled).with_state(Arc::new(AtomicUsize::new(0)))).await;
    let away = "http://127.0.0.1:9/score";
    assert!(text.contains(away));
    text = text.replace(away, &format!("http://{address}/score"));
    let job = job::load(&write(dir.path(), "job.toml", &text)).unwrap_or_else(|e| panic!("{e}"));
    let prepared = prepare::prepare(&job).unwrap_or_else(|e| panic!("{e}"));
    let pipeline = Pipeline::start(&job, &prepared, Clock::Real).await.unwrap();
    for output in ["plain", "lagged", "counted", "scored"] {
        let file = format!("{output}.jsonl");
        let expected = read(&file);
        let now = || std::fs::read_to_string(dir.path().join(&file)).unwrap_or_default();
        wait_until(&format!("the rows of {output}"), || now().len() >= expected.len()).await;
        // what version 0.1.0 gave of the same pool; of `scored` its events with their offsets, and the doubles
        assert_eq!(now(), expected, "{output}");
    }
    pipeline.stop().await.unwrap();
    serving.abort();
    assert!(verify(&dir.path().join("pool.db")).unwrap().is_good());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_statement_that_stops_at_a_row_leaves_a_ledger_that_holds() {
    let dir = tempfile::tempdir().unwrap();
    let values = ["0", "1", "2", "\"z\"", "0", "3", "0"];
    let payload = |value: &&str| format!("{{\"a\":{value},\"is_in\":{}}}", *value != "0");
    stored(&dir.path().join("pool.db"), 10, values.iter().map(payload));
    let query = "SELECT CAST(a AS bigint) AS x INTO out FROM t WHERE is_in = 1";
    let sums = |pipeline: &Pipeline| {
        ["rows_in", "filtered", "failed", "evaluated"].map(|what| {
            let ledger = pipeline.journal().ledger();
            let counters = ledger.iter().filter(|(c, _)| c.edge == Edge::Statement && c.what == what);
            counters.map(|(_, n)| n).sum::<u64>()
        })
    };
    let is_good = || {
        let found = verify(&dir.path().join("pool.db")).unwrap();
        assert!(found.is_good(), "{found:?}");
    };
    for _ in 0..3 {
        let pipeline = running_with(dir.path(), query, "", "on_error = \"stop\"\n").await;
        wait_until("the word that it stopped", || pipeline.report().not_ready.iter().any(|p| p.contains("stopped")))
            .await;
        wait_until("what lies before the row at fault, counted once", || sums(&pipeline) == [3, 1, 0, 2]).await;
        pipeline.stop().await.unwrap();
        assert_eq!(lines(dir.path()), [r#"{"x":1}"#, r#"{"x":2}"#]);
        is_good();
    }
    let pipeline = running(dir.path(), query, "").await;
    wait_until("the rest", || sums(&pipeline)[0] == 7).await;
    assert_eq!(sums(&pipeline), [7, 3, 1, 3], "each row is counted once");
    pipeline.stop().await.unwrap();
    assert_eq!(lines(dir.path()), [r#"{"x":1}"#, r#"{"x":2}"#, r#"{"x":3}"#]);
    is_good();
}

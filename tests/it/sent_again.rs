//! What is scored again after a job ended with answers under way: a request hangs, the job stops, and starts anew.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes as Body;
use axum::extract::State;
use axum::routing::post;
use forebay::journal::verify;

use crate::slow_past::{lines, running, stored};
use crate::support::wait_until;

const EVENTS: i64 = 2_000;
const BATCH: usize = 100;
const PARALLEL: usize = 4;
/// In the second chunk.
const HANGS: i64 = 150;

/// Gives each number its double. A request with [`HANGS`] hangs while that is said.
#[derive(Default)]
struct Model {
    hangs: AtomicBool,
    asked: Mutex<Vec<i64>>,
}

impl Model {
    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

async fn score(State(model): State<Arc<Model>>, body: Body) -> String {
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let numbers: Vec<i64> = body["data"].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect();
    model.asked.lock().unwrap().extend(&numbers);
    if numbers.contains(&HANGS) && model.hangs.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    serde_json::to_string(&numbers.iter().map(|n| 2 * n).collect::<Vec<_>>()).unwrap()
}

/// A job in `dir` with a backlog, an endpoint at which one request hangs, and the lines of `[functions.score]`.
struct Hanging {
    dir: tempfile::TempDir,
    model: Arc<Model>,
    functions: String,
    _serving: tokio_util::task::AbortOnDropHandle<std::io::Result<()>>,
}

impl Hanging {
    async fn new(order: &str) -> Hanging {
        let dir = tempfile::tempdir().unwrap();
        stored(&dir.path().join("pool.db"), 10, (0..EVENTS).map(|n| format!("{{\"n\":{n}}}")));
        let model = Arc::new(Model { hangs: AtomicBool::new(true), ..Model::default() });
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/score", post(score)).with_state(model.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, app).await });
        let functions = format!(
            "[functions.score]\ntype = \"azureml\"\nurl = \"http://{address}/score\"\ninput_kind = \"vector\"\n\
             max_batch_count = {BATCH}\nparallel_requests = {PARALLEL}\nrequest_timeout = \"600s\"\norder = {order:?}\n"
        );
        Hanging { dir, model, functions, _serving: tokio_util::task::AbortOnDropHandle::new(serving) }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    async fn run(&self) -> forebay::pipeline::Pipeline {
        running(self.path(), "SELECT n, udf.score(n) AS s INTO out FROM t", &self.functions).await
    }

    /// Nothing hangs any more: the job is run until all rows are there, each as often as said.
    async fn finish(&self, rows: i64) {
        self.model.hangs.store(false, Ordering::Relaxed);
        let pipeline = self.run().await;
        wait_until("all rows", || lines(self.path()).len() as i64 >= rows).await;
        pipeline.stop().await.unwrap();
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for line in lines(self.path()) {
            *times.entry(line).or_default() += 1;
        }
        let expected: BTreeMap<String, usize> =
            (0..EVENTS).map(|n| (format!("{{\"n\":{n},\"s\":{}}}", 2 * n), 1)).collect();
        assert_eq!(times, expected, "each row once");
        let found = verify(&self.path().join("pool.db")).unwrap();
        assert!(found.is_good(), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_rows_are_sent_before_the_oldest_are_stored_than_requests_may_hold() {
    let job = Hanging::new("stream").await;
    let pipeline = job.run().await;
    // the first chunk is stored, and of what follows as much is sent as may be
    let most = BATCH + BATCH * PARALLEL;
    wait_until("all that may be sent", || job.model.asked() >= most && lines(job.path()).len() == BATCH).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(job.model.asked(), most);
    pipeline.stop().await.unwrap();
    assert_eq!(lines(job.path()).len(), BATCH, "nothing passes what hangs");
    job.finish(EVENTS).await;
    assert_eq!(job.model.asked(), EVENTS as usize + BATCH * PARALLEL, "scored again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_order_one_request_that_hangs_holds_back_its_own_rows_alone() {
    let job = Hanging::new("none").await;
    let pipeline = job.run().await;
    let others = EVENTS as usize - BATCH;
    wait_until("the rows of all other requests", || lines(job.path()).len() >= others).await;
    pipeline.stop().await.unwrap();
    let before = lines(job.path());
    assert_eq!((before.len(), job.model.asked()), (others, EVENTS as usize));
    assert!(!before.iter().any(|line| line.contains(&format!("\"n\":{HANGS},"))));
    // a start that gets no further keeps what was done ahead
    let pipeline = job.run().await;
    wait_until("the request that hangs", || job.model.asked() == EVENTS as usize + BATCH).await;
    pipeline.stop().await.unwrap();
    job.finish(EVENTS).await;
    assert_eq!(job.model.asked(), EVENTS as usize + 2 * BATCH, "only what hung is scored again");
}

//! What is scored again after a job ended with answers under way: a request hangs, the job stops, and starts anew.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
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
/// In the second request.
const HANGS: i64 = 150;
/// Requests then begin and end in the middle of chunks.
const THIRDS: &str = " WHERE n % 3 = 0";

/// Gives each number its double. A request with one number hangs.
#[derive(Default)]
struct Model {
    /// -1: none.
    hangs_at: AtomicI64,
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
    if numbers.contains(&model.hangs_at.load(Ordering::Relaxed)) {
        std::future::pending::<()>().await;
    }
    serde_json::to_string(&numbers.iter().map(|n| 2 * n).collect::<Vec<_>>()).unwrap()
}

/// A job in `dir` with a backlog, an endpoint at which one request hangs, and the lines of `[functions.score]`.
struct Hanging {
    dir: tempfile::TempDir,
    model: Arc<Model>,
    functions: String,
    filter: &'static str,
    _serving: tokio_util::task::AbortOnDropHandle<std::io::Result<()>>,
}

impl Hanging {
    /// `filter`: the end of the query, [`THIRDS`] or nothing.
    async fn new(order: &str, filter: &'static str) -> Hanging {
        let dir = tempfile::tempdir().unwrap();
        stored(&dir.path().join("pool.db"), 10, (0..EVENTS).map(|n| format!("{{\"n\":{n}}}")));
        let hangs_at = if filter == THIRDS { 3 * HANGS } else { HANGS };
        let model = Arc::new(Model { hangs_at: AtomicI64::new(hangs_at), ..Model::default() });
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/score", post(score)).with_state(model.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, app).await });
        let functions = format!(
            "[functions.score]\ntype = \"azureml\"\nurl = \"http://{address}/score\"\ninput_kind = \"vector\"\n\
             max_batch_count = {BATCH}\nparallel_requests = {PARALLEL}\nrequest_timeout = \"600s\"\norder = {order:?}\n"
        );
        Hanging { dir, model, functions, filter, _serving: tokio_util::task::AbortOnDropHandle::new(serving) }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    async fn run(&self) -> forebay::pipeline::Pipeline {
        let query = format!("SELECT n, udf.score(n) AS s INTO out FROM t{}", self.filter);
        running(self.path(), &query, &self.functions).await
    }

    fn wanted(&self) -> impl Iterator<Item = i64> {
        let step = if self.filter == THIRDS { 3 } else { 1 };
        (0..EVENTS).step_by(step)
    }

    /// Nothing hangs any more: the job is run until all rows are there, each once.
    async fn finish(&self) {
        let rows = self.wanted().count();
        self.model.hangs_at.store(-1, Ordering::Relaxed);
        let pipeline = self.run().await;
        wait_until("all rows", || lines(self.path()).len() >= rows).await;
        pipeline.stop().await.unwrap();
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for line in lines(self.path()) {
            *times.entry(line).or_default() += 1;
        }
        let expected: BTreeMap<String, usize> =
            self.wanted().map(|n| (format!("{{\"n\":{n},\"s\":{}}}", 2 * n), 1)).collect();
        assert_eq!(times, expected, "each row once");
        let found = verify(&self.path().join("pool.db")).unwrap();
        assert!(found.is_good(), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_more_rows_are_sent_before_the_oldest_are_stored_than_requests_may_hold() {
    let job = Hanging::new("stream", "").await;
    let pipeline = job.run().await;
    // the first chunk is stored, and of what follows as much is sent as may be
    let most = BATCH + BATCH * PARALLEL;
    wait_until("all that may be sent", || job.model.asked() >= most && lines(job.path()).len() == BATCH).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(job.model.asked(), most);
    pipeline.stop().await.unwrap();
    assert_eq!(lines(job.path()).len(), BATCH, "nothing passes what hangs");
    job.finish().await;
    assert_eq!(job.model.asked(), EVENTS as usize + BATCH * PARALLEL, "scored again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn without_an_order_one_request_that_hangs_holds_back_its_own_rows_alone() {
    let job = Hanging::new("none", "").await;
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
    job.finish().await;
    assert_eq!(job.model.asked(), EVENTS as usize + 2 * BATCH, "only what hung is scored again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn where_requests_cross_chunks_what_is_not_stored_is_scored_again_and_nothing_else() {
    for order in ["stream", "none"] {
        let job = Hanging::new(order, THIRDS).await;
        let rows = job.wanted().count();
        let pipeline = job.run().await;
        // chunks with a row in the request that hangs are stored whole, later
        let enough = if order == "none" { rows - 3 * BATCH } else { BATCH / 2 };
        wait_until("the rows of other requests", || lines(job.path()).len() >= enough).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        pipeline.stop().await.unwrap();
        let (stored, asked) = (lines(job.path()).len(), job.model.asked());
        assert!((1..=BATCH * PARALLEL).contains(&(asked - stored)), "{order}: {asked} sent, {stored} stored");
        job.finish().await;
        assert_eq!(job.model.asked() - asked, rows - stored, "{order}");
    }
}

//! A job under `kill -9`: rides are published while its process is killed at random moments and started again.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay::demo::client::{Message, Publisher, Receiver};
use forebay::demo::fleet::Fleet;
use forebay::time::Timestamp;
use serde_json::Value as Json;
use tokio::runtime::Runtime;

use crate::harness::{Forebay, PATIENCE, until};

/// A row that came out: its id, the ride it is of, and what the test wants of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row<T> {
    pub id: String,
    pub ride: String,
    pub rest: T,
}

/// Who listens to a topic, and the rows that have come.
pub struct Received<T> {
    _receiver: Receiver,
    rows: Arc<Mutex<Vec<Row<T>>>>,
}

impl<T: Clone + Send + 'static> Received<T> {
    /// Subscribed when it returns. `rest` takes what the test wants of a row.
    pub fn listen(
        runtime: &Runtime,
        port: u16,
        topic: &str,
        rest: impl Fn(&Json) -> T + Send + 'static,
    ) -> Received<T> {
        let rows: Arc<Mutex<Vec<Row<T>>>> = Arc::default();
        let sink = rows.clone();
        let take = move |m: Message| {
            let row: Json = serde_json::from_slice(&m.payload).expect("JSON");
            let ride = row["rideId"].as_str().expect("a ride").to_owned();
            sink.lock().expect("rows").push(Row { id: m.row_id.expect("an id"), ride, rest: rest(&row) });
        };
        let name = format!("receiver of {topic}");
        let receiver = runtime.block_on(async { Receiver::listen(&name, "127.0.0.1", port, topic, take) });
        assert!(runtime.block_on(receiver.ready(PATIENCE)));
        Received { _receiver: receiver, rows }
    }

    pub fn rows(&self) -> Vec<Row<T>> {
        self.rows.lock().expect("rows").clone()
    }

    /// Waits until every ride has come.
    pub fn wait_for(&self, sent: &[String], forebay: &Forebay) {
        let missing = || {
            let rows = self.rows.lock().expect("rows");
            let seen: HashSet<&str> = rows.iter().map(|row| row.ride.as_str()).collect();
            sent.iter().filter(|id| !seen.contains(id.as_str())).count()
        };
        until(&format!("all rides; log:\n{}", forebay.log()), || (missing() == 0).then_some(()));
    }
}

/// Kills the job so often, at moments that `seed` decides, while a fleet publishes rides to the broker at `port`. Gives
/// the process that goes on, and the rides that the broker took.
pub fn survive(runtime: &Runtime, job: &Path, port: u16, kills: usize, seed: u64) -> (Forebay, Vec<String>) {
    // the subscription must exist before the first ride, or the broker would have nobody to keep it for
    let mut forebay = Forebay::run(job);
    let going = Arc::new(AtomicBool::new(true));
    let go_on = going.clone();
    let feed = runtime.block_on(async { Arc::new(Publisher::connect("fleet", "127.0.0.1", port)) });
    let publisher = feed.clone();
    let publishing = runtime.spawn(async move {
        let mut fleet = Fleet::new(30);
        let mut ids = Vec::new();
        while go_on.load(Ordering::Relaxed) {
            let ride = fleet.ride(Timestamp::MIN);
            assert!(publisher.send(&ride.topic, ride.payload).await);
            ids.push(ride.id);
            if ids.len() % 20 == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        ids
    });
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(rng.u64(20..700)));
        forebay.kill();
        forebay = Forebay::run(job);
    }
    going.store(false, Ordering::Relaxed);
    let sent = runtime.block_on(publishing).expect("the publisher");
    assert!(runtime.block_on(feed.drained(PATIENCE)), "the broker took all");
    assert!(sent.len() > kills * 33, "a run of {} rides shows little", sent.len());
    (forebay, sent)
}

/// How many rides the ledger says may have come twice from the broker.
pub fn redelivered_possible(forebay: &Forebay) -> f64 {
    forebay.metric("forebay_source_redelivered_possible_total")
}

//! Scoring against Microsoft's own inference server, and against the embedded endpoint where a fault needs one. The
//! scorer is called as a pipeline calls it: rows in, one outcome a row out.

#[path = "score/faults.rs"]
mod faults;
#[path = "score/outages.rs"]
mod outages;
#[path = "score/server.rs"]
mod server;
#[path = "score/shapes.rs"]
mod shapes;
#[path = "score/wire.rs"]
mod wire;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use self::server::ready;
use forebay::backoff::Backoff;
use forebay::score::azureml::AzureMl;
use forebay::score::{Chunk, Failure, Outcome, Pauses, ScoreConfig, Scorer, Timing};
use forebay::value::{Record, SmolStr, Value};
use reqwest::Url;
use tokio::runtime::Handle;

pub use server::Server;

fn config(url: &str) -> ScoreConfig {
    let mut config = ScoreConfig::new("score", Url::parse(url).unwrap(), Arc::new(AzureMl::default()));
    config.parallel_requests = 4;
    config.request_timeout = Duration::from_secs(60);
    config.timing = Timing {
        pauses: Pauses {
            backoff: Backoff { base: Duration::from_millis(20), cap: Duration::from_millis(200) },
            slow_probe: Duration::from_millis(50),
            knock: Duration::from_millis(50),
        },
        ..Timing::default()
    };
    config
}

fn start(config: ScoreConfig) -> Scorer {
    Scorer::start(config, &Handle::current()).unwrap()
}

fn array(cells: &[&str]) -> Value {
    Value::array(cells.iter().map(Value::text).collect())
}

/// `["1", "Mon", "12", "1", "5.8"]` and the like; row `i` of a fixed sequence.
fn ride(i: usize) -> Value {
    let day = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"][i % 7];
    array(&[
        &(1 + i % 2).to_string(),
        day,
        &(i % 24).to_string(),
        &(1 + i % 6).to_string(),
        &format!("{}", 1.0 + (i % 97) as f64 * 0.1),
    ])
}

fn rides(n: usize) -> Vec<Value> {
    (0..n).map(ride).collect()
}

fn record(pairs: &[(&str, Value)]) -> Value {
    Value::record(Record::from_unique(pairs.iter().map(|(n, v)| (SmolStr::new(n), v.clone())).collect()))
}

fn ride_record(vendor: i64, day: &str, hour: i64, passengers: i64, distance: f64) -> Value {
    record(&[
        ("distance", Value::Float(distance)),
        ("vendorid", Value::BigInt(vendor)),
        ("weekday", Value::text(day)),
        ("pickuphour", Value::BigInt(hour)),
        ("passenger", Value::BigInt(passengers)),
    ])
}

async fn score(scorer: &Scorer, args: Vec<Value>) -> Vec<Outcome> {
    let ticket = scorer.submit(Chunk::new(0, args)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), ticket.outcomes()).await.expect("an answer within a minute").unwrap()
}

fn scored(outcomes: &[Outcome]) -> Vec<Value> {
    outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Scored(value) => value.clone(),
            other => panic!("a row was not scored: {other:?}"),
        })
        .collect()
}

fn failures(outcomes: &[Outcome]) -> Vec<(usize, &Failure)> {
    let failed = |(i, outcome)| match outcome {
        &Outcome::Scored(_) => None,
        Outcome::Failed(failure) => Some((i, &**failure)),
        Outcome::Away => panic!("row {i} was given away"),
    };
    outcomes.iter().enumerate().filter_map(failed).collect()
}

fn requests(scorer: &Scorer) -> u64 {
    scorer.status().requests.load(Ordering::Relaxed)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "waited for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn two() -> Vec<Value> {
    vec![array(&["1", "Mon", "12", "1", "5.8"]), array(&["2", "Wed", "10", "2", "10"])]
}

fn two_fares() -> Vec<Value> {
    vec![Value::Float(15.92), Value::Float(25.26)]
}

/// A scorer on the faulty server with this query; sends one row a request unless told otherwise.
async fn faulty(query: &str) -> Scorer {
    start(config(&ready("faulty").await.url(query)))
}

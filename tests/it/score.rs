//! Scoring against Microsoft's own inference server, and against the embedded endpoint where a fault needs one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use forebay::backoff::Backoff;
use forebay::demo::endpoint::{Endpoint, fare};
use forebay::diagnostic::Span;
use forebay::score::azureml::AzureMl;
use forebay::score::{Chunk, Ended, Failure, Mode, NanPolicy, Outcome, ScoreConfig, Scorer, State, Timing};
use forebay::settings::Secret;
use forebay::value::{Record, SmolStr, Value};
use reqwest::Url;
use tokio::runtime::Handle;

/// A score script under the real server; it ends with the test process.
pub struct Server {
    pub port: u16,
    _child: Child,
}

impl Server {
    pub fn start(script: &str) -> Server {
        // the listener must be gone before the server binds
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Server::start_on(script, port)
    }

    /// At an address that a job was given before.
    pub fn start_on(script: &str, port: u16) -> Server {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let venv = std::env::var_os("FOREBAY_AML_VENV").map_or_else(|| root.join("target/aml-venv"), PathBuf::from);
        assert!(venv.join(".filled").exists(), "no inference server in {}: run `make test-peers`", venv.display());
        // the shell ends the server when this process, which holds the other end of its input, is gone
        let child = Command::new("bash")
            .args(["-c", r#""$0" "$1" "$2" "$3" & server=$!; cat > /dev/null; kill $server"#])
            .arg(root.join("tests/aml-server/run.sh"))
            .arg(venv)
            .args([&port.to_string(), script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Server { port, _child: child };
        let deadline = Instant::now() + Duration::from_secs(120);
        while server.call("GET / HTTP/1.0\r\n\r\n").is_none_or(|answer| !answer.ends_with("Healthy")) {
            assert!(Instant::now() < deadline, "the {script} server did not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    pub fn address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    fn call(&self, request: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// A scoring call without any of the code under test; the JSON of the answer.
    fn direct(&self, body: &str) -> String {
        let head =
            format!("POST /score HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        let answer = self.call(&format!("{head}{body}")).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_string()
    }

    fn url(&self, query: &str) -> String {
        format!("http://127.0.0.1:{}/score{query}", self.port)
    }
}

/// One server a kind, shared by the tests. `rough` is a second faulty one: it hangs and dies.
fn server(kind: &'static str) -> &'static Server {
    static SERVERS: [(&str, OnceLock<Server>); 8] = [
        ("array", OnceLock::new()),
        ("frame", OnceLock::new()),
        ("multi", OnceLock::new()),
        ("string", OnceLock::new()),
        ("split", OnceLock::new()),
        ("inputs", OnceLock::new()),
        ("faulty", OnceLock::new()),
        ("rough", OnceLock::new()),
    ];
    let (_, slot) = SERVERS.iter().find(|(name, _)| *name == kind).unwrap();
    slot.get_or_init(|| Server::start(if kind == "rough" { "faulty" } else { kind }))
}

async fn ready(kind: &'static str) -> &'static Server {
    tokio::task::spawn_blocking(move || server(kind)).await.unwrap()
}

fn config(url: &str) -> ScoreConfig {
    let mut config = ScoreConfig::new("score", Url::parse(url).unwrap(), Arc::new(AzureMl::default()));
    config.parallel_requests = 4;
    config.request_timeout = Duration::from_secs(60);
    config.timing = Timing {
        backoff: Backoff { base: Duration::from_millis(20), cap: Duration::from_millis(200) },
        slow_probe: Duration::from_millis(50),
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
    let ticket = scorer.submit(Chunk { statement: 0, args }).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), ticket.outcomes()).await.expect("an answer within a minute").unwrap()
}

fn scored(outcomes: &[Outcome]) -> Vec<Value> {
    outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Scored(value) => value.clone(),
            Outcome::Failed(failure) => panic!("a row failed: {failure:?}"),
        })
        .collect()
}

fn failures(outcomes: &[Outcome]) -> Vec<(usize, &Failure)> {
    let failed = |(i, outcome)| match outcome {
        &Outcome::Scored(_) => None,
        Outcome::Failed(failure) => Some((i, &**failure)),
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

// ---- the shapes -------------------------------------------------------------------------------------------------

#[tokio::test]
async fn rows_of_the_array_endpoint_equal_a_direct_call() {
    let server = ready("array").await;
    let mut config = config(&server.url(""));
    config.max_batch_count = 64;
    let scorer = start(config);
    let rows = rides(500);
    let body = format!("{{\"data\":[{}]}}", rows.iter().map(Value::to_json).collect::<Vec<_>>().join(","));
    let direct: Vec<f64> = serde_json::from_str(&server.direct(&body)).unwrap();
    let ours = scored(&score(&scorer, rows).await);
    assert_eq!(ours, direct.into_iter().map(Value::Float).collect::<Vec<_>>());
    assert_eq!(requests(&scorer), 8);
    assert!(scorer.description_updates().borrow().as_ref().unwrap().contains("ServiceInput"));
}

#[tokio::test]
async fn numbers_become_the_text_cells_of_the_array_endpoint() {
    let scorer = start(config(&ready("array").await.url("")));
    let row = Value::array(vec![
        Value::BigInt(1),
        Value::text("Mon"),
        Value::BigInt(12),
        Value::Float(1.0),
        Value::Float(5.8),
    ]);
    assert_eq!(scored(&score(&scorer, vec![row]).await), [Value::Float(15.92)]);
}

#[tokio::test]
async fn rows_of_the_frame_endpoint_go_by_name_and_type() {
    let server = ready("frame").await;
    let scorer = start(config(&server.url("")));
    let text = record(&[
        ("Distance", Value::text("10")),
        ("VendorID", Value::text("2")),
        ("weekday", Value::text("Wed")),
        ("pickuphour", Value::Float(10.0)),
        ("passenger", Value::BigInt(2)),
    ]);
    let body = r#"{"data":[{"vendorid":1,"weekday":"Mon","pickuphour":12,"passenger":1,"distance":5.8},{"vendorid":2,"weekday":"Wed","pickuphour":10,"passenger":2,"distance":10}]}"#;
    assert_eq!(server.direct(body), "[15.92, 25.26]");
    assert_eq!(scored(&score(&scorer, vec![ride_record(1, "Mon", 12, 1, 5.8), text]).await), two_fares());
}

#[tokio::test]
async fn rows_that_do_not_fit_the_frame_are_found_before_sending() {
    let scorer = start(config(&ready("frame").await.url("")));
    let good = ride_record(1, "Mon", 12, 1, 5.8);
    let with = |name: &str, value: Value| {
        let Value::Record(record) = &good else { unreachable!() };
        let mut record = (**record).clone();
        record.insert(name.into(), value);
        Value::record(record)
    };
    let rows = vec![
        with("vendorid", Value::Float(1.7)),
        with("distance", Value::Null),
        with("distance", Value::Float(f64::NAN)),
        with("tip", Value::BigInt(1)),
        record(&[("vendorid", Value::BigInt(1))]),
        array(&["1", "Mon", "12", "1", "5.8"]),
        Value::Null,
        good.clone(),
    ];
    let outcomes = score(&scorer, rows).await;
    let reasons: Vec<&str> = failures(&outcomes).iter().map(|(_, f)| f.reason).collect();
    assert_eq!(
        reasons,
        ["conversion", "null", "not_finite", "extra_column", "missing_column", "wrong_shape", "null_argument"]
    );
    assert_eq!(outcomes[7], Outcome::Scored(Value::Float(15.92)));
    assert_eq!(requests(&scorer), 1);
}

#[tokio::test]
async fn records_are_found_through_the_output_path_of_the_multi_endpoint() {
    let server = ready("multi").await;
    let scorer = start(config(&server.url("")));
    let ours =
        scored(&score(&scorer, vec![ride_record(1, "Mon", 12, 1, 5.8), ride_record(2, "Wed", 10, 2, 10.0)]).await);
    let body = r#"{"data":[{"vendorid":1,"weekday":"Mon","pickuphour":12,"passenger":1,"distance":5.8},{"vendorid":2,"weekday":"Wed","pickuphour":10,"passenger":2,"distance":10.0}]}"#;
    let direct: serde_json::Value = serde_json::from_str(&server.direct(body)).unwrap();
    let ours: Vec<serde_json::Value> = ours.iter().map(|v| serde_json::from_str(&v.to_json()).unwrap()).collect();
    assert_eq!(serde_json::Value::Array(ours), direct["result"]);
}

#[tokio::test]
async fn a_result_encoded_twice_is_decoded_and_an_error_with_status_200_isolated() {
    let scorer = start(config(&ready("string").await.url("")));
    assert_eq!(scored(&score(&scorer, two()).await), two_fares());
    let outcomes = score(&scorer, vec![two()[0].clone(), array(&["x"]), two()[1].clone()]).await;
    let failed = failures(&outcomes);
    assert_eq!((failed.len(), failed[0].0, failed[0].1.reason), (1, 1, "bad_response"));
    assert!(failed[0].1.response.contains("Shape of passed values"), "{:?}", failed[0].1);
    assert_eq!(failed[0].1.request, r#"{"data":[["x"]]}"#);
}

#[tokio::test]
async fn a_signature_that_only_a_later_swagger_version_can_tell_is_found() {
    let scorer = start(config(&ready("split").await.url("")));
    let rows = vec![ride_record(1, "Mon", 12, 1, 5.8), array(&["2", "Wed", "10", "2", "10"])];
    assert_eq!(scored(&score(&scorer, rows).await), two_fares());
    assert!(scorer.description_updates().borrow().as_ref().unwrap().contains("\"openapi\": \"3.0.3\""));
}

#[tokio::test]
async fn wrapped_inputs_go_with_the_constants_of_the_example_or_of_the_job() {
    let mut config = config(&ready("inputs").await.url(""));
    let rows = vec![ride_record(1, "Mon", 12, 1, 5.8)];
    let result = |fare| record(&[("distance", Value::Float(5.8)), ("Scored Labels", Value::Float(fare))]);
    assert_eq!(scored(&score(&start(config.clone()), rows.clone()).await), [result(15.92)]);
    config.constants = vec![("GlobalParameters".into(), serde_json::json!({"factor": 2.0}))];
    assert_eq!(scored(&score(&start(config), rows).await), [result(31.84)]);
}

// ---- faults -----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn one_bad_row_in_a_thousand_is_isolated_by_about_21_requests() {
    let scorer = start(config(&ready("array").await.url("")));
    score(&scorer, two()).await;
    let before = requests(&scorer);
    let mut rows = rides(1000);
    rows[637] = array(&["1", "Mon", "12", "1", "far"]);
    let outcomes = score(&scorer, rows).await;
    let failed = failures(&outcomes);
    assert_eq!(
        failed.iter().map(|(i, f)| (*i, f.reason, f.status)).collect::<Vec<_>>(),
        [(637, "model_failed", Some(500))]
    );
    assert_eq!(failed[0].1.request, r#"{"data":[["1","Mon","12","1","far"]]}"#);
    assert!(failed[0].1.attempts >= 3 && !failed[0].1.request_id.is_empty(), "{:?}", failed[0].1);
    let spent = requests(&scorer) - before;
    assert!((12..=23).contains(&spent), "{spent} requests");
}

#[tokio::test]
async fn a_rejected_row_is_isolated_without_a_second_try() {
    let scorer = faulty("").await;
    let mut rows = rides(16);
    rows[5] = array(&["1", "Mon", "12", "1", "-1"]);
    let outcomes = score(&scorer, rows).await;
    let failed = failures(&outcomes);
    assert_eq!(failed.iter().map(|(i, f)| (*i, f.reason, f.status)).collect::<Vec<_>>(), [(5, "rejected", Some(400))]);
    assert!(failed[0].1.message.contains("negative distance in row 0"), "{:?}", failed[0].1);
}

#[tokio::test]
async fn unavailable_is_tried_again_until_it_passes() {
    for (query, model) in [("?fail_first=2&key=a", 503), ("?fail_first=2&key=b&status=429", 429)] {
        let scorer = faulty(query).await;
        assert_eq!(scored(&score(&scorer, two()).await), two_fares());
        assert_eq!(requests(&scorer), 3);
        assert!(scorer.status().last_error().unwrap().starts_with(&model.to_string()));
    }
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    for query in ["?fail_first=1&key=c&status=503&retry_after=1", "?fail_first=1&key=d&status=429&retry_after=1"] {
        let scorer = faulty(query).await;
        let begin = Instant::now();
        assert_eq!(scored(&score(&scorer, two()).await), two_fares());
        assert!(begin.elapsed() >= Duration::from_secs(1));
        assert_eq!(requests(&scorer), 2);
    }
}

#[tokio::test]
async fn a_424_is_unwrapped_to_the_models_own_status() {
    let away = faulty("?model_status=503").await;
    let ticket = away.submit(Chunk { statement: 0, args: two() }).await.unwrap();
    until("backing off", || matches!(away.status().state(), State::BackingOff { .. })).await;
    away.stop();
    assert!(ticket.outcomes().await.is_err());

    // every row fails, so none is condemned: the model is at fault
    let broken = faulty("?model_status=500").await;
    let _ticket = broken.submit(Chunk { statement: 0, args: rides(8) }).await.unwrap();
    until("paused", || matches!(broken.status().state(), State::Paused { reason: "every row fails", .. })).await;
    assert_eq!(broken.status().failed_rows.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn statuses_that_an_operator_has_to_repair_pause_and_keep_the_rows() {
    for (query, expected) in [
        ("?status=401", "key refused (401)"),
        ("?status=403", "forbidden (403)"),
        ("?status=404", "not found (404)"),
        ("?status=202", "not a scoring endpoint"),
        ("?status=204", "not a scoring endpoint"),
        ("?status=301", "not a scoring endpoint"),
        ("?status=415", "not a scoring endpoint"),
        ("?raise=1", "every row fails"),
        ("?status=400", "every row fails"),
        ("?short=1", "every row fails"),
        ("?text=1", "every row fails"),
        ("?error_as_200=1", "every row fails"),
        ("?unserialisable=1", "every row fails"),
    ] {
        let scorer = faulty(query).await;
        let ticket = scorer.submit(Chunk { statement: 0, args: rides(4) }).await.unwrap();
        until(query, || matches!(scorer.status().state(), State::Paused { reason, .. } if reason == expected)).await;
        let State::Paused { remedy, .. } = scorer.status().state() else { continue };
        assert!(!remedy.is_empty());
        assert_eq!(
            scorer.status().rows.load(Ordering::Relaxed) + scorer.status().failed_rows.load(Ordering::Relaxed),
            0,
            "{query}"
        );
        scorer.stop();
        assert_eq!(ticket.outcomes().await, Err(Ended { why: "it was stopped".into() }), "{query}");
    }
}

#[tokio::test]
async fn a_conflict_passes_by_itself() {
    let scorer = faulty("?fail_first=4&key=e&status=409").await;
    assert_eq!(scored(&score(&scorer, two()).await), two_fares());
    assert_eq!(requests(&scorer), 5);
}

#[tokio::test]
async fn a_nan_result_is_null_or_a_failure_of_its_row_alone() {
    let scorer = faulty("?nan=1").await;
    assert_eq!(scored(&score(&scorer, two()).await), [Value::Float(15.92), Value::Null]);
    assert_eq!(scorer.status().nan_results.load(Ordering::Relaxed), 1);

    let mut strict = config(&ready("faulty").await.url("?nan=1"));
    strict.nan = NanPolicy::DeadLetter;
    let outcomes = score(&start(strict), two()).await;
    assert_eq!(outcomes[0], Outcome::Scored(Value::Float(15.92)));
    assert_eq!(failures(&outcomes)[0].1.reason, "nan_result");

    let null = faulty("?null=1").await;
    assert_eq!(scored(&score(&null, two()).await), [Value::Float(15.92), Value::Null]);
    assert_eq!(null.status().nan_results.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_key_is_read_again_when_it_is_refused() {
    let server = ready("faulty").await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&server.url("?auth=new"));
    config.key = Secret::parse("file:key", Span::default(), folder.path()).map(Secret::as_key);
    std::fs::write(folder.path().join("key"), "old\n").unwrap();
    let scorer = start(config);
    std::fs::write(folder.path().join("key"), " new\n").unwrap();
    assert_eq!(scored(&score(&scorer, two()).await), two_fares());
    assert_eq!(requests(&scorer), 2);
}

#[tokio::test]
async fn a_hang_is_given_up_and_tried_again_and_the_late_answer_discarded() {
    let server = ready("rough").await;
    let endpoint = Endpoint::start().await.unwrap();
    endpoint.set_delay(Duration::from_secs(30));
    let mut config = config(&endpoint.url());
    config.request_timeout = Duration::from_millis(100);
    let scorer = start(config.clone());
    let waiting = scorer.submit(Chunk { statement: 0, args: two() }).await.unwrap();
    until("a request given up", || requests(&scorer) >= 1).await;
    endpoint.set_delay(Duration::ZERO);
    assert_eq!(scored(&waiting.outcomes().await.unwrap()).len(), 2);

    config.url = Url::parse(&server.url("?sleep_ms=600")).unwrap();
    config.request_timeout = Duration::from_millis(200);
    let hung = start(config);
    let _ticket = hung.submit(Chunk { statement: 0, args: two() }).await.unwrap();
    until("paused", || matches!(hung.status().state(), State::Paused { .. } | State::BackingOff { .. })).await;
    assert_eq!(hung.status().failed_rows.load(Ordering::Relaxed), 0);
    assert!(hung.status().last_error().unwrap().contains("no answer within"));
}

#[tokio::test]
async fn a_connection_that_closes_without_an_answer_is_tried_again() {
    let mut config = config(&ready("rough").await.url("?exit=1"));
    // one dead worker is enough
    config.timing.backoff.base = Duration::from_secs(600);
    config.timing.backoff.cap = Duration::from_secs(600);
    let scorer = start(config);
    let _ticket = scorer.submit(Chunk { statement: 0, args: two() }).await.unwrap();
    until("a closed connection", || scorer.status().last_error().is_some_and(|e| e.starts_with("Closed"))).await;
    assert_eq!(scorer.status().failed_rows.load(Ordering::Relaxed), 0);
}

// ---- outages ----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn an_outage_holds_the_rows_and_the_endpoint_gets_them_when_it_is_back() {
    let endpoint = Endpoint::start().await.unwrap();
    let mut config = config(&endpoint.url());
    config.max_batch_count = 10;
    let scorer = start(config);
    assert_eq!(
        scored(&score(&scorer, two()).await),
        [Value::Float(fare("Mon", 12, 1, 5.8)), Value::Float(fare("Wed", 10, 2, 10.0))]
    );
    endpoint.go_down().await.unwrap();
    let mut tickets = Vec::new();
    for statement in 0..3 {
        tickets.push(scorer.submit(Chunk { statement, args: rides(20) }).await.unwrap());
    }
    until("backing off", || matches!(scorer.status().state(), State::BackingOff { .. })).await;
    endpoint.come_back().unwrap();
    for ticket in tickets {
        let values = scored(&ticket.outcomes().await.unwrap());
        assert_eq!(values.len(), 20);
        assert_eq!(values[1], Value::Float(fare("Tue", 1, 2, 1.1)));
    }
    assert_eq!(scorer.status().state(), State::Ready);
    assert_eq!(endpoint.rows(), 62);
}

#[tokio::test]
async fn a_gateway_starts_offline_by_the_signature_it_kept() {
    let endpoint = Endpoint::start().await.unwrap();
    let first = start(config(&endpoint.url()));
    score(&first, two()).await;
    let kept = first.description_updates().borrow().clone();
    endpoint.go_down().await.unwrap();

    let mut offline = config(&endpoint.url());
    let without = start(offline.clone());
    until("an unknown signature", || without.status().last_error().is_some()).await;
    assert_eq!(without.status().state(), State::UnknownSignature);
    offline.cached_description = kept;
    let with = start(offline);
    let bad = Value::array(vec![Value::BigInt(1)]);
    let outcomes = score(&with, vec![bad]).await;
    assert_eq!(failures(&outcomes)[0].1.reason, "wrong_width");
    endpoint.come_back().unwrap();
    assert_eq!(scored(&score(&with, two()).await).len(), 2);
    assert_eq!(scored(&score(&without, two()).await).len(), 2);
}

#[tokio::test]
async fn too_many_requests_lower_the_parallelism_to_what_the_endpoint_takes() {
    let endpoint = Endpoint::start().await.unwrap();
    endpoint.set_capacity(Some(3));
    endpoint.set_delay(Duration::from_millis(5));
    let mut config = config(&endpoint.url());
    (config.max_batch_count, config.parallel_requests) = (1, 20);
    let scorer = start(config);
    assert_eq!(scored(&score(&scorer, rides(300)).await).len(), 300);
    assert!(endpoint.most_in_flight() <= 3);
    assert!(endpoint.requests() < 500, "{} requests for 300 rows", endpoint.requests());
    assert!(scorer.status().failed_requests.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn never_more_requests_at_once_than_allowed() {
    let endpoint = Endpoint::start().await.unwrap();
    endpoint.set_delay(Duration::from_millis(5));
    let mut config = config(&endpoint.url());
    (config.max_batch_count, config.parallel_requests) = (1, 5);
    let scorer = start(config);
    score(&scorer, rides(100)).await;
    assert_eq!(endpoint.most_in_flight(), 5);
}

#[tokio::test]
async fn a_model_that_breaks_condemns_no_row() {
    let endpoint = Endpoint::start().await.unwrap();
    let scorer = start(config(&endpoint.url()));
    score(&scorer, two()).await;
    endpoint.set_status(Some(500));
    let ticket = scorer.submit(Chunk { statement: 0, args: rides(20) }).await.unwrap();
    until("paused", || matches!(scorer.status().state(), State::Paused { reason: "every row fails", .. })).await;
    endpoint.set_status(None);
    assert_eq!(scored(&ticket.outcomes().await.unwrap()).len(), 20);
}

#[tokio::test]
async fn mode_asa_ends_the_job_where_stream_analytics_does() {
    for (query, status) in [("?status=400", "400"), ("?status=404", "404"), ("?raise=1", "500"), ("?short=1", "200")] {
        let mut config = config(&ready("faulty").await.url(query));
        config.mode = Mode::Asa;
        let scorer = start(config);
        let ticket = scorer.submit(Chunk { statement: 0, args: two() }).await.unwrap();
        let why = ticket.outcomes().await.unwrap_err().why;
        assert!(why.contains(status), "{query}: {why}");
        until("the end", || matches!(scorer.status().state(), State::Failed { .. })).await;
        assert!(match scorer.submit(Chunk { statement: 0, args: two() }).await {
            Ok(ticket) => ticket.outcomes().await.is_err(),
            Err(_) => true,
        });
    }
    let mut config = config(&ready("faulty").await.url("?fail_first=2&key=asa"));
    config.mode = Mode::Asa;
    assert_eq!(scored(&score(&start(config), two()).await), two_fares());
}

#[tokio::test]
async fn what_is_held_for_a_dead_endpoint_is_bounded() {
    let endpoint = Endpoint::start().await.unwrap();
    endpoint.go_down().await.unwrap();
    let scorer = start(config(&endpoint.url()));
    let mut tickets = Vec::new();
    // 4 requests of 1,000 rows, and as many rows that wait
    loop {
        let submit = scorer.submit(Chunk { statement: 0, args: rides(1000) });
        match tokio::time::timeout(Duration::from_millis(200), submit).await {
            Ok(ticket) => tickets.push(ticket.unwrap()),
            Err(_) => break,
        }
        assert!(tickets.len() <= 8);
    }
    assert_eq!(tickets.len(), 8);
    endpoint.come_back().unwrap();
    let first = tickets.remove(0).outcomes().await.unwrap();
    assert_eq!(first.len(), 1000);
}

#[test]
fn plain_threads_submit_and_wait() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let endpoint = runtime.block_on(Endpoint::start()).unwrap();
    let scorer = Scorer::start(config(&endpoint.url()), runtime.handle()).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|statement| {
            let scorer = scorer.clone();
            std::thread::spawn(move || {
                let mut ticket = scorer.submit_blocking(Chunk { statement, args: rides(50) }, 0).unwrap();
                scored(&ticket.wait(Duration::from_secs(60)).unwrap().unwrap()).len()
            })
        })
        .collect();
    assert_eq!(threads.into_iter().map(|t| t.join().unwrap()).sum::<usize>(), 200);
}

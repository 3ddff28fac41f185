//! The HTTP output against a server that misbehaves on command, and a whole job against Python's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::any;
use forebay::batch::{Batch, Column, RowMeta, Rows};
use forebay::connections::Connections;
use forebay::diagnostic::Diagnostics;
use forebay::output::{CountedOutput, Delivery, HttpOutputConfig, RowIds};
use forebay::settings::{Problems, Section, document};
use forebay::time::{Clock, Timestamp};
use forebay::value::Value;
use serde_json::Value as Json;

use crate::harness::{Forebay, until};
use crate::support::{Mosquitto, assert_pool_is_good, publish_numbers, refused, runtime, within, write_job};

pub const IDS: RowIds<'static> =
    RowIds { incarnation: "inc", renewals: &[], statement: "s1", consumer: "statement s1", scorers: None };

/// What came in one request.
#[derive(Clone, Debug)]
struct Taken {
    headers: HeaderMap,
    body: String,
}

impl Taken {
    fn numbers(&self) -> Vec<i64> {
        let rows: Json = serde_json::from_str(&self.body).unwrap();
        rows.as_array().unwrap().iter().map(|row| row["n"].as_i64().unwrap()).collect()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Decides about a request: code, text, headers.
type Answer = Box<dyn FnMut(&Taken) -> (u16, &'static str, Vec<(&'static str, &'static str)>) + Send>;

struct Server {
    url: String,
    requests: Arc<Mutex<Vec<Taken>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(
        answer: impl FnMut(&Taken) -> (u16, &'static str, Vec<(&'static str, &'static str)>) + Send + 'static,
    ) -> Server {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/rows", listener.local_addr().unwrap());
        let requests: Arc<Mutex<Vec<Taken>>> = Arc::default();
        let answer: Answer = Box::new(answer);
        let state = (requests.clone(), Arc::new(Mutex::new(answer)));
        let app = Router::new().route("/rows", any(take)).with_state(state);
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Server { url, requests, task }
    }

    fn requests(&self) -> Vec<Taken> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Shared = (Arc<Mutex<Vec<Taken>>>, Arc<Mutex<Answer>>);

async fn take(
    State((requests, answer)): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, HeaderMap, &'static str) {
    let mut unpacked = String::new();
    match headers.get("content-encoding") {
        Some(_) => drop(flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut unpacked).unwrap()),
        None => unpacked.push_str(std::str::from_utf8(&body).unwrap()),
    }
    let taken = Taken { headers, body: unpacked };
    let (code, text, told) = (answer.lock().unwrap())(&taken);
    requests.lock().unwrap().push(taken);
    let told = told.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    (StatusCode::from_u16(code).unwrap(), told.collect(), text)
}

/// The settings of a section.
fn read(url: &str, keys: &str) -> Result<HttpOutputConfig, Diagnostics> {
    let text = format!("url = \"{url}\"\n{keys}");
    let problems = Problems::new("job.toml", &text, std::path::Path::new(""), false);
    let document = document(&text, &[], &problems).unwrap();
    let mut section = Section::root(document.get_ref(), &problems);
    let config = HttpOutputConfig::read(&mut section);
    section.finish();
    let found = problems.into_inner();
    config.filter(|_| !found.has_errors()).ok_or(found)
}

fn output(url: &str, keys: &str) -> CountedOutput {
    let config = read(url, keys).unwrap_or_else(|problems| panic!("{problems}"));
    CountedOutput::build(&config, "job", &|_| Err("it has no client id".into()), &Connections::default(), Clock::Real)
        .unwrap()
}

pub fn rows(numbers: impl IntoIterator<Item = i64>) -> Rows {
    let mut batch = Batch::new(1);
    for n in numbers {
        batch.push(RowMeta::new(Timestamp::MIN, Timestamp::MIN, n, 0), [Value::BigInt(n)]);
    }
    Rows { columns: [Column { name: "n".into(), spread: false }].into(), batch }
}

/// Gives rows until they are through; and why attempts failed.
async fn deliver(output: &mut CountedOutput, rows: &Rows) -> (Delivery, Vec<String>) {
    let mut reasons = Vec::new();
    loop {
        match within("the delivery ends", output.deliver(rows, IDS)).await {
            Delivery::TryAgain { reason, .. } => reasons.push(reason),
            delivery => return (delivery, reasons),
        }
    }
}

#[tokio::test]
async fn an_output_knows_whether_the_receiver_can_have_none_of_a_batch() {
    let untouched = async |output: &mut CountedOutput, rows: &Rows| match output.deliver(rows, IDS).await {
        Delivery::TryAgain { is_untouched, .. } => is_untouched,
        other => panic!("{other:?}"),
    };
    let closed = (503, "closed", Vec::new());
    let server = Server::start(move |taken| if taken.numbers() == [7] { OK } else { closed.clone() }).await;
    let keys = "batch = { rows = 1 }";
    let mut output_of_one = output(&server.url, keys);
    assert!(untouched(&mut output_of_one, &rows(0..3)).await, "it answered that it takes none");
    assert!(!untouched(&mut output_of_one, &rows(7..9)).await, "the first was taken");
    assert!(untouched(&mut output_of_one, &rows(0..3)).await, "another batch");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(untouched(&mut output(&format!("http://{nobody}/"), keys), &rows(0..1)).await);
    // it takes the request and says nothing
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    assert!(!untouched(&mut output(&url, "timeout = \"1s\""), &rows(0..1)).await);
}

const OK: (u16, &str, Vec<(&str, &str)>) = (200, "", Vec::new());

#[tokio::test]
async fn rows_leave_in_batches_with_their_headers() {
    let server = Server::start(|_| OK).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "k-1\n").unwrap();
    let key = format!("key = \"file:{}\"\nkey_header = \"x-functions-key\"\n", folder.path().join("key").display());
    let keys = format!("{key}batch = {{ rows = 4 }}\nheaders = {{ x-site = \"north\" }}\nrow_id = \"id\"\n");
    let mut output = output(&server.url, &keys);
    assert_eq!(deliver(&mut output, &rows(0..10)).await, (Delivery::Delivered, vec![]));
    let taken = server.requests();
    assert_eq!(taken.iter().map(Taken::numbers).collect::<Vec<_>>(), [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
    assert_eq!(taken[2].body, r#"[{"n":8,"id":"inc-s1-8-0"},{"n":9,"id":"inc-s1-9-0"}]"#);
    for request in &taken {
        assert_eq!((request.header("x-functions-key"), request.header("x-site")), ("k-1", "north"));
        assert_eq!(request.header("content-type"), "application/json");
    }
    let keys: HashSet<&str> = taken.iter().map(|request| request.header("idempotency-key")).collect();
    assert_eq!(keys.len(), 3);
    std::fs::write(folder.path().join("key"), "k-2\n").unwrap();
    assert_eq!(deliver(&mut output, &rows(10..11)).await.0, Delivery::Delivered);
    let last = server.requests().pop().unwrap();
    assert_eq!((last.header("x-functions-key"), last.header("idempotency-key")), ("k-2", "inc-s1-10-0"));
    assert_eq!(output.stats().delivered.load(Relaxed), 11);
}

#[tokio::test]
async fn lines_single_rows_and_packed_bodies() {
    let server = Server::start(|_| OK).await;
    for (keys, bodies, kind) in [
        ("body = \"lines\"\nmethod = \"PUT\"", vec!["{\"n\":0}\n{\"n\":1}\n"], "application/x-ndjson"),
        ("body = \"row\"", vec!["{\"n\":0}", "{\"n\":1}"], "application/json"),
        ("compression = \"gzip\"", vec!["[{\"n\":0},{\"n\":1}]"], "application/json"),
    ] {
        server.requests.lock().unwrap().clear();
        assert_eq!(deliver(&mut output(&server.url, keys), &rows(0..2)).await.0, Delivery::Delivered);
        let taken = server.requests();
        assert_eq!(taken.iter().map(|t| t.body.as_str()).collect::<Vec<_>>(), bodies);
        assert!(taken.iter().all(|t| t.header("content-type") == kind));
    }
}

#[tokio::test]
async fn the_bad_row_of_a_refused_batch_is_found_and_the_others_pass() {
    let bad = [3, 90];
    let server = Server::start(move |taken| match taken.numbers().iter().any(|n| bad.contains(n)) {
        true => (422, "n is out of range", Vec::new()),
        false => OK,
    })
    .await;
    let mut output = output(&server.url, "");
    let (delivery, reasons) = deliver(&mut output, &rows(0..100)).await;
    let Delivery::Rejected { rows: refused } = delivery else { panic!("{delivery:?}") };
    assert_eq!(refused.iter().map(|(row, _)| *row as i64).collect::<Vec<_>>(), bad);
    assert!(refused[0].1.contains("answered 422 (n is out of range)"), "{refused:?}");
    assert!(reasons.is_empty());
    let requests = server.requests();
    assert!(requests.len() < 40, "{} requests for two bad rows of a hundred", requests.len());
    let taken = requests.iter().map(Taken::numbers).filter(|rows| !rows.iter().any(|n| bad.contains(n)));
    assert_eq!(
        taken.flatten().collect::<Vec<_>>(),
        (0..100).filter(|n| !bad.contains(n)).collect::<Vec<_>>(),
        "in order, each once"
    );
    // one alone, where others were taken before
    let (delivery, _) = deliver(&mut output, &rows(90..91)).await;
    assert!(matches!(delivery, Delivery::Rejected { .. }), "{delivery:?}");
}

#[tokio::test]
async fn a_receiver_that_refuses_every_row_is_told_of_before_they_are_given_up() {
    let server = Server::start(|_| (400, "no such table", Vec::new())).await;
    let mut output = output(&server.url, "");
    let Delivery::TryAgain { reason, .. } = output.deliver(&rows(0..3), IDS).await else { panic!("given up at once") };
    assert!(reason.contains("no such table") && reason.contains("every row is refused"), "{reason}");
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_halved_and_later_ones_are_smaller() {
    let server = Server::start(|taken| if taken.numbers().len() > 10 { (413, "", Vec::new()) } else { OK }).await;
    let mut output = output(&server.url, "");
    assert_eq!(deliver(&mut output, &rows(0..40)).await, (Delivery::Delivered, vec![]));
    let before = server.requests().len();
    assert_eq!(deliver(&mut output, &rows(40..80)).await, (Delivery::Delivered, vec![]));
    let later: Vec<usize> = server.requests()[before..].iter().map(|t| t.numbers().len()).collect();
    assert_eq!(later, [10, 10, 10, 10]);
}

#[tokio::test]
async fn what_passes_is_tried_again_with_the_same_key_and_what_was_taken_is_not() {
    let mut left = 2;
    let server = Server::start(move |taken| {
        let fails = taken.numbers()[0] == 2 && left > 0;
        left -= i32::from(fails);
        if fails { (503, "busy", Vec::new()) } else { OK }
    })
    .await;
    let mut output = output(&server.url, "batch = { rows = 2 }");
    let (delivery, reasons) = deliver(&mut output, &rows(0..6)).await;
    assert_eq!((delivery, reasons.len()), (Delivery::Delivered, 2));
    assert!(reasons[0].contains("answered 503 (busy)"), "{reasons:?}");
    let requests = server.requests();
    assert_eq!(requests.iter().map(|t| t.numbers()[0]).collect::<Vec<_>>(), [0, 2, 2, 2, 4]);
    let keys: HashSet<&str> = requests[1..4].iter().map(|t| t.header("idempotency-key")).collect();
    assert_eq!(keys.len(), 1);
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let mut first = true;
    let server =
        Server::start(move |_| if std::mem::take(&mut first) { (429, "", vec![("retry-after", "1")]) } else { OK })
            .await;
    let mut output = output(&server.url, "");
    let started = std::time::Instant::now();
    assert_eq!(deliver(&mut output, &rows(0..1)).await.1.len(), 1);
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn what_somebody_has_to_repair_keeps_the_rows_and_says_so() {
    for (code, word) in
        [(401, "correct `key`"), (404, "correct `url`"), (302, "not followed"), (409, "name the code in `success`")]
    {
        let server = Server::start(move |_| (code, "", Vec::new())).await;
        let Delivery::TryAgain { reason, .. } = output(&server.url, "").deliver(&rows(0..2), IDS).await else {
            panic!("{code}")
        };
        assert!(reason.contains(word), "{reason}");
        assert_eq!(server.requests().len(), 1, "{code}");
    }
    let server = Server::start(|_| (409, "", Vec::new())).await;
    let mut lenient = output(&server.url, "success = [\"2xx\", \"409\"]");
    assert_eq!(lenient.deliver(&rows(0..2), IDS).await, Delivery::Delivered);
    let gone = server.url.clone();
    drop(server);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let Delivery::TryAgain { reason, .. } = output(&gone, "timeout = \"2s\"").deliver(&rows(0..1), IDS).await else {
        panic!("gone")
    };
    assert!(reason.contains(&gone), "{reason}");
}

#[test]
fn settings_are_checked() {
    let problems = |keys: &str| read("http://plant.example/rows", keys).expect_err(keys).to_string();
    for (keys, word) in [
        ("headers = { authorization = \"Bearer abc\" }", "`authorization` is written into the job file"),
        ("headers = { x-api-key = 7 }", "expected a text"),
        ("headers = { host = \"x\" }", "this header is set with each request"),
        ("headers = { \"a b\" = \"x\" }", "this is no name of a header"),
        ("key_header = \"x\"", "`key_header` without `key`"),
        ("key = \"s3cr3t\"", "`key` is written into the job file"),
        ("success = [\"ok\"]", "this is no code of an answer"),
        ("batch = 10", "expected a table"),
        ("batch = { rows = 100000 }", "a whole number from 1 to 1000"),
        ("body = \"row\"\nbatch = { rows = 5 }", "one row a request"),
        ("method = \"GET\"", "expected \"POST\" or \"PUT\" or \"PATCH\""),
        ("ca_file = \"ca.pem\"", "`ca_file` without TLS"),
    ] {
        let found = problems(keys);
        assert!(found.contains(word), "{keys}: {found}");
        assert!(!found.contains("s3cr3t") && !found.contains("Bearer abc"), "{found}");
    }
    let text = "[job]\nname = \"a\"\nquery = \"a\"\n[inputs.a]\ntype = \"file\"\npath = \"a\"\n[outputs.b]\ntype = \
        \"htpp\"\nurl = \"http://h\"\n";
    let unknown = refused("a.toml", text);
    assert!(
        unknown.contains("did you mean \"http\"?")
            && unknown.contains("\"mqtt\" or \"file\" or \"http\" or \"stdout\""),
        "{unknown}"
    );
}

/// Python's own HTTP server, which writes each body to its standard output.
struct Python {
    child: Child,
    port: u16,
    bodies: Arc<Mutex<Vec<Json>>>,
}

const SCRIPT: &str = r#"
import http.server, sys
class Take(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        bad = '"n":13}' in body
        if not bad:
            sys.stdout.write(body + "\n"); sys.stdout.flush()
        self.send_response(400 if bad else 204)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Take)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

impl Python {
    fn start() -> Python {
        let mut child = Command::new("python3").args(["-c", SCRIPT]).stdout(Stdio::piped()).spawn().expect("python3");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let port = lines.next().expect("a port").expect("a line").parse().expect("a number");
        let bodies: Arc<Mutex<Vec<Json>>> = Arc::default();
        let sink = bodies.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                sink.lock().expect("bodies").push(serde_json::from_str(&line).expect("an array"));
            }
        });
        Python { child, port, bodies }
    }

    fn rows(&self) -> Vec<i64> {
        let bodies = self.bodies.lock().expect("bodies");
        bodies
            .iter()
            .flat_map(|body| body.as_array().expect("an array"))
            .map(|row| row["n"].as_i64().expect("n"))
            .collect()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_job_writes_to_pythons_server_and_the_row_it_refuses_is_a_dead_letter() {
    let dir = tempfile::tempdir().expect("a folder");
    let broker = Mosquitto::start();
    let python = Python::start();
    let text = format!(
        "[job]\nname = \"hook\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n[inputs.a]\n\
        type = \"mqtt\"\nurl = \"{}\"\n\
         topics = [\"a/+\"]\n[outputs.hook]\ntype = \"http\"\nurl = \"http://127.0.0.1:{}/rows\"\n\
         batch = {{ rows = 50, time = \"300ms\" }}\n",
        broker.url(),
        python.port
    );
    let path = write_job(dir.path(), &text, "SELECT n INTO hook FROM a");
    let runtime = runtime();
    let forebay = Forebay::run(&path);
    runtime.block_on(publish_numbers(&broker.url(), "a/1", 0..10));
    until("the first rows", || (python.rows().len() >= 10).then_some(()));
    forebay.kill();
    runtime.block_on(publish_numbers(&broker.url(), "a/1", 10..300));
    let forebay = Forebay::run(&path);
    until("all rows but one", || (python.rows().iter().collect::<HashSet<_>>().len() == 299).then_some(()));
    until("the dead letter", || (forebay.metric("forebay_output_dead_lettered_total") == 1.0).then_some(()));
    forebay.stop();
    let rows = python.rows();
    assert!(!rows.contains(&13));
    assert_pool_is_good(dir.path());
    let largest = python.bodies.lock().expect("bodies").iter().map(|body| body.as_array().map_or(0, Vec::len)).max();
    assert!(largest.is_some_and(|n| n <= 50), "{largest:?}");
    assert_eq!(
        python.bodies.lock().expect("bodies")[0].as_array().map(Vec::len),
        Some(10),
        "the first ten waited for one another"
    );
}

#[test]
fn rows_that_were_dropped_while_their_output_was_away_are_not_delivered_when_it_is_back() {
    let (dir, runtime, broker) = (tempfile::tempdir().unwrap(), runtime(), Mosquitto::start());
    let is_back = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let answers = is_back.clone();
    let server = runtime.block_on(Server::start(move |_| match answers.load(Relaxed) {
        true => (200, "", Vec::new()),
        false => (503, "closed", Vec::new()),
    }));
    let text = format!(
        "[job]\nname = \"test\"\nquery = \"job.asaql\"\nstart = \"oldest\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
         [inputs.a]\ntype = \"mqtt\"\nurl = \"{}\"\ntopics = [\"a/+\"]\n\
         [outputs.o]\ntype = \"http\"\nurl = \"{}\"\nmax_age = \"1s\"\n",
        broker.url(),
        server.url
    );
    let forebay = Forebay::run(&write_job(dir.path(), &text, "SELECT n INTO o FROM a"));
    runtime.block_on(publish_numbers(&broker.url(), "a/1", 0..500));
    let lost = || {
        let of_consumer = forebay.metric("forebay_consumer_skipped_total");
        (of_consumer, forebay.metric("forebay_output_dropped_total{job=\"test\",output=\"o\",reason=\"age\""))
    };
    until("all of them to be dropped", || (lost().0 + lost().1 == 500.0).then_some(()));
    let (skipped, dropped) = lost();
    assert!(skipped > 0.0 && dropped > 0.0, "some were in hand: {skipped} {dropped}");
    is_back.store(true, Relaxed);
    let tried = server.requests().len();
    let came = || server.requests().iter().skip(tried).flat_map(Taken::numbers).collect::<HashSet<i64>>();
    // the output tries again after a pause, and what comes is dropped after a second
    let mut next = 500;
    until("something that comes through", || {
        runtime.block_on(publish_numbers(&broker.url(), "a/1", next..next + 1));
        next += 1;
        forebay::time::pause(Duration::from_millis(100));
        (!came().is_empty()).then_some(())
    });
    forebay.stop();
    assert!(came().iter().all(|n| *n >= 500), "{:?}", came());
    assert_pool_is_good(dir.path());
}

//! What comes over the wire in place of an answer: floods, secrets that are echoed, pages of somebody else. A server of
//! a few lines writes bytes as they are.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use forebay::diagnostic::Span;
use forebay::score::response::{BadResponse, VALUES_MIN, read_results};
use forebay::score::{Chunk, Outcome, ScoreConfig, State};
use forebay::settings::Secret;
use forebay::value::Value;

use super::{array, config, failures, rides, score, scored, start, two, until};
use crate::support::allocation::most_held;

/// Gives each request to a function that writes the answer. It ends with the test process.
pub struct Wire {
    port: u16,
    /// Heads of the requests.
    pub heads: Arc<Mutex<Vec<String>>>,
    pub written: Arc<AtomicUsize>,
}

impl Wire {
    pub fn start(answer: impl Fn(&str, &mut dyn Write) -> std::io::Result<()> + Send + Sync + 'static) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (heads, written) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (seen, counted, answer) = (heads.clone(), written.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, counted, answer) = (seen.clone(), counted.clone(), answer.clone());
                std::thread::spawn(move || {
                    let Some(head) = take(&stream) else { return };
                    seen.lock().unwrap().push(head.clone());
                    // whoever reads may have had enough
                    let _ = answer(&head, &mut Counted { to: &stream, counted: &counted });
                });
            }
        });
        Wire { port, heads, written }
    }

    /// Answers every request with the same.
    pub fn saying(head: &'static str, body: impl Into<Vec<u8>>) -> Wire {
        let body = body.into();
        Wire::start(move |_, to| {
            write!(to, "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
            to.write_all(&body)
        })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/score", self.port)
    }

    /// An array is known to be taken, so that no description is asked for.
    pub fn config(&self) -> ScoreConfig {
        typed(&self.url())
    }
}

struct Counted<'a> {
    to: &'a TcpStream,
    counted: &'a AtomicUsize,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = (&mut &*self.to).write(bytes)?;
        self.counted.fetch_add(written, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The head of a request whose body was read too.
fn take(mut stream: &TcpStream) -> Option<String> {
    let mut text = Vec::new();
    let mut part = [0; 4096];
    loop {
        let end = text.windows(4).position(|four| four == b"\r\n\r\n");
        let head = end.map(|end| String::from_utf8_lossy(&text[..end]).into_owned());
        let length = head.as_ref().and_then(|head| {
            let line = head.lines().find(|line| line.to_lowercase().starts_with("content-length:"))?;
            line.split(':').nth(1)?.trim().parse::<usize>().ok()
        });
        if end.is_some_and(|end| text.len() >= end + 4 + length.unwrap_or(0)) {
            return head;
        }
        match stream.read(&mut part).ok()? {
            0 => return None,
            n => text.extend_from_slice(&part[..n]),
        }
    }
}

pub fn typed(url: &str) -> ScoreConfig {
    let mut config = config(url);
    config.signature = Some(forebay::score::EndpointSignature::untyped());
    config
}

/// About 31 MB.
const LONG: usize = 31 << 20;

fn ones(bytes: usize) -> String {
    format!("[{}1]", "1,".repeat(bytes / 2 - 1))
}

#[test]
fn an_answer_takes_at_most_three_times_its_bytes() {
    let flat = ones(LONG);
    let deep = format!("[{}{}]", "[".repeat(LONG / 2), "]".repeat(LONG / 2));
    let text = format!("[\"{}\"]", "x".repeat(LONG));
    let escaped = format!("[\"{}\"]", "\\u0078".repeat(LONG / 6));
    let error = format!("{{\"error\": \"{}\"}}", "x".repeat(LONG));
    let twice = serde_json::to_string(&format!("[{}]", "\"a\",".repeat(LONG / 6))).unwrap();
    let wrapped = format!("{{\"Results\": {flat}, \"time\": 3}}");
    let fields = format!("[{{{}\"z\":1}}]", (0..LONG / 12).map(|n| format!("\"{n:06}\":1,")).collect::<String>());
    let keys = format!("{{{}\"z\":1}}", "\"k\":1,".repeat(LONG / 6));
    let records = format!("[{}{{}}]", "{},".repeat(LONG / 3));
    let wide = format!("[{}1]", format!("[{}1],", "1,".repeat(1_000)).repeat(LONG / 2_004));
    let cut = flat[..flat.len() - 1].to_owned();
    let errors = |read: Result<Vec<Value>, BadResponse>| read.map(|_| ()).unwrap_err();
    let many = |rows| BadResponse::TooMany { sent: rows, found: rows + 1 };
    for (name, body, rows, path, said) in [
        ("ones", &flat, 1_000, "", Some(many(1_000))),
        ("ones in one", &format!("[{flat}]"), 1, "", Some(BadResponse::TooLarge(2 * (flat.len() + 2)))),
        ("deep", &deep, 1, "", Some(BadResponse::TooDeep)),
        ("one text", &text, 1, "", None),
        ("a text of escapes", &escaped, 1, "", None),
        ("an error's text", &error, 1, "", Some(BadResponse::ErrorText("x".repeat(300) + "…"))),
        ("encoded twice", &twice, 1_000, "", Some(many(1_000))),
        ("Results", &wrapped, 1_000, "", Some(many(1_000))),
        ("a path", &wrapped, 1_000, "Results", Some(many(1_000))),
        ("many fields", &fields, 1, "", Some(BadResponse::TooLarge(2 * fields.len()))),
        ("equal keys", &keys, 2, "", Some(BadResponse::NoList(format!("an object with {}", ["k"; 20].join(", "))))),
        ("records", &records, 10_000, "", Some(many(10_000))),
        ("wide rows", &wide, 10_000, "", Some(many(0))),
        ("cut off", &cut, LONG / 2, "", None),
    ] {
        let path: Vec<String> = (!path.is_empty()).then(|| path.to_owned()).into_iter().collect();
        let begin = Instant::now();
        let (read, most) = most_held(|| read_results(body.as_bytes(), rows, &path));
        println!("{name}: {} bytes, {most} held beside them, {:?}", body.len(), begin.elapsed());
        match (name, said) {
            // how far the memory goes is not the point
            ("wide rows", _) => assert!(matches!(errors(read), BadResponse::TooLarge(_)), "{name}"),
            ("equal keys", _) => assert!(errors(read).to_string().contains("more"), "{name}"),
            ("cut off", _) => assert!(matches!(errors(read), BadResponse::TooLarge(_)), "{name}"),
            (_, Some(said)) => assert_eq!(errors(read), said, "{name}"),
            (_, None) => assert_eq!(read.unwrap().len(), 1, "{name}"),
        }
        assert!(most <= 2 * body.len(), "{name}: {most} bytes beside the {} of the answer", body.len());
    }
}

#[test]
fn a_short_answer_may_take_more_than_its_bytes() {
    let rows = format!("[{}[1,1]]", "[0,1],".repeat(9_999));
    let (read, most) = most_held(|| read_results(rows.as_bytes(), 10_000, &[]));
    assert_eq!(read.unwrap().len(), 10_000);
    assert!(most > 3 * rows.len() && most < VALUES_MIN, "{most} of {}", rows.len());
}

#[tokio::test]
async fn an_endless_answer_is_read_up_to_a_limit_that_follows_from_the_rows() {
    let wire = Wire::start(|_, to| {
        write!(to, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        write!(to, "1\r\n[\r\n")?;
        loop {
            write!(to, "8000\r\n{}\r\n", "1,".repeat(0x4000))?;
        }
    });
    let mut config = wire.config();
    config.max_result_bytes = 1_000_000;
    let scorer = start(config);
    let _ticket = scorer.submit(Chunk::new(0, two())).await.unwrap();
    until("the answer was given up", || scorer.status().last_error().is_some()).await;
    let error = scorer.status().last_error().unwrap();
    assert!(error.contains("the answer is longer than 2262144 bytes, the most for 2 rows"), "{error}");
    assert!(error.contains("raise `max_result_bytes`"), "{error}");
    scorer.stop();
    // what the sockets on both sides hold comes on top, once a request
    let requests = wire.heads.lock().unwrap().len();
    let written = wire.written.load(Ordering::Relaxed);
    assert!(written < (requests + 1) * (2_262_144 + (16 << 20)), "{written} in {requests}");
}

#[tokio::test]
async fn an_answer_that_announces_too_much_is_not_waited_for() {
    let wire = Wire::start(|_, to| {
        write!(to, "HTTP/1.1 200 OK\r\nContent-Length: 4000000000\r\n\r\n[")?;
        // nothing more comes, and the connection stays
        std::thread::sleep(Duration::from_secs(3_600));
        Ok(())
    });
    let scorer = start(wire.config());
    let _ticket = scorer.submit(Chunk::new(0, two())).await.unwrap();
    until("the answer was given up", || scorer.status().last_error().is_some()).await;
    let error = scorer.status().last_error().unwrap();
    assert!(error.contains("the answer is longer than 393216 bytes, the most for 2 rows"), "{error}");
}

#[tokio::test]
async fn a_page_of_an_error_is_read_up_to_its_start() {
    let wire = Wire::saying("400 Bad Request", ones(8 << 20));
    let scorer = start(wire.config());
    let _ticket = scorer.submit(Chunk::new(0, rides(4))).await.unwrap();
    until("the answer", || scorer.status().last_error().is_some()).await;
    let error = scorer.status().last_error().unwrap();
    assert!(error.starts_with("400: [1,1,1") && error.len() < 5_000, "{} bytes", error.len());
}

const KEY: &str = "kY3+t/0p=secret";

fn keyed(url: &str, folder: &std::path::Path) -> ScoreConfig {
    std::fs::write(folder.join("key"), KEY).unwrap();
    let mut config = typed(url);
    config.key = Secret::parse("file:key", Span::default(), folder).map(Secret::as_key);
    config
}

/// The request's head as JSON has it.
fn echo(head: &str) -> String {
    serde_json::to_string(head).unwrap()
}

#[tokio::test]
async fn an_endpoint_that_echoes_the_request_gives_no_key_away() {
    let folder = tempfile::tempdir().unwrap();
    for (status, wrap) in [
        ("400 Bad Request", "{\"message\": ECHO}"),
        ("500 Internal Server Error", "ECHO"),
        ("200 OK", "[ECHO, \"b\", {\"e\": ECHO}]"),
        ("200 OK", "{\"predictions\": ECHO}"),
        ("200 OK", "{\"error\": ECHO}"),
        ("200 OK", "no JSON: ECHO"),
        ("401 Unauthorized", "ECHO"),
    ] {
        let wire = Wire::start(move |head, to| {
            let is_good = wrap.starts_with('[') && wrap.ends_with("}]");
            let body = match head.starts_with("POST") {
                // one good row among those that fail, so that the others are told
                true => wrap.replace("ECHO", &echo(head)),
                false => "[1]".to_owned(),
            };
            let id = if is_good { "x-request-id: kY3+t/0p=secret\r\n" } else { "" };
            write!(to, "HTTP/1.1 {status}\r\n{id}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
        });
        let url = format!("{}?code=kY4%2Btwo%2Fsecret&v=1", wire.url());
        let scorer = start(keyed(&url, folder.path()));
        let ticket = scorer.submit(Chunk::new(0, rides(3))).await.unwrap();
        let shown = if wrap.ends_with("}]") {
            format!("{:?}", ticket.outcomes().await.unwrap())
        } else {
            until("an answer", || scorer.status().last_error().is_some()).await;
            scorer.status().last_error().unwrap()
        };
        assert!(shown.contains("***"), "{wrap}: {shown}");
        assert!(!shown.contains("secret"), "{wrap}: {shown}");
        assert!(wire.heads.lock().unwrap()[0].contains(KEY), "it was sent");
    }
}

#[tokio::test]
async fn a_row_that_fails_keeps_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let wire = Wire::start(move |head, to| {
        // the first of two rows alone is refused
        let is_bad = head.lines().any(|line| line.to_lowercase() == "content-length: 16");
        let (status, body) = match is_bad {
            true => ("400 Bad Request", echo(head)),
            false => ("200 OK", "[1]".to_owned()),
        };
        let length = body.len();
        write!(to, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
    });
    let mut config = keyed(&wire.url(), folder.path());
    config.max_batch_count = 1;
    let scorer = start(config);
    let rows = vec![array(&["long", "enough"]), array(&["1"]), array(&["long", "enough"])];
    let outcomes = score(&scorer, rows).await;
    let failed = failures(&outcomes);
    assert_eq!(failed.len(), 1, "{outcomes:?}");
    assert!(failed[0].1.response.contains("authorization: Bearer ***************"), "{:?}", failed[0].1);
    assert!(!format!("{:?}", failed[0].1).contains("secret"), "{:?}", failed[0].1);
}

const PAGE: &str = "\n<!DOCTYPE html><html><body>Welcome! Please log in.</body></html>";

#[tokio::test]
async fn a_captive_portal_is_an_outage_that_is_named() {
    for (head, body, words) in [
        ("200 OK\r\nContent-Type: text/html; charset=utf-8", PAGE, "HTML instead of JSON: a captive portal"),
        ("511 Network Authentication Required\r\nContent-Type: text/html", PAGE, "the network wants a login (511)"),
        ("302 Found\r\nLocation: http://login.hotel.example/?from=x", "", "a redirect to login.hotel.example instead"),
        ("307 Temporary Redirect\r\nLocation: //portal.example", "", "a redirect to portal.example instead"),
    ] {
        let wire = Wire::saying(head, body);
        let scorer = start(wire.config());
        let _ticket = scorer.submit(Chunk::new(0, rides(4))).await.unwrap();
        until(head, || matches!(scorer.status().state(), State::BackingOff { .. })).await;
        let error = scorer.status().last_error().unwrap();
        assert!(error.contains(words) && error.contains("between the gateway and the endpoint"), "{error}");
        until("some tries", || wire.heads.lock().unwrap().len() > 6).await;
        assert!(matches!(scorer.status().state(), State::BackingOff { .. }), "{:?}", scorer.status().state());
        assert_eq!(scorer.status().failed_rows.load(Ordering::Relaxed), 0);
        // the description is asked for in the same way
        let asking = start(config(&wire.url()));
        let _ticket = asking.submit(Chunk::new(0, rides(4))).await.unwrap();
        until("the description", || asking.status().last_error().is_some_and(|error| error.contains(words))).await;
        assert!(asking.status().last_error().unwrap().starts_with("signature: "));
    }
}

#[tokio::test]
async fn rows_go_on_once_the_portal_is_gone() {
    let is_open = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let door = is_open.clone();
    let wire = Wire::start(move |_, to| {
        let (kind, body) = match door.load(Ordering::Relaxed) {
            // whatever the header says, this is no page
            true => ("text/html", "[1, 2]"),
            false => ("text/html", PAGE),
        };
        let length = body.len();
        write!(
            to,
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
    });
    let scorer = start(wire.config());
    let ticket = scorer.submit(Chunk::new(0, rides(2))).await.unwrap();
    until("the portal", || wire.heads.lock().unwrap().len() >= 3).await;
    is_open.store(true, Ordering::Relaxed);
    let outcomes = tokio::time::timeout(Duration::from_secs(60), ticket.outcomes()).await.expect("rows go on");
    assert_eq!(scored(&outcomes.unwrap()), [Value::BigInt(1), Value::BigInt(2)]);
}

#[tokio::test]
async fn what_the_endpoint_itself_says_in_html_is_no_portal() {
    for (head, state) in [
        ("400 Bad Request\r\nContent-Type: text/html", "every row fails"),
        ("301 Moved Permanently\r\nLocation: /elsewhere", "not a scoring endpoint"),
        ("404 Not Found\r\nContent-Type: text/html", "not found (404)"),
    ] {
        let wire = Wire::saying(head, PAGE);
        let scorer = start(wire.config());
        let _ticket = scorer.submit(Chunk::new(0, rides(4))).await.unwrap();
        until(state, || matches!(scorer.status().state(), State::Paused { reason, .. } if reason == state)).await;
    }
    let wire = Wire::saying("200 OK\r\nContent-Type: application/json", "[1, 2]");
    let outcomes = score(&start(wire.config()), rides(2)).await;
    assert_eq!(outcomes, [Outcome::Scored(Value::BigInt(1)), Outcome::Scored(Value::BigInt(2))]);
}

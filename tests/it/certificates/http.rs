//! Client certificates over HTTP: reference data, an endpoint and an output each show theirs to Python's HTTPS server,
//! which asks for one.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay::backoff::Backoff;
use forebay::connections::Connections;
use forebay::diagnostic::Diagnostics;
use forebay::output::{CountedOutput, Delivery, HttpOutputConfig};
use forebay::reference;
use forebay::score::{Chunk, DIALECTS, Outcome, ScoreConfig, Scorer, State};
use forebay::settings::{Problems, Section, document};
use forebay::time::Clock;
use forebay::value::Value;
use tempfile::TempDir;

use super::fill;
use crate::support::{wait_until, within};
use crate::webhook::{IDS, rows};

/// Answers with an array of ones, or a table; prints the name of each client.
const SCRIPT: &str = r#"
import http.server, json, ssl, sys
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, value):
        subject = dict(part[0] for part in self.connection.getpeercert()["subject"])
        sys.stdout.write(subject["commonName"] + "\n"); sys.stdout.flush()
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        # each request is a connection of its own
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        data = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer([1.0 for row in data["data"]] if "data" in data else {})
    def do_GET(self):
        self.answer([{"id": 1, "name": "north"}])
    def log_message(self, *args): pass
class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *args): pass
server = Server(("127.0.0.1", 0), Answer)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.pem", "server.key")
context.load_verify_locations("ca.pem")
context.verify_mode = ssl.CERT_REQUIRED
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

/// Python's server; it takes whom the authority signed.
struct Server {
    folder: TempDir,
    port: u16,
    clients: Arc<Mutex<Vec<String>>>,
    child: Child,
}

impl Server {
    fn start() -> Server {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path());
        let mut child = Command::new("python3")
            .args(["-c", SCRIPT])
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next().expect("a port").unwrap().parse().unwrap();
        let clients: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = clients.clone();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| sink.lock().unwrap().push(line)));
        Server { folder, port, clients, child }
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}/rows", self.port)
    }

    /// The settings of a section; the files are named as a job file names them.
    fn read<T>(&self, keys: &str, read: impl FnOnce(&mut Section) -> Option<T>) -> T {
        section(self.folder.path(), &format!("url = \"{}\"\nca_file = \"ca.pem\"\n{keys}", self.url()), read)
            .unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// Puts a pair where the settings point to.
    fn install(&self, name: &str) {
        for kind in ["pem", "key"] {
            fs::copy(self.folder.path().join(format!("{name}.{kind}")), self.folder.path().join(format!("now.{kind}")))
                .unwrap();
        }
    }

    async fn saw(&self, names: &[&str]) {
        wait_until(&format!("{names:?} in {:?}", self.clients), || *self.clients.lock().unwrap() == names).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn section<T>(folder: &Path, text: &str, read: impl FnOnce(&mut Section) -> Option<T>) -> Result<T, Diagnostics> {
    // files that change later are looked at when they are used
    let problems = Problems::new("job.toml", text, folder, false);
    let document = document(text, &[], &problems).unwrap();
    let mut section = Section::root(document.get_ref(), &problems);
    let config = read(&mut section);
    section.finish();
    let found = problems.into_inner();
    config.filter(|_| !found.has_errors()).ok_or(found)
}

const NOW: &str = "cert_file = \"now.pem\"\nkey_file = \"now.key\"\n";

#[tokio::test]
async fn reference_data_comes_from_a_server_that_wants_a_certificate() {
    let server = Server::start();
    for (name, words) in [
        ("foreign", "because it does not trust the authority that signed it"),
        ("past", "it expired at 2020-02-01T00:00:00Z"),
    ] {
        server.install(name);
        let refused = reference::load_once(&server.read(NOW, reference::read)).await.unwrap_err();
        assert!(
            refused.contains("it refuses the client certificate `cert_file`") && refused.contains(words),
            "{refused}"
        );
    }
    let refused = reference::load_once(&server.read("", reference::read)).await.unwrap_err();
    assert!(
        refused.contains("it may want a client certificate (CertificateRequired): set `cert_file` and `key_file`"),
        "{refused}"
    );
    server.install("first");
    let unusable = reference::load_once(&server.read(NOW, reference::read)).await.unwrap_err();
    assert!(unusable.contains("`cert_file`") && unusable.contains("X.509 version 1"), "{unusable}");
    server.saw(&[]).await;
    server.install("gateway");
    assert_eq!(reference::load_once(&server.read(NOW, reference::read)).await.unwrap().len(), 1);
    server.saw(&["gateway"]).await;
}

fn scorer(server: &Server) -> Scorer {
    let (_, azureml) = DIALECTS.iter().find(|(word, _)| *word == "azureml").unwrap();
    let mut config: ScoreConfig = server.read(&format!("{NOW}input_kind = \"array\"\n"), azureml);
    config.timing.pauses.backoff = Backoff { base: Duration::from_millis(20), cap: Duration::from_millis(200) };
    config.timing.pauses.slow_probe = Duration::from_millis(50);
    Scorer::start(config, &tokio::runtime::Handle::current()).unwrap()
}

#[tokio::test]
async fn an_endpoint_that_refuses_the_certificate_is_waited_for_until_it_is_renewed() {
    let server = Server::start();
    server.install("past");
    let scorer = scorer(&server);
    let chunk = || Chunk::new(0, vec![Value::array(vec![Value::Float(1.0)])]);
    let ticket = within("room for a row", scorer.submit(chunk())).await.unwrap();
    wait_until("the pause", || {
        matches!(scorer.status().state(), State::Paused { reason: "client certificate refused", .. })
    })
    .await;
    let State::Paused { remedy, .. } = scorer.status().state() else { panic!("paused") };
    assert!(remedy.contains("`cert_file` and `key_file`"), "{remedy}");
    let error = scorer.status().last_error().unwrap();
    assert!(error.contains("past") || error.contains("as expired"), "{error}");
    server.install("renewed");
    let one = [Outcome::Scored(Value::Float(1.0))];
    assert_eq!(within("a result", ticket.outcomes()).await.unwrap(), one);
    server.saw(&["renewed"]).await;
    // a pair that is being written does not end what works
    fs::copy(server.folder.path().join("gateway.key"), server.folder.path().join("now.key")).unwrap();
    let ticket = within("room for a row", scorer.submit(chunk())).await.unwrap();
    assert_eq!(within("a result", ticket.outcomes()).await.unwrap(), one);
    server.install("gateway");
    let ticket = within("room for a row", scorer.submit(chunk())).await.unwrap();
    assert_eq!(within("a result", ticket.outcomes()).await.unwrap(), one);
    server.saw(&["renewed", "renewed", "gateway"]).await;
}

#[tokio::test]
async fn rows_go_to_a_receiver_that_wants_a_certificate() {
    let server = Server::start();
    server.install("foreign");
    let config = server.read(NOW, HttpOutputConfig::read);
    let mut output = CountedOutput::build(
        &config,
        "job",
        &|_| Err("it has no client id".into()),
        &Connections::default(),
        Clock::Real,
    )
    .unwrap();
    let two = rows([1, 2]);
    let Delivery::TryAgain { reason, .. } = within("an attempt", output.deliver(&two, IDS)).await else {
        panic!("it is refused")
    };
    assert!(reason.contains("it refuses the client certificate `cert_file`"), "{reason}");
    server.install("gateway");
    assert_eq!(within("an attempt", output.deliver(&two, IDS)).await, Delivery::Delivered);
    server.saw(&["gateway"]).await;
}

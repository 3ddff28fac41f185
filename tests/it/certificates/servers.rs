//! Certificates of servers: Python's HTTPS server and mosquitto show one that does not verify. Each fault is told by
//! its name, with what to do, and is no outage.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use forebay::backoff::Backoff;
use forebay::connections::Connections;
use forebay::output::{CountedOutput, Delivery, HttpOutputConfig};
use forebay::reference;
use forebay::score::azureml::AzureMl;
use forebay::score::{Chunk, EndpointSignature, Outcome, ScoreConfig, Scorer, State};
use forebay::time::Clock;
use forebay::tls::TlsFiles;
use forebay::value::Value;
use reqwest::Url;
use tempfile::TempDir;

use super::http::section;
use super::{AUTHORITY, EC, alarm, connects};
use crate::harness::write;
use crate::support::{Mosquitto, openssl, wait_until, within};
use crate::webhook::{IDS, rows};

const SCRIPT: &str = r#"
import http.server, json, ssl, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        data = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(json.dumps([1.0 for row in data["data"]] if "data" in data else {}).encode())
    def do_GET(self):
        self.answer(b'[{"id": 1, "name": "north"}]')
    def log_message(self, *args): pass
class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *args): pass
server = Server(("127.0.0.1", 0), Answer)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1] + ".pem", sys.argv[1] + ".key")
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

/// Certificates of servers of every kind: one good one, and the faults.
fn fill(folder: &Path) {
    for name in ["ca", "stranger"] {
        openssl(folder, &format!("req -x509 {EC} -keyout {name}.key -out {name}.pem -days 30 -subj /CN={name}"));
    }
    let names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
    write(folder, "names", &format!("basicConstraints=CA:FALSE\n{names}\n"));
    write(folder, "other", "basicConstraints=CA:FALSE\nsubjectAltName=DNS:other.example\n");
    write(folder, "none", "basicConstraints=CA:FALSE\n");
    for (name, ca, extensions) in [
        ("good", "ca", "names"),
        ("unknown", "stranger", "names"),
        ("elsewhere", "ca", "other"),
        ("nameless", "ca", "none"),
    ] {
        openssl(folder, &format!("req {EC} -keyout {name}.key -out {name}.csr -subj /CN=127.0.0.1"));
        openssl(
            folder,
            &format!(
                "x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial -out {name}.pem -days 30 \
                 -extfile {extensions}"
            ),
        );
    }
    // what `openssl req -x509` makes is an authority; some make it a leaf
    for (name, basic) in [("itself", "CA:TRUE"), ("itself_leaf", "CA:FALSE")] {
        openssl(
            folder,
            &format!(
                "req -x509 {EC} -keyout {name}.key -out {name}.pem -days 30 -subj /CN={name} -addext {names} -addext \
                 basicConstraints=critical,{basic}"
            ),
        );
    }
    openssl(
        folder,
        &format!(
            "req -x509 {EC} -keyout itself_elsewhere.key -out itself_elsewhere.pem -days 30 -subj /CN=127.0.0.1 \
             -addext subjectAltName=DNS:other.example"
        ),
    );
    write(folder, "index", "");
    write(folder, "serial", "1000\n");
    write(folder, "authority", &AUTHORITY.replace("CA:FALSE\n", &format!("CA:FALSE\n{names}\n")));
    for (name, from, to) in
        [("past", "20200101000000Z", "20200201000000Z"), ("future", "20900101000000Z", "20910101000000Z")]
    {
        openssl(folder, &format!("req {EC} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        openssl(
            folder,
            &format!(
                "ca -batch -config authority -cert ca.pem -keyfile ca.key -startdate {from} -enddate {to} -notext -in \
                 {name}.csr -out {name}.pem"
            ),
        );
    }
    // out of date, and signed by itself
    openssl(
        folder,
        &format!("req {EC} -keyout itself_past.key -out itself_past.csr -subj /CN=itself_past -addext {names}"),
    );
    openssl(
        folder,
        "ca -batch -selfsign -config authority -keyfile itself_past.key -startdate 20200101000000Z -enddate \
         20200201000000Z -notext -in itself_past.csr -out itself_past.pem",
    );
}

/// What each certificate leads to: the reason of the pause, and words of the error.
const FAULTS: [(&str, &str, &[&str]); 9] = [
    (
        "past",
        "certificate expired",
        &["expired at 2020-02-01T00:00:00Z, and the clock of this machine says 20", "correct it"],
    ),
    (
        "future",
        "certificate not valid yet",
        &["not valid before 2090-01-01T00:00:00Z, and the clock of this machine says 20"],
    ),
    ("elsewhere", "certificate for another name", &["is not for 127.0.0.1: it has", "other.example"]),
    ("nameless", "certificate for another name", &["no name in `subjectAltName`, which alone counts"]),
    ("unknown", "certificate of an unknown authority", &["set `ca_file` to the certificate of the authority"]),
    ("itself", "certificate signed by itself", &["set `ca_file` to this very certificate"]),
    ("itself_leaf", "certificate signed by itself", &["set `ca_file` to this very certificate"]),
    ("itself_elsewhere", "certificate signed by itself", &["is signed by itself"]),
    ("itself_past", "certificate expired", &["expired at 2020-02-01T00:00:00Z"]),
];

/// Python's server; it ends with this.
struct Server {
    port: u16,
    child: Child,
}

impl Server {
    fn start(folder: &Path, certificate: &str) -> Server {
        let mut child = Command::new("python3")
            .args(["-c", SCRIPT, certificate])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next().expect("a port").unwrap().parse().unwrap();
        Server { port, child }
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}/score", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    folder
}

fn trusting(folder: &Path, ca: &str) -> TlsFiles {
    TlsFiles { ca_file: Some(folder.join(format!("{ca}.pem"))), ..TlsFiles::default() }
}

fn config(server: &Server, tls: TlsFiles) -> ScoreConfig {
    let mut config = ScoreConfig::new("score", Url::parse(&server.url()).unwrap(), Arc::new(AzureMl::default()));
    config.tls = tls;
    config.timing.pauses.backoff = Backoff { base: Duration::from_millis(20), cap: Duration::from_millis(200) };
    config.timing.pauses.slow_probe = Duration::from_millis(50);
    config
}

fn start(config: ScoreConfig) -> Scorer {
    Scorer::start(config, &tokio::runtime::Handle::current()).unwrap()
}

fn typed(config: ScoreConfig) -> ScoreConfig {
    ScoreConfig { signature: Some(EndpointSignature::untyped()), ..config }
}

fn chunk() -> Chunk {
    Chunk::new(0, vec![Value::array(vec![Value::Float(1.0)])])
}

#[tokio::test]
async fn a_certificate_that_does_not_verify_is_a_pause_with_its_remedy() {
    let folder = folder();
    for (name, reason, words) in FAULTS {
        let server = Server::start(folder.path(), name);
        let scorer = start(typed(config(&server, trusting(folder.path(), "ca"))));
        let _ticket = within("room for a row", scorer.submit(chunk())).await.unwrap();
        wait_until(&format!("{name} pauses, {:?}", scorer.status().state()), || {
            matches!(scorer.status().state(), State::Paused { .. } | State::BackingOff { .. })
        })
        .await;
        let State::Paused { reason: told, remedy, .. } = scorer.status().state() else {
            panic!("{name} is called an outage: {:?}", scorer.status().last_error())
        };
        assert_eq!(told, reason, "{name}");
        let error = scorer.status().last_error().unwrap();
        for word in words {
            assert!(error.contains(word), "{name}: {error}");
        }
        assert!(error.ends_with(remedy.as_str()), "{name}: {error}");

        // the description is asked for first, where nobody wrote a signature
        let asking = start(config(&server, trusting(folder.path(), "ca")));
        let _ticket = within("room for a row", asking.submit(chunk())).await.unwrap();
        wait_until("the description", || asking.status().last_error().is_some()).await;
        let error = asking.status().last_error().unwrap();
        assert!(
            error.starts_with("signature: its certificate") && words.iter().all(|word| error.contains(word)),
            "{error}"
        );
    }
}

#[tokio::test]
async fn outputs_and_reference_data_name_the_fault_too() {
    let folder = folder();
    for (name, _, words) in FAULTS {
        let server = Server::start(folder.path(), name);
        let keys = format!("url = \"{}\"\nca_file = \"ca.pem\"\n", server.url());
        let refused = section(folder.path(), &keys, reference::read).unwrap();
        let refused = reference::load_once(&refused).await.unwrap_err();
        assert!(words.iter().all(|word| refused.contains(word)), "{name}: {refused}");
        let settings = section(folder.path(), &keys, HttpOutputConfig::read).unwrap();
        let client_id = |_: &str| Err("it has no client id".into());
        let connections = Connections::default();
        let mut output = CountedOutput::build(&settings, "job", &|_| client_id(""), &connections, Clock::Real).unwrap();
        let Delivery::TryAgain { reason, .. } = within("an attempt", output.deliver(&rows([1]), IDS)).await else {
            panic!("{name} is trusted")
        };
        assert!(words.iter().all(|word| reason.contains(word)), "{name}: {reason}");
    }
}

#[tokio::test]
async fn a_certificate_is_trusted_as_its_own_ca_file_where_name_and_dates_are_right() {
    let folder = folder();
    for (name, ca, words) in [
        ("good", "ca", None),
        ("itself", "itself", None),
        ("itself_leaf", "itself_leaf", None),
        // one of an authority that is not named
        ("unknown", "unknown", None),
        ("itself_elsewhere", "itself_elsewhere", Some("is not for 127.0.0.1")),
        ("itself_past", "itself_past", Some("expired at 2020-02-01T00:00:00Z")),
        // the same name and another key
        ("itself", "itself_leaf", Some("is signed by itself")),
        ("good", "unknown", Some("an authority that is not trusted here")),
    ] {
        let server = Server::start(folder.path(), name);
        let scorer = start(typed(config(&server, trusting(folder.path(), ca))));
        let ticket = within("room for a row", scorer.submit(chunk())).await.unwrap();
        match words {
            None => {
                let outcomes = within(&format!("{name} by {ca}"), ticket.outcomes()).await.unwrap();
                assert_eq!(outcomes, [Outcome::Scored(Value::Float(1.0))]);
            }
            Some(words) => {
                wait_until(name, || scorer.status().last_error().is_some()).await;
                let error = scorer.status().last_error().unwrap();
                assert!(error.contains(words), "{name} by {ca}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn a_broker_is_judged_in_the_same_way() {
    let source = tempfile::tempdir().unwrap();
    fill(source.path());
    for (name, _, words) in FAULTS {
        let lines = format!("allow_anonymous true\ncertfile {{}}/{name}.pem\nkeyfile {{}}/{name}.key\n");
        let broker = Mosquitto::start_with(&lines, |folder| {
            for entry in fs::read_dir(source.path()).unwrap().map(Result::unwrap) {
                fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
            }
        });
        let told = alarm(&broker, trusting(broker.folder(), "ca"), None).await;
        assert!(words.iter().all(|word| told.contains(word)), "{name}: {told}");
        if name == "itself" {
            connects(&broker, trusting(broker.folder(), name), None).await;
        }
    }
}

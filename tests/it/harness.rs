//! A running `forebay` as a person would run it: the binary, a job file, its log and its metrics port.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The binary under test.
pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_forebay")
}

/// Long enough for the slowest machine; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Polls until `done` answers something.
///
/// # Panics
/// After [`PATIENCE`], with what was waited for.
pub fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A path of this repository.
pub fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// An example function, built by `make udfs`.
pub fn component(name: &str) -> PathBuf {
    let path = root(&format!("udfs/target/components/{name}.wasm"));
    assert!(path.exists(), "{} is missing: run `make udfs`", path.display());
    path
}

/// A `forebay run` process.
pub struct Forebay {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    metrics: SocketAddr,
}

impl Forebay {
    /// Starts the job and waits until its inputs are subscribed: from then on the broker keeps messages for it.
    pub fn run(job: &Path) -> Forebay {
        let forebay = Forebay::start(job);
        until("the subscription", || (forebay.metric("forebay_source_connected") >= 1.0).then_some(()));
        forebay
    }

    /// Starts the job and waits until its metrics port answers.
    pub fn start(job: &Path) -> Forebay {
        let mut child = Command::new(binary())
            .arg("run")
            .arg(job)
            .env("FOREBAY_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = child.stderr.take().expect("stderr is piped");
        let sink = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                sink.lock().expect("the log").push(line);
            }
        });
        let metrics = until("the metrics port in the log", || {
            let lines = log.lock().expect("the log");
            if let Ok(Some(status)) = child.try_wait() {
                panic!("forebay ended with {status}:\n{}", lines.join("\n"));
            }
            lines.iter().find_map(|l| l.split("metrics on http://").nth(1)?.split('/').next()?.trim().parse().ok())
        });
        Forebay { child, log, metrics }
    }

    pub fn log(&self) -> String {
        self.log.lock().expect("the log").join("\n")
    }

    /// All metrics, by `name{labels}`.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let text = http(self.metrics, "GET", "/metrics", "").1;
        text.lines()
            .filter(|l| !l.starts_with('#'))
            .filter_map(|l| l.rsplit_once(' '))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect()
    }

    /// The sum of all metrics whose name begins so.
    pub fn metric(&self, prefix: &str) -> f64 {
        self.metrics().iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, v)| v).sum()
    }

    /// Status code and body of a path of the metrics port.
    pub fn get(&self, path: &str) -> (u16, String) {
        http(self.metrics, "GET", path, "")
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("a status").is_none()
    }

    /// Sends it a signal, such as `-HUP`.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(signal).arg(self.child.id().to_string()).status().expect("kill");
        assert!(status.success());
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("a status");
    }

    /// Asks it to stop and waits for its end.
    pub fn stop(mut self) -> ExitStatus {
        let status = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status().expect("kill");
        assert!(status.success());
        let log = self.log.clone();
        until("the end after SIGTERM", || {
            self.child
                .try_wait()
                .expect("a status")
                .inspect(|s| assert!(s.success(), "{s}\n{}", log.lock().expect("the log").join("\n")))
        })
    }
}

impl Drop for Forebay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One HTTP request on a connection of its own: status and body.
pub fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("the port answers");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: \
        application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("a request");
    stream.write_all(body.as_bytes()).expect("a body");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    (status, if chunked { unchunk(body) } else { body.to_owned() })
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}

/// Writes a file below `dir` and answers its path.
pub fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("a file is written");
    path
}

/// Runs the binary to its end: exit code, standard output, standard error.
pub fn cli(dir: &Path, args: &[&str]) -> (i32, String, String) {
    cli_in(dir, &[], args)
}

/// The same with variables in its environment.
pub fn cli_in(dir: &Path, environment: &[(&str, &str)], args: &[&str]) -> (i32, String, String) {
    let output = Command::new(binary())
        .args(args)
        .env_remove("FOREBAY_LOG")
        .envs(environment.iter().copied())
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

//! The processes around a measurement: mosquitto, and `forebay run`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A measurement that waits this long for one thing has failed.
const PATIENCE: Duration = Duration::from_secs(600);

/// Polls until `done` answers something.
pub fn until<T>(what: &str, every: Duration, mut done: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(every);
    }
}

/// The example function that builds the input array of the embedded endpoint.
pub fn create_array() -> PathBuf {
    let component = Path::new(env!("CARGO_MANIFEST_DIR")).join("udfs/target/components/create_array.wasm");
    assert!(component.exists(), "{} is missing: `make bench` builds it", component.display());
    component
}

/// How many messages mosquitto lets be on their way to or from a client at once, unless told otherwise.
pub const IN_FLIGHT: u16 = 20;

/// Debian's broker with queues that hold everything, in memory.
pub struct Mosquitto {
    pub port: u16,
    child: Child,
}

impl Mosquitto {
    /// Any number of messages may be on their way at once.
    pub fn start(folder: &Path) -> Mosquitto {
        Mosquitto::with_in_flight(folder, 0)
    }

    /// So many messages may be on their way to or from a client at once; 0: any number.
    pub fn with_in_flight(folder: &Path, messages: u16) -> Mosquitto {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages \
            0\nmax_inflight_messages {messages}\nlog_dest none\n"
        );
        let path = folder.join("mosquitto.conf");
        fs::write(&path, config).unwrap();
        let program = if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" };
        let mut command = Command::new(program);
        command.arg("-c").arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("mosquitto is installed (apt-get install mosquitto)");
        until("the broker", Duration::from_millis(5), || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
        Mosquitto { port, child }
    }

    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A `forebay run` process.
pub struct Forebay {
    child: Child,
    metrics: SocketAddr,
}

impl Forebay {
    /// Returns when it has begun to connect: the line about the metrics port is the last one of a start.
    pub fn start(job: &Path, cache: &Path) -> Forebay {
        Forebay::of(Path::new(env!("CARGO_BIN_EXE_forebay")), job, cache)
    }

    /// As [`Forebay::start`], of this program.
    pub fn of(program: &Path, job: &Path, cache: &Path) -> Forebay {
        let mut command = Command::new(program);
        command.arg("run").arg(job).env("FOREBAY_LOG", "info").env("XDG_CACHE_HOME", cache);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = |line: &str| line.split("metrics on http://").nth(1)?.split('/').next()?.parse().ok();
        let mut log = String::new();
        let metrics = loop {
            let Some(Ok(line)) = lines.next() else { panic!("forebay did not start:\n{log}") };
            if let Some(found) = address(&line) {
                break found;
            }
            log = log + &line + "\n";
        };
        // whatever it has to say later is for the person who looks
        std::thread::spawn(move || {
            lines.map_while(Result::ok).filter(|l| !l.contains(" INFO ")).for_each(|l| eprintln!("{l}"))
        });
        Forebay { child, metrics }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The sum of all metrics whose name begins so.
    pub fn metric(&self, prefix: &str) -> f64 {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.lines()
            .filter(|l| l.starts_with(prefix))
            .filter_map(|l| l.rsplit_once(' ')?.1.trim().parse::<f64>().ok())
            .sum()
    }

    /// Asks it to stop and waits for its end.
    pub fn stop(mut self) {
        Command::new("kill").arg("-TERM").arg(self.pid().to_string()).status().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Forebay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

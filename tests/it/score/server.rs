//! Microsoft's inference server under a score script of `tests/aml-server`; it ends with the test process.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

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

    pub fn call(&self, request: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// A scoring call without any of the code under test; the JSON of the answer.
    pub fn direct(&self, body: &str) -> String {
        let head =
            format!("POST /score HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        let answer = self.call(&format!("{head}{body}")).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_string()
    }

    pub fn url(&self, query: &str) -> String {
        format!("http://127.0.0.1:{}/score{query}", self.port)
    }
}

/// One server a kind, shared by the tests. `rough` is a second faulty one: it hangs and dies.
pub fn server(kind: &'static str) -> &'static Server {
    pub static SERVERS: [(&str, OnceLock<Server>); 8] = [
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

pub async fn ready(kind: &'static str) -> &'static Server {
    tokio::task::spawn_blocking(move || server(kind)).await.unwrap()
}

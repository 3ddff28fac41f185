//! `forebay demo` as a newcomer runs it: the binary with its embedded broker and endpoint, or with mosquitto.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::harness::{binary, cli, component, root, until};
use crate::support::{Mosquitto, free_port};

/// The number at the end of the line that begins so.
fn count(out: &str, begins: &str) -> u64 {
    let line = out
        .lines()
        .find(|l| l.trim_start().starts_with(begins))
        .unwrap_or_else(|| panic!("a line {begins:?} in\n{out}"));
    let digits: String = line.rsplit(' ').next().expect("a word").chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("a number in {line:?}"))
}

fn demo(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let create_array = component("create_array");
    let all: Vec<&str> = ["demo", "--component", create_array.to_str().expect("a path")]
        .into_iter()
        .chain(args.iter().copied())
        .collect();
    cli(dir, &all)
}

/// What every good run says; answers how many rides there were.
fn assert_good(code: i32, out: &str, err: &str) -> u64 {
    assert_eq!((code, err), (0, ""), "{out}");
    let rides = count(out, "rides the broker acknowledged to the fleet");
    assert_eq!(count(out, "distinct rides the receiver saw"), rides, "{out}");
    assert_eq!(count(out, "missing"), 0, "{out}");
    assert!(out.contains("nothing is missing"), "{out}");
    assert!(out.contains(&format!("input rides: received {}", grouped(rides))), "the ledger is shown:\n{out}");
    assert!(out.contains("all checksums and all equations hold"), "{out}");
    rides
}

fn grouped(n: u64) -> String {
    if n < 1000 { n.to_string() } else { format!("{},{:03}", n / 1000, n % 1000) }
}

#[test]
fn everything_arrives_although_the_endpoint_is_away_in_the_middle() {
    let dir = tempfile::tempdir().expect("a folder");
    let (code, out, err) = demo(dir.path(), &["--seconds", "6", "--rate", "200", "--dir", "here"]);
    assert_eq!(assert_good(code, &out, &err), 1200, "{out}");
    let at = |text: &str| out.find(text).unwrap_or_else(|| panic!("{text:?} in\n{out}"));
    assert!(at("the endpoint goes away;") < at("DOWN") && at("DOWN") < at("the endpoint is back;"), "{out}");
    assert!(dir.path().join("here/taxi.db").exists() && dir.path().join("here/job.toml").exists());

    let (code, _, err) = demo(dir.path(), &["--dir", "here"]);
    assert_eq!(code, 2);
    assert!(
        err.starts_with("error: --dir: ") && err.contains("holds a job.toml already; give an empty or a new folder"),
        "{err}"
    );
}

#[test]
fn a_real_broker_takes_the_embedded_ones_place() {
    let dir = tempfile::tempdir().expect("a folder");
    let broker = Mosquitto::start();
    let (code, out, err) = demo(dir.path(), &["--seconds", "3", "--rate", "100", "--broker", &broker.url()]);
    assert_eq!(assert_good(code, &out, &err), 300);
    assert!(out.contains(&format!("{}, yours", broker.url())), "{out}");
}

#[test]
fn a_missing_component_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().expect("a folder");
    let (code, out, err) = cli(dir.path(), &["demo", "--component", "/nonexistent"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert_eq!(err, "error: there is no component at /nonexistent: run `make udfs` or give --component PATH\n");
}

#[test]
fn peers_that_do_not_answer_are_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let dead = free_port();
    let (code, out, err) = demo(dir.path(), &["--broker", &format!("mqtt://127.0.0.1:{dead}")]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.starts_with(&format!("error: the broker mqtt://127.0.0.1:{dead} does not answer: Connection refused")),
        "{err}"
    );
    assert!(err.contains("leave out --broker"), "{err}");

    let (code, _, err) = demo(dir.path(), &["--endpoint", &format!("http://127.0.0.1:{dead}/score")]);
    assert_eq!(code, 1);
    assert!(
        err.starts_with(&format!(
            "error: the endpoint http://127.0.0.1:{dead}/score does not answer: Connection refused"
        )),
        "{err}"
    );

    // takes connections and says nothing
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let url = format!("mqtt://{}", silent.local_addr().expect("an address"));
    let (code, _, err) = demo(dir.path(), &["--broker", &url]);
    assert_eq!(code, 1);
    assert!(err.contains(&format!("the broker {url} takes connections but confirmed no subscription")), "{err}");
}

/// A demo that runs on, and the lines that it printed so far.
struct Running {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
    seen: String,
}

impl Running {
    fn start(dir: &Path, args: &[&str]) -> Running {
        let mut child = Command::new(binary())
            .args(["demo", "--component"])
            .arg(root("udfs/target/components/create_array.wasm"))
            .args(args)
            .current_dir(dir)
            .env_remove("FOREBAY_LOG")
            .env("TMPDIR", dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let (send, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        Running { child, lines, seen: String::new() }
    }

    fn read(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            self.seen += &line;
            self.seen.push('\n');
        }
    }

    fn wait_for(&mut self, text: &str) {
        until(&format!("{text:?} from the demo"), || {
            self.read();
            self.seen.contains(text).then_some(())
        });
    }

    /// Interrupts it as Ctrl-C does; its exit code and everything it printed.
    fn interrupt(mut self) -> (Option<i32>, String) {
        let status = Command::new("kill").arg("-INT").arg(self.child.id().to_string()).status().expect("kill");
        assert!(status.success());
        let status = until("the end after Ctrl-C", || self.child.try_wait().expect("a status"));
        until("the last lines", || match self.lines.try_recv() {
            Ok(line) => {
                self.seen += &line;
                self.seen.push('\n');
                None
            }
            Err(std::sync::mpsc::TryRecvError::Empty) => None,
            Err(std::sync::mpsc::TryRecvError::Disconnected) => Some(()),
        });
        (status.code(), std::mem::take(&mut self.seen))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn leftovers(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir)
        .expect("the folder")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn ctrl_c_in_the_outage_stops_it_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut demo = Running::start(dir.path(), &["--seconds", "30", "--rate", "50"]);
    demo.wait_for("the endpoint goes away;");
    let (code, out) = demo.interrupt();
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("\nstopped: ") && !out.contains("\nresult"), "{out}");
    assert_eq!(leftovers(dir.path()), Vec::<String>::new());
}

#[test]
fn kept_it_goes_on_after_the_result_until_ctrl_c() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut demo = Running::start(dir.path(), &["--seconds", "3", "--rate", "100", "--keep"]);
    demo.wait_for("journal status --job ");
    let job = demo.seen.lines().find_map(|l| l.split_once("journal status --job ")).expect("the hint").1.to_owned();
    let (code, out, err) = cli(dir.path(), &["journal", "status", "--job", &job]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("input rides: received "), "{out}");
    let (code, out) = demo.interrupt();
    assert_eq!(assert_good(code.unwrap_or(-1), &out, ""), 300);
    assert!(Path::new(&job).exists(), "the pool stays:\n{out}");
}

//! Standard output and standard error that are closed or full: no command panics, and what is lost is an exit code.

use std::fs::{self, File};
use std::io::{PipeReader, Write};
use std::process::{Child, Command, Stdio};

use super::{CHECK, Taxi};
use crate::harness::{binary, component, http, until};
use crate::support::free_port;

/// Commands that answer on standard output, in a folder with a job, and how each ends.
fn answers(place: &Taxi) -> Vec<(Vec<&'static str>, i32)> {
    place.write("case.json", "{}");
    fs::copy(component("create_array"), place.path().join("other.wasm")).unwrap();
    vec![
        (CHECK.to_vec(), 0),
        (vec!["udf", "inspect", "other.wasm"], 0),
        (vec!["udf", "call", "create_array.wasm", "createArray", "2", "Monday", "17", "1", "8.5"], 0),
        (vec!["eval", "SELECT v FROM gw", "--input", "gw=gw.json"], 0),
        (vec!["test", "case.json"], 1),
        (vec!["test", "case.json", "--json"], 1),
        (vec!["test", "case.json", "--conformance"], 0),
        (vec!["--help"], 0),
        (vec!["run", "--help"], 0),
        (vec!["--version"], 0),
    ]
}

/// A pipe whose reader is gone.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn a_closed_output_ends_a_command_quietly_and_a_full_one_is_a_failure() {
    let place = Taxi::new();
    place.write("gw.json", "[{\"v\":1}]");
    for (args, code) in answers(&place) {
        let run = |out: Stdio| {
            let mut command = Command::new(binary());
            command.args(&args).current_dir(place.path()).env("AML_KEY", "secret").stdout(out);
            let command = command.output().unwrap();
            (command.status.code(), String::from_utf8(command.stderr).unwrap())
        };
        assert_eq!(run(closed()), (Some(code), String::new()), "{args:?}");
        let (ended, told) = run(full());
        assert_eq!(ended, Some(1), "{args:?}");
        assert!(told.contains("standard output") && told.contains("No space left"), "{args:?}: {told}");
    }
}

#[test]
fn a_standard_error_that_takes_nothing_changes_no_exit_code() {
    let place = Taxi::new();
    let commands: [&[&str]; 5] = [
        &["check", "missing.toml"],
        &["chek"],
        &["journal", "status", "--job", "taxi.toml"],
        &["eval", "SELECT", "--input", "gw=gw.json"],
        &["udf", "inspect", "taxi.toml"],
    ];
    for args in commands {
        let ended = |err: Stdio| {
            let mut command = Command::new(binary());
            command.args(args).current_dir(place.path()).stdout(Stdio::null()).stderr(err).status().unwrap().code()
        };
        let usual = ended(Stdio::null());
        assert_eq!((ended(closed()), ended(full())), (usual, usual), "{args:?}");
    }
}

/// A process that ends with its test, however that ends.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A pipe that is full, and whose reader is there and does not read.
fn stuck() -> (PipeReader, Stdio) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut filling = writer.try_clone().unwrap();
    // as much as Linux gives one
    filling.write_all(&[b'.'; 1 << 16]).unwrap();
    (reader, writer.into())
}

#[test]
fn a_job_whose_log_nobody_reads_runs_on_and_says_so() {
    runs_on(closed());
    let (_reader, stuck) = stuck();
    runs_on(stuck);
}

fn runs_on(log: Stdio) {
    let place = Taxi::new();
    let address = format!("127.0.0.1:{}", free_port());
    place.job("127.0.0.1:0", &address);
    let mut job = Command::new(binary());
    job.args(["run", "taxi.toml"]).current_dir(place.path()).env("AML_KEY", "secret").stdout(Stdio::null()).stderr(log);
    let mut job = Ended(job.spawn().unwrap());
    let address = address.parse().unwrap();
    // the broker is away, which the log would tell
    let told = until("the lines that are lost", || {
        assert!(job.0.try_wait().unwrap().is_none(), "the job ended");
        std::net::TcpStream::connect(address).ok()?;
        let told = http(address, "GET", "/readyz", "").1;
        told.contains("broker").then_some(told).filter(|told| told.contains("lines of the log are lost"))
    });
    let metrics = http(address, "GET", "/metrics", "").1;
    let lost = metrics.lines().find(|line| line.starts_with("forebay_log_lines_lost_total"));
    let lost = lost.and_then(|line| line.rsplit(' ').next()).unwrap_or("none");
    assert!(lost.parse::<f64>().unwrap() >= 2.0, "{lost}: {told}");
}

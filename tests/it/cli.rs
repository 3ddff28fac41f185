//! The commands as a person runs them: what they print, whole, and their exit codes.
//!
//! Everything happens in a folder of its own with relative paths, so the messages are the same on every machine.

#[path = "cli/arguments.rs"]
mod arguments;
#[path = "cli/checks.rs"]
mod checks;
#[path = "cli/components.rs"]
mod components;
#[path = "cli/files.rs"]
mod files;
#[path = "cli/job_files.rs"]
mod job_files;
#[path = "cli/late.rs"]
mod late;
#[path = "cli/queries.rs"]
mod queries;
#[path = "cli/records.rs"]
mod records;
#[path = "cli/streams.rs"]
mod streams;

use std::fs;
use std::ops::Deref;

use expect_test::{Expect, expect};

use crate::harness::{cli_in, root, write};
use crate::place::Place;
use crate::support::Mosquitto;

const JOB: &str = r#"[job]
name = "taxi"
query = "taxi.asaql"

[metrics]
listen = "127.0.0.1:0"

[inputs.rides]
type = "mqtt"
url = "mqtt://127.0.0.1:1"
topics = ["taxi/+/rides"]

[functions.createArray]
type = "wasm"
component = "create_array.wasm"

[functions.score]
type = "azureml"
url = "http://127.0.0.1:5001/score"
key = "env:AML_KEY"

[outputs.scored]
type = "file"
path = "scored.jsonl"
"#;

const QUERY: &str = "SELECT udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS \
    fare\nINTO scored\nFROM rides\n";

const CHECK: [&str; 3] = ["check", "--offline", "taxi.toml"];

/// The job at a broker that is there, without the key of its endpoint.
fn job_at(broker: &Mosquitto) -> String {
    JOB.replace("mqtt://127.0.0.1:1\"", &format!("{}\"", broker.url())).replace("key = \"env:AML_KEY\"\n", "")
}

/// A folder with a good job in it.
struct Taxi(Place);

impl Taxi {
    fn new() -> Taxi {
        let place = Place::new(&[("AML_KEY", "secret")]);
        place.write("taxi.toml", JOB).write("taxi.asaql", QUERY).with("create_array");
        Taxi(place)
    }

    /// The job with one change.
    fn job(&self, from: &str, to: &str) {
        assert!(JOB.contains(from), "{from}");
        self.write("taxi.toml", JOB.replacen(from, to, 1));
    }

    fn check(&self, wanted: &Expect) {
        self.expect(&CHECK, wanted);
    }

    /// Checks the job with each content of one of its files.
    fn check_contents<T: AsRef<[u8]>>(&self, file: &str, cases: impl IntoIterator<Item = (T, Expect)>) {
        self.expect_of_contents(file, &CHECK, cases);
    }
}

impl Deref for Taxi {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.0
    }
}

#[test]
fn a_function_is_called_by_hand() {
    let place = Taxi::new();
    place.expect(
        &["udf", "call", "create_array.wasm", "createArray", "2", "Monday", "17", "1", "8.5"],
        &expect![[r#"
        exit 0
        ["2","Monday","17","1","8.5"]
    "#]],
    );
}

#[test]
fn a_query_over_a_file_with_the_functions_of_a_job() {
    let place = Taxi::new();
    let ride = |vendor: i64| {
        format!("{{\"vendorid\":{vendor},\"weekday\":\"Monday\",\"pickuphour\":17,\"passenger\":1,\"distance\":8.5}}\n")
    };
    place.write("rides.jsonl", ride(1) + &ride(2));
    place.write("list.asaql", QUERY.replace("udf.score(udf.createArray", "(udf.create_array"));
    place.expect(
        &["eval", "list.asaql", "--job", "taxi.toml", "--input", "rides=rides.jsonl"],
        &expect![[r#"
        exit 0
        {"output":"scored","row":{"fare":["1","Monday","17","1","8.5"]}}
        {"output":"scored","row":{"fare":["2","Monday","17","1","8.5"]}}
    "#]],
    );
    place.expect(
        &["eval", "SELECT vendorid INTO o FROM rides WHERE vendorid > 1", "--input", "rides=rides.jsonl"],
        &expect![[r#"
        exit 0
        {"output":"o","row":{"vendorid":2}}
    "#]],
    );
    // what is wrong with the job is drawn at its place
    place.write("create_array.wasm", "no code");
    place.expect(
        &["eval", "list.asaql", "--job", "taxi.toml", "--input", "rides=rides.jsonl"],
        &expect![[r#"
        exit 2
        error: create_array.wasm is no WebAssembly; a function is a component file (.wasm)
           --> taxi.toml:13:12
            |
         13 | [functions.createArray]
            |            ^^^^^^^^^^^ this function cannot be used
    "#]],
    );
}

#[test]
fn every_example_is_valid() {
    let mut found = 0;
    for folder in fs::read_dir(root("examples")).unwrap().map(|e| e.unwrap().path()) {
        let job = folder.join("job.toml");
        let (code, out, err) = cli_in(&root(""), &[], &["check", "--offline", job.to_str().unwrap()]);
        assert_eq!((code, err.as_str()), (0, ""), "{}:\n{out}{err}", job.display());
        assert!(out.ends_with("\nthe job is valid\n"), "{out}");
        found += 1;
    }
    assert!(found >= 3, "{found} examples");
}

#[test]
fn the_window_example_runs_over_a_file() {
    let place = Taxi::new();
    let rides = [(1, 2, 3.5, "10:00:01"), (1, 1, 1.5, "10:00:59"), (2, 1, 9.0, "10:01:30")];
    let lines = rides.map(|(vendor, passenger, distance, at)| {
        format!(
            "{{\"vendorid\":{vendor},\"passenger\":{passenger},\"distance\":{distance},\"at\":\"2026-05-01T{at}Z\"}}\n"
        )
    });
    let file = write(place.path(), "rides.jsonl", &lines.concat());
    let query = root("examples/windows/windows.asaql");
    place.expect(
        &["eval", query.to_str().unwrap(), "--input", &format!("rides={}", file.display())],
        &expect![[r#"
        exit 0
        {"output":"minutes","row":{"vendorid":1,"minute":"2026-05-01T10:01:00.0000000Z","rides":2,"passengers":3,"distance":2.5}}
        {"output":"minutes","row":{"vendorid":2,"minute":"2026-05-01T10:02:00.0000000Z","rides":1,"passengers":1,"distance":9.0}}
    "#]],
    );
}

//! The commands as a person runs them: what they print, whole, and their exit codes.
//!
//! Everything happens in a folder of its own with relative paths, so the messages are the same on every machine.

use std::fs;
use std::net::TcpListener;
use std::ops::Deref;

use expect_test::{Expect, expect};
use forebay::demo::endpoint::Endpoint;

use crate::harness::{Forebay, cli_in, root, until, write};
use crate::place::Place;
use crate::support::{Message, Mosquitto, publish};

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

const QUERY: &str = "SELECT udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare\nINTO scored\nFROM rides\n";

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
        self.expect(&["check", "--offline", "taxi.toml"], wanted);
    }
}

impl Deref for Taxi {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.0
    }
}

#[test]
fn bad_job_files() {
    let place = Taxi::new();
    let cases = [
        (
            "",
            expect![[r#"
            exit 2
            error: the section `[job]` is missing
              --> taxi.toml
               = help: start the file with `[job]`

            error: the job has no input
              --> taxi.toml
               = help: add a section `[inputs.NAME]`

            error: the job has no output
              --> taxi.toml
               = help: add a section `[outputs.NAME]`

            3 errors
        "#]],
        ),
        (
            "job = \"taxi\"",
            expect![[r#"
            exit 2
            error: the job has no input
              --> taxi.toml
               = help: add a section `[inputs.NAME]`

            error: the job has no output
              --> taxi.toml
               = help: add a section `[outputs.NAME]`

            error: `job` has the wrong form
              --> taxi.toml:1:7
               |
             1 | job = "taxi"
               |       ^^^^^^ expected a section `[job]`
               = help: settings stand under their section

            3 errors
        "#]],
        ),
        (
            "[job]\nname = taxi\n",
            expect![[r#"
            exit 2
            error: invalid boolean, expected `true`
              --> taxi.toml:2:8
               |
             2 | name = taxi
               |        ^^^^
               = help: the job file is TOML: `key = "text"` under `[section]`
        "#]],
        ),
        (
            &JOB.replace("topics", "topic"),
            expect![[r#"
            exit 2
            error: `[inputs.rides]` needs `topics`
              --> taxi.toml:8:9
               |
             8 | [inputs.rides]
               |         ^^^^^ `topics` is missing
               = help: write `topics = ["taxi/+/rides"]`

            error: unknown key `topic`
               --> taxi.toml:11:1
                |
             11 | topic = ["taxi/+/rides"]
                | ^^^^^ `[inputs.rides]` has no such key
                = help: did you mean `topics`?

            2 errors
        "#]],
        ),
        (
            &JOB.replace("name = \"taxi\"\n", "late_tolerance = 5\n"),
            expect![[r#"
            exit 2
            error: `[job]` needs `name`
              --> taxi.toml:1:2
               |
             1 | [job]
               |  ^^^ `name` is missing
               = help: write `name = "taxi"`

            error: `late_tolerance` has the wrong form
              --> taxi.toml:2:18
               |
             2 | late_tolerance = 5
               |                  ^ expected a duration from "0s" to "20d23h59m59s"
               = help: write it with a unit, like "20ms", "5s" or "7d"; or "forever"; the default is "5s"

            2 errors
        "#]],
        ),
        (
            &JOB.replace("[functions.score]", "[functions.create_array]"),
            expect![[r#"
            exit 2
            error: two functions of the same name
               --> taxi.toml:17:12
                |
             17 | [functions.create_array]
                |            ^^^^^^^^^^^^ a query cannot tell it from `createArray`
                = help: letters and digits have to differ, ignoring letter case
        "#]],
        ),
        (
            &JOB.replace("\"azureml\"", "\"azurml\""),
            expect![[r#"
            exit 2
            error: `type` has the wrong form
               --> taxi.toml:18:8
                |
             18 | type = "azurml"
                |        ^^^^^^^^ expected "wasm" or "azureml"
                = help: did you mean "azureml"?
        "#]],
        ),
    ];
    for (text, wanted) in cases {
        place.write("taxi.toml", text);
        place.check(&wanted);
    }
    place.write("taxi.toml", b"[job]\nname = \"\xff\"\n");
    place.check(&expect![[r#"
        exit 2
        error: the job file cannot be read: stream did not contain valid UTF-8
          --> taxi.toml
           = help: a job file is UTF-8 text
    "#]]);
    place.expect(
        &["check", "other.toml"],
        &expect![[r#"
        exit 2
        error: the job file cannot be read: No such file or directory (os error 2)
          --> other.toml
           = help: check the path and its permissions
    "#]],
    );
    place.expect(
        &["run", "other.toml"],
        &expect![[r#"
        exit 2
        error: the job file cannot be read: No such file or directory (os error 2)
          --> other.toml
           = help: check the path and its permissions
    "#]],
    );
    place.expect(
        &["run", "."],
        &expect![[r#"
        exit 2
        error: the job file cannot be read: Is a directory (os error 21)
          --> .
           = help: name the job file inside it
    "#]],
    );
}

#[test]
fn bad_queries() {
    let place = Taxi::new();
    let cases = [
        (
            "SELECT fare INTO scored FROM ride",
            expect![[r#"
            exit 2
            error: unknown input or step `ride`
              --> taxi.asaql:1:30
               |
             1 | SELECT fare INTO scored FROM ride
               |                              ^^^^ nothing has this name
               = help: did you mean `rides`?
        "#]],
        ),
        (
            "SELECT fare INTO score FROM rides",
            expect![[r#"
            exit 2
            error: unknown output `score`
              --> taxi.asaql:1:18
               |
             1 | SELECT fare INTO score FROM rides
               |                  ^^^^^ not an output of this job
               = help: did you mean `scored`?
        "#]],
        ),
        (
            "SELECT fare, INTO scored FROM rides",
            expect![[r#"
            exit 2
            error: unexpected `INTO`
              --> taxi.asaql:1:14
               |
             1 | SELECT fare, INTO scored FROM rides
               |              ^^^^ expected an expression
               = help: remove the comma before `INTO`
        "#]],
        ),
        (
            "SELECT COUNT(*) AS n INTO scored FROM rides GROUP BY vendorid",
            expect![[r#"
            exit 2
            error: a window must be specified in GROUP BY
              --> taxi.asaql:1:54
               |
             1 | SELECT COUNT(*) AS n INTO scored FROM rides GROUP BY vendorid
               |                                                      ^^^^^^^^ a stream has no end, so a group needs one
               = help: add a window, `TumblingWindow(second, 10)`, or `System.Timestamp()` for rows of one moment
        "#]],
        ),
        (
            "SELECT udf.scor(vendorid) AS fare INTO scored FROM rides",
            expect![[r#"
                exit 2
                error: unknown function `udf.scor`
                  --> taxi.asaql:1:8
                   |
                 1 | SELECT udf.scor(vendorid) AS fare INTO scored FROM rides
                   |        ^^^^^^^^ not a function of this job
                   = help: did you mean `score`?
            "#]],
        ),
        (
            "SELECT udf.createArray(vendorid, weekday) AS list INTO scored FROM rides",
            expect![[r#"
            exit 2
            error: `udf.createArray` takes 5 arguments
              --> taxi.asaql:1:8
               |
             1 | SELECT udf.createArray(vendorid, weekday) AS list INTO scored FROM rides
               |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ 2 given
               = note: the call: udf.createArray(any, any)
               = note: the function: create-array: func(vendorid: string, weekday: string, pickuphour: string, passenger: string, distance: string) -> tuple<string, string, string, string, string>
        "#]],
        ),
        (
            "WITH Ride AS (SELECT vendorid, weekday FROM rides)\nSELECT udf.createArray(vendorid, weekday, 5, 2, Ride) AS list\nINTO scored FROM Ride",
            expect![[r#"
                exit 2
                error: `distance` of `udf.createArray` cannot take this argument
                  --> taxi.asaql:2:49
                   |
                 2 | SELECT udf.createArray(vendorid, weekday, 5, 2, Ride) AS list
                   |                                                 ^^^^ a record never becomes nvarchar(max)
                   = note: the call: udf.createArray(any, any, bigint, bigint, record)
                   = note: the function: create-array: func(vendorid: string, weekday: string, pickuphour: string, passenger: string, distance: string) -> tuple<string, string, string, string, string>
                   = help: `distance` takes nvarchar(max)
            "#]],
        ),
        (
            "SELECT 'open AS a INTO scored FROM rides",
            expect![[r#"
            exit 2
            error: a text is not closed
              --> taxi.asaql:1:8
               |
             1 | SELECT 'open AS a INTO scored FROM rides
               |        ^ opened here
               = help: close it with `'`; a quote inside a text is doubled: `'it''s'`
        "#]],
        ),
        (
            "",
            expect![[r#"
            exit 2
            error: the script has no SELECT
              --> taxi.asaql
               = help: write at least `SELECT * INTO output FROM input`
        "#]],
        ),
    ];
    for (query, wanted) in cases {
        place.write("taxi.asaql", query);
        place.check(&wanted);
        let run = place.answer(&["run", "taxi.toml"]);
        assert_eq!(run, place.answer(&["check", "taxi.toml"]), "run and check say the same");
    }
    // eval takes the query itself
    place.write("rides.jsonl", "{\"fare\":1}\n");
    place.expect(
        &["eval", "SELECT fare FROM ride", "--input", "rides=rides.jsonl"],
        &expect![[r#"
        exit 2
        error: unknown input or step `ride`
          --> command line:1:18
           |
         1 | SELECT fare FROM ride
           |                  ^^^^ nothing has this name
           = help: did you mean `rides`?
    "#]],
    );
    place.expect(
        &["eval", "SELECT 1 / (fare - 1) AS r FROM rides", "--input", "rides=rides.jsonl"],
        &expect![[r#"
            exit 3
            error: division by zero in `/`; guard it with CASE or NULLIF
              --> command line:1:8
               |
             1 | SELECT 1 / (fare - 1) AS r FROM rides
               |        ^^^^^^^^^^^^^^ divide_by_zero
               = note: the event: {"fare":1}
        "#]],
    );
    // functions are those of a job, and an endpoint is not called from files
    place.write("taxi.asaql", QUERY);
    place.expect(
        &["eval", "taxi.asaql", "--input", "rides=rides.jsonl"],
        &expect![[r#"
            exit 2
            error: unknown function `udf.score`
              --> taxi.asaql:1:8
               |
             1 | SELECT udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare
               |        ^^^^^^^^^ not a function of this job
               = help: functions are those of a job file: `[functions.score]`; `forebay eval` takes one with `--job`
        "#]],
    );
    place.write("taxi.asaql", "SELECT udf.score(fare) AS fare INTO scored FROM rides");
    place.expect(
        &["eval", "taxi.asaql", "--input", "rides=rides.jsonl", "--job", "taxi.toml"],
        &expect![[r#"
        exit 2
        error: `score` is an endpoint, and a run over files calls none
          --> taxi.asaql:1:8
           |
         1 | SELECT udf.score(fare) AS fare INTO scored FROM rides
           |        ^^^^^^^^^^^^^^^ not called here
           = help: run the job with `forebay run`, or leave the call out
    "#]],
    );
}

#[test]
fn bad_payloads() {
    let place = Taxi::new();
    let cases: [(&[u8], Expect); 8] = [
        (
            b"vendor 7",
            expect![[r#"
            exit 1
            warning: gw.json: byte 0: not an event, passed over: not valid JSON: expected value at line 1 column 1
            error: `gw`: gw.json holds no JSON object; give a JSON array of objects or one object per line
        "#]],
        ),
        (
            b"42",
            expect![[r#"
            exit 1
            warning: gw.json: byte 0: not an event, passed over: an event must be a JSON object
            error: `gw`: gw.json holds no JSON object; give a JSON array of objects or one object per line
        "#]],
        ),
        (
            b"{\"v\":1}\n{\"v\":2\n{\"v\":3}\n",
            expect![[r#"
            exit 0
            {"output":"o","row":{"v":1}}
            {"output":"o","row":{"v":3}}
            warning: gw.json: byte 8: not an event, passed over: not valid JSON: EOF while parsing an object at line 1 column 6
        "#]],
        ),
        (
            b"[{\"v\":1}, 7, null, {\"v\":2}]",
            expect![[r#"
            exit 0
            {"output":"o","row":{"v":1}}
            {"output":"o","row":{"v":2}}
            warning: gw.json: byte 10: not an event, passed over: an element of the array is not a JSON object
            warning: gw.json: byte 13: not an event, passed over: an element of the array is not a JSON object
        "#]],
        ),
        (
            b"[{\"v\":1}, {\"v\":2}",
            expect![[r#"
            exit 0
            {"output":"o","row":{"v":1}}
            {"output":"o","row":{"v":2}}
            warning: gw.json: byte 17: not an event, passed over: not valid JSON: EOF while parsing a list at line 1 column 17
        "#]],
        ),
        (
            b"{\"v\":1} trailing",
            expect![[r#"
            exit 0
            {"output":"o","row":{"v":1}}
            warning: gw.json: byte 8: not an event, passed over: not valid JSON: expected ident at line 1 column 11
        "#]],
        ),
        (
            b"{\"v\":\"\xff\"}\n{\"v\":1}",
            expect![[r#"
            exit 0
            {"output":"o","row":{"v":1}}
            warning: gw.json: byte 0: not an event, passed over: not valid JSON: invalid unicode code point at line 1 column 7
        "#]],
        ),
        (
            b"{\"v\":NaN}\n{\"v\":1}",
            expect![[r#"
            exit 0
            {"output":"o","row":{"v":1}}
            warning: gw.json: byte 0: not an event, passed over: not valid JSON: expected value at line 1 column 6
        "#]],
        ),
    ];
    for (payload, wanted) in cases {
        place.write("gw.json", payload);
        place.expect(&["eval", "SELECT v INTO o FROM gw", "--input", "gw=gw.json"], &wanted);
    }
    place.write("gw.json", "[".repeat(300) + &"]".repeat(300));
    place.expect(
        &["eval", "SELECT v INTO o FROM gw", "--input", "gw=gw.json"],
        &expect![[r#"
        exit 1
        warning: gw.json: byte 1: not an event, passed over: not valid JSON: recursion limit exceeded at line 1 column 266
        error: `gw`: gw.json holds no JSON object; give a JSON array of objects or one object per line
    "#]],
    );
    place.write("gw.json", "{\"v\":1,\"at\":\"soon\"}");
    place.expect(
        &["eval", "SELECT v INTO o FROM gw", "--input", "gw=gw.json", "--arrival-field", "at"],
        &expect![[r#"
        exit 1
        error: `gw`, event 1: `at` is no time: "soon"; give ISO 8601 text or milliseconds since 1970
    "#]],
    );
}

#[test]
fn bad_payloads_of_a_running_job_are_dead_letters_with_a_reason() {
    let place = Taxi::new();
    let broker = Mosquitto::start();
    let job =
        JOB.replace("mqtt://127.0.0.1:1\"", &format!("{}\"", broker.url())).replace("key = \"env:AML_KEY\"\n", "");
    place.write("taxi.toml", job.replacen("topics =", "empty = \"dead-letter\"\ntopics =", 1));
    place.write("taxi.asaql", "SELECT vendorid INTO scored FROM rides");
    let forebay = Forebay::run(&place.path().join("taxi.toml"));
    until("the source to be connected", || (forebay.metric("forebay_source_connected") == 1.0).then_some(()));
    let payloads: [&[u8]; 7] = [
        b"vendor 7",
        b"42",
        b"",
        b"{\"vendorid\":1",
        b"[{\"vendorid\":1},7]",
        b"{\"vendorid\":\"\xff\"}",
        b"{\"vendorid\":NaN}",
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(publish(&broker.url(), payloads.iter().map(|p| Message::new("taxi/1/rides", *p)).collect()));
    let listed = until("seven dead letters", || {
        let (code, out, err) = cli_in(place.path(), &[], &["journal", "dead-letters", "ls", "--job", "taxi.toml"]);
        assert_eq!((code, err.as_str()), (0, ""));
        (out.lines().count() >= 14).then_some(out)
    });
    forebay.stop();
    // the moment of each is left out, and the indent, which `expect!` takes off
    let listed: Vec<String> = listed
        .lines()
        .map(|line| {
            line.split("  ").filter(|part| !part.starts_with("20")).collect::<Vec<_>>().join("  ").trim().to_owned()
                + "\n"
        })
        .collect();
    expect![[r#"
        1  input rides: undecodable: not valid JSON: expected value at line 1 column 1 (topic taxi/1/rides)
        vendor 7
        2  input rides: undecodable: an event must be a JSON object (topic taxi/1/rides)
        42
        3  input rides: undecodable: the payload is empty (topic taxi/1/rides)
        (empty)
        4  input rides: undecodable: not valid JSON: EOF while parsing an object at line 1 column 13 (topic taxi/1/rides)
        {"vendorid":1
        5  input rides: undecodable: an element of the array is not a JSON object (byte 16 of the payload, topic taxi/1/rides)
        7
        6  input rides: undecodable: not valid JSON: invalid unicode code point at line 1 column 14 (topic taxi/1/rides)
        {"vendorid":"�"}
        7  input rides: undecodable: not valid JSON: expected value at line 1 column 13 (topic taxi/1/rides)
        {"vendorid":NaN}
    "#]]
    .assert_eq(&listed.concat());
}

#[test]
fn a_core_module_in_a_job() {
    let place = Taxi::new();
    let json = r#"(module (memory (export "memory") 1) (func (export "forebay_alloc") (param i32) (result i32) (i32.const 1024))
        (func (export "forebay_json_create_array") (param i32 i32) (result i64) (i64.const 0)))"#;
    place.write("create_array.wasm", wat::parse_str(json).unwrap());
    // any number of arguments
    let answer = place.answer(&["check", "taxi.toml"]);
    assert!(
        answer.starts_with("exit 0\n") && answer.contains("create_array: JSON, any number of arguments"),
        "{answer}"
    );
    let numbers = r#"(module (func (export "createArray") (param i64 f64) (result i64) (i64.const 1)))"#;
    place.write("create_array.wasm", wat::parse_str(numbers).unwrap());
    expect![[r#"
        exit 2
        error: `udf.createArray` takes 2 arguments
          --> taxi.asaql:1:18
           |
         1 | SELECT udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare
           |                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ 5 given
           = note: the call: udf.createArray(any, any, any, any, any)
           = note: the function: createArray: func(i64, f64) -> i64
    "#]]
    .assert_eq(&place.answer(&["check", "taxi.toml"]));
}

#[test]
fn bad_components() {
    let place = Taxi::new();
    let wasm = |text: &str| wat::parse_str(text).unwrap();
    let one = r#"(core module $m (func (export "f") (result i64) (i64.const 1))) (core instance $i (instantiate $m))
        (func (export "create-array") (result s64) (canon lift (core func $i "f")))"#;
    let whole = fs::read(place.path().join("create_array.wasm")).unwrap();
    let imports = wasm(&format!(r#"(component (import "acme:db/sql" (instance (export "run" (func)))) {one})"#));
    let cases = [
        (
            b"no code".to_vec(),
            expect![[r#"
            exit 2
            error: create_array.wasm is no WebAssembly; a function is a component file (.wasm)
               --> taxi.toml:13:12
                |
             13 | [functions.createArray]
                |            ^^^^^^^^^^^ this function cannot be used
        "#]],
        ),
        (
            Vec::new(),
            expect![[r#"
            exit 2
            error: create_array.wasm is no WebAssembly; a function is a component file (.wasm)
               --> taxi.toml:13:12
                |
             13 | [functions.createArray]
                |            ^^^^^^^^^^^ this function cannot be used
        "#]],
        ),
        (
            whole[..400].to_vec(),
            expect![[r#"
            exit 2
            error: create_array.wasm does not compile: failed to parse WebAssembly module: wasm component contains an invalid module section: section range 11..12727 is out of bounds (bound = 400)
               --> taxi.toml:13:12
                |
             13 | [functions.createArray]
                |            ^^^^^^^^^^^ this function cannot be used
                = help: the file is damaged or cut off, or needs what this version does not know: build or copy it again
        "#]],
        ),
        (
            wasm(r#"(module (func (export "_start")))"#),
            expect![[r#"
            exit 2
            error: create_array.wasm is a program: it exports `_start` and no `_initialize`; build it as a library
               --> taxi.toml:13:12
                |
             13 | [functions.createArray]
                |            ^^^^^^^^^^^ this function cannot be used
                = help: Go: `-buildmode=c-shared`; C: `-mexec-model=reactor`; Rust: `crate-type = ["cdylib"]`
        "#]],
        ),
        (
            imports,
            expect![[r#"
            exit 2
            error: create_array.wasm asks for acme:db/sql, which nobody provides; functions get no imports by default: build it without
               --> taxi.toml:13:12
                |
             13 | [functions.createArray]
                |            ^^^^^^^^^^^ this function cannot be used
        "#]],
        ),
        (
            wasm("(component)"),
            expect![[r#"
            exit 2
            error: create_array.wasm exports no functions
               --> taxi.toml:13:12
                |
             13 | [functions.createArray]
                |            ^^^^^^^^^^^ this function cannot be used
                = help: let its world export one: `export add: func(a: s64, b: s64) -> s64;`
        "#]],
        ),
        (
            wasm(&format!("(component {one})")),
            expect![[r#"
            exit 2
            error: `udf.createArray` takes no arguments
              --> taxi.asaql:1:18
               |
             1 | SELECT udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare
               |                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ 5 given
               = note: the call: udf.createArray(any, any, any, any, any)
               = note: the function: create-array: func() -> s64
        "#]],
        ),
    ];
    for (bytes, wanted) in cases {
        place.write("create_array.wasm", bytes);
        place.check(&wanted);
    }
    fs::remove_file(place.path().join("create_array.wasm")).unwrap();
    place.check(&expect![[r#"
        exit 2
        error: `component` names no file
           --> taxi.toml:15:13
            |
         15 | component = "create_array.wasm"
            |             ^^^^^^^^^^^^^^^^^^^ create_array.wasm does not exist
            = help: paths are relative to the job file
    "#]]);
    fs::create_dir(place.path().join("create_array.wasm")).unwrap();
    place.check(&expect![[r#"
        exit 2
        error: `component` names no file
           --> taxi.toml:15:13
            |
         15 | component = "create_array.wasm"
            |             ^^^^^^^^^^^^^^^^^^^ create_array.wasm is no file
            = help: paths are relative to the job file
    "#]]);
    fs::remove_dir(place.path().join("create_array.wasm")).unwrap();
    place.write("create_array.wasm", &whole);
    place.job("create_array.wasm\"", "create_array.wasm\"\nexport = \"createRow\"");
    place.check(&expect![[r#"
        exit 2
        error: create_array.wasm exports no function `createRow`; it has create-array
           --> taxi.toml:13:12
            |
         13 | [functions.createArray]
            |            ^^^^^^^^^^^ this function cannot be used
            = help: `forebay udf inspect` shows their types; in a job file `export = "…"` picks one
    "#]]);
}

#[test]
fn bad_components_without_a_job() {
    let place = Taxi::new();
    let whole = fs::read(place.path().join("create_array.wasm")).unwrap();
    place.write("text.wasm", "no code");
    place.write("cut.wasm", &whole[..400]);
    place.write("core.wasm", wat::parse_str("(module)").unwrap());
    let cases: [(&[&str], Expect); 9] = [
        (
            &["inspect", "none.wasm"],
            expect![[r#"
            exit 2
            error: none.wasm cannot be read: No such file or directory (os error 2)
             = help: check the path and its permissions
        "#]],
        ),
        (
            &["inspect", "."],
            expect![[r#"
            exit 2
            error: . is no WebAssembly; a function is a component file (.wasm)
        "#]],
        ),
        (
            &["inspect", "text.wasm"],
            expect![[r#"
            exit 2
            error: text.wasm is no WebAssembly; a function is a component file (.wasm)
        "#]],
        ),
        (
            &["inspect", "cut.wasm"],
            expect![[r#"
            exit 2
            error: cut.wasm does not compile: failed to parse WebAssembly module: wasm component contains an invalid module section: section range 11..12727 is out of bounds (bound = 400)
             = help: the file is damaged or cut off, or needs what this version does not know: build or copy it again
        "#]],
        ),
        (
            &["inspect", "core.wasm"],
            expect![[r#"
            exit 2
            error: core.wasm exports no functions
             = help: let its world export one: `export add: func(a: s64, b: s64) -> s64;`
        "#]],
        ),
        (
            &["call", "create_array.wasm", "createRow", "1"],
            expect![[r#"
            exit 2
            error: create_array.wasm exports no function `createRow`; it has create-array
             = help: `forebay udf inspect` shows their types; in a job file `export = "…"` picks one
        "#]],
        ),
        (
            &["call", "create_array.wasm", "createArray", "1"],
            expect![[r#"
            exit 2
            error: createArray takes 5 arguments, not 1: udf.createArray(vendorid nvarchar(max), weekday nvarchar(max), pickuphour nvarchar(max), passenger nvarchar(max), distance nvarchar(max)) -> array (nvarchar(max), nvarchar(max), nvarchar(max), nvarchar(max), nvarchar(max))
        "#]],
        ),
        (
            &["call", "create_array.wasm", "createArray", "{}", "1", "1", "1", "1"],
            expect![[r#"
            exit 1
            error: udf.createArray: argument 1 (vendorid: string): record {} is no nvarchar(max) (udf_conversion)
        "#]],
        ),
        (
            &["precompile", "none.wasm"],
            expect![[r#"
            exit 2
            error: none.wasm cannot be read: No such file or directory (os error 2)
             = help: check the path and its permissions
        "#]],
        ),
    ];
    for (args, wanted) in cases {
        place.expect(&[&["udf"], args].concat(), &wanted);
    }
    place.expect(
        &["udf", "build", "none.wasm"],
        &expect![[r#"
        exit 2
        error: none.wasm cannot be read: No such file or directory (os error 2)
         = help: check the path and its permissions
    "#]],
    );
    place.expect(
        &["udf", "build", "core.wasm"],
        &expect![[r#"
        exit 2
        error: core.wasm does not become a component: it carries no component type; export its functions with wit-bindgen, or name its world: `--wit FILE_OR_DIR`
    "#]],
    );
}

#[test]
fn bad_keys() {
    let place = Taxi::new();
    place.write("empty", "");
    place.write("binary", b"\xff\xfe\x00");
    let check = |environment: &[(&str, &str)], key: &str, wanted: &Expect| {
        place.job("env:AML_KEY", key);
        wanted.assert_eq(&place.answer_in(environment, &["check", "taxi.toml"]));
    };
    check(
        &[],
        "env:FOREBAY_TEST_UNSET",
        &expect![[r#"
        exit 2
        error: the environment variable FOREBAY_TEST_UNSET is not set
           --> taxi.toml:20:7
            |
         20 | key = "env:FOREBAY_TEST_UNSET"
            |       ^^^^^^^^^^^^^^^^^^^^^^^^ cannot be used
            = help: set it where forebay is started
    "#]],
    );
    check(
        &[("AML_KEY", "")],
        "env:AML_KEY",
        &expect![[r#"
        exit 2
        error: env:AML_KEY is empty
           --> taxi.toml:20:7
            |
         20 | key = "env:AML_KEY"
            |       ^^^^^^^^^^^^^ cannot be used
            = help: put the secret there
    "#]],
    );
    check(
        &[],
        "file:empty",
        &expect![[r#"
        exit 2
        error: file:empty is empty
           --> taxi.toml:20:7
            |
         20 | key = "file:empty"
            |       ^^^^^^^^^^^^ cannot be used
            = help: put the secret there
    "#]],
    );
    check(
        &[],
        "file:binary",
        &expect![[r#"
        exit 2
        error: file:binary is no UTF-8 text
           --> taxi.toml:20:7
            |
         20 | key = "file:binary"
            |       ^^^^^^^^^^^^^ cannot be used
            = help: check that it is the right file
    "#]],
    );
    check(
        &[],
        "file:none",
        &expect![[r#"
        exit 2
        error: none cannot be read: No such file or directory (os error 2)
           --> taxi.toml:20:7
            |
         20 | key = "file:none"
            |       ^^^^^^^^^^^ cannot be used
            = help: check the path and its permissions
    "#]],
    );
    check(
        &[],
        "credential:aml",
        &expect![[r#"
        exit 2
        error: the credential aml has no folder: CREDENTIALS_DIRECTORY is not set
           --> taxi.toml:20:7
            |
         20 | key = "credential:aml"
            |       ^^^^^^^^^^^^^^^^ cannot be used
            = help: systemd sets it for units with `LoadCredential=`; elsewhere use `env:` or `file:`
    "#]],
    );
    check(
        &[("CREDENTIALS_DIRECTORY", "credentials")],
        "credential:aml",
        &expect![[r#"
        exit 2
        error: credentials/aml cannot be read: No such file or directory (os error 2)
           --> taxi.toml:20:7
            |
         20 | key = "credential:aml"
            |       ^^^^^^^^^^^^^^^^ cannot be used
            = help: check the path and its permissions
    "#]],
    );
    check(
        &[],
        "s3cr3t-k3y",
        &expect![[r#"
        exit 2
        error: `key` is written into the job file
           --> taxi.toml:20:7
            |
         20 | key = "**********"
            |       ^^^^^^^^^^^^ expected `env:NAME`, `file:PATH` or `credential:NAME`
            = note: job files are copied and logged; secrets are only referred to
            = help: put the secret into an environment variable and write `key = "env:NAME"`
    "#]],
    );
    check(
        &[("AML_KEY", "two\nlines")],
        "env:AML_KEY",
        &expect![[r#"
        exit 2
        error: env:AML_KEY is no key: it is blank or has characters that a header cannot hold
           --> taxi.toml:20:7
            |
         20 | key = "env:AML_KEY"
            |       ^^^^^^^^^^^^^ cannot be used
            = help: put only the key there, on one line
    "#]],
    );
}

#[test]
fn bad_files() {
    let place = Taxi::new();
    place.job("taxi.asaql", "none.asaql");
    place.check(&expect![[r#"
        exit 2
        error: `query` names no file
          --> taxi.toml:3:9
           |
         3 | query = "none.asaql"
           |         ^^^^^^^^^^^^ none.asaql does not exist
           = help: paths are relative to the job file
    "#]]);
    place.job("taxi.asaql", ".");
    place.check(&expect![[r#"
        exit 2
        error: `query` names no file
          --> taxi.toml:3:9
           |
         3 | query = "."
           |         ^^^ . is no file
           = help: paths are relative to the job file
    "#]]);
    place.job("taxi.asaql", "create_array.wasm");
    place.check(&expect![[r#"
        exit 2
        error: the query create_array.wasm cannot be read: stream did not contain valid UTF-8
          --> taxi.toml
           = help: a query is UTF-8 text; `query` in [job] names its file
    "#]]);

    // nothing of the job would run
    place.write("rides.jsonl", "");
    place.job(
        "type = \"mqtt\"\nurl = \"mqtt://127.0.0.1:1\"\ntopics = [\"taxi/+/rides\"]",
        "type = \"file\"\npath = \"rides.jsonl\"",
    );
    place.check(&expect![[r#"
        exit 2
        error: input `rides` is a file, and a job reads streams
          --> taxi.toml:8:9
           |
         8 | [inputs.rides]
           |         ^^^^^ only `type = "mqtt"` runs
           = help: run the query over files with `forebay eval QUERY --input NAME=FILE`
    "#]]);

    let eval =
        |input: &str, wanted: &Expect| place.expect(&["eval", "SELECT v INTO o FROM gw", "--input", input], wanted);
    eval(
        "gw=none.json",
        &expect![[r#"
            exit 1
            error: none.json cannot be read: No such file or directory (os error 2); give a file with a JSON array of objects, one object per line, or CSV (.csv)
        "#]],
    );
    eval(
        "gw=.",
        &expect![[r#"
            exit 1
            error: . cannot be read: Is a directory (os error 21); give a file with a JSON array of objects, one object per line, or CSV (.csv)
        "#]],
    );
    place.write("lines.jsonl", "{\"v\":1}\nnonsense\n{\"v\":2}\n");
    eval(
        "gw=lines.jsonl",
        &expect![[r#"
        exit 0
        {"output":"o","row":{"v":1}}
        {"output":"o","row":{"v":2}}
        warning: lines.jsonl: byte 8: not an event, passed over: not valid JSON: expected ident at line 1 column 2
    "#]],
    );
    place.expect(&["eval", "none.asaql"], &expect![[r#"
        exit 1
        error: none.asaql cannot be read: No such file or directory (os error 2); give a file with a query, `-` for standard input, or the query itself
    "#]]);
    place.expect(&["eval", "create_array.wasm"], &expect![[r#"
        exit 1
        error: create_array.wasm cannot be read: stream did not contain valid UTF-8; give a file with a query, `-` for standard input, or the query itself
    "#]]);

    place.expect(
        &["test", "none"],
        &expect![[r#"
        exit 2
        error: none cannot be read: No such file or directory (os error 2); give case files (.json) or folders of them
    "#]],
    );
    place.write("case.json", "[]");
    place.expect(&["test", "case.json"], &expect![[r#"
        exit 1
        FAILED case (case.json)
          no test case: expected a JSON object; a case is a JSON object such as {"query": "SELECT v INTO o FROM gw", "inputs": {"gw": [{"v": 1}]}, "expected": {"o": [{"v": 1}]}}

        0 passed, 1 failed
    "#]]);
    place.write("case.json", "{\"query\": \"SELECT v FROM a\", \"inputs\": {}}");
    place.expect(&["test", "case.json"], &expect![[r#"
        exit 1
        FAILED case (case.json)
          no test case: it needs exactly one of `expected`, `must_fail` and `must_stop`; a case is a JSON object such as {"query": "SELECT v INTO o FROM gw", "inputs": {"gw": [{"v": 1}]}, "expected": {"o": [{"v": 1}]}}

        0 passed, 1 failed
    "#]]);
    fs::remove_file(place.path().join("case.json")).unwrap();
    place.expect(
        &["test", "."],
        &expect![[r#"
        exit 1
        0 passed, 0 failed
        error: no test case found; a case is a .json file
    "#]],
    );
}

#[test]
fn bad_pools() {
    let place = Taxi::new();
    place.write("taxi.toml", JOB);
    place.expect(
        &["journal", "status", "--job", "taxi.toml"],
        &expect![[r#"
        exit 1
        error: the job has no pool yet: taxi.db does not exist; `forebay run` makes it
    "#]],
    );
    place.expect(
        &["journal", "status", "--job", "none.toml"],
        &expect![[r#"
        exit 2
        error: the job file cannot be read: No such file or directory (os error 2)
          --> none.toml
           = help: check the path and its permissions
    "#]],
    );
    place.write("taxi.toml", format!("{JOB}[journal]\npath = \"pools/taxi.db\"\n"));
    place.expect(&["run", "taxi.toml"], &expect![[r#"
        exit 1
        error: cannot open the journal pools/taxi.db: pools/taxi.db.lock: No such file or directory (os error 2); its directory must exist and be writable
    "#]]);
    fs::create_dir_all(place.path().join("pools/taxi.db")).unwrap();
    place.expect(
        &["run", "taxi.toml"],
        &expect![[r#"
        exit 1
        error: pools/taxi.db is not a forebay journal; it was left untouched: move it away, or set another `path` under [journal]
    "#]],
    );
    place.expect(
        &["journal", "verify", "--job", "taxi.toml"],
        &expect![[r#"
        exit 1
        error: pools/taxi.db is not a forebay journal; it was left untouched: move it away, or set another `path` under [journal]
    "#]],
    );
    fs::remove_dir(place.path().join("pools/taxi.db")).unwrap();
    place.write(
        "pools/taxi.db",
        "somebody's notes, which are longer than any header of a database could be: they go on and on and on and on",
    );
    place.expect(
        &["run", "taxi.toml"],
        &expect![[r#"
        exit 1
        error: pools/taxi.db is not a forebay journal; it was left untouched: move it away, or set another `path` under [journal]
    "#]],
    );
    place.expect(
        &["journal", "status", "--job", "taxi.toml"],
        &expect![[r#"
        exit 1
        error: pools/taxi.db is not a forebay journal; it was left untouched: move it away, or set another `path` under [journal]
    "#]],
    );
    place.expect(
        &["journal", "dead-letters", "ls", "--job", "taxi.toml"],
        &expect![[r#"
        exit 1
        error: pools/taxi.db is not a forebay journal; it was left untouched: move it away, or set another `path` under [journal]
    "#]],
    );
}

#[test]
fn a_pool_in_use_is_refused_to_a_second_process_and_open_to_a_reader() {
    let place = Taxi::new();
    let broker = Mosquitto::start();
    place.write(
        "taxi.toml",
        JOB.replace("mqtt://127.0.0.1:1\"", &format!("{}\"", broker.url())).replace("key = \"env:AML_KEY\"\n", ""),
    );
    let forebay = Forebay::run(&place.path().join("taxi.toml"));
    place.expect(&["run", "taxi.toml"], &expect![[r#"
        exit 1
        error: the journal taxi.db is in use: another process runs this job and holds taxi.db.lock; stop it, or give this job its own `path` under [journal]
    "#]]);
    assert!(place.answer(&["journal", "status", "--job", "taxi.toml"]).starts_with("exit 0\npool taxi.db: "));
    place.expect(
        &["journal", "verify", "--job", "taxi.toml"],
        &expect![[r#"
        exit 0
        0 segments, 0 records, 0 B, 0 quarantined: all checksums and all equations hold
    "#]],
    );
    place.expect(
        &["journal", "dead-letters", "ls", "--job", "taxi.toml"],
        &expect![[r#"
        exit 0
        no dead letters
    "#]],
    );
    forebay.stop();
}

#[test]
fn bad_addresses() {
    let place = Taxi::new();
    let broker = "mqtt://127.0.0.1:1";
    let endpoint = "http://127.0.0.1:5001/score";
    let metrics = "127.0.0.1:0";
    let cases = [
        (
            broker,
            "http://127.0.0.1:1",
            expect![[r#"
            exit 2
            error: this is no address of a broker
               --> taxi.toml:10:7
                |
             10 | url = "http://127.0.0.1:1"
                |       ^^^^^^^^^^^^^^^^^^^^ expected `mqtt://` or `mqtts://`
                = help: write `mqtt://host:1883`, or `mqtts://host:8883` for TLS
        "#]],
        ),
        (
            broker,
            "mqtt://",
            expect![[r#"
            exit 2
            error: the address has no host
               --> taxi.toml:10:7
                |
             10 | url = "mqtt://"
                |       ^^^^^^^^^ expected a name or an address
                = help: write `mqtt://host:1883`, or `mqtts://host:8883` for TLS
        "#]],
        ),
        (
            broker,
            "mqtt://:1883",
            expect![[r#"
            exit 2
            error: this is no address: empty host
               --> taxi.toml:10:7
                |
             10 | url = "mqtt://:1883"
                |       ^^^^^^^^^^^^^^ cannot be read
                = help: write `mqtt://host:1883`, or `mqtts://host:8883` for TLS
        "#]],
        ),
        (
            broker,
            "mqtt://gateway:99999",
            expect![[r#"
            exit 2
            error: this is no address: invalid port number
               --> taxi.toml:10:7
                |
             10 | url = "mqtt://gateway:99999"
                |       ^^^^^^^^^^^^^^^^^^^^^^ cannot be read
                = help: write `mqtt://host:1883`, or `mqtts://host:8883` for TLS
        "#]],
        ),
        (
            broker,
            "mqtt://gateway/rides",
            expect![[r#"
            exit 2
            error: an address of a broker has no path
               --> taxi.toml:10:7
                |
             10 | url = "mqtt://gateway/rides"
                |       ^^^^^^^^^^^^^^^^^^^^^^ expected only host and port
                = help: topics are listed by `topics` or `topic`
        "#]],
        ),
        (
            broker,
            "127.0.0.1:1883",
            expect![[r#"
            exit 2
            error: this is no address: relative URL without a base
               --> taxi.toml:10:7
                |
             10 | url = "127.0.0.1:1883"
                |       ^^^^^^^^^^^^^^^^ cannot be read
                = help: write `mqtt://host:1883`, or `mqtts://host:8883` for TLS
        "#]],
        ),
        (
            endpoint,
            "mqtt://127.0.0.1/score",
            expect![[r#"
            exit 2
            error: this is no address of an endpoint
               --> taxi.toml:19:7
                |
             19 | url = "mqtt://127.0.0.1/score"
                |       ^^^^^^^^^^^^^^^^^^^^^^^^ expected `http://` or `https://`
                = help: write `https://host/score`, or `http://127.0.0.1:5001/score`
        "#]],
        ),
        (
            endpoint,
            "https://",
            expect![[r#"
            exit 2
            error: this is no address: empty host
               --> taxi.toml:19:7
                |
             19 | url = "https://"
                |       ^^^^^^^^^^ cannot be read
                = help: write `https://host/score`, or `http://127.0.0.1:5001/score`
        "#]],
        ),
        (
            endpoint,
            "https://user:pass@host/score",
            expect![[r#"
            exit 2
            error: a password stands in an address
               --> taxi.toml:19:7
                |
             19 | url = "****************************"
                |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ expected the address without `user:password@`
                = help: write `username = "…"` and `password = "env:NAME"`, or `key = "env:NAME"` for an endpoint
        "#]],
        ),
        (
            metrics,
            "0.0.0.0:9464",
            expect![[r#"
            exit 2
            error: metrics would be open to the network
              --> taxi.toml:6:10
               |
             6 | listen = "0.0.0.0:9464"
               |          ^^^^^^^^^^^^^^ expected a loopback address
               = help: metrics have no login; write `allow_remote = true` if that is meant
        "#]],
        ),
        (
            metrics,
            "localhost",
            expect![[r#"
            exit 2
            error: `listen` has the wrong form
              --> taxi.toml:6:10
               |
             6 | listen = "localhost"
               |          ^^^^^^^^^^^ expected an address and a port
               = help: write `listen = "127.0.0.1:9464"`
        "#]],
        ),
        (
            metrics,
            "127.0.0.1:99999",
            expect![[r#"
            exit 2
            error: `listen` has the wrong form
              --> taxi.toml:6:10
               |
             6 | listen = "127.0.0.1:99999"
               |          ^^^^^^^^^^^^^^^^^ expected an address and a port
               = help: write `listen = "127.0.0.1:9464"`
        "#]],
        ),
    ];
    for (from, to, wanted) in cases {
        place.job(from, to);
        place.check(&wanted);
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    place.write("taxi.toml", JOB.replace("127.0.0.1:0", &address).replace("key = \"env:AML_KEY\"\n", ""));
    place.write("taxi.asaql", "SELECT vendorid INTO scored FROM rides");
    expect![[r#"
        exit 1
        error: metrics cannot listen on ADDRESS: Address already in use (os error 98); set another `listen` in [metrics], or `enabled = false`
    "#]].assert_eq(&place.answer_in(&[("FOREBAY_LOG", "error")], &["run", "taxi.toml"]).replace(&address, "ADDRESS"));
}

#[test]
fn bad_arguments() {
    let place = Taxi::new();
    place.write("gw.json", "[]");
    let eval = ["eval", "SELECT v FROM gw", "--input", "gw=gw.json"];
    let cases: [(&[&str], Expect); 13] = [
        (
            &["chek", "taxi.toml"],
            expect![[r#"
            exit 2
            error: unrecognized subcommand 'chek'

              tip: a similar subcommand exists: 'check'

            Usage: forebay [OPTIONS] <COMMAND>

            For more information, try '--help'.
        "#]],
        ),
        (
            &["run"],
            expect![[r#"
            exit 2
            error: the following required arguments were not provided:
              <JOB>

            Usage: forebay run <JOB>

            For more information, try '--help'.
        "#]],
        ),
        (
            &["check", "taxi.toml", "--ofline"],
            expect![[r#"
            exit 2
            error: unexpected argument '--ofline' found

              tip: a similar argument exists: '--offline'

            Usage: forebay check --offline <JOB>

            For more information, try '--help'.
        "#]],
        ),
        (
            &["eval"],
            expect![[r#"
            exit 2
            error: the following required arguments were not provided:
              <QUERY>

            Usage: forebay eval <QUERY>

            For more information, try '--help'.
        "#]],
        ),
        (
            &["eval", "SELECT v FROM gw", "--input", "gw.json"],
            expect![[r#"
            exit 2
            error: invalid value 'gw.json' for '--input <NAME=FILE>': write NAME=FILE, as in readings=readings.jsonl

            For more information, try '--help'.
        "#]],
        ),
        (
            &[eval.as_slice(), &["--input", "GW=gw.json"]].concat(),
            expect![[r#"
            exit 1
            error: `GW` is given twice; one name is one file
        "#]],
        ),
        (
            &[eval.as_slice(), &["--late-tolerance", "5s"]].concat(),
            expect![[r#"
            exit 2
            error: invalid value '5s' for '--late-tolerance <S>': write a whole number of seconds, as in 5, or -1 for any time

            For more information, try '--help'.
        "#]],
        ),
        (
            &[eval.as_slice(), &["--late-tolerance", "-2"]].concat(),
            expect![[r#"
            exit 2
            error: invalid value '-2' for '--late-tolerance <S>': write a whole number of seconds, as in 5, or -1 for any time

            For more information, try '--help'.
        "#]],
        ),
        (
            &[eval.as_slice(), &["--out-of-order-policy", "keep"]].concat(),
            expect![[r#"
            exit 2
            error: invalid value 'keep' for '--out-of-order-policy <POLICY>'
              [possible values: adjust, drop]

            For more information, try '--help'.
        "#]],
        ),
        (
            &["journal", "status"],
            expect![[r#"
            exit 2
            error: the following required arguments were not provided:
              --job <JOB>

            Usage: forebay journal status --job <JOB>

            For more information, try '--help'.
        "#]],
        ),
        (
            &["journal", "dead-letters", "ls", "--job", "taxi.toml", "--limit", "all"],
            expect![[r#"
            exit 2
            error: invalid value 'all' for '--limit <LIMIT>': invalid digit found in string

            For more information, try '--help'.
        "#]],
        ),
        (
            &["udf", "call", "create_array.wasm"],
            expect![[r#"
            exit 2
            error: the following required arguments were not provided:
              <EXPORT>

            Usage: forebay udf call <FILE> <EXPORT> [ARGS]...

            For more information, try '--help'.
        "#]],
        ),
        (
            &["udf", "call", "create_array.wasm", "createArray", "--memory-mib", "0"],
            expect![[r#"
            exit 2
            error: invalid value '0' for '--memory-mib <MIB>': 0 is not in 1..=4096

            For more information, try '--help'.
        "#]],
        ),
    ];
    for (args, wanted) in cases {
        place.expect(args, &wanted);
    }
    for group in [&[][..], &["journal"], &["udf"], &["journal", "dead-letters"]] {
        let (code, out, err) = cli_in(place.path(), &[], group);
        assert_eq!((code, out.as_str()), (2, ""), "{group:?}");
        assert!(err.contains("Usage: forebay"), "{err}");
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
fn check_prints_the_plan_and_both_sides_of_every_function() {
    let place = Taxi::new();
    place.check(&expect![[r#"
        exit 0
        job taxi, pool taxi.db

        plan
          into scored
            read rides: vendorid, weekday, pickuphour, passenger, distance
            call score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance))
            gives fare = score()

        functions
          udf.createArray(vendorid nvarchar(max), weekday nvarchar(max), pickuphour nvarchar(max), passenger nvarchar(max), distance nvarchar(max))
            gives array (nvarchar(max), nvarchar(max), nvarchar(max), nvarchar(max), nvarchar(max))
            WIT   create-array: func(vendorid: string, weekday: string, pickuphour: string, passenger: string, distance: string) -> tuple<string, string, string, string, string>
            from  create_array.wasm
          udf.score
            at    http://127.0.0.1:5001/score
            its signature was not asked for (--offline)

        note: while this gateway is away the broker keeps its messages only as far as its own queue limit goes;
              mosquitto keeps 1,000 for a client unless max_queued_messages is raised

        the job is valid
    "#]]);
    // the columns that the endpoint describes stand beside what the query sends
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let endpoint = runtime.block_on(Endpoint::start()).unwrap();
    place.job("http://127.0.0.1:5001/score", &endpoint.url());
    let described = place.answer(&["check", "taxi.toml"]);
    let (_, described) = described.split_once("  udf.score\n").unwrap();
    let (described, _) = described.split_once("\nnote").unwrap();
    let described = format!("udf.score\n{described}").replace(&endpoint.url(), "ENDPOINT");
    expect![[r#"
        udf.score
            at    ENDPOINT
            rows     `data`: one array of 5 columns a row
            results  the answer: one float a row
              column 1         nvarchar(max)  from nvarchar(max): as is
              column 2         nvarchar(max)  from nvarchar(max): as is
              column 3         nvarchar(max)  from nvarchar(max): as is
              column 4         nvarchar(max)  from nvarchar(max): as is
              column 5         nvarchar(max)  from nvarchar(max): as is
    "#]]
    .assert_eq(&described);
    assert_eq!(endpoint.requests(), 0, "nothing is scored by a check");
    // an endpoint that is away is no mistake
    place.job("127.0.0.1:5001", "127.0.0.1:1");
    let away = place.answer(&["check", "taxi.toml"]);
    assert!(away.starts_with("exit 0\n"), "{away}");
    assert!(away.contains("that is no mistake: rows wait in the pool until the endpoint answers\n"), "{away}");
}

#[test]
fn check_takes_the_literal_form_of_a_data_frame_and_shows_its_columns() {
    let place = Taxi::new();
    let columns = r#"[{ name = "vendorid", type = "nvarchar(max)" }, { name = "distance", type = "float" }, { name = "zone", type = "any" }]"#;
    place
        .job("key = \"env:AML_KEY\"", &format!("input_path = \"data\"\ninput_kind = \"records\"\ncolumns = {columns}"));
    place.write(
        "taxi.asaql",
        "WITH Dataframe AS (SELECT CAST(vendorid AS nvarchar(max)) AS vendorid, CAST(distance AS float) AS distance, zone FROM rides)\nSELECT udf.score(Dataframe)\nINTO scored\nFROM rides",
    );
    place.check(&expect![[r#"
        exit 0
        job taxi, pool taxi.db

        plan
          into scored
            read rides: vendorid, distance, zone
            call score({vendorid: CAST(vendorid AS nvarchar(max)), distance: CAST(distance AS float), zone: zone})
            gives score = score()

        functions
          udf.createArray(vendorid nvarchar(max), weekday nvarchar(max), pickuphour nvarchar(max), passenger nvarchar(max), distance nvarchar(max))
            gives array (nvarchar(max), nvarchar(max), nvarchar(max), nvarchar(max), nvarchar(max))
            WIT   create-array: func(vendorid: string, weekday: string, pickuphour: string, passenger: string, distance: string) -> tuple<string, string, string, string, string>
            from  create_array.wasm
          udf.score
            at    http://127.0.0.1:5001/score
            rows     `data`: one record of 3 columns a row
            results  the answer: one a row, of unknown type
              vendorid         nvarchar(max)  from nvarchar(max): as is
              distance         float          from float: as is
              zone             any

        note: while this gateway is away the broker keeps its messages only as far as its own queue limit goes;
              mosquitto keeps 1,000 for a client unless max_queued_messages is raised

        the job is valid
    "#]]);
}

#[test]
fn what_an_endpoint_can_never_take_is_an_error_at_the_call() {
    let place = Taxi::new();
    let signature = |kind: &str, columns: &str| {
        place.job(
            "key = \"env:AML_KEY\"",
            &format!("input_path = \"data\"\ninput_kind = \"{kind}\"\ncolumns = [{columns}]"),
        );
    };
    let columns = |names: &[&str]| {
        names.iter().map(|n| format!("{{ name = \"{n}\", type = \"float\" }}")).collect::<Vec<_>>().join(", ")
    };
    // all of the report goes to standard output, the errors do not
    let errors = |wanted: &Expect| {
        let (code, out, err) = cli_in(place.path(), &[], &["check", "--offline", "taxi.toml"]);
        assert!(out.starts_with("job taxi") && !out.contains("the job is valid"), "{out}");
        wanted.assert_eq(&format!("exit {code}\n{err}"));
    };
    signature("array", &columns(&["a", "b"]));
    errors(&expect![[r#"
        exit 2

        error: `udf.score` never takes this: it takes 2 columns, and this array has 5
          --> taxi.asaql:1:8
           |
         1 | SELECT udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare
           |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ no row of it can be sent
           = help: correct the query, or the signature in the job file where it is written there; types are above
    "#]]);
    signature("records", &columns(&["a", "b"]));
    errors(&expect![[r#"
        exit 2

        error: `udf.score` never takes this: it takes a record, and this is an array
          --> taxi.asaql:1:8
           |
         1 | SELECT udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare
           |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ no row of it can be sent
           = help: correct the query, or the signature in the job file where it is written there; types are above
    "#]]);
    place.write("taxi.asaql", "WITH Ride AS (SELECT CAST(at AS datetime) AS a, CAST(b AS float) AS b, c FROM rides)\nSELECT udf.score(Ride) AS fare\nINTO scored\nFROM Ride");
    errors(&expect![[r#"
        exit 2

        error: `udf.score` never takes this: its column `a` takes float, to which no datetime converts
          --> taxi.asaql:2:8
           |
         2 | SELECT udf.score(Ride) AS fare
           |        ^^^^^^^^^^^^^^^ no row of it can be sent
           = help: correct the query, or the signature in the job file where it is written there; types are above

        error: `udf.score` never takes this: it has no column `c`
          --> taxi.asaql:2:8
           |
         2 | SELECT udf.score(Ride) AS fare
           |        ^^^^^^^^^^^^^^^ no row of it can be sent
           = help: correct the query, or the signature in the job file where it is written there; types are above

        2 errors
    "#]]);
    signature("array", &columns(&["a", "b", "c"]));
    errors(&expect![[r#"
        exit 2

        error: `udf.score` never takes this: it takes an array, and this is a record
          --> taxi.asaql:2:8
           |
         2 | SELECT udf.score(Ride) AS fare
           |        ^^^^^^^^^^^^^^^ no row of it can be sent
           = help: correct the query, or the signature in the job file where it is written there; types are above
    "#]]);
    // a data frame takes an array by position
    place.write("taxi.asaql", QUERY);
    signature("split", &columns(&["a", "b"]));
    errors(&expect![[r#"
        exit 2

        error: `udf.score` never takes this: it takes 2 columns, and this array has 5
          --> taxi.asaql:1:8
           |
         1 | SELECT udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare
           |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ no row of it can be sent
           = help: correct the query, or the signature in the job file where it is written there; types are above
    "#]]);
    signature("split", &columns(&["a", "b", "c", "d", "e"]).replace("float", "nvarchar(max)"));
    let good = place.answer(&["check", "--offline", "taxi.toml"]);
    assert!(
        good.starts_with("exit 0\n") && good.contains("  e                nvarchar(max)  from nvarchar(max): as is\n"),
        "{good}"
    );
}

#[test]
fn warnings_stop_nothing() {
    let place = Taxi::new();
    place.job("http://127.0.0.1:5001/score", "http://fares.example/score");
    place.check(&expect![[r#"
        exit 0
        job taxi, pool taxi.db

        plan
          into scored
            read rides: vendorid, weekday, pickuphour, passenger, distance
            call score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance))
            gives fare = score()

        functions
          udf.createArray(vendorid nvarchar(max), weekday nvarchar(max), pickuphour nvarchar(max), passenger nvarchar(max), distance nvarchar(max))
            gives array (nvarchar(max), nvarchar(max), nvarchar(max), nvarchar(max), nvarchar(max))
            WIT   create-array: func(vendorid: string, weekday: string, pickuphour: string, passenger: string, distance: string) -> tuple<string, string, string, string, string>
            from  create_array.wasm
          udf.score
            at    http://fares.example/score
            its signature was not asked for (--offline)

        warning: the key crosses the network unencrypted
           --> taxi.toml:19:1
            |
         19 | url = "http://fares.example/score"
            | ^^^ no TLS
            = help: write the url with `https://`

        note: while this gateway is away the broker keeps its messages only as far as its own queue limit goes;
              mosquitto keeps 1,000 for a client unless max_queued_messages is raised

        the job is valid
    "#]]);
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

//! `forebay check` and `forebay eval` of a job whose function has grants, run as the binary. No broker.

use expect_test::expect;

use super::{GRANTED, job};
use crate::harness::{cli_in, component, write};
use crate::support::succeeds;

fn check(grants: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    job(dir.path(), grants);
    let (code, _, err) = cli_in(dir.path(), &[], &["check", "job.toml"]);
    format!("exit {code}\n{err}")
}

#[test]
fn check_tells_every_mistake_in_the_grants() {
    expect!["exit 0\n"].assert_eq(&check(GRANTED));
    expect![[r#"
        exit 2
        error: visit_count.wasm imports forebay:host/state@0.1.0, forebay:host/clock@0.1.0, forebay:host/config@0.1.0, forebay:host/log@0.1.0, which the job does not grant; write `imports = ["log", "state", "clock"]` and `config = { key = "value" }` in [functions.visitCount]
          --> job.toml:8:12
           |
         8 | [functions.visitCount]
           |            ^^^^^^^^^^ this function cannot be used
    "#]].assert_eq(&check(""));
    expect![[r#"
        exit 2
        error: this cannot be granted to a function
           --> job.toml:11:12
            |
         11 | imports = ["stat", "lookup", "config", "clock", "socket"]
            |            ^^^^^^ expected "log", "state" or "clock"
            = help: did you mean "state"?

        error: this cannot be granted to a function
           --> job.toml:11:20
            |
         11 | imports = ["stat", "lookup", "config", "clock", "socket"]
            |                    ^^^^^^^^ expected "log", "state" or "clock"
            = help: write `lookup = ["zones"]` with the names of reference inputs instead

        error: this cannot be granted to a function
           --> job.toml:11:30
            |
         11 | imports = ["stat", "lookup", "config", "clock", "socket"]
            |                              ^^^^^^^^ expected "log", "state" or "clock"
            = help: write `config = { key = "value" }` instead

        error: this cannot be granted to a function
           --> job.toml:11:49
            |
         11 | imports = ["stat", "lookup", "config", "clock", "socket"]
            |                                                 ^^^^^^^^ expected "log", "state" or "clock"
            = help: functions get nothing else of the machine: no files, no network, no clock but event time

        error: `lookup` names no input
           --> job.toml:13:10
            |
         13 | lookup = []
            |          ^^ expected names of reference inputs
            = help: write `lookup = ["zones"]`, or leave it out

        error: `api_key` is written into the job file
           --> job.toml:14:22
            |
         14 | config = { api_key = "******", pin_token = ****, list = [1], at = 2024-05-01, ok = true }
            |                      ^^^^^^^^ expected `env:NAME`, `file:PATH` or `credential:NAME`
            = note: job files are copied and logged; secrets are only referred to
            = help: put the secret into an environment variable and write `api_key = "env:NAME"`

        error: `pin_token` is written into the job file
           --> job.toml:14:44
            |
         14 | config = { api_key = "******", pin_token = ****, list = [1], at = 2024-05-01, ok = true }
            |                                            ^^^^ expected `env:NAME`, `file:PATH` or `credential:NAME`
            = note: job files are copied and logged; secrets are only referred to
            = help: put the secret into an environment variable and write `pin_token = "env:NAME"`

        error: a setting has no text form
           --> job.toml:14:57
            |
         14 | config = { api_key = "******", pin_token = ****, list = [1], at = 2024-05-01, ok = true }
            |                                                         ^^^ expected a text, a number, `true` or `false`
            = help: functions get settings as texts; write lists and tables as JSON text

        error: a setting has no text form
           --> job.toml:14:67
            |
         14 | config = { api_key = "******", pin_token = ****, list = [1], at = 2024-05-01, ok = true }
            |                                                                   ^^^^^^^^^^ expected a text, a number, `true` or `false`
            = help: functions get settings as texts; write lists and tables as JSON text

        9 errors
    "#]]
    .assert_eq(&check(
        "imports = [\"stat\", \"lookup\", \"config\", \"clock\", \"socket\"]\nstate_bytes_max = \"2MiB\"\nlookup = []\n\
         config = { api_key = \"geheim\", pin_token = 1234, list = [1], at = 2024-05-01, ok = true }",
    ));
    expect![[r#"
        exit 2
        warning: `lookup` is granted to `visitCount`, which does not import it
           --> job.toml:13:1
            |
         13 | lookup = ["zones"]
            | ^^^^^^ has no use
            = help: leave it out, or check that the component is the right one

        error: `lookup` names no reference input: `zones`
           --> job.toml:13:11
            |
         13 | lookup = ["zones"]
            |           ^^^^^^^ not found
            = help: the job has none

        1 error, 1 warning
    "#]]
    .assert_eq(&check(&format!("{GRANTED}\nlookup = [\"zones\"]")));
    expect![[r#"
        exit 2
        error: the environment variable FOREBAY_TEST_NO_SUCH is not set
           --> job.toml:12:20
            |
         12 | config = { every = "env:FOREBAY_TEST_NO_SUCH" }
            |                    ^^^^^^^^^^^^^^^^^^^^^^^^^^ cannot be used
            = help: set it where forebay is started
    "#]]
    .assert_eq(&check("imports = [\"log\", \"state\", \"clock\"]\nconfig = { every = \"env:FOREBAY_TEST_NO_SUCH\" }"));
}

#[test]
fn check_warns_of_a_grant_without_use() {
    let dir = tempfile::tempdir().unwrap();
    job(dir.path(), GRANTED);
    let text = std::fs::read_to_string(dir.path().join("job.toml")).unwrap();
    let plain = "[functions.createArray]\ntype = \"wasm\"\ncomponent = \"create_array.wasm\"\nimports = \
        [\"clock\"]\nconfig = {}\n[outputs";
    write(dir.path(), "job.toml", &text.replace("[outputs", plain));
    std::fs::copy(component("create_array"), dir.path().join("create_array.wasm")).unwrap();
    let out = succeeds(dir.path(), &["check", "job.toml"]);
    let warnings = out.split("\n\nwarning").skip(1).map(|w| format!("warning{w}\n")).collect::<String>();
    expect![[r#"
        warning: `clock` is granted to `createArray`, which does not import it
           --> job.toml:16:12
            |
         16 | imports = ["clock"]
            |            ^^^^^^^ has no use
            = help: leave it out, or check that the component is the right one
        warning: `config` is granted to `createArray`, which does not import it
           --> job.toml:17:1
            |
         17 | config = {}
            | ^^^^^^ has no use
            = help: leave it out, or check that the component is the right one

        2 warnings
    "#]]
    .assert_eq(warnings.split("\nnote").next().unwrap());
}

#[test]
fn eval_runs_a_function_that_remembers_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    job(dir.path(), GRANTED);
    let doors = ["a", "b", "a", "a"]
        .iter()
        .enumerate()
        .map(|(i, who)| format!("{{\"who\":\"{who}\",\"t\":\"2024-05-01T00:00:0{i}Z\"}}\n"));
    write(dir.path(), "doors.jsonl", &doors.collect::<String>());
    let query = "SELECT who, udf.visitCount(who) AS visit INTO out FROM doors TIMESTAMP BY t";
    let run = || {
        cli_in(
            dir.path(),
            &[("FOREBAY_LOG", "info")],
            &["eval", query, "--input", "doors=doors.jsonl", "--job", "job.toml"],
        )
    };
    let (code, out, err) = run();
    assert_eq!(code, 0, "{err}");
    expect![[r#"
        {"output":"out","row":{"who":"a","visit":{"count":1,"last":null}}}
        {"output":"out","row":{"who":"b","visit":{"count":1,"last":null}}}
        {"output":"out","row":{"who":"a","visit":{"count":2,"last":"2024-05-01T00:00:00.0000000Z"}}}
        {"output":"out","row":{"who":"a","visit":{"count":3,"last":"2024-05-01T00:00:02.0000000Z"}}}
    "#]]
    .assert_eq(&out);
    assert!(err.contains("a has come 2 times"), "{err}");
    assert!(err.contains("visitCount"), "{err}");
    assert_eq!(run().1, out, "a run remembers nothing of the one before");
}

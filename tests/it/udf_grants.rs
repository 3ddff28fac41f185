//! Imports by grant: what a function may ask for, what it remembers, and that a `kill -9` does not change what that is.

#[path = "udf_grants/restarts.rs"]
mod restarts;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use expect_test::expect;
use forebay::query::builtins::RowError;
use forebay::query::catalog::{Catalog, FunctionDef, FunctionKind, InputDef, InputKind, Param, Shape, Signature};
use forebay::time::{Clock, Timestamp};
use forebay::udf::{
    Component, Engine, FunctionBinding, Grants, Host, Limits, StateLimits, UdfError, UserFunctions, json,
};
use forebay::value::Value;
use secrecy::SecretString;

use crate::harness::{cli_in, component, write};

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(None).unwrap());

const NOW: Timestamp = Timestamp::MIN;

fn guest(name: &str) -> Arc<Component> {
    Arc::new(
        Component::load(&ENGINE, &component(name), Limits { timeout: Duration::from_secs(10), ..Limits::default() })
            .unwrap(),
    )
}

/// Everything.
fn all(state: StateLimits) -> Grants {
    let setting = |(key, value): (&str, &str)| (key.to_owned(), SecretString::from(value));
    Grants {
        log: true,
        clock: true,
        state: Some(state),
        config: Some([("threshold", "5"), ("apikey", "k")].map(setting).into_iter().collect()),
        lookup: vec!["zones".into()],
    }
}

/// The asker under the given names, each a function of its own as in a job.
struct Asker {
    names: Vec<&'static str>,
    bindings: Vec<FunctionBinding>,
    host: Host,
}

impl Asker {
    fn new(names: &[&'static str], limits: StateLimits) -> Asker {
        let component = guest("asker");
        // one function name, so that all of them remember the same
        let bind = |name: &&str| {
            FunctionBinding::new(component.clone(), component.find(name).unwrap(), *name).granting(all(limits))
        };
        let bindings: Vec<_> = names.iter().map(bind).collect();
        let host = Host::new(&bindings).unwrap();
        Asker { names: names.to_vec(), bindings, host }
    }

    fn ask(&mut self, name: &str, args: &[&str]) -> Result<String, RowError> {
        let index = self.names.iter().position(|n| *n == name).unwrap();
        let args: Vec<Value> =
            args.iter().map(|text| json::parse(text).unwrap_or_else(|_| Value::text(text))).collect();
        self.host
            .call(index, &args, Timestamp::parse("2024-05-01T12:00:00.0000001Z").unwrap())
            .map(|value| value.to_json())
    }

    fn state(&mut self) -> BTreeMap<String, Option<String>> {
        let mut rows = Vec::new();
        self.host.take_state(&mut rows);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        rows.into_iter().map(|(key, value)| (text(key), value.map(text))).collect()
    }
}

fn ok(text: &str) -> Result<String, RowError> {
    Ok(text.to_owned())
}

#[test]
fn settings_and_event_time_are_what_the_job_says() {
    let mut asker = Asker::new(&["setting", "settings", "now"], StateLimits::default());
    assert_eq!(asker.ask("setting", &["threshold"]), ok(r#""5""#));
    assert_eq!(asker.ask("setting", &["Threshold"]), ok("null"));
    assert_eq!(asker.ask("settings", &[]), ok(r#"["apikey","threshold"]"#));
    assert_eq!(asker.ask("now", &[]), ok(r#""2024-05-01T12:00:00.0000001Z""#));
    assert!(!format!("{:?}", asker.bindings).contains("\"k\""), "a setting may be a secret");
}

#[test]
fn rows_of_a_reference_table_are_found_in_its_present_version() {
    let mut asker = Asker::new(&["first", "every", "pick"], StateLimits::default());
    let missing =
        RowError { reason: "udf_trap", message: "udf.first: looks into `zones`, which is not loaded".to_owned() };
    assert_eq!(asker.ask("first", &["zones", "name", "b"]), Err(missing));
    let denied = asker.ask("first", &["rates", "name", "b"]).unwrap_err();
    assert_eq!(
        denied.message,
        "udf.first: looks into `rates`, which is not granted; name it in `lookup` of the job file"
    );
    let table = |text: &str| match json::parse(text).unwrap() {
        Value::Array(rows) => Arc::new(rows.to_vec()),
        other => panic!("{other:?}"),
    };
    asker
        .host
        .set_reference("zones", &table(r#"[{"id":1,"name":"a"},{"id":2,"name":"b","fee":2.5},{"id":1.0,"name":"b"}]"#));
    assert_eq!(asker.ask("first", &["zones", "name", "b"]), ok(r#"{"id":2,"name":"b","fee":2.5}"#));
    assert_eq!(asker.ask("first", &["zones", "name", "c"]), ok("null"));
    assert_eq!(asker.ask("every", &["zones", "id", "1"]), ok(r#"[{"id":1,"name":"a"},{"id":1.0,"name":"b"}]"#));
    assert_eq!(asker.ask("pick", &["zones", "id", "2", "fee"]), ok(r#""2.5""#));
    asker.host.set_reference("zones", &table(r#"[{"id":2,"fee":3}]"#));
    assert_eq!(asker.ask("pick", &["zones", "id", "2", "fee"]), ok(r#""3""#));
}

/// All exports under one name: they remember the same.
fn one_memory(limits: StateLimits) -> impl FnMut(&str, &[&str]) -> Result<String, RowError> {
    // a binding an export would be a function each, so the export is exchanged behind the one name
    let component = guest("asker");
    let mut rows: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    move |name, args| {
        let binding =
            FunctionBinding::new(component.clone(), component.find(name).unwrap(), "ask").granting(all(limits));
        let mut host = Host::new(&[binding]).unwrap();
        rows.iter().for_each(|(key, value)| host.load_state(key, value).unwrap());
        let args: Vec<Value> = args.iter().map(Value::text).collect();
        let answer = host.call(0, &args, NOW).map(|value| value.to_json());
        let mut changed = Vec::new();
        host.take_state(&mut changed);
        for (key, value) in changed {
            rows.retain(|(known, _)| *known != key);
            rows.extend(value.map(|value| (key, value)));
        }
        answer
    }
}

#[test]
fn what_is_remembered_lasts_and_a_failed_call_leaves_no_trace() {
    let mut ask = one_memory(StateLimits::default());
    for (key, value) in [("kept", "1"), ("b", "2"), ("ba", "")] {
        assert_eq!(ask("remember", &[key, value]), ok("null"));
    }
    for (name, reason) in [
        ("remember-and-fail", "udf_error"),
        ("remember-and-trap", "udf_trap"),
        ("remember-and-overflow", "udf_conversion"),
    ] {
        assert_eq!(ask(name, &["b", "changed"]).unwrap_err().reason, reason);
        assert_eq!(ask(name, &["new", "x"]).unwrap_err().reason, reason);
        assert_eq!(ask("keys", &[""]), ok(r#"["b","ba","kept"]"#), "{name}");
        assert_eq!(ask("recall", &["b"]), ok(r#""2""#), "{name}");
    }
    assert_eq!(ask("forget", &["b"]), ok("null"));
    assert_eq!(ask("forget", &["never"]), ok("null"));
    assert_eq!(ask("recall", &["b"]), ok("null"));
    assert_eq!(ask("recall", &["ba"]), ok(r#""""#));
    assert_eq!(ask("keys", &["b"]), ok(r#"["ba"]"#));
}

#[test]
fn a_failed_call_leaves_no_trace_in_a_host_that_goes_on() {
    let mut asker = Asker::new(&["remember", "remember-and-trap"], StateLimits::default());
    asker.ask("remember", &["a", "1"]).unwrap();
    asker.ask("remember-and-trap", &["a", "2"]).unwrap_err();
    // functions do not share what they remember
    assert_eq!(asker.state().into_iter().collect::<Vec<_>>(), [("\u{8}remembera".to_owned(), Some("1".to_owned()))]);
    assert!(asker.state().is_empty());
    assert!(asker.host.state_bytes() > 0);
}

#[test]
fn past_its_limit_a_function_fails_the_row_and_goes_on_with_others() {
    let mut asker = Asker::new(&["remember"], StateLimits { bytes_max: 1024, key_bytes_max: 16 });
    asker.ask("remember", &["a", "x"]).unwrap();
    let long = "x".repeat(1000);
    // more than a pause takes
    for _ in 0..150 {
        let error = asker.ask("remember", &["b", &long]).unwrap_err();
        let message =
            "udf.remember: wants to remember 1131 bytes; delete what is old or raise `state_bytes_max` (1024)";
        assert_eq!(error, RowError { reason: "udf_state", message: message.to_owned() });
    }
    let error = asker.ask("remember", &["a key beyond all measure", ""]).unwrap_err();
    assert_eq!(
        error.message,
        "udf.remember: uses a state key of 24 bytes; use shorter ones or raise `state_key_bytes_max` (16)"
    );
    asker.ask("remember", &["a", "y"]).unwrap();
    assert_eq!(asker.bindings[0].stats.failures().find(|(reason, _)| *reason == "udf_state").unwrap().1, 151);
}

#[test]
fn a_chatty_function_is_cut_short_and_counted() {
    let component = guest("asker");
    let clock = Clock::manual(NOW);
    let export = component.find("say").unwrap();
    let binding =
        FunctionBinding::new(component, export, "say").granting_by(all(StateLimits::default()), clock.clone());
    let mut host = Host::new(std::slice::from_ref(&binding)).unwrap();
    let mut say = |times| host.call(0, &[Value::text("again"), Value::BigInt(times)], NOW).unwrap();
    say(1000);
    assert_eq!(binding.stats.log_lines(), (10, 990), "ten a second");
    clock.advance(Duration::from_millis(999));
    say(1);
    assert_eq!(binding.stats.log_lines(), (10, 991));
    clock.advance(Duration::from_millis(1));
    say(11);
    assert_eq!(binding.stats.log_lines(), (20, 992));
}

#[test]
fn nothing_is_granted_by_default_and_the_error_says_what_to_write() {
    let component = guest("visit_count");
    let binding = |grants| {
        FunctionBinding::new(component.clone(), component.find("visitCount").unwrap(), "visits").granting(grants)
    };
    let path = component.path().display().to_string();
    let said = |grants| Host::new(&[binding(grants)]).unwrap_err().to_string().replace(&path, "visit_count.wasm");
    expect![[r#"visit_count.wasm imports forebay:host/state@0.1.0, forebay:host/clock@0.1.0, forebay:host/config@0.1.0, forebay:host/log@0.1.0, which the job does not grant; write `imports = ["log", "state", "clock"]` and `config = { key = "value" }` in [functions.visits]"#]]
        .assert_eq(&said(Grants::default()));
    let some = Grants { log: true, config: Some(BTreeMap::new()), clock: true, ..Grants::default() };
    expect![[r#"visit_count.wasm imports forebay:host/state@0.1.0, which the job does not grant; write `imports = ["log", "state", "clock"]` in [functions.visits]"#]]
        .assert_eq(&said(some));
}

fn from_text(wat: &str) -> Result<Component, UdfError> {
    Component::from_bytes(&ENGINE, Path::new("test.wasm"), &wat::parse_str(wat).unwrap(), Limits::default())
}

/// A component that tells the time; `start` is what its start function does.
fn clock(version: &str, result: &str, start: &str) -> String {
    format!(
        r#"(component
          (type $clock (instance
            (type $d (record (field "ticks-since-year-one" s64)))
            (export "datetime" (type $datetime (eq $d)))
            (export "now" (func (result {result})))))
          (import "forebay:host/clock@{version}" (instance $clock (type $clock)))
          (core func $now (canon lower (func $clock "now")))
          (core module $m
            (import "clock" "now" (func $now (result i64)))
            (func $start {start})
            (start $start)
            (func (export "f") (result i64) (call $now)))
          (core instance $i (instantiate $m (with "clock" (instance (export "now" (func $now))))))
          (func (export "f") (result s64) (canon lift (core func $i "f"))))"#
    )
}

#[test]
fn a_guest_without_bindings_asks_in_the_same_way() {
    let granted = |component| {
        FunctionBinding::new(Arc::new(component), 0, "f").granting(Grants { clock: true, ..Grants::default() })
    };
    let mut host = Host::new(&[granted(from_text(&clock("0.1.0", "$datetime", "")).unwrap())]).unwrap();
    assert_eq!(host.call(0, &[], NOW.saturating_add(7)), Ok(Value::BigInt(NOW.ticks() + 7)));

    // there is no row while an instance starts
    let error =
        Host::new(&[granted(from_text(&clock("0.1.0", "$datetime", "(drop (call $now))")).unwrap())]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "test.wasm does not start: calls forebay:host/clock before it is called itself; there is no row then: use it inside the function"
    );

    let error = from_text(&clock("0.2.0", "$datetime", "")).unwrap_err();
    assert!(
        matches!(&error, UdfError::UnknownImport { imports, .. } if imports == "forebay:host/clock@0.2.0"),
        "{error}"
    );
    let error = from_text(&clock("0.1.0", "s64", "")).unwrap_err();
    assert!(matches!(&error, UdfError::Start { reason, .. } if reason.contains("forebay:host/clock")), "{error}");
}

/// A job of one function, with its grants.
fn job(dir: &Path, grants: &str) {
    let text = format!(
        "[job]\nname = \"visits\"\nquery = \"job.asaql\"\n[inputs.doors]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:1883\"\ntopics = [\"door\"]\n\
         [functions.visitCount]\ntype = \"wasm\"\ncomponent = \"visit_count.wasm\"\n{grants}\n[outputs.out]\ntype = \"stdout\"\n"
    );
    write(dir, "job.toml", &text);
    write(dir, "job.asaql", "SELECT udf.visitCount(who) AS visit INTO out FROM doors");
    std::fs::copy(component("visit_count"), dir.join("visit_count.wasm")).unwrap();
}

const GRANTED: &str = "imports = [\"log\", \"state\", \"clock\"]\nconfig = { every = 2 }";

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
    let plain = "[functions.createArray]\ntype = \"wasm\"\ncomponent = \"create_array.wasm\"\nimports = [\"clock\"]\nconfig = {}\n[outputs";
    write(dir.path(), "job.toml", &text.replace("[outputs", plain));
    std::fs::copy(component("create_array"), dir.path().join("create_array.wasm")).unwrap();
    let (code, out, err) = cli_in(dir.path(), &[], &["check", "job.toml"]);
    assert_eq!((code, err.as_str()), (0, ""));
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

fn compile(query: &str) -> String {
    let whole = || Shape::Integer { min: i64::MIN, max: i64::MAX };
    let signature = Signature {
        params: vec![Param { name: "x".to_owned(), shape: whole() }],
        rest: None,
        result: whole(),
        text: String::new(),
    };
    let input = |name: &str| InputDef { name: name.to_owned(), kind: InputKind::Stream };
    let catalog = Catalog {
        inputs: vec![input("a"), input("b")],
        outputs: None,
        functions: vec![
            FunctionDef {
                name: "tally".to_owned(),
                kind: FunctionKind::Local { index: 0, signature, keeps_state: true },
            },
            FunctionDef { name: "score".to_owned(), kind: FunctionKind::External },
        ],
    };
    match forebay::query::compile(query, "q.asaql", &catalog) {
        Ok(plan) => format!(
            "{} part(s), stateful: {:?}",
            plan.statements[0].parts.len(),
            plan.statements[0].parts.iter().map(|p| p.is_stateful()).collect::<Vec<_>>()
        ),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn a_function_that_keeps_state_is_called_where_rows_have_an_order() {
    for (query, wanted) in [
        ("SELECT udf.tally(v) AS n FROM a", "1 part(s), stateful: [true]"),
        (
            "WITH s AS (SELECT v, udf.tally(v) AS n FROM a) SELECT n, v FROM s WHERE n > 1",
            "1 part(s), stateful: [true]",
        ),
        ("SELECT udf.score(udf.tally(v)) AS n FROM a", "1 part(s), stateful: [true]"),
        ("WITH s AS (SELECT udf.score(v) AS p FROM a) SELECT udf.tally(p) AS n FROM s", "1 part(s), stateful: [true]"),
    ] {
        assert_eq!(compile(query), wanted, "{query}");
    }
    expect![[r#"
        error: a function that keeps state is called in two places of one statement
          --> q.asaql:1:39
           |
         1 | SELECT udf.tally(v) AS n FROM a WHERE udf.tally(v) > 1
           |                                       ^^^^^^^^^^^^ which call comes first is not defined
           = help: call it once, in a step that is read once: `WITH s AS (SELECT …, udf.f(x) AS y FROM …) SELECT … FROM s`
    "#]]
    .assert_eq(&compile("SELECT udf.tally(v) AS n FROM a WHERE udf.tally(v) > 1"));
    expect![[r#"
        error: a function that keeps state is called in two places of one statement
          --> q.asaql:1:22
           |
         1 | WITH s AS (SELECT k, udf.tally(v) AS n FROM a) SELECT x.n AS p, y.n AS q FROM s x JOIN s y ON x.k = y.k AND DATEDIFF(second, x, y) BETWEEN 0 AND 1
           |                      ^^^^^^^^^^^^ which call comes first is not defined
           = help: call it once, in a step that is read once: `WITH s AS (SELECT …, udf.f(x) AS y FROM …) SELECT … FROM s`
    "#]].assert_eq(&compile("WITH s AS (SELECT k, udf.tally(v) AS n FROM a) SELECT x.n AS p, y.n AS q FROM s x JOIN s y ON x.k = y.k AND DATEDIFF(second, x, y) BETWEEN 0 AND 1"));
    expect![[r#"
        error: a function that keeps state would be called more than once for this
          --> q.asaql:1:13
           |
         1 | SELECT CASE udf.tally(v) WHEN 1 THEN 'a' WHEN 2 THEN 'b' ELSE 'c' END AS n FROM a
           |             ^^^^^^^^^^^^ its value is needed several times a row
           = help: call it once, in a step that is read once: `WITH s AS (SELECT …, udf.f(x) AS y FROM …) SELECT … FROM s`
    "#]]
    .assert_eq(&compile("SELECT CASE udf.tally(v) WHEN 1 THEN 'a' WHEN 2 THEN 'b' ELSE 'c' END AS n FROM a"));
    expect![[r#"
        error: a function that keeps state in a query with TIMESTAMP BY … OVER
          --> q.asaql:1:8
           |
         1 | SELECT udf.tally(v) AS n FROM a TIMESTAMP BY t OVER k
           |        ^^^^^^^^^^^^ rows of different substreams have no order among each other
           = help: leave OVER out, or leave the grant `state` out
    "#]]
    .assert_eq(&compile("SELECT udf.tally(v) AS n FROM a TIMESTAMP BY t OVER k"));
    expect![[r#"
        error: `udf.tally` keeps state and cannot stand in a JOIN condition
          --> q.asaql:1:33
           |
         1 | SELECT x.v FROM a x JOIN b y ON udf.tally(x.k) = y.k AND DATEDIFF(second, x, y) BETWEEN 0 AND 1
           |                                 ^^^^^^^^^^^^^^ it is not called once a row here
           = help: call it in a step, `WITH s AS (SELECT …, udf.tally(x) AS y FROM …)`, and use the column there
    "#]]
    .assert_eq(&compile(
        "SELECT x.v FROM a x JOIN b y ON udf.tally(x.k) = y.k AND DATEDIFF(second, x, y) BETWEEN 0 AND 1",
    ));
    expect![[r#"
        error: `udf.tally` keeps state and cannot stand in an analytic function
          --> q.asaql:1:12
           |
         1 | SELECT LAG(udf.tally(v)) OVER (LIMIT DURATION(second, 5)) AS n FROM a
           |            ^^^^^^^^^^^^ it is not called once a row here
           = help: call it in a step, `WITH s AS (SELECT …, udf.tally(x) AS y FROM …)`, and use the column there
    "#]]
    .assert_eq(&compile("SELECT LAG(udf.tally(v)) OVER (LIMIT DURATION(second, 5)) AS n FROM a"));
    expect![[r#"
        error: `udf.tally` keeps state and cannot stand in TIMESTAMP BY
          --> q.asaql:1:46
           |
         1 | SELECT v FROM a TIMESTAMP BY DATEADD(second, udf.tally(v), t)
           |                                              ^^^^^^^^^^^^ it is not called once a row here
           = help: call it in a step, `WITH s AS (SELECT …, udf.tally(x) AS y FROM …)`, and use the column there
    "#]]
    .assert_eq(&compile("SELECT v FROM a TIMESTAMP BY DATEADD(second, udf.tally(v), t)"));
}

//! The same functions in each language of `udfs/`: same rows in, same rows out. A language that was left out when the
//! guests were built is named on standard error, past the test's capture, and by `make test` at its end.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use forebay::time::Timestamp;
use forebay::udf::{Component, Engine, FunctionBinding, Host, Limits, UserFunctions as _, json};
use forebay::value::Value;

/// Compiled once: the code of the larger guests takes half a minute.
static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Some(cache())).unwrap());
static LOADED: LazyLock<Mutex<HashMap<&'static str, Arc<Component>>>> = LazyLock::new(Mutex::default);

/// Event time of the rows of these tests.
const NOW: Timestamp = Timestamp::MIN;
/// Calls after which an instance is replaced (`udf::instance`).
const RECYCLE: usize = 10_000;

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests-cache")
}

fn components() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("udfs/target/components")
}

/// A language and its guest.
#[derive(Clone, Copy, Debug)]
struct Language {
    name: &'static str,
    /// the component with `create_array`, and that with `create_row`
    files: [&'static str; 2],
    /// what it has beside the taxi functions: arguments and result as JSON
    own: &'static [(&'static str, &'static str, &'static str)],
    /// a call that is the row's error, and its words
    refuses: Option<(&'static str, &'static str, &'static str)>,
}

const LANGUAGES: [Language; 8] = [
    Language { name: "Rust", files: ["create_array", "create_row"], own: &[], refuses: None },
    Language {
        name: "C",
        files: ["taxi_c"; 2],
        own: &[
            ("smooth", "[[], 0.1]", "[]"),
            ("smooth", "[[3, 3, 3.0], 0.25]", "[3.0,3.0,3.0]"),
            ("smooth", "[[0, 0, 4, 0, 0], 0.25]", SMOOTHED),
        ],
        refuses: Some(("smooth", "[[1], 0.5]", "cutoff is a fraction of the sampling rate, between 0 and 0.5")),
    },
    Language {
        name: "Zig",
        files: ["taxi_zig"; 2],
        // the last two bytes of Modbus's own example are C4 0B, the low one first
        own: &[("crc16", r#"["010300000002"]"#, "3012"), ("crc16", r#"[""]"#, "65535")],
        refuses: Some(("crc16", r#"["0g"]"#, "a frame has hex digits alone")),
    },
    Language {
        name: "JavaScript",
        files: ["taxi_javascript"; 2],
        own: &[
            (
                "parseLine",
                r#"["2024-05-01 10:00:00 [WARN] pump-7: pressure=3.2 bar, rpm=1480"]"#,
                r#"{"at":"2024-05-01T10:00:00Z","level":"warn","device":"pump-7","readings":{"pressure":3.2,"rpm":1480}}"#,
            ),
            ("parseLine", r#"["nothing of the kind"]"#, "null"),
            // values of any type, NULL with them
            ("createArray", r#"[true, null, [1, {"a": 2.5}], "ü", -7]"#, r#"[true,null,[1,{"a":2.5}],"ü",-7]"#),
            // a Date keeps its digits, a bigint beyond 2^53 does not
            (
                "createArray",
                r#"["2024-05-01T10:00:00.1234567Z", 9007199254740993, 2.0, 1, 1]"#,
                r#"["2024-05-01T10:00:00.1234567Z",9007199254740992,2,1,1]"#,
            ),
        ],
        refuses: Some(("isWeekend", "[7]", "TypeError: at.getUTCDay is not a function")),
    },
    Language {
        name: "Python",
        files: ["taxi_python"; 2],
        own: &[
            ("summarize", "[[1, 2, 6]]", r#"{"mean":3.0,"median":2.0,"stdev":2.6457513110645907}"#),
            ("summarize", "[[5]]", r#"{"mean":5.0,"median":5.0,"stdev":null}"#),
            // a Wednesday, at 18 of the zone
            ("is_working_hour", r#"["2024-05-01T15:59:59.9999999Z", 2]"#, "true"),
            ("is_working_hour", r#"["2024-05-01T16:00:00Z", 2]"#, "false"),
        ],
        refuses: Some(("summarize", "[[]]", "fmean requires at least one data point")),
    },
    Language {
        name: "Go",
        files: ["taxi_go"; 2],
        own: &[
            (
                "sort_names",
                r#"[["pump-10", "pump-2", "Pump-1", "", "pump-2b"]]"#,
                r#"["","Pump-1","pump-2","pump-2b","pump-10"]"#,
            ),
            ("sort_names", r#"[["7 ü", "007 a", "70"]]"#, r#"["007 a","7 ü","70"]"#),
        ],
        refuses: Some(("sort_names", r#"["x"]"#, "json: cannot unmarshal string into .0 of type []string")),
    },
    Language {
        name: "AssemblyScript",
        files: ["taxi_assemblyscript"; 2],
        own: &[
            ("distanceKm", "[52.5, 13.4, 52.5, 13.4]", "0.0"),
            // a quarter of the way round
            ("distance_km", "[0, 0, 0, 90.0]", "10007.55722101796"),
        ],
        refuses: Some(("createRow", "[1, 2]", "createRow takes 5 arguments")),
    },
    Language {
        name: "WAT",
        files: ["taxi_wat"; 2],
        own: &[
            ("scale", "[0, -40, 85]", "-40.0"),
            ("scale", "[4095, -40, 85]", "85.0"),
            ("scale", "[null, -40, 85]", "null"),
        ],
        refuses: Some(("create_array", "[]", "takes 5 arguments")),
    },
];

/// Butterworth's low pass of the second order at a quarter of the sampling rate, after a step of one sample by 4.
const SMOOTHED: &str = "[0.0,0.0,1.17157287525381,2.34314575050762,0.9705627484771406]";

/// Rows of `createArray`: five texts.
const ARRAYS: [&str; 5] = [
    r#"["1","Monday","5","2","5.8"]"#,
    r#"["","","","",""]"#,
    r#"["a \"quoted\" one","back\\slash","[1,{2","],}","tab\tand\nline"]"#,
    r#"["ü","日本","🚕🚕","\u0000","\u001f"]"#,
    r#"["null","true","-0","1e400","9223372036854775808"]"#,
];

/// Rows of `createRow`: a text among numbers.
const ROWS: [(&str, &str); 4] = [
    (r#"[1,"Monday",5,2,5.8]"#, r#"{"vendorid":1,"weekday":"Monday","pickuphour":5,"passenger":2,"distance":5.8}"#),
    (r#"[-1,"",0,0,-0.125]"#, r#"{"vendorid":-1,"weekday":"","pickuphour":0,"passenger":0,"distance":-0.125}"#),
    (
        r#"[9007199254740991,"},[\"🚕\\",-9007199254740991,0,1e-300]"#,
        r#"{"vendorid":9007199254740991,"weekday":"},[\"🚕\\","pickuphour":-9007199254740991,"passenger":0,"distance":1e-300}"#,
    ),
    (
        r#"[0,"x",23,9,123456.789]"#,
        r#"{"vendorid":0,"weekday":"x","pickuphour":23,"passenger":9,"distance":123456.789}"#,
    ),
];

/// Its guests, unless it was left out; said aloud then.
fn built(language: &Language) -> Option<[Arc<Component>; 2]> {
    let [array, row] = language.files.map(guest);
    Some([array?, row?])
}

fn guest(file: &'static str) -> Option<Arc<Component>> {
    let path = components().join(file).with_extension("wasm");
    if !path.exists() {
        let left_out = std::fs::read_to_string(components().join("left_out")).unwrap_or_default();
        let line = left_out.lines().find(|line| line.split('\t').nth(1) == Some(file));
        let line = line.unwrap_or_else(|| panic!("{} is missing: run `make udfs`", path.display()));
        let (language, how) = (line.split('\t').next().unwrap(), line.split('\t').nth(2).unwrap());
        say_aloud(&format!("{language} was left out; {how}"));
        return None;
    }
    let mut loaded = LOADED.lock().unwrap();
    let load = || {
        // the time of a busy machine; all other limits are those of a job that names none
        let limits = Limits { timeout: Duration::from_secs(30), ..Limits::default() };
        Arc::new(Component::load(&ENGINE, &path, limits).unwrap())
    };
    Some(Arc::clone(loaded.entry(file).or_insert_with(load)))
}

/// Not by eprintln: what a test prints so is shown only when it fails.
fn say_aloud(what: &str) {
    let mut stderr = std::io::stderr();
    writeln!(stderr, "NOT TESTED: {what}").unwrap();
}

fn bind(component: &Arc<Component>, name: &str) -> FunctionBinding {
    FunctionBinding::new(Arc::clone(component), component.find(name).unwrap(), name)
}

fn arguments(text: &str) -> Vec<Value> {
    match json::parse(text).unwrap() {
        Value::Array(items) => items.to_vec(),
        other => panic!("{other:?} are no arguments"),
    }
}

#[test]
fn every_language_gives_the_same_rows() {
    for language in &LANGUAGES {
        let Some([array, row]) = built(language) else { continue };
        let mut host = Host::new(&[bind(&array, "createArray"), bind(&row, "create_row")]).unwrap();
        for text in ARRAYS {
            assert_eq!(
                host.call(0, &arguments(text), NOW),
                Ok(json::parse(text).unwrap()),
                "{}: {text}",
                language.name
            );
        }
        for (given, wanted) in ROWS {
            assert_eq!(
                host.call(1, &arguments(given), NOW),
                Ok(json::parse(wanted).unwrap()),
                "{}: {given}",
                language.name
            );
        }
    }
}

#[test]
fn every_language_does_what_it_is_good_at() {
    for language in &LANGUAGES {
        let Some([component, _]) = built(language) else { continue };
        for (name, given, wanted) in language.own {
            let mut host = Host::new(&[bind(&component, name)]).unwrap();
            let given: Vec<Value> = arguments(given).into_iter().map(moments).collect();
            assert_eq!(host.call(0, &given, NOW).unwrap().to_json(), *wanted, "{}: {name}", language.name);
        }
    }
}

/// JSON has no datetimes: a text that is one to the last digit stands for it.
fn moments(value: Value) -> Value {
    match &value {
        Value::Text(text) if text.len() == "2024-05-01T10:00:00.1234567Z".len() => {
            Timestamp::parse(text).map_or_else(|| value.clone(), Value::DateTime)
        }
        _ => value,
    }
}

#[test]
fn an_error_in_any_language_is_one_row() {
    for language in &LANGUAGES {
        let (Some((name, given, words)), Some([component, _])) = (language.refuses, built(language)) else { continue };
        let bindings = [bind(&component, name), bind(&component, "createArray")];
        let mut host = Host::new(&bindings).unwrap();
        for _ in 0..3 {
            let error = host.call(0, &arguments(given), NOW).unwrap_err();
            assert_eq!(
                (error.reason, error.message),
                ("udf_error", format!("udf.{name}: {words}")),
                "{}",
                language.name
            );
            assert_eq!(
                host.call(1, &arguments(ARRAYS[0]), NOW),
                Ok(json::parse(ARRAYS[0]).unwrap()),
                "{}",
                language.name
            );
        }
        // and none of them the instance
        assert_eq!(bindings.iter().map(|b| b.stats.instances()).sum::<u64>(), 1, "{}", language.name);
    }
}

/// A leak of one row's bytes a call would be 20 MiB here.
#[test]
fn memory_stays_flat_over_200_000_calls() {
    let soak = |language: &Language| {
        let Some([component, _]) = built(language) else { return };
        let binding = bind(&component, "createArray");
        let mut host = Host::new(std::slice::from_ref(&binding)).unwrap();
        let rows: Vec<Vec<Value>> = ARRAYS.iter().map(|text| arguments(text)).collect();
        let mut run = |calls: usize| {
            for i in 0..calls {
                host.call(0, &rows[i % rows.len()], NOW).unwrap();
            }
            binding.stats.memory_bytes_max()
        };
        let warm = run(2 * RECYCLE);
        assert_eq!(
            run(200_000 - 2 * RECYCLE),
            warm,
            "{}: bytes of memory after two instances, and after twenty",
            language.name
        );
        assert!(binding.stats.instances() >= 20, "{}", language.name);
    };
    std::thread::scope(|scope| {
        let (first, second) = LANGUAGES.split_at(4);
        scope.spawn(|| first.iter().for_each(soak));
        scope.spawn(|| second.iter().for_each(soak));
    });
}

/// The function of Stream Analytics' article on machine learning, as it stands there.
const ARTICLE: &str = "function createArray(vendorid, weekday, pickuphour, passenger, distance) {
    'use strict';
    var array = [vendorid, weekday, pickuphour, passenger, distance]
    return array;
}
";

#[test]
fn the_articles_function_runs_in_a_query_unchanged() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("udfs/javascript/taxi.js");
    assert!(std::fs::read_to_string(source).unwrap().contains(ARTICLE));
    if guest("taxi_javascript").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let component = components().join("taxi_javascript.wasm");
    write(
        "job.toml",
        &format!(
            "[job]\nname = \"taxi\"\nquery = \"taxi.asaql\"\n[inputs.rides]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1\"\ntopics = [\"t\"]\n\
             [functions.createArray]\ntype = \"wasm\"\ncomponent = {component:?}\ntimeout = \"30s\"\n\
             [outputs.features]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1\"\ntopic = \"u\"\n"
        ),
    );
    write(
        "taxi.asaql",
        "SELECT udf.createArray(vendorid, weekday, pickuphour, passenger, distance) AS a INTO features FROM rides",
    );
    write(
        "rides.json",
        r#"[{"vendorid": "2", "weekday": "Monday", "pickuphour": 17, "passenger": null, "distance": 8.5}]"#,
    );
    let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["eval", "taxi.asaql", "--input", "rides=rides.json", "--job", "job.toml"])
        .env("CACHE_DIRECTORY", cache())
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "{\"output\":\"features\",\"row\":{\"a\":[\"2\",\"Monday\",17,null,8.5]}}\n"
    );
}

/// `forebay` run in a folder with these files: its exit code and what it wrote to standard error.
fn refused(files: &[(&str, &str)], args: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["udf", "build"])
        .args(args)
        .env_remove("FOREBAY_COMPONENTIZE_JS")
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.stdout.is_empty());
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_is_wrong_with_a_javascript_file_is_shown_where_it_is() {
    if Command::new("node").arg("--version").output().is_err() {
        say_aloud("problems of JavaScript files; install Node.js 20 or newer");
        return;
    }
    let cases = [
        (
            "function add(a, b) {\n    return a +;\n}\n",
            2,
            "error: this is no JavaScript: Unexpected token ';'\n  --> add.js:2:15\n   |\n 2 |     return a +;\n   |               ^\n",
        ),
        (
            "export function add(a, b) { return a + b; }\n",
            2,
            "error: this is no JavaScript: Unexpected token 'export'\n  --> add.js:1:1\n   |\n 1 | export function add(a, b) { return a + b; }\n   | ^^^^^^\n   = help: leave out `import` and `export`: the file is a plain script\n",
        ),
        (
            "var add = 5;\n",
            2,
            "error: the file declares no functions\n  --> add.js\n   = help: functions stand at the top level of the file, as in Stream Analytics: `function add(a, b) { return a + b; }`\n",
        ),
        (
            "function add(a) { return a; }\nnowhere();\n",
            2,
            "error: the file ends with an error when it is run: nowhere is not defined\n  --> add.js:2:1\n   |\n 2 | nowhere();\n   | ^\n",
        ),
        (
            "function a_b() {}\nfunction aB() {}\n",
            2,
            "error: `a_b` and `aB` are one name to a query\n  --> add.js\n   = help: rename one of them\n",
        ),
        (
            "function _() {}\n",
            2,
            "error: `_` cannot be the name of a function of a query\n  --> add.js\n   = help: begin it with a letter, and use letters and digits of English\n",
        ),
        (
            "function add(a, b) { return a + b; }\n",
            1,
            "error: componentize-js is missing, which puts a JavaScript engine into the component\n = help: npm install @bytecodealliance/componentize-js@0.23 @bytecodealliance/preview2-shim@0.25   (here or beside the file; or name its folder in FOREBAY_COMPONENTIZE_JS)\n",
        ),
    ];
    for (text, code, wanted) in cases {
        assert_eq!(refused(&[("add.js", text)], &["add.js"]), (Some(code), wanted.to_owned()), "{text}");
    }
}

/// The interface that `forebay udf build` writes for a file, from a stand-in for componentize-js that gives it back.
fn interface(name: &str, text: &str) -> String {
    const STAND_IN: &str = "export const componentize = (module, wit) => ({ component: wit });";
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("src")).unwrap();
    // read as a module: a folder's package.json says so
    for (name, text) in [("src/componentize.js", STAND_IN), ("package.json", "{\"type\": \"module\"}"), (name, text)] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["udf", "build", name, "-o", "out"])
        .env("FOREBAY_COMPONENTIZE_JS", folder.path())
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    std::fs::read_to_string(folder.path().join("out")).unwrap()
}

#[test]
fn functions_are_found_however_a_file_declares_them() {
    if Command::new("node").arg("--version").output().is_err() {
        say_aloud("the forms of JavaScript functions; install Node.js 20 or newer");
        return;
    }
    let text = "\u{feff}// add(x)\r\nconst add = (a, b) => a + b;\r\nlet most = x => Math.max(x, 1);\r\nclass Helper {}\r\n\
                var scale = function (value, /* (times) */ by) { return value * by; };\r\n\
                function limit(x, max = Math.min(1, 2)) { return x; }\r\nfunction open({ a, b }, c) { return a; }";
    let wit = interface("several.js", text);
    let mut exports: Vec<_> = wit.lines().filter_map(|line| line.trim().strip_prefix("export %")).collect();
    exports.sort_unstable();
    let wanted = [
        "add: func(%a: option<json>, %b: option<json>)",
        "limit: func(%x: option<json>)",
        "most: func(%x: option<json>)",
        "open: func(%arg1: option<json>, %arg2: option<json>)",
        "scale: func(%value: option<json>, %by: option<json>)",
    ];
    assert_eq!(exports, wanted.map(|func| format!("{func} -> result<option<json>, string>;")));
}

#[test]
fn an_aggregate_whose_state_lies_in_closures_is_not_saved() {
    if Command::new("node").arg("--version").output().is_err() {
        say_aloud("the forms of JavaScript aggregates; install Node.js 20 or newer");
        return;
    }
    let methods = "this.accumulate = function (v, at) {}; this.computeResult = function () { return 0; };";
    // the name is a word of WIT
    let closed = interface(
        "result.js",
        &format!("function main() {{ var sum = 0; this.init = function () {{ sum = 0; }}; {methods} }}"),
    );
    assert!(
        closed.contains("resource %result {") && closed.contains("accumulate: func(value: option<json>, at: datetime)"),
        "{closed}"
    );
    assert!(!closed.contains("save") && !closed.contains("restore"), "{closed}");
    let open = interface(
        "result.js",
        &format!("function main() {{ this.init = function () {{ this.sum = 0; }}; {methods} }}"),
    );
    assert!(open.contains("save: func() -> list<u8>;") && open.contains("(state: list<u8>) -> %result;"), "{open}");
}

/// What a file's function gives, or the words of its error: the part of each component that stands around it.
#[test]
fn what_has_no_text_is_null_or_an_error_of_the_row() {
    const SCRIPT: &str = r#"
        const say = (theirs) => { try { console.log(called(theirs)()?.jsonText ?? 'NULL'); } catch (error) { console.log(typeof error, error); } };
        say(() => ({ toJSON() { return undefined; } }));
        say(async () => 1);
        say(() => { throw Object.create(null); });
        say(() => { throw 'plain'; });
    "#;
    let values = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/udf/build/javascript/values.js");
    let script = std::fs::read_to_string(values).unwrap() + SCRIPT;
    let Ok(output) = Command::new("node").args(["--eval", &script]).output() else {
        say_aloud("results of JavaScript functions; install Node.js 20 or newer");
        return;
    };
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let wanted = "NULL\nstring TypeError: gave a Promise; a function has to give its value at once\n\
                  string threw an object without a text\nstring plain\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), wanted);
}

#[test]
fn a_module_that_does_not_keep_to_its_world_is_refused() {
    let files = [
        (
            "add.wat",
            "(module (func (export \"add\") (param i64 i64) (result i64) (i64.add (local.get 0) (local.get 1))))",
        ),
        ("bad.wat", "(module (func (export \"f\") (param i99)))"),
        (
            "add.wit",
            "package a:b;\nworld sums { export add: func(a: s64, b: s64) -> s64; }\nworld other { export sub: func(a: s64) -> s64; }",
        ),
    ];
    let cases: [(&[&str], &str); 5] = [
        (&["bad.wat"], "error: unexpected token, expected one of: `i32`, "),
        (
            &["add.wat", "--wit", "add.wit"],
            "error: add.wit: There are multiple worlds in `a:b`; one must be explicitly chosen:",
        ),
        (
            &["add.wat", "--wit", "add.wit", "--world", "none"],
            "error: add.wit: World `none` not found in package `a:b`",
        ),
        (
            &["add.wat", "--wit", "none.wit", "--world", "sums"],
            "error: none.wit: failed to read path for WIT [none.wit]",
        ),
        (
            &["add.wat", "--wit", "add.wit", "--world", "other"],
            "error: add.wat does not become a component: failed to decode world from module",
        ),
    ];
    for (args, start) in cases {
        let (code, said) = refused(&files, args);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.starts_with(start), "{said}");
    }
}

#[test]
fn a_module_gets_its_world_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let [text, wit, out] = ["add.wat", "add.wit", "add.wasm"].map(|name| folder.path().join(name));
    std::fs::write(
        &text,
        "(module (func (export \"add\") (param i64 i64) (result i64) (i64.add (local.get 0) (local.get 1))))",
    )
    .unwrap();
    std::fs::write(&wit, "package a:b;\nworld sums { export add: func(a: s64, b: s64) -> s64; }").unwrap();
    let built = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["udf", "build"])
        .args([&text, Path::new("--wit"), &wit])
        .status()
        .unwrap();
    assert!(built.success());
    let component = Arc::new(Component::load(&ENGINE, &out, Limits::default()).unwrap());
    assert_eq!(component.kind(), "WIT");
    let mut host = Host::new(&[bind(&component, "add")]).unwrap();
    assert_eq!(host.call(0, &[Value::BigInt(40), Value::BigInt(2)], NOW), Ok(Value::BigInt(42)));
}

#[test]
fn an_aggregate_of_stream_analytics_is_a_resource() {
    let Some(component) = guest("time_weighted") else { return };
    let names: Vec<&str> = component.exports().iter().map(|e| e.name.as_str()).collect();
    assert!(names.iter().any(|name| name.contains("time-weighted")), "{names:?}");
    // it takes nothing back
    assert!(!names.iter().any(|name| name.ends_with(".deaccumulate")), "{names:?}");
}

/// What the component runs, in node: its parts are plain JavaScript.
#[test]
fn the_state_of_an_aggregate_comes_back_as_it_was() {
    const SCRIPT: &str = r#"
        const Mean = aggregateOf(main);
        const at = (seconds) => ({ ticksSinceYearOne: TICKS_1970 + BigInt(seconds) * 10000000n });
        const say = (value) => console.log(value === undefined ? 'NULL' : value.jsonText);
        let mean = new Mean();
        say(mean.compute());
        mean.accumulate({ jsonText: '10' }, at(0));
        say(mean.compute());
        mean.accumulate({ jsonText: '40' }, at(1));
        mean = Mean.restore(mean.save());
        mean.accumulate({ jsonText: '0' }, at(3));
        say(mean.compute());

        function Odd() {
            this.accumulate = function (value) { if (value === 'map') this.map = new Map(); else throw new RangeError('no ' + value); };
            this.computeResult = function () { return [this.low, this.high, this.none, this.since, this.since instanceof Date, this.low === Infinity]; };
            this.init = function () { this.low = Infinity; this.high = -Infinity; this.none = NaN; this.since = new Date(1500); };
        }
        const Extremes = aggregateOf(Odd);
        let odd = Extremes.restore(Extremes.restore(new Extremes().save()).save());
        say(odd.compute());
        const thrown = (work) => { try { work(); } catch (error) { console.log(String(error)); } };
        thrown(() => odd.accumulate({ jsonText: '"x"' }, at(0)));
        odd.accumulate({ jsonText: '"map"' }, at(0));
        thrown(() => odd.save());
    "#;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let part = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let script = part("src/udf/build/javascript/values.js") + &part("udfs/javascript/time_weighted.js") + SCRIPT;
    let Ok(output) = Command::new("node").args(["--eval", &script]).output() else {
        say_aloud("the state of JavaScript aggregates; install Node.js 20 or newer");
        return;
    };
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    // (10 for one second and 40 for two) / 3
    let wanted = "null\n10\n30\n[null,null,null,\"1970-01-01T00:00:01.5000000Z\",true,true]\nRangeError: no x\n\
                  TypeError: the field `map` is no plain object or array: it cannot be saved\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), wanted.replacen("null", "NULL", 1));
}

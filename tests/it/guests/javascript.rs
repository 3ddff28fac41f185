//! JavaScript: the functions and aggregates of Stream Analytics as they are.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use forebay::udf::{Component, Host, Limits, UserFunctions as _};
use forebay::value::Value;

use super::{ENGINE, NOW, bind, cache, components, guest, say_aloud};

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
            "[job]\nname = \"taxi\"\nquery = \"taxi.asaql\"\n[inputs.rides]\ntype = \"mqtt\"\n\
            url = \"mqtt://127.0.0.1\"\ntopics = [\"t\"]\n\
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
            "error: this is no JavaScript: Unexpected token ';'\n  --> add.js:2:15\n   |\n 2 |     return a +;\n   \
            |               ^\n",
        ),
        (
            "export function add(a, b) { return a + b; }\n",
            2,
            "error: this is no JavaScript: Unexpected token 'export'\n  --> add.js:1:1\n   |\n 1 | export function \
            add(a, b) { return a + b; }\n   | ^^^^^^\n   = help: leave out `import` and `export`: the file is a plain \
            script\n",
        ),
        (
            "var add = 5;\n",
            2,
            "error: the file declares no functions\n  --> add.js\n   = help: functions stand at the top level of the \
            file, as in Stream Analytics: `function add(a, b) { return a + b; }`\n",
        ),
        (
            "function add(a) { return a; }\nnowhere();\n",
            2,
            "error: the file ends with an error when it is run: nowhere is not defined\n  --> add.js:2:1\n   |\n 2 | \
            nowhere();\n   | ^\n",
        ),
        (
            "function a_b() {}\nfunction aB() {}\n",
            2,
            "error: `a_b` and `aB` are one name to a query\n  --> add.js\n   = help: rename one of them\n",
        ),
        (
            "function _() {}\n",
            2,
            "error: `_` cannot be the name of a function of a query\n  --> add.js\n   = help: begin it with a letter, \
            and use letters and digits of English\n",
        ),
        (
            "function add(a, b) { return a + b; }\n",
            1,
            "error: componentize-js is missing, which puts a JavaScript engine into the component\n = help: npm \
            install @bytecodealliance/componentize-js@0.23 @bytecodealliance/preview2-shim@0.25   (here or beside the \
            file; or name its folder in FOREBAY_COMPONENTIZE_JS)\n",
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
    let text = "\u{feff}// add(x)\r\nconst add = (a, b) => a + b;\r\nlet most = x => Math.max(x, 1);\r\n\
        class Helper {}\r\n\
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
        const say = (theirs) => {
            try { console.log(called(theirs)()?.jsonText ?? 'NULL'); }
            catch (error) { console.log(typeof error, error); }
        };
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
            "package a:b;\nworld sums { export add: func(a: s64, b: s64) -> s64; }\nworld other { export sub: func(a: \
            s64) -> s64; }",
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
            this.accumulate = function (value) {
                if (value === 'map') this.map = new Map(); else throw new RangeError('no ' + value);
            };
            this.computeResult = function () {
                const kept = [this.since instanceof Date, this.low === Infinity];
                return [this.low, this.high, this.none, this.since, ...kept];
            };
            this.init = function () {
                this.low = Infinity; this.high = -Infinity; this.none = NaN; this.since = new Date(1500);
            };
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

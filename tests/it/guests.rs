//! The same functions in each language of `udfs/`: same rows in, same rows out. A language that was left out when the
//! guests were built is named on standard error, past the test's capture, and by `make test` at its end.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "guests/javascript.rs"]
mod javascript;

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
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
                "{\"at\":\"2024-05-01T10:00:00Z\",\"level\":\"warn\",\"device\":\"pump-7\",\
                \"readings\":{\"pressure\":3.2,\"rpm\":1480}}",
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
        "{\"vendorid\":9007199254740991,\"weekday\":\"},[\\\"🚕\\\\\",\"pickuphour\":-9007199254740991,\"passenger\":0,\
        \"distance\":1e-300}",
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

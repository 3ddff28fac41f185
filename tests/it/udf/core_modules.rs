//! Functions in core modules: numbers, JSON by pointer and length, the stubs they link, and modules that do not keep to
//! the convention.

use super::*;

/// A module with a memory, an allocator that gives address 4096, and more.
fn json_module(more: &str) -> String {
    format!(
        r#"(module
            (memory (export "memory") 2)
            (func (export "forebay_alloc") (param i32) (result i32) (i32.const 4096))
            (func $packed (param $p i32) (param $n i32) (result i64)
                (i64.or (i64.shl (i64.extend_i32_u (local.get $p)) (i64.const 32)) (i64.extend_i32_u (local.get $n))))
            (func (export "forebay_json_echo") (param i32 i32) (result i64) (call $packed (local.get 0) (local.get 1)))
            {more})"#
    )
}

/// A function of JSON that answers a fixed text.
fn says(name: &str, at: u32, text: &str) -> String {
    let escaped: String = text.bytes().map(|b| format!("\\{b:02x}")).collect();
    format!(
        r#"(data (i32.const {at}) "{escaped}")
        (func (export "forebay_json_{name}") (param i32 i32) (result i64) (call $packed (i32.const {at}) (i32.const {})))"#,
        text.len()
    )
}

fn host(text: &str, names: &[&str]) -> Host {
    Host::new(&bind(&Arc::new(component(text).unwrap()), names)).unwrap()
}

#[test]
fn an_export_of_numbers_is_a_function() {
    let text = r#"(module
        (func (export "add") (param i64 i64) (result i64) (i64.add (local.get 0) (local.get 1)))
        (func (export "mean_of") (param f64 f32) (result f64)
            (f64.div (f64.add (local.get 0) (f64.promote_f32 (local.get 1))) (f64.const 2)))
        (func (export "halfOf") (param f32) (result f32) (f32.mul (local.get 0) (f32.const 0.5)))
        (func (export "narrow") (param i32) (result i32) (i32.sub (i32.const 0) (local.get 0)))
        (func (export "nothing") (param i64)))"#;
    let cases: [(&str, Vec<Value>, &str); 8] = [
        ("add", vec![Value::BigInt(i64::MAX - 1), Value::BigInt(1)], "9223372036854775807"),
        ("add", vec![Value::Float(2.0), Value::BigInt(3)], "5"),
        ("MeanOf", vec![Value::BigInt(1), Value::Float(2.0)], "1.5"),
        ("half-of", vec![Value::Float(0.5)], "0.25"),
        ("narrow", vec![Value::BigInt(2_147_483_647)], "-2147483647"),
        ("nothing", vec![Value::BigInt(1)], "null"),
        ("add", vec![Value::Null, Value::BigInt(1)], "null"),
        ("add", vec![Value::BigInt(1)], "null"),
    ];
    let names: Vec<&str> = cases.iter().map(|(name, ..)| *name).collect();
    let mut functions = host(text, &names);
    for (index, (name, args, result)) in cases.iter().enumerate() {
        assert_eq!(functions.call(index, args, NOW).unwrap().to_json(), *result, "{name}{args:?}");
    }
    let error = functions.call(4, &[Value::BigInt(1 << 31)], NOW).unwrap_err();
    assert_eq!(error.message, "udf.narrow: argument 1 (p1: s32): 2147483648 is outside s32, -2147483648 to 2147483647");
    let loaded = component(text).unwrap();
    let signature = |name: &str| loaded.signature(loaded.find(name).unwrap()).unwrap();
    assert_eq!(signature("mean_of").text, "mean_of: func(f64, f32) -> f64");
    assert_eq!(signature("add").params[1].shape, Shape::Integer { min: i64::MIN, max: i64::MAX });
    assert_eq!(signature("nothing").result, Shape::Unit);
}

#[test]
fn json_goes_there_and_back_with_all_its_types() {
    let mut functions = host(&json_module(""), &["echo"]);
    let at = Timestamp::parse("2024-05-01T10:00:00.1234567Z").unwrap();
    let args = [
        Value::Null,
        Value::BigInt(i64::MIN),
        Value::BigInt(9_007_199_254_740_993),
        Value::Float(7.0),
        Value::Float(f64::NAN),
        Value::text("\u{0} \"ü\" 🚕\n"),
        Value::Bit(true),
        Value::DateTime(at),
        value(r#"{"b":[1,{"a":null}],"a":0.1}"#),
    ];
    let back = functions.call(0, &args, NOW).unwrap();
    assert_eq!(
        back.to_json(),
        r#"[null,-9223372036854775808,9007199254740993,7.0,null,"\u0000 \"ü\" 🚕\n",true,"2024-05-01T10:00:00.1234567Z",{"b":[1,{"a":null}],"a":0.1}]"#
    );
    // any number of them
    assert_eq!(functions.call(0, &[], NOW).unwrap().to_json(), "[]");
    let many = vec![Value::BigInt(1); 100];
    assert_eq!(functions.call(0, &many, NOW).unwrap(), Value::array(many));
}

#[test]
fn the_answer_is_null_a_value_or_an_error_of_the_row() {
    let error = r#"(data (i32.const 900) "no such zone")
        (func (export "forebay_json_refuse") (param i32 i32) (result i64) (call $packed (i32.const 900) (i32.const 0x8000000c)))
        (func (export "forebay_json_missing") (param i32 i32) (result i64) (i64.const 0))"#;
    let text = json_module(&(error.to_owned() + &says("number", 100, " 5 ") + &says("createArray", 200, r#"["a",1]"#)));
    let names = ["refuse", "missing", "number", "create_array", "CREATEARRAY"];
    let bindings = bind(&Arc::new(component(&text).unwrap()), &names);
    let mut functions = Host::new(&bindings).unwrap();
    let refused = functions.call(0, &[Value::Null], NOW).unwrap_err();
    assert_eq!((refused.reason, refused.message.as_str()), ("udf_error", "udf.refuse: no such zone"));
    assert_eq!(functions.call(1, &[], NOW), Ok(Value::Null));
    assert_eq!(functions.call(2, &[], NOW), Ok(Value::BigInt(5)));
    for index in [3, 4] {
        assert_eq!(functions.call(index, &[], NOW).unwrap().to_json(), r#"["a",1]"#);
    }
    assert_eq!(bindings.iter().map(|b| b.stats.instances()).sum::<u64>(), 1);
}

#[test]
fn what_breaks_the_convention_at_a_call_is_a_row_error() {
    let alloc = |body: &str| {
        format!(
            r#"(module (memory (export "memory") 2) (func (export "fine") (result i64) (i64.const 7))
            (func (export "forebay_alloc") (param i32) (result i32) {body})
            (func (export "forebay_json_f") (param i32 i32) (result i64) (i64.const 0)))"#
        )
    };
    let f = |body: &str| {
        let function = format!(r#"(func (export "forebay_json_f") (param i32 i32) (result i64) {body})"#);
        json_module(
            &(function + r#"(func (export "fine") (result i64) (i64.const 7)) (data (i32.const 100) "\ff\fe[1}")"#),
        )
    };
    let packed = |pointer: u32, length: u32| f(&format!("(call $packed (i32.const {pointer}) (i32.const {length}))"));
    let deep = "[".repeat(200);
    let cases = [
        (
            alloc("i32.const 0"),
            "udf_memory",
            "`forebay_alloc` has no room for 2 bytes of arguments; raise its memory limit or free what it holds",
        ),
        (
            alloc("i32.const 131071"),
            "udf_trap",
            "`forebay_alloc` gave address 131071, where 2 bytes do not fit into its 131072 bytes of memory; see wit/core-abi.md",
        ),
        (alloc("i32.const -1"), "udf_trap", "`forebay_alloc` gave address 4294967295, where 2 bytes do not fit"),
        (alloc("unreachable"), "udf_trap", "trapped"),
        (alloc("(loop $l br $l) unreachable"), "udf_timeout", "ran longer than 100 ms"),
        (
            alloc("(drop (memory.grow (i32.const 65000))) unreachable"),
            "udf_memory",
            "wanted more than its 4 MiB of memory",
        ),
        (f("unreachable"), "udf_trap", "trapped"),
        (f("(loop $l br $l) unreachable"), "udf_timeout", "ran longer than 100 ms"),
        (
            packed(131_072, 1),
            "udf_trap",
            "gave a result at address 131072 with 1 bytes, outside of its 131072 bytes of memory; see wit/core-abi.md",
        ),
        (packed(4, 0x7fff_ffff), "udf_trap", "gave a result at address 4 with 2147483647 bytes, outside"),
        (packed(u32::MAX, u32::MAX), "udf_trap", "gave a result at address 4294967295 with 2147483647 bytes, outside"),
        (packed(100, 2), "udf_trap", "gave a result that is not UTF-8; see wit/core-abi.md"),
        (packed(100, 0x8000_0002), "udf_trap", "gave a result that is not UTF-8"),
        (packed(102, 3), "udf_conversion", "its result is no JSON: expected `,` or `]` at line 1 column 3"),
        (packed(102, 0), "udf_conversion", "its result is no JSON: EOF while parsing"),
        (
            json_module(&(says("f", 100, &deep) + r#"(func (export "fine") (result i64) (i64.const 7))"#)),
            "udf_conversion",
            "its result is no JSON: recursion limit",
        ),
        (
            json_module(
                &(says("f", 100, &format!("{}1{}", "[".repeat(65), "]".repeat(65)))
                    + r#"(func (export "fine") (result i64) (i64.const 7))"#),
            ),
            "too_deep",
            "its result nests deeper than 64 levels",
        ),
    ];
    for (text, reason, message) in cases {
        let mut functions = host(&text, &["f", "fine"]);
        for _ in 0..2 {
            let error = functions.call(0, &[], NOW).unwrap_err();
            assert_eq!(error.reason, reason, "{}", error.message);
            assert!(error.message.starts_with(&format!("udf.f: {message}")), "{}", error.message);
            assert_eq!(functions.call(1, &[], NOW), Ok(Value::BigInt(7)), "after {message}");
        }
    }
}

#[test]
fn a_result_is_limited_by_its_bytes_and_by_what_it_takes_in_memory() {
    // 40 pages of the digit 1, or of "[1,1,1"
    let module = r#"(module (memory (export "memory") 40)
        (func (export "forebay_alloc") (param i32) (result i32) (i32.const 4096))
        (func (export "forebay_json_long") (param i32 i32) (result i64)
            (memory.fill (i32.const 0) (i32.const 49) (i32.const 2000000)) (i64.const 2000000))
        (func (export "forebay_json_many") (param i32 i32) (result i64) (local $i i32)
            (loop $l
                (i32.store16 (local.get $i) (i32.const 0x2c31))
                (local.set $i (i32.add (local.get $i) (i32.const 2)))
                (br_if $l (i32.lt_u (local.get $i) (i32.const 100000))))
            (i32.store8 (i32.const 0) (i32.const 91)) (i32.store8 (i32.const 99999) (i32.const 93))
            (i64.const 100000)))"#;
    let bindings = bind(&Arc::new(component(module).unwrap()), &["long", "many"]);
    let mut functions = Host::new(&bindings).unwrap();
    let error = functions.call(0, &[], NOW).unwrap_err();
    assert_eq!(
        (error.reason, error.message.as_str()),
        ("udf_result", "udf.long: gave a result of more than 1 MiB; give less or raise its result limit")
    );
    let error = functions.call(1, &[], NOW).unwrap_err();
    assert_eq!(error.reason, "udf_result");
    assert!(error.message.contains("takes 2100040 bytes, more than its 1048576"), "{}", error.message);
}

#[test]
fn a_guest_that_never_frees_is_replaced_before_its_memory_is_full() {
    let module = r#"(module (memory (export "memory") 1) (global $top (mut i32) (i32.const 1024))
        (func (export "forebay_alloc") (param $n i32) (result i32)
            (global.set $top (i32.add (global.get $top) (local.get $n)))
            (if (i32.gt_u (global.get $top) (i32.mul (memory.size) (i32.const 65536))) (then (drop (memory.grow (i32.const 1)))))
            (i32.sub (global.get $top) (local.get $n)))
        (func (export "forebay_json_echo") (param i32 i32) (result i64)
            (i64.or (i64.shl (i64.extend_i32_u (local.get 0)) (i64.const 32)) (i64.extend_i32_u (local.get 1)))))"#;
    let bindings = bind(&Arc::new(component(module).unwrap()), &["echo"]);
    let mut functions = Host::new(&bindings).unwrap();
    let text = [Value::text("x".repeat(40_000))];
    for _ in 0..300 {
        assert_eq!(functions.call(0, &text, NOW).unwrap().to_json().len(), 40_004);
    }
    assert!(bindings[0].stats.instances() > 3);
    assert!(bindings[0].stats.memory_bytes_max() < 3 << 20);
}

#[test]
fn initialize_runs_once_on_each_instance() {
    let module = r#"(module (global $n (mut i64) (i64.const 0))
        (func (export "_initialize") (global.set $n (i64.add (global.get $n) (i64.const 1))))
        (func (export "_start") unreachable)
        (func (export "_helper") (result i64) (i64.const 1))
        (func (export "n") (result i64) (global.get $n))
        (func (export "trap") (result i64) unreachable))"#;
    let loaded = Arc::new(component(module).unwrap());
    let names: Vec<&str> = loaded.exports().iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["n", "trap"]);
    let mut functions = Host::new(&bind(&loaded, &["n", "trap"])).unwrap();
    for _ in 0..2 {
        assert_eq!(functions.call(0, &[], NOW), Ok(Value::BigInt(1)));
        assert_eq!(functions.call(0, &[], NOW), Ok(Value::BigInt(1)));
        assert!(functions.call(1, &[], NOW).is_err());
    }
    let stuck = r#"(module (func (export "_initialize") (loop $l br $l)) (func (export "f")))"#;
    let error = Host::new(&bind(&Arc::new(component(stuck).unwrap()), &["f"])).unwrap_err().to_string();
    assert_eq!(
        error,
        "test.wasm does not start: ran longer than 1000 ms and was stopped; make it faster or raise its timeout"
    );
}

#[test]
fn what_is_wrong_with_a_module_is_said_before_the_first_row() {
    let alloc = r#"(func (export "forebay_alloc") (param i32) (result i32) (i32.const 4096))"#;
    let memory = r#"(memory (export "memory") 1)"#;
    let f = r#"(func (export "forebay_json_f") (param i32 i32) (result i64) (i64.const 0))"#;
    let cases = [
        ("(module)".to_owned(), "test.wasm exports no functions"),
        (
            r#"(module (func (export "_start")))"#.to_owned(),
            "test.wasm is a program: it exports `_start` and no `_initialize`; build it as a library",
        ),
        (
            format!("(module {memory} {f})"),
            "test.wasm: the export `forebay_json_f` takes text, and the module does not export `forebay_alloc`, func(i32) -> i32",
        ),
        (
            format!("(module {alloc} {f})"),
            "test.wasm: the export `forebay_json_f` takes text, and the module exports no memory of the name `memory`",
        ),
        (
            format!(r#"(module {memory} (func (export "forebay_alloc") (param i64) (result i32) (i32.const 1)) {f})"#),
            "test.wasm: the export `forebay_alloc` is func(i64) -> i32; it has to be func(i32) -> i32",
        ),
        (
            format!(
                r#"(module {memory} {alloc} (func (export "forebay_json_f") (param i32 i32) (result i32 i32) (i32.const 0) (i32.const 0)))"#
            ),
            "test.wasm: the export `forebay_json_f` is func(i32, i32) -> (i32, i32); a function of JSON is func(i32, i32) -> i64",
        ),
        (
            format!(
                r#"(module {memory} {alloc} (func (export "forebay_json_") (param i32 i32) (result i64) (i64.const 0)))"#
            ),
            "test.wasm: the export `forebay_json_` lacks the function's name after the prefix",
        ),
        (
            r#"(module (func (export "forebay_json2_f")))"#.to_owned(),
            "test.wasm: the export `forebay_json2_f` is no part of this version's convention",
        ),
        (
            r#"(module (memory (export "forebay_alloc") 1))"#.to_owned(),
            "test.wasm: the export `forebay_alloc` is no function",
        ),
        (
            r#"(module (func (export "_initialize") (param i32)))"#.to_owned(),
            "test.wasm: the export `_initialize` is func(i32); it has to be func()",
        ),
        (
            format!(r#"(module {memory} {alloc} {f} (func (export "F") (result i64) (i64.const 0)))"#),
            "test.wasm: `forebay_json_f` and `F` are one name to a query; rename one of them",
        ),
        (
            r#"(module (import "env" "seed" (func (result f64))) (import "a" "b" (memory 1)) (func (export "f")))"#
                .to_owned(),
            "test.wasm asks for a.b, env.seed, which nobody provides; functions get no imports by default",
        ),
        (
            r#"(module (func (export "f")) (@custom "component-type:world" "x"))"#.to_owned(),
            "test.wasm carries the type of a component and is none yet; make it one: `forebay udf build test.wasm`",
        ),
        (
            r#"(module (import "wasi_snapshot_preview1" "random_get" (func)) (func (export "f")))"#.to_owned(),
            "test.wasm does not start: ",
        ),
        ("(module (memory i64 1))".to_owned(), "test.wasm does not compile: "),
    ];
    for (text, message) in cases {
        let error = component(&text).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

#[test]
fn an_export_of_other_types_is_refused_alone() {
    let text = r#"(module (func (export "pair") (result i64 i64) (i64.const 1) (i64.const 2))
        (func (export "wide") (param v128)) (func (export "one") (result i64) (i64.const 1)))"#;
    let loaded = component(text).unwrap();
    let cases = [
        ("pair", "test.wasm: `pair` cannot be a function of a query: it has 2 results; a function gives one"),
        ("wide", "test.wasm: `wide` cannot be a function of a query: v128 has no SQL value"),
    ];
    for (name, message) in cases {
        assert_eq!(loaded.find(name).unwrap_err().to_string(), message);
    }
    assert!(loaded.find("one").is_ok());
}

/// A module with one function of numbers that calls one import, and the memory that it needs.
fn calls(import: &str, ty: &str, body: &str) -> String {
    format!(
        r#"(module (import "wasi_snapshot_preview1" "{import}" (func $wasi {ty}))
            (memory (export "memory") 1) (data (i32.const 512) "\ff\ff\ff\ff\ff\ff\ff\ff") (data (i32.const 64) "panic:\0a what\00\00")
            (func (export "f") (result i64) {body}))"#
    )
}

/// Calls the import with these arguments and gives its answer and the 4 bytes at 512, `answer << 32 | bytes`.
fn answer(import: &str, ty: &str, args: &str) -> String {
    let body = format!(
        "(i64.or (i64.shl (i64.extend_i32_u (call $wasi {args})) (i64.const 32)) (i64.load32_u (i32.const 512)))"
    );
    calls(import, &format!("{ty} (result i32)"), &body)
}

#[test]
fn wasi_answers_what_runtimes_ask_at_start() {
    const DONE: i64 = 0;
    const BAD_DESCRIPTOR: i64 = 8;
    const BAD_ADDRESS: i64 = 21;
    const UNTOUCHED: i64 = 0xffff_ffff;
    let i2 = "(param i32 i32)";
    let i4 = "(param i32 i32 i32 i32)";
    let out = "(i32.const 512)";
    let cases = [
        (answer("args_sizes_get", i2, &format!("{out} (i32.const 516)")), DONE, 0),
        (answer("environ_sizes_get", i2, &format!("(i32.const 516) {out}")), DONE, 0),
        (answer("environ_sizes_get", i2, "(i32.const 512) (i32.const 65533)"), BAD_ADDRESS, 0),
        (answer("args_get", i2, &format!("{out} {out}")), DONE, UNTOUCHED),
        (answer("fd_prestat_get", i2, &format!("(i32.const 3) {out}")), BAD_DESCRIPTOR, UNTOUCHED),
        (answer("fd_fdstat_get", i2, &format!("(i32.const 1) {out}")), DONE, 2),
        (answer("fd_fdstat_get", i2, &format!("(i32.const 3) {out}")), BAD_DESCRIPTOR, UNTOUCHED),
        (answer("fd_close", "(param i32)", "(i32.const 2)"), DONE, UNTOUCHED),
        (answer("fd_close", "(param i32)", "(i32.const -1)"), BAD_DESCRIPTOR, UNTOUCHED),
        (answer("sched_yield", "", ""), DONE, UNTOUCHED),
        (answer("clock_res_get", i2, &format!("(i32.const 0) {out}")), DONE, 1000),
        (answer("fd_read", i4, &format!("(i32.const 0) (i32.const 0) (i32.const 0) {out}")), DONE, 0),
        // the piece at 600 is empty
        (answer("fd_write", i4, &format!("(i32.const 1) (i32.const 600) (i32.const 1) {out}")), DONE, 0),
        (
            answer("fd_write", i4, &format!("(i32.const 3) (i32.const 600) (i32.const 1) {out}")),
            BAD_DESCRIPTOR,
            UNTOUCHED,
        ),
        (
            answer("fd_write", i4, &format!("(i32.const 1) (i32.const 600) (i32.const -1) {out}")),
            BAD_ADDRESS,
            UNTOUCHED,
        ),
        (answer("fd_write", i4, &format!("(i32.const 1) (i32.const 512) (i32.const 1) {out}")), BAD_ADDRESS, UNTOUCHED),
        (answer("random_get", i2, "(i32.const 65530) (i32.const 7)"), BAD_ADDRESS, UNTOUCHED),
        (answer("random_get", i2, "(i32.const 520) (i32.const -1)"), BAD_ADDRESS, UNTOUCHED),
    ];
    for (text, errno, bytes) in cases {
        assert_eq!(host(&text, &["f"]).call(0, &[], NOW), Ok(Value::BigInt(errno << 32 | bytes)), "{text}");
    }
}

#[test]
fn clocks_and_random_numbers_are_the_same_at_every_run() {
    let clock = |id: u32| {
        calls(
            "clock_time_get",
            "(param i32 i64 i32) (result i32)",
            &format!("(drop (call $wasi (i32.const {id}) (i64.const 0) (i32.const 512))) (i64.load (i32.const 512))"),
        )
    };
    let at = Timestamp::parse("2024-05-01T10:00:00.1234567Z").unwrap();
    let mut realtime = host(&clock(0), &["f"]);
    assert_eq!(realtime.call(0, &[], at), Ok(Value::BigInt(1_714_557_600_123_456_700)));
    assert_eq!(realtime.call(0, &[], Timestamp::MIN), Ok(Value::BigInt(0)));
    let mut monotonic = host(&clock(1), &["f"]);
    assert_eq!(monotonic.call(0, &[], at), Ok(Value::BigInt(1000)));
    assert_eq!(monotonic.call(0, &[], at), Ok(Value::BigInt(2000)));
    let random = calls(
        "random_get",
        "(param i32 i32) (result i32)",
        "(drop (call $wasi (i32.const 512) (i32.const 8))) (i64.load (i32.const 512))",
    );
    let draw = || {
        let mut host = host(&random, &["f"]);
        [host.call(0, &[], NOW).unwrap(), host.call(0, &[], NOW).unwrap()].map(|v| v.to_json())
    };
    let first = draw();
    assert_ne!(first[0], first[1]);
    assert_eq!(first, draw());
}

#[test]
fn a_denied_import_is_a_row_error_that_names_it() {
    let denied = [
        "path_open",
        "poll_oneoff",
        "sock_send",
        "fd_readdir",
        "fd_seek",
        "proc_raise",
        "path_unlink_file",
        "of_a_later_version",
    ];
    for import in denied {
        let error = host(&calls(import, "(result i32)", "(i64.extend_i32_u (call $wasi))"), &["f"])
            .call(0, &[], NOW)
            .unwrap_err();
        let wanted =
            format!("udf.f: calls wasi_snapshot_preview1.{import}, which is not granted; build it without that import");
        assert_eq!((error.reason, error.message), ("udf_trap", wanted));
    }
    let exit = calls("proc_exit", "(param i32)", "(call $wasi (i32.const 2)) (i64.const 1)");
    let error = host(&exit, &["f"]).call(0, &[], NOW).unwrap_err();
    assert_eq!(
        (error.reason, error.message.as_str()),
        ("udf_trap", "udf.f: ended itself with exit code 2; try the row with `forebay udf call`")
    );
}

#[test]
fn what_a_guest_wrote_before_it_trapped_is_in_the_message() {
    // one piece: 14 bytes at 64, said 100 times
    let text = calls(
        "fd_write",
        "(param i32 i32 i32 i32) (result i32)",
        r#"(local $i i32)
        (i32.store (i32.const 600) (i32.const 64)) (i32.store (i32.const 604) (i32.const 12))
        (loop $l
            (drop (call $wasi (i32.const 2) (i32.const 600) (i32.const 1) (i32.const 512)))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $i) (i32.const 100))))
        unreachable"#,
    );
    let error = host(&text, &["f"]).call(0, &[], NOW).unwrap_err();
    assert!(
        error.message.starts_with("udf.f: trapped: wasm `unreachable` instruction executed; it wrote: panic: what"),
        "{}",
        error.message
    );
    assert!(error.message.chars().count() < 600, "{}", error.message);
}

#[test]
fn the_abort_of_assembly_script_is_a_row_error_with_its_message() {
    let module = |pointer: &str| {
        format!(
            r#"(module (import "env" "abort" (func $abort (param i32 i32 i32 i32))) (memory (export "memory") 1)
            (data (i32.const 60) "\08\00\00\00n\00o\00!\00\fc\00")
            (func (export "f") (result i64) (call $abort {pointer} (i32.const 0) (i32.const 7) (i32.const 1)) (i64.const 1)))"#
        )
    };
    for (pointer, words) in [
        ("(i32.const 64)", "no!ü"),
        ("(i32.const 0)", "without a message, in line 7"),
        ("(i32.const -1)", "without a message, in line 7"),
    ] {
        let error = host(&module(pointer), &["f"]).call(0, &[], NOW).unwrap_err();
        assert_eq!(error.reason, "udf_trap");
        assert_eq!(error.message, format!("udf.f: aborted: {words}; try the row with `forebay udf call`"));
    }
}

#[test]
fn limits_hold_for_core_modules_as_well() {
    let start = [
        (
            r#"(module (memory 65) (func (export "f")))"#,
            "test.wasm does not start: wanted more than its 4 MiB of memory",
        ),
        (r#"(module (func (export "f")) (func $s unreachable) (start $s))"#, "test.wasm does not start: trapped"),
        (
            r#"(module (func (export "f")) (func $s (loop $l br $l)) (start $s))"#,
            "test.wasm does not start: ran longer than 1000 ms",
        ),
        (r#"(module (table 30000 funcref) (func (export "f")))"#, "test.wasm does not start: "),
    ];
    for (text, message) in start {
        let error = Host::new(&bind(&Arc::new(component(text).unwrap()), &["f"])).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
    let call = r#"(module (memory (export "memory") 1) (func $deep (result i64) (i64.add (call $deep) (i64.const 1)))
        (func (export "recursion") (result i64) call $deep)
        (func (export "bomb") (result i64) (loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable)
        (func (export "trap") (result i64) unreachable)
        (func (export "fine") (result i64) (i64.const 7)))"#;
    let bindings = bind(&Arc::new(component(call).unwrap()), &["recursion", "bomb", "trap", "fine"]);
    let mut functions = Host::new(&bindings).unwrap();
    for (index, reason, message) in [
        (0, "udf_trap", "udf.recursion: ran out of its 512 KiB of stack; look for a recursion without end"),
        (1, "udf_memory", "udf.bomb: wanted more than its 4 MiB of memory"),
    ] {
        let error = functions.call(index, &[], NOW).unwrap_err();
        assert_eq!(error.reason, reason);
        assert!(error.message.starts_with(message), "{}", error.message);
        assert_eq!(functions.call(3, &[], NOW), Ok(Value::BigInt(7)));
    }
    let paused =
        (0..200).map(|_| functions.call(2, &[], NOW).unwrap_err().reason).find(|reason| *reason == "udf_breaker");
    assert!(paused.is_some());
    assert_eq!(functions.call(3, &[], NOW), Ok(Value::BigInt(7)));
}

#[test]
fn the_compiled_code_of_a_module_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let load = || {
        let engine = Engine::new(Some(dir.path().to_owned())).unwrap();
        Component::from_bytes(&engine, Path::new("test.wasm"), &wat::parse_str(json_module("")).unwrap(), limits())
            .unwrap()
    };
    assert_eq!(load().origin(), Origin::Compiler);
    let loaded = Arc::new(load());
    assert_eq!(loaded.origin(), Origin::Cache);
    let mut functions = Host::new(&bind(&loaded, &["echo"])).unwrap();
    assert_eq!(functions.call(0, &[Value::BigInt(1)], NOW).unwrap().to_json(), "[1]");
}

//! Core modules that do not keep to the convention of wit/core-abi.md: said before the first row, or at the call.

use forebay::udf::UserFunctions as _;
use forebay::value::Value;

use super::{host, json_module, says};
use crate::udf::{NOW, component};

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
            "`forebay_alloc` gave address 131071, where 2 bytes do not fit into its 131072 bytes of memory; see \
            wit/core-abi.md",
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
            "test.wasm: the export `forebay_json_f` takes text, and the module does not export `forebay_alloc`, \
            func(i32) -> i32",
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
                r#"(module {memory} {alloc} (func (export "forebay_json_f") (param i32 i32) (result i32 i32)
                    (i32.const 0) (i32.const 0)))"#
            ),
            "test.wasm: the export `forebay_json_f` is func(i32, i32) -> (i32, i32); a function of JSON is func(i32, \
            i32) -> i64",
        ),
        (
            format!(
                r#"(module {memory} {alloc} (func (export "forebay_json_") (param i32 i32) (result i64)
                    (i64.const 0)))"#
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

//! Instances of core modules: how they start, what limits them, when they are replaced, their compiled code.

use std::path::Path;
use std::sync::Arc;

use forebay::udf::{Component, Engine, Host, Origin, UserFunctions as _};
use forebay::value::Value;

use super::json_module;
use crate::udf::{NOW, bind, component, limits};

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
            (if (i32.gt_u (global.get $top) (i32.mul (memory.size) (i32.const 65536)))
                (then (drop (memory.grow (i32.const 1)))))
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
        (func (export "bomb") (result i64) (loop $l (br_if $l (i32.ne (memory.grow (i32.const 1))
            (i32.const -1)))) unreachable)
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

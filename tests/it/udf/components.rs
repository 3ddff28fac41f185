//! Components: conversions of values both ways, signatures in the catalog, and instances that are replaced.

use super::*;

#[test]
fn the_taxi_array_takes_numbers_for_its_texts() {
    let component = guest("create_array");
    assert!(component.imports().is_empty());
    let mut host = Host::new(&bind(&component, &["createArray"])).unwrap();
    let row = [Value::BigInt(1), Value::text("Monday"), Value::BigInt(5), Value::BigInt(2), Value::Float(5.8)];
    assert_eq!(host.call(0, &row, NOW).unwrap().to_json(), r#"["1","Monday","5","2","5.8"]"#);
}

#[test]
fn the_taxi_row_is_a_record_by_name() {
    let component = guest("create_row");
    assert!(component.imports().is_empty());
    for name in ["createRow", "create_row", "CREATEROW", "create-row"] {
        let mut host = Host::new(&bind(&component, &[name])).unwrap();
        let row = [Value::BigInt(1), Value::text("Monday"), Value::BigInt(5), Value::BigInt(2), Value::BigInt(6)];
        let wanted = r#"{"vendorid":1,"weekday":"Monday","pickuphour":5,"passenger":2,"distance":6.0}"#;
        assert_eq!(host.call(0, &row, NOW).unwrap().to_json(), wanted);
    }
}

#[test]
fn every_shape_comes_back_as_it_went() {
    let cases = [
        ("echo-bool", "true", "true"),
        ("echo-s8", "-128", "-128"),
        ("echo-u8", "255", "255"),
        ("echo-s16", "-32768", "-32768"),
        ("echo-u16", "65535", "65535"),
        ("echo-s32", "-2147483648", "-2147483648"),
        ("echo-u32", "4294967295", "4294967295"),
        ("echo-s64", "-9223372036854775808", "-9223372036854775808"),
        ("echo-s64", "3.0", "3"),
        ("echo-u64", "9223372036854775807", "9223372036854775807"),
        ("echo-f32", "0.5", "0.5"),
        ("echo-f64", "0.1", "0.1"),
        ("echo-f64", "7", "7.0"),
        ("echo-char", r#""ü""#, r#""ü""#),
        ("echo-char", "7", r#""7""#),
        ("echo-string", r#""\u0000 tax\"i 🚕""#, r#""\u0000 tax\"i 🚕""#),
        ("echo-string", "true", r#""1""#),
        ("echo-datetime", r#""2024-05-01T12:00:00.1234567+02:00""#, r#""2024-05-01T10:00:00.1234567Z""#),
        ("echo-json", r#"{"a":[1,2.5,null,{"b":"c"}]}"#, r#"{"a":[1,2.5,null,{"b":"c"}]}"#),
        ("echo-json", "7", "7"),
        ("echo-level", r#""VeryHigh""#, r#""very-high""#),
        ("echo-marks", r#"{"isPaid":true}"#, r#"{"is_new":false,"is_paid":true,"is_late":false}"#),
        ("echo-reading", r#"{"number":1}"#, r#"{"number":1.0}"#),
        ("echo-reading", r#""missing""#, r#"{"missing":null}"#),
        (
            "echo-ride",
            r#"{"VendorID":1,"at":"2024-05-01","hours":[0,255],"more":1}"#,
            r#"{"vendor_id":1,"note":null,"at":"2024-05-01T00:00:00.0000000Z","hours":[0,255]}"#,
        ),
        ("echo-list", "[]", "[]"),
        ("echo-list", "[1,2.5]", "[1.0,2.5]"),
        ("echo-lists", r#"[["a",1],[],["b"]]"#, r#"[["a","1"],[],["b"]]"#),
        ("echo-tuple", r#"[1,2,true]"#, r#"[1,"2",true]"#),
        ("echo-option", "5", "5"),
        ("echo-option", "null", "null"),
        ("echo-result", r#"{"ok":5}"#, r#"{"ok":5}"#),
        ("echo-result", r#"{"err":"no"}"#, r#"{"err":"no"}"#),
        ("parse", "42", "42"),
        ("forget", "1", "null"),
    ];
    let component = guest("echo");
    let names: Vec<&str> = cases.iter().map(|(name, ..)| *name).collect();
    let mut host = Host::new(&bind(&component, &names)).unwrap();
    for (index, (name, argument, result)) in cases.into_iter().enumerate() {
        assert_eq!(host.call(index, &[value(argument)], NOW).unwrap().to_json(), result, "{name}({argument})");
    }
    // each exported function is in the list, but those without arguments
    for export in component.exports() {
        let arguments = export.callable.as_ref().unwrap().signature.params.len();
        assert!(names.contains(&export.name.as_str()) || arguments == 0, "{}", export.name);
    }
}

#[test]
fn a_datetime_stays_one_to_the_tick() {
    let mut host = Host::new(&bind(&guest("echo"), &["echo-datetime"])).unwrap();
    for at in [Timestamp::MIN, Timestamp::parse("2024-05-01T10:00:00.1234567Z").unwrap(), Timestamp::MAX] {
        assert_eq!(host.call(0, &[Value::DateTime(at)], NOW), Ok(Value::DateTime(at)));
    }
}

#[test]
fn what_does_not_convert_is_a_row_error_that_names_the_function() {
    let cases = [
        ("echo-u8", "256", "udf_conversion", "udf.echo-u8: argument 1 (x: u8): 256 is outside u8, 0 to 255"),
        (
            "echo-f64",
            r#""x""#,
            "udf_conversion",
            r#"udf.echo-f64: argument 1 (x: f64): nvarchar(max) "x" is no float; convert it with CAST"#,
        ),
        ("echo-ride", "{}", "udf_conversion", "the record has no field `vendor_id`"),
        ("parse", r#""x""#, "udf_error", "udf.parse: `x` is no number"),
        (
            "too-big",
            "",
            "udf_conversion",
            "udf.too-big: its result does not convert: 18446744073709551615 is past the largest bigint",
        ),
        (
            "bad-json",
            "",
            "udf_conversion",
            "udf.bad-json: its result does not convert: the text of the json record is no JSON",
        ),
        ("answer", "1", "udf_conversion", "udf.answer: takes 0 arguments, not 1"),
    ];
    let bindings = bind(&guest("echo"), &cases.map(|(name, ..)| name));
    let mut host = Host::new(&bindings).unwrap();
    for (index, (name, argument, reason, message)) in cases.into_iter().enumerate() {
        let args: Vec<Value> = if argument.is_empty() { vec![] } else { vec![value(argument)] };
        let RowError { reason: r, message: m } = host.call(index, &args, NOW).unwrap_err();
        assert_eq!(r, reason, "{name}: {m}");
        assert!(m.contains(message), "{m}");
        assert_eq!(failures(&bindings[index], reason), 1);
    }
    // none of them cost the instance
    assert_eq!(bindings.iter().map(|b| b.stats.instances()).sum::<u64>(), 1);
}

#[test]
fn the_error_of_a_guest_is_cut_to_a_length_that_a_log_bears() {
    let mut host = Host::new(&bind(&guest("echo"), &["parse"])).unwrap();
    let error = host.call(0, &[Value::text("ü".repeat(10_000))], NOW).unwrap_err();
    assert_eq!(error.message.chars().count(), "udf.parse: ".len() + 500);
}

#[test]
fn null_is_null_without_a_call_unless_the_parameter_takes_it() {
    let bindings = bind(&guest("echo"), &["echo-s64", "echo-option", "echo-json"]);
    let mut host = Host::new(&bindings).unwrap();
    assert_eq!(host.call(0, &[Value::Null], NOW), Ok(Value::Null));
    assert_eq!(host.call(0, &[], NOW), Ok(Value::Null));
    assert_eq!(host.call(1, &[Value::Null], NOW), Ok(Value::Null));
    assert_eq!(host.call(1, &[], NOW), Ok(Value::Null));
    assert_eq!(host.call(2, &[Value::Null], NOW), Ok(Value::Null));
    assert_eq!(bindings.each_calls(), [0, 2, 0]);
}

#[test]
fn signatures_reach_the_catalog() {
    let component = guest("create_array");
    let signature = component.signature(component.find("CREATEARRAY").unwrap()).unwrap();
    assert_eq!(signature.result, Shape::Tuple(vec![Shape::Text; 5]));
    assert_eq!(
        signature.text,
        "create-array: func(vendorid: string, weekday: string, pickuphour: string, passenger: string, distance: \
         string) -> tuple<string, string, string, string, string>"
    );
    let unknown = component.find("createRow").unwrap_err().to_string();
    assert!(unknown.ends_with("exports no function `createRow`; it has create-array"), "{unknown}");
}

#[test]
fn a_guest_that_leaks_is_recycled_before_it_is_full() {
    let (core, lift) = number("leak", "(drop (memory.grow (i32.const 1))) (i64.extend_i32_u (memory.size))");
    let component = Arc::new(around(&format!(r#"(memory (export "memory") 1) {core}"#), &lift));
    let bindings = bind(&component, &["leak"]);
    let mut host = Host::new(&bindings).unwrap();
    let mut most = 0;
    for _ in 0..200 {
        let Value::BigInt(pages) = host.call(0, &[], NOW).unwrap() else { panic!() };
        most = most.max(pages);
    }
    // 4 MiB are 64 pages, half of what is over the first page are 31
    assert_eq!(most, 33);
    assert_eq!(bindings[0].stats.instances(), 7);
}

#[test]
fn nothing_stays_for_ever_in_an_instance() {
    let core = r#"(global $n (mut i64) (i64.const 0))
        (func (export "count") (result i64) (global.set $n (i64.add (global.get $n) (i64.const 1))) (global.get $n))"#;
    let component =
        Arc::new(around(core, r#"(func (export "count") (result s64) (canon lift (core func $i "count")))"#));
    let mut host = Host::new(&bind(&component, &["count"])).unwrap();
    let last = (0..10_001).map(|_| host.call(0, &[], NOW).unwrap()).last();
    assert_eq!(last, Some(Value::BigInt(1)));
}

#[test]
fn wasi_is_stubbed_and_denied_when_called() {
    let component = Arc::new(
        component(
            r#"(component
                (import "wasi:clocks/monotonic-clock@0.2.0" (instance $c
                    (export "pollable" (type (sub resource)))
                    (export "now" (func (result u64)))))
                (core func $now (canon lower (func $c "now")))
                (core module $m (import "c" "now" (func $now (result i64)))
                    (func (export "never") (result i64) (i64.const 1))
                    (func (export "calls") (result i64) (call $now)))
                (core instance $i (instantiate $m (with "c" (instance (export "now" (func $now))))))
                (func (export "never") (result u64) (canon lift (core func $i "never")))
                (func (export "calls") (result u64) (canon lift (core func $i "calls"))))"#,
        )
        .unwrap(),
    );
    assert_eq!(component.imports(), ["wasi:clocks/monotonic-clock@0.2.0"]);
    let mut host = Host::new(&bind(&component, &["never", "calls"])).unwrap();
    assert_eq!(host.call(0, &[], NOW), Ok(Value::BigInt(1)));
    let error = host.call(1, &[], NOW).unwrap_err();
    assert_eq!(error.reason, "udf_trap");
    assert_eq!(
        error.message,
        "udf.calls: calls wasi:clocks/monotonic-clock@0.2.0#now, which is not granted; build it without that import"
    );
    assert_eq!(host.call(0, &[], NOW), Ok(Value::BigInt(1)));
}

#[test]
fn an_interface_of_types_alone_asks_for_nothing() {
    let text = r#"(component
        (import "forebay:types/types@0.1.0" (instance $t (type $l s64) (export "level" (type (eq $l)))))
        (core module $m (func (export "f") (result i64) (i64.const 1)))
        (core instance $i (instantiate $m))
        (func (export "f") (result s64) (canon lift (core func $i "f"))))"#;
    let component = Arc::new(component(text).unwrap());
    assert_eq!(Host::new(&bind(&component, &["f"])).unwrap().call(0, &[], NOW), Ok(Value::BigInt(1)));
}

const PLAIN: &str =
    r#"(core module $m (func (export "f") (result i64) (i64.const 1))) (core instance $i (instantiate $m))"#;

#[test]
fn what_cannot_be_a_function_is_said_before_the_first_row() {
    let cases = [
        (
            format!(
                r#"(component (import "host:secrets/store" (func))
                    (import "acme:db/sql" (instance (export "run" (func)))) {PLAIN})"#
            ),
            "test.wasm asks for acme:db/sql, host:secrets/store, which nobody provides; functions get no imports by \
            default",
        ),
        (
            format!(
                r#"(component {PLAIN} (func (export "create-array") (result s64) (canon lift (core func $i "f")))
                    (func (export "createarray") (result s64) (canon lift (core func $i "f"))))"#
            ),
            "test.wasm: `create-array` and `createarray` are one name to a query; rename one of them",
        ),
        (format!("(component {PLAIN})"), "test.wasm exports no functions"),
        (r#"(component (core module (memory i64 1)))"#.to_owned(), "test.wasm does not compile: "),
    ];
    for (text, message) in cases {
        let error = component(&text).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

#[test]
fn files_that_are_no_components_are_named_for_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.wasm");
    let load = || Component::load(&ENGINE, &path, limits()).unwrap_err();
    assert!(matches!(load(), UdfError::Read { .. }));
    std::fs::write(&path, "").unwrap();
    assert!(matches!(load(), UdfError::NotWasm { .. }));
    std::fs::write(&path, "(component)").unwrap();
    assert!(matches!(load(), UdfError::NotWasm { .. }));
    std::fs::write(&path, b"\0asm\x0d\0\x01\0garbage").unwrap();
    assert!(matches!(load(), UdfError::Compile { .. }));
    let cache = dir.path().join("cache");
    Component::load(&Engine::new(Some(cache.clone())).unwrap(), &built("create_row"), limits()).unwrap();
    let cached = std::fs::read(std::fs::read_dir(cache).unwrap().next().unwrap().unwrap().path()).unwrap();
    // what the cache keeps is no function, nor is the code inside it
    std::fs::write(&path, &cached).unwrap();
    assert!(matches!(load(), UdfError::NotWasm { .. }));
    std::fs::write(&path, &cached[40..]).unwrap();
    assert!(matches!(load(), UdfError::CompiledCode { .. }));
}

#[test]
fn a_resource_in_a_signature_refuses_that_function_alone() {
    let component = component(
        r#"(component
            (type $counter' (resource (rep i32)))
            (export $counter "counter" (type $counter'))
            (core module $m (func (export "take") (param i32)) (func (export "one") (result i64) (i64.const 1)))
            (core instance $i (instantiate $m))
            (func (export "take") (param "x" (own $counter)) (canon lift (core func $i "take")))
            (func (export "[static]counter.last") (result s64) (canon lift (core func $i "one")))
            (func (export "one") (result s64) (canon lift (core func $i "one"))))"#,
    )
    .unwrap();
    let refused = component.find("take").unwrap_err().to_string();
    assert_eq!(refused, "test.wasm: `take` cannot be a function of a query: a resource has no SQL value");
    let refused = component.find("counter").unwrap_err().to_string();
    assert!(refused.ends_with("it is a resource, but no aggregate: it lacks `constructor()`"), "{refused}");
    let component = Arc::new(component);
    assert_eq!(Host::new(&bind(&component, &["one"])).unwrap().call(0, &[], NOW), Ok(Value::BigInt(1)));
    // a binding made by hand is checked as well
    assert!(matches!(Host::new(&[FunctionBinding::new(component, 0, "take")]), Err(UdfError::NotCallable { .. })));
}

#[test]
fn a_component_that_cannot_start_is_an_error_of_the_start() {
    let (core, lift) = number("f", "i64.const 1");
    let cases = [
        (format!("(memory 65) {core}"), "test.wasm does not start: wanted more than its 4 MiB of memory"),
        (format!("{core} (func $s unreachable) (start $s)"), "test.wasm does not start: trapped"),
        (format!("{core} (func $s (loop $l br $l)) (start $s)"), "test.wasm does not start: ran longer than 1000 ms"),
        (format!("(table 30000 funcref) {core}"), "test.wasm does not start: "),
    ];
    for (module, message) in cases {
        let component = Arc::new(around(&module, &lift));
        let error = Host::new(&bind(&component, &["f"])).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

#[test]
fn functions_of_one_component_share_an_instance_and_hosts_do_not() {
    let core = r#"(global $n (mut i64) (i64.const 0))
        (func (export "count") (result i64) (global.set $n (i64.add (global.get $n) (i64.const 1))) (global.get $n))"#;
    let lifts = r#"(func (export "a") (result s64) (canon lift (core func $i "count")))
        (func (export "b") (result s64) (canon lift (core func $i "count")))"#;
    let bindings = bind(&Arc::new(around(core, lifts)), &["a", "b"]);
    let mut hosts = [Host::new(&bindings).unwrap(), Host::new(&bindings).unwrap()];
    for host in &mut hosts {
        assert_eq!(host.call(0, &[], NOW), Ok(Value::BigInt(1)));
        assert_eq!(host.call(1, &[], NOW), Ok(Value::BigInt(2)));
    }
    // the counters are the binding's
    assert_eq!(bindings.each_calls(), [2, 2]);
    assert!(hosts[0].call(2, &[], NOW).is_err());
}

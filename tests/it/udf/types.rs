//! The whole type table, both ways through a guest that gives back what it was given.

use super::*;

/// Enough numbers before the value that both go by memory: the guest then gives back the address, whatever is there.
const PADDING: usize = 17;

/// A component that echoes a type, with the named types that it needs before it.
fn echo(named: &[(&str, &str)], ty: &str) -> Component {
    let mut definitions = String::new();
    for (name, definition) in named {
        definitions += &format!(r#"(type ${name}' {definition}) (export ${name} "{name}" (type ${name}'))"#);
    }
    let both = format!("(tuple (tuple {}) {ty})", "u8 ".repeat(PADDING));
    let text = format!(
        r#"(component {definitions}
            (core module $m (memory (export "memory") 4) (global $top (mut i32) (i32.const 1024))
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
                    (local.set $at (i32.and (i32.add (global.get $top) (i32.sub (local.get 2) (i32.const 1)))
                        (i32.sub (i32.const 0) (local.get 2))))
                    (global.set $top (i32.add (local.get $at) (local.get 3)))
                    (local.get $at))
                (func (export "echo") (param i32) (result i32) (local.get 0)))
            (core instance $i (instantiate $m))
            (func (export "echo") (param "x" {both}) (result {both})
                (canon lift (core func $i "echo") (memory $i "memory") (realloc (func $i "realloc")))))"#
    );
    component(&text).unwrap()
}

struct Case {
    named: &'static [(&'static str, &'static str)],
    ty: &'static str,
    /// as the signature writes it
    wit: &'static str,
    given: &'static [&'static str],
    /// empty: as given
    back: &'static [&'static str],
}

const POINT: (&str, &str) = ("point", r#"(record (field "x" float64) (field "label-of" string))"#);
const LEVEL: (&str, &str) = ("level", r#"(enum "low" "very-high")"#);
const MARKS: (&str, &str) = ("marks", r#"(flags "is-new" "is-paid")"#);
const DATETIME: (&str, &str) = ("datetime", r#"(record (field "ticks-since-year-one" s64))"#);
const JSON: (&str, &str) = ("json", r#"(record (field "json-text" string))"#);

const CASES: &[Case] = &[
    Case { named: &[], ty: "bool", wit: "bool", given: &["true", "false"], back: &[] },
    Case { named: &[], ty: "s8", wit: "s8", given: &["-128", "127"], back: &[] },
    Case { named: &[], ty: "u8", wit: "u8", given: &["0", "255"], back: &[] },
    Case { named: &[], ty: "s16", wit: "s16", given: &["-32768", "32767"], back: &[] },
    Case { named: &[], ty: "u16", wit: "u16", given: &["0", "65535"], back: &[] },
    Case { named: &[], ty: "s32", wit: "s32", given: &["-2147483648", "2147483647"], back: &[] },
    Case { named: &[], ty: "u32", wit: "u32", given: &["0", "4294967295"], back: &[] },
    Case { named: &[], ty: "s64", wit: "s64", given: &["-9223372036854775808", "9223372036854775807"], back: &[] },
    Case { named: &[], ty: "u64", wit: "u64", given: &["0", "9223372036854775807"], back: &[] },
    Case { named: &[], ty: "float32", wit: "f32", given: &["0.5", "-3.0", "1.0000000150474662e30"], back: &[] },
    Case { named: &[], ty: "float64", wit: "f64", given: &["0.1", "1e300", "-0.0"], back: &[] },
    Case { named: &[], ty: "char", wit: "char", given: &[r#""a""#, r#""🚕""#, r#""\u0000""#], back: &[] },
    Case { named: &[], ty: "string", wit: "string", given: &[r#""""#, r#""ü\u0000🚕""#], back: &[] },
    Case {
        named: &[DATETIME],
        ty: "$datetime",
        wit: "datetime",
        given: &[r#""2024-05-01T10:00:00.1234567Z""#],
        back: &[],
    },
    Case { named: &[JSON], ty: "$json", wit: "json", given: &[r#"{"a":[1,2.5,null]}"#, "null", "7"], back: &[] },
    Case { named: &[], ty: "(list u8)", wit: "list<u8>", given: &["[]", "[0,255]"], back: &[] },
    Case {
        named: &[],
        ty: "(list (list (list string)))",
        wit: "list<list<list<string>>>",
        given: &["[]", r#"[[],[["a"],[]]]"#],
        back: &[],
    },
    Case {
        named: &[],
        ty: "(list (tuple s64 bool))",
        wit: "list<tuple<s64, bool>>",
        given: &["[[1,true],[2,false]]"],
        back: &[],
    },
    Case {
        named: &[],
        ty: "(tuple char (tuple u16))",
        wit: "tuple<char, tuple<u16>>",
        given: &[r#"["x",[1]]"#],
        back: &[],
    },
    Case { named: &[], ty: "(option u64)", wit: "option<u64>", given: &["null", "1"], back: &[] },
    Case {
        named: &[],
        ty: "(list (option string))",
        wit: "list<option<string>>",
        given: &[r#"["a",null,""]"#],
        back: &[],
    },
    // an inner NULL cannot be told from an outer one
    Case { named: &[], ty: "(option (option bool))", wit: "option<option<bool>>", given: &["null", "true"], back: &[] },
    Case { named: &[], ty: "(result)", wit: "result", given: &[r#"{"ok":null}"#, r#"{"err":null}"#], back: &[] },
    Case { named: &[], ty: "(result s64)", wit: "result<s64>", given: &[r#"{"ok":1}"#, r#"{"err":null}"#], back: &[] },
    Case {
        named: &[],
        ty: "(result (error string))",
        wit: "result<_, string>",
        given: &[r#"{"ok":null}"#, r#"{"err":"no"}"#],
        back: &[],
    },
    Case {
        named: &[],
        ty: "(list (result (list u8) (error (tuple s8 string))))",
        wit: "list<result<list<u8>, tuple<s8, string>>>",
        given: &[r#"[{"ok":[1]},{"err":[-1,"no"]}]"#],
        back: &[],
    },
    Case {
        named: &[LEVEL],
        ty: "$level",
        wit: "enum { low, very-high }",
        given: &[r#""VeryHigh""#, r#""low""#],
        back: &[r#""very-high""#, r#""low""#],
    },
    Case {
        named: &[LEVEL],
        ty: "(list $level)",
        wit: "list<enum { low, very-high }>",
        given: &[r#"["low","very-high"]"#],
        back: &[],
    },
    Case {
        named: &[MARKS],
        ty: "$marks",
        wit: "flags { is-new, is-paid }",
        given: &[r#"{"isPaid":true}"#, "{}"],
        back: &[r#"{"is_new":false,"is_paid":true}"#, r#"{"is_new":false,"is_paid":false}"#],
    },
    Case {
        named: &[MARKS],
        ty: "(option $marks)",
        wit: "option<flags { is-new, is-paid }>",
        given: &["null"],
        back: &[],
    },
    Case {
        named: &[POINT],
        ty: "$point",
        wit: "record { x: f64, label-of: string }",
        given: &[r#"{"x":1.0,"label_of":"a"}"#],
        back: &[],
    },
    Case {
        named: &[POINT, ("row", r#"(record (field "points" (list $point)) (field "best" (option $point)))"#)],
        ty: "(list $row)",
        wit: "list<record { points: list<record { x: f64, label-of: string }>, best: option<record { x: f64, label-of: \
            string }> }>",
        given: &[r#"[{"points":[{"x":0.5,"label_of":""}],"best":null},{"points":[],"best":{"x":1.0,"label_of":"b"}}]"#],
        back: &[],
    },
    Case {
        named: &[DATETIME, JSON, ("note", r#"(record (field "at" $datetime) (field "any" (option $json)))"#)],
        ty: "$note",
        wit: "record { at: datetime, any: option<json> }",
        given: &[
            r#"{"at":"2024-05-01T10:00:00.0000000Z","any":[1]}"#,
            r#"{"at":"2024-05-01T10:00:00.0000000Z","any":null}"#,
        ],
        back: &[],
    },
    Case {
        named: &[POINT, ("shape", r#"(variant (case "none") (case "at-point" $point) (case "many" (list s64)))"#)],
        ty: "(list $shape)",
        wit: "list<variant { none, at-point(record { x: f64, label-of: string }), many(list<s64>) }>",
        given: &[r#"[{"none":null},{"at_point":{"x":1.0,"label_of":"a"}},{"many":[1,2]}]"#, r#"["none"]"#],
        back: &[r#"[{"none":null},{"at_point":{"x":1.0,"label_of":"a"}},{"many":[1,2]}]"#, r#"[{"none":null}]"#],
    },
];

#[test]
fn each_type_goes_there_and_back_alone_and_nested() {
    let zeros = vec!["0"; PADDING].join(",");
    for case in CASES {
        let component = Arc::new(echo(case.named, case.ty));
        let bindings = bind(&component, &["echo"]);
        let shown = bindings[0].signature().unwrap().text.clone();
        let wanted = format!(", {}>)", case.wit);
        let (params, result) = shown.split_once(" -> ").unwrap();
        assert!(
            params.ends_with(&wanted) && result.ends_with(&wanted[..wanted.len() - 1]),
            "{} is not in {shown}",
            case.wit
        );
        let mut host = Host::new(&bindings).unwrap();
        let back = if case.back.is_empty() { case.given } else { case.back };
        for (given, back) in case.given.iter().zip(back) {
            let answer = host
                .call(0, &[value(&format!("[[{zeros}],{given}]"))], NOW)
                .unwrap_or_else(|e| panic!("{}: {e:?}", case.wit));
            assert_eq!(answer.to_json(), format!("[[{zeros}],{back}]"), "{}", case.wit);
        }
    }
}

#[test]
fn a_resource_anywhere_in_a_signature_refuses_the_function() {
    for ty in
        ["(list (own $counter))", "(option (borrow $counter))", "(tuple u8 (own $counter))", "(result (own $counter))"]
    {
        let text = format!(
            r#"(component (type $counter' (resource (rep i32))) (export $counter "counter" (type $counter'))
                (core module $m (memory (export "memory") 1)
                    (func (export "realloc") (param i32 i32 i32 i32) (result i32) unreachable)
                    (func (export "take") (param i32 i32)) (func (export "one") (result i64) (i64.const 1)))
                (core instance $i (instantiate $m))
                (func (export "take") (param "x" {ty}) (canon lift (core func $i "take") (memory $i "memory")
                    (realloc (func $i "realloc"))))
                (func (export "one") (result s64) (canon lift (core func $i "one"))))"#
        );
        let component = component(&text).unwrap();
        let refused = component.find("take").unwrap_err().to_string();
        assert_eq!(refused, "test.wasm: `take` cannot be a function of a query: a resource has no SQL value", "{ty}");
        assert!(component.find("one").is_ok());
    }
}

/// Every interface of WASI 0.2.
const WASI: [&str; 31] = [
    "cli/environment",
    "cli/exit",
    "cli/stdin",
    "cli/stdout",
    "cli/stderr",
    "cli/terminal-input",
    "cli/terminal-output",
    "cli/terminal-stdin",
    "cli/terminal-stdout",
    "cli/terminal-stderr",
    "clocks/monotonic-clock",
    "clocks/wall-clock",
    "clocks/timezone",
    "filesystem/types",
    "filesystem/preopens",
    "http/types",
    "http/outgoing-handler",
    "io/error",
    "io/poll",
    "io/streams",
    "random/random",
    "random/insecure",
    "random/insecure-seed",
    "sockets/network",
    "sockets/instance-network",
    "sockets/ip-name-lookup",
    "sockets/tcp",
    "sockets/tcp-create-socket",
    "sockets/udp",
    "sockets/udp-create-socket",
    "config/store",
];

#[test]
fn a_guest_that_links_all_of_wasi_loads_and_each_call_is_denied_by_name() {
    let (mut imports, mut cores, mut with, mut module, mut exports, mut lifts) = Default::default();
    let add = |to: &mut String, text: String| to.push_str(&text);
    for (i, interface) in WASI.iter().enumerate() {
        // a resource of its own, a method of it, one that another interface gave, and functions with and without memory
        let foreign =
            if i > 0 { format!(r#"(alias export $w{} "thing" (type $other{i}))"#, i - 1) } else { String::new() };
        let uses = if i > 0 {
            format!(
                r#"(alias outer 1 $other{i} (type $o)) (export "other" (type $o' (eq $o)))
                    (export "use-other" (func (param "x" (own $o'))))"#
            )
        } else {
            String::new()
        };
        add(
            &mut imports,
            format!(
                r#"{foreign} (import "wasi:{interface}@0.2.6" (instance $w{i}
                (export "thing" (type $thing (sub resource)))
                (export "[method]thing.close" (func (param "self" (borrow $thing)) (result (result))))
                (export "get" (func (result u64)))
                (export "get-all" (func (result (list (tuple string (option (list u8)))))))
                {uses}))"#
            ),
        );
        add(&mut cores, format!(r#"(core func $c{i} (canon lower (func $w{i} "get")))"#));
        add(&mut with, format!(r#"(export "f{i}" (func $c{i}))"#));
        add(&mut module, format!(r#"(import "w" "f{i}" (func $f{i} (result i64)))"#));
        add(&mut exports, format!(r#"(func (export "f{i}") (result i64) (call $f{i}))"#));
        add(&mut lifts, format!(r#"(func (export "f{i}") (result u64) (canon lift (core func $i "f{i}")))"#));
    }
    let text = format!(
        r#"(component {imports} {cores}
            (core module $m {module} {exports} (func (export "fine") (result i64) (i64.const 7)))
            (core instance $i (instantiate $m (with "w" (instance {with}))))
            {lifts} (func (export "fine") (result u64) (canon lift (core func $i "fine"))))"#
    );
    let component = Arc::new(component(&text).unwrap());
    let names: Vec<String> = (0..WASI.len()).map(|i| format!("f{i}")).chain(["fine".to_owned()]).collect();
    let mut host = Host::new(&bind(&component, &names.iter().map(String::as_str).collect::<Vec<_>>())).unwrap();
    for (i, interface) in WASI.iter().enumerate() {
        let error = host.call(i, &[], NOW).unwrap_err();
        let wanted =
            format!("udf.f{i}: calls wasi:{interface}@0.2.6#get, which is not granted; build it without that import");
        assert_eq!((error.reason, error.message), ("udf_trap", wanted));
        assert_eq!(host.call(WASI.len(), &[], NOW), Ok(Value::BigInt(7)));
    }
}

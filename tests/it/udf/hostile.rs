//! Guests that misbehave: each costs its row, and nothing else.

use super::*;

/// One guest with a function for each way to misbehave, and one that does not.
fn hostile() -> Component {
    let parts = [
        number("fine", "i64.const 7"),
        number("trap", "unreachable"),
        number("divide", "(i64.div_s (i64.const 1) (i64.const 0))"),
        number("wild", "(i64.load (i32.const -8))"),
        number("endless", "(loop $l br $l) unreachable"),
        number("bomb", "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable"),
        number("gulp", "(drop (memory.grow (i32.const 65535))) unreachable"),
        number(
            "table-bomb",
            "(loop $l (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)))) unreachable",
        ),
        number("recursion", "call $deep"),
        text("huge", 0, 2 << 20),
        text("outside", 4, 3 << 20),
        text("not-utf8", 0x1_0000, 4),
    ];
    let mut module = r#"(memory (export "memory") 40) (table $t 1 funcref)
        (data (i32.const 0x10000) "\ff\fe\fd\fc")
        (func $deep (result i64) (i64.add (call $deep) (i64.const 1)))"#
        .to_owned();
    let mut lifts = String::new();
    for (core, lift) in parts {
        module += &core;
        lifts += &lift;
    }
    around(&module, &lifts)
}

#[test]
fn a_hostile_function_costs_its_row_and_nothing_else() {
    let cases = [
        ("trap", "udf_trap", "wasm `unreachable` instruction executed"),
        ("divide", "udf_trap", "integer divide by zero"),
        ("wild", "udf_trap", "out of bounds memory access"),
        ("endless", "udf_timeout", "ran longer than 100 ms"),
        ("bomb", "udf_memory", "wanted more than its 4 MiB of memory"),
        ("gulp", "udf_memory", "wanted more than its 4 MiB of memory"),
        ("table-bomb", "udf_trap", "unreachable"),
        ("recursion", "udf_trap", "ran out of its 512 KiB of stack"),
        ("huge", "udf_result", "gave a result of more than 1 MiB"),
        ("outside", "udf_trap", "gave a malformed result"),
        ("not-utf8", "udf_trap", "gave a malformed result"),
    ];
    let component = Arc::new(hostile());
    let mut names = cases.map(|(name, ..)| name).to_vec();
    names.push("fine");
    let bindings = bind(&component, &names);
    let mut host = Host::new(&bindings).unwrap();
    let other = bind(&guest("create_row"), &["createRow"]);
    let mut other = Host::new(&other).unwrap();
    for round in 1..=2 {
        for (index, (name, reason, message)) in cases.iter().enumerate() {
            let error = host.call(index, &[], NOW).unwrap_err();
            assert_eq!(error.reason, *reason, "{}", error.message);
            assert!(
                error.message.starts_with(&format!("udf.{name}: ")) && error.message.contains(message),
                "{}",
                error.message
            );
            assert_eq!(failures(&bindings[index], reason), round);
            assert_eq!(host.call(cases.len(), &[], NOW), Ok(Value::BigInt(7)), "after {name}");
        }
    }
    let row = [Value::BigInt(1), Value::text("Monday"), Value::BigInt(5), Value::BigInt(2), Value::BigInt(6)];
    assert!(other.call(0, &row, NOW).is_ok());
    // the bomb came close to its limit and no further
    let most = bindings[4].stats.memory_bytes_max();
    assert!((3 << 20..=4 << 20).contains(&most), "{most}");
}

#[test]
fn a_function_that_only_traps_is_paused_and_others_are_not() {
    let bindings = bind(&Arc::new(hostile()), &["trap", "fine"]);
    let mut host = Host::new(&bindings).unwrap();
    let mut error = host.call(0, &[], NOW).unwrap_err();
    let mut traps = 0;
    // on a machine that stands still for a second the pause may be over before it is seen; then one more trap starts
    // the next
    while error.reason == "udf_trap" && traps < 200 {
        traps += 1;
        error = host.call(0, &[], NOW).unwrap_err();
    }
    assert!(traps >= 100, "{traps}");
    assert_eq!(error.reason, "udf_breaker");
    assert!(error.message.starts_with("udf.trap: is paused for "), "{}", error.message);
    assert_eq!(host.call(1, &[], NOW), Ok(Value::BigInt(7)));
    assert_eq!(bindings.each_calls(), [traps, 1]);
}

#[test]
fn a_host_moves_to_the_thread_that_calls() {
    let mut host = Host::new(&bind(&Arc::new(hostile()), &["fine", "recursion"])).unwrap();
    let joined = std::thread::spawn(move || (host.call(1, &[], NOW).unwrap_err().reason, host.call(0, &[], NOW)))
        .join()
        .unwrap();
    assert_eq!(joined, ("udf_trap", Ok(Value::BigInt(7))));
}

/// A function of a type that gives `body`'s number, or what it wrote to memory at the address it gives.
fn typed(name: &str, ty: &str, core: &str, body: &str, options: &str) -> (String, String) {
    let function = format!(r#"(func (export "{name}") (result {core}) {body})"#);
    (
        function,
        format!(
            r#"(func (export "{name}") (result {ty}) (canon lift (core func $i "{name}")
                (memory $i "memory") {options}))"#
        ),
    )
}

/// `first` at address 0 and `second` at 4 or 8.
fn at_zero(first: i64, second: i64) -> String {
    format!(
        "(i32.store (i32.const 0) (i32.const {first})) (i32.store (i32.const 4) (i32.const {second})) \
         (i32.store (i32.const 8) (i32.const {second})) (i32.const 0)"
    )
}

#[test]
fn results_that_are_no_values_are_row_errors() {
    let (big, endless) = (0x4000_0000, "(loop $l br $l)");
    let cases = [
        (typed("enum", "$level", "i32", "i32.const 2", ""), "udf_trap", "gave a malformed result"),
        (typed("variant", "$shape", "i32", &at_zero(2, 0), ""), "udf_trap", "gave a malformed result"),
        (typed("option", "(option s64)", "i32", &at_zero(2, 0), ""), "udf_trap", "gave a malformed result"),
        (typed("result", "(result s64)", "i32", &at_zero(255, 0), ""), "udf_trap", "gave a malformed result"),
        (typed("surrogate", "char", "i32", "i32.const 0xd800", ""), "udf_trap", "gave a malformed result"),
        (typed("past-unicode", "char", "i32", "i32.const 0x110000", ""), "udf_trap", "gave a malformed result"),
        (typed("far-list", "(list u64)", "i32", &at_zero(0x10_0000, 3), ""), "udf_trap", "gave a malformed result"),
        (typed("crooked-list", "(list u64)", "i32", &at_zero(3, 1), ""), "udf_trap", "gave a malformed result"),
        (typed("overflow", "(list u64)", "i32", &at_zero(0, big), ""), "udf_", ""),
        (typed("negative", "(list u8)", "i32", &at_zero(0, -1), ""), "udf_", ""),
        (typed("pages", "(list u8)", "i32", &at_zero(0, 0xffff), ""), "udf_result", "gave a result of more than 1 MiB"),
        (typed("crooked", "(option s64)", "i32", "i32.const 1", ""), "udf_trap", "gave a malformed result"),
        (typed("past-the-end", "(option s64)", "i32", "i32.const 0xfff8", ""), "udf_trap", "gave a malformed result"),
        (
            typed("after", "string", "i32", &at_zero(0, 0), r#"(post-return (func $i "endless"))"#),
            "udf_timeout",
            "ran longer than 100 ms",
        ),
        (
            typed("after-trap", "string", "i32", &at_zero(0, 0), r#"(post-return (func $i "bad"))"#),
            "udf_trap",
            "trapped",
        ),
    ];
    let mut module = format!(
        r#"(memory (export "memory") 1) (func (export "endless") (param i32) {endless}) (func (export "bad")
            (param i32) unreachable)
        (func (export "fine") (result i64) (i64.const 7))"#
    );
    let mut lifts = r#"(type $level' (enum "low" "high")) (export $level "level" (type $level'))
        (type $shape' (variant (case "none") (case "some" u64))) (export $shape "shape" (type $shape'))
        (func (export "fine") (result s64) (canon lift (core func $i "fine")))"#
        .to_owned();
    for ((core, lift), ..) in &cases {
        module += core;
        lifts += lift;
    }
    let component = Arc::new(around(&module, &lifts));
    let names: Vec<&str> =
        cases.iter().map(|((core, _), ..)| core.split('"').nth(1).unwrap()).chain(["fine"]).collect();
    let mut host = Host::new(&bind(&component, &names)).unwrap();
    for (index, (_, reason, message)) in cases.iter().enumerate() {
        let error = host.call(index, &[], NOW).unwrap_err();
        assert!(
            error.reason.starts_with(reason) && error.message.contains(message),
            "{}: {}",
            error.reason,
            error.message
        );
        assert!(error.message.starts_with(&format!("udf.{}: ", names[index])), "{}", error.message);
        assert_eq!(host.call(cases.len(), &[], NOW), Ok(Value::BigInt(7)), "after {}", names[index]);
    }
}

#[test]
fn an_allocator_that_misbehaves_is_a_row_error() {
    let cases = [
        ("i32.const -16", "udf_trap", "gave a malformed result"),
        ("i32.const 0xfffff", "udf_trap", "gave a malformed result"),
        ("unreachable", "udf_trap", "trapped"),
        ("(loop $l br $l) unreachable", "udf_timeout", "ran longer than 100 ms"),
        ("call $deep", "udf_trap", "ran out of its 512 KiB of stack"),
        (
            "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable",
            "udf_memory",
            "wanted more than its 4 MiB",
        ),
    ];
    for (body, reason, message) in cases {
        let module = format!(
            r#"(memory (export "memory") 1) (func $deep (result i32) (i32.add (call $deep) (i32.const 1)))
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) {body})
            (func (export "take") (param i32 i32) (result i64) (i64.const 1)) (func (export "fine") (result i64)
                (i64.const 7))"#
        );
        let lifts = r#"(func (export "take") (param "x" string) (result s64)
                (canon lift (core func $i "take") (memory $i "memory") (realloc (func $i "realloc"))))
            (func (export "fine") (result s64) (canon lift (core func $i "fine")))"#;
        let mut host = Host::new(&bind(&Arc::new(around(&module, lifts)), &["take", "fine"])).unwrap();
        for _ in 0..2 {
            let error = host.call(0, &[Value::text("some text")], NOW).unwrap_err();
            assert!(error.reason == reason && error.message.contains(message), "{}: {}", error.reason, error.message);
            assert_eq!(host.call(1, &[], NOW), Ok(Value::BigInt(7)), "after {body}");
        }
    }
}

#[test]
fn thousands_of_exports_and_components_in_components_are_fine() {
    let exports: String =
        (0..3000).map(|i| format!(r#"(func (export "f{i}x") (result i64) (i64.const {i}))"#)).collect();
    let lifts: String = (0..3000)
        .map(|i| format!(r#"(func (export "f{i}x") (result s64) (canon lift (core func $i "f{i}x")))"#))
        .collect();
    for component in [around(&exports, &lifts), component(&format!("(module {exports})")).unwrap()] {
        let mut host = Host::new(&bind(&Arc::new(component), &["f0x", "f2999x"])).unwrap();
        assert_eq!(host.call(1, &[], NOW), Ok(Value::BigInt(2999)));
    }
    // each level exports what the one inside does
    let mut inner = r#"(component $c0 (core module $m (func (export "f") (result i64) (i64.const 7)))
        (core instance $i (instantiate $m)) (func (export "f") (result s64) (canon lift (core func $i "f"))))"#
        .to_owned();
    for level in 1..=20 {
        inner = format!(
            r#"(component $c{level} {inner} (instance $n (instantiate $c{})) (export "f" (func $n "f")))"#,
            level - 1
        );
    }
    let nested = component(&inner).unwrap();
    assert_eq!(Host::new(&bind(&Arc::new(nested), &["f"])).unwrap().call(0, &[], NOW), Ok(Value::BigInt(7)));
    // a file that wants more instances than it may have is refused at its start
    let many: String = (0..200).map(|i| format!("(core instance $x{i} (instantiate $e))")).collect();
    let (core, lift) = number("f", "i64.const 1");
    let crowd = component(&format!(
        "(component (core module $e) {many} (core module $m {core}) (core instance $i (instantiate $m)) {lift})"
    ));
    let error = Host::new(&bind(&Arc::new(crowd.unwrap()), &["f"])).unwrap_err().to_string();
    assert!(error.starts_with("test.wasm does not start: "), "{error}");
}

/// Address space of this process, in bytes.
fn address_space() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').next().unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn what_lost_instances_held_is_given_back() {
    const ROUNDS: usize = 300;
    let core = r#"(module (memory (export "memory") 1)
        (func (export "bomb") (result i64) (loop $l (br_if $l (i32.ne (memory.grow (i32.const 1))
            (i32.const -1)))) unreachable))"#;
    let of_core = Arc::new(component(core).unwrap());
    let of_component = Arc::new(hostile());
    let before = address_space();
    for component in [&of_core, &of_component] {
        // a new host each time: the breaker is not what is tested
        for _ in 0..ROUNDS {
            let mut host = Host::new(&bind(component, &["bomb"])).unwrap();
            assert_eq!(host.call(0, &[], NOW).unwrap_err().reason, "udf_memory");
        }
    }
    // a memory takes 4 GiB of address space; other tests hold some at the same time
    let grown = address_space().saturating_sub(before);
    assert!(grown < ROUNDS << 32, "{} GiB after {} lost instances", grown >> 30, 2 * ROUNDS);
}

/// Loads a damaged file and calls what it has. All that may come of it is an error or a value.
fn survives(wasm: &[u8], limits: Limits) {
    let Ok(component) = Component::from_bytes(&ENGINE, Path::new("damaged.wasm"), wasm, limits) else { return };
    let component = Arc::new(component);
    let callable = component.exports().iter().enumerate().filter(|(_, e)| e.callable.is_ok());
    let bindings: Vec<FunctionBinding> =
        callable.map(|(i, e)| FunctionBinding::new(Arc::clone(&component), i, e.name.clone())).collect();
    let Ok(mut host) = Host::new(&bindings) else { return };
    let args = ["1", "Mon", "17", "2", "8.33"].map(Value::text);
    for index in 0..bindings.len() {
        for args in
            [&args[..], &[Value::BigInt(7), Value::text("x"), Value::BigInt(1), Value::BigInt(1), Value::Float(0.5)]]
        {
            if let Err(error) = host.call(index, args, NOW) {
                assert!(
                    !error.message.is_empty() && (error.reason.starts_with("udf_") || error.reason == "too_deep"),
                    "{error:?}"
                );
            }
        }
    }
}

#[test]
fn damaged_files_end_in_errors_or_values() {
    let module = wat::parse_str(
        r#"(module (memory (export "memory") 2) (global $top (mut i32) (i32.const 1024))
            (func (export "forebay_alloc") (param $n i32) (result i32)
                (global.set $top (i32.add (global.get $top) (local.get $n))) (i32.sub (global.get $top) (local.get $n)))
            (func (export "forebay_json_echo") (param i32 i32) (result i64)
                (i64.or (i64.shl (i64.extend_i32_u (local.get 0)) (i64.const 32)) (i64.extend_i32_u (local.get 1))))
            (func (export "sum") (param i64 i64) (result i64) (local $i i64)
                (loop $l (local.set $i (i64.add (local.get $i) (local.get 0)))
                    (br_if $l (i64.lt_s (local.get $i) (local.get 1))))
                (local.get $i)))"#,
    )
    .unwrap();
    let limits = Limits { timeout: Duration::from_millis(20), memory_bytes: 4 << 20, ..Limits::default() };
    let files = [
        (module, 1, 1),
        // compiling one takes a while, so a few places of each
        (std::fs::read(built("create_array")).unwrap(), 997, 1201),
        (std::fs::read(built("create_row")).unwrap(), 1009, 1301),
    ];
    for (whole, cut_step, flip_step) in files {
        for end in (0..whole.len()).step_by(cut_step) {
            survives(&whole[..end], limits);
        }
        for at in (0..whole.len()).step_by(flip_step) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            survives(&flipped, limits);
        }
    }
}

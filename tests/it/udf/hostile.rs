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
        number("table-bomb", "(loop $l (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)))) unreachable"),
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
            assert!(error.message.starts_with(&format!("udf.{name}: ")) && error.message.contains(message), "{}", error.message);
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
    // on a machine that stands still for a second the pause may be over before it is seen; then one more trap starts the next
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
    let joined = std::thread::spawn(move || (host.call(1, &[], NOW).unwrap_err().reason, host.call(0, &[], NOW))).join().unwrap();
    assert_eq!(joined, ("udf_trap", Ok(Value::BigInt(7))));
}

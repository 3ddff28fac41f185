//! The imports that core modules of other tools link: WASI and the abort of AssemblyScript, without any real effect.

use forebay::time::Timestamp;
use forebay::udf::UserFunctions as _;
use forebay::value::Value;

use super::host;
use crate::udf::NOW;

/// A module with one function of numbers that calls one import, and the memory that it needs.
fn calls(import: &str, ty: &str, body: &str) -> String {
    format!(
        r#"(module (import "wasi_snapshot_preview1" "{import}" (func $wasi {ty}))
            (memory (export "memory") 1) (data (i32.const 512) "\ff\ff\ff\ff\ff\ff\ff\ff")
                (data (i32.const 64) "panic:\0a what\00\00")
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
            (func (export "f") (result i64) (call $abort {pointer} (i32.const 0) (i32.const 7) (i32.const 1))
                (i64.const 1)))"#
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

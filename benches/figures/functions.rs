//! What a call of a function costs, beside the same component called by wasmtime with static types: the guest's own
//! work and what wasmtime itself needs. The difference is the host's: conversion from and to SQL values, limits,
//! counters.

// the derived lifting of a record is unsafe code that wasmtime's macro writes
#![allow(unsafe_code)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use forebay::time::Timestamp;
use forebay::udf::{Component, Engine, FunctionBinding, Host, Limits, UserFunctions as _};
use forebay::value::Value;
use wasmtime::component::{ComponentType, Lift, Linker};
use wasmtime::{Config, Store};

use super::micro::{best, seconds};

const CALLS: usize = 100_000;

/// `floats: func(a: f64, …) -> list<f64>`: the five come back, twice as large.
const FLOATS: &str = r#"(component
    (core module $m (memory (export "memory") 1)
        (func (export "floats") (param f64 f64 f64 f64 f64) (result i32)
            (f64.store (i32.const 64) (f64.mul (local.get 0) (f64.const 2))) (f64.store (i32.const 72)
                (f64.mul (local.get 1) (f64.const 2)))
            (f64.store (i32.const 80) (f64.mul (local.get 2) (f64.const 2))) (f64.store (i32.const 88)
                (f64.mul (local.get 3) (f64.const 2)))
            (f64.store (i32.const 96) (f64.mul (local.get 4) (f64.const 2)))
            (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 5)) (i32.const 0)))
    (core instance $i (instantiate $m))
    (func (export "floats") (param "a" float64) (param "b" float64) (param "c" float64) (param "d" float64)
        (param "e" float64)
        (result (list float64)) (canon lift (core func $i "floats") (memory $i "memory"))))"#;

/// The same in a core module, by JSON text that comes back as it went.
const JSON: &str = r#"(module (memory (export "memory") 1)
    (func (export "forebay_alloc") (param i32) (result i32) (i32.const 1024))
    (func (export "forebay_json_echo") (param i32 i32) (result i64)
        (i64.or (i64.shl (i64.extend_i32_u (local.get 0)) (i64.const 32)) (i64.extend_i32_u (local.get 1))))
    (func (export "sum") (param f64 f64 f64 f64 f64) (result f64)
        (f64.add (f64.add (f64.add (local.get 0) (local.get 1)) (f64.add (local.get 2) (local.get 3)))
            (local.get 4))))"#;

#[derive(ComponentType, Lift)]
#[component(record)]
#[allow(dead_code)] // what wasmtime fills is only dropped
struct Row {
    vendorid: i64,
    weekday: String,
    pickuphour: i64,
    passenger: i64,
    distance: f64,
}

pub fn run(folder: &Path) {
    let built = |name: &str| {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("udfs/target/components").join(name).with_extension("wasm");
        std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; `make bench` builds it", path.display()))
    };
    let engine = Engine::new(Some(folder.join("cache"))).unwrap();
    println!("functions: ns a call, best of three passes of {CALLS} calls");
    println!("  {:<36} {:>9} {:>14} {:>9}", "", "forebay", "typed wasmtime", "overhead");
    let floats = [1.0, 2.0, 3.0, 4.0, 5.5];
    let texts = ["1", "Mon", "17", "2", "8.33"];
    let mixed = [Value::BigInt(1), Value::text("Mon"), Value::BigInt(17), Value::BigInt(2), Value::Float(8.33)];

    let wasm = wat::parse_str(FLOATS).unwrap();
    let typed = raw::<(f64, f64, f64, f64, f64), (Vec<f64>,)>(&wasm, "floats", || black_box((1.0, 2.0, 3.0, 4.0, 5.5)));
    row("five floats in, a list of five out", ours(&engine, &wasm, "floats", &floats.map(Value::Float)), Some(typed));

    let wasm = built("create_array");
    type Texts<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str);
    type Owned = ((String, String, String, String, String),);
    let typed = raw::<Texts<'static>, Owned>(&wasm, "create-array", || black_box(("1", "Mon", "17", "2", "8.33")));
    row(
        "five texts in, a tuple of five out",
        ours(&engine, &wasm, "create-array", &texts.map(Value::text)),
        Some(typed),
    );

    let wasm = built("create_row");
    let typed =
        raw::<(i64, &'static str, i64, i64, f64), (Row,)>(&wasm, "create-row", || black_box((1, "Mon", 17, 2, 8.33)));
    row("five mixed in, a record of five out", ours(&engine, &wasm, "create-row", &mixed), Some(typed));

    let wasm = wat::parse_str(JSON).unwrap();
    row("core module, five floats in, one out", ours(&engine, &wasm, "sum", &floats.map(Value::Float)), None);
    row("core module, five mixed by JSON", ours(&engine, &wasm, "echo", &mixed), None);
    println!();
}

fn row(name: &str, ours: f64, typed: Option<f64>) {
    match typed {
        Some(typed) => println!("  {name:<36} {ours:>9.0} {typed:>14.0} {:>9.0}", ours - typed),
        None => println!("  {name:<36} {ours:>9.0}"),
    }
}

/// As an executor calls it.
fn ours(engine: &Engine, wasm: &[u8], name: &str, args: &[Value]) -> f64 {
    let component = Arc::new(Component::from_bytes(engine, Path::new(name), wasm, Limits::default()).unwrap());
    let export = component.find(name).unwrap();
    let mut host = Host::new(&[FunctionBinding::new(component, export, name)]).unwrap();
    let time = best(|| {
        seconds(|| {
            for _ in 0..CALLS {
                black_box(host.call(0, black_box(args), Timestamp::MIN).unwrap());
            }
        })
    });
    time * 1e9 / CALLS as f64
}

/// By wasmtime alone, with types known when this was compiled and the settings that matter to the code.
fn raw<P, R>(wasm: &[u8], name: &str, args: impl Fn() -> P) -> f64
where
    P: wasmtime::component::ComponentNamedList + wasmtime::component::Lower,
    R: wasmtime::component::ComponentNamedList + Lift + 'static,
{
    let mut config = Config::new();
    config.epoch_interruption(true).concurrency_support(false).max_wasm_stack(512 << 10);
    let engine = wasmtime::Engine::new(&config).unwrap();
    let component = wasmtime::component::Component::from_binary(&engine, wasm).unwrap();
    let mut store = Store::new(&engine, ());
    store.set_epoch_deadline(1 << 40);
    let instance = Linker::new(&engine).instantiate(&mut store, &component).unwrap();
    let function = instance.get_typed_func::<P, R>(&mut store, name).unwrap();
    let time = best(|| {
        seconds(|| {
            for _ in 0..CALLS {
                black_box(function.call(&mut store, args()).unwrap());
            }
        })
    });
    time * 1e9 / CALLS as f64
}

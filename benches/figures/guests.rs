//! The same function in each language of `udfs/`: size, start from the cache, cost of a call.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use forebay::time::Timestamp;
use forebay::udf::{Component, Engine, FunctionBinding, Host, Limits, Origin, UserFunctions as _};
use forebay::value::Value;

const PASSES: usize = 5;
/// Calls of one pass: a tenth of a second in the slowest language.
const CALLS: u32 = 10_000;

const GUESTS: [(&str, &str); 8] = [
    ("Rust", "create_array"),
    ("C", "taxi_c"),
    ("Zig", "taxi_zig"),
    ("AssemblyScript", "taxi_assemblyscript"),
    ("WAT", "taxi_wat"),
    ("Go", "taxi_go"),
    ("JavaScript", "taxi_javascript"),
    ("Python", "taxi_python"),
];

/// The number of calls of the long run, when one is asked for.
const SOAK: &str = "FOREBAY_BENCH_SOAK";

pub fn run() {
    let cache = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("guests-cache");
    println!("guests: createArray, five texts in, five out; best of {PASSES}");
    println!(
        "  {:<16} {:>11} {:>12} {:>12} {:>11} {:>9} {:>9}",
        "", "bytes", "compile ms", "load ms", "start us", "ns/call", "memory MiB"
    );
    for (language, file) in GUESTS {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("udfs/target/components").join(file).with_extension("wasm");
        if !path.exists() {
            println!("  {language:<16} left out; `make bench` builds what the machine can");
            continue;
        }
        let engine = Engine::new(Some(cache.clone())).unwrap();
        let start = Instant::now();
        let first = Component::load(&engine, &path, Limits::default()).unwrap();
        let compiled = (first.origin() == Origin::Compiler).then(|| start.elapsed().as_secs_f64() * 1e3);
        let load = best(|| {
            let engine = Engine::new(Some(cache.clone())).unwrap();
            let start = Instant::now();
            black_box(Component::load(&engine, &path, Limits::default()).unwrap());
            start.elapsed().as_secs_f64() * 1e3
        });
        let component = Arc::new(first);
        let binding = FunctionBinding::new(component.clone(), component.find("createArray").unwrap(), "createArray");
        let fresh = best(|| {
            let start = Instant::now();
            black_box(Host::new(std::slice::from_ref(&binding)).unwrap());
            start.elapsed().as_secs_f64() * 1e6
        });
        let mut host = Host::new(std::slice::from_ref(&binding)).unwrap();
        let args = ["1", "Mon", "17", "2", "8.33"].map(Value::text);
        let mut calls = |n: u32| {
            let start = Instant::now();
            for _ in 0..n {
                black_box(host.call(0, black_box(&args), Timestamp::MIN).unwrap());
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(n)
        };
        let call = best(|| calls(CALLS));
        println!(
            "  {language:<16} {:>11} {:>12} {load:>12.2} {fresh:>11.0} {call:>9.0} {:>9.1}",
            component.bytes(),
            compiled.map_or_else(|| "cached".to_owned(), |ms| format!("{ms:.0}")),
            binding.stats.memory_bytes_max() as f64 / f64::from(1 << 20),
        );
        if let Some(long) = std::env::var(SOAK).ok().and_then(|n| n.parse().ok()).filter(|_| language == "Rust") {
            let before = binding.stats.memory_bytes_max();
            let each = calls(long);
            println!(
                "    {long} calls more: {each:.0} ns each, {} bytes of memory at most, {before} before",
                binding.stats.memory_bytes_max()
            );
        }
    }
    println!();
}

fn best(pass: impl FnMut() -> f64) -> f64 {
    std::iter::repeat_with(pass).take(PASSES).fold(f64::INFINITY, f64::min)
}

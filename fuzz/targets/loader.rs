//! Any bytes are a component whose functions are known, or an error that says what to do.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use forebay::udf::{Component, Engine, Limits};
use libfuzzer_sys::fuzz_target;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(None).expect("the engine starts"));

fuzz_target!(|bytes: &[u8]| {
    match Component::from_bytes(&ENGINE, Path::new("mutated.wasm"), bytes, Limits::default()) {
        Ok(component) => assert!(!component.exports().is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

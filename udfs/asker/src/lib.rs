//! A guest of the tests: each function of the interfaces that can be granted, as it is.

wit_bindgen::generate!({ path: ["../../wit/imports.wit", "wit"], world: "forebay:asker/asker", generate_all });

use forebay::host::log::{self, Level};
use forebay::host::lookup::{self, Scalar};
use forebay::host::{clock, config, state};

struct Asker;

impl Guest for Asker {
    fn remember(key: String, value: String) {
        state::set(&key, value.as_bytes());
    }

    fn remember_and_fail(key: String, value: String) -> Result<String, String> {
        state::set(&key, value.as_bytes());
        state::delete("kept");
        Err("it was to fail".into())
    }

    fn remember_and_trap(key: String, value: String) {
        state::set(&key, value.as_bytes());
        state::delete("kept");
        core::arch::wasm32::unreachable()
    }

    fn remember_and_overflow(key: String, value: String) -> u64 {
        state::set(&key, value.as_bytes());
        u64::MAX
    }

    fn recall(key: String) -> Option<String> {
        state::get(&key).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn forget(key: String) {
        state::delete(&key);
    }

    fn keys(prefix: String) -> Vec<String> {
        state::keys(&prefix)
    }

    fn say(message: String, times: i64) {
        (0..times).for_each(|_| log::write(Level::Warn, &message));
    }

    fn setting(key: String) -> Option<String> {
        config::get(&key)
    }

    fn settings() -> Vec<String> {
        config::keys()
    }

    fn now() -> Datetime {
        clock::now()
    }

    fn first(table: String, column: String, value: String) -> Option<Json> {
        lookup::get(&table, &column, &Scalar::Text(value))
    }

    fn every(table: String, column: String, value: i64) -> Vec<Json> {
        lookup::all(&table, &column, &Scalar::Bigint(value))
    }

    fn pick(table: String, column: String, value: f64, wanted: String) -> Option<String> {
        lookup::get_value(&table, &column, &Scalar::Float(value), &wanted).map(|found| match found {
            Scalar::Bit(b) => b.to_string(),
            Scalar::Bigint(n) => n.to_string(),
            Scalar::Float(f) => f.to_string(),
            Scalar::Text(text) => text,
        })
    }
}

export!(Asker);

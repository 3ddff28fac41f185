//! User functions called through the host as the engine calls them: guests that behave, guests that do not, and files
//! that are no functions. The guests are WebAssembly text or built examples.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[cfg(feature = "udf-build")]
#[path = "udf/build.rs"]
mod build;
#[path = "udf/cache.rs"]
mod cache;
#[path = "udf/components.rs"]
mod components;
#[path = "udf/core_modules.rs"]
mod core_modules;
#[path = "udf/hostile.rs"]
mod hostile;
#[path = "udf/types.rs"]
mod types;

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use forebay::query::builtins::RowError;
use forebay::query::catalog::Shape;
use forebay::time::Timestamp;
use forebay::udf::{Component, Engine, FunctionBinding, Host, Limits, Origin, UdfError, UserFunctions as _, json};
use forebay::value::Value;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(None).unwrap());

/// Event time of the rows of these tests.
const NOW: Timestamp = Timestamp::MIN;
/// Short, so that a loop costs a test little; long beside what a busy machine takes from the others.
const TIMEOUT: Duration = Duration::from_millis(100);

fn limits() -> Limits {
    Limits { timeout: TIMEOUT, memory_bytes: 4 << 20, ..Limits::default() }
}

/// A component from text.
fn component(wat: &str) -> Result<Component, UdfError> {
    Component::from_bytes(&ENGINE, Path::new("test.wasm"), &wat::parse_str(wat).unwrap(), limits())
}

/// A component around one core module; `lifts` are its exports.
fn around(module: &str, lifts: &str) -> Component {
    component(&format!("(component (core module $m {module}) (core instance $i (instantiate $m)) {lifts})")).unwrap()
}

/// A function without arguments that gives a number.
fn number(name: &str, body: &str) -> (String, String) {
    let core = format!(r#"(func (export "{name}") (result i64) {body})"#);
    (core, format!(r#"(func (export "{name}") (result s64) (canon lift (core func $i "{name}")))"#))
}

/// A function without arguments that gives the text at `pointer`, `length`, which it writes to address 0.
fn text(name: &str, pointer: u32, length: u32) -> (String, String) {
    let core = format!(
        r#"(func (export "{name}") (result i32)
            (i32.store (i32.const 0) (i32.const {pointer})) (i32.store (i32.const 4) (i32.const {length}))
                (i32.const 0))"#
    );
    let lift = format!(
        r#"(func (export "{name}") (result string) (canon lift (core func $i "{name}") (memory $i "memory")))"#
    );
    (core, lift)
}

fn built(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("udfs/target/components").join(name).with_extension("wasm");
    assert!(path.exists(), "{} is missing: run `make udfs`", path.display());
    path
}

fn guest(name: &str) -> Arc<Component> {
    // not the short time of the hostile ones: these must not fail on a busy machine
    Arc::new(
        Component::load(&ENGINE, &built(name), Limits { timeout: Duration::from_secs(10), ..Limits::default() })
            .unwrap(),
    )
}

fn bind(component: &Arc<Component>, names: &[&str]) -> Vec<FunctionBinding> {
    names.iter().map(|name| FunctionBinding::new(Arc::clone(component), component.find(name).unwrap(), *name)).collect()
}

fn value(text: &str) -> Value {
    json::parse(text).unwrap()
}

fn failures(binding: &FunctionBinding, reason: &str) -> u64 {
    binding.stats.failures().find(|(r, _)| *r == reason).unwrap().1
}

trait EachCalls {
    fn each_calls(&self) -> Vec<u64>;
}

impl EachCalls for Vec<FunctionBinding> {
    fn each_calls(&self) -> Vec<u64> {
        self.iter().map(|b| b.stats.calls()).collect()
    }
}

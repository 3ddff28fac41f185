//! Functions in core modules: numbers, JSON by pointer and length, the stubs they link, and modules that do not keep to
//! the convention. The modules are WebAssembly text in the test.

#[path = "core_modules/convention.rs"]
mod convention;
#[path = "core_modules/instances.rs"]
mod instances;
#[path = "core_modules/stubs.rs"]
mod stubs;
#[path = "core_modules/values.rs"]
mod values;

use super::*;

/// A module with a memory, an allocator that gives address 4096, and more.
fn json_module(more: &str) -> String {
    format!(
        r#"(module
            (memory (export "memory") 2)
            (func (export "forebay_alloc") (param i32) (result i32) (i32.const 4096))
            (func $packed (param $p i32) (param $n i32) (result i64)
                (i64.or (i64.shl (i64.extend_i32_u (local.get $p)) (i64.const 32)) (i64.extend_i32_u (local.get $n))))
            (func (export "forebay_json_echo") (param i32 i32) (result i64) (call $packed (local.get 0) (local.get 1)))
            {more})"#
    )
}

/// A function of JSON that answers a fixed text.
fn says(name: &str, at: u32, text: &str) -> String {
    let escaped: String = text.bytes().map(|b| format!("\\{b:02x}")).collect();
    format!(
        r#"(data (i32.const {at}) "{escaped}")
        (func (export "forebay_json_{name}") (param i32 i32) (result i64) (call $packed (i32.const {at})
            (i32.const {})))"#,
        text.len()
    )
}

fn host(text: &str, names: &[&str]) -> Host {
    Host::new(&bind(&Arc::new(component(text).unwrap()), names)).unwrap()
}

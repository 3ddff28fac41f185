//! The code behind `forebay udf build`: a core module with its type becomes a component, and what cannot says why.

use forebay::udf::build::component;

use super::*;

#[test]
fn a_module_with_its_type_becomes_the_component() {
    let module =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("udfs/target/wasm32-unknown-unknown/release/create_array.wasm");
    assert!(module.exists(), "{} is missing: run `make udfs`", module.display());
    let wasm = component(&module, &std::fs::read(&module).unwrap()).unwrap();
    assert_eq!(wasm, std::fs::read(built("create_array")).unwrap(), "udfs/target is stale: run `make udfs`");
    // a component stays as it is
    assert_eq!(component(&module, &wasm).unwrap(), wasm);
}

#[test]
fn what_cannot_become_one_says_why() {
    let cases = [
        ("(module (import \"wasi_snapshot_preview1\" \"fd_write\" (func)))", "it imports WASI preview 1"),
        (r#"(module (func (export "f") (result i64) (i64.const 1)))"#, "it carries no component type"),
    ];
    for (text, message) in cases {
        let error = component(Path::new("m.wasm"), &wat::parse_str(text).unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("m.wasm does not become a component: ") && error.contains(message), "{error}");
    }
    assert!(matches!(component(Path::new("m.wasm"), b"text"), Err(UdfError::NotWasm { .. })));
}

//! Components that cannot be used: what the binary prints in a job and with `forebay udf`. No peer.

use std::fs;

use expect_test::{Expect, expect};

use super::Taxi;

#[test]
fn a_core_module_in_a_job() {
    let place = Taxi::new();
    let json = r#"(module (memory (export "memory") 1)
        (func (export "forebay_alloc") (param i32) (result i32) (i32.const 1024))
        (func (export "forebay_json_create_array") (param i32 i32) (result i64) (i64.const 0)))"#;
    place.write("create_array.wasm", wat::parse_str(json).unwrap());
    // any number of arguments
    let answer = place.answer(&["check", "taxi.toml"]);
    assert!(
        answer.starts_with("exit 0\n") && answer.contains("create_array: JSON, any number of arguments"),
        "{answer}"
    );
    let numbers = r#"(module (func (export "createArray") (param i64 f64) (result i64) (i64.const 1)))"#;
    place.write("create_array.wasm", wat::parse_str(numbers).unwrap());
    expect![[r#"
        exit 2
        error: `udf.createArray` takes 2 arguments
          --> taxi.asaql:1:18
           |
         1 | SELECT udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare
           |                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ 5 given
           = note: the call: udf.createArray(any, any, any, any, any)
           = note: the function: createArray: func(i64, f64) -> i64
    "#]]
    .assert_eq(&place.answer(&["check", "taxi.toml"]));
}

#[test]
fn bad_components() {
    let place = Taxi::new();
    let wasm = |text: &str| wat::parse_str(text).unwrap();
    let one = r#"(core module $m (func (export "f") (result i64) (i64.const 1))) (core instance $i (instantiate $m))
        (func (export "create-array") (result s64) (canon lift (core func $i "f")))"#;
    let whole = fs::read(place.path().join("create_array.wasm")).unwrap();
    let imports = wasm(&format!(r#"(component (import "acme:db/sql" (instance (export "run" (func)))) {one})"#));
    let cases = [
        (
            b"no code".to_vec(),
            expect![[r#"
            exit 2
            error: create_array.wasm is no WebAssembly; a function is a component file (.wasm)
               --> taxi.toml:13:12
                |
             13 | [functions.createArray]
                |            ^^^^^^^^^^^ this function cannot be used
        "#]],
        ),
        (
            Vec::new(),
            expect![[r#"
            exit 2
            error: create_array.wasm is no WebAssembly; a function is a component file (.wasm)
               --> taxi.toml:13:12
                |
             13 | [functions.createArray]
                |            ^^^^^^^^^^^ this function cannot be used
        "#]],
        ),
        (
            whole[..400].to_vec(),
            expect![[r#"
            exit 2
            error: create_array.wasm does not compile: failed to parse WebAssembly module: wasm component contains an invalid module section: section range 11..12727 is out of bounds (bound = 400)
               --> taxi.toml:13:12
                |
             13 | [functions.createArray]
                |            ^^^^^^^^^^^ this function cannot be used
                = help: the file is damaged or cut off, or needs what this version does not know: build or copy it again
        "#]],
        ),
        (
            wasm(r#"(module (func (export "_start")))"#),
            expect![[r#"
            exit 2
            error: create_array.wasm is a program: it exports `_start` and no `_initialize`; build it as a library
               --> taxi.toml:13:12
                |
             13 | [functions.createArray]
                |            ^^^^^^^^^^^ this function cannot be used
                = help: Go: `-buildmode=c-shared`; C: `-mexec-model=reactor`; Rust: `crate-type = ["cdylib"]`
        "#]],
        ),
        (
            imports,
            expect![[r#"
            exit 2
            error: create_array.wasm asks for acme:db/sql, which nobody provides; functions get no imports by default: build it without
               --> taxi.toml:13:12
                |
             13 | [functions.createArray]
                |            ^^^^^^^^^^^ this function cannot be used
        "#]],
        ),
        (
            wasm("(component)"),
            expect![[r#"
            exit 2
            error: create_array.wasm exports no functions
               --> taxi.toml:13:12
                |
             13 | [functions.createArray]
                |            ^^^^^^^^^^^ this function cannot be used
                = help: let its world export one: `export add: func(a: s64, b: s64) -> s64;`
        "#]],
        ),
        (
            wasm(&format!("(component {one})")),
            expect![[r#"
            exit 2
            error: `udf.createArray` takes no arguments
              --> taxi.asaql:1:18
               |
             1 | SELECT udf.score(udf.createArray(vendorid, weekday, pickuphour, passenger, distance)) AS fare
               |                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ 5 given
               = note: the call: udf.createArray(any, any, any, any, any)
               = note: the function: create-array: func() -> s64
        "#]],
        ),
    ];
    place.check_contents("create_array.wasm", cases);
    fs::remove_file(place.path().join("create_array.wasm")).unwrap();
    place.check(&expect![[r#"
        exit 2
        error: `component` names no file
           --> taxi.toml:15:13
            |
         15 | component = "create_array.wasm"
            |             ^^^^^^^^^^^^^^^^^^^ create_array.wasm does not exist
            = help: paths are relative to the job file
    "#]]);
    fs::create_dir(place.path().join("create_array.wasm")).unwrap();
    place.check(&expect![[r#"
        exit 2
        error: `component` names no file
           --> taxi.toml:15:13
            |
         15 | component = "create_array.wasm"
            |             ^^^^^^^^^^^^^^^^^^^ create_array.wasm is no file
            = help: paths are relative to the job file
    "#]]);
    fs::remove_dir(place.path().join("create_array.wasm")).unwrap();
    place.write("create_array.wasm", &whole);
    place.job("create_array.wasm\"", "create_array.wasm\"\nexport = \"createRow\"");
    place.check(&expect![[r#"
        exit 2
        error: create_array.wasm exports no function `createRow`; it has create-array
           --> taxi.toml:13:12
            |
         13 | [functions.createArray]
            |            ^^^^^^^^^^^ this function cannot be used
            = help: `forebay udf inspect` shows their types; in a job file `export = "…"` picks one
    "#]]);
}

#[test]
fn bad_components_without_a_job() {
    let place = Taxi::new();
    let whole = fs::read(place.path().join("create_array.wasm")).unwrap();
    place.write("text.wasm", "no code");
    place.write("cut.wasm", &whole[..400]);
    place.write("core.wasm", wat::parse_str("(module)").unwrap());
    let cases: [(&[&str], Expect); 9] = [
        (
            &["inspect", "none.wasm"],
            expect![[r#"
            exit 2
            error: none.wasm cannot be read: No such file or directory (os error 2)
             = help: check the path and its permissions
        "#]],
        ),
        (
            &["inspect", "."],
            expect![[r#"
            exit 2
            error: . is no WebAssembly; a function is a component file (.wasm)
        "#]],
        ),
        (
            &["inspect", "text.wasm"],
            expect![[r#"
            exit 2
            error: text.wasm is no WebAssembly; a function is a component file (.wasm)
        "#]],
        ),
        (
            &["inspect", "cut.wasm"],
            expect![[r#"
            exit 2
            error: cut.wasm does not compile: failed to parse WebAssembly module: wasm component contains an invalid module section: section range 11..12727 is out of bounds (bound = 400)
             = help: the file is damaged or cut off, or needs what this version does not know: build or copy it again
        "#]],
        ),
        (
            &["inspect", "core.wasm"],
            expect![[r#"
            exit 2
            error: core.wasm exports no functions
             = help: let its world export one: `export add: func(a: s64, b: s64) -> s64;`
        "#]],
        ),
        (
            &["call", "create_array.wasm", "createRow", "1"],
            expect![[r#"
            exit 2
            error: create_array.wasm exports no function `createRow`; it has create-array
             = help: `forebay udf inspect` shows their types; in a job file `export = "…"` picks one
        "#]],
        ),
        (
            &["call", "create_array.wasm", "createArray", "1"],
            expect![[r#"
            exit 2
            error: createArray takes 5 arguments, not 1: udf.createArray(vendorid nvarchar(max), weekday nvarchar(max), pickuphour nvarchar(max), passenger nvarchar(max), distance nvarchar(max)) -> array (nvarchar(max), nvarchar(max), nvarchar(max), nvarchar(max), nvarchar(max))
        "#]],
        ),
        (
            &["call", "create_array.wasm", "createArray", "{}", "1", "1", "1", "1"],
            expect![[r#"
            exit 1
            error: udf.createArray: argument 1 (vendorid: string): record {} is no nvarchar(max) (udf_conversion)
        "#]],
        ),
        (
            &["precompile", "none.wasm"],
            expect![[r#"
            exit 2
            error: none.wasm cannot be read: No such file or directory (os error 2)
             = help: check the path and its permissions
        "#]],
        ),
    ];
    for (args, wanted) in cases {
        place.expect(&[&["udf"], args].concat(), &wanted);
    }
    place.expect(
        &["udf", "build", "none.wasm"],
        &expect![[r#"
        exit 2
        error: none.wasm cannot be read: No such file or directory (os error 2)
         = help: check the path and its permissions
    "#]],
    );
    place.expect(
        &["udf", "build", "core.wasm"],
        &expect![[r#"
        exit 2
        error: core.wasm does not become a component: it carries no component type; export its functions with wit-bindgen, or name its world: `--wit FILE_OR_DIR`
    "#]],
    );
}

//! What a function without a grant is told, also one whose imports no bindings made.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use forebay::udf::{Component, FunctionBinding, Grants, Host, Limits, UdfError, UserFunctions};
use forebay::value::Value;

use super::{ENGINE, NOW, guest};

#[test]
fn nothing_is_granted_by_default_and_the_error_says_what_to_write() {
    let component = guest("visit_count");
    let binding = |grants| {
        FunctionBinding::new(component.clone(), component.find("visitCount").unwrap(), "visits").granting(grants)
    };
    let path = component.path().display().to_string();
    let said = |grants| Host::new(&[binding(grants)]).unwrap_err().to_string().replace(&path, "visit_count.wasm");
    assert_eq!(
        said(Grants::default()),
        "visit_count.wasm imports forebay:host/state@0.1.0, forebay:host/clock@0.1.0, forebay:host/config@0.1.0, \
        forebay:host/log@0.1.0, which the job does not grant; write `imports = [\"log\", \"state\", \"clock\"]` and \
        `config = { key = \"value\" }` in [functions.visits]"
    );
    let some = Grants { log: true, config: Some(BTreeMap::new()), clock: true, ..Grants::default() };
    assert_eq!(
        said(some),
        "visit_count.wasm imports forebay:host/state@0.1.0, which the job does not grant; write \
        `imports = [\"log\", \"state\", \"clock\"]` in [functions.visits]"
    );
}

fn from_text(wat: &str) -> Result<Component, UdfError> {
    Component::from_bytes(&ENGINE, Path::new("test.wasm"), &wat::parse_str(wat).unwrap(), Limits::default())
}

/// A component that tells the time; `start` is what its start function does.
fn clock(version: &str, result: &str, start: &str) -> String {
    format!(
        r#"(component
          (type $clock (instance
            (type $d (record (field "ticks-since-year-one" s64)))
            (export "datetime" (type $datetime (eq $d)))
            (export "now" (func (result {result})))))
          (import "forebay:host/clock@{version}" (instance $clock (type $clock)))
          (core func $now (canon lower (func $clock "now")))
          (core module $m
            (import "clock" "now" (func $now (result i64)))
            (func $start {start})
            (start $start)
            (func (export "f") (result i64) (call $now)))
          (core instance $i (instantiate $m (with "clock" (instance (export "now" (func $now))))))
          (func (export "f") (result s64) (canon lift (core func $i "f"))))"#
    )
}

#[test]
fn a_guest_without_bindings_asks_in_the_same_way() {
    let granted = |component| {
        FunctionBinding::new(Arc::new(component), 0, "f").granting(Grants { clock: true, ..Grants::default() })
    };
    let mut host = Host::new(&[granted(from_text(&clock("0.1.0", "$datetime", "")).unwrap())]).unwrap();
    assert_eq!(host.call(0, &[], NOW.saturating_add(7)), Ok(Value::BigInt(NOW.ticks() + 7)));

    // there is no row while an instance starts
    let error =
        Host::new(&[granted(from_text(&clock("0.1.0", "$datetime", "(drop (call $now))")).unwrap())]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "test.wasm does not start: calls forebay:host/clock before it is called itself; there is no row then: use it \
        inside the function"
    );

    let error = from_text(&clock("0.2.0", "$datetime", "")).unwrap_err();
    assert!(
        matches!(&error, UdfError::UnknownImport { imports, .. } if imports == "forebay:host/clock@0.2.0"),
        "{error}"
    );
    let error = from_text(&clock("0.1.0", "s64", "")).unwrap_err();
    assert!(matches!(&error, UdfError::Start { reason, .. } if reason.contains("forebay:host/clock")), "{error}");
}

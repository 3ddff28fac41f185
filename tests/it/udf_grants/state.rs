//! What a function remembers: it lasts, a failed call leaves no trace, and its limit holds.

use forebay::query::builtins::RowError;
use forebay::udf::{FunctionBinding, Host, StateLimits, UserFunctions};
use forebay::value::Value;

use super::{Asker, NOW, all, guest, ok};

/// All exports under one name: they remember the same.
fn one_memory(limits: StateLimits) -> impl FnMut(&str, &[&str]) -> Result<String, RowError> {
    // a binding an export would be a function each, so the export is exchanged behind the one name
    let component = guest("asker");
    let mut rows: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    move |name, args| {
        let binding =
            FunctionBinding::new(component.clone(), component.find(name).unwrap(), "ask").granting(all(limits));
        let mut host = Host::new(&[binding]).unwrap();
        rows.iter().for_each(|(key, value)| host.load_state(key, value).unwrap());
        let args: Vec<Value> = args.iter().map(Value::text).collect();
        let answer = host.call(0, &args, NOW).map(|value| value.to_json());
        let mut changed = Vec::new();
        host.take_state(&mut changed);
        for (key, value) in changed {
            rows.retain(|(known, _)| *known != key);
            rows.extend(value.map(|value| (key, value)));
        }
        answer
    }
}

#[test]
fn what_is_remembered_lasts_and_a_failed_call_leaves_no_trace() {
    let mut ask = one_memory(StateLimits::default());
    for (key, value) in [("kept", "1"), ("b", "2"), ("ba", "")] {
        assert_eq!(ask("remember", &[key, value]), ok("null"));
    }
    for (name, reason) in [
        ("remember-and-fail", "udf_error"),
        ("remember-and-trap", "udf_trap"),
        ("remember-and-overflow", "udf_conversion"),
    ] {
        assert_eq!(ask(name, &["b", "changed"]).unwrap_err().reason, reason);
        assert_eq!(ask(name, &["new", "x"]).unwrap_err().reason, reason);
        assert_eq!(ask("keys", &[""]), ok(r#"["b","ba","kept"]"#), "{name}");
        assert_eq!(ask("recall", &["b"]), ok(r#""2""#), "{name}");
    }
    assert_eq!(ask("forget", &["b"]), ok("null"));
    assert_eq!(ask("forget", &["never"]), ok("null"));
    assert_eq!(ask("recall", &["b"]), ok("null"));
    assert_eq!(ask("recall", &["ba"]), ok(r#""""#));
    assert_eq!(ask("keys", &["b"]), ok(r#"["ba"]"#));
}

#[test]
fn a_failed_call_leaves_no_trace_in_a_host_that_goes_on() {
    let mut asker = Asker::new(&["remember", "remember-and-trap"], StateLimits::default());
    asker.ask("remember", &["a", "1"]).unwrap();
    asker.ask("remember-and-trap", &["a", "2"]).unwrap_err();
    // functions do not share what they remember
    assert_eq!(asker.state().into_iter().collect::<Vec<_>>(), [("\u{8}remembera".to_owned(), Some("1".to_owned()))]);
    assert!(asker.state().is_empty());
    assert!(asker.host.state_bytes() > 0);
}

#[test]
fn past_its_limit_a_function_fails_the_row_and_goes_on_with_others() {
    let mut asker = Asker::new(&["remember"], StateLimits { bytes_max: 1024, key_bytes_max: 16 });
    asker.ask("remember", &["a", "x"]).unwrap();
    let long = "x".repeat(1000);
    // more than a pause takes
    for _ in 0..150 {
        let error = asker.ask("remember", &["b", &long]).unwrap_err();
        let message =
            "udf.remember: wants to remember 1131 bytes; delete what is old or raise `state_bytes_max` (1024)";
        assert_eq!(error, RowError { reason: "udf_state", message: message.to_owned() });
    }
    let error = asker.ask("remember", &["a key beyond all measure", ""]).unwrap_err();
    assert_eq!(
        error.message,
        "udf.remember: uses a state key of 24 bytes; use shorter ones or raise `state_key_bytes_max` (16)"
    );
    asker.ask("remember", &["a", "y"]).unwrap();
    assert_eq!(asker.bindings[0].stats.failures().find(|(reason, _)| *reason == "udf_state").unwrap().1, 151);
}

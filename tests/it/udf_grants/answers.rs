//! What a function with all grants is answered: settings, event time, rows of a reference table, its log lines.

use std::sync::Arc;
use std::time::Duration;

use forebay::query::builtins::RowError;
use forebay::time::Clock;
use forebay::udf::{FunctionBinding, Host, StateLimits, UserFunctions, json};
use forebay::value::Value;

use super::{Asker, NOW, all, guest, ok};

#[test]
fn settings_and_event_time_are_what_the_job_says() {
    let mut asker = Asker::new(&["setting", "settings", "now"], StateLimits::default());
    assert_eq!(asker.ask("setting", &["threshold"]), ok(r#""5""#));
    assert_eq!(asker.ask("setting", &["Threshold"]), ok("null"));
    assert_eq!(asker.ask("settings", &[]), ok(r#"["apikey","threshold"]"#));
    assert_eq!(asker.ask("now", &[]), ok(r#""2024-05-01T12:00:00.0000001Z""#));
    assert!(!format!("{:?}", asker.bindings).contains("\"k\""), "a setting may be a secret");
}

#[test]
fn rows_of_a_reference_table_are_found_in_its_present_version() {
    let mut asker = Asker::new(&["first", "every", "pick"], StateLimits::default());
    let missing =
        RowError { reason: "udf_trap", message: "udf.first: looks into `zones`, which is not loaded".to_owned() };
    assert_eq!(asker.ask("first", &["zones", "name", "b"]), Err(missing));
    let denied = asker.ask("first", &["rates", "name", "b"]).unwrap_err();
    assert_eq!(
        denied.message,
        "udf.first: looks into `rates`, which is not granted; name it in `lookup` of the job file"
    );
    let table = |text: &str| match json::parse(text).unwrap() {
        Value::Array(rows) => Arc::new(rows.to_vec()),
        other => panic!("{other:?}"),
    };
    asker
        .host
        .set_reference("zones", &table(r#"[{"id":1,"name":"a"},{"id":2,"name":"b","fee":2.5},{"id":1.0,"name":"b"}]"#));
    assert_eq!(asker.ask("first", &["zones", "name", "b"]), ok(r#"{"id":2,"name":"b","fee":2.5}"#));
    assert_eq!(asker.ask("first", &["zones", "name", "c"]), ok("null"));
    assert_eq!(asker.ask("every", &["zones", "id", "1"]), ok(r#"[{"id":1,"name":"a"},{"id":1.0,"name":"b"}]"#));
    assert_eq!(asker.ask("pick", &["zones", "id", "2", "fee"]), ok(r#""2.5""#));
    asker.host.set_reference("zones", &table(r#"[{"id":2,"fee":3}]"#));
    assert_eq!(asker.ask("pick", &["zones", "id", "2", "fee"]), ok(r#""3""#));
}

#[test]
fn a_chatty_function_is_cut_short_and_counted() {
    let component = guest("asker");
    let clock = Clock::manual(NOW);
    let export = component.find("say").unwrap();
    let binding =
        FunctionBinding::new(component, export, "say").granting_by(all(StateLimits::default()), clock.clone());
    let mut host = Host::new(std::slice::from_ref(&binding)).unwrap();
    let mut say = |times| host.call(0, &[Value::text("again"), Value::BigInt(times)], NOW).unwrap();
    say(1000);
    assert_eq!(binding.stats.log_lines(), (10, 990), "ten a second");
    clock.advance(Duration::from_millis(999));
    say(1);
    assert_eq!(binding.stats.log_lines(), (10, 991));
    clock.advance(Duration::from_millis(1));
    say(11);
    assert_eq!(binding.stats.log_lines(), (20, 992));
}

//! What goes into a core module and comes back: numbers, JSON, NULL, an error of the row.

use std::sync::Arc;

use forebay::query::catalog::Shape;
use forebay::time::Timestamp;
use forebay::udf::{Host, UserFunctions as _};
use forebay::value::Value;

use super::{host, json_module, says};
use crate::udf::{NOW, bind, component, value};

#[test]
fn an_export_of_numbers_is_a_function() {
    let text = r#"(module
        (func (export "add") (param i64 i64) (result i64) (i64.add (local.get 0) (local.get 1)))
        (func (export "mean_of") (param f64 f32) (result f64)
            (f64.div (f64.add (local.get 0) (f64.promote_f32 (local.get 1))) (f64.const 2)))
        (func (export "halfOf") (param f32) (result f32) (f32.mul (local.get 0) (f32.const 0.5)))
        (func (export "narrow") (param i32) (result i32) (i32.sub (i32.const 0) (local.get 0)))
        (func (export "nothing") (param i64)))"#;
    let cases: [(&str, Vec<Value>, &str); 8] = [
        ("add", vec![Value::BigInt(i64::MAX - 1), Value::BigInt(1)], "9223372036854775807"),
        ("add", vec![Value::Float(2.0), Value::BigInt(3)], "5"),
        ("MeanOf", vec![Value::BigInt(1), Value::Float(2.0)], "1.5"),
        ("half-of", vec![Value::Float(0.5)], "0.25"),
        ("narrow", vec![Value::BigInt(2_147_483_647)], "-2147483647"),
        ("nothing", vec![Value::BigInt(1)], "null"),
        ("add", vec![Value::Null, Value::BigInt(1)], "null"),
        ("add", vec![Value::BigInt(1)], "null"),
    ];
    let names: Vec<&str> = cases.iter().map(|(name, ..)| *name).collect();
    let mut functions = host(text, &names);
    for (index, (name, args, result)) in cases.iter().enumerate() {
        assert_eq!(functions.call(index, args, NOW).unwrap().to_json(), *result, "{name}{args:?}");
    }
    let error = functions.call(4, &[Value::BigInt(1 << 31)], NOW).unwrap_err();
    assert_eq!(error.message, "udf.narrow: argument 1 (p1: s32): 2147483648 is outside s32, -2147483648 to 2147483647");
    let loaded = component(text).unwrap();
    let signature = |name: &str| loaded.signature(loaded.find(name).unwrap()).unwrap();
    assert_eq!(signature("mean_of").text, "mean_of: func(f64, f32) -> f64");
    assert_eq!(signature("add").params[1].shape, Shape::Integer { min: i64::MIN, max: i64::MAX });
    assert_eq!(signature("nothing").result, Shape::Unit);
}

#[test]
fn json_goes_there_and_back_with_all_its_types() {
    let mut functions = host(&json_module(""), &["echo"]);
    let at = Timestamp::parse("2024-05-01T10:00:00.1234567Z").unwrap();
    let args = [
        Value::Null,
        Value::BigInt(i64::MIN),
        Value::BigInt(9_007_199_254_740_993),
        Value::Float(7.0),
        Value::Float(f64::NAN),
        Value::text("\u{0} \"ü\" 🚕\n"),
        Value::Bit(true),
        Value::DateTime(at),
        value(r#"{"b":[1,{"a":null}],"a":0.1}"#),
    ];
    let back = functions.call(0, &args, NOW).unwrap();
    assert_eq!(
        back.to_json(),
        "[null,-9223372036854775808,9007199254740993,7.0,null,\"\\u0000 \\\"ü\\\" 🚕\\n\",true,\
        \"2024-05-01T10:00:00.1234567Z\",{\"b\":[1,{\"a\":null}],\"a\":0.1}]"
    );
    // any number of them
    assert_eq!(functions.call(0, &[], NOW).unwrap().to_json(), "[]");
    let many = vec![Value::BigInt(1); 100];
    assert_eq!(functions.call(0, &many, NOW).unwrap(), Value::array(many));
}

#[test]
fn the_answer_is_null_a_value_or_an_error_of_the_row() {
    let error = r#"(data (i32.const 900) "no such zone")
        (func (export "forebay_json_refuse") (param i32 i32) (result i64) (call $packed (i32.const 900)
            (i32.const 0x8000000c)))
        (func (export "forebay_json_missing") (param i32 i32) (result i64) (i64.const 0))"#;
    let text = json_module(&(error.to_owned() + &says("number", 100, " 5 ") + &says("createArray", 200, r#"["a",1]"#)));
    let names = ["refuse", "missing", "number", "create_array", "CREATEARRAY"];
    let bindings = bind(&Arc::new(component(&text).unwrap()), &names);
    let mut functions = Host::new(&bindings).unwrap();
    let refused = functions.call(0, &[Value::Null], NOW).unwrap_err();
    assert_eq!((refused.reason, refused.message.as_str()), ("udf_error", "udf.refuse: no such zone"));
    assert_eq!(functions.call(1, &[], NOW), Ok(Value::Null));
    assert_eq!(functions.call(2, &[], NOW), Ok(Value::BigInt(5)));
    for index in [3, 4] {
        assert_eq!(functions.call(index, &[], NOW).unwrap().to_json(), r#"["a",1]"#);
    }
    assert_eq!(bindings.iter().map(|b| b.stats.instances()).sum::<u64>(), 1);
}

//! Signatures against those that the reference implementation read from the same documents, and bodies built by them.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::*;
use crate::score::body::Form;
use crate::score::describe;
use crate::value::{Record, SmolStr, Type, Value};

fn recorded(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/aml-server/recorded").join(name);
    std::fs::read_to_string(path).unwrap()
}

/// The recorded answers of a server, by case.
fn cases(kind: &str) -> Vec<Json> {
    recorded(&format!("{kind}.jsonl")).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A signature in the words of the reference implementation.
fn reference_form(signature: &EndpointSignature) -> Json {
    let named =
        |columns: &[SignatureColumn]| -> Json { columns.iter().map(|c| json!([c.name, c.cell.to_string()])).collect() };
    let path = &signature.input.path;
    let constants: serde_json::Map<String, Json> = signature.input.constants.iter().cloned().collect();
    let mut input = match &signature.input.layout {
        Layout::Array { dims, width, cells: Cells::All(cell) } => {
            json!({"path": path, "kind": "array", "dims": dims, "columns": width, "type": cell.to_string()})
        }
        Layout::Records { columns, required } => {
            json!({"path": path, "kind": "records", "columns": named(columns), "required": required})
        }
        Layout::Split { columns } => json!({"path": path, "kind": "split", "columns": named(columns)}),
        Layout::Untyped => json!({"kind": "untyped", "candidates": []}),
        other => panic!("{other:?} is not among the recorded documents"),
    };
    if !signature.is_untyped() {
        input["constants"] = Json::Object(constants);
    }
    let path = &signature.output.path;
    let output = match &signature.output.per_row {
        PerRow::Cell(cell) => json!({"path": path, "per_row": cell.to_string()}),
        PerRow::Record(columns) => json!({"path": path, "per_row": "record", "columns": named(columns)}),
        PerRow::Untyped => json!({"path": path, "per_row": "untyped"}),
    };
    json!({"score_path": signature.score_path, "input": input, "output": output})
}

#[test]
fn every_recorded_document_reads_as_by_the_reference() {
    let expected: serde_json::Map<String, Json> = serde_json::from_str(&recorded("signatures.json")).unwrap();
    let mut compared = 0;
    for (name, expected) in &expected {
        let (kind, case) = name.split_once(' ').unwrap();
        let case = cases(kind).into_iter().find(|c| c["case"] == case).unwrap();
        let body = case["body"].as_str().unwrap();
        match expected.get("status") {
            Some(_) => assert_eq!(EndpointSignature::from_swagger(body), Err(SignatureError::NoOperation), "{name}"),
            None => assert_eq!(&reference_form(&EndpointSignature::from_swagger(body).unwrap()), expected, "{name}"),
        }
        compared += 1;
    }
    assert_eq!(compared, 22);
}

/// A document whose request has these properties and example.
fn document(properties: Json, example: Json) -> String {
    json!({
        "openapi": "3.0.3",
        "paths": {"/api/v1/service/x/score": {"post": {
            "requestBody": {"content": {"application/json": {"schema": {
                "type": "object", "properties": properties, "example": example
            }}}},
            "responses": {"200": {"content": {"application/json": {"schema": {
                "type": "array", "items": {"type": "number"}
            }}}}}
        }}}
    })
    .to_string()
}

fn read(properties: Json, example: Json) -> EndpointSignature {
    EndpointSignature::from_swagger(&document(properties, example)).unwrap()
}

fn record(pairs: &[(&str, Value)]) -> Value {
    Value::record(Record::from_unique(pairs.iter().map(|(n, v)| (SmolStr::new(n), v.clone())).collect()))
}

fn body(signature: &EndpointSignature, rows: &[Value]) -> String {
    let form = Form::new(&signature.input, None);
    let rows: Vec<_> = rows.iter().map(|row| form.encode(row).unwrap()).collect();
    form.body(rows.iter())
}

#[test]
fn the_other_forms_of_a_frame_are_read_and_written() {
    let int = json!({"type": "integer"});
    let row = json!({"type": "object", "properties": {"a": int, "b": {"type": "string"}}});
    let rows = [
        record(&[("a", Value::BigInt(1)), ("b", Value::text("x"))]),
        record(&[("B", Value::Null), ("a", Value::text("2"))]),
    ];
    let table = [
        (
            json!({"data": {"type": "object", "format": "pandas.DataFrame:columns", "properties": {
                "a": {"type": "object", "properties": {"0": int}},
                "b": {"type": "object", "properties": {"0": {"type": "string"}}}}}}),
            json!({"data": {"a": {"0": 1}, "b": {"0": "x"}}}),
            r#"{"data":{"a":{"0":1,"1":2},"b":{"0":"x","1":null}}}"#,
        ),
        (
            json!({"data": {"type": "object", "format": "pandas.DataFrame:index", "properties": {"0": row}}}),
            json!({"data": {"0": {"a": 1, "b": "x"}}}),
            r#"{"data":{"0":{"a":1,"b":"x"},"1":{"a":2,"b":null}}}"#,
        ),
        (
            json!({"data": {"type": "object", "format": "pandas.DataFrame:table", "properties": {
                "schema": {"type": "object"}, "data": {"type": "array", "items": {"type": "object", "properties": {
                    "index": int, "a": int, "b": {"type": "string"}}}}}}}),
            json!({"data": {"schema": {"fields": []}, "data": [{"index": 0, "a": 1, "b": "x"}]}}),
            r#"{"data":{"schema":{"fields":[]},"data":[{"index":0,"a":1,"b":"x"},{"index":1,"a":2,"b":null}]}}"#,
        ),
        (
            json!({"data": {"type": "object", "format": "pandas.DataFrame:split", "properties": {
                "columns": {"type": "array"}, "index": {"type": "array"}, "data": {"type": "array"}}}}),
            json!({"data": {"columns": ["a", "b"], "index": [0], "data": [[1, "x"]]}}),
            r#"{"data":{"columns":["a","b"],"index":[0,1],"data":[[1,"x"],[2,null]]}}"#,
        ),
    ];
    for (properties, example, expected) in table {
        assert_eq!(body(&read(properties, example), &rows), expected);
    }
}

#[test]
fn vectors_mixed_arrays_nested_arrays_and_constants() {
    let vector = read(
        json!({"data": {"type": "array", "items": {"type": "number"}}, "quantile": {"type": "number"}, "x": {}}),
        json!({"quantile": 0.5, "x": ""}),
    );
    assert_eq!(body(&vector, &[Value::Float(5.8), Value::BigInt(10)]), r#"{"data":[5.8,10],"quantile":0.5}"#);
    let set = vector.with_constants(&[("quantile".into(), json!(0.9)), ("mode".into(), json!("fast"))]);
    assert_eq!(body(&set, &[Value::Bit(true)]), r#"{"data":[1],"quantile":0.9,"mode":"fast"}"#);

    let numbers = json!({"type": "array", "items": {"type": "number"}});
    let lists = json!({"type": "array", "items": numbers, "format": "pandas.DataFrame:values"});
    let mixed = read(json!({"data": lists}), json!({"data": [[1, "Thu", 3.5, true]]}));
    let row = Value::array(vec![Value::text("7"), Value::BigInt(3), Value::text("2.5"), Value::BigInt(0)]);
    assert_eq!(body(&mixed, &[row]), r#"{"data":[[7,"3",2.5,false]]}"#);

    let deep =
        json!({"type": "array", "items": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}});
    let deep = read(json!({"Inputs": {"type": "object", "properties": {"w": deep}}}), json!({}));
    let row = Value::array(vec![Value::array(vec![Value::BigInt(1)]), Value::array(vec![Value::BigInt(2)])]);
    assert_eq!(body(&deep, &[row]), r#"{"Inputs":{"w":[[[1],[2]]]}}"#);
}

#[test]
fn a_date_has_a_zone_only_where_the_sample_has_one() {
    let time = json!({"type": "string", "format": "date-time"});
    let date = json!({"data": {"type": "array", "items": {"type": "object", "properties": {"t": time}}}});
    let row = [record(&[("t", Value::text("2026-05-01T02:00:00+02:00"))])];
    for (sample, expected) in [("2026-05-01T00:00:00.000Z", "00.0000000Z"), ("2026-05-01T00:00:00.000", "00.0000000")] {
        let signature = read(date.clone(), json!({"data": [{"t": sample}]}));
        assert_eq!(body(&signature, &row), format!(r#"{{"data":[{{"t":"2026-05-01T00:00:{expected}"}}]}}"#));
    }
}

#[test]
fn documents_that_cannot_be_used_say_why() {
    assert!(matches!(EndpointSignature::from_swagger("<html>"), Err(SignatureError::NotJson(_))));
    assert_eq!(EndpointSignature::from_swagger("{}"), Err(SignatureError::NoOperation));
    let list = json!({"type": "array", "items": {"type": "number"}});
    let two = EndpointSignature::from_swagger(&document(json!({"a": list, "b": list}), json!({})));
    assert_eq!(two, Err(SignatureError::Ambiguous(vec!["a".into(), "b".into()])));
    let circle = "{\"paths\":{\"/score\":{\"post\":{\"parameters\":[{\"in\":\"body\",\"schema\":{\"$ref\":\"#/d\"}}],\
        \"responses\":{}}}},\"d\":{\"$ref\":\"#/d\"}}";
    assert!(matches!(EndpointSignature::from_swagger(circle), Err(SignatureError::Broken(_))));
    assert!(read(json!({}), json!({})).is_untyped());
}

#[test]
fn what_check_shows() {
    let frame = cases("frame").into_iter().find(|c| c["case"] == "swagger 2").unwrap();
    let signature = EndpointSignature::from_swagger(frame["body"].as_str().unwrap()).unwrap();
    let given = |name: &str, ty| (Some(SmolStr::new(name)), Some(ty));
    let given = [
        given("VendorId", Type::Text),
        given("weekday", Type::Text),
        given("pickuphour", Type::DateTime),
        given("distance", Type::BigInt),
        given("tip", Type::Float),
    ];
    expect_test::expect![[r#"
        rows     `data`: one record of 5 columns a row
        results  the answer: one float a row
          vendorid         bigint         from nvarchar(max): whole-number text to bigint; other text is a bad row
          weekday          nvarchar(max)  from nvarchar(max): as is
          pickuphour       bigint         from datetime: DOES NOT CONVERT: EVERY ROW WOULD BE A BAD ROW
          passenger        bigint         MISSING: the query does not send it
          distance         float          from bigint: whole number to float
          tip                             EXTRA: the endpoint has no such column
    "#]]
    .assert_eq(&describe(&signature, &given));
}

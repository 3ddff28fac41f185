//! Request and answer shapes of the real inference server: what it is sent, and the rows that are refused before.

use forebay::score::Outcome;
use forebay::value::Value;

use super::server::ready;
use super::{array, config, failures, record, requests, ride_record, rides, score, scored, start, two, two_fares};

#[tokio::test]
async fn rows_of_the_array_endpoint_equal_a_direct_call() {
    let server = ready("array").await;
    let mut config = config(&server.url(""));
    config.max_batch_count = 64;
    let scorer = start(config);
    let rows = rides(500);
    let body = format!("{{\"data\":[{}]}}", rows.iter().map(Value::to_json).collect::<Vec<_>>().join(","));
    let direct: Vec<f64> = serde_json::from_str(&server.direct(&body)).unwrap();
    let ours = scored(&score(&scorer, rows).await);
    assert_eq!(ours, direct.into_iter().map(Value::Float).collect::<Vec<_>>());
    assert_eq!(requests(&scorer), 8);
    assert!(scorer.description_updates().borrow().as_ref().unwrap().contains("ServiceInput"));
}

#[tokio::test]
async fn numbers_become_the_text_cells_of_the_array_endpoint() {
    let scorer = start(config(&ready("array").await.url("")));
    let row = Value::array(vec![
        Value::BigInt(1),
        Value::text("Mon"),
        Value::BigInt(12),
        Value::Float(1.0),
        Value::Float(5.8),
    ]);
    assert_eq!(scored(&score(&scorer, vec![row]).await), [Value::Float(15.92)]);
}

#[tokio::test]
async fn rows_of_the_frame_endpoint_go_by_name_and_type() {
    let server = ready("frame").await;
    let scorer = start(config(&server.url("")));
    let text = record(&[
        ("Distance", Value::text("10")),
        ("VendorID", Value::text("2")),
        ("weekday", Value::text("Wed")),
        ("pickuphour", Value::Float(10.0)),
        ("passenger", Value::BigInt(2)),
    ]);
    let body = "{\"data\":[{\"vendorid\":1,\"weekday\":\"Mon\",\"pickuphour\":12,\"passenger\":1,\"distance\":5.8},\
        {\"vendorid\":2,\"weekday\":\"Wed\",\"pickuphour\":10,\"passenger\":2,\"distance\":10}]}";
    assert_eq!(server.direct(body), "[15.92, 25.26]");
    assert_eq!(scored(&score(&scorer, vec![ride_record(1, "Mon", 12, 1, 5.8), text]).await), two_fares());
}

#[tokio::test]
async fn rows_that_do_not_fit_the_frame_are_found_before_sending() {
    let scorer = start(config(&ready("frame").await.url("")));
    let good = ride_record(1, "Mon", 12, 1, 5.8);
    let with = |name: &str, value: Value| {
        let Value::Record(record) = &good else { unreachable!() };
        let mut record = (**record).clone();
        record.insert(name.into(), value);
        Value::record(record)
    };
    let rows = vec![
        with("vendorid", Value::Float(1.7)),
        with("distance", Value::Null),
        with("distance", Value::Float(f64::NAN)),
        with("tip", Value::BigInt(1)),
        record(&[("vendorid", Value::BigInt(1))]),
        array(&["1", "Mon", "12", "1", "5.8"]),
        Value::Null,
        good.clone(),
    ];
    let outcomes = score(&scorer, rows).await;
    let reasons: Vec<&str> = failures(&outcomes).iter().map(|(_, f)| f.reason).collect();
    assert_eq!(
        reasons,
        ["conversion", "null", "not_finite", "extra_column", "missing_column", "wrong_shape", "null_argument"]
    );
    assert_eq!(outcomes[7], Outcome::Scored(Value::Float(15.92)));
    assert_eq!(requests(&scorer), 1);
}

#[tokio::test]
async fn records_are_found_through_the_output_path_of_the_multi_endpoint() {
    let server = ready("multi").await;
    let scorer = start(config(&server.url("")));
    let ours =
        scored(&score(&scorer, vec![ride_record(1, "Mon", 12, 1, 5.8), ride_record(2, "Wed", 10, 2, 10.0)]).await);
    let body = "{\"data\":[{\"vendorid\":1,\"weekday\":\"Mon\",\"pickuphour\":12,\"passenger\":1,\"distance\":5.8},\
        {\"vendorid\":2,\"weekday\":\"Wed\",\"pickuphour\":10,\"passenger\":2,\"distance\":10.0}]}";
    let direct: serde_json::Value = serde_json::from_str(&server.direct(body)).unwrap();
    let ours: Vec<serde_json::Value> = ours.iter().map(|v| serde_json::from_str(&v.to_json()).unwrap()).collect();
    assert_eq!(serde_json::Value::Array(ours), direct["result"]);
}

#[tokio::test]
async fn a_result_encoded_twice_is_decoded_and_an_error_with_status_200_isolated() {
    let scorer = start(config(&ready("string").await.url("")));
    assert_eq!(scored(&score(&scorer, two()).await), two_fares());
    let outcomes = score(&scorer, vec![two()[0].clone(), array(&["x"]), two()[1].clone()]).await;
    let failed = failures(&outcomes);
    assert_eq!((failed.len(), failed[0].0, failed[0].1.reason), (1, 1, "bad_response"));
    assert!(failed[0].1.response.contains("Shape of passed values"), "{:?}", failed[0].1);
    assert_eq!(failed[0].1.request, r#"{"data":[["x"]]}"#);
}

#[tokio::test]
async fn a_signature_that_only_a_later_swagger_version_can_tell_is_found() {
    let scorer = start(config(&ready("split").await.url("")));
    let rows = vec![ride_record(1, "Mon", 12, 1, 5.8), array(&["2", "Wed", "10", "2", "10"])];
    assert_eq!(scored(&score(&scorer, rows).await), two_fares());
    assert!(scorer.description_updates().borrow().as_ref().unwrap().contains("\"openapi\": \"3.0.3\""));
}

#[tokio::test]
async fn wrapped_inputs_go_with_the_constants_of_the_example_or_of_the_job() {
    let mut config = config(&ready("inputs").await.url(""));
    let rows = vec![ride_record(1, "Mon", 12, 1, 5.8)];
    let result = |fare| record(&[("distance", Value::Float(5.8)), ("Scored Labels", Value::Float(fare))]);
    assert_eq!(scored(&score(&start(config.clone()), rows.clone()).await), [result(15.92)]);
    config.constants = vec![("GlobalParameters".into(), serde_json::json!({"factor": 2.0}))];
    assert_eq!(scored(&score(&start(config), rows).await), [result(31.84)]);
}

//! Aggregates in the output of `check`, `eval` and `udf`, and in a job behind mosquitto that is killed inside a window.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use expect_test::expect;
use forebay::time::{Clock, TICKS_PER_SECOND, Timestamp};
use serde_json::Value as Json;

use crate::harness::{Forebay, PATIENCE, component, until, write};
use crate::support::{Mosquitto, runtime};

const JOB: &str = r#"[job]
name = "means"
query = "means.asaql"
late_tolerance = "20d"
[metrics]
listen = "127.0.0.1:0"
[inputs.rides]
type = "mqtt"
url = "URL"
topics = ["rides"]
[functions.weightedMean]
type = "wasm"
component = "weighted_mean.wasm"
[functions.path]
type = "wasm"
component = "trails.wasm"
export = "trail"
[outputs.means]
type = "mqtt"
url = "URL"
topic = "means"
"#;

const QUERY: &str = "SELECT k, uda.weightedMean(fare, distance) AS m, uda.path(n) AS path, COUNT(*) AS n\n\
    INTO means FROM rides TIMESTAMP BY t GROUP BY k, TumblingWindow(hour, 1)\n";

fn job_in(dir: &Path, url: &str) -> std::path::PathBuf {
    for name in ["weighted_mean", "trails"] {
        std::fs::copy(component(name), dir.join(name).with_extension("wasm")).unwrap();
    }
    write(dir, "means.asaql", QUERY);
    write(dir, "job.toml", &JOB.replace("URL", url))
}

#[test]
fn check_and_eval_and_udf_show_aggregates() {
    let dir = tempfile::tempdir().unwrap();
    job_in(dir.path(), "mqtt://127.0.0.1:1883");
    let cache = dir.path().join("cache").display().to_string();
    let run = |args: &[&str]| crate::harness::cli_in(dir.path(), &[("CACHE_DIRECTORY", &cache)], args);
    let (code, out, err) = run(&["check", "job.toml"]);
    assert_eq!((code, err.as_str()), (0, ""));
    expect![[r#"
        job means, pool means.db

        plan
          into means
            read rides: t, k, fare, distance, n timestamp by t
            group by k in tumbling 1 h: uda.weightedMean(fare, distance), uda.path(n), COUNT(*)
            gives k, m = uda.weightedMean(fare, distance), path = uda.path(n), n = COUNT(*)

        functions
          uda.weightedMean(value float, weight float)
            gives float or NULL
            WIT   resource weighted-mean { accumulate: func(value: f64, weight: f64); compute: func() -> option<f64>; deaccumulate; merge; save; restore }
            from  weighted_mean.wasm
          uda.path(x bigint)
            gives array of bigint
            WIT   resource trail { accumulate: func(x: s64); compute: func() -> list<s64> }
            from  trails.wasm

        pool
          if nobody reads, it takes 5,965,232 events of 150 bytes that cannot be compressed:
          about 69 days at 1 a second, about 6 days at 10, about 16 hours at 100;
          rows that statements store take room beside them
    "#]].assert_eq(out.split("\nnote:").next().unwrap());

    let rides: String = (0..4)
        .map(|n| format!("{{\"t\":\"2024-01-01T00:10:0{n}Z\",\"k\":1,\"n\":{n},\"fare\":{n},\"distance\":2}}\n"))
        .collect();
    write(dir.path(), "rides.jsonl", &rides);
    let (code, out, err) = run(&["eval", "means.asaql", "--input", "rides=rides.jsonl", "--job", "job.toml"]);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (0, "{\"output\":\"means\",\"row\":{\"k\":1,\"m\":1.5,\"path\":[0,1,2,3],\"n\":4}}\n", "")
    );

    let (code, _, err) = run(&["udf", "call", "weighted_mean.wasm", "weightedMean", "1", "2"]);
    assert_eq!(code, 2);
    expect![[r#"
        error: weightedMean is an aggregate, which takes the rows of a window
         = help: write rows for `forebay udf test`: {"aggregate": "weightedMean", "rows": [[…], […]], "expected": …}; or try `uda.weightedMean(…)` in a query with `forebay eval QUERY --input NAME=FILE --job JOB`
    "#]].assert_eq(&err);
    let (code, out, _) = run(&["udf", "inspect", "weighted_mean.wasm"]);
    assert_eq!(code, 0);
    let shown: Vec<&str> = out.lines().skip_while(|line| !line.contains("imports")).collect();
    let wanted = [
        "  imports   none",
        "",
        "  forebay:weighted-mean/aggregates#weighted-mean",
        "    SQL  uda.weighted_mean(value float, weight float) -> float or NULL",
        "    WIT  resource weighted-mean { accumulate: func(value: f64, weight: f64); compute: func() -> option<f64>; \
        deaccumulate; merge; save; restore }",
    ];
    assert_eq!(shown, wanted);

    write(
        dir.path(),
        "means.asaql",
        "SELECT uda.weightedMean(fare) AS m INTO means FROM rides GROUP BY TumblingWindow(hour, 1)",
    );
    let (code, _, err) = run(&["check", "job.toml"]);
    assert_eq!(code, 2);
    expect![[r#"
        error: `uda.weightedMean` takes 2 arguments
          --> means.asaql:1:8
           |
         1 | SELECT uda.weightedMean(fare) AS m INTO means FROM rides GROUP BY TumblingWindow(hour, 1)
           |        ^^^^^^^^^^^^^^^^^^^^^^ 1 given
           = note: the call: uda.weightedMean(any)
           = note: the aggregate: resource weighted-mean { accumulate: func(value: f64, weight: f64); compute: func() -> option<f64>; deaccumulate; merge; save; restore }
    "#]].assert_eq(&err);
}

/// The process is killed while a window is open, again and again: no row is lost from it and none counts twice, be the
/// aggregate saved or its rows kept.
#[test]
fn kills_inside_a_window_change_nothing() {
    const ROWS: i64 = 600;
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let broker = Mosquitto::start();
    let job = job_in(dir.path(), &broker.url());
    let rows: Arc<std::sync::Mutex<BTreeMap<i64, Json>>> = Arc::default();
    let sink = rows.clone();
    let take = move |m: forebay::demo::client::Message| {
        let row: Json = serde_json::from_slice(&m.payload).unwrap();
        let key = row["k"].as_i64().unwrap();
        // a row that comes again is the same row
        let known = sink.lock().unwrap().insert(key, row.clone());
        assert!(known.is_none_or(|known| known == row));
    };
    let receiver = runtime.block_on(async {
        forebay::demo::client::Receiver::listen("receiver", "127.0.0.1", broker.port, "means", take)
    });
    assert!(runtime.block_on(receiver.ready(PATIENCE)));
    let mut forebay = Forebay::run(&job);
    let feed = runtime.block_on(async { forebay::demo::client::Publisher::connect("fleet", "127.0.0.1", broker.port) });
    // an hour two days ago: late, but within what is tolerated
    let now = Clock::Real.now().ticks();
    let hour = 3600 * TICKS_PER_SECOND;
    let start = (now / hour - 48) * hour;
    let time = |seconds: i64| Timestamp::saturating_from_ticks(start + seconds * TICKS_PER_SECOND);
    let send = |payload: String| assert!(runtime.block_on(feed.send("rides", payload)));
    for n in 1..=ROWS {
        send(format!("{{\"t\":\"{}\",\"k\":{},\"n\":{n},\"fare\":{n},\"distance\":{}}}", time(n), n % 2, 1 + n % 3));
        if n % 100 == 0 {
            assert!(runtime.block_on(feed.drained(PATIENCE)));
            until("the rows are read and committed", || {
                (forebay.metric("forebay_consumer_read") >= n as f64).then_some(())
            });
            forebay.kill();
            forebay = Forebay::run(&job);
        }
    }
    // a row of a later hour closes the window
    send(format!("{{\"t\":\"{}\",\"k\":9,\"n\":0,\"fare\":0,\"distance\":1}}", time(7300)));
    until("both rows", || (rows.lock().unwrap().len() >= 2).then_some(()));
    for (key, row) in rows.lock().unwrap().iter() {
        let of_key: Vec<i64> = (1..=ROWS).filter(|n| n % 2 == *key).collect();
        let weight: i64 = of_key.iter().map(|n| 1 + n % 3).sum();
        let sum: i64 = of_key.iter().map(|n| n * (1 + n % 3)).sum();
        assert_eq!(row["m"].as_f64(), Some(sum as f64 / weight as f64), "{row}");
        assert_eq!(row["path"], Json::from(of_key), "of {key}");
    }
    forebay.stop();
}

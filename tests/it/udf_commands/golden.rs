//! Golden rows: those that pass, those that differ, and what is wrong with them.

use expect_test::expect;

use super::{PATIENT, place};

#[test]
fn golden_rows_that_pass_and_that_differ() {
    let place = place();
    place.with("create_array").with("create_row").with("weighted_mean");
    place.write(
        "golden.jsonl",
        concat!(
            r#"{"call":"create_array","args":[1,"Mon","5",2,2.5],"expected":["1","Mon","5","2","2.5"]}"#,
            "\n",
            "\n",
            "{\"call\":\"createArray\",\"args\":[1,null,\"5\",2,2.5],\"expected\":null}\n",
            "{\"call\":\"createArray\",\"args\":[1,\"Mon\",\"5\",2,{\"a\":1}],\"error\":\"udf_conversion\"}",
        ),
    );
    place.expect(
        &["udf", "test", "create_array.wasm"],
        &expect![[r#"
            exit 0
            3 passed, 0 failed
        "#]],
    );
    let rows = [
        "{\"call\":\"create_row\",\"args\":[1,\"Mon\",5,2,0.3],\"expected\":{\"vendorid\":1,\"weekday\":\"Mon\",\
        \"pickuphour\":5,\"passenger\":2,\"distance\":0.30000000001}}",
        "{\"call\":\"create_row\",\"args\":[1,\"Mon\",5,2,0.3],\"expected\":{\"vendorid\":1.0,\"weekday\":\"Tue\",\
        \"pickuphour\":5,\"passenger\":3,\"distance\":0.3}}",
        r#"{"call":"create_row","args":[1,"Mon",5,2,0.3],"expected":null}"#,
        r#"{"call":"create_row","args":["x","Mon",5,2,0.3],"expected":1}"#,
        r#"{"call":"create_row","args":["x","Mon",5,2,0.3],"error":"no such words"}"#,
        r#"{"call":"create_row","args":[1,"Mon",5,2,0.3],"error":"bigint"}"#,
    ];
    place.write("rows.jsonl", &(rows.join("\n") + "\n"));
    place.expect(
        &["udf", "test", "create_row.wasm", "rows.jsonl"],
        &expect![[r#"
            exit 1
            FAILED rows.jsonl:2 create_row(1, "Mon", 5, 2, 0.3)
              expected {"vendorid":1.0,"weekday":"Tue","pickuphour":5,"passenger":3,"distance":0.3}
              got      {"vendorid":1,"weekday":"Mon","pickuphour":5,"passenger":2,"distance":0.3}
                  weekday: expected "Tue", got "Mon"
                  passenger: expected 3, got 2
            FAILED rows.jsonl:3 create_row(1, "Mon", 5, 2, 0.3)
              expected null
              got      {"vendorid":1,"weekday":"Mon","pickuphour":5,"passenger":2,"distance":0.3}
            FAILED rows.jsonl:4 create_row("x", "Mon", 5, 2, 0.3)
              expected 1
              got the error: udf.create_row: argument 1 (vendorid: s64): nvarchar(max) "x" is no bigint; convert it with CAST (udf_conversion)
            FAILED rows.jsonl:5 create_row("x", "Mon", 5, 2, 0.3)
              expected an error with `no such words`
              got the error: udf.create_row: argument 1 (vendorid: s64): nvarchar(max) "x" is no bigint; convert it with CAST (udf_conversion)
            FAILED rows.jsonl:6 create_row(1, "Mon", 5, 2, 0.3)
              expected an error with `bigint`
              got      {"vendorid":1,"weekday":"Mon","pickuphour":5,"passenger":2,"distance":0.3}
            1 passed, 5 failed
        "#]],
    );
    let rows = [
        r#"{"aggregate":"weighted-mean","rows":[[1,2],[3,4]],"expected":2.3333333333333}"#,
        r#"{"aggregate":"weightedMean","rows":[[1,2],[null,4]],"expected":1}"#,
        r#"{"aggregate":"weighted_mean","rows":[[1,2],["x",4]],"error":"no float"}"#,
        r#"{"aggregate":"weighted_mean","rows":[[1,2],[2,2]],"expected":2}"#,
        r#"{"aggregate":"weighted_mean","rows":[],"expected":0}"#,
    ];
    place.write("rows.jsonl", rows.join("\n"));
    place.expect(
        &["udf", "test", "weighted_mean.wasm", "rows.jsonl"],
        &expect![[r#"
            exit 1
            FAILED rows.jsonl:4 weighted_mean of (1, 2), (2, 2)
              expected 2
              got      1.5
            FAILED rows.jsonl:5 weighted_mean of no rows
              expected 0
              got      null
            3 passed, 2 failed
        "#]],
    );
    place.expect(
        &["udf", "test", "weighted_mean.wasm", "rows.jsonl", "--json"],
        &expect![[r#"
            exit 1
            {"file":"rows.jsonl","line":1,"name":"weighted-mean","passed":true,"difference":""}
            {"file":"rows.jsonl","line":2,"name":"weightedMean","passed":true,"difference":""}
            {"file":"rows.jsonl","line":3,"name":"weighted_mean","passed":true,"difference":""}
            {"file":"rows.jsonl","line":4,"name":"weighted_mean","passed":false,"difference":"expected 2\ngot      1.5\n"}
            {"file":"rows.jsonl","line":5,"name":"weighted_mean","passed":false,"difference":"expected 0\ngot      null\n"}
            3 passed, 2 failed
        "#]],
    );
    // the engine may save a group at any time, and its value is the same then
    place.with("trails").write("rows.jsonl", r#"{"aggregate":"stubborn-trail","rows":[[1],[2]],"expected":[1,2]}"#);
    let said = place.answer(&[&["udf", "test", "trails.wasm", "rows.jsonl"], PATIENT.as_slice()].concat());
    let wanted = "exit 1\nFAILED rows.jsonl:1 stubborn-trail of (1), (2)\n  with `save` and `restore` after each \
                  row\n  expected [1,2]\n  got the error: uda.stubborn-trail: trapped in ";
    assert!(said.starts_with(wanted) && said.ends_with("(udf_trap)\n0 passed, 1 failed\n"), "{said}");
}

#[test]
fn what_is_wrong_with_golden_rows_is_said_with_its_place() {
    let place = place();
    place.with("create_array").with("weighted_mean");
    place.expect(
        &["udf", "test", "create_array.wasm"],
        &expect![[r#"
            exit 2
            error: there are no golden rows: golden.jsonl does not exist
             = help: name a file, or write that one, a call and its result a line: {"call": "create_array", "args": [1, "Mon"], "expected": ["1", "Mon"]}
        "#]],
    );
    place.expect(
        &["udf", "test", "create_array.wasm", "none.jsonl"],
        &expect![[r#"
            exit 2
            error: none.jsonl cannot be read: No such file or directory (os error 2)
             = help: check the path and its permissions
        "#]],
    );
    place.write("golden.jsonl", "\n");
    place.expect(
        &["udf", "test", "create_array.wasm"],
        &expect![[r#"
            exit 2
            error: no golden rows in golden.jsonl
             = help: write one a line: {"call": "create_array", "args": [1, "Mon"], "expected": ["1", "Mon"]}
        "#]],
    );
    let rows = [
        r#"{"call":"create_array","args":[1,"#,
        r#"{"call":"create_array","arg":[1],"expected":1}"#,
        r#"{"call":"create_array","args":[1,"Mon","5",2,2.5]}"#,
        r#"{"call":"create_array","args":[1,2,3,4,5],"aggregate":"x","expected":1}"#,
        r#"{"call":"create_array","args":[1,2,3,4,5],"at":"noon","expected":1}"#,
        r#"{"call":"creat_array","args":[1,2,3,4,5],"expected":1}"#,
        r#"{"call":"subtract","args":[1,2,3,4,5],"expected":1}"#,
        r#"{"call":"create_array","args":[1],"expected":1}"#,
        r#"{"aggregate":"create_array","rows":[[1]],"expected":1}"#,
        r#"[1]"#,
    ];
    place.write("golden.jsonl", &(rows.join("\n") + "\n"));
    place.expect(
        &["udf", "test", "create_array.wasm"],
        &expect![[r#"
            exit 2
            error: this is no golden row: EOF while parsing a value
              --> golden.jsonl:1:33
               |
             1 | {"call":"create_array","args":[1,
               |                                 ^
               = help: write {"call": NAME, "args": […], "expected": …} or {"aggregate": NAME, "rows": [[…], […]], "expected": …}; instead of `expected`, "error": a part of its message

            error: this is no golden row: unknown field `arg`, expected one of `call`, `args`, `aggregate`, `rows`, `at`, `expected`, `error`
              --> golden.jsonl:2:28
               |
             2 | {"call":"create_array","arg":[1],"expected":1}
               |                            ^
               = help: write {"call": NAME, "args": […], "expected": …} or {"aggregate": NAME, "rows": [[…], […]], "expected": …}; instead of `expected`, "error": a part of its message

            error: a golden row has either `expected` or `error`
              --> golden.jsonl:3:1
               |
             3 | {"call":"create_array","args":[1,"Mon","5",2,2.5]}
               | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
               = help: write {"call": NAME, "args": […], "expected": …} or {"aggregate": NAME, "rows": [[…], […]], "expected": …}; instead of `expected`, "error": a part of its message

            error: a golden row has either `call` with `args` or `aggregate` with `rows`
              --> golden.jsonl:4:1
               |
             4 | {"call":"create_array","args":[1,2,3,4,5],"aggregate":"x","expected":1}
               | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
               = help: write {"call": NAME, "args": […], "expected": …} or {"aggregate": NAME, "rows": [[…], […]], "expected": …}; instead of `expected`, "error": a part of its message

            error: `at` is no time
              --> golden.jsonl:5:1
               |
             5 | {"call":"create_array","args":[1,2,3,4,5],"at":"noon","expected":1}
               | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
               = help: write "at": "2024-05-01T12:00:00Z" for a call; for an aggregate a list, one time a row

            error: create_array.wasm exports no function `creat_array`; it has create-array
              --> golden.jsonl:6:1
               |
             6 | {"call":"creat_array","args":[1,2,3,4,5],"expected":1}
               | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
               = help: did you mean `create_array`?

            error: create_array.wasm exports no function `subtract`; it has create-array
              --> golden.jsonl:7:1
               |
             7 | {"call":"subtract","args":[1,2,3,4,5],"expected":1}
               | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
               = help: `forebay udf inspect` shows their types; in a job file `export = "…"` picks one

            error: create_array takes 5 arguments, not 1: udf.create_array(vendorid nvarchar(max), weekday nvarchar(max), pickuphour nvarchar(max), passenger nvarchar(max), distance nvarchar(max)) -> array (nvarchar(max), nvarchar(max), nvarchar(max), nvarchar(max), nvarchar(max))
              --> golden.jsonl:8:1
               |
             8 | {"call":"create_array","args":[1],"expected":1}
               | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

            error: `create_array` is a function, not an aggregate
              --> golden.jsonl:9:1
               |
             9 | {"aggregate":"create_array","rows":[[1]],"expected":1}
               | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
               = help: write `"call": "create_array", "args": […]`

            error: this is no golden row: invalid type: integer `1`, expected a string
               --> golden.jsonl:10:2
                |
             10 | [1]
                |  ^
                = help: write {"call": NAME, "args": […], "expected": …} or {"aggregate": NAME, "rows": [[…], […]], "expected": …}; instead of `expected`, "error": a part of its message

            10 errors
        "#]],
    );
    let rows = [
        r#"{"call":"weighted_mean","args":[1,2],"expected":1}"#,
        r#"{"aggregate":"weighted_mean","rows":[[1,2],[1]],"expected":1}"#,
        r#"{"aggregate":"weighted_mean","rows":[[1,2]],"at":"2024-05-01T00:00:00Z","expected":1}"#,
    ];
    place.write("golden.jsonl", rows.join("\n"));
    place.expect(
        &["udf", "test", "weighted_mean.wasm"],
        &expect![[r#"
            exit 2
            error: `weighted_mean` is an aggregate, not a function
              --> golden.jsonl:1:1
               |
             1 | {"call":"weighted_mean","args":[1,2],"expected":1}
               | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
               = help: write `"aggregate": "weighted_mean", "rows": [[…], […]]`

            error: weighted_mean takes 2 arguments, not 1: uda.weighted_mean(value float, weight float) -> float or NULL
              --> golden.jsonl:2:1
               |
             2 | {"aggregate":"weighted_mean","rows":[[1,2],[1]],"expected":1}
               | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

            error: `at` is no time
              --> golden.jsonl:3:1
               |
             3 | {"aggregate":"weighted_mean","rows":[[1,2]],"at":"2024-05-01T00:00:00Z","expected":1}
               | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
               = help: write "at": "2024-05-01T12:00:00Z" for a call; for an aggregate a list, one time a row

            3 errors
        "#]],
    );
}

/// Its state lasts from row to row of a file and begins empty with the next.
#[test]
fn golden_rows_of_a_function_with_imports() {
    let place = place();
    place.with("visit_count");
    let row = |count: i64, last: &str, at: &str| {
        format!(
            "{{\"call\":\"visit_count\",\"args\":[\"ann\"],{at}\"expected\":{{\"count\":{count},\"last\":{last}}}}}\n"
        )
    };
    let at = "\"at\":\"2024-05-01T10:00:00Z\",";
    let rows = row(1, "null", at) + &row(2, "\"2024-05-01T10:00:00.0000000Z\"", "");
    place.write("a.jsonl", &rows).write("b.jsonl", &rows);
    let grants = ["--import", "state", "--import", "clock", "--import", "log", "--config", "every=100"];
    place.expect(
        &[&["udf", "test", "visit_count.wasm", "a.jsonl", "b.jsonl"], grants.as_slice()].concat(),
        &expect![[r#"
            exit 0
            4 passed, 0 failed
        "#]],
    );
    place.expect(
        &["udf", "test", "visit_count.wasm", "a.jsonl"],
        &expect![[r#"
            exit 2
            error: visit_count.wasm imports forebay:host/state@0.1.0, forebay:host/clock@0.1.0, forebay:host/config@0.1.0, forebay:host/log@0.1.0, which is not granted; grant it with --import state --import clock --config KEY=VALUE --import log
        "#]],
    );
}

//! What the binder says about mistakes in a query: the whole drawn text, caret included.

#[path = "query_errors/sources.rs"]
mod sources;

use expect_test::{Expect, expect};
use forebay::query::catalog::{Catalog, FunctionDef, FunctionKind, InputDef, InputKind, Param, Shape, Signature};
use forebay::query::compile;
use forebay::query::plan::explain;

fn catalog() -> Catalog {
    let input = |name: &str, kind| InputDef { name: name.into(), kind };
    let params = vec![
        Param { name: "vendorid".into(), shape: Shape::Text },
        Param { name: "weekday".into(), shape: Shape::Text },
        Param { name: "distance".into(), shape: Shape::Float },
    ];
    let text = "create-array: func(vendorid: string, weekday: string, distance: f64) -> list<string>".into();
    let signature = Signature { params, rest: None, result: Shape::List(Box::new(Shape::Text)), text };
    Catalog {
        inputs: vec![
            input("rides", InputKind::Stream),
            input("stops", InputKind::Stream),
            input("zones", InputKind::Reference),
        ],
        outputs: Some(vec!["scored".into(), "alerts".into()]),
        functions: vec![
            FunctionDef {
                name: "createArray".into(),
                kind: FunctionKind::Local { index: 0, signature, keeps_state: false },
            },
            FunctionDef { name: "score".into(), kind: FunctionKind::External },
        ],
    }
}

fn check(query: &str, expected: &Expect) {
    let drawn =
        compile(query, "taxi.asaql", &catalog()).map_or_else(|problems| problems.to_string(), |plan| explain(&plan));
    expected.assert_eq(&drawn);
}

#[test]
fn an_unknown_input_with_its_neighbour() {
    check(
        "SELECT a FROM ride",
        &expect![[r#"
        error: no INTO, and no output is called `output`
          --> taxi.asaql:1:1
           |
         1 | SELECT a FROM ride
           | ^^^^^^ its rows have nowhere to go
           = help: write `INTO scored` before FROM

        error: unknown input or step `ride`
          --> taxi.asaql:1:15
           |
         1 | SELECT a FROM ride
           |               ^^^^ nothing has this name
           = help: did you mean `rides`?

        2 errors
    "#]],
    );
}

#[test]
fn an_unknown_output() {
    check(
        "SELECT a INTO score FROM rides",
        &expect![[r#"
        error: unknown output `score`
          --> taxi.asaql:1:15
           |
         1 | SELECT a INTO score FROM rides
           |               ^^^^^ not an output of this job
           = help: did you mean `scored`?
    "#]],
    );
}

#[test]
fn no_output_of_the_default_name() {
    check(
        "SELECT a FROM rides",
        &expect![[r#"
        error: no INTO, and no output is called `output`
          --> taxi.asaql:1:1
           |
         1 | SELECT a FROM rides
           | ^^^^^^ its rows have nowhere to go
           = help: write `INTO scored` before FROM
    "#]],
    );
}

#[test]
fn an_unknown_column_of_a_step() {
    check(
        "WITH s AS (SELECT deviceId, fare FROM rides)\nSELECT deviceid, far INTO scored FROM s",
        &expect![[r#"
        error: unknown column `far` in `s`
          --> taxi.asaql:2:18
           |
         2 | SELECT deviceid, far INTO scored FROM s
           |                  ^^^ no such column
           = help: did you mean `fare`?
    "#]],
    );
}

#[test]
fn an_unknown_column_of_a_declared_input() {
    check(
        "CREATE TABLE rides (id bigint, distance float);\nSELECT distanse INTO scored FROM rides",
        &expect![[r#"
        error: unknown column `distanse` in `rides`
          --> taxi.asaql:2:8
           |
         2 | SELECT distanse INTO scored FROM rides
           |        ^^^^^^^^ no such column
           = help: did you mean `distance`?
    "#]],
    );
}

#[test]
fn a_misspelt_function() {
    check(
        "SELECT COALESC(a, 0) AS a INTO scored FROM rides",
        &expect![[r#"
            error: unknown function `COALESC`
              --> taxi.asaql:1:8
               |
             1 | SELECT COALESC(a, 0) AS a INTO scored FROM rides
               |        ^^^^^^^ no such function
               = help: did you mean `COALESCE`?
        "#]],
    );
}

#[test]
fn try_evaluate_takes_one_local_expression() {
    check(
        "SELECT TryEvaluate(a, b) AS q INTO scored FROM rides",
        &expect![[r#"
        error: TryEvaluate takes one expression
          --> taxi.asaql:1:8
           |
         1 | SELECT TryEvaluate(a, b) AS q INTO scored FROM rides
           |        ^^^^^^^^^^^^^^^^^ 2 given
           = help: write `TryEvaluate(a / b)`: NULL where it fails
    "#]],
    );
    check(
        "SELECT TryEvaluate(udf.score(a)) AS q INTO scored FROM rides",
        &expect![[r#"
        error: a call that leaves the gateway inside TryEvaluate
          --> taxi.asaql:1:8
           |
         1 | SELECT TryEvaluate(udf.score(a)) AS q INTO scored FROM rides
           |        ^^^^^^^^^^^^^^^^^^^^^^^^^ its answer comes later, with a policy of its own
           = help: write the call without TryEvaluate and set `on_error = "null"` in the function's section of the job file
    "#]],
    );
}

#[test]
fn a_user_function_without_its_prefix() {
    check(
        "SELECT createArray(a) AS q INTO scored FROM rides",
        &expect![[r#"
            error: unknown function `createArray`
              --> taxi.asaql:1:8
               |
             1 | SELECT createArray(a) AS q INTO scored FROM rides
               |        ^^^^^^^^^^^ no such function
               = help: user functions have a prefix: write `udf.createArray(…)`
        "#]],
    );
}

#[test]
fn a_misspelt_user_function() {
    check(
        "SELECT udf.scor(a) AS q INTO scored FROM rides",
        &expect![[r#"
            error: unknown function `udf.scor`
              --> taxi.asaql:1:8
               |
             1 | SELECT udf.scor(a) AS q INTO scored FROM rides
               |        ^^^^^^^^ not a function of this job
               = help: did you mean `score`?
        "#]],
    );
}

#[test]
fn an_argument_that_never_converts() {
    check(
        "SELECT udf.create_array(vendorid, CAST(weekday AS datetime), 'far') AS q INTO scored FROM rides",
        &expect![[r#"
            error: `distance` of `udf.create_array` cannot take this argument
              --> taxi.asaql:1:62
               |
             1 | SELECT udf.create_array(vendorid, CAST(weekday AS datetime), 'far') AS q INTO scored FROM rides
               |                                                              ^^^^^ an nvarchar(max) never becomes float
               = note: the call: udf.create_array(any, datetime, nvarchar(max))
               = note: the function: create-array: func(vendorid: string, weekday: string, distance: f64) -> list<string>
               = help: `distance` takes float
        "#]],
    );
}

#[test]
fn a_wrong_number_of_arguments() {
    check(
        "SELECT udf.createArray(vendorid) AS q, LEFT(a) AS l INTO scored FROM rides",
        &expect![[r#"
        error: `udf.createArray` takes 3 arguments
          --> taxi.asaql:1:8
           |
         1 | SELECT udf.createArray(vendorid) AS q, LEFT(a) AS l INTO scored FROM rides
           |        ^^^^^^^^^^^^^^^^^^^^^^^^^ 1 given
           = note: the call: udf.createArray(any)
           = note: the function: create-array: func(vendorid: string, weekday: string, distance: f64) -> list<string>

        error: LEFT takes 2 arguments
          --> taxi.asaql:1:40
           |
         1 | SELECT udf.createArray(vendorid) AS q, LEFT(a) AS l INTO scored FROM rides
           |                                        ^^^^^^^ 1 given

        2 errors
    "#]],
    );
}

#[test]
fn an_endpoint_takes_one_argument() {
    check(
        "SELECT udf.score(a, b) AS fare INTO scored FROM rides",
        &expect![[r#"
        error: `udf.score` takes one argument
          --> taxi.asaql:1:8
           |
         1 | SELECT udf.score(a, b) AS fare INTO scored FROM rides
           |        ^^^^^^^^^^^^^^^ 2 given
           = help: an endpoint scores one value a row: make an array of several with a function of yours, `udf.score(udf.createArray(a, b))`, or a record with a step, `WITH Row AS (SELECT a, b FROM input) SELECT udf.score(Row) FROM input`
    "#]],
    );
}

#[test]
fn a_user_aggregate() {
    check(
        "SELECT uda.mean(a) AS m INTO scored FROM rides GROUP BY TumblingWindow(second, 5)",
        &expect![[r#"
            error: unknown aggregate `uda.mean`
              --> taxi.asaql:1:8
               |
             1 | SELECT uda.mean(a) AS m INTO scored FROM rides GROUP BY TumblingWindow(second, 5)
               |        ^^^^^^^^^^^ not an aggregate of this job
               = help: aggregates are resources of components in a job file: `[functions.mean]`; `forebay eval` takes one with `--job`
        "#]],
    );
}

#[test]
fn a_date_part() {
    check(
        "SELECT DATEADD(minuet, 1, at) AS t, DATEPART('day', at) AS d INTO scored FROM rides",
        &expect![[r#"
        error: unknown date part `minuet`
          --> taxi.asaql:1:16
           |
         1 | SELECT DATEADD(minuet, 1, at) AS t, DATEPART('day', at) AS d INTO scored FROM rides
           |                ^^^^^^ expected a date part such as `second`
           = help: did you mean `minute`?

        error: DATEPART begins with a date part
          --> taxi.asaql:1:46
           |
         1 | SELECT DATEADD(minuet, 1, at) AS t, DATEPART('day', at) AS d INTO scored FROM rides
           |                                              ^^^^^ expected a date part such as `second`
           = help: date parts are year, quarter, month, dayofyear, day, week, weekday, hour, minute, second, millisecond, microsecond

        2 errors
    "#]],
    );
}

#[test]
fn a_window_without_a_unit() {
    check(
        "SELECT COUNT(*) AS n INTO scored FROM rides\nGROUP BY TumblingWindow(10)",
        &expect![[r#"
        error: a tumbling window needs a unit and a size
          --> taxi.asaql:2:25
           |
         2 | GROUP BY TumblingWindow(10)
           |                         ^^ expected a unit such as `second`
           = help: write `TumblingWindow(second, 10)`
    "#]],
    );
}

#[test]
fn window_sizes_and_units() {
    check(
        "SELECT COUNT(*) AS n INTO scored FROM rides GROUP BY TumblingWindow(secnd, 10);\nSELECT COUNT(*) AS n INTO \
        scored FROM rides GROUP BY HoppingWindow(day, 8, 1);\nSELECT COUNT(*) AS n INTO scored FROM rides GROUP BY \
        SlidingWindow(second, 0);\nSELECT COUNT(*) AS n INTO scored FROM rides GROUP BY HoppingWindow(Duration(day, \
        7), Hop(microsecond, 1));\nSELECT COUNT(*) AS n INTO scored FROM rides GROUP BY SessionWindow(second, 5, 60) \
        OVER (PARTITION BY k)",
        &expect![[r#"
            error: unknown window unit `secnd`
              --> taxi.asaql:1:69
               |
             1 | SELECT COUNT(*) AS n INTO scored FROM rides GROUP BY TumblingWindow(secnd, 10);
               |                                                                     ^^^^^ expected a unit such as `second`
               = help: did you mean `second`?

            error: a window of more than 7 days
              --> taxi.asaql:2:73
               |
             2 | SELECT COUNT(*) AS n INTO scored FROM rides GROUP BY HoppingWindow(day, 8, 1);
               |                                                                         ^ at most 7 days
               = help: group by a shorter window and add up further along

            error: the size of a window is positive
              --> taxi.asaql:3:76
               |
             3 | SELECT COUNT(*) AS n INTO scored FROM rides GROUP BY SlidingWindow(second, 0);
               |                                                                            ^ expected a whole number above 0
               = help: give the length of the window, such as `10` seconds

            error: each event would count in 604800000000 windows
              --> taxi.asaql:4:54
               |
             4 | SELECT COUNT(*) AS n INTO scored FROM rides GROUP BY HoppingWindow(Duration(day, 7), Hop(microsecond, 1));
               |                                                      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ at most 20000
               = help: take a larger hop or a smaller size

            error: the session key `k` is not in GROUP BY
              --> taxi.asaql:5:102
               |
             5 | SELECT COUNT(*) AS n INTO scored FROM rides GROUP BY SessionWindow(second, 5, 60) OVER (PARTITION BY k)
               |                                                                                                      ^ sessions of single keys need the key as a grouping item
               = help: write `GROUP BY k, SessionWindow(…) OVER (PARTITION BY k)`

            5 errors
        "#]],
    );
}

#[test]
fn groups_without_a_window() {
    check(
        "SELECT k, COUNT(*) AS n INTO scored FROM rides GROUP BY k",
        &expect![[r#"
        error: a window must be specified in GROUP BY
          --> taxi.asaql:1:57
           |
         1 | SELECT k, COUNT(*) AS n INTO scored FROM rides GROUP BY k
           |                                                         ^ a stream has no end, so a group needs one
           = help: add a window, `TumblingWindow(second, 10)`, or `System.Timestamp()` for rows of one moment
    "#]],
    );
}

#[test]
fn an_aggregate_without_groups() {
    check(
        "SELECT COUNT(*) AS n INTO scored FROM rides WHERE SUM(a) > 2",
        &expect![[r#"
        error: the aggregate `COUNT` needs a GROUP BY with a window
          --> taxi.asaql:1:8
           |
         1 | SELECT COUNT(*) AS n INTO scored FROM rides WHERE SUM(a) > 2
           |        ^^^^^^^^ over which rows?
           = help: add `GROUP BY TumblingWindow(second, 10)`, or look back from each row: `COUNT(…) OVER (LIMIT DURATION(second, 10))`

        error: the aggregate `SUM` inside WHERE
          --> taxi.asaql:1:51
           |
         1 | SELECT COUNT(*) AS n INTO scored FROM rides WHERE SUM(a) > 2
           |                                                   ^^^^^^ WHERE sees single rows, before they are grouped
           = help: put the condition in HAVING

        2 errors
    "#]],
    );
}

#[test]
fn a_column_that_is_not_grouped() {
    check(
        "SELECT UPPER(zone) AS z, COUNT(*) AS n INTO scored FROM rides GROUP BY z, TumblingWindow(second, 10)",
        &expect![[r#"
        error: `zone` is not in GROUP BY
          --> taxi.asaql:1:14
           |
         1 | SELECT UPPER(zone) AS z, COUNT(*) AS n INTO scored FROM rides GROUP BY z, TumblingWindow(second, 10)
           |              ^^^^ a group has many values of it
           = note: GROUP BY does not see the alias `z`: repeat the expression there
           = help: add `zone` to GROUP BY, or choose one of its values: `MAX(zone)`, `TopOne(zone) OVER (ORDER BY …)`
    "#]],
    );
}

//! What the binder says about mistakes in a query: the whole drawn text, caret included.

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
        inputs: vec![input("rides", InputKind::Stream), input("stops", InputKind::Stream), input("zones", InputKind::Reference)],
        outputs: Some(vec!["scored".into(), "alerts".into()]),
        functions: vec![
            FunctionDef { name: "createArray".into(), kind: FunctionKind::Local { index: 0, signature, keeps_state: false } },
            FunctionDef { name: "score".into(), kind: FunctionKind::External },
        ],
    }
}

fn check(query: &str, expected: &Expect) {
    let drawn = compile(query, "taxi.asaql", &catalog()).map_or_else(|problems| problems.to_string(), |plan| explain(&plan));
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
        "SELECT COUNT(*) AS n INTO scored FROM rides GROUP BY TumblingWindow(secnd, 10);\nSELECT COUNT(*) AS n INTO scored FROM rides GROUP BY HoppingWindow(day, 8, 1);\nSELECT COUNT(*) AS n INTO scored FROM rides GROUP BY SlidingWindow(second, 0);\nSELECT COUNT(*) AS n INTO scored FROM rides GROUP BY HoppingWindow(Duration(day, 7), Hop(microsecond, 1));\nSELECT COUNT(*) AS n INTO scored FROM rides GROUP BY SessionWindow(second, 5, 60) OVER (PARTITION BY k)",
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

#[test]
fn a_join_of_streams_without_a_bound() {
    check(
        "SELECT a.id INTO scored FROM rides a JOIN stops b ON a.id = b.id",
        &expect![[r#"
        error: the join is not time bounded
          --> taxi.asaql:1:54
           |
         1 | SELECT a.id INTO scored FROM rides a JOIN stops b ON a.id = b.id
           |                                                      ^^^^^^^^^^^ expected a DATEDIFF between the two sources
           = help: add `AND DATEDIFF(second, a, b) BETWEEN 0 AND 10`: rows wait for a partner only so long
    "#]],
    );
}

#[test]
fn join_bounds() {
    check(
        "SELECT a.id INTO scored FROM rides a JOIN stops b ON DATEDIFF(second, a, b) >= 0;\nSELECT a.id INTO scored FROM rides a JOIN stops b ON DATEDIFF(day, a, b) BETWEEN 0 AND 9;\nSELECT a.id INTO scored FROM rides a JOIN stops b ON DATEDIFF(second, a, b) BETWEEN 5 AND 1",
        &expect![[r#"
            error: the join is time bounded on one side only
              --> taxi.asaql:1:54
               |
             1 | SELECT a.id INTO scored FROM rides a JOIN stops b ON DATEDIFF(second, a, b) >= 0;
               |                                                      ^^^^^^^^^^^^^^^^^^^^^^^^^^^ DATEDIFF has no upper bound
               = help: add `AND DATEDIFF(second, a, b) BETWEEN 0 AND 10`: rows wait for a partner only so long

            error: the DATEDIFF bound of this join is wider than 7 days
              --> taxi.asaql:2:54
               |
             2 | SELECT a.id INTO scored FROM rides a JOIN stops b ON DATEDIFF(day, a, b) BETWEEN 0 AND 9;
               |                                                      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ at most 7 days in either direction
               = help: rows wait in memory for as long as the bound says; take a shorter one

            error: the DATEDIFF bound of this join is empty
              --> taxi.asaql:3:54
               |
             3 | SELECT a.id INTO scored FROM rides a JOIN stops b ON DATEDIFF(second, a, b) BETWEEN 5 AND 1
               |                                                      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ nothing lies between 5 and 1
               = help: write the smaller number first

            3 errors
        "#]],
    );
}

#[test]
fn a_name_that_two_sources_may_have() {
    check(
        "SELECT id INTO scored FROM rides a JOIN zones z ON a.zone = z.zone",
        &expect![[r#"
        error: `id` could belong to several sources
          --> taxi.asaql:1:8
           |
         1 | SELECT id INTO scored FROM rides a JOIN zones z ON a.zone = z.zone
           |        ^^ which one?
           = help: write `a.id` or `z.id`
    "#]],
    );
}

#[test]
fn a_name_hidden_by_an_alias() {
    check(
        "SELECT rides.id INTO scored FROM rides AS r",
        &expect![[r#"
        error: `rides` is called `r` in this SELECT
          --> taxi.asaql:1:8
           |
         1 | SELECT rides.id INTO scored FROM rides AS r
           |        ^^^^^ an alias hides the name
           = help: write `r.…`; for a payload field of this name write `r.rides.…`
    "#]],
    );
}

#[test]
fn a_field_of_apply_without_its_name() {
    check(
        "SELECT ArrayValue INTO scored FROM rides CROSS APPLY GetArrayElements(tags) AS t",
        &expect![[r#"
        error: `ArrayValue` is a field of `t`
          --> taxi.asaql:1:8
           |
         1 | SELECT ArrayValue INTO scored FROM rides CROSS APPLY GetArrayElements(tags) AS t
           |        ^^^^^^^^^^ not a column by itself
           = help: write `t.ArrayValue`
    "#]],
    );
}

#[test]
fn reference_data_in_from() {
    check(
        "SELECT id INTO scored FROM zones",
        &expect![[r#"
        error: reference data `zones` in FROM
          --> taxi.asaql:1:28
           |
         1 | SELECT id INTO scored FROM zones
           |                            ^^^^^ reference data never moves time
           = help: read a stream and join it: `FROM input JOIN zones ON input.id = zones.id`
    "#]],
    );
}

#[test]
fn two_columns_of_one_name() {
    check(
        "SELECT a.id, b.id INTO scored FROM rides a JOIN stops b ON DATEDIFF(second, a, b) BETWEEN 0 AND 1",
        &expect![[r#"
        error: two columns are called `id`
          --> taxi.asaql:1:14
           |
         1 | SELECT a.id, b.id INTO scored FROM rides a JOIN stops b ON DATEDIFF(second, a, b) BETWEEN 0 AND 1
           |              ^^^^ the name is taken
           = help: give one of them another name: `AS id2`
    "#]],
    );
}

#[test]
fn a_scored_step_under_a_union_or_a_join() {
    check(
        "WITH s AS (SELECT id, udf.score(a) AS f FROM rides)\nSELECT id, f INTO scored FROM s UNION SELECT id, f FROM stops;\nSELECT s.id INTO scored FROM s JOIN stops ON DATEDIFF(second, s, stops) BETWEEN 0 AND 1",
        &expect![[r#"
            error: a call that leaves the gateway cannot stand in a branch of UNION
              --> taxi.asaql:1:23
               |
             1 | WITH s AS (SELECT id, udf.score(a) AS f FROM rides)
               |                       ^^^^^^^^^^^^ answers come later than the rows they would be merged with
               = help: write the scored rows in a statement of their own: `SELECT …, udf.f(x) AS score INTO scored FROM …`, and read them back as an input

            error: a call that leaves the gateway cannot stand in a step that is joined with a stream
              --> taxi.asaql:1:23
               |
             1 | WITH s AS (SELECT id, udf.score(a) AS f FROM rides)
               |                       ^^^^^^^^^^^^ answers come later than the rows they would be merged with
               = help: write the scored rows in a statement of their own: `SELECT …, udf.f(x) AS score INTO scored FROM …`, and read them back as an input

            2 errors
        "#]],
    );
}

#[test]
fn a_step_beside_from_that_filters() {
    check(
        "WITH Dataframe AS (SELECT a, b FROM rides WHERE a > 1)\nSELECT udf.score(Dataframe) AS fare INTO scored FROM rides",
        &expect![[r#"
            error: the step `Dataframe` is not in FROM
              --> taxi.asaql:2:18
               |
             2 | SELECT udf.score(Dataframe) AS fare INTO scored FROM rides
               |                  ^^^^^^^^^ used as a value here
               = note: a step can be used beside FROM only when it just selects columns of the same input, without WHERE, JOIN, APPLY or GROUP BY
               = note: for a column that is called `Dataframe` write `rides.Dataframe`
               = help: read the step: `FROM Dataframe`
        "#]],
    );
}

#[test]
fn steps_that_read_each_other() {
    check(
        "WITH a AS (SELECT k FROM b), b AS (SELECT k FROM b), a AS (SELECT k FROM rides)\nSELECT k INTO scored FROM a",
        &expect![[r#"
        error: the step `b` is defined further down
          --> taxi.asaql:1:26
           |
         1 | WITH a AS (SELECT k FROM b), b AS (SELECT k FROM b), a AS (SELECT k FROM rides)
           |                          ^ a step sees only the steps before it
           = help: move `b` up

        error: the step `b` reads itself
          --> taxi.asaql:1:50
           |
         1 | WITH a AS (SELECT k FROM b), b AS (SELECT k FROM b), a AS (SELECT k FROM rides)
           |                                                  ^ recursion does not exist
           = help: read an input or an earlier step

        error: the step name `a` is taken
          --> taxi.asaql:1:54
           |
         1 | WITH a AS (SELECT k FROM b), b AS (SELECT k FROM b), a AS (SELECT k FROM rides)
           |                                                      ^ a step before has this name
           = help: give each step of WITH a name of its own

        3 errors
    "#]],
    );
}

#[test]
fn analytic_functions() {
    check(
        "SELECT LAG(a) AS p INTO scored FROM rides;\nSELECT SUM(a) OVER (PARTITION BY k) AS p INTO scored FROM rides;\nSELECT LAG(LAST(a) OVER (LIMIT DURATION(second, 1))) OVER (LIMIT DURATION(month, 1)) AS p INTO scored FROM rides",
        &expect![[r#"
            error: the analytic function `LAG` without OVER
              --> taxi.asaql:1:8
               |
             1 | SELECT LAG(a) AS p INTO scored FROM rides;
               |        ^^^^^^ how far may it look back?
               = help: write `LAG(…) OVER (LIMIT DURATION(minute, 5))`

            error: the analytic function `SUM` without LIMIT DURATION
              --> taxi.asaql:2:15
               |
             2 | SELECT SUM(a) OVER (PARTITION BY k) AS p INTO scored FROM rides;
               |               ^^^^^^^^^^^^^^^^^^^^^ how far may it look back?
               = help: write `SUM(…) OVER (LIMIT DURATION(minute, 5))`

            error: the analytic function `LAST` inside an analytic function
              --> taxi.asaql:3:12
               |
             3 | SELECT LAG(LAST(a) OVER (LIMIT DURATION(second, 1))) OVER (LIMIT DURATION(month, 1)) AS p INTO scored FROM rides
               |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ cannot be nested
               = help: compute the inner one in a step and use its column here

            error: unknown unit `month`
              --> taxi.asaql:3:75
               |
             3 | SELECT LAG(LAST(a) OVER (LIMIT DURATION(second, 1))) OVER (LIMIT DURATION(month, 1)) AS p INTO scored FROM rides
               |                                                                           ^^^^^ expected a unit such as `second`
               = help: units of fixed length are week, day, hour, minute, second, millisecond, microsecond

            4 errors
        "#]],
    );
}

#[test]
fn timestamp_by_on_a_step() {
    check(
        "WITH s AS (SELECT *, 1 AS k FROM rides TIMESTAMP BY System.Timestamp())\nSELECT k INTO scored FROM s TIMESTAMP BY at",
        &expect![[r#"
            error: System.Timestamp() inside TIMESTAMP BY
              --> taxi.asaql:1:53
               |
             1 | WITH s AS (SELECT *, 1 AS k FROM rides TIMESTAMP BY System.Timestamp())
               |                                                     ^^^^^^^^^^^^^^^^^^ this is what TIMESTAMP BY defines
               = help: name a field of the payload that holds the time

            error: TIMESTAMP BY on `s`
              --> taxi.asaql:2:42
               |
             2 | SELECT k INTO scored FROM s TIMESTAMP BY at
               |                                          ^^ only an input of the stream kind takes it: the rows of a step have their time already
               = help: move TIMESTAMP BY to where the input is read

            2 errors
        "#]],
    );
}

#[test]
fn metadata_of_another_transport() {
    check(
        "SELECT GetMetadataPropertyValue(rides, 'Mqtt.Topik') AS t, GetMetadataPropertyValue(rides, 'PartitionId') AS p INTO scored FROM rides",
        &expect![[r#"
            error: unknown metadata property 'Mqtt.Topik'
              --> taxi.asaql:1:40
               |
             1 | SELECT GetMetadataPropertyValue(rides, 'Mqtt.Topik') AS t, GetMetadataPropertyValue(rides, 'PartitionId') AS p INTO scored FROM rides
               |                                        ^^^^^^^^^^^^ an input has no such property
               = help: did you mean 'Mqtt.Topic'?

            error: unknown metadata property 'PartitionId'
              --> taxi.asaql:1:92
               |
             1 | SELECT GetMetadataPropertyValue(rides, 'Mqtt.Topik') AS t, GetMetadataPropertyValue(rides, 'PartitionId') AS p INTO scored FROM rides
               |                                                                                            ^^^^^^^^^^^^^ an input has no such property
               = help: an MQTT input has 'EventId', '[User]', '[User].[name]', 'Mqtt', 'Mqtt.Topic', 'Mqtt.Qos', 'Mqtt.Retain', 'EventEnqueuedUtcTime', 'EventProcessedUtcTime', 'EnqueuedTime'

            2 errors
        "#]],
    );
}

#[test]
fn all_mistakes_at_once_and_each_only_once() {
    check(
        "WITH s AS (SELECT LENN(a) AS n FROM rides), t AS (SELECT n FROM s)\nSELECT n INTO scored FROM s WHERE COUNT(*) > 1;\nSELECT m INTO elsewhere FROM t;\nSELECT n INTO scored FROM u",
        &expect![[r#"
            error: unknown function `LENN`
              --> taxi.asaql:1:19
               |
             1 | WITH s AS (SELECT LENN(a) AS n FROM rides), t AS (SELECT n FROM s)
               |                   ^^^^ no such function
               = help: did you mean `LEN`?

            error: the aggregate `COUNT` inside WHERE
              --> taxi.asaql:2:35
               |
             2 | SELECT n INTO scored FROM s WHERE COUNT(*) > 1;
               |                                   ^^^^^^^^ WHERE sees single rows, before they are grouped
               = help: put the condition in HAVING

            error: unknown output `elsewhere`
              --> taxi.asaql:3:15
               |
             3 | SELECT m INTO elsewhere FROM t;
               |               ^^^^^^^^^ not an output of this job
               = help: known: `scored`, `alerts`

            error: unknown input or step `u`
              --> taxi.asaql:4:27
               |
             4 | SELECT n INTO scored FROM u
               |                           ^ nothing has this name
               = help: known: `rides`, `stops`, `zones`, `s`, `t`

            4 errors
        "#]],
    );
}

/// The problems of a query have these lines.
fn says(query: &str, lines: &[&str]) {
    let problems = compile(query, "taxi.asaql", &catalog()).unwrap_err().to_string();
    for line in lines {
        assert!(problems.lines().any(|said| said.trim() == *line), "{line}\n{problems}");
    }
}

#[test]
fn a_function_of_other_sql_with_over() {
    says(
        "SELECT ROW_NUMBER() OVER (ORDER BY a) AS n, LAGG(a) OVER (LIMIT DURATION(second, 1)) AS v, LEN(a) OVER (ORDER BY a) AS l INTO scored FROM rides",
        &[
            "error: unknown function `ROW_NUMBER`",
            "= help: write `CollectTop(n) OVER (ORDER BY x)` with a window: an array of rank and value",
            "error: unknown function `LAGG`",
            "= help: did you mean `LAG`?",
            "error: `LEN` takes no OVER",
        ],
    );
}

#[test]
fn patterns_where_they_have_no_meaning() {
    let pattern = |source: &str, keys: &str, skip: &str| {
        format!(
            "SELECT m.x INTO scored FROM {source} MATCH_RECOGNIZE (LIMIT DURATION(second, 10) {keys} MEASURES A.x AS x AFTER MATCH SKIP {skip} PATTERN (A)) AS m"
        )
    };
    says(&pattern("zones", "", "TO NEXT ROW"), &["error: MATCH_RECOGNIZE over reference data `zones`"]);
    says(
        &pattern("rides", "PARTITION BY zone, trip.zone", "TO NEXT ROW"),
        &["error: two partition keys are called `zone`", "= help: name one of them in a step before"],
    );
    says(&pattern("rides", "", "PAST LAST ROW"), &["error: unexpected `PAST`"]);
}

#[test]
fn an_endpoint_that_is_joined_by_an_alias_without_columns() {
    says(
        "SELECT r.x INTO scored FROM rides r TIMESTAMP BY r.t JOIN model INTO () AS",
        &["WITH model_row AS (", "SELECT *", "SELECT r, udf.model(model_row) AS model_result"],
    );
}

#[test]
fn a_pattern_that_is_too_long() {
    let query = |parts: usize| {
        format!(
            "SELECT * INTO scored FROM rides MATCH_RECOGNIZE (LIMIT DURATION(second, 10) MEASURES A.x AS x AFTER MATCH SKIP TO NEXT ROW PATTERN ({}) ) AS m",
            "A? ".repeat(parts)
        )
    };
    assert!(compile(&query(499), "taxi.asaql", &catalog()).is_ok());
    let problems = compile(&query(500), "taxi.asaql", &catalog()).unwrap_err().to_string();
    assert!(
        problems.contains("error: the pattern is too long\n") && problems.contains("at most 1000 variables, groups and quantifiers"),
        "{problems}"
    );
}

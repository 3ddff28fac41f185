//! Joins, steps, names of sources, analytic functions and patterns: the whole drawn error.

use expect_test::expect;

use super::*;

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
        "SELECT a.id INTO scored FROM rides a JOIN stops b ON DATEDIFF(second, a, b) >= 0;\nSELECT a.id INTO scored \
        FROM rides a JOIN stops b ON DATEDIFF(day, a, b) BETWEEN 0 AND 9;\nSELECT a.id INTO scored FROM rides a JOIN \
        stops b ON DATEDIFF(second, a, b) BETWEEN 5 AND 1",
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
        "WITH s AS (SELECT id, udf.score(a) AS f FROM rides)\nSELECT id, f INTO scored FROM s UNION SELECT id, f FROM \
        stops;\nSELECT s.id INTO scored FROM s JOIN stops ON DATEDIFF(second, s, stops) BETWEEN 0 AND 1",
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
        "WITH Dataframe AS (SELECT a, b FROM rides WHERE a > 1)\nSELECT udf.score(Dataframe) AS fare INTO scored FROM \
        rides",
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
        "SELECT LAG(a) AS p INTO scored FROM rides;\nSELECT SUM(a) OVER (PARTITION BY k) AS p INTO scored FROM \
        rides;\nSELECT LAG(LAST(a) OVER (LIMIT DURATION(second, 1))) OVER (LIMIT DURATION(month, 1)) AS p INTO scored \
        FROM rides",
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
        "WITH s AS (SELECT *, 1 AS k FROM rides TIMESTAMP BY System.Timestamp())\nSELECT k INTO scored FROM s \
        TIMESTAMP BY at",
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
        "SELECT GetMetadataPropertyValue(rides, 'Mqtt.Topik') AS t, GetMetadataPropertyValue(rides, 'PartitionId') AS \
        p INTO scored FROM rides",
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
        "WITH s AS (SELECT LENN(a) AS n FROM rides), t AS (SELECT n FROM s)\nSELECT n INTO scored FROM s WHERE \
        COUNT(*) > 1;\nSELECT m INTO elsewhere FROM t;\nSELECT n INTO scored FROM u",
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
        "SELECT ROW_NUMBER() OVER (ORDER BY a) AS n, LAGG(a) OVER (LIMIT DURATION(second, 1)) AS v, LEN(a) OVER (ORDER \
        BY a) AS l INTO scored FROM rides",
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
            "SELECT m.x INTO scored FROM {source} MATCH_RECOGNIZE (LIMIT DURATION(second, 10) {keys} MEASURES A.x AS x \
            AFTER MATCH SKIP {skip} PATTERN (A)) AS m"
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
            "SELECT * INTO scored FROM rides MATCH_RECOGNIZE (LIMIT DURATION(second, 10) MEASURES A.x AS x AFTER MATCH \
            SKIP TO NEXT ROW PATTERN ({}) ) AS m",
            "A? ".repeat(parts)
        )
    };
    assert!(compile(&query(499), "taxi.asaql", &catalog()).is_ok());
    let problems = compile(&query(500), "taxi.asaql", &catalog()).unwrap_err().to_string();
    assert!(
        problems.contains("error: the pattern is too long\n")
            && problems.contains("at most 1000 variables, groups and quantifiers"),
        "{problems}"
    );
}

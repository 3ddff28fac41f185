//! What the grammar refuses: the whole drawn error.

use expect_test::expect;

use super::check;

#[test]
fn statements_of_other_dialects() {
    check(
        &["DECLARE @a bigint", "INSERT INTO o SELECT a FROM x", "UPDATE x", "DROP TABLE x", "IF 1 = 1"],
        expect![[r#"
            error: variables are not in the language
              --> q.asaql:1:1
               |
             1 | DECLARE @a bigint
               | ^^^^^^^ expected `SELECT`, `WITH` or `CREATE TABLE`, found `DECLARE`
               = help: write the value where it is used, or read it from a reference input

            error: INSERT is not in the language
              --> q.asaql:1:1
               |
             1 | INSERT INTO o SELECT a FROM x
               | ^^^^^^ expected `SELECT`, `WITH` or `CREATE TABLE`, found `INSERT`
               = help: write `SELECT … INTO output FROM input`

            error: changing stored data is not in the language
              --> q.asaql:1:1
               |
             1 | UPDATE x
               | ^^^^^^ expected `SELECT`, `WITH` or `CREATE TABLE`, found `UPDATE`
               = help: a query only turns events into rows: `SELECT … INTO output`

            error: database commands are not in the language
              --> q.asaql:1:1
               |
             1 | DROP TABLE x
               | ^^^^ expected `SELECT`, `WITH` or `CREATE TABLE`, found `DROP`
               = help: inputs and outputs are named in the job file

            error: procedures are not in the language
              --> q.asaql:1:1
               |
             1 | IF 1 = 1
               | ^^ expected `SELECT`, `WITH` or `CREATE TABLE`, found `IF`
               = help: write `CASE` for a choice, a function for a computation
        "#]],
    );
}

#[test]
fn clauses_of_other_dialects() {
    check(
        &[
            "SELECT DISTINCT a FROM x",
            "SELECT TOP 3 a FROM x",
            "SELECT TOP (3) a FROM x",
            "SELECT a FROM x ORDER BY a",
            "SELECT a FROM x WHERE a = 1 LIMIT 10",
            "SELECT a FROM x LIMIT 10",
            "SELECT a FROM x EXCEPT SELECT a FROM y",
            "SELECT a FROM x MATCH_RECOGNIZE (LIMIT DURATION(minute, 1))",
            "SELECT SUM(a) OVER (ORDER BY t ROWS 3 PRECEDING) FROM x",
        ],
        expect![[r#"
            error: SELECT DISTINCT is not in the language
              --> q.asaql:1:8
               |
             1 | SELECT DISTINCT a FROM x
               |        ^^^^^^^^ a stream has no end to compare with
               = help: group by the columns and a window: `GROUP BY a, b, TumblingWindow(second, 10)`

            error: SELECT TOP is not in the language
              --> q.asaql:1:8
               |
             1 | SELECT TOP 3 a FROM x
               |        ^^^ a stream has no end to count to
               = help: write `TopOne() OVER (ORDER BY …)` or `CollectTop(n) OVER (ORDER BY …)` and group by a window

            error: SELECT TOP is not in the language
              --> q.asaql:1:8
               |
             1 | SELECT TOP (3) a FROM x
               |        ^^^ a stream has no end to count to
               = help: write `TopOne() OVER (ORDER BY …)` or `CollectTop(n) OVER (ORDER BY …)` and group by a window

            error: ORDER BY is not in the language
              --> q.asaql:1:17
               |
             1 | SELECT a FROM x ORDER BY a
               |                 ^^^^^ a stream has no end to sort at
               = help: rows come in the order of time; `ORDER BY` stands only inside `OVER (…)` of TopOne, CollectTop and the percentiles

            error: LIMIT is not in the language
              --> q.asaql:1:29
               |
             1 | SELECT a FROM x WHERE a = 1 LIMIT 10
               |                             ^^^^^ a stream has no end to count to
               = help: take the first rows of a window with `CollectTop(n) OVER (ORDER BY …)` and `GROUP BY` a window

            error: LIMIT is not in the language
              --> q.asaql:1:17
               |
             1 | SELECT a FROM x LIMIT 10
               |                 ^^^^^ a stream has no end to count to
               = help: take the first rows of a window with `CollectTop(n) OVER (ORDER BY …)` and `GROUP BY` a window

            error: EXCEPT is not in the language
              --> q.asaql:1:17
               |
             1 | SELECT a FROM x EXCEPT SELECT a FROM y
               |                 ^^^^^^ only `UNION` combines SELECTs
               = help: use a `LEFT JOIN` and `WHERE … IS NULL` for what is absent, a `JOIN` for what is in both

            error: unexpected `)`
              --> q.asaql:1:59
               |
             1 | SELECT a FROM x MATCH_RECOGNIZE (LIMIT DURATION(minute, 1))
               |                                                           ^ expected `MEASURES`
               = help: write `MATCH_RECOGNIZE (LIMIT DURATION(minute, 1) PARTITION BY k MEASURES Last(A.x) AS x AFTER MATCH SKIP TO NEXT ROW PATTERN (A+ B) DEFINE A AS A.x > 1)`

            error: frames of rows are not in the language
              --> q.asaql:1:32
               |
             1 | SELECT SUM(a) OVER (ORDER BY t ROWS 3 PRECEDING) FROM x
               |                                ^^^^ expected `LIMIT DURATION(unit, n)`
               = help: the rows looked at are limited by time: `OVER (LIMIT DURATION(minute, 5))`
        "#]],
    );
}

#[test]
fn subqueries() {
    check(
        &[
            "SELECT a FROM (SELECT b FROM x)",
            "SELECT (SELECT b FROM x) AS c FROM y",
            "SELECT a FROM x WHERE a IN (SELECT b FROM y)",
            "SELECT a FROM x WHERE EXISTS (SELECT b FROM y)",
        ],
        expect![[r#"
            error: subqueries are not in the language
              --> q.asaql:1:15
               |
             1 | SELECT a FROM (SELECT b FROM x)
               |               ^ a SELECT cannot stand here
               = help: name it as a step, `WITH step AS (SELECT …)`, and use or join the step

            error: subqueries are not in the language
              --> q.asaql:1:8
               |
             1 | SELECT (SELECT b FROM x) AS c FROM y
               |        ^ a SELECT cannot stand here
               = help: name it as a step, `WITH step AS (SELECT …)`, and use or join the step

            error: subqueries are not in the language
              --> q.asaql:1:29
               |
             1 | SELECT a FROM x WHERE a IN (SELECT b FROM y)
               |                             ^^^^^^ a SELECT cannot stand here
               = help: name it as a step, `WITH step AS (SELECT …)`, and use or join the step

            error: subqueries are not in the language
              --> q.asaql:1:23
               |
             1 | SELECT a FROM x WHERE EXISTS (SELECT b FROM y)
               |                       ^^^^^^ a SELECT cannot stand here
               = help: name it as a step, `WITH step AS (SELECT …)`, and use or join the step
        "#]],
    );
}

#[test]
fn joins_and_apply() {
    check(
        &[
            "SELECT a FROM x RIGHT JOIN y ON 1 = 1",
            "SELECT a FROM x FULL OUTER JOIN y ON 1 = 1",
            "SELECT a FROM x CROSS JOIN y",
            "SELECT a FROM x, y",
            "SELECT a FROM x JOIN y WHERE 1 = 1",
            "SELECT a FROM x CROSS APPLY GetArrayLength(a) AS b",
            "SELECT a FROM x CROSS APPLY GetArrayElement(a) AS b",
            "SELECT a FROM x CROSS APPLY GetArrayElements(a)",
            "SELECT a FROM x LEFT y ON 1 = 1",
        ],
        expect![[r#"
            error: RIGHT JOIN is not in the language
              --> q.asaql:1:17
               |
             1 | SELECT a FROM x RIGHT JOIN y ON 1 = 1
               |                 ^^^^^^^^^^ expected `JOIN` or `LEFT JOIN`
               = help: swap the two inputs and write `LEFT JOIN`

            error: FULL JOIN is not in the language
              --> q.asaql:1:17
               |
             1 | SELECT a FROM x FULL OUTER JOIN y ON 1 = 1
               |                 ^^^^^^^^^^ expected `JOIN` or `LEFT JOIN`
               = help: write a `LEFT JOIN` each way and combine them with `UNION`

            error: CROSS JOIN is not in the language
              --> q.asaql:1:17
               |
             1 | SELECT a FROM x CROSS JOIN y
               |                 ^^^^^^^^^^ expected `JOIN` or `LEFT JOIN`
               = help: write `JOIN … ON` with a condition

            error: FROM names one input
              --> q.asaql:1:16
               |
             1 | SELECT a FROM x, y
               |                ^ inputs are not listed with commas
               = help: write `JOIN other ON … AND DATEDIFF(second, a, b) BETWEEN 0 AND 10`, or `UNION`

            error: unexpected `WHERE`
              --> q.asaql:1:24
               |
             1 | SELECT a FROM x JOIN y WHERE 1 = 1
               |                        ^^^^^ expected `ON` and the condition of the join
               = help: two streams are joined within a time: `ON a.id = b.id AND DATEDIFF(second, a, b) BETWEEN 0 AND 10`

            error: APPLY cannot take `GetArrayLength`
              --> q.asaql:1:29
               |
             1 | SELECT a FROM x CROSS APPLY GetArrayLength(a) AS b
               |                             ^^^^^^^^^^^^^^ expected `GetArrayElements` or `GetRecordProperties`
               = help: other functions are called in the SELECT list or in WHERE

            error: APPLY cannot take `GetArrayElement`
              --> q.asaql:1:29
               |
             1 | SELECT a FROM x CROSS APPLY GetArrayElement(a) AS b
               |                             ^^^^^^^^^^^^^^^ expected `GetArrayElements` or `GetRecordProperties`
               = help: did you mean `GetArrayElements`?

            error: the query ends too early
              --> q.asaql:1:48
               |
             1 | SELECT a FROM x CROSS APPLY GetArrayElements(a)
               |                                                ^ expected a name for what APPLY gives
               = help: write `APPLY GetArrayElements(…) AS element`

            error: unexpected `y`
              --> q.asaql:1:22
               |
             1 | SELECT a FROM x LEFT y ON 1 = 1
               |                      ^ expected `JOIN` after `LEFT`
        "#]],
    );
}

#[test]
fn from_and_into() {
    check(
        &[
            "SELECT 1 AS one",
            "SELECT a WHERE b = 1",
            "SELECT a FROM x INTO o",
            "WITH s AS (SELECT a INTO o FROM x) SELECT a FROM s",
            "SELECT a FROM x UNION SELECT a INTO o FROM y",
            "SELECT a FROM my-input",
            "SELECT a INTO plant.rides FROM x",
            "SELECT a FROM x PARTITION BY k INTO 1",
        ],
        expect![[r#"
            error: a SELECT needs FROM
              --> q.asaql:1:16
               |
             1 | SELECT 1 AS one
               |                ^ expected `FROM` and the name of an input or a step
               = help: every row comes from an event: `SELECT 1 AS one FROM input`

            error: a SELECT needs FROM
              --> q.asaql:1:10
               |
             1 | SELECT a WHERE b = 1
               |          ^^^^^ expected `FROM` and the name of an input or a step
               = help: every row comes from an event: `SELECT 1 AS one FROM input`

            error: INTO stands behind FROM
              --> q.asaql:1:17
               |
             1 | SELECT a FROM x INTO o
               |                 ^^^^ expected before `FROM`
               = help: write `SELECT … INTO output FROM input`

            error: INTO cannot stand inside WITH
              --> q.asaql:1:21
               |
             1 | WITH s AS (SELECT a INTO o FROM x) SELECT a FROM s
               |                     ^^^^ a step has no output
               = help: write `INTO` in the SELECT that reads the step

            error: INTO belongs to the first SELECT of a UNION
              --> q.asaql:1:37
               |
             1 | SELECT a FROM x UNION SELECT a INTO o FROM y
               |                                     ^ the whole union goes to one output
               = help: move `INTO o` before the first `FROM`

            error: unexpected `-`
              --> q.asaql:1:17
               |
             1 | SELECT a FROM my-input
               |                 ^ an input has a plain name
               = help: a name with other characters than letters, digits and `_` is written in brackets: `[my-name]`

            error: unexpected `.`
              --> q.asaql:1:20
               |
             1 | SELECT a INTO plant.rides FROM x
               |                    ^ an output has a plain name
               = help: a name with other characters than letters, digits and `_` is written in brackets: `[my-name]`

            error: a number of partitions is a whole number above 1
              --> q.asaql:1:37
               |
             1 | SELECT a FROM x PARTITION BY k INTO 1
               |                                     ^ expected 2 or more
               = help: leave `INTO n` out: it is only a hint
        "#]],
    );
}

#[test]
fn clauses_out_of_order() {
    check(
        &[
            "SELECT a FROM x GROUP BY a WHERE b = 1",
            "SELECT a FROM x WHERE a = 1 JOIN y ON 1 = 1",
            "SELECT a FROM x WHERE a = 1 TIMESTAMP BY t",
            "SELECT a FROM x WHERE a = 1 WHERE b = 1",
        ],
        expect![[r#"
            error: WHERE is misplaced or written twice
              --> q.asaql:1:28
               |
             1 | SELECT a FROM x GROUP BY a WHERE b = 1
               |                            ^^^^^ cannot stand here
               = help: the order is SELECT, INTO, FROM (TIMESTAMP BY, PARTITION BY, JOIN), WHERE, GROUP BY, HAVING, UNION

            error: JOIN is misplaced
              --> q.asaql:1:29
               |
             1 | SELECT a FROM x WHERE a = 1 JOIN y ON 1 = 1
               |                             ^^^^ joins stand behind the first input of FROM
               = help: the order is SELECT, INTO, FROM (TIMESTAMP BY, PARTITION BY, JOIN), WHERE, GROUP BY, HAVING, UNION

            error: TIMESTAMP BY is misplaced or written twice
              --> q.asaql:1:29
               |
             1 | SELECT a FROM x WHERE a = 1 TIMESTAMP BY t
               |                             ^^^^^^^^^ stands right behind the name of its input
               = help: the order is SELECT, INTO, FROM (TIMESTAMP BY, PARTITION BY, JOIN), WHERE, GROUP BY, HAVING, UNION

            error: WHERE is misplaced or written twice
              --> q.asaql:1:29
               |
             1 | SELECT a FROM x WHERE a = 1 WHERE b = 1
               |                             ^^^^^ cannot stand here
               = help: the order is SELECT, INTO, FROM (TIMESTAMP BY, PARTITION BY, JOIN), WHERE, GROUP BY, HAVING, UNION
        "#]],
    );
}

#[test]
fn scripts() {
    check(
        &[
            "",
            "-- nothing",
            "CREATE TABLE x (a bigint)",
            "WITH s AS (SELECT a FROM x)",
            "WITH s AS (SELECT a FROM x) SELECT a FROM s WITH t AS (SELECT a FROM x) SELECT a FROM t",
            "SELECT a FROM x; WITH s AS (SELECT a FROM x) SELECT a FROM s",
            "CREATE VIEW v",
            "WITH s AS SELECT a FROM x",
        ],
        expect![[r#"
            error: the script has no SELECT
              --> q.asaql
               = help: write at least `SELECT * INTO output FROM input`

            error: the script has no SELECT
              --> q.asaql
               = help: write at least `SELECT * INTO output FROM input`

            error: the script has no SELECT
              --> q.asaql
               = help: write at least `SELECT * INTO output FROM input`

            error: the query ends too early
              --> q.asaql:1:28
               |
             1 | WITH s AS (SELECT a FROM x)
               |                            ^ expected `,` and another step, or the `SELECT` that uses the steps

            error: a script has one WITH
              --> q.asaql:1:45
               |
             1 | WITH s AS (SELECT a FROM x) SELECT a FROM s WITH t AS (SELECT a FROM x) SELECT a FROM t
               |                                             ^^^^ a second `WITH`
               = help: write all steps behind the first `WITH`, separated by commas

            error: WITH stands behind a SELECT
              --> q.asaql:1:18
               |
             1 | SELECT a FROM x; WITH s AS (SELECT a FROM x) SELECT a FROM s
               |                  ^^^^ expected before the first `SELECT`
               = help: every SELECT of a script can use the steps of the one WITH at its start

            error: unexpected `VIEW`
              --> q.asaql:1:8
               |
             1 | CREATE VIEW v
               |        ^^^^ expected `TABLE`
               = help: the only thing to create is `CREATE TABLE input (column type, …)`

            error: unexpected `SELECT`
              --> q.asaql:1:11
               |
             1 | WITH s AS SELECT a FROM x
               |           ^^^^^^ expected `(` and the step's `SELECT`
        "#]],
    );
}

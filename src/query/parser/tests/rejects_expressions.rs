//! Expressions and tokens that the grammar does not have: every error, whole.

use expect_test::expect;

use super::{check, errors, parse};

#[test]
fn case_and_cast() {
    check(
        &[
            "SELECT CASE WHEN a > 1 THEN 'x' END AS r FROM x",
            "SELECT CASE a ELSE 1 END AS r FROM x",
            "SELECT CASE WHEN a = 1 THEN 2 FROM x",
            "SELECT CAST(a AS nvarchar(64)) AS s FROM x",
            "SELECT CAST(a AS nvarchar) AS s FROM x",
            "SELECT CAST(a AS int) AS s FROM x",
            "SELECT CAST(a AS bigit) AS s FROM x",
            "SELECT CAST(a, bigint) AS s FROM x",
            "CREATE TABLE x (a string)",
            "CREATE TABLE x (a bigint NOT NULL)",
        ],
        expect![[r#"
            error: CASE needs ELSE
              --> q.asaql:1:33
               |
             1 | SELECT CASE WHEN a > 1 THEN 'x' END AS r FROM x
               |                                 ^^^ expected `ELSE` before `END`
               = help: write `ELSE NULL` where nothing else fits

            error: unexpected `ELSE`
              --> q.asaql:1:15
               |
             1 | SELECT CASE a ELSE 1 END AS r FROM x
               |               ^^^^ expected `WHEN`

            error: unexpected `FROM`
              --> q.asaql:1:31
               |
             1 | SELECT CASE WHEN a = 1 THEN 2 FROM x
               |                               ^^^^ expected `WHEN`, `ELSE` or an operator

            error: only nvarchar(max) exists
              --> q.asaql:1:18
               |
             1 | SELECT CAST(a AS nvarchar(64)) AS s FROM x
               |                  ^^^^^^^^^^^^ expected `nvarchar(max)`
               = help: write `nvarchar(max)`; `LEFT(text, n)` shortens a text

            error: only nvarchar(max) exists
              --> q.asaql:1:18
               |
             1 | SELECT CAST(a AS nvarchar) AS s FROM x
               |                  ^^^^^^^^ expected `nvarchar(max)`
               = help: write `nvarchar(max)`; `LEFT(text, n)` shortens a text

            error: `int` is no type of the language
              --> q.asaql:1:18
               |
             1 | SELECT CAST(a AS int) AS s FROM x
               |                  ^^^ expected a type
               = help: write `bigint`

            error: `bigit` is no type of the language
              --> q.asaql:1:18
               |
             1 | SELECT CAST(a AS bigit) AS s FROM x
               |                  ^^^^^ expected a type
               = help: write `bigint`

            error: unexpected `,`
              --> q.asaql:1:14
               |
             1 | SELECT CAST(a, bigint) AS s FROM x
               |              ^ expected `AS` and a type
               = help: write `CAST(… AS bigint)`

            error: `string` is no type of the language
              --> q.asaql:1:19
               |
             1 | CREATE TABLE x (a string)
               |                   ^^^^^^ expected a type
               = help: write `nvarchar(max)`

            error: unexpected `NOT`
              --> q.asaql:1:26
               |
             1 | CREATE TABLE x (a bigint NOT NULL)
               |                          ^^^ expected `,` and another column, or `)`
        "#]],
    );
}

#[test]
fn expressions() {
    check(
        &[
            "SELECT a, FROM x",
            "SELECT FROM x",
            "SELECT a FROM x WHERE",
            "SELECT a FROM x WHERE a < b < c",
            "SELECT a = b AS c FROM x",
            "SELECT order FROM x",
            "SELECT a AS end FROM x",
            "SELECT a + FROM x",
            "SELECT a FROM x WHERE a IS 1",
            "SELECT a FROM x WHERE a = NOT b",
            "SELECT f(a FROM x",
            "SELECT f(a b) FROM x",
            "SELECT (a + 1 FROM x",
            "SELECT a.* AS b, (a.*) FROM x",
            "SELECT * + 1 FROM x",
            "SELECT LAG(a) OVER (LIMIT 5) FROM x",
            "SELECT LAG(a) OVER (LIMIT DURATION(minute, 1) LIMIT DURATION(minute, 2)) FROM x",
            "SELECT \"[a] b\" FROM x",
        ],
        expect![[r#"
            error: unexpected `FROM`
              --> q.asaql:1:11
               |
             1 | SELECT a, FROM x
               |           ^^^^ expected an expression
               = help: remove the comma before `FROM`

            error: unexpected `FROM`
              --> q.asaql:1:8
               |
             1 | SELECT FROM x
               |        ^^^^ expected an expression

            error: the query ends too early
              --> q.asaql:1:22
               |
             1 | SELECT a FROM x WHERE
               |                      ^ expected an expression

            error: comparisons do not chain
              --> q.asaql:1:29
               |
             1 | SELECT a FROM x WHERE a < b < c
               |                             ^ a second comparison, `<`
               = help: join comparisons with `AND`: `a < b AND b < c`

            error: a column has two names
              --> q.asaql:1:14
               |
             1 | SELECT a = b AS c FROM x
               |              ^^ it is already called `a`
               = help: `name = expression` gives a name; a comparison goes into parentheses: `(a = b) AS same`

            error: unexpected `order`
              --> q.asaql:1:8
               |
             1 | SELECT order FROM x
               |        ^^^^^ expected an expression
               = help: `order` is a reserved word; as a name it is written `[order]`

            error: unexpected `end`
              --> q.asaql:1:13
               |
             1 | SELECT a AS end FROM x
               |             ^^^ expected the name of the column
               = help: `end` is a reserved word; as a name it is written `[end]`

            error: unexpected `FROM`
              --> q.asaql:1:12
               |
             1 | SELECT a + FROM x
               |            ^^^^ expected an expression

            error: unexpected `1`
              --> q.asaql:1:28
               |
             1 | SELECT a FROM x WHERE a IS 1
               |                            ^ expected `NULL` or `NOT NULL`
               = help: `IS` only tests for NULL; values are compared with `=`

            error: NOT cannot stand here
              --> q.asaql:1:27
               |
             1 | SELECT a FROM x WHERE a = NOT b
               |                           ^^^ a condition where a value is expected
               = help: put the condition in parentheses: `(NOT …)`

            error: unexpected `FROM`
              --> q.asaql:1:12
               |
             1 | SELECT f(a FROM x
               |            ^^^^ expected `,` and another argument, or `)`

            error: unexpected `b`
              --> q.asaql:1:12
               |
             1 | SELECT f(a b) FROM x
               |            ^ expected `,` and another argument, or `)`

            error: unexpected `FROM`
              --> q.asaql:1:15
               |
             1 | SELECT (a + 1 FROM x
               |               ^^^^ expected `)`

            error: unexpected `AS`
              --> q.asaql:1:12
               |
             1 | SELECT a.* AS b, (a.*) FROM x
               |            ^^ expected `,`, `AS`, `INTO` or `FROM`

            error: unexpected `+`
              --> q.asaql:1:10
               |
             1 | SELECT * + 1 FROM x
               |          ^ expected `,`, `AS`, `INTO` or `FROM`

            error: unexpected `5`
              --> q.asaql:1:27
               |
             1 | SELECT LAG(a) OVER (LIMIT 5) FROM x
               |                           ^ expected `DURATION(unit, n)` after `LIMIT`
               = help: write `LIMIT DURATION(second, 60)`

            error: `LIMIT` is written twice
              --> q.asaql:1:47
               |
             1 | SELECT LAG(a) OVER (LIMIT DURATION(minute, 1) LIMIT DURATION(minute, 2)) FROM x
               |                                               ^^^^^ a second one in the same `OVER`

            error: a path in double quotes has names in brackets only
              --> q.asaql:1:8
               |
             1 | SELECT "[a] b" FROM x
               |        ^^^^^^^ expected `"[a][b]"`
               = help: a text stands in single quotes: `'[a]'`
        "#]],
    );
}

#[test]
fn misspelt_keywords() {
    check(
        &[
            "SELCT a FROM x",
            "SELECT a FORM x",
            "SELECT a FROM x WEHRE a = 1",
            "SELECT a FROM x TIMESTMP BY t",
            "SELECT a FROM x WHERE a = 1 GRUOP BY a",
            "SELECT CASE WHEN a = 1 THN 2 ELSE 3 END FROM x",
            "SELECT LAG(a) OVER (LIMT DURATION(minute, 1)) FROM x",
        ],
        expect![[r#"
            error: unexpected `SELCT`
              --> q.asaql:1:1
               |
             1 | SELCT a FROM x
               | ^^^^^ did you mean `SELECT`?

            error: unexpected `FORM`
              --> q.asaql:1:10
               |
             1 | SELECT a FORM x
               |          ^^^^ did you mean `FROM`?

            error: unexpected `WEHRE`
              --> q.asaql:1:17
               |
             1 | SELECT a FROM x WEHRE a = 1
               |                 ^^^^^ did you mean `WHERE`?

            error: unexpected `TIMESTMP`
              --> q.asaql:1:17
               |
             1 | SELECT a FROM x TIMESTMP BY t
               |                 ^^^^^^^^ did you mean `TIMESTAMP`?

            error: unexpected `GRUOP`
              --> q.asaql:1:29
               |
             1 | SELECT a FROM x WHERE a = 1 GRUOP BY a
               |                             ^^^^^ did you mean `GROUP`?

            error: unexpected `THN`
              --> q.asaql:1:24
               |
             1 | SELECT CASE WHEN a = 1 THN 2 ELSE 3 END FROM x
               |                        ^^^ did you mean `THEN`?

            error: unexpected `LIMT`
              --> q.asaql:1:21
               |
             1 | SELECT LAG(a) OVER (LIMT DURATION(minute, 1)) FROM x
               |                     ^^^^ did you mean `LIMIT`?
        "#]],
    );
}

#[test]
fn tokens() {
    check(
        &[
            "SELECT 'a FROM x",
            "SELECT [a FROM x",
            "SELECT a /* b FROM x",
            "SELECT \"a FROM x",
            "SELECT [] FROM x",
            "SELECT 10s FROM x",
            "SELECT a FROM x WHERE a == 1",
            "SELECT a FROM x WHERE a = 1 && b = 2",
            "SELECT a || b FROM x",
            "SELECT `a` FROM x",
            "SELECT a FROM x WHERE a = @b",
            "SELECT 9223372036854775808 FROM x",
            "SELECT 1e999 FROM x",
        ],
        expect![[r#"
            error: a text is not closed
              --> q.asaql:1:8
               |
             1 | SELECT 'a FROM x
               |        ^ opened here
               = help: close it with `'`; a quote inside a text is doubled: `'it''s'`

            error: a name in brackets is not closed
              --> q.asaql:1:8
               |
             1 | SELECT [a FROM x
               |        ^ opened here
               = help: close it with `]`; a `]` inside a name is doubled

            error: a comment is not closed
              --> q.asaql:1:10
               |
             1 | SELECT a /* b FROM x
               |          ^^ opened here
               = help: close it with `*/`; comments nest

            error: a double quote is not closed
              --> q.asaql:1:8
               |
             1 | SELECT "a FROM x
               |        ^ opened here
               = help: close it with `"`

            error: a name is empty
              --> q.asaql:1:8
               |
             1 | SELECT [] FROM x
               |        ^^ expected a name between the quotes
               = help: an empty text is written `''`

            error: `10s` is no number
              --> q.asaql:1:8
               |
             1 | SELECT 10s FROM x
               |        ^^^ digits run into letters
               = help: write numbers like `12`, `1.5` or `1e3`; units are arguments of their own: `TumblingWindow(second, 10)`

            error: `==` is no operator
              --> q.asaql:1:25
               |
             1 | SELECT a FROM x WHERE a == 1
               |                         ^^ expected `=`
               = help: equality is written `=`

            error: `&&` is no operator
              --> q.asaql:1:29
               |
             1 | SELECT a FROM x WHERE a = 1 && b = 2
               |                             ^^ expected `AND`
               = help: write `AND`; `&` works on bits

            error: `||` is no operator
              --> q.asaql:1:10
               |
             1 | SELECT a || b FROM x
               |          ^^ expected `OR`
               = help: write `OR`; texts are joined with `+` or CONCAT

            error: unexpected ```
              --> q.asaql:1:8
               |
             1 | SELECT `a` FROM x
               |        ^ no part of the language
               = help: names are quoted with brackets: `[name]`

            error: unexpected `@`
              --> q.asaql:1:27
               |
             1 | SELECT a FROM x WHERE a = @b
               |                           ^ no part of the language
               = help: the language has no variables; write the value itself

            error: `9223372036854775808` does not fit a bigint
              --> q.asaql:1:8
               |
             1 | SELECT 9223372036854775808 FROM x
               |        ^^^^^^^^^^^^^^^^^^^ at most 9223372036854775807
               = help: write it as a float: with a point

            error: `1e999` does not fit a float
              --> q.asaql:1:8
               |
             1 | SELECT 1e999 FROM x
               |        ^^^^^ at most about 1.8e308
        "#]],
    );
}

#[test]
fn the_first_error_of_each_statement_is_reported() {
    let text = "SELECT a FRM x;\nSELECT COUNT(* FROM x\nSELECT b FROM x WHERE (b = 1\n  AND c = 2;\nWITH s AS (SELECT \
        a FROM (SELECT 1)),\n t AS (SELECT a FROM)\nSELECT a, a b c FROM s\nUNION SELECT a FROM\n";
    expect![[r#"
        error: unexpected `FRM`
          --> q.asaql:1:10
           |
         1 | SELECT a FRM x;
           |          ^^^ did you mean `FROM`?

        error: unexpected `FROM`
          --> q.asaql:2:16
           |
         2 | SELECT COUNT(* FROM x
           |                ^^^^ expected `,` and another argument, or `)`

        error: unexpected `;`
          --> q.asaql:4:12
           |
         4 |   AND c = 2;
           |            ^ expected `)`

        error: subqueries are not in the language
          --> q.asaql:5:26
           |
         5 | WITH s AS (SELECT a FROM (SELECT 1)),
           |                          ^ a SELECT cannot stand here
           = help: name it as a step, `WITH step AS (SELECT …)`, and use or join the step

        error: unexpected `c`
          --> q.asaql:7:15
           |
         7 | SELECT a, a b c FROM s
           |               ^ expected `,`, `AS`, `INTO` or `FROM`

        5 errors
    "#]]
    .assert_eq(&errors(text));
}

#[test]
fn good_statements_between_bad_ones_are_still_errors_of_the_bad_ones_only() {
    let errors = parse("SELECT a FROM x\nSELEC b FROM x\nSELECT c FROM x", "q").expect_err("the second is misspelt");
    assert_eq!(errors.items.len(), 1);
    assert_eq!(errors.items[0].label, "did you mean `SELECT`?");
}

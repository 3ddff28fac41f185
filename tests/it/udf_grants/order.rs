//! Where a query may call a function that keeps state: where its rows have an order. Only the compiler runs.

use expect_test::expect;
use forebay::query::catalog::{Catalog, FunctionDef, FunctionKind, InputDef, InputKind, Param, Shape, Signature};

fn compile(query: &str) -> String {
    let whole = || Shape::Integer { min: i64::MIN, max: i64::MAX };
    let signature = Signature {
        params: vec![Param { name: "x".to_owned(), shape: whole() }],
        rest: None,
        result: whole(),
        text: String::new(),
    };
    let input = |name: &str| InputDef { name: name.to_owned(), kind: InputKind::Stream };
    let catalog = Catalog {
        inputs: vec![input("a"), input("b")],
        outputs: None,
        functions: vec![
            FunctionDef {
                name: "tally".to_owned(),
                kind: FunctionKind::Local { index: 0, signature, keeps_state: true },
            },
            FunctionDef { name: "score".to_owned(), kind: FunctionKind::External },
        ],
    };
    match forebay::query::compile(query, "q.asaql", &catalog) {
        Ok(plan) => format!(
            "{} part(s), stateful: {:?}",
            plan.statements[0].parts.len(),
            plan.statements[0].parts.iter().map(|p| p.is_stateful()).collect::<Vec<_>>()
        ),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn a_function_that_keeps_state_is_called_where_rows_have_an_order() {
    for (query, wanted) in [
        ("SELECT udf.tally(v) AS n FROM a", "1 part(s), stateful: [true]"),
        (
            "WITH s AS (SELECT v, udf.tally(v) AS n FROM a) SELECT n, v FROM s WHERE n > 1",
            "1 part(s), stateful: [true]",
        ),
        ("SELECT udf.score(udf.tally(v)) AS n FROM a", "1 part(s), stateful: [true]"),
        ("WITH s AS (SELECT udf.score(v) AS p FROM a) SELECT udf.tally(p) AS n FROM s", "1 part(s), stateful: [true]"),
    ] {
        assert_eq!(compile(query), wanted, "{query}");
    }
    expect![[r#"
        error: a function that keeps state is called in two places of one statement
          --> q.asaql:1:39
           |
         1 | SELECT udf.tally(v) AS n FROM a WHERE udf.tally(v) > 1
           |                                       ^^^^^^^^^^^^ which call comes first is not defined
           = help: call it once, in a step that is read once: `WITH s AS (SELECT …, udf.f(x) AS y FROM …) SELECT … FROM s`
    "#]]
    .assert_eq(&compile("SELECT udf.tally(v) AS n FROM a WHERE udf.tally(v) > 1"));
    expect![[r#"
        error: a function that keeps state is called in two places of one statement
          --> q.asaql:1:22
           |
         1 | WITH s AS (SELECT k, udf.tally(v) AS n FROM a) SELECT x.n AS p, y.n AS q FROM s x JOIN s y ON x.k = y.k AND DATEDIFF(second, x, y) BETWEEN 0 AND 1
           |                      ^^^^^^^^^^^^ which call comes first is not defined
           = help: call it once, in a step that is read once: `WITH s AS (SELECT …, udf.f(x) AS y FROM …) SELECT … FROM s`
    "#]].assert_eq(&compile("WITH s AS (SELECT k, udf.tally(v) AS n FROM a) SELECT x.n AS p, y.n AS q FROM s x JOIN s \
        y ON x.k = y.k AND DATEDIFF(second, x, y) BETWEEN 0 AND 1"));
    expect![[r#"
        error: a function that keeps state would be called more than once for this
          --> q.asaql:1:13
           |
         1 | SELECT CASE udf.tally(v) WHEN 1 THEN 'a' WHEN 2 THEN 'b' ELSE 'c' END AS n FROM a
           |             ^^^^^^^^^^^^ its value is needed several times a row
           = help: call it once, in a step that is read once: `WITH s AS (SELECT …, udf.f(x) AS y FROM …) SELECT … FROM s`
    "#]]
    .assert_eq(&compile("SELECT CASE udf.tally(v) WHEN 1 THEN 'a' WHEN 2 THEN 'b' ELSE 'c' END AS n FROM a"));
    expect![[r#"
        error: a function that keeps state in a query with TIMESTAMP BY … OVER
          --> q.asaql:1:8
           |
         1 | SELECT udf.tally(v) AS n FROM a TIMESTAMP BY t OVER k
           |        ^^^^^^^^^^^^ rows of different substreams have no order among each other
           = help: leave OVER out, or leave the grant `state` out
    "#]]
    .assert_eq(&compile("SELECT udf.tally(v) AS n FROM a TIMESTAMP BY t OVER k"));
    expect![[r#"
        error: `udf.tally` keeps state and cannot stand in a JOIN condition
          --> q.asaql:1:33
           |
         1 | SELECT x.v FROM a x JOIN b y ON udf.tally(x.k) = y.k AND DATEDIFF(second, x, y) BETWEEN 0 AND 1
           |                                 ^^^^^^^^^^^^^^ it is not called once a row here
           = help: call it in a step, `WITH s AS (SELECT …, udf.tally(x) AS y FROM …)`, and use the column there
    "#]]
    .assert_eq(&compile(
        "SELECT x.v FROM a x JOIN b y ON udf.tally(x.k) = y.k AND DATEDIFF(second, x, y) BETWEEN 0 AND 1",
    ));
    expect![[r#"
        error: `udf.tally` keeps state and cannot stand in an analytic function
          --> q.asaql:1:12
           |
         1 | SELECT LAG(udf.tally(v)) OVER (LIMIT DURATION(second, 5)) AS n FROM a
           |            ^^^^^^^^^^^^ it is not called once a row here
           = help: call it in a step, `WITH s AS (SELECT …, udf.tally(x) AS y FROM …)`, and use the column there
    "#]]
    .assert_eq(&compile("SELECT LAG(udf.tally(v)) OVER (LIMIT DURATION(second, 5)) AS n FROM a"));
    expect![[r#"
        error: `udf.tally` keeps state and cannot stand in TIMESTAMP BY
          --> q.asaql:1:46
           |
         1 | SELECT v FROM a TIMESTAMP BY DATEADD(second, udf.tally(v), t)
           |                                              ^^^^^^^^^^^^ it is not called once a row here
           = help: call it in a step, `WITH s AS (SELECT …, udf.tally(x) AS y FROM …)`, and use the column there
    "#]]
    .assert_eq(&compile("SELECT v FROM a TIMESTAMP BY DATEADD(second, udf.tally(v), t)"));
}

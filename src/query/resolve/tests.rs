//! Shapes of plans, as `explain` tells them.

mod clauses;
mod guards;

use expect_test::{Expect, expect};

use super::resolve;
use crate::query::catalog::{Catalog, FunctionDef, FunctionKind, InputDef, InputKind, Param, Shape, Signature};
use crate::query::plan::{External, Plan, explain};
use crate::query::{compile, parser};

fn catalog() -> Catalog {
    let input = |name: &str, kind| InputDef { name: name.into(), kind };
    let params =
        ["vendorid", "weekday", "distance"].map(|name| Param { name: name.into(), shape: Shape::Text }).to_vec();
    let result = Shape::List(Box::new(Shape::Text));
    let signature = Signature { params, rest: None, result, text: "create-array: func(…) -> list<string>".into() };
    let local = FunctionDef {
        name: "create_array".into(),
        kind: FunctionKind::Local { index: 0, signature, keeps_state: false },
    };
    let external = |name: &str| FunctionDef { name: name.into(), kind: FunctionKind::External };
    let mut inputs: Vec<InputDef> = ["rides", "x", "y", "z"].map(|name| input(name, InputKind::Stream)).to_vec();
    inputs.push(input("sites", InputKind::Reference));
    Catalog { inputs, outputs: None, functions: vec![local, external("score"), external("rate")] }
}

fn plan(query: &str) -> Plan {
    compile(query, "q.asaql", &catalog()).unwrap_or_else(|problems| panic!("{problems}"))
}

fn check(query: &str, expected: &Expect) {
    expected.assert_eq(&explain(&plan(query)));
}

#[test]
fn the_background_articles_array_form() {
    check(
        "SELECT udf.score(udf.createArray(vendorid, weekday, distance)) INTO output FROM rides",
        &expect![[r#"
        into output
          read rides: vendorid, weekday, distance
          call score(udf.createArray(vendorid, weekday, distance))
          gives score = score()
    "#]],
    );
}

#[test]
fn the_background_articles_dataframe_form() {
    check(
        "WITH Dataframe AS (SELECT vendorid, weekday, distance FROM rides) SELECT udf.score(Dataframe) INTO output \
        FROM rides",
        &expect![[r#"
            into output
              read rides: vendorid, weekday, distance
              call score({vendorid: vendorid, weekday: weekday, distance: distance})
              gives score = score()
        "#]],
    );
}

#[test]
fn a_dataframe_step_can_also_be_read() {
    check(
        "WITH Dataframe AS (SELECT vendorid, weekday FROM rides WHERE distance > 0) SELECT udf.score(Dataframe) AS s \
        INTO output FROM Dataframe",
        &expect![[r#"
            into output
              read rides: distance, vendorid, weekday
              where (distance > 0)
              call score({vendorid: vendorid, weekday: weekday})
              gives s = score()
        "#]],
    );
}

#[test]
fn only_rows_that_pass_where_are_scored_and_equal_calls_are_one() {
    check(
        "SELECT udf.score(a) AS s, 2 * udf.SCORE(a) AS twice INTO out FROM x WHERE b > 1 AND udf.score(a) > 5 AND c < \
        3",
        &expect![[r#"
        into out
          read x: b, a, c
          where ((b > 1) AND (c < 3))
          call score(a)
          where (score() > 5)
          gives s = score(), twice = (2 * score())
    "#]],
    );
}

#[test]
fn nested_calls_follow_each_other() {
    check(
        "SELECT id, udf.rate(udf.score(a)) AS r INTO out FROM x",
        &expect![[r#"
        into out
          part 1
            read x: id, a
            call score(a)
            gives id, score = score()
          part 2
            call rate(score)
            gives id, r = rate()
    "#]],
    );
}

#[test]
fn a_filter_on_the_answer_stands_between_two_calls() {
    check(
        "SELECT udf.rate(b) AS r INTO out FROM x WHERE udf.score(a) > 1",
        &expect![[r#"
        into out
          part 1
            read x: a, b
            call score(a)
            where (score() > 1)
            gives b
          part 2
            call rate(b)
            gives r = rate()
    "#]],
    );
}

#[test]
fn a_call_in_a_step_is_cut_before_the_window_above() {
    check(
        "WITH s AS (SELECT *, udf.score(a) AS sc FROM x TIMESTAMP BY at) SELECT b, COUNT(*) AS n, AVG(sc) AS m INTO \
        out FROM s WHERE sc > 3 GROUP BY b, TumblingWindow(second, 10) HAVING n > 2",
        &expect![[r#"
            into out
              part 1, keeps state
                read x: at, a, b timestamp by at
                gives a, b
              part 2
                call score(a)
                where (score() > 3)
                gives sc = score(), b
              part 3, keeps state
                group by b in tumbling 10 s: COUNT(*), AVG(sc)
                where (COUNT(*) > 2)
                gives b, n = COUNT(*), m = AVG(sc)
        "#]],
    );
}

#[test]
fn a_call_on_an_aggregate_is_cut_behind_the_window() {
    check(
        "SELECT k, udf.score(AVG(v)) AS s INTO out FROM x TIMESTAMP BY at GROUP BY k, HoppingWindow(minute, 3, 1) \
        HAVING COUNT(*) > 3 AND udf.score(AVG(v)) > 1",
        &expect![[r#"
            into out
              part 1, keeps state
                read x: at, k, v timestamp by at
                group by k in hopping 3 min every 1 min: AVG(v), COUNT(*)
                where (COUNT(*) > 3)
                gives k, AVG = AVG(v)
              part 2
                call score(AVG)
                where (score() > 1)
                gives k, s = score()
        "#]],
    );
}

#[test]
fn a_call_may_be_a_grouping_key_or_inside_an_aggregate() {
    check(
        "SELECT udf.score(a) AS s, MAX(udf.rate(b)) AS r INTO out FROM x GROUP BY udf.score(A), SlidingWindow(second, \
        5)",
        &expect![[r#"
        into out
          part 1
            read x: A, b
            call score(A)
            gives score = score(), b
          part 2
            call rate(b)
            gives score, rate = rate()
          part 3, keeps state
            group by score in sliding 5 s: MAX(rate)
            gives s = score, r = MAX(rate)
    "#]],
    );
}

#[test]
fn a_call_that_nobody_reads_is_not_made() {
    check(
        "WITH s AS (SELECT k, udf.score(a) AS sc FROM x) SELECT k INTO out FROM s",
        &expect![[r#"
        into out
          read x: k
          gives k
    "#]],
    );
}

#[test]
fn equal_text_gives_equal_fingerprints_and_used_steps_count() {
    let fingerprint = |query: &str| plan(query).statements.iter().map(|s| s.fingerprint.clone()).collect::<Vec<_>>();
    let base = "WITH a AS (SELECT k FROM x), b AS (SELECT v FROM y) SELECT k INTO o FROM a";
    let spaced =
        "WITH a AS (SELECT k -- the key\n FROM x), b AS (SELECT v FROM y)\nSELECT  k INTO o /* here */ FROM a;";
    assert_eq!(fingerprint(base), ["a AS SELECT k FROM x\nSELECT k INTO o FROM a"]);
    assert_eq!(fingerprint(base), fingerprint(spaced));
    assert_eq!(fingerprint(base), fingerprint(&base.replace("SELECT v FROM y", "SELECT w FROM y")));
    assert_ne!(fingerprint(base), fingerprint(&base.replace("SELECT k FROM x", "SELECT k FROM z")));
}

#[test]
fn operators_of_a_part_are_numbered_from_zero() {
    let query = "WITH s AS (SELECT udf.score(a) AS sc FROM x TIMESTAMP BY at) SELECT MAX(sc) AS m INTO o FROM s GROUP \
        BY TumblingWindow(second, 1)";
    let plan = plan(query);
    let ids: Vec<Vec<u32>> = plan.statements.iter().flat_map(|s| &s.parts).map(|part| ids(&part.root)).collect();
    assert_eq!(ids, [vec![0], vec![], vec![0]]);
}

/// The ids of a tree, in ascending order.
fn ids(node: &crate::query::plan::Node) -> Vec<u32> {
    use crate::query::plan::Node;
    let id = |node: &Node| match node {
        Node::Scan(scan) => Some(scan.id),
        Node::Aggregate { id, .. }
        | Node::Analytic { id, .. }
        | Node::Match { id, .. }
        | Node::Join { id, .. }
        | Node::Union { id, .. } => Some(*id),
        _ => None,
    };
    let mut ids: Vec<u32> = node.nodes().filter_map(id).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn every_slot_fits_and_parts_meet() {
    for query in QUERIES {
        for part in plan(query).statements.iter().flat_map(|s| &s.parts) {
            assert_eq!(crate::query::plan::fit::misfit(part), None, "{query}");
            let is_stateful = |e: &External| e.tail.is_stateful() || part.root.is_stateful();
            assert!(!part.external.as_ref().is_some_and(is_stateful), "{query}");
        }
    }
}

#[test]
fn chains_of_steps_end_in_an_error_and_not_in_a_crash() {
    let deep = |n: usize, body: &str| {
        let mut text = "WITH s0 AS (SELECT a, b FROM x)".to_owned();
        (1..n).for_each(|i| text.push_str(&format!(", s{i} AS ({})", body.replace('@', &format!("s{}", i - 1)))));
        format!("{text} SELECT a INTO o FROM s{}", n - 1)
    };
    assert!(compile(&deep(30, "SELECT a + 1 AS a, b FROM @ WHERE a > b"), "q", &catalog()).is_ok());
    for text in [
        deep(200, "SELECT a, b FROM @"),
        deep(30, "SELECT l.a, r.b FROM @ l JOIN @ r ON l.a = r.a AND DATEDIFF(second, l, r) BETWEEN 0 AND 1"),
        deep(30, "SELECT a, b FROM @ UNION SELECT b, a FROM @"),
    ] {
        let problems = compile(&text, "q", &catalog()).unwrap_err().to_string();
        assert!(problems.contains("multiply beyond reason"), "{problems}");
    }
}

#[test]
fn large_expressions_end_in_an_error_and_not_in_a_crash() {
    let mut nested = "a".to_owned();
    (0..30).for_each(|_| nested = format!("CASE {nested} WHEN 1 THEN 2 WHEN 3 THEN 4 ELSE 5 END"));
    let calls: Vec<String> = (0..40).map(|i| format!("udf.score(f{i}) AS c{i}")).collect();
    for (item, wanted) in
        [(nested, "the operand of this CASE is too large"), (calls.join(", "), "too many external calls")]
    {
        let problems =
            compile(&format!("SELECT {item} AS r INTO o FROM x").replace("c39 AS r", "c39"), "q", &catalog())
                .unwrap_err()
                .to_string();
        assert!(problems.contains(wanted), "{problems}");
    }
}

#[test]
fn a_script_without_a_statement_is_an_error() {
    let script = crate::query::ast::Script::default();
    assert!(resolve(&script, "", "q", &catalog()).unwrap_err().to_string().contains("no SELECT statement"));
    assert!(parser::parse("", "q").is_err());
}

proptest::proptest! {
    /// Whatever is put where, the binder answers.
    #[test]
    fn no_input_crashes_the_binder(
        words in proptest::collection::vec(proptest::sample::select(WORDS.to_vec()), 0..24),
    ) {
        let _ = compile(&words.join(" "), "q", &catalog());
        let _ = compile(&format!("SELECT {} FROM x", words.join(" ")), "q", &catalog());
        let _ = compile(&format!("SELECT k FROM x GROUP BY {}", words.join(" ")), "q", &catalog());
        let _ = compile(&format!("SELECT x.k FROM x JOIN y ON {}", words.join(" ")), "q", &catalog());
    }
}

const WORDS: [&str; 40] = [
    "SELECT",
    "FROM",
    "x",
    "y",
    "sites",
    "WHERE",
    "GROUP BY",
    "HAVING",
    "JOIN",
    "ON",
    "AND",
    "=",
    ",",
    "(",
    ")",
    "*",
    ".",
    "k",
    "1",
    "-3",
    "'t'",
    "COUNT(*)",
    "udf.score(k)",
    "udf.createArray(k, 1, 'a')",
    "LAG(k) OVER (LIMIT DURATION(second, 5))",
    "TumblingWindow(second, 5)",
    "System.Timestamp()",
    "DATEDIFF(second, x, y)",
    "BETWEEN 0 AND 5",
    "CASE WHEN k = 1 THEN 2 ELSE 3 END",
    "AS",
    "INTO",
    "o",
    "UNION",
    "WITH s AS (SELECT k FROM x)",
    "s",
    "x.*",
    "CROSS APPLY GetArrayElements(k) AS e",
    "TIMESTAMP BY at",
    "NULL",
];

/// The queries above.
const QUERIES: [&str; 27] = [
    "SELECT udf.score(udf.createArray(vendorid, weekday, distance)) INTO output FROM rides",
    "WITH Dataframe AS (SELECT vendorid, weekday, distance FROM rides) SELECT udf.score(Dataframe) INTO output FROM \
    rides",
    "WITH Dataframe AS (SELECT vendorid, weekday FROM rides WHERE distance > 0) SELECT udf.score(Dataframe) AS s INTO \
    output FROM Dataframe",
    "SELECT udf.score(a) AS s, 2 * udf.SCORE(a) AS twice INTO out FROM x WHERE b > 1 AND udf.score(a) > 5 AND c < 3",
    "SELECT id, udf.rate(udf.score(a)) AS r INTO out FROM x",
    "SELECT udf.rate(b) AS r INTO out FROM x WHERE udf.score(a) > 1",
    "WITH s AS (SELECT *, udf.score(a) AS sc FROM x TIMESTAMP BY at) SELECT b, COUNT(*) AS n, AVG(sc) AS m INTO out \
    FROM s WHERE sc > 3 GROUP BY b, TumblingWindow(second, 10) HAVING n > 2",
    "SELECT k, udf.score(AVG(v)) AS s INTO out FROM x TIMESTAMP BY at GROUP BY k, HoppingWindow(minute, 3, 1) HAVING \
    COUNT(*) > 3 AND udf.score(AVG(v)) > 1",
    "SELECT udf.score(a) AS s, MAX(udf.rate(b)) AS r INTO out FROM x GROUP BY udf.score(A), SlidingWindow(second, 5)",
    "WITH s AS (SELECT k, udf.score(a) AS sc FROM x) SELECT k INTO out FROM s",
    "WITH s AS (SELECT * FROM rides WHERE a > 1), t AS (SELECT *, a + 1 AS up FROM s) SELECT b, c.d, up INTO out FROM \
    t",
    "SELECT *, LEN(name) INTO out FROM x",
    "SELECT * INTO out FROM x OUTER APPLY GetRecordProperties(x.tags) AS p",
    "WITH s AS (SELECT a AS one, b.c AS two FROM x) SELECT s.*, one + 1 AS next INTO out FROM s",
    "SELECT x, COUNT(x) OVER (LIMIT DURATION(second, 5)) AS n INTO out FROM x",
    "SELECT id INTO out FROM x WHERE DATEDIFF(minute, EventEnqueuedUtcTime, GETUTCDATE()) BETWEEN 0 AND 5",
    "SELECT GetMetadataPropertyValue(g, '[User].[site]') AS site, GetMetadataPropertyValue(g, 'EventId') AS id INTO \
    out FROM x AS g",
    "SELECT System.Window().Id AS id, COUNT(*) AS n, MIN(CAST(v AS nvarchar(max))) AS lo INTO out FROM x GROUP BY k, \
    Windows(Window('a', Tumbling(minute, 90)), Window('b', HoppingWindow(Duration(hour, 1), Hop(minute, 5), Offset(ms, \
    -1))), Window('c', Sliding(s, 5)), Window('d', Session(Timeout(s, 5), MaxDuration(mi, 1)) OVER (PARTITION BY k)), \
    Window('e', System.Timestamp()))",
    "SELECT UPPER(Zone) AS z, m.a.b AS deep, SUM(v) + sum(V) AS twice INTO out FROM x GROUP BY upper(zone), M.a, \
    TumblingWindow(second, 10)",
    "SELECT n, LAG(n, 2, 0) OVER (PARTITION BY k LIMIT DURATION(minute, 1) WHEN n > 2) AS p INTO out FROM x TIMESTAMP \
    BY at OVER k WHERE ISFIRST(second, 5) = 1",
    "SELECT a.id, LAST(b.v) OVER (LIMIT DURATION(hour, 1)) AS v INTO out FROM x a JOIN y b ON a.id = b.id AND \
    DATEDIFF(second, b, a) BETWEEN -5 AND 0",
    "SELECT a.id INTO out FROM x a LEFT JOIN y b ON 0 <= DATEDIFF(minute, a, b) AND DATEDIFF(minute, a, b) < 10 AND \
    a.id = b.id AND b.v > a.v",
    "SELECT s.run INTO out FROM x s JOIN y p ON s.run = p.run AND DATEDIFF(second, s, p) BETWEEN 0 AND 60 JOIN z f ON \
    f.run = s.run AND DATEDIFF(second, s, f) BETWEEN 0 AND 60 AND DATEDIFF(second, f, p) BETWEEN 0 AND 60",
    "SELECT t.dev, r.site INTO out FROM x t LEFT JOIN sites r ON t.dev = r.dev AND t.v >= r.lo",
    "WITH u AS (SELECT k, v FROM x UNION SELECT k, w FROM y TIMESTAMP BY at) SELECT v INTO out FROM u",
    "CREATE TABLE x (id bigint, name nvarchar(max)); SELECT * INTO out FROM x WHERE Id > 1",
    "WITH s AS (SELECT k, COUNT(*) AS n, MAX(v) AS m FROM x GROUP BY k, TumblingWindow(second, 1)) SELECT n INTO out \
    FROM s",
];

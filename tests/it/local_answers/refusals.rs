//! What `check` refuses of fallbacks, and what it warns of.

use expect_test::{Expect, expect};

use super::local;
use crate::harness::cli;
use crate::support::write_job;

/// A job whose endpoint has these keys, beside other functions.
fn job(dir: &std::path::Path, keys: &str, more: &str, query: &str) {
    std::fs::write(dir.join("local.wasm"), local(false)).unwrap();
    let two = "(component (core module $m (func (export \"two\") (param i64 i64) (result i64) (local.get 0)))
        (core instance $i (instantiate $m))
        (func (export \"two\") (param \"x\" s64) (param \"y\" s64) (result s64) (canon lift (core func $i \"two\"))))";
    std::fs::write(dir.join("two.wasm"), wat::parse_str(two).unwrap()).unwrap();
    let text = format!(
        "[job]\nname = \"test\"\nquery = \"job.asaql\"\nlate_tolerance = \"forever\"\n\
         [inputs.t]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:1\"\ntopics = [\"t\"]\n\
         [functions.local]\ntype = \"wasm\"\ncomponent = \"local.wasm\"\n\
         [functions.two]\ntype = \"wasm\"\ncomponent = \"two.wasm\"\n\
         [functions.score]\ntype = \"azureml\"\nurl = \"http://127.0.0.1:1/score\"\n{keys}\n\
         [functions.other]\ntype = \"azureml\"\nurl = \"http://127.0.0.1:1/other\"\n\
         [outputs.out]\ntype = \"file\"\npath = \"out.jsonl\"\n{more}"
    );
    write_job(dir, &text, query);
}

/// What `check` says of it.
fn said(keys: &str, more: &str, query: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    job(dir.path(), keys, more, query);
    let (code, out, err) = cli(dir.path(), &["check", "job.toml", "--offline"]);
    match code {
        0 => format!("{out}{err}"),
        _ => {
            assert_eq!(code, 2, "{out}{err}");
            err
        }
    }
}

const QUERY: &str = "SELECT n, udf.score(n) AS s INTO out FROM t";

#[test]
fn a_fallback_has_to_be_able_to_answer_the_call() {
    let table: [(&str, &str, Expect); 7] = [
        (
            "fallback = \"local\"",
            QUERY,
            expect![[r#"
            error: `local` is no function
               --> job.toml:18:12
                |
             18 | fallback = "local"
                |            ^^^^^^^ expected the name as queries write it
                = help: write `fallback = "udf.local"`
        "#]],
        ),
        (
            "fallback = \"udf.locl\"",
            QUERY,
            expect![[r#"
            error: the job has no function `udf.locl`
               --> job.toml:18:12
                |
             18 | fallback = "udf.locl"
                |            ^^^^^^^^^^ not found
                = help: did you mean "udf.local"?
        "#]],
        ),
        (
            "fallback = \"udf.other\"",
            QUERY,
            expect![[r#"
            error: `udf.other` calls an endpoint itself
               --> job.toml:18:12
                |
             18 | fallback = "udf.other"
                |            ^^^^^^^^^^^ it may be away as well
                = help: name a function of `type = "wasm"` that takes the same argument
        "#]],
        ),
        (
            "fallback = \"udf.two\"",
            QUERY,
            expect![[r#"
            error: `udf.two` takes 2 arguments, and a call of `udf.score` gives one
               --> job.toml:18:12
                |
             18 | fallback = "udf.two"
                |            ^^^^^^^^^ it cannot be called in its place
                = help: it is `two: func(x: s64, y: s64) -> s64`; name one that takes what the query gives to `udf.score`
        "#]],
        ),
        (
            "fallback_after = \"1s\"",
            QUERY,
            expect![[r#"
            error: `fallback_after` has no use without `fallback`
               --> job.toml:18:18
                |
             18 | fallback_after = "1s"
                |                  ^^^^ nobody answers in place of the endpoint
                = help: add `fallback = "udf.NAME"`, a function of this job that answers while the endpoint is away, or leave it out
        "#]],
        ),
        (
            "rescore = true",
            QUERY,
            expect![[r#"
            error: `rescore` has no use without `fallback`
               --> job.toml:18:11
                |
             18 | rescore = true
                |           ^^^^ nobody answers in place of the endpoint
                = help: add `fallback = "udf.NAME"`, a function of this job that answers while the endpoint is away, or leave it out
        "#]],
        ),
        (
            "fallback = \"udf.local\"",
            "SELECT n, udf.score(System.Timestamp()) AS s INTO out FROM t",
            expect![[r#"
            error: `x` of `udf.score` cannot take this argument
              --> job.asaql:1:21
               |
             1 | SELECT n, udf.score(System.Timestamp()) AS s INTO out FROM t
               |                     ^^^^^^^^^^^^^^^^^^ a datetime never becomes bigint
               = note: the call: udf.score(datetime)
               = note: the function: local: func(x: s64) -> s64
               = note: `udf.local` is called here as the fallback of `udf.score`
               = help: `x` takes bigint
        "#]],
        ),
    ];
    for (keys, query, expected) in table {
        expected.assert_eq(&said(keys, "", query));
    }
}

#[test]
fn rows_are_not_scored_again_where_a_correction_could_not_be_right() {
    let keys = "fallback = \"udf.local\"\nrescore = true";
    let step = "WITH a AS (SELECT n, udf.score(n) AS s FROM t)";
    let table: [(&str, Expect); 3] = [
        (
            "SELECT COUNT(*) AS c, SUM(s) AS s INTO out FROM a GROUP BY TumblingWindow(second, 10)",
            expect![[r#"
            error: the statement INTO out keeps what it was answered first
               --> job.toml:19:11
                |
             19 | rescore = true
                |           ^^^^ a correction would be counted beside it
                = help: leave `rescore` out, or move windows, LAG, joins, patterns and functions with state to a statement of their own that reads rows behind the output
        "#]],
        ),
        (
            "SELECT n, e.ArrayValue AS v INTO out FROM a CROSS APPLY GetArrayElements(a.s) AS e",
            expect![[r#"
            error: the statement INTO out makes several rows of one answer
               --> job.toml:19:11
                |
             19 | rescore = true
                |           ^^^^ corrections could not have the ids of the rows that they correct
                = help: leave `rescore` out, or write CROSS APPLY and joins with reference data before the call
        "#]],
        ),
        (
            "SELECT n, s INTO out FROM a WHERE s > 3",
            expect![[r#"
            warning: the statement INTO out leaves rows out by the answer
               --> job.toml:19:11
                |
             19 | rescore = true
                |           ^^^^ a correction that WHERE leaves out is not sent
                = help: a receiver then keeps the first answer; select the column instead, and let it decide
        "#]],
        ),
    ];
    for (query, expected) in table {
        let said = said(keys, "", &format!("{step} {query}"));
        let from = said.find("error: ").or_else(|| said.find("warning: ")).unwrap_or_default();
        let said = &said[from..];
        expected.assert_eq(said.split_once("\nnote: while").map_or(said, |(said, _)| said));
    }
}

#[test]
fn where_windows_stand_before_the_call_or_nothing_is_scored_again_all_is_well() {
    let step = "WITH a AS (SELECT n, udf.score(n) AS s FROM t)";
    for (keys, query) in [
        (
            "fallback = \"udf.local\"",
            format!("{step} SELECT SUM(s) AS s INTO out FROM a GROUP BY TumblingWindow(second, 1)"),
        ),
        (
            "fallback = \"udf.local\"\nrescore = true",
            "WITH a AS (SELECT COUNT(*) AS n FROM t GROUP BY TumblingWindow(second, 10)) \
             SELECT n, udf.score(n) AS s INTO out FROM a"
                .to_owned(),
        ),
        // another call behind it is given the correction as well
        ("fallback = \"udf.local\"\nrescore = true", format!("{step} SELECT n, udf.other(s) AS s INTO out FROM a")),
    ] {
        let said = said(keys, "", &query);
        assert!(said.contains("the job is valid") && !said.contains("warning: "), "{said}");
        assert!(said.contains("30s: rows are answered by udf.local"), "{said}");
    }
}

#[test]
fn a_row_is_corrected_by_one_call_alone() {
    let keys = "fallback = \"udf.local\"\nrescore = true";
    let third = format!("[functions.third]\ntype = \"azureml\"\nurl = \"http://127.0.0.1:1/third\"\n{keys}\n");
    let query = "SELECT n, udf.third(udf.score(n)) AS s INTO out FROM t";
    let twice = said(keys, &third, query);
    assert!(twice.contains("calls `udf.third` as well, whose rows are scored again too"), "{twice}");
    let once = said(keys, &third.replace("rescore = true", ""), query);
    assert!(once.contains("the job is valid"), "{once}");
}

#[test]
fn columns_that_would_always_be_the_same_are_told() {
    let more = "scored_by = \"by\"\nrevision = \"rev\"\n";
    let warnings = |keys: &str, query: &str| said(keys, more, query).matches("tells nothing").count();
    assert_eq!(warnings("", QUERY), 2);
    assert_eq!(warnings("fallback = \"udf.local\"", QUERY), 1);
    assert_eq!(warnings("fallback = \"udf.local\"\nrescore = true", QUERY), 0);
    assert_eq!(warnings("fallback = \"udf.local\"\nrescore = true", "SELECT n INTO out FROM t"), 2);
}

#[test]
fn columns_have_names_of_their_own() {
    let said = said("fallback = \"udf.local\"", "row_id = \"id\"\nscored_by = \"id\"\n", QUERY);
    assert!(said.contains("two columns would have the name `id`"), "{said}");
}

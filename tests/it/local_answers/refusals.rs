//! What `check` refuses of fallbacks, and what it warns of.

use expect_test::{Expect, expect};

use super::local;
use crate::harness::{cli, write};
use crate::support::write_job;

/// A job whose endpoint has these keys, beside other functions.
fn job(dir: &std::path::Path, keys: &str, more: &str, query: &str) {
    write(dir, "local.wasm", local(false));
    let two = "(component (core module $m (func (export \"two\") (param i64 i64) (result i64) (local.get 0)))
        (core instance $i (instantiate $m))
        (func (export \"two\") (param \"x\" s64) (param \"y\" s64) (result s64) (canon lift (core func $i \"two\"))))";
    write(dir, "two.wasm", wat::parse_str(two).unwrap());
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
        ("fallback = \"local\"", QUERY, expect![[r#""#]]),
        ("fallback = \"udf.locl\"", QUERY, expect![[r#""#]]),
        ("fallback = \"udf.other\"", QUERY, expect![[r#""#]]),
        ("fallback = \"udf.two\"", QUERY, expect![[r#""#]]),
        ("fallback_after = \"1s\"", QUERY, expect![[r#""#]]),
        ("rescore = true", QUERY, expect![[r#""#]]),
        ("fallback = \"udf.local\"", "SELECT n, udf.score(System.Timestamp()) AS s INTO out FROM t", expect![[r#""#]]),
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
        ("SELECT COUNT(*) AS c, SUM(s) AS s INTO out FROM a GROUP BY TumblingWindow(second, 10)", expect![[r#""#]]),
        ("SELECT n, e.ArrayValue AS v INTO out FROM a CROSS APPLY GetArrayElements(a.s) AS e", expect![[r#""#]]),
        ("SELECT n, s INTO out FROM a WHERE s > 3", expect![[r#""#]]),
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

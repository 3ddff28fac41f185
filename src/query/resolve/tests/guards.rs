//! Calls that not every row reaches.

use super::*;

#[test]
fn a_call_in_a_branch_has_a_guard() {
    check(
        "SELECT id, CASE WHEN a IS NULL THEN -1 ELSE udf.score(a) END AS s INTO out FROM x",
        &expect![[r#"
            into out
              read x: id, a
              call score(a) for rows with (CASE WHEN a IS NULL THEN 1 ELSE 0 END = 0)
              gives id, s = CASE WHEN (CASE WHEN a IS NULL THEN 1 ELSE 0 END = 1) THEN -1 ELSE score() END
        "#]],
    );
}

#[test]
fn a_condition_on_an_answer_guards_the_next_call() {
    check(
        "SELECT CASE WHEN udf.score(a) > 5 THEN udf.rate(b) ELSE 0 END AS r INTO out FROM x",
        &expect![[r#"
            into out
              part 1
                read x: a, b
                call score(a)
                gives b, branch = CASE WHEN (score() > 5) THEN 1 ELSE 0 END
              part 2
                call rate(b) for rows with (branch = 1)
                gives r = CASE WHEN (branch = 1) THEN rate() ELSE 0 END
        "#]],
    );
}

#[test]
fn a_call_that_every_row_reaches_has_none() {
    check(
        "SELECT udf.score(a) AS s, COALESCE(b, udf.score(a)) AS r, CASE WHEN udf.score(a) > 1 THEN b ELSE c END AS t \
        INTO out FROM x",
        &expect![[r#"
            into out
              read x: a, b, c
              call score(a)
              gives s = score(), r = COALESCE(b, score()), t = CASE WHEN (score() > 1) THEN b ELSE c END
        "#]],
    );
}

#[test]
fn groups_have_guards_too() {
    check(
        "SELECT CASE WHEN COUNT(*) > 3 THEN udf.rate(MAX(b)) ELSE 0 END AS r, SUM(COALESCE(a, udf.score(b))) AS t \
        INTO out FROM x GROUP BY TumblingWindow(second, 5)",
        &expect![[r#"
            into out
              part 1
                read x: b, a
                call score(b) for rows with a IS NULL
                gives b, a, score = score()
              part 2, keeps state
                group in tumbling 5 s: COUNT(*), MAX(b), SUM(COALESCE(a, score))
                gives MAX = MAX(b), SUM = SUM(COALESCE(a, score)), branch = CASE WHEN (COUNT(*) > 3) THEN 1 ELSE 0 END
              part 3
                call rate(MAX) for rows with (branch = 1)
                gives r = CASE WHEN (branch = 1) THEN rate() ELSE 0 END, t = SUM
        "#]],
    );
}

#[test]
fn what_cannot_be_ordered_is_refused_with_a_way_out() {
    let query = "SELECT CASE WHEN a = 1 THEN CASE WHEN udf.rate(b) > 0 THEN udf.score(b) ELSE 0 END ELSE 0 END AS p, \
        CASE WHEN a = 2 THEN CASE WHEN udf.score(b) > 0 THEN udf.rate(b) ELSE 0 END ELSE 0 END AS q INTO out FROM x";
    let problems = compile(query, "q", &catalog()).unwrap_err().to_string();
    assert!(problems.contains("two calls that leave the gateway decide about each other"), "{problems}");
    assert!(problems.contains("make one of them for every row in a step"), "{problems}");
    assert_eq!(problems.matches("error: ").count(), 1, "{problems}");
}

#[test]
fn many_conditions_end_in_an_error_and_not_in_a_crash() {
    let case = |n: usize| {
        let branch = |i: usize| format!("WHEN f{i} = 1 AND udf.score(a) > {i} THEN {i}");
        let branches: Vec<String> = (0..n).map(branch).collect();
        format!("SELECT CASE {} ELSE 0 END AS r INTO out FROM x", branches.join(" "))
    };
    plan(&case(15));
    let problems = compile(&case(100), "q", &catalog()).unwrap_err().to_string();
    assert!(problems.contains("too many conditions decide about calls"), "{problems}");
    // conditions without a call are one, however many they are
    let plain: Vec<String> = (0..500).map(|i| format!("WHEN a = {i} THEN {i}")).collect();
    let parts = plan(&format!("SELECT CASE {} ELSE udf.score(a) END AS r INTO out FROM x", plain.join(" ")));
    assert_eq!(parts.statements[0].parts.len(), 1);
}

//! Plans of single clauses: stars, names, windows, analytic functions, joins, unions.

use expect_test::expect;

use super::*;

#[test]
fn a_star_step_decodes_only_what_is_read() {
    check(
        "WITH s AS (SELECT * FROM rides WHERE a > 1), t AS (SELECT *, a + 1 AS up FROM s) SELECT b, c.d, up INTO out \
        FROM t",
        &expect![[r#"
            into out
              read rides: a, b, c
              where (a > 1)
              gives b, d = c.d, up = (a + 1)
        "#]],
    );
}

#[test]
fn a_star_that_leaves_is_the_whole_event() {
    check(
        "SELECT *, LEN(name) INTO out FROM x",
        &expect![[r#"
        into out
          read x: whole events, name
          gives x.*, LEN = LEN(name)
    "#]],
    );
}

#[test]
fn a_star_after_apply_has_the_record_of_apply() {
    check(
        "SELECT * INTO out FROM x OUTER APPLY GetRecordProperties(x.tags) AS p",
        &expect![[r#"
        into out
          read x: tags, whole events
          outer apply GetRecordProperties(tags)
          gives x.*, p = GetRecordProperties(tags)
    "#]],
    );
}

#[test]
fn fixed_lists_hide_the_rest() {
    check(
        "WITH s AS (SELECT a AS one, b.c AS two FROM x) SELECT s.*, one + 1 AS next INTO out FROM s",
        &expect![[r#"
        into out
          read x: a, b
          gives one = a, two = b.c, next = (a + 1)
    "#]],
    );
}

#[test]
fn a_source_name_that_is_also_a_field() {
    check(
        "SELECT x, COUNT(x) OVER (LIMIT DURATION(second, 5)) AS n INTO out FROM x",
        &expect![[r#"
        into out
          read x: x, whole events
          look back: COUNT(*) within 5 s
          gives x = CASE WHEN x IS NOT NULL THEN x ELSE x END, n = COUNT(*) within 5 s
    "#]],
    );
}

#[test]
fn arrival_times_come_from_the_payload_when_it_has_them() {
    check(
        "SELECT id INTO out FROM x WHERE DATEDIFF(minute, EventEnqueuedUtcTime, GETUTCDATE()) BETWEEN 0 AND 5",
        &expect![[r#"
        into out
          read x: arrival, EventEnqueuedUtcTime, id
          where DATEDIFF('minute', CASE WHEN EventEnqueuedUtcTime IS NOT NULL THEN EventEnqueuedUtcTime ELSE arrival END, arrival) BETWE…
          gives id
    "#]],
    );
}

#[test]
fn metadata() {
    check(
        "SELECT GetMetadataPropertyValue(g, '[User].[site]') AS site, GetMetadataPropertyValue(g, 'EventId') AS id \
        INTO out FROM x AS g",
        &expect![[r#"
            into out
              read x: User.site, EventId
              gives site = User.site, id = EventId
        "#]],
    );
}

#[test]
fn window_kinds() {
    check(
        "SELECT System.Window().Id AS id, COUNT(*) AS n, MIN(CAST(v AS nvarchar(max))) AS lo INTO out FROM x GROUP BY \
        k, Windows(Window('a', Tumbling(minute, 90)), Window('b', HoppingWindow(Duration(hour, 1), Hop(minute, 5), \
        Offset(ms, -1))), Window('c', Sliding(s, 5)), Window('d', Session(Timeout(s, 5), MaxDuration(mi, 1)) OVER \
        (PARTITION BY k)), Window('e', System.Timestamp()))",
        &expect![[r#"
            into out
              read x: k, v
              group by k in 'a' tumbling 90 min and 'b' hopping 1 h every 5 min offset -1 ms and 'c' sliding 5 s and 'd' session 5 s at most 1 min for each key and 'e' snapshot: COUNT(*), MIN text(CAST(v AS nvarchar(max)))
              gives id = window id, n = COUNT(*), lo = MIN text(CAST(v AS nvarchar(max)))
        "#]],
    );
}

#[test]
fn group_keys_match_select_expressions_by_meaning() {
    check(
        "SELECT UPPER(Zone) AS z, m.a.b AS deep, SUM(v) + sum(V) AS twice INTO out FROM x GROUP BY upper(zone), M.a, \
        TumblingWindow(second, 10)",
        &expect![[r#"
            into out
              read x: zone, M, v
              group by UPPER(zone), M.a in tumbling 10 s: SUM(v)
              gives z = UPPER(zone), deep = M.a.b, twice = (SUM(v) + SUM(v))
        "#]],
    );
}

#[test]
fn analytic_functions_run_before_where() {
    check(
        "SELECT n, LAG(n, 2, 0) OVER (PARTITION BY k LIMIT DURATION(minute, 1) WHEN n > 2) AS p INTO out FROM x \
        TIMESTAMP BY at OVER k WHERE ISFIRST(second, 5) = 1",
        &expect![[r#"
            into out
              read x: at, k, n timestamp by at over k
              look back: ISFIRST(5 s), LAG(n, 2) else 0 by k within 1 min when (n > 2)
              where (ISFIRST(5 s) = 1)
              gives n, p = LAG(n, 2) else 0 by k within 1 min when (n > 2)
        "#]],
    );
}

#[test]
fn analytic_functions_run_before_a_join() {
    check(
        "SELECT a.id, LAST(b.v) OVER (LIMIT DURATION(hour, 1)) AS v INTO out FROM x a JOIN y b ON a.id = b.id AND \
        DATEDIFF(second, b, a) BETWEEN -5 AND 0",
        &expect![[r#"
            into out
              join within 0 to 5 second
                read x: id
                read y: id, v
                look back: LAST(v) within 1 h
              on id = id
              gives id, v = LAST(v) within 1 h
        "#]],
    );
}

#[test]
fn bounds_of_a_join_may_be_comparisons() {
    check(
        "SELECT a.id INTO out FROM x a LEFT JOIN y b ON 0 <= DATEDIFF(minute, a, b) AND DATEDIFF(minute, a, b) < 10 \
        AND a.id = b.id AND b.v > a.v",
        &expect![[r#"
            into out
              left join within 0 to 9 minute
                read x: id, v
                read y: id, v
              on id = id AND (v > v)
              gives id
        "#]],
    );
}

#[test]
fn three_streams() {
    check(
        "SELECT s.run INTO out FROM x s JOIN y p ON s.run = p.run AND DATEDIFF(second, s, p) BETWEEN 0 AND 60 JOIN z f \
        ON f.run = s.run AND DATEDIFF(second, s, f) BETWEEN 0 AND 60 AND DATEDIFF(second, f, p) BETWEEN 0 AND 60",
        &expect![[r#"
            into out
              join within -63 to 0 second
                join within 0 to 60 second
                  read x: run
                  read y: run
                on run = run
                read z: run
              on run = run AND (DATEDIFF('second', System.Timestamp(), System.Timestamp()) BETWEEN 0 AND 60 AND DATEDIFF('second', System.Timestamp(), …
              gives run
        "#]],
    );
}

#[test]
fn reference_data() {
    check(
        "SELECT t.dev, r.site INTO out FROM x t LEFT JOIN sites r ON t.dev = r.dev AND t.v >= r.lo",
        &expect![[r#"
        into out
          read x: dev, v
          left join reference sites on dev = sites.dev AND (v >= sites.lo)
          gives dev, site = sites.site
    "#]],
    );
}

#[test]
fn a_union_reads_only_what_is_used() {
    check(
        "WITH u AS (SELECT k, v FROM x UNION SELECT k, w FROM y TIMESTAMP BY at) SELECT v INTO out FROM u",
        &expect![[r#"
        into out
          union of
            read x: v
            read y: at, w timestamp by at
          gives v
    "#]],
    );
}

#[test]
fn create_table_makes_columns_known() {
    check(
        "CREATE TABLE x (id bigint, name nvarchar(max)); SELECT * INTO out FROM x WHERE Id > 1",
        &expect![[r#"
        into out
          read x: id, name checked against its schema
          where (id > 1)
          gives id, name
    "#]],
    );
}

#[test]
fn an_unused_aggregate_is_not_computed() {
    check(
        "WITH s AS (SELECT k, COUNT(*) AS n, MAX(v) AS m FROM x GROUP BY k, TumblingWindow(second, 1)) SELECT n INTO \
        out FROM s",
        &expect![[r#"
            into out
              read x: k
              group by k in tumbling 1 s: COUNT(*)
              gives n = COUNT(*)
        "#]],
    );
}

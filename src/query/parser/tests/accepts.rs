//! What the grammar takes, and how it groups.

use std::path::Path;

use expect_test::expect;

use super::parse;
use crate::query::ast::*;

/// An expression with every grouping shown.
fn grouped(text: &str) -> String {
    let script = parse(&format!("SELECT r = {text} FROM x"), "q").unwrap_or_else(|errors| panic!("{errors}"));
    match &script.statements[0].cores[0].items[0] {
        SelectItem::Expr { expr, .. } => show(expr),
        other => panic!("{other:?}"),
    }
}

fn show(expr: &Expr) -> String {
    let all = |exprs: &[Expr]| exprs.iter().map(show).collect::<Vec<_>>().join(", ");
    match &expr.kind {
        ExprKind::Literal(Literal::Null) => "NULL".into(),
        ExprKind::Literal(Literal::BigInt(number)) => number.to_string(),
        ExprKind::Literal(Literal::Float(number)) => format!("{number:?}"),
        ExprKind::Literal(Literal::Text(text)) => format!("'{text}'"),
        ExprKind::Path(path) => names(path),
        ExprKind::SystemTimestamp => "@time".into(),
        ExprKind::WindowId => "@window".into(),
        ExprKind::Unary(op, operand) => format!("({op:?} {})", show(operand)),
        ExprKind::Binary(op, left, right) => format!("({} {op:?} {})", show(left), show(right)),
        ExprKind::IsNull { negated, operand } => format!("({} {}null)", show(operand), not(*negated)),
        ExprKind::Between { negated, operand, low, high } => {
            format!("({} {}between {} {})", show(operand), not(*negated), show(low), show(high))
        }
        ExprKind::In { negated, operand, list } => format!("({} {}in {})", show(operand), not(*negated), all(list)),
        ExprKind::Like { negated, operand, pattern, escape } => {
            let escape = escape.as_ref().map_or(String::new(), |escape| format!(" escape {}", show(escape)));
            format!("({} {}like {}{escape})", show(operand), not(*negated), show(pattern))
        }
        ExprKind::Case { operand, branches, otherwise } => {
            let operand = operand.as_ref().map_or(String::new(), |operand| format!(" {}", show(operand)));
            let branches: String =
                branches.iter().map(|(when, then)| format!(" {} => {}", show(when), show(then))).collect();
            format!("case{operand}{branches} else {}", show(otherwise.as_ref().expect("mandatory")))
        }
        ExprKind::Cast { is_try, operand, ty } => {
            format!("{}cast({} as {ty})", if *is_try { "try " } else { "" }, show(operand))
        }
        ExprKind::Call(call) => {
            let args: Vec<String> = call
                .args
                .iter()
                .map(|arg| match arg {
                    Arg::Expr(expr) => show(expr),
                    Arg::Star(_) => "*".into(),
                })
                .collect();
            let distinct = if call.distinct { "distinct " } else { "" };
            format!(
                "{}({distinct}{}){}",
                names(&call.name),
                args.join(", "),
                call.over.as_ref().map_or(String::new(), over)
            )
        }
        ExprKind::Field(of, field) => format!("{}->{}", show(of), field.name),
    }
}

fn not(negated: bool) -> &'static str {
    if negated { "not " } else { "" }
}

fn names(path: &[Ident]) -> String {
    path.iter().map(|ident| ident.name.as_str()).collect::<Vec<_>>().join(".")
}

fn over(over: &Over) -> String {
    let mut parts = Vec::new();
    let by: Vec<String> = over.partition_by.iter().map(show).collect();
    let order: Vec<String> = over
        .order_by
        .iter()
        .map(|item| format!("{}{}", show(&item.expr), if item.descending { " desc" } else { "" }))
        .collect();
    parts.extend((!by.is_empty()).then(|| format!("by {}", by.join(", "))));
    parts.extend((!order.is_empty()).then(|| format!("order {}", order.join(", "))));
    parts.extend(over.limit.as_ref().map(|limit| format!("{} {}", show(&limit.count), limit.unit.name)));
    parts.extend(over.when.as_ref().map(|when| format!("when {}", show(when))));
    format!(" over [{}]", parts.join("; "))
}

#[test]
fn operators_bind_as_in_t_sql() {
    for (text, want) in [
        ("a + b * c", "(a Add (b Mul c))"),
        ("a - b - c", "((a Sub b) Sub c)"),
        ("a / b * c % d", "(((a Div b) Mul c) Mod d)"),
        ("(a + b) * c", "((a Add b) Mul c)"),
        ("a & b + c | d ^ e", "((((a BitAnd b) Add c) BitOr d) BitXor e)"),
        ("~a & b", "((BitNot a) BitAnd b)"),
        ("-a / b * c", "(Minus ((a Div b) Mul c))"),
        ("-a + b", "((Minus a) Add b)"),
        ("a * -b", "(a Mul (Minus b))"),
        ("- -a", "(Minus (Minus a))"),
        ("a | 1", "(a BitOr 1)"),
        ("(flags & 4) = 4", "((flags BitAnd 4) Eq 4)"),
        ("flags & 4 = 4", "((flags BitAnd 4) Eq 4)"),
        ("NOT a = 1 AND b = 1", "((Not (a Eq 1)) And (b Eq 1))"),
        ("a = 1 OR b = 1 AND c = 1", "((a Eq 1) Or ((b Eq 1) And (c Eq 1)))"),
        ("NOT NOT a LIKE 'x'", "(Not (Not (a like 'x')))"),
        ("a BETWEEN 1 AND 2 + 3 AND b = 1", "((a between 1 (2 Add 3)) And (b Eq 1))"),
        (
            "a NOT BETWEEN 1 AND 2 OR b NOT IN (1, c + 1) OR d NOT LIKE '%!%' ESCAPE '!'",
            "(((a not between 1 2) Or (b not in 1, (c Add 1))) Or (d not like '%!%' escape '!'))",
        ),
        ("a + 1 IS NOT NULL AND b IS NULL", "(((a Add 1) not null) And (b null))"),
        ("a !< 1 AND b !> 2 AND c != 3 AND d <> 4", "(((a Ge 1) And (b Le 2)) And ((c Ne 3) And (d Ne 4)))"),
        ("(a = 1) = (b = 2)", "((a Eq 1) Eq (b Eq 2))"),
    ] {
        assert_eq!(grouped(text), want, "{text}");
    }
}

#[test]
fn literals() {
    for (text, want) in [
        ("12", "12"),
        ("12.0", "12.0"),
        ("1.", "1.0"),
        (".5", "0.5"),
        ("1e3", "1000.0"),
        ("9223372036854775807", "9223372036854775807"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("'it''s'", "'it's'"),
        ("N'ü'", "'ü'"),
        ("''", "''"),
        ("\"text\"", "'text'"),
        ("null", "NULL"),
    ] {
        assert_eq!(grouped(text), want, "{text}");
    }
}

#[test]
fn paths_and_quotes() {
    for (text, want) in [
        ("a.b.c", "a.b.c"),
        ("a.[b c].[d]]e]", "a.b c.d]e"),
        ("[a].select", "a.select"),
        ("\"[my][Field]\"", "my.Field"),
        ("\"[my].[Field]\".x", "my.Field.x"),
        ("a.\"b c\"", "a.b c"),
        ("f(a).b.[c]", "f(a)->b->c"),
        ("(a).b", "a->b"),
        ("timestamp", "timestamp"),
        ("limit + top + partition + first + go", "((((limit Add top) Add partition) Add first) Add go)"),
    ] {
        assert_eq!(grouped(text), want, "{text}");
    }
}

#[test]
fn calls() {
    for (text, want) in [
        ("count(*)", "count(*)"),
        ("COUNT(DISTINCT a.b)", "COUNT(distinct a.b)"),
        ("COUNT(ALL a)", "COUNT(a)"),
        ("f()", "f()"),
        ("LEFT(a, 1) + right(b, 2)", "(LEFT(a, 1) Add right(b, 2))"),
        ("udf.score(udf.createArray(a, b))", "udf.score(udf.createArray(a, b))"),
        ("System.Timestamp()", "@time"),
        ("system.TimeStamp", "@time"),
        ("System.Window().Id", "@window"),
        ("LAG(*, 1)", "LAG(*, 1)"),
        (
            "LAG(a, 1, -1) OVER (PARTITION BY k, l.m LIMIT DURATION(minute, 5) WHEN a > 1)",
            "LAG(a, 1, (Minus 1)) over [by k, l.m; 5 minute; when (a Gt 1)]",
        ),
        (
            "TopOne() OVER (LIMIT DURATION(ss, 1) ORDER BY a DESC, b ASC, c PARTITION BY k)",
            "TopOne() over [by k; order a desc, b, c; 1 ss]",
        ),
        ("ISFIRST(mi, 5) OVER ()", "ISFIRST(mi, 5) over []"),
        ("LAST(a) OVER (LIMIT DURATION(hour, 1)).b", "LAST(a) over [1 hour]->b"),
        ("CAST(a + 1 AS nvarchar(max))", "cast((a Add 1) as nvarchar(max))"),
        ("TRY_CAST(a AS Array).b", "try cast(a as array)->b"),
        ("CASE a WHEN 1 THEN 'x' WHEN 2 THEN 'y' ELSE 'z' END", "case a 1 => 'x' 2 => 'y' else 'z'"),
        ("CASE WHEN a = 1 THEN b ELSE NULL END + 1", "(case (a Eq 1) => b else NULL Add 1)"),
    ] {
        assert_eq!(grouped(text), want, "{text}");
    }
}

#[test]
fn select_items_and_aliases() {
    let script =
        parse("SELECT *, a.*, [b].c.*, d AS [e f], g h, i = j + 1, k AS 'l', m AS \"n\" FROM x", "q").expect("parses");
    let items = script.statements[0].cores[0].items.iter().map(|item| match item {
        SelectItem::Star { .. } => "*".to_string(),
        SelectItem::PathStar { path, .. } => format!("{}.*", names(path)),
        SelectItem::Expr { expr, alias, .. } => format!("{} as {}", show(expr), alias.as_ref().expect("alias").name),
    });
    assert_eq!(
        items.collect::<Vec<_>>(),
        ["*", "a.*", "b.c.*", "d as e f", "g as h", "(j Add 1) as i", "k as l", "m as n"]
    );
}

#[test]
fn sources_take_time_and_keys_in_both_orders() {
    for text in [
        "FROM x AS a TIMESTAMP BY t OVER k, l PARTITION BY p INTO 3",
        "FROM x a PARTITION BY p TIMESTAMP BY t OVER k, l",
    ] {
        let script = parse(&format!("SELECT * {text} WHERE b = 1"), "q").unwrap_or_else(|errors| panic!("{errors}"));
        let source = &script.statements[0].cores[0].from.first;
        assert_eq!(source.alias.as_ref().expect("alias").name, "a");
        assert_eq!(source.timestamp_by.as_ref().map(show).as_deref(), Some("t"));
        assert_eq!(source.over.iter().map(show).collect::<Vec<_>>(), ["k", "l"]);
        assert_eq!(source.partition_by.iter().map(show).collect::<Vec<_>>(), ["p"]);
    }
}

#[test]
fn joins_and_apply() {
    let text = "SELECT * FROM a JOIN b TIMESTAMP BY t ON a.k = b.k INNER JOIN c d ON 1 = 1 LEFT OUTER JOIN e ON 1 = 1 \
        left join f ON 1 = 1 CROSS APPLY GetArrayElements(a.x) AS p OUTER APPLY getrecordproperties(p.ArrayValue) q \
        WHERE p.ArrayIndex = 0";
    let script = parse(text, "q").unwrap_or_else(|errors| panic!("{errors}"));
    let joins = script.statements[0].cores[0].from.joins.iter().map(|join| match join {
        Join::Table { left_outer, source, .. } => {
            format!("{}{}", if *left_outer { "left " } else { "" }, source.name.name)
        }
        Join::Apply { outer, function, argument, alias, .. } => {
            format!("{}{function:?} {} {}", if *outer { "outer " } else { "" }, show(argument), alias.name)
        }
    });
    let want = ["b", "c", "left e", "left f", "GetArrayElements a.x p", "outer GetRecordProperties p.ArrayValue q"];
    assert_eq!(joins.collect::<Vec<_>>(), want);
}

#[test]
fn scripts_of_several_statements() {
    let text = "CREATE TABLE x (a bigint, b nvarchar(max), [c d] datetime); -- schema\n\
        WITH s AS (SELECT a FROM x), t AS (SELECT a FROM s UNION ALL SELECT a FROM y)\n\
        SELECT a INTO o FROM s\nSELECT a INTO [p q] FROM t;\nGO\nselect a from t;;";
    let script = parse(text, "q").unwrap_or_else(|errors| panic!("{errors}"));
    let columns: Vec<String> =
        script.tables[0].columns.iter().map(|column| format!("{} {}", column.name.name, column.ty)).collect();
    assert_eq!(columns, ["a bigint", "b nvarchar(max)", "c d datetime"]);
    assert_eq!(
        script.steps.iter().map(|step| (step.name.name.as_str(), step.body.cores.len())).collect::<Vec<_>>(),
        [("s", 1), ("t", 2)]
    );
    let outputs: Vec<_> =
        script.statements.iter().map(|select| select.into.as_ref().map(|into| into.name.as_str())).collect();
    assert_eq!(outputs, [Some("o"), Some("p q"), None]);
    let spans: Vec<&str> = script.statements.iter().map(|select| &text[select.span.start..select.span.end]).collect();
    assert_eq!(spans, ["SELECT a INTO o FROM s", "SELECT a INTO [p q] FROM t", "select a from t"]);
}

#[test]
fn windows_are_calls_among_the_keys() {
    let text = "SELECT COUNT(*) FROM x TIMESTAMP BY t GROUP BY k, Windows(Window('a', Tumbling(second, 5)), \
        Hopping(Duration(minute, 1), Hop(second, 30))), Session(Timeout(ss, 1), MaxDuration(ss, 9)) OVER (PARTITION BY \
        k), System.Timestamp() HAVING COUNT(*) > 1";
    let script = parse(text, "q").unwrap_or_else(|errors| panic!("{errors}"));
    let core = &script.statements[0].cores[0];
    expect![[r#"
        k
        Windows(Window('a', Tumbling(second, 5)), Hopping(Duration(minute, 1), Hop(second, 30)))
        Session(Timeout(ss, 1), MaxDuration(ss, 9)) over [by k]
        @time"#]]
    .assert_eq(&core.group_by.iter().map(show).collect::<Vec<_>>().join("\n"));
    assert!(core.having.is_some());
}

/// Words of `must_fail` that are the parser's to find; all other cases parse.
const SYNTAX: &[&str] = &[
    "fail-apply-of-scalar-function",
    "fail-case-without-else",
    "fail-into-inside-with",
    "fail-no-from",
    "fail-nvarchar-with-length",
    "fail-select-distinct",
    "err-into-inside-with",
];

#[test]
fn the_language_cases_parse() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/asa");
    let (mut read, mut refused) = (0, 0);
    for area in ["scalar", "temporal", "stop"] {
        for entry in std::fs::read_dir(root.join(area)).expect("tests/asa has the cases") {
            let path = entry.expect("entry").path();
            let case: serde_json::Value =
                serde_json::from_str(&std::fs::read_to_string(&path).expect("readable")).expect("json");
            let name = path.file_stem().expect("name").to_string_lossy().into_owned();
            let parsed = parse(case["query"].as_str().expect("query"), &name);
            if SYNTAX.contains(&name.as_str()) {
                let errors = parsed.expect_err(&name).to_string().to_lowercase();
                let word = case["must_fail"].as_str().expect("must_fail").to_lowercase();
                assert!(errors.contains(&word), "{name}: no {word} in {errors}");
                refused += 1;
            } else {
                parsed.unwrap_or_else(|errors| panic!("{errors}"));
                read += 1;
            }
        }
    }
    assert_eq!(refused, SYNTAX.len());
    assert!(read >= 277, "only {read} cases");
}

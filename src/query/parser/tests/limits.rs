//! Any text is answered: no panic, no endless depth.

use expect_test::expect;
use proptest::prelude::*;

use super::{errors, parse};

/// Words and signs of the language, so that random scripts get far into the grammar.
const SOUP: &str = "SELECT FROM x INTO out WHERE GROUP BY HAVING UNION ALL WITH AS ( ) , . * + - / % & | ^ ~ = <> !< \
    AND OR NOT IN LIKE ESCAPE BETWEEN IS NULL CASE WHEN THEN ELSE END CAST bigint nvarchar max OVER PARTITION ORDER \
    LIMIT DURATION TIMESTAMP JOIN LEFT ON CROSS APPLY GetArrayElements CREATE TABLE System Timestamp Window COUNT \
    DISTINCT 1 1.5 't' \"[a][b]\" [n] ; -- /* é ' [ \"";

fn word() -> impl Strategy<Value = &'static str> {
    prop::sample::select(SOUP.split_whitespace().collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn random_words_never_panic(words in prop::collection::vec(word(), 0..60)) {
        let text = words.join(" ");
        if let Err(errors) = parse(&text, "q") {
            prop_assert!(!errors.to_string().is_empty());
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let text = String::from_utf8_lossy(&bytes);
        if let Err(errors) = parse(&text, "q") {
            prop_assert!(!errors.to_string().is_empty());
        }
    }

    #[test]
    fn a_damaged_query_never_panics(cut in 0usize..200, insert in word()) {
        let query = "WITH s AS (SELECT a, COUNT(*) OVER (PARTITION BY k LIMIT DURATION(minute, 1) WHEN b > 1) AS n \
            FROM x TIMESTAMP BY t OVER k) SELECT CASE WHEN n IN (1, 2) THEN CAST(a AS float) ELSE NULL END AS r INTO \
            out FROM s LEFT JOIN y ON s.a = y.a";
        let cut = cut.min(query.len());
        let text = format!("{}{insert}{}", &query[..cut], &query[cut..]);
        let _ = parse(&text, "q").map_err(|errors| errors.to_string());
    }
}

#[test]
fn nesting_is_limited() {
    let nested = |levels: usize, open: &str, close: &str| {
        format!("SELECT {}a{} AS r FROM x", open.repeat(levels), close.repeat(levels))
    };
    for (open, close) in [
        ("(", ")"),
        ("f(", ")"),
        ("NOT ", ""),
        ("- ", ""),
        ("~", ""),
        ("CASE WHEN 1 = 1 THEN ", " ELSE 0 END"),
        ("CAST(", " AS float)"),
    ] {
        assert!(parse(&nested(64, open, close), "q").is_ok(), "{open}");
        let error = parse(&nested(65, open, close), "q").expect_err(open);
        assert_eq!(error.items[0].title, "the expression is nested too deep", "{open}");
        assert!(parse(&nested(100_000, open, close), "q").is_err(), "{open}");
    }
    // every level of operators on the stack at once
    assert!(parse(&nested(20, "a OR a AND a = a + a * (", ")"), "q").is_ok());
    assert_eq!(
        errors(&nested(64, "a OR a AND a = a + a * (", ")")).lines().next(),
        Some("error: the expression is nested too deep")
    );
    // what is nested may be a right operand
    assert!(parse(&nested(64, "a + (", ")"), "q").is_ok());
    assert!(parse(&nested(60, "a OR f(", ")"), "q").is_ok());
}

#[test]
fn long_chains_are_balanced_or_refused() {
    let chain = |count: usize, operator: &str| {
        format!("SELECT a FROM x WHERE 1 = 1 {}", format!("{operator} a = 1 ").repeat(count))
    };
    assert!(parse(&chain(20_000, "OR"), "q").is_ok());
    assert!(parse(&chain(20_000, "AND"), "q").is_ok());
    let sum = |count: usize| format!("SELECT 1{} AS r FROM x", " + 1".repeat(count));
    assert!(parse(&sum(120), "q").is_ok());
    assert_eq!(parse(&sum(20_000), "q").expect_err("too long").items[0].title, "the expression is too deep");
    let fields = format!("SELECT f(x){} FROM x", ".a".repeat(20_000));
    assert_eq!(parse(&fields, "q").expect_err("too long").items[0].title, "the expression is too deep");
    assert!(parse(&format!("SELECT a{} FROM x", ".a".repeat(20_000)), "q").is_ok());
}

#[test]
fn only_so_many_errors_are_shown() {
    let drawn = errors(&"SELECT a;\n".repeat(1000));
    assert_eq!(drawn.matches("a SELECT needs FROM").count(), 20);
    expect![[r#"
        error: a SELECT needs FROM
           --> q.asaql:20:9
            |
         20 | SELECT a;
            |         ^ expected `FROM` and the name of an input or a step
            = note: only the first 20 errors are shown
            = help: every row comes from an event: `SELECT 1 AS one FROM input`

        20 errors
    "#]]
    .assert_eq(drawn.split("\n\n").skip(19).collect::<Vec<_>>().join("\n\n").as_str());
}

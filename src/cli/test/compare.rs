//! Rows wanted against rows got.
//!
//! In: two lists of JSON rows and whether their order counts. Out: nothing when they agree, else lines that show where
//! they do not. Invariant: an absent key is the same as null, at any depth; numbers agree to 1e-9 of their size, whole
//! numbers exactly. Not here: where the rows come from.

use std::fmt::Write;

use serde_json::{Map, Value};

pub type RowObject = Map<String, Value>;

/// Whether rows have to come in the order written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowOrder {
    #[default]
    Exact,
    Any,
}

/// Differences of floats up to this share of the larger one are rounding.
const TOLERANCE: f64 = 1e-9;

/// Rows shown of each kind; more hide what is wrong.
const SHOWN_MAX: usize = 10;

/// What differs, in lines; `None` when nothing does.
pub fn difference(wanted: &[RowObject], got: &[RowObject], order: RowOrder) -> Option<String> {
    match order {
        RowOrder::Exact => in_order(wanted, got),
        RowOrder::Any => in_any_order(wanted, got),
    }
}

/// What differs in one value, in lines.
pub fn value_difference(wanted: &Value, got: &Value) -> Option<String> {
    if same(wanted, got) {
        return None;
    }
    let fields = match (wanted, got) {
        (Value::Object(w), Value::Object(g)) => fields(w, g),
        _ => String::new(),
    };
    Some(format!("expected {wanted}\ngot      {got}\n{fields}"))
}

fn in_order(wanted: &[RowObject], got: &[RowObject]) -> Option<String> {
    let mut out = String::new();
    let mut shown = 0;
    let rows = wanted.len().max(got.len());
    for i in 0..rows {
        let text = match (wanted.get(i), got.get(i)) {
            (Some(w), Some(g)) if same_row(w, g) => continue,
            (Some(w), Some(g)) => {
                format!("row {} differs\n  expected {}\n  got      {}\n{}", i + 1, json(w), json(g), fields(w, g))
            }
            (Some(w), None) => format!("row {} is missing\n  expected {}\n", i + 1, json(w)),
            (None, Some(g)) => format!("row {} was not expected\n  got      {}\n", i + 1, json(g)),
            (None, None) => continue,
        };
        shown += 1;
        if shown <= SHOWN_MAX {
            out.push_str(&text);
        }
    }
    finish(out, shown, wanted, got)
}

fn in_any_order(wanted: &[RowObject], got: &[RowObject]) -> Option<String> {
    let mut left: Vec<&RowObject> = got.iter().collect();
    let mut missing = Vec::new();
    for row in wanted {
        match left.iter().position(|g| same_row(row, g)) {
            Some(i) => {
                left.remove(i);
            }
            None => missing.push(row),
        }
    }
    let mut out = String::new();
    for row in missing.iter().take(SHOWN_MAX) {
        let _ = writeln!(out, "missing\n  expected {}", json(row));
        if let [only] = left.as_slice() {
            let _ = write!(out, "  got      {}\n{}", json(only), fields(row, only));
        }
    }
    let alone = missing.len() == 1 && left.len() == 1;
    for row in left.iter().take(SHOWN_MAX).filter(|_| !alone) {
        let _ = writeln!(out, "not expected\n  got      {}", json(row));
    }
    finish(out, missing.len() + left.len(), wanted, got)
}

fn finish(mut out: String, differences: usize, wanted: &[RowObject], got: &[RowObject]) -> Option<String> {
    if differences == 0 {
        return None;
    }
    let _ = writeln!(out, "{} expected, {} came, {differences} differ", count(wanted.len()), count(got.len()));
    Some(out)
}

fn count(rows: usize) -> String {
    if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") }
}

/// The fields that differ, a line each.
fn fields(wanted: &RowObject, got: &RowObject) -> String {
    let mut out = String::new();
    let names = wanted.keys().chain(got.keys().filter(|k| !wanted.contains_key(*k)));
    for name in names {
        let (w, g) = (wanted.get(name).unwrap_or(&Value::Null), got.get(name).unwrap_or(&Value::Null));
        if !same(w, g) {
            let _ = writeln!(out, "    {name}: expected {w}, got {g}");
        }
    }
    out
}

fn json(row: &RowObject) -> String {
    serde_json::to_string(row).unwrap_or_default()
}

fn same_row(wanted: &RowObject, got: &RowObject) -> bool {
    let covers =
        |a: &RowObject, b: &RowObject| a.iter().all(|(name, value)| same(value, b.get(name).unwrap_or(&Value::Null)));
    covers(wanted, got) && got.iter().all(|(name, value)| wanted.contains_key(name) || value.is_null())
}

fn same(wanted: &Value, got: &Value) -> bool {
    match (wanted, got) {
        (Value::Object(w), Value::Object(g)) => same_row(w, g),
        (Value::Array(w), Value::Array(g)) => w.len() == g.len() && w.iter().zip(g).all(|(w, g)| same(w, g)),
        (Value::Number(w), Value::Number(g)) => match (w.as_i64(), g.as_i64()) {
            (Some(w), Some(g)) => w == g,
            _ => close(w.as_f64().unwrap_or(f64::NAN), g.as_f64().unwrap_or(f64::NAN)),
        },
        _ => wanted == got,
    }
}

fn close(a: f64, b: f64) -> bool {
    a == b || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn rows(text: &str) -> Vec<RowObject> {
        serde_json::from_str(text).unwrap()
    }

    fn diff(wanted: &str, got: &str, order: RowOrder) -> String {
        difference(&rows(wanted), &rows(got), order).unwrap_or_default()
    }

    #[test]
    fn what_agrees() {
        for (wanted, got) in [
            (r#"[{"a":1,"b":null}]"#, r#"[{"a":1.0}]"#),
            (r#"[{"a":1}]"#, r#"[{"c":null,"a":1.0000000001}]"#),
            (r#"[{"a":{"b":[1,{"c":null}]}}]"#, r#"[{"a":{"b":[1,{}]}}]"#),
            (r#"[{"a":1e300}]"#, r#"[{"a":1.0000000000001e300}]"#),
            ("[]", "[]"),
        ] {
            assert_eq!(diff(wanted, got, RowOrder::Exact), "", "{wanted} {got}");
            assert_eq!(diff(got, wanted, RowOrder::Any), "", "{wanted} {got}");
        }
    }

    #[test]
    fn what_does_not() {
        for (wanted, got) in [
            (r#"[{"a":1}]"#, r#"[{"a":true}]"#),
            (r#"[{"a":1}]"#, r#"[{"a":"1"}]"#),
            (r#"[{"a":1}]"#, r#"[{"a":1.00001}]"#),
            (r#"[{"a":0}]"#, r#"[{"a":1e-300}]"#),
            (r#"[{"a":9007199254740993}]"#, r#"[{"a":9007199254740992}]"#),
            (r#"[{"a":[1]}]"#, r#"[{"a":[1,null]}]"#),
            (r#"[{"a":null}]"#, r#"[{"a":0}]"#),
            (r#"[{}]"#, "[]"),
        ] {
            for order in [RowOrder::Exact, RowOrder::Any] {
                assert_ne!(diff(wanted, got, order), "", "{wanted} {got}");
                assert_ne!(diff(got, wanted, order), "", "{wanted} {got}");
            }
        }
    }

    #[test]
    fn a_row_counts_as_often_as_it_comes() {
        assert_ne!(diff(r#"[{"a":1},{"a":1}]"#, r#"[{"a":1},{"a":2}]"#, RowOrder::Any), "");
        assert_eq!(diff(r#"[{"a":1},{"a":2}]"#, r#"[{"a":2},{"a":1}]"#, RowOrder::Any), "");
        assert_ne!(diff(r#"[{"a":1},{"a":2}]"#, r#"[{"a":2},{"a":1}]"#, RowOrder::Exact), "");
    }

    #[test]
    fn differences_in_order_show_row_and_field() {
        expect![[r#"
              row 2 differs
                expected {"id":2,"v":2.5}
                got      {"id":2,"v":2,"w":1}
                  v: expected 2.5, got 2
                  w: expected null, got 1
              row 3 is missing
                expected {"id":3}
              3 rows expected, 2 rows came, 2 differ
        "#]]
        .assert_eq(&diff(
            r#"[{"id":1},{"id":2,"v":2.5},{"id":3}]"#,
            r#"[{"id":1},{"id":2,"v":2,"w":1}]"#,
            RowOrder::Exact,
        ));
    }

    #[test]
    fn differences_in_any_order_show_what_is_left_over() {
        expect![[r#"
              missing
                expected {"id":2}
              not expected
                got      {"id":4}
              not expected
                got      {"id":5}
              2 rows expected, 3 rows came, 3 differ
        "#]]
        .assert_eq(&diff(r#"[{"id":1},{"id":2}]"#, r#"[{"id":4},{"id":1},{"id":5}]"#, RowOrder::Any));
        expect![[r#"
              missing
                expected {"id":2}
                got      {"id":3}
                  id: expected 2, got 3
              1 row expected, 1 row came, 2 differ
        "#]]
        .assert_eq(&diff(r#"[{"id":2}]"#, r#"[{"id":3}]"#, RowOrder::Any));
    }
}

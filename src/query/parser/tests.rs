//! By feature: what is read, and whole drawn errors.

mod accepts;
mod limits;
mod rejects;
mod rejects_expressions;

use expect_test::Expect;

use super::parse;

/// The drawn errors of a script that must have some.
fn errors(text: &str) -> String {
    parse(text, "q.asaql").expect_err("must not parse").to_string()
}

/// The errors of each text, one after the other.
fn check(texts: &[&str], want: Expect) {
    let drawn: Vec<String> = texts.iter().map(|text| errors(text)).collect();
    want.assert_eq(&drawn.join("\n"));
}

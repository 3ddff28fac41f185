//! By feature: what is read, and whole drawn errors.

mod accepts;
mod limits;
mod rejects;

use super::parse;

/// The drawn errors of a script that must have some.
fn errors(text: &str) -> String {
    parse(text, "q.asaql").expect_err("must not parse").to_string()
}

//! Counts visits: a function that remembers from row to row, and tells time, logs and reads a setting on the way.
//!
//! In the job file: `imports = ["state", "clock", "log"]` and `config = { every = 100 }`.

wit_bindgen::generate!({ path: ["../../wit/imports.wit", "wit"], world: "forebay:visit-count/visit-count", generate_all });

use forebay::host::clock;
use forebay::host::log::{self, Level};
use forebay::host::{config, state};

struct VisitCount;

/// What is remembered of a visitor: the count and the ticks of the last visit, eight bytes each.
fn recall(who: &str) -> Result<(i64, Option<i64>), String> {
    let Some(bytes) = state::get(who) else { return Ok((0, None)) };
    let number = |at: usize| Some(i64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    match (number(0), number(8)) {
        (Some(count), Some(last)) => Ok((count, Some(last))),
        _ => Err(format!("what is remembered of `{who}` is damaged")),
    }
}

impl Guest for VisitCount {
    fn visit_count(who: String) -> Result<Visit, String> {
        let (before, last) = recall(&who)?;
        let count = before + 1;
        let now = clock::now().ticks_since_year_one;
        state::set(&who, &[count.to_le_bytes(), now.to_le_bytes()].concat());
        let every = config::get("every").and_then(|text| text.parse::<i64>().ok()).filter(|every| *every > 0);
        if every.is_some_and(|every| count % every == 0) {
            log::write(Level::Info, &format!("{who} has come {count} times"));
        }
        Ok(Visit { count, last: last.map(|ticks_since_year_one| Datetime { ticks_since_year_one }) })
    }
}

export!(VisitCount);

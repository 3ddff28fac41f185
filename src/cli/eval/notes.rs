//! What a run over files has to say beside its rows.
//!
//! In: what executors emit. Out: one line for each thing that went wrong without stopping anything. Not here: what
//! stops a run.

use std::collections::BTreeMap;

use crate::batch::Reason;
use crate::engine::Emitted;

/// What went wrong without stopping anything: how often, and the first message, by what happened and the reason.
#[derive(Debug, Default)]
pub(super) struct Notes(BTreeMap<(&'static str, Reason), (u64, String)>);

impl Notes {
    pub fn count(&mut self, what: &'static str, reason: Reason, n: u64, message: &str) {
        let (count, first) = self.0.entry((what, reason)).or_default();
        *count += n;
        if first.is_empty() {
            message.clone_into(first);
        }
    }

    pub fn add(&mut self, emitted: &Emitted) {
        for failure in &emitted.failures {
            self.count("set aside", failure.reason, 1, &failure.message);
        }
        for (reason, n) in &emitted.counts.dropped {
            self.count("dropped by the time policy", reason, *n, "");
        }
        for (reason, n) in &emitted.counts.nulled {
            self.count("got NULL in place of a failing expression", reason, *n, "");
        }
    }

    pub fn lines(&self, output: &str) -> impl Iterator<Item = String> {
        self.0.iter().map(move |((what, reason), (n, first))| {
            let first = if first.is_empty() { String::new() } else { format!("; the first: {first}") };
            format!("warning: output `{output}`: {n} row(s) {what} ({reason}){first}")
        })
    }
}

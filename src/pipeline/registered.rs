//! The consumers of a job as the journal knows them.
//!
//! In: what a start has registered. Out: those that are gone from the job are closed. Invariant: that is done once
//! everything else has been built. Not here: making them (`statement`).

use smol_str::SmolStr;

use super::PipelineError;
use super::statement::{StatementBuild, span};
use crate::journal::consumer_span;

/// A consumer of the job as the journal knows it.
#[derive(Debug)]
pub struct Registered {
    pub name: SmolStr,
    pub statement: SmolStr,
    /// Its position, where the text of its statement is another one than before.
    pub changed_at: Option<i64>,
}

impl StatementBuild<'_> {
    /// Closes the consumers that are gone from the job and clears the state of those that were changed: once everything
    /// else has been built, so that a start that fails has taken nothing from the former job.
    ///
    /// # Errors
    /// When the journal refuses.
    pub fn keep_only(&self, consumers: &[Registered]) -> Result<(), PipelineError> {
        let names: Vec<SmolStr> = consumers.iter().map(|consumer| consumer.name.clone()).collect();
        for removed in self.journal.keep_only_consumers(&names)? {
            let _span = consumer_span(&removed.name).entered();
            let unread = removed.unread;
            tracing::warn!(
                unread,
                "no longer part of the job: closed, its unread records are counted consumer_removed"
            );
        }
        for Registered { statement, changed_at, .. } in consumers {
            if let Some(position) = changed_at {
                let _of = span(statement).entered();
                tracing::warn!(
                    position,
                    "the statement was changed: it keeps its position and starts with empty state"
                );
            }
        }
        Ok(())
    }
}

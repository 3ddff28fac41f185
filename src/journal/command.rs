//! What waits for the writer.
//!
//! In: [`Append`]s, [`Commit`]s and steps of the journal's own. Out: [`Command`]s. Invariant: a command that asks for
//! an answer gets exactly one, also when the journal fails or closes. Not here: how commands wait (`queue`).

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::error::{JournalError, StepError};
use super::request::{Append, Commit, OnCommitted, letters_bytes};
use super::transaction::Transaction;
use crate::batch::{RawEvent, Urgency};

pub(super) enum Command {
    Append(Append),
    Commit(Commit, OnCommitted),
    Control(Box<dyn Control>),
}

impl Command {
    /// The streams it would make longer, when rows go there.
    pub fn emits_to(&self) -> impl Iterator<Item = u32> {
        let commit = match self {
            Command::Commit(commit, _) => Some(commit),
            _ => None,
        };
        commit.into_iter().flat_map(Commit::emitted).map(|(stream, _)| stream.0)
    }

    pub fn urgency(&self) -> Urgency {
        match self {
            Command::Append(append) => append.urgency,
            _ => Urgency::InBudget,
        }
    }

    /// Whether it need not be durable soon.
    pub fn can_wait(&self) -> bool {
        matches!(self, Command::Commit(Commit { can_wait: true, .. }, _))
    }

    /// Whether it needs nothing of the SQLite file: dead letters are compared with those that are there.
    pub fn is_quick(&self) -> bool {
        match self {
            Command::Append(append) => append.undecodable.is_empty(),
            Command::Commit(commit, _) => commit.dead_letters.is_empty(),
            Command::Control(_) => false,
        }
    }

    /// How many records and about how many bytes it brings.
    pub fn size(&self) -> (usize, usize) {
        /// What a command costs beside its records.
        const COMMAND_BYTES: usize = 256;
        match self {
            Command::Append(a) => {
                let events: usize = a.events.iter().map(|e| e.payload.len() + size_of::<RawEvent>()).sum();
                (a.events.len(), COMMAND_BYTES + events + letters_bytes(&a.undecodable))
            }
            Command::Commit(c, _) => {
                let rows = c.emitted().map(|(_, rows)| rows.batch.len()).sum();
                (rows, COMMAND_BYTES + c.bytes())
            }
            Command::Control(_) => (0, COMMAND_BYTES),
        }
    }

    /// Answers a command that will not be done.
    pub fn refuse(self, error: JournalError) {
        match self {
            Command::Append(append) => (append.on_durable)(Err(error)),
            Command::Commit(_, done) => done(Err(error)),
            Command::Control(control) => control.answer(Err(error)),
        }
    }
}

/// A step that somebody waits for: registering, removing, meta values. May run again after a rollback.
pub(super) trait Control: Send {
    fn apply(&mut self, tx: &mut Transaction<'_>) -> rusqlite::Result<()>;
    /// The transaction is durable, or will never be.
    fn answer(self: Box<Self>, outcome: Result<(), JournalError>);
}

struct Ask<F, T> {
    step: F,
    result: Result<T, JournalError>,
    reply: SyncSender<Result<T, JournalError>>,
}

impl<F, T> Control for Ask<F, T>
where
    F: FnMut(&mut Transaction<'_>) -> Result<T, StepError> + Send,
    T: Send,
{
    fn apply(&mut self, tx: &mut Transaction<'_>) -> rusqlite::Result<()> {
        self.result = match (self.step)(tx) {
            Ok(value) => Ok(value),
            Err(StepError::Refused(error)) => Err(error),
            Err(StepError::Sql(error)) => return Err(error),
        };
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), JournalError>) {
        // nobody listens any more: nothing to do
        let _ = self.reply.try_send(outcome.and(self.result));
    }
}

/// A control command and where its answer comes.
pub(super) fn ask<T: Send + 'static>(
    step: impl FnMut(&mut Transaction<'_>) -> Result<T, StepError> + Send + 'static,
) -> (Command, Receiver<Result<T, JournalError>>) {
    let (reply, answer) = sync_channel(1);
    (Command::Control(Box::new(Ask { step, result: Err(JournalError::Closed), reply })), answer)
}

//! The one committing step of all parts: several commits under way, confirmed in order.
//!
//! In: commits, each with how far the part is in event time behind it. Out: the mark that the part behind reads.
//! Invariant: a mark is set only after everything up to it can be read; at most [`UNDER_WAY_MAX`] commits are
//! unconfirmed. Not here: when a commit is due (`due`), what it holds.

use std::collections::VecDeque;

use super::mark::Mark;
use crate::journal::{Commit, Journal, JournalError, Receipt};
use crate::time::Timestamp;

/// With one alone a part would go at the pace of the commit interval. A crash repeats as many deliveries at most; the
/// journal's queue bounds the bytes.
const UNDER_WAY_MAX: usize = 8;

/// What a part has done.
#[derive(Debug)]
pub struct DueCommit {
    /// `None`: nothing has to be stored.
    pub commit: Option<Commit>,
    /// How far the part is in event time once that is stored.
    pub watermark: Option<Timestamp>,
}

/// The commits of one part that the journal has not yet confirmed.
#[derive(Debug)]
pub struct Commits {
    journal: Journal,
    mark: Mark,
    under_way: VecDeque<(Receipt, Option<Timestamp>)>,
}

impl Commits {
    /// `mark` tells the part behind.
    pub fn new(journal: Journal, mark: Mark) -> Commits {
        Commits { journal, mark, under_way: VecDeque::new() }
    }

    /// Hands a commit to the journal; waits for the oldest one when too many are under way.
    ///
    /// # Errors
    /// An earlier commit was refused.
    pub fn add(&mut self, step: DueCommit) -> Result<(), JournalError> {
        match step.commit {
            Some(commit) => self.under_way.push_back((self.journal.commit(commit), step.watermark)),
            None => match self.under_way.back_mut() {
                Some((_, watermark)) => *watermark = step.watermark.max(*watermark),
                None => self.mark.set(step.watermark),
            },
        }
        while self.under_way.len() > UNDER_WAY_MAX {
            self.confirm_oldest()?;
        }
        Ok(())
    }

    /// Confirms what has been answered; waits for nothing.
    ///
    /// # Errors
    /// A commit was refused.
    pub fn settle(&mut self) -> Result<(), JournalError> {
        while let Some(answer) = self.under_way.front().and_then(|(receipt, _)| receipt.poll()) {
            let watermark = self.under_way.pop_front().and_then(|(_, watermark)| watermark);
            answer?;
            self.mark.set(watermark);
        }
        Ok(())
    }

    /// Waits for all that are under way.
    ///
    /// # Errors
    /// One was refused.
    pub fn drain(&mut self) -> Result<(), JournalError> {
        // nothing follows that could take them along
        self.journal.flush();
        while !self.under_way.is_empty() {
            self.confirm_oldest()?;
        }
        Ok(())
    }

    fn confirm_oldest(&mut self) -> Result<(), JournalError> {
        if let Some((receipt, watermark)) = self.under_way.pop_front() {
            receipt.wait()?;
            self.mark.set(watermark);
        }
        Ok(())
    }
}

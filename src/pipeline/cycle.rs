//! The one loop of all parts: read, work, commit, confirm.
//!
//! In: a part as a [`Cycle`]. Out: how it ended. Invariant: commits are handed over in order, and a part that ends well
//! has all of them confirmed. Not here: what a part reads, does or commits.

use super::PipelineError;
use super::commits::{Commits, DueCommit};

/// Whether a part goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    On,
    /// The job stops: what was read last is read again at the next start.
    Stop,
}

/// What a part does each time round.
pub trait Cycle {
    type Found;

    /// What is next, or that nothing came for a while; `None` when nothing more will.
    ///
    /// # Errors
    /// The part cannot go on.
    fn read(&mut self) -> Result<Option<Self::Found>, PipelineError>;

    /// Does the part's own work with what was read.
    ///
    /// # Errors
    /// The part cannot go on.
    fn work(&mut self, found: Self::Found) -> Result<Go, PipelineError>;

    /// What is to be committed now; `at_end`: everything that is done.
    ///
    /// # Errors
    /// The part cannot go on.
    fn due(&mut self, at_end: bool) -> Result<Option<DueCommit>, PipelineError>;
}

/// A part with its commits, whatever it does.
pub trait Rounds: Send {
    /// One time round; `false` when the part has come to its end.
    ///
    /// # Errors
    /// What the part ended with, or the journal's refusal of a commit.
    fn round(&mut self) -> Result<bool, PipelineError>;

    /// Waits until its commits are confirmed.
    ///
    /// # Errors
    /// The journal refused one.
    fn drain(&mut self) -> Result<(), PipelineError>;
}

/// A part in its loop.
#[derive(Debug)]
pub struct Looped<P> {
    pub part: P,
    pub commits: Commits,
}

impl<P: Cycle + Send> Rounds for Looped<P> {
    fn round(&mut self) -> Result<bool, PipelineError> {
        let Some(found) = self.part.read()? else {
            self.part.due(true)?.map_or(Ok(()), |step| self.commits.add(step))?;
            return Ok(false);
        };
        let go = self.part.work(found)?;
        if let Some(step) = self.part.due(go == Go::Stop)? {
            self.commits.add(step)?;
        }
        self.commits.settle()?;
        Ok(go == Go::On)
    }

    fn drain(&mut self) -> Result<(), PipelineError> {
        Ok(self.commits.drain()?)
    }
}

/// Runs a part until it ends.
///
/// # Errors
/// What the part ended with, or the journal's refusal of a commit.
pub fn run(rounds: &mut dyn Rounds) -> Result<(), PipelineError> {
    // a part that failed says so at once: its commits are done by the journal, which may have to wait for room
    while rounds.round()? {}
    rounds.drain()
}

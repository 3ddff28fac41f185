//! The one loop of all parts: read, work, commit, confirm.
//!
//! In: a part as a [`Cycle`]. Out: its end. Invariant: commits are handed over in order, and all that were handed over
//! are confirmed before the part ends, however it ends. Not here: what a part reads, does or commits.

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

/// Runs a part until it ends.
///
/// # Errors
/// What the part ended with, or the journal's refusal of a commit.
pub fn run(mut part: impl Cycle, mut commits: Commits) -> Result<(), PipelineError> {
    let ended = rounds(&mut part, &mut commits);
    // a part that failed has commits under way all the same
    let drained = commits.drain();
    ended.and(drained.map_err(PipelineError::from))
}

fn rounds(part: &mut impl Cycle, commits: &mut Commits) -> Result<(), PipelineError> {
    while let Some(found) = part.read()? {
        let go = part.work(found)?;
        if let Some(step) = part.due(go == Go::Stop)? {
            commits.add(step)?;
        }
        commits.settle()?;
        if go == Go::Stop {
            return Ok(());
        }
    }
    part.due(true)?.map_or(Ok(()), |step| Ok(commits.add(step)?))
}

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

/// Runs a part until it ends.
///
/// # Errors
/// What the part ended with, or the journal's refusal of a commit.
pub fn run(mut part: impl Cycle, mut commits: Commits) -> Result<(), PipelineError> {
    // a part that failed says so at once: its commits are done by the journal, which may have to wait for room
    rounds(&mut part, &mut commits)?;
    Ok(commits.drain()?)
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

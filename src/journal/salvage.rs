//! A new pool of all that can be read of a damaged one.
//!
//! In: the files of a pool, whatever state they are in. Out: a closed pool in a file of its own, and what is missing in
//! words and numbers. Invariant: the files are only read; a record is taken over as it was stored or not at all; what
//! is missing lies in ranges that consumers count, as with any damage. Not here: the trees (`cells`), putting the file
//! in place (`restore`).
//!
//! SQLite is not asked: one damaged page keeps it from all that lies behind, and from writing. A pool has a dozen
//! tables of known shape, and the rows that matter most, segments and state, have checksums; so they are found page by
//! page, without the tree above them if need be.

mod aside;
mod balance;
mod cells;
mod fill;
mod found;
mod pages;
mod shapes;
mod tables;
#[cfg(test)]
mod tests;
pub(super) mod write;

use std::path::Path;

use super::config::JournalConfig;
use super::error::JournalError;
use super::lock::Lock;
use super::schema;
use super::verify::{VerifyReport, verify};
pub use found::{LostRange, Salvaged};

/// Writes all that can be read of a pool into a new one; no job may run on it. Gives what `verify` says of the new one
/// too.
///
/// # Errors
/// A job runs, the pool is of another program, or the file cannot be written; there is none then.
pub fn salvage(config: &JournalConfig, to: &Path) -> Result<(Salvaged, VerifyReport), JournalError> {
    let _lock = lock(&config.path)?;
    let (new, salvaged) = write::write(config, to)?;
    let report = verify(new.path())?;
    new.finish()?;
    Ok((salvaged, report))
}

/// Where nobody can write there is no job either.
fn lock(path: &Path) -> Result<Option<Lock>, JournalError> {
    match Lock::take(path) {
        Err(error @ JournalError::Locked { .. }) => Err(error),
        Err(_) if schema::is_on_read_only(path) => Ok(None),
        taken => taken.map(Some),
    }
}

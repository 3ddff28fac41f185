//! One process a journal.
//!
//! In: the journal's path. Out: a [`Lock`] that holds the file `<journal>.lock` until it is dropped or the process
//! ends. Invariant: the file itself says nothing; only the operating system's lock on it counts, so a crash leaves
//! nothing to clean up. Not here: readers, which need no lock.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::error::JournalError;
use super::schema::beside;

#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // a process that is being started shares the open file for a moment: closing ours alone would leave it locked
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "the journal's lock is given back when the process ends");
        }
    }
}

impl Lock {
    pub fn take(journal: &Path) -> Result<Lock, JournalError> {
        // each name would have logs of its own, and none all of them
        let names = fs::metadata(journal).map_or(1, |file| file.nlink());
        if names > 1 {
            return Err(JournalError::Names { path: journal.display().to_string(), names });
        }
        let path = beside(journal, ".lock");
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(|e| JournalError::unusable(journal, format!("{}: {e}", path.display())))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { file }),
            Err(TryLockError::WouldBlock) => {
                Err(JournalError::Locked { path: journal.display().to_string(), lock: path.display().to_string() })
            }
            Err(TryLockError::Error(e)) => Err(JournalError::unusable(journal, format!("{}: {e}", path.display()))),
        }
    }
}

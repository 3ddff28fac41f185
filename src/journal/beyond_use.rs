//! A note beside a pool that it is beyond use, for the next start.
//!
//! In: why, as a running job met it, or as a start found it that moves the files away. Out: the same, at the next
//! start. Invariant: the note is there before the first file is moved, and until the last one is, so the next start
//! goes on where one was killed. Not here: what is done about it (`recovery`).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::config::OnDamage;
use super::error::JournalError;
use super::redo::sync_folder_of;
use super::schema::beside;

const SUFFIX: &str = "-beyond-use";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct BeyondUseNote {
    pub reason: String,
    /// What the names of the files get that are being moved away.
    pub moved_to: Option<String>,
    /// All of them have their new names.
    #[serde(default)]
    pub all_moved: bool,
}

/// Where it is.
pub(super) fn path(pool: &Path) -> PathBuf {
    beside(pool, SUFFIX)
}

/// What a note says, if there is one.
pub(super) fn noted(pool: &Path) -> Option<BeyondUseNote> {
    // nobody else writes there; what is no note has nothing to say
    serde_json::from_slice(&fs::read(path(pool)).ok()?).ok()
}

/// In place of one that is there; durable when it returns.
pub(super) fn note(pool: &Path, note: &BeyondUseNote) -> io::Result<()> {
    let (path, new) = (path(pool), beside(pool, "-beyond-use-new"));
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec(note)?)?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    sync_folder_of(&path)
}

/// Has the next start know what a running job met, where the settings want a fresh pool in place of such a one.
pub(super) fn tell_next_start(pool: &Path, on_damage: OnDamage, error: &JournalError) {
    if let (JournalError::BeyondUse { reason }, OnDamage::Fresh) = (error, on_damage) {
        let told = note(pool, &BeyondUseNote { reason: reason.clone(), moved_to: None, all_moved: false });
        if let Err(error) = told {
            tracing::error!("the next start cannot be told that the pool is beyond use: {error}");
        }
    }
}

/// Takes a note away, if there is one; durable when it returns.
pub(super) fn forget(pool: &Path) -> io::Result<()> {
    let path = path(pool);
    match fs::remove_file(&path) {
        Ok(()) => sync_folder_of(&path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back_until_it_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let pool = dir.path().join("job.db");
        assert_eq!(noted(&pool), None);
        forget(&pool).unwrap();
        let one = BeyondUseNote { reason: "a reason".into(), moved_to: Some("-damaged-1".into()), all_moved: true };
        note(&pool, &one).unwrap();
        assert_eq!(noted(&pool), Some(one));
        let two = BeyondUseNote { moved_to: None, ..noted(&pool).unwrap() };
        note(&pool, &two).unwrap();
        assert_eq!(noted(&pool), Some(two));
        forget(&pool).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

//! A pool that is beyond use makes room for a fresh one, which begins with all that can be read of it.
//!
//! In: a pool whose lock the caller has, and why it is beyond use. Out: its files under other names, and what that
//! means in words. Invariant: no byte of it is lost, and a start that was killed in between is gone on with: the note
//! beside the pool names where its files go. Not here: whether that is wanted (`on_damage`).

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::beyond_use::{self, BeyondUseNote};
use super::config::JournalConfig;
use super::error::JournalError;
use super::redo::sync_folder_of;
use super::salvage::write::write;
use super::schema::beside;

/// Where the fresh pool lies until the other is out of its way.
const SALVAGED: &str = "-salvaged";

/// Moves the files aside; the fresh pool is there, or is begun by whoever opens it.
pub(super) fn make_room(config: &JournalConfig, reason: &str) -> Result<String, JournalError> {
    let path = &config.path;
    let unusable =
        |error: std::io::Error, what: &Path| JournalError::unusable(path, format!("{}: {error}", what.display()));
    let begun = beyond_use::noted(path).filter(|note| note.moved_to.is_some());
    let mut note = begun.unwrap_or_else(|| {
        let at: String = config.clock.now().to_string().chars().filter(char::is_ascii_alphanumeric).collect();
        BeyondUseNote { reason: reason.to_owned(), moved_to: Some(format!("-damaged-{at}")), all_moved: false }
    });
    let to = note.moved_to.clone().unwrap_or_default();
    if !note.all_moved {
        beyond_use::note(path, &note).map_err(|error| unusable(error, path))?;
        // found by the same program, were it to look into them
        for suffix in ["-wal", "-shm", "-redo", "-high-water", ""] {
            let from = beside(path, suffix);
            move_file(&from, &beside(path, &format!("{to}{suffix}"))).map_err(|error| unusable(error, &from))?;
        }
        // a file by the pool's name is the fresh one from now on
        note.all_moved = true;
        beyond_use::note(path, &note).map_err(|error| unusable(error, path))?;
    }
    let (moved, fresh) = (beside(path, &to), beside(path, SALVAGED));
    let content = match fresh.exists() || beside(path, "").exists() {
        true => "with what can be read of it: `forebay journal status` tells what is set aside".to_owned(),
        false => {
            let former = JournalConfig { path: moved.clone(), ..config.clone() };
            let written = write(&former, &fresh).and_then(|(new, salvaged)| new.finish().map(|()| salvaged));
            match written {
                Ok(salvaged) => format!(
                    "with what can be read of it (records there: {}, known to be missing: {})",
                    salvaged.records,
                    salvaged.lost_records()
                ),
                Err(error) => format!("without anything of it: {error}"),
            }
        }
    };
    move_file(&fresh, &beside(path, "")).map_err(|error| unusable(error, &fresh))?;
    sync_folder_of(&beside(path, "")).map_err(|error| unusable(error, path))?;
    beyond_use::forget(path).map_err(|error| unusable(error, path))?;
    Ok(format!(
        "the pool could not be used ({reason}), so a fresh one was begun {content}; the former one is in {}, and in \
         the files beside it",
        moved.display()
    ))
}

/// Renames a file that may not be there.
fn move_file(from: &Path, to: &Path) -> std::io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

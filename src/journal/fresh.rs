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
use super::new_file::rename_new;
use super::paths::SALVAGED;
use super::redo::sync_folder_of;
use super::salvage::write::write;
use super::schema::beside;

/// What may lie beside a pool, and itself. A fresh pool that never took its place is of no use to the next one.
const FILES: [&str; 6] = ["-wal", "-shm", "-redo", "-high-water", SALVAGED, ""];
/// Files of one name that are kept.
const NAMES_MAX: u32 = 1000;

/// Moves the files aside; the fresh pool is there, or is begun by whoever opens it.
pub(super) fn make_room(config: &JournalConfig, reason: &str) -> Result<String, JournalError> {
    let path = &config.path;
    let unusable =
        |error: std::io::Error, what: &Path| JournalError::unusable(path, format!("{}: {error}", what.display()));
    let begun = beyond_use::noted(path).filter(|note| note.moved_to.is_some());
    let mut note = begun.unwrap_or_else(|| {
        let at: String = config.clock.now().to_string().chars().filter(char::is_ascii_alphanumeric).collect();
        let moved_to = Some(free_name(path, &format!("-damaged-{at}")));
        BeyondUseNote { reason: reason.to_owned(), moved_to, all_moved: false }
    });
    let to = note.moved_to.clone().unwrap_or_default();
    if !note.all_moved {
        beyond_use::note(path, &note).map_err(|error| unusable(error, path))?;
        // found by the same program, were it to look into them
        for suffix in FILES {
            let from = beside(path, suffix);
            move_file(&from, &beside(path, &format!("{to}{suffix}"))).map_err(|error| unusable(error, &from))?;
        }
        // a file by the pool's name is the fresh one from now on
        note.all_moved = true;
        beyond_use::note(path, &note).map_err(|error| unusable(error, path))?;
    }
    let (moved, fresh, pool) = (beside(path, &to), beside(path, SALVAGED), beside(path, ""));
    let content = match fresh.exists() || pool.exists() {
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
    keep_mode(&moved, &fresh);
    match rename_new(&fresh, &pool) {
        // a person put one there meanwhile
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            move_file(&fresh, &beside(path, &format!("{to}{SALVAGED}"))).map_err(|error| unusable(error, &fresh))?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        renamed => renamed.map_err(|error| unusable(error, &fresh))?,
    }
    sync_folder_of(&pool).map_err(|error| unusable(error, path))?;
    beyond_use::forget(path).map_err(|error| unusable(error, path))?;
    Ok(format!(
        "the pool could not be used ({reason}), so a fresh one was begun {content}; the former one is in {}, and in \
         the files beside it",
        moved.display()
    ))
}

/// Whoever may look into the former pool may look into the fresh one.
fn keep_mode(former: &Path, fresh: &Path) {
    let Ok(former) = fs::metadata(former) else { return };
    match fs::set_permissions(fresh, former.permissions()) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!("{} keeps the mode 0600, not that of the former pool: {error}", fresh.display());
        }
        _ => {}
    }
}

/// The name, with a number where files have it: two pools may go in one second.
fn free_name(pool: &Path, name: &str) -> String {
    let numbered = |n: u32| if n == 1 { name.to_owned() } else { format!("{name}-{n}") };
    let is_free = |name: &String| FILES.iter().all(|suffix| !beside(pool, &format!("{name}{suffix}")).exists());
    (1..NAMES_MAX).map(numbered).find(is_free).unwrap_or_else(|| name.to_owned())
}

/// Renames a file that may not be there. One that has the name is kept, and this one gets a number.
fn move_file(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut name = to.to_owned();
    for n in 2..NAMES_MAX {
        match rename_new(from, &name) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            done => return done,
        }
        name = beside(to, &format!("-{n}"));
    }
    Err(ErrorKind::AlreadyExists.into())
}

//! The files of a pool by their names.
//!
//! In: the path of the SQLite file. Out: the paths of those beside it. Invariant: whoever comes by a symbolic link gets
//! the same paths as by the file itself. Not here: opening them.

use std::fs;
use std::path::{Path, PathBuf};

/// Behind the name of a pool: what can be read of one that is beyond use, until it takes its place.
pub(super) const SALVAGED: &str = "-salvaged";

/// Where SQLite keeps the write-ahead log of this file.
pub(super) fn wal_path(path: &Path) -> PathBuf {
    beside(path, "-wal")
}

/// Where the redo log of this file is.
pub(super) fn redo_path(path: &Path) -> PathBuf {
    beside(path, "-redo")
}

/// A file beside the journal, named after it: beside the file itself where the path is a symbolic link, as SQLite
/// keeps its own, so that whoever comes by another name meets the same lock and the same logs.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = real(path).into_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

/// A file that tells that there is a pool, or that there was one.
pub fn left_of_pool(path: &Path) -> Option<PathBuf> {
    let file = beside(path, "");
    if file.exists() { Some(file) } else { left_beside(path) }
}

/// The same where the pool's own file is not looked at.
pub(super) fn left_beside(path: &Path) -> Option<PathBuf> {
    let beside = |suffix: &&str| beside(path, suffix);
    // an empty write-ahead log tells nothing
    let is_left = |file: &PathBuf| fs::metadata(file).is_ok_and(|file| file.len() > 0);
    ["-redo", "-high-water", "-wal"].iter().map(beside).find(is_left)
}

/// The folder of the file itself.
pub(super) fn folder(path: &Path) -> PathBuf {
    let path = real(path);
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// Where the links of a path lead; what cannot be read is left to whoever opens it.
fn real(path: &Path) -> PathBuf {
    /// As many as the system follows.
    const LINKS_MAX: usize = 40;
    let mut found = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(to) = fs::read_link(&found) else { break };
        // relative to the folder of the link
        found = found.parent().map_or_else(|| to.clone(), |folder| folder.join(&to));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_leads_to_the_folder_of_the_file_itself() {
        let (card, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (file, link, again) = (card.path().join("job.db"), home.path().join("job.db"), home.path().join("again"));
        symlink(&file, &link).unwrap();
        symlink("job.db", &again).unwrap();
        for path in [&file, &link, &again] {
            assert_eq!((folder(path), beside(path, "-x")), (card.path().to_owned(), card.path().join("job.db-x")));
        }
        assert_eq!(folder(Path::new("job.db")), Path::new("."));
        let round = home.path().join("round");
        symlink(&round, &round).unwrap();
        assert_eq!(folder(&round), home.path(), "a link to itself ends");
    }
}

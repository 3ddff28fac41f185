//! A file that comes to be whole, or not at all.
//!
//! In: the name that it is to have. Out: a file beside it to be written, which gets that name in one step. Invariant: a
//! file that has the name already is never written over, and a process that was killed leaves nothing by that name;
//! what it left beside it is taken away by the next one that writes there. Not here: what is in the file.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::error::{JournalError, has_no_room};
use super::redo::sync_folder_of;

/// Readable by its owner alone.
const MODE: u32 = 0o600;

/// What SQLite may keep beside a file.
const OF_SQLITE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Taken away when it is dropped before it is [finished](NewFile::finish).
#[derive(Debug)]
pub(super) struct NewFile {
    to: PathBuf,
    unfinished: PathBuf,
    /// Locked, so that nobody else writes there.
    file: File,
    is_finished: bool,
}

impl NewFile {
    /// An empty file that only its owner may read.
    ///
    /// # Errors
    /// There is a file of that name, somebody else is writing one, or it cannot be made.
    pub fn create(to: &Path) -> Result<NewFile, JournalError> {
        if to.symlink_metadata().is_ok() {
            return Err(JournalError::Exists { path: to.display().to_string() });
        }
        let unfinished = with_suffix(to, "-unfinished");
        let file = locked(&unfinished).map_err(|error| not_written(to, &error))?;
        let new = NewFile { to: to.to_owned(), unfinished, file, is_finished: false };
        new.remove_of_sqlite();
        let narrowed = || unless_refused(new.file.set_permissions(Permissions::from_mode(MODE)));
        new.file.set_len(0).and_then(|()| narrowed()).map_err(|error| not_written(to, &error))?;
        Ok(new)
    }

    /// Where it is written. SQLite may have it open, but not when it is finished.
    pub fn path(&self) -> &Path {
        &self.unfinished
    }

    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Why it could not be written.
    pub fn not_written(&self, error: &impl ToString) -> JournalError {
        not_written(&self.to, error)
    }

    /// Gives it its name; all of it is durable when this returns.
    pub fn finish(mut self) -> Result<(), JournalError> {
        let finished = self.file.sync_all().and_then(|()| {
            self.remove_of_sqlite();
            rename_new(&self.unfinished, &self.to)
        });
        match finished {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(JournalError::Exists { path: self.to.display().to_string() });
            }
            finished => finished.map_err(|error| not_written(&self.to, &error))?,
        }
        self.is_finished = true;
        sync_folder_of(&self.to).map_err(|error| not_written(&self.to, &error))
    }

    fn remove_of_sqlite(&self) {
        for suffix in OF_SQLITE {
            let _ = fs::remove_file(with_suffix(&self.unfinished, suffix));
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_finished {
            self.remove_of_sqlite();
            let _ = fs::remove_file(&self.unfinished);
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// The file of this name, which nobody else has locked.
fn locked(path: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(MODE).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other(format!("another process is writing {}", path.display())));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // whoever had it locked may have given it its name meanwhile
        match fs::metadata(path) {
            Ok(now) if now.ino() == file.metadata()?.ino() => return Ok(file),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
}

/// A file system without modes of its own, as on a USB stick, refuses to change one.
fn unless_refused(changed: io::Result<()>) -> io::Result<()> {
    match changed {
        Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => Ok(()),
        changed => changed,
    }
}

/// Renames a file; one that has the name already stays.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(io::Error::from) {
        // not known to this file system
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            if to.symlink_metadata().is_ok() {
                return Err(ErrorKind::AlreadyExists.into());
            }
            fs::rename(from, to)
        }
        done => done,
    }
}

fn not_written(to: &Path, error: &impl ToString) -> JournalError {
    let (path, reason) = (to.display().to_string(), error.to_string());
    let remedy = match has_no_room(to) {
        true => "the disk there is full, or a quota is used up: free some room, or name a file on another disk",
        false => "name a file in a folder that is there and that you may write to",
    };
    JournalError::NotWritten { path, reason, remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn it_has_its_name_once_it_is_whole_and_writes_over_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("copy.db");
        // what a process left that was killed
        fs::write(with_suffix(&to, "-unfinished"), "half of it").unwrap();
        fs::write(with_suffix(&to, "-unfinished-journal"), "half of it").unwrap();
        let new = NewFile::create(&to).unwrap();
        assert_eq!(names(dir.path()), ["copy.db-unfinished"]);
        assert_eq!(fs::read(new.path()).unwrap(), b"");
        let second = NewFile::create(&to).unwrap_err().to_string();
        assert!(second.contains("another process is writing"), "{second}");
        fs::write(new.path(), "all of it").unwrap();
        new.finish().unwrap();
        assert_eq!((names(dir.path()), fs::read(&to).unwrap()), (vec!["copy.db".to_owned()], b"all of it".to_vec()));
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(NewFile::create(&to), Err(JournalError::Exists { .. })));

        let other = dir.path().join("other.db");
        let new = NewFile::create(&other).unwrap();
        // by somebody who asks nobody
        fs::write(&other, "theirs").unwrap();
        assert!(matches!(new.finish(), Err(JournalError::Exists { .. })));
        assert_eq!(
            (names(dir.path()), fs::read(&other).unwrap()),
            (vec!["copy.db".into(), "other.db".into()], b"theirs".to_vec())
        );
        assert!(matches!(NewFile::create(&dir.path().join("no/such")), Err(JournalError::NotWritten { .. })));
    }

    #[test]
    fn only_its_owner_may_read_it_from_the_first_moment_and_a_disk_without_modes_takes_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = locked(&dir.path().join("copy.db-unfinished")).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let refused = |errno: Errno| Err(io::Error::from(errno));
        assert!(unless_refused(refused(Errno::PERM)).is_ok());
        assert!(unless_refused(refused(Errno::IO)).is_err() && unless_refused(refused(Errno::ROFS)).is_err());
    }
}

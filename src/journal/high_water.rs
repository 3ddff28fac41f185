//! How far the inputs were acknowledged, told by a file of its own.
//!
//! In: the end of the inputs' stream after each commit that is durable. Out: the same, when the pool is opened or
//! looked at: where file and redo log reach less far, they have gone back. Invariant: it never says more than what was
//! durable; a crash of the machine may leave an older one, since nothing waits for its bytes. Not here: what is done
//! about a pool that went back (`recovery`).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::schema::beside;

/// Incarnation, end, checksum.
const BYTES: usize = 16 + 8 + 4;

#[derive(Debug)]
pub(super) struct HighWater {
    file: File,
    incarnation: [u8; 16],
    end: i64,
    /// The last write failed: it was told.
    is_failing: bool,
}

impl HighWater {
    /// Makes the file, or takes the one that is there. Durable when it returns, but for its name.
    pub fn create(journal: &Path, incarnation: [u8; 16], end: i64) -> io::Result<HighWater> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(beside(journal, "-high-water"))?;
        let high_water = HighWater { file, incarnation, end, is_failing: false };
        high_water.write()?;
        high_water.file.sync_all()?;
        Ok(high_water)
    }

    /// What is durable now ends here.
    pub fn raise(&mut self, end: i64) {
        if end == self.end {
            return;
        }
        self.end = end;
        // an older one tells less and nothing wrong
        let written = self.write();
        if let (Err(error), false) = (&written, self.is_failing) {
            tracing::warn!(%error, "how far inputs were acknowledged cannot be written: a pool that goes back tells \
                less");
        }
        self.is_failing = written.is_err();
    }

    fn write(&self) -> io::Result<()> {
        self.file.write_all_at(&bytes(self.incarnation, self.end), 0)
    }
}

/// How far this pool was acknowledged; `None` when nobody can tell.
pub(super) fn read(journal: &Path, incarnation: [u8; 16]) -> Option<i64> {
    read_any(journal).filter(|(of, _)| *of == incarnation).map(|(_, end)| end)
}

/// The same with the incarnation of the pool that it is of.
pub(super) fn read_any(journal: &Path) -> Option<([u8; 16], i64)> {
    let found = fs::read(beside(journal, "-high-water")).ok()?;
    let incarnation = *found.first_chunk::<16>()?;
    let end = i64::from_le_bytes(*found.get(16..)?.first_chunk::<8>()?);
    (found == bytes(incarnation, end)).then_some((incarnation, end))
}

fn bytes(incarnation: [u8; 16], end: i64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BYTES);
    bytes.extend(incarnation);
    bytes.extend(end.to_le_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_back_by_its_own_pool_only_and_whole_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("job.db");
        assert_eq!(read(&path, [1; 16]), None);
        let mut high_water = HighWater::create(&path, [1; 16], 5).unwrap();
        assert_eq!((read(&path, [1; 16]), read(&path, [2; 16])), (Some(5), None));
        high_water.raise(900);
        assert_eq!(read(&path, [1; 16]), Some(900));
        let whole = fs::read(beside(&path, "-high-water")).unwrap();
        for cut in 0..whole.len() {
            fs::write(beside(&path, "-high-water"), &whole[..cut]).unwrap();
            assert_eq!(read(&path, [1; 16]), None, "cut at {cut}");
        }
    }
}

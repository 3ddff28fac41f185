//! The redo log: what was committed since the last checkpoint, in one small file that is written over and over.
//!
//! In: the body of a record for each group commit. Out: the bodies again, after a crash or for another process that
//! looks. Invariant: a record counts only when it is whole, of the generation that the SQLite file names, and behind
//! all records before it; a checkpoint names a new generation in the transaction that takes the content over, and from
//! that commit on the old records are void. Not here: what a body says (`pending`), when a checkpoint is due
//! (`writer`).
//!
//! A commit of SQLite writes whole pages twice, in its log and in its file, and finds them in trees; that is right for
//! thousands of records and dear for one. Here one record costs one write and one `fdatasync` of a block or two that
//! the file already has.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

/// Length of the body, checksum, generation, number in the generation.
const HEAD_BYTES: usize = 4 + 4 + 8 + 8;
/// The file grows by doubling from here; bytes that are there already cost no change of the file's own data.
const LENGTH_MIN: u64 = 64 << 10;
/// No log is longer: what lies beyond was never written by us.
const LENGTH_MAX: u64 = 16 << 20;
/// What the file system writes at least.
const BLOCK: u64 = 4096;

/// The name of the generation in `meta`.
const META: &str = "redo_generation";

/// The log of the writer.
#[derive(Debug)]
pub(super) struct RedoLog {
    file: File,
    generation: u64,
    /// How many records there are.
    records: u64,
    /// Where the next record goes.
    end: u64,
    /// Of the file.
    length: u64,
    length_max: u64,
}

impl RedoLog {
    /// Opens the file, or makes it. What it holds is void: read it before.
    pub fn open(path: &Path, generation: u64, length_max: u64) -> io::Result<RedoLog> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        let length = file.metadata()?.len();
        let length_max = length_max.min(LENGTH_MAX);
        let mut log = RedoLog { file, generation, records: 0, end: 0, length, length_max };
        log.grow(LENGTH_MIN)?;
        log.file.sync_all()?;
        Ok(log)
    }

    /// Whether a body of this length fits before the next checkpoint.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.end + (HEAD_BYTES + bytes) as u64 <= self.length_max
    }

    /// Writes a record; it is durable when this returns. Gives the bytes of the blocks that were written.
    ///
    /// # Errors
    /// The file system's; the record does not count then, whatever of it was written.
    pub fn append(&mut self, body: &[u8]) -> io::Result<u64> {
        let length = u32::try_from(body.len()).map_err(|_| ErrorKind::FileTooLarge)?;
        let mut record = Vec::with_capacity(HEAD_BYTES + body.len());
        record.extend(length.to_le_bytes());
        record.extend(checksum(self.generation, self.records, body).to_le_bytes());
        record.extend(self.generation.to_le_bytes());
        record.extend(self.records.to_le_bytes());
        record.extend_from_slice(body);
        let end = self.end + record.len() as u64;
        let grown = self.grow(end)?;
        self.file.write_all_at(&record, self.end)?;
        self.file.sync_data()?;
        let blocks = end.div_ceil(BLOCK) - self.end / BLOCK;
        self.records += 1;
        self.end = end;
        Ok(grown + blocks * BLOCK)
    }

    /// Begins anew: the file has taken over what was here, and names this generation.
    pub fn restart(&mut self, generation: u64) {
        (self.generation, self.records, self.end) = (generation, 0, 0);
    }

    /// Gives room back that a quiet stream does not need; nothing may be in the log.
    pub fn shrink(&mut self) -> io::Result<()> {
        if self.end == 0 && self.length > LENGTH_MIN {
            self.file.set_len(LENGTH_MIN)?;
            self.length = LENGTH_MIN;
        }
        Ok(())
    }

    /// Makes the file at least so long; gives how many bytes that wrote.
    fn grow(&mut self, end: u64) -> io::Result<u64> {
        if end <= self.length {
            return Ok(0);
        }
        // a block at a time: a kernel that keeps larger pieces in memory counts each as written whole
        let zeros = [0; BLOCK as usize];
        let (before, length) = (self.length, end.next_power_of_two().max(LENGTH_MIN));
        while self.length < length {
            let n = (length - self.length).min(zeros.len() as u64);
            self.file.write_all_at(zeros.get(..n as usize).unwrap_or(&zeros), self.length)?;
            self.length += n;
        }
        Ok(length - before)
    }
}

/// What a log holds of one generation.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Bodies {
    /// In order.
    pub bodies: Vec<Vec<u8>>,
    /// The writer has begun a later generation meanwhile: the SQLite file has more than when it was looked at.
    pub is_overtaken: bool,
}

/// The bodies of a generation. A file that is not there holds none.
///
/// # Errors
/// The file system's. Bytes that are no record end the log: they were never confirmed.
pub(super) fn read(path: &Path, generation: u64) -> io::Result<Bodies> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(LENGTH_MAX).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Bodies::default()),
        Err(error) => return Err(error),
    };
    let mut bodies = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some((body, behind)) = record(rest, generation, bodies.len() as u64) {
        bodies.push(body.to_vec());
        rest = behind;
    }
    let found = bytes.get(8..16).and_then(|of| of.try_into().ok()).map(u64::from_le_bytes);
    let is_later = |found: u64| found != 0 && found.wrapping_sub(generation).cast_signed() > 0;
    Ok(Bodies { bodies, is_overtaken: found.is_some_and(is_later) })
}

/// The record at the front, if it is the one that is due, and what lies behind it.
fn record(bytes: &[u8], generation: u64, number: u64) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let (of, rest) = rest.split_first_chunk::<8>()?;
    let (nth, rest) = rest.split_first_chunk::<8>()?;
    if u64::from_le_bytes(*of) != generation || u64::from_le_bytes(*nth) != number {
        return None;
    }
    let (body, behind) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    (checksum(generation, number, body) == u32::from_le_bytes(*sum)).then_some((body, behind))
}

fn checksum(generation: u64, number: u64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&generation.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// The generation that the SQLite file names. `None`: it never had a log.
pub(super) fn generation(db: &Connection) -> rusqlite::Result<Option<u64>> {
    let found: Option<i64> =
        db.query_row("SELECT value FROM meta WHERE key = ?1", [META], |row| row.get(0)).optional()?;
    Ok(found.map(i64::cast_unsigned))
}

/// Names the next generation; the records of the one before are void when the transaction commits. The first is random,
/// so that the log of another file that lay here once never counts.
pub(super) fn new_generation(db: &Connection) -> rusqlite::Result<u64> {
    let generation = generation(db)?.map_or_else(|| fastrand::u64(1..), |before| before.wrapping_add(1));
    db.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?
        .execute(params![META, generation.cast_signed()])?;
    Ok(generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG_MAX: u64 = 4 << 20;

    fn bodies(path: &Path, generation: u64) -> Vec<Vec<u8>> {
        read(path, generation).unwrap().bodies
    }

    #[test]
    fn records_are_read_back_up_to_the_first_that_is_not_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert!(bodies(&path, 7).is_empty(), "no file");
        let mut log = RedoLog::open(&path, 7, LOG_MAX).unwrap();
        assert_eq!(log.append(b"one").unwrap(), BLOCK);
        assert_eq!(log.append(&[2; 5000]).unwrap(), 2 * BLOCK);
        log.append(b"").unwrap();
        let all = [b"one".to_vec(), vec![2; 5000], Vec::new()];
        assert_eq!(bodies(&path, 7), all);
        assert!(bodies(&path, 8).is_empty(), "another file's");

        let whole = std::fs::read(&path).unwrap();
        let ends = [HEAD_BYTES + 3, 2 * HEAD_BYTES + 5003, 3 * HEAD_BYTES + 5003];
        for cut in 0..ends[2] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let expected = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(bodies(&path, 7).len(), expected, "cut at {cut}");
        }
        for at in (0..ends[2]).step_by(13) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            let expected = ends.iter().filter(|end| **end <= at).count();
            assert_eq!(bodies(&path, 7).len(), expected, "damaged at {at}");
        }
    }

    #[test]
    fn a_restart_voids_the_records_before_it_and_those_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = RedoLog::open(&path, 1, LOG_MAX).unwrap();
        (0..10).for_each(|_| assert_eq!(log.append(b"same length").unwrap(), BLOCK));
        log.restart(2);
        log.append(b"same length").unwrap();
        assert_eq!(bodies(&path, 2).len(), 1, "the second record is of generation 1");
        let gone = Bodies { bodies: Vec::new(), is_overtaken: true };
        assert_eq!(read(&path, 1).unwrap(), gone, "its first is gone");
        assert!(!read(&path, 2).unwrap().is_overtaken && !read(&path, 3).unwrap().is_overtaken);
    }

    #[test]
    fn the_file_grows_by_doubling_and_shrinks_when_it_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let length = || std::fs::metadata(&path).unwrap().len();
        let mut log = RedoLog::open(&path, 1, LOG_MAX).unwrap();
        assert_eq!(length(), LENGTH_MIN);
        while log.has_room(100_000) {
            log.append(&[0; 100_000]).unwrap();
        }
        assert_eq!((length(), bodies(&path, 1).len()), (LOG_MAX, 41));
        log.shrink().unwrap();
        assert_eq!(length(), LOG_MAX, "it is in use");
        log.restart(2);
        log.shrink().unwrap();
        assert_eq!(length(), LENGTH_MIN);
        log.append(b"x").unwrap();
        assert_eq!(bodies(&path, 2), [b"x"]);
    }
}

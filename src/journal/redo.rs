//! The redo log: what was committed since the last checkpoint, in one small file that is written over and over.
//!
//! In: the body of a record for each group commit. Out: the bodies again, after a crash or for another process that
//! looks. Invariant: a record counts only when it is whole, of the epoch and generation that the SQLite file names, and
//! behind all records before it; a checkpoint names a new generation in the transaction that takes the content over,
//! and from that commit on the old records are void. Not here: what a body says (`changes`), when a checkpoint is due
//! (`writer`), what a start does with a log that does not fit its file (`recovery`).
//!
//! A commit of SQLite writes whole pages twice, in its log and in its file, and finds them in trees; that is right for
//! thousands of records and expensive for one. Here one record costs one write and one `fdatasync` of a block or two
//! that the file already has. As SQLite does, it relies on a device that leaves the bytes beside a write as they were
//! when the power fails.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use crate::kill_point::{self, KillPoint};

/// Length of the body, checksum, generation, number in the generation.
const HEAD_BYTES: usize = 4 + 4 + 8 + 8;
/// The file grows by doubling from here; bytes that are there already cost no change of the file's own data.
const LENGTH_MIN: u64 = 64 << 10;
/// No log is longer: what lies beyond was never written by us.
const LENGTH_MAX: u64 = 16 << 20;
/// What the file system writes at least. The first one holds the label, the records lie behind it.
const BLOCK: u64 = 4096;
/// How a log begins; the last byte is its form.
const MAGIC: &[u8; 8] = b"fbayred\x01";

/// The name of an [`Age`] in `meta`.
pub(super) const META: &str = "redo_log";

/// Which records of a log count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Age {
    /// Random, new with every start, so that a log that is not the one of this file and this start never counts.
    pub epoch: u64,
    /// Rises with every checkpoint; 0: nothing counts, as in a pool that was closed.
    pub generation: u64,
}

impl Age {
    /// Of a start, before its log is there.
    pub fn closed() -> Age {
        Age { epoch: fastrand::u64(1..), generation: 0 }
    }

    pub fn next(self) -> Age {
        Age { generation: self.generation + 1, ..self }
    }

    /// What the SQLite file says. `None`: it never had a log.
    pub fn read(db: &Connection) -> rusqlite::Result<Option<Age>> {
        let found: Option<Vec<u8>> =
            db.query_row("SELECT value FROM meta WHERE key = ?1", [META], |row| row.get(0)).optional()?;
        Ok(found.and_then(|bytes| Age::from_bytes(&bytes)))
    }

    /// As it is stored.
    pub fn from_bytes(bytes: &[u8]) -> Option<Age> {
        let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_le_bytes);
        let (epoch, generation) = bytes.split_at_checked(8)?;
        Some(Age { epoch: number(epoch)?, generation: number(generation)? })
    }

    /// What a log says of itself, where its file does not tell any more; it may have been taken over already.
    pub fn of_log(path: &Path) -> Option<Age> {
        let mut bytes = Vec::new();
        File::open(path).ok()?.take(LENGTH_MAX).read_to_end(&mut bytes).ok()?;
        let epoch = u64::from_le_bytes(*bytes.get(MAGIC.len()..)?.first_chunk()?);
        let generation = first_generation(bytes.get(BLOCK as usize..)?, epoch)?;
        bytes.starts_with(&label(epoch)).then_some(Age { epoch, generation })
    }

    /// The records of all other ages are void when the transaction commits.
    pub fn save(self, db: &Connection) -> rusqlite::Result<()> {
        let bytes = [self.epoch.to_le_bytes(), self.generation.to_le_bytes()].concat();
        db.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?.execute(params![META, bytes])?;
        Ok(())
    }
}

/// The log of the writer.
#[derive(Debug)]
pub(super) struct RedoLog {
    file: File,
    age: Age,
    /// How many records there are.
    records: u64,
    /// Where the next record goes.
    end: u64,
    /// Something of this generation may be in the file, confirmed or not.
    is_touched: bool,
    /// Of the file.
    length: u64,
    length_max: u64,
}

impl RedoLog {
    /// Makes the file, or takes the one that is there; what it holds is void: read it before. Durable when it returns,
    /// its name too.
    pub fn create(path: &Path, age: Age, length_max: u64) -> io::Result<RedoLog> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        let found = file.metadata()?.len();
        let length_max = length_max.min(LENGTH_MAX);
        let mut log = RedoLog { file, age, records: 0, end: BLOCK, is_touched: false, length: 0, length_max };
        // also where a file of this length is there: a sync that failed may have left it so in memory alone
        log.grow(LENGTH_MIN)?;
        log.length = log.length.max(found);
        log.file.write_all_at(&label(age.epoch), 0)?;
        log.file.sync_all()?;
        sync_folder_of(path)?;
        Ok(log)
    }

    pub fn age(&self) -> Age {
        self.age
    }

    /// Whether a record of this generation may be in the file, also one whose commit failed: then the next checkpoint
    /// has to void it.
    pub fn is_touched(&self) -> bool {
        self.is_touched
    }

    /// Whether a body of this length fits before the next checkpoint.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.end + (HEAD_BYTES + bytes) as u64 <= self.length_max
    }

    /// Writes a record; it is durable when this returns. Gives the bytes of the blocks that were written.
    ///
    /// # Errors
    /// The file system's. Nobody knows then whether the record is there: it must not be confirmed.
    pub fn append(&mut self, body: &[u8]) -> io::Result<u64> {
        let length = u32::try_from(body.len()).map_err(|_| ErrorKind::FileTooLarge)?;
        let mut record = Vec::with_capacity(HEAD_BYTES + body.len());
        record.extend(length.to_le_bytes());
        record.extend(checksum(self.age, self.records, body).to_le_bytes());
        record.extend(self.age.generation.to_le_bytes());
        record.extend(self.records.to_le_bytes());
        record.extend_from_slice(body);
        let end = self.end + record.len() as u64;
        self.is_touched = true;
        let grown = self.grow(end)?;
        self.file.write_all_at(&record, self.end)?;
        kill_point::reached(KillPoint::LogWritten);
        self.file.sync_data()?;
        let blocks = end.div_ceil(BLOCK) - self.end / BLOCK;
        self.records += 1;
        self.end = end;
        Ok(grown + blocks * BLOCK)
    }

    /// Begins anew: the file has taken over what was here, and names this age.
    pub fn restart(&mut self, age: Age) {
        (self.age, self.records, self.end, self.is_touched) = (age, 0, BLOCK, false);
    }

    /// Gives room back that a quiet stream does not need; nothing may be in the log.
    pub fn shrink(&mut self) -> io::Result<()> {
        if self.end == BLOCK && self.length > LENGTH_MIN {
            self.file.set_len(LENGTH_MIN)?;
            self.length = LENGTH_MIN;
        }
        Ok(())
    }

    /// Makes the file at least this long; gives how many bytes that wrote.
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

    /// Takes another file in place of its own, one that fails as the test wants.
    #[cfg(test)]
    pub fn break_with(&mut self, file: File) {
        self.file = file;
    }
}

/// Makes the names in the folder of this file durable.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// The first bytes of a log.
fn label(epoch: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(epoch.to_le_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// What a log holds of one age.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Bodies {
    /// In order.
    pub bodies: Vec<Vec<u8>>,
    /// Why the log is not the one that the SQLite file knows.
    pub misfit: Option<Misfit>,
}

impl Bodies {
    fn misfit(misfit: Misfit) -> Bodies {
        Bodies { bodies: Vec::new(), misfit: Some(misfit) }
    }
}

/// Why a log does not fit the file beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Misfit {
    #[error("the redo log is gone")]
    Gone,
    #[error("the redo log is shorter than it was")]
    Shortened,
    #[error("the redo log is that of another pool, or of another run of this one")]
    Foreign,
    #[error("the redo log is newer than the pool's file")]
    Newer,
}

/// The bodies of an age.
///
/// # Errors
/// The file system's. Bytes that are no record end the log: they were never confirmed.
pub(super) fn read(path: &Path, age: Age) -> io::Result<Bodies> {
    if age.generation == 0 {
        return Ok(Bodies::default());
    }
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(LENGTH_MAX).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Bodies::misfit(Misfit::Gone)),
        Err(error) => return Err(error),
    };
    Ok(bodies(&bytes, age))
}

/// Those in the bytes of a log.
fn bodies(bytes: &[u8], age: Age) -> Bodies {
    let label = label(age.epoch);
    match bytes.get(..label.len()) {
        None => return Bodies::misfit(Misfit::Shortened),
        Some(found) if found != label => return Bodies::misfit(Misfit::Foreign),
        Some(_) => {}
    }
    let mut rest = bytes.get(BLOCK as usize..).unwrap_or_default();
    if first_generation(rest, age.epoch).is_some_and(|found| found > age.generation) {
        return Bodies::misfit(Misfit::Newer);
    }
    let mut bodies = Vec::new();
    while let Some((body, behind)) = record(rest, age, bodies.len() as u64) {
        bodies.push(body.to_vec());
        rest = behind;
    }
    // it is written to its full length before any record counts
    let is_cut = (bytes.len() as u64) < LENGTH_MIN;
    Bodies { bodies, misfit: is_cut.then_some(Misfit::Shortened) }
}

/// Of the first record, whatever it is, if that is whole.
fn first_generation(bytes: &[u8], epoch: u64) -> Option<u64> {
    let found = bytes.get(8..16)?.try_into().map(u64::from_le_bytes).ok()?;
    record(bytes, Age { epoch, generation: found }, 0).map(|_| found)
}

/// The record at the front, if it is the one that is due, and what lies behind it.
fn record(bytes: &[u8], age: Age, number: u64) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let (of, rest) = rest.split_first_chunk::<8>()?;
    let (nth, rest) = rest.split_first_chunk::<8>()?;
    if u64::from_le_bytes(*of) != age.generation || u64::from_le_bytes(*nth) != number {
        return None;
    }
    let (body, behind) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    (checksum(age, number, body) == u32::from_le_bytes(*sum)).then_some((body, behind))
}

/// Covers what the record does not say, so that one of another epoch never counts.
fn checksum(age: Age, number: u64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&age.epoch.to_le_bytes());
    hasher.update(&age.generation.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests;

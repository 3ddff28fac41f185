//! Finds another program that keeps the write-ahead log from being used anew, because it does not end its read
//! transaction.
//!
//! In: how far a checkpoint got each second, and the system's table of locks. Out: a [`Pin`]. Invariant: readers of
//! this process are never one: they end within a second, so that checkpoints get further. Not here: what the journal
//! does about it (`upkeep`, `budget`).

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::schema::beside;

/// Looks, a second apart, at which a reader counts as forgotten.
const LOOKS: u32 = 5;
/// The same for a checkpoint that gets no further although the log is longer than it should be.
const STUCK_LOOKS: u32 = 3;
/// The bytes of the `-shm` file that SQLite locks for the five marks of readers.
const READ_MARKS: RangeInclusive<u64> = 123..=127;
/// The byte behind them, which whoever has the file open locks too: the system tells both as one lock.
const OPEN_MARK: u64 = 128;
/// The system's locks, with the process that holds each. Up to 8 KiB of it are read at once.
const LOCKS: &str = "/proc/locks";
const LOCKS_BYTES: usize = 8 << 10;
/// The name of a process that makes a backup; the system's names of programs are shorter.
const BACKUP: &str = "forebay journal backup";

/// Who pins the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pin {
    /// Programs by name and process, as far as the system tells.
    pub programs: Vec<(String, u32)>,
    /// Length of the write-ahead log.
    pub log_bytes: u64,
}

impl Pin {
    /// Whether it ends by itself.
    pub fn is_backup(&self) -> bool {
        !self.programs.is_empty() && self.programs.iter().all(|(name, _)| name == BACKUP)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let programs: Vec<String> =
            self.programs.iter().map(|(name, process)| format!("{name}, process {process}")).collect();
        let who = if programs.is_empty() { String::new() } else { format!(" ({})", programs.join("; ")) };
        let megabytes = self.log_bytes as f64 / 1e6;
        if self.is_backup() {
            return write!(
                f,
                "a backup is being made{who}, and SQLite's write-ahead log grows meanwhile, {megabytes:.1} MB by now: \
                 it is used anew when that is done"
            );
        }
        write!(
            f,
            "another program{who} reads the pool's file and pins its write-ahead log, {megabytes:.1} MB by now: close \
            it"
        )
    }
}

/// How far a checkpoint got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    /// Pages in the log, and how many of them are in the file.
    pub pages: i64,
    pub done: i64,
}

/// Looks for one again and again.
#[derive(Debug)]
pub(super) struct Watch {
    shm: PathBuf,
    /// How often in a row each other process was seen to read.
    seen: BTreeMap<u32, u32>,
    last: Option<Reached>,
    stuck: u32,
}

impl Watch {
    pub fn new(path: &Path) -> Watch {
        Watch { shm: beside(path, "-shm"), seen: BTreeMap::new(), last: None, stuck: 0 }
    }

    /// Another process was reading at the last look, or a checkpoint got no further.
    pub fn sees_somebody(&self) -> bool {
        !self.seen.is_empty() || self.stuck > 0
    }

    /// `reached`: of a checkpoint that was tried because the log is too long.
    pub fn look(&mut self, reached: Option<Reached>, log_bytes: u64) -> Option<Pin> {
        let readers = readers(&self.shm);
        self.decide(reached, &readers).map(|processes| Pin { programs: named(processes), log_bytes })
    }

    /// The processes that are meant; `None`: nobody pins anything.
    fn decide(&mut self, reached: Option<Reached>, readers: &[u32]) -> Option<Vec<u32>> {
        self.seen = readers.iter().map(|process| (*process, self.seen.get(process).map_or(1, |n| n + 1))).collect();
        let is_behind = reached.is_some_and(|reached| reached.done < reached.pages);
        let got_further = match (self.last, reached) {
            (Some(last), Some(now)) => now.done != last.done,
            _ => true,
        };
        self.last = reached;
        self.stuck = match (is_behind, got_further) {
            (false, _) => 0,
            (true, true) => 1,
            (true, false) => self.stuck + 1,
        };
        let is_stuck = self.stuck >= STUCK_LOOKS;
        let least = if is_stuck { STUCK_LOOKS } else { LOOKS };
        let processes: Vec<u32> = self.seen.iter().filter(|(_, n)| **n >= least).map(|(process, _)| *process).collect();
        (is_stuck || !processes.is_empty()).then_some(processes)
    }
}

/// Processes that read the file, but for this one and the running job, for a look from outside: whoever is there at two
/// looks does not end its transaction.
pub(super) fn other_readers(path: &Path) -> Vec<u32> {
    // the job reads too, and ends each of its transactions
    let job = lockers(path);
    let mut found = readers(&beside(path, "-shm"));
    found.retain(|process| !job.contains(process));
    found
}

/// Processes with the names of their programs.
pub(super) fn named(processes: Vec<u32>) -> Vec<(String, u32)> {
    processes.into_iter().map(|process| (name_of(process), process)).collect()
}

/// The processes that hold the journal's lock: a running job.
fn lockers(path: &Path) -> Vec<u32> {
    let Ok(file) = fs::metadata(beside(path, ".lock")) else { return Vec::new() };
    let locks = locks().unwrap_or_default();
    FileNumber::of(&file).locks(&locks).iter().map(|lock| lock.process).collect()
}

/// Whether a job runs, as far as the system tells.
pub(super) fn is_locked(path: &Path) -> bool {
    !lockers(path).is_empty()
}

fn locks() -> io::Result<String> {
    let mut text = String::with_capacity(LOCKS_BYTES);
    // a file of the system has no length to ask for
    File::open(LOCKS)?.take(u64::MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Other processes that have a read transaction open.
fn readers(shm: &Path) -> Vec<u32> {
    // the file is not opened for that: closing it would end SQLite's own locks
    let (Ok(file), Ok(locks)) = (fs::metadata(shm), locks()) else { return Vec::new() };
    let us = std::process::id();
    let mut found = readers_in(&locks, FileNumber::of(&file), us);
    found.retain(|process| *process != us);
    found
}

fn readers_in(locks: &str, file: FileNumber, us: u32) -> Vec<u32> {
    let like = file.locks(locks);
    // some file systems (btrfs, overlay) tell another device there; what we have locked of the file ourselves shows it
    let ours = |lock: &&LockLine| lock.process == us && (lock.first..=lock.last).contains(&OPEN_MARK);
    let told = like.iter().find(ours).map(|lock| lock.file);
    let readers = like.iter().filter(|lock| lock.is_reading() && told.is_none_or(|told| told == lock.file));
    once_each(readers.map(|lock| lock.process).collect())
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
struct LockLine<'a> {
    class: &'a str,
    process: u32,
    file: FileNumber,
    first: u64,
    last: u64,
}

impl LockLine<'_> {
    /// `1: POSIX  ADVISORY  READ 1234 fe:00:5678 124 124`; one that waits has an arrow and holds nothing.
    fn read(line: &str) -> Option<LockLine<'_>> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, class, _, _, process, file, first, last] = words.as_slice() else { return None };
        let [major, minor, inode] = <[&str; 3]>::try_from(file.split(':').collect::<Vec<_>>()).ok()?;
        let device = |number| u32::from_str_radix(number, 16).ok();
        let file = FileNumber { device: (device(major)?, device(minor)?), inode: inode.parse().ok()? };
        let last = if *last == "EOF" { u64::MAX } else { last.parse().ok()? };
        Some(LockLine { class, process: process.parse().ok()?, file, first: first.parse().ok()?, last })
    }

    /// Whether it is that of a reader, where the file is SQLite's `-shm` file.
    fn is_reading(&self) -> bool {
        self.class == "POSIX"
            && READ_MARKS.contains(&self.first)
            && (READ_MARKS.contains(&self.last) || self.last == OPEN_MARK)
    }
}

/// What a file is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileNumber {
    /// Major and minor number.
    device: (u32, u32),
    inode: u64,
}

impl FileNumber {
    fn of(file: &fs::Metadata) -> FileNumber {
        FileNumber { device: (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev())), inode: file.ino() }
    }

    /// The locks of what may be this file.
    fn locks(self, table: &str) -> Vec<LockLine<'_>> {
        // a machine may have thousands of others
        let inode = format!(":{} ", self.inode);
        let lines = table.lines().filter(|line| line.contains(&inode));
        lines.filter_map(LockLine::read).filter(|lock| self.may_be(lock.file)).collect()
    }

    /// Whether both may mean one file. The devices that file systems make up have the major number 0.
    fn may_be(self, other: FileNumber) -> bool {
        let are_like = self.device == other.device || (self.device.0 == 0 && other.device.0 == 0);
        self.inode == other.inode && are_like
    }
}

fn once_each(mut processes: Vec<u32>) -> Vec<u32> {
    processes.sort_unstable();
    processes.dedup();
    processes
}

fn name_of(process: u32) -> String {
    let read = |what: &str| fs::read(format!("/proc/{process}/{what}")).unwrap_or_default();
    if is_of_backup(&read("cmdline")) {
        return BACKUP.to_owned();
    }
    let name = String::from_utf8_lossy(&read("comm")).trim().to_owned();
    if name.is_empty() { "a program".to_owned() } else { name }
}

/// Whether this is the command line of a backup: words that each end with a zero byte, options anywhere among them.
fn is_of_backup(command: &[u8]) -> bool {
    let mut words = command.split(|byte| *byte == 0).filter(|word| !word.starts_with(b"-"));
    let program = words.next().and_then(|word| word.rsplit(|byte| *byte == b'/').next());
    program == Some(b"forebay") && [words.next(), words.next()] == [Some(b"journal".as_slice()), Some(b"backup")]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
1: POSIX  ADVISORY  READ 1234 fe:00:77 124 124
2: POSIX  ADVISORY  READ 1234 fe:00:77 128 128
3: POSIX  ADVISORY  READ 99 fe:00:77 128 128
3: -> POSIX  ADVISORY  WRITE 98 fe:00:77 123 127
4: POSIX  ADVISORY  READ 97 fe:00:78 124 124
5: FLOCK  ADVISORY  WRITE 55 fe:00:79 0 EOF
6: POSIX  ADVISORY  READ 1300 fe:00:77 127 128
7: POSIX  ADVISORY  READ 50 fe:00:77 0 EOF
8: POSIX  ADVISORY  WRITE 51 fe:00:77 120 127
9: FLOCK  ADVISORY  READ 52 fe:00:77 124 124
10: POSIX  ADVISORY  READ 53 fe:01:77 124 124
11: POSIX  ADVISORY  READ 54 00:2b:77 124 124
nonsense";

    fn file(major: u32, minor: u32, inode: u64) -> FileNumber {
        FileNumber { device: (major, minor), inode }
    }

    #[test]
    fn only_those_with_a_mark_of_a_reader_read() {
        assert_eq!(readers_in(TABLE, file(0xfe, 0, 77), 1), [1234, 1300]);
        assert_eq!(readers_in(TABLE, file(0xfe, 0, 80), 1), [] as [u32; 0]);
    }

    #[test]
    fn a_file_of_another_device_is_another_file() {
        assert_eq!(readers_in(TABLE, file(0xfe, 1, 77), 1), [53]);
        // btrfs has one number for whoever asks for the file, and another one in the table
        let asked = file(0, 0x3c, 77);
        assert_eq!(readers_in(TABLE, asked, 1), [54]);
        let more = "1: POSIX  ADVISORY  READ 56 00:2c:77 124 124\n2: POSIX  ADVISORY  READ 7 00:2b:77 128 128";
        let table = format!("{more}\n{TABLE}");
        assert_eq!(readers_in(&table, asked, 1), [54, 56], "it cannot be known");
        assert_eq!(readers_in(&table, asked, 7), [54], "our own lock tells");
    }

    #[test]
    fn a_reader_that_stays_is_named_and_one_that_comes_and_goes_is_not() {
        let mut watch = Watch::new(Path::new("job.db"));
        for _ in 0..4 {
            assert_eq!(watch.decide(None, &[7, 8]), None);
        }
        assert_eq!(watch.decide(None, &[7]), Some(vec![7]));
        assert_eq!(watch.decide(None, &[8]), None);
        assert_eq!(watch.decide(None, &[7]), None, "its looks begin anew");
    }

    #[test]
    fn a_log_that_no_checkpoint_empties_is_pinned_whoever_it_is() {
        let mut watch = Watch::new(Path::new("job.db"));
        let at = |pages, done| Some(Reached { pages, done });
        assert_eq!(watch.decide(at(100, 40), &[]), None);
        assert_eq!(watch.decide(at(120, 40), &[7]), None);
        assert_eq!(watch.decide(at(140, 40), &[7]), Some(vec![]), "seen too seldom to be named");
        assert_eq!(watch.decide(at(140, 40), &[7]), Some(vec![7]));
        assert_eq!(watch.decide(at(140, 90), &[]), None, "another reader's turn");
        for done in 100..110 {
            assert_eq!(watch.decide(at(200, done), &[]), None, "readers that follow each other");
        }
        assert_eq!(watch.decide(at(200, 200), &[]), None);
        assert_eq!(watch.decide(at(200, 200), &[]), None);
    }

    #[test]
    fn the_text_says_who_and_what_to_do() {
        let pin = Pin { programs: vec![("sqlite3".into(), 12)], log_bytes: 12_300_000 };
        assert_eq!(
            pin.to_string(),
            "another program (sqlite3, process 12) reads the pool's file and pins its write-ahead log, 12.3 MB by now: \
             close it"
        );
        assert!(Pin::default().to_string().starts_with("another program reads the pool's file"));
        let pin = Pin { programs: vec![(BACKUP.into(), 12)], log_bytes: 12_300_000 };
        assert_eq!(
            pin.to_string(),
            "a backup is being made (forebay journal backup, process 12), and SQLite's write-ahead log grows \
             meanwhile, 12.3 MB by now: it is used anew when that is done"
        );
        let both = Pin { programs: vec![(BACKUP.into(), 12), ("sqlite3".into(), 13)], ..pin };
        assert!(!both.is_backup() && both.to_string().ends_with(": close it"), "{both}");
    }

    #[test]
    fn a_backup_is_known_by_its_command_line() {
        for (command, is_one) in [
            ("/usr/bin/forebay\0journal\0backup\0--job\0job.toml\0copy.db\0", true),
            ("forebay\0journal\0backup\0copy.db\0--job\0job.toml\0", true),
            ("forebay\0--log-json\0journal\0backup\0--job\0job.toml\0copy.db\0", true),
            ("forebay\0journal\0verify\0--job\0backup\0", false),
            ("forebay\0run\0job.toml\0", false),
            ("other\0journal\0backup\0", false),
            ("", false),
        ] {
            assert_eq!(is_of_backup(command.as_bytes()), is_one, "{command:?}");
        }
    }
}

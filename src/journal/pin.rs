//! Finds another program that keeps the write-ahead log from being used anew, because it does not end its read
//! transaction.
//!
//! In: how far a checkpoint got each second, and the system's table of locks. Out: a [`Pin`]. Invariant: readers of
//! this process are never one: they end within a second, so that checkpoints get further. Not here: what the journal
//! does about it (`upkeep`, `budget`).

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
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
/// The system's locks, with the process that holds each.
const LOCKS: &str = "/proc/locks";

/// Who pins the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pin {
    /// Programs by name and process, as far as the system tells.
    pub programs: Vec<(String, u32)>,
    /// Length of the write-ahead log.
    pub log_bytes: u64,
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let programs: Vec<String> =
            self.programs.iter().map(|(name, process)| format!("{name}, process {process}")).collect();
        let who = if programs.is_empty() { String::new() } else { format!(" ({})", programs.join("; ")) };
        let megabytes = self.log_bytes as f64 / 1e6;
        write!(
            f,
            "another program{who} reads the pool's file and pins its write-ahead log, {megabytes:.1} MB by now: close it"
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

    /// `reached`: of a checkpoint that was tried because the log is too long.
    pub fn look(&mut self, reached: Option<Reached>, log_bytes: u64) -> Option<Pin> {
        let readers = readers(&self.shm);
        self.decide(reached, &readers).map(|processes| Pin {
            programs: processes.into_iter().map(|process| (name_of(process), process)).collect(),
            log_bytes,
        })
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

/// Other programs that read the file both now and a moment ago, for a look from outside. `moment`: what to do between.
pub(super) fn readers_twice(path: &Path, moment: impl FnOnce()) -> Vec<(String, u32)> {
    let shm = beside(path, "-shm");
    // the job reads too, and ends each of its transactions
    let job = fs::metadata(beside(path, ".lock"))
        .map_or(Vec::new(), |m| processes(&fs::read_to_string(LOCKS).unwrap_or_default(), m.ino(), &(0..=u64::MAX)));
    let before = readers(&shm);
    if before.is_empty() {
        return Vec::new();
    }
    moment();
    let after = readers(&shm).into_iter().filter(|process| before.contains(process) && !job.contains(process));
    after.map(|process| (name_of(process), process)).collect()
}

/// Other processes that have a read transaction open.
fn readers(shm: &Path) -> Vec<u32> {
    // the file is not opened for that: closing it would end SQLite's own locks
    let (Ok(file), Ok(locks)) = (fs::metadata(shm), fs::read_to_string(LOCKS)) else { return Vec::new() };
    let mut found = processes(&locks, file.ino(), &READ_MARKS);
    found.retain(|process| *process != std::process::id());
    found
}

/// Processes with a lock on any of these bytes of a file, once each.
fn processes(locks: &str, inode: u64, bytes: &RangeInclusive<u64>) -> Vec<u32> {
    let process = |line: &str| {
        // `1: POSIX ADVISORY READ 1234 fe:00:5678 124 124`; one that waits has an arrow and holds nothing
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, _, process, file, first, last] = words.as_slice() else { return None };
        let is_file = file.rsplit(':').next()?.parse() == Ok(inode);
        let last = if *last == "EOF" { u64::MAX } else { last.parse().ok()? };
        let overlaps = first.parse::<u64>().ok()? <= *bytes.end() && last >= *bytes.start();
        process.parse().ok().filter(|_| is_file && overlaps)
    };
    let mut found: Vec<u32> = locks.lines().filter_map(process).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn name_of(process: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    if name.trim().is_empty() { "a program".to_owned() } else { name.trim().to_owned() }
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
6: POSIX  ADVISORY  WRITE 1300 fe:00:77 120 126
nonsense";

    #[test]
    fn only_those_with_a_mark_of_a_reader_read() {
        assert_eq!(processes(TABLE, 77, &READ_MARKS), [1234, 1300]);
        assert_eq!(processes(TABLE, 79, &(0..=u64::MAX)), [55]);
        assert_eq!(processes(TABLE, 80, &READ_MARKS), [] as [u32; 0]);
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
    }
}

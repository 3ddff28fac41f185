//! Whether a pool has what it must have.
//!
//! In: a pool that nobody has open, and the notes of the workload up to the moment at which it ended. Out: what was
//! found, or which promise is broken. Not here: how the pool came to be so.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay::batch::{RawEvent, Urgency};
use forebay::journal::*;
use forebay::value::Value;

use super::workload::{Opened, Sum, at, number_of, payload, row_of};

/// What the workload was told, and what it had asked for.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Events that are durable, by offset.
    pub stored: BTreeMap<i64, u64>,
    /// Numbers of events that were handed over.
    pub asked: Vec<Range<u64>>,
    /// Positions that are durable, and those asked for, by consumer.
    committed: BTreeMap<String, i64>,
    positions: BTreeMap<String, i64>,
    /// A start has succeeded.
    pub is_ready: bool,
    /// Why the last run ended before its time, if it did.
    pub refused: Option<String>,
}

impl Known {
    pub fn of<'a>(notes: impl IntoIterator<Item = &'a str>) -> Known {
        let mut known = Known::default();
        notes.into_iter().for_each(|note| known.take(note));
        known
    }

    /// The position of a consumer that is durable.
    fn committed(&self, name: &str) -> i64 {
        self.committed.get(name).copied().unwrap_or(0)
    }

    pub fn take(&mut self, note: &str) {
        let words: Vec<&str> = note.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("a number in a note");
        match words[0] {
            "opened" => (self.is_ready, self.refused) = (true, None),
            "found" => drop(self.stored.insert(number(2) as i64, number(1))),
            "append" => self.asked.push(number(1)..number(1) + number(2)),
            "stored" => {
                let of = |i: u64| ((number(3) + i) as i64, number(1) + i);
                self.stored.extend((0..number(2)).map(of));
            }
            "commit" => drop(self.positions.insert(words[1].to_owned(), number(2) as i64)),
            "committed" => drop(self.committed.insert(words[1].to_owned(), number(2) as i64)),
            "refused" => self.refused = Some(note.to_owned()),
            "done" | "closed" | "full" => {}
            _ => panic!("a note that nobody knows: {note}"),
        }
    }
}

/// How far the disk is to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It has kept what it said that it keeps: then nothing is missing, and nothing says so.
    Honest,
    /// It has not: then what is there is right, and what is missing is told.
    Broken,
}

/// What a pool was found to be.
#[derive(Debug, Default)]
pub struct Found {
    pub events: usize,
    /// Events that are missing, and told to be.
    pub told: usize,
    /// Events that are missing, and nothing says so.
    pub silent: Vec<i64>,
    /// The start refused, with this.
    pub refused: Option<String>,
    /// What is wrong with positions or state is told by `verify` alone.
    pub by_verify: Option<String>,
}

/// Why a pool is not judged to its end.
enum Broke {
    /// A promise, in words.
    Promise(String),
    /// The journal refuses.
    Refused(JournalError),
}

impl From<JournalError> for Broke {
    fn from(error: JournalError) -> Broke {
        Broke::Refused(error)
    }
}

macro_rules! broken {
    ($($told:tt)+) => {
        return Err(Broke::Promise(format!($($told)+)))
    };
}

macro_rules! hold {
    ($condition:expr, $($told:tt)+) => {
        if !$condition {
            broken!($($told)+);
        }
    };
}

/// More reads than any pool here takes.
const READS_MAX: usize = 100_000;

/// Looks at the pool and goes on with it a little.
///
/// # Errors
/// The promise that is broken.
pub fn judge(folder: &Path, known: &Known, trust: Trust) -> Result<Found, String> {
    match look(folder, known, trust) {
        Ok(found) => Ok(found),
        Err(Broke::Refused(error)) if trust == Trust::Broken => {
            Ok(Found { refused: Some(error.to_string()), ..Found::default() })
        }
        Err(Broke::Refused(error)) => Err(format!("the journal refuses: {error}")),
        Err(Broke::Promise(why)) => Err(why),
    }
}

fn look(folder: &Path, known: &Known, trust: Trust) -> Result<Found, Broke> {
    let path = folder.join("job.db");
    let is_honest = trust == Trust::Honest;
    let before = if known.is_ready { verify(&path).map(|report| report.problems) } else { Ok(Vec::new()) };
    if is_honest {
        hold!(before.as_ref().is_ok_and(Vec::is_empty), "before a start `verify` says {before:?}");
    }
    let opened = Opened::open(&path)?;
    let alarm = opened.journal.alarm().map(str::to_owned);
    hold!(!is_honest || alarm.is_none(), "{alarm:?}");

    let events = read_events(&opened, known)?;
    let needed = match is_honest {
        true => opened.sum.position.min(opened.slow.position),
        false => known.committed("sum").min(known.committed("slow")),
    };
    // what a reader could not read is set aside by the writer
    opened.journal.sync()?;
    let status = opened.journal.status()?;
    let aside = |stream: u32, offset: i64| {
        status.quarantine.iter().any(|q| q.stream == stream && (q.first..q.end).contains(&offset))
    };
    let missing: Vec<i64> =
        known.stored.range(needed..).map(|(offset, _)| *offset).filter(|offset| !events.contains_key(offset)).collect();
    hold!(!is_honest || missing.is_empty(), "events at {missing:?} are missing; consumers stand at {needed}");
    let silent: Vec<i64> = missing.iter().copied().filter(|at| !aside(0, *at) && alarm.is_none()).collect();
    let told = missing.len() - silent.len();
    let mut found = Found { events: events.len(), told, silent, ..Found::default() };
    // whatever turned, no wrong row comes out; of a row whose event nobody can read nobody knows what is right
    let first = opened.journal.ends(opened.out).0;
    let n_at = |offset: i64| known.stored.get(&offset).or(events.get(&offset)).copied();
    read_rows(&opened, first, |offset, row| n_at(offset).map_or(!is_honest, |n| row == row_of(n)))?;
    let books = check_books(&opened, known, &events, &status, is_honest);
    match (books, &before) {
        (Ok(()), _) => {}
        (Err(Broke::Promise(why)), Ok(problems)) if !is_honest && !problems.is_empty() => found.by_verify = Some(why),
        (Err(Broke::Promise(why)), _) => broken!("{why}; `verify` says {before:?}, the alarm {alarm:?}"),
        (Err(refused), _) => return Err(refused),
    }
    let end = opened.journal.ends(StreamId::INPUTS).1;
    let stored = store(&opened, 1 << 40)?;
    hold!(stored == (end..end + 1), "the next event is stored at {stored:?}, the stream ended at {end}");
    opened.journal.close();
    if is_honest {
        let after = verify(&path).map(|report| report.problems);
        hold!(after.as_ref().is_ok_and(Vec::is_empty), "after a start `verify` says {after:?}");
    }
    Ok(found)
}

/// All events that can be read, by offset: each is one that was handed over, as it was, and once.
fn read_events(opened: &Opened, known: &Known) -> Result<BTreeMap<i64, u64>, Broke> {
    let mut reader = opened.journal.reader(StreamId::INPUTS, 0);
    let (mut events, mut numbers) = (BTreeMap::new(), BTreeSet::new());
    for _ in 0..READS_MAX {
        let before = reader.position();
        match reader.next(64, Instant::now())? {
            Read::Events(slice) => {
                for event in slice.iter() {
                    let (offset, bytes) = (event.offset, event.payload);
                    let n = number_of(bytes).filter(|n| payload(*n) == bytes);
                    let Some(n) = n else { broken!("the event at {offset} is none of ours") };
                    hold!(known.asked.iter().any(|asked| asked.contains(&n)), "nobody handed event {n} over");
                    let stored = known.stored.get(&offset);
                    hold!(stored.is_none_or(|s| *s == n), "at {offset} is event {n}, and {stored:?} was stored there");
                    hold!(numbers.insert(n) && events.insert(offset, n).is_none(), "event {n} is there twice");
                }
            }
            Read::Idle if reader.position() == before => return Ok(events),
            Read::Idle | Read::Passed => {}
            other => broken!("a read of inputs gives {other:?}"),
        }
    }
    broken!("reading does not end: it stands at {}", reader.position())
}

/// Positions, state, rows and dead letters are those of the same commits.
fn check_books(
    opened: &Opened,
    known: &Known,
    events: &BTreeMap<i64, u64>,
    status: &JournalStatus,
    is_honest: bool,
) -> Result<(), Broke> {
    let Opened { journal, out, sum, deliver, slow, .. } = opened;
    let (_, inputs_end) = journal.ends(StreamId::INPUTS);
    let (_, rows_end) = journal.ends(*out);
    for (name, info, end) in [("sum", sum, inputs_end), ("slow", slow, inputs_end), ("deliver", deliver, rows_end)] {
        let committed = known.committed(name);
        let asked = known.positions.get(name).copied().unwrap_or(0);
        let position = info.position;
        hold!(position <= end, "{name} stands at {position}, its stream ends at {end}");
        hold!(position <= asked, "{name} stands at {position} and asked for {asked} at most");
        hold!(!is_honest || position >= committed, "{name} stands at {position}, and {committed} was durable");
    }
    let state = match journal.load_state(sum.id) {
        Ok(state) => Sum::read(&state).map_err(Broke::Promise)?,
        // told, and the statement stops alone
        Err(JournalError::State { .. }) if !is_honest => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let n_at = |offset: i64| known.stored.get(&offset).or(events.get(&offset)).copied();
    let mut expected = Sum::default();
    for offset in 0..sum.position {
        match n_at(offset) {
            Some(n) => expected.add(n),
            None => broken!("nobody knows the event at {offset}, which `sum` has read"),
        }
    }
    hold!(state == expected, "at {} the state is {state:?} instead of {expected:?}", sum.position);
    let rows = read_rows(opened, deliver.position, |offset, row| n_at(offset).is_some_and(|n| row == row_of(n)))?;
    if is_honest {
        hold!(rows_end == sum.position, "{} events were read, {rows_end} rows stored", sum.position);
        hold!(rows as i64 == rows_end - deliver.position, "{rows} rows from {} to {rows_end}", deliver.position);
        let letters = status.dead_letters.letters;
        hold!(letters == state.letters, "{letters} dead letters, {} were stored", state.letters);
    }
    Ok(())
}

/// How many rows can be read: each belongs to its event.
fn read_rows(opened: &Opened, from: i64, is_right: impl Fn(i64, &[Value]) -> bool) -> Result<usize, Broke> {
    let mut reader = opened.journal.reader(opened.out, from);
    let mut rows = 0;
    for _ in 0..READS_MAX {
        let before = reader.position();
        match reader.next(64, Instant::now())? {
            Read::Rows(slice) => {
                for (meta, row) in slice.iter() {
                    hold!(is_right(meta.offset, row), "the row of the event at {} is {row:?}", meta.offset);
                    rows += 1;
                }
            }
            Read::Idle if reader.position() == before => return Ok(rows),
            Read::Idle | Read::Passed => {}
            other => broken!("a read of rows gives {other:?}"),
        }
    }
    broken!("reading rows does not end: it stands at {}", reader.position())
}

fn store(opened: &Opened, n: u64) -> Result<Range<i64>, Broke> {
    let (done, answers) = channel();
    opened.journal.append(Append {
        input: opened.input,
        events: vec![RawEvent {
            arrival: at(1 << 30),
            payload: Bytes::from(payload(n)),
            message: Arc::default(),
            mark: 1,
        }],
        received: 1,
        undecodable: Vec::new(),
        dropped: Vec::new(),
        ledger: Vec::new(),
        era: 0,
        urgency: Urgency::AtOnce,
        on_durable: Box::new(move |stored| drop(done.send(stored))),
    });
    match answers.recv_timeout(Duration::from_secs(60)) {
        Ok(answer) => Ok(answer?),
        Err(_) => broken!("the next event is not stored within 60 s"),
    }
}

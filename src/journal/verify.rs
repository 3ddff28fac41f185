//! Whether a journal is whole: its file, its segments, its ledger.
//!
//! In: a journal's path; its job may be running. Out: a [`VerifyReport`] with every problem in words. Invariant:
//! changes nothing, and reads everything in one snapshot. Not here: repairs (a damaged segment is set aside when it is
//! read).

use std::path::Path;

use rusqlite::{Connection, params};

use super::books::{Books, StreamBook};
use super::changes::Changes;
use super::damage::{is_damage, next_first};
use super::error::JournalError;
use super::ledger::{Edge, what};
use super::ranges::{QuarantineCount, end_of_aside, set_aside_between};
use super::recovery;
use super::reference;
use super::schema;
use super::segment::{self, Sealed};
use super::state;

/// Problems listed in words; a file with more is lost anyway, and all are counted.
const PROBLEMS_LISTED: usize = 100;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct VerifyReport {
    pub segments: u64,
    pub records: u64,
    pub bytes: u64,
    /// Ranges set aside earlier, with their records counted as skipped, and those records.
    pub quarantined: u64,
    pub quarantined_records: u64,
    /// At most a hundred of them.
    pub problems: Vec<String>,
    pub problem_count: u64,
}

impl VerifyReport {
    pub fn is_good(&self) -> bool {
        self.problem_count == 0
    }

    fn problem(&mut self, text: impl ToString) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_LISTED {
            self.problems.push(text.to_string());
        }
    }

    /// Where the check itself met a damaged page, that is a problem, and the others are looked for.
    fn or_problem(&mut self, of: &str, checked: rusqlite::Result<()>) -> rusqlite::Result<()> {
        match checked {
            Err(error) if is_damage(&error) => {
                self.problem(format_args!("{of}: {error}"));
                Ok(())
            }
            other => other,
        }
    }
}

/// Checks the whole journal.
pub fn verify(path: &Path) -> Result<VerifyReport, JournalError> {
    let db = schema::open_reader(path)?;
    let look = recovery::look(&db, path, true)?;
    let (books, changes) = (&look.books, &look.changes);
    let check = || -> rusqlite::Result<VerifyReport> {
        let aside = QuarantineCount::read(&db)?;
        let mut report =
            VerifyReport { quarantined: aside.ranges, quarantined_records: aside.records, ..VerifyReport::default() };
        look.alarm.iter().for_each(|alarm| report.problem(alarm));
        let checked = check_file(&db, &mut report);
        report.or_problem("file", checked)?;
        for (id, stream) in &books.streams {
            let checked = check_segments(&db, *id, stream, changes, &mut report);
            report.or_problem(&format!("stream {id}"), checked)?;
        }
        let checked = state::damaged(&db, books).map(|found| found.iter().for_each(|text| report.problem(text)));
        report.or_problem("state", checked)?;
        books.ledger.imbalances().iter().for_each(|i| report.problem(i));
        books.consumer_imbalances().iter().for_each(|i| report.problem(i));
        books.ledger.given_imbalances().iter().for_each(|i| report.problem(i));
        check_sums(books, &mut report);
        let checked = reference::damaged(&db).map(|found| found.iter().for_each(|text| report.problem(text)));
        report.or_problem("reference data", checked)?;
        Ok(report)
    };
    check().map_err(JournalError::read)
}

fn check_file(db: &Connection, report: &mut VerifyReport) -> rusqlite::Result<()> {
    let mut statement = db.prepare("PRAGMA quick_check")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let line: String = row.get(0)?;
        if line != "ok" {
            report.problem(format!("file: {line}"));
        }
    }
    Ok(())
}

fn check_segments(
    db: &Connection,
    stream: u32,
    book: &StreamBook,
    changes: &Changes,
    report: &mut VerifyReport,
) -> rusqlite::Result<()> {
    let mut statement = db.prepare(
        "SELECT stream, first, input, count, arrival, codec, raw_bytes, checksum, data FROM segment WHERE stream = ?1 \
        AND first > ?2 ORDER BY first",
    )?;
    let mut expected = book.first;
    let mut last = i64::MIN;
    loop {
        let mut rows = statement.query(params![stream, last])?;
        let met = loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                other => break other.map(drop),
            };
            last = row.get(1)?;
            let (Ok(head), Ok(checksum), Ok(data)) = (segment::Head::read(row), row.get(7), row.get(8)) else {
                match end_of_aside(db, stream, last)? {
                    Some(end) => expected = expected.max(end),
                    None => report.problem(format!("stream {stream}: the head of the segment at {last} is damaged")),
                }
                continue;
            };
            check_segment(db, Sealed { head, checksum, data }, book.first, &mut expected, report)?;
        };
        let error = match met {
            Err(error) if is_damage(&error) => error,
            other => break other?,
        };
        // the index has the place of what cannot be read, and of what follows
        let Some(at) = next_first(db, stream, last)? else { break };
        let next = next_first(db, stream, at)?;
        if set_aside_between(db, stream, at, at + 1)?.0 == 0 {
            report.problem(format!("stream {stream}: the segment at {at} cannot be read: {error}"));
        }
        check_gap(db, stream, expected, at, report)?;
        let waiting = changes.sealed.iter().find(|sealed| sealed.head.stream == stream).map(|sealed| sealed.head.first);
        expected = expected.max(next.or(waiting).unwrap_or(book.next));
        last = at;
    }
    for sealed in changes.sealed.iter().filter(|sealed| sealed.head.stream == stream) {
        check_segment(db, sealed.clone(), book.first, &mut expected, report)?;
    }
    check_gap(db, stream, expected, book.next, report)
}

/// `first`: the mark of the stream; `expected`: where the next segment begins unless some were set aside.
fn check_segment(
    db: &Connection,
    Sealed { head, checksum, data }: Sealed,
    first: i64,
    expected: &mut i64,
    report: &mut VerifyReport,
) -> rusqlite::Result<()> {
    let stream = head.stream;
    report.segments += 1;
    report.bytes += data.len() as u64;
    let end = match segment::open(&head, checksum, data) {
        Ok(segment) => segment.end(),
        Err(damage) => {
            let aside = end_of_aside(db, stream, head.first)?;
            if aside.is_none() {
                report.problem(format!("stream {stream}: the segment at {} is damaged: {damage}", head.first));
            }
            aside.unwrap_or(head.first + i64::from(head.count))
        }
    };
    report.records += (end - head.first) as u64;
    // segments below the mark are kept for redeliveries only and need not be without gaps
    if head.first >= *expected {
        check_gap(db, stream, *expected, head.first, report)?;
        *expected = end;
    } else if head.first >= first {
        report.problem(format!("stream {stream}: the segment at {} overlaps the one before it", head.first));
    }
    Ok(())
}

/// Offsets without a segment must all have been set aside.
fn check_gap(db: &Connection, stream: u32, from: i64, to: i64, report: &mut VerifyReport) -> rusqlite::Result<()> {
    if from >= to {
        return Ok(());
    }
    let (aside, _) = set_aside_between(db, stream, from, to)?;
    let missing = (to - from).unsigned_abs().saturating_sub(aside);
    if missing > 0 {
        report.problem(format!(
            "stream {stream}: {missing} records between {from} and {to} are missing; they are counted and set aside \
             once somebody reads there"
        ));
    }
    Ok(())
}

/// Sums that must agree with something other than a counter.
fn check_sums(books: &Books, report: &mut VerifyReport) {
    let ledger = &books.ledger;
    let stored: u64 = ledger.names(Edge::Input).iter().map(|name| ledger.sum(Edge::Input, name, what::STORED)).sum();
    let lost = ledger.sum(Edge::Input, "", what::LOST);
    let next = books.inputs_end();
    if i128::from(stored) + i128::from(lost) != i128::from(next) {
        report.problem(format!(
            "inputs count {stored} stored and {lost} lost records, their stream has given out {next} offsets"
        ));
    }
    let letters = |what: &str| ledger.sum(Edge::DeadLetters, "", what);
    let left = letters(what::STORED);
    let right = books.dead_letters.letters + letters(what::DROPPED) + letters(what::REMOVED);
    if left != right {
        report.problem(format!(
            "dead letters: stored = kept + dropped + removed does not hold: {left} on the left, {right} on the right"
        ));
    }
}

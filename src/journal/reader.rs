//! Reading a stream from a position on.
//!
//! In: segments from the memory tail, older ones from the file by a connection of the reader's own. Out: [`Read`]s,
//! never across a segment's border, and of events never of two inputs. Invariant: every record from the position on is
//! handed out once and in order, but those that are trimmed, set aside since they cannot be read, or of inputs not
//! asked for; no offset is passed without a segment but the writer is told. [`Reader::position`] is what to commit. Not
//! here: who remembers the position (the consumer's commits do).

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::books::INPUTS;
use super::command::ask;
use super::damage::{check_index, is_damage, is_of_page, next_first};
use super::error::JournalError;
use super::pending::Whereabouts;
use super::quarantine;
use super::queue::Lane;
use super::ranges::set_aside_between;
use super::request::{ConsumerId, InputId, StreamId};
use super::schema;
use super::segment::{EventRef, EventSlice, Head, Opener, RowSlice, Sealed, Segment};
use super::shared::Shared;
use super::stream::Found;
use crate::time::Clock;

/// What there was to read.
#[derive(Clone, Debug)]
pub enum Read {
    /// From the stream of inputs; all of one input. Events of inputs not asked for may lie between them.
    Events(EventSlice),
    /// From a stream of rows.
    Rows(RowSlice),
    /// Nothing (more) until the deadline, or the journal was asked to wake its readers. The position may have moved.
    Idle,
    /// Nothing of the inputs asked for so far: events of others were passed, and more may follow.
    Passed,
    /// The journal is closed.
    Closed,
}

/// Segments read from the file at once, and their bytes: those of a quiet stream hold one record each.
const AHEAD_SEGMENTS: usize = 512;
const AHEAD_BYTES: usize = 1 << 20;
/// The same where one of them is known not to be read.
const SINGLE_SEGMENTS: i64 = 32;
/// Long beside what passing one segment takes, short beside a window of a second.
const PASSING: Duration = Duration::from_millis(20);

/// Reads one stream; made by [`super::Journal::reader`]. Belongs to one thread.
pub struct Reader {
    shared: Arc<Shared>,
    path: PathBuf,
    stream: u32,
    /// Whose records it reads, if a consumer's.
    consumer: Option<u32>,
    position: i64,
    /// `None`: all inputs.
    inputs: Option<Vec<u16>>,
    opener: Opener,
    current: Option<Segment>,
    /// How long a read passes segments of other inputs before it lets its caller look up.
    passing: Duration,
    /// Segments of the file that come next.
    ahead: VecDeque<OnDisk>,
    /// Open only while behind the memory tail.
    db: Option<Connection>,
    /// Where something was missing or damaged, and another connection looked again.
    looked_again: Option<i64>,
    /// Records of inputs not asked for that were passed since somebody asked.
    others: u64,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("stream", &self.stream).field("position", &self.position).finish_non_exhaustive()
    }
}

/// A segment of the file.
enum OnDisk {
    Segment(Segment),
    /// Of inputs not asked for; so many bytes had to be opened to see that.
    Other {
        first: i64,
        end: i64,
        opened: usize,
    },
    /// `on_page`: SQLite cannot read it.
    Damaged {
        first: i64,
        on_page: bool,
    },
}

impl OnDisk {
    fn first(&self) -> i64 {
        match self {
            OnDisk::Segment(segment) => segment.first(),
            OnDisk::Other { first, .. } | OnDisk::Damaged { first, .. } => *first,
        }
    }

    /// Where it ends, as far as is known.
    fn end(&self) -> Option<i64> {
        match self {
            OnDisk::Segment(segment) => Some(segment.end()),
            OnDisk::Other { end, .. } => Some(*end),
            OnDisk::Damaged { .. } => None,
        }
    }
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, path: PathBuf, stream: StreamId, position: i64) -> Reader {
        Reader {
            shared,
            path,
            stream: stream.0,
            consumer: None,
            position,
            inputs: None,
            opener: Opener::default(),
            current: None,
            passing: PASSING,
            ahead: VecDeque::new(),
            db: None,
            looked_again: None,
            others: 0,
        }
    }

    /// Skips the events of all other inputs; the position moves past them.
    pub fn only(mut self, inputs: &[InputId]) -> Reader {
        self.inputs = Some(inputs.iter().map(|i| i.0).collect());
        self
    }

    /// Passes what the journal has moved this consumer past, also while others still need it. What it hands out is in
    /// the hands of the consumer: the journal counts it as skipped only if the consumer never commits it.
    pub fn of(self, consumer: ConsumerId) -> Reader {
        self.shared.streams.begins(consumer.0, self.position);
        Reader { consumer: Some(consumer.0), ..self }
    }

    /// Why the journal moved the consumer past everything before `position`; `None`: it did not.
    pub fn dropped(&self, position: i64) -> Option<&'static str> {
        self.shared.streams.dropped(self.consumer?, position)
    }

    /// How many records of inputs not asked for were passed since the last call.
    pub fn take_others(&mut self) -> u64 {
        std::mem::take(&mut self.others)
    }

    /// Looks up behind each segment of another input.
    #[cfg(test)]
    pub fn looking_up_always(self) -> Reader {
        Reader { passing: Duration::ZERO, ..self }
    }

    /// The next offset to read: what a consumer commits once it is done with all it got.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// The offset behind everything stored.
    pub fn end(&self) -> i64 {
        self.shared.streams.ends(self.stream).1
    }

    /// Up to `max_records` (at least one) records; waits for them until `deadline`.
    pub fn next(&mut self, max_records: usize, deadline: Instant) -> Result<Read, JournalError> {
        let passing = Clock::Real.monotonic() + self.passing;
        loop {
            while self.current.is_some() {
                if let Some(read) = self.serve(max_records) {
                    return Ok(read);
                }
            }
            let before = self.position;
            match self.shared.streams.find(self.stream, self.consumer, self.position, deadline) {
                Found::Segment(segment) => {
                    // caught up: the connection is of no use any more
                    (self.db, self.ahead) = (None, VecDeque::new());
                    self.take(segment);
                }
                Found::OnDisk { end } => self.load(end)?,
                Found::Trimmed { first } => self.position = first,
                Found::Idle => return Ok(Read::Idle),
                Found::Closed => return Ok(Read::Closed),
            }
            // a long stretch of other inputs' segments must not make the caller miss its deadline
            if self.current.is_none() && self.position > before && Clock::Real.monotonic() >= deadline.max(passing) {
                return Ok(Read::Passed);
            }
        }
    }

    /// As [`Reader::next`], but waits for nothing.
    pub fn next_now(&mut self, max_records: usize) -> Result<Read, JournalError> {
        self.next(max_records, Clock::Real.monotonic())
    }

    fn wants(&self, input: u16) -> bool {
        self.inputs.as_ref().is_none_or(|wanted| wanted.contains(&input))
    }

    fn take(&mut self, segment: Segment) {
        match &segment {
            // of what is opened for this reader only wanted events are there; what lies in memory is of one input
            Segment::Events(events) if !events.get(0).is_some_and(|event| self.wants(event.input)) => {
                self.pass_others(segment.end());
            }
            _ => {
                self.position = self.position.max(segment.first());
                self.current = Some(segment);
            }
        }
    }

    /// The next part of the current segment.
    fn serve(&mut self, max_records: usize) -> Option<Read> {
        let segment = self.current.as_ref()?;
        let end = segment.end();
        let served = match segment {
            Segment::Events(s) => EventSlice::of_one_input(s, self.position, max_records.max(1))
                .map(|slice| (slice.end(), Read::Events(slice))),
            Segment::Rows(s) => {
                RowSlice::of(s, self.position, max_records.max(1)).map(|slice| (slice.end(), Read::Rows(slice)))
            }
        };
        let (position, read) = match served {
            Some((position, read)) => (position, Some(read)),
            // what is left of the segment is not wanted
            None => (end, None),
        };
        let before = self.position;
        let is_ours = self.go_on(position);
        if self.position >= end {
            self.current = None;
        }
        if !is_ours {
            return None;
        }
        let handed = match &read {
            Some(Read::Events(slice)) => slice.len(),
            Some(Read::Rows(slice)) => slice.len(),
            _ => 0,
        };
        self.others += ((position - before).max(0) as u64).saturating_sub(handed as u64);
        read
    }

    /// Moves to a position; `false` where the journal has moved the consumer past the present one: it goes on there.
    fn go_on(&mut self, to: i64) -> bool {
        if to <= self.position {
            return true;
        }
        let handed = self.consumer.map_or(Ok(()), |id| self.shared.streams.hand_out(id, self.position, to));
        self.position = handed.err().unwrap_or(to);
        handed.is_ok()
    }

    /// Passes records of inputs that were not asked for.
    fn pass_others(&mut self, to: i64) {
        let before = self.position;
        if self.go_on(to) {
            self.others += (self.position - before).unsigned_abs();
        }
    }

    /// Takes the segment at the position from the redo log or the file; `end` is that of the stream.
    fn load(&mut self, end: i64) -> Result<(), JournalError> {
        let end = match self.shared.with_pending(|pending| pending.place(self.stream, self.position)) {
            Whereabouts::Here(sealed) => return self.load_pending(&sealed),
            Whereabouts::File { end: of_file } => of_file.unwrap_or(end),
        };
        // what was moved past meanwhile: a consumer on `drop-oldest`
        while self.ahead.front().is_some_and(|next| next.end().is_some_and(|end| end <= self.position)) {
            self.ahead.pop_front();
        }
        if self.ahead.is_empty() {
            self.ahead = self.read_ahead(end)?;
        }
        let next = self.ahead.pop_front();
        let is_whole = match &next {
            Some(OnDisk::Segment(_) | OnDisk::Other { .. }) => {
                next.as_ref().is_some_and(|n| n.first() <= self.position)
            }
            Some(OnDisk::Damaged { .. }) | None => false,
        };
        // a read may fail once, and what failed may lie in the cache of the connection
        if !is_whole && self.looked_again.replace(self.position) != Some(self.position) {
            (self.db, self.ahead) = (None, VecDeque::new());
            return Ok(());
        }
        self.pass_gap(next.as_ref().map_or(end, OnDisk::first))?;
        match next {
            Some(OnDisk::Segment(segment)) => self.take(segment),
            Some(OnDisk::Other { end, .. }) => self.pass_others(end),
            Some(OnDisk::Damaged { first, on_page }) => self.pass_damaged(first, on_page, end)?,
            // everything up to the end is aside
            None => self.position = end,
        }
        Ok(())
    }

    /// Goes on where the next segment begins. What lies before that was set aside, or the writer looks where it is.
    fn pass_gap(&mut self, next: i64) -> Result<(), JournalError> {
        let (stream, from) = (self.stream, self.position);
        if next <= from {
            return Ok(());
        }
        if !self.go_on(next) {
            return Ok(());
        }
        let (aside, _) = set_aside_between(self.connection()?, stream, from, next).map_err(JournalError::read)?;
        if aside < (next - from).unsigned_abs() {
            let (command, _answer) = ask(move |tx| quarantine::set_missing_aside(tx, stream, from, next));
            // it is done before a commit that passes them
            self.shared.queue.push(Lane::Control, command);
        }
        Ok(())
    }

    fn load_pending(&mut self, sealed: &Sealed) -> Result<(), JournalError> {
        self.ahead.clear();
        if sealed.head.stream == INPUTS && !sealed.head.may_hold(&|input| self.wants(input)) {
            self.pass_others(sealed.end());
            return Ok(());
        }
        // it was sealed by this process and never left its memory
        let (inputs, opener) = (&self.inputs, &mut self.opener);
        let wants = |input: u16| inputs.as_ref().is_none_or(|wanted| wanted.contains(&input));
        let opened = opener.open_for(&sealed.head, sealed.checksum, sealed.data.clone(), &wants);
        self.take(opened.map_err(|damage| JournalError::read(format!("a segment in memory is damaged: {damage}")))?);
        Ok(())
    }

    fn connection(&mut self) -> Result<&Connection, JournalError> {
        let db = match self.db.take() {
            Some(db) => db,
            None => schema::open_reader(&self.path)?,
        };
        Ok(self.db.insert(db))
    }

    /// The segment that holds the position, or else the next one, and those behind it below `end`.
    fn read_ahead(&mut self, end: i64) -> Result<VecDeque<OnDisk>, JournalError> {
        const SQL: &str = "SELECT stream, first, input, count, arrival, codec, raw_bytes, checksum, data FROM segment
             WHERE stream = ?1 AND first < ?3
             AND first >= coalesce((SELECT max(first) FROM segment WHERE stream = ?1 AND first <= ?2), ?2) ORDER BY \
             first";
        let (stream, position, wanted) = (self.stream, self.position, self.inputs.clone());
        let wants = |input: u16| wanted.as_ref().is_none_or(|wanted| wanted.contains(&input));
        let mut opener = std::mem::take(&mut self.opener);
        let db = self.connection()?;
        let mut read = || -> rusqlite::Result<VecDeque<OnDisk>> {
            let mut found = VecDeque::new();
            let mut bytes = 0;
            let mut statement = db.prepare_cached(SQL)?;
            let mut rows = statement.query(params![stream, position, end])?;
            while found.len() < AHEAD_SEGMENTS
                && bytes < AHEAD_BYTES
                && let Some(row) = rows.next()?
            {
                let (first, count): (i64, i64) = (row.get(1)?, row.get(3).unwrap_or(1));
                if first.saturating_add(count) <= position {
                    continue;
                }
                let segment = read_segment(&mut opener, row, &wants)?;
                bytes += match &segment {
                    OnDisk::Segment(segment) => segment.bytes(),
                    OnDisk::Other { opened, .. } => *opened,
                    OnDisk::Damaged { .. } => 0,
                };
                found.push_back(segment);
            }
            Ok(found)
        };
        let found = read();
        self.opener = opener;
        match found {
            Err(error) if is_damage(&error) => self.read_singly(end),
            found => found.map_err(JournalError::read),
        }
    }

    /// As [`Reader::read_ahead`], up to the first segment that cannot be read.
    fn read_singly(&mut self, end: i64) -> Result<VecDeque<OnDisk>, JournalError> {
        match self.try_singly(end) {
            // their index is damaged: the writer makes it anew, if anybody can
            Err(error) if is_damage(&error) => {
                // the damage undoes the writer's transaction; what could not be mended then is no reason to fail again
                let mut is_looked_at = false;
                let (command, answer) = ask(move |tx| match std::mem::replace(&mut is_looked_at, true) {
                    true => Ok(()),
                    false => Ok(check_index(tx.db)?),
                });
                self.shared.queue.push(Lane::Control, command);
                answer.recv().unwrap_or(Err(JournalError::Closed))?;
                self.db = None;
                self.connection()?;
                self.try_singly(end).map_err(JournalError::read)
            }
            found => found.map_err(JournalError::read),
        }
    }

    fn try_singly(&mut self, end: i64) -> rusqlite::Result<VecDeque<OnDisk>> {
        const FIRSTS: &str = "SELECT first FROM segment WHERE stream = ?1 AND first < ?3
             AND first >= coalesce((SELECT max(first) FROM segment WHERE stream = ?1 AND first <= ?2), ?2)
             ORDER BY first LIMIT ?4";
        const SQL: &str = "SELECT stream, first, input, count, arrival, codec, raw_bytes, checksum, data FROM segment
             WHERE stream = ?1 AND first = ?2";
        let (stream, position, inputs) = (self.stream, self.position, &self.inputs);
        let wants = |input: u16| inputs.as_ref().is_none_or(|wanted| wanted.contains(&input));
        let Some(db) = &self.db else { return Ok(VecDeque::new()) };
        // of one moment
        let db = db.unchecked_transaction()?;
        let mut firsts = db.prepare(FIRSTS)?;
        // the index has them
        let firsts = firsts.query_map(params![stream, position, end, SINGLE_SEGMENTS], |row| row.get(0))?;
        let firsts: Vec<i64> = firsts.collect::<rusqlite::Result<_>>()?;
        let (mut found, mut segment) = (VecDeque::new(), db.prepare(SQL)?);
        for first in firsts {
            match segment.query_row(params![stream, first], |row| read_segment(&mut self.opener, row, &wants)) {
                Err(error) if is_damage(&error) => {
                    found.push_back(OnDisk::Damaged { first, on_page: is_of_page(&error) });
                    break;
                }
                Ok(segment) if segment.end().is_some_and(|end| end <= position) => {}
                segment => found.push_back(segment?),
            }
        }
        Ok(found)
    }

    /// Goes on behind a segment that cannot be read and has the writer set it aside.
    fn pass_damaged(&mut self, first: i64, on_page: bool, end: i64) -> Result<(), JournalError> {
        let stream = self.stream;
        let next = next_first(self.connection()?, stream, first).map_err(JournalError::read)?;
        if !self.go_on(next.unwrap_or(end)) {
            return Ok(());
        }
        let (command, _answer) = ask(move |tx| match on_page {
            true => quarantine::set_page_aside(tx, stream, first),
            false => quarantine::set_aside(tx, stream, first),
        });
        // a journal that takes no commands any more does so after the next start
        self.shared.queue.push(Lane::Control, command);
        Ok(())
    }
}

fn read_segment(opener: &mut Opener, row: &Row<'_>, wants: &dyn Fn(u16) -> bool) -> rusqlite::Result<OnDisk> {
    let first: i64 = row.get(1)?;
    let head = match Head::read(row) {
        Err(error) if is_damage(&error) => return Ok(OnDisk::Damaged { first, on_page: is_of_page(&error) }),
        head => head?,
    };
    if head.stream == INPUTS && !head.may_hold(wants) {
        return Ok(OnDisk::Other { first, end: head.end(), opened: 0 });
    }
    let (checksum, data) = match (row.get(7), row.get(8)) {
        (Ok(checksum), Ok(data)) => (checksum, data),
        (Err(error), _) | (_, Err(error)) if is_damage(&error) => {
            return Ok(OnDisk::Damaged { first, on_page: is_of_page(&error) });
        }
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    Ok(match opener.open_for(&head, checksum, data, wants) {
        Ok(Segment::Events(events)) if events.is_empty() => {
            OnDisk::Other { first, end: head.end(), opened: head.raw_bytes as usize }
        }
        Ok(segment) => OnDisk::Segment(segment),
        Err(_) => OnDisk::Damaged { first, on_page: false },
    })
}

/// Reads the events of one input in segments of the inputs' stream, by their first offsets; those that are gone or
/// damaged are passed over.
pub(super) fn read_events(
    db: &Connection,
    input: u16,
    firsts: &[i64],
    mut each: impl FnMut(EventRef<'_>, Bytes),
) -> rusqlite::Result<()> {
    let sql = "SELECT stream, first, input, count, arrival, codec, raw_bytes, checksum, data FROM segment WHERE stream \
        = 0 AND first = ?1";
    let mut find = db.prepare(sql)?;
    let mut opener = Opener::default();
    for first in firsts {
        let found = find.query_row([first], |row| read_segment(&mut opener, row, &|of| of == input)).optional();
        let found = if matches!(&found, Err(error) if is_damage(error)) { None } else { found? };
        let Some(OnDisk::Segment(Segment::Events(events))) = found else { continue };
        let slice = EventSlice::all(&events);
        for (i, event) in slice.iter().enumerate() {
            each(event, slice.payload(i).unwrap_or_default());
        }
    }
    Ok(())
}

//! One transaction: what the writer does for the commands it took together.
//!
//! In: appends, commits of consumers. Out: new books, [`Changes`] to be made durable, and the segments that readers may
//! see once they are. Invariant: a step that is refused has changed nothing; whatever else fails takes the whole
//! transaction with it. What only SQLite can do (dead letters, commands) is done at once, inside the `BEGIN IMMEDIATE`
//! that such transactions have. Not here: when to begin and commit (`writer`), how changes get into the file
//! (`checkpoint`, `redo`).

use std::ops::Range;
use std::sync::Arc;

use rusqlite::Connection;
use smol_str::SmolStr;

use super::books::{Books, INPUTS, InHand};
use super::changes::Changes;
use super::dead_letter;
use super::error::{JournalError, StepError, invalid};
use super::ledger::{Counter, Edge, what};
use super::passing::TimePassing;
use super::ranges::set_aside_between;
use super::request::{Append, Commit, InputId, Replayed};
use super::segment::{
    self, Draft, EventBuilder, PAYLOAD_BYTES_MAX, RowSegment, SEGMENT_RAW_BYTES, SEGMENT_RECORDS_MAX, Sealer, Segment,
    SegmentKind, encode_rows,
};
use super::stream::Dropped;
use crate::batch::{Batch, RawEvent, Rows};
use crate::time::Timestamp;

pub(super) struct Transaction<'a> {
    pub db: &'a Connection,
    /// As they will be after the commit.
    pub books: Books,
    /// What has to become durable with the books.
    pub changes: Changes,
    /// The same segments for readers.
    pub segments: Vec<(u32, Segment)>,
    /// By the job's clock.
    pub now: Timestamp,
    passing: &'a TimePassing,
    sealer: &'a mut Sealer,
    /// Events of `builder_input` that have offsets but no segment yet.
    builder: &'a mut EventBuilder,
    builder_input: u16,
    builder_first: i64,
}

impl<'a> Transaction<'a> {
    pub fn new(
        db: &'a Connection,
        books: Books,
        sealer: &'a mut Sealer,
        builder: &'a mut EventBuilder,
        now: Timestamp,
        passing: &'a TimePassing,
    ) -> Transaction<'a> {
        // what a transaction that failed left behind
        if !builder.is_empty() {
            builder.finish();
        }
        Transaction {
            db,
            books,
            changes: Changes::default(),
            segments: Vec::new(),
            now,
            passing,
            sealer,
            builder,
            builder_input: 0,
            builder_first: 0,
        }
    }

    /// Gives the events their offsets and counts them.
    pub fn append(&mut self, append: &Append) -> Result<Range<i64>, StepError> {
        let name = self.input_name(append.input)?;
        let range = self.take_events(append.input, &append.events, append.era)?;
        for letter in &append.undecodable {
            dead_letter::store(self.db, &mut self.books, letter)?;
        }
        self.count_append(append, &name);
        Ok(range)
    }

    fn input_name(&self, input: InputId) -> Result<SmolStr, JournalError> {
        let name = self.books.inputs.get(&input.0).cloned();
        name.ok_or(JournalError::Unknown { what: "input", number: u32::from(input.0) })
    }

    /// Stores what became of dead letters.
    pub fn replay(&mut self, replayed: &Replayed) -> Result<(), StepError> {
        let emitted = replayed.emit.iter();
        let encoded = emitted.map(|(stream, rows)| Ok((stream.0, self.encode(stream.0, rows, &"replay".into())?)));
        let encoded = encoded.collect::<Result<Vec<_>, JournalError>>()?;
        if let Some((input, events)) = &replayed.events {
            self.input_name(*input)?;
            self.take_events(*input, events, replayed.era)?;
        }
        // nothing is refused from here on
        for (stream, parts) in encoded {
            self.add_rows(stream, parts);
        }
        for (id, letter) in &replayed.again {
            dead_letter::fail_again(self.db, &mut self.books, *id, letter)?;
        }
        for letter in &replayed.letters {
            dead_letter::store(self.db, &mut self.books, letter)?;
        }
        dead_letter::replayed(self.db, &mut self.books, &replayed.done)?;
        self.count(&replayed.ledger);
        Ok(())
    }

    fn take_events(&mut self, input: InputId, events: &[RawEvent], era: u32) -> Result<Range<i64>, StepError> {
        if let Some(large) = events.iter().map(|e| e.payload.len()).find(|n| *n > PAYLOAD_BYTES_MAX) {
            return Err(JournalError::Payload { bytes: large, max: PAYLOAD_BYTES_MAX }.into());
        }
        let stream =
            |books: &Books| books.streams.get(&INPUTS).map_or((0, Timestamp::MIN), |s| (s.next, s.last_arrival));
        let (first, mut arrival) = stream(&self.books);
        let is_present = era >= self.books.eras.number();
        if let Some(event) = events.first() {
            let stamped = if is_present { arrival.max(event.arrival) } else { arrival };
            arrival = self.passing.storing(self.books.eras.number(), stamped);
        }
        let mut next = first;
        for event in events {
            let full = self.builder.count() as usize >= SEGMENT_RECORDS_MAX
                || (!self.builder.is_empty() && self.builder.bytes() + event.payload.len() > SEGMENT_RAW_BYTES);
            if full || self.builder_input != input.0 {
                self.close_segment()?;
                self.builder_input = input.0;
            }
            if self.builder.is_empty() {
                self.builder_first = next;
            }
            // what was stamped before arrival time was set back comes after it
            arrival = if is_present { arrival.max(event.arrival) } else { arrival };
            self.builder.push(event, arrival);
            next += 1;
        }
        if let Some(inputs) = self.books.streams.get_mut(&INPUTS) {
            (inputs.next, inputs.last_arrival) = (next, arrival);
        }
        Ok(first..next)
    }

    fn count_append(&mut self, append: &Append, name: &SmolStr) {
        let ledger = &mut self.books.ledger;
        let counter = |what: &'static str| Counter::new(Edge::Input, name.clone(), what);
        ledger.add(counter(what::RECEIVED), append.received);
        ledger.add(counter(what::STORED), append.events.len() as u64);
        for letter in &append.undecodable {
            ledger.add(counter(what::UNDECODABLE).because(letter.reason.clone()), 1);
        }
        for (reason, n) in &append.dropped {
            ledger.add(counter(what::DROPPED).because(*reason), *n);
        }
        for (counter, n) in &append.ledger {
            ledger.add(counter.clone(), *n);
        }
    }

    /// Makes a segment of the events collected so far.
    pub fn close_segment(&mut self) -> rusqlite::Result<()> {
        if self.builder.is_empty() {
            return Ok(());
        }
        let (count, arrival) = (self.builder.count(), self.builder.arrival().ticks());
        let raw = self.builder.finish();
        let (first, input) = (self.builder_first, self.builder_input);
        let (stream, kind) = (INPUTS, SegmentKind::Events);
        let sealed = self.sealer.seal(Draft { stream, first, input, count, arrival, raw: &raw, kind });
        self.changes.sealed.push(sealed);
        // readers in this process get what a reader of the file would get
        let decoded = segment::EventSegment::from_raw(first, input, raw).map_err(|e| invalid(e.to_string()))?;
        self.segments.push((INPUTS, Segment::Events(Arc::new(decoded))));
        Ok(())
    }

    /// Moves a consumer and stores what it did since its last commit.
    pub fn commit(&mut self, commit: &Commit) -> Result<(), StepError> {
        let id = commit.consumer.0;
        let Some(consumer) = self.books.consumers.get(&id) else {
            return Err(JournalError::Unknown { what: "consumer", number: id }.into());
        };
        let (name, stored, stream) = (consumer.name.clone(), consumer.position, consumer.stream);
        let end = self.books.streams.get(&stream).map_or(0, |s| s.next);
        let goes_back = commit.position < stored && consumer.dropped.is_none_or(|dropped| stored > dropped.to);
        if goes_back || commit.position > end {
            return Err(JournalError::Position { consumer: name.into(), position: commit.position, stored, end }.into());
        }
        let encoded = commit.emitted().map(|(stream, rows)| Ok((stream.0, self.encode(stream.0, rows, &name)?)));
        let encoded = encoded.collect::<Result<Vec<_>, JournalError>>()?;
        // nothing is refused from here on
        for (stream, parts) in encoded {
            self.add_rows(stream, parts);
        }
        #[allow(unused_mut, reason = "a test plants a fault")]
        let mut state: Vec<_> = commit.state.iter().map(|change| (id, change.clone())).collect();
        #[cfg(test)]
        if self.books.planted == Some(super::planted::Planted::StateApartFromPosition) {
            std::mem::swap(&mut self.books.held_back, &mut state);
        }
        self.changes.state.extend(state);
        for letter in &commit.dead_letters {
            dead_letter::store(self.db, &mut self.books, letter)?;
        }
        self.count(&commit.ledger);
        // a row of an earlier era that is replayed, or answered late, carries the time of that one
        let is_past = self.books.eras.used().any(|(from, to)| (from..=to).contains(&commit.reached));
        let is_present = commit.era >= self.books.eras.number() && !is_past;
        if let Some(inputs) = self.books.streams.get_mut(&INPUTS).filter(|_| is_present) {
            inputs.last_arrival = inputs.last_arrival.max(commit.reached);
        }
        self.advance(id, commit.position)?;
        Ok(())
    }

    /// Adds to counters, and takes note of what was delivered.
    fn count(&mut self, counters: &[(Counter, u64)]) {
        for (counter, n) in counters {
            if counter.edge == Edge::Output && counter.what == what::DELIVERED && *n > 0 {
                self.books.delivered.insert(counter.name.to_string(), self.now.ticks());
            }
            self.books.ledger.add(counter.clone(), *n);
        }
    }

    fn encode(&self, stream: u32, rows: &Rows, consumer: &SmolStr) -> Result<Vec<(Vec<u8>, Rows)>, JournalError> {
        if stream == INPUTS || !self.books.streams.contains_key(&stream) {
            return Err(JournalError::Unknown { what: "stream of rows", number: stream });
        }
        let refused = |reason: String| JournalError::Rows { consumer: consumer.to_string(), reason };
        split_rows(rows)
            .into_iter()
            .map(|range| {
                let raw = encode_rows(rows, range.clone()).map_err(refused)?;
                if raw.len() > segment::RAW_BYTES_MAX {
                    return Err(refused(format!(
                        "{} bytes in one segment are more than {}",
                        raw.len(),
                        segment::RAW_BYTES_MAX
                    )));
                }
                let whole = range.len() == rows.batch.len();
                Ok((raw, if whole { rows.clone() } else { part(rows, range) }))
            })
            .collect()
    }

    fn add_rows(&mut self, stream: u32, parts: Vec<(Vec<u8>, Rows)>) {
        // a row of an earlier era carries the time of that one
        let present = self.books.streams.get(&INPUTS).map_or(Timestamp::MAX, |inputs| inputs.last_arrival);
        let eras = self.books.eras.clone();
        let is_used = |at: Timestamp| eras.used().any(|(from, to)| (from..=to).contains(&at));
        for (raw, rows) in parts {
            let Some(book) = self.books.streams.get_mut(&stream) else { break };
            let first = book.next;
            let newest = rows.batch.rows().map(|(meta, _)| meta.arrival).max().unwrap_or_default();
            let newest = if newest > present && is_used(newest) { present } else { newest };
            book.last_arrival = book.last_arrival.max(newest);
            book.next += rows.batch.len() as i64;
            let count = u32::try_from(rows.batch.len()).unwrap_or(u32::MAX);
            // rows begin to wait now, however old the events are that a window or an endpoint held
            let arrival = newest.max(self.now).ticks();
            let draft = Draft { stream, first, input: 0, count, arrival, raw: &raw, kind: SegmentKind::Rows };
            self.changes.sealed.push(self.sealer.seal(draft));
            self.segments.push((stream, Segment::Rows(Arc::new(RowSegment::new(first, rows)))));
        }
    }

    /// Moves a consumer and counts what it passed: read, or skipped where segments had been set aside. What it had in
    /// hand when the journal moved it on counts now.
    fn advance(&mut self, id: u32, to: i64) -> rusqlite::Result<()> {
        let Some(consumer) = self.books.consumers.get_mut(&id) else { return Ok(()) };
        let (name, stream) = (consumer.name.clone(), consumer.stream);
        let mut passed: Vec<(i64, i64)> = Vec::new();
        // what it had in hand when it was moved on
        for held in consumer.in_hand.iter_mut().filter(|held| held.from < to) {
            let end = held.to.min(to);
            let settled = Counter::new(Edge::Consumer, name.clone(), what::SETTLED).because(held.reason);
            self.books.ledger.add(settled, (end - held.from) as u64);
            passed.push((held.from, end));
            held.from = end;
        }
        consumer.in_hand.retain(|held| held.from < held.to);
        if to > consumer.position {
            passed.push((consumer.position, to));
            consumer.position = to;
        }
        passed.into_iter().try_for_each(|(from, to)| self.count_passed(&name, stream, from, to))
    }

    fn count_passed(&mut self, name: &SmolStr, stream: u32, from: i64, to: i64) -> rusqlite::Result<()> {
        // while nothing was, nobody looks
        let (aside, missing) = match self.books.quarantined {
            0 => (0, 0),
            _ => set_aside_between(self.db, stream, from, to)?,
        };
        let passed = (to - from) as u64;
        // damaged heads may make ranges overlap: each record is counted once all the same
        let aside = aside.min(passed);
        let missing = missing.min(aside);
        let counter = |what: &'static str| Counter::new(Edge::Consumer, name.clone(), what);
        self.books.ledger.add(counter(what::READ), passed - aside);
        self.books.ledger.add(counter(what::SKIPPED).because("damaged"), aside - missing);
        self.books.ledger.add(counter(what::SKIPPED).because("missing"), missing);
        Ok(())
    }

    /// Moves a consumer past records that it will not read, for a reason. What was handed out to it before the offset
    /// `handed` it has in hand: that is skipped only if it never commits it.
    pub fn skip(&mut self, id: u32, to: i64, reason: &'static str, handed: i64) {
        let Some(consumer) = self.books.consumers.get_mut(&id).filter(|c| to > c.position) else { return };
        let (from, held) = (consumer.position, handed.clamp(consumer.position, to));
        (consumer.position, consumer.dropped) = (to, Some(Dropped { to, reason }));
        let counter = |what: &'static str| Counter::new(Edge::Consumer, consumer.name.clone(), what).because(reason);
        self.books.ledger.add(counter(what::IN_HAND), (held - from) as u64);
        self.books.ledger.add(counter(what::SKIPPED), (to - held) as u64);
        if held > from {
            consumer.in_hand.push(InHand { from, to: held, reason });
        }
    }

    /// What an earlier reader of the consumer had in hand, and never committed, is skipped after all; how many records
    /// that are.
    pub fn give_up_in_hand(&mut self, id: u32) -> u64 {
        let Some(consumer) = self.books.consumers.get_mut(&id) else { return 0 };
        consumer.in_hand.clear();
        let (name, ledger) = (consumer.name.clone(), &mut self.books.ledger);
        let mut given_up = 0;
        for (reason, left) in ledger.in_hand_by_reason(&name) {
            given_up += left;
            let counter = |what: &'static str| Counter::new(Edge::Consumer, name.clone(), what).because(reason.clone());
            ledger.add(counter(what::SETTLED), left);
            ledger.add(counter(what::SKIPPED), left);
        }
        given_up
    }
}

/// Cuts rows into segments of bounded size.
fn split_rows(rows: &Rows) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (i, (_, values)) in rows.batch.rows().enumerate() {
        let row: usize = values.iter().map(|v| 16 + v.heap_bytes()).sum();
        if i > start && (i - start >= SEGMENT_RECORDS_MAX || bytes + row > SEGMENT_RAW_BYTES) {
            ranges.push(start..i);
            (start, bytes) = (i, 0);
        }
        bytes += row;
    }
    if start < rows.batch.len() {
        ranges.push(start..rows.batch.len());
    }
    ranges
}

fn part(rows: &Rows, range: Range<usize>) -> Rows {
    let mut batch = Batch::with_capacity(rows.batch.width(), range.len());
    for (meta, values) in rows.batch.rows().skip(range.start).take(range.len()) {
        batch.push(*meta, values.iter().cloned());
    }
    Rows { columns: rows.columns.clone(), batch }
}

//! The one reading step of all parts: a stretch of a stream, across the segments it is stored in.
//!
//! In: segments as the journal has them: as small as the commits that wrote them. Out: a [`Stretch`], filled up to a
//! bound in records and bytes, until there is nothing more. Invariant: what is read is handed out once and in order; a
//! stretch of rows has one set of columns. Not here: what becomes of the records, who keeps the position.

use std::time::Duration;

use crate::batch::{RawEvent, Rows};
use crate::journal::{EventSlice, JournalError, Read, Reader};
use crate::time::{Clock, Timestamp};

/// How much one stretch may hold. The last segment may go past the bytes: it is 1 MiB at most, or one record.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    pub records: usize,
    pub bytes: usize,
}

impl Bound {
    /// Bytes of one stretch: two or three of them lie in memory for each part.
    pub const BYTES: usize = 1 << 20;

    /// A bound in records; of bytes there may be [`Bound::BYTES`].
    pub fn records(records: usize) -> Bound {
        Bound { records, bytes: Bound::BYTES }
    }
}

/// Events of one input, in order; those of inputs that are not read may lie between.
#[derive(Debug)]
pub struct Events {
    pub input: u16,
    /// Of each event.
    pub offsets: Vec<i64>,
    pub events: Vec<RawEvent>,
}

/// The records of a stretch.
#[derive(Debug)]
pub enum Records {
    Events(Vec<Events>),
    Rows {
        /// Offset of the first one in the stream.
        first: i64,
        rows: Rows,
    },
}

/// What was read in one step.
#[derive(Debug)]
pub struct Stretch {
    pub records: Records,
    /// How many records there are.
    pub len: usize,
    /// The offset behind everything read or passed: what to commit once it is done.
    pub position: i64,
    /// Records of other inputs that were passed.
    pub others: u64,
    /// Nothing more was stored when the step ended: time may pass.
    pub is_at_end: bool,
}

impl Stretch {
    /// No records, and time does not pass either.
    pub fn nothing(position: i64) -> Stretch {
        Stretch { records: Records::Events(Vec::new()), len: 0, position, others: 0, is_at_end: false }
    }

    /// Arrival time of the first record.
    pub fn first_arrival(&self) -> Option<Timestamp> {
        match &self.records {
            Records::Events(runs) => Some(runs.first()?.events.first()?.arrival),
            Records::Rows { rows, .. } => rows.batch.meta().first().map(|meta| meta.arrival),
        }
    }

    /// Event time of the first row; events have none before they are decoded.
    pub fn first_time(&self) -> Option<Timestamp> {
        match &self.records {
            Records::Events(_) => None,
            Records::Rows { rows, .. } => rows.batch.meta().first().map(|meta| meta.time),
        }
    }
}

/// Reads one stream for one part.
#[derive(Debug)]
pub struct Reading {
    reader: Reader,
    bound: Bound,
    /// Rows that were met with other columns than those before them, or behind a gap: the next stretch.
    ahead: Option<Read>,
}

impl Reading {
    pub fn new(reader: Reader, bound: Bound) -> Reading {
        Reading { reader, bound, ahead: None }
    }

    /// The next offset to read.
    pub fn position(&self) -> i64 {
        match &self.ahead {
            Some(Read::Events(slice)) => slice.first(),
            Some(Read::Rows(slice)) => slice.first(),
            Some(Read::Idle | Read::Passed | Read::Closed) | None => self.reader.position(),
        }
    }

    /// How many records its stream has from this offset on.
    pub fn behind(&self, position: i64) -> u64 {
        u64::try_from(self.reader.end().saturating_sub(position)).unwrap_or(0)
    }

    /// Why the journal has moved the consumer past everything before this position; `None`: it has not.
    pub fn dropped(&self, position: i64) -> Option<&'static str> {
        self.reader.dropped(position)
    }

    /// Changes how many records a stretch has at most.
    pub fn limit(&mut self, records: usize) {
        self.bound.records = records;
    }

    /// The next stretch; one without records when nothing came for `wait`. `None`: the journal is closed.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn next(&mut self, wait: Duration) -> Result<Option<Stretch>, JournalError> {
        // threads that wait for the journal wait in real time
        let deadline = Clock::Real.monotonic() + wait;
        let mut filling = Filling::default();
        let mut is_at_end = false;
        while filling.len < self.bound.records && filling.bytes < self.bound.bytes {
            if filling.len > 0 && Clock::Real.monotonic() >= deadline {
                break;
            }
            let found = match self.ahead.take() {
                Some(found) => found,
                // what is there is taken; only an empty stretch waits
                None if filling.len > 0 => self.reader.next_now(self.bound.records - filling.len)?,
                None => self.reader.next(self.bound.records, deadline)?,
            };
            match found {
                Read::Closed if filling.len == 0 => return Ok(None),
                Read::Closed => break,
                Read::Passed if filling.len == 0 => break,
                // others' segments were passed; ours may follow
                Read::Passed => {}
                Read::Idle => {
                    is_at_end = true;
                    break;
                }
                found => {
                    self.ahead = filling.add(found);
                    if self.ahead.is_some() {
                        break;
                    }
                }
            }
        }
        let len = filling.len;
        let records = filling.rows.map_or(Records::Events(filling.runs), |(first, rows)| Records::Rows { first, rows });
        let others = self.reader.take_others();
        Ok(Some(Stretch { records, len, position: self.position(), others, is_at_end }))
    }
}

/// A stretch while it grows.
#[derive(Debug, Default)]
struct Filling {
    runs: Vec<Events>,
    rows: Option<(i64, Rows)>,
    len: usize,
    bytes: usize,
}

impl Filling {
    /// Adds what was read, or gives it back when it belongs into a stretch of its own.
    fn add(&mut self, found: Read) -> Option<Read> {
        match &found {
            Read::Events(slice) => {
                self.add_events(slice);
                None
            }
            Read::Rows(slice) => {
                let (first, len) = (slice.first(), slice.len());
                let mut more = slice.to_rows();
                match &mut self.rows {
                    None => self.rows = Some((first, more)),
                    Some((start, rows))
                        if rows.columns == more.columns && *start + rows.batch.len() as i64 == first =>
                    {
                        rows.batch.append(&mut more.batch);
                    }
                    Some(_) => return Some(found),
                }
                self.len += len;
                self.bytes += slice.bytes();
                None
            }
            Read::Idle | Read::Passed | Read::Closed => None,
        }
    }

    fn add_events(&mut self, slice: &EventSlice) {
        let input = slice.input();
        if self.runs.last().is_none_or(|run| run.input != input) {
            self.runs.push(Events { input, offsets: Vec::new(), events: Vec::new() });
        }
        let Some(run) = self.runs.last_mut() else { return };
        run.offsets.extend(slice.iter().map(|event| event.offset));
        run.events.extend(slice.events());
        self.len += slice.len();
        self.bytes += slice.bytes();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use bytes::Bytes;

    use super::*;
    use crate::batch::Urgency;
    use crate::journal::{Append, InputId, Journal, JournalConfig, StreamId};

    /// Stores events of one moment, in a segment of their own.
    pub fn store(journal: &Journal, input: InputId, arrival: Timestamp, n: usize) {
        store_each(journal, input, arrival, vec![Bytes::from_static(b"{}"); n]);
    }

    /// As [`store`], with these payloads.
    pub fn store_each(journal: &Journal, input: InputId, arrival: Timestamp, payloads: Vec<Bytes>) {
        let (done, stored) = channel();
        let event = |payload| RawEvent { arrival, payload, message: Arc::default(), mark: 0 };
        journal.append(Append {
            input,
            received: payloads.len() as u64,
            events: payloads.into_iter().map(event).collect(),
            undecodable: Vec::new(),
            dropped: Vec::new(),
            ledger: Vec::new(),
            era: 0,
            urgency: Urgency::InBudget,
            on_durable: Box::new(move |result| done.send(result).unwrap()),
        });
        journal.flush();
        stored.recv().unwrap().unwrap();
    }

    #[test]
    fn time_does_not_pass_while_segments_of_other_inputs_lie_before_ours() {
        let dir = tempfile::tempdir().unwrap();
        let config = JournalConfig { recent_records: 0, ..JournalConfig::new(dir.path().join("pool.db")) };
        let journal = Journal::open(config).unwrap();
        let (theirs, ours) = (journal.input("theirs").unwrap(), journal.input("ours").unwrap());
        (0..40).for_each(|_| store(&journal, theirs, Timestamp::MIN, 1));
        store(&journal, ours, Timestamp::MIN, 1);
        let reader = journal.reader(StreamId::INPUTS, 0).only(&[ours]).looking_up_always();
        let mut reading = Reading::new(reader, Bound::records(10));
        let (mut passed, mut read) = (0, 0);
        while read == 0 {
            let stretch = reading.next(Duration::ZERO).unwrap().unwrap();
            (passed, read) = (passed + usize::from(stretch.len == 0), stretch.len);
            assert!(!stretch.is_at_end || read == 1, "at {} of 41 it takes the stream for read", stretch.position);
        }
        assert!(passed > 0, "it never looked up");
        assert_eq!(reading.position(), 41);
    }
}

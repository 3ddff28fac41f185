//! From a stream of the journal, or straight from the inputs, to an output.
//!
//! In: stored rows, or events that a stateless plan turns into rows on the way. Out: deliveries, and the position that
//! moves with them. Invariant: the position moves only past rows that were delivered, dead-lettered or counted. Not here:
//! how an output delivers, statements with state or external calls (`consumer`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smol_str::SmolStr;

use super::PipelineError;
use super::feed::Feed;
use super::flow::Flow;
use super::outputs::OutputHandle;
use crate::batch::{Batch, Rows};
use crate::engine::{Emitted, FailedRow};
use crate::journal::{Commit, Counter, DeadLetter, Edge, Read, Reader, Receipt};
use crate::output::Delivery;

/// Records read at once: large enough to batch, small enough that a repeat after a crash is short.
const READ_MAX: usize = 1000;
/// How long a read waits before it looks whether the job is to stop.
const WAIT: Duration = Duration::from_millis(500);
/// First and longest pause after an output asked to try again.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(30);
/// A position that moved without rows to deliver is committed this often.
const COMMIT_IDLE: Duration = Duration::from_secs(1);

/// Commits under way that were not yet confirmed: with one alone, delivery would go at the pace of the commit interval.
/// So many times `READ_MAX` rows, or those of one interval, may be delivered again after a crash.
const RECEIPTS_MAX: usize = 8;

/// One statement's way to its output.
#[derive(Debug)]
pub struct Deliverer {
    pub flow: Flow,
    pub reader: Reader,
    /// The plan that turns events into rows; `None` when the stream holds finished rows.
    pub feed: Option<Feed>,
    pub output: OutputHandle,
    /// Names the statement in row ids.
    pub statement: SmolStr,
    /// Rows that wait inside the plan for earlier ones.
    pub held: u64,
    /// Rows that were read on the way and have other columns than those before them: an earlier text of the statement.
    pub ahead: Option<Ahead>,
}

/// Rows for the next delivery, and where the reader stood behind them.
#[derive(Debug)]
pub struct Ahead {
    rows: Rows,
    read: u64,
    position: i64,
}

/// What was read and waits for its commit.
#[derive(Debug, Default)]
struct Pending {
    position: i64,
    read: u64,
    ledger: Vec<(Counter, u64)>,
    letters: Vec<DeadLetter>,
    /// The row at which the statement stops; what was read before it is delivered.
    stopped: Option<FailedRow>,
}

impl Deliverer {
    /// Runs until the job stops.
    ///
    /// # Errors
    /// When the journal refuses, or the statement stops by its `on_error = "stop"`.
    pub fn run(mut self) -> Result<(), PipelineError> {
        if self.feed.as_ref().is_some_and(|feed| !feed.tables.wait(&self.flow.stop)) {
            return Ok(());
        }
        let mut receipts: VecDeque<Receipt> = VecDeque::new();
        let mut committed = Instant::now();
        let mut at = self.reader.position();
        let mut waiting = Pending { position: at, ..Pending::default() };
        while !self.flow.stop.is_set() {
            let Some((rows, mut pending)) = self.read(&mut waiting)? else { break };
            if !rows.batch.is_empty() && !self.deliver(&rows, &mut pending)? {
                // stopped in the middle of a retry: what was read is read again at the next start
                break;
            }
            if let Some(failure) = pending.stopped.take() {
                self.commit(pending).wait()?;
                return Err(self.flow.stopped(&failure));
            }
            let is_due = !rows.batch.is_empty() || !pending.letters.is_empty() || committed.elapsed() >= COMMIT_IDLE;
            // the position also moves past what other statements read
            if pending.position == at || !is_due {
                waiting = pending;
                continue;
            }
            at = pending.position;
            waiting.position = at;
            receipts.push_back(self.commit(pending));
            if receipts.len() > RECEIPTS_MAX
                && let Some(oldest) = receipts.pop_front()
            {
                oldest.wait()?;
            }
            committed = Instant::now();
        }
        if waiting.position > at {
            receipts.push_back(self.commit(waiting));
        }
        receipts.into_iter().try_for_each(|receipt| Ok(receipt.wait()?))
    }

    fn commit(&self, pending: Pending) -> Receipt {
        let commit = Commit { dead_letters: pending.letters, ledger: pending.ledger, ..Commit::at(self.flow.consumer, pending.position) };
        self.flow.journal.commit(commit)
    }

    /// The next rows and what goes with them; `None` when the journal closed.
    fn read(&mut self, waiting: &mut Pending) -> Result<Option<(Arc<Rows>, Pending)>, PipelineError> {
        let mut pending = std::mem::take(waiting);
        let full = pending.read + READ_MAX as u64;
        let mut rows = if let Some(ahead) = self.ahead.take() {
            (pending.position, pending.read) = (ahead.position, pending.read + ahead.read);
            ahead.rows
        } else {
            match self.reader.next(READ_MAX, Instant::now() + WAIT)? {
                Read::Closed => return Ok(None),
                found => {
                    if let Some(feed) = self.feed.as_mut().filter(|_| pending.read == 0) {
                        feed.between_commits();
                    }
                    self.rows(&found, &mut pending)?
                }
            }
        };
        // A read ends with its segment, and segments are as small as the commits that wrote them. Delivered one by one,
        // a backlog would leave no faster than it came in.
        while !rows.batch.is_empty() && pending.read < full && pending.stopped.is_none() {
            let room = usize::try_from(full - pending.read).unwrap_or(READ_MAX);
            let before = (pending.position, pending.read);
            let mut more = match self.reader.next(room, Instant::now())? {
                Read::Closed | Read::Idle => break,
                found => self.rows(&found, &mut pending)?,
            };
            if more.columns == rows.columns {
                rows.batch.append(&mut more.batch);
            } else {
                self.ahead = Some(Ahead { rows: more, read: pending.read - before.1, position: pending.position });
                (pending.position, pending.read) = before;
                break;
            }
        }
        Ok(Some((Arc::new(rows), pending)))
    }

    /// The rows that records give, and what the ledger learns of them.
    fn rows(&mut self, found: &Read, pending: &mut Pending) -> Result<Rows, PipelineError> {
        let (rows, read) = match (&mut self.feed, found) {
            (None, Read::Rows(slice)) => (slice.to_rows(), slice.len() as u64),
            (None, _) => (Rows { columns: self.flow.columns.clone(), batch: Batch::default() }, 0),
            (Some(feed), found) => {
                let read = feed.push(found);
                let Emitted { rows, failures, counts, waiting, stopped, .. } = feed.executor.take();
                pending.stopped = stopped;
                pending.ledger.extend(self.flow.counts(&counts, &mut self.held, waiting));
                pending.letters.extend(self.flow.letters(failures));
                (rows, read)
            }
        };
        pending.position = pending.stopped.as_ref().map_or(self.reader.position(), |failure| failure.position);
        pending.read += read;
        Ok(rows)
    }

    /// Delivers all rows, trying again for as long as it takes; `false` when the job stops first.
    fn deliver(&mut self, rows: &Arc<Rows>, pending: &mut Pending) -> Result<bool, PipelineError> {
        let mut pause = RETRY_FIRST;
        let count = rows.batch.len() as u64;
        let output = self.output.name().clone();
        let counter = |what: &'static str| Counter::new(Edge::Output, output.clone(), what);
        loop {
            match self.output.deliver(rows, &self.statement) {
                Delivery::Delivered => {
                    pending.ledger.push((counter("rows_in"), count));
                    pending.ledger.push((counter("delivered"), count));
                    return Ok(true);
                }
                Delivery::Rejected { rows: refused } => {
                    let n = refused.len() as u64;
                    pending.ledger.push((counter("rows_in"), count));
                    pending.ledger.push((counter("delivered"), count - n));
                    pending.ledger.push((counter("dead_lettered"), n));
                    pending.letters.extend(self.flow.rejected(&output, rows, refused));
                    return Ok(true);
                }
                Delivery::Gone { reason } => return Err(PipelineError::Output { name: output, reason }),
                Delivery::TryAgain { .. } => {
                    if self.flow.stop.sleep(pause) {
                        return Ok(false);
                    }
                    pause = (pause * 2).min(RETRY_LONGEST);
                }
            }
        }
    }
}

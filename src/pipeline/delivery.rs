//! From a stream of the journal, or straight from the inputs, to an output.
//!
//! In: stored rows, or events that a stateless plan turns into rows on the way. Out: deliveries, and the position that
//! moves with them. Invariant: the position moves only past rows that were delivered, dead-lettered or counted; what is
//! read goes through the plan at once, also where its rows wait for others (`gathering`). Not here: how an output
//! delivers, statements with state or external calls (`consumer`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;

use super::PipelineError;
use super::commits::DueCommit;
use super::cycle::{Cycle, Go};
use super::due::{Done, SinceCommit};
use super::feed::Feed;
use super::flow::{Flow, engine};
use super::gathering::Gathering;
use super::outputs::OutputHandle;
use super::reading::{Reading, Records, Stretch};
use crate::backoff::{Backoff, Retry};
use crate::batch::Rows;
use crate::engine::{Emitted, FailedRow};
#[cfg(test)]
use crate::journal::planted::Planted;
use crate::journal::{Commit, Counter, DeadLetter, Edge, what};
use crate::kill_point::{self, KillPoint};
use crate::output::{Delivery, ScorerNames};

/// Records of one delivery: large enough to batch, small enough that a repeat after a crash is short.
const RECORDS_MAX: usize = 1000;
/// Records of one delivery to a slow receiver, unless it wants more rows at once.
const RECORDS_MIN: usize = 10;
/// Records of the first delivery, when nobody knows how fast the receiver is.
pub const RECORDS_FIRST: usize = 100;
/// What a delivery takes at most, when the receiver goes on as fast as before: a stop waits for it, and a crash repeats
/// it.
const DELIVERY_TIME: Duration = Duration::from_millis(500);
/// Dead letters that wait with rows for their commit; more of them, and the rows wait no longer.
const LETTERS_BYTES_MAX: u64 = 1 << 20;
/// How long a read waits before it looks whether a position that moved alone is to be committed.
const WAIT: Duration = Duration::from_secs(1);

/// One statement's way to its output.
#[derive(Debug)]
pub struct Deliverer {
    pub flow: Flow,
    pub reading: Reading,
    /// The plan that turns events into rows; `None` when the stream holds finished rows.
    pub feed: Option<Feed>,
    pub output: OutputHandle,
    /// Names the statement in row ids.
    pub statement: SmolStr,
    /// Who scores its rows, where a function with a fallback does.
    pub scorers: Option<ScorerNames>,
    /// Between two attempts at the same rows.
    pub backoff: Backoff,
    /// Rows that wait inside the plan for earlier ones.
    pub held: u64,
    /// Rows that wait for others; while they do nothing is committed.
    pub gathering: Gathering,
    /// Records of the next delivery: fewer where the receiver is slow.
    pub stride: usize,
    pub pending: Uncommitted,
    pub due: SinceCommit,
    /// The row at which the statement stops; what was read before it is delivered.
    pub stopped: Option<FailedRow>,
    /// Of a planted fault: what is delivered once the position behind it may be stored.
    #[cfg(test)]
    pub held_back: Option<Arc<Rows>>,
}

/// What is done with and waits for its commit.
#[derive(Debug, Default)]
pub struct Uncommitted {
    pub position: i64,
    /// Summed up, since many reads may pass until rows that wait are delivered.
    ledger: BTreeMap<Counter, u64>,
    letters: Vec<DeadLetter>,
    letters_bytes: u64,
    /// Rows were delivered.
    is_delivered: bool,
}

impl Uncommitted {
    pub fn at(position: i64) -> Uncommitted {
        Uncommitted { position, ..Uncommitted::default() }
    }

    fn count(&mut self, counters: impl IntoIterator<Item = (Counter, u64)>) {
        for (counter, n) in counters {
            *self.ledger.entry(counter).or_default() += n;
        }
    }

    fn set_aside(&mut self, letters: impl IntoIterator<Item = DeadLetter>) {
        let before = self.letters.len();
        self.letters.extend(letters);
        self.letters_bytes += self.letters.iter().skip(before).map(DeadLetter::bytes).sum::<u64>();
    }
}

impl Cycle for Deliverer {
    type Found = Stretch;

    fn read(&mut self) -> Result<Option<Stretch>, PipelineError> {
        #[cfg(test)]
        if let Some(rows) = self.held_back.take() {
            let _late = self.output.deliver(&rows, &self.statement, &self.flow.consumer_name, None, 0);
        }
        if let Some(failure) = self.stopped.take() {
            return Err(self.flow.stopped(&failure));
        }
        if !self.flow.stop.is_set() {
            let left = self.gathering.left(self.flow.clock.monotonic());
            return Ok(self.reading.next(self.flow.patience(left.map_or(WAIT, |left| left.min(WAIT))))?);
        }
        // what waits is delivered before the end
        Ok((!self.gathering.is_empty()).then(|| Stretch::nothing(self.pending.position)))
    }

    fn work(&mut self, found: Stretch) -> Result<Go, PipelineError> {
        self.due.read(found.len);
        let has_records = found.len > 0;
        let rows = self.rows(found)?;
        let now = self.flow.clock.monotonic();
        self.gathering.add(rows, now);
        let may_wait = self.stopped.is_none() && self.pending.letters_bytes < LETTERS_BYTES_MAX;
        if !self.gathering.is_ripe(now) && may_wait && !self.flow.stop.is_set() {
            return Ok(Go::On);
        }
        let mut is_delivery = false;
        for rows in self.gathering.take() {
            is_delivery |= !rows.batch.is_empty();
            if !self.deliver(&Arc::new(rows))? {
                // stopped in the middle of a retry: nothing since the last commit is said to be done
                self.pending = Uncommitted::at(self.due.position());
                return Ok(Go::Stop);
            }
        }
        // records that give no row cost the receiver nothing
        if is_delivery || has_records {
            let took = self.flow.clock.monotonic().saturating_duration_since(now);
            self.stride = next_stride(self.stride, took, self.output.fill().rows);
            self.reading.limit(self.stride);
        }
        Ok(Go::On)
    }

    fn due(&mut self, at_end: bool) -> Result<Option<DueCommit>, PipelineError> {
        if !self.gathering.is_empty() {
            return Ok(None);
        }
        let has_output = self.pending.is_delivered || !self.pending.letters.is_empty() || self.stopped.is_some();
        let done = Done { position: self.pending.position, has_output, has_news: false };
        let now = self.flow.clock.monotonic();
        if !self.due.is_due(done, now, at_end) {
            return Ok(None);
        }
        self.due.committed(done.position, now);
        let Uncommitted { position, ledger, letters, .. } =
            std::mem::replace(&mut self.pending, Uncommitted::at(done.position));
        let ledger = ledger.into_iter().collect();
        // after a crash the same rows are delivered again, with the same ids
        let can_wait = letters.is_empty() && self.stopped.is_none();
        let commit = Commit { dead_letters: letters, ledger, can_wait, ..Commit::at(self.flow.consumer, position) };
        Ok(Some(DueCommit { commit: Some(commit), ..DueCommit::default() }))
    }
}

impl Deliverer {
    /// The rows that a stretch gives, and what the ledger learns of them.
    fn rows(&mut self, found: Stretch) -> Result<Rows, PipelineError> {
        // what was read before and gave no rows is in the same commit
        let is_between = self.pending.position == self.due.position();
        let before = std::mem::replace(&mut self.pending.position, found.position);
        match (&mut self.feed, found.records) {
            (Some(feed), records) => {
                feed.pushed = !is_between;
                feed.push(&records);
                let emitted = feed.take_up_to_stop(&records).map_err(|error| engine(&self.flow.statement, &error))?;
                let Emitted { rows, failures, counts, untimely, waiting, stopped, .. } = emitted;
                self.flow.tell_untimely(untimely.as_ref());
                let mut others = found.others;
                if let Some(failure) = &stopped {
                    self.pending.position = failure.position;
                    // what lies behind the row at fault is passed at the next start
                    let passed = (failure.position - before).unsigned_abs();
                    others = others.min(passed.saturating_sub(counts.read + feed.left_out));
                }
                self.stopped = stopped;
                self.pending.count(feed.given(&self.flow, counts.read, others));
                self.pending.count(self.flow.counts(&counts, &mut self.held, waiting));
                self.pending.set_aside(self.flow.letters(failures));
                Ok(rows)
            }
            (None, Records::Rows { rows, .. }) => {
                self.pending.count([(self.flow.of_consumer(what::GIVEN), rows.batch.len() as u64)]);
                Ok(rows)
            }
            (None, Records::Events(_)) => {
                Ok(Rows { columns: self.flow.columns.clone(), batch: crate::batch::Batch::default() })
            }
        }
    }

    /// Delivers all rows, trying again for as long as it takes; `false` when the job stops first.
    fn deliver(&mut self, rows: &Arc<Rows>) -> Result<bool, PipelineError> {
        let mut retry = Retry::new(self.backoff);
        let count = rows.batch.len() as u64;
        let output = self.output.name().clone();
        let counter = |what: &'static str| Counter::new(Edge::Output, output.clone(), what);
        let pending = &mut self.pending;
        pending.is_delivered = true;
        #[cfg(test)]
        if self.feed.as_ref().is_some_and(|feed| feed.journal.has_planted(Planted::PositionBeforeDelivery)) {
            pending.count([(counter("rows_in"), count), (counter("delivered"), count)]);
            self.held_back = Some(rows.clone());
            return Ok(true);
        }
        loop {
            let waiting = self.reading.behind(self.due.position());
            kill_point::reached(KillPoint::Deliver);
            match self.output.deliver(rows, &self.statement, &self.flow.consumer_name, self.scorers.as_ref(), waiting) {
                Delivery::Delivered => {
                    kill_point::reached(KillPoint::Delivered);
                    pending.count([(counter("rows_in"), count), (counter("delivered"), count)]);
                    return Ok(true);
                }
                Delivery::Rejected { rows: refused } => {
                    let n = refused.len() as u64;
                    pending.count([(counter("rows_in"), count), (counter("delivered"), count - n)]);
                    pending.count([(counter("dead_lettered"), n)]);
                    pending.set_aside(self.flow.rejected(&output, rows, refused));
                    return Ok(true);
                }
                Delivery::Gone { reason } => return Err(PipelineError::Output { name: output, reason }),
                Delivery::TryAgain { got_further, is_untouched, .. } => {
                    let dropped = self.reading.dropped(pending.position).filter(|_| is_untouched);
                    if let Some(reason) = dropped {
                        self.output.forget(&self.flow.consumer_name);
                        pending.count([(counter("rows_in"), count), (counter(what::DROPPED).because(reason), count)]);
                        return Ok(true);
                    }
                    if self.flow.stop.sleep(pause(&mut retry, got_further)) {
                        return Ok(false);
                    }
                }
            }
        }
    }
}

/// How long to wait before the same rows are given again.
fn pause(retry: &mut Retry, got_further: bool) -> Duration {
    if got_further {
        retry.succeeded();
    }
    retry.failed()
}

/// The records of the next delivery, when one of `stride` took this long and the receiver likes `full` rows at once.
fn next_stride(stride: usize, took: Duration, full: usize) -> usize {
    let fits = stride as f64 * DELIVERY_TIME.as_secs_f64() / took.as_secs_f64().max(1e-6);
    (fits as usize).min(stride.saturating_mul(2)).clamp(RECORDS_MIN.max(full), RECORDS_MAX.max(full))
}

#[cfg(test)]
mod tests;

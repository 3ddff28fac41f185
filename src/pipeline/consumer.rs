//! A statement's part that keeps state or calls an endpoint: it reads, executes, and commits what came out.
//!
//! In: events of the inputs, or rows of the part before. Out: commits of position, state, rows and failures in one; or, when
//! the part ends in an external call, chunks for `scoring`, which commits them. Invariant: what is committed together was
//! caused together, so a restart from any commit gives the same rows. Not here: stateless statements (`delivery`).

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use super::PipelineError;
use super::feed::Feed;
use super::flow::Flow;
use super::health::Health;
use super::mark::Mark;
use super::scoring::Chunk;
use super::state_budget::Share;
use crate::engine::Emitted;
use crate::journal::{Commit, Read, Reader, Receipt, StreamId};
use crate::score::{self, Scorer};
use crate::time::{TICKS_PER_SECOND, Timestamp};
use crate::value::Value;

/// Records read at once: one chunk, which is at most one commit.
const READ_MAX: usize = 1000;
/// A commit without rows is due after this time or this many records.
const COMMIT_IDLE: Duration = Duration::from_secs(1);
const COMMIT_RECORDS: u64 = 10_000;
/// Longest wait for input: how late a stop is noticed and a tick is given.
const WAIT: Duration = Duration::from_millis(200);
/// A tick stays this far behind the clock: a message that was stamped before may still be on its way into the journal.
const TICK_LAG: i64 = TICKS_PER_SECOND / 2;

/// Where the rows go.
#[derive(Debug)]
pub enum Into {
    /// A stream of the journal.
    Stream(StreamId),
    /// An endpoint; the answers are committed by another thread.
    Score {
        scorer: Scorer,
        /// Tells this statement's chunks from those of others that share the endpoint.
        lane: usize,
        chunks: SyncSender<Chunk>,
    },
}

/// One part of a statement.
#[derive(Debug)]
pub struct Consumer {
    pub flow: Flow,
    pub reader: Reader,
    pub feed: Feed,
    pub into: Into,
    /// How far the part before is in event time; `None` for a part that reads inputs.
    pub upstream: Option<Mark>,
    /// Tells the part behind how far this one is.
    pub mark: Mark,
    /// Rows that wait inside the plan for earlier ones.
    pub held: u64,
    /// Another part reads what this one gives: it has to learn how late it is while nothing comes.
    pub feeds_part: bool,
    /// The committing end of the scoring is gone.
    pub ended: bool,
    /// What the job's statements may hold, and this part's place in it.
    pub budget: (Arc<Health>, Share),
    /// Read while the budget was used up, so not pushed yet.
    pub unread: Option<Read>,
    /// Everything before this has been pushed: what a commit may say.
    pub pushed: i64,
}

impl Consumer {
    /// Runs until the job stops.
    ///
    /// # Errors
    /// When the journal refuses, or the statement stops by its `on_error = "stop"`.
    pub fn run(mut self) -> Result<(), PipelineError> {
        if !self.feed.tables.wait(&self.flow.stop) {
            return Ok(());
        }
        let mut receipt: Option<(Receipt, Option<Timestamp>)> = None;
        let mut committed = Instant::now();
        let mut read = 0;
        let mut at = self.pushed;
        let mut ticked = false;
        let mut is_between = true;
        while !self.flow.stop.is_set() && !self.ended {
            // loaded before the read: when that finds nothing, all rows up to this mark have been read
            let upstream = self.upstream.as_ref().and_then(Mark::get);
            let has_room = self.budget.0.state.tell(self.budget.1, self.feed.executor.state_bytes());
            let found = match self.unread.take() {
                Some(found) => found,
                None => self.reader.next(READ_MAX, Instant::now() + WAIT)?,
            };
            // after the wait: what came meanwhile is joined with what was loaded meanwhile
            if is_between {
                self.feed.between_commits();
            }
            read += match found {
                Read::Closed => break,
                Read::Idle => {
                    self.pushed = self.reader.position();
                    ticked |= self.pass_time(upstream, None);
                    0
                }
                found if !has_room => {
                    ticked |= super::feed::first_arrival(&found).is_some_and(|arrival| self.pass_time(None, Some(arrival)));
                    self.unread = Some(found);
                    self.flow.stop.sleep(WAIT);
                    0
                }
                found => {
                    let n = self.feed.push(&found);
                    self.pushed = self.reader.position();
                    n
                }
            };
            is_between &= read == 0 && !self.feed.executor.has_output();
            // the position also moves past what other statements read; time alone may have let go of state
            let moved = self.pushed > at || ticked;
            let tells = self.feeds_part && read == 0 && committed.elapsed() >= COMMIT_IDLE;
            let is_due =
                self.feed.executor.has_output() || tells || read >= COMMIT_RECORDS || (moved && committed.elapsed() >= COMMIT_IDLE);
            if !is_due {
                continue;
            }
            read = 0;
            ticked = false;
            at = self.pushed;
            self.confirm(receipt.take())?;
            receipt = self.finish()?;
            committed = Instant::now();
            is_between = true;
        }
        if self.pushed > at && !self.ended {
            self.confirm(receipt.take())?;
            receipt = self.finish()?;
        }
        self.confirm(receipt)
    }

    fn confirm(&self, receipt: Option<(Receipt, Option<Timestamp>)>) -> Result<(), PipelineError> {
        if let Some((receipt, watermark)) = receipt {
            receipt.wait()?;
            self.mark.set(watermark);
        }
        Ok(())
    }

    /// Lets time pass for windows of quiet devices, when everything stored has been read, or up to what comes next: time must
    /// not overtake data. Answers whether the executor was told.
    fn pass_time(&mut self, upstream: Option<Timestamp>, next: Option<Timestamp>) -> bool {
        let executor = &mut self.feed.executor;
        if let Some(watermark) = upstream {
            executor.advance(watermark);
        }
        let now = self.flow.clock.now().saturating_add(-TICK_LAG);
        let now = next.map_or(now, |next| now.min(next));
        let is_due = executor.next_tick().is_some_and(|due| due <= now);
        if self.feeds_part || is_due {
            executor.tick(now);
        }
        is_due
    }

    /// Commits what came out since the last time, or hands it on to be scored.
    fn finish(&mut self) -> Result<Option<(Receipt, Option<Timestamp>)>, PipelineError> {
        let Emitted { rows, failures, counts, waiting, state, watermark, stopped } = self.feed.executor.take();
        if let Some(failure) = stopped {
            return Err(self.flow.stopped(&failure));
        }
        let ledger = self.flow.counts(&counts, &mut self.held, waiting);
        let mut commit = Commit {
            state: state.into_iter().map(super::feed::state_change).collect(),
            dead_letters: self.flow.letters(failures),
            ledger,
            ..Commit::at(self.flow.consumer, self.pushed)
        };
        match &self.into {
            Into::Stream(stream) => {
                if !rows.batch.is_empty() {
                    commit.emit = Some((*stream, rows));
                }
                Ok(Some((self.flow.journal.commit(commit), watermark)))
            }
            Into::Score { scorer, lane, chunks } => {
                let batch = rows.batch;
                // the rows keep the argument too: a dead letter shows what was asked
                let args: Vec<Value> = (0..batch.len()).map(|i| batch.row(i).last().cloned().unwrap_or_default()).collect();
                let ticket = match args.is_empty() {
                    true => None,
                    false => match scorer.submit_blocking(score::Chunk { statement: *lane, args }) {
                        Ok(ticket) => Some(ticket),
                        // what was read and not scored is read again at the next start
                        Err(_) if self.flow.stop.is_set() => return Ok(None),
                        Err(ended) => return Err(self.flow.ended(&ended.why)),
                    },
                };
                // the other end is gone only when it failed or the job stops; its own error says why
                self.ended = chunks.send(Chunk { commit, batch, ticket, watermark }).is_err();
                Ok(None)
            }
        }
    }
}

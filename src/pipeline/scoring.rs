//! Answers of an endpoint, joined to their rows and committed in stream order.
//!
//! In: chunks of rows whose last column is the call's argument. Out: commits of the rows that the tail of the part makes of
//! the answers, with the position that they complete. Invariant: chunks are committed in the order in which they were
//! read, so a crash scores again only what was under way. Not here: batching, retries, parallelism (`score`).

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use smol_str::SmolStr;

use super::PipelineError;
use super::flow::Flow;
use super::mark::Mark;
use super::tables::Tables;
use crate::batch::{Batch, Rows};
use crate::engine::{Emitted, Executor, OnError};
use crate::journal::{Commit, Counter, DeadLetter, Edge, Receipt, StreamId};
use crate::score::{self, Outcome, Ticket};
use crate::time::Timestamp;
use crate::value::Value;

/// One commit that waits for the answers to its rows.
#[derive(Debug)]
pub struct Chunk {
    pub commit: Commit,
    /// Carried columns, then the argument.
    pub batch: Batch,
    /// `None`: there is nothing to score.
    pub ticket: Option<Ticket>,
    /// How far the part is in event time once this is committed.
    pub watermark: Option<Timestamp>,
}

/// How long to wait for a chunk before the commits under way are looked after.
const WAIT: Duration = Duration::from_millis(200);
/// Commits under way that were not yet confirmed.
const RECEIPTS_MAX: usize = 16;

/// The committing end of a part with an external call.
#[derive(Debug)]
pub struct Scoring {
    pub flow: Flow,
    /// Runs what follows the call.
    pub tail: Executor,
    pub tables: Tables,
    /// What becomes of a row without an answer.
    pub on_error: OnError,
    pub into: StreamId,
    /// Tells the part behind how far this one is.
    pub mark: Mark,
    /// Counts batches of answers: the tail's own offsets, which nobody else sees.
    pub answered: i64,
}

impl Scoring {
    /// Runs until the consumer that feeds it is gone and everything is committed, or until the job stops.
    ///
    /// # Errors
    /// When the journal refuses, or the statement stops by its `on_error = "stop"`.
    pub fn run(mut self, chunks: &Receiver<Chunk>) -> Result<(), PipelineError> {
        let mut receipts: VecDeque<(Receipt, Option<Timestamp>)> = VecDeque::new();
        loop {
            let Chunk { commit, batch, ticket, watermark } = match chunks.recv_timeout(WAIT) {
                Ok(chunk) => chunk,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    // nothing else would tell the part behind that these are stored
                    receipts.drain(..).try_for_each(|receipt| self.confirm(receipt))?;
                    continue;
                }
            };
            let outcomes = match ticket.map(Ticket::outcomes_blocking) {
                None => Vec::new(),
                Some(Ok(outcomes)) => outcomes,
                // what has no answer yet is read and scored again at the next start
                Some(Err(_)) if self.flow.stop.is_set() => break,
                Some(Err(ended)) => return Err(self.flow.ended(&ended.why)),
            };
            receipts.push_back((self.commit(commit, &batch, outcomes)?, watermark));
            while receipts.len() > RECEIPTS_MAX {
                let Some(receipt) = receipts.pop_front() else { break };
                self.confirm(receipt)?;
            }
        }
        receipts.into_iter().try_for_each(|receipt| self.confirm(receipt))
    }

    fn confirm(&self, (receipt, watermark): (Receipt, Option<Timestamp>)) -> Result<(), PipelineError> {
        receipt.wait()?;
        self.mark.set(watermark);
        Ok(())
    }

    /// Joins answers to rows, runs the tail, and commits.
    fn commit(&mut self, mut commit: Commit, batch: &Batch, outcomes: Vec<Outcome>) -> Result<Receipt, PipelineError> {
        let rows_in = batch.len() as u64;
        let mut answered = Batch::with_capacity(batch.width(), batch.len());
        let scored = |what: &'static str| Counter::new(Edge::Statement, SmolStr::new(format!("{}/score", self.flow.statement)), what);
        let mut failed = 0;
        for ((meta, row), outcome) in batch.rows().zip(outcomes) {
            let carried = row.get(..row.len().saturating_sub(1)).unwrap_or_default();
            match outcome {
                Outcome::Scored(answer) => answered.push(*meta, carried.iter().cloned().chain([answer])),
                Outcome::Failed(failure) => match self.on_error {
                    OnError::Stop => return Err(self.flow.refused(meta, &failure.message)),
                    OnError::Null => {
                        commit.ledger.push((scored("nulled").because(failure.reason), 1));
                        answered.push(*meta, carried.iter().cloned());
                    }
                    OnError::DeadLetter => {
                        failed += 1;
                        commit.ledger.push((scored("failed").because(failure.reason), 1));
                        commit.dead_letters.push(self.letter(meta, row, failure));
                    }
                },
            }
        }
        commit.ledger.push((scored("rows_in"), rows_in));
        commit.ledger.push((scored("evaluated"), rows_in - failed));
        let rows = Rows { columns: self.flow.columns.clone(), batch: answered };
        // each call of this function is a commit
        self.tables.take_over(&mut self.tail);
        self.tail.push_rows(self.answered, &rows);
        self.answered += rows.batch.len() as i64;
        let Emitted { rows, failures, counts, state, stopped, .. } = self.tail.take();
        if let Some(failure) = &stopped {
            return Err(self.flow.stopped(failure));
        }
        let answers = SmolStr::new(format!("{}/answers", self.flow.statement));
        let of_tail = Flow { statement: answers, ..self.flow.clone() };
        commit.ledger.extend(of_tail.counts(&counts, &mut 0, 0));
        commit.dead_letters.extend(self.flow.letters(failures));
        commit.state.extend(state.into_iter().map(super::feed::state_change));
        if !rows.batch.is_empty() {
            commit.emit = Some((self.into, rows));
        }
        commit.ledger.retain(|(_, n)| *n > 0);
        Ok(self.flow.journal.commit(commit))
    }

    fn letter(&self, meta: &crate::batch::RowMeta, row: &[Value], failure: score::Failure) -> DeadLetter {
        let mut payload = String::new();
        Value::array(row.to_vec()).write_json(&mut payload);
        DeadLetter {
            at: self.flow.clock.now(),
            stage: SmolStr::new(format!("statement {} (score)", self.flow.statement)),
            reason: SmolStr::new_static(failure.reason),
            message: failure.message,
            offset: Some(meta.offset),
            ordinal: meta.ordinal,
            payload: payload.into_bytes(),
            request: Some(failure.request.into_bytes()),
            response: Some(failure.response.into_bytes()),
            query_version: self.flow.query_version.clone(),
            attempts: failure.attempts,
            ..DeadLetter::default()
        }
    }
}

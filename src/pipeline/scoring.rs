//! Answers of an endpoint, joined to their rows and committed in stream order.
//!
//! In: chunks of rows whose last column is the call's argument. Out: commits of the rows that the tail of the part
//! makes of the answers, with the position that they complete. Invariant: chunks are committed in the order in which
//! they were read, so a crash scores again only what was under way. Not here: batching, retries, parallelism (`score`).

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use smol_str::SmolStr;

use super::PipelineError;
use super::commits::DueCommit;
use super::cycle::{Cycle, Go};
use super::flow::Flow;
use super::mark::Mark;
use super::tables::Tables;
use crate::batch::{Batch, Rows};
use crate::engine::{Emitted, Executor, OnError};
use crate::journal::{Commit, Counter, DeadLetter, Edge, StreamId};
use crate::score::{self, Ended, Outcome, Ticket};
use crate::time::Timestamp;
use crate::value::Value;

/// One commit that waits for the answers to its rows.
#[derive(Debug)]
pub struct Chunk {
    pub commit: Commit,
    /// Carried columns, then the argument.
    pub batch: Batch,
    pub ticket: Ticket,
}

/// Chunks without all their answers, oldest first.
#[derive(Debug, Default)]
pub struct Unanswered {
    chunks: VecDeque<(Chunk, Option<Timestamp>)>,
    /// Earliest event times of the chunks, each earlier than or equal to all behind it.
    least: VecDeque<Timestamp>,
}

impl Unanswered {
    fn push(&mut self, chunk: Chunk) {
        let earliest = chunk.batch.meta().iter().map(|meta| meta.time).min();
        if let Some(earliest) = earliest {
            while self.least.pop_back_if(|least| *least > earliest).is_some() {}
            self.least.push_back(earliest);
        }
        self.chunks.push_back((chunk, earliest));
    }

    /// Takes the oldest chunk.
    fn pop(&mut self) -> Option<Chunk> {
        let (chunk, earliest) = self.chunks.pop_front()?;
        self.least.pop_front_if(|least| Some(*least) == earliest);
        Some(chunk)
    }

    fn head(&mut self) -> Option<&mut Ticket> {
        self.chunks.front_mut().map(|(chunk, _)| &mut chunk.ticket)
    }

    /// The earliest event time of a row that waits.
    fn earliest(&self) -> Option<Timestamp> {
        self.least.front().copied()
    }
}

/// Rows of one commit: chunks of a quiet stream hold one row, and answers come for many of them at once.
const COMMIT_ROWS: usize = 1000;
/// How long to wait for a chunk or its answers before the commits under way are looked after.
const WAIT: Duration = Duration::from_millis(200);

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
    pub chunks: Receiver<Chunk>,
    /// How far the consumer is in event time behind the chunks that it has sent.
    pub sent: Mark,
    pub waiting: Unanswered,
    /// No row that is still to be answered is earlier.
    pub reached: Option<Timestamp>,
    /// The endpoint ended the statement; what it answered before is committed first.
    pub ended: Option<Ended>,
    /// What is to be committed next.
    pub answered: Option<Commit>,
    /// Counts batches of answers: the tail's own offsets, which nobody else sees.
    pub rows: i64,
}

/// Chunks that follow each other, with their answers.
#[derive(Debug)]
pub struct Scored {
    commit: Commit,
    batch: Batch,
    outcomes: Vec<Outcome>,
}

impl Cycle for Scoring {
    /// `None`: no answer came for a while.
    type Found = Option<Scored>;

    fn read(&mut self) -> Result<Option<Option<Scored>>, PipelineError> {
        // loaded first: all rows before it are in the chunks that are received next
        let sent = self.sent.get();
        if !self.receive() {
            return Ok(None);
        }
        let answer = match self.ended.take() {
            Some(ended) => Some(Err(ended)),
            None => self.waiting.head().and_then(|head| head.wait(WAIT)),
        };
        let found = match answer {
            None => None,
            Some(Ok(outcomes)) => self.scored(outcomes),
            // what has no answer yet is read and scored again at the next start
            Some(Err(_)) if self.flow.stop.is_set() => return Ok(None),
            Some(Err(ended)) => return Err(self.flow.ended(&ended.why)),
        };
        let earliest = self.waiting.earliest();
        self.reached = sent.map(|sent| earliest.map_or(sent, |earliest| earliest.min(sent)));
        Ok(Some(found))
    }

    fn work(&mut self, found: Option<Scored>) -> Result<Go, PipelineError> {
        self.answered = found.map(|scored| self.joined(scored)).transpose()?;
        Ok(Go::On)
    }

    fn due(&mut self, _at_end: bool) -> Result<Option<DueCommit>, PipelineError> {
        Ok(Some(DueCommit { commit: self.answered.take(), watermark: self.reached }))
    }
}

impl Scoring {
    /// Takes the chunks that were sent; waits a while for the first. `false`: there will be none.
    fn receive(&mut self) -> bool {
        if self.waiting.chunks.is_empty() {
            match self.chunks.recv_timeout(WAIT) {
                Ok(chunk) => self.waiting.push(chunk),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        loop {
            match self.chunks.try_recv() {
                Ok(chunk) => self.waiting.push(chunk),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
            }
        }
    }

    /// The oldest chunk with its answers, and those behind it that have theirs too, up to the rows of one commit.
    fn scored(&mut self, outcomes: Vec<Outcome>) -> Option<Scored> {
        let Chunk { commit, batch, .. } = self.waiting.pop()?;
        let mut scored = Scored { commit, batch, outcomes };
        while scored.batch.len() < COMMIT_ROWS
            && let Some(answer) = self.waiting.head().and_then(Ticket::poll)
        {
            let mut outcomes = match answer {
                Ok(outcomes) => outcomes,
                Err(ended) => {
                    self.ended = Some(ended);
                    break;
                }
            };
            let Some(Chunk { commit, mut batch, .. }) = self.waiting.pop() else { break };
            scored.commit.then(commit);
            scored.outcomes.append(&mut outcomes);
            match scored.batch.is_empty() {
                true => scored.batch = batch,
                false => scored.batch.append(&mut batch),
            }
        }
        Some(scored)
    }

    /// Joins answers to rows and runs the tail.
    fn joined(&mut self, scored: Scored) -> Result<Commit, PipelineError> {
        let Scored { mut commit, batch, outcomes } = scored;
        let rows_in = batch.len() as u64;
        let mut answered = Batch::with_capacity(batch.width(), batch.len());
        let scored = |what: &'static str| {
            Counter::new(Edge::Statement, SmolStr::new(format!("{}/score", self.flow.statement)), what)
        };
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
                        commit.dead_letters.push(self.letter(meta, row, *failure));
                    }
                },
            }
        }
        commit.ledger.push((scored("rows_in"), rows_in));
        commit.ledger.push((scored("evaluated"), rows_in - failed));
        let rows = Rows { columns: self.flow.columns.clone(), batch: answered };
        // each call of this function is a commit
        self.tables.take_over(&mut self.tail);
        self.tail.push_rows(self.rows, &rows);
        self.rows += rows.batch.len() as i64;
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
        Ok(commit)
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

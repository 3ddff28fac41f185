//! Answers of an endpoint, joined to their rows and committed in stream order.
//!
//! In: chunks of rows whose last column is the call's argument. Out: commits of the rows that the tail of the part
//! makes of the answers, with the position that they complete; and rows that the fallback answered, to be scored again.
//! Invariant: chunks are committed in the order in which they were read, or as they are answered where nothing needs
//! that order, with a note of what is done ahead of the position: either way a crash scores again only what was under
//! way. Not here: batching, retries, parallelism (`score`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use smol_str::SmolStr;
use tokio::sync::Notify;

use super::PipelineError;
use super::ahead::Ahead;
use super::called::CalledRows;
use super::commits::DueCommit;
use super::cycle::{Cycle, Go};
use super::flow::{Flow, one_row, stage_of};
use super::local_answers::LocalAnswers;
use super::mark::{EraTime, Mark};
use super::tables::Tables;
use crate::batch::{Batch, Column, Provenance, Reason, RowMeta, Rows, ScoredBy, write_row_json};
use crate::engine::{Counts, Emitted, Executor, FailedRow, OnError};
use crate::journal::{Commit, Counter, DeadLetter, Edge, LetterOrigin, StreamId, what};
use crate::score::{self, Answers, Berth, Ended, Order, Outcome, Ticket};
use crate::value::Value;

/// One commit that waits for the answers to its rows.
#[derive(Debug)]
pub struct SentChunk {
    pub commit: Commit,
    /// Carried columns, then the argument.
    pub batch: Batch,
    pub ticket: Ticket,
    /// Of arrival time, that of its oldest rows.
    pub era: u32,
}

/// Chunks without all their answers.
#[derive(Debug)]
pub struct Unanswered {
    /// By number, the oldest first.
    chunks: BTreeMap<u64, Open>,
    /// Earliest event time of the rows of each chunk that has any.
    earliest: BTreeSet<(EraTime, u64)>,
    last: u64,
    /// Offset behind the last chunk.
    position: i64,
    waiting: Awaited,
}

#[derive(Debug)]
struct Open {
    commit: Commit,
    batch: Batch,
    /// The records that it was made of.
    span: Range<i64>,
    earliest: Option<EraTime>,
}

/// Where the answers come.
#[derive(Debug)]
enum Awaited {
    /// That of the oldest chunk counts.
    InOrder(VecDeque<Ticket>),
    /// Whichever comes first.
    AsTheyCome(Answers),
}

/// A chunk with its answers, and its place at the endpoint.
type AnsweredChunk = Result<(Open, Vec<Outcome>, Arc<Berth>), Ended>;

impl Unanswered {
    /// Of a consumer at `position`.
    pub fn new(order: Order, position: i64) -> Unanswered {
        let waiting = match order {
            Order::Stream => Awaited::InOrder(VecDeque::new()),
            Order::None => Awaited::AsTheyCome(Answers::default()),
        };
        Unanswered { chunks: BTreeMap::new(), earliest: BTreeSet::new(), last: 0, position, waiting }
    }

    fn push(&mut self, chunk: SentChunk) {
        let SentChunk { commit, batch, ticket, era } = chunk;
        self.last += 1;
        let earliest = batch.meta().iter().map(|meta| EraTime { era, time: meta.time }).min();
        self.earliest.extend(earliest.map(|reached| (reached, self.last)));
        let span = self.position..commit.position;
        self.position = commit.position;
        self.chunks.insert(self.last, Open { commit, batch, span, earliest });
        match &mut self.waiting {
            Awaited::InOrder(tickets) => tickets.push_back(ticket),
            Awaited::AsTheyCome(answers) => answers.expect(self.last, ticket),
        }
    }

    fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Waits for the next answer, but no longer than this, and not once a chunk comes that may be answered sooner.
    fn wait(&mut self, at_most: Duration, came: &Notify) -> Option<AnsweredChunk> {
        match &mut self.waiting {
            Awaited::InOrder(tickets) => {
                let answer = tickets.front_mut()?.wait(at_most)?;
                self.in_order(answer)
            }
            Awaited::AsTheyCome(answers) => {
                let (number, answer, place) = answers.wait(at_most, came)?;
                self.take(number, answer, place)
            }
        }
    }

    /// The next answer, if it is there.
    fn poll(&mut self) -> Option<AnsweredChunk> {
        match &mut self.waiting {
            Awaited::InOrder(tickets) => {
                let answer = tickets.front_mut()?.poll()?;
                self.in_order(answer)
            }
            Awaited::AsTheyCome(answers) => {
                let (number, answer, place) = answers.poll()?;
                self.take(number, answer, place)
            }
        }
    }

    fn in_order(&mut self, answer: Result<Vec<Outcome>, Ended>) -> Option<AnsweredChunk> {
        let Awaited::InOrder(tickets) = &mut self.waiting else { return None };
        let place = tickets.pop_front()?.into_place();
        let number = *self.chunks.keys().next()?;
        self.take(number, answer, place)
    }

    fn take(&mut self, number: u64, answer: Result<Vec<Outcome>, Ended>, place: Arc<Berth>) -> Option<AnsweredChunk> {
        let open = self.chunks.remove(&number)?;
        if let Some(earliest) = open.earliest {
            self.earliest.remove(&(earliest, number));
        }
        Some(answer.map(|outcomes| (open, outcomes, place)))
    }

    /// The earliest event time of a row that waits.
    fn earliest(&self) -> Option<EraTime> {
        self.earliest.first().map(|(reached, _)| *reached)
    }
}

/// Rows of one commit: chunks of a quiet stream hold one row, and answers come for many of them at once.
const COMMIT_ROWS: usize = 1000;
/// How long to wait for a chunk or its answers before the commits under way are looked after.
const WAIT: Duration = Duration::from_millis(200);

/// Of a row that the endpoint was to score once more.
const STANDS: &str = "its first answer stands";

/// Rows of a commit that the fallback was given.
#[derive(Debug, Default)]
struct Local {
    /// Those that it answered, in order.
    batch: Batch,
    /// How many of these were taken.
    taken: usize,
    rows_in: u64,
    failures: Vec<FailedRow>,
    failed: BTreeMap<Reason, u64>,
    nulled: BTreeMap<Reason, u64>,
}

impl Local {
    /// The row with this meta if it was answered: rows are asked for in order.
    fn next_of(&mut self, meta: &RowMeta) -> Option<&[Value]> {
        self.batch.meta().get(self.taken).filter(|next| *next == meta)?;
        self.taken += 1;
        Some(self.batch.row(self.taken - 1))
    }
}

/// The committing end of a part with an external call.
#[derive(Debug)]
pub struct Scoring {
    pub flow: Flow,
    /// Runs what follows the call.
    pub tail: Executor,
    pub tables: Tables,
    /// What becomes of a row without an answer.
    pub on_error: OnError,
    /// Who answers rows while the endpoint is away.
    pub local: Option<LocalAnswers>,
    /// Its rows were answered before: what the endpoint says corrects that, and where it says nothing, that stands.
    pub corrects: bool,
    pub into: StreamId,
    /// Of the rows as they are sent, for people: carried columns, then the argument.
    pub columns: Arc<[Column]>,
    /// The rows that were sent; the others have no answer.
    pub called: CalledRows,
    /// Tells under which text of the statement its rows mean the same.
    pub text: SmolStr,
    pub chunks: Receiver<SentChunk>,
    /// A chunk was sent.
    pub came: Arc<Notify>,
    /// How far the consumer is in event time behind the chunks that it has sent.
    pub sent: Mark,
    pub waiting: Unanswered,
    /// Which records are done with.
    pub ahead: Ahead,
    /// No row that is still to be answered is earlier.
    pub reached: Option<EraTime>,
    /// The endpoint ended the statement; what it answered before is committed first.
    pub ended: Option<Ended>,
    /// What is to be committed next, and the places of its rows.
    pub answered: Option<(Commit, Vec<Arc<Berth>>)>,
    /// Counts batches of answers: the tail's own offsets, which nobody else sees.
    pub rows: i64,
}

/// Chunks with their answers, for one commit.
#[derive(Debug)]
pub struct Scored {
    commit: Commit,
    spans: Vec<Range<i64>>,
    batch: Batch,
    outcomes: Vec<Outcome>,
    places: Vec<Arc<Berth>>,
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
            None => self.waiting.wait(self.flow.patience_for_answers(WAIT), &self.came),
        };
        let found = match answer {
            None => None,
            Some(Ok((open, outcomes, place))) => Some(self.scored(open, outcomes, place)),
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
        let (commit, places) = self.answered.take().unzip();
        Ok(Some(DueCommit { commit, watermark: self.reached, places: places.unwrap_or_default() }))
    }
}

impl Scoring {
    /// Takes the chunks that were sent; waits a while for the first. `false`: there will be none.
    fn receive(&mut self) -> bool {
        if self.waiting.is_empty() {
            match self.chunks.recv_timeout(self.flow.patience(WAIT)) {
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

    /// A chunk with its answers, and others that have theirs too, up to the rows of one commit.
    fn scored(&mut self, open: Open, outcomes: Vec<Outcome>, place: Arc<Berth>) -> Scored {
        let Open { commit, batch, span, .. } = open;
        let mut scored = Scored { commit, spans: vec![span], batch, outcomes, places: vec![place] };
        while scored.batch.len() < COMMIT_ROWS
            && let Some(answer) = self.waiting.poll()
        {
            let (Open { commit, mut batch, span, .. }, mut outcomes, place) = match answer {
                Ok(answer) => answer,
                Err(ended) => {
                    self.ended = Some(ended);
                    break;
                }
            };
            scored.commit.then(commit);
            scored.spans.push(span);
            scored.places.push(place);
            scored.outcomes.append(&mut outcomes);
            match scored.batch.is_empty() {
                true => scored.batch = batch,
                false => scored.batch.append(&mut batch),
            }
        }
        scored
    }

    /// Joins answers to rows and runs the tail.
    fn joined(&mut self, scored: Scored) -> Result<(Commit, Vec<Arc<Berth>>), PipelineError> {
        let Scored { mut commit, spans, batch, outcomes, places } = scored;
        let given: u64 = commit.ledger.iter().filter(|(counter, _)| counter.what == what::GIVEN).map(|(_, n)| n).sum();
        for span in spans {
            commit.state.extend(self.ahead.add(span));
        }
        commit.position = self.ahead.position();
        if self.ahead.end() > commit.position {
            commit.ledger.push((self.flow.of_consumer(what::AHEAD), given));
        }
        let rows_in = batch.len() as u64;
        let outcomes = self.called.spread(&batch, outcomes);
        let mut answered = Batch::with_capacity(batch.width(), batch.len());
        let mut local = self.answered_locally(&batch, &outcomes)?;
        let (tells, flow) = (self.local.is_some() || self.corrects, &self.flow);
        let scored =
            |what: &'static str| Counter::new(Edge::Statement, SmolStr::new(format!("{}/score", flow.statement)), what);
        let by = |meta: &RowMeta, scored_by: ScoredBy| match tells {
            true => {
                let is_correction = meta.provenance.is_correction || self.corrects;
                RowMeta { provenance: Provenance { scored_by, is_correction }, ..*meta }
            }
            false => *meta,
        };
        let aside = self.local.as_ref().and_then(|local| local.rescore.as_ref());
        let (mut failed, mut not_called, mut again) = (0, 0, aside.map(|_| Batch::new(batch.width())));
        for ((meta, row), outcome) in batch.rows().zip(outcomes) {
            let carried = row.get(..row.len().saturating_sub(1)).unwrap_or_default();
            let Some(outcome) = outcome else {
                not_called += 1;
                answered.push(by(meta, ScoredBy::Untold), carried.iter().cloned());
                continue;
            };
            match outcome {
                Outcome::Scored(answer) => {
                    answered.push(by(meta, ScoredBy::Endpoint), carried.iter().cloned().chain([answer]));
                }
                Outcome::Failed(failure) => match self.on_error_of(meta) {
                    OnError::Stop => return Err(flow.refused(meta, &failure.message)),
                    OnError::Null => {
                        commit.ledger.push((scored("nulled").because(failure.reason), 1));
                        answered.push(by(meta, ScoredBy::Untold), carried.iter().cloned());
                    }
                    OnError::DeadLetter => {
                        failed += 1;
                        commit.ledger.push((scored("failed").because(failure.reason), 1));
                        let letter = self.letter(meta, row, *failure);
                        flow.failures.note(std::slice::from_ref(&letter));
                        commit.dead_letters.push(letter);
                    }
                },
                Outcome::Away => {
                    let Some(answer) = local.next_of(meta) else { continue };
                    answered.push(by(meta, ScoredBy::Fallback), answer.iter().cloned());
                    if let Some(again) = &mut again {
                        again.push(*meta, row.iter().cloned());
                    }
                }
            }
        }
        commit.ledger.push((scored("rows_in"), rows_in));
        commit.ledger.push((scored("evaluated"), rows_in - failed - local.rows_in - not_called));
        if not_called > 0 {
            commit.ledger.push((scored(what::NOT_CALLED), not_called));
        }
        if local.rows_in > 0 {
            commit.ledger.push((scored(what::ANSWERED_LOCALLY), local.taken as u64));
        }
        commit.ledger.extend(local.failed.iter().map(|(reason, n)| (scored("failed").because(*reason), *n)));
        commit.ledger.extend(local.nulled.iter().map(|(reason, n)| (scored("nulled").because(*reason), *n)));
        if !local.failures.is_empty() {
            let fallback = Flow { statement: SmolStr::new(format!("{} (fallback)", flow.statement)), ..flow.clone() };
            let mut letters = fallback.letters(local.failures);
            self.add_origins(&mut letters, &batch);
            commit.dead_letters.extend(letters);
        }
        let kept = aside.zip(again.filter(|again| !again.is_empty()));
        commit.aside = kept.map(|(aside, batch)| (aside.stream, Rows { columns: aside.columns.clone(), batch }));
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
        let mut letters = self.flow.letters(failures);
        self.add_origins(&mut letters, &batch);
        commit.dead_letters.extend(letters);
        commit.state.extend(state.into_iter().map(super::feed::state_change));
        if !rows.batch.is_empty() {
            commit.emit = Some((self.into, rows));
        }
        commit.ledger.retain(|(_, n)| *n > 0);
        Ok((commit, places))
    }

    /// The rows that are the fallback's, with its answers.
    fn answered_locally(&mut self, batch: &Batch, outcomes: &[Option<Outcome>]) -> Result<Local, PipelineError> {
        let is_away = |outcome: &Option<Outcome>| matches!(outcome, Some(Outcome::Away));
        let Some(local) = self.local.as_mut().filter(|_| outcomes.iter().any(is_away)) else {
            return Ok(Local::default());
        };
        let mut away = Batch::new(batch.width());
        for ((meta, row), _) in batch.rows().zip(outcomes).filter(|(_, outcome)| is_away(outcome)) {
            away.push(*meta, row.iter().cloned());
        }
        let rows_in = away.len() as u64;
        let Emitted { rows, failures, counts, stopped, .. } = local.answer(away);
        if let Some(failure) = &stopped {
            return Err(self.flow.stopped(failure));
        }
        let Counts { failed, nulled, .. } = counts;
        Ok(Local { batch: rows.batch, taken: 0, rows_in, failures, failed, nulled })
    }

    /// Where a correction fails the first answer stands, whatever the call says.
    fn on_error_of(&self, meta: &RowMeta) -> OnError {
        match self.corrects || meta.provenance.is_correction {
            true => OnError::DeadLetter,
            false => self.on_error,
        }
    }

    fn letter(&self, meta: &RowMeta, row: &[Value], failure: score::Failure) -> DeadLetter {
        let mut payload = String::new();
        write_row_json(&self.columns, row, &mut payload);
        DeadLetter {
            at: self.flow.clock.now(),
            stage: stage_of(&format!("statement {} (score)", self.flow.statement), meta),
            reason: SmolStr::new_static(failure.reason),
            message: if self.corrects { format!("{}; {STANDS}", failure.message) } else { failure.message },
            offset: Some(meta.offset),
            ordinal: meta.ordinal,
            payload: payload.into_bytes(),
            request: Some(failure.request.into_bytes()),
            response: Some(failure.response.into_bytes()),
            query_version: self.flow.query_version.clone(),
            // one that was never sent was tried all the same
            attempts: failure.attempts.max(1),
            origin: Some(self.origin(meta, row)),
            ..DeadLetter::default()
        }
    }

    /// Gives letters of rows that came from these the rows as they were sent: to be scored again.
    fn add_origins(&self, letters: &mut [DeadLetter], sent: &Batch) {
        if letters.is_empty() {
            return;
        }
        let ids: BTreeMap<_, _> = sent.rows().map(|(meta, row)| ((meta.offset, meta.ordinal), (meta, row))).collect();
        for letter in letters {
            let found = letter.offset.and_then(|offset| ids.get(&(offset, letter.ordinal)));
            letter.origin = found.map(|(meta, row)| self.origin(meta, row));
        }
    }

    fn origin(&self, meta: &RowMeta, row: &[Value]) -> LetterOrigin {
        LetterOrigin::Row { text: self.text.clone(), rows: one_row(&self.columns, meta, row) }
    }

    /// Joins answers to rows that are replayed. What it gives is for another transaction than a consumer's.
    ///
    /// # Errors
    /// As the part itself.
    pub fn again(&mut self, batch: Batch, outcomes: Vec<Outcome>) -> Result<Commit, PipelineError> {
        let commit = Commit::at(self.flow.consumer, self.ahead.position());
        let scored = Scored { commit, spans: Vec::new(), batch, outcomes, places: Vec::new() };
        self.joined(scored).map(|(commit, _)| commit)
    }
}

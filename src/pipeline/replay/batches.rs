//! Letters of one way together: events through a part, rows to an endpoint, rows to an output.
//!
//! In: letters, and where they enter. Out: a [`ReplayTurn`], not yet stored. Invariant: each letter is done, has failed
//! again, or is refused; a row keeps the offset and ordinal of its letter. Not here: which way a letter goes (`way`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use smol_str::SmolStr;
use tokio::sync::Notify;

use super::edit::edited;
use super::plan::{ReplayCall, ReplayPart};
use super::{ReplayTurn, Replayer, Tried, consumer_of};
use crate::backoff::{Backoff, Retry};
use crate::batch::{Batch, Column, RawEvent, Rows, ScoredBy};
use crate::engine::{Emitted, Executor, Functions};
use crate::journal::{ConsumerId, Counter, DeadLetter, Edge, LetterOrigin, StoredDeadLetter};
use crate::output::{Delivery, ScorerNames};
use crate::pipeline::ahead::Ahead;
use crate::pipeline::failures::Failures;
use crate::pipeline::flow::Flow;
use crate::pipeline::mark::Mark;
use crate::pipeline::outputs::OutputHandle;
use crate::pipeline::scoring::{Scoring, Unanswered};
use crate::pipeline::tables::Tables;
use crate::query::plan::Part;
use crate::score::{Chunk, Order, Outcome};
use crate::udf::Host;

/// How often a wait looks whether the job stops.
const LOOK: Duration = Duration::from_millis(100);
/// Tells the rows of replays from the statements' at an endpoint.
const LANE: usize = usize::MAX;
/// Ordinals of events that are put in order by their time: those of the live rows count from 0 in the newest offset.
const ORDINAL: u32 = 1 << 31;

/// What names a row.
type RowKey = (Option<i64>, u32);

fn key(letter: &DeadLetter) -> RowKey {
    (letter.offset, letter.ordinal)
}

/// Where finished rows go.
struct OutputWay<'a> {
    output: &'a OutputHandle,
    statement: &'a SmolStr,
    scorers: Option<&'a ScorerNames>,
}

impl ReplayTurn {
    /// Letters whose rows came to an end: one of which no row failed went through. `keys`: of the rows, in order.
    fn settle(&mut self, gave: Vec<Tried>, keys: &[RowKey], failed: Vec<DeadLetter>) {
        let mut failed: HashMap<RowKey, DeadLetter> = failed.into_iter().map(|letter| (key(&letter), letter)).collect();
        let mut at = 0;
        for tried in gave {
            let own = keys.get(at..at + tried.rows).unwrap_or_default();
            at += tried.rows;
            let mut again = own.iter().filter_map(|key| failed.remove(key));
            match again.next() {
                Some(letter) => {
                    self.fail(tried, letter);
                    self.replayed.letters.extend(again);
                }
                None => self.pass(tried),
            }
        }
    }
}

impl Replayer {
    /// Events through the part that reads them, and what comes out further on.
    pub(super) fn executed(
        &self,
        part: &ReplayPart,
        input: &str,
        mut letters: Vec<StoredDeadLetter>,
        deadline: Instant,
    ) -> ReplayTurn {
        // arrival never decreases in an executor
        letters.sort_by_key(|stored| stored.letter.offset);
        let mut turn = ReplayTurn::default();
        let flow = self.flow(part);
        let (mut batch, mut gave) = (Batch::new(part.part.root.width()), Vec::new());
        let mut executor = None;
        for stored in letters {
            let (Some(offset), Some(LetterOrigin::Message { arrival, message, mark })) =
                (stored.letter.offset, &stored.letter.origin)
            else {
                continue;
            };
            let payload = stored.letter.payload.clone().into();
            let event = RawEvent { arrival: *arrival, payload, message: message.clone(), mark: *mark };
            let running = match executor.take().map_or_else(|| self.executor(part), Ok) {
                Ok(running) => executor.insert(running),
                Err(why) => {
                    turn.refuse(why, 1);
                    continue;
                }
            };
            running.push_events_at(input, &[offset], &[event]);
            let is_ordered = part.part.root.is_stateful();
            if is_ordered {
                running.finish();
            }
            let Emitted { rows, failures, counts, .. } = running.take();
            if is_ordered {
                // the next event is not to be put in order after this one
                executor = None;
            }
            let mut rows = rows.batch;
            let tried = Tried { stored, rows: rows.len(), counts: flow.counts(&counts, &mut 0, 0) };
            if let Some(failed) = flow.letters(failures).into_iter().next() {
                turn.fail(tried, failed);
                continue;
            }
            if is_ordered {
                for (meta, i) in rows.meta_mut().iter_mut().zip(0..) {
                    (meta.offset, meta.ordinal) = (offset, ORDINAL | i);
                }
            }
            gave.push(tried);
            batch.append(&mut rows);
        }
        match &part.call {
            Some(call) => self.score(part, call, batch, gave, deadline, &mut turn),
            None => self.hand_on(part, batch, gave, deadline, &mut turn),
        }
        turn
    }

    /// Rows to the endpoint, and what comes of the answers further on.
    pub(super) fn scored(
        &self,
        part: &ReplayPart,
        call: &ReplayCall,
        letters: Vec<StoredDeadLetter>,
        deadline: Instant,
    ) -> ReplayTurn {
        let mut turn = ReplayTurn::default();
        let (mut batch, mut gave) = (Batch::new(call.columns.len()), Vec::new());
        for stored in letters {
            let Some(LetterOrigin::Row { rows, .. }) = &stored.letter.origin else { continue };
            let Some(meta) = rows.batch.meta().first().copied() else { continue };
            // a letter of the tail or of a fallback shows another row than the one that is sent
            let is_sent = stored.letter.stage.ends_with(" (score)");
            let values = match is_sent {
                true => edited(&rows.columns, rows.batch.row(0), &stored.letter.payload),
                false => Ok(rows.batch.row(0).to_vec()),
            };
            match values {
                Ok(values) => {
                    batch.push(meta, values);
                    gave.push(Tried { stored, rows: 1, counts: Vec::new() });
                }
                Err(why) => turn.refuse(why, 1),
            }
        }
        self.score(part, call, batch, gave, deadline, &mut turn);
        turn
    }

    /// Rows that a receiver refused.
    pub(super) fn delivered(
        &self,
        output: &OutputHandle,
        statement: &SmolStr,
        letters: Vec<StoredDeadLetter>,
        deadline: Instant,
    ) -> ReplayTurn {
        let mut turn = ReplayTurn::default();
        let scorers = self.plan.parts.iter().find(|part| part.statement == *statement);
        let scorers = scorers.and_then(|part| part.scorers.as_ref());
        let mut kinds: Vec<(Arc<[Column]>, Batch, Vec<StoredDeadLetter>)> = Vec::new();
        for stored in letters {
            let Some(LetterOrigin::Finished { rows, .. }) = &stored.letter.origin else { continue };
            let Some(meta) = rows.batch.meta().first().copied() else { continue };
            let values = match edited(&rows.columns, rows.batch.row(0), &stored.letter.payload) {
                Ok(values) => values,
                Err(why) => {
                    turn.refuse(why, 1);
                    continue;
                }
            };
            let columns = rows.columns.clone();
            let place = kinds.iter().position(|(known, ..)| *known == columns).unwrap_or_else(|| {
                kinds.push((columns, Batch::new(values.len()), Vec::new()));
                kinds.len() - 1
            });
            if let Some((_, batch, of_kind)) = kinds.get_mut(place) {
                batch.push(meta, values);
                of_kind.push(stored);
            }
        }
        for (columns, batch, of_kind) in kinds {
            let tried = |stored| Tried { stored, rows: 1, counts: Vec::new() };
            let gave = of_kind.into_iter().map(tried).collect();
            let way = OutputWay { output, statement, scorers };
            self.deliver(way, Rows { columns, batch }, gave, deadline, &mut turn);
        }
        turn
    }

    /// Scores rows and runs the tail on the answers. `gave`: the letters that gave the rows, in order.
    fn score(
        &self,
        part: &ReplayPart,
        call: &ReplayCall,
        mut batch: Batch,
        mut gave: Vec<Tried>,
        deadline: Instant,
        turn: &mut ReplayTurn,
    ) {
        let (outcomes, trouble) = self.outcomes(call, &batch, deadline);
        if let Some(why) = trouble {
            // what was answered is not asked for again
            let (mut rows, mut letters) = (0, 0);
            let answered = call.called.spread(&batch, outcomes.clone()).len();
            while let Some(tried) = gave.get(letters).filter(|tried| rows + tried.rows <= answered) {
                (rows, letters) = (rows + tried.rows, letters + 1);
            }
            turn.refuse(why, gave.split_off(letters).len());
            turn.gave_up = true;
            let mut answered = 0..rows;
            batch.retain(|_, _| answered.next().is_some());
        }
        let keys: Vec<RowKey> = batch.meta().iter().map(|meta| (Some(meta.offset), meta.ordinal)).collect();
        let commit = self
            .scoring(part, call)
            .and_then(|mut scoring| scoring.again(batch, outcomes).map_err(|error| error.to_string()));
        let mut commit = match commit {
            Ok(commit) => commit,
            Err(why) => return turn.refuse(why, gave.len()),
        };
        turn.replayed.ledger.extend(commit.ledger);
        turn.settle(gave, &keys, std::mem::take(&mut commit.dead_letters));
        if let Some((_, rows)) = &mut commit.emit
            && call.scorer.fallback().is_some()
        {
            rows.batch.meta_mut().iter_mut().for_each(|meta| meta.provenance.scored_by = ScoredBy::Endpoint);
        }
        turn.replayed.emit = commit.emit;
    }

    /// What the endpoint says of rows whose last column is the argument: of the first ones alone, and why, where it
    /// does not answer for all of them in time.
    fn outcomes(&self, call: &ReplayCall, batch: &Batch, deadline: Instant) -> (Vec<Outcome>, Option<String>) {
        let args = call.called.arguments(batch);
        let mut tickets = Vec::new();
        let mut trouble = None;
        // a chunk is at most a request
        for args in args.chunks(call.scorer.rows_max().max(1)) {
            let bytes = args.iter().map(|arg| 24 + arg.heap_bytes()).sum();
            let chunk = Chunk { is_patient: true, is_replay: true, ..Chunk::new(LANE, args.to_vec()) };
            // with a room for each none waits for another
            match call.scorer.submit_blocking(chunk, bytes, &call.scorer.new_room()) {
                Ok(ticket) => tickets.push(ticket),
                Err(ended) => {
                    trouble = Some(ended.to_string());
                    break;
                }
            }
        }
        let mut outcomes = Vec::with_capacity(args.len());
        for mut ticket in tickets {
            let answer = loop {
                match ticket.wait(LOOK) {
                    None if self.is_over(deadline) => break None,
                    None => {}
                    answer => break answer,
                }
            };
            match answer {
                Some(Ok(answer)) => outcomes.extend(answer),
                Some(Err(ended)) => return (outcomes, Some(ended.to_string())),
                None => {
                    let why = "the endpoint gave no answer in 30 s: replay when it does";
                    return (outcomes, Some(why.to_owned()));
                }
            }
        }
        (outcomes, trouble)
    }

    /// Rows of a part without a call: into its stream, or to the output.
    fn hand_on(&self, part: &ReplayPart, batch: Batch, gave: Vec<Tried>, deadline: Instant, turn: &mut ReplayTurn) {
        let rows = Rows { columns: part.part.columns.clone(), batch };
        let Some(into) = part.into else {
            let output = self.plan.outputs.iter().find(|output| output.name().eq_ignore_ascii_case(&part.output));
            return match output {
                Some(output) => {
                    let (statement, scorers) = (&part.statement, part.scorers.as_ref());
                    self.deliver(OutputWay { output, statement, scorers }, rows, gave, deadline, turn);
                }
                None => turn.refuse(format!("the job has no output `{}`", part.output), gave.len()),
            };
        };
        gave.into_iter().for_each(|tried| turn.pass(tried));
        turn.replayed.emit = Some((into, rows)).filter(|(_, rows)| !rows.batch.is_empty());
    }

    /// Gives rows to an output, and waits for a while.
    fn deliver(
        &self,
        OutputWay { output, statement, scorers }: OutputWay<'_>,
        rows: Rows,
        gave: Vec<Tried>,
        deadline: Instant,
        turn: &mut ReplayTurn,
    ) {
        if rows.batch.is_empty() {
            return gave.into_iter().for_each(|tried| turn.pass(tried));
        }
        let (rows, consumer) = (Arc::new(rows), consumer_of(statement));
        if self.is_over(deadline) {
            turn.gave_up = true;
            return turn.refuse("others were waited for in the 30 s that a replay has: replay again", gave.len());
        }
        let mut retry = Retry::new(Backoff::BROKER);
        let refused = loop {
            match output.deliver(&rows, statement, &consumer, scorers, rows.batch.len() as u64) {
                Delivery::Delivered => break Vec::new(),
                Delivery::Rejected { rows } => break rows,
                Delivery::Gone { reason } => return turn.refuse(reason, gave.len()),
                Delivery::TryAgain { reason, .. } => {
                    let left = deadline.saturating_duration_since(self.clock.monotonic());
                    if left.is_zero() || self.stop.sleep(retry.failed().min(left)) {
                        output.forget(&consumer);
                        turn.gave_up = true;
                        let why = format!("the output takes no rows ({reason}): replay when it does");
                        return turn.refuse(why, gave.len());
                    }
                }
            }
        };
        let counter = |what: &'static str| Counter::new(Edge::Output, output.name().clone(), what);
        let (all, n) = (rows.batch.len() as u64, refused.len() as u64);
        let counts = [("rows_in", all), ("delivered", all - n.min(all)), ("dead_lettered", n.min(all))];
        turn.replayed.ledger.extend(counts.map(|(what, n)| (counter(what), n)).into_iter().filter(|(_, n)| *n > 0));
        let flow = self.flow_of(statement, rows.columns.clone());
        let letters = flow.rejected(output.name(), &rows, refused);
        let keys: Vec<RowKey> = rows.batch.meta().iter().map(|meta| (Some(meta.offset), meta.ordinal)).collect();
        turn.settle(gave, &keys, letters);
    }

    fn flow(&self, part: &ReplayPart) -> Flow {
        Flow { statement: part.name.clone(), ..self.flow_of(&part.statement, part.part.columns.clone()) }
    }

    fn flow_of(&self, statement: &SmolStr, columns: Arc<[Column]>) -> Flow {
        Flow {
            // nothing is committed for a consumer
            consumer: ConsumerId(0),
            consumer_name: SmolStr::default(),
            statement: statement.clone(),
            columns,
            query_version: self.plan.query_version.clone(),
            stop: self.stop.clone(),
            clock: self.clock.clone(),
            arrival: self.arrival.clone(),
            failures: Failures::default(),
            is_driven: false,
        }
    }

    fn functions(&self) -> Result<Option<Functions>, String> {
        let host = self.plan.versions.as_ref().map(Host::following).transpose();
        host.map(|host| host.map(|host| Box::new(host) as Functions)).map_err(|e| e.to_string())
    }

    /// The tables that a part joins with, which must be there by now.
    fn tables(&self, part: &Part) -> Result<Tables, String> {
        let tables = Tables::new(&self.plan.references, part.references());
        match tables.are_there() {
            true => Ok(tables),
            false => Err("the reference data is not loaded yet: see `forebay journal status`".to_owned()),
        }
    }

    fn executor(&self, part: &ReplayPart) -> Result<Executor, String> {
        let executor = Executor::new(&part.part, self.plan.options.clone(), self.functions()?);
        let mut executor = executor.map_err(|e| e.to_string())?;
        self.tables(&part.part)?.take_over(&mut executor);
        Ok(executor)
    }

    /// The committing end of a call, for one turn.
    fn scoring(&self, part: &ReplayPart, call: &ReplayCall) -> Result<Scoring, String> {
        let external = part.part.external.as_ref().ok_or("the part calls nothing")?;
        let into = part.into.ok_or("the part has no stream")?;
        let options = self.plan.options.clone();
        let tail = Executor::for_tail(external, &part.part.columns, options, self.functions()?);
        Ok(Scoring {
            flow: self.flow(part),
            tail: tail.map_err(|e| e.to_string())?,
            tables: self.tables(&part.part)?,
            on_error: call.on_error,
            local: None,
            corrects: false,
            into,
            columns: call.columns.clone(),
            called: call.called,
            text: part.text.clone(),
            chunks: channel().1,
            sent: Mark::default(),
            came: Arc::new(Notify::new()),
            waiting: Unanswered::new(Order::None, 0),
            ahead: Ahead::load(0, &[]),
            reached: None,
            ended: None,
            answered: None,
            rows: 0,
        })
    }
}

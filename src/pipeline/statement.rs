//! The consumers of one statement, made from its plan.
//!
//! In: the parts of the plan. Out: threads to be started. Each part that keeps state or calls an endpoint is a consumer
//! of its own and writes a stream; the last stream, or the inputs themselves when the statement needs none, are
//! delivered. Invariant: a consumer's name in the journal depends on the statement's output and place alone, so it is
//! found again. Not here: what the consumers do.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use smol_str::SmolStr;
use tokio::sync::Notify;

use super::ahead::Ahead;
use super::called::CalledRows;
use super::catch_ups::CatchUps;
use super::commits::Commits;
use super::consumer::{Consumer, Sink, ToScore};
use super::cycle::{self, Looped, Rounds};
use super::delivery::{self, Deliverer, Uncommitted};
use super::due::SinceCommit;
use super::failures::Failures;
use super::feed::Feed;
use super::flow::{Flow, engine, state_damaged};
use super::gathering::Gathering;
use super::health::Health;
use super::mark::Mark;
use super::names::{named, sent_columns};
use super::outputs::OutputHandle;
use super::prepare::{self, Prepared};
use super::reading::{Bound, Reading};
use super::registered::Registered;
use super::scoring::{Scoring, Unanswered};
use super::stalls::{ConsumerNeed, Stalls};
use super::stop::Stop;
use super::tables::Tables;
use super::{PipelineError, Worker};
use crate::arrival::ArrivalClock;
use crate::backoff::Backoff;
use crate::batch::Column;
use crate::engine::{Executor, Functions, OnError};
use crate::job::{self, BacklogSettings, FunctionSettings, Job};
use crate::journal::{ConsumerSpec, InputId, Journal, Reader, Start, StreamId};
use crate::query::catalog::folded;
use crate::query::plan::{External, Part, Statement};
use crate::reference::Reference;
use crate::score::{Order, Scorer};
use crate::time::Clock;
use crate::udf::{Host, Versions};

/// Records that a part with state reads and commits at once: enough that a commit costs little beside its rows.
const RECORDS_MAX: usize = 4096;

/// The text of a consumer whose position and state mean the same under each text of its statement.
const OF_ANY_TEXT: &str = "rows";

/// What the consumers are made of.
#[derive(Debug)]
pub struct StatementBuild<'a> {
    pub job: &'a Job,
    pub prepared: &'a Prepared,
    pub versions: &'a Versions,
    pub journal: &'a Journal,
    pub outputs: &'a [(OutputHandle, tokio::task::JoinHandle<()>)],
    pub scorers: &'a BTreeMap<SmolStr, Scorer>,
    pub references: &'a [Reference],
    pub stop: &'a Stop,
    pub health: &'a Arc<Health>,
    pub clock: &'a Clock,
    pub arrival: &'a ArrivalClock,
    pub failures: &'a Failures,
    pub catch_ups: &'a CatchUps,
    pub stalls: &'a Stalls,
    /// See [`Flow::is_driven`].
    pub is_driven: bool,
}

/// A thread to be started once everything is made.
#[allow(missing_debug_implementations, reason = "it holds a function")]
pub struct Thread {
    pub(super) name: SmolStr,
    /// Of the statement that it works for.
    span: tracing::Span,
    /// Reference data and the word to stop: the part begins once all tables are there. `None`: it waits for none.
    wait: Option<(Tables, Stop)>,
    pub(super) rounds: Box<dyn Rounds>,
}

impl Thread {
    fn run(&mut self) -> Result<(), PipelineError> {
        match self.wait.as_ref().is_none_or(|(tables, stop)| tables.wait(stop)) {
            true => cycle::run(self.rounds.as_mut()),
            false => Ok(()),
        }
    }

    /// # Errors
    /// When the system gives no thread.
    pub fn spawn(mut self, health: &Arc<Health>) -> Result<Worker, PipelineError> {
        let (health, name, thread) = (health.clone(), self.name.clone(), self.name.to_string());
        let body = move || {
            let _span = self.span.clone().entered();
            // a panic must not leave the job half alive with nobody the wiser
            let result = catch_unwind(AssertUnwindSafe(|| self.run()))
                .unwrap_or_else(|_| Err(PipelineError::Panicked { who: name.clone() }));
            if let Err(error) = &result {
                health.ended(&name, error);
            }
            result
        };
        std::thread::Builder::new()
            .name(thread)
            .spawn(body)
            .map_err(|source| PipelineError::System { what: "a thread", source })
    }
}

impl StatementBuild<'_> {
    /// Makes all consumers; with them, what they are in the journal.
    ///
    /// # Errors
    /// When the journal refuses or a function cannot be instantiated.
    pub fn make(&self) -> Result<(Vec<Thread>, Vec<Registered>), PipelineError> {
        let mut consumers = Vec::new();
        let mut jobs = Vec::new();
        for (name, statement) in named(&self.prepared.plan) {
            self.statement(&name, statement, &mut consumers, &mut jobs)?;
        }
        Ok((jobs, consumers))
    }

    fn statement(
        &self,
        name: &SmolStr,
        statement: &Statement,
        consumers: &mut Vec<Registered>,
        jobs: &mut Vec<Thread>,
    ) -> Result<(), PipelineError> {
        let mut from: Option<(StreamId, Mark)> = None;
        let parts = statement.parts.len();
        for (i, part) in statement.parts.iter().enumerate() {
            let is_last = i + 1 == parts;
            if is_last && part.external.is_none() && !part.is_stateful() {
                if i == 0 {
                    self.leftover(name, statement, consumers, jobs)?;
                }
                // the output runs it
                jobs.push(self.deliverer(name, statement, Some(part), from.map(|(stream, _)| stream), consumers)?);
                return Ok(());
            }
            let part_name = if i == 0 { name.clone() } else { SmolStr::new(format!("{name}/{}", i + 1)) };
            let into = self.journal.stream(&part_name)?;
            let mark = Mark::default();
            let made = self.part(&part_name, statement, part, from.take(), (into, mark.clone()), None, consumers, jobs);
            self.health.or_stopped(&part_name, made)?;
            self.rescoring(&part_name, statement, part, into, consumers, jobs)?;
            from = Some((into, mark));
        }
        jobs.push(self.deliverer(name, statement, None, from.map(|(stream, _)| stream), consumers)?);
        Ok(())
    }

    /// A statement that needs no stream any more may have left rows in one: they are delivered before they are
    /// forgotten.
    fn leftover(
        &self,
        name: &SmolStr,
        statement: &Statement,
        consumers: &mut Vec<Registered>,
        jobs: &mut Vec<Thread>,
    ) -> Result<(), PipelineError> {
        let consumer = format!("output {name}");
        let status = self.journal.summary()?;
        if status.consumers.iter().any(|c| c.name == consumer && c.stream != StreamId::INPUTS.0 && c.pending > 0) {
            let _of = span(name).entered();
            tracing::info!("rows of its earlier text are still to be delivered");
            let stream = self.journal.stream(name)?;
            jobs.push(self.deliverer(name, statement, None, Some(stream), consumers)?);
        }
        Ok(())
    }

    /// `again`: the columns of its rows, for a part that gives the endpoint rows that were answered before.
    #[expect(clippy::too_many_arguments, reason = "two calls, and every argument is another thing of the statement")]
    pub(super) fn part(
        &self,
        name: &SmolStr,
        statement: &Statement,
        part: &Part,
        from: Option<(StreamId, Mark)>,
        (into, mark): (StreamId, Mark),
        again: Option<Arc<[Column]>>,
        consumers: &mut Vec<Registered>,
        jobs: &mut Vec<Thread>,
    ) -> Result<(), PipelineError> {
        let consumer_name = SmolStr::new(format!("statement {name}"));
        let stream = from.as_ref().map(|(stream, _)| *stream);
        let (fingerprint, start) = match (&from, &again) {
            // its rows tell of which text they are, and those of an earlier such part stay as they were answered
            (_, Some(_)) => (OF_ANY_TEXT, Start::Now),
            (Some(_), None) => (statement.fingerprint.as_str(), Start::Oldest),
            (None, None) => (statement.fingerprint.as_str(), self.job.start),
        };
        let (flow, reader) = self.flow(
            consumer_name.clone(),
            name.clone(),
            (fingerprint, start),
            Some(part),
            part.columns.clone(),
            stream,
            self.backlog_of(part),
            consumers,
        )?;
        let feeds_part = statement.parts.last().is_some_and(|last| !std::ptr::eq(last, part));
        // of another text it means nothing, and it is still there
        let has_state = consumers.last().is_some_and(|registered| registered.changed_at.is_none());
        let state = if has_state { self.stored_state(name, flow.consumer)? } else { Vec::new() };
        let mut executor = self.executor(name, part)?;
        let of_operators = || state.iter().filter(|entry| !Ahead::has(entry));
        let rows = || of_operators().map(|entry| (entry.op, entry.key.as_slice(), entry.value.as_slice()));
        let ahead = Ahead::load(reader.position(), &state);
        executor.load_state(rows()).map_err(|e| state_damaged(name, &e))?;
        let held = executor.waiting();
        let share = self.health.state.share(name.clone());
        share.tell(executor.state_bytes());
        let feed = self.feed(executor, part)?;
        let commits = Commits::new(self.journal.clone(), mark.clone());
        let mut records = RECORDS_MAX;
        let sink = match &part.external {
            None => Sink::Stream(into),
            Some(external) => {
                let scorer = self.scorer(external)?.clone();
                // a chunk is at most a request
                records = scorer.rows_max().clamp(1, RECORDS_MAX);
                let (chunks, received) = channel();
                let (sent, came, called) = (Mark::default(), Arc::new(Notify::new()), CalledRows::of(external));
                let order = if statement.is_stateful() { Order::Stream } else { scorer.order() };
                let options = self.prepared.options.clone();
                let mut tail = Executor::for_tail(external, &part.columns, options, self.functions()?)
                    .map_err(|e| engine(name, &e))?;
                tail.load_state(rows()).map_err(|e| state_damaged(name, &e))?;
                let local = if again.is_none() { self.local(name, statement, part)? } else { None };
                let scoring = Scoring {
                    flow: flow.clone(),
                    tail,
                    tables: self.tables(part),
                    on_error: self.on_error(external),
                    local,
                    corrects: again.is_some(),
                    into,
                    columns: sent_columns(external),
                    called,
                    text: prepare::version(&statement.fingerprint),
                    chunks: received,
                    sent: sent.clone(),
                    came: came.clone(),
                    waiting: Unanswered::new(order, reader.position()),
                    ahead: ahead.clone(),
                    reached: None,
                    ended: None,
                    answered: None,
                    rows: 0,
                };
                let commits = Commits::new(self.journal.clone(), mark);
                let rounds = Box::new(Looped { part: scoring, commits });
                jobs.push(Thread { name: SmolStr::new(format!("score {name}")), span: span(name), wait: None, rounds });
                let room = scorer.new_room();
                let need = || ConsumerNeed::Endpoint(scorer.name().into(), self.answer_max(scorer.name()));
                self.stalls.add(&consumer_name, if again.is_some() { ConsumerNeed::Leftovers } else { need() });
                scorer.add_backlog(self.catch_ups.counting(self.journal, &consumer_name));
                // each part takes its turn at the endpoint
                let (lane, is_patient) = (jobs.len(), again.is_some());
                Sink::Score(Box::new(ToScore { scorer, room, called, is_patient, lane, chunks, came, sent }))
            }
        };
        let refused = again.is_some().then(Vec::new);
        let before = again.or_else(|| from.as_ref().and_then(|_| self.columns_before(statement, part)));
        let aside = self.journal.asides(consumer_name.clone(), reader.position())?;
        let feed = Feed { aside, columns: before, refused, ..feed };
        let position = reader.position();
        let consumer = Consumer {
            due: SinceCommit::new(position, self.clock.monotonic()),
            flow,
            reading: Reading::new(reader, Bound::records(records)),
            feed,
            sink,
            upstream: from.map(|(_, mark)| mark),
            feeds_part,
            held,
            share,
            ahead: Some(ahead).filter(|ahead| ahead.end() > position),
            unread: None,
            position,
            others: 0,
            has_ticked: false,
        };
        let wait = Some((consumer.feed.tables.clone(), self.stop.clone()));
        let rounds = Box::new(Looped { part: consumer, commits });
        jobs.push(Thread { name: consumer_name, span: span(name), wait, rounds });
        Ok(())
    }

    fn deliverer(
        &self,
        name: &SmolStr,
        statement: &Statement,
        part: Option<&Part>,
        from: Option<StreamId>,
        consumers: &mut Vec<Registered>,
    ) -> Result<Thread, PipelineError> {
        let output = self
            .outputs
            .iter()
            .map(|(handle, _)| handle)
            .find(|handle| handle.name().eq_ignore_ascii_case(&statement.output));
        let output = output.cloned().ok_or_else(|| PipelineError::Output {
            name: statement.output.clone(),
            reason: "the job has no such output".to_owned(),
        })?;
        // Whoever reads the inputs for a statement has one name, so a statement that is changed from the one kind to
        // the other keeps its position.
        let kind = if from.is_some() { "output" } else { "statement" };
        let consumer_name = SmolStr::new(format!("{kind} {name}"));
        // rows of a stream describe themselves: they are delivered as they are, whatever the query says by now
        let fingerprint = part.map_or(OF_ANY_TEXT, |_| statement.fingerprint.as_str());
        // rows of a statement are all for its output
        let start = if from.is_none() { self.job.start } else { Start::Oldest };
        let last = statement.parts.last();
        let columns = last.map_or_else(|| Arc::from([]), |part| part.columns.clone());
        let section = self.job.outputs.iter().find(|o| o.name.eq_ignore_ascii_case(&statement.output));
        let backlog = section.map_or(BacklogSettings::default(), |output| output.backlog);
        let (flow, reader) = self.flow(
            consumer_name.clone(),
            name.clone(),
            (fingerprint, start),
            part,
            columns,
            from,
            backlog,
            consumers,
        )?;
        let feed =
            part.map(|part| self.executor(name, part).and_then(|executor| self.feed(executor, part))).transpose()?;
        let before = part.filter(|_| from.is_some()).and_then(|part| self.columns_before(statement, part));
        let position = reader.position();
        let aside = self.journal.asides(consumer_name.clone(), position)?;
        let feed = feed.map(|feed| Feed { aside, columns: before, ..feed });
        let fill = output.fill();
        let patience =
            section.map_or(Duration::ZERO, |output| output.settings.attempt_max()).saturating_add(fill.time * 2);
        let is_shared = section.is_some_and(|output| output.settings.is_shared());
        self.stalls.add(&consumer_name, ConsumerNeed::Output { name: output.name().clone(), patience, is_shared });
        let stride = delivery::RECORDS_FIRST.max(fill.rows);
        let deliverer = Deliverer {
            due: SinceCommit::new(position, self.clock.monotonic()),
            flow,
            reading: Reading::new(reader, Bound::records(stride)),
            feed,
            output,
            statement: name.clone(),
            scorers: self.scorer_names(statement),
            backoff: Backoff::BROKER,
            held: 0,
            gathering: Gathering::new(fill),
            stride,
            pending: Uncommitted::at(position),
            stopped: None,
            #[cfg(test)]
            held_back: None,
        };
        let commits = Commits::new(self.journal.clone(), Mark::default());
        let wait = deliverer.feed.as_ref().map(|feed| (feed.tables.clone(), self.stop.clone()));
        let rounds = Box::new(Looped { part: deliverer, commits });
        Ok(Thread { name: SmolStr::new(format!("output {name}")), span: span(name), wait, rounds })
    }

    #[expect(clippy::too_many_arguments, reason = "as `part`")]
    fn flow(
        &self,
        consumer_name: SmolStr,
        statement: SmolStr,
        (fingerprint, start): (&str, Start),
        part: Option<&Part>,
        columns: Arc<[Column]>,
        from: Option<StreamId>,
        backlog: BacklogSettings,
        consumers: &mut Vec<Registered>,
    ) -> Result<(Flow, Reader), PipelineError> {
        let stream = from.unwrap_or(StreamId::INPUTS);
        let (on_full, limits) = backlog.within(&self.job.journal);
        let (consumer, text) = (consumer_name.clone(), fingerprint.to_owned());
        let spec = ConsumerSpec { name: consumer, fingerprint: text, stream, start, on_full, limits };
        let info = self.journal.register_consumer(spec)?;
        let changed_at = (info.changed && fingerprint != OF_ANY_TEXT).then_some(info.position);
        consumers.push(Registered { name: consumer_name.clone(), statement: statement.clone(), changed_at });
        let mut reader = self.journal.reader(stream, info.position).of(info.id);
        if let (None, Some(part)) = (from, part) {
            reader = reader.only(&self.inputs_of(part)?);
        }
        let flow = Flow {
            consumer: info.id,
            consumer_name,
            statement,
            columns,
            query_version: self.prepared.query_version.clone(),
            stop: self.stop.clone(),
            clock: self.clock.clone(),
            arrival: self.arrival.clone(),
            failures: self.failures.clone(),
            is_driven: self.is_driven,
        };
        Ok((flow, reader))
    }

    /// The inputs that a part reads, by the journal's numbers.
    fn inputs_of(&self, part: &Part) -> Result<Vec<InputId>, PipelineError> {
        let names: BTreeSet<SmolStr> = part.root.inputs();
        names.iter().map(|name| Ok(self.journal.input(name)?)).collect()
    }

    fn executor(&self, name: &SmolStr, part: &Part) -> Result<Executor, PipelineError> {
        Executor::new(part, self.prepared.options.clone(), self.functions()?).map_err(|e| engine(name, &e))
    }

    /// Instances of the functions for one executor: they belong to its thread.
    pub(super) fn functions(&self) -> Result<Option<Functions>, PipelineError> {
        if self.prepared.bindings.is_empty() {
            return Ok(None);
        }
        let host = Host::following(self.versions);
        let host =
            host.map_err(|e| PipelineError::Function { name: SmolStr::new_static("(all)"), reason: e.to_string() })?;
        Ok(Some(Box::new(host)))
    }

    fn feed(&self, executor: Executor, part: &Part) -> Result<Feed, PipelineError> {
        let streams = self.job.inputs.iter().filter(|input| !matches!(input.kind, job::InputSettings::Reference(_)));
        let inputs = streams.map(|input| Ok((self.journal.input(&input.name)?, SmolStr::new(&input.name))));
        Ok(Feed {
            executor,
            inputs: inputs.collect::<Result<_, PipelineError>>()?,
            aside: BTreeSet::new(),
            columns: None,
            refused: None,
            tables: self.tables(part),
            journal: self.journal.clone(),
            pushed: false,
            left_out: 0,
        })
    }

    pub(super) fn tables(&self, part: &Part) -> Tables {
        Tables::new(self.references, part.references())
    }

    /// The columns of the rows that the part before this one writes.
    fn columns_before(&self, statement: &Statement, part: &Part) -> Option<Arc<[Column]>> {
        let at = statement.parts.iter().position(|p| std::ptr::eq(p, part))?;
        statement.parts.get(at.checked_sub(1)?).map(|before| before.columns.clone())
    }

    pub(super) fn scorer(&self, external: &External) -> Result<&Scorer, PipelineError> {
        let found = self.scorers.iter().find(|(name, _)| folded(name) == folded(&external.function));
        found.map(|(_, scorer)| scorer).ok_or_else(|| PipelineError::Function {
            name: external.function.clone(),
            reason: "it has no endpoint".to_owned(),
        })
    }

    /// How long it may take until an endpoint answers, the wait at the start of a job included.
    fn answer_max(&self, function: &str) -> Duration {
        let function = self.job.functions.iter().find(|f| f.name == function);
        match function.map(|function| &function.kind) {
            Some(FunctionSettings::Endpoint(config)) => config.catchup_jitter + config.request_timeout,
            _ => Duration::ZERO,
        }
    }

    /// What the endpoint that a part calls says of rows that wait for it.
    fn backlog_of(&self, part: &Part) -> BacklogSettings {
        let called = part.external.as_ref().map(|external| folded(&external.function));
        let function = self.job.functions.iter().find(|f| Some(folded(&f.name)) == called);
        function.map_or(BacklogSettings::default(), |function| function.backlog)
    }

    /// What becomes of a row that the endpoint refuses: the function's own setting, else the job's.
    pub(super) fn on_error(&self, external: &External) -> OnError {
        let own =
            self.job.functions.iter().find(|f| folded(&f.name) == folded(&external.function)).and_then(|f| f.on_error);
        own.unwrap_or(self.prepared.options.on_error)
    }
}

pub fn span(statement: &SmolStr) -> tracing::Span {
    tracing::error_span!("statement", name = %statement)
}

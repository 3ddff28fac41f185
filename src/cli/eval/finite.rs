//! A query over finite inputs, in event time: what `eval` and `test` share.
//!
//! In: events and reference rows in memory, a query. Out: rows, in the order they come out, statement by statement.
//! Invariant: the same inputs give the same rows; no clock is read and nothing is written. Not here: files and
//! arguments (`eval`), what the rows should be (`test`), the journal (`pipeline`).
//!
//! Events of all inputs get one sequence of offsets, by arrival. Where no arrival time is given an event arrives when
//! it happens, so nothing is late or early, and the order of a file is the order of arrival.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::notes::Notes;
use crate::batch::{Column, MessageMeta, RawEvent, Rows};
use crate::decode::{DecodeError, Decoder};
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::engine::{
    Emitted, EngineError, Executor, ExecutorOptions, FailedBody, FailedRow, Functions, OnError, TimePolicies,
};
use crate::job;
use crate::pipeline::prepare;
use crate::query::catalog::{Catalog, FunctionDef, InputDef, InputKind};
use crate::query::compile;
use crate::query::plan::{Node, Part, Plan, Scan, Statement, calls};
use crate::time::{TICKS_PER_SECOND, Timestamp};
use crate::udf::{FunctionBinding, Host};
use crate::value::Value;

/// Events handed to an executor at once: rows come out while the inputs are still read.
const CHUNK: usize = 1024;

/// Characters of a failed row that a message shows.
const SHOWN_MAX: usize = 200;

/// Arrival of the first event of an input that has no times at all; the others follow a millisecond apart.
const UNTIMED_START: &str = "2000-01-01T00:00:00Z";

#[derive(Clone, Debug)]
pub struct Event {
    /// `None`: it arrives when it happens.
    pub arrival: Option<Timestamp>,
    /// One JSON object.
    pub payload: Bytes,
    pub message: Arc<MessageMeta>,
}

impl Event {
    /// Arrives when it happens.
    pub fn now(payload: Bytes) -> Event {
        Event { arrival: None, payload, message: Arc::default() }
    }
}

/// The time policies in the units of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policies {
    /// -1: never late.
    pub late_tolerance_s: i64,
    pub out_of_order_tolerance_s: i64,
    /// Events beyond a tolerance are dropped and not adjusted.
    pub drop: bool,
}

impl Default for Policies {
    fn default() -> Policies {
        Policies { late_tolerance_s: 5, out_of_order_tolerance_s: 0, drop: false }
    }
}

/// Why a run gave no or not all rows.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0}")]
    Compile(Diagnostics),
    /// A runtime error under `OnError::Stop`, drawn at its place in the query.
    #[error("{0}")]
    Stopped(Diagnostics),
    #[error("{0}")]
    Job(Diagnostics),
    #[error("{0}")]
    Other(String),
}

#[derive(Debug, Default)]
pub struct FiniteRun {
    pub inputs: Vec<(String, Vec<Event>)>,
    /// Reference tables: a JSON object each row.
    pub references: Vec<(String, Vec<Bytes>)>,
    pub on_error: OnError,
    policies: Policies,
    bindings: Vec<FunctionBinding>,
    functions: Vec<FunctionDef>,
    /// By index of the function, where it has a policy of its own.
    functions_on_error: Vec<(usize, OnError)>,
}

impl FiniteRun {
    pub fn new(policies: Policies) -> FiniteRun {
        FiniteRun { policies, ..FiniteRun::default() }
    }

    /// Takes over the functions of a job file. Endpoints are known to the binder, but a run does not call them.
    ///
    /// # Errors
    /// The job file has problems; a component does not load.
    pub fn load_functions(&mut self, path: &Path) -> Result<(), RunError> {
        let job = job::load(path).map_err(RunError::Job)?;
        let mut problems = job.problems();
        let (functions, bindings) = prepare::functions(&job, &mut problems);
        if problems.has_errors() {
            return Err(RunError::Job(problems));
        }
        let policies = prepare::options(&job, &bindings).functions_on_error;
        (self.functions, self.bindings, self.functions_on_error) =
            (functions, bindings, policies.into_iter().collect());
        Ok(())
    }

    /// Compiles the query and runs it to the end of the inputs. Answers what to tell the user beside the rows.
    ///
    /// # Errors
    /// The query does not compile, or a statement stopped; rows that came before have been handed over.
    pub fn run(
        &self,
        text: &str,
        file: &str,
        mut sink: impl FnMut(&str, &[Column], &[Value]),
    ) -> Result<Vec<String>, RunError> {
        let plan = compile(text, file, &self.catalog()).map_err(RunError::Compile)?;
        let sequence = self.sequence(&plan)?;
        let options = self.options()?;
        self.check_tables(&plan)?;
        let mut lines = Vec::new();
        let mut stopped = Diagnostics::new(file, text);
        for statement in &plan.statements {
            let part = single_part(statement).map_err(|problem| one(file, text, *problem))?;
            let executor =
                || Executor::new(part, options.clone(), self.host()?).map_err(|e| unsupported(e, file, text));
            let mut notes = Notes::default();
            let mut delivered = 0usize;
            let mut deliver = |rows: &Rows, skip: usize| {
                rows.batch.rows().skip(skip).for_each(|(_, row)| sink(&statement.output, &rows.columns, row));
            };
            let failure = feed(&mut executor()?, &self.inputs, &sequence, true, &mut |emitted| {
                deliver(&emitted.rows, 0);
                delivered += emitted.rows.batch.len();
                notes.add(emitted);
            });
            if let Some(failure) = failure {
                if part.is_stateful() {
                    // such a part gives nothing of the step that it stopped in: run what lies before the bad event
                    // again
                    let before =
                        usize::try_from(failure.position).ok().and_then(|n| sequence.get(..n)).unwrap_or_default();
                    feed(&mut executor()?, &self.inputs, before, false, &mut |emitted| {
                        let skip = delivered.min(emitted.rows.batch.len());
                        delivered -= skip;
                        deliver(&emitted.rows, skip);
                    });
                }
                stopped.push(stop(&failure));
            }
            lines.extend(notes.lines(&statement.output));
        }
        if stopped.is_empty() { Ok(lines) } else { Err(RunError::Stopped(stopped)) }
    }

    fn catalog(&self) -> Catalog {
        let def = |name: &String, kind| InputDef { name: name.clone(), kind };
        let streams = self.inputs.iter().map(|(name, _)| def(name, InputKind::Stream));
        let references = self.references.iter().map(|(name, _)| def(name, InputKind::Reference));
        Catalog { inputs: streams.chain(references).collect(), outputs: None, functions: self.functions.clone() }
    }

    fn options(&self) -> Result<ExecutorOptions, RunError> {
        let timed = self.inputs.iter().flat_map(|(_, events)| events).any(|e| e.arrival.is_some());
        let ticks = |seconds: i64| seconds.saturating_mul(TICKS_PER_SECOND);
        let policies = TimePolicies {
            // what arrives when it happens is never late
            late_tolerance: Some(self.policies.late_tolerance_s).filter(|s| timed && *s >= 0).map(ticks),
            out_of_order: ticks(self.policies.out_of_order_tolerance_s),
            adjust: !self.policies.drop,
            ..TimePolicies::default()
        };
        let mut options = ExecutorOptions { on_error: self.on_error, policies, ..ExecutorOptions::default() };
        options.functions_on_error.extend(self.functions_on_error.iter().copied());
        for (name, rows) in &self.references {
            let mut decoder = Decoder::new([], Some(0), None);
            let table = rows.iter().map(|payload| record(&mut decoder, payload)).collect::<Result<_, _>>();
            let table = table.map_err(|e| RunError::Other(format!("reference table `{name}`: {e}")))?;
            options.references.insert(name.as_str().into(), Arc::new(table));
        }
        Ok(options)
    }

    /// The events of all inputs in the order of arrival: the input's place in `inputs`, and the event.
    fn sequence(&self, plan: &Plan) -> Result<Vec<(usize, RawEvent)>, RunError> {
        let mut lanes = Vec::with_capacity(self.inputs.len());
        for (name, events) in &self.inputs {
            lanes.push(self.arrivals(plan, name, events)?);
        }
        let mut next = vec![0usize; lanes.len()];
        let mut sequence = Vec::with_capacity(lanes.iter().map(Vec::len).sum());
        loop {
            let heads = lanes.iter().zip(&next).enumerate().filter_map(|(i, (lane, n))| Some((*lane.get(*n)?, i)));
            let Some((arrival, input)) = heads.min() else { return Ok(sequence) };
            let Some(at) = next.get_mut(input) else { return Ok(sequence) };
            if let Some(event) = self.inputs.get(input).and_then(|(_, events)| events.get(*at)) {
                let (payload, message) = (event.payload.clone(), event.message.clone());
                sequence.push((input, RawEvent { arrival, payload, message, mark: 0 }));
            }
            *at += 1;
        }
    }

    /// When each event of an input arrives; never decreasing.
    fn arrivals(&self, plan: &Plan, name: &str, events: &[Event]) -> Result<Vec<Timestamp>, RunError> {
        let times = match first_timestamped(plan, name) {
            Some(scan) if events.iter().any(|e| e.arrival.is_none()) => self.event_times(scan, events)?,
            _ => Vec::new(),
        };
        let start = Timestamp::parse(UNTIMED_START).unwrap_or_default();
        let mut latest = Timestamp::MIN;
        let arrival = |(i, event): (usize, &Event)| {
            let untimed =
                || start.saturating_add(i64::try_from(i).unwrap_or(i64::MAX).saturating_mul(TICKS_PER_SECOND / 1000));
            let own = event.arrival.or_else(|| times.get(i).copied().flatten());
            // an event without a time comes right behind the one before it
            let fallback = if times.is_empty() { untimed() } else { latest };
            latest = latest.max(own.unwrap_or(fallback));
            latest
        };
        Ok(events.iter().enumerate().map(arrival).collect())
    }

    /// The value of `TIMESTAMP BY` for each event: the scan is run by itself, without a time policy.
    fn event_times(&self, scan: &Scan, events: &[Event]) -> Result<Vec<Option<Timestamp>>, RunError> {
        let Some(by) = scan.timestamp_by.clone() else { return Ok(Vec::new()) };
        let plain = Scan { timestamp_by: None, over: Vec::new(), schema: None, ..scan.clone() };
        let root = Node::Project { input: Box::new(Node::Scan(plain)), exprs: vec![by] };
        let columns: Arc<[Column]> = Arc::new([Column { name: "time".into(), spread: false }]);
        let part = Part { root, external: None, substream: None, columns };
        let options = ExecutorOptions { on_error: OnError::Null, ..ExecutorOptions::default() };
        let mut executor = Executor::new(&part, options, self.host()?).map_err(|e| RunError::Other(e.to_string()))?;
        let raw = |e: &Event| RawEvent {
            arrival: Timestamp::MIN,
            payload: e.payload.clone(),
            message: e.message.clone(),
            mark: 0,
        };
        executor.push_events(&scan.input, 0, &events.iter().map(raw).collect::<Vec<_>>());
        let mut times = vec![None; events.len()];
        for (meta, row) in executor.take().rows.batch.rows() {
            let time = match row {
                [Value::DateTime(t)] => Some(*t),
                [Value::Text(text)] => Timestamp::parse(text),
                _ => None,
            };
            if let Some(slot) = usize::try_from(meta.offset).ok().and_then(|i| times.get_mut(i)) {
                *slot = time;
            }
        }
        Ok(times)
    }

    /// Functions that the query calls find the tables that they are granted.
    fn check_tables(&self, plan: &Plan) -> Result<(), RunError> {
        let calls = plan.statements.iter().flat_map(|s| &s.parts).flat_map(|part| calls::of_node(&part.root)).flatten();
        for binding in calls.filter_map(|call| self.bindings.get(call.index)) {
            let tables = &binding.granted.grants().lookup;
            if let Some(missing) = tables.iter().find(|name| !self.references.iter().any(|(given, _)| given == *name)) {
                let name = &binding.name;
                return Err(RunError::Other(format!(
                    "udf.{name} looks into `{missing}`; give it with `--reference {missing}=FILE`"
                )));
            }
        }
        Ok(())
    }

    /// The functions for one executor.
    fn host(&self) -> Result<Option<Functions>, RunError> {
        if self.bindings.is_empty() {
            return Ok(None);
        }
        let host = Host::new(&self.bindings).map_err(|e| RunError::Other(e.to_string()))?;
        Ok(Some(Box::new(host)))
    }
}

/// Runs the events through an executor, to the end of the input when `to_end`. Answers the failure that stopped it.
fn feed(
    executor: &mut Executor,
    inputs: &[(String, Vec<Event>)],
    sequence: &[(usize, RawEvent)],
    to_end: bool,
    deliver: &mut dyn FnMut(&Emitted),
) -> Option<FailedRow> {
    let mut offset = 0i64;
    // runs of one input, as the journal has them
    for run in sequence.chunk_by(|(a, _), (b, _)| a == b).flat_map(|run| run.chunks(CHUNK)) {
        let name = run.first().and_then(|(input, _)| inputs.get(*input)).map_or("", |(name, _)| name);
        let events: Vec<RawEvent> = run.iter().map(|(_, event)| event.clone()).collect();
        executor.push_events(name, offset, &events);
        offset = offset.saturating_add(i64::try_from(run.len()).unwrap_or(i64::MAX));
        let emitted = executor.take();
        deliver(&emitted);
        if emitted.stopped.is_some() {
            return emitted.stopped;
        }
    }
    if to_end {
        executor.finish();
        let emitted = executor.take();
        deliver(&emitted);
        return emitted.stopped;
    }
    None
}

/// The part of a statement that calls no endpoint.
fn single_part(statement: &Statement) -> Result<&Part, Box<Diagnostic>> {
    match statement.parts.as_slice() {
        [part] if part.external.is_none() => Ok(part),
        parts => {
            let call = parts.iter().find_map(|part| part.external.as_ref());
            let name = call.map_or("an endpoint", |call| call.function.as_str());
            let error = Diagnostic::error(
                format!("`{name}` is an endpoint, and a run over files calls none"),
                call.map(|c| c.span),
            );
            Err(Box::new(error.label("not called here").help("run the job with `forebay run`, or leave the call out")))
        }
    }
}

/// A compile error with one problem.
fn one(file: &str, text: &str, problem: Diagnostic) -> RunError {
    let mut problems = Diagnostics::new(file, text);
    problems.push(problem);
    RunError::Compile(problems)
}

fn unsupported(error: EngineError, file: &str, text: &str) -> RunError {
    one(file, text, Diagnostic::error(error.to_string(), None))
}

/// The first scan of an input that says `TIMESTAMP BY`.
fn first_timestamped<'a>(plan: &'a Plan, input: &str) -> Option<&'a Scan> {
    let mut scans = plan.statements.iter().flat_map(|s| &s.parts).flat_map(|part| part.root.scans());
    scans.find(|scan| scan.input == input && scan.timestamp_by.is_some())
}

/// The row that a statement stopped at, at its place in the query.
fn stop(failure: &FailedRow) -> Diagnostic {
    let row = match &failure.body {
        FailedBody::Event(event) => format!("the event: {}", String::from_utf8_lossy(&event.payload)),
        FailedBody::Row(json) => format!("the row inside the query: {json}"),
    };
    let shown: String = row.chars().take(SHOWN_MAX).collect();
    let cut = if shown.len() < row.len() { "…" } else { "" };
    Diagnostic::error(failure.message.clone(), known(failure.span)).label(failure.reason).note(format!("{shown}{cut}"))
}

/// A whole JSON object as a record.
fn record(decoder: &mut Decoder, payload: &[u8]) -> Result<Value, DecodeError> {
    let mut row = [Value::Null];
    decoder.decode(payload, &mut row)?;
    let [value] = row;
    Ok(value)
}

/// A span, unless nobody knew one.
fn known(span: Span) -> Option<Span> {
    (span != Span::default()).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::write_row_json;
    use crate::query::catalog::FunctionKind;

    fn events(lines: &[&str]) -> Vec<Event> {
        lines.iter().map(|l| Event::now(Bytes::copy_from_slice(l.as_bytes()))).collect()
    }

    /// The rows as JSON, a line each, then what `run` answered.
    fn rows(run: &FiniteRun, query: &str) -> (String, Result<Vec<String>, RunError>) {
        let mut out = String::new();
        let ended = run.run(query, "q", |output, columns, row| {
            out.push_str(output);
            out.push(' ');
            write_row_json(columns, row, &mut out);
            out.push('\n');
        });
        (out, ended)
    }

    fn over(inputs: &[(&str, &[&str])]) -> FiniteRun {
        let mut run = FiniteRun::new(Policies::default());
        run.inputs = inputs.iter().map(|(name, lines)| ((*name).to_owned(), events(lines))).collect();
        run
    }

    #[test]
    fn inputs_are_merged_by_the_time_at_which_their_events_happen() {
        let a: &[&str] = &[r#"{"t":"2024-01-01T00:00:01Z","n":1}"#, r#"{"t":"2024-01-01T00:00:04Z","n":4}"#];
        let b: &[&str] = &[r#"{"u":"2024-01-01T00:00:02Z","n":2}"#, r#"{"u":"2024-01-01T00:00:03Z","n":3}"#];
        let run = over(&[("a", a), ("b", b)]);
        let (out, ended) = rows(&run, "SELECT n FROM a TIMESTAMP BY t UNION SELECT n FROM b TIMESTAMP BY u");
        assert_eq!(out.replace("output ", ""), "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n{\"n\":4}\n");
        assert!(ended.unwrap().is_empty());
    }

    #[test]
    fn the_order_of_a_file_is_the_order_of_arrival_and_nothing_is_late() {
        let lines: &[&str] = &[r#"{"t":"2024-01-01T00:10:00Z","n":1}"#, r#"{"t":"2024-01-01T00:09:30Z","n":2}"#];
        let query = "SELECT n, System.Timestamp() AS at INTO o FROM a TIMESTAMP BY t";
        let mut run = over(&[("a", lines)]);
        let (out, _) = rows(&run, query);
        assert_eq!(out.matches("00:10:00.0000000Z").count(), 2, "moved up to the watermark: {out}");
        run.policies.out_of_order_tolerance_s = 60;
        let (out, _) = rows(&run, query);
        assert_eq!(
            out,
            "o {\"n\":2,\"at\":\"2024-01-01T00:09:30.0000000Z\"}\no {\"n\":1,\"at\":\"2024-01-01T00:10:00.0000000Z\"}\n"
        );
        run.policies = Policies { drop: true, ..Policies::default() };
        let (out, ended) = rows(&run, query);
        assert_eq!(out.lines().count(), 1);
        assert_eq!(ended.unwrap(), ["warning: output `o`: 1 row(s) dropped by the time policy (out_of_order)"]);
    }

    #[test]
    fn a_stopped_statement_has_given_what_came_before_and_the_others_run() {
        let lines: Vec<String> = (0..6)
            .map(|s| format!(r#"{{"t":"2024-01-01T00:00:{s:02}Z","v":{}}}"#, if s == 4 { "\"x\"" } else { "1" }))
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let run = over(&[("a", &lines)]);
        let query = "SELECT SUM(CAST(v AS bigint)) AS s INTO sums FROM a TIMESTAMP BY t GROUP BY \
            TumblingWindow(second, 2)\n\
                     SELECT COUNT(*) AS n INTO counts FROM a TIMESTAMP BY t GROUP BY TumblingWindow(minute, 1)";
        let (out, ended) = rows(&run, query);
        assert_eq!(out, "sums {\"s\":1}\nsums {\"s\":2}\ncounts {\"n\":1}\ncounts {\"n\":5}\n");
        let Err(RunError::Stopped(problems)) = ended else { panic!("{ended:?}") };
        let text = problems.to_string();
        assert!(text.contains("Cannot cast value 'x'") && text.contains("00:00:04Z"), "{text}");
    }

    #[test]
    fn what_does_not_stop_is_told() {
        let mut run = over(&[("a", &[r#"{"v":"x"}"#, r#"{"v":"y"}"#, r#"{"v":"1"}"#])]);
        run.on_error = OnError::DeadLetter;
        let (out, ended) = rows(&run, "SELECT CAST(v AS bigint) AS v FROM a");
        assert_eq!(out, "output {\"v\":1}\n");
        let notes = ended.unwrap();
        assert_eq!(notes.len(), 1);
        assert!(
            notes[0].starts_with(
                "warning: output `output`: 2 row(s) set aside (conversion); the first: Cannot cast value 'x'"
            ),
            "{notes:?}"
        );
    }

    #[test]
    fn a_call_of_an_endpoint_is_refused_at_its_place() {
        let mut run = over(&[("a", &[])]);
        run.functions.push(FunctionDef { name: "score".to_owned(), kind: FunctionKind::External });
        let (_, ended) = rows(&run, "SELECT udf.score(v) AS s FROM a");
        let Err(RunError::Compile(problems)) = ended else { panic!("{ended:?}") };
        assert!(problems.to_string().contains("`score` is an endpoint"), "{problems}");
        assert!(problems.items[0].span.is_some());
    }
}

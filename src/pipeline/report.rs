//! What a running job says about itself.
//!
//! In: the stages' own counters and the journal's ledger. Out: a [`Report`] for `/metrics`, `/healthz`, `/readyz`, and
//! a [`Snapshot`] for a status line. Invariant: every number is read when it is asked for. Not here: HTTP.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use smol_str::SmolStr;

use super::catch_ups::CatchUps;
use super::failures::Failures;
use super::health::Health;
use super::outputs::OutputHandle;
use super::pool;
use super::reloads::{self, Renewal};
use super::stalls::Stalls;
use crate::arrival::ArrivalClock;
use crate::job::Job;
use crate::journal::{Edge, Journal, StreamId, what};
use crate::reference::Reference;
use crate::score::{Scorer, State};
use crate::source::SourceStats;
use crate::telemetry::{Report, Sample, SampleKind};
use crate::time::Clock;
use crate::tls::TlsFiles;
use crate::udf::{FunctionBinding, Stats, Versions};

/// How long an endpoint that is looked at has to be back, before it is said how it stands.
const RETRY_CHECK: Duration = Duration::from_millis(100);
const RETRY_CHECKS: u32 = 50;

/// The stages that are asked.
#[derive(Debug)]
pub struct WatchedStages {
    job: SmolStr,
    pub(super) journal: Journal,
    /// The pool is to be told of once its room lasts for less.
    warn_below: Option<Duration>,
    card_endurance: Option<u64>,
    pub(super) health: Arc<Health>,
    arrival: ArrivalClock,
    catch_ups: CatchUps,
    failures: Failures,
    pub(super) stalls: Stalls,
    versions: Versions,
    certificates: Vec<(String, TlsFiles)>,
    stages: Mutex<Stages>,
}

#[derive(Debug, Default)]
pub(super) struct Stages {
    sources: Vec<(SmolStr, Arc<SourceStats>)>,
    pub outputs: Vec<OutputHandle>,
    pub scorers: Vec<Scorer>,
    pub references: Vec<Reference>,
    pub functions: Vec<(String, Arc<Stats>)>,
}

/// A few numbers for a status line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// events and bad payloads that came in
    pub received: u64,
    /// rows an endpoint answered
    pub scored: u64,
    /// rows that outputs took
    pub delivered: u64,
    /// events stored that the slowest consumer has not finished
    pub pending: u64,
    pub dead_letters: u64,
    pub pool_bytes: u64,
    /// what keeps the job from doing all of its work just now
    pub trouble: Vec<String>,
}

impl WatchedStages {
    pub fn new(
        job: &Job,
        journal: Journal,
        clock: &Clock,
        health: Arc<Health>,
        arrival: ArrivalClock,
        functions: &[FunctionBinding],
        versions: Versions,
    ) -> WatchedStages {
        let functions = functions.iter().map(|f| (f.name.clone(), f.stats.clone())).collect();
        WatchedStages {
            job: SmolStr::new(&job.name),
            failures: Failures::of(&job.path, &journal.ledger(), clock.monotonic()),
            stalls: Stalls::new(job.metrics.stalled_after),
            journal,
            warn_below: job.journal.warn_below,
            card_endurance: job.journal.card_endurance,
            health,
            arrival,
            catch_ups: CatchUps::default(),
            versions,
            certificates: reloads::certificates(job),
            stages: Mutex::new(Stages { functions, ..Stages::default() }),
        }
    }

    /// The job's arrival time.
    pub fn arrival(&self) -> &ArrivalClock {
        &self.arrival
    }

    pub fn catch_ups(&self) -> &CatchUps {
        &self.catch_ups
    }

    pub fn failures(&self) -> &Failures {
        &self.failures
    }

    pub fn add_source(&self, name: SmolStr, stats: Arc<SourceStats>) {
        self.with(|s| s.sources.push((name, stats)));
    }

    pub fn add_output(&self, output: OutputHandle) {
        self.with(|s| s.outputs.push(output));
    }

    pub fn add_scorer(&self, scorer: Scorer) {
        self.with(|s| s.scorers.push(scorer));
    }

    /// Looks at the endpoint of a function now, and gives a few seconds later how it stands; `None`: it is in use.
    ///
    /// # Errors
    /// The job has no such function, or it calls no endpoint.
    pub fn retry(&self, function: &str) -> Result<Option<String>, String> {
        let mut named = None;
        let mut names = Vec::new();
        self.with(|stages| {
            named = stages.scorers.iter().find(|scorer| scorer.name().eq_ignore_ascii_case(function)).cloned();
            names.extend(stages.scorers.iter().map(|scorer| scorer.name().to_owned()));
        });
        let scorer = named.ok_or_else(|| match names.is_empty() {
            true => "the job has no function that calls an endpoint".to_owned(),
            false => format!("no function `{function}` calls an endpoint: there are `{}`", names.join("`, `")),
        })?;
        scorer.look_now();
        for _ in 0..RETRY_CHECKS {
            crate::time::pause(RETRY_CHECK);
            if scorer_trouble(&scorer).is_none() {
                return Ok(None);
            }
        }
        Ok(scorer_trouble(&scorer))
    }

    pub fn add_reference(&self, reference: Reference) {
        self.with(|s| s.references.push(reference));
    }

    /// Forgets the stages, so that they can end.
    pub fn release(&self) {
        self.with(|s| *s = Stages::default());
    }

    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Stages) -> T) -> T {
        f(&mut self.stages.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn snapshot(&self) -> Snapshot {
        let ledger = self.journal.ledger();
        let total = |edge: Edge, what: &str| {
            ledger.iter().filter(|(c, _)| c.edge == edge && c.what == what).map(|(_, n)| n).sum()
        };
        let status = self.journal.summary().unwrap_or_default();
        Snapshot {
            received: total(Edge::Input, what::RECEIVED),
            scored: ledger
                .iter()
                .filter(|(c, _)| c.edge == Edge::Statement && c.what == what::EVALUATED && c.name.ends_with("/score"))
                .map(|(_, n)| n)
                .sum(),
            delivered: total(Edge::Output, what::DELIVERED),
            pending: status
                .consumers
                .iter()
                .filter(|c| c.stream == StreamId::INPUTS.0)
                .map(|c| c.pending)
                .max()
                .unwrap_or(0),
            dead_letters: status.dead_letters.letters,
            pool_bytes: status.used_bytes,
            trouble: self.not_ready(),
        }
    }

    pub fn report(&self) -> Report {
        let mut samples = Vec::new();
        self.ledger_samples(&mut samples);
        let mut degraded = self.degraded();
        match self.journal.summary() {
            Ok(status) => {
                let now = self.arrival.now().at;
                let mut status = self.journal.with_oldest(status.with_card(self.card_endurance), now);
                self.with(|s| s.outputs.iter().for_each(|o| status.note_delivery(o.name(), o.stats().delivered_at())));
                pool::samples(&self.job, &status, self.journal.is_full(), &mut samples);
                degraded.extend(pool::degraded(&self.journal, &status, self.warn_below));
            }
            Err(error) => {
                tracing::warn!("the pool's status cannot be read: {error}");
                degraded.push(format!("the pool's status cannot be read: {error}"));
            }
        }
        self.catch_ups.samples(&self.job, &mut samples);
        self.failures.samples(&self.job, &mut samples);
        self.stalls.samples(&self.job, &mut samples);
        reloads::samples(&self.reloads(), &self.job, &mut samples);
        self.stage_samples(&mut samples);
        Report { samples, not_ready: self.not_ready(), degraded }
    }

    /// Why the process should be started anew.
    pub fn sick(&self) -> Vec<String> {
        let refusal = self.journal.refusal().map(|e| e.to_string());
        self.health.fatal().into_iter().chain(refusal).chain(self.stalls.stalled()).collect()
    }

    /// The job goes on with what it has.
    fn degraded(&self) -> Vec<String> {
        let mut found = self.health.amiss();
        found.extend(self.arrival.status().trouble);
        found.extend(self.failures.degraded());
        found.extend(self.journal.alarm().map(|alarm| format!("the pool at the start of this process: {alarm}")));
        self.with(|stages| {
            for reference in &stages.references {
                let (name, status) = (reference.name(), reference.status());
                if let Some(why) = status.not_kept.filter(|_| status.version.is_some()) {
                    found.push(format!("input {name}: its version is not kept for a start offline: {why}"));
                }
            }
        });
        self.with(|stages| found.extend(of_scorers(stages, |scorer| scorer.status().away_since().is_some())));
        found.extend(reloads::degraded(self.reloads()));
        found
    }

    fn reloads(&self) -> Vec<Renewal> {
        self.with(|s| reloads::all(self.health.noted(), &self.versions, &s.references, &self.certificates))
    }

    /// What a person who looks at `/readyz` wants to know.
    fn not_ready(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.health.fatal().into_iter().collect();
        problems.extend(self.health.stopped());
        problems.extend(self.stalls.stalled());
        problems.extend(pool::full(&self.journal));
        problems.extend(self.health.state.alarm());
        self.with(|stages| {
            for (name, stats) in &stages.sources {
                match stats.alarm() {
                    Some(alarm) => problems.push(format!("input {name}: {alarm}")),
                    None if !stats.is_connected() => problems.push(format!("input {name}: not connected yet")),
                    None => {}
                }
            }
            for reference in &stages.references {
                let status = reference.status();
                if status.version.is_none() {
                    let why = status.trouble.map_or_else(String::new, |why| format!(": {why}"));
                    problems.push(format!(
                        "input {}: not loaded yet, the statements that join with it wait{why}",
                        reference.name()
                    ));
                }
            }
            problems
                .extend(stages.outputs.iter().filter_map(|o| Some(format!("output {}: {}", o.name(), o.trouble()?))));
            problems.extend(of_scorers(stages, |scorer| scorer.status().away_since().is_none()));
        });
        problems
    }

    fn ledger_samples(&self, samples: &mut Vec<Sample>) {
        for (counter, value) in self.journal.ledger().iter() {
            let Some((name, help, label)) = ledger_metric(counter.edge, &counter.what) else { continue };
            let mut labels = vec![("job", self.job.to_string())];
            if !counter.name.is_empty() {
                labels.push((label, counter.name.to_string()));
            }
            if !counter.reason.is_empty() {
                labels.push(("reason", counter.reason.to_string()));
            }
            samples.push(Sample { name, help, kind: SampleKind::Counter, labels, value: value as f64 });
        }
    }

    fn stage_samples(&self, samples: &mut Vec<Sample>) {
        use SampleKind::{Counter, Gauge};
        let mut add = |name, help, kind, labels: &[(&'static str, &str)], value: f64| {
            let labels = [("job", self.job.as_str())]
                .iter()
                .chain(labels)
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect();
            samples.push(Sample { name, help, kind, labels, value });
        };
        let clock = self.arrival.status();
        let is_trusted = f64::from(u8::from(clock.trouble.is_none()));
        add("clock_trusted", "1 while arrival time goes by the machine's clock", Gauge, &[], is_trusted);
        let offset = "the machine's clock minus arrival time";
        add("clock_offset_seconds", offset, Gauge, &[], clock.offset_seconds);
        for (part, bytes) in self.health.state.parts() {
            add(
                "state_bytes",
                "bytes of state that a statement holds",
                Gauge,
                &[("statement", part.as_str())],
                bytes as f64,
            );
        }
        add("state_bytes_max", "what all statements together may hold", Gauge, &[], self.health.state.max() as f64);
        let waits = f64::from(u8::from(self.health.state.alarm().is_some()));
        add("state_full", "1 while intake waits because statements hold too much", Gauge, &[], waits);
        let stopped = self.health.stopped().len() as f64;
        add("statements_stopped", "parts of statements that stopped; /readyz says why", Gauge, &[], stopped);
        let n = |value: &AtomicU64| value.load(Ordering::Relaxed) as f64;
        self.with(|stages| {
            for (name, s) in &stages.sources {
                let of = [("input", name.as_str())];
                add(
                    "source_connected",
                    "1 while the broker has accepted the connection and the subscription",
                    Gauge,
                    &of,
                    f64::from(u8::from(s.is_connected())),
                );
                add("source_connects", "connections made", Counter, &of, n(&s.connects));
                add("source_disconnects", "connections lost", Counter, &of, n(&s.disconnects));
                add("source_resubscribed", "times the broker had lost the session", Counter, &of, n(&s.resubscribed));
                add(
                    "source_unmatched",
                    "messages of topics that the job does not name any more",
                    Counter,
                    &of,
                    n(&s.unmatched),
                );
                add("source_unacked_bytes", "bytes received and not yet stored", Gauge, &of, n(&s.unacked_bytes));
            }
            for output in &stages.outputs {
                let (of, s) = ([("output", output.name().as_str())], output.stats());
                add("output_connects", "connections made, files opened", Counter, &of, n(&s.opened));
                let failed = "deliveries that ended with rows unconfirmed";
                add("output_failed_attempts", failed, Counter, &of, n(&s.failed_attempts));
                let unheard = "rows delivered to a broker that had no subscriber for them";
                add("output_without_subscriber", unheard, Counter, &of, n(&s.without_subscriber));
            }
            for scorer in &stages.scorers {
                let (of, s) = ([("function", scorer.name())], scorer.status());
                let gauge = |value: &AtomicI64| value.load(Ordering::Relaxed) as f64;
                add("score_requests", "requests sent to the endpoint", Counter, &of, n(&s.requests));
                add("score_rows", "rows answered", Counter, &of, n(&s.rows));
                add("score_failed_rows", "rows that got no result", Counter, &of, n(&s.failed_rows));
                add("score_away_rows", "rows given to the fallback", Counter, &of, n(&s.away_rows));
                let is_away = f64::from(u8::from(s.away_since().is_some()));
                add("score_away", "1 while the fallback answers", Gauge, &of, is_away);
                add("score_nan_results", "results that are no number", Counter, &of, n(&s.nan_results));
                add("score_waiting_rows", "rows handed in and not answered", Gauge, &of, gauge(&s.waiting_rows));
                add("score_failed_requests", "requests that did not give results", Counter, &of, n(&s.failed_requests));
                add("score_in_flight", "requests under way", Gauge, &of, gauge(&s.in_flight));
                add("score_parallel", "requests that may be under way just now", Gauge, &of, gauge(&s.parallel));
                add(
                    "score_ready",
                    "1 while the endpoint answers",
                    Gauge,
                    &of,
                    f64::from(u8::from(scorer_trouble(scorer).is_none())),
                );
            }
            for reference in &stages.references {
                let (of, s) = ([("input", reference.name().as_str())], reference.status());
                let is_current = s.trouble.is_none() && s.version.is_some();
                add(
                    "reference_current",
                    "1 while the newest data could be loaded",
                    Gauge,
                    &of,
                    f64::from(u8::from(is_current)),
                );
                add(
                    "reference_kept",
                    "1 while the version in use is in the pool",
                    Gauge,
                    &of,
                    f64::from(u8::from(s.not_kept.is_none() && s.version.is_some())),
                );
                add("reference_loads", "versions of reference data taken into use", Counter, &of, s.loads as f64);
                add(
                    "reference_failures",
                    "attempts to load reference data that gave none",
                    Counter,
                    &of,
                    s.failures as f64,
                );
                if let Some(version) = &s.version {
                    add("reference_rows", "rows of the version in use", Gauge, &of, version.rows.len() as f64);
                    let loaded = version.loaded_at.unix_millis() as f64 / 1e3;
                    add(
                        "reference_loaded_seconds",
                        "when the version in use was loaded, seconds since 1970",
                        Gauge,
                        &of,
                        loaded,
                    );
                }
            }
            for (name, s) in self.versions.statuses() {
                for (outcome, n) in [("swapped", s.swapped), ("refused", s.refused), ("put_back", s.put_back)] {
                    let labels = [("function", name.as_str()), ("outcome", outcome)];
                    add(
                        "udf_swaps",
                        "new versions of a function's file, by what became of them",
                        Counter,
                        &labels,
                        n as f64,
                    );
                }
            }
            for (name, s) in &stages.functions {
                let of = [("function", name.as_str())];
                add("udf_calls", "calls of a function", Counter, &of, s.calls() as f64);
                add("udf_seconds", "time spent in a function's calls", Counter, &of, s.nanos() as f64 / 1e9);
                add("udf_memory_bytes_max", "largest memory an instance had", Gauge, &of, s.memory_bytes_max() as f64);
                let (written, dropped) = s.log_lines();
                for (fate, lines) in [("written", written), ("dropped", dropped)] {
                    let labels = [("function", name.as_str()), ("fate", fate)];
                    add(
                        "udf_log_lines",
                        "lines a function logged, and those past its rate",
                        Counter,
                        &labels,
                        lines as f64,
                    );
                }
                for (reason, failures) in s.failures() {
                    add(
                        "udf_failures",
                        "calls that gave a row error",
                        Counter,
                        &[("function", name.as_str()), ("reason", reason)],
                        failures as f64,
                    );
                }
            }
        });
    }
}

/// The troubles of some of the endpoints.
fn of_scorers(stages: &Stages, which: fn(&Scorer) -> bool) -> Vec<String> {
    let scorers = stages.scorers.iter().filter(|scorer| which(scorer));
    scorers.filter_map(|s| Some(format!("function {}: {}", s.name(), scorer_trouble(s)?))).collect()
}

fn scorer_trouble(scorer: &Scorer) -> Option<String> {
    let last = || scorer.status().last_error().map(|e| format!(" ({e})")).unwrap_or_default();
    let stand_in = scorer.fallback().zip(scorer.status().away_since());
    let rows = match stand_in {
        Some((fallback, _)) => format!("rows are answered by {}", fallback.shown()),
        None => "rows wait".to_owned(),
    };
    let state = scorer.status().state();
    let until = state.long_pause(Clock::Real.now());
    let till = until.map(|until| format!(", looked at again at {until}")).unwrap_or_default();
    match state {
        // it is about to be looked at
        State::Ready => stand_in.map(|(_, since)| format!("away since {since}, {rows}")),
        State::UnknownSignature => Some(format!("its signature is not known yet, {rows}{}", last())),
        State::BackingOff { since, outage, .. } => {
            Some(format!("{} since {since}{till}, {rows}{}", outage.words(), last()))
        }
        State::Paused { reason, remedy, .. } if stand_in.is_some() => {
            Some(format!("paused: {reason}; {remedy}; {rows}{}", last()))
        }
        State::Paused { reason, remedy, .. } => Some(format!("paused: {reason}; {remedy}{}", last())),
        State::Failed { why } => Some(why),
    }
}

/// The metric of a ledger entry: name, help, and the label that says whose it is.
fn ledger_metric(edge: Edge, counted: &str) -> Option<(&'static str, &'static str, &'static str)> {
    Some(match (edge, counted) {
        (Edge::Input, what::RECEIVED) => ("input_received", "events and bad payloads that came in", "input"),
        (Edge::Input, what::STORED) => ("input_stored", "events stored", "input"),
        (Edge::Input, what::UNDECODABLE) => {
            ("input_undecodable", "payloads, or parts of them, that are no events", "input")
        }
        (Edge::Input, what::DROPPED) => ("input_dropped", "events dropped, by reason", "input"),
        (Edge::Input, "redelivered") => {
            ("source_redelivered", "messages the broker sent again that were stored already", "input")
        }
        (Edge::Input, "redelivered_possible") => (
            "source_redelivered_possible",
            "messages the broker sent again, stored because nothing tells them from new ones",
            "input",
        ),
        (Edge::Input, "lost_qos0") => ("source_lost_qos0", "messages with QoS 0 that could not be stored", "input"),
        (Edge::Consumer, what::READ) => ("consumer_read", "records a consumer has read", "consumer"),
        (Edge::Consumer, what::SKIPPED) => {
            ("consumer_skipped", "records a consumer was moved past, by reason", "consumer")
        }
        (Edge::Consumer, what::IN_HAND) => {
            ("consumer_in_hand", "records a consumer had in hand when it was moved past them, by reason", "consumer")
        }
        (Edge::Consumer, what::SETTLED) => {
            ("consumer_settled", "of consumer_in_hand: those that are read or skipped by now", "consumer")
        }
        (Edge::Consumer, what::GIVEN) => {
            ("consumer_given", "of consumer_read: records that a statement or an output took", "consumer")
        }
        (Edge::Consumer, what::PASSED) => {
            ("consumer_passed", "of consumer_read: records that were passed, by reason", "consumer")
        }
        (Edge::Statement, what::ROWS_IN) => ("statement_rows_in", "rows a statement was given", "statement"),
        (Edge::Statement, what::FILTERED) => ("statement_filtered", "rows a WHERE left out", "statement"),
        (Edge::Statement, what::FAILED) => ("statement_failed", "rows that failed, by reason", "statement"),
        (Edge::Statement, what::EVALUATED) => ("statement_evaluated", "rows that were evaluated", "statement"),
        (Edge::Statement, what::ANSWERED_LOCALLY) => {
            ("statement_answered_locally", "rows that a fallback answered in place of an endpoint", "statement")
        }
        (Edge::Statement, what::NOT_CALLED) => {
            ("statement_not_called", "rows whose evaluation does not reach the call of an endpoint", "statement")
        }
        (Edge::Statement, what::ROWS_OUT) => ("statement_rows_out", "rows a statement gave", "statement"),
        (Edge::Statement, what::HELD) => ("statement_held", "rows that began to wait for earlier ones", "statement"),
        (Edge::Statement, what::RELEASED) => {
            ("statement_released", "rows that no longer wait for earlier ones", "statement")
        }
        (Edge::Statement, "adjusted") => ("statement_adjusted", "rows whose event time a policy moved", "statement"),
        (Edge::Statement, "nulled") => {
            ("statement_nulled", "expressions that NULL stands in for, by reason", "statement")
        }
        (Edge::Statement, "failed_derived") => {
            ("statement_failed_derived", "failed rows that the query itself had made, by reason", "statement")
        }
        (Edge::Output, what::ROWS_IN) => ("output_rows_in", "rows an output was given", "output"),
        (Edge::Output, what::DELIVERED) => ("output_delivered", "rows the receiver confirmed", "output"),
        (Edge::Output, what::DEAD_LETTERED) => ("output_dead_lettered", "rows the receiver refused", "output"),
        (Edge::Output, what::DROPPED) => ("output_dropped", "rows dropped, by reason", "output"),
        (Edge::DeadLetters, what::STORED) => ("dead_letters_stored", "dead letters ever stored", "table"),
        (Edge::DeadLetters, what::DROPPED) => ("dead_letters_dropped", "dead letters dropped, by reason", "table"),
        _ => return None,
    })
}

//! What an answer does to the desk: the endpoint's gate, the batch, the rows.
//!
//! In: the answer to one request. Out: decided rows, a changed gate, events. Invariant: every row of the request ends
//! in one outcome or waits again. Not here: sending.

use std::time::Duration;

use crate::value::{Record, Value};

use super::super::absence::Absence;
use super::super::batch::{NextSend, Reaction};
use super::super::breaker::Cause;
use super::super::policy::{Answered, Blocked, Class, Details, Outage, RETRIES_BUSY, TOO_SLOW, classify};
use super::super::queue::{RowQueue, RowRef};
use super::super::{Failure, KEPT_MAX, NanPolicy, Outcome, clipped};
use super::{Answer, BYTES_MIN, Desk, DeskEvent, Flight};

/// Full batches scored in a row before a lowered row limit is doubled.
const GROW_AFTER: u32 = 8;
/// After this time an endpoint was away, and not only busy or cut off for a moment.
const OUTAGE: Duration = Duration::from_secs(2);
/// This long after rows were scored that had failed, a model is taken for one that fails at random.
const FLAKY_FOR: Duration = Duration::from_secs(600);
/// Looks at other rows at once, before looking only now and then.
const LOOKS_AT_ONCE: u32 = 3;

impl Desk {
    /// Takes the answer to a request. `random` is in `[0, 1)`.
    pub fn answered(&mut self, now: Duration, id: u64, answer: Answer, random: f64) {
        self.random = random;
        self.take_answer(now, id, answer, random);
        self.note_absence(now);
    }

    fn take_answer(&mut self, now: Duration, id: u64, answer: Answer, random: f64) {
        let full = self.flights.len() >= self.parallel.now() as usize;
        let Some(flight) = self.flights.remove(&id) else { return };
        let class = classify(self.rules.mode, answer.outcome);
        if class == Class::Done {
            let others = !self.flights.is_empty();
            self.absence.iter_mut().for_each(|absence| absence.scored(now, others));
        }
        if class == Class::FailJob {
            return self.fail(&answer.details);
        }
        if let Flight::Look { row, generation } = flight {
            if class == Class::Done && generation == self.generation {
                self.proven = Some(row);
            }
            return self.looked(now, id, class, &answer, random);
        }
        let (is_late, is_probe) = (self.gate.is_late(id), self.gate.is_probe(id));
        self.heed(now, id, class, &answer, random, full);
        let batch = match &flight {
            Flight::Piece { batch, .. } | Flight::AskModel { batch } => *batch,
            Flight::Look { .. } => return,
        };
        let Some(open) = self.batches.get_mut(&batch) else { return };
        open.flying = false;
        match (flight, class) {
            (Flight::Piece { .. }, Class::Done) => self.scored(now, batch, answer.values),
            (Flight::Piece { bytes, .. }, class) => self.piece_failed(now, batch, class, &answer, bytes, random),
            (_, Class::Done) => {
                let bad = open.batch.model_works();
                self.condemn(batch, bad);
            }
            (_, class @ (Class::Isolate { .. } | Class::TooSlow | Class::TooLarge)) => {
                open.batch.model_fails();
                match is_silence(class, answer.outcome) {
                    _ if is_late => {}
                    true => {
                        self.lost_since.get_or_insert(now);
                        self.suspect();
                        if !is_probe {
                            let silent = Cause::Backoff(Outage::Silent);
                            self.gate.failed(now, id, silent, random, answer.details.retry_after);
                        }
                    }
                    false => self.suspect_model(now, self.slow()),
                }
            }
            (_, Class::Busy | Class::Overloaded) => {
                open.not_before = now + self.rules.pauses.backoff.wait(1, random, None);
            }
            _ => {}
        }
        if is_late && let Some(open) = self.batches.get_mut(&batch) {
            open.batch.doubt();
        }
        // the signature changed while the request was out
        if self.batches.get(&batch).is_some_and(|open| open.generation != self.generation) {
            self.put_back(now, batch);
        } else if self.batches.get_mut(&batch).is_some_and(|open| open.batch.step() == NextSend::Finished) {
            self.batches.remove(&batch);
        }
    }

    /// What an answer means for the endpoint as a whole.
    fn heed(&mut self, now: Duration, id: u64, class: Class, answer: &Answer, random: f64, full: bool) {
        let retry_after = answer.details.retry_after;
        match class {
            Class::Done => {
                match self.gate.is_late(id) {
                    false => self.came_back(now),
                    true if self.away_since().is_some() => self.gate.look_now(now),
                    true => {}
                }
                self.gate.passed(id);
                self.parallel.succeeded(now, id, full, answer.details.took);
            }
            Class::Offline => {
                self.lost_since.get_or_insert(now);
                self.parallel.forget();
                self.gate.failed(now, id, Cause::Backoff(offline(answer.outcome)), random, retry_after);
            }
            Class::Overloaded => {
                let out = self.parallel.now();
                self.parallel.overloaded(now, id);
                // one request too many says nothing against the others, unless the server asks for silence
                let one_too_many = answer.details.status == Some(429) && out > 1 && !self.gate.is_probe(id);
                if !one_too_many || retry_after.is_some() {
                    self.gate.failed(now, id, Cause::Backoff(Outage::Overloaded), random, retry_after);
                }
            }
            Class::KeyRefused => {
                self.events.push(DeskEvent::ReloadKey);
                self.gate.failed(now, id, Cause::Blocked(Blocked::Key), random, retry_after);
            }
            Class::Pause(blocked) => self.gate.failed(now, id, Cause::Blocked(blocked), random, retry_after),
            class if self.gate.is_probe(id) && is_silence(class, answer.outcome) => {
                self.gate.failed(now, id, Cause::Backoff(Outage::Silent), random, None);
            }
            Class::Busy
                if self.gate.is_probe(id)
                    && self.gate.closed().is_some_and(|c| c.cause == Cause::Blocked(Blocked::Busy)) =>
            {
                self.gate.failed(now, id, Cause::Blocked(Blocked::Busy), random, retry_after);
            }
            // its rows were given away meanwhile: only a scored row ends that, so the next request is a look
            Class::Isolate { .. } | Class::TooLarge | Class::Busy if self.away_since().is_some() => {
                self.gate.failed(now, id, Cause::Backoff(Outage::Failing), random, retry_after);
            }
            Class::Isolate { .. } | Class::TooLarge | Class::Busy => self.gate.passed(id),
            Class::TooSlow | Class::FailJob => {}
        }
    }

    /// The endpoint answers. After an outage others come back in the same moment, and it may be another one now.
    fn came_back(&mut self, now: Duration) {
        if self.lost_since.take().is_some_and(|since| now >= since + OUTAGE) {
            self.parallel.restart();
        }
        if self.absence.as_mut().is_some_and(Absence::end) {
            (self.must_look, self.looks) = (false, 0);
        }
    }

    fn scored(&mut self, now: Duration, id: u64, values: Vec<Value>) {
        let Some(open) = self.batches.get_mut(&id) else { return };
        let NextSend::Send(range) = open.batch.step() else { return };
        if open.generation == self.generation {
            self.proven = open.encoded.get(range.start).cloned();
        }
        let is_full = range.len() >= self.rows_now;
        let rows: Vec<RowRef> = open.rows.get(range).unwrap_or_default().to_vec();
        let bad = open.batch.scored();
        if open.batch.is_flaky() {
            self.flaky_until = Some(now + FLAKY_FOR);
        }
        self.condemn(id, bad);
        for (row, value) in rows.into_iter().zip(values) {
            let outcome = self.result(value);
            self.decide(row, outcome);
        }
        if is_full && self.rows_now < self.rules.max_rows {
            self.full_batches += 1;
            if self.full_batches >= GROW_AFTER {
                (self.full_batches, self.rows_now) = (0, (self.rows_now * 2).min(self.rules.max_rows));
            }
        }
    }

    fn result(&mut self, value: Value) -> Outcome {
        if is_finite(&value) {
            return Outcome::Scored(value);
        }
        self.nan_results += 1;
        match self.rules.nan {
            NanPolicy::Null => Outcome::Scored(without_nan(&value)),
            NanPolicy::DeadLetter => Outcome::Failed(Box::new(Failure {
                reason: "nan_result",
                message: "the model's result is not a finite number, or holds one that is not".into(),
                status: Some(200),
                response: clipped(&format!("{value:?}"), KEPT_MAX),
                ..Failure::default()
            })),
        }
    }

    fn piece_failed(&mut self, now: Duration, id: u64, class: Class, answer: &Answer, bytes: usize, random: f64) {
        let (details, form) = (&answer.details, self.form.clone());
        let Some(open) = self.batches.get_mut(&id) else { return };
        let attempts = open.batch.attempts();
        let (encoded, generation) = (&open.encoded, open.generation == self.generation);
        let failure = |reason: &'static str| {
            let request = |i: usize| match (encoded.get(i), &form) {
                (Some(row), Some(form)) if generation => form.body(std::iter::once(row)),
                _ => String::new(),
            };
            move |i: usize| Failure::of_answer(reason, details, attempts, clipped(&request(i), KEPT_MAX))
        };
        let reaction = match class {
            Class::Isolate { retries, reason } => open.batch.failed(retries, failure(reason)),
            Class::TooSlow => open.batch.too_slow(failure(TOO_SLOW)),
            Class::TooLarge => open.batch.too_large(failure("too_large")),
            Class::Busy => open.batch.busy(RETRIES_BUSY),
            // 429 without a closed gate: these rows alone step back
            Class::Overloaded if self.gate.closed().is_none() => Reaction::Again(attempts.max(1)),
            _ => return,
        };
        if class == Class::TooLarge {
            self.bytes_now = self.bytes_now.min((bytes / 2).max(BYTES_MIN));
        }
        match reaction {
            Reaction::Again(failures) => {
                open.not_before = now + self.rules.pauses.backoff.wait(failures, random, details.retry_after)
            }
            Reaction::Next => {}
            Reaction::Fewer(rows) => (self.rows_now, self.full_batches) = (self.rows_now.min(rows.max(1)), 0),
            Reaction::Bad(row, failure) => self.condemn(id, vec![(row, *failure)]),
            Reaction::GiveUp => self.gate.close(now, Cause::Blocked(Blocked::Busy), self.slow()),
        }
    }

    /// The answer to a look: only a scored row opens the gate again.
    fn looked(&mut self, now: Duration, id: u64, class: Class, answer: &Answer, random: f64) {
        if class == Class::Done {
            (self.must_look, self.looks) = (false, 0);
            self.came_back(now);
            return self.gate.open();
        }
        self.looks = self.looks.saturating_add(1);
        let asked = answer.details.retry_after;
        match class {
            Class::Busy => return self.gate.failed(now, id, Cause::Blocked(Blocked::Busy), random, asked),
            Class::Isolate { .. } | Class::TooLarge if !is_silence(class, answer.outcome) => {}
            // it says nothing about rows
            _ => return self.heed(now, id, class, answer, random, false),
        }
        let at_once = self.proven.is_none() && self.looks < LOOKS_AT_ONCE && class != Class::TooLarge;
        let wait = if at_once { Duration::ZERO } else { self.slow().max(asked.unwrap_or_default()) };
        if self.gate.is_probe(id) {
            self.gate.close(now, Cause::Blocked(Blocked::Model), wait);
        }
        if !at_once {
            self.events.push(DeskEvent::Refetch);
        }
    }

    fn fail(&mut self, details: &Details) {
        let status = details.status.map_or(String::from("no answer"), |s| format!("status {s}"));
        let why = format!("{status}: {}", details.text);
        self.failed = Some(why.clone());
        // nobody waits for it to come back
        self.absence = None;
        self.queue = RowQueue::new(self.rules.unstored_max);
        self.batches.clear();
        self.flights.clear();
        self.events.push(DeskEvent::Failed(why));
    }
}

/// What an endpoint is that cannot be used now and will be.
fn offline(outcome: Answered) -> Outage {
    match outcome {
        Answered::Unreachable => Outage::NoConnection,
        Answered::Closed | Answered::TimedOut => Outage::Silent,
        Answered::Portal => Outage::Intercepted,
        _ => Outage::Failing,
    }
}

/// Whether the endpoint said nothing: it hangs, or ends connections.
fn is_silence(class: Class, outcome: Answered) -> bool {
    class == Class::TooSlow || (outcome == Answered::Closed && matches!(class, Class::Isolate { .. }))
}

/// Whether all floats are, at any depth. Results are not nested deeper than `response` lets them be.
fn is_finite(value: &Value) -> bool {
    match value {
        Value::Float(f) => f.is_finite(),
        Value::Array(items) => items.iter().all(is_finite),
        Value::Record(record) => record.iter().all(|(_, value)| is_finite(value)),
        _ => true,
    }
}

/// The value with NULL for every float that is not finite, at any depth.
fn without_nan(value: &Value) -> Value {
    match value {
        Value::Float(f) if !f.is_finite() => Value::Null,
        Value::Array(items) => Value::array(items.iter().map(without_nan).collect()),
        Value::Record(record) => Value::record(Record::from_unique(
            record.iter().map(|(name, value)| (name.clone(), without_nan(value))).collect(),
        )),
        other => other.clone(),
    }
}

//! What every consumer of the journal has in common.
//!
//! In: results of an executor. Out: ledger entries and dead letters. Invariant: a row that an executor read is in
//! exactly one counter. Not here: reading, executing, delivering.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;

use super::PipelineError;
use super::failures::Failures;
use super::stop::Stop;
use crate::arrival::ArrivalClock;
use crate::batch::{Batch, Column, Reason, RowMeta, Rows, write_row_json};
use crate::engine::{Counts, EngineError, FailedBody, FailedRow, UntimelyEvent};
use crate::journal::{ConsumerId, Counter, DeadLetter, Edge, LetterOrigin};
use crate::time::Clock;
use crate::value::Value;

/// A consumer's place in the job.
#[derive(Clone, Debug)]
pub struct Flow {
    pub consumer: ConsumerId,
    /// As the journal and the ledger name it.
    pub consumer_name: SmolStr,
    /// The statement it belongs to, as counters and row ids name it.
    pub statement: SmolStr,
    /// Columns of the rows it gives.
    pub columns: Arc<[Column]>,
    /// Tells under which text of the query a row failed.
    pub query_version: SmolStr,
    pub stop: Stop,
    pub clock: Clock,
    /// By which time passes for windows.
    pub arrival: ArrivalClock,
    /// Is told of rows that fail.
    pub failures: Failures,
    /// A test takes the parts round by round: they wait for nothing.
    pub is_driven: bool,
}

impl Flow {
    /// How long a part looks for an answer that was asked for. A test waits for it, however busy the machine is.
    pub fn patience_for_answers(&self, longest: Duration) -> Duration {
        if self.is_driven { Duration::from_secs(20) } else { longest }
    }

    /// How long a part waits for what comes.
    pub fn patience(&self, longest: Duration) -> Duration {
        if self.is_driven { Duration::ZERO } else { longest }
    }

    /// Sleeps, but not past the word to stop; answers whether it was given. By the clock of a test no time passes.
    pub fn sleep(&self, pause: Duration) -> bool {
        match self.clock {
            Clock::Real => self.stop.sleep(pause),
            Clock::Manual(_) => self.stop.is_set(),
        }
    }

    /// Tells of an event that the early or the late rule dropped.
    pub fn tell_untimely(&self, first: Option<&UntimelyEvent>) {
        first.into_iter().for_each(|first| self.failures.note_untimely(&self.statement, first));
    }

    /// A counter of the consumer.
    pub fn of_consumer(&self, what: &'static str) -> Counter {
        Counter::new(Edge::Consumer, self.consumer_name.clone(), what)
    }

    fn counter(&self, what: &'static str) -> Counter {
        Counter::new(Edge::Statement, self.statement.clone(), what)
    }

    /// What the ledger learns of one stretch of work. `held` is how many rows waited for earlier ones before it, and
    /// becomes how many do now.
    pub fn counts(&self, counts: &Counts, held: &mut u64, waiting: u64) -> Vec<(Counter, u64)> {
        let statement = |what: &'static str, n: u64| (self.counter(what), n);
        let mut entries = vec![
            statement("rows_in", counts.rows),
            statement("filtered", counts.filtered),
            statement("evaluated", counts.evaluated),
            statement("rows_out", counts.rows_out),
            statement("adjusted", counts.adjusted),
            statement("held", waiting.saturating_sub(*held)),
            statement("released", held.saturating_sub(waiting)),
        ];
        *held = waiting;
        let by_reason = |what: &'static str, reasons: &BTreeMap<Reason, u64>| -> Vec<_> {
            reasons.iter().map(|(reason, n)| (self.counter(what).because(*reason), *n)).collect()
        };
        entries.extend(by_reason("failed", &counts.failed));
        entries.extend(by_reason("failed", &counts.dropped));
        entries.extend(by_reason("failed_derived", &counts.failed_derived));
        entries.extend(by_reason("nulled", &counts.nulled));
        entries.retain(|(_, n)| *n > 0);
        entries
    }

    /// Rows that failed in this statement.
    pub fn letters(&self, failures: Vec<FailedRow>) -> Vec<DeadLetter> {
        let stage = format!("statement {}", self.statement);
        let letters: Vec<DeadLetter> = failures
            .into_iter()
            .map(|failure| {
                let (payload, origin) = match failure.body {
                    FailedBody::Event(event) => (event.payload.to_vec(), Some(LetterOrigin::of_event(&event))),
                    FailedBody::Row(text) => (text.into_bytes(), None),
                };
                DeadLetter {
                    at: failure.meta.arrival,
                    stage: stage_of(&stage, &failure.meta),
                    reason: SmolStr::new_static(failure.reason),
                    message: failure.message,
                    offset: Some(failure.meta.offset),
                    ordinal: failure.meta.ordinal,
                    payload,
                    query_version: self.query_version.clone(),
                    attempts: 1,
                    origin,
                    ..DeadLetter::default()
                }
            })
            .collect();
        self.failures.note(&letters);
        letters
    }

    /// Rows that an output refused.
    pub fn rejected(&self, output: &str, rows: &Rows, refused: Vec<(usize, String)>) -> Vec<DeadLetter> {
        let letters: Vec<DeadLetter> = refused
            .into_iter()
            .filter_map(|(i, message)| {
                let meta = rows.batch.meta().get(i)?;
                let mut payload = String::new();
                write_row_json(&rows.columns, rows.batch.row(i), &mut payload);
                Some(DeadLetter {
                    at: self.clock.now(),
                    stage: stage_of(&format!("output {output}"), meta),
                    reason: SmolStr::new_static("rejected"),
                    message,
                    offset: Some(meta.offset),
                    ordinal: meta.ordinal,
                    payload: payload.into_bytes(),
                    query_version: self.query_version.clone(),
                    attempts: 1,
                    origin: Some(LetterOrigin::Finished {
                        statement: self.statement.clone(),
                        rows: one_row(&rows.columns, meta, rows.batch.row(i)),
                    }),
                    ..DeadLetter::default()
                })
            })
            .collect();
        self.failures.note(&letters);
        letters
    }

    /// The error of a statement whose policy is to stop.
    pub fn stopped(&self, failure: &FailedRow) -> PipelineError {
        PipelineError::StatementStopped {
            statement: self.statement.clone(),
            offset: failure.meta.offset,
            message: failure.message.clone(),
        }
    }

    /// The error of a statement whose policy is to stop at a row that its endpoint refuses.
    pub fn refused(&self, meta: &RowMeta, message: &str) -> PipelineError {
        PipelineError::StatementStopped {
            statement: self.statement.clone(),
            offset: meta.offset,
            message: message.to_owned(),
        }
    }

    /// The error of a statement whose endpoint ended it (mode `asa`).
    pub fn ended(&self, why: &str) -> PipelineError {
        PipelineError::ScoringEnded { statement: self.statement.clone(), why: why.to_owned() }
    }
}

/// A stage as dead letters name it. A row is one letter of a stage, so what is made of its correction has a name of its
/// own: the first answer may have left one too.
pub fn stage_of(stage: &str, meta: &RowMeta) -> SmolStr {
    match meta.provenance.is_correction {
        true => SmolStr::new(format!("{stage} (correction)")),
        false => SmolStr::new(stage),
    }
}

/// One row alone.
pub fn one_row(columns: &Arc<[Column]>, meta: &RowMeta, row: &[Value]) -> Rows {
    let mut batch = Batch::with_capacity(row.len(), 1);
    batch.push(*meta, row.iter().cloned());
    Rows { columns: columns.clone(), batch }
}

/// The error of a part whose stored state cannot be taken back; its name begins with that of its statement.
pub fn state_damaged(part: &SmolStr, reason: &impl ToString) -> PipelineError {
    let statement = part.split_once('/').map_or(part.as_str(), |(statement, _)| statement);
    PipelineError::StateDamaged { statement: SmolStr::new(statement), reason: reason.to_string() }
}

/// The error of a part that the engine cannot run.
pub fn engine(statement: &SmolStr, error: &EngineError) -> PipelineError {
    PipelineError::Function { name: statement.clone(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Provenance, ScoredBy};
    use crate::diagnostic::Span;
    use crate::journal::ConsumerId;
    use crate::time::Timestamp;

    #[test]
    fn a_correction_that_fails_is_another_letter_than_its_first_answer() {
        let first = RowMeta::new(Timestamp::MIN, Timestamp::MIN, 7, 1);
        let provenance = Provenance { scored_by: ScoredBy::Endpoint, is_correction: true };
        let correction = RowMeta { provenance, ..first };
        let flow = Flow {
            consumer: ConsumerId(1),
            consumer_name: SmolStr::new("statement out"),
            statement: SmolStr::new("out"),
            columns: Arc::from([]),
            query_version: SmolStr::default(),
            stop: Stop::default(),
            clock: Clock::Real,
            arrival: ArrivalClock::new(Clock::Real, Timestamp::MIN),
            failures: Failures::default(),
            is_driven: false,
        };
        let failed = |meta| FailedRow {
            meta,
            position: 7,
            reason: "udf_trap",
            message: String::new(),
            body: FailedBody::Row(String::new()),
            span: Span::default(),
        };
        let letters = flow.letters(vec![failed(first), failed(correction)]);
        let known: Vec<_> =
            letters.iter().map(|letter| (letter.stage.as_str(), letter.offset, letter.ordinal)).collect();
        assert_eq!(known, [("statement out", Some(7), 1), ("statement out (correction)", Some(7), 1)]);
        let mut batch = crate::batch::Batch::new(0);
        batch.push(first, []);
        batch.push(correction, []);
        let rows = Rows { columns: Arc::from([]), batch };
        let refused = flow.rejected("o", &rows, vec![(0, String::new()), (1, String::new())]);
        let stages: Vec<_> = refused.iter().map(|letter| letter.stage.as_str()).collect();
        assert_eq!(stages, ["output o", "output o (correction)"]);
    }
}

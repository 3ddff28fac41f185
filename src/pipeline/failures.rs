//! Tells a person of rows and payloads that fail: by stage and reason, once a minute, and where most of a stage fail.
//!
//! In: the ledger, once a second, and dead letters on their way into the journal, for an example. Out: lines in the
//! log, the state of each stage for `/readyz` and `/metrics`. Invariant: each row that failed is in the number of one
//! line, but those of the last minute before a stop; nothing is said while nothing fails. Not here: what counts as most
//! (`failing`), what to do (`remedy`).

mod remedy;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use smol_str::SmolStr;
use tokio_util::sync::CancellationToken;

use super::failing::{FailingStage, FailureTurn, RowTally};
use crate::diagnostic::{Seconds, Thousands};
use crate::engine::UntimelyEvent;
use crate::journal::{DeadLetter, Journal, Ledger};
use crate::telemetry::{Sample, SampleKind};
use crate::time::{Clock, Timestamp};
use remedy::{FailureCause, Stage, StageCounts};

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(1);
/// Between two lines of a stage and reason.
const MINUTE: Duration = Duration::from_secs(60);
/// Of an example; a message may quote an answer.
const EXAMPLE_CHARS: usize = 200;

/// All stages of a job; clones are of the same job.
#[derive(Clone, Debug, Default)]
pub struct Failures(Arc<Mutex<KnownFailures>>);

#[derive(Debug, Default)]
struct KnownFailures {
    /// How a person asks for dead letters of the job.
    command: String,
    stages: BTreeMap<Stage, StageFailures>,
    /// The first failure since the last line, by the stage's name in dead letters and the reason.
    examples: BTreeMap<(SmolStr, SmolStr), String>,
}

#[derive(Debug)]
struct StageFailures {
    rows: FailingStage,
    causes: BTreeMap<FailureCause, CauseCount>,
    /// Why rows failed last.
    latest: FailureCause,
    /// Most rows fail: since when, for which reason last, and one of them.
    begun: Option<(Timestamp, FailureCause, String)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct CauseCount {
    /// At the last look.
    rows: u64,
    untold: u64,
    told: Option<Instant>,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FailureLine {
    stage: String,
    reason: SmolStr,
    rows: u64,
    is_good: bool,
    text: String,
}

impl Failures {
    /// Of a job whose file this is; what failed before is not told.
    pub fn of(job: &Path, ledger: &Ledger, now: Instant) -> Failures {
        let mut known = KnownFailures { command: remedy::command(job), ..KnownFailures::default() };
        for (stage, counts) in remedy::counts(ledger) {
            let rows = FailingStage::new(counts.tally(), now);
            let seen = |rows| CauseCount { rows, ..CauseCount::default() };
            let causes = counts.causes.into_iter().map(|(cause, rows)| (cause, seen(rows))).collect();
            known.stages.insert(stage, StageFailures { rows, causes, latest: FailureCause::default(), begun: None });
        }
        Failures(Arc::new(Mutex::new(known)))
    }

    /// Takes note of dead letters, for an example.
    pub fn note(&self, letters: &[DeadLetter]) {
        if letters.is_empty() {
            return;
        }
        let mut known = self.lock();
        let mut last = None;
        for letter in letters {
            let key = (&letter.stage, &letter.reason);
            if last.replace(key) != Some(key) {
                known.example(&letter.stage, &letter.reason, || letter.message.clone());
            }
        }
    }

    /// Takes note of an event that the early or the late rule dropped, for an example.
    pub fn note_untimely(&self, statement: &str, event: &UntimelyEvent) {
        let UntimelyEvent { reason, input, message, time, arrival } = event;
        self.lock().example(&format!("statement {statement}"), reason, || {
            format!("input {input}, topic {message}, event time {time}, arrival {arrival}")
        });
    }

    /// Looks once a second until it is cancelled.
    pub async fn watch(self, journal: Journal, clock: Clock, ended: CancellationToken) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while ended.run_until_cancelled(ticks.tick()).await.is_some() {
            for FailureLine { stage, reason, rows, is_good, text } in self.look(&journal.ledger(), &clock) {
                match is_good {
                    true => tracing::info!(stage, rows, "{text}"),
                    false => tracing::warn!(stage, %reason, rows, "{text}"),
                }
            }
        }
    }

    fn look(&self, ledger: &Ledger, clock: &Clock) -> Vec<FailureLine> {
        let (now, mut lines, mut known) = (clock.monotonic(), Vec::new(), self.lock());
        let KnownFailures { command, stages, examples } = &mut *known;
        for (stage, counts) in remedy::counts(ledger) {
            let found = stages.entry(stage.clone()).or_insert_with(|| StageFailures {
                rows: FailingStage::new(RowTally::default(), now),
                causes: BTreeMap::new(),
                latest: FailureCause::default(),
                begun: None,
            });
            found.count(&counts);
            let key = |cause: &FailureCause| (stage.in_letters(), cause.reason.clone());
            let line = |cause: &FailureCause, rows, is_good, text| FailureLine {
                stage: stage.to_string(),
                reason: cause.reason.clone(),
                rows,
                is_good,
                text,
            };
            match found.rows.look(now, counts.tally()) {
                Some(FailureTurn::Began(rows)) => {
                    let cause = &found.latest;
                    let example = shown(examples.get(&key(cause)));
                    let what = format!("{}{example}; {}", rows_of(rows, &stage, cause), stage.advice(cause, command));
                    lines.push(line(cause, rows.failed, false, format!("most {} fail: {what}", stage.rows())));
                    found.begun = Some((clock.now(), cause.clone(), example));
                }
                Some(FailureTurn::Over { after, failed }) => {
                    let (after, failed_shown) = (Seconds(after), Thousands(failed));
                    let text = format!("{} go through again after {after}: {failed_shown} failed", stage.rows());
                    let cause = found.begun.take().map_or_else(FailureCause::default, |(_, cause, _)| cause);
                    lines.push(line(&cause, failed, true, text));
                }
                None => {}
            }
            for (cause, count) in &mut found.causes {
                let is_due = count.told.is_none_or(|told| now.saturating_duration_since(told) >= MINUTE);
                if count.untold == 0 || !is_due {
                    continue;
                }
                let rows = std::mem::take(&mut count.untold);
                count.told = Some(now);
                let what = stage.what_failed(cause, rows);
                let example = shown(examples.remove(&key(cause)).as_ref());
                let text = format!("{what}{example}; {}", stage.advice(cause, command));
                lines.push(line(cause, rows, false, text));
            }
        }
        lines
    }

    /// The stages of which most rows fail.
    pub fn degraded(&self) -> Vec<String> {
        let known = self.lock();
        let of = |(stage, found): (&Stage, &StageFailures)| {
            let (since, cause, example) = found.begun.as_ref()?;
            let advice = stage.advice(cause, &known.command);
            // without rows nothing shows that it is over
            let rows = match found.rows.most() {
                Some(rows) => rows_of(rows, stage, cause),
                None => cause.reason.to_string(),
            };
            Some(format!("{stage}: most {} fail since {since}: {rows}{example}; {advice}", stage.rows()))
        };
        known.stages.iter().filter_map(of).collect()
    }

    /// Whether most rows fail, of each stage in which any failed so far.
    pub fn samples(&self, job: &str, samples: &mut Vec<Sample>) {
        for (stage, found) in self.lock().stages.iter().filter(|(_, found)| !found.causes.is_empty()) {
            samples.push(Sample {
                name: "stage_failing",
                help: "1 while most rows of a stage fail",
                kind: SampleKind::Gauge,
                labels: vec![("job", job.to_owned()), ("stage", stage.to_string())],
                value: f64::from(u8::from(found.begun.is_some())),
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, KnownFailures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StageFailures {
    /// Adds what failed since the last look.
    fn count(&mut self, counts: &StageCounts) {
        let mut most: Option<(u64, &FailureCause)> = None;
        for (cause, rows) in &counts.causes {
            let count = self.causes.entry(cause.clone()).or_default();
            let came = rows.saturating_sub(std::mem::replace(&mut count.rows, *rows));
            count.untold += came;
            most = most.max((came > 0).then_some((came, cause)));
        }
        if let Some((_, cause)) = most {
            self.latest = cause.clone();
        }
    }
}

impl KnownFailures {
    fn example(&mut self, stage: &str, reason: &str, text: impl FnOnce() -> String) {
        // of a row that is scored, or a correction, too
        let stage = stage.split(" (").next().unwrap_or_default();
        self.examples.entry((stage.into(), reason.into())).or_insert_with(|| {
            let text = text();
            let mut chars = text.char_indices();
            match chars.nth(EXAMPLE_CHARS) {
                Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
                None => text,
            }
        });
    }
}

fn shown(example: Option<&String>) -> String {
    example.map_or_else(String::new, |example| format!(", first: {example}"))
}

fn rows_of(rows: RowTally, stage: &Stage, cause: &FailureCause) -> String {
    let [failed, all] = [rows.failed, rows.rows()].map(Thousands);
    match rows.through {
        0 => format!("all of the last {all} {} ({})", stage.noun(), cause.reason),
        _ => format!("{failed} of {all} {} in the last minute ({})", stage.noun(), cause.reason),
    }
}

#[cfg(test)]
mod tests;

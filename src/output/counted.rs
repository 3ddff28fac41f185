//! An output with its counts.
//!
//! In: rows of statements. Out: what the output answered. Invariant: each delivery is counted once, and a reason why
//! rows wait is logged once, however long it lasts and whatever other consumers deliver. Not here: delivering.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Change, Delivery, Output, OutputSettings, OutputStats, REPLAY, RowIds, Site, Troubles};
use crate::batch::Rows;
use crate::connections::Connections;
use crate::diagnostic::{Seconds, Thousands};
use crate::time::Clock;

/// Where the rows of statements go, and what became of them.
#[derive(Debug)]
pub struct CountedOutput {
    output: Box<dyn Output>,
    stats: Arc<OutputStats>,
    /// What was logged.
    troubles: Troubles,
    clock: Clock,
    /// Since when rows wait.
    since: Option<Instant>,
    /// Records that wait in the pool, as far as its consumer knows.
    waiting: u64,
}

impl CountedOutput {
    /// Makes the output that a section describes. `identify` gives the name by which the other end is to know us.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub fn build(
        settings: &dyn OutputSettings,
        job: &str,
        identify: &dyn Fn(Option<&str>) -> Result<String, String>,
        connections: &Connections,
        clock: Clock,
    ) -> Result<CountedOutput, String> {
        let stats = Arc::new(OutputStats::default());
        let output = settings.build(Site { job, connections, identify, clock: clock.clone(), stats: stats.clone() })?;
        Ok(CountedOutput { output, stats, troubles: Troubles::default(), clock, since: None, waiting: 0 })
    }

    pub fn stats(&self) -> &Arc<OutputStats> {
        &self.stats
    }

    /// So many records of the pool wait for the next delivery and what follows it.
    pub fn waits(&mut self, records: u64) {
        self.waiting = records;
    }

    /// As [`Output::deliver`]; no rows are delivered at once.
    pub async fn deliver(&mut self, rows: &Rows, ids: RowIds<'_>) -> Delivery {
        if rows.batch.is_empty() {
            return Delivery::Delivered;
        }
        let delivery = self.output.deliver(rows, ids).await;
        self.account(ids.consumer, &delivery, rows.batch.len());
        delivery
    }

    /// As [`Output::tend`].
    pub async fn tend(&mut self) {
        self.output.tend().await;
    }

    /// As [`Output::close`].
    pub async fn close(self) {
        self.output.close().await;
    }

    fn account(&mut self, consumer: &str, delivery: &Delivery, rows: usize) {
        let add = |counter: &AtomicU64, n: usize| counter.fetch_add(n as u64, Ordering::Relaxed);
        let before = self.stats.delivered.load(Ordering::Relaxed);
        match delivery {
            Delivery::Delivered => {
                add(&self.stats.delivered, rows);
            }
            Delivery::Rejected { rows: rejected } => {
                add(&self.stats.delivered, rows - rejected.len().min(rows));
                add(&self.stats.rejected, rejected.len());
            }
            Delivery::TryAgain { .. } | Delivery::Gone { .. } => {
                add(&self.stats.failed_attempts, 1);
            }
        }
        add(&self.stats.settled, 1);
        if self.stats.delivered.load(Ordering::Relaxed) > before {
            self.stats.delivered_at.store(self.clock.now().ticks(), Ordering::Relaxed);
        }
        // a replay waits for as long as a person does, and its rows are still dead letters
        let change = match consumer.starts_with(REPLAY) {
            true => Change::Nothing,
            false => self.troubles.note(consumer, delivery),
        };
        match (change, delivery) {
            (Change::New, Delivery::TryAgain { reason, .. }) => {
                self.since.get_or_insert_with(|| self.clock.monotonic());
                self.stats.told_connected.store(false, Ordering::Relaxed);
                tracing::warn!(to = %self, "{reason}; rows wait in the pool meanwhile");
            }
            (Change::New, Delivery::Gone { reason }) => tracing::warn!(to = %self, "{reason}"),
            (Change::Over, _) => {
                let after = self.since.take().map_or(Duration::ZERO, |since| self.clock.since(since));
                let (after, waited) = (Seconds(after), Thousands(self.waiting));
                tracing::info!(to = %self, "delivering again after {after}: {waited} records waited");
            }
            _ => {}
        }
        if matches!(delivery, Delivery::Delivered | Delivery::Rejected { .. }) {
            self.stats.tell_connected(&self.output);
        }
    }
}

impl fmt::Display for CountedOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.output.fmt(f)
    }
}

//! An output with its counts.
//!
//! In: rows of statements. Out: what the output answered. Invariant: each delivery is counted once, and a reason why
//! rows wait is logged once, however long it lasts and whatever other consumers deliver. Not here: delivering.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Change, Delivery, Output, OutputSettings, OutputStats, RowIds, Site, Troubles};
use crate::batch::Rows;
use crate::connections::Connections;
use crate::time::Clock;

/// Where the rows of statements go, and what became of them.
#[derive(Debug)]
pub struct CountedOutput {
    output: Box<dyn Output>,
    stats: Arc<OutputStats>,
    /// What was logged.
    troubles: Troubles,
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
        let output = settings.build(Site { job, connections, identify, clock, stats: stats.clone() })?;
        Ok(CountedOutput { output, stats, troubles: Troubles::default() })
    }

    pub fn stats(&self) -> &Arc<OutputStats> {
        &self.stats
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
        match (self.troubles.note(consumer, delivery), delivery) {
            (Change::New, Delivery::TryAgain { reason, .. } | Delivery::Gone { reason }) => {
                tracing::warn!(to = %self, "{reason}");
            }
            (Change::Over, _) => tracing::info!(to = %self, "delivering again"),
            _ => {}
        }
    }
}

impl fmt::Display for CountedOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.output.fmt(f)
    }
}

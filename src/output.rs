//! What takes rows out.
//!
//! In: rows of a statement, in order. Out: [`Delivery`]: delivered, try again, or rejected rows. Invariant: a row counts
//! as delivered only when the receiver has confirmed it (a broker by PUBACK, a file as its fsync policy says); until then
//! it stays in the journal and nothing here grows. Rows may be repeated, with the same row id. Not here: cursors, dead
//! letters, the decision when to try again after [`Delivery::TryAgain`] (an output waits by itself before it bothers a
//! receiver anew).

pub mod file;
pub mod mqtt;
mod progress;
pub mod stdout;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use smol_str::SmolStr;

use crate::batch::{RowMeta, Rows, shown, write_row_json};
use crate::source::ConfigError;
use crate::time::Clock;
use crate::value::write_json_text;

pub use file::{FileOutput, FileOutputConfig, Fsync};
pub use mqtt::{MqttOutput, MqttOutputConfig};
pub use stdout::StdoutOutput;

/// The part of row ids that all rows of a delivery share.
#[derive(Clone, Copy, Debug)]
pub struct RowIds<'a> {
    /// Random id of the journal file.
    pub incarnation: &'a str,
    pub statement: &'a str,
}

impl RowIds<'_> {
    /// `incarnation-statement-offset-ordinal`: the same for each repetition of a row, and for no other row.
    pub fn id(&self, row: &RowMeta) -> String {
        format!("{}-{}-{}-{}", self.incarnation, self.statement, row.offset, row.ordinal)
    }
}

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Delivery {
    /// All rows are confirmed.
    Delivered,
    /// All rows are confirmed but these, which the receiver will never take: index in the batch, and why.
    Rejected { rows: Vec<(usize, String)> },
    /// Not all are confirmed: give the same rows again.
    TryAgain { reason: String },
    /// The receiver went away for good (the reader of standard output): there is nothing to wait for.
    Gone { reason: String },
}

/// Where the rows of a statement go.
#[derive(Debug)]
pub struct Output {
    kind: Kind,
    stats: Arc<OutputStats>,
    /// The reason last logged.
    trouble: Option<String>,
}

#[derive(Debug)]
enum Kind {
    Mqtt(Box<MqttOutput>),
    File(Box<FileOutput>),
    Stdout(StdoutOutput),
}

/// Counts since the process started.
#[derive(Debug, Default)]
pub struct OutputStats {
    /// rows confirmed
    pub delivered: AtomicU64,
    /// rows the receiver will never take
    pub rejected: AtomicU64,
    /// deliveries that ended with rows unconfirmed
    pub failed_attempts: AtomicU64,
    /// half-written last lines of an earlier run that were cut off
    pub repaired: AtomicU64,
    /// connections made, files opened
    pub opened: AtomicU64,
}

impl Output {
    /// One message a row to a broker. Connects with the first delivery.
    pub fn mqtt(config: MqttOutputConfig) -> Result<Output, ConfigError> {
        let stats = Arc::new(OutputStats::default());
        let kind = Kind::Mqtt(Box::new(MqttOutput::new(config, stats.clone())?));
        Ok(Output { kind, stats, trouble: None })
    }

    /// One line a row to a file. Opens it with the first delivery; `clock` times the rotation.
    pub fn file(config: FileOutputConfig, clock: Clock) -> Output {
        let stats = Arc::new(OutputStats::default());
        let kind = Kind::File(Box::new(FileOutput::new(config, clock, stats.clone())));
        Output { kind, stats, trouble: None }
    }

    /// One line a row to standard output.
    pub fn stdout(row_id: Option<SmolStr>) -> Output {
        Output { kind: Kind::Stdout(StdoutOutput::new(row_id)), stats: Arc::default(), trouble: None }
    }

    pub fn stats(&self) -> &Arc<OutputStats> {
        &self.stats
    }

    /// Hands rows to the receiver. May wait: for the receiver, and after failures before trying anew. May be dropped while
    /// it waits; then the rows may have been delivered or not.
    pub async fn deliver(&mut self, rows: &Rows, ids: RowIds<'_>) -> Delivery {
        if rows.batch.is_empty() {
            return Delivery::Delivered;
        }
        let delivery = match &mut self.kind {
            Kind::Mqtt(output) => output.deliver(rows, ids).await,
            Kind::File(output) => output.deliver(rows, ids).await,
            Kind::Stdout(output) => output.deliver(rows, ids).await,
        };
        self.account(&delivery, rows.batch.len());
        delivery
    }

    /// Says goodbye to a broker, makes a file durable.
    pub async fn close(self) {
        match self.kind {
            Kind::Mqtt(output) => output.close().await,
            Kind::File(output) => output.close().await,
            Kind::Stdout(_) => {}
        }
    }

    fn account(&mut self, delivery: &Delivery, rows: usize) {
        let add = |counter: &AtomicU64, n: usize| counter.fetch_add(n as u64, Ordering::Relaxed);
        match delivery {
            Delivery::Delivered => {
                add(&self.stats.delivered, rows);
            }
            Delivery::Rejected { rows: rejected } => {
                add(&self.stats.delivered, rows - rejected.len().min(rows));
                add(&self.stats.rejected, rejected.len());
            }
            Delivery::TryAgain { reason } | Delivery::Gone { reason } => {
                add(&self.stats.failed_attempts, 1);
                // once for each reason, however long it lasts
                if self.trouble.as_ref() != Some(reason) {
                    tracing::warn!(output = %self, "{reason}");
                    self.trouble = Some(reason.clone());
                }
                return;
            }
        }
        if self.trouble.take().is_some() {
            tracing::info!(output = %self, "delivering again");
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Mqtt(output) => output.fmt(f),
            Kind::File(output) => output.fmt(f),
            Kind::Stdout(_) => f.write_str("standard output"),
        }
    }
}

/// Appends row `i` as a JSON object, with the row id as a last column when one is asked for (a column of the row with
/// that name wins).
fn write_row(rows: &Rows, i: usize, row_id: Option<&SmolStr>, ids: RowIds<'_>, out: &mut String) {
    let row = rows.batch.row(i);
    let start = out.len();
    write_row_json(&rows.columns, row, out);
    let (Some(name), Some(meta)) = (row_id, rows.batch.meta().get(i)) else { return };
    if shown(&rows.columns, row).iter().any(|(column, _)| *column == name) {
        return;
    }
    out.pop();
    if out.len() > start + 1 {
        out.push(',');
    }
    write_json_text(name, out);
    out.push(':');
    write_json_text(&ids.id(meta), out);
    out.push('}');
}

/// All rows as lines.
fn lines(rows: &Rows, row_id: Option<&SmolStr>, ids: RowIds<'_>) -> String {
    let mut text = String::new();
    for i in 0..rows.batch.len() {
        write_row(rows, i, row_id, ids, &mut text);
        text.push('\n');
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::batch::{Batch, Column};
    use crate::time::Timestamp;
    use crate::value::Value;

    pub const IDS: RowIds<'static> = RowIds { incarnation: "inc", statement: "s" };

    /// Rows with one column `n`, at offsets equal to `n`.
    pub fn rows(numbers: impl IntoIterator<Item = i64>) -> Rows {
        let mut batch = Batch::new(1);
        for n in numbers {
            batch.push(RowMeta { time: Timestamp::MIN, arrival: Timestamp::MIN, offset: n, ordinal: 0 }, [Value::BigInt(n)]);
        }
        Rows { columns: [Column { name: "n".into(), spread: false }].into(), batch }
    }

    #[test]
    fn the_row_id_is_a_column_when_asked_for() {
        let name = SmolStr::new("id");
        assert_eq!(lines(&rows([1, 2]), None, IDS), "{\"n\":1}\n{\"n\":2}\n");
        assert_eq!(lines(&rows([1]), Some(&name), IDS), "{\"n\":1,\"id\":\"inc-s-1-0\"}\n");
        assert_eq!(lines(&rows([1]), Some(&SmolStr::new("n")), IDS), "{\"n\":1}\n");
        let empty = Rows {
            columns: [].into(),
            batch: {
                let mut b = Batch::new(0);
                b.push_blank(rows([3]).batch.meta()[0]);
                b
            },
        };
        assert_eq!(lines(&empty, Some(&name), IDS), "{\"id\":\"inc-s-3-0\"}\n");
    }
}

//! What takes rows out.
//!
//! In: a section of the job file, then rows of statements, in order. Out: [`Delivery`]: delivered, try again, or
//! rejected rows. Invariant: a row counts as delivered only when the receiver has confirmed it (a broker by PUBACK, a
//! file as its fsync policy says); until then it stays in the journal and nothing here grows. Rows may be repeated,
//! with the same row id. Not here: cursors, dead letters, the decision when to try again after [`Delivery::TryAgain`]
//! (an output waits by itself before it bothers a receiver anew).

mod body;
mod counted;
pub mod file;
pub mod http;
pub mod mqtt;
mod progress;
pub mod stdout;
mod told;
mod troubles;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use smol_str::SmolStr;

use crate::batch::{RowMeta, Rows, ScoredBy, write_row_json};
use crate::connections::Connections;
use crate::diagnostic::Span;
use crate::journal::IdRenewal;
use crate::settings::{Problems, Secret, Section};
use crate::source::Neighbour;
use crate::time::{Clock, Timestamp};
use crate::tls::TlsFiles;

pub use body::{BatchPolicy, Body};
pub use counted::CountedOutput;
pub use file::{FileOutputConfig, Fsync};
pub use http::HttpOutputConfig;
pub use mqtt::{MqttOutputConfig, TopicTemplate};
pub use stdout::StdoutOutputConfig;
pub use told::{ScorerNames, ToldColumns};
pub use troubles::{Change, Troubles};

/// Begins the name of a consumer that replays dead letters.
pub const REPLAY: &str = "replay ";

/// Reads the section of one kind of output.
pub type ReadOutput = fn(&mut Section) -> Option<Arc<dyn OutputSettings>>;

/// The kinds of outputs, by the word that `type` has in the job file.
pub const OUTPUTS: &[(&str, ReadOutput)] =
    &[("mqtt", mqtt::read), ("file", file::read), ("http", http::read), ("stdout", stdout::read)];

/// What a section says of an output, checked.
pub trait OutputSettings: fmt::Debug + Send + Sync {
    /// Every secret that it names.
    fn secrets(&self) -> Vec<&Secret> {
        Vec::new()
    }

    /// Columns without which a row is refused, each with its place in the job file.
    fn columns(&self) -> Vec<(&SmolStr, Span)> {
        Vec::new()
    }

    /// The columns that it adds to its rows.
    fn told(&self) -> &ToldColumns;

    /// What no other part of the job may use besides: a file, a name at a broker.
    fn exclusive(&self) -> Vec<String> {
        Vec::new()
    }

    /// Tells what does not go together with an input of the job.
    fn check_beside(&self, inputs: &[Neighbour<'_>], problems: &Problems) {
        let _ = (inputs, problems);
    }

    /// The files of TLS that it reads anew while it goes on with what it read before.
    fn tls(&self) -> Option<&TlsFiles> {
        None
    }

    /// How long an attempt may take, at most, until a row is confirmed or it is given up.
    fn attempt_max(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether it may have to wait for other outputs, whose connection it shares.
    fn is_shared(&self) -> bool {
        false
    }

    /// How many rows it would like to be given at once.
    fn fill(&self) -> Fill {
        Fill::default()
    }

    /// Makes the output. It connects or opens with the first delivery.
    ///
    /// # Errors
    /// Why it cannot be made.
    fn build(&self, site: Site<'_>) -> Result<Box<dyn Output>, String>;
}

#[allow(missing_debug_implementations, reason = "it lives for one call and holds a function")]
/// What an output is given where it is made.
pub struct Site<'a> {
    /// Of the job.
    pub job: &'a str,
    /// What parts of the job offer each other.
    pub connections: &'a Connections,
    /// Gives the name by which the other end is to know us: the one that the job file writes, else one that is made
    /// once.
    pub identify: &'a dyn Fn(Option<&str>) -> Result<String, String>,
    pub clock: Clock,
    pub stats: Arc<OutputStats>,
}

/// How long rows of a quiet stream may wait for others before they are delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Rows that need not wait for more.
    pub rows: usize,
    pub time: Duration,
}

/// An answer to come; dropped, it leaves open whether the rows were delivered.
pub type Delivering<'a> = Pin<Box<dyn Future<Output = Delivery> + Send + 'a>>;

/// Where the rows of statements go. Its text names the receiver, for log lines.
pub trait Output: fmt::Debug + fmt::Display + Send {
    /// Hands rows to the receiver. May wait: for the receiver, and after failures before trying anew. May be dropped
    /// while it waits; then the rows may have been delivered or not. There is at least one row.
    fn deliver<'a>(&'a mut self, rows: &'a Rows, ids: RowIds<'a>) -> Delivering<'a>;

    /// What is to be done while no rows come. Has no end; may be dropped at any time.
    fn tend(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }

    /// Says goodbye to a receiver, makes a file durable.
    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// What all rows of a delivery share: a part of their ids, and who gives them.
#[derive(Clone, Copy, Debug)]
pub struct RowIds<'a> {
    /// Random id of the journal file.
    pub incarnation: &'a str,
    /// From which offsets on the id of the file has a mark more; rising.
    pub renewals: &'a [IdRenewal],
    pub statement: &'a str,
    /// Whose position moves behind the rows; no part of their ids. A statement may have two for a while: one delivers
    /// what its former text gave.
    pub consumer: &'a str,
    /// Who scores its rows, where a function with a fallback does.
    pub scorers: Option<&'a ScorerNames>,
}

impl<'a> RowIds<'a> {
    /// `incarnation-statement-offset-ordinal`: the same for each repetition of a row, and for no other row. Where the
    /// pool may have lost rows of that offset, the incarnation is followed by a dot and a mark.
    pub fn id(&self, row: &RowMeta) -> String {
        let renewed = self.renewals.iter().rfind(|renewal| renewal.from <= row.offset);
        let (dot, mark) = renewed.map_or(("", ""), |renewal| (".", renewal.mark.as_str()));
        format!("{}{dot}{mark}-{}-{}-{}", self.incarnation, self.statement, row.offset, row.ordinal)
    }

    /// The function that scored a row, where that is told.
    pub fn scored_by(&self, row: &RowMeta) -> Option<&'a str> {
        let scorers = self.scorers?;
        match row.provenance.scored_by {
            ScoredBy::Untold => None,
            ScoredBy::Endpoint => Some(&scorers.endpoint),
            ScoredBy::Fallback => Some(&scorers.fallback),
        }
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
    /// Not all are confirmed: give the same rows again. `got_further`: the receiver is there, and something was learned
    /// of the rows, so the next pause is as short as the first. `is_untouched`: the receiver can have none of them, of
    /// this attempt or of one before.
    TryAgain { reason: String, got_further: bool, is_untouched: bool },
    /// The receiver went away for good (the reader of standard output): there is nothing to wait for.
    Gone { reason: String },
}

impl Delivery {
    /// Nothing was learned but this.
    pub fn try_again(reason: impl Into<String>) -> Delivery {
        Delivery::TryAgain { reason: reason.into(), got_further: false, is_untouched: false }
    }

    /// Says of rows that are to be given again whether the receiver can have none of them.
    fn with_untouched(self, now: bool) -> Delivery {
        match self {
            Delivery::TryAgain { reason, got_further, .. } => {
                Delivery::TryAgain { reason, got_further, is_untouched: now }
            }
            other => other,
        }
    }
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
    /// rows that a broker took and told that nobody had subscribed to their topic; they are among those delivered
    pub without_subscriber: AtomicU64,
    /// rows confirmed or refused, within a delivery too
    pub settled: AtomicU64,
    /// when a row was last delivered: ticks, 0 for never
    delivered_at: AtomicI64,
    /// The log says that it is connected, and nothing since that rows wait.
    told_connected: AtomicBool,
}

impl OutputStats {
    /// When a row was last delivered, since the start.
    pub fn delivered_at(&self) -> Option<Timestamp> {
        let ticks = self.delivered_at.load(Ordering::Relaxed);
        (ticks > 0).then(|| Timestamp::saturating_from_ticks(ticks))
    }

    /// Says in the log that the output has its receiver: once, until rows have to wait, however often a connection is
    /// made. `to`: the receiver.
    fn tell_connected(&self, to: &dyn fmt::Display) {
        if !self.told_connected.swap(true, Ordering::Relaxed) {
            tracing::info!(%to, "connected");
        }
    }
}

/// Appends row `i` as a JSON object, with what it tells of itself as last columns where they are asked for.
fn write_row(rows: &Rows, i: usize, told: &ToldColumns, ids: RowIds<'_>, out: &mut String) {
    let start = out.len();
    write_row_json(&rows.columns, rows.batch.row(i), out);
    if !told.is_empty() {
        told.write(rows, i, ids, start, out);
    }
}

/// All rows as lines.
fn lines(rows: &Rows, told: &ToldColumns, ids: RowIds<'_>) -> String {
    let mut text = String::new();
    for i in 0..rows.batch.len() {
        write_row(rows, i, told, ids, &mut text);
        text.push('\n');
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::batch::{Batch, Column, Provenance};
    use crate::settings::Text;
    use crate::time::Timestamp;
    use crate::value::Value;

    pub const IDS: RowIds<'static> =
        RowIds { incarnation: "inc", renewals: &[], statement: "s", consumer: "statement s", scorers: None };

    /// Rows with one column `n`, at offsets equal to `n`.
    pub fn rows(numbers: impl IntoIterator<Item = i64>) -> Rows {
        let mut batch = Batch::new(1);
        for n in numbers {
            batch.push(RowMeta::new(Timestamp::MIN, Timestamp::MIN, n, 0), [Value::BigInt(n)]);
        }
        Rows { columns: [Column { name: "n".into(), spread: false }].into(), batch }
    }

    #[test]
    fn the_row_id_is_a_column_when_asked_for() {
        let id = ToldColumns::id("id");
        assert_eq!(lines(&rows([1, 2]), &ToldColumns::default(), IDS), "{\"n\":1}\n{\"n\":2}\n");
        assert_eq!(lines(&rows([1]), &id, IDS), "{\"n\":1,\"id\":\"inc-s-1-0\"}\n");
        assert_eq!(lines(&rows([1]), &ToldColumns::id("n"), IDS), "{\"n\":1}\n");
        let empty = Rows {
            columns: [].into(),
            batch: {
                let mut b = Batch::new(0);
                b.push_blank(rows([3]).batch.meta()[0]);
                b
            },
        };
        assert_eq!(lines(&empty, &id, IDS), "{\"id\":\"inc-s-3-0\"}\n");
    }

    #[test]
    fn an_id_has_the_mark_of_the_offset_that_it_begins_at() {
        let renewal = |from, mark: &str| IdRenewal { from, mark: mark.into() };
        let renewals = [renewal(3, "aa"), renewal(5, "bb")];
        let ids = RowIds { renewals: &renewals, ..IDS };
        let all: Vec<String> = rows(2..7).batch.meta().iter().map(|meta| ids.id(meta)).collect();
        assert_eq!(all, ["inc-s-2-0", "inc.aa-s-3-0", "inc.aa-s-4-0", "inc.bb-s-5-0", "inc.bb-s-6-0"]);
    }

    #[test]
    fn a_row_tells_who_scored_it_and_its_revision_when_asked_for() {
        let text = |name: &str| Text { value: name.to_owned(), span: Span::default() };
        let told = ToldColumns { scored_by: Some(text("by")), revision: Some(text("rev")), ..ToldColumns::id("id") };
        let mut rows = rows(0..4);
        for (meta, byte) in rows.batch.meta_mut().iter_mut().zip([0, 1, 2, 5]) {
            meta.provenance = Provenance::from_byte(byte).unwrap();
        }
        let names = ScorerNames { endpoint: "score".into(), fallback: "udf.local".into() };
        let line =
            |n: i64, by: &str, rev: u8| format!("{{\"n\":{n},\"id\":\"inc-s-{n}-0\",\"by\":{by},\"rev\":{rev}}}\n");
        let expected = [("null", 0), ("\"score\"", 0), ("\"udf.local\"", 0), ("\"score\"", 1)];
        let expected: String = expected.iter().enumerate().map(|(n, (by, rev))| line(n as i64, by, *rev)).collect();
        assert_eq!(lines(&rows, &told, RowIds { scorers: Some(&names), ..IDS }), expected);
        let nobody: String = (0..4).map(|n| line(n, "null", u8::from(n == 3))).collect();
        assert_eq!(lines(&rows, &told, IDS), nobody, "the functions are gone from the job");
    }
}

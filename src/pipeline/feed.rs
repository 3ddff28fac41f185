//! What the journal holds, given to an executor.
//!
//! Invariant: everything that is read is pushed, in order. Not here: when to commit.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use smol_str::SmolStr;

use super::flow::Flow;
use super::reading::Records;
use super::tables::Tables;
use crate::arrival::Eras;
use crate::batch::{Batch, Column, RawEvent, Reason, RowMeta, Rows};
use crate::diagnostic::Span;
use crate::engine::{Emitted, EngineError, Executor, FailedBody, FailedRow};
use crate::journal::{Counter, InputId, Journal, StateChange, what};
use crate::value::Value;

/// An executor and the names of the inputs it may be given.
#[derive(Debug)]
pub struct Feed {
    pub executor: Executor,
    pub inputs: Vec<(InputId, SmolStr)>,
    /// Offsets of events that it does not read: a person put them aside.
    pub aside: BTreeSet<i64>,
    /// The columns that the plan expects of a stream's rows; `None` for a part that reads inputs.
    pub columns: Option<Arc<[Column]>>,
    /// Rows of other columns, where they are refused until the next take; `None`: they are brought to these columns.
    pub refused: Option<Vec<FailedRow>>,
    pub tables: Tables,
    /// Knows where eras of arrival time begin.
    pub journal: Journal,
    /// Something was pushed since the last take.
    pub pushed: bool,
    /// Events that a person put aside and that were left out since the last take.
    pub left_out: u64,
}

impl Feed {
    /// Takes newer reference data and functions over, if nothing was pushed since the last commit.
    pub fn between_commits(&mut self) {
        if !self.pushed && !self.executor.has_output() {
            self.tables.take_over(&mut self.executor);
        }
    }

    /// Pushes what was read.
    pub fn push(&mut self, records: &Records) {
        self.between_commits();
        self.push_before(records, i64::MAX);
    }

    /// Begins the eras of arrival time that lie up to this offset of the inputs; whether there were any. Everything
    /// before it was pushed.
    pub fn begin_eras(&mut self, offset: i64) -> bool {
        let eras = self.journal.eras();
        let begun = eras.behind(self.executor.era()).filter(|(first, _)| *first <= offset).last();
        if let Some((_, era)) = begun {
            self.executor.begin_era(era);
        }
        begun.is_some()
    }

    /// Pushes the records whose offset is below `end`.
    fn push_before(&mut self, records: &Records, end: i64) {
        self.pushed = true;
        let eras = self.journal.eras();
        match records {
            Records::Events(runs) => {
                for run in runs {
                    let name = self.inputs.iter().find(|(id, _)| id.0 == run.input).map(|(_, name)| name);
                    let before = run.offsets.partition_point(|offset| *offset < end);
                    let Some(name) = name else { continue };
                    let wanted = without(&self.aside, run.offsets.get(..before).unwrap_or_default());
                    self.left_out += before.saturating_sub(wanted.iter().map(Range::len).sum()) as u64;
                    for read in wanted {
                        if let (Some(offsets), Some(events)) = (run.offsets.get(read.clone()), run.events.get(read)) {
                            push_run(&mut self.executor, &eras, name, offsets, events);
                        }
                    }
                }
            }
            Records::Rows { first, rows } => {
                if let (Some(columns), Some(refused)) = (&self.columns, &mut self.refused)
                    && *columns != rows.columns
                {
                    let of_former = |((meta, row), position): ((&RowMeta, &[Value]), i64)| former(*meta, row, position);
                    return refused.extend(rows.batch.rows().zip(*first..).map(of_former));
                }
                let mut rows = match &self.columns {
                    Some(columns) if *columns != rows.columns => Cow::Owned(renamed(rows, columns)),
                    _ => Cow::Borrowed(rows),
                };
                let most = usize::try_from(end.saturating_sub(*first)).unwrap_or(0);
                if most < rows.batch.len() {
                    let mut left = 0..most;
                    rows.to_mut().batch.retain(|_, _| left.next().is_some());
                }
                self.push_rows(*first, &rows, &eras);
            }
        }
    }

    /// Pushes rows of a stream. They tell by the newest event in them of which era they are.
    fn push_rows(&mut self, mut first: i64, rows: &Rows, eras: &Eras) {
        let mut rows = Cow::Borrowed(rows);
        for (begins, era) in eras.behind(self.executor.era()) {
            let Some(before) = rows.batch.meta().iter().position(|meta| meta.offset >= begins) else { break };
            let mut left = 0..before;
            let mut former = rows.clone().into_owned();
            former.batch.retain(|_, _| left.next().is_some());
            self.executor.push_rows(first, &former);
            self.executor.begin_era(era);
            let mut left = 0..before;
            rows.to_mut().batch.retain(|_, _| left.next().is_none());
            first += before as i64;
        }
        self.executor.push_rows(first, &rows);
    }

    /// What its consumer has read since the last call, for the ledger: `read` records were given to the executor, and
    /// `others` of inputs that it does not read were passed. Call it once behind each take.
    pub fn given(&mut self, flow: &Flow, read: u64, others: u64) -> Vec<(Counter, u64)> {
        let left_out = std::mem::take(&mut self.left_out);
        let counted = [
            (flow.of_consumer(what::GIVEN), read),
            (flow.of_consumer(what::PASSED).because("other_input"), others),
            (flow.of_consumer(what::PASSED).because("put_aside"), left_out),
        ];
        counted.into_iter().filter(|(_, n)| *n > 0).collect()
    }

    /// What came out since the last call; all of it belongs into one commit.
    pub fn take(&mut self) -> Emitted {
        self.pushed = false;
        let mut emitted = self.executor.take();
        let refused = self.refused.as_mut().map(std::mem::take).unwrap_or_default();
        if !refused.is_empty() {
            let n = refused.len() as u64;
            emitted.counts.read += n;
            emitted.counts.rows += n;
            *emitted.counts.failed.entry(FORMER).or_default() += n;
            emitted.failures.extend(refused);
        }
        emitted
    }

    /// What `records` give, all that was pushed since the last call. Where the executor stopped, it is what those
    /// before the row at fault give: the others are read again at the next start, and are counted then. Only for a part
    /// without state.
    ///
    /// # Errors
    /// The executor cannot be made again.
    pub fn take_up_to_stop(&mut self, records: &Records) -> Result<Emitted, EngineError> {
        let mut emitted = self.take();
        let mut stopped = None;
        // operators work batch by batch, so they have counted rows behind the one at fault
        while let Some(failure) = emitted.stopped.take() {
            self.executor.start_over()?;
            self.left_out = 0;
            self.push_before(records, failure.position);
            emitted = self.take();
            stopped = Some(failure);
        }
        Ok(Emitted { stopped, ..emitted })
    }
}

/// Pushes events of one input, each in the era that its offset lies in.
fn push_run(executor: &mut Executor, eras: &Eras, name: &str, mut offsets: &[i64], mut events: &[RawEvent]) {
    for (begins, era) in eras.behind(executor.era()) {
        let before = offsets.partition_point(|offset| *offset < begins);
        let split = offsets.split_at_checked(before).zip(events.split_at_checked(before));
        let Some(((old_offsets, new_offsets), (old, new))) =
            split.filter(|((_, new_offsets), _)| !new_offsets.is_empty())
        else {
            break;
        };
        executor.push_events_at(name, old_offsets, old);
        executor.begin_era(era);
        (offsets, events) = (new_offsets, new);
    }
    executor.push_events_at(name, offsets, events);
}

/// The stretches of these offsets without those that are aside.
fn without(aside: &BTreeSet<i64>, offsets: &[i64]) -> Vec<Range<usize>> {
    let mut read = Vec::with_capacity(1);
    let mut start = 0;
    let ends = offsets.iter().enumerate().filter(|(_, offset)| aside.contains(offset)).map(|(i, _)| i);
    for end in ends.chain([offsets.len()]) {
        read.extend(Some(start..end).filter(|stretch| !stretch.is_empty()));
        start = end + 1;
    }
    read
}

/// Reason of rows that belong to an earlier text of their statement.
const FORMER: Reason = "statement_changed";

/// A row that means something else by now.
fn former(meta: RowMeta, row: &[Value], position: i64) -> FailedRow {
    let mut body = String::new();
    Value::array(row.to_vec()).write_json(&mut body);
    let message = "the statement was changed before the endpoint could score the row again: its first answer stands";
    FailedRow {
        meta,
        position,
        reason: FORMER,
        message: message.to_owned(),
        body: FailedBody::Row(body),
        span: Span::default(),
    }
}

/// Rows of an earlier text of the statement, brought to the columns that it has now: by name, NULL where there is none.
fn renamed(rows: &Rows, columns: &Arc<[Column]>) -> Rows {
    let places: Vec<Option<usize>> = columns.iter().map(|c| rows.columns.iter().position(|old| old == c)).collect();
    let mut batch = Batch::with_capacity(columns.len(), rows.batch.len());
    for (meta, row) in rows.batch.rows() {
        batch.push(*meta, places.iter().map(|place| place.and_then(|i| row.get(i)).cloned().unwrap_or_default()));
    }
    Rows { columns: columns.clone(), batch }
}

/// The engine's change of state as the journal stores it.
pub fn state_change(change: crate::engine::StateUpdate) -> StateChange {
    StateChange { op: change.op, key: change.key, value: change.value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_aside_is_left_out_and_nothing_else() {
        let offsets = [3, 5, 6, 9];
        for (aside, wanted) in [
            (&[][..], &[3, 5, 6, 9][..]),
            (&[4, 10], &[3, 5, 6, 9]),
            (&[3], &[5, 6, 9]),
            (&[5, 9], &[3, 6]),
            (&[5, 6], &[3, 9]),
            (&[3, 5, 6, 9], &[]),
        ] {
            let aside = aside.iter().copied().collect();
            let stretches = without(&aside, &offsets);
            assert!(stretches.iter().all(|stretch| !stretch.is_empty()), "{stretches:?}");
            let read: Vec<i64> = stretches.into_iter().flat_map(|stretch| offsets[stretch].to_vec()).collect();
            assert_eq!(read, wanted, "{aside:?}");
            assert!(without(&aside, &[]).is_empty());
        }
    }
}

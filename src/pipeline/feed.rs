//! What the journal holds, given to an executor.
//!
//! Invariant: everything that is read is pushed, in order. Not here: when to commit.

use std::borrow::Cow;
use std::sync::Arc;

use smol_str::SmolStr;

use super::reading::Records;
use super::tables::Tables;
use crate::batch::{Batch, Column, Rows};
use crate::engine::{Emitted, EngineError, Executor};
use crate::journal::{InputId, StateChange};

/// An executor and the names of the inputs it may be given.
#[derive(Debug)]
pub struct Feed {
    pub executor: Executor,
    pub inputs: Vec<(InputId, SmolStr)>,
    /// The columns that the plan expects of a stream's rows; `None` for a part that reads inputs.
    pub columns: Option<Arc<[Column]>>,
    pub tables: Tables,
    /// Something was pushed since the last take.
    pub pushed: bool,
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

    /// Pushes the records whose offset is below `end`.
    fn push_before(&mut self, records: &Records, end: i64) {
        self.pushed = true;
        let count = |first: i64| usize::try_from(end.saturating_sub(first)).unwrap_or(0);
        match records {
            Records::Events(runs) => {
                for run in runs {
                    let name = self.inputs.iter().find(|(id, _)| id.0 == run.input).map(|(_, name)| name);
                    let events = run.events.get(..count(run.first)).unwrap_or(&run.events);
                    if let Some(name) = name {
                        self.executor.push_events(name, run.first, events);
                    }
                }
            }
            Records::Rows { first, rows } => {
                let mut rows = match &self.columns {
                    Some(columns) if *columns != rows.columns => Cow::Owned(renamed(rows, columns)),
                    _ => Cow::Borrowed(rows),
                };
                let most = count(*first);
                if most < rows.batch.len() {
                    let mut left = 0..most;
                    rows.to_mut().batch.retain(|_, _| left.next().is_some());
                }
                self.executor.push_rows(*first, &rows);
            }
        }
    }

    /// What came out since the last call; all of it belongs into one commit.
    pub fn take(&mut self) -> Emitted {
        self.pushed = false;
        self.executor.take()
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
            self.push_before(records, failure.position);
            emitted = self.take();
            stopped = Some(failure);
        }
        Ok(Emitted { stopped, ..emitted })
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

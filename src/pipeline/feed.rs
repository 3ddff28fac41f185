//! What the journal holds, given to an executor.
//!
//! Invariant: everything that is read is pushed, in order. Not here: when to commit.

use std::sync::Arc;

use smol_str::SmolStr;

use super::tables::Tables;
use crate::batch::{Batch, Column, RawEvent, Rows};
use crate::engine::Executor;
use crate::journal::{EventSlice, InputId, Read, StateChange};
use crate::time::Timestamp;

/// An executor and the names of the inputs it may be given.
#[derive(Debug)]
pub struct Feed {
    pub executor: Executor,
    pub inputs: Vec<(InputId, SmolStr)>,
    /// The columns that the plan expects of a stream's rows; `None` for a part that reads inputs.
    pub columns: Option<Arc<[Column]>>,
    pub tables: Tables,
}

impl Feed {
    /// What was read so far is committed, or will be without anything that is read from now on: newer reference data may be
    /// taken over.
    pub fn between_commits(&mut self) {
        self.tables.take_over(&mut self.executor);
    }

    /// Pushes what was read; answers how many records that were.
    pub fn push(&mut self, read: &Read) -> u64 {
        match read {
            Read::Events(slice) => {
                let name = self.inputs.iter().find(|(id, _)| id.0 == slice.input()).map(|(_, name)| name.clone());
                if let Some(name) = name {
                    self.executor.push_events(&name, slice.first(), &raw_events(slice));
                }
                slice.len() as u64
            }
            Read::Rows(slice) => {
                let rows = slice.to_rows();
                let rows = match &self.columns {
                    Some(columns) if *columns != rows.columns => renamed(&rows, columns),
                    _ => rows,
                };
                self.executor.push_rows(slice.first(), &rows);
                slice.len() as u64
            }
            Read::Idle | Read::Closed => 0,
        }
    }
}

/// When the first of the events read arrived; `None` for rows, which have a time of their own.
pub fn first_arrival(read: &Read) -> Option<Timestamp> {
    match read {
        Read::Events(slice) => slice.iter().next().map(|event| event.arrival),
        Read::Rows(_) | Read::Idle | Read::Closed => None,
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

fn raw_events(slice: &EventSlice) -> Vec<RawEvent> {
    let events = slice.iter().enumerate();
    events
        .map(|(i, e)| RawEvent {
            arrival: e.arrival,
            payload: slice.payload(i).unwrap_or_default(),
            message: e.message.clone(),
            mark: e.mark,
        })
        .collect()
}

/// The engine's change of state as the journal stores it.
pub fn state_change(change: crate::engine::StateChange) -> StateChange {
    StateChange { op: change.op, key: change.key, value: change.value }
}

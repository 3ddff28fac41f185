//! The windows of a `GROUP BY`: one of the kinds, with what it holds.
//!
//! In: prepared rows. Out: groups, when a window ends. Invariant: state rows of a window carry its number, so windows
//! of one `GROUP BY` lie side by side. Not here: how each kind keeps its rows, result rows (`sink`).

use super::accumulate::{Acc, grows};
use super::fault::{Fault, Unloadable};
use super::fixed::Fixed;
use super::prepared::PreparedRow;
use super::session::Sessions;
use super::sliding::{self, Sliding};
use super::state::{Loaded, StateWriter};
use crate::batch::RowMeta;
use crate::query::plan::{Aggregate, Window};
use crate::value::Value;

#[derive(Debug)]
pub(super) enum WindowState {
    Fixed(Fixed),
    Sliding(Sliding),
    Session(Sessions),
}

impl WindowState {
    /// `keys`: how many values a group has before its aggregates; `number` tells it from other windows of the `GROUP
    /// BY`.
    pub(super) fn new(window: &Window, keys: usize, aggregates: &[Aggregate], number: u8) -> WindowState {
        let growing = aggregates.iter().any(grows);
        let fixed =
            |size, hop, offset, growing| WindowState::Fixed(Fixed::new(size, hop, offset, growing, aggregates.len()));
        match window {
            Window::Tumbling { size, offset } => fixed(*size, *size, *offset, growing),
            Window::Hopping { size, hop, offset } => fixed(*size, *hop, *offset, growing),
            Window::Snapshot => fixed(1, 1, 0, false),
            Window::Sliding { size } => WindowState::Sliding(Sliding::new(*size, keys, number)),
            Window::Session { timeout, max_duration, partition_by } => {
                WindowState::Session(Sessions::new(*timeout, *max_duration, partition_by.clone()))
            }
        }
    }

    pub(super) fn add(&mut self, aggregates: &[Aggregate], meta: &RowMeta, row: &PreparedRow) -> Result<(), Fault> {
        match self {
            WindowState::Fixed(fixed) => fixed.add(aggregates, meta, row),
            WindowState::Sliding(sliding) => {
                sliding.add(meta, row);
                Ok(())
            }
            WindowState::Session(sessions) => sessions.add(aggregates, meta, row),
        }
    }

    /// When a window next ends.
    pub(super) fn next_end(&self) -> Option<i64> {
        match self {
            WindowState::Fixed(fixed) => fixed.next_end(),
            WindowState::Sliding(sliding) => sliding.next_end(),
            WindowState::Session(sessions) => sessions.next_end(),
        }
    }

    /// Gives the groups of the window that ends at `end`: newest row, keys, accumulators.
    pub(super) fn close(
        &mut self,
        end: i64,
        aggregates: &[Aggregate],
        put: impl FnMut(&RowMeta, &[Value], &[Acc]),
    ) -> Result<(), Fault> {
        match self {
            WindowState::Fixed(fixed) => fixed.close(end, aggregates, put),
            WindowState::Sliding(sliding) => sliding.close(end, aggregates, put),
            WindowState::Session(sessions) => sessions.close(end, put),
        }
    }

    pub(super) fn changes(&mut self, number: u8, writer: &mut StateWriter<'_>) -> Result<(), Fault> {
        match self {
            WindowState::Fixed(fixed) => fixed.changes(number, writer),
            WindowState::Sliding(sliding) => sliding.changes(number, writer),
            WindowState::Session(sessions) => sessions.changes(number, writer),
        }
    }

    /// Whether a state row without a number belongs to this window.
    pub(super) fn owns(&self, loaded: &Loaded<'_>, number: u8) -> bool {
        matches!(self, WindowState::Sliding(_)) && sliding::owns(loaded.kind, number)
    }

    /// `rest` is what follows the window's number in the key.
    pub(super) fn load(
        &mut self,
        aggregates: &[Aggregate],
        loaded: &Loaded<'_>,
        rest: &[u8],
    ) -> Result<(), Unloadable> {
        match self {
            WindowState::Fixed(fixed) => fixed.load(aggregates, loaded, rest),
            WindowState::Sliding(sliding) => sliding.load(loaded),
            WindowState::Session(sessions) => sessions.load(aggregates, loaded, rest),
        }
    }

    /// All stored rows are in.
    pub(super) fn loaded(&mut self) {
        match self {
            WindowState::Fixed(_) => {}
            WindowState::Sliding(sliding) => sliding.loaded(),
            WindowState::Session(sessions) => sessions.loaded(),
        }
    }

    /// Removes the state row that says up to where windows are out.
    pub(super) fn retire(&mut self, number: u8, writer: &mut StateWriter<'_>) {
        match self {
            WindowState::Fixed(fixed) => fixed.retire(number, writer),
            WindowState::Sliding(sliding) => sliding.retire(number, writer),
            WindowState::Session(_) => {}
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            WindowState::Fixed(fixed) => fixed.bytes(),
            WindowState::Sliding(sliding) => sliding.bytes(),
            WindowState::Session(sessions) => sessions.bytes(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            WindowState::Fixed(fixed) => fixed.is_empty(),
            WindowState::Sliding(sliding) => sliding.is_empty(),
            WindowState::Session(sessions) => sessions.is_empty(),
        }
    }

    /// A row of this time is in no window (`None`), or in one that rows up to the answer have left.
    pub(super) fn leaves(&self, meta: &RowMeta) -> Option<i64> {
        match self {
            WindowState::Fixed(fixed) => fixed.first_start(meta),
            WindowState::Sliding(sliding) => Some(meta.time.ticks().saturating_sub(sliding.size())),
            WindowState::Session(_) => Some(i64::MIN),
        }
    }

    /// An accumulator of the group that a row will enter, if it has begun and is kept as one.
    pub(super) fn acc_mut(&mut self, meta: &RowMeta, row: &PreparedRow, place: usize) -> Option<&mut Acc> {
        match self {
            WindowState::Fixed(fixed) => fixed.acc_mut(meta, row, place),
            WindowState::Sliding(_) => None,
            WindowState::Session(sessions) => sessions.acc_mut(row, place),
        }
    }
}

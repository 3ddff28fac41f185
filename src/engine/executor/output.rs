//! The rows that come out, and their ids.
//!
//! In: batches of the root. Out: the rows since the last take. Invariant: ids of rows are unique whatever is committed
//! when: rows without state keep the offset of their record and count from 0 in it; rows of a part with state have the
//! newest offset read when they came out and count on from commit to commit. Not here: operators.

use crate::batch::{Batch, RowMeta};
use crate::engine::emitted::StateUpdate;
use crate::engine::env::{Env, StepOrigin};
use crate::engine::state::{put_meta, read_meta};
use crate::time::Timestamp;
use crate::value::codec::{ByteReader, Damaged};

/// The state row that keeps ids unique; operators number from 0.
pub(super) const IDS: u32 = u32::MAX;

/// Where the ids of emitted rows come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ids {
    /// One row at most for each row read: it keeps its id.
    Keep,
    /// The offset read, and a count in it.
    Count,
    /// The newest offset, and a count that goes on from commit to commit.
    Running { offset: i64, next: u32, changed: bool },
}

impl Ids {
    pub(super) const RUNNING: Ids = Ids::Running { offset: 0, next: 0, changed: false };
}

pub(super) struct OutputRows {
    ids: Ids,
    batch: Batch,
    width: usize,
    /// Newest source offset read.
    newest: Option<i64>,
    /// State is committed with the rows, so a stop gives none of them.
    whole: bool,
}

impl OutputRows {
    pub(super) fn new(width: usize, ids: Ids, whole: bool) -> OutputRows {
        OutputRows { ids, batch: Batch::new(width), width, newest: None, whole }
    }

    /// Records up to this offset have been read.
    pub(super) fn read_up_to(&mut self, offset: i64) {
        self.newest = self.newest.max(Some(offset));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    pub(super) fn emit(&mut self, env: &mut Env, origin: &StepOrigin<'_>, mut batch: Batch) {
        debug_assert!(batch.is_empty() || batch.width() == self.width, "{} columns of {}", batch.width(), self.width);
        if let (Some(stopped), false) = (&env.stopped, self.whole) {
            let position = stopped.position;
            batch.retain(|meta, _| meta.offset < position);
        }
        let mut last: Option<(i64, u32)> = None;
        for meta in batch.meta_mut() {
            match &mut self.ids {
                Ids::Keep => *meta = origin.restored(meta),
                Ids::Count => {
                    let ordinal = match last {
                        Some((offset, ordinal)) if offset == meta.offset => ordinal.saturating_add(1),
                        _ => 0,
                    };
                    last = Some((meta.offset, ordinal));
                    meta.ordinal = ordinal;
                }
                Ids::Running { offset, next, changed } => {
                    let newest = self.newest.map_or(*offset, |n| n.max(*offset));
                    if newest != *offset {
                        (*offset, *next) = (newest, 0);
                    }
                    meta.offset = *offset;
                    meta.ordinal = *next;
                    *next = next.saturating_add(1);
                    *changed = true;
                }
            }
        }
        env.counts.rows_out += batch.len() as u64;
        if self.batch.is_empty() && self.batch.width() == batch.width() {
            self.batch = batch;
        } else {
            self.batch.append(&mut batch);
        }
    }

    /// The rows since the last call; none of them when the executor stopped and they are committed with state.
    pub(super) fn take(&mut self, stopped: bool) -> Batch {
        let mut batch = std::mem::replace(&mut self.batch, Batch::new(self.width));
        if stopped && self.whole {
            batch.clear();
        }
        batch
    }

    /// Whether a stop gives rows, and so state, at all.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    pub(super) fn changes(&mut self, state: &mut Vec<StateUpdate>) {
        if let Ids::Running { offset, next, changed } = &mut self.ids
            && std::mem::take(changed)
        {
            let meta = RowMeta::new(Timestamp::MIN, Timestamp::MIN, *offset, *next);
            let mut value = Vec::new();
            put_meta(&mut value, &meta);
            state.push(StateUpdate { op: IDS, key: Vec::new(), value: Some(value) });
        }
    }

    pub(super) fn load(&mut self, value: &[u8]) -> Result<(), Damaged> {
        let meta = read_meta(&mut ByteReader::new(value))?;
        if let Ids::Running { offset, next, .. } = &mut self.ids {
            (*offset, *next) = (meta.offset, meta.ordinal);
        }
        Ok(())
    }
}

//! Aggregates over the last rows of a key, without visiting each of them for each result.
//!
//! In: the rows held and the moment. Out: accumulators of all of them. Invariant: what comes out depends on the rows
//! and the moment alone, not on when it was asked before, so floats round in the same way after a restart. Not here:
//! when a row goes (`history`); aggregates whose state grows with the rows, which are made anew each time.
//!
//! Time is cut into blocks as long as rows are held, so held rows lie in at most two. For the earlier block it keeps a
//! running total from each row to the end, for the present block one total. A row costs two merges, however many rows
//! are held.

use std::collections::VecDeque;

use super::accumulate::{Acc, arity, merges};
use super::fault::Fault;
use super::group::newer;
use super::held::Held;
use crate::batch::RowMeta;
use crate::query::plan::Aggregate;
use crate::value::Value;

#[derive(Debug, Default)]
pub(super) struct Running {
    block: Option<i64>,
    /// Of the rows of earlier blocks, the last row first: accumulators of it and all behind it, and its newest meta.
    behind: Vec<Acc>,
    behind_newest: Vec<RowMeta>,
    /// Of the present block: accumulators, newest meta, number of rows.
    present: Vec<Acc>,
    present_newest: Option<RowMeta>,
    present_rows: usize,
}

impl Running {
    /// The oldest row is gone.
    pub(super) fn pop_front(&mut self, aggregates: usize) {
        if self.behind_newest.pop().is_some() {
            self.behind.truncate(self.behind_newest.len() * aggregates);
        } else {
            self.block = None;
        }
    }

    /// A row came that is not the last one.
    pub(super) fn disturb(&mut self) {
        self.block = None;
    }

    /// Accumulators of all rows, and the newest arrival and offset. `skip`: values before the arguments of a row;
    /// `span`: how long a row is held.
    pub(super) fn total(
        &mut self,
        aggregates: &[Aggregate],
        rows: &VecDeque<Held>,
        skip: usize,
        now: i64,
        span: i64,
    ) -> Result<(Vec<Acc>, Option<RowMeta>), Fault> {
        self.settle(aggregates, rows, skip, now, span)?;
        let behind = self
            .behind
            .len()
            .checked_sub(aggregates.len())
            .and_then(|from| self.behind.get(from..))
            .unwrap_or_default();
        let mut out = Vec::with_capacity(aggregates.len());
        let mut at = skip;
        for (i, aggregate) in aggregates.iter().enumerate() {
            let n = arity(aggregate);
            if merges(aggregate) {
                let mut acc = behind.get(i).cloned().unwrap_or_else(|| Acc::new(aggregate));
                if let Some(present) = self.present.get(i) {
                    acc.merge(aggregate, present)?;
                }
                out.push(acc);
            } else {
                let mut acc = Acc::new(aggregate);
                rows.iter().try_for_each(|held| acc.add(aggregate, held.values.get(at..at + n).unwrap_or_default()))?;
                out.push(acc);
            }
            at += n;
        }
        let newest = match (self.behind_newest.last(), self.present_newest) {
            (Some(a), Some(b)) => Some(newer(*a, &b)),
            (a, b) => a.copied().or(b),
        };
        Ok((out, newest))
    }

    fn settle(
        &mut self,
        aggregates: &[Aggregate],
        rows: &VecDeque<Held>,
        skip: usize,
        now: i64,
        span: i64,
    ) -> Result<(), Fault> {
        let block = block_of(now, span);
        let known = self.behind_newest.len() + self.present_rows;
        let mut from = known;
        if self.block != Some(block) || known > rows.len() {
            self.block = Some(block);
            from = rows.partition_point(|held| block_of(held.time(), span) < block);
            self.look_back(aggregates, rows, skip, from)?;
            self.present.clear();
            self.present.extend(aggregates.iter().map(Acc::new));
            (self.present_newest, self.present_rows) = (None, 0);
        }
        for held in rows.range(from.min(rows.len())..) {
            add(&mut self.present, aggregates, held.values.get(skip..).unwrap_or_default())?;
            self.present_newest = Some(self.present_newest.map_or(held.meta, |newest| newer(newest, &held.meta)));
            self.present_rows += 1;
        }
        Ok(())
    }

    /// Works through the rows before `until` from the last to the first.
    fn look_back(
        &mut self,
        aggregates: &[Aggregate],
        rows: &VecDeque<Held>,
        skip: usize,
        until: usize,
    ) -> Result<(), Fault> {
        self.behind.clear();
        self.behind_newest.clear();
        for held in rows.range(..until.min(rows.len())).rev() {
            let last = self.behind.len().saturating_sub(aggregates.len());
            self.behind.extend(aggregates.iter().map(Acc::new));
            let mine = self.behind.len() - aggregates.len();
            let (later, mine) = self.behind.split_at_mut(mine);
            add(mine, aggregates, held.values.get(skip..).unwrap_or_default())?;
            let later = later.get(last..).unwrap_or_default();
            for ((acc, more), aggregate) in mine.iter_mut().zip(later).zip(aggregates) {
                acc.merge(aggregate, more)?;
            }
            let newest = self.behind_newest.last().map_or(held.meta, |later| newer(held.meta, later));
            self.behind_newest.push(newest);
        }
        Ok(())
    }
}

/// Adds a row's arguments to the aggregates that merge; the others are made anew.
fn add(accs: &mut [Acc], aggregates: &[Aggregate], args: &[Value]) -> Result<(), Fault> {
    let mut at = 0;
    for (acc, aggregate) in accs.iter_mut().zip(aggregates) {
        let n = arity(aggregate);
        if merges(aggregate) {
            acc.add(aggregate, args.get(at..at + n).unwrap_or_default())?;
        }
        at += n;
    }
    Ok(())
}

/// Blocks are like the windows: the start is outside, the end inside.
fn block_of(time: i64, span: i64) -> i64 {
    let span = span.max(1);
    time.div_euclid(span) + i64::from(time.rem_euclid(span) > 0)
}

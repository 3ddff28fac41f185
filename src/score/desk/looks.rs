//! Looks at an endpoint at which perhaps no row is scored: single rows that nobody waits for.
//!
//! In: rows that wait, one that was scored before. Out: a request with a copy of one. Invariant: each row that waits
//! has its turn. Not here: when a look goes (`breaker`), what its answer does (`answers`).

use std::time::Duration;

use super::super::absence::Absence;
use super::super::body::{Form, RowText};
use super::super::breaker::Cause;
use super::super::policy::Blocked;
use super::{Desk, DeskEvent, Flight, Request};
use crate::value::Value;

impl Desk {
    /// Perhaps no row at all is scored: nothing but looks goes until one is.
    pub(super) fn suspect(&mut self) {
        (self.must_look, self.looks) = (true, 0);
        // what failed until now may have been good
        self.batches.values_mut().for_each(|open| open.batch.doubt());
    }

    pub(super) fn suspect_model(&mut self, now: Duration, wait: Duration) {
        self.suspect();
        self.gate.close(now, Cause::Blocked(Blocked::Model), wait);
        self.events.push(DeskEvent::Refetch);
    }

    /// Sends one row only to see whether anything is scored: one that was scored before, in turns with those that wait,
    /// one after another, so that a few bad ones in front, or one that is not scored any more, do not hold up the rest
    /// for ever.
    pub(super) fn look(&mut self, now: Duration, form: &Form, reload_key: bool) -> Option<Request> {
        let row = match &self.proven {
            Some(row) if self.looks.is_multiple_of(2) => Some(row.clone()),
            Some(row) => self.row_to_look_at(form, self.looks / 2).or_else(|| Some(row.clone())),
            None => self.row_to_look_at(form, self.looks),
        };
        let Some(row) = row else {
            if self.queue.is_empty() && self.absence.iter().all(|absence| absence.samples().next().is_none()) {
                return None;
            }
            // no row fits the signature: it may be read too early or too late
            self.gate.close(now, Cause::Blocked(Blocked::Model), self.rules.slow_probe);
            self.events.push(DeskEvent::Refetch);
            return None;
        };
        let body = form.body(std::iter::once(&row));
        let generation = self.generation;
        Some(self.send(now, Flight::Look { row, generation }, body, 1, reload_key))
    }

    fn row_to_look_at(&self, form: &Form, look: u32) -> Option<RowText> {
        let held = self
            .batches
            .values()
            .flat_map(|open| open.batch.undecided().into_iter().filter_map(|i| open.rows.get(i).copied()));
        // newest first: the oldest are those that failed
        let waiting = held.chain(self.queue.rows()).filter_map(|row| self.queue.value(row));
        let rows: Vec<&Value> = waiting.chain(self.absence.iter().flat_map(Absence::samples)).collect();
        let skip = (look as usize).wrapping_mul(stride(rows.len())) % rows.len().max(1);
        rows.iter().rev().cycle().skip(skip).take(rows.len()).find_map(|value| form.encode(value).ok())
    }
}

/// About a third of some rows; steps of it come to each of them.
fn stride(rows: usize) -> usize {
    let is_coprime = |step: &usize| {
        let (mut a, mut b) = (rows, *step);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a <= 1
    };
    (rows / 3 + 1..=rows).find(is_coprime).unwrap_or(1)
}

//! Rows that somebody else answers while the endpoint is away.
//!
//! In: the time. Out: rows that end in [`Outcome::Away`]. Invariant: rows that are patient stay, and the endpoint is
//! looked at by the breaker's schedule with copies of rows' arguments, so no row waits for a look. While rows are given
//! away the gate is closed, and the next request is a look. Not here: how long the endpoint has been away (`absence`),
//! who answers.

use std::time::Duration;

use super::super::Outcome;
use super::super::absence::Absence;
use super::super::breaker::Cause;
use super::super::policy::Outage;
use super::super::queue::RowRef;
use super::{Desk, OpenBatch};

impl Desk {
    /// Since when the endpoint is away, while rows end in [`Outcome::Away`].
    pub fn away_since(&self) -> Option<Duration> {
        self.absence.as_ref().and_then(Absence::since)
    }

    /// Notes whether anything may be sent; gives whether nothing may.
    pub(super) fn note_absence(&mut self, now: Duration) -> bool {
        let is_shut = self.gate.closed().is_some() || self.is_undescribed;
        self.absence.iter_mut().for_each(|absence| absence.note(now, is_shut));
        is_shut
    }

    /// Ends the wait of rows that are to be answered by somebody else, those of requests under way too: what these
    /// bring is heeded for the endpoint alone.
    pub(super) fn give_away(&mut self, now: Duration) {
        let is_shut = self.note_absence(now);
        let Some(absence) = &mut self.absence else { return };
        if !self.queue.has_impatient() {
            if self.form.is_some() {
                absence.nobody_waits();
            }
            return;
        }
        if !self.flights.is_empty() {
            // a row that came while only patient ones were under way waits behind them
            absence.asked(now);
        }
        if !absence.is_over(now) {
            return;
        }
        let is_first = absence.begin(now);
        let mut given = Vec::new();
        let undecided = |open: &OpenBatch| -> Vec<RowRef> {
            open.batch.undecided().into_iter().filter_map(|i| open.rows.get(i).copied()).collect()
        };
        let is_mixed = |open: &OpenBatch| undecided(open).iter().any(|row| !self.queue.is_patient(*row));
        let mixed: Vec<u64> = self.batches.iter().filter(|(_, open)| is_mixed(open)).map(|(id, _)| *id).collect();
        // backwards, so that what is put back is in its order
        for open in mixed.into_iter().rev().filter_map(|id| self.batches.remove(&id)) {
            let (patient, mut others): (Vec<RowRef>, Vec<RowRef>) =
                undecided(&open).into_iter().partition(|row| self.queue.is_patient(*row));
            self.queue.put_back(now, &patient);
            others.append(&mut given);
            given = others;
        }
        given.extend(self.queue.take_impatient());
        for row in given {
            if let (Some(absence), Some(argument)) = (&mut self.absence, self.queue.value(row)) {
                absence.keep(argument);
            }
            self.decide(row, Outcome::Away);
        }
        if is_first {
            self.suspect();
            if !is_shut {
                self.gate.close(now, Cause::Backoff(Outage::Failing), Duration::ZERO);
            }
        }
    }
}

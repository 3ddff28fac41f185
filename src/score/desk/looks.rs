//! Looks at an endpoint at which perhaps no row is scored: single rows that nobody waits for.
//!
//! In: rows that wait, one that was scored before. Out: a request with a copy of one, or a knock where there is no
//! connection. Invariant: each row that waits has its turn. Not here: when a look goes (`breaker`), what its answer
//! does (`answers`).

use std::time::Duration;

use super::super::absence::Absence;
use super::super::body::{Form, RowText};
use super::super::breaker::{Admission, Cause};
use super::super::clipped;
use super::super::describe::{sent, taken};
use super::super::policy::{Blocked, Outage};
use super::super::queue::{RowRef, Unsendable};
use super::{Desk, DeskEvent, Flight, OnMisfit, Request};
use crate::value::Value;

/// How much of a row is shown that does not fit.
const ROW_SHOWN_MAX: usize = 200;

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
            self.pause_for_misfit(now, form);
            return None;
        };
        let body = form.body(std::iter::once(&row));
        let generation = self.generation;
        Some(self.send(now, Flight::Look { row, generation }, body, 1, reload_key))
    }

    /// The number of a knock that is to go now: a bare connect, while no connection comes about and rows wait for one,
    /// or the description does (`is_asked`). What came of it goes to [`Desk::knocked`].
    pub fn next_knock(&mut self, now: Duration, is_asked: bool) -> Option<u64> {
        let is_waited_for =
            is_asked || !self.queue.is_empty() || self.absence.iter().any(|absence| absence.samples().next().is_some());
        if self.failed.is_some() || !is_waited_for || self.gate.admission(now) != Admission::Knock {
            return None;
        }
        let id = self.new_id();
        self.gate.knocks(now, id);
        Some(id)
    }

    /// A knock was heard, or it was not. `random` is in `[0, 1)`.
    pub fn knocked(&mut self, now: Duration, id: u64, is_heard: bool, random: f64) {
        self.random = random;
        self.gate.knocked(now, id, is_heard, random);
    }

    /// The endpoint was asked for its signature, and no connection came about. `true`: knocks find out when one does.
    pub fn unreachable(&mut self, now: Duration, random: f64) -> bool {
        self.random = random;
        if self.gate.closed().is_some_and(|closed| matches!(closed.cause, Cause::Blocked(_))) {
            return false;
        }
        self.lost_since.get_or_insert(now);
        let id = self.new_id();
        self.gate.sent(id);
        self.gate.failed(now, id, Cause::Backoff(Outage::NoConnection), random, None);
        true
    }

    /// The endpoint has said something about its description: there is a connection. Where rows wait, or are given
    /// away, one of them finds out.
    pub fn reached(&mut self) {
        let is_lost = self.gate.closed().is_some_and(|closed| closed.cause == Cause::Backoff(Outage::NoConnection));
        if is_lost && self.is_idle() && self.away_since().is_none() && !self.must_look {
            self.gate.open();
            self.lost_since = None;
        }
    }

    /// An address or a route of the machine changed: who is out of reach or silent may not be any more.
    pub fn links_changed(&mut self, now: Duration) {
        let lost = [Outage::NoConnection, Outage::Silent, Outage::Intercepted].map(Cause::Backoff);
        if self.gate.closed().is_some_and(|closed| lost.contains(&closed.cause)) {
            self.gate.look_now(now);
        }
    }

    /// Whether the function pauses since these rows do not fit; they wait again then.
    pub(super) fn pauses_for(&mut self, now: Duration, form: &Form, rows: &[RowRef], bad: &[Unsendable]) -> bool {
        let Some(shown) = self.misfits.judge(rows.len(), bad).and_then(|i| bad.get(i)) else { return false };
        if self.rules.on_misfit == OnMisfit::DeadLetter {
            return false;
        }
        if let Some(row) = self.queue.value(shown.row) {
            self.misfit = Some(in_words(form, row, &shown.failure.message));
        }
        let mut all: Vec<RowRef> = rows.iter().copied().chain(bad.iter().map(|row| row.row)).collect();
        all.sort_unstable();
        self.queue.put_back(now, &all);
        self.gate.close(now, Cause::Blocked(Blocked::Misfit), self.slow());
        self.events.push(DeskEvent::Refetch);
        true
    }

    /// Pauses where not one of the rows that wait fits the signature.
    fn pause_for_misfit(&mut self, now: Duration, form: &Form) {
        let misfit = self.waiting_values().find_map(|row| Some(in_words(form, row, &form.encode(row).err()?.message)));
        self.misfit = misfit;
        self.gate.close(now, Cause::Blocked(Blocked::Misfit), self.slow());
        self.events.push(DeskEvent::Refetch);
    }

    /// Arguments of the rows that wait, those in batches first, then those that were given away.
    fn waiting_values(&self) -> impl Iterator<Item = &Value> {
        let held = self
            .batches
            .values()
            .flat_map(|open| open.batch.undecided().into_iter().filter_map(|i| open.rows.get(i).copied()));
        let waiting = held.chain(self.queue.rows()).filter_map(|row| self.queue.value(row));
        waiting.chain(self.absence.iter().flat_map(Absence::samples))
    }

    fn row_to_look_at(&self, form: &Form, look: u32) -> Option<RowText> {
        // newest first: the oldest are those that failed
        let rows: Vec<&Value> = self.waiting_values().collect();
        let skip = (look as usize).wrapping_mul(stride(rows.len())) % rows.len().max(1);
        rows.iter().rev().cycle().skip(skip).take(rows.len()).find_map(|value| form.encode(value).ok())
    }
}

/// What the endpoint takes beside what is sent, and a row.
fn in_words(form: &Form, row: &Value, message: &str) -> String {
    format!(
        "the endpoint takes {}, the query sends {}; the first row is {}: {message}",
        taken(form.layout()),
        sent(row),
        clipped(&row.to_json(), ROW_SHOWN_MAX)
    )
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

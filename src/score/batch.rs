//! One batch on its way to being scored: which rows to send next, and whose fault a failure is.
//!
//! In: how the last request of the batch ended. Out: the next [`NextSend`], and rows that are found to be bad.
//! Invariant: every row is in exactly one place: in a piece still to be sent, among the suspects, or handed back as
//! decided. A row is condemned only after something else was scored since it failed, so a model that broke condemns
//! nobody. Where the failure may have passed with an outage, it is condemned only if it fails again after that. Not
//! here: rows themselves, waiting, what other batches do.

use std::ops::Range;

use super::Failure;
use super::policy::{CONNECTION_CLOSED, TOO_SLOW};

/// Suspects that pile up without anything being scored before we look whether the model still works.
const SUSPECTS_MAX: usize = 3;
/// Times a request may take too long before it is halved.
const SLOW_MAX: u32 = 2;
/// Requests in vain with nothing but this row before it is condemned: one may have failed by chance.
const TRIES: u32 = 2;
/// The same where the model fails at random: at one failure in two, one row in 256 is condemned by mistake.
const TRIES_FLAKY: u32 = 8;

/// Requests that halving may spend on a batch: well above what a few bad rows cost (2·log2(rows) each), well below two
/// a row. Past it the rest goes row by row, which bounds the whole to this and one a row, two
/// for a row that is tested again, eight where the model fails at random.
fn budget(rows: usize) -> usize {
    rows / 4 + 16
}

/// A run of rows sent as one request.
#[derive(Clone, Debug, PartialEq)]
struct RowRun {
    rows: Range<usize>,
    /// It is the whole batch as it was first sent.
    whole: bool,
    /// First half of a failing piece: if it is scored, the other half must hold the fault.
    first_half: bool,
    /// Known to hold a bad row without having been sent.
    guilty: bool,
    /// What it is a part of was refused by the model, and not by what an outage brings.
    by_model: bool,
    failures: u32,
    slow: u32,
    busy: u32,
    /// Requests that its rows were part of.
    attempts: u32,
    /// A row that was a suspect when the model was seen to work.
    retest: bool,
    /// Requests in vain with nothing but this row.
    alone: u32,
}

impl RowRun {
    fn new(rows: Range<usize>) -> RowRun {
        RowRun {
            rows,
            whole: false,
            first_half: false,
            guilty: false,
            by_model: false,
            failures: 0,
            slow: 0,
            busy: 0,
            attempts: 0,
            retest: false,
            alone: 0,
        }
    }
}

/// A single row that failed since anything was last scored.
#[derive(Clone, Debug)]
struct Suspect {
    row: usize,
    failure: Failure,
    attempts: u32,
    /// It may have failed only because nothing could be scored then.
    retest: bool,
    alone: u32,
    /// The same again gives the same.
    is_final: bool,
}

/// What a batch wants next.
#[derive(Clone, Debug, PartialEq)]
pub enum NextSend {
    /// Send these rows.
    Send(Range<usize>),
    /// Send a row that was scored before: is it the rows or the model?
    AskModel,
    /// Nothing is left.
    Finished,
}

/// What came of a failure.
#[derive(Clone, Debug, PartialEq)]
pub enum Reaction {
    /// The same again after a wait; how often it failed.
    Again(u32),
    /// On to the next step.
    Next,
    /// As `Next`, and requests should hold no more than this many rows.
    Fewer(usize),
    /// A row is bad for certain.
    Bad(usize, Box<Failure>),
    /// It failed too often; the rows stay.
    GiveUp,
}

#[derive(Clone, Debug)]
pub struct RequestBatch {
    len: usize,
    /// A stack: the last is sent next.
    pieces: Vec<RowRun>,
    suspects: Vec<Suspect>,
    asking: bool,
    requests: usize,
    is_flaky: bool,
}

impl RequestBatch {
    /// `is_flaky`: the model is known to fail at random.
    pub fn new(len: usize, is_flaky: bool) -> RequestBatch {
        let whole = RowRun { whole: true, ..RowRun::new(0..len) };
        RequestBatch { len, pieces: vec![whole], suspects: Vec::new(), asking: false, requests: 0, is_flaky }
    }

    /// The model has scored rows of it that it had failed on.
    pub fn is_flaky(&self) -> bool {
        self.is_flaky
    }

    /// What to send now. Asking twice gives the same answer.
    pub fn step(&mut self) -> NextSend {
        if self.asking {
            return NextSend::AskModel;
        }
        while let Some(piece) = self.pieces.last() {
            let single = piece.rows.len() <= 1;
            if !single && self.requests > budget(self.len) && !piece.whole {
                self.split(1, false);
            } else if !single && piece.guilty {
                self.split(piece.rows.len() / 2, true);
            } else {
                return NextSend::Send(piece.rows.clone());
            }
        }
        if self.suspects.is_empty() {
            return NextSend::Finished;
        }
        self.asking = true;
        NextSend::AskModel
    }

    /// Notes that the step was sent.
    pub fn sent(&mut self) {
        self.requests += 1;
        if let Some(piece) = self.pieces.last_mut().filter(|_| !self.asking) {
            piece.attempts += 1;
        }
    }

    /// Requests that the rows to be sent next were part of so far.
    pub fn attempts(&self) -> u32 {
        self.pieces.last().map_or(0, |piece| piece.attempts)
    }

    /// The piece was scored, so the model works: hands back the suspects that are bad indeed.
    pub fn scored(&mut self) -> Vec<(usize, Failure)> {
        if let Some(done) = self.pieces.pop() {
            self.is_flaky |= (done.guilty && done.by_model) || done.alone > 0;
            if done.first_half
                && let Some(other) = self.pieces.last_mut()
            {
                other.guilty = true;
            }
        }
        self.judge()
    }

    /// A row that was scored before was scored again: hands back the suspects that are bad.
    pub fn model_works(&mut self) -> Vec<(usize, Failure)> {
        self.asking = false;
        self.judge()
    }

    /// The model works now. That it did when a suspect failed is another matter: an outage may have ended in between.
    fn judge(&mut self) -> Vec<(usize, Failure)> {
        let (again, bad): (Vec<_>, Vec<_>) = std::mem::take(&mut self.suspects).into_iter().partition(|suspect| {
            let tries = if self.is_flaky { TRIES_FLAKY } else { TRIES };
            suspect.retest || (!suspect.is_final && suspect.alone < tries)
        });
        for Suspect { row, attempts, alone, retest, .. } in again.into_iter().rev() {
            // an outage says nothing about the model
            let alone = if retest { 0 } else { alone };
            self.pieces.push(RowRun { retest: true, attempts, alone, ..RowRun::new(row..row + 1) });
        }
        bad.into_iter().map(|suspect| (suspect.row, suspect.failure)).collect()
    }

    /// The model refuses what it took before: nobody here is condemned, the suspects will be sent again.
    pub fn model_fails(&mut self) {
        self.asking = false;
        self.pieces.extend(self.suspects.drain(..).rev().map(|suspect| RowRun::new(suspect.row..suspect.row + 1)));
        for piece in &mut self.pieces {
            // what was learnt of them may be the model's fault
            (piece.first_half, piece.guilty, piece.retest) = (false, false, false);
        }
    }

    /// Nothing may have been scored when the suspects failed: each is sent once more before it is condemned.
    pub fn doubt(&mut self) {
        self.suspects.iter_mut().for_each(|suspect| suspect.retest = true);
    }

    /// No suspect was answered.
    pub fn is_unanswered(&self) -> bool {
        self.suspects.iter().all(|suspect| matches!(suspect.failure.reason, TOO_SLOW | CONNECTION_CLOSED))
    }

    /// The piece failed in a way that may be a row's fault. `retries`: how often the whole batch is tried again first.
    pub fn failed(&mut self, retries: u32, failure: impl FnOnce(usize) -> Failure) -> Reaction {
        let Some(piece) = self.pieces.last_mut() else { return Reaction::Next };
        piece.failures += 1;
        let (is_final, by_model) = (retries == 0, retries == 1);
        piece.by_model |= by_model;
        let len = piece.rows.len();
        let single = len <= 1;
        // halving a piece by mistake costs requests, condemning a row by mistake costs the row: where the fault may
        // pass by itself, a row that stands alone is tried again too
        let may_pass = retries > 1;
        let retries = if piece.whole || (single && may_pass) { retries } else { 0 };
        if piece.failures <= retries {
            return Reaction::Again(piece.failures);
        }
        if single {
            self.suspect(may_pass, is_final, failure);
        } else {
            self.split(len / 2, true);
        }
        Reaction::Next
    }

    /// The piece took too long.
    pub fn too_slow(&mut self, failure: impl FnOnce(usize) -> Failure) -> Reaction {
        let Some(piece) = self.pieces.last_mut() else { return Reaction::Next };
        piece.slow += 1;
        let len = piece.rows.len();
        if piece.slow < SLOW_MAX {
            return Reaction::Again(piece.slow);
        }
        if len <= 1 {
            self.suspect(true, false, failure);
            return Reaction::Next;
        }
        self.split(len / 2, false);
        Reaction::Fewer(len.div_ceil(2))
    }

    /// The piece has too many bytes.
    pub fn too_large(&mut self, failure: impl FnOnce(usize) -> Failure) -> Reaction {
        let Some(piece) = self.pieces.last() else { return Reaction::Next };
        if piece.rows.len() > 1 {
            self.split(piece.rows.len() / 2, false);
            return Reaction::Next;
        }
        let row = piece.rows.start;
        let bad = Reaction::Bad(row, Box::new(failure(row)));
        self.pieces.pop();
        bad
    }

    /// The endpoint is busy with something else.
    pub fn busy(&mut self, retries: u32) -> Reaction {
        let Some(piece) = self.pieces.last_mut() else { return Reaction::Next };
        piece.busy += 1;
        if piece.busy <= retries {
            return Reaction::Again(piece.busy);
        }
        piece.busy = 0;
        Reaction::GiveUp
    }

    /// The rows that are not decided.
    pub fn undecided(&self) -> Vec<usize> {
        let suspects = self.suspects.iter().map(|suspect| suspect.row);
        let mut rows: Vec<usize> = self.pieces.iter().flat_map(|piece| piece.rows.clone()).chain(suspects).collect();
        rows.sort_unstable();
        rows
    }

    fn suspect(&mut self, may_pass: bool, is_final: bool, failure: impl FnOnce(usize) -> Failure) {
        if let Some(RowRun { rows, attempts, retest, alone, failures, .. }) = self.pieces.pop() {
            let (row, retest, alone) = (rows.start, may_pass && !retest, alone + failures.max(1));
            self.suspects.push(Suspect { row, failure: failure(row), attempts, retest, alone, is_final });
            self.asking = self.suspects.len() >= SUSPECTS_MAX;
        }
    }

    /// Cuts the next piece in two; the first `at` rows are sent first. `isolating`: because a row in it is bad.
    fn split(&mut self, at: usize, isolating: bool) {
        let Some(piece) = self.pieces.pop() else { return };
        let middle = piece.rows.start + at;
        // one more slow answer is enough to halve again
        let slow = piece.slow.min(SLOW_MAX - 1);
        let (attempts, by_model) = (piece.attempts, piece.by_model);
        let half = |rows: Range<usize>| RowRun { slow, attempts, by_model, ..RowRun::new(rows) };
        self.pieces.push(half(middle..piece.rows.end));
        self.pieces.push(RowRun { first_half: isolating, ..half(piece.rows.start..middle) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows fail with `retries` until row 0 stands alone as a suspect.
    fn row_0_suspected(retries: u32) -> RequestBatch {
        let mut batch = RequestBatch::new(2, false);
        while batch.suspects.is_empty() {
            assert!(matches!(batch.step(), NextSend::Send(_)));
            batch.sent();
            batch.failed(retries, |_| Failure::default());
        }
        assert_eq!(batch.step(), NextSend::Send(1..2));
        batch
    }

    #[test]
    fn who_failed_in_what_may_have_been_an_outage_is_sent_once_more() {
        let mut batch = row_0_suspected(3);
        assert_eq!(batch.scored(), []);
        assert_eq!(batch.step(), NextSend::Send(0..1));
        assert_eq!(batch.attempts(), 8);
        let mut bad = batch.clone();
        assert_eq!(batch.scored(), []);
        assert_eq!(batch.step(), NextSend::Finished);
        while bad.failed(3, |_| Failure::default()) != Reaction::Next {}
        assert_eq!(bad.step(), NextSend::AskModel);
        assert_eq!(bad.model_works(), [(0, Failure::default())]);
        assert_eq!(bad.step(), NextSend::Finished);
    }

    #[test]
    fn who_breaks_the_rules_of_the_endpoint_is_not_sent_again() {
        let mut batch = row_0_suspected(0);
        assert_eq!(batch.scored(), [(0, Failure::default())]);
        assert_eq!(batch.step(), NextSend::Finished);
    }

    #[test]
    fn who_was_refused_by_the_model_alone_has_a_second_try() {
        let mut batch = row_0_suspected(1);
        assert_eq!(batch.scored(), []);
        assert_eq!(batch.step(), NextSend::Send(0..1));
        let mut good = batch.clone();
        batch.failed(1, |_| Failure::default());
        assert_eq!(batch.model_works(), [(0, Failure::default())]);
        assert!(!batch.is_flaky());
        assert_eq!(good.scored(), []);
        assert!(good.is_flaky() && good.step() == NextSend::Finished);
    }

    #[test]
    fn where_the_model_fails_at_random_a_row_has_eight_tries() {
        let mut batch = RequestBatch::new(1, true);
        let mut sent = 0;
        let bad = loop {
            match batch.step() {
                NextSend::Send(_) => {
                    batch.sent();
                    sent += 1;
                    batch.failed(1, |_| Failure::default());
                }
                NextSend::AskModel => match batch.model_works() {
                    bad if bad.is_empty() => {}
                    bad => break bad,
                },
                NextSend::Finished => panic!("the row is lost"),
            }
        };
        assert_eq!((sent, bad), (TRIES_FLAKY as usize, vec![(0, Failure::default())]));
    }
}

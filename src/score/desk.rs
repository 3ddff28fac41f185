//! The desk of one endpoint: it takes chunks of rows, decides what is sent when, and closes chunks.
//!
//! In: chunks, the signature, answers, the time. Out: [`Request`]s to send and [`DeskEvent`]s. Invariant: every row
//! that comes in goes out in exactly one outcome, and at most `parallel` requests are out. Not here: a clock,
//! randomness, sockets, tasks: those call in, so every outage is a table test.

mod answers;
mod away;
mod looks;
mod misfits;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::value::Value;

use super::absence::Absence;
use super::batch::{NextSend, RequestBatch};
use super::body::{Form, RowText};
use super::breaker::{Admission, Cause, Closed, EndpointGate, Pauses};
use super::parallel::Parallel;
use super::policy::{Answered, Blocked, Details, Mode, Outage};
use super::queue::{RowQueue, RowRef, Taken, Unsendable, Waits};
use super::rate::Rate;
use super::signature::EndpointSignature;
use super::texts::Texts;
use super::{Failure, NanPolicy, Outcome};
use misfits::Misfits;
pub use misfits::OnMisfit;

/// A learned byte limit does not go below this: a smaller one would be about a single row.
const BYTES_MIN: usize = 1024;

/// What the desk keeps to.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Most rows in a request.
    pub max_rows: usize,
    /// Most bytes in a request body.
    pub max_bytes: usize,
    /// Most requests at once.
    pub parallel: u32,
    /// Most rows of a statement that were sent before what came of the first is durable: a crash scores them again.
    pub unstored_max: usize,
    /// Most rows a second.
    pub catchup_rate: Option<u32>,
    /// A backlog, rows for a full request, is not sent before this.
    pub catchup_start: Duration,
    /// How long rows wait for more of them while other requests are out.
    pub linger: Duration,
    /// How long they wait while none is.
    pub linger_idle: Duration,
    pub mode: Mode,
    pub nan: NanPolicy,
    pub on_misfit: OnMisfit,
    pub pauses: Pauses,
    /// Longest text in characters for a text cell.
    pub text_max: Option<usize>,
    /// How long rows wait for an endpoint that is away before they end in [`Outcome::Away`]; `None`: without end.
    pub fallback_after: Option<Duration>,
    /// Until then an answer may still come.
    pub request_timeout: Duration,
}

/// A request to send.
#[derive(Debug)]
pub struct Request {
    pub id: u64,
    pub body: String,
    pub rows: usize,
    /// Keys to the results.
    pub results: Arc<[String]>,
    /// The key was refused: read it again before sending.
    pub reload_key: bool,
}

/// How a request ended.
#[derive(Debug)]
pub struct Answer {
    pub outcome: Answered,
    /// One a row, for [`Answered::Results`].
    pub values: Vec<Value>,
    pub details: Details,
}

/// What the desk wants done or known.
#[derive(Debug)]
pub enum DeskEvent {
    /// A chunk's rows have all been decided.
    Done { chunk: u64, outcomes: Vec<Outcome> },
    /// The key was refused.
    ReloadKey,
    /// The signature may have changed.
    Refetch,
    /// The function is over for good (mode `asa`).
    Failed(String),
}

#[derive(Debug)]
struct OpenBatch {
    batch: RequestBatch,
    rows: Vec<RowRef>,
    encoded: Vec<RowText>,
    not_before: Duration,
    flying: bool,
    generation: u64,
}

#[derive(Debug)]
enum Flight {
    Piece {
        batch: u64,
        bytes: usize,
    },
    /// A row scored before, on behalf of a batch with suspects.
    AskModel {
        batch: u64,
    },
    /// A row sent only to see whether anything is scored at all.
    Look {
        row: RowText,
        generation: u64,
    },
}

/// Where the endpoint stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    UnknownSignature,
    Ready,
    Closed(Closed),
    Failed(String),
}

#[derive(Debug)]
pub struct Desk {
    rules: Rules,
    form: Option<Arc<Form>>,
    results: Arc<[String]>,
    generation: u64,
    queue: RowQueue,
    batches: BTreeMap<u64, OpenBatch>,
    flights: HashMap<u64, Flight>,
    last_id: u64,
    gate: EndpointGate,
    parallel: Parallel,
    rows_now: usize,
    bytes_now: usize,
    full_batches: u32,
    rate: Option<Rate>,
    /// A row that was scored under this signature.
    proven: Option<RowText>,
    /// Nobody knows whether any row is scored: until one is, nothing but a look goes.
    must_look: bool,
    /// Looks since then.
    looks: u32,
    /// Since when it could not be reached, or said nothing.
    lost_since: Option<Duration>,
    /// Where rows have somebody else to ask.
    absence: Option<Absence>,
    /// It was asked for its signature in vain.
    is_undescribed: bool,
    misfits: Misfits,
    /// Both forms in words, where rows wait since they do not fit.
    misfit: Option<String>,
    /// Until then a model is taken for one that fails at random.
    flaky_until: Option<Duration>,
    /// The last random number that came in, to spread looks by.
    random: f64,
    failed: Option<String>,
    nan_results: u64,
    texts: Texts,
    events: Vec<DeskEvent>,
}

impl Desk {
    pub fn new(rules: Rules) -> Desk {
        let mut absence = rules.fallback_after.map(|after| Absence::new(after, rules.request_timeout));
        // for its signature
        absence.iter_mut().for_each(|absence| absence.asked(Duration::ZERO));
        Desk {
            form: None,
            results: Arc::from([]),
            generation: 0,
            queue: RowQueue::new(rules.unstored_max),
            batches: BTreeMap::new(),
            flights: HashMap::new(),
            last_id: 0,
            gate: EndpointGate::new(rules.pauses),
            parallel: Parallel::new(rules.parallel),
            rows_now: rules.max_rows.max(1),
            bytes_now: rules.max_bytes.max(BYTES_MIN),
            full_batches: 0,
            rate: rules.catchup_rate.map(Rate::new),
            proven: None,
            must_look: false,
            looks: 0,
            lost_since: None,
            absence,
            is_undescribed: false,
            misfits: Misfits::default(),
            misfit: None,
            flaky_until: None,
            random: 0.5,
            failed: None,
            nan_results: 0,
            texts: Texts::default(),
            events: Vec::new(),
            rules,
        }
    }

    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Takes the arguments of some rows of a statement. The chunk's number comes back in its event.
    pub fn submit(&mut self, now: Duration, statement: usize, args: Vec<Value>) -> u64 {
        self.take_in(now, statement, args, Waits { is_patient: false, is_replay: false })
    }

    /// The same for rows that wait however long the endpoint is away, and let others go first.
    pub fn submit_patiently(&mut self, now: Duration, statement: usize, args: Vec<Value>) -> u64 {
        self.take_in(now, statement, args, Waits { is_patient: true, is_replay: false })
    }

    /// The same for rows that were decided before: a form that does not fit says nothing about other rows.
    pub fn submit_replay(&mut self, now: Duration, statement: usize, args: Vec<Value>) -> u64 {
        self.take_in(now, statement, args, Waits { is_patient: true, is_replay: true })
    }

    fn take_in(&mut self, now: Duration, statement: usize, args: Vec<Value>, waits: Waits) -> u64 {
        let id = self.new_id();
        if args.is_empty() {
            self.events.push(DeskEvent::Done { chunk: id, outcomes: Vec::new() });
            return id;
        }
        let first_fit = !waits.is_replay
            && !self.misfits.is_fitted
            && self.is_blocked_by(Blocked::Misfit)
            && self.form.as_ref().is_some_and(|form| args.iter().any(|row| form.encode(row).is_ok()));
        self.queue.push(now, id, statement, args, waits);
        if first_fit {
            self.misfits.is_fitted = true;
            self.gate.look_now(now);
        }
        if self.proven.is_none() && self.away_since().is_none() && self.is_blocked_by(Blocked::Model) {
            // perhaps only the first rows are bad, and these are the first good ones; a stream of bad ones asks ever
            // less often
            self.gate.look_by(now + self.rules.pauses.backoff.step(self.looks.saturating_add(1)));
        }
        id
    }

    fn is_blocked_by(&self, blocked: Blocked) -> bool {
        self.gate.closed().is_some_and(|closed| closed.cause == Cause::Blocked(blocked))
    }

    /// The wait for the next look at an endpoint that somebody has to repair.
    fn slow(&self) -> Duration {
        self.rules.pauses.slow(self.random)
    }

    /// Drops the rows of a chunk that nobody waits for any more; those on their way are scored all the same.
    pub fn forget(&mut self, chunk: u64) {
        self.queue.forget(chunk);
    }

    /// What came of a chunk is durable.
    pub fn stored(&mut self, chunk: u64) {
        self.queue.stored(chunk);
    }

    /// Whether rows wait only for what came of others to be durable.
    pub fn waits_for_commits(&self) -> bool {
        self.queue.ready() < self.queue.waiting().min(self.rows_now)
    }

    /// Sets the signature to send by. Rows that wait or are to be sent again go by the new one.
    pub fn set_signature(&mut self, now: Duration, signature: &EndpointSignature) {
        if self.form.is_none() {
            self.absence.iter_mut().for_each(Absence::nobody_waits);
        }
        self.is_undescribed = false;
        self.form = Some(Arc::new(Form::new(&signature.input, self.rules.text_max)));
        self.results = signature.output.path.clone().into();
        self.generation += 1;
        (self.misfits, self.misfit) = (Misfits::default(), None);
        self.proven = None;
        self.parallel.forget();
        let idle: Vec<u64> = self.batches.iter().filter(|(_, open)| !open.flying).map(|(id, _)| *id).collect();
        for id in idle.into_iter().rev() {
            self.put_back(now, id);
        }
        self.looks = 0;
        let is_away = self.away_since().is_some();
        if is_away && self.gate.closed().is_none() {
            // it has described itself: it is asked before rows wait for it again
            self.gate.close(now, Cause::Backoff(Outage::Failing), Duration::ZERO);
        } else if is_away || self.is_blocked_by(Blocked::Model) || self.is_blocked_by(Blocked::Misfit) {
            self.gate.look_now(now);
        }
    }

    /// Holds all rows until there is a signature again.
    pub fn forget_signature(&mut self) {
        (self.form, self.is_undescribed) = (None, true);
    }

    /// There is no signature to be had now. Rows that wait go by the one that is known, if one is.
    pub fn signature_missing(&mut self, now: Duration) {
        self.is_undescribed = self.form.is_none();
        self.note_absence(now);
    }

    /// Looks at once, for somebody may have repaired something: the key was replaced, or people say so.
    pub fn look_now(&mut self, now: Duration) {
        self.gate.look_now(now);
        self.batches.values_mut().for_each(|open| open.not_before = open.not_before.min(now));
    }

    /// There is no key to be had.
    pub fn key_missing(&mut self, now: Duration) {
        self.gate.close(now, Cause::Blocked(Blocked::Key), self.slow());
    }

    pub fn take_events(&mut self) -> Vec<DeskEvent> {
        std::mem::take(&mut self.events)
    }

    /// Both forms in words, where rows wait since they do not fit the signature.
    pub fn misfit(&self) -> Option<&str> {
        self.misfit.as_deref().filter(|_| self.is_blocked_by(Blocked::Misfit))
    }

    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.flights.is_empty()
    }

    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    pub fn parallel_now(&self) -> u32 {
        self.parallel.now()
    }

    /// Rows that were not put into a batch yet.
    pub fn waiting_rows(&self) -> usize {
        self.queue.waiting()
    }

    /// Results so far that were NaN or infinite, or held such a number.
    pub fn nan_results(&self) -> u64 {
        self.nan_results
    }

    pub fn standing(&self) -> Standing {
        match (&self.failed, &self.form, self.gate.closed()) {
            (Some(why), _, _) => Standing::Failed(why.clone()),
            (_, _, Some(closed)) if matches!(closed.cause, Cause::Blocked(_)) => Standing::Closed(*closed),
            (_, None, _) => Standing::UnknownSignature,
            (_, _, Some(closed)) => Standing::Closed(*closed),
            _ => Standing::Ready,
        }
    }

    /// When [`Desk::next_request`] may have something although nothing came in.
    pub fn wake(&self, now: Duration) -> Option<Duration> {
        let later = self.batches.values().filter(|open| !open.flying).map(|open| open.not_before);
        let linger = self.queue.since().map(|since| since + self.linger());
        let rate = self.rate.as_ref().and_then(Rate::due).filter(|_| self.queue.ready() > 0);
        let start = Some(self.rules.catchup_start).filter(|_| self.queue.ready() > 0);
        let away = self.absence.as_ref().and_then(Absence::due).filter(|_| self.queue.has_impatient());
        later
            .chain(linger)
            .chain(rate)
            .chain(start)
            .chain(self.gate.opens_at())
            .chain(away)
            .filter(|at| *at > now)
            .min()
    }

    /// The next request, if one may go now.
    pub fn next_request(&mut self, now: Duration) -> Option<Request> {
        self.give_away(now);
        let form = self.form.clone()?;
        if self.failed.is_some() || self.flights.len() >= self.parallel.now() as usize {
            return None;
        }
        let admission = self.gate.admission(now);
        let cause = self.gate.closed().map(|closed| closed.cause);
        let reload_key = cause == Some(Cause::Blocked(Blocked::Key));
        match admission {
            Admission::Closed | Admission::Knock => None,
            Admission::Probe if self.must_look => self.look(now, &form, reload_key),
            _ => self.next_piece(now, &form, reload_key),
        }
    }

    fn next_piece(&mut self, now: Duration, form: &Form, reload_key: bool) -> Option<Request> {
        loop {
            let ready = self.batches.iter().find(|(_, open)| !open.flying && open.not_before <= now).map(|(id, _)| *id);
            let id = match ready {
                Some(id) => id,
                None => self.form_batch(now, form)?,
            };
            let open = self.batches.get_mut(&id)?;
            let step = open.batch.step();
            let (body, rows) = match &step {
                NextSend::Send(range) => {
                    let rows = open.encoded.get(range.clone()).unwrap_or_default();
                    (form.body(rows.iter()), rows.len())
                }
                NextSend::AskModel => match &self.proven {
                    Some(row) => (form.body(std::iter::once(row)), 1),
                    // nothing was ever scored: that rows of this batch are not either says nothing about them
                    None => {
                        let is_silent = open.batch.is_unanswered();
                        open.batch.model_fails();
                        match is_silent {
                            true => {
                                self.lost_since.get_or_insert(now);
                                self.suspect();
                                self.gate.close(now, Cause::Backoff(Outage::Silent), Duration::ZERO);
                            }
                            false => self.suspect_model(now, Duration::ZERO),
                        }
                        return self.next_request(now);
                    }
                },
                NextSend::Finished => {
                    self.batches.remove(&id);
                    continue;
                }
            };
            open.batch.sent();
            open.flying = true;
            let flight = match step {
                NextSend::AskModel => Flight::AskModel { batch: id },
                _ => Flight::Piece { batch: id, bytes: body.len() },
            };
            return Some(self.send(now, flight, body, rows, reload_key));
        }
    }

    fn send(&mut self, now: Duration, flight: Flight, body: String, rows: usize, reload_key: bool) -> Request {
        let id = self.new_id();
        self.absence.iter_mut().for_each(|absence| absence.asked(now));
        self.gate.sent(id);
        self.parallel.sent(id);
        self.flights.insert(id, flight);
        Request { id, body, rows, results: self.results.clone(), reload_key }
    }

    /// How long rows wait for more of them now. Whoever lets them wait beside no request lets them wait beside others.
    fn linger(&self) -> Duration {
        match self.batches.is_empty() {
            true => self.rules.linger_idle,
            false => self.rules.linger.max(self.rules.linger_idle),
        }
    }

    fn is_batch_due(&self, now: Duration) -> bool {
        let lingered = self.queue.since().is_some_and(|since| now >= since + self.linger());
        let ready = self.queue.ready();
        // those behind them wait for commits, and half a request is better than none meanwhile
        let is_short = self.waits_for_commits() && ready >= self.rows_now / 2;
        let is_early = ready >= self.rows_now && now < self.rules.catchup_start;
        ready > 0 && !is_early && (ready >= self.rows_now || is_short || lingered)
    }

    /// Makes a batch of waiting rows. Rows that do not fit the signature are decided on the way.
    fn form_batch(&mut self, now: Duration, form: &Form) -> Option<u64> {
        while self.is_batch_due(now) && self.batches.len() < self.parallel.now() as usize {
            let wanted = self.queue.ready().min(self.rows_now);
            let rows_max = self.rate.as_mut().map_or(self.rows_now, |rate| rate.admits(now, wanted));
            if rows_max == 0 {
                return None;
            }
            let Taken { rows, encoded, bad, .. } = self.queue.take(now, form, rows_max, self.bytes_now);
            if self.pauses_for(now, form, &rows, &bad) {
                return None;
            }
            if let Some(rate) = &mut self.rate {
                rate.spend(rows.len());
            }
            for Unsendable { row, failure, .. } in bad {
                self.decide(row, Outcome::Failed(Box::new(failure)));
            }
            if rows.is_empty() {
                continue;
            }
            let id = self.new_id();
            let is_flaky = self.flaky_until.is_some_and(|until| now < until);
            let (batch, generation) = (RequestBatch::new(rows.len(), is_flaky), self.generation);
            self.batches.insert(id, OpenBatch { batch, rows, encoded, not_before: now, flying: false, generation });
            return Some(id);
        }
        None
    }

    /// Takes the undecided rows of a batch back to the front of the queue.
    fn put_back(&mut self, now: Duration, id: u64) {
        let Some(open) = self.batches.remove(&id) else { return };
        let rows: Vec<RowRef> = open.batch.undecided().into_iter().filter_map(|i| open.rows.get(i).copied()).collect();
        self.queue.put_back(now, &rows);
    }

    fn decide(&mut self, row: RowRef, mut outcome: Outcome) {
        if let Outcome::Failed(failure) = &mut outcome {
            self.texts.keep(failure);
        }
        if let Some(outcomes) = self.queue.decide(row, outcome) {
            self.events.push(DeskEvent::Done { chunk: row.chunk, outcomes });
        }
    }

    fn condemn(&mut self, batch: u64, bad: Vec<(usize, Failure)>) {
        for (i, failure) in bad {
            if let Some(row) = self.batches.get(&batch).and_then(|open| open.rows.get(i)).copied() {
                self.decide(row, Outcome::Failed(Box::new(failure)));
            }
        }
    }
}

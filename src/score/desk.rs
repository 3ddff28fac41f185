//! The desk of one endpoint: it takes chunks of rows, decides what is sent when, and closes chunks.
//!
//! In: chunks, the signature, answers, the time. Out: [`Request`]s to send and [`Event`]s. Invariant: every row that
//! comes in goes out in exactly one outcome, and at most `parallel` requests are out. Not here: a clock, randomness,
//! sockets, tasks: those call in, so every outage is a table test.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::value::Value;

use super::batch::{Batch, Reaction, Step};
use super::body::{Form, Row};
use super::breaker::{Admission, Cause, Closed, Gate, Parallel};
use super::policy::{Blocked, Class, Details, Mode, Outcome as Answered, RETRIES_BUSY, classify};
use super::retry::Backoff;
use super::signature::Signature;
use super::{Failure, NanPolicy, Outcome, clipped};

/// A learned byte limit does not go below this: a smaller one would be about a single row.
const BYTES_MIN: usize = 1024;
/// Full batches scored in a row before a lowered row limit is doubled.
const GROW_AFTER: u32 = 8;
/// Looks at other rows at once, before looking only now and then.
const LOOKS_AT_ONCE: u32 = 3;
/// Longest request and response text kept with a failed row.
const KEPT_MAX: usize = 4096;

/// What the desk keeps to.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Most rows in a request.
    pub max_rows: usize,
    /// Most bytes in a request body.
    pub max_bytes: usize,
    /// Most requests at once.
    pub parallel: u32,
    /// How long rows wait for more of them while other requests are out.
    pub linger: Duration,
    pub mode: Mode,
    pub nan: NanPolicy,
    pub backoff: Backoff,
    pub slow_probe: Duration,
    /// Longest text in characters for a text cell.
    pub text_max: Option<usize>,
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
pub enum Event {
    /// A chunk's rows have all been decided.
    Done { chunk: u64, outcomes: Vec<Outcome> },
    /// The key was refused.
    ReloadKey,
    /// The signature may have changed.
    Refetch,
    /// The function is over for good (mode `asa`).
    Failed(String),
}

/// Rows of a chunk that wait.
#[derive(Clone, Debug)]
struct Waiting {
    chunk: u64,
    next: usize,
    end: usize,
}

#[derive(Clone, Copy, Debug)]
struct RowRef {
    chunk: u64,
    row: usize,
}

#[derive(Debug)]
struct Chunk {
    args: Vec<Value>,
    outcomes: Vec<Option<Outcome>>,
    open: usize,
}

#[derive(Debug)]
struct Open {
    batch: Batch,
    statement: usize,
    rows: Vec<RowRef>,
    encoded: Vec<Row>,
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
        row: Row,
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
    queues: Vec<(usize, VecDeque<Waiting>)>,
    turn: usize,
    waiting: usize,
    waiting_since: Option<Duration>,
    chunks: HashMap<u64, Chunk>,
    batches: BTreeMap<u64, Open>,
    flights: HashMap<u64, Flight>,
    last_id: u64,
    gate: Gate,
    parallel: Parallel,
    rows_now: usize,
    bytes_now: usize,
    full_batches: u32,
    /// A row that was scored under this signature.
    proven: Option<Row>,
    looks: u32,
    failed: Option<String>,
    nan_results: u64,
    events: Vec<Event>,
}

impl Desk {
    pub fn new(rules: Rules) -> Desk {
        Desk {
            form: None,
            results: Arc::from([]),
            generation: 0,
            queues: Vec::new(),
            turn: 0,
            waiting: 0,
            waiting_since: None,
            chunks: HashMap::new(),
            batches: BTreeMap::new(),
            flights: HashMap::new(),
            last_id: 0,
            gate: Gate::new(rules.backoff, rules.slow_probe),
            parallel: Parallel::new(rules.parallel),
            rows_now: rules.max_rows.max(1),
            bytes_now: rules.max_bytes.max(BYTES_MIN),
            full_batches: 0,
            proven: None,
            looks: 0,
            failed: None,
            nan_results: 0,
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
        let id = self.new_id();
        let rows = args.len();
        if rows == 0 {
            self.events.push(Event::Done { chunk: id, outcomes: Vec::new() });
            return id;
        }
        self.chunks.insert(id, Chunk { args, outcomes: vec![None; rows], open: rows });
        self.queue(statement).push_back(Waiting { chunk: id, next: 0, end: rows });
        self.waiting += rows;
        self.waiting_since.get_or_insert(now);
        if self.proven.is_none() && matches!(self.gate.closed(), Some(Closed { cause: Cause::Blocked(Blocked::Model), .. })) {
            // perhaps only the first rows are bad, and these are the first good ones
            self.gate.look_by(now + self.rules.backoff.base);
        }
        id
    }

    /// Drops the rows of a chunk that nobody waits for any more; those on their way are scored all the same.
    pub fn forget(&mut self, chunk: u64) {
        for (_, queue) in &mut self.queues {
            queue.retain(|w| {
                let keep = w.chunk != chunk;
                self.waiting -= if keep { 0 } else { w.end - w.next };
                keep
            });
        }
        if !self.batches.values().any(|open| open.rows.iter().any(|row| row.chunk == chunk)) {
            self.chunks.remove(&chunk);
        }
    }

    /// Sets the signature to send by. Rows that wait or are to be sent again go by the new one.
    pub fn set_signature(&mut self, now: Duration, signature: &Signature) {
        self.form = Some(Arc::new(Form::new(&signature.input, self.rules.text_max)));
        self.results = signature.output.path.clone().into();
        self.generation += 1;
        self.proven = None;
        let idle: Vec<u64> = self.batches.iter().filter(|(_, open)| !open.flying).map(|(id, _)| *id).collect();
        for id in idle.into_iter().rev() {
            self.put_back(now, id);
        }
        if matches!(self.gate.closed(), Some(Closed { cause: Cause::Blocked(Blocked::Model), .. })) {
            self.looks = 0;
            self.gate.look_now(now);
        }
    }

    /// Holds all rows until there is a signature again.
    pub fn forget_signature(&mut self) {
        self.form = None;
    }

    /// What was read again for a refused key differs from before.
    pub fn key_changed(&mut self, now: Duration) {
        self.gate.look_now(now);
    }

    /// There is no key to be had.
    pub fn key_missing(&mut self, now: Duration) {
        self.gate.close(now, Cause::Blocked(Blocked::Key), self.rules.slow_probe);
    }

    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub fn is_idle(&self) -> bool {
        self.chunks.is_empty() && self.flights.is_empty()
    }

    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    pub fn parallel_now(&self) -> u32 {
        self.parallel.now()
    }

    /// Rows that were not put into a batch yet.
    pub fn waiting_rows(&self) -> usize {
        self.waiting
    }

    /// Results that were NaN or infinite so far.
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
        let linger = self.waiting_since.map(|since| since + self.rules.linger);
        later.chain(linger).chain(self.gate.opens_at()).filter(|at| *at > now).min()
    }

    /// The next request, if one may go now.
    pub fn next_request(&mut self, now: Duration) -> Option<Request> {
        let form = self.form.clone()?;
        if self.failed.is_some() || self.flights.len() >= self.parallel.now() as usize {
            return None;
        }
        let admission = self.gate.admission(now);
        let cause = self.gate.closed().map(|closed| closed.cause);
        match (admission, cause) {
            (Admission::Closed, _) => None,
            (Admission::Probe, Some(Cause::Blocked(Blocked::Model))) => self.look(&form),
            _ => self.next_piece(now, &form, cause == Some(Cause::Blocked(Blocked::Key))),
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
                Step::Send(range) => {
                    let rows = open.encoded.get(range.clone()).unwrap_or_default();
                    (form.body(rows.iter()), rows.len())
                }
                Step::AskModel => match &self.proven {
                    Some(row) => (form.body(std::iter::once(row)), 1),
                    // nothing was ever scored: that rows of this batch are not either says nothing about them
                    None => {
                        open.batch.model_fails();
                        self.suspect_model(now);
                        return self.next_request(now);
                    }
                },
                Step::Finished => {
                    self.batches.remove(&id);
                    continue;
                }
            };
            open.batch.sent();
            open.flying = true;
            let flight = match step {
                Step::AskModel => Flight::AskModel { batch: id },
                _ => Flight::Piece { batch: id, bytes: body.len() },
            };
            return Some(self.send(flight, body, rows, reload_key));
        }
    }

    fn send(&mut self, flight: Flight, body: String, rows: usize, reload_key: bool) -> Request {
        let id = self.new_id();
        self.gate.sent(id);
        self.parallel.sent(id);
        self.flights.insert(id, flight);
        Request { id, body, rows, results: self.results.clone(), reload_key }
    }

    fn suspect_model(&mut self, now: Duration) {
        self.looks = 0;
        let wait = if self.proven.is_some() { self.rules.slow_probe } else { Duration::ZERO };
        self.gate.close(now, Cause::Blocked(Blocked::Model), wait);
        self.events.push(Event::Refetch);
    }

    /// Sends one row only to see whether anything is scored: one that was scored before, else one after another of
    /// those that wait, so that a few bad ones in front do not hold up the rest for ever.
    fn look(&mut self, form: &Form) -> Option<Request> {
        let row = match &self.proven {
            Some(row) => row.clone(),
            None => self.row_to_look_at(form)?,
        };
        let body = form.body(std::iter::once(&row));
        let generation = self.generation;
        Some(self.send(Flight::Look { row, generation }, body, 1, false))
    }

    fn row_to_look_at(&self, form: &Form) -> Option<Row> {
        let held = self
            .batches
            .values()
            .flat_map(|open| open.batch.undecided().into_iter().filter_map(|i| open.rows.get(i)).copied().collect::<Vec<RowRef>>());
        let queued = self.queues.iter().flat_map(|(_, queue)| queue.iter());
        let queued = queued.flat_map(|w| (w.next..w.end).map(|row| RowRef { chunk: w.chunk, row }));
        // newest first: the oldest are those that failed
        let rows: Vec<RowRef> = held.chain(queued).collect();
        let encoded = |r: &RowRef| self.chunks.get(&r.chunk)?.args.get(r.row).and_then(|value| form.encode(value).ok());
        let skip = (self.looks as usize).wrapping_mul(rows.len() / 3 + 1) % rows.len().max(1);
        rows.iter().rev().cycle().skip(skip).take(rows.len()).find_map(encoded)
    }

    fn queue(&mut self, statement: usize) -> &mut VecDeque<Waiting> {
        let at = match self.queues.iter().position(|(s, _)| *s == statement) {
            Some(at) => at,
            None => {
                self.queues.push((statement, VecDeque::new()));
                self.queues.len() - 1
            }
        };
        // just found or pushed
        #[allow(clippy::indexing_slicing)]
        &mut self.queues[at].1
    }

    fn is_batch_due(&self, now: Duration) -> bool {
        let lingered = self.waiting_since.is_some_and(|since| now >= since + self.rules.linger);
        self.waiting > 0 && (self.batches.is_empty() || self.waiting >= self.rows_now || lingered)
    }

    /// Makes a batch of waiting rows, those of one statement first; the statements take turns. Rows that do not fit the
    /// signature are decided on the way.
    fn form_batch(&mut self, now: Duration, form: &Form) -> Option<u64> {
        while self.is_batch_due(now) && self.batches.len() < self.parallel.now() as usize {
            let (mut rows, mut encoded) = (Vec::new(), Vec::new());
            let mut bytes = form.frame_bytes();
            let statements = self.queues.len();
            let mut first = None;
            for k in 0..statements {
                let Some((statement, queue)) = self.queues.get_mut((self.turn + k) % statements) else { break };
                first.get_or_insert(*statement);
                let mut queue = std::mem::take(queue);
                self.fill(&mut queue, form, &mut rows, &mut encoded, &mut bytes);
                let is_full = !queue.is_empty();
                if let Some((_, slot)) = self.queues.get_mut((self.turn + k) % statements) {
                    *slot = queue;
                }
                if is_full {
                    break;
                }
            }
            self.turn = (self.turn + 1) % statements.max(1);
            self.waiting_since = (self.waiting > 0).then_some(now);
            if rows.is_empty() {
                continue;
            }
            let id = self.new_id();
            let (batch, statement, generation) = (Batch::new(rows.len()), first.unwrap_or_default(), self.generation);
            self.batches.insert(id, Open { batch, statement, rows, encoded, not_before: now, flying: false, generation });
            return Some(id);
        }
        None
    }

    /// Moves rows from a queue into a batch until one of them is exhausted.
    fn fill(&mut self, queue: &mut VecDeque<Waiting>, form: &Form, rows: &mut Vec<RowRef>, encoded: &mut Vec<Row>, bytes: &mut usize) {
        while let Some(waiting) = queue.front_mut() {
            if rows.len() >= self.rows_now {
                return;
            }
            if waiting.next >= waiting.end {
                queue.pop_front();
                continue;
            }
            let row = RowRef { chunk: waiting.chunk, row: waiting.next };
            let value = self.chunks.get(&row.chunk).and_then(|chunk| chunk.args.get(row.row));
            let bad = match value.map(|value| form.encode(value)) {
                Some(Ok(text)) if !rows.is_empty() && *bytes + text.bytes() > self.bytes_now => return,
                Some(Ok(text)) => {
                    *bytes += text.bytes();
                    encoded.push(text);
                    rows.push(row);
                    None
                }
                Some(Err(bad)) => Some(Failure::before_sending(bad, value.map(Value::to_json).unwrap_or_default())),
                None => None,
            };
            waiting.next += 1;
            self.waiting -= 1;
            if let Some(failure) = bad {
                self.decide(row, Outcome::Failed(failure));
            }
        }
    }

    /// Takes the undecided rows of a batch back to the front of the queue.
    fn put_back(&mut self, now: Duration, id: u64) {
        let Some(open) = self.batches.remove(&id) else { return };
        for row in open.batch.undecided().into_iter().rev().filter_map(|i| open.rows.get(i)) {
            let queue = self.queue(open.statement);
            match queue.front_mut() {
                Some(front) if front.chunk == row.chunk && front.next == row.row + 1 => front.next = row.row,
                _ => queue.push_front(Waiting { chunk: row.chunk, next: row.row, end: row.row + 1 }),
            }
            self.waiting += 1;
        }
        if self.waiting > 0 {
            self.waiting_since.get_or_insert(now);
        }
    }

    fn decide(&mut self, row: RowRef, outcome: Outcome) {
        let Some(chunk) = self.chunks.get_mut(&row.chunk) else { return };
        if let Some(slot) = chunk.outcomes.get_mut(row.row)
            && slot.is_none()
        {
            *slot = Some(outcome);
            chunk.open -= 1;
        }
        if chunk.open == 0
            && let Some(chunk) = self.chunks.remove(&row.chunk)
        {
            let outcomes = chunk.outcomes.into_iter().flatten().collect();
            self.events.push(Event::Done { chunk: row.chunk, outcomes });
        }
    }

    fn condemn(&mut self, batch: u64, bad: Vec<(usize, Failure)>) {
        for (i, failure) in bad {
            if let Some(row) = self.batches.get(&batch).and_then(|open| open.rows.get(i)).copied() {
                self.decide(row, Outcome::Failed(failure));
            }
        }
    }

    /// Takes the answer to a request. `random` is in `[0, 1)`.
    pub fn answered(&mut self, now: Duration, id: u64, answer: Answer, random: f64) {
        let full = self.flights.len() >= self.parallel.now() as usize;
        let Some(flight) = self.flights.remove(&id) else { return };
        let class = classify(self.rules.mode, answer.outcome);
        if class == Class::FailJob {
            return self.fail(&answer.details);
        }
        if let Flight::Look { row, generation } = flight {
            return self.looked(now, id, class, row, generation, &answer.details);
        }
        self.heed(now, id, class, &answer, random, full);
        let batch = match &flight {
            Flight::Piece { batch, .. } | Flight::AskModel { batch } => *batch,
            Flight::Look { .. } => return,
        };
        let Some(open) = self.batches.get_mut(&batch) else { return };
        open.flying = false;
        match (flight, class) {
            (Flight::Piece { .. }, Class::Done) => self.scored(batch, answer.values),
            (Flight::Piece { bytes, .. }, class) => self.piece_failed(now, batch, class, &answer, bytes, random),
            (_, Class::Done) => {
                let bad = open.batch.model_works();
                self.condemn(batch, bad);
            }
            (_, Class::Isolate { .. } | Class::TooSlow | Class::TooLarge) => {
                open.batch.model_fails();
                self.suspect_model(now);
            }
            (_, Class::Busy) => open.not_before = now + self.rules.backoff.wait(1, random, None),
            _ => {}
        }
        // the signature changed while the request was out
        if self.batches.get(&batch).is_some_and(|open| open.generation != self.generation) {
            self.put_back(now, batch);
        } else if self.batches.get_mut(&batch).is_some_and(|open| open.batch.step() == Step::Finished) {
            self.batches.remove(&batch);
        }
    }

    /// What an answer means for the endpoint as a whole.
    fn heed(&mut self, now: Duration, id: u64, class: Class, answer: &Answer, random: f64, full: bool) {
        let retry_after = answer.details.retry_after;
        match class {
            Class::Done => {
                self.gate.passed(id);
                self.parallel.succeeded(id, full);
            }
            Class::Offline => self.gate.failed(now, id, Cause::Backoff, random, retry_after),
            Class::Overloaded => {
                self.parallel.overloaded(id);
                // one request too many says nothing against the others, unless the server asks for silence
                let one_too_many = answer.details.status == Some(429) && self.parallel.now() > 1 && !self.gate.is_probe(id);
                if !one_too_many || retry_after.is_some() {
                    self.gate.failed(now, id, Cause::Backoff, random, retry_after);
                }
            }
            Class::KeyRefused => {
                self.events.push(Event::ReloadKey);
                self.gate.failed(now, id, Cause::Blocked(Blocked::Key), random, retry_after);
            }
            Class::Pause(blocked) => self.gate.failed(now, id, Cause::Blocked(blocked), random, retry_after),
            Class::TooSlow if self.gate.is_probe(id) => self.gate.failed(now, id, Cause::Backoff, random, None),
            Class::Isolate { .. } if self.gate.is_probe(id) && answer.outcome == Answered::Closed => {
                self.gate.failed(now, id, Cause::Backoff, random, None);
            }
            Class::Isolate { .. } | Class::TooLarge | Class::Busy => self.gate.passed(id),
            Class::TooSlow | Class::FailJob => {}
        }
    }

    fn scored(&mut self, id: u64, values: Vec<Value>) {
        let Some(open) = self.batches.get_mut(&id) else { return };
        let Step::Send(range) = open.batch.step() else { return };
        if open.generation == self.generation {
            self.proven = open.encoded.get(range.start).cloned();
        }
        let is_full = range.len() >= self.rows_now;
        let rows: Vec<RowRef> = open.rows.get(range).unwrap_or_default().to_vec();
        let bad = open.batch.scored();
        self.condemn(id, bad);
        for (row, value) in rows.into_iter().zip(values) {
            let outcome = self.result(value);
            self.decide(row, outcome);
        }
        if is_full && self.rows_now < self.rules.max_rows {
            self.full_batches += 1;
            if self.full_batches >= GROW_AFTER {
                (self.full_batches, self.rows_now) = (0, (self.rows_now * 2).min(self.rules.max_rows));
            }
        }
    }

    fn result(&mut self, value: Value) -> Outcome {
        if !matches!(value, Value::Float(f) if !f.is_finite()) {
            return Outcome::Scored(value);
        }
        self.nan_results += 1;
        match self.rules.nan {
            NanPolicy::Null => Outcome::Scored(Value::Null),
            NanPolicy::DeadLetter => Outcome::Failed(Failure {
                reason: "nan_result",
                message: "the model's result is not a finite number".into(),
                status: Some(200),
                response: format!("{value:?}"),
                ..Failure::default()
            }),
        }
    }

    fn piece_failed(&mut self, now: Duration, id: u64, class: Class, answer: &Answer, bytes: usize, random: f64) {
        let (details, form) = (&answer.details, self.form.clone());
        let Some(open) = self.batches.get_mut(&id) else { return };
        let attempts = open.batch.attempts();
        let (encoded, generation) = (&open.encoded, open.generation == self.generation);
        let failure = |reason: &'static str| {
            let request = |i: usize| match (encoded.get(i), &form) {
                (Some(row), Some(form)) if generation => form.body(std::iter::once(row)),
                _ => String::new(),
            };
            move |i: usize| Failure::of_answer(reason, details, attempts, clipped(&request(i), KEPT_MAX))
        };
        let reaction = match class {
            Class::Isolate { retries, reason } => open.batch.failed(retries, failure(reason)),
            Class::TooSlow => open.batch.too_slow(failure("too_slow")),
            Class::TooLarge => open.batch.too_large(failure("too_large")),
            Class::Busy => open.batch.busy(RETRIES_BUSY),
            // 429 without a closed gate: these rows alone step back
            Class::Overloaded if self.gate.closed().is_none() => Reaction::Again(attempts.max(1)),
            _ => return,
        };
        if class == Class::TooLarge {
            self.bytes_now = self.bytes_now.min((bytes / 2).max(BYTES_MIN));
        }
        match reaction {
            Reaction::Again(failures) => open.not_before = now + self.rules.backoff.wait(failures, random, details.retry_after),
            Reaction::Next => {}
            Reaction::Fewer(rows) => (self.rows_now, self.full_batches) = (self.rows_now.min(rows.max(1)), 0),
            Reaction::Bad(row, failure) => self.condemn(id, vec![(row, *failure)]),
            Reaction::GiveUp => self.gate.close(now, Cause::Blocked(Blocked::Busy), self.rules.slow_probe),
        }
    }

    /// The answer to a look: only a scored row opens the gate again.
    fn looked(&mut self, now: Duration, id: u64, class: Class, row: Row, generation: u64, details: &Details) {
        if class == Class::Done {
            if generation == self.generation {
                self.proven = Some(row);
            }
            self.looks = 0;
            return self.gate.open();
        }
        if class == Class::KeyRefused {
            self.events.push(Event::ReloadKey);
        }
        self.looks = self.looks.saturating_add(1);
        let at_once = self.proven.is_none() && self.looks < LOOKS_AT_ONCE && matches!(class, Class::Isolate { .. });
        let wait = if at_once { Duration::ZERO } else { self.rules.slow_probe.max(details.retry_after.unwrap_or_default()) };
        if self.gate.is_probe(id) {
            self.gate.close(now, Cause::Blocked(Blocked::Model), wait);
        }
        if !at_once {
            self.events.push(Event::Refetch);
        }
    }

    fn fail(&mut self, details: &Details) {
        let status = details.status.map_or(String::from("no answer"), |s| format!("status {s}"));
        let why = format!("{status}: {}", details.text);
        self.failed = Some(why.clone());
        self.chunks.clear();
        self.batches.clear();
        self.queues.clear();
        self.flights.clear();
        self.waiting = 0;
        self.waiting_since = None;
        self.events.push(Event::Failed(why));
    }
}

//! The task of an endpoint: feeds the desk and does what it says.
//!
//! In: chunks, answers, the passing of time. Out: requests on the wire, answered chunks, status. Invariant: one task
//! owns the desk, and a chunk's share of the held bytes is given back only with its answer. Not here: any decision
//! (`desk`).

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Level;

use crate::kill_point::{self, KillPoint};
use crate::settings::Secret;
use crate::time::{Clock, Timestamp};

use super::breaker::{Cause, Closed};
use super::describe;
use super::desk::{Answer, Desk, DeskEvent, Request, Standing};
use super::fetching::Fetching;
use super::http::{Fetched, Undescribed};
use super::notice::EndpointChange;
use super::policy::{Answered, Blocked, Details, HttpStatus};
use super::room::Leaving;
use super::wire::Wire;
use super::{Berth, Chunk, Ended, EndpointSignature, Fallback, Outcome, ScoreConfig, ScorerStatus, State, stopped};

#[cfg(test)]
mod tests;

/// Chunks handed over and not yet taken: enough to keep the task busy between two of its turns.
pub(super) const INTAKE_MAX: usize = 64;
/// This number of answered chunks is remembered before it is looked which of them are durable.
const ANSWERED_MIN: usize = 1_000;
/// How often to look whether a key that is refused was replaced.
const KEY_CHECK: Duration = Duration::from_secs(1);
/// How often to look whether anybody still waits, once nothing more can come in.
const ABANDONED_CHECK: Duration = Duration::from_secs(1);

/// A chunk on its way in.
#[derive(Debug)]
pub(super) struct NewChunk {
    pub chunk: Chunk,
    pub reply: Reply,
    /// Its place, given back with the answer and the commit.
    pub held: Arc<Berth>,
}

type Reply = oneshot::Sender<Result<Vec<Outcome>, Ended>>;

/// Something that was on the wire.
enum OffWire {
    Answer(u64, Answer),
    Swagger(Result<Fetched, Undescribed>),
    /// A knock, and whether it was heard.
    Knock(u64, bool),
}

/// What is on the wire.
#[derive(Clone, Copy, Debug)]
enum OnWire {
    Request(u64),
    Swagger,
    Knock(u64),
}

pub(super) struct Task {
    desk: Desk,
    wire: Box<dyn Wire>,
    key_source: Option<Secret>,
    key: Option<SecretString>,
    /// When the key was read last.
    key_read: Duration,
    constants: Vec<(String, serde_json::Value)>,
    /// Who answers in place of the endpoint, for the log.
    fallback: Option<String>,
    signature: Option<EndpointSignature>,
    fetching: Fetching,
    /// Somebody says that something was repaired.
    repaired: Arc<Notify>,
    links: watch::Receiver<u64>,
    replies: HashMap<u64, (Reply, Arc<Berth>)>,
    /// Chunks that were answered, and whose places may be held yet.
    answered: Vec<(u64, Weak<Berth>)>,
    /// With this number of them it is looked which are not held any more.
    answered_max: usize,
    left: Arc<Leaving>,
    failed: Option<String>,
    on_wire: JoinSet<OffWire>,
    /// What each task there is for.
    sent: HashMap<Id, OnWire>,
    status: Arc<ScorerStatus>,
    swagger: watch::Sender<Option<String>>,
    stop: CancellationToken,
    started: Instant,
    started_at: Timestamp,
}

impl Task {
    pub fn new(
        config: ScoreConfig,
        wire: Box<dyn Wire>,
        left: Arc<Leaving>,
        status: Arc<ScorerStatus>,
        swagger: watch::Sender<Option<String>>,
        repaired: Arc<Notify>,
        stop: CancellationToken,
    ) -> Task {
        let cached = config.cached_description.as_deref().and_then(|text| config.dialect.signature(text).ok());
        let is_written = config.signature.is_some();
        let mut task = Task {
            desk: Desk::new(config.rules()),
            wire,
            key_source: config.key,
            key: None,
            key_read: Duration::ZERO,
            constants: config.constants,
            fallback: config.fallback.as_ref().map(Fallback::shown),
            signature: None,
            fetching: Fetching::new(config.timing.pauses, config.refresh_interval, is_written),
            repaired,
            links: crate::links::changes(),
            replies: HashMap::new(),
            answered: Vec::new(),
            answered_max: ANSWERED_MIN,
            left,
            failed: None,
            on_wire: JoinSet::new(),
            sent: HashMap::new(),
            status,
            swagger,
            stop,
            started: Clock::Real.monotonic(),
            started_at: Clock::Real.now(),
        };
        if let Some(signature) = config.signature.or(cached) {
            task.use_signature(signature);
        }
        if task.load_key().is_err() {
            task.desk.key_missing(Duration::ZERO);
        }
        task
    }

    fn now(&self) -> Duration {
        Clock::Real.since(self.started)
    }

    pub async fn run(mut self, mut incoming: mpsc::Receiver<NewChunk>) {
        let mut is_open = true;
        loop {
            self.work();
            if !is_open && (self.desk.is_idle() || self.replies.values().all(|(reply, _)| reply.is_closed())) {
                return;
            }
            let wake = self.wake(is_open);
            let repaired = self.repaired.clone();
            tokio::select! {
                () = self.stop.cancelled() => return self.end(&stopped()),
                got = incoming.recv(), if is_open => match got {
                    Some(got) => self.take(got),
                    None => is_open = false,
                },
                Some(joined) = self.on_wire.join_next_with_id() => self.joined(joined),
                () = self.left.next() => {}
                () = repaired.notified() => self.look_now(),
                Ok(()) = self.links.changed() => self.desk.links_changed(self.now()),
                () = tokio::time::sleep_until(wake.into()) => {
                    self.forget_abandoned();
                    self.watch_key();
                }
            }
        }
    }

    fn wake(&self, is_open: bool) -> Instant {
        let now = self.now();
        let check = if is_open { Duration::from_secs(60) } else { ABANDONED_CHECK };
        let key = self.waits_for_key().then_some(self.key_read + KEY_CHECK);
        let wake = self.desk.wake(now).into_iter().chain(self.fetching.wake()).chain(key);
        self.started + wake.fold(now + check, Duration::min)
    }

    fn waits_for_key(&self) -> bool {
        let blocked = |closed: &Closed| closed.cause == Cause::Blocked(Blocked::Key);
        self.key_source.is_some() && matches!(self.desk.standing(), Standing::Closed(closed) if blocked(&closed))
    }

    /// Looks whether a refused key was replaced.
    fn watch_key(&mut self) {
        let now = self.now();
        if self.waits_for_key() && now >= self.key_read + KEY_CHECK && self.load_key() == Ok(true) {
            self.desk.look_now(now);
            self.fetching.ask_now(now);
        }
    }

    /// Whatever kept it from being looked at is perhaps repaired.
    fn look_now(&mut self) {
        let now = self.now();
        let _ = self.load_key();
        self.desk.look_now(now);
        self.fetching.ask_now(now);
    }

    fn take(&mut self, incoming: NewChunk) {
        if let Some(why) = &self.failed {
            let _ = incoming.reply.send(Err(Ended { why: why.clone() }));
            return;
        }
        let (now, Chunk { statement, args, is_patient, is_replay }) = (self.now(), incoming.chunk);
        let id = match (is_replay, is_patient) {
            (true, _) => self.desk.submit_replay(now, statement, args),
            (false, true) => self.desk.submit_patiently(now, statement, args),
            (false, false) => self.desk.submit(now, statement, args),
        };
        self.replies.insert(id, (incoming.reply, incoming.held));
    }

    /// Sends what may go and passes on what the desk found, until neither gives anything new.
    fn work(&mut self) {
        loop {
            let now = self.now();
            self.fetch_if_due(now);
            self.look_for_stored();
            while let Some(request) = self.desk.next_request(now) {
                self.send(request);
            }
            if let Some(id) = self.desk.next_knock(now, self.fetching.waits_for_connection()) {
                let knock = self.wire.knock();
                self.spawn(OnWire::Knock(id), async move { OffWire::Knock(id, knock.await) });
            }
            let events = self.desk.take_events();
            if events.is_empty() {
                break;
            }
            for event in events {
                self.heed(now, event);
            }
        }
        self.publish();
    }

    /// Tells the desk which answers are durable, where rows wait for that or many were given.
    fn look_for_stored(&mut self) {
        if self.desk.waits_for_commits() {
            // whatever is given back from here on wakes this task
            self.left.begin_to_wait();
        } else if self.answered.len() < self.answered_max {
            return;
        }
        let desk = &mut self.desk;
        self.answered.retain(|(chunk, place)| {
            let is_held = place.strong_count() > 0;
            if !is_held {
                desk.stored(*chunk);
            }
            is_held
        });
        self.answered_max = ANSWERED_MIN.max(2 * self.answered.len());
    }

    fn send(&mut self, request: Request) {
        if request.reload_key {
            let _ = self.load_key();
        }
        let key = self.key.clone();
        if self.key_source.is_some() && key.is_none() {
            // counts as a refusal: nothing goes out without its key
            let status = HttpStatus { code: 401, model: None, function_failed: false };
            let details = Details { text: self.status.last_error().unwrap_or_default(), ..Details::default() };
            let answer = Answer { outcome: Answered::Status(status), values: Vec::new(), details };
            self.spawn(OnWire::Request(request.id), async move { OffWire::Answer(request.id, answer) });
            return;
        }
        kill_point::reached(KillPoint::ScoreSend);
        let id = request.id;
        let answer = self.wire.score(request, key);
        self.spawn(OnWire::Request(id), async move {
            let (id, answer) = answer.await;
            OffWire::Answer(id, answer)
        });
    }

    fn spawn(&mut self, sent: OnWire, work: impl Future<Output = OffWire> + Send + 'static) {
        let task = self.on_wire.spawn(work);
        self.sent.insert(task.id(), sent);
    }

    fn joined(&mut self, joined: Result<(Id, OffWire), JoinError>) {
        let error = match joined {
            Ok((id, arrived)) => {
                self.sent.remove(&id);
                return self.arrived(arrived);
            }
            Err(error) => error,
        };
        let Some(sent) = self.sent.remove(&error.id()) else { return };
        tracing::error!("a request panicked, which is a fault of forebay: please report it with the log; {error}");
        let text = format!("a fault of forebay, {error}");
        self.arrived(match sent {
            OnWire::Request(id) => {
                let details = Details { text, ..Details::default() };
                OffWire::Answer(id, Answer { outcome: Answered::Closed, values: Vec::new(), details })
            }
            OnWire::Swagger => OffWire::Swagger(Err(Undescribed { outcome: Answered::Closed, why: text })),
            OnWire::Knock(id) => OffWire::Knock(id, false),
        });
    }

    fn heed(&mut self, now: Duration, event: DeskEvent) {
        match event {
            DeskEvent::Done { chunk, outcomes } => {
                let count = |of: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| of(outcome)).count() as u64;
                let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
                let away = count(|outcome| matches!(outcome, Outcome::Away));
                self.status.rows.fetch_add(outcomes.len() as u64 - failed - away, Ordering::Relaxed);
                self.status.failed_rows.fetch_add(failed, Ordering::Relaxed);
                self.status.away_rows.fetch_add(away, Ordering::Relaxed);
                if let Some((reply, held)) = self.replies.remove(&chunk) {
                    self.answered.push((chunk, Arc::downgrade(&held)));
                    let _ = reply.send(Ok(outcomes));
                }
            }
            DeskEvent::ReloadKey => match self.load_key() {
                Ok(true) => {
                    self.desk.look_now(now);
                    self.fetching.ask_now(now);
                }
                Ok(false) => {}
                Err(()) => self.desk.key_missing(now),
            },
            DeskEvent::Refetch => self.fetching.doubt(now),
            DeskEvent::Failed(why) => {
                self.failed = Some(why.clone());
                self.end(&Ended { why });
            }
        }
    }

    /// Reads the key again. `Ok(true)`: it is another one.
    fn load_key(&mut self) -> Result<bool, ()> {
        self.key_read = self.now();
        let Some(source) = &self.key_source else { return Ok(false) };
        match self.wire.read_key(source) {
            Ok(key) => {
                let is_new = self.key.as_ref().is_none_or(|old| old.expose_secret() != key.expose_secret());
                self.key = Some(key);
                Ok(is_new)
            }
            Err(why) => {
                self.key = None;
                self.status.set_error(format!("no key: {why}"));
                Err(())
            }
        }
    }

    fn arrived(&mut self, arrived: OffWire) {
        let now = self.now();
        match arrived {
            OffWire::Answer(id, answer) => {
                kill_point::reached(KillPoint::ScoreAnswer);
                self.status.requests.fetch_add(1, Ordering::Relaxed);
                self.status.observe(answer.details.took);
                if answer.outcome != Answered::Results {
                    self.status.failed_requests.fetch_add(1, Ordering::Relaxed);
                    self.status.set_error(shown(&answer));
                    tracing::debug!(error = shown(&answer), "a scoring request failed");
                }
                // without a deployment there is no document either: what took its place is not to be trusted
                if answer.details.status == Some(404) && self.fetching.undeployed(now, fastrand::f64()) {
                    self.signature = None;
                    self.desk.forget_signature();
                }
                if answer.outcome != Answered::Unreachable {
                    self.fetching.connected(now);
                }
                self.desk.answered(now, id, answer, fastrand::f64());
            }
            OffWire::Knock(id, is_heard) => {
                self.desk.knocked(now, id, is_heard, fastrand::f64());
                if is_heard {
                    self.fetching.connected(now);
                }
            }
            OffWire::Swagger(fetched) => self.fetched(now, fetched),
        }
    }

    fn fetch_if_due(&mut self, now: Duration) {
        if self.failed.is_some() || !self.fetching.asks(now) {
            return;
        }
        let description = self.wire.description(self.key.clone());
        self.spawn(OnWire::Swagger, async move { OffWire::Swagger(description.await) });
    }

    fn fetched(&mut self, now: Duration, fetched: Result<Fetched, Undescribed>) {
        let random = fastrand::f64();
        let Undescribed { outcome, why } = match fetched {
            Ok(Fetched::Document(text)) => match self.wire.dialect().signature(&text) {
                Ok(signature) => {
                    self.fetching.described(now, random);
                    self.desk.reached();
                    self.use_signature(signature);
                    self.swagger.send_if_modified(|old| {
                        let is_new = old.as_deref() != Some(text.as_str());
                        *old = Some(text);
                        is_new
                    });
                    return;
                }
                Err(error) => Undescribed { outcome: Answered::BadResponse, why: error.to_string() },
            },
            Ok(Fetched::Absent) => {
                self.fetching.absent(now, self.signature.is_none(), random);
                self.desk.reached();
                if self.signature.is_none() {
                    tracing::warn!(
                        "the endpoint has no swagger document: rows are sent unchecked as {{\"data\": [row, …]}}"
                    );
                    self.use_signature(self.wire.dialect().untyped());
                }
                return;
            }
            Err(undescribed) => undescribed,
        };
        self.desk.signature_missing(now);
        let is_unreachable = outcome == Answered::Unreachable && self.desk.unreachable(now, random);
        let failures = self.fetching.failed(now, is_unreachable, random);
        if failures == 1 && self.signature.is_none() {
            match &self.fallback {
                // the absence has lines of its own
                Some(_) => tracing::warn!(why, "the endpoint's signature is not known yet"),
                None => tracing::warn!(why, "the endpoint's signature is not known yet: rows wait for it"),
            }
        }
        // a key that was replaced is found here as well
        if self.key_source.is_some() {
            let _ = self.load_key();
        }
        self.status.set_error(format!("signature: {why}"));
    }

    fn use_signature(&mut self, signature: EndpointSignature) {
        let signature = signature.with_constants(&self.constants);
        if self.signature.as_ref() == Some(&signature) {
            return;
        }
        if let Some(before) = &self.signature {
            let (before, after) = (describe::taken(&before.input.layout), describe::taken(&signature.input.layout));
            tracing::warn!(before, after, "the endpoint's signature has changed: rows that fit go by the new one");
        }
        self.desk.set_signature(self.now(), &signature);
        self.signature = Some(signature);
    }

    fn forget_abandoned(&mut self) {
        let gone: Vec<u64> =
            self.replies.iter().filter(|(_, (reply, _))| reply.is_closed()).map(|(id, _)| *id).collect();
        for id in gone {
            self.replies.remove(&id);
            self.desk.forget(id);
        }
    }

    fn end(&mut self, ended: &Ended) {
        for (_, (reply, _held)) in self.replies.drain() {
            let _ = reply.send(Err(ended.clone()));
        }
    }

    fn publish(&self) {
        let status = &self.status;
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        status.in_flight.store(gauge(self.desk.in_flight()), Ordering::Relaxed);
        status.parallel.store(i64::from(self.desk.parallel_now()), Ordering::Relaxed);
        status.waiting_rows.store(gauge(self.desk.waiting_rows()), Ordering::Relaxed);
        status.nan_results.store(self.desk.nan_results(), Ordering::Relaxed);
        let at = |t: Duration| self.started_at.saturating_add(i64::try_from(t.as_nanos() / 100).unwrap_or(i64::MAX));
        let state = match self.desk.standing() {
            Standing::UnknownSignature => State::UnknownSignature,
            Standing::Ready => State::Ready,
            Standing::Failed(why) => State::Failed { why },
            Standing::Closed(closed) => match closed.cause {
                Cause::Backoff(outage) => {
                    State::BackingOff { since: at(closed.since), until: at(closed.until), outage }
                }
                Cause::Blocked(blocked) => State::Paused {
                    since: at(closed.since),
                    reason: blocked.reason(),
                    remedy: match self.desk.misfit() {
                        Some(misfit) => format!("{misfit}; {}", blocked.remedy()),
                        None => blocked.remedy().to_owned(),
                    },
                },
            },
        };
        let since = self.desk.away_since().map(at);
        let before = status.set_away_since(since);
        let was = status.set_state(state.clone());
        let waiting = || status.backlog();
        let change = EndpointChange {
            state: &state,
            was: &was,
            away: (before, since),
            by: self.fallback.as_deref(),
            now: at(self.now()),
            waiting: &waiting,
        };
        let Some((level, text)) = change.line() else { return };
        let error = status.last_error().unwrap_or_default();
        match level {
            Level::ERROR => tracing::error!("{text}"),
            Level::WARN => tracing::warn!(error, since = since.map(tracing::field::display), "{text}"),
            _ if since.is_none() && before.is_some() => {
                let rows = status.away_rows.load(Ordering::Relaxed);
                tracing::info!(since = before.map(tracing::field::display), rows, "{text}");
            }
            _ => tracing::info!("{text}"),
        }
    }
}

fn shown(answer: &Answer) -> String {
    let status = answer.details.status.map_or_else(|| format!("{:?}", answer.outcome), |status| status.to_string());
    format!("{status}: {}", answer.details.text)
}

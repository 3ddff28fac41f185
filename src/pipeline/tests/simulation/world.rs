//! What lies around a job: publisher and broker, receivers, an endpoint, a machine that is killed and whose clock is
//! moved. Each step is drawn from the seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json as Body;
use bytes::Bytes;
use serde_json::{Value as Json, json};

use crate::arrival::{ArrivalClock, Eras};
use crate::batch::{MessageMeta, Rows, Urgency, write_row_json};
use crate::connections::Connections;
use crate::job::{self, InputSettings, Job};
use crate::journal::planted::Planted;
use crate::journal::{Append, Journal, JournalConfig, Ledger};
use crate::output::{Delivering, Delivery, Output, OutputSettings, RowIds, Site, ToldColumns};
use crate::pipeline::health::Health;
use crate::pipeline::intake::Intake;
use crate::pipeline::outputs::{self, OutputHandle};
use crate::pipeline::prepare::{self, Prepared};
use crate::pipeline::report::WatchedStages;
use crate::pipeline::statement::{StatementBuild, Thread};
use crate::pipeline::stop::Stop;
use crate::pipeline::{clock_watch, journal_config, scorers};
use crate::source::mqtt::redelivery::{Recognition, Seen, mark};
use crate::source::{Acknowledge, Arrivals, Arrived, RecentRecord, SourceStats};
use crate::time::{Clock, TICKS_PER_SECOND, Timestamp};
use crate::udf::Versions;

const QUERY: &str = "SELECT n, d, System.Timestamp() AS t INTO plain FROM a;
SELECT d, COUNT(*) AS c, SUM(n) AS s, System.Timestamp() AS t INTO windows FROM a
GROUP BY d, TumblingWindow(second, 10);
SELECT n, LAG(n) OVER (PARTITION BY d LIMIT DURATION(second, 300)) AS l INTO lagged FROM a;
SELECT n, udf.score(CASE WHEN n % 17 = 16 THEN 'no number' ELSE CAST(n AS nvarchar(max)) END) AS s INTO scored FROM a";

const DEVICES: u64 = 3;
/// Rounds of parts that may wait for one commit; a part itself waits once it has eight under way.
const ROUNDS_MAX: usize = 5;
/// Messages that the broker sends before it has an acknowledgement.
const WINDOW: usize = 20;
/// Rounds of a second until all windows are closed.
const LAST_ROUNDS: usize = 40;
/// Long enough that the journal stores nothing before it is told to.
const NEVER: Duration = Duration::from_secs(3_600);

/// Whether a row does not fit the endpoint's signature.
pub(super) fn refused(n: i64) -> bool {
    n % 17 == 16
}

/// What happened in runs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tried {
    pub events: u64,
    pub kills: u64,
    pub stops: u64,
    pub redelivered: u64,
    pub cut_deliveries: u64,
    pub clock_steps: u64,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tried { events, kills, stops, redelivered, cut_deliveries, clock_steps } = self;
        write!(
            f,
            "{events} events, {kills} kills, {cut_deliveries} of them amid a delivery, {stops} restarts, {redelivered} \
             redeliveries, {clock_steps} steps of the clock"
        )
    }
}

impl std::ops::AddAssign for Tried {
    fn add_assign(&mut self, more: Tried) {
        self.events += more.events;
        self.kills += more.kills;
        self.stops += more.stops;
        self.redelivered += more.redelivered;
        self.cut_deliveries += more.cut_deliveries;
        self.clock_steps += more.clock_steps;
    }
}

#[derive(Clone, Debug)]
struct Message {
    n: i64,
    packet: u16,
    topic: String,
    payload: Bytes,
}

/// A broker with one session, which it keeps.
#[derive(Debug, Default)]
struct Broker {
    sent: i64,
    packets: u16,
    /// Not sent yet.
    waiting: VecDeque<Message>,
    /// Sent and not acknowledged, in order.
    unacknowledged: VecDeque<Message>,
    /// Of those, what it sends again.
    again: VecDeque<Message>,
    acknowledged: BTreeSet<i64>,
}

impl Broker {
    fn acknowledge(&mut self, packet: u16) {
        if let Some(at) = self.unacknowledged.iter().position(|message| message.packet == packet)
            && let Some(message) = self.unacknowledged.remove(at)
        {
            self.acknowledged.insert(message.n);
        }
    }
}

/// Packets whose messages the journal says are stored.
#[derive(Debug)]
struct Told {
    packets: Vec<u16>,
    told: Arc<Mutex<Vec<u16>>>,
}

impl Acknowledge for Told {
    fn stored(self: Box<Self>) {
        self.told.lock().unwrap().extend(self.packets);
    }
}

/// Rows of an output by their ids.
pub(super) type TakenRows = BTreeMap<String, BTreeMap<String, Json>>;

/// Who takes the rows of all outputs.
#[derive(Debug, Default)]
struct Receivers {
    rows: TakenRows,
    broken: Vec<String>,
    /// The process is killed when one delivery has taken this number of rows more.
    cut: Option<usize>,
    stop: Stop,
    is_cut: bool,
}

impl Receivers {
    fn take(&mut self, output: &str, rows: &Rows, ids: RowIds<'_>) -> Delivery {
        for (i, meta) in rows.batch.meta().iter().enumerate() {
            if self.cut == Some(0) {
                self.cut = None;
                self.is_cut = true;
                self.stop.set();
                return Delivery::try_again("the process is killed");
            }
            self.cut = self.cut.map(|left| left - 1);
            let mut text = String::new();
            write_row_json(&rows.columns, rows.batch.row(i), &mut text);
            let row: Json = serde_json::from_str(&text).unwrap();
            let id = ids.id(meta);
            let before = self.rows.entry(output.to_owned()).or_default().insert(id.clone(), row.clone());
            if before.as_ref().is_some_and(|before| *before != row) {
                self.broken.push(format!("{output}: the id {id} is of two rows: {before:?} and {row}"));
            }
        }
        Delivery::Delivered
    }
}

#[derive(Debug)]
struct Receiving {
    name: String,
    receivers: Arc<Mutex<Receivers>>,
    told: ToldColumns,
}

impl OutputSettings for Receiving {
    fn told(&self) -> &ToldColumns {
        &self.told
    }

    fn build(&self, _: Site<'_>) -> Result<Box<dyn Output>, String> {
        Ok(Box::new(Receiver { name: self.name.clone(), receivers: self.receivers.clone() }))
    }
}

#[derive(Debug)]
struct Receiver {
    name: String,
    receivers: Arc<Mutex<Receivers>>,
}

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Output for Receiver {
    fn deliver<'a>(&'a mut self, rows: &'a Rows, ids: RowIds<'a>) -> Delivering<'a> {
        let delivery = self.receivers.lock().unwrap().take(&self.name, rows, ids);
        Box::pin(std::future::ready(delivery))
    }

    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }
}

/// A process of the job.
struct Life {
    journal: Journal,
    arrival: ArrivalClock,
    stop: Stop,
    parts: Vec<Thread>,
    intake: Intake,
    seen: Seen,
    told: Arc<Mutex<Vec<u16>>>,
    outputs: Vec<OutputHandle>,
    scorers: Vec<crate::score::Scorer>,
    /// Rounds since the last commit.
    rounds: usize,
}

pub(super) struct World {
    rng: fastrand::Rng,
    broker: Broker,
    receivers: Arc<Mutex<Receivers>>,
    clock: Clock,
    life: Option<Life>,
    pub(super) tried: Tried,
    pub(super) broken: Vec<String>,
    trace: Vec<String>,
    planted: Option<Planted>,
    job: Job,
    prepared: Prepared,
    runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
}

async fn score(Body(asked): Body<Json>) -> Body<Json> {
    let numbers = asked["data"].as_array().unwrap().iter().map(|n| n.as_i64().unwrap());
    Body(json!({ "result": numbers.map(|n| 2 * n).collect::<Vec<i64>>() }))
}

impl World {
    pub(super) fn new(seed: u64, planted: Option<Planted>) -> World {
        // what a kill leaves does not depend on the disk here, and memory is faster
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let app = axum::Router::new().route("/score", axum::routing::post(score));
        runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
        std::fs::write(dir.path().join("job.asaql"), QUERY).unwrap();
        let outputs: String = ["plain", "windows", "lagged", "scored"]
            .map(|name| format!("[outputs.{name}]\ntype = \"stdout\"\n"))
            .concat();
        let text = format!(
            "[job]\nname = \"simulation\"\nquery = \"job.asaql\"\nstart = \"oldest\"\n[inputs.a]\ntype = \"mqtt\"\n\
             url = \"mqtt://127.0.0.1:1\"\ntopics = [\"a/+\"]\n[functions.score]\ntype = \"azureml\"\n\
             url = \"http://{address}/score\"\ninput_kind = \"vector\"\non_misfit = \"dead-letter\"\n\
             columns = [{{ name = \"n\", type = \"bigint\" }}]\n{outputs}"
        );
        let mut job = job::parse(&text, &dir.path().join("job.toml")).unwrap_or_else(|e| panic!("{e}"));
        let receivers: Arc<Mutex<Receivers>> = Arc::default();
        for output in &mut job.outputs {
            let told = ToldColumns::default();
            let receiving = Receiving { name: output.name.clone(), receivers: receivers.clone(), told };
            output.settings = Arc::new(receiving);
        }
        let prepared = prepare::prepare(&job).unwrap_or_else(|e| panic!("{e}"));
        let mut world = World {
            rng: fastrand::Rng::with_seed(seed),
            broker: Broker::default(),
            receivers,
            clock: Clock::manual(Timestamp::parse("2026-11-01T10:00:00Z").unwrap()),
            life: None,
            tried: Tried::default(),
            broken: Vec::new(),
            trace: Vec::new(),
            planted,
            job,
            prepared,
            runtime,
            dir,
        };
        world.start();
        world
    }

    pub(super) fn pool(&self) -> PathBuf {
        self.dir.path().join("simulation.db")
    }

    pub(super) fn sent(&self) -> i64 {
        self.broker.sent
    }

    pub(super) fn acknowledged(&self) -> BTreeSet<i64> {
        self.broker.acknowledged.clone()
    }

    pub(super) fn rows(&self) -> TakenRows {
        self.receivers.lock().unwrap().rows.clone()
    }

    pub(super) fn ledger(&self) -> Arc<Ledger> {
        self.life.as_ref().unwrap().journal.ledger()
    }

    /// What was done, a line a step.
    pub(super) fn told(&self) -> String {
        self.trace.join("\n")
    }

    fn tell(&mut self, what: String) {
        self.trace.push(what);
    }

    /// The process starts on the pool as it is.
    fn start(&mut self) {
        let _entered = self.runtime.enter();
        let (job, prepared) = (&self.job, &self.prepared);
        let config = JournalConfig {
            path: self.pool(),
            commit_interval: NEVER,
            commit_interval_min: NEVER,
            planted: self.planted,
            ..journal_config(job, &self.clock)
        };
        let journal = Journal::open(config).unwrap();
        let margin = clock_watch::margin(&prepared.plan, prepared.options.policies.late_tolerance);
        let eras = Eras::clone(&journal.eras());
        let arrival = ArrivalClock::of_pool(self.clock.clone(), journal.last_arrival(), eras, margin);
        let health = Arc::new(Health::new(job.state_bytes_max));
        let versions = Versions::new(&prepared.bindings);
        let watched = WatchedStages::new(
            job,
            journal.clone(),
            &self.clock,
            health.clone(),
            arrival.clone(),
            &prepared.bindings,
            versions.clone(),
        );
        let (stop, hurry) = (Stop::default(), tokio_util::sync::CancellationToken::new());
        let outputs = outputs::start(job, &journal, &self.clock, &watched, &hurry, &Connections::default()).unwrap();
        let scorers = scorers::start(job, &journal, &watched).unwrap();
        let build = StatementBuild {
            job,
            prepared,
            versions: &versions,
            journal: &journal,
            outputs: &outputs,
            scorers: &scorers,
            references: &[],
            stop: &stop,
            health: &health,
            clock: &self.clock,
            arrival: &arrival,
            failures: watched.failures(),
            catch_ups: watched.catch_ups(),
            stalls: &watched.stalls,
            is_driven: true,
        };
        let (parts, consumers) = build.make().unwrap();
        let id = journal.input("a").unwrap();
        build.keep_only(&consumers).unwrap();
        let stored = journal.recent_messages(id, 1_000).unwrap();
        let mut seen = Seen::new(1_000);
        seen.seed(stored.iter().map(|m| RecentRecord { mark: m.mark, name: &m.message.name, payload: &m.payload }));
        // of a session that the broker has from the first connection on
        seen.connected(self.tried.kills + self.tried.stops > 0);
        let InputSettings::Stream(stream) = &job.inputs[0].kind else { panic!("a stream") };
        let intake = Intake {
            name: "a".into(),
            input: id,
            payloads: stream.payloads.clone(),
            journal: journal.clone(),
            stats: Arc::new(SourceStats::default()),
            health,
            failures: watched.failures().clone(),
        };
        let mut receivers = self.receivers.lock().unwrap();
        (receivers.stop, receivers.cut, receivers.is_cut) = (stop.clone(), None, false);
        drop(receivers);
        self.broker.again = self.broker.unacknowledged.clone();
        self.life = Some(Life {
            journal,
            arrival,
            stop,
            parts,
            intake,
            seen,
            told: Arc::default(),
            outputs: outputs.into_iter().map(|(handle, _)| handle).collect(),
            scorers: scorers.values().cloned().collect(),
            rounds: 0,
        });
    }

    /// The process is gone, with what was not durable.
    fn kill(&mut self, how: &str) {
        self.tried.kills += 1;
        self.tell(format!("kill {how}"));
        let Some(life) = self.life.take() else { return };
        life.scorers.iter().for_each(crate::score::Scorer::stop);
        life.journal.kill();
        drop(life);
        self.start();
    }

    /// The process ends as it is asked to, and starts again.
    fn restart(&mut self) {
        self.tried.stops += 1;
        self.tell("stop and start".to_owned());
        self.store(false);
        let Some(life) = self.life.take() else { return };
        let Life { journal, stop, mut parts, outputs, scorers, told, .. } = life;
        stop.set();
        // those that ask an endpoint end before those that take its answers
        parts.sort_by_key(|part| (part.name.starts_with("output "), part.name.starts_with("score ")));
        for mut part in parts {
            let ended = loop {
                match part.rounds.round() {
                    Ok(true) => {}
                    Ok(false) => break part.rounds.drain(),
                    Err(error) => break Err(error),
                }
            };
            if let Err(error) = ended {
                self.broken.push(format!("{} did not end well: {error}", part.name));
            }
        }
        told.lock().unwrap().iter().for_each(|packet| self.broker.acknowledge(*packet));
        scorers.iter().for_each(crate::score::Scorer::stop);
        drop(outputs);
        journal.close();
        self.start();
    }

    pub(super) fn step(&mut self) {
        self.clock.advance(Duration::from_millis(self.rng.u64(1..300)));
        match self.rng.u32(0..100) {
            0..25 => self.publish(),
            25..45 => self.receive(),
            45..68 => {
                let part = self.rng.usize(0..self.life.as_ref().map_or(1, |life| life.parts.len()));
                self.round(part);
            }
            68..79 => self.all_parts(),
            79..88 => self.store(true),
            88..90 => self.store(false),
            90..92 => self.clock.advance(Duration::from_millis(self.rng.u64(0..12_000))),
            92..95 => self.kill("at rest"),
            95..97 => {
                let rows = self.rng.usize(0..5);
                self.tell(format!("a delivery is cut behind {rows} rows"));
                self.receivers.lock().unwrap().cut = Some(rows);
            }
            97 => self.connect_again(),
            98 => self.restart(),
            _ => {
                let seconds = self.rng.i64(-20..20);
                self.tried.clock_steps += 1;
                self.tell(format!("the clock is set by {seconds} s"));
                self.clock.set(self.clock.now().saturating_add(seconds * TICKS_PER_SECOND));
            }
        }
        self.look_at_clock();
        self.acknowledge();
    }

    fn look_at_clock(&mut self) {
        let Some(life) = &self.life else { return };
        if let Some(news) = clock_watch::look(&life.arrival) {
            clock_watch::keep(&life.journal, &life.arrival, news).unwrap();
        }
    }

    fn publish(&mut self) {
        for _ in 0..self.rng.u32(1..7) {
            let n = self.broker.sent;
            self.broker.packets = self.broker.packets % u16::MAX + 1;
            let device = format!("d{}", self.rng.u64(0..DEVICES));
            self.broker.sent += 1;
            self.tried.events += 1;
            self.broker.waiting.push_back(Message {
                n,
                packet: self.broker.packets,
                topic: format!("a/{device}"),
                payload: Bytes::from(format!("{{\"n\":{n},\"d\":\"{device}\"}}")),
            });
        }
    }

    /// A batch comes from the broker and is handed to the journal.
    fn receive(&mut self) {
        let Some(life) = &mut self.life else { return };
        let (mut messages, mut packets, mut known) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.rng.u32(1..9) {
            let (message, dup) = match self.broker.again.pop_front() {
                Some(message) => (message, true),
                None if self.broker.unacknowledged.len() >= WINDOW => break,
                None => {
                    let Some(message) = self.broker.waiting.pop_front() else { break };
                    self.broker.unacknowledged.push_back(message.clone());
                    (message, false)
                }
            };
            match life.seen.judge(message.packet, dup, &message.topic, &message.payload, || false) {
                Recognition::New | Recognition::Possible => {}
                Recognition::Redelivered | Recognition::Held => {
                    known.push(message.packet);
                    continue;
                }
            }
            packets.push(message.packet);
            messages.push(Arrived {
                payload: message.payload.clone(),
                message: Arc::new(MessageMeta { name: message.topic.as_str().into(), ..MessageMeta::default() }),
                arrival: life.arrival.now(),
                mark: mark(message.packet, &message.payload, true),
                is_repeat: dup,
            });
        }
        self.tried.redelivered += known.len() as u64;
        let told = format!("receive {} new, {} known", packets.len(), known.len());
        known.iter().for_each(|packet| self.broker.acknowledge(*packet));
        if !messages.is_empty() {
            let ack = Box::new(Told { packets, told: life.told.clone() });
            let arrivals = Arrivals { messages, ack, urgency: Urgency::InBudget };
            let append = life.intake.append(arrivals, Vec::new());
            assert!(life.journal.try_append(append).is_none(), "there is room");
        }
        self.tell(told);
    }

    /// PUBACKs leave.
    fn acknowledge(&mut self) {
        let Some(life) = &self.life else { return };
        let told = std::mem::take(&mut *life.told.lock().unwrap());
        told.iter().for_each(|packet| self.broker.acknowledge(*packet));
    }

    /// The connection is lost and made again: what was handed over is resolved by then.
    fn connect_again(&mut self) {
        self.store(true);
        // their acknowledgements were on the way
        let Some(life) = &mut self.life else { return };
        life.told.lock().unwrap().clear();
        life.seen.connected(true);
        self.broker.again = self.broker.unacknowledged.clone();
        self.tell("connected again".to_owned());
    }

    /// What waits becomes durable: in the redo log, or in the file.
    fn store(&mut self, is_quick: bool) {
        let Some(life) = &mut self.life else { return };
        life.rounds = 0;
        if !is_quick {
            life.journal.sync().unwrap();
        }
        // when the second is stored, everybody has the answers of the first commit
        for _ in 0..2 {
            let (done, stored) = channel();
            let append = Append {
                input: life.intake.input,
                events: Vec::new(),
                received: 0,
                undecodable: Vec::new(),
                dropped: Vec::new(),
                ledger: Vec::new(),
                era: 0,
                urgency: Urgency::InBudget,
                on_durable: Box::new(move |result| done.send(result).unwrap()),
            };
            life.journal.append(append);
            life.journal.flush();
            stored.recv().unwrap().unwrap();
        }
        self.tell(format!("store{}", if is_quick { "" } else { ", with a checkpoint" }));
    }

    fn all_parts(&mut self) {
        for part in 0..self.life.as_ref().map_or(0, |life| life.parts.len()) {
            self.round(part);
        }
    }

    /// One round of a part; of one that asks an endpoint, with that of the part that takes the answers.
    fn round(&mut self, part: usize) {
        let Some(life) = &mut self.life else { return };
        let Some(thread) = life.parts.get_mut(part) else { return };
        if thread.name.starts_with("score ") {
            return;
        }
        let name = thread.name.clone();
        let mut ended = thread.rounds.round();
        life.rounds += 1;
        let answers = format!("score {}", name.trim_start_matches("statement "));
        let answering = life.parts.iter_mut().find(|thread| thread.name == answers);
        if let (Some(answering), Ok(true)) = (answering, &ended) {
            if self.rng.u32(0..30) == 0 {
                return self.kill("while the endpoint works");
            }
            ended = answering.rounds.round();
            life.rounds += 1;
        }
        let is_late = life.rounds >= ROUNDS_MAX;
        self.tell(format!("a round of {name}"));
        if self.receivers.lock().unwrap().is_cut {
            self.tried.cut_deliveries += 1;
            return self.kill("in a delivery");
        }
        match ended {
            Ok(true) => {}
            Ok(false) => self.broken.push(format!("{name} ended")),
            Err(error) => self.broken.push(format!("{name} failed: {error}")),
        }
        if is_late {
            self.store(true);
        }
    }

    /// Nothing goes wrong any more, and the job comes to the end of what there is.
    pub(super) fn settle(&mut self) {
        self.tell("settle".to_owned());
        self.receivers.lock().unwrap().cut = None;
        let mut left = LAST_ROUNDS;
        for _ in 0..2_000 {
            self.clock.advance(Duration::from_secs(1));
            self.look_at_clock();
            self.receive();
            self.all_parts();
            self.store(true);
            self.acknowledge();
            let is_empty = self.broker.waiting.is_empty() && self.broker.unacknowledged.is_empty();
            left = if is_empty { left - 1 } else { LAST_ROUNDS };
            if left == 0 {
                break;
            }
        }
        let broken = std::mem::take(&mut self.receivers.lock().unwrap().broken);
        self.broken.extend(broken);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(life) = self.life.take() {
            life.scorers.iter().for_each(crate::score::Scorer::stop);
            life.journal.kill();
        }
    }
}

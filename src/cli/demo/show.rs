//! The play itself: the fleet publishes, the endpoint goes away and comes back, the pool drains.
//!
//! In: peers that answer, a job file. Out: what a person sees, and whether everything arrived. Invariant: it ends by
//! itself, whatever the peers do. Not here: how a line looks (`screen`), what counts as good (`verdict`).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::peers::{PATIENCE, Peers};
use super::screen::{Numbers, Screen};
use super::verdict::Verdict;
use super::{DemoArgs, NoResult, failure};
use crate::cli::journal::{ledger, number, verified};
use crate::demo::client::{Publisher, Receiver};
use crate::demo::fleet::Fleet;
use crate::demo::folder::Folder;
use crate::demo::tally::Tally;
use crate::job::Job;
use crate::journal::JournalStatus;
use crate::pipeline::{Pipeline, Prepared, Snapshot};
use crate::time::{Clock, task_now, task_since};

/// Rides that are told apart: what the longest and fastest run publishes.
const RIDES_MAX: usize = 10_000_000;
/// Published and not yet acknowledged: below the room in the fleet's client, so that publishing never waits.
const UNACKNOWLEDGED_MAX: u64 = 900;
/// How often the fleet publishes what is due.
const PACE: Duration = Duration::from_millis(20);
/// Draining gives up after so long without a ride: the job looks for an endpoint that was away once a minute at least.
const GIVE_UP: Duration = Duration::from_secs(65);
/// After the last ride: time for repeats to come.
const SETTLE: Duration = Duration::from_millis(300);

/// Begin and end of the outage in a run of this number of seconds.
pub fn outage(seconds: u64) -> (Duration, Duration) {
    let third = Duration::from_secs(seconds) / 3;
    (third, third * 2)
}

/// Why the play did not reach its end.
enum CutShort {
    Interrupted,
    Failed(String),
}

/// Everything that runs.
pub struct Show {
    job: PathBuf,
    pool: PathBuf,
    peers: Peers,
    pipeline: Pipeline,
    fleet: Fleet,
    feed: Publisher,
    /// Listens as long as it is held.
    _receiver: Receiver,
    tally: Arc<Mutex<Tally>>,
    screen: Screen,
    started: Instant,
    next_status: Instant,
    is_endpoint_down: bool,
    /// Trouble that was told and is not over.
    told: Option<String>,
}

impl Show {
    /// Connects receiver and fleet, and starts the job.
    ///
    /// # Errors
    /// What keeps them from starting.
    pub async fn open(
        args: &DemoArgs,
        peers: Peers,
        path: &Path,
        (job, prepared): (Job, Prepared),
        screen: Screen,
    ) -> Result<Show, NoResult> {
        let tally = Arc::new(Mutex::new(Tally::new(args.seed, RIDES_MAX, peers.endpoint.is_some())));
        let sink = tally.clone();
        let name = |who: &str| format!("forebay-demo-{who}-{:08x}", fastrand::u32(..));
        let topic = format!("{}/scored", peers.root);
        let receiver = Receiver::listen(&name("receiver"), &peers.host, peers.port, &topic, move |message| {
            sink.lock().unwrap_or_else(PoisonError::into_inner).take(&message.payload);
        });
        if !receiver.ready(PATIENCE).await {
            let url = &peers.broker_url;
            return Err(failure(format!(
                "the broker {url} takes connections but confirmed no subscription in {PATIENCE:?}; it must speak MQTT \
                5 and let in clients without a login"
            )));
        }
        let feed = Publisher::connect(&name("fleet"), &peers.host, peers.port);
        let pipeline = Pipeline::start(&job, &prepared, Clock::Real).await.map_err(failure)?;
        let now = task_now();
        let show = Show {
            job: path.to_owned(),
            pool: job.journal.config.path.clone(),
            peers,
            pipeline,
            fleet: Fleet::new(args.seed),
            feed,
            _receiver: receiver,
            tally,
            screen,
            started: now,
            next_status: now,
            is_endpoint_down: false,
            told: None,
        };
        show.subscribed().await?;
        Ok(show)
    }

    /// Waits for the job's subscription: what is published before it has no taker.
    async fn subscribed(&self) -> Result<(), NoResult> {
        let end = task_now() + PATIENCE;
        loop {
            let trouble = self.snapshot().trouble.into_iter().find(|t| t.starts_with("input "));
            match trouble {
                None => return Ok(()),
                Some(trouble) if task_now() >= end => {
                    return Err(failure(format!("the job does not get its rides: {trouble}")));
                }
                Some(_) => tokio::time::sleep(PACE).await,
            }
        }
    }

    /// Plays to the end; answers whether everything arrived and all equations hold.
    ///
    /// # Errors
    /// When the job fails.
    pub async fn run(
        mut self,
        args: &DemoArgs,
        stop: &CancellationToken,
        folder: &mut Folder,
    ) -> Result<bool, NoResult> {
        if args.keep {
            folder.keep();
        }
        self.screen.header();
        self.started = task_now();
        self.next_status = self.started + self.screen.interval();
        match self.play(args, stop).await {
            Ok(()) => {}
            Err(CutShort::Interrupted) => return self.interrupted(folder).await,
            Err(CutShort::Failed(why)) => {
                let _ = self.pipeline.stop().await;
                return Err(failure(why));
            }
        }
        if args.keep { self.result_and_go_on(args, stop, folder).await } else { self.result(folder).await }
    }

    async fn play(&mut self, args: &DemoArgs, stop: &CancellationToken) -> Result<(), CutShort> {
        let io = |why: std::io::Error| CutShort::Failed(format!("the embedded endpoint: {why}"));
        if self.peers.endpoint.is_some() {
            let (begin, end) = outage(args.seconds);
            self.publish(args.rate, Some(begin), stop).await?;
            if let Some(endpoint) = &self.peers.endpoint {
                endpoint.go_down().await.map_err(io)?;
            }
            self.is_endpoint_down = true;
            self.say("the endpoint goes away; it refuses connections and rides gather in the pool");
            self.publish(args.rate, Some(end), stop).await?;
            if let Some(endpoint) = &self.peers.endpoint {
                endpoint.come_back().map_err(io)?;
            }
            self.is_endpoint_down = false;
            self.say("the endpoint is back; the job notices when it tries next, then the pool drains, oldest first");
        }
        self.publish(args.rate, Some(Duration::from_secs(args.seconds)), stop).await?;
        self.say("the fleet stops; what is in the pool goes on");
        self.drain(stop).await
    }

    /// Publishes at `rate` until `end`, counted from the start; `None`: until it is stopped.
    async fn publish(&mut self, rate: u64, end: Option<Duration>, stop: &CancellationToken) -> Result<(), CutShort> {
        loop {
            let elapsed = task_since(self.started);
            let until = end.map_or(elapsed, |end| elapsed.min(end));
            let due = (until.as_secs_f64() * rate as f64) as u64;
            while self.feed.sent() < due
                && self.feed.sent().saturating_sub(self.feed.acknowledged()) < UNACKNOWLEDGED_MAX
            {
                let ride = self.fleet.ride(Clock::Real.now());
                let topic = ride.topic.replacen("taxi", &self.peers.root, 1);
                if !self.feed.send(&topic, ride.payload).await {
                    return Err(CutShort::Failed("the fleet's client ended".to_owned()));
                }
            }
            if end.is_some_and(|end| elapsed >= end) {
                return Ok(());
            }
            self.pause(stop).await?;
        }
    }

    /// Until every ride has arrived, or nothing moves any more.
    async fn drain(&mut self, stop: &CancellationToken) -> Result<(), CutShort> {
        let (mut moved, mut before) = (task_now(), 0);
        loop {
            let distinct = self.tally(Tally::distinct);
            if distinct >= self.feed.sent() && self.feed.acknowledged() >= self.feed.sent() {
                self.status();
                return Ok(());
            }
            if distinct != before {
                (moved, before) = (task_now(), distinct);
            }
            if task_since(moved) > GIVE_UP {
                let snapshot = self.snapshot();
                self.status();
                self.say(&format!("nothing came for {} s; giving up on the rest", task_since(moved).as_secs()));
                snapshot.trouble.iter().for_each(|t| self.screen.say(&format!("   {t}")));
                return Ok(());
            }
            self.pause(stop).await?;
        }
    }

    /// A moment, and a status line when one is due.
    async fn pause(&mut self, stop: &CancellationToken) -> Result<(), CutShort> {
        tokio::select! {
            () = tokio::time::sleep(PACE) => {}
            () = stop.cancelled() => return Err(CutShort::Interrupted),
            why = self.pipeline.failed() => return Err(CutShort::Failed(why)),
        }
        if task_now() >= self.next_status {
            self.status();
            self.next_status += self.screen.interval();
        }
        Ok(())
    }

    async fn interrupted(mut self, folder: &Folder) -> Result<bool, NoResult> {
        self.say("stopping; the job commits what it has");
        let (sent, pool) = (self.feed.acknowledged(), self.pool.clone());
        self.pipeline.stop().await.map_err(failure)?;
        let seen = self.tally.lock().unwrap_or_else(PoisonError::into_inner).distinct();
        let kept = if folder.is_temporary() {
            "they go with it".to_owned()
        } else {
            format!("they stay in {}", pool.display())
        };
        let rest = sent.saturating_sub(seen);
        self.screen.say(&format!(
            "stopped: the broker acknowledged {} rides, the receiver saw {}; {}",
            number(sent),
            number(seen),
            if rest == 0 {
                "none is left".to_owned()
            } else {
                format!("{} were still on their way through broker and pool, {kept}", number(rest))
            }
        ));
        Ok(true)
    }

    /// Stops the job, then says what came of it.
    async fn result(mut self, folder: &mut Folder) -> Result<bool, NoResult> {
        self.pipeline.stop().await.map_err(failure)?;
        tokio::time::sleep(SETTLE).await;
        let is_good = report(&mut self.screen, &self.feed, &self.tally, &self.pool)?;
        if !is_good {
            folder.keep();
            let (forebay, job) = (program(), self.job.display());
            self.screen.say(&format!(
                "\nlook into it\n  {forebay} journal status --job {job}\n  {forebay} journal dead-letters ls --job \
                    {job}"
            ));
        } else if !folder.is_temporary() {
            self.screen.say(&format!("\njob file and pool stay in {}", folder.path().display()));
        }
        Ok(is_good)
    }

    /// Says what came of it while the job runs, and runs on until it is stopped.
    async fn result_and_go_on(
        mut self,
        args: &DemoArgs,
        stop: &CancellationToken,
        folder: &Folder,
    ) -> Result<bool, NoResult> {
        tokio::time::sleep(SETTLE).await;
        let is_good = report(&mut self.screen, &self.feed, &self.tally, &self.pool)?;
        let hints = self.hints();
        self.screen.say(&hints);
        self.screen.header();
        // what was not published during the pause is not made up for
        self.started = task_now() - Duration::from_secs_f64(self.feed.sent() as f64 / args.rate as f64);
        self.next_status = task_now();
        let ended = self.publish(args.rate, None, stop).await;
        self.say("stopping; the job commits what it has");
        self.pipeline.stop().await.map_err(failure)?;
        self.screen.say(&format!("stopped; job file and pool stay in {}", folder.path().display()));
        match ended {
            Err(CutShort::Failed(why)) => Err(failure(why)),
            _ => Ok(is_good),
        }
    }

    fn hints(&self) -> String {
        let Peers { host, port, root, broker_url, endpoint_url, .. } = &self.peers;
        let metrics = self
            .pipeline
            .metrics_address()
            .map_or_else(|| "switched off".to_owned(), |a| format!("http://{a}/metrics"));
        let (forebay, job) = (program(), self.job.display());
        format!(
            "\nthe fleet publishes on and everything keeps running until Ctrl-C\n  \
               broker    {broker_url}\n  endpoint  {endpoint_url}\n  metrics   {metrics}\n  pool      {}\n\
             try in another terminal\n  \
               mosquitto_sub -V mqttv5 -h {host} -p {port} -t '{root}/scored'    # the scored rides\n  \
               curl -s {metrics}\n  \
               {forebay} journal status --job {job}\n",
            self.pool.display()
        )
    }

    fn snapshot(&self) -> Snapshot {
        tokio::task::block_in_place(|| self.pipeline.snapshot())
    }

    /// Rows that wait in the pool: rides for their score, scored ones for the broker.
    fn in_pool(&self) -> u64 {
        let status = tokio::task::block_in_place(|| self.pipeline.journal().status());
        status.map_or(0, |status| waiting(&status))
    }

    fn tally<T>(&self, of: impl FnOnce(&Tally) -> T) -> T {
        of(&self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What happens now, among the status lines.
    fn say(&mut self, text: &str) {
        self.screen.say(&format!("-- {} s: {text}", task_since(self.started).as_secs()));
    }

    /// Tells once what is wrong, but for the outage that is played.
    fn tell(&mut self, snapshot: &Snapshot) {
        let is_played = self.peers.endpoint.is_some();
        let trouble = snapshot.trouble.iter().find(|t| !(is_played && t.starts_with("function "))).cloned();
        match (&self.told, &trouble) {
            (None, Some(text)) => self.say(text),
            (Some(_), None) => self.say("all is well again"),
            _ => {}
        }
        self.told = trouble;
    }

    fn status(&mut self) {
        let snapshot = self.snapshot();
        self.tell(&snapshot);
        let waits = snapshot.trouble.iter().find(|t| t.starts_with("function "));
        let endpoint = match waits {
            _ if self.is_endpoint_down => "DOWN",
            None => "up",
            Some(_) if self.peers.endpoint.is_some() => "up, not noticed yet",
            Some(why) if why.contains("paused") => "refuses",
            Some(_) => "out of reach",
        };
        self.screen.status(&Numbers {
            elapsed: task_since(self.started),
            received: snapshot.received,
            scored: snapshot.scored,
            delivered: self.tally(Tally::rows),
            pending: self.in_pool(),
            endpoint,
        });
    }
}

/// How this program was called.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "forebay".to_owned())
}

/// What all consumers together have not done; a row waits for one of them at a time.
fn waiting(status: &JournalStatus) -> u64 {
    status.consumers.iter().map(|c| c.pending).sum()
}

fn verdict(feed: &Publisher, tally: &Mutex<Tally>, status: &JournalStatus) -> Verdict {
    let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    Verdict {
        published: feed.sent(),
        acknowledged: feed.acknowledged(),
        distinct: tally.distinct(),
        repeats: tally.repeats(),
        wrong_fares: tally.wrong_fares(),
        foreign: tally.foreign(),
        in_pool: waiting(status),
    }
}

/// Prints the verdict and the job's own books; answers whether both are good.
fn report(screen: &mut Screen, feed: &Publisher, tally: &Mutex<Tally>, pool: &Path) -> Result<bool, NoResult> {
    let status = JournalStatus::open_readonly(pool).map_err(failure)?;
    let verdict = verdict(feed, tally, &status);
    screen.say(&format!(
        "\nresult: the fleet's own count beside the receiver's\n{verdict}\n\nthe job's own books: every row that goes \
        in comes out, or is counted with a reason"
    ));
    screen.say(&ledger(&status));
    let (text, is_whole) = match verified(pool) {
        Ok(line) => (line, true),
        Err((_, problems)) => (problems, false),
    };
    screen.say(&format!("\nthe pool: {text}"));
    Ok(is_whole && verdict.is_good())
}

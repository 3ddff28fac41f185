//! Rides at a fixed rate through a job that runs: what it uses, and how long each takes to a subscriber.
//!
//! The job reads `taxi/+/rides` and gives rows at one topic: one for each ride in their order, or others, of which only
//! what they cost is measured.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use forebay::demo::client::{Publisher, Receiver};
use forebay::demo::fleet::Fleet;
use forebay::time::Timestamp;
use tokio::runtime::Runtime;

use crate::peers::{Forebay, until};
use crate::process::{Usage, usage};

/// What is sent before, so that what happens once has happened.
const FIRST: u64 = 20;

/// What comes out at the topic.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// One for each ride, in their order: how long each takes is measured.
    OneARide,
    /// Some.
    Some,
}

/// What is sent, and where.
#[derive(Clone, Copy)]
pub struct Steady<'a> {
    pub runtime: &'a Runtime,
    /// Of the broker.
    pub port: u16,
    /// Where the rows come out.
    pub topic: &'a str,
    pub rows: Rows,
    /// Rides a second; with 0 the job idles.
    pub rate: u64,
    /// For how long the rate is kept before the measurement begins.
    pub warm_up: Duration,
    /// For how long it is measured.
    pub time: Duration,
}

/// What one rate used.
pub struct Seen {
    pub used: Usage,
    pub events: f64,
    pub seconds: f64,
    /// In order of size, ms; none unless each ride gives a row.
    latencies: Vec<f64>,
}

impl Seen {
    /// Of this part of the rows at least; `None` unless each ride gives a row.
    pub fn latency(&self, part: f64) -> Option<f64> {
        let last = self.latencies.len().checked_sub(1)?;
        self.latencies.get((last as f64 * part).ceil() as usize).copied()
    }

    pub fn cpu_s_per_million(&self) -> f64 {
        self.used.cpu_s * 1e6 / self.events
    }
}

impl Steady<'_> {
    /// Measures a job that has started. `edge` is called where the measurement begins and where it ends.
    pub fn measure(self, forebay: &Forebay, mut edge: impl FnMut()) -> Seen {
        let Steady { runtime, port, topic, rows, rate, warm_up, time } = self;
        let received: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let came = received.clone();
        let take = move |_| came.lock().unwrap().push(Instant::now());
        let receiver = {
            let _runtime = runtime.enter();
            Receiver::listen("steady-out", "127.0.0.1", port, topic, take)
        };
        assert!(runtime.block_on(receiver.ready(Duration::from_secs(10))));
        let soon = Duration::from_millis(20);
        until("the connection", soon, || (forebay.metric("forebay_source_connected") == 1.0).then_some(()));
        let feed = runtime.block_on(async { Publisher::connect("steady", "127.0.0.1", port) });
        let mut fleet = Fleet::new(50);
        let mut publish = || {
            let ride = fleet.ride(Timestamp::MIN);
            assert!(runtime.block_on(feed.send(&ride.topic, ride.payload)));
        };
        (0..FIRST).for_each(|_| publish());
        let has = |wanted: u64| match rows {
            Rows::OneARide => received.lock().unwrap().len() as u64 >= wanted,
            Rows::Some => !received.lock().unwrap().is_empty(),
        };
        if rows == Rows::OneARide {
            until("the first rows", soon, || has(FIRST).then_some(()));
        }
        std::thread::sleep(Duration::from_secs(1));
        // when each was sent
        let mut publish_for = |time: Duration| {
            let (start, events) = (Instant::now(), (rate as f64 * time.as_secs_f64()).round() as u64);
            let mut sent = Vec::with_capacity(events as usize);
            for i in 0..events {
                let due = Duration::from_secs_f64(i as f64 / rate as f64);
                std::thread::sleep(due.saturating_sub(start.elapsed()));
                sent.push(Instant::now());
                publish();
            }
            std::thread::sleep(time.saturating_sub(start.elapsed()));
            sent
        };
        let before_it = FIRST as usize + publish_for(warm_up).len();

        edge();
        let (start, before) = (Instant::now(), usage(forebay.pid()));
        let sent = publish_for(time);
        let seconds = start.elapsed().as_secs_f64();
        if rate > 0 {
            // what the last ones cost counts as well
            std::thread::sleep(Duration::from_millis(500));
        }
        let used = usage(forebay.pid()).since(&before);
        edge();
        until("all rows", Duration::from_millis(50), || has((before_it + sent.len()) as u64).then_some(()));
        let came = received.lock().unwrap();
        let mut latencies: Vec<f64> = match rows {
            // one publisher, one topic: rows come in the order of the events
            Rows::OneARide => {
                let times = came.iter().skip(before_it).zip(&sent);
                times.map(|(came, sent)| (*came - *sent).as_secs_f64() * 1e3).collect()
            }
            Rows::Some => Vec::new(),
        };
        latencies.sort_by(f64::total_cmp);
        Seen { used, events: sent.len() as f64, seconds, latencies }
    }
}

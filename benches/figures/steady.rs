//! Rides at a fixed rate through a job that runs: what it uses, and how long each takes to a subscriber.
//!
//! The job reads `taxi/+/rides` and gives a row for each ride, in their order, at one topic.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use forebay::demo::client::{Publisher, Receiver};
use forebay::demo::fleet::Fleet;
use forebay::time::Timestamp;
use tokio::runtime::Runtime;

use crate::peers::{Forebay, until};
use crate::process::{Usage, usage};

/// What is sent before, so that what happens once has happened.
const WARM_UP: u64 = 20;

/// What is sent, and where.
#[derive(Clone, Copy)]
pub struct Steady<'a> {
    pub runtime: &'a Runtime,
    /// Of the broker.
    pub port: u16,
    /// Where the rows come out.
    pub topic: &'a str,
    /// Events a second, and how many.
    pub rate: u64,
    pub events: u64,
}

/// What one rate used.
pub struct Seen {
    pub used: Usage,
    pub events: f64,
    pub seconds: f64,
    /// In order of size, ms.
    latencies: Vec<f64>,
}

impl Seen {
    pub fn latency(&self, part: f64) -> f64 {
        self.latencies[((self.latencies.len() - 1) as f64 * part).ceil() as usize]
    }

    pub fn cpu_s_per_million(&self) -> f64 {
        self.used.cpu_s * 1e6 / self.events
    }
}

impl Steady<'_> {
    /// Measures a job that has started. `edge` is called where the measurement begins and where it ends.
    pub fn measure(self, forebay: &Forebay, mut edge: impl FnMut()) -> Seen {
        let Steady { runtime, port, topic, rate, events } = self;
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
        (0..WARM_UP).for_each(|_| publish());
        let has = |rows: u64| received.lock().unwrap().len() as u64 >= rows;
        until("the first rows", soon, || has(WARM_UP).then_some(()));
        std::thread::sleep(Duration::from_secs(1));

        edge();
        let before = usage(forebay.pid());
        let start = Instant::now();
        let mut sent = Vec::with_capacity(events as usize);
        for i in 0..events {
            let due = Duration::from_secs_f64(i as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            sent.push(Instant::now());
            publish();
        }
        std::thread::sleep(Duration::from_millis(500));
        let seconds = start.elapsed().as_secs_f64();
        let used = usage(forebay.pid()).since(&before);
        edge();
        until("all rows", Duration::from_millis(50), || has(events + WARM_UP).then_some(()));
        // one publisher, one topic: rows come in the order of the events
        let came = received.lock().unwrap();
        let times = came.iter().skip(WARM_UP as usize).zip(&sent);
        let mut latencies: Vec<f64> = times.map(|(came, sent)| (*came - *sent).as_secs_f64() * 1e3).collect();
        latencies.sort_by(f64::total_cmp);
        Seen { used, events: events as f64, seconds, latencies }
    }
}

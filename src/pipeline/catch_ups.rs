//! Which consumers of a running job are behind, and how fast they catch up.
//!
//! In: the journal's counters and the ends of its streams, once a second. Out: lines in the log, samples for
//! `/metrics`. Invariant: positions are committed ones; nothing is read from the file after the start. Not here: what
//! counts as behind (`catch_up`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smol_str::SmolStr;
use tokio_util::sync::CancellationToken;

use super::catch_up::{CatchUp, HowFar};
use crate::journal::{ConsumerStatus, Edge, Journal, JournalError, Ledger, StreamId, consumer_span, what};
use crate::score::CountBacklog;
use crate::telemetry::{Sample, SampleKind};
use crate::time::Clock;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(1);

/// All consumers of a job.
#[derive(Clone, Debug, Default)]
pub struct CatchUps(Arc<Mutex<Vec<ConsumerCatchUp>>>);

#[derive(Debug)]
struct ConsumerCatchUp {
    consumer: String,
    stream: StreamId,
    /// Where it was at the start, and what it had read and skipped by then.
    start: (i64, Passed),
    catch_up: CatchUp,
}

impl ConsumerCatchUp {
    /// Where it is by the counters, and how many records it has skipped since the start.
    fn position(&self, ledger: &Ledger) -> (i64, u64) {
        let ((position, then), passed) = (self.start, passed(ledger, &self.consumer));
        let (read, skipped) = (passed.read.saturating_sub(then.read), passed.skipped.saturating_sub(then.skipped));
        (position.saturating_add_unsigned(read).saturating_add_unsigned(skipped), skipped)
    }
}

impl CatchUps {
    /// Begins with where the consumers are; none of them may be running. Rows may wait for `fill` until a batch of
    /// an output is full.
    pub fn begin(&self, journal: &Journal, fill: Duration) -> Result<(), JournalError> {
        let status = journal.summary()?;
        let ledger = journal.ledger();
        let of = |consumer: ConsumerStatus| ConsumerCatchUp {
            stream: StreamId(consumer.stream),
            start: (consumer.position, passed(&ledger, &consumer.name)),
            catch_up: CatchUp::new(fill),
            consumer: consumer.name,
        };
        *self.lock() = status.consumers.into_iter().map(of).collect();
        Ok(())
    }

    /// Looks once a second until it is cancelled.
    pub async fn watch(self, journal: Journal, clock: Clock, ended: CancellationToken) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while ended.run_until_cancelled(ticks.tick()).await.is_some() {
            self.look(&journal, &clock);
        }
    }

    fn look(&self, journal: &Journal, clock: &Clock) {
        let (ledger, now) = (journal.ledger(), clock.monotonic());
        for reader in self.lock().iter_mut() {
            let (position, skipped) = reader.position(&ledger);
            let place = HowFar { position, skipped, end: journal.ends(reader.stream).1 };
            if let Some(told) = reader.catch_up.look(place, now) {
                let _span = consumer_span(&reader.consumer).entered();
                tracing::info!("{told}");
            }
        }
    }

    /// Where each consumer is, and how many records it has to read.
    pub fn places(&self, journal: &Journal) -> Vec<(String, i64, u64)> {
        let ledger = journal.ledger();
        let place = |reader: &ConsumerCatchUp| {
            let position = reader.position(&ledger).0;
            let pending = u64::try_from(journal.ends(reader.stream).1.saturating_sub(position)).unwrap_or(0);
            (reader.consumer.clone(), position, pending)
        };
        self.lock().iter().map(place).collect()
    }

    /// Counts what a consumer has to read, again and again.
    pub fn counting(&self, journal: &Journal, consumer: &SmolStr) -> CountBacklog {
        let (all, journal, consumer) = (self.clone(), journal.clone(), consumer.clone());
        Box::new(move || all.pending(&journal, &consumer))
    }

    /// How many records a consumer has to read; 0 before the job has begun.
    fn pending(&self, journal: &Journal, consumer: &str) -> u64 {
        let all = self.places(journal);
        all.into_iter().find(|(name, ..)| name == consumer).map_or(0, |(_, _, pending)| pending)
    }

    /// How long each of those that catch up takes from here.
    pub fn samples(&self, job: &str, samples: &mut Vec<Sample>) {
        for reader in self.lock().iter() {
            let Some(left) = reader.catch_up.progress().and_then(|pace| pace.left()) else { continue };
            samples.push(Sample {
                name: "consumer_left_seconds",
                help: "seconds until a consumer that is behind has caught up, at the pace of the last minute",
                kind: SampleKind::Gauge,
                labels: vec![("job", job.to_owned()), ("consumer", reader.consumer.clone())],
                value: left.as_secs_f64().round(),
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ConsumerCatchUp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records that a consumer has left behind.
#[derive(Clone, Copy, Debug)]
struct Passed {
    read: u64,
    /// Dropped or damaged.
    skipped: u64,
}

fn passed(ledger: &Ledger, consumer: &str) -> Passed {
    let sum = |what| ledger.sum(Edge::Consumer, consumer, what);
    Passed { read: sum(what::READ), skipped: sum(what::SKIPPED) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{BacklogLimits, Commit, ConsumerId, ConsumerSpec, JournalConfig, OnFull};
    use crate::pipeline::reading::tests::store;
    use crate::time::Timestamp;

    fn left(catch_ups: &CatchUps) -> Vec<f64> {
        let mut samples = Vec::new();
        catch_ups.samples("job", &mut samples);
        samples.iter().map(|sample| sample.value).collect()
    }

    fn registered(journal: &Journal, on_full: OnFull, limits: BacklogLimits) -> ConsumerId {
        let spec = ConsumerSpec { on_full, limits, ..ConsumerSpec::new("statement a", StreamId::INPUTS) };
        journal.register_consumer(spec).unwrap().id
    }

    #[test]
    fn a_backlog_has_a_time_left_until_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(JournalConfig::new(dir.path().join("pool.db"))).unwrap();
        let input = journal.input("rides").unwrap();
        let consumer = registered(&journal, OnFull::Block, BacklogLimits::default());
        store(&journal, input, Timestamp::MIN, 1_000);
        let to = |position| {
            let receipt = journal.commit(Commit::at(consumer, position));
            journal.flush();
            receipt.wait().unwrap();
        };
        to(100);
        let (catch_ups, clock) = (CatchUps::default(), Clock::manual(Timestamp::MIN));
        catch_ups.begin(&journal, Duration::ZERO).unwrap();
        catch_ups.look(&journal, &clock);
        let pass = |seconds| {
            clock.advance(Duration::from_secs(seconds));
            catch_ups.look(&journal, &clock);
        };
        to(600);
        pass(9);
        assert_eq!(left(&catch_ups), Vec::<f64>::new());
        pass(1);
        assert_eq!(left(&catch_ups), [8.0], "400 at 50 a second");
        to(1_000);
        pass(1);
        assert_eq!(left(&catch_ups), Vec::<f64>::new());
    }

    #[test]
    fn records_that_are_dropped_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(Timestamp::MIN);
        let config = JournalConfig { clock: clock.clone(), ..JournalConfig::new(dir.path().join("pool.db")) };
        let journal = Journal::open(config).unwrap();
        let input = journal.input("rides").unwrap();
        let limits = BacklogLimits { max_age: Some(Duration::from_secs(3_600)), max_bytes: None };
        registered(&journal, OnFull::DropOldest, limits);
        journal.keep_only_consumers(&["statement a".into()]).unwrap();
        store(&journal, input, clock.now(), 300);
        clock.advance(Duration::from_secs(3_595));
        store(&journal, input, clock.now(), 700);
        let catch_ups = CatchUps::default();
        catch_ups.begin(&journal, Duration::ZERO).unwrap();
        catch_ups.look(&journal, &clock);
        clock.advance(Duration::from_secs(10));
        while journal.ledger().sum(Edge::Consumer, "statement a", what::SKIPPED) < 300 {
            crate::time::pause(Duration::from_millis(5));
        }
        catch_ups.look(&journal, &clock);
        let pace = catch_ups.lock()[0].catch_up.progress().unwrap();
        assert_eq!((pace.behind, pace.read, pace.skipped), (700, 0.0, 30.0));
    }
}

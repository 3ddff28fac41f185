//! Finds consumers that stand still although nothing keeps them from going on, so that the process is replaced.
//!
//! In: once a second, how far each consumer is and what it waits for. Out: what `/healthz` says no for, a line in the
//! log, samples. Invariant: whoever waits for something outside of the process, or for a person, is never told: its
//! time begins when it may go on. Not here: who is behind (`catch_up`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use smol_str::SmolStr;

use crate::diagnostic::{Seconds, Thousands};
use crate::telemetry::{Sample, SampleKind};

/// Looks are a second apart; longer than this the process was frozen.
const FROZEN: Duration = Duration::from_secs(10);

/// What a consumer needs beside the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ConsumerNeed {
    #[default]
    Nothing,
    /// The endpoint of this function, whose answer may take so long.
    Endpoint(SmolStr, Duration),
    Output {
        name: SmolStr,
        /// Rows may wait for others, and an attempt may take, so long.
        patience: Duration,
        /// Another output may have the connection to itself while it looks for a row at fault.
        is_shared: bool,
    },
    /// Whatever others leave of an endpoint.
    Leftovers,
}

/// Where a consumer is.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerStanding {
    pub consumer: String,
    /// Records that it has to read.
    pending: u64,
    /// Something of it that changes while it works.
    progress: u64,
    /// It waits for somebody else.
    is_excused: bool,
    /// How long it may work, or wait for more rows, at most without a change.
    patience: Duration,
}

impl ConsumerStanding {
    pub fn new(consumer: &str, pending: u64, progress: u64) -> ConsumerStanding {
        ConsumerStanding {
            consumer: consumer.to_owned(),
            pending,
            progress,
            is_excused: false,
            patience: Duration::ZERO,
        }
    }

    pub fn excused(self, is_excused: bool) -> ConsumerStanding {
        ConsumerStanding { is_excused: self.is_excused || is_excused, ..self }
    }

    pub fn moves_with(self, progress: u64) -> ConsumerStanding {
        ConsumerStanding { progress: self.progress.wrapping_add(progress), ..self }
    }

    pub fn patient(self, patience: Duration) -> ConsumerStanding {
        ConsumerStanding { patience, ..self }
    }
}

/// All consumers of a job; clones are of the same job.
#[derive(Clone, Debug)]
pub struct Stalls {
    /// `None`: nobody is told.
    after: Option<Duration>,
    shared: Arc<Mutex<WatchedConsumers>>,
}

#[derive(Debug, Default)]
struct WatchedConsumers {
    needs: BTreeMap<SmolStr, ConsumerNeed>,
    seen: BTreeMap<String, SeenConsumer>,
    /// When it was last looked.
    looked: Option<Instant>,
}

#[derive(Debug)]
struct SeenConsumer {
    progress: u64,
    /// When it last moved, or had a reason not to.
    moved: Instant,
    /// What is told while it stands still.
    stall: Option<String>,
}

impl Stalls {
    pub fn new(after: Option<Duration>) -> Stalls {
        Stalls { after, shared: Arc::default() }
    }

    /// What a consumer of the job waits for.
    pub fn add(&self, consumer: &SmolStr, need: ConsumerNeed) {
        self.lock().needs.insert(consumer.clone(), need);
    }

    pub fn need_of(&self, consumer: &str) -> ConsumerNeed {
        self.lock().needs.get(consumer).cloned().unwrap_or_default()
    }

    /// Takes note of where all are.
    pub fn look(&self, now: Instant, standings: Vec<ConsumerStanding>) {
        let Some(after) = self.after else { return };
        let mut shared = self.lock();
        // a process that was frozen moved nothing meanwhile
        let gap = shared.looked.replace(now).map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        if gap > FROZEN {
            shared.seen.values_mut().for_each(|seen| seen.moved += gap);
        }
        for ConsumerStanding { consumer, pending, progress, is_excused, patience } in standings {
            let seen =
                shared.seen.entry(consumer.clone()).or_insert(SeenConsumer { progress, moved: now, stall: None });
            if pending == 0 || is_excused || seen.progress != progress {
                (seen.progress, seen.moved) = (progress, now);
                if seen.stall.take().is_some() {
                    tracing::info!(consumer, "it moves again");
                }
                continue;
            }
            let stood = now.saturating_duration_since(seen.moved);
            if stood >= after.saturating_add(patience) && seen.stall.is_none() {
                let text = format!(
                    "{consumer} stands still: {} records to read, nothing that it needs is away, and nothing has moved \
                     for {}; start the job again, and report this with the log",
                    Thousands(pending),
                    Seconds(stood)
                );
                tracing::error!("{text}");
                seen.stall = Some(text);
            }
        }
    }

    /// Who stands still.
    pub fn stalled(&self) -> Vec<String> {
        self.lock().seen.values().filter_map(|seen| seen.stall.clone()).collect()
    }

    pub fn samples(&self, job: &str, samples: &mut Vec<Sample>) {
        for (consumer, seen) in &self.lock().seen {
            samples.push(Sample {
                name: "consumer_stalled",
                help: "1 while a consumer stands still although nothing that it needs is away",
                kind: SampleKind::Gauge,
                labels: vec![("job", job.to_owned()), ("consumer", consumer.clone())],
                value: f64::from(u8::from(seen.stall.is_some())),
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, WatchedConsumers> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Clock, Timestamp};

    const AFTER: Duration = Duration::from_secs(300);

    /// Looks for so many seconds; how many of them somebody was told to stand still.
    fn told(stalls: &Stalls, clock: &Clock, seconds: u64, at: impl Fn(u64) -> ConsumerStanding) -> usize {
        let mut told = 0;
        for second in 0..seconds {
            stalls.look(clock.monotonic(), vec![at(second)]);
            told += stalls.stalled().len();
            clock.advance(Duration::from_secs(1));
        }
        told
    }

    #[test]
    fn a_consumer_that_could_move_and_does_not_is_told_until_it_moves() {
        let (stalls, clock) = (Stalls::new(Some(AFTER)), Clock::manual(Timestamp::MIN));
        assert_eq!(told(&stalls, &clock, 300, |_| ConsumerStanding::new("output a", 3, 7)), 0);
        assert_eq!(told(&stalls, &clock, 10, |_| ConsumerStanding::new("output a", 3, 7)), 10);
        let text = "output a stands still: 3 records to read, nothing that it needs is away, and nothing has moved for \
            5 min; start the job again, and report this with the log";
        assert_eq!(stalls.stalled(), [text]);
        let mut samples = Vec::new();
        stalls.samples("job", &mut samples);
        assert_eq!((samples[0].name, samples[0].value), ("consumer_stalled", 1.0));
        assert_eq!(told(&stalls, &clock, 300, |_| ConsumerStanding::new("output a", 3, 8)), 0);
        assert_eq!(told(&stalls, &clock, 1, |_| ConsumerStanding::new("output a", 3, 8)), 1);
    }

    #[test]
    fn who_has_nothing_to_read_moves_or_waits_for_others_is_well() {
        type At = Box<dyn Fn(u64) -> ConsumerStanding>;
        let standing = |pending, progress| ConsumerStanding::new("statement a", pending, progress);
        let healthy: [(&str, At); 6] = [
            ("nothing to read", Box::new(move |_| standing(0, 7))),
            ("a record each 299 s", Box::new(move |second| standing(9, second / 299))),
            ("its receiver is away", Box::new(move |_| standing(9, 7).excused(true))),
            ("its receiver comes back each 299 s", Box::new(move |second| standing(9, 7).excused(second % 299 == 0))),
            ("rows go while the position stands", Box::new(move |second| standing(9, 7).moves_with(second / 100))),
            ("rows wait for a batch", Box::new(move |s| standing(9, s / 3_600).patient(Duration::from_secs(3_600)))),
        ];
        for (what, at) in healthy {
            let (stalls, clock) = (Stalls::new(Some(AFTER)), Clock::manual(Timestamp::MIN));
            assert_eq!(told(&stalls, &clock, 86_400, at), 0, "{what}");
        }
        let (off, clock) = (Stalls::new(None), Clock::manual(Timestamp::MIN));
        assert_eq!(told(&off, &clock, 86_400, |_| standing(9, 7)), 0, "switched off");
    }

    #[test]
    fn time_counts_from_when_it_may_go_on() {
        let (stalls, clock) = (Stalls::new(Some(AFTER)), Clock::manual(Timestamp::MIN));
        let standing = |is_excused| ConsumerStanding::new("output a", 3, 7).excused(is_excused);
        assert_eq!(told(&stalls, &clock, 86_400, |_| standing(true)), 0, "away for a day");
        assert_eq!(told(&stalls, &clock, 299, |_| standing(false)), 0);
        assert_eq!(told(&stalls, &clock, 1, |_| standing(false)), 1, "back, and it stands still");
        assert_eq!(told(&stalls, &clock, 10, |_| standing(true)), 0, "away again");
    }
}

//! How many requests may be out at an endpoint at once: one limit for all batches.
//!
//! In: how requests ended, in any order, with the time. Out: the limit. Invariant: it lies between 1 and what the job
//! allows, and a limit that was too much is left alone longer each time. Not here: a clock, what the answers mean,
//! whether anything may go at all (`breaker`).

use std::time::Duration;

/// Parallel requests at the start: what a stock managed deployment of one instance admits.
const PARALLEL_START: u32 = 2;

/// How long a limit that was too much is left alone at first, and at most: an endpoint that takes more after a while
/// gets it within a minute.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Answers of one endpoint differ by this much anyway.
const LATENCY_NOISE: Duration = Duration::from_millis(10);

/// The quickest round is measured anew after this time: an endpoint gets slower or quicker with its instances.
const BEST_FOR: Duration = Duration::from_secs(60);

/// How many requests may be out at once. Each round of as many good answers doubles it, until the endpoint shows that
/// it is enough: by a sign of overload, or by answers that take longer. From then on a round raises it by one, and a
/// sign of overload halves it. A limit that was too much is tried again after a pause, which doubles each time that it
/// is too much again.
///
/// A round whose answers take longer than one and a half times the quickest lowers it by that gradient, by a half at
/// most: requests wait for each other at the endpoint then, and fewer score as many rows. This is the gradient of
/// Netflix' concurrency-limits (`Gradient2Limit`), with the quickest round of the last minute for its long average, as
/// BBR does (Cardwell et al., 2016): an average would follow a queue that stays.
#[derive(Clone, Debug)]
pub struct Parallel {
    now: u32,
    max: u32,
    successes: u32,
    /// Requests up to this one were sent before the last lowering: they say nothing new.
    lowered_at: u64,
    last_sent: u64,
    is_doubling: bool,
    latency: Latency,
    too_much: Option<TooMuch>,
}

/// A limit at which the endpoint was overloaded.
#[derive(Clone, Copy, Debug)]
struct TooMuch {
    limit: u32,
    pause: Duration,
    /// Until then the limit stays below.
    until: Duration,
}

/// How long the answers of a round take.
#[derive(Clone, Copy, Debug)]
struct Latency {
    /// The mean of the quickest round.
    best: Duration,
    /// Since when that is measured.
    since: Duration,
    /// Sum of this round.
    of_round: Duration,
}

impl Latency {
    fn new(since: Duration) -> Latency {
        Latency { best: Duration::MAX, since, of_round: Duration::ZERO }
    }

    /// Longer than this, and requests wait for each other.
    fn bound(&self) -> Duration {
        self.best.saturating_mul(3) / 2 + LATENCY_NOISE
    }
}

impl Parallel {
    pub fn new(max: u32) -> Parallel {
        let max = max.max(1);
        Parallel {
            now: PARALLEL_START.min(max),
            max,
            successes: 0,
            lowered_at: 0,
            last_sent: 0,
            is_doubling: true,
            latency: Latency::new(Duration::ZERO),
            too_much: None,
        }
    }

    /// Begins as at first; a limit that was too much is left alone as before.
    pub fn restart(&mut self) {
        let last_sent = self.last_sent;
        *self = Parallel { lowered_at: last_sent, last_sent, too_much: self.too_much, ..Parallel::new(self.max) };
    }

    pub fn now(&self) -> u32 {
        self.now
    }

    pub fn sent(&mut self, id: u64) {
        self.last_sent = self.last_sent.max(id);
    }

    /// A good answer at `at`, and how long it took. `full`: as many requests were out as allowed; otherwise it says
    /// nothing about more of them.
    pub fn succeeded(&mut self, at: Duration, id: u64, full: bool, took: Duration) {
        if id <= self.lowered_at || !full {
            return;
        }
        self.successes += 1;
        self.latency.of_round = self.latency.of_round.saturating_add(took);
        if self.successes < self.now {
            return;
        }
        let answers = std::mem::take(&mut self.successes).max(1);
        let mean = std::mem::take(&mut self.latency.of_round) / answers;
        let bound = self.latency.bound();
        if mean > bound && !self.is_doubling {
            return self.lower_to(self.now.saturating_mul(share(bound, mean)) / 100);
        }
        let is_enough = mean > bound;
        self.latency.best = self.latency.best.min(mean);
        if at >= self.latency.since + BEST_FOR {
            // a queue that stays would be taken for the endpoint's pace
            let was_quick = mean <= self.latency.best + LATENCY_NOISE;
            self.latency = Latency::new(at);
            if !was_quick && !self.is_doubling {
                return self.lower_to(self.now / 2);
            }
            self.latency.best = mean;
        }
        self.is_doubling &= !is_enough;
        let step = if self.is_doubling { self.now } else { 1 };
        if self.too_much.is_some_and(|too_much| self.now >= too_much.limit) {
            // a whole round came back
            self.too_much = None;
        }
        let most = match self.too_much {
            Some(too_much) if at < too_much.until => too_much.limit.saturating_sub(1).max(1),
            _ => self.max,
        };
        self.now = self.now.saturating_add(step).min(self.max).min(most.max(self.now));
    }

    /// Requests that are out say nothing about the lower limit.
    fn lower_to(&mut self, limit: u32) {
        self.now = limit.max(1);
        self.successes = 0;
        self.latency.of_round = Duration::ZERO;
        self.lowered_at = self.last_sent;
    }

    /// A sign of overload at `at`.
    pub fn overloaded(&mut self, at: Duration, id: u64) {
        if id > self.lowered_at {
            self.is_doubling = false;
            // one request at once is never too many
            if self.now > 1 {
                let again = self.too_much.filter(|too_much| self.now >= too_much.limit);
                let pause = again.map_or(PAUSE_FIRST, |too_much| (too_much.pause * 2).min(PAUSE_MAX));
                self.too_much = Some(TooMuch { limit: self.now, pause, until: at + pause });
            }
            self.lower_to(self.now / 2);
        }
    }

    /// Forgets which limit was too much: it may be another endpoint now.
    pub fn forget(&mut self) {
        self.too_much = None;
    }
}

/// How much of a limit is left where its answers should take this long and take longer: 50 to 99 per cent.
fn share(bound: Duration, mean: Duration) -> u32 {
    let percent = 100.0 * bound.as_secs_f64() / mean.as_secs_f64().max(f64::MIN_POSITIVE);
    (percent as u32).clamp(50, 99)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// The limit after each of some good answers that took this long, long after all that was before.
    fn climb(parallel: &mut Parallel, ids: std::ops::Range<u64>, took: Duration) -> Vec<u32> {
        let answer = |id| {
            parallel.sent(id);
            parallel.succeeded(MS(3_600_000), id, true, took);
            parallel.now()
        };
        ids.map(answer).collect()
    }

    #[test]
    fn parallelism_doubles_each_round_until_it_is_all_that_is_allowed() {
        let limits = climb(&mut Parallel::new(20), 1..31, MS(200));
        let rounds = [(1, 2), (4, 4), (8, 8), (16, 16), (1, 20)];
        assert_eq!(limits, rounds.map(|(n, limit)| vec![limit; n]).concat());
    }

    #[test]
    fn after_a_sign_of_overload_parallelism_climbs_by_one_a_round_and_halves_once_a_round() {
        let mut parallel = Parallel::new(6);
        parallel.sent(1);
        parallel.overloaded(MS(0), 1);
        let limits = climb(&mut parallel, 2..2 + 1 + 2 + 3 + 4 + 5 + 6, MS(1));
        assert_eq!(limits, [2, 2, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6]);
        parallel.sent(30);
        parallel.overloaded(MS(0), 29);
        parallel.overloaded(MS(0), 30);
        assert_eq!(parallel.now(), 3);
        parallel.sent(31);
        parallel.overloaded(MS(0), 31);
        parallel.sent(32);
        parallel.overloaded(MS(0), 32);
        assert_eq!(parallel.now(), 1);
    }

    /// What an endpoint that takes `capacity` requests at once is asked in `seconds` seconds, one round in 100 ms: the
    /// seconds at which it had to refuse.
    fn refusals(parallel: &mut Parallel, id: &mut u64, seconds: std::ops::Range<u64>, capacity: u32) -> Vec<u64> {
        let mut refused = Vec::new();
        for at in (seconds.start * 10..seconds.end * 10).map(|tenth| MS(tenth * 100)) {
            let out = parallel.now();
            let ids: Vec<u64> = (0..out).map(|i| *id + u64::from(i)).collect();
            *id += u64::from(out);
            ids.iter().for_each(|id| parallel.sent(*id));
            for (i, id) in ids.into_iter().enumerate() {
                match i < capacity as usize {
                    true => parallel.succeeded(at, id, true, MS(100)),
                    false => parallel.overloaded(at, id),
                }
            }
            refused.extend((out > capacity).then_some(at.as_secs()));
        }
        refused
    }

    #[test]
    fn a_limit_that_was_too_much_is_left_alone_twice_as_long_each_time() {
        for capacity in [1, 3, 9] {
            let (mut parallel, mut id) = (Parallel::new(20), 1);
            let first = refusals(&mut parallel, &mut id, 0..400, capacity);
            assert!(first.len() <= 13, "{capacity}: {first:?}");
            let pauses: Vec<u64> = first.iter().zip(first.iter().skip(1)).map(|(a, b)| b - a).collect();
            let last = &pauses[pauses.len() - 3..];
            assert!(last.iter().all(|pause| (60..66).contains(pause)), "{capacity}: {first:?}");
            assert!(parallel.now() <= capacity + 1);
        }
    }

    #[test]
    fn a_limit_that_was_too_much_is_forgotten_when_it_is_admitted_or_the_endpoint_may_be_another() {
        let (mut parallel, mut id) = (Parallel::new(20), 1);
        refusals(&mut parallel, &mut id, 0..200, 1);
        // it takes more now: that is found out within a minute, and from there on there is no pause
        assert_eq!(refusals(&mut parallel, &mut id, 200..280, 20), Vec::<u64>::new());
        assert_eq!(parallel.now(), 20);
        let mut parallel = Parallel::new(20);
        refusals(&mut parallel, &mut id, 0..200, 1);
        let mut another = parallel.clone();
        another.forget();
        assert_eq!(refusals(&mut another, &mut id.clone(), 200..203, 20), Vec::<u64>::new());
        assert!(another.now() >= 5, "{}", another.now());
        refusals(&mut parallel, &mut id, 200..203, 20);
        assert_eq!(parallel.now(), 1);
    }

    #[test]
    fn answers_that_take_longer_end_the_doubling() {
        let mut parallel = Parallel::new(256);
        climb(&mut parallel, 1..7, MS(100));
        assert_eq!(parallel.now(), 8);
        // a round a little slower is noise
        climb(&mut parallel, 7..15, MS(150));
        assert_eq!(parallel.now(), 16);
        climb(&mut parallel, 15..31, MS(190));
        assert_eq!(parallel.now(), 17, "the requests wait for each other");
        climb(&mut parallel, 31..48, MS(100));
        assert_eq!(parallel.now(), 18);
    }

    /// Rounds against an endpoint that serves `capacity` requests at once and lets the others wait: the limits, and the
    /// share of the time in which it had enough to do.
    fn queued(
        parallel: &mut Parallel,
        now: &mut Duration,
        id: &mut u64,
        rounds: usize,
        capacity: u32,
    ) -> (Vec<u32>, f64) {
        let (mut limits, mut served, began) = (Vec::new(), 0.0, *now);
        for _ in 0..rounds {
            let out = parallel.now();
            let took = MS(100).mul_f64((f64::from(out) / f64::from(capacity)).max(1.0));
            let ids: Vec<u64> = (0..out).map(|i| *id + u64::from(i)).collect();
            *id += u64::from(out);
            ids.iter().for_each(|id| parallel.sent(*id));
            *now += took;
            ids.into_iter().for_each(|id| parallel.succeeded(*now, id, true, took));
            served += 0.1 * f64::from(out) / f64::from(capacity);
            limits.push(out);
        }
        (limits, served / (*now - began).as_secs_f64())
    }

    #[test]
    fn where_requests_wait_for_each_other_fewer_are_sent_and_as_many_rows_are_scored() {
        for capacity in [1, 4, 16] {
            let (mut parallel, mut now, mut id) = (Parallel::new(64), Duration::ZERO, 1);
            // whoever never answered one request alone is found out within a minute
            queued(&mut parallel, &mut now, &mut id, 1_000, capacity);
            // an hour: the queue is never taken for the endpoint's pace
            let (limits, busy) = queued(&mut parallel, &mut now, &mut id, 30_000, capacity);
            let most = limits.iter().max().unwrap();
            assert!(*most <= 2 * capacity + 1, "{capacity}: {most} at once");
            assert!(busy >= 0.97, "{capacity}: {busy} of the time it has enough to do");
            // more instances
            let (limits, busy) = queued(&mut parallel, &mut now, &mut id, 3_000, 4 * capacity);
            assert!(limits.iter().skip(200).all(|limit| *limit >= 2 * capacity), "{capacity}: {limits:?}");
            assert!(busy >= 0.95, "{capacity}: {busy}");
        }
    }

    #[test]
    fn few_rows_say_nothing_about_parallelism() {
        let mut parallel = Parallel::new(20);
        for id in 1..100 {
            parallel.sent(id);
            parallel.succeeded(MS(0), id, false, MS(1));
        }
        assert_eq!(parallel.now(), 2);
        assert_eq!(Parallel::new(1).now(), 1);
    }
}

//! How far a consumer is behind, and how fast it catches up.
//!
//! In: once a second, how far the stream and the consumer are. Out: what to log, and how long it takes from here.
//! Invariant: a consumer is behind once it has not read what was stored [`PATIENCE`] ago, and has caught up once it has
//! read all that was stored [`NEAR`] ago: between the two nothing changes, so neither a quiet stream nor a short burst
//! is told. What was dropped unread is nobody's pace, and who got through by it has not caught up. Not here: where the
//! numbers come from (`catch_ups`).

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use crate::diagnostic::{Seconds, Thousands};

/// A backlog that is read in less is none.
const PATIENCE: Duration = Duration::from_secs(10);
/// A busy stream is never read to its very end.
const NEAR: Duration = Duration::from_secs(2);
/// Rates are those of the last minute, and one line a minute is logged.
const MINUTE: Duration = Duration::from_secs(60);

/// How far a stream and its consumer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HowFar {
    /// The offset behind everything the consumer has committed, read or not.
    pub position: i64,
    /// Records before it that were not read.
    pub skipped: u64,
    /// The offset behind everything stored.
    pub end: i64,
}

impl HowFar {
    fn behind(self) -> u64 {
        u64::try_from(self.end.saturating_sub(self.position)).unwrap_or(0)
    }

    /// The offset, had only what was read been passed.
    fn read(self) -> i64 {
        self.position.saturating_sub_unsigned(self.skipped)
    }
}

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum News {
    Behind(Trend),
    /// After this time.
    CaughtUp(Duration),
    /// It is no longer behind after this time, since records were skipped meanwhile.
    Through {
        after: Duration,
        read: u64,
        skipped: u64,
    },
}

/// A backlog and how it changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// Records.
    pub behind: u64,
    /// Records a second that are read.
    pub read: f64,
    /// Records a second that come.
    pub come: f64,
    /// Records a second that are dropped or damaged.
    pub skipped: f64,
}

impl Trend {
    /// How long it takes from here; `None` while no less comes than is read.
    pub fn left(self) -> Option<Duration> {
        let gain = self.read - self.come;
        (gain > 0.0).then(|| Duration::try_from_secs_f64(self.behind as f64 / gain).ok()).flatten()
    }
}

/// One consumer.
#[derive(Debug)]
pub struct CatchUp {
    /// How long rows may wait for others without being behind.
    fill: Duration,
    /// Of the last minute and a little more, the oldest first.
    seen: VecDeque<(Instant, HowFar)>,
    behind: Option<Behind>,
}

#[derive(Clone, Copy, Debug)]
struct Behind {
    since: Instant,
    /// Where it was then.
    from: HowFar,
    /// When it was told last.
    told: Instant,
}

impl CatchUp {
    /// `fill`: how long rows may wait until a batch is full.
    pub fn new(fill: Duration) -> CatchUp {
        CatchUp { fill, seen: VecDeque::new(), behind: None }
    }

    /// Takes note of where the consumer is now; gives what there is to tell.
    pub fn look(&mut self, place: HowFar, now: Instant) -> Option<News> {
        self.seen.push_back((now, place));
        // the first one that is kept is a full minute old, or what has to be looked back to
        let length = MINUTE.max(PATIENCE + self.fill);
        while self.seen.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= length) {
            self.seen.pop_front();
        }
        match self.behind {
            None => {
                let before = self.ago(PATIENCE + self.fill, now)?;
                if place.position >= before.1.end {
                    return None;
                }
                self.behind = Some(Behind { since: before.0, from: before.1, told: now });
                Some(News::Behind(self.pace()?))
            }
            Some(Behind { since, from, told }) => {
                let is_near = self.ago(NEAR + self.fill, now).is_some_and(|(_, then)| place.position >= then.end);
                if is_near || place.behind() == 0 {
                    self.behind = None;
                    let after = now.saturating_duration_since(since);
                    let read = u64::try_from(place.read().saturating_sub(from.read())).unwrap_or(0);
                    return Some(match place.skipped.saturating_sub(from.skipped) {
                        0 => News::CaughtUp(after),
                        skipped => News::Through { after, read, skipped },
                    });
                }
                if now.saturating_duration_since(told) < MINUTE {
                    return None;
                }
                self.behind = Some(Behind { since, from, told: now });
                Some(News::Behind(self.pace()?))
            }
        }
    }

    /// How it gets on, while it is behind.
    pub fn progress(&self) -> Option<Trend> {
        self.behind.and_then(|_| self.pace())
    }

    /// The newest look that is as old as that.
    fn ago(&self, age: Duration, now: Instant) -> Option<(Instant, HowFar)> {
        self.seen.iter().rev().find(|(at, _)| now.saturating_duration_since(*at) >= age).copied()
    }

    fn pace(&self) -> Option<Trend> {
        let (now, place) = *self.seen.back()?;
        let is_recent = |(at, _): &&(Instant, HowFar)| now.saturating_duration_since(*at) <= MINUTE;
        let (then, before) = *self.seen.iter().find(is_recent)?;
        let seconds = now.saturating_duration_since(then).as_secs_f64();
        let rate = |from: i64, to: i64| match seconds > 0.0 {
            true => to.saturating_sub(from).max(0) as f64 / seconds,
            false => 0.0,
        };
        let skipped = place.skipped.saturating_sub(before.skipped);
        Some(Trend {
            behind: place.behind(),
            read: rate(before.read(), place.read()),
            come: rate(before.end, place.end),
            skipped: rate(0, i64::try_from(skipped).unwrap_or(i64::MAX)),
        })
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            News::CaughtUp(after) => write!(f, "caught up after {}", Seconds(*after)),
            News::Through { after, read, skipped } => {
                let [read, skipped] = [*read, *skipped].map(Thousands);
                write!(f, "no longer behind after {}: {read} records were read, {skipped} skipped", Seconds(*after))
            }
            News::Behind(pace) => pace.fmt(f),
        }
    }
}

impl fmt::Display for Trend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [read, come, skipped] = [self.read, self.come, self.skipped].map(Rounded);
        let behind = Thousands(self.behind);
        match self.left() {
            Some(left) => {
                write!(f, "catching up: {behind} records behind, {read} a second, about {} left", Seconds(left))?;
            }
            None if self.read == 0.0 && self.come == 0.0 => write!(f, "standing still: {behind} records behind")?,
            None => {
                let grows =
                    if self.read + self.skipped < self.come { "falling further behind" } else { "not keeping up" };
                write!(f, "{grows}: {behind} records behind, {read} a second are read, {come} come")?;
            }
        }
        if self.skipped > 0.0 { write!(f, ", {skipped} a second are skipped") } else { Ok(()) }
    }
}

/// With two digits that count.
struct Rounded(f64);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            rate if rate > 0.0 && rate < 10.0 => write!(f, "{rate:.1}"),
            rate => {
                let step = 10_u64.pow((rate.max(1.0).log10() as u32).saturating_sub(1));
                Thousands((rate / step as f64).round() as u64 * step).fmt(f)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Clock, Timestamp};

    /// A consumer of a stream, second by second.
    struct Run {
        clock: Clock,
        catch_up: CatchUp,
        place: HowFar,
        second: u64,
        told: Vec<String>,
    }

    impl Run {
        fn new(backlog: i64, fill: u64) -> Run {
            let place = HowFar { position: 0, skipped: 0, end: backlog };
            let mut run = Run {
                clock: Clock::manual(Timestamp::MIN),
                catch_up: CatchUp::new(Duration::from_secs(fill)),
                place,
                second: 0,
                told: Vec::new(),
            };
            run.look();
            run
        }

        fn look(&mut self) {
            if let Some(told) = self.catch_up.look(self.place, self.clock.monotonic()) {
                self.told.push(format!("{}: {told}", self.second));
            }
        }

        /// In each of `seconds` seconds `come` are stored and up to `read` are read.
        fn pass(&mut self, seconds: u64, come: i64, read: i64) -> &mut Run {
            self.skip(seconds, come, read, 0)
        }

        /// As `pass`; `skipped` more are dropped.
        fn skip(&mut self, seconds: u64, come: i64, read: i64, skipped: u32) -> &mut Run {
            for _ in 0..seconds {
                self.place.skipped += u64::from(skipped);
                self.place.position += i64::from(skipped);
                self.clock.advance(Duration::from_secs(1));
                self.second += 1;
                self.place.end += come;
                self.place.position = (self.place.position + read).min(self.place.end);
                self.look();
            }
            self
        }
    }

    #[test]
    fn a_backlog_is_told_at_once_each_minute_and_at_its_end() {
        let mut run = Run::new(900_000, 0);
        run.pass(5, 0, 9_300);
        assert_eq!(run.catch_up.progress(), None);
        run.pass(200, 0, 9_300);
        assert_eq!(
            run.told,
            [
                "10: catching up: 807,000 records behind, 9,300 a second, about 87 s left",
                "70: catching up: 249,000 records behind, 9,300 a second, about 27 s left",
                "97: caught up after 97 s",
            ]
        );
        assert_eq!(run.catch_up.progress(), None);
        assert!(run.catch_up.seen.len() <= 62, "{}", run.catch_up.seen.len());
    }

    #[test]
    fn what_comes_meanwhile_makes_it_longer() {
        let mut run = Run::new(100_000, 0);
        run.pass(10, 500, 1_000);
        let pace = run.catch_up.progress().unwrap();
        assert_eq!((pace.behind, pace.read, pace.come), (95_000, 1_000.0, 500.0));
        assert_eq!(pace.left(), Some(Duration::from_secs(190)));
        run.pass(185, 500, 1_000);
        assert_eq!(run.told.last().unwrap(), "190: catching up: 5,000 records behind, 1,000 a second, about 10 s left");
    }

    #[test]
    fn one_that_reads_less_than_comes_falls_behind_without_an_estimate() {
        let mut run = Run::new(0, 0);
        run.pass(120, 100, 40);
        assert_eq!(run.catch_up.progress().unwrap().left(), None);
        assert!(run.told[0].ends_with("a second are read, 100 come"), "{:?}", run.told);
        let mut still = Run::new(7, 0);
        still.pass(30, 0, 0);
        assert_eq!(still.told, ["10: standing still: 7 records behind"]);
        still.pass(1, 0, 7);
        assert_eq!(still.told[1..], ["31: caught up after 31 s"]);
    }

    #[test]
    fn what_is_dropped_is_no_pace_and_nobody_catches_up_by_it() {
        // away, and a share of the pool is full: as many go as come
        let mut away = Run::new(200_000, 0);
        away.skip(30, 100, 0, 100);
        assert_eq!(
            away.told,
            ["10: not keeping up: 200,000 records behind, 0 a second are read, 100 come, 100 a second are skipped"]
        );
        assert_eq!(away.catch_up.progress().unwrap().left(), None);
        // all of it is too old
        away.skip(1, 0, 0, 200_000).pass(1, 0, 0);
        assert_eq!(away.told[1..], ["31: no longer behind after 31 s: 0 records were read, 203,000 skipped"]);
        // it reads, and a part of the backlog goes meanwhile
        let mut slow = Run::new(100_000, 0);
        slow.pass(5, 0, 1_000).skip(1, 0, 1_000, 40_000).pass(60, 0, 1_000);
        assert_eq!(
            slow.told,
            [
                "10: catching up: 50,000 records behind, 1,000 a second, about 50 s left, 4,000 a second are skipped",
                "60: no longer behind after 60 s: 60,000 records were read, 40,000 skipped",
            ]
        );
        // what went before it fell behind does not count
        let mut before = Run::new(0, 0);
        before.skip(5, 100, 0, 100).pass(30, 100, 40);
        before.pass(60, 0, 1_000);
        assert!(before.told.last().unwrap().contains(": caught up after"), "{:?}", before.told);
    }

    #[test]
    fn a_quiet_stream_and_short_bursts_are_not_told() {
        let mut quiet = Run::new(0, 0);
        quiet.pass(300, 1, 1);
        // each event a second or two late
        for _ in 0..100 {
            quiet.pass(1, 1, 0).pass(1, 1, 0).pass(1, 1, 3);
        }
        assert!(quiet.told.is_empty(), "{:?}", quiet.told);
        let mut bursts = Run::new(0, 0);
        for _ in 0..20 {
            bursts.pass(1, 9_000, 1_000).pass(8, 0, 1_000).pass(30, 0, 1_000);
        }
        assert!(bursts.told.is_empty(), "{:?}", bursts.told);
    }

    #[test]
    fn at_the_border_it_is_told_once() {
        let mut run = Run::new(30_000, 0);
        run.pass(25, 1_000, 2_000);
        // from here on it stays five seconds behind, neither behind nor through
        run.pass(50, 1_000, 1_000);
        assert_eq!(run.told.len(), 2, "{:?}", run.told);
        run.pass(10, 1_000, 2_000);
        assert_eq!(run.told.len(), 3, "{:?}", run.told);
        run.pass(120, 1_000, 1_000);
        assert_eq!(run.told.len(), 3, "{:?}", run.told);
    }

    #[test]
    fn rows_that_wait_for_a_batch_are_not_behind() {
        let mut run = Run::new(0, 60);
        for _ in 0..10 {
            run.pass(59, 1, 0).pass(1, 1, 60);
        }
        assert!(run.told.is_empty(), "{:?}", run.told);
    }

    #[test]
    fn numbers_are_written_for_people() {
        let rate = |rate: f64| Rounded(rate).to_string();
        assert_eq!([0.0, 0.25, 9.94, 12.4, 1_234.0].map(rate), ["0", "0.2", "9.9", "12", "1,200"]);
    }
}

//! How often the journal may write: a budget of bytes a day, and what was written.
//!
//! In: what each commit wrote, and when. Out: when the next one is due, and that stretching is not enough. Invariant:
//! inside the budget a commit is due at once; beyond it commits are stretched, up to the longest interval and no
//! further, so nothing is held up for the budget's sake. Not here: what is written (`store`), what waits (`queue`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// After a quiet time the bytes of this number of seconds may be written at once.
const SAVED: f64 = 10.0;
/// What reaches the device for each byte that we write: ext4's own journal comes on top, as measured at 10 to 100
/// commits a second.
const ON_DEVICE: f64 = 1.07;
const DAY: f64 = 86_400.0;
const YEAR: f64 = 365.25;
/// A window is kept in this number of pieces, each of the length below.
const PIECES: u32 = 96;
pub(super) const DAY_PIECE: Duration = Duration::from_secs(900);
const MINUTE_PIECE: Duration = Duration::from_millis(625);
const MINUTE: Duration = Duration::from_secs(60);
/// More than the budget is told once it has lasted for a minute: a burst or a checkpoint is no pace.
const OVER_FOR: Duration = MINUTE;
/// What is written is inside again once it was below this share of the budget for that long. One that swings about the
/// budget is told once.
const INSIDE_SHARE: f64 = 0.9;
const INSIDE_FOR: Duration = Duration::from_secs(300);

/// Where the writer keeps a [`WearStatus`] in `meta`, as JSON.
pub(super) const WEAR: &str = "wear";

/// What the journal wrote, in bytes of the blocks that changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WearStatus {
    /// Since the process started.
    pub written: u64,
    /// Bytes a day at the pace of the last day, or since the start where that is shorter.
    pub last_day: u64,
    /// Bytes a day at the pace of the last minute.
    pub last_minute: u64,
}

impl WearStatus {
    /// How many years a card or disk lasts that can take `endurance` bytes in its life, at the pace of the last day.
    /// `None` while nothing is written.
    pub fn years(&self, endurance: u64) -> Option<f64> {
        (self.last_day > 0).then(|| endurance as f64 / (self.last_day as f64 * YEAR))
    }
}

/// When group commits are due.
#[derive(Debug)]
pub(super) struct Pace {
    shortest: Duration,
    longest: Duration,
    /// Bytes a second; `None` without a budget.
    rate: Option<f64>,
    /// Bytes that may still be written now; below 0 when more was written than the budget allows.
    allowance: f64,
    counted: Instant,
    last_commit: Option<Instant>,
}

impl Pace {
    /// `budget`: bytes a day.
    pub fn new(budget: Option<u64>, shortest: Duration, longest: Duration, now: Instant) -> Pace {
        let rate = budget.map(|bytes| bytes as f64 / DAY);
        Pace {
            shortest: shortest.min(longest),
            longest,
            rate,
            allowance: rate.unwrap_or_default() * SAVED,
            counted: now,
            last_commit: None,
        }
    }

    /// A commit was made, or a checkpoint, and wrote these bytes.
    pub fn wrote(&mut self, bytes: u64, now: Instant) {
        self.refill(now);
        if let Some(rate) = self.rate {
            // a long checkpoint is no reason to stretch commits for minutes
            self.allowance = (self.allowance - bytes as f64 * ON_DEVICE).max(-rate * SAVED);
        }
    }

    pub fn committed(&mut self, now: Instant) {
        self.last_commit = Some(now);
    }

    /// When the next commit may be made.
    pub fn next(&mut self, now: Instant) -> Instant {
        self.refill(now);
        let Some(last) = self.last_commit else { return now };
        (now + self.debt()).clamp(last + self.shortest, last + self.longest)
    }

    /// When a commit may be made that is wanted soon: the budget does not count.
    pub fn next_soon(&self, now: Instant) -> Instant {
        self.last_commit.map_or(now, |last| last + self.shortest)
    }

    /// Whether the last commit was followed by the longest wait: the budget wants one that is as long or longer.
    pub fn is_stretched(&mut self, now: Instant) -> bool {
        self.refill(now);
        let waited = self.last_commit.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        // what is written in between counts a moment before the commit does
        self.allowance < 0.0 && self.debt() + waited + self.longest / 16 >= self.longest
    }

    /// How long it takes until what was written is inside the budget again.
    fn debt(&self) -> Duration {
        match self.rate {
            Some(rate) if self.allowance < 0.0 => {
                Duration::try_from_secs_f64(-self.allowance / rate).unwrap_or(self.longest).min(self.longest)
            }
            _ => Duration::ZERO,
        }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.counted).as_secs_f64();
        self.counted = self.counted.max(now);
        if let Some(rate) = self.rate {
            self.allowance = (self.allowance + rate * passed).min(rate * SAVED);
        }
    }
}

/// Whether more is written than the budget allows although commits wait for as long as they may.
#[derive(Debug, Default)]
pub(super) struct Excess {
    is_over: bool,
    /// Since when the other was seen at each look.
    turned: Option<Instant>,
}

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExcessNews {
    Over,
    Inside,
}

impl Excess {
    /// Looks again, about once a second. `minute`: bytes a day at the pace of the last whole minute.
    pub fn look(&mut self, minute: u64, budget: u64, is_stretched: bool, now: Instant) -> Option<ExcessNews> {
        let (is_other, long) = match self.is_over {
            false => (minute > budget && is_stretched, OVER_FOR),
            true => ((minute as f64) < budget as f64 * INSIDE_SHARE, INSIDE_FOR),
        };
        if !is_other {
            self.turned = None;
            return None;
        }
        let since = *self.turned.get_or_insert(now);
        if now.saturating_duration_since(since) < long {
            return None;
        }
        *self = Excess { is_over: !self.is_over, turned: None };
        Some(if self.is_over { ExcessNews::Over } else { ExcessNews::Inside })
    }
}

/// What was written: in all, over the last day, over the last minute.
#[derive(Clone, Debug)]
pub(super) struct Written {
    total: u64,
    day: ByteWindow,
    minute: ByteWindow,
}

impl Written {
    pub fn new(now: Instant) -> Written {
        Written { total: 0, day: ByteWindow::new(DAY_PIECE, now), minute: ByteWindow::new(MINUTE_PIECE, now) }
    }

    pub fn add(&mut self, bytes: u64, now: Instant) {
        self.total += bytes;
        self.day.add(bytes, now);
        self.minute.add(bytes, now);
    }

    /// Bytes a day at the pace of the last minute, where what was before the start counts as quiet.
    pub fn whole_minute(&self, now: Instant) -> u64 {
        self.minute.a_day_from(MINUTE, now)
    }

    /// As of now.
    pub fn told(&self, now: Instant) -> WearStatus {
        WearStatus { written: self.total, last_day: self.day.a_day(now), last_minute: self.minute.a_day(now) }
    }
}

/// The bytes of the last [`PIECES`] pieces of time.
#[derive(Clone, Debug)]
pub(super) struct ByteWindow {
    piece: Duration,
    start: Instant,
    /// When each piece that had bytes began, and its bytes; the oldest first.
    pieces: VecDeque<(Instant, u64)>,
}

impl ByteWindow {
    pub fn new(piece: Duration, now: Instant) -> ByteWindow {
        ByteWindow { piece, start: now, pieces: VecDeque::new() }
    }

    pub fn add(&mut self, bytes: u64, now: Instant) {
        match self.pieces.back_mut() {
            Some((began, sum)) if now.saturating_duration_since(*began) < self.piece => *sum += bytes,
            _ => self.pieces.push_back((now, bytes)),
        }
        let length = self.piece * PIECES;
        while self.pieces.pop_front_if(|(began, _)| now.saturating_duration_since(*began) >= length).is_some() {}
    }

    /// Bytes a day at the pace of this window, or of the time since the start where that is shorter.
    fn a_day(&self, now: Instant) -> u64 {
        self.a_day_from(self.piece, now)
    }

    /// The same, where the time since the start counts as `shortest` at least.
    pub fn a_day_from(&self, shortest: Duration, now: Instant) -> u64 {
        let bytes: u64 = self.inside(now).map(|(_, bytes)| bytes).sum();
        let seconds = now.saturating_duration_since(self.start).min(self.piece * PIECES).max(shortest).as_secs_f64();
        (bytes as f64 * DAY / seconds) as u64
    }

    /// How many pieces had bytes.
    pub fn pieces_with_bytes(&self, now: Instant) -> usize {
        self.inside(now).count()
    }

    fn inside(&self, now: Instant) -> impl Iterator<Item = &(Instant, u64)> {
        let length = self.piece * PIECES;
        self.pieces.iter().filter(move |(began, _)| now.saturating_duration_since(*began) < length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Clock;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_quiet_journal_commits_at_once_and_a_busy_one_inside_its_budget() {
        let start = Clock::Real.monotonic();
        // 100 bytes a millisecond
        let mut pace = Pace::new(Some(8_640_000_000), 20 * MS, 300 * MS, start);
        assert_eq!(pace.next(start), start, "there was no commit yet");
        let mut now = start;
        let mut commit = |pace: &mut Pace, bytes: u64| {
            now = pace.next(now);
            pace.wrote(bytes, now);
            pace.committed(now);
            now
        };
        // what was saved up lasts for 10 s of the budget
        let mut last = start;
        for _ in 0..200 {
            last = commit(&mut pace, 5_000);
        }
        assert!(last - start < 199 * 25 * MS, "{:?}", last - start);
        for _ in 0..400 {
            last = commit(&mut pace, 5_000);
        }
        let (a, b) = (last, (0..100).map(|_| commit(&mut pace, 5_000)).last().unwrap());
        let each = (b - a) / 100;
        let expected = (50 * MS).mul_f64(ON_DEVICE);
        assert!((expected - MS..=expected + MS).contains(&each), "5,000 bytes at 100 a millisecond: {each:?}");
        let a = commit(&mut pace, 1_000_000);
        let b = (0..20).map(|_| commit(&mut pace, 1_000_000)).last().unwrap();
        assert_eq!((b - a) / 20, 300 * MS, "bytes beyond the budget are written all the same");
        assert_eq!(pace.next_soon(b), b + 20 * MS);
    }

    #[test]
    fn without_a_budget_and_after_a_quiet_minute_only_the_shortest_interval_counts() {
        let start = Clock::Real.monotonic();
        let mut free = Pace::new(None, 20 * MS, 300 * MS, start);
        let mut bound = Pace::new(Some(86_400), 20 * MS, 300 * MS, start);
        for pace in [&mut free, &mut bound] {
            pace.wrote(1 << 30, start);
            pace.committed(start);
        }
        assert_eq!((free.next(start), bound.next(start)), (start + 20 * MS, start + 300 * MS));
        let later = start + Duration::from_secs(60);
        assert!(bound.next(later) <= later);
        bound.committed(later);
        assert_eq!(bound.next(later), later + 20 * MS);
    }

    #[test]
    fn what_is_written_is_told_for_a_day_and_for_a_minute() {
        let start = Clock::Real.monotonic();
        let second = Duration::from_secs(1);
        let mut written = Written::new(start);
        for i in 0..48 {
            written.add(if i < 24 { 1_000 } else { 100 }, start + second * 3_600 * i);
        }
        let told = written.told(start + second * (3_600 * 47 + 1));
        assert_eq!((told.written, told.last_day, told.last_minute), (24 * 1_100, 24 * 100, 144_000));

        let mut new = Written::new(start);
        new.add(1_000, start + second * 3_600);
        let told = new.told(start + second * 3_600);
        assert_eq!((told.last_day, told.last_minute), (24_000, 1_440_000));
        assert_eq!(new.whole_minute(start + second * 3_600), 1_440_000);
        let mut burst = Written::new(start);
        burst.add(1_000, start);
        assert_eq!(burst.whole_minute(start + second), 1_440_000, "a second is not a minute");
        assert_eq!((told.years(24_000 * 1_461), new.told(start + second * 86_400 * 3).years(1)), (Some(4.0), None));
    }

    /// A journal that gets work of `bytes` each time a commit is due, for that many seconds: what was told, and after
    /// how many of them.
    fn kept_busy(journal: &mut (Pace, Written, Excess, Instant), bytes: u64, seconds: u64) -> Vec<(u64, ExcessNews)> {
        let (pace, written, excess, now) = journal;
        let (start, mut told) = (*now, Vec::new());
        for second in 1..=seconds {
            let until = start + Duration::from_secs(second);
            while pace.next(*now) < until {
                *now = pace.next(*now);
                pace.wrote(bytes, *now);
                written.add(bytes, *now);
                pace.committed(*now);
            }
            *now = until;
            let stretched = pace.is_stretched(until);
            told.extend(excess.look(written.whole_minute(until), BUDGET, stretched, until).map(|turn| (second, turn)));
        }
        told
    }

    /// 100 bytes a millisecond.
    const BUDGET: u64 = 8_640_000_000;

    fn journal(longest: Duration) -> (Pace, Written, Excess, Instant) {
        let now = Clock::Real.monotonic();
        (Pace::new(Some(BUDGET), 20 * MS, longest, now), Written::new(now), Excess::default(), now)
    }

    #[test]
    fn more_than_the_budget_at_the_longest_interval_is_told_once_and_so_is_the_end() {
        for longest in [150 * MS, Duration::from_secs(10)] {
            let mut journal = journal(longest);
            let fits = 95 * longest.as_millis() as u64;
            assert_eq!(kept_busy(&mut journal, fits, 600), [], "commits are stretched, and that is enough");
            let told = kept_busy(&mut journal, fits * 12, 600);
            assert!(matches!(told.as_slice(), [(60..=75, ExcessNews::Over)]), "{longest:?}: {told:?}");
            let told = kept_busy(&mut journal, fits / 2, 1_200);
            assert_eq!(told, [], "{longest:?}: as much as the budget allows is not yet inside");
            for (bytes, seconds) in [(fits * 12, 30), (fits / 2, 100), (fits * 12, 200)] {
                assert_eq!(kept_busy(&mut journal, bytes, seconds), [], "it swings about the budget");
            }
            // nothing is to be done any more
            journal.3 += Duration::from_secs(60);
            let quiet: Vec<_> = (0..=600)
                .filter_map(|second| {
                    let now = journal.3 + Duration::from_secs(second);
                    journal.2.look(journal.1.whole_minute(now), BUDGET, journal.0.is_stretched(now), now)
                })
                .collect();
            assert_eq!(quiet, [ExcessNews::Inside], "{longest:?}");
        }
    }

    #[test]
    fn a_burst_and_a_large_checkpoint_are_no_excess() {
        let mut journal = journal(150 * MS);
        assert_eq!(kept_busy(&mut journal, 1_000_000, 50), [], "50 s are none");
        assert_eq!(kept_busy(&mut journal, 100, 600), []);
        for _ in 0..10 {
            let (pace, written, _, now) = &mut journal;
            pace.wrote(50_000_000, *now);
            written.add(50_000_000, *now);
            assert_eq!(kept_busy(&mut journal, 100, 60), [], "each minute a checkpoint, and commits that need no wait");
        }
    }
}

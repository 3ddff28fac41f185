//! Whether most rows of a stage fail.
//!
//! In: once a second, how many rows went through the stage and how many failed so far. Out: when it begins that most
//! fail, and when that is over. Invariant: it begins at half of the rows and is over below a quarter, so a stage
//! between the two is told once; without rows nothing changes. Not here: where the numbers come from, what is said
//! (`failures`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);
/// Half of the rows of the last minute, and no fewer than this: a few bad rows beside a few good ones are no alarm.
const HALF_MIN: u64 = 20;
/// Where fewer come, all rows since one last went through, and no fewer than this.
const ALL_MIN: u64 = 5;

/// What became of the rows of a stage so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowTally {
    pub through: u64,
    pub failed: u64,
}

impl RowTally {
    fn since(self, before: RowTally) -> RowTally {
        RowTally {
            through: self.through.saturating_sub(before.through),
            failed: self.failed.saturating_sub(before.failed),
        }
    }

    pub fn rows(self) -> u64 {
        self.through + self.failed
    }
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureTurn {
    /// Of these rows most fail.
    Began(RowTally),
    /// It lasted so long; how many rows failed from its beginning on.
    Over { after: Duration, failed: u64 },
}

/// One stage.
#[derive(Debug)]
pub struct FailingStage {
    /// Of the last minute and a little more, the oldest first.
    seen: VecDeque<(Instant, RowTally)>,
    /// How many had failed when a row last went through.
    failed_before: u64,
    /// Since when most rows fail, and how many had failed by then.
    begun: Option<(Instant, u64)>,
}

impl FailingStage {
    pub fn new(start: RowTally, now: Instant) -> FailingStage {
        FailingStage { seen: VecDeque::from([(now, start)]), failed_before: start.failed, begun: None }
    }

    /// Takes note of where the stage is now.
    pub fn look(&mut self, now: Instant, tally: RowTally) -> Option<FailureTurn> {
        if self.seen.back().is_some_and(|(_, last)| tally.through > last.through) {
            self.failed_before = tally.failed;
        }
        self.seen.push_back((now, tally));
        // the first one that is kept is a full minute old
        while self.seen.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= MINUTE) {
            self.seen.pop_front();
        }
        let minute = self.minute();
        match self.begun {
            None => {
                let half = minute.failed >= HALF_MIN && minute.failed >= minute.through;
                let alone = self.alone();
                let all = minute.through == 0 && alone.failed >= ALL_MIN;
                let most = if half { minute } else { alone };
                (half || all).then(|| {
                    self.begun = Some((now, tally.failed.saturating_sub(most.failed)));
                    FailureTurn::Began(most)
                })
            }
            Some((since, before)) => (minute.through > 0 && minute.failed * 3 < minute.through).then(|| {
                self.begun = None;
                FailureTurn::Over {
                    after: now.saturating_duration_since(since),
                    failed: tally.failed.saturating_sub(before),
                }
            }),
        }
    }

    /// While most rows fail, the rows that show it: those of the last minute, or since one last went through. `None`
    /// too where so few have come by now that they show nothing.
    pub fn most(&self) -> Option<RowTally> {
        let (minute, alone) = (self.minute(), self.alone());
        let shows = [(minute, HALF_MIN), (alone, ALL_MIN)].into_iter().find(|(rows, least)| rows.failed >= *least);
        self.begun.and(shows).map(|(rows, _)| rows)
    }

    fn minute(&self) -> RowTally {
        match (self.seen.back(), self.seen.front()) {
            (Some((_, last)), Some((_, first))) => last.since(*first),
            _ => RowTally::default(),
        }
    }

    /// Rows that failed since one last went through.
    fn alone(&self) -> RowTally {
        let failed = self.seen.back().map_or(0, |(_, last)| last.failed);
        RowTally { through: 0, failed: failed.saturating_sub(self.failed_before) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Clock, Timestamp};

    /// A stage, second by second.
    struct Run {
        clock: Clock,
        stage: FailingStage,
        tally: RowTally,
        second: u64,
        turns: Vec<(u64, FailureTurn)>,
    }

    impl Run {
        fn new() -> Run {
            let clock = Clock::manual(Timestamp::MIN);
            let stage = FailingStage::new(RowTally::default(), clock.monotonic());
            Run { clock, stage, tally: RowTally::default(), second: 0, turns: Vec::new() }
        }

        /// In each of `seconds` seconds so many rows go through and so many fail.
        fn pass(&mut self, seconds: u64, through: u64, failed: u64) -> &mut Run {
            for _ in 0..seconds {
                self.clock.advance(Duration::from_secs(1));
                self.second += 1;
                self.tally.through += through;
                self.tally.failed += failed;
                let turn = self.stage.look(self.clock.monotonic(), self.tally);
                self.turns.extend(turn.map(|turn| (self.second, turn)));
            }
            self
        }
    }

    #[test]
    fn half_of_a_minutes_rows_begin_it_and_it_is_over_below_a_quarter() {
        let mut run = Run::new();
        run.pass(60, 10, 9);
        assert_eq!(run.turns, [], "less than half");
        run.pass(10, 0, 10);
        assert_eq!(run.turns.len(), 1, "{:?}", run.turns);
        let (second, FailureTurn::Began(most)) = run.turns[0] else { panic!("{:?}", run.turns) };
        assert!(second < 70 && most.failed >= most.through && most.rows() > 1_000, "{:?}", run.turns);
        // at the border nothing is told again
        run.pass(600, 10, 4);
        assert_eq!(run.turns.len(), 1, "{:?}", run.turns);
        run.pass(60, 10, 1);
        assert_eq!(run.turns.len(), 2, "{:?}", run.turns);
        assert!(matches!(run.turns[1].1, FailureTurn::Over { failed: 2_400.., .. }), "{:?}", run.turns);
        assert_eq!(run.stage.most(), None);
    }

    #[test]
    fn few_bad_rows_are_no_alarm_and_all_of_a_quiet_stream_are() {
        let mut run = Run::new();
        run.pass(1, 1, 19).pass(120, 0, 0);
        assert_eq!(run.turns, [], "19 are few beside one that went through");
        let mut quiet = Run::new();
        for _ in 0..4 {
            quiet.pass(1, 0, 1).pass(299, 0, 0);
        }
        assert_eq!(quiet.turns, [], "four are few");
        quiet.pass(1, 0, 1);
        assert_eq!(quiet.turns, [(1_201, FailureTurn::Began(RowTally { through: 0, failed: 5 }))]);
        quiet.pass(10_000, 0, 0);
        assert_eq!(quiet.turns.len(), 1, "nothing shows that it was repaired");
        assert_eq!(quiet.stage.most(), Some(RowTally { through: 0, failed: 5 }));
        quiet.pass(1, 1, 0);
        let after = Duration::from_secs(10_001);
        assert_eq!(quiet.turns[1..], [(11_202, FailureTurn::Over { after, failed: 5 })]);
    }

    #[test]
    fn a_burst_of_bad_rows_in_a_busy_stream_is_no_alarm() {
        let mut run = Run::new();
        for _ in 0..20 {
            run.pass(58, 100, 0).pass(2, 0, 100);
        }
        assert_eq!(run.turns, []);
    }

    #[test]
    fn what_failed_before_the_start_does_not_count() {
        let clock = Clock::manual(Timestamp::MIN);
        let before = RowTally { through: 3, failed: 1_000 };
        let mut stage = FailingStage::new(before, clock.monotonic());
        assert_eq!(stage.look(clock.monotonic(), before), None);
        assert_eq!(stage.look(clock.monotonic(), RowTally { failed: 1_004, ..before }), None);
        let most = RowTally { through: 0, failed: 5 };
        assert_eq!(stage.look(clock.monotonic(), RowTally { failed: 1_005, ..before }), Some(FailureTurn::Began(most)));
    }
}

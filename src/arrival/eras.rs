//! Which arrival times a pool has used, and where in it arrival time was set back.
//!
//! In: that arrival time is set back at an offset. Out: whether a moment was used before, and which era a record is
//! of. Invariant: an era begins outside of all used times, so in no two eras a window ends at the same moment. Not
//! here: when arrival time is set back (`arrival`), where this is stored (`journal`).

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Ranges of used time, and beginnings of eras, that a pool keeps.
const KEPT_MAX: usize = 32;

/// The eras of a pool: in each of them arrival time never goes back. Times are ticks of 100 ns since year one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eras {
    /// Of the present era, from 0.
    number: u32,
    /// Where arrival time was when it began, or when it last leapt ahead.
    from: i64,
    /// The times before that, in order and apart from each other.
    used: Vec<(i64, i64)>,
    /// The offset of the inputs at which each of the newest eras began, and its number.
    begins: Vec<(i64, u32)>,
}

impl Eras {
    /// Of a new pool.
    pub fn starting(from: Timestamp) -> Eras {
        Eras { from: from.ticks(), ..Eras::default() }
    }

    /// The number of the present era.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Begins an era at `from`, with the record `first`; the present one has come up to `until`.
    pub fn begin(&mut self, first: i64, from: Timestamp, until: Timestamp) {
        self.leap(until, from);
        self.number += 1;
        self.begins.push((first, self.number));
        if self.begins.len() > KEPT_MAX {
            self.begins.remove(0);
        }
    }

    /// Arrival time leaps from `until` to `from`: what lies between is not used.
    pub(super) fn leap(&mut self, until: Timestamp, from: Timestamp) {
        self.used.push((self.from, until.ticks().max(self.from)));
        self.from = from.ticks();
        self.join();
    }

    /// What was used beside, up to `until`, by those that were made of the same.
    pub(super) fn also_used(&mut self, others: &Eras, until: Timestamp) {
        let last = (others.from, until.ticks().max(others.from));
        let more: Vec<_> =
            others.used.iter().chain([&last]).filter(|range| !self.used.contains(range)).copied().collect();
        self.used.extend(more);
        self.join();
    }

    fn join(&mut self) {
        self.used.sort_unstable();
        while let Some(i) = self.to_join() {
            let (_, end) = self.used.remove(i + 1);
            if let Some(range) = self.used.get_mut(i) {
                range.1 = range.1.max(end);
            }
        }
    }

    /// The first of two neighbours that meet, or are the nearest of too many. The present era stays between those
    /// that it lies between.
    fn to_join(&self) -> Option<usize> {
        let pairs = self.used.iter().zip(self.used.iter().skip(1)).enumerate();
        let gaps = pairs.map(|(i, (a, b))| (i, b.0.saturating_sub(a.1), a.1 <= self.from && self.from <= b.0));
        let apart = gaps.filter(|(_, gap, is_around)| *gap <= 0 || !is_around);
        let (i, gap, _) = apart.min_by_key(|(_, gap, _)| *gap)?;
        (gap <= 0 || self.used.len() > KEPT_MAX).then_some(i)
    }

    /// The times that were used before the last leap or step back.
    pub fn used(&self) -> impl Iterator<Item = (Timestamp, Timestamp)> {
        let time = Timestamp::saturating_from_ticks;
        self.used.iter().map(move |(from, to)| (time(*from), time(*to)))
    }

    /// Whether a window that has something to do with `moment` may have ended before: it lies in a used time, or no
    /// more than `margin` ticks from it. `now` is how far arrival time has come.
    pub(super) fn is_used(&self, moment: Timestamp, margin: i64, now: Timestamp) -> bool {
        let present = (self.from, now.ticks().max(self.from));
        let is_in = |(from, to): &(i64, i64)| {
            (from.saturating_sub(margin)..=to.saturating_add(margin)).contains(&moment.ticks())
        };
        self.used.iter().chain([&present]).any(is_in)
    }

    /// `moment`, or where arrival time stands while that lies in the time of an earlier era.
    pub(super) fn outside(&self, moment: Timestamp, margin: i64) -> Timestamp {
        // those before the present era were passed by the step back
        let ahead = self.used.iter().rev().filter(|(from, _)| *from >= self.from);
        let widened = ahead.map(|(from, to)| (from.saturating_sub(margin), to.saturating_add(margin)));
        let stands = |at: i64, (from, to): (i64, i64)| if (from..=to).contains(&at) { from } else { at };
        Timestamp::saturating_from_ticks(widened.fold(moment.ticks(), stands))
    }

    /// How many ticks of arrival time have passed since `arrival`, at least: leaps do not count, and where arrival time
    /// was set back what was used before counts to its end. Never less than 0. `now` is how far arrival time has come.
    pub fn age(&self, arrival: Timestamp, now: Timestamp) -> i64 {
        let (at, now) = (arrival.ticks(), now.ticks());
        let present = now.saturating_sub(self.from).max(0);
        if (self.from..=now).contains(&at) {
            return now - at;
        }
        let Some((_, end)) = self.used.iter().find(|(from, to)| (*from..=*to).contains(&at)) else { return 0 };
        // of used ranges before the present one in time, those in between were passed after it
        let between = self.used.iter().filter(|(from, to)| *from > *end && *to < self.from).map(|(from, to)| to - from);
        (end - at).saturating_add(present).saturating_add(between.sum())
    }

    /// Where the eras behind `era` begin, in order: the first offset of each, and its number.
    pub fn behind(&self, era: u32) -> impl Iterator<Item = (i64, u32)> {
        self.begins.iter().copied().filter(move |(_, number)| *number > era)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ticks: i64) -> Timestamp {
        Timestamp::saturating_from_ticks(ticks)
    }

    fn used(eras: &Eras) -> Vec<(i64, i64)> {
        eras.used().map(|(from, to)| (from.ticks(), to.ticks())).collect()
    }

    #[test]
    fn what_an_era_had_is_used_and_stood_before() {
        let mut eras = Eras::starting(at(1_000));
        assert!(eras.is_used(at(1_500), 10, at(2_000)) && eras.is_used(at(990), 10, at(2_000)));
        assert!(!eras.is_used(at(989), 10, at(2_000)));
        eras.begin(7, at(100), at(2_000));
        assert_eq!((eras.number(), used(&eras)), (1, vec![(1_000, 2_000)]));
        assert_eq!(eras.behind(0).collect::<Vec<_>>(), [(7, 1)]);
        assert_eq!(eras.behind(1).count(), 0);
        let stands = [(989, 989), (990, 990), (1_500, 990), (2_010, 990), (2_011, 2_011)];
        stands.iter().for_each(|(moment, told)| assert_eq!(eras.outside(at(*moment), 10), at(*told), "{moment}"));
    }

    #[test]
    fn an_age_is_what_passed_and_never_a_leap() {
        // a clock that leapt ahead by far, and another time
        let mut eras = Eras::starting(at(100));
        eras.leap(at(200), at(900_000));
        assert_eq!(eras.age(at(150), at(900_070)), 120);
        assert_eq!(eras.age(at(900_050), at(900_070)), 20);
        assert_eq!(eras.age(at(900_080), at(900_070)), 0, "it was stamped since");
        eras.leap(at(900_100), at(2_000_000));
        assert_eq!(eras.age(at(150), at(2_000_001)), 50 + 100 + 1);
        // a clock that was ahead and is set back
        let mut eras = Eras::starting(at(500_000));
        eras.begin(7, at(1_000), at(500_300));
        assert_eq!(eras.age(at(500_100), at(1_040)), 200 + 40);
        assert_eq!(eras.age(at(1_010), at(1_040)), 30);
        assert_eq!(eras.age(at(1_050), at(1_040)), 0);
        // a pool that knows of none
        assert_eq!(Eras::default().age(at(5), at(9)), 4);
        assert_eq!(Eras::default().age(at(9), at(5)), 0);
    }

    #[test]
    fn neighbours_that_meet_are_one_range_and_of_too_many_the_nearest() {
        let mut eras = Eras::starting(at(0));
        for i in 1..=KEPT_MAX as i64 {
            eras.begin(i, at(i * 1_000), at((i - 1) * 1_000 + 10));
        }
        assert_eq!(used(&eras).len(), KEPT_MAX);
        eras.begin(99, at(90_000), at(KEPT_MAX as i64 * 1_000 + 500));
        assert_eq!(used(&eras).len(), KEPT_MAX);
        assert_eq!(used(&eras)[0], (0, 1_010), "the first two of equals");
        assert_eq!(eras.behind(0).count(), KEPT_MAX);
        eras.begin(100, at(80_000), at(200_000));
        eras.begin(101, at(70_000), at(95_000));
        assert_eq!(used(&eras).last(), Some(&(80_000, 200_000)));
    }

    #[test]
    fn too_many_ranges_are_not_joined_across_the_present_era() {
        let mut eras = Eras::starting(at(0));
        for i in 1..=KEPT_MAX as i64 {
            eras.leap(at((i - 1) * 1_000 + 10), at(i * 1_000));
        }
        // between two that are nearer to each other than any others
        let last = KEPT_MAX as i64 * 1_000;
        eras.begin(1, at(600), at(last + 10));
        eras.used[1] = (650, 1_010);
        eras.leap(at(620), at(630));
        assert!(used(&eras).iter().all(|(from, to)| !(*from..=*to).contains(&630)), "{:?}", used(&eras));
        assert_eq!(eras.outside(at(700), 0), at(650), "it is used");
    }

    #[test]
    fn what_was_used_while_an_era_was_stored_is_used() {
        let seen = Eras::starting(at(1_000));
        let (mut stored, mut now) = (seen.clone(), seen);
        stored.begin(5, at(100), at(2_000));
        now.leap(at(2_100), at(9_000));
        stored.also_used(&now, at(9_500));
        assert_eq!((stored.number(), used(&stored)), (1, vec![(1_000, 2_100), (9_000, 9_500)]));
    }

    #[test]
    fn what_a_leap_passes_is_not_used() {
        let mut eras = Eras::starting(at(100));
        eras.leap(at(200), at(900));
        assert_eq!((eras.number(), used(&eras)), (0, vec![(100, 200)]));
        assert!(!eras.is_used(at(500), 10, at(950)) && eras.is_used(at(895), 10, at(950)));
        eras.begin(3, at(300), at(1_000));
        assert_eq!(used(&eras), [(100, 200), (900, 1_000)]);
        assert_eq!([880, 889, 890, 1_011].map(|t| eras.outside(at(t), 10).ticks()), [880, 889, 890, 1_011]);
    }
}

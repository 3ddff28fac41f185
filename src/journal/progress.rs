//! How consumers that are behind get on, seen from outside: two looks at a pool whose job runs.
//!
//! In: where consumers are, half a second apart. Out: a [`ConsumerPace`] for each that is behind. Invariant: one that
//! has read by the second look what was there at the first is not behind. Not here: looking (`status`), what a running
//! job itself tells, over a longer time (`pipeline::catch_up`).

use serde::Serialize;

/// How a consumer that is behind gets on. Positions are committed ones: one that commits seldom seems to stand still.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ConsumerPace {
    /// Records a second that are read.
    pub read: f64,
    /// Records a second that come.
    pub come: f64,
    /// Records a second that are dropped or damaged.
    pub skipped: f64,
    /// Until it has caught up; `None` while no less comes than is read.
    pub left_seconds: Option<f64>,
    /// The time between the looks.
    pub over_seconds: f64,
}

/// Where a consumer was at a look.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConsumerAt {
    pub position: i64,
    /// Offset behind its stream.
    pub end: i64,
    /// Records it was moved past so far.
    pub skipped: u64,
}

/// From two looks that are `seconds` apart. `None`: it is not behind.
pub(super) fn pace(before: ConsumerAt, after: ConsumerAt, seconds: f64) -> Option<ConsumerPace> {
    if after.position >= before.end {
        return None;
    }
    let a_second = |records: i64| records.max(0) as f64 / seconds.max(0.001);
    let skipped = i64::try_from(after.skipped.saturating_sub(before.skipped)).unwrap_or(i64::MAX);
    let read = a_second(after.position.saturating_sub(before.position).saturating_sub(skipped));
    let come = a_second(after.end.saturating_sub(before.end));
    let behind = after.end.saturating_sub(after.position) as f64;
    let left_seconds = (read > come).then(|| behind / (read - come));
    Some(ConsumerPace { read, come, skipped: a_second(skipped), left_seconds, over_seconds: seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(position: i64, end: i64, skipped: u64) -> ConsumerAt {
        ConsumerAt { position, end, skipped }
    }

    #[test]
    fn a_consumer_that_is_behind_has_a_pace_and_a_time_left() {
        let told = pace(seen(0, 1_240_000, 0), seen(40_000, 1_240_000, 0), 0.5).unwrap();
        assert_eq!((told.read, told.come, told.left_seconds), (80_000.0, 0.0, Some(15.0)));
        let told = pace(seen(0, 1_000, 5), seen(100, 1_050, 25), 0.5).unwrap();
        assert_eq!((told.read, told.come, told.skipped), (160.0, 100.0, 40.0), "what is dropped is not read");
        assert_eq!(told.left_seconds, Some(950.0 / 60.0));
        let told = pace(seen(0, 1_000, 0), seen(100, 1_100, 0), 0.5).unwrap();
        assert_eq!(told.left_seconds, None, "no less comes than is read");
        assert_eq!(pace(seen(0, 10, 0), seen(0, 10, 0), 0.5).unwrap().read, 0.0);
    }

    #[test]
    fn a_consumer_that_has_read_what_was_there_is_not_behind() {
        let busy = pace(seen(990, 1_000, 0), seen(1_000, 1_020, 0), 0.5);
        assert_eq!(busy, None, "a busy stream is never read to its very end");
        assert_eq!(pace(seen(7, 7, 0), seen(7, 7, 0), 0.5), None);
    }
}

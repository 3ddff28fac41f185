//! What a running job says about its pool: how full it is, how long it lasts, and who fills it.
//!
//! In: the journal's status. Out: samples for `/metrics`, lines for `/readyz`. Invariant: each line says what to do.
//! Not here: the other stages (`report`).

use std::time::Duration;

use crate::journal::{ConsumerStatus, Journal, JournalStatus, QuarantineCount, RoomBound};
use crate::telemetry::{Sample, SampleKind};

/// A share of the budget that a job uses without anybody being away: logs, the windows for redeliveries.
const QUIET_SHARE: u64 = 4;

/// Why intake waits, if it does.
pub fn full(journal: &Journal) -> Option<String> {
    let pin = journal.pin().filter(|(_, waits)| *waits);
    let failing = journal.file_failing();
    journal.is_full().then(|| match pin {
        _ if failing.is_some() => format!("the pool is full, intake waits: {}", failing.unwrap_or_default()),
        Some((pin, _)) => format!("the pool is full, intake waits: {pin}"),
        None if journal.is_disk_full() => {
            "the disk of the pool is full: intake waits until there is room; delete what is not needed there, or move \
             the pool to another disk by path in [journal]"
                .to_owned()
        }
        None => {
            "the pool is full: intake waits until a consumer has made room, or raise max_bytes in [journal]".to_owned()
        }
    })
}

/// What is not as it should be with the pool while the job does all of its work.
pub fn degraded(journal: &Journal, status: &JournalStatus, warn_below: Option<Duration>) -> Vec<String> {
    let pin = journal.pin().filter(|(_, waits)| !waits).map(|(pin, _)| format!("the pool: {pin}"));
    let failing = journal.file_failing().filter(|_| !journal.is_full()).map(|why| format!("the pool: {why}"));
    pin.into_iter().chain(failing).chain(unreadable(status)).chain(short(status, warn_below)).collect()
}

/// That records were lost that nobody has acknowledged yet.
fn unreadable(status: &JournalStatus) -> Option<String> {
    let QuarantineCount { unseen_ranges, unseen_records, .. } = status.quarantined;
    (unseen_ranges > 0).then(|| {
        let places = if unseen_ranges == 1 { "place" } else { "places" };
        format!(
            "the pool: records that cannot be read were skipped, {unseen_records} in {unseen_ranges} {places}: \
             check the disk; `forebay journal status` lists them, and `forebay journal quarantine drop` says that you \
             have seen it"
        )
    })
}

/// That the room lasts for less than `warn_below`, once a quarter of the budget is used and somebody is behind who has
/// no share of his own, or where the disk is what bounds it. A pool that everybody reads is no reason, however fast
/// events come; whoever has a share fills no more than that, also where he is furthest behind.
fn short(status: &JournalStatus, warn_below: Option<Duration>) -> Option<String> {
    let left = status.left.filter(|left| warn_below.is_some_and(|warn_below| left.seconds < warn_below.as_secs()))?;
    let max_bytes = status.live.as_ref().map_or(0, |live| live.max_bytes);
    let (of, of_bytes) = match left.room.bound {
        RoomBound::MaxBytes => ("raise max_bytes in [journal]", max_bytes),
        RoomBound::Disk => ("make room on the disk", status.used_bytes),
    };
    let behind =
        without_share(status).filter(|c| held_by(c, status) >= of_bytes / QUIET_SHARE).max_by_key(|c| c.pending);
    match behind {
        Some(c) => {
            let loss = if c.drop_oldest { ", its oldest are dropped then" } else { ", then intake waits" };
            let (name, n) = (&c.name, c.pending);
            let holds = if c.pins { "holds the oldest" } else { "has no share of its own" };
            Some(format!(
                "the pool lasts {left}{loss}: {name} has {n} records to read and {holds}; repair what it waits for, or \
                 {of}"
            ))
        }
        None if left.room.bound == RoomBound::Disk => Some(format!("the pool lasts {left}: {of}")),
        None => None,
    }
}

/// Consumers that are behind and have no share, of each stream those furthest behind.
fn without_share(status: &JournalStatus) -> impl Iterator<Item = &ConsumerStatus> {
    let has_share = |c: &ConsumerStatus| c.limits.is_some_and(|limits| limits.max_bytes.is_some());
    let all = move || status.consumers.iter().filter(move |c| c.pending > 0 && !has_share(c));
    all().filter(move |c| all().all(|other| other.stream != c.stream || other.position >= c.position))
}

/// About how many bytes of the pool stay because of a consumer: those of its backlog, as a part of the longest of all.
fn held_by(consumer: &ConsumerStatus, status: &JournalStatus) -> u64 {
    let longest = status.consumers.iter().map(|c| c.pending).max().unwrap_or(0).max(1);
    (u128::from(status.used_bytes) * u128::from(consumer.pending) / u128::from(longest)) as u64
}

/// Gauges of the pool and of its consumers.
pub fn samples(job: &str, status: &JournalStatus, is_full: bool, samples: &mut Vec<Sample>) {
    if let Some(years) = status.card_years {
        let help = "years that a card of card_endurance lasts at the pace of the last day";
        let labels = vec![("job", job.to_owned())];
        samples.push(Sample { name: "pool_card_years", help, kind: SampleKind::Gauge, labels, value: years });
    }
    for (name, at) in status.outputs.iter().filter_map(|output| Some((&output.name, output.delivered_at?))) {
        samples.push(Sample {
            name: "output_last_delivery_seconds",
            help: "when an output last delivered a row, seconds since 1970",
            kind: SampleKind::Gauge,
            labels: vec![("job", job.to_owned()), ("output", name.clone())],
            value: at.unix_millis() as f64 / 1e3,
        });
    }
    let mut gauge = |name, help, labels: Vec<(&'static str, String)>, value: u64| {
        let labels = [("job", job.to_owned())].into_iter().chain(labels).collect();
        samples.push(Sample { name, help, kind: SampleKind::Gauge, labels, value: value as f64 });
    };
    gauge("pool_used_bytes", "bytes of the pool's budget in use", vec![], status.used_bytes);
    gauge("pool_full", "1 while intake waits because the budget is used up", vec![], u64::from(is_full));
    gauge("dead_letters", "dead letters in the pool", vec![], status.dead_letters.letters);
    let aside = status.quarantined;
    gauge("quarantined_segments", "damaged or missing segments that were set aside", vec![], aside.ranges);
    gauge("quarantined_records", "records in them", vec![], aside.records);
    let help = "those that nobody has acknowledged by `journal quarantine drop`";
    gauge("quarantined_records_unseen", help, vec![], aside.unseen_records);
    if let Some(live) = &status.live {
        gauge("pool_max_bytes", "the pool's budget", vec![], live.max_bytes);
        let help = "1 while the pool's file cannot be written, and its log grows instead";
        gauge("pool_file_failing", help, vec![], u64::from(live.file_failing.is_some()));
        let help = "1 where the pool lacked something when the process started, or a fresh one was begun";
        gauge("pool_alarm", help, vec![], u64::from(live.has_alarm));
        if let Some(budget) = live.write_budget {
            let help = "bytes a day that may be written before commits are stretched";
            gauge("pool_write_budget_bytes", help, vec![], budget);
        }
    }
    if let Some(room) = status.room {
        gauge("pool_room_bytes", "bytes that the budget and the disk still have room for", vec![], room.bytes);
    }
    if let Some(left) = status.left {
        let help = "seconds until the pool is full if nobody reads, at the present pace of what comes";
        gauge("pool_left_seconds", help, vec![], left.seconds);
    }
    let help = "bytes of the pool a day that what comes takes if nobody reads, at its present pace";
    gauge("pool_growth_day_bytes", help, vec![], status.growth.a_day());
    let help = "bytes a day at the pace of the last day, or since the start where that is shorter";
    gauge("pool_written_day_bytes", help, vec![], status.wear.last_day);
    let help = "bytes a day at the pace of the last minute";
    gauge("pool_written_minute_bytes", help, vec![], status.wear.last_minute);
    for consumer in &status.consumers {
        let of = vec![("consumer", consumer.name.clone())];
        gauge("consumer_pending", "records a consumer has not read", of.clone(), consumer.pending);
        if let Some(seconds) = consumer.oldest_seconds.or((consumer.pending == 0).then_some(0)) {
            let help = "seconds since the oldest record arrived that a consumer has not read";
            gauge("consumer_oldest_seconds", help, of, seconds);
        }
    }
    for output in &status.outputs {
        if let Some(seconds) = output.oldest_seconds.or((output.pending == 0).then_some(0)) {
            let help = "seconds since the oldest record arrived that waits for an output";
            gauge("output_oldest_seconds", help, vec![("output", output.name.clone())], seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{BacklogLimits, Left, LiveStatus, PoolRoom};

    const DAY: Option<Duration> = Some(Duration::from_secs(86_400));

    /// A pool of 1 GB, of which `used` bytes are used, to which a GB comes in a day.
    fn pool(used_bytes: u64, bound: RoomBound, pending: u64) -> JournalStatus {
        let room = PoolRoom { bytes: 1_000_000_000 - used_bytes, bound };
        let live = LiveStatus {
            max_bytes: 1_000_000_000,
            is_full: false,
            refusal: None,
            file_failing: None,
            has_alarm: false,
            tail_bytes: 0,
            commits: 0,
            write_budget: None,
        };
        let consumer = |name: &str, pending: u64, pins| ConsumerStatus {
            id: 1,
            name: name.into(),
            stream: 0,
            start: 0,
            position: 1_000_000 - pending as i64,
            pending,
            oldest_seconds: None,
            pins,
            drop_oldest: false,
            limits: None,
            pace: None,
        };
        JournalStatus {
            used_bytes,
            room: Some(room),
            left: Left::of(room, 1_000_000_000),
            live: Some(live),
            consumers: vec![consumer("statement a", pending.min(7), false), consumer("output b", pending, pending > 0)],
            ..JournalStatus::default()
        }
    }

    #[test]
    fn a_pool_that_fills_is_told_with_who_fills_it_and_what_to_do() {
        assert_eq!(
            short(&pool(500_000_000, RoomBound::MaxBytes, 1_234), DAY).unwrap(),
            "the pool lasts about 12 hours at 41.7 MB an hour into the 500.0 MB that are left of max_bytes, then \
             intake waits: output b has 1234 records to read and holds the oldest; repair what it waits for, or raise \
             max_bytes in [journal]"
        );
        let mut drops = pool(100_000_000, RoomBound::Disk, 5);
        drops.consumers[1].drop_oldest = true;
        assert_eq!(
            short(&drops, DAY).unwrap(),
            "the pool lasts about 21 hours at 41.7 MB an hour into the 900.0 MB that are left of the disk, its oldest \
             are dropped then: output b has 5 records to read and holds the oldest; repair what it waits for, or make \
             room on the disk"
        );
        assert_eq!(
            short(&pool(100_000_000, RoomBound::Disk, 0), DAY).unwrap(),
            "the pool lasts about 21 hours at 41.7 MB an hour into the 900.0 MB that are left of the disk: make room \
             on the disk"
        );
    }

    #[test]
    fn what_cannot_be_read_is_told_until_somebody_has_seen_it() {
        let mut pool = pool(0, RoomBound::MaxBytes, 0);
        let all = QuarantineCount { ranges: 3, records: 12, unseen_ranges: 2, unseen_records: 10 };
        pool.quarantined = all;
        let told = unreadable(&pool).unwrap();
        assert!(told.starts_with("the pool: records that cannot be read were skipped, 10 in 2 places: "), "{told}");
        pool.quarantined = QuarantineCount { unseen_ranges: 0, unseen_records: 0, ..all };
        assert_eq!(unreadable(&pool), None);
    }

    #[test]
    fn who_has_a_share_hides_nobody_that_has_none() {
        let mut beside = pool(500_000_000, RoomBound::MaxBytes, 1_234);
        beside.consumers[1].limits = Some(BacklogLimits { max_age: None, max_bytes: Some(1) });
        let other = ConsumerStatus {
            name: "output c".into(),
            pending: 1_230,
            position: 998_770,
            ..beside.consumers[0].clone()
        };
        beside.consumers.push(other);
        let text = short(&beside, DAY).unwrap();
        assert!(text.contains(": output c has 1230 records to read and has no share of its own; repair"), "{text}");
        beside.consumers[2].limits = Some(BacklogLimits { max_age: Some(Duration::from_secs(1)), max_bytes: None });
        assert_eq!(short(&beside, DAY), Some(text), "an age is no share");
    }

    #[test]
    fn a_pool_that_does_not_fill_or_lasts_is_well() {
        assert_eq!(short(&pool(100_000_000, RoomBound::MaxBytes, 3), DAY), None, "a fast stream that is read");
        assert_eq!(short(&pool(500_000_000, RoomBound::MaxBytes, 3), Some(Duration::from_secs(3_600))), None);
        assert_eq!(short(&pool(500_000_000, RoomBound::MaxBytes, 3), None), None, "switched off");
        let mut shared = pool(500_000_000, RoomBound::MaxBytes, 3);
        shared.consumers[1].limits = Some(BacklogLimits { max_age: None, max_bytes: Some(1) });
        shared.consumers[1].pending = 1_234;
        assert_eq!(short(&shared, DAY), None, "who is behind has a share, and the other reads what comes");
        assert_eq!(short(&pool(500_000_000, RoomBound::MaxBytes, 0), DAY), None, "nobody is behind");
        assert_eq!(short(&JournalStatus { left: None, ..pool(500_000_000, RoomBound::Disk, 3) }, DAY), None);
    }
}

//! Finds the consumers that are further behind than they may be.
//!
//! In: what each consumer may have before it, by age and by bytes. Out: the consumers that have more, and how far each
//! is to be moved. Invariant: only whole segments go, and a segment that another consumer needs stays where it is. Not
//! here: moving them, with its count (`transaction`), the budget of the whole pool (`trim`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use super::ages::Ages;
use super::books::{Books, INPUTS};
use super::damage::{is_damage, next_first};
use super::growth::Sizes;
use super::segment::Sealed;
use super::shared::Shared;
use crate::time::Clock;

/// Reasons in the ledger.
pub(super) const AGE: &str = "age";
pub(super) const SHARE: &str = "share";

/// How often ages are looked at, at most: a drop is a commit, and a record a second would be one a second.
const AGE_INTERVAL: Duration = Duration::from_secs(60);
/// How often a consumer that is moved on again and again is told in the log.
const TELL_INTERVAL: Duration = Duration::from_secs(60);
/// Segments that one look drops by age: the next look goes on.
const AGED_MAX: usize = 100_000;

/// A consumer that is to be moved. Several moves of one follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub consumer: u32,
    pub from: i64,
    pub to: i64,
    pub reason: &'static str,
}

/// Looks for them again and again.
#[derive(Debug)]
pub(super) struct Backlogs {
    ages: Ages,
    /// When ages were looked at last, by the job's clock.
    aged_at: Option<Instant>,
    /// By consumer.
    counted: BTreeMap<u32, Counted>,
    told: BTreeMap<(u32, &'static str), LastWord>,
}

/// A count of what a consumer has before it.
#[derive(Clone, Copy, Debug)]
struct Counted {
    /// From here on. A consumer before that was not moved as it should have been.
    from: i64,
    bytes: u64,
    /// What its stream had taken by then.
    taken: u64,
}

#[derive(Debug, Default)]
struct LastWord {
    at: Option<Instant>,
    records: u64,
}

impl Backlogs {
    pub fn new(clock: Clock) -> Backlogs {
        Backlogs { ages: Ages::new(clock), aged_at: None, counted: BTreeMap::new(), told: BTreeMap::new() }
    }

    /// The consumers that are to be moved now.
    pub fn due(&mut self, db: &Connection, books: &Books, shared: &Shared) -> rusqlite::Result<Vec<Move>> {
        let mut due = Vec::new();
        if !books.consumers_known {
            return Ok(due);
        }
        let is_aging = self.is_aging(books);
        for (&id, consumer) in &books.consumers {
            let end = books.streams.get(&consumer.stream).map_or(0, |stream| stream.next);
            if consumer.position >= end {
                self.counted.remove(&id);
                continue;
            }
            let mut backlog = Backlog { stream: consumer.stream, position: consumer.position };
            let mut moved = |backlog: &mut Backlog, to, reason| {
                let from = std::mem::replace(&mut backlog.position, to);
                if to > from {
                    due.push(Move { consumer: id, from, to, reason });
                }
            };
            if let Some(age) = consumer.limits.max_age.filter(|_| is_aging) {
                let to = self.beyond_age(db, books, shared, backlog, age)?;
                moved(&mut backlog, to, AGE);
            }
            if let Some(max) = consumer.limits.max_bytes {
                let to = self.beyond_share(db, shared, id, backlog, max)?;
                moved(&mut backlog, to, SHARE);
            }
        }
        Ok(due)
    }

    fn is_aging(&mut self, books: &Books) -> bool {
        let ages = || books.consumers.values().filter_map(|consumer| consumer.limits.max_age);
        let (Some(least), Some(longest)) = (ages().min(), ages().max()) else { return false };
        let now = self.ages.look(longest);
        let interval = (least / 16).min(AGE_INTERVAL);
        let is_due = self.aged_at.is_none_or(|at| now.saturating_duration_since(at) >= interval);
        if is_due {
            self.aged_at = Some(now);
        }
        is_due
    }

    /// Up to where the segments go that are too old; the position if none is.
    fn beyond_age(
        &self,
        db: &Connection,
        books: &Books,
        shared: &Shared,
        backlog: Backlog,
        age: Duration,
    ) -> rusqlite::Result<i64> {
        let (mut to, mut left) = (backlog.position, AGED_MAX);
        each_segment(db, shared, backlog, |segment| {
            let arrival = books.arrived.of(backlog.stream, segment.end - 1, segment.arrival, self.ages.wall().ticks());
            let is_old = self.ages.is_older(arrival, age);
            to = if is_old { segment.end } else { to };
            left -= 1;
            is_old && left > 0
        })?;
        Ok(to)
    }

    /// Up to where the oldest segments go so that a sixteenth of the share is free again; the position if nothing does.
    fn beyond_share(
        &mut self,
        db: &Connection,
        shared: &Shared,
        id: u32,
        backlog: Backlog,
        max: u64,
    ) -> rusqlite::Result<i64> {
        // no more than this came since the last count, and counting takes a look at each segment
        let taken = shared.with_growth(|growth| growth.taken(backlog.stream));
        if let Some(last) = self.counted.get(&id).filter(|last| backlog.position >= last.from)
            && last.bytes.saturating_add(taken.saturating_sub(last.taken)) <= max
        {
            return Ok(backlog.position);
        }
        let mut segments: Vec<(i64, u64)> = Vec::new();
        each_segment(db, shared, backlog, |segment| {
            segments.push((segment.end, segment.bytes));
            true
        })?;
        let mut bytes: u64 = segments.iter().map(|(_, bytes)| bytes).sum();
        let (mut to, keep) = (backlog.position, max - max / 16);
        if bytes > max {
            for (end, size) in segments {
                if bytes <= keep {
                    break;
                }
                bytes -= size;
                to = end;
            }
        }
        self.counted.insert(id, Counted { from: to, bytes, taken });
        Ok(to)
    }

    /// Says what was dropped, at once and then once a minute; what the consumer had in hand, before the offset
    /// `handed`, was not.
    pub fn tell(&mut self, step: &Move, handed: i64, books: &Books, now: Instant) {
        let Some(consumer) = books.consumers.get(&step.consumer) else { return };
        let told = self.told.entry((step.consumer, step.reason)).or_default();
        told.records += (step.to - step.from.max(handed)).max(0) as u64;
        if told.records == 0 || told.at.is_some_and(|at| now.saturating_duration_since(at) < TELL_INTERVAL) {
            return;
        }
        let records = std::mem::take(&mut told.records);
        told.at = Some(now);
        // the inputs are one sequence
        let of = if consumer.stream == INPUTS && books.inputs.len() > 1 { " (all inputs are counted)" } else { "" };
        let _span = super::consumer::consumer_span(&consumer.name).entered();
        match step.reason {
            AGE => tracing::warn!(records, "records older than max_age were not read in time and are dropped{of}"),
            _ => tracing::warn!(records, "the oldest records beyond max_bytes of this consumer are dropped{of}"),
        }
    }
}

/// What a consumer has before it.
#[derive(Clone, Copy, Debug)]
struct Backlog {
    stream: u32,
    position: i64,
}

/// What is asked of a segment.
struct SegmentFound {
    end: i64,
    arrival: i64,
    bytes: u64,
}

/// Shows the segments that a consumer has before it, oldest first, as long as they are wanted. Those that cannot be
/// read are left out.
fn each_segment(
    db: &Connection,
    shared: &Shared,
    backlog: Backlog,
    mut wants_more: impl FnMut(SegmentFound) -> bool,
) -> rusqlite::Result<()> {
    const SQL: &str = "SELECT first + count, arrival, length(data) FROM segment WHERE stream = ?1
         AND first >= coalesce((SELECT max(first) FROM segment WHERE stream = ?1 AND first <= ?2), ?2) ORDER BY first";
    let Backlog { stream, position } = backlog;
    let mut find = db.prepare_cached(SQL)?;
    let mut from = position;
    loop {
        let mut rows = find.query(params![stream, from])?;
        let row = loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                other => break other.map(drop),
            };
            let (end, length): (i64, i64) = (row.get(0).unwrap_or(from + 1), row.get(2).unwrap_or(0));
            let found = SegmentFound {
                end,
                arrival: row.get(1).unwrap_or(i64::MIN),
                bytes: Sizes::of(0, length.max(0) as u64).stored,
            };
            from = from.max(end);
            if end > position && !wants_more(found) {
                return Ok(());
            }
        };
        match row {
            Err(error) if is_damage(&error) => match next_first(db, stream, from)? {
                Some(next) => from = next,
                None => break,
            },
            end => break end?,
        }
    }
    let waiting: Vec<Arc<Sealed>> = shared.with_pending(|pending| pending.of(stream).cloned().collect());
    for sealed in waiting.iter().filter(|sealed| sealed.end() > position) {
        let found = SegmentFound { end: sealed.end(), arrival: sealed.head.arrival, bytes: sealed.sizes().stored };
        if !wants_more(found) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::BacklogLimits;
    use crate::journal::ages::ticks;
    use crate::journal::books::{ConsumerBook, StreamBook};
    use crate::journal::growth::GrowthStatus;
    use crate::journal::recent::Recent;
    use crate::journal::segment::{Draft, Sealer, SegmentKind};
    use crate::journal::{checkpoint, schema};
    use crate::time::Timestamp;

    /// A pool with ten segments of 10,000 bytes and more, an hour apart, that one consumer has before it.
    struct Place {
        _dir: tempfile::TempDir,
        db: Connection,
        books: Books,
        shared: Shared,
        clock: Clock,
    }

    impl Place {
        fn new(limits: BacklogLimits) -> Place {
            let dir = tempfile::TempDir::new().unwrap();
            let db = schema::open_writer(&dir.path().join("job.db"), 1 << 30).unwrap();
            let clock = Clock::manual(Timestamp::from_unix_millis(1_700_000_000_000));
            let mut books = Books { consumers_known: true, ..Books::default() };
            let stream = StreamBook {
                name: "inputs".into(),
                first: 0,
                next: 10,
                last_arrival: clock.now(),
                trimmed_to: i64::MIN,
            };
            books.streams.insert(INPUTS, stream);
            books.consumers.insert(1, ConsumerBook { name: "out".into(), limits, ..ConsumerBook::default() });
            for first in 0..10 {
                let arrival = clock.now().ticks();
                let draft =
                    Draft { stream: 0, first, input: 1, count: 1, arrival, raw: b"{}", kind: SegmentKind::Events };
                let mut sealed = Sealer::new().seal(draft);
                sealed.data = vec![7; 10_000];
                checkpoint::insert_segment(&db, &sealed).unwrap();
                clock.advance(Duration::from_secs(3_600));
            }
            let recent = Recent::load(&db, 0, 1, 0).unwrap();
            Place { _dir: dir, db, books, shared: Shared::new(0, recent, GrowthStatus::default()), clock }
        }

        fn due(&self, backlogs: &mut Backlogs) -> Vec<(i64, i64, &'static str)> {
            let due = backlogs.due(&self.db, &self.books, &self.shared).unwrap();
            due.iter().map(|step| (step.from, step.to, step.reason)).collect()
        }
    }

    fn limits(hours: u64, max_bytes: u64) -> BacklogLimits {
        BacklogLimits { max_age: Some(Duration::from_secs(hours * 3_600)), max_bytes: Some(max_bytes) }
    }

    #[test]
    fn what_is_too_old_and_beyond_the_share_is_moved_past_once() {
        // the three oldest are older
        let place = Place::new(limits(7, 80_000));
        let mut backlogs = Backlogs::new(place.clock.clone());
        assert_eq!(place.due(&mut backlogs), [(0, 3, AGE)], "seven fit into the share then");
        let place = Place::new(limits(7, 60_000));
        let mut backlogs = Backlogs::new(place.clock.clone());
        assert_eq!(place.due(&mut backlogs), [(0, 3, AGE), (3, 5, SHARE)], "and five into this one");
    }

    #[test]
    fn a_consumer_that_could_not_be_moved_is_due_again() {
        let mut place = Place::new(limits(1_000, 60_000));
        let mut backlogs = Backlogs::new(place.clock.clone());
        let first = place.due(&mut backlogs);
        assert!(matches!(first.as_slice(), [(0, 1.., SHARE)]), "{first:?}");
        assert_eq!(place.due(&mut backlogs), first, "its transaction failed");
        place.books.consumers.get_mut(&1).unwrap().position = first[0].1;
        assert_eq!(place.due(&mut backlogs), []);
    }

    #[test]
    fn a_backlog_stays_when_the_clock_is_set_right() {
        let place = Place::new(limits(7 * 24, 1 << 30));
        let mut backlogs = Backlogs::new(place.clock.clone());
        let hour = Duration::from_secs(3_600);
        place.clock.set(place.clock.now().saturating_add(10 * ticks(24 * hour)));
        for _ in 0..7 * 24 - 10 {
            assert_eq!(place.due(&mut backlogs), []);
            place.clock.advance(hour);
        }
        place.clock.advance(2 * hour);
        assert_eq!(place.due(&mut backlogs), [(0, 2, AGE)], "its age has come");
    }
}

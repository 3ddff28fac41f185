//! Rows that wait for others before they are delivered.
//!
//! In: rows as they come, and the time. Out: the rows that are to be delivered now. Invariant: rows leave in the order
//! in which they came, in batches of one set of columns; none waits longer than the output allows, and at most
//! [`BYTES_MAX`] and what came last wait. Not here: delivering, positions (`delivery`).

use std::time::{Duration, Instant};

use super::reading::Bound;
use crate::batch::Rows;
use crate::output::Fill;

/// As much as one read may bring.
const BYTES_MAX: usize = Bound::BYTES;

/// What waits.
#[derive(Debug)]
pub struct Gathering {
    fill: Fill,
    rows: Option<Rows>,
    bytes: usize,
    /// When the first of them came.
    since: Option<Instant>,
    /// Rows of other columns came behind these.
    next: Option<Rows>,
}

impl Gathering {
    pub fn new(fill: Fill) -> Gathering {
        Gathering { fill, rows: None, bytes: 0, since: None, next: None }
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_none()
    }

    /// Adds what came. What is ripe has to be taken before.
    pub fn add(&mut self, mut more: Rows, now: Instant) {
        if more.batch.is_empty() {
            return;
        }
        self.since.get_or_insert(now);
        self.bytes += more.batch.bytes();
        match &mut self.rows {
            Some(rows) if rows.columns == more.columns => rows.batch.append(&mut more.batch),
            Some(_) => self.next = Some(more),
            None => self.rows = Some(more),
        }
    }

    /// How long the rows may wait yet; `None` when there are none.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        Some(self.fill.time.saturating_sub(now.saturating_duration_since(self.since?)))
    }

    /// Whether rows are to be delivered now.
    pub fn is_ripe(&self, now: Instant) -> bool {
        let Some(rows) = &self.rows else { return false };
        rows.batch.len() >= self.fill.rows
            || self.bytes >= BYTES_MAX
            || self.next.is_some()
            || self.left(now).is_some_and(|left| left.is_zero())
    }

    /// Takes all of them.
    pub fn take(&mut self) -> impl Iterator<Item = Rows> + use<> {
        let Gathering { rows, next, .. } = std::mem::replace(self, Gathering::new(self.fill));
        rows.into_iter().chain(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Column;
    use crate::output::tests::rows;
    use crate::time::{Clock, Timestamp};

    fn named(name: &str, rows: Rows) -> Rows {
        Rows { columns: [Column { name: name.into(), spread: false }].into(), ..rows }
    }

    #[test]
    fn rows_wait_for_others_up_to_their_number_their_bytes_and_the_time() {
        let second = Duration::from_secs(1);
        let clock = Clock::manual(Timestamp::MIN);
        let now = || clock.monotonic();
        let mut waiting = Gathering::new(Fill { rows: 3, time: second });
        let table = [
            // milliseconds, rows that come then, what is taken
            (0, 0..0, None),
            (5_000, 0..1, None),
            (5_999, 0..0, None),
            (6_000, 0..0, Some(vec![0])),
            (6_500, 1..2, None),
            (7_000, 2..3, None),
            (7_100, 3..5, Some(vec![1, 2, 3, 4])),
            (7_200, 5..9, Some(vec![5, 6, 7, 8])),
            (9_000, 0..0, None),
        ];
        let mut at = 0;
        for (millis, come, taken) in table {
            clock.advance(Duration::from_millis(millis - at));
            at = millis;
            waiting.add(rows(come), now());
            assert_eq!(waiting.is_ripe(now()), taken.is_some(), "at {millis} ms");
            if let Some(taken) = taken {
                let offsets = |rows: Rows| rows.batch.meta().iter().map(|meta| meta.offset).collect::<Vec<_>>();
                assert_eq!(waiting.take().map(offsets).collect::<Vec<_>>(), [taken], "at {millis} ms");
                assert!(waiting.is_empty() && waiting.left(now()).is_none());
            }
        }
        waiting.add(rows(0..1), now());
        assert_eq!(waiting.left(now()), Some(second));
        waiting.add(named("other", rows(1..2)), now());
        assert!(waiting.is_ripe(now()), "other columns make a batch of their own");
        assert_eq!(waiting.take().map(|rows| rows.columns[0].name.to_string()).collect::<Vec<_>>(), ["n", "other"]);
        let mut at_once = Gathering::new(Fill::default());
        at_once.add(rows(0..1), now());
        assert!(at_once.is_ripe(now()), "an output that says nothing waits for nothing");
        let mut large = Gathering::new(Fill { rows: 1_000_000, time: second });
        large.add(rows(0..50_000), now());
        assert!(large.is_ripe(now()), "{} bytes", large.bytes);
    }
}

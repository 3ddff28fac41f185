//! A bound on rows a second, so that a fleet that catches up does not take all of its endpoint.
//!
//! In: how many rows wait, the time. Out: how many of them may go, or when. Invariant: over any time no more rows go
//! than that time allows and one batch; a batch holds the rows of a fifth of a second at most. Not here: what else
//! bounds a batch (`desk`).

use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Rate {
    rows_per_second: f64,
    /// Rows that may go now, at most those of a batch: an endpoint that was away is not owed the rows of that time.
    allowance: f64,
    counted: Duration,
    /// When rows that had to wait may go.
    due: Option<Duration>,
}

impl Rate {
    /// Nothing is saved up at the start.
    pub fn new(rows_per_second: u32) -> Rate {
        let rows_per_second = f64::from(rows_per_second.max(1));
        Rate { rows_per_second, allowance: 0.0, counted: Duration::ZERO, due: None }
    }

    /// How many of `wanted` rows may go now: all of them or those of a fifth of a second, else none.
    pub fn admits(&mut self, now: Duration, wanted: usize) -> usize {
        let passed = now.saturating_sub(self.counted).as_secs_f64();
        self.counted = self.counted.max(now);
        let batch_max = (self.rows_per_second / 5.0).floor().max(1.0);
        self.allowance = (self.allowance + self.rows_per_second * passed).min(batch_max);
        let needed = (wanted as f64).min(batch_max);
        // a rounding error is no reason to wait again
        if self.allowance + 1e-6 >= needed {
            self.due = None;
            return needed as usize;
        }
        let left = (needed - self.allowance) / self.rows_per_second;
        self.due = Some(now + Duration::from_secs_f64(left) + Duration::from_micros(1));
        0
    }

    /// These rows went.
    pub fn spend(&mut self, rows: usize) {
        self.allowance -= rows as f64;
    }

    /// When rows that had to wait may go.
    pub fn due(&self) -> Option<Duration> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of each batch and its time in ms, of a backlog that is sent for some seconds.
    fn sent(rate: u32, batch: usize, seconds: u64) -> Vec<(u128, usize)> {
        let mut rate = Rate::new(rate);
        let (mut now, mut sent) = (Duration::ZERO, Vec::new());
        while now < Duration::from_secs(seconds) {
            match rate.admits(now, batch) {
                0 => now = rate.due().unwrap(),
                rows => {
                    rate.spend(rows);
                    sent.push((now.as_millis(), rows));
                }
            }
        }
        sent
    }

    #[test]
    fn a_backlog_goes_in_full_batches_at_its_rate() {
        let batches = sent(500, 100, 10);
        assert!(batches.iter().all(|(_, rows)| *rows == 100));
        assert_eq!(batches.len(), 49, "5,000 rows, less the first fifth of a second");
        assert_eq!(batches[..3], [(200, 100), (400, 100), (600, 100)]);
        // a batch larger than the rows of a fifth of a second
        assert_eq!(sent(500, 1_000, 1), [(200, 100), (400, 100), (600, 100), (800, 100)]);
        assert_eq!(sent(1, 1_000, 3), [(1_000, 1), (2_000, 1)]);
    }

    #[test]
    fn after_a_pause_no_more_than_a_batch_goes_at_once() {
        let mut rate = Rate::new(500);
        let now = Duration::from_secs(3_600);
        assert_eq!(rate.admits(now, 1_000), 100);
        rate.spend(100);
        assert_eq!(rate.admits(now, 1_000), 0);
    }

    #[test]
    fn a_stream_below_the_rate_does_not_wait() {
        let mut rate = Rate::new(100);
        for second in 1..20 {
            assert_eq!(rate.admits(Duration::from_secs(second), 15), 15);
            rate.spend(15);
            assert_eq!(rate.due(), None);
        }
    }
}

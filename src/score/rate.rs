//! A bound for rows a second, so that a fleet that catches up leaves its endpoint some air.
//!
//! In: how many rows wait, the time. Out: how many of them may go, or when. Invariant: over any time no more rows go
//! than that time allows and those of one second; rows go in full batches, or those of a second at once. Not here: what
//! a batch holds (`desk`).

use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Rate {
    rows_per_second: f64,
    /// Rows that may go now, at most those of a second.
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

    /// How many of `wanted` rows may go now: all of them or those of a second, else none.
    pub fn admits(&mut self, now: Duration, wanted: usize) -> usize {
        let passed = now.saturating_sub(self.counted).as_secs_f64();
        self.counted = self.counted.max(now);
        self.allowance = (self.allowance + self.rows_per_second * passed).min(self.rows_per_second);
        let needed = (wanted as f64).min(self.rows_per_second);
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
        // a batch larger than a second's rows
        assert_eq!(sent(500, 1_000, 4), [(1_000, 500), (2_000, 500), (3_000, 500)]);
        assert_eq!(sent(1, 1_000, 3), [(1_000, 1), (2_000, 1)]);
    }

    #[test]
    fn a_stream_below_the_rate_does_not_wait() {
        let mut rate = Rate::new(100);
        for second in 1..20 {
            assert_eq!(rate.admits(Duration::from_secs(second), 60), 60);
            rate.spend(60);
            assert_eq!(rate.due(), None);
        }
    }
}

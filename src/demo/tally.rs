//! What came out at the far end, counted by ride.
//!
//! In: the messages a receiver got. Out: how many rows, how many distinct rides of this fleet, how many came again.
//! Invariant: counts only what it is shown; it knows nothing of the job. Not here: listening.

use serde_json::Value as Json;

/// The rides of one fleet that were seen, by number.
#[derive(Debug)]
pub struct Tally {
    prefix: String,
    /// `seen[n]`: ride number `n` came. Rides with numbers past `rides_max` count as foreign.
    seen: Vec<bool>,
    rides_max: usize,
    rows: u64,
    distinct: u64,
    repeats: u64,
    foreign: u64,
    without_fare: u64,
}

impl Tally {
    /// For the rides of `Fleet::new(seed)`, at most `rides_max` of them.
    pub fn new(seed: u64, rides_max: usize) -> Tally {
        let prefix = format!("r{seed:x}-");
        Tally { prefix, seen: Vec::new(), rides_max, rows: 0, distinct: 0, repeats: 0, foreign: 0, without_fare: 0 }
    }

    /// Counts one row as it was received.
    pub fn take(&mut self, payload: &[u8]) {
        self.rows += 1;
        let row: Json = serde_json::from_slice(payload).unwrap_or_default();
        let number = row.get("rideId").and_then(Json::as_str).and_then(|id| id.strip_prefix(&self.prefix)?.parse::<usize>().ok());
        let Some(number) = number.filter(|n| *n <= self.rides_max) else {
            self.foreign += 1;
            return;
        };
        if self.seen.len() <= number {
            self.seen.resize(number + 1, false);
        }
        let Some(seen) = self.seen.get_mut(number) else { return };
        if std::mem::replace(seen, true) {
            self.repeats += 1;
            return;
        }
        self.distinct += 1;
        self.without_fare += u64::from(!row.get("fare").is_some_and(Json::is_number));
    }

    /// All rows that came.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Rides that came at least once.
    pub fn distinct(&self) -> u64 {
        self.distinct
    }

    /// Rows whose ride had come before.
    pub fn repeats(&self) -> u64 {
        self.repeats
    }

    /// Rows that are no ride of this fleet.
    pub fn foreign(&self) -> u64 {
        self.foreign
    }

    /// Rides whose row had no number for a fare.
    pub fn without_fare(&self) -> u64 {
        self.without_fare
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rides_are_counted_once_and_the_rest_is_told_apart() {
        let mut tally = Tally::new(255, 100);
        for payload in [
            r#"{"rideId":"rff-000001","fare":7.5}"#,
            r#"{"rideId":"rff-000003","fare":7.5}"#,
            r#"{"rideId":"rff-000001","fare":7.5}"#,
            r#"{"rideId":"rff-000004","fare":null}"#,
            r#"{"rideId":"r1-000001","fare":7.5}"#,
            r#"{"rideId":"rff-999999","fare":7.5}"#,
            r#"{"rideId":7}"#,
            "no JSON",
        ] {
            tally.take(payload.as_bytes());
        }
        assert_eq!((tally.rows(), tally.distinct(), tally.repeats(), tally.foreign(), tally.without_fare()), (8, 3, 1, 4, 1));
    }

    #[test]
    fn the_fleets_own_ids_are_understood() {
        let (mut fleet, mut tally) = (super::super::fleet::Fleet::new(7), Tally::new(7, 10));
        for _ in 0..10 {
            tally.take(format!(r#"{{"rideId":"{}","fare":1}}"#, fleet.ride(crate::time::Timestamp::MIN).id).as_bytes());
        }
        assert_eq!((tally.distinct(), tally.foreign()), (10, 0));
    }
}

//! What came out at the far end, counted by ride.
//!
//! In: the messages a receiver got. Out: how many rows, how many distinct rides of this fleet, how many came again, how
//! many with a fare that is not theirs. Invariant: it counts only what it is shown, and knows nothing of the job. Not
//! here: listening.

use serde_json::Value as Json;

use super::endpoint::fare;
use super::fleet::Fleet;
use crate::time::Timestamp;

/// The rides of one fleet that were seen, by number.
#[derive(Debug)]
pub struct Tally {
    prefix: String,
    /// By number; grows with the highest number that came.
    rides: Vec<Seen>,
    /// Rides with numbers past this count as foreign.
    rides_max: usize,
    /// Drives the same rides again, for their fares.
    fleet: Option<Fleet>,
    rows: u64,
    distinct: u64,
    repeats: u64,
    foreign: u64,
    wrong_fares: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    is_seen: bool,
    /// What the embedded endpoint takes for the ride, cents.
    fare: Option<u32>,
}

impl Tally {
    /// For the rides of `Fleet::new(seed)`, at most `rides_max` of them. `checks_fares`: the fares must be the embedded
    /// endpoint's; otherwise any number will do.
    pub fn new(seed: u64, rides_max: usize, checks_fares: bool) -> Tally {
        Tally {
            prefix: format!("r{seed:x}-"),
            rides: vec![Seen::default()],
            rides_max,
            fleet: checks_fares.then(|| Fleet::new(seed)),
            rows: 0,
            distinct: 0,
            repeats: 0,
            foreign: 0,
            wrong_fares: 0,
        }
    }

    /// Counts one row as it was received.
    pub fn take(&mut self, payload: &[u8]) {
        self.rows += 1;
        let row: Json = serde_json::from_slice(payload).unwrap_or_default();
        let number = row
            .get("rideId")
            .and_then(Json::as_str)
            .and_then(|id| id.strip_prefix(&self.prefix)?.parse::<usize>().ok());
        let Some(number) = number.filter(|n| (1..=self.rides_max).contains(n)) else {
            self.foreign += 1;
            return;
        };
        while self.rides.len() <= number {
            let fare = self.fleet.as_mut().and_then(|fleet| fare_of(&fleet.ride(Timestamp::MIN).payload));
            self.rides.push(Seen { is_seen: false, fare });
        }
        let Some(ride) = self.rides.get_mut(number) else { return };
        if std::mem::replace(&mut ride.is_seen, true) {
            self.repeats += 1;
            return;
        }
        self.distinct += 1;
        let fare = row.get("fare").and_then(Json::as_f64);
        let is_right = if self.fleet.is_some() { fare.map(cents) == ride.fare } else { fare.is_some() };
        self.wrong_fares += u64::from(!is_right);
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

    /// Rides whose fare was no number, or not theirs.
    pub fn wrong_fares(&self) -> u64 {
        self.wrong_fares
    }
}

fn cents(fare: f64) -> u32 {
    (fare * 100.0).round() as u32
}

/// The fare of a ride as it was published, cents.
fn fare_of(payload: &str) -> Option<u32> {
    let ride: Json = serde_json::from_str(payload).ok()?;
    let (weekday, hour) = (ride.get("weekday")?.as_str()?, ride.get("pickuphour")?.as_i64()?);
    Some(cents(fare(weekday, hour, ride.get("passenger")?.as_i64()?, ride.get("distance")?.as_f64()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rides_are_counted_once_and_the_rest_is_told_apart() {
        let mut tally = Tally::new(255, 100, false);
        for payload in [
            r#"{"rideId":"rff-000001","fare":7.5}"#,
            r#"{"rideId":"rff-000003","fare":7.5}"#,
            r#"{"rideId":"rff-000001","fare":7.5}"#,
            r#"{"rideId":"rff-000004","fare":null}"#,
            r#"{"rideId":"r1-000001","fare":7.5}"#,
            r#"{"rideId":"rff-999999","fare":7.5}"#,
            r#"{"rideId":"rff-0","fare":7.5}"#,
            r#"{"rideId":7}"#,
            "no JSON",
        ] {
            tally.take(payload.as_bytes());
        }
        assert_eq!(
            (tally.rows(), tally.distinct(), tally.repeats(), tally.foreign(), tally.wrong_fares()),
            (9, 3, 1, 5, 1)
        );
    }

    #[test]
    fn a_fare_counts_only_with_its_own_ride() {
        let (mut fleet, mut tally) = (Fleet::new(7), Tally::new(7, 10, true));
        let rides: Vec<_> = (0..10).map(|_| fleet.ride(Timestamp::MIN)).collect();
        let fares: Vec<f64> = rides.iter().map(|r| f64::from(fare_of(&r.payload).unwrap()) / 100.0).collect();
        assert_ne!(fares[0], fares[1]);
        for (ride, of) in [(9, 9), (0, 1), (1, 1)] {
            tally.take(format!(r#"{{"rideId":"{}","fare":{}}}"#, rides[ride].id, fares[of]).as_bytes());
        }
        assert_eq!((tally.distinct(), tally.foreign(), tally.wrong_fares()), (3, 0, 1));
    }
}

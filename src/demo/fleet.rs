//! A simulated taxi fleet: rides as a real fleet would report them, the same for the same seed.
//!
//! In: a seed. Out: rides as JSON, with their ids. Invariant: ids are distinct. Not here: publishing.

use std::fmt::Write;

use crate::time::Timestamp;

const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
/// Taxis in the fleet; each publishes under its own topic.
const TAXIS: u64 = 40;

/// One ride: what the broker gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Ride {
    pub id: String,
    pub topic: String,
    pub payload: String,
}

/// Endless rides from a seed.
#[derive(Debug)]
pub struct Fleet {
    rng: fastrand::Rng,
    seed: u64,
    count: u64,
}

impl Fleet {
    pub fn new(seed: u64) -> Fleet {
        Fleet { rng: fastrand::Rng::with_seed(seed), seed, count: 0 }
    }

    /// The next ride, finished at `at`.
    pub fn ride(&mut self, at: Timestamp) -> Ride {
        self.count += 1;
        let taxi = self.rng.u64(1..=TAXIS);
        let id = format!("r{:x}-{:06}", self.seed, self.count);
        // most rides are short, a few are long: the product of two uniform draws has that shape
        let distance = 0.3 + (self.rng.f64() * self.rng.f64() * 1800.0).round() / 100.0;
        let weekday = WEEKDAYS.get(self.rng.usize(0..WEEKDAYS.len())).copied().unwrap_or("Mon");
        let mut payload = String::with_capacity(192);
        let _ = write!(
            payload,
            "{{\"rideId\":\"{id}\",\"deviceId\":\"taxi-{taxi:03}\",\"vendorid\":{},\"weekday\":\"{weekday}\",\
            \"pickuphour\":{},\"passenger\":{},\"distance\":{distance:.2},\"at\":\"{at}\"}}",
            self.rng.u8(1..=2),
            self.rng.u8(0..24),
            self.rng.u8(1..=6),
        );
        Ride { id, topic: format!("taxi/taxi-{taxi:03}/rides"), payload }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_rides_and_ids_are_distinct() {
        let (mut a, mut b) = (Fleet::new(7), Fleet::new(7));
        let rides: Vec<Ride> = (0..500).map(|_| a.ride(Timestamp::MIN)).collect();
        assert!(rides.iter().all(|r| *r == b.ride(Timestamp::MIN)));
        let ids: std::collections::HashSet<&str> = rides.iter().map(|r| r.id.as_str()).collect();
        assert_eq!(ids.len(), 500);
        assert!(serde_json::from_str::<serde_json::Value>(&rides[0].payload).is_ok());
        assert_ne!(Fleet::new(8).ride(Timestamp::MIN).payload, rides[0].payload);
    }
}

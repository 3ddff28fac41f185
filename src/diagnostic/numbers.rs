//! Numbers and times as people read them.

use std::fmt;
use std::time::Duration;

/// With commas.
#[derive(Clone, Copy, Debug)]
pub struct Thousands(pub u64);

impl fmt::Display for Thousands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 1_000, self.0 % 1_000) {
            (0, rest) => rest.fmt(f),
            (more, rest) => write!(f, "{},{rest:03}", Thousands(more)),
        }
    }
}

/// As seconds up to five minutes, then minutes, then hours.
#[derive(Clone, Copy, Debug)]
pub struct Seconds(pub Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        match seconds.round() as u64 {
            0..300 => write!(f, "{} s", (seconds.ceil() as u64).max(1)),
            300..18_000 => write!(f, "{} min", (seconds / 60.0).round()),
            _ => write!(f, "{} h", Thousands((seconds / 3_600.0).round() as u64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        let time = |seconds: u64| Seconds(Duration::from_secs(seconds)).to_string();
        assert_eq!([0, 299, 300, 7_200, 36_000].map(time), ["1 s", "299 s", "5 min", "120 min", "10 h"]);
        assert_eq!(Thousands(1_002_003).to_string(), "1,002,003");
    }
}

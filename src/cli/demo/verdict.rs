//! The result: what the fleet sent beside what the receiver saw.
//!
//! In: two counts that know nothing of each other. Out: whether anything is missing, in words. Invariant: a run in
//! which nothing was acknowledged is no good run. Not here: the job's own books (`journal`).

use crate::cli::journal::number;

/// The counts of both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Rides the fleet handed to its client.
    pub published: u64,
    /// Rides the broker acknowledged to the fleet.
    pub acknowledged: u64,
    /// Distinct rides the receiver saw.
    pub distinct: u64,
    /// Rows whose ride the receiver had seen before.
    pub repeats: u64,
    /// Rides with no fare, or with one that is not theirs.
    pub wrong_fares: u64,
    /// Rows that are no ride of this fleet.
    pub foreign: u64,
    /// Rows still in the pool, by the job's own books.
    pub in_pool: u64,
}

impl Verdict {
    pub fn missing(&self) -> u64 {
        self.acknowledged.saturating_sub(self.distinct)
    }

    pub fn is_good(&self) -> bool {
        self.acknowledged > 0 && self.missing() == 0 && self.wrong_fares == 0
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut row = |what: &str, n: u64| writeln!(f, "  {what:<44} {:>10}", number(n));
        row("rides the broker acknowledged to the fleet", self.acknowledged)?;
        row("distinct rides the receiver saw", self.distinct)?;
        row("missing", self.missing())?;
        if self.missing() > 0 {
            row("rows still in the pool", self.in_pool)?;
        }
        row("repeats", self.repeats)?;
        if self.published > self.acknowledged {
            row("published, but never acknowledged", self.published - self.acknowledged)?;
        }
        if self.wrong_fares > 0 {
            row("rides without their own fare", self.wrong_fares)?;
        }
        if self.foreign > 0 {
            row("rows that are no ride of this fleet", self.foreign)?;
        }
        match self.missing() {
            _ if self.acknowledged == 0 => write!(f, "nothing was published: the broker acknowledged no ride"),
            0 if self.wrong_fares > 0 => write!(f, "nothing is missing, but not every ride has its own fare"),
            0 if self.repeats == 0 => {
                write!(f, "nothing is missing, nothing came twice: every ride came out with its own fare")
            }
            0 => write!(
                f,
                "nothing is missing: every ride came out with its own fare, and repeats are told by their forebay-id"
            ),
            n if n <= self.in_pool => {
                write!(f, "not everything has come out, but nothing is lost: the pool holds the rest")
            }
            1 => write!(f, "1 RIDE IS MISSING"),
            n => write!(f, "{} RIDES ARE MISSING", number(n)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Verdict = Verdict {
        published: 1500,
        acknowledged: 1500,
        distinct: 1500,
        repeats: 0,
        wrong_fares: 0,
        foreign: 0,
        in_pool: 0,
    };

    #[test]
    fn what_counts_as_good_and_what_is_said() {
        for (verdict, is_good, says) in [
            (GOOD, true, "nothing came twice"),
            (Verdict { repeats: 2, ..GOOD }, true, "repeats are told"),
            (Verdict { distinct: 1499, ..GOOD }, false, "1 RIDE IS MISSING"),
            (Verdict { distinct: 100, ..GOOD }, false, "1,400 RIDES ARE MISSING"),
            (Verdict { wrong_fares: 1, ..GOOD }, false, "not every ride has its own fare"),
            (Verdict { distinct: 100, in_pool: 1400, ..GOOD }, false, "the pool holds the rest"),
            (Verdict { acknowledged: 0, distinct: 0, ..GOOD }, false, "acknowledged no ride"),
            // the broker took it, only its acknowledgement was lost
            (Verdict { acknowledged: 1499, ..GOOD }, true, "published, but never acknowledged"),
        ] {
            assert_eq!(verdict.is_good(), is_good, "{verdict:?}");
            assert!(verdict.to_string().contains(says), "{verdict}");
        }
    }
}

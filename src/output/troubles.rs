//! Why rows of an output wait, consumer by consumer.
//!
//! In: what became of the deliveries of each consumer. Out: what is new of it, and what to show. Invariant: a
//! consumer's trouble lasts until its own rows are through, whatever others deliver, others of the same statement too.
//! Not here: logging, counting.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use super::Delivery;

/// What a delivery changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A reason that no consumer had before.
    New,
    /// The last trouble is over.
    Over,
    Nothing,
}

/// The consumers whose rows wait, each with its reason.
#[derive(Clone, Debug, Default)]
pub struct Troubles(BTreeMap<SmolStr, String>);

impl Troubles {
    /// Notes how a delivery of a consumer ended.
    pub fn note(&mut self, consumer: &str, delivery: &Delivery) -> Change {
        match delivery {
            Delivery::TryAgain { reason, .. } | Delivery::Gone { reason } => {
                let is_known = self.0.values().any(|known| known == reason);
                self.0.insert(consumer.into(), reason.clone());
                if is_known { Change::Nothing } else { Change::New }
            }
            Delivery::Delivered | Delivery::Rejected { .. } => match self.0.remove(consumer) {
                Some(_) if self.0.is_empty() => Change::Over,
                _ => Change::Nothing,
            },
        }
    }

    /// The reasons why rows wait, each once.
    pub fn shown(&self) -> Option<String> {
        let mut reasons: Vec<&str> = Vec::new();
        for reason in self.0.values() {
            if !reasons.contains(&reason.as_str()) {
                reasons.push(reason);
            }
        }
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_lasts_until_the_rows_of_its_own_consumer_are_through() {
        let away = |why: &str| Delivery::try_again(why);
        let gone = Delivery::Gone { reason: "closed".to_owned() };
        let rejected = Delivery::Rejected { rows: Vec::new() };
        let through = Delivery::Delivered;
        let mut troubles = Troubles::default();
        for (i, (consumer, delivery, change, shown)) in [
            ("b", &through, Change::Nothing, None),
            ("a", &away("full"), Change::New, Some("full")),
            ("b", &through, Change::Nothing, Some("full")),
            ("a", &away("full"), Change::Nothing, Some("full")),
            ("b", &rejected, Change::Nothing, Some("full")),
            // the same for both is told once
            ("b", &away("full"), Change::Nothing, Some("full")),
            ("b", &away("away"), Change::New, Some("full; away")),
            ("a", &through, Change::Nothing, Some("away")),
            ("a", &through, Change::Nothing, Some("away")),
            ("b", &away("full"), Change::New, Some("full")),
            ("b", &rejected, Change::Over, None),
            ("b", &through, Change::Nothing, None),
            ("a", &gone, Change::New, Some("closed")),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(troubles.note(consumer, delivery), change, "line {i}");
            assert_eq!(troubles.shown().as_deref(), shown, "line {i}");
        }
    }
}

//! Values that do not fit those before them.
//!
//! In: the known values in ascending order, and a value. Out: the chance of a value as far out, and whether that is an
//! alarm. Invariant: while values are exchangeable (independent draws of one distribution, whichever), an alarm comes
//! with a chance of at most the risk plus `SLACK`, once enough values are known. Not here: the density (`density`), how
//! the known values are kept.
//!
//! Two tests must agree. The density's p-value must be below the risk: it tells how far out a value lies, which ranks
//! do not. And the value's conformal rank must allow it: of n + 1 exchangeable values each is equally likely to be the
//! strangest, so the bound holds even where the density is a poor fit. Source: V. Vovk, A. Gammerman, G. Shafer,
//! "Algorithmic Learning in a Random World", Springer 2005, chapter 2.

use std::cmp::Ordering;

use super::density::{TailChances, tails};
use crate::query::plan::SpikeMode;

/// False alarms beyond the risk that the ranks allow: one hundredth.
const SLACK: f64 = 0.01;
/// How much of the values lies beyond the bulk of each side. Chosen by the rates measured in `anomaly`.
const BULK_BEYOND: f64 = 0.1;

/// The number of known values from which on even the strangest value comes by chance no more often than is allowed.
pub(super) fn enough(risk: f64) -> usize {
    (1.0 / (risk + SLACK)).ceil() as usize - 1
}

/// An alarm or none, and the p-value. `risk`: the chance of a false alarm that is allowed, 0 to 1.
pub(super) fn judge(sorted: &[f64], x: f64, mode: SpikeMode, risk: f64) -> (bool, f64) {
    verdict(tails(sorted, x), sorted, x, mode, risk)
}

/// The same with the density's tails at hand.
pub(super) fn verdict(tails: TailChances, sorted: &[f64], x: f64, mode: SpikeMode, risk: f64) -> (bool, f64) {
    let TailChances { lower, upper } = tails;
    let chance = match mode {
        SpikeMode::Spikes => upper,
        SpikeMode::Dips => lower,
        SpikeMode::SpikesAndDips => (2.0 * lower.min(upper)).min(1.0),
    };
    let as_strange = || match mode {
        SpikeMode::Spikes => sorted.len() - sorted.partition_point(|known| *known < x),
        SpikeMode::Dips => sorted.partition_point(|known| *known <= x),
        SpikeMode::SpikesAndDips => as_strange(sorted, x),
    };
    let allowed = ((risk + SLACK) * (sorted.len() + 1) as f64).max(1.0);
    (chance < risk && (as_strange() + 1) as f64 <= allowed, chance)
}

/// How many known values lie as far from the median as `x`, either side measured by how far its own bulk reaches. The
/// measure is taken from all values and `x` together, so that none of them is special.
fn as_strange(sorted: &[f64], x: f64) -> usize {
    let place = sorted.partition_point(|known| *known < x);
    let all = sorted.len() + 1;
    let at = |i: usize| match i.cmp(&place) {
        Ordering::Less => sorted.get(i).copied().unwrap_or(x),
        Ordering::Equal => x,
        Ordering::Greater => sorted.get(i - 1).copied().unwrap_or(x),
    };
    let edge = (all as f64 * BULK_BEYOND) as usize;
    let (low, median, high) = (at(edge), at(all / 2), at(all - 1 - edge));
    let strangeness = |value: f64| {
        let distance = value - median;
        match distance.partial_cmp(&0.0) {
            Some(Ordering::Greater) => distance / (high - median),
            Some(Ordering::Less) => distance / (low - median),
            _ => 0.0,
        }
    };
    let own = strangeness(x);
    sorted.iter().filter(|known| strangeness(**known) >= own).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<f64> {
        (0..100).map(|i| f64::from(i) / 10.0).collect()
    }

    #[test]
    fn a_mode_looks_at_its_side() {
        let alarms = |x: f64| {
            [SpikeMode::Spikes, SpikeMode::Dips, SpikeMode::SpikesAndDips].map(|mode| judge(&known(), x, mode, 0.05).0)
        };
        assert_eq!(alarms(15.0), [true, false, true]);
        assert_eq!(alarms(-5.0), [false, true, true]);
        assert_eq!(alarms(5.0), [false, false, false]);
        assert_eq!(alarms(9.0), [false, false, false], "one in ten is as high");
    }

    #[test]
    fn a_value_never_seen_stands_out_of_a_constant() {
        let sorted = [20.0; 60];
        assert_eq!(judge(&sorted, 20.0, SpikeMode::SpikesAndDips, 0.05), (false, 1.0));
        assert_eq!(judge(&sorted, 20.5, SpikeMode::SpikesAndDips, 0.05), (true, 0.0));
        assert_eq!(judge(&sorted, 20.5, SpikeMode::Dips, 0.05), (false, 1.0));
    }

    #[test]
    fn no_risk_is_no_alarm_and_values_at_the_ends_of_the_range_are_judged() {
        assert!(!judge(&known(), 1e300, SpikeMode::Spikes, 0.0).0);
        let wide: Vec<f64> = (0..60).map(|i| if i < 30 { -f64::MAX } else { f64::MAX }).collect();
        let (alarm, chance) = judge(&wide, f64::MAX, SpikeMode::SpikesAndDips, 0.05);
        assert!(!alarm && (0.0..=1.0).contains(&chance), "{chance}");
    }

    #[test]
    fn enough_is_where_the_strangest_is_rare_enough() {
        assert_eq!([0.1, 0.05, 0.01].map(enough), [9, 16, 49]);
    }
}

//! Values of another distribution than those before them: a level that moved and stays.
//!
//! In: the known values in ascending order and a value; then the bets on the values held. Out: the rank of a value,
//! what it wins, and how strong the evidence of a change is. Invariant: while values are exchangeable, no bet wins on
//! average, whatever their distribution. Not here: when the evidence is an alarm (`anomaly`).
//!
//! A rank among the known values is a conformal p-value: evenly spread while nothing changes, near 0 or 1 once values
//! are higher or lower. A bet on it multiplies a capital by the mixture of all power functions, ∫ e·p^(e−1) de for e
//! from 0 to 1; the product is an exchangeability martingale. Source: V. Vovk, I. Nouretdinov, A. Gammerman, "Testing
//! Exchangeability On-Line", ICML 2003. The change may have begun at any value held, so the evidence is the greatest
//! over all beginnings (the CUSUM form). Source: D. Volkhonskiy, E. Burnaev, I. Nouretdinov, A. Gammerman, V. Vovk,
//! "Inductive Conformal Martingales for Change-Point Detection", COPA 2017. Seen backwards from now those products are
//! one martingale, so by Ville's inequality the evidence reaches 1/r at a given value with a chance of at most r, as
//! far as the ranks are independent (they are among growing history; a sliding one ties them loosely).

/// The logarithms of what a value multiplies two capitals by: one bets on higher values, one on lower ones.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Bets {
    pub higher: f64,
    pub lower: f64,
}

/// Below this the closed form of the mixture loses digits, and its series has them all.
const SERIES_BELOW: f64 = 1e-3;
/// The logarithm of the greatest evidence that is told apart: `exp` of more is no number.
const LOG_MAX: f64 = 700.0;

/// The share of the values, `x` among them, that lie below `x`; of values equal to it, half. The middle of a rank's
/// span stands for it, and since the bets are convex they win no more so than on an even spread.
pub(super) fn rank(sorted: &[f64], x: f64) -> f64 {
    let below = sorted.partition_point(|known| *known < x);
    let equal = sorted.partition_point(|known| *known <= x) - below;
    (below as f64 + 0.5 * (equal + 1) as f64) / (sorted.len() + 1) as f64
}

pub(super) fn bets(rank: f64) -> Bets {
    Bets { higher: log_bet(1.0 - rank), lower: log_bet(rank) }
}

/// The mixture's closed form is (e^q − 1 − q) / q² with q = −ln p.
fn log_bet(p: f64) -> f64 {
    let q = -p.ln();
    let gain = if q < SERIES_BELOW { 0.5 + q / 6.0 + q * q / 24.0 } else { (q.exp_m1() - q) / (q * q) };
    gain.ln()
}

/// The greatest capital that stands now, over all beginnings: half of it bet on higher values, half on lower ones. 1
/// when no beginning has won.
pub(super) fn evidence(newest_first: impl Iterator<Item = Bets>) -> f64 {
    let (mut higher, mut lower, mut best) = (0.0f64, 0.0f64, 0.0f64);
    for bets in newest_first {
        higher += bets.higher;
        lower += bets.lower;
        let both = higher.max(lower) + (-(higher - lower).abs()).exp().ln_1p() - std::f64::consts::LN_2;
        best = best.max(both);
    }
    best.min(LOG_MAX).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_is_the_middle_of_its_span() {
        let sorted = [1.0, 2.0, 2.0, 3.0];
        let ranks = [0.0, 1.0, 2.0, 2.5, 4.0].map(|x| rank(&sorted, x));
        assert_eq!(ranks, [0.1, 0.2, 0.5, 0.7, 0.9]);
        assert_eq!(rank(&[], 7.0), 0.5);
    }

    /// For any number of known values: the bets on all ranks, which are equally likely, win nothing together.
    #[test]
    fn no_bet_wins_on_average() {
        for n in [1usize, 2, 5, 50, 120, 5000] {
            let ranks = (0..=n).map(|i| (i as f64 + 0.5) / (n + 1) as f64);
            let gains = |bet: fn(Bets) -> f64| ranks.clone().map(|r| bet(bets(r)).exp()).sum::<f64>() / (n + 1) as f64;
            let (higher, lower) = (gains(|b| b.higher), gains(|b| b.lower));
            assert!(higher <= 1.0 && higher > 0.6, "{n}: {higher}");
            assert!((higher - lower).abs() < 1e-9, "{n}: {higher} {lower}");
        }
    }

    #[test]
    fn the_closed_form_and_its_series_meet() {
        let gain = |q: f64| log_bet((-q).exp());
        assert!((gain(0.999e-3) - gain(1.001e-3)).abs() < 1e-6);
        assert!((log_bet(1.0).exp() - 0.5).abs() < 1e-12);
        // the integral of e·p^(e−1) at p = 0.01, by its sum
        let steps = 100_000;
        let sum: f64 =
            (0..steps).map(|i| (f64::from(i) + 0.5) / f64::from(steps)).map(|e| e * 0.01f64.powf(e - 1.0)).sum();
        assert!((log_bet(0.01).exp() - sum / f64::from(steps)).abs() < 1e-6);
    }

    #[test]
    fn evidence_is_the_best_beginning() {
        let bet = |higher: f64, lower: f64| Bets { higher, lower };
        assert_eq!(evidence([].into_iter()), 1.0);
        assert_eq!(evidence([bet(-0.5, -0.5)].into_iter()), 1.0);
        let two = [bet(2.0, -1.0), bet(1.0, -1.0), bet(-9.0, -1.0)];
        let expected = 0.5 * (3.0f64.exp() + (-2.0f64).exp());
        assert!((evidence(two.into_iter()) - expected).abs() < 1e-9);
        assert!(evidence(std::iter::repeat_n(bet(9.0, -1.0), 1000)).is_finite());
    }
}

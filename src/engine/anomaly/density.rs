//! How much of a density of known values lies beyond a value.
//!
//! In: values in ascending order and a value. Out: the estimated chance of a value as low, and of one as high.
//! Invariant: the result is a function of the values alone, takes one pass over them, and lies in 0 to 1. Not here:
//! which values are known, what chance is too small.
//!
//! The estimate is a variable kernel estimate: each known value carries a kernel as wide as the distance to its k-th
//! nearest neighbour, narrow where values are dense and wide in the tails. Source: L. Breiman, W. Meisel, E. Purcell,
//! "Variable Kernel Estimates of Multivariate Densities", Technometrics 19(2), 1977. Kernels are logistic: their
//! distribution function is closed, so both tails keep their digits however far out a value lies.

/// A kernel's standard deviation, in distances to the k-th neighbour. Chosen by the rates measured in `anomaly`.
const WIDTH: f64 = 0.2;
/// A logistic distribution of scale 1 has the standard deviation π/√3.
const LOGISTIC_SCALE: f64 = 0.551_328_895_421_792;

/// Chances of a value as low as, and as high as, the one asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TailChances {
    pub lower: f64,
    pub upper: f64,
}

/// `sorted`: finite values in ascending order.
pub(super) fn tails(sorted: &[f64], x: f64) -> TailChances {
    let n = sorted.len();
    if n == 0 {
        return TailChances { lower: 1.0, upper: 1.0 };
    }
    let k = ((n as f64).sqrt().ceil() as usize).min(n - 1);
    let at = |i: usize| sorted.get(i).copied().unwrap_or(x);
    let (mut lower, mut upper) = (0.0, 0.0);
    // the k nearest neighbours of a value and itself are k + 1 values in a row, and the row moves up with the value
    let mut low = 0;
    for i in 0..n {
        let value = at(i);
        let reach = |low: usize| (value - at(low)).max(at(low + k) - value);
        while low + k + 1 < n && low < i && reach(low + 1) <= reach(low) {
            low += 1;
        }
        let scale = WIDTH * LOGISTIC_SCALE * reach(low);
        let distance = x - value;
        lower += logistic(distance, scale);
        upper += logistic(-distance, scale);
    }
    TailChances { lower: (lower / n as f64).min(1.0), upper: (upper / n as f64).min(1.0) }
}

/// The logistic distribution function; a step where the scale is nothing.
fn logistic(distance: f64, scale: f64) -> f64 {
    if distance == 0.0 {
        0.5
    } else if scale > 0.0 && scale.is_finite() {
        1.0 / (1.0 + (-distance / scale).exp())
    } else if distance > 0.0 {
        1.0
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_tails_make_one_and_rise_with_the_value(
            mut values in prop::collection::vec(-1e3f64..1e3, 1..80),
            a in -2e3f64..2e3,
            b in -2e3f64..2e3,
        ) {
            values.sort_by(f64::total_cmp);
            let (low, high) = (tails(&values, a.min(b)), tails(&values, a.max(b)));
            prop_assert!((low.lower + low.upper - 1.0).abs() < 1e-9);
            prop_assert!(low.lower <= high.lower + 1e-9 && low.upper + 1e-9 >= high.upper);
        }

        /// The row of nearest neighbours that moves along finds what a search over all of them finds.
        #[test]
        fn kernels_reach_to_the_kth_neighbour(
            mut values in prop::collection::vec((-50i32..50).prop_map(f64::from), 2..60),
            x in -60f64..60.0,
        ) {
            values.sort_by(f64::total_cmp);
            let k = ((values.len() as f64).sqrt().ceil() as usize).min(values.len() - 1);
            let upper = values.iter().map(|value| {
                let mut distances: Vec<f64> = values.iter().map(|other| (other - value).abs()).collect();
                distances.sort_by(f64::total_cmp);
                logistic(value - x, WIDTH * LOGISTIC_SCALE * distances[k])
            });
            let expected = upper.sum::<f64>() / values.len() as f64;
            prop_assert!((tails(&values, x).upper - expected).abs() < 1e-9);
        }
    }

    #[test]
    fn tails_keep_their_digits_far_out() {
        let values: Vec<f64> = (0..50).map(f64::from).collect();
        let (near, far) = (tails(&values, 80.0).upper, tails(&values, 160.0).upper);
        assert!(far > 0.0 && far < near * 1e-3, "{near} {far}");
    }
}

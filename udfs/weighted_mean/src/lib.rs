//! `uda.weightedMean(value, weight)`: the mean of a window's values, each counted by its weight.

use std::cell::Cell;

wit_bindgen::generate!({ path: "wit" });

use exports::forebay::weighted_mean::aggregates;

struct Component;

/// What was summed up so far.
#[derive(Default)]
struct WeightedMean {
    sum: Cell<f64>,
    weight: Cell<f64>,
}

impl WeightedMean {
    fn add(&self, sum: f64, weight: f64) {
        self.sum.set(self.sum.get() + sum);
        self.weight.set(self.weight.get() + weight);
    }
}

impl aggregates::GuestWeightedMean for WeightedMean {
    fn new() -> WeightedMean {
        WeightedMean::default()
    }

    fn accumulate(&self, value: f64, weight: f64) {
        self.add(value * weight, weight);
    }

    fn deaccumulate(&self, value: f64, weight: f64) {
        self.add(-value * weight, -weight);
    }

    fn merge(&self, other: aggregates::WeightedMeanBorrow<'_>) {
        let other = other.get::<WeightedMean>();
        self.add(other.sum.get(), other.weight.get());
    }

    fn compute(&self) -> Option<f64> {
        (self.weight.get() != 0.0).then(|| self.sum.get() / self.weight.get())
    }

    fn save(&self) -> Vec<u8> {
        [self.sum.get().to_le_bytes(), self.weight.get().to_le_bytes()].concat()
    }

    fn restore(state: Vec<u8>) -> aggregates::WeightedMean {
        let number = |at: usize| state.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0.0, f64::from_le_bytes);
        aggregates::WeightedMean::new(WeightedMean { sum: Cell::new(number(0)), weight: Cell::new(number(8)) })
    }
}

impl aggregates::Guest for Component {
    type WeightedMean = WeightedMean;
}

export!(Component);

//! `uda.{{camel}}(value)`: how far apart the values of a window are, the largest less the smallest.

use std::cell::Cell;

wit_bindgen::generate!({ path: "wit" });

use exports::local::functions::aggregates;

struct Exported;

/// The values so far lie between the two; without any, the low one is above the high one.
struct {{pascal}} {
    low: Cell<f64>,
    high: Cell<f64>,
}

impl {{pascal}} {
    fn between(low: f64, high: f64) -> {{pascal}} {
        {{pascal}} { low: Cell::new(low), high: Cell::new(high) }
    }

    fn widen(&self, low: f64, high: f64) {
        self.low.set(self.low.get().min(low));
        self.high.set(self.high.get().max(high));
    }
}

impl aggregates::Guest{{pascal}} for {{pascal}} {
    fn new() -> {{pascal}} {
        {{pascal}}::between(f64::INFINITY, f64::NEG_INFINITY)
    }

    fn accumulate(&self, value: f64) {
        self.widen(value, value);
    }

    fn merge(&self, other: aggregates::{{pascal}}Borrow<'_>) {
        let other = other.get::<{{pascal}}>();
        self.widen(other.low.get(), other.high.get());
    }

    fn compute(&self) -> Option<f64> {
        let (low, high) = (self.low.get(), self.high.get());
        (low <= high).then(|| high - low)
    }

    fn save(&self) -> Vec<u8> {
        [self.low.get().to_le_bytes(), self.high.get().to_le_bytes()].concat()
    }

    fn restore(state: Vec<u8>) -> aggregates::{{pascal}} {
        let bytes = |at: usize| state.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        let number = |at| bytes(at).map_or(f64::NAN, f64::from_le_bytes);
        aggregates::{{pascal}}::new({{pascal}}::between(number(0), number(8)))
    }
}

impl aggregates::Guest for Exported {
    type {{pascal}} = {{pascal}};
}

export!(Exported);

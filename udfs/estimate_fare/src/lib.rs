//! `udf.estimateFare(features)`: the fare of a ride by its distance alone, from the array that `udf.createArray` gives.
//! It answers in place of the taxi model while that is away.

wit_bindgen::generate!({ path: "wit" });

/// Dollars for each ride, and for each mile.
const BASE: f64 = 3.0;
const A_MILE: f64 = 2.2;

struct EstimateFare;

impl Guest for EstimateFare {
    fn estimate_fare(features: (String, String, String, String, String)) -> Result<f64, String> {
        let (.., distance) = features;
        let miles: f64 = distance.parse().map_err(|_| format!("the distance {distance:?} is no number"))?;
        Ok(((BASE + A_MILE * miles) * 100.0).round() / 100.0)
    }
}

export!(EstimateFare);

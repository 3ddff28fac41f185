//! `udf.{{camel}}(value, low, high)`: where a value lies between two bounds, 0 to 1.

wit_bindgen::generate!({ path: "wit" });

struct Exported;

impl Guest for Exported {
    fn {{snake}}(value: f64, low: f64, high: f64) -> Result<f64, String> {
        if low >= high {
            return Err("low must be below high".to_owned());
        }
        Ok(((value - low) / (high - low)).clamp(0.0, 1.0))
    }
}

export!(Exported);

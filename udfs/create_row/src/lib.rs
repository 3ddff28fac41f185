//! `udf.createRow(vendorid, weekday, pickuphour, passenger, distance)`: the same features as a record, for models that
//! take a data frame.

wit_bindgen::generate!({ path: "wit" });

struct CreateRow;

impl Guest for CreateRow {
    fn create_row(vendorid: i64, weekday: String, pickuphour: i64, passenger: i64, distance: f64) -> Row {
        Row { vendorid, weekday, pickuphour, passenger, distance }
    }
}

export!(CreateRow);

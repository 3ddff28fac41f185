//! `udf.createArray(vendorid, weekday, pickuphour, passenger, distance)`: the taxi model's input, an array of five
//! texts. Numbers in the query arrive as text, as CAST makes it.

wit_bindgen::generate!({ path: "wit" });

struct CreateArray;

impl Guest for CreateArray {
    fn create_array(
        vendorid: String,
        weekday: String,
        pickuphour: String,
        passenger: String,
        distance: String,
    ) -> (String, String, String, String, String) {
        (vendorid, weekday, pickuphour, passenger, distance)
    }
}

export!(CreateArray);

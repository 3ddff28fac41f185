//! A guest of the tests: each shape of the type table, given back as it came.

wit_bindgen::generate!({ path: "wit" });

use exports::forebay::echo::shapes::{Datetime, Guest, Json, Level, Marks, Reading, Ride};

struct Echo;

macro_rules! echo {
    ($($name:ident: $ty:ty,)*) => {
        $(fn $name(x: $ty) -> $ty {
            x
        })*
    };
}

impl Guest for Echo {
    echo! {
        echo_bool: bool,
        echo_s8: i8,
        echo_u8: u8,
        echo_s16: i16,
        echo_u16: u16,
        echo_s32: i32,
        echo_u32: u32,
        echo_s64: i64,
        echo_u64: u64,
        echo_f32: f32,
        echo_f64: f64,
        echo_char: char,
        echo_string: String,
        echo_datetime: Datetime,
        echo_json: Json,
        echo_level: Level,
        echo_marks: Marks,
        echo_reading: Reading,
        echo_ride: Ride,
        echo_list: Vec<f64>,
        echo_lists: Vec<Vec<String>>,
        echo_tuple: (i64, String, bool),
        echo_option: Option<i64>,
        echo_result: Option<Result<i64, String>>,
    }

    fn parse(x: String) -> Result<i64, String> {
        x.parse().map_err(|_| format!("`{x}` is no number"))
    }

    fn forget(_x: i64) {}

    fn answer() -> u64 {
        42
    }

    fn too_big() -> u64 {
        u64::MAX
    }

    fn bad_json() -> Json {
        Json { json_text: "{".into() }
    }
}

export!(Echo);

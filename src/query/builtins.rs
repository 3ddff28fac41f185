//! Scalar functions, operators and conversions of the query language.
//!
//! In: values of one row. Out: a value, or a [`RowError`] that says why the row has none. Invariant: no function here
//! panics, reads a clock, or makes a value larger than [`RESULT_BYTES_MAX`] out of small ones. Not here: `CASE`,
//! `System.Timestamp()`, metadata and `GETUTCDATE()` (the engine has the row), aggregates and windows, user functions.
//!
//! Text compares by code points and with letter case, positions count code points from 1. NULL in any argument gives
//! NULL unless a function says otherwise.

mod args;
mod array;
mod cast;
mod conditional;
mod date;
mod error;
mod geo;
mod like;
mod math;
mod memo;
mod operators;
mod regex;
mod string;
mod text;

pub use cast::cast;
pub use date::{dateadd, datediff};
pub use error::{RESULT_BYTES_MAX, RowError};
pub use like::{like, try_like};
pub use operators::{binary, bit_not, compare_op, is_true, negate};

use crate::value::{Type, Value};

/// No upper limit on the number of arguments (the length of the query is the limit).
const MANY: usize = usize::MAX;

/// A scalar function of the language.
#[derive(Debug)]
pub struct Builtin {
    /// Name as the documents spell it.
    pub name: &'static str,
    /// Fewest and most arguments.
    pub args: (usize, usize),
    /// Type of every result that is not NULL, where it does not depend on the arguments.
    pub returns: Option<Type>,
    /// The first argument is the name of a date part: [`crate::query::date_part::DatePart::name`] as a constant.
    pub takes_date_part: bool,
    /// Its value is that of the first argument that is not NULL; those behind it are not evaluated.
    pub stops_early: bool,
    pub call: fn(&[Value]) -> Result<Value, RowError>,
}

/// The function of this name, in any letter case.
pub fn lookup(name: &str) -> Option<&'static Builtin> {
    BUILTINS.iter().find(|b| b.name.eq_ignore_ascii_case(name))
}

/// The names of all functions, as the documents spell them.
pub fn names() -> impl Iterator<Item = &'static str> {
    BUILTINS.iter().map(|b| b.name)
}

const fn function(
    name: &'static str,
    args: (usize, usize),
    returns: Option<Type>,
    call: fn(&[Value]) -> Result<Value, RowError>,
) -> Builtin {
    Builtin { name, args, returns, takes_date_part: false, stops_early: false, call }
}

const fn date_function(
    name: &'static str,
    args: usize,
    returns: Type,
    call: fn(&[Value]) -> Result<Value, RowError>,
) -> Builtin {
    Builtin { name, args: (args, args), returns: Some(returns), takes_date_part: true, stops_early: false, call }
}

const BIGINT: Option<Type> = Some(Type::BigInt);
const FLOAT: Option<Type> = Some(Type::Float);
const TEXT: Option<Type> = Some(Type::Text);
const DATETIME: Option<Type> = Some(Type::DateTime);
const RECORD: Option<Type> = Some(Type::Record);

static BUILTINS: &[Builtin] = &[
    function("ABS", (1, 1), None, math::abs),
    function("CEILING", (1, 1), None, math::ceiling),
    function("EXP", (1, 1), FLOAT, math::exp),
    function("FLOOR", (1, 1), None, math::floor),
    function("POWER", (2, 2), None, math::power),
    function("ROUND", (2, 2), None, math::round),
    function("SIGN", (1, 1), None, math::sign),
    function("SQRT", (1, 1), FLOAT, math::sqrt),
    function("SQUARE", (1, 1), FLOAT, math::square),
    function("CHARINDEX", (2, 3), BIGINT, string::charindex),
    function("CONCAT", (2, MANY), TEXT, string::concat),
    function("CONCAT_WS", (3, MANY), TEXT, string::concat_ws),
    function("LEFT", (2, 2), TEXT, string::left),
    function("LEN", (1, 1), BIGINT, string::len),
    function("LOWER", (1, 1), TEXT, string::lower),
    function("LTRIM", (1, 1), TEXT, string::ltrim),
    function("NCHAR", (1, 1), TEXT, string::nchar),
    function("PATINDEX", (2, 2), BIGINT, like::patindex),
    function("REGEXMATCH", (2, 2), BIGINT, regex::regexmatch),
    function("REPLACE", (3, 3), TEXT, string::replace),
    function("REPLICATE", (2, 2), TEXT, string::replicate),
    function("REVERSE", (1, 1), TEXT, string::reverse),
    function("RIGHT", (2, 2), TEXT, string::right),
    function("RTRIM", (1, 1), TEXT, string::rtrim),
    function("SPACE", (1, 1), TEXT, string::space),
    function("STUFF", (4, 4), TEXT, string::stuff),
    function("SUBSTRING", (3, 3), TEXT, string::substring),
    function("TRANSLATE", (3, 3), TEXT, string::translate),
    function("TRIM", (1, 1), TEXT, string::trim),
    function("UNICODE", (1, 1), BIGINT, string::unicode),
    function("UPPER", (1, 1), TEXT, string::upper),
    Builtin { stops_early: true, ..function("COALESCE", (2, MANY), None, conditional::coalesce) },
    function("NULLIF", (2, 2), None, conditional::nullif),
    function("GetType", (1, 1), TEXT, conditional::get_type),
    date_function("DATEADD", 3, Type::DateTime, date::dateadd_function),
    date_function("DATEDIFF", 3, Type::BigInt, date::datediff_function),
    date_function("DATENAME", 2, Type::Text, date::datename),
    date_function("DATEPART", 2, Type::BigInt, date::datepart),
    function("DATETIMEFROMPARTS", (7, 7), DATETIME, date::datetimefromparts),
    function("DAY", (1, 1), BIGINT, date::day),
    function("MONTH", (1, 1), BIGINT, date::month),
    function("YEAR", (1, 1), BIGINT, date::year),
    function("GetArrayElement", (2, 2), None, array::get_array_element),
    function("GetArrayLength", (1, 1), BIGINT, array::get_array_length),
    function("GetRecordPropertyValue", (2, 2), None, array::get_record_property_value),
    function("JSON_PARSE", (1, 1), RECORD, array::json_parse),
    function("CreateLineString", (2, MANY), RECORD, geo::create_line_string),
    function("CreatePoint", (2, 2), RECORD, geo::create_point),
    function("CreatePolygon", (3, MANY), RECORD, geo::create_polygon),
    function("ST_DISTANCE", (2, 2), FLOAT, geo::st_distance),
    function("ST_INTERSECTS", (2, 2), BIGINT, geo::st_intersects),
    function("ST_OVERLAPS", (2, 2), BIGINT, geo::st_overlaps),
    function("ST_WITHIN", (2, 2), BIGINT, geo::st_within),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::ast::BinaryOp;
    use crate::time::Timestamp;
    use crate::value::Record;
    use proptest::prelude::*;

    const OPERATORS: [BinaryOp; 16] = [
        BinaryOp::Or,
        BinaryOp::And,
        BinaryOp::Eq,
        BinaryOp::Ne,
        BinaryOp::Lt,
        BinaryOp::Le,
        BinaryOp::Gt,
        BinaryOp::Ge,
        BinaryOp::Add,
        BinaryOp::Sub,
        BinaryOp::Mul,
        BinaryOp::Div,
        BinaryOp::Mod,
        BinaryOp::BitAnd,
        BinaryOp::BitOr,
        BinaryOp::BitXor,
    ];

    const TYPES: [Type; 7] =
        [Type::BigInt, Type::Float, Type::Text, Type::DateTime, Type::Bit, Type::Record, Type::Array];

    /// Values that find their way past the first check of many functions, and others.
    fn values() -> impl Strategy<Value = Value> {
        let numbers =
            prop::sample::select(vec![i64::MIN, i64::MIN + 1, -1, 0, 1, 2, 3, 1 << 20, i64::MAX - 1, i64::MAX]);
        let words = prop::sample::select(vec![
            "",
            " ",
            "abc",
            "äö😀",
            "%a_[b",
            "day",
            "year",
            "2024-05-01T10:00:00Z",
            "9999-12-31",
            "12.5",
            "-7",
            "true",
            "(a|b)*\\1",
            "POINT(1 2)",
            "POLYGON((0 0,4 0,4 4,0 0))",
            "{\"a\":[1]}",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bit),
            numbers.prop_map(Value::BigInt),
            (-5i64..20).prop_map(Value::BigInt),
            any::<f64>().prop_map(Value::Float),
            (-3.0..3.0f64).prop_map(Value::Float),
            words.prop_map(Value::text),
            ".{0,10}".prop_map(Value::text),
            (0..=Timestamp::MAX.ticks()).prop_map(|t| Value::DateTime(Timestamp::saturating_from_ticks(t))),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::array),
                prop::collection::vec(inner.clone(), 0..3).prop_map(|coordinates| geo_json("Polygon", coordinates)),
                prop::collection::btree_map("[a-c]{0,2}", inner, 0..4).prop_map(|m| Value::record(
                    Record::from_unique(m.into_iter().map(|(n, v)| (n.into(), v)).collect())
                )),
            ]
        })
    }

    fn geo_json(kind: &str, coordinates: Vec<Value>) -> Value {
        Value::record(Record::from_unique(vec![
            ("type".into(), Value::text(kind)),
            ("coordinates".into(), Value::array(coordinates)),
        ]))
    }

    /// No NaN and no infinity, at any depth.
    fn is_finite(value: &Value) -> bool {
        match value {
            Value::Float(f) => f.is_finite(),
            Value::Array(items) => items.iter().all(is_finite),
            Value::Record(record) => record.iter().all(|(_, v)| is_finite(v)),
            _ => true,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1500))]

        #[test]
        fn every_function_answers_whatever_it_is_given(args in prop::collection::vec(values(), 0..9)) {
            for b in BUILTINS {
                let most = b.args.1.min(args.len());
                for n in b.args.0.min(most)..=most {
                    let given = args.get(..n).unwrap_or_default();
                    match (b.call)(given) {
                        Ok(result) => {
                            let expected = b.returns.is_none() || result.is_null() || result.kind() == b.returns;
                            prop_assert!(expected, "{} of {given:?} gave {result:?}", b.name);
                            prop_assert!(is_finite(&result) || !given.iter().all(is_finite), "{} of {given:?} gave \
                                {result:?}", b.name);
                        }
                        Err(e) => {
                            let named = e.message.to_lowercase().contains(&b.name.to_lowercase());
                            prop_assert!(named, "{}: {}", b.name, e.message);
                        }
                    }
                }
            }
        }

        #[test]
        fn every_operator_and_conversion_answers(a in values(), b in values()) {
            for op in OPERATORS {
                if let Ok(result) = binary(op, &a, &b) {
                    prop_assert!(is_finite(&result), "{op:?} {a:?} {b:?} gave {result:?}");
                }
            }
            let _ = (negate(&a), bit_not(&a));
            for ty in TYPES {
                if let Ok(result) = cast(&a, ty) {
                    prop_assert!(result.is_null() == a.is_null());
                    prop_assert!(result.is_null() || result.kind() == Some(ty));
                }
            }
        }

        #[test]
        fn null_in_any_place_gives_null(args in prop::collection::vec(values(), 7), hole in 0usize..7) {
            let exceptions = ["CONCAT", "CONCAT_WS", "COALESCE", "NULLIF", "GetType", "JSON_PARSE"];
            for b in BUILTINS.iter().filter(|b| !exceptions.contains(&b.name) && hole < b.args.1) {
                let mut given = args.clone();
                given.truncate(b.args.0.max(hole + 1));
                given[hole] = Value::Null;
                prop_assert_eq!((b.call)(&given), Ok(Value::Null), "{}", b.name);
            }
        }
    }

    #[test]
    fn names_are_found_in_any_letter_case_and_only_once() {
        for b in BUILTINS {
            assert_eq!(lookup(&b.name.to_lowercase()).map(|f| f.name), Some(b.name));
            assert!(b.args.0 <= b.args.1, "{}", b.name);
            assert_eq!(names().filter(|n| n.eq_ignore_ascii_case(b.name)).count(), 1, "{}", b.name);
        }
        assert!(lookup("LOG").is_none());
    }
}

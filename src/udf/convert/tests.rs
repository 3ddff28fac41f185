//! Conversions as tables, and the law that what goes in comes out.

use proptest::prelude::*;

use super::*;

fn field(name: &str, ty: Wit) -> Field {
    Field { name: Name::new(name), ty }
}

fn ride() -> Wit {
    Wit::Record(vec![field("vendor-id", Wit::S64), field("note", Wit::Option(Box::new(Wit::String)))])
}

fn names(names: &[&str]) -> Vec<Name> {
    names.iter().map(|n| Name::new(n)).collect()
}

fn value(json: &str) -> Value {
    json::parse(json).unwrap()
}

fn error(ty: &Wit, json: &str) -> String {
    lower(ty, &value(json)).unwrap_err().to_string()
}

#[test]
fn integers_are_checked_and_never_wrapped() {
    assert_eq!(lower(&Wit::U8, &Value::BigInt(255)), Ok(Val::U8(255)));
    assert_eq!(error(&Wit::U8, "256"), "256 is outside u8, 0 to 255");
    assert_eq!(error(&Wit::U64, "-1"), "-1 is outside u64, 0 to 9223372036854775807");
    assert_eq!(error(&Wit::S32, "2147483648"), "2147483648 is outside s32, -2147483648 to 2147483647");
    assert_eq!(lower(&Wit::S64, &Value::Float(-9_223_372_036_854_775_808.0)), Ok(Val::S64(i64::MIN)));
    for json in ["5.8", "9223372036854775808", "1e300", r#""5""#, "true", "[]"] {
        assert!(error(&Wit::S64, json).contains("is no bigint"), "{json}");
    }
    assert!(lower(&Wit::S64, &Value::Float(f64::NAN)).is_err());
    assert_eq!(lower(&Wit::S8, &Value::Float(-3.0)), Ok(Val::S8(-3)));
}

#[test]
fn a_float_takes_a_bigint_and_fits_its_width() {
    assert_eq!(lower(&Wit::F64, &Value::BigInt(7)), Ok(Val::Float64(7.0)));
    assert_eq!(lower(&Wit::F32, &Value::Float(0.5)), Ok(Val::Float32(0.5)));
    assert_eq!(error(&Wit::F32, "1e300"), "1e300 is outside f32");
    assert_eq!(error(&Wit::F64, r#""1.5""#), "nvarchar(max) \"1.5\" is no float; convert it with CAST");
}

#[test]
fn text_is_made_as_cast_makes_it() {
    let texts: [(Value, &str); 9] = [
        (Value::BigInt(1), "1"),
        (Value::Float(5.8), "5.8"),
        (Value::Float(5.0), "5"),
        (Value::Float(-0.1), "-0.1"),
        (Value::Float(1e300), "1E+300"),
        (Value::Float(1.5e-9), "1.5E-9"),
        (Value::Bit(true), "1"),
        (Value::DateTime(Timestamp::parse("2024-05-01").unwrap()), "2024-05-01T00:00:00.0000000Z"),
        (Value::text("as it is"), "as it is"),
    ];
    for (value, text) in texts {
        assert_eq!(lower(&Wit::String, &value), Ok(Val::String(text.into())), "{value:?}");
    }
    assert_eq!(error(&Wit::String, r#"{"a":1}"#), r#"record {"a":1} is no nvarchar(max)"#);
    assert_eq!(lower(&Wit::Char, &Value::text("ü")), Ok(Val::Char('ü')));
    assert_eq!(error(&Wit::Char, r#""""#), r#"nvarchar(max) "" is no single character"#);
}

#[test]
fn an_enum_is_found_in_any_case_style() {
    let level = Wit::Enum(names(&["low", "very-high"]));
    for text in ["very-high", "very_high", "VeryHigh", "VERYHIGH"] {
        assert_eq!(lower(&level, &Value::text(text)), Ok(Val::Enum("very-high".into())), "{text}");
    }
    assert_eq!(error(&level, r#""high""#), r#"nvarchar(max) "high" is none of low, very-high"#);
}

#[test]
fn record_fields_are_found_by_folded_names() {
    let wanted = Val::Record(vec![("vendor-id".into(), Val::S64(1)), ("note".into(), Val::Option(None))]);
    for json in
        [r#"{"vendor_id":1}"#, r#"{"VendorId":1,"more":2}"#, r#"{"note":null,"vendor-id":1}"#, r#"{"VENDORID":1}"#]
    {
        assert_eq!(lower(&ride(), &value(json)), Ok(wanted.clone()), "{json}");
    }
    assert_eq!(error(&ride(), r#"{"vendor":1}"#), "the record has no field `vendor_id`");
    assert_eq!(
        error(&ride(), r#"{"vendorId":"x"}"#),
        r#".vendor_id: nvarchar(max) "x" is no bigint; convert it with CAST"#
    );
    assert_eq!(error(&ride(), r#"{"vendorId":1,"note":[]}"#), ".note: array [] is no nvarchar(max)");
    // two fields that differ only in style: neither is guessed
    assert_eq!(error(&ride(), r#"{"vendor-id":1,"VENDORid":1}"#), "the record has no field `vendor_id`");
}

#[test]
fn a_message_names_the_place_and_stays_short() {
    let ty = Wit::Record(vec![field("rides", Wit::List(Box::new(ride())))]);
    assert_eq!(
        error(&ty, r#"{"rides":[{"vendorId":1},{"vendorId":true}]}"#),
        ".rides[1].vendor_id: bit true is no bigint; convert it with CAST"
    );
    let long = format!(r#"["{}"]"#, "ü".repeat(10_000));
    assert!(error(&Wit::Bool, &long).chars().count() < 100);
}

#[test]
fn lengths_of_tuples_are_checked() {
    let pair = Wit::Tuple(vec![Wit::S64, Wit::String]);
    assert_eq!(lower(&pair, &value("[1,2]")), Ok(Val::Tuple(vec![Val::S64(1), Val::String("2".into())])));
    assert_eq!(error(&pair, "[1]"), "an array of 1 where 2 are taken");
    assert_eq!(error(&pair, "[1,null]"), "[1]: NULL is no nvarchar(max)");
}

#[test]
fn variants_and_flags_are_records() {
    let cases = vec![
        VariantCase { name: Name::new("missing"), ty: None },
        VariantCase { name: Name::new("a-number"), ty: Some(Wit::F64) },
    ];
    let reading = Wit::Variant(cases);
    assert_eq!(
        lower(&reading, &value(r#"{"aNumber":1}"#)),
        Ok(Val::Variant("a-number".into(), Some(Box::new(Val::Float64(1.0)))))
    );
    for json in [r#""missing""#, r#"{"missing":null}"#] {
        assert_eq!(lower(&reading, &value(json)), Ok(Val::Variant("missing".into(), None)), "{json}");
    }
    for json in [r#""a-number""#, "{}", r#"{"missing":null,"a-number":1}"#, r#"{"other":1}"#] {
        assert!(error(&reading, json).contains("is none of missing, a-number"), "{json}");
    }
    let marks = Wit::Flags(names(&["is-new", "is-paid"]));
    assert_eq!(lower(&marks, &value(r#"{"isPaid":true,"is_new":false}"#)), Ok(Val::Flags(vec!["is-paid".into()])));
    assert_eq!(error(&marks, r#"{"isPaid":1}"#), ".is_paid: bigint 1 is no bit; convert it with CAST");
}

#[test]
fn a_datetime_keeps_its_ticks_and_takes_iso_text() {
    let at = Timestamp::parse("2024-05-01T10:00:00.1234567Z").unwrap();
    let val = Val::Record(vec![(DATETIME_FIELD.into(), Val::S64(at.ticks()))]);
    assert_eq!(lower(&Wit::DateTime, &Value::DateTime(at)), Ok(val.clone()));
    assert_eq!(lower(&Wit::DateTime, &Value::text("2024-05-01T12:00:00.1234567+02:00")), Ok(val.clone()));
    assert_eq!(error(&Wit::DateTime, r#""noon""#), r#"nvarchar(max) "noon" is no datetime"#);
    assert_eq!(lift(&Wit::DateTime, val), Ok(Value::DateTime(at)));
    let past = Val::Record(vec![(DATETIME_FIELD.into(), Val::S64(-1))]);
    assert_eq!(lift(&Wit::DateTime, past).unwrap_err().to_string(), "-1 ticks are outside years 1 to 9999");
}

/// A type, and values of it that a guest could give back.
fn typed() -> impl Strategy<Value = (Wit, Value)> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(|b| (Wit::Bool, Value::Bit(b))),
        any::<i8>().prop_map(|n| (Wit::S8, Value::BigInt(n.into()))),
        any::<u16>().prop_map(|n| (Wit::U16, Value::BigInt(n.into()))),
        any::<i32>().prop_map(|n| (Wit::S32, Value::BigInt(n.into()))),
        any::<i64>().prop_map(|n| (Wit::S64, Value::BigInt(n))),
        (0..=i64::MAX).prop_map(|n| (Wit::U64, Value::BigInt(n))),
        any::<f64>().prop_map(|f| (Wit::F64, Value::Float(f))),
        any::<f32>().prop_map(|f| (Wit::F32, Value::Float(f.into()))),
        any::<char>().prop_map(|c| (Wit::Char, Value::text(c.to_string()))),
        ".*".prop_map(|t| (Wit::String, Value::text(t))),
        (0..=Timestamp::MAX.ticks()).prop_map(|t| (Wit::DateTime, Value::DateTime(Timestamp::from_ticks(t).unwrap()))),
        (any::<bool>(), ".*")
            .prop_map(|(b, t)| (Wit::Json, Value::array(vec![Value::Bit(b), Value::text(t), Value::Float(0.1)]))),
        prop_oneof!["low", "very-high"].prop_map(|t| (Wit::Enum(names(&["low", "very-high"])), Value::text(t))),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|(ty, v)| (Wit::Option(Box::new(ty)), v)),
            inner.clone().prop_map(|(ty, _)| (Wit::Option(Box::new(ty)), Value::Null)),
            inner.clone().prop_map(|(ty, v)| (Wit::List(Box::new(ty)), Value::array(vec![v.clone(), v]))),
            inner.clone().prop_map(|(ty, v)| (
                Wit::Variant(vec![VariantCase { name: Name::new("a-b"), ty: Some(ty) }]),
                one_field("a_b".into(), v)
            )),
            inner.clone().prop_map(|(ty, v)| (Wit::Result(None, Some(Box::new(ty))), one_field("err".into(), v))),
            proptest::collection::vec(inner.clone(), 1..4).prop_map(|parts| {
                let (types, values) = parts.into_iter().unzip();
                (Wit::Tuple(types), Value::array(values))
            }),
            proptest::collection::vec(inner, 1..4).prop_map(|parts| {
                let named = parts.into_iter().enumerate().map(|(i, (ty, v))| {
                    let field = field(&format!("field-{i}"), ty);
                    let pair = (field.name.sql.clone(), v);
                    (field, pair)
                });
                let (fields, pairs) = named.unzip();
                (Wit::Record(fields), Value::record(Record::from_unique(pairs)))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn what_goes_in_comes_out((ty, value) in typed()) {
        let val = lower(&ty, &value).unwrap();
        let back = lift(&ty, val).unwrap();
        // text for NaN, which equals nothing
        prop_assert_eq!(format!("{back:?}"), format!("{value:?}"));
    }

    #[test]
    fn any_value_for_any_type_ends_in_words((ty, _) in typed(), (_, value) in typed()) {
        if let Err(e) = lower(&ty, &value) {
            prop_assert!(!e.to_string().is_empty());
        }
    }
}

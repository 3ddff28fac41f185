//! Any payload is split into events and bad parts that lie in it and do not overlap; what was split off as an event
//! decodes, by its fields and as a whole alike.

#![no_main]

use bytes::Bytes;
use forebay::decode::{Decoder, Schema, split};
use forebay::value::{SmolStr, Type, Value};
use forebay_fuzz::Choices;
use libfuzzer_sys::fuzz_target;

const NAMES: &[&str] = &["a", "A", "b", "t", "k", "value", "Value", "", "ä", "deviceId", "x.y"];
const TYPES: &[Type] = &[Type::BigInt, Type::Float, Type::Text, Type::DateTime, Type::Bit, Type::Record, Type::Array];

fuzz_target!(|bytes: &[u8]| {
    let mut choices = Choices::new(bytes);
    let names: Vec<SmolStr> = (0..choices.below(6)).map(|_| SmolStr::new(choices.of(NAMES))).collect();
    let declared = match choices.below(4) {
        0 => {
            let mut columns: Vec<(SmolStr, Type)> = Vec::new();
            for _ in 0..1 + choices.below(3) {
                let (name, ty) = (SmolStr::new(choices.of(NAMES)), *choices.of(TYPES));
                if !columns.iter().any(|(known, _)| known.to_lowercase() == name.to_lowercase()) {
                    columns.push((name, ty));
                }
            }
            Some(Schema { columns })
        }
        _ => None,
    };
    let payload = Bytes::copy_from_slice(choices.rest());

    let whole = names.len();
    let slots = || names.iter().cloned().zip(0..);
    let mut by_field = Decoder::new(slots(), None, None);
    let mut by_record = Decoder::new(slots(), Some(whole), None);
    let mut checked = Decoder::new(slots(), None, declared.clone());
    let mut checked_record = Decoder::new(slots(), Some(whole), declared.clone());

    let found = split(&payload);
    assert!(payload.is_empty() || !found.events.is_empty() || !found.bad.is_empty() || is_empty_array(&payload));
    let mut length = 0;
    for bad in &found.bad {
        assert!(!bad.error.is_empty());
        assert_eq!(payload.get(bad.position..bad.position + bad.payload.len()), Some(&bad.payload[..]));
        length += bad.payload.len();
    }
    for event in &found.events {
        length += event.len();
        let row = |n| vec![Value::Null; n];
        let (mut fields, mut record) = (row(whole), row(whole + 1));
        by_field.decode(event, &mut fields).expect("an event decodes by its fields");
        by_record.decode(event, &mut record).expect("an event decodes as a whole");
        assert_eq!(format!("{:?}", &record[..whole]), format!("{fields:?}"), "field by field and as a whole");
        assert!(matches!(record[whole], Value::Record(_)));
        let text = record[whole].to_json();
        let again = split(&Bytes::from(text));
        assert_eq!((again.events.len(), again.bad.len()), (1, 0), "what was read is written as an event");

        let (mut fields, mut record) = (row(whole), row(whole + 1));
        let by_fields = checked.decode(event, &mut fields).is_ok();
        let as_record = checked_record.decode(event, &mut record).is_ok();
        // of a repeated name each one is checked, in both ways
        assert_eq!(by_fields, as_record, "the schema refuses by field what it refuses in a record");
    }
    assert!(length <= payload.len(), "parts overlap");

    // bytes that never went through `split`
    let _ = by_field.decode(&payload, &mut vec![Value::Null; whole]);
    let _ = by_record.decode(&payload, &mut vec![Value::Null; whole + 1]);
});

fn is_empty_array(payload: &[u8]) -> bool {
    let payload = payload.strip_prefix(b"\xef\xbb\xbf").unwrap_or(payload);
    payload.iter().filter(|b| !b.is_ascii_whitespace()).eq(b"[]")
}

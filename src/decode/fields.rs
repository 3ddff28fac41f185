//! A stored event to the slots of a row.
//!
//! In: the bytes of one JSON object. Out: the wanted fields, each in its slot. Invariant: a slot gets the field of
//! exactly its name, else the only field that differs in letter case, else stays NULL; of repeated fields the last
//! counts. Not here: time policies, metadata columns, expressions.

use jiter::Jiter;

use super::DecodeError;
use super::json::{RecordBuilder, read, text};
use super::schema::{Schema, fit};
use crate::value::{Record, SmolStr, Value, same_ignoring_case};

/// Field positions remembered from event to event; events with more fields fall back to a search by name.
const LAYOUT_MAX: usize = 256;

/// Reads the fields a query wants. Devices send the same fields in the same order, so what was done with the n-th field
/// of the last event is tried first: then a field costs one comparison of its name.
#[derive(Clone, Debug)]
pub struct Decoder {
    wanted: Vec<WantedField>,
    /// Slot that gets the whole event.
    whole: Option<usize>,
    schema: Option<Schema>,
    layout: Vec<(SmolStr, Action)>,
    found: Vec<FieldFound>,
    /// Buffer for text with escapes, kept from event to event.
    tape: Vec<u8>,
}

#[derive(Clone, Debug)]
struct WantedField {
    name: SmolStr,
    /// `None`: only checked against the schema.
    slots: Vec<usize>,
    ty: Option<crate::value::Type>,
}

/// What to do with a field, decided by its name alone.
#[derive(Clone, Debug, PartialEq)]
enum Action {
    Skip,
    /// It is exactly the field of this entry of `wanted` and of no other, not even ignoring case.
    Exact(usize),
    /// Some entries of `wanted` differ from it in letter case.
    Search,
}

/// What one event gave for one entry of `wanted` so far.
#[derive(Clone, Debug, Default, PartialEq)]
enum FieldFound {
    #[default]
    Nothing,
    Exact,
    /// A field that differs in letter case, and its name.
    Alike(SmolStr),
    /// Several such fields.
    Ambiguous,
}

impl Decoder {
    /// `fields`: name and slot of each wanted field. `whole`: the slot that gets the event as a record. Columns that
    /// the schema declares are checked even if nothing reads them.
    pub fn new(
        fields: impl IntoIterator<Item = (SmolStr, usize)>,
        whole: Option<usize>,
        schema: Option<Schema>,
    ) -> Decoder {
        let mut wanted: Vec<WantedField> = Vec::new();
        for (name, slot) in fields {
            match wanted.iter_mut().find(|w| w.name == name) {
                Some(same) => same.slots.push(slot),
                None => {
                    let ty = schema.as_ref().and_then(|s| s.type_of(&name));
                    wanted.push(WantedField { name, slots: vec![slot], ty });
                }
            }
        }
        for (name, ty) in schema.iter().flat_map(|s| &s.columns) {
            if !wanted.iter().any(|w| same_ignoring_case(&w.name, name)) {
                wanted.push(WantedField { name: name.clone(), slots: Vec::new(), ty: Some(*ty) });
            }
        }
        let found = vec![FieldFound::Nothing; wanted.len()];
        Decoder { wanted, whole, schema, layout: Vec::new(), found, tape: Vec::new() }
    }

    /// Fills the slots of `row`, which come in as NULL.
    ///
    /// # Errors
    /// The bytes are not one JSON object, or a field does not fit its declared type.
    pub fn decode(&mut self, payload: &[u8], row: &mut [Value]) -> Result<(), DecodeError> {
        let mut jiter = Jiter::with_tape(payload, std::mem::take(&mut self.tape));
        let result = if self.whole.is_some() { self.record(&mut jiter, row) } else { self.fields(&mut jiter, row) };
        let result = result.and_then(|()| jiter.finish().map_err(|e| DecodeError::Malformed(text(e))));
        self.tape = jiter.into_tape();
        result
    }

    fn fields(&mut self, jiter: &mut Jiter<'_>, row: &mut [Value]) -> Result<(), DecodeError> {
        let bad = |e| DecodeError::Malformed(text(e));
        self.found.fill(FieldFound::Nothing);
        let mut position = 0;
        let mut key = jiter.next_object().map_err(bad)?;
        while let Some(name) = key {
            let action = match self.layout.get(position) {
                Some((known, action)) if known == name => action.clone(),
                _ => self.learn(position, name),
            };
            match action {
                Action::Skip => jiter.next_skip().map_err(bad)?,
                Action::Exact(i) => {
                    if let Some(found) = self.found.get_mut(i) {
                        *found = FieldFound::Exact;
                    }
                    let value = next_value(jiter)?;
                    self.put(i, value, row)?;
                }
                Action::Search => {
                    let name = SmolStr::new(name);
                    let value = next_value(jiter)?;
                    self.search(&name, &value, row)?;
                }
            }
            position += 1;
            key = jiter.next_key().map_err(bad)?;
        }
        Ok(())
    }

    /// Decides about a field by its name and remembers that.
    fn learn(&mut self, position: usize, name: &str) -> Action {
        let mut alike = self.wanted.iter().enumerate().filter(|(_, w)| same_ignoring_case(&w.name, name));
        let action = match (alike.next(), alike.next()) {
            (None, _) => Action::Skip,
            (Some((i, wanted)), None) if wanted.name == name => Action::Exact(i),
            _ => Action::Search,
        };
        let entry = (SmolStr::new(name), action.clone());
        let known = self.layout.len();
        match self.layout.get_mut(position) {
            Some(slot) => *slot = entry,
            None if position == known && position < LAYOUT_MAX => self.layout.push(entry),
            None => {}
        }
        action
    }

    /// A field whose name differs from some wanted ones only in letter case.
    fn search(&mut self, name: &SmolStr, value: &Value, row: &mut [Value]) -> Result<(), DecodeError> {
        for i in 0..self.wanted.len() {
            let (Some(wanted), Some(found)) = (self.wanted.get(i), self.found.get_mut(i)) else { continue };
            let value = if wanted.name == *name {
                *found = FieldFound::Exact;
                value.clone()
            } else if same_ignoring_case(&wanted.name, name) {
                // whether it is the column may be known only at the end of the event, but it must fit at any rate
                if let Some(ty) = wanted.ty {
                    fit(&wanted.name, value.clone(), ty)?;
                }
                match found {
                    FieldFound::Exact | FieldFound::Ambiguous => continue,
                    FieldFound::Alike(other) if other != name => {
                        *found = FieldFound::Ambiguous;
                        Value::Null
                    }
                    FieldFound::Alike(_) | FieldFound::Nothing => {
                        *found = FieldFound::Alike(name.clone());
                        value.clone()
                    }
                }
            } else {
                continue;
            };
            self.put(i, value, row)?;
        }
        Ok(())
    }

    fn put(&self, i: usize, value: Value, row: &mut [Value]) -> Result<(), DecodeError> {
        let Some(wanted) = self.wanted.get(i) else { return Ok(()) };
        let value = match wanted.ty {
            Some(ty) => fit(&wanted.name, value, ty)?,
            None => value,
        };
        if let Some((last, others)) = wanted.slots.split_last() {
            for slot in others {
                if let Some(cell) = row.get_mut(*slot) {
                    *cell = value.clone();
                }
            }
            if let Some(cell) = row.get_mut(*last) {
                *cell = value;
            }
        }
        Ok(())
    }

    /// Reads the whole event; the wanted fields are taken from the record.
    fn record(&mut self, jiter: &mut Jiter<'_>, row: &mut [Value]) -> Result<(), DecodeError> {
        let bad = |e| DecodeError::Malformed(text(e));
        let mut builder = RecordBuilder::default();
        let mut key = jiter.next_object().map_err(bad)?.map(SmolStr::new);
        while let Some(name) = key {
            let mut value = next_value(jiter)?;
            if let Some(ty) = self.schema.as_ref().and_then(|s| s.type_of(&name)) {
                value = fit(&name, value, ty)?;
            }
            builder.set(name, value);
            key = jiter.next_key().map_err(bad)?.map(SmolStr::new);
        }
        let record: Record = builder.finish();
        for i in 0..self.wanted.len() {
            let value = self.wanted.get(i).and_then(|w| record.find(&w.name)).cloned().unwrap_or_default();
            self.put(i, value, row)?;
        }
        if let Some(cell) = self.whole.and_then(|slot| row.get_mut(slot)) {
            *cell = Value::record(record);
        }
        Ok(())
    }
}

fn next_value(jiter: &mut Jiter<'_>) -> Result<Value, DecodeError> {
    let peek = jiter.peek().map_err(|e| DecodeError::Malformed(text(e)))?;
    read(jiter, peek, 1).map_err(DecodeError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;
    use crate::value::Type;
    use proptest::prelude::*;

    fn decode(names: &[&str], payloads: &[&str]) -> Vec<Vec<Value>> {
        let mut decoder = Decoder::new(names.iter().enumerate().map(|(i, n)| (SmolStr::new(n), i)), None, None);
        let rows = payloads.iter().map(|p| {
            let mut row = vec![Value::Null; names.len()];
            decoder.decode(p.as_bytes(), &mut row).unwrap();
            row
        });
        rows.collect()
    }

    #[test]
    fn wanted_fields_fill_their_slots_and_types_are_kept() {
        let rows = decode(
            &["b", "t", "x", "f", "e", "gone"],
            &[
                r#"{"skip":{"x":[1,"}"]},"t":"a\u00fcb","b":true,"x":-7,"f":5.0,"e":1e3}"#,
                r#"{"x":1}"#,
                r#"{"t":null,"x":2,"b":[1,null]}"#,
            ],
        );
        assert_eq!(
            rows[0],
            [
                Value::Bit(true),
                Value::text("aüb"),
                Value::BigInt(-7),
                Value::Float(5.0),
                Value::Float(1000.0),
                Value::Null
            ]
        );
        assert_eq!(rows[1][2], Value::BigInt(1));
        assert_eq!(rows[2][0], Value::array(vec![Value::BigInt(1), Value::Null]));
    }

    #[test]
    fn names_match_exactly_then_uniquely_ignoring_case() {
        let one = |payload| decode(&["Ab"], &[payload])[0][0].clone();
        assert_eq!(one(r#"{"aB":1}"#), Value::BigInt(1));
        assert_eq!(one(r#"{"aB":1,"Ab":2}"#), Value::BigInt(2));
        assert_eq!(one(r#"{"Ab":2,"aB":1}"#), Value::BigInt(2));
        assert_eq!(one(r#"{"aB":1,"AB":2}"#), Value::Null);
        assert_eq!(one(r#"{"aB":1,"aB":2}"#), Value::BigInt(2));
        assert_eq!(one(r#"{"Ab":1,"Ab":2}"#), Value::BigInt(2));
    }

    #[test]
    fn the_whole_event_comes_as_a_record() {
        let mut decoder = Decoder::new([(SmolStr::new("A"), 1)], Some(0), None);
        let mut row = vec![Value::Null; 2];
        decoder.decode(br#"{"a":1,"b":{"c":2},"a":3}"#, &mut row).unwrap();
        assert_eq!(row[0].to_json(), r#"{"a":3,"b":{"c":2}}"#);
        assert_eq!(row[1], Value::BigInt(3));
    }

    #[test]
    fn a_schema_drops_what_does_not_fit_and_converts_what_is_lossless() {
        let schema = Schema {
            columns: vec![("n".into(), Type::BigInt), ("f".into(), Type::Float), ("t".into(), Type::DateTime)],
        };
        let mut decoder = Decoder::new([(SmolStr::new("F"), 0), (SmolStr::new("t"), 1)], None, Some(schema.clone()));
        let mut row = vec![Value::Null; 2];
        decoder.decode(br#"{"f":1,"t":"2024-01-01","extra":"x"}"#, &mut row).unwrap();
        assert_eq!(row, [Value::Float(1.0), Value::DateTime(Timestamp::parse("2024-01-01").unwrap())]);
        for bad in [&br#"{"n":"42"}"#[..], br#"{"n":4.5}"#, br#"{"t":"noon"}"#, br#"{"f":"1"}"#] {
            assert_eq!(decoder.decode(bad, &mut row).unwrap_err().reason(), "schema");
        }
        let mut whole = Decoder::new([], Some(0), Some(schema));
        whole.decode(br#"{"F":1}"#, &mut row).unwrap();
        assert_eq!(row[0].to_json(), r#"{"F":1.0}"#);
    }

    #[test]
    fn a_field_that_differs_from_a_column_in_letter_case_must_fit_wherever_it_stands() {
        let schema = Schema { columns: vec![("n".into(), Type::BigInt)] };
        for payload in [r#"{"N":"x","n":1}"#, r#"{"n":1,"N":"x"}"#, r#"{"N":1,"N":"x"}"#] {
            for whole in [None, Some(1)] {
                let mut decoder = Decoder::new([(SmolStr::new("n"), 0)], whole, Some(schema.clone()));
                let refused = decoder.decode(payload.as_bytes(), &mut vec![Value::Null; 2]);
                assert_eq!(refused.map_err(|e| e.reason()), Err("schema"), "{payload}");
            }
        }
    }

    proptest! {
        #[test]
        fn fields_and_whole_record_agree(
            fields in prop::collection::vec(("[aAbB]{1,2}", 0i64..9), 0..8),
            names in prop::collection::vec("[aAbB]{1,2}", 1..4),
        ) {
            let body: Vec<String> = fields.iter().map(|(n, v)| format!("\"{n}\":{v}")).collect();
            let payload = format!("{{{}}}", body.join(","));
            let columns = |from: usize| {
                names.iter().enumerate().map(move |(i, n)| (SmolStr::new(n), i + from)).collect::<Vec<_>>()
            };
            let mut by_field = vec![Value::Null; names.len()];
            Decoder::new(columns(0), None, None).decode(payload.as_bytes(), &mut by_field).unwrap();
            let mut by_record = vec![Value::Null; names.len() + 1];
            Decoder::new(columns(1), Some(0), None).decode(payload.as_bytes(), &mut by_record).unwrap();
            prop_assert_eq!(&by_field[..], &by_record[1..]);
        }

        #[test]
        fn any_bytes_decode_or_err(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut row = vec![Value::Null; 1];
            let _ = Decoder::new([(SmolStr::new("a"), 0)], None, None).decode(&bytes, &mut row);
        }
    }
}

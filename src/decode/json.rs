//! JSON text to values, and the check that it may become values.
//!
//! In: a position of a [`Jiter`]. Out: [`check`] says what an event may not hold, [`read`] gives the value. Invariant:
//! both walk the whole value and neither recurses deeper than [`DEPTH_MAX`] by itself. Not here: which fields are
//! wanted, where one event ends and the next begins.

use jiter::{Jiter, JiterError, NumberAny, NumberInt, Peek};

use crate::value::codec::DEPTH_MAX;
use crate::value::{Record, SmolStr, Value};

/// Records past this many fields look for repeated names by a hash set instead of field by field.
const SCAN_FIELDS_MAX: usize = 24;

/// Something that is JSON but not an event: the walk goes on behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotAnEvent {
    IntegerTooLarge,
    FloatTooLarge,
    TooDeep,
}

impl std::fmt::Display for NotAnEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NotAnEvent::IntegerTooLarge => f.write_str("a whole number does not fit 64 bits"),
            NotAnEvent::FloatTooLarge => f.write_str("a number does not fit a 64-bit float"),
            NotAnEvent::TooDeep => write!(f, "nested deeper than {DEPTH_MAX} levels"),
        }
    }
}

/// Walks one value to its end. `Ok(Some(fault))`: it is JSON but holds what values cannot. `Err`: it is not JSON.
pub(super) fn check(jiter: &mut Jiter<'_>, peek: Peek, depth: usize) -> Result<Option<NotAnEvent>, JiterError> {
    match peek {
        Peek::Object | Peek::Array if depth >= DEPTH_MAX => {
            jiter.known_skip(peek)?;
            Ok(Some(NotAnEvent::TooDeep))
        }
        Peek::Object => {
            let mut fault = None;
            let mut more = jiter.known_object()?.is_some();
            while more {
                let peek = jiter.peek()?;
                let found = check(jiter, peek, depth + 1)?;
                fault = fault.or(found);
                more = jiter.next_key()?.is_some();
            }
            Ok(fault)
        }
        Peek::Array => {
            let mut fault = None;
            let mut next = jiter.known_array()?;
            while let Some(peek) = next {
                let found = check(jiter, peek, depth + 1)?;
                fault = fault.or(found);
                next = jiter.array_step()?;
            }
            Ok(fault)
        }
        Peek::String => jiter.known_str().map(|_| None),
        Peek::Null => jiter.known_null().map(|()| None),
        Peek::True | Peek::False => jiter.known_bool(peek).map(|_| None),
        _ => Ok(number(jiter, peek)?.err()),
    }
}

/// Reads one value; the fault as text where it is not one.
pub(super) fn read(jiter: &mut Jiter<'_>, peek: Peek, depth: usize) -> Result<Value, String> {
    match peek {
        Peek::Object | Peek::Array if depth >= DEPTH_MAX => Err(NotAnEvent::TooDeep.to_string()),
        Peek::Object => {
            let mut record = RecordBuilder::default();
            let mut key = jiter.known_object().map_err(text)?.map(SmolStr::new);
            while let Some(name) = key {
                let peek = jiter.peek().map_err(text)?;
                record.set(name, read(jiter, peek, depth + 1)?);
                key = jiter.next_key().map_err(text)?.map(SmolStr::new);
            }
            Ok(Value::record(record.finish()))
        }
        Peek::Array => {
            let mut items = Vec::new();
            let mut next = jiter.known_array().map_err(text)?;
            while let Some(peek) = next {
                items.push(read(jiter, peek, depth + 1)?);
                next = jiter.array_step().map_err(text)?;
            }
            Ok(Value::array(items))
        }
        Peek::String => jiter.known_str().map(|s| Value::Text(SmolStr::new(s))).map_err(text),
        Peek::Null => jiter.known_null().map(|()| Value::Null).map_err(text),
        Peek::True | Peek::False => jiter.known_bool(peek).map(Value::Bit).map_err(text),
        _ => number(jiter, peek).map_err(text)?.map_err(|fault| fault.to_string()),
    }
}

/// The wording of a syntax error, without a position (the caller knows where the event lies).
pub(super) fn text(error: JiterError) -> String {
    format!("{} at byte {}", error.error_type, error.index)
}

fn number(jiter: &mut Jiter<'_>, peek: Peek) -> Result<Result<Value, NotAnEvent>, JiterError> {
    let start = jiter.clone();
    match jiter.known_number(peek) {
        Ok(NumberAny::Int(NumberInt::Int(n))) => Ok(Ok(Value::BigInt(n))),
        Ok(NumberAny::Int(_)) => Ok(Err(NotAnEvent::IntegerTooLarge)),
        Ok(NumberAny::Float(f)) if f.is_finite() => Ok(Ok(Value::Float(f))),
        Ok(NumberAny::Float(_)) => Ok(Err(NotAnEvent::FloatTooLarge)),
        // thousands of digits: the number itself is well-formed, so what follows it can still be read
        Err(error) => {
            let mut again = start;
            if again.known_skip(peek).is_ok() {
                *jiter = again;
                return Ok(Err(NotAnEvent::IntegerTooLarge));
            }
            Err(error)
        }
    }
}

/// A record in which the last of several fields of one name wins.
#[derive(Debug, Default)]
pub(super) struct RecordBuilder {
    fields: Vec<(SmolStr, Value)>,
    index: Option<rustc_hash::FxHashMap<SmolStr, usize>>,
}

impl RecordBuilder {
    pub(super) fn set(&mut self, name: SmolStr, value: Value) {
        if self.index.is_none() && self.fields.len() >= SCAN_FIELDS_MAX {
            self.index = Some(self.fields.iter().enumerate().map(|(i, (n, _))| (n.clone(), i)).collect());
        }
        let at = match &self.index {
            Some(index) => index.get(&name).copied(),
            None => self.fields.iter().position(|(n, _)| *n == name),
        };
        match at.and_then(|i| self.fields.get_mut(i)) {
            Some((_, old)) => *old = value,
            None => {
                if let Some(index) = &mut self.index {
                    index.insert(name.clone(), self.fields.len());
                }
                self.fields.push((name, value));
            }
        }
    }

    pub(super) fn finish(self) -> Record {
        Record::from_unique(self.fields)
    }
}

//! SQL values to component values and back.
//!
//! In: a [`Value`] and the [`Wit`] type asked for, or what a guest gave. Out: a `Val`, or a `Value`. Invariant: nothing
//! is wrapped, cut off or guessed: what does not convert exactly is a [`Mismatch`] (a float gets the nearest value of
//! its width). Not here: strict NULLs and `result` at the top of a function (`host`).

use std::fmt;

use smol_str::SmolStr;
use wasmtime::component::Val;

use super::json;
use super::wit::{DATETIME_FIELD, Field, JSON_FIELD, Name, VariantCase, Wit};
use crate::query::builtins::cast;
use crate::query::catalog::folded;
use crate::time::Timestamp;
use crate::value::{Record, Type, Value};

/// Longest piece of a value that a message shows, in characters: enough to recognise it, never a whole payload.
const SHOWN_CHARS: usize = 40;

/// A value that does not fit a type: where, what came and what was wanted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub struct Mismatch {
    /// the way from the argument inwards: `.zone`, `[3]`
    path: String,
    text: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.text) } else { write!(f, "{}: {}", self.path, self.text) }
    }
}

impl Mismatch {
    fn new(text: impl Into<String>) -> Mismatch {
        Mismatch { path: String::new(), text: text.into() }
    }

    fn wanted(value: &Value, wanted: &str) -> Mismatch {
        let hint = match (value.kind(), wanted) {
            (Some(Type::Text), "bigint" | "float" | "bit") => "; convert it with CAST",
            (Some(Type::Bit), "bigint" | "float") | (Some(Type::BigInt | Type::Float), "bit") => {
                "; convert it with CAST"
            }
            _ => "",
        };
        Mismatch::new(format!("{} is no {wanted}{hint}", shown(value)))
    }

    fn inside(mut self, step: impl fmt::Display) -> Mismatch {
        self.path = format!("{step}{}", self.path);
        self
    }
}

/// A value for a message: its type, and its text cut to a length that a log line bears.
fn shown(value: &Value) -> String {
    let Some(kind) = value.kind() else { return "NULL".to_owned() };
    let text = value.to_json();
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{kind} {}…", text.get(..end).unwrap_or_default()),
        None => format!("{kind} {text}"),
    }
}

/// Allocation of one text argument that is kept for the next call.
const TEXT_BYTES_KEPT: usize = 4 << 10;

/// As [`lower`], into the place of an earlier call's argument: a text goes into the allocation of the last one.
///
/// # Errors
/// As [`lower`].
pub fn lower_into(val: &mut Val, ty: &Wit, value: &Value) -> Result<(), Mismatch> {
    match (ty, val, value) {
        (Wit::String, Val::String(room), Value::Text(text)) if room.capacity() <= TEXT_BYTES_KEPT => {
            room.clear();
            room.push_str(text);
        }
        (ty, val, value) => *val = lower(ty, value)?,
    }
    Ok(())
}

/// The component value for an argument or a part of one.
///
/// # Errors
/// The value does not convert: another type, out of range, a missing field, a wrong length.
pub fn lower(ty: &Wit, value: &Value) -> Result<Val, Mismatch> {
    Ok(match ty {
        Wit::Bool => match value {
            Value::Bit(b) => Val::Bool(*b),
            _ => return Err(Mismatch::wanted(value, "bit")),
        },
        Wit::S8 => Val::S8(integer(ty, value)?),
        Wit::U8 => Val::U8(integer(ty, value)?),
        Wit::S16 => Val::S16(integer(ty, value)?),
        Wit::U16 => Val::U16(integer(ty, value)?),
        Wit::S32 => Val::S32(integer(ty, value)?),
        Wit::U32 => Val::U32(integer(ty, value)?),
        Wit::S64 => Val::S64(integer(ty, value)?),
        Wit::U64 => Val::U64(integer(ty, value)?),
        Wit::F64 => Val::Float64(float(value)?),
        Wit::F32 => Val::Float32(narrow(float(value)?)?),
        Wit::String => Val::String(text(value)?.into()),
        Wit::Char => Val::Char(character(value)?),
        Wit::Enum(names) => {
            let text = text(value)?;
            Val::Enum(pick(names, &text).ok_or_else(|| not_one_of(value, names))?.wit.clone())
        }
        Wit::DateTime => {
            let at = datetime(value).ok_or_else(|| Mismatch::wanted(value, "datetime"))?;
            Val::Record(vec![(DATETIME_FIELD.to_owned(), Val::S64(at.ticks()))])
        }
        Wit::Json => Val::Record(vec![(JSON_FIELD.to_owned(), Val::String(value.to_json()))]),
        Wit::Option(inner) => match value {
            Value::Null => Val::Option(None),
            _ => Val::Option(Some(Box::new(lower(inner, value)?))),
        },
        Wit::List(item) => {
            let items = array(value)?;
            Val::List(
                items
                    .iter()
                    .enumerate()
                    .map(|(i, v)| lower(item, v).map_err(|e| e.inside(format_args!("[{i}]"))))
                    .collect::<Result<_, _>>()?,
            )
        }
        Wit::Tuple(types) => {
            let items = array(value)?;
            if items.len() != types.len() {
                return Err(Mismatch::new(format!("an array of {} where {} are taken", items.len(), types.len())));
            }
            let each = types.iter().zip(items).enumerate();
            Val::Tuple(
                each.map(|(i, (ty, v))| lower(ty, v).map_err(|e| e.inside(format_args!("[{i}]"))))
                    .collect::<Result<_, _>>()?,
            )
        }
        Wit::Record(fields) => lower_record(fields, value)?,
        Wit::Flags(names) => lower_flags(names, value)?,
        Wit::Variant(cases) => lower_variant(cases, value)?,
        Wit::Result(ok, err) => lower_result(ok.as_deref(), err.as_deref(), value)?,
    })
}

fn integer<T: TryFrom<i64>>(ty: &Wit, value: &Value) -> Result<T, Mismatch> {
    let whole = match value {
        Value::BigInt(n) => *n,
        // only what is a bigint already, exactly: 5.0 is, 5.8 is not; the upper bound is 2^63, which is none
        Value::Float(f)
            if f.fract() == 0.0 && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(f) =>
        {
            *f as i64
        }
        _ => return Err(Mismatch::wanted(value, "bigint")),
    };
    T::try_from(whole).map_err(|_| {
        let (min, max) = ty.integer_range().unwrap_or((i64::MIN, i64::MAX));
        Mismatch::new(format!("{whole} is outside {ty}, {min} to {max}"))
    })
}

fn float(value: &Value) -> Result<f64, Mismatch> {
    match value {
        Value::Float(f) => Ok(*f),
        Value::BigInt(n) => Ok(*n as f64),
        _ => Err(Mismatch::wanted(value, "float")),
    }
}

fn narrow(f: f64) -> Result<f32, Mismatch> {
    let narrow = f as f32;
    if narrow.is_infinite() && f.is_finite() { Err(Mismatch::new(format!("{f:?} is outside f32"))) } else { Ok(narrow) }
}

/// Text as CAST makes it from a number, a bit or a datetime; records and arrays stay what they are.
fn text(value: &Value) -> Result<SmolStr, Mismatch> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        Value::Null | Value::Record(_) | Value::Array(_) => Err(Mismatch::wanted(value, "nvarchar(max)")),
        _ => match cast(value, Type::Text) {
            Ok(Value::Text(text)) => Ok(text),
            _ => Err(Mismatch::wanted(value, "nvarchar(max)")),
        },
    }
}

fn character(value: &Value) -> Result<char, Mismatch> {
    let text = text(value)?;
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) => Ok(c),
        _ => Err(Mismatch::wanted(value, "single character")),
    }
}

fn datetime(value: &Value) -> Option<Timestamp> {
    match value {
        Value::DateTime(at) => Some(*at),
        Value::Text(text) => Timestamp::parse(text),
        _ => None,
    }
}

fn array(value: &Value) -> Result<&[Value], Mismatch> {
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(Mismatch::wanted(value, "array")),
    }
}

fn record(value: &Value) -> Result<&Record, Mismatch> {
    match value {
        Value::Record(record) => Ok(record),
        _ => Err(Mismatch::wanted(value, "record")),
    }
}

/// The field a guest means by a name: as a query finds it, else the only one of the same folded form.
fn field<'a>(record: &'a Record, name: &Name) -> Option<&'a Value> {
    if let Some(value) = record.find(&name.sql) {
        return Some(value);
    }
    let mut alike = record.iter().filter(|(n, _)| folded(n) == name.folded);
    match (alike.next(), alike.next()) {
        (Some((_, value)), None) => Some(value),
        _ => None,
    }
}

fn lower_record(fields: &[Field], value: &Value) -> Result<Val, Mismatch> {
    let record = record(value)?;
    let lowered = fields.iter().map(|f| {
        let value = match field(record, &f.name) {
            Some(value) => value,
            None if matches!(f.ty, Wit::Option(_)) => &Value::Null,
            None => return Err(Mismatch::new(format!("the record has no field `{}`", f.name.sql))),
        };
        let val = lower(&f.ty, value).map_err(|e| e.inside(format_args!(".{}", f.name.sql)))?;
        Ok((f.name.wit.clone(), val))
    });
    Ok(Val::Record(lowered.collect::<Result<_, _>>()?))
}

fn lower_flags(names: &[Name], value: &Value) -> Result<Val, Mismatch> {
    let record = record(value)?;
    let mut set = Vec::new();
    for name in names {
        match field(record, name) {
            None | Some(Value::Null | Value::Bit(false)) => {}
            Some(Value::Bit(true)) => set.push(name.wit.clone()),
            Some(other) => return Err(Mismatch::wanted(other, "bit").inside(format_args!(".{}", name.sql))),
        }
    }
    Ok(Val::Flags(set))
}

/// A record with one field, the case's name; a case without a payload also as its name alone.
fn lower_variant(cases: &[VariantCase], value: &Value) -> Result<Val, Mismatch> {
    let find = |name: &str| {
        cases.iter().find(|c| c.name.sql == name).or_else(|| cases.iter().find(|c| c.name.folded == folded(name)))
    };
    let unknown = || not_one_of_names(value, cases.iter().map(|c| &c.name));
    if let Value::Text(name) = value {
        let case = find(name).filter(|c| c.ty.is_none()).ok_or_else(unknown)?;
        return Ok(Val::Variant(case.name.wit.clone(), None));
    }
    let record = record(value)?;
    let (Some((name, payload)), 1) = (record.iter().next(), record.len()) else { return Err(unknown()) };
    let case = find(name).ok_or_else(unknown)?;
    let payload = case.ty.as_ref().map(|ty| lower(ty, payload).map(Box::new)).transpose();
    Ok(Val::Variant(case.name.wit.clone(), payload.map_err(|e| e.inside(format_args!(".{name}")))?))
}

fn lower_result(ok: Option<&Wit>, err: Option<&Wit>, value: &Value) -> Result<Val, Mismatch> {
    let record = record(value)?;
    let arm = |ty: Option<&Wit>, v: &Value| ty.map(|ty| lower(ty, v).map(Box::new)).transpose();
    match (record.get("ok"), record.get("err"), record.len()) {
        (Some(v), None, 1) => Ok(Val::Result(Ok(arm(ok, v).map_err(|e| e.inside(".ok"))?))),
        (None, Some(v), 1) => Ok(Val::Result(Err(arm(err, v).map_err(|e| e.inside(".err"))?))),
        _ => Err(Mismatch::new(format!("{} is no record with one field, `ok` or `err`", shown(value)))),
    }
}

fn pick<'a>(names: &'a [Name], text: &str) -> Option<&'a Name> {
    names.iter().find(|n| n.wit == text).or_else(|| names.iter().find(|n| n.folded == folded(text)))
}

fn not_one_of(value: &Value, names: &[Name]) -> Mismatch {
    not_one_of_names(value, names.iter())
}

fn not_one_of_names<'a>(value: &Value, names: impl Iterator<Item = &'a Name>) -> Mismatch {
    let names: Vec<&str> = names.map(|n| n.wit.as_str()).collect();
    Mismatch::new(format!("{} is none of {}", shown(value), names.join(", ")))
}

/// The SQL value for what a guest gave.
///
/// # Errors
/// A `u64` past bigint, a datetime outside years 1 to 9999, text of a `json` record that is no JSON.
pub fn lift(ty: &Wit, val: Val) -> Result<Value, Mismatch> {
    Ok(match (ty, val) {
        (_, Val::Bool(b)) => Value::Bit(b),
        (_, Val::S8(n)) => Value::BigInt(n.into()),
        (_, Val::U8(n)) => Value::BigInt(n.into()),
        (_, Val::S16(n)) => Value::BigInt(n.into()),
        (_, Val::U16(n)) => Value::BigInt(n.into()),
        (_, Val::S32(n)) => Value::BigInt(n.into()),
        (_, Val::U32(n)) => Value::BigInt(n.into()),
        (_, Val::S64(n)) => Value::BigInt(n),
        (_, Val::U64(n)) => {
            Value::BigInt(i64::try_from(n).map_err(|_| Mismatch::new(format!("{n} is past the largest bigint")))?)
        }
        (_, Val::Float32(f)) => Value::Float(f.into()),
        (_, Val::Float64(f)) => Value::Float(f),
        (_, Val::Char(c)) => Value::Text(SmolStr::from_iter([c])),
        (_, Val::String(text)) => Value::Text(text.into()),
        (_, Val::Enum(name)) => Value::Text(name.into()),
        (Wit::Option(inner), Val::Option(value)) => value.map_or(Ok(Value::Null), |value| lift(inner, *value))?,
        (Wit::List(item), Val::List(vals)) => {
            let items =
                vals.into_iter().enumerate().map(|(i, v)| lift(item, v).map_err(|e| e.inside(format_args!("[{i}]"))));
            Value::array(items.collect::<Result<_, _>>()?)
        }
        (Wit::Tuple(types), Val::Tuple(vals)) => {
            let each = types.iter().zip(vals).enumerate();
            Value::array(
                each.map(|(i, (ty, v))| lift(ty, v).map_err(|e| e.inside(format_args!("[{i}]"))))
                    .collect::<Result<_, _>>()?,
            )
        }
        (Wit::DateTime, Val::Record(fields)) => {
            let Some((_, Val::S64(ticks))) = fields.into_iter().next() else { return Err(unexpected(ty)) };
            Value::DateTime(
                Timestamp::from_ticks(ticks)
                    .ok_or_else(|| Mismatch::new(format!("{ticks} ticks are outside years 1 to 9999")))?,
            )
        }
        (Wit::Json, Val::Record(fields)) => {
            let Some((_, Val::String(text))) = fields.into_iter().next() else { return Err(unexpected(ty)) };
            json::parse(&text).map_err(|e| Mismatch::new(format!("the text of the json record is no JSON: {e}")))?
        }
        (Wit::Record(types), Val::Record(vals)) => {
            let fields = types.iter().zip(vals).map(|(field, (_, v))| {
                let value = lift(&field.ty, v).map_err(|e| e.inside(format_args!(".{}", field.name.sql)))?;
                Ok((field.name.sql.clone(), value))
            });
            Value::record(Record::from_unique(fields.collect::<Result<_, _>>()?))
        }
        (Wit::Flags(names), Val::Flags(set)) => {
            let bits = names.iter().map(|n| (n.sql.clone(), Value::Bit(set.contains(&n.wit))));
            Value::record(Record::from_unique(bits.collect()))
        }
        (Wit::Variant(cases), Val::Variant(name, payload)) => {
            let case = cases.iter().find(|c| c.name.wit == name).ok_or_else(|| unexpected(ty))?;
            one_field(case.name.sql.clone(), lift_arm(case.ty.as_ref(), payload)?)
        }
        (Wit::Result(ok, err), Val::Result(value)) => match value {
            Ok(value) => one_field(SmolStr::new_static("ok"), lift_arm(ok.as_deref(), value)?),
            Err(value) => one_field(SmolStr::new_static("err"), lift_arm(err.as_deref(), value)?),
        },
        _ => return Err(unexpected(ty)),
    })
}

/// The payload of a case, NULL for a case without one.
pub fn lift_arm(ty: Option<&Wit>, payload: Option<Box<Val>>) -> Result<Value, Mismatch> {
    match (ty, payload) {
        (Some(ty), Some(val)) => lift(ty, *val),
        _ => Ok(Value::Null),
    }
}

fn one_field(name: SmolStr, value: Value) -> Value {
    Value::record(Record::from_unique(vec![(name, value)]))
}

/// wasmtime checks results against the type that `Wit` was read from, so this says that the host is wrong, not the
/// guest.
fn unexpected(ty: &Wit) -> Mismatch {
    Mismatch::new(format!("a value of another type than {ty}"))
}

#[cfg(test)]
mod tests;

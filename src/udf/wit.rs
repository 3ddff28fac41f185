//! The types of a component's functions.
//!
//! In: wasmtime's reflection over a component. Out: [`Wit`], an owned tree that knows both sides: the WIT text and the
//! SQL [`Shape`]. Invariant: a `Wit` holds only types that values can be made for, so converting never meets a handle.
//! Not here: converting values (`convert`), finding the exports (`component`).

use std::fmt;

use smol_str::SmolStr;
use wasmtime::component::Type;
use wasmtime::component::types::ComponentFunc;

use crate::query::catalog::{Param, Shape, Signature, folded};

/// The one field by which `record datetime { ticks-since-year-one: s64 }` is recognised (reflection shows no names).
pub const DATETIME_FIELD: &str = "ticks-since-year-one";
/// The one field by which `record json { json-text: string }` is recognised.
pub const JSON_FIELD: &str = "json-text";

/// A type of the component model that has an SQL side.
#[derive(Clone, Debug, PartialEq)]
pub enum Wit {
    Bool,
    S8,
    U8,
    S16,
    U16,
    S32,
    U32,
    S64,
    U64,
    F32,
    F64,
    Char,
    String,
    /// `record { ticks-since-year-one: s64 }`
    DateTime,
    /// `record { json-text: string }`
    Json,
    List(Box<Wit>),
    Tuple(Vec<Wit>),
    Record(Vec<Field>),
    Enum(Vec<Name>),
    Flags(Vec<Name>),
    Variant(Vec<VariantCase>),
    Option(Box<Wit>),
    /// A variant of `ok` and `err`; as the result of a function, `err` is the row's error.
    Result(Option<Box<Wit>>, Option<Box<Wit>>),
}

/// A name of a field, case or flag in the forms it is needed in.
#[derive(Clone, Debug, PartialEq)]
pub struct Name {
    /// as the guest writes it: `pickup-hour`
    pub wit: String,
    /// as rows carry it: `pickup_hour`, which a query can write without brackets
    pub sql: SmolStr,
    /// as it is compared: `pickuphour`
    pub folded: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub name: Name,
    pub ty: Wit,
}

#[derive(Clone, Debug, PartialEq)]
pub struct VariantCase {
    pub name: Name,
    pub ty: Option<Wit>,
}

/// What an exported function takes and gives.
#[derive(Clone, Debug, PartialEq)]
pub struct FuncType {
    pub params: Vec<Field>,
    pub result: Option<Wit>,
}

/// A type that no SQL value can be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} has no SQL value")]
pub struct NoSqlValue {
    /// such as `a resource`
    pub what: &'static str,
}

impl Name {
    pub fn new(wit: &str) -> Name {
        Name { wit: wit.to_owned(), sql: SmolStr::new(wit.replace('-', "_")), folded: folded(wit) }
    }
}

impl FuncType {
    /// Reads a function's type.
    ///
    /// # Errors
    /// The first resource, stream, future or other handle in it, and an `async` function.
    pub fn read(func: &ComponentFunc) -> Result<FuncType, NoSqlValue> {
        if func.async_() {
            return Err(NoSqlValue { what: "an async function" });
        }
        let params = func
            .params()
            .map(|(name, ty)| Ok(Field { name: Name::new(name), ty: Wit::read(&ty)? }))
            .collect::<Result<_, _>>()?;
        let result = func.results().next().map(|ty| Wit::read(&ty)).transpose()?;
        Ok(FuncType { params, result })
    }

    /// The signature as the query's catalog holds it; `name` is the export's.
    pub fn signature(&self, name: &str) -> Signature {
        let params = self.params.iter().map(|p| Param { name: p.name.wit.clone(), shape: p.ty.shape() }).collect();
        let result = match &self.result {
            None => Shape::Unit,
            Some(Wit::Result(ok, _)) => ok.as_ref().map_or(Shape::Unit, |ok| ok.shape()),
            Some(ty) => ty.shape(),
        };
        Signature { params, rest: None, result, text: format!("{name}: {self}") }
    }
}

impl Wit {
    /// Reads a type.
    ///
    /// # Errors
    /// It is, or holds, something that no SQL value can be.
    pub fn read(ty: &Type) -> Result<Wit, NoSqlValue> {
        let boxed = |ty: Type| Wit::read(&ty).map(Box::new);
        Ok(match ty {
            Type::Bool => Wit::Bool,
            Type::S8 => Wit::S8,
            Type::U8 => Wit::U8,
            Type::S16 => Wit::S16,
            Type::U16 => Wit::U16,
            Type::S32 => Wit::S32,
            Type::U32 => Wit::U32,
            Type::S64 => Wit::S64,
            Type::U64 => Wit::U64,
            Type::Float32 => Wit::F32,
            Type::Float64 => Wit::F64,
            Type::Char => Wit::Char,
            Type::String => Wit::String,
            Type::List(list) => Wit::List(boxed(list.ty())?),
            Type::Tuple(tuple) => Wit::Tuple(tuple.types().map(|ty| Wit::read(&ty)).collect::<Result<_, _>>()?),
            Type::Record(record) => {
                let fields = record.fields().map(|f| Ok(Field { name: Name::new(f.name), ty: Wit::read(&f.ty)? }));
                Wit::of_record(fields.collect::<Result<_, _>>()?)
            }
            Type::Enum(names) => Wit::Enum(names.names().map(Name::new).collect()),
            Type::Flags(names) => Wit::Flags(names.names().map(Name::new).collect()),
            Type::Variant(variant) => {
                let cases = variant.cases().map(|c| {
                    Ok(VariantCase { name: Name::new(c.name), ty: c.ty.as_ref().map(Wit::read).transpose()? })
                });
                Wit::Variant(cases.collect::<Result<_, _>>()?)
            }
            Type::Option(option) => Wit::Option(boxed(option.ty())?),
            Type::Result(result) => {
                Wit::Result(result.ok().map(boxed).transpose()?, result.err().map(boxed).transpose()?)
            }
            Type::Own(_) | Type::Borrow(_) => return Err(NoSqlValue { what: "a resource" }),
            Type::Stream(_) => return Err(NoSqlValue { what: "a stream" }),
            Type::Future(_) => return Err(NoSqlValue { what: "a future" }),
            Type::ErrorContext => return Err(NoSqlValue { what: "an error-context" }),
            Type::Map(_) => return Err(NoSqlValue { what: "a map" }),
            Type::FixedLengthList(_) => return Err(NoSqlValue { what: "a list of fixed length" }),
        })
    }

    fn of_record(fields: Vec<Field>) -> Wit {
        match fields.as_slice() {
            [Field { name, ty: Wit::S64 }] if name.wit == DATETIME_FIELD => Wit::DateTime,
            [Field { name, ty: Wit::String }] if name.wit == JSON_FIELD => Wit::Json,
            _ => Wit::Record(fields),
        }
    }

    /// The range of an integer type as bigints; `None` for others. `u64` ends where bigint ends.
    pub fn integer_range(&self) -> Option<(i64, i64)> {
        Some(match self {
            Wit::S8 => (i8::MIN.into(), i8::MAX.into()),
            Wit::U8 => (0, u8::MAX.into()),
            Wit::S16 => (i16::MIN.into(), i16::MAX.into()),
            Wit::U16 => (0, u16::MAX.into()),
            Wit::S32 => (i32::MIN.into(), i32::MAX.into()),
            Wit::U32 => (0, u32::MAX.into()),
            Wit::S64 => (i64::MIN, i64::MAX),
            Wit::U64 => (0, i64::MAX),
            _ => return None,
        })
    }

    /// The SQL side.
    pub fn shape(&self) -> Shape {
        if let Some((min, max)) = self.integer_range() {
            return Shape::Integer { min, max };
        }
        let names = |names: &[Name]| names.iter().map(|n| n.wit.clone()).collect();
        match self {
            Wit::Bool => Shape::Bit,
            Wit::F32 | Wit::F64 => Shape::Float,
            Wit::DateTime => Shape::DateTime,
            Wit::Json => Shape::Any,
            Wit::List(item) => Shape::List(Box::new(item.shape())),
            Wit::Tuple(items) => Shape::Tuple(items.iter().map(Wit::shape).collect()),
            Wit::Record(fields) => Shape::Record(fields.iter().map(|f| (f.name.wit.clone(), f.ty.shape())).collect()),
            Wit::Enum(cases) => Shape::Enum(names(cases)),
            Wit::Flags(flags) => Shape::Flags(names(flags)),
            Wit::Variant(cases) => {
                Shape::Variant(cases.iter().map(|c| (c.name.wit.clone(), c.ty.as_ref().map(Wit::shape))).collect())
            }
            Wit::Option(inner) => Shape::Option(Box::new(inner.shape())),
            Wit::Result(ok, err) => Shape::Variant(
                [("ok", ok), ("err", err)]
                    .into_iter()
                    .map(|(n, ty)| (n.to_owned(), ty.as_ref().map(|ty| ty.shape())))
                    .collect(),
            ),
            _ => Shape::Text,
        }
    }
}

/// WIT text: `func(a: s64) -> string`.
impl fmt::Display for FuncType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("func(")?;
        separated(f, &self.params, |f, p| write!(f, "{}: {}", p.name.wit, p.ty))?;
        f.write_str(")")?;
        match &self.result {
            Some(ty) => write!(f, " -> {ty}"),
            None => Ok(()),
        }
    }
}

/// WIT text. Named types are written out, since reflection keeps no names of types; the two known by shape keep theirs.
impl fmt::Display for Wit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = match self {
            Wit::Bool => "bool",
            Wit::S8 => "s8",
            Wit::U8 => "u8",
            Wit::S16 => "s16",
            Wit::U16 => "u16",
            Wit::S32 => "s32",
            Wit::U32 => "u32",
            Wit::S64 => "s64",
            Wit::U64 => "u64",
            Wit::F32 => "f32",
            Wit::F64 => "f64",
            Wit::Char => "char",
            Wit::String => "string",
            Wit::DateTime => "datetime",
            Wit::Json => "json",
            Wit::List(item) => return write!(f, "list<{item}>"),
            Wit::Option(inner) => return write!(f, "option<{inner}>"),
            Wit::Tuple(items) => return wrapped(f, "tuple<", items, ">", |f, ty| write!(f, "{ty}")),
            Wit::Record(fields) => {
                return wrapped(f, "record { ", fields, " }", |f, x| write!(f, "{}: {}", x.name.wit, x.ty));
            }
            Wit::Enum(names) => return wrapped(f, "enum { ", names, " }", |f, n| f.write_str(&n.wit)),
            Wit::Flags(names) => return wrapped(f, "flags { ", names, " }", |f, n| f.write_str(&n.wit)),
            Wit::Variant(cases) => {
                return wrapped(f, "variant { ", cases, " }", |f, c| match &c.ty {
                    Some(ty) => write!(f, "{}({ty})", c.name.wit),
                    None => f.write_str(&c.name.wit),
                });
            }
            Wit::Result(ok, err) => {
                return match (ok, err) {
                    (None, None) => f.write_str("result"),
                    (Some(ok), None) => write!(f, "result<{ok}>"),
                    (None, Some(err)) => write!(f, "result<_, {err}>"),
                    (Some(ok), Some(err)) => write!(f, "result<{ok}, {err}>"),
                };
            }
        };
        f.write_str(plain)
    }
}

type WriteItem<T> = fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result;

fn wrapped<T>(f: &mut fmt::Formatter<'_>, open: &str, items: &[T], close: &str, item: WriteItem<T>) -> fmt::Result {
    f.write_str(open)?;
    separated(f, items, item)?;
    f.write_str(close)
}

fn separated<T>(f: &mut fmt::Formatter<'_>, items: &[T], item: WriteItem<T>) -> fmt::Result {
    items.iter().enumerate().try_for_each(|(i, x)| {
        if i > 0 {
            f.write_str(", ")?;
        }
        item(f, x)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_a_type_are_written() {
        let field = |name: &str, ty| Field { name: Name::new(name), ty };
        let ty = FuncType {
            params: vec![
                field("a", Wit::Option(Box::new(Wit::S32))),
                field(
                    "row",
                    Wit::Record(vec![field("pickup-hour", Wit::U64), field("kind", Wit::Enum(vec![Name::new("x-y")]))]),
                ),
            ],
            result: Some(Wit::Result(
                Some(Box::new(Wit::Tuple(vec![Wit::String, Wit::DateTime]))),
                Some(Box::new(Wit::String)),
            )),
        };
        let signature = ty.signature("f-g");
        assert_eq!(
            signature.text,
            "f-g: func(a: option<s32>, row: record { pickup-hour: u64, kind: enum { x-y } }) -> result<tuple<string, \
            datetime>, string>"
        );
        assert_eq!(signature.result.to_string(), "array (nvarchar(max), datetime)");
        assert_eq!(
            signature.params[1].shape.to_string(),
            "record (pickup-hour bigint, kind nvarchar(max), one of x-y)"
        );
    }

    #[test]
    fn a_record_of_other_shape_is_no_datetime() {
        let one = |name: &str, ty| Wit::of_record(vec![Field { name: Name::new(name), ty }]);
        assert_eq!(one(DATETIME_FIELD, Wit::S64), Wit::DateTime);
        assert_eq!(one(JSON_FIELD, Wit::String), Wit::Json);
        assert!(matches!(one(DATETIME_FIELD, Wit::S32), Wit::Record(_)));
        assert!(matches!(one("ticks", Wit::S64), Wit::Record(_)));
    }
}

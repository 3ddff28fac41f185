//! What a query may refer to: inputs, outputs, functions and their signatures.
//!
//! In: the job file and the components' own types, put together by the pipeline or by a command. Out: plain data for
//! `resolve`. Invariant: names are unique ignoring case. Not here: how a function is called.

use std::fmt;

use crate::value::Type;

/// Everything a query can name.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    pub inputs: Vec<InputDef>,
    /// `None`: any output name is accepted (as in `forebay eval`).
    pub outputs: Option<Vec<String>>,
    pub functions: Vec<FunctionDef>,
}

#[derive(Clone, Debug)]
pub struct InputDef {
    pub name: String,
    pub kind: InputKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    Stream,
    Reference,
}

/// A user function, called as `udf.name(…)`; an aggregate as `uda.name(…)`.
#[derive(Clone, Debug)]
pub struct FunctionDef {
    /// The name in the job file. A query finds it in any case style: `createArray`, `create_array`, `CREATEARRAY`.
    pub name: String,
    pub kind: FunctionKind,
}

#[derive(Clone, Debug)]
pub enum FunctionKind {
    /// Runs in the executor, on the row. `index` is what the engine hands to `udf::Host::call`.
    /// `keeps_state`: what it gives for a row depends on the rows it was called for before.
    Local { index: usize, signature: Signature, keeps_state: bool },
    /// An aggregate: a resource that rows go into. Its signature has the parameters of `accumulate` and the result of
    /// `compute`; where it takes the time, a call may leave out the last parameter.
    Aggregate { index: usize, signature: Signature, offers: Offers },
    /// An endpoint: the plan is cut at the call. It takes one argument.
    External,
    /// One that did not load, which is told elsewhere: it takes anything, so that the rest of the query can be checked.
    /// A plan made with one gives NULL for it and is not run.
    Unknown,
}

/// What an aggregate's resource has beside `accumulate` and `compute`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// rows can leave, the oldest first
    pub deaccumulate: bool,
    /// the rows of another one can enter, which are later
    pub merge: bool,
    /// it can be stored in place of its rows: `save` and `restore`
    pub save: bool,
    /// the last parameter of `accumulate` is a datetime: the row's event time, unless the call gives a value for it
    pub time: bool,
}

/// What a function takes and gives, read from its component.
#[derive(Clone, Debug, PartialEq)]
pub struct Signature {
    pub params: Vec<Param>,
    /// what each further argument is, for a function that takes any number of them
    pub rest: Option<Shape>,
    pub result: Shape,
    /// The WIT text, for messages: `create-array: func(vendorid: string) -> tuple<string>`.
    pub text: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    pub name: String,
    pub shape: Shape,
}

/// The type of a parameter or a result, as SQL sees it. Source: the type table of the design's section on functions.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// `record json { json-text: string }`: any value, as JSON text
    Any,
    Bit,
    /// s8 … u64, with the range that values are checked against (u64 is capped at the bigint maximum)
    Integer {
        min: i64,
        max: i64,
    },
    Float,
    Text,
    /// `record datetime { ticks-since-year-one: s64 }`
    DateTime,
    List(Box<Shape>),
    Tuple(Vec<Shape>),
    /// field names in the guest's kebab case
    Record(Vec<(String, Shape)>),
    /// a parameter that takes NULL, a result that may be NULL
    Option(Box<Shape>),
    /// one of these texts
    Enum(Vec<String>),
    /// a record of bits
    Flags(Vec<String>),
    /// a record with one field, the case's name
    Variant(Vec<(String, Option<Shape>)>),
    /// no result: NULL
    Unit,
}

impl Shape {
    /// The SQL type of its values that are not NULL; `None`: it differs, or there are none.
    pub fn kind(&self) -> Option<Type> {
        match self {
            Shape::Any | Shape::Unit => None,
            Shape::Bit => Some(Type::Bit),
            Shape::Integer { .. } => Some(Type::BigInt),
            Shape::Float => Some(Type::Float),
            Shape::Text | Shape::Enum(_) => Some(Type::Text),
            Shape::DateTime => Some(Type::DateTime),
            Shape::List(_) | Shape::Tuple(_) => Some(Type::Array),
            Shape::Record(_) | Shape::Flags(_) | Shape::Variant(_) => Some(Type::Record),
            Shape::Option(inner) => inner.kind(),
        }
    }
}

impl fmt::Display for Shape {
    /// The SQL side of the shape: `bigint`, `array of float`, `record (a bigint, b nvarchar(max))`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, items: &[Shape]| {
            items.iter().enumerate().try_for_each(|(i, s)| if i > 0 { write!(f, ", {s}") } else { write!(f, "{s}") })
        };
        match self {
            Shape::Any => f.write_str("any"),
            Shape::Bit => f.write_str("bit"),
            Shape::Integer { .. } => f.write_str("bigint"),
            Shape::Float => f.write_str("float"),
            Shape::Text => f.write_str("nvarchar(max)"),
            Shape::DateTime => f.write_str("datetime"),
            Shape::List(item) => write!(f, "array of {item}"),
            Shape::Tuple(items) => {
                f.write_str("array (")?;
                list(f, items)?;
                f.write_str(")")
            }
            Shape::Record(fields) => {
                f.write_str("record (")?;
                for (i, (name, shape)) in fields.iter().enumerate() {
                    write!(f, "{}{name} {shape}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str(")")
            }
            Shape::Option(inner) => write!(f, "{inner} or NULL"),
            Shape::Enum(names) => write!(f, "nvarchar(max), one of {}", names.join(", ")),
            Shape::Flags(names) => write!(f, "record of bits ({})", names.join(", ")),
            Shape::Variant(cases) => {
                let names: Vec<&str> = cases.iter().map(|(name, _)| name.as_str()).collect();
                write!(f, "record with one of {}", names.join(", "))
            }
            Shape::Unit => f.write_str("NULL"),
        }
    }
}

impl Signature {
    /// The parameters and the result as a query sees them: `(x float, at datetime = System.Timestamp()) -> float`.
    pub fn sql(&self, offers: Option<Offers>) -> String {
        let param = |p: &Param| format!("{} {}", p.name.replace('-', "_"), p.shape);
        let mut params: Vec<String> = self.params.iter().map(param).collect();
        if let (Some(Offers { time: true, .. }), Some(last)) = (offers, params.last_mut()) {
            last.push_str(" = System.Timestamp()");
        }
        format!("({}) -> {}", params.join(", "), self.result)
    }
}

impl FunctionDef {
    /// What stands before its name in a query.
    pub fn prefix(&self) -> &'static str {
        if matches!(self.kind, FunctionKind::Aggregate { .. }) { "uda" } else { "udf" }
    }
}

/// The form in which names of functions and record fields are compared: letters and digits, lower case.
/// `create-array`, `create_array`, `createArray` and `CREATEARRAY` are one name.
pub fn folded(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

impl Catalog {
    /// The function a query means by `udf.name`, the aggregate it means by `uda.name`.
    pub fn function(&self, name: &str) -> Option<&FunctionDef> {
        let exact = self.functions.iter().find(|f| f.name == name);
        exact.or_else(|| self.functions.iter().find(|f| folded(&f.name) == folded(name)))
    }
}

//! What the targets share: a catalog with one of everything, and bytes as a source of choices.
//!
//! In: nothing. Out: [`catalog`], [`Choices`]. Invariant: equal bytes give equal choices, so that a found input is
//! found again. Not here: what must hold (each target says that).

use forebay::query::catalog::{Catalog, FunctionDef, FunctionKind, InputDef, InputKind, Param, Shape, Signature};

/// Streams `a` and `b`, a reference table `r`, functions of every shape.
pub fn catalog() -> Catalog {
    let input = |name: &str, kind| InputDef { name: name.to_owned(), kind };
    let inputs = vec![input("a", InputKind::Stream), input("b", InputKind::Stream), input("r", InputKind::Reference)];
    Catalog { inputs, outputs: None, functions: functions() }
}

fn functions() -> Vec<FunctionDef> {
    let narrow = Shape::Integer { min: -128, max: 127 };
    let optional = |shape| Shape::Option(Box::new(shape));
    let list = |shape| Shape::List(Box::new(shape));
    let record = Shape::Record(vec![("device-id".to_owned(), Shape::Text), ("at".to_owned(), optional(Shape::DateTime))]);
    let shapes = [
        ("any", vec![Shape::Any], Shape::Any),
        ("bit", vec![Shape::Bit], optional(Shape::Bit)),
        ("narrow", vec![narrow.clone()], narrow),
        ("half", vec![Shape::Float], Shape::Float),
        ("text", vec![Shape::Text, optional(Shape::Text)], Shape::Text),
        ("when", vec![Shape::DateTime], Shape::DateTime),
        ("createArray", vec![Shape::Text, Shape::Float, Shape::Bit], Shape::Tuple(vec![Shape::Text, Shape::Float, Shape::Bit])),
        ("mean", vec![list(optional(Shape::Float))], optional(Shape::Float)),
        ("frame", vec![record.clone()], list(record)),
        ("colour", vec![Shape::Enum(vec!["red".to_owned(), "green".to_owned()])], Shape::Flags(vec!["dark".to_owned()])),
        ("shape", vec![Shape::Variant(vec![("dot".to_owned(), None), ("line".to_owned(), Some(Shape::Float))])], Shape::Unit),
        ("nothing", vec![], Shape::Unit),
    ];
    let local = shapes.into_iter().enumerate().map(|(index, (name, params, result))| {
        let param = |(i, shape)| Param { name: format!("p{i}"), shape };
        let params: Vec<Param> = params.into_iter().enumerate().map(param).collect();
        let signature = Signature { params, rest: None, result, text: format!("{name}: func(…)") };
        FunctionDef { name: name.to_owned(), kind: FunctionKind::Local { index, signature, keeps_state: index == 0 } }
    });
    let others = [("score", FunctionKind::External), ("later", FunctionKind::Unknown)];
    local.chain(others.map(|(name, kind)| FunctionDef { name: name.to_owned(), kind })).collect()
}

/// Bytes read one after another; behind their end all are 0.
#[derive(Debug)]
pub struct Choices<'a> {
    bytes: &'a [u8],
}

impl<'a> Choices<'a> {
    pub fn new(bytes: &'a [u8]) -> Choices<'a> {
        Choices { bytes }
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        *first
    }

    /// One of the first `n` whole numbers.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    pub fn of<'t, T>(&mut self, items: &'t [T]) -> &'t T {
        &items[self.below(items.len())]
    }

    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(n.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

//! `[functions.NAME]`: components and endpoints that a query calls as `udf.NAME(…)`.
//!
//! In: a section. Out: [`Function`]. Invariant: its settings are checked. Not here: the keys of any kind of function.

use super::{Backlog, OnError};
use crate::diagnostic::Span;
use crate::score::{DIALECTS, ReadDialect, ScoreConfig};
use crate::settings::{Secret, Section, one_of};
use crate::udf::WasmConfig;

#[derive(Clone, Debug)]
pub struct Function {
    pub name: String,
    /// `None`: the job's.
    pub on_error: Option<OnError>,
    pub kind: FunctionKind,
    /// What becomes of rows that wait too long for it.
    pub backlog: Backlog,
    /// Its name in the job file.
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum FunctionKind {
    /// An export of a WebAssembly component or core module.
    Wasm(Box<WasmConfig>),
    /// A scoring endpoint.
    Endpoint(Box<ScoreConfig>),
}

#[derive(Clone, Copy)]
enum Type {
    Wasm,
    Endpoint(ReadDialect),
}

pub(super) fn read(mut section: Section) -> Option<Function> {
    let dialects = DIALECTS.iter().map(|(word, read)| (*word, Type::Endpoint(*read)));
    let types: Vec<_> = [("wasm", Type::Wasm)].into_iter().chain(dialects).collect();
    let kind = match section.kind(&types, &one_of(&types))? {
        Type::Wasm => WasmConfig::read(&mut section).map(|wasm| FunctionKind::Wasm(Box::new(wasm))),
        Type::Endpoint(read) => read(&mut section).map(|endpoint| FunctionKind::Endpoint(Box::new(endpoint))),
    };
    let backlog = match &kind {
        Some(FunctionKind::Endpoint(_)) => Backlog::read(&mut section),
        _ => Backlog::default(),
    };
    let on_error = section.optional_choice("on_error", super::ON_ERROR);
    let (name, span) = (section.name(), section.span.unwrap_or_default());
    section.finish();
    Some(Function { name, on_error, kind: kind?, backlog, span })
}

impl Function {
    pub fn secrets(&self) -> Vec<&Secret> {
        match &self.kind {
            FunctionKind::Wasm(wasm) => wasm.secrets(),
            FunctionKind::Endpoint(endpoint) => endpoint.secrets(),
        }
    }
}

//! `[functions.NAME]`: components and endpoints that a query calls as `udf.NAME(…)`.
//!
//! In: a section. Out: [`FunctionSection`]. Invariant: its settings are checked. Not here: the keys of any kind of
//! function.

use super::{BacklogSettings, OnError};
use crate::diagnostic::Span;
use crate::score::{DIALECTS, ReadDialect, ScoreConfig};
use crate::settings::{Secret, Section, one_of};
use crate::udf::WasmConfig;

#[derive(Clone, Debug)]
pub struct FunctionSection {
    pub name: String,
    /// `None`: the job's.
    pub on_error: Option<OnError>,
    pub kind: FunctionSettings,
    /// What becomes of rows that wait too long for it.
    pub backlog: BacklogSettings,
    /// Its name in the job file.
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum FunctionSettings {
    /// An export of a WebAssembly component or core module.
    Wasm(Box<WasmConfig>),
    /// A scoring endpoint.
    Endpoint(Box<ScoreConfig>),
}

#[derive(Clone, Copy)]
enum FunctionType {
    Wasm,
    Endpoint(ReadDialect),
}

pub(super) fn read(mut section: Section) -> Option<FunctionSection> {
    let dialects = DIALECTS.iter().map(|(word, read)| (*word, FunctionType::Endpoint(*read)));
    let types: Vec<_> = [("wasm", FunctionType::Wasm)].into_iter().chain(dialects).collect();
    let kind = match section.kind(&types, &one_of(&types))? {
        FunctionType::Wasm => WasmConfig::read(&mut section).map(|wasm| FunctionSettings::Wasm(Box::new(wasm))),
        FunctionType::Endpoint(read) => {
            read(&mut section).map(|endpoint| FunctionSettings::Endpoint(Box::new(endpoint)))
        }
    };
    let backlog = match &kind {
        Some(FunctionSettings::Endpoint(_)) => BacklogSettings::read(&mut section),
        _ => BacklogSettings::default(),
    };
    let on_error = section.optional_choice("on_error", super::ON_ERROR);
    let (name, span) = (section.name(), section.span.unwrap_or_default());
    section.finish();
    Some(FunctionSection { name, on_error, kind: kind?, backlog, span })
}

impl FunctionSection {
    pub fn secrets(&self) -> Vec<&Secret> {
        match &self.kind {
            FunctionSettings::Wasm(wasm) => wasm.secrets(),
            FunctionSettings::Endpoint(endpoint) => endpoint.secrets(),
        }
    }
}

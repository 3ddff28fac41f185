//! `[inputs.NAME]`: where events come from.
//!
//! In: a section. Out: [`Input`]. Invariant: streams have a source and a format, tables neither. Not here: the keys of
//! any kind of source, format or table.

use std::path::PathBuf;
use std::sync::Arc;

use crate::decode::Payloads;
use crate::diagnostic::Span;
use crate::reference::{self, ReferenceInput};
use crate::settings::{Secret, Section};
use crate::source::{self, SOURCES, SourceSettings};

#[derive(Clone, Debug)]
pub struct Input {
    pub name: String,
    pub kind: InputKind,
    /// Its name in the job file.
    pub span: Span,
}

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a job has a handful of inputs")]
pub enum InputKind {
    Stream(StreamInput),
    File(FileInput),
    Reference(ReferenceInput),
}

/// Messages that a source brings.
#[derive(Clone, Debug)]
pub struct StreamInput {
    pub source: Arc<dyn SourceSettings>,
    pub payloads: Payloads,
}

/// A finite file, read once.
#[derive(Clone, Debug)]
pub struct FileInput {
    pub path: PathBuf,
    pub payloads: Payloads,
}

#[derive(Clone, Copy)]
enum Type {
    Source(source::Read),
    File,
    Reference,
}

pub(super) fn read(mut section: Section) -> Option<Input> {
    let sources = SOURCES.iter().map(|(word, read)| (*word, Type::Source(*read)));
    let types: Vec<_> = sources.chain([("file", Type::File), ("reference", Type::Reference)]).collect();
    let help = "write `type = \"mqtt\"`, or `type = \"reference\"` for a table to join with";
    let kind = match section.kind(&types, help)? {
        Type::Source(read) => {
            let source = read(&mut section);
            let payloads = Payloads::read(&mut section);
            source.zip(payloads).map(|(source, payloads)| InputKind::Stream(StreamInput { source, payloads }))
        }
        Type::File => {
            let path =
                section.required_file("path", "write `path = \"rides.jsonl\"`; the path is relative to the job file");
            let payloads = Payloads::read(&mut section);
            path.zip(payloads).map(|(path, payloads)| InputKind::File(FileInput { path, payloads }))
        }
        Type::Reference => reference::read(&mut section).map(InputKind::Reference),
    };
    let (name, span) = (section.name(), section.span.unwrap_or_default());
    section.finish();
    Some(Input { name, kind: kind?, span })
}

impl Input {
    pub fn secrets(&self) -> Vec<&Secret> {
        match &self.kind {
            InputKind::Stream(stream) => stream.source.secrets(),
            InputKind::File(_) => Vec::new(),
            InputKind::Reference(reference) => reference.secrets(),
        }
    }
}

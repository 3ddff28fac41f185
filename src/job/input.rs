//! `[inputs.NAME]`: where events come from.
//!
//! In: a section. Out: [`InputSection`]. Invariant: streams have a source and a format, tables neither. Not here: the
//! keys of any kind of source, format or table.

use std::path::PathBuf;
use std::sync::Arc;

use crate::decode::Payloads;
use crate::diagnostic::Span;
use crate::reference::{self, ReferenceInput};
use crate::settings::{Secret, Section};
use crate::source::{self, SOURCES, SourceSettings};

#[derive(Clone, Debug)]
pub struct InputSection {
    pub name: String,
    pub kind: InputSettings,
    /// Its name in the job file.
    pub span: Span,
}

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a job has a handful of inputs")]
pub enum InputSettings {
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
enum InputType {
    Source(source::ReadSource),
    File,
    Reference,
}

pub(super) fn read(mut section: Section) -> Option<InputSection> {
    let sources = SOURCES.iter().map(|(word, read)| (*word, InputType::Source(*read)));
    let types: Vec<_> = sources.chain([("file", InputType::File), ("reference", InputType::Reference)]).collect();
    let help = "write `type = \"mqtt\"`, or `type = \"reference\"` for a table to join with";
    let kind = match section.kind(&types, help)? {
        InputType::Source(read) => {
            let source = read(&mut section);
            let payloads = Payloads::read(&mut section);
            source.zip(payloads).map(|(source, payloads)| InputSettings::Stream(StreamInput { source, payloads }))
        }
        InputType::File => {
            let path =
                section.required_file("path", "write `path = \"rides.jsonl\"`; the path is relative to the job file");
            let payloads = Payloads::read(&mut section);
            path.zip(payloads).map(|(path, payloads)| InputSettings::File(FileInput { path, payloads }))
        }
        InputType::Reference => reference::read(&mut section).map(InputSettings::Reference),
    };
    let (name, span) = (section.name(), section.span.unwrap_or_default());
    section.finish();
    Some(InputSection { name, kind: kind?, span })
}

impl InputSection {
    pub fn secrets(&self) -> Vec<&Secret> {
        match &self.kind {
            InputSettings::Stream(stream) => stream.source.secrets(),
            InputSettings::File(_) => Vec::new(),
            InputSettings::Reference(reference) => reference.secrets(),
        }
    }
}

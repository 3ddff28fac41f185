//! `[outputs.NAME]`: where rows go.
//!
//! In: a section. Out: [`Output`]. Invariant: its settings are checked. Not here: the keys of any kind of output.

use std::sync::Arc;

use crate::diagnostic::Span;
use crate::output::{OUTPUTS, OutputSettings};
use crate::settings::{Secret, Section, one_of};

#[derive(Clone, Debug)]
pub struct Output {
    pub name: String,
    pub settings: Arc<dyn OutputSettings>,
    /// Its name in the job file.
    pub span: Span,
}

pub(super) fn read(mut section: Section) -> Option<Output> {
    let settings = section.kind(OUTPUTS, &one_of(OUTPUTS))?(&mut section);
    let (name, span) = (section.name(), section.span.unwrap_or_default());
    section.finish();
    Some(Output { name, settings: settings?, span })
}

impl Output {
    pub fn secrets(&self) -> Vec<&Secret> {
        self.settings.secrets()
    }
}

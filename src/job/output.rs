//! `[outputs.NAME]`: where rows go.
//!
//! In: a section. Out: [`Output`]. Invariant: its settings are checked. Not here: the keys of any kind of output.

use std::sync::Arc;

use super::Backlog;
use crate::diagnostic::Span;
use crate::output::{OUTPUTS, OutputSettings};
use crate::settings::{Secret, Section, one_of};

#[derive(Clone, Debug)]
pub struct Output {
    pub name: String,
    pub settings: Arc<dyn OutputSettings>,
    /// What becomes of rows that wait too long for it.
    pub backlog: Backlog,
    /// Its name in the job file.
    pub span: Span,
}

pub(super) fn read(mut section: Section) -> Option<Output> {
    let settings = section.kind(OUTPUTS, &one_of(OUTPUTS))?(&mut section);
    let backlog = Backlog::read(&mut section);
    let (name, span) = (section.name(), section.span.unwrap_or_default());
    section.finish();
    Some(Output { name, settings: settings?, backlog, span })
}

impl Output {
    pub fn secrets(&self) -> Vec<&Secret> {
        self.settings.secrets()
    }
}

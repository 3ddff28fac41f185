//! `[outputs.NAME]`: where rows go.
//!
//! In: a section. Out: [`OutputSection`]. Invariant: its settings are checked. Not here: the keys of any kind of
//! output.

use std::sync::Arc;

use super::BacklogSettings;
use crate::diagnostic::Span;
use crate::output::{OUTPUTS, OutputSettings};
use crate::settings::{Secret, Section, one_of};

#[derive(Clone, Debug)]
pub struct OutputSection {
    pub name: String,
    pub settings: Arc<dyn OutputSettings>,
    /// What becomes of rows that wait too long for it.
    pub backlog: BacklogSettings,
    /// Its name in the job file.
    pub span: Span,
}

pub(super) fn read(mut section: Section) -> Option<OutputSection> {
    let settings = section.kind(OUTPUTS, &one_of(OUTPUTS))?(&mut section);
    let backlog = BacklogSettings::read(&mut section);
    let (name, span) = (section.name(), section.span.unwrap_or_default());
    section.finish();
    Some(OutputSection { name, settings: settings?, backlog, span })
}

impl OutputSection {
    pub fn secrets(&self) -> Vec<&Secret> {
        self.settings.secrets()
    }
}

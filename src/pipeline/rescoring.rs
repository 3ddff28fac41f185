//! The parts of a statement that stand beside a call with a fallback.
//!
//! In: a part that calls an endpoint. Out: what answers in its place, and the part that gives the endpoint the rows so
//! answered when it is back. Invariant: a correction goes the way of the row that it corrects, into the same stream and
//! with the same id. Not here: what both do (`local_answers`, `consumer`, `scoring`), what is refused (`fallbacks`).

use smol_str::SmolStr;

use super::PipelineError;
use super::fallbacks;
use super::flow::{engine, state_damaged};
use super::local_answers::{Aside, LocalAnswers, columns_of};
use super::mark::Mark;
use super::registered::Registered;
use super::statement::{StatementBuild, Thread};
use crate::journal::{ConsumerId, JournalError, StateEntry, StreamId};
use crate::output::ScorerNames;
use crate::query::plan::{Node, Part, Statement};

impl StatementBuild<'_> {
    /// What answers in place of the endpoint that a part calls.
    pub(super) fn local(
        &self,
        name: &SmolStr,
        statement: &Statement,
        part: &Part,
    ) -> Result<Option<LocalAnswers>, PipelineError> {
        let Some(external) = &part.external else { return Ok(None) };
        let Some(fallback) = self.scorer(external)?.fallback() else { return Ok(None) };
        let index = fallbacks::place_of(&self.prepared.bindings, &self.prepared.catalog, fallback);
        let index = index.ok_or_else(|| PipelineError::Function {
            name: external.function.clone(),
            reason: format!("the job has no function {}", fallback.shown()),
        })?;
        let width = part.root.width();
        let rescore = match fallback.rescore {
            true => Some(Aside {
                stream: self.journal.stream(&again(name))?,
                columns: columns_of(&statement.fingerprint, width),
            }),
            false => None,
        };
        let (function, options) = ((fallback.function.as_str(), index), self.prepared.options.clone());
        let local =
            LocalAnswers::new(external, function, width, rescore, options, self.functions()?, self.tables(part));
        Ok(Some(local.map_err(|e| engine(name, &e))?))
    }

    /// Makes the part that gives the endpoint the rows that were answered in its place, where the job wants that.
    /// `into`: where their answers went.
    pub(super) fn rescoring(
        &self,
        name: &SmolStr,
        statement: &Statement,
        part: &Part,
        into: StreamId,
        consumers: &mut Vec<Registered>,
        jobs: &mut Vec<Thread>,
    ) -> Result<(), PipelineError> {
        let Some(external) = &part.external else { return Ok(()) };
        if !self.scorer(external)?.fallback().is_some_and(|fallback| fallback.rescore) {
            return Ok(());
        }
        let (name, width) = (again(name), part.root.width());
        let from = Some((self.journal.stream(&name)?, Mark::default()));
        let columns = Some(columns_of(&statement.fingerprint, width));
        let part = Part { root: Node::Rows { width }, substream: None, ..part.clone() };
        let made = self.part(&name, statement, &part, from, (into, Mark::default()), columns, consumers, jobs);
        self.health.or_stopped(&name, made)
    }

    /// The state that a part had at its last commit.
    pub(super) fn stored_state(&self, name: &SmolStr, part: ConsumerId) -> Result<Vec<StateEntry>, PipelineError> {
        self.journal.load_state(part).map_err(|error| match error {
            JournalError::State { reason, .. } => state_damaged(name, &reason),
            other => other.into(),
        })
    }

    /// How outputs name who scores the rows of a statement: of several calls with a fallback, the last.
    pub(super) fn scorer_names(&self, statement: &Statement) -> Option<ScorerNames> {
        statement.parts.iter().rev().filter_map(|part| part.external.as_ref()).find_map(|external| {
            let scorer = self.scorer(external).ok()?;
            let fallback = SmolStr::new(scorer.fallback()?.shown());
            Some(ScorerNames { endpoint: SmolStr::new(scorer.name()), fallback })
        })
    }
}

/// The name of the part that scores rows of another once more.
fn again(name: &SmolStr) -> SmolStr {
    SmolStr::new(format!("{name}/rescore"))
}

//! What a replay needs of the running job.
//!
//! In: the parts of the plan, and what they were built with. Out: a [`ReplayPlan`], which owns all of it. Invariant:
//! parts and statements have the names that the job itself gave them. Not here: replaying.

use std::sync::Arc;

use smol_str::SmolStr;

use super::super::PipelineError;
use super::super::called::CalledRows;
use super::super::names::{named, sent_columns};
use super::super::outputs::OutputHandle;
use super::super::prepare;
use super::super::statement::StatementBuild;
use crate::batch::Column;
use crate::decode::Payloads;
use crate::engine::{ExecutorOptions, OnError};
use crate::job::InputSettings;
use crate::journal::{InputId, StreamId};
use crate::output::ScorerNames;
use crate::query::plan::{Node, Part};
use crate::reference::Reference;
use crate::score::Scorer;
use crate::udf::Versions;

/// See the module.
#[derive(Debug)]
pub struct ReplayPlan {
    pub inputs: Vec<ReplayInput>,
    pub parts: Vec<ReplayPart>,
    pub outputs: Vec<OutputHandle>,
    /// No statement stops at a row that is replayed.
    pub options: ExecutorOptions,
    /// `None` where the job has no functions.
    pub versions: Option<Versions>,
    pub references: Vec<Reference>,
    pub query_version: SmolStr,
}

#[derive(Debug)]
pub struct ReplayInput {
    pub name: SmolStr,
    pub id: InputId,
    pub payloads: Payloads,
}

/// A part of a statement.
#[derive(Debug)]
pub struct ReplayPart {
    pub name: SmolStr,
    pub statement: SmolStr,
    pub part: Part,
    /// Digest of the statement's text.
    pub text: SmolStr,
    pub call: Option<ReplayCall>,
    /// Where its rows go; `None`: straight to the output.
    pub into: Option<StreamId>,
    pub output: SmolStr,
    pub scorers: Option<ScorerNames>,
    /// A part behind it keeps state.
    pub feeds_state: bool,
}

/// The call of an endpoint.
#[derive(Debug)]
pub struct ReplayCall {
    pub scorer: Scorer,
    pub on_error: OnError,
    /// Of the rows as they are sent.
    pub columns: Arc<[Column]>,
    pub called: CalledRows,
}

/// What becomes of a row that fails again.
pub fn gentle(on_error: OnError) -> OnError {
    match on_error {
        OnError::Stop => OnError::DeadLetter,
        other => other,
    }
}

/// Whether operators need what came before: all that keep state but the one that puts events in order.
pub fn needs_past(root: &Node) -> bool {
    let of_node = |node: &Node| {
        matches!(node, Node::Aggregate { .. } | Node::Analytic { .. } | Node::Match { .. } | Node::Join { .. })
    };
    root.nodes().any(of_node) || root.calls_state()
}

impl ReplayPart {
    /// Why a row cannot go through the tail of the call again, if so.
    pub fn tail_trouble(&self) -> Option<&'static str> {
        let tail = &self.part.external.as_ref()?.tail;
        match (tail.calls_state(), tail.expands()) {
            (true, _) => Some("a function behind the call keeps state, which has gone on"),
            (_, true) => Some("the statement makes several rows of one behind the call, and their ids count them"),
            _ => None,
        }
    }
}

impl StatementBuild<'_> {
    /// What replays dead letters of this job.
    ///
    /// # Errors
    /// When the journal refuses.
    pub fn replay_plan(&self) -> Result<ReplayPlan, PipelineError> {
        let mut options = self.prepared.options.clone();
        options.on_error = gentle(options.on_error);
        options.functions_on_error.values_mut().for_each(|own| *own = gentle(*own));
        let mut inputs = Vec::new();
        for input in &self.job.inputs {
            if let InputSettings::Stream(stream) = &input.kind {
                let id = self.journal.input(&input.name)?;
                inputs.push(ReplayInput { name: SmolStr::new(&input.name), id, payloads: stream.payloads.clone() });
            }
        }
        let mut parts = Vec::new();
        for (name, statement) in named(&self.prepared.plan) {
            for (i, part) in statement.parts.iter().enumerate() {
                let is_last = i + 1 == statement.parts.len();
                let part_name = if i == 0 { name.clone() } else { SmolStr::new(format!("{name}/{}", i + 1)) };
                let is_direct = is_last && part.external.is_none() && !part.is_stateful();
                let call = match &part.external {
                    None => None,
                    Some(external) => Some(ReplayCall {
                        scorer: self.scorer(external)?.clone(),
                        on_error: gentle(self.on_error(external)),
                        columns: sent_columns(external),
                        called: CalledRows::of(external),
                    }),
                };
                parts.push(ReplayPart {
                    into: if is_direct { None } else { Some(self.journal.stream(&part_name)?) },
                    name: part_name,
                    statement: name.clone(),
                    part: part.clone(),
                    text: prepare::version(&statement.fingerprint),
                    call,
                    output: statement.output.clone(),
                    scorers: self.scorer_names(statement),
                    feeds_state: statement.parts.iter().skip(i + 1).any(Part::is_stateful),
                });
            }
        }
        Ok(ReplayPlan {
            inputs,
            parts,
            outputs: self.outputs.iter().map(|(handle, _)| handle.clone()).collect(),
            options,
            versions: (!self.prepared.bindings.is_empty()).then(|| self.versions.clone()),
            references: self.references.to_vec(),
            query_version: self.prepared.query_version.clone(),
        })
    }
}

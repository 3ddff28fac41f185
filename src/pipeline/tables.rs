//! Reference data and functions in an executor's hands.
//!
//! In: the job's tables. Out: an executor that joins with their present versions, and calls those of its functions.
//! Invariant: versions change only between commits, so what is committed together was joined with one version of each
//! table. Not here: loading (`reference`, `functions`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;

use super::stop::Stop;
use crate::engine::Executor;
use crate::reference::{Reference, Version};

/// How often a statement that waits for its first version looks.
const LOOK: Duration = Duration::from_millis(20);

/// The tables of a job, as one executor has them.
#[derive(Clone, Debug)]
pub struct Tables {
    all: Vec<(Reference, Option<Arc<Version>>)>,
    /// Those that its plan joins with: without them it would give wrong rows.
    needed: BTreeSet<SmolStr>,
}

impl Tables {
    pub fn new(all: &[Reference], needed: BTreeSet<SmolStr>) -> Tables {
        Tables { all: all.iter().map(|reference| (reference.clone(), None)).collect(), needed }
    }

    /// Waits until each table that the plan joins with has a version; `false` when the job stops first.
    pub fn wait(&self, stop: &Stop) -> bool {
        while !self.are_there() {
            if stop.sleep(LOOK) {
                return false;
            }
        }
        true
    }

    /// Whether each table that the plan joins with has a version.
    pub fn are_there(&self) -> bool {
        let is_needed = |(reference, _): &&(Reference, _)| self.needed.contains(reference.name());
        self.all.iter().filter(is_needed).all(|(reference, _)| reference.current().is_some())
    }

    /// Gives the executor the present versions. Only between commits.
    pub fn take_over(&mut self, executor: &mut Executor) {
        executor.take_versions();
        for (reference, taken) in &mut self.all {
            let Some(current) = reference.current() else { continue };
            if taken.as_ref().is_none_or(|taken| !Arc::ptr_eq(taken, &current)) {
                executor.set_reference(reference.name().clone(), current.rows.clone());
                *taken = Some(current);
            }
        }
    }
}

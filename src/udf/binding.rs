//! A function of the job, before anybody runs it.
//!
//! In: a component, an export and grants. Out: a [`FunctionBinding`]. Invariant: counts are shared by all hosts that
//! the binding is given to. Not here: instances (`host`).

use std::sync::Arc;

use super::UdfError;
use super::component::{Component, Export};
use super::grants::{Grant, Granted, Grants};
use super::stats::Stats;
use crate::query::catalog::{Offers, Signature};
use crate::time::Clock;

/// A function of the job: a name and an export.
#[derive(Clone, Debug)]
pub struct FunctionBinding {
    /// as the job file names it
    pub name: String,
    pub component: Arc<Component>,
    /// what [`Component::find`] answers
    pub export: usize,
    pub granted: Arc<Granted>,
    /// counts for all hosts that the binding is given to
    pub stats: Arc<Stats>,
}

impl FunctionBinding {
    /// One that is granted nothing.
    pub fn new(component: Arc<Component>, export: usize, name: impl Into<String>) -> FunctionBinding {
        let name = name.into();
        FunctionBinding {
            granted: Arc::new(Granted::new(&name, Grants::default(), Clock::Real)),
            name,
            component,
            export,
            stats: Arc::default(),
        }
    }

    /// The same with what the job grants it.
    pub fn granting(self, grants: Grants) -> FunctionBinding {
        self.granting_by(grants, Clock::Real)
    }

    /// The same with limits in time by another clock.
    pub fn granting_by(self, grants: Grants, clock: Clock) -> FunctionBinding {
        FunctionBinding { granted: Arc::new(Granted::new(&self.name, grants, clock)), ..self }
    }

    /// Whether rows depend on those before: then what calls it keeps state.
    pub fn keeps_state(&self) -> bool {
        self.component.needs().contains(&Grant::State) && self.granted.grants().state.is_some()
    }

    /// # Errors
    /// The component imports what the function was not granted, or anything that can be for an aggregate.
    pub fn check_grants(&self) -> Result<(), UdfError> {
        let grants = self.granted.grants();
        if self.aggregate().is_some() && !self.component.needs().is_empty() {
            let imports = self.component.imports().iter().filter(|name| Grant::of_import(name).is_some());
            let imports: Vec<&str> = imports.map(String::as_str).collect();
            let path = self.component.path().to_owned();
            return Err(UdfError::AggregateImports { path, imports: imports.join(", "), function: self.name.clone() });
        }
        let missing: Vec<Grant> = self.component.needs().into_iter().filter(|grant| !grants.has(*grant)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let imports =
            self.component.imports().iter().filter(|name| Grant::of_import(name).is_some_and(|g| missing.contains(&g)));
        let imports: Vec<&str> = imports.map(String::as_str).collect();
        Err(UdfError::NotGranted {
            path: self.component.path().to_owned(),
            imports: imports.join(", "),
            function: self.name.clone(),
            lines: grants.lines_for(&missing),
        })
    }

    /// What it offers as an aggregate; `None` for a function.
    pub fn aggregate(&self) -> Option<Offers> {
        self.component.exports().get(self.export).and_then(Export::aggregate)
    }

    /// The signature for the query's catalog; `None` when the export cannot be called.
    pub fn signature(&self) -> Option<&Signature> {
        self.component.signature(self.export)
    }
}

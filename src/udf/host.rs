//! The functions of a job, for one executor.
//!
//! In: a function's index and a row's arguments. Out: its value, or a row error that names it. Invariant: functions of
//! one component share an instance; whatever ends it, the next call finds a new one. Not here: which rows are asked for
//! (`engine`); threads, as a host belongs to one.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::aggregate::HostedAggregate;
use super::answer::cut;
use super::binding::FunctionBinding;
use super::breaker::Breaker;
use super::function::{Function, Housed, OnTrial};
use super::grants::StateRow;
use super::instance::Instance;
use super::stats::CallFailure;
use super::swap::{Trial, Versions};
use super::{UdfError, UserAggregate, UserFunctions};
use crate::query::builtins::RowError;
use crate::query::fault;
use crate::time::Timestamp;
use crate::value::Value;
use crate::value::codec::{ByteReader, Damaged, put_bytes};

/// In place of a room's number: an aggregate, which has an instance of its own.
const NO_ROOM: usize = usize::MAX;

/// Instances of the job's functions.
#[derive(Debug, Default)]
pub struct Host {
    functions: Vec<Function>,
    rooms: Vec<Housed>,
    aggregates: FxHashMap<usize, HostedAggregate>,
    /// where newer versions come from, and the number of those it has
    versions: Option<(Versions, u64)>,
}

impl Host {
    /// Makes an instance of each component, so that one that cannot start is found now. The index of a function is its
    /// place in `bindings`.
    ///
    /// # Errors
    /// A component does not start, or imports what its function was not granted; a binding names an export that cannot
    /// be called.
    pub fn new(bindings: &[FunctionBinding]) -> Result<Host, UdfError> {
        let mut host = Host::default();
        for binding in bindings {
            let component = &binding.component;
            binding.check_grants()?;
            if binding.signature().is_none() {
                let name = component.exports().get(binding.export).map_or_else(|| binding.name.clone(), |e| e.path());
                component.find(&name)?;
            }
            if binding.aggregate().is_some() {
                let aggregate = HostedAggregate::new(binding).map_err(|e| e.at_start(component))?;
                host.aggregates.insert(host.functions.len(), aggregate);
                // keeps the place in the order; nothing calls it
                host.functions.push(Function::new(binding, NO_ROOM));
                continue;
            }
            let known = host.rooms.iter().position(|room| Arc::ptr_eq(&room.component, component));
            let room = match known {
                Some(room) => room,
                None => {
                    let instance = Instance::new(component).map_err(|e| e.at_start(component))?;
                    binding.stats.count_instance();
                    host.rooms.push(Housed { component: Arc::clone(component), instance: Some(instance) });
                    host.rooms.len() - 1
                }
            };
            host.functions.push(Function::new(binding, room));
        }
        Ok(host)
    }

    /// The same for a job that may get newer versions of them while it runs; see [`UserFunctions::take_versions`].
    ///
    /// # Errors
    /// See [`Host::new`].
    pub fn following(versions: &Versions) -> Result<Host, UdfError> {
        // asked first: what changes in between is taken again
        let number = versions.number();
        let mut host = Host::new(&versions.bindings())?;
        for (&index, aggregate) in &mut host.aggregates {
            aggregate.follow(versions, index);
        }
        Ok(Host { versions: Some((versions.clone(), number)), ..host })
    }

    fn take_version(&mut self, index: usize, next: &FunctionBinding, trial: Option<Arc<Trial>>) {
        if let Some(aggregate) = self.aggregates.get_mut(&index) {
            if !Arc::ptr_eq(aggregate.component(), &next.component) {
                aggregate.install(next, trial);
            }
            return;
        }
        let room = room_of(&self.functions, index);
        if self.rooms.get(room).is_some_and(|room| Arc::ptr_eq(&room.component, &next.component)) {
            return;
        }
        let is_shared = self.functions.iter().filter(|other| other.room == room).count() > 1;
        let next_room = Housed { component: Arc::clone(&next.component), instance: None };
        let Some(function) = self.functions.get_mut(index) else {
            return fault::log(format!("udf.{} has a new version and no place to run it", next.name));
        };
        let old = match self.rooms.get_mut(function.room) {
            Some(room) if !is_shared => Some(std::mem::replace(room, next_room)),
            _ => {
                function.room = self.rooms.len();
                self.rooms.push(next_room);
                None
            }
        };
        function.trial = trial.map(|trial| {
            let former = Arc::clone(&trial.former.component);
            // the former version goes on in its instance, if it is the one that was in use here
            let room = old
                .filter(|room| Arc::ptr_eq(&room.component, &former))
                .unwrap_or(Housed { component: former, instance: None });
            Box::new(OnTrial { room, export: trial.former.export, trial })
        });
        function.export = next.export;
        function.breaker = Breaker::default();
    }
}

impl UserFunctions for Host {
    /// Calls a function with a row's arguments. NULL for a parameter that does not take it is NULL without a call.
    ///
    /// # Errors
    /// `udf_trap`, `udf_timeout`, `udf_memory`, `udf_result` (too large), `udf_error` (the guest said so),
    /// `udf_conversion`, `udf_state` (a limit of what it remembers), `udf_breaker` (paused after many traps),
    /// `too_deep` (its result nests); the message names the function and what to do.
    fn call(&mut self, index: usize, args: &[Value], at: Timestamp) -> Result<Value, RowError> {
        let Some(function) = self.functions.get_mut(index) else {
            return Err(RowError {
                reason: CallFailure::Error.reason(),
                message: format!("there is no function number {index}"),
            });
        };
        let Some(room) = self.rooms.get_mut(function.room) else {
            return Err(RowError {
                reason: CallFailure::Error.reason(),
                message: format!("udf.{}: its component is gone", function.name),
            });
        };
        let mut outcome = function.attempt(room, args, at);
        if function.trial.is_some()
            && let Some((versions, _)) = &self.versions
        {
            outcome = function.judge(versions, index, room, args, at, outcome);
        }
        outcome.map_err(|e| {
            function.stats.count_failure(e.failure);
            RowError { reason: e.failure.reason(), message: format!("udf.{}: {}", function.name, cut(&e.message)) }
        })
    }

    fn take_state(&mut self, out: &mut Vec<StateRow>) {
        for function in &mut self.functions {
            let Some(lent) = &mut function.lent else { continue };
            let of_function = |(key, value): StateRow| {
                let mut whole = Vec::with_capacity(function.folded.len() + key.len() + 2);
                put_bytes(&mut whole, function.folded.as_bytes());
                whole.extend_from_slice(&key);
                (whole, value)
            };
            out.extend(lent.take_state().into_iter().map(of_function));
        }
    }

    /// Rows of a function that is gone, or that may no longer remember, are passed over.
    fn load_state(&mut self, key: &[u8], value: &[u8]) -> Result<(), Damaged> {
        let mut reader = ByteReader::new(key);
        let name = reader.bytes()?;
        let mut head = Vec::new();
        put_bytes(&mut head, name);
        let rest = key.get(head.len()..).unwrap_or_default();
        let of_name = self.functions.iter_mut().find(|function| function.folded.as_bytes() == name);
        let is_fine =
            of_name.and_then(|function| function.lent.as_mut()).is_none_or(|lent| lent.load_state(rest, value));
        if is_fine { Ok(()) } else { Err(Damaged { at: head.len() }) }
    }

    fn set_reference(&mut self, name: &str, table: &Arc<Vec<Value>>) {
        self.functions
            .iter_mut()
            .filter_map(|function| function.lent.as_mut())
            .for_each(|lent| lent.set_table(name, table));
    }

    fn take_versions(&mut self) {
        let Some((versions, taken)) = &mut self.versions else { return };
        let number = versions.number();
        if std::mem::replace(taken, number) == number {
            return;
        }
        let present = versions.present();
        for (index, (next, trial)) in present.iter().enumerate() {
            self.take_version(index, next, trial.clone());
        }
    }

    fn state_bytes(&self) -> usize {
        self.functions.iter().filter_map(|function| function.lent.as_ref()).map(|lent| lent.state_bytes()).sum()
    }

    fn aggregate(&mut self, index: usize) -> Option<&mut dyn UserAggregate> {
        self.aggregates.get_mut(&index).map(|a| a as &mut dyn UserAggregate)
    }
}

fn room_of(functions: &[Function], index: usize) -> usize {
    functions.get(index).map_or(NO_ROOM, |function| function.room)
}

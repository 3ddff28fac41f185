//! The functions of a job, for one executor.
//!
//! In: a function's index and a row's arguments. Out: its value, or a row error that names it. Invariant: functions of
//! one component share an instance; whatever ends it, the next call finds a new one. Not here: which rows are asked for
//! (`engine`), threads: a host belongs to one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use wasmtime::component::Val;

use super::aggregate::Aggregate;
use super::breaker::Breaker;
use super::component::{Component, Export, Passing};
use super::convert;
use super::core_module::Reply;
use super::grants::{Grant, Granted, Grants, Lent, StateRow};
use super::instance::{CallError, Instance};
use super::stats::{CallFailure, Stats};
use super::swap::{Trial, Versions};
use super::wit::{FuncType, Wit};
use super::{UdfError, UserAggregate, UserFunctions, json};
use crate::query::builtins::RowError;
use crate::query::catalog::{Offers, Signature, folded};
use crate::time::Timestamp;
use crate::value::Value;
use crate::value::codec::{DEPTH_MAX, Damaged, Reader, put_bytes};

/// Longest message of a row error, in characters: it is stored with the dead letter and logged.
const MESSAGE_CHARS_MAX: usize = 500;

/// Allocation for argument texts that is kept from call to call; an array of a large window is rare.
const TEXT_BYTES_KEPT: usize = 64 << 10;
/// In place of a room's number: an aggregate, which has an instance of its own.
const NO_ROOM: usize = usize::MAX;

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
        FunctionBinding { granted: Arc::new(Granted::new(&name, Grants::default())), name, component, export, stats: Arc::default() }
    }

    /// The same with what the job grants it.
    pub fn granting(self, grants: Grants) -> FunctionBinding {
        FunctionBinding { granted: Arc::new(Granted::new(&self.name, grants)), ..self }
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
        let imports = self.component.imports().iter().filter(|name| Grant::of_import(name).is_some_and(|g| missing.contains(&g)));
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

/// Instances of the job's functions.
#[derive(Debug, Default)]
pub struct Host {
    functions: Vec<Function>,
    rooms: Vec<Room>,
    aggregates: FxHashMap<usize, Aggregate>,
    /// where newer versions come from, and the number of those it has
    versions: Option<(Versions, u64)>,
}

/// A component and its instance, when it has one.
struct Room {
    component: Arc<Component>,
    instance: Option<Instance>,
}

#[derive(Debug)]
struct Function {
    name: String,
    /// as its state rows are marked: however the job file spells it
    folded: String,
    room: usize,
    export: usize,
    stats: Arc<Stats>,
    breaker: Breaker,
    /// kept from call to call for its allocation
    params: Vec<Val>,
    /// the same for arguments as JSON text
    text: String,
    /// what it may use of its grants; `None` without any
    lent: Option<Box<Lent>>,
    /// its version is new
    trial: Option<Box<OnTrial>>,
    /// the last call got as far as the guest
    entered: bool,
}

/// What a function falls back on while its version is on trial.
#[derive(Debug)]
struct OnTrial {
    trial: Arc<Trial>,
    /// the former version
    room: Room,
    export: usize,
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
                let aggregate = Aggregate::new(binding).map_err(|e| e.at_start(component))?;
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
                    host.rooms.push(Room { component: Arc::clone(component), instance: Some(instance) });
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
        let Some(function) = self.functions.get_mut(index) else { return };
        let Some(room) = self.rooms.get(function.room) else { return };
        if Arc::ptr_eq(&room.component, &next.component) {
            return;
        }
        let is_shared = self.functions.iter().filter(|other| other.room == room_of(&self.functions, index)).count() > 1;
        let next_room = Room { component: Arc::clone(&next.component), instance: None };
        let Some(function) = self.functions.get_mut(index) else { return };
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
            let room = old.filter(|room| Arc::ptr_eq(&room.component, &former)).unwrap_or(Room { component: former, instance: None });
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
            return Err(RowError { reason: CallFailure::Error.reason(), message: format!("there is no function number {index}") });
        };
        let Some(room) = self.rooms.get_mut(function.room) else {
            return Err(RowError { reason: CallFailure::Error.reason(), message: format!("udf.{}: its component is gone", function.name) });
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
        let mut reader = Reader::new(key);
        let name = reader.bytes()?;
        let mut head = Vec::new();
        put_bytes(&mut head, name);
        let rest = key.get(head.len()..).unwrap_or_default();
        let of_name = self.functions.iter_mut().find(|function| function.folded.as_bytes() == name);
        let is_fine = of_name.and_then(|function| function.lent.as_mut()).is_none_or(|lent| lent.load_state(rest, value));
        if is_fine { Ok(()) } else { Err(Damaged { at: head.len() }) }
    }

    fn set_reference(&mut self, name: &str, table: &Arc<Vec<Value>>) {
        self.functions.iter_mut().filter_map(|function| function.lent.as_mut()).for_each(|lent| lent.set_table(name, table));
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

impl Function {
    fn new(binding: &FunctionBinding, room: usize) -> Function {
        // a newer version may make use of a grant that this one does not
        let has_grants = Grant::ALL.into_iter().any(|grant| binding.granted.grants().has(grant));
        Function {
            name: binding.name.clone(),
            folded: folded(&binding.name),
            room,
            export: binding.export,
            stats: Arc::clone(&binding.stats),
            breaker: Breaker::default(),
            params: Vec::new(),
            text: String::new(),
            lent: has_grants.then(|| Box::new(Lent::new(&binding.granted, &binding.stats))),
            trial: None,
            entered: false,
        }
    }

    /// Calls it with what it is lent; a call that fails leaves no trace in that.
    fn attempt(&mut self, room: &mut Room, args: &[Value], at: Timestamp) -> Result<Value, CallError> {
        self.entered = false;
        if let Some(lent) = &mut self.lent {
            lent.begin(at);
        }
        let outcome = self.call(room, args, at);
        if let Some(lent) = &mut self.lent {
            lent.end(outcome.is_ok());
        }
        outcome
    }

    /// What became of a call of a version on trial: where it faulted, the former version is asked. A row that is too
    /// much for both says nothing against the new one.
    fn judge(
        &mut self,
        versions: &Versions,
        index: usize,
        room: &mut Room,
        args: &[Value],
        at: Timestamp,
        outcome: Result<Value, CallError>,
    ) -> Result<Value, CallError> {
        let Some(mut former) = self.trial.take() else { return outcome };
        let fault = match &outcome {
            Err(e) if self.entered && e.failure.is_fault() => e,
            Ok(_) | Err(_) if self.entered && !matches!(&outcome, Err(e) if e.failure == CallFailure::State) => {
                versions.pass(index, &former.trial);
                return outcome;
            }
            // it says nothing about the version
            Ok(_) | Err(_) => {
                self.trial = Some(former);
                return outcome;
            }
        };
        if former.trial.is_passed() {
            return outcome;
        }
        std::mem::swap(&mut self.export, &mut former.export);
        let again = self.attempt(&mut former.room, args, at);
        let is_answered = !again.as_ref().is_err_and(|e| e.failure.is_fault() || e.failure == CallFailure::Breaker);
        if is_answered {
            versions.fault(index, &former.trial, &format!("udf.{}: {}", self.name, cut(&fault.message)));
        }
        if former.trial.is_put_back() {
            *room = former.room;
            self.breaker = Breaker::default();
        } else {
            std::mem::swap(&mut self.export, &mut former.export);
            self.trial = Some(former);
        }
        if is_answered { again } else { outcome }
    }

    fn call(&mut self, room: &mut Room, args: &[Value], at: Timestamp) -> Result<Value, CallError> {
        let Room { component, instance } = room;
        let Some(callable) = component.callable(self.export) else {
            return Err(conversion("is no function that a query can call".to_owned()));
        };
        let start = Instant::now();
        let value = match &callable.passing {
            Passing::Typed(ty) => {
                if args.len() > ty.params.len() {
                    return Err(conversion(format!("takes {} arguments, not {}", ty.params.len(), args.len())));
                }
                // arguments left out at the end are NULL
                let given = || args.iter().chain(std::iter::repeat(&Value::Null));
                if ty.params.iter().zip(given()).any(|(p, v)| v.is_null() && !matches!(p.ty, Wit::Option(_))) {
                    return Ok(Value::Null);
                }
                self.not_paused()?;
                self.call_typed(component, instance, ty, given(), at)
            }
            Passing::Json => {
                self.not_paused()?;
                self.call_json(component, instance, args, at)
            }
        };
        self.stats.count_call(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        value
    }

    fn not_paused(&self) -> Result<(), CallError> {
        let Some(left) = self.breaker.paused(monotonic) else { return Ok(()) };
        let seconds = left.as_secs() + 1;
        let message = format!("is paused for {seconds} s more, since it trapped on each of the last rows; see the errors before");
        Err(CallError { failure: CallFailure::Breaker, message })
    }

    fn call_typed<'a>(
        &mut self,
        component: &Component,
        room: &mut Option<Instance>,
        ty: &FuncType,
        args: impl Iterator<Item = &'a Value>,
        at: Timestamp,
    ) -> Result<Value, CallError> {
        let mut params = std::mem::take(&mut self.params);
        params.resize(ty.params.len(), Val::Bool(false));
        for (i, ((param, value), val)) in ty.params.iter().zip(args).zip(&mut params).enumerate() {
            convert::lower_into(val, &param.ty, value)
                .map_err(|e| conversion(format!("argument {} ({}: {}): {e}", i + 1, param.name.wit, param.ty)))?;
        }
        let (export, has_result) = (self.export, ty.result.is_some());
        let outcome = self.enter(component, room, |instance| run(instance, component, export, at, &params, has_result));
        self.params = params;
        result(ty.result.as_ref(), outcome?)
    }

    fn call_json(&mut self, component: &Component, room: &mut Option<Instance>, args: &[Value], at: Timestamp) -> Result<Value, CallError> {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        text.push('[');
        for (i, value) in args.iter().enumerate() {
            if i > 0 {
                text.push(',');
            }
            value.write_json(&mut text);
        }
        text.push(']');
        let export = self.export;
        let outcome = self.enter(component, room, |instance| instance.call_json(component, export, at, &text));
        text.shrink_to(TEXT_BYTES_KEPT);
        self.text = text;
        match outcome? {
            Reply::Null => Ok(Value::Null),
            Reply::Error(message) => Err(CallError { failure: CallFailure::Error, message }),
            Reply::Json(text) => {
                let held = json::held_bytes(&text);
                let max = component.limits().result_bytes_max;
                if held > max {
                    let message =
                        format!("gave a result that takes {held} bytes, more than its {max}; give less or raise its result limit");
                    return Err(CallError { failure: CallFailure::Result, message });
                }
                let value = json::parse(&text).map_err(|e| conversion(format!("its result is no JSON: {e}")))?;
                flat_enough(value)
            }
        }
    }

    /// Runs the guest and keeps the instance in order.
    fn enter<T>(
        &mut self,
        component: &Component,
        room: &mut Option<Instance>,
        run: impl FnOnce(&mut Instance) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        self.entered = true;
        // what the function is lent lies in the store for as long as the call takes
        let lent = &mut self.lent;
        let run = |instance: &mut Instance| {
            instance.swap_lent(lent);
            let called = run(instance);
            instance.swap_lent(lent);
            called
        };
        let called = match &mut *room {
            Some(instance) => run(instance),
            none => Instance::new(component).and_then(|instance| {
                self.stats.count_instance();
                run(none.insert(instance))
            }),
        };
        if let Some(instance) = room {
            self.stats.count_memory(instance.memory_bytes());
        }
        match &called {
            Ok(_) => self.breaker.fine(),
            Err(e) if e.failure.ends_instance() => {
                *room = None;
                if e.failure.is_fault()
                    && let Some(pause) = self.breaker.lost(monotonic)
                {
                    tracing::warn!(
                        function = self.name,
                        pause_s = pause.as_secs(),
                        reason = e.failure.reason(),
                        "function paused: {}",
                        e.message
                    );
                }
            }
            Err(_) => {}
        }
        if room.as_ref().is_some_and(Instance::is_worn) {
            *room = None;
        }
        called
    }
}

fn run(
    instance: &mut Instance,
    component: &Component,
    export: usize,
    at: Timestamp,
    params: &[Val],
    has_result: bool,
) -> Result<Option<Val>, CallError> {
    let mut results = [Val::Bool(false)];
    let places = if has_result { results.as_mut_slice() } else { &mut [] };
    let called = instance.call(component, export, at, params, places);
    let [val] = results;
    called.map(|()| has_result.then_some(val))
}

fn room_of(functions: &[Function], index: usize) -> usize {
    functions.get(index).map_or(NO_ROOM, |function| function.room)
}

/// The value of a result; `err` of a `result` is the row's error.
pub(super) fn result(ty: Option<&Wit>, val: Option<Val>) -> Result<Value, CallError> {
    let lifted = match (ty, val) {
        (Some(Wit::Result(ok, _)), Some(Val::Result(Ok(val)))) => convert::lift_arm(ok.as_deref(), val),
        (Some(Wit::Result(_, err)), Some(Val::Result(Err(val)))) => {
            let message = match convert::lift_arm(err.as_deref(), val) {
                Ok(Value::Null) => "answered err".to_owned(),
                Ok(Value::Text(text)) => text.into(),
                Ok(value) => value.to_json(),
                Err(e) => e.to_string(),
            };
            return Err(CallError { failure: CallFailure::Error, message });
        }
        (Some(ty), Some(val)) => convert::lift(ty, val),
        _ => Ok(Value::Null),
    };
    let value = lifted.map_err(|e| conversion(format!("its result does not convert: {e}")))?;
    flat_enough(value)
}

/// A result may become state, which could not be read back if it nests too deep.
fn flat_enough(value: Value) -> Result<Value, CallError> {
    if value.depth_exceeds(DEPTH_MAX) {
        let message = format!("its result nests deeper than {DEPTH_MAX} levels; give a flatter one, or text");
        return Err(CallError { failure: CallFailure::TooDeep, message });
    }
    Ok(value)
}

pub(super) fn conversion(message: String) -> CallError {
    CallError { failure: CallFailure::Conversion, message }
}

/// The start of a message: guests word theirs at any length.
pub(super) fn cut(message: &str) -> &str {
    message.char_indices().nth(MESSAGE_CHARS_MAX).and_then(|(end, _)| message.get(..end)).unwrap_or(message)
}

/// Time since the first call of this function: pauses are measured, never dated.
pub(super) fn monotonic() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").field("component", &self.component).field("instance", &self.instance.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_nests_no_deeper_than_stored_values() {
        let of = |levels: usize| {
            let text = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
            let val = Val::Record(vec![("json".to_owned(), Val::String(text))]);
            result(Some(&Wit::Result(Some(Box::new(Wit::Json)), None)), Some(Val::Result(Ok(Some(Box::new(val))))))
        };
        assert!(of(DEPTH_MAX).is_ok());
        let error = of(DEPTH_MAX + 1).unwrap_err();
        assert_eq!(error.failure.reason(), "too_deep");
        assert!(error.message.contains("deeper than 64 levels"), "{}", error.message);
    }
}

//! One function of a host, and a call of it.
//!
//! In: a row's arguments. Out: the value, or why there is none. Invariant: a call that fails leaves no trace in what
//! the function is lent, and an instance that a failure ended is not entered again. Not here: which function is asked
//! for (`host`), the form of results (`answer`).

use std::sync::Arc;

use wasmtime::component::Val;

use super::answer::{conversion, cut, flat_enough, result};
use super::binding::FunctionBinding;
use super::breaker::{Breaker, monotonic};
use super::component::{Component, Passing};
use super::core_module::JsonReply;
use super::grants::{Grant, Lent};
use super::instance::{CallError, Instance};
use super::stats::{CallFailure, Stats};
use super::swap::{Trial, Versions};
use super::wit::{FuncType, Wit};
use super::{convert, json};
use crate::query::catalog::folded;
use crate::time::{Clock, Timestamp};
use crate::value::Value;

/// Allocation for argument texts that is kept from call to call; an array of a large window is rare.
const TEXT_BYTES_KEPT: usize = 64 << 10;

/// A component and its instance, when it has one.
pub(super) struct Housed {
    pub component: Arc<Component>,
    pub instance: Option<Instance>,
}

#[derive(Debug)]
pub(super) struct Function {
    pub name: String,
    /// as its state rows are marked: however the job file spells it
    pub folded: String,
    pub room: usize,
    pub export: usize,
    pub stats: Arc<Stats>,
    pub breaker: Breaker,
    /// kept from call to call for its allocation
    params: Vec<Val>,
    /// the same for arguments as JSON text
    text: String,
    /// what it may use of its grants; `None` without any
    pub lent: Option<Box<Lent>>,
    /// its version is new
    pub trial: Option<Box<OnTrial>>,
    /// the last call got as far as the guest
    entered: bool,
}

/// What a function falls back on while its version is on trial.
#[derive(Debug)]
pub(super) struct OnTrial {
    pub trial: Arc<Trial>,
    /// the former version
    pub room: Housed,
    pub export: usize,
}

impl Function {
    pub(super) fn new(binding: &FunctionBinding, room: usize) -> Function {
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
    pub(super) fn attempt(&mut self, room: &mut Housed, args: &[Value], at: Timestamp) -> Result<Value, CallError> {
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
    pub(super) fn judge(
        &mut self,
        versions: &Versions,
        index: usize,
        room: &mut Housed,
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

    fn call(&mut self, room: &mut Housed, args: &[Value], at: Timestamp) -> Result<Value, CallError> {
        let Housed { component, instance } = room;
        let Some(callable) = component.callable(self.export) else {
            return Err(conversion("is no function that a query can call".to_owned()));
        };
        let start = Clock::Real.monotonic();
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
        self.stats.count_call(u64::try_from((Clock::Real.monotonic() - start).as_nanos()).unwrap_or(u64::MAX));
        value
    }

    fn not_paused(&self) -> Result<(), CallError> {
        let Some(left) = self.breaker.paused(monotonic) else { return Ok(()) };
        let seconds = left.as_secs() + 1;
        let message =
            format!("is paused for {seconds} s more, since it trapped on each of the last rows; see the errors before");
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

    fn call_json(
        &mut self,
        component: &Component,
        room: &mut Option<Instance>,
        args: &[Value],
        at: Timestamp,
    ) -> Result<Value, CallError> {
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
            JsonReply::Null => Ok(Value::Null),
            JsonReply::Error(message) => Err(CallError { failure: CallFailure::Error, message }),
            JsonReply::Json(text) => {
                let held = json::held_bytes(&text);
                let max = component.limits().result_bytes_max;
                if held > max {
                    let message = format!(
                        "gave a result that takes {held} bytes, more than its {max}; give less or raise its result \
                        limit"
                    );
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
                    let _of = super::logging(&self.name);
                    tracing::warn!(
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

impl std::fmt::Debug for Housed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Housed")
            .field("component", &self.component)
            .field("instance", &self.instance.is_some())
            .finish()
    }
}

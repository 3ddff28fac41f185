//! One store with one instance in it.
//!
//! In: a component and lowered arguments. Out: results, or why the call ended. Invariant: limits hold from the first
//! instruction of a start function on; after a call that lost the instance nothing is called in its store again
//! (wasmtime would refuse). Not here: when to make a new one (`host`), converting values (`convert`).

use std::time::Duration;

use wasmtime::component::{ComponentExportIndex, Func, Val};
use wasmtime::{AsContextMut, ResourceLimiter, Store, Trap, UpdateDeadline, WasmBacktrace};

use super::component::{Component, EntryPoint, Linked};
use super::core_module::{self, Broken, Exited, JsonReply, Wasi};
use super::cpu_time;
use super::engine::STACK_BYTES;
use super::grants::{Lent, Refusal};
use super::imports::NotGranted;
use super::stats::CallFailure;
use super::ticker::Ticker;
use super::{Limits, UdfError};
use crate::time::Timestamp;

/// Time for start functions and initialisers, when a call's own time is shorter: they run once an instance.
const START_TIMEOUT: Duration = Duration::from_secs(1);
/// Calls after which an instance is replaced, so that a guest that leaks, or keeps what it should not, starts afresh.
/// Making one costs 25 µs, so this is nothing a call.
pub const RECYCLE_CALLS: u32 = 10_000;
/// wasmtime's words when a result takes more than it may; it has no type for them.
const RESULT_TOO_LARGE: &str = "fuel allocated for hostcalls";
/// wasmtime's words before the limit of instances, tables or memories that a component does not keep to.
const OF_LIMITED_MANY: &str = "resource limit exceeded: ";

/// What a store holds of ours: the limits and what was used.
pub struct GuestState {
    limits: Limits,
    memory_bytes: usize,
    /// a growth was refused since the call began
    denied: bool,
    /// the time that the present call may take
    timeout: Duration,
    /// processor time of the thread when half of that had passed on the wall
    halfway: Option<Duration>,
    /// event time of the present row
    pub(super) at: Timestamp,
    /// what the stubs of a core module remember
    pub(super) wasi: Wasi,
    /// what the present call may use of its grants
    lent: Option<Box<Lent>>,
}

impl GuestState {
    fn new(limits: Limits) -> GuestState {
        GuestState {
            limits,
            memory_bytes: 0,
            denied: false,
            timeout: limits.timeout,
            halfway: None,
            at: Timestamp::MIN,
            wasi: Wasi::default(),
            lent: None,
        }
    }

    fn begin(&mut self, timeout: Duration, at: Timestamp) {
        (self.denied, self.timeout, self.halfway, self.at) = (false, timeout, None, at);
        self.wasi.begin();
    }

    pub(super) fn lent(&mut self) -> Option<&mut Lent> {
        self.lent.as_deref_mut()
    }

    /// Half of the time is measured on the wall, which costs nothing, the other half in processor time of the thread:
    /// on a machine with more to do than it can, a call may wait for long without having run for long.
    fn deadline(&mut self) -> Result<UpdateDeadline, wasmtime::Error> {
        let half = self.timeout / 2;
        let go_on = || Ok(UpdateDeadline::Continue(Ticker::ticks(half)));
        match (self.halfway, cpu_time::of_this_thread()) {
            (None, Some(now)) => {
                self.halfway = Some(now);
                go_on()
            }
            (Some(then), Some(now)) if now.saturating_sub(then) < half => go_on(),
            _ => Err(Trap::Interrupt.into()),
        }
    }
}

pub struct Instance {
    store: Store<GuestState>,
    functions: Callables,
    /// for members of resources; `None` in a core module
    instance: Option<wasmtime::component::Instance>,
    calls: u32,
    /// what a call gets before its deadline is looked at
    ticks: u64,
    /// memory right after the start
    start_bytes: usize,
}

enum Callables {
    /// by export of the component; `None` for those that no query can call
    Component(Vec<Option<Func>>),
    Core(core_module::CoreFunctions),
}

/// Why a call has no results.
#[derive(Debug)]
pub struct CallError {
    pub failure: CallFailure,
    pub message: String,
}

impl Instance {
    /// Makes an instance and runs its start functions.
    ///
    /// # Errors
    /// It does not fit the limits, or its start function traps.
    pub fn new(component: &Component) -> Result<Instance, CallError> {
        let limits = *component.limits();
        let mut store = Store::new(component.engine().wasm(), GuestState::new(limits));
        store.limiter(|state| state);
        store.set_hostcall_fuel(limits.result_bytes_max);
        store.epoch_deadline_callback(|mut store| store.data_mut().deadline());
        let timeout = limits.timeout.max(START_TIMEOUT);
        store.data_mut().begin(timeout, Timestamp::MIN);
        store.set_epoch_deadline(Ticker::ticks(timeout / 2));
        let _ticking = component.engine().ticking();
        let (functions, instance) =
            Callables::start(&mut store, component).map_err(|error| explain(store.data(), &error, timeout))?;
        let start_bytes = store.data().memory_bytes;
        Ok(Instance { store, functions, instance, calls: 0, ticks: Ticker::ticks(limits.timeout / 2), start_bytes })
    }

    /// Calls an export. `results` has as many places as it has results.
    ///
    /// # Errors
    /// It traps, runs too long, or gives too much: the instance is lost.
    pub fn call(
        &mut self,
        component: &Component,
        export: usize,
        at: Timestamp,
        params: &[Val],
        results: &mut [Val],
    ) -> Result<(), CallError> {
        self.enter(component, at, |store, functions| match functions {
            Callables::Component(funcs) => match funcs.get(export) {
                Some(Some(func)) => func.call(store.as_context_mut(), params, results),
                _ => Err(Broken::NoFunction.into()),
            },
            Callables::Core(functions) => functions.call_numbers(store, export, params, results),
        })
    }

    /// Calls a function of JSON with the text of its arguments.
    ///
    /// # Errors
    /// As [`Instance::call`], and it breaks the convention of core modules: the instance is lost.
    pub fn call_json(
        &mut self,
        component: &Component,
        export: usize,
        at: Timestamp,
        arguments: &str,
    ) -> Result<JsonReply, CallError> {
        let max = component.limits().result_bytes_max;
        self.enter(component, at, |store, functions| match functions {
            Callables::Core(functions) => functions.call_json(store, export, arguments, max),
            Callables::Component(_) => Err(Broken::NoFunction.into()),
        })
    }

    /// Lets the guest run, with the limits of one call.
    ///
    /// # Errors
    /// See [`Instance::call`].
    pub fn run<T>(
        &mut self,
        component: &Component,
        guest: impl FnOnce(&mut Store<GuestState>) -> wasmtime::Result<T>,
    ) -> Result<T, CallError> {
        self.enter(component, Timestamp::MIN, |store, _| guest(store))
    }

    /// Runs the guest inside its time.
    fn enter<T>(
        &mut self,
        component: &Component,
        at: Timestamp,
        run: impl FnOnce(&mut Store<GuestState>, &mut Callables) -> wasmtime::Result<T>,
    ) -> Result<T, CallError> {
        let timeout = component.limits().timeout;
        self.calls = self.calls.saturating_add(1);
        self.store.data_mut().begin(timeout, at);
        self.store.set_epoch_deadline(self.ticks);
        let _ticking = component.engine().ticking();
        run(&mut self.store, &mut self.functions).map_err(|error| explain(self.store.data(), &error, timeout))
    }

    /// An exported function of a component that is no export of its own, such as a method.
    pub fn find(&mut self, index: ComponentExportIndex) -> Option<Func> {
        self.instance?.get_func(&mut self.store, index)
    }

    pub fn store(&self) -> &Store<GuestState> {
        &self.store
    }

    /// Exchanges what the next call may use of its grants.
    pub fn swap_lent(&mut self, lent: &mut Option<Box<Lent>>) {
        std::mem::swap(&mut self.store.data_mut().lent, lent);
    }

    /// Linear memory held, all memories together.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().memory_bytes
    }

    /// Whether to replace it: by calls, or because it grew over half of what it may.
    pub fn is_worn(&self) -> bool {
        let room = self.store.data().limits.memory_bytes.saturating_sub(self.start_bytes);
        self.calls >= RECYCLE_CALLS || self.memory_bytes().saturating_sub(self.start_bytes) > room / 2
    }
}

impl Callables {
    /// Makes the instance, runs its start functions and finds what it exports.
    fn start(
        store: &mut Store<GuestState>,
        component: &Component,
    ) -> wasmtime::Result<(Callables, Option<wasmtime::component::Instance>)> {
        match component.linked() {
            Linked::Component(pre) => {
                let instance = pre.instantiate(&mut *store)?;
                let funcs = component.exports().iter().map(|export| match (&export.entry, &export.callable) {
                    (EntryPoint::Component(index), Ok(_)) => instance.get_func(&mut *store, *index),
                    _ => None,
                });
                Ok((Callables::Component(funcs.collect()), Some(instance)))
            }
            Linked::Core(pre) => {
                let instance = pre.instantiate(&mut *store)?;
                let functions = core_module::CoreFunctions::start(store, &instance, component.exports())?;
                Ok((Callables::Core(functions), None))
            }
        }
    }
}

impl CallError {
    /// As an error of loading.
    pub fn at_start(self, component: &Component) -> UdfError {
        UdfError::Start { path: component.path().to_owned(), reason: self.message }
    }
}

fn explain(state: &GuestState, error: &wasmtime::Error, timeout: Duration) -> CallError {
    let answer = |failure, message| CallError { failure, message };
    let said = Some(state.wasi.said())
        .filter(|said| !said.is_empty())
        .map_or_else(String::new, |said| format!("; it wrote: {said}"));
    if let Some(refused) = error.downcast_ref::<NotGranted>() {
        return answer(CallFailure::Trap, format!("{refused}{said}; build it without that import"));
    }
    if let Some(exited) = error.downcast_ref::<Exited>() {
        return answer(CallFailure::Trap, format!("{exited}{said}; try the row with `forebay udf call`"));
    }
    if let Some(broken) = error.downcast_ref::<Broken>() {
        return match broken {
            Broken::NoRoom(_) => answer(CallFailure::Memory, broken.to_string()),
            Broken::TooLong(_) => too_large(state),
            _ => answer(CallFailure::Trap, format!("{broken}; see wit/core-abi.md")),
        };
    }
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        return answer(refusal.failure, refusal.message.clone());
    }
    let trap = error.downcast_ref::<Trap>();
    if trap == Some(&Trap::Interrupt) {
        let ms = timeout.as_millis();
        return answer(
            CallFailure::Timeout,
            format!("ran longer than {ms} ms and was stopped; make it faster or raise its timeout"),
        );
    }
    if state.denied {
        let limit = mib(state.limits.memory_bytes);
        return answer(
            CallFailure::Memory,
            format!("wanted more than its {limit} of memory; raise its memory limit or find the leak"),
        );
    }
    match trap {
        Some(Trap::StackOverflow) => answer(
            CallFailure::Trap,
            format!("ran out of its {} KiB of stack; look for a recursion without end", STACK_BYTES >> 10),
        ),
        Some(trap) => {
            let place = error
                .downcast_ref::<WasmBacktrace>()
                .and_then(|b| b.frames().first().and_then(|f| f.func_name()).map(str::to_owned));
            let place = place.map_or_else(String::new, |name| format!(" in `{name}`"));
            let words = trap.to_string();
            let words = words.strip_prefix("wasm trap: ").unwrap_or(&words);
            answer(CallFailure::Trap, format!("trapped{place}: {words}{said}; try the row with `forebay udf call`"))
        }
        None => {
            let reason = error.root_cause().to_string();
            if reason.contains(RESULT_TOO_LARGE) {
                return too_large(state);
            }
            if let Some(limit) = reason.strip_prefix(OF_LIMITED_MANY) {
                return answer(
                    CallFailure::Trap,
                    format!("is made of more parts than it may be: {limit}; build it of fewer modules"),
                );
            }
            answer(CallFailure::Trap, format!("gave a malformed result: {reason}; build it with current bindings"))
        }
    }
}

fn too_large(state: &GuestState) -> CallError {
    let limit = mib(state.limits.result_bytes_max);
    CallError {
        failure: CallFailure::Result,
        message: format!("gave a result of more than {limit}; give less or raise its result limit"),
    }
}

/// Bytes in words: MiB where it is whole.
fn mib(bytes: usize) -> String {
    if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) {
        format!("{} MiB", bytes >> 20)
    } else {
        format!("{bytes} bytes")
    }
}

impl ResourceLimiter for GuestState {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory_bytes.saturating_sub(current).saturating_add(desired);
        if total > self.limits.memory_bytes {
            self.denied = true;
            return Ok(false);
        }
        // past the guest's own maximum it fails, whatever is answered here
        if maximum.is_none_or(|max| desired <= max) {
            self.memory_bytes = total;
        }
        Ok(true)
    }

    /// More than 4 GiB, or the system has no more. What was counted before stays counted: the instance is near its end.
    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.denied = true;
        Ok(())
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= self.limits.table_elements_max)
    }

    fn instances(&self) -> usize {
        self.limits.instances_max
    }

    fn tables(&self) -> usize {
        self.limits.tables_max
    }

    fn memories(&self) -> usize {
        self.limits.memories_max
    }
}

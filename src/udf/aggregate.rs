//! The aggregates of a job, for one executor.
//!
//! In: rows for a group. Out: its value, or an error that names the aggregate. Invariant: a group lives as a resource
//! of an instance only as long as that is convenient: a trap ends all of them, a worn instance and too many groups end
//! some, and whoever owns the group makes it again from what it was made of. Not here: what that is (`engine`), which
//! resources are aggregates (`resource`).

pub(super) mod resource;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use rustc_hash::FxHashMap;
use wasmtime::component::{Func, ResourceAny, TypedFunc, Val};
use wasmtime::{AsContext, AsContextMut};

use self::resource::{Method, Resource};
use super::UserAggregate;
use super::answer::{conversion, cut, result};
use super::binding::FunctionBinding;
use super::breaker::Breaker;
use super::breaker::monotonic;
use super::component::{Component, Passing};
use super::convert;
use super::instance::{CallError, Instance, RECYCLE_CALLS};
use super::stats::{CallFailure, Stats};
use super::swap::{Trial, Versions};
use super::wit::{FuncType, Wit};
use crate::query::builtins::RowError;
use crate::time::Clock;
use crate::value::Value;

/// Groups of one aggregate that live as resources at a time: at the default memory each has 8 KiB. The ones used
/// longest ago are let go and made again when they are needed.
const LIVE_MAX: usize = 4096;

/// A group's resource. When the last clone is dropped, the resource is too, before the aggregate's next group begins.
#[derive(Clone, Debug)]
pub struct Live(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    number: u64,
    // at most one message for each resource made, and making one takes the messages out
    gone: Sender<u64>,
}

impl Live {
    /// `gone` is told the number when nobody holds it any more.
    pub fn new(number: u64, gone: Sender<u64>) -> Live {
        Live(Arc::new(Handle { number, gone }))
    }

    pub fn number(&self) -> u64 {
        self.0.number
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // a host that is gone holds nothing
        let _ = self.gone.send(self.number);
    }
}

/// An aggregate with its instance, when it has one. Aggregates have instances of their own, since a function's may be
/// thrown away at any call.
#[derive(Debug)]
pub(super) struct HostedAggregate {
    name: String,
    component: Arc<Component>,
    export: usize,
    stats: Arc<Stats>,
    breaker: Breaker,
    home: Option<Home>,
    residents: FxHashMap<u64, Resident>,
    next: u64,
    gone: (Sender<u64>, Receiver<u64>),
    /// Counts uses, for finding the resource used longest ago.
    uses: u64,
    /// Calls since the instance was made: those for new rows, and those that made groups again.
    fresh: u32,
    repeated: u32,
    params: Vec<Val>,
    /// who is told how a new version does, and the aggregate's number there
    versions: Option<(Versions, usize)>,
    trial: Option<Arc<Trial>>,
    /// a call faulted in a version on trial
    again: bool,
}

#[derive(Debug)]
struct Resident {
    resource: ResourceAny,
    used: u64,
}

/// An instance with the members of the resource.
struct Home {
    instance: Instance,
    constructor: Func,
    accumulate: Func,
    deaccumulate: Option<Func>,
    merge: Option<Func>,
    compute: Func,
    save: Option<(Save, Restore)>,
}

type Save = TypedFunc<(ResourceAny,), (Vec<u8>,)>;
type Restore = TypedFunc<(Vec<u8>,), (ResourceAny,)>;

/// Rows going in for the first time, going in again, or going out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    In,
    Again,
    Out,
}

impl HostedAggregate {
    /// Makes the first instance, so that one that cannot start is found now.
    pub(super) fn new(binding: &FunctionBinding) -> Result<HostedAggregate, CallError> {
        let mut aggregate = HostedAggregate {
            name: binding.name.clone(),
            component: Arc::clone(&binding.component),
            export: binding.export,
            stats: Arc::clone(&binding.stats),
            breaker: Breaker::default(),
            home: None,
            residents: FxHashMap::default(),
            next: 0,
            gone: channel(),
            uses: 0,
            fresh: 0,
            repeated: 0,
            params: Vec::new(),
            versions: None,
            trial: None,
            again: false,
        };
        aggregate.move_in()?;
        Ok(aggregate)
    }

    /// Newer versions may come.
    pub(super) fn follow(&mut self, versions: &Versions, index: usize) {
        self.versions = Some((versions.clone(), index));
    }

    pub(super) fn component(&self) -> &Arc<Component> {
        &self.component
    }

    /// Goes on with another version: its groups are made again in that, from what they are made of.
    pub(super) fn install(&mut self, next: &FunctionBinding, trial: Option<Arc<Trial>>) {
        self.component = Arc::clone(&next.component);
        self.export = next.export;
        self.breaker = Breaker::default();
        self.trial = trial;
        self.move_out();
    }

    /// A call came through that does more than make a group again.
    fn proven(&mut self) {
        if let (Some(trial), Some((versions, index))) = (self.trial.take(), &self.versions) {
            versions.pass(*index, &trial);
        }
    }

    /// A call took the instance with it.
    fn faulted(&mut self, error: &CallError) {
        let (Some(trial), Some((versions, index))) = (self.trial.clone(), &self.versions) else { return };
        if trial.is_passed() {
            self.trial = None;
            return;
        }
        self.again = true;
        versions.fault(*index, &trial, &format!("uda.{}: {}", self.name, cut(&error.message)));
        if trial.is_put_back() {
            self.install(&trial.former, None);
        }
    }

    fn row(&mut self, live: &Live, row: &[Value], way: Direction) -> Result<(), CallError> {
        let resource = self.resource(live)?;
        let component = Arc::clone(&self.component);
        let (ty, members) = members(&component, self.export)?;
        let home = self.home()?;
        let (func, method) = match way {
            Direction::In | Direction::Again => (home.accumulate, &members.accumulate),
            Direction::Out => match (home.deaccumulate, &members.deaccumulate) {
                (Some(func), Some(method)) => (func, method),
                _ => return Err(lacks("deaccumulate")),
            },
        };
        match way {
            Direction::Again => self.repeated = self.repeated.saturating_add(1),
            _ => self.fresh = self.fresh.saturating_add(1),
        }
        let mut params = std::mem::take(&mut self.params);
        params.clear();
        params.push(Val::Resource(resource));
        let outcome =
            lower(ty, row, &mut params).and_then(|()| self.without_value(func, method.result.as_ref(), &params));
        self.params = params;
        if outcome.is_ok() && way != Direction::Again {
            self.proven();
        }
        outcome
    }

    /// Calls a method that gives nothing but perhaps an error.
    fn without_value(&mut self, func: Func, ty: Option<&Wit>, params: &[Val]) -> Result<(), CallError> {
        let mut results = [Val::Bool(false)];
        let places = if ty.is_some() { results.as_mut_slice() } else { &mut [] };
        self.guest(|store| func.call(store.as_context_mut(), params, places))?;
        let [val] = results;
        if ty.is_some() { result(ty, Some(val)).map(drop) } else { Ok(()) }
    }

    fn members(&self) -> Result<(&FuncType, &Resource), CallError> {
        members(&self.component, self.export)
    }

    fn home(&mut self) -> Result<&mut Home, CallError> {
        self.home.as_mut().ok_or_else(gone)
    }

    fn resource(&mut self, live: &Live) -> Result<ResourceAny, CallError> {
        self.uses += 1;
        let uses = self.uses;
        let resident = self.residents.get_mut(&live.number()).ok_or_else(gone)?;
        resident.used = uses;
        Ok(resident.resource)
    }

    /// Lets the guest run, counts, and keeps the instance in order.
    fn guest<T>(
        &mut self,
        call: impl FnOnce(&mut wasmtime::Store<super::instance::GuestState>) -> wasmtime::Result<T>,
    ) -> Result<T, CallError> {
        let start = Clock::Real.monotonic();
        let component = Arc::clone(&self.component);
        let home = self.home.as_mut().ok_or_else(gone)?;
        let called = home.instance.run(&component, call);
        self.stats.count_memory(home.instance.memory_bytes());
        self.stats.count_call(u64::try_from((Clock::Real.monotonic() - start).as_nanos()).unwrap_or(u64::MAX));
        if let Err(e) = &called
            && e.failure.ends_instance()
        {
            self.move_out();
            if let Some(pause) = self.breaker.lost(monotonic) {
                let (pause_s, reason) = (pause.as_secs(), e.failure.reason());
                let _of = super::logging(&self.name);
                tracing::warn!(pause_s, reason, "aggregate paused: {}", e.message);
            }
            self.faulted(e);
        }
        called
    }

    /// Runs a call, words its error and counts it.
    fn told<T>(&mut self, call: impl FnOnce(&mut HostedAggregate) -> Result<T, CallError>) -> Result<T, RowError> {
        call(self).map_err(|e| {
            self.stats.count_failure(e.failure);
            RowError { reason: e.failure.reason(), message: format!("uda.{}: {}", self.name, cut(&e.message)) }
        })
    }

    /// What counts for the pause: that a row entered or a value came. A group begun for it is no sign that calls go
    /// well.
    fn judged<T>(&mut self, outcome: Result<T, CallError>) -> Result<T, CallError> {
        if !outcome.as_ref().is_err_and(|e| e.failure.ends_instance()) {
            self.breaker.fine();
        }
        outcome
    }

    fn not_paused(&self) -> Result<(), CallError> {
        let Some(left) = self.breaker.paused(monotonic) else { return Ok(()) };
        let seconds = left.as_secs() + 1;
        let message =
            format!("is paused for {seconds} s more, since it trapped on each of the last rows; see the errors before");
        Err(CallError { failure: CallFailure::Breaker, message })
    }

    fn move_in(&mut self) -> Result<(), CallError> {
        if self.home.is_none() {
            let component = Arc::clone(&self.component);
            let (_, resource) = members(&component, self.export)?;
            let home = Home::new(&component, resource).inspect_err(|e| self.faulted(e))?;
            self.home = Some(home);
            self.stats.count_instance();
        }
        Ok(())
    }

    fn move_out(&mut self) {
        self.home = None;
        self.residents.clear();
        (self.fresh, self.repeated) = (0, 0);
    }

    /// Drops the resources that nobody holds, and those used longest ago when there are too many.
    fn sweep(&mut self) {
        let mut out: Vec<Resident> = Vec::new();
        while let Ok(number) = self.gone.1.try_recv() {
            out.extend(self.residents.remove(&number));
        }
        if self.residents.len() >= LIVE_MAX {
            let mut by_use: Vec<(u64, u64)> = self.residents.iter().map(|(number, r)| (r.used, *number)).collect();
            by_use.sort_unstable();
            out.extend(by_use.iter().take(LIVE_MAX / 4).filter_map(|(_, number)| self.residents.remove(number)));
        }
        for resident in out {
            if self.home.is_none() {
                return;
            }
            // a destructor may trap as any call may; then all are gone
            if let Err(error) = self.guest(|store| resident.resource.resource_drop(store.as_context_mut())) {
                let _of = super::logging(&self.name);
                tracing::debug!("dropping a group: {}", error.message);
            }
        }
    }
}

impl UserAggregate for HostedAggregate {
    /// Whether the group still lives.
    fn is_live(&self, live: &Live) -> bool {
        self.residents.contains_key(&live.number())
    }

    fn take_again(&mut self) -> bool {
        std::mem::take(&mut self.again)
    }

    /// Replaces a worn instance, which ends its groups. Elsewhere only a failed call does, and [`LIVE_MAX`].
    fn refresh(&mut self) {
        // making groups again must not be what wears the next instance out
        if self.fresh >= RECYCLE_CALLS && self.fresh >= self.repeated {
            self.move_out();
        }
    }

    /// A new group: as saved, or without rows.
    fn begin(&mut self, saved: Option<&[u8]>) -> Result<Live, RowError> {
        self.sweep();
        self.told(|a| {
            a.not_paused()?;
            a.move_in()?;
            let resource = match saved {
                Some(bytes) => {
                    let (_, restore) = a.home()?.save.ok_or_else(|| lacks("restore"))?;
                    a.guest(|store| restore.call(store.as_context_mut(), (bytes.to_vec(),)).map(|(r,)| r))?
                }
                None => {
                    let (constructor, mut made) = (a.home()?.constructor, [Val::Bool(false)]);
                    a.guest(|store| constructor.call(store.as_context_mut(), &[], &mut made))?;
                    match made {
                        [Val::Resource(resource)] => resource,
                        _ => return Err(lacks("constructor")),
                    }
                }
            };
            a.repeated = a.repeated.saturating_add(1);
            let number = a.next;
            a.next += 1;
            a.residents.insert(number, Resident { resource, used: a.uses });
            Ok(Live::new(number, a.gone.0.clone()))
        })
    }

    /// A row enters. It begins with its event time, its arguments follow.
    fn accumulate(&mut self, live: &Live, row: &[Value]) -> Result<(), RowError> {
        self.told(|a| {
            a.not_paused()?;
            let entered = a.row(live, row, Direction::In);
            a.judged(entered)
        })
    }

    /// Rows enter that had entered the group before.
    fn repeat(&mut self, live: &Live, rows: &mut dyn Iterator<Item = &[Value]>) -> Result<(), RowError> {
        self.told(|a| {
            for row in rows {
                a.row(live, row, Direction::Again)?;
            }
            Ok(())
        })
    }

    /// The oldest row leaves.
    fn deaccumulate(&mut self, live: &Live, row: &[Value]) -> Result<(), RowError> {
        self.told(|a| a.row(live, row, Direction::Out))
    }

    /// The rows of a later group enter.
    fn merge(&mut self, live: &Live, later: &Live) -> Result<(), RowError> {
        self.told(|a| {
            let params = [a.resource(live)?, a.resource(later)?].map(Val::Resource);
            let merge = a.home()?.merge.ok_or_else(|| lacks("merge"))?;
            let ty = a.members()?.1.merge.as_ref().and_then(|m| m.result.clone());
            a.without_value(merge, ty.as_ref(), &params)
        })
    }

    fn compute(&mut self, live: &Live) -> Result<Value, RowError> {
        self.told(|a| {
            a.not_paused()?;
            let params = [Val::Resource(a.resource(live)?)];
            let compute = a.home()?.compute;
            let ty = a.members()?.0.result.clone();
            let mut results = [Val::Bool(false)];
            let called = a.guest(|store| compute.call(store.as_context_mut(), &params, &mut results));
            a.judged(called)?;
            a.proven();
            let [val] = results;
            result(ty.as_ref(), Some(val))
        })
    }

    fn save(&mut self, live: &Live) -> Result<Vec<u8>, RowError> {
        self.told(|a| {
            let resource = a.resource(live)?;
            let (save, _) = a.home()?.save.ok_or_else(|| lacks("save"))?;
            a.guest(|store| save.call(store.as_context_mut(), (resource,)).map(|(bytes,)| bytes))
        })
    }
}

impl Home {
    fn new(component: &Component, resource: &Resource) -> Result<Home, CallError> {
        let mut instance = Instance::new(component)?;
        let mut find = |index, name: &'static str| instance.find(index).ok_or_else(|| lacks(name));
        let constructor = find(resource.constructor, "constructor")?;
        let accumulate = find(resource.accumulate.index, "accumulate")?;
        let mut optional = |method: &Option<Method>, name| method.as_ref().map(|m| find(m.index, name)).transpose();
        let deaccumulate = optional(&resource.deaccumulate, "deaccumulate")?;
        let merge = optional(&resource.merge, "merge")?;
        let compute = find(resource.compute, "compute")?;
        let both = resource
            .save
            .map(|(save, restore)| Ok::<_, CallError>((find(save, "save")?, find(restore, "restore")?)))
            .transpose()?;
        let typed = |(save, restore): (Func, Func)| {
            let store = instance.store();
            Ok((save.typed(store.as_context())?, restore.typed(store.as_context())?))
        };
        let save =
            both.map(typed).transpose().map_err(|e: wasmtime::Error| conversion(format!("save and restore: {e}")))?;
        Ok(Home { instance, constructor, accumulate, deaccumulate, merge, compute, save })
    }
}

fn members(component: &Component, export: usize) -> Result<(&FuncType, &Resource), CallError> {
    let callable = component.callable(export);
    match callable.map(|c| (&c.passing, c.resource.as_deref())) {
        Some((Passing::Typed(ty), Some(resource))) => Ok((ty, resource)),
        _ => Err(conversion("is no aggregate".to_owned())),
    }
}

/// A row's arguments as the guest takes them; its event time where the call leaves the last one out.
fn lower(ty: &FuncType, row: &[Value], params: &mut Vec<Val>) -> Result<(), CallError> {
    let Some((time, args)) = row.split_first() else { return Err(conversion("was given no row".to_owned())) };
    let values = args.iter().chain(std::iter::once(time));
    for (i, (param, value)) in ty.params.iter().zip(values).enumerate() {
        let val = convert::lower(&param.ty, value)
            .map_err(|e| conversion(format!("argument {} ({}: {}): {e}", i + 1, param.name.wit, param.ty)))?;
        params.push(val);
    }
    Ok(())
}

/// The group lives no more; its owner makes it again.
fn gone() -> CallError {
    CallError { failure: CallFailure::Trap, message: "its instance is gone".to_owned() }
}

fn lacks(member: &str) -> CallError {
    conversion(format!("has no `{member}`"))
}

impl std::fmt::Debug for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Home").finish_non_exhaustive()
    }
}

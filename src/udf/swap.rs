//! The versions of a job's functions while it runs.
//!
//! In: new versions, and how their first calls go. Out: the present version of each function, for all executors.
//! Invariant: an executor changes versions only when it asks, between commits, or when its version is put back;
//! versions that are given together are taken together. Not here: files, and whether a version fits the query
//! (`pipeline::functions`).
//!
//! A new version is on trial until a call of it comes through. Until then the former one is kept: it answers where the
//! new one faults, and takes its place again after [`FAULTS_MAX`] such calls.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::UdfError;
use super::binding::FunctionBinding;
use super::component::Component;
use crate::query::catalog::Offers;
use crate::query::fault;

/// Faults of a version on trial, in all executors together, after which it is put back: more than one bad row, and at
/// 100 ms each still half a second.
const FAULTS_MAX: u32 = 5;

/// As much of a digest as a person compares.
const DIGEST_SHOWN: usize = 12;

/// The present versions of a job's functions; clones share them.
#[derive(Clone, Debug)]
pub struct Versions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Counts changes, so that an executor sees without a lock that there is none.
    number: AtomicU64,
    slots: Mutex<Vec<Slot>>,
}

#[derive(Debug)]
struct Slot {
    current: FunctionBinding,
    trial: Option<Arc<Trial>>,
    status: SwapStatus,
}

/// What became of a function's versions since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwapStatus {
    pub swapped: u64,
    pub refused: u64,
    pub put_back: u64,
    /// why the file's version is not the one in use
    pub trouble: Option<String>,
}

/// A version whose first calls are watched.
#[derive(Debug)]
pub(super) struct Trial {
    pub former: FunctionBinding,
    faults: AtomicU32,
    passed: AtomicBool,
    put_back: AtomicBool,
}

impl Trial {
    pub fn is_passed(&self) -> bool {
        self.passed.load(Ordering::Acquire)
    }

    pub fn is_put_back(&self) -> bool {
        self.put_back.load(Ordering::Acquire)
    }
}

impl Versions {
    pub fn new(bindings: &[FunctionBinding]) -> Versions {
        let slot =
            |current: &FunctionBinding| Slot { current: current.clone(), trial: None, status: SwapStatus::default() };
        Versions(Arc::new(Inner { number: AtomicU64::new(0), slots: Mutex::new(bindings.iter().map(slot).collect()) }))
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The versions in use.
    pub fn bindings(&self) -> Vec<FunctionBinding> {
        self.slots().iter().map(|slot| slot.current.clone()).collect()
    }

    /// Name and status of each function, in the order of the plan's indexes.
    pub fn statuses(&self) -> Vec<(String, SwapStatus)> {
        self.slots().iter().map(|slot| (slot.current.name.clone(), slot.status.clone())).collect()
    }

    /// Gives out new versions of functions that belong together.
    pub fn swap(&self, next: Vec<(usize, FunctionBinding)>) {
        let mut slots = self.slots();
        for (index, binding) in next {
            let Some(slot) = slots.get_mut(index) else {
                fault::log(format!("udf.{} has a new version and no place to put it", binding.name));
                continue;
            };
            let (from, to) = (slot.current.component.digest().to_owned(), binding.component.digest().to_owned());
            let current = std::mem::replace(&mut slot.current, binding);
            // one that has not passed its trial is no version to go back to
            let former = slot.trial.take().map_or(current, |trial| trial.former.clone());
            let (faults, passed, put_back) = (AtomicU32::new(0), AtomicBool::new(false), AtomicBool::new(false));
            slot.trial = Some(Arc::new(Trial { former, faults, passed, put_back }));
            slot.status.swapped += 1;
            slot.status.trouble = None;
            let (from, to) = (shown(&from), shown(&to));
            let _of = super::logging(&slot.current.name);
            tracing::info!(from, to, "function swapped: its new version is used from the next commit on");
        }
        self.0.number.fetch_add(1, Ordering::Release);
    }

    /// A new version was looked at and is not taken.
    pub fn refuse(&self, index: usize, digest: &str, reason: &str) {
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(index) else {
            return fault::log(format!("there is no function number {index} to speak of its file"));
        };
        let (from, to) = (shown(slot.current.component.digest()), shown(digest));
        slot.status.refused += 1;
        slot.status.trouble = Some(format!("version {to} is not taken, {from} stays in use: {reason}"));
        let _of = super::logging(&slot.current.name);
        tracing::warn!(from, to, "function not swapped, the running version stays in use: {reason}");
    }

    /// The file cannot be read (`Some`: why), or is that of the version in use.
    pub fn set_trouble(&self, index: usize, trouble: Option<String>) {
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(index) else {
            return fault::log(format!("there is no function number {index} to speak of its file"));
        };
        let _of = super::logging(&slot.current.name);
        match &trouble {
            Some(why) if slot.status.trouble != trouble => {
                tracing::warn!("the function's file is not as it should be, the running version stays in use: {why}");
            }
            None if slot.status.trouble.is_some() => {
                tracing::info!("the function's file is that of the version in use")
            }
            _ => {}
        }
        slot.status.trouble = trouble;
    }

    /// Changes whenever a version does.
    pub(super) fn number(&self) -> u64 {
        self.0.number.load(Ordering::Acquire)
    }

    /// The present versions with their trials.
    pub(super) fn present(&self) -> Vec<(FunctionBinding, Option<Arc<Trial>>)> {
        self.slots().iter().map(|slot| (slot.current.clone(), slot.trial.clone())).collect()
    }

    /// A call of a version on trial came through.
    pub(super) fn pass(&self, index: usize, trial: &Arc<Trial>) {
        let mut slots = self.slots();
        if let Some(slot) = slots.get_mut(index).filter(|slot| slot.is_on(trial)) {
            slot.trial = None;
            trial.passed.store(true, Ordering::Release);
        }
    }

    /// A call of a version on trial faulted. After some it is put back, as [`Trial::is_put_back`] then says.
    pub(super) fn fault(&self, index: usize, trial: &Arc<Trial>, message: &str) {
        if trial.faults.fetch_add(1, Ordering::AcqRel) + 1 < FAULTS_MAX {
            return;
        }
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(index).filter(|slot| slot.is_on(trial)) else { return };
        let bad = std::mem::replace(&mut slot.current, trial.former.clone());
        slot.trial = None;
        slot.status.put_back += 1;
        let (from, to) = (shown(bad.component.digest()), shown(trial.former.component.digest()));
        slot.status.trouble = Some(format!(
            "version {from} was put back, {to} is in use again: its first {FAULTS_MAX} calls failed; {message}"
        ));
        trial.put_back.store(true, Ordering::Release);
        self.0.number.fetch_add(1, Ordering::Release);
        let _of = super::logging(&bad.name);
        tracing::warn!(
            from,
            to,
            "function put back, its former version is in use again: the first {FAULTS_MAX} calls failed; {message}"
        );
    }
}

impl Slot {
    fn is_on(&self, trial: &Arc<Trial>) -> bool {
        self.trial.as_ref().is_some_and(|present| Arc::ptr_eq(present, trial))
    }
}

impl FunctionBinding {
    /// The same function in other bytes of its file, with the limits, grants and counters that it has.
    ///
    /// # Errors
    /// As when the job starts: the file does not load, lacks the export, or asks for more than it was granted.
    pub fn renewed(&self, wasm: &[u8], export: &str) -> Result<FunctionBinding, UdfError> {
        let component =
            Component::from_bytes(self.component.engine(), self.component.path(), wasm, *self.component.limits())?;
        let export = component.find(export)?;
        let binding = FunctionBinding { component: Arc::new(component), export, ..self.clone() };
        binding.check_grants()?;
        Ok(binding)
    }

    /// Members that `next` lacks and this aggregate has: what is kept of open windows counts on them.
    pub fn members_lost(&self, next: &FunctionBinding) -> Vec<&'static str> {
        let (Some(had), Some(has)) = (self.aggregate(), next.aggregate()) else { return Vec::new() };
        let of = |offers: Offers| {
            [("save` and `restore", offers.save), ("merge", offers.merge), ("deaccumulate", offers.deaccumulate)]
        };
        of(had)
            .into_iter()
            .zip(of(has))
            .filter(|((_, had), (_, has))| *had && !has)
            .map(|((name, _), _)| name)
            .collect()
    }
}

/// The start of a digest.
fn shown(digest: &str) -> &str {
    digest.get(..DIGEST_SHOWN).unwrap_or(digest)
}

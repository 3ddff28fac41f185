//! User aggregates: groups that live in a guest.
//!
//! In: rows before they enter the windows, and windows that end. Out: which rows the guest takes, and values.
//! Invariant: a row that one group refuses enters none. Not here: windows (`fixed`, `sliding`, `session`), what a group
//! is made of (`share`).
//!
//! A group that only grows lives with its accumulator. One that rows also leave runs beside the window: that of a
//! sliding window, and of windows made of panes that cannot be merged.

use rustc_hash::FxHashMap;

use super::accumulate::{Acc, arity};
use super::env::{Env, EvalError};
use super::fault::Fault;
use super::key::put_key;
use super::prepared::PreparedRow;
use super::share::{GuestRows, UserRow, time_of, value_of, with_memory};
use super::window::WindowState;
use crate::batch::RowMeta;
use crate::diagnostic::Span;
use crate::query::builtins::RowError;
use crate::query::plan::{Aggregate, AggregateFunction, UserAggregateCall};
use crate::value::Value;

/// Panes were saved by a component that could merge them, and the one in its place cannot.
fn unmergeable(plan: &UserAggregateCall) -> RowError {
    let message = format!(
        "uda.{}: its open windows were saved by a component with `merge`, and this one has none; results come again \
        with the windows that begin now",
        plan.name
    );
    RowError { reason: "udf_error", message }
}

/// The user aggregates of one `GROUP BY`.
#[derive(Debug)]
pub(super) struct Users {
    calls: Vec<UserCall>,
    /// The size of each window whose groups rows leave; `None` where they only grow or are merged.
    running: Vec<Vec<Option<RunningGroups>>>,
    /// Shares of groups that are about to begin, with their window and call.
    fresh: Vec<(usize, usize, GuestRows)>,
    /// What running groups hold, as of the last commit.
    bytes: usize,
}

#[derive(Debug)]
struct UserCall {
    plan: UserAggregateCall,
    span: Span,
    /// Its number among the aggregates.
    place: usize,
    /// Where a row's arguments for it begin and end.
    from: usize,
    to: usize,
}

/// Groups that run beside a window, by key.
#[derive(Debug)]
struct RunningGroups {
    size: i64,
    /// The window holds the same rows.
    shared: bool,
    shares: FxHashMap<Box<[u8]>, GuestRows>,
}

const NO_ARGUMENTS: Fault = Fault("a user aggregate has no arguments in a row");
const NO_GROUPS: Fault = Fault("a user aggregate has no groups in a window");

impl UserCall {
    /// A row's arguments for it; `None` where the row is left out.
    fn arguments<'r>(&self, args: &'r [Value]) -> Result<Option<&'r [Value]>, Fault> {
        let values = args.get(self.from..self.to).ok_or(NO_ARGUMENTS)?;
        Ok(values.first().is_some_and(|time| !time.is_null()).then_some(values))
    }
}

impl Users {
    pub(super) fn new<W>(aggregates: &[Aggregate], windows: &[(W, WindowState)]) -> Users {
        let mut calls = Vec::new();
        let mut from = 0;
        for (place, aggregate) in aggregates.iter().enumerate() {
            let to = from + arity(aggregate);
            if let AggregateFunction::User(plan) = &aggregate.function {
                calls.push(UserCall { plan: plan.clone(), span: aggregate.span, place, from, to });
            }
            from = to;
        }
        let running = |window: &WindowState, call: &UserCall| {
            let (size, shared) = match window {
                WindowState::Fixed(fixed) if fixed.has_panes() && !call.plan.offers.merge => (fixed.size(), true),
                WindowState::Sliding(sliding) => (sliding.size(), false),
                WindowState::Fixed(_) | WindowState::Session(_) => return None,
            };
            Some(RunningGroups { size, shared, shares: FxHashMap::default() })
        };
        let running =
            windows.iter().map(|(_, window)| calls.iter().map(|call| running(window, call)).collect()).collect();
        Users { calls, running, fresh: Vec::new(), bytes: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Offers a row to every group that it will enter. An argument list without a time is left out of its aggregate.
    pub(super) fn enter<W>(
        &mut self,
        env: &mut Env,
        windows: &mut [(W, WindowState)],
        meta: &RowMeta,
        row: &mut PreparedRow,
    ) -> Result<(), Box<EvalError>> {
        let calls = std::mem::take(&mut self.calls);
        let entered = calls.iter().enumerate().try_for_each(|(c, call)| {
            let Err(error) = self.enter_call(env, windows, meta, row, (c, call)) else { return Ok(()) };
            self.undo(windows, meta, row, (c, call));
            let refused = env.settled(error, call.span, env.policy_of(call.plan.index));
            if refused.is_err() {
                calls.iter().take(c).enumerate().for_each(|before| self.undo(windows, meta, row, before));
            }
            refused?;
            let time = row.args.get_mut(call.from).ok_or_else(|| env.fault(NO_ARGUMENTS, call.span))?;
            *time = Value::Null;
            Ok(())
        });
        self.calls = calls;
        entered
    }

    fn enter_call<W>(
        &mut self,
        env: &mut Env,
        windows: &mut [(W, WindowState)],
        meta: &RowMeta,
        row: &PreparedRow,
        (c, call): (usize, &UserCall),
    ) -> Result<(), RowError> {
        let Some(values) = call.arguments(&row.args)? else { return Ok(()) };
        let guest = env.guest(&call.plan)?;
        guest.refresh();
        for (w, ((_, window), running)) in windows.iter_mut().zip(&mut self.running).enumerate() {
            // a row between windows enters none
            let Some(leaves) = window.leaves(meta) else { continue };
            match running.get_mut(c).ok_or(NO_GROUPS)? {
                Some(running) => {
                    let share = running.of(&row.key);
                    share.expire(guest, call.plan.offers.deaccumulate, leaves);
                    share.enter(guest, values)?;
                }
                None => match share_mut(window, meta, row, call.place) {
                    Some(share) => share.enter(guest, values)?,
                    None => {
                        let mut share = GuestRows::default();
                        share.enter(guest, values)?;
                        self.fresh.push((w, c, share));
                    }
                },
            }
        }
        Ok(())
    }

    /// Takes a row back that was offered.
    fn undo<W>(
        &mut self,
        windows: &mut [(W, WindowState)],
        meta: &RowMeta,
        row: &PreparedRow,
        (c, call): (usize, &UserCall),
    ) {
        self.fresh.retain(|(_, fresh, _)| *fresh != c);
        for ((_, window), running) in windows.iter_mut().zip(&mut self.running) {
            match running.get_mut(c) {
                Some(Some(running)) => running.of(&row.key).undo(),
                Some(None) | None => share_mut(window, meta, row, call.place).into_iter().for_each(GuestRows::undo),
            }
        }
    }

    /// The row that was offered is in the windows.
    pub(super) fn added<W>(
        &mut self,
        env: &mut Env,
        windows: &mut [(W, WindowState)],
        meta: &RowMeta,
        row: &PreparedRow,
    ) -> Result<(), Fault> {
        for (w, c, share) in self.fresh.drain(..) {
            let place = self.calls.get(c).ok_or(NO_GROUPS)?.place;
            let window = windows.get_mut(w).and_then(|(_, window)| share_mut(window, meta, row, place));
            window.ok_or(NO_GROUPS)?.live = share.live;
        }
        for (c, call) in self.calls.iter().enumerate() {
            let Some(values) = call.arguments(&row.args)? else { continue };
            for ((_, window), running) in windows.iter_mut().zip(&mut self.running) {
                if window.leaves(meta).is_none() {
                    continue;
                }
                let share = share_mut(window, meta, row, call.place);
                match running.get_mut(c).ok_or(NO_GROUPS)? {
                    Some(running) => {
                        let held = share.and_then(|share| share.rows.last().cloned());
                        running.of(&row.key).push(held.unwrap_or_else(|| values.into()));
                    }
                    None if call.plan.offers.save => {
                        let share = share.ok_or(NO_GROUPS)?;
                        if let Ok(guest) = env.guest(&call.plan) {
                            share.save(guest);
                        }
                    }
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// The value of the aggregate at `place` for a group of a window that ends.
    pub(super) fn value(
        &mut self,
        env: &mut Env,
        window: usize,
        place: usize,
        end: i64,
        keys: &[Value],
        shares: &[GuestRows],
    ) -> Result<Value, Box<EvalError>> {
        let found = self.calls.iter().enumerate().find(|(_, call)| call.place == place);
        let (c, call) = found.ok_or_else(|| env.fault(NO_GROUPS, Span::default()))?;
        let running = self.running.get_mut(window).and_then(|running| running.get_mut(c));
        let running = running.ok_or_else(|| env.fault(NO_GROUPS, call.span))?;
        let value = env.guest(&call.plan).and_then(|guest| {
            guest.refresh();
            match running {
                Some(running) => {
                    let mut key = Vec::new();
                    keys.iter().for_each(|value| put_key(&mut key, value));
                    let size = running.size;
                    let share = running.of(&key);
                    share.expire(guest, call.plan.offers.deaccumulate, end.saturating_sub(size));
                    let content = shares.first().map(|s| s.rows.as_slice()).unwrap_or_default();
                    if shares.iter().any(|s| s.saved.is_some()) {
                        return Err(unmergeable(&call.plan));
                    }
                    if share.rows != content {
                        *share = GuestRows::of(content);
                    }
                    with_memory(guest, |guest| share.live(guest).and_then(|live| guest.compute(&live)))
                }
                None => with_memory(guest, |guest| value_of(shares, guest)),
            }
        });
        value.or_else(|error| env.settled(error, call.span, env.policy_of(call.plan.index)))
    }

    /// Finds the rows of running groups again, in windows whose state was loaded.
    pub(super) fn loaded<W>(&mut self, windows: &[(W, WindowState)]) {
        for ((_, window), running) in windows.iter().zip(&mut self.running) {
            let running = self.calls.iter().zip(running);
            for (call, running) in running.filter_map(|(call, running)| Some((call, running.as_mut()?))) {
                match window {
                    WindowState::Fixed(fixed) => {
                        for (key, acc) in fixed.accs(call.place) {
                            let shares = acc.shares().iter();
                            shares.for_each(|share| running.of(key).rows.extend(share.rows.iter().cloned()));
                        }
                    }
                    WindowState::Sliding(sliding) => {
                        for (key, args) in sliding.held() {
                            let values = args.get(call.from..call.to).unwrap_or_default();
                            if values.first().is_some_and(|time| !time.is_null()) {
                                running.of(key).rows.push(values.into());
                            }
                        }
                    }
                    WindowState::Session(_) => {}
                }
            }
        }
        self.weigh();
    }

    /// Forgets running groups of which every row has left at this watermark.
    pub(super) fn forget(&mut self, watermark: i64) {
        for running in self.running.iter_mut().flatten().flatten() {
            let size = running.size;
            running
                .shares
                .retain(|_, share| share.rows.last().is_some_and(|row| time_of(row).saturating_add(size) > watermark));
        }
        self.weigh();
    }

    fn weigh(&mut self) {
        let bytes = |running: &RunningGroups| {
            let of_share = |share: &GuestRows| {
                if running.shared { size_of::<UserRow>() * share.rows.len() } else { share.bytes() }
            };
            running
                .shares
                .iter()
                .map(|(key, share)| key.len() + size_of::<GuestRows>() + of_share(share))
                .sum::<usize>()
        };
        self.bytes = self.running.iter().flatten().flatten().map(bytes).sum();
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl RunningGroups {
    fn of(&mut self, key: &[u8]) -> &mut GuestRows {
        if !self.shares.contains_key(key) {
            self.shares.insert(key.into(), GuestRows::default());
        }
        // it is there: the entry of a key that is there makes nothing
        self.shares.entry(key.into()).or_default()
    }
}

/// The share of the group that a row will enter, if it has begun.
fn share_mut<'w>(
    window: &'w mut WindowState,
    meta: &RowMeta,
    row: &PreparedRow,
    place: usize,
) -> Option<&'w mut GuestRows> {
    match window.acc_mut(meta, row, place) {
        Some(Acc::User(shares)) => shares.last_mut(),
        _ => None,
    }
}

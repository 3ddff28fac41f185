//! User aggregates: groups that live in a guest, and what they are made of.
//!
//! In: rows before they enter the windows, and windows that end. Out: which rows the guest takes, and values. Invariant:
//! a group can be made again at any time, from what it was saved as and the rows since; the resource is a convenience. A
//! row that one group refuses enters none. Not here: windows (`fixed`, `sliding`, `session`), guests (`udf`).
//!
//! A group that only grows lives with its accumulator. One that rows also leave runs beside the window: that of a sliding
//! window, and of windows made of panes that cannot be merged.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::OnError;
use super::accumulate::{Acc, arity};
use super::aggregate::State;
use super::env::Env;
use super::eval::EvalError;
use super::group::Prepared;
use super::key::put_key;
use super::state::{put_values, read_values};
use crate::batch::RowMeta;
use crate::query::builtins::RowError;
use crate::query::plan::{Aggregate, AggregateFunction, UserAggregate as Plan};
use crate::udf::{Live, UserAggregate};
use crate::value::Value;
use crate::value::codec::{Damaged, Reader, put_bytes, put_varint};

/// Rows after which a group that can be saved is saved: making it again costs at most as many calls, and saving costs a
/// call in so many.
const SAVE_ROWS: usize = 32;
/// The reason of a row for which there was no memory, which other groups of the instance may have used up.
const NO_MEMORY: &str = "udf_memory";

/// A row as a guest takes it: its event time, then the arguments.
type Row = Arc<[Value]>;

/// Rows of a group, as the guest holds them.
#[derive(Clone, Debug, Default)]
pub(super) struct Share {
    saved: Option<Arc<[u8]>>,
    /// Rows since it was saved, in the order in which they entered.
    rows: Vec<Row>,
    live: Option<Live>,
    /// The guest has taken a row that has not been added yet.
    ahead: bool,
    /// Where saving failed: not again before there are so many rows.
    save_at: usize,
}

/// Equal when they are made of the same.
impl PartialEq for Share {
    fn eq(&self, other: &Share) -> bool {
        self.saved == other.saved && self.rows == other.rows
    }
}

impl Share {
    /// The group as a resource; made again when it lives no more.
    fn live(&mut self, guest: &mut dyn UserAggregate) -> Result<Live, RowError> {
        self.undo();
        let live = self.found_or_made(guest)?;
        self.live = Some(live.clone());
        Ok(live)
    }

    fn found_or_made(&self, guest: &mut dyn UserAggregate) -> Result<Live, RowError> {
        match &self.live {
            Some(live) if guest.is_live(live) => Ok(live.clone()),
            // the first failure may be that of an instance which others had used up
            _ => self.made(guest).or_else(|_| self.made(guest)),
        }
    }

    fn made(&self, guest: &mut dyn UserAggregate) -> Result<Live, RowError> {
        let live = guest.begin(self.saved.as_deref())?;
        guest.repeat(&live, &mut self.rows.iter().map(AsRef::as_ref))?;
        Ok(live)
    }

    /// Lets the guest take a row. It is added by [`Share::add`], or taken back by [`Share::undo`].
    fn enter(&mut self, guest: &mut dyn UserAggregate, row: &[Value]) -> Result<(), RowError> {
        let entered = with_memory(guest, |guest| self.live(guest).and_then(|live| guest.accumulate(&live, row)));
        self.ahead = entered.is_ok();
        if entered.is_err() {
            self.live = None;
        }
        entered
    }

    fn undo(&mut self) {
        if std::mem::take(&mut self.ahead) {
            self.live = None;
        }
    }

    /// A row is part of the group from now on.
    pub(super) fn add(&mut self, row: &[Value]) {
        self.push(row.into());
    }

    fn push(&mut self, row: Row) {
        if !std::mem::take(&mut self.ahead) {
            self.live = None;
        }
        self.rows.push(row);
    }

    /// Appends the rows of a later share.
    pub(super) fn append(&mut self, later: &Share) {
        self.live = None;
        self.rows.extend(later.rows.iter().cloned());
        // rows cannot be had of it any more: `Users::value` says so
        self.saved = self.saved.take().or_else(|| later.saved.clone());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.saved.is_none() && self.rows.is_empty()
    }

    /// Lets rows up to `time` go: one by one where that is less work than making the group again.
    fn expire(&mut self, guest: &mut dyn UserAggregate, can_leave: bool, time: i64) {
        let gone = self.rows.iter().take_while(|row| time_of(row) <= time).count();
        if gone == 0 {
            return;
        }
        self.undo();
        let left = self.rows.len() - gone;
        let live = self.live.take().filter(|live| can_leave && gone <= left && guest.is_live(live));
        let leaving = self.rows.drain(..gone);
        // a guest that cannot let them go is made again without them
        self.live = live.filter(|live| leaving.into_iter().all(|row| guest.deaccumulate(live, &row).is_ok()));
    }

    /// Puts what was saved in place of the rows, when there are enough of them.
    fn save(&mut self, guest: &mut dyn UserAggregate) {
        if self.rows.len() < SAVE_ROWS.max(self.save_at) {
            return;
        }
        let Some(live) = self.live.as_ref().filter(|live| guest.is_live(live)) else { return };
        match guest.save(live) {
            Ok(bytes) => {
                self.saved = Some(bytes.into());
                self.rows.clear();
                self.save_at = 0;
            }
            Err(error) => {
                tracing::debug!("a group keeps its rows: {}", error.message);
                self.live = None;
                self.save_at = self.rows.len().saturating_mul(2);
            }
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.saved.is_some()));
        if let Some(saved) = &self.saved {
            put_bytes(out, saved);
        }
        put_varint(out, self.rows.len() as u64);
        self.rows.iter().for_each(|row| put_values(out, row));
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Share, Damaged> {
        let saved = if reader.byte()? == 0 { None } else { Some(reader.bytes()?.into()) };
        let n = reader.length()?;
        let rows = (0..n).map(|_| read_values(reader).map(Row::from)).collect::<Result<_, _>>()?;
        Ok(Share { saved, rows, ..Share::default() })
    }

    pub(super) fn bytes(&self) -> usize {
        let row = |row: &Row| 32 + row.iter().map(|v| 24 + v.heap_bytes()).sum::<usize>();
        size_of::<Share>() + self.saved.as_ref().map_or(0, |s| s.len()) + self.rows.iter().map(row).sum::<usize>()
    }
}

/// Does something again when there was no memory for it: the instance is gone, and with it what others had used up. Also
/// when the version that did it is on trial and may be put back for it.
fn with_memory<T>(
    guest: &mut dyn UserAggregate,
    mut act: impl FnMut(&mut dyn UserAggregate) -> Result<T, RowError>,
) -> Result<T, RowError> {
    let mut outcome = act(guest);
    while outcome.is_err() && guest.take_again() {
        outcome = act(guest);
    }
    match outcome {
        Err(error) if error.reason == NO_MEMORY => act(guest),
        outcome => outcome,
    }
}

fn time_of(row: &Row) -> i64 {
    match row.first() {
        Some(Value::DateTime(time)) => time.ticks(),
        _ => i64::MIN,
    }
}

/// The value of a group whose rows lie in shares, in time order.
fn value_of(shares: &[Share], guest: &mut dyn UserAggregate) -> Result<Value, RowError> {
    let live = match shares {
        [one] => one.found_or_made(guest)?,
        many => merged(many, guest).or_else(|_| merged(many, guest))?,
    };
    guest.compute(&live)
}

fn merged(shares: &[Share], guest: &mut dyn UserAggregate) -> Result<Live, RowError> {
    let whole = guest.begin(None)?;
    for share in shares {
        let part = share.found_or_made(guest)?;
        guest.merge(&whole, &part)?;
    }
    Ok(whole)
}

/// Panes were saved by a component that could merge them, and the one in its place cannot.
fn unmergeable(plan: &Plan) -> RowError {
    let message = format!(
        "uda.{}: its open windows were saved by a component with `merge`, and this one has none; results come again with the windows that begin now",
        plan.name
    );
    RowError { reason: "udf_error", message }
}

/// The user aggregates of one `GROUP BY`.
#[derive(Debug)]
pub(super) struct Users {
    calls: Vec<Call>,
    /// The size of each window whose groups rows leave; `None` where they only grow or are merged.
    running: Vec<Vec<Option<Running>>>,
    /// Shares of groups that are about to begin, with their window and call.
    fresh: Vec<(usize, usize, Share)>,
    /// What running groups hold, as of the last commit.
    bytes: usize,
}

#[derive(Debug)]
struct Call {
    plan: Plan,
    span: crate::diagnostic::Span,
    /// Its number among the aggregates.
    place: usize,
    /// Where a row's arguments for it begin and end.
    from: usize,
    to: usize,
}

/// Groups that run beside a window, by key.
#[derive(Debug)]
struct Running {
    size: i64,
    /// The window holds the same rows.
    shared: bool,
    shares: FxHashMap<Box<[u8]>, Share>,
}

impl Users {
    pub(super) fn new<W>(aggregates: &[Aggregate], windows: &[(W, State)]) -> Users {
        let mut calls = Vec::new();
        let mut from = 0;
        for (place, aggregate) in aggregates.iter().enumerate() {
            let to = from + arity(aggregate);
            if let AggregateFunction::User(plan) = &aggregate.function {
                calls.push(Call { plan: plan.clone(), span: aggregate.span, place, from, to });
            }
            from = to;
        }
        let running = |window: &State, call: &Call| {
            let (size, shared) = match window {
                State::Fixed(fixed) if fixed.has_panes() && !call.plan.offers.merge => (fixed.size(), true),
                State::Sliding(sliding) => (sliding.size(), false),
                State::Fixed(_) | State::Session(_) => return None,
            };
            Some(Running { size, shared, shares: FxHashMap::default() })
        };
        let running = windows.iter().map(|(_, window)| calls.iter().map(|call| running(window, call)).collect()).collect();
        Users { calls, running, fresh: Vec::new(), bytes: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Offers a row to every group that it will enter. An argument list without a time is left out of its aggregate.
    pub(super) fn enter<W>(
        &mut self,
        env: &mut Env,
        windows: &mut [(W, State)],
        meta: &RowMeta,
        row: &mut Prepared,
    ) -> Result<(), Box<EvalError>> {
        for c in 0..self.calls.len() {
            let Err(error) = self.enter_call(env, windows, meta, row, c) else { continue };
            let Some(call) = self.calls.get(c) else { continue };
            let (policy, span, from) = (env.policy_of(call.plan.index), call.span, call.from);
            self.undo(windows, meta, row, c);
            if policy != OnError::Null {
                (0..c).for_each(|c| self.undo(windows, meta, row, c));
                return Err(Box::new(EvalError { error, span, policy }));
            }
            env.counts.add_nulled(error.reason);
            if let Some(time) = row.args.get_mut(from) {
                *time = Value::Null;
            }
        }
        Ok(())
    }

    fn enter_call<W>(
        &mut self,
        env: &mut Env,
        windows: &mut [(W, State)],
        meta: &RowMeta,
        row: &Prepared,
        c: usize,
    ) -> Result<(), RowError> {
        let Some(call) = self.calls.get(c) else { return Ok(()) };
        let values = row.args.get(call.from..call.to).unwrap_or_default();
        if values.first().is_none_or(Value::is_null) {
            return Ok(());
        }
        let guest = env.guest(&call.plan)?;
        guest.refresh();
        for (w, ((_, window), running)) in windows.iter_mut().zip(&mut self.running).enumerate() {
            let Some(leaves) = window.leaves(meta) else { continue };
            match running.get_mut(c).and_then(Option::as_mut) {
                Some(running) => {
                    let share = running.of(&row.key);
                    share.expire(guest, call.plan.offers.deaccumulate, leaves);
                    share.enter(guest, values)?;
                }
                None => match window.share_mut(meta, row, call.place) {
                    Some(share) => share.enter(guest, values)?,
                    None => {
                        let mut share = Share::default();
                        share.enter(guest, values)?;
                        self.fresh.push((w, c, share));
                    }
                },
            }
        }
        Ok(())
    }

    /// Takes a row back that was offered.
    fn undo<W>(&mut self, windows: &mut [(W, State)], meta: &RowMeta, row: &Prepared, c: usize) {
        self.fresh.retain(|(_, call, _)| *call != c);
        let Some(call) = self.calls.get(c) else { return };
        for ((_, window), running) in windows.iter_mut().zip(&mut self.running) {
            match running.get_mut(c).and_then(Option::as_mut) {
                Some(running) => running.of(&row.key).undo(),
                None => window.share_mut(meta, row, call.place).into_iter().for_each(Share::undo),
            }
        }
    }

    /// The row that was offered is in the windows.
    pub(super) fn added<W>(&mut self, env: &mut Env, windows: &mut [(W, State)], meta: &RowMeta, row: &Prepared) {
        for (w, c, share) in self.fresh.drain(..) {
            let place = self.calls.get(c).map_or(usize::MAX, |call| call.place);
            if let Some(new) = windows.get_mut(w).and_then(|(_, window)| window.share_mut(meta, row, place)) {
                new.live = share.live;
            }
        }
        for (c, call) in self.calls.iter().enumerate() {
            let values = row.args.get(call.from..call.to).unwrap_or_default();
            if values.first().is_none_or(Value::is_null) {
                continue;
            }
            for ((_, window), running) in windows.iter_mut().zip(&mut self.running) {
                if window.leaves(meta).is_none() {
                    continue;
                }
                let share = window.share_mut(meta, row, call.place);
                match running.get_mut(c).and_then(Option::as_mut) {
                    Some(running) => {
                        let held = share.and_then(|share| share.rows.last().cloned());
                        running.of(&row.key).push(held.unwrap_or_else(|| values.into()));
                    }
                    None if call.plan.offers.save => {
                        if let (Some(share), Ok(guest)) = (share, env.guest(&call.plan)) {
                            share.save(guest);
                        }
                    }
                    None => {}
                }
            }
        }
    }

    /// The value of the aggregate at `place` for a group of a window that ends.
    pub(super) fn value(
        &mut self,
        env: &mut Env,
        window: usize,
        place: usize,
        end: i64,
        keys: &[Value],
        shares: &[Share],
    ) -> Result<Value, Box<EvalError>> {
        let found = self.calls.iter().enumerate().find(|(_, call)| call.place == place);
        let Some((c, call)) = found else { return Ok(Value::Null) };
        let (policy, span) = (env.policy_of(call.plan.index), call.span);
        let running = self.running.get_mut(window).and_then(|r| r.get_mut(c)).and_then(Option::as_mut);
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
                        *share = Share { rows: content.to_vec(), ..Share::default() };
                    }
                    with_memory(guest, |guest| share.live(guest).and_then(|live| guest.compute(&live)))
                }
                None => with_memory(guest, |guest| value_of(shares, guest)),
            }
        });
        match value {
            Err(error) if policy == OnError::Null => {
                env.counts.add_nulled(error.reason);
                Ok(Value::Null)
            }
            value => value.map_err(|error| Box::new(EvalError { error, span, policy })),
        }
    }

    /// Finds the rows of running groups again, in windows whose state was loaded.
    pub(super) fn loaded<W>(&mut self, windows: &[(W, State)]) {
        for ((_, window), running) in windows.iter().zip(&mut self.running) {
            for (call, running) in self.calls.iter().zip(running) {
                let Some(running) = running else { continue };
                match window {
                    State::Fixed(fixed) => {
                        for (key, acc) in fixed.accs(call.place) {
                            let Acc::User(shares) = acc else { continue };
                            shares.iter().for_each(|share| running.of(key).rows.extend(share.rows.iter().cloned()));
                        }
                    }
                    State::Sliding(sliding) => {
                        for (key, args) in sliding.held() {
                            let values = args.get(call.from..call.to).unwrap_or_default();
                            if values.first().is_some_and(|time| !time.is_null()) {
                                running.of(key).rows.push(values.into());
                            }
                        }
                    }
                    State::Session(_) => {}
                }
            }
        }
        self.weigh();
    }

    /// Forgets running groups of which every row has left at this watermark.
    pub(super) fn forget(&mut self, watermark: i64) {
        for running in self.running.iter_mut().flatten().flatten() {
            let size = running.size;
            running.shares.retain(|_, share| share.rows.last().is_some_and(|row| time_of(row).saturating_add(size) > watermark));
        }
        self.weigh();
    }

    fn weigh(&mut self) {
        let bytes = |running: &Running| {
            let of_share = |share: &Share| if running.shared { size_of::<Row>() * share.rows.len() } else { share.bytes() };
            running.shares.iter().map(|(key, share)| key.len() + size_of::<Share>() + of_share(share)).sum::<usize>()
        };
        self.bytes = self.running.iter().flatten().flatten().map(bytes).sum();
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Running {
    fn of(&mut self, key: &[u8]) -> &mut Share {
        if !self.shares.contains_key(key) {
            self.shares.insert(key.into(), Share::default());
        }
        // it is there: the entry of a key that is there makes nothing
        self.shares.entry(key.into()).or_default()
    }
}

impl State {
    /// A row of this time is in no window (`None`), or in one that rows up to the answer have left.
    fn leaves(&self, meta: &RowMeta) -> Option<i64> {
        match self {
            State::Fixed(fixed) => fixed.first_start(meta),
            State::Sliding(sliding) => Some(meta.time.ticks().saturating_sub(sliding.size())),
            State::Session(_) => Some(i64::MIN),
        }
    }

    /// The share of the group that a row will enter, if it has begun.
    fn share_mut(&mut self, meta: &RowMeta, row: &Prepared, place: usize) -> Option<&mut Share> {
        let acc = match self {
            State::Fixed(fixed) => fixed.acc_mut(meta, row, place),
            State::Sliding(_) => None,
            State::Session(sessions) => sessions.acc_mut(row, place),
        };
        match acc {
            Some(Acc::User(shares)) => shares.last_mut(),
            _ => None,
        }
    }
}

impl Env {
    /// A user aggregate's own policy, else that of all.
    fn policy_of(&self, index: usize) -> OnError {
        self.options.functions_on_error.get(&index).copied().unwrap_or(self.options.on_error)
    }

    fn guest(&mut self, plan: &Plan) -> Result<&mut dyn UserAggregate, RowError> {
        let guest = self.functions.as_mut().and_then(|f| f.aggregate(plan.index));
        guest.ok_or_else(|| RowError { reason: "no_function", message: format!("no host was given that runs uda.{}", plan.name) })
    }
}

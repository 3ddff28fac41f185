//! Runs one part of a statement: what feeds its operators, and what they give.
//!
//! In: events, rows, ticks. Out: [`Emitted`]. Invariant: everything that is pushed is worked off before the call
//! returns, or waits in the state of an operator. Not here: the operators; ids of rows (`output`); substreams
//! (`substreams`).

mod lane;
mod output;
mod substreams;

use std::fmt;
use std::sync::Arc;

use self::lane::{Lane, Moment, Weight};
use self::output::{IDS, Ids, OutputRows};
use self::substreams::{Substreams, named};
use super::emitted::{Emitted, StateUpdate};
use super::env::{Env, InputEvent, StepOrigin};
use super::fault::Unloadable;
use super::ingress::Ingress;
use super::options::{EngineError, ExecutorOptions, Functions};
use super::state::Loaded;
use crate::batch::{Batch, Column, Provenance, RawEvent, Rows};
use crate::query::plan::{Expr, External, Node, Part};
use crate::time::Timestamp;
use crate::value::codec::Damaged;
use crate::value::{SmolStr, Value};

/// State rows of user functions.
const FUNCTIONS: u32 = u32::MAX - 1;

/// Runs one part of a statement. It may move between threads and does no I/O; it takes no lock but that of the indexes,
/// once for each version of a reference table.
pub struct Executor {
    env: Env,
    root: Node,
    columns: Arc<[Column]>,
    ingresses: Vec<Ingress>,
    trees: Trees,
    /// An operator keeps state.
    stateful: bool,
    /// A function that is called keeps state.
    remembers: bool,
    /// The column of the rows read that tells their substream.
    substream: Option<usize>,
    /// An expression asks for the substream.
    asks_substream: bool,
    /// How many operators lie on top of each other.
    depth: i64,
    output: OutputRows,
    /// Latest arrival or tick.
    now: i64,
    /// The same, at the last take without a stop.
    taken_at: i64,
    rows_watermark: i64,
    watermark: i64,
}

/// The operator trees: one, or one for each substream.
enum Trees {
    One(Box<Lane>),
    BySubstream(Substreams),
}

impl Executor {
    /// For the operators of a part (`External` and its tail are the pipeline's business, see [`Executor::for_tail`]).
    ///
    /// # Errors
    /// The part holds something that the engine cannot run.
    pub fn new(part: &Part, options: ExecutorOptions, functions: Option<Functions>) -> Result<Executor, EngineError> {
        let columns = if part.external.is_some() { unnamed(part.root.width()) } else { Arc::clone(&part.columns) };
        let mut executor = Executor::build(part.root.clone(), columns, options, functions, false)?;
        executor.substream = part.substream;
        if part.substream.is_some() {
            executor.trees = Trees::BySubstream(Substreams::default());
        }
        Ok(executor)
    }

    /// For the tail of an external call: rows in ([`Executor::push_rows`]) are those of the part's root with the
    /// argument replaced by the answer.
    ///
    /// # Errors
    /// As [`Executor::new`].
    pub fn for_tail(
        external: &External,
        columns: &Arc<[Column]>,
        options: ExecutorOptions,
        functions: Option<Functions>,
    ) -> Result<Executor, EngineError> {
        Executor::build(external.tail.clone(), Arc::clone(columns), options, functions, true)
    }

    fn build(
        root: Node,
        columns: Arc<[Column]>,
        options: ExecutorOptions,
        mut functions: Option<Functions>,
        tail: bool,
    ) -> Result<Executor, EngineError> {
        let ingresses: Vec<Ingress> = root.scans().map(Ingress::new).collect();
        let (stateful, remembers) = (root.is_stateful(), root.calls_state());
        let asks_substream = root.nodes().flat_map(Node::exprs).any(|e| e.any(&|e| matches!(e, Expr::Substream)));
        let ids = match (stateful, ingresses.is_empty(), root.expands()) {
            (true, ..) => Ids::RUNNING,
            (false, true, false) => Ids::Keep,
            (false, true, true) if tail => Ids::RUNNING,
            (false, ..) => Ids::Count,
        };
        // built even if substreams come later: what cannot be run is said at once
        let lane = Lane::new(&root, &options, ingresses.len())?;
        let depth = lane.tree.depth();
        let trees = match ingresses.iter().any(|ingress| !ingress.scan.over.is_empty()) {
            true => Trees::BySubstream(Substreams::default()),
            false => Trees::One(Box::new(lane)),
        };
        if let Some(functions) = &mut functions {
            options.references.iter().for_each(|(name, table)| functions.set_reference(name, table));
        }
        Ok(Executor {
            env: Env::new(options, functions),
            output: OutputRows::new(root.width(), ids, stateful || remembers),
            root,
            columns,
            ingresses,
            trees,
            stateful,
            remembers,
            substream: None,
            asks_substream,
            depth,
            now: Timestamp::MIN.ticks(),
            taken_at: Timestamp::MIN.ticks(),
            rows_watermark: i64::MIN,
            watermark: i64::MIN,
        })
    }

    /// Replaces a reference table; rows pushed from now on see it.
    pub fn set_reference(&mut self, name: SmolStr, table: Arc<Vec<Value>>) {
        if let Some(functions) = &mut self.env.functions {
            functions.set_reference(&name, &table);
        }
        self.env.options.references.insert(name, table);
    }

    /// Takes newer versions of the user functions; rows pushed from now on are given to them. Only between commits.
    pub fn take_versions(&mut self) {
        if let Some(functions) = &mut self.env.functions {
            functions.take_versions();
        }
    }

    /// Takes events of one input; the first has the offset `first`, the others follow.
    pub fn push_events(&mut self, input: &str, first: i64, events: &[RawEvent]) {
        let offsets: Vec<i64> = (first..).take(events.len()).collect();
        self.push_events_at(input, &offsets, events);
    }

    /// Takes events of one input, each with its offset, in order: those of other inputs lie between. Calls come in
    /// offset order over all inputs.
    pub fn push_events_at(&mut self, input: &str, offsets: &[i64], events: &[RawEvent]) {
        let (Some(first), Some(last)) = (offsets.first().copied(), offsets.last().copied()) else { return };
        if self.env.stopped.is_some() || events.is_empty() {
            return;
        }
        let ingresses = self.ingresses.len();
        for (i, ingress) in self.ingresses.iter_mut().enumerate().filter(|(_, ingress)| ingress.scan.input == input) {
            let env = &mut self.env;
            let records = InputEvent::each(offsets, events, self.now);
            match &mut self.trees {
                Trees::One(lane) => match lane.inbox(i, ingress.width(), events.len()) {
                    Ok(inbox) => records.for_each(|record| {
                        ingress.read(env, record, inbox);
                    }),
                    Err(fault) => {
                        env.counts.rows += events.len() as u64;
                        records.for_each(|record| env.refuse_by_fault(record, fault));
                    }
                },
                Trees::BySubstream(substreams) => {
                    let (mut alone, mut key) = (Batch::new(ingress.width()), Vec::new());
                    for record in records {
                        if !ingress.read(env, record, &mut alone)
                            || !ingress.substream(env, record, &mut alone, &mut key)
                        {
                            continue;
                        }
                        let make = || Lane::new(&self.root, &env.options, ingresses);
                        if let Err(fault) = substreams.receive(&key, i, &mut alone, make) {
                            alone.clear();
                            env.refuse_by_fault(record, fault);
                        }
                    }
                }
            }
        }
        if self.ingresses.iter().any(|ingress| ingress.scan.input == input) {
            self.env.counts.read += events.len() as u64;
        }
        self.now = events.iter().map(|e| e.arrival.ticks()).fold(self.now, i64::max);
        self.output.read_up_to(last);
        self.run(StepOrigin { first, events, offsets, metas: &[] }, None);
    }

    /// Takes rows of the stream that a later part (or a tail) reads; the first has the offset `first` in that stream.
    pub fn push_rows(&mut self, first: i64, rows: &Rows) {
        if self.env.stopped.is_some() || rows.batch.is_empty() {
            return;
        }
        let metas = rows.batch.meta().to_vec();
        let mut batch = rows.batch.clone();
        for (meta, offset) in batch.meta_mut().iter_mut().zip(first..) {
            self.now = self.now.max(meta.arrival.ticks());
            self.output.read_up_to(meta.offset);
            meta.offset = offset;
            meta.ordinal = 0;
            if self.stateful {
                // what comes out is made of several rows, and what is held is stored without it
                meta.provenance = Provenance::UNTOLD;
            }
            if self.stateful && self.substream.is_none() {
                // answers that overtook others are moved up, as out-of-order events are
                self.env.counts.adjusted += u64::from(meta.time.ticks() < self.rows_watermark);
                meta.time = meta.time.max(Timestamp::saturating_from_ticks(self.rows_watermark));
            }
            if self.substream.is_none() {
                self.rows_watermark = self.rows_watermark.max(meta.time.ticks());
            }
        }
        self.env.counts.read += batch.len() as u64;
        self.env.counts.rows += batch.len() as u64;
        let origin = StepOrigin { first, events: &[], offsets: &[], metas: &metas };
        let (Some(slot), Trees::BySubstream(substreams)) = (self.substream, &mut self.trees) else {
            return self.run(origin, Some(batch));
        };
        if let Err(fault) = substreams.receive_rows(&batch, slot, || Lane::new(&self.root, &self.env.options, 1)) {
            self.env.report(&origin, fault);
        }
        self.run(origin, None);
    }

    /// Tells a part that reads rows that none earlier than `watermark` will come: what [`Emitted::watermark`] of the
    /// part before said, once all its rows have been pushed.
    pub fn advance(&mut self, watermark: Timestamp) {
        self.rows_watermark = self.rows_watermark.max(watermark.ticks());
        self.run(StepOrigin::default(), None);
    }

    /// Tells that it is `now` in arrival time and nothing has come: windows of quiet inputs close.
    pub fn tick(&mut self, now: Timestamp) {
        self.now = self.now.max(now.ticks());
        self.run(StepOrigin::default(), None);
    }

    /// Tells that the input has ended: every window closes.
    pub fn finish(&mut self) {
        self.now = i64::MAX;
        self.rows_watermark = i64::MAX;
        if let Trees::BySubstream(substreams) = &mut self.trees {
            substreams.touch_all();
        }
        self.run(StepOrigin::default(), None);
    }

    /// When [`Executor::tick`] would next make something come out. `None`: not before the next event.
    pub fn next_tick(&self) -> Option<Timestamp> {
        if self.ingresses.is_empty() || self.env.stopped.is_some() {
            return None;
        }
        let timed = self.ingresses.iter().any(|ingress| ingress.scan.timestamp_by.is_some());
        let delay = if timed { self.env.options.policies.late_tolerance? } else { 0 };
        let deadline = match &self.trees {
            Trees::One(lane) => lane.tree.deadline(),
            // substreams are alike, so the first deadline is the first due
            Trees::BySubstream(substreams) => substreams.deadline(),
        }?;
        let due = deadline.saturating_add(self.depth);
        let at = due.saturating_add(delay).max(self.now.saturating_add(1));
        Some(Timestamp::saturating_from_ticks(at))
    }

    fn run(&mut self, origin: StepOrigin<'_>, rows: Option<Batch>) {
        if self.env.stopped.is_some() {
            return;
        }
        let floor = self.floor();
        let moment = Moment { origin, rows_watermark: self.rows_watermark, now: self.now };
        let (env, output) = (&mut self.env, &mut self.output);
        let watermark = match &mut self.trees {
            Trees::One(lane) => {
                let produced = lane.step(env, moment, rows.unwrap_or_default());
                lane.weigh();
                output.emit(env, &origin, produced.batch);
                produced.watermark
            }
            Trees::BySubstream(substreams) => {
                let mut watermark = floor;
                let of_rows = self.substream.is_some();
                for key in substreams.active(floor) {
                    if self.asks_substream {
                        env.substream = named(&key);
                    }
                    let step = |lane: &mut Lane| match of_rows {
                        true => lane.step_rows(env, moment),
                        false => lane.step(env, moment, Batch::default()),
                    };
                    match substreams.work(&key, floor, step) {
                        Ok(produced) => {
                            watermark = watermark.min(produced.watermark);
                            output.emit(env, &origin, produced.batch);
                        }
                        Err(fault) => env.report(&origin, fault),
                    }
                }
                watermark
            }
        };
        self.watermark = self.watermark.max(watermark);
    }

    /// The oldest event time that can still come, as far as the clock or the part before tells.
    fn floor(&self) -> i64 {
        if self.substream.is_some() {
            return self.rows_watermark;
        }
        match self.env.options.policies.late_tolerance {
            _ if self.now == i64::MAX => i64::MAX,
            Some(late) => self.now.saturating_sub(late),
            None => i64::MIN,
        }
    }

    /// Rows read that wait for earlier ones.
    pub fn waiting(&self) -> u64 {
        self.weight().waiting
    }

    /// How early rows behind one of this time and arrival may be, where this part reads rows: substreams have no order
    /// among each other.
    pub fn earliest_behind(&self, time: Timestamp, arrival: Timestamp) -> Timestamp {
        match (self.substream, self.env.options.policies.late_tolerance) {
            (None, _) => time,
            (Some(_), Some(late)) => arrival.saturating_add(-late),
            (Some(_), None) => Timestamp::MIN,
        }
    }

    /// No row that comes out from now on will be earlier than this; `None` before anything is known.
    pub fn watermark(&self) -> Option<Timestamp> {
        (self.watermark > i64::MIN).then(|| Timestamp::saturating_from_ticks(self.watermark))
    }

    /// Whether a commit is due at once: rows came out, a row failed, or the executor stopped.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty() || !self.env.failures.is_empty() || self.env.stopped.is_some()
    }

    /// Everything that came out and changed since the last call; it belongs into one commit.
    pub fn take(&mut self) -> Emitted {
        let stopped = self.env.stopped.clone();
        if stopped.is_none() {
            self.taken_at = self.now;
        }
        let batch = self.output.take(stopped.is_some());
        let mut state = Vec::new();
        if stopped.is_none() || !self.output.is_whole() {
            self.changes(&mut state);
        }
        Emitted {
            rows: Rows { columns: Arc::clone(&self.columns), batch },
            failures: std::mem::take(&mut self.env.failures),
            counts: std::mem::take(&mut self.env.counts),
            untimely: self.env.untimely.take(),
            waiting: self.waiting(),
            state,
            watermark: self.watermark(),
            now: Timestamp::saturating_from_ticks(self.now),
            stopped,
        }
    }

    /// Goes back to the last take without a stop, so that the records before the row at fault can be pushed again,
    /// alone. Only for a part without state.
    ///
    /// # Errors
    /// As [`Executor::new`].
    pub fn start_over(&mut self) -> Result<(), EngineError> {
        self.trees = match &self.trees {
            Trees::One(_) => Trees::One(Box::new(Lane::new(&self.root, &self.env.options, self.ingresses.len())?)),
            Trees::BySubstream(_) => Trees::BySubstream(Substreams::default()),
        };
        self.env.stopped = None;
        self.now = self.taken_at;
        Ok(())
    }

    fn changes(&mut self, state: &mut Vec<StateUpdate>) {
        let floor = self.floor();
        match &mut self.trees {
            Trees::One(lane) => {
                if std::mem::take(&mut lane.unsaved) {
                    let changed = lane.tree.changes(b"", state);
                    lane.weigh();
                    changed.unwrap_or_else(|fault| self.env.report(&StepOrigin::default(), fault));
                }
            }
            Trees::BySubstream(substreams) => {
                if let Err(fault) = substreams.changes(floor, state) {
                    self.env.report(&StepOrigin::default(), fault);
                }
            }
        }
        self.output.changes(state);
        if let (Some(functions), true) = (&mut self.env.functions, self.remembers) {
            let mut changed = Vec::new();
            functions.take_state(&mut changed);
            state.extend(changed.into_iter().map(|(key, value)| StateUpdate { op: FUNCTIONS, key, value }));
        }
    }

    /// Takes back the state of a commit, before anything is pushed.
    ///
    /// # Errors
    /// A row is damaged.
    pub fn load_state<'a>(
        &mut self,
        rows: impl IntoIterator<Item = (u32, &'a [u8], &'a [u8])>,
    ) -> Result<(), EngineError> {
        for (op, key, value) in rows {
            self.load_row(op, key, value).map_err(|why| EngineError::unloadable(op, why))?;
        }
        match &mut self.trees {
            Trees::One(lane) => {
                lane.tree.loaded();
                lane.weigh();
            }
            Trees::BySubstream(substreams) => substreams.loaded(),
        }
        Ok(())
    }

    fn load_row(&mut self, op: u32, key: &[u8], value: &[u8]) -> Result<(), Unloadable> {
        match op {
            IDS => return Ok(self.output.load(value)?),
            FUNCTIONS => {
                return match (&mut self.env.functions, self.remembers) {
                    (Some(functions), true) => Ok(functions.load_state(key, value)?),
                    // rows of a function that is called no more stay where they are
                    _ => Ok(()),
                };
            }
            _ => {}
        }
        let loaded = Loaded::parse(key, value)?;
        let lane = match &mut self.trees {
            Trees::One(lane) if loaded.substream.is_empty() => lane,
            // the row is of a substream, and there are none
            Trees::One(_) => return Err(Damaged { at: 0 }.into()),
            Trees::BySubstream(substreams) => {
                let inboxes = self.ingresses.len().max(1);
                let make = || Lane::new(&self.root, &self.env.options, inboxes);
                substreams.lane(loaded.substream, make)?
            }
        };
        lane.tree.load(op, &loaded)
    }

    fn weight(&self) -> Weight {
        match &self.trees {
            Trees::One(lane) => lane.weight,
            Trees::BySubstream(substreams) => substreams.weight(),
        }
    }

    /// About how many bytes of state are held, as of the last push, tick or take; costs nothing. What rows add to a
    /// group that grows with them (`Collect`, percentiles) is in it from the next take on.
    pub fn state_bytes(&self) -> usize {
        let functions = self.env.functions.as_ref().map_or(0, |functions| functions.state_bytes());
        self.weight().bytes + functions
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trees = match &self.trees {
            Trees::One(_) => 1,
            Trees::BySubstream(substreams) => substreams.len(),
        };
        f.debug_struct("Executor").field("columns", &self.columns).field("trees", &trees).finish_non_exhaustive()
    }
}

/// Columns of rows on their way to an external call: nobody reads their names.
fn unnamed(width: usize) -> Arc<[Column]> {
    (0..width).map(|i| Column { name: SmolStr::from(format!("c{i}")), spread: false }).collect()
}

//! An operator tree with what feeds it and what it gives.
//!
//! In: events, rows, ticks. Out: [`Emitted`]. Invariant: ids of rows are unique whatever is committed when: rows without
//! state keep the offset of their record and count from 0 in it; rows of a part with state have the newest offset read
//! when they came out and count on from commit to commit. Not here: the operators.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::env::{Env, Origin};
use super::feed::Feed;
use super::key::Key;
use super::op::{Op, Step};
use super::state::{Loaded, put_meta, read_meta};
use super::{Counts, Emitted, EngineError, ExecutorOptions, Functions, StateChange};
use crate::batch::{Batch, Column, RawEvent, RowMeta, Rows};
use crate::query::plan::{External, Node, Part, Scan};
use crate::time::Timestamp;
use crate::value::codec::Reader;
use crate::value::{SmolStr, Value};

/// The state row that keeps ids unique; operators number from 0.
const IDS: u32 = u32::MAX;
/// State rows of user functions.
const FUNCTIONS: u32 = u32::MAX - 1;

/// Runs one part of a statement. It may move between threads and does no I/O; it takes no lock but that of the indexes, once
/// for each version of a reference table.
pub struct Executor {
    env: Env,
    root: Node,
    columns: Arc<[Column]>,
    feeds: Vec<Feed>,
    /// One operator tree per substream; without `TIMESTAMP BY … OVER` one under the empty key.
    lanes: FxHashMap<Key, Lane>,
    /// Substreams that have rows to work off, that changed since the last take, and when something of each is due.
    touched: Vec<Key>,
    unsaved: Vec<Key>,
    due: BTreeSet<(i64, Key)>,
    /// What all lanes hold: bytes, and rows that wait.
    held: Held,
    substreams: bool,
    /// An operator keeps state.
    stateful: bool,
    /// A function that is called keeps state.
    remembers: bool,
    reads_rows: bool,
    /// How many operators lie on top of each other.
    depth: i64,
    ids: Ids,
    out: Batch,
    /// Latest arrival or tick.
    now: i64,
    rows_watermark: i64,
    watermark: i64,
    /// Newest source offset read.
    newest: Option<i64>,
}

struct Lane {
    op: Op,
    inbox: Vec<Batch>,
    touched: bool,
    unsaved: bool,
    deadline: Option<i64>,
    held: Held,
}

/// What is held, as of the last step or take.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    bytes: usize,
    waiting: u64,
}

/// What a substream costs beside what its operators hold: the operators themselves, roughly.
const LANE_BYTES: usize = 1024;

/// Where the ids of emitted rows come from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ids {
    /// One row at most for each row read: it keeps its id.
    Keep,
    /// The offset read, and a count in it.
    Count,
    /// The newest offset, and a count that goes on from commit to commit.
    Running { offset: i64, next: u32, changed: bool },
}

impl Executor {
    /// For the operators of a part (`External` and its tail are the pipeline's business, see [`Executor::for_tail`]).
    ///
    /// # Errors
    /// The part holds something that the engine cannot run.
    pub fn new(part: &Part, options: ExecutorOptions, functions: Option<Functions>) -> Result<Executor, EngineError> {
        let columns = if part.external.is_some() { unnamed(part.root.width()) } else { Arc::clone(&part.columns) };
        Executor::build(part.root.clone(), columns, options, functions, false)
    }

    /// For the tail of an external call: rows in ([`Executor::push_rows`]) are those of the part's root with the argument
    /// replaced by the answer.
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
        let mut scans = Vec::new();
        scans_of(&root, &mut scans);
        let feeds: Vec<Feed> = scans.into_iter().map(Feed::new).collect();
        let (stateful, remembers) = (root.is_stateful(), root.calls_state());
        let substreams = feeds.iter().any(|feed| !feed.scan.over.is_empty());
        let reads_rows = feeds.is_empty();
        let ids = match (stateful, reads_rows, expands(&root)) {
            (true, ..) => Ids::Running { offset: 0, next: 0, changed: false },
            (false, true, false) => Ids::Keep,
            (false, true, true) if tail => Ids::Running { offset: 0, next: 0, changed: false },
            (false, ..) => Ids::Count,
        };
        let mut lanes = FxHashMap::default();
        // built even if substreams come later: what cannot be run is said at once
        let lane = Lane::new(&root, &options, feeds.len())?;
        let depth = lane.op.depth();
        if !substreams {
            lanes.insert(ONLY, lane);
        }
        let out = Batch::new(root.width());
        if let Some(functions) = &mut functions {
            options.references.iter().for_each(|(name, table)| functions.set_reference(name, table));
        }
        let env = Env { options, functions, counts: Counts::default(), failures: Vec::new(), stopped: None, trying: 0 };
        Ok(Executor {
            env,
            root,
            columns,
            feeds,
            lanes,
            touched: Vec::new(),
            unsaved: Vec::new(),
            due: BTreeSet::new(),
            held: Held::default(),
            substreams,
            stateful,
            remembers,
            reads_rows,
            depth,
            ids,
            out,
            now: Timestamp::MIN.ticks(),
            rows_watermark: i64::MIN,
            watermark: i64::MIN,
            newest: None,
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

    /// Takes events of one input; the first has the offset `first`, the others follow. Calls come in offset order over
    /// all inputs.
    pub fn push_events(&mut self, input: &str, first: i64, events: &[RawEvent]) {
        if self.env.stopped.is_some() || events.is_empty() {
            return;
        }
        let mut newest = self.now;
        let mut key = Vec::new();
        let mut wanted = false;
        let feeds = self.feeds.len();
        for (i, feed) in self.feeds.iter_mut().enumerate().filter(|(_, feed)| feed.scan.input == input) {
            wanted = true;
            let mut now = self.now;
            let mut alone = Batch::new(feed.width());
            let mut whole = self.lanes.get_mut(&[][..]).and_then(|lane| lane.inbox.get_mut(i)).map(std::mem::take).unwrap_or_default();
            if whole.width() != feed.width() {
                whole = Batch::with_capacity(feed.width(), events.len());
            }
            for (event, offset) in events.iter().zip(first..) {
                now = now.max(event.arrival.ticks());
                let time = Timestamp::saturating_from_ticks(now);
                if !self.substreams {
                    feed.read(&mut self.env, event, offset, time, &mut whole);
                    continue;
                }
                if feed.read(&mut self.env, event, offset, time, &mut alone)
                    && feed.substream(&mut self.env, event, &mut alone, &mut key)
                    && let Some(lane) = lane_of(&mut self.lanes, &key, &self.root, &self.env.options, feeds)
                    && lane.take(i, &mut alone)
                {
                    self.touched.push(key.as_slice().into());
                }
            }
            newest = newest.max(now);
            if let Some(inbox) = self.lanes.get_mut(&[][..]).and_then(|lane| lane.inbox.get_mut(i)) {
                *inbox = whole;
            }
        }
        if wanted {
            self.env.counts.read += events.len() as u64;
        }
        self.now = events.iter().map(|e| e.arrival.ticks()).fold(newest, i64::max);
        self.newest = Some(first.saturating_add(events.len() as i64 - 1));
        self.run(Origin { first, events, metas: &[] }, None);
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
            self.newest = self.newest.max(Some(meta.offset));
            meta.offset = offset;
            meta.ordinal = 0;
            if self.stateful {
                // answers that overtook others are moved up, as out-of-order events are
                self.env.counts.adjusted += u64::from(meta.time.ticks() < self.rows_watermark);
                meta.time = meta.time.max(Timestamp::saturating_from_ticks(self.rows_watermark));
            }
            self.rows_watermark = self.rows_watermark.max(meta.time.ticks());
        }
        self.env.counts.read += batch.len() as u64;
        self.env.counts.rows += batch.len() as u64;
        self.run(Origin { first, events: &[], metas: &metas }, Some(batch));
    }

    /// Tells a part that reads rows that none earlier than `watermark` will come: what [`Emitted::watermark`] of the part
    /// before said, once all its rows have been pushed.
    pub fn advance(&mut self, watermark: Timestamp) {
        self.rows_watermark = self.rows_watermark.max(watermark.ticks());
        self.run(Origin::default(), None);
    }

    /// Tells that it is `now` in arrival time and nothing has come: windows of quiet inputs close.
    pub fn tick(&mut self, now: Timestamp) {
        self.now = self.now.max(now.ticks());
        self.run(Origin::default(), None);
    }

    /// Tells that the input has ended: every window closes.
    pub fn finish(&mut self) {
        self.now = i64::MAX;
        self.rows_watermark = i64::MAX;
        let quiet = self.lanes.iter_mut().filter_map(|(key, lane)| (!std::mem::replace(&mut lane.touched, true)).then(|| key.clone()));
        self.touched.extend(quiet);
        self.run(Origin::default(), None);
    }

    /// When [`Executor::tick`] would next make something come out. `None`: not before the next event.
    pub fn next_tick(&self) -> Option<Timestamp> {
        if self.reads_rows || self.env.stopped.is_some() {
            return None;
        }
        let timed = self.feeds.iter().any(|feed| feed.scan.timestamp_by.is_some());
        let delay = if timed { self.env.options.policies.late_tolerance? } else { 0 };
        // substreams are alike, so the first deadline is the first due
        let due = match self.substreams {
            true => self.due.first().map(|(deadline, _)| deadline.saturating_add(self.depth)),
            false => self.lanes.values().filter_map(|lane| lane.deadline.map(|d| d.saturating_add(self.depth))).min(),
        }?;
        let at = due.saturating_add(delay).max(self.now.saturating_add(1));
        Some(Timestamp::saturating_from_ticks(at))
    }

    fn run(&mut self, origin: Origin<'_>, mut rows: Option<Batch>) {
        if self.env.stopped.is_some() {
            return;
        }
        let floor = self.floor();
        let mut watermark = i64::MAX;
        let mut keys: Vec<Key> = Vec::new();
        if self.substreams {
            // a quiet substream is looked at only when something of it is due
            keys = std::mem::take(&mut self.touched);
            while self.due.first().is_some_and(|(deadline, _)| *deadline < floor)
                && let Some((_, key)) = self.due.pop_first()
            {
                keys.push(key);
            }
            keys.sort_unstable();
            keys.dedup();
            watermark = floor;
        } else {
            keys.push(ONLY);
        }
        for key in keys {
            let Some(lane) = self.lanes.get_mut(&key) else { continue };
            let width = self.root.width();
            let mut step = Step {
                env: &mut self.env,
                origin,
                inbox: &mut lane.inbox,
                rows: rows.take().unwrap_or_default(),
                rows_watermark: self.rows_watermark,
                now: self.now,
            };
            let flow = lane.op.step(&mut step);
            if lane.op.is_direct() {
                self.env.counts.evaluated += flow.batch.len() as u64;
            }
            lane.touched = false;
            if !std::mem::replace(&mut lane.unsaved, true) {
                self.unsaved.push(key.clone());
            }
            if self.substreams {
                lane.schedule(&key, &mut self.due, floor);
            } else {
                lane.deadline = lane.op.deadline();
            }
            lane.weigh(&mut self.held, self.substreams);
            watermark = watermark.min(flow.watermark);
            debug_assert!(flow.batch.is_empty() || flow.batch.width() == width);
            self.emit(&origin, flow.batch);
        }
        self.watermark = self.watermark.max(watermark);
    }

    /// The oldest event time that can still come, as far as the clock tells.
    fn floor(&self) -> i64 {
        match self.env.options.policies.late_tolerance {
            _ if self.now == i64::MAX => i64::MAX,
            Some(late) => self.now.saturating_sub(late),
            None => i64::MIN,
        }
    }

    fn emit(&mut self, origin: &Origin<'_>, mut batch: Batch) {
        if let (Some(stopped), false) = (&self.env.stopped, self.stateful || self.remembers) {
            let position = stopped.position;
            batch.retain(|meta, _| meta.offset < position);
        }
        let mut last: Option<(i64, u32)> = None;
        for meta in batch.meta_mut() {
            match &mut self.ids {
                Ids::Keep => *meta = origin.restored(meta),
                Ids::Count => {
                    let ordinal = match last {
                        Some((offset, ordinal)) if offset == meta.offset => ordinal.saturating_add(1),
                        _ => 0,
                    };
                    last = Some((meta.offset, ordinal));
                    meta.ordinal = ordinal;
                }
                Ids::Running { offset, next, changed } => {
                    let newest = self.newest.map_or(*offset, |n| n.max(*offset));
                    if newest != *offset {
                        (*offset, *next) = (newest, 0);
                    }
                    meta.offset = *offset;
                    meta.ordinal = *next;
                    *next = next.saturating_add(1);
                    *changed = true;
                }
            }
        }
        self.env.counts.rows_out += batch.len() as u64;
        if self.out.is_empty() && self.out.width() == batch.width() {
            self.out = batch;
        } else {
            self.out.append(&mut batch);
        }
    }

    /// Rows read that wait for earlier ones.
    pub fn waiting(&self) -> u64 {
        self.held.waiting
    }

    /// No row that comes out from now on will be earlier than this; `None` before anything is known.
    pub fn watermark(&self) -> Option<Timestamp> {
        (self.watermark > i64::MIN).then(|| Timestamp::saturating_from_ticks(self.watermark))
    }

    /// Whether a commit is due at once: rows came out, a row failed, or the executor stopped.
    pub fn has_output(&self) -> bool {
        !self.out.is_empty() || !self.env.failures.is_empty() || self.env.stopped.is_some()
    }

    /// Everything that came out and changed since the last call; it belongs into one commit.
    pub fn take(&mut self) -> Emitted {
        let columns = Arc::clone(&self.columns);
        let mut rows = Rows { columns, batch: std::mem::replace(&mut self.out, Batch::new(self.root.width())) };
        let mut state = Vec::new();
        let stopped = self.env.stopped.clone();
        if stopped.is_some() && (self.stateful || self.remembers) {
            rows.batch.clear();
        } else {
            self.changes(&mut state);
        }
        let waiting = self.waiting();
        let watermark = self.watermark();
        Emitted {
            rows,
            failures: std::mem::take(&mut self.env.failures),
            counts: std::mem::take(&mut self.env.counts),
            waiting,
            state,
            watermark,
            stopped,
        }
    }

    fn changes(&mut self, state: &mut Vec<StateChange>) {
        let floor = self.floor();
        let substreams = self.substreams;
        let mut keys = std::mem::take(&mut self.unsaved);
        keys.sort_unstable();
        for key in keys {
            let Some(lane) = self.lanes.get_mut(&*key) else { continue };
            lane.unsaved = false;
            let idle = substreams && !lane.touched && lane.op.is_idle(floor);
            lane.op.changes(&key, state);
            if idle {
                lane.op.retire(&key, state);
            }
            lane.weigh(&mut self.held, substreams);
            if idle {
                if let Some(deadline) = lane.deadline {
                    self.due.remove(&(deadline, key.clone()));
                }
                self.held.bytes = self.held.bytes.saturating_sub(lane.held.bytes);
                self.held.waiting = self.held.waiting.saturating_sub(lane.held.waiting);
                self.lanes.remove(&*key);
            }
        }
        if let Ids::Running { offset, next, changed } = &mut self.ids
            && std::mem::take(changed)
        {
            let meta = RowMeta { time: Timestamp::MIN, arrival: Timestamp::MIN, offset: *offset, ordinal: *next };
            let mut value = Vec::new();
            put_meta(&mut value, &meta);
            state.push(StateChange { op: IDS, key: Vec::new(), value: Some(value) });
        }
        if let (Some(functions), true) = (&mut self.env.functions, self.remembers) {
            let mut changed = Vec::new();
            functions.take_state(&mut changed);
            state.extend(changed.into_iter().map(|(key, value)| StateChange { op: FUNCTIONS, key, value }));
        }
    }

    /// Takes back the state of a commit, before anything is pushed.
    ///
    /// # Errors
    /// A row is damaged.
    pub fn load_state<'a>(&mut self, rows: impl IntoIterator<Item = (u32, &'a [u8], &'a [u8])>) -> Result<(), EngineError> {
        for (op, key, value) in rows {
            let damaged = |damaged| EngineError::State { op, damaged };
            if op == IDS {
                let meta = read_meta(&mut Reader::new(value)).map_err(damaged)?;
                if let Ids::Running { offset, next, .. } = &mut self.ids {
                    (*offset, *next) = (meta.offset, meta.ordinal);
                }
                continue;
            }
            if op == FUNCTIONS {
                // rows of a function that is called no more stay where they are
                if let (Some(functions), true) = (&mut self.env.functions, self.remembers) {
                    functions.load_state(key, value).map_err(damaged)?;
                }
                continue;
            }
            let loaded = Loaded::parse(key, value).map_err(damaged)?;
            let feeds = self.feeds.len();
            if let Some(lane) = lane_of(&mut self.lanes, loaded.substream, &self.root, &self.env.options, feeds) {
                lane.op.load(op, &loaded).map_err(damaged)?;
            }
        }
        for (key, lane) in &mut self.lanes {
            lane.op.loaded();
            if self.substreams {
                lane.schedule(key, &mut self.due, i64::MIN);
            } else {
                lane.deadline = lane.op.deadline();
            }
            lane.touched = false;
            lane.weigh(&mut self.held, self.substreams);
        }
        Ok(())
    }

    /// About how many bytes of state are held, as of the last push, tick or take; costs nothing. What rows add to a group
    /// that grows with them (`Collect`, percentiles) is in it from the next take on.
    pub fn state_bytes(&self) -> usize {
        let functions = self.env.functions.as_ref().map_or(0, |functions| functions.state_bytes());
        self.held.bytes + functions
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("columns", &self.columns).field("substreams", &self.lanes.len()).finish_non_exhaustive()
    }
}

impl Lane {
    fn new(root: &Node, options: &ExecutorOptions, feeds: usize) -> Result<Lane, EngineError> {
        let op = Op::build(root, options, &mut 0)?;
        let (inbox, held) = (vec![Batch::default(); feeds], Held::default());
        Ok(Lane { op, inbox, touched: false, unsaved: false, deadline: None, held })
    }

    /// Notes when this substream has to be looked at next: when something of it is due, else when it can be forgotten.
    fn schedule(&mut self, key: &Key, due: &mut BTreeSet<(i64, Key)>, floor: i64) {
        let deadline = self.op.deadline().or_else(|| self.op.newest().map(|newest| newest.max(floor)));
        if self.deadline != deadline {
            if let Some(old) = self.deadline {
                due.remove(&(old, key.clone()));
            }
            self.deadline = deadline;
        }
        if let Some(deadline) = deadline {
            due.insert((deadline, key.clone()));
        }
    }

    /// Brings the sum over all lanes up to date with this one.
    fn weigh(&mut self, sum: &mut Held, substream: bool) {
        let now = Held { bytes: self.op.bytes() + if substream { LANE_BYTES } else { 0 }, waiting: self.op.waiting() as u64 };
        sum.bytes = (sum.bytes + now.bytes).saturating_sub(self.held.bytes);
        sum.waiting = (sum.waiting + now.waiting).saturating_sub(self.held.waiting);
        self.held = now;
    }

    /// Moves the rows of `from` to one of the inboxes; answers whether they are the first there.
    fn take(&mut self, feed: usize, from: &mut Batch) -> bool {
        let first = !std::mem::replace(&mut self.touched, true);
        if let Some(inbox) = self.inbox.get_mut(feed) {
            if inbox.width() != from.width() {
                *inbox = Batch::new(from.width());
            }
            inbox.append(from);
        }
        first
    }
}

/// Without substreams there is one lane.
const ONLY: Key = Key::EMPTY;

/// The tree of a substream; built when its first row comes.
fn lane_of<'l>(
    lanes: &'l mut FxHashMap<Key, Lane>,
    key: &[u8],
    root: &Node,
    options: &ExecutorOptions,
    feeds: usize,
) -> Option<&'l mut Lane> {
    if !lanes.contains_key(key) {
        lanes.insert(key.into(), Lane::new(root, options, feeds).ok()?);
    }
    lanes.get_mut(key)
}

/// Columns of rows on their way to an external call: nobody reads their names.
fn unnamed(width: usize) -> Arc<[Column]> {
    (0..width).map(|i| Column { name: SmolStr::from(format!("c{i}")), spread: false }).collect()
}

fn scans_of<'n>(node: &'n Node, out: &mut Vec<&'n Scan>) {
    match node {
        Node::Scan(scan) => out.push(scan),
        Node::Rows { .. } => {}
        Node::Filter { input, .. }
        | Node::Project { input, .. }
        | Node::Apply { input, .. }
        | Node::Aggregate { input, .. }
        | Node::Analytic { input, .. }
        | Node::Match { input, .. }
        | Node::ReferenceJoin { input, .. } => scans_of(input, out),
        Node::Join { left, right, .. } => {
            scans_of(left, out);
            scans_of(right, out);
        }
        Node::Union { inputs, .. } => inputs.iter().for_each(|input| scans_of(input, out)),
    }
}

/// Whether one row may become several.
fn expands(node: &Node) -> bool {
    match node {
        Node::Scan(_) | Node::Rows { .. } => false,
        Node::Apply { .. } | Node::ReferenceJoin { .. } | Node::Match { .. } | Node::Join { .. } | Node::Union { .. } => true,
        Node::Filter { input, .. } | Node::Project { input, .. } | Node::Aggregate { input, .. } | Node::Analytic { input, .. } => {
            expands(input)
        }
    }
}

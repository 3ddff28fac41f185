//! An operator tree with the rows that wait to be worked off.
//!
//! In: rows by ingress. Out: what a step gives. Invariant: there is an inbox for every ingress. Not here: which
//! substream the tree belongs to (`substreams`).

use crate::batch::Batch;
use crate::engine::build::build;
use crate::engine::emitted::StateUpdate;
use crate::engine::env::{Env, StepOrigin};
use crate::engine::fault::Fault;
use crate::engine::operator::{OperatorTree, Produced, StepContext};
use crate::engine::options::{EngineError, ExecutorOptions};
use crate::query::plan::Node;

pub(super) struct Lane {
    pub tree: OperatorTree,
    inbox: Vec<Batch>,
    /// Changed since the last take.
    pub unsaved: bool,
    /// What it holds, as of the last step or take.
    pub weight: Weight,
    /// The newest time of the rows of a stream that came here.
    newest: i64,
}

/// What is held: bytes, and rows read that wait.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weight {
    pub bytes: usize,
    pub waiting: u64,
}

/// What a step comes with beside rows.
#[derive(Clone, Copy)]
pub(super) struct Moment<'a> {
    pub origin: StepOrigin<'a>,
    pub rows_watermark: i64,
    /// Latest arrival known; the greatest number when the input has ended.
    pub now: i64,
}

impl Lane {
    /// `ingresses`: how many there are.
    ///
    /// # Errors
    /// The plan holds something that the engine cannot run.
    pub(super) fn new(root: &Node, options: &ExecutorOptions, ingresses: usize) -> Result<Lane, EngineError> {
        let tree = build(root, options)?;
        Ok(Lane {
            tree,
            inbox: vec![Batch::default(); ingresses],
            unsaved: false,
            weight: Weight::default(),
            newest: i64::MIN,
        })
    }

    /// Where the rows of an ingress wait, with room for `rows` more.
    pub(super) fn inbox(&mut self, ingress: usize, width: usize, rows: usize) -> Result<&mut Batch, Fault> {
        let inbox = self.inbox.get_mut(ingress).ok_or(Fault("an operator tree has no inbox for one of its inputs"))?;
        if inbox.width() != width {
            *inbox = Batch::with_capacity(width, rows);
        }
        Ok(inbox)
    }

    /// Works off what waits in the inboxes, and `rows` of a stream.
    pub(super) fn step(&mut self, env: &mut Env, moment: Moment<'_>, rows: Batch) -> Produced {
        let Moment { origin, rows_watermark, now } = moment;
        self.unsaved = true;
        let produced =
            self.tree.step(&mut StepContext { env, origin, inbox: &mut self.inbox, rows, rows_watermark, now });
        if self.tree.is_direct() {
            env.counts.evaluated += produced.batch.len() as u64;
        }
        produced
    }

    /// As [`Lane::step`], with rows of a stream that wait in the first inbox. They are in the order of their time.
    pub(super) fn step_rows(&mut self, env: &mut Env, moment: Moment<'_>) -> Produced {
        let rows = self.inbox.first_mut().map(std::mem::take).unwrap_or_default();
        self.newest = rows.meta().iter().map(|meta| meta.time.ticks()).fold(self.newest, i64::max);
        let rows_watermark = moment.rows_watermark.max(self.newest);
        self.step(env, Moment { rows_watermark, ..moment }, rows)
    }

    /// The greatest event time that came here.
    pub(super) fn newest(&self) -> Option<i64> {
        self.tree.newest().or(Some(self.newest).filter(|newest| *newest > i64::MIN))
    }

    /// Writes what changed since the last take, and removes the last state rows: nothing is open any more.
    pub(super) fn retire(&mut self, substream: &[u8], state: &mut Vec<StateUpdate>) -> Result<(), Fault> {
        self.tree.end();
        let changed = self.tree.changes(substream, state);
        self.tree.retire(substream, state);
        changed
    }

    /// Weighs it anew.
    pub(super) fn weigh(&mut self) -> Weight {
        self.weight = Weight { bytes: self.tree.bytes(), waiting: self.tree.waiting() as u64 };
        self.weight
    }
}
